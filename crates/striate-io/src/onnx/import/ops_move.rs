//! Parts, copies and rearrangements.

use super::call::{Answer, Call, Halt, Handler, axis_of, size_of};
use super::ops_shape::counted_indices;
use striate_graph::{Array, DType, Op, PadMode, Shape, Tensor};

pub(super) fn handler(operator: &str) -> Option<Handler> {
    Some(match operator {
        "Slice" => slice,
        "Split" => split,
        "Expand" => expand,
        "Tile" => tile,
        "Pad" => pad,
        "GatherElements" => gather_elements,
        "ConstantOfShape" => constant_of_shape,
        "Range" => range,
        "DepthToSpace" => depth_to_space,
        "SpaceToDepth" => space_to_depth,
        "OneHot" => one_hot,
        "Trilu" => trilu,
        "EyeLike" => eye_like,
        _ => return None,
    })
}

fn slice(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let shape = x.shape();
    let rank = shape.rank();
    let (from, to) = (call.list(1, "starts")?, call.list(2, "ends")?);
    let (from, to) = (from.ok_or("it has no starts")?, to.ok_or("it has no ends")?);
    let axes = call.list(3, "axes")?.unwrap_or_else(|| (0..from.len() as i64).collect());
    let by = if call.has(4) { call.ints(4)? } else { vec![1; axes.len()] };
    if [from.len(), to.len(), by.len()] != [axes.len(); 3] {
        return Err(
            format!("{} starts, {} ends, {} steps for {} axes", from.len(), to.len(), by.len(), axes.len()).into()
        );
    }
    let (mut starts, mut sizes, mut steps) = (vec![0; rank], shape.to_vec(), vec![1; rank]);
    for (index, &axis) in axes.iter().enumerate() {
        let axis = axis_of(axis, rank)?;
        let size = shape[axis] as i64;
        let counted = |value: i64| if value < 0 { value.saturating_add(size) } else { value };
        let (step, low, high) = match by[index] {
            0 => return Err("a step of 0".into()),
            step if step > 0 => (step, (0, size), (0, size)),
            step => (step, (0, size - 1), (-1, size - 1)),
        };
        let start = counted(from[index]).min(low.1).max(low.0.min(low.1));
        let end = counted(to[index]).min(high.1).max(high.0);
        let count = if step > 0 { end - start } else { start - end };
        let count = (count.max(0) as u64).div_ceil(step.unsigned_abs()) as usize;
        starts[axis] = if count == 0 { 0 } else { size_of(start)? };
        sizes[axis] = count;
        steps[axis] = if count <= 1 { 1 } else { step as isize };
    }
    Ok(call.push(Op::Slice { starts, sizes, steps }, &[&x]).into())
}

fn split(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let axis = call.axis(0, x.shape().rank())?;
    let size = x.size(axis);
    let parts = match call.list(1, "split")? {
        Some(parts) => parts.into_iter().map(size_of).collect::<Result<Vec<_>, _>>()?,
        None => {
            let told = size_of(call.attributes.int("num_outputs", call.outputs as i64))?.max(1);
            // Equal parts; where that does not come out even, the last is smaller.
            let each = size.div_ceil(told);
            (0..told).map(|part| each.min(size.saturating_sub(part * each))).collect()
        }
    };
    if parts.iter().fold(0usize, |sum, &part| sum.saturating_add(part)) != size {
        return Err(format!("parts of {parts:?} out of {size} elements").into());
    }
    let mut start = 0;
    let mut outputs = Vec::with_capacity(parts.len());
    for part in parts {
        outputs.push(x.narrow(axis as isize, start, part));
        start += part;
    }
    Ok(outputs.into())
}

fn sizes(call: &mut Call, index: usize) -> Result<Vec<usize>, Halt> {
    call.ints(index)?.into_iter().map(size_of).collect()
}

fn expand(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let to: Shape = sizes(call, 1)?.into();
    let shape = x.shape().broadcast(&to).ok_or_else(|| format!("{} and {to} do not broadcast", x.shape()))?;
    Ok(x.expand(shape).into())
}

/// Each axis stands behind a new one along which it is repeated; then both are one.
fn tile(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let repeats = sizes(call, 1)?;
    let shape = x.shape();
    if repeats.len() != shape.rank() {
        return Err(format!("{} repeats for {} axes", repeats.len(), shape.rank()).into());
    }
    let pairs = |first: &dyn Fn(usize) -> usize| -> Vec<usize> {
        (0..shape.rank()).flat_map(|axis| [first(axis), shape[axis]]).collect()
    };
    let total: Vec<usize> = shape.iter().zip(&repeats).map(|(&size, &times)| size.saturating_mul(times)).collect();
    if Shape::from(total.clone()).numel() > 1 << 33 {
        return Err(format!("{shape} repeated {repeats:?} times is larger than any memory").into());
    }
    Ok(x.reshape(pairs(&|_| 1)).expand(pairs(&|axis| repeats[axis])).reshape(total).into())
}

fn pad(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let rank = x.shape().rank();
    let name = if call.attributes.has("paddings") { "paddings" } else { "pads" };
    let sides = call.list(1, name)?.ok_or("it has no pads")?;
    let axes = match call.has(3) {
        true => call.ints(3)?.into_iter().map(|axis| axis_of(axis, rank)).collect::<Result<Vec<_>, _>>()?,
        false => (0..rank).collect(),
    };
    if sides.len() != 2 * axes.len() {
        return Err(format!("{} pads for {} axes", sides.len(), axes.len()).into());
    }
    let mut pads = vec![[0, 0]; rank];
    for (index, &axis) in axes.iter().enumerate() {
        pads[axis] = [sides[index] as isize, sides[index + axes.len()] as isize];
    }
    let value = match (call.has(2), call.attributes.find("value")) {
        (true, _) => call.number(2)?,
        (false, Some(found)) => f64::from(found.f.unwrap_or(0.0)),
        (false, None) => 0.0,
    };
    let mode = match call.attributes.word("mode", "constant").as_str() {
        "constant" => PadMode::Constant(value as f32),
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Replicate,
        "wrap" => PadMode::Circular,
        other => return Err(format!("mode `{other}` is unknown").into()),
    };
    let largest = pads.iter().flatten().map(|pad| pad.unsigned_abs()).max().unwrap_or(0);
    if largest > 1 << 33 {
        return Err(format!("pads of {sides:?}").into());
    }
    Ok(call.push(Op::Pad { pads, mode }, &[&x]).into())
}

fn gather_elements(call: &mut Call) -> Answer {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let axis = call.axis(0, x.shape().rank())?;
    let indices = counted_indices(call, 1, &indices.cast(DType::I64), x.size(axis));
    Ok(call.push(Op::GatherElements { axis }, &[&x, &indices]).into())
}

fn constant_of_shape(call: &mut Call) -> Answer {
    let shape = sizes(call, 0)?;
    let value = call.attributes.tensor("value", call.external)?.unwrap_or_else(|| Array::scalar(0f32));
    if value.numel() != 1 {
        return Err(format!("its value has shape {}, it must be one number", value.shape()).into());
    }
    if Shape::from(shape.clone()).numel() > 1 << 33 {
        return Err(format!("a value of shape {shape:?} is larger than any memory").into());
    }
    Ok(call.trace.constant(value.reshape(Shape::default())?).expand(shape).into())
}

/// The file alone says how far a range goes, so it has a limit.
const MOST_COUNTED: f64 = (1 << 20) as f64;

fn range(call: &mut Call) -> Answer {
    let dtype = call.input(0)?.dtype();
    let [start, limit, delta] = [call.number(0)?, call.number(1)?, call.number(2)?];
    let count = ((limit - start) / delta).ceil().max(0.0);
    if count.is_nan() || count > MOST_COUNTED {
        return Err(format!(
            "a range from {start} to {limit} by {delta} has {count} elements, at most {MOST_COUNTED} are made"
        )
        .into());
    }
    let values: Vec<f64> = (0..count as usize).map(|index| start + index as f64 * delta).collect();
    Ok(Array::from_f64([values.len()], &values, dtype)?.into())
}

/// The block's size, and the input's shape.
fn blocks(call: &Call, x: &Tensor) -> Result<(usize, [usize; 4]), Halt> {
    let size = size_of(call.attributes.int("blocksize", 0))?;
    match x.shape()[..] {
        [n, c, h, w] if (1..=1 << 16).contains(&size) => Ok((size, [n, c, h, w])),
        _ => Err(format!("blocks of {size} in an input of shape {}", x.shape()).into()),
    }
}

fn depth_to_space(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let (b, [n, c, h, w]) = blocks(call, &x)?;
    let inner = c / (b * b);
    if inner * b * b != c {
        return Err(format!("{c} channels are no multiple of {}", b * b).into());
    }
    let y = match call.attributes.word("mode", "DCR").as_str() {
        "CRD" => x.reshape([n, inner, b, b, h, w]).permute(&[0, 1, 4, 2, 5, 3]),
        _ => x.reshape([n, b, b, inner, h, w]).permute(&[0, 3, 4, 1, 5, 2]),
    };
    Ok(y.reshape([n, inner, h * b, w * b]).into())
}

fn space_to_depth(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let (b, [n, c, h, w]) = blocks(call, &x)?;
    if !h.is_multiple_of(b) || !w.is_multiple_of(b) {
        return Err(format!("a map of {h}x{w} in blocks of {b}").into());
    }
    let cut = x.reshape([n, c, h / b, b, w / b, b]);
    let y = match call.attributes.word("mode", "DCR").as_str() {
        "CRD" => cut.permute(&[0, 1, 3, 5, 2, 4]),
        _ => cut.permute(&[0, 3, 5, 1, 2, 4]),
    };
    Ok(y.reshape([n, c * b * b, h / b, w / b]).into())
}

fn one_hot(call: &mut Call) -> Answer {
    let indices = call.input(0)?;
    let depth = size_of(call.number(1)? as i64)?;
    let values = call.input(2)?;
    let rank = indices.shape().rank() + 1;
    let axis = call.axis(-1, rank)?;
    if values.shape().dims() != [2] {
        return Err(format!("its values have shape {}, they must be two", values.shape()).into());
    }
    // An index may count from the end, once; beyond that it marks nothing.
    let indices = indices.cast(DType::I64);
    let negative = indices.lt(&indices.scalar_like(0.0));
    let counted = (indices.clone() + indices.scalar_like(depth as f64)).where_(&negative, &indices);
    let hot = counted.one_hot(depth).cast(DType::Bool);
    let y = values.select(0, 1).where_(&hot, &values.select(0, 0));
    let mut perm: Vec<usize> = (0..rank - 1).collect();
    perm.insert(axis, rank - 1);
    Ok(y.permute(&perm).into())
}

/// A matrix of truths: where `column - row` fulfils something.
fn band(call: &Call, rows: usize, columns: usize, holds: impl Fn(i64) -> bool) -> Result<Tensor, Halt> {
    if rows.saturating_mul(columns) > 1 << 28 {
        return Err(format!("a matrix of {rows}x{columns}").into());
    }
    let places = (0..rows).flat_map(|row| (0..columns).map(move |column| column as i64 - row as i64));
    let truths: Vec<bool> = places.map(holds).collect();
    Ok(call.trace.constant(Array::from_vec([rows, columns], truths)?))
}

fn trilu(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let k = if call.has(1) { call.number(1)? as i64 } else { 0 };
    let upper = call.attributes.flag("upper", true);
    let [.., rows, columns] = x.shape()[..] else { return Err(format!("an input of shape {}", x.shape()).into()) };
    let kept = band(call, rows, columns, |offset| if upper { offset >= k } else { offset <= k })?;
    Ok(x.where_(&kept, &x.scalar_like(0.0)).into())
}

fn eye_like(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let k = call.attributes.int("k", 0);
    let code = call.attributes.int("dtype", 0);
    let dtype = match call.attributes.has("dtype") {
        true => i32::try_from(code).ok().and_then(crate::onnx::dtype_of).ok_or_else(|| format!("type {code}"))?,
        false => x.dtype(),
    };
    let [rows, columns] = x.shape()[..] else { return Err(format!("an input of shape {}", x.shape()).into()) };
    let ones = band(call, rows, columns, |offset| offset == k)?;
    Ok(ones.cast(dtype).into())
}
