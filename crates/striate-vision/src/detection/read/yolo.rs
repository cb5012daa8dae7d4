//! YOLO: a text file for each picture, a line for each box: class, centre, width and height, relative to the picture.

use super::yaml::{Value, parse_yaml};
use super::{Reader, has_ending, read_text};
use crate::data::{DataError, Listing, Result, is_picture, part_of};
use crate::detection::annotations::{AnnotatedPicture, BoxLabel, PARTS, Segmentation};
use crate::detection::faults::{FaultKind, Place, Repair, check_box};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Text files that are no labels.
const NO_LABELS: [&str; 6] = ["classes.txt", "labels.txt", "train.txt", "val.txt", "test.txt", "notes.txt"];
/// How deep below its folder a picture may lie.
const MAX_DEPTH: usize = 8;

/// Whether a `.yaml` describes a set: it names classes and a part to train on.
pub(super) fn is_description(path: &Path) -> bool {
    let keys = read_text(path).ok().and_then(|text| parse_yaml(&text).ok());
    keys.is_some_and(|keys| keys.contains_key("names") && PARTS.iter().any(|part| keys.contains_key(*part)))
}

/// Whether a folder is laid out so without a description.
pub(super) fn seems(root: &Path, listing: &Listing) -> bool {
    let both = |folder: &Path| folder.join("images").is_dir() && has_labels(&folder.join("labels"), 2);
    both(root) || listing.folders.iter().any(|name| part_of(name).is_some() && both(&root.join(name)))
}

fn has_labels(folder: &Path, depth: usize) -> bool {
    let Ok(listing) = Listing::read(folder) else { return false };
    listing.files.iter().any(|file| has_ending(Path::new(file), &["txt"]))
        || (depth > 0 && listing.folders.iter().any(|inner| has_labels(&folder.join(inner), depth - 1)))
}

/// The folder of labels that belongs to one of pictures: `labels` in the place of the last `images`.
fn labels_folder(pictures: &Path) -> PathBuf {
    let parts: Vec<_> = pictures.components().collect();
    match parts.iter().rposition(|part| part.as_os_str() == "images") {
        Some(at) => {
            let replaced = |(index, part): (usize, &std::path::Component<'_>)| match index == at {
                true => PathBuf::from("labels"),
                false => PathBuf::from(part.as_os_str()),
            };
            parts.iter().enumerate().map(replaced).collect()
        }
        None => pictures.to_path_buf(),
    }
}

/// All pictures below a folder, sorted.
fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    let listing = Listing::read(folder)?;
    files.extend(listing.files.iter().map(|file| folder.join(file)).filter(|path| is_picture(path)));
    for inner in listing.folders.iter().filter(|_| depth < MAX_DEPTH) {
        collect(&folder.join(inner), depth + 1, files)?;
    }
    Ok(())
}

pub(super) fn read(reader: &mut Reader, path: &Path, yaml: Option<&PathBuf>) -> Result<[Vec<AnnotatedPicture>; 3]> {
    let folders = match yaml {
        Some(yaml) => described(reader, yaml)?,
        None => undescribed(reader, path)?,
    };
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    for (part, sources) in folders.into_iter().enumerate() {
        for source in sources {
            parts[part].extend(read_source(reader, &source)?);
        }
    }
    Ok(parts)
}

/// The sources of each part that a description names: folders, or lists of pictures.
fn described(reader: &mut Reader, yaml: &Path) -> Result<[Vec<PathBuf>; 3]> {
    let wrong = |line: Option<usize>, what: String| {
        let place = line.map(|line| format!("line {line}"));
        DataError::Annotations { file: yaml.into(), place, what }
    };
    let keys = parse_yaml(&read_text(yaml)?).map_err(|(line, what)| wrong(Some(line), what))?;
    reader.classes = match keys.get("names") {
        Some(Value::Numbered(names)) => {
            // Numbers may be left out, and may be as large as a file likes.
            let most = names.keys().next_back().map_or(0, |most| most.saturating_add(1));
            if most > names.len().saturating_mul(10).max(1000) {
                return Err(wrong(None, format!("`names` has {} names, but numbers up to {}", names.len(), most - 1)));
            }
            (0..most).map(|class| names.get(&class).cloned().unwrap_or_else(|| class.to_string())).collect()
        }
        Some(names) => names.texts().into_iter().map(str::to_owned).collect(),
        None => Vec::new(),
    };
    if reader.classes.is_empty() {
        return Err(wrong(None, "it has no `names`: the names of the classes, in order".into()));
    }
    reader.listed = true;
    let folder = yaml.parent().unwrap_or(Path::new(""));
    let base = keys.get("path").map(|value| folder.join(value.texts().first().copied().unwrap_or_default()));
    let mut found = [Vec::new(), Vec::new(), Vec::new()];
    for (part, name) in PARTS.iter().enumerate() {
        let texts = keys.get(*name).or_else(|| (part == 1).then(|| keys.get("valid")).flatten()).map(Value::texts);
        for text in texts.unwrap_or_default().into_iter().filter(|text| !text.is_empty()) {
            // Paths are often those of the machine that the file was made on, or one folder off.
            let inside = text.trim_start_matches("../").trim_start_matches("./");
            let bases = base.as_deref().into_iter().chain([folder]);
            let places: Vec<PathBuf> = bases.flat_map(|base| [base.join(text), base.join(inside)]).collect();
            match places.iter().find(|place| place.exists()) {
                Some(place) => found[part].push(place.clone()),
                None if part > 0 => {
                    reader.notes.push(format!("{}: `{name}: {text}` is not there and is left out", yaml.display()));
                }
                None => {
                    let tried = places.iter().map(|place| place.display().to_string()).collect::<BTreeSet<_>>();
                    let tried = tried.into_iter().collect::<Vec<_>>().join(", ");
                    return Err(wrong(None, format!("`{name}: {text}` is not there; looked for {tried}")));
                }
            }
        }
    }
    if found.iter().all(Vec::is_empty) {
        return Err(wrong(None, "it names no `train`, `val` or `test`".into()));
    }
    Ok(found)
}

/// The sources of a folder without a description: `images/`, `images/PART` or `PART/images`.
fn undescribed(reader: &mut Reader, root: &Path) -> Result<[Vec<PathBuf>; 3]> {
    for folder in [root, &root.join("labels")] {
        reader.read_class_list(folder)?;
    }
    let mut found = [Vec::new(), Vec::new(), Vec::new()];
    let images = root.join("images");
    let folder = if images.is_dir() { images.as_path() } else { root };
    for name in Listing::read(folder)?.folders {
        let Some(part) = part_of(&name) else { continue };
        let inside = folder.join(&name);
        found[part].push(if images.is_dir() { inside } else { inside.join("images") });
    }
    if found.iter().all(Vec::is_empty) {
        found[0].push(images);
    }
    Ok(found)
}

/// The pictures of a folder, or of a list with one path a line.
fn read_source(reader: &mut Reader, source: &Path) -> Result<Vec<AnnotatedPicture>> {
    let mut files = Vec::new();
    if source.is_dir() {
        collect(source, 0, &mut files)?;
        tell_pictureless(reader, source, &files)?;
    } else {
        let folder = source.parent().unwrap_or(Path::new(""));
        for (number, line) in read_text(source)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let file = folder.join(line.trim());
            if file.is_file() {
                files.push(file);
                continue;
            }
            let (object, what) = (format!("line {}", number + 1), format!("{} is not there", file.display()));
            reader.tell(FaultKind::MissingPicture, source, Some(object), what, Repair::LeftOut);
        }
    }
    Ok(files.into_iter().map(|file| read_picture(reader, file)).collect())
}

/// Label files beside none of the pictures.
fn tell_pictureless(reader: &mut Reader, source: &Path, pictures: &[PathBuf]) -> Result<()> {
    let stems: BTreeSet<PathBuf> = pictures.iter().map(|path| label_file(path)).collect();
    let folder = labels_folder(source);
    let Ok(listing) = Listing::read(&folder) else { return Ok(()) };
    let labels = listing.files.iter().filter(|name| has_ending(Path::new(name), &["txt"]));
    for path in labels.filter(|name| !NO_LABELS.iter().any(|no| name == no)).map(|name| folder.join(name)) {
        if !stems.contains(&path) {
            let what = format!("its picture is not in {}", source.display());
            reader.tell(FaultKind::MissingPicture, &path, None, what, Repair::LeftOut);
        }
    }
    Ok(())
}

/// The text file of a picture. `with_extension` would take a dot in the name for an ending.
fn label_file(picture: &Path) -> PathBuf {
    let folder = labels_folder(picture.parent().unwrap_or(Path::new("")));
    let mut name = picture.file_stem().unwrap_or_default().to_os_string();
    name.push(".txt");
    folder.join(name)
}

fn read_picture(reader: &mut Reader, file: PathBuf) -> AnnotatedPicture {
    let labels_file = label_file(&file);
    let size = reader.size(None, &file, (&labels_file, None), true);
    let mut picture = AnnotatedPicture { file, labels_file, size, labels: Vec::new(), id: None };
    if !picture.labels_file.is_file() {
        let what = format!("there is no {} for this picture; it is taken as background", picture.labels_file.display());
        reader.tell(FaultKind::MissingLabel, &picture.file, None, what, Repair::None);
        return picture;
    }
    let text = match read_text(&picture.labels_file) {
        Ok(text) => text,
        Err(error) => {
            reader.tell(FaultKind::UnreadableLabel, &picture.labels_file, None, error.to_string(), Repair::LeftOut);
            return picture;
        }
    };
    // Coordinates are relative: without a size they mean nothing. The picture cannot be used either.
    let Some(size) = size else { return picture };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let labels = lines.filter_map(|(number, line)| read_line(reader, line, number + 1, (&picture.labels_file, size)));
    picture.labels = labels.collect();
    picture
}

fn read_line(reader: &mut Reader, line: &str, number: usize, (path, size): (&Path, [u32; 2])) -> Option<BoxLabel> {
    let mut object = format!("line {number}");
    let numbers: Option<Vec<f64>> = line.split_whitespace().map(|word| word.parse().ok()).collect();
    let whole = |v: f64| v >= 0.0 && v.fract() == 0.0 && v < 1e9;
    let numbers = numbers.filter(|n| n.len() >= 5 && (n.len() == 5 || n.len() % 2 == 1) && whole(n[0]));
    let Some(numbers) = numbers else {
        let what = "it is neither a class with x, y, width and height, nor a class with the corners of a polygon";
        reader.tell(FaultKind::BadLabel, path, Some(object), what.to_owned(), Repair::LeftOut);
        return None;
    };
    let named = numbers[0] as usize;
    // Without names, classes are called by their numbers, and there are those that occur.
    let class = if reader.listed { named } else { reader.class(&named.to_string(), path, &object)? };
    if class >= reader.classes.len() {
        let what = format!("there is no class {class}: {} are named, from 0 on", reader.classes.len());
        reader.tell(FaultKind::UnknownClass, path, Some(object), what, Repair::LeftOut);
        return None;
    }
    object = format!("{object} ({})", reader.classes[class]);
    let [width, height] = size.map(f64::from);
    let (xyxy, segmentation) = if numbers.len() == 5 {
        let [x, y, w, h] = [numbers[1] * width, numbers[2] * height, numbers[3] * width, numbers[4] * height];
        ([x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0], None)
    } else {
        let polygon: Vec<f64> =
            numbers[1..].chunks_exact(2).flat_map(|point| [point[0] * width, point[1] * height]).collect();
        let side = |start: usize, pick: fn(f64, f64) -> f64, from: f64| {
            polygon.iter().skip(start).step_by(2).copied().fold(from, pick)
        };
        let (low, high) = (f64::INFINITY, f64::NEG_INFINITY);
        let xyxy = [side(0, f64::min, low), side(1, f64::min, low), side(0, f64::max, high), side(1, f64::max, high)];
        (xyxy, Some(Segmentation::Polygons(vec![polygon])))
    };
    let label =
        BoxLabel { class, xyxy: xyxy.map(without_noise), segmentation, position: number, ..BoxLabel::default() };
    check_box(label, Some(size), &Place { file: path, object, picture: None }, &mut reader.faults)
}

/// Whole pixels, divided by the picture's size and multiplied again, come back as whole pixels.
fn without_noise(v: f64) -> f64 {
    const GRAIN: f64 = 1e9;
    let rounded = (v * GRAIN).round() / GRAIN;
    if rounded.is_finite() { rounded } else { v }
}
