//! The smallest net of each family: one training step and an evaluation on three batches, held against PyTorch's float64 run: at most
//! three times as far from it as PyTorch's own float32, or 1e-4 (logits) and 1e-3 (gradients).
//!
//! PyTorch's float32 is the farthest of the ways in which it computes the net (see `trajectories`), on any of the batches: a ReLU whose
//! input lies within rounding of 0 moves a gradient by as much as 1e-2, on one batch and not on another.

use crate::common::{Case, formula, load_family};
use striate::graph::{Array, CompileOptions, DType, Mode, Program, Session, Tensor, Trace, gradients};
use striate::nn::loss::{CrossEntropyLoss, of_outputs};
use striate::nn::{Module, Visitor};
use striate::vision::models::{Task, find_model};

/// Paths of the layers that are random in training.
#[derive(Default)]
struct RandomLayers {
    prefix: String,
    paths: Vec<String>,
}

impl Visitor for RandomLayers {
    fn module(&mut self, name: &str, module: &dyn Module) {
        let path = if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) };
        if module.class_name().starts_with("Dropout") || module.class_name() == "StochasticDepth" {
            self.paths.push(path.clone());
        }
        let outer = std::mem::replace(&mut self.prefix, path);
        module.visit(self);
        self.prefix = outer;
    }
    fn parameter(&mut self, _: &str, _: &striate::graph::Parameter) {}
}

/// Sets all cells by formula, but for those that have one value.
pub(crate) fn fill(net: &dyn Module, filled: &serde_json::Value) {
    let cells: Vec<_> = net.named_parameters().into_iter().chain(net.buffers()).collect();
    let normed: std::collections::HashSet<String> =
        cells.iter().filter_map(|(name, _)| Some(name.strip_suffix(".running_mean")?.to_owned())).collect();
    for (name, cell) in cells.iter().filter(|(_, cell)| cell.dtype() == DType::F32) {
        let layer = name.rsplit_once('.').map_or("", |(layer, _)| layer);
        let values = match filled[name.as_str()].as_f64() {
            Some(value) => vec![value as f32; cell.shape().numel()],
            None => formula::initial(name, &cell.shape(), normed.contains(layer)),
        };
        cell.set(Array::from_vec(cell.shape(), values).unwrap()).unwrap();
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Every 16th row and column of `[N, C, H, W]`.
fn thinned(logits: &Array) -> Vec<f32> {
    let values = logits.f32s().unwrap();
    let &[_, _, h, w] = logits.shape().dims() else { return values.to_vec() };
    let planes = values.chunks_exact(h * w);
    planes.flat_map(|p| (0..h).step_by(16).flat_map(move |y| (0..w).step_by(16).map(move |x| p[y * w + x]))).collect()
}

fn follow(case: &Case) -> Result<(), String> {
    let sizes = |key: &str| -> Vec<usize> {
        case.json[key].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect()
    };
    let shape = sizes("input_shape");
    let spec = find_model(&case.layer).map_err(|e| e.to_string())?;
    let net = spec.structure([shape[1], shape[2], shape[3]], 10).map_err(|e| e.to_string())?;
    fill(&*net, &case.json["filled"]);
    let named = net.named_parameters();
    let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
    let hash = format!("{:016x}", formula::fnv1a(&names.join(" ")));
    if case.json["names"] != hash.as_str() {
        return Err(format!("the parameters' names or their order are not torchvision's: {}", names.join(" ")));
    }
    let mut random = RandomLayers::default();
    net.visit(&mut random);
    let trace = Trace::new(Mode::Train);
    trace.freeze(&random.paths);
    let images = trace.input("images", &shape[..], DType::F32);
    let target_shape = if spec.task == Task::Segment { vec![shape[0], shape[2], shape[3]] } else { vec![shape[0]] };
    let targets = trace.input("targets", &target_shape[..], DType::I64);
    let loss = of_outputs(&net.call_training(&images), |y| CrossEntropyLoss::new().call(y, &targets));
    let cells: Vec<Tensor> = named.iter().map(|(_, cell)| trace.parameter(cell)).collect();
    let found = gradients(&loss, &cells.iter().collect::<Vec<_>>()).map_err(|e| e.to_string())?;
    let mut outputs = vec![("loss".to_owned(), &loss)];
    outputs.extend(found.iter().enumerate().map(|(i, g)| (format!("g{i}"), g)));
    let outputs: Vec<(&str, &Tensor)> = outputs.iter().map(|(name, t)| (name.as_str(), *t)).collect();
    let run = |graph, inputs: &[(&str, &Array)]| -> Result<Vec<Array>, String> {
        let program = Program::compile(&graph, &CompileOptions { exact: true, ..CompileOptions::default() })
            .map_err(|e| e.to_string())?;
        Session::new(program).run(inputs).map(<[Array]>::to_vec).map_err(|e| e.to_string())
    };
    let pictures = case.json["pictures"].as_str().unwrap();
    let x = Array::from_vec(&shape[..], formula::images(pictures, shape.iter().product())).unwrap();
    let labels = formula::labels(pictures, target_shape.iter().product());
    let y = Array::from_vec(&target_shape[..], labels).unwrap();
    let given = run(trace.finish(&outputs).map_err(|e| e.to_string())?, &[("images", &x), ("targets", &y)])?;

    let mut problems = Vec::new();
    let (_, wanted) = case.f64("loss64");
    let loss = given[0].item().unwrap();
    if (loss - wanted[0]).abs() > 1e-4 * wanted[0].abs() {
        problems.push(format!("the loss is {loss}, in float64 {}", wanted[0]));
    }
    let (_, rows) = case.f64("grads64");
    let whole = rows.chunks(2).map(|row| row[0] * row[0]).sum::<f64>().sqrt();
    let (mut apart, mut worst) = (0.0, (0.0, ""));
    for ((name, gradient), row) in names.iter().zip(&given[1..]).zip(rows.chunks(2)) {
        let values = gradient.f32s().unwrap();
        let direction = formula::values(&format!("{name}#direction"), values.len(), 12f64.sqrt() as f32);
        let off = (dot(values, &direction) - row[1]).abs();
        let norm_off = (dot(values, values).sqrt() - row[0]).abs();
        let of_own = off.max(norm_off) / (row[0] + 1e-3 * whole);
        if of_own > worst.0 {
            worst = (of_own, name);
        }
        apart += off * off;
    }
    let theirs = |key: &str| case.json["float32_distance"][key].as_f64().unwrap();
    let apart = apart.sqrt() / whole;
    if !apart.is_finite()
        || apart > (3.0 * theirs("gradients")).max(1e-3)
        || worst.0 > (30.0 * theirs("gradients")).max(0.05)
    {
        let (share, name) = worst;
        let torch = theirs("gradients");
        problems.push(format!("gradients are {apart:.1e} off (PyTorch {torch:.1e}); worst {share:.1e} of {name}"));
    }
    let eval = net.graph(Mode::Eval, &shape).map_err(|e| e.to_string())?;
    let logits = thinned(&run(eval, &[("input", &x)])?[0]);
    let (_, wanted) = case.f64("logits64");
    let (low, high) = wanted.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    let off = logits.iter().zip(&wanted).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max) / (high - low);
    let sound = logits.len() == wanted.len() && logits.iter().all(|v| v.is_finite());
    if !sound || off > (3.0 * theirs("logits")).max(1e-4) {
        problems.push(format!("logits are {off:.1e} of their range off (PyTorch {:.1e})", theirs("logits")));
    }
    if problems.is_empty() { Ok(()) } else { Err(format!("{}: {}", case.name, problems.join("; "))) }
}

#[test]
fn the_smallest_net_of_each_family_computes_and_learns_as_torchvisions() {
    let cases = load_family("zoo");
    let failures: Vec<String> = cases.iter().filter_map(|case| follow(case).err()).collect();
    crate::report("zoo", cases.len(), &failures);
}
