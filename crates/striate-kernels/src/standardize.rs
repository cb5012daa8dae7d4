//! `(x - mean) / sqrt(var + eps)` by rows, and its gradient: the core of layer, group and instance normalisation.
//!
//! A row's sums are taken in f32 by blocks of `BLOCK` elements and joined in f64 in order; a row is never shared among threads.

use crate::elementwise::{load_up_to, store_up_to, tail_mask};
use crate::parallel::over_rows;
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::Team;

/// Elements of a sum that are added in f32.
const BLOCK: usize = 4096;

/// Standardises each row of `len` elements.
///
/// # Panics
/// Where the slices differ in length, or are no whole number of rows.
pub fn standardize(team: &Team, isa: Isa, (len, eps): (usize, f32), x: &[f32], y: &mut [f32]) {
    assert!(x.len() == y.len() && x.len().is_multiple_of(len.max(1)), "rows of {len} in {} and {}", x.len(), y.len());
    over_rows(team, len, y, |rows, y| {
        let x = &x[rows.start * len..rows.end * len];
        x.chunks_exact(len).zip(y.chunks_exact_mut(len)).for_each(|(x, y)| isa.dispatch(Row { x, eps, y }));
    });
}

/// The gradient of [`standardize`]: `dx = (dy - mean(dy) - x̂ mean(dy x̂)) / sqrt(var + eps)` by rows.
///
/// # Panics
/// Where the slices differ in length, or are no whole number of rows.
pub fn standardize_grad(team: &Team, isa: Isa, (len, eps): (usize, f32), (x, dy): (&[f32], &[f32]), dx: &mut [f32]) {
    assert!(x.len() == dx.len() && dy.len() == dx.len(), "{}, {} and {} elements", x.len(), dy.len(), dx.len());
    assert!(x.len().is_multiple_of(len.max(1)), "rows of {len} in {}", x.len());
    over_rows(team, len, dx, |rows, dx| {
        let range = rows.start * len..rows.end * len;
        let rows = x[range.clone()].chunks_exact(len).zip(dy[range].chunks_exact(len));
        rows.zip(dx.chunks_exact_mut(len)).for_each(|((x, dy), dx)| isa.dispatch(RowGrad { x, dy, eps, dx }));
    });
}

/// The sum of `f(i)` over the vectors of a row of `n`; lanes beyond its end are left out.
#[inline(always)]
fn sum<S: Simd>(s: S, n: usize, f: impl Fn(usize) -> S::V) -> f64 {
    let mut total = 0.0;
    for block in (0..n).step_by(BLOCK) {
        let mut acc = s.zero();
        for i in (block..n.min(block + BLOCK)).step_by(S::LANES) {
            acc = s.add(acc, s.select(tail_mask(s, n - i), f(i), s.zero()));
        }
        total += f64::from(s.reduce_add(acc));
    }
    total
}

/// How a row is standardised: `((x - mean) - rest) * inverse`.
struct Statistics {
    /// The mean, nearly.
    mean: f32,
    /// What is missing to the mean: its own rounding would show where the mean is far from 0.
    rest: f32,
    /// `1 / sqrt(var + eps)`.
    inverse: f32,
}

impl Statistics {
    #[inline(always)]
    fn new<S: Simd>(s: S, x: &[f32], eps: f32) -> Self {
        let n = x.len();
        // SAFETY: `sum` asks for positions below n, and the load stops there.
        let load = |i: usize| unsafe { load_up_to(s, x.as_ptr().add(i), n - i) };
        let mean = (sum(s, n, load) / n as f64) as f32;
        let center = s.splat(mean);
        let rest = sum(s, n, |i| s.sub(load(i), center)) / n as f64;
        let squares = sum(s, n, |i| {
            let d = s.sub(load(i), center);
            s.mul(d, d)
        });
        let var = (squares / n as f64 - rest * rest).max(0.0);
        Statistics { mean, rest: rest as f32, inverse: (1.0 / (var + f64::from(eps)).sqrt()) as f32 }
    }

    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, x: S::V) -> S::V {
        s.mul(s.sub(s.sub(x, s.splat(self.mean)), s.splat(self.rest)), s.splat(self.inverse))
    }
}

struct Row<'a> {
    x: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Row { x, eps, y } = self;
        let statistics = Statistics::new(s, x, eps);
        for i in (0..x.len()).step_by(S::LANES) {
            let left = x.len() - i;
            // SAFETY: i is below the length, and loads and stores stop there.
            unsafe {
                let hat = statistics.apply(s, load_up_to(s, x.as_ptr().add(i), left));
                store_up_to(s, y.as_mut_ptr().add(i), left, hat);
            }
        }
    }
}

struct RowGrad<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    eps: f32,
    dx: &'a mut [f32],
}

impl Kernel for RowGrad<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let RowGrad { x, dy, eps, dx } = self;
        let n = x.len();
        let statistics = Statistics::new(s, x, eps);
        // SAFETY: positions are below n, and loads stop there.
        let hat = |i: usize| statistics.apply(s, unsafe { load_up_to(s, x.as_ptr().add(i), n - i) });
        // SAFETY: as above.
        let grad = |i: usize| unsafe { load_up_to(s, dy.as_ptr().add(i), n - i) };
        let mean_dy = s.splat((sum(s, n, grad) / n as f64) as f32);
        let mean_product = s.splat((sum(s, n, |i| s.mul(grad(i), hat(i))) / n as f64) as f32);
        let inverse = s.splat(statistics.inverse);
        for i in (0..n).step_by(S::LANES) {
            let v = s.neg_mul_add(hat(i), mean_product, s.sub(grad(i), mean_dy));
            // SAFETY: i is below the length, and the store stops there.
            unsafe { store_up_to(s, dx.as_mut_ptr().add(i), n - i, s.mul(v, inverse)) };
        }
    }
}
