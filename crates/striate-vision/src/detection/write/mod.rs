//! Writing a set of boxes in any of the formats, with an account of what that format cannot hold.

mod coco;
mod csv;
mod voc;
mod yolo;

use super::annotations::{AnnotatedPicture, AnnotatedSet, BoxFormat, BoxLabel, PARTS};
use crate::data::{DataError, Result};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use striate_io::write_atomic;

/// Something that the new format does not hold as the old one did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Loss {
    /// What, and what became of it.
    pub what: String,
    /// How often.
    pub count: usize,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Pictures.
    pub pictures: usize,
    /// Boxes.
    pub boxes: usize,
    /// What is not as it was.
    pub losses: Vec<Loss>,
}

/// A picture under its new name.
struct Named<'a> {
    /// File name, unique in the set also without its ending.
    name: String,
    size: [u32; 2],
    picture: &'a AnnotatedPicture,
}

impl Named<'_> {
    /// The name without ending.
    fn stem(&self) -> &str {
        self.name.rsplit_once('.').map_or(self.name.as_str(), |(stem, _)| stem)
    }
}

/// The pictures of each part, under their new names.
type Parts<'a> = [Vec<Named<'a>>; 3];

/// Writes a set, labels and copies of the pictures, into a folder that is new or empty. The source is only read.
///
/// Faulty boxes and pictures, which the set does not have any more, are not written; see [`AnnotatedSet::repairs`].
///
/// ```
/// use striate_vision::data::{Image, encode_png};
/// use striate_vision::detection::{BoxFormat, open_annotations, write_annotations};
///
/// let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("a.png"), encode_png(&Image::filled(40, 20, &[7]))?)?;
/// std::fs::write(folder.path().join("boxes.csv"), "path,x1,y1,x2,y2,class\na.png,1,2,31,12,cat\n")?;
/// let set = open_annotations(folder.path())?;
/// let target = folder.path().join("yolo");
/// let written = write_annotations(&set, &target, BoxFormat::Yolo)?;
/// assert_eq!((written.pictures, written.boxes, written.losses.len()), (1, 1, 0));
/// assert_eq!(std::fs::read_to_string(target.join("labels/train/a.txt"))?, "0 0.4 0.35 0.75 0.5\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`DataError::Config`] for a folder with something in it, and what the system says.
pub fn write_annotations(set: &AnnotatedSet, folder: &Path, format: BoxFormat) -> Result<Written> {
    let occupied = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if occupied || folder.is_file() {
        return Err(DataError::Config(format!(
            "{}: there is something in it already; name a new folder",
            folder.display()
        )));
    }
    let mut written = Written { losses: losses(set, format), ..Written::default() };
    let parts = name_pictures(set, &mut written.losses);
    let all = || parts.iter().flatten();
    (written.pictures, written.boxes) = (all().count(), all().map(|named| named.picture.labels.len()).sum());
    for (part, named) in parts.iter().enumerate().flat_map(|(part, list)| list.iter().map(move |named| (part, named))) {
        let target = folder.join(pictures_folder(format, part)).join(&named.name);
        make_folder_of(&target)?;
        std::fs::copy(&named.picture.file, &target).map_err(|error| DataError::io(&named.picture.file, error))?;
    }
    match format {
        BoxFormat::Coco => coco::write(set, folder, &parts)?,
        BoxFormat::Voc => voc::write(set, folder, &parts)?,
        BoxFormat::Yolo => yolo::write(set, folder, &parts)?,
        BoxFormat::Csv => csv::write(set, folder, &parts)?,
    }
    Ok(written)
}

/// Where the pictures of a part go.
fn pictures_folder(format: BoxFormat, part: usize) -> PathBuf {
    match format {
        BoxFormat::Coco => PathBuf::from(PARTS[part]),
        BoxFormat::Voc => PathBuf::from("JPEGImages"),
        BoxFormat::Yolo => Path::new("images").join(PARTS[part]),
        BoxFormat::Csv => PathBuf::from("images"),
    }
}

fn make_folder_of(file: &Path) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).map_err(|error| DataError::io(folder, error))
}

/// Writes a text file whole.
fn write_text(path: &Path, text: &str) -> Result<()> {
    make_folder_of(path)?;
    write_atomic(path, text.as_bytes()).map_err(|error| DataError::Other(Box::new(error)))
}

/// Writes `classes.txt`, which keeps the order of the classes, and those without boxes.
fn write_class_list(set: &AnnotatedSet, folder: &Path) -> Result<()> {
    let names: String = set.class_names.iter().map(|name| format!("{}\n", name.replace(['\r', '\n'], " "))).collect();
    write_text(&folder.join("classes.txt"), &names)
}

/// Gives each picture a name that no other has, whatever its folder was. Pictures whose size nobody knows cannot be read, and are
/// left out.
fn name_pictures<'a>(set: &'a AnnotatedSet, losses: &mut Vec<Loss>) -> Parts<'a> {
    let mut taken = HashSet::new();
    let (mut renamed, mut unsized_) = (0, 0);
    let mut parts: Parts<'a> = Default::default();
    for (part, picture) in
        set.parts.iter().enumerate().flat_map(|(part, list)| list.iter().flatten().map(move |picture| (part, picture)))
    {
        let Some(size) = picture.size else {
            unsized_ += 1;
            continue;
        };
        let own = picture.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (stem, ending) = own.rsplit_once('.').unwrap_or((&own, "jpg"));
        let candidates = [stem.to_owned(), format!("{}_{stem}", PARTS[part])].into_iter();
        let mut candidates = candidates.chain((2u64..).map(|n| format!("{}_{stem}_{n}", PARTS[part])));
        // Names are compared as file systems do that know no capitals.
        let stem = candidates.find(|stem| taken.insert(stem.to_lowercase())).unwrap_or_default();
        let name = format!("{stem}.{ending}");
        renamed += usize::from(name != own);
        parts[part].push(Named { name, size, picture });
    }
    let mut tell = |what: &str, count| lose(losses, what, count);
    tell("pictures have a new name, as another had theirs", renamed);
    tell("pictures cannot be read and are left out", unsized_);
    parts
}

fn lose(losses: &mut Vec<Loss>, what: &str, count: usize) {
    if count > 0 {
        losses.push(Loss { what: what.to_owned(), count });
    }
}

/// What the format has no place for.
fn losses(set: &AnnotatedSet, format: BoxFormat) -> Vec<Loss> {
    let mut losses = Vec::new();
    let count = |which: fn(&BoxLabel) -> bool| {
        set.pictures().flat_map(|picture| &picture.labels).filter(|label| which(label)).count()
    };
    let mut tell = |what: &str, count| lose(&mut losses, what, count);
    if format != BoxFormat::Coco {
        let what = "crowds become boxes like others: the format does not tell them apart";
        tell(what, count(|label| label.iscrowd));
        tell("shapes (polygons, masks) are lost: boxes alone are kept", count(|label| label.segmentation.is_some()));
        let area =
            |label: &BoxLabel| label.area.is_some_and(|a| (a - label.size()[0] * label.size()[1]).abs() > 1e-6 * a);
        tell("areas that are not width times height are lost", count(area));
        let ids = set.category_ids.as_ref().map_or(0, |ids| ids.iter().zip(1..).filter(|(id, n)| *id != n).count());
        tell("classes lose their numbers, but not their order", ids);
    }
    if matches!(format, BoxFormat::Yolo | BoxFormat::Csv) {
        tell("boxes lose the mark `difficult`", count(|label| label.difficult));
        tell("boxes lose the mark `truncated`", count(|label| label.truncated));
    }
    if format == BoxFormat::Coco {
        let what = "boxes have a mark `difficult` or `truncated`: kept under keys that COCO does not have";
        tell(what, count(|label| label.difficult || label.truncated));
    }
    if format == BoxFormat::Voc {
        let what = "boxes have fractions of pixels: kept, though some readers of VOC take whole numbers alone";
        tell(what, count(|label| label.xyxy.iter().any(|v| v.fract() != 0.0)));
    }
    tell("pictures of no part are left out", set.unassigned.len());
    losses
}
