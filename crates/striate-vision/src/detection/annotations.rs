//! What all formats of boxes are read into.

use super::faults::{Fault, Repair};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Names of the parts of a set, in the order of [`AnnotatedSet::parts`].
pub const PARTS: [&str; 3] = ["train", "val", "test"];

/// How boxes lie in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BoxFormat {
    /// `instances_*.json`.
    Coco,
    /// A file of XML for each picture.
    Voc,
    /// A text file for each picture, and `data.yaml`.
    Yolo,
    /// A line for each box.
    Csv,
}

impl BoxFormat {
    /// `coco`, `voc`, `yolo` or `csv`.
    pub fn name(self) -> &'static str {
        match self {
            BoxFormat::Coco => "coco",
            BoxFormat::Voc => "voc",
            BoxFormat::Yolo => "yolo",
            BoxFormat::Csv => "csv",
        }
    }

    /// How messages call a box.
    pub(crate) fn object(self, label: &BoxLabel, class: &str) -> String {
        match self {
            BoxFormat::Coco => format!("annotation {} ({class})", label.id.unwrap_or(label.position as i64)),
            BoxFormat::Voc => format!("object {} ({class})", label.position),
            BoxFormat::Yolo | BoxFormat::Csv => format!("line {} ({class})", label.position),
        }
    }
}

impl std::fmt::Display for BoxFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BoxFormat::Coco => "COCO json",
            BoxFormat::Voc => "Pascal VOC",
            BoxFormat::Yolo => "YOLO txt",
            BoxFormat::Csv => "a table of boxes",
        })
    }
}

/// Run lengths of a mask, column by column, first of nothing, then of the thing; as a file has them, true or not: see [`Mask::of_rle`].
///
/// [`Mask::of_rle`]: super::Mask::of_rle
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rle {
    /// Height and width.
    pub size: [u32; 2],
    /// The lengths.
    pub counts: RleCounts,
}

/// As numbers, or in COCO's compressed text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RleCounts {
    /// Plain.
    Plain(Vec<u32>),
    /// Compressed.
    Text(String),
}

/// The shape of a thing, as its file has it: handed on by conversions to COCO; [`Shape::new`] makes pixels of it.
///
/// [`Shape::new`]: crate::transforms::Shape::new
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Segmentation {
    /// Outlines, each `[x, y, x, y, …]` in pixels.
    Polygons(Vec<Vec<f64>>),
    /// A mask.
    Rle(Rle),
}

/// A box with what is known of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BoxLabel {
    /// Index into [`AnnotatedSet::class_names`].
    pub class: usize,
    /// `[x1, y1, x2, y2]` in pixels, `x1 < x2`, `y1 < y2`.
    pub xyxy: [f64; 4],
    /// COCO: many things in one box. Neither found nor missed by an evaluation.
    pub iscrowd: bool,
    /// VOC: left out of the official evaluation.
    pub difficult: bool,
    /// VOC: goes on beyond the picture or behind something.
    pub truncated: bool,
    /// Pixels of the thing itself, where the file says them (COCO).
    pub area: Option<f64>,
    /// Its shape, where the file says it.
    pub segmentation: Option<Segmentation>,
    /// COCO's number of the annotation.
    pub id: Option<i64>,
    /// Where it stands in its file, from 1: which object (VOC), which line (YOLO, CSV), which annotation (COCO).
    pub position: usize,
}

impl BoxLabel {
    /// Width and height in pixels.
    pub fn size(&self) -> [f64; 2] {
        [self.xyxy[2] - self.xyxy[0], self.xyxy[3] - self.xyxy[1]]
    }
}

/// A picture with its boxes; none is a picture of background.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnnotatedPicture {
    /// The picture.
    pub file: PathBuf,
    /// The file that its boxes come from.
    pub labels_file: PathBuf,
    /// Width and height in pixels where the annotations say them, or where they had to be looked up.
    pub size: Option<[u32; 2]>,
    /// The boxes, sound ones alone.
    pub labels: Vec<BoxLabel>,
    /// COCO's number of the picture.
    pub id: Option<i64>,
}

/// Annotated pictures in parts.
#[derive(Clone, Debug)]
pub struct AnnotatedSet {
    /// What the files are.
    pub format: BoxFormat,
    /// The folder or file that was opened.
    pub path: PathBuf,
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// Whether a file lists the classes; else they are those that occur.
    pub classes_are_listed: bool,
    /// COCO's number of each class, where the set has such numbers.
    pub category_ids: Option<Vec<i64>>,
    /// Train, val and test.
    pub parts: [Option<Vec<AnnotatedPicture>>; 3],
    /// Pictures of no part, such as those that none of VOC's lists names.
    pub unassigned: Vec<AnnotatedPicture>,
    /// What was wrong in the files, in the order of reading.
    pub faults: Vec<Fault>,
    /// Remarks, such as pictures of no part.
    pub notes: Vec<String>,
}

impl AnnotatedSet {
    /// How messages call a box, such as `object 13 (RBC)`.
    pub fn object(&self, label: &BoxLabel) -> String {
        self.format.object(label, &self.class_names[label.class])
    }

    /// All pictures of all parts.
    pub fn pictures(&self) -> impl Iterator<Item = &AnnotatedPicture> {
        self.parts.iter().flatten().flatten()
    }

    /// Boxes of each class in a part.
    pub fn class_counts(&self, part: usize) -> Vec<usize> {
        let mut counts = vec![0; self.class_names.len()];
        for label in self.parts[part].iter().flatten().flat_map(|picture| &picture.labels) {
            counts[label.class] += 1;
        }
        counts
    }

    /// What was repaired in memory, a line for each kind of repair: how often, and the first cases by file and object.
    ///
    /// ```text
    /// 2 × box without area, left out: BloodImage_00343.xml object 4 (RBC), BloodImage_00338.xml object 13 (RBC)
    /// ```
    pub fn repairs(&self) -> Vec<String> {
        let mut kinds: BTreeMap<(&str, Repair), Vec<String>> = BTreeMap::new();
        for fault in self.faults.iter().filter(|fault| fault.repair != Repair::None) {
            let file = fault.file.file_name().unwrap_or(fault.file.as_os_str()).to_string_lossy();
            let object = fault.object.as_ref().map(|object| format!(" {object}")).unwrap_or_default();
            kinds.entry((fault.kind.describe(), fault.repair)).or_default().push(format!("{file}{object}"));
        }
        let line = |((what, repair), cases): (&(&str, Repair), &Vec<String>)| {
            let shown = cases.iter().take(MOST_CASES).cloned().collect::<Vec<_>>().join(", ");
            let more = if cases.len() > MOST_CASES { ", …" } else { "" };
            format!("{} × {what}, {}: {shown}{more}", cases.len(), repair.describe())
        };
        kinds.iter().map(line).collect()
    }
}

/// Cases that one line of [`AnnotatedSet::repairs`] names.
const MOST_CASES: usize = 10;
