//! `striate data check`.

use super::DataSetArgs;
use crate::failure::Failure;
use crate::output::{Output, print_json, print_line};
use serde::Serialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use striate::vision::data::{DataError, Dataset, DatasetSource, Image, open_dataset, open_embedded};
use striate::vision::detection::{Fault, check_annotations, recognise_annotations};

/// Something wrong.
#[derive(Debug, Serialize)]
struct Problem {
    /// "set", "picture", "label" or "duplicate"; of boxes, the names of `FaultKind`.
    kind: &'static str,
    /// The file, where one is to blame.
    file: Option<PathBuf>,
    /// The sample within its part, such as "train 17".
    object: Option<String>,
    /// What is wrong.
    message: String,
}

/// The file that an error of a set is about.
fn file_of(error: &DataError) -> Option<PathBuf> {
    match error {
        DataError::NotFound { path, .. }
        | DataError::Io { path, .. }
        | DataError::UnknownFormat { path, .. }
        | DataError::OneClass { path, .. }
        | DataError::NoPictures { path, .. } => Some(path.clone()),
        DataError::EmptyClass { folder, .. } => Some(folder.clone()),
        DataError::Picture { file, .. }
        | DataError::IdxMagic { file, .. }
        | DataError::Length { file, .. }
        | DataError::Header { file, .. }
        | DataError::LabelRange { file, .. }
        | DataError::ClassNames { file, .. }
        | DataError::Annotations { file, .. }
        | DataError::Table { file, .. } => Some(file.clone()),
        DataError::CountMismatch { labels_file, .. } => Some(labels_file.clone()),
        _ => None,
    }
}

fn kind_of(error: &DataError) -> &'static str {
    match error {
        DataError::Picture { .. } | DataError::SizeMismatch { .. } => "picture",
        DataError::LabelRange { .. }
        | DataError::SampleLabel { .. }
        | DataError::ClassNames { .. }
        | DataError::Annotations { .. }
        | DataError::Table { .. } => "label",
        _ => "set",
    }
}

/// Reads every sample; tells each problem.
fn check_part(
    (name, part): (&'static str, &dyn Dataset),
    seen: &mut HashMap<u128, String>,
    tell: &mut dyn FnMut(Problem),
) {
    let mut image = Image::default();
    for index in 0..part.len() {
        let object = Some(format!("{name} {index}"));
        let file = part.file(index);
        let here = || file.as_ref().map_or_else(|| part.name(index), |file| file.display().to_string());
        match part.get_into(index, &mut image) {
            Err(error) => {
                let file = file.clone().or_else(|| file_of(&error));
                tell(Problem { kind: kind_of(&error), file, object, message: error.to_string() });
            }
            Ok(label) if label >= part.class_count() => {
                let message = format!("{}: label {label}, but there are {} classes", here(), part.class_count());
                tell(Problem { kind: "label", file, object, message });
            }
            Ok(_) => {
                if let Some((kind, message)) = mask_problem(part, index, &image) {
                    tell(Problem { kind, file: file.clone(), object: object.clone(), message });
                }
                // A picture that is trained on and judged by makes the judgement worthless.
                let place = format!("{name}\u{0}{}", here());
                let other = seen.entry(image.fingerprint()).or_insert_with(|| place.clone());
                if let Some((part_of, first)) = other.split_once('\u{0}').filter(|(part_of, _)| *part_of != name) {
                    let message = format!("{}: the same picture as {first} of the {part_of} part", here());
                    tell(Problem { kind: "duplicate", file, object, message });
                }
            }
        }
    }
}

/// What is wrong with the mask of a picture, where it has one.
fn mask_problem(part: &dyn Dataset, index: usize, image: &Image) -> Option<(&'static str, String)> {
    let mut mask = Image::default();
    match part.mask_into(index, &mut mask) {
        Err(error) => Some((kind_of(&error), error.to_string())),
        Ok(true) if (mask.width, mask.height) != (image.width, image.height) => {
            let (picture, mask) = ([image.width, image.height], [mask.width, mask.height]);
            Some(("label", DataError::MaskSize { name: part.name(index), picture, mask }.to_string()))
        }
        Ok(_) => None,
    }
}

/// The parts that a set has, with their names.
pub(super) fn parts(source: &DatasetSource) -> Vec<(&'static str, &dyn Dataset)> {
    let parts = [("train", &source.train), ("val", &source.val), ("test", &source.test)];
    parts.into_iter().filter_map(|(name, part)| Some((name, part.as_deref()?))).collect()
}

/// Runs the verb.
pub fn run(args: &DataSetArgs) -> Result<(), Failure> {
    let json = args.output.choose() == Output::Json;
    let (mut problems, mut pictures) = (0, 0);
    let mut tell = |problem: Problem| {
        problems += 1;
        match json {
            true => print_json(&problem),
            false => print_line(&format!("{}: {}", problem.kind, problem.message)),
        }
    };
    let boxes = args.data.as_deref().map(Path::new).filter(|path| recognise_annotations(path).is_some());
    if let Some(path) = boxes {
        let fault = &mut |fault: Fault| {
            tell(Problem {
                kind: fault.kind.name(),
                file: Some(fault.file),
                object: fault.object,
                message: fault.message,
            });
        };
        match check_annotations(path, fault) {
            Ok(checked) => {
                checked.notes.iter().for_each(|note| eprintln!("note: {note}"));
                return conclude(problems, checked.pictures, json);
            }
            Err(error) if error.is_io() => return Err(error.into()),
            Err(error) => {
                tell(Problem {
                    kind: kind_of(&error),
                    file: file_of(&error),
                    object: None,
                    message: error.to_string(),
                });
                return conclude(problems, pictures, json);
            }
        }
    }
    let opened = args.data.as_deref().map_or_else(open_embedded, open_dataset);
    match opened {
        Err(error) if error.is_io() => return Err(error.into()),
        Err(error) => {
            tell(Problem { kind: kind_of(&error), file: file_of(&error), object: None, message: error.to_string() });
        }
        Ok(source) => {
            source.notes.iter().for_each(|note| eprintln!("note: {note}"));
            let mut seen = HashMap::new();
            for (name, part) in parts(&source) {
                pictures += part.len();
                check_part((name, part), &mut seen, &mut tell);
            }
        }
    }
    conclude(problems, pictures, json)
}

/// The last word.
fn conclude(problems: usize, pictures: usize, json: bool) -> Result<(), Failure> {
    if problems > 0 {
        return Err(Failure::data(format!("{problems} problem(s) in {pictures} pictures")));
    }
    if !json {
        print_line(&format!("{pictures} pictures, nothing wrong"));
    }
    Ok(())
}
