//! `annotations/instances_{train,val,test}.json`, and the pictures of each part in a folder.

use super::super::annotations::{AnnotatedSet, PARTS, Segmentation};
use super::{Named, Parts, write_text};
use crate::data::{DataError, Result};
use serde::Serialize;
use std::collections::HashSet;
use std::path::Path;

#[derive(Serialize)]
struct File<'a> {
    info: Info<'a>,
    images: Vec<Image<'a>>,
    annotations: Vec<Annotation<'a>>,
    categories: Vec<Category<'a>>,
}

#[derive(Serialize)]
struct Info<'a> {
    description: &'a str,
}

#[derive(Serialize)]
struct Image<'a> {
    id: i64,
    file_name: &'a str,
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct Annotation<'a> {
    id: i64,
    image_id: i64,
    category_id: i64,
    bbox: [f64; 4],
    area: f64,
    iscrowd: u8,
    /// An empty list where there is no shape, which COCO's tools want there.
    segmentation: Shape<'a>,
    #[serde(skip_serializing_if = "is_zero")]
    difficult: u8,
    #[serde(skip_serializing_if = "is_zero")]
    truncated: u8,
}

fn is_zero(flag: &u8) -> bool {
    *flag == 0
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shape<'a> {
    None([f64; 0]),
    Some(&'a Segmentation),
}

#[derive(Serialize)]
struct Category<'a> {
    id: i64,
    name: &'a str,
    supercategory: &'a str,
}

/// The numbers that things have, if all have one and no two the same; else 1, 2, ….
fn numbers(own: impl Iterator<Item = Option<i64>> + Clone) -> Vec<i64> {
    let count = own.clone().count();
    let kept: Option<Vec<i64>> = own.collect();
    let kept = kept.filter(|ids| ids.iter().collect::<HashSet<_>>().len() == ids.len());
    kept.unwrap_or_else(|| (1..).take(count).collect())
}

pub(super) fn write(set: &AnnotatedSet, folder: &Path, parts: &Parts<'_>) -> Result<()> {
    for (part, pictures) in parts.iter().enumerate().filter(|(_, pictures)| !pictures.is_empty()) {
        let path = folder.join("annotations").join(format!("instances_{}.json", PARTS[part]));
        let text = serde_json::to_string(&file(set, pictures)).map_err(|error| DataError::Other(Box::new(error)))?;
        write_text(&path, &text)?;
    }
    Ok(())
}

fn file<'a>(set: &'a AnnotatedSet, pictures: &'a [Named<'_>]) -> File<'a> {
    let categories = numbers((0..set.class_names.len()).map(|class| set.category_ids.as_ref()?.get(class).copied()));
    let images = numbers(pictures.iter().map(|named| named.picture.id));
    let ids = numbers(pictures.iter().flat_map(|named| &named.picture.labels).map(|label| label.id));
    let mut ids = ids.into_iter();
    let mut annotations = Vec::with_capacity(ids.len());
    for (named, image_id) in pictures.iter().zip(&images) {
        for (label, id) in named.picture.labels.iter().zip(&mut ids) {
            let ([x, y, ..], [w, h]) = (label.xyxy, label.size());
            annotations.push(Annotation {
                id,
                image_id: *image_id,
                category_id: categories[label.class],
                bbox: [x, y, w, h],
                area: label.area.unwrap_or(w * h),
                iscrowd: label.iscrowd.into(),
                segmentation: label.segmentation.as_ref().map_or(Shape::None([]), Shape::Some),
                difficult: label.difficult.into(),
                truncated: label.truncated.into(),
            });
        }
    }
    let image = |(named, id): (&'a Named<'_>, &i64)| {
        let [width, height] = named.size;
        Image { id: *id, file_name: &named.name, width, height }
    };
    let names = set.class_names.iter().zip(categories);
    File {
        info: Info { description: "written by striate data convert" },
        images: pictures.iter().zip(&images).map(image).collect(),
        annotations,
        categories: names.map(|(name, id)| Category { id, name, supercategory: "" }).collect(),
    }
}
