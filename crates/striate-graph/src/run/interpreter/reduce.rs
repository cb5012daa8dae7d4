//! Reductions, positions of extremes, softmax.

use super::Call;
use super::convert::{floats, from_integers, integers};
use crate::{Array, DType, Element, Op, ReduceKind, Result};
use striate_kernels::reference::{
    Float, reference_arg_extreme, reference_cumsum, reference_log_softmax, reference_reduce, reference_reduce_i64,
    reference_softmax, reference_top_k,
};

pub(super) fn run(call: &Call) -> Result<Array> {
    let x = call.inputs[0];
    match &call.node.op {
        Op::Reduce { kind, axes, .. } if x.dtype().is_float() => {
            call.compute(call.dtype, || reduce::<f32>(call, *kind, axes), || reduce::<f64>(call, *kind, axes))
        }
        Op::Reduce { kind, axes, .. } => {
            let mut out = vec![0; call.node.shape.numel()];
            reference_reduce_i64(*kind, x.shape(), &integers(x), axes, &mut out);
            if x.numel() == 0
                && let Some(limit) = extreme_of_nothing(*kind, call.dtype)
            {
                out.fill(limit);
            }
            from_integers(&call.node.shape, out, call.dtype)
        }
        Op::ArgReduce { max, axis, .. } => {
            if x.shape()[*axis] == 0 {
                let rule = format!("axis {axis} of an input with shape {} is empty", x.shape());
                return Err(call.refuse(rule, "a position exists only where there is an element"));
            }
            let mut out = vec![0; call.node.shape.numel()];
            match x.dtype().is_float() {
                true => reference_arg_extreme(x.shape(), &x.to_f64_vec(), *axis, *max, &mut out),
                false => reference_arg_extreme(x.shape(), &integers(x), *axis, *max, &mut out),
            }
            Array::from_vec(&call.node.shape, out)
        }
        Op::TopK { axis, k, largest } => {
            let mut out = vec![0; call.node.shape.numel()];
            let wanted = (*k, *largest);
            match x.dtype().is_float() {
                true => reference_top_k(x.shape(), &x.to_f64_vec(), *axis, wanted, &mut out),
                false => reference_top_k(x.shape(), &integers(x), *axis, wanted, &mut out),
            }
            Array::from_vec(&call.node.shape, out)
        }
        Op::CumSum { axis, exclusive, reverse } => cumsum(call, (*axis, *exclusive, *reverse)),
        Op::Softmax { axis } => call.compute(
            call.dtype,
            || along::<f32>(call, *axis, reference_softmax),
            || along::<f64>(call, *axis, reference_softmax),
        ),
        Op::LogSoftmax { axis } => call.compute(
            call.dtype,
            || along::<f32>(call, *axis, reference_log_softmax),
            || along::<f64>(call, *axis, reference_log_softmax),
        ),
        _ => Err(call.misplaced()),
    }
}

fn reduce<T: Float + Element>(call: &Call, kind: ReduceKind, axes: &[usize]) -> Result<Vec<T>> {
    let mut out = vec![T::ZERO; call.node.shape.numel()];
    reference_reduce(kind, call.inputs[0].shape(), &floats::<T>(call.inputs[0]), axes, &mut out);
    Ok(out)
}

/// The smallest number of a type for the maximum of no elements, the greatest for their minimum.
fn extreme_of_nothing(kind: ReduceKind, dtype: DType) -> Option<i64> {
    let (low, high) = match dtype {
        DType::I8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
        DType::I16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        DType::I32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        DType::U8 => (0, 255),
        DType::Bool => (0, 1),
        _ => (i64::MIN, i64::MAX),
    };
    match kind {
        ReduceKind::Max => Some(low),
        ReduceKind::Min => Some(high),
        _ => None,
    }
}

/// Sums of floats run in f64, of integers in i64.
fn cumsum(call: &Call, way: (usize, bool, bool)) -> Result<Array> {
    let x = call.inputs[0];
    if x.dtype().is_float() {
        let mut out = vec![0.0; x.numel()];
        reference_cumsum(x.shape(), &x.to_f64_vec(), way, (0.0, |a, b| a + b), &mut out);
        return Array::from_f64(&call.node.shape, &out, call.dtype);
    }
    let mut out = vec![0; x.numel()];
    reference_cumsum(x.shape(), &integers(x), way, (0, i64::wrapping_add), &mut out);
    from_integers(&call.node.shape, out, call.dtype)
}

fn along<T: Float + Element>(call: &Call, axis: usize, kernel: fn(&[usize], &[T], usize, &mut [T])) -> Result<Vec<T>> {
    let mut out = vec![T::ZERO; call.node.shape.numel()];
    kernel(call.inputs[0].shape(), &floats::<T>(call.inputs[0]), axis, &mut out);
    Ok(out)
}
