//! Weights, whatever the file: one function for every format that holds named arrays.

use crate::error::printable;
use crate::input::{self, Input, ReadSeek};
use crate::onnx::proto::ModelProto;
use crate::onnx::{self, ExternalData};
use crate::zip::Archive;
use crate::{Error, Result, checkpoint, npy, npz, pth, safetensors};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Cursor;
use std::path::Path;
use striate_nn::StateDict;

/// The formats that are told apart, by content and never by a file's ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileFormat {
    /// Hugging Face's safetensors.
    Safetensors,
    /// NumPy's single array.
    Npy,
    /// NumPy's zip of arrays.
    Npz,
    /// PyTorch's zip or, before 1.6, its row of pickles.
    Pth,
    /// An ONNX model: a graph with its initializers.
    Onnx,
    /// A checkpoint of striate's trainer.
    Checkpoint,
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileFormat::Safetensors => "safetensors",
            FileFormat::Npy => "npy",
            FileFormat::Npz => "npz",
            FileFormat::Pth => "pth",
            FileFormat::Onnx => "onnx",
            FileFormat::Checkpoint => "checkpoint",
        })
    }
}

/// What a file of weights holds.
#[derive(Clone, Debug)]
pub struct Weights {
    /// What the file is.
    pub format: FileFormat,
    /// The arrays, in the file's order where it has one, else by name.
    pub arrays: StateDict,
    /// Free strings by key; empty where the format has none.
    pub metadata: BTreeMap<String, String>,
    /// What a user should know: where the arrays were found, what was left out. A sentence each.
    pub notes: Vec<String>,
    /// Entries of a pickle that are of classes unknown here: where each stands, and its class. At most 256 are named.
    pub unknown: Vec<(String, String)>,
}

/// What a file is, by its first bytes.
///
/// # Errors
/// A file that cannot be read, or that is none of these; well-known others are called by their names.
pub fn detect_format(path: &Path) -> Result<FileFormat> {
    Ok(detect(input::open(path)?)?.0)
}

/// Reads every array of a file, whatever its format: safetensors, PyTorch's .pth in its zip and its older layout, npz, npy (its one
/// array is called `array`), the initializers of an ONNX model, a checkpoint of striate. Of a checkpoint of PyTorch's it takes the
/// state dict, whatever else lies in it, and says so in the notes. A `.pth` is read as data: nothing that it names is ever called.
///
/// # Errors
/// Names the file and the entry at fault: a format that holds no arrays, and all that the format's own reader refuses.
///
/// ```
/// use striate_graph::Array;
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("weights.bin");
/// striate_io::write_npz(&path, [("fc.bias", Array::from_vec([2], vec![0.5f32, -1.0])?)])?;
/// let weights = striate_io::read_weights(&path)?;
/// assert_eq!(weights.format, striate_io::FileFormat::Npz);
/// assert_eq!(weights.arrays["fc.bias"].shape().dims(), [2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_weights(path: &Path) -> Result<Weights> {
    read(input::open(path)?, &ExternalData::beside(path))
}

/// Reads every array of a file in memory, as [`read_weights`]; `name` stands for the file in errors. Data of an ONNX model that lie beside
/// it cannot be had.
///
/// # Errors
/// As [`read_weights`].
pub fn parse_weights(bytes: &[u8], name: &Path) -> Result<Weights> {
    let left = bytes.len() as u64;
    read(Input { path: name, reader: Cursor::new(bytes), left }, &ExternalData::none())
}

fn read<R: ReadSeek>(input: Input<'_, R>, external: &ExternalData) -> Result<Weights> {
    let path = input.path;
    let (format, source) = detect(input)?;
    let mut weights =
        Weights { format, arrays: StateDict::new(), metadata: BTreeMap::new(), notes: Vec::new(), unknown: Vec::new() };
    match (source, format) {
        (Source::Zip(archive), FileFormat::Npz) => weights.arrays = npz::read(archive)?.into_iter().collect(),
        (Source::Zip(archive), _) => weights.take_pth(pth::read_zip(archive)?),
        (Source::Plain(input), FileFormat::Safetensors) => {
            let file = safetensors::read(input)?;
            weights.arrays = file.arrays.into_iter().collect();
            weights.metadata = file.metadata;
        }
        (Source::Plain(input), FileFormat::Npy) => weights.arrays.insert("array", npy::read(input)?),
        (Source::Plain(input), FileFormat::Pth | FileFormat::Npz) => weights.take_pth(pth::read_legacy(input)?),
        (Source::Plain(input), FileFormat::Onnx) => weights.take_onnx(onnx::read_model(input)?, path, external)?,
        (Source::Plain(input), FileFormat::Checkpoint) => {
            let (step, checkpoint) = checkpoint::read(input)?;
            weights.arrays = checkpoint.arrays.into_iter().collect();
            weights.notes.push(format!("a checkpoint of striate's trainer, of step {step}"));
        }
    }
    Ok(weights)
}

impl Weights {
    fn take_pth(&mut self, file: pth::Contents) {
        (self.arrays, self.metadata) = (file.arrays, file.metadata);
        (self.notes, self.unknown) = (file.notes, file.unknown);
    }

    fn take_onnx(&mut self, model: ModelProto, path: &Path, external: &ExternalData) -> Result<()> {
        let graph = model.graph.unwrap_or_default();
        for (name, array) in onnx::read_arrays(&graph, path, external)? {
            if name.is_empty() || self.arrays.contains(&name) {
                let why =
                    if name.is_empty() { "an initializer without a name" } else { "two initializers have this name" };
                return Err(Error::array(path, &name, why));
            }
            self.arrays.insert(name, array);
        }
        for entry in model.metadata_props {
            let key = printable(&entry.key);
            if self.metadata.insert(entry.key, entry.value).is_some() {
                return Err(Error::malformed(path, "ONNX", format!("two entries of metadata_props are named `{key}`")));
            }
        }
        if self.arrays.is_empty() {
            return Err(Error::malformed(path, "ONNX", "the model has no initializers, so there are no weights in it"));
        }
        self.notes.push("the arrays are the initializers of an ONNX model".to_owned());
        Ok(())
    }
}

/// First bytes of files that are no weights, with their names.
const OTHERS: [(&[u8], &str); 10] = [
    (b"\x89HDF\r\n\x1a\n", "HDF5 (Keras, old TensorFlow)"),
    (b"\x1f\x8b", "gzip; unpack it first"),
    (b"\xfd7zXZ", "xz; unpack it first"),
    (b"BZh", "bzip2; unpack it first"),
    (b"(\xb5/\xfd", "zstd; unpack it first"),
    (b"GGUF", "GGUF (llama.cpp)"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x7fELF", "a program"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
];

/// A file whose format is known, at its first byte.
enum Source<'a, R> {
    Zip(Archive<'a, R>),
    Plain(Input<'a, R>),
}

fn detect<R: ReadSeek>(mut input: Input<'_, R>) -> Result<(FileFormat, Source<'_, R>)> {
    let path = input.path;
    let length = input.left;
    let mut head = [0; 512];
    let mut read = 0;
    while read < head.len() {
        match input.reader.read(&mut head[read..]).map_err(Error::io(path, "read"))? {
            0 => break,
            n => read += n,
        }
    }
    input.reader.rewind().map_err(Error::io(path, "read"))?;
    let head = &head[..read];
    let unknown = |why: &str| Err(Error::malformed(path, "weights", why));
    if head.is_empty() {
        return unknown("the file is empty");
    }
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        let archive = Archive::open(input)?;
        let format = zip_format(path, archive.members.iter().map(|member| member.name.as_str()))?;
        return Ok((format, Source::Zip(archive)));
    }
    let format = match head {
        _ if head.starts_with(b"\x93NUMPY") => FileFormat::Npy,
        _ if head.starts_with(checkpoint::MAGIC) => FileFormat::Checkpoint,
        [0x80, 0..=5, ..] => FileFormat::Pth,
        // the length of a JSON header, and its brace
        [_, _, _, _, _, _, _, 0, b'{', ..] => FileFormat::Safetensors,
        _ if head.get(257..262) == Some(b"ustar") => {
            return unknown("a tar archive, as PyTorch wrote before 2017; load it in PyTorch and save it again");
        }
        // field 1 of a ModelProto, the version of the intermediate representation
        [0x08, 1..=31, 0x12 | 0x1a | 0x22 | 0x2a | 0x3a | 0x42, ..] => FileFormat::Onnx,
        _ => match OTHERS.iter().find(|(magic, _)| head.starts_with(magic)) {
            Some((_, name)) => {
                return unknown(&format!("this is {name}; weights are .safetensors, .pth, .npz or .npy"));
            }
            None if length < 8 => return unknown(&format!("a file of {length} bytes is no weights file")),
            // a length that is possible, so a header that begins wrong
            None if u64::from_le_bytes(head[..8].try_into().expect("8 bytes")) <= length => FileFormat::Safetensors,
            None => return unknown("these are not the first bytes of a .safetensors, .pth, .npz, .npy or .onnx file"),
        },
    };
    Ok((format, Source::Plain(input)))
}

/// Which of the formats that are zip archives.
fn zip_format<'a>(path: &Path, names: impl Iterator<Item = &'a str> + Clone) -> Result<FileFormat> {
    let has = |ending: &str| names.clone().any(|name| name == ending || name.ends_with(&format!("/{ending}")));
    if has("constants.pkl") {
        let what = "TorchScript (a program that torch.jit.save wrote)";
        return Err(Error::unsupported(
            path,
            what,
            "save the state dict: torch.save(model.state_dict(), \"weights.pth\")",
        ));
    }
    if has("data.pkl") {
        return Ok(FileFormat::Pth);
    }
    match names.clone().find(|name| !name.ends_with(".npy")) {
        Some(other) => {
            let why = format!("it has neither data.pkl, as PyTorch's files have, nor only .npy members ({other})");
            Err(Error::malformed(path, "zip", why))
        }
        None => Ok(FileFormat::Npz),
    }
}
