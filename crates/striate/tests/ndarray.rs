//! Arrays from and to the `ndarray` crate.

use ndarray::{Array1, Array2, ArrayD, ArrayView2, ArrayView4, ArrayViewD, s};
use striate::prelude::*;

#[test]
fn there_and_back() {
    let values = Array2::from_shape_fn((3, 4), |(row, column)| (10 * row + column) as f32);
    let array = Array::from(&values);
    assert_eq!((array.shape().dims(), array.dtype()), (&[3, 4][..], DType::F32));
    assert_eq!(Array2::<f32>::try_from(&array).unwrap(), values);
    assert_eq!(ArrayD::<f32>::try_from(&array).unwrap(), values.clone().into_dyn());
    let view = ArrayView2::<f32>::try_from(&array).unwrap();
    assert_eq!(view.as_ptr(), array.f32s().unwrap().as_ptr());
}

#[test]
fn views_in_any_order_are_copied_row_by_row() {
    let values = Array2::from_shape_fn((3, 4), |(row, column)| (10 * row + column) as i64);
    let turned = Array::from(&values.t());
    assert_eq!(turned.as_slice::<i64>().unwrap(), &[0, 10, 20, 1, 11, 21, 2, 12, 22, 3, 13, 23]);
    let part = Array::from(&values.slice(s![..;2, 1..3]));
    assert_eq!((part.shape().dims(), part.as_slice::<i64>().unwrap()), (&[2, 2][..], &[1, 2, 21, 22][..]));
    let column_major = Array::from(values.reversed_axes());
    assert!(column_major.bits_eq(&turned));
}

#[test]
fn odd_shapes() {
    let scalar = Array::scalar(2.5f64);
    assert_eq!(ArrayD::<f64>::try_from(&scalar).unwrap().ndim(), 0);
    let empty = Array::from(Array2::<bool>::from_elem((0, 3), true));
    assert_eq!((empty.shape().dims(), empty.dtype()), (&[0, 3][..], DType::Bool));
    assert_eq!(ArrayViewD::<bool>::try_from(&empty).unwrap().shape(), &[0, 3]);
}

#[test]
fn another_type_or_rank_is_refused() {
    let array = Array::arange([2, 3]);
    let error = Array1::<f32>::try_from(&array).unwrap_err().to_string();
    assert!(error.contains("the array has shape [2, 3], the ndarray 1 axes"), "{error}");
    let error = Array2::<i64>::try_from(&array).unwrap_err().to_string();
    assert!(error.contains("int64") && error.contains("float32"), "{error}");
    assert!(ArrayView4::<f32>::try_from(&array).is_err());
}
