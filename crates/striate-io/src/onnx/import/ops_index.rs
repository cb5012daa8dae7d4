//! Operators that order elements, or read and write where indices say.

use super::call::{Answer, Call, Halt, Handler, axis_of, size_of};
use striate_graph::{Array, DType, NmsSpec, Op, ScatterMode, Tensor, non_max_suppression};

pub(super) fn handler(operator: &str) -> Option<Handler> {
    Some(match operator {
        "TopK" => top_k,
        "CumSum" => cum_sum,
        "GatherND" => gather_nd,
        "ScatterND" => scatter_nd,
        "ScatterElements" | "Scatter" => scatter_elements,
        "NonMaxSuppression" => suppress,
        "ReverseSequence" => reverse_sequence,
        "Compress" => compress,
        _ => return None,
    })
}

fn top_k(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let axis = call.axis(-1, x.shape().rank())?;
    let k = match call.opset {
        ..10 => call.attributes.int("k", 0),
        _ => call.number(1)? as i64,
    };
    let largest = call.attributes.flag("largest", true);
    let (values, at) = x.topk(size_of(k)?, axis as isize, largest);
    Ok(vec![values, at].into())
}

fn cum_sum(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let axis = axis_of(call.number(1)? as i64, x.shape().rank())?;
    let (exclusive, reverse) = (call.attributes.flag("exclusive", false), call.attributes.flag("reverse", false));
    Ok(call.push(Op::CumSum { axis, exclusive, reverse }, &[&x]).into())
}

fn gather_nd(call: &mut Call) -> Answer {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let batch_dims = size_of(call.attributes.int("batch_dims", 0))?;
    Ok(call.push(Op::GatherNd { batch_dims }, &[&x, &indices]).into())
}

/// How a scatter combines.
fn reduction(call: &Call) -> Result<ScatterMode, Halt> {
    Ok(match call.attributes.word("reduction", "none").as_str() {
        "none" => ScatterMode::Set,
        "add" => ScatterMode::Add,
        "mul" => ScatterMode::Mul,
        "max" => ScatterMode::Max,
        "min" => ScatterMode::Min,
        other => return Err(format!("there is no reduction `{other}`").into()),
    })
}

fn scatter_nd(call: &mut Call) -> Answer {
    let (x, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let mode = reduction(call)?;
    Ok(call.push(Op::ScatterNd { mode }, &[&x, &indices, &updates]).into())
}

fn scatter_elements(call: &mut Call) -> Answer {
    let (x, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let axis = call.axis(0, x.shape().rank())?;
    let mode = reduction(call)?;
    Ok(call.push(Op::ScatterElements { axis, mode }, &[&x, &indices.cast(DType::I64), &updates]).into())
}

/// How many boxes are kept follows from the values, so the host does it: see [`Call::host`].
fn suppress(call: &mut Call) -> Answer {
    let most = if call.has(2) { call.number(2)? as i64 } else { 0 };
    let iou_threshold = if call.has(3) { call.number(3)? as f32 } else { 0.0 };
    let score_threshold = if call.has(4) { Some(call.number(4)? as f32) } else { None };
    let center = call.attributes.int("center_point_box", 0) == 1;
    let spec = NmsSpec { center, most: usize::try_from(most).unwrap_or(0), iou_threshold, score_threshold };
    let kept = call.host(&[0, 1], move |inputs| {
        let [boxes, scores] = [0, 1].map(|index: usize| inputs[index].cast(DType::F32));
        non_max_suppression(&boxes, &scores, &spec).map(|kept| vec![kept]).map_err(|error| error.to_string())
    })?;
    Ok(kept.into())
}

/// Of each sequence the first so many elements in the opposite order.
fn reverse_sequence(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let shape = x.shape();
    let lengths = call.ints(1)?;
    let [time, batch] = [("time_axis", 0), ("batch_axis", 1)]
        .map(|(name, otherwise)| axis_of(call.attributes.int(name, otherwise), shape.rank()));
    let (time, batch) = (time?, batch?);
    let (steps, sequences) = (shape[time], shape[batch]);
    if lengths.len() != sequences || lengths.iter().any(|&length| length < 0 || length as usize > steps) {
        return Err(format!("lengths {lengths:?} of {sequences} sequences of at most {steps}").into());
    }
    // The indices stand along both axes, and are repeated along all others.
    let mut sizes = vec![1; shape.rank()];
    (sizes[time], sizes[batch]) = (steps, sequences);
    let source = |t: usize, length: i64| if (t as i64) < length { length - 1 - t as i64 } else { t as i64 };
    let indices: Vec<i64> = match time < batch {
        true => (0..steps).flat_map(|t| lengths.iter().map(move |&length| source(t, length))).collect(),
        false => lengths.iter().flat_map(|&length| (0..steps).map(move |t| source(t, length))).collect(),
    };
    let indices = call.trace.constant(Array::from_vec(sizes, indices)?).expand(shape);
    Ok(x.gather(time as isize, &indices).into())
}

/// The elements, or the slices along an axis, for which a condition holds.
fn compress(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let holds = call.known(1)?.to_f64_vec();
    let (x, axis): (Tensor, usize) = match call.attributes.has("axis") {
        true => (x.clone(), call.axis(0, x.shape().rank())?),
        false => (x.reshape([x.shape().numel()]), 0),
    };
    let size = x.size(axis);
    let kept: Vec<i64> = (0..size as i64).filter(|&at| holds.get(at as usize).is_some_and(|&h| h != 0.0)).collect();
    let indices = call.trace.constant(Array::from_vec([kept.len()], kept)?);
    Ok(x.index_select(axis as isize, &indices).into())
}
