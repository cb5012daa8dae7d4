//! Rules of normalisations.

use super::{Gradients, Rule};
use crate::{BinaryKind, Op, Tensor, UnaryKind};

impl Rule<'_> {
    pub(super) fn norm(&self) -> Gradients {
        let (x, dy) = (&self.inputs[0], &self.dy);
        match &self.node.op {
            Op::BatchNormTraining { eps } => {
                let (gamma, moments) = (&self.inputs[1], &self.inputs[3]);
                let sums = self.push(Op::BatchNormGradSums { eps: *eps }, &[x, dy, moments]);
                let input = || self.push(Op::BatchNormInputGrad { eps: *eps }, &[x, dy, gamma, moments, &sums]);
                // The moments' own gradient is inside that of x.
                vec![
                    self.wanted(0, input),
                    self.wanted(1, || self.row(&sums, 1)),
                    self.wanted(2, || self.row(&sums, 0)),
                    None,
                ]
            }
            Op::BatchNorm { eps } => self.batch_norm(*eps),
            Op::Moments => vec![Some(self.moments())],
            Op::Standardize { eps } => vec![Some(self.push(Op::StandardizeGrad { eps: *eps }, &[x, dy]))],
            _ => vec![None; self.inputs.len()],
        }
    }

    /// One row of `[2, C]`, as `[C]`.
    fn row(&self, pair: &Tensor, index: usize) -> Tensor {
        let channels = pair.size(1);
        let slice = Op::Slice { starts: vec![index, 0], sizes: vec![1, channels], steps: vec![1, 1] };
        self.push(Op::Reshape { shape: [channels].into() }, &[&self.push(slice, &[pair])])
    }

    /// `[C]` as it broadcasts over `[N, C, …]`.
    fn per_channel(&self, row: &Tensor) -> Tensor {
        let mut shape = vec![1; self.inputs[0].shape().rank()];
        shape[1] = row.size(0);
        self.push(Op::Reshape { shape: shape.into() }, &[row])
    }

    fn times(&self, a: &Tensor, b: &Tensor) -> Tensor {
        self.push(Op::Binary(BinaryKind::Mul), &[a, b])
    }

    /// With given statistics the norm is affine in x; mean and variance get their gradients too.
    fn batch_norm(&self, eps: f32) -> Gradients {
        let [x, gamma, _, mean, var] = &self.inputs[..] else { return vec![None; self.inputs.len()] };
        let stacked = |t: &Tensor| self.push(Op::Reshape { shape: [1, t.size(0)].into() }, &[t]);
        let moments = self.push(Op::Concat { axis: 0 }, &[&stacked(mean), &stacked(var)]);
        let shifted = self.push(Op::Unary(UnaryKind::Affine { scale: 1.0, shift: eps }), &[var]);
        let inverse = self.push(Op::Unary(UnaryKind::Rsqrt), &[&shifted]);
        let scale = self.times(gamma, &inverse);
        let sums = self.push(Op::BatchNormGradSums { eps }, &[x, &self.dy, &moments]);
        let (sum, product) = (self.row(&sums, 0), self.row(&sums, 1));
        let negated = |t: &Tensor| self.push(Op::Unary(UnaryKind::Neg), &[t]);
        // d var: sum(dy * x̂) * gamma * -1/2 / (var + eps)
        let d_var = || {
            let half = self.push(Op::Unary(UnaryKind::Affine { scale: -0.5, shift: 0.0 }), &[&product]);
            self.times(&self.times(&half, &scale), &inverse)
        };
        vec![
            self.wanted(0, || self.times(&self.dy, &self.per_channel(&scale))),
            self.wanted(1, || product.clone()),
            self.wanted(2, || sum.clone()),
            self.wanted(3, || negated(&self.times(&sum, &scale))),
            self.wanted(4, d_var),
        ]
    }

    /// `(d mean + 2 (x - mean) d var) / count`.
    fn moments(&self) -> Tensor {
        let x = &self.inputs[0];
        let shape = x.shape();
        let count = (shape.numel() / shape[1].max(1)) as f64;
        let share = self.push(Op::Binary(BinaryKind::Div), &[&self.dy, &self.dy.scalar_like(count)]);
        let d_mean = self.per_channel(&self.row(&share, 0));
        let twice = self.push(Op::Unary(UnaryKind::Affine { scale: 2.0, shift: 0.0 }), &[&self.row(&share, 1)]);
        let d_var = self.per_channel(&twice);
        let mean = self.per_channel(&self.row(&self.y, 0));
        let centred = self.push(Op::Binary(BinaryKind::Sub), &[x, &mean]);
        self.push(Op::Binary(BinaryKind::Add), &[&self.times(&centred, &d_var), &d_mean])
    }
}
