//! The training losses of a detector on a batch of one's own, without a step: `tools/zoo/detectors.py --losses` holds them against
//! torchvision's.
//!
//! `cargo run --release -p striate-vision --example detector_losses -- NAME WEIGHTS PICTURES.npy BOXES.npy LABELS.npy [MASKS.npy]`
//!
//! Prepared pictures `[N, 3, H, W]`, corners of boxes in their pixels `[N, most, 4]`, labels `[N, most]` (i64; -1 where a picture has
//! fewer boxes), for Mask R-CNN which pixels belong to each `[N, most, H, W]`; all but the labels f32. Prints an object of the losses by
//! torchvision's names. Nets of two stages learn from every anchor and every proposal, not from a sample of them.

use std::error::Error;
use std::path::Path;
use striate_graph::{Array, CompileOptions, Mode, Program, Session, Tensor, Trace};
use striate_io::read_npy;
use striate_vision::models::detection::{Detector, Sampling, TwoStageTraining, pack_masks};

/// More than any picture has candidates.
const ALL: usize = 1 << 20;
/// Proposals of a picture that may have an object: each of them goes through the mask head.
const OBJECTS: usize = 512;

fn main() -> Result<(), Box<dyn Error>> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [name, weights, files @ ..] = &given[..] else {
        return Err("NAME WEIGHTS PICTURES BOXES LABELS [MASKS]".into());
    };
    let detector = Detector::load(name, Path::new(weights))?;
    let mut arrays = files.iter().map(|file| read_npy(Path::new(file))).collect::<Result<Vec<Array>, _>>()?;
    if let Some(masks) = arrays.get_mut(3) {
        *masks = pack_masks(masks)?;
    }

    // The graph: inputs, the net, its losses.
    let trace = Trace::new(Mode::Train);
    let names = ["pictures", "boxes", "labels", "masks"];
    let inputs: Vec<Tensor> =
        names.iter().zip(&arrays).map(|(name, array)| trace.input(name, array.shape(), array.dtype())).collect();
    let [pictures, boxes, labels, masks @ ..] = &inputs[..] else {
        return Err("PICTURES, BOXES and LABELS are needed".into());
    };
    let sampling = Sampling {
        rpn_batch_size_per_image: ALL,
        rpn_positive_fraction: 0.5,
        box_batch_size_per_image: ALL,
        box_positive_fraction: OBJECTS as f64 / ALL as f64,
    };
    let training = TwoStageTraining { sampling, masks: masks.first() };
    let losses = detector.net().losses_with(pictures, [boxes, labels], &training);
    let outputs: Vec<(&str, &Tensor)> = losses.iter().map(|(name, loss)| (*name, loss)).collect();
    let graph = trace.finish(&outputs)?;

    let mut session = Session::new(Program::compile(&graph, &CompileOptions::default())?);
    let values: Vec<(&str, &Array)> = names.into_iter().zip(&arrays).collect();
    let mut lines = Vec::new();
    for ((name, _), value) in losses.iter().zip(session.run(&values)?) {
        lines.push(format!("\"{name}\": {}", value.item()?));
    }
    println!("{{{}}}", lines.join(", "));
    Ok(())
}
