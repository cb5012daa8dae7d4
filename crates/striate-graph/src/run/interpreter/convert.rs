//! Types: what a value is held and computed as.

use super::Precision;
use crate::{Array, Buffer, DType, Element, Error, Result, Shape};
use half::{bf16, f16};
use std::borrow::Cow;
use striate_kernels::reference::Float;

pub(super) trait Promote {
    /// The type that stands for a declared type.
    fn promote(self, dtype: DType) -> DType;
}

impl Promote for Precision {
    fn promote(self, dtype: DType) -> DType {
        match (self, dtype) {
            (Precision::F64, DType::F32) => DType::F64,
            _ => dtype,
        }
    }
}

/// The elements as `T`, converted where they are of another type.
pub(super) fn floats<T: Float + Element>(array: &Array) -> Cow<'_, [T]> {
    match array.as_slice::<T>() {
        Some(values) => Cow::Borrowed(values),
        None => Cow::Owned(array.to_f64_vec().into_iter().map(T::from_f64).collect()),
    }
}

/// The elements as integers.
pub(super) fn integers(array: &Array) -> Cow<'_, [i64]> {
    match array.as_slice::<i64>() {
        Some(values) => Cow::Borrowed(values),
        None => Cow::Owned(array.to_i64_vec()),
    }
}

/// The elements, which must be of type `T`.
pub(super) fn typed<T: Element>(array: &Array) -> Result<&[T]> {
    let wrong = || Error::Internal(format!("a value is {} where {} is needed", array.dtype(), T::DTYPE));
    array.as_slice::<T>().ok_or_else(wrong)
}

/// An array of any type from integers, which wrap around where the type is narrower; any non-zero one is `true`.
pub(super) fn from_integers(shape: &Shape, values: Vec<i64>, dtype: DType) -> Result<Array> {
    let buffer = match dtype {
        DType::I64 => Buffer::I64(values),
        DType::I32 => Buffer::I32(values.iter().map(|&x| x as i32).collect()),
        DType::I16 => Buffer::I16(values.iter().map(|&x| x as i16).collect()),
        DType::I8 => Buffer::I8(values.iter().map(|&x| x as i8).collect()),
        DType::U8 => Buffer::U8(values.iter().map(|&x| x as u8).collect()),
        DType::Bool => Buffer::Bool(values.iter().map(|&x| x != 0).collect()),
        DType::F32 => return Array::from_vec(shape, values.iter().map(|&x| x as f32).collect::<Vec<_>>()),
        DType::F64 => Buffer::F64(values.iter().map(|&x| x as f64).collect()),
        DType::F16 => Buffer::F16(values.iter().map(|&x| f16::from_f64(x as f64)).collect()),
        DType::BF16 => Buffer::BF16(values.iter().map(|&x| bf16::from_f64(x as f64)).collect()),
    };
    Array::from_buffer(shape, buffer)
}

/// The values as another type: floats round to nearest, a float becomes an integer by truncation and saturates, an integer
/// becomes a narrower one by wrapping around, any non-zero value is `true`.
pub(super) fn cast(array: &Array, dtype: DType) -> Array {
    if array.dtype() == dtype || array.dtype().is_float() {
        return array.cast(dtype);
    }
    from_integers(array.shape(), array.to_i64_vec(), dtype).expect("the number of elements does not change")
}

/// Compiles an expression once for each type of elements, under a name for the type.
macro_rules! each_type {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            $crate::DType::F16 => {
                type $T = half::f16;
                $body
            }
            $crate::DType::BF16 => {
                type $T = half::bf16;
                $body
            }
            $crate::DType::I8 => {
                type $T = i8;
                $body
            }
            $crate::DType::I16 => {
                type $T = i16;
                $body
            }
            $crate::DType::I32 => {
                type $T = i32;
                $body
            }
            $crate::DType::I64 => {
                type $T = i64;
                $body
            }
            $crate::DType::U8 => {
                type $T = u8;
                $body
            }
            $crate::DType::Bool => {
                type $T = bool;
                $body
            }
        }
    };
}
pub(super) use each_type;
