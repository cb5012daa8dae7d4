//! Operations that only move elements, for any type.

use super::Call;
use super::convert::{cast, each_type, floats, typed};
use crate::{Array, DType, Element, Op, PadMode, Result};
use striate_kernels::reference::{
    Float, SliceSpec, View, pad_out_shape, reference_concat, reference_expand, reference_pad, reference_pad_grad,
    reference_slice, reference_slice_grad, reference_transpose,
};

pub(super) fn run(call: &Call) -> Result<Array> {
    match &call.node.op {
        Op::Pad { pads, mode } => run_pad(call, pads, *mode),
        Op::PadGrad { pads, mode } => {
            check_pad(call, &call.node.shape, pads, *mode)?;
            call.compute(call.dtype, || pad_grad::<f32>(call, pads, *mode), || pad_grad::<f64>(call, pads, *mode))
        }
        _ => each_type!(call.dtype, T => move_elements::<T>(call)),
    }
}

fn move_elements<T: Element>(call: &Call) -> Result<Array> {
    let x = call.inputs[0];
    let (shape, data) = (x.shape(), typed::<T>(x)?);
    let mut out = vec![T::default(); call.node.shape.numel()];
    match &call.node.op {
        Op::Transpose { perm } => reference_transpose(shape, data, perm, &mut out),
        Op::Expand { shape: to } => reference_expand(shape, data, to, &mut out),
        Op::Slice { starts, sizes, steps } => {
            let spec = SliceSpec { starts: starts.clone(), steps: steps.clone(), lens: sizes.clone() };
            reference_slice(shape, data, &spec, &mut out);
        }
        Op::SliceGrad { starts, steps, .. } => {
            let spec = SliceSpec { starts: starts.clone(), steps: steps.clone(), lens: shape.to_vec() };
            reference_slice_grad(&call.node.shape, data, &spec, &mut out);
        }
        Op::Concat { axis } => {
            let mut views = Vec::with_capacity(call.inputs.len());
            for &array in call.inputs {
                views.push(View { shape: array.shape().dims(), data: typed::<T>(array)? });
            }
            reference_concat(&views, *axis, &mut out);
        }
        _ => return Err(call.misplaced()),
    }
    Array::from_vec(&call.node.shape, out)
}

fn check_pad(call: &Call, shape: &[usize], pads: &[[isize; 2]], mode: PadMode) -> Result<()> {
    if pad_out_shape(shape, pads, mode).is_some() {
        return Ok(());
    }
    let rule = format!("shape {shape:?} padded by {pads:?}: nothing is left to fill from");
    Err(call.refuse(rule, "remove less, or pad with a constant"))
}

/// Pads the positions, so that any type moves unchanged, then takes the elements from there.
fn run_pad(call: &Call, pads: &[[isize; 2]], mode: PadMode) -> Result<Array> {
    let x = call.inputs[0];
    check_pad(call, x.shape(), pads, mode)?;
    let outside = if let PadMode::Constant(_) = mode { PadMode::Constant(-1.0) } else { mode };
    let positions: Vec<f64> = (0..x.numel()).map(|i| i as f64).collect();
    let mut from = vec![0.0; call.node.shape.numel()];
    reference_pad(x.shape(), &positions, pads, outside, &mut from);
    let value = if let PadMode::Constant(value) = mode { value } else { 0.0 };
    let value = cast(&cast(&Array::scalar(value), DType::F64), call.dtype);
    each_type!(call.dtype, T => {
        let (data, value) = (typed::<T>(x)?, typed::<T>(&value)?[0]);
        let take = |&at: &f64| if at < 0.0 { value } else { data[at as usize] };
        Array::from_vec(&call.node.shape, from.iter().map(take).collect::<Vec<T>>())
    })
}

fn pad_grad<T: Float + Element>(call: &Call, pads: &[[isize; 2]], mode: PadMode) -> Result<Vec<T>> {
    let mut dx = vec![T::ZERO; call.node.shape.numel()];
    reference_pad_grad(&call.node.shape, &floats::<T>(call.inputs[0]), pads, mode, &mut dx);
    Ok(dx)
}
