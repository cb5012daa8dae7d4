//! The one mapping from a `Random` node to its numbers, which every executor shares.
//!
//! Element `i` of a node, counted in row-major order of its logical shape (NCHW, whatever the layout in memory), is
//! `draw(stream_key(seed, stream), step, i)` where `draw` is [`rng::uniform`], [`rng::normal`], or for a mask `1 / keep`
//! (divided in f32) where [`rng::uniform`] is below `keep`, else 0. Nothing else enters: not the shape, not the place of the
//! node in the graph, not the number of threads. An executor with another layout asks for single elements or for runs of
//! them.

use crate::RandomKind;
use striate_kernels::rng;

/// Fills `out` with elements `offset .. offset + out.len()`, in logical order, of what a node draws at a step of a run.
///
/// ```
/// use striate_graph::{RandomKind, fill_random, random_element};
/// let kind = RandomKind::Mask { keep: 0.8 };
/// let mut out = [0.0; 8];
/// fill_random(kind, (0, "dropout:fc"), 3, 16, &mut out);
/// assert_eq!(out[5], random_element(kind, (0, "dropout:fc"), 3, 21));
/// ```
pub fn fill_random(kind: RandomKind, (seed, stream): (u64, &str), step: u64, offset: u64, out: &mut [f32]) {
    let key = rng::stream_key(seed, stream);
    match kind {
        RandomKind::Uniform => rng::fill_uniform(out, key, step, offset),
        RandomKind::Normal => rng::fill_normal(out, key, step, offset),
        RandomKind::Mask { keep } => rng::fill_bernoulli(out, key, step, offset, (keep, 1.0 / keep)),
    }
}

/// One element, counted in logical order, of what a node draws at a step of a run. Same bits as [`fill_random`].
pub fn random_element(kind: RandomKind, (seed, stream): (u64, &str), step: u64, element: u64) -> f32 {
    let key = rng::stream_key(seed, stream);
    match kind {
        RandomKind::Uniform => rng::uniform(key, step, element),
        RandomKind::Normal => rng::normal(key, step, element),
        RandomKind::Mask { keep } if rng::bernoulli(key, step, element, keep) => 1.0 / keep,
        RandomKind::Mask { .. } => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_are_the_single_elements() {
        for kind in [RandomKind::Uniform, RandomKind::Normal, RandomKind::Mask { keep: 0.3 }] {
            let mut out = [0.0; 37];
            fill_random(kind, (7, "purpose:layer"), 11, 5, &mut out);
            for (i, value) in out.iter().enumerate() {
                let single = random_element(kind, (7, "purpose:layer"), 11, 5 + i as u64);
                assert_eq!(value.to_bits(), single.to_bits(), "{kind:?} element {i}");
            }
        }
    }
}
