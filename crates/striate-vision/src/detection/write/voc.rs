//! `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/*.txt`, and `classes.txt`.

use super::super::annotations::{AnnotatedSet, PARTS};
use super::{Named, Parts, write_class_list, write_text};
use crate::data::Result;
use std::fmt::Write;
use std::path::Path;

fn escape(text: &str) -> String {
    // XML has no way at all to write control characters.
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

pub(super) fn write(set: &AnnotatedSet, folder: &Path, parts: &Parts<'_>) -> Result<()> {
    for (part, pictures) in parts.iter().enumerate().filter(|(_, pictures)| !pictures.is_empty()) {
        for named in pictures {
            write_text(&folder.join("Annotations").join(format!("{}.xml", named.stem())), &file(set, named))?;
        }
        let list: String = pictures.iter().map(|named| format!("{}\n", named.stem())).collect();
        write_text(&folder.join("ImageSets").join("Main").join(format!("{}.txt", PARTS[part])), &list)?;
    }
    write_class_list(set, folder)
}

fn file(set: &AnnotatedSet, named: &Named<'_>) -> String {
    let [width, height] = named.size;
    let mut xml = format!(
        "<annotation>\n\t<folder>JPEGImages</folder>\n\t<filename>{}</filename>\n\t<size>\n\t\t<width>{width}</width>\n\t\t\
         <height>{height}</height>\n\t\t<depth>3</depth>\n\t</size>\n\t<segmented>0</segmented>\n",
        escape(&named.name)
    );
    for label in &named.picture.labels {
        let [x1, y1, x2, y2] = label.xyxy;
        let _ = write!(
            xml,
            "\t<object>\n\t\t<name>{}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>{}</truncated>\n\t\t\
             <difficult>{}</difficult>\n\t\t<bndbox>\n\t\t\t<xmin>{x1}</xmin>\n\t\t\t<ymin>{y1}</ymin>\n\t\t\t\
             <xmax>{x2}</xmax>\n\t\t\t<ymax>{y2}</ymax>\n\t\t</bndbox>\n\t</object>\n",
            escape(&set.class_names[label.class]),
            u8::from(label.truncated),
            u8::from(label.difficult)
        );
    }
    xml + "</annotation>\n"
}
