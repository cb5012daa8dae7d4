//! The one-dimensional transforms of F(2, 3) and F(4, 3): a tile of `A` = `M` + 2 inputs gives `M` outputs.
//!
//! F(2, 3) evaluates at 0, 1, -1 and infinity, F(4, 3) at 0, 1, -1, 1/2, -2 and infinity (Lavin and Gray 2016; the points of
//! Barabasz, Anderson, Soodhalter and Gregg 2020, whose rounding errors are smaller than those of 0, ±1, ±2). A two-dimensional
//! transform is one along the columns and then one along the rows.

use crate::simd::Simd;

/// Inputs, to be multiplied point by point with transformed filters.
#[inline(always)]
pub(super) fn input_line<S: Simd, const A: usize>(s: S, d: [S::V; A]) -> [S::V; A] {
    let mut out = d;
    if A == 4 {
        out[0] = s.sub(d[0], d[2]);
        out[1] = s.add(d[1], d[2]);
        out[2] = s.sub(d[2], d[1]);
        out[3] = s.sub(d[3], d[1]);
    } else {
        let (a, b) = (s.sub(d[4], d[2]), s.sub(d[3], d[1]));
        let one_and_a_half = s.splat(1.5);
        out[0] = s.mul_add(one_and_a_half, b, s.add(s.sub(d[0], d[2]), a));
        out[1] = s.mul_add(one_and_a_half, s.add(d[3], d[2]), s.add(a, b));
        out[2] = s.mul_add(one_and_a_half, s.sub(d[3], d[2]), s.sub(a, b));
        out[3] = s.mul_add(s.splat(2.0), b, a);
        out[4] = s.neg_mul_add(s.splat(0.5), b, a);
        out[5] = s.mul_add(one_and_a_half, a, s.sub(s.sub(d[5], d[3]), b));
    }
    out
}

/// Filters: the values of their polynomial at the points, divided by the points' distances.
#[inline(always)]
pub(super) fn filter_line<S: Simd, const A: usize>(s: S, g: [S::V; 3]) -> [S::V; A] {
    let mut out = [g[0]; A];
    let outer = s.add(g[0], g[2]);
    if A == 4 {
        let half = s.splat(0.5);
        out[1] = s.mul(half, s.add(outer, g[1]));
        out[2] = s.mul(half, s.sub(outer, g[1]));
    } else {
        out[1] = s.mul(s.splat(1.0 / 3.0), s.add(outer, g[1]));
        out[2] = s.mul(s.splat(-1.0 / 3.0), s.sub(outer, g[1]));
        let at_half = s.mul_add(s.splat(0.25), g[2], s.mul_add(s.splat(0.5), g[1], g[0]));
        out[3] = s.mul(s.splat(-16.0 / 15.0), at_half);
        let at_minus_two = s.mul_add(s.splat(4.0), g[2], s.mul_add(s.splat(-2.0), g[1], g[0]));
        out[4] = s.mul(s.splat(1.0 / 15.0), at_minus_two);
    }
    out[A - 1] = g[2];
    out
}

/// Products, back to `M` outputs.
#[inline(always)]
pub(super) fn output_line<S: Simd, const A: usize, const M: usize>(s: S, m: [S::V; A]) -> [S::V; M] {
    let mut out = [m[0]; M];
    let (sum, difference) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
    if A == 4 {
        out[0] = s.add(m[0], sum);
        out[1] = s.add(difference, m[3]);
    } else {
        out[0] = s.add(s.add(m[0], sum), s.add(m[3], m[4]));
        out[1] = s.mul_add(s.splat(-2.0), m[4], s.mul_add(s.splat(0.5), m[3], difference));
        out[2] = s.mul_add(s.splat(4.0), m[4], s.mul_add(s.splat(0.25), m[3], sum));
        out[3] = s.mul_add(s.splat(-8.0), m[4], s.mul_add(s.splat(0.125), m[3], s.add(difference, m[5])));
    }
    out
}

/// Gradients of `M` outputs, to be multiplied point by point with transformed inputs: the transpose of [`output_line`].
#[inline(always)]
pub(super) fn output_grad_line<S: Simd>(s: S, y: [S::V; 4]) -> [S::V; 6] {
    let (even, odd) = (s.add(y[0], y[2]), s.add(y[1], y[3]));
    let half_even = s.mul_add(s.splat(0.25), y[2], y[0]);
    let half_odd = s.mul_add(s.splat(0.125), y[3], s.mul(s.splat(0.5), y[1]));
    let two_even = s.mul_add(s.splat(4.0), y[2], y[0]);
    let two_odd = s.mul_add(s.splat(8.0), y[3], s.mul(s.splat(2.0), y[1]));
    [y[0], s.add(even, odd), s.sub(even, odd), s.add(half_even, half_odd), s.sub(two_even, two_odd), y[3]]
}

/// Products, back to the gradients of 3 taps: the transpose of [`filter_line`].
#[inline(always)]
pub(super) fn filter_grad_line<S: Simd>(s: S, m: [S::V; 6]) -> [S::V; 3] {
    let third = s.splat(1.0 / 3.0);
    let (sum, difference) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
    let outer = s.neg_mul_add(s.splat(16.0 / 15.0), m[3], s.mul(s.splat(1.0 / 15.0), m[4]));
    let inner = s.mul_add(s.splat(8.0 / 15.0), m[3], s.mul(s.splat(2.0 / 15.0), m[4]));
    let last = s.mul(s.splat(4.0 / 15.0), s.sub(m[4], m[3]));
    [
        s.add(m[0], s.mul_add(third, difference, outer)),
        s.sub(s.mul(third, sum), inner),
        s.add(m[5], s.mul_add(third, difference, last)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Portable;

    /// A line's outputs are those of sliding the filter along it; whole numbers, so that only thirds are rounded.
    fn check<const A: usize, const M: usize>() {
        let s = Portable::new();
        let d: [f32; A] = std::array::from_fn(|i| (i * i) as f32 - 7.0);
        let g = [3.0f32, -2.0, 5.0];
        let (v, u) = (input_line(s, d.map(|x| s.splat(x))), filter_line::<_, A>(s, g.map(|x| s.splat(x))));
        let y: [_; M] = output_line::<_, A, M>(s, std::array::from_fn(|i| s.mul(v[i], u[i])));
        for (i, y) in y.iter().enumerate() {
            let want: f32 = (0..3).map(|k| g[k] * d[i + k]).sum();
            assert!((y[0] - want).abs() < 1e-4, "F({M}, 3), output {i}: {}, should be {want}", y[0]);
        }
    }

    #[test]
    fn lines_are_sliding_dot_products() {
        check::<4, 2>();
        check::<6, 4>();
    }
}
