//! Resampling of planes by sparse tables of weights, one per axis, with the rules of PyTorch's CPU upsampling.
use super::Float;
use crate::kinds::{Interpolation, ResizeSpec};

/// For each output position of one axis: which inputs it reads, with which weights.
#[derive(Clone, Debug, PartialEq)]
pub struct AxisTable {
    /// `starts[o]..starts[o + 1]` are the entries of output `o`.
    pub starts: Vec<usize>,
    /// Input positions; inside of one output ascending and without repetition.
    pub sources: Vec<usize>,
    /// Weights; they sum to 1 for each output.
    pub weights: Vec<f64>,
}

impl AxisTable {
    /// A table of these rows; neighbouring entries of the same source are added.
    pub fn from_rows(rows: impl Iterator<Item = Vec<(usize, f64)>>) -> Self {
        let mut table = Self { starts: vec![0], sources: Vec::new(), weights: Vec::new() };
        for row in rows {
            let begin = table.sources.len();
            for (source, weight) in row {
                if table.sources.len() > begin && table.sources.last() == Some(&source) {
                    *table.weights.last_mut().expect("as long as the sources") += weight;
                } else {
                    table.sources.push(source);
                    table.weights.push(weight);
                }
            }
            table.starts.push(table.sources.len());
        }
        table
    }

    /// The entries of one output.
    pub fn row(&self, o: usize) -> impl Iterator<Item = (usize, f64)> + Clone + '_ {
        (self.starts[o]..self.starts[o + 1]).map(|i| (self.sources[i], self.weights[i]))
    }

    /// The table of the adjoint: for each input, which outputs read it. `inputs` is the length of the input axis.
    pub fn transposed(&self, inputs: usize) -> Self {
        let mut rows = vec![Vec::new(); inputs];
        for o in 0..self.starts.len() - 1 {
            self.row(o).for_each(|(source, weight)| rows[source].push((o, weight)));
        }
        Self::from_rows(rows.into_iter())
    }
}

/// Keys' cubic convolution kernel with free coefficient `a` (1981).
pub(super) fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((x - 5.0) * x + 8.0) * x * a - 4.0 * a
    } else {
        0.0
    }
}

/// The weights along one axis (0 = height), `input` and `output` positions, neither 0.
///
/// Nearest positions are found in single precision as PyTorch does, all weights in double.
pub fn resize_axis_table(spec: &ResizeSpec, axis: usize, input: usize, output: usize) -> AxisTable {
    let ratio = match spec.scales {
        Some(scales) if scales[axis] > 0.0 => 1.0 / scales[axis],
        _ => input as f64 / output as f64,
    };
    let scale = match (spec.mode, spec.align_corners) {
        (Interpolation::Bilinear | Interpolation::Bicubic { .. }, true) if output == 1 => 0.0,
        (Interpolation::Bilinear | Interpolation::Bicubic { .. }, true) => (input - 1) as f64 / (output - 1) as f64,
        _ => ratio,
    };
    let last = (input - 1) as f64;
    let source_of = |o: usize| if spec.align_corners { scale * o as f64 } else { scale * (o as f64 + 0.5) - 0.5 };
    // PyTorch leaves such an axis alone, whatever the scale that was given.
    let untouched =
        input == output && (spec.antialias || matches!(spec.mode, Interpolation::Nearest | Interpolation::Bilinear));
    let row = |o: usize| match spec.mode {
        _ if untouched => vec![(o, 1.0)],
        Interpolation::Nearest => vec![(((o as f32 * scale as f32).floor() as usize).min(input - 1), 1.0)],
        Interpolation::NearestExact => {
            vec![((((o as f32 + 0.5) * scale as f32).floor() as usize).min(input - 1), 1.0)]
        }
        Interpolation::Bilinear if spec.antialias => antialias_row(spec, scale, input, o),
        Interpolation::Bicubic { .. } if spec.antialias => antialias_row(spec, scale, input, o),
        Interpolation::Bilinear => {
            let at = source_of(o).max(0.0);
            let first = (at.floor() as usize).min(input - 1);
            let fraction = (at - first as f64).clamp(0.0, 1.0);
            vec![(first, 1.0 - fraction), ((first + 1).min(input - 1), fraction)]
        }
        Interpolation::Bicubic { a } => {
            let at = source_of(o);
            let (first, fraction) = (at.floor(), at - at.floor());
            (-1..=2)
                .map(|k| {
                    let source = (first + f64::from(k)).clamp(0.0, last) as usize;
                    (source, cubic(fraction - f64::from(k), f64::from(a)))
                })
                .collect()
        }
    };
    AxisTable::from_rows((0..output).map(row))
}

/// One output of the widened filter (Pillow's and PyTorch's antialias): taps within the support, weights normalised.
fn antialias_row(spec: &ResizeSpec, scale: f64, input: usize, o: usize) -> Vec<(usize, f64)> {
    let (half_width, a) = match spec.mode {
        Interpolation::Bicubic { a } => (2.0, Some(f64::from(a))),
        _ => (1.0, None),
    };
    let shrink = scale.max(1.0);
    let support = half_width * shrink;
    // PyTorch's `align_corners` changes the scale alone here.
    let center = scale * (o as f64 + 0.5);
    let first = (center - support + 0.5).max(0.0) as usize;
    let end = ((center + support + 0.5).max(0.0) as usize).min(input);
    let weight = |j: usize| {
        let x = (j as f64 - center + 0.5) / shrink;
        a.map_or_else(|| (1.0 - x.abs()).max(0.0), |a| cubic(x, a))
    };
    let total: f64 = (first..end).map(weight).sum();
    (first..end).map(|j| (j, if total == 0.0 { 0.0 } else { weight(j) / total })).collect()
}

/// Sizes of a resampling of `planes` planes (N*C).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResizeShape {
    /// Number of planes.
    pub planes: usize,
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the output.
    pub output: [usize; 2],
}

/// `out[p, y, x] = Σ wy * wx * input[p, sy, sx]`.
pub fn reference_resize<T: Float>(spec: &ResizeSpec, shape: ResizeShape, x: &[T], out: &mut [T]) {
    let ResizeShape { planes, input, output } = shape;
    let tables = [0, 1].map(|a| resize_axis_table(spec, a, input[a], output[a]));
    for plane in 0..planes {
        for oy in 0..output[0] {
            for ox in 0..output[1] {
                let mut sum = 0.0;
                for (sy, wy) in tables[0].row(oy) {
                    for (sx, wx) in tables[1].row(ox) {
                        sum += wy * wx * x[(plane * input[0] + sy) * input[1] + sx].to_f64();
                    }
                }
                out[(plane * output[0] + oy) * output[1] + ox] = T::from_f64(sum);
            }
        }
    }
}

/// The adjoint of [`reference_resize`].
pub fn reference_resize_grad<T: Float>(spec: &ResizeSpec, shape: ResizeShape, dy: &[T], dx: &mut [T]) {
    let ResizeShape { planes, input, output } = shape;
    let tables = [0, 1].map(|a| resize_axis_table(spec, a, input[a], output[a]));
    let mut sums = vec![0.0; dx.len()];
    for plane in 0..planes {
        for oy in 0..output[0] {
            for ox in 0..output[1] {
                let g = dy[(plane * output[0] + oy) * output[1] + ox].to_f64();
                for (sy, wy) in tables[0].row(oy) {
                    for (sx, wx) in tables[1].row(ox) {
                        sums[(plane * input[0] + sy) * input[1] + sx] += wy * wx * g;
                    }
                }
            }
        }
    }
    dx.iter_mut().zip(sums).for_each(|(d, s)| *d = T::from_f64(s));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row1(mode: Interpolation, align_corners: bool, antialias: bool, x: &[f64], output: usize) -> Vec<f64> {
        let spec = ResizeSpec { mode, align_corners, antialias, scales: None };
        let shape = ResizeShape { planes: 1, input: [1, x.len()], output: [1, output] };
        let mut out = vec![0.0; output];
        reference_resize(&spec, shape, x, &mut out);
        out
    }

    fn near(a: &[f64], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(p, q)| (p - q).abs() < 2e-6)
    }

    /// Values of torch 2.15: `F.interpolate(torch.tensor([[[[1., 2., 4., 8.]]]]), (1, n), mode=...)`.
    #[test]
    fn values_of_torch() {
        use Interpolation::*;
        let x = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(row1(Nearest, false, false, &x, 6), [1.0, 1.0, 2.0, 4.0, 4.0, 8.0]);
        assert_eq!(row1(NearestExact, false, false, &x, 3), TORCH_EXACT_3);
        assert!(near(&row1(Bilinear, false, false, &x, 8), &TORCH_LINEAR_8));
        assert!(near(&row1(Bilinear, true, false, &x, 7), &TORCH_LINEAR_CORNERS_7));
        assert!(near(&row1(Bilinear, false, true, &x, 3), &TORCH_LINEAR_AA_3));
        assert!(near(&row1(Bicubic { a: -0.75 }, false, false, &x, 6), &TORCH_CUBIC_6));
        assert!(near(&row1(Bicubic { a: -0.5 }, false, true, &x, 3), &TORCH_CUBIC_AA_3));
    }

    const TORCH_EXACT_3: [f64; 3] = [1.0, 4.0, 8.0];
    const TORCH_LINEAR_8: [f64; 8] = [1.0, 1.25, 1.75, 2.5, 3.5, 5.0, 7.0, 8.0];
    const TORCH_LINEAR_CORNERS_7: [f64; 7] = [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0];
    const TORCH_LINEAR_AA_3: [f64; 3] = [1.3, 3.0, 6.8];
    const TORCH_CUBIC_6: [f64; 6] = [0.9131947, 1.3125, 2.304398, 3.383102, 6.1875, 8.347222];
    const TORCH_CUBIC_AA_3: [f64; 3] = [1.132723, 2.894396, 7.125858];

    #[test]
    fn gradient_is_the_adjoint() {
        let shape = ResizeShape { planes: 2, input: [4, 5], output: [7, 3] };
        for (mode, antialias) in [
            (Interpolation::Bilinear, true),
            (Interpolation::Bicubic { a: -0.75 }, false),
            (Interpolation::Nearest, false),
        ] {
            let spec = ResizeSpec { mode, align_corners: false, antialias, scales: None };
            let x: Vec<f64> = (0..40).map(|i| (i as f64 * 0.7).sin()).collect();
            let dy: Vec<f64> = (0..42).map(|i| (i as f64 * 1.3).cos()).collect();
            let (mut y, mut dx) = (vec![0.0; 42], vec![0.0; 40]);
            reference_resize(&spec, shape, &x, &mut y);
            reference_resize_grad(&spec, shape, &dy, &mut dx);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(p, q)| p * q).sum::<f64>();
            assert!((dot(&y, &dy) - dot(&x, &dx)).abs() < 1e-12, "{mode:?}");
        }
    }

    #[test]
    fn transposed_table_is_the_adjoint() {
        let spec = ResizeSpec {
            mode: Interpolation::Bicubic { a: -0.75 },
            align_corners: false,
            antialias: false,
            scales: None,
        };
        let table = resize_axis_table(&spec, 0, 5, 9);
        let back = table.transposed(5);
        assert_eq!(back.transposed(9), table);
        assert!((0..9).all(|o| (table.row(o).map(|e| e.1).sum::<f64>() - 1.0).abs() < 1e-12));
    }
}
