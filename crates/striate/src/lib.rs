//! Convolutional neural networks: define, train, look inside, deploy.
//!
//! striate feels like `torch.nn`, without Python. A layer is plain data; applying it shows what it computes at once:
//!
//! ```
//! use striate::prelude::*;
//! let pool = MaxPool2d::new(2).stride(2);
//! let x = Array::from_vec([1, 1, 4, 4], (1..=16).map(|v| v as f32).collect())?;
//! assert_eq!(pool.apply(&x)?.to_string(), "tensor([[[[ 6.,  8.],\n          [14., 16.]]]])");
//! # Ok::<(), striate::nn::Error>(())
//! ```
//!
//! A net is a struct of layers, or a [`Sequential`](nn::Sequential):
//!
//! ```
//! use striate::prelude::*;
//! manual_seed(0);
//! let net = sequential![
//!     Conv2d::new(1, 32, 3).padding(1), ReLU::new(), MaxPool2d::new(2),
//!     Flatten::new(), Linear::new(32 * 14 * 14, 10),
//! ];
//! println!("{net}");
//! assert_eq!(net.num_parameters(), 32 * 9 + 32 + 32 * 14 * 14 * 10 + 10);
//! assert_eq!(net.state_dict().keys().next(), Some("0.weight"));
//! ```
//!
//! # How it works
//!
//! *Trace → (differentiate) → compile → replay.* A layer's `forward` records operations into a [`graph::Graph`];
//! gradients are a function from graph to graph; a graph is compiled once for its shapes and then replayed. One
//! representation trains, infers, explains and exports.
//!
//! | part | what it holds |
//! |---|---|
//! | [`graph`] | arrays, tensors, graphs, parameters; gradients; what runs graphs |
//! | [`nn`] | layers, initialisers, losses, optimizers, schedules |
//! | [`io`] | safetensors, npy, checkpoints |
//! | [`vision`] | data sets, transforms, loaders, metrics, models |
//! | [`train`] | the trainer |
#![forbid(unsafe_code)]

pub use striate_graph as graph;
pub use striate_io as io;
pub use striate_nn as nn;
pub use striate_train as train;
pub use striate_vision as vision;

pub use striate_nn::{display_module, sequential, visit_fields};

/// What most programs need: `use striate::prelude::*;`.
pub mod prelude {
    pub use crate::{display_module, sequential, visit_fields};
    pub use striate_graph::{Array, CompileOptions, DType, Graph, Mode, Parameter, Program, Session, Tensor, Trace};
    pub use striate_nn::layers::*;
    pub use striate_nn::{Module, StateDict, Visitor, assign_names, init, loss, manual_seed, optim};
}
