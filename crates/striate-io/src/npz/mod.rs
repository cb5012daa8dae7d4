//! NumPy's `.npz`: a zip archive of `.npy` files.

mod write;

use crate::error::printable;
use crate::input::ReadSeek;
use crate::zip::Archive;
use crate::{Error, Result, input, parse_npy};
use std::collections::BTreeMap;
use std::path::Path;
use striate_graph::Array;

pub use write::write_npz;

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
