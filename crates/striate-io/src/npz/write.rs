//! Writing `.npz`.

use crate::error::printable;
use crate::zip::{ArchiveWriter, leads_out};
use crate::{Error, Result, atomic, npy, npy_bytes};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use striate_graph::Array;

/// Writes a `.npz` file, uncompressed, whole or not at all. The bytes are a function of names and arrays; keys are sorted.
///
/// # Errors
/// bfloat16, which NumPy does not have; a name that occurs twice, or that would lead out of the archive; what the disk says.
pub fn write_npz<S: Into<String>>(path: &Path, arrays: impl IntoIterator<Item = (S, Array)>) -> Result<()> {
    let mut members = BTreeMap::new();
    for (key, array) in arrays {
        let key = key.into();
        // what cannot be written is found before the file is begun
        npy::header(&path.join(printable(&key)), &array)?;
        if leads_out(&format!("{key}.npy")) {
            let why = "an archive's member cannot have this name; give the array another, or write .safetensors";
            return Err(Error::array(path, &key, why));
        }
        if members.insert(key.clone(), array).is_some() {
            return Err(Error::array(path, &key, "the name occurs twice"));
        }
    }
    atomic::write_atomic_with(path, &mut |_| Ok(()), |writer| {
        let mut archive = ArchiveWriter::new(path, writer);
        for (key, array) in &members {
            let bytes = npy_bytes(path, array).map_err(io::Error::other)?;
            archive.add(&format!("{key}.npy"), &bytes)?;
        }
        archive.finish()
    })
}
