//! Shapes, movements and types.

use super::call::{Answer, Call, Halt, Handler, axis_of, size_of};
use crate::onnx::dtype_of;
use crate::onnx::tensor::type_name;
use striate_graph::{Array, DType, Op, Shape, Tensor};

pub(super) fn handler(operator: &str) -> Option<Handler> {
    Some(match operator {
        "Identity" => identity,
        "Constant" => constant,
        "Shape" => shape,
        "Size" => size,
        "Cast" | "CastLike" => cast,
        "Reshape" => reshape,
        "Flatten" => flatten,
        "Squeeze" => squeeze,
        "Unsqueeze" => unsqueeze,
        "Transpose" => transpose,
        "Concat" => concat,
        "Gather" => gather,
        "NonZero" => non_zero,
        _ => return None,
    })
}

fn identity(call: &mut Call) -> Answer {
    Ok(call.value(0)?.into())
}

fn constant(call: &mut Call) -> Answer {
    let attributes = call.attributes;
    let row = |array: Result<Array, striate_graph::Error>| -> Answer { Ok(array?.into()) };
    for name in ["value", "sparse_value"] {
        if let Some(array) = attributes.tensor(name, call.external)? {
            return Ok(array.into());
        }
    }
    if attributes.has("value_float") {
        return Ok(Array::scalar(attributes.float("value_float", 0.0)).into());
    }
    if attributes.has("value_int") {
        return Ok(Array::scalar(attributes.int("value_int", 0)).into());
    }
    match (attributes.floats("value_floats"), attributes.ints("value_ints")) {
        (Some(list), _) => row(Array::from_vec([list.len()], list.to_vec())),
        (None, Some(list)) => row(Array::from_vec([list.len()], list.to_vec())),
        (None, None) => Err("it has no value, or one of text, which is not supported".into()),
    }
}

/// Whole numbers as data.
fn row(values: Vec<i64>) -> Answer {
    Ok(Array::from_vec([values.len()], values)?.into())
}

fn shape(call: &mut Call) -> Answer {
    let shape = shape_of(call, 0)?;
    let rank = shape.rank() as i64;
    let place = |value: i64| (if value < 0 { value.saturating_add(rank) } else { value }).clamp(0, rank) as usize;
    let start = place(call.attributes.int("start", 0));
    let end = place(call.attributes.int("end", rank)).max(start);
    row(shape[start..end].iter().map(|&size| size as i64).collect())
}

fn size(call: &mut Call) -> Answer {
    Ok(Array::scalar(shape_of(call, 0)?.numel() as i64).into())
}

/// The shape of an input, without reading it.
fn shape_of(call: &Call, index: usize) -> Result<Shape, Halt> {
    let value = call.value(index)?;
    Ok(match (value.data(), value.parameter()) {
        (Some(array), _) => array.shape().clone(),
        (None, Some(cell)) => cell.shape(),
        (None, None) => value.tensor(&call.trace).shape(),
    })
}

fn cast(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    if call.op == "CastLike" {
        return Ok(x.cast(call.input(1)?.dtype()).into());
    }
    let code = call.attributes.int("to", 0);
    let to = i32::try_from(code).ok().and_then(dtype_of);
    let to = to.ok_or_else(|| format!("it converts to {}, which is not supported", type_name(code as i32)))?;
    Ok(x.cast(to).into())
}

fn reshape(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let told = call.list(1, "shape")?.ok_or("it has no shape")?;
    let from = x.shape();
    let zeros = call.attributes.flag("allowzero", false);
    let mut sizes = Vec::with_capacity(told.len());
    for (axis, &size) in told.iter().enumerate() {
        sizes.push(match size {
            0 if !zeros => *from.get(axis).ok_or("it copies a size that is not there")?,
            -1 => 1,
            size => size_of(size)?,
        });
    }
    match told.iter().filter(|&&size| size == -1).count() {
        0 => {}
        1 => {
            let open = told.iter().position(|&size| size == -1).unwrap_or(0);
            let others = Shape::from(sizes.clone()).numel();
            sizes[open] = from.numel().checked_div(others).unwrap_or(0);
        }
        _ => return Err(format!("the shape {told:?} leaves more than one size open").into()),
    }
    Ok(x.reshape(sizes).into())
}

fn flatten(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let shape = x.shape();
    let axis = call.attributes.int("axis", 1);
    let at = if axis == shape.rank() as i64 { shape.rank() } else { axis_of(axis, shape.rank())? };
    let (lead, tail) = shape.split_at(at);
    let product = |sizes: &[usize]| Shape::from(sizes).numel();
    Ok(x.reshape([product(lead), product(tail)]).into())
}

fn squeeze(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let shape = x.shape();
    let axes = match call.list(1, "axes")? {
        Some(axes) => axes.into_iter().map(|axis| axis_of(axis, shape.rank())).collect::<Result<Vec<_>, _>>()?,
        None => (0..shape.rank()).filter(|&axis| shape[axis] == 1).collect(),
    };
    if let Some(axis) = axes.iter().find(|&&axis| shape[axis] != 1) {
        return Err(format!("axis {axis} of {shape} cannot go: its size is not 1").into());
    }
    let kept: Vec<usize> = (0..shape.rank()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect();
    Ok(x.reshape(kept).into())
}

fn unsqueeze(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let axes = call.list(1, "axes")?.ok_or("it has no axes")?;
    let rank = x.shape().rank() + axes.len();
    let mut axes = axes.into_iter().map(|axis| axis_of(axis, rank)).collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    let mut sizes = x.shape().to_vec();
    for axis in axes {
        if axis > sizes.len() {
            return Err("an axis is named twice".into());
        }
        sizes.insert(axis, 1);
    }
    Ok(x.reshape(sizes).into())
}

fn transpose(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let rank = x.shape().rank();
    let perm = match call.attributes.ints("perm") {
        Some(perm) => perm.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).rev().collect(),
    };
    Ok(x.permute(&perm).into())
}

fn concat(call: &mut Call) -> Answer {
    let parts = call.all()?;
    let first = parts.first().ok_or("it has no inputs")?;
    let axis = call.axis(1, first.shape().rank())?;
    Ok(Tensor::cat(&parts.iter().collect::<Vec<_>>(), axis as isize).into())
}

/// Negative indices count from the end.
fn gather(call: &mut Call) -> Answer {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let axis = call.axis(0, x.shape().rank())?;
    let indices = counted_indices(call, 1, &indices.cast(DType::I64), x.size(axis));
    Ok(call.push(Op::Gather { axis }, &[&x, &indices]).into())
}

/// Indices that may count from the end, as such that count from the front.
pub(super) fn counted_indices(call: &Call, index: usize, indices: &Tensor, size: usize) -> Tensor {
    let data = call.inputs.get(index).and_then(|value| value.as_ref()?.data().cloned());
    match data.map(|array| array.to_i64_vec()) {
        Some(list) if list.iter().all(|&i| i >= 0) => indices.clone(),
        Some(list) => {
            let list = list.into_iter().map(|i| if i < 0 { i.saturating_add(size as i64) } else { i }).collect();
            match Array::from_vec::<i64>(indices.shape(), list) {
                Ok(array) => call.trace.constant(array),
                Err(_) => indices.clone(),
            }
        }
        None => {
            let negative = indices.lt(&indices.scalar_like(0.0));
            let shifted = indices.clone() + indices.scalar_like(size as f64);
            shifted.where_(&negative, indices)
        }
    }
}

/// Its output's shape follows from the values, so the host computes it: see [`Call::host`].
fn non_zero(call: &mut Call) -> Answer {
    Ok(call.host(&[0], |inputs| Ok(vec![striate_graph::non_zero(&inputs[0])]))?.into())
}
