//! Rules of products, convolutions, pools and resampling.

use super::{Gradients, Rule};
use crate::{Op, Tensor};

impl Rule<'_> {
    pub(super) fn maps(&self) -> Gradients {
        let (x, dy) = (&self.inputs[0], &self.dy);
        let map = |tensor: &Tensor| [tensor.size(2), tensor.size(3)];
        match &self.node.op {
            Op::MatMul { trans_a, trans_b } => self.matmul(*trans_a, *trans_b),
            Op::Conv2d(attrs) => {
                let (attrs, w) = (*attrs, &self.inputs[1]);
                let dx = || self.push(Op::Conv2dInputGrad { attrs, input: map(x) }, &[dy, w]);
                let dw = || self.push(Op::Conv2dWeightGrad { attrs, kernel: map(w) }, &[x, dy]);
                let mut gradients = vec![self.wanted(0, dx), self.wanted(1, dw)];
                if self.inputs.len() == 3 {
                    gradients.push(self.wanted(2, || self.sum_over(dy, &[0, 2, 3])));
                }
                gradients
            }
            // The transposed convolution of x with w.
            Op::Conv2dInputGrad { attrs, .. } => {
                let (attrs, w) = (*attrs, &self.inputs[1]);
                let dx = || self.push(Op::Conv2d(attrs), &[dy, w]);
                let dw = || self.push(Op::Conv2dWeightGrad { attrs, kernel: map(w) }, &[dy, x]);
                vec![self.wanted(0, dx), self.wanted(1, dw)]
            }
            // dy stands for a weight here.
            Op::Conv2dWeightGrad { attrs, .. } => {
                let (attrs, g) = (*attrs, &self.inputs[1]);
                let dx = || self.push(Op::Conv2dInputGrad { attrs, input: map(x) }, &[g, dy]);
                let dg = || self.push(Op::Conv2d(attrs), &[x, dy]);
                vec![self.wanted(0, dx), self.wanted(1, dg)]
            }
            Op::MaxPool2d(windows) => vec![Some(self.push(Op::MaxPool2dGrad(*windows), &[x, dy]))],
            Op::AvgPool2d { windows, divisor } => {
                let op = Op::AvgPool2dGrad { windows: *windows, divisor: *divisor, input: map(x) };
                vec![Some(self.push(op, &[dy]))]
            }
            Op::AvgPool2dGrad { windows, divisor, .. } => {
                vec![Some(self.push(Op::AvgPool2d { windows: *windows, divisor: *divisor }, &[dy]))]
            }
            Op::Resize { spec, .. } => vec![Some(self.push(Op::ResizeGrad { spec: *spec, input: map(x) }, &[dy]))],
            Op::ResizeGrad { spec, .. } => vec![Some(self.push(Op::Resize { spec: *spec, out: map(x) }, &[dy]))],
            Op::RoiAlign(spec) => {
                let (regions, batch) = (&self.inputs[1], &self.inputs[2]);
                vec![Some(self.push(Op::RoiAlignGrad(*spec), &[x, regions, batch, dy])), None, None]
            }
            // Linear in its dy, where it is a mean.
            Op::RoiAlignGrad(spec) => {
                let (regions, batch) = (&self.inputs[1], &self.inputs[2]);
                vec![None, None, None, Some(self.push(Op::RoiAlign(*spec), &[dy, regions, batch]))]
            }
            Op::GridSample(spec) => {
                let grid = &self.inputs[1];
                let input = x.shape()[2..].to_vec();
                let dx = || self.push(Op::GridSampleInputGrad { spec: *spec, input }, &[grid, dy]);
                let dgrid = || self.push(Op::GridSampleGridGrad(*spec), &[x, grid, dy]);
                vec![self.wanted(0, dx), self.wanted(1, dgrid)]
            }
            _ => vec![None; self.inputs.len()],
        }
    }

    /// Of `op(a) op(b)`, each gradient is a product of `dy` with the other factor, transposed as need be.
    fn matmul(&self, trans_a: bool, trans_b: bool) -> Gradients {
        let (a, b, dy) = (&self.inputs[0], &self.inputs[1], &self.dy);
        let product = |x: &Tensor, trans_x: bool, y: &Tensor, trans_y: bool| {
            self.push(Op::MatMul { trans_a: trans_x, trans_b: trans_y }, &[x, y])
        };
        let left = || match trans_a {
            false => product(dy, false, b, !trans_b),
            true => product(b, trans_b, dy, true),
        };
        let right = || match trans_b {
            false => product(a, !trans_a, dy, false),
            true => product(dy, true, a, trans_a),
        };
        // A matrix that was broadcast over many rows of a higher array: one product of all rows does product and sum.
        let flat = self.flat_right(trans_a, trans_b);
        vec![
            self.wanted(0, || self.unbroadcast(left(), a)),
            self.wanted(1, || flat.unwrap_or_else(|| self.unbroadcast(right(), b))),
        ]
    }

    /// The gradient of the `[n, k]` matrix in `x[.., k] Wᵀ`, for x of more than two axes.
    fn flat_right(&self, trans_a: bool, trans_b: bool) -> Option<Tensor> {
        let (a, b) = (&self.inputs[0], &self.inputs[1]);
        if !self.wants[1] || trans_a || !trans_b || a.shape().rank() < 3 || b.shape().rank() != 2 {
            return None;
        }
        let rows = |t: &Tensor| {
            let last = t.size(t.shape().rank() - 1);
            self.push(Op::Reshape { shape: [t.shape().numel() / last.max(1), last].into() }, &[t])
        };
        Some(self.push(Op::MatMul { trans_a: true, trans_b: false }, &[&rows(&self.dy), &rows(a)]))
    }
}
