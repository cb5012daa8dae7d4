//! From a file to its messages.

use super::external::ExternalData;
use super::proto::{GraphProto, ModelProto};
use super::tensor::{read_sparse, read_tensor};
use super::wire::check_wire;
use crate::input::{self, Input};
use crate::{Error, Result};
use bytes::Bytes;
use prost::Message;
use std::io::Read;
use std::path::Path;
use striate_graph::Array;

/// Protocol Buffers end at 2 GiB; larger models keep their weights beside the file.
const MAX_BYTES: u64 = 1 << 31;

/// The messages of an ONNX file, as they stand there.
///
/// # Errors
/// What the system says; a file beyond 2 GiB, one that is no ONNX, one that declares more messages than it could need.
pub fn read_proto(path: &Path) -> Result<ModelProto> {
    read_model(input::open(path)?)
}

pub(crate) fn read_model<R: Read>(mut input: Input<'_, R>) -> Result<ModelProto> {
    let path = input.path;
    if input.left > MAX_BYTES {
        return Err(Error::too_large(path, "the file's size", input.left, MAX_BYTES));
    }
    let bytes = input.take(input.left, "the file")?;
    parse_proto(bytes.into(), path)
}

/// The messages of an ONNX file in memory; `name` stands for the file in errors. Weights share the bytes.
///
/// # Errors
/// As [`read_proto`].
pub fn parse_proto(bytes: Bytes, name: &Path) -> Result<ModelProto> {
    if bytes.is_empty() {
        return Err(Error::malformed(name, "ONNX", "the file is empty"));
    }
    check_wire(&bytes).map_err(|why| Error::malformed(name, "ONNX", why))?;
    ModelProto::decode(bytes).map_err(|error| Error::malformed(name, "ONNX", error.to_string()))
}

/// All initializers of a graph by name, sparse ones written out. External data are read below `path`'s folder.
///
/// # Errors
/// Names the tensor at fault.
pub fn read_initializers(graph: &GraphProto, path: &Path) -> Result<Vec<(String, Array)>> {
    read_arrays(graph, path, &ExternalData::beside(path))
}

pub(crate) fn read_arrays(graph: &GraphProto, path: &Path, external: &ExternalData) -> Result<Vec<(String, Array)>> {
    let mut arrays = Vec::with_capacity(graph.initializer.len());
    for tensor in &graph.initializer {
        let array = read_tensor(tensor, external).map_err(|why| Error::array(path, &tensor.name, why))?;
        arrays.push((tensor.name.clone(), array));
    }
    for tensor in &graph.sparse_initializer {
        let name = tensor.values.as_ref().map_or("", |values| values.name.as_str());
        let array = read_sparse(tensor, external).map_err(|why| Error::array(path, name, why))?;
        arrays.push((name.to_owned(), array));
    }
    Ok(arrays)
}
