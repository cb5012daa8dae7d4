//! A table with a line for each box: `path,x1,y1,x2,y2,class`. A line without corners and class is a picture of background.

use super::Reader;
use crate::data::{DataError, Result, find_picture, part_of, split_cells};
use crate::detection::annotations::{AnnotatedPicture, BoxLabel};
use crate::detection::faults::{FaultKind, Place, Repair, check_box};
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Names of the columns: path, corners, class, and part, which may be absent.
const COLUMNS: [&[&str]; 7] = [
    &["path", "file", "filename", "file_name", "image", "image_path"],
    &["x1", "xmin", "x_min", "left"],
    &["y1", "ymin", "y_min", "top"],
    &["x2", "xmax", "x_max", "right"],
    &["y2", "ymax", "y_max", "bottom"],
    &["class", "label", "name", "category", "class_name"],
    &["split", "part", "set"],
];

/// Names of a table of all parts.
const WHOLE: [&str; 4] = ["annotations", "labels", "boxes", "data"];

/// Bytes in which the first line must end.
const HEAD_BYTES: u64 = 4096;

/// Where the columns are.
fn columns(head: &[String]) -> Option<[Option<usize>; 7]> {
    let find = |names: &[&str]| head.iter().position(|cell| names.contains(&cell.trim().to_lowercase().as_str()));
    let found = COLUMNS.map(find);
    found[..6].iter().all(Option::is_some).then_some(found)
}

/// Whether a file is such a table: seen from its first line.
pub(super) fn is_table(path: &Path) -> bool {
    if !super::has_ending(path, &["csv"]) || !path.is_file() {
        return false;
    }
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    let head = text.lines().next().and_then(|line| split_cells(line).ok()).and_then(|mut rows| rows.pop());
    read.is_ok() && head.is_some_and(|(_, cells)| columns(&cells).is_some())
}

/// The tables of a folder that make up a set: one for all, else one for each part, else all there are.
pub(super) fn find(files: &[PathBuf]) -> Vec<PathBuf> {
    let tables: Vec<PathBuf> = files.iter().filter(|file| is_table(file)).cloned().collect();
    let stem = |path: &PathBuf| path.file_stem().unwrap_or_default().to_ascii_lowercase();
    if let Some(whole) = tables.iter().find(|path| WHOLE.iter().any(|name| stem(path) == *name)) {
        return vec![whole.clone()];
    }
    let parts: Vec<PathBuf> = tables.iter().filter(|path| part_of(&stem(path)).is_some()).cloned().collect();
    if parts.is_empty() { tables } else { parts }
}

/// One picture's lines, in the order of the first.
#[derive(Default)]
struct Pictures {
    parts: [Vec<AnnotatedPicture>; 3],
    /// By cell and part; nothing where the picture is not there.
    places: HashMap<(String, usize), Option<usize>>,
}

pub(super) fn read(reader: &mut Reader, tables: &[PathBuf]) -> Result<[Vec<AnnotatedPicture>; 3]> {
    let mut pictures = Pictures::default();
    if let Some(folder) = tables.first().and_then(|path| path.parent()) {
        reader.read_class_list(folder)?;
    }
    for path in tables {
        let part = path.file_stem().and_then(part_of).unwrap_or(0);
        read_table(reader, path, part, &mut pictures)?;
    }
    Ok(pictures.parts)
}

fn read_table(reader: &mut Reader, path: &Path, part: usize, pictures: &mut Pictures) -> Result<()> {
    let wrong = |line: Option<usize>, what: &str| DataError::Table { file: path.into(), line, what: what.to_owned() };
    let text = super::read_text(path)?;
    let mut rows = split_cells(&text).map_err(|line| wrong(Some(line), "a quote is not closed"))?.into_iter();
    let columns = rows.next().and_then(|(_, head)| columns(&head));
    let Some(columns) = columns else {
        return Err(wrong(Some(1), "the first line must name the columns path, x1, y1, x2, y2 and class"));
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    for (line, cells) in rows {
        let cell = |column: usize| columns[column].and_then(|at| cells.get(at)).map_or("", String::as_str);
        let part = match cell(6) {
            "" => part,
            name => match part_of(name.as_ref()) {
                Some(part) => part,
                None => return Err(wrong(Some(line), &format!("the part \"{name}\" is none of train, val, test"))),
            },
        };
        let key = (cell(0).to_owned(), part);
        let place = match pictures.places.get(&key) {
            Some(place) => *place,
            None => {
                let place = find_picture(folder, cell(0)).map(|file| {
                    let size = reader.size(None, &file, (path, None), true);
                    let picture = AnnotatedPicture { file, labels_file: path.into(), size, ..Default::default() };
                    pictures.parts[part].push(picture);
                    pictures.parts[part].len() - 1
                });
                if place.is_none() {
                    let what = format!("its picture \"{}\" is not in {}", cell(0), folder.display());
                    reader.tell(FaultKind::MissingPicture, path, Some(format!("line {line}")), what, Repair::LeftOut);
                }
                pictures.places.insert(key, place);
                place
            }
        };
        let label = read_row(reader, [1, 2, 3, 4, 5].map(cell), (path, line));
        let (Some(place), Some((label, object))) = (place, label) else { continue };
        let picture = &mut pictures.parts[part][place];
        let place = Place { file: path, object, picture: Some(&picture.file) };
        picture.labels.extend(check_box(label, picture.size, &place, &mut reader.faults));
    }
    Ok(())
}

/// The box of a line, with its place; nothing for background and for what cannot be read.
fn read_row(reader: &mut Reader, cells: [&str; 5], (path, line): (&Path, usize)) -> Option<(BoxLabel, String)> {
    let object = format!("line {line}");
    if cells.iter().all(|cell| cell.is_empty()) {
        return None;
    }
    let [Ok(x1), Ok(y1), Ok(x2), Ok(y2)] = [0, 1, 2, 3].map(|i| cells[i].parse::<f64>()) else {
        let what = format!("its corners ({}) are no four numbers", cells[..4].join(", "));
        reader.tell(FaultKind::BadLabel, path, Some(object), what, Repair::LeftOut);
        return None;
    };
    if cells[4].is_empty() {
        reader.tell(FaultKind::BadLabel, path, Some(object), "it names no class".to_owned(), Repair::LeftOut);
        return None;
    }
    let class = reader.class(cells[4], path, &object)?;
    let object = format!("{object} ({})", cells[4]);
    Some((BoxLabel { class, xyxy: [x1, y1, x2, y2], position: line, ..BoxLabel::default() }, object))
}
