//! Pictures with boxes as a data set: what a detector is trained on.

use super::dataset::{Dataset, Sample};
use super::error::{DataError, Result};
use super::picture::{Image, PictureInfo, decode_into, probe, read_limited};
use crate::detection::{AnnotatedPicture, BoxLabel, open_annotations};
use crate::transforms::{Shape, Thing};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Pictures with the boxes of what is on them.
#[derive(Debug)]
pub struct BoxDataset {
    pictures: Vec<(PathBuf, Vec<Thing>)>,
    names: Arc<Vec<String>>,
    /// Boxes of each class.
    counts: Vec<usize>,
    /// What is wrong with shapes.
    shape_faults: Vec<String>,
}

/// The thing of a label; without its shape, where that cannot be used, which is told.
fn thing(label: &BoxLabel, picture: &AnnotatedPicture, faults: &mut Vec<String>) -> Thing {
    let size = picture.size.map(|[width, height]| [height as usize, width as usize]);
    let shape = label.segmentation.as_ref().and_then(|shape| {
        let told = |error| {
            let object = label.id.map_or_else(|| format!("object {}", label.position), |id| format!("annotation {id}"));
            faults.push(format!("{}, {object}: {error}", picture.labels_file.display()));
        };
        Shape::new(shape, size).map_err(told).ok()
    });
    Thing { xyxy: label.xyxy, class: label.class, crowd: label.iscrowd, area: label.area, shape }
}

impl BoxDataset {
    /// The pictures of one part. Shapes that cannot be used are left out, see [`BoxDataset::shape_faults`].
    pub fn new(pictures: &[AnnotatedPicture], names: Arc<Vec<String>>) -> BoxDataset {
        let mut shape_faults = Vec::new();
        let mut with_things = |p: &AnnotatedPicture| {
            let things: Vec<Thing> = p.labels.iter().map(|label| thing(label, p, &mut shape_faults)).collect();
            (p.file.clone(), things)
        };
        let pictures: Vec<_> = pictures.iter().map(&mut with_things).collect();
        let mut counts = vec![0; names.len()];
        pictures.iter().flat_map(|(_, things)| things).for_each(|thing| counts[thing.class] += 1);
        BoxDataset { pictures, names, counts, shape_faults }
    }

    /// What is wrong with shapes that were left out, with file and annotation: their boxes are there without.
    pub fn shape_faults(&self) -> &[String] {
        &self.shape_faults
    }

    /// Size and channels of up to `most` pictures that are spread evenly over the set. Unreadable ones are left out.
    pub fn probe(&self, most: usize) -> Vec<PictureInfo> {
        let n = self.pictures.len();
        let take = n.min(most);
        (0..take).filter_map(|i| probe(&self.pictures[i * n / take].0).ok()).collect()
    }
}

impl Dataset for BoxDataset {
    fn len(&self) -> usize {
        self.pictures.len()
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
        let (path, mut bytes) = (&self.pictures[index].0, Vec::new());
        read_limited(path, &mut bytes)?;
        decode_into(&bytes, image).map_err(|reason| DataError::Picture { file: path.clone(), reason })?;
        self.label(index)
    }
    /// The rarest class that is on the picture: a part held back by it has some of every class.
    fn label(&self, index: usize) -> Result<usize> {
        let classes = self.pictures[index].1.iter().map(|thing| thing.class);
        Ok(classes.min_by_key(|class| (self.counts[*class], *class)).unwrap_or(0))
    }
    fn boxes(&self, index: usize) -> Option<&[Thing]> {
        Some(&self.pictures[index].1)
    }
    fn name(&self, index: usize) -> String {
        self.pictures[index].0.display().to_string()
    }
    fn file(&self, index: usize) -> Option<PathBuf> {
        Some(self.pictures[index].0.clone())
    }
    fn class_names(&self) -> Vec<String> {
        self.names.to_vec()
    }
}

/// The parts of a set with boxes.
#[derive(Debug)]
pub(crate) struct BoxParts {
    /// Train, val, test.
    pub parts: [Option<BoxDataset>; 3],
    pub names: Vec<String>,
    pub notes: Vec<String>,
}

/// Faults of shapes that a note names.
const MOST_FAULTS: usize = 10;

/// Opens annotated pictures of any format. `known` are the classes of the net that is to be judged: the set's get their numbers.
pub(crate) fn open_boxes(path: &Path, known: Option<&[String]>) -> Result<BoxParts> {
    let mut set = open_annotations(path)?;
    let mut notes = set.notes.clone();
    notes.extend(set.repairs());
    if set.pictures().all(|picture| picture.labels.is_empty()) {
        let detail = format!(" with a box ({})", set.format);
        return Err(DataError::NoPictures { path: path.into(), detail });
    }
    if let Some(known) = known {
        let place = |name: &String| known.iter().position(|k| k == name);
        let places: Vec<usize> =
            set.class_names.iter().map(|name| place(name).ok_or(name)).collect::<Result<_, _>>().map_err(|name| {
                DataError::Config(format!(
                    "{}: its class `{name}` is none of the net's, which are {}",
                    path.display(),
                    known.join(", ")
                ))
            })?;
        let labels = set.parts.iter_mut().flatten().flatten().flat_map(|picture| &mut picture.labels);
        labels.for_each(|label| label.class = places[label.class]);
        set.class_names = known.to_vec();
    }
    let names = Arc::new(set.class_names.clone());
    let part = |pictures: &Option<Vec<AnnotatedPicture>>| {
        pictures.as_ref().map(|pictures| BoxDataset::new(pictures, names.clone()))
    };
    let parts = [0, 1, 2].map(|index| part(&set.parts[index]));
    let faults: Vec<&str> = parts.iter().flatten().flat_map(BoxDataset::shape_faults).map(String::as_str).collect();
    if !faults.is_empty() {
        let shown = faults[..faults.len().min(MOST_FAULTS)].join("; ");
        let more = if faults.len() > MOST_FAULTS { "; …" } else { "" };
        notes.push(format!("{} × shape that cannot be used, left out, its box is kept: {shown}{more}", faults.len()));
    }
    Ok(BoxParts { parts, names: set.class_names, notes })
}
