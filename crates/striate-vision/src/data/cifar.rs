//! The binary version of CIFAR-10 and CIFAR-100 (Krizhevsky, "Learning multiple layers of features from tiny images", 2009):
//! records of 1 label byte (CIFAR-100: coarse and fine) and 3072 bytes [3, 32, 32].

use super::dataset::MemoryDataset;
use super::error::{DataError, Result};
use super::idx::{MemoryParts, read_class_names};
use super::names;
use std::io::Read;
use std::path::{Path, PathBuf};

const SIDE: usize = 32;
const PIXELS: usize = SIDE * SIDE;
/// Most bytes that one file may have; the real ones have 31 to 154 million.
const MAX_FILE: u64 = 1 << 30;

/// The CIFAR files of a folder.
#[derive(Debug)]
pub(crate) struct CifarFiles {
    folder: PathBuf,
    train: Vec<PathBuf>,
    test: Vec<PathBuf>,
    /// 10 or 100
    pub classes: usize,
}

/// Looks for the files in a sorted list; `None` if there are none.
pub(crate) fn find_cifar(folder: &Path, files: &[PathBuf]) -> Option<CifarFiles> {
    let named = |f: &PathBuf, test: &dyn Fn(&str) -> bool| {
        f.file_name().and_then(|n| n.to_str()).is_some_and(|n| test(&n.to_lowercase()))
    };
    let pick = |test: &dyn Fn(&str) -> bool| files.iter().filter(|f| named(f, test)).cloned().collect::<Vec<_>>();
    let found = |train, test, classes| CifarFiles { folder: folder.to_path_buf(), train, test, classes };
    let train = pick(&|n| n.starts_with("data_batch") && n.ends_with(".bin"));
    let test = pick(&|n| n == "test_batch.bin");
    if !train.is_empty() || !test.is_empty() {
        return Some(found(train, test, 10));
    }
    let (train, test) = (pick(&|n| n == "train.bin"), pick(&|n| n == "test.bin"));
    (!train.is_empty() || !test.is_empty()).then(|| found(train, test, 100))
}

/// Reads the parts.
pub(crate) fn load_cifar(files: &CifarFiles) -> Result<MemoryParts> {
    let meta = if files.classes == 10 { "batches.meta.txt" } else { "fine_label_names.txt" };
    let meta = files.folder.join(meta);
    let class_names = match read_class_names(&meta)? {
        Some(names) if names.len() == files.classes => names,
        Some(names) => {
            let what = format!("it has {} class names, but the format has {} classes", names.len(), files.classes);
            return Err(DataError::ClassNames { file: meta, what });
        }
        None if files.classes == 10 => names::CIFAR10.map(String::from).to_vec(),
        None => (0..100).map(|c| c.to_string()).collect(),
    };
    let part = |list: &[PathBuf]| -> Result<Option<MemoryDataset>> {
        if list.is_empty() {
            return Ok(None);
        }
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for file in list {
            read_records(file, files.classes, &mut pixels, &mut labels)?;
        }
        let source = if list.len() == 1 { &list[0] } else { &files.folder };
        let source = source.display().to_string();
        MemoryDataset::new([SIDE, SIDE, 3], pixels, labels, class_names.clone(), source).map(Some)
    };
    Ok(MemoryParts { train: part(&files.train)?, val: None, test: part(&files.test)? })
}

/// Appends the pictures as [H, W, C] and the labels (of CIFAR-100 the fine ones).
fn read_records(path: &Path, classes: usize, pixels: &mut Vec<u8>, labels: &mut Vec<u8>) -> Result<()> {
    let label_bytes = if classes == 10 { 1 } else { 2 };
    let record = label_bytes + 3 * PIXELS;
    let file = std::fs::File::open(path).map_err(|e| DataError::io(path, e))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| DataError::io(path, e))?;
    if bytes.is_empty() || !bytes.len().is_multiple_of(record) || bytes.len() as u64 > MAX_FILE {
        let whole = (bytes.len() / record).max(1);
        return Err(DataError::Length {
            file: path.to_path_buf(),
            declared: format!("records of {record} bytes"),
            expected: (whole * record) as u64,
            found: bytes.len().to_string(),
            advice: "It is cut short or not a CIFAR binary: get it again",
        });
    }
    pixels.reserve(bytes.len() / record * 3 * PIXELS);
    for (index, entry) in bytes.chunks_exact(record).enumerate() {
        let label = entry[label_bytes - 1];
        if usize::from(label) >= classes {
            let why = format!("CIFAR-{classes} has labels 0 to {}", classes - 1);
            return Err(DataError::LabelRange { file: path.to_path_buf(), index, label: label.into(), why });
        }
        labels.push(label);
        let planes = &entry[label_bytes..];
        for i in 0..PIXELS {
            pixels.extend_from_slice(&[planes[i], planes[PIXELS + i], planes[2 * PIXELS + i]]);
        }
    }
    Ok(())
}
