//! Quantised numbers, made of operations on the whole numbers themselves: exact, at the speed of the reference kernels.

use super::call::{Answer, Call, Halt, Handler, size_of};
use super::ops_conv;
use super::value::Value;
use crate::onnx::dtype_of;
use striate_graph::{Array, DType, ReduceKind, Tensor, UnaryKind};

pub(super) fn handler(operator: &str) -> Option<Handler> {
    Some(match operator {
        "QuantizeLinear" => quantize,
        "DequantizeLinear" => dequantize,
        "DynamicQuantizeLinear" => dynamic_quantize,
        "MatMulInteger" => mat_mul_integer,
        "QLinearMatMul" => quantized_mat_mul,
        "ConvInteger" => conv_integer,
        "QLinearConv" => quantized_conv,
        _ => return None,
    })
}

/// The smallest and the greatest number of a type.
fn range(dtype: DType) -> Result<(f64, f64), Halt> {
    match dtype {
        DType::U8 => Ok((0.0, 255.0)),
        DType::I8 => Ok((-128.0, 127.0)),
        DType::I16 => Ok((-32768.0, 32767.0)),
        DType::I32 => Ok((f64::from(i32::MIN), f64::from(i32::MAX))),
        other => Err(format!("numbers are quantised to {other}, which is not supported").into()),
    }
}

/// Rounded (halves to even), moved by the zero point, and held inside of the type.
fn saturated(x: &Tensor, zero: Option<&Tensor>, dtype: DType) -> Result<Tensor, Halt> {
    let (low, high) = range(dtype)?;
    let rounded = x.unary(UnaryKind::Round);
    let moved = match zero {
        Some(zero) => &rounded + &zero.cast(x.dtype()),
        None => rounded,
    };
    Ok(moved.maximum(&moved.scalar_like(low)).minimum(&moved.scalar_like(high)).cast(dtype))
}

/// The file alone says how long an axis is, so one that is cut into blocks has a limit.
const MOST_BLOCKED: usize = 1 << 20;

/// A scale or zero point as it stands beside the elements of `x`: one for all, one for each element along `axis`, or one for each
/// block of them.
fn beside(call: &Call, x: &Tensor, factor: &Tensor) -> Result<Tensor, Halt> {
    let (shape, own) = (x.shape(), factor.shape());
    if own.numel() == 1 && own.rank() <= 1 {
        return Ok(factor.reshape([0usize; 0]));
    }
    let axis = call.axis(1, shape.rank())?;
    let block = size_of(call.attributes.int("block_size", 0))?;
    if block == 0 {
        if own.rank() != 1 || own[0] != shape[axis] {
            return Err(format!("factors of shape {own} along axis {axis} of {shape}").into());
        }
        let mut sizes = vec![1; shape.rank()];
        sizes[axis] = own[0];
        return Ok(factor.reshape(sizes));
    }
    let blocks = shape[axis].div_ceil(block);
    if own.rank() != shape.rank() || own[axis] != blocks {
        return Err(format!("factors of shape {own} for blocks of {block} along axis {axis} of {shape}").into());
    }
    if shape[axis] > MOST_BLOCKED {
        return Err(format!("blocks along {} elements, at most {MOST_BLOCKED} are cut", shape[axis]).into());
    }
    let which: Vec<i64> = (0..shape[axis]).map(|at| (at / block) as i64).collect();
    let which = call.trace.constant(Array::from_vec([which.len()], which)?);
    Ok(factor.index_select(axis as isize, &which))
}

/// The type that an attribute names.
fn named_type(call: &Call, attribute: &str) -> Result<Option<DType>, Halt> {
    match call.attributes.int(attribute, 0) {
        0 => Ok(None),
        code => {
            let found = i32::try_from(code).ok().and_then(dtype_of);
            found.map(Some).ok_or_else(|| Halt::Why(format!("`{attribute}` names type {code}, which is not supported")))
        }
    }
}

fn quantize(call: &mut Call) -> Answer {
    let (x, scale, zero) = (call.input(0)?, call.input(1)?, call.optional(2));
    let dtype = match (&zero, named_type(call, "output_dtype")?) {
        (Some(zero), _) => zero.dtype(),
        (None, named) => named.unwrap_or(DType::U8),
    };
    let scale = beside(call, &x, &scale)?.cast(DType::F32);
    let zero = zero.map(|zero| beside(call, &x, &zero)).transpose()?;
    let quotient = x.cast(DType::F32) / scale;
    Ok(saturated(&quotient, zero.as_ref(), dtype)?.into())
}

/// `(x - zero) * scale`, the difference in whole numbers.
fn dequantize(call: &mut Call) -> Answer {
    let (x, scale, zero) = (call.input(0)?, call.input(1)?, call.optional(2));
    let dtype = named_type(call, "output_dtype")?.unwrap_or(scale.dtype());
    let scale = beside(call, &x, &scale)?;
    let whole = match zero {
        Some(zero) => x.cast(DType::I32) - beside(call, &x, &zero)?.cast(DType::I32),
        None => x.clone(),
    };
    let wide = |t: &Tensor| t.cast(if dtype == DType::F64 { DType::F64 } else { DType::F32 });
    Ok((wide(&whole) * wide(&scale)).cast(dtype).into())
}

/// To u8, so that the range of the values and 0 fit in.
fn dynamic_quantize(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let axes: Vec<isize> = (0..x.shape().rank() as isize).collect();
    let zero = x.scalar_like(0.0);
    let low = x.reduce(ReduceKind::Min, &axes, false).minimum(&zero);
    let high = x.reduce(ReduceKind::Max, &axes, false).maximum(&zero);
    let width = &high - &low;
    // Zeros alone are 0 by any scale.
    let scale = width.scalar_like(1.0).where_(&width.eq(&zero), &(&width / &x.scalar_like(255.0)));
    let place = saturated(&(low.neg() / &scale), None, DType::U8)?;
    let y = saturated(&(&x / &scale), Some(&place), DType::U8)?;
    Ok(vec![y, scale, place].into())
}

/// Whole numbers less their zero point; one zero point for all, or one for each row or column.
fn centred(x: &Tensor, zero: Option<Tensor>, axis_from_end: usize) -> Tensor {
    let x32 = x.cast(DType::I32);
    let Some(zero) = zero else { return x32 };
    x32 - along(zero.cast(DType::I32), axis_from_end)
}

/// One number for all, or a row of them along an axis counted from the end: the last is 1.
fn along(numbers: Tensor, axis_from_end: usize) -> Tensor {
    match numbers.shape()[..] {
        [n] if n > 1 => numbers.reshape([&[n][..], &vec![1; axis_from_end.saturating_sub(1)]].concat()),
        [1] => numbers.reshape([0usize; 0]),
        _ => numbers,
    }
}

fn mat_mul_integer(call: &mut Call) -> Answer {
    let (a, b) = (centred(&call.input(0)?, call.optional(2), 2), centred(&call.input(1)?, call.optional(3), 1));
    Ok(a.matmul(&b).into())
}

/// A scale for all, for each row, or for each column.
fn factor(scale: &Tensor, axis_from_end: usize) -> Tensor {
    along(scale.cast(DType::F32), axis_from_end)
}

fn quantized_mat_mul(call: &mut Call) -> Answer {
    let (a, b) = (centred(&call.input(0)?, call.optional(2), 2), centred(&call.input(3)?, call.optional(5), 1));
    let scale = factor(&call.input(1)?, 2) * factor(&call.input(4)?, 1) / factor(&call.input(6)?, 1);
    let zero = call.input(7)?;
    let y = a.matmul(&b).cast(DType::F32) * scale;
    let moved = match zero.shape()[..] {
        [1] => zero.reshape([0usize; 0]),
        _ => zero.clone(),
    };
    Ok(saturated(&y, Some(&moved), zero.dtype())?.into())
}

/// The convolution of whole numbers in f64, where each sum is exact.
fn exact_conv(call: &mut Call, x: Tensor, weight: Tensor) -> Result<Tensor, Halt> {
    let wide = |t: Tensor| Some(Value::traced(t.cast(DType::F64)));
    call.inputs = vec![wide(x), wide(weight)];
    let outputs = ops_conv::conv(call)?;
    let value = outputs.0.into_iter().next().ok_or("the convolution has no output")?;
    Ok(value.tensor(&call.trace))
}

/// A zero point of the weight for each output channel.
fn centred_weight(w: &Tensor, zero: Option<Tensor>) -> Tensor {
    let rank = w.shape().rank();
    centred(w, zero, rank)
}

fn conv_integer(call: &mut Call) -> Answer {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let (x, w) = (centred(&x, call.optional(2), 1), centred_weight(&w, call.optional(3)));
    Ok(exact_conv(call, x, w)?.cast(DType::I32).into())
}

fn quantized_conv(call: &mut Call) -> Answer {
    let (x, w, zero) = (call.input(0)?, call.input(3)?, call.input(7)?);
    let channels_behind = x.shape().rank().saturating_sub(1);
    let (x, w) = (centred(&x, call.optional(2), 1), centred_weight(&w, call.optional(5)));
    let scale = factor(&call.input(1)?, 1) * factor(&call.input(4)?, channels_behind) / factor(&call.input(6)?, 1);
    let bias = call.optional(8);
    let sums = exact_conv(call, x, w)?;
    let sums = match bias {
        Some(bias) => {
            let channels = bias.shape().numel();
            let column = [&[channels][..], &vec![1; channels_behind.saturating_sub(1)]].concat();
            sums + bias.cast(DType::F64).reshape(column)
        }
        None => sums,
    };
    let y = sums.cast(DType::F32) * scale;
    let place = if zero.shape().rank() == 1 { zero.reshape([0usize; 0]) } else { zero.clone() };
    Ok(saturated(&y, Some(&place), zero.dtype())?.into())
}
