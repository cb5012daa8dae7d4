//! IDX files, the format of MNIST: a magic number `00 00 08 D` (8: unsigned bytes, D: dimensions), D big-endian lengths, the bytes.

use super::dataset::MemoryDataset;
use super::error::{DataError, Result};
use super::names;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Most bytes that one file may unpack to.
const MAX_PAYLOAD: u64 = 1 << 32;
/// Longest side of a picture in a file.
const MAX_SIDE: u64 = 4096;
const ADVICE: &str = "The file is damaged or was cut short: get it again";

/// The unsigned bytes of an IDX file with their dimensions.
#[derive(Debug, PartialEq, Eq)]
pub struct IdxArray {
    /// Lengths, outermost first.
    pub shape: Vec<usize>,
    /// The bytes, row-major.
    pub data: Vec<u8>,
}

/// What an IDX file is expected to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdxKind {
    /// [N, H, W], or [N, H, W, C] with 1 or 3 channels.
    Images,
    /// `[N]`
    Labels,
}

/// Reads an IDX file, gzipped or not (which is seen from its first bytes).
///
/// # Errors
/// [`DataError::NotFound`], [`DataError::Io`], [`DataError::IdxMagic`], [`DataError::Header`], [`DataError::Length`].
pub fn read_idx_file(path: impl AsRef<Path>, kind: IdxKind) -> Result<IdxArray> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|e| DataError::io(path, e))?;
    read_idx(BufReader::with_capacity(1 << 16, file), path, kind)
}

/// As [`read_idx_file`] from any reader; `path` is for messages.
///
/// # Errors
/// As [`read_idx_file`].
pub fn read_idx(mut reader: impl BufRead, path: &Path, kind: IdxKind) -> Result<IdxArray> {
    let start = reader.fill_buf().map_err(|e| DataError::io(path, e))?;
    if start.starts_with(&[0x1F, 0x8B]) {
        read_plain(flate2::bufread::MultiGzDecoder::new(reader), path, kind)
    } else {
        read_plain(reader, path, kind)
    }
}

fn read_plain(mut reader: impl Read, path: &Path, kind: IdxKind) -> Result<IdxArray> {
    let (wanted, expected) = match kind {
        IdxKind::Images => ("pictures", 0x0000_0803),
        IdxKind::Labels => ("labels", 0x0000_0801),
    };
    let found = read_u32(&mut reader, path, "a magic number")?;
    if found != expected && !(kind == IdxKind::Images && found == 0x0000_0804) {
        return Err(DataError::IdxMagic { file: path.to_path_buf(), wanted, found, expected });
    }
    let rank = (found & 0xFF) as usize;
    let shape: Vec<u64> = (0..rank)
        .map(|_| read_u32(&mut reader, path, &format!("{rank} dimensions")).map(u64::from))
        .collect::<Result<_>>()?;
    check_shape(path, &shape)?;
    let expected: u64 = shape.iter().product();
    let mut data = Vec::new();
    // The header's word is not enough to allocate for: beyond 64 MiB the buffer grows as bytes really come.
    data.reserve_exact(expected.min(64 << 20) as usize + 1);
    reader.take(expected + 1).read_to_end(&mut data).map_err(|e| unpack_error(path, e))?;
    if data.len() as u64 != expected {
        let more = data.len() as u64 > expected;
        let found = if more { format!("more than {expected}") } else { data.len().to_string() };
        let declared = shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
        return Err(DataError::Length { file: path.to_path_buf(), declared, expected, found, advice: ADVICE });
    }
    Ok(IdxArray { shape: shape.into_iter().map(|d| d as usize).collect(), data })
}

fn check_shape(path: &Path, shape: &[u64]) -> Result<()> {
    let refuse = |what: String| Err(DataError::Header { file: path.to_path_buf(), what });
    let listed = shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
    let total = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
    if total.is_none_or(|n| n > MAX_PAYLOAD) {
        return refuse(format!("{listed} bytes; at most {MAX_PAYLOAD} are read"));
    }
    if shape[0] == 0 {
        return refuse("no sample at all (its first dimension is 0)".into());
    }
    if let [_, h, w, rest @ ..] = shape {
        if *h == 0 || *w == 0 || *h > MAX_SIDE || *w > MAX_SIDE {
            return refuse(format!("pictures of {h} rows and {w} columns; 1 to {MAX_SIDE} are read"));
        }
        if !matches!(rest, [] | [1] | [3]) {
            return refuse(format!("pictures of {listed}; the fourth dimension must be 1 or 3 channels"));
        }
    }
    Ok(())
}

fn read_u32(reader: &mut impl Read, path: &Path, declared: &str) -> Result<u32> {
    let mut bytes = [0u8; 4];
    let mut have = 0;
    while have < 4 {
        match reader.read(&mut bytes[have..]) {
            Ok(0) => {
                return Err(DataError::Length {
                    file: path.to_path_buf(),
                    declared: declared.to_string(),
                    expected: 4,
                    found: have.to_string(),
                    advice: ADVICE,
                });
            }
            Ok(n) => have += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(unpack_error(path, e)),
        }
    }
    Ok(u32::from_be_bytes(bytes))
}

/// A gzip stream that is cut or damaged is an error of the content.
fn unpack_error(path: &Path, error: std::io::Error) -> DataError {
    use std::io::ErrorKind::*;
    if matches!(error.kind(), UnexpectedEof | InvalidData | InvalidInput) {
        let what = format!("gzip, but its content does not unpack ({error}). {ADVICE}");
        return DataError::Header { file: path.to_path_buf(), what };
    }
    DataError::io(path, error)
}

/// The two files of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    images: PathBuf,
    labels: PathBuf,
}

/// The IDX files of a folder by part.
#[derive(Debug, Default)]
pub(crate) struct IdxFiles {
    train: Option<Pair>,
    val: Option<Pair>,
    test: Option<Pair>,
}

/// Reads what a file's name says: its part, and whether it has pictures.
fn read_name(path: &Path) -> Option<(&'static str, IdxKind, bool)> {
    let name = path.file_name()?.to_str()?.to_lowercase();
    let gz = name.ends_with(".gz");
    let kind = if name.contains("idx3-ubyte") || name.contains("idx4-ubyte") {
        IdxKind::Images
    } else if name.contains("idx1-ubyte") {
        IdxKind::Labels
    } else {
        return None;
    };
    let part = if name.contains("train") {
        "train"
    } else if name.contains("t10k") || name.contains("test") {
        "test"
    } else if name.contains("val") {
        "val"
    } else {
        return None;
    };
    Some((part, kind, gz))
}

/// Whether a single file is called as IDX files are.
pub(crate) fn is_idx_name(path: &Path) -> bool {
    read_name(path).is_some()
}

/// Looks for IDX files in a sorted list of files; `None` if there are none.
pub(crate) fn find_idx(files: &[PathBuf]) -> Result<Option<IdxFiles>> {
    let mut found = IdxFiles::default();
    let mut any = false;
    for part in ["train", "val", "test"] {
        let images = one_file(files, part, IdxKind::Images)?;
        let labels = one_file(files, part, IdxKind::Labels)?;
        let pair = match (images, labels) {
            (None, None) => continue,
            (Some(images), Some(labels)) => Pair { images, labels },
            (Some(here), None) => return Err(missing_partner(&here, "images", "labels", "idx1")),
            (None, Some(here)) => return Err(missing_partner(&here, "labels", "images", "idx3")),
        };
        any = true;
        match part {
            "train" => found.train = Some(pair),
            "val" => found.val = Some(pair),
            _ => found.test = Some(pair),
        }
    }
    Ok(any.then_some(found))
}

fn missing_partner(here: &Path, from: &str, to: &str, idx: &str) -> DataError {
    let name = here.file_name().unwrap_or_default().to_string_lossy().replace(from, to);
    let name = name.replace("idx3", idx).replace("idx4", idx).replace("idx1", idx);
    let hint = format!(". It belongs to {}: pictures and labels come as two files", here.display());
    DataError::NotFound { path: here.with_file_name(name), hint }
}

/// The one file of this part and kind; an unpacked file is preferred to its `.gz`.
fn one_file(files: &[PathBuf], part: &str, kind: IdxKind) -> Result<Option<PathBuf>> {
    let of = |gz: bool| files.iter().filter(move |f| read_name(f) == Some((part, kind, gz))).collect::<Vec<_>>();
    let candidates = match of(false) {
        plain if !plain.is_empty() => plain,
        _ => of(true),
    };
    if candidates.len() > 1 {
        let list = candidates.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
        return Err(DataError::Config(format!(
            "several IDX files for the {part} part: {list}. Put each data set in a folder of its own"
        )));
    }
    Ok(candidates.first().map(|p| p.to_path_buf()))
}

/// What the parts of a data set of arrays in memory are.
pub(crate) struct MemoryParts {
    pub train: Option<MemoryDataset>,
    pub val: Option<MemoryDataset>,
    pub test: Option<MemoryDataset>,
}

/// Reads the parts, checks labels against each other, and names the classes.
pub(crate) fn load_idx(folder: &Path, files: &IdxFiles) -> Result<MemoryParts> {
    let read = |pair: &Option<Pair>| pair.as_ref().map(Loaded::read).transpose();
    let (train, val, test) = (read(&files.train)?, read(&files.val)?, read(&files.test)?);
    let first = train.as_ref().or(val.as_ref()).or(test.as_ref());
    let class_names = match (read_class_names(&folder.join("classes.txt"))?, first) {
        (Some(names), _) => names,
        (None, Some(first)) => infer_class_names(first)?,
        (None, None) => Vec::new(),
    };
    let finish = |part: Option<Loaded>| part.map(|p| p.finish(&class_names)).transpose();
    Ok(MemoryParts { train: finish(train)?, val: finish(val)?, test: finish(test)? })
}

struct Loaded {
    pair: Pair,
    images: IdxArray,
    labels: IdxArray,
}

impl Loaded {
    fn read(pair: &Pair) -> Result<Self> {
        let labels = read_idx_file(&pair.labels, IdxKind::Labels)?;
        let images = read_idx_file(&pair.images, IdxKind::Images)?;
        let (n, m) = (images.shape[0], labels.shape[0]);
        if n != m {
            let (images_file, labels_file) = (pair.images.clone(), pair.labels.clone());
            return Err(DataError::CountMismatch { images_file, images: n, labels_file, labels: m });
        }
        Ok(Self { pair: pair.clone(), images, labels })
    }

    fn finish(self, class_names: &[String]) -> Result<MemoryDataset> {
        let classes = class_names.len();
        let labels = self.labels.data;
        if let Some(index) = labels.iter().position(|&l| usize::from(l) >= classes) {
            let why = format!("the data set has {classes} classes, so labels are 0 to {}", classes.saturating_sub(1));
            return Err(DataError::LabelRange { file: self.pair.labels, index, label: labels[index].into(), why });
        }
        let channels = self.images.shape.get(3).copied().unwrap_or(1);
        let shape = [self.images.shape[1], self.images.shape[2], channels];
        let source = self.pair.images.display().to_string();
        MemoryDataset::new(shape, self.images.data, labels, class_names.to_vec(), source)
    }
}

/// IDX has no class names and no class count. The labels must use every value from 0 (or 1) up; a value above a gap is taken
/// for a damaged label, since otherwise one wrong byte would make a net of 256 classes.
fn infer_class_names(part: &Loaded) -> Result<Vec<String>> {
    if let Some(known) = names::by_labels(&part.labels.data) {
        return Ok(known);
    }
    let mut counts = [0usize; 256];
    part.labels.data.iter().for_each(|&l| counts[usize::from(l)] += 1);
    let first = usize::from(counts[0] == 0);
    let classes = (first..256).find(|&c| counts[c] == 0).unwrap_or(256);
    if let Some(index) = part.labels.data.iter().position(|&l| usize::from(l) >= classes) {
        let label = usize::from(part.labels.data[index]);
        let why = format!(
            "no sample has label {classes}, so the classes seem to be {first} to {}. If there are more, put their names into a \
             classes.txt beside the file, one a line",
            classes.saturating_sub(1)
        );
        return Err(DataError::LabelRange { file: part.pair.labels.clone(), index, label, why });
    }
    Ok((0..classes).map(|c| c.to_string()).collect())
}

/// Names of classes, one a line; `None` if there is no such file.
pub(crate) fn read_class_names(path: &Path) -> Result<Option<Vec<String>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(DataError::io(path, e)),
    };
    let mut text = String::new();
    file.take(1 << 20).read_to_string(&mut text).map_err(|e| DataError::io(path, e))?;
    let names: Vec<String> = text.lines().map(|l| l.trim().to_string()).filter(|l| !l.is_empty()).collect();
    let refuse = |what: String| Err(DataError::ClassNames { file: path.to_path_buf(), what });
    if names.is_empty() {
        return refuse("it has no class name in it; write one a line, or remove the file".into());
    }
    let mut sorted = names.clone();
    sorted.sort();
    if let Some(pair) = sorted.windows(2).find(|p| p[0] == p[1]) {
        return refuse(format!("the class name \"{}\" stands in it twice", pair[0]));
    }
    Ok(Some(names))
}
