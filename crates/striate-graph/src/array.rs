use crate::{DType, Error, Result, Shape};
use half::{bf16, f16};
use std::sync::Arc;
use striate_kernels::mem::AlignedBuf;

/// The elements of an [`Array`], row-major, by type.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Buffer {
    F32(AlignedBuf),
    F64(Vec<f64>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    Bool(Vec<bool>),
}

/// Does the same to the typed buffer inside, whatever its type.
macro_rules! each_buffer {
    ($buffer:expr, $v:ident => $body:expr) => {
        match $buffer {
            Buffer::F32($v) => $body,
            Buffer::F64($v) => $body,
            Buffer::F16($v) => $body,
            Buffer::BF16($v) => $body,
            Buffer::I8($v) => $body,
            Buffer::I16($v) => $body,
            Buffer::I32($v) => $body,
            Buffer::I64($v) => $body,
            Buffer::U8($v) => $body,
            Buffer::Bool($v) => $body,
        }
    };
}

impl Buffer {
    /// Number of elements.
    pub fn len(&self) -> usize {
        each_buffer!(self, v => v.len())
    }

    /// True without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Buffer::F32(_) => DType::F32,
            Buffer::F64(_) => DType::F64,
            Buffer::F16(_) => DType::F16,
            Buffer::BF16(_) => DType::BF16,
            Buffer::I8(_) => DType::I8,
            Buffer::I16(_) => DType::I16,
            Buffer::I32(_) => DType::I32,
            Buffer::I64(_) => DType::I64,
            Buffer::U8(_) => DType::U8,
            Buffer::Bool(_) => DType::Bool,
        }
    }

    /// `n` zeros.
    pub fn zeros(dtype: DType, n: usize) -> Buffer {
        match dtype {
            DType::F32 => Buffer::F32(AlignedBuf::zeroed(n)),
            DType::F64 => Buffer::F64(vec![0.0; n]),
            DType::F16 => Buffer::F16(vec![f16::ZERO; n]),
            DType::BF16 => Buffer::BF16(vec![bf16::ZERO; n]),
            DType::I8 => Buffer::I8(vec![0; n]),
            DType::I16 => Buffer::I16(vec![0; n]),
            DType::I32 => Buffer::I32(vec![0; n]),
            DType::I64 => Buffer::I64(vec![0; n]),
            DType::U8 => Buffer::U8(vec![0; n]),
            DType::Bool => Buffer::Bool(vec![false; n]),
        }
    }
}

/// A Rust type that an array can hold.
pub trait Element: Copy + Default + 'static {
    /// The array's type for it.
    const DTYPE: DType;
    /// Wraps a vector.
    fn buffer(values: Vec<Self>) -> Buffer;
    /// The elements, if the buffer has this type.
    fn slice(buffer: &Buffer) -> Option<&[Self]>;
    /// The elements for writing, if the buffer has this type.
    fn slice_mut(buffer: &mut Buffer) -> Option<&mut [Self]>;
}

macro_rules! element {
    ($($t:ty, $variant:ident);*) => {$(
        impl Element for $t {
            const DTYPE: DType = DType::$variant;
            fn buffer(values: Vec<Self>) -> Buffer { Buffer::$variant(values.into()) }
            fn slice(buffer: &Buffer) -> Option<&[Self]> {
                match buffer { Buffer::$variant(v) => Some(v), _ => None }
            }
            fn slice_mut(buffer: &mut Buffer) -> Option<&mut [Self]> {
                match buffer { Buffer::$variant(v) => Some(v), _ => None }
            }
        }
    )*};
}
element!(f32, F32; f64, F64; f16, F16; bf16, BF16; i8, I8; i16, I16; i32, I32; i64, I64; u8, U8; bool, Bool);

/// Concrete data on the host: a shape and a shared, row-major buffer. Cloning shares the buffer; writing copies it first
/// where it is shared.
///
/// ```
/// use striate_graph::Array;
/// let a = Array::from_vec(&[2, 2], vec![1.0f32, 2.0, 3.0, 4.0])?;
/// assert_eq!(a.as_slice::<f32>().unwrap()[3], 4.0);
/// # Ok::<(), striate_graph::Error>(())
/// ```
#[derive(Clone)]
pub struct Array {
    shape: Shape,
    buffer: Arc<Buffer>,
}

impl Array {
    /// An array of the given elements, in row-major order.
    ///
    /// # Errors
    /// Where the shape does not have that number of elements.
    pub fn from_vec<T: Element>(shape: impl Into<Shape>, values: Vec<T>) -> Result<Array> {
        Array::from_buffer(shape, T::buffer(values))
    }

    /// An array around a buffer.
    ///
    /// # Errors
    /// Where the shape does not have that number of elements.
    pub fn from_buffer(shape: impl Into<Shape>, buffer: Buffer) -> Result<Array> {
        let shape = shape.into();
        if shape.numel() != buffer.len() {
            return Err(Error::Length { expected: shape.numel(), got: buffer.len(), shape });
        }
        Ok(Array { shape, buffer: Arc::new(buffer) })
    }

    /// Zeros.
    pub fn zeros(shape: impl Into<Shape>, dtype: DType) -> Array {
        let shape = shape.into();
        Array { buffer: Arc::new(Buffer::zeros(dtype, shape.numel())), shape }
    }

    /// One value everywhere.
    pub fn full<T: Element>(shape: impl Into<Shape>, value: T) -> Array {
        let shape = shape.into();
        Array { buffer: Arc::new(T::buffer(vec![value; shape.numel()])), shape }
    }

    /// A 0-d array.
    pub fn scalar<T: Element>(value: T) -> Array {
        Array::full([], value)
    }

    /// `0, 1, … n-1` as f32 with the given shape, like `torch.arange(n).reshape(shape)`.
    pub fn arange(shape: impl Into<Shape>) -> Array {
        let shape = shape.into();
        let values = (0..shape.numel()).map(|i| i as f32).collect::<Vec<_>>();
        Array { buffer: Arc::new(f32::buffer(values)), shape }
    }

    /// The sizes along the axes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.buffer.dtype()
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.buffer.len()
    }

    /// The buffer.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// The elements, if they are of type `T`.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        T::slice(&self.buffer)
    }

    /// The elements for writing, if they are of type `T`; copies first where the buffer is shared.
    pub fn as_mut_slice<T: Element>(&mut self) -> Option<&mut [T]> {
        T::slice_mut(Arc::make_mut(&mut self.buffer))
    }

    /// The elements as f32.
    ///
    /// # Errors
    /// Where the type is another.
    pub fn f32s(&self) -> Result<&[f32]> {
        self.as_slice().ok_or_else(|| Error::DType { op: "f32s".into(), dtype: self.dtype() })
    }

    /// All elements converted to f64 (exact but for large i64).
    pub fn to_f64_vec(&self) -> Vec<f64> {
        match &*self.buffer {
            Buffer::F32(v) => v.iter().map(|&x| x as f64).collect(),
            Buffer::F64(v) => v.clone(),
            Buffer::F16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Buffer::BF16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Buffer::I8(v) => v.iter().map(|&x| x as f64).collect(),
            Buffer::I16(v) => v.iter().map(|&x| x as f64).collect(),
            Buffer::I32(v) => v.iter().map(|&x| x as f64).collect(),
            Buffer::I64(v) => v.iter().map(|&x| x as f64).collect(),
            Buffer::U8(v) => v.iter().map(|&x| x as f64).collect(),
            Buffer::Bool(v) => v.iter().map(|&x| x as u8 as f64).collect(),
        }
    }

    /// All elements converted to i64, truncating toward zero.
    pub fn to_i64_vec(&self) -> Vec<i64> {
        match &*self.buffer {
            Buffer::I64(v) => v.clone(),
            _ => self.to_f64_vec().into_iter().map(|x| x as i64).collect(),
        }
    }

    /// An array of type `dtype` made from f64 values: floats are rounded to nearest, integers truncate toward zero and
    /// saturate, and any non-zero value is `true`.
    ///
    /// # Errors
    /// Where the shape does not have that number of elements.
    pub fn from_f64(shape: impl Into<Shape>, values: &[f64], dtype: DType) -> Result<Array> {
        let buffer = match dtype {
            DType::F32 => f32::buffer(values.iter().map(|&x| x as f32).collect()),
            DType::F64 => Buffer::F64(values.to_vec()),
            DType::F16 => Buffer::F16(values.iter().map(|&x| f16::from_f64(x)).collect()),
            DType::BF16 => Buffer::BF16(values.iter().map(|&x| bf16::from_f64(x)).collect()),
            DType::I8 => Buffer::I8(values.iter().map(|&x| x as i8).collect()),
            DType::I16 => Buffer::I16(values.iter().map(|&x| x as i16).collect()),
            DType::I32 => Buffer::I32(values.iter().map(|&x| x as i32).collect()),
            DType::I64 => Buffer::I64(values.iter().map(|&x| x as i64).collect()),
            DType::U8 => Buffer::U8(values.iter().map(|&x| x as u8).collect()),
            DType::Bool => Buffer::Bool(values.iter().map(|&x| x != 0.0).collect()),
        };
        Array::from_buffer(shape, buffer)
    }

    /// The same values as another type.
    pub fn cast(&self, dtype: DType) -> Array {
        if dtype == self.dtype() {
            return self.clone();
        }
        let converted = match (&*self.buffer, dtype) {
            (Buffer::I64(v), DType::I32) => Ok(Array {
                shape: self.shape.clone(),
                buffer: Arc::new(Buffer::I32(v.iter().map(|&x| x as i32).collect())),
            }),
            (_, DType::I64) => Array::from_vec(&self.shape, self.to_i64_vec()),
            _ => Array::from_f64(&self.shape, &self.to_f64_vec(), dtype),
        };
        converted.expect("the number of elements does not change")
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// Where the numbers of elements differ.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Array> {
        let shape = shape.into();
        if shape.numel() != self.numel() {
            return Err(Error::Length { expected: shape.numel(), got: self.numel(), shape });
        }
        Ok(Array { shape, buffer: self.buffer.clone() })
    }

    /// The value of a one-element array.
    ///
    /// # Errors
    /// Where the array has another number of elements.
    pub fn item(&self) -> Result<f64> {
        match self.to_f64_vec()[..] {
            [value] => Ok(value),
            _ => Err(Error::Length { shape: Shape::default(), expected: 1, got: self.numel() }),
        }
    }

    /// Whether shape, type and every bit of every element are equal (NaN equals the same NaN).
    pub fn bits_eq(&self, other: &Array) -> bool {
        let same = |a: &Buffer, b: &Buffer| match (a, b) {
            (Buffer::F32(a), Buffer::F32(b)) => a.iter().zip(b.iter()).all(|(x, y)| x.to_bits() == y.to_bits()),
            (Buffer::F64(a), Buffer::F64(b)) => a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits()),
            (Buffer::F16(a), Buffer::F16(b)) => a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits()),
            (Buffer::BF16(a), Buffer::BF16(b)) => a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits()),
            (Buffer::I8(a), Buffer::I8(b)) => a == b,
            (Buffer::I16(a), Buffer::I16(b)) => a == b,
            (Buffer::I32(a), Buffer::I32(b)) => a == b,
            (Buffer::I64(a), Buffer::I64(b)) => a == b,
            (Buffer::U8(a), Buffer::U8(b)) => a == b,
            (Buffer::Bool(a), Buffer::Bool(b)) => a == b,
            _ => false,
        };
        self.shape == other.shape && same(&self.buffer, &other.buffer)
    }
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Array({} {})", self.dtype(), self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_shares_until_it_is_written() {
        let a = Array::from_vec([3], vec![1.0f32, 2.0, 3.0]).unwrap();
        let mut b = a.clone();
        b.as_mut_slice::<f32>().unwrap()[0] = 9.0;
        assert_eq!(a.f32s().unwrap(), &[1.0, 2.0, 3.0]);
        assert_eq!(b.f32s().unwrap(), &[9.0, 2.0, 3.0]);
    }

    #[test]
    fn a_wrong_number_of_elements_is_refused_with_the_numbers() {
        let error = Array::from_vec([2, 2], vec![1.0f32; 3]).unwrap_err();
        assert_eq!(error.to_string(), "shape [2, 2] has 4 elements, but 3 were given");
    }
}
