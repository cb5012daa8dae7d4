//! Batch normalisation over `[pixels, channels]`, the channels neighbours in memory.
//!
//! Sums over pixels are cut into blocks of `BLOCK` pixels, summed in f32 inside and joined in f64 in the order of the
//! blocks, whatever the number of threads.

use crate::conv::Activation;
use crate::elementwise::{clip_grad, hardswish_grad, silu_grad};
use crate::kinds::UnaryKind;
use crate::mem::DisjointMut;
use crate::parallel::over_rows;
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::Team;
use std::ops::Range;

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
        isa.dispatch(Apply { args, scale, pixels: rows.len(), y: y.as_mut_ptr() });
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
    pixels: usize,
    y: *mut f32,
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let channels = self.scale.len();
        let whole = channels / S::LANES * S::LANES;
        for pixel in 0..self.pixels {
            // SAFETY: whole vectors of the pixel's channels, and the rest.
            unsafe {
                for c in (0..whole).step_by(S::LANES) {
                    self.vector::<S, true>(s, pixel * channels, c, S::LANES);
                }
                if whole < channels {
                    self.vector::<S, false>(s, pixel * channels, whole, channels - whole);
                }
            }
        }
    }
}

impl Apply<'_> {
    /// Channels `c` to `c + n` of the pixel at `pixel`.
    ///
    /// # Safety
    /// They exist; `n` is LANES where `FULL`.
    #[inline(always)]
    unsafe fn vector<S: Simd, const FULL: bool>(&self, s: S, pixel: usize, c: usize, n: usize) {
        let ApplyArgs { x, beta, mean, residual, activation, .. } = self.args;
        // SAFETY: by contract.
        unsafe {
            let x = load::<S, FULL>(s, x, pixel + c, n);
            let centred = s.sub(x, load::<S, FULL>(s, mean, c, n));
            let (scale, beta) = (load::<S, FULL>(s, self.scale, c, n), load::<S, FULL>(s, beta, c, n));
            let mut v = s.mul_add(centred, scale, beta);
            if let Some(residual) = residual {
                v = s.add(v, load::<S, FULL>(s, residual, pixel + c, n));
            }
            let v = match activation {
                Activation::None => v,
                Activation::Relu => s.max(s.zero(), v),
                other => other.apply_vector(s, v),
            };
            store::<S, FULL>(s, self.y.add(pixel + c), n, v);
        }
    }
}

/// `n` floats at `at`, a whole vector where `FULL`.
///
/// # Safety
/// They are inside the slice.
#[inline(always)]
unsafe fn load<S: Simd, const FULL: bool>(s: S, from: &[f32], at: usize, n: usize) -> S::V {
    // SAFETY: by contract.
    unsafe {
        let p = from.as_ptr().add(at);
        if FULL { s.load(p) } else { s.load_partial(p, n) }
    }
}

/// Writes `n` floats to `to`, a whole vector where `FULL`.
///
/// # Safety
/// They are the caller's alone.
#[inline(always)]
unsafe fn store<S: Simd, const FULL: bool>(s: S, to: *mut f32, n: usize, v: S::V) {
    // SAFETY: by contract.
    unsafe { if FULL { s.store(to, v) } else { s.store_partial(to, n, v) } }
}

/// A gradient that flows back into a batch norm.
#[derive(Clone, Copy, Debug)]
pub struct NormGrad<'a> {
    /// What was normalised, [pixels, C].
    pub x: &'a [f32],
    /// What flows back, [pixels, C].
    pub dy: &'a [f32],
    /// The activation that `dy` comes through before.
    pub behind: Behind<'a>,
    /// Mean and variance, [2, C].
    pub moments: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

/// The activation behind a norm, whose gradient the norm's backward takes along.
#[derive(Clone, Copy, Debug)]
pub enum Behind<'a> {
    /// None.
    None,
    /// A clipping one by its output, [pixels, C]: `dy` passes where that is above the first bound and below the second.
    Output(&'a [f32], [f32; 2]),
    /// One that [`goes_again`], of the norm's own output, which is computed again from x, weight and bias. Nothing may be added
    /// between.
    Again([&'a [f32]; 2], UnaryKind),
}

/// True for the activations of [`Behind::Again`].
pub fn goes_again(kind: UnaryKind) -> bool {
    matches!(kind, UnaryKind::Relu | UnaryKind::Clip { .. } | UnaryKind::Silu | UnaryKind::Hardswish)
}

/// [`Behind`]'s kinds, as constants that loops are compiled for.
const NOTHING: u8 = 0;
const OUTPUT: u8 = 1;
const CLIP: u8 = 2;
const SILU: u8 = 3;
const HARDSWISH: u8 = 4;

impl<'a> Behind<'a> {
    fn part(&self, range: Range<usize>) -> Behind<'a> {
        match *self {
            Behind::Output(output, bounds) => Behind::Output(&output[range], bounds),
            other => other,
        }
    }

    /// # Panics
    /// For an activation that does not go again.
    fn kind(&self) -> u8 {
        match self {
            Behind::None => NOTHING,
            Behind::Output(..) => OUTPUT,
            Behind::Again(_, UnaryKind::Relu | UnaryKind::Clip { .. }) => CLIP,
            Behind::Again(_, UnaryKind::Silu) => SILU,
            Behind::Again(_, UnaryKind::Hardswish) => HARDSWISH,
            Behind::Again(_, other) => panic!("{other:?} behind a norm is not computed again"),
        }
    }

    /// Between which values a clipping activation's gradient passes.
    #[inline(always)]
    fn bounds(&self) -> [f32; 2] {
        match *self {
            Behind::Output(_, bounds) => bounds,
            Behind::Again(_, UnaryKind::Clip { min, max }) => [min, max],
            _ => [0.0, f32::INFINITY],
        }
    }
}

/// One piece of pixels of a [`NormGrad`], with what its vectors have in common.
#[derive(Clone, Copy)]
struct Piece<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    behind: Behind<'a>,
    mean: &'a [f32],
    /// Where the norm's output is computed again: its factor of the centred x.
    scale: &'a [f32],
}

impl<'a> NormGrad<'a> {
    /// The pixels from float `range.start` to `range.end`.
    fn piece(&self, range: Range<usize>, scale: &'a [f32]) -> Piece<'a> {
        let mean = &self.moments[..self.moments.len() / 2];
        let behind = self.behind.part(range.clone());
        Piece { x: &self.x[range.clone()], dy: &self.dy[range], behind, mean, scale }
    }
}

impl Piece<'_> {
    /// The centred x and what comes of dy, of channels `c` to `c + n` of the pixel at `pixel`.
    ///
    /// # Safety
    /// They exist; `n` is LANES where `FULL`; `BEHIND` is the activation's kind.
    #[inline(always)]
    unsafe fn vector<S: Simd, const BEHIND: u8, const FULL: bool>(
        &self,
        s: S,
        pixel: usize,
        c: usize,
        n: usize,
    ) -> (S::V, S::V) {
        // SAFETY: by contract.
        unsafe {
            let x = load::<S, FULL>(s, self.x, pixel + c, n);
            let centred = s.sub(x, load::<S, FULL>(s, self.mean, c, n));
            let dy = load::<S, FULL>(s, self.dy, pixel + c, n);
            let at = match self.behind {
                Behind::Output(output, _) if BEHIND == OUTPUT => load::<S, FULL>(s, output, pixel + c, n),
                Behind::Again([_, beta], _) if BEHIND > OUTPUT => {
                    let (scale, beta) = (load::<S, FULL>(s, self.scale, c, n), load::<S, FULL>(s, beta, c, n));
                    s.mul_add(centred, scale, beta)
                }
                _ => return (centred, dy),
            };
            let passed = match BEHIND {
                SILU => silu_grad(s, at, dy),
                HARDSWISH => hardswish_grad(s, at, dy),
                _ => clip_grad(s, at, dy, self.behind.bounds()),
            };
            (centred, passed)
        }
    }
}

/// A kernel for each kind of [`Behind`].
macro_rules! dispatch_behind {
    ($isa:expr, $kind:expr, $kernel:ident { $($field:ident),+ }) => {
        match $kind {
            NOTHING => $isa.dispatch($kernel::<NOTHING> { $($field),+ }),
            OUTPUT => $isa.dispatch($kernel::<OUTPUT> { $($field),+ }),
            SILU => $isa.dispatch($kernel::<SILU> { $($field),+ }),
            HARDSWISH => $isa.dispatch($kernel::<HARDSWISH> { $($field),+ }),
            _ => $isa.dispatch($kernel::<CLIP> { $($field),+ }),
        }
    };
}

/// Per channel `[sum dy, sum dy * x̂]`, to `out` [2, C]. `scratch` has [`norm_scratch_len`] floats.
pub fn grad_sums(team: &Team, isa: Isa, args: NormGrad, out: &mut [f32], scratch: &mut [f32]) {
    let channels = out.len() / 2;
    let NormGrad { x, moments, eps, .. } = args;
    if x.is_empty() {
        return out.fill(0.0);
    }
    let pixels = x.len() / channels;
    let blocks = pixels.div_ceil(BLOCK);
    let (partials, rest) = scratch.split_at_mut(2 * blocks * channels);
    let scale = &mut rest[..channels];
    if let Behind::Again([gamma, _], _) = args.behind {
        scales(gamma, &moments[channels..], eps, scale);
    }
    let (scale, kind) = (&*scale, args.behind.kind());
    over_blocks(team, partials, 2 * channels, |block, partial| {
        let piece = args.piece(block * BLOCK * channels..channels * pixels.min((block + 1) * BLOCK), scale);
        dispatch_behind!(isa, kind, BlockSums { piece, partial })
    });
    for c in 0..channels {
        let total = |part: usize| (0..blocks).map(|b| f64::from(partials[(2 * b + part) * channels + c])).sum::<f64>();
        let inverse = 1.0 / (f64::from(moments[channels + c]) + f64::from(eps)).sqrt();
        (out[c], out[channels + c]) = (total(0) as f32, (total(1) * inverse) as f32);
    }
}

/// Sums of one block of pixels, each channel's in one chain.
struct BlockSums<'a, const BEHIND: u8> {
    piece: Piece<'a>,
    partial: &'a mut [f32],
}

/// Pixels that are added to the sums while those are in registers. Few: memory is read from one end to the other.
const TOGETHER: usize = 4;

impl<const BEHIND: u8> Kernel for BlockSums<'_, BEHIND> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let channels = self.piece.mean.len();
        let (pixels, whole) = (self.piece.x.len() / channels, channels / S::LANES * S::LANES);
        let partial = self.partial;
        partial.fill(0.0);
        let sums = partial.as_mut_ptr();
        for first in (0..pixels).step_by(TOGETHER) {
            let pixels = first..pixels.min(first + TOGETHER);
            // SAFETY: whole vectors of the channels, and the rest.
            unsafe {
                for c in (0..whole).step_by(S::LANES) {
                    self.piece.add::<S, BEHIND, true>(s, pixels.clone(), c, S::LANES, sums);
                }
                if whole < channels {
                    self.piece.add::<S, BEHIND, false>(s, pixels.clone(), whole, channels - whole, sums);
                }
            }
        }
    }
}

impl Piece<'_> {
    /// Adds some pixels' channels `c` to `c + n` to `sums`, [2, C].
    ///
    /// # Safety
    /// They exist; `n` is LANES where `FULL`; `sums` is the caller's alone.
    #[inline(always)]
    unsafe fn add<S: Simd, const BEHIND: u8, const FULL: bool>(
        &self,
        s: S,
        pixels: Range<usize>,
        c: usize,
        n: usize,
        sums: *mut f32,
    ) {
        let channels = self.mean.len();
        // SAFETY: by contract.
        unsafe {
            let (at, products_at) = (sums.add(c), sums.add(channels + c));
            let (mut sum, mut products) = match FULL {
                true => (s.load(at), s.load(products_at)),
                false => (s.load_partial(at, n), s.load_partial(products_at, n)),
            };
            for pixel in pixels {
                let (centred, dy) = self.vector::<S, BEHIND, FULL>(s, pixel * channels, c, n);
                sum = s.add(sum, dy);
                products = s.mul_add(dy, centred, products);
            }
            store::<S, FULL>(s, at, n, sum);
            store::<S, FULL>(s, products_at, n, products);
        }
    }
}

/// `dx = gamma / sqrt(var + eps) * (dy - sums[0] / count - x̂ * sums[1] / count)`. `scratch` has 3 C floats.
pub fn input_grad(
    team: &Team,
    isa: Isa,
    args: NormGrad,
    (gamma, sums): (&[f32], &[f32]),
    dx: &mut [f32],
    scratch: &mut [f32],
) {
    let channels = gamma.len();
    let NormGrad { x, moments, eps, .. } = args;
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
    let (scale, shift, slope, kind) = (&*scale, &*shift, &*slope, args.behind.kind());
    over_rows(team, channels, dx, |rows, dx| {
        let pixels = rows.len();
        let piece = args.piece(rows.start * channels..rows.end * channels, scale);
        let (rows, dx) = ([shift, slope], dx.as_mut_ptr());
        dispatch_behind!(isa, kind, InputGrad { piece, rows, pixels, dx })
    });
}

/// Of some pixels.
struct InputGrad<'a, const BEHIND: u8> {
    /// Its scale is the factor of dy.
    piece: Piece<'a>,
    /// Constant, factor of (x - mean).
    rows: [&'a [f32]; 2],
    pixels: usize,
    dx: *mut f32,
}

impl<const BEHIND: u8> Kernel for InputGrad<'_, BEHIND> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let channels = self.piece.mean.len();
        let whole = channels / S::LANES * S::LANES;
        for pixel in 0..self.pixels {
            // SAFETY: whole vectors of the pixel's channels, and the rest.
            unsafe {
                for c in (0..whole).step_by(S::LANES) {
                    self.vector::<S, true>(s, pixel * channels, c, S::LANES);
                }
                if whole < channels {
                    self.vector::<S, false>(s, pixel * channels, whole, channels - whole);
                }
            }
        }
    }
}

impl<const BEHIND: u8> InputGrad<'_, BEHIND> {
    /// Channels `c` to `c + n` of the pixel at `pixel`.
    ///
    /// # Safety
    /// They exist; `n` is LANES where `FULL`.
    #[inline(always)]
    unsafe fn vector<S: Simd, const FULL: bool>(&self, s: S, pixel: usize, c: usize, n: usize) {
        let [shift, slope] = self.rows;
        // SAFETY: by contract.
        unsafe {
            let (centred, dy) = self.piece.vector::<S, BEHIND, FULL>(s, pixel, c, n);
            let v = s.mul_add(centred, load::<S, FULL>(s, slope, c, n), load::<S, FULL>(s, shift, c, n));
            let v = s.mul_add(dy, load::<S, FULL>(s, self.piece.scale, c, n), v);
            store::<S, FULL>(s, self.dx.add(pixel + c), n, v);
        }
    }
}
