//! Matrix products and convolutions.

use super::Call;
use super::convert::{floats, from_integers, integers};
use crate::{Array, ConvAttrs, Element, Op, Result};
use striate_kernels::conv::Conv2dShape;
use striate_kernels::reference::{
    Float, MatMulShape, broadcast_strides, for_each_offset, reference_conv2d, reference_conv2d_input_grad,
    reference_conv2d_weight_grad, reference_matmul, reference_matmul_i64,
};

pub(super) fn run(call: &Call) -> Result<Array> {
    if let (Op::MatMul { trans_a, trans_b }, false) = (&call.node.op, call.dtype.is_float()) {
        let (a, b) = (integers(call.inputs[0]), integers(call.inputs[1]));
        let mut out = vec![0; call.node.shape.numel()];
        let sides = ((call.inputs[0], &a[..]), (call.inputs[1], &b[..]));
        matmul(sides, [*trans_a, *trans_b], reference_matmul_i64, call, &mut out);
        return from_integers(&call.node.shape, out, call.dtype);
    }
    call.compute(call.dtype, || compute::<f32>(call), || compute::<f64>(call))
}

fn compute<T: Float + Element>(call: &Call) -> Result<Vec<T>> {
    let (first, second) = (call.inputs[0], call.inputs[1]);
    let (a, b) = (floats::<T>(first), floats::<T>(second));
    let mut out = vec![T::ZERO; call.node.shape.numel()];
    let out_dims = call.node.shape.dims();
    match &call.node.op {
        Op::MatMul { trans_a, trans_b } => {
            matmul(((first, &a), (second, &b)), [*trans_a, *trans_b], reference_matmul, call, &mut out);
        }
        Op::Conv2d(attrs) => {
            let shape = conv_shape(attrs, first.shape(), second.shape());
            let bias = call.inputs.get(2).map(|bias| floats::<T>(bias));
            if !out.is_empty() {
                reference_conv2d(&shape, &a, &b, bias.as_deref(), &mut out);
            }
        }
        Op::Conv2dInputGrad { attrs, .. } => {
            let shape = conv_shape(attrs, out_dims, second.shape());
            reference_conv2d_input_grad(&shape, &a, &b, &mut out);
        }
        Op::Conv2dWeightGrad { attrs, .. } => {
            let shape = conv_shape(attrs, first.shape(), out_dims);
            reference_conv2d_weight_grad(&shape, &a, &b, &mut out);
        }
        _ => return Err(call.misplaced()),
    }
    Ok(out)
}

/// From the shapes of the input `[N, C, H, W]` and the weight `[O, C / groups, KH, KW]`.
fn conv_shape(attrs: &ConvAttrs, x: &[usize], w: &[usize]) -> Conv2dShape {
    Conv2dShape {
        n: x[0],
        ic: x[1],
        ih: x[2],
        iw: x[3],
        oc: w[0],
        kh: w[2],
        kw: w[3],
        stride: attrs.stride,
        pads: attrs.pads,
        dilation: attrs.dilation,
        groups: attrs.groups,
    }
}

/// An array with its elements in the type that is computed in.
type Matrices<'a, T> = (&'a Array, &'a [T]);

/// A product of the last two axes for each position of the broadcast leading ones.
fn matmul<T>(
    (a, b): (Matrices<T>, Matrices<T>),
    [trans_a, trans_b]: [bool; 2],
    kernel: fn(MatMulShape, &[T], &[T], &mut [T]),
    call: &Call,
    out: &mut [T],
) {
    let split = |dims: &[usize]| dims.split_at(dims.len() - 2).0.len();
    let (out_dims, a_dims, b_dims) = (call.node.shape.dims(), a.0.shape().dims(), b.0.shape().dims());
    let lead = &out_dims[..split(out_dims)];
    let (m, n) = (out_dims[lead.len()], out_dims[lead.len() + 1]);
    let (a_lead, b_lead) = (&a_dims[..split(a_dims)], &b_dims[..split(b_dims)]);
    let k = a_dims[a_lead.len() + usize::from(!trans_a)];
    let shape = MatMulShape { m, n, k, transpose_a: trans_a, transpose_b: trans_b };
    let strides = [broadcast_strides(a_lead, lead), broadcast_strides(b_lead, lead)];
    if m * n == 0 {
        return;
    }
    let mut products = out.chunks_exact_mut(m * n);
    for_each_offset(lead, [0, 0], [&strides[0], &strides[1]], |[i, j]| {
        if let Some(product) = products.next() {
            let (left, right) = (&a.1[i * m * k..(i + 1) * m * k], &b.1[j * k * n..(j + 1) * k * n]);
            kernel(shape, left, right, product);
        }
    });
}
