//! Elementwise functions of one, two and three values.

use super::Call;
use super::convert::{each_type, floats, from_integers, integers, typed};
use crate::{Array, BinaryKind, Element, Op, Result, UnaryKind};
use striate_kernels::reference::{
    Float, View, reference_binary, reference_binary_element_i64, reference_broadcast, reference_compare,
    reference_unary, reference_unary_grad, reference_where,
};

pub(super) fn run(call: &Call) -> Result<Array> {
    match &call.node.op {
        Op::Unary(kind) => run_unary(call, *kind),
        Op::UnaryGrad(kind) => {
            call.compute(call.dtype, || unary_grad::<f32>(call, *kind), || unary_grad::<f64>(call, *kind))
        }
        Op::Binary(kind) if kind.is_comparison() => run_comparison(call, *kind),
        Op::Binary(kind) if call.dtype.is_float() => {
            call.compute(call.dtype, || binary::<f32>(call, *kind), || binary::<f64>(call, *kind))
        }
        Op::Binary(kind) => run_integer_binary(call, *kind),
        Op::Where => {
            let condition: Vec<bool> = call.inputs[0].to_f64_vec().into_iter().map(|x| x != 0.0).collect();
            each_type!(call.dtype, T => choose::<T>(call, &condition))
        }
        _ => Err(call.misplaced()),
    }
}

fn run_unary(call: &Call, kind: UnaryKind) -> Result<Array> {
    if !call.dtype.is_float()
        && let Some(function) = integer_function(kind)
    {
        let values = integers(call.inputs[0]).iter().map(|&x| function(x)).collect();
        return from_integers(&call.node.shape, values, call.dtype);
    }
    call.compute(call.dtype, || unary::<f32>(call, kind), || unary::<f64>(call, kind))
}

/// The functions that are exact on integers; the others are computed in f64 and truncated.
fn integer_function(kind: UnaryKind) -> Option<fn(i64) -> i64> {
    match kind {
        UnaryKind::Neg => Some(i64::wrapping_neg),
        UnaryKind::Abs => Some(i64::wrapping_abs),
        UnaryKind::Sign => Some(i64::signum),
        UnaryKind::Square => Some(|x| x.wrapping_mul(x)),
        UnaryKind::Relu => Some(|x| x.max(0)),
        UnaryKind::Floor | UnaryKind::Ceil | UnaryKind::Round => Some(|x| x),
        UnaryKind::Not => Some(|x| i64::from(x == 0)),
        _ => None,
    }
}

fn unary<T: Float + Element>(call: &Call, kind: UnaryKind) -> Result<Vec<T>> {
    Ok(floats::<T>(call.inputs[0]).iter().map(|&x| reference_unary(kind, x)).collect())
}

fn unary_grad<T: Float + Element>(call: &Call, kind: UnaryKind) -> Result<Vec<T>> {
    let (x, dy) = (floats::<T>(call.inputs[0]), floats::<T>(call.inputs[1]));
    Ok(x.iter().zip(dy.iter()).map(|(&x, &dy)| reference_unary_grad(kind, x, dy)).collect())
}

fn binary<T: Float + Element>(call: &Call, kind: BinaryKind) -> Result<Vec<T>> {
    let [a, b] = [call.inputs[0], call.inputs[1]];
    let mut out = vec![T::ZERO; call.node.shape.numel()];
    reference_binary(kind, a.shape(), &floats::<T>(a), b.shape(), &floats::<T>(b), &mut out);
    Ok(out)
}

fn run_integer_binary(call: &Call, kind: BinaryKind) -> Result<Array> {
    let [a, b] = [call.inputs[0], call.inputs[1]];
    let mut out = vec![0; call.node.shape.numel()];
    let (x, y) = (integers(a), integers(b));
    let views = (View { shape: a.shape(), data: &x[..] }, View { shape: b.shape(), data: &y[..] });
    reference_broadcast(views.0, views.1, &mut out, |x, y| reference_binary_element_i64(kind, x, y));
    from_integers(&call.node.shape, out, call.dtype)
}

/// Comparisons of floats run in f64, which holds every float exactly; of integers in i64.
fn run_comparison(call: &Call, kind: BinaryKind) -> Result<Array> {
    let [a, b] = [call.inputs[0], call.inputs[1]];
    let mut out = vec![false; call.node.shape.numel()];
    if a.dtype().is_float() {
        compare(kind, (a, &a.to_f64_vec()), (b, &b.to_f64_vec()), &mut out);
    } else {
        compare(kind, (a, &integers(a)), (b, &integers(b)), &mut out);
    }
    Array::from_vec(&call.node.shape, out)
}

fn compare<T: PartialOrd + Default + Copy>(kind: BinaryKind, a: (&Array, &[T]), b: (&Array, &[T]), out: &mut [bool]) {
    let (x, y) = (View { shape: a.0.shape(), data: a.1 }, View { shape: b.0.shape(), data: b.1 });
    reference_broadcast(x, y, out, |x, y| reference_compare(kind, x, y));
}

fn choose<T: Element>(call: &Call, condition: &[bool]) -> Result<Array> {
    let [a, b] = [call.inputs[1], call.inputs[2]];
    let mut out = vec![T::default(); call.node.shape.numel()];
    reference_where(
        View { shape: call.inputs[0].shape(), data: condition },
        View { shape: a.shape(), data: typed::<T>(a)? },
        View { shape: b.shape(), data: typed::<T>(b)? },
        &mut out,
    );
    Array::from_vec(&call.node.shape, out)
}
