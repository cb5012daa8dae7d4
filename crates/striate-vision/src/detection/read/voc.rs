//! Pascal VOC: a file of XML for each picture.
//!
//! Coordinates are taken as they are, as torchvision and most tools do. The challenge's own files count pixels from 1, which makes
//! half a pixel of difference to their boxes.

use super::{Reader, has_ending, pictures_by_stem, read_text};
use crate::data::{DataError, Listing, Result, part_of};
use crate::detection::annotations::{AnnotatedPicture, BoxLabel, PARTS};
use crate::detection::faults::{FaultKind, Place, Repair, check_box};
use roxmltree::{Document, Node, ParsingOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Names of the folder of pictures.
const PICTURES: [&str; 4] = ["JPEGImages", "images", "Images", "imgs"];
/// Most elements, attributes and texts of one file: that is some hundred thousand objects.
const MOST_NODES: u32 = 10_000_000;

/// Most attributes of one element: the time that the parser takes grows with their square. VOC has none at all.
const MOST_ATTRIBUTES: usize = 1000;

/// Pictures and label files by their names without ending.
struct Files {
    folder: PathBuf,
    pictures: BTreeMap<String, PathBuf>,
    labels: BTreeMap<String, PathBuf>,
}

impl Files {
    fn read(labels: &Path, pictures: &Path) -> Result<Files> {
        Ok(Files { folder: pictures.into(), pictures: pictures_by_stem(pictures)?, labels: labels_by_stem(labels)? })
    }

    /// The picture of a label file: of its name, else the one that its text names.
    fn picture(&self, stem: &str, named: Option<&str>) -> Option<PathBuf> {
        if let Some(path) = self.pictures.get(stem) {
            return Some(path.clone());
        }
        // The last part alone: many files hold a path of the machine that they were made on.
        let name = named?.rsplit(['/', '\\']).next().filter(|name| !name.is_empty())?;
        let path = self.folder.join(name);
        // A picture with labels of its own is not this file's: the file was copied or renamed.
        let own = path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| self.labels.contains_key(stem));
        (path.is_file() && !own).then_some(path)
    }
}

fn labels_by_stem(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let files = Listing::read(folder)?.files;
    let labels = files.iter().map(|file| folder.join(file)).filter(|path| has_ending(path, &["xml"]));
    Ok(labels.filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), path))).collect())
}

/// VOC's own two folders, of labels and of pictures.
fn halves(root: &Path) -> Option<(PathBuf, PathBuf)> {
    let labels = root.join("Annotations");
    let pictures = PICTURES.iter().map(|name| root.join(name)).find(|path| path.is_dir())?;
    labels.is_dir().then_some((labels, pictures))
}

/// Folders in which xml lies beside pictures, with the part that each is.
fn mixed(root: &Path) -> Result<Vec<(usize, PathBuf)>> {
    let listing = Listing::read(root)?;
    let inner = listing.folders.iter().filter_map(|name| Some((part_of(name)?, root.join(name))));
    let mut found = Vec::new();
    for (part, folder) in inner.chain([(0, root.to_path_buf())]) {
        let files = Listing::read(&folder)?;
        if files.has_pictures() && files.files.iter().any(|file| has_ending(Path::new(file), &["xml"])) {
            found.push((part, folder));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a folder is laid out so.
pub(super) fn seems(root: &Path) -> Result<bool> {
    Ok(match halves(root) {
        Some((labels, _)) => Listing::read(&labels)?.files.iter().any(|file| has_ending(Path::new(file), &["xml"])),
        None => !mixed(root)?.is_empty(),
    })
}

/// A list of names, with its file.
type List = (PathBuf, Vec<String>);

/// The names in `ImageSets/Main`, by part. `trainval` stands for `train` where that is absent.
fn lists(root: &Path) -> Result<[Option<List>; 3]> {
    let folder = root.join("ImageSets").join("Main");
    let mut found = [None, None, None];
    for (part, name) in PARTS.iter().enumerate() {
        let mut path = folder.join(format!("{name}.txt"));
        if part == 0 && !path.is_file() {
            path = folder.join("trainval.txt");
        }
        if path.is_file() {
            let text = read_text(&path)?;
            // A second column says whether the picture has a class; the lists of single classes have it.
            let names = text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
            let names = names.collect();
            found[part] = Some((path, names));
        }
    }
    Ok(found)
}

pub(super) fn read(reader: &mut Reader, root: &Path) -> Result<[Vec<AnnotatedPicture>; 3]> {
    reader.read_class_list(root)?;
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    let Some((labels, pictures)) = halves(root) else {
        for (part, folder) in mixed(root)? {
            let files = Files::read(&folder, &folder)?;
            for (stem, path) in &files.labels {
                parts[part].extend(read_file(reader, &files, stem, path));
            }
            tell_unlabelled(reader, &files);
        }
        return Ok(parts);
    };
    let files = Files::read(&labels, &pictures)?;
    let lists = lists(root)?;
    if lists.iter().all(Option::is_none) {
        for (stem, path) in &files.labels {
            parts[0].extend(read_file(reader, &files, stem, path));
        }
    } else {
        read_lists(reader, &files, &lists, &mut parts);
    }
    tell_unlabelled(reader, &files);
    Ok(parts)
}

fn read_lists(reader: &mut Reader, files: &Files, lists: &[Option<List>; 3], parts: &mut [Vec<AnnotatedPicture>; 3]) {
    let mut listed = BTreeSet::new();
    for (part, (list, names)) in lists.iter().enumerate().filter_map(|(part, list)| Some((part, list.as_ref()?))) {
        for name in names {
            listed.insert(name.as_str());
            match files.labels.get(name) {
                Some(path) => parts[part].extend(read_file(reader, files, name, path)),
                None if files.pictures.contains_key(name) => {}
                None => {
                    let what =
                        format!("there is neither a picture nor a label file of this name in {:?}", files.folder);
                    reader.tell(FaultKind::MissingPicture, list, Some(name.clone()), what, Repair::LeftOut);
                }
            }
        }
    }
    let others = files.labels.iter().filter(|(stem, _)| !listed.contains(stem.as_str()));
    let others: Vec<_> = others.filter_map(|(stem, path)| read_file(reader, files, stem, path)).collect();
    if let Some(first) = others.first() {
        let (n, first) = (others.len(), first.labels_file.display());
        reader
            .notes
            .push(format!("{n} label files are in no list of ImageSets/Main and are not used, such as {first}"));
    }
    reader.unassigned.extend(others);
}

/// Pictures without a label file say nothing, not even that nothing is on them.
fn tell_unlabelled(reader: &mut Reader, files: &Files) {
    for (stem, picture) in &files.pictures {
        if !files.labels.contains_key(stem) {
            let what = format!("there is no {stem}.xml for this picture");
            reader.tell(FaultKind::MissingLabel, picture, None, what, Repair::LeftOut);
        }
    }
}

/// Reads the labels of one picture; nothing if they or it are not there.
fn read_file(reader: &mut Reader, files: &Files, stem: &str, path: &Path) -> Option<AnnotatedPicture> {
    let text = match read_text(path) {
        Ok(text) => text,
        Err(error) => return unreadable(reader, path, &error),
    };
    let document = match parse(&text) {
        Ok(document) => document,
        Err(why) => {
            let what = format!("it is no XML that can be read: {why}");
            return unreadable(reader, path, &DataError::Annotations { file: path.into(), place: None, what });
        }
    };
    let root = document.root_element();
    let Some(file) = files.picture(stem, child(root, "filename").and_then(|node| node.text())) else {
        let what =
            format!("its picture is not there: no {stem}.jpg, .png, .webp or .bmp in {}", files.folder.display());
        reader.tell(FaultKind::MissingPicture, path, None, what, Repair::LeftOut);
        return None;
    };
    let declared = child(root, "size").and_then(|size| {
        let side = |name| number(size, name).filter(|v| (1.0..4e9).contains(v)).map(|v| v as u32);
        Some([side("width")?, side("height")?])
    });
    // A wrong size would cut sound boxes, so the picture's header is always asked.
    let size = reader.size(declared, &file, (path, None), true);
    let objects = root.children().filter(|node| node.has_tag_name("object"));
    let labels = objects.enumerate().filter_map(|(index, object)| read_object(reader, object, index, (path, size)));
    let labels = labels.collect();
    Some(AnnotatedPicture { file, labels_file: path.into(), size, labels, id: None })
}

/// Parses XML within bounds; `Err` says why it is none.
fn parse(text: &str) -> Result<Document<'_>, String> {
    // `<` stands nowhere inside a tag, and each attribute has its `=`.
    if text.split('<').any(|tag| tag.matches('=').nth(MOST_ATTRIBUTES).is_some()) {
        return Err(format!("an element has more than {MOST_ATTRIBUTES} attributes"));
    }
    let options = ParsingOptions { nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).map_err(|error| error.to_string())
}

fn unreadable(reader: &mut Reader, path: &Path, error: &DataError) -> Option<AnnotatedPicture> {
    let text = error.to_string();
    let what = text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&text).to_owned();
    reader.tell(FaultKind::UnreadableLabel, path, None, what, Repair::LeftOut);
    None
}

fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn number(node: Node<'_, '_>, name: &str) -> Option<f64> {
    child(node, name)?.text()?.trim().parse().ok()
}

fn read_object(
    reader: &mut Reader,
    object: Node<'_, '_>,
    index: usize,
    (path, size): (&Path, Option<[u32; 2]>),
) -> Option<BoxLabel> {
    let name = child(object, "name").and_then(|node| node.text()).unwrap_or_default().trim();
    let place = format!("object {} ({name})", index + 1);
    let corners = child(object, "bndbox").map(|bounds| ["xmin", "ymin", "xmax", "ymax"].map(|key| number(bounds, key)));
    let Some([Some(x1), Some(y1), Some(x2), Some(y2)]) = corners else {
        let what = "it has no <bndbox> with the numbers xmin, ymin, xmax and ymax".to_owned();
        reader.tell(FaultKind::BadLabel, path, Some(place), what, Repair::LeftOut);
        return None;
    };
    if name.is_empty() {
        let what = "it has no <name>, which says its class".to_owned();
        reader.tell(FaultKind::BadLabel, path, Some(place), what, Repair::LeftOut);
        return None;
    }
    let class = reader.class(name, path, &place)?;
    let flag = |name| number(object, name) == Some(1.0);
    let label = BoxLabel {
        class,
        xyxy: [x1, y1, x2, y2],
        difficult: flag("difficult"),
        truncated: flag("truncated"),
        position: index + 1,
        ..BoxLabel::default()
    };
    check_box(label, size, &Place { file: path, object: place, picture: None }, &mut reader.faults)
}
