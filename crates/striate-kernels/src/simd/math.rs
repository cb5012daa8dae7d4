//! Elementary functions on vectors. Lanes never mix, so a value's result does not depend on its place.
//!
//! Errors against float64 are at most a few units in the last place; see the tests for the bounds that are kept.

use super::Simd;

#[inline(always)]
fn poly<S: Simd, const N: usize>(s: S, x: S::V, coefficients: [f32; N]) -> S::V {
    let mut acc = s.splat(coefficients[0]);
    for &c in &coefficients[1..] {
        acc = s.mul_add(acc, x, s.splat(c));
    }
    acc
}

/// `e^x`. Overflows to infinity above 88.73, underflows to zero; NaN stays NaN.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // The order of operands keeps a NaN of x.
    let clamped = s.max(s.splat(-110.0), s.min(s.splat(100.0), x));
    let n = s.round(s.mul(clamped, s.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts: n times the first is exact.
    let r = s.neg_mul_add(n, s.splat(0.693_359_4), clamped);
    let r = s.neg_mul_add(n, s.splat(-2.121_944_4e-4), r);
    // Taylor's series on |r| <= ln2/2: the first term left out is below 2^-27 of the sum.
    let p = poly(s, r, [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5]);
    let p = s.mul_add(s.mul(r, r), p, r);
    s.scale_by_exp2(s.add(p, s.splat(1.0)), n)
}

/// `e^x - 1`, exact to the last places also near zero.
#[inline(always)]
pub fn expm1<S: Simd>(s: S, x: S::V) -> S::V {
    let small = {
        let p = poly(s, x, [1.0 / 40320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5]);
        s.mul_add(s.mul(x, x), p, x)
    };
    let large = s.sub(exp(s, x), s.splat(1.0));
    s.select(s.lt(s.abs(x), s.splat(0.35)), small, large)
}

/// Natural logarithm. `log(0)` is minus infinity, of a negative number NaN; denormals count as the smallest normal number.
#[inline(always)]
pub fn log<S: Simd>(s: S, x: S::V) -> S::V {
    let (m, e) = s.split_exponent(s.max(s.splat(f32::MIN_POSITIVE), x));
    // m in [sqrt(1/2), sqrt(2)).
    let high = s.ge(m, s.splat(std::f32::consts::SQRT_2));
    let m = s.select(high, s.mul(m, s.splat(0.5)), m);
    let e = s.select(high, s.add(e, s.splat(1.0)), e);
    // log(m) = 2 atanh(t), t = (m-1)/(m+1), |t| <= 0.172.
    let f = s.sub(m, s.splat(1.0));
    let t = s.div(f, s.add(m, s.splat(1.0)));
    let t2 = s.mul(t, t);
    let p = poly(s, t2, [2.0 / 11.0, 2.0 / 9.0, 2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0]);
    // 2t = f - t f, which keeps the leading term exact.
    let tail = s.sub(s.mul(s.mul(t2, t), p), s.mul(t, f));
    let y = s.mul_add(e, s.splat(-2.121_944_4e-4), tail);
    let y = s.add(y, f);
    let y = s.mul_add(e, s.splat(0.693_359_4), y);
    let y = s.select(s.eq(x, s.splat(f32::INFINITY)), x, y);
    let y = s.select(s.eq(x, s.zero()), s.splat(f32::NEG_INFINITY), y);
    let valid = s.ge(x, s.zero());
    s.select(valid, y, s.splat(f32::NAN))
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.neg(x))))
}

/// Hyperbolic tangent.
#[inline(always)]
pub fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    // (e^2|x| - 1) / (e^2|x| + 1); beyond 10 the result is 1.
    let a = s.min(s.splat(10.0), s.abs(x));
    let m = expm1(s, s.add(a, a));
    s.copysign(s.div(m, s.add(m, s.splat(2.0))), x)
}

/// The error function.
#[inline(always)]
pub fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    let a = s.abs(x);
    let x2 = s.mul(x, x);
    // |x| < 1: x times the Maclaurin series of erf(x)/x, 2/sqrt(pi) * sum (-1)^n x^2n / (n! (2n+1)).
    const C: f32 = std::f32::consts::FRAC_2_SQRT_PI;
    let series = poly(
        s,
        x2,
        [
            -C / 6_894_720.0,
            C / 685_440.0,
            -C / 75_600.0,
            C / 9_360.0,
            -C / 1_320.0,
            C / 216.0,
            -C / 42.0,
            C / 10.0,
            -C / 3.0,
            C,
        ],
    );
    let small = s.mul(x, series);
    // Else 1 - exp(-x²) * t * P(t), t = 1/(1 + 0.3275911 |x|) (Abramowitz and Stegun 7.1.26, error below 1.5e-7).
    let t = s.div(s.splat(1.0), s.mul_add(a, s.splat(0.327_591_1), s.splat(1.0)));
    let p = poly(s, t, [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_73, 0.254_829_6]);
    let e = exp(s, s.neg(s.min(s.splat(100.0), x2)));
    let large = s.copysign(s.sub(s.splat(1.0), s.mul(s.mul(p, t), e)), x);
    let y = s.select(s.lt(a, s.splat(1.0)), small, large);
    // Keeps NaN.
    s.select(s.eq(x, x), y, x)
}
