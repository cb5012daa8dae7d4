//! Pictures named in a table (CSV): a class, several labels, or numbers for each.
//!
//! The first column is the file, below the table's folder. Then either one column of labels (`cat outdoor`; apart by spaces, or by
//! `|` or `;` where those occur), or a column for each label (0 or 1) or number, named in the first line. A column `split` says
//! which part a row is of.

use super::dataset::{Dataset, Sample};
use super::error::{DataError, Result, did_you_mean};
use super::folder::part_of;
use super::picture::{Image, PictureInfo, decode_into, probe, read_limited};
use crate::models::Task;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names of tables in a folder: the whole, or by part.
const WHOLE: [&str; 3] = ["labels.csv", "annotations.csv", "data.csv"];
const PARTS: [&str; 3] = ["train.csv", "val.csv", "test.csv"];
/// Folders beside a table that may hold its pictures.
const FOLDERS: [&str; 4] = ["", "images", "imgs", "img"];
/// Endings that a table may leave out.
const ENDINGS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];
/// Names of the first column.
const FILE_NAMES: [&str; 8] = ["file", "filename", "file_name", "image", "path", "id", "image_id", "picture"];

/// Pictures with what a table says of them.
#[derive(Debug)]
pub struct TableDataset {
    files: Vec<PathBuf>,
    labels: Vec<u32>,
    /// [sample][class]; none for one class each.
    values: Vec<f32>,
    names: Arc<Vec<String>>,
}

impl TableDataset {
    /// Size and channels of up to `most` pictures that are spread evenly over the set. Unreadable ones are left out.
    pub fn probe(&self, most: usize) -> Vec<PictureInfo> {
        let n = self.files.len();
        let take = n.min(most);
        (0..take).filter_map(|i| probe(&self.files[i * n / take]).ok()).collect()
    }
}

impl Dataset for TableDataset {
    fn len(&self) -> usize {
        self.files.len()
    }
    fn class_count(&self) -> usize {
        self.names.len()
    }
    fn get(&self, index: usize) -> Result<Sample> {
        let mut image = Image::default();
        let label = self.get_into(index, &mut image)?;
        Ok(Sample { image, label })
    }
    fn get_into(&self, index: usize, image: &mut Image) -> Result<usize> {
        let (path, mut bytes) = (&self.files[index], Vec::new());
        read_limited(path, &mut bytes)?;
        decode_into(&bytes, image).map_err(|reason| DataError::Picture { file: path.clone(), reason })?;
        self.label(index)
    }
    fn label(&self, index: usize) -> Result<usize> {
        Ok(self.labels[index] as usize)
    }
    fn values(&self, index: usize) -> Option<&[f32]> {
        let n = self.names.len();
        self.values.get(index * n..(index + 1) * n)
    }
    fn name(&self, index: usize) -> String {
        self.files[index].display().to_string()
    }
    fn file(&self, index: usize) -> Option<PathBuf> {
        Some(self.files[index].clone())
    }
    fn class_names(&self) -> Vec<String> {
        self.names.to_vec()
    }
}

/// What a table was seen to be.
#[derive(Debug)]
pub(crate) struct TableParts {
    pub task: Task,
    /// Train, val, test.
    pub parts: [Option<TableDataset>; 3],
    pub names: Vec<String>,
}

/// The tables of a folder, by part, where it has some.
pub(crate) fn find_tables(folder: &Path) -> Vec<(usize, PathBuf)> {
    let there = |name: &str| folder.join(name).is_file();
    if let Some(name) = WHOLE.iter().find(|name| there(name)) {
        return vec![(0, folder.join(name))];
    }
    let parts = PARTS.iter().enumerate().filter(|(_, name)| there(name));
    let found: Vec<_> = parts.map(|(part, name)| (part, folder.join(name))).collect();
    if found.first().is_some_and(|(part, _)| *part == 0) { found } else { Vec::new() }
}

/// A row: its line, its part, its picture, its other cells.
struct Row {
    line: usize,
    part: usize,
    file: PathBuf,
    cells: Vec<String>,
}

/// The cells of a table by line, with RFC 4180's quotes; `,` or else `;` or tabs between them.
pub(crate) fn split_cells(text: &str) -> Result<Vec<(usize, Vec<String>)>, usize> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let first = text.lines().next().unwrap_or_default();
    let between = [',', '\t', ';'].into_iter().find(|c| first.contains(*c)).unwrap_or(',');
    let mut rows = Vec::new();
    let (mut cells, mut cell, mut quoted, mut line, mut start) = (Vec::new(), String::new(), false, 1, 1);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        line += usize::from(c == '\n');
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' if quoted || cell.trim().is_empty() => quoted = !quoted,
            c if quoted => cell.push(c),
            '\r' => {}
            '\n' => {
                cells.push(std::mem::take(&mut cell));
                rows.push((start, std::mem::take(&mut cells)));
                start = line;
            }
            c if c == between => cells.push(std::mem::take(&mut cell)),
            c => cell.push(c),
        }
    }
    if quoted {
        return Err(start);
    }
    cells.push(cell);
    rows.push((start, cells));
    rows.retain(|(_, cells)| cells.iter().any(|cell| !cell.trim().is_empty()));
    rows.iter_mut().flat_map(|(_, cells)| cells).for_each(|cell| *cell = cell.trim().to_owned());
    Ok(rows)
}

/// The picture that a cell names.
pub(crate) fn find_picture(folder: &Path, cell: &str) -> Option<PathBuf> {
    let places = || FOLDERS.iter().map(|inner| folder.join(inner).join(cell));
    let with_ending =
        |path: PathBuf| ENDINGS.iter().map(move |ending| PathBuf::from(format!("{}.{ending}", path.display())));
    places().find(|path| path.is_file()).or_else(|| places().flat_map(with_ending).find(|path| path.is_file()))
}

/// The names of the columns behind the first, where there is a line for them, and the rows.
fn read_rows(path: &Path, part: usize) -> Result<(Option<Vec<String>>, Vec<Row>)> {
    let wrong = |line: Option<usize>, what: String| DataError::Table { file: path.into(), line, what };
    let mut bytes = Vec::new();
    read_limited(path, &mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|_| wrong(None, "it is no UTF-8 text".into()))?;
    let mut rows = split_cells(&text).map_err(|line| wrong(Some(line), "a quote is not closed".into()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let is_head = |cells: &[String]| {
        FILE_NAMES.contains(&cells[0].to_lowercase().as_str()) || find_picture(folder, &cells[0]).is_none()
    };
    let mut head = rows.first().is_some_and(|(_, cells)| is_head(cells)).then(|| rows.remove(0).1);
    let width = head.as_ref().or(rows.first().map(|(_, cells)| cells)).map_or(0, Vec::len);
    if width < 2 || rows.is_empty() {
        return Err(wrong(
            None,
            "it needs a column of files, one or more of labels or numbers, and at least one row".into(),
        ));
    }
    let split = head.as_ref().and_then(|head| head.iter().position(|name| name.eq_ignore_ascii_case("split")));
    let mut out = Vec::new();
    for (line, mut cells) in rows {
        if cells.len() != width {
            return Err(wrong(Some(line), format!("it has {} cells, the first line {width}", cells.len())));
        }
        let part = match split {
            Some(column) => {
                let cell = cells.remove(column);
                part_of(cell.as_ref())
                    .ok_or_else(|| wrong(Some(line), format!("the split `{cell}` is none of train, val, test")))?
            }
            None => part,
        };
        let cell = cells.remove(0);
        let file = find_picture(folder, &cell).ok_or_else(|| {
            wrong(Some(line), format!("there is no picture `{cell}` in {} (or its folder images)", folder.display()))
        })?;
        out.push(Row { line, part, file, cells });
    }
    if let (Some(head), Some(column)) = (&mut head, split) {
        head.remove(column);
    }
    Ok((head.map(|mut head| head.split_off(1)), out))
}

/// The labels in a cell.
fn labels_in(cell: &str, between: Option<char>) -> impl Iterator<Item = &str> {
    cell.split(move |c: char| between.map_or(c.is_whitespace(), |b| c == b))
        .map(str::trim)
        .filter(|label| !label.is_empty())
}

/// Opens tables, each with its part. `wanted` is what they are for, else seen from them; `known` are the classes of the net that
/// is to be judged.
pub(crate) fn open_tables(
    tables: &[(usize, PathBuf)],
    wanted: Option<Task>,
    known: Option<&[String]>,
) -> Result<TableParts> {
    let (mut head, mut rows) = (None, Vec::new());
    for (part, path) in tables {
        let (names, more) = read_rows(path, *part)?;
        if head.is_some() && names != head {
            let what = "its columns are not those of the training part".to_owned();
            return Err(DataError::Table { file: path.clone(), line: Some(1), what });
        }
        head = names;
        rows.extend(more.into_iter().map(|row| (path, row)));
    }
    let columns = rows.first().map_or(0, |(_, row)| row.cells.len());
    let cells = || rows.iter().flat_map(|(_, row)| &row.cells);
    let numeric = cells().all(|cell| number(cell).is_some());
    let binary = columns > 1 && cells().all(|cell| matches!(number(cell), Some(0.0 | 1.0)));
    let between = ['|', ';'].into_iter().find(|c| cells().any(|cell| cell.contains(*c)));
    let several = || cells().any(|cell| labels_in(cell, between).count() != 1);
    let task = wanted.unwrap_or_else(|| match () {
        () if binary => Task::Multilabel,
        () if numeric => Task::Regress,
        () if columns == 1 && several() => Task::Multilabel,
        () => Task::Classify,
    });
    let column_names = || head.clone().unwrap_or_else(|| (0..columns).map(|c| c.to_string()).collect());
    let in_columns = task == Task::Regress || binary;
    let names = match (in_columns, known) {
        (true, _) => column_names(),
        (false, Some(known)) => known.to_vec(),
        (false, None) => {
            let mut names: Vec<String> = cells().flat_map(|cell| labels_in(cell, between)).map(str::to_owned).collect();
            names.sort();
            names.dedup();
            names
        }
    };
    if in_columns && known.is_some_and(|known| known != names) {
        let what = format!(
            "its columns are {}, those of the model {}",
            names.join(", "),
            known.unwrap_or_default().join(", ")
        );
        return Err(DataError::Table { file: tables[0].1.clone(), line: Some(1), what });
    }
    let meaning = Meaning { task, in_columns, between, names: Arc::new(names.clone()) };
    let mut parts: [Option<TableDataset>; 3] = [None, None, None];
    for (path, row) in rows {
        let wrong = |what: String| DataError::Table { file: path.clone(), line: Some(row.line), what };
        let (label, values) = meaning.of(&row.cells).map_err(wrong)?;
        let part = parts[row.part].get_or_insert_with(|| TableDataset {
            files: Vec::new(),
            labels: Vec::new(),
            values: Vec::new(),
            names: meaning.names.clone(),
        });
        part.files.push(row.file);
        part.labels.push(label);
        part.values.extend(values);
    }
    Ok(TableParts { task, parts, names })
}

/// How the cells of a row are read.
struct Meaning {
    task: Task,
    /// A column for each label or number.
    in_columns: bool,
    /// Between labels in a cell; spaces if nothing.
    between: Option<char>,
    names: Arc<Vec<String>>,
}

impl Meaning {
    /// Label and values of a row, or what is wrong with it.
    fn of(&self, cells: &[String]) -> Result<(u32, Vec<f32>), String> {
        let values = match self.in_columns {
            true => {
                let numbers = cells.iter().map(|cell| number(cell).ok_or_else(|| format!("`{cell}` is no number")));
                numbers.collect::<Result<Vec<f32>, String>>()?
            }
            false if cells.len() != 1 => {
                return Err("give the labels in one column, or a column of 0 and 1 for each of them".into());
            }
            false => {
                let mut values = vec![0.0; self.names.len()];
                for label in labels_in(&cells[0], self.between) {
                    let class = self.names.iter().position(|name| name == label).ok_or_else(|| {
                        let hint = did_you_mean(label, self.names.iter().map(String::as_str));
                        format!("the model has no class `{label}`{hint}")
                    })?;
                    values[class] = 1.0;
                }
                values
            }
        };
        let first = values.iter().position(|v| *v == 1.0).unwrap_or(0) as u32;
        match self.task {
            Task::Classify if values.iter().filter(|v| **v == 1.0).count() != 1 => {
                Err("a classifier needs one label a row; several are for --task multilabel".into())
            }
            Task::Classify => Ok((first, Vec::new())),
            Task::Multilabel => Ok((first, values)),
            _ => Ok((0, values)),
        }
    }
}

fn number(cell: &str) -> Option<f32> {
    cell.parse().ok().filter(|v: &f32| v.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(tables: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("images")).unwrap();
        for name in ["a.png", "b.png", "c.png", "d.png"] {
            std::fs::write(folder.path().join("images").join(name), b"").unwrap();
        }
        tables.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).unwrap());
        folder
    }

    fn open(text: &str, wanted: Option<Task>) -> Result<TableParts> {
        let folder = folder(&[("labels.csv", text)]);
        open_tables(&find_tables(folder.path()), wanted, None)
    }

    #[test]
    fn what_a_table_is_is_seen_from_its_cells() {
        for (text, task, names, first) in [
            ("file,labels\na.png,cat dog\nb.png,\nc.png,dog\n", Task::Multilabel, &["cat", "dog"][..], &[1.0, 1.0][..]),
            ("a.png,red car|sky\nb.png,sky\n", Task::Multilabel, &["red car", "sky"], &[1.0, 1.0]),
            ("image,x,y\na,1,0\nb,0,0\n", Task::Multilabel, &["x", "y"], &[1.0, 0.0]),
            ("image,age\n\"a.png\",33.5\nb.png,2\n", Task::Regress, &["age"], &[33.5]),
            ("id;w;h\r\na;1.5;2\r\nb;3;4\r\n", Task::Regress, &["w", "h"], &[1.5, 2.0]),
            ("id,breed\na,pug\nb,collie\nc,pug\n", Task::Classify, &["collie", "pug"], &[]),
        ] {
            let table = open(text, None).unwrap_or_else(|e| panic!("{text}: {e}"));
            let train = table.parts[0].as_ref().unwrap();
            assert_eq!((table.task, table.names.as_slice()), (task, names.map_to_owned().as_slice()), "{text}");
            assert_eq!(train.values(0).unwrap_or_default(), first, "{text}");
        }
        let breeds = open("id,breed\na,pug\nb,collie\n", None).unwrap();
        assert_eq!(breeds.parts[0].as_ref().unwrap().label(0).unwrap(), 1);
    }

    trait MapToOwned {
        fn map_to_owned(&self) -> Vec<String>;
    }
    impl MapToOwned for [&str] {
        fn map_to_owned(&self) -> Vec<String> {
            self.iter().map(|s| (*s).to_owned()).collect()
        }
    }

    #[test]
    fn parts_are_named_in_a_column_or_by_files() {
        let table = open("file,split,v\na,train,1\nb,val,2\nc,test,3\nd,train,4\n", None).unwrap();
        assert_eq!(table.parts.each_ref().map(|p| p.as_ref().map_or(0, |p| p.len())), [2, 1, 1]);
        assert_eq!(table.names, ["v"]);
        let files = folder(&[("train.csv", "file,v\na,1\nb,2\n"), ("test.csv", "file,v\nc,3\n")]);
        let table = open_tables(&find_tables(files.path()), None, None).unwrap();
        assert_eq!(table.parts.each_ref().map(|p| p.as_ref().map_or(0, |p| p.len())), [2, 0, 1]);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, wanted, parts) in [
            ("file,v\na,1\nb\n", None, ["line 3", "1 cells"]),
            ("file,v\na,1\nz,2\n", None, ["line 3", "no picture `z`"]),
            ("file,v\na,1\nb,x y\n", Some(Task::Regress), ["line 3", "`x y` is no number"]),
            ("file,split,v\na,train,1\nb,tain,2\n", None, ["line 3", "tain"]),
            ("file,l\na,\"x\nb,y\n", None, ["line 2", "quote"]),
            ("file,l\na,x y\nb,y\n", Some(Task::Classify), ["line 2", "multilabel"]),
        ] {
            let error = open(text, wanted).map(|_| ()).unwrap_err().to_string();
            parts.iter().for_each(|part| assert!(error.contains(part), "{text:?}: {error}"));
        }
    }
}
