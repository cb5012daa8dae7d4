//! The layout before PyTorch 1.6: five pickles one after the other (magic number, protocol, system, object, keys of the
//! storages), then the storages in the order of their keys, each with its number of elements before it.

use super::globals::Global;
use super::tensor::{StorageRef, Storages, read_arrays};
use super::value::{Pickle, Value};
use super::{Contents, MAX_PICKLE, find, parse};
use crate::input::{Input, ReadSeek};
use crate::{Error, Result};
use std::collections::HashMap;
use std::io::SeekFrom;

/// The magic number 0x1950a86a20f9469cfc6c, as a pickle has it.
const MAGIC: &[u8] = b"l\xfc\x9cF\xf9 j\xa8P\x19";
const PROTOCOL: i64 = 1001;

/// Reads a file that begins with a pickle.
pub(crate) fn read<R: ReadSeek>(mut input: Input<'_, R>) -> Result<Contents> {
    let path = input.path;
    let length = input.left;
    let head = input.take(length.min(MAX_PICKLE), "the pickles")?;
    let (magic, at) = parse(path, "the first pickle", &head, 0)?;
    if !matches!(magic.value(magic.root), Value::Long(span) if magic.raw(*span) == MAGIC) {
        let what = "a plain pickle, which is no file of PyTorch's,";
        return Err(Error::unsupported(path, what, "write the weights with torch.save, safetensors or numpy.savez"));
    }
    let (protocol, at) = parse(path, "the protocol's number", &head, at)?;
    match protocol.value(protocol.root) {
        Value::Int(PROTOCOL) => {}
        _ => {
            let why = format!("its protocol is {}, known is {PROTOCOL}", protocol.describe(protocol.root));
            return Err(Error::malformed(path, "pth", why));
        }
    }
    let (_, at) = parse(path, "the system's description", &head, at)?;
    let (object, at) = parse(path, "the object", &head, at)?;
    let (keys, at) = parse(path, "the storages' keys", &head, at)?;
    let found = find::find_tensors(path, &object)?;
    let mut source = LegacyStorages { input, length, places: HashMap::new() };
    source.locate(&object, &keys, at as u64)?;
    let arrays = read_arrays(path, &found.tensors, length, &mut source)?;
    Ok(Contents { arrays, metadata: found.metadata, notes: found.notes, unknown: found.unknown })
}

struct LegacyStorages<'a, R> {
    input: Input<'a, R>,
    length: u64,
    /// Where the elements of a storage begin, and their bytes.
    places: HashMap<String, (u64, u64)>,
}

impl<R: ReadSeek> LegacyStorages<'_, R> {
    fn seek(&mut self, at: u64) -> Result<()> {
        self.input.reader.seek(SeekFrom::Start(at)).map_err(Error::io(self.input.path, "read"))?;
        self.input.left = self.length.saturating_sub(at);
        Ok(())
    }

    /// Walks over the storages.
    fn locate(&mut self, object: &Pickle<'_>, keys: &Pickle<'_>, mut at: u64) -> Result<()> {
        let path = self.input.path;
        // bytes of an element; PyTorch counts an untyped storage in bytes
        let mut elements: HashMap<&str, usize> = HashMap::new();
        for value in &object.values {
            let Value::Persistent(reference) = value else { continue };
            let items = object.tuple(*reference).unwrap_or_default();
            let (Some(kind), Some(key)) = (items.get(1), items.get(2).and_then(|key| object.text(*key))) else {
                continue;
            };
            match object.value(*kind) {
                Value::Global(Global::Storage(element)) => elements.insert(key, element.size()),
                Value::Global(Global::Untyped) => elements.insert(key, 1),
                _ => None,
            };
        }
        let wrong = |why: String| Error::malformed(path, "the storages' keys", why);
        let Value::List(list) = keys.value(keys.root) else {
            return Err(wrong(format!("{} in place of a list", keys.describe(keys.root))));
        };
        for key in list {
            let Some(key) = keys.text(*key) else {
                return Err(wrong(format!("{} in place of a key", keys.describe(*key))));
            };
            let Some(size) = elements.get(key) else {
                return Err(wrong(format!("no tensor is in the storage `{key}`, so its element is not known")));
            };
            self.seek(at)?;
            let count = u64::from_le_bytes(self.input.array(&format!("the size of storage `{key}`"))?);
            let bytes = count.checked_mul(*size as u64).filter(|bytes| *bytes <= self.input.left);
            let Some(bytes) = bytes else {
                let left = self.input.left;
                return Err(wrong(format!(
                    "storage `{key}` declares {count} elements, the file has {left} bytes left"
                )));
            };
            if self.places.insert(key.to_owned(), (at + 8, bytes)).is_some() {
                return Err(wrong(format!("the storage `{key}` occurs twice")));
            }
            at += 8 + bytes;
        }
        Ok(())
    }
}

impl<R: ReadSeek> Storages for LegacyStorages<'_, R> {
    fn read(&mut self, storage: &StorageRef, array: &str) -> Result<Vec<u8>> {
        let path = self.input.path;
        let key = &storage.key;
        let Some((at, bytes)) = self.places.get(key).copied() else {
            return Err(Error::array(path, array, format!("its storage `{key}` is not in the file")));
        };
        if bytes != storage.bytes {
            let declared = storage.bytes;
            return Err(Error::array(path, array, format!("its storage `{key}` has {bytes} bytes, not {declared}")));
        }
        self.seek(at)?;
        self.input.take(bytes, &format!("storage `{key}`"))
    }

    fn big_endian(&self) -> bool {
        false
    }
}
