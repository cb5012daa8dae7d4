//! Rules of operations that move elements.

use super::{Gradients, Rule};
use crate::{Op, ReduceKind, Tensor};

impl Rule<'_> {
    pub(super) fn movement(&self) -> Gradients {
        let (x, dy) = (&self.inputs[0], &self.dy);
        match &self.node.op {
            Op::Reshape { .. } => vec![Some(self.push(Op::Reshape { shape: x.shape() }, &[dy]))],
            Op::Transpose { perm } => {
                let mut inverse = vec![0; perm.len()];
                perm.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
                vec![Some(self.push(Op::Transpose { perm: inverse }, &[dy]))]
            }
            Op::Expand { .. } => vec![Some(self.unbroadcast(dy.clone(), x))],
            Op::Slice { starts, steps, .. } => {
                let op = Op::SliceGrad { shape: x.shape(), starts: starts.clone(), steps: steps.clone() };
                vec![Some(self.push(op, &[dy]))]
            }
            Op::SliceGrad { starts, steps, .. } => {
                let op = Op::Slice { starts: starts.clone(), sizes: x.shape().to_vec(), steps: steps.clone() };
                vec![Some(self.push(op, &[dy]))]
            }
            Op::Concat { axis } => self.concat(*axis),
            Op::Pad { pads, mode } => vec![Some(self.push(Op::PadGrad { pads: pads.clone(), mode: *mode }, &[dy]))],
            Op::PadGrad { pads, mode } => {
                // A constant border is no part of the linear map.
                let mode = if let crate::PadMode::Constant(_) = mode { crate::PadMode::Constant(0.0) } else { *mode };
                vec![Some(self.push(Op::Pad { pads: pads.clone(), mode }, &[dy]))]
            }
            Op::Gather { axis } => {
                let op = Op::GatherGrad { axis: *axis, size: x.size(*axis) };
                vec![Some(self.push(op, &[&self.inputs[1], dy])), None]
            }
            Op::GatherGrad { axis, .. } => vec![None, Some(self.push(Op::Gather { axis: *axis }, &[dy, x]))],
            _ => vec![None; self.inputs.len()],
        }
    }

    fn concat(&self, axis: usize) -> Gradients {
        let mut start = 0;
        let mut gradients = Vec::with_capacity(self.inputs.len());
        for (index, input) in self.inputs.iter().enumerate() {
            let shape = input.shape();
            let mut starts = vec![0; shape.rank()];
            starts[axis] = start;
            start += shape[axis];
            let op = Op::Slice { starts, sizes: shape.to_vec(), steps: vec![1; shape.rank()] };
            gradients.push(self.wanted(index, || self.push(op, &[&self.dy])));
        }
        gradients
    }

    /// Sum over axes, which disappear.
    pub(super) fn sum_over(&self, x: &Tensor, axes: &[usize]) -> Tensor {
        self.push(Op::Reduce { kind: ReduceKind::Sum, axes: axes.to_vec(), keepdims: false }, &[x])
    }
}
