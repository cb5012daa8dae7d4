//! Writing `.npy`.

use super::{MAGIC, MAX_HEADER};
use crate::{Error, Result, atomic, bytes};
use std::io::{self, Write};
use std::path::Path;
use striate_graph::{Array, DType};

/// Writes a `.npy` file, whole or not at all; byte for byte what `numpy.save` writes for the same array.
///
/// # Errors
/// bfloat16, which NumPy does not have; what the disk says.
pub fn write_npy(path: &Path, array: &Array) -> Result<()> {
    let header = header(path, array)?;
    atomic::write_atomic_with(path, &mut |_| Ok(()), |writer| write(&header, array, writer))
}

/// The bytes that [`write_npy`] writes; `name` stands for the file in errors.
///
/// # Errors
/// bfloat16, which NumPy does not have.
pub fn npy_bytes(name: &Path, array: &Array) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(&header(name, array)?, array, &mut bytes).map_err(Error::io(name, "write"))?;
    Ok(bytes)
}

fn write(header: &[u8], array: &Array, writer: &mut impl Write) -> io::Result<()> {
    writer.write_all(header)?;
    bytes::encode(array, |part| writer.write_all(part))
}

/// All that stands before the data.
pub(crate) fn header(path: &Path, array: &Array) -> Result<Vec<u8>> {
    let descr = match array.dtype() {
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::F16 => "<f2",
        DType::I8 => "|i1",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::U8 => "|u1",
        DType::Bool => "|b1",
        DType::BF16 => {
            let instead = "NumPy has no such type; cast to float32 first (`striate convert --dtype f32`)";
            return Err(Error::unsupported(path, "bfloat16 in .npy", instead));
        }
    };
    let shape = match array.shape().dims() {
        [size] => format!("({size},)"),
        sizes => format!("({})", sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    };
    let dictionary = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // NumPy leaves room for a first axis of 21 digits, so that a file can grow in place …
    let room = array.shape().first().map_or(0, |size| 21 - size.to_string().len());
    // … and fills up with at least one blank, so that the data begins on 64 bytes.
    let before = MAGIC.len() + 4;
    let length = (before + dictionary.len() + room + 2).next_multiple_of(64) - before;
    if length as u64 > MAX_HEADER {
        return Err(Error::too_large(path, "the header", length as u64, MAX_HEADER));
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{dictionary:<width$}\n", width = length - 1).bytes());
    Ok(bytes)
}
