//! The way of a band: transformed inputs, products, outputs.

use super::Winograd;
use super::lines::{input_line, output_line};
use crate::conv::bands::Band;
use crate::conv::direct::Buffers;
use crate::conv::epilogue::Activation;
use crate::conv::micro::{Block, run_pixels};
use crate::conv::stats;
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
fn for_each_tile<const M: usize>(plan: &Winograd, band: &Band, mut each: impl FnMut(usize, [usize; 3])) {
    let mut tile = 0;
    for image in band.images.clone() {
        for row in band.rows.clone().step_by(M) {
            for column in (0..plan.problem.out[1]).step_by(M) {
                each(tile, [image, row, column]);
                tile += 1;
            }
        }
    }
}

/// Tiles of inputs to [positions][tiles][channels].
struct TransformInputs<'a, const A: usize, const M: usize> {
    plan: &'a Winograd,
    x: &'a [f32],
    band: &'a Band,
    inputs: &'a mut [f32],
}

/// A tile of inputs in memory; rows and columns outside the image are zeros.
struct Patch {
    at: *const f32,
    row_pitch: usize,
    pitch: usize,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<const A: usize, const M: usize> Kernel for TransformInputs<'_, A, M> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (plan, p) = (self.plan, &self.plan.problem);
        let offset = [p.taps[0][0].offset, p.taps[1][0].offset];
        // The rows (or columns) of a tile that lie inside the source.
        let inside = |axis: usize, first: isize| {
            let size = p.src[axis] as isize;
            let (low, high) = ((-first).clamp(0, A as isize), (size - first).clamp(0, A as isize));
            low as usize..high.max(low) as usize
        };
        let to = self.inputs.as_mut_ptr();
        for_each_tile::<M>(plan, self.band, |tile, [image, row, column]| {
            let (row, column) = (row as isize + offset[0], column as isize + offset[1]);
            let pixel = ((image * p.src[0]) as isize + row) * p.src[1] as isize + column;
            let patch = Patch {
                at: self.x.as_ptr().wrapping_offset(pixel * p.k_c as isize),
                row_pitch: p.src[1] * p.k_c,
                pitch: p.k_c,
                rows: inside(0, row),
                columns: inside(1, column),
            };
            let whole = patch.rows == (0..A) && patch.columns == (0..A);
            for c in (0..p.k_c).step_by(S::LANES) {
                let n = p.k_c - c;
                // SAFETY: positions of the patch inside the source are read; the matrices have room for whole vectors.
                unsafe {
                    let to = to.add(tile * plan.inputs.tile + c);
                    let position = plan.inputs.position;
                    let from = |i: usize, j: usize| patch.at.wrapping_add(i * patch.row_pitch + j * patch.pitch + c);
                    if whole && n >= S::LANES {
                        transform_inputs::<S, A>(s, |i, j| s.load(from(i, j)), to, position);
                    } else {
                        let within = |i: usize, j: usize| patch.rows.contains(&i) && patch.columns.contains(&j);
                        let load = |i, j| if within(i, j) { s.load_partial(from(i, j), n) } else { s.zero() };
                        transform_inputs::<S, A>(s, load, to, position);
                    }
                }
            }
        });
    }
}

/// Transforms one vector of channels of one tile.
///
/// # Safety
/// `to` is writable for a vector at each of the A² positions.
#[inline(always)]
unsafe fn transform_inputs<S: Simd, const A: usize>(
    s: S,
    load: impl Fn(usize, usize) -> S::V,
    to: *mut f32,
    position: usize,
) {
    let mut rows = [[s.zero(); A]; A];
    for j in 0..A {
        let column = input_line::<S, A>(s, std::array::from_fn(|i| load(i, j)));
        for i in 0..A {
            rows[i][j] = column[i];
        }
    }
    for (i, row) in rows.into_iter().enumerate() {
        for (j, &value) in input_line(s, row).iter().enumerate() {
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
        let filters = &packed[self.channel::<S>() * A * A * k..];
        let width = self.nv * S::LANES;
        for position in 0..A * A {
            let block = Block {
                tiles: 0,
                x: inputs[position * plan.inputs.position..].as_ptr(),
                x_off: plan.input_off.as_ptr(),
                taps: &[0],
                run: k,
                w: filters[position * k * width..].as_ptr(),
                y: products[position * plan.products.position..].as_mut_ptr(),
                y_off: plan.product_off.as_ptr(),
                tail: S::LANES,
                bias: std::ptr::null(),
                residual: std::ptr::null(),
                activation: Activation::None,
            };
            run_pixels(s, plan.isa, (self.tiles::<M>(), self.nv), block);
        }
    }

    /// What the transform of the outputs leaves to do.
    #[inline(always)]
    fn finish<S: Simd>(&self, s: S, b: &Buffers, index: usize) {
        let (plan, p) = (self.plan, &self.plan.problem);
        let first = (self.band.images.start * p.dst[0] + self.band.rows.start) * p.dst[1] * p.m_c;
        let pixels = plan.bands.pixels(self.band);
        let written = stats::Written {
            y: b.y.as_mut_ptr().wrapping_add(first + self.channel::<S>()),
            offsets: &plan.y_off[..pixels],
            lanes: self.lanes::<S>(),
        };
        if !b.activation.is_hot() {
            // SAFETY: the outputs that this item has just written.
            unsafe { stats::activate(s, &written, b.activation) };
        }
        if let Some(partials) = b.partials {
            let first = index * plan.stat_blocks_per_band();
            // SAFETY: the outputs that this item has just written; their part of the partial statistics.
            unsafe { stats::block_statistics(s, &written, partials, first, p.m_c, self.channel::<S>()) };
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
        for_each_tile::<M>(plan, part.band, |tile, [image, row, column]| {
            let (rows, columns) = (M.min(part.band.rows.end - row), M.min(p.out[1] - column));
            let pixel = ((image * p.dst[0] + row) * p.dst[1] + column) * p.m_c + first;
            for c in (0..lanes).step_by(S::LANES) {
                let n = lanes - c;
                // SAFETY: the products of this tile; its outputs, which are this item's.
                unsafe {
                    let from = self.products.as_ptr().add(tile * plan.products.tile + c);
                    let values = transform_outputs::<S, A, M>(s, from, plan.products.position);
                    let bias = b.bias.map(|bias| s.load_partial(bias.as_ptr().add(first + c), n));
                    for (i, row) in values.iter().enumerate().take(rows) {
                        for (j, &value) in row.iter().enumerate().take(columns) {
                            let at = pixel + c + (i * p.dst[1] + j) * p.m_c;
                            let mut y = value;
                            if let Some(bias) = bias {
                                y = s.add(y, bias);
                            }
                            if let Some(residual) = b.residual {
                                y = s.add(y, s.load_partial(residual.as_ptr().add(at), n));
                            }
                            s.store_partial(b.y.as_mut_ptr().add(at), n, b.activation.apply_hot(s, y));
                        }
                    }
                }
            }
        });
    }
}

/// The outputs of one vector of channels of one tile.
///
/// # Safety
/// `from` is readable for a vector at each of the A² positions.
#[inline(always)]
unsafe fn transform_outputs<S: Simd, const A: usize, const M: usize>(
    s: S,
    from: *const f32,
    position: usize,
) -> [[S::V; M]; M] {
    let mut rows = [[s.zero(); A]; M];
    for j in 0..A {
        // SAFETY: by contract.
        let column: [S::V; A] = std::array::from_fn(|i| unsafe { s.load(from.add((i * A + j) * position)) });
        for (row, value) in rows.iter_mut().zip(output_line::<S, A, M>(s, column)) {
            row[j] = value;
        }
    }
    rows.map(|row| output_line::<S, A, M>(s, row))
}
