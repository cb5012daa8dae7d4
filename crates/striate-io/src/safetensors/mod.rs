//! Safetensors: named arrays and string metadata, as Hugging Face defined them.
//!
//! A file is an 8-byte little-endian length, a JSON header of that length, and the data. Reading goes through the
//! reference implementation's own validation; writing is ours, because the bytes must be a function of the contents
//! alone and must reach the disk before the file gets its name.

mod write;

use crate::bytes::{self, Stored};
use crate::error::printable;
use crate::input::{self, Input};
use crate::{Error, Result};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::Read;
use std::path::Path;
use striate_graph::{Array, DType};

pub use write::{safetensors_bytes, write_safetensors};

/// Longest header that is read, in bytes.
const MAX_HEADER: u64 = 16 << 20;
/// Most arrays in a file.
const MAX_ARRAYS: u64 = 65_536;
/// The key that holds the metadata.
const METADATA: &str = "__metadata__";

/// The contents of a safetensors file.
#[derive(Clone, Debug, Default)]
pub struct Safetensors {
    /// The arrays by name.
    pub arrays: BTreeMap<String, Array>,
    /// Free strings by key.
    pub metadata: BTreeMap<String, String>,
}

/// Reads a safetensors file. Unsigned 16- and 32-bit integers become i32 and i64, u64 becomes i64 if all values fit.
///
/// # Errors
/// Names the file and, where one is at fault, the array: cut off, header beyond 16 MiB, more than 65,536 arrays, sizes
/// that do not fit together, a dtype without a counterpart here.
///
/// ```
/// use striate_graph::Array;
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("weights.safetensors");
/// let arrays = [("fc.bias", Array::from_vec([2], vec![0.5f32, -1.0])?)];
/// striate_io::write_safetensors(&path, arrays, &[("model".into(), "lenet".into())].into())?;
/// let file = striate_io::read_safetensors(&path)?;
/// assert_eq!(file.arrays["fc.bias"].as_slice::<f32>(), Some(&[0.5, -1.0][..]));
/// assert_eq!(file.metadata["model"], "lenet");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_safetensors(path: &Path) -> Result<Safetensors> {
    read(input::open(path)?)
}

/// Reads safetensors from memory; `name` stands for the file in errors.
///
/// # Errors
/// As [`read_safetensors`].
pub fn parse_safetensors(bytes: &[u8], name: &Path) -> Result<Safetensors> {
    read(Input { path: name, reader: bytes, left: bytes.len() as u64 })
}

pub(crate) fn read<R: Read>(mut input: Input<'_, R>) -> Result<Safetensors> {
    let path = input.path;
    let length = u64::from_le_bytes(input.array("the length of the header")?);
    if length > MAX_HEADER {
        let what = "the header's length (the first 8 bytes; is this a safetensors file?)";
        return Err(Error::too_large(path, what, length, MAX_HEADER));
    }
    let header = input.take(length, "the header")?;
    check_keys(path, &header)?;
    let header = parse_header(path, &header)?;
    let count = header.tensors().len() as u64;
    if count > MAX_ARRAYS {
        return Err(Error::too_large(path, "the number of arrays", count, MAX_ARRAYS));
    }
    if header.data_len() as u64 != input.left {
        let why = format!("the header declares {} bytes of data, the file has {}", header.data_len(), input.left);
        return Err(Error::malformed(path, "safetensors", why));
    }
    let mut arrays = BTreeMap::new();
    // The header's own check: in this order the ranges follow each other without a gap, and cover the data.
    for key in header.offset_keys() {
        let info = header.info(&key).expect("offset_keys are keys of the header");
        let stored = stored(path, &key, info.dtype)?;
        bytes::check_shape(&info.shape, stored).map_err(|why| Error::array(path, &key, why))?;
        let data = input.take((info.data_offsets.1 - info.data_offsets.0) as u64, &printable(&key))?;
        let array = bytes::decode(stored, &info.shape, &data, false).map_err(|why| Error::array(path, &key, why))?;
        arrays.insert(key, array);
    }
    let metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(Safetensors { arrays, metadata })
}

/// What a look at a JSON object's keys shows, before anything is made of its values.
#[derive(Default)]
struct Keys {
    /// How many there are; counting ends beyond [`MAX_ARRAYS`] and the metadata.
    count: u64,
    /// The first that comes again: of two arrays of one name each reader may take another.
    twice: Option<String>,
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Keys, D::Error> {
        struct Look;
        impl<'de> Visitor<'de> for Look {
            type Value = Keys;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut seen = HashSet::new();
                let mut keys = Keys::default();
                while let Some(key) = map.next_key::<String>()? {
                    keys.count += 1;
                    if keys.count > MAX_ARRAYS + 1 {
                        // enough to refuse it: the rest is passed over
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if key == METADATA {
                        // what is no object ends this, and the parser says so
                        let inside: Keys = map.next_value()?;
                        keys.twice = keys.twice.or(inside.twice.map(|key| format!("{METADATA}.{key}")));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                    if keys.twice.is_none() && seen.contains(&key) {
                        keys.twice = Some(key);
                    } else {
                        seen.insert(key);
                    }
                }
                Ok(keys)
            }
        }
        deserializer.deserialize_map(Look)
    }
}

fn check_keys(path: &Path, header: &[u8]) -> Result<()> {
    // what is no object at all, the parser refuses
    let Keys { count, twice } = serde_json::from_slice(header).unwrap_or_default();
    match twice {
        Some(key) => Err(Error::array(path, &key, "the header has this key twice")),
        None if count > MAX_ARRAYS + 1 => Err(Error::too_large(path, "the number of arrays", count, MAX_ARRAYS)),
        None => Ok(()),
    }
}

/// The reference implementation's parser and checks; where it does not say which array is wrong, we find it.
fn parse_header(path: &Path, header: &[u8]) -> Result<Metadata> {
    serde_json::from_slice(header).map_err(|error| {
        let Ok(serde_json::Value::Object(map)) = serde_json::from_slice(header) else {
            return Error::malformed(path, "safetensors header", format!("is not a JSON object ({error})"));
        };
        let guilty = map.iter().filter(|(key, _)| *key != METADATA).find_map(|(key, value)| {
            let why = match serde_json::from_value::<safetensors::tensor::TensorInfo>(value.clone()) {
                Err(error) => error.to_string(),
                Ok(info) => {
                    let (begin, end) = info.data_offsets;
                    let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |n, &size| n.checked_mul(size));
                    if end.checked_sub(begin).and_then(|bytes| bytes.checked_mul(8)) == bits {
                        return None;
                    }
                    format!("data_offsets [{begin}, {end}] are not the size of {} {:?}", info.dtype, info.shape)
                }
            };
            Some((key, why))
        });
        let strings = |value| serde_json::from_value::<BTreeMap<String, String>>(value).map(|_| ());
        let metadata = map.get(METADATA).cloned().map_or(Ok(()), strings);
        match guilty {
            Some((key, why)) => Error::array(path, key, why),
            None if let Err(error) = metadata => {
                Error::malformed(path, "safetensors header", format!("`{METADATA}` is no dict of strings: {error}"))
            }
            None => Error::malformed(path, "safetensors header", error.to_string()),
        }
    })
}

fn stored(path: &Path, key: &str, dtype: Dtype) -> Result<Stored> {
    Ok(match dtype {
        Dtype::F32 => Stored::As(DType::F32),
        Dtype::F64 => Stored::As(DType::F64),
        Dtype::F16 => Stored::As(DType::F16),
        Dtype::BF16 => Stored::As(DType::BF16),
        Dtype::I8 => Stored::As(DType::I8),
        Dtype::I16 => Stored::As(DType::I16),
        Dtype::I32 => Stored::As(DType::I32),
        Dtype::I64 => Stored::As(DType::I64),
        Dtype::U8 => Stored::As(DType::U8),
        Dtype::BOOL => Stored::As(DType::Bool),
        Dtype::U16 => Stored::U16,
        Dtype::U32 => Stored::U32,
        Dtype::U64 => Stored::U64,
        other => {
            return Err(Error::unsupported(path, format!("dtype {other} (array `{key}`)"), "convert it to F32 first"));
        }
    })
}
