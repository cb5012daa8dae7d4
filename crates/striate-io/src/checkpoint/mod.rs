//! Checkpoints: everything that a run needs to go on with the same bits.
//!
//! # The file, version 1
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `STRIATEC` |
//! | 4 | format version, u32, little-endian like all that follows |
//! | 4 | CRC-32 of the header |
//! | 8 | length of the header, u64 |
//! | … | header: JSON `{"step", "counters", "arrays": [{"name", "dtype", "shape", "offset", "bytes", "crc32"}]}` |
//! | … | zeros to a multiple of 64, then the arrays, each padded with zeros to a multiple of 64; `offset` counts from the first |
//! | 8 | length of the whole file, u64 |
//! | 4 | CRC-32 of all before this field |
//! | 4 | `END.` |
//!
//! A folder holds `step-000000001234.checkpoint` files, the last two of them.

mod write;

use crate::bytes::{self, Stored};
use crate::input::{self, Input};
use crate::{Error, Result};
use crc32fast::Hasher;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use striate_graph::{Array, DType};

pub use write::{write_checkpoint, write_checkpoint_with};

pub(crate) const MAGIC: &[u8; 8] = b"STRIATEC";
const END: &[u8; 4] = b"END.";
/// Version that is written; lower ones are read.
const VERSION: u32 = 1;
const PROLOGUE: u64 = 24;
const FOOTER: u64 = 16;
const ALIGNMENT: u64 = 64;
/// Longest header, in bytes.
const MAX_HEADER: u64 = 64 << 20;

/// The state of a run at one step.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// Parameters, buffers, optimizer and EMA state, by name.
    pub arrays: BTreeMap<String, Array>,
    /// The trainer's counters, free-form. Numbers come back as they were, to the last bit; but JSON has no NaN and no
    /// infinity, so what may become one belongs into an array.
    pub counters: Value,
}

/// The newest good checkpoint of a folder.
#[derive(Debug)]
pub struct Latest {
    /// The step it was written at.
    pub step: u64,
    /// Where it was found.
    pub path: PathBuf,
    /// Its contents.
    pub checkpoint: Checkpoint,
    /// Newer files that could not be read, newest first; each error names its file. Worth a warning.
    pub skipped: Vec<Error>,
}

/// One array as the header lists it.
struct Entry {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    bytes: u64,
    crc: u32,
}

fn padding(length: u64) -> u64 {
    length.next_multiple_of(ALIGNMENT) - length
}

/// The file of a step in a checkpoint folder.
pub fn checkpoint_path(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("step-{step:012}.checkpoint"))
}

/// The checkpoint files of a folder, newest first.
fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder, "list"))? {
        let path = entry.map_err(Error::io(folder, "list"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let step = name.strip_prefix("step-").and_then(|n| n.strip_suffix(".checkpoint"));
        if let Some(step) = step.and_then(|s| s.parse().ok()) {
            found.push((step, path));
        }
    }
    found.sort();
    found.reverse();
    Ok(found)
}

/// Reads the newest good checkpoint of a folder; `None` if the folder has none or is not there.
///
/// # Errors
/// [`Error::NoGoodCheckpoint`], with the reason for each, if there are some and every one is damaged; [`Error::Io`] if the
/// folder cannot be listed.
pub fn read_latest(folder: &Path) -> Result<Option<Latest>> {
    match std::fs::metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        _ => {}
    }
    let mut skipped = Vec::new();
    for (step, path) in list(folder)? {
        match read_checkpoint(&path) {
            Ok((written, checkpoint)) if written == step => {
                return Ok(Some(Latest { step, path, checkpoint, skipped }));
            }
            Ok((written, _)) => {
                let why = format!("holds step {written}, its name says {step}; it was renamed");
                skipped.push(Error::malformed(&path, "checkpoint", why));
            }
            Err(error) => skipped.push(error),
        }
    }
    if skipped.is_empty() { Ok(None) } else { Err(Error::NoGoodCheckpoint { folder: folder.into(), skipped }) }
}

/// Reads one checkpoint file: its step and its contents.
///
/// # Errors
/// Cut off, damaged (every bit is under a checksum), of a newer version, or unreadable.
pub fn read_checkpoint(path: &Path) -> Result<(u64, Checkpoint)> {
    read(input::open(path)?)
}

pub(crate) fn read<R: Read>(mut file: Input<'_, R>) -> Result<(u64, Checkpoint)> {
    let path = file.path;
    let total = file.left;
    let mut crc = Hasher::new();
    let prologue: [u8; PROLOGUE as usize] =
        take(&mut file, &mut crc, PROLOGUE, "the prologue")?.try_into().expect("take returns the length asked for");
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| prologue[at + i]));
    if prologue[..8] != *MAGIC {
        return Err(Error::malformed(path, "checkpoint", "the first bytes are not those of a checkpoint"));
    }
    if word(8) == 0 || word(8) > VERSION {
        return Err(Error::Version { path: path.into(), what: "checkpoint", found: word(8), known: VERSION });
    }
    let length = u64::from(word(16)) | u64::from(word(20)) << 32;
    if length > MAX_HEADER {
        return Err(Error::too_large(path, "the header", length, MAX_HEADER));
    }
    let header = take(&mut file, &mut crc, length, "the header")?;
    check_crc(path, "the header", word(12), crc32fast::hash(&header))?;
    let header: Value = serde_json::from_slice(&header).map_err(|e| Error::malformed(path, "header", e.to_string()))?;
    let (step, entries) = parse_header(&header).map_err(|why| Error::malformed(path, "header", why))?;
    skip_padding(&mut file, &mut crc, PROLOGUE + length)?;
    let mut arrays = BTreeMap::new();
    for entry in entries {
        let data = take(&mut file, &mut crc, entry.bytes, &entry.name)?;
        check_crc(path, &format!("array `{}`", entry.name), entry.crc, crc32fast::hash(&data))?;
        skip_padding(&mut file, &mut crc, entry.bytes)?;
        let array = bytes::decode(Stored::As(entry.dtype), &entry.shape, &data, false);
        arrays.insert(entry.name.clone(), array.map_err(|why| Error::array(path, &entry.name, why))?);
    }
    let length = take(&mut file, &mut crc, 8, "the footer")?;
    let stored = u32::from_le_bytes(file.array("the footer")?);
    check_crc(path, "the whole file", stored, crc.finalize())?;
    if length != total.to_le_bytes() || file.array("the footer")? != *END || file.left > 0 {
        return Err(Error::malformed(path, "checkpoint", "the footer is not that of this file"));
    }
    Ok((step, Checkpoint { arrays, counters: header["counters"].clone() }))
}

fn take<R: Read>(file: &mut Input<'_, R>, crc: &mut Hasher, length: u64, what: &str) -> Result<Vec<u8>> {
    let bytes = file.take(length, what)?;
    crc.update(&bytes);
    Ok(bytes)
}

fn skip_padding<R: Read>(file: &mut Input<'_, R>, crc: &mut Hasher, length: u64) -> Result<()> {
    take(file, crc, padding(length), "padding").map(|_| ())
}

fn check_crc(path: &Path, what: &str, stored: u32, computed: u32) -> Result<()> {
    if stored == computed {
        return Ok(());
    }
    Err(Error::checksum(path, what, stored, computed))
}

fn parse_header(header: &Value) -> Result<(u64, Vec<Entry>), String> {
    let step = header["step"].as_u64().ok_or("`step` is missing")?;
    let list = header["arrays"].as_array().ok_or("`arrays` is missing")?;
    let mut next = 0u64;
    let mut entries = Vec::with_capacity(list.len());
    for value in list {
        let name = value["name"].as_str().ok_or("an array has no name")?;
        let number = |key: &str| value[key].as_u64().ok_or(format!("array `{name}`: `{key}` is not a number"));
        let dtype = value["dtype"].as_str().unwrap_or_default();
        let dtype = parse_dtype(dtype).ok_or(format!("array `{name}`: unknown dtype `{dtype}`"))?;
        let sizes = value["shape"].as_array().ok_or(format!("array `{name}`: `shape` is missing"))?;
        let sizes: Option<Vec<usize>> = sizes.iter().map(|s| s.as_u64().and_then(|s| s.try_into().ok())).collect();
        let shape = sizes.ok_or(format!("array `{name}`: a size is not a number"))?;
        let wanted = bytes::check_shape(&shape, Stored::As(dtype)).map_err(|why| format!("array `{name}`: {why}"))?;
        let length = number("bytes")?;
        if length != wanted as u64 || number("offset")? != next {
            return Err(format!("array `{name}`: offset or length do not fit its shape {shape:?}"));
        }
        next = next.saturating_add(length + padding(length));
        let crc =
            u32::try_from(number("crc32")?).map_err(|_| format!("array `{name}`: crc32 has more than 32 bits"))?;
        entries.push(Entry { name: name.into(), dtype, shape, bytes: length, crc });
    }
    Ok((step, entries))
}

fn parse_dtype(name: &str) -> Option<DType> {
    use DType::*;
    [F32, F64, F16, BF16, I8, I16, I32, I64, U8, Bool].into_iter().find(|dtype| dtype.torch_name() == name)
}
