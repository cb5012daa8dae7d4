//! The two phases of a strip: transforms, and products with what follows them.

use super::{AREA, BLOCK, EDGE, Memory, WinogradWeightGrad, tile_of};
use crate::conv::weight_grad::store_transposed;
use crate::conv::winograd::lines::{filter_grad_line, output_grad_line};
use crate::conv::winograd::run::{Patch, transform_inputs};
use crate::conv::winograd::scattered;
use crate::simd::{Isa, Kernel, Simd};
use std::ops::Range;

/// Rows and columns of a transformed tile.
const A: usize = EDGE + 2;

/// Transforms some tiles of a strip, of the input and of the output's gradient.
pub(super) struct Transforms<'a> {
    pub plan: &'a WinogradWeightGrad,
    pub memory: &'a Memory,
    /// The strip's first tile.
    pub first: usize,
    /// Tiles of the strip.
    pub tiles: Range<usize>,
}

impl Kernel for Transforms<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (plan, shape) = (self.plan, &self.plan.shape);
        let [rows, columns] = plan.grid;
        let (oh, ow) = (shape.oh(), shape.ow());
        let (x_pitches, dy_pitches) = ([shape.iw * shape.ic, shape.ic], [ow * shape.oc, shape.oc]);
        for tile in self.tiles {
            let index = self.first + tile;
            let (image, row) = (index / (rows * columns), index / columns % rows * EDGE);
            let column = index % columns * EDGE;
            let first = [row as isize - shape.pads[0] as isize, column as isize - shape.pads[1] as isize];
            let x = self.memory.x.wrapping_add(image * shape.ih * x_pitches[0]);
            let input = Patch::new::<A>(x, [shape.ih, shape.iw], first, x_pitches);
            let [pitch, position] = plan.x;
            // SAFETY: the patch is of the input; the matrix has room for whole vectors of this tile, which is this thread's.
            unsafe { transform_x(s, input, shape.ic, self.memory.inputs.wrapping_add(tile * pitch), position) };
            let first = [row as isize, column as isize];
            let dy = self.memory.dy.wrapping_add(image * oh * dy_pitches[0]);
            let gradient = Patch::new::<EDGE>(dy, [oh, ow], first, dy_pitches);
            let [pitch, position] = plan.dy;
            // SAFETY: as above.
            unsafe { transform_dy(s, gradient, shape.oc, self.memory.outputs.wrapping_add(tile * pitch), position) };
        }
    }
}

/// All channels of one tile of inputs.
///
/// # Safety
/// The patch is inside the input; `to` has a whole number of vectors at each position.
#[inline(always)]
unsafe fn transform_x<S: Simd>(s: S, mut patch: Patch, channels: usize, to: *mut f32, position: usize) {
    let whole = patch.rows == (0..A) && patch.columns == (0..A);
    for c in (0..channels).step_by(S::LANES) {
        let n = channels - c;
        // SAFETY: by contract.
        unsafe {
            let columns = if whole && n >= S::LANES { patch.load::<S, A>(s) } else { patch.load_part::<S, A>(s, n) };
            transform_inputs::<S, A>(s, &columns, to.add(c), position);
        }
        patch.at = patch.at.wrapping_add(S::LANES);
    }
}

/// All channels of one tile of gradients.
///
/// # Safety
/// As [`transform_x`].
#[inline(always)]
unsafe fn transform_dy<S: Simd>(s: S, mut patch: Patch, channels: usize, to: *mut f32, position: usize) {
    let whole = patch.rows == (0..EDGE) && patch.columns == (0..EDGE);
    for c in (0..channels).step_by(S::LANES) {
        let n = channels - c;
        let mut columns = [[s.zero(); A]; EDGE];
        for (j, column) in columns.iter_mut().enumerate() {
            if !whole && !patch.columns.contains(&j) {
                continue;
            }
            let mut values = [s.zero(); EDGE];
            for (i, value) in values.iter_mut().enumerate() {
                if whole || patch.rows.contains(&i) {
                    let at = patch.at.wrapping_add(i * patch.row_pitch + j * patch.pitch);
                    // SAFETY: by contract.
                    *value = unsafe { if n >= S::LANES { s.load(at) } else { s.load_partial(at, n) } };
                }
            }
            *column = output_grad_line(s, values);
        }
        for i in 0..A {
            let mut row = [s.zero(); EDGE];
            for (value, column) in row.iter_mut().zip(&columns) {
                *value = column[i];
            }
            for (j, &value) in output_grad_line(s, row).iter().enumerate() {
                // SAFETY: by contract.
                unsafe { s.store(to.add((i * A + j) * position + c), value) };
            }
        }
        patch.at = patch.at.wrapping_add(S::LANES);
    }
}

/// The sums of a strip for a block of channels: products at each point, the last transform, and the tree.
pub(super) struct Products<'a> {
    pub plan: &'a WinogradWeightGrad,
    pub memory: &'a Memory,
    pub strip: usize,
    /// Tiles of the strip.
    pub tiles: usize,
    /// Vectors of output channels, and input channels.
    pub outputs: Range<usize>,
    pub inputs: Range<usize>,
    /// Of [`Products::scratch_len`] floats.
    pub scratch: *mut f32,
}

/// Floats of a row of a block of products, and of all its rows.
const ROW: usize = BLOCK + 16;
const ROWS: usize = BLOCK * ROW;

/// Sums after the last transform: vector `v` of the block begins at `at + v * pitch`, [input channels][taps][lanes].
#[derive(Clone, Copy)]
struct Sums {
    at: *mut f32,
    pitch: usize,
}

impl Kernel for Products<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let last = self.strip + 1 == self.plan.strips;
        let mut level = self.strip.count_ones() as usize;
        let alone = self.plan.strips == 1;
        // SAFETY: the scratch and the levels hold the block, which is this thread's alone.
        unsafe {
            self.multiply(s);
            for v in 0..self.outputs.len() {
                let sums = if alone { self.local::<S>() } else { self.level::<S>(level) };
                let at = sums.at.wrapping_add(if alone { 0 } else { v * sums.pitch });
                self.transform(s, v, at);
                if alone {
                    self.write(s, v, at);
                }
            }
            let merges = if last { level } else { self.strip.trailing_ones() as usize };
            for _ in 0..merges {
                self.merge(s, self.level::<S>(level), self.level::<S>(level - 1));
                level -= 1;
            }
            if last && !alone {
                let sums = self.level::<S>(0);
                (0..self.outputs.len()).for_each(|v| self.write(s, v, sums.at.wrapping_add(v * sums.pitch)));
            }
        }
    }
}

impl Products<'_> {
    /// Floats of one thread's scratch: the products of a block at all points, and one vector's filters.
    pub(super) fn scratch_len(isa: Isa) -> usize {
        AREA * scattered(ROWS) + BLOCK * 9 * isa.lanes()
    }

    /// One vector's filters, for a strip that is all there is.
    fn local<S: Simd>(&self) -> Sums {
        Sums { at: self.scratch.wrapping_add(AREA * scattered(ROWS)), pitch: BLOCK * 9 * S::LANES }
    }

    /// The block's part of a level of the tree.
    fn level<S: Simd>(&self, level: usize) -> Sums {
        let pitch = self.plan.vector_floats();
        let first = level * self.plan.level_floats() + self.outputs.start * pitch + self.inputs.start * 9 * S::LANES;
        Sums { at: self.memory.sums.wrapping_add(first), pitch }
    }

    /// The products of the block at each point.
    ///
    /// # Safety
    /// The matrices hold the strip's tiles, the scratch the block.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&self, s: S) {
        let [x_pitch, x_position] = self.plan.x;
        let [dy_pitch, dy_position] = self.plan.dy;
        for position in 0..AREA {
            let block = Block {
                tiles: self.tiles,
                x: self.memory.inputs.wrapping_add(position * x_position + self.inputs.start),
                x_pitch,
                dy: self.memory.outputs.wrapping_add(position * dy_position + self.outputs.start * S::LANES),
                dy_pitch,
                to: self.scratch.wrapping_add(position * scattered(ROWS)),
            };
            let size = (self.inputs.len(), self.outputs.len());
            // SAFETY: by contract.
            unsafe {
                // `const`, so that only the tile of this width is compiled.
                match const { tile_of(S::ISA) } {
                    (8, 2) => block.run::<S, 8, 2>(s, size),
                    (4, 2) => block.run::<S, 4, 2>(s, size),
                    _ => block.run::<S, 4, 1>(s, size),
                }
            }
        }
    }

    /// The last transform of vector `v`, to [input channels][taps][lanes].
    ///
    /// # Safety
    /// The products are there; `to` holds the block's input channels.
    #[inline(always)]
    unsafe fn transform<S: Simd>(&self, s: S, v: usize, to: *mut f32) {
        for c in 0..self.inputs.len() {
            let from = self.scratch.wrapping_add(c * ROW + v * S::LANES);
            let mut columns = [[s.zero(); 3]; A];
            for (j, column) in columns.iter_mut().enumerate() {
                let mut products = [s.zero(); A];
                for (i, product) in products.iter_mut().enumerate() {
                    // SAFETY: by contract.
                    *product = unsafe { s.load(from.add((i * A + j) * scattered(ROWS))) };
                }
                *column = filter_grad_line(s, products);
            }
            for i in 0..3 {
                let mut row = [s.zero(); A];
                for (value, column) in row.iter_mut().zip(&columns) {
                    *value = column[i];
                }
                for (j, &tap) in filter_grad_line(s, row).iter().enumerate() {
                    // SAFETY: by contract.
                    unsafe { s.store(to.add((c * 9 + i * 3 + j) * S::LANES), tap) };
                }
            }
        }
    }

    /// `to += from`.
    ///
    /// # Safety
    /// Both hold the block.
    #[inline(always)]
    unsafe fn merge<S: Simd>(&self, s: S, from: Sums, to: Sums) {
        for v in 0..self.outputs.len() {
            let (from, to) = (from.at.wrapping_add(v * from.pitch), to.at.wrapping_add(v * to.pitch));
            for i in (0..self.inputs.len() * 9 * S::LANES).step_by(S::LANES) {
                // SAFETY: by contract.
                unsafe { s.store(to.add(i), s.add(s.load(to.add(i)), s.load(from.add(i)))) };
            }
        }
    }

    /// Writes the filters of vector `v`, [input channels][taps][lanes], as OIHW.
    ///
    /// # Safety
    /// `from` holds them; this part of dw is this thread's.
    #[inline(always)]
    unsafe fn write<S: Simd>(&self, s: S, v: usize, from: *const f32) {
        let shape = &self.plan.shape;
        let (filter, first) = (shape.ic * 9, (self.outputs.start + v) * S::LANES);
        let dw = self.memory.dw.wrapping_add(first * filter + self.inputs.start * 9);
        let (outputs, taps) = (S::LANES.min(shape.oc - first), self.inputs.len() * 9);
        let whole = if outputs == S::LANES { taps / S::LANES * S::LANES } else { 0 };
        // SAFETY: by contract.
        unsafe {
            for tap in (0..whole).step_by(S::LANES) {
                let mut rows = [from; 16];
                for (i, row) in rows.iter_mut().enumerate() {
                    *row = from.wrapping_add((tap + i.min(S::LANES - 1)) * S::LANES);
                }
                store_transposed(s, &rows, dw.add(tap), filter);
            }
            for tap in whole..taps {
                for o in 0..outputs {
                    *dw.add(o * filter + tap) = *from.add(tap * S::LANES + o);
                }
            }
        }
    }
}

/// The products of a block at one point: `to[i][o] = sum over tiles of x[tile][i] * dy[tile][o]`.
#[derive(Clone, Copy)]
struct Block {
    tiles: usize,
    x: *const f32,
    x_pitch: usize,
    dy: *const f32,
    dy_pitch: usize,
    /// Rows of [`ROW`] floats.
    to: *mut f32,
}

impl Block {
    /// `inputs` channels by `outputs` vectors, in tiles of MR x NV.
    ///
    /// # Safety
    /// x has whole tiles of MR channels, dy whole vectors, `to` room for both.
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize, const NV: usize>(self, s: S, (inputs, outputs): (usize, usize)) {
        for o in (0..outputs).step_by(NV) {
            for i in (0..inputs).step_by(MR) {
                let tile = Block {
                    x: self.x.wrapping_add(i),
                    dy: self.dy.wrapping_add(o * S::LANES),
                    to: self.to.wrapping_add(i * ROW + o * S::LANES),
                    ..self
                };
                if outputs - o >= NV {
                    s.vectorize(Tile::<MR, NV>(tile));
                } else {
                    s.vectorize(Tile::<MR, 1>(tile));
                }
            }
        }
    }
}

struct Tile<const MR: usize, const NV: usize>(Block);

impl<const MR: usize, const NV: usize> Kernel for Tile<MR, NV> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Block { tiles, mut x, x_pitch, mut dy, dy_pitch, to } = self.0;
        let mut acc = [[s.zero(); NV]; MR];
        // SAFETY: by the contract of `Block::run`.
        unsafe {
            for _ in 0..tiles {
                let mut outputs = [s.zero(); NV];
                for (v, output) in outputs.iter_mut().enumerate() {
                    *output = s.load(dy.add(v * S::LANES));
                }
                for (m, row) in acc.iter_mut().enumerate() {
                    let value = s.splat(*x.add(m));
                    for (sum, &output) in row.iter_mut().zip(&outputs) {
                        *sum = s.mul_add(value, output, *sum);
                    }
                }
                x = x.wrapping_add(x_pitch);
                dy = dy.wrapping_add(dy_pitch);
            }
            for (m, row) in acc.iter().enumerate() {
                for (v, &sum) in row.iter().enumerate() {
                    s.store(to.add(m * ROW + v * S::LANES), sum);
                }
            }
        }
    }
}
