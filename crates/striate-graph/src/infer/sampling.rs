//! The rules of operations that order elements, name them by tuples, or sample maps at given places.

use super::{Inferred, Inputs, check_axis, check_rank, check_rank_from, refuse, same_dtype};
use crate::{DType, Op, Shape, ShapeError};

pub(super) fn infer_tuples(op: &Op, inputs: Inputs) -> Inferred {
    let (x, dtype) = inputs[0];
    match op {
        Op::TopK { axis, k, .. } => {
            check_axis(x, *axis)?;
            if *k > x[*axis] {
                return refuse(
                    format!("the best {k} of axis {axis} of an input with shape {x}"),
                    format!("there are {} along that axis", x[*axis]),
                );
            }
            let mut sizes = x.to_vec();
            sizes[*axis] = *k;
            Ok((sizes.into(), DType::I64))
        }
        Op::GatherNd { batch_dims } => Ok((named(x, *batch_dims, inputs[1])?, dtype)),
        Op::ScatterNd { .. } => {
            let expected = named(x, 0, inputs[1])?;
            same_dtype(dtype, inputs[2].1)?;
            if *inputs[2].0 != expected {
                return refuse(
                    format!("updates of shape {} for indices {} into {x}", inputs[2].0, inputs[1].0),
                    format!("they must have shape {expected}"),
                );
            }
            Ok((x.clone(), dtype))
        }
        _ => refuse(op.name(), "it takes no tuples of indices"),
    }
}

/// The shape of what tuples of indices name.
fn named(x: &Shape, batch_dims: usize, (indices, dtype): (&Shape, DType)) -> Result<Shape, ShapeError> {
    if dtype.is_float() || dtype == DType::Bool {
        return refuse(format!("the indices are {dtype}"), "convert them with cast(DType::I64)");
    }
    check_rank_from(indices, batch_dims + 1, "the array of indices")?;
    let (depth, lead) = (indices[indices.rank() - 1], indices.rank() - 1);
    if batch_dims + depth > x.rank() {
        return refuse(
            format!("tuples of {depth} indices behind {batch_dims} batch axes of an input with shape {x}"),
            format!("it has {} axes to be named", x.rank().saturating_sub(batch_dims)),
        );
    }
    if indices[..batch_dims] != x[..batch_dims] {
        return refuse(
            format!("indices {indices} and input {x} with {batch_dims} batch axes"),
            format!("the first {batch_dims} axes must be equal"),
        );
    }
    Ok([&indices[..lead], &x[batch_dims + depth..]].concat().into())
}

pub(super) fn infer_sampling(op: &Op, inputs: Inputs) -> Inferred {
    let (x, dtype) = inputs[0];
    match op {
        Op::RoiAlign(spec) | Op::RoiAlignGrad(spec) => {
            check_rank(x, 4, "the input", "[N, C, H, W]")?;
            let ((regions, of), (batch, index)) = (inputs[1], inputs[2]);
            same_dtype(dtype, of)?;
            check_regions(regions, (batch, index))?;
            let pooled: Shape = [regions[0], x[1], spec.out[0], spec.out[1]].into();
            match inputs.get(3) {
                None => Ok((pooled, dtype)),
                Some((dy, _)) if **dy == pooled => Ok((x.clone(), dtype)),
                Some((dy, _)) => {
                    refuse(format!("the gradient has shape {dy}"), format!("the pooled regions have {pooled}"))
                }
            }
        }
        Op::GridSample(_) => Ok((sampled(x, inputs[1].0)?, same_dtype(dtype, inputs[1].1)?)),
        Op::GridSampleInputGrad { input, .. } => {
            let dy = inputs[1].0;
            check_rank_from(dy, 2, "the gradient")?;
            let x: Shape = [&dy[..2], &input[..]].concat().into();
            check_samples(&x, inputs[0].0, dy)?;
            Ok((x, same_dtype(dtype, inputs[1].1)?))
        }
        Op::GridSampleGridGrad(_) => {
            check_samples(x, inputs[1].0, inputs[2].0)?;
            Ok((inputs[1].0.clone(), same_dtype(dtype, inputs[1].1)?))
        }
        _ => refuse(op.name(), "it samples no map"),
    }
}

fn check_regions(regions: &Shape, (batch, index): (&Shape, DType)) -> Result<(), ShapeError> {
    if regions.rank() != 2 || regions[1] != 4 {
        return refuse(format!("regions of shape {regions}"), "they must be [regions, 4]: x1, y1, x2, y2");
    }
    if batch.dims() != [regions[0]] || index.is_float() || index == DType::Bool {
        return refuse(
            format!("the maps of {} regions are {index} {batch}", regions[0]),
            format!("they must be integers of shape [{}]", regions[0]),
        );
    }
    Ok(())
}

/// The shape of what a grid samples from `[N, C, …]`.
fn sampled(x: &Shape, grid: &Shape) -> Result<Shape, ShapeError> {
    check_rank_from(x, 3, "the input")?;
    let axes = x.rank() - 2;
    let fits = grid.rank() == x.rank() && grid[0] == x[0] && grid[grid.rank() - 1] == axes;
    if !fits {
        let points = vec!["…"; axes].join(", ");
        return refuse(
            format!("a grid of shape {grid} for an input of shape {x}"),
            format!("it must be [{}, {points}, {axes}]", x[0]),
        );
    }
    if x[2..].contains(&0) && !grid.contains(&0) {
        return refuse(format!("samples of an input of shape {x}"), "a map without elements has none");
    }
    Ok([&x[..2], &grid[1..grid.rank() - 1]].concat().into())
}

fn check_samples(x: &Shape, grid: &Shape, dy: &Shape) -> Result<(), ShapeError> {
    let expected = sampled(x, grid)?;
    if *dy == expected {
        return Ok(());
    }
    refuse(format!("the gradient has shape {dy}"), format!("the samples have {expected}"))
}
