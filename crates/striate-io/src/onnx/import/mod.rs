//! Models of others: from an ONNX file to a graph of our operations.
//!
//! [`OnnxModel::open`] reads a file once. [`OnnxModel::graph`] traces it for given shapes of its inputs: one walk over the nodes, in which a
//! handler for each operator (`table.rs`, `ops_*.rs`) records operations. Whatever follows from shapes and constants alone is
//! computed on the way, so that shape arithmetic leaves no trace. Where a handler needs a value that only a run can give, the
//! trace ends, the program so far runs, and the model is traced again with what is now known ([`OnnxSession`]).

mod attributes;
mod binder;
mod call;
mod fold;
mod model;
mod net;
mod ops_bits;
mod ops_conv;
mod ops_einsum;
mod ops_index;
mod ops_math;
mod ops_matrix;
mod ops_move;
mod ops_norm;
mod ops_pool;
mod ops_quant;
mod ops_resize;
mod ops_sample;
mod ops_shape;
mod session;
mod table;
mod value;
mod windows;

pub use model::{Dimension, OnnxInput, OnnxModel};
pub use net::OnnxNet;
pub use session::OnnxSession;
