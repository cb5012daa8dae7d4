//! Row-major index arithmetic and the operations that only move elements.
use std::fmt;

/// A row-major array that a kernel reads.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    /// Lengths of the axes, outermost first.
    pub shape: &'a [usize],
    /// The elements; as many as the product of `shape`.
    pub data: &'a [T],
}

/// An index in the data (not in the shapes) that lies outside of the indexed axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexError {
    /// Where in the index array (flat).
    pub position: usize,
    /// The offending index.
    pub index: i64,
    /// The length of the axis.
    pub size: usize,
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, index, size } = self;
        write!(f, "index {index} (element {position} of the indices) is outside of an axis of length {size}")?;
        write!(f, "; allowed are -{size} to {size} - 1")
    }
}

impl std::error::Error for IndexError {}

/// Row-major strides in elements.
pub fn strides_of(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Number of elements.
pub fn volume(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// The shape of two broadcast arrays by NumPy's rule, or `None` if they do not fit.
pub fn broadcast_shapes(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |j| s[j]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// Strides of `shape` inside of the broadcast shape `to`: 0 along every repeated axis.
pub fn broadcast_strides(shape: &[usize], to: &[usize]) -> Vec<isize> {
    let own = strides_of(shape);
    (0..to.len())
        .map(|i| match (i + shape.len()).checked_sub(to.len()) {
            Some(j) if shape[j] != 1 || to[i] == 1 => own[j] as isize,
            _ => 0,
        })
        .collect()
}

/// Visits all positions of `shape` in row-major order and hands over, for each of `N` operands, the offset
/// `base + Σ index * stride`.
pub fn for_each_offset<const N: usize>(
    shape: &[usize],
    base: [isize; N],
    strides: [&[isize]; N],
    mut visit: impl FnMut([usize; N]),
) {
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0; shape.len()];
    let mut at = base;
    loop {
        visit(at.map(|a| a as usize));
        let mut axis = shape.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            if index[axis] < shape[axis] {
                (0..N).for_each(|n| at[n] += strides[n][axis]);
                break;
            }
            (0..N).for_each(|n| at[n] -= strides[n][axis] * (shape[axis] as isize - 1));
            index[axis] = 0;
        }
    }
}

/// `out[i] = f(x[i'], y[i''])` by NumPy's broadcasting.
///
/// # Panics
/// If the shapes do not broadcast or a slice has another length than its shape says.
pub fn reference_broadcast<X: Copy, Y: Copy, Z>(x: View<'_, X>, y: View<'_, Y>, out: &mut [Z], f: impl Fn(X, Y) -> Z) {
    let to = broadcast_shapes(x.shape, y.shape).expect("the shapes broadcast");
    assert_eq!(out.len(), volume(&to), "length of the output");
    let (sx, sy) = (broadcast_strides(x.shape, &to), broadcast_strides(y.shape, &to));
    let mut slots = out.iter_mut();
    for_each_offset(&to, [0, 0], [&sx, &sy], |[i, j]| {
        *slots.next().expect("as many as positions") = f(x.data[i], y.data[j]);
    });
}

/// Repeats `x` to the shape `to` (NumPy's `broadcast_to`).
pub fn reference_expand<T: Copy>(shape: &[usize], x: &[T], to: &[usize], out: &mut [T]) {
    let strides = broadcast_strides(shape, to);
    let mut slots = out.iter_mut();
    for_each_offset(to, [0], [&strides], |[i]| *slots.next().expect("as many as positions") = x[i]);
}

/// `out = condition ? x : y` with broadcasting of all three; a condition is true where it is not its type's default (0, false).
pub fn reference_where<C, T>(condition: View<'_, C>, x: View<'_, T>, y: View<'_, T>, out: &mut [T])
where
    C: Copy + Default + PartialEq,
    T: Copy,
{
    let xy = broadcast_shapes(x.shape, y.shape).expect("the shapes broadcast");
    let to = broadcast_shapes(&xy, condition.shape).expect("the shapes broadcast");
    assert_eq!(out.len(), volume(&to), "length of the output");
    let strides = [condition.shape, x.shape, y.shape].map(|s| broadcast_strides(s, &to));
    let mut slots = out.iter_mut();
    for_each_offset(&to, [0; 3], [&strides[0], &strides[1], &strides[2]], |[c, i, j]| {
        let chosen = if condition.data[c] != C::default() { x.data[i] } else { y.data[j] };
        *slots.next().expect("as many as positions") = chosen;
    });
}

/// Axis `i` of the output is axis `perm[i]` of the input.
pub fn reference_transpose<T: Copy>(shape: &[usize], x: &[T], perm: &[usize], out: &mut [T]) {
    let own = strides_of(shape);
    let to: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
    let strides: Vec<isize> = perm.iter().map(|&p| own[p] as isize).collect();
    assert_eq!(out.len(), volume(&to), "length of the output");
    let mut slots = out.iter_mut();
    for_each_offset(&to, [0], [&strides], |[i]| *slots.next().expect("as many as positions") = x[i]);
}

/// A slice with a start and a step on every axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceSpec {
    /// First index of each axis, in `0..len` where the output is not empty.
    pub starts: Vec<usize>,
    /// Step of each axis, not 0; negative walks backwards.
    pub steps: Vec<isize>,
    /// Lengths of the output.
    pub lens: Vec<usize>,
}

impl SliceSpec {
    fn base_and_strides(&self, shape: &[usize]) -> (isize, Vec<isize>) {
        let own = strides_of(shape);
        let base: usize = self.starts.iter().zip(&own).map(|(&s, &o)| s * o).sum();
        (base as isize, self.steps.iter().zip(&own).map(|(&s, &o)| s * o as isize).collect())
    }
}

/// `out[i] = x[start + i * step]`.
pub fn reference_slice<T: Copy>(shape: &[usize], x: &[T], spec: &SliceSpec, out: &mut [T]) {
    assert_eq!(out.len(), volume(&spec.lens), "length of the output");
    let (base, strides) = spec.base_and_strides(shape);
    let mut slots = out.iter_mut();
    for_each_offset(&spec.lens, [base], [&strides], |[i]| *slots.next().expect("as many as positions") = x[i]);
}

/// The adjoint of [`reference_slice`]: `dx` (of shape `shape`) is `dy` at the sliced positions, else the default (0).
pub fn reference_slice_grad<T: Copy + Default>(shape: &[usize], dy: &[T], spec: &SliceSpec, dx: &mut [T]) {
    dx.fill(T::default());
    let (base, strides) = spec.base_and_strides(shape);
    let mut source = dy.iter();
    for_each_offset(&spec.lens, [base], [&strides], |[i]| dx[i] = *source.next().expect("as many as positions"));
}

/// Joins arrays along an axis.
pub fn reference_concat<T: Copy>(inputs: &[View<'_, T>], axis: usize, out: &mut [T]) {
    let Some(first) = inputs.first() else { return };
    let outer = volume(&first.shape[..axis]);
    let mut at = 0;
    for o in 0..outer {
        for input in inputs {
            let block = volume(&input.shape[axis..]);
            out[at..at + block].copy_from_slice(&input.data[o * block..(o + 1) * block]);
            at += block;
        }
    }
}

pub(super) fn resolve(index: i64, position: usize, size: usize) -> Result<usize, IndexError> {
    let resolved = if index < 0 { index + size as i64 } else { index };
    if (0..size as i64).contains(&resolved) { Ok(resolved as usize) } else { Err(IndexError { position, index, size }) }
}

/// `out[a.., i.., b..] = x[a.., indices[i..], b..]`. Negative indices count from the end.
///
/// # Errors
/// If an index lies outside of the axis.
pub fn reference_gather<T: Copy>(
    x: View<'_, T>,
    axis: usize,
    indices: &[i64],
    out: &mut [T],
) -> Result<(), IndexError> {
    let (outer, size, inner) = split_at_axis(x.shape, axis);
    assert_eq!(out.len(), outer * indices.len() * inner, "length of the output");
    for o in 0..outer {
        for (position, &index) in indices.iter().enumerate() {
            let from = (o * size + resolve(index, position, size)?) * inner;
            let to = (o * indices.len() + position) * inner;
            out[to..to + inner].copy_from_slice(&x.data[from..from + inner]);
        }
    }
    Ok(())
}

/// The adjoint of [`reference_gather`]: adds `dy` into a zeroed `dx` of shape `shape`.
///
/// # Errors
/// If an index lies outside of the axis.
pub fn reference_gather_grad<T>(
    shape: &[usize],
    axis: usize,
    indices: &[i64],
    dy: &[T],
    dx: &mut [T],
) -> Result<(), IndexError>
where
    T: Copy + Default + std::ops::Add<Output = T>,
{
    let (outer, size, inner) = split_at_axis(shape, axis);
    dx.fill(T::default());
    for o in 0..outer {
        for (position, &index) in indices.iter().enumerate() {
            let to = (o * size + resolve(index, position, size)?) * inner;
            let from = (o * indices.len() + position) * inner;
            for i in 0..inner {
                dx[to + i] = dx[to + i] + dy[from + i];
            }
        }
    }
    Ok(())
}

/// (product of the lengths before, the length of, product of the lengths after) an axis.
pub fn split_at_axis(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (volume(&shape[..axis]), shape[axis], volume(&shape[axis + 1..]))
}

/// For every position of `indices`: its offset in `shape` with the coordinate along `axis` replaced by the index.
fn element_offsets(shape: &[usize], axis: usize, indices: View<'_, i64>) -> Result<Vec<usize>, IndexError> {
    let mut strides: Vec<isize> = strides_of(shape).iter().map(|&s| s as isize).collect();
    let along = std::mem::take(&mut strides[axis]) as usize;
    let mut offsets = Vec::with_capacity(indices.data.len());
    for_each_offset(indices.shape, [0], [&strides], |[base]| offsets.push(base));
    for (position, (offset, &index)) in offsets.iter_mut().zip(indices.data).enumerate() {
        *offset += resolve(index, position, shape[axis])? * along;
    }
    Ok(offsets)
}

/// `out[i, j, k] = x[i, indices[i, j, k], k]` (for axis 1): `torch.gather`, ONNX `GatherElements`.
///
/// # Errors
/// If an index lies outside of the axis.
pub fn reference_gather_elements<T: Copy>(
    x: View<'_, T>,
    axis: usize,
    indices: View<'_, i64>,
    out: &mut [T],
) -> Result<(), IndexError> {
    for (slot, offset) in out.iter_mut().zip(element_offsets(x.shape, axis, indices)?) {
        *slot = x.data[offset];
    }
    Ok(())
}

/// `out[i, at, k] = combine(out[i, at, k], updates[i, j, k])` with `at = indices[i, j, k]` (for axis 1), in row-major order of
/// the indices, into what `out` (of shape `shape`) already holds.
///
/// # Errors
/// If an index lies outside of the axis; then nothing is written.
pub fn reference_scatter_elements<T: Copy>(
    shape: &[usize],
    axis: usize,
    indices: View<'_, i64>,
    updates: &[T],
    combine: impl Fn(T, T) -> T,
    out: &mut [T],
) -> Result<(), IndexError> {
    for (offset, &update) in element_offsets(shape, axis, indices)?.into_iter().zip(updates) {
        out[offset] = combine(out[offset], update);
    }
    Ok(())
}

/// `out[i.., d] = on` where `d == indices[i..]`, else `off`; an index outside of `-depth..depth` gives a row of `off` (as ONNX).
pub fn reference_one_hot<T: Copy>(indices: &[i64], depth: usize, (off, on): (T, T), out: &mut [T]) {
    assert_eq!(out.len(), indices.len() * depth, "length of the output");
    out.fill(off);
    for (position, &index) in indices.iter().enumerate() {
        if let Ok(d) = resolve(index, position, depth) {
            out[position * depth + d] = on;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting() {
        assert_eq!(broadcast_shapes(&[3, 1, 2], &[4, 1]), Some(vec![3, 4, 2]));
        assert_eq!(broadcast_shapes(&[3], &[2]), None);
        assert_eq!(broadcast_shapes(&[], &[0, 2]), Some(vec![0, 2]));
        let mut out = [0; 6];
        let (x, y) = (View { shape: &[2, 1], data: &[10, 20] }, View { shape: &[3], data: &[1, 2, 3] });
        reference_broadcast(x, y, &mut out, |a, b| a + b);
        assert_eq!(out, [11, 12, 13, 21, 22, 23]);
        reference_where(View { shape: &[2, 1], data: &[true, false] }, x, y, &mut out);
        assert_eq!(out, [10, 10, 10, 1, 2, 3]);
        reference_expand(&[2, 1], &[7, 8], &[2, 3], &mut out);
        assert_eq!(out, [7, 7, 7, 8, 8, 8]);
    }

    #[test]
    fn moving_elements() {
        let x: Vec<i32> = (0..6).collect();
        let mut out = [0; 6];
        reference_transpose(&[2, 3], &x, &[1, 0], &mut out);
        assert_eq!(out, [0, 3, 1, 4, 2, 5]);
        let spec = SliceSpec { starts: vec![1, 2], steps: vec![-1, -2], lens: vec![2, 2] };
        let mut out = [0; 4];
        reference_slice(&[2, 3], &x, &spec, &mut out);
        assert_eq!(out, [5, 3, 2, 0]);
        let mut back = [9; 6];
        reference_slice_grad(&[2, 3], &out, &spec, &mut back);
        assert_eq!(back, [0, 0, 2, 3, 0, 5]);
        let mut out = [0; 8];
        let (a, b) = (View { shape: &[2, 3], data: &x[..] }, View { shape: &[2, 1], data: &[7, 8][..] });
        reference_concat(&[a, b], 1, &mut out);
        assert_eq!(out, [0, 1, 2, 7, 3, 4, 5, 8]);
    }

    #[test]
    fn indexing() {
        let x = View { shape: &[2, 3], data: &[0, 1, 2, 3, 4, 5] };
        let mut out = [0; 4];
        reference_gather(x, 1, &[2, -3], &mut out).unwrap();
        assert_eq!(out, [2, 0, 5, 3]);
        let error = reference_gather(x, 1, &[0, 3], &mut out).unwrap_err();
        assert_eq!(error, IndexError { position: 1, index: 3, size: 3 });
        let mut dx = [0; 6];
        reference_gather_grad(&[2, 3], 1, &[1, 1], &[1, 2, 3, 4], &mut dx).unwrap();
        assert_eq!(dx, [0, 3, 0, 0, 7, 0]);
        let indices = View { shape: &[2, 2], data: &[0, 2, -1, 1] };
        reference_gather_elements(x, 1, indices, &mut out).unwrap();
        assert_eq!(out, [0, 2, 5, 4]);
        let mut z = [0; 6];
        let twice = View { shape: &[2, 2], data: &[0, 0, 1, 2] };
        reference_scatter_elements(&[2, 3], 1, twice, &[1, 2, 3, 4], |a, b| a + b, &mut z).unwrap();
        assert_eq!(z, [3, 0, 0, 0, 3, 4]);
        reference_scatter_elements(&[2, 3], 1, twice, &[1, 2, 3, 4], |_, b| b, &mut z).unwrap();
        assert_eq!(z, [2, 0, 0, 0, 3, 4]);
        let mut hot = [0; 6];
        reference_one_hot(&[1, -1], 3, (0, 5), &mut hot);
        assert_eq!(hot, [0, 5, 0, 0, 0, 5]);
    }
}
