//! Elementwise functions and their derivatives, with PyTorch's conventions at the kinks.
use super::shape::{View, reference_broadcast};
use super::{Float, reference_erf};
use crate::kinds::{BinaryKind, UnaryKind};

/// SELU's α (Klambauer et al. 2017).
pub const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
/// SELU's scale λ.
pub const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

/// `1 / (1 + exp(-x))`.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn normal_density(x: f64) -> f64 {
    (-0.5 * x * x).exp() * (std::f64::consts::FRAC_1_SQRT_2 * std::f64::consts::FRAC_2_SQRT_PI * 0.5)
}

fn normal_distribution(x: f64) -> f64 {
    0.5 * (1.0 + reference_erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

/// The inner argument of the tanh form of GELU and its derivative.
fn gelu_inner(x: f64) -> (f64, f64) {
    let scale = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
    (scale * (x + 0.044715 * x * x * x), scale * (1.0 + 3.0 * 0.044715 * x * x))
}

fn elu(x: f64, alpha: f64, input_scale: f64) -> f64 {
    if x > 0.0 || x.is_nan() { x } else { alpha * (x * input_scale).exp_m1() }
}

fn unary_f64(kind: UnaryKind, x: f64) -> f64 {
    use UnaryKind::*;
    match kind {
        Neg => -x,
        Abs => x.abs(),
        Sign if x == 0.0 || x.is_nan() => x,
        Sign => x.signum(),
        Exp => x.exp(),
        Log => x.ln(),
        Sqrt => x.sqrt(),
        Rsqrt => 1.0 / x.sqrt(),
        Square => x * x,
        Reciprocal => 1.0 / x,
        Sin => x.sin(),
        Cos => x.cos(),
        Tan => x.tan(),
        Asin => x.asin(),
        Acos => x.acos(),
        Atan => x.atan(),
        Sinh => x.sinh(),
        Cosh => x.cosh(),
        Asinh => x.asinh(),
        Acosh => x.acosh(),
        Atanh => x.atanh(),
        Erf => reference_erf(x),
        Floor => x.floor(),
        Ceil => x.ceil(),
        Round => x.round_ties_even(),
        Relu => Float::maximum(x, 0.0),
        LeakyRelu { slope } if x > 0.0 || slope == 1.0 => x,
        LeakyRelu { slope } => f64::from(slope) * x,
        Elu { alpha } => elu(x, f64::from(alpha), 1.0),
        Selu => SELU_SCALE * elu(x, SELU_ALPHA, 1.0),
        Celu { alpha } => elu(x, f64::from(alpha), 1.0 / f64::from(alpha)),
        Gelu => x * normal_distribution(x),
        GeluTanh => 0.5 * x * (1.0 + gelu_inner(x).0.tanh()),
        Silu => x * sigmoid(x),
        Mish => x * softplus(x).tanh(),
        Hardswish => x * Float::minimum(Float::maximum(x + 3.0, 0.0), 6.0) / 6.0,
        Hardsigmoid => Float::minimum(Float::maximum(x + 3.0, 0.0), 6.0) / 6.0,
        Clip { min, max } => Float::minimum(Float::maximum(x, f64::from(min)), f64::from(max)),
        Softplus { beta, threshold } if x * f64::from(beta) > f64::from(threshold) => x,
        Softplus { beta, .. } => softplus(x * f64::from(beta)) / f64::from(beta),
        Softsign => x / (1.0 + x.abs()),
        Sigmoid => sigmoid(x),
        Tanh => x.tanh(),
        LogSigmoid => -softplus(-x),
        PowConst { exponent } => x.powf(f64::from(exponent)),
        Affine { scale, shift } => f64::from(scale) * x + f64::from(shift),
        Not => f64::from(x == 0.0),
    }
}

/// `kind(x)`, evaluated in double precision and rounded once.
///
/// ```
/// use striate_kernels::{kinds::UnaryKind, reference::reference_unary};
/// assert_eq!(reference_unary(UnaryKind::Hardswish, 1.0f32), 4.0 / 6.0);
/// ```
pub fn reference_unary<T: Float>(kind: UnaryKind, x: T) -> T {
    T::from_f64(unary_f64(kind, x.to_f64()))
}

fn elu_slope(x: f64, alpha: f64, input_scale: f64) -> f64 {
    if x <= 0.0 { alpha * input_scale * (x * input_scale).exp() } else { 1.0 }
}

fn mish_slope(x: f64) -> f64 {
    let t = softplus(x).tanh();
    t + x * (1.0 - t * t) * sigmoid(x)
}

/// The derivative, and `None` where the gradient is 0 whatever `dy` is (also for an infinite `dy`).
fn slope_f64(kind: UnaryKind, x: f64) -> Option<f64> {
    use UnaryKind::*;
    Some(match kind {
        Neg => -1.0,
        Abs => unary_f64(Sign, x),
        Sign | Floor | Ceil | Round | Not => return None,
        Exp => x.exp(),
        Log => 1.0 / x,
        Sqrt => 0.5 / x.sqrt(),
        Rsqrt => -0.5 / (x * x.sqrt()),
        Square => 2.0 * x,
        Reciprocal => -1.0 / (x * x),
        Sin => x.cos(),
        Cos => -x.sin(),
        Tan => 1.0 + x.tan() * x.tan(),
        Asin => 1.0 / ((1.0 - x) * (1.0 + x)).sqrt(),
        Acos => -1.0 / ((1.0 - x) * (1.0 + x)).sqrt(),
        Atan => 1.0 / (1.0 + x * x),
        Sinh => x.cosh(),
        Cosh => x.sinh(),
        Asinh => 1.0 / (1.0 + x * x).sqrt(),
        Acosh => 1.0 / ((x - 1.0) * (x + 1.0)).sqrt(),
        Atanh => 1.0 / ((1.0 - x) * (1.0 + x)),
        Erf => std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp(),
        Relu if x <= 0.0 => return None,
        Relu => 1.0,
        LeakyRelu { slope } => {
            if x > 0.0 {
                1.0
            } else {
                f64::from(slope)
            }
        }
        Elu { alpha } => elu_slope(x, f64::from(alpha), 1.0),
        Selu => SELU_SCALE * elu_slope(x, SELU_ALPHA, 1.0),
        Celu { alpha } => elu_slope(x, f64::from(alpha), 1.0 / f64::from(alpha)),
        Gelu => normal_distribution(x) + x * normal_density(x),
        GeluTanh => {
            let (inner, slope) = gelu_inner(x);
            let t = inner.tanh();
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope
        }
        Silu => sigmoid(x) * (1.0 + x * sigmoid(-x)),
        Mish => mish_slope(x),
        Hardswish if x <= -3.0 => return None,
        Hardswish if x < 3.0 => x / 3.0 + 0.5,
        Hardswish => 1.0,
        Hardsigmoid if x > -3.0 && x < 3.0 => 1.0 / 6.0,
        Clip { min, max } if x > f64::from(min) && x < f64::from(max) => 1.0,
        Hardsigmoid | Clip { .. } => return None,
        Softplus { beta, threshold } if x * f64::from(beta) > f64::from(threshold) => 1.0,
        Softplus { beta, .. } => sigmoid(x * f64::from(beta)),
        Softsign => 1.0 / ((1.0 + x.abs()) * (1.0 + x.abs())),
        Sigmoid => sigmoid(x) * sigmoid(-x),
        Tanh => 1.0 - x.tanh() * x.tanh(),
        LogSigmoid => sigmoid(-x),
        PowConst { exponent: 0.0 } => return None,
        PowConst { exponent } => f64::from(exponent) * x.powf(f64::from(exponent) - 1.0),
        Affine { scale, .. } => f64::from(scale),
    })
}

/// `dy * kind'(x)`, evaluated in double precision and rounded once.
///
/// At kinks as PyTorch: relu'(0) = abs'(0) = 0, leaky_relu'(0) = slope, elu'(0) = α, clip and hardsigmoid only strictly
/// inside, hardswish 0 at -3 and 1 at 3.
pub fn reference_unary_grad<T: Float>(kind: UnaryKind, x: T, dy: T) -> T {
    slope_f64(kind, x.to_f64()).map_or(T::ZERO, |slope| T::from_f64(slope * dy.to_f64()))
}

/// One element of a binary operation; comparisons and logic give 1 or 0.
pub fn reference_binary_element<T: Float>(kind: BinaryKind, x: T, y: T) -> T {
    use BinaryKind::*;
    match kind {
        Add => x + y,
        Sub => x - y,
        Mul => x * y,
        Div => x / y,
        Pow => T::from_f64(x.to_f64().powf(y.to_f64())),
        Min => x.minimum(y),
        Max => x.maximum(y),
        Mod => {
            let r = x % y;
            if r != T::ZERO && (r < T::ZERO) != (y < T::ZERO) { r + y } else { r }
        }
        Fmod => x % y,
        _ if reference_compare(kind, x, y) => T::ONE,
        _ => T::ZERO,
    }
}

/// A comparison, or logic on "is not the default (0, false)". False for kinds that are arithmetic.
pub fn reference_compare<T: PartialOrd + Default>(kind: BinaryKind, x: T, y: T) -> bool {
    use BinaryKind::*;
    let truth = |v: &T| *v != T::default();
    match kind {
        Equal => x == y,
        NotEqual => x != y,
        Less => x < y,
        LessOrEqual => x <= y,
        Greater => x > y,
        GreaterOrEqual => x >= y,
        And => truth(&x) && truth(&y),
        Or => truth(&x) || truth(&y),
        Xor => truth(&x) != truth(&y),
        Add | Sub | Mul | Div | Pow | Min | Max | Mod | Fmod => false,
        BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight => false,
    }
}

/// One element of a binary operation on integers: wrapping; `Div` truncates as ONNX; division by 0 gives 0; a negative power
/// truncates towards 0; a shift by less than 0 or more than 63 leaves nothing but the sign.
pub fn reference_binary_element_i64(kind: BinaryKind, x: i64, y: i64) -> i64 {
    use BinaryKind::*;
    match kind {
        Add => x.wrapping_add(y),
        Sub => x.wrapping_sub(y),
        Mul => x.wrapping_mul(y),
        Div if y == 0 => 0,
        Div => x.wrapping_div(y),
        Pow => match (x, y) {
            (_, 0..) => x.wrapping_pow(u32::try_from(y).unwrap_or(u32::MAX)),
            (1, _) => 1,
            (-1, _) => 1 - 2 * (y & 1),
            _ => 0,
        },
        Min => x.min(y),
        Max => x.max(y),
        Mod if y == 0 => 0,
        Mod => {
            let r = x.wrapping_rem(y);
            if r != 0 && (r < 0) != (y < 0) { r + y } else { r }
        }
        Fmod if y == 0 => 0,
        Fmod => x.wrapping_rem(y),
        BitAnd => x & y,
        BitOr => x | y,
        BitXor => x ^ y,
        ShiftLeft => u32::try_from(y).ok().and_then(|by| x.checked_shl(by)).unwrap_or(0),
        ShiftRight => x >> u32::try_from(y).unwrap_or(63).min(63),
        _ => i64::from(reference_compare(kind, x, y)),
    }
}

/// `out = kind(x, y)` with NumPy's broadcasting.
///
/// # Panics
/// If the shapes do not broadcast.
pub fn reference_binary<T: Float>(
    kind: BinaryKind,
    xshape: &[usize],
    x: &[T],
    yshape: &[usize],
    y: &[T],
    out: &mut [T],
) {
    let (x, y) = (View { shape: xshape, data: x }, View { shape: yshape, data: y });
    reference_broadcast(x, y, out, |a, b| reference_binary_element(kind, a, b));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind once, with parameters that are not defaults.
    const KINDS: [UnaryKind; 45] = {
        use UnaryKind::*;
        [
            Neg,
            Abs,
            Sign,
            Exp,
            Log,
            Sqrt,
            Rsqrt,
            Square,
            Reciprocal,
            Sin,
            Cos,
            Tan,
            Asin,
            Acos,
            Atan,
            Sinh,
            Cosh,
            Asinh,
            Acosh,
            Atanh,
            Erf,
            Floor,
            Ceil,
            Round,
            Relu,
            LeakyRelu { slope: 0.25 },
            Elu { alpha: 0.5 },
            Selu,
            Celu { alpha: 2.0 },
            Gelu,
            GeluTanh,
            Silu,
            Mish,
            Hardswish,
            Hardsigmoid,
            Clip { min: -0.5, max: 6.0 },
            Softplus { beta: 2.0, threshold: 20.0 },
            Softsign,
            Sigmoid,
            Tanh,
            LogSigmoid,
            PowConst { exponent: 3.0 },
            PowConst { exponent: -0.5 },
            Affine { scale: 3.0, shift: 1.0 },
            Not,
        ]
    };

    #[test]
    fn derivatives_agree_with_central_differences() {
        for kind in KINDS {
            for x in [-7.3, -2.6, -0.7, -0.13, 0.21, 0.9, 2.2, 3.4, 8.1] {
                let h = 1e-6;
                let (a, b) = (reference_unary(kind, x - h), reference_unary(kind, x + h));
                let expected: f64 = (b - a) / (2.0 * h);
                let got = reference_unary_grad(kind, x, 1.0);
                let outside = expected.is_nan();
                assert!(outside || (got - expected).abs() < 1e-7 * (1.0 + expected.abs()), "{kind:?} at {x}");
            }
        }
    }

    #[test]
    fn conventions_at_kinks() {
        use UnaryKind::*;
        let grad = |kind, x: f32| reference_unary_grad(kind, x, 1.0f32);
        assert_eq!(grad(Relu, 0.0), 0.0);
        assert_eq!(grad(Abs, 0.0), 0.0);
        assert_eq!(grad(LeakyRelu { slope: 0.25 }, 0.0), 0.25);
        assert_eq!(grad(Elu { alpha: 0.5 }, 0.0), 0.5);
        assert_eq!([grad(Hardswish, -3.0), grad(Hardswish, 3.0)], [0.0, 1.0]);
        assert_eq!([grad(Hardsigmoid, -3.0), grad(Hardsigmoid, 3.0)], [0.0, 0.0]);
        assert_eq!([grad(Clip { min: 0.0, max: 6.0 }, 0.0), grad(Clip { min: 0.0, max: 6.0 }, 6.0)], [0.0, 0.0]);
        assert!(
            reference_unary(Relu, f32::NAN).is_nan() && reference_unary(Clip { min: 0.0, max: 1.0 }, f32::NAN).is_nan()
        );
        assert_eq!([0.5, 1.5, -2.5f32].map(|x| reference_unary(Round, x)), [0.0, 2.0, -2.0]);
        assert_eq!(reference_unary(Softplus { beta: 1.0, threshold: 20.0 }, 20.5f64), 20.5);
    }

    #[test]
    fn binary_elements() {
        use BinaryKind::*;
        let mut out = [0.0; 4];
        reference_binary(Mod, &[4], &[5.0, -5.0, 5.0, -5.0], &[4], &[3.0, 3.0, -3.0, -3.0], &mut out);
        assert_eq!(out, [2.0, 1.0, -1.0, -2.0]);
        assert_eq!(
            [(5, 3), (-5, 3), (5, -3), (-5, -3)].map(|(a, b)| reference_binary_element_i64(Mod, a, b)),
            [2, 1, -1, -2]
        );
        assert_eq!(
            [(-7, 2), (i64::MIN, -1), (1, 0)].map(|(a, b)| reference_binary_element_i64(Div, a, b)),
            [-3, i64::MIN, 0]
        );
        let out =
            [(5, 3), (-5, 3), (5, -3), (i64::MIN, -1), (1, 0)].map(|(a, b)| reference_binary_element_i64(Fmod, a, b));
        assert_eq!(out, [2, -2, 2, 0, 0]);
        assert_eq!(reference_binary_element(Fmod, -5.5f32, 2.0), -1.5);
        assert_eq!([BitAnd, BitOr, BitXor].map(|k| reference_binary_element_i64(k, 12, 10)), [8, 14, 6]);
        assert_eq!([1, 64, -1].map(|by| reference_binary_element_i64(ShiftLeft, 3, by)), [6, 0, 0]);
        assert_eq!([1, 64, -1].map(|by| reference_binary_element_i64(ShiftRight, -8, by)), [-4, -1, -1]);
        assert_eq!([(-1, -3), (2, -1), (3, 4)].map(|(a, b)| reference_binary_element_i64(Pow, a, b)), [-1, 0, 81]);
        assert!(reference_binary_element(Max, 1.0f32, f32::NAN).is_nan());
        assert!(reference_compare(NotEqual, f32::NAN, f32::NAN) && !reference_compare(Equal, f32::NAN, f32::NAN));
        assert!(reference_compare(Xor, 2.0, 0.0) && !reference_compare(Xor, 2.0, 3.0));
    }
}
