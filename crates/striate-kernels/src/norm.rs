//! Batch normalisation over `[pixels, channels]`, the channels neighbours in memory.
//!
//! Sums over pixels are cut into blocks of `BLOCK` pixels, summed in f32 inside and joined in f64 in the order of the
//! blocks, whatever the number of threads.

use crate::conv::Activation;
use crate::mem::DisjointMut;
use crate::parallel::over_rows;
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::Team;

/// Pixels whose sums are taken in f32.
const BLOCK: usize = 256;

/// Floats of scratch that the sums over `pixels` need, at most three numbers a block and channel.
pub fn norm_scratch_len(pixels: usize, channels: usize) -> usize {
    3 * pixels.div_ceil(BLOCK) * channels
}

/// Mean and biased variance of each channel, to `moments` [2, C].
///
/// # Panics
/// Where a slice is too short.
pub fn moments(team: &Team, isa: Isa, x: &[f32], out: &mut [f32], scratch: &mut [f32]) {
    let channels = out.len() / 2;
    if x.is_empty() {
        return out.fill(0.0);
    }
    let pixels = x.len() / channels;
    let blocks = pixels.div_ceil(BLOCK);
    let partials = &mut scratch[..3 * blocks * channels];
    over_blocks(team, partials, 3 * channels, |block, partial| {
        let x = &x[block * BLOCK * channels..channels * pixels.min((block + 1) * BLOCK)];
        isa.dispatch(BlockMoments { x, partial });
    });
    let (mean, variance) = out.split_at_mut(channels);
    for c in 0..channels {
        let at = |block: usize, part: usize| f64::from(partials[(3 * block + part) * channels + c]);
        let count = |block: usize| BLOCK.min(pixels - block * BLOCK) as f64;
        let block_mean = |block: usize| at(block, 0) + at(block, 1);
        let total = pixels as f64;
        let m = (0..blocks).map(|b| count(b) * block_mean(b)).sum::<f64>() / total;
        let squares = (0..blocks).map(|b| at(b, 2) + count(b) * (block_mean(b) - m).powi(2)).sum::<f64>();
        (mean[c], variance[c]) = (m as f32, (squares / total) as f32);
    }
}

/// One task a block, each with its part of the partial sums.
fn over_blocks(team: &Team, partials: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    let blocks = partials.len() / width;
    let partials = DisjointMut::new(partials);
    team.for_each(blocks, |block| {
        // SAFETY: each block has its own part.
        work(block, unsafe { partials.slice_mut(block * width..(block + 1) * width) });
    });
}

/// Of one block: its first pixel as origin, the mean's distance from it, and the centred sum of squares.
struct BlockMoments<'a> {
    x: &'a [f32],
    partial: &'a mut [f32],
}

impl Kernel for BlockMoments<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let channels = self.partial.len() / 3;
        let pixels = self.x.len() / channels;
        let count = s.splat(pixels as f32);
        for c in (0..channels).step_by(S::LANES) {
            let n = channels - c;
            // SAFETY: `load_partial` and `store_partial` stop after `n` floats, the end of the pixel's channels.
            unsafe {
                let x = |pixel: usize| s.load_partial(self.x.as_ptr().add(pixel * channels + c), n);
                let origin = x(0);
                let mut sum = s.zero();
                for pixel in 1..pixels {
                    sum = s.add(sum, s.sub(x(pixel), origin));
                }
                let shift = s.div(sum, count);
                let mut squares = s.zero();
                for pixel in 0..pixels {
                    let d = s.sub(s.sub(x(pixel), origin), shift);
                    squares = s.mul_add(d, d, squares);
                }
                for (part, value) in [origin, shift, squares].into_iter().enumerate() {
                    s.store_partial(self.partial.as_mut_ptr().add(part * channels + c), n, value);
                }
            }
        }
    }
}

/// What [`apply`] reads.
#[derive(Clone, Copy, Debug)]
pub struct ApplyArgs<'a> {
    /// [pixels, C].
    pub x: &'a [f32],
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
    /// Added to the result, [pixels, C].
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
}

/// `y = activation((x - mean) / sqrt(variance + eps) * gamma + beta + residual)`. `scratch` has C floats.
pub fn apply(team: &Team, isa: Isa, args: ApplyArgs, y: &mut [f32], scratch: &mut [f32]) {
    let channels = args.gamma.len();
    let scale = &mut scratch[..channels];
    scales(args.gamma, args.variance, args.eps, scale);
    let scale = &*scale;
    over_rows(team, channels, y, |rows, y| {
        let part = rows.start * channels..rows.end * channels;
        let args = ApplyArgs { x: &args.x[part.clone()], residual: args.residual.map(|r| &r[part.clone()]), ..args };
        isa.dispatch(Apply { args, scale, y });
    });
}

/// `gamma / sqrt(variance + eps)`, in f64, rounded once.
fn scales(gamma: &[f32], variance: &[f32], eps: f32, out: &mut [f32]) {
    for (out, (gamma, variance)) in out.iter_mut().zip(gamma.iter().zip(variance)) {
        *out = (f64::from(*gamma) / (f64::from(*variance) + f64::from(eps)).sqrt()) as f32;
    }
}

struct Apply<'a> {
    args: ApplyArgs<'a>,
    scale: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let channels = self.scale.len();
        let ApplyArgs { x, beta, mean, residual, activation, .. } = self.args;
        for pixel in 0..self.y.len() / channels {
            for c in (0..channels).step_by(S::LANES) {
                let (n, at) = (channels - c, pixel * channels + c);
                // SAFETY: partial loads and stores stop at the end of the pixel's channels.
                unsafe {
                    let load = |slice: &[f32], at: usize| s.load_partial(slice.as_ptr().add(at), n);
                    let centred = s.sub(load(x, at), load(mean, c));
                    let mut v = s.mul_add(centred, load(self.scale, c), load(beta, c));
                    if let Some(residual) = residual {
                        v = s.add(v, load(residual, at));
                    }
                    let v = match activation {
                        Activation::None => v,
                        Activation::Relu => s.max(s.zero(), v),
                        other => other.apply_vector(s, v),
                    };
                    s.store_partial(self.y.as_mut_ptr().add(at), n, v);
                }
            }
        }
    }
}

/// A gradient that flows back into a batch norm: `dy`, let through where `mask` is above `low` and below `high`.
#[derive(Clone, Copy, Debug)]
pub struct Masked<'a> {
    /// [pixels, C].
    pub dy: &'a [f32],
    /// The output of the clipping activation behind the norm, and its bounds.
    pub mask: Option<(&'a [f32], [f32; 2])>,
}

impl<'a> Masked<'a> {
    fn part(&self, range: std::ops::Range<usize>) -> Masked<'a> {
        Masked { dy: &self.dy[range.clone()], mask: self.mask.map(|(mask, bounds)| (&mask[range], bounds)) }
    }

    /// The vector at `at`.
    ///
    /// # Safety
    /// `n` floats (at most a vector) are readable there.
    #[inline(always)]
    unsafe fn load<S: Simd>(&self, s: S, at: usize, n: usize) -> S::V {
        // SAFETY: by contract.
        unsafe {
            let dy = s.load_partial(self.dy.as_ptr().add(at), n);
            match self.mask {
                None => dy,
                Some((mask, [low, high])) => {
                    let y = s.load_partial(mask.as_ptr().add(at), n);
                    s.select(s.gt(y, s.splat(low)), s.select(s.lt(y, s.splat(high)), dy, s.zero()), s.zero())
                }
            }
        }
    }
}

/// Per channel `[sum dy, sum dy * x̂]`, to `out` [2, C]; `moments` is [2, C].
pub fn grad_sums(
    team: &Team,
    isa: Isa,
    (x, dy): (&[f32], Masked),
    (moments, eps): (&[f32], f32),
    out: &mut [f32],
    scratch: &mut [f32],
) {
    let channels = out.len() / 2;
    if x.is_empty() {
        return out.fill(0.0);
    }
    let pixels = x.len() / channels;
    let blocks = pixels.div_ceil(BLOCK);
    let partials = &mut scratch[..2 * blocks * channels];
    over_blocks(team, partials, 2 * channels, |block, partial| {
        let range = block * BLOCK * channels..channels * pixels.min((block + 1) * BLOCK);
        isa.dispatch(BlockSums { x: &x[range.clone()], dy: dy.part(range), mean: &moments[..channels], partial });
    });
    for c in 0..channels {
        let total = |part: usize| (0..blocks).map(|b| f64::from(partials[(2 * b + part) * channels + c])).sum::<f64>();
        let inverse = 1.0 / (f64::from(moments[channels + c]) + f64::from(eps)).sqrt();
        (out[c], out[channels + c]) = (total(0) as f32, (total(1) * inverse) as f32);
    }
}

struct BlockSums<'a> {
    x: &'a [f32],
    dy: Masked<'a>,
    mean: &'a [f32],
    partial: &'a mut [f32],
}

impl Kernel for BlockSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let channels = self.mean.len();
        for c in (0..channels).step_by(S::LANES) {
            let n = channels - c;
            // SAFETY: partial loads and stores stop at the end of the pixel's channels.
            unsafe {
                let mean = s.load_partial(self.mean.as_ptr().add(c), n);
                let (mut sum, mut product) = (s.zero(), s.zero());
                for pixel in 0..self.x.len() / channels {
                    let at = pixel * channels + c;
                    let dy = self.dy.load(s, at, n);
                    sum = s.add(sum, dy);
                    product = s.mul_add(dy, s.sub(s.load_partial(self.x.as_ptr().add(at), n), mean), product);
                }
                s.store_partial(self.partial.as_mut_ptr().add(c), n, sum);
                s.store_partial(self.partial.as_mut_ptr().add(channels + c), n, product);
            }
        }
    }
}

/// `dx = gamma / sqrt(var + eps) * (dy - sums[0] / count - x̂ * sums[1] / count)`. `scratch` has 3 C floats.
pub fn input_grad(
    team: &Team,
    isa: Isa,
    (x, dy): (&[f32], Masked),
    (gamma, moments, sums, eps): (&[f32], &[f32], &[f32], f32),
    dx: &mut [f32],
    scratch: &mut [f32],
) {
    let channels = gamma.len();
    let count = (x.len() / channels.max(1)) as f64;
    let (scale, rest) = scratch[..3 * channels].split_at_mut(channels);
    let (shift, slope) = rest.split_at_mut(channels);
    scales(gamma, &moments[channels..], eps, scale);
    for c in 0..channels {
        // -scale * sum / count, and the factor of (x - mean).
        let inverse = 1.0 / (f64::from(moments[channels + c]) + f64::from(eps)).sqrt();
        let scale = f64::from(gamma[c]) * inverse;
        shift[c] = (-scale * f64::from(sums[c]) / count) as f32;
        slope[c] = (-scale * inverse * f64::from(sums[channels + c]) / count) as f32;
    }
    let (scale, shift, slope) = (&*scale, &*shift, &*slope);
    over_rows(team, channels, dx, |rows, dx| {
        let range = rows.start * channels..rows.end * channels;
        let (x, dy) = (&x[range.clone()], dy.part(range));
        isa.dispatch(InputGrad { x, dy, mean: &moments[..channels], rows: [scale, shift, slope], dx });
    });
}

struct InputGrad<'a> {
    x: &'a [f32],
    dy: Masked<'a>,
    mean: &'a [f32],
    /// Factor of dy, constant, factor of (x - mean).
    rows: [&'a [f32]; 3],
    dx: &'a mut [f32],
}

impl Kernel for InputGrad<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let channels = self.mean.len();
        let [scale, shift, slope] = self.rows;
        for pixel in 0..self.dx.len() / channels {
            for c in (0..channels).step_by(S::LANES) {
                let (n, at) = (channels - c, pixel * channels + c);
                // SAFETY: partial loads and stores stop at the end of the pixel's channels.
                unsafe {
                    let load = |slice: &[f32], at: usize| s.load_partial(slice.as_ptr().add(at), n);
                    let centred = s.sub(load(self.x, at), load(self.mean, c));
                    let v = s.mul_add(centred, load(slope, c), load(shift, c));
                    let v = s.mul_add(self.dy.load(s, at, n), load(scale, c), v);
                    s.store_partial(self.dx.as_mut_ptr().add(at), n, v);
                }
            }
        }
    }
}
