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

/// The pixels of a strip, packed or where they lie: the first, and floats from one to the next.
#[derive(Clone, Copy)]
pub(super) struct Pixels {
    pub(super) at: *const f32,
    pub(super) pitch: usize,
}

impl Pixels {
    #[inline(always)]
    fn get(&self, pixel: usize) -> *const f32 {
        self.at.wrapping_add(pixel * self.pitch)
    }
}

/// Adds to the tile `c`, [MR][NV * LANES], what the strip's pixels give under `tap`, one pixel after the other; starts from
/// zero where `fresh`. Fetches `ahead` on the way.
///
/// # Safety
/// `x` has MR channels of each of the strip's input pixels, `dy` NV vectors of each of its output pixels, as `strip` numbers
/// them; `c` holds the tile.
#[inline(always)]
pub(super) unsafe fn accumulate<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    g: &Geometry,
    strip: &Strip,
    tap: &Tap,
    [x, dy]: [Pixels; 2],
    c: *mut f32,
    (fresh, mut ahead): (bool, Lines),
) {
    let width = NV * S::LANES;
    let x_step = g.columns.stride * x.pitch;
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
            let (mut x_row, mut dy_row) = (x.get(pairs.x), dy.get(pairs.dy));
            for _ in 0..pairs.rows {
                let (mut xp, mut dyp) = (x_row, dy_row);
                for _ in 0..pairs.columns {
                    step::<S, MR, NV>(s, &mut acc, xp, dyp);
                    ahead.fetch_one(s);
                    xp = xp.wrapping_add(x_step);
                    dyp = dyp.wrapping_add(dy.pitch);
                }
                x_row = x_row.wrapping_add(pairs.x_pitch * x.pitch);
                dy_row = dy_row.wrapping_add(pairs.dy_pitch * dy.pitch);
            }
        }
        for (m, row) in acc.iter().enumerate() {
            for (v, &sum) in row.iter().enumerate() {
                s.store(c.add(m * width + v * S::LANES), sum);
            }
        }
    }
}
