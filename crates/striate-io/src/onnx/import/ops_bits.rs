//! Further functions of single elements: angles, truths about floats, bits.

use super::call::{Answer, Call, Handler};
use striate_graph::{BinaryKind, DType, Tensor, UnaryKind};

pub(super) fn handler(operator: &str) -> Option<Handler> {
    Some(match operator {
        "Tan" | "Asin" | "Acos" | "Atan" | "Sinh" | "Cosh" | "Asinh" | "Acosh" | "Atanh" => angle,
        "IsNaN" => is_nan,
        "IsInf" => is_inf,
        "Shrink" => shrink,
        "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "BitShift" => of_bits,
        "BitwiseNot" => not_bits,
        "Mod" => modulo,
        _ => return None,
    })
}

fn angle(call: &mut Call) -> Answer {
    use UnaryKind::*;
    let kind = match call.op {
        "Tan" => Tan,
        "Asin" => Asin,
        "Acos" => Acos,
        "Atan" => Atan,
        "Sinh" => Sinh,
        "Cosh" => Cosh,
        "Asinh" => Asinh,
        "Acosh" => Acosh,
        _ => Atanh,
    };
    Ok(call.input(0)?.unary(kind).into())
}

/// NaN alone is not equal to itself.
fn is_nan(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    Ok(x.ne(&x).into())
}

fn is_inf(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let equals = |sign: f64| x.eq(&x.scalar_like(sign * f64::INFINITY));
    let found = match ["detect_positive", "detect_negative"].map(|name| call.attributes.flag(name, true)) {
        [true, true] => equals(1.0).binary(BinaryKind::Or, &equals(-1.0)),
        [true, false] => equals(1.0),
        [false, true] => equals(-1.0),
        // Nothing is looked for.
        [false, false] => x.ne(&x).binary(BinaryKind::And, &x.eq(&x)),
    };
    Ok(found.into())
}

/// Nearer to 0 by `bias` beyond `lambd`, and 0 within.
fn shrink(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let [lambd, bias] = [("lambd", 0.5), ("bias", 0.0)].map(|(name, otherwise)| call.attributes.float(name, otherwise));
    let number = |value: f32| x.scalar_like(f64::from(value));
    let (above, below) = (x.gt(&number(lambd)), x.lt(&number(-lambd)));
    let (down, up) = (&x - &number(bias), &x + &number(bias));
    Ok(down.where_(&above, &up.where_(&below, &number(0.0))).into())
}

fn of_bits(call: &mut Call) -> Answer {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let kind = match (call.op, call.attributes.word("direction", "").as_str()) {
        ("BitwiseAnd", _) => BinaryKind::BitAnd,
        ("BitwiseOr", _) => BinaryKind::BitOr,
        ("BitwiseXor", _) => BinaryKind::BitXor,
        (_, "LEFT") => BinaryKind::ShiftLeft,
        (_, "RIGHT") => BinaryKind::ShiftRight,
        (_, other) => return Err(format!("there is no direction `{other}`").into()),
    };
    Ok(a.binary(kind, &b).into())
}

fn not_bits(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let ones: Tensor = match x.dtype() {
        DType::U8 => x.scalar_like(255.0),
        _ => x.scalar_like(-1.0),
    };
    Ok(x.binary(BinaryKind::BitXor, &ones).into())
}

/// With `fmod` the remainder has the sign of the dividend, which is what floats have without it too.
fn modulo(call: &mut Call) -> Answer {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let kind = if call.attributes.flag("fmod", false) { BinaryKind::Fmod } else { BinaryKind::Mod };
    Ok(a.binary(kind, &b).into())
}
