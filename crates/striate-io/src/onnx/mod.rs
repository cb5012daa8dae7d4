//! ONNX: the messages of its files, and their tensors as arrays.

mod external;
mod file;
pub mod proto;
mod tensor;
mod wire;

pub use file::{parse_proto, read_initializers, read_proto};
pub use tensor::{array_to_tensor, data_type, dtype_of, tensor_to_array};
