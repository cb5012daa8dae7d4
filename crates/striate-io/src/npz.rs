//! NumPy's `.npz`: a zip archive of `.npy` files.

use crate::error::printable;
use crate::input::ReadSeek;
use crate::zip::{Archive, ArchiveWriter, leads_out};
use crate::{Error, Result, atomic, input, npy, npy_bytes, parse_npy};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use striate_graph::Array;

/// Reads a `.npz` file, as `numpy.savez` and `numpy.savez_compressed` write it; keys are without `.npy`.
///
/// # Errors
/// Names the file and the member: damaged or encrypted archives, and all that [`read_npy`](crate::read_npy) refuses.
///
/// ```
/// use striate_graph::Array;
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("xy.npz");
/// striate_io::write_npz(&path, [("x", Array::scalar(1.0f32)), ("y", Array::scalar(2u8))])?;
/// assert_eq!(striate_io::read_npz(&path)?["y"].as_slice::<u8>(), Some(&[2][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_npz(path: &Path) -> Result<BTreeMap<String, Array>> {
    read(Archive::open(input::open(path)?)?)
}

pub(crate) fn read<R: ReadSeek>(mut archive: Archive<'_, R>) -> Result<BTreeMap<String, Array>> {
    let path = archive.path();
    let mut arrays = BTreeMap::new();
    for member in archive.members.clone() {
        let bytes = archive.read(&member)?;
        let array = parse_npy(&bytes, &path.join(printable(&member.name)))?;
        let key = member.name.strip_suffix(".npy").unwrap_or(&member.name);
        if arrays.insert(key.to_string(), array).is_some() {
            return Err(Error::array(path, key, "the archive has two members of this name"));
        }
    }
    Ok(arrays)
}

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
