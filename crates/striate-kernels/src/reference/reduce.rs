//! Reductions, extremes by index, softmax and matrix products.
use super::Float;
use super::shape::{for_each_offset, split_at_axis, strides_of, volume};
use crate::kinds::ReduceKind;

/// Strides of the output of a reduction inside of the input's positions: 0 along every reduced axis.
fn kept_strides(shape: &[usize], axes: &[usize]) -> Vec<isize> {
    let kept: Vec<usize> = (0..shape.len()).map(|a| if axes.contains(&a) { 1 } else { shape[a] }).collect();
    let own = strides_of(&kept);
    (0..shape.len()).map(|a| if axes.contains(&a) { 0 } else { own[a] as isize }).collect()
}

/// Reduces over `axes`; `out` has the kept axes in order (with or without axes of length 1: the data is the same).
///
/// Sums run in double precision. Over nothing: sum 0, product 1, mean NaN, max and min the infinities, log-sum-exp -inf.
pub fn reference_reduce<T: Float>(kind: ReduceKind, shape: &[usize], x: &[T], axes: &[usize], out: &mut [T]) {
    use ReduceKind::*;
    assert_eq!(x.len(), volume(shape), "length of the input");
    let strides = kept_strides(shape, axes);
    let visit = |acc: &mut [f64], f: &dyn Fn(f64, f64, usize) -> f64| {
        let mut values = x.iter();
        for_each_offset(shape, [0], [&strides], |[o]| {
            acc[o] = f(acc[o], values.next().expect("as many as positions").to_f64(), o);
        });
    };
    let start = match kind {
        Max | LogSumExp => f64::NEG_INFINITY,
        Min => f64::INFINITY,
        Prod => 1.0,
        Sum | Mean | SumSquare | L1 | L2 => 0.0,
    };
    let mut acc = vec![start; out.len()];
    match kind {
        Sum | Mean => visit(&mut acc, &|a, v, _| a + v),
        Max | LogSumExp => visit(&mut acc, &|a, v, _| Float::maximum(a, v)),
        Min => visit(&mut acc, &|a, v, _| Float::minimum(a, v)),
        Prod => visit(&mut acc, &|a, v, _| a * v),
        SumSquare | L2 => visit(&mut acc, &|a, v, _| a + v * v),
        L1 => visit(&mut acc, &|a, v, _| a + v.abs()),
    }
    let count = x.len() as f64 / out.len().max(1) as f64;
    if kind == LogSumExp {
        // A maximum of ±inf stays as it is; otherwise shift by it.
        let shift: Vec<f64> = acc.iter().map(|&m| if m.is_infinite() { 0.0 } else { m }).collect();
        acc.fill(0.0);
        visit(&mut acc, &|a, v, o| a + (v - shift[o]).exp());
        acc.iter_mut().zip(&shift).for_each(|(a, s)| *a = a.ln() + s);
    }
    for (slot, a) in out.iter_mut().zip(acc) {
        *slot = T::from_f64(match kind {
            Mean => a / count,
            L2 => a.sqrt(),
            _ => a,
        });
    }
}

/// [`reference_reduce`] on integers, wrapping; `Mean` and `L2` truncate, `LogSumExp` rounds down.
pub fn reference_reduce_i64(kind: ReduceKind, shape: &[usize], x: &[i64], axes: &[usize], out: &mut [i64]) {
    use ReduceKind::*;
    let strides = kept_strides(shape, axes);
    let fold = |out: &mut [i64], start: i64, f: fn(i64, i64) -> i64| {
        out.fill(start);
        let mut values = x.iter();
        for_each_offset(shape, [0], [&strides], |[o]| out[o] = f(out[o], *values.next().expect("as many")));
    };
    let count = (x.len() / out.len().max(1)).max(1) as i64;
    match kind {
        Sum | Mean => fold(out, 0, i64::wrapping_add),
        Max => fold(out, i64::MIN, i64::max),
        Min => fold(out, i64::MAX, i64::min),
        Prod => fold(out, 1, i64::wrapping_mul),
        SumSquare | L2 => fold(out, 0, |a, v| a.wrapping_add(v.wrapping_mul(v))),
        L1 => fold(out, 0, |a, v| a.wrapping_add(v.wrapping_abs())),
        LogSumExp => {
            let float: Vec<f64> = x.iter().map(|&v| v as f64).collect();
            let mut result = vec![0.0; out.len()];
            reference_reduce(kind, shape, &float, axes, &mut result);
            out.iter_mut().zip(result).for_each(|(o, r)| *o = r.floor() as i64);
        }
    }
    match kind {
        Mean => out.iter_mut().for_each(|o| *o /= count),
        L2 => out.iter_mut().for_each(|o| *o = (*o as f64).sqrt() as i64),
        _ => {}
    }
}

/// Index of the greatest (`largest`) or smallest element along an axis: the first of equals; the first NaN beats all.
pub fn reference_arg_extreme<T: PartialOrd + Copy>(
    shape: &[usize],
    x: &[T],
    axis: usize,
    largest: bool,
    out: &mut [i64],
) {
    let (outer, size, inner) = split_at_axis(shape, axis);
    for o in 0..outer {
        for i in 0..inner {
            let at = |k: usize| x[(o * size + k) * inner + i];
            let mut best = 0;
            for k in 1..size {
                let (v, b) = (at(k), at(best));
                #[allow(clippy::eq_op)] // NaN, for whatever type has one
                let (v_nan, b_nan) = (v != v, b != b);
                if !b_nan && (v_nan || if largest { v > b } else { v < b }) {
                    best = k;
                }
            }
            out[o * inner + i] = best as i64;
        }
    }
}

fn softmax_by<T: Float>(shape: &[usize], x: &[T], axis: usize, out: &mut [T], finish: impl Fn(f64, f64) -> f64) {
    let (outer, size, inner) = split_at_axis(shape, axis);
    for o in 0..outer {
        for i in 0..inner {
            let at = |k: usize| (o * size + k) * inner + i;
            let max = (0..size).fold(f64::NEG_INFINITY, |m, k| Float::maximum(m, x[at(k)].to_f64()));
            let sum: f64 = (0..size).map(|k| (x[at(k)].to_f64() - max).exp()).sum();
            for k in 0..size {
                out[at(k)] = T::from_f64(finish(x[at(k)].to_f64() - max, sum));
            }
        }
    }
}

/// `exp(x - max) / Σ exp(x - max)` along an axis.
pub fn reference_softmax<T: Float>(shape: &[usize], x: &[T], axis: usize, out: &mut [T]) {
    softmax_by(shape, x, axis, out, |shifted, sum| shifted.exp() / sum);
}

/// `x - max - ln Σ exp(x - max)` along an axis.
pub fn reference_log_softmax<T: Float>(shape: &[usize], x: &[T], axis: usize, out: &mut [T]) {
    softmax_by(shape, x, axis, out, |shifted, sum| shifted - sum.ln());
}

/// A matrix product `[m, k] x [k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatMulShape {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// The left matrix is stored as `[k, m]`.
    pub transpose_a: bool,
    /// The right matrix is stored as `[n, k]`.
    pub transpose_b: bool,
}

/// `out = op(a) op(b)`, sums in double precision.
pub fn reference_matmul<T: Float>(shape: MatMulShape, a: &[T], b: &[T], out: &mut [T]) {
    let step = |sum: f64, x: T, y: T| sum + x.to_f64() * y.to_f64();
    matmul_by(
        shape,
        (a, b),
        (0.0, step),
        |row, sums| row.iter_mut().zip(sums).for_each(|(o, &s)| *o = T::from_f64(s)),
        out,
    );
}

/// [`reference_matmul`] on integers, wrapping.
pub fn reference_matmul_i64(shape: MatMulShape, a: &[i64], b: &[i64], out: &mut [i64]) {
    let step = |sum: i64, x: i64, y: i64| sum.wrapping_add(x.wrapping_mul(y));
    matmul_by(shape, (a, b), (0, step), |row, sums| row.copy_from_slice(sums), out);
}

/// Row by row: `step` adds a product to a sum, `finish` writes the sums of a row down.
fn matmul_by<T: Copy, S: Copy>(
    shape: MatMulShape,
    (a, b): (&[T], &[T]),
    (zero, step): (S, impl Fn(S, T, T) -> S),
    finish: impl Fn(&mut [T], &[S]),
    out: &mut [T],
) {
    let MatMulShape { m, n, k, transpose_a, transpose_b } = shape;
    assert!(a.len() == m * k && b.len() == k * n && out.len() == m * n, "lengths of the matrices");
    let mut row = vec![zero; n];
    for i in 0..m {
        row.fill(zero);
        for p in 0..k {
            let left = if transpose_a { a[p * m + i] } else { a[i * k + p] };
            for (j, sum) in row.iter_mut().enumerate() {
                *sum = step(*sum, left, if transpose_b { b[j * k + p] } else { b[p * n + j] });
            }
        }
        finish(&mut out[i * n..(i + 1) * n], &row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reductions_over_any_axes() {
        let x: Vec<f64> = (0..24).map(f64::from).collect();
        let mut out = [0.0; 3];
        reference_reduce(ReduceKind::Sum, &[2, 3, 4], &x, &[0, 2], &mut out);
        assert_eq!(out, [60.0, 92.0, 124.0]);
        reference_reduce(ReduceKind::Mean, &[2, 3, 4], &x, &[0, 2], &mut out);
        assert_eq!(out, [7.5, 11.5, 15.5]);
        let mut out = [0.0];
        for (kind, expected) in [(ReduceKind::Max, 4.0), (ReduceKind::Min, -3.0), (ReduceKind::Prod, -24.0)] {
            reference_reduce(kind, &[3], &[-3.0, 2.0, 4.0], &[0], &mut out);
            assert_eq!(out[0], expected);
        }
        for (kind, expected) in [(ReduceKind::L1, 7.0), (ReduceKind::L2, 5.0), (ReduceKind::SumSquare, 25.0)] {
            reference_reduce(kind, &[2], &[-3.0, 4.0], &[0], &mut out);
            assert_eq!(out[0], expected);
        }
        reference_reduce(ReduceKind::LogSumExp, &[2], &[1000.0, 1000.0], &[0], &mut out);
        assert_eq!(out[0], 1000.0 + 2f64.ln());
        reference_reduce(ReduceKind::Sum, &[0], &[], &[0], &mut out);
        assert_eq!(out[0], 0.0);
        reference_reduce(ReduceKind::Sum, &[], &[5.0], &[], &mut out);
        assert_eq!(out[0], 5.0);
        let mut out = [0; 2];
        reference_reduce_i64(ReduceKind::Sum, &[2, 2], &[1, 2, 3, 4], &[1], &mut out);
        assert_eq!(out, [3, 7]);
    }

    #[test]
    fn extremes_by_index() {
        let mut out = [0; 2];
        reference_arg_extreme(&[2, 3], &[1.0, 3.0, 3.0, f64::NAN, 9.0, f64::NAN], 1, true, &mut out);
        assert_eq!(out, [1, 0]);
        let mut out = [0; 3];
        reference_arg_extreme(&[2, 3], &[1, 5, 2, 0, 5, 3], 0, false, &mut out);
        assert_eq!(out, [1, 0, 0]);
    }

    #[test]
    fn softmax_sums_to_one_and_survives_large_values() {
        let x = [1000.0, 1001.0, -1000.0, 3.0, 2.0, 1.0];
        let (mut p, mut l) = ([0.0; 6], [0.0; 6]);
        reference_softmax(&[3, 2], &x, 0, &mut p);
        reference_log_softmax(&[3, 2], &x, 0, &mut l);
        assert!((p[0] + p[2] + p[4] - 1.0f64).abs() < 1e-15);
        assert!((l[3].exp() - p[3]).abs() < 1e-15 && p.iter().all(|v: &f64| v.is_finite()));
    }

    #[test]
    fn matmul_with_transposes() {
        let (a, at) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        let (b, bt) = ([1.0, 0.0, 2.0, 1.0, 0.0, 3.0], [1.0, 2.0, 0.0, 0.0, 1.0, 3.0]);
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            let shape = MatMulShape { m: 2, n: 2, k: 3, transpose_a: ta, transpose_b: tb };
            let mut out = [0.0; 4];
            reference_matmul(shape, if ta { &at } else { &a }, if tb { &bt } else { &b }, &mut out);
            assert_eq!(out, [5.0, 11.0, 14.0, 23.0]);
        }
    }
}
