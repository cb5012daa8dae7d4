//! From the nodes of a graph to ONNX's.

use super::builder::{Builder, int, ints};
use super::dims::Dim;
use super::recipe::{Kitchen, Recipe, is_alias};
use super::{ExportError, OnnxOptions, Problem, elementwise};
use std::collections::HashMap;
use striate_graph::{Array, BinaryKind, DType, Graph, Node, NodeId, Op, ReduceKind};

/// The name of the value that was written, or why it cannot be.
pub(super) type Done = Result<String, String>;

/// What is missing for want of a newer opset.
pub(super) fn needs_opset<T>(opset: i64, what: &str) -> Result<T, String> {
    Err(format!("{what} needs opset {opset} or newer"))
}

/// A graph on its way.
pub(super) struct Lowering<'a> {
    pub graph: &'a Graph,
    pub dims: Vec<Vec<Dim>>,
    pub options: &'a OnnxOptions,
    pub b: Builder,
    /// The ONNX value of each node that has been written.
    pub values: Vec<String>,
    /// The written parameters, by slot.
    parameters: Vec<Option<String>>,
    /// All outputs of the calls of the host that have been written.
    pub made: HashMap<NodeId, Vec<String>>,
    /// The value that holds the batch as a list of one.
    batch: Option<String>,
}

impl<'a> Lowering<'a> {
    pub fn new(graph: &'a Graph, dims: Vec<Vec<Dim>>, options: &'a OnnxOptions) -> Lowering<'a> {
        let mut b = Builder::default();
        graph.inputs().for_each(|(name, ..)| b.reserve(name));
        graph.outputs.iter().for_each(|(name, _)| b.reserve(name));
        Lowering {
            values: vec![String::new(); graph.nodes.len()],
            parameters: vec![None; graph.parameters.len()],
            graph,
            dims,
            options,
            b,
            made: HashMap::new(),
            batch: None,
        }
    }

    /// Writes all nodes that the outputs need.
    ///
    /// # Errors
    /// All operations that ONNX lacks, at once.
    pub fn run(&mut self) -> Result<(), ExportError> {
        let recipes = Kitchen::new(self.graph, &self.dims, self.options.opset, self.options.fold).plan();
        let mut problems: Vec<Problem> = Vec::new();
        for (index, recipe) in recipes.into_iter().enumerate() {
            let Some(recipe) = recipe else { continue };
            let node = &self.graph.nodes[index];
            self.b.layer = node.origin.layer.to_string();
            match self.write(NodeId(index as u32), &recipe) {
                Ok(value) => self.values[index] = value,
                Err(why) => problems.push(Problem { op: node.op.name(), layer: node.origin.layer.to_string(), why }),
            }
        }
        self.b.layer.clear();
        match problems.is_empty() {
            true => self.name_outputs(),
            false => return Err(ExportError::Unsupported { opset: self.options.opset, problems }),
        }
        Ok(())
    }

    /// Gives each output the value's place under the output's own name.
    fn name_outputs(&mut self) {
        let mut named: Vec<String> = Vec::new();
        for (name, id) in &self.graph.outputs {
            let value = self.values[id.index()].clone();
            let written = self.b.nodes.iter().any(|node| node.output.contains(&value));
            if !written || named.contains(&value) {
                self.b.nodes.push(crate::onnx::proto::NodeProto {
                    name: format!("{name}/Identity"),
                    op_type: "Identity".into(),
                    input: vec![value],
                    output: vec![name.to_string()],
                    ..Default::default()
                });
                named.push(name.to_string());
                continue;
            }
            let places = self.b.nodes.iter_mut().flat_map(|node| node.input.iter_mut().chain(node.output.iter_mut()));
            places.filter(|place| **place == value).for_each(|place| *place = name.to_string());
            self.values.iter_mut().filter(|known| **known == value).for_each(|known| *known = name.to_string());
            named.push(name.to_string());
        }
    }

    /// The ONNX value of a node.
    pub fn value(&self, id: NodeId) -> String {
        self.values[id.index()].clone()
    }

    /// The sizes of a node.
    pub fn sizes(&self, id: NodeId) -> Vec<Dim> {
        self.dims[id.index()].clone()
    }

    fn write(&mut self, id: NodeId, recipe: &Recipe) -> Done {
        match recipe {
            Recipe::Plain => self.plain(id),
            Recipe::Gemm { product, bias } => self.gemm(*product, *bias),
            Recipe::ConvTranspose { conv, bias } => self.conv_transpose(*conv, Some(*bias)),
            Recipe::FoldedConv { conv, norm } => self.folded_conv(*conv, *norm),
            Recipe::LayerNorm { x, axis, eps, affine } => self.layer_norm(*x, *axis, *eps, *affine),
            Recipe::InstanceNorm { x, eps, affine } => self.instance_norm(*x, *eps, *affine),
            Recipe::GroupNorm { x, groups, eps } => self.group_norm(*x, *groups, *eps),
            Recipe::PRelu { x, slope } => {
                let (x, slope) = (self.value(*x), self.value(*slope));
                Ok(self.b.node("PRelu", &[&x, &slope], vec![]))
            }
        }
    }

    fn plain(&mut self, id: NodeId) -> Done {
        let graph = self.graph;
        let node = graph.node(id);
        let inputs: Vec<String> = node.inputs.iter().map(|input| self.value(*input)).collect();
        let x = inputs.first().map(String::as_str).unwrap_or_default();
        let dtype = node.inputs.first().map_or(node.dtype, |input| graph.node(*input).dtype);
        match &node.op {
            Op::Input { name, .. } => Ok(name.to_string()),
            Op::Parameter { slot, .. } => self.parameter(*slot),
            Op::Constant(array) => Ok(self.b.constant(array)),
            op if is_alias(op) => Ok(x.to_owned()),
            Op::Unary(kind) => Ok(elementwise::unary(&mut self.b, self.options.opset, *kind, x, dtype)),
            Op::Binary(BinaryKind::BitAnd | BinaryKind::BitOr | BinaryKind::BitXor) if self.options.opset < 18 => {
                needs_opset(18, "a function of bits")
            }
            Op::Binary(BinaryKind::ShiftLeft | BinaryKind::ShiftRight) if dtype != DType::U8 => {
                Err(format!("ONNX shifts the bits of unsigned numbers alone, and these are {dtype}"))
            }
            Op::Binary(kind) => Ok(elementwise::binary(&mut self.b, *kind, [x, &inputs[1]], dtype)),
            Op::Where => {
                let condition = match dtype {
                    DType::Bool => x.to_owned(),
                    _ => elementwise::cast(&mut self.b, x, DType::Bool),
                };
                Ok(self.b.node("Where", &[&condition, &inputs[1], &inputs[2]], vec![]))
            }
            Op::Cast(to) => Ok(elementwise::cast(&mut self.b, x, *to)),
            Op::Reduce { .. } | Op::ArgReduce { .. } | Op::Softmax { .. } | Op::LogSoftmax { .. } => {
                Ok(self.reduction(&node.op, x))
            }
            Op::Concat { axis } => {
                let names: Vec<&str> = inputs.iter().map(String::as_str).collect();
                Ok(self.b.node("Concat", &names, vec![int("axis", *axis as i64)]))
            }
            Op::Gather { .. }
            | Op::GatherElements { .. }
            | Op::ScatterElements { .. }
            | Op::GatherNd { .. }
            | Op::ScatterNd { .. }
            | Op::OneHot { .. } => self.indexed(&node.op, &inputs),
            Op::TopK { .. } | Op::CumSum { .. } => self.along(&node.op, &inputs),
            Op::RoiAlign(spec) => self.roi_align(spec, &inputs),
            Op::GridSample(spec) => self.grid_sample(spec, node.shape.rank() - 2, &inputs),
            Op::Transpose { perm } => Ok(self.b.node("Transpose", &[x], vec![ints("perm", perm.iter().copied())])),
            Op::Reshape { .. } => self.reshape(x, &self.sizes(node.inputs[0]), &self.sizes(id)),
            Op::Expand { .. } => self.expand(x, &self.sizes(node.inputs[0]), &self.sizes(id)),
            Op::Slice { starts, steps, .. } => self.slice(node.inputs[0], id, starts, steps),
            Op::Pad { pads, mode } => self.pad(node.inputs[0], pads, *mode),
            Op::MatMul { trans_a, trans_b } => Ok(self.product(node, [*trans_a, *trans_b])),
            Op::Conv2d(attrs) => Ok(self.conv(attrs, node, &inputs)),
            Op::Conv2dInputGrad { .. } => self.conv_transpose(id, None),
            Op::MaxPool2d(windows) => self.max_pool(id, windows),
            Op::MaxPool2dIndices(windows) => self.max_pool_indices(id, windows),
            Op::AvgPool2d { windows, divisor } => self.avg_pool(node.inputs[0], windows, *divisor),
            Op::Resize { spec, .. } => self.resize(node.inputs[0], id, spec),
            Op::BatchNorm { eps } => Ok(self.batch_norm(&inputs, *eps)),
            Op::Moments => Ok(self.moments(node.inputs[0])),
            Op::BatchNormTraining { eps } => Ok(self.batch_norm_training(node, *eps)),
            Op::Standardize { eps } => Ok(self.standardize(x, *eps, dtype)),
            Op::HostCall { .. } => self.host_call(id, &node.op, &inputs),
            Op::HostOutput { index } => {
                let made = self.made.get(&node.inputs[0]).and_then(|made| made.get(*index));
                made.cloned().ok_or_else(|| refusal(&node.op))
            }
            other => Err(refusal(other)),
        }
    }

    /// The values of a cell, under the cell's name.
    fn parameter(&mut self, slot: usize) -> Done {
        if let Some(written) = &self.parameters[slot] {
            return Ok(written.clone());
        }
        let cell = &self.graph.parameters[slot];
        let name = if cell.name().is_empty() { format!("parameter.{slot}") } else { cell.name().to_string() };
        let value = self.weights(&name, &cell.array())?;
        self.parameters[slot] = Some(value.clone());
        Ok(value)
    }

    /// An initializer; with `half`, matrices and filters are stored as f16 and widened when the model is loaded.
    pub fn weights(&mut self, name: &str, array: &Array) -> Done {
        if !self.options.half || array.dtype() != DType::F32 || array.shape().rank() < 2 {
            return Ok(self.b.initializer(name, array));
        }
        let half = array.cast(DType::F16);
        if half.to_f64_vec().iter().zip(array.to_f64_vec()).any(|(h, w)| h.is_infinite() && w.is_finite()) {
            return Err(format!("`{name}` has values beyond 65504, which f16 cannot hold; export without --half"));
        }
        let stored = self.b.initializer(name, &half);
        Ok(elementwise::cast(&mut self.b, &stored, DType::F32))
    }

    fn reduction(&mut self, op: &Op, x: &str) -> String {
        match op {
            Op::ArgReduce { max, axis, keepdims } => {
                let attributes = vec![int("axis", *axis as i64), int("keepdims", i64::from(*keepdims))];
                self.b.node(if *max { "ArgMax" } else { "ArgMin" }, &[x], attributes)
            }
            Op::Softmax { axis } => self.b.node("Softmax", &[x], vec![int("axis", *axis as i64)]),
            Op::LogSoftmax { axis } => self.b.node("LogSoftmax", &[x], vec![int("axis", *axis as i64)]),
            Op::Reduce { kind, axes, keepdims } => self.reduce(*kind, axes, *keepdims, x),
            _ => x.to_owned(),
        }
    }

    /// `Reduce*`: the axes are an input of `ReduceSum` from opset 13, of the others from 18.
    pub fn reduce(&mut self, kind: ReduceKind, axes: &[usize], keepdims: bool, x: &str) -> String {
        let name = match kind {
            ReduceKind::Sum => "ReduceSum",
            ReduceKind::Mean => "ReduceMean",
            ReduceKind::Max => "ReduceMax",
            ReduceKind::Min => "ReduceMin",
            ReduceKind::Prod => "ReduceProd",
            ReduceKind::SumSquare => "ReduceSumSquare",
            ReduceKind::L1 => "ReduceL1",
            ReduceKind::L2 => "ReduceL2",
            ReduceKind::LogSumExp => "ReduceLogSumExp",
        };
        // Without axes ONNX reduces all of them.
        if axes.is_empty() {
            return match kind {
                ReduceKind::SumSquare => self.b.node("Mul", &[x, x], vec![]),
                ReduceKind::L1 | ReduceKind::L2 => self.b.node("Abs", &[x], vec![]),
                _ => self.b.node("Identity", &[x], vec![]),
            };
        }
        let keepdims = int("keepdims", i64::from(keepdims));
        if self.options.opset >= 18 || kind == ReduceKind::Sum {
            let axes: Vec<i64> = axes.iter().map(|&axis| axis as i64).collect();
            let axes = self.b.list(&axes);
            return self.b.node(name, &[x, &axes], vec![keepdims]);
        }
        self.b.node(name, &[x], vec![ints("axes", axes.iter().copied()), keepdims])
    }

    /// A matrix product with anything transposed before it.
    fn product(&mut self, node: &Node, transposed: [bool; 2]) -> String {
        let sides: Vec<String> = (0..2)
            .map(|side| {
                let (id, value) = (node.inputs[side], self.value(node.inputs[side]));
                if !transposed[side] {
                    return value;
                }
                let rank = self.graph.node(id).shape.rank();
                let mut perm: Vec<usize> = (0..rank).collect();
                perm.swap(rank - 1, rank - 2);
                self.b.node("Transpose", &[&value], vec![ints("perm", perm)])
            })
            .collect();
        self.b.node("MatMul", &[&sides[0], &sides[1]], vec![])
    }

    fn gemm(&mut self, product: NodeId, bias: Option<NodeId>) -> Done {
        let node = self.graph.node(product);
        let Op::MatMul { trans_a, trans_b } = node.op else { return Err(refusal(&node.op)) };
        let mut values: Vec<String> = node.inputs.iter().chain(&bias).map(|id| self.value(*id)).collect();
        let names: Vec<&str> = values.iter_mut().map(|value| value.as_str()).collect();
        // The layer that multiplies gives the node its name.
        self.b.layer = node.origin.layer.to_string();
        let attributes = [("transA", trans_a), ("transB", trans_b)];
        let set = attributes.iter().filter(|(_, set)| *set).map(|(name, _)| int(name, 1)).collect();
        Ok(self.b.node("Gemm", &names, set))
    }

    /// The batch as a list of one number, as the model sees it when it runs.
    pub fn batch(&mut self) -> Done {
        if let Some(known) = &self.batch {
            return Ok(known.clone());
        }
        let of = |(index, node): (usize, &Node)| match &node.op {
            Op::Input { name, .. } => {
                let axis = self.dims[index].iter().position(|dim| *dim == Dim::Batch(1))?;
                Some((name.clone(), axis as i64))
            }
            _ => None,
        };
        let (input, axis) =
            self.graph.nodes.iter().enumerate().find_map(of).ok_or("no input has the batch as an axis")?;
        let layer = std::mem::take(&mut self.b.layer);
        let shape = self.b.node("Shape", &[&input], vec![]);
        let (from, to) = (self.b.list(&[axis]), self.b.list(&[axis + 1]));
        let batch = self.b.node("Slice", &[&shape, &from, &to], vec![]);
        self.b.layer = layer;
        self.batch = Some(batch.clone());
        Ok(batch)
    }
}

/// Why an operation has no place in a model for inference.
pub(super) fn refusal(op: &Op) -> String {
    match op {
        Op::Random { .. } => "random numbers are for training; trace the net in evaluation mode".into(),
        Op::HostCall { name, .. } => format!("it calls the Rust function `{name}`, which no other runtime has"),
        Op::HostOutput { .. } => "it is the output of a Rust function".into(),
        Op::Update { .. } => "updates of parameters are for training; trace the net in evaluation mode".into(),
        other => format!("{} is part of a gradient, for which ONNX has no operator", other.name()),
    }
}
