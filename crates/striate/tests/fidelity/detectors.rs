//! torchvision's detectors: names, raw heads and training losses against its float64 run, and what is found on whole pictures.

use crate::common::{Case, formula, load_family};
use crate::zoo::fill;
use striate::graph::{Array, CompileOptions, DType, Graph, Mode, Program, Session, Tensor, Trace};
use striate::vision::models::detection::{
    Corners, Detector, Sampling, Truth, TwoStageTraining, pack_masks, pad_truths,
};

/// Of the range of a head, or of a loss.
const LIMIT: f64 = 1e-4;
/// Pixels.
const CORNER_LIMIT: f32 = 0.05;
const SCORE_LIMIT: f32 = 1e-4;

fn sizes(value: &serde_json::Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect()
}

fn run(graph: &Graph, inputs: &[(&str, &Array)]) -> Result<Vec<Array>, String> {
    let options = CompileOptions { exact: true, ..CompileOptions::default() };
    let program = Program::compile(graph, &options).map_err(|e| e.to_string())?;
    Session::new(program).run(inputs).map(<[Array]>::to_vec).map_err(|e| e.to_string())
}

/// The case's detector, filled by formula.
fn detector(case: &Case) -> Detector {
    let detector = Detector::untrained(&case.layer, 10).unwrap();
    fill(detector.net(), &case.json["filled"]);
    detector
}

fn check_heads(case: &Case, detector: &Detector, x: &Array) -> Result<(), String> {
    let graph = detector.graph([0, 1, 2, 3].map(|axis| x.shape()[axis])).map_err(|e| e.to_string())?;
    let outputs = run(&graph, &[("input", x)])?;
    for ((name, _), output) in
        graph.outputs.iter().zip(&outputs).filter(|((name, _), _)| case.has(&format!("{name}64")))
    {
        if output.shape().to_vec() != sizes(&case.json["heads"][&**name]) {
            return Err(format!("{name} has shape {}", output.shape()));
        }
        let (_, wanted) = case.f64(&format!("{name}64"));
        let step = (output.numel() / 400).max(1);
        let (low, high) = wanted.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        let pairs = output.f32s().unwrap().iter().step_by(step).zip(&wanted);
        let off = pairs.map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max) / (high - low);
        if off.is_nan() || off > LIMIT {
            return Err(format!("{name} is {off:.1e} of its range off"));
        }
    }
    Ok(())
}

/// The truths of a case, a picture each.
fn truths(case: &Case) -> Vec<Truth> {
    let of = |picture: usize| {
        let (_, flat) = case.f32(&format!("boxes.{picture}"));
        let boxes: Vec<Corners> = flat.as_chunks().0.to_vec();
        let (_, labels) = case.i64(&format!("labels.{picture}"));
        Truth { boxes, labels: labels.into_iter().map(|label| label as usize).collect() }
    };
    (0..).take_while(|picture| case.has(&format!("boxes.{picture}"))).map(of).collect()
}

/// More than there are candidates.
const ALL: usize = 1 << 20;

/// Masks of boxes `[N, most, 4]`: the ellipse in each, `[N, most, H, W]`.
fn truth_masks(boxes: &Array, [height, width]: [usize; 2]) -> Array {
    let pixels = |[x1, y1, x2, y2]: &Corners| {
        let (middle, half) = ([(x1 + x2) / 2.0, (y1 + y2) / 2.0], [(x2 - x1) / 2.0, (y2 - y1) / 2.0]);
        let inside = move |pixel: usize| {
            let at = [(pixel % width) as f32 + 0.5, (pixel / width) as f32 + 0.5];
            let [x, y] = [0, 1].map(|axis| (at[axis] - middle[axis]) / half[axis]);
            f32::from(u8::from(x * x + y * y < 1.0))
        };
        (0..height * width).map(inside).collect::<Vec<f32>>()
    };
    let values = boxes.f32s().unwrap().as_chunks().0.iter().flat_map(pixels).collect();
    Array::from_vec([boxes.shape()[0], boxes.shape()[1], height, width], values).unwrap()
}

fn check_losses(case: &Case, detector: &Detector, x: &Array) -> Result<(), String> {
    // More places than boxes: the padding counts for nothing.
    let (boxes, labels) = pad_truths(&truths(case), 5);
    let trace = Trace::new(Mode::Train);
    let input = trace.input("input", x.shape(), DType::F32);
    let given = [trace.input("boxes", boxes.shape(), DType::F32), trace.input("labels", labels.shape(), DType::I64)];
    // Samples of all candidates: which of them torchvision draws is a matter of its generator.
    let sampling = Sampling {
        rpn_batch_size_per_image: ALL,
        rpn_positive_fraction: 0.5,
        box_batch_size_per_image: ALL,
        box_positive_fraction: 1.0,
    };
    let masks = pack_masks(&truth_masks(&boxes, [x.shape()[2], x.shape()[3]])).map_err(|e| e.to_string())?;
    let given_masks = trace.input("masks", masks.shape(), DType::U8);
    let training = TwoStageTraining { sampling, masks: Some(&given_masks) };
    let losses = detector.net().losses_with(&input, [&given[0], &given[1]], &training);
    let outputs: Vec<(&str, &Tensor)> = losses.iter().map(|(name, loss)| (*name, loss)).collect();
    let graph = trace.finish(&outputs).map_err(|e| e.to_string())?;
    let found = run(&graph, &[("input", x), ("boxes", &boxes), ("labels", &labels), ("masks", &masks)])?;
    let (_, wanted) = case.f64("losses64");
    let names: Vec<&str> = case.json["losses"].as_array().unwrap().iter().filter_map(|name| name.as_str()).collect();
    for (name, wanted) in names.iter().zip(wanted) {
        let place = losses.iter().position(|(own, _)| own == name).ok_or_else(|| format!("no loss {name}"))?;
        let loss = found[place].item().unwrap();
        let off = (loss - wanted).abs() / wanted.abs();
        if off.is_nan() || off > LIMIT {
            return Err(format!("the loss {name} is {loss}, in float64 {wanted}"));
        }
    }
    Ok(())
}

/// Lowers the background's biases, so that something is found.
fn lower(case: &Case, detector: &Detector) {
    let lowered = case.json["lowered"].as_f64().unwrap() as f32;
    let cells = detector.net().named_parameters();
    for key in case.json["class_biases"].as_array().unwrap() {
        let (_, cell) = cells.iter().find(|(name, _)| name == key.as_str().unwrap()).unwrap();
        cell.update(|bias| bias.as_mut_slice::<f32>().unwrap().iter_mut().step_by(10).for_each(|v| *v -= lowered));
    }
}

fn check_whole(case: &Case, detector: Detector) -> Result<(), String> {
    lower(case, &detector);
    let mut detector = detector;
    let (name, size) = (&case.json["picture"][0], [1, 2].map(|i| case.json["picture"][i].as_u64().unwrap() as usize));
    let values = formula::values(name.as_str().unwrap(), 3 * size[0] * size[1], 1.0).into_iter().map(|v| v + 0.5);
    let picture = Array::from_vec([3, size[0], size[1]], values.collect()).unwrap();
    let found = detector.detect(&[picture]).map_err(|e| e.to_string())?.remove(0);
    let ((_, boxes), (_, scores), (_, labels)) = (case.f32("boxes"), case.f32("scores"), case.i64("labels"));
    if found.scores.len() != scores.len() {
        return Err(format!("{} boxes instead of {}", found.scores.len(), scores.len()));
    }
    // Nearly equal scores may come in either order.
    let mut free: Vec<usize> = (0..scores.len()).collect();
    for ((corners, score), label) in boxes.as_chunks::<4>().0.iter().zip(&scores).zip(&labels) {
        let same = |index: usize| {
            let near = found.boxes[index].iter().zip(corners).all(|(a, b)| (a - b).abs() <= CORNER_LIMIT);
            near && found.labels[index] as i64 == *label && (found.scores[index] - score).abs() <= SCORE_LIMIT
        };
        let Some(place) = free.iter().position(|index| same(*index)) else {
            return Err(format!("no box of class {label} and score {score} at {corners:?}"));
        };
        free.remove(place);
    }
    Ok(())
}

fn follow(case: &Case) -> Result<(), String> {
    let detector = detector(case);
    if case.json["picture"].is_array() {
        return check_whole(case, detector);
    }
    let names: Vec<String> = detector.state_dict().keys().map(str::to_owned).collect();
    if case.json["names"] != format!("{:016x}", formula::fnv1a(&names.join(" "))).as_str() {
        return Err(format!("the names or their order are not torchvision's: {}", names.join(" ")));
    }
    let shape = sizes(&case.json["input_shape"]);
    let x = Array::from_vec(&shape[..], formula::images("0", shape.iter().product())).unwrap();
    check_heads(case, &detector, &x)?;
    if case.has("losses64") { check_losses(case, &detector, &x) } else { Ok(()) }
}

#[test]
fn detectors_compute_learn_and_find_as_torchvisions() {
    let cases = load_family("detectors");
    let failed = |case: &Case| follow(case).err().map(|error| format!("{}: {error}", case.name));
    let failures: Vec<String> = cases.iter().filter_map(failed).collect();
    crate::report("detectors", cases.len(), &failures);
}
