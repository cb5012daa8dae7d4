//! `train.csv`, `val.csv` and `test.csv` beside `images/`, and `classes.txt`; a picture of background has a line without corners and class.

use super::super::annotations::{AnnotatedSet, PARTS};
use super::{Parts, write_class_list, write_text};
use crate::data::Result;
use std::fmt::Write;
use std::path::Path;

/// A cell, in quotes where it needs them.
fn cell(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r', ';', '\t']) || text.trim() != text {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

pub(super) fn write(set: &AnnotatedSet, folder: &Path, parts: &Parts<'_>) -> Result<()> {
    for (part, pictures) in parts.iter().enumerate().filter(|(_, pictures)| !pictures.is_empty()) {
        let mut text = String::from("path,x1,y1,x2,y2,class\n");
        for named in pictures {
            let path = cell(&format!("images/{}", named.name));
            if named.picture.labels.is_empty() {
                let _ = writeln!(text, "{path},,,,,");
            }
            for label in &named.picture.labels {
                let [x1, y1, x2, y2] = label.xyxy;
                let _ = writeln!(text, "{path},{x1},{y1},{x2},{y2},{}", cell(&set.class_names[label.class]));
            }
        }
        write_text(&folder.join(format!("{}.csv", PARTS[part])), &text)?;
    }
    write_class_list(set, folder)
}
