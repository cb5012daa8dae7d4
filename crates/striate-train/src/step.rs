//! One training step as a graph: forward, loss, gradients, updates.

use crate::config::{Freeze, OptimizerName, ScheduleName, Settings};
use crate::goal::{Goal, Loss, Mixed, Recorded};
use crate::layers::Layers;
use crate::{Result, TrainError};
use std::sync::Arc;
use striate_graph::machine::{Team, memory_limit};
use striate_graph::{
    Array, CompileOptions, DType, Error, Graph, Mode, NodeId, Parameter, Program, RunOptions, Session, Tensor, Trace,
    first_non_finite, gradients,
};
use striate_nn::optim::{
    Adam, AdamW, Clip, Ema, Lion, LrScheduler, OneCycleLR, Optimizer, ParamGroup, RMSprop, Rule, SGD, Schedule,
    param_groups_no_decay,
};
use striate_vision::data::Batch;
use striate_vision::models::TaskNet;

/// Mean loss of one step, and its figures times the number of its pictures (for a classifier its hits).
pub(crate) struct StepResult {
    pub loss: f64,
    pub figures: Vec<f64>,
}

/// Everything that a step reads and writes.
pub(crate) struct Stepper {
    pub optimizer: Optimizer,
    pub scheduler: LrScheduler,
    pub ema: Option<Ema>,
    /// By height and width of the pictures.
    sessions: Vec<([usize; 2], Session)>,
    ema_session: Option<Session>,
    parts: Parts,
    seed: u64,
    /// Bytes that a step needs.
    memory: u64,
    /// Names of the figures.
    figures: Vec<String>,
}

/// The optimizer of the settings over a net.
fn make_optimizer(net: &TaskNet, settings: &Settings, problem: &Problem) -> Optimizer {
    let s = settings;
    let rule: Rule = match s.optimizer {
        OptimizerName::Sgd => SGD::new(s.lr).momentum(s.momentum).nesterov(s.momentum > 0.0).into(),
        OptimizerName::Adam => Adam::new(s.lr).into(),
        OptimizerName::AdamW => AdamW::new(s.lr).into(),
        OptimizerName::RmsProp => RMSprop::new(s.lr).momentum(s.momentum).into(),
        OptimizerName::Lion => Lion::new(s.lr).into(),
    };
    let rule = Rule { weight_decay: s.weight_decay, ..rule };
    let clip = (s.clip_norm > 0.0).then_some(Clip::Norm { max: s.clip_norm, p: 2.0 });
    if s.head_lr_factor == 1.0 && s.layer_decay == 1.0 && s.freeze.is_none() && !s.freeze_bn {
        return Optimizer::new(rule, param_groups_no_decay(&**net)).clip(clip);
    }
    // A group for each learning rate, with and without decay; frozen parameters are in none.
    let places = Layers::of_task(net, problem.auxiliary).places();
    let last = places.iter().map(|(_, block, _)| *block).max().unwrap_or(0);
    let mut groups: Vec<(f64, bool, Vec<Parameter>)> = Vec::new();
    for (parameter, block, in_head) in places.into_iter().filter(|(p, ..)| p.requires_grad()) {
        let factor = if in_head { s.head_lr_factor } else { s.layer_decay.powi((last - block) as i32) };
        let decays = parameter.shape().rank() >= 2;
        match groups.iter_mut().find(|(lr, decay, _)| (*lr, *decay) == (s.lr * factor, decays)) {
            Some((.., parameters)) if parameters.iter().any(|p| p.same_cell(&parameter)) => {}
            Some((.., parameters)) => parameters.push(parameter),
            None => groups.push((s.lr * factor, decays, vec![parameter])),
        }
    }
    let group = |(lr, decays, parameters): (f64, bool, Vec<Parameter>)| {
        ParamGroup::new(parameters).lr(lr).weight_decay(if decays { s.weight_decay } else { 0.0 })
    };
    Optimizer::new(rule, groups.into_iter().map(group).collect::<Vec<_>>()).clip(clip)
}

/// The schedule of the settings over all steps of the run.
fn make_schedule(settings: &Settings, steps: u64, lrs: &[f64]) -> Schedule {
    let warm = (settings.warmup * steps as f64).round() as u64;
    // Too short a run has no room for slopes.
    if steps < 4 {
        return Schedule::Constant;
    }
    match settings.schedule {
        ScheduleName::Constant => Schedule::Constant,
        ScheduleName::OneCycle => {
            let warmup = settings.warmup.clamp(2.0 / steps as f64, 1.0 - 2.0 / steps as f64);
            let max_lr = lrs.to_vec();
            Schedule::OneCycleLR(OneCycleLR { pct_start: warmup, max_lr, ..OneCycleLR::new(settings.lr, steps) })
        }
        ScheduleName::Cosine if warm == 0 => Schedule::CosineAnnealingLR { t_max: steps, eta_min: 0.0 },
        ScheduleName::Cosine => Schedule::SequentialLR {
            schedules: vec![
                Schedule::LinearLR { start_factor: 1.0 / warm as f64, end_factor: 1.0, total_iters: warm },
                Schedule::CosineAnnealingLR { t_max: (steps - warm).max(1), eta_min: 0.0 },
            ],
            milestones: vec![warm],
        },
    }
}

/// Memory of the process besides a step's own: code, the loader's pictures, the evaluation's program.
const PROCESS_BYTES: u64 = 256 << 20;

/// The bytes that a step of training needs, and whether they are there.
fn check_memory(program: &Program, batch: usize, limit: Option<u64>) -> Result<u64> {
    let (needed, arena) = (program.memory_bytes() as u64 + PROCESS_BYTES, program.arena_bytes() as u64);
    match limit {
        Some(limit) if needed > limit => {
            // What does not grow with the batch is counted as if it did, so what is named does fit.
            let picture = arena.div_ceil(batch.max(1) as u64).max(1);
            let fitting = (limit.saturating_sub(needed - arena) / picture) as usize;
            Err(TrainError::Memory { batch, needed, limit, fitting })
        }
        _ => Ok(needed),
    }
}

/// MobileNetV3 and others follow a batch's statistics by 0.01 or less, for trainings of many thousand steps. In one of so few
/// steps nothing of the initial statistics may be left at its end.
fn least_momentum(steps: u64) -> f64 {
    (10.0 / steps.max(1) as f64).min(0.1)
}

impl Stepper {
    /// Bytes that a step needs, the process's own included.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Names of the figures of a step.
    pub fn figures(&self) -> &[String] {
        &self.figures
    }

    /// Where the steps begin, if not at the pictures.
    pub fn cut(&self) -> Option<&Cut> {
        self.parts.cut.as_ref()
    }

    pub fn new(
        net: &TaskNet,
        settings: &Settings,
        problem: &Problem,
        (options, team): (&CompileOptions, &Arc<Team>),
    ) -> Result<Stepper> {
        let optimizer = make_optimizer(net, settings, problem);
        let lrs = optimizer.lrs();
        let scheduler = LrScheduler::new(make_schedule(settings, problem.steps, &lrs), &lrs)?;
        let ema = (settings.ema > 0.0)
            .then(|| Ema::new(&**net, settings.ema).warm_up(problem.batches as f64).copy(&problem.frozen));
        let goal = problem.goal.clone();
        let mixed = Mixed(settings.mixing.mixing().is_on());
        let loss = match net.detector() {
            Some(detector) => {
                let (first, masks) = (detector.first_class(), detector.gives_masks());
                Loss::Boxes { most: problem.most_boxes, first, masks }
            }
            None => Loss::new(goal.task, settings.label_smoothing, problem.class_weights.as_ref(), mixed)?,
        };
        let (shape, frozen) = (problem.shape, problem.frozen.clone());
        // Heads for training alone are frozen with all else before the head: they teach nothing.
        let auxiliary = settings.freeze != Some(Freeze::Backbone);
        let least_momentum = least_momentum(problem.steps);
        let mut parts = Parts { goal, loss, shape, auxiliary, frozen, least_momentum, cut: None };
        let run = |graph: &Graph| -> Result<Session> {
            Ok(Session::with_team(Program::compile(graph, options)?, team.clone()))
        };
        // The largest first: whether it fits is known before anything else is compiled.
        let mut sizes = problem.sizes.clone();
        sizes.sort_by_key(|[h, w]| std::cmp::Reverse(h * w));
        let (mut sessions, mut figures, mut needed) = (Vec::new(), Vec::new(), 0);
        for size in sizes {
            let graph = parts.train_graph(net, &optimizer, size, problem.cut)?;
            let program = Program::compile(&graph, options)?;
            needed += check_memory(&program, shape[0], memory_limit().map(|limit| limit.saturating_sub(needed)))?;
            figures = graph.outputs.iter().skip(1).map(|(name, _)| name.to_string()).collect();
            let mut session = Session::with_team(program, team.clone());
            session.set_seed(settings.seed);
            sessions.push((size, session));
        }
        let ema_session = ema.as_ref().map(|ema| run(&ema.graph()?)).transpose()?;
        let seed = settings.seed;
        Ok(Stepper { optimizer, scheduler, ema, sessions, ema_session, parts, seed, memory: needed, figures })
    }

    /// One step, number `step` from 0.
    pub fn run(&mut self, net: &TaskNet, batch: &Batch, step: u64) -> Result<StepResult> {
        self.optimizer.set_lrs(self.scheduler.lrs());
        let mut given = self.parts.inputs(batch)?;
        let targets = self.parts.goal.targets(batch, &self.parts.loss)?;
        given.extend(targets.into_iter().map(|(name, array)| (name.to_owned(), array)));
        let hyper = self.optimizer.hyper_inputs();
        let size = [batch.shape[2], batch.shape[3]];
        let held = self.sessions.iter_mut().find(|(held, _)| *held == size || self.parts.cut.is_some());
        let (_, session) = held.ok_or_else(|| Error::Internal(format!("no step takes pictures of {size:?}")))?;
        let asked: Vec<String> = session.program().inputs().map(|(name, ..)| name.to_owned()).collect();
        let all = given.iter().map(|(name, array)| (name.as_str(), array));
        let hyper = hyper.iter().map(|(name, array)| (name.as_str(), array));
        let inputs: Vec<(&str, &Array)> =
            all.chain(hyper.filter(|(name, _)| asked.iter().any(|a| a == name))).collect();
        session.set_step(step);
        let outcome = session.run(&inputs).map(|outputs| outputs.iter().map(Array::item).collect::<Vec<_>>());
        match outcome {
            Ok(values) => {
                let values: Vec<f64> = values.into_iter().collect::<striate_graph::Result<_>>()?;
                let result = StepResult { loss: values[0], figures: values[1..].to_vec() };
                self.scheduler.step();
                self.average(step)?;
                Ok(result)
            }
            Err(Error::NonFinite { value, .. }) => {
                let layer = self.find_non_finite(net, &given, size, step);
                let (epoch, lr) = (batch.epoch + 1, self.scheduler.lrs().first().copied().unwrap_or(0.0));
                Err(TrainError::NonFinite { what: "the loss", value, step: step + 1, epoch, layer, lr })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn average(&mut self, step: u64) -> Result<()> {
        let (Some(ema), Some(session)) = (&self.ema, &mut self.ema_session) else { return Ok(()) };
        let inputs = ema.inputs(step + 1);
        let inputs: Vec<(&str, &Array)> = inputs.iter().map(|(name, array)| (name.as_str(), array)).collect();
        session.run(&inputs)?;
        Ok(())
    }

    /// The first layer whose values are not finite, by the interpreter on the same inputs; only forward, nothing is updated.
    fn find_non_finite(&self, net: &TaskNet, given: &[(String, Array)], size: [usize; 2], step: u64) -> Option<String> {
        if self.parts.cut.is_some() {
            return Layers::of(&**net, &[]).head().map(str::to_owned);
        }
        let trace = Trace::new(Mode::Train);
        let recorded = self.parts.forward(&trace, net, size).ok()?;
        let graph = trace.finish(&recorded.outputs()).ok()?;
        let inputs: Vec<(&str, Array)> = given.iter().map(|(name, array)| (name.as_str(), array.clone())).collect();
        let options = RunOptions { seed: self.seed, step, apply_updates: false, ..RunOptions::default() };
        first_non_finite(&graph, &inputs, &options).ok()?.map(|(_, layer)| layer)
    }
}

/// The sizes of a training.
pub(crate) struct Problem {
    /// [N, C, H, W] of a batch.
    pub shape: [usize; 4],
    /// Height and width of the batches: each has one of these.
    pub sizes: Vec<[usize; 2]>,
    /// Boxes that a picture has at most.
    pub most_boxes: usize,
    pub goal: Goal,
    /// Of an epoch.
    pub batches: u64,
    /// Of the run.
    pub steps: u64,
    /// [classes]
    pub class_weights: Option<Array>,
    /// How the names begin of heads that only training uses.
    pub auxiliary: &'static [&'static str],
    /// Layers that behave as in evaluation.
    pub frozen: Vec<String>,
    /// Whether the frozen part is left out of the steps, as far as that is possible.
    pub cut: bool,
}

/// Where a net is cut into a frozen part and the rest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cut {
    /// Shapes of the values at the cut, without the batch.
    pub shapes: Vec<Vec<usize>>,
}

impl Cut {
    /// The cut of a graph of the net, whose pictures come in by the input of this name; `None` where there is no frozen part, or
    /// what comes out of it are no rows of f32 by picture.
    pub fn of(graph: &Graph, input: &str) -> Option<(Cut, Vec<NodeId>)> {
        let n = graph.inputs().find(|(name, ..)| &***name == input)?.1.first().copied();
        let at = graph.frontier(input, Parameter::requires_grad);
        let sound = |id: &&NodeId| graph.node(**id).dtype == DType::F32 && graph.node(**id).shape.first().copied() == n;
        let shapes: Vec<Vec<usize>> = at.iter().filter(sound).map(|id| graph.node(*id).shape[1..].to_vec()).collect();
        (!at.is_empty() && shapes.len() == at.len()).then_some((Cut { shapes }, at))
    }

    /// The same cut in another graph of the net.
    pub fn find(&self, graph: &Graph, input: &str) -> Result<Vec<NodeId>> {
        match Cut::of(graph, input) {
            Some((cut, at)) if cut == *self => Ok(at),
            other => {
                let other = other.map(|(cut, _)| cut);
                Err(Error::Internal(format!("the net is cut at {self:?} in training, at {other:?} in evaluation"))
                    .into())
            }
        }
    }

    /// Values of one picture.
    pub fn width(&self) -> usize {
        self.shapes.iter().map(|shape| shape.iter().product::<usize>()).sum()
    }

    /// The rows of a batch of features as the graph behind the cut takes them.
    pub fn inputs(&self, batch: &Batch) -> Result<Vec<(String, Array)>> {
        let (n, width) = (batch.len(), self.width());
        let mut first = 0;
        let array = |(index, shape): (usize, &Vec<usize>)| {
            let part = shape.iter().product::<usize>();
            let rows = batch.data.chunks_exact(width).flat_map(|row| &row[first..first + part]);
            let array = Array::from_vec([&[n], &shape[..]].concat(), rows.copied().collect())?;
            first += part;
            Ok((format!("cut.{index}"), array))
        };
        self.shapes.iter().enumerate().map(array).collect()
    }
}

/// What the forward graph depends on.
struct Parts {
    goal: Goal,
    loss: Loss,
    shape: [usize; 4],
    /// Whether heads that only training uses count.
    auxiliary: bool,
    frozen: Vec<String>,
    /// Of batch norms' statistics.
    least_momentum: f64,
    cut: Option<Cut>,
}

impl Parts {
    /// What a batch gives to the graph, besides targets.
    fn inputs(&self, batch: &Batch) -> Result<Vec<(String, Array)>> {
        match &self.cut {
            Some(cut) => cut.inputs(batch),
            None => Ok(vec![("images".to_owned(), batch.images())]),
        }
    }

    /// Loss and figures for pictures of this height and width.
    fn forward(&self, trace: &Trace, net: &TaskNet, [height, width]: [usize; 2]) -> Result<Recorded> {
        trace.freeze(&self.frozen);
        trace.set_least_momentum(self.least_momentum);
        let [n, channels, ..] = self.shape;
        let images = trace.input("images", [n, channels, height, width], DType::F32);
        if let Some(detector) = net.detector() {
            return self.loss.of_detector(detector, &images);
        }
        let mut outputs = net.call_training(&images);
        outputs.truncate(if self.auxiliary { outputs.len() } else { 1 });
        self.loss.call(trace, &outputs)
    }

    /// The graph of a step; with `cut` that of what lies behind the frozen part, where there is one.
    fn train_graph(&mut self, net: &TaskNet, optimizer: &Optimizer, size: [usize; 2], cut: bool) -> Result<Graph> {
        let trace = Trace::new(Mode::Train);
        let recorded = self.forward(&trace, net, size)?;
        trace.check()?;
        let found = match cut {
            true => trace.clone().finish(&recorded.outputs()).map(|g| Cut::of(&g, "images"))?,
            false => None,
        };
        let cells: Vec<_> = net.parameters().into_iter().filter(|p| p.requires_grad()).collect();
        let tensors: Vec<Tensor> = cells.iter().map(|cell| trace.parameter(cell)).collect();
        let gradients = gradients(&recorded.loss, &tensors.iter().collect::<Vec<_>>())?;
        let pairs: Vec<_> = cells.into_iter().zip(gradients).collect();
        optimizer.record(&trace, &pairs);
        trace.guard(&recorded.loss);
        let graph = trace.finish(&recorded.outputs())?;
        let Some((cut, at)) = found else { return Ok(graph) };
        self.cut = Some(cut);
        Ok(graph.after(&at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_keep_up_in_short_trainings_alone() {
        assert_eq!((least_momentum(1), least_momentum(1000), least_momentum(0)), (0.1, 0.01, 0.1));
        // Of the initial statistics, at the end of a short training with MobileNetV3.
        let left = |steps: u64| (1.0 - least_momentum(steps).max(0.01)).powi(steps as i32);
        assert!([250, 1000, 5000].into_iter().all(|steps| left(steps) < 1e-4));
    }

    #[test]
    fn the_batch_that_is_named_fits() {
        let program = |batch: usize| {
            let trace = Trace::new(Mode::Train);
            let x = trace.input("x", [batch, 4, 64, 64], DType::F32);
            let y = (&x.exp() + &x.square()).mean_all();
            Program::compile(&trace.finish(&[("y", &y)]).unwrap(), &CompileOptions::default()).unwrap()
        };
        let limit = program(24).memory_bytes() as u64 + PROCESS_BYTES;
        assert!(check_memory(&program(24), 24, Some(limit)).is_ok() && check_memory(&program(64), 64, None).is_ok());
        let Err(error) = check_memory(&program(64), 64, Some(limit)) else { panic!("64 pictures fit") };
        let TrainError::Memory { fitting, .. } = error else { panic!("{error}") };
        assert!((8..64).contains(&fitting), "{error}");
        assert!(check_memory(&program(fitting), fitting, Some(limit)).is_ok(), "{error}");
        assert!(error.to_string().contains(&format!("--batch {fitting} fits")), "{error}");
        assert!(
            error.exit_code() == 2
                && check_memory(&program(64), 64, Some(1)).unwrap_err().to_string().contains("--imgsz")
        );
    }
}
