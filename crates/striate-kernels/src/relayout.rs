//! Moving elements: between NCHW and NHWC, and by any strides.

use crate::mem::DisjointMut;
use crate::parallel::over_rows;
use crate::simd::{Kernel, Simd, isa};
use crate::threads::Team;

/// Side of the square tiles of a transposition: both sides' cache lines stay in the first cache.
const TILE: usize = 32;

/// `[n, rows, columns]` to `[n, columns, rows]`: NCHW to NHWC with the channels as rows, and back with them as columns.
///
/// # Panics
/// Where a slice does not have `n * rows * columns` floats.
pub fn transpose(team: &Team, [n, rows, columns]: [usize; 3], x: &[f32], y: &mut [f32]) {
    assert_eq!((x.len(), y.len()), (n * rows * columns, n * rows * columns), "[{n}, {rows}, {columns}]");
    if y.is_empty() {
        return;
    }
    match rows {
        2 => return interleave::<2>(team, columns, x, y),
        3 => return interleave::<3>(team, columns, x, y),
        4 => return interleave::<4>(team, columns, x, y),
        _ => {}
    }
    let strips = columns.div_ceil(TILE);
    let y = DisjointMut::new(y);
    team.for_each(n * strips, |task| {
        let (image, strip) = (task / strips, task % strips);
        let x = &x[image * rows * columns..][..rows * columns];
        let range = strip * TILE..columns.min((strip + 1) * TILE);
        let start = image * rows * columns;
        // SAFETY: each task has its own columns of x, which are rows of y.
        let y = unsafe { y.slice_mut(start + range.start * rows..start + range.end * rows) };
        for r0 in (0..rows).step_by(TILE) {
            let r1 = rows.min(r0 + TILE);
            for (line, c) in y.chunks_exact_mut(rows).zip(range.clone()) {
                for (out, row) in line[r0..r1].iter_mut().zip(r0..r1) {
                    *out = x[row * columns + c];
                }
            }
        }
    });
}

/// Floats that a task interleaves, about.
const PIECE: usize = 16384;

/// [`transpose`] of few rows: pictures, and the groups of a channel shuffle.
fn interleave<const R: usize>(team: &Team, columns: usize, x: &[f32], y: &mut [f32]) {
    // Parts of one long image, or several short ones.
    let strips = (R * columns).div_ceil(PIECE);
    let strip = columns.div_ceil(strips);
    let images = x.len() / (R * columns);
    let together = if strips > 1 { 1 } else { (PIECE / (R * columns)).max(1) };
    let y = DisjointMut::new(y);
    team.for_each(images.div_ceil(together) * strips, |task| {
        let (first, part) = (task / strips * together, task % strips);
        let range = part * strip..columns.min((part + 1) * strip);
        for image in first..images.min(first + together) {
            let start = image * R * columns;
            // SAFETY: each task has its own columns of its own images.
            let y = unsafe { y.slice_mut(start + range.start * R..start + range.end * R) };
            isa().dispatch(Interleave::<R> {
                rows: std::array::from_fn(|r| &x[start + r * columns..][range.clone()]),
                y,
            });
        }
    });
}

struct Interleave<'a, const R: usize> {
    rows: [&'a [f32]; R],
    y: &'a mut [f32],
}

impl<const R: usize> Kernel for Interleave<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let count = self.y.len() / R;
        let mut rows = [&[][..]; R];
        for r in 0..R {
            rows[r] = &self.rows[r][..count];
        }
        let y = &mut self.y[..count * R];
        for i in 0..count {
            for r in 0..R {
                y[i * R + r] = rows[r][i];
            }
        }
    }
}

/// Where the elements of a strided view lie: the first, and the distance from one to the next along each axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strided {
    /// Index of the first element.
    pub start: usize,
    /// Distance along each axis; may be negative, or 0 to repeat.
    pub strides: Vec<isize>,
}

/// Copies a strided view of `x` to a strided view of `y`, both of size `dims`; the elements of `y` must be distinct.
///
/// # Panics
/// Where an element lies outside its slice.
pub fn copy_strided(team: &Team, dims: &[usize], (x, from): (&[f32], &Strided), (y, to): (&mut [f32], &Strided)) {
    if dims.contains(&0) {
        return;
    }
    let Some((&inner, outer)) = dims.split_last() else {
        y[to.start] = x[from.start];
        return;
    };
    let (xs, ys) = (from.strides[outer.len()], to.strides[outer.len()]);
    check_bounds(dims, from, x.len());
    check_bounds(dims, to, y.len());
    let lines: usize = outer.iter().product();
    let grain = (8192 / inner).max(1);
    let y = DisjointMut::new(y);
    team.for_each(lines.div_ceil(grain), |piece| {
        for line in piece * grain..lines.min((piece + 1) * grain) {
            let (mut at, mut into, mut rest) = (from.start as isize, to.start as isize, line);
            for axis in (0..outer.len()).rev() {
                let index = (rest % outer[axis]) as isize;
                rest /= outer[axis];
                at += index * from.strides[axis];
                into += index * to.strides[axis];
            }
            if xs == 1 && ys == 1 {
                // SAFETY: inside y, as checked; lines are distinct by contract.
                let out = unsafe { y.slice_mut(into as usize..into as usize + inner) };
                out.copy_from_slice(&x[at as usize..at as usize + inner]);
                continue;
            }
            for i in 0..inner as isize {
                // SAFETY: as above.
                unsafe { *y.as_mut_ptr().offset(into + i * ys) = x[(at + i * xs) as usize] };
            }
        }
    });
}

/// The first and last element of a view lie inside a slice.
fn check_bounds(dims: &[usize], view: &Strided, len: usize) {
    assert_eq!(dims.len(), view.strides.len(), "strides of {dims:?}");
    let reach = |negative: bool| -> isize {
        let steps = dims.iter().zip(&view.strides).map(|(&d, &s)| (d as isize - 1) * s);
        steps.filter(|step| (*step < 0) == negative).sum()
    };
    let (low, high) = (view.start as isize + reach(true), view.start as isize + reach(false));
    assert!(low >= 0 && high < len as isize, "a view of {dims:?} reaches from {low} to {high} of {len}");
}

/// Copies; large arrays by several threads.
pub fn copy(team: &Team, x: &[f32], y: &mut [f32]) {
    over_rows(team, 1, y, |range, y| y.copy_from_slice(&x[range]));
}
