//! The oracle: op by op, with scalar reference kernels, without any pass.

mod convert;
mod elementwise;
mod indexing;
mod maps;
mod matrix;
mod movement;
mod norm;
mod reduce;
mod sampling;
mod update;

use super::fill_random;
use crate::host::call_host_function;
use crate::{Array, DType, Error, Graph, Node, NodeId, Op, Result, Shape};
use convert::Promote;
pub(super) use sampling::check_maps;

/// In what the interpreter computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Each value in the type that the graph declares.
    #[default]
    Native,
    /// Every f32 value in f64, parameters and inputs too: for finite differences.
    F64,
}

/// How the interpreter runs a graph.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Keys the random numbers. Default: 0.
    pub seed: u64,
    /// Keys them too. Default: 0.
    pub step: u64,
    /// Default: as declared.
    pub precision: Precision,
    /// Whether updates are written to the cells. Default: true.
    pub apply_updates: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions { seed: 0, step: 0, precision: Precision::Native, apply_updates: true }
    }
}

/// Runs a graph op by op; gives its outputs, then its taps.
///
/// # Errors
/// The trace's first error; missing, unknown or wrongly shaped inputs; an index out of range; a failing host call; a guarded
/// loss that is not finite, in which case no cell has been updated and the first layer that is not finite is named.
pub fn interpret(graph: &Graph, inputs: &[(&str, Array)], options: &RunOptions) -> Result<Vec<Array>> {
    interpret_observed(graph, inputs, options, &mut |_, _, _| {})
}

/// As [`interpret`], and shows each value to `observe` as soon as it is computed.
///
/// # Errors
/// As [`interpret`].
pub fn interpret_observed(
    graph: &Graph,
    inputs: &[(&str, Array)],
    options: &RunOptions,
    observe: &mut dyn FnMut(NodeId, &Node, &Array),
) -> Result<Vec<Array>> {
    let run = Run::compute(graph, inputs, options, observe)?;
    run.check_guard()?;
    let outputs = graph.outputs.iter().chain(&graph.tapped);
    let results = outputs.map(|(_, id)| run.value(*id).cloned()).collect::<Result<Vec<_>>>()?;
    if options.apply_updates {
        update::apply(&run)?;
    }
    Ok(results)
}

/// The first node, in the order of the graph, whose value is not finite though all its inputs are, and its layer (or, outside
/// layers, its operation).
///
/// # Errors
/// As [`interpret`], but for the guard.
pub fn first_non_finite(
    graph: &Graph,
    inputs: &[(&str, Array)],
    options: &RunOptions,
) -> Result<Option<(NodeId, String)>> {
    let run = Run::compute(graph, inputs, options, &mut |_, _, _| {})?;
    Ok(run.first_non_finite())
}

struct Run<'a> {
    graph: &'a Graph,
    options: &'a RunOptions,
    /// The cells when the run began.
    parameters: Vec<Array>,
    values: Vec<Option<Array>>,
}

impl<'a> Run<'a> {
    fn compute(
        graph: &'a Graph,
        inputs: &[(&str, Array)],
        options: &'a RunOptions,
        observe: &mut dyn FnMut(NodeId, &Node, &Array),
    ) -> Result<Self> {
        graph.verify()?;
        let parameters = graph.parameters.iter().map(|cell| cell.array()).collect();
        let mut run = Run { graph, options, parameters, values: vec![None; graph.nodes.len()] };
        run.check_names(inputs)?;
        let live = graph.live();
        let mut calls: Vec<Option<Vec<Array>>> = vec![None; graph.nodes.len()];
        for (index, node) in graph.nodes.iter().enumerate() {
            if !live[index] && !matches!(node.op, Op::Input { .. }) {
                continue;
            }
            let value = run.node(index, node, inputs, &mut calls)?;
            observe(NodeId(index as u32), node, &value);
            run.values[index] = Some(value);
        }
        Ok(run)
    }

    fn node(
        &self,
        index: usize,
        node: &Node,
        inputs: &[(&str, Array)],
        calls: &mut [Option<Vec<Array>>],
    ) -> Result<Array> {
        let promote = |array: Array| array.cast(self.options.precision.promote(array.dtype()));
        let given = || node.inputs.iter().map(|id| self.value(*id).cloned()).collect::<Result<Vec<Array>>>();
        match &node.op {
            Op::Input { name, shape, dtype } => self.input(name, shape, *dtype, inputs).map(promote),
            Op::Parameter { slot, .. } => Ok(promote(self.parameters[*slot].clone())),
            Op::Constant(array) => Ok(promote(array.clone())),
            Op::Random { kind, stream, shape } => {
                let mut out = vec![0.0; shape.numel()];
                fill_random(*kind, (self.options.seed, stream), self.options.step, 0, &mut out);
                Array::from_vec(shape, out).map(promote)
            }
            Op::HostCall { name, outputs, .. } => {
                // Host code sees the types that the graph declares.
                let arrays: Vec<Array> =
                    given()?.into_iter().zip(&node.inputs).map(|(a, id)| a.cast(self.graph.node(*id).dtype)).collect();
                let results: Vec<Array> =
                    call_host_function(name, &arrays, outputs)?.into_iter().map(promote).collect();
                let first = results.first().cloned();
                calls[index] = Some(results);
                first.ok_or_else(|| Error::Internal(format!("host call `{name}` declares no outputs")))
            }
            Op::HostOutput { index: output } => {
                let results = calls[node.inputs[0].index()].as_ref();
                let found = results.and_then(|results| results.get(*output)).cloned();
                found.ok_or_else(|| Error::Internal(format!("host output {output} was not computed")))
            }
            Op::Update { .. } => Ok(Array::scalar(0.0f32)),
            _ => evaluate_as(node, &given()?.iter().collect::<Vec<_>>(), self.options.precision.promote(node.dtype)),
        }
    }

    fn value(&self, id: NodeId) -> Result<&Array> {
        self.values[id.index()].as_ref().ok_or_else(|| Error::Internal(format!("%{} was not computed", id.0)))
    }

    fn known(&self) -> Vec<String> {
        self.graph.inputs().map(|(name, ..)| name.to_string()).collect()
    }

    fn check_names(&self, inputs: &[(&str, Array)]) -> Result<()> {
        match inputs.iter().find(|(name, _)| !self.graph.inputs().any(|(known, ..)| &**known == *name)) {
            Some((name, _)) => Err(Error::Input {
                name: (*name).to_owned(),
                problem: "the graph has no such input".into(),
                known: self.known(),
            }),
            None => Ok(()),
        }
    }

    fn input(&self, name: &str, shape: &Shape, dtype: DType, inputs: &[(&str, Array)]) -> Result<Array> {
        let Some((_, array)) = inputs.iter().find(|(given, _)| *given == name) else {
            let problem = "no array was given for it".into();
            return Err(Error::Input { name: name.to_owned(), problem, known: self.known() });
        };
        // A double given for a single is welcome where everything is computed in doubles.
        let fits = array.dtype() == dtype || array.dtype() == self.options.precision.promote(dtype);
        if array.shape() != shape || !fits {
            return Err(Error::Mismatch {
                what: format!("input `{name}`"),
                expected: shape.clone(),
                expected_dtype: dtype,
                got: array.shape().clone(),
                got_dtype: array.dtype(),
            });
        }
        Ok(array.clone())
    }

    fn check_guard(&self) -> Result<()> {
        let Some(guard) = self.graph.guard else { return Ok(()) };
        let value = self.value(guard)?.to_f64_vec().into_iter().find(|x| !x.is_finite());
        match value {
            Some(value) => Err(Error::NonFinite {
                what: "the loss".into(),
                value: value as f32,
                layer: self.first_non_finite().map(|(_, layer)| layer),
            }),
            None => Ok(()),
        }
    }

    fn first_non_finite(&self) -> Option<(NodeId, String)> {
        let broken = |array: &Array| array.dtype().is_float() && array.to_f64_vec().iter().any(|x| !x.is_finite());
        let index = self.values.iter().position(|value| value.as_ref().is_some_and(broken))?;
        let node = &self.graph.nodes[index];
        let name = match &node.op {
            Op::Input { name, .. } => format!("the input `{name}`"),
            Op::Parameter { slot, .. } => format!("the parameter `{}`", self.graph.parameters[*slot].name()),
            op if node.origin.layer.is_empty() => op.name().to_owned(),
            _ => format!("`{}`", node.origin.layer),
        };
        Some((NodeId(index as u32), name))
    }
}

/// The value of one node from the values of its inputs, in the types that the graph declares.
pub(crate) fn evaluate(node: &Node, inputs: &[Array]) -> Result<Array> {
    evaluate_as(node, &inputs.iter().collect::<Vec<_>>(), node.dtype)
}

fn evaluate_as(node: &Node, inputs: &[&Array], dtype: DType) -> Result<Array> {
    let call = Call { node, inputs, dtype };
    match &node.op {
        Op::Unary(_) | Op::UnaryGrad(_) | Op::Binary(_) | Op::Where => elementwise::run(&call),
        Op::Cast(to) => Ok(convert::cast(inputs[0], if to.is_float() { dtype } else { *to })),
        Op::Detach => Ok(inputs[0].clone()),
        Op::Reduce { .. }
        | Op::ArgReduce { .. }
        | Op::TopK { .. }
        | Op::CumSum { .. }
        | Op::Softmax { .. }
        | Op::LogSoftmax { .. } => reduce::run(&call),
        Op::Reshape { shape } => inputs[0].reshape(shape),
        Op::Transpose { .. }
        | Op::Expand { .. }
        | Op::Slice { .. }
        | Op::SliceGrad { .. }
        | Op::Concat { .. }
        | Op::Pad { .. }
        | Op::PadGrad { .. } => movement::run(&call),
        Op::Gather { .. }
        | Op::GatherGrad { .. }
        | Op::GatherElements { .. }
        | Op::ScatterElements { .. }
        | Op::GatherNd { .. }
        | Op::ScatterNd { .. }
        | Op::OneHot { .. } => indexing::run(&call),
        Op::MatMul { .. } | Op::Conv2d(_) | Op::Conv2dInputGrad { .. } | Op::Conv2dWeightGrad { .. } => {
            matrix::run(&call)
        }
        Op::MaxPool2d(_)
        | Op::MaxPool2dIndices(_)
        | Op::MaxPool2dGrad(_)
        | Op::AvgPool2d { .. }
        | Op::AvgPool2dGrad { .. }
        | Op::Resize { .. }
        | Op::ResizeGrad { .. } => maps::run(&call),
        Op::RoiAlign(_)
        | Op::RoiAlignGrad(_)
        | Op::GridSample(_)
        | Op::GridSampleInputGrad { .. }
        | Op::GridSampleGridGrad(_) => sampling::run(&call),
        Op::Moments
        | Op::BatchNorm { .. }
        | Op::BatchNormTraining { .. }
        | Op::BatchNormGradSums { .. }
        | Op::BatchNormInputGrad { .. }
        | Op::Standardize { .. }
        | Op::StandardizeGrad { .. } => norm::run(&call),
        Op::Constant(array) => Ok(array.clone()),
        Op::Input { .. }
        | Op::Parameter { .. }
        | Op::Random { .. }
        | Op::HostCall { .. }
        | Op::HostOutput { .. }
        | Op::Update { .. }
        | Op::Poison => Err(call.misplaced()),
    }
}

/// One node with the values of its inputs.
struct Call<'a> {
    node: &'a Node,
    inputs: &'a [&'a Array],
    /// The type of the result.
    dtype: DType,
}

impl Call<'_> {
    /// Computes in f32, or in f64 where the result is f64 or no float, and converts to the result's type.
    fn compute(
        &self,
        dtype: DType,
        single: impl FnOnce() -> Result<Vec<f32>>,
        double: impl FnOnce() -> Result<Vec<f64>>,
    ) -> Result<Array> {
        match dtype {
            DType::F32 => Array::from_vec(&self.node.shape, single()?),
            DType::F16 | DType::BF16 => Ok(Array::from_vec(&self.node.shape, single()?)?.cast(dtype)),
            DType::F64 => Array::from_vec(&self.node.shape, double()?),
            _ => Array::from_f64(&self.node.shape, &double()?, dtype),
        }
    }

    fn misplaced(&self) -> Error {
        Error::Internal(format!("{} came to the wrong part of the interpreter", self.node.op.name()))
    }

    fn refuse(&self, rule: impl Into<String>, fix: impl Into<String>) -> Error {
        Error::Shape {
            op: self.node.op.name().to_owned(),
            layer: self.node.origin.layer.to_string(),
            at: self.node.origin.at,
            error: crate::ShapeError::new(rule, fix),
        }
    }
}
