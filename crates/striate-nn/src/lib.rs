//! Layers, initialisers, losses, optimizers and schedules, under PyTorch's names and with its defaults.
//!
//! A layer is plain data: parameter cells and a few numbers. Its `forward` records operations into a trace; nothing is
//! computed until the graph runs.
//!
//! ```
//! use striate_nn::{Conv2d, MaxPool2d, Module, ReLU, sequential};
//! let net = sequential![Conv2d::new(1, 32, 3).padding(1), ReLU::new(), MaxPool2d::new(2)];
//! assert_eq!(net.num_parameters(), 32 * 9 + 32);
//! println!("{net}");
//! ```
#![forbid(unsafe_code)]

mod args;
mod error;
pub mod init;
pub mod layers;
pub mod loss;
mod module;
pub mod optim;
mod show;
mod state;

pub use args::{Padding, PaddingMode, Sizes};
pub use error::{Error, Result};
pub use init::{Draw, manual_seed};
pub use layers::*;
pub use module::{Module, Path, Visitor, assign_names, fresh_purpose};
pub use show::describe;
pub use state::{LoadReport, StateDict};

#[doc(hidden)]
pub use module::Field;
