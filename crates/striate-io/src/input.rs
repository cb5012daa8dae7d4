//! Reading from files that may lie about their sizes.

use crate::{Error, Result};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

/// What can be read and searched: an open file, or bytes in memory.
pub(crate) trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

/// A source of known length. Nothing is allocated for bytes that are not there.
pub(crate) struct Input<'a, R> {
    /// For messages.
    pub path: &'a Path,
    pub reader: R,
    /// Bytes not yet read.
    pub left: u64,
}

/// Opens a regular file; anything else (a pipe would block for ever) is refused.
pub(crate) fn open(path: &Path) -> Result<Input<'_, File>> {
    let metadata = std::fs::metadata(path).map_err(Error::io(path, "open"))?;
    if !metadata.is_file() {
        return Err(Error::NotAFile { path: path.into() });
    }
    let reader = File::open(path).map_err(Error::io(path, "open"))?;
    let left = reader.metadata().map_err(Error::io(path, "open"))?.len();
    Ok(Input { path, reader, left })
}

impl<R: Read> Input<'_, R> {
    /// The next `length` bytes; `what` names them in the error if the file is shorter.
    pub(crate) fn take(&mut self, length: u64, what: &str) -> Result<Vec<u8>> {
        if length > self.left {
            return Err(Error::truncated(self.path, what, length, self.left));
        }
        let mut bytes = Vec::new();
        let reserved = usize::try_from(length).map(|length| bytes.try_reserve_exact(length));
        if !matches!(reserved, Ok(Ok(()))) {
            return Err(Error::io(self.path, "read")(std::io::ErrorKind::OutOfMemory.into()));
        }
        self.reader.by_ref().take(length).read_to_end(&mut bytes).map_err(Error::io(self.path, "read"))?;
        if bytes.len() as u64 != length {
            return Err(Error::truncated(self.path, what, length, bytes.len() as u64));
        }
        self.left -= length;
        Ok(bytes)
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let bytes = self.take(N as u64, what)?;
        Ok(bytes.try_into().expect("take returns the length asked for"))
    }
}
