//! Batch normalisation of evaluation, where no convolution takes it along: a scale and a shift a channel, and what follows.

use crate::conv::Activation;
use crate::mem::DisjointMut;
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::Team;
use std::ops::Range;

/// Floats that a task computes, about.
const PIECE: usize = 8192;

/// What [`affine`] reads.
#[derive(Clone, Copy, Debug)]
pub struct AffineArgs<'a> {
    /// `pixels` times C floats, `pitches[0]` floats from one pixel to the next.
    pub x: &'a [f32],
    /// Pixels of `x` and `y`.
    pub pixels: usize,
    /// Floats from one pixel to the next, in `x` and in `y`: at least C.
    pub pitches: [usize; 2],
    /// Weight, `[C]`.
    pub gamma: &'a [f32],
    /// Bias, `[C]`.
    pub beta: &'a [f32],
    /// Mean, `[C]`.
    pub mean: &'a [f32],
    /// Variance, `[C]`.
    pub variance: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
    /// Applied last.
    pub activation: Activation,
}

/// `y = activation((x - mean) / sqrt(variance + eps) * gamma + beta)`. `scratch` has 2 C floats.
///
/// ```
/// use striate_kernels::{affine::{AffineArgs, affine}, conv::Activation, simd::isa, threads::Team};
/// let (x, one, two, four) = ([1.0, 9.0, 3.0], [1.0], [2.0], [4.0]);
/// let args = AffineArgs {
///     x: &x, pixels: 2, pitches: [2, 1], gamma: &two, beta: &one, mean: &two, variance: &four, eps: 0.0, activation: Activation::Relu,
/// };
/// let mut y = [0.0; 2];
/// affine(&Team::new(1), isa(), args, &mut y, &mut [0.0; 2]);
/// assert_eq!(y, [0.0, 2.0]);
/// ```
///
/// # Panics
/// Where a slice is too short.
pub fn affine(team: &Team, isa: Isa, args: AffineArgs, y: &mut [f32], scratch: &mut [f32]) {
    let channels = args.gamma.len();
    if args.pixels == 0 || channels == 0 {
        return;
    }
    let reach = |pitch: usize| (args.pixels - 1) * pitch + channels;
    assert!(
        args.x.len() >= reach(args.pitches[0]) && y.len() >= reach(args.pitches[1]),
        "affine: a slice is too short"
    );
    assert!(args.pitches.iter().all(|&pitch| pitch >= channels), "affine: pitches {:?}", args.pitches);
    let (scale, shift) = scratch[..2 * channels].split_at_mut(channels);
    for c in 0..channels {
        let factor = f64::from(args.gamma[c]) / (f64::from(args.variance[c]) + f64::from(args.eps)).sqrt();
        scale[c] = factor as f32;
        shift[c] = (f64::from(args.beta[c]) - f64::from(args.mean[c]) * factor) as f32;
    }
    let factors = (&*scale, &*shift);
    let together = (PIECE / channels).max(1);
    let y = DisjointMut::new(y);
    team.for_each(args.pixels.div_ceil(together), |piece| {
        let pixels = piece * together..args.pixels.min((piece + 1) * together);
        isa.dispatch(Pixels { args, factors, pixels, y });
    });
}

struct Pixels<'a> {
    args: AffineArgs<'a>,
    factors: (&'a [f32], &'a [f32]),
    pixels: Range<usize>,
    y: DisjointMut<'a, f32>,
}

impl Kernel for Pixels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Pixels { args: AffineArgs { x, pitches, activation, .. }, factors: (scale, shift), pixels, y } = self;
        for pixel in pixels {
            let (x, y) = (x[pixel * pitches[0]..].as_ptr(), y.as_mut_ptr().wrapping_add(pixel * pitches[1]));
            for c in (0..scale.len()).step_by(S::LANES) {
                let n = scale.len() - c;
                // SAFETY: partial loads and stores stop at the end of the pixel's channels; each task has its own pixels.
                unsafe {
                    let factor = s.load_partial(scale.as_ptr().add(c), n);
                    let value =
                        s.mul_add(s.load_partial(x.add(c), n), factor, s.load_partial(shift.as_ptr().add(c), n));
                    let value = match activation {
                        Activation::None => value,
                        Activation::Relu => s.max(s.zero(), value),
                        other => other.apply_vector(s, value),
                    };
                    s.store_partial(y.add(c), n, value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::available_isas;

    #[test]
    fn agrees_with_the_formula_at_any_pitch_and_touches_nothing_else() {
        let of = |len: usize, step: f32| (0..len).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
        for (isa, channels) in available_isas().into_iter().flat_map(|isa| [1, 16, 37].map(|c| (isa, c))) {
            for activation in [Activation::None, Activation::Relu, Activation::Silu] {
                let (pixels, pitches) = (700, [channels + 3, channels + 1]);
                let x = of(pixels * pitches[0], 0.7);
                let (gamma, beta, mean) = (of(channels, 1.1), of(channels, 1.3), of(channels, 1.7));
                let variance: Vec<f32> = of(channels, 0.3).iter().map(|v| v * v + 0.1).collect();
                let args = AffineArgs {
                    x: &x,
                    pixels,
                    pitches,
                    gamma: &gamma,
                    beta: &beta,
                    mean: &mean,
                    variance: &variance,
                    eps: 1e-3,
                    activation,
                };
                let mut results = Vec::new();
                for threads in [1, 3] {
                    let mut y = vec![7.0; pixels * pitches[1]];
                    affine(&Team::new(threads), isa, args, &mut y, &mut vec![0.0; 2 * channels]);
                    results.push(y);
                }
                assert!(results[0] == results[1], "{isa}: other bits with 3 threads");
                for (i, y) in results[0].iter().enumerate() {
                    let (pixel, c) = (i / pitches[1], i % pitches[1]);
                    let want = match c < channels {
                        true => {
                            let centred = x[pixel * pitches[0] + c] - mean[c];
                            activation.apply(centred / (variance[c] + 1e-3).sqrt() * gamma[c] + beta[c])
                        }
                        false => 7.0,
                    };
                    assert!(
                        (y - want).abs() <= 2e-6 * (1.0 + want.abs()),
                        "{isa} {activation:?}: {y} at {i}, not {want}"
                    );
                }
            }
        }
    }
}
