//! Ten training steps of whole nets from the same weights, held against PyTorch's float64 run: at most three times as far
//! from it as PyTorch's own float32, or 1e-4.
//!
//! PyTorch's float32 is the farthest of three ways in which it computes the same net: contiguous maps, channels_last, and without oneDNN.
//! A deep net doubles a rounding many times in ten steps, so that one way alone may lie near float64 at a step by luck.

use crate::common::{Case, formula, load_family};
use striate::graph::{Array, CompileOptions, DType, Mode, ParamKind, Parameter, Program, Session, Trace};
use striate::nn::loss::CrossEntropyLoss;
use striate::nn::optim::SGD;
use striate::nn::{Module, assign_names};
use striate::vision::models::{find_model, mobilenet_v2};

const BATCH: usize = 16;

/// The net of a case, with the fixture's initial values.
fn build(case: &Case, shape: &[usize]) -> Box<dyn Module> {
    let net: Box<dyn Module> = match &*case.layer {
        "mobilenet_v2" => Box::new(mobilenet_v2(3, 10, 0.0)),
        name => find_model(name).unwrap().build([shape[1], shape[2], shape[3]], 10, 0).unwrap(),
    };
    assign_names(&*net);
    let cells = cells(&*net);
    let normed = |name: &str| {
        let statistics = format!("{}.running_mean", name.rsplit_once('.').map_or("", |(layer, _)| layer));
        cells.iter().any(|(other, _)| *other == statistics)
    };
    for (name, cell) in cells.iter().filter(|(_, cell)| cell.dtype() == DType::F32) {
        let values = formula::initial(name, &cell.shape(), normed(name));
        cell.set(Array::from_vec(cell.shape(), values).unwrap()).unwrap();
    }
    net
}

fn cells(net: &dyn Module) -> Vec<(String, Parameter)> {
    net.named_parameters().into_iter().chain(net.buffers()).collect()
}

/// Squared L2 distances over parameters, estimated from the samples: of the state from float64's, of float64's from the start,
/// and of float64's from zero.
fn distances(case: &Case, net: &dyn Module, state: usize) -> [f64; 3] {
    let (shape, exact) = case.f64("after64");
    let exact = &exact[state * shape[1]..(state + 1) * shape[1]];
    let (mut at, mut sums) = (0, [0.0; 3]);
    let cells = cells(net);
    for name in case.json["names"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()) {
        let cell = &cells.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}")).1;
        let now = cell.array();
        let now = now.f32s().unwrap();
        let samples = formula::sample_indices(name, now.len());
        let normed = cell.kind() == ParamKind::Buffer
            || name.ends_with("bias") && {
                let layer = name.rsplit_once('.').map_or("", |(layer, _)| layer);
                cells.iter().any(|(n, _)| *n == format!("{layer}.running_mean"))
            };
        let start = formula::initial(name, &cell.shape(), normed);
        let weight = now.len() as f64 / samples.len() as f64;
        for (index, want) in samples.iter().zip(&exact[at..]) {
            let from = |value: f32| f64::from(value) - want;
            let parts = [from(now[*index]), from(start[*index]), *want];
            // Running statistics are part of the state, but not of the distance that PyTorch's run was measured by.
            if cell.kind() == ParamKind::Weight {
                sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += weight * part * part);
            }
        }
        at += samples.len();
    }
    sums
}

/// The losses that lie too far from float64's. How far PyTorch's float32 lies from them at a step may be small by luck: the farthest of
/// its runs so far is the measure.
fn far_losses(case: &Case, losses: &[f64]) -> Vec<String> {
    let ((_, truth), (_, torch)) = (case.f64("loss64"), case.f32("loss"));
    let (mut problems, mut so_far) = (Vec::new(), 0.0_f64);
    for (step, (loss, truth)) in losses.iter().zip(&truth).enumerate() {
        let theirs = torch.iter().skip(step).step_by(losses.len()).map(|theirs| (f64::from(*theirs) - truth).abs());
        so_far = theirs.fold(so_far, f64::max);
        let ours = (loss - truth).abs();
        if ours > (3.0 * so_far).max(1e-4 * truth.abs()) {
            problems
                .push(format!("loss of step {}: {loss}, float64 {truth}, PyTorch up to {so_far:.1e} off", step + 1));
        }
    }
    problems
}

/// Ten steps, by direct convolutions alone or as by default. Winograd's rounding is allowed 1e-4 of the output's size where a direct
/// sum is allowed 1e-5; how far ten steps may lead away is the same for both.
fn follow(case: &Case, exact: bool) -> Result<(), String> {
    let shape: Vec<usize> =
        case.json["input_shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
    let net = build(case, &shape);
    let optimizer = SGD::new(0.01).momentum(0.9).over(net.parameters());
    let trace = Trace::new(Mode::Train);
    let images = trace.input("images", &shape[..], DType::F32);
    let targets = trace.input("targets", [BATCH], DType::I64);
    let logits = net.call(&images);
    let loss = CrossEntropyLoss::new().call(&logits, &targets);
    optimizer.minimize(&loss).unwrap();
    let graph = trace.finish(&[("loss", &loss), ("logits", &logits)]).unwrap();
    let mut session =
        Session::new(Program::compile(&graph, &CompileOptions { exact, ..CompileOptions::default() }).unwrap());
    let mut losses = Vec::new();
    let mut problems = Vec::new();
    let start = case.json["first_step"].as_u64().unwrap();
    for step in 0..10 {
        let key = (start + step as u64).to_string();
        let x = formula::images(&key, shape.iter().product());
        let x = Array::from_vec(&shape[..], x).unwrap();
        let y = Array::from_vec([BATCH], formula::labels(&key, BATCH)).unwrap();
        let hyper = optimizer.hyper_inputs();
        let mut inputs = vec![("images", &x), ("targets", &y)];
        inputs.extend(hyper.iter().map(|(name, array)| (name.as_str(), array)));
        let outputs = session.run(&inputs).unwrap();
        losses.push(outputs[0].item().unwrap());
        if step == 0 {
            let first = outputs[1].clone();
            let allowed = if exact { 1e-5 } else { 1e-4 };
            problems.extend(case.check_close("first_logits", first.shape(), first.f32s().unwrap(), allowed).err());
        }
        if let Some(state) = [0, 9].iter().position(|s| *s == step) {
            let [ours, moved, size] = distances(case, &*net, state);
            for (of, whole) in [("of_parameters", size), ("of_update", moved)] {
                let torch = case.json["float32_distance"][state][of].as_f64().unwrap();
                let ours = (ours / whole).sqrt();
                if ours > (3.0 * torch).max(1e-4) {
                    problems.push(format!("after step {}: {ours:.2e} {of}, PyTorch {torch:.2e}", step + 1));
                }
            }
        }
    }
    problems.extend(far_losses(case, &losses));
    match problems.is_empty() {
        true => Ok(()),
        false => Err(format!("{}, exact: {exact}: {}", case.name, problems.join("; "))),
    }
}

#[test]
fn ten_steps_stay_as_close_as_pytorchs() {
    let cases = load_family("trajectories");
    for exact in [true, false] {
        let failures: Vec<String> = cases.iter().filter_map(|case| follow(case, exact).err()).collect();
        crate::report("trajectories", cases.len(), &failures);
    }
}
