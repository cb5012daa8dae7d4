//! Graphs of CNN operations: trace, differentiate, compile, run.
//!
//! An [`Array`] is concrete data; a [`Tensor`] is a symbolic handle into a [`Graph`] that is being traced and never holds
//! data; a [`Parameter`] is a shared cell that layers hold and programs read and update.
//!
//! ```
//! use striate_graph::{Array, Mode, Trace};
//! let trace = Trace::new(Mode::Eval);
//! let x = trace.input("x", &[1, 3], striate_graph::DType::F32);
//! let y = (&x * 2.0).relu();
//! assert_eq!(y.shape().dims(), &[1, 3]);
//! ```
#![deny(unsafe_code)]

mod array;
#[cfg(feature = "ndarray")]
mod convert;
mod cut;
mod display;
mod dtype;
mod error;
mod grad;
mod graph;
mod host;
mod infer;
mod op;
mod param;
mod pass;
mod plan;
mod print;
mod run;
mod shape;
mod tensor;
mod tensor_ops;
mod value_shapes;
mod verify;

pub use array::{Array, Buffer, Element};
pub use display::PrintOptions;
pub use dtype::DType;
pub use error::{Error, Result, ShapeError};
pub use grad::{gradients, gradients_from};
pub use graph::{Graph, Mode, Node, NodeId, Origin, nearest};
pub use host::{host_function, register_host_function};
pub use op::{ConvAttrs, HostFunction, Op, RandomKind};
pub use param::{ParamKind, Parameter};
pub use plan::{CompileOptions, Device, Program};
pub use run::{
    Precision, Profile, ProgramCache, RunOptions, Session, StepProfile, fill_random, first_non_finite, interpret,
    interpret_observed, random_element,
};
pub use shape::Shape;
pub use tensor::{Scope, Tensor, Trace};
pub use value_shapes::{non_max_suppression, non_zero};

pub use striate_kernels::kinds::{
    AvgDivisor, BinaryKind, GridSampleSpec, Interpolation, PadMode, ReduceKind, ResizeSpec, RoiAlignSpec, SampleMode,
    SamplePadding, ScatterMode, UnaryKind, UpdateKind, Windows,
};

/// What non-maximum suppression drops.
pub use striate_kernels::reference::NmsSpec;

/// Counter-based random numbers, for initial values and augmentation.
pub use striate_kernels::rng;
/// Threads and instruction sets, for those who run programs.
pub mod machine {
    pub use striate_kernels::cpu::measure_peak;
    #[cfg(target_os = "linux")]
    pub use striate_kernels::heap::HugePages;
    pub use striate_kernels::heap::advise_heap;
    pub use striate_kernels::memory::memory_limit;
    pub use striate_kernels::simd::{Isa, IsaError, available_isas, check_isa_env, isa};
    pub use striate_kernels::threads::{Team, default_threads};
}
