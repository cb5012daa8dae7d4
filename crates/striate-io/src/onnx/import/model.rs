//! [`OnnxModel`]: a file that has been read.

use super::binder::{Binder, Traced, is_standard, opset_of};
use super::call::Learnt;
use super::fold::fold;
use super::table::is_supported;
use crate::onnx::external::ExternalData;
use crate::onnx::proto::{DimensionValue, FunctionProto, GraphProto, ModelProto, NodeProto, TypeValue, ValueInfoProto};
use crate::onnx::tensor::{read_sparse, read_tensor, type_name};
use crate::onnx::{dtype_of, read_proto};
use crate::{Error, Result};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use striate_graph::{Array, DType, Graph, Mode, Parameter, Shape, Tensor, Trace};

/// The size of an axis of a model's input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Fixed.
    Size(usize),
    /// Any size, the same wherever this name stands.
    Named(String),
    /// Any size.
    Open,
}

/// An input of a model, as the file declares it.
#[derive(Clone, Debug)]
pub struct OnnxInput {
    /// Its name.
    pub name: String,
    /// Its type.
    pub dtype: DType,
    /// Its axes; `None` where the file does not even say how many.
    pub shape: Option<Vec<Dimension>>,
}

impl OnnxInput {
    /// The shape where the file fixes every size.
    pub fn fixed_shape(&self) -> Option<Vec<usize>> {
        let size = |dimension: &Dimension| match dimension {
            Dimension::Size(size) => Some(*size),
            _ => None,
        };
        self.shape.as_ref()?.iter().map(size).collect()
    }
}

/// An initializer.
pub(super) enum Initial {
    /// Fixed data.
    Data(Array),
    /// What can be learned.
    Cell(Parameter),
    /// It could not be read, which matters only where it is used.
    Wrong(String),
}

/// An ONNX model: read once, traced for any shapes of its inputs.
///
/// ```no_run
/// use striate_io::onnx::{OnnxModel, OnnxSession};
/// use striate_graph::Array;
/// let model = std::sync::Arc::new(OnnxModel::open("resnet18.onnx".as_ref())?);
/// println!("{:?} -> {:?}", model.inputs(), model.outputs());
/// let outputs = OnnxSession::new(model).run(&[&Array::arange([1, 3, 224, 224])])?;
/// # Ok::<(), striate_io::Error>(())
/// ```
pub struct OnnxModel {
    pub(super) path: PathBuf,
    pub(super) opset: i64,
    pub(super) nodes: Vec<NodeProto>,
    pub(super) functions: HashMap<(String, String, String), FunctionProto>,
    pub(super) inputs: Vec<OnnxInput>,
    pub(super) outputs: Vec<String>,
    pub(super) initial: HashMap<String, Initial>,
    pub(super) cells: Vec<Parameter>,
    metadata: BTreeMap<String, String>,
    producer: String,
}

impl OnnxModel {
    /// Reads a model. External data are read below its folder.
    ///
    /// # Errors
    /// What is wrong with the file; all operators that are not supported at once, with their nodes' names.
    pub fn open(path: &Path) -> Result<OnnxModel> {
        OnnxModel::from_proto(read_proto(path)?, path)
    }

    /// As [`OnnxModel::open`], of messages that have been read; `path` is where external data lie and what errors name.
    ///
    /// # Errors
    /// As [`OnnxModel::open`].
    pub fn from_proto(mut proto: ModelProto, path: &Path) -> Result<OnnxModel> {
        let wrong = |why: &str| Error::malformed(path, "ONNX", why);
        let mut graph = proto.graph.take().ok_or_else(|| wrong("the model has no graph"))?;
        let opset = opset_of(proto.opset_import.iter().map(|set| (set.domain.as_str(), set.version)));
        let outputs: Vec<String> = graph.output.iter().map(|info| info.name.clone()).collect();
        if outputs.is_empty() {
            return Err(wrong("the graph has no outputs"));
        }
        if let Some(name) = written_twice(&graph) {
            return Err(wrong(&format!("`{name}` is written twice: by two nodes, or by a node and as an input")));
        }
        let key = |f: &FunctionProto| (f.domain.clone(), f.name.clone(), f.overload.clone());
        let mut model = OnnxModel {
            path: path.into(),
            opset: opset.unwrap_or(1),
            nodes: live_nodes(std::mem::take(&mut graph.node), &outputs),
            functions: proto.functions.into_iter().map(|function| (key(&function), function)).collect(),
            inputs: Vec::new(),
            outputs,
            initial: HashMap::new(),
            cells: Vec::new(),
            metadata: proto.metadata_props.into_iter().map(|entry| (entry.key, entry.value)).collect(),
            producer: format!("{} {}", proto.producer_name, proto.producer_version).trim().to_owned(),
        };
        model.refuse_unknown()?;
        let data = model.read_initializers(&graph);
        model.read_inputs(&graph, &data)?;
        fold(&mut model, data);
        let mut cells: Vec<Parameter> = Vec::new();
        let mut seen = HashSet::new();
        for name in model.nodes.iter().flat_map(|node| &node.input).chain(&model.outputs) {
            if let Some(Initial::Cell(cell)) = model.initial.get(name)
                && seen.insert(cell.id())
            {
                cells.push(cell.clone());
            }
        }
        model.cells = cells;
        Ok(model)
    }

    /// The graph's inputs that are not initializers, in order.
    pub fn inputs(&self) -> &[OnnxInput] {
        &self.inputs
    }

    /// The names of the outputs, in order.
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// The version of ONNX's operators that the model uses.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// The program that wrote the file.
    pub fn producer(&self) -> &str {
        &self.producer
    }

    /// What the file says of itself, by key (`metadata_props`).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Where the model was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The float initializers, under their names, in the order in which nodes read them. Running statistics are buffers.
    pub fn parameters(&self) -> &[Parameter] {
        &self.cells
    }

    /// Traces the model for inputs of these shapes, in the order of the inputs; sizes that the file declares are overridden.
    ///
    /// # Errors
    /// All nodes that cannot be traced, by name; a node that needs a value which only a run can give ([`crate::onnx::OnnxSession`] runs
    /// such models).
    pub fn graph(&self, mode: Mode, shapes: &[Shape]) -> Result<Graph> {
        self.check_count(shapes.len())?;
        let trace = Trace::new(mode);
        let given = self.inputs.iter().zip(shapes);
        let inputs: Vec<Tensor> = given.map(|(input, shape)| trace.input(&input.name, shape, input.dtype)).collect();
        let outputs = self.trace(&trace, &inputs)?;
        self.finish(trace, &outputs)
    }

    /// Records the model in a trace, on tensors for its inputs; gives its outputs.
    ///
    /// # Errors
    /// As [`OnnxModel::graph`].
    pub fn trace(&self, trace: &Trace, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.check_count(inputs.len())?;
        let mut binder = Binder::new(self, trace, Vec::new());
        match self.checked(&mut binder, trace, inputs)? {
            Traced::Whole(outputs) => Ok(outputs),
            Traced::Stopped(stop) => Err(Error::unsupported(
                &self.path,
                format!("node {}: it needs values that only a run can give, which", stop.node),
                "`striate run` runs such models; here a model must follow from shapes alone",
            )),
        }
    }

    /// Traces as far as what is known allows. Gives also the number of nodes that earlier programs have computed.
    pub(super) fn trace_with(&self, trace: &Trace, inputs: &[Tensor], learnt: Vec<Learnt>) -> Result<(Traced, usize)> {
        let mut binder = Binder::new(self, trace, learnt);
        let traced = self.checked(&mut binder, trace, inputs)?;
        Ok((traced, binder.oracle.computed))
    }

    fn checked(&self, binder: &mut Binder, trace: &Trace, inputs: &[Tensor]) -> Result<Traced> {
        let traced = binder.run(inputs);
        if binder.problems.is_empty()
            && let Err(error) = trace.check()
        {
            binder.problems.push(error.to_string());
        }
        match binder.problems.is_empty() {
            true => Ok(traced),
            false => Err(self.refuse(std::mem::take(&mut binder.problems))),
        }
    }

    pub(super) fn finish(&self, trace: Trace, outputs: &[Tensor]) -> Result<Graph> {
        let named: Vec<(&str, &Tensor)> = self.outputs.iter().map(String::as_str).zip(outputs).collect();
        trace.finish(&named).map_err(|error| Error::malformed(&self.path, "the graph", error.to_string()))
    }

    fn check_count(&self, count: usize) -> Result<()> {
        if count == self.inputs.len() {
            return Ok(());
        }
        let names: Vec<&str> = self.inputs.iter().map(|input| input.name.as_str()).collect();
        let why = format!("{count} were given, the model has {} ({})", names.len(), names.join(", "));
        Err(Error::malformed(&self.path, "inputs", why))
    }

    pub(super) fn refuse(&self, problems: Vec<String>) -> Error {
        Error::nodes(&self.path, &problems)
    }

    /// The function of the model that a node calls.
    pub(super) fn function(&self, node: &NodeProto) -> Option<&FunctionProto> {
        if self.functions.is_empty() {
            return None;
        }
        self.functions.get(&(node.domain.clone(), node.op_type.clone(), node.overload.clone()))
    }

    /// Says which operators are not supported, all at once. What stands in a branch that may never be taken is looked at when it
    /// is.
    fn refuse_unknown(&self) -> Result<()> {
        let mut problems = Vec::new();
        let known = |node: &NodeProto| is_standard(&node.domain) && is_supported(&node.op_type);
        let bodies = self.functions.values().flat_map(|function| &function.node);
        for node in self.nodes.iter().chain(bodies).filter(|node| self.function(node).is_none() && !known(node)) {
            let domain = if is_standard(&node.domain) { String::new() } else { format!("{}::", node.domain) };
            let name =
                [&node.name, node.output.first().unwrap_or(&node.name)].into_iter().find(|name| !name.is_empty());
            let name = name.map_or("", String::as_str);
            problems.push(format!("node `{name}` ({domain}{}): the operator is not supported", node.op_type));
        }
        if problems.is_empty() { Ok(()) } else { Err(self.refuse(problems)) }
    }

    fn read_initializers(&self, graph: &GraphProto) -> HashMap<String, Result<Array, String>> {
        let external = ExternalData::beside(&self.path);
        let used: HashSet<&str> = used_names(&self.nodes).chain(self.outputs.iter().map(String::as_str)).collect();
        let mut data = HashMap::new();
        for tensor in graph.initializer.iter().filter(|tensor| used.contains(tensor.name.as_str())) {
            data.insert(tensor.name.clone(), read_tensor(tensor, &external));
        }
        for tensor in &graph.sparse_initializer {
            let name = tensor.values.as_ref().map_or("", |values| values.name.as_str());
            if used.contains(name) {
                data.insert(name.to_owned(), read_sparse(tensor, &external));
            }
        }
        data
    }

    fn read_inputs(&mut self, graph: &GraphProto, data: &HashMap<String, Result<Array, String>>) -> Result<()> {
        let names: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        let mut problems = Vec::new();
        for info in &graph.input {
            if data.contains_key(&info.name) || names.contains(info.name.as_str()) {
                continue;
            }
            match read_input(info) {
                Ok(input) => self.inputs.push(input),
                Err(why) => problems.push(format!("input `{}`: {why}", info.name)),
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(self.refuse(problems)) }
    }
}

fn read_input(info: &ValueInfoProto) -> Result<OnnxInput, String> {
    let declared = info.r#type.as_ref().and_then(|declared| declared.value.as_ref());
    let Some(TypeValue::TensorType(tensor)) = declared else {
        return Err("it is no tensor; sequences, maps and optional values are not supported".into());
    };
    let code = tensor.elem_type;
    let dtype = dtype_of(code).ok_or_else(|| format!("elements of type {} are not supported", type_name(code)))?;
    let dimension = |dim: &crate::onnx::proto::Dimension| match &dim.value {
        Some(DimensionValue::DimValue(size)) => usize::try_from(*size).map_or(Dimension::Open, Dimension::Size),
        Some(DimensionValue::DimParam(name)) if !name.is_empty() => Dimension::Named(name.clone()),
        _ => Dimension::Open,
    };
    let shape = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(dimension).collect());
    Ok(OnnxInput { name: info.name.clone(), dtype, shape })
}

/// All names that nodes read, also in their branches.
pub(super) fn used_names(nodes: &[NodeProto]) -> impl Iterator<Item = &str> {
    nodes.iter().flat_map(names_of)
}

fn names_of(node: &NodeProto) -> Vec<&str> {
    let mut names: Vec<&str> = node.input.iter().map(String::as_str).collect();
    for graph in node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
        graph.node.iter().for_each(|inner| names.extend(names_of(inner)));
        names.extend(graph.output.iter().map(|info| info.name.as_str()));
    }
    names
}

/// The nodes that the outputs need, in order.
fn live_nodes(nodes: Vec<NodeProto>, outputs: &[String]) -> Vec<NodeProto> {
    let mut needed: HashSet<String> = outputs.iter().cloned().collect();
    let mut live = vec![false; nodes.len()];
    for (index, node) in nodes.iter().enumerate().rev() {
        if node.output.iter().any(|name| needed.contains(name)) {
            live[index] = true;
            needed.extend(names_of(node).into_iter().filter(|name| !name.is_empty()).map(str::to_owned));
        }
    }
    nodes.into_iter().zip(live).filter(|(_, live)| *live).map(|(node, _)| node).collect()
}

/// A value that more than one node writes, or that is an input as well.
fn written_twice(graph: &GraphProto) -> Option<&str> {
    let given = graph.input.iter().map(|info| info.name.as_str());
    let mut seen: HashSet<&str> = given.collect();
    let written = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
    written.filter(|name| !name.is_empty()).find(|name| !seen.insert(name))
}
