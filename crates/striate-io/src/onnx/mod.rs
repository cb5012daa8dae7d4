//! ONNX: the messages of its files, their tensors as arrays, and nets written as models.

mod export;
mod external;
mod file;
pub mod proto;
mod tensor;
mod wire;

pub use export::{
    ByteInput, DEFAULT_OPSET, EXPORT_OPSETS, ExportError, INPUT_NAME, OnnxFile, OnnxOptions, Problem, export_graph,
    export_onnx, graph_to_onnx, replay_onnx, write_onnx,
};
pub use file::{parse_proto, read_initializers, read_proto};
pub use tensor::{array_to_tensor, data_type, dtype_of, tensor_to_array};
