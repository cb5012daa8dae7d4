//! The scalar twin of every kernel: plain loops, generic over `f32` and `f64`, row-major NCHW like the graph.
//!
//! They are the oracle of the tests and the kernels of the interpreter. Obviously right comes before fast.
mod conv;
mod elementwise;
mod float;
mod index;
mod nms;
mod norm;
mod pad;
mod pool;
mod reduce;
mod resize;
mod roi;
mod sample;
mod shape;
mod update;

pub use conv::*;
pub use elementwise::*;
pub use float::{Float, reference_erf};
pub use index::*;
pub use nms::*;
pub use norm::*;
pub use pad::*;
pub use pool::*;
pub use reduce::*;
pub use resize::*;
pub use roi::*;
pub use sample::*;
pub use shape::*;
pub use update::*;
