//! Convolution in two dimensions: activations NHWC, filters OIHW until packed.

mod choose;
mod direct;
mod epilogue;
mod forward;
mod input_grad;
mod micro;
mod pack;
mod shape;
mod stats;
mod weight_grad;

pub use epilogue::{Activation, Epilogue};
pub use forward::{ForwardArgs, ForwardPlan};
pub use input_grad::InputGradPlan;
pub use shape::{Conv2dShape, ConvShapeError};
pub use weight_grad::WeightGradPlan;

use direct::Direct;
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
fn share_items(directs: &[&Direct], index: usize, count: usize, mut run: impl FnMut(usize, Range<usize>)) {
    let total: usize = directs.iter().map(|d| d.items() * d.item_cost()).sum();
    // The cost before this part, and before the next.
    let (start, end) = (total / count * index, if index + 1 == count { total } else { total / count * (index + 1) });
    let mut before = 0;
    for (which, direct) in directs.iter().enumerate() {
        let cost = direct.item_cost().max(1);
        let item =
            |limit: usize| (limit.saturating_sub(before) + cost / 2).checked_div(cost).unwrap_or(0).min(direct.items());
        let last = if index + 1 == count { direct.items() } else { item(end) };
        let range = item(start)..last;
        if !range.is_empty() {
            run(which, range);
        }
        before += direct.items() * direct.item_cost();
    }
}

#[cfg(test)]
mod tests;
