//! The microkernel of the direct convolution: `MR` output pixels by `NV` vectors of output channels.
//!
//! The accumulators stay in registers through the whole sum. Each output is one chain of multiply-adds, over the taps in
//! order and the channels in order, so its bits depend neither on the tile that computes it nor on its place in one.

use super::choose::max_pixels;
use super::epilogue::Activation;
use super::stats::gated;
use crate::simd::{Isa, Kernel, Portable, Simd};

/// What one call computes: `tiles` tiles of MR pixels each, for one block of output channels.
///
/// All offsets are in floats. Output pixel `p` reads `run` consecutive floats from `x + x_off[p] + taps[t]` for each tap `t`,
/// and writes NV vectors (the last one `tail` lanes) to `y + y_off[p]`.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    /// Number of tiles; `x_off` and `y_off` hold `tiles * MR` entries.
    pub tiles: usize,
    pub x: *const f32,
    pub x_off: *const usize,
    pub taps: &'a [usize],
    pub run: usize,
    /// Packed filters of this block, [taps][run][NV * LANES].
    pub w: *const f32,
    pub y: *mut f32,
    pub y_off: *const usize,
    /// Valid lanes of the last vector.
    pub tail: usize,
    /// Bias of the block, or null.
    pub bias: *const f32,
    /// Residual, addressed like `y`, or null.
    pub residual: *const f32,
    /// Where this, addressed like `y`, is not between the bounds, the output is zero; or null.
    pub mask: *const f32,
    pub bounds: [f32; 2],
    /// Applied if it is hot, else left to the caller.
    pub activation: Activation,
    /// Outputs, residual and mask are fetched while the sums are computed.
    pub fetches: bool,
    pub ahead: Ahead<'a>,
}

impl Block<'_> {
    /// A sum over channels, written as it is.
    pub const BARE: Block<'static> = Block {
        tiles: 0,
        x: std::ptr::null(),
        x_off: std::ptr::null(),
        taps: &[0],
        run: 0,
        w: std::ptr::null(),
        y: std::ptr::null_mut(),
        y_off: std::ptr::null(),
        tail: 0,
        bias: std::ptr::null(),
        residual: std::ptr::null(),
        mask: std::ptr::null(),
        bounds: [0.0; 2],
        activation: Activation::None,
        fetches: false,
        ahead: Ahead { filters: &[], lines: 0 },
    };

    /// Rounds of the innermost loop in one tile.
    fn rounds(&self) -> usize {
        self.taps.len() * (self.run / UNROLL)
    }
}

/// Filters that will be wanted next. They are fetched to the second cache while this block is computed, a few lines with every
/// [`UNROLL`] channels: else the first tile that reads them waits for memory.
#[derive(Clone, Copy, Default)]
pub(super) struct Ahead<'a> {
    filters: &'a [f32],
    /// Lines fetched with every [`UNROLL`] channels.
    lines: usize,
}

/// Floats of a cache line.
const LINE: usize = 16;
/// Channels of one round of the innermost loop.
const UNROLL: usize = 4;

impl<'a> Ahead<'a> {
    pub fn new(filters: &'a [f32]) -> Self {
        Ahead { filters, lines: 0 }
    }

    /// At the pace that has all of them there after `rounds` rounds.
    fn paced(self, rounds: usize) -> Self {
        Ahead { lines: self.filters.len().div_ceil(LINE * rounds.max(1)), ..self }
    }

    /// What is left after `rounds` rounds.
    fn after(self, rounds: usize) -> Self {
        let left = self.filters.get(rounds * self.lines * LINE..).unwrap_or(&[]);
        Ahead { filters: left, lines: if left.is_empty() { 0 } else { self.lines } }
    }
}

/// [`Block`] with the tile's size: what the vectors run.
pub(super) struct Tile<'a, const MR: usize, const NV: usize>(pub Block<'a>);

impl<const MR: usize, const NV: usize> Kernel for Tile<'_, MR, NV> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let b = &self.0;
        for tile in 0..b.tiles {
            // SAFETY: `Block`'s offsets stay within x, w and y, which the driver checked.
            unsafe {
                if b.fetches {
                    fetch_outputs::<S, MR, NV>(s, b, b.y_off.add(tile * MR));
                }
                let acc = sum_tile::<S, MR, NV>(s, b, b.x_off.add(tile * MR), b.ahead.after(tile * b.rounds()));
                finish_tile::<S, MR, NV>(s, b, acc, b.y_off.add(tile * MR));
            }
        }
    }
}

/// Fetches what the tile's end reads and writes while its sums are computed: maps larger than the second cache are not in it.
///
/// # Safety
/// `y_off` has MR entries.
#[inline(always)]
unsafe fn fetch_outputs<S: Simd, const MR: usize, const NV: usize>(s: S, b: &Block, y_off: *const usize) {
    for base in [b.y.cast_const(), b.residual, b.mask] {
        // Asked once, and not for each line: a tile of few channels takes little longer than its fetches.
        if base.is_null() {
            continue;
        }
        for m in 0..MR {
            // SAFETY: by contract.
            let from = base.wrapping_add(unsafe { *y_off.add(m) });
            for v in 0..NV {
                s.prefetch(from.wrapping_add(v * S::LANES));
            }
        }
    }
}

/// One channel of all pixels: NV filter vectors, MR broadcasts, MR * NV multiply-adds.
///
/// # Safety
/// `w` has NV vectors, each pixel a float at `k`.
#[inline(always)]
unsafe fn step<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    acc: &mut [[S::V; NV]; MR],
    pixels: &[*const f32; MR],
    k: usize,
    w: *const f32,
) {
    // SAFETY: by contract.
    unsafe {
        let filters: [S::V; NV] = std::array::from_fn(|v| s.load(w.add(v * S::LANES)));
        for m in 0..MR {
            let value = s.splat(*pixels[m].add(k));
            for v in 0..NV {
                acc[m][v] = s.mul_add(value, filters[v], acc[m][v]);
            }
        }
    }
}

/// The sums of one tile.
///
/// # Safety
/// `x_off` has MR entries, all within the bounds that `Block` states.
#[inline(always)]
unsafe fn sum_tile<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    b: &Block,
    x_off: *const usize,
    ahead: Ahead,
) -> [[S::V; NV]; MR] {
    let width = NV * S::LANES;
    let mut acc = [[s.zero(); NV]; MR];
    // SAFETY: by contract.
    unsafe {
        let pixels: [*const f32; MR] = std::array::from_fn(|m| b.x.add(*x_off.add(m)));
        let (mut w, mut next) = (b.w, ahead.filters.as_ptr());
        for &tap in b.taps {
            let (mut k, end) = (tap, tap + b.run);
            while k + UNROLL <= end {
                for _ in 0..ahead.lines {
                    s.prefetch(next);
                    next = next.wrapping_add(LINE);
                }
                step::<S, MR, NV>(s, &mut acc, &pixels, k, w);
                step::<S, MR, NV>(s, &mut acc, &pixels, k + 1, w.add(width));
                step::<S, MR, NV>(s, &mut acc, &pixels, k + 2, w.add(2 * width));
                step::<S, MR, NV>(s, &mut acc, &pixels, k + 3, w.add(3 * width));
                k += UNROLL;
                w = w.add(UNROLL * width);
            }
            while k < end {
                step::<S, MR, NV>(s, &mut acc, &pixels, k, w);
                k += 1;
                w = w.add(width);
            }
        }
    }
    acc
}

/// Adds bias and residual, applies a hot activation and the mask, writes the tile.
///
/// # Safety
/// `y_off` has MR entries, all within the bounds that `Block` states.
#[inline(always)]
unsafe fn finish_tile<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    b: &Block,
    mut acc: [[S::V; NV]; MR],
    y_off: *const usize,
) {
    let lanes = |v: usize| if v + 1 == NV { b.tail } else { S::LANES };
    // SAFETY: by contract.
    unsafe {
        if !b.bias.is_null() {
            let bias: [S::V; NV] = std::array::from_fn(|v| s.load_partial(b.bias.add(v * S::LANES), lanes(v)));
            for row in &mut acc {
                for v in 0..NV {
                    row[v] = s.add(row[v], bias[v]);
                }
            }
        }
        if !b.residual.is_null() {
            for (m, row) in acc.iter_mut().enumerate() {
                let p = b.residual.add(*y_off.add(m));
                for (v, sum) in row.iter_mut().enumerate() {
                    *sum = s.add(*sum, s.load_partial(p.add(v * S::LANES), lanes(v)));
                }
            }
        }
        match b.activation {
            Activation::Relu => {
                let zero = s.zero();
                acc.iter_mut().flatten().for_each(|v| *v = s.max(zero, *v));
            }
            Activation::Clip { lo, hi } => {
                let (lo, hi) = (s.splat(lo), s.splat(hi));
                acc.iter_mut().flatten().for_each(|v| *v = s.min(hi, s.max(lo, *v)));
            }
            _ => {}
        }
        if !b.mask.is_null() {
            for (m, row) in acc.iter_mut().enumerate() {
                let p = b.mask.add(*y_off.add(m));
                for (v, sum) in row.iter_mut().enumerate() {
                    let gate = s.load_partial(p.add(v * S::LANES), lanes(v));
                    *sum = gated(s, *sum, gate, b.bounds);
                }
            }
        }
        for (m, row) in acc.iter().enumerate() {
            let p = b.y.add(*y_off.add(m));
            for (v, &sum) in row[..NV - 1].iter().enumerate() {
                s.store(p.add(v * S::LANES), sum);
            }
            let last = p.add((NV - 1) * S::LANES);
            if b.tail == S::LANES {
                s.store(last, row[NV - 1]);
            } else {
                s.store_partial(last, b.tail, row[NV - 1]);
            }
        }
    }
}

/// Runs `block` for `pixels` pixels and `nv` vectors: in tiles of two sizes that differ by one pixel, so that no tile is nearly empty.
#[inline(always)]
pub(super) fn run_pixels<S: Simd>(s: S, isa: Isa, (pixels, nv): (usize, usize), mut block: Block) {
    let tiles = pixels.div_ceil(max_pixels(isa, nv));
    let (small, large_tiles) = (pixels / tiles, pixels % tiles);
    block.ahead = block.ahead.paced(tiles * block.rounds());
    for (mr, tiles) in [(small + 1, large_tiles), (small, tiles - large_tiles)] {
        block.tiles = tiles;
        if tiles > 0 {
            run_block(s, mr, nv, block);
        }
        block.ahead = block.ahead.after(tiles * block.rounds());
        block.x_off = block.x_off.wrapping_add(mr * tiles);
        block.y_off = block.y_off.wrapping_add(mr * tiles);
    }
}

/// Runs `block` with tiles of `mr` pixels by `nv` vectors. Sizes that do not exist do nothing; `choose` never asks for one.
#[inline(always)]
fn run_block<S: Simd>(s: S, mr: usize, nv: usize, block: Block) {
    macro_rules! table {
        ($($nv:literal: $($mr:literal)*;)*) => {
            match (nv, mr) {
                $($(($nv, $mr) => s.vectorize(Tile::<$mr, $nv>(block)),)*)*
                _ => debug_assert!(false, "no tile of {mr} pixels by {nv} vectors"),
            }
        };
    }
    // `const`, so that the tiles of the other width are not even compiled
    if const { S::LANES == 16 } {
        table! {
            1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
            2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
            3: 1 2 3 4 5 6 7 8;
            4: 1 2 3 4 5 6;
        }
    } else {
        table! {
            1: 1 2 3 4 5 6 7 8 9 10 11 12;
            2: 1 2 3 4 5 6;
            3: 1 2 3 4;
        }
    }
}

/// Vector multiply-adds of one call of [`run_portable_tiles`].
pub(crate) const PORTABLE_TILES_MULTIPLY_ADDS: usize = TILES * DEPTH * 4 * 3;
const TILES: usize = 64;
const DEPTH: usize = 256;

/// Runs the largest portable tile with operands that stay in the first cache: the rate that it can have at most. Returns one of
/// the sums.
pub(crate) fn run_portable_tiles() -> f32 {
    const WIDTH: usize = 24;
    let data = std::hint::black_box([0.75f32; DEPTH * (4 + WIDTH)]);
    let mut y = [0.0f32; 4 * WIDTH];
    let x_off: [usize; 4 * TILES] = std::array::from_fn(|i| i % 4 * DEPTH);
    let y_off: [usize; 4 * TILES] = std::array::from_fn(|i| i % 4 * WIDTH);
    let block = Block {
        tiles: TILES,
        x: data.as_ptr(),
        x_off: x_off.as_ptr(),
        run: DEPTH,
        w: data[4 * DEPTH..].as_ptr(),
        y: y.as_mut_ptr(),
        y_off: y_off.as_ptr(),
        tail: 8,
        ..Block::BARE
    };
    Portable::new().vectorize(Tile::<4, 3>(block));
    y[0]
}
