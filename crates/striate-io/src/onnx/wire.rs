//! A look at the bytes before they are decoded: every message that the decoder would make is counted first, because a
//! message of two bytes becomes a struct of hundreds.

use super::proto::{
    AttributeProto, Dimension, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
};

/// Most messages and strings in a file.
const MAX_ITEMS: usize = 400_000;
/// What the decoded messages may take, in bytes, beyond four times the file.
const FREE: usize = 16 << 20;
/// Deepest nesting of messages.
const MAX_DEPTH: usize = 90;

/// The messages whose fields matter here.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    ValueInfo,
    Type,
    /// What a sequence, a map or an optional value is of.
    Element,
    TensorType,
    Shape,
    Function,
    /// Strings and numbers alone.
    Flat,
    /// A string or bytes.
    Leaf,
}

impl Kind {
    /// What a length-delimited field holds; `None` for a packed list of numbers and for what the decoder skips.
    fn field(self, tag: u64) -> Option<(&'static str, Kind)> {
        Some(match (self, tag) {
            (Kind::Model, 7) => ("graph", Kind::Graph),
            (Kind::Model, 8 | 14) => ("entry", Kind::Flat),
            (Kind::Model, 25) => ("function", Kind::Function),
            (Kind::Graph, 1) => ("node", Kind::Node),
            (Kind::Graph, 5) => ("initializer", Kind::Tensor),
            (Kind::Graph, 15) => ("sparse initializer", Kind::Sparse),
            (Kind::Graph, 11..=13) => ("value", Kind::ValueInfo),
            (Kind::Graph, 16) => ("entry", Kind::Flat),
            (Kind::Node, 1 | 2) => ("name", Kind::Leaf),
            (Kind::Node, 5) => ("attribute", Kind::Attribute),
            (Kind::Node, 9) => ("entry", Kind::Flat),
            (Kind::Attribute, 5 | 10) => ("tensor", Kind::Tensor),
            (Kind::Attribute, 6 | 11) => ("graph", Kind::Graph),
            (Kind::Attribute, 9) => ("string", Kind::Leaf),
            (Kind::Attribute, 14 | 15) => ("type", Kind::Type),
            (Kind::Attribute, 22 | 23) => ("sparse tensor", Kind::Sparse),
            (Kind::Tensor, 3 | 13 | 16) => ("entry", Kind::Flat),
            (Kind::Tensor, 6) => ("string", Kind::Leaf),
            (Kind::Sparse, 1 | 2) => ("tensor", Kind::Tensor),
            (Kind::ValueInfo, 2) => ("type", Kind::Type),
            (Kind::ValueInfo, 4) => ("entry", Kind::Flat),
            (Kind::Type, 1 | 8) => ("tensor type", Kind::TensorType),
            (Kind::Type, 4 | 5 | 9) => ("type", Kind::Element),
            (Kind::Element, 1 | 2) => ("type", Kind::Type),
            (Kind::TensorType, 1 | 2) => ("shape", Kind::Shape),
            (Kind::Shape, 1) => ("dimension", Kind::Flat),
            (Kind::Function, 4..=6) => ("name", Kind::Leaf),
            (Kind::Function, 7) => ("node", Kind::Node),
            (Kind::Function, 11) => ("attribute", Kind::Attribute),
            (Kind::Function, 12) => ("value", Kind::ValueInfo),
            (Kind::Function, 9 | 14) => ("entry", Kind::Flat),
            _ => return None,
        })
    }

    /// Bytes that one takes once it is decoded, without what it holds.
    fn size(self) -> usize {
        match self {
            Kind::Model => size_of::<ModelProto>(),
            Kind::Graph => size_of::<GraphProto>(),
            Kind::Node => size_of::<NodeProto>(),
            Kind::Attribute => size_of::<AttributeProto>(),
            Kind::Tensor => size_of::<TensorProto>(),
            Kind::Sparse => size_of::<SparseTensorProto>(),
            Kind::ValueInfo => size_of::<ValueInfoProto>(),
            Kind::Type | Kind::Element | Kind::TensorType => size_of::<TypeProto>(),
            Kind::Shape => size_of::<TensorShapeProto>(),
            Kind::Function => size_of::<FunctionProto>(),
            Kind::Flat => size_of::<StringStringEntryProto>().max(size_of::<Dimension>()),
            Kind::Leaf => size_of::<bytes::Bytes>(),
        }
    }

    /// Bytes of one number of a list in such a field; the field may be packed.
    fn number(self, tag: u64) -> Option<usize> {
        match (self, tag) {
            (Kind::Attribute, 8) | (Kind::Tensor, 1 | 7 | 11) | (Kind::Sparse, 3) => Some(8),
            (Kind::Tensor, 5) => Some(4),
            _ => None,
        }
    }
}

/// The bytes are well-formed, not nested too deeply, and make no more messages than a model can need.
pub(super) fn check_wire(bytes: &[u8]) -> Result<(), String> {
    let mut count = Count { items: 0, bytes: 0, limit: bytes.len().saturating_mul(4).saturating_add(FREE) };
    walk(bytes, Kind::Model, 0, &mut count)
}

/// What the decoder would make.
struct Count {
    items: usize,
    bytes: usize,
    limit: usize,
}

impl Count {
    fn take(&mut self, bytes: usize) -> Result<(), String> {
        self.bytes = self.bytes.saturating_add(bytes);
        match self.bytes > self.limit {
            true => Err(format!("its messages would take more than {} bytes of memory", self.limit)),
            false => Ok(()),
        }
    }
}

fn walk(mut bytes: &[u8], kind: Kind, depth: usize, count: &mut Count) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("messages are nested more than {MAX_DEPTH} deep"));
    }
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let (tag, wire) = (key >> 3, key & 7);
        let length = match wire {
            0 => {
                varint(&mut bytes)?;
                0
            }
            1 => 8,
            2 => varint(&mut bytes)?,
            5 => 4,
            other => return Err(format!("no protocol buffer: field {tag} has wire type {other}")),
        };
        let (name, child) = kind.field(tag).filter(|_| wire == 2).unzip();
        if length > bytes.len() as u64 {
            let what = name.unwrap_or("a field");
            let left = bytes.len();
            return Err(format!("{what} needs {length} bytes, but only {left} are left; the file is cut off"));
        }
        let (inside, rest) = bytes.split_at(length as usize);
        bytes = rest;
        if let Some(size) = kind.number(tag) {
            // each number of a packed list ends with a byte that has no high bit
            let numbers = if wire == 2 { inside.iter().filter(|byte| **byte < 0x80).count() } else { 1 };
            count.take(numbers.saturating_mul(size))?;
        }
        let Some(child) = child else { continue };
        count.items += 1;
        if count.items > MAX_ITEMS {
            return Err(format!("the file has more than {MAX_ITEMS} nodes, tensors, attributes and names"));
        }
        count.take(child.size())?;
        match child {
            Kind::Leaf => {}
            _ => walk(inside, child, depth + 1, count)?,
        }
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or("a number is cut off; is this an ONNX file?")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number of more than 64 bits; is this an ONNX file?".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_model_is_told() {
        assert!(check_wire(b"\x89PNG\r\n\x1a\n").is_err());
        // graph of 100 bytes, of which none are there
        assert!(check_wire(&[0x3a, 100]).unwrap_err().contains("graph needs 100 bytes"));
        // a graph of 400,001 empty nodes
        let mut nodes = vec![0x3a];
        let count = MAX_ITEMS + 1;
        let mut length = count * 2;
        while length >= 0x80 {
            nodes.push((length & 0x7f | 0x80) as u8);
            length >>= 7;
        }
        nodes.push(length as u8);
        nodes.extend([0x0a, 0].repeat(count));
        assert!(check_wire(&nodes).unwrap_err().contains("more than"));
    }
}
