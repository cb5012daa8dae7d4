//! Pictures with masks: `images/` beside `masks/`, with or without parts, and Pascal VOC's folders.

use super::dataset::{Dataset, Sample};
use super::error::{DataError, Result};
use super::folder::{Listing, is_picture, part_of};
use super::mask::{IGNORE, decode_mask, voc_color};
use super::names::PASCAL_VOC;
use super::picture::{Image, PictureInfo, decode_into, probe, read_limited};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names of folders of pictures, and of masks.
const IMAGES: [&str; 5] = ["images", "imgs", "image", "img", "jpegimages"];
const MASKS: [&str; 7] = ["masks", "mask", "segmentationclass", "annotations", "labels", "segmentation", "gt"];
/// Files of class names, one a line; CVAT's `labelmap.txt` has `name:r,g,b:…`.
const NAMES: [&str; 4] = ["classes.txt", "class_names.txt", "labels.txt", "labelmap.txt"];
/// What may stand behind a mask's name that its picture lacks.
const SUFFIXES: [&str; 2] = ["", "_mask"];

/// How a mask's values are classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Coding {
    /// As they are.
    #[default]
    Indices,
    /// 0 and 255: nothing and something.
    Binary,
    /// By colour.
    Colors(HashMap<[u8; 3], u8>),
}

impl Coding {
    /// Makes classes of the values of a mask; `Err` is a value that is none.
    fn apply(&self, mask: &mut Image) -> Result<(), String> {
        match self {
            Coding::Indices => mask.convert_first(),
            Coding::Binary => {
                mask.convert_first();
                mask.data.iter_mut().for_each(|v| *v = u8::from(*v != 0));
            }
            Coding::Colors(colors) => {
                let classes = mask.data.chunks_exact(mask.channels.max(1)).map(|pixel| {
                    let color: [u8; 3] = std::array::from_fn(|c| pixel[c.min(pixel.len() - 1)]);
                    colors.get(&color).copied().ok_or_else(|| format!("the colour {color:?}"))
                });
                mask.data = classes.collect::<Result<Vec<u8>, String>>()?;
                mask.channels = 1;
            }
        }
        Ok(())
    }
}

impl Image {
    /// Keeps the first channel alone.
    fn convert_first(&mut self) {
        if self.channels > 1 {
            self.data = self.data.iter().step_by(self.channels).copied().collect();
            self.channels = 1;
        }
    }
}

/// Pictures with the classes of their pixels.
#[derive(Debug)]
pub struct MaskDataset {
    /// Picture and mask.
    files: Vec<(PathBuf, PathBuf)>,
    names: Arc<Vec<String>>,
    coding: Arc<Coding>,
}

impl MaskDataset {
    /// Size and channels of up to `most` pictures that are spread evenly over the set. Unreadable ones are left out.
    pub fn probe(&self, most: usize) -> Vec<PictureInfo> {
        let n = self.files.len();
        let take = n.min(most);
        (0..take).filter_map(|i| probe(&self.files[i * n / take].0).ok()).collect()
    }
}

impl Dataset for MaskDataset {
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
        let (path, mut bytes) = (&self.files[index].0, Vec::new());
        read_limited(path, &mut bytes)?;
        decode_into(&bytes, image).map_err(|reason| DataError::Picture { file: path.clone(), reason })?;
        Ok(0)
    }
    fn label(&self, _: usize) -> Result<usize> {
        Ok(0)
    }
    fn mask_into(&self, index: usize, mask: &mut Image) -> Result<bool> {
        let path = &self.files[index].1;
        *mask = read_mask(path)?;
        let wrong = |what: String| DataError::ClassNames {
            file: path.clone(),
            what: format!("{what} is none of the {} classes ({})", self.names.len(), self.names.join(", ")),
        };
        self.coding.apply(mask).map_err(wrong)?;
        match mask.data.iter().find(|class| **class != IGNORE && usize::from(**class) >= self.names.len()) {
            Some(class) => Err(wrong(format!("a pixel of value {class}"))),
            None => Ok(true),
        }
    }
    fn name(&self, index: usize) -> String {
        self.files[index].0.display().to_string()
    }
    fn file(&self, index: usize) -> Option<PathBuf> {
        Some(self.files[index].0.clone())
    }
    fn class_names(&self) -> Vec<String> {
        self.names.to_vec()
    }
}

fn read_mask(path: &Path) -> Result<Image> {
    let mut bytes = Vec::new();
    read_limited(path, &mut bytes)?;
    decode_mask(&bytes, path)
}

/// The parts of a set with masks.
#[derive(Debug, Default)]
pub(crate) struct MaskParts {
    /// Train, val, test.
    pub parts: [Option<MaskDataset>; 3],
    pub names: Vec<String>,
    pub notes: Vec<String>,
}

/// Picture and mask by part.
type Pairs = [Option<Vec<(PathBuf, PathBuf)>>; 3];

fn child(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    let listing = Listing::read(folder).ok()?;
    let known = |name: &OsStr| name.to_str().and_then(|name| names.iter().position(|n| *n == name.to_lowercase()));
    let found = listing.folders.iter().filter_map(|name| Some((known(name)?, name)));
    found.min_by_key(|(place, _)| *place).map(|(_, name)| folder.join(name))
}

/// The folders of pictures and of masks in this one.
fn halves(folder: &Path) -> Option<(PathBuf, PathBuf)> {
    let (images, masks) = (child(folder, &IMAGES)?, child(folder, &MASKS)?);
    has_masks(&masks, 2).then_some((images, masks))
}

/// Whether there is a picture of a kind without loss at most so many folders below.
fn has_masks(folder: &Path, depth: usize) -> bool {
    let Ok(listing) = Listing::read(folder) else { return false };
    listing.files.iter().any(|file| is_mask(Path::new(file)))
        || (depth > 0 && listing.folders.iter().any(|inner| has_masks(&folder.join(inner), depth - 1)))
}

fn is_mask(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png") || e.eq_ignore_ascii_case("bmp"))
}

/// Whether a folder is a set with masks: seen from the names of folders alone.
pub(crate) fn seems_masked(folder: &Path, listing: &Listing) -> bool {
    let parts = listing.folders.iter().filter(|name| part_of(name).is_some());
    halves(folder).is_some() || parts.into_iter().any(|part| halves(&folder.join(part)).is_some())
}

/// Files by their names without ending.
fn stems(folder: &Path, wanted: fn(&Path) -> bool) -> Result<BTreeMap<String, PathBuf>> {
    let files = Listing::read(folder)?.files;
    let named = files.iter().map(|file| folder.join(file)).filter(|path| wanted(path));
    Ok(named.filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), path))).collect())
}

/// The pictures of a folder with their masks; those without are counted.
fn pair(images: &Path, masks: &Path, notes: &mut Vec<String>) -> Result<Vec<(PathBuf, PathBuf)>> {
    let (pictures, masks_by_stem) = (stems(images, is_picture)?, stems(masks, is_mask)?);
    let mut pairs = Vec::new();
    let mut alone = Vec::new();
    for (stem, path) in pictures {
        match SUFFIXES.iter().find_map(|suffix| masks_by_stem.get(&format!("{stem}{suffix}"))) {
            Some(mask) => pairs.push((path, mask.clone())),
            None => alone.push(path),
        }
    }
    if pairs.is_empty() {
        let detail = format!(" that has a mask of the same name in {}", masks.display());
        return Err(DataError::NoPictures { path: images.into(), detail });
    }
    if let Some(first) = alone.first() {
        notes.push(format!("{} pictures have no mask and are left out, such as {}", alone.len(), first.display()));
    }
    Ok(pairs)
}

fn folders(root: &Path, listing: &Listing, notes: &mut Vec<String>) -> Result<Pairs> {
    let mut pairs = Pairs::default();
    if let Some((images, masks)) = halves(root) {
        let inner = Listing::read(&images)?;
        let parts: Vec<_> = inner.folders.iter().filter_map(|name| Some((part_of(name)?, name))).collect();
        for (part, name) in &parts {
            if masks.join(name).is_dir() {
                pairs[*part] = Some(pair(&images.join(name), &masks.join(name), notes)?);
            }
        }
        if parts.is_empty() {
            pairs[0] = Some(pair(&images, &masks, notes)?);
        }
        return Ok(pairs);
    }
    for name in &listing.folders {
        if let (Some(part), Some((images, masks))) = (part_of(name), halves(&root.join(name))) {
            pairs[part] = Some(pair(&images, &masks, notes)?);
        }
    }
    Ok(pairs)
}

/// Pascal VOC's lists of names, where there are some.
fn lists(root: &Path, notes: &mut Vec<String>) -> Result<Option<Pairs>> {
    let (Some((images, masks)), folder) = (halves(root), root.join("ImageSets").join("Segmentation")) else {
        return Ok(None);
    };
    let (pictures, masks) = (stems(&images, is_picture)?, stems(&masks, is_mask)?);
    let mut pairs = Pairs::default();
    for (part, name) in ["train", "val", "test"].into_iter().enumerate() {
        let path = folder.join(format!("{name}.txt"));
        if !path.is_file() {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(|e| DataError::io(&path, e))?;
        let mut found = Vec::new();
        let mut missing = None;
        for stem in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match (pictures.get(stem), masks.get(stem)) {
                (Some(picture), Some(mask)) => found.push((picture.clone(), mask.clone())),
                _ => missing = missing.or(Some(stem)),
            }
        }
        match missing {
            // The masks of VOC's test part were never published.
            Some(stem) if part == 2 && found.is_empty() => {
                notes.push(format!("{}: its pictures, such as {stem}, have no masks; it is left out", path.display()));
                continue;
            }
            Some(stem) => {
                let detail = format!(" with a mask for `{stem}`, which {} names", path.display());
                return Err(DataError::NoPictures { path: images, detail });
            }
            None => pairs[part] = Some(found).filter(|found| !found.is_empty()),
        }
    }
    Ok(pairs.iter().any(Option::is_some).then_some(pairs))
}

/// A class with its colour in coloured masks.
type NamedClass = (String, Option<[u8; 3]>);

/// Class names with their colours, where a file says them.
fn read_names(root: &Path) -> Result<Option<Vec<NamedClass>>> {
    let Some(path) = NAMES.iter().map(|name| root.join(name)).find(|path| path.is_file()) else { return Ok(None) };
    let text = std::fs::read_to_string(&path).map_err(|e| DataError::io(&path, e))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entry = |line: &str| {
        let mut parts = line.split(':');
        let name = parts.next().unwrap_or_default().to_owned();
        let numbers: Vec<u8> =
            parts.next().map_or_else(Vec::new, |p| p.split(',').filter_map(|n| n.trim().parse().ok()).collect());
        (name, <[u8; 3]>::try_from(numbers).ok())
    };
    let names: Vec<_> = lines.map(entry).collect();
    if names.len() < 2 || names.len() > 255 {
        let what = format!("{} classes are named; a class for each pixel needs 2 to 255, a line for each", names.len());
        return Err(DataError::ClassNames { file: path, what });
    }
    Ok(Some(names))
}

/// What the masks of a set hold.
#[derive(Default)]
struct Seen {
    /// Whether a value occurs, of masks that are grey.
    values: Vec<bool>,
    /// Colours, of those that are not.
    colors: Vec<[u8; 3]>,
}

/// Looks at all masks, by as many threads as there are cores: what it finds does not depend on them.
fn look(masks: &[&PathBuf]) -> Result<Seen> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = masks.len().div_ceil(threads).max(1);
    let all = std::thread::scope(|scope| {
        let jobs: Vec<_> = masks.chunks(share).map(|part| scope.spawn(move || look_at(part))).collect();
        jobs.into_iter()
            .map(|job| job.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
            .collect::<Result<Vec<_>>>()
    })?;
    let mut seen = Seen { values: vec![false; 256], colors: Vec::new() };
    for part in all {
        seen.values.iter_mut().zip(&part.values).for_each(|(a, b)| *a |= b);
        seen.colors.extend(part.colors);
    }
    seen.colors.sort_unstable();
    seen.colors.dedup();
    Ok(seen)
}

/// Most colours that are told apart; more are a photograph.
const MOST_COLORS: usize = 256;

fn look_at(masks: &[&PathBuf]) -> Result<Seen> {
    let mut seen = Seen { values: vec![false; 256], colors: Vec::new() };
    for path in masks {
        let mask = match read_mask(path) {
            // Named when it is its turn.
            Err(error) if error.is_bad_sample() => continue,
            other => other?,
        };
        if mask.channels == 1 {
            mask.data.iter().for_each(|v| seen.values[usize::from(*v)] = true);
            continue;
        }
        let mut last = None;
        for pixel in mask.data.chunks_exact(3) {
            let color = [pixel[0], pixel[1], pixel[2]];
            if last.replace(color) == Some(color) || seen.colors.contains(&color) {
                continue;
            }
            seen.colors.push(color);
            if seen.colors.len() > MOST_COLORS {
                let what = format!("it has more than {MOST_COLORS} colours; a mask has one for each class");
                return Err(DataError::ClassNames { file: (*path).clone(), what });
            }
        }
    }
    Ok(seen)
}

/// How the masks' values are classes, and the classes' names.
fn code(root: &Path, masks: &[&PathBuf], voc: bool, notes: &mut Vec<String>) -> Result<(Coding, Vec<String>)> {
    let named = read_names(root)?;
    let mut seen = look(masks)?;
    let grey = |color: &[u8; 3]| color[0] == color[1] && color[1] == color[2];
    let of_names =
        named.iter().flatten().enumerate().filter_map(|(class, (_, color))| Some((*color.as_ref()?, class as u8)));
    let table: HashMap<[u8; 3], u8> = of_names.collect();
    let mut coding = Coding::Indices;
    if !seen.colors.is_empty() {
        if !table.is_empty() {
            coding = Coding::Colors(table);
        } else if seen.colors.iter().all(grey) {
            // Grey that was saved as RGB.
            seen.colors.iter().for_each(|color| seen.values[usize::from(color[0])] = true);
        } else {
            let colors: HashMap<[u8; 3], u8> = (0..=255).map(|class| (voc_color(class), class)).collect();
            if let Some(other) = seen.colors.iter().find(|color| !colors.contains_key(*color)) {
                let what = format!(
                    "the masks are coloured, and {other:?} is no colour of Pascal VOC; say which class each colour is in {}, a line each: name:r,g,b",
                    root.join("labelmap.txt").display()
                );
                return Err(DataError::ClassNames { file: masks[0].clone(), what });
            }
            notes.push("the masks are coloured: each colour is the class that it has in Pascal VOC's palette".into());
            seen.colors.iter().for_each(|color| seen.values[usize::from(colors[color])] = true);
            coding = Coding::Colors(colors);
        }
    }
    let only = |value: usize| matches!(value, 0 | 255);
    if coding == Coding::Indices && (0..256).all(|value| !seen.values[value] || only(value)) && seen.values[255] {
        notes.push("the masks have the values 0 and 255 alone: 255 is taken for class 1".into());
        coding = Coding::Binary;
    }
    let names = match named {
        Some(named) => named.into_iter().map(|(name, _)| name).collect(),
        None if coding == Coding::Binary => ["background", "foreground"].map(String::from).to_vec(),
        None => {
            let most = (0..255).rev().find(|value| seen.values[*value]).unwrap_or(0);
            match most {
                20 if voc => PASCAL_VOC.map(String::from).to_vec(),
                most => (0..=most.max(1)).map(|class| class.to_string()).collect(),
            }
        }
    };
    Ok((coding, names))
}

/// Opens a set with masks. `known` are the classes of the net that is to be judged.
pub(crate) fn open_masks(root: &Path, listing: &Listing, known: Option<&[String]>) -> Result<MaskParts> {
    let mut notes = Vec::new();
    let listed = lists(root, &mut notes)?;
    let voc = listed.is_some();
    let pairs = match listed {
        Some(pairs) => pairs,
        None => folders(root, listing, &mut notes)?,
    };
    let masks: Vec<&PathBuf> = pairs.iter().flatten().flatten().map(|(_, mask)| mask).collect();
    if masks.is_empty() {
        let detail = " with a mask: pictures lie in images/, their masks in masks/ under the same names".to_owned();
        return Err(DataError::NoPictures { path: root.into(), detail });
    }
    let (coding, found) = code(root, &masks, voc, &mut notes)?;
    let names = match known {
        Some(known) if known.len() >= found.len() => known.to_vec(),
        _ => found,
    };
    let (coding, shared) = (Arc::new(coding), Arc::new(names.clone()));
    let part =
        |files: Option<Vec<_>>| files.map(|files| MaskDataset { files, names: shared.clone(), coding: coding.clone() });
    Ok(MaskParts { parts: pairs.map(part), names, notes })
}
