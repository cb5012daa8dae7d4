//! Where data comes from: a path, the name of a well-known set, or the binary itself. What it is, is seen from the files.

use super::boxes::{BoxDataset, open_boxes};
use super::cifar::{find_cifar, load_cifar};
use super::dataset::Dataset;
use super::error::{DataError, Result, did_you_mean};
use super::folder::{FolderDataset, Listing, open_folder};
use super::idx::{IdxKind, MemoryParts, find_idx, is_idx_name, load_idx, read_idx};
use super::names;
use super::picture::PictureInfo;
use super::segment::{open_masks, seems_masked};
use super::split::split_dataset;
use super::table::{find_tables, open_tables};
use crate::data::MemoryDataset;
use crate::detection::{BoxFormat, recognise_annotations};
use crate::models::Task;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a data set was seen to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatasetKind {
    /// The part of Fashion-MNIST that is inside the binary.
    Embedded,
    /// IDX files.
    Idx,
    /// CIFAR-10's binary files.
    Cifar10,
    /// CIFAR-100's binary files.
    Cifar100,
    /// A folder for each class.
    Folder,
    /// Pictures with masks.
    Masks,
    /// Pictures named in a table.
    Table,
    /// Pictures with boxes.
    Boxes(BoxFormat),
    /// Scenes of the pictures inside the binary.
    Scenes,
}

impl std::fmt::Display for DatasetKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DatasetKind::Boxes(format) => return write!(f, "pictures with boxes ({format})"),
            DatasetKind::Embedded => "the data set inside the binary",
            DatasetKind::Idx => "IDX files",
            DatasetKind::Cifar10 => "CIFAR-10 binaries",
            DatasetKind::Cifar100 => "CIFAR-100 binaries",
            DatasetKind::Folder => "a folder per class",
            DatasetKind::Masks => "pictures with masks",
            DatasetKind::Table => "pictures in a table",
            DatasetKind::Scenes => "the scenes inside the binary",
        })
    }
}

/// An opened data set with the parts that it has.
pub struct DatasetSource {
    /// What it is.
    pub kind: DatasetKind,
    /// What a net is to say about its pictures.
    pub task: Task,
    /// Where it is; nothing for the embedded one.
    pub path: Option<PathBuf>,
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// The part to train on.
    pub train: Option<Arc<dyn Dataset>>,
    /// The part that decides which weights are best.
    pub val: Option<Arc<dyn Dataset>>,
    /// The part that is read once, at the end.
    pub test: Option<Arc<dyn Dataset>>,
    /// Channels of the pictures: 1 if all (of a folder: of those looked at) are grey.
    pub channels: usize,
    /// Height and width where all pictures are known to have one size.
    pub fixed_size: Option<[usize; 2]>,
    /// Sizes of up to 64 pictures, spread over the training part.
    pub probed: Vec<PictureInfo>,
    /// Remarks for the user, such as files that were left out.
    pub notes: Vec<String>,
}

impl std::fmt::Debug for DatasetSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let len = |part: &Option<Arc<dyn Dataset>>| part.as_ref().map(|d| d.len());
        f.debug_struct("DatasetSource")
            .field("kind", &self.kind)
            .field("path", &self.path)
            .field("classes", &self.class_names)
            .field("train", &len(&self.train))
            .field("val", &len(&self.val))
            .field("test", &len(&self.test))
            .field("channels", &self.channels)
            .field("fixed_size", &self.fixed_size)
            .field("notes", &self.notes)
            .finish()
    }
}

impl DatasetSource {
    /// The training and the validation part. Without a validation part of its own, a stratified `fraction` of the training
    /// part is held back; the test part is never used for this.
    ///
    /// # Errors
    /// [`DataError::NoPictures`] without a training part, and as [`split_dataset`].
    pub fn train_and_val(&self, fraction: f64, seed: u64) -> Result<(Arc<dyn Dataset>, Arc<dyn Dataset>)> {
        let Some(train) = &self.train else {
            let path = self.path.clone().unwrap_or_default();
            return Err(DataError::NoPictures { path, detail: ": there is no training part (a folder train/)".into() });
        };
        if let Some(val) = &self.val {
            return Ok((train.clone(), val.clone()));
        }
        let (train, val) = split_dataset(train, fraction, seed)?;
        Ok((Arc::new(train), Arc::new(val)))
    }

    /// Height and width of the middle picture of those that were looked at, side by side; 224 each if none could be.
    pub fn middle_size(&self) -> [usize; 2] {
        let middle = |side: fn(&PictureInfo) -> usize| {
            let mut sides: Vec<usize> = self.probed.iter().map(side).collect();
            sides.sort_unstable();
            sides.get(sides.len() / 2).copied().unwrap_or(224)
        };
        self.fixed_size.unwrap_or_else(|| [middle(|p| p.height), middle(|p| p.width)])
    }

    /// The part to judge a finished model by: (its name, the part): test, else val, else train.
    pub fn evaluation_part(&self) -> Option<(&'static str, Arc<dyn Dataset>)> {
        let parts = [("test", &self.test), ("val", &self.val), ("train", &self.train)];
        parts.into_iter().find_map(|(name, part)| Some((name, part.as_ref()?.clone())))
    }

    fn of_memory(kind: DatasetKind, path: Option<PathBuf>, parts: MemoryParts) -> Result<Self> {
        let mut shape = None;
        let mut class_names = Vec::new();
        for part in [&parts.train, &parts.val, &parts.test].into_iter().flatten() {
            if *shape.get_or_insert(part.shape()) != part.shape() {
                let path = path.clone().unwrap_or_default();
                let what =
                    format!("pictures of {:?}, while another part has {:?}", part.shape(), shape.unwrap_or_default());
                return Err(DataError::Header { file: path, what });
            }
            class_names = part.class_names();
        }
        let [height, width, channels] = shape.unwrap_or_default();
        if class_names.len() == 1 {
            return Err(DataError::OneClass { path: path.unwrap_or_default(), class: class_names.remove(0) });
        }
        let share = |part: Option<MemoryDataset>| part.map(|p| Arc::new(p) as Arc<dyn Dataset>);
        Ok(Self {
            kind,
            task: Task::Classify,
            path,
            class_names,
            train: share(parts.train),
            val: share(parts.val),
            test: share(parts.test),
            channels,
            fixed_size: Some([height, width]),
            probed: vec![PictureInfo { width, height, channels }],
            notes: Vec::new(),
        })
    }
}

/// Where a set known by name comes from.
const NAMED: [(&str, &str); 4] = [
    ("fashion-mnist", "Debian's and Ubuntu's package dataset-fashion-mnist has it"),
    ("mnist", "Its four IDX files (train-images-idx3-ubyte, …) are needed there"),
    ("cifar10", "Its binary version (data_batch_1.bin to data_batch_5.bin, test_batch.bin) is needed there"),
    ("cifar100", "Its binary version (train.bin, test.bin, fine_label_names.txt) is needed there"),
];

/// Names that [`open_dataset`] knows besides paths.
pub fn known_names() -> impl Iterator<Item = &'static str> {
    NAMED.iter().map(|(name, _)| *name)
}

/// The folder for downloaded data: `STRIATE_CACHE`, else `striate` in `XDG_CACHE_HOME`, else `~/.cache/striate`.
pub fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("STRIATE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|p| p.join("striate")))
        .or_else(|| set("HOME").map(|p| p.join(".cache").join("striate")))
}

/// Opens a data set by path or by name. Nothing is ever downloaded.
///
/// A name (`fashion-mnist`, `mnist`, `cifar10`, `cifar100`) is looked up where Debian's packages put data sets and in
/// [`cache_folder`]; a path may be a folder, or one of the IDX or CIFAR files of it. Kinds: [`DatasetKind`].
///
/// # Errors
/// [`DataError::NamedSetMissing`], [`DataError::UnknownFormat`] with what was tried, and what each format can say.
pub fn open_dataset(data: &str) -> Result<DatasetSource> {
    open_dataset_as(data, &Wanted::default())
}

/// What is known of a data set before it is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// What it is for, where its files leave that open; sets of another kind are refused.
    pub task: Option<Task>,
    /// The classes of the net that is to be judged on it.
    pub class_names: Option<&'a [String]>,
}

/// As [`open_dataset`], for a task, or for a net.
///
/// # Errors
/// As [`open_dataset`], and for a set that is for another task.
pub fn open_dataset_as(data: &str, wanted: &Wanted<'_>) -> Result<DatasetSource> {
    let source = find_dataset(data, wanted)?;
    match wanted.task {
        Some(task) if task != source.task => Err(DataError::Config(format!(
            "{data}: these are {}, which are for --task {}, not {task}",
            source.kind, source.task
        ))),
        _ => Ok(source),
    }
}

fn find_dataset(data: &str, wanted: &Wanted<'_>) -> Result<DatasetSource> {
    let path = Path::new(data);
    if let Some((name, origin)) = NAMED.iter().find(|(name, _)| *name == data) {
        return open_named(name, origin, &named_roots());
    }
    if !path.exists() {
        let hint = did_you_mean(data, known_names());
        return Err(DataError::NotFound { path: path.to_path_buf(), hint });
    }
    if let Some(format) = boxes_at(path, wanted.task) {
        return of_boxes(path, format, wanted);
    }
    if path.is_file() && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv")) {
        return of_tables(path, &[(0, path.to_path_buf())], wanted);
    }
    if path.is_dir() {
        let listing = Listing::read(path)?;
        if seems_masked(path, &listing) {
            match wanted.task {
                None | Some(Task::Segment) => return of_masks(path, &listing, wanted),
                Some(Task::Classify) => {
                    let tried = "these are pictures with masks (images/ beside masks/, or Pascal VOC's folders), for --task segment";
                    return Err(DataError::UnknownFormat { path: path.to_path_buf(), tried: vec![tried.to_owned()] });
                }
                Some(_) => {}
            }
        }
        let tables = find_tables(path);
        // Beside class folders a table needs to be asked for.
        let plain = listing.folders.iter().all(|name| TABLE_FOLDERS.iter().any(|known| name == known));
        let asked = matches!(wanted.task, Some(Task::Multilabel | Task::Regress));
        if !tables.is_empty() && (asked || plain) {
            return of_tables(path, &tables, wanted);
        }
        if asked || wanted.task == Some(Task::Segment) {
            let tried = vec![
                "pictures with masks: no images/ beside masks/, and no JPEGImages/ beside SegmentationClass/"
                    .to_owned(),
                "pictures in a table: no labels.csv or train.csv".to_owned(),
            ];
            return Err(DataError::UnknownFormat { path: path.to_path_buf(), tried });
        }
    }
    open_path(path)
}

/// The format of the boxes at a path, where it is to be read as a set with boxes: where that is asked for, or where nothing is and
/// it is no set with masks, whose pictures may have boxes as well.
fn boxes_at(path: &Path, task: Option<Task>) -> Option<BoxFormat> {
    let masked = || Listing::read(path).is_ok_and(|listing| seems_masked(path, &listing));
    let wanted = match task {
        Some(task) => task == Task::Detect,
        None => !(path.is_dir() && masked()),
    };
    recognise_annotations(path).filter(|_| wanted)
}

fn of_boxes(path: &Path, format: BoxFormat, wanted: &Wanted<'_>) -> Result<DatasetSource> {
    let found = open_boxes(path, wanted.class_names)?;
    let probed = found.parts.iter().flatten().next().map(|part: &BoxDataset| part.probe(64)).unwrap_or_default();
    let [train, val, test] = found.parts.map(|part| part.map(|part| Arc::new(part) as Arc<dyn Dataset>));
    Ok(DatasetSource {
        kind: DatasetKind::Boxes(format),
        task: Task::Detect,
        path: Some(path.to_path_buf()),
        class_names: found.names,
        train,
        val,
        test,
        // Detectors see colours; grey becomes three equal channels.
        channels: 3,
        fixed_size: None,
        probed,
        notes: found.notes,
    })
}

/// Folders beside a table that are no classes.
const TABLE_FOLDERS: [&str; 7] = ["images", "imgs", "img", "train", "val", "test", "masks"];

fn of_masks(folder: &Path, listing: &Listing, wanted: &Wanted<'_>) -> Result<DatasetSource> {
    let found = open_masks(folder, listing, wanted.class_names)?;
    let probed = found.parts.iter().flatten().next().map(|part| part.probe(64)).unwrap_or_default();
    let [train, val, test] = found.parts.map(|part| part.map(|part| Arc::new(part) as Arc<dyn Dataset>));
    Ok(DatasetSource {
        kind: DatasetKind::Masks,
        task: Task::Segment,
        path: Some(folder.to_path_buf()),
        class_names: found.names,
        train,
        val,
        test,
        channels: channels_of(&probed),
        fixed_size: None,
        probed,
        notes: found.notes,
    })
}

fn of_tables(path: &Path, tables: &[(usize, PathBuf)], wanted: &Wanted<'_>) -> Result<DatasetSource> {
    let found = open_tables(tables, wanted.task, wanted.class_names)?;
    if found.task == Task::Classify && found.names.len() == 1 {
        return Err(DataError::OneClass { path: path.to_path_buf(), class: found.names[0].clone() });
    }
    let probed = found.parts.iter().flatten().next().map(|part| part.probe(64)).unwrap_or_default();
    let [train, val, test] = found.parts.map(|part| part.map(|part| Arc::new(part) as Arc<dyn Dataset>));
    Ok(DatasetSource {
        kind: DatasetKind::Table,
        task: found.task,
        path: Some(path.to_path_buf()),
        class_names: found.names,
        train,
        val,
        test,
        channels: channels_of(&probed),
        fixed_size: None,
        probed,
        notes: Vec::new(),
    })
}

/// 1 where all pictures are grey.
fn channels_of(probed: &[PictureInfo]) -> usize {
    if !probed.is_empty() && probed.iter().all(|p| p.channels == 1) { 1 } else { 3 }
}

/// Folders that may hold a set under its name: Debian's, the machine's own, the cache, the working folder.
fn named_roots() -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = ["/usr/share/datasets", "/usr/local/share/datasets"].map(PathBuf::from).to_vec();
    roots.extend(cache_folder());
    roots.push(PathBuf::new());
    roots
}

fn open_named(name: &str, origin: &str, roots: &[PathBuf]) -> Result<DatasetSource> {
    let looked: Vec<PathBuf> = roots.iter().map(|root| root.join(name)).collect();
    match looked.iter().find(|p| p.is_dir()) {
        Some(found) => open_path(found),
        None => {
            let origin = format!("{origin}; `striate data fetch {name}` downloads it");
            Err(DataError::NamedSetMissing { name: name.to_string(), looked, origin })
        }
    }
}

/// As [`open_dataset`], but never a name.
///
/// # Errors
/// As [`open_dataset`].
pub fn open_path(path: &Path) -> Result<DatasetSource> {
    let is_bin = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("bin"));
    let folder = match path.parent() {
        Some(parent) if path.is_file() && (is_idx_name(path) || is_bin) => {
            if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            }
        }
        _ if path.is_file() => return Err(not_a_set(path)),
        _ => path,
    };
    let mut tried = Vec::new();
    let listing = Listing::read(folder)?;
    let files: Vec<PathBuf> = listing.files.iter().map(|f| folder.join(f)).collect();

    if let Some(found) = find_idx(&files)? {
        let parts = load_idx(folder, &found)?;
        return DatasetSource::of_memory(DatasetKind::Idx, Some(folder.to_path_buf()), parts);
    }
    tried.push(
        "IDX: no file called as train-images-idx3-ubyte or t10k-images-idx3-ubyte (with or without .gz)".to_string(),
    );

    for inner in ["", "cifar-10-batches-bin", "cifar-100-binary"] {
        let inside = folder.join(inner);
        let files = if inner.is_empty() {
            files.clone()
        } else if inside.is_dir() {
            Listing::read(&inside)?.files.iter().map(|f| inside.join(f)).collect()
        } else {
            continue;
        };
        if let Some(found) = find_cifar(&inside, &files) {
            let kind = if found.classes == 10 { DatasetKind::Cifar10 } else { DatasetKind::Cifar100 };
            return DatasetSource::of_memory(kind, Some(folder.to_path_buf()), load_cifar(&found)?);
        }
    }
    tried.push(if listing.files.iter().any(|f| f == "data_batch_1") {
        "CIFAR: this is the version for Python, made of pickles; get the binary version".to_string()
    } else {
        "CIFAR binaries: no data_batch_*.bin, test_batch.bin, train.bin or test.bin".to_string()
    });

    if let Some(what) = seems_for_detection(&listing) {
        tried.push(format!("a folder per class: this looks like {what}, whose boxes are for --task detect"));
        return Err(DataError::UnknownFormat { path: folder.to_path_buf(), tried });
    }
    match open_folder(folder, &listing)? {
        Ok(parts) => Ok(of_folder(folder, parts)),
        Err(why) => {
            tried.push(format!("a folder per class: {why}"));
            Err(DataError::UnknownFormat { path: folder.to_path_buf(), tried })
        }
    }
}

/// Boxes around things are not classes of pictures, though their files lie in folders too.
fn seems_for_detection(listing: &Listing) -> Option<&'static str> {
    let folder = |name: &str| listing.folders.iter().any(|f| f == name);
    if folder("Annotations") && folder("JPEGImages") {
        return Some("Pascal VOC");
    }
    if folder("annotations") && !folder("train") {
        return Some("COCO");
    }
    (folder("images") && folder("labels")).then_some("YOLO")
}

fn not_a_set(path: &Path) -> DataError {
    let tried = vec![
        "it is a single file; give the folder of the data set, or an IDX or CIFAR file by its usual name".to_string(),
    ];
    DataError::UnknownFormat { path: path.to_path_buf(), tried }
}

fn of_folder(folder: &Path, parts: super::folder::FolderParts) -> DatasetSource {
    let first = parts.train.as_ref().or(parts.val.as_ref()).or(parts.test.as_ref());
    let probed = first.map(|set| set.probe(64)).unwrap_or_default();
    let class_names = first.map(Dataset::class_names).unwrap_or_default();
    let channels = channels_of(&probed);
    let share = |part: Option<FolderDataset>| part.map(|p| Arc::new(p) as Arc<dyn Dataset>);
    DatasetSource {
        kind: DatasetKind::Folder,
        task: Task::Classify,
        path: Some(folder.to_path_buf()),
        class_names,
        train: share(parts.train),
        val: share(parts.val),
        test: share(parts.test),
        channels,
        fixed_size: None,
        probed,
        notes: parts.notes,
    }
}

/// The data set inside the binary: of Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, MIT licence) the first 600 training and the
/// first 100 test pictures of each class.
///
/// # Errors
/// None in a sound build; a damaged binary gives what [`read_idx`] gives.
pub fn open_embedded() -> Result<DatasetSource> {
    let part = |name: &str, images: &[u8], labels: &[u8]| -> Result<MemoryDataset> {
        let images = read_idx(images, Path::new("embedded images"), IdxKind::Images)?;
        let labels = read_idx(labels, Path::new("embedded labels"), IdxKind::Labels)?;
        let class_names = names::FASHION_MNIST.map(String::from).to_vec();
        MemoryDataset::new(
            [28, 28, 1],
            images.data,
            labels.data,
            class_names,
            format!("embedded Fashion-MNIST, {name}"),
        )
    };
    let train = part(
        "train",
        include_bytes!("../../assets/train-images-idx3-ubyte.gz"),
        include_bytes!("../../assets/train-labels-idx1-ubyte.gz"),
    )?;
    let test = part(
        "test",
        include_bytes!("../../assets/t10k-images-idx3-ubyte.gz"),
        include_bytes!("../../assets/t10k-labels-idx1-ubyte.gz"),
    )?;
    DatasetSource::of_memory(
        DatasetKind::Embedded,
        None,
        MemoryParts { train: Some(train), val: None, test: Some(test) },
    )
}

/// Licence of the data set inside the binary.
pub const EMBEDDED_LICENSE: &str = include_str!("../../assets/LICENSE-Fashion-MNIST");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_set_is_looked_up_in_order_and_its_absence_says_where_it_comes_from() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let roots = [first.path().to_path_buf(), second.path().to_path_buf()];
        let (name, origin) = NAMED[2];
        let error = open_named(name, origin, &roots).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, DataError::NamedSetMissing { .. }));
        assert!(text.contains("data_batch_1.bin") && text.contains("striate data fetch cifar10"), "{text}");
        assert!(roots.iter().all(|r| text.contains(&r.join(name).display().to_string())), "{text}");

        let folder = second.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let record = |label: u8| [vec![label], vec![7; 3072]].concat();
        std::fs::write(folder.join("data_batch_1.bin"), [record(0), record(1)].concat()).unwrap();
        assert_eq!(open_named(name, origin, &roots).unwrap().kind, DatasetKind::Cifar10);
    }
}
