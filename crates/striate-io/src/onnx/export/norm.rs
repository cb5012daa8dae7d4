//! Normalisation.

use super::builder::{float, int, ints};
use super::dims::Dim;
use super::lower::{Done, Lowering};
use striate_graph::{Array, DType, Node, NodeId, ReduceKind};

impl Lowering<'_> {
    /// With given statistics: the five inputs of `BatchNormalization`.
    pub fn batch_norm(&mut self, inputs: &[String], eps: f32) -> String {
        let names: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.b.node("BatchNormalization", &names, vec![float("epsilon", eps)])
    }

    fn filled(&mut self, sizes: &[usize], value: f64, dtype: DType) -> Done {
        let count = sizes.iter().product();
        let array = Array::from_f64(sizes, &vec![value; count], dtype).map_err(|error| error.to_string())?;
        Ok(self.b.constant(&array))
    }

    pub fn layer_norm(&mut self, x: NodeId, axis: usize, eps: f32, affine: [Option<NodeId>; 2]) -> Done {
        let dtype = self.graph.node(x).dtype;
        let sizes: Vec<usize> = self.dims[x.index()][axis..].iter().filter_map(|dim| dim.fixed()).collect();
        let [scale, bias] = affine.map(|id| id.map(|id| self.value(id)));
        let scale = match scale {
            Some(scale) => scale,
            None => self.filled(&sizes, 1.0, dtype)?,
        };
        let x = self.value(x);
        let inputs: Vec<&str> = [x.as_str(), &scale].into_iter().chain(bias.as_deref()).collect();
        // Counted from the back, as PyTorch's exporter does.
        let axis = int("axis", -(sizes.len() as i64));
        Ok(self.b.node("LayerNormalization", &inputs, vec![axis, float("epsilon", eps)]))
    }

    pub fn instance_norm(&mut self, x: NodeId, eps: f32, affine: [Option<NodeId>; 2]) -> Done {
        let node = self.graph.node(x);
        let (channels, dtype) = (node.shape[1], node.dtype);
        let [scale, bias] = affine.map(|id| id.map(|id| self.value(id)));
        let scale = scale.map_or_else(|| self.filled(&[channels], 1.0, dtype), Ok)?;
        let bias = bias.map_or_else(|| self.filled(&[channels], 0.0, dtype), Ok)?;
        let x = self.value(x);
        Ok(self.b.node("InstanceNormalization", &[&x, &scale, &bias], vec![float("epsilon", eps)]))
    }

    /// Each group as one channel of an `InstanceNormalization`.
    pub fn group_norm(&mut self, x: NodeId, groups: usize, eps: f32) -> Done {
        let (sizes, dtype) = (self.sizes(x), self.graph.node(x).dtype);
        let value = self.value(x);
        let rows = self.b.list(&[0, groups as i64, -1]);
        let grouped = self.b.node("Reshape", &[&value, &rows], vec![]);
        let (scale, bias) = (self.filled(&[groups], 1.0, dtype)?, self.filled(&[groups], 0.0, dtype)?);
        let inputs = [grouped.as_str(), &scale, &bias];
        let normed = self.b.node("InstanceNormalization", &inputs, vec![float("epsilon", eps)]);
        self.reshape(&normed, &[sizes[0]], &sizes)
    }

    /// Over the last axis, step by step.
    pub fn standardize(&mut self, x: &str, eps: f32, dtype: DType) -> String {
        let mean = self.reduce_last(x);
        let centred = self.b.node("Sub", &[x, &mean], vec![]);
        let square = self.b.node("Mul", &[&centred, &centred], vec![]);
        let variance = self.reduce_last(&square);
        self.over_deviation(&centred, &variance, eps, dtype)
    }

    fn reduce_last(&mut self, x: &str) -> String {
        match self.options.opset >= 18 {
            true => {
                let last = self.b.list(&[-1]);
                self.b.node("ReduceMean", &[x, &last], vec![int("keepdims", 1)])
            }
            false => {
                let mut axes = ints("axes", []);
                axes.ints.push(-1);
                self.b.node("ReduceMean", &[x], vec![axes, int("keepdims", 1)])
            }
        }
    }

    /// `x / sqrt(variance + eps)`.
    fn over_deviation(&mut self, x: &str, variance: &str, eps: f32, dtype: DType) -> String {
        let eps = self.b.scalar(f64::from(eps), dtype);
        let sum = self.b.node("Add", &[variance, &eps], vec![]);
        let deviation = self.b.node("Sqrt", &[&sum], vec![]);
        self.b.node("Div", &[x, &deviation], vec![])
    }

    /// Mean and variance of each channel of this very batch, as [2, C].
    pub fn moments(&mut self, x: NodeId) -> String {
        let rank = self.graph.node(x).shape.rank();
        let axes: Vec<usize> = (0..rank).filter(|&axis| axis != 1).collect();
        let value = self.value(x);
        let mean = self.reduce(ReduceKind::Mean, &axes, true, &value);
        let centred = self.b.node("Sub", &[&value, &mean], vec![]);
        let square = self.b.node("Mul", &[&centred, &centred], vec![]);
        let variance = self.reduce(ReduceKind::Mean, &axes, true, &square);
        let row = self.b.list(&[1, -1]);
        let rows = [mean, variance].map(|value| self.b.node("Reshape", &[&value, &row], vec![]));
        self.b.node("Concat", &[&rows[0], &rows[1]], vec![int("axis", 0)])
    }

    /// With the statistics of this very batch, for nets that keep none.
    pub fn batch_norm_training(&mut self, node: &Node, eps: f32) -> String {
        let rank = node.shape.rank();
        let mut along = vec![Dim::Fixed(1); rank];
        along[1] = Dim::Fixed(node.shape[1]);
        let shape: Vec<i64> = along.iter().filter_map(|dim| dim.fixed()).map(|size| size as i64).collect();
        let shape = self.b.list(&shape);
        let [x, gamma, beta, moments] = [0, 1, 2, 3].map(|index| self.value(node.inputs[index]));
        let halves = self.pieces(&moments, 0, &[[0, 1], [1, 2]]);
        let [mean, variance, gamma, beta] =
            [&halves[0], &halves[1], &gamma, &beta].map(|value| self.b.node("Reshape", &[value, &shape], vec![]));
        let centred = self.b.node("Sub", &[&x, &mean], vec![]);
        let normed = self.over_deviation(&centred, &variance, eps, node.dtype);
        let scaled = self.b.node("Mul", &[&normed, &gamma], vec![]);
        self.b.node("Add", &[&scaled, &beta], vec![])
    }
}
