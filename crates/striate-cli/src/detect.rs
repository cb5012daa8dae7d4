//! Detectors as MODEL of `run` and `predict`.

use crate::compute::ComputeArgs;
use crate::failure::Failure;
use crate::model::ModelArgs;
use crate::output::{Output, print_json, print_line};
use serde::Serialize;
use std::path::{Path, PathBuf};
use striate::graph::{Array, DType, Program, Session};
use striate::vision::data::Image;
use striate::vision::models::detection::{
    DetectError, Detections, Detector, coco_classes, find_detector, picture_array,
};

impl From<DetectError> for Failure {
    fn from(error: DetectError) -> Failure {
        match error {
            DetectError::Graph(error) => error.into(),
            other => Failure::usage(other.to_string()),
        }
    }
}

/// Whether MODEL is the name of a detector.
pub fn is_detector(args: &ModelArgs) -> bool {
    find_detector(&args.model).is_ok()
}

/// The detector of a name, with the weights of a file or fresh ones.
fn open(args: &ModelArgs, compute: ComputeArgs) -> Result<Detector, Failure> {
    let spec = find_detector(&args.model)?;
    let detector = match &args.weights {
        Some(path) => Detector::load(spec.name, path)?,
        None => {
            eprintln!("note: {} has fresh random weights; give --weights", spec.name);
            Detector::new(spec.name, spec.classes, 0)?
        }
    };
    Ok(detector.with_options(compute.options(), compute.team()))
}

/// The raw heads of a batch `[N, 3, H, W]` of prepared pictures.
pub fn run(args: &ModelArgs, array: &Array, compute: ComputeArgs) -> Result<Vec<Array>, Failure> {
    let detector = open(args, compute)?;
    let refuse = |why: String| {
        Failure::usage(format!(
            "input `input`: {} takes f32 [N, 3, H, W] and cannot take {} {}{why}",
            args.model,
            array.dtype(),
            array.shape()
        ))
    };
    let &[n, 3, h, w] = array.shape().dims() else { return Err(refuse(String::new())) };
    if array.dtype() != DType::F32 || [n, h, w].contains(&0) {
        return Err(refuse(String::new()));
    }
    let graph = detector.graph([n, 3, h, w]).map_err(|error| refuse(format!(": {error}")))?;
    let program = Program::compile(&graph, &compute.options())?;
    Ok(Session::with_team(program, compute.team()).run(&[("input", array)])?.to_vec())
}

/// One box of a picture.
#[derive(Debug, Serialize)]
struct Found<'a> {
    index: usize,
    name: &'a str,
    score: f32,
    xyxy: [f32; 4],
}

/// Names of classes, numbers where nobody knows them.
fn names_of(detector: &Detector) -> Vec<String> {
    let classes = detector.classes();
    let coco: Vec<String> = coco_classes().map(str::to_owned).collect();
    if coco.len() == classes { coco } else { (0..classes).map(|index| index.to_string()).collect() }
}

fn tell(path: &Path, found: &Detections, names: &[String], (least, output): (f32, Output)) {
    let all = found.boxes.iter().zip(&found.scores).zip(&found.labels);
    let boxes: Vec<Found<'_>> = all
        .filter(|((_, score), _)| **score >= least)
        .map(|((xyxy, score), &index)| Found { index, name: &names[index], score: *score, xyxy: *xyxy })
        .collect();
    if output == Output::Json {
        return print_json(&serde_json::json!({"path": path, "boxes": boxes}));
    }
    let words: Vec<String> = boxes
        .iter()
        .map(|found| {
            format!(
                "{} {:.2} % at {}",
                found.name,
                100.0 * found.score,
                found.xyxy.map(|v| format!("{v:.1}")).join(" ")
            )
        })
        .collect();
    print_line(&format!(
        "{}: {}",
        path.display(),
        if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
    ));
}

/// Says which boxes are on pictures, those with a score of at least `least`. Gives the number of pictures that could not be read.
pub fn predict(
    args: &ModelArgs,
    paths: &[PathBuf],
    compute: ComputeArgs,
    (least, output): (f32, Output),
) -> Result<usize, Failure> {
    let mut detector = open(args, compute)?;
    let names = names_of(&detector);
    let mut bad = 0;
    for path in paths {
        let image = match Image::open(path).map_err(Failure::from) {
            Err(failure) if failure.is_of_input() && paths.len() > 1 => {
                eprintln!("left out: {}", failure.message());
                bad += 1;
                continue;
            }
            other => other?,
        };
        for found in detector.detect(&[picture_array(&image)])? {
            tell(path, &found, &names, (least, output));
        }
    }
    Ok(bad)
}
