//! Normalisation: statistics, application and gradients, in double precision inside.
use super::Float;
use super::shape::volume;

/// Visits all elements of `[N, C, *]` as (channel, flat index).
fn for_each_channel_element(shape: &[usize], mut visit: impl FnMut(usize, usize)) {
    let (n, c, inner) = (shape[0], shape[1], volume(&shape[2..]));
    (0..n * c * inner).for_each(|i| visit(i / inner % c, i));
}

/// Mean and biased variance of each channel of `[N, C, *]`, in two passes.
pub fn reference_moments<T: Float>(shape: &[usize], x: &[T], mean: &mut [T], var: &mut [T]) {
    let channels = shape[1];
    let count = (volume(shape) / channels.max(1)) as f64;
    let (mut m, mut v) = (vec![0.0; channels], vec![0.0; channels]);
    for_each_channel_element(shape, |c, i| m[c] += x[i].to_f64());
    m.iter_mut().for_each(|s| *s /= count);
    for_each_channel_element(shape, |c, i| v[c] += (x[i].to_f64() - m[c]).powi(2));
    for c in 0..channels {
        mean[c] = T::from_f64(m[c]);
        var[c] = T::from_f64(v[c] / count);
    }
}

/// `out = scale[c] * x + shift[c]` over `[N, C, *]`.
pub fn reference_channel_affine<T: Float>(shape: &[usize], x: &[T], scale: &[T], shift: &[T], out: &mut [T]) {
    for_each_channel_element(shape, |c, i| out[i] = scale[c] * x[i] + shift[c]);
}

/// What a normalisation multiplies and adds, per channel.
#[derive(Clone, Copy, Debug)]
pub struct NormParams<'a, T> {
    /// Mean of each channel.
    pub mean: &'a [T],
    /// Biased variance of each channel.
    pub var: &'a [T],
    /// Factor, 1 where absent.
    pub weight: Option<&'a [T]>,
    /// Summand, 0 where absent.
    pub bias: Option<&'a [T]>,
    /// Added to the variance.
    pub eps: f64,
}

impl<T: Float> NormParams<'_, T> {
    fn inv_std(&self, c: usize) -> f64 {
        1.0 / (self.var[c].to_f64() + self.eps).sqrt()
    }

    fn weight(&self, c: usize) -> f64 {
        self.weight.map_or(1.0, |w| w[c].to_f64())
    }

    fn normalised(&self, c: usize, x: T) -> f64 {
        (x.to_f64() - self.mean[c].to_f64()) * self.inv_std(c)
    }
}

/// `out = (x - mean) / sqrt(var + eps) * weight + bias` over `[N, C, *]`.
pub fn reference_batch_norm<T: Float>(shape: &[usize], x: &[T], params: NormParams<'_, T>, out: &mut [T]) {
    for_each_channel_element(shape, |c, i| {
        let bias = params.bias.map_or(0.0, |b| b[c].to_f64());
        out[i] = T::from_f64(params.normalised(c, x[i]) * params.weight(c) + bias);
    });
}

/// `sums = [Σ dy, Σ dy * xhat]` per channel: the gradients of bias and weight. `sums` is `[2, C]`.
pub fn reference_batch_norm_sums<T: Float>(
    shape: &[usize],
    x: &[T],
    dy: &[T],
    params: NormParams<'_, T>,
    sums: &mut [T],
) {
    let channels = shape[1];
    let mut acc = vec![0.0; 2 * channels];
    for_each_channel_element(shape, |c, i| {
        acc[c] += dy[i].to_f64();
        acc[channels + c] += dy[i].to_f64() * params.normalised(c, x[i]);
    });
    sums.iter_mut().zip(acc).for_each(|(s, a)| *s = T::from_f64(a));
}

/// The gradient to the input in training mode, where mean and variance are those of `x`:
/// `dx = weight / std * (dy - Σdy / m - xhat * Σ(dy xhat) / m)`, with the sums of [`reference_batch_norm_sums`].
pub fn reference_batch_norm_dx<T: Float>(
    shape: &[usize],
    (x, dy): (&[T], &[T]),
    params: NormParams<'_, T>,
    sums: &[T],
    dx: &mut [T],
) {
    let channels = shape[1];
    let count = (volume(shape) / channels.max(1)) as f64;
    for_each_channel_element(shape, |c, i| {
        let (mean_dy, mean_dy_xhat) = (sums[c].to_f64() / count, sums[channels + c].to_f64() / count);
        let centred = dy[i].to_f64() - mean_dy - params.normalised(c, x[i]) * mean_dy_xhat;
        dx[i] = T::from_f64(params.weight(c) * params.inv_std(c) * centred);
    });
}

fn row_statistics<T: Float>(row: &[T], eps: f64) -> (f64, f64) {
    let n = row.len() as f64;
    let mean = row.iter().map(|v| v.to_f64()).sum::<f64>() / n;
    let var = row.iter().map(|v| (v.to_f64() - mean).powi(2)).sum::<f64>() / n;
    (mean, 1.0 / (var + eps).sqrt())
}

/// `out = (x - mean) / sqrt(var + eps)` with the mean and biased variance of each row of `len`: what layer, group and instance
/// normalisation share.
pub fn reference_standardize<T: Float>(len: usize, x: &[T], eps: f64, out: &mut [T]) {
    for (row, to) in x.chunks(len.max(1)).zip(out.chunks_mut(len.max(1))) {
        let (mean, inv_std) = row_statistics(row, eps);
        row.iter().zip(to).for_each(|(v, o)| *o = T::from_f64((v.to_f64() - mean) * inv_std));
    }
}

/// The gradient of [`reference_standardize`]: `dx = (dy - mean(dy) - xhat * mean(dy * xhat)) / std` by rows.
pub fn reference_standardize_grad<T: Float>(len: usize, x: &[T], dy: &[T], eps: f64, dx: &mut [T]) {
    let rows = x.chunks(len.max(1)).zip(dy.chunks(len.max(1)));
    for ((row, grad), to) in rows.zip(dx.chunks_mut(len.max(1))) {
        let (mean, inv_std) = row_statistics(row, eps);
        let hat: Vec<f64> = row.iter().map(|v| (v.to_f64() - mean) * inv_std).collect();
        let n = row.len() as f64;
        let mean_dy = grad.iter().map(|g| g.to_f64()).sum::<f64>() / n;
        let mean_dy_hat = grad.iter().zip(&hat).map(|(g, h)| g.to_f64() * h).sum::<f64>() / n;
        for ((o, g), h) in to.iter_mut().zip(grad).zip(&hat) {
            *o = T::from_f64((g.to_f64() - mean_dy - h * mean_dy_hat) * inv_std);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, f: f64) -> Vec<f64> {
        (0..n).map(|i| (i as f64 * f).sin() + 0.1 * i as f64).collect()
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(p, q)| p * q).sum()
    }

    /// d/dt <dy, f(x + t e_i)> by central differences, for every i.
    fn check_gradient(x: &[f64], dx: &[f64], loss: impl Fn(&[f64]) -> f64) {
        for i in 0..x.len() {
            let at = |h: f64| {
                let mut moved = x.to_vec();
                moved[i] += h;
                loss(&moved)
            };
            let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((dx[i] - expected).abs() < 1e-8 * (1.0 + expected.abs()), "{i}: {} {expected}", dx[i]);
        }
    }

    #[test]
    fn batch_norm_gradients() {
        let shape = [2, 3, 4];
        let (x, dy) = (wave(24, 0.9), wave(24, 2.1));
        let (weight, bias) = ([0.5, -1.0, 2.0], [0.1, 0.2, 0.3]);
        let forward = |x: &[f64]| {
            let (mut mean, mut var, mut y) = ([0.0; 3], [0.0; 3], vec![0.0; 24]);
            reference_moments(&shape, x, &mut mean, &mut var);
            let params = NormParams { mean: &mean, var: &var, weight: Some(&weight), bias: Some(&bias), eps: 1e-5 };
            reference_batch_norm(&shape, x, params, &mut y);
            y
        };
        let (mut mean, mut var) = ([0.0; 3], [0.0; 3]);
        reference_moments(&shape, &x, &mut mean, &mut var);
        let params = NormParams { mean: &mean, var: &var, weight: Some(&weight), bias: Some(&bias), eps: 1e-5 };
        let (mut sums, mut dx) = ([0.0; 6], vec![0.0; 24]);
        reference_batch_norm_sums(&shape, &x, &dy, params, &mut sums);
        reference_batch_norm_dx(&shape, (&x, &dy), params, &sums, &mut dx);
        check_gradient(&x, &dx, |x| dot(&forward(x), &dy));
    }

    #[test]
    fn standardize_gradient() {
        let (x, dy) = (wave(12, 0.9), wave(12, 2.1));
        let forward = |x: &[f64]| {
            let mut y = vec![0.0; 12];
            reference_standardize(4, x, 1e-5, &mut y);
            y
        };
        let mut dx = vec![0.0; 12];
        reference_standardize_grad(4, &x, &dy, 1e-5, &mut dx);
        check_gradient(&x, &dx, |x| dot(&forward(x), &dy));
    }
}
