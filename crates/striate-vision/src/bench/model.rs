use super::{BenchError, Timing, peak_rss_mib, time};
use crate::models::detection::{DetectionNet, Detector, find_detector};
use crate::models::{ModelError, TaskNet, find_model};
use std::sync::Arc;
use striate_graph::machine::Team;
use striate_graph::rng::{fill_normal, stream_key};
use striate_graph::{
    Array, CompileOptions, DType, Error, Graph, Mode, Program, Session, Shape, StepProfile, Tensor, Trace, gradients,
};
use striate_kernels::rng::fill_uniform;
use striate_nn::Module;
use striate_nn::loss::{CrossEntropyLoss, of_outputs};
use striate_nn::optim::{Optimizer, SGD};

/// A net of the registry with fresh random weights, and how it is run.
#[derive(Clone, Debug)]
pub struct ModelBench {
    /// Registry name.
    pub name: String,
    /// Pictures a call.
    pub batch: usize,
    /// Side of the pictures.
    pub side: usize,
    /// Channels of the pictures.
    pub channels: usize,
    /// Classes.
    pub classes: usize,
    /// Threads.
    pub threads: usize,
    /// How long to measure, in seconds.
    pub seconds: f64,
    /// Direct convolution only.
    pub exact: bool,
    /// Training: as long again is spent on measuring each step of the program.
    pub profile: bool,
}

/// What inference costs.
#[derive(Clone, Debug)]
pub struct InferReport {
    /// Of one call.
    pub timing: Timing,
    /// Pictures a second at the median.
    pub images_per_s: f64,
    /// Compiling the graph, in milliseconds.
    pub compile_ms: f64,
    /// Peak memory of the process, in MiB.
    pub peak_rss_mib: Option<f64>,
}

/// What a training step costs.
#[derive(Clone, Debug)]
pub struct TrainReport {
    /// Of one step.
    pub timing: Timing,
    /// Pictures a second at the median.
    pub images_per_s: f64,
    /// Compiling the graph (forward, backward, updates), in milliseconds.
    pub compile_ms: f64,
    /// Nodes of the traced graph.
    pub nodes: usize,
    /// Bytes between inputs and outputs.
    pub arena_bytes: usize,
    /// Peak memory of the process, in MiB.
    pub peak_rss_mib: Option<f64>,
    /// The loss of the last step.
    pub loss: f64,
    /// The steps of the program, where they were asked for.
    pub steps: Vec<StepProfile>,
}

impl ModelBench {
    fn shape(&self) -> [usize; 4] {
        [self.batch, self.channels, self.side, self.side]
    }

    fn net(&self) -> Result<Box<dyn Module>, ModelError> {
        find_model(&self.name)?.build([self.channels, self.side, self.side], self.classes, 0)
    }

    fn options(&self) -> CompileOptions {
        CompileOptions { threads: self.threads, exact: self.exact, ..CompileOptions::default() }
    }

    fn session(&self, graph: &Graph) -> Result<(Session, f64), Error> {
        let start = std::time::Instant::now();
        let program = Program::compile(graph, &self.options())?;
        let compile_ms = start.elapsed().as_secs_f64() * 1e3;
        Ok((Session::with_team(program, Arc::new(Team::new(self.threads))), compile_ms))
    }

    fn images(&self) -> Array {
        random(&self.shape().into(), DType::F32).expect("as many as the shape says")
    }
}

/// Times inference; of a detector the raw heads, without what the host makes of them.
///
/// # Errors
/// An unknown name, or a size that the net cannot take.
pub fn bench_infer(bench: &ModelBench) -> Result<InferReport, BenchError> {
    if find_detector(&bench.name).is_ok() {
        let detector = Detector::new(&bench.name, bench.classes, 0)?;
        return bench_infer_graph(bench, &detector.graph(bench.shape())?);
    }
    let net = bench.net()?;
    let trace = Trace::new(Mode::Eval);
    let y = net.call(&trace.input("images", bench.shape(), DType::F32));
    bench_infer_graph(bench, &trace.finish(&[("logits", &y)])?)
}

/// Times inference of a graph, on random values for its inputs: of a model that is not in the registry. Of `bench` only what does not
/// describe a net of the registry counts.
///
/// # Errors
/// A graph that cannot be compiled or run.
pub fn bench_infer_graph(bench: &ModelBench, graph: &Graph) -> Result<InferReport, BenchError> {
    let mut given = Vec::new();
    for (name, shape, dtype) in graph.inputs() {
        given.push((name.clone(), random(shape, dtype)?));
    }
    let inputs: Vec<(&str, &Array)> = given.iter().map(|(name, array)| (&**name, array)).collect();
    let (mut session, compile_ms) = bench.session(graph)?;
    let timing = time(bench.seconds, || session.run(&inputs).map(|_| ()))?;
    let images_per_s = bench.batch as f64 / timing.median_ms * 1e3;
    Ok(InferReport { timing, images_per_s, compile_ms, peak_rss_mib: peak_rss_mib() })
}

/// Normal values; of whole numbers such as bytes can hold.
fn random(shape: &Shape, dtype: DType) -> Result<Array, Error> {
    let mut values = vec![0.0; shape.numel()];
    fill_normal(&mut values, stream_key(0, "bench images"), 0, 0);
    if !dtype.is_float() {
        values.iter_mut().for_each(|value| *value = (value.abs() * 32.0).floor());
    }
    Ok(Array::from_vec(shape, values)?.cast(dtype))
}

/// The graph of one training step: inputs `images`, `targets` (i64, a class for each picture or each pixel) and the optimizer's,
/// output `loss`. Heads that only training uses count with their factors.
///
/// # Errors
/// Shapes that do not fit.
pub fn training_graph(net: &dyn Module, optimizer: &Optimizer, shape: [usize; 4]) -> Result<Graph, Error> {
    let trace = Trace::new(Mode::Train);
    let images = trace.input("images", shape, DType::F32);
    let outputs = net.call_training(&images);
    let targets = trace.input("targets", target_shape(&outputs[0].0), DType::I64);
    let loss = of_outputs(&outputs, |logits| CrossEntropyLoss::new().call(logits, &targets));
    trace.guard(&loss);
    let cells = net.parameters();
    let weights: Vec<Tensor> = cells.iter().map(|cell| trace.parameter(cell)).collect();
    let found = gradients(&loss, &weights.iter().collect::<Vec<_>>())?;
    optimizer.record(&trace, &cells.into_iter().zip(found).collect::<Vec<_>>());
    trace.finish(&[("loss", &loss)])
}

/// [N] for logits [N, classes], [N, H, W] for [N, classes, H, W].
fn target_shape(logits: &Tensor) -> Vec<usize> {
    let sizes = logits.shape().to_vec();
    sizes.iter().enumerate().filter(|(axis, _)| *axis != 1).map(|(_, size)| *size).collect()
}

/// As [`training_graph`] for a detector with the sum of its losses, with inputs `boxes` [N, BOXES, 4] and `labels` [N, BOXES].
fn detector_graph(net: &dyn DetectionNet, optimizer: &Optimizer, shape: [usize; 4]) -> Result<Graph, BenchError> {
    let trace = Trace::new(Mode::Train);
    let images = trace.input("images", shape, DType::F32);
    let boxes = trace.input("boxes", [shape[0], BOXES, 4], DType::F32);
    let labels = trace.input("labels", [shape[0], BOXES], DType::I64);
    let losses = net.losses(&images, [&boxes, &labels]);
    let sum = losses.into_iter().map(|(_, loss)| loss.sum_all()).reduce(|a, b| a + b);
    let loss = sum.ok_or_else(|| Error::Internal("the detector has no loss".into()))?;
    trace.guard(&loss);
    let cells = net.parameters();
    let weights: Vec<Tensor> = cells.iter().map(|cell| trace.parameter(cell)).collect();
    let found = gradients(&loss, &weights.iter().collect::<Vec<_>>())?;
    optimizer.record(&trace, &cells.into_iter().zip(found).collect::<Vec<_>>());
    Ok(trace.finish(&[("loss", &loss)])?)
}

/// Boxes on each picture.
const BOXES: usize = 7;

/// Random boxes between an eighth and a half of the side, and their labels; always the same.
fn random_truths([n, _, height, width]: [usize; 4], (first, labels): (usize, usize)) -> Result<[Array; 2], Error> {
    let mut values = vec![0.0; n * BOXES * 4];
    fill_uniform(&mut values, stream_key(0, "bench boxes"), 0, 0);
    for corners in values.chunks_exact_mut(4) {
        let [x, y, w, h] = [0, 1, 2, 3].map(|place| corners[place]);
        for (axis, (at, size, side)) in [(x, w, width), (y, h, height)].into_iter().enumerate() {
            let length = side as f32 * (0.125 + 0.375 * size);
            corners[axis] = at * (side as f32 - length);
            corners[axis + 2] = corners[axis] + length;
        }
    }
    let classes = (0..n * BOXES).map(|i| (first + i % (labels - first)) as i64).collect();
    Ok([Array::from_vec([n, BOXES, 4], values)?, Array::from_vec([n, BOXES], classes)?])
}

/// Inputs of a graph, by name.
type Given = Vec<(&'static str, Array)>;

/// The graph of a training step with what it is given besides the optimizer's inputs.
fn training_step(bench: &ModelBench, net: &TaskNet, optimizer: &Optimizer) -> Result<(Graph, Given), BenchError> {
    let images = ("images", bench.images());
    if let Some(detector) = net.detector() {
        let graph = detector_graph(detector, optimizer, bench.shape())?;
        let [boxes, labels] = random_truths(bench.shape(), (detector.first_class(), detector.classes()))?;
        return Ok((graph, vec![images, ("boxes", boxes), ("labels", labels)]));
    }
    let graph = training_graph(&**net, optimizer, bench.shape())?;
    let (_, shape, _) = graph.inputs().find(|(name, ..)| &***name == "targets").expect("it was just traced");
    let labels: Vec<i64> = (0..shape.numel()).map(|i| (i % bench.classes) as i64).collect();
    let targets = Array::from_vec(shape.clone(), labels)?;
    Ok((graph, vec![images, ("targets", targets)]))
}

/// Times training steps: forward in training mode, cross-entropy or, of a detector, its losses for random boxes, backward for all
/// parameters, SGD with learning rate 0.01, momentum 0.9 and weight decay 5e-4; the loss is read at each step.
///
/// # Errors
/// An unknown name, a size that the net cannot take, or a loss that is not finite.
pub fn bench_train(bench: &ModelBench) -> Result<TrainReport, BenchError> {
    let net = match find_detector(&bench.name) {
        Ok(spec) => TaskNet::Detector(spec.build(bench.classes, 0)?),
        Err(_) => TaskNet::Plain(bench.net()?),
    };
    bench_train_net(bench, &net)
}

/// As [`bench_train`], of a net that is not in the registry.
///
/// # Errors
/// As [`bench_train`].
pub fn bench_train_net(bench: &ModelBench, net: &TaskNet) -> Result<TrainReport, BenchError> {
    let optimizer = SGD::new(0.01).momentum(0.9).weight_decay(5e-4).over(net.parameters());
    let (graph, given) = training_step(bench, net, &optimizer)?;
    let nodes = graph.nodes.len();
    let (mut session, compile_ms) = bench.session(&graph)?;
    let mut loss = 0.0;
    let mut step = |session: &mut Session| {
        let hyper = optimizer.hyper_inputs();
        let mut inputs: Vec<(&str, &Array)> = given.iter().map(|(name, array)| (*name, array)).collect();
        inputs.extend(hyper.iter().map(|(name, array)| (name.as_str(), array)));
        loss = session.run(&inputs)?[0].item()?;
        Ok::<(), Error>(())
    };
    let timing = time(bench.seconds, || step(&mut session))?;
    if bench.profile {
        session.set_profiling(true);
        time(bench.seconds, || step(&mut session))?;
    }
    let steps = session.profile().map_or(Vec::new(), |profile| profile.steps().to_vec());
    let images_per_s = bench.batch as f64 / timing.median_ms * 1e3;
    let arena_bytes = session.program().arena_bytes();
    Ok(TrainReport { timing, images_per_s, compile_ms, nodes, arena_bytes, peak_rss_mib: peak_rss_mib(), loss, steps })
}
