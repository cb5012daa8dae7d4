//! Files: safetensors, NumPy's npy and npz, checkpoints.
//!
//! Every reader takes its file for hostile: what is wrong comes back as an [`Error`] that names the file and the array;
//! nothing panics, and nothing is allocated for bytes that a file merely declares. Every writer is atomic: a new file is
//! synced before it is renamed over the old one.
//!
//! The weights of a net, out and in again:
//!
//! ```
//! use striate_io::{read_safetensors, write_safetensors};
//! use striate_nn::{Linear, Module};
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("fc.safetensors");
//! let trained = Linear::new(3, 2);
//! write_safetensors(&path, trained.state_dict(), &Default::default())?;
//! let net = Linear::new(3, 2);
//! net.load_state_dict(&read_safetensors(&path)?.arrays.into_iter().collect(), true)?;
//! assert!(net.weight.array().bits_eq(&trained.weight.array()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod atomic;
mod bytes;
mod checkpoint;
mod error;
mod graph;
mod input;
mod names;
mod npy;
mod npz;
pub mod onnx;
mod pth;
mod safetensors;
mod weights;
mod zip;

pub use atomic::{AtomicWriter, WriteEvent, WriteObserver, write_atomic, write_atomic_with};
pub use checkpoint::{
    Checkpoint, Latest, checkpoint_path, read_checkpoint, read_latest, write_checkpoint, write_checkpoint_with,
};
pub use error::{Error, Result, printable};
pub use graph::{parse_graph, read_graph, write_graph};
pub use names::fit_names;
pub use npy::{npy_bytes, parse_npy, read_npy, write_npy};
pub use npz::{read_npz, write_npz};
pub use pth::write_pth;
pub use safetensors::{Safetensors, parse_safetensors, read_safetensors, safetensors_bytes, write_safetensors};
pub use weights::{FileFormat, Weights, detect_format, parse_weights, read_weights};
