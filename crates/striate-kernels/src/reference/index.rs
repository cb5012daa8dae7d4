//! Operations that order elements, sum them up so far, or address them by whole index tuples.
use super::shape::{IndexError, View, resolve, split_at_axis, strides_of, volume};
use std::cmp::Ordering;

/// Numbers in their order, with NaN above all others and equal to itself.
fn order<T: PartialOrd + Copy>(a: T, b: T) -> Ordering {
    #[allow(clippy::eq_op)] // NaN, for whatever type has one
    let nan = |x: T| x != x;
    a.partial_cmp(&b).unwrap_or_else(|| nan(a).cmp(&nan(b)))
}

/// Positions of the `k` greatest (or smallest) elements along an axis, the best first; of equals the one with the lower
/// position. NaN counts as the greatest, as in PyTorch.
///
/// # Panics
/// If the axis has less than `k` elements.
pub fn reference_top_k<T: PartialOrd + Copy>(
    shape: &[usize],
    x: &[T],
    axis: usize,
    (k, largest): (usize, bool),
    out: &mut [i64],
) {
    let (outer, size, inner) = split_at_axis(shape, axis);
    let mut line: Vec<usize> = Vec::with_capacity(size);
    for o in 0..outer {
        for i in 0..inner {
            let at = |j: usize| x[(o * size + j) * inner + i];
            let before = |a: &usize, b: &usize| {
                let by_value = order(at(*a), at(*b));
                (if largest { by_value.reverse() } else { by_value }).then(a.cmp(b))
            };
            line.clear();
            line.extend(0..size);
            if k < size {
                line.select_nth_unstable_by(k, before);
            }
            line[..k].sort_unstable_by(before);
            line[..k].iter().enumerate().for_each(|(j, &p)| out[(o * k + j) * inner + i] = p as i64);
        }
    }
}

/// The sum so far along an axis. `exclusive` leaves out the element itself, `reverse` sums from the far end.
pub fn reference_cumsum<T: Copy>(
    shape: &[usize],
    x: &[T],
    (axis, exclusive, reverse): (usize, bool, bool),
    (zero, add): (T, impl Fn(T, T) -> T),
    out: &mut [T],
) {
    let (outer, size, inner) = split_at_axis(shape, axis);
    for o in 0..outer {
        for i in 0..inner {
            let mut sum = zero;
            for j in 0..size {
                let at = (o * size + if reverse { size - 1 - j } else { j }) * inner + i;
                let next = add(sum, x[at]);
                out[at] = if exclusive { sum } else { next };
                sum = next;
            }
        }
    }
}

/// Where each tuple of the last axis of `indices` points in an array of shape `shape`, in blocks of the axes that it does not
/// name. Along the first `batch_dims` axes both arrays run side by side.
fn tuple_offsets(shape: &[usize], batch_dims: usize, indices: View<'_, i64>) -> Result<Vec<usize>, IndexError> {
    let depth = indices.shape.last().copied().unwrap_or(0);
    let tuples = volume(&indices.shape[..indices.shape.len() - 1]);
    let batches = volume(&shape[..batch_dims]);
    let named = &shape[batch_dims..batch_dims + depth];
    let (strides, block) = (strides_of(named), volume(named));
    let per_batch = tuples / batches.max(1);
    let mut offsets = Vec::with_capacity(tuples);
    for tuple in 0..tuples {
        let mut offset = (tuple / per_batch.max(1)) * block;
        for axis in 0..depth {
            let position = tuple * depth + axis;
            offset += resolve(indices.data[position], position, named[axis])? * strides[axis];
        }
        offsets.push(offset);
    }
    Ok(offsets)
}

/// `out[b.., i.., ..] = x[b.., indices[b.., i.., :], ..]`: ONNX `GatherND`. The last axis of `indices` holds as many indices as
/// it names axes of `x` behind the first `batch_dims`.
///
/// # Errors
/// If an index lies outside of its axis.
pub fn reference_gather_nd<T: Copy>(
    x: View<'_, T>,
    batch_dims: usize,
    indices: View<'_, i64>,
    out: &mut [T],
) -> Result<(), IndexError> {
    let depth = indices.shape.last().copied().unwrap_or(0);
    let inner = volume(&x.shape[batch_dims + depth..]);
    for (at, offset) in tuple_offsets(x.shape, batch_dims, indices)?.into_iter().enumerate() {
        out[at * inner..(at + 1) * inner].copy_from_slice(&x.data[offset * inner..(offset + 1) * inner]);
    }
    Ok(())
}

/// `out[indices[i.., :], ..] = combine(out[…], updates[i.., ..])`: ONNX `ScatterND`, in row-major order of the indices, into what
/// `out` (of shape `shape`) already holds.
///
/// # Errors
/// If an index lies outside of its axis; then nothing is written.
pub fn reference_scatter_nd<T: Copy>(
    shape: &[usize],
    indices: View<'_, i64>,
    updates: &[T],
    combine: impl Fn(T, T) -> T,
    out: &mut [T],
) -> Result<(), IndexError> {
    let depth = indices.shape.last().copied().unwrap_or(0);
    let inner = volume(&shape[depth..]);
    for (at, offset) in tuple_offsets(shape, 0, indices)?.into_iter().enumerate() {
        let slots = &mut out[offset * inner..(offset + 1) * inner];
        slots.iter_mut().zip(&updates[at * inner..]).for_each(|(slot, &update)| *slot = combine(*slot, update));
    }
    Ok(())
}

/// Positions of the elements that are not their type's default (0, false), as `[rank, count]`, in row-major order.
pub fn reference_non_zero<T: PartialEq + Default>(shape: &[usize], x: &[T]) -> Vec<i64> {
    let found: Vec<usize> = (0..x.len()).filter(|&i| x[i] != T::default()).collect();
    let strides = strides_of(shape);
    let along = |axis: usize| found.iter().map(move |at| (at / axis) as i64);
    let mut out = Vec::with_capacity(shape.len() * found.len());
    for (&stride, &size) in strides.iter().zip(shape) {
        out.extend(along(stride).map(|at| at % size as i64));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_k_orders_nan_and_equals() {
        let x = [1.0, f64::NAN, 3.0, 3.0, -1.0, 0.0];
        let top = |shape: &[usize], axis: usize, k: usize, largest: bool| {
            let mut out = vec![0; volume(shape) / shape[axis] * k];
            reference_top_k(shape, &x, axis, (k, largest), &mut out);
            out
        };
        assert_eq!(top(&[6], 0, 4, true), [1, 2, 3, 0]);
        assert_eq!(top(&[6], 0, 6, false), [4, 5, 0, 2, 3, 1]);
        assert_eq!(top(&[2, 3], 0, 1, true), [1, 0, 0]);
        assert_eq!(top(&[2, 3], 1, 2, false), [0, 2, 1, 2]);
        assert_eq!(top(&[6], 0, 0, true), [0; 0]);
    }

    #[test]
    fn sums_so_far() {
        let x = [1i64, 2, 3, 4, 5, 6];
        let sums = |axis, exclusive, reverse| {
            let mut out = [0; 6];
            reference_cumsum(&[2, 3], &x, (axis, exclusive, reverse), (0, i64::wrapping_add), &mut out);
            out
        };
        assert_eq!(sums(1, false, false), [1, 3, 6, 4, 9, 15]);
        assert_eq!(sums(1, true, false), [0, 1, 3, 0, 4, 9]);
        assert_eq!(sums(0, false, true), [5, 7, 9, 4, 5, 6]);
        assert_eq!(sums(1, true, true), [5, 3, 0, 11, 6, 0]);
    }

    #[test]
    fn tuples_of_indices() {
        let x = View { shape: &[2, 2, 2], data: &[0, 1, 2, 3, 4, 5, 6, 7] };
        let mut out = [0; 4];
        reference_gather_nd(x, 0, View { shape: &[2, 2], data: &[0, 1, -1, 0] }, &mut out).unwrap();
        assert_eq!(out, [2, 3, 4, 5]);
        reference_gather_nd(x, 1, View { shape: &[2, 1], data: &[1, 0] }, &mut out).unwrap();
        assert_eq!(out, [2, 3, 4, 5]);
        let error = reference_gather_nd(x, 0, View { shape: &[1, 2], data: &[0, 2] }, &mut out).unwrap_err();
        assert_eq!(error, IndexError { position: 1, index: 2, size: 2 });
        let mut z = [1; 4];
        let twice = View { shape: &[2, 1], data: &[1, 1] };
        reference_scatter_nd(&[2, 2], twice, &[2, 3, 4, 5], |a, b| a * b, &mut z).unwrap();
        assert_eq!(z, [1, 1, 8, 15]);
        assert_eq!(
            reference_non_zero(&[2, 2, 2], x.data),
            [0, 0, 0, 1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1]
        );
        assert_eq!(reference_non_zero(&[], &[true]), [0; 0]);
    }
}
