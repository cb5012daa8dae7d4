//! What is done to outputs just written: activations that are too large for the tile, masks, and batch-norm statistics.

use super::bands::Bands;
use super::direct::Buffers;
use super::epilogue::Activation;
use crate::mem::DisjointMut;
use crate::simd::Simd;
use std::ops::Range;

/// The most pixels of a block of statistics.
const MAX_BLOCK: usize = 4096;
/// Numbers that a block leaves of each channel.
pub(super) const PARTS: usize = 3;
/// Pixels whose mean and squares are taken in registers.
const GROUP: usize = 8;
/// Pixels whose sums are one chain; a multiple of [`GROUP`].
const PART: usize = 512;

/// Outputs in the cache: `lanes` channels at each of `offsets`.
struct Written<'a> {
    y: *mut f32,
    offsets: &'a [usize],
    lanes: usize,
}

/// Outputs of one band and some neighbouring channels, all written; where they lie in the destination.
pub(super) struct Done<'a> {
    /// Where the first is, and from there each.
    pub at: usize,
    pub offsets: &'a [usize],
    /// The first channel, counted through all groups, how many, and of how many in all.
    pub channel: usize,
    pub lanes: usize,
    pub channels: usize,
}

impl Done<'_> {
    fn written(&self, b: &Buffers) -> Written<'_> {
        Written { y: b.y.as_mut_ptr().wrapping_add(self.at), offsets: self.offsets, lanes: self.lanes }
    }

    /// What tiles leave to do: an activation that is not hot, and the mask.
    ///
    /// # Safety
    /// The outputs are the caller's alone; the mask has as many.
    #[inline(always)]
    pub unsafe fn finish<S: Simd>(&self, s: S, b: &Buffers) {
        // SAFETY: by contract.
        unsafe {
            if !b.activation.is_hot() {
                activate(s, &self.written(b), b.activation);
            }
            if let Some((values, bounds)) = b.mask {
                mask(s, &self.written(b), values.as_ptr().wrapping_add(self.at), bounds);
            }
        }
    }

    /// The statistics of band `index`, where they are wanted.
    ///
    /// # Safety
    /// The outputs are the caller's alone, and so is their part of the partial statistics.
    #[inline(always)]
    pub unsafe fn statistics<S: Simd>(&self, s: S, b: &Buffers, bands: &Bands, index: usize) {
        if let Some(partials) = b.partials {
            let first = b.first_block + index * bands.stat_blocks_per_band();
            // SAFETY: by contract.
            unsafe { block_statistics(s, &self.written(b), partials, first, self.channels, self.channel) };
        }
    }
}

/// Sizes of the blocks that `pixels` are cut into.
pub(super) fn split(pixels: usize) -> impl Iterator<Item = usize> {
    let blocks = pixels.div_ceil(MAX_BLOCK);
    (0..blocks).map(move |b| pixels.min((b + 1) * MAX_BLOCK) - b * MAX_BLOCK)
}

/// The blocks of a band of `pixels`, where the largest band has `count` blocks: those that it lacks are empty.
pub(super) fn split_to(pixels: usize, count: usize) -> impl Iterator<Item = usize> {
    split(pixels).chain(std::iter::repeat(0)).take(count)
}

/// Applies `activation` in place.
///
/// # Safety
/// The outputs are the caller's alone.
#[inline(always)]
unsafe fn activate<S: Simd>(s: S, written: &Written, activation: Activation) {
    // Which one it is, is asked once a pass and not once a vector, for those that nets are made of.
    macro_rules! pass {
        ($activation:expr) => {
            for &offset in written.offsets {
                for c in (0..written.lanes).step_by(S::LANES) {
                    let n = written.lanes - c;
                    // SAFETY: by contract; `load_partial` and `store_partial` stop at `lanes`.
                    unsafe {
                        let p = written.y.add(offset + c);
                        s.store_partial(p, n, $activation.apply_vector(s, s.load_partial(p, n)));
                    }
                }
            }
        };
    }
    match activation {
        Activation::Silu => pass!(Activation::Silu),
        Activation::Hardswish => pass!(Activation::Hardswish),
        Activation::Gelu => pass!(Activation::Gelu),
        other => pass!(other),
    }
}

/// Zero where `mask`, addressed like the outputs, is not above the first bound and below the second.
///
/// # Safety
/// The outputs are the caller's alone, and `mask` is readable where they are.
#[inline(always)]
unsafe fn mask<S: Simd>(s: S, written: &Written, mask: *const f32, bounds: [f32; 2]) {
    for &offset in written.offsets {
        for c in (0..written.lanes).step_by(S::LANES) {
            let n = written.lanes - c;
            // SAFETY: by contract; `load_partial` and `store_partial` stop at `lanes`.
            unsafe {
                let p = written.y.add(offset + c);
                let (y, gate) = (s.load_partial(p, n), s.load_partial(mask.add(offset + c), n));
                s.store_partial(p, n, gated(s, y, gate, bounds));
            }
        }
    }
}

/// `y` where `gate` is between the bounds, else zero.
#[inline(always)]
pub(super) fn gated<S: Simd>(s: S, y: S::V, gate: S::V, [low, high]: [f32; 2]) -> S::V {
    let below = s.select(s.lt(gate, s.splat(high)), y, s.zero());
    s.select(s.gt(gate, s.splat(low)), below, s.zero())
}

/// Mean and centred sum of squares of each channel, for each block of pixels, to `partials` [blocks][3][channels]: an origin
/// near the mean, the mean's distance from it, and the squares.
///
/// A mean kept as one f32 would be rounded by far more than the blocks' means differ where it is large.
///
/// # Safety
/// The outputs are the caller's alone, and so is the part of `partials` from block `first` on for these channels.
#[inline(always)]
unsafe fn block_statistics<S: Simd>(
    s: S,
    written: &Written,
    partials: DisjointMut<f32>,
    first: usize,
    channels: usize,
    channel: usize,
) {
    for (block, pixels) in written.offsets.chunks(MAX_BLOCK).enumerate() {
        for c in (0..written.lanes).step_by(S::LANES) {
            let n = (written.lanes - c).min(S::LANES);
            let at = (first + block) * PARTS * channels + channel + c;
            // SAFETY: by contract.
            unsafe {
                for (part, value) in moments(s, written.y.add(c), pixels, n).into_iter().enumerate() {
                    let at = at + part * channels;
                    s.store_partial(partials.slice_mut(at..at + n).as_mut_ptr(), n, value);
                }
            }
        }
    }
}

/// Sum of the lanes of 8 vectors, pixel by pixel, in a tree.
#[inline(always)]
fn sum_group<S: Simd>(s: S, v: &[S::V; GROUP]) -> S::V {
    let pairs: [S::V; 4] = std::array::from_fn(|j| s.add(v[j], v[j + 4]));
    s.add(s.add(pairs[0], pairs[2]), s.add(pairs[1], pairs[3]))
}

/// Origin, distance of the mean from it, and centred sum of squares of `n` channels at `y + offset`, over all offsets.
///
/// All values are taken relative to the mean of the first 8 (of all, where there are fewer), so a mean that is large beside the deviation costs no digits.
/// Groups of 8 pixels are centred in registers and joined by the formula of Chan, Golub and LeVeque (1979).
///
/// # Safety
/// `n` floats at each offset are readable.
#[inline(always)]
unsafe fn moments<S: Simd>(s: S, y: *const f32, offsets: &[usize], n: usize) -> [S::V; PARTS] {
    // SAFETY: by contract.
    let load = |offset: usize| unsafe { s.load_partial(y.add(offset), n) };
    let eighth = s.splat(1.0 / GROUP as f32);
    let first = load(offsets[0]);
    let head = &offsets[..offsets.len().min(GROUP)];
    let from_first = head.iter().fold(s.zero(), |sum, &offset| s.add(sum, s.sub(load(offset), first)));
    let origin = s.add(first, s.div(from_first, s.splat(head.len() as f32)));
    let (mut sum, mut within, mut between) = (s.zero(), s.zero(), s.zero());
    // Sums of sums: one chain over all pixels would lose digits where the first pixels are far from the mean.
    for part in offsets.chunks(PART) {
        let (mut part_sum, mut part_within, mut part_between) = (s.zero(), s.zero(), s.zero());
        let mut groups = part.chunks_exact(GROUP);
        for group in &mut groups {
            let d: [S::V; GROUP] = std::array::from_fn(|j| s.sub(load(group[j]), origin));
            let total = sum_group(s, &d);
            let mean = s.mul(total, eighth);
            let mut own = [s.zero(); 2];
            for j in 0..GROUP {
                let e = s.sub(d[j], mean);
                own[j % 2] = s.mul_add(e, e, own[j % 2]);
            }
            part_within = s.add(part_within, s.add(own[0], own[1]));
            part_sum = s.add(part_sum, total);
            part_between = s.mul_add(total, mean, part_between);
        }
        for &offset in groups.remainder() {
            let d = s.sub(load(offset), origin);
            part_sum = s.add(part_sum, d);
            part_between = s.mul_add(d, d, part_between);
        }
        sum = s.add(sum, part_sum);
        within = s.add(within, part_within);
        between = s.add(between, part_between);
    }
    let shift = s.div(sum, s.splat(offsets.len() as f32));
    // Minus count * shift²; the difference of two sums of squares may not fall below zero.
    let between = s.max(s.zero(), s.neg_mul_add(sum, shift, between));
    [origin, shift, s.add(within, between)]
}

/// Joins the blocks' partial statistics in float64, in the order of the blocks: `out` [2, channels] gets mean and biased
/// variance of the channels in `range`. `counts` has the pixels of each block; of empty ones nothing is read.
pub(super) fn merge(partials: &[f32], counts: &[usize], channels: usize, range: Range<usize>, out: [&mut [f32]; 2]) {
    let total: usize = counts.iter().sum();
    let [means, variances] = out;
    for (i, c) in range.enumerate() {
        let block = |b: usize, part: usize| partials[(PARTS * b + part) * channels + c] as f64;
        let block_mean = |b: usize| block(b, 0) + block(b, 1);
        let blocks = || counts.iter().enumerate().filter(|(_, n)| **n > 0);
        let sum: f64 = blocks().map(|(b, &n)| n as f64 * block_mean(b)).sum();
        let mean = sum / total as f64;
        let squares: f64 = blocks()
            .map(|(b, &n)| {
                let d = block_mean(b) - mean;
                block(b, 2) + n as f64 * d * d
            })
            .sum();
        means[i] = mean as f32;
        variances[i] = (squares / total as f64) as f32;
    }
}
