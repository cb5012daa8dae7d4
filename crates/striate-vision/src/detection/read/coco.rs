//! COCO: one json for a part, with pictures, boxes and classes by number.

use super::{Reader, first_places, has_ending, read_text};
use crate::data::{DataError, Listing, Result, is_picture, part_of};
use crate::detection::annotations::{AnnotatedPicture, BoxLabel, Segmentation};
use crate::detection::faults::{FaultKind, Place, Repair, check_box};
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The file, as much of it as is used.
#[derive(Deserialize)]
pub(crate) struct CocoFile {
    pub images: Vec<CocoImage>,
    #[serde(default)]
    pub annotations: Vec<CocoAnnotation>,
    #[serde(default)]
    pub categories: Vec<CocoCategory>,
}

#[derive(Deserialize)]
pub(crate) struct CocoImage {
    pub id: i64,
    #[serde(default)]
    pub file_name: String,
    pub width: Option<f64>,
    pub height: Option<f64>,
}

#[derive(Deserialize)]
pub(crate) struct CocoAnnotation {
    pub id: Option<i64>,
    pub image_id: i64,
    pub category_id: i64,
    /// x, y, width, height.
    pub bbox: Option<Vec<f64>>,
    pub area: Option<f64>,
    #[serde(default)]
    pub iscrowd: Flag,
    #[serde(default)]
    pub difficult: Flag,
    #[serde(default)]
    pub truncated: Flag,
    #[serde(default)]
    pub segmentation: Shape,
}

#[derive(Clone, Deserialize)]
pub(crate) struct CocoCategory {
    pub id: i64,
    pub name: String,
}

/// A shape that can be read, or none: files hold all sorts of things there, and boxes do not need it.
#[derive(Default, Deserialize)]
#[serde(from = "ShapeText")]
pub(crate) struct Shape(pub Option<Segmentation>);

#[derive(Deserialize)]
#[serde(untagged)]
enum ShapeText {
    Known(Segmentation),
    Other(serde::de::IgnoredAny),
}

impl From<ShapeText> for Shape {
    fn from(text: ShapeText) -> Shape {
        Shape(match text {
            // COCO's tools want an empty list where there is no shape.
            ShapeText::Known(Segmentation::Polygons(list)) if list.is_empty() => None,
            ShapeText::Known(shape) => Some(shape),
            ShapeText::Other(_) => None,
        })
    }
}

/// 0, 1, false or true.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(from = "FlagText")]
pub(crate) struct Flag(pub bool);

#[derive(Deserialize)]
#[serde(untagged)]
enum FlagText {
    Bool(bool),
    Number(f64),
    Other(serde::de::IgnoredAny),
}

impl From<FlagText> for Flag {
    fn from(text: FlagText) -> Flag {
        Flag(match text {
            FlagText::Bool(value) => value,
            FlagText::Number(value) => value != 0.0,
            FlagText::Other(_) => false,
        })
    }
}

/// Reads a file of annotations.
///
/// # Errors
/// [`DataError::Annotations`] with line and column where it is no such file.
pub(crate) fn read_coco(path: &Path) -> Result<CocoFile> {
    let text = read_text(path)?;
    if text.trim_start().starts_with('[') {
        let what = "it is a list, as files of detections are; annotations are an object with `images`, `annotations` and `categories`";
        return Err(DataError::Annotations { file: path.into(), place: None, what: what.into() });
    }
    serde_json::from_str(&text).map_err(|error| json_error(path, &error))
}

/// What serde has to say, with the place apart.
pub(crate) fn json_error(path: &Path, error: &serde_json::Error) -> DataError {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what).to_owned();
    let place = Some(format!("line {}, column {}", error.line(), error.column()));
    DataError::Annotations { file: path.into(), place, what }
}

/// Bytes in which a file shows what it is.
const HEAD_BYTES: u64 = 4096;

/// Whether a json may be one of instances: other files of COCO (captions, keypoints, results) lie beside them.
fn is_instances(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
    if read.is_err() || !path.is_file() {
        return false;
    }
    let text = String::from_utf8_lossy(&head);
    // The pictures may come after megabytes of annotations, so one of the keys will do.
    let keys = ["\"images\"", "\"annotations\"", "\"categories\""];
    text.trim_start_matches('\u{feff}').trim_start().starts_with('{') && keys.iter().any(|key| text.contains(key))
}

/// The json files of a folder, one for each part.
pub(super) fn find(root: &Path, listing: &Listing) -> Result<Vec<PathBuf>> {
    let in_folder = |folder: &Path, listing: &Listing| -> Vec<PathBuf> {
        let files = listing.files.iter().map(|file| folder.join(file));
        let files = files.filter(|path| has_ending(path, &["json"]) && is_instances(path));
        let all: Vec<PathBuf> = files.collect();
        let instances =
            |path: &&PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("instances"));
        let best: Vec<PathBuf> = all.iter().filter(instances).cloned().collect();
        if best.is_empty() { all } else { best }
    };
    let mut found = in_folder(root, listing);
    let own = listing.folders.iter().find(|name| name.eq_ignore_ascii_case("annotations"));
    if let Some(folder) = own.filter(|_| found.is_empty()).map(|name| root.join(name)) {
        found = in_folder(&folder, &Listing::read(&folder)?);
    }
    if found.is_empty() {
        for name in listing.folders.iter().filter(|name| part_of(name).is_some()) {
            found.extend(in_folder(&root.join(name), &Listing::read(&root.join(name))?));
        }
    }
    Ok(found)
}

/// The part that a file's name, or that of its folder, speaks of; the training part if neither does.
fn part_of_file(path: &Path) -> usize {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let folder = path.parent().and_then(Path::file_name).and_then(part_of);
    [("train", 0), ("val", 1), ("test", 2)]
        .into_iter()
        .find_map(|(word, part)| name.contains(word).then_some(part))
        .or(folder)
        .unwrap_or(0)
}

pub(super) fn read(reader: &mut Reader, root: &Path, files: &[PathBuf]) -> Result<[Vec<AnnotatedPicture>; 3]> {
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    let mut opened = Vec::new();
    for path in files {
        opened.push((part_of_file(path), path, read_coco(path)?));
    }
    // The training part says which classes there are.
    opened.sort_by_key(|(part, ..)| *part);
    for (part, path, file) in opened {
        let places = classes(reader, path, &file)?;
        parts[part].extend(pictures(reader, (root, path), file, &places));
    }
    tell_unlisted(reader, &parts);
    Ok(parts)
}

/// The class of each category of a file.
fn classes(reader: &mut Reader, path: &Path, file: &CocoFile) -> Result<HashMap<i64, usize>> {
    let mut categories = file.categories.clone();
    categories.sort_by_key(|category| category.id);
    if let Some(twice) = categories.windows(2).find(|pair| pair[0].id == pair[1].id) {
        let what = format!("\"{}\" and \"{}\" have the same id {}", twice[0].name, twice[1].name, twice[0].id);
        return Err(DataError::Annotations { file: path.into(), place: Some("categories".into()), what });
    }
    if !reader.listed {
        reader.classes = categories.iter().map(|category| category.name.clone()).collect();
        reader.category_ids = categories.iter().map(|category| category.id).collect();
        reader.listed = !categories.is_empty();
    }
    let by_name = first_places(&reader.classes);
    let place = |category: &CocoCategory| Some((category.id, *by_name.get(&category.name)?));
    Ok(categories.iter().filter_map(place).collect())
}

/// Folders in which the pictures of a json may lie, best first.
fn folders(root: &Path, json: &Path) -> Vec<PathBuf> {
    let own = json.parent().unwrap_or(Path::new(""));
    let root = if root.is_dir() { root } else { own };
    let above = if own.file_name().is_some_and(|name| name.eq_ignore_ascii_case("annotations")) {
        own.parent().unwrap_or(root)
    } else {
        root
    };
    let stem = json.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let part = stem.strip_prefix("instances_").unwrap_or(&stem).to_owned();
    let word = ["train", "val", "test"][part_of_file(json)].to_owned();
    let mut places = Vec::new();
    for base in [above, root] {
        for inner in [part.as_str(), word.as_str()] {
            places.extend([base.join(inner), base.join("images").join(inner)]);
        }
        places.extend([base.join("images"), base.to_path_buf()]);
    }
    places.push(own.to_path_buf());
    places
}

/// The pictures of a json with their boxes.
fn pictures(
    reader: &mut Reader,
    (root, path): (&Path, &Path),
    file: CocoFile,
    classes: &HashMap<i64, usize>,
) -> Vec<AnnotatedPicture> {
    let folders = folders(root, path);
    // Most sets keep all pictures of a part in one folder: the one that the last was found in is tried first.
    let mut last = 0;
    let mut found = Vec::new();
    let mut places: HashMap<i64, Option<usize>> = HashMap::new();
    for image in &file.images {
        let object = format!("image {} ({})", image.id, image.file_name);
        if places.contains_key(&image.id) {
            let what = "its id is that of another image before it".to_owned();
            reader.tell(FaultKind::BadLabel, path, Some(object), what, Repair::LeftOut);
            continue;
        }
        let order = [last].into_iter().chain(0..folders.len());
        let hit = order.map(|at| (at, folders[at].join(&image.file_name))).find(|(_, file)| file.is_file());
        let place = hit.filter(|_| !image.file_name.is_empty()).map(|(at, picture)| {
            last = at;
            let side = |v: Option<f64>| v.filter(|v| (1.0..4e9).contains(v)).map(|v| v as u32);
            let declared = side(image.width).zip(side(image.height)).map(|(w, h)| [w, h]);
            let look = reader.look;
            let size = reader.size(declared, &picture, (path, Some(object.clone())), look);
            let id = Some(image.id);
            found.push(AnnotatedPicture { file: picture, labels_file: path.into(), size, labels: Vec::new(), id });
            found.len() - 1
        });
        if place.is_none() {
            let what = format!("the picture is not there; looked in {}", names(&folders));
            reader.tell(FaultKind::MissingPicture, path, Some(object), what, Repair::LeftOut);
        }
        places.insert(image.id, place);
    }
    let category_names: HashMap<i64, &str> = file.categories.iter().map(|c| (c.id, c.name.as_str())).collect();
    for (index, annotation) in file.annotations.into_iter().enumerate() {
        let number = annotation.id.unwrap_or(index as i64 + 1);
        let name = category_names.get(&annotation.category_id).copied();
        let object = match name {
            Some(name) => format!("annotation {number} ({name})"),
            None => format!("annotation {number}"),
        };
        let Some(place) = places.get(&annotation.image_id) else {
            let what = format!("there is no image {}", annotation.image_id);
            reader.tell(FaultKind::MissingPicture, path, Some(object), what, Repair::LeftOut);
            continue;
        };
        let Some(&class) = classes.get(&annotation.category_id) else {
            let (category, image) = (annotation.category_id, annotation.image_id);
            let what =
                format!("its category {category} (of image {image}) is none of the set's {}", reader.classes.len());
            reader.tell(FaultKind::UnknownClass, path, Some(object), what, Repair::LeftOut);
            continue;
        };
        let label = label(annotation, class, index + 1);
        let (Some(label), Some(place)) = (&label, place) else {
            if label.is_none() {
                let what = "it has no `bbox` of x, y, width and height".to_owned();
                reader.tell(FaultKind::BadLabel, path, Some(object), what, Repair::LeftOut);
            }
            continue;
        };
        let picture = &mut found[*place];
        let place = Place { file: path, object, picture: Some(&picture.file) };
        picture.labels.extend(check_box(label.clone(), picture.size, &place, &mut reader.faults));
    }
    found
}

fn label(annotation: CocoAnnotation, class: usize, position: usize) -> Option<BoxLabel> {
    let [x, y, w, h] = annotation.bbox.as_deref()?.try_into().ok()?;
    Some(BoxLabel {
        class,
        xyxy: [x, y, x + w, y + h],
        iscrowd: annotation.iscrowd.0,
        difficult: annotation.difficult.0,
        truncated: annotation.truncated.0,
        area: annotation.area,
        segmentation: annotation.segmentation.0,
        id: annotation.id,
        position,
    })
}

fn names(folders: &[PathBuf]) -> String {
    let unique: BTreeSet<&PathBuf> = folders.iter().collect();
    unique.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Pictures that lie beside listed ones and are in no file themselves.
fn tell_unlisted(reader: &mut Reader, parts: &[Vec<AnnotatedPicture>; 3]) {
    let listed: HashSet<&Path> = parts.iter().flatten().map(|picture| picture.file.as_path()).collect();
    let folders: BTreeSet<&Path> = listed.iter().filter_map(|file| file.parent()).collect();
    for folder in folders {
        let Ok(listing) = Listing::read(folder) else { continue };
        let pictures = listing.files.iter().map(|file| folder.join(file)).filter(|file| is_picture(file));
        for picture in pictures.filter(|file| !listed.contains(file.as_path())) {
            let what = "no json has this picture among its images".to_owned();
            reader.tell(FaultKind::MissingLabel, &picture, None, what, Repair::LeftOut);
        }
    }
}
