//! Differentiation: a function from graph to graph. Gradients are ordinary nodes, appended to the trace they belong to.
//!
//! One rule an operation, by families; the match over them has no wildcard, so that the compiler lists what a new operation
//! lacks.

mod elementwise;
mod flow;
mod index;
mod maps;
mod movement;
mod norm;
mod second;

use crate::{DType, Error, Node, NodeId, Op, Origin, Result, RoiAlignSpec, ShapeError, Tensor, Trace};
use flow::{flows, needed};
use std::collections::HashMap;

/// The gradients of a scalar for some tensors of its trace; zeros for a tensor that the scalar does not depend on.
///
/// Only what lies between `wrt` and `loss` is differentiated. Comparisons, positions, rounding, random numbers, `detach` and
/// host calls without a backward cut the gradient. At kinks the conventions are PyTorch's.
///
/// ```
/// use striate_graph::{Array, DType, Mode, RunOptions, Trace, gradients, interpret};
/// let trace = Trace::new(Mode::Train);
/// let x = trace.input("x", [3], DType::F32);
/// let loss = x.square().sum_all();
/// let dx = gradients(&loss, &[&x])?.remove(0);
/// let graph = trace.finish(&[("dx", &dx)])?;
/// let x = Array::from_vec([3], vec![1f32, 2.0, 3.0])?;
/// assert_eq!(interpret(&graph, &[("x", x)], &RunOptions::default())?[0].f32s()?, &[2.0, 4.0, 6.0]);
/// # Ok::<(), striate_graph::Error>(())
/// ```
///
/// # Errors
/// A loss that is no float scalar, the trace's first error, or an operation on the way that has no gradient.
pub fn gradients(loss: &Tensor, wrt: &[&Tensor]) -> Result<Vec<Tensor>> {
    loss.trace().check()?;
    if loss.shape().rank() != 0 || !loss.dtype().is_float() {
        let origin = loss.trace().with_graph(|graph| graph.node(loss.id()).origin.clone());
        return Err(Error::Shape {
            op: "gradients".into(),
            layer: origin.layer.to_string(),
            at: origin.at,
            error: ShapeError::new(
                format!("the loss is {} {}", loss.dtype(), loss.shape()),
                "it must be a float scalar, shape []; take sum_all() or mean_all() of it",
            ),
        });
    }
    gradients_from(&[loss], &[&loss.scalar_like(1.0)], wrt)
}

/// The vector-Jacobian product: gradients for `wrt` of `sum(outputs * cotangents)`.
///
/// # Errors
/// Cotangents of other shapes than the outputs, the trace's first error, or an operation without a gradient.
pub fn gradients_from(outputs: &[&Tensor], cotangents: &[&Tensor], wrt: &[&Tensor]) -> Result<Vec<Tensor>> {
    let Some(first) = outputs.first() else {
        return Ok(wrt.iter().map(|tensor| tensor.full_like(0.0)).collect());
    };
    let trace = first.trace().clone();
    trace.check()?;
    check_request(&trace, outputs, cotangents, wrt)?;
    for (output, cotangent) in outputs.iter().zip(cotangents) {
        if output.shape() != cotangent.shape() || output.dtype() != cotangent.dtype() {
            return Err(Error::Mismatch {
                what: "a cotangent".into(),
                expected: output.shape(),
                expected_dtype: output.dtype(),
                got: cotangent.shape(),
                got_dtype: cotangent.dtype(),
            });
        }
    }
    let last = outputs.iter().map(|tensor| tensor.id()).max().unwrap_or(first.id());
    let mut reverse = Reverse { needed: needed(&trace, wrt, last), sums: HashMap::new(), calls: HashMap::new(), trace };
    for (output, cotangent) in outputs.iter().zip(cotangents) {
        reverse.add(output.id(), (*cotangent).clone());
    }
    for index in (0..=last.0).rev() {
        reverse.visit(NodeId(index))?;
    }
    reverse.trace.check()?;
    let mut result = Vec::with_capacity(wrt.len());
    for tensor in wrt {
        let found = reverse.sums.get(&tensor.id()).cloned();
        result.push(found.unwrap_or_else(|| tensor.full_like(0.0)));
    }
    Ok(result)
}

/// One cotangent an output, and all of one trace.
fn check_request(trace: &Trace, outputs: &[&Tensor], cotangents: &[&Tensor], wrt: &[&Tensor]) -> Result<()> {
    let origin = || trace.with_graph(|graph| graph.node(outputs[0].id()).origin.clone());
    let refuse = |rule: String, fix: &str| {
        let Origin { layer, at } = origin();
        let error = ShapeError::new(rule, fix);
        Err(Error::Shape { op: "gradients".into(), layer: layer.to_string(), at, error })
    };
    if outputs.len() != cotangents.len() {
        let rule = format!("{} cotangents were given for {} outputs", cotangents.len(), outputs.len());
        return refuse(rule, "give one for each output");
    }
    for (what, tensors) in [("output", outputs), ("cotangent", cotangents), ("tensor to differentiate for", wrt)] {
        if let Some(index) = tensors.iter().position(|tensor| !tensor.trace().same(trace)) {
            let rule = format!("{what} {index} belongs to another trace than output 0");
            return refuse(rule, "a gradient exists only within one trace");
        }
    }
    Ok(())
}

struct Reverse {
    trace: Trace,
    needed: Vec<bool>,
    /// The gradient of each node, as far as it is known.
    sums: HashMap<NodeId, Tensor>,
    /// The gradients of the other outputs of host calls.
    calls: HashMap<NodeId, Vec<(usize, Tensor)>>,
}

impl Reverse {
    fn add(&mut self, id: NodeId, gradient: Tensor) {
        let sum = match self.sums.remove(&id) {
            Some(before) => {
                let origin = self.trace.with_graph(|graph| graph.node(id).origin.clone());
                self.trace.push_at(Op::Binary(crate::BinaryKind::Add), &[&before, &gradient], origin)
            }
            None => gradient,
        };
        self.sums.insert(id, sum);
    }

    /// The gradient of one output of a host call; there may be several readers of it.
    fn add_output(&mut self, call: NodeId, index: usize, gradient: Tensor) {
        if index == 0 {
            return self.add(call, gradient);
        }
        let known = self.calls.entry(call).or_default();
        match known.iter_mut().find(|(other, _)| *other == index) {
            Some((_, sum)) => *sum = sum.binary(crate::BinaryKind::Add, &gradient),
            None => known.push((index, gradient)),
        }
    }

    fn visit(&mut self, id: NodeId) -> Result<()> {
        if !self.needed[id.index()] {
            return Ok(());
        }
        let has_other_outputs = self.calls.contains_key(&id);
        let dy = match self.sums.get(&id) {
            Some(dy) => dy.clone(),
            None if has_other_outputs => self.trace.tensor(id).full_like(0.0),
            None => return Ok(()),
        };
        let node = self.trace.with_graph(|graph| graph.node(id).clone());
        if let Op::HostOutput { index } = node.op {
            self.add_output(node.inputs[0], index, dy);
            return Ok(());
        }
        let inputs: Vec<Tensor> = node.inputs.iter().map(|input| self.trace.tensor(*input)).collect();
        let wants = |(index, input): (usize, &Tensor)| {
            self.needed[input.id().index()] && input.dtype().is_float() && flows(&node.op, index)
        };
        let wants: Vec<bool> = inputs.iter().enumerate().map(wants).collect();
        if !wants.contains(&true) {
            return Ok(());
        }
        let rule = Rule {
            trace: &self.trace,
            y: self.trace.tensor(id),
            inputs,
            wants,
            others: self.calls.remove(&id).unwrap_or_default(),
            dy,
            node: &node,
        };
        let gradients = rule.gradients()?;
        for ((input, gradient), wanted) in node.inputs.iter().zip(gradients).zip(rule.wants) {
            if let Some(gradient) = gradient.filter(|_| wanted) {
                self.add(*input, gradient);
            }
        }
        Ok(())
    }
}

/// One node to be differentiated, with everything that its rule may use.
struct Rule<'a> {
    trace: &'a Trace,
    node: &'a Node,
    inputs: Vec<Tensor>,
    y: Tensor,
    dy: Tensor,
    /// Which inputs a gradient is wanted for.
    wants: Vec<bool>,
    /// Gradients of the other outputs of a host call.
    others: Vec<(usize, Tensor)>,
}

/// A gradient for each input; `None` cuts.
type Gradients = Vec<Option<Tensor>>;

impl Rule<'_> {
    fn gradients(&self) -> Result<Gradients> {
        match &self.node.op {
            Op::Unary(_) | Op::Binary(_) | Op::Where | Op::Cast(_) => Ok(self.elementwise()),
            Op::Reduce { .. } | Op::CumSum { .. } | Op::Softmax { .. } | Op::LogSoftmax { .. } => Ok(self.reduction()),
            Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Expand { .. }
            | Op::Slice { .. }
            | Op::SliceGrad { .. }
            | Op::Concat { .. }
            | Op::Pad { .. }
            | Op::PadGrad { .. }
            | Op::Gather { .. }
            | Op::GatherGrad { .. } => Ok(self.movement()),
            Op::GatherElements { .. } | Op::ScatterElements { .. } | Op::GatherNd { .. } | Op::ScatterNd { .. } => {
                Ok(self.indexed())
            }
            Op::MatMul { .. }
            | Op::Conv2d(_)
            | Op::Conv2dInputGrad { .. }
            | Op::Conv2dWeightGrad { .. }
            | Op::MaxPool2d(_)
            | Op::AvgPool2d { .. }
            | Op::AvgPool2dGrad { .. }
            | Op::Resize { .. }
            | Op::ResizeGrad { .. }
            | Op::RoiAlign(_)
            | Op::RoiAlignGrad(RoiAlignSpec { max: false, .. })
            | Op::GridSample(_) => Ok(self.maps()),
            Op::Moments | Op::BatchNorm { .. } | Op::BatchNormTraining { .. } | Op::Standardize { .. } => {
                Ok(self.norm())
            }
            Op::HostCall { backward: Some(name), .. } => Ok(self.host_call(name)),
            Op::Detach
            | Op::ArgReduce { .. }
            | Op::TopK { .. }
            | Op::OneHot { .. }
            | Op::MaxPool2dIndices(_)
            | Op::HostCall { backward: None, .. } => Ok(vec![None; self.inputs.len()]),
            Op::UnaryGrad(kind) => self.unary_grad(*kind).ok_or_else(|| self.refused()),
            Op::MaxPool2dGrad(windows) => Ok(self.max_pool_grad(*windows)),
            Op::BatchNormGradSums { .. }
            | Op::BatchNormInputGrad { .. }
            | Op::StandardizeGrad { .. }
            | Op::RoiAlignGrad(_)
            | Op::GridSampleInputGrad { .. }
            | Op::GridSampleGridGrad(_)
            | Op::Update { .. }
            | Op::HostOutput { .. }
            | Op::Input { .. }
            | Op::Parameter { .. }
            | Op::Constant(_)
            | Op::Random { .. }
            | Op::Poison => Err(self.refused()),
        }
    }

    fn refused(&self) -> Error {
        let (op, layer) = (self.node.op.name().to_owned(), self.node.origin.layer.to_string());
        Error::NotDifferentiable { op, layer }
    }

    /// Records an operation that belongs to the node's layer.
    fn push(&self, op: Op, inputs: &[&Tensor]) -> Tensor {
        let Origin { layer, at } = self.node.origin.clone();
        self.trace.push_at(op, inputs, Origin { layer, at })
    }

    fn wanted(&self, index: usize, gradient: impl FnOnce() -> Tensor) -> Option<Tensor> {
        self.wants[index].then(gradient)
    }

    /// Sums a gradient over the axes along which its value was broadcast.
    fn unbroadcast(&self, gradient: Tensor, to: &Tensor) -> Tensor {
        let (from, shape) = (gradient.shape(), to.shape());
        if from == shape {
            return gradient;
        }
        let missing = from.rank() - shape.rank();
        let stretched = |axis: &usize| *axis < missing || (shape[axis - missing] == 1 && from[*axis] != 1);
        let axes: Vec<usize> = (0..from.rank()).filter(stretched).collect();
        let summed = match axes.is_empty() {
            true => gradient,
            false => self.push(Op::Reduce { kind: crate::ReduceKind::Sum, axes, keepdims: true }, &[&gradient]),
        };
        if summed.shape() == shape { summed } else { self.push(Op::Reshape { shape }, &[&summed]) }
    }

    /// The gradient function takes the inputs, then the gradients of all outputs; it gives a gradient for each float input.
    fn host_call(&self, backward: &str) -> Gradients {
        let Op::HostCall { outputs, .. } = &self.node.op else { return Vec::new() };
        let zero = |(shape, dtype): &(crate::Shape, DType)| {
            let array = crate::Array::zeros([], *dtype);
            self.push(Op::Expand { shape: shape.clone() }, &[&self.push(Op::Constant(array), &[])])
        };
        let gradient = |index: usize| match self.others.iter().find(|(i, _)| *i == index) {
            _ if index == 0 => self.dy.clone(),
            Some((_, gradient)) => gradient.clone(),
            None => zero(&outputs[index]),
        };
        let cotangents: Vec<Tensor> = (0..outputs.len()).map(gradient).collect();
        let given: Vec<&Tensor> = self.inputs.iter().chain(&cotangents).collect();
        let floats = self.inputs.iter().filter(|input| input.dtype().is_float());
        let shapes: Vec<_> = floats.map(|input| (input.shape(), input.dtype())).collect();
        if shapes.is_empty() {
            return vec![None; self.inputs.len()];
        }
        let count = shapes.len();
        let first = self.push(Op::HostCall { name: backward.into(), outputs: shapes, backward: None }, &given);
        let others = (1..count).map(|index| self.push(Op::HostOutput { index }, &[&first]));
        let mut results = std::iter::once(first.clone()).chain(others.collect::<Vec<_>>());
        self.inputs.iter().map(|input| input.dtype().is_float().then(|| results.next()).flatten()).collect()
    }
}

#[cfg(test)]
mod tests;
