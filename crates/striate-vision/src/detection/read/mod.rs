//! The readers, and how a set's format is seen from its files.

mod coco;
mod csv;
mod voc;
mod yaml;
mod yolo;

pub(crate) use coco::{CocoFile, json_error, read_coco};

use super::annotations::{AnnotatedPicture, AnnotatedSet, BoxFormat};
use super::faults::{Fault, FaultKind, Repair};
use crate::data::{DataError, Listing, PictureHead, Result, did_you_mean, is_picture, probe_head};
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most bytes of a json, which speaks of all pictures of a part: COCO's own largest has half a gigabyte.
const MAX_JSON_BYTES: u64 = 4 << 30;
/// Most bytes of any other file of labels.
const MAX_LABEL_BYTES: u64 = 256 << 20;

/// Faults with a guess at what was meant.
const MOST_HINTS: usize = 100;

/// Lists of the classes, one a line, in order; VOC and tables have none of their own.
const CLASS_LISTS: [&str; 2] = ["classes.txt", "labels.txt"];

/// Opens annotated pictures: a folder, or a COCO `.json`, a YOLO `.yaml` or a `.csv`. What they are, is seen from the files.
///
/// Boxes without area and those wholly outside are left out, swapped corners put in order, and what reaches beyond the picture is
/// cut; each with a [`Fault`]. No file is written.
///
/// | format | layout |
/// |---|---|
/// | COCO | `annotations/instances_{train,val,test}*.json`, or `_annotations.coco.json` in the folder of each part, or one json |
/// | VOC | `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/{train,val,test}.txt`; or xml beside the pictures, with or without parts |
/// | YOLO | `data.yaml` with `names`, `train`, `val`, `test`; `images/` and `labels/`; coordinates relative to the picture |
/// | CSV | columns `path`, `x1`, `y1`, `x2`, `y2`, `class`, and maybe `split`; or `train.csv`, `val.csv`, `test.csv` |
///
/// # Errors
/// [`DataError::UnknownFormat`] with what was tried; [`DataError::Annotations`] for a file that cannot be used at all.
pub fn open_annotations(path: &Path) -> Result<AnnotatedSet> {
    open_with(path, false)
}

/// As [`open_annotations`]; with `look`, the size of every picture is looked up even where the annotations say it.
pub(crate) fn open_with(path: &Path, look: bool) -> Result<AnnotatedSet> {
    if !path.exists() {
        return Err(DataError::NotFound { path: path.into(), hint: String::new() });
    }
    let Some(found) = recognise(path)? else {
        let tried = [
            "COCO: no annotations/*.json and no .json with \"images\" and \"annotations\"",
            "Pascal VOC: no Annotations/*.xml, and no .xml beside pictures",
            "YOLO: no data.yaml with `names`, and no images/ beside labels/",
            "CSV: no table whose first line names path, x1, y1, x2, y2, class",
        ];
        return Err(DataError::UnknownFormat { path: path.into(), tried: tried.map(str::to_owned).to_vec() });
    };
    let mut reader = Reader { look, ..Reader::default() };
    let parts = match found.format {
        BoxFormat::Coco => coco::read(&mut reader, path, &found.files)?,
        BoxFormat::Voc => voc::read(&mut reader, path)?,
        BoxFormat::Yolo => yolo::read(&mut reader, path, found.files.first())?,
        BoxFormat::Csv => csv::read(&mut reader, &found.files)?,
    };
    let category_ids = (found.format == BoxFormat::Coco).then(|| reader.category_ids.clone());
    let mut set = AnnotatedSet {
        format: found.format,
        path: path.into(),
        class_names: reader.classes,
        category_ids,
        parts: parts.map(|part| if part.is_empty() { None } else { Some(part) }),
        classes_are_listed: reader.listed,
        unassigned: reader.unassigned,
        faults: reader.faults,
        notes: reader.notes,
    };
    if !set.classes_are_listed {
        settle_classes(&mut set);
    }
    Ok(set)
}

/// Whether boxes lie at this path, and in which format. Looks at names, and at the beginning of as few files as it can.
pub fn recognise_annotations(path: &Path) -> Option<BoxFormat> {
    recognise(path).ok().flatten().map(|found| found.format)
}

/// A format with the files that made it out.
struct Recognised {
    format: BoxFormat,
    files: Vec<PathBuf>,
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|e| endings.iter().any(|ending| e.eq_ignore_ascii_case(ending)))
}

fn recognise(path: &Path) -> Result<Option<Recognised>> {
    let found = |format, files| Ok(Some(Recognised { format, files }));
    if path.is_file() {
        return match () {
            () if has_ending(path, &["json"]) => found(BoxFormat::Coco, vec![path.into()]),
            () if has_ending(path, &["yaml", "yml"]) => found(BoxFormat::Yolo, vec![path.into()]),
            () if csv::is_table(path) => found(BoxFormat::Csv, vec![path.into()]),
            () => Ok(None),
        };
    }
    if voc::seems(path)? {
        return found(BoxFormat::Voc, Vec::new());
    }
    let listing = Listing::read(path)?;
    let files: Vec<PathBuf> = listing.files.iter().map(|file| path.join(file)).collect();
    if let Some(yaml) = files.iter().find(|file| has_ending(file, &["yaml", "yml"]) && yolo::is_description(file)) {
        return found(BoxFormat::Yolo, vec![yaml.clone()]);
    }
    let tables = csv::find(&files);
    if !tables.is_empty() {
        return found(BoxFormat::Csv, tables);
    }
    let jsons = coco::find(path, &listing)?;
    if !jsons.is_empty() {
        return found(BoxFormat::Coco, jsons);
    }
    if yolo::seems(path, &listing) {
        return found(BoxFormat::Yolo, Vec::new());
    }
    Ok(None)
}

/// What a reader gathers besides the pictures.
#[derive(Default)]
struct Reader {
    /// Whether to look every size up.
    look: bool,
    classes: Vec<String>,
    /// Their places.
    places: HashMap<String, usize>,
    /// Whether a file lists the classes; else they are those that occur.
    listed: bool,
    category_ids: Vec<i64>,
    unassigned: Vec<AnnotatedPicture>,
    faults: Vec<Fault>,
    notes: Vec<String>,
}

impl Reader {
    fn tell(&mut self, kind: FaultKind, file: &Path, object: Option<String>, what: String, repair: Repair) {
        let place = object.as_ref().map(|object| format!(", {object}")).unwrap_or_default();
        let message = format!("{}{place}: {what}", file.display());
        self.faults.push(Fault { kind, file: file.into(), object, message, repair });
    }

    /// Takes the classes from a list with one a line, where such a file lies in a folder.
    fn read_class_list(&mut self, folder: &Path) -> Result<()> {
        let Some(path) = CLASS_LISTS.iter().map(|name| folder.join(name)).find(|path| path.is_file()) else {
            return Ok(());
        };
        let text = read_text(&path)?;
        self.classes = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        self.listed = !self.classes.is_empty();
        Ok(())
    }

    /// The class of a name: one that is listed, or a new one where nothing lists them.
    fn class(&mut self, name: &str, file: &Path, object: &str) -> Option<usize> {
        // Lists of classes are read whole before the first object.
        if self.places.is_empty() {
            self.places = first_places(&self.classes);
        }
        if let Some(class) = self.places.get(name) {
            return Some(*class);
        }
        if !self.listed && !name.is_empty() {
            self.places.insert(name.to_owned(), self.classes.len());
            self.classes.push(name.to_owned());
            return Some(self.classes.len() - 1);
        }
        let what =
            format!("the set has no class \"{name}\"; its classes are {}{}", shorten(&self.classes), self.hint(name));
        self.tell(FaultKind::UnknownClass, file, Some(object.to_owned()), what, Repair::LeftOut);
        None
    }

    /// What may have been meant by the name of a class. Only the first faults are worth the search.
    fn hint(&self, name: &str) -> String {
        match self.faults.len() < MOST_HINTS {
            true => did_you_mean(name, self.classes.iter().map(String::as_str)),
            false => String::new(),
        }
    }

    /// The size that boxes of a picture are judged by: what its labels (file, and object in it) declare, if the picture bears that
    /// out or nobody looks.
    fn size(
        &mut self,
        declared: Option<[u32; 2]>,
        picture: &Path,
        (labels, object): (&Path, Option<String>),
        look: bool,
    ) -> Option<[u32; 2]> {
        if declared.is_some() && !look {
            return declared;
        }
        // What is wrong with a picture is said by whoever decodes it.
        let Ok(PictureHead { stored, upright, .. }) = probe_head(picture) else { return declared };
        let Some(size) = declared else { return Some(upright) };
        if size == upright || size == stored {
            return Some(size);
        }
        let what = format!(
            "it says that the picture is {}x{}, but {} is {}x{}; taking the picture's",
            size[0],
            size[1],
            picture.display(),
            upright[0],
            upright[1]
        );
        self.tell(FaultKind::WrongSize, labels, object, what, Repair::None);
        Some(upright)
    }
}

/// The place of each name, the first where it is there twice.
fn first_places(names: &[String]) -> HashMap<String, usize> {
    let mut places = HashMap::new();
    for (place, name) in names.iter().enumerate() {
        places.entry(name.clone()).or_insert(place);
    }
    places
}

/// A few names of a list.
fn shorten(names: &[String]) -> String {
    let shown = names.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > 10 { format!("{shown}, … ({} in all)", names.len()) } else { shown }
}

/// A whole text file, a byte order mark left out. Only regular files are read: a pipe would block for ever.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let wrong = |what: String| DataError::Annotations { file: path.into(), place: None, what };
    let metadata = std::fs::metadata(path).map_err(|e| DataError::io(path, e))?;
    if !metadata.is_file() {
        return Err(wrong("it is no regular file".into()));
    }
    let most = if has_ending(path, &["json"]) { MAX_JSON_BYTES } else { MAX_LABEL_BYTES };
    let file = std::fs::File::open(path).map_err(|e| DataError::io(path, e))?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|e| DataError::io(path, e))?;
    if bytes.len() as u64 > most {
        return Err(wrong(format!("it has more than {most} bytes, the most that are read")));
    }
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| {
        wrong(format!("byte {} is no UTF-8; save the file as UTF-8", error.utf8_error().valid_up_to()))
    })
}

/// Pictures of a folder by their names without ending.
fn pictures_by_stem(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let files = Listing::read(folder)?.files;
    let pictures = files.iter().map(|file| folder.join(file)).filter(|path| is_picture(path));
    Ok(pictures.filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), path))).collect())
}

/// Gives classes that nothing lists their order: by number where they are numbers, else by name. A class that the training part
/// never shows cannot be learned: its objects in the other parts are left out.
fn settle_classes(set: &mut AnnotatedSet) {
    let train = set.class_counts(0);
    let untrained = train.iter().all(|count| *count == 0);
    let is_known = |class: usize| untrained || train[class] > 0;
    let names = std::mem::take(&mut set.class_names);
    let mut known: Vec<String> = (0..names.len()).filter(|class| is_known(*class)).map(|c| names[c].clone()).collect();
    known.sort_by_cached_key(|name| (name.parse::<u64>().unwrap_or(u64::MAX), name.clone()));
    let places = first_places(&known);
    let place: Vec<Option<usize>> = names.iter().map(|name| places.get(name).copied()).collect();
    for picture in set.parts.iter_mut().flatten().chain([&mut set.unassigned]).flatten() {
        let (file, faults) = (&picture.labels_file, &mut set.faults);
        picture.labels.retain_mut(|label| {
            if let Some(class) = place[label.class] {
                label.class = class;
                return true;
            }
            let name = &names[label.class];
            let near = faults.len() < MOST_HINTS;
            let hint = if near { did_you_mean(name, known.iter().map(String::as_str)) } else { String::new() };
            let object = set.format.object(label, name);
            let message = format!(
                "{}, {object}: the training part has no class \"{name}\"; its classes are {}{hint}",
                file.display(),
                shorten(&known)
            );
            let (kind, repair) = (FaultKind::UnknownClass, Repair::LeftOut);
            faults.push(Fault { kind, file: file.clone(), object: Some(object), message, repair });
            false
        });
    }
    set.class_names = known;
}
