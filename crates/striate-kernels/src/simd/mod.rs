//! Vectors of `f32` behind tokens that prove what the CPU can do.
//!
//! A kernel is written once, generic over [`Simd`], as a [`Kernel`] whose `run` is `#[inline(always)]`. [`Isa::dispatch`] calls
//! it through a function compiled for the instruction set, once a kernel call; everything inlined below it may use the
//! vectors freely:
//!
//! ```
//! use striate_kernels::simd::{isa, Kernel, Simd};
//!
//! struct Scale<'a>(&'a mut [f32], f32);
//! impl Kernel for Scale<'_> {
//!     type Output = ();
//!     #[inline(always)]
//!     fn run<S: Simd>(self, s: S) {
//!         let factor = s.splat(self.1);
//!         striate_kernels::simd::for_each_chunk(s, self.0, |v| s.mul(v, factor));
//!     }
//! }
//! let mut values = vec![1.0f32; 19];
//! isa().dispatch(Scale(&mut values, 3.0));
//! assert_eq!(values, vec![3.0; 19]);
//! ```

mod isa;
pub mod math;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use isa::{Isa, IsaError, available_isas, check_isa_env, isa};
pub use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

/// Work that is generic over the instruction set. Mark `run` and what it calls in its hot loops `#[inline(always)]`.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// Does the work with the vectors of `s`.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// A token for one instruction set, with its vector of `LANES` floats.
///
/// A token exists only where the CPU has the features, so its methods need no further check. Memory is reached through
/// raw pointers: those methods are `unsafe` for the pointer's sake alone.
///
/// Comparisons with NaN are false. `min` and `max` return the **second** operand where either is NaN or both are zero, so
/// `max(zero, x)` keeps a NaN of `x`.
pub trait Simd: Copy + Send + Sync + 'static {
    /// A vector of `LANES` floats.
    type V: Copy;
    /// One truth value a lane.
    type M: Copy;
    /// Number of floats in a vector.
    const LANES: usize;
    /// The instruction set.
    const ISA: Isa;

    /// Runs `kernel` in a function compiled for this instruction set.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;

    /// All lanes are `x`.
    fn splat(self, x: f32) -> Self::V;
    /// Loads `LANES` floats; no alignment needed.
    ///
    /// # Safety
    /// `p` must be readable for `LANES` floats.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// Stores `LANES` floats; no alignment needed.
    ///
    /// # Safety
    /// `p` must be writable for `LANES` floats.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// Loads the first `n` lanes (`n` above `LANES` counts as `LANES`), the rest is zero.
    ///
    /// # Safety
    /// `p` must be readable for `min(n, LANES)` floats.
    unsafe fn load_partial(self, p: *const f32, n: usize) -> Self::V;
    /// Stores the first `n` lanes (`n` above `LANES` counts as `LANES`).
    ///
    /// # Safety
    /// `p` must be writable for `min(n, LANES)` floats.
    unsafe fn store_partial(self, p: *mut f32, n: usize, v: Self::V);

    /// Asks for the cache line at `p`, which may be anywhere: what cannot be had is not fetched.
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: SSE is part of x86_64, and a prefetch touches no memory that the program could observe.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(p.cast())
        };
        #[cfg(not(target_arch = "x86_64"))]
        let _ = p;
    }

    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`, correctly rounded.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`: fused where the hardware has it, else rounded twice (portable x86).
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b`, rounded like [`Simd::mul_add`].
    fn neg_mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a < b ? a : b`.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a > b ? a : b`.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// Square root, correctly rounded.
    fn sqrt(self, a: Self::V) -> Self::V;
    /// Absolute value.
    fn abs(self, a: Self::V) -> Self::V;
    /// Sign flipped.
    fn neg(self, a: Self::V) -> Self::V;
    /// The magnitude of `a` with the sign of `sign`.
    fn copysign(self, a: Self::V, sign: Self::V) -> Self::V;
    /// Nearest integer, halves to even.
    fn round(self, a: Self::V) -> Self::V;
    /// Largest integer not above.
    fn floor(self, a: Self::V) -> Self::V;
    /// `a * 2^n` for `n` a whole number from -300 to 300 (results overflow to infinity and underflow as multiplication does).
    fn scale_by_exp2(self, a: Self::V, n: Self::V) -> Self::V;
    /// `(m, e)` with `a = m * 2^e` and `1 <= m < 2`, for finite normal `a > 0`; other lanes are unspecified.
    fn split_exponent(self, a: Self::V) -> (Self::V, Self::V);

    /// `a < b`.
    fn lt(self, a: Self::V, b: Self::V) -> Self::M;
    /// `a <= b`.
    fn le(self, a: Self::V, b: Self::V) -> Self::M;
    /// `a == b`.
    fn eq(self, a: Self::V, b: Self::V) -> Self::M;
    /// `m ? a : b`.
    fn select(self, m: Self::M, a: Self::V, b: Self::V) -> Self::V;
    /// True where all lanes are.
    fn all(self, m: Self::M) -> bool;

    /// Sum of the lanes by halving: lane `i` plus lane `i + width/2`, until one is left.
    fn reduce_add(self, a: Self::V) -> f32;
    /// Largest lane by halving.
    fn reduce_max(self, a: Self::V) -> f32;
    /// Smallest lane by halving.
    fn reduce_min(self, a: Self::V) -> f32;

    /// `a > b`.
    #[inline(always)]
    fn gt(self, a: Self::V, b: Self::V) -> Self::M {
        self.lt(b, a)
    }
    /// `a >= b`.
    #[inline(always)]
    fn ge(self, a: Self::V, b: Self::V) -> Self::M {
        self.le(b, a)
    }
    /// All lanes zero.
    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }
}

/// Replaces each element of `data` by `f` of it, a vector at a time; the last vector is partial (its unused lanes hold zero).
#[inline(always)]
pub fn for_each_chunk<S: Simd>(s: S, data: &mut [f32], f: impl Fn(S::V) -> S::V) {
    let mut chunks = data.chunks_exact_mut(S::LANES);
    for chunk in &mut chunks {
        let p = chunk.as_mut_ptr();
        // SAFETY: the chunk has LANES floats.
        unsafe { s.store(p, f(s.load(p))) };
    }
    let rest = chunks.into_remainder();
    if !rest.is_empty() {
        let (p, n) = (rest.as_mut_ptr(), rest.len());
        // SAFETY: the remainder has n floats.
        unsafe { s.store_partial(p, n, f(s.load_partial(p, n))) };
    }
}

/// `out[i] = f(x[i])`, a vector at a time, over the shorter of the two slices.
#[inline(always)]
pub fn map_chunks<S: Simd>(s: S, x: &[f32], out: &mut [f32], f: impl Fn(S::V) -> S::V) {
    let n = x.len().min(out.len());
    let (xp, op) = (x.as_ptr(), out.as_mut_ptr());
    let mut i = 0;
    // SAFETY: every access stays below n, which both slices have.
    unsafe {
        while i + S::LANES <= n {
            s.store(op.add(i), f(s.load(xp.add(i))));
            i += S::LANES;
        }
        if i < n {
            s.store_partial(op.add(i), n - i, f(s.load_partial(xp.add(i), n - i)));
        }
    }
}

#[cfg(test)]
mod tests;
