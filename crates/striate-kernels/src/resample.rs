//! Weighted windows over NHWC: average pooling, resizing, and the gradients of both.
//!
//! All four are sums over a few pixels whose weights are a product of one for the row and one for the column. So one kernel
//! does them: it walks a sparse table of weights for each axis, and a gradient is the same walk by the transposed tables. Every
//! output pixel is gathered, never scattered, so rows may be shared among threads at will.

use crate::elementwise::{load_up_to, store_up_to};
use crate::kinds::{AvgDivisor, ResizeSpec};
use crate::parallel::over_rows;
use crate::reference::{AxisTable, PoolShape, ResizeShape, resize_axis_table};
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::Team;
use std::ops::Range;

/// A weighted sum of windows over `[n, h, w, c]`, its weights worked out.
#[derive(Clone, Debug)]
pub struct ResamplePlan {
    n: usize,
    channels: usize,
    input: [usize; 2],
    tables: [AxisTable; 2],
}

impl ResamplePlan {
    /// Resizing of `n` images of `channels` channels; the shape's planes are not looked at. No size may be 0.
    pub fn resize(spec: &ResizeSpec, n: usize, channels: usize, shape: ResizeShape) -> Self {
        let ResizeShape { input, output, .. } = shape;
        let tables = [0, 1].map(|axis| resize_axis_table(spec, axis, input[axis], output[axis]));
        ResamplePlan { n, channels, input, tables }
    }

    /// Average pooling of `n` images of `channels` channels; the shape's planes are not looked at.
    pub fn avg_pool(divisor: AvgDivisor, n: usize, channels: usize, shape: &PoolShape) -> Self {
        let tables = [0, 1].map(|axis| {
            AxisTable::from_rows((0..shape.output[axis]).map(|o| {
                let window = shape.window(axis, o);
                let count = match divisor {
                    AvgDivisor::IncludePad => window.padded,
                    AvgDivisor::ExcludePad => window.inside,
                    // The constant is for the whole window: the columns take it.
                    AvgDivisor::Const(d) => [1, d][axis],
                };
                window.positions().map(|at| (at, 1.0 / count as f64)).collect()
            }))
        });
        ResamplePlan { n, channels, input: shape.input, tables }
    }

    /// The gradient of this plan: from its output's gradient to its input's.
    pub fn transposed(&self) -> Self {
        let tables = [0, 1].map(|axis| self.tables[axis].transposed(self.input[axis]));
        ResamplePlan { n: self.n, channels: self.channels, input: self.output(), tables }
    }

    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.tables[axis].starts.len() - 1)
    }

    /// `y` [n, oh, ow, c] from `x` [n, h, w, c].
    ///
    /// # Panics
    /// Where a slice has another length.
    pub fn run(&self, team: &Team, isa: Isa, x: &[f32], y: &mut [f32]) {
        let ([h, w], [oh, ow]) = (self.input, self.output());
        assert_eq!(x.len(), self.n * h * w * self.channels, "input of a resampling from {h}x{w} to {oh}x{ow}");
        assert_eq!(y.len(), self.n * oh * ow * self.channels, "output of a resampling from {h}x{w} to {oh}x{ow}");
        over_rows(team, ow * self.channels, y, |lines, y| isa.dispatch(Rows { plan: self, lines, x, y }));
    }
}

struct Rows<'a> {
    plan: &'a ResamplePlan,
    /// Output rows of all images.
    lines: Range<usize>,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Rows { plan, lines, x, y } = self;
        let (c_all, [h, w], [oh, ow]) = (plan.channels, plan.input, plan.output());
        for (line, y) in lines.zip(y.chunks_exact_mut((ow * c_all).max(1))) {
            let image = &x[line / oh * h * w * c_all..][..h * w * c_all];
            for (column, y) in y.chunks_exact_mut(c_all).enumerate() {
                let pixel = Pixel { plan, image, row: line % oh, column };
                let mut c = 0;
                while c + 4 * S::LANES <= c_all {
                    pixel.sum::<S, 4>(s, c, y);
                    c += 4 * S::LANES;
                }
                while c < c_all {
                    pixel.sum::<S, 1>(s, c, y);
                    c += S::LANES;
                }
            }
        }
    }
}

/// One output pixel.
struct Pixel<'a> {
    plan: &'a ResamplePlan,
    image: &'a [f32],
    row: usize,
    column: usize,
}

impl Pixel<'_> {
    /// Its channels from `c` on, `NV` vectors of them, to `y` [channels].
    #[inline(always)]
    fn sum<S: Simd, const NV: usize>(&self, s: S, c: usize, y: &mut [f32]) {
        let (c_all, w) = (self.plan.channels, self.plan.input[1]);
        let mut sums = [s.zero(); NV];
        for (row, wy) in self.plan.tables[0].row(self.row) {
            for (column, wx) in self.plan.tables[1].row(self.column) {
                let weight = s.splat((wy * wx) as f32);
                let at = (row * w + column) * c_all;
                for v in 0..NV {
                    let c = c + v * S::LANES;
                    // SAFETY: inside the image, as its length was checked and tables stay below its sides; loads stop at
                    // the end of the pixel's channels.
                    let x = unsafe { load_up_to(s, self.image.as_ptr().add(at + c), c_all - c) };
                    sums[v] = s.mul_add(x, weight, sums[v]);
                }
            }
        }
        for v in 0..NV {
            let c = c + v * S::LANES;
            // SAFETY: the store stops at the end of the pixel's channels.
            unsafe { store_up_to(s, y.as_mut_ptr().add(c), c_all - c, sums[v]) };
        }
    }
}
