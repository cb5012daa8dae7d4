//! Looking at every file of a set of boxes.

mod similar;

use super::annotations::{AnnotatedPicture, AnnotatedSet, BoxFormat, PARTS};
use super::faults::{Fault, FaultKind, Repair};
use super::read::open_with;
use crate::data::{
    DataError, Image, PictureError, PictureHead, Result, decode_into, did_you_mean, probe_head, read_limited,
};
use image::ImageFormat;
use similar::{Gallery, Likeness};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A class in at most this part of the label files, which no list of classes names, may be a slip of the pen.
const RARE: f64 = 0.01;
/// That is said where every other class is in at least so many times as many files.
const RARE_FACTOR: usize = 3;
/// Fewer label files say nothing about what is rare.
const LEAST_FILES: usize = 8;

/// What was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What the files are.
    pub format: BoxFormat,
    /// Pictures, those of no part included.
    pub pictures: usize,
    /// Boxes that can be used.
    pub boxes: usize,
    /// Remarks, such as label files of no part.
    pub notes: Vec<String>,
}

/// Reads every label and decodes every picture of a set, and gives each fault to `tell`, with file and object. Nothing is written.
///
/// Besides what [`open_annotations`](super::open_annotations) finds: pictures that cannot be decoded, that are of another format
/// than their ending says, or are turned by EXIF data; sizes that are not the picture's; boxes that are there twice; classes that
/// look like slips of the pen; and pictures that are there twice or nearly so, within a part or across parts.
///
/// ```
/// use striate_vision::data::{Image, encode_png};
/// use striate_vision::detection::{FaultKind, check_annotations};
///
/// let folder = tempfile::tempdir()?;
/// // A PNG that calls itself a JPEG, and a box beyond its edge.
/// std::fs::write(folder.path().join("a.jpg"), encode_png(&Image::filled(40, 20, &[7]))?)?;
/// std::fs::write(folder.path().join("boxes.csv"), "path,x1,y1,x2,y2,class\na.jpg,1,2,50,12,cat\n")?;
/// let mut kinds = Vec::new();
/// let checked = check_annotations(folder.path(), &mut |fault| kinds.push((fault.kind, fault.object)))?;
/// assert_eq!((checked.pictures, checked.boxes), (1, 1));
/// assert_eq!(kinds, [(FaultKind::Outside, Some("line 2 (cat)".into())), (FaultKind::WrongFormat, None)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`open_annotations`](super::open_annotations), and what the system says where a file cannot be read.
pub fn check_annotations(path: &Path, tell: &mut dyn FnMut(Fault)) -> Result<Checked> {
    let set = open_with(path, true)?;
    set.faults.iter().cloned().for_each(&mut *tell);
    check_classes(&set, tell);
    set.pictures().chain(&set.unassigned).for_each(|picture| check_boxes(&set, picture, tell));
    let boxes = set.pictures().map(|picture| picture.labels.len()).sum();
    Ok(Checked { format: set.format, pictures: check_pictures(&set, tell)?, boxes, notes: set.notes })
}

fn fault(kind: FaultKind, file: &Path, object: Option<String>, what: &str) -> Fault {
    let place = object.as_ref().map(|object| format!(", {object}")).unwrap_or_default();
    let message = format!("{}{place}: {what}", file.display());
    Fault { kind, file: file.into(), object, message, repair: Repair::None }
}

/// Where nothing lists the classes, one that hardly ever occurs while the others do may be a misspelt one.
fn check_classes(set: &AnnotatedSet, tell: &mut dyn FnMut(Fault)) {
    if set.classes_are_listed {
        return;
    }
    let pictures: Vec<&AnnotatedPicture> = set.pictures().chain(&set.unassigned).collect();
    let mut files = vec![0; set.class_names.len()];
    for picture in &pictures {
        let classes: BTreeSet<usize> = picture.labels.iter().map(|label| label.class).collect();
        classes.into_iter().for_each(|class| files[class] += 1);
    }
    let most = ((pictures.len() as f64 * RARE) as usize).max(1);
    let (rare, common): (Vec<usize>, Vec<usize>) = (0..files.len()).partition(|class| files[*class] <= most);
    let (largest, least) = (rare.iter().map(|c| files[*c]).max(), common.iter().map(|c| files[*c]).min());
    let (Some(largest), Some(least)) = (largest, least) else { return };
    if pictures.len() < LEAST_FILES || least < RARE_FACTOR * largest || rare.len() > common.len() {
        return;
    }
    let is_rare: BTreeSet<usize> = rare.into_iter().collect();
    let known: Vec<&str> = common.iter().map(|class| set.class_names[*class].as_str()).collect();
    for picture in pictures {
        for label in picture.labels.iter().filter(|label| is_rare.contains(&label.class)) {
            let name = &set.class_names[label.class];
            let what = format!(
                "class \"{name}\" is in {} of the set's label files, every other class in at least {least} ({}){}; a file classes.txt \
                 with all names would settle it",
                files[label.class],
                known.join(", "),
                did_you_mean(name, known.iter().copied())
            );
            tell(fault(FaultKind::UnknownClass, &picture.labels_file, Some(set.object(label)), &what));
        }
    }
}

/// The same box of the same class twice.
fn check_boxes(set: &AnnotatedSet, picture: &AnnotatedPicture, tell: &mut dyn FnMut(Fault)) {
    let mut seen = BTreeMap::new();
    for label in &picture.labels {
        let key = (label.class, label.iscrowd, label.xyxy.map(f64::to_bits));
        if let Some(first) = seen.insert(key, label) {
            let what = format!("the same box as {}", set.object(first));
            tell(fault(FaultKind::RepeatedBox, &picture.labels_file, Some(set.object(label)), &what));
        }
    }
}

/// The format that a file's ending promises.
fn promised(path: &Path) -> Option<ImageFormat> {
    match path.extension()?.to_str()?.to_lowercase().as_str() {
        "jpg" | "jpeg" => Some(ImageFormat::Jpeg),
        "png" => Some(ImageFormat::Png),
        "webp" => Some(ImageFormat::WebP),
        "bmp" => Some(ImageFormat::Bmp),
        _ => None,
    }
}

/// Every picture with the name of its part; those without labels too.
fn all_pictures(set: &AnnotatedSet) -> Vec<(&'static str, PathBuf)> {
    let parts = PARTS.iter().zip(&set.parts);
    let in_parts = parts.flat_map(|(name, part)| part.iter().flatten().map(|picture| (*name, picture.file.clone())));
    let unassigned = set.unassigned.iter().map(|picture| ("", picture.file.clone()));
    let unlabelled =
        set.faults.iter().filter(|fault| fault.kind == FaultKind::MissingLabel && fault.repair == Repair::LeftOut);
    in_parts.chain(unassigned).chain(unlabelled.map(|fault| ("", fault.file.clone()))).collect()
}

fn check_pictures(set: &AnnotatedSet, tell: &mut dyn FnMut(Fault)) -> Result<usize> {
    let pictures = all_pictures(set);
    let mut gallery = Gallery::default();
    let (mut bytes, mut image) = (Vec::new(), Image::default());
    for (index, (_, file)) in pictures.iter().enumerate() {
        if let Ok(head) = probe_head(file) {
            check_head(file, head, tell);
        }
        match read_limited(file, &mut bytes) {
            Ok(()) => {}
            Err(DataError::Picture { reason, .. }) => {
                tell(fault(FaultKind::UnreadablePicture, file, None, &reason.to_string()));
                continue;
            }
            Err(error) => return Err(error),
        }
        if let Err(reason) = decode_into(&bytes, &mut image) {
            let kind = match &reason {
                PictureError::Truncated(_) => FaultKind::TruncatedPicture,
                // Of a kind that is known, and not read.
                PictureError::NotAPicture { hint } if hint.contains("picture") => FaultKind::WrongFormat,
                _ => FaultKind::UnreadablePicture,
            };
            tell(fault(kind, file, None, &reason.to_string()));
            continue;
        }
        if let Some((other, likeness)) = gallery.add(index, &image) {
            tell(alike(&pictures[index], &pictures[other], likeness));
        }
    }
    Ok(pictures.len())
}

/// Two pictures that are the same, or nearly. What is trained on and judged by makes the judgement worthless.
fn alike((part, file): &(&str, PathBuf), (other_part, other): &(&str, PathBuf), likeness: Likeness) -> Fault {
    let across = part != other_part && !part.is_empty() && !other_part.is_empty();
    let kind = match likeness {
        _ if across => FaultKind::Leak,
        Likeness::Same => FaultKind::Duplicate,
        Likeness::Near(_) => FaultKind::NearDuplicate,
    };
    let how = match likeness {
        Likeness::Same => "the same picture as".to_owned(),
        Likeness::Near(correlation) => format!("nearly the same picture (correlation {correlation:.3}) as"),
    };
    let what = match () {
        () if file == other && across => format!("it is in the {other_part} part and in the {part} part"),
        () if file == other => format!("the {part} part has it twice"),
        () if across => format!("in the {part} part, {how} {} of the {other_part} part", other.display()),
        () => format!("{how} {}", other.display()),
    };
    fault(kind, file, None, &what)
}

fn check_head(file: &Path, head: PictureHead, tell: &mut dyn FnMut(Fault)) {
    if let Some(format) = promised(file).filter(|format| *format != head.format) {
        let what = format!("it is a {:?} picture, though its name says {format:?}", head.format);
        tell(fault(FaultKind::WrongFormat, file, None, &what));
    }
    if head.is_turned {
        let ([w, h], [uw, uh]) = (head.stored, head.upright);
        let what = format!(
            "its EXIF data turns it from {w}x{h} to {uw}x{uh}; it is trained on upright, so see whether its boxes are drawn so"
        );
        tell(fault(FaultKind::ExifTurn, file, None, &what));
    }
}
