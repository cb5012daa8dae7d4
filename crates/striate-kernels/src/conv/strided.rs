//! The input gradient of a depthwise convolution that steps: each input pixel in its turn, from the few taps that see it.
//!
//! Cut into a dense sum for each remainder of the step, it passes over the gradient once for each of them, with every few pixels written at a
//! time; and where the filter is smaller than the step some see no tap at all. Here the gradient is written once, from its first pixel to its
//! last, all channels of a pixel together. Taps are added in order, a chain for each element.

use super::bands::Bands;
use super::columns::{Lists, Scatter};
use super::direct::{Buffers, Problem};
use super::engine::{Plan, Weights};
use super::stats::Done;
use crate::mem::DisjointMut;
use crate::simd::{Isa, Simd};
use std::ops::Range;

/// Pieces of work that an image should have, so that threads can share it.
const MIN_ITEMS: usize = 4;
/// Vectors of channels whose sums are taken together, so that a tap is looked up once for them.
const VECTORS: usize = 4;

/// A planned gradient; the counterpart of `Direct`.
#[derive(Clone, Debug)]
pub(super) struct Strided {
    problem: Problem,
    isa: Isa,
    /// Where a channel's filter begins in OIHW: that many floats from one to the next.
    filter: usize,
    /// Used taps as kh * KW + kw.
    used_taps: Vec<usize>,
    bands: Bands,
    /// For each row of the gradient, where the rows that it sees begin in an image of the source, and the packed filters of the filter row.
    rows: Lists<[usize; 2]>,
    /// The same for columns, within the row.
    columns: Lists<[usize; 2]>,
    /// Offsets of a band's outputs, row after row.
    y_off: Vec<usize>,
}

impl Strided {
    /// The plan, for depthwise convolutions that step.
    pub fn choose(scatter: &Scatter, isa: Isa, weights: Weights) -> Option<Self> {
        let p = scatter.problem();
        let depthwise = p.groups > 1 && p.m_c == 1 && p.k_c == 1;
        (depthwise && scatter.steps() && scatter.has_work()).then(|| Self::new(scatter, isa, weights))
    }

    fn new(scatter: &Scatter, isa: Isa, weights: Weights) -> Self {
        let p = scatter.problem();
        let used_taps = scatter.used_taps(weights.kw);
        let columns = scatter.tap_counts()[1];
        let width = p.groups.next_multiple_of(isa.lanes());
        let place = |axis: usize, pitch: usize, taps: usize| {
            let list = move |index: usize| {
                let sources = scatter.sources(axis, index);
                sources.map(|(source, tap)| [source * pitch, tap * taps * width]).collect()
            };
            Lists::new((0..p.out[axis]).map(list))
        };
        let band_rows = p.out[0].div_ceil(MIN_ITEMS);
        let at = |r: usize, c: usize| (r * p.dst[1] + c) * p.dst_pitch;
        Strided {
            isa,
            filter: weights.group_stride,
            used_taps,
            bands: Bands::of_rows(p.n, p.out, band_rows),
            rows: place(0, p.src_row, columns),
            columns: place(1, p.src_pitch, 1),
            y_off: (0..band_rows).flat_map(|r| (0..p.out[1]).map(move |c| at(r, c))).collect(),
            problem: p.clone(),
        }
    }

    /// Pixels and channels of a tile.
    pub fn tile(&self) -> (usize, usize) {
        (1, VECTORS * self.isa.lanes())
    }

    pub fn used_taps(&self) -> Vec<usize> {
        self.used_taps.clone()
    }

    /// Floats of one tap's filters.
    fn width(&self) -> usize {
        self.problem.groups.next_multiple_of(self.isa.lanes())
    }

    /// Floats of the packed filters, [taps][channels].
    pub fn packed_len(&self) -> usize {
        self.used_taps.len() * self.width()
    }

    /// The tasks of packing: one a tap.
    pub fn pack_tasks(&self) -> usize {
        self.used_taps.len()
    }

    pub fn pack_task(&self, task: usize, w: &[f32], packed: DisjointMut<f32>) {
        let (width, tap) = (self.width(), self.used_taps[task]);
        // SAFETY: each task has its own tap.
        let row = unsafe { packed.slice_mut(task * width..(task + 1) * width) };
        for (channel, to) in row.iter_mut().enumerate() {
            *to = if channel < self.problem.groups { w[channel * self.filter + tap] } else { 0.0 };
        }
    }

    /// Number of independent pieces of work: bands of rows.
    pub fn items(&self) -> usize {
        self.bands.count()
    }

    /// The cost of one item, in multiply-adds.
    pub fn item_cost(&self) -> usize {
        (2 + self.used_taps.len() * 2 / self.bands.per_image()) * self.y_off.len() * self.width()
    }
}

impl Plan for Strided {
    fn isa(&self) -> Isa {
        self.isa
    }

    fn bands(&self) -> &Bands {
        &self.bands
    }

    #[inline(always)]
    unsafe fn run<S: Simd>(&self, s: S, b: &Buffers, range: Range<usize>, _scratch: &mut [f32]) {
        // A gradient has none.
        debug_assert!(b.bias.is_none());
        let p = &self.problem;
        for item in range {
            let (image, rows) = self.bands.image_rows(item);
            for row in rows.clone() {
                run_row(s, self, b, (image, row));
            }
            let offsets = &self.y_off[..rows.len() * p.out[1]];
            let at = p.dst_pixel(image, [rows.start, 0]);
            let done = Done { at, offsets, channel: 0, lanes: p.groups, channels: p.groups };
            // SAFETY: the outputs that were just written; their part of the partial statistics.
            unsafe {
                done.finish(s, b);
                done.statistics(s, b, &self.bands, item);
            }
        }
    }
}

/// One row of the gradient.
#[inline(always)]
fn run_row<S: Simd>(s: S, plan: &Strided, b: &Buffers, (image, row): (usize, usize)) {
    let p = &plan.problem;
    let (full, rest) = (p.groups / S::LANES, p.groups % S::LANES);
    let many = full / VECTORS * VECTORS;
    for column in 0..p.out[1] {
        let pixel = Pixel {
            x: b.x[image * p.src_image..].as_ptr(),
            w: b.packed.as_ptr(),
            rows: plan.rows.get(row),
            columns: plan.columns.get(column),
            y: p.dst_pixel(image, [row, column]),
            b,
        };
        // SAFETY: the lists keep to the source and to the filters; the outputs are this item's.
        unsafe {
            for vector in (0..many).step_by(VECTORS) {
                pixel.sum::<S, VECTORS>(s, vector * S::LANES, S::LANES);
            }
            for vector in many..full {
                pixel.sum::<S, 1>(s, vector * S::LANES, S::LANES);
            }
            if rest > 0 {
                pixel.sum::<S, 1>(s, full * S::LANES, rest);
            }
        }
    }
}

/// One pixel of the gradient.
struct Pixel<'a> {
    x: *const f32,
    w: *const f32,
    rows: &'a [[usize; 2]],
    columns: &'a [[usize; 2]],
    y: usize,
    b: &'a Buffers<'a>,
}

impl Pixel<'_> {
    /// `V` vectors of channels from `channel` on, `n` lanes of each.
    ///
    /// # Safety
    /// The rows and columns lie in the source and in the filters; the outputs are the caller's.
    #[inline(always)]
    unsafe fn sum<S: Simd, const V: usize>(&self, s: S, channel: usize, n: usize) {
        let mut acc = [s.zero(); V];
        // SAFETY: by contract.
        unsafe {
            for &[x, w] in self.rows {
                let (x, w) = (self.x.add(x + channel), self.w.add(w + channel));
                for &[column, tap] in self.columns {
                    let (x, w) = (x.add(column), w.add(tap));
                    for (v, sum) in acc.iter_mut().enumerate() {
                        let from = x.add(v * S::LANES);
                        let value = if n == S::LANES { s.load(from) } else { s.load_partial(from, n) };
                        *sum = s.mul_add(value, s.load(w.add(v * S::LANES)), *sum);
                    }
                }
            }
            for (v, &sum) in acc.iter().enumerate() {
                let at = self.y + channel + v * S::LANES;
                let sum = match self.b.residual {
                    Some(residual) => s.add(sum, s.load_partial(residual.as_ptr().add(at), n)),
                    None => sum,
                };
                let to = self.b.y.as_mut_ptr().add(at);
                if n == S::LANES { s.store(to, sum) } else { s.store_partial(to, n, sum) }
            }
        }
    }
}
