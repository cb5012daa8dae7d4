//! A folder per class. Only paths are held; pictures are read when they are asked for.

use super::dataset::{Dataset, Sample};
use super::error::{DataError, Result, did_you_mean};
use super::picture::{Image, PictureInfo, decode_into, probe, read_limited};
use std::cell::RefCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Endings of the files that are taken for pictures.
const READ: [&str; 5] = ["jpg", "jpeg", "png", "webp", "bmp"];
/// Endings of pictures that are not read, and said so.
const UNREAD: [&str; 8] = ["gif", "tif", "tiff", "heic", "heif", "avif", "jp2", "svg"];
/// How deep below its class a picture may lie.
const MAX_DEPTH: usize = 16;

thread_local! {
    /// The bytes of the file that a thread reads, kept for the next one.
    static FILE_BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Pictures in files, a folder for each class.
#[derive(Debug)]
pub struct FolderDataset {
    root: PathBuf,
    /// Path below the root, and class. Sorted by class, then by path.
    files: Vec<(PathBuf, u32)>,
    class_names: Vec<String>,
}

impl FolderDataset {
    /// The pictures in the class folders of `root`, with the classes sorted by name.
    ///
    /// # Errors
    /// [`DataError::EmptyClass`], [`DataError::OneClass`], [`DataError::NoPictures`], and reading errors.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let listing = Listing::read(root)?;
        if listing.folders.is_empty() {
            return Err(DataError::NoPictures { path: root.to_path_buf(), detail: ": it has no class folders".into() });
        }
        Ok(scan(root, &listing.folders, None)?.0)
    }

    /// Size and channels of up to `most` pictures that are spread evenly over the set. Unreadable ones are left out.
    pub fn probe(&self, most: usize) -> Vec<PictureInfo> {
        let n = self.files.len();
        let take = n.min(most);
        (0..take).filter_map(|i| probe(self.path(i * n / take)).ok()).collect()
    }

    fn path(&self, index: usize) -> PathBuf {
        self.root.join(&self.files[index].0)
    }
}

impl Dataset for FolderDataset {
    fn len(&self) -> usize {
        self.files.len()
    }
    fn class_count(&self) -> usize {
        self.class_names.len()
    }
    fn get(&self, index: usize) -> Result<Sample> {
        let mut image = Image::default();
        let label = self.get_into(index, &mut image)?;
        Ok(Sample { image, label })
    }
    fn get_into(&self, index: usize, image: &mut Image) -> Result<usize> {
        let path = self.path(index);
        FILE_BYTES.with_borrow_mut(|bytes| {
            read_limited(&path, bytes).map_err(|e| match e {
                // A dead link, or a file that went away since the folder was listed: a bad picture as others.
                DataError::NotFound { path, .. } => {
                    DataError::Picture { file: path, reason: std::io::Error::from(std::io::ErrorKind::NotFound).into() }
                }
                other => other,
            })?;
            decode_into(bytes, image).map_err(|reason| DataError::Picture { file: path.clone(), reason })
        })?;
        Ok(self.files[index].1 as usize)
    }
    fn label(&self, index: usize) -> Result<usize> {
        Ok(self.files[index].1 as usize)
    }
    fn name(&self, index: usize) -> String {
        self.path(index).display().to_string()
    }
    fn file(&self, index: usize) -> Option<PathBuf> {
        Some(self.path(index))
    }
    fn class_names(&self) -> Vec<String> {
        self.class_names.clone()
    }
}

/// What lies directly in a folder, hidden things left out, sorted by name.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub folders: Vec<OsString>,
    pub files: Vec<OsString>,
}

impl Listing {
    pub fn read(folder: &Path) -> Result<Self> {
        let mut listing = Listing::default();
        for entry in std::fs::read_dir(folder).map_err(|e| DataError::io(folder, e))? {
            let entry = entry.map_err(|e| DataError::io(folder, e))?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            // A link counts as what it leads to; one that leads nowhere stays, to be named when it is read.
            if std::fs::metadata(entry.path()).is_ok_and(|meta| meta.is_dir()) {
                listing.folders.push(name);
            } else {
                listing.files.push(name);
            }
        }
        listing.folders.sort();
        listing.files.sort();
        Ok(listing)
    }

    pub fn has_pictures(&self) -> bool {
        self.files.iter().any(|f| ending(f).is_some_and(|e| READ.contains(&e.as_str())))
    }
}

/// Whether a file's name is that of a picture that is read.
pub(crate) fn is_picture(path: &Path) -> bool {
    ending(path.as_os_str()).is_some_and(|e| READ.contains(&e.as_str()))
}

fn ending(name: &std::ffi::OsStr) -> Option<String> {
    Some(Path::new(name).extension()?.to_str()?.to_lowercase())
}

/// What was seen in class folders besides pictures.
#[derive(Debug, Default)]
struct Seen {
    /// Pictures of a kind that is not read.
    unread: usize,
    example: Option<PathBuf>,
    other: usize,
}

/// Appends the pictures below `root/below`, as paths below `root`.
fn collect(root: &Path, below: &Path, depth: usize, out: &mut Vec<PathBuf>, seen: &mut Seen) -> Result<()> {
    let listing = Listing::read(&root.join(below))?;
    for file in &listing.files {
        match ending(file) {
            Some(e) if READ.contains(&e.as_str()) => out.push(below.join(file)),
            Some(e) if UNREAD.contains(&e.as_str()) => {
                seen.unread += 1;
                seen.example.get_or_insert_with(|| below.join(file));
            }
            _ => seen.other += 1,
        }
    }
    for folder in &listing.folders {
        if depth == MAX_DEPTH {
            return Err(DataError::Config(format!(
                "{}: folders lie deeper than {MAX_DEPTH} levels below their class; is there a link to a folder above?",
                root.join(below).display()
            )));
        }
        collect(root, &below.join(folder), depth + 1, out, seen)?;
    }
    Ok(())
}

/// Scans class folders. `known` are the classes of the training part, of which others may only have some.
fn scan(root: &Path, folders: &[OsString], known: Option<&[String]>) -> Result<(FolderDataset, Vec<String>)> {
    let mut notes = Vec::new();
    let names: Vec<String> = folders.iter().map(|f| f.to_string_lossy().into_owned()).collect();
    let class_names = known.map_or_else(|| names.clone(), <[String]>::to_vec);
    let mut files = Vec::new();
    let mut total = Seen::default();
    for (folder, name) in folders.iter().zip(&names) {
        let Some(class) = class_names.iter().position(|k| k == name) else {
            let hint = did_you_mean(name, class_names.iter().map(String::as_str));
            let (folder, class) = (root.join(folder), name.clone());
            return Err(DataError::UnknownClass { folder, class, known: class_names, hint });
        };
        let (mut paths, mut seen) = (Vec::new(), Seen::default());
        collect(root, Path::new(folder), 0, &mut paths, &mut seen)?;
        if paths.is_empty() {
            let what = match (seen.unread, seen.other) {
                (0, 0) => "it is empty".to_string(),
                (0, n) => format!("{n} other files"),
                (n, _) => format!("{n} pictures of a kind that is not read, as {}", example(&seen)),
            };
            return Err(DataError::EmptyClass { folder: root.join(folder), seen: what });
        }
        paths.sort();
        files.extend(paths.into_iter().map(|p| (p, class as u32)));
        total.unread += seen.unread;
        total.other += seen.other;
        total.example = total.example.or(seen.example);
    }
    if total.unread > 0 {
        notes.push(format!(
            "{}: {} pictures are of a kind that is not read (GIF, TIFF, HEIC, AVIF, SVG), the first is {}; they are left out",
            root.display(),
            total.unread,
            example(&total)
        ));
    }
    if known.is_none() && class_names.len() == 1 {
        return Err(DataError::OneClass { path: root.to_path_buf(), class: class_names[0].clone() });
    }
    if let Some(known) = known {
        let absent: Vec<&str> = known.iter().filter(|k| !names.contains(k)).map(String::as_str).collect();
        if !absent.is_empty() {
            notes.push(format!("{}: it has no pictures of {}", root.display(), absent.join(", ")));
        }
    }
    Ok((FolderDataset { root: root.to_path_buf(), files, class_names }, notes))
}

fn example(seen: &Seen) -> String {
    seen.example.as_ref().map(|p| p.display().to_string()).unwrap_or_default()
}

/// The parts of a folder data set with remarks for the user.
#[derive(Debug, Default)]
pub(crate) struct FolderParts {
    pub train: Option<FolderDataset>,
    pub val: Option<FolderDataset>,
    pub test: Option<FolderDataset>,
    pub notes: Vec<String>,
}

/// The part that a folder's name says.
pub(crate) fn part_of(name: &std::ffi::OsStr) -> Option<usize> {
    match name.to_str()?.to_lowercase().as_str() {
        "train" => Some(0),
        "val" | "validation" | "valid" => Some(1),
        "test" => Some(2),
        _ => None,
    }
}

/// Opens class folders, with or without part folders above them. `Err(Ok(why))` says that it is no such data set.
pub(crate) fn open_folder(root: &Path, listing: &Listing) -> Result<Result<FolderParts, String>> {
    if listing.folders.is_empty() {
        let why = if listing.has_pictures() {
            "there are pictures but no class folders; put the pictures of each class into a folder of its own"
        } else {
            "there are no folders in it"
        };
        return Ok(Err(why.to_string()));
    }
    let mut parts: [Option<(PathBuf, Listing)>; 3] = [None, None, None];
    let mut others = Vec::new();
    for folder in &listing.folders {
        let Some(part) = part_of(folder) else {
            others.push(folder.clone());
            continue;
        };
        let path = root.join(folder);
        if let Some((first, _)) = &parts[part] {
            return Err(DataError::Config(format!(
                "{} and {} are both the same part of the data set: leave one",
                first.display(),
                path.display()
            )));
        }
        let inside = Listing::read(&path)?;
        parts[part] = Some((path, inside));
    }
    // A class may be called "train" (there are trains): such a folder has pictures in it, and no folders.
    if !parts.iter().flatten().any(|(_, inside)| !inside.folders.is_empty()) {
        return open_classes(root, &listing.folders);
    }
    open_parts(parts, &others).map(Ok)
}

fn open_classes(root: &Path, folders: &[OsString]) -> Result<Result<FolderParts, String>> {
    // Folders without any picture at all are not a data set of pictures; with pictures in some, an empty one is a mistake.
    let (mut paths, mut seen) = (Vec::new(), Seen::default());
    for folder in folders {
        collect(root, Path::new(folder), 0, &mut paths, &mut seen)?;
    }
    if paths.is_empty() {
        let names: Vec<_> = folders.iter().take(5).map(|f| f.to_string_lossy()).collect();
        let more = if folders.len() > 5 { ", …" } else { "" };
        let unread =
            if seen.unread > 0 { format!(" ({} of a kind that is not read)", seen.unread) } else { String::new() };
        return Ok(Err(format!(
            "there is no JPEG, PNG, WebP or BMP picture in its folders ({}{more}){unread}",
            names.join(", ")
        )));
    }
    let (train, notes) = scan(root, folders, None)?;
    Ok(Ok(FolderParts { train: Some(train), notes, ..FolderParts::default() }))
}

fn open_parts(parts: [Option<(PathBuf, Listing)>; 3], others: &[OsString]) -> Result<FolderParts> {
    let mut out = FolderParts::default();
    if !others.is_empty() {
        let names: Vec<_> = others.iter().map(|f| f.to_string_lossy()).collect();
        out.notes.push(format!("beside the parts there are other folders, which are left out: {}", names.join(", ")));
    }
    let mut known: Option<Vec<String>> = None;
    for (part, found) in parts.into_iter().enumerate() {
        let Some((path, inside)) = found else { continue };
        if inside.folders.is_empty() {
            if part == 0 {
                let detail = ": the training part has no class folders".to_string();
                return Err(DataError::NoPictures { path, detail });
            }
            let what = if inside.has_pictures() { "its pictures have no class folders" } else { "it is empty" };
            out.notes.push(format!("{}: {what}; it is left out", path.display()));
            continue;
        }
        let (set, notes) = scan(&path, &inside.folders, known.as_deref())?;
        out.notes.extend(notes);
        known.get_or_insert_with(|| set.class_names.clone());
        match part {
            0 => out.train = Some(set),
            1 => out.val = Some(set),
            _ => out.test = Some(set),
        }
    }
    Ok(out)
}
