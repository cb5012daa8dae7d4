//! A traced graph as a file: safetensors with the parameters under their names, constants as `constant.N`, and in the metadata, as
//! JSON, the nodes.

mod mirror;

use crate::{Error, Result, Safetensors, parse_safetensors, read_safetensors, write_safetensors};
use mirror::{DTypeMirror, OpMirror, shape};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::panic::Location;
use std::path::Path;
use std::sync::Arc;
use striate_graph::{Array, DType, Graph, Node, NodeId, Op, Origin, ParamKind, Parameter, Shape, host_function};

/// What the metadata calls the file.
const FORMAT: &str = "striate-graph";
/// The version that is written; lower ones are read.
const VERSION: u32 = 1;
/// Largest number in a file: sizes, strides, axes. Products of two fit an i64.
const MOST: u64 = 1 << 31;
/// Most elements of one value.
const MOST_ELEMENTS: usize = 1 << 36;

/// A node as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    op: OpFile,
    inputs: Vec<u32>,
    #[serde(with = "shape")]
    shape: Shape,
    #[serde(with = "DTypeMirror")]
    dtype: DType,
    layer: String,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OpFile {
    /// The array of this number.
    Constant { constant: usize },
    /// Any other.
    Op(#[serde(with = "OpMirror")] Op),
}

/// A cell as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CellFile {
    name: String,
    buffer: bool,
    frozen: bool,
}

/// All but the arrays.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GraphFile {
    nodes: Vec<NodeFile>,
    parameters: Vec<CellFile>,
    outputs: Vec<(String, u32)>,
    tapped: Vec<(String, u32)>,
    updates: Vec<u32>,
    guard: Option<u32>,
    taps: Vec<(String, u32)>,
}

/// Writes a graph with the values of its parameters, whole or not at all. The same graph gives the same bytes.
///
/// ```
/// use striate_graph::{Array, Mode, RunOptions, interpret};
/// use striate_io::{read_graph, write_graph};
/// use striate_nn::{Linear, Module};
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("fc.graph");
/// let graph = Linear::new(3, 2).graph(Mode::Eval, &[1, 3])?;
/// write_graph(&path, &graph)?;
/// let back = read_graph(&path)?;
/// assert_eq!(back.to_string(), graph.to_string());
/// assert_eq!(&*back.parameters[0].name(), "weight");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// What the disk says, and a graph with an error in it.
pub fn write_graph(path: &Path, graph: &Graph) -> Result<()> {
    graph.verify().map_err(|error| Error::malformed(path, "the graph", broken_rule(error)))?;
    let mut arrays: Vec<(String, Array)> = Vec::new();
    let mut parameters = Vec::new();
    let mut names = HashSet::new();
    for (slot, cell) in graph.parameters.iter().enumerate() {
        let name = match cell.name() {
            name if name.is_empty() || names.contains(&*name) => format!("parameter.{slot}"),
            name => name.to_string(),
        };
        names.insert(name.clone());
        let buffer = cell.kind() == ParamKind::Buffer;
        parameters.push(CellFile { name: name.clone(), buffer, frozen: !buffer && !cell.requires_grad() });
        arrays.push((name, cell.array()));
    }
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    let mut constants = 0;
    for node in &graph.nodes {
        let op = match &node.op {
            Op::Constant(array) => {
                arrays.push((format!("constant.{constants}"), array.clone()));
                constants += 1;
                OpFile::Constant { constant: constants - 1 }
            }
            op => OpFile::Op(op.clone()),
        };
        let inputs = node.inputs.iter().map(|id| id.0).collect();
        let layer = node.origin.layer.to_string();
        nodes.push(NodeFile { op, inputs, shape: node.shape.clone(), dtype: node.dtype, layer });
    }
    let named = |list: &[(Arc<str>, NodeId)]| list.iter().map(|(name, id)| (name.to_string(), id.0)).collect();
    let file = GraphFile {
        nodes,
        parameters,
        outputs: named(&graph.outputs),
        tapped: named(&graph.tapped),
        updates: graph.updates.iter().map(|id| id.0).collect(),
        guard: graph.guard.map(|id| id.0),
        taps: graph.taps.iter().map(|(path, id)| (path.to_string(), id.0)).collect(),
    };
    let json = serde_json::to_string(&file).map_err(|e| Error::malformed(path, "the graph", e.to_string()))?;
    let pairs = [("format", FORMAT.to_owned()), ("format_version", VERSION.to_string()), ("graph", json)];
    let metadata: BTreeMap<String, String> = pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    write_safetensors(path, arrays, &metadata)
}

/// Reads a graph: its parameters are new cells with the names and values of the file. Rust functions that it calls must be
/// registered before ([`striate_graph::register_host_function`]).
///
/// # Errors
/// What the system says; a file that is no graph, of a newer version, or whose nodes break a rule; a function that is not registered.
#[track_caller]
pub fn read_graph(path: &Path) -> Result<Graph> {
    read(path, read_safetensors(path)?, Location::caller())
}

/// Reads a graph out of memory, as [`read_graph`]; `name` stands for the file in errors.
///
/// # Errors
/// As [`read_graph`].
#[track_caller]
pub fn parse_graph(bytes: &[u8], name: &Path) -> Result<Graph> {
    read(name, parse_safetensors(bytes, name)?, Location::caller())
}

fn read(path: &Path, file: Safetensors, at: &'static Location<'static>) -> Result<Graph> {
    let Safetensors { arrays, metadata } = file;
    let wrong = |why: String| Error::malformed(path, "the graph", why);
    if metadata.get("format").map(String::as_str) != Some(FORMAT) {
        return Err(wrong("this safetensors file holds no graph; a file of `write_graph` does".into()));
    }
    let version = metadata.get("format_version").and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    if version == 0 || version > VERSION {
        return Err(Error::Version { path: path.into(), what: "graph", found: version, known: VERSION });
    }
    let text = metadata.get("graph").map(String::as_str).unwrap_or_default();
    let value: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    check_numbers(&value).map_err(wrong)?;
    let file: GraphFile = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
    build(path, file, &arrays, at)
}

/// No number beyond [`MOST`], so that nothing that is worked out from them overflows.
fn check_numbers(value: &Value) -> Result<(), String> {
    match value {
        Value::Number(number) => {
            let size = number.as_i64().map(i64::unsigned_abs).or(number.as_u64());
            match size {
                Some(size) if size > MOST => Err(format!("the number {number}; at most {MOST} is accepted")),
                _ => Ok(()),
            }
        }
        Value::Array(values) => values.iter().try_for_each(check_numbers),
        Value::Object(fields) => fields.values().try_for_each(check_numbers),
        _ => Ok(()),
    }
}

fn build(
    path: &Path,
    file: GraphFile,
    arrays: &BTreeMap<String, Array>,
    at: &'static Location<'static>,
) -> Result<Graph> {
    let wrong = |why: String| Error::malformed(path, "the graph", why);
    let array = |name: &str| {
        arrays.get(name).cloned().ok_or_else(|| Error::array(path, name, "the graph asks for it, the file lacks it"))
    };
    let mut graph = Graph::default();
    for CellFile { name, buffer, frozen } in file.parameters {
        let values = array(&name)?;
        let cell = if buffer { Parameter::buffer(values) } else { Parameter::new(values) };
        cell.set_name(&name);
        if frozen {
            cell.set_requires_grad(false);
        }
        graph.parameters.push(cell);
    }
    for (index, node) in file.nodes.into_iter().enumerate() {
        let op = match node.op {
            OpFile::Constant { constant } => Op::Constant(array(&format!("constant.{constant}"))?),
            OpFile::Op(op) => op,
        };
        check_op(path, index, &op, &graph.parameters)?;
        if node.shape.numel() > MOST_ELEMENTS {
            let what = format!("number of elements of node %{index}");
            return Err(Error::too_large(path, what, node.shape.numel() as u64, MOST_ELEMENTS as u64));
        }
        let inputs = node.inputs.into_iter().map(NodeId).collect();
        let origin = Origin { layer: node.layer.into(), at };
        graph.nodes.push(Node { op, inputs, shape: node.shape, dtype: node.dtype, origin });
    }
    let named = |list: Vec<(String, u32)>| list.into_iter().map(|(name, id)| (name.into(), NodeId(id)));
    graph.outputs = named(file.outputs).collect();
    graph.tapped = named(file.tapped).collect();
    graph.taps = named(file.taps).collect();
    graph.updates = file.updates.into_iter().map(NodeId).collect();
    graph.guard = file.guard.map(NodeId);
    graph.verify().map_err(|error| wrong(broken_rule(error)))?;
    let is_update = |id: &&NodeId| !matches!(graph.node(**id).op, Op::Update { .. });
    match graph.updates.iter().find(is_update) {
        Some(id) => Err(wrong(format!("node %{} is listed as an update and is none", id.0))),
        None => Ok(graph),
    }
}

/// A rule that a file breaks is no fault of ours.
fn broken_rule(error: striate_graph::Error) -> String {
    match error {
        striate_graph::Error::Internal(rule) => rule,
        other => other.to_string(),
    }
}

/// What the graph's own rules do not see: that a cell is what a node says, and that functions are there.
fn check_op(path: &Path, index: usize, op: &Op, cells: &[Parameter]) -> Result<()> {
    match op {
        Op::Parameter { slot, shape, dtype } => match cells.get(*slot) {
            Some(cell) if cell.shape() == *shape && cell.dtype() == *dtype => Ok(()),
            Some(cell) => {
                let why =
                    format!("node %{index} takes it for {dtype} {shape}, it is {} {}", cell.dtype(), cell.shape());
                Err(Error::array(path, &cell.name(), why))
            }
            None => {
                let why = format!("node %{index} reads parameter {slot} of {}", cells.len());
                Err(Error::malformed(path, "the graph", why))
            }
        },
        Op::HostCall { name, backward, .. } => {
            let missing = std::iter::once(name).chain(backward).find(|name| host_function(name).is_none());
            match missing {
                Some(name) => {
                    let what = format!("the Rust function `{name}`, which node %{index} calls,");
                    let instead = "register it with register_host_function before reading the graph";
                    Err(Error::unsupported(path, what, instead))
                }
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}
