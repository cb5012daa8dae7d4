//! Normalisations.

use super::call::{Answer, Call, Halt, Handler, size_of};
use super::layers::parts;
use striate_graph::{Array, BinaryKind, DType, Mode, Op, Shape, Tensor, UpdateKind};

pub(super) fn handler(operator: &str) -> Option<Handler> {
    Some(match operator {
        "BatchNormalization" => batch_norm,
        "InstanceNormalization" => instance_norm,
        "LayerNormalization" => layer_norm,
        "RMSNormalization" => rms_norm,
        "GroupNormalization" => group_norm,
        "LRN" => local_response,
        "LpNormalization" => lp_norm,
        "MeanVarianceNormalization" => mean_variance,
        "Dropout" => dropout,
        _ => return None,
    })
}

fn eps(call: &Call, otherwise: f32) -> f32 {
    call.attributes.float("epsilon", otherwise)
}

/// Statistics of the batch in a trace for training and where the file says so (`training_mode`), else the running ones.
fn batch_norm(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let [gamma, beta, mean, var] = [1, 2, 3, 4].map(|index| call.input(index));
    let (gamma, beta, mean, var) = (gamma?, beta?, mean?, var?);
    let eps = eps(call, 1e-5);
    if x.shape().rank() < 2 {
        return Err(format!("an input of shape {}", x.shape()).into());
    }
    // One type for all: the parameters' where they differ (opset 15).
    let dtype = x.dtype();
    let [gamma, beta] = [gamma, beta].map(|value| value.cast(dtype));
    let [mean_here, var_here] = [&mean, &var].map(|value| value.cast(dtype));
    let told = call.attributes.flag("training_mode", false) || (call.opset < 14 && call.outputs > 1);
    let trains = mode_of(call)? == Mode::Train;
    if trains || told {
        let moments = call.push(Op::Moments, &[&x]);
        let momentum = call.attributes.float("momentum", 0.9);
        let y = call.push(Op::BatchNormTraining { eps }, &[&x, &gamma, &beta, &moments]);
        let batch = moments.detach();
        let (batch_mean, batch_var) = (batch.select(0, 0).cast(mean.dtype()), batch.select(0, 1).cast(var.dtype()));
        if trains && !told {
            let count = x.shape().numel() / x.size(1).max(1);
            let unbiased = count as f32 / (count.max(2) - 1) as f32;
            let decay = call.trace.constant(Array::full([1], momentum));
            for (index, value) in [(3, batch_mean), (4, batch_var.affine(unbiased, 0.0))] {
                if let Some(cell) = call.value(index)?.parameter().filter(|cell| cell.dtype() == DType::F32) {
                    call.trace.update(cell, &[], UpdateKind::Average, &[&value, &decay]);
                }
            }
            return Ok(y.into());
        }
        let joined = |old: &Tensor, new: &Tensor| scale(old, momentum) + scale(new, 1.0 - momentum);
        let running = vec![y, joined(&mean, &batch_mean), joined(&var, &batch_var)];
        return Ok(running.into());
    }
    Ok(call.push(Op::BatchNorm { eps }, &[&x, &gamma, &beta, &mean_here, &var_here]).into())
}

/// The mode of the layer that the factor's name tells: a frozen one behaves as in evaluation.
fn mode_of(call: &Call) -> Result<Mode, Halt> {
    let gamma = call.value(1)?;
    let Some(name) = gamma.parameter().map(|cell| cell.name()) else { return Ok(call.trace.mode()) };
    let _scope = call.trace.enter(parts(&name).0);
    Ok(call.trace.mode())
}

fn scale(x: &Tensor, factor: f32) -> Tensor {
    x.binary(BinaryKind::Mul, &x.scalar_like(f64::from(factor)))
}

/// `[C]` beside `[N, C, …]`.
fn per_channel(value: &Tensor, rank: usize) -> Tensor {
    value.reshape([&[value.shape().numel()][..], &vec![1; rank.saturating_sub(2)]].concat())
}

/// Mean 0 and variance 1 over all axes from `axis` on, in the type of `x`.
fn standardize(call: &Call, x: &Tensor, axis: usize, eps: f32) -> Tensor {
    let shape = x.shape();
    let length = Shape::from(&shape[axis.min(shape.rank())..]).numel();
    let rows = x.reshape([shape.numel().checked_div(length).unwrap_or(0), length]);
    call.push(Op::Standardize { eps }, &[&rows]).reshape(shape)
}

fn instance_norm(call: &mut Call) -> Answer {
    let (x, gamma, beta) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let rank = x.shape().rank();
    if rank < 3 {
        return Err(format!("an input of shape {}", x.shape()).into());
    }
    let y = standardize(call, &x, 2, eps(call, 1e-5));
    Ok((y * per_channel(&gamma, rank) + per_channel(&beta, rank)).into())
}

/// Gives mean and inverse deviation too where they are asked for.
fn layer_norm(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let axis = call.axis(-1, x.shape().rank())?;
    let eps = eps(call, 1e-5);
    let dtype = x.dtype();
    // `stash_type` 1: the statistics in f32.
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let work = x.cast(wide);
    let mut y = standardize(call, &work, axis, eps).cast(dtype);
    if call.has(1) {
        y = y * call.input(1)?;
    }
    if let Some(bias) = call.optional(2) {
        y = y + bias;
    }
    if call.outputs < 2 {
        return Ok(y.into());
    }
    let axes: Vec<isize> = (axis as isize..x.shape().rank() as isize).collect();
    let mean = work.mean(&axes, true);
    let var = (&work - &mean).square().mean(&axes, true);
    let inverse = (var.clone() + var.scalar_like(f64::from(eps))).rsqrt();
    Ok(vec![y, mean, inverse].into())
}

fn rms_norm(call: &mut Call) -> Answer {
    let (x, gamma) = (call.input(0)?, call.input(1)?);
    let axis = call.axis(-1, x.shape().rank())?;
    let dtype = x.dtype();
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let work = x.cast(wide);
    let axes: Vec<isize> = (axis as isize..x.shape().rank() as isize).collect();
    let power = work.square().mean(&axes, true);
    let y = &work * &(power.clone() + power.scalar_like(f64::from(eps(call, 1e-5)))).rsqrt();
    Ok((y.cast(dtype) * gamma).into())
}

/// Until opset 20 factor and summand stand a group, from 21 on a channel.
fn group_norm(call: &mut Call) -> Answer {
    let (x, gamma, beta) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let shape = x.shape();
    let groups = size_of(call.attributes.int("num_groups", 0))?;
    if shape.rank() < 2 || groups == 0 || !shape[1].is_multiple_of(groups) {
        return Err(format!("{groups} groups of an input of shape {shape}").into());
    }
    let dtype = x.dtype();
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let grouped = x.cast(wide).reshape([shape[0] * groups, shape.numel().checked_div(shape[0] * groups).unwrap_or(0)]);
    let y = standardize(call, &grouped, 1, eps(call, 1e-5)).cast(dtype);
    let along = |value: &Tensor| -> Result<Tensor, Halt> {
        match value.shape().numel() {
            n if n == shape[1] => Ok(per_channel(value, shape.rank())),
            n if n == groups => {
                let each = value.reshape([groups, 1]).expand([groups, shape[1] / groups]);
                Ok(per_channel(&each.reshape([shape[1]]), shape.rank()))
            }
            n => Err(format!("{n} factors for {groups} groups of {} channels", shape[1]).into()),
        }
    };
    Ok((y.reshape(shape.clone()) * along(&gamma)? + along(&beta)?).into())
}

/// `x / (bias + alpha / size * sum of squares of neighbouring channels) ^ beta`.
fn local_response(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let size = size_of(call.attributes.int("size", 0))?;
    let rank = x.shape().rank();
    if size == 0 || rank < 2 {
        return Err(format!("size {size} of an input of shape {}", x.shape()).into());
    }
    let [alpha, beta, bias] = [("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)]
        .map(|(name, otherwise)| call.attributes.float(name, otherwise));
    let channels = x.size(1);
    let before = ((size - 1) / 2).min(channels);
    let after = (size - 1 - (size - 1) / 2).min(channels);
    let mut pads = vec![[0, 0]; rank];
    pads[1] = [before as isize, after as isize];
    let squares = call.push(Op::Pad { pads, mode: striate_graph::PadMode::Constant(0.0) }, &[&x.square()]);
    let mut sum = squares.narrow(1, 0, channels);
    for offset in 1..=before + after {
        sum = sum + squares.narrow(1, offset, channels);
    }
    let base = scale(&sum, alpha / size as f32);
    let base = base.clone() + base.scalar_like(f64::from(bias));
    let power = base.pow(&base.scalar_like(f64::from(beta)));
    Ok(x.binary(BinaryKind::Div, &power).into())
}

fn lp_norm(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let axis = call.axis(-1, x.shape().rank())? as isize;
    let kind =
        if call.attributes.int("p", 2) == 1 { striate_graph::ReduceKind::L1 } else { striate_graph::ReduceKind::L2 };
    let norm = x.reduce(kind, &[axis], true);
    // Where all is 0, all stays 0.
    let zero = norm.eq(&norm.scalar_like(0.0));
    let norm = norm.scalar_like(1.0).where_(&zero, &norm);
    Ok(x.binary(BinaryKind::Div, &norm).into())
}

/// `(x - mean) / (deviation + 1e-9)`.
fn mean_variance(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let axes: Vec<isize> =
        call.attributes.ints("axes").unwrap_or(&[0, 2, 3]).iter().map(|&axis| axis as isize).collect();
    let centred = &x - &x.mean(&axes, true);
    let deviation = centred.square().mean(&axes, true).sqrt();
    Ok(centred.binary(BinaryKind::Div, &(deviation.clone() + deviation.scalar_like(1e-9))).into())
}

/// Drops nothing: the mask is all true. Where a file says that it trains, its random numbers could not be those of another program.
fn dropout(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    if call.has(2) && call.number(2)? != 0.0 {
        let ratio = if call.has(1) { call.number(1)? } else { 0.5 };
        if ratio != 0.0 {
            return Err("it drops at random also when the model is used (training_mode)".into());
        }
    }
    let mask = call.trace.constant(Array::scalar(true)).expand(x.shape());
    let mask = if call.opset < 10 { mask.cast(x.dtype()) } else { mask };
    Ok(vec![x, mask].into())
}
