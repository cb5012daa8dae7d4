//! Conversions from and to the `ndarray` crate, with the feature `ndarray`.

use crate::{Array, Element, Error, ShapeError};
use ndarray::{ArrayBase, ArrayView, Data, Dimension, IxDyn};
use std::panic::Location;

impl<T: Element, S: Data<Elem = T>, D: Dimension> From<&ArrayBase<S, D>> for Array {
    /// A copy in row-major order, whatever the order of the source.
    fn from(source: &ArrayBase<S, D>) -> Array {
        // `iter` walks in logical order.
        let values: Vec<T> = match source.as_slice() {
            Some(values) => values.to_vec(),
            None => source.iter().copied().collect(),
        };
        Array::from_vec(source.shape(), values).expect("a shape has as many elements as its array")
    }
}

impl<T: Element, D: Dimension> From<ndarray::Array<T, D>> for Array {
    /// ```
    /// use striate_graph::Array;
    /// let rows = ndarray::array![[1f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
    /// let array = Array::from(rows.clone());
    /// assert_eq!(array.shape().dims(), &[2, 3]);
    /// assert_eq!(ndarray::Array2::<f32>::try_from(&array)?, rows);
    /// # Ok::<(), striate_graph::Error>(())
    /// ```
    fn from(source: ndarray::Array<T, D>) -> Array {
        Array::from(&source)
    }
}

/// The elements, if the type is `T` and the number of axes that of `D`.
#[track_caller]
fn view<T: Element, D: Dimension>(array: &Array) -> Result<ArrayView<'_, T, D>, Error> {
    let (shape, dtype) = (array.shape(), array.dtype());
    let refused = |rule: String, fix: String| Error::Shape {
        op: "ndarray".into(),
        layer: String::new(),
        at: Location::caller(),
        error: ShapeError { rule, fix },
    };
    let values = array.as_slice::<T>().ok_or_else(|| {
        refused(
            format!("the array holds {dtype}, not {}", T::DTYPE),
            format!("convert it with cast(DType::{:?})", T::DTYPE),
        )
    })?;
    let view = ArrayView::from_shape(IxDyn(shape), values).ok().and_then(|v| v.into_dimensionality().ok());
    view.ok_or_else(|| {
        let axes = D::NDIM.map_or("any number of".to_owned(), |n| n.to_string());
        let fix = format!("an ndarray of {} axes or an ArrayD holds it", shape.rank());
        refused(format!("the array has shape {shape}, the ndarray {axes} axes"), fix)
    })
}

impl<T: Element, D: Dimension> TryFrom<&Array> for ndarray::Array<T, D> {
    type Error = Error;

    /// A copy.
    ///
    /// # Errors
    /// Elements of another type, or another number of axes; `ArrayD` takes any.
    #[track_caller]
    fn try_from(array: &Array) -> Result<Self, Error> {
        Ok(view(array)?.to_owned())
    }
}

impl<'a, T: Element, D: Dimension> TryFrom<&'a Array> for ArrayView<'a, T, D> {
    type Error = Error;

    /// The same elements, without a copy.
    ///
    /// # Errors
    /// Elements of another type, or another number of axes; `ArrayViewD` takes any.
    #[track_caller]
    fn try_from(array: &'a Array) -> Result<Self, Error> {
        view(array)
    }
}
