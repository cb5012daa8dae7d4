//! Pooling of regions of interest, with the rules of torchvision's `roi_align` and ONNX's `RoiAlign`.
use super::{AxisTable, Float};
use crate::kinds::RoiAlignSpec;

/// Sizes of a pooling of regions: `x` is `[n, channels, height, width]`, the output `[regions, channels, out…]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoiAlignShape {
    /// Number of maps.
    pub n: usize,
    /// Channels of each.
    pub channels: usize,
    /// Height and width of the map.
    pub input: [usize; 2],
    /// Number of regions.
    pub regions: usize,
}

/// Two neighbours along an axis, with their weights; `None` more than a pixel beyond the border.
type Neighbours = Option<[(usize, f64); 2]>;

fn neighbours(x: f64, size: usize) -> Neighbours {
    if size == 0 || !(-1.0..=size as f64).contains(&x) {
        return None;
    }
    let x = x.max(0.0);
    let (first, last) = (x as usize, size - 1);
    let part = x - first as f64;
    Some(if first >= last { [(last, 1.0), (last, 0.0)] } else { [(first, 1.0 - part), (first + 1, part)] })
}

/// More samples along one axis of a bin than any region inside of a map has.
const MOST_SAMPLES: f64 = 4096.0;

/// The samples of each bin along one axis (0 = height) of a region `[x1, y1, x2, y2]`.
fn samples(spec: &RoiAlignSpec, axis: usize, size: usize, region: [f64; 4]) -> Vec<Vec<Neighbours>> {
    let (scale, offset) = (f64::from(spec.scale), if spec.aligned { 0.5 } else { 0.0 });
    let (start, end) = (region[1 - axis] * scale - offset, region[3 - axis] * scale - offset);
    let length = if spec.aligned { end - start } else { (end - start).max(1.0) };
    let bin = length / spec.out[axis].max(1) as f64;
    let count = match spec.sampling_ratio {
        0 => bin.ceil().clamp(0.0, MOST_SAMPLES) as usize,
        ratio => ratio,
    };
    let place = |b: usize, sample: usize| start + b as f64 * bin + (sample as f64 + 0.5) * bin / count as f64;
    (0..spec.out[axis]).map(|b| (0..count).map(|sample| neighbours(place(b, sample), size)).collect()).collect()
}

/// Which pixels of an axis the mean of a bin reads, with which weights. A bin's mean is the sum over both axes of pixel times
/// both weights, because all its samples stand on a lattice.
pub fn roi_axis_table(spec: &RoiAlignSpec, axis: usize, size: usize, region: [f64; 4]) -> AxisTable {
    let mean = |bin: Vec<Neighbours>| {
        let (mut row, count): (Vec<(usize, f64)>, f64) = (Vec::new(), bin.len() as f64);
        for (at, weight) in bin.into_iter().flatten().flatten().filter(|(_, weight)| *weight != 0.0) {
            match row.iter_mut().rev().take(2).find(|(known, _)| *known == at) {
                Some((_, sum)) => *sum += weight / count,
                None => row.push((at, weight / count)),
            }
        }
        row
    };
    AxisTable::from_rows(samples(spec, axis, size, region).into_iter().map(mean))
}

/// The product of pixel and weight that is greatest in a bin: its offset, its weight, its value. A sample beyond the border is 0.
fn greatest<T: Float>(bin: [&[Neighbours]; 2], width: usize, plane: &[T]) -> Option<(usize, f64, f64)> {
    let inside = |axis: usize| bin[axis].iter().flatten().flatten();
    let beyond = bin.iter().any(|axis| axis.iter().any(Option::is_none)) && bin.iter().all(|axis| !axis.is_empty());
    let products = inside(0).flat_map(|&(y, wy)| {
        inside(1).map(move |&(x, wx)| (y * width + x, wy * wx, wy * wx * plane[y * width + x].to_f64()))
    });
    let outside = beyond.then_some((0, 0.0, 0.0));
    products.chain(outside).reduce(|best, next| if next.2 > best.2 { next } else { best })
}

/// What a bin reads: calls `visit` with region, map and number of the bin, and with the pixels and weights of its mean.
fn for_each_mean<T: Float>(
    spec: &RoiAlignSpec,
    shape: RoiAlignShape,
    (regions, batch): (&[T], &[i64]),
    mut visit: impl FnMut([usize; 3], &[(usize, f64)]),
) {
    for r in 0..shape.regions {
        let region = [0, 1, 2, 3].map(|i| regions[4 * r + i].to_f64());
        let tables = [0, 1].map(|axis| roi_axis_table(spec, axis, shape.input[axis], region));
        for (by, bx) in (0..spec.out[0]).flat_map(|by| (0..spec.out[1]).map(move |bx| (by, bx))) {
            let row = |(y, wy): (usize, f64)| tables[1].row(bx).map(move |(x, wx)| (y * shape.input[1] + x, wy * wx));
            let pixels: Vec<(usize, f64)> = tables[0].row(by).flat_map(row).collect();
            visit([r, batch[r] as usize, by * spec.out[1] + bx], &pixels);
        }
    }
}

/// The maxima: calls `visit` with region, map, channel and bin, and with the pixel that won.
fn for_each_maximum<T: Float>(
    spec: &RoiAlignSpec,
    shape: RoiAlignShape,
    (x, regions, batch): (&[T], &[T], &[i64]),
    mut visit: impl FnMut([usize; 4], Option<(usize, f64, f64)>),
) {
    let map = shape.input[0] * shape.input[1];
    for r in 0..shape.regions {
        let region = [0, 1, 2, 3].map(|i| regions[4 * r + i].to_f64());
        let [rows, columns] = [0, 1].map(|axis| samples(spec, axis, shape.input[axis], region));
        let n = batch[r] as usize;
        for c in 0..shape.channels {
            let plane = &x[(n * shape.channels + c) * map..][..map];
            for (by, row) in rows.iter().enumerate() {
                for (bx, column) in columns.iter().enumerate() {
                    visit([r, n, c, by * spec.out[1] + bx], greatest([row, column], shape.input[1], plane));
                }
            }
        }
    }
}

/// The mean (or maximum) of the samples of each bin of each region. `regions` are `[x1, y1, x2, y2]`, `batch` the map of each.
///
/// # Panics
/// If a region names a map that is not there.
pub fn reference_roi_align<T: Float>(
    spec: &RoiAlignSpec,
    shape: RoiAlignShape,
    (x, regions, batch): (&[T], &[T], &[i64]),
    out: &mut [T],
) {
    let (map, bins) = (shape.input[0] * shape.input[1], spec.out[0] * spec.out[1]);
    if spec.max {
        return for_each_maximum(spec, shape, (x, regions, batch), |[r, _, c, bin], best| {
            out[(r * shape.channels + c) * bins + bin] = T::from_f64(best.map_or(0.0, |best| best.2));
        });
    }
    for_each_mean(spec, shape, (regions, batch), |[r, n, bin], pixels| {
        for c in 0..shape.channels {
            let plane = &x[(n * shape.channels + c) * map..][..map];
            let sum: f64 = pixels.iter().map(|&(at, weight)| weight * plane[at].to_f64()).sum();
            out[(r * shape.channels + c) * bins + bin] = T::from_f64(sum);
        }
    });
}

/// The gradient of [`reference_roi_align`] for `x`, which is read for maxima alone.
pub fn reference_roi_align_grad<T: Float>(
    spec: &RoiAlignSpec,
    shape: RoiAlignShape,
    (x, regions, batch): (&[T], &[T], &[i64]),
    dy: &[T],
    dx: &mut [T],
) {
    let (map, bins) = (shape.input[0] * shape.input[1], spec.out[0] * spec.out[1]);
    let mut sums = vec![0.0; dx.len()];
    let g = |r: usize, c: usize, bin: usize| dy[(r * shape.channels + c) * bins + bin].to_f64();
    if spec.max {
        for_each_maximum(spec, shape, (x, regions, batch), |[r, n, c, bin], best| {
            if let Some((at, weight, _)) = best.filter(|best| best.1 != 0.0) {
                sums[(n * shape.channels + c) * map + at] += weight * g(r, c, bin);
            }
        });
    } else {
        for_each_mean(spec, shape, (regions, batch), |[r, n, bin], pixels| {
            for c in 0..shape.channels {
                let plane = &mut sums[(n * shape.channels + c) * map..][..map];
                pixels.iter().for_each(|&(at, weight)| plane[at] += weight * g(r, c, bin));
            }
        });
    }
    dx.iter_mut().zip(sums).for_each(|(d, s)| *d = T::from_f64(s));
}
