//! Writing checkpoints.

use super::{ALIGNMENT, Checkpoint, END, FOOTER, MAGIC, VERSION, checkpoint_path, list, padding};
use crate::atomic::{self, WriteObserver};
use crate::{Error, Result, bytes};
use crc32fast::Hasher;
use serde_json::json;
use std::io::{self, Write};
use std::path::Path;

const ZEROS: [u8; ALIGNMENT as usize] = [0; ALIGNMENT as usize];
/// How many checkpoints a folder keeps.
const KEPT: usize = 2;
/// Writes the checkpoint of a step into `folder` (made if it is not there), and keeps the last two.
///
/// The file is complete on the disk before it gets its name, and older ones go only after that. Checkpoints of later
/// steps go too: they belong to a run that was taken back.
///
/// # Errors
/// [`Error::DiskFull`] or [`Error::Io`]; the last good checkpoint is then still there.
///
/// ```
/// use striate_graph::Array;
/// use striate_io::{Checkpoint, read_latest, write_checkpoint};
/// let folder = tempfile::tempdir()?;
/// let mut checkpoint = Checkpoint { counters: serde_json::json!({"epoch": 3}), ..Checkpoint::default() };
/// checkpoint.arrays.insert("fc.bias".into(), Array::from_vec([2], vec![0.5f32, -1.0])?);
/// write_checkpoint(folder.path(), 1200, &checkpoint)?;
/// let latest = read_latest(folder.path())?.expect("one was written");
/// assert_eq!((latest.step, &latest.checkpoint.counters["epoch"]), (1200, &serde_json::json!(3)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_checkpoint(folder: &Path, step: u64, checkpoint: &Checkpoint) -> Result<()> {
    write_checkpoint_with(folder, step, checkpoint, &mut |_| Ok(()))
}

/// As [`write_checkpoint`], and tells `observer` of each step of the writing.
///
/// # Errors
/// Those of [`write_checkpoint`] and of the observer.
pub fn write_checkpoint_with(
    folder: &Path,
    step: u64,
    checkpoint: &Checkpoint,
    observer: WriteObserver<'_>,
) -> Result<()> {
    make_folder(folder)?;
    let path = checkpoint_path(folder, step);
    let header = header(step, checkpoint);
    atomic::write_atomic_with(&path, observer, |writer| write(writer, &header, checkpoint))?;
    // A file that cannot be removed takes room and nothing else; the next write tries again.
    let (later, kept): (Vec<_>, Vec<_>) = list(folder)?.into_iter().partition(|(s, _)| *s > step);
    for (_, path) in later.into_iter().chain(kept.into_iter().skip(KEPT)) {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Makes the folder, durably.
fn make_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(Error::io(folder, "create the folder"))?;
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            atomic::sync_folder(parent).map_err(Error::io(parent, "sync the folder"))
        }
        _ => Ok(()),
    }
}

fn header(step: u64, checkpoint: &Checkpoint) -> Vec<u8> {
    let mut offset = 0;
    let mut entries = Vec::with_capacity(checkpoint.arrays.len());
    for (name, array) in &checkpoint.arrays {
        let mut crc = Hasher::new();
        let Ok(()) = bytes::encode(array, |part| {
            crc.update(part);
            Ok::<(), std::convert::Infallible>(())
        });
        let (shape, length) = (array.shape().dims(), bytes::byte_len(array));
        entries.push(json!({"name": name, "dtype": array.dtype().torch_name(), "shape": shape, "offset": offset,
            "bytes": length, "crc32": crc.finalize()}));
        offset += length + padding(length);
    }
    let header = json!({"step": step, "counters": checkpoint.counters, "arrays": entries});
    header.to_string().into_bytes()
}

/// Passes on what is written, and sums it up.
struct Summing<'a, W> {
    writer: &'a mut W,
    crc: Hasher,
    length: u64,
}

impl<W: Write> Summing<'_, W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.update(bytes);
        self.length += bytes.len() as u64;
        self.writer.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        self.put(&ZEROS[..padding(self.length) as usize])
    }
}

fn write(writer: &mut impl Write, header: &[u8], checkpoint: &Checkpoint) -> io::Result<()> {
    let mut out = Summing { writer, crc: Hasher::new(), length: 0 };
    out.put(MAGIC)?;
    out.put(&VERSION.to_le_bytes())?;
    out.put(&crc32fast::hash(header).to_le_bytes())?;
    out.put(&(header.len() as u64).to_le_bytes())?;
    out.put(header)?;
    out.pad()?;
    for array in checkpoint.arrays.values() {
        bytes::encode(array, |part| out.put(part))?;
        out.pad()?;
    }
    let total = out.length + FOOTER;
    out.put(&total.to_le_bytes())?;
    let crc = out.crc.finalize();
    out.writer.write_all(&crc.to_le_bytes())?;
    out.writer.write_all(END)
}
