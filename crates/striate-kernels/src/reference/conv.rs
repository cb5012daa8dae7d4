//! Convolution by its definition, and the layout changes that tests need.
use super::Float;
use crate::conv::Conv2dShape;
use std::ops::Range;

/// The output positions `o` of one axis for which `o * stride + offset` lies in `0..len`.
fn taps_inside(out: usize, len: usize, stride: usize, offset: isize) -> Range<usize> {
    let (stride, len) = (stride as isize, len as isize);
    let first = (-offset).max(0).div_euclid(stride) + isize::from((-offset).max(0) % stride != 0);
    let end = if len > offset { (len - 1 - offset) / stride + 1 } else { 0 };
    let end = end.min(out as isize).max(0);
    first.min(end) as usize..end as usize
}

/// Calls `f(output row, input row, weight, output columns, first input column)` for every pair of a row and a tap that meet:
/// the walk that all three convolutions share. Rows are offsets of `[C, H]` rows in their tensors.
fn for_each_row_and_tap(s: &Conv2dShape, mut f: impl FnMut(usize, usize, usize, Range<usize>, usize)) {
    let (oh, ow) = (s.oh(), s.ow());
    let (icg, ocg) = (s.ic / s.groups, s.oc / s.groups);
    for n in 0..s.n {
        for oc in 0..s.oc {
            let group = oc / ocg;
            for i in 0..icg {
                let ic = group * icg + i;
                for kh in 0..s.kh {
                    let rows = taps_inside(oh, s.ih, s.stride[0], (kh * s.dilation[0]) as isize - s.pads[0] as isize);
                    for kw in 0..s.kw {
                        let left = (kw * s.dilation[1]) as isize - s.pads[1] as isize;
                        let columns = taps_inside(ow, s.iw, s.stride[1], left);
                        if columns.is_empty() {
                            continue;
                        }
                        let first = ((columns.start * s.stride[1]) as isize + left) as usize;
                        let weight = ((oc * icg + i) * s.kh + kh) * s.kw + kw;
                        for y in rows.clone() {
                            let ih = y * s.stride[0] + kh * s.dilation[0] - s.pads[0];
                            let out_row = ((n * s.oc + oc) * oh + y) * ow;
                            let in_row = ((n * s.ic + ic) * s.ih + ih) * s.iw;
                            f(out_row, in_row, weight, columns.clone(), first);
                        }
                    }
                }
            }
        }
    }
}

/// `y = conv(x, w) + bias`: x `[N, IC, IH, IW]`, w `[OC, IC / groups, KH, KW]`, bias `[OC]`, y `[N, OC, OH, OW]`.
pub fn reference_conv2d<T: Float>(shape: &Conv2dShape, x: &[T], w: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let plane = shape.oh() * shape.ow();
    if plane == 0 {
        return;
    }
    for (i, out) in y.chunks_exact_mut(plane).enumerate() {
        out.fill(bias.map_or(T::ZERO, |b| b[i % shape.oc]));
    }
    let stride = shape.stride[1];
    for_each_row_and_tap(shape, |out_row, in_row, weight, columns, first| {
        let w = w[weight];
        let out = &mut y[out_row + columns.start..out_row + columns.end];
        for (y, &x) in out.iter_mut().zip(x[in_row + first..].iter().step_by(stride)) {
            *y += w * x;
        }
    });
}

/// The gradient with respect to the input: dy `[N, OC, OH, OW]`, w `[OC, IC / groups, KH, KW]`, dx `[N, IC, IH, IW]`.
pub fn reference_conv2d_input_grad<T: Float>(shape: &Conv2dShape, dy: &[T], w: &[T], dx: &mut [T]) {
    dx.fill(T::ZERO);
    let stride = shape.stride[1];
    for_each_row_and_tap(shape, |out_row, in_row, weight, columns, first| {
        let w = w[weight];
        let dy = &dy[out_row + columns.start..out_row + columns.end];
        for (&dy, dx) in dy.iter().zip(dx[in_row + first..].iter_mut().step_by(stride)) {
            *dx += w * dy;
        }
    });
}

/// The gradient with respect to the weight: x `[N, IC, IH, IW]`, dy `[N, OC, OH, OW]`, dw `[OC, IC / groups, KH, KW]`.
///
/// Each row is summed by itself first, which keeps the error of long sums in `f32` down.
pub fn reference_conv2d_weight_grad<T: Float>(shape: &Conv2dShape, x: &[T], dy: &[T], dw: &mut [T]) {
    dw.fill(T::ZERO);
    let stride = shape.stride[1];
    for_each_row_and_tap(shape, |out_row, in_row, weight, columns, first| {
        let dy = &dy[out_row + columns.start..out_row + columns.end];
        let x = x[in_row + first..].iter().step_by(stride);
        dw[weight] += dy.iter().zip(x).map(|(&dy, &x)| dy * x).sum();
    });
}

/// `[N, C, H, W]` to `[N, H, W, C]`. `dims` is `[N, C, H, W]`.
pub fn nchw_to_nhwc<T: Copy>(x: &[T], dims: [usize; 4]) -> Vec<T> {
    let [n, c, h, w] = dims;
    let mut y = Vec::with_capacity(x.len());
    for n in 0..n {
        for p in 0..h * w {
            y.extend((0..c).map(|c_| x[(n * c + c_) * h * w + p]));
        }
    }
    y
}

/// `[N, H, W, C]` to `[N, C, H, W]`. `dims` is `[N, C, H, W]`.
pub fn nhwc_to_nchw<T: Copy>(x: &[T], dims: [usize; 4]) -> Vec<T> {
    let [n, c, h, w] = dims;
    let mut y = Vec::with_capacity(x.len());
    for n in 0..n {
        for c_ in 0..c {
            y.extend((0..h * w).map(|p| x[(n * h * w + p) * c + c_]));
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Odd in every way that a shape can be.
    fn odd_shape() -> Conv2dShape {
        Conv2dShape {
            n: 2,
            ih: 7,
            iw: 9,
            ic: 4,
            oc: 6,
            kh: 3,
            kw: 2,
            stride: [2, 3],
            pads: [1, 2, 0, 1],
            dilation: [2, 1],
            groups: 2,
        }
    }

    fn ramp(len: usize, seed: usize) -> Vec<f64> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 211) as f64 / 211.0 - 0.5).collect()
    }

    /// Sums over the definition with every index checked one by one.
    fn naive(s: &Conv2dShape, x: &[f64], w: &[f64]) -> Vec<f64> {
        let (oh, ow, icg, ocg) = (s.oh(), s.ow(), s.ic / s.groups, s.oc / s.groups);
        let mut y = vec![0.0; s.n * s.oc * oh * ow];
        for (index, y) in y.iter_mut().enumerate() {
            let (c, r) = (index % ow, index / ow % oh);
            let (oc, n) = (index / ow / oh % s.oc, index / ow / oh / s.oc);
            for (i, kh, kw) in (0..icg).flat_map(|i| (0..s.kh).flat_map(move |kh| (0..s.kw).map(move |kw| (i, kh, kw))))
            {
                let h = (r * s.stride[0] + kh * s.dilation[0]) as isize - s.pads[0] as isize;
                let v = (c * s.stride[1] + kw * s.dilation[1]) as isize - s.pads[1] as isize;
                if h >= 0 && v >= 0 && h < s.ih as isize && v < s.iw as isize {
                    let ic = oc / ocg * icg + i;
                    *y += x[((n * s.ic + ic) * s.ih + h as usize) * s.iw + v as usize]
                        * w[((oc * icg + i) * s.kh + kh) * s.kw + kw];
                }
            }
        }
        y
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn forward_is_the_definition() {
        let s = odd_shape();
        let (x, w) = (ramp(s.n * s.ic * s.ih * s.iw, 1), ramp(s.oc * s.ic / s.groups * s.kh * s.kw, 2));
        let mut y = vec![f64::NAN; s.n * s.oc * s.oh() * s.ow()];
        reference_conv2d(&s, &x, &w, None, &mut y);
        for (a, b) in y.iter().zip(naive(&s, &x, &w)) {
            assert!((a - b).abs() < 1e-14);
        }
        let bias = ramp(s.oc, 3);
        let plain = y.clone();
        reference_conv2d(&s, &x, &w, Some(&bias), &mut y);
        let plane = s.oh() * s.ow();
        for (i, (a, b)) in y.iter().zip(plain).enumerate() {
            assert!((a - b - bias[i / plane % s.oc]).abs() < 1e-14);
        }
    }

    /// A convolution is linear in x and in w, so `<dy, conv(x, w)> = <dx, x> = <dw, w>`, for all x, w and dy.
    #[test]
    fn gradients_are_the_adjoints() {
        let s = odd_shape();
        let (x, w) = (ramp(s.n * s.ic * s.ih * s.iw, 1), ramp(s.oc * s.ic / s.groups * s.kh * s.kw, 2));
        let dy = ramp(s.n * s.oc * s.oh() * s.ow(), 4);
        let forward = dot(&dy, &naive(&s, &x, &w));
        let mut dx = vec![f64::NAN; x.len()];
        reference_conv2d_input_grad(&s, &dy, &w, &mut dx);
        assert!((dot(&dx, &x) - forward).abs() < 1e-12);
        let mut dw = vec![f64::NAN; w.len()];
        reference_conv2d_weight_grad(&s, &x, &dy, &mut dw);
        assert!((dot(&dw, &w) - forward).abs() < 1e-12);
    }

    #[test]
    fn layouts_go_both_ways() {
        let dims = [2, 3, 4, 5];
        let x = ramp(120, 5);
        let y = nchw_to_nhwc(&x, dims);
        assert_eq!(y[1], x[20]);
        assert_eq!(nhwc_to_nchw(&y, dims), x);
    }

    #[test]
    fn a_tap_that_sees_only_padding_counts_nothing() {
        assert_eq!(taps_inside(4, 3, 1, 5), 0..0);
        assert_eq!(taps_inside(4, 3, 1, -5), 4..4);
        assert_eq!(taps_inside(4, 3, 2, -3), 2..3);
        assert_eq!(taps_inside(10, 8, 1, 0), 0..8);
    }
}
