//! Ground truth and detections as COCO's tools write them.

use super::matching::{Detection, GroundTruth};
use crate::data::{DataError, Result};
use crate::detection::read::{CocoFile, json_error, read_coco, read_text};
use serde::Deserialize;
use std::collections::HashSet;
use std::path::Path;

/// What is there: a file of instances.
#[derive(Clone, Debug, Default)]
pub struct Instances {
    /// Numbers of all pictures, those without anything included.
    pub images: Vec<i64>,
    /// Number and name of each class, by number.
    pub categories: Vec<(i64, String)>,
    /// The boxes.
    pub truth: Vec<GroundTruth>,
    /// Remarks for the user.
    pub notes: Vec<String>,
}

/// What was found: a file of results.
#[derive(Clone, Debug, Default)]
pub struct Detections {
    /// The boxes.
    pub found: Vec<Detection>,
    /// Remarks for the user.
    pub notes: Vec<String>,
}

#[derive(Deserialize)]
struct Found {
    image_id: i64,
    category_id: i64,
    bbox: Option<[f64; 4]>,
    score: f64,
}

/// The list itself, or an object that holds it as `annotations`.
#[derive(Deserialize)]
#[serde(untagged)]
enum FoundFile {
    List(Vec<Found>),
    Object { annotations: Vec<Found> },
}

fn wrong(path: &Path, place: String, what: &str) -> DataError {
    DataError::Annotations { file: path.into(), place: Some(place), what: what.into() }
}

/// Reads `instances_*.json`. An `area` that is absent is width times height.
///
/// # Errors
/// [`DataError::Annotations`] with the place of what cannot be used.
pub fn read_instances(path: &Path) -> Result<Instances> {
    let CocoFile { images, annotations, categories } = read_coco(path)?;
    let mut out = Instances { images: images.iter().map(|image| image.id).collect(), ..Instances::default() };
    out.categories = categories.into_iter().map(|category| (category.id, category.name)).collect();
    out.categories.sort();
    if let Some(twice) = out.categories.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let what = format!("\"{}\" and \"{}\" have the same id {}", twice[0].1, twice[1].1, twice[0].0);
        return Err(wrong(path, "categories".into(), &what));
    }
    let known: HashSet<i64> = out.images.iter().copied().collect();
    let (mut ids, mut repeated, mut strays) = (HashSet::new(), 0, 0);
    for (index, annotation) in annotations.into_iter().enumerate() {
        let id = annotation.id.unwrap_or(index as i64 + 1);
        repeated += usize::from(!ids.insert(id));
        let Some(Ok(xywh)) = annotation.bbox.as_deref().map(<[f64; 4]>::try_from) else {
            return Err(wrong(path, format!("annotation {id}"), "it has no `bbox` of x, y, width and height"));
        };
        strays += usize::from(!known.contains(&annotation.image_id));
        out.truth.push(GroundTruth {
            image: annotation.image_id,
            category: annotation.category_id,
            xywh,
            area: annotation.area.unwrap_or(xywh[2] * xywh[3]),
            iscrowd: annotation.iscrowd.0,
            id,
        });
    }
    let path = path.display();
    if strays > 0 {
        out.notes
            .push(format!("{path}: {strays} annotations are of pictures that it does not list; they do not count"));
    }
    if repeated > 0 {
        out.notes.push(format!("{path}: {repeated} annotations have the id of another; pycocotools confuses such"));
    }
    if ids.contains(&0) {
        out.notes.push(format!(
            "{path}: an annotation has id 0, whose match pycocotools counts as a miss, and so does this"
        ));
    }
    Ok(out)
}

/// Reads results: a list of `{"image_id", "category_id", "bbox": [x, y, width, height], "score"}`.
///
/// # Errors
/// [`DataError::Annotations`] for what cannot be used, such as a box of a picture that `instances` does not have.
pub fn read_detections(path: &Path, instances: &Instances) -> Result<Detections> {
    let text = read_text(path)?;
    let file: FoundFile = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(&text).map(FoundFile::List),
        false => serde_json::from_str(&text),
    }
    .map_err(|error| json_error(path, &error))?;
    let (FoundFile::List(list) | FoundFile::Object { annotations: list }) = file;
    let images: HashSet<i64> = instances.images.iter().copied().collect();
    let categories: HashSet<i64> = instances.categories.iter().map(|(id, _)| *id).collect();
    let (mut out, mut strays) = (Detections::default(), 0);
    for (index, found) in list.into_iter().enumerate() {
        let place = || format!("detection {}", index + 1);
        let Some(xywh) = found.bbox else {
            return Err(wrong(path, place(), "it has no `bbox`; masks are not judged, boxes are"));
        };
        if !images.contains(&found.image_id) {
            let what = format!("the ground truth has no picture {}: are these results of another set?", found.image_id);
            return Err(wrong(path, place(), &what));
        }
        strays += usize::from(!categories.contains(&found.category_id));
        out.found.push(Detection { image: found.image_id, category: found.category_id, xywh, score: found.score });
    }
    if strays > 0 {
        let path = path.display();
        out.notes
            .push(format!("{path}: {strays} detections are of classes that the ground truth lacks; they do not count"));
    }
    Ok(out)
}
