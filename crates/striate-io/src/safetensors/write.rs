//! Writing safetensors.

use super::{MAX_ARRAYS, MAX_HEADER, METADATA};
use crate::{Error, Result, atomic, bytes};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use striate_graph::{Array, DType};

fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "F32",
        DType::F64 => "F64",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::I8 => "I8",
        DType::I16 => "I16",
        DType::I32 => "I32",
        DType::I64 => "I64",
        DType::U8 => "U8",
        DType::Bool => "BOOL",
    }
}

/// Writes a safetensors file, whole or not at all (see [`write_atomic`](crate::write_atomic)). The bytes are a function of
/// names, arrays and metadata: keys are sorted, and wide elements come first so that each array is aligned to its own.
///
/// # Errors
/// A name that occurs twice or is `__metadata__`; a header beyond what [`read_safetensors`](crate::read_safetensors) reads; what the disk says.
pub fn write_safetensors<S: Into<String>>(
    path: &Path,
    arrays: impl IntoIterator<Item = (S, Array)>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let layout = Layout::new(path, arrays, metadata)?;
    atomic::write_atomic_with(path, &mut |_| Ok(()), |writer| layout.write(writer))
}

/// The bytes that [`write_safetensors`] writes; `name` stands for the file in errors.
///
/// # Errors
/// As [`write_safetensors`], without the disk.
pub fn safetensors_bytes<S: Into<String>>(
    name: &Path,
    arrays: impl IntoIterator<Item = (S, Array)>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    Layout::new(name, arrays, metadata)?.write(&mut bytes).map_err(Error::io(name, "write"))?;
    Ok(bytes)
}

/// A file that is about to be written.
struct Layout {
    header: String,
    /// In the order of their data.
    arrays: Vec<Array>,
}

impl Layout {
    fn new<S: Into<String>>(
        path: &Path,
        arrays: impl IntoIterator<Item = (S, Array)>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Layout> {
        let mut named = BTreeMap::new();
        for (key, array) in arrays {
            let key = key.into();
            if key == METADATA {
                return Err(Error::array(path, &key, "the name is reserved; give the array another"));
            }
            if named.insert(key.clone(), array).is_some() {
                return Err(Error::array(path, &key, "the name occurs twice"));
            }
        }
        let mut order: Vec<&String> = named.keys().collect();
        order.sort_by_key(|key| std::cmp::Reverse(named[*key].dtype().size()));
        let mut offset = 0;
        let mut begins = BTreeMap::new();
        for &key in &order {
            begins.insert(key, offset);
            offset += bytes::byte_len(&named[key]);
        }
        let quote = |text: &str| serde_json::to_string(text).expect("a string is valid JSON");
        let mut entries = Vec::with_capacity(named.len() + 1);
        if !metadata.is_empty() {
            let pairs: Vec<String> = metadata.iter().map(|(k, v)| format!("{}:{}", quote(k), quote(v))).collect();
            entries.push(format!("\"{METADATA}\":{{{}}}", pairs.join(",")));
        }
        for (key, array) in &named {
            let (dtype, shape) = (dtype_name(array.dtype()), array.shape().dims());
            let shape = shape.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
            let (begin, end) = (begins[key], begins[key] + bytes::byte_len(array));
            let offsets = format!("\"data_offsets\":[{begin},{end}]");
            entries.push(format!("{}:{{\"dtype\":\"{dtype}\",\"shape\":[{shape}],{offsets}}}", quote(key)));
        }
        let mut header = format!("{{{}}}", entries.join(","));
        // blanks, so that the data begins on 8 bytes
        header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
        for (what, value, limit) in
            [("the header", header.len() as u64, MAX_HEADER), ("the number of arrays", named.len() as u64, MAX_ARRAYS)]
        {
            if value > limit {
                return Err(Error::too_large(path, what, value, limit));
            }
        }
        let arrays = order.into_iter().map(|key| named[key].clone()).collect();
        Ok(Layout { header, arrays })
    }

    fn write(&self, writer: &mut impl Write) -> io::Result<()> {
        writer.write_all(&(self.header.len() as u64).to_le_bytes())?;
        writer.write_all(self.header.as_bytes())?;
        self.arrays.iter().try_for_each(|array| bytes::encode(array, |part| writer.write_all(part)))
    }
}
