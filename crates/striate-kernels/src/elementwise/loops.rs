//! Loops over flat memory. There is one call of the function in each, so that the compiler inlines it into the vector code.
use crate::simd::Simd;

/// Loads up to `left` floats from `p`; lanes beyond hold zero.
///
/// # Safety
/// `p` must be readable for `min(left, LANES)` floats.
#[inline(always)]
pub(crate) unsafe fn load_up_to<S: Simd>(s: S, p: *const f32, left: usize) -> S::V {
    // SAFETY: by contract.
    unsafe { if left >= S::LANES { s.load(p) } else { s.load_partial(p, left) } }
}

/// Stores up to `left` floats to `p`.
///
/// # Safety
/// `p` must be writable for `min(left, LANES)` floats.
#[inline(always)]
pub(crate) unsafe fn store_up_to<S: Simd>(s: S, p: *mut f32, left: usize, v: S::V) {
    // SAFETY: by contract.
    unsafe { if left >= S::LANES { s.store(p, v) } else { s.store_partial(p, left, v) } }
}

/// True for the first `left` lanes.
#[inline(always)]
pub(crate) fn tail_mask<S: Simd>(s: S, left: usize) -> S::M {
    const INDEX: [f32; 16] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
    // SAFETY: 16 floats hold any vector of this crate.
    let index = unsafe { s.load(INDEX.as_ptr()) };
    s.lt(index, s.splat(left.min(16) as f32))
}

/// `out[i] = f(x[i])`.
///
/// # Safety
/// Both pointers must be good for `n` floats. They may be equal, but not overlap otherwise.
#[inline(always)]
pub(crate) unsafe fn map1<S: Simd>(s: S, n: usize, x: *const f32, out: *mut f32, f: impl Fn(S::V) -> S::V) {
    let mut i = 0;
    while i < n {
        // SAFETY: i < n, and the partial forms stay below n.
        unsafe { store_up_to(s, out.add(i), n - i, f(load_up_to(s, x.add(i), n - i))) };
        i += S::LANES;
    }
}

/// Two inputs of a binary loop: which of them is one number.
#[derive(Clone, Copy)]
pub(crate) enum Pair {
    Slices(*const f32, *const f32),
    RightScalar(*const f32, f32),
    LeftScalar(f32, *const f32),
}

/// `out[i] = f(x[i], y[i])`.
///
/// # Safety
/// All pointers must be good for `n` floats. The output may equal an input, but not overlap it otherwise.
#[inline(always)]
pub(crate) unsafe fn map2<S: Simd>(s: S, n: usize, pair: Pair, out: *mut f32, f: impl Fn(S::V, S::V) -> S::V) {
    let (x, dx, xs, y, dy, ys) = match pair {
        Pair::Slices(x, y) => (x, 1, 0.0, y, 1, 0.0),
        Pair::RightScalar(x, c) => (x, 1, 0.0, x, 0, c),
        Pair::LeftScalar(c, y) => (y, 0, c, y, 1, 0.0),
    };
    let (xs, ys) = (s.splat(xs), s.splat(ys));
    let mut i = 0;
    while i < n {
        let left = n - i;
        // SAFETY: i < n, and the partial forms stay below n.
        unsafe {
            let a = if dx == 1 { load_up_to(s, x.add(i), left) } else { xs };
            let b = if dy == 1 { load_up_to(s, y.add(i), left) } else { ys };
            store_up_to(s, out.add(i), left, f(a, b));
        }
        i += S::LANES;
    }
}
