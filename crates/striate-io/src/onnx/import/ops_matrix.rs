//! Products of matrices, reductions, softmax.

use super::call::{Answer, Call, Halt, Handler, axis_of};
use striate_graph::{BinaryKind, DType, Op, ReduceKind, Shape, Tensor};

pub(super) fn handler(operator: &str) -> Option<Handler> {
    Some(match operator {
        "MatMul" => mat_mul,
        "Gemm" => gemm,
        "Softmax" | "LogSoftmax" | "Hardmax" => softmax,
        "ArgMax" | "ArgMin" => arg_reduce,
        "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceSumSquare" | "ReduceL1"
        | "ReduceL2" | "ReduceLogSumExp" | "ReduceLogSum" => reduce,
        _ => return None,
    })
}

fn mat_mul(call: &mut Call) -> Answer {
    let (a, b) = (call.input(0)?, call.input(1)?);
    // Vectors become matrices of one row or one column, which go again.
    let (from, to) = (a.shape().rank(), b.shape().rank());
    if from == 0 || to == 0 {
        return Err("an operand without axes".into());
    }
    let left = if from == 1 { a.unsqueeze(0) } else { a };
    let right = if to == 1 { b.unsqueeze(1) } else { b };
    let product = left.matmul(&right);
    let product = if to == 1 { product.squeeze(-1) } else { product };
    Ok(match (from, to) {
        (1, 1) => product.squeeze(-1),
        (1, _) => product.squeeze(-2),
        _ => product,
    }
    .into())
}

/// `alpha A B + beta C`.
fn gemm(call: &mut Call) -> Answer {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let [trans_a, trans_b] = ["transA", "transB"].map(|name| call.attributes.flag(name, false));
    let [alpha, beta] = ["alpha", "beta"].map(|name| call.attributes.float(name, 1.0));
    let scaled = |x: Tensor, factor: f32| match factor {
        1.0 => x,
        _ if x.dtype() == DType::F32 => x.affine(factor, 0.0),
        _ => x.binary(BinaryKind::Mul, &x.scalar_like(f64::from(factor))),
    };
    let product = scaled(call.push(Op::MatMul { trans_a, trans_b }, &[&a, &b]), alpha);
    Ok(match call.optional(2) {
        Some(c) => product.binary(BinaryKind::Add, &scaled(c, beta)).into(),
        None => product.into(),
    })
}

/// Before opset 13 over all axes from `axis` on, which are as one.
fn softmax(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let shape = x.shape();
    if shape.rank() == 0 {
        return Err("an input without axes".into());
    }
    let along = |x: &Tensor, axis: usize| -> Tensor {
        let axis = axis as isize;
        match call.op {
            "Softmax" => x.softmax(axis),
            "LogSoftmax" => x.log_softmax(axis),
            // The number of the largest, written out along a last axis, which then moves to its place.
            _ => {
                let last = x.transpose(axis, -1);
                last.argmax(-1, false).one_hot(last.size(last.shape().rank() - 1)).cast(x.dtype()).transpose(axis, -1)
            }
        }
    };
    if call.opset >= 13 {
        let axis = call.axis(-1, shape.rank())?;
        return Ok(along(&x, axis).into());
    }
    let axis = call.axis(1, shape.rank())?;
    let product = |sizes: &[usize]| Shape::from(sizes).numel();
    let rows = x.reshape([product(&shape[..axis]), product(&shape[axis..])]);
    Ok(along(&rows, 1).reshape(shape).into())
}

fn arg_reduce(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let axis = call.axis(0, x.shape().rank())?;
    let (max, keepdims) = (call.op == "ArgMax", call.attributes.flag("keepdims", true));
    if !call.attributes.flag("select_last_index", false) {
        return Ok(call.push(Op::ArgReduce { max, axis, keepdims }, &[&x]).into());
    }
    // The last of the best is the first one seen from the other end.
    let shape = x.shape();
    let (mut starts, mut steps) = (vec![0; shape.rank()], vec![1; shape.rank()]);
    (starts[axis], steps[axis]) = (shape[axis].saturating_sub(1), -1);
    let turned = call.push(Op::Slice { starts, sizes: shape.to_vec(), steps }, &[&x]);
    let place = call.push(Op::ArgReduce { max, axis, keepdims }, &[&turned]);
    Ok((place.scalar_like(shape[axis] as f64 - 1.0) - place).into())
}

fn reduce(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let rank = x.shape().rank();
    let axes = match call.list(1, "axes")? {
        Some(axes) if !axes.is_empty() => axes,
        _ if call.attributes.flag("noop_with_empty_axes", false) => Vec::new(),
        _ => (0..rank as i64).collect(),
    };
    let axes = axes.into_iter().map(|axis| Ok(axis_of(axis, rank)? as isize)).collect::<Result<Vec<_>, Halt>>()?;
    let keepdims = call.attributes.flag("keepdims", true);
    let kind = match call.op {
        "ReduceSum" => ReduceKind::Sum,
        "ReduceMean" => ReduceKind::Mean,
        "ReduceMax" => ReduceKind::Max,
        "ReduceMin" => ReduceKind::Min,
        "ReduceProd" => ReduceKind::Prod,
        "ReduceSumSquare" => ReduceKind::SumSquare,
        "ReduceL1" => ReduceKind::L1,
        "ReduceL2" => ReduceKind::L2,
        "ReduceLogSumExp" => ReduceKind::LogSumExp,
        "ReduceLogSum" => return Ok(x.reduce(ReduceKind::Sum, &axes, keepdims).log().into()),
        _ => return Err("no reduction has this name".into()),
    };
    Ok(x.reduce(kind, &axes, keepdims).into())
}
