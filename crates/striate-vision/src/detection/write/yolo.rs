//! `images/{train,val,test}`, `labels/{train,val,test}` and `data.yaml`.

use super::super::annotations::{AnnotatedSet, PARTS};
use super::{Named, Parts, write_text};
use crate::data::Result;
use std::fmt::Write;
use std::path::Path;

pub(super) fn write(set: &AnnotatedSet, folder: &Path, parts: &Parts<'_>) -> Result<()> {
    let mut yaml = String::from("# written by striate data convert\n");
    for (part, pictures) in parts.iter().enumerate().filter(|(_, pictures)| !pictures.is_empty()) {
        for named in pictures {
            let path = folder.join("labels").join(PARTS[part]).join(format!("{}.txt", named.stem()));
            write_text(&path, &file(named))?;
        }
        let _ = writeln!(yaml, "{0}: images/{0}", PARTS[part]);
    }
    let _ = writeln!(yaml, "nc: {}\nnames:", set.class_names.len());
    for (class, name) in set.class_names.iter().enumerate() {
        // A string of JSON is one of YAML, whatever is in it.
        let _ = writeln!(yaml, "  {class}: {}", serde_json::Value::from(name.as_str()));
    }
    write_text(&folder.join("data.yaml"), &yaml)
}

/// All digits are written, so that a picture's pixels come back to within rounding.
fn file(named: &Named<'_>) -> String {
    let [width, height] = named.size.map(f64::from);
    let mut text = String::new();
    for label in &named.picture.labels {
        let ([x1, y1, x2, y2], [w, h]) = (label.xyxy, label.size());
        let (x, y) = ((x1 + x2) / 2.0 / width, (y1 + y2) / 2.0 / height);
        let _ = writeln!(text, "{} {x} {y} {} {}", label.class, w / width, h / height);
    }
    text
}
