//! Arrays from and to their bytes.

use half::{bf16, f16};
use striate_graph::{Array, Buffer, DType, Element};

/// Most axes that an array from a file may have.
pub(crate) const MAX_RANK: usize = 64;

/// Bytes that one call of [`encode`]'s sink gets at most.
pub(crate) const CHUNK: usize = 64 * 1024;

/// How elements lie in a file: our own types, and the unsigned ones that are widened when read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// One of ours.
    As(DType),
    /// Read as i32.
    U16,
    /// Read as i64.
    U32,
    /// Read as i64, if the values fit.
    U64,
}

impl Stored {
    /// Bytes of one element.
    pub(crate) fn size(self) -> usize {
        match self {
            Stored::As(dtype) => dtype.size(),
            Stored::U16 => 2,
            Stored::U32 => 4,
            Stored::U64 => 8,
        }
    }
}

/// Bytes of an array of that shape, or why there can be none.
///
/// Also for arrays without elements the other sizes must multiply to something addressable, as strides are computed
/// from them.
pub(crate) fn check_shape(shape: &[usize], stored: Stored) -> Result<usize, String> {
    if shape.len() > MAX_RANK {
        return Err(format!("{} axes, at most {MAX_RANK} are accepted", shape.len()));
    }
    let product = |least: usize| {
        let bytes = shape.iter().try_fold(stored.size(), |n, &size| n.checked_mul(size.max(least)));
        bytes.filter(|&bytes| isize::try_from(bytes).is_ok())
    };
    match (product(1), product(0)) {
        (Some(_), Some(bytes)) => Ok(bytes),
        _ => Err(format!("shape {shape:?} has more elements than any memory")),
    }
}

/// The array whose elements `bytes` are, row-major.
pub(crate) fn decode(stored: Stored, shape: &[usize], bytes: &[u8], big_endian: bool) -> Result<Array, String> {
    let wanted = check_shape(shape, stored)?;
    if wanted != bytes.len() {
        return Err(format!("shape {shape:?} needs {wanted} bytes, there are {}", bytes.len()));
    }
    macro_rules! elements {
        ($t:ty) => {{
            let (chunks, _) = bytes.as_chunks::<{ size_of::<$t>() }>();
            chunks.iter().map(move |chunk| match big_endian {
                true => <$t>::from_be_bytes(*chunk),
                false => <$t>::from_le_bytes(*chunk),
            })
        }};
    }
    let array = match stored {
        // Most of a model: into the buffer, not by way of a vector.
        Stored::As(DType::F32) => {
            let mut array = Array::zeros(shape, DType::F32);
            let floats = array.as_mut_slice::<f32>().expect("zeros of this type");
            floats.iter_mut().zip(elements!(f32)).for_each(|(to, value)| *to = value);
            array
        }
        Stored::As(DType::F64) => array(shape, elements!(f64).collect()),
        Stored::As(DType::F16) => array(shape, elements!(u16).map(f16::from_bits).collect()),
        Stored::As(DType::BF16) => array(shape, elements!(u16).map(bf16::from_bits).collect()),
        Stored::As(DType::I8) => array(shape, elements!(i8).collect()),
        Stored::As(DType::I16) => array(shape, elements!(i16).collect()),
        Stored::As(DType::I32) => array(shape, elements!(i32).collect()),
        Stored::As(DType::I64) => array(shape, elements!(i64).collect()),
        Stored::As(DType::U8) => array(shape, bytes.to_vec()),
        Stored::As(DType::Bool) => array(shape, bytes.iter().map(|&b| b != 0).collect()),
        Stored::U16 => array(shape, elements!(u16).map(i32::from).collect()),
        Stored::U32 => array(shape, elements!(u32).map(i64::from).collect()),
        Stored::U64 => {
            let values: Result<Vec<i64>, _> = elements!(u64).map(i64::try_from).collect();
            array(shape, values.map_err(|_| format!("an unsigned value above {}", i64::MAX))?)
        }
    };
    Ok(array)
}

fn array<T: Element>(shape: &[usize], values: Vec<T>) -> Array {
    Array::from_vec(shape, values).expect("the number of bytes was checked against the shape")
}

/// Bytes of the array's elements.
pub(crate) fn byte_len(array: &Array) -> u64 {
    array.numel() as u64 * array.dtype().size() as u64
}

/// Gives the array's elements, little-endian and row-major, to `sink`, at most [`CHUNK`] bytes at a time.
pub(crate) fn encode<E>(array: &Array, mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    let mut scratch = Vec::with_capacity(CHUNK);
    macro_rules! elements {
        ($values:expr, $bytes:expr) => {
            for part in $values.chunks(CHUNK / array.dtype().size()) {
                scratch.clear();
                scratch.extend(part.iter().flat_map($bytes));
                sink(&scratch)?;
            }
        };
    }
    match array.buffer() {
        Buffer::F32(values) => elements!(values, |v| v.to_le_bytes()),
        Buffer::F64(values) => elements!(values, |v| v.to_le_bytes()),
        Buffer::F16(values) => elements!(values, |v| v.to_le_bytes()),
        Buffer::BF16(values) => elements!(values, |v| v.to_le_bytes()),
        Buffer::I8(values) => elements!(values, |v| v.to_le_bytes()),
        Buffer::I16(values) => elements!(values, |v| v.to_le_bytes()),
        Buffer::I32(values) => elements!(values, |v| v.to_le_bytes()),
        Buffer::I64(values) => elements!(values, |v| v.to_le_bytes()),
        Buffer::U8(values) => elements!(values, |v| [*v]),
        Buffer::Bool(values) => elements!(values, |v| [u8::from(*v)]),
    }
    Ok(())
}

/// Row-major bytes from column-major ones (NumPy's `fortran_order`), elements of `size` bytes.
pub(crate) fn fortran_to_row_major(bytes: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let mut strides = vec![1; shape.len()];
    for axis in 1..shape.len() {
        strides[axis] = strides[axis - 1] * shape[axis - 1];
    }
    gather(bytes, shape, &strides, size)
}

/// Row-major bytes of what lies in `bytes` with these strides (in elements of `size` bytes). All of it must be there.
pub(crate) fn gather(bytes: &[u8], shape: &[usize], strides: &[usize], size: usize) -> Vec<u8> {
    let mut out = vec![0; shape.iter().product::<usize>() * size];
    let mut index = vec![0; shape.len()];
    let mut source = 0;
    for element in out.chunks_exact_mut(size) {
        element.copy_from_slice(&bytes[source * size..][..size]);
        // count up, the last axis fastest
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            source += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            source -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_beyond_memory_are_refused() {
        let f32s = Stored::As(DType::F32);
        assert_eq!(check_shape(&[], f32s), Ok(4));
        assert_eq!(check_shape(&[2, 3], f32s), Ok(24));
        assert_eq!(check_shape(&[5, 0, 7], f32s), Ok(0));
        assert!(check_shape(&[usize::MAX, 2], f32s).is_err());
        assert!(check_shape(&[1 << 61], f32s).is_err());
        assert!(check_shape(&[0, 1 << 40, 1 << 40], f32s).is_err());
        assert!(check_shape(&[1; 65], f32s).unwrap_err().contains("65 axes"));
    }

    #[test]
    fn column_major_is_turned() {
        // the columns of [[1, 2, 3], [4, 5, 6]]
        assert_eq!(fortran_to_row_major(&[1, 4, 2, 5, 3, 6], &[2, 3], 1), [1, 2, 3, 4, 5, 6]);
        assert_eq!(fortran_to_row_major(&[9, 8], &[], 2), [9, 8]);
        assert_eq!(fortran_to_row_major(&[], &[0, 3], 4), [] as [u8; 0]);
    }

    #[test]
    fn strides_are_followed() {
        // every other element, then all rows the same
        assert_eq!(gather(&[1, 2, 3, 4, 5], &[3], &[2], 1), [1, 3, 5]);
        assert_eq!(gather(&[1, 2], &[3, 2], &[0, 1], 1), [1, 2, 1, 2, 1, 2]);
        assert_eq!(gather(&[], &[2, 0], &[7, 7], 4), [] as [u8; 0]);
    }

    #[test]
    fn wide_unsigned_values_must_fit() {
        let max = u64::MAX.to_le_bytes();
        assert!(decode(Stored::U64, &[1], &max, false).unwrap_err().contains("unsigned value"));
        let array = decode(Stored::U16, &[1], &[1, 0xff], true).unwrap();
        assert_eq!(array.as_slice::<i32>(), Some(&[0x1ff][..]));
    }
}
