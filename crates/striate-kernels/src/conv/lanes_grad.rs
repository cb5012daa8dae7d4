//! The gradient of the filters of depthwise and small-group convolutions, an output channel in each lane.

use super::direct::Problem;
use super::engine::Weights;
use super::forward::forward_problem;
use super::lanes::Lanes;
use super::shape::Conv2dShape;
use super::spread::{LANES, permute};
use crate::mem::DisjointMut;
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::{Team, part};
use std::ops::Range;

/// Most pixels that one chain of additions takes; longer sums are joined by a pairwise tree.
const CHUNK_PIXELS: usize = 4096;

/// Pieces of work that a gradient should have, so that threads can share it.
const MIN_ITEMS: usize = 16;
/// The packed inputs that one pass over the pixels reads should stay in the first cache for the next.
const PASS_BYTES: usize = 24 << 10;

/// Sums that one pass over the pixels keeps in registers.
fn max_sums(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 | Isa::Avx2 => 12,
        Isa::Portable => 4,
    }
}

/// A planned gradient.
#[derive(Clone, Debug)]
pub(super) struct LanesWeightGrad {
    shape: Conv2dShape,
    lanes: Lanes,
    /// The first float of x that is read.
    src_start: usize,
    /// Parts that a row of more than [`CHUNK_PIXELS`] is cut into.
    row_parts: usize,
    chunks: usize,
    /// Filters of one element: x is read where it lies.
    points: Option<Points>,
}

/// The pixels of x that outputs see through the only tap: floats from one image, row and pixel to the next.
#[derive(Clone, Copy, Debug)]
struct Points {
    pitches: [usize; 3],
    /// Outputs of a group, which has one input.
    outputs: usize,
    /// Where each lane finds its input in a vector of them.
    indices: [u32; LANES],
}

impl Points {
    /// For groups of one input and filters of one element, all of whose outputs see the source.
    fn new(p: &Problem, isa: Isa) -> Option<Self> {
        let inside = |axis: usize| {
            matches!(p.taps[axis][..], [tap] if tap.offset == 0) && (p.out[axis] - 1) * p.step[axis] < p.src[axis]
        };
        let suits = p.k_c == 1 && isa.lanes().is_multiple_of(p.m_c) && inside(0) && inside(1);
        suits.then(|| Points {
            pitches: [p.src_image, p.step[0] * p.src_row, p.step[1] * p.src_pitch],
            outputs: p.m_c,
            indices: std::array::from_fn(|lane| (lane / p.m_c) as u32),
        })
    }
}

impl LanesWeightGrad {
    /// The plan, where this kernel suits the shape.
    pub fn choose(shape: &Conv2dShape, isa: Isa) -> Option<Self> {
        let mut problem = forward_problem(shape);
        problem.skip_unread();
        if !Lanes::suits(&problem, isa) {
            return None;
        }
        let (src_start, points) = (problem.src_start, Points::new(&problem, isa));
        let lanes = Lanes::new(problem, isa, Weights::forward(shape));
        let (rows, columns) = (shape.n * shape.oh(), shape.ow());
        let row_parts = columns.div_ceil(CHUNK_PIXELS);
        let shared = MIN_ITEMS.div_ceil(lanes.vectors()).min(rows);
        let chunks = if row_parts > 1 { rows * row_parts } else { rows.div_ceil(CHUNK_PIXELS / columns).max(shared) };
        Some(LanesWeightGrad { shape: *shape, lanes, src_start, row_parts, chunks, points })
    }

    pub fn kernel_name(&self) -> String {
        let kind = if self.lanes.is_depthwise() { "conv2d_depthwise" } else { "conv2d_grouped" };
        let sums = self.lanes.products().0.len().min(max_sums(self.lanes.isa()));
        format!("{kind}_weight_grad_f32_{sums}x{}_{}", self.lanes.tile().1, self.lanes.isa())
    }

    /// Floats of one chunk's sums, [vectors][products][lanes].
    fn chunk_floats(&self) -> usize {
        self.lanes.packed_len()
    }

    fn band_len(&self) -> usize {
        self.lanes.band_len().next_multiple_of(16) + 16
    }

    pub fn scratch_len(&self, threads: usize) -> usize {
        self.chunks * self.chunk_floats() + threads * self.band_len()
    }

    /// The output rows, over all images, and columns of a chunk.
    fn chunk(&self, chunk: usize) -> (Range<usize>, Range<usize>) {
        let columns = self.shape.ow();
        if self.row_parts > 1 {
            let row = chunk / self.row_parts;
            return (row..row + 1, part(columns, chunk % self.row_parts, self.row_parts));
        }
        (part(self.shape.n * self.shape.oh(), chunk, self.chunks), 0..columns)
    }

    /// Lengths were checked by the caller.
    pub fn run(&self, team: &Team, x: &[f32], dy: &[f32], dw: &mut [f32], scratch: &mut [f32]) {
        // Taps that see padding alone are not in the plan.
        if self.lanes.products().1.len() < self.shape.kh * self.shape.kw {
            dw.fill(0.0);
        }
        let x = x.get(self.src_start..).unwrap_or_default();
        let vectors = self.lanes.vectors();
        let vector_floats = self.lanes.products().0.len() * self.lanes.tile().1;
        let (sums, bands) = scratch.split_at_mut(self.chunks * self.chunk_floats());
        let (sums, bands, dw) = (DisjointMut::new(sums), DisjointMut::new(bands), DisjointMut::new(dw));
        team.run(|index, count| {
            // SAFETY: each thread has its own band, each item its own sums.
            unsafe {
                let band = bands.slice_mut(index * self.band_len()..(index + 1) * self.band_len());
                let block = if self.points.is_some() { POINT_VECTORS } else { 1 };
                let blocks = vectors.div_ceil(block);
                for item in part(self.chunks * blocks, index, count) {
                    let (chunk, first) = (item / blocks, item % blocks * block);
                    let range = chunk * vectors + first..chunk * vectors + vectors.min(first + block);
                    let sums = sums.slice_mut(range.start * vector_floats..range.end * vector_floats);
                    let item = Item { grad: self, x, dy, chunk, vector: first, sums, band: &mut *band };
                    match &self.points {
                        Some(points) => self.lanes.isa().dispatch(PointItem { item, points }),
                        None => self.lanes.isa().dispatch(item),
                    }
                }
            }
        });
        team.for_each(vectors, |vector| {
            let at = |chunk: usize| (chunk * vectors + vector) * vector_floats;
            // SAFETY: each task has its own vector of channels, in the sums and in the filters.
            unsafe {
                let slot = |chunk: usize| sums.slice_mut(at(chunk)..at(chunk) + vector_floats);
                let mut step = 1;
                while step < self.chunks {
                    for i in (0..self.chunks - step).step_by(2 * step) {
                        slot(i).iter_mut().zip(slot(i + step)).for_each(|(a, b)| *a += *b);
                    }
                    step *= 2;
                }
                self.write(vector, slot(0), dw);
            }
        });
    }

    /// Writes the sums of one vector into the filters.
    ///
    /// # Safety
    /// The vector's filters are the caller's alone.
    unsafe fn write(&self, vector: usize, sums: &[f32], dw: DisjointMut<f32>) {
        let (lanes, k) = (self.lanes.tile().1, self.shape.ic_per_group());
        let (area, (_, taps)) = (self.shape.kh * self.shape.kw, self.lanes.products());
        for lane in 0..lanes.min(self.shape.oc - vector * lanes) {
            let at = self.lanes.weight_index(vector * lanes + lane, 0, 0);
            // SAFETY: by contract.
            let filter = unsafe { dw.slice_mut(at..at + k * area) };
            for (t, &tap) in taps.iter().enumerate() {
                for j in 0..k {
                    filter[j * area + tap] = sums[(t * k + j) * lanes + lane];
                }
            }
        }
    }
}

/// One vector of channels over one chunk of pixels.
struct Item<'a> {
    grad: &'a LanesWeightGrad,
    x: &'a [f32],
    dy: &'a [f32],
    chunk: usize,
    vector: usize,
    /// [products][lanes].
    sums: &'a mut [f32],
    band: &'a mut [f32],
}

impl Kernel for Item<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (shape, lanes) = (&self.grad.shape, &self.grad.lanes);
        let (rows, columns) = self.grad.chunk(self.chunk);
        let (oh, ow, channel) = (shape.oh(), shape.ow(), self.vector * S::LANES);
        let (row_pitch, row_step) = lanes.row();
        let (offsets, _) = lanes.products();
        self.sums.fill(0.0);
        let mut row = rows.start;
        while row < rows.end {
            let (image, first) = (row / oh, row % oh);
            let count = lanes.band_rows().min(oh - first).min(rows.end - row);
            lanes.pack_planes(s, self.x, (image, first..first + count, self.vector), self.band);
            let passes = offsets.len().div_ceil(max_sums(S::ISA));
            // With one pass all is read once.
            let rows_in_cache = if passes == 1 { count } else { lanes.rows_within(PASS_BYTES).min(count) };
            for top in (0..count).step_by(rows_in_cache) {
                let pixels = Pixels {
                    rows: rows_in_cache.min(count - top),
                    columns: columns.len(),
                    x: self.band[top * row_step * row_pitch + columns.start * S::LANES..].as_ptr(),
                    x_pitch: row_step * row_pitch,
                    dy: self.dy[((row + top) * ow + columns.start) * shape.oc + channel..].as_ptr(),
                    dy_pitch: [ow * shape.oc, shape.oc],
                    n: (shape.oc - channel).min(S::LANES),
                };
                for pass in 0..passes {
                    let products = part(offsets.len(), pass, passes);
                    let sums = self.sums[products.start * S::LANES..products.end * S::LANES].as_mut_ptr();
                    // SAFETY: the planes hold what the rows' outputs see through every tap; dy holds the rows.
                    unsafe { run_pass(s, &pixels, &offsets[products], sums) };
                }
            }
            row += count;
        }
    }
}

/// Vectors of channels that lie beside each other and are summed together, where there is one product each.
const POINT_VECTORS: usize = 8;

/// [`POINT_VECTORS`] vectors of channels, or as many as `sums` holds, over one chunk of pixels.
struct PointItem<'a> {
    item: Item<'a>,
    points: &'a Points,
}

impl Kernel for PointItem<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let vectors = self.item.sums.len() / S::LANES;
        let channels = self.item.grad.shape.oc - self.item.vector * S::LANES;
        let whole = vectors == POINT_VECTORS && channels >= vectors * S::LANES;
        if whole {
            return match self.points.outputs {
                1 => self.sum::<S, POINT_VECTORS, false>(s, 0),
                _ => self.sum::<S, POINT_VECTORS, true>(s, 0),
            };
        }
        for vector in 0..vectors {
            match self.points.outputs {
                1 => self.sum::<S, 1, false>(s, vector),
                _ => self.sum::<S, 1, true>(s, vector),
            }
        }
    }
}

impl PointItem<'_> {
    /// `V` vectors from the item's vector `first` on. With `SPREAD` several outputs have the same input.
    #[inline(always)]
    fn sum<S: Simd, const V: usize, const SPREAD: bool>(&mut self, s: S, first: usize) {
        let (grad, x, dy) = (self.item.grad, self.item.x, self.item.dy);
        let (chunk, vector) = (self.item.chunk, self.item.vector);
        let (shape, points) = (&grad.shape, self.points);
        let (rows, columns) = grad.chunk(chunk);
        let channel = (vector + first) * S::LANES;
        let n = (shape.oc - channel).min(S::LANES);
        let inputs = if SPREAD { n.div_ceil(points.outputs) } else { n };
        let mut acc = [s.zero(); V];
        for row in rows {
            let (image, r) = (row / shape.oh(), row % shape.oh());
            let x = &x[image * points.pitches[0] + r * points.pitches[1] + channel / points.outputs..];
            let dy = &dy[row * shape.ow() * shape.oc + channel..];
            for c in columns.clone() {
                for (v, sum) in acc.iter_mut().enumerate() {
                    let from = x.as_ptr().wrapping_add(c * points.pitches[2] + v * S::LANES / points.outputs);
                    let output = dy.as_ptr().wrapping_add(c * shape.oc + v * S::LANES);
                    // SAFETY: the pixel is inside x and dy, and has these channels.
                    unsafe {
                        let output = if n == S::LANES { s.load(output) } else { s.load_partial(output, n) };
                        let input = if inputs == S::LANES { s.load(from) } else { s.load_partial(from, inputs) };
                        let input = if SPREAD { permute(s, input, &points.indices) } else { input };
                        *sum = s.mul_add(input, output, *sum);
                    }
                }
            }
        }
        let sums = &mut self.item.sums[first * S::LANES..(first + V) * S::LANES];
        for (sums, &sum) in sums.chunks_exact_mut(S::LANES).zip(&acc) {
            // SAFETY: a vector of the sums.
            unsafe { s.store(sums.as_mut_ptr(), sum) };
        }
    }
}

/// Output pixels, and where packed x and dy begin for the first.
struct Pixels {
    rows: usize,
    columns: usize,
    x: *const f32,
    /// Floats from row to row.
    x_pitch: usize,
    dy: *const f32,
    /// Floats from row to row and from pixel to pixel.
    dy_pitch: [usize; 2],
    /// Valid lanes of dy.
    n: usize,
}

/// Calls [`sum`] for a number of products from 1 to [`max_sums`].
///
/// # Safety
/// As [`sum`].
#[inline(always)]
unsafe fn run_pass<S: Simd>(s: S, pixels: &Pixels, offsets: &[usize], sums: *mut f32) {
    macro_rules! sums {
        ($($t:literal)*) => {
            match offsets.len() {
                $($t =>
                    // SAFETY: by contract.
                    unsafe { sum::<S, $t>(s, pixels, offsets, sums) },)*
                n => unreachable!("a pass of {n} sums"),
            }
        };
    }
    match S::ISA {
        Isa::Portable => sums!(1 2 3 4),
        _ => sums!(1 2 3 4 5 6 7 8 9 10 11 12),
    }
}

/// Pixels between which the places of a pass's products are not looked up again: there are more of them than registers for addresses.
const UNROLL: usize = 4;

/// Adds `x[pixel + offset] * dy[pixel]` over all pixels to each of `T` sums.
///
/// # Safety
/// x is readable for a vector at each pixel and offset, dy for `n` floats at each pixel; `sums` holds T vectors.
#[inline(always)]
unsafe fn sum<S: Simd, const T: usize>(s: S, pixels: &Pixels, offsets: &[usize], sums: *mut f32) {
    let offsets: [usize; T] = std::array::from_fn(|t| offsets[t]);
    let whole = pixels.columns / UNROLL * UNROLL;
    // SAFETY: by contract.
    unsafe {
        let mut acc: [S::V; T] = std::array::from_fn(|t| s.load(sums.add(t * S::LANES)));
        for row in 0..pixels.rows {
            let x = pixels.x.add(row * pixels.x_pitch);
            let at: [*const f32; T] = std::array::from_fn(|t| x.add(offsets[t]));
            let dy = pixels.dy.add(row * pixels.dy_pitch[0]);
            for c in (0..whole).step_by(UNROLL) {
                add_pixels::<S, T, UNROLL>(s, &mut acc, &at, dy, (c, pixels));
            }
            for c in whole..pixels.columns {
                add_pixels::<S, T, 1>(s, &mut acc, &at, dy, (c, pixels));
            }
        }
        for (t, &sum) in acc.iter().enumerate() {
            s.store(sums.add(t * S::LANES), sum);
        }
    }
}

/// Pixels that are asked for before they are read: a pixel's channels are far from the next one's.
const AHEAD: usize = 16;

/// Adds the products of `P` pixels from `column` on, one after the other, to each sum.
///
/// # Safety
/// As [`sum`].
#[inline(always)]
unsafe fn add_pixels<S: Simd, const T: usize, const P: usize>(
    s: S,
    acc: &mut [S::V; T],
    at: &[*const f32; T],
    dy: *const f32,
    (column, pixels): (usize, &Pixels),
) {
    let mut outputs = [s.zero(); P];
    // SAFETY: by contract; to ask for a line reads nothing.
    unsafe {
        for (p, output) in outputs.iter_mut().enumerate() {
            let dy = dy.add((column + p) * pixels.dy_pitch[1]);
            s.prefetch(dy.wrapping_add(AHEAD * pixels.dy_pitch[1]));
            *output = if pixels.n == S::LANES { s.load(dy) } else { s.load_partial(dy, pixels.n) };
        }
        for t in 0..T {
            let x = at[t].add(column * S::LANES);
            for (p, &output) in outputs.iter().enumerate() {
                acc[t] = s.mul_add(s.load(x.add(p * S::LANES)), output, acc[t]);
            }
        }
    }
}
