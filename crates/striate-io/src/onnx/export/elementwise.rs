//! Elementwise functions: ONNX's own operator where the opset has it, else what it is made of.

use super::builder::{Builder, float, int, string};
use crate::onnx::data_type;
use crate::onnx::proto::AttributeProto;
use striate_graph::{BinaryKind, DType, UnaryKind};

/// A function of one value.
pub(super) fn unary(b: &mut Builder, opset: i64, kind: UnaryKind, x: &str, dtype: DType) -> String {
    use UnaryKind::*;
    let one = |b: &mut Builder, op: &str, attributes: Vec<AttributeProto>| b.node(op, &[x], attributes);
    let by = |b: &mut Builder, op: &str, value: f64| {
        let value = b.scalar(value, dtype);
        b.node(op, &[x, &value], vec![])
    };
    match kind {
        Neg => one(b, "Neg", vec![]),
        Abs => one(b, "Abs", vec![]),
        Sign => one(b, "Sign", vec![]),
        Exp => one(b, "Exp", vec![]),
        Log => one(b, "Log", vec![]),
        Sqrt => one(b, "Sqrt", vec![]),
        Reciprocal => one(b, "Reciprocal", vec![]),
        Sin => one(b, "Sin", vec![]),
        Cos => one(b, "Cos", vec![]),
        Tan => one(b, "Tan", vec![]),
        Asin => one(b, "Asin", vec![]),
        Acos => one(b, "Acos", vec![]),
        Atan => one(b, "Atan", vec![]),
        Sinh => one(b, "Sinh", vec![]),
        Cosh => one(b, "Cosh", vec![]),
        Asinh => one(b, "Asinh", vec![]),
        Acosh => one(b, "Acosh", vec![]),
        Atanh => one(b, "Atanh", vec![]),
        Erf => one(b, "Erf", vec![]),
        Floor => one(b, "Floor", vec![]),
        Ceil => one(b, "Ceil", vec![]),
        Round => one(b, "Round", vec![]),
        Relu => one(b, "Relu", vec![]),
        Sigmoid => one(b, "Sigmoid", vec![]),
        Tanh => one(b, "Tanh", vec![]),
        Softsign => one(b, "Softsign", vec![]),
        Selu => one(b, "Selu", vec![]),
        LeakyRelu { slope } => one(b, "LeakyRelu", vec![float("alpha", slope)]),
        Elu { alpha } => one(b, "Elu", vec![float("alpha", alpha)]),
        Celu { alpha } => one(b, "Celu", vec![float("alpha", alpha)]),
        Hardsigmoid => hard_sigmoid(b, x),
        PowConst { exponent } => by(b, "Pow", f64::from(exponent)),
        Square => b.node("Mul", &[x, x], vec![]),
        Rsqrt => {
            let root = one(b, "Sqrt", vec![]);
            b.node("Reciprocal", &[&root], vec![])
        }
        Clip { min, max } => clip(b, x, [min, max], dtype),
        Affine { scale, shift } => {
            let scaled = if scale == 1.0 { x.to_owned() } else { by(b, "Mul", f64::from(scale)) };
            // A sum with 0 is kept where nothing else is left, so that the value has a node.
            match shift == 0.0 && scale != 1.0 {
                true => scaled,
                false => {
                    let shift = b.scalar(f64::from(shift), dtype);
                    b.node("Add", &[&scaled, &shift], vec![])
                }
            }
        }
        Not => match dtype {
            DType::Bool => one(b, "Not", vec![]),
            _ => {
                let truth = by(b, "Equal", 0.0);
                cast(b, &truth, dtype)
            }
        },
        Gelu | GeluTanh | Silu | Mish | Hardswish | Softplus { .. } | LogSigmoid => smooth(b, opset, kind, x, dtype),
    }
}

/// Those that are composed below some opset, or at every one.
fn smooth(b: &mut Builder, opset: i64, kind: UnaryKind, x: &str, dtype: DType) -> String {
    match kind {
        UnaryKind::Gelu if opset >= 20 => b.node("Gelu", &[x], vec![string("approximate", "none")]),
        UnaryKind::GeluTanh if opset >= 20 => b.node("Gelu", &[x], vec![string("approximate", "tanh")]),
        UnaryKind::Gelu => {
            let inner = scaled(b, x, std::f64::consts::FRAC_1_SQRT_2, dtype);
            let erf = b.node("Erf", &[&inner], vec![]);
            half_of_one_plus(b, x, &erf, dtype)
        }
        UnaryKind::GeluTanh => {
            let square = b.node("Mul", &[x, x], vec![]);
            let cube = b.node("Mul", &[&square, x], vec![]);
            let small = scaled(b, &cube, 0.044_715, dtype);
            let sum = b.node("Add", &[x, &small], vec![]);
            let inner = scaled(b, &sum, std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2, dtype);
            let tanh = b.node("Tanh", &[&inner], vec![]);
            half_of_one_plus(b, x, &tanh, dtype)
        }
        UnaryKind::Silu => {
            let gate = b.node("Sigmoid", &[x], vec![]);
            b.node("Mul", &[x, &gate], vec![])
        }
        UnaryKind::Mish if opset >= 18 => b.node("Mish", &[x], vec![]),
        UnaryKind::Mish => {
            let soft = b.node("Softplus", &[x], vec![]);
            let gate = b.node("Tanh", &[&soft], vec![]);
            b.node("Mul", &[x, &gate], vec![])
        }
        UnaryKind::Hardswish if opset >= 14 => b.node("HardSwish", &[x], vec![]),
        UnaryKind::Hardswish => {
            let gate = hard_sigmoid(b, x);
            b.node("Mul", &[x, &gate], vec![])
        }
        UnaryKind::LogSigmoid => {
            let negative = b.node("Neg", &[x], vec![]);
            let soft = b.node("Softplus", &[&negative], vec![]);
            b.node("Neg", &[&soft], vec![])
        }
        UnaryKind::Softplus { beta, threshold } => softplus(b, x, [f64::from(beta), f64::from(threshold)], dtype),
        _ => b.node("Identity", &[x], vec![]),
    }
}

fn scaled(b: &mut Builder, x: &str, factor: f64, dtype: DType) -> String {
    let factor = b.scalar(factor, dtype);
    b.node("Mul", &[x, &factor], vec![])
}

/// `x * (1 + y) / 2`.
fn half_of_one_plus(b: &mut Builder, x: &str, y: &str, dtype: DType) -> String {
    let one = b.scalar(1.0, dtype);
    let sum = b.node("Add", &[y, &one], vec![]);
    let product = b.node("Mul", &[x, &sum], vec![]);
    scaled(b, &product, 0.5, dtype)
}

fn hard_sigmoid(b: &mut Builder, x: &str) -> String {
    b.node("HardSigmoid", &[x], vec![float("alpha", 1.0 / 6.0), float("beta", 0.5)])
}

fn clip(b: &mut Builder, x: &str, range: [f32; 2], dtype: DType) -> String {
    let limit = |b: &mut Builder, value: f32| match value.is_finite() {
        true => b.scalar(f64::from(value), dtype),
        false => String::new(),
    };
    let [min, max] = range.map(|value| limit(b, value));
    let inputs = [x, &min, &max];
    b.node("Clip", if max.is_empty() { &inputs[..2] } else { &inputs }, vec![])
}

/// ONNX's has neither a slope nor the straight line beyond the threshold; the line is as good as the curve beyond 20.
fn softplus(b: &mut Builder, x: &str, [beta, threshold]: [f64; 2], dtype: DType) -> String {
    let inner = if beta == 1.0 { x.to_owned() } else { scaled(b, x, beta, dtype) };
    let curve = b.node("Softplus", &[&inner], vec![]);
    let curve = if beta == 1.0 { curve } else { scaled(b, &curve, 1.0 / beta, dtype) };
    if threshold >= 20.0 {
        return curve;
    }
    let threshold = b.scalar(threshold, dtype);
    let beyond = b.node("Greater", &[&inner, &threshold], vec![]);
    b.node("Where", &[&beyond, x, &curve], vec![])
}

/// Another type.
pub(super) fn cast(b: &mut Builder, x: &str, dtype: DType) -> String {
    b.node("Cast", &[x], vec![int("to", i64::from(data_type(dtype) as i32))])
}

/// A function of two values of the same type.
pub(super) fn binary(b: &mut Builder, kind: BinaryKind, [x, y]: [&str; 2], dtype: DType) -> String {
    use BinaryKind::*;
    let op = match kind {
        Add => "Add",
        Sub => "Sub",
        Mul => "Mul",
        Div => "Div",
        Pow => "Pow",
        Min => "Min",
        Max => "Max",
        Equal | NotEqual => "Equal",
        Less => "Less",
        LessOrEqual => "LessOrEqual",
        Greater => "Greater",
        GreaterOrEqual => "GreaterOrEqual",
        And => "And",
        Or => "Or",
        Xor => "Xor",
        Mod => return modulo(b, [x, y], dtype),
        Fmod => return b.node("Mod", &[x, y], vec![int("fmod", 1)]),
        BitAnd => "BitwiseAnd",
        BitOr => "BitwiseOr",
        BitXor => "BitwiseXor",
        ShiftLeft => return b.node("BitShift", &[x, y], vec![string("direction", "LEFT")]),
        ShiftRight => return b.node("BitShift", &[x, y], vec![string("direction", "RIGHT")]),
    };
    if matches!(kind, And | Or | Xor) && dtype != DType::Bool {
        let truths = [x, y].map(|value| cast(b, value, DType::Bool));
        return b.node(op, &[&truths[0], &truths[1]], vec![]);
    }
    let value = b.node(op, &[x, y], vec![]);
    if kind == NotEqual { b.node("Not", &[&value], vec![]) } else { value }
}

/// The remainder with the sign of the divisor. ONNX's `Mod` has that of the dividend for numbers with a point.
fn modulo(b: &mut Builder, [x, y]: [&str; 2], dtype: DType) -> String {
    if !dtype.is_float() {
        return b.node("Mod", &[x, y], vec![]);
    }
    let quotient = b.node("Div", &[x, y], vec![]);
    let whole = b.node("Floor", &[&quotient], vec![]);
    let product = b.node("Mul", &[&whole, y], vec![]);
    b.node("Sub", &[x, &product], vec![])
}
