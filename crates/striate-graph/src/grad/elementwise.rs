//! Rules of elementwise functions and of reductions.

use super::{Gradients, Rule};
use crate::{BinaryKind, Op, ReduceKind, Tensor, UnaryKind};

impl Rule<'_> {
    pub(super) fn elementwise(&self) -> Gradients {
        match &self.node.op {
            Op::Unary(kind) => vec![self.unary(*kind)],
            Op::Binary(kind) => self.binary(*kind),
            Op::Where => self.choice(),
            Op::Cast(_) => {
                let dtype = self.inputs[0].dtype();
                vec![dtype.is_float().then(|| self.push(Op::Cast(dtype), &[&self.dy]))]
            }
            _ => vec![None; self.inputs.len()],
        }
    }

    fn unary(&self, kind: UnaryKind) -> Option<Tensor> {
        use UnaryKind::*;
        match kind {
            Neg => Some(self.push(Op::Unary(Neg), &[&self.dy])),
            Affine { scale, .. } => Some(self.push(Op::Unary(Affine { scale, shift: 0.0 }), &[&self.dy])),
            Sign | Floor | Ceil | Round | Not => None,
            _ => Some(self.push(Op::UnaryGrad(kind), &[&self.inputs[0], &self.dy])),
        }
    }

    fn op(&self, kind: BinaryKind, a: &Tensor, b: &Tensor) -> Tensor {
        self.push(Op::Binary(kind), &[a, b])
    }

    fn negated(&self, x: &Tensor) -> Tensor {
        self.push(Op::Unary(UnaryKind::Neg), &[x])
    }

    fn binary(&self, kind: BinaryKind) -> Gradients {
        use BinaryKind::*;
        let (a, b, dy) = (&self.inputs[0], &self.inputs[1], &self.dy);
        let (left, right): (Option<Tensor>, Option<Tensor>) = match kind {
            Add => (Some(dy.clone()), Some(dy.clone())),
            Sub => (Some(dy.clone()), self.wanted(1, || self.negated(dy))),
            Mul => (self.wanted(0, || self.op(Mul, dy, b)), self.wanted(1, || self.op(Mul, dy, a))),
            Div => (
                self.wanted(0, || self.op(Div, dy, b)),
                // -dy * (a / b) / b
                self.wanted(1, || self.negated(&self.op(Div, &self.op(Mul, dy, &self.y), b))),
            ),
            Pow => (self.wanted(0, || self.pow_base()), self.wanted(1, || self.pow_exponent())),
            Min => self.extreme(Less),
            Max => self.extreme(Greater),
            // a - b * floor(a / b)
            Mod => {
                let floor = || self.push(Op::Unary(UnaryKind::Floor), &[&self.op(Div, a, b)]);
                (Some(dy.clone()), self.wanted(1, || self.negated(&self.op(Mul, dy, &floor()))))
            }
            // a - b * trunc(a / b); the whole quotient is what is left of a beside its remainder.
            Fmod => {
                let quotient = || self.op(Div, &self.op(Sub, a, &self.y), b);
                let whole = || self.push(Op::Unary(UnaryKind::Round), &[&quotient()]);
                (Some(dy.clone()), self.wanted(1, || self.negated(&self.op(Mul, dy, &whole()))))
            }
            Equal | NotEqual | Less | LessOrEqual | Greater | GreaterOrEqual | And | Or | Xor => (None, None),
            BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight => (None, None),
        };
        let sum_back = |gradient: Option<Tensor>, index: usize| {
            gradient.filter(|_| self.wants[index]).map(|gradient| self.unbroadcast(gradient, &self.inputs[index]))
        };
        vec![sum_back(left, 0), sum_back(right, 1)]
    }

    /// `dy * b * a^(b - 1)`, and 0 where `b` is 0.
    fn pow_base(&self) -> Tensor {
        let (a, b) = (&self.inputs[0], &self.inputs[1]);
        let lowered = self.op(BinaryKind::Sub, b, &b.scalar_like(1.0));
        let slope = self.op(BinaryKind::Mul, b, &self.op(BinaryKind::Pow, a, &lowered));
        let zero = self.dy.scalar_like(0.0);
        let is_zero = self.op(BinaryKind::Equal, b, &b.scalar_like(0.0));
        let gradient = self.op(BinaryKind::Mul, &self.dy, &slope);
        self.push(Op::Where, &[&is_zero, &zero, &gradient])
    }

    /// `dy * y * ln a`, and 0 where `a` is 0 and `b` is not negative.
    fn pow_exponent(&self) -> Tensor {
        let (a, b) = (&self.inputs[0], &self.inputs[1]);
        let zero = self.dy.scalar_like(0.0);
        let log = self.push(Op::Unary(UnaryKind::Log), &[a]);
        let gradient = self.op(BinaryKind::Mul, &self.dy, &self.op(BinaryKind::Mul, &self.y, &log));
        let flat = self.op(
            BinaryKind::And,
            &self.op(BinaryKind::Equal, a, &a.scalar_like(0.0)),
            &self.op(BinaryKind::GreaterOrEqual, b, &b.scalar_like(0.0)),
        );
        self.push(Op::Where, &[&flat, &zero, &gradient])
    }

    /// The gradient goes to the winner; to both by half where they are equal.
    fn extreme(&self, wins: BinaryKind) -> (Option<Tensor>, Option<Tensor>) {
        let (a, b) = (&self.inputs[0], &self.inputs[1]);
        let zero = self.dy.scalar_like(0.0);
        let half = self.push(Op::Unary(UnaryKind::Affine { scale: 0.5, shift: 0.0 }), &[&self.dy]);
        let tie = self.op(BinaryKind::Equal, a, b);
        let side = |x: &Tensor, y: &Tensor| {
            let alone = self.push(Op::Where, &[&self.op(wins, x, y), &self.dy, &zero]);
            self.push(Op::Where, &[&tie, &half, &alone])
        };
        (self.wanted(0, || side(a, b)), self.wanted(1, || side(b, a)))
    }

    fn choice(&self) -> Gradients {
        let (condition, zero) = (&self.inputs[0], self.dy.scalar_like(0.0));
        let left = || self.unbroadcast(self.push(Op::Where, &[condition, &self.dy, &zero]), &self.inputs[1]);
        let right = || self.unbroadcast(self.push(Op::Where, &[condition, &zero, &self.dy]), &self.inputs[2]);
        vec![None, self.wanted(1, left), self.wanted(2, right)]
    }

    pub(super) fn reduction(&self) -> Gradients {
        match &self.node.op {
            Op::Reduce { kind, axes, .. } => vec![Some(self.reduce(*kind, axes))],
            // x[i] is in all sums from i on, so its gradient is the sum of theirs, from the other end.
            Op::CumSum { axis, exclusive, reverse } => {
                let op = Op::CumSum { axis: *axis, exclusive: *exclusive, reverse: !reverse };
                vec![Some(self.push(op, &[&self.dy]))]
            }
            // y * (dy - sum(dy * y))
            Op::Softmax { axis } => {
                let product = self.op(BinaryKind::Mul, &self.dy, &self.y);
                let centred = self.op(BinaryKind::Sub, &self.dy, &self.sum_along(&product, *axis));
                vec![Some(self.op(BinaryKind::Mul, &self.y, &centred))]
            }
            // dy - softmax * sum(dy)
            Op::LogSoftmax { axis } => {
                let softmax = self.push(Op::Unary(UnaryKind::Exp), &[&self.y]);
                let spread = self.op(BinaryKind::Mul, &softmax, &self.sum_along(&self.dy, *axis));
                vec![Some(self.op(BinaryKind::Sub, &self.dy, &spread))]
            }
            _ => vec![None; self.inputs.len()],
        }
    }

    fn sum_along(&self, x: &Tensor, axis: usize) -> Tensor {
        self.push(Op::Reduce { kind: ReduceKind::Sum, axes: vec![axis], keepdims: true }, &[x])
    }

    fn reduce(&self, kind: ReduceKind, axes: &[usize]) -> Tensor {
        let x = &self.inputs[0];
        let shape = x.shape();
        let mut kept = shape.to_vec();
        axes.iter().for_each(|&axis| kept[axis] = 1);
        let keep = |t: &Tensor| self.push(Op::Reshape { shape: kept.clone().into() }, &[t]);
        let expand = |t: &Tensor| self.push(Op::Expand { shape: shape.clone() }, &[t]);
        let (dy, y) = (keep(&self.dy), keep(&self.y));
        let count: usize = axes.iter().map(|&axis| shape[axis]).product();
        match kind {
            ReduceKind::Sum => expand(&dy),
            ReduceKind::Mean => expand(&self.op(BinaryKind::Div, &dy, &dy.scalar_like(count as f64))),
            ReduceKind::SumSquare => {
                let double = self.push(Op::Unary(UnaryKind::Affine { scale: 2.0, shift: 0.0 }), &[x]);
                self.op(BinaryKind::Mul, &double, &dy)
            }
            ReduceKind::L1 => self.op(BinaryKind::Mul, &self.push(Op::Unary(UnaryKind::Sign), &[x]), &dy),
            ReduceKind::L2 => {
                // 0 at the origin, as PyTorch's norm.
                let zero = y.scalar_like(0.0);
                let slope = self.op(BinaryKind::Div, &dy, &y);
                let at_origin = self.op(BinaryKind::Equal, &y, &zero);
                self.op(BinaryKind::Mul, x, &self.push(Op::Where, &[&at_origin, &zero, &slope]))
            }
            ReduceKind::LogSumExp => {
                let weight = self.push(Op::Unary(UnaryKind::Exp), &[&self.op(BinaryKind::Sub, x, &y)]);
                self.op(BinaryKind::Mul, &weight, &dy)
            }
            ReduceKind::Max | ReduceKind::Min => {
                // Evenly to all that equal the extreme.
                let mask = self.push(Op::Cast(x.dtype()), &[&self.op(BinaryKind::Equal, x, &y)]);
                let ties = Op::Reduce { kind: ReduceKind::Sum, axes: axes.to_vec(), keepdims: true };
                let share = self.op(BinaryKind::Div, &dy, &self.push(ties, &[&mask]));
                self.op(BinaryKind::Mul, &mask, &share)
            }
            ReduceKind::Prod => self.product(x, (&dy, axes)),
        }
    }

    /// The product of all others, which also holds where one of them is 0: `prod(x_j, j ≠ i)`.
    fn product(&self, x: &Tensor, (dy, axes): (&Tensor, &[usize])) -> Tensor {
        // With one zero, its own gradient is the product of the rest; with two, all are 0. Zeros are counted, and replaced
        // by one in a product that is then whole.
        let zero = x.scalar_like(0.0);
        let is_zero = self.op(BinaryKind::Equal, x, &zero);
        let filled = self.push(Op::Where, &[&is_zero, &x.scalar_like(1.0), x]);
        let over = |kind| Op::Reduce { kind, axes: axes.to_vec(), keepdims: true };
        let rest = self.push(over(ReduceKind::Prod), &[&filled]);
        let mask = self.push(Op::Cast(x.dtype()), &[&is_zero]);
        let zeros = self.push(over(ReduceKind::Sum), &[&mask]);
        let others = self.op(BinaryKind::Sub, &zeros, &mask);
        let whole = self.op(BinaryKind::Equal, &others, &zero);
        let slope = self.op(BinaryKind::Mul, &self.op(BinaryKind::Div, &rest, &filled), dy);
        self.push(Op::Where, &[&whole, &slope, &zero])
    }
}
