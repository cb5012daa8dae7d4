//! Pooling of regions, and samples at given places.

use super::Call;
use super::convert::{floats, integers};
use crate::{Array, Element, Error, Op, Result, Shape};
use striate_kernels::reference::{
    Float, GridSampleShape, RoiAlignShape, reference_grid_sample, reference_grid_sample_grid_grad,
    reference_grid_sample_input_grad, reference_roi_align, reference_roi_align_grad,
};

pub(super) fn run(call: &Call) -> Result<Array> {
    if matches!(call.node.op, Op::RoiAlign(_) | Op::RoiAlignGrad(_)) {
        check_maps(&integers(call.inputs[2]), call.inputs[0].shape()[0])?;
    }
    call.compute(call.dtype, || compute::<f32>(call), || compute::<f64>(call))
}

/// That each region's map is there.
pub(crate) fn check_maps(batch: &[i64], maps: usize) -> Result<()> {
    match batch.iter().enumerate().find(|(_, n)| !(0..maps as i64).contains(n)) {
        Some((region, &index)) => Err(Error::Index { what: format!("the map of region {region}"), index, size: maps }),
        None => Ok(()),
    }
}

/// From the shapes of the map and the grid.
fn grid_shape(x: &Shape, grid: &Shape) -> GridSampleShape {
    let points = grid[1..grid.rank() - 1].iter().product();
    GridSampleShape { n: x[0], channels: x[1], input: x[2..].to_vec(), points }
}

fn compute<T: Float + Element>(call: &Call) -> Result<Vec<T>> {
    let given = |index: usize| floats::<T>(call.inputs[index]);
    let mut out = vec![T::ZERO; call.node.shape.numel()];
    let first = call.inputs[0].shape();
    match &call.node.op {
        Op::RoiAlign(spec) | Op::RoiAlignGrad(spec) => {
            let shape = RoiAlignShape {
                n: first[0],
                channels: first[1],
                input: [first[2], first[3]],
                regions: call.inputs[1].shape()[0],
            };
            let (x, regions, batch) = (given(0), given(1), integers(call.inputs[2]));
            match call.inputs.len() {
                3 => reference_roi_align(spec, shape, (&x, &regions, &batch), &mut out),
                _ => reference_roi_align_grad(spec, shape, (&x, &regions, &batch), &given(3), &mut out),
            }
        }
        Op::GridSample(spec) => {
            reference_grid_sample(spec, &grid_shape(first, call.inputs[1].shape()), (&given(0), &given(1)), &mut out);
        }
        Op::GridSampleInputGrad { spec, .. } => {
            let shape = grid_shape(&call.node.shape, first);
            reference_grid_sample_input_grad(spec, &shape, (&given(0), &given(1)), &mut out);
        }
        Op::GridSampleGridGrad(spec) => {
            let shape = grid_shape(first, call.inputs[1].shape());
            reference_grid_sample_grid_grad(spec, &shape, (&given(0), &given(1), &given(2)), &mut out);
        }
        _ => return Err(call.misplaced()),
    }
    Ok(out)
}
