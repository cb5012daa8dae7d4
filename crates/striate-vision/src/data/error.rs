//! What can be wrong with data. Every message says what, where, why, and what to do.

use crate::transforms::TransformError;
use std::path::{Path, PathBuf};

/// Why a picture could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The content is none of the formats that are read, whatever the file's name says.
    #[error("it is not a JPEG, PNG, WebP or BMP picture{hint}")]
    NotAPicture {
        /// What it seems to be instead, or nothing.
        hint: String,
    },
    /// The file ends before the picture does.
    #[error("it is truncated: {0}")]
    Truncated(String),
    /// The file is a picture, but damaged.
    #[error("it cannot be decoded: {0}")]
    Damaged(String),
    /// The picture is larger than what is read.
    #[error("it is {width}x{height} pixels; at most {max_pixels} pixels and {max_side} a side are read: scale it down")]
    TooLarge {
        /// Declared width.
        width: u32,
        /// Declared height.
        height: u32,
        /// The limit on width times height.
        max_pixels: u64,
        /// The limit on width and on height.
        max_side: u32,
    },
    /// The file itself is larger than what is read.
    #[error("the file has {bytes} bytes; at most {max} are read")]
    FileTooLarge {
        /// Size of the file.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A kind of picture that is refused.
    #[error("{what} pictures are not read; convert it to RGB")]
    Unsupported {
        /// The kind.
        what: String,
    },
    /// The decoder failed in a way that it should not have.
    #[error("the decoder stopped at it (\"{0}\"); please report this with the file")]
    DecoderPanic(String),
    /// The file could not be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// An error of data sets, loaders and pictures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// No such file or folder.
    #[error("{}: no such file or folder{hint}", path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
        /// What may have been meant.
        hint: String,
    },
    /// Reading or listing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The folder holds no data set that is known.
    #[error("{}: no data set was recognised there. Tried:\n{}", path.display(), tried.iter().map(|t| format!("  - {t}")).collect::<Vec<_>>().join("\n"))]
    UnknownFormat {
        /// The folder or file.
        path: PathBuf,
        /// Each format with the reason why it is not that.
        tried: Vec<String>,
    },
    /// A data set known by name is not on this machine.
    #[error("the data set {name} is not on this machine. Looked in: {}. {origin}", looked.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    NamedSetMissing {
        /// Its name.
        name: String,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
        /// Where it comes from and what to do.
        origin: String,
    },
    /// A picture that cannot be used.
    #[error("{}: {reason}", file.display())]
    Picture {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: PictureError,
    },
    /// A class folder without a picture.
    #[error(
        "{}: the class folder has no picture in it ({seen}). Put JPEG, PNG, WebP or BMP files there, or remove the folder",
        folder.display()
    )]
    EmptyClass {
        /// The folder.
        folder: PathBuf,
        /// What was seen there instead.
        seen: String,
    },
    /// Fewer than two classes.
    #[error(
        "{}: there is only one class, \"{class}\". A classifier needs at least two: one folder for each class",
        path.display()
    )]
    OneClass {
        /// The data set.
        path: PathBuf,
        /// The only class.
        class: String,
    },
    /// A part of a data set has no picture.
    #[error("{}: there is no picture in it{detail}", path.display())]
    NoPictures {
        /// The data set.
        path: PathBuf,
        /// What was found instead.
        detail: String,
    },
    /// A part has a class that the training part does not have.
    #[error(
        "{}: the training part has no class \"{class}\". Its classes are: {}{hint}",
        folder.display(),
        known.join(", ")
    )]
    UnknownClass {
        /// The class folder.
        folder: PathBuf,
        /// Its name.
        class: String,
        /// The classes of the training part.
        known: Vec<String>,
        /// What may have been meant.
        hint: String,
    },
    /// An IDX file does not start as one.
    #[error("{}: not an IDX file of {wanted}: it starts with {found:#010x}, not with {expected:#010x}", file.display())]
    IdxMagic {
        /// The file.
        file: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// The first four bytes, big-endian.
        found: u32,
        /// The magic number of such a file.
        expected: u32,
    },
    /// The header and the content of a file do not fit.
    #[error("{}: the header declares {declared}, which needs {expected} bytes, but there are {found}. {advice}", file.display())]
    Length {
        /// The file.
        file: PathBuf,
        /// What the header or the format declares.
        declared: String,
        /// Bytes needed.
        expected: u64,
        /// Bytes there (or one more than needed where it goes on).
        found: String,
        /// What to do.
        advice: &'static str,
    },
    /// A header declares sizes that no picture has.
    #[error("{}: the header declares {what}", file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// The declared thing, and why it cannot be.
        what: String,
    },
    /// As many labels as pictures are needed.
    #[error("{} has {images} pictures but {} has {labels} labels: the two files do not belong together", images_file.display(), labels_file.display())]
    CountMismatch {
        /// The pictures' file.
        images_file: PathBuf,
        /// How many.
        images: usize,
        /// The labels' file.
        labels_file: PathBuf,
        /// How many.
        labels: usize,
    },
    /// A label that no class has.
    #[error("{}: label {label} of sample {index} is out of range: {why}", file.display())]
    LabelRange {
        /// The file.
        file: PathBuf,
        /// The sample, from 0.
        index: usize,
        /// Its label.
        label: usize,
        /// What the range is, and where that comes from.
        why: String,
    },
    /// A file of class names that does not fit.
    #[error("{}: {what}", file.display())]
    ClassNames {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Pictures of one batch must have one size.
    #[error(
        "{name}: the sample is {got_width}x{got_height} after its transforms, others of its batch are {width}x{height}. Add a Resize and a crop to a fixed size"
    )]
    SizeMismatch {
        /// The sample.
        name: String,
        /// Its width.
        got_width: usize,
        /// Its height.
        got_height: usize,
        /// The batch's width.
        width: usize,
        /// The batch's height.
        height: usize,
    },
    /// A mask must be as large as its picture.
    #[error(
        "{name}: the picture is {}x{} pixels, its mask {}x{}; they must be of one size (is the picture turned by its EXIF data?)",
        picture[0], picture[1], mask[0], mask[1]
    )]
    MaskSize {
        /// The sample.
        name: String,
        /// Width and height.
        picture: [usize; 2],
        /// Width and height.
        mask: [usize; 2],
    },
    /// A table of labels that cannot be used.
    #[error("{}{}: {what}", file.display(), line.map(|n| format!(", line {n}")).unwrap_or_default())]
    Table {
        /// The file.
        file: PathBuf,
        /// The line, from 1, where one is to blame.
        line: Option<usize>,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A file of boxes that cannot be used.
    #[error("{}{}: {what}", file.display(), place.as_ref().map(|p| format!(", {p}")).unwrap_or_default())]
    Annotations {
        /// The file.
        file: PathBuf,
        /// Where in it: a line, an object, a key.
        place: Option<String>,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A transform that does not fit a picture.
    #[error("{name}: {reason}")]
    Transform {
        /// The sample.
        name: String,
        /// Why.
        reason: TransformError,
    },
    /// A label from a data set that is not below its own class count.
    #[error("{name}: label {label}, but the data set says that it has {classes} classes")]
    SampleLabel {
        /// The sample.
        name: String,
        /// Its label.
        label: usize,
        /// The class count.
        classes: usize,
    },
    /// Code of a transform or a data set panicked.
    #[error("{name}: loading it panicked: {message}")]
    WorkerPanic {
        /// The sample.
        name: String,
        /// The panic's message.
        message: String,
    },
    /// None of many pictures could be read.
    #[error("{name} cannot be read, nor can the {tried} that follow it; the first error: {first}")]
    NoReadablePicture {
        /// The first of them.
        name: String,
        /// How many were tried after it.
        tried: usize,
        /// What was wrong with the first.
        first: String,
    },
    /// A setting that cannot be.
    #[error("{0}")]
    Config(String),
    /// An error of a user's own data set.
    #[error("{0}")]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl DataError {
    /// An input/output error at this path. A missing file becomes [`DataError::NotFound`].
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        if source.kind() == std::io::ErrorKind::NotFound {
            return DataError::NotFound { path, hint: String::new() };
        }
        DataError::Io { path, source }
    }

    /// Whether the machine failed (a disk, a permission) rather than the data.
    pub fn is_io(&self) -> bool {
        match self {
            DataError::Io { source, .. } => !is_content(source),
            DataError::Picture { reason: PictureError::Io(source), .. } => !is_content(source),
            _ => false,
        }
    }

    /// Whether the error is about one sample's content, so that the sample may be skipped.
    pub fn is_bad_sample(&self) -> bool {
        matches!(self, DataError::Picture { .. })
    }
}

/// Readers report damaged content as these kinds; they are errors of the data, not of the machine.
fn is_content(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::*;
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

/// Result of this module.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// `; did you mean "x"?` for the candidate that is nearest to `name`, if any is near.
pub(crate) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let limit = (name.chars().count() / 3).clamp(1, 3);
    let wanted = name.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (edit_distance(&wanted, &c.to_lowercase()), c))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| format!("; did you mean \"{c}\"?"))
        .unwrap_or_default()
}

/// Levenshtein's distance, by rows.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The text of a panic's payload.
pub(crate) fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        return (*text).to_string();
    }
    payload.downcast_ref::<String>().cloned().unwrap_or_else(|| "no message".to_string())
}
