//! Sums with few output channels: all taps' products of a source pixel first, their sums then.
//!
//! The direct kernel has an output channel in each lane; with three of them most lanes do nothing. Here a lane is a pair of a tap and an
//! output channel: the source's pixels times all columns of the filters is one dense product, however few the channels. An output is then
//! the sum of what its taps find in those columns, in the order of the taps.
//!
//! It is also free of the source's steps: each source pixel gives to `pixel * stride + offset` of a strided input gradient.

use super::bands::Bands;
use super::choose::{choose_nv, max_pixels};
use super::direct::{Axis, AxisTap, Buffers, Problem};
use super::engine::{Algorithms, Plan, Weights};
use super::micro::{Block, run_pixels};
use super::stats::Done;
use crate::mem::DisjointMut;
use crate::simd::{Isa, Simd};
use std::ops::Range;

/// Columns of a band that are read back should stay in the second cache.
const BAND_BYTES: usize = 384 << 10;
/// Least output rows of a band: rows of the source that two bands see are multiplied for both, as far as their blocks of columns reach.
const MIN_ROWS: usize = 8;
/// Pieces of work that an image should have, so that threads can share it.
const MIN_ITEMS: usize = 4;
/// Vector multiply-adds that take as long as adding one column's vector to an output.
const ADD: usize = 6;
/// Summed channels that one task of packing handles.
const CHUNK: usize = 64;
/// Vector multiply-adds that Winograd's filtering takes for 16 pixels and a summed channel: for each vector of outputs, and for the transform.
const WINOGRAD: [usize; 2] = [36, 23];

/// A sum from the side of its source: source pixel `j` gives to output `j * stride + offset` of each tap.
#[derive(Clone, Debug)]
pub(super) struct Scatter {
    stride: [usize; 2],
    taps: [Vec<AxisTap>; 2],
    /// All else; its own taps and step mean nothing.
    problem: Problem,
}

impl Scatter {
    /// Of a forward sum; none where it steps, since then a source pixel is seen by some of the taps alone.
    pub fn forward(problem: &Problem) -> Option<Self> {
        let mut problem = problem.clone();
        problem.drop_dead_taps();
        let taps = [0, 1].map(|axis| {
            problem.taps[axis].iter().map(|tap| AxisTap { index: tap.index, offset: -tap.offset }).collect()
        });
        (problem.step == [1, 1]).then_some(Scatter { stride: [1, 1], taps, problem })
    }

    /// Of the input gradient of the `forward` sum, whose source is the gradient of its output.
    pub fn input_grad(forward: &Problem) -> Self {
        let mut problem = forward.clone();
        problem.drop_dead_taps();
        let (stride, taps) = (problem.step, problem.taps.clone());
        let (pitch, image) = (forward.m_c * forward.groups, forward.out[0] * forward.out[1]);
        let problem = Problem {
            src: forward.out,
            out: forward.src,
            dst: forward.src,
            k_c: forward.m_c,
            m_c: forward.k_c,
            src_pitch: pitch,
            src_row: forward.out[1] * pitch,
            src_image: image * pitch,
            dst_pitch: forward.src_pitch,
            ..problem
        };
        Scatter { stride, taps, problem }
    }

    /// Used taps as kh * KW + kw, in the order of the columns.
    pub fn used_taps(&self, kw: usize) -> Vec<usize> {
        let [rows, columns] = &self.taps;
        rows.iter().flat_map(|r| columns.iter().map(move |c| r.index * kw + c.index)).collect()
    }

    /// The sum without its taps and steps.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Used filter rows and columns.
    pub fn tap_counts(&self) -> [usize; 2] {
        [self.taps[0].len(), self.taps[1].len()]
    }

    fn tap_count(&self) -> usize {
        self.taps[0].len() * self.taps[1].len()
    }

    /// True where source pixels give to outputs that are not neighbours.
    pub fn steps(&self) -> bool {
        self.stride != [1, 1]
    }

    /// True where there is something to multiply.
    pub fn has_work(&self) -> bool {
        let p = &self.problem;
        p.n * p.out[0] * p.out[1] * p.src[0] * p.src[1] * self.tap_count() > 0
    }

    /// The source rows (columns) that output `index` sees, and through which of the used taps, in order.
    pub fn sources(&self, axis: usize, index: usize) -> impl Iterator<Item = (usize, usize)> {
        let (stride, sources) = (self.stride[axis] as isize, self.problem.src[axis] as isize);
        self.taps[axis].iter().enumerate().filter_map(move |(t, tap)| {
            let from = index as isize - tap.offset;
            let inside = from >= 0 && from % stride == 0 && from / stride < sources;
            inside.then_some(((from / stride) as usize, t))
        })
    }

    /// Output rows (columns) from the first tap's to the last tap's, plus one.
    fn reach(&self, axis: usize) -> usize {
        Axis::new(&self.taps[axis], 1, true).reach
    }
}

/// A planned sum; the counterpart of `Direct`.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    isa: Isa,
    scatter: Scatter,
    /// For each column, a pair of tap and output channel, where its weights begin in OIHW; and from one summed channel to the next.
    weights: Vec<usize>,
    k_stride: usize,
    /// Used taps as kh * KW + kw.
    used_taps: Vec<usize>,
    nv: usize,
    bands: Bands,
    /// Floats of the columns of one source pixel.
    pitch: usize,
    /// Most source rows that a band sees.
    source_rows: usize,
    /// For each output row, the source rows that it sees, and the first column of the filter row through which it sees them.
    rows: Lists<(usize, usize)>,
    /// For each output column, where its source columns' products lie in a row of columns.
    columns: Lists<usize>,
    /// Offsets of source pixels and of their columns, of the most pixels that are multiplied together.
    x_off: Vec<usize>,
    columns_off: Vec<usize>,
    /// Offsets of a band's outputs, row after row.
    y_off: Vec<usize>,
}

/// Lists one behind the other.
#[derive(Clone, Debug)]
pub(super) struct Lists<T> {
    items: Vec<T>,
    starts: Vec<usize>,
}

impl<T> Lists<T> {
    pub fn new(lists: impl Iterator<Item = Vec<T>>) -> Self {
        let mut made = Lists { items: Vec::new(), starts: vec![0] };
        for list in lists {
            made.items.extend(list);
            made.starts.push(made.items.len());
        }
        made
    }

    pub fn get(&self, index: usize) -> &[T] {
        &self.items[self.starts[index]..self.starts[index + 1]]
    }
}

impl Columns {
    /// The plan, where it takes clearly fewer cycles than lanes of output channels.
    pub fn choose(scatter: Scatter, isa: Isa, weights: Weights, algorithms: Algorithms) -> Option<Self> {
        let p = &scatter.problem;
        let dense = p.src_row == p.src[1] * p.src_pitch && p.groups == 1;
        if !dense || !scatter.has_work() {
            return None;
        }
        let (taps, lanes) = (scatter.tap_count(), isa.lanes());
        let vectors = p.m_c.div_ceil(lanes);
        // Vector multiply-adds a source pixel.
        let columns = p.k_c * (taps * p.m_c).div_ceil(lanes) + ADD * taps * vectors;
        let filters_3x3 = scatter.tap_counts() == [3, 3] && !scatter.steps();
        let direct = match filters_3x3 && algorithms != Algorithms::Exact {
            true => p.k_c * (WINOGRAD[0] * vectors + WINOGRAD[1]) / 16,
            false => p.k_c * vectors * taps,
        };
        (columns * 5 < direct * 4).then(|| Self::new(scatter, isa, weights))
    }

    fn new(scatter: Scatter, isa: Isa, w: Weights) -> Self {
        let p = &scatter.problem;
        let used_taps = scatter.used_taps(w.kw);
        let weights: Vec<usize> =
            used_taps.iter().flat_map(|tap| (0..p.m_c).map(move |m| m * w.m_stride + tap)).collect();
        let nv = choose_nv(isa, weights.len(), p.k_c, usize::MAX);
        let lanes = isa.lanes();
        // Pixels must not be a multiple of 4 KiB apart.
        let floats = weights.len().next_multiple_of(lanes);
        let pitch = if (floats * 4).is_multiple_of(1024) { floats + lanes } else { floats };
        let band_rows = choose_rows(&scatter, pitch);
        let bands = Bands::of_rows(p.n, p.out, band_rows);
        let at = |r: usize, c: usize| (r * p.dst[1] + c) * p.dst_pitch;
        let y_off = (0..band_rows).flat_map(|r| (0..p.out[1]).map(move |c| at(r, c))).collect();
        let row_columns = scatter.taps[1].len() * p.m_c;
        let rows = Lists::new(
            (0..p.out[0]).map(|r| scatter.sources(0, r).map(|(source, tap)| (source, tap * row_columns)).collect()),
        );
        let columns = Lists::new(
            (0..p.out[1]).map(|c| scatter.sources(1, c).map(|(source, tap)| source * pitch + tap * p.m_c).collect()),
        );
        let mut plan = Columns {
            isa,
            k_stride: w.k_stride,
            used_taps,
            weights,
            nv,
            bands,
            pitch,
            source_rows: 0,
            rows,
            columns,
            x_off: Vec::new(),
            columns_off: Vec::new(),
            y_off,
            scatter,
        };
        let all = 0..plan.scatter.taps[0].len();
        plan.source_rows =
            (0..bands.per_image()).map(|band| plan.source_rows(&bands.get(band).rows, &all).len()).max().unwrap_or(0);
        let pixels = plan.source_rows * plan.scatter.problem.src[1];
        plan.x_off = (0..pixels).map(|pixel| pixel * plan.scatter.problem.src_pitch).collect();
        plan.columns_off = (0..pixels).map(|pixel| pixel * pitch).collect();
        plan
    }

    /// The source rows that give to output rows `rows` through the filter rows `taps`.
    fn source_rows(&self, rows: &Range<usize>, taps: &Range<usize>) -> Range<usize> {
        let offsets = || self.scatter.taps[0][taps.clone()].iter().map(|tap| tap.offset);
        let (low, high) = (offsets().min().unwrap_or(0), offsets().max().unwrap_or(0));
        let stride = self.scatter.stride[0];
        let first = (rows.start as isize - high).max(0) as usize;
        let end = (rows.end as isize - low).max(0) as usize;
        let (first, end) = (first.div_ceil(stride), end.div_ceil(stride).min(self.scatter.problem.src[0]));
        first.min(end)..end
    }

    /// Pixels and columns of the largest tile.
    pub fn tile(&self) -> (usize, usize) {
        (max_pixels(self.isa, self.nv), self.nv * self.isa.lanes())
    }

    pub fn used_taps(&self) -> Vec<usize> {
        self.used_taps.clone()
    }

    fn vectors(&self) -> usize {
        self.weights.len().div_ceil(self.isa.lanes())
    }

    fn blocks(&self) -> usize {
        self.vectors().div_ceil(self.nv)
    }

    /// Floats of the packed filters, [blocks][k][nv * lanes]; the last block may be narrower.
    pub fn packed_len(&self) -> usize {
        self.vectors() * self.isa.lanes() * self.scatter.problem.k_c
    }

    pub fn pack_tasks(&self) -> usize {
        self.blocks() * self.scatter.problem.k_c.div_ceil(CHUNK)
    }

    /// Packs some summed channels of one block.
    pub fn pack_task(&self, task: usize, w: &[f32], packed: DisjointMut<f32>) {
        let k_c = self.scatter.problem.k_c;
        let chunks = k_c.div_ceil(CHUNK);
        let (block, chunk) = (task / chunks, task % chunks);
        let lanes = self.isa.lanes();
        let first = block * self.nv * lanes;
        let width = (self.nv * lanes).min(self.vectors() * lanes - first);
        let columns = &self.weights[first..self.weights.len().min(first + width)];
        for k in chunk * CHUNK..k_c.min((chunk + 1) * CHUNK) {
            let at = first * k_c + k * width;
            // SAFETY: each task has its own rows.
            let row = unsafe { packed.slice_mut(at..at + width) };
            for (to, &column) in row.iter_mut().zip(columns) {
                *to = w[k * self.k_stride + column];
            }
            row[columns.len()..].fill(0.0);
        }
    }

    /// Floats of scratch that one thread needs: the columns of a band, and what a vector may read behind the last.
    pub fn band_len(&self) -> usize {
        self.x_off.len() * self.pitch + self.isa.lanes()
    }

    /// Number of independent pieces of work: bands of output rows.
    pub fn items(&self) -> usize {
        self.bands.count()
    }

    /// The cost of one item, in multiply-adds.
    pub fn item_cost(&self) -> usize {
        let sums = self.vectors() * self.scatter.problem.k_c + ADD * self.scatter.tap_count();
        sums * self.isa.lanes() * self.x_off.len()
    }
}

/// Output rows of a band: as many as keep the columns in the second cache, but not so few that neighbours multiply much twice.
fn choose_rows(scatter: &Scatter, pitch: usize) -> usize {
    let p = &scatter.problem;
    let rows = p.out[0];
    let dilation = scatter.reach(0).div_ceil(scatter.taps[0].len());
    // Columns that one output row reads.
    let row_bytes = (4 * pitch * p.src[1]).div_ceil(scatter.stride[0]);
    let least = (MIN_ROWS * dilation).max(scatter.stride[0]).min(rows);
    let band = (BAND_BYTES / row_bytes).min(rows.div_ceil(MIN_ITEMS)).clamp(least, rows);
    rows.div_ceil(rows.div_ceil(band))
}

impl Plan for Columns {
    fn isa(&self) -> Isa {
        self.isa
    }

    fn bands(&self) -> &Bands {
        &self.bands
    }

    #[inline(always)]
    unsafe fn run<S: Simd>(&self, s: S, b: &Buffers, range: Range<usize>, scratch: &mut [f32]) {
        assert!(scratch.len() >= self.band_len());
        for item in range {
            let (image, rows) = self.bands.image_rows(item);
            let first = self.source_rows(&rows, &(0..self.scatter.taps[0].len())).start;
            multiply(s, self, b, scratch, (image, &rows, first));
            add(s, self, b, scratch, (image, &rows, first));
            finish(s, self, b, (item, image, &rows));
        }
    }
}

/// The columns of all source pixels that output rows `rows` see, as far as they see them. Source row `first` is the scratch's first.
#[inline(always)]
fn multiply<S: Simd>(
    s: S,
    plan: &Columns,
    b: &Buffers,
    scratch: &mut [f32],
    (image, rows, first): (usize, &Range<usize>, usize),
) {
    let (p, lanes) = (&plan.scatter.problem, S::LANES);
    // Columns of one filter row.
    let row_columns = plan.scatter.taps[1].len() * p.m_c;
    for block in 0..plan.blocks() {
        let start = block * plan.nv * lanes;
        let nv = plan.nv.min(plan.vectors() - block * plan.nv);
        let last = plan.weights.len().min(start + nv * lanes) - 1;
        let taps = start / row_columns..last / row_columns + 1;
        let sources = plan.source_rows(rows, &taps);
        if sources.is_empty() {
            continue;
        }
        let task = Block {
            x: b.x[image * p.src_image + sources.start * p.src_row..].as_ptr(),
            x_off: plan.x_off.as_ptr(),
            run: p.k_c,
            w: b.packed[start * p.k_c..].as_ptr(),
            y: scratch[(sources.start - first) * p.src[1] * plan.pitch + start..].as_mut_ptr(),
            y_off: plan.columns_off.as_ptr(),
            tail: lanes,
            ..Block::BARE
        };
        run_pixels(s, plan.isa, (sources.len() * p.src[1], nv), task);
    }
}

/// Output rows `rows`: the sums of what their taps find in the columns, bias and residual, and a hot activation.
#[inline(always)]
fn add<S: Simd>(
    s: S,
    plan: &Columns,
    b: &Buffers,
    scratch: &[f32],
    (image, rows, first): (usize, &Range<usize>, usize),
) {
    let p = &plan.scatter.problem;
    let row_pitch = p.src[1] * plan.pitch;
    for row in rows.clone() {
        let sources = plan.rows.get(row);
        let dst = p.dst_pixel(image, [row, 0]);
        for column in 0..p.out[1] {
            let taps = plan.columns.get(column);
            for lane in (0..p.m_c).step_by(S::LANES) {
                let (n, y) = ((p.m_c - lane).min(S::LANES), dst + column * p.dst_pitch + lane);
                // SAFETY: the lists keep to the columns that were just written, behind which the scratch has a vector; the outputs are this
                // item's.
                unsafe {
                    let mut sum = s.zero();
                    for &(source, at) in sources {
                        let from = scratch.as_ptr().add((source - first) * row_pitch + at + lane);
                        for &tap in taps {
                            sum = s.add(sum, s.load(from.add(tap)));
                        }
                    }
                    if let Some(bias) = b.bias {
                        sum = s.add(sum, s.load_partial(bias.as_ptr().add(lane), n));
                    }
                    if let Some(residual) = b.residual {
                        sum = s.add(sum, s.load_partial(residual.as_ptr().add(y), n));
                    }
                    s.store_partial(b.y.as_mut_ptr().add(y), n, b.activation.apply_hot(s, sum));
                }
            }
        }
    }
}

/// What the band's outputs still need: other activations, the mask, statistics.
#[inline(always)]
fn finish<S: Simd>(s: S, plan: &Columns, b: &Buffers, (item, image, rows): (usize, usize, &Range<usize>)) {
    let p = &plan.scatter.problem;
    let dst = p.dst_pixel(image, [rows.start, 0]);
    let offsets = &plan.y_off[..rows.len() * p.out[1]];
    let done = Done { at: dst, offsets, channel: 0, lanes: p.m_c, channels: p.m_c };
    // SAFETY: the outputs that were just written; their part of the partial statistics.
    unsafe {
        done.finish(s, b);
        done.statistics(s, b, &plan.bands, item);
    }
}
