//! Operations that read or write where an index array says.

use super::Call;
use super::convert::{cast, each_type, floats, from_integers, integers, typed};
use crate::{Array, Element, Error, Op, Result, ScatterMode};
use std::num::Wrapping;
use std::ops::Add;
use striate_kernels::reference::{
    Float, IndexError, View, reference_gather, reference_gather_elements, reference_gather_grad, reference_gather_nd,
    reference_one_hot, reference_scatter_elements, reference_scatter_nd,
};

pub(super) fn run(call: &Call) -> Result<Array> {
    match &call.node.op {
        Op::Gather { axis } => each_type!(call.dtype, T => gather::<T>(call, *axis)),
        Op::GatherElements { axis } => each_type!(call.dtype, T => gather_elements::<T>(call, *axis)),
        Op::GatherGrad { axis, .. } => run_gather_grad(call, *axis),
        Op::GatherNd { batch_dims } => each_type!(call.dtype, T => gather_nd::<T>(call, *batch_dims)),
        Op::ScatterElements { mode, .. } | Op::ScatterNd { mode } => run_scatter(call, *mode),
        Op::OneHot { depth } => {
            // A negative index is out of range here, unlike in Gather: it marks what to leave out.
            let indices: Vec<i64> =
                integers(call.inputs[0]).iter().map(|&i| if i < 0 { i64::MAX } else { i }).collect();
            let mut out = vec![0f32; call.node.shape.numel()];
            reference_one_hot(&indices, *depth, (0.0, 1.0), &mut out);
            Ok(cast(&Array::from_vec(&call.node.shape, out)?, call.dtype))
        }
        _ => Err(call.misplaced()),
    }
}

fn out_of_range(call: &Call) -> impl Fn(IndexError) -> Error {
    let layer = &call.node.origin.layer;
    let of = if layer.is_empty() { String::new() } else { format!(" in `{layer}`") };
    let name = call.node.op.name();
    move |IndexError { position, index, size }| Error::Index {
        what: format!("element {position} of the indices of {name}{of}"),
        index,
        size,
    }
}

fn gather<T: Element>(call: &Call, axis: usize) -> Result<Array> {
    let x = call.inputs[0];
    let mut out = vec![T::default(); call.node.shape.numel()];
    let view = View { shape: x.shape(), data: typed::<T>(x)? };
    reference_gather(view, axis, &integers(call.inputs[1]), &mut out).map_err(out_of_range(call))?;
    Array::from_vec(&call.node.shape, out)
}

fn gather_elements<T: Element>(call: &Call, axis: usize) -> Result<Array> {
    let [x, indices] = [call.inputs[0], call.inputs[1]];
    let mut out = vec![T::default(); call.node.shape.numel()];
    let view = View { shape: x.shape(), data: typed::<T>(x)? };
    let indices = View { shape: indices.shape(), data: &integers(indices)[..] };
    reference_gather_elements(view, axis, indices, &mut out).map_err(out_of_range(call))?;
    Array::from_vec(&call.node.shape, out)
}

fn wrapping(array: &Array) -> Vec<Wrapping<i64>> {
    integers(array).iter().map(|&x| Wrapping(x)).collect()
}

fn run_gather_grad(call: &Call, axis: usize) -> Result<Array> {
    let dy = call.inputs[1];
    if call.dtype.is_float() {
        let in_f32 = || gather_grad(call, axis, &floats::<f32>(dy));
        return call.compute(call.dtype, in_f32, || gather_grad(call, axis, &floats::<f64>(dy)));
    }
    let out = gather_grad(call, axis, &wrapping(dy))?;
    from_integers(&call.node.shape, out.into_iter().map(|x| x.0).collect(), call.dtype)
}

fn gather_grad<T: Copy + Default + Add<Output = T>>(call: &Call, axis: usize, dy: &[T]) -> Result<Vec<T>> {
    let mut dx = vec![T::default(); call.node.shape.numel()];
    let indices = integers(call.inputs[0]);
    reference_gather_grad(&call.node.shape, axis, &indices, dy, &mut dx).map_err(out_of_range(call))?;
    Ok(dx)
}

fn gather_nd<T: Element>(call: &Call, batch_dims: usize) -> Result<Array> {
    let [x, indices] = [call.inputs[0], call.inputs[1]];
    let mut out = vec![T::default(); call.node.shape.numel()];
    let view = View { shape: x.shape(), data: typed::<T>(x)? };
    let indices = View { shape: indices.shape(), data: &integers(indices)[..] };
    reference_gather_nd(view, batch_dims, indices, &mut out).map_err(out_of_range(call))?;
    Array::from_vec(&call.node.shape, out)
}

fn run_scatter(call: &Call, mode: ScatterMode) -> Result<Array> {
    let (x, updates) = (call.inputs[0], cast(call.inputs[2], call.dtype));
    if call.dtype.is_float() {
        let in_f32 = || scatter_floats::<f32>(call, mode, &updates);
        return call.compute(call.dtype, in_f32, || scatter_floats::<f64>(call, mode, &updates));
    }
    let combine = match mode {
        ScatterMode::Set => |_, update| update,
        ScatterMode::Add => i64::wrapping_add,
        ScatterMode::Mul => i64::wrapping_mul,
        ScatterMode::Max => i64::max,
        ScatterMode::Min => i64::min,
    };
    let out = scatter(call, integers(x).into_owned(), &integers(&updates), combine)?;
    from_integers(&call.node.shape, out, call.dtype)
}

fn scatter_floats<T: Float + Element>(call: &Call, mode: ScatterMode, updates: &Array) -> Result<Vec<T>> {
    let combine = match mode {
        ScatterMode::Set => |_, update| update,
        ScatterMode::Add => |x, update| x + update,
        ScatterMode::Mul => |x, update| x * update,
        ScatterMode::Max => Float::maximum,
        ScatterMode::Min => Float::minimum,
    };
    scatter(call, floats::<T>(call.inputs[0]).into_owned(), &floats::<T>(updates), combine)
}

fn scatter<T: Copy>(call: &Call, mut out: Vec<T>, updates: &[T], combine: fn(T, T) -> T) -> Result<Vec<T>> {
    let (indices, shape) = (call.inputs[1], &call.node.shape);
    let view = View { shape: indices.shape(), data: &integers(indices)[..] };
    let done = match &call.node.op {
        Op::ScatterElements { axis, .. } => reference_scatter_elements(shape, *axis, view, updates, combine, &mut out),
        _ => reference_scatter_nd(shape, view, updates, combine, &mut out),
    };
    done.map_err(out_of_range(call))?;
    Ok(out)
}
