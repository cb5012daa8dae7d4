//! The microkernel of the weight gradient: outer products of `MR` input channels and `NV` vectors of output channels.

use super::geometry::{Geometry, Strip, Tap};
use crate::simd::Simd;

/// Adds one pixel's outer product.
///
/// # Safety
/// `x` is readable for MR floats, `dy` for NV vectors.
#[inline(always)]
unsafe fn step<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    acc: &mut [[S::V; NV]; MR],
    x: *const f32,
    dy: *const f32,
) {
    // SAFETY: by contract.
    unsafe {
        let outputs: [S::V; NV] = std::array::from_fn(|v| s.load(dy.add(v * S::LANES)));
        for (m, row) in acc.iter_mut().enumerate() {
            let value = s.splat(*x.add(m));
            for (sum, &output) in row.iter_mut().zip(&outputs) {
                *sum = s.mul_add(value, output, *sum);
            }
        }
    }
}

/// Cache lines that are asked for while products are summed, one a pixel, so that memory and arithmetic overlap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    pub(super) at: *const f32,
    pub(super) left: usize,
}

/// Floats of a cache line.
pub(super) const LINE: usize = 16;

impl Lines {
    /// No line.
    pub(super) fn none() -> Self {
        Lines { at: std::ptr::null(), left: 0 }
    }

    /// The lines of `count` floats.
    pub(super) fn of(at: *const f32, count: usize) -> Self {
        Lines { at, left: count.div_ceil(LINE) }
    }

    /// Takes the first `count` lines off.
    #[inline(always)]
    pub(super) fn take(&mut self, count: usize) -> Self {
        let taken = Lines { at: self.at, left: count.min(self.left) };
        *self = Lines { at: self.at.wrapping_add(taken.left * LINE), left: self.left - taken.left };
        taken
    }

    #[inline(always)]
    fn fetch_one<S: Simd>(&mut self, s: S) {
        if self.left > 0 {
            s.prefetch(self.at);
            *self = Lines { at: self.at.wrapping_add(LINE), left: self.left - 1 };
        }
    }
}

/// Adds to the tile `c`, [MR][NV * LANES], what the strip's pixels give under `tap`, one pixel after the other; starts from
/// zero where `fresh`. Fetches `ahead` on the way.
///
/// # Safety
/// `x` is the strip's packed channels, [pixels][MR], `dy` its packed outputs, [pixels][NV * LANES], as `strip` numbers them;
/// `c` holds the tile.
#[inline(always)]
pub(super) unsafe fn accumulate<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    g: &Geometry,
    strip: &Strip,
    tap: &Tap,
    [x, dy]: [*const f32; 2],
    c: *mut f32,
    (fresh, mut ahead): (bool, Lines),
) {
    let width = NV * S::LANES;
    let x_step = g.columns.stride * MR;
    // SAFETY: `Tap::pairs` yields pixels inside the strip's rectangles; the rest by contract.
    unsafe {
        let mut acc = [[s.zero(); NV]; MR];
        if !fresh {
            for (m, row) in acc.iter_mut().enumerate() {
                for (v, sum) in row.iter_mut().enumerate() {
                    *sum = s.load(c.add(m * width + v * S::LANES));
                }
            }
        }
        for piece in strip.pieces() {
            let Some(pairs) = tap.pairs(g, piece) else { continue };
            let (mut x_row, mut dy_row) = (x.add(pairs.x * MR), dy.add(pairs.dy * width));
            for _ in 0..pairs.rows {
                let (mut xp, mut dyp) = (x_row, dy_row);
                for _ in 0..pairs.columns {
                    step::<S, MR, NV>(s, &mut acc, xp, dyp);
                    ahead.fetch_one(s);
                    xp = xp.add(x_step);
                    dyp = dyp.add(width);
                }
                x_row = x_row.wrapping_add(pairs.x_pitch * MR);
                dy_row = dy_row.wrapping_add(pairs.dy_pitch * width);
            }
        }
        for (m, row) in acc.iter().enumerate() {
            for (v, &sum) in row.iter().enumerate() {
                s.store(c.add(m * width + v * S::LANES), sum);
            }
        }
    }
}
