//! Convolution in two dimensions: activations NHWC, filters OIHW until packed.

mod bands;
mod choose;
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
mod shape;
mod spread;
mod stats;
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

use engine::Engine;
use std::ops::Range;

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

/// Cuts the items of several sums, one after the other, into `count` parts of equal cost, and hands part `index` to `run`.
fn share_items(engines: &[&Engine], index: usize, count: usize, mut run: impl FnMut(usize, Range<usize>)) {
    let total: usize = engines.iter().map(|e| e.items() * e.item_cost()).sum();
    // The cost before this part, and before the next.
    let (start, end) = (total / count * index, if index + 1 == count { total } else { total / count * (index + 1) });
    let mut before = 0;
    for (which, engine) in engines.iter().enumerate() {
        let cost = engine.item_cost().max(1);
        let item =
            |limit: usize| (limit.saturating_sub(before) + cost / 2).checked_div(cost).unwrap_or(0).min(engine.items());
        let last = if index + 1 == count { engine.items() } else { item(end) };
        let range = item(start)..last;
        if !range.is_empty() {
            run(which, range);
        }
        before += engine.items() * engine.item_cost();
    }
}

#[cfg(test)]
mod tests;
