//! PyTorch's files, as data.
//!
//! A `.pth` is a pickle, a program for a small machine that can call anything that Python has, and raw storages beside it. Here
//! the machine (`machine.rs`) only puts down what the pickle says, as an arena of values; it calls nothing, and the few names that
//! mean something are a fixed table (`globals.rs`). Which values are the weights is decided afterwards (`find.rs`), and only those
//! are looked at closely and read (`tensor.rs`). So a checkpoint loads whatever else lies in it, of whatever class.
//!
//! Two layouts: the zip archive since PyTorch 1.6 and the row of pickles before it (`legacy.rs`).

mod find;
mod globals;
mod legacy;
mod machine;
mod tensor;
mod value;
mod write;

pub use write::write_pth;

pub(crate) use legacy::read as read_legacy;

use crate::input::ReadSeek;
use crate::zip::{Archive, Member};
use crate::{Error, Result};
use machine::{Fault, Limits, read_pickle};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use striate_nn::StateDict;
use tensor::{StorageRef, Storages, read_arrays};
use value::Pickle;

/// Longest pickle that is read, in bytes. That of a checkpoint with a thousand arrays and an optimizer's state has half a million.
const MAX_PICKLE: u64 = 16 << 20;

/// The weights of a file.
pub(crate) struct Contents {
    pub arrays: StateDict,
    pub metadata: BTreeMap<String, String>,
    pub notes: Vec<String>,
    /// Where values of unknown classes stand, and their classes.
    pub unknown: Vec<(String, String)>,
}

/// Reads one pickle, with the place of what is wrong in the error; `what` is the member or part that it is.
fn parse<'a>(path: &Path, what: &str, bytes: &'a [u8], at: usize) -> Result<(Pickle<'a>, usize)> {
    read_pickle(bytes, at, Limits::DEFAULT).map_err(|(byte, fault)| match fault {
        Fault::Wrong(why) => Error::malformed(path, what, format!("byte {byte}: {why}")),
        Fault::Limit(of, limit) => Error::too_large(path, format!("{what}: {of} up to byte {byte}"), limit + 1, limit),
        Fault::Harmful(name) => Error::forbidden(path, format!("{what}, byte {byte}"), name),
    })
}

/// Reads a zip archive of PyTorch's.
pub(crate) fn read_zip<R: ReadSeek>(archive: Archive<'_, R>) -> Result<Contents> {
    let path = archive.path();
    let length = archive.length();
    let mut pickles = archive.members.iter().filter(|member| is_pickle(&member.name));
    let (Some(pickle), None) = (pickles.next(), pickles.next()) else {
        let count = archive.members.iter().filter(|member| is_pickle(&member.name)).count();
        return Err(Error::malformed(
            path,
            "pth",
            format!("it has {count} members named data.pkl, PyTorch writes one"),
        ));
    };
    let pickle = pickle.clone();
    let folder = pickle.name.strip_suffix("data.pkl").unwrap_or_default().to_owned();
    if pickle.size() > MAX_PICKLE {
        return Err(Error::too_large(path, format!("the size of {}", pickle.name), pickle.size(), MAX_PICKLE));
    }
    let by_name = archive.members.iter().map(|member| (member.name.clone(), member.clone())).collect();
    let mut source = ZipStorages { archive, by_name, folder, big_endian: false };
    source.read_byte_order()?;
    let bytes = source.archive.read_stored(&pickle)?;
    let (parsed, _) = parse(path, &pickle.name, &bytes, 0)?;
    let found = find::find_tensors(path, &parsed)?;
    let arrays = read_arrays(path, &found.tensors, length, &mut source)?;
    Ok(Contents { arrays, metadata: found.metadata, notes: found.notes, unknown: found.unknown })
}

fn is_pickle(name: &str) -> bool {
    let mut parts = name.split('/');
    matches!(
        (parts.next(), parts.next(), parts.next()),
        (Some(_), Some("data.pkl"), None) | (Some("data.pkl"), None, None)
    )
}

/// The members of the archive.
struct ZipStorages<'a, R> {
    archive: Archive<'a, R>,
    by_name: HashMap<String, Member>,
    folder: String,
    big_endian: bool,
}

impl<R: ReadSeek> ZipStorages<'_, R> {
    fn read_byte_order(&mut self) -> Result<()> {
        let Some(member) = self.by_name.get(&format!("{}byteorder", self.folder)).cloned() else { return Ok(()) };
        if member.size() > 16 {
            return Err(Error::too_large(
                self.archive.path(),
                format!("the size of {}", member.name),
                member.size(),
                16,
            ));
        }
        self.big_endian = match self.archive.read_stored(&member)?.trim_ascii() {
            b"little" => false,
            b"big" => true,
            other => {
                let why = format!("the byte order is `{}`, known are little and big", String::from_utf8_lossy(other));
                return Err(Error::malformed(self.archive.path(), member.name, why));
            }
        };
        Ok(())
    }
}

impl<R: ReadSeek> Storages for ZipStorages<'_, R> {
    fn read(&mut self, storage: &StorageRef, array: &str) -> Result<Vec<u8>> {
        let name = format!("{}data/{}", self.folder, storage.key);
        let path = self.archive.path();
        let Some(member) = self.by_name.get(&name) else {
            return Err(Error::array(path, array, format!("its storage {name} is not in the archive")));
        };
        if member.size() != storage.bytes {
            let (declared, has) = (storage.bytes, member.size());
            return Err(Error::array(path, array, format!("its storage {name} has {has} bytes, not {declared}")));
        }
        self.archive.read_stored(member)
    }

    fn big_endian(&self) -> bool {
        self.big_endian
    }
}
