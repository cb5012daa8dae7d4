//! From a graph to a program: layout, fusion, choice of kernels, memory.
//!
//! 1. `fuse` finds which nodes one step can compute together.
//! 2. `lower` turns nodes into steps, values into buffers, and puts a permute at each border of layouts.
//! 3. `schedule` moves each update to the first place where nothing needs the old value any more.
//! 4. `memory` gives each buffer its place in the one arena.

pub(crate) mod fuse;
pub(crate) mod lower;
mod lower_conv;
mod lower_fast;
mod lower_moves;
mod lower_norm;
mod lower_windows;
pub(crate) mod memory;
pub(crate) mod packed;
mod pairs;
mod program;
pub(crate) mod schedule;
mod slots;
pub(crate) mod step;
pub(crate) mod value;

pub use program::{CompileOptions, Device, Program};
