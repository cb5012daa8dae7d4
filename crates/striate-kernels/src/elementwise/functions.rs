//! The elementwise functions on vectors: one loop for each kind, chosen outside of it.
use super::loops::{Pair, map1, map2};
use crate::conv::Activation;
use crate::kinds::{BinaryKind, UnaryKind};
use crate::reference::{SELU_ALPHA, SELU_SCALE, reference_binary_element, reference_unary, reference_unary_grad};
use crate::simd::{Simd, math};
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// Applies a scalar function to each lane: for functions that no network computes often (sine, general powers).
#[inline(always)]
fn lanewise<S: Simd>(s: S, x: S::V, f: impl Fn(f32) -> f32) -> S::V {
    let mut lanes = [0.0; 16];
    // SAFETY: 16 floats hold any vector of this crate.
    unsafe {
        s.store(lanes.as_mut_ptr(), x);
        lanes[..S::LANES].iter_mut().for_each(|v| *v = f(*v));
        s.load(lanes.as_ptr())
    }
}

#[inline(always)]
fn lanewise2<S: Simd>(s: S, x: S::V, y: S::V, f: impl Fn(f32, f32) -> f32) -> S::V {
    let mut right = [0.0; 16];
    // SAFETY: 16 floats hold any vector of this crate.
    unsafe { s.store(right.as_mut_ptr(), y) };
    let mut left = [0.0; 16];
    // SAFETY: as above.
    unsafe {
        s.store(left.as_mut_ptr(), x);
        left[..S::LANES].iter_mut().zip(&right).for_each(|(v, &w)| *v = f(*v, w));
        s.load(left.as_ptr())
    }
}

/// `ln(1 + u)` for `0 <= u <= 1`, by Kahan's correction of the rounding of `1 + u`.
#[inline(always)]
fn log1p_unit<S: Simd>(s: S, u: S::V) -> S::V {
    let w = s.add(s.splat(1.0), u);
    let d = s.sub(w, s.splat(1.0));
    let corrected = s.div(s.mul(math::log(s, w), u), d);
    s.select(s.gt(d, s.zero()), corrected, u)
}

/// `ln(1 + e^z)`; NaN stays NaN.
#[inline(always)]
pub(crate) fn softplus<S: Simd>(s: S, z: S::V) -> S::V {
    let tail = log1p_unit(s, math::exp(s, s.neg(s.abs(z))));
    s.add(s.max(s.zero(), z), tail)
}

/// `(e^-x, 1 / (1 + e^-x))`, the first at most e^88 so that products of both stay finite.
#[inline(always)]
fn exp_and_sigmoid<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let e = math::exp(s, s.min(s.splat(88.0), s.neg(x)));
    (e, s.div(s.splat(1.0), s.add(s.splat(1.0), e)))
}

/// Mish's `n = e(e + 2)` with `e = e^x`, so that `tanh(softplus(x)) = n / (n + 2)`. Beyond 20 the quotient is 1.
#[inline(always)]
fn mish_parts<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let e = math::exp(s, s.min(s.splat(20.0), x));
    (e, s.mul(e, s.add(e, s.splat(2.0))))
}

#[inline(always)]
fn elu<S: Simd>(s: S, x: S::V, alpha: f32, input_scale: f32) -> S::V {
    let negative = s.mul(s.splat(alpha), math::expm1(s, s.mul(s.min(s.zero(), x), s.splat(input_scale))));
    s.select(s.gt(x, s.zero()), x, negative)
}

#[inline(always)]
fn elu_slope<S: Simd>(s: S, x: S::V, alpha: f32, input_scale: f32) -> S::V {
    let negative = s.mul(s.splat(alpha * input_scale), math::exp(s, s.mul(s.min(s.zero(), x), s.splat(input_scale))));
    s.select(s.le(x, s.zero()), negative, s.splat(1.0))
}

/// `sqrt(2 / π)`.
const GELU_SCALE: f32 = 0.797_884_6;
const GELU_CUBE: f32 = 0.044_715;

#[inline(always)]
fn gelu_inner<S: Simd>(s: S, x: S::V) -> S::V {
    let x2 = s.mul(x, x);
    s.mul(s.mul(s.splat(GELU_SCALE), x), s.mul_add(x2, s.splat(GELU_CUBE), s.splat(1.0)))
}

/// `(1 + erf(x / sqrt 2)) / 2`.
#[inline(always)]
fn normal_distribution<S: Simd>(s: S, x: S::V) -> S::V {
    let erf = math::erf(s, s.mul(x, s.splat(FRAC_1_SQRT_2)));
    s.mul_add(erf, s.splat(0.5), s.splat(0.5))
}

/// `1 - tanh²(x) = 4 e / (1 + e)²` with `e = e^-2|x|`.
#[inline(always)]
fn tanh_slope<S: Simd>(s: S, x: S::V) -> S::V {
    let e = math::exp(s, s.mul(s.splat(-2.0), s.abs(x)));
    let d = s.add(s.splat(1.0), e);
    s.div(s.mul(s.splat(4.0), e), s.mul(d, d))
}

#[inline(always)]
fn sign<S: Simd>(s: S, x: S::V) -> S::V {
    let unit = s.copysign(s.splat(1.0), x);
    // Zero and NaN stay as they are.
    s.select(s.gt(s.abs(x), s.zero()), unit, x)
}

/// Whole powers up to 4 by multiplication, halves by roots, the rest by the platform's `powf`.
#[inline(always)]
fn pow_const<S: Simd>(s: S, x: S::V, exponent: f32) -> S::V {
    let x2 = s.mul(x, x);
    if exponent == 2.0 {
        x2
    } else if exponent == 3.0 {
        s.mul(x2, x)
    } else if exponent == 4.0 {
        s.mul(x2, x2)
    } else if exponent == 1.0 {
        x
    } else if exponent == 0.0 {
        s.splat(1.0)
    } else if exponent == -1.0 {
        s.div(s.splat(1.0), x)
    } else {
        lanewise(s, x, |v| v.powf(exponent))
    }
}

/// `out[i] = kind(x[i])`. What a convolution can fuse is computed by the same instructions as there.
///
/// # Safety
/// As [`map1`].
#[inline(always)]
pub(crate) unsafe fn unary_loop<S: Simd>(s: S, kind: UnaryKind, n: usize, x: *const f32, out: *mut f32) {
    use UnaryKind::*;
    let (zero, one) = (s.zero(), s.splat(1.0));
    macro_rules! each {
        (|$v:ident| $body:expr) => {
            // SAFETY: by contract.
            unsafe { map1(s, n, x, out, |$v| $body) }
        };
    }
    match kind {
        Neg => each!(|v| s.neg(v)),
        Abs => each!(|v| s.abs(v)),
        Sign => each!(|v| sign(s, v)),
        Exp => each!(|v| math::exp(s, v)),
        Log => each!(|v| math::log(s, v)),
        Sqrt => each!(|v| s.sqrt(v)),
        Rsqrt => each!(|v| s.div(one, s.sqrt(v))),
        Square => each!(|v| s.mul(v, v)),
        Reciprocal => each!(|v| s.div(one, v)),
        Sin => each!(|v| lanewise(s, v, f32::sin)),
        Cos => each!(|v| lanewise(s, v, f32::cos)),
        Tan | Asin | Acos | Atan | Sinh | Cosh | Asinh | Acosh | Atanh => {
            each!(|v| lanewise(s, v, |x| reference_unary(kind, x)))
        }
        Erf => each!(|v| math::erf(s, v)),
        Floor => each!(|v| s.floor(v)),
        Ceil => each!(|v| s.neg(s.floor(s.neg(v)))),
        Round => each!(|v| s.round(v)),
        Relu => each!(|v| Activation::Relu.apply_vector(s, v)),
        LeakyRelu { slope } => each!(|v| Activation::LeakyRelu { slope }.apply_vector(s, v)),
        Elu { alpha } => each!(|v| Activation::Elu { alpha }.apply_vector(s, v)),
        Selu => each!(|v| s.mul(s.splat(SELU_SCALE as f32), elu(s, v, SELU_ALPHA as f32, 1.0))),
        Celu { alpha } => each!(|v| elu(s, v, alpha, 1.0 / alpha)),
        Gelu => each!(|v| Activation::Gelu.apply_vector(s, v)),
        GeluTanh => each!(|v| Activation::GeluTanh.apply_vector(s, v)),
        Silu => each!(|v| Activation::Silu.apply_vector(s, v)),
        Mish => each!(|v| {
            let (_, p) = mish_parts(s, v);
            s.mul(v, s.div(p, s.add(p, s.splat(2.0))))
        }),
        Hardswish => each!(|v| Activation::Hardswish.apply_vector(s, v)),
        Hardsigmoid => each!(|v| Activation::Hardsigmoid.apply_vector(s, v)),
        Clip { min, max } => each!(|v| Activation::Clip { lo: min, hi: max }.apply_vector(s, v)),
        Softplus { beta, threshold } => each!(|v| {
            let z = s.mul(s.splat(beta), v);
            s.select(s.gt(z, s.splat(threshold)), v, s.div(softplus(s, z), s.splat(beta)))
        }),
        Softsign => each!(|v| s.div(v, s.add(one, s.abs(v)))),
        Sigmoid => each!(|v| Activation::Sigmoid.apply_vector(s, v)),
        Tanh => each!(|v| Activation::Tanh.apply_vector(s, v)),
        LogSigmoid => each!(|v| s.neg(softplus(s, s.neg(v)))),
        PowConst { exponent } => each!(|v| pow_const(s, v, exponent)),
        Affine { scale, shift } => each!(|v| s.add(s.mul(v, s.splat(scale)), s.splat(shift))),
        Not => each!(|v| s.select(s.eq(v, zero), one, zero)),
    }
}

/// `dy` where x lies between the bounds, else 0.
#[inline(always)]
pub(crate) fn clip_grad<S: Simd>(s: S, x: S::V, dy: S::V, [low, high]: [f32; 2]) -> S::V {
    let above = s.select(s.gt(x, s.splat(low)), dy, s.zero());
    s.select(s.lt(x, s.splat(high)), above, s.zero())
}

#[inline(always)]
pub(crate) fn hardswish_grad<S: Simd>(s: S, x: S::V, dy: S::V) -> S::V {
    let inside = s.mul(dy, s.mul_add(x, s.splat(1.0 / 3.0), s.splat(0.5)));
    s.select(s.le(x, s.splat(-3.0)), s.zero(), s.select(s.lt(x, s.splat(3.0)), inside, dy))
}

#[inline(always)]
pub(crate) fn silu_grad<S: Simd>(s: S, x: S::V, dy: S::V) -> S::V {
    let (e, sigmoid) = exp_and_sigmoid(s, x);
    s.mul(s.mul(dy, sigmoid), s.mul_add(x, s.mul(e, sigmoid), s.splat(1.0)))
}

/// `out[i] = kind'(x[i]) * dy[i]`; the pair is (x, dy).
///
/// # Safety
/// As [`map2`].
#[inline(always)]
pub(crate) unsafe fn unary_grad_loop<S: Simd>(s: S, kind: UnaryKind, n: usize, pair: Pair, out: *mut f32) {
    use UnaryKind::*;
    let zero = s.zero();
    macro_rules! each {
        (|$x:ident, $g:ident| $body:expr) => {
            // SAFETY: by contract.
            unsafe { map2(s, n, pair, out, |$x, $g| $body) }
        };
    }
    match kind {
        Neg => each!(|_x, g| s.neg(g)),
        Abs => each!(|x, g| s.mul(g, sign(s, x))),
        Sign | Floor | Ceil | Round | Not => each!(|_x, _g| zero),
        Exp => each!(|x, g| s.mul(g, math::exp(s, x))),
        Log => each!(|x, g| s.div(g, x)),
        Sqrt => each!(|x, g| s.div(s.mul(g, s.splat(0.5)), s.sqrt(x))),
        Rsqrt => each!(|x, g| s.div(s.mul(g, s.splat(-0.5)), s.mul(x, s.sqrt(x)))),
        Square => each!(|x, g| s.mul(g, s.add(x, x))),
        Reciprocal => each!(|x, g| s.neg(s.div(g, s.mul(x, x)))),
        Relu => each!(|x, g| s.select(s.gt(x, zero), g, zero)),
        LeakyRelu { slope } => each!(|x, g| s.select(s.gt(x, zero), g, s.mul(g, s.splat(slope)))),
        Hardswish => each!(|x, g| hardswish_grad(s, x, g)),
        Hardsigmoid => each!(|x, g| {
            let inside = s.lt(s.abs(x), s.splat(3.0));
            s.select(inside, s.mul(g, s.splat(1.0 / 6.0)), zero)
        }),
        Clip { min, max } => each!(|x, g| clip_grad(s, x, g, [min, max])),
        Affine { scale, .. } => each!(|_x, g| s.mul(g, s.splat(scale))),
        // SAFETY: by contract.
        _ => unsafe { curved_grad_loop(s, kind, n, pair, out) },
    }
}

/// The part of [`unary_grad_loop`] whose functions need more than arithmetic.
///
/// # Safety
/// As [`map2`].
#[inline(always)]
unsafe fn curved_grad_loop<S: Simd>(s: S, kind: UnaryKind, n: usize, pair: Pair, out: *mut f32) {
    use UnaryKind::*;
    let (zero, one) = (s.zero(), s.splat(1.0));
    macro_rules! each {
        (|$x:ident, $g:ident| $body:expr) => {
            // SAFETY: by contract.
            unsafe { map2(s, n, pair, out, |$x, $g| $body) }
        };
    }
    match kind {
        Sin => each!(|x, g| s.mul(g, lanewise(s, x, f32::cos))),
        Cos => each!(|x, g| s.mul(g, lanewise(s, x, |v| -v.sin()))),
        Tan | Asin | Acos | Atan | Sinh | Cosh | Asinh | Acosh | Atanh => {
            each!(|x, g| s.mul(g, lanewise(s, x, |v| reference_unary_grad(kind, v, 1.0))))
        }
        Erf => each!(|x, g| s.mul(g, s.mul(s.splat(FRAC_2_SQRT_PI), math::exp(s, s.neg(s.mul(x, x)))))),
        Elu { alpha } => each!(|x, g| s.mul(g, elu_slope(s, x, alpha, 1.0))),
        Selu => each!(|x, g| s.mul(g, s.mul(s.splat(SELU_SCALE as f32), elu_slope(s, x, SELU_ALPHA as f32, 1.0)))),
        Celu { alpha } => each!(|x, g| s.mul(g, elu_slope(s, x, alpha, 1.0 / alpha))),
        Gelu => each!(|x, g| {
            let density = s.mul(s.splat(0.398_942_3), math::exp(s, s.mul(s.splat(-0.5), s.mul(x, x))));
            s.mul(g, s.mul_add(x, density, normal_distribution(s, x)))
        }),
        GeluTanh => each!(|x, g| {
            let inner = gelu_inner(s, x);
            let slope = s.mul_add(s.mul(x, x), s.splat(3.0 * GELU_CUBE * GELU_SCALE), s.splat(GELU_SCALE));
            let bend = s.mul(s.mul(x, tanh_slope(s, inner)), slope);
            s.mul(s.mul(g, s.splat(0.5)), s.add(s.add(one, math::tanh(s, inner)), bend))
        }),
        Silu => each!(|x, g| silu_grad(s, x, g)),
        Mish => each!(|x, g| {
            let (e, p) = mish_parts(s, x);
            let d = s.add(p, s.splat(2.0));
            let bend = s.div(s.mul(s.mul(s.splat(4.0), e), s.add(one, e)), s.mul(d, d));
            // Beyond 20 the curve is straight.
            let slope = s.mul_add(s.min(s.splat(20.0), x), bend, s.div(p, d));
            s.mul(g, slope)
        }),
        Softplus { beta, threshold } => each!(|x, g| {
            let z = s.mul(s.splat(beta), x);
            s.select(s.gt(z, s.splat(threshold)), g, s.mul(g, math::sigmoid(s, z)))
        }),
        Softsign => each!(|x, g| {
            let d = s.add(one, s.abs(x));
            s.div(g, s.mul(d, d))
        }),
        Sigmoid => each!(|x, g| {
            let (e, sigmoid) = exp_and_sigmoid(s, x);
            s.mul(g, s.mul(s.mul(e, sigmoid), sigmoid))
        }),
        Tanh => each!(|x, g| s.mul(g, tanh_slope(s, x))),
        LogSigmoid => each!(|x, g| s.mul(g, math::sigmoid(s, s.neg(x)))),
        PowConst { exponent: 0.0 } => each!(|_x, _g| zero),
        PowConst { exponent } => {
            each!(|x, g| s.mul(g, s.mul(s.splat(exponent), pow_const(s, x, exponent - 1.0))))
        }
        // The rest is in the other half.
        _ => {}
    }
}

/// `out[i] = kind(x[i], y[i])`; comparisons and logic give 1 or 0.
///
/// # Safety
/// As [`map2`].
#[inline(always)]
pub(crate) unsafe fn binary_loop<S: Simd>(s: S, kind: BinaryKind, n: usize, pair: Pair, out: *mut f32) {
    use BinaryKind::*;
    let (zero, one) = (s.zero(), s.splat(1.0));
    macro_rules! each {
        (|$a:ident, $b:ident| $body:expr) => {
            // SAFETY: by contract.
            unsafe { map2(s, n, pair, out, |$a, $b| $body) }
        };
    }
    match kind {
        Add => each!(|a, b| s.add(a, b)),
        Sub => each!(|a, b| s.sub(a, b)),
        Mul => each!(|a, b| s.mul(a, b)),
        Div => each!(|a, b| s.div(a, b)),
        Pow => each!(|a, b| lanewise2(s, a, b, f32::powf)),
        // `min` and `max` give the second where one is NaN: then keep the first's NaN.
        Min => each!(|a, b| s.select(s.eq(a, a), s.min(a, b), a)),
        Max => each!(|a, b| s.select(s.eq(a, a), s.max(a, b), a)),
        Equal => each!(|a, b| s.select(s.eq(a, b), one, zero)),
        NotEqual => each!(|a, b| s.select(s.eq(a, b), zero, one)),
        Less => each!(|a, b| s.select(s.lt(a, b), one, zero)),
        LessOrEqual => each!(|a, b| s.select(s.le(a, b), one, zero)),
        Greater => each!(|a, b| s.select(s.gt(a, b), one, zero)),
        GreaterOrEqual => each!(|a, b| s.select(s.ge(a, b), one, zero)),
        And => each!(|a, b| s.select(s.eq(a, zero), zero, s.select(s.eq(b, zero), zero, one))),
        Or => each!(|a, b| s.select(s.eq(a, zero), s.select(s.eq(b, zero), zero, one), one)),
        Xor => each!(|a, b| {
            let truth = s.select(s.eq(b, zero), zero, one);
            s.select(s.eq(a, zero), truth, s.sub(one, truth))
        }),
        // Bitwise kinds have no meaning for floats; the reference gives 0.
        Mod | Fmod | BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight => {
            each!(|a, b| lanewise2(s, a, b, |x, y| reference_binary_element(kind, x, y)))
        }
    }
}
