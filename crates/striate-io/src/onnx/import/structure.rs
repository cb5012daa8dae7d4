//! A model without its values, as text that a weights file can hold beside them.

use super::layers::state_names;
use super::model::{Dimension, Initial, OnnxInput, OnnxModel};
use crate::onnx::proto::{
    Dimension as DimensionProto, DimensionValue, GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
};
use crate::onnx::{array_to_tensor, data_type, parse_proto};
use crate::{Error, Result};
use prost::Message;
use std::collections::HashMap;
use std::path::Path;
use striate_graph::{Array, Parameter};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl OnnxModel {
    /// The model without the values of its cells, as text (an ONNX file in base64). [`OnnxModel::from_structure`] reads it.
    pub fn structure(&self) -> String {
        let names: HashMap<usize, String> =
            state_names(self).into_iter().map(|(name, cell)| (cell.id(), name)).collect();
        let mut initializer: Vec<TensorProto> = Vec::new();
        for (name, initial) in &self.initial {
            match initial {
                Initial::Data(array) => initializer.push(array_to_tensor(name, array)),
                Initial::Cell(cell) => initializer.push(TensorProto {
                    name: name.clone(),
                    dims: cell.shape().iter().map(|&size| size as i64).collect(),
                    data_type: data_type(cell.dtype()) as i32,
                    doc_string: names.get(&cell.id()).cloned().unwrap_or_default(),
                    ..TensorProto::default()
                }),
                Initial::Wrong(_) => {}
            }
        }
        // The same model gives the same text.
        initializer.sort_by(|a, b| a.name.cmp(&b.name));
        let mut functions: Vec<_> = self.functions.values().cloned().collect();
        functions.sort_by(|a, b| (&a.domain, &a.name, &a.overload).cmp(&(&b.domain, &b.name, &b.overload)));
        let output = self.outputs.iter().map(|name| ValueInfoProto { name: name.clone(), ..ValueInfoProto::default() });
        let graph = GraphProto {
            node: self.nodes.clone(),
            input: self.inputs.iter().map(declared).collect(),
            output: output.collect(),
            initializer,
            ..GraphProto::default()
        };
        let entry =
            |(key, value): (&String, &String)| StringStringEntryProto { key: key.clone(), value: value.clone() };
        let model = ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: self.opset }],
            graph: Some(graph),
            functions,
            metadata_props: self.metadata().iter().map(entry).collect(),
            ..ModelProto::default()
        };
        encode(&model.encode_to_vec())
    }

    /// A model from its structure and its values; `value` gives the array of a cell by its name in a state dict, `path` is what errors name.
    ///
    /// # Errors
    /// A text that is no structure, a value that is missing or has another shape.
    pub fn from_structure(text: &str, value: impl Fn(&str) -> Option<Array>, path: &Path) -> Result<OnnxModel> {
        let bytes = decode(text).ok_or_else(|| Error::malformed(path, "the model's structure", "it is no base64"))?;
        let mut proto = parse_proto(bytes.into(), path)?;
        let mut names: Vec<(String, String)> = Vec::new();
        for tensor in proto.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
            if tensor.doc_string.is_empty() {
                continue;
            }
            let name = std::mem::take(&mut tensor.doc_string);
            let array = value(&name).ok_or_else(|| Error::array(path, &name, "the file does not have it"))?;
            if !array.shape().iter().map(|&size| size as i64).eq(tensor.dims.iter().copied()) {
                let why = format!("its shape is {}, the model needs {:?}", array.shape(), tensor.dims);
                return Err(Error::array(path, &name, why));
            }
            names.push((tensor.name.clone(), name));
            *tensor = array_to_tensor(&tensor.name, &array);
        }
        let model = OnnxModel::from_proto(proto, path)?;
        for (own, name) in names {
            if let Some(Initial::Cell(cell)) = model.initial.get(&own) {
                cell.set_name(&name);
            }
        }
        Ok(model)
    }

    /// Another cell, of the same name, in the place of one.
    pub(super) fn replace_cell(&mut self, own: &str, old: &Parameter, array: Array) {
        let new = Parameter::new(array);
        new.set_name(&old.name());
        for cell in self.cells.iter_mut().filter(|cell| cell.same_cell(old)) {
            *cell = new.clone();
        }
        self.initial.insert(own.to_owned(), Initial::Cell(new));
    }
}

fn declared(input: &OnnxInput) -> ValueInfoProto {
    let dimension = |dimension: &Dimension| DimensionProto {
        value: match dimension {
            Dimension::Size(size) => Some(DimensionValue::DimValue(*size as i64)),
            Dimension::Named(name) => Some(DimensionValue::DimParam(name.clone())),
            Dimension::Open => None,
        },
        denotation: String::new(),
    };
    let shape = input.shape.as_ref().map(|shape| TensorShapeProto { dim: shape.iter().map(dimension).collect() });
    let tensor = TensorType { elem_type: data_type(input.dtype) as i32, shape };
    let r#type = TypeProto { value: Some(TypeValue::TensorType(tensor)), denotation: String::new() };
    ValueInfoProto { name: input.name.clone(), r#type: Some(r#type), ..ValueInfoProto::default() }
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let word = part.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - part.len()));
        for place in 0..4 {
            let letter = ALPHABET[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= part.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let letters = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(letters.len() / 4 * 3 + 3);
    for part in letters.chunks(4) {
        let mut word = 0u32;
        for letter in part {
            word = word << 6 | ALPHABET.iter().position(|known| known == letter)? as u32;
        }
        let whole = (word << (6 * (4 - part.len()))).to_be_bytes();
        bytes.extend_from_slice(&whole[1..part.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes() {
        for (bytes, text) in
            [(&b""[..], ""), (b"M", "TQ=="), (b"Ma", "TWE="), (b"Man", "TWFu"), (b"\xff\xfe\x00\x01", "//4AAQ==")]
        {
            assert_eq!(encode(bytes), text);
            assert_eq!(decode(text).unwrap(), bytes);
        }
        assert!(decode("a?").is_none());
    }
}
