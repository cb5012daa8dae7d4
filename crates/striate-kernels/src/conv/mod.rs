//! Convolution in two dimensions: activations NHWC, filters OIHW until packed.

mod bands;
mod choose;
mod columns;
mod depthwise;
mod direct;
mod engine;
mod epilogue;
mod forward;
mod input_grad;
mod lanes;
mod lanes_grad;
mod micro;
mod pack;
mod pair;
mod parts;
mod shape;
mod spread;
mod stats;
mod strided;
mod sum;
mod taps;
mod weight_grad;
mod winograd;

pub use engine::Algorithms;
pub use epilogue::{Activation, Epilogue};
pub use forward::{ForwardArgs, ForwardPlan};
pub use input_grad::{GradEpilogue, InputGradPlan};
pub use pair::{PairArgs, PairLayer, PairPlan};
pub use shape::{Conv2dShape, ConvShapeError};
pub use weight_grad::WeightGradPlan;

pub(crate) use micro::{PORTABLE_TILES_MULTIPLY_ADDS, run_portable_tiles};

fn check_len(what: &str, len: usize, want: usize) {
    assert!(len == want, "convolution: {what} has {len} floats, the shape asks for {want}");
}

/// The first `len` floats of `scratch` from a 64-byte boundary on. `scratch` has 16 more.
fn align_scratch(scratch: &mut [f32], len: usize) -> &mut [f32] {
    let have = scratch.len();
    let skip = scratch.as_ptr().align_offset(64).min(have);
    scratch[skip..]
        .get_mut(..len)
        .unwrap_or_else(|| panic!("convolution: scratch has {have} floats, {len} + 16 are needed"))
}

#[cfg(test)]
mod tests;
