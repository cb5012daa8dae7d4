//! K3, Winograd's minimal filtering for 3x3 filters of step 1: F(2x2, 3x3) and F(4x4, 3x3).
//!
//! A tile of `A x A` inputs and the filters are transformed, multiplied point by point, and transformed back to `M x M` outputs,
//! where `A = M + 2` (Lavin and Gray 2016, sections 4.1 to 4.3). Over channels the point-wise products are `A²` products of matrices,
//! [tiles, channels] x [channels, output channels], with 2.25 or 4 times fewer multiply-adds than sliding the filter. All of it
//! happens for one band of tiles at a time, so that what is transformed stays in the second cache.
//!
//! Each output is one chain of operations that its place in the image decides, never the band or the batch.

mod estimate;
mod lines;
mod pack;
mod run;
mod weight_grad;

pub(super) use weight_grad::WinogradWeightGrad;

use super::bands::Bands;
use super::choose::{choose_nv, max_pixels};
use super::direct::{Buffers, Problem};
use super::engine::{Algorithms, Plan, Weights};
use crate::mem::DisjointMut;
use crate::simd::{Isa, Simd};
use std::ops::Range;

/// Matrices of one band, [positions][tiles][channels]: floats from one tile to the next, and from one position to the next.
#[derive(Clone, Copy, Debug)]
struct Pitches {
    tile: usize,
    position: usize,
}

impl Pitches {
    fn new(tiles: usize, channels: usize) -> Self {
        let channels = channels.next_multiple_of(LINE);
        // Neighbouring tiles do not fall into the same few sets of the first cache.
        let tile = if channels.is_multiple_of(256) { channels + LINE } else { channels };
        Pitches { tile, position: scattered(tiles * tile) }
    }
}

/// A pitch of at least `floats` whose multiples fall into all sets of the first cache.
fn scattered(floats: usize) -> usize {
    (floats.div_ceil(LINE) | 1) * LINE
}

/// Floats of a cache line, and of the widest vector.
const LINE: usize = 16;

/// A planned [`Problem`] whose filters are 3x3 and whose steps are 1; the counterpart of `Direct`.
#[derive(Clone, Debug)]
pub(super) struct Winograd {
    problem: Problem,
    isa: Isa,
    weights: Weights,
    /// Rows and columns of a tile of outputs, 2 or 4.
    edge: usize,
    /// Vectors of output channels in a block.
    nv: usize,
    bands: Bands,
    inputs: Pitches,
    products: Pitches,
    /// Offsets of the tiles of the largest band in the matrices.
    input_off: Vec<usize>,
    product_off: Vec<usize>,
    /// Offsets of the outputs of the largest band, for the statistics.
    y_off: Vec<usize>,
}

impl Winograd {
    /// True where [`Winograd::choose`] has a plan.
    pub fn is_worth(problem: &Problem, isa: Isa, algorithms: Algorithms) -> bool {
        Self::choose_edge(problem, isa, algorithms).is_some()
    }

    fn choose_edge(problem: &Problem, isa: Isa, algorithms: Algorithms) -> Option<usize> {
        if algorithms == Algorithms::Exact || !suits(problem) {
            return None;
        }
        estimate::choose_edge(problem, isa, algorithms == Algorithms::FastTraining)
    }

    /// The plan with the tile that makes it faster than the direct kernel, if there is one.
    pub fn choose(problem: &Problem, isa: Isa, weights: Weights, algorithms: Algorithms) -> Option<Self> {
        let edge = Self::choose_edge(problem, isa, algorithms)?;
        Some(Winograd::new(problem.clone(), isa, weights, edge))
    }

    fn new(problem: Problem, isa: Isa, weights: Weights, edge: usize) -> Self {
        let p = &problem;
        // Blocks as for many pixels: the packed filters of all batch sizes are the same.
        let nv = choose_nv(isa, p.m_c, p.k_c, usize::MAX);
        let bands = choose_bands(p, edge, nv * isa.lanes());
        let tiles = bands.band_images * bands.band_rows.div_ceil(edge) * p.out[1].div_ceil(edge);
        let (inputs, products) = (Pitches::new(tiles, p.k_c), Pitches::new(tiles, nv * isa.lanes()));
        let [row_pitch, pitch] = p.dst_pitches();
        let dst_pixel = |image: usize, row: usize, column: usize| {
            image * p.dst[0] * p.dst[1] * p.dst_pitch + row * row_pitch + column * pitch
        };
        let mut y_off = Vec::with_capacity(bands.most_pixels());
        for image in 0..bands.band_images {
            for row in 0..bands.band_rows {
                y_off.extend((0..p.out[1]).map(|column| dst_pixel(image, row, column)));
            }
        }
        Winograd {
            isa,
            weights,
            edge,
            nv,
            bands,
            inputs,
            products,
            input_off: (0..tiles).map(|tile| tile * inputs.tile).collect(),
            product_off: (0..tiles).map(|tile| tile * products.tile).collect(),
            y_off,
            problem,
        }
    }

    /// Used taps as kh * KW + kw, in the order of the sum.
    pub fn used_taps(&self) -> Vec<usize> {
        self.problem.used_taps(self.weights.kw)
    }

    /// Rows and columns of a tile of outputs.
    pub fn edge(&self) -> usize {
        self.edge
    }

    /// Tiles and output channels of the microkernel of the products.
    pub fn tile(&self) -> (usize, usize) {
        (max_pixels(self.isa, self.nv), self.nv * self.isa.lanes())
    }

    /// Points at which tiles and filters are multiplied.
    fn positions(&self) -> usize {
        (self.edge + 2) * (self.edge + 2)
    }

    fn vectors(&self) -> usize {
        self.problem.m_c.div_ceil(self.isa.lanes())
    }

    fn blocks(&self) -> usize {
        self.vectors().div_ceil(self.nv)
    }

    /// Floats of the packed filters, [blocks][positions][k][NV * LANES].
    pub fn packed_len(&self) -> usize {
        self.positions() * self.blocks() * self.filters_pitch()
    }

    /// Floats from one position's filters to the next.
    fn filters_pitch(&self) -> usize {
        scattered(self.problem.k_c * self.nv * self.isa.lanes())
    }

    /// Floats of scratch that one thread needs.
    pub fn band_len(&self) -> usize {
        self.positions() * (self.inputs.position + self.products.position)
    }

    /// Number of independent pieces of work: bands and blocks of output channels, in this order.
    pub fn items(&self) -> usize {
        self.bands.count() * self.blocks()
    }

    /// The cost of one item, in multiply-adds.
    pub fn item_cost(&self) -> usize {
        self.positions() * self.input_off.len() * (self.problem.k_c + 16) * self.nv * self.isa.lanes()
    }

    /// Independent tasks of packing.
    pub fn pack_tasks(&self) -> usize {
        self.vectors() * self.problem.k_c.div_ceil(pack::CHUNK)
    }

    /// Packs one task's part of the filters, OIHW, to `packed`.
    pub fn pack_task(&self, task: usize, w: &[f32], packed: DisjointMut<f32>) {
        match self.edge {
            2 => self.isa.dispatch(pack::PackJob::<4> { plan: self, task, w, packed }),
            _ => self.isa.dispatch(pack::PackJob::<6> { plan: self, task, w, packed }),
        }
    }
}

impl Plan for Winograd {
    fn isa(&self) -> Isa {
        self.isa
    }

    fn bands(&self) -> &Bands {
        &self.bands
    }

    #[inline(always)]
    unsafe fn run<S: Simd>(&self, s: S, buffers: &Buffers, range: Range<usize>, scratch: &mut [f32]) {
        let (plan, scratch) = (self, &mut scratch[..self.band_len()]);
        match self.edge {
            2 => s.vectorize(run::Items::<4, 2> { plan, buffers, range, scratch }),
            _ => s.vectorize(run::Items::<6, 4> { plan, buffers, range, scratch }),
        }
    }
}

/// True for what the transforms can compute.
fn suits(p: &Problem) -> bool {
    let consecutive = |axis: usize| {
        let taps = &p.taps[axis];
        taps.len() == 3 && taps.windows(2).all(|pair| pair[1].offset == pair[0].offset + 1)
    };
    p.groups == 1 && p.step == [1, 1] && p.n * p.out[0] * p.out[1] > 0 && consecutive(0) && consecutive(1)
}

/// Floats of transformed filters that stay in the second cache.
const FILTERS_IN_CACHE: usize = 128 << 10;
/// Bytes of a band's transformed inputs that should stay in the second cache.
const BAND_BYTES: usize = 384 << 10;

/// Tiles of a band: few where the filters stay in cache, many where they are streamed.
fn choose_bands(p: &Problem, edge: usize, width: usize) -> Bands {
    let positions = (edge + 2) * (edge + 2);
    let [rows, columns] = [0, 1].map(|axis| p.out[axis].div_ceil(edge));
    let fits = BAND_BYTES / (4 * positions * (p.k_c + width));
    let least = if positions * p.k_c * p.m_c <= FILTERS_IN_CACHE { 24 } else { 48 };
    let tiles = fits.max(least);
    let band = (tiles / columns).clamp(1, rows);
    if band < rows {
        // Equal bands.
        let band_rows = rows.div_ceil(rows.div_ceil(band)) * edge;
        return Bands { images: p.n, out: p.out, band_rows: band_rows.min(p.out[0]), band_images: 1 };
    }
    let images = (tiles / (rows * columns)).clamp(1, p.n);
    let band_images = p.n.div_ceil(p.n.div_ceil(images));
    Bands { images: p.n, out: p.out, band_rows: p.out[0], band_images }
}

#[cfg(test)]
mod tests;
