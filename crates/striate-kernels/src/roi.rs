//! Pooling of regions of interest over NHWC: the mean of samples. A bin's samples stand on a lattice, so its mean is a small sum
//! over rows of pixels of their sums over columns; the weights of both are worked out once a region.

use crate::kinds::RoiAlignSpec;
use crate::parallel::over_rows;
use crate::reference::{AxisTable, RoiAlignShape, roi_axis_table};
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::Team;
use std::ops::Range;

/// `y` [regions, oh, ow, c] from `x` [n, h, w, c], regions `[x1, y1, x2, y2]` and the map of each.
///
/// # Panics
/// Where a slice is too short, a region names a map that is not there, or the spec asks for maxima.
pub fn roi_align(
    (team, isa): (&Team, Isa),
    spec: &RoiAlignSpec,
    shape: RoiAlignShape,
    (x, regions, batch): (&[f32], &[f32], &[i64]),
    y: &mut [f32],
) {
    assert!(!spec.max, "maxima of samples");
    let RoiAlignShape { n, channels, input, regions: count } = shape;
    assert!(x.len() == n * input[0] * input[1] * channels && regions.len() == 4 * count, "roi_align");
    assert!(batch.len() == count && batch.iter().all(|map| (0..n as i64).contains(map)), "maps of roi_align");
    over_rows(team, spec.out[0] * spec.out[1] * channels, y, |range, y| {
        isa.dispatch(Regions { spec, shape, x, regions, batch, range, y });
    });
}

struct Regions<'a> {
    spec: &'a RoiAlignSpec,
    shape: RoiAlignShape,
    x: &'a [f32],
    regions: &'a [f32],
    batch: &'a [i64],
    range: Range<usize>,
    y: &'a mut [f32],
}

/// Offsets in floats and weights of the pixels that a bin reads.
fn bin_pixels(tables: &[AxisTable; 2], [by, bx]: [usize; 2], pitch: [usize; 2], pixels: &mut Vec<(usize, f32)>) {
    pixels.clear();
    for (row, wy) in tables[0].row(by) {
        pixels.extend(tables[1].row(bx).map(|(column, wx)| (row * pitch[0] + column * pitch[1], (wy * wx) as f32)));
    }
}

impl Kernel for Regions<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Regions { spec, shape, x, regions, batch, range, y } = self;
        let (c_all, [h, w]) = (shape.channels, shape.input);
        let mut pixels = Vec::new();
        for (r, y) in range.zip(y.chunks_exact_mut((spec.out[0] * spec.out[1] * c_all).max(1))) {
            let region = [0, 1, 2, 3].map(|i| f64::from(regions[4 * r + i]));
            let tables = [0, 1].map(|axis| roi_axis_table(spec, axis, shape.input[axis], region));
            let image = &x[batch[r] as usize * h * w * c_all..][..h * w * c_all];
            for (bin, y) in y.chunks_exact_mut(c_all).enumerate() {
                bin_pixels(&tables, [bin / spec.out[1], bin % spec.out[1]], [w * c_all, c_all], &mut pixels);
                for c in (0..c_all).step_by(S::LANES) {
                    let left = c_all - c;
                    let mut sum = s.zero();
                    for &(at, weight) in &pixels {
                        // SAFETY: the tables name pixels of the map; partial loads stop at the end of the pixel's channels.
                        let v = unsafe { s.load_partial(image.as_ptr().add(at + c), left) };
                        sum = s.mul_add(v, s.splat(weight), sum);
                    }
                    // SAFETY: as above, in the bin.
                    unsafe { s.store_partial(y.as_mut_ptr().add(c), left, sum) };
                }
            }
        }
    }
}
