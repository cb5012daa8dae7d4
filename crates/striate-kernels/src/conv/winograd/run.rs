//! The way of a band: transformed inputs, products, outputs.

use super::lines::{input_line, output_line};
use super::{FILTERS_IN_CACHE, Winograd};
use crate::conv::bands::Band;
use crate::conv::direct::Buffers;
use crate::conv::micro::{Ahead, Block, run_pixels};
use crate::conv::stats::{self, Done};
use crate::simd::{Kernel, Simd};
use std::ops::Range;

/// The items of one thread, for tiles of `A x A` inputs and `M x M` outputs.
pub(super) struct Items<'a, const A: usize, const M: usize> {
    pub plan: &'a Winograd,
    pub buffers: &'a Buffers<'a>,
    pub range: Range<usize>,
    pub scratch: &'a mut [f32],
}

impl<const A: usize, const M: usize> Kernel for Items<'_, A, M> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let plan = self.plan;
        let blocks = plan.blocks();
        let (inputs, products) = self.scratch.split_at_mut(A * A * plan.inputs.position);
        let mut transformed = usize::MAX;
        for item in self.range {
            let (index, block) = (item / blocks, item % blocks);
            let band = plan.bands.get(index);
            if transformed != index {
                s.vectorize(TransformInputs::<A, M> { plan, x: self.buffers.x, band: &band, inputs });
                transformed = index;
            }
            let part = Part { plan, band: &band, block, nv: plan.nv.min(plan.vectors() - block * plan.nv) };
            part.multiply::<S, A, M>(s, self.buffers.packed, inputs, products);
            s.vectorize(TransformOutputs::<A, M> { part: &part, buffers: self.buffers, products });
            part.finish(s, self.buffers, index);
        }
    }
}

/// The tiles of a band, in order: image, and first row and column of the outputs.
#[inline(always)]
fn tiles<const M: usize>(plan: &Winograd, band: &Band) -> impl Iterator<Item = [usize; 3]> {
    let (rows, width) = (band.rows.clone(), plan.problem.out[1]);
    band.images.clone().flat_map(move |image| {
        let rows = rows.clone().step_by(M);
        rows.flat_map(move |row| (0..width).step_by(M).map(move |column| [image, row, column]))
    })
}

/// Tiles of inputs to [positions][tiles][channels].
struct TransformInputs<'a, const A: usize, const M: usize> {
    plan: &'a Winograd,
    x: &'a [f32],
    band: &'a Band,
    inputs: &'a mut [f32],
}

/// A tile of inputs in memory; rows and columns outside the image are zeros.
pub(super) struct Patch {
    pub at: *const f32,
    pub row_pitch: usize,
    pub pitch: usize,
    pub rows: Range<usize>,
    pub columns: Range<usize>,
}

impl<const A: usize, const M: usize> Kernel for TransformInputs<'_, A, M> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (plan, p) = (self.plan, &self.plan.problem);
        let to = self.inputs.as_mut_ptr();
        for (tile, [image, row, column]) in tiles::<M>(plan, self.band).enumerate() {
            let first = [row as isize + p.taps[0][0].offset, column as isize + p.taps[1][0].offset];
            let mut patch =
                Patch::new::<A>(self.x[image * p.src_image..].as_ptr(), p.src, first, [p.src_row, p.src_pitch]);
            let whole = patch.rows == (0..A) && patch.columns == (0..A);
            for c in (0..p.k_c).step_by(S::LANES) {
                // SAFETY: positions of the patch inside the source are read; the matrices have room for whole vectors.
                unsafe {
                    let to = to.add(tile * plan.inputs.tile + c);
                    let n = p.k_c - c;
                    let columns = if whole && n >= S::LANES { patch.load::<S, A>(s) } else { patch.load_part(s, n) };
                    transform_inputs::<S, A>(s, &columns, to, plan.inputs.position);
                }
                patch.at = patch.at.wrapping_add(S::LANES);
            }
        }
    }
}

/// The rows (or columns) of a tile that lie inside a source of `size`, where the tile's first is `first`.
pub(super) fn inside<const A: usize>(first: isize, size: usize) -> Range<usize> {
    let (low, high) = ((-first).clamp(0, A as isize), (size as isize - first).clamp(0, A as isize));
    low as usize..high.max(low) as usize
}

// Loops instead of closures here and below: a closure that is not inlined is compiled without the instruction set.
impl Patch {
    /// The `A x A` pixels from `first` on, in the image of `size` at `x`, with `pitches` floats from row to row and pixel to pixel.
    #[inline(always)]
    pub(super) fn new<const A: usize>(
        x: *const f32,
        size: [usize; 2],
        first: [isize; 2],
        [row_pitch, pitch]: [usize; 2],
    ) -> Self {
        Patch {
            at: x.wrapping_offset(first[0] * row_pitch as isize + first[1] * pitch as isize),
            row_pitch,
            pitch,
            rows: inside::<A>(first[0], size[0]),
            columns: inside::<A>(first[1], size[1]),
        }
    }

    /// The columns of a tile that lies inside the source, transformed.
    ///
    /// # Safety
    /// All of the tile is readable for a vector.
    #[inline(always)]
    pub(super) unsafe fn load<S: Simd, const A: usize>(&self, s: S) -> [[S::V; A]; A] {
        let mut columns = [[s.zero(); A]; A];
        for (j, column) in columns.iter_mut().enumerate() {
            for (i, value) in column.iter_mut().enumerate() {
                // SAFETY: by contract.
                *value = unsafe { s.load(self.at.add(i * self.row_pitch + j * self.pitch)) };
            }
            *column = input_line(s, *column);
        }
        columns
    }

    /// The same for a tile that the source's edge or the last vector cuts: `n` channels.
    ///
    /// # Safety
    /// The rows and columns inside the source are readable for `n` floats.
    #[inline(always)]
    pub(super) unsafe fn load_part<S: Simd, const A: usize>(&self, s: S, n: usize) -> [[S::V; A]; A] {
        let mut columns = [[s.zero(); A]; A];
        for (j, column) in columns.iter_mut().enumerate() {
            if !self.columns.contains(&j) {
                continue;
            }
            for (i, value) in column.iter_mut().enumerate() {
                if self.rows.contains(&i) {
                    let at = self.at.wrapping_add(i * self.row_pitch + j * self.pitch);
                    // SAFETY: by contract.
                    *value = unsafe { if n >= S::LANES { s.load(at) } else { s.load_partial(at, n) } };
                }
            }
            *column = input_line(s, *column);
        }
        columns
    }
}

/// Transforms the rows of one vector of channels of one tile, given its transformed columns, and stores them.
///
/// # Safety
/// `to` is writable for a vector at each of the A² positions.
#[inline(always)]
pub(super) unsafe fn transform_inputs<S: Simd, const A: usize>(
    s: S,
    columns: &[[S::V; A]; A],
    to: *mut f32,
    position: usize,
) {
    for i in 0..A {
        let mut row = columns[0];
        for j in 0..A {
            row[j] = columns[j][i];
        }
        row = input_line(s, row);
        for (j, &value) in row.iter().enumerate() {
            // SAFETY: by contract.
            unsafe { s.store(to.add((i * A + j) * position), value) };
        }
    }
}

/// One block of output channels of one band.
struct Part<'a> {
    plan: &'a Winograd,
    band: &'a Band,
    block: usize,
    nv: usize,
}

impl Part<'_> {
    fn channel<S: Simd>(&self) -> usize {
        self.block * self.plan.nv * S::LANES
    }

    /// Output channels.
    fn lanes<S: Simd>(&self) -> usize {
        (self.plan.problem.m_c - self.channel::<S>()).min(self.nv * S::LANES)
    }

    fn tiles<const M: usize>(&self) -> usize {
        let columns = self.plan.problem.out[1].div_ceil(M);
        self.band.images.len() * self.band.rows.len().div_ceil(M) * columns
    }

    /// [positions][tiles][channels] times the filters.
    #[inline(always)]
    fn multiply<S: Simd, const A: usize, const M: usize>(
        &self,
        s: S,
        packed: &[f32],
        inputs: &[f32],
        products: &mut [f32],
    ) {
        let (plan, k) = (self.plan, self.plan.problem.k_c);
        let (pitch, first) = (plan.filters_pitch(), self.block * A * A);
        let streamed = packed.len() > FILTERS_IN_CACHE;
        for position in 0..A * A {
            let next = (first + position + 1) * pitch;
            let ahead = match streamed && next < packed.len() {
                true => Ahead::new(&packed[next..next + k * self.nv * S::LANES]),
                false => Ahead::default(),
            };
            let block = Block {
                x: inputs[position * plan.inputs.position..].as_ptr(),
                x_off: plan.input_off.as_ptr(),
                run: k,
                w: packed[(first + position) * pitch..].as_ptr(),
                y: products[position * plan.products.position..].as_mut_ptr(),
                y_off: plan.product_off.as_ptr(),
                tail: S::LANES,
                ahead,
                ..Block::BARE
            };
            run_pixels(s, plan.isa, (self.tiles::<M>(), self.nv), block);
        }
    }

    /// What the transform of the outputs leaves to do.
    #[inline(always)]
    fn finish<S: Simd>(&self, s: S, b: &Buffers, index: usize) {
        let (plan, p) = (self.plan, &self.plan.problem);
        let at = p.dst_pixel(self.band.images.start, [self.band.rows.start, 0]) + self.channel::<S>();
        let offsets = &plan.y_off[..plan.bands.pixels(self.band)];
        let (channel, lanes) = (self.channel::<S>(), self.lanes::<S>());
        let done = Done { at, offsets, channel, lanes, channels: p.m_c };
        // SAFETY: the outputs that this item has just written, masked; their part of the partial statistics.
        unsafe {
            done.finish(s, &Buffers { mask: None, ..*b });
            done.statistics(s, b, &plan.bands, index);
        }
    }
}

/// Products to outputs, with the epilogue.
struct TransformOutputs<'a, const A: usize, const M: usize> {
    part: &'a Part<'a>,
    buffers: &'a Buffers<'a>,
    products: &'a [f32],
}

impl<const A: usize, const M: usize> Kernel for TransformOutputs<'_, A, M> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (part, b) = (self.part, self.buffers);
        let (plan, p) = (part.plan, &part.plan.problem);
        let (first, lanes) = (part.channel::<S>(), part.lanes::<S>());
        for (tile, [image, row, column]) in tiles::<M>(plan, part.band).enumerate() {
            let (rows, columns) = (M.min(part.band.rows.end - row), M.min(p.out[1] - column));
            let pixel = p.dst_pixel(image, [row, column]) + first;
            let [row_pitch, pitch] = p.dst_pitches();
            for c in (0..lanes).step_by(S::LANES) {
                let n = lanes - c;
                let target = Target { at: pixel + c, channel: first + c, row_pitch, pitch };
                // SAFETY: the products of this tile; its outputs, which are this item's.
                unsafe {
                    let from = self.products.as_ptr().add(tile * plan.products.tile + c);
                    let columns_of = transform_columns::<S, A, M>(s, from, plan.products.position);
                    if n >= S::LANES && rows == M && columns == M {
                        target.store::<S, A, M>(s, &columns_of, b, (M, M, S::LANES));
                    } else {
                        target.store::<S, A, M>(s, &columns_of, b, (rows, columns, n));
                    }
                }
            }
        }
    }
}

/// The products' columns of one vector of channels of one tile, transformed: [columns][rows].
///
/// # Safety
/// `from` is readable for a vector at each of the A² positions.
#[inline(always)]
unsafe fn transform_columns<S: Simd, const A: usize, const M: usize>(
    s: S,
    from: *const f32,
    position: usize,
) -> [[S::V; M]; A] {
    let mut columns = [[s.zero(); M]; A];
    for (j, column) in columns.iter_mut().enumerate() {
        let mut products = [s.zero(); A];
        for (i, product) in products.iter_mut().enumerate() {
            // SAFETY: by contract.
            *product = unsafe { s.load(from.add((i * A + j) * position)) };
        }
        *column = output_line(s, products);
    }
    columns
}

/// Where the outputs of one vector of channels of one tile go, in floats.
struct Target {
    at: usize,
    /// The first output channel.
    channel: usize,
    row_pitch: usize,
    pitch: usize,
}

impl Target {
    /// Transforms the rows, applies the epilogue, and writes the first `rows`, `columns` and lanes.
    ///
    /// # Safety
    /// These outputs are the caller's, and bias and residual have the sizes of the problem.
    #[inline(always)]
    unsafe fn store<S: Simd, const A: usize, const M: usize>(
        &self,
        s: S,
        columns_of: &[[S::V; M]; A],
        b: &Buffers,
        (rows, columns, n): (usize, usize, usize),
    ) {
        // SAFETY: by contract.
        unsafe {
            let bias = match b.bias {
                Some(bias) => s.load_partial(bias.as_ptr().add(self.channel), n),
                None => s.zero(),
            };
            for i in 0..M {
                let mut products = [s.zero(); A];
                for (j, product) in products.iter_mut().enumerate() {
                    *product = columns_of[j][i];
                }
                let outputs: [S::V; M] = output_line(s, products);
                for (j, &output) in outputs.iter().enumerate() {
                    if i < rows && j < columns {
                        let at = self.at + i * self.row_pitch + j * self.pitch;
                        let mut y = if b.bias.is_some() { s.add(output, bias) } else { output };
                        if let Some(residual) = b.residual {
                            y = s.add(y, s.load_partial(residual.as_ptr().add(at), n));
                        }
                        y = b.activation.apply_hot(s, y);
                        if let Some((mask, bounds)) = b.mask {
                            y = stats::gated(s, y, s.load_partial(mask.as_ptr().add(at), n), bounds);
                        }
                        s.store_partial(b.y.as_mut_ptr().add(at), n, y);
                    }
                }
            }
        }
    }
}
