//! Operations whose output's shape depends on values: ordinary functions on arrays, called between programs.

use crate::{Array, Error, Result, ShapeError};
use std::panic::Location;
use striate_kernels::reference::{NmsSpec, reference_nms, reference_non_zero};

/// Positions of the elements that are not 0 (or false), `[rank, count]` of i64, in row-major order: ONNX `NonZero`, the transposed
/// `torch.nonzero`.
///
/// ```
/// use striate_graph::{Array, non_zero};
/// let x = Array::from_vec([2, 2], vec![1.0f32, 0.0, 0.0, 3.0])?;
/// assert_eq!(non_zero(&x).as_slice::<i64>().unwrap(), &[0, 1, 0, 1]);
/// # Ok::<(), striate_graph::Error>(())
/// ```
pub fn non_zero(x: &Array) -> Array {
    let found = match x.dtype().is_float() {
        true => reference_non_zero(x.shape(), &x.to_f64_vec()),
        false => reference_non_zero(x.shape(), &x.to_i64_vec()),
    };
    let rank = x.shape().rank();
    let count = found.len().checked_div(rank).unwrap_or(0);
    Array::from_vec([rank, count], found).expect("as many positions along each axis")
}

/// Non-maximum suppression as ONNX defines it: `boxes` `[images, boxes, 4]`, `scores` `[images, classes, boxes]`, both f32. The result
/// is `[kept, 3]` of i64: image, class and position of each kept box, image by image, class by class, the best first.
///
/// # Errors
/// Arrays that are not f32 or of other shapes.
#[track_caller]
pub fn non_max_suppression(boxes: &Array, scores: &Array, spec: &NmsSpec) -> Result<Array> {
    let (b, s) = (boxes.shape(), scores.shape());
    let fits = b.rank() == 3 && s.rank() == 3 && b[2] == 4 && b[0] == s[0] && b[1] == s[2];
    if !fits {
        return Err(Error::Shape {
            op: "NonMaxSuppression".into(),
            layer: String::new(),
            at: Location::caller(),
            error: ShapeError::new(
                format!("boxes of shape {b} with scores of shape {s}"),
                "they must be [images, boxes, 4] and [images, classes, boxes]",
            ),
        });
    }
    let (all, scores) = (boxes.f32s()?, scores.f32s()?);
    let mut kept: Vec<i64> = Vec::new();
    for (image, class) in (0..s[0]).flat_map(|image| (0..s[1]).map(move |class| (image, class))) {
        let of_image = &all[image * b[1] * 4..(image + 1) * b[1] * 4];
        let of_class = &scores[(image * s[1] + class) * s[2]..][..s[2]];
        let best = reference_nms(spec, of_image, of_class);
        kept.extend(best.into_iter().flat_map(|at| [image as i64, class as i64, at as i64]));
    }
    Array::from_vec([kept.len() / 3, 3], kept)
}
