//! Depthwise convolutions and those of many small groups, a channel of the output in each lane.
//!
//! An output channel sees `k` source channels of its group. The source is packed so that each lane finds, in plane `j` of a
//! vector of output channels, the `j`-th source channel of its own group; then each product is lane by lane. For a depthwise
//! convolution (`k` = 1) a plane is the source itself, with the padding as zeros.

use super::bands::Bands;
use super::direct::{Axis, AxisTap, Buffers, Problem};
use super::engine::{Plan, Weights};
use super::spread::Spread;
use super::stats::Done;
use crate::mem::DisjointMut;
use crate::simd::{Isa, Simd};
use std::ops::Range;

/// The planes of one item should stay in the second cache.
const BAND_BYTES: usize = 192 << 10;
/// Least output rows of a band: the rows that neighbouring bands both read are packed twice.
const MIN_ROWS: usize = 4;
/// Most vectors of channels of an item: they lie next to each other in memory.
const MAX_VECTORS: usize = 4;
/// The widest tile of any instruction set.
const MAX_PIXELS: usize = 14;

/// Neighbouring pixels of a row whose sums are taken together.
fn max_pixels(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => MAX_PIXELS,
        Isa::Avx2 => 12,
        Isa::Portable => 4,
    }
}

/// A planned sum; the counterpart of `Direct`.
#[derive(Clone, Debug)]
pub(super) struct Lanes {
    problem: Problem,
    isa: Isa,
    axes: [Axis; 2],
    /// Used taps as kh * KW + kw, in the order of the sum.
    taps: Vec<usize>,
    weights: Weights,
    /// Offsets of the products in the planes of a vector: [taps][k].
    offsets: Vec<usize>,
    /// Packed columns of one remainder of the step, floats of a row and of a plane.
    phase: usize,
    row_pitch: usize,
    plane: usize,
    bands: Bands,
    /// Vectors of output channels in an item.
    block: usize,
    /// Offsets of a band's outputs, for the statistics.
    y_off: Vec<usize>,
}

impl Lanes {
    /// True where this kernel is better than the direct one: vectors of the direct kernel would be at most half full.
    pub fn suits(problem: &Problem, isa: Isa) -> bool {
        problem.groups > 1 && problem.m_c * 2 <= isa.lanes() && problem.k_c <= 16
    }

    pub fn new(mut problem: Problem, isa: Isa, weights: Weights) -> Self {
        problem.drop_dead_taps();
        let p = &problem;
        let axes = [0, 1].map(|axis| Axis::new(&p.taps[axis], p.step[axis], true));
        let lanes = isa.lanes();
        let columns = axes[1].extent(p.out[1].max(1));
        let phase = columns.div_ceil(axes[1].step);
        let row_pitch = phase * axes[1].step * lanes;
        let vectors = (p.m_c * p.groups).div_ceil(lanes);
        let block = vectors.div_ceil(vectors.div_ceil(MAX_VECTORS));
        let row_bytes = 4 * row_pitch * p.k_c * axes[0].step;
        let rows = p.out[0].max(1);
        let fit = (BAND_BYTES / row_bytes).saturating_sub(axes[0].reach / axes[0].step);
        let band_rows = rows.div_ceil(rows.div_ceil(fit.clamp(MIN_ROWS.min(rows), rows)));
        let plane = axes[0].extent(band_rows) * row_pitch;
        let mut made = Lanes {
            isa,
            axes,
            taps: Vec::new(),
            weights,
            offsets: Vec::new(),
            phase,
            row_pitch,
            plane,
            bands: Bands::of_rows(p.n, p.out, band_rows),
            block,
            y_off: Vec::new(),
            problem,
        };
        made.place();
        made
    }

    /// Fills the tables of taps and outputs.
    fn place(&mut self) {
        let p = &self.problem;
        let lanes = self.isa.lanes();
        let step = self.axes[1].step;
        let index = |axis: usize, tap: &AxisTap| self.axes[axis].index(tap);
        for row in &p.taps[0] {
            for column in &p.taps[1] {
                self.taps.push(row.index * self.weights.kw + column.index);
                let c = index(1, column);
                let at = index(0, row) * self.row_pitch + (c % step * self.phase + c / step) * lanes;
                self.offsets.extend((0..p.k_c).map(|k| k * self.plane + at));
            }
        }
        for r in 0..self.bands.band_rows {
            let at = |c: usize| (r * p.dst_step[0] * p.dst[1] + c * p.dst_step[1]) * p.dst_pitch;
            self.y_off.extend((0..p.out[1]).map(at));
        }
    }

    /// Pixels and output channels of the largest tile.
    pub fn tile(&self) -> (usize, usize) {
        (max_pixels(self.isa).min(self.problem.out[1]), self.isa.lanes())
    }

    pub fn is_depthwise(&self) -> bool {
        self.problem.k_c == 1 && self.problem.m_c == 1
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Channels of the destination.
    pub fn channels(&self) -> usize {
        self.problem.m_c * self.problem.groups
    }

    pub fn vectors(&self) -> usize {
        self.channels().div_ceil(self.isa.lanes())
    }

    /// Floats of the packed filters, [vectors][taps][k][lanes].
    pub fn packed_len(&self) -> usize {
        self.vectors() * self.offsets.len() * self.isa.lanes()
    }

    /// Packs the filters of one vector of channels.
    pub fn pack_task(&self, vector: usize, w: &[f32], packed: DisjointMut<f32>) {
        let (lanes, k) = (self.isa.lanes(), self.problem.k_c);
        let len = self.offsets.len() * lanes;
        // SAFETY: each task has its own vector.
        let out = unsafe { packed.slice_mut(vector * len..(vector + 1) * len) };
        for (i, value) in out.iter_mut().enumerate() {
            let (product, channel) = (i / lanes, vector * lanes + i % lanes);
            *value = if channel < self.channels() {
                w[self.weight_index(channel, product % k, self.taps[product / k])]
            } else {
                0.0
            };
        }
    }

    /// Where a weight lies in OIHW.
    pub fn weight_index(&self, channel: usize, summed: usize, tap: usize) -> usize {
        let (w, m_c) = (&self.weights, self.problem.m_c);
        channel / m_c * w.group_stride + channel % m_c * w.m_stride + summed * w.k_stride + tap
    }

    /// Offsets of the products in a vector's planes, [taps][k], and the taps as kh * KW + kw.
    pub fn products(&self) -> (&[usize], &[usize]) {
        (&self.offsets, &self.taps)
    }

    /// Floats of a packed row, and packed rows from one output row to the next.
    pub fn row(&self) -> (usize, usize) {
        (self.row_pitch, self.axes[0].step)
    }

    /// Most output rows that are packed together.
    pub fn band_rows(&self) -> usize {
        self.bands.band_rows
    }

    /// Output rows, at least one, of which one row of taps reads at most `bytes` of the planes.
    pub fn rows_within(&self, bytes: usize) -> usize {
        (bytes / (4 * self.row_pitch * self.problem.k_c)).max(1)
    }

    /// Floats of scratch that one thread needs: the planes of one vector.
    pub fn band_len(&self) -> usize {
        self.problem.k_c * self.plane
    }

    fn blocks(&self) -> usize {
        self.vectors().div_ceil(self.block)
    }

    /// Number of independent pieces of work: bands and blocks of channels, in this order.
    pub fn items(&self) -> usize {
        self.bands.count() * self.blocks()
    }

    /// The cost of one item, in multiply-adds; packing and writing count as some.
    pub fn item_cost(&self) -> usize {
        (self.offsets.len() + 4 * self.problem.k_c + 4) * self.y_off.len() * self.block * self.isa.lanes()
    }

    /// Packs the planes of `vector` for output rows `rows` of `image`: plane `j` holds the `j`-th source channel of each
    /// lane's group, columns sorted by their remainder of the step, zeros where the source ends.
    #[inline(always)]
    pub fn pack_planes<S: Simd>(&self, s: S, x: &[f32], at: (usize, Range<usize>, usize), out: &mut [f32]) {
        let p = &self.problem;
        let (image, rows, vector) = at;
        let spread = Spread::new([p.m_c, p.k_c, p.groups], vector * S::LANES, S::LANES);
        let [row_axis, column_axis] = self.axes;
        let count = row_axis.extent(rows.len());
        assert!(count * self.row_pitch <= self.plane && out.len() >= self.band_len());
        for i in 0..count {
            let row = row_axis.base + (rows.start * row_axis.step + i) as isize;
            for remainder in 0..column_axis.step {
                let first = i * self.row_pitch + remainder * self.phase * S::LANES;
                // Packed column `index` is source column `base + index * step`.
                let base = column_axis.base + remainder as isize;
                let step = column_axis.step;
                let inside = match row >= 0 && row < p.src[0] as isize {
                    true => columns_inside(base, step, p.src[1], self.phase),
                    false => 0..0,
                };
                for plane in 0..p.k_c {
                    let line = &mut out[plane * self.plane + first..][..self.phase * S::LANES];
                    clear(s, &mut line[..inside.start * S::LANES]);
                    clear(s, &mut line[inside.end * S::LANES..]);
                }
                if inside.is_empty() {
                    continue;
                }
                let column = (base + (inside.start * step) as isize) as usize;
                let src = &x[image * p.src_image + row as usize * p.src_row + column * p.src_pitch..];
                let out = &mut out[first + inside.start * S::LANES..];
                spread.copy(s, src, step * p.src_pitch, inside.len(), out, self.plane);
            }
        }
    }
}

/// Writes zeros to whole vectors: too few for a call.
#[inline(always)]
fn clear<S: Simd>(s: S, line: &mut [f32]) {
    for vector in line.chunks_exact_mut(S::LANES) {
        // SAFETY: a vector of the line.
        unsafe { s.store(vector.as_mut_ptr(), s.zero()) };
    }
}

/// The indices below `count` whose column `base + index * step` lies in `0..len`.
fn columns_inside(base: isize, step: usize, len: usize, count: usize) -> Range<usize> {
    let first = (-base).max(0) as usize;
    let first = first.div_ceil(step).min(count);
    let end = (len as isize - base).max(0) as usize;
    first..end.div_ceil(step).clamp(first, count)
}

impl Plan for Lanes {
    fn isa(&self) -> Isa {
        self.isa
    }

    fn bands(&self) -> &Bands {
        &self.bands
    }

    #[inline(always)]
    unsafe fn run<S: Simd>(&self, s: S, b: &Buffers, range: Range<usize>, scratch: &mut [f32]) {
        let blocks = self.blocks();
        for item in range {
            let (index, block) = (item / blocks, item % blocks);
            let (image, rows) = self.bands.image_rows(index);
            for vector in block * self.block..((block + 1) * self.block).min(self.vectors()) {
                self.pack_planes(s, b.x, (image, rows.clone(), vector), scratch);
                run_vector(s, self, b, scratch, index, vector);
            }
        }
    }
}

/// What the rows of one vector have in common.
#[derive(Clone, Copy)]
struct Row<'a> {
    offsets: &'a [usize],
    w: *const f32,
    /// Bias and residual, or null; valid lanes.
    bias: *const f32,
    n: usize,
    /// Floats from one output pixel to the next.
    y_pitch: usize,
    buffers: &'a Buffers<'a>,
}

/// One vector of channels for one band, whose planes are in `scratch`.
#[inline(always)]
fn run_vector<S: Simd>(s: S, l: &Lanes, b: &Buffers, scratch: &[f32], index: usize, vector: usize) {
    let p = &l.problem;
    let (image, rows) = l.bands.image_rows(index);
    let channel = vector * S::LANES;
    let dst = p.dst_pixel(image, [rows.start, 0]) + channel;
    let row = Row {
        offsets: &l.offsets,
        w: b.packed[vector * l.offsets.len() * S::LANES..].as_ptr(),
        bias: b.bias.map_or(std::ptr::null(), |bias| bias[channel..].as_ptr()),
        n: (l.channels() - channel).min(S::LANES),
        y_pitch: p.dst_step[1] * p.dst_pitch,
        buffers: b,
    };
    // Tiles of two sizes that differ by one pixel, so that no tile is nearly empty.
    let tiles = p.out[1].div_ceil(max_pixels(l.isa));
    let (small, large_tiles) = (p.out[1] / tiles, p.out[1] % tiles);
    for r in 0..rows.len() {
        let x = scratch[r * l.axes[0].step * l.row_pitch..].as_ptr();
        let y = dst + r * p.dst_step[0] * p.dst[1] * p.dst_pitch;
        let mut column = 0;
        for tile in 0..tiles {
            let pixels = small + usize::from(tile < large_tiles);
            // SAFETY: the planes hold what the band's outputs see through every tap; the outputs lie in y.
            unsafe { run_tile(s, pixels, &row, x.wrapping_add(column * S::LANES), y + column * row.y_pitch) };
            column += pixels;
        }
    }
    let offsets = &l.y_off[..rows.len() * p.out[1]];
    let done = Done { at: dst, offsets, channel, lanes: row.n, channels: l.channels() };
    // SAFETY: the outputs that were just written; their part of the partial statistics.
    unsafe {
        done.finish(s, b);
        done.statistics(s, b, &l.bands, index);
    }
}

/// Calls [`tile`] for a number of pixels from 1 to [`MAX_PIXELS`].
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn run_tile<S: Simd>(s: S, pixels: usize, row: &Row, x: *const f32, y: usize) {
    macro_rules! tiles {
        ($($p:literal)*) => {
            // SAFETY: by contract.
            match pixels { $($p => unsafe { tile::<S, $p>(s, row, x, y) },)* _ => unreachable!("a tile of {pixels} pixels") }
        };
    }
    match S::ISA {
        Isa::Portable => tiles!(1 2 3 4),
        Isa::Avx2 => tiles!(1 2 3 4 5 6 7 8 9 10 11 12),
        Isa::Avx512 => tiles!(1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    }
}

/// `P` neighbouring outputs from float `y` of the output on, `n` channels each.
///
/// # Safety
/// Each offset is readable at `x` for P vectors, the packed filters hold a vector for each; the outputs are the caller's.
#[inline(always)]
unsafe fn tile<S: Simd, const P: usize>(s: S, row: &Row, x: *const f32, y: usize) {
    let b = row.buffers;
    // SAFETY: by contract; `load_partial` and `store_partial` stop at `n`.
    unsafe {
        let mut acc = [s.zero(); P];
        let mut w = row.w;
        for &offset in row.offsets {
            let (weight, x) = (s.load(w), x.add(offset));
            for (p, sum) in acc.iter_mut().enumerate() {
                *sum = s.mul_add(s.load(x.add(p * S::LANES)), weight, *sum);
            }
            w = w.add(S::LANES);
        }
        if !row.bias.is_null() {
            let bias = s.load_partial(row.bias, row.n);
            for sum in &mut acc {
                *sum = s.add(*sum, bias);
            }
        }
        if let Some(residual) = b.residual {
            for (p, sum) in acc.iter_mut().enumerate() {
                *sum = s.add(*sum, s.load_partial(residual.as_ptr().add(y + p * row.y_pitch), row.n));
            }
        }
        for sum in &mut acc {
            *sum = b.activation.apply_hot(s, *sum);
        }
        let y = b.y.as_mut_ptr().add(y);
        for (p, &sum) in acc.iter().enumerate() {
            s.store_partial(y.add(p * row.y_pitch), row.n, sum);
        }
    }
}
