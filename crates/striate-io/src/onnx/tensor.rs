//! Arrays from and to `TensorProto`.

use super::external::ExternalData;
use super::proto::{DataLocation, DataType, SparseTensorProto, TensorProto};
use crate::bytes::{self, Stored};
use half::{bf16, f16};
use striate_graph::{Array, Buffer, DType};

/// The ONNX type of an array's elements.
pub fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::F32 => DataType::Float,
        DType::F64 => DataType::Double,
        DType::F16 => DataType::Float16,
        DType::BF16 => DataType::Bfloat16,
        DType::I8 => DataType::Int8,
        DType::I16 => DataType::Int16,
        DType::I32 => DataType::Int32,
        DType::I64 => DataType::Int64,
        DType::U8 => DataType::Uint8,
        DType::Bool => DataType::Bool,
    }
}

/// ONNX's own name of an element type, for messages.
pub(crate) fn type_name(code: i32) -> String {
    match DataType::try_from(code) {
        Ok(known) => format!("{known:?}").to_lowercase(),
        Err(_) => format!("number {code}"),
    }
}

/// The array type of an ONNX element type, if arrays can hold it as it is.
pub fn dtype_of(code: i32) -> Option<DType> {
    match DataType::try_from(code).ok()? {
        DataType::Float => Some(DType::F32),
        DataType::Double => Some(DType::F64),
        DataType::Float16 => Some(DType::F16),
        DataType::Bfloat16 => Some(DType::BF16),
        DataType::Int8 => Some(DType::I8),
        DataType::Int16 => Some(DType::I16),
        DataType::Int32 => Some(DType::I32),
        DataType::Int64 => Some(DType::I64),
        DataType::Uint8 => Some(DType::U8),
        DataType::Bool => Some(DType::Bool),
        _ => None,
    }
}

/// How the elements lie in `raw_data`; unsigned 16, 32 and 64 bit integers are widened.
fn stored(code: i32) -> Result<Stored, String> {
    match (dtype_of(code), DataType::try_from(code)) {
        (Some(dtype), _) => Ok(Stored::As(dtype)),
        (None, Ok(DataType::Uint16)) => Ok(Stored::U16),
        (None, Ok(DataType::Uint32)) => Ok(Stored::U32),
        (None, Ok(DataType::Uint64)) => Ok(Stored::U64),
        _ => Err(format!("elements of type {} are not supported", type_name(code))),
    }
}

/// A tensor whose data lie beside it in `raw_data`, as our exporter writes it.
///
/// ```
/// use striate_graph::Array;
/// use striate_io::onnx::{array_to_tensor, tensor_to_array};
/// let array = Array::from_vec([2, 2], vec![1.0f32, 2.0, 3.0, 4.0])?;
/// let tensor = array_to_tensor("w", &array);
/// assert_eq!(tensor.dims, [2, 2]);
/// assert!(tensor_to_array(&tensor)?.bits_eq(&array));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn array_to_tensor(name: &str, array: &Array) -> TensorProto {
    let mut raw = Vec::with_capacity(bytes::byte_len(array) as usize);
    let written: Result<(), std::convert::Infallible> = bytes::encode(array, |part| {
        raw.extend_from_slice(part);
        Ok(())
    });
    let Ok(()) = written;
    TensorProto {
        name: name.to_owned(),
        dims: array.shape().iter().map(|&size| size as i64).collect(),
        data_type: data_type(array.dtype()) as i32,
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    }
}

/// The array of a tensor whose data lie in the file itself. u16 becomes i32, u32 and u64 become i64.
///
/// # Errors
/// What is wrong, without the tensor's name: a type that arrays cannot hold, sizes that do not fit the data, external data.
pub fn tensor_to_array(tensor: &TensorProto) -> Result<Array, String> {
    read_tensor(tensor, &ExternalData::none())
}

/// The array of a tensor.
pub(crate) fn read_tensor(tensor: &TensorProto, external: &ExternalData) -> Result<Array, String> {
    let stored = stored(tensor.data_type)?;
    let shape = sizes(&tensor.dims)?;
    let wanted = bytes::check_shape(&shape, stored)?;
    if tensor.segment.is_some() {
        return Err("data in segments are not supported".into());
    }
    if tensor.data_location == DataLocation::External as i32 {
        let data = external.read(&tensor.external_data, wanted as u64)?;
        return bytes::decode(stored, &shape, &data, false);
    }
    if let Some(raw) = tensor.raw_data.as_ref().filter(|raw| !raw.is_empty() || wanted == 0) {
        return bytes::decode(stored, &shape, raw, false);
    }
    typed(tensor, &shape)
}

/// Sizes of axes out of a file.
pub(crate) fn sizes(dims: &[i64]) -> Result<Vec<usize>, String> {
    dims.iter().map(|&d| usize::try_from(d).map_err(|_| format!("axis of size {d} in shape {dims:?}"))).collect()
}

/// The elements of a typed field.
fn typed(tensor: &TensorProto, shape: &[usize]) -> Result<Array, String> {
    let ints = &tensor.int32_data;
    let narrow = |what: &str| format!("int32_data has a value that is no {what}");
    macro_rules! integers {
        ($values:expr, $t:ty) => {
            $values
                .iter()
                .map(|&v| <$t>::try_from(v))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| narrow(stringify!($t)))?
        };
    }
    let buffer = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float) => Buffer::F32(tensor.float_data.clone().into()),
        Ok(DataType::Double) => Buffer::F64(tensor.double_data.clone()),
        Ok(DataType::Float16) => Buffer::F16(integers!(ints, u16).into_iter().map(f16::from_bits).collect()),
        Ok(DataType::Bfloat16) => Buffer::BF16(integers!(ints, u16).into_iter().map(bf16::from_bits).collect()),
        Ok(DataType::Int8) => Buffer::I8(integers!(ints, i8)),
        Ok(DataType::Int16) => Buffer::I16(integers!(ints, i16)),
        Ok(DataType::Int32 | DataType::Uint16) => Buffer::I32(ints.clone()),
        Ok(DataType::Int64) => Buffer::I64(tensor.int64_data.clone()),
        Ok(DataType::Uint8) => Buffer::U8(integers!(ints, u8)),
        Ok(DataType::Bool) => Buffer::Bool(ints.iter().map(|&v| v != 0).collect()),
        Ok(DataType::Uint32 | DataType::Uint64) => {
            let values = tensor.uint64_data.iter().map(|&v| i64::try_from(v)).collect::<Result<Vec<_>, _>>();
            Buffer::I64(values.map_err(|_| format!("an unsigned value above {}", i64::MAX))?)
        }
        _ => return Err(format!("elements of type {} are not supported", type_name(tensor.data_type))),
    };
    let count = buffer.len();
    let wanted: usize = shape.iter().product();
    if count != wanted {
        return Err(format!("shape {shape:?} has {wanted} elements, the file gives {count}"));
    }
    Array::from_buffer(shape, buffer).map_err(|error| error.to_string())
}

/// A sparse tensor written out.
pub(crate) fn read_sparse(tensor: &SparseTensorProto, external: &ExternalData) -> Result<Array, String> {
    let values = tensor.values.as_ref().ok_or("a sparse tensor without values")?;
    let indices = tensor.indices.as_ref().ok_or("a sparse tensor without indices")?;
    let (values, indices) = (read_tensor(values, external)?, read_tensor(indices, external)?);
    let shape = sizes(&tensor.dims)?;
    let bytes = bytes::check_shape(&shape, Stored::As(values.dtype()))?;
    if bytes > MAX_SPARSE_BYTES {
        return Err(format!("a sparse tensor of shape {shape:?}; at most {MAX_SPARSE_BYTES} bytes are written out"));
    }
    let strides = striate_graph::Shape::from(shape.clone()).strides();
    let at = indices.to_i64_vec();
    let linear = indices.shape().rank() == 1;
    let width = if linear { 1 } else { shape.len() };
    if at.len() != values.numel() * width {
        return Err(format!("{} values of a sparse tensor with {} indices", values.numel(), at.len()));
    }
    let mut dense = vec![0.0; shape.iter().product()];
    for (value, place) in values.to_f64_vec().into_iter().zip(at.chunks(width.max(1))) {
        let inside = linear || place.iter().zip(&shape).all(|(&i, &size)| i >= 0 && (i as usize) < size);
        let flat = match linear {
            true => usize::try_from(place[0]).ok(),
            false => inside.then(|| place.iter().zip(&strides).map(|(&i, &stride)| i as usize * stride).sum()),
        };
        let target = flat.and_then(|flat| dense.get_mut(flat));
        *target.ok_or_else(|| format!("index {place:?} of a sparse tensor lies outside {shape:?}"))? = value;
    }
    Array::from_f64(shape, &dense, values.dtype()).map_err(|error| error.to_string())
}

/// Most bytes to which a sparse tensor is written out.
const MAX_SPARSE_BYTES: usize = 16 << 20;
