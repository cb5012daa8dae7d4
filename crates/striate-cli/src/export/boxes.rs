//! Detectors as models: what they give, and what is said of it.

use super::ExportFlags;
use crate::detect::names_of;
use crate::failure::Failure;
use crate::model::{Model, ModelArgs, Origin};
use std::collections::BTreeMap;
use striate::graph::{DType, Mode, Tensor, Trace};
use striate::io::onnx::{BOXES_NAME, BoxSuppression, CANDIDATES_NAME, Forward};
use striate::vision::models::detection::{
    DetectionNet, ExportedBoxes, PictureSize, PictureTransform, Selection, find_detector, one_stage,
};
use striate::vision::models::{Task, TaskNet};
use striate::vision::transforms::{Interpolation, Preprocess, ResizeTo};

/// A detector of the registry for pictures of the size that is asked for, with the weights of a file or fresh ones.
pub fn open(args: &ModelArgs, side: Option<usize>) -> Result<Model, Failure> {
    let spec = find_detector(&args.model)?;
    let (net, origin) = match &args.weights {
        Some(path) => (spec.open(path)?, Origin::Plain(path.clone())),
        None => (spec.build(spec.classes, 0)?, Origin::Fresh),
    };
    let [channels, usual, _] = spec.input;
    let side = side.unwrap_or(usual);
    let class_names = names_of(net.classes()).map(|names| names[net.first_class()..].to_vec());
    let preprocess = preprocess(net.transform(), side);
    Ok(Model {
        name: spec.name.to_owned(),
        net: TaskNet::Detector(net),
        input: [channels, side, side],
        task: Task::Detect,
        targets: None,
        class_names,
        preprocess,
        prepared_by: "usual for this detector".to_owned(),
        origin,
    })
}

/// How a picture gets into a square. A size that follows the picture's has no place in a model of one size: there the picture is
/// fitted into the square.
fn preprocess(transform: &PictureTransform, side: usize) -> Preprocess {
    let size = [side, side];
    let resize = match transform.size {
        PictureSize::Fixed(_) => ResizeTo::Exact(size),
        PictureSize::Shorter { .. } | PictureSize::Letterbox(_) => ResizeTo::Letterbox(size),
    };
    Preprocess {
        resize: Some(resize),
        crop: None,
        interpolation: Interpolation::Bilinear,
        channels: 3,
        mean: transform.mean.to_vec(),
        std: transform.std.to_vec(),
    }
}

/// Refuses what cannot be written, or would say nothing.
pub fn check(net: &dyn DetectionNet, flags: &ExportFlags, name: &str) -> Result<(), Failure> {
    one_stage(net, name)?;
    if flags.softmax {
        return Err(Failure::usage("--softmax is for classifiers: the scores of boxes are probabilities already"));
    }
    if flags.dynamic_size {
        return Err(Failure::usage(
            "--dynamic-size: the places of a detector's anchors follow from the size, which --imgsz gives",
        ));
    }
    Ok(())
}

/// What the model computes: `boxes` and `scores`, or with suppression what it chooses from.
pub fn forward<'a>(net: &'a dyn DetectionNet, name: &str, nms: bool) -> Result<Box<Forward<'a>>, Failure> {
    let net = one_stage(net, name)?;
    Ok(Box::new(move |x: &Tensor| {
        let decoded = net.decoded(x);
        match nms {
            true => {
                let candidates = decoded.candidates(&net.selection());
                vec![(BOXES_NAME, decoded.boxes), ("all_scores", decoded.scores), (CANDIDATES_NAME, candidates)]
            }
            false => vec![("boxes", decoded.boxes), ("scores", decoded.scores)],
        }
    }))
}

/// How boxes are chosen inside the model.
pub fn suppression(selection: &Selection) -> BoxSuppression {
    BoxSuppression { score: selection.score, iou: selection.iou as f32, most: selection.most }
}

/// What the file says of boxes of pictures `[C, H, W]`: which are meant to be left, and whether it has chosen them itself.
pub fn metadata(net: &dyn DetectionNet, model: &Model, nms: bool) -> Result<BTreeMap<String, String>, Failure> {
    let net = one_stage(net, &model.name)?;
    let [channels, height, width] = model.input;
    let trace = Trace::new(Mode::Eval);
    let groups = net.decoded(&trace.input("input", [1, channels, height, width], DType::F32)).groups;
    trace.check()?;
    Ok(ExportedBoxes { selection: net.selection(), groups, chosen: nms }.metadata())
}
