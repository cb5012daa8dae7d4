//! What each target does with the bytes that a fuzzer gives it. The tests of `striate-io` run the same over the corpus.
//!
//! Where a checksum would stop all that follows, the bytes are what stands behind it, and the rest is put around them.

use std::path::Path;
use std::sync::Arc;
use striate_graph::{Mode, Shape};
use striate_io::onnx::{Dimension, OnnxModel, OnnxNet, parse_proto};
use striate_io::{Error, Weights, parse_graph, parse_npy, parse_safetensors, parse_weights};
use striate_nn::Module;

/// Runs a reader.
pub type Target = fn(&[u8]);

/// All targets.
pub const TARGETS: [(&str, Target); 11] = [
    ("weights", weights),
    ("pickle", pickle),
    ("legacy", legacy),
    ("zip", zip),
    ("npz", npz),
    ("npy", npy),
    ("safetensors", safetensors),
    ("onnx", onnx),
    ("import", import),
    ("checkpoint", checkpoint),
    ("graph", graph),
];

/// The target of that name.
pub fn find(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// Nothing lies beside it.
const NAME: &str = "/nowhere/fuzzed";

/// An error is one line that begins with the file; arrays are as large as their shapes say.
fn check<T>(read: Result<T, Error>) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with(NAME) && !text.chars().any(char::is_control), "{text:?}");
            None
        }
    }
}

fn read(bytes: &[u8]) -> Option<Weights> {
    let weights = check(parse_weights(bytes, Path::new(NAME)))?;
    for (name, array) in weights.arrays.iter() {
        assert_eq!(array.shape().iter().product::<usize>(), array.buffer().len(), "{name:?}");
    }
    assert!(weights.notes.iter().all(|note| !note.chars().any(char::is_control)), "{:?}", weights.notes);
    Some(weights)
}

/// Any file, by its first bytes.
fn weights(data: &[u8]) {
    read(data);
}

/// The pickle of a file in PyTorch's zip layout, with one storage of 64 bytes.
fn pickle(data: &[u8]) {
    read(&archive(&[("a/data.pkl", data), ("a/data/0", &[7; 64]), ("a/version", b"3\n")]));
}

/// All that follows PyTorch's magic number in the layout before 1.6.
fn legacy(data: &[u8]) {
    read(&[&b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."[..], data].concat());
}

/// An archive, whatever is in it.
fn zip(data: &[u8]) {
    read(&[b"PK\x03\x04", data].concat());
}

/// The members of an archive of arrays, each with its length before it.
fn npz(data: &[u8]) {
    let mut rest = data;
    let mut members = Vec::new();
    while let [low, high, after @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        members.push(&after[..length]);
        rest = &after[length..];
    }
    let names: Vec<String> = (0..members.len()).map(|index| format!("{index}.npy")).collect();
    let members: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(members).collect();
    read(&archive(&members));
}

fn npy(data: &[u8]) {
    check(parse_npy(data, Path::new(NAME)));
}

/// A header, and 64 bytes of data.
fn safetensors(data: &[u8]) {
    check(parse_safetensors(data, Path::new(NAME)));
    let length = (data.len() as u64).to_le_bytes();
    check(parse_safetensors(&[&length[..], data, &[1; 64]].concat(), Path::new(NAME)));
}

/// The fields of a model behind its first.
fn onnx(data: &[u8]) {
    read(&[&b"\x08\x08\x12\0"[..], data].concat());
}

/// The same as `onnx`, and what is read as a graph for small inputs, without running it; as a net with another head; and as text, which
/// must give the same model.
fn import(data: &[u8]) {
    let bytes = [&b"\x08\x08\x12\0"[..], data].concat();
    let Some(proto) = check(parse_proto(bytes.into(), Path::new(NAME))) else { return };
    let Some(model) = check(OnnxModel::from_proto(proto, Path::new(NAME))) else { return };
    let shapes = model.inputs().iter().map(|input| {
        let dimensions = input.shape.iter().flatten().map(|dimension| match dimension {
            Dimension::Size(size) => (*size).min(9),
            _ => 2,
        });
        dimensions.take(6).collect::<Vec<usize>>().into()
    });
    let shapes: Vec<Shape> = shapes.collect();
    check(model.graph(Mode::Eval, &shapes));
    let Some(net) = check(OnnxNet::new(Arc::new(model))) else { return };
    let (dict, text) = (net.state_dict(), net.model().structure());
    let again = check(OnnxModel::from_structure(&text, |name| dict.get(name).cloned(), Path::new(NAME)));
    let Some(mut again) = again else { return };
    assert_eq!(again.structure(), text);
    if check(again.replace_head(3, 0)).is_some() {
        assert_eq!(again.head_classes(), Some(3));
    }
}

/// The header of a checkpoint up to a NUL, and the data behind it.
fn checkpoint(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (header, rest) = data.split_at(end);
    let mut bytes = b"STRIATEC\x01\0\0\0".to_vec();
    bytes.extend(crc32fast::hash(header).to_le_bytes());
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    bytes.extend(rest.get(1..).unwrap_or_default());
    bytes.extend((bytes.len() as u64 + 16).to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend(b"END.");
    read(&bytes);
}

/// The description of a graph up to a NUL, as JSON, and the header's entries of its arrays behind it; 64 bytes of data.
fn graph(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (description, arrays) = (String::from_utf8_lossy(&data[..end]), data.get(end + 1..).unwrap_or_default());
    let mut quoted = String::new();
    for c in description.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if u32::from(c) < 0x20 => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    let head =
        format!("{{\"__metadata__\":{{\"format\":\"striate-graph\",\"format_version\":\"1\",\"graph\":\"{quoted}\"}}");
    let comma = if arrays.is_empty() { "" } else { "," };
    let header = [head.as_bytes(), comma.as_bytes(), arrays, b"}"].concat();
    let size = if arrays.is_empty() { 0 } else { 64 };
    let bytes = [&(header.len() as u64).to_le_bytes()[..], &header, &vec![1; size]].concat();
    check(parse_graph(&bytes, Path::new(NAME)));
}

/// An archive of stored members with right checksums.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, contents) in members {
        let offset = out.len() as u32;
        let mut common = [20u16, 0x800, 0, 0, 0x21].map(u16::to_le_bytes).concat();
        let size = contents.len() as u32;
        common.extend([crc32fast::hash(contents), size, size].map(u32::to_le_bytes).concat());
        common.extend([name.len() as u16, 0].map(u16::to_le_bytes).concat());
        out.extend([b"PK\x03\x04", &common[..], name.as_bytes(), contents].concat());
        directory.extend([b"PK\x01\x02\x14\0", &common[..], &[0; 10], &offset.to_le_bytes(), name.as_bytes()].concat());
    }
    let end = [(members.len() as u16).to_le_bytes(), (members.len() as u16).to_le_bytes()].concat();
    let places = [directory.len() as u32, out.len() as u32].map(u32::to_le_bytes).concat();
    [&out[..], &directory, b"PK\x05\x06\0\0\0\0", &end, &places, &[0, 0]].concat()
}
