//! One training step as a graph: forward, loss, gradients, updates.

use crate::config::{OptimizerName, ScheduleName, Settings};
use crate::{Result, TrainError};
use std::sync::Arc;
use striate_graph::machine::Team;
use striate_graph::{
    Array, CompileOptions, DType, Error, Graph, Mode, Program, RunOptions, Session, Tensor, Trace, first_non_finite,
    gradients,
};
use striate_nn::Module;
use striate_nn::loss::CrossEntropyLoss;
use striate_nn::optim::{
    Adam, AdamW, Clip, Ema, Lion, LrScheduler, OneCycleLR, Optimizer, RMSprop, Rule, SGD, Schedule,
    param_groups_no_decay,
};
use striate_vision::data::Batch;

/// Mean loss and number of hits of one step.
pub(crate) struct StepResult {
    pub loss: f64,
    pub correct: f64,
}

/// Everything that a step reads and writes.
pub(crate) struct Stepper {
    pub optimizer: Optimizer,
    pub scheduler: LrScheduler,
    pub ema: Option<Ema>,
    session: Session,
    ema_session: Option<Session>,
    parts: Parts,
    seed: u64,
}

/// The optimizer of the settings over a net.
fn make_optimizer(net: &dyn Module, settings: &Settings) -> Optimizer {
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
    Optimizer::new(rule, param_groups_no_decay(net)).clip(clip)
}

/// The schedule of the settings over all steps of the run.
fn make_schedule(settings: &Settings, steps: u64) -> Schedule {
    let warm = (settings.warmup * steps as f64).round() as u64;
    // Too short a run has no room for slopes.
    if steps < 4 {
        return Schedule::Constant;
    }
    match settings.schedule {
        ScheduleName::Constant => Schedule::Constant,
        ScheduleName::OneCycle => {
            let warmup = settings.warmup.clamp(2.0 / steps as f64, 1.0 - 2.0 / steps as f64);
            Schedule::OneCycleLR(OneCycleLR { pct_start: warmup, ..OneCycleLR::new(settings.lr, steps) })
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

impl Stepper {
    pub fn new(
        net: &dyn Module,
        settings: &Settings,
        problem: &Problem,
        (options, team): (&CompileOptions, &Arc<Team>),
    ) -> Result<Stepper> {
        let optimizer = make_optimizer(net, settings);
        let lrs = optimizer.lrs();
        let scheduler = LrScheduler::new(make_schedule(settings, problem.steps), &lrs)?;
        let ema = (settings.ema > 0.0).then(|| Ema::new(net, settings.ema).warm_up(problem.batches as f64));
        let mut loss = CrossEntropyLoss::new().label_smoothing(settings.label_smoothing);
        if let Some(weight) = &problem.class_weights {
            loss = loss.weight(weight.clone());
        }
        let mixed = settings.mixing.mixing().is_on();
        let parts = Parts { loss, shape: problem.shape, classes: problem.classes, mixed };
        let graph = parts.train_graph(net, &optimizer)?;
        let run = |graph: &Graph| -> Result<Session> {
            Ok(Session::with_team(Program::compile(graph, options)?, team.clone()))
        };
        let mut session = run(&graph)?;
        session.set_seed(settings.seed);
        let ema_session = ema.as_ref().map(|ema| run(&ema.graph()?)).transpose()?;
        Ok(Stepper { optimizer, scheduler, ema, session, ema_session, parts, seed: settings.seed })
    }

    /// One step, number `step` from 0.
    pub fn run(&mut self, net: &dyn Module, batch: &Batch, step: u64) -> Result<StepResult> {
        self.optimizer.set_lrs(self.scheduler.lrs());
        let images = batch.images();
        let targets = match self.parts.mixed {
            true => batch.target_array().ok_or_else(|| Error::Internal("a mixed batch has no soft targets".into()))?,
            false => batch.label_array(),
        };
        let labels = batch.label_array();
        let hyper = self.optimizer.hyper_inputs();
        let mut inputs: Vec<(&str, &Array)> = vec![("images", &images), ("targets", &targets)];
        if self.parts.mixed {
            inputs.push(("labels", &labels));
        }
        let asked: Vec<String> = self.session.program().inputs().map(|(name, ..)| name.to_owned()).collect();
        inputs
            .extend(hyper.iter().filter(|(name, _)| asked.contains(name)).map(|(name, array)| (name.as_str(), array)));
        self.session.set_step(step);
        let outcome = self.session.run(&inputs).map(|outputs| [outputs[0].item(), outputs[1].item()]);
        match outcome {
            Ok([loss, correct]) => {
                let result = StepResult { loss: loss?, correct: correct? };
                self.scheduler.step();
                self.average(step)?;
                Ok(result)
            }
            Err(Error::NonFinite { value, .. }) => {
                let layer = self.find_non_finite(net, (&images, &targets, &labels), step);
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
    fn find_non_finite(
        &self,
        net: &dyn Module,
        (images, targets, labels): (&Array, &Array, &Array),
        step: u64,
    ) -> Option<String> {
        let trace = Trace::new(Mode::Train);
        let (loss, correct) = self.parts.forward(&trace, net);
        let graph = trace.finish(&[("loss", &loss), ("correct", &correct)]).ok()?;
        let mut inputs = vec![("images", images.clone()), ("targets", targets.clone())];
        if self.parts.mixed {
            inputs.push(("labels", labels.clone()));
        }
        let options = RunOptions { seed: self.seed, step, apply_updates: false, ..RunOptions::default() };
        first_non_finite(&graph, &inputs, &options).ok()?.map(|(_, layer)| layer)
    }
}

/// The sizes of a training.
pub(crate) struct Problem {
    /// [N, C, H, W] of a batch.
    pub shape: [usize; 4],
    pub classes: usize,
    /// Of an epoch.
    pub batches: u64,
    /// Of the run.
    pub steps: u64,
    /// [classes]
    pub class_weights: Option<Array>,
}

/// What the forward graph depends on.
struct Parts {
    loss: CrossEntropyLoss,
    shape: [usize; 4],
    classes: usize,
    mixed: bool,
}

impl Parts {
    /// Loss and number of hits.
    fn forward(&self, trace: &Trace, net: &dyn Module) -> (Tensor, Tensor) {
        let n = self.shape[0];
        let images = trace.input("images", self.shape, DType::F32);
        let logits = net.call(&images);
        let (targets, labels) = match self.mixed {
            true => (trace.input("targets", [n, self.classes], DType::F32), trace.input("labels", [n], DType::I64)),
            false => {
                let labels = trace.input("targets", [n], DType::I64);
                (labels.clone(), labels)
            }
        };
        let loss = self.loss.call(&logits, &targets);
        let correct = logits.argmax(1, false).eq(&labels).cast(DType::F32).sum_all();
        (loss, correct)
    }

    fn train_graph(&self, net: &dyn Module, optimizer: &Optimizer) -> Result<Graph> {
        let trace = Trace::new(Mode::Train);
        let (loss, correct) = self.forward(&trace, net);
        let cells: Vec<_> = net.parameters().into_iter().filter(|p| p.requires_grad()).collect();
        let tensors: Vec<Tensor> = cells.iter().map(|cell| trace.parameter(cell)).collect();
        let found = gradients(&loss, &tensors.iter().collect::<Vec<_>>())?;
        let pairs: Vec<_> = cells.into_iter().zip(found).collect();
        optimizer.record(&trace, &pairs);
        trace.guard(&loss);
        Ok(trace.finish(&[("loss", &loss), ("correct", &correct)])?)
    }
}
