//! Padding with positive and negative widths.
use super::Float;
use super::shape::{for_each_offset, strides_of, volume};
use crate::kinds::PadMode;

/// Where along one axis output position `o` comes from; `None` is the constant.
///
/// Negative widths crop. Reflection mirrors at the borders of the whole axis, wrapping goes round what is left of it after
/// cropping: both as PyTorch.
fn pad_source(o: usize, size: usize, [begin, end]: [isize; 2], mode: PadMode) -> Option<usize> {
    let (at, size) = (o as isize - begin, size as isize);
    if (0..size).contains(&at) && !matches!(mode, PadMode::Circular) {
        return Some(at as usize);
    }
    let source = match mode {
        PadMode::Constant(_) => return None,
        PadMode::Replicate => at.clamp(0, size - 1),
        PadMode::Reflect if size == 1 => 0,
        PadMode::Reflect => {
            let folded = at.rem_euclid(2 * (size - 1));
            folded.min(2 * (size - 1) - folded)
        }
        PadMode::Circular => {
            let first = (-begin).max(0);
            first + (at - first).rem_euclid(size - first - (-end).max(0))
        }
    };
    Some(source as usize)
}

/// The shape after padding, or `None` where an axis would become negative, or must be filled from nothing.
pub fn pad_out_shape(shape: &[usize], pads: &[[isize; 2]], mode: PadMode) -> Option<Vec<usize>> {
    let constant = matches!(mode, PadMode::Constant(_));
    shape
        .iter()
        .zip(pads)
        .map(|(&size, &[begin, end])| {
            let out = size as isize + begin + end;
            let left = size as isize + begin.min(0) + end.min(0);
            (out >= 0 && left >= 0 && (constant || left > 0 || out == 0)).then_some(out as usize)
        })
        .collect()
}

/// Calls `visit(output offset, input offset or None)` for every output element.
fn for_each_source(shape: &[usize], pads: &[[isize; 2]], mode: PadMode, mut visit: impl FnMut(usize, Option<usize>)) {
    let to = pad_out_shape(shape, pads, mode).expect("the widths fit the shape");
    let own = strides_of(shape);
    let tables: Vec<Vec<Option<usize>>> = (0..shape.len())
        .map(|a| (0..to[a]).map(|o| pad_source(o, shape[a], pads[a], mode).map(|i| i * own[a])).collect())
        .collect();
    let strides: Vec<isize> = strides_of(&to).iter().map(|&s| s as isize).collect();
    for_each_offset(&to, [0], [&strides], |[at]| {
        let mut rest = at;
        let mut source = Some(0);
        for (table, &stride) in tables.iter().zip(&strides) {
            source = source.zip(table[rest / stride as usize]).map(|(s, t)| s + t);
            rest %= stride as usize;
        }
        visit(at, source);
    });
}

/// Pads (or, where negative, crops) each axis by `[begin, end]`.
///
/// # Panics
/// If [`pad_out_shape`] gives `None`.
pub fn reference_pad<T: Float>(shape: &[usize], x: &[T], pads: &[[isize; 2]], mode: PadMode, out: &mut [T]) {
    assert_eq!(x.len(), volume(shape), "length of the input");
    let constant = if let PadMode::Constant(value) = mode { T::from_f32(value) } else { T::ZERO };
    for_each_source(shape, pads, mode, |at, source| out[at] = source.map_or(constant, |s| x[s]));
}

/// The adjoint of [`reference_pad`]: every `dy` is added to the element that it was read from.
pub fn reference_pad_grad<T: Float>(shape: &[usize], dy: &[T], pads: &[[isize; 2]], mode: PadMode, dx: &mut [T]) {
    assert_eq!(dx.len(), volume(shape), "length of the gradient");
    dx.fill(T::ZERO);
    for_each_source(shape, pads, mode, |at, source| {
        if let Some(s) = source {
            dx[s] += dy[at];
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pad1(x: &[f64], pads: [isize; 2], mode: PadMode) -> Vec<f64> {
        let mut out = vec![0.0; pad_out_shape(&[x.len()], &[pads], mode).unwrap()[0]];
        reference_pad(&[x.len()], x, &[pads], mode, &mut out);
        out
    }

    #[test]
    fn modes_as_torch() {
        let x = [0.0, 1.0, 2.0, 3.0, 4.0];
        assert_eq!(pad1(&x, [2, -1], PadMode::Constant(9.0)), [9.0, 9.0, 0.0, 1.0, 2.0, 3.0]);
        assert_eq!(pad1(&x, [2, 1], PadMode::Reflect), [2.0, 1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 3.0]);
        assert_eq!(pad1(&x, [2, 1], PadMode::Replicate), [0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 4.0]);
        assert_eq!(pad1(&x, [2, 1], PadMode::Circular), [3.0, 4.0, 0.0, 1.0, 2.0, 3.0, 4.0, 0.0]);
        assert_eq!(pad1(&x, [-1, 2], PadMode::Circular), [1.0, 2.0, 3.0, 4.0, 1.0, 2.0]);
        assert_eq!(pad1(&x, [-2, 2], PadMode::Reflect), [2.0, 3.0, 4.0, 3.0, 2.0]);
        assert_eq!(pad1(&x, [-2, -3], PadMode::Constant(0.0)), [0.0; 0]);
        assert_eq!(pad_out_shape(&[3], &[[-2, -2]], PadMode::Constant(0.0)), None);
        assert_eq!(pad_out_shape(&[0], &[[1, 0]], PadMode::Replicate), None);
    }

    #[test]
    fn gradient_is_the_adjoint() {
        let shape = [2, 3, 4];
        for mode in [PadMode::Constant(0.0), PadMode::Reflect, PadMode::Replicate, PadMode::Circular] {
            let pads = [[0, 0], [-1, 1], [2, 3]];
            let to = pad_out_shape(&shape, &pads, mode).unwrap();
            let x: Vec<f64> = (0..volume(&shape)).map(|i| (i as f64 * 0.7).sin()).collect();
            let dy: Vec<f64> = (0..volume(&to)).map(|i| (i as f64 * 1.3).cos()).collect();
            let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
            reference_pad(&shape, &x, &pads, mode, &mut y);
            reference_pad_grad(&shape, &dy, &pads, mode, &mut dx);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(p, q)| p * q).sum::<f64>();
            assert!((dot(&y, &dy) - dot(&x, &dx)).abs() < 1e-12, "{mode:?}");
        }
    }
}
