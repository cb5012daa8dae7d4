//! ONNX: the messages of its files, their tensors as arrays, nets written as models, and models of others read as graphs.

mod export;
mod external;
mod file;
mod import;
pub mod proto;
mod tensor;
mod wire;

pub use export::{
    BoxSuppression, ByteInput, DEFAULT_OPSET, EXPORT_OPSETS, ExportError, Forward, INPUT_NAME, OnnxFile, OnnxOptions,
    Problem, export_graph, export_graph_of, export_onnx, export_onnx_of, graph_to_onnx, suppress_boxes, write_onnx,
};
pub(crate) use external::ExternalData;
pub(crate) use file::{read_arrays, read_model};

pub use file::{parse_proto, read_initializers, read_proto};
pub use import::{Dimension, OnnxInput, OnnxModel, OnnxNet, OnnxSession};
pub use tensor::{array_to_tensor, data_type, dtype_of, tensor_to_array};
