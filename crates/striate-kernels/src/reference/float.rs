//! The scalar type of the reference kernels.
use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Rem, Sub, SubAssign};

/// `f32` or `f64`: what the reference kernels compute in.
///
/// The oracle runs in `f64`; in `f32` the same code is the plain implementation of an operation.
pub trait Float:
    Copy
    + Debug
    + Display
    + Default
    + PartialEq
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Rem<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + Sum
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Positive infinity.
    const INFINITY: Self;
    /// Not a number.
    const NAN: Self;

    /// The nearest value.
    fn from_f64(x: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// The nearest value of an `f32`: exact.
    fn from_f32(x: f32) -> Self {
        Self::from_f64(f64::from(x))
    }
    /// The nearest value.
    fn from_usize(x: usize) -> Self {
        Self::from_f64(x as f64)
    }
    /// Absolute value.
    fn abs(self) -> Self;
    /// Largest integer not above.
    fn floor(self) -> Self;
    /// Smallest integer not below.
    fn ceil(self) -> Self;
    /// Nearest integer, halves to even.
    fn round_ties_even(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Base e exponential.
    fn exp(self) -> Self;
    /// `exp(x) - 1`, exact near 0.
    fn exp_m1(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// `ln(1 + x)`, exact near 0.
    fn ln_1p(self) -> Self;
    /// `self^e`.
    fn powf(self, e: Self) -> Self;
    /// Sine, of radians.
    fn sin(self) -> Self;
    /// Cosine, of radians.
    fn cos(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
    /// `self * b + c` with one rounding.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// The greater; NaN if either is NaN (as PyTorch and ONNX).
    fn maximum(self, other: Self) -> Self {
        if self.is_nan() || self > other { self } else { other }
    }
    /// The smaller; NaN if either is NaN.
    fn minimum(self, other: Self) -> Self {
        if self.is_nan() || self < other { self } else { other }
    }
    /// True for NaN.
    fn is_nan(self) -> bool;
    /// Neither NaN nor infinite.
    fn is_finite(self) -> bool;
}

/// The error function in double precision.
///
/// `erf x = 2/√π · exp(-x²) · Σ 2ⁿ x²ⁿ⁺¹ / (2n+1)!!` (Abramowitz & Stegun 7.1.6): every term is positive, so nothing cancels.
/// Beyond 2.5 the complement by its continued fraction (7.1.14), where it is below a thousandth.
pub fn reference_erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let a = x.abs();
    if a > 6.0 {
        return 1f64.copysign(x); // 1 - erf(6) is below half a unit in the last place.
    }
    if a > 2.5 {
        let tail = (1..=60).rev().fold(a, |t, k| a + 0.5 * f64::from(k) / t);
        return (1.0 - (-a * a).exp() / (tail * std::f64::consts::PI.sqrt())).copysign(x);
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > sum.abs() * 1e-18 {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

macro_rules! float {
    ($t:ident, $erf:expr) => {
        impl Float for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const INFINITY: Self = $t::INFINITY;
            const NAN: Self = $t::NAN;
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            fn to_f64(self) -> f64 {
                self as f64
            }
            fn abs(self) -> Self {
                self.abs()
            }
            fn floor(self) -> Self {
                self.floor()
            }
            fn ceil(self) -> Self {
                self.ceil()
            }
            fn round_ties_even(self) -> Self {
                self.round_ties_even()
            }
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            fn exp(self) -> Self {
                self.exp()
            }
            fn exp_m1(self) -> Self {
                self.exp_m1()
            }
            fn ln(self) -> Self {
                self.ln()
            }
            fn ln_1p(self) -> Self {
                self.ln_1p()
            }
            fn powf(self, e: Self) -> Self {
                self.powf(e)
            }
            fn sin(self) -> Self {
                self.sin()
            }
            fn cos(self) -> Self {
                self.cos()
            }
            fn tanh(self) -> Self {
                self.tanh()
            }
            fn erf(self) -> Self {
                $erf(self)
            }
            fn mul_add(self, b: Self, c: Self) -> Self {
                self.mul_add(b, c)
            }
            fn is_nan(self) -> bool {
                self.is_nan()
            }
            fn is_finite(self) -> bool {
                self.is_finite()
            }
        }
    };
}

float!(f32, |x: f32| reference_erf(f64::from(x)) as f32);
float!(f64, reference_erf);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_is_right_to_the_last_places() {
        // Values of a 30-digit table.
        for (x, y) in [
            (0.0, 0.0),
            (1e-10, 1.1283791670955126e-10),
            (0.5, 0.5204998778130465),
            (1.0, 0.8427007929497149),
            (2.0, 0.9953222650189527),
            (2.7, 0.9998656672600594),
            (3.5, 0.9999992569016276),
            (7.0, 1.0),
        ] {
            assert!((reference_erf(x) - y).abs() <= 4e-16 * y.max(1e-300), "erf({x}) = {}", reference_erf(x));
            assert_eq!(reference_erf(-x), -reference_erf(x));
        }
        assert!(reference_erf(f64::NAN).is_nan());
        assert_eq!(Float::erf(f32::INFINITY), 1.0);
    }

    #[test]
    fn extremes_pass_nan_on() {
        assert!(Float::maximum(1f32, f32::NAN).is_nan() && Float::maximum(f32::NAN, 1f32).is_nan());
        assert!(Float::minimum(1f64, f64::NAN).is_nan() && Float::minimum(f64::NAN, 1f64).is_nan());
        assert_eq!(Float::maximum(1f32, 2.0), 2.0);
        assert_eq!(Float::minimum(1f32, 2.0), 1.0);
    }
}
