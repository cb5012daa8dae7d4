//! A state dict as PyTorch saves it: the zip layout, its pickle an `OrderedDict` of tensors.

use super::find::METADATA;
use crate::zip::ArchiveWriter;
use crate::{Error, Result, atomic, bytes};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;
use striate_graph::{Array, Buffer, DType};

/// The folder inside of the archive. PyTorch takes the file's name, but then a copy under another name would be another file.
const FOLDER: &str = "archive";
/// Where the data of a storage begin, as PyTorch has it since 2.6, so that they can be mapped.
const ALIGNMENT: u64 = 64;

/// Writes a state dict as a `.pth` file, whole or not at all: what `torch.load(path, weights_only=True)` gives is an `OrderedDict` of
/// tensors on the CPU, in this order. Arrays that share their data are tied there too. Metadata become a `dict` of strings under the
/// attribute `striate` of the `OrderedDict`, where [`read_weights`](crate::read_weights) finds them. The bytes are a function of names,
/// arrays and metadata.
///
/// # Errors
/// A name that occurs twice; what the disk says.
///
/// ```
/// use striate_graph::Array;
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("weights.pth");
/// striate_io::write_pth(&path, [("fc.bias", Array::from_vec([2], vec![0.5f32, -1.0])?)], &Default::default())?;
/// let weights = striate_io::read_weights(&path)?;
/// assert_eq!(weights.arrays["fc.bias"].as_slice::<f32>(), Some(&[0.5, -1.0][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_pth<S: Into<String>>(
    path: &Path,
    arrays: impl IntoIterator<Item = (S, Array)>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let arrays: Vec<(String, Array)> = arrays.into_iter().map(|(name, array)| (name.into(), array)).collect();
    let mut names = HashSet::new();
    for (name, _) in &arrays {
        if !names.insert(name) {
            return Err(Error::array(path, name, "the name occurs twice"));
        }
    }
    let (storages, of) = storages(&arrays);
    let pickle = pickle(&arrays, &of, metadata);
    atomic::write_atomic_with(path, &mut |_| Ok(()), |writer| {
        let mut archive = ArchiveWriter::new(path, writer);
        archive.add(&format!("{FOLDER}/data.pkl"), &pickle)?;
        archive.add(&format!("{FOLDER}/byteorder"), b"little")?;
        for (key, array) in storages.iter().enumerate() {
            let mut data = Vec::with_capacity(bytes::byte_len(array) as usize);
            bytes::encode(array, |part| {
                data.extend_from_slice(part);
                io::Result::Ok(())
            })?;
            archive.add_aligned(&format!("{FOLDER}/data/{key}"), &data, ALIGNMENT)?;
        }
        archive.add(&format!("{FOLDER}/version"), b"3\n")?;
        archive.finish()
    })
}

/// The different storages, and which of them each array lies in.
fn storages(arrays: &[(String, Array)]) -> (Vec<&Array>, Vec<usize>) {
    let mut storages: Vec<&Array> = Vec::new();
    let mut known: HashMap<*const Buffer, usize> = HashMap::new();
    let of = arrays.iter().map(|(_, array)| {
        *known.entry(array.buffer()).or_insert_with(|| {
            storages.push(array);
            storages.len() - 1
        })
    });
    let of = of.collect();
    (storages, of)
}

fn storage_class(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "FloatStorage",
        DType::F64 => "DoubleStorage",
        DType::F16 => "HalfStorage",
        DType::BF16 => "BFloat16Storage",
        DType::I8 => "CharStorage",
        DType::I16 => "ShortStorage",
        DType::I32 => "IntStorage",
        DType::I64 => "LongStorage",
        DType::U8 => "ByteStorage",
        DType::Bool => "BoolStorage",
    }
}

/// The pickle of the dict, protocol 2, of nothing but what a loader of weights accepts.
fn pickle(arrays: &[(String, Array)], storage_of: &[usize], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Pickler(b"\x80\x02".to_vec());
    out.ordered_dict();
    out.0.push(b'(');
    for ((name, array), key) in arrays.iter().zip(storage_of) {
        out.text(name);
        out.global("torch._utils", "_rebuild_tensor_v2");
        out.0.extend(b"((");
        out.text("storage");
        out.global("torch", storage_class(array.dtype()));
        out.text(&key.to_string());
        out.text("cpu");
        out.int(array.numel());
        // the reference to the storage; the tensor begins at its first element
        out.0.extend(b"tQK\0");
        let dims = array.shape().dims();
        out.sizes(dims.iter().copied());
        // an axis of size 0 counts as one of size 1, as in PyTorch
        let strides = (0..dims.len()).map(|axis| dims[axis + 1..].iter().map(|&size| size.max(1)).product());
        out.sizes(strides);
        // no gradient, no hooks
        out.0.push(0x89);
        out.ordered_dict();
        out.0.extend(b"tR");
    }
    out.0.push(b'u');
    if !metadata.is_empty() {
        out.0.extend(b"}");
        out.text(METADATA);
        out.0.extend(b"}(");
        for (key, value) in metadata {
            out.text(key);
            out.text(value);
        }
        out.0.extend(b"usb");
    }
    out.0.push(b'.');
    out.0
}

struct Pickler(Vec<u8>);

impl Pickler {
    fn global(&mut self, module: &str, name: &str) {
        self.0.extend(format!("c{module}\n{name}\n").bytes());
    }

    fn ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.0.extend(b")R");
    }

    fn text(&mut self, text: &str) {
        self.0.push(b'X');
        // text of 4 GiB is none of a name, and no reader would take it
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.bytes());
    }

    fn int(&mut self, value: usize) {
        match i32::try_from(value) {
            Ok(small @ 0..=255) => self.0.extend([b'K', small as u8]),
            Ok(value) => {
                self.0.push(b'J');
                self.0.extend(value.to_le_bytes());
            }
            Err(_) => {
                self.0.extend([0x8a, 8]);
                self.0.extend((value as u64).to_le_bytes());
            }
        }
    }

    fn sizes(&mut self, sizes: impl Iterator<Item = usize>) {
        self.0.push(b'(');
        sizes.for_each(|size| self.int(size));
        self.0.push(b't');
    }
}
