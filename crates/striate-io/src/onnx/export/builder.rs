//! The ONNX graph as it grows: nodes, initializers, and names that stay unique.

use crate::onnx::array_to_tensor;
use crate::onnx::proto::{AttributeProto, AttributeType, NodeProto, TensorProto};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use striate_graph::{Array, DType};

/// The attribute of an integer.
pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i: Some(value), ..Default::default() }
}

/// The attribute of several integers.
pub(super) fn ints(name: &str, values: impl IntoIterator<Item = usize>) -> AttributeProto {
    let ints = values.into_iter().map(|value| value as i64).collect();
    AttributeProto { name: name.into(), r#type: AttributeType::Ints as i32, ints, ..Default::default() }
}

/// The attribute of a number.
pub(super) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Float as i32, f: Some(value), ..Default::default() }
}

/// The attribute of a word.
pub(super) fn string(name: &str, value: &str) -> AttributeProto {
    let s = Some(Bytes::copy_from_slice(value.as_bytes()));
    AttributeProto { name: name.into(), r#type: AttributeType::String as i32, s, ..Default::default() }
}

/// What has been written so far.
#[derive(Default)]
pub(super) struct Builder {
    pub nodes: Vec<NodeProto>,
    pub initializers: Vec<TensorProto>,
    /// The path of the layer whose nodes are being written.
    pub layer: String,
    taken: HashSet<String>,
    /// Small constants by type, shape and bytes, so that each is written once.
    constants: HashMap<(i32, Vec<i64>, Bytes), String>,
}

/// Constants up to this many bytes are shared.
const SMALL: usize = 256;

impl Builder {
    /// Keeps a name for what has it already.
    pub fn reserve(&mut self, name: &str) {
        self.taken.insert(name.to_owned());
    }

    /// `base`, or with a number where that is taken.
    pub fn fresh(&mut self, base: &str) -> String {
        let numbered = |i: usize| if i == 0 { base.to_owned() } else { format!("{base}_{i}") };
        let name = (0..).map(numbered).find(|name| !self.taken.contains(name)).unwrap_or_default();
        self.taken.insert(name.clone());
        name
    }

    /// Writes a node with several outputs; an empty input stands for one that is left out.
    pub fn nodes(&mut self, op: &str, inputs: &[&str], attribute: Vec<AttributeProto>, outputs: usize) -> Vec<String> {
        let base = if self.layer.is_empty() { op.to_owned() } else { format!("{}/{op}", self.layer) };
        let name = self.fresh(&base);
        let mut output = vec![name.clone()];
        for index in 1..outputs {
            output.push(self.fresh(&format!("{name}:{index}")));
        }
        self.nodes.push(NodeProto {
            name,
            op_type: op.into(),
            input: inputs.iter().map(|&input| input.into()).collect(),
            output: output.clone(),
            attribute,
            ..Default::default()
        });
        output
    }

    /// Writes a node and gives its output, which has the node's name.
    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        self.nodes(op, inputs, attributes, 1).swap_remove(0)
    }

    /// Writes an array under this name, or a like one where it is taken.
    pub fn initializer(&mut self, name: &str, array: &Array) -> String {
        let name = self.fresh(name);
        self.initializers.push(array_to_tensor(&name, array));
        name
    }

    /// Fixed data; small ones are written once.
    pub fn constant(&mut self, array: &Array) -> String {
        let written = array_to_tensor("", array);
        let bytes = written.raw_data.clone().unwrap_or_default();
        let key = (written.data_type, written.dims.clone(), bytes);
        if let Some(known) = self.constants.get(&key) {
            return known.clone();
        }
        let name = self.fresh("constant");
        if key.2.len() <= SMALL {
            self.constants.insert(key, name.clone());
        }
        self.initializers.push(TensorProto { name: name.clone(), ..written });
        name
    }

    /// One number of a type.
    pub fn scalar(&mut self, value: f64, dtype: DType) -> String {
        let array = Array::from_f64([], &[value], dtype).expect("a scalar has one element");
        self.constant(&array)
    }

    /// A list of whole numbers, as shapes and axes are given.
    pub fn list(&mut self, values: &[i64]) -> String {
        let array = Array::from_vec([values.len()], values.to_vec()).expect("a list has as many elements as it has");
        self.constant(&array)
    }
}
