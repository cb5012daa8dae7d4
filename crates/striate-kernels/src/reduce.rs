//! Sums over the middle of `[outer, len, inner]`, in blocks whose number the shape alone decides, joined in f64.

use crate::kinds::ReduceKind;
use crate::mem::DisjointMut;
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::Team;

/// Rows that are summed in f32.
const BLOCK: usize = 256;

/// `[outer, len, inner]`, of which `len` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReduceShape {
    /// Kept, before.
    pub outer: usize,
    /// Summed over.
    pub len: usize,
    /// Kept, after.
    pub inner: usize,
}

impl ReduceShape {
    /// Rows of one block: for a sum of single numbers a row is a run of as many as a vector of any machine.
    fn row(&self) -> usize {
        if self.inner == 1 { LINE } else { self.inner }
    }

    fn rows(&self) -> usize {
        if self.inner == 1 { self.len.div_ceil(LINE) } else { self.len }
    }

    fn blocks(&self) -> usize {
        self.rows().div_ceil(BLOCK)
    }

    /// Floats of scratch.
    pub fn scratch_len(&self) -> usize {
        self.outer * self.blocks() * self.row()
    }
}

/// Numbers of a run in a sum to a single number.
const LINE: usize = 16;

/// True for the reductions that [`reduce`] does.
pub fn reduces(kind: ReduceKind) -> bool {
    matches!(kind, ReduceKind::Sum | ReduceKind::Mean | ReduceKind::SumSquare)
}

/// Sum, mean or sum of squares of `x` to `y` [outer, inner].
///
/// # Panics
/// Where a slice is too short, or for another kind.
pub fn reduce(
    team: &Team,
    isa: Isa,
    (kind, shape): (ReduceKind, ReduceShape),
    x: &[f32],
    y: &mut [f32],
    scratch: &mut [f32],
) {
    assert!(reduces(kind), "{kind:?}");
    let ReduceShape { outer, len, inner } = shape;
    assert!(x.len() == outer * len * inner && y.len() == outer * inner, "{kind:?} of {shape:?}");
    let (row, blocks) = (shape.row(), shape.blocks());
    if x.is_empty() {
        return y.fill(if kind == ReduceKind::Mean && len == 0 { f32::NAN } else { 0.0 });
    }
    let partials = &mut scratch[..shape.scratch_len()];
    let parts = DisjointMut::new(partials);
    let square = kind == ReduceKind::SumSquare;
    let grain = (8192 / (row * BLOCK.min(shape.rows()))).max(1);
    team.for_each((outer * blocks).div_ceil(grain), |task| {
        for unit in task * grain..(outer * blocks).min((task + 1) * grain) {
            let (o, block) = (unit / blocks, unit % blocks);
            let own = &x[o * len * inner..(o + 1) * len * inner];
            let part = &own[block * BLOCK * row..own.len().min((block + 1) * BLOCK * row)];
            // SAFETY: each unit has its own part.
            let sums = unsafe { parts.slice_mut(unit * row..(unit + 1) * row) };
            isa.dispatch(BlockSum { x: part, sums, square });
        }
    });
    let scale = if kind == ReduceKind::Mean { 1.0 / len as f64 } else { 1.0 };
    for o in 0..outer {
        let at = |block: usize, i: usize| f64::from(partials[(o * blocks + block) * row + i]);
        for i in 0..inner {
            let sum: f64 = match inner {
                1 => (0..blocks).flat_map(|b| (0..LINE).map(move |lane| (b, lane))).map(|(b, lane)| at(b, lane)).sum(),
                _ => (0..blocks).map(|b| at(b, i)).sum(),
            };
            y[o * inner + i] = (sum * scale) as f32;
        }
    }
}

/// The sum of rows, element by element; the last row may be short.
struct BlockSum<'a> {
    x: &'a [f32],
    sums: &'a mut [f32],
    square: bool,
}

impl Kernel for BlockSum<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let row = self.sums.len();
        for c in (0..row).step_by(S::LANES) {
            let mut sum = s.zero();
            for line in self.x.chunks(row) {
                let left = line.len().saturating_sub(c).min(row - c);
                if left == 0 {
                    continue;
                }
                // SAFETY: the load stops at the line's end.
                let v = unsafe { s.load_partial(line.as_ptr().add(c), left) };
                sum = if self.square { s.mul_add(v, v, sum) } else { s.add(sum, v) };
            }
            // SAFETY: the store stops at the row's end.
            unsafe { s.store_partial(self.sums.as_mut_ptr().add(c), row - c, sum) };
        }
    }
}
