//! K4, depthwise convolutions and those of small groups: a vector of channels by some neighbouring pixels of a row, read where they lie.
//!
//! The groups of a vector of output channels lie beside each other, and so do their inputs, in one vector or two. For each
//! input of a group in turn, a permutation brings it to all lanes of its own group. With groups of one there is nothing to permute.
//!
//! An input of a row of 3, 5 or 7 neighbouring taps is loaded once for all the outputs of the tile that see it; other rows are walked tap by
//! tap. Rows outside the source are left out, columns outside count as zeros, and each output is one chain of multiply-adds over the taps in
//! order: its bits do not depend on the tile.

use super::bands::Bands;
use super::direct::{Axis, Buffers, Problem};
use super::engine::{Plan, Weights};
use super::spread::{LANES, permute, permute_two};
use super::stats::Done;
use crate::mem::DisjointMut;
use crate::simd::{Isa, Kernel, Simd};
use std::ops::Range;

/// The input rows that one output row sees should stay in the first cache, for one chunk of channels.
const ROWS_BYTES: usize = 24 << 10;
/// Vectors of channels of an item: enough for whole cache lines in a row, few enough for threads to share the map.
const CHUNK: Range<usize> = 4..16;
/// Pieces of work that a layer should have, so that threads can share it.
const MIN_ITEMS: usize = 16;

/// A planned sum; the counterpart of `Direct`.
#[derive(Clone, Debug)]
pub(super) struct Depthwise {
    problem: Problem,
    isa: Isa,
    weights: Weights,
    /// Pixels of a tile.
    pixels: usize,
    /// Vectors of channels of an item, and output rows.
    chunk: usize,
    bands: Bands,
    /// Offsets of a band's outputs, row after row.
    y_off: Vec<usize>,
    /// For each input of a group, where each lane finds it in the vector.
    indices: Vec<[u32; LANES]>,
    /// Inputs of a vector of outputs.
    vector_inputs: usize,
}

impl Depthwise {
    /// True for what the tiles can compute: groups whose inputs fit in two vectors where their outputs fit in one.
    pub fn suits(p: &Problem, isa: Isa) -> bool {
        let ascending = p.taps.iter().all(|taps| taps.windows(2).all(|pair| pair[1].offset > pair[0].offset));
        let work = p.n * p.out[0] * p.out[1] * p.taps[0].len() * p.taps[1].len() > 0;
        let lanes = p.k_c <= 2 * p.m_c && p.m_c * 2 <= isa.lanes() && isa.lanes().is_multiple_of(p.m_c);
        p.groups > 1 && lanes && ascending && work && !better_packed(p, isa)
    }

    /// Columns of the filter and steps for which there is a tile of their own, or zeros: neighbours alone share inputs.
    fn shared_columns(p: &Problem) -> (usize, usize) {
        let (taps, step) = (&p.taps[1], p.step[1]);
        let neighbours = taps.windows(2).all(|pair| pair[1].offset == pair[0].offset + 1);
        let (inputs, outputs) = (p.k_c, p.m_c);
        let sizes =
            inputs <= outputs && taps.len() == 3 || (outputs == 1 && inputs == 1 && matches!(taps.len(), 5 | 7));
        if neighbours && sizes && matches!(step, 1 | 2) { (taps.len(), step) } else { (0, 0) }
    }

    pub fn new(problem: Problem, isa: Isa, weights: Weights) -> Self {
        let p = &problem;
        let [rows, columns] = p.out;
        let channels = p.groups * p.m_c;
        let vectors = channels.div_ceil(isa.lanes());
        let fits = ROWS_BYTES / (4 * isa.lanes() * p.taps[0].len() * p.src[1]).max(1);
        let chunk = vectors.div_ceil(vectors.div_ceil(fits.clamp(CHUNK.start, CHUNK.end)));
        let band_rows = rows.div_ceil(MIN_ITEMS.div_ceil(vectors.div_ceil(chunk)).min(rows));
        let bands = Bands::of_rows(p.n, p.out, band_rows);
        let at = |r: usize, c: usize| (r * p.dst_step[0] * p.dst[1] + c * p.dst_step[1]) * p.dst_pitch;
        let y_off = (0..band_rows).flat_map(|r| (0..columns).map(move |c| at(r, c))).collect();
        let place = |lane: usize, input: usize| (lane / p.m_c * p.k_c + input) as u32 % (2 * isa.lanes()) as u32;
        let indices = (0..p.k_c).map(|input| std::array::from_fn(|lane| place(lane, input))).collect();
        let vector_inputs = isa.lanes() / p.m_c * p.k_c;
        let mut plan = Depthwise { isa, weights, pixels: 0, chunk, bands, y_off, indices, vector_inputs, problem };
        plan.pixels = choose_pixels(isa, columns, Self::shared_columns(&plan.problem).0 == 0);
        plan
    }

    /// Pixels and output channels of a tile.
    pub fn tile(&self) -> (usize, usize) {
        (self.pixels, self.isa.lanes())
    }

    /// Used taps as kh * KW + kw, in the order of the sum.
    pub fn used_taps(&self) -> Vec<usize> {
        self.problem.used_taps(self.weights.kw)
    }

    fn taps(&self) -> usize {
        self.problem.taps[0].len() * self.problem.taps[1].len()
    }

    pub fn is_depthwise(&self) -> bool {
        self.problem.m_c == 1 && self.problem.k_c == 1
    }

    /// Vectors that hold the inputs of a vector of outputs, 0 where each output has the input of its own lane.
    fn windows(&self) -> usize {
        if self.is_depthwise() { 0 } else { self.problem.k_c.div_ceil(self.problem.m_c) }
    }

    fn channels(&self) -> usize {
        self.problem.groups * self.problem.m_c
    }

    /// Vectors of channels, which are the tasks of packing.
    pub fn vectors(&self) -> usize {
        self.channels().div_ceil(self.isa.lanes())
    }

    /// Floats of one vector's filters, [filter rows][inputs of a group][filter columns][lanes].
    fn filters_len(&self) -> usize {
        self.taps() * self.problem.k_c * self.isa.lanes()
    }

    /// Floats of the packed filters.
    pub fn packed_len(&self) -> usize {
        self.vectors() * self.filters_len()
    }

    /// Packs the filters of one vector of channels.
    pub fn pack_task(&self, vector: usize, w: &[f32], packed: DisjointMut<f32>) {
        let (lanes, p) = (self.isa.lanes(), &self.problem);
        let (len, columns) = (self.filters_len(), &p.taps[1]);
        // SAFETY: each task has its own vector.
        let out = unsafe { packed.slice_mut(vector * len..(vector + 1) * len) };
        for (i, value) in out.iter_mut().enumerate() {
            let (product, channel) = (i / lanes, vector * lanes + i % lanes);
            let (column, product) = (columns[product % columns.len()].index, product / columns.len());
            let (input, row) = (product % p.k_c, p.taps[0][product / p.k_c].index);
            let (group, output) = (channel / p.m_c, channel % p.m_c);
            let filter =
                group * self.weights.group_stride + output * self.weights.m_stride + input * self.weights.k_stride;
            *value = if channel < self.channels() { w[filter + row * self.weights.kw + column] } else { 0.0 };
        }
    }

    fn chunks(&self) -> usize {
        self.vectors().div_ceil(self.chunk)
    }

    /// Number of independent pieces of work: bands of rows and chunks of channels, in this order.
    pub fn items(&self) -> usize {
        self.bands.count() * self.chunks()
    }

    /// The cost of one item, in multiply-adds.
    pub fn item_cost(&self) -> usize {
        (self.taps() * self.problem.k_c + 8) * self.y_off.len() * self.chunk * self.isa.lanes()
    }
}

/// Where a tile lies in its row, as constants that loops are compiled for: all inputs are inside the source; of the outermost, as many as a
/// filter has beside its middle are outside, on the left, the right or both; or each is looked at, some outputs may lie behind the
/// row's end, and some lanes be no channels.
const INSIDE: u8 = 0;
const LEFT: u8 = 1;
const RIGHT: u8 = 2;
const BOTH: u8 = 3;
const ANYWHERE: u8 = 4;

/// Cycles more that a vector of outputs takes a tap in a tile at the end of a row, where each input is looked at first, than in another tile;
/// and those of copying a vector of inputs of one plane with the padding around it. Twice each.
const EDGE: usize = 4;
const COPY: usize = 6;

/// True where taps are walked, and so many outputs lie in tiles at the ends of rows that planes with their padding cost less.
fn better_packed(p: &Problem, isa: Isa) -> bool {
    let ([rows, columns], step) = (p.out, p.step);
    if Depthwise::shared_columns(p).0 > 0 {
        return false;
    }
    let pixels = choose_pixels(isa, columns, true);
    let [first, last] = [p.taps[1].first(), p.taps[1].last()].map(|tap| tap.map_or(0, |tap| tap.offset));
    let inside = |column: usize| {
        let end = ((column + pixels - 1) * step[1]) as isize + last;
        (column * step[1]) as isize + first >= 0 && end < p.src[1] as isize && column + pixels <= columns
    };
    let ends = (0..columns).step_by(pixels).filter(|&column| !inside(column)).count() * pixels;
    let extent = |axis: usize| Axis::new(&p.taps[axis], step[axis], true).extent(p.out[axis]);
    EDGE * ends * rows * p.taps[0].len() * p.taps[1].len() > COPY * p.k_c * extent(0) * extent(1)
}

/// The size of tile that leaves least of the last one empty, the larger of equal ones. Tiles of few pixels are for rows that have no more, and
/// walk their taps.
fn choose_pixels(isa: Isa, columns: usize, walks: bool) -> usize {
    match isa {
        Isa::Avx512 if walks && columns <= 4 => 4,
        Isa::Avx512 if walks => 8,
        Isa::Avx512 => [8, 7].into_iter().min_by_key(|p| columns.next_multiple_of(*p)).unwrap_or(8),
        Isa::Avx2 | Isa::Portable => 4,
    }
}

impl Plan for Depthwise {
    fn isa(&self) -> Isa {
        self.isa
    }

    fn bands(&self) -> &Bands {
        &self.bands
    }

    #[inline(always)]
    unsafe fn run<S: Simd>(&self, s: S, buffers: &Buffers, range: Range<usize>, _scratch: &mut [f32]) {
        let items = Items { plan: self, buffers, range };
        let (columns, step) = Depthwise::shared_columns(&self.problem);
        macro_rules! tiles {
            ($($windows:literal $columns:literal $step:literal;)*) => {
                match (self.windows(), columns, step, self.pixels) {
                    $(
                        ($windows, $columns, $step, 8) => s.vectorize(OfSize::<$windows, $columns, $step, 8>(items)),
                        ($windows, $columns, $step, 7) => s.vectorize(OfSize::<$windows, $columns, $step, 7>(items)),
                        ($windows, $columns, $step, 4) => s.vectorize(OfSize::<$windows, $columns, $step, 4>(items)),
                    )*
                    other => unreachable!("no depthwise tile of {other:?}"),
                }
            };
        }
        tiles! { 0 3 1; 0 3 2; 0 5 1; 0 5 2; 0 7 1; 0 7 2; 0 0 0; 1 3 1; 1 3 2; 1 0 0; 2 0 0; }
    }
}

/// The items of one thread.
struct Items<'a> {
    plan: &'a Depthwise,
    buffers: &'a Buffers<'a>,
    range: Range<usize>,
}

/// [`Items`] for groups whose inputs are in `WINDOWS` vectors (0: depthwise), filters of `KW` columns, a step of `STEP` columns, and tiles
/// of `P` pixels. With `KW` of 0, columns and step are those of the problem.
struct OfSize<'a, const WINDOWS: usize, const KW: usize, const STEP: usize, const P: usize>(Items<'a>);

impl<const WINDOWS: usize, const KW: usize, const STEP: usize, const P: usize> Kernel
    for OfSize<'_, WINDOWS, KW, STEP, P>
{
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // The other sizes belong to other instruction sets.
        if const { if S::LANES == 16 { (KW == 0 && P == 7) || (KW > 0 && P == 4) } else { P != 4 } } {
            return;
        }
        let Items { plan, buffers, range } = self.0;
        for item in range {
            let (index, chunk) = (item / plan.chunks(), item % plan.chunks());
            let first = chunk * plan.chunk;
            let vectors = first..(first + plan.chunk).min(plan.vectors());
            run_item::<S, WINDOWS, KW, STEP, P>(s, plan, buffers, index, vectors);
        }
    }
}

/// One chunk of channels of one band.
#[inline(always)]
fn run_item<S: Simd, const WINDOWS: usize, const KW: usize, const STEP: usize, const P: usize>(
    s: S,
    plan: &Depthwise,
    b: &Buffers,
    index: usize,
    vectors: Range<usize>,
) {
    let p = &plan.problem;
    let (image, rows) = plan.bands.image_rows(index);
    let channel = vectors.start * S::LANES;
    let lanes = plan.channels().min(vectors.end * S::LANES) - channel;
    let start = p.dst_pixel(image, [rows.start, 0]) + channel;
    for (r, row) in rows.clone().enumerate() {
        let inside = rows_inside(p, row);
        let source = (row * p.step[0]) as isize;
        let line = Line {
            x: b.x.as_ptr().wrapping_add(image * p.src_image + channel / p.m_c * p.k_c),
            rows: &p.taps[0][inside.clone()],
            source,
            w: b.packed[vectors.start * plan.filters_len()..]
                .as_ptr()
                .wrapping_add(inside.start * p.k_c * p.taps[1].len() * S::LANES),
            w_pitch: plan.filters_len(),
            y: start + r * p.dst_step[0] * p.dst[1] * p.dst_pitch,
            channel,
            lanes,
            plan,
            b,
        };
        for column in (0..p.out[1]).step_by(P) {
            let (first, place) = place_of::<KW, P>(p, column);
            // SAFETY: the tables keep to the source; the outputs are this item's.
            unsafe {
                match place {
                    INSIDE => line.tile::<S, WINDOWS, KW, STEP, P, INSIDE>(s, column, first),
                    LEFT => line.tile::<S, WINDOWS, KW, STEP, P, LEFT>(s, column, first),
                    RIGHT => line.tile::<S, WINDOWS, KW, STEP, P, RIGHT>(s, column, first),
                    BOTH => line.tile::<S, WINDOWS, KW, STEP, P, BOTH>(s, column, first),
                    _ => line.tile::<S, WINDOWS, KW, STEP, P, ANYWHERE>(s, column, first),
                }
            }
        }
        let done = Done { at: line.y, offsets: &plan.y_off[..p.out[1]], channel, lanes, channels: plan.channels() };
        // SAFETY: the outputs that were just written.
        unsafe { done.finish(s, b) };
    }
    let offsets = &plan.y_off[..rows.len() * p.out[1]];
    let done = Done { at: start, offsets, channel, lanes, channels: plan.channels() };
    // SAFETY: the outputs that were just written; their part of the partial statistics.
    unsafe { done.statistics(s, b, &plan.bands, index) };
}

/// The first input column of the tile at output column `column`, and where it lies.
fn place_of<const KW: usize, const P: usize>(p: &Problem, column: usize) -> (isize, u8) {
    let (columns, step) = (&p.taps[1], p.step[1]);
    let first = (column * step) as isize + columns[0].offset;
    let last = ((column + P - 1) * step) as isize + columns[columns.len() - 1].offset;
    let outside = [-first, last + 1 - p.src[1] as isize].map(|columns| columns.max(0) as usize);
    let half = KW / 2;
    let place = match outside {
        _ if column + P > p.out[1] => ANYWHERE,
        [0, 0] => INSIDE,
        [left, 0] if left == half => LEFT,
        [0, right] if right == half => RIGHT,
        [left, right] if left == half && right == half => BOTH,
        _ => ANYWHERE,
    };
    (first, place)
}

/// The filter rows that see the source from output row `row`.
fn rows_inside(p: &Problem, row: usize) -> Range<usize> {
    let at = (row * p.step[0]) as isize;
    let start = p.taps[0].partition_point(|tap| at + tap.offset < 0);
    let end = p.taps[0].partition_point(|tap| at + tap.offset < p.src[0] as isize);
    start..end.max(start)
}

/// One row of outputs of one chunk of channels.
struct Line<'a> {
    /// The image's first pixel, at the chunk's first input channel.
    x: *const f32,
    /// Filter rows inside the source, and the source row that offset 0 means.
    rows: &'a [super::direct::AxisTap],
    source: isize,
    /// Filters of the first of `rows`, and floats from one vector's to the next's.
    w: *const f32,
    w_pitch: usize,
    /// Float of the output's first pixel.
    y: usize,
    channel: usize,
    lanes: usize,
    plan: &'a Depthwise,
    b: &'a Buffers<'a>,
}

impl Line<'_> {
    /// `P` outputs from `column` on, whose first input column is `first`; they lie in the row as `PLACE` says.
    ///
    /// # Safety
    /// The chunk's channels of all rows are readable, those of the outputs writable.
    #[inline(always)]
    unsafe fn tile<
        S: Simd,
        const WINDOWS: usize,
        const KW: usize,
        const STEP: usize,
        const P: usize,
        const PLACE: u8,
    >(
        &self,
        s: S,
        column: usize,
        first: isize,
    ) {
        // Taps that are walked know no halves of a filter.
        if const { KW == 0 && matches!(PLACE, LEFT | RIGHT | BOTH) } {
            return;
        }
        let full = self.lanes / S::LANES;
        // SAFETY: by contract.
        unsafe {
            for vector in 0..full {
                self.vector::<S, WINDOWS, KW, STEP, P, PLACE>(s, column, first, (vector, S::LANES));
            }
            if full * S::LANES < self.lanes {
                let rest = (full, self.lanes - full * S::LANES);
                self.vector::<S, WINDOWS, KW, STEP, P, ANYWHERE>(s, column, first, rest);
            }
        }
    }

    /// One vector of [`Line::tile`], of which `n` lanes are channels: all, but [`ANYWHERE`].
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn vector<
        S: Simd,
        const WINDOWS: usize,
        const KW: usize,
        const STEP: usize,
        const P: usize,
        const PLACE: u8,
    >(
        &self,
        s: S,
        column: usize,
        first: isize,
        (vector, n): (usize, usize),
    ) {
        let p = &self.plan.problem;
        // SAFETY: by contract.
        let acc = unsafe {
            match KW {
                0 => self.sum_taps::<S, WINDOWS, P, PLACE>(s, column, (vector, n)),
                _ => self.sum_neighbours::<S, WINDOWS, KW, STEP, P, PLACE>(s, first, (vector, n)),
            }
        };
        let count = if PLACE == ANYWHERE { P.min(p.out[1] - column) } else { P };
        // SAFETY: by contract.
        unsafe { self.finish::<S, P, PLACE>(s, acc, (column, count), (vector * S::LANES, n)) };
    }

    /// The inputs of a vector in the source row that `tap` sees, and how many of them there are for `n` outputs.
    #[inline(always)]
    fn inputs<S: Simd>(&self, tap: &super::direct::AxisTap, (vector, n): (usize, usize)) -> (*const f32, usize) {
        let (p, inputs) = (&self.plan.problem, self.plan.vector_inputs);
        let row = (self.source + tap.offset) as usize;
        // A division would take longer than the sums of a row.
        let count = if n == S::LANES { inputs } else { n.div_ceil(p.m_c) * p.k_c };
        (self.x.wrapping_add(row * p.src_row + vector * inputs), count)
    }

    /// The sums of `P` outputs from `column` on, tap by tap.
    ///
    /// # Safety
    /// As [`Line::tile`].
    #[inline(always)]
    unsafe fn sum_taps<S: Simd, const WINDOWS: usize, const P: usize, const PLACE: u8>(
        &self,
        s: S,
        column: usize,
        part: (usize, usize),
    ) -> [S::V; P] {
        let p = &self.plan.problem;
        let (pitch, step, columns) = (p.src_pitch as isize, p.step[1], &p.taps[1]);
        let mut acc = [s.zero(); P];
        let mut w = self.w.wrapping_add(part.0 * self.w_pitch);
        for tap in self.rows {
            let (x, n) = self.inputs::<S>(tap, part);
            for (c, tap) in columns.iter().enumerate() {
                let first = (column * step) as isize + tap.offset;
                let mut inputs = [[s.zero(); 2]; P];
                for (m, input) in inputs.iter_mut().enumerate() {
                    let at = first + (m * step) as isize;
                    if PLACE != ANYWHERE || (at >= 0 && at < p.src[1] as isize) {
                        let from = x.wrapping_offset(at * pitch);
                        // SAFETY: inside the source are `n` inputs.
                        unsafe {
                            input[0] = match WINDOWS {
                                0 => load::<S, PLACE>(s, from, n),
                                _ => load::<S, ANYWHERE>(s, from, n.min(S::LANES)),
                            };
                            if WINDOWS == 2 && n > S::LANES {
                                input[1] = load::<S, ANYWHERE>(s, from.add(S::LANES), n - S::LANES);
                            }
                        }
                    }
                }
                for (j, indices) in self.plan.indices.iter().enumerate() {
                    // SAFETY: filters of each tap are there.
                    let weight = unsafe { s.load(w.wrapping_add((j * columns.len() + c) * S::LANES)) };
                    for (sum, input) in acc.iter_mut().zip(&inputs) {
                        let input = match WINDOWS {
                            0 => input[0],
                            1 => permute(s, input[0], indices),
                            _ => permute_two(s, *input, indices),
                        };
                        *sum = s.mul_add(input, weight, *sum);
                    }
                }
            }
            w = w.wrapping_add(p.k_c * columns.len() * S::LANES);
        }
        acc
    }

    /// The same for `KW` neighbouring taps and a step of `STEP`; the first input column is `first`.
    ///
    /// # Safety
    /// As [`Line::tile`].
    #[inline(always)]
    unsafe fn sum_neighbours<
        S: Simd,
        const WINDOWS: usize,
        const KW: usize,
        const STEP: usize,
        const P: usize,
        const PLACE: u8,
    >(
        &self,
        s: S,
        first: isize,
        part: (usize, usize),
    ) -> [S::V; P] {
        let p = &self.plan.problem;
        let (pitch, outside, end) = (p.src_pitch, const { KW / 2 }, const { (P - 1) * STEP + KW });
        let mut acc = [s.zero(); P];
        let mut w = self.w.wrapping_add(part.0 * self.w_pitch);
        for tap in self.rows {
            let (x, n) = self.inputs::<S>(tap, part);
            let x = x.wrapping_offset(first * pitch as isize);
            for indices in &self.plan.indices {
                // SAFETY: columns inside the source are read, filters of each tap are there.
                unsafe {
                    let mut inputs = [[s.zero(); KW]; P];
                    for m in 0..P {
                        for k in 0..KW {
                            // Of the inputs that two outputs share, the first output loads them.
                            if m > 0 && k + STEP < KW {
                                inputs[m][k] = inputs[m - 1][k + STEP];
                            } else {
                                let at = m * STEP + k;
                                let is_inside = match PLACE {
                                    INSIDE => true,
                                    LEFT => at >= outside,
                                    RIGHT => at + outside < end,
                                    BOTH => at >= outside && at + outside < end,
                                    _ => first + at as isize >= 0 && first + (at as isize) < p.src[1] as isize,
                                };
                                if is_inside {
                                    let from = x.wrapping_add(at * pitch);
                                    inputs[m][k] = match WINDOWS {
                                        0 => load::<S, PLACE>(s, from, n),
                                        _ => permute(s, load::<S, ANYWHERE>(s, from, n), indices),
                                    };
                                }
                            }
                        }
                    }
                    for k in 0..KW {
                        let weight = s.load(w.add(k * S::LANES));
                        for m in 0..P {
                            acc[m] = s.mul_add(inputs[m][k], weight, acc[m]);
                        }
                    }
                }
                w = w.wrapping_add(KW * S::LANES);
            }
        }
        acc
    }

    /// Bias, residual and a hot activation; writes the first `count` outputs.
    ///
    /// # Safety
    /// As [`Line::tile`].
    #[inline(always)]
    unsafe fn finish<S: Simd, const P: usize, const PLACE: u8>(
        &self,
        s: S,
        mut acc: [S::V; P],
        (column, count): (usize, usize),
        (lane, n): (usize, usize),
    ) {
        let (p, b) = (&self.plan.problem, self.b);
        let pitch = p.dst_step[1] * p.dst_pitch;
        let y = self.y + column * pitch + lane;
        // SAFETY: by contract.
        unsafe {
            if let Some(bias) = b.bias {
                let bias = load::<S, PLACE>(s, bias.as_ptr().add(self.channel + lane), n);
                for sum in &mut acc {
                    *sum = s.add(*sum, bias);
                }
            }
            if let Some(residual) = b.residual {
                for m in 0..P {
                    if PLACE != ANYWHERE || m < count {
                        acc[m] = s.add(acc[m], load::<S, PLACE>(s, residual.as_ptr().add(y + m * pitch), n));
                    }
                }
            }
            for m in 0..P {
                if PLACE != ANYWHERE || m < count {
                    let to = b.y.as_mut_ptr().add(y + m * pitch);
                    let value = b.activation.apply_hot(s, acc[m]);
                    if PLACE != ANYWHERE || n == S::LANES { s.store(to, value) } else { s.store_partial(to, n, value) }
                }
            }
        }
    }
}

/// `n` lanes from `x`; all but [`ANYWHERE`].
///
/// # Safety
/// They are readable.
#[inline(always)]
unsafe fn load<S: Simd, const PLACE: u8>(s: S, x: *const f32, n: usize) -> S::V {
    // SAFETY: by contract.
    unsafe { if PLACE != ANYWHERE || n == S::LANES { s.load(x) } else { s.load_partial(x, n) } }
}
