//! Detectors as models: what they give, and what is said of it.

use super::ExportFlags;
use crate::detect::names_of;
use crate::failure::Failure;
use crate::model::{Model, ModelArgs, Origin};
use striate::graph::{DType, Mode, Tensor, Trace};
use striate::io::onnx::Forward;
use striate::vision::models::detection::{
    Chosen, Decoded, DetectionNet, ExportedBoxes, PictureSize, PictureTransform, find_detector,
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
    let class_names = names_of(net.classes()).map(|names| names[net.first_label()..].to_vec());
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
pub fn check(flags: &ExportFlags) -> Result<(), Failure> {
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

/// The label of the first of the classes that the file names: the last ones of the net.
fn first_label(net: &dyn DetectionNet, model: &Model) -> usize {
    model.class_names.as_ref().map_or(net.first_label(), |names| net.classes().saturating_sub(names.len()))
}

/// What the model computes: `boxes` and `scores`, or with suppression what is left of them; and behind these outputs the values
/// among which the net has chosen, which are none of the file's.
pub fn forward<'a>(net: &'a dyn DetectionNet, model: &Model, nms: bool) -> Box<Forward<'a>> {
    let first = first_label(net, model);
    Box::new(move |x: &Tensor| match nms {
        true => {
            let Chosen { boxes, scores, labels, masks, chosen_from } = net.chosen(x, first);
            let given = vec![("boxes", boxes), ("scores", scores), ("labels", labels)];
            given.into_iter().chain(masks.map(|masks| ("masks", masks))).chain(chosen_from).collect()
        }
        false => {
            let Decoded { boxes, scores, chosen_from, .. } = net.decoded(x, first);
            [("boxes", boxes), ("scores", scores)].into_iter().chain(chosen_from).collect()
        }
    })
}

/// How the outputs of the file are read, of pictures `[C, H, W]`.
pub fn exported(net: &dyn DetectionNet, model: &Model, nms: bool) -> Result<ExportedBoxes, Failure> {
    let [channels, height, width] = model.input;
    let trace = Trace::new(Mode::Eval);
    let x = trace.input("input", [1, channels, height, width], DType::F32);
    let (first, selection) = (first_label(net, model), net.selection());
    let groups = net.decoded(&x, first).groups;
    trace.check()?;
    Ok(ExportedBoxes { selection, groups, chosen: nms, masks: nms && net.gives_masks() })
}
