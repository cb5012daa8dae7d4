//! Vectors as arrays of 8 floats, which the compiler turns into what the target's baseline has.

use super::{Isa, Kernel, Simd};

/// The instruction set of every CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portable(());

impl Portable {
    /// The token.
    pub fn new() -> Self {
        Portable(())
    }
}

#[inline(never)]
fn run_portable<K: Kernel>(s: Portable, kernel: K) -> K::Output {
    kernel.run(s)
}

type V8 = [f32; 8];

#[inline(always)]
fn zip(a: V8, b: V8, f: impl Fn(f32, f32) -> f32) -> V8 {
    std::array::from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn fold(a: V8, f: impl Fn(f32, f32) -> f32) -> f32 {
    let b: [f32; 4] = std::array::from_fn(|i| f(a[i], a[i + 4]));
    f(f(b[0], b[2]), f(b[1], b[3]))
}

/// `2^n` for a whole `n` from -126 to 127.
#[inline(always)]
fn exp2_int(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

impl Simd for Portable {
    type V = V8;
    type M = [bool; 8];
    const LANES: usize = 8;
    const ISA: Isa = Isa::Portable;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        run_portable(self, kernel)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> V8 {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V8 {
        // SAFETY: readable for 8 floats by contract; the read is unaligned.
        unsafe { p.cast::<V8>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V8) {
        // SAFETY: writable for 8 floats by contract; the write is unaligned.
        unsafe { p.cast::<V8>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> V8 {
        let mut v = [0.0; 8];
        // SAFETY: readable for min(n, 8) floats by contract.
        unsafe { std::ptr::copy_nonoverlapping(p, v.as_mut_ptr(), n.min(8)) };
        v
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize, v: V8) {
        // SAFETY: writable for min(n, 8) floats by contract.
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), p, n.min(8)) }
    }

    #[inline(always)]
    fn add(self, a: V8, b: V8) -> V8 {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: V8, b: V8) -> V8 {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: V8, b: V8) -> V8 {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: V8, b: V8) -> V8 {
        zip(a, b, |a, b| a / b)
    }
    /// Fused on aarch64. On x86 without FMA `f32::mul_add` would call a slow library function: two roundings there.
    #[inline(always)]
    fn mul_add(self, a: V8, b: V8, c: V8) -> V8 {
        if cfg!(target_arch = "aarch64") {
            std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        } else {
            std::array::from_fn(|i| a[i] * b[i] + c[i])
        }
    }
    #[inline(always)]
    fn neg_mul_add(self, a: V8, b: V8, c: V8) -> V8 {
        self.mul_add(self.neg(a), b, c)
    }
    #[inline(always)]
    fn min(self, a: V8, b: V8) -> V8 {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, a: V8, b: V8) -> V8 {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(self, a: V8) -> V8 {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    fn abs(self, a: V8) -> V8 {
        a.map(f32::abs)
    }
    #[inline(always)]
    fn neg(self, a: V8) -> V8 {
        a.map(|x| -x)
    }
    #[inline(always)]
    fn copysign(self, a: V8, sign: V8) -> V8 {
        zip(a, sign, f32::copysign)
    }
    #[inline(always)]
    fn round(self, a: V8) -> V8 {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    fn floor(self, a: V8) -> V8 {
        a.map(f32::floor)
    }
    #[inline(always)]
    fn scale_by_exp2(self, a: V8, n: V8) -> V8 {
        zip(a, n, |a, n| {
            // Three factors, so that each stays a normal number.
            let n = n as i32;
            let third = n / 3;
            a * exp2_int(third) * exp2_int(third) * exp2_int(n - 2 * third)
        })
    }
    #[inline(always)]
    fn split_exponent(self, a: V8) -> (V8, V8) {
        let e = a.map(|x| ((x.to_bits() >> 23) & 0xff) as f32 - 127.0);
        let m = a.map(|x| f32::from_bits((x.to_bits() & 0x007f_ffff) | 0x3f80_0000));
        (m, e)
    }

    #[inline(always)]
    fn lt(self, a: V8, b: V8) -> [bool; 8] {
        std::array::from_fn(|i| a[i] < b[i])
    }
    #[inline(always)]
    fn le(self, a: V8, b: V8) -> [bool; 8] {
        std::array::from_fn(|i| a[i] <= b[i])
    }
    #[inline(always)]
    fn eq(self, a: V8, b: V8) -> [bool; 8] {
        std::array::from_fn(|i| a[i] == b[i])
    }
    #[inline(always)]
    fn select(self, m: [bool; 8], a: V8, b: V8) -> V8 {
        std::array::from_fn(|i| if m[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn all(self, m: [bool; 8]) -> bool {
        m.iter().all(|&x| x)
    }

    #[inline(always)]
    fn reduce_add(self, a: V8) -> f32 {
        fold(a, |a, b| a + b)
    }
    #[inline(always)]
    fn reduce_max(self, a: V8) -> f32 {
        fold(a, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn reduce_min(self, a: V8) -> f32 {
        fold(a, |a, b| if a < b { a } else { b })
    }
}
