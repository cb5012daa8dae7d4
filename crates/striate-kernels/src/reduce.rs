//! Sums and extremes over the middle of `[outer, len, inner]`, in blocks whose number the shape alone decides, joined in f64.

use crate::elementwise::{load_up_to, store_up_to, tail_mask};
use crate::kinds::ReduceKind;
use crate::mem::DisjointMut;
use crate::parallel::over_rows;
use crate::reference::Float;
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

    /// Rows that are reduced some together, each in a lane.
    pub(crate) fn is_of_short_rows(&self) -> bool {
        self.inner == 1 && self.len <= SHORT
    }

    /// Floats of scratch.
    pub fn scratch_len(&self) -> usize {
        if self.is_of_short_rows() { 0 } else { self.outer * self.blocks() * self.row() }
    }
}

/// Numbers of a run in a sum to a single number.
pub(crate) const LINE: usize = 16;

/// Rows of at most so many numbers are reduced some together, each in a lane.
pub(crate) const SHORT: usize = 64;

/// Rows of `len` numbers, at most [`SHORT`] of them, as the columns of a tile: the first of each row, then the second of each.
#[inline(always)]
pub(crate) fn rows_as_columns(x: &[f32], len: usize, tile: &mut [f32; SHORT * LINE]) {
    for (row, values) in x.chunks_exact(len).take(LINE).enumerate() {
        tile[row..].iter_mut().step_by(LINE).zip(values).for_each(|(to, value)| *to = *value);
    }
}

/// True for the reductions that [`reduce`] does.
pub fn reduces(kind: ReduceKind) -> bool {
    !matches!(kind, ReduceKind::Prod | ReduceKind::LogSumExp)
}

/// A reduction of `x` to `y` [outer, inner].
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
    if x.is_empty() {
        return y.fill(match kind {
            ReduceKind::Mean if len == 0 => f32::NAN,
            ReduceKind::Max => f32::NEG_INFINITY,
            ReduceKind::Min => f32::INFINITY,
            _ => 0.0,
        });
    }
    if shape.is_of_short_rows() {
        return over_rows(team, 1, y, |rows, y| {
            isa.dispatch(ShortRows { kind, len, x: &x[rows.start * len..rows.end * len], y });
        });
    }
    let (row, blocks) = (shape.row(), shape.blocks());
    let partials = &mut scratch[..shape.scratch_len()];
    let parts = DisjointMut::new(partials);
    let grain = (8192 / (row * BLOCK.min(shape.rows()))).max(1);
    team.for_each((outer * blocks).div_ceil(grain), |task| {
        for unit in task * grain..(outer * blocks).min((task + 1) * grain) {
            let (o, block) = (unit / blocks, unit % blocks);
            let own = &x[o * len * inner..(o + 1) * len * inner];
            let part = &own[block * BLOCK * row..own.len().min((block + 1) * BLOCK * row)];
            // SAFETY: each unit has its own part.
            let sums = unsafe { parts.slice_mut(unit * row..(unit + 1) * row) };
            isa.dispatch(BlockFold { kind, x: part, sums });
        }
    });
    for o in 0..outer {
        for i in 0..inner {
            let lanes = if inner == 1 { 0..LINE } else { i..i + 1 };
            let parts = (0..blocks).flat_map(|b| lanes.clone().map(move |lane| (o * blocks + b) * row + lane));
            y[o * inner + i] = join(kind, len, parts.map(|at| f64::from(partials[at])));
        }
    }
}

/// Joins the partial results in order.
fn join(kind: ReduceKind, len: usize, parts: impl Iterator<Item = f64>) -> f32 {
    let result = match kind {
        ReduceKind::Max => parts.fold(f64::NEG_INFINITY, Float::maximum),
        ReduceKind::Min => parts.fold(f64::INFINITY, Float::minimum),
        ReduceKind::Mean => parts.sum::<f64>() / len as f64,
        ReduceKind::L2 => parts.sum::<f64>().sqrt(),
        _ => parts.sum(),
    };
    result as f32
}

/// Rows reduced to a number each.
struct ShortRows<'a> {
    kind: ReduceKind,
    len: usize,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for ShortRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ShortRows { kind, len, x, y } = self;
        let (mut tile, mut sums) = ([0.0; SHORT * LINE], [0.0; LINE]);
        for (x, y) in x.chunks(len * LINE).zip(y.chunks_mut(LINE)) {
            rows_as_columns(x, len, &mut tile);
            BlockFold { kind, x: &tile[..len * LINE], sums: &mut sums }.run(s);
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y = join(kind, len, std::iter::once(f64::from(sum))));
        }
    }
}

/// Rows folded into one, element by element; the last row may be short.
struct BlockFold<'a> {
    kind: ReduceKind,
    x: &'a [f32],
    sums: &'a mut [f32],
}

impl Kernel for BlockFold<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.kind {
            ReduceKind::SumSquare | ReduceKind::L2 => self.fold(s, 0.0, |acc, v| s.mul_add(v, v, acc)),
            ReduceKind::L1 => self.fold(s, 0.0, |acc, v| s.add(acc, s.abs(v))),
            // `max` and `min` give the second where one is NaN: then keep the first's NaN.
            ReduceKind::Max => {
                self.fold(s, f32::NEG_INFINITY, |acc, v| s.select(s.eq(acc, acc), s.max(acc, v), acc));
            }
            ReduceKind::Min => self.fold(s, f32::INFINITY, |acc, v| s.select(s.eq(acc, acc), s.min(acc, v), acc)),
            _ => self.fold(s, 0.0, |acc, v| s.add(acc, v)),
        }
    }
}

impl BlockFold<'_> {
    #[inline(always)]
    fn fold<S: Simd>(self, s: S, start: f32, f: impl Fn(S::V, S::V) -> S::V) {
        let row = self.sums.len();
        let start = s.splat(start);
        for c in (0..row).step_by(S::LANES) {
            let mut acc = start;
            for line in self.x.chunks(row) {
                let left = line.len().saturating_sub(c).min(row - c);
                if left > 0 {
                    // SAFETY: the load stops at the line's end.
                    let v = unsafe { load_up_to(s, line.as_ptr().add(c), left) };
                    acc = f(acc, if left < S::LANES { s.select(tail_mask(s, left), v, start) } else { v });
                }
            }
            // SAFETY: the store stops at the row's end.
            unsafe { store_up_to(s, self.sums.as_mut_ptr().add(c), row - c, acc) };
        }
    }
}
