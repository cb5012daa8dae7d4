//! Files that are there whole or not at all.
//!
//! A new file is written beside its goal, synced, renamed over it, and the folder is synced. Whoever looks sees the old
//! file or the new one, never a part, also after a kill or a loss of power at any moment. A failure removes the
//! temporary file and leaves the old one as it was.

use crate::{Error, Result};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes between two [`WriteEvent::Wrote`].
const BLOCK: usize = 64 * 1024;

/// A moment in the writing of a file, for observers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteEvent {
    /// The temporary file exists, empty.
    Created,
    /// So many bytes have been handed to the operating system; after each 64 KiB and at the end.
    Wrote(u64),
    /// All is written, nothing is synced.
    BeforeSync,
    /// The temporary file is on the disk.
    AfterSync,
    /// Right before the rename.
    BeforeRename,
    /// The file has its name.
    AfterRename,
    /// Right before the folder is synced.
    BeforeFolderSync,
    /// The file is there for good.
    AfterFolderSync,
}

impl fmt::Display for WriteEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteEvent::Created => f.write_str("created"),
            WriteEvent::Wrote(bytes) => write!(f, "wrote-{bytes}"),
            WriteEvent::BeforeSync => f.write_str("before-sync"),
            WriteEvent::AfterSync => f.write_str("after-sync"),
            WriteEvent::BeforeRename => f.write_str("before-rename"),
            WriteEvent::AfterRename => f.write_str("after-rename"),
            WriteEvent::BeforeFolderSync => f.write_str("before-folder-sync"),
            WriteEvent::AfterFolderSync => f.write_str("after-folder-sync"),
        }
    }
}

/// Called at each [`WriteEvent`]. Tests abort the process there, or return an error as the operating system might.
pub type WriteObserver<'a> = &'a mut dyn FnMut(WriteEvent) -> io::Result<()>;

/// Where the contents go; an [`io::Write`] that counts and tells its observer.
pub struct AtomicWriter<'a> {
    file: File,
    observer: WriteObserver<'a>,
    pending: Vec<u8>,
    written: u64,
}

impl AtomicWriter<'_> {
    fn write_pending(&mut self) -> io::Result<()> {
        self.file.write_all(&self.pending)?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        (self.observer)(WriteEvent::Wrote(self.written))
    }
}

impl Write for AtomicWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.pending.len());
        self.pending.extend_from_slice(&bytes[..taken]);
        if self.pending.len() == BLOCK {
            self.write_pending()?;
        }
        Ok(taken)
    }

    /// Nothing: the blocks keep their size, and the sync at the end is what counts.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes `bytes` to `path`, whole or not at all. One writer a path at a time.
///
/// # Errors
/// [`Error::DiskFull`] or [`Error::Io`]; what stood at `path` before is then untouched.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("metrics.json");
/// striate_io::write_atomic(&path, b"{}")?;
/// assert_eq!(std::fs::read(&path)?, b"{}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, &mut |_| Ok(()), |writer| writer.write_all(bytes))
}

/// Writes what `body` writes to `path`, whole or not at all, and tells `observer` of each step.
///
/// # Errors
/// Those of `body` and of the observer too, as [`Error::DiskFull`] or [`Error::Io`]; what stood at `path` before is then
/// untouched, unless only the sync of the folder failed.
pub fn write_atomic_with(
    path: &Path,
    observer: WriteObserver<'_>,
    body: impl FnOnce(&mut AtomicWriter<'_>) -> io::Result<()>,
) -> Result<()> {
    let temporary = temporary_path(path)?;
    let file = File::create(&temporary).map_err(|e| failure(path, "create", 0, e))?;
    let mut writer = AtomicWriter { file, observer, pending: Vec::with_capacity(BLOCK), written: 0 };
    let done = run_steps(path, &temporary, &mut writer, body);
    if done.is_err() {
        // After the rename there is nothing to remove; the error that counts is the first.
        let _ = std::fs::remove_file(&temporary);
    }
    done
}

fn run_steps(
    path: &Path,
    temporary: &Path,
    writer: &mut AtomicWriter<'_>,
    body: impl FnOnce(&mut AtomicWriter<'_>) -> io::Result<()>,
) -> Result<()> {
    let mut action = "write";
    let steps = || -> io::Result<()> {
        (writer.observer)(WriteEvent::Created)?;
        body(writer)?;
        if !writer.pending.is_empty() {
            writer.write_pending()?;
        }
        action = "sync";
        (writer.observer)(WriteEvent::BeforeSync)?;
        writer.file.sync_all()?;
        (writer.observer)(WriteEvent::AfterSync)?;
        action = "rename the temporary file to it";
        (writer.observer)(WriteEvent::BeforeRename)?;
        std::fs::rename(temporary, path)?;
        (writer.observer)(WriteEvent::AfterRename)?;
        action = "sync the folder of";
        (writer.observer)(WriteEvent::BeforeFolderSync)?;
        sync_folder(folder_of(path))?;
        (writer.observer)(WriteEvent::AfterFolderSync)
    };
    steps().map_err(|e| failure(path, action, writer.written, e))
}

fn failure(path: &Path, action: &'static str, written: u64, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::DiskFull { path: path.into(), written, source }
        }
        _ => Error::Io { path: path.into(), action, source },
    }
}

/// `.NAME.tmp` beside `path`: a fixed name, so that what a kill leaves behind is overwritten by the next attempt.
fn temporary_path(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(Error::NotAFile { path: path.into() });
    };
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(".tmp");
    Ok(path.with_file_name(temporary))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes the names in a folder durable. Only Unix can open a folder for that.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(size: usize) -> Vec<u8> {
        (0..size).map(|i| (i * 7 % 251) as u8).collect()
    }

    #[test]
    fn events_come_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut events = Vec::new();
        let bytes = contents(2 * BLOCK + 5);
        let observer = &mut |event| {
            events.push(event);
            Ok(())
        };
        write_atomic_with(&path, observer, |w| w.write_all(&bytes)).unwrap();
        use WriteEvent::*;
        let block = BLOCK as u64;
        let wrote = [Created, Wrote(block), Wrote(2 * block), Wrote(2 * block + 5)];
        let rest = [BeforeSync, AfterSync, BeforeRename, AfterRename, BeforeFolderSync, AfterFolderSync];
        assert_eq!(events, [&wrote[..], &rest[..]].concat());
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn a_failure_at_any_step_leaves_the_old_file_or_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for step in 0.. {
            write_atomic(&path, b"old").unwrap();
            let mut count = 0;
            let mut failed_at = None;
            let done = write_atomic_with(
                &path,
                &mut |event| {
                    count += 1;
                    if count > step && failed_at.is_none() {
                        failed_at = Some(event);
                        return Err(io::ErrorKind::StorageFull.into());
                    }
                    Ok(())
                },
                |w| w.write_all(&contents(BLOCK + 1)),
            );
            let Some(event) = failed_at else {
                assert!(done.is_ok());
                break;
            };
            assert!(matches!(done, Err(Error::DiskFull { .. })), "{event}: {done:?}");
            let renamed =
                matches!(event, WriteEvent::AfterRename | WriteEvent::BeforeFolderSync | WriteEvent::AfterFolderSync);
            let expected = if renamed { contents(BLOCK + 1) } else { b"old".to_vec() };
            assert_eq!(std::fs::read(&path).unwrap(), expected, "{event}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{event}: a temporary file is left");
        }
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = write_atomic(Path::new("/no/such/folder/a"), b"").unwrap_err();
        assert!(error.is_io() && error.to_string().contains("/no/such/folder/a: cannot create"), "{error}");
    }
}
