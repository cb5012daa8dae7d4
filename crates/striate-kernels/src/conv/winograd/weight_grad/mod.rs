//! The gradient of 3x3 filters by the adjoint of F(4x4, 3x3): `dg = Gᵀ [(Bᵀ d B) ⊙ (A dy Aᵀ)] G`, summed over tiles before the
//! last transform (Lavin and Gray 2016, section 4; the transposes of `lines`).
//!
//! The transformed tiles of the input and of the output's gradient stand as matrices, [positions][tiles][channels]; over tiles
//! the point-wise products are 36 products of a matrix's transpose and a matrix, with 4 times fewer multiply-adds than sliding.
//!
//! Bits: a strip is a range of tiles that the shape alone decides, at most 4096 pixels. Each of its sums is one chain over its
//! tiles; after the last transform the strips are added by a pairwise tree.

mod run;

use super::{LINE, scattered};
use crate::conv::shape::Conv2dShape;
use crate::simd::Isa;
use crate::threads::{Team, part};
use run::{Products, Transforms};
use std::ops::Range;

/// Tiles are of `EDGE x EDGE` outputs and `AREA` points.
const EDGE: usize = 4;
const AREA: usize = (EDGE + 2) * (EDGE + 2);
/// Most tiles of a strip: 4096 pixels.
const MOST_TILES: usize = 4096 / (EDGE * EDGE);
/// Floats of the transformed tiles of a strip: they stay in the last cache, or in the second where few products are made of
/// each.
const STRIP_FLOATS: usize = 2 << 20;
const SMALL_STRIP_FLOATS: usize = 256 << 10;
/// Fewest tiles of a strip for which the last transform of its sums is cheap.
const LEAST_TILES: usize = 32;
/// Fewer pixels than this, and the rounding errors of the transforms show: over 4 times those of a plain sum.
const LEAST_PIXELS: usize = 384;
/// Channels of a block of sums, in each direction.
const BLOCK: usize = 64;

/// A planned gradient of 3x3 filters.
#[derive(Clone, Debug)]
pub(in crate::conv) struct WinogradWeightGrad {
    shape: Conv2dShape,
    isa: Isa,
    /// Tiles of an image, and of all.
    grid: [usize; 2],
    tiles: usize,
    strips: usize,
    /// Floats from one tile to the next and from one position to the next: input, gradient of the output.
    x: [usize; 2],
    dy: [usize; 2],
    /// Sums of the tree below the whole.
    levels: usize,
}

/// The memory of a run.
#[derive(Clone, Copy)]
struct Memory {
    x: *const f32,
    dy: *const f32,
    dw: *mut f32,
    /// Transformed tiles of a strip.
    inputs: *mut f32,
    outputs: *mut f32,
    /// Partial sums, [levels][vectors of output channels][input channels][taps][lanes].
    sums: *mut f32,
    /// Each thread's own.
    threads: *mut f32,
}

// SAFETY: x and dy are only read; in each phase of a run the threads write disjoint parts of the others.
unsafe impl Sync for Memory {}

impl WinogradWeightGrad {
    /// The plan, where it is faster than outer products of pixels and about as exact.
    pub fn choose(shape: &Conv2dShape, isa: Isa) -> Option<Self> {
        (suits(shape) && pays(shape, isa)).then(|| WinogradWeightGrad::new(*shape, isa))
    }

    pub(super) fn new(shape: Conv2dShape, isa: Isa) -> Self {
        let grid = [shape.oh(), shape.ow()].map(|size| size.div_ceil(EDGE));
        let tiles = shape.n * grid[0] * grid[1];
        let [ic, oc] = [shape.ic, shape.oc].map(tile_pitch);
        let strips = tiles.div_ceil(most_tiles(&shape));
        let longest = (0..strips).map(|strip| part(tiles, strip, strips).len()).max().unwrap_or(0);
        let levels = (0..strips).map(|strip| strip.count_ones() as usize).max().unwrap_or(0) + 1;
        let pitches = |pitch: usize| [pitch, scattered(longest * pitch)];
        WinogradWeightGrad { shape, isa, grid, tiles, strips, x: pitches(ic), dy: pitches(oc), levels }
    }

    /// The kernel's name.
    pub fn kernel_name(&self) -> String {
        let (mr, nv) = tile_of(self.isa);
        format!("conv2d_winograd4x4_weight_grad_f32_{mr}x{}_{}", nv * self.isa.lanes(), self.isa.name())
    }

    /// Vectors of output channels.
    fn vectors(&self) -> usize {
        self.shape.oc.div_ceil(self.isa.lanes())
    }

    /// Floats of one level of sums.
    fn level_floats(&self) -> usize {
        self.vectors() * self.vector_floats()
    }

    /// Floats of the sums of one vector of output channels.
    fn vector_floats(&self) -> usize {
        self.shape.ic * 9 * self.isa.lanes()
    }

    /// Floats of each part of the scratch: transformed inputs, gradients, sums, and one thread's.
    fn parts(&self) -> [usize; 4] {
        // Tiles of input channels may reach beyond the last one.
        let sums = if self.strips > 1 { self.levels * self.level_floats() } else { 0 };
        [AREA * self.x[1] + LINE, AREA * self.dy[1], sums, Products::scratch_len(self.isa)]
            .map(|floats| floats.next_multiple_of(LINE))
    }

    /// Floats of scratch that [`WinogradWeightGrad::run`] needs with a team of `threads`.
    pub fn scratch_len(&self, threads: usize) -> usize {
        let [inputs, outputs, sums, thread] = self.parts();
        inputs + outputs + sums + threads * thread
    }

    /// Computes `dw`; the lengths are those of the shape and of [`WinogradWeightGrad::scratch_len`].
    pub fn run(&self, team: &Team, [x, dy]: [&[f32]; 2], dw: &mut [f32], scratch: &mut [f32]) {
        let [inputs, outputs, sums, thread] = self.parts();
        let scratch = scratch.as_mut_ptr();
        let memory = Memory {
            x: x.as_ptr(),
            dy: dy.as_ptr(),
            dw: dw.as_mut_ptr(),
            inputs: scratch,
            outputs: scratch.wrapping_add(inputs),
            sums: scratch.wrapping_add(inputs + outputs),
            threads: scratch.wrapping_add(inputs + outputs + sums),
        };
        let memory = &memory;
        for strip in 0..self.strips {
            let range = part(self.tiles, strip, self.strips);
            team.run(|index, count| {
                let tiles = part(range.len(), index, count);
                self.isa.dispatch(Transforms { plan: self, memory, first: range.start, tiles });
            });
            team.run(|index, count| {
                let blocks = self.blocks(count);
                let scratch = memory.threads.wrapping_add(index * thread);
                for block in part(blocks[0] * blocks[1], index, count) {
                    let (outputs, inputs) = self.block(block, blocks);
                    let tiles = range.len();
                    self.isa.dispatch(Products { plan: self, memory, strip, tiles, outputs, inputs, scratch });
                }
            });
        }
    }

    /// Into how many blocks the sums are cut for so many threads: of output channels, of input channels. No result depends
    /// on it.
    fn blocks(&self, threads: usize) -> [usize; 2] {
        let outputs = self.vectors().div_ceil(BLOCK / self.isa.lanes());
        let inputs = |channels: usize| self.shape.ic.div_ceil(channels);
        // The part of the threads that waits for the last, and what small blocks cost.
        let cost = |channels: &usize| {
            let blocks = outputs * inputs(*channels);
            (blocks.div_ceil(threads) * channels * (BLOCK + 8)) + blocks.div_ceil(threads) * BLOCK * 8
        };
        let channels = [BLOCK, BLOCK / 2, BLOCK / 4].into_iter().min_by_key(cost).unwrap_or(BLOCK);
        [outputs, inputs(channels)]
    }

    /// Vectors of output channels and input channels of a block.
    fn block(&self, index: usize, [outputs, inputs]: [usize; 2]) -> (Range<usize>, Range<usize>) {
        let lines = self.shape.ic.div_ceil(LINE);
        let channels = part(lines, index % inputs, inputs);
        let channels = channels.start * LINE..self.shape.ic.min(channels.end * LINE);
        (part(self.vectors(), index / inputs, outputs), channels)
    }
}

/// Input channels and vectors of output channels of the microkernel. The former divide [`LINE`].
const fn tile_of(isa: Isa) -> (usize, usize) {
    match isa {
        Isa::Avx512 => (8, 2),
        Isa::Avx2 => (4, 2),
        Isa::Portable => (4, 1),
    }
}

/// Floats from one tile to the next: whole vectors, and no multiple of 4096 bytes comes up soon.
fn tile_pitch(channels: usize) -> usize {
    scattered(channels.next_multiple_of(LINE))
}

/// Most tiles of a strip.
fn most_tiles(s: &Conv2dShape) -> usize {
    let tile = AREA * (tile_pitch(s.ic) + tile_pitch(s.oc));
    // A transformed float is written and read for so many vectors of products.
    let few = s.ic * s.oc < 64 * (s.ic + s.oc);
    let floats = if few { SMALL_STRIP_FLOATS } else { STRIP_FLOATS };
    (floats / tile).clamp(LEAST_TILES, MOST_TILES)
}

/// True for what the transforms can compute as exactly as is asked for.
fn suits(s: &Conv2dShape) -> bool {
    let pixels = s.n * s.oh() * s.ow();
    (s.kh, s.kw) == (3, 3)
        && s.stride == [1, 1]
        && s.dilation == [1, 1]
        && s.groups == 1
        && s.pads.iter().all(|&pad| pad <= 2)
        && pixels >= LEAST_PIXELS
}

/// Part of the peak of two vector multiply-adds a cycle that outer products reach: of pixels, of transformed tiles.
const DIRECT: f64 = 0.85;
const PRODUCTS: f64 = 0.72;
/// Cycles of one vector of channels: of a tile of inputs, of a tile of gradients, of one filter's last transform.
const TRANSFORMS: [f64; 3] = [250.0, 200.0, 120.0];

/// True where the estimated cycles are fewer.
fn pays(s: &Conv2dShape, isa: Isa) -> bool {
    let [inputs, outputs] = [s.ic, s.oc].map(|channels| channels.div_ceil(isa.lanes()) as f64);
    let products = s.ic as f64 * outputs / 2.0;
    let direct = (s.n * s.oh() * s.ow()) as f64 * 9.0 * products / DIRECT;
    let tiles = (s.n * s.oh().div_ceil(EDGE) * s.ow().div_ceil(EDGE)) as f64;
    let most = most_tiles(s) as f64;
    let [input, output, filter] = TRANSFORMS;
    let transforms = tiles * (inputs * input + outputs * output);
    let last = (tiles / most).ceil() * s.ic as f64 * outputs * filter;
    tiles * AREA as f64 * products / PRODUCTS + transforms + last < direct
}

#[cfg(test)]
mod tests;
