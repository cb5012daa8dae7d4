//! Pools and resampling of `[N, C, H, W]`.

use super::Call;
use super::convert::floats;
use crate::{Array, Element, Op, Result, Windows};
use striate_kernels::reference::{
    Float, PoolShape, ResizeShape, reference_avg_pool, reference_avg_pool_grad, reference_max_pool,
    reference_max_pool_grad, reference_resize, reference_resize_grad,
};

pub(super) fn run(call: &Call) -> Result<Array> {
    if let Op::MaxPool2dIndices(windows) = &call.node.op {
        let x = call.inputs[0].to_f64_vec();
        let shape = pool_shape(call, call.inputs[0].shape(), *windows)?;
        return Array::from_vec(&call.node.shape, max_pool(shape, &x, call.node.shape.numel()).1);
    }
    call.compute(call.dtype, || compute::<f32>(call), || compute::<f64>(call))
}

/// The sizes of a pool over a map of shape `x`.
fn pool_shape(call: &Call, x: &[usize], windows: Windows) -> Result<PoolShape> {
    PoolShape::new(x[0] * x[1], [x[2], x[3]], windows).ok_or_else(|| {
        let rule = format!("a map of {}x{} pooled by {windows:?}", x[2], x[3]);
        call.refuse(rule, "the map and the windows must have at least one element")
    })
}

fn max_pool<T: Float>(shape: PoolShape, x: &[T], outputs: usize) -> (Vec<T>, Vec<i64>) {
    let (mut out, mut indices) = (vec![T::ZERO; outputs], vec![0; outputs]);
    reference_max_pool(shape, x, &mut out, Some(&mut indices));
    (out, indices)
}

fn compute<T: Float + Element>(call: &Call) -> Result<Vec<T>> {
    let input = call.inputs[0].shape();
    let data = floats::<T>(call.inputs[0]);
    let out_dims = call.node.shape.dims();
    let mut out = vec![T::ZERO; call.node.shape.numel()];
    match &call.node.op {
        Op::MaxPool2d(windows) => {
            reference_max_pool(pool_shape(call, input, *windows)?, &data, &mut out, None);
        }
        Op::MaxPool2dGrad(windows) => {
            let (shape, dy) = (pool_shape(call, input, *windows)?, floats::<T>(call.inputs[1]));
            let (_, indices) = max_pool(shape, &data, dy.len());
            reference_max_pool_grad(shape, &indices, &dy, &mut out);
        }
        Op::AvgPool2d { windows, divisor } => {
            reference_avg_pool(pool_shape(call, input, *windows)?, *divisor, &data, &mut out);
        }
        Op::AvgPool2dGrad { windows, divisor, .. } => {
            reference_avg_pool_grad(pool_shape(call, out_dims, *windows)?, *divisor, &data, &mut out);
        }
        Op::Resize { spec, .. } => reference_resize(spec, resize_shape(input, out_dims), &data, &mut out),
        Op::ResizeGrad { spec, .. } => reference_resize_grad(spec, resize_shape(out_dims, input), &data, &mut out),
        _ => return Err(call.misplaced()),
    }
    Ok(out)
}

fn resize_shape(x: &[usize], y: &[usize]) -> ResizeShape {
    ResizeShape { planes: x[0] * x[1], input: [x[2], x[3]], output: [y[2], y[3]] }
}
