//! The walk over a model's nodes that traces them.

use super::attributes::Attributes;
use super::call::{Answer, Call, Halt, Handler, Learnt, Oracle, Outputs, Stop};
use super::model::{Initial, OnnxModel};
use super::table::handler_of;
use super::value::Value;
use crate::onnx::external::ExternalData;
use crate::onnx::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto};
use std::collections::{BTreeMap, HashMap};
use striate_graph::{Array, Graph, Mode, RunOptions, Shape, Tensor, Trace, interpret};

/// How deep functions and branches may stand in each other.
const MOST_DEPTH: usize = 64;
/// Most nodes that are traced of a model, functions written out.
const MOST_NODES: usize = 1 << 20;
/// Values up to this many elements are computed while the graph is traced, where their inputs are known.
const FOLD_LIMIT: usize = 1 << 22;
/// Most elements of one value.
const MOST_ELEMENTS: usize = 1 << 33;

/// What is said of an operator that has no handler.
const UNKNOWN: &str = "the operator is not supported";

/// The names of one graph, one branch of it or one call of a function. `None` stands for what a refused node would have given.
struct Frame<'m> {
    values: HashMap<String, Option<Value>>,
    /// A function's body does not see the names around it.
    function: Option<&'m FunctionProto>,
    /// The attributes that the function was called with.
    attributes: Vec<AttributeProto>,
    /// The version of the operators.
    opset: i64,
}

/// A model that is being traced.
pub(super) struct Binder<'m> {
    model: &'m OnnxModel,
    trace: Trace,
    frames: Vec<Frame<'m>>,
    pub oracle: Oracle,
    pub problems: Vec<String>,
    external: ExternalData,
    left: usize,
}

/// Where a trace came to an end.
pub(super) enum Traced {
    /// All outputs are there.
    Whole(Vec<Tensor>),
    /// It needs what only a run can give.
    Stopped(Stop),
}

impl<'m> Binder<'m> {
    pub fn new(model: &'m OnnxModel, trace: &Trace, learnt: Vec<Learnt>) -> Binder<'m> {
        let values = HashMap::new();
        let frame = Frame { values, function: None, attributes: Vec::new(), opset: model.opset };
        Binder {
            model,
            trace: trace.clone(),
            frames: vec![frame],
            oracle: Oracle { learnt, ..Oracle::default() },
            problems: Vec::new(),
            external: ExternalData::beside(&model.path),
            left: MOST_NODES,
        }
    }

    /// Traces the whole model on these inputs, which stand in the order of the model's.
    pub fn run(&mut self, inputs: &[Tensor]) -> Traced {
        for (input, tensor) in self.model.inputs.iter().zip(inputs) {
            self.define(&input.name, Some(Value::traced(tensor.clone())));
        }
        if let Err(stop) = self.walk(&self.model.nodes) {
            return Traced::Stopped(stop);
        }
        let mut outputs = Vec::with_capacity(self.model.outputs.len());
        for name in &self.model.outputs {
            match self.find(name) {
                Some(Some(value)) => outputs.push(value.tensor(&self.trace)),
                Some(None) => {}
                None => self.problems.push(format!("output `{name}` is given by no node")),
            }
        }
        Traced::Whole(outputs)
    }

    fn define(&mut self, name: &str, value: Option<Value>) {
        if let Some(frame) = self.frames.last_mut() {
            frame.values.insert(name.to_owned(), value);
        }
    }

    /// The value of a name: in this graph, then in those around it, then among the initializers.
    fn find(&mut self, name: &str) -> Option<Option<Value>> {
        for frame in self.frames.iter().rev() {
            if let Some(value) = frame.values.get(name) {
                return Some(value.clone());
            }
            if frame.function.is_some() {
                return None;
            }
        }
        let value = match self.model.initial.get(name)? {
            Initial::Data(array) => Some(Value::known(array.clone())),
            Initial::Cell(cell) => Some(Value::cell(cell.clone())),
            Initial::Wrong(why) => {
                self.problems.push(format!("initializer `{name}`: {why}"));
                None
            }
        };
        self.frames[0].values.insert(name.to_owned(), value.clone());
        Some(value)
    }

    fn opset(&self) -> i64 {
        self.frames.last().map_or(0, |frame| frame.opset)
    }

    fn walk(&mut self, nodes: &'m [NodeProto]) -> Result<(), Stop> {
        for (index, node) in nodes.iter().enumerate() {
            // An operation that does not fit poisons the trace: all that comes after it would only repeat the error.
            if self.trace.check().is_err() {
                return Ok(());
            }
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                self.problems.push(format!("there are more than {MOST_NODES} nodes"));
                return Ok(());
            }
            let name = node_name(node, index);
            let before = self.problems.len();
            let result = self.node(node, &name);
            let wanted = node.output.iter().filter(|name| !name.is_empty()).count();
            let outputs = match result {
                Ok(Outputs(values)) if values.len() >= wanted || self.problems.len() > before => values,
                Ok(Outputs(values)) => {
                    let why = format!("it has {wanted} outputs, {} of them are supported", values.len());
                    self.problems.push(problem(&name, node, &why));
                    Vec::new()
                }
                Err(Halt::Stop(stop)) => return Err(stop),
                Err(Halt::Skipped) => Vec::new(),
                Err(Halt::Why(why)) => {
                    self.problems.push(problem(&name, node, &why));
                    Vec::new()
                }
            };
            self.mark(&name, outputs.first());
            for (index, output) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                self.define(output, outputs.get(index).cloned());
            }
        }
        Ok(())
    }

    /// Lets the node's value be tapped by the node's name.
    fn mark(&self, name: &str, value: Option<&Value>) {
        if let (Some(value), [_]) = (value.filter(|value| value.data().is_none()), &self.frames[..]) {
            self.trace.mark(name, &value.tensor(&self.trace));
        }
    }

    fn node(&mut self, node: &'m NodeProto, name: &str) -> Answer {
        let inputs = self.inputs(node)?;
        if let Some(function) = self.model.function(node) {
            return self.call_function(function, node, inputs);
        }
        if !is_standard(&node.domain) {
            return Err(UNKNOWN.into());
        }
        if node.op_type == "If" {
            return self.branch(node, name, inputs);
        }
        let handler = handler_of(&node.op_type).ok_or(UNKNOWN)?;
        let attributes = self.resolved(node);
        self.call(handler, (node, name, &attributes), inputs)
    }

    /// The values of a node's inputs; an empty name stands for none.
    fn inputs(&mut self, node: &NodeProto) -> Result<Vec<Option<Value>>, Halt> {
        let mut inputs = Vec::with_capacity(node.input.len());
        let mut skipped = false;
        for name in &node.input {
            if name.is_empty() {
                inputs.push(None);
                continue;
            }
            let value = self.find(name).ok_or_else(|| format!("its input `{name}` is given by no node before it"))?;
            skipped |= value.is_none();
            inputs.push(value);
        }
        if skipped { Err(Halt::Skipped) } else { Ok(inputs) }
    }

    /// The attributes of a node; in a function's body those that stand for the function's own are looked up.
    fn resolved(&self, node: &NodeProto) -> Vec<AttributeProto> {
        let function = self.frames.iter().rev().find(|frame| frame.function.is_some());
        let of_function = |attribute: &AttributeProto| {
            if attribute.ref_attr_name.is_empty() {
                return Some(attribute.clone());
            }
            let frame = function?;
            let given = frame.attributes.iter().find(|given| given.name == attribute.ref_attr_name);
            let defaults = frame.function.map_or(&[][..], |function| &function.attribute_proto);
            let found = given.or_else(|| defaults.iter().find(|default| default.name == attribute.ref_attr_name))?;
            Some(AttributeProto { name: attribute.name.clone(), ..found.clone() })
        };
        node.attribute.iter().filter_map(of_function).collect()
    }

    /// Calls a handler: in the trace, or, where all inputs are data, beside it, so that data come out.
    fn call(
        &mut self,
        handler: Handler,
        (node, name, attributes): (&NodeProto, &str, &[AttributeProto]),
        inputs: Vec<Option<Value>>,
    ) -> Answer {
        let is_data = |input: &Option<Value>| input.as_ref().is_none_or(|value| value.data().is_some());
        if inputs.iter().all(is_data) && folds(&node.op_type) {
            let copies = inputs.iter().map(|input| input.as_ref()?.data().cloned().map(Value::known)).collect();
            let scratch = Trace::new(self.trace.mode());
            let answer = self.call_in(&scratch, handler, (node, name, attributes), copies)?;
            if let Some(folded) = computed(&scratch, answer)? {
                return Ok(folded.into());
            }
        }
        let trace = self.trace.clone();
        let scope = trace.enter(name);
        let answer = self.call_in(&trace, handler, (node, name, attributes), inputs)?;
        drop(scope);
        check_sizes(&trace, &answer)?;
        Ok(answer)
    }

    fn call_in(
        &mut self,
        trace: &Trace,
        handler: Handler,
        (node, name, attributes): (&NodeProto, &str, &[AttributeProto]),
        inputs: Vec<Option<Value>>,
    ) -> Answer {
        let opset = self.opset();
        handler(&mut Call {
            name,
            op: &node.op_type,
            opset,
            attributes: Attributes(attributes),
            trace: trace.clone(),
            inputs,
            outputs: node.output.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1),
            external: &self.external,
            begun: self.trace.with_graph(|graph| graph.nodes.len()),
            oracle: &mut self.oracle,
        })
    }

    /// Writes a function of the model out.
    fn call_function(&mut self, function: &'m FunctionProto, node: &NodeProto, inputs: Vec<Option<Value>>) -> Answer {
        self.check_depth()?;
        let mut values = HashMap::new();
        for (index, name) in function.input.iter().enumerate() {
            if let Some(Some(value)) = inputs.get(index) {
                values.insert(name.clone(), Some(value.clone()));
            }
        }
        let attributes = self.resolved(node);
        let opset = opset_of(function.opset_import.iter().map(|set| (set.domain.as_str(), set.version)));
        let opset = opset.unwrap_or(self.model.opset);
        self.within(Frame { values, function: Some(function), attributes, opset }, &function.node, &function.output)
    }

    /// Follows the branch that a known condition chooses.
    fn branch(&mut self, node: &'m NodeProto, name: &str, inputs: Vec<Option<Value>>) -> Answer {
        self.check_depth()?;
        let trace = self.trace.clone();
        let mut call = Call {
            name,
            op: "If",
            opset: self.opset(),
            attributes: Attributes(&[]),
            inputs,
            outputs: 0,
            external: &self.external,
            begun: trace.with_graph(|graph| graph.nodes.len()),
            trace,
            oracle: &mut self.oracle,
        };
        let holds = call.number(0)? != 0.0;
        let which = if holds { "then_branch" } else { "else_branch" };
        let graph: &'m GraphProto =
            Attributes(&node.attribute).graph(which).ok_or_else(|| format!("it has no `{which}`"))?;
        let mut values = HashMap::new();
        for tensor in &graph.initializer {
            let array = crate::onnx::tensor::read_tensor(tensor, &self.external)?;
            values.insert(tensor.name.clone(), Some(Value::known(array)));
        }
        let outputs: Vec<String> = graph.output.iter().map(|info| info.name.clone()).collect();
        let frame = Frame { values, function: None, attributes: Vec::new(), opset: self.opset() };
        self.within(frame, &graph.node, &outputs)
    }

    fn check_depth(&self) -> Result<(), Halt> {
        match self.frames.len() < MOST_DEPTH {
            true => Ok(()),
            false => Err(format!("functions and branches stand more than {MOST_DEPTH} deep in each other").into()),
        }
    }

    /// Walks nodes with names of their own.
    fn within(&mut self, frame: Frame<'m>, nodes: &'m [NodeProto], outputs: &[String]) -> Answer {
        self.frames.push(frame);
        let walked = self.walk(nodes);
        let found: Vec<Option<Option<Value>>> = outputs.iter().map(|name| self.find(name)).collect();
        self.frames.pop();
        walked.map_err(Halt::Stop)?;
        let mut values = Vec::with_capacity(outputs.len());
        for (name, value) in outputs.iter().zip(found) {
            match value {
                Some(Some(value)) => values.push(value),
                Some(None) => return Err(Halt::Skipped),
                None if self.trace.check().is_err() => return Err(Halt::Skipped),
                None => return Err(format!("its output `{name}` is given by no node in it").into()),
            }
        }
        Ok(Outputs(values))
    }
}

/// What a node gives whose inputs are all known, where that is one value of a moderate size.
pub(super) fn fold_node(model: &OnnxModel, node: &NodeProto, known: &BTreeMap<String, Array>) -> Option<Array> {
    if !is_standard(&node.domain) || model.function(node).is_some() || !folds(&node.op_type) {
        return None;
    }
    let handler = handler_of(&node.op_type)?;
    let scratch = Trace::new(Mode::Eval);
    let inputs = node.input.iter().map(|name| known.get(name).cloned().map(Value::known)).collect();
    let mut binder = Binder::new(model, &scratch, Vec::new());
    let answer = binder.call_in(&scratch, handler, (node, "", &node.attribute), inputs).ok()?;
    let mut values = computed(&scratch, answer).ok()??;
    values.truncate(1);
    values.pop()?.data().cloned()
}

/// What a handler traced beside the graph, as data; `None` where that would be too large.
fn computed(scratch: &Trace, Outputs(values): Outputs) -> Result<Option<Vec<Value>>, Halt> {
    scratch.check()?;
    if values.iter().all(|value| value.data().is_some()) {
        return Ok(Some(values));
    }
    let tensors: Vec<Tensor> = values.iter().map(|value| value.tensor(scratch)).collect();
    let large = scratch.with_graph(|graph| graph.nodes.iter().any(|node| node.shape.numel() > FOLD_LIMIT));
    if large {
        return Ok(None);
    }
    let named: Vec<(&str, &Tensor)> = tensors.iter().map(|tensor| ("", tensor)).collect();
    let graph: Graph = scratch.clone().finish(&named)?;
    let arrays = interpret(&graph, &[], &RunOptions::default())?;
    Ok(Some(arrays.into_iter().map(Value::known).collect()))
}

/// No value may be larger than any machine's memory.
fn check_sizes(trace: &Trace, Outputs(values): &Outputs) -> Result<(), Halt> {
    trace.check()?;
    for value in values {
        let shape: Shape = match value.data() {
            Some(array) => array.shape().clone(),
            None => value.tensor(trace).shape(),
        };
        if shape.numel() > MOST_ELEMENTS {
            return Err(format!("a value of shape {shape} has more than {MOST_ELEMENTS} elements").into());
        }
    }
    Ok(())
}

/// False for operators that give something else each time.
fn folds(operator: &str) -> bool {
    !operator.starts_with("Random") && operator != "Bernoulli" && operator != "Multinomial"
}

/// The node's own name, or one made of its operator and first output.
fn node_name(node: &NodeProto, index: usize) -> String {
    let first = node.output.iter().find(|name| !name.is_empty());
    match (node.name.trim_start_matches('/'), first) {
        ("", Some(output)) => output.trim_start_matches('/').to_owned(),
        ("", None) => format!("{}_{index}", node.op_type),
        (name, _) => name.to_owned(),
    }
}

fn problem(name: &str, node: &NodeProto, why: &str) -> String {
    format!("node `{name}` ({}): {why}", operator(node))
}

fn operator(node: &NodeProto) -> String {
    if is_standard(&node.domain) { node.op_type.clone() } else { format!("{}::{}", node.domain, node.op_type) }
}

/// True for the operators of ONNX itself.
pub(super) fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// The version of ONNX's own operators.
pub(super) fn opset_of<'a>(mut imports: impl Iterator<Item = (&'a str, i64)>) -> Option<i64> {
    imports.find(|(domain, _)| is_standard(domain)).map(|(_, version)| version)
}
