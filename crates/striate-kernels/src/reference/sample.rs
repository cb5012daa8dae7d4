//! Sampling of maps at given places, with the rules of PyTorch's `grid_sample`, along any number of axes.
use super::Float;
use super::resize::cubic;
use super::shape::{strides_of, volume};
use crate::kinds::{GridSampleSpec, SampleMode, SamplePadding};

/// The free coefficient of the cubic, PyTorch's and ONNX's.
const CUBIC_A: f64 = -0.75;

/// Sizes of a sampling: `x` is `[n, channels, input…]`, the grid `[n, points, input.len()]`, the output `[n, channels, points]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GridSampleShape {
    /// Number of maps.
    pub n: usize,
    /// Channels of each.
    pub channels: usize,
    /// Lengths of a map's axes.
    pub input: Vec<usize>,
    /// Samples a map.
    pub points: usize,
}

/// What one sample reads along one axis.
#[derive(Clone, Copy, Debug, Default)]
struct Taps {
    count: usize,
    /// Positions; `None` beyond a border of zeros.
    at: [Option<usize>; 4],
    weights: [f64; 4],
    /// Derivatives of the weights by the grid's coordinate.
    slopes: [f64; 4],
}

/// Mirrors a coordinate into `low..=high`; gives the sign of its derivative too.
fn mirrored(x: f64, low: f64, high: f64) -> (f64, f64) {
    let span = high - low;
    if span <= 0.0 {
        return (low, 0.0);
    }
    let (offset, sign) = if x < low { (low - x, -1.0) } else { (x - low, 1.0) };
    let (flips, rest) = ((offset / span).floor(), offset % span);
    if flips % 2.0 == 0.0 { (low + rest, sign) } else { (high - rest, -sign) }
}

/// A coordinate moved into the map as the padding asks, and its derivative.
fn padded(spec: &GridSampleSpec, x: f64, size: usize) -> (f64, f64) {
    let last = size as f64 - 1.0;
    let (inside, slope) = match spec.padding {
        SamplePadding::Zeros => return (x, 1.0),
        SamplePadding::Border => (x, 1.0),
        SamplePadding::Reflection if spec.align_corners => mirrored(x, 0.0, last),
        SamplePadding::Reflection => mirrored(x, -0.5, last + 0.5),
    };
    match inside {
        _ if inside <= 0.0 => (0.0, 0.0),
        _ if inside >= last => (last, 0.0),
        _ => (inside, slope),
    }
}

fn inside(at: f64, size: usize) -> Option<usize> {
    (at >= 0.0 && at < size as f64).then_some(at as usize)
}

/// The derivative of Keys' kernel.
fn cubic_slope(x: f64) -> f64 {
    let (t, sign) = (x.abs(), if x < 0.0 { -1.0 } else { 1.0 });
    let slope = match t {
        _ if t < 1.0 => (3.0 * (CUBIC_A + 2.0) * t - 2.0 * (CUBIC_A + 3.0)) * t,
        _ if t < 2.0 => CUBIC_A * ((3.0 * t - 10.0) * t + 8.0),
        _ => 0.0,
    };
    sign * slope
}

fn taps(spec: &GridSampleSpec, coordinate: f64, size: usize) -> Taps {
    let scale = if spec.align_corners { (size as f64 - 1.0) / 2.0 } else { size as f64 / 2.0 };
    let x = (coordinate + 1.0) * scale - if spec.align_corners { 0.0 } else { 0.5 };
    let mut taps = Taps::default();
    match spec.mode {
        SampleMode::Nearest => {
            taps.count = 1;
            taps.at[0] = inside(padded(spec, x, size).0.round_ties_even(), size);
            taps.weights[0] = 1.0;
        }
        SampleMode::Linear => {
            let (x, slope) = padded(spec, x, size);
            let (first, fraction) = (x.floor(), x - x.floor());
            taps.count = 2;
            taps.at[..2].copy_from_slice(&[inside(first, size), inside(first + 1.0, size)]);
            taps.weights[..2].copy_from_slice(&[1.0 - fraction, fraction]);
            taps.slopes[..2].copy_from_slice(&[-slope * scale, slope * scale]);
        }
        SampleMode::Cubic => {
            let (first, fraction) = (x.floor(), x - x.floor());
            taps.count = 4;
            for k in 0..4 {
                let step = k as f64 - 1.0;
                // Here each pixel is moved, not the sample.
                taps.at[k] = inside(padded(spec, first + step, size).0.round_ties_even(), size);
                taps.weights[k] = cubic(fraction - step, CUBIC_A);
                taps.slopes[k] = cubic_slope(fraction - step) * scale;
            }
        }
    }
    taps
}

impl GridSampleShape {
    /// Number of elements of the input, the grid and the output.
    pub fn volumes(&self) -> [usize; 3] {
        let map = volume(&self.input);
        [self.n * self.channels * map, self.n * self.points * self.input.len(), self.n * self.channels * self.points]
    }

    /// Calls `visit` with the image, the point, and for each pixel that it reads the offset in the map and the weight; with
    /// `along`, the derivative of the weight along that axis.
    fn walk<T: Float>(
        &self,
        spec: &GridSampleSpec,
        grid: &[T],
        along: Option<usize>,
        mut visit: impl FnMut([usize; 2], &[(usize, f64)]),
    ) {
        let (rank, strides) = (self.input.len(), strides_of(&self.input));
        let mut pixels: Vec<(usize, f64)> = Vec::new();
        for n in 0..self.n {
            for point in 0..self.points {
                let place = &grid[(n * self.points + point) * rank..][..rank];
                pixels.clear();
                pixels.push((0, 1.0));
                for axis in 0..rank {
                    // The grid names the innermost axis first.
                    let taps = taps(spec, place[rank - 1 - axis].to_f64(), self.input[axis]);
                    let weights = if along == Some(axis) { taps.slopes } else { taps.weights };
                    let before = std::mem::take(&mut pixels);
                    for (offset, weight) in before {
                        for k in 0..taps.count {
                            if let Some(at) = taps.at[k].filter(|_| weights[k] != 0.0) {
                                pixels.push((offset + at * strides[axis], weight * weights[k]));
                            }
                        }
                    }
                }
                visit([n, point], &pixels);
            }
        }
    }
}

/// `out[n, c, p] = Σ weight * x[n, c, pixel]` over the pixels around the place `grid[n, p]`.
pub fn reference_grid_sample<T: Float>(
    spec: &GridSampleSpec,
    shape: &GridSampleShape,
    (x, grid): (&[T], &[T]),
    out: &mut [T],
) {
    let map = volume(&shape.input);
    shape.walk(spec, grid, None, |[n, point], pixels| {
        for c in 0..shape.channels {
            let plane = &x[(n * shape.channels + c) * map..][..map];
            let sum: f64 = pixels.iter().map(|&(at, weight)| weight * plane[at].to_f64()).sum();
            out[(n * shape.channels + c) * shape.points + point] = T::from_f64(sum);
        }
    });
}

/// The gradient of [`reference_grid_sample`] for `x`, its adjoint.
pub fn reference_grid_sample_input_grad<T: Float>(
    spec: &GridSampleSpec,
    shape: &GridSampleShape,
    (grid, dy): (&[T], &[T]),
    dx: &mut [T],
) {
    let map = volume(&shape.input);
    let mut sums = vec![0.0; dx.len()];
    shape.walk(spec, grid, None, |[n, point], pixels| {
        for c in 0..shape.channels {
            let plane = &mut sums[(n * shape.channels + c) * map..][..map];
            let g = dy[(n * shape.channels + c) * shape.points + point].to_f64();
            pixels.iter().for_each(|&(at, weight)| plane[at] += weight * g);
        }
    });
    dx.iter_mut().zip(sums).for_each(|(d, s)| *d = T::from_f64(s));
}

/// The gradient of [`reference_grid_sample`] for the grid. 0 where the sample was moved to the border, and for the nearest pixel.
pub fn reference_grid_sample_grid_grad<T: Float>(
    spec: &GridSampleSpec,
    shape: &GridSampleShape,
    (x, grid, dy): (&[T], &[T], &[T]),
    dgrid: &mut [T],
) {
    let (map, rank) = (volume(&shape.input), shape.input.len());
    for axis in 0..rank {
        shape.walk(spec, grid, Some(axis), |[n, point], pixels| {
            let mut sum = 0.0;
            for c in 0..shape.channels {
                let plane = &x[(n * shape.channels + c) * map..][..map];
                let slope: f64 = pixels.iter().map(|&(at, weight)| weight * plane[at].to_f64()).sum();
                sum += slope * dy[(n * shape.channels + c) * shape.points + point].to_f64();
            }
            dgrid[(n * shape.points + point) * rank + rank - 1 - axis] = T::from_f64(sum);
        });
    }
}
