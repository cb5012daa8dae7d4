//! Rules of operations that read or write at single places, along an axis or by tuples.

use super::{Gradients, Rule};
use crate::{Array, BinaryKind, Op, ScatterMode, Tensor};

impl Rule<'_> {
    pub(super) fn indexed(&self) -> Gradients {
        let (x, indices) = (&self.inputs[0], &self.inputs[1]);
        match &self.node.op {
            Op::GatherElements { .. } => {
                vec![Some(self.scattered(ScatterMode::Add, [&self.zeros(x), indices, &self.dy])), None]
            }
            Op::GatherNd { batch_dims } => {
                let tuples = self.whole_tuples(*batch_dims);
                let op = Op::ScatterNd { mode: ScatterMode::Add };
                vec![Some(self.push(op, &[&self.zeros(x), &tuples, &self.dy])), None]
            }
            Op::ScatterElements { mode, .. } | Op::ScatterNd { mode } => match mode {
                ScatterMode::Set => self.scatter_set(),
                ScatterMode::Add => vec![Some(self.dy.clone()), None, self.wanted(2, || self.gathered(&self.dy))],
                ScatterMode::Mul => self.scatter_mul(),
                ScatterMode::Max | ScatterMode::Min => self.scatter_extreme(),
            },
            _ => vec![None; self.inputs.len()],
        }
    }

    pub(super) fn zeros(&self, like: &Tensor) -> Tensor {
        self.push(Op::Expand { shape: like.shape() }, &[&like.scalar_like(0.0)])
    }

    /// A scatter at the places of this node: `[x, indices, updates]`.
    fn scattered(&self, mode: ScatterMode, inputs: [&Tensor; 3]) -> Tensor {
        let op = match self.node.op {
            Op::GatherElements { axis } | Op::ScatterElements { axis, .. } => Op::ScatterElements { axis, mode },
            _ => Op::ScatterNd { mode },
        };
        self.push(op, &inputs)
    }

    /// What stands at the places of this scatter.
    fn gathered(&self, from: &Tensor) -> Tensor {
        let op = match self.node.op {
            Op::ScatterElements { axis, .. } => Op::GatherElements { axis },
            _ => Op::GatherNd { batch_dims: 0 },
        };
        self.push(op, &[from, &self.inputs[1]])
    }

    fn op_of(&self, kind: BinaryKind, a: &Tensor, b: &Tensor) -> Tensor {
        self.push(Op::Binary(kind), &[a, b])
    }

    /// The indices of a gather with the position along the common axes put before each tuple.
    fn whole_tuples(&self, batch_dims: usize) -> Tensor {
        let indices = &self.inputs[1];
        if batch_dims == 0 {
            return indices.clone();
        }
        let shape = indices.shape();
        let rank = shape.rank();
        let mut parts: Vec<Tensor> = Vec::with_capacity(batch_dims + 1);
        for axis in 0..batch_dims {
            let mut line = vec![1; rank];
            line[axis] = shape[axis];
            let positions =
                Array::from_vec(line, (0..shape[axis] as i64).collect()).expect("as many as the axis is long");
            let mut full = shape.to_vec();
            full[rank - 1] = 1;
            let positions = self.push(Op::Constant(positions), &[]);
            parts.push(self.push(Op::Expand { shape: full.into() }, &[&positions]));
        }
        parts.push(indices.clone());
        self.push(Op::Concat { axis: rank - 1 }, &parts.iter().collect::<Vec<_>>())
    }

    /// What was overwritten gets nothing. An element written twice keeps the last: its earlier writers would get too much,
    /// so indices must be distinct where a gradient is taken, as PyTorch asks too.
    fn scatter_set(&self) -> Gradients {
        let (indices, updates) = (&self.inputs[1], &self.inputs[2]);
        let kept = || self.scattered(ScatterMode::Set, [&self.dy, indices, &self.zeros(updates)]);
        vec![self.wanted(0, kept), None, self.wanted(2, || self.gathered(&self.dy))]
    }

    /// For `x` the product of its updates; for an update the product of `x` and all others, which also holds where one is 0:
    /// zeros are counted, and replaced by one in a product that is then whole.
    fn scatter_mul(&self) -> Gradients {
        let (x, indices, updates) = (&self.inputs[0], &self.inputs[1], &self.inputs[2]);
        let data = || self.scattered(ScatterMode::Mul, [&self.dy, indices, updates]);
        let others = || {
            let zero = updates.scalar_like(0.0);
            let is_zero = self.op_of(BinaryKind::Equal, updates, &zero);
            let filled = self.push(Op::Where, &[&is_zero, &updates.scalar_like(1.0), updates]);
            let product = self.scattered(ScatterMode::Mul, [x, indices, &filled]);
            let mask = self.push(Op::Cast(updates.dtype()), &[&is_zero]);
            let zeros = self.scattered(ScatterMode::Add, [&self.zeros(x), indices, &mask]);
            let other_zeros = self.op_of(BinaryKind::Sub, &self.gathered(&zeros), &mask);
            let whole = self.op_of(BinaryKind::Equal, &other_zeros, &zero);
            let through = self.gathered(&self.op_of(BinaryKind::Mul, &product, &self.dy));
            self.push(Op::Where, &[&whole, &self.op_of(BinaryKind::Div, &through, &filled), &zero])
        };
        vec![self.wanted(0, data), None, self.wanted(2, others)]
    }

    /// Evenly to all that equal the extreme, `x` among them.
    fn scatter_extreme(&self) -> Gradients {
        let (x, indices, updates) = (&self.inputs[0], &self.inputs[1], &self.inputs[2]);
        let equals = |value: &Tensor, extreme: &Tensor| {
            let equal = self.op_of(BinaryKind::Equal, value, extreme);
            self.push(Op::Cast(value.dtype()), &[&equal])
        };
        let (from_x, from_updates) = (equals(x, &self.y), equals(updates, &self.gathered(&self.y)));
        let winners = self.scattered(ScatterMode::Add, [&from_x, indices, &from_updates]);
        let share = self.op_of(BinaryKind::Div, &self.dy, &winners);
        vec![
            self.wanted(0, || self.op_of(BinaryKind::Mul, &from_x, &share)),
            None,
            self.wanted(2, || self.op_of(BinaryKind::Mul, &from_updates, &self.gathered(&share))),
        ]
    }
}
