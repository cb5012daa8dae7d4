//! The file: one, or two where the weights are more than a protobuf can hold.

use crate::onnx::proto::{DataLocation, ModelProto, StringStringEntryProto, TensorProto};
use crate::{Result, write_atomic, write_atomic_with};
use prost::Message;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnnxFile {
    /// Bytes of both files.
    pub bytes: u64,
    /// The file of the weights, where they stand beside the model.
    pub data: Option<PathBuf>,
}

/// A protobuf ends below 2 GiB; the rest is for everything that is no weight.
const MOST_INSIDE: u64 = (2 << 30) - (64 << 20);

/// Where the data of a tensor may begin.
const ALIGNMENT: u64 = 64;

/// Tensors below this stay in the model: shapes and factors must be at hand when it is read.
const SMALL: usize = 1024;

/// Writes a model, whole or not at all. Weights of more than a protobuf can hold go into `NAME.data` beside it.
///
/// # Errors
/// What the disk says.
pub fn write_onnx(path: &Path, model: ModelProto) -> Result<OnnxFile> {
    write_with_limit(path, model, MOST_INSIDE)
}

pub(super) fn write_with_limit(path: &Path, mut model: ModelProto, limit: u64) -> Result<OnnxFile> {
    let weights: u64 = tensors(&mut model).iter().map(|tensor| length(tensor) as u64).sum();
    if weights <= limit {
        let bytes = model.encode_to_vec();
        write_atomic(path, &bytes)?;
        return Ok(OnnxFile { bytes: bytes.len() as u64, data: None });
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned() + ".data").unwrap_or_default();
    let data = path.with_file_name(&name);
    let mut end = 0u64;
    write_atomic_with(&data, &mut |_| Ok(()), |writer| {
        for tensor in tensors(&mut model).into_iter().filter(|tensor| length(tensor) >= SMALL) {
            let padding = end.next_multiple_of(ALIGNMENT) - end;
            writer.write_all(&[0; ALIGNMENT as usize][..padding as usize])?;
            let raw = tensor.raw_data.take().unwrap_or_default();
            writer.write_all(&raw)?;
            place(tensor, &name, end + padding, raw.len() as u64);
            end += padding + raw.len() as u64;
        }
        Ok(())
    })?;
    let bytes = model.encode_to_vec();
    write_atomic(path, &bytes)?;
    Ok(OnnxFile { bytes: bytes.len() as u64 + end, data: Some(data) })
}

fn tensors(model: &mut ModelProto) -> Vec<&mut TensorProto> {
    model.graph.iter_mut().flat_map(|graph| graph.initializer.iter_mut()).collect()
}

fn length(tensor: &TensorProto) -> usize {
    tensor.raw_data.as_ref().map_or(0, |raw| raw.len())
}

/// Says where a tensor's data lie.
fn place(tensor: &mut TensorProto, file: &str, offset: u64, length: u64) {
    let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
    tensor.data_location = DataLocation::External as i32;
    tensor.external_data = vec![
        entry("location", file.to_owned()),
        entry("offset", offset.to_string()),
        entry("length", length.to_string()),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{array_to_tensor, read_initializers, read_proto};
    use striate_graph::Array;

    #[test]
    fn weights_that_do_not_fit_stand_beside_the_model() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.onnx");
        let arrays = [("a", Array::arange([301])), ("small", Array::arange([2])), ("b", Array::arange([20, 20]))];
        let mut model = ModelProto { graph: Some(Default::default()), ..Default::default() };
        let initializer = arrays.iter().map(|(name, array)| array_to_tensor(name, array)).collect();
        model.graph.as_mut().unwrap().initializer = initializer;
        let file = write_with_limit(&path, model, 2000).unwrap();
        let data = folder.path().join("large.onnx.data");
        assert_eq!(file.data.as_ref(), Some(&data));
        let length = |path: &Path| std::fs::metadata(path).unwrap().len();
        assert_eq!(file.bytes, length(&path) + length(&data));
        let back = read_proto(&path).unwrap();
        let read = read_initializers(back.graph.as_ref().unwrap(), &path).unwrap();
        for ((name, array), (found_name, found)) in arrays.iter().zip(&read) {
            assert!(name == found_name && array.bits_eq(found), "{name}");
        }
    }
}
