//! The direct implicit GEMM that forward and input gradient share: plans one sliding-window sum, then runs parts of it.

use super::bands::{Band, Bands};
use super::choose::{choose_band, choose_nv, max_pixels};
use super::engine::Plan;
use super::epilogue::Activation;
use super::micro::{Ahead, Block, run_pixels};
use super::stats::Done;
use crate::mem::DisjointMut;
use crate::simd::{Isa, Simd};
use std::ops::Range;

/// A filter row or column that is used, and where it looks: output `o` sees the source at `o * step + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AxisTap {
    /// Row or column of the filter.
    pub index: usize,
    pub offset: isize,
}

/// A sliding-window sum from a source [N, H, W, C] to a grid of output pixels that lie with steps in a destination [N, H, W, C].
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub n: usize,
    pub groups: usize,
    /// Rows and columns of the source.
    pub src: [usize; 2],
    /// Rows and columns of the output grid.
    pub out: [usize; 2],
    /// Rows and columns of the destination.
    pub dst: [usize; 2],
    /// Output (r, c) is destination pixel (r, c) * dst_step + dst_origin.
    pub dst_step: [usize; 2],
    pub dst_origin: [usize; 2],
    /// Source rows and columns from one output to the next.
    pub step: [usize; 2],
    /// Used filter rows and columns, in the order of the sum.
    pub taps: [Vec<AxisTap>; 2],
    /// Channels of one group of the source, which are summed over.
    pub k_c: usize,
    /// Channels of one group of the destination.
    pub m_c: usize,
    /// Where the source's first pixel is, and floats from one pixel, row and image of it to the next.
    pub src_start: usize,
    pub src_pitch: usize,
    pub src_row: usize,
    pub src_image: usize,
    /// Floats from one pixel of the destination to the next: the channels, where nothing lies between.
    pub dst_pitch: usize,
    /// Parts of a larger sum that have the same filters.
    pub alike: usize,
}

impl Problem {
    /// Drops the filter rows and columns that see padding alone, for every output.
    pub fn drop_dead_taps(&mut self) {
        for axis in 0..2 {
            let (out, src, step) = (self.out[axis] as isize, self.src[axis] as isize, self.step[axis] as isize);
            self.taps[axis].retain(|tap| {
                let first = (-tap.offset).max(0).div_euclid(step) + isize::from((-tap.offset).max(0) % step != 0);
                first < out && first * step + tap.offset < src
            });
        }
        if self.taps.iter().any(|t| t.is_empty()) {
            self.taps = [Vec::new(), Vec::new()];
        }
    }

    /// The same sum over some channels of a larger source, dense but for them: `pitch` floats from one pixel to the next.
    pub fn with_src_pitch(self, pitch: usize) -> Self {
        let row = self.src[1] * pitch;
        Problem { src_pitch: pitch, src_row: row, src_image: self.src[0] * row, ..self }
    }

    /// Used taps as kh * KW + kw, in the order of the sum, for filters of `kw` columns.
    pub fn used_taps(&self, kw: usize) -> Vec<usize> {
        let [rows, columns] = &self.taps;
        rows.iter().flat_map(|r| columns.iter().map(move |c| r.index * kw + c.index)).collect()
    }

    /// Floats from one output to the next in the destination, by rows and by columns.
    pub fn dst_pitches(&self) -> [usize; 2] {
        [self.dst_step[0] * self.dst[1] * self.dst_pitch, self.dst_step[1] * self.dst_pitch]
    }

    /// Where output (row, column) of an image lies in the destination.
    pub fn dst_pixel(&self, image: usize, output: [usize; 2]) -> usize {
        let at = |axis: usize| output[axis] * self.dst_step[axis] + self.dst_origin[axis];
        ((image * self.dst[0] + at(0)) * self.dst[1] + at(1)) * self.dst_pitch
    }

    /// A sum over channels alone has no geometry: all pixels become one column.
    fn flatten(&mut self) {
        let centred = self.taps.iter().all(|t| t.len() == 1 && t[0].offset == 0);
        let dense = self.src_row == self.src[1] * self.src_pitch && self.src_image == self.src[0] * self.src_row;
        if centred && dense && self.src == self.out && self.out == self.dst && self.step == [1, 1] {
            let rows = [self.n * self.out[0] * self.out[1], 1];
            (self.n, self.src, self.out, self.dst) = (1, rows, rows, rows);
            // An axis of one output may have had any step.
            self.dst_step = [1, 1];
            (self.src_row, self.src_image) = (self.src_pitch, rows[0] * self.src_pitch);
        }
    }

    /// True where no output sees padding.
    fn is_inside(&self) -> bool {
        (0..2).all(|axis| {
            let last = ((self.out[axis].max(1) - 1) * self.step[axis]) as isize;
            self.taps[axis].iter().all(|t| t.offset >= 0 && last + t.offset < self.src[axis] as isize)
        })
    }
}

/// How one axis of the source, or of its packed band, is addressed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Indices from one output to the next.
    pub step: usize,
    /// Source index of index 0 for output 0.
    pub base: isize,
    /// Indices beyond `(outputs - 1) * step` that the taps reach, plus one.
    pub reach: usize,
}

impl Axis {
    pub fn new(taps: &[AxisTap], step: usize, packed: bool) -> Self {
        let low = taps.iter().map(|t| t.offset).min().unwrap_or(0);
        let high = taps.iter().map(|t| t.offset).max().unwrap_or(0);
        match packed {
            true => Axis { step, base: low, reach: (high - low) as usize + 1 },
            false => Axis { step, base: 0, reach: high as usize + 1 },
        }
    }

    /// Index that output 0 reads through `tap`.
    pub fn index(&self, tap: &AxisTap) -> usize {
        // `new` made every difference non-negative.
        (tap.offset - self.base) as usize
    }

    /// Indices that `outputs` neighbouring outputs read.
    pub fn extent(&self, outputs: usize) -> usize {
        (outputs - 1) * self.step + self.reach
    }
}

/// Floats of packed filters that stay in the second cache from band to band.
const FILTERS_IN_CACHE: usize = 64 << 10;

/// A planned [`Problem`]: immutable, shared by all threads.
#[derive(Clone, Debug)]
pub(super) struct Direct {
    problem: Problem,
    isa: Isa,
    /// Vectors of output channels in a block; the last block of a group may have fewer.
    nv: usize,
    packed: bool,
    axes: [Axis; 2],
    /// Floats from one source (or packed) pixel to the next, and from row to row.
    pitch: usize,
    row_pitch: usize,
    /// Floats that one tap sums over, and where each tap starts.
    run: usize,
    taps: Vec<usize>,
    bands: Bands,
    /// Offsets of the outputs of the largest band in its source and in the destination; a smaller band uses the head.
    x_off: Vec<usize>,
    y_off: Vec<usize>,
}

/// Where the numbers are.
#[derive(Clone, Copy)]
pub(super) struct Buffers<'a> {
    pub x: &'a [f32],
    /// Filters as `pack` wrote them.
    pub packed: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub residual: Option<&'a [f32]>,
    pub activation: Activation,
    /// Where this, addressed like `y`, is not between the bounds, the output is zero: the gradient of a clipping activation.
    pub mask: Option<(&'a [f32], [f32; 2])>,
    pub y: DisjointMut<'a, f32>,
    /// Means and centred sums of squares of each block of pixels, [blocks][2][OC].
    pub partials: Option<DisjointMut<'a, f32>>,
    /// The block of the first band.
    pub first_block: usize,
}

impl Direct {
    pub fn new(mut problem: Problem, isa: Isa) -> Self {
        problem.drop_dead_taps();
        problem.flatten();
        let p = &problem;
        // Pixels that are a multiple of 4 KiB apart fall into the same few lines of the first cache.
        let packed = !p.taps[0].is_empty() && (!p.is_inside() || (p.step[1] * p.src_pitch * 4).is_multiple_of(4096));
        let axes = [0, 1].map(|axis| Axis::new(&p.taps[axis], p.step[axis], packed));
        let columns = axes[1].extent(p.out[1].max(1));
        let (pitch, row_pitch) = match packed {
            true => {
                let pitch = packed_pitch(p.k_c, axes[1].step);
                (pitch, columns * pitch)
            }
            false => (p.src_pitch, p.src_row),
        };
        let (run, taps) = place_taps(p, &axes, pitch, row_pitch);
        let nv = choose_nv(isa, p.m_c, p.k_c * p.taps[0].len() * p.taps[1].len(), p.n * p.out[0] * p.out[1]);
        let blocks = p.groups * p.m_c.div_ceil(nv * isa.lanes());
        let row_bytes = 4 * p.k_c * p.step[0] * columns;
        let (band_rows, band_images) = choose_band(p.n, p.out, row_bytes, blocks);
        let mut direct = Direct {
            isa,
            nv,
            packed,
            axes,
            pitch,
            row_pitch,
            run,
            taps,
            bands: Bands { images: p.n, out: p.out, band_rows, band_images },
            x_off: Vec::new(),
            y_off: Vec::new(),
            problem,
        };
        direct.place_pixels();
        direct
    }

    /// Fills the tables of offsets for the largest band.
    fn place_pixels(&mut self) {
        let p = &self.problem;
        let [rows, columns] = self.axes;
        let image_pitch = self.image_pitch();
        for image in 0..self.bands.band_images {
            for r in 0..self.bands.band_rows {
                for c in 0..p.out[1] {
                    let x = image * image_pitch + r * rows.step * self.row_pitch + c * columns.step * self.pitch;
                    let y = (image * p.dst[0] + r * p.dst_step[0]) * p.dst[1] + c * p.dst_step[1];
                    // Without a tap nothing is read, and the source may be smaller than the output.
                    self.x_off.push(if self.taps.is_empty() { 0 } else { x });
                    self.y_off.push(y * p.dst_pitch);
                }
            }
        }
    }

    /// Floats from one image to the next, in the source or in a band of whole images.
    fn image_pitch(&self) -> usize {
        match self.packed {
            true => self.axes[0].extent(self.bands.band_rows) * self.row_pitch,
            false => self.problem.src_image,
        }
    }

    /// Pixels and output channels of the largest tile.
    pub fn tile(&self) -> (usize, usize) {
        (max_pixels(self.isa, self.nv), self.nv * self.isa.lanes())
    }

    /// Used taps as kh * KW + kw, in the order of the sum: the order of the packed filters.
    pub fn used_taps(&self, kw: usize) -> Vec<usize> {
        self.problem.used_taps(kw)
    }

    /// The cost of one item, in multiply-adds.
    pub fn item_cost(&self) -> usize {
        let p = &self.problem;
        let sum = self.taps.len() * self.run;
        // What is not multiplied still has to be written.
        (sum + 16) * self.x_off.len() * (self.nv * self.isa.lanes()).min(p.m_c.next_multiple_of(self.isa.lanes()))
    }

    /// Floats of scratch that one thread needs.
    pub fn band_len(&self) -> usize {
        if self.packed && !self.x_off.is_empty() { self.bands.band_images * self.image_pitch() } else { 0 }
    }

    fn vectors(&self) -> usize {
        self.problem.m_c.div_ceil(self.isa.lanes())
    }

    /// Blocks of output channels in one group.
    pub fn blocks(&self) -> usize {
        self.vectors().div_ceil(self.nv)
    }

    pub fn nv(&self) -> usize {
        self.nv
    }

    /// Number of independent pieces of work: bands, groups and blocks of output channels, in this order.
    pub fn items(&self) -> usize {
        self.bands.count() * self.problem.groups * self.blocks()
    }

    /// Where the packed filters of a block lie; blocks are counted through all groups.
    fn filters(&self, block: usize) -> Range<usize> {
        let (group, block) = (block / self.blocks(), block % self.blocks());
        let vector = self.isa.lanes() * self.taps.len() * self.run;
        let first = group * self.vectors() + block * self.nv;
        first * vector..(first + self.nv.min(self.vectors() - block * self.nv)) * vector
    }

    /// Copies what `band` reads of `group` to `out`, with zeros where the source ends.
    fn pack_band(&self, x: &[f32], band: &Band, group: usize, out: &mut [f32]) {
        let p = &self.problem;
        let [rows, columns] = self.axes;
        let width = self.row_pitch / self.pitch;
        // Packed columns that lie inside the source.
        let inside = |i: usize| columns.base + i as isize;
        let first = (0..width).find(|&i| inside(i) >= 0).unwrap_or(width);
        let end = (first..width).find(|&i| inside(i) >= p.src[1] as isize).unwrap_or(width);
        let mut lines = out.chunks_exact_mut(self.row_pitch);
        for image in band.images.clone() {
            for i in 0..rows.extent(band.rows.len()) {
                let Some(line) = lines.next() else { return };
                let row = rows.base + (band.rows.start * rows.step + i) as isize;
                if row < 0 || row >= p.src[0] as isize || first >= end {
                    line.fill(0.0);
                    continue;
                }
                line[..first * self.pitch].fill(0.0);
                line[end * self.pitch..].fill(0.0);
                let start = image * p.src_image + row as usize * p.src_row + inside(first) as usize * p.src_pitch;
                let line = &mut line[first * self.pitch..end * self.pitch];
                if self.pitch == p.k_c && p.src_pitch == p.k_c {
                    line.copy_from_slice(&x[start..][..line.len()]);
                    continue;
                }
                for (c, pixel) in line.chunks_exact_mut(self.pitch).enumerate() {
                    let from = start + c * p.src_pitch + group * p.k_c;
                    pixel[..p.k_c].copy_from_slice(&x[from..from + p.k_c]);
                }
            }
        }
    }
}

/// The pitch of packed pixels: never such that neighbouring outputs are a multiple of 4 KiB apart.
fn packed_pitch(k_c: usize, step: usize) -> usize {
    if (k_c * step * 4).is_multiple_of(4096) { k_c + 16 } else { k_c }
}

/// Floats that a tap sums over, and the taps' offsets: columns that follow each other in memory are one tap.
fn place_taps(p: &Problem, axes: &[Axis; 2], pitch: usize, row_pitch: usize) -> (usize, Vec<usize>) {
    let index = |axis: usize, t: &AxisTap| axes[axis].index(t);
    let [rows, columns] = &p.taps;
    let merged = pitch == p.k_c && columns.windows(2).all(|w| index(1, &w[1]) == index(1, &w[0]) + 1);
    let used = if merged { &columns[..columns.len().min(1)] } else { &columns[..] };
    let run = if merged { p.k_c * columns.len() } else { p.k_c };
    let offset = |r: &AxisTap, c: &AxisTap| index(0, r) * row_pitch + index(1, c) * pitch;
    (run, rows.iter().flat_map(|r| used.iter().map(move |c| offset(r, c))).collect())
}

impl Plan for Direct {
    fn isa(&self) -> Isa {
        self.isa
    }

    fn bands(&self) -> &Bands {
        &self.bands
    }

    #[inline(always)]
    unsafe fn run<S: Simd>(&self, s: S, b: &Buffers, range: Range<usize>, scratch: &mut [f32]) {
        let (blocks, groups) = (self.blocks(), self.problem.groups);
        let mut in_scratch = usize::MAX;
        for item in range.clone() {
            let (unit, block) = (item / blocks, item % blocks);
            let (band, group) = (unit / groups, unit % groups);
            let bounds = self.bands.get(band);
            if self.packed && in_scratch != unit {
                self.pack_band(b.x, &bounds, group, scratch);
                in_scratch = unit;
            }
            let ahead = match item + 1 < range.end && b.packed.len() > FILTERS_IN_CACHE {
                true => Ahead::new(&b.packed[self.filters((item + 1) % (groups * blocks))]),
                false => Ahead::default(),
            };
            run_item(s, self, b, scratch, [band, group, block], &bounds, ahead);
        }
    }
}

/// Bytes of outputs from which on they are fetched while their sums are computed: smaller ones are in the second cache.
const FETCHED_FROM: usize = 512 << 10;

/// One block of output channels for one band.
#[inline(always)]
fn run_item<S: Simd>(
    s: S,
    d: &Direct,
    b: &Buffers,
    scratch: &[f32],
    [index, group, block]: [usize; 3],
    band: &Band,
    ahead: Ahead,
) {
    let p = &d.problem;
    let nv = d.nv.min(d.vectors() - block * d.nv);
    let lanes = (p.m_c - block * d.nv * S::LANES).min(nv * S::LANES);
    let channel = group * p.m_c + block * d.nv * S::LANES;
    let dst = p.dst_pixel(band.images.start, [band.rows.start, 0]) + channel;
    let x = match d.packed {
        true => scratch.as_ptr(),
        // Outputs that no tap reaches read nothing; there may be more of them than source rows.
        false if d.taps.is_empty() => b.x.as_ptr(),
        false => {
            let row = band.images.start * p.src_image + band.rows.start * d.axes[0].step * p.src_row;
            b.x[row + group * p.k_c..].as_ptr()
        }
    };
    debug_assert!(d.packed || d.pitch == p.src_pitch);
    let pixels = d.bands.pixels(band);
    let task = Block {
        x,
        x_off: d.x_off.as_ptr(),
        taps: &d.taps,
        run: d.run,
        w: b.packed[d.filters(group * d.blocks() + block)].as_ptr(),
        y: b.y.as_mut_ptr().wrapping_add(dst),
        y_off: d.y_off.as_ptr(),
        tail: lanes - (nv - 1) * S::LANES,
        bias: b.bias.map_or(std::ptr::null(), |bias| bias[channel..].as_ptr()),
        residual: b.residual.map_or(std::ptr::null(), |r| r[dst..].as_ptr()),
        mask: b.mask.map_or(std::ptr::null(), |(mask, _)| mask[dst..].as_ptr()),
        bounds: b.mask.map_or([0.0; 2], |(_, bounds)| bounds),
        activation: b.activation,
        fetches: 4 * b.y.len() > FETCHED_FROM,
        ahead,
        ..Block::BARE
    };
    run_pixels(s, d.isa, (pixels, nv), task);
    let offsets = &d.y_off[..pixels];
    let done = Done { at: dst, offsets, channel, lanes, channels: p.m_c * p.groups };
    // SAFETY: the outputs that this item has just written, masked; their part of the partial statistics.
    unsafe {
        done.finish(s, &Buffers { mask: None, ..*b });
        done.statistics(s, b, &d.bands, index);
    }
}
