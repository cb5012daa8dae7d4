//! Pooling over planes: row-major `[planes, H, W]`, where planes is N*C.
use super::Float;
use crate::kinds::{AvgDivisor, Windows};

/// The sizes of a pooling operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolShape {
    /// Number of planes (N*C).
    pub planes: usize,
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the output, as [`pool_out_size`] says.
    pub output: [usize; 2],
    /// How the windows lie.
    pub windows: Windows,
}

impl PoolShape {
    /// The shape with its output size worked out, or `None` where no window fits.
    pub fn new(planes: usize, input: [usize; 2], windows: Windows) -> Option<Self> {
        Some(Self { planes, input, output: pool_out_size(input, windows)?, windows })
    }

    /// The window of output `o` along `axis` (0 = height).
    pub fn window(&self, axis: usize, o: usize) -> Window {
        let size = self.input[axis];
        match self.windows {
            Windows::Sliding { kernel, stride, pads, dilation, .. } => {
                let step = dilation[axis];
                let start = (o * stride[axis]) as isize - pads[axis] as isize;
                let reach = |limit: isize| {
                    let taps = (limit - start).max(0) as usize;
                    taps.div_ceil(step).min(kernel[axis])
                };
                let skipped = start.min(0).unsigned_abs().div_ceil(step).min(kernel[axis]);
                let inside = reach(size as isize).saturating_sub(skipped);
                let padded = reach((size + pads[axis + 2]) as isize);
                Window { first: (start + (skipped * step) as isize) as usize, step, inside, padded }
            }
            Windows::Adaptive { out } => {
                let first = o * size / out[axis];
                let count = ((o + 1) * size).div_ceil(out[axis]) - first;
                Window { first, step: 1, inside: count, padded: count }
            }
        }
    }
}

/// One window along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First position inside the map (meaningless where `inside` is 0).
    pub first: usize,
    /// Distance of the positions.
    pub step: usize,
    /// Number of positions inside the map.
    pub inside: usize,
    /// Number of positions inside the map or its padding, but not beyond (ceil_mode).
    pub padded: usize,
}

impl Window {
    /// The positions inside the map, ascending.
    pub fn positions(self) -> impl Iterator<Item = usize> + Clone {
        (0..self.inside).map(move |i| self.first + i * self.step)
    }
}

/// Output size (height, width) by PyTorch's rule, or `None` where no window fits or a size or stride is 0.
///
/// `out = floor((in + pad_begin + pad_end - dilation * (kernel - 1) - 1) / stride) + 1`; with `ceil_mode` rounded up, and a last window
/// that would start at or beyond `in + pad_begin` is dropped.
///
/// ```
/// use striate_kernels::{kinds::Windows, reference::pool_out_size};
/// let windows = |ceil_mode| Windows::Sliding { kernel: [3, 3], stride: [2, 2], pads: [0; 4], dilation: [1, 1], ceil_mode };
/// assert_eq!(pool_out_size([6, 7], windows(false)), Some([2, 3]));
/// assert_eq!(pool_out_size([6, 7], windows(true)), Some([3, 3]));
/// ```
pub fn pool_out_size(input: [usize; 2], windows: Windows) -> Option<[usize; 2]> {
    let axis = |a: usize| match windows {
        Windows::Adaptive { out } => (out[a] > 0 && input[a] > 0).then_some(out[a]),
        Windows::Sliding { kernel, stride, pads, dilation, ceil_mode } => {
            if kernel[a] == 0 || stride[a] == 0 || dilation[a] == 0 || input[a] == 0 {
                return None;
            }
            let (step, begin) = (stride[a] as i64, (input[a] + pads[a]) as i64);
            let room = begin + pads[a + 2] as i64 - dilation[a] as i64 * (kernel[a] as i64 - 1) - 1;
            let mut out = (room + if ceil_mode { step - 1 } else { 0 }).div_euclid(step) + 1;
            if ceil_mode && (out - 1) * step >= begin {
                out -= 1;
            }
            (out > 0).then_some(out as usize)
        }
    };
    Some([axis(0)?, axis(1)?])
}

/// Visits every window: (index of the output element, offset of its input plane, window rows, window columns).
fn for_each_window(shape: PoolShape, mut visit: impl FnMut(usize, usize, Window, Window)) {
    let [height, width] = shape.input;
    let mut o = 0;
    for plane in 0..shape.planes {
        for oy in 0..shape.output[0] {
            let rows = shape.window(0, oy);
            for ox in 0..shape.output[1] {
                visit(o, plane * height * width, rows, shape.window(1, ox));
                o += 1;
            }
        }
    }
}

/// Greatest element of each window, and where it is: flat index into its H*W plane, as PyTorch's `return_indices`.
///
/// The first maximum wins; a NaN wins over all (the last one of several, as in PyTorch). A window of padding only gives
/// -inf and index -1.
pub fn reference_max_pool<T: Float>(shape: PoolShape, x: &[T], out: &mut [T], mut indices: Option<&mut [i64]>) {
    for_each_window(shape, |o, plane, rows, columns| {
        let (mut best, mut at) = (-T::INFINITY, -1);
        for y in rows.positions() {
            for x_at in columns.positions() {
                let index = y * shape.input[1] + x_at;
                let value = x[plane + index];
                if at < 0 || value > best || value.is_nan() {
                    (best, at) = (value, index as i64);
                }
            }
        }
        out[o] = best;
        if let Some(indices) = indices.as_deref_mut() {
            indices[o] = at;
        }
    });
}

/// The gradient of [`reference_max_pool`]: `dx[indices] += dy`, plane by plane.
pub fn reference_max_pool_grad<T: Float>(shape: PoolShape, indices: &[i64], dy: &[T], dx: &mut [T]) {
    dx.fill(T::ZERO);
    for_each_window(shape, |o, plane, _, _| {
        if indices[o] >= 0 {
            dx[plane + indices[o] as usize] += dy[o];
        }
    });
}

/// `torch.nn.MaxUnpool2d`: `out[plane][indices] = x`, 0 elsewhere. `out` is `[planes, out_len]`; the last writer wins.
///
/// Returns false where an index lies outside of the plane (then nothing more is written).
pub fn reference_max_unpool<T: Float>(planes: usize, x: &[T], indices: &[i64], out: &mut [T]) -> bool {
    out.fill(T::ZERO);
    if planes == 0 {
        return true;
    }
    let (source, target) = (x.len() / planes, out.len() / planes);
    x.iter().zip(indices).enumerate().all(|(i, (&value, &index))| {
        let fits = (0..target as i64).contains(&index);
        if fits {
            out[i / source * target + index as usize] = value;
        }
        fits
    })
}

fn divisor(rows: Window, columns: Window, rule: AvgDivisor) -> f64 {
    match rule {
        AvgDivisor::IncludePad => (rows.padded * columns.padded) as f64,
        AvgDivisor::ExcludePad => (rows.inside * columns.inside) as f64,
        AvgDivisor::Const(d) => d as f64,
    }
}

/// Sum of each window's elements inside the map over the divisor. A window of padding only gives 0.
pub fn reference_avg_pool<T: Float>(shape: PoolShape, rule: AvgDivisor, x: &[T], out: &mut [T]) {
    for_each_window(shape, |o, plane, rows, columns| {
        let mut sum = 0.0;
        for y in rows.positions() {
            for x_at in columns.positions() {
                sum += x[plane + y * shape.input[1] + x_at].to_f64();
            }
        }
        let empty = rows.inside * columns.inside == 0;
        out[o] = if empty { T::ZERO } else { T::from_f64(sum / divisor(rows, columns, rule)) };
    });
}

/// The gradient of [`reference_avg_pool`].
pub fn reference_avg_pool_grad<T: Float>(shape: PoolShape, rule: AvgDivisor, dy: &[T], dx: &mut [T]) {
    let mut sums = vec![0.0; dx.len()];
    for_each_window(shape, |o, plane, rows, columns| {
        for y in rows.positions() {
            for x_at in columns.positions() {
                sums[plane + y * shape.input[1] + x_at] += dy[o].to_f64() / divisor(rows, columns, rule);
            }
        }
    });
    dx.iter_mut().zip(sums).for_each(|(d, s)| *d = T::from_f64(s));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sliding(kernel: usize, stride: usize, pad: usize, dilation: usize, ceil_mode: bool) -> Windows {
        let (kernel, stride, dilation) = ([kernel; 2], [stride; 2], [dilation; 2]);
        Windows::Sliding { kernel, stride, pads: [pad; 4], dilation, ceil_mode }
    }

    #[test]
    fn the_lesson_of_the_course() {
        let x: Vec<f32> = (1..=16).map(|v| v as f32).collect();
        let shape = PoolShape::new(1, [4, 4], sliding(2, 2, 0, 1, false)).unwrap();
        let (mut y, mut at) = ([0.0; 4], [0; 4]);
        reference_max_pool(shape, &x, &mut y, Some(&mut at));
        assert_eq!(y, [6.0, 8.0, 14.0, 16.0]);
        assert_eq!(at, [5, 7, 13, 15]);
        let mut dx = [9.0; 16];
        reference_max_pool_grad(shape, &at, &[1.0f32, 2.0, 3.0, 4.0], &mut dx);
        assert_eq!((dx[5], dx[7], dx[13], dx[15], dx.iter().sum::<f32>()), (1.0, 2.0, 3.0, 4.0, 10.0));
        let mut back = [9.0; 16];
        assert!(reference_max_unpool(1, &y, &at, &mut back));
        assert_eq!((back[5], back[0]), (6.0, 0.0));
        assert!(!reference_max_unpool(1, &y, &[0, 1, 2, 16], &mut back));
    }

    #[test]
    fn ties_nan_and_padding() {
        let shape = PoolShape::new(1, [1, 3], sliding(3, 1, 1, 1, false)).unwrap();
        let (mut y, mut at) = ([0.0; 3], [0; 3]);
        reference_max_pool(shape, &[-2.0f32, -2.0, -2.0], &mut y, Some(&mut at));
        assert_eq!((y, at), ([-2.0; 3], [0, 0, 1]));
        reference_max_pool(shape, &[1.0f32, f32::NAN, 2.0], &mut y, Some(&mut at));
        assert!(y.iter().all(|v| v.is_nan()));
        assert_eq!(at, [1, 1, 1]);
    }

    #[test]
    fn average_divisors_as_torch() {
        // torch.nn.functional.avg_pool2d(torch.arange(1., 26).view(1, 1, 5, 5), 3, 2, 1, ceil_mode=True, ...)
        let x: Vec<f64> = (1..=25).map(f64::from).collect();
        let shape = PoolShape::new(1, [5, 5], sliding(3, 2, 1, 1, true)).unwrap();
        assert_eq!(shape.output, [3, 3]);
        let mut y = [0.0; 9];
        reference_avg_pool(shape, AvgDivisor::IncludePad, &x, &mut y);
        assert!((y[0] - 16.0 / 9.0).abs() < 1e-15 && y[4] == 13.0);
        reference_avg_pool(shape, AvgDivisor::ExcludePad, &x, &mut y);
        assert_eq!((y[0], y[4]), (4.0, 13.0));
        reference_avg_pool(shape, AvgDivisor::Const(2), &x, &mut y);
        assert_eq!((y[0], y[4]), (8.0, 58.5));
        // Beyond the padding nothing counts: kernel 2, stride 2 on 3x3.
        let shape = PoolShape::new(1, [3, 3], sliding(2, 2, 0, 1, true)).unwrap();
        let mut y = [0.0; 4];
        reference_avg_pool(shape, AvgDivisor::IncludePad, &x[..9], &mut y);
        assert_eq!(y, [3.0, 4.5, 7.5, 9.0]);
    }

    #[test]
    fn adaptive_windows_overlap_as_torch() {
        let shape = PoolShape::new(1, [1, 5], Windows::Adaptive { out: [1, 3] }).unwrap();
        let mut y = [0.0; 3];
        reference_avg_pool(shape, AvgDivisor::ExcludePad, &[1.0, 2.0, 3.0, 4.0, 5.0f64], &mut y);
        assert_eq!(y, [1.5, 3.0, 4.5]);
        let mut dx = [0.0; 5];
        reference_avg_pool_grad(shape, AvgDivisor::ExcludePad, &[2.0, 3.0, 2.0f64], &mut dx);
        assert_eq!(dx, [1.0, 2.0, 1.0, 2.0, 1.0]);
    }

    #[test]
    fn output_sizes() {
        assert_eq!(pool_out_size([2, 2], sliding(3, 1, 0, 1, false)), None);
        assert_eq!(pool_out_size([1, 1], sliding(2, 2, 0, 1, true)), Some([1, 1]));
        assert_eq!(pool_out_size([5, 5], sliding(2, 3, 1, 2, true)), Some([2, 2]));
        assert_eq!(pool_out_size([5, 5], sliding(2, 0, 1, 2, true)), None);
        assert_eq!(pool_out_size([5, 5], Windows::Adaptive { out: [0, 1] }), None);
    }
}
