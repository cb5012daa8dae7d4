//! Optimizers, clipping, accumulation of gradients, averages of weights, learning-rate schedules.
//!
//! An optimizer is plain data and cells. It records its updates into the training graph ([`Optimizer::record`]); what changes
//! from step to step (learning rate, decay, bias corrections) is an input of the graph, given at each run
//! ([`Optimizer::hyper_inputs`]). Its state is cells, so that a checkpoint holds them like parameters.

mod accumulate;
mod ema;
mod schedule;

pub use accumulate::GradAccumulator;
pub use ema::Ema;
pub use schedule::{Anneal, LrScheduler, OneCycleLR, PlateauMode, ReduceLROnPlateau, Schedule, ThresholdMode};

use crate::state::{self, StateDict};
use crate::{LoadReport, Module, Result};
use striate_graph::{Array, DType, Parameter, Tensor, Trace, UpdateKind};

/// How parameters are updated: the rule with its constants, and the learning rate and weight decay at the start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// The update and its constants.
    pub kind: UpdateKind,
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

macro_rules! rules {
    ($($(#[$doc:meta])* $rule:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* } decay $decay:literal, |$this:ident| $kind:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $rule {
            lr: f64,
            weight_decay: f64,
            $($field: $type,)*
        }
        impl $rule {
            /// With this learning rate and PyTorch's defaults.
            pub fn new(lr: f64) -> $rule {
                $rule { lr, weight_decay: $decay, $($field: $default,)* }
            }
            /// Weight decay.
            pub fn weight_decay(self, weight_decay: f64) -> $rule {
                $rule { weight_decay, ..self }
            }
            $($(#[$field_doc])*
            pub fn $field(mut self, $field: $type) -> $rule {
                self.$field = $field;
                self
            })*
            /// The optimizer of these parameters: a list of them, or of [`ParamGroup`]s.
            pub fn over(self, parameters: impl Into<Groups>) -> Optimizer {
                Optimizer::new(self, parameters)
            }
        }
        impl From<$rule> for Rule {
            fn from($this: $rule) -> Rule {
                Rule { kind: $kind, lr: $this.lr, weight_decay: $this.weight_decay }
            }
        }
    )*};
}

rules! {
    /// `torch.optim.SGD`.
    ///
    /// ```
    /// use striate_nn::{Linear, Module, optim::SGD};
    /// let net = Linear::new(4, 2);
    /// let optimizer = SGD::new(0.01).momentum(0.9).weight_decay(5e-4).over(net.parameters());
    /// ```
    SGD {
        /// Momentum factor (0).
        momentum: f64 = 0.0,
        /// Dampening of the gradient in the momentum (0).
        dampening: f64 = 0.0,
        /// Nesterov's momentum (false).
        nesterov: bool = false,
    } decay 0.0, |this| UpdateKind::Sgd {
        momentum: this.momentum as f32,
        dampening: this.dampening as f32,
        nesterov: this.nesterov,
    };
    /// `torch.optim.Adam` (Kingma, Ba 2014); PyTorch's learning rate is 1e-3.
    Adam {
        /// Decay of the first and second moment (0.9, 0.999).
        betas: (f64, f64) = (0.9, 0.999),
        /// Added to the root of the second moment (1e-8).
        eps: f64 = 1e-8,
    } decay 0.0, |this| UpdateKind::Adam {
        beta1: this.betas.0 as f32,
        beta2: this.betas.1 as f32,
        eps: this.eps as f32,
        decoupled: false,
    };
    /// `torch.optim.AdamW` (Loshchilov, Hutter 2017): decay acts on the weight itself, 0.01 by default.
    AdamW {
        /// Decay of the first and second moment (0.9, 0.999).
        betas: (f64, f64) = (0.9, 0.999),
        /// Added to the root of the second moment (1e-8).
        eps: f64 = 1e-8,
    } decay 0.01, |this| UpdateKind::Adam {
        beta1: this.betas.0 as f32,
        beta2: this.betas.1 as f32,
        eps: this.eps as f32,
        decoupled: true,
    };
    /// `torch.optim.RMSprop` (Hinton 2012); PyTorch's learning rate is 1e-2.
    RMSprop {
        /// Smoothing constant (0.99).
        alpha: f64 = 0.99,
        /// Added to the root (1e-8).
        eps: f64 = 1e-8,
        /// Momentum factor (0).
        momentum: f64 = 0.0,
        /// Normalise by the centred second moment (false).
        centered: bool = false,
    } decay 0.0, |this| UpdateKind::RmsProp {
        alpha: this.alpha as f32,
        eps: this.eps as f32,
        momentum: this.momentum as f32,
        centered: this.centered,
    };
    /// Lion (Chen et al. 2023, algorithm 2); the paper's learning rate is 1e-4.
    Lion {
        /// Interpolation for the update and for the state (0.9, 0.99).
        betas: (f64, f64) = (0.9, 0.99),
    } decay 0.0, |this| UpdateKind::Lion { beta1: this.betas.0 as f32, beta2: this.betas.1 as f32 };
}

/// Parameters that share their settings. What is not set is the optimizer's.
#[derive(Clone, Debug)]
pub struct ParamGroup {
    parameters: Vec<Parameter>,
    rule: Option<Rule>,
    lr: Option<f64>,
    weight_decay: Option<f64>,
}

impl ParamGroup {
    /// A group with the optimizer's settings.
    pub fn new(parameters: Vec<Parameter>) -> ParamGroup {
        ParamGroup { parameters, rule: None, lr: None, weight_decay: None }
    }

    /// Another rule for this group, with its learning rate and decay.
    pub fn rule(self, rule: impl Into<Rule>) -> ParamGroup {
        ParamGroup { rule: Some(rule.into()), ..self }
    }

    /// Another learning rate.
    pub fn lr(self, lr: f64) -> ParamGroup {
        ParamGroup { lr: Some(lr), ..self }
    }

    /// Another weight decay.
    pub fn weight_decay(self, weight_decay: f64) -> ParamGroup {
        ParamGroup { weight_decay: Some(weight_decay), ..self }
    }
}

/// The parameters of an optimizer, in groups.
pub struct Groups(Vec<ParamGroup>);

impl From<Vec<Parameter>> for Groups {
    fn from(parameters: Vec<Parameter>) -> Groups {
        Groups(vec![ParamGroup::new(parameters)])
    }
}

impl From<Vec<ParamGroup>> for Groups {
    fn from(groups: Vec<ParamGroup>) -> Groups {
        Groups(groups)
    }
}

/// Two groups: weights of matrices and kernels, which decay, and biases and norms (fewer than two axes), which do not.
pub fn param_groups_no_decay<M: Module + ?Sized>(module: &M) -> Vec<ParamGroup> {
    let (decay, plain) = module.parameters().into_iter().partition(|p| p.shape().rank() >= 2);
    vec![ParamGroup::new(decay), ParamGroup::new(plain).weight_decay(0.0)]
}

/// One group of an optimizer, as it stands.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its rule; `lr` and `weight_decay` are what the next step uses.
    pub rule: Rule,
    parameters: Vec<(Parameter, Vec<Parameter>)>,
}

impl Group {
    /// Its parameters.
    pub fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter().map(|(parameter, _)| parameter)
    }
}

/// Limits on gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// Scale all gradients together so that their norm of order `p` (which may be infinite) is at most `max`.
    Norm {
        /// The largest norm.
        max: f64,
        /// The order, 2 as a rule.
        p: f64,
    },
    /// Cut each element to `[-max, max]`.
    Value {
        /// The largest element.
        max: f64,
    },
}

/// An optimizer: rules for groups of parameters, and the state cells.
pub struct Optimizer {
    groups: Vec<Group>,
    step: Parameter,
    clip: Option<Clip>,
}

impl Optimizer {
    /// An optimizer by one rule, over parameters or groups of them.
    pub fn new(rule: impl Into<Rule>, parameters: impl Into<Groups>) -> Optimizer {
        let rule = rule.into();
        let groups = parameters.into().0.into_iter().map(|group| {
            let mut own = group.rule.unwrap_or(rule);
            own.lr = group.lr.unwrap_or(own.lr);
            own.weight_decay = group.weight_decay.unwrap_or(own.weight_decay);
            let count = state_names(own.kind).len();
            let zeros = |p: &Parameter| Parameter::buffer(Array::zeros(p.shape(), p.dtype()));
            let with_state = |p: Parameter| {
                let state = (0..count).map(|_| zeros(&p)).collect();
                (p, state)
            };
            Group { rule: own, parameters: group.parameters.into_iter().map(with_state).collect() }
        });
        let step = Parameter::buffer(Array::scalar(0i64));
        step.set_name("optimizer.step");
        Optimizer { groups: groups.collect(), step, clip: None }
    }

    /// Clips gradients before each update.
    pub fn clip(self, clip: impl Into<Option<Clip>>) -> Optimizer {
        Optimizer { clip: clip.into(), ..self }
    }

    /// The groups.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The groups, to change learning rates and decays: no graph needs to be compiled again.
    pub fn groups_mut(&mut self) -> &mut [Group] {
        &mut self.groups
    }

    /// The learning rate of each group.
    pub fn lrs(&self) -> Vec<f64> {
        self.groups.iter().map(|g| g.rule.lr).collect()
    }

    /// Sets the learning rate of each group, as a schedule gives them.
    pub fn set_lrs(&mut self, lrs: &[f64]) {
        self.groups.iter_mut().zip(lrs).for_each(|(group, lr)| group.rule.lr = *lr);
    }

    /// Sets the momentum, or `beta1` where a rule has betas, of each group that has one; no graph needs to be compiled again.
    pub fn set_momentum(&mut self, momentum: f64) {
        // Never quite 0, which would take the state away that the graph was compiled for.
        let momentum = (momentum as f32).max(f32::MIN_POSITIVE);
        self.groups.iter_mut().for_each(|group| group.rule.kind = group.rule.kind.with_momentum(momentum));
    }

    /// Steps carried out so far.
    pub fn steps(&self) -> u64 {
        self.step.array().to_i64_vec().first().map_or(0, |step| *step as u64)
    }

    /// Records the update of every parameter that has a gradient here and is not frozen. Each run of the graph then is a step;
    /// give it [`Optimizer::hyper_inputs`]. Returns the norm of all gradients before clipping, where clipping is by norm.
    #[track_caller]
    pub fn record(&self, trace: &Trace, gradients: &[(Parameter, Tensor)]) -> Option<Tensor> {
        let wanted: Vec<(usize, &Parameter, &[Parameter], Tensor)> = self
            .groups
            .iter()
            .enumerate()
            .flat_map(|(index, group)| group.parameters.iter().map(move |(p, state)| (index, p, state.as_slice())))
            .filter(|(_, p, _)| p.requires_grad())
            .filter_map(|(index, p, state)| {
                let gradient = gradients.iter().find(|(q, _)| q.same_cell(p))?;
                Some((index, p, state, gradient.1.clone()))
            })
            .collect();
        self.name_state();
        let all: Vec<&Tensor> = wanted.iter().map(|(.., g)| g).collect();
        let clipping = match self.clip {
            Some(Clip::Norm { max, p }) if !all.is_empty() => Some(clip_by_norm(&all, max, p)),
            _ => None,
        };
        let mut hyper: Vec<Option<Tensor>> = vec![None; self.groups.len()];
        for (index, parameter, state, gradient) in &wanted {
            let kind = self.groups[*index].rule.kind;
            let gradient = match self.clip {
                Some(Clip::Value { max }) => gradient.clamp(-max as f32, max as f32),
                _ => gradient.clone(),
            };
            let hyper =
                hyper[*index].get_or_insert_with(|| trace.input(&hyper_name(*index), [hyper_count(kind)], DType::F32));
            let inputs = [Some(&gradient), Some(&*hyper), clipping.as_ref().map(|(_, scale)| scale)];
            let inputs: Vec<&Tensor> = inputs.into_iter().flatten().collect();
            trace.update(parameter, state, kind, &inputs);
        }
        trace.update_plain(&self.step, UpdateKind::Accumulate, &trace.constant(Array::scalar(1i64)));
        clipping.map(|(norm, _)| norm)
    }

    /// Records a whole step: the gradients of `loss` for all parameters that it depends on, their updates, and the guard
    /// that nothing is updated where the loss is not finite. Returns as [`Optimizer::record`].
    ///
    /// # Errors
    /// A loss that is no scalar, the trace's first error, or an operation on the way that has no gradient.
    #[track_caller]
    pub fn minimize(&self, loss: &Tensor) -> Result<Option<Tensor>> {
        let trace = loss.trace();
        let used = |p: &&Parameter| trace.with_graph(|graph| graph.parameters.iter().any(|q| q.same_cell(p)));
        let all = self.groups.iter().flat_map(Group::parameters);
        let parameters: Vec<&Parameter> = all.filter(|p| p.requires_grad()).filter(used).collect();
        let values: Vec<Tensor> = parameters.iter().map(|p| trace.parameter(p)).collect();
        let gradients = striate_graph::gradients(loss, &values.iter().collect::<Vec<_>>())?;
        let pairs: Vec<(Parameter, Tensor)> = parameters.into_iter().cloned().zip(gradients).collect();
        trace.guard(loss);
        Ok(self.record(trace, &pairs))
    }

    /// The inputs of the next step, by name: for group `g` the array `hyper.g`. Groups without a recorded parameter have one
    /// too; leave out what the graph does not ask for.
    pub fn hyper_inputs(&self) -> Vec<(String, Array)> {
        let step = self.steps() + 1;
        let values = |group: &Group| -> Vec<f32> {
            let Rule { kind, lr, weight_decay } = group.rule;
            let mut hyper = vec![lr as f32, weight_decay as f32];
            match kind {
                UpdateKind::Sgd { .. } => hyper.push(if step == 1 { 1.0 } else { 0.0 }),
                UpdateKind::Adam { beta1, beta2, .. } => {
                    hyper.extend([beta1, beta2].map(|beta| (1.0 - as_written(beta).powi(step as i32)) as f32));
                }
                _ => {}
            }
            hyper.extend(kind.momentum());
            hyper
        };
        let named = self.groups.iter().enumerate().map(|(index, group)| {
            let values = values(group);
            (hyper_name(index), Array::from_vec([values.len()], values).expect("a vector has its length"))
        });
        named.collect()
    }

    /// The state cells by name: `optimizer.step`, and `<parameter>.momentum_buffer` and the like.
    pub fn cells(&self) -> Vec<(String, Parameter)> {
        self.name_state();
        let state = self.groups.iter().flat_map(|g| g.parameters.iter()).flat_map(|(_, state)| state.iter());
        std::iter::once(&self.step).chain(state).map(|cell| (cell.name().to_string(), cell.clone())).collect()
    }

    /// The state as arrays.
    pub fn state_dict(&self) -> StateDict {
        self.cells().into_iter().map(|(name, cell)| (name, cell.array())).collect()
    }

    /// Replaces the state.
    ///
    /// # Errors
    /// Where names or shapes differ; then nothing has been loaded.
    pub fn load_state_dict(&self, dict: &StateDict) -> Result<LoadReport> {
        state::load(&self.cells(), dict, true)
    }

    /// Names the state after the parameters, which may have got their names since.
    fn name_state(&self) {
        let all = self.groups.iter().flat_map(|g| g.parameters.iter().map(move |p| (g.rule.kind, p)));
        for (index, (kind, (parameter, state))) in all.enumerate() {
            let name = match &*parameter.name() {
                "" => format!("parameter{index}"),
                name => name.to_owned(),
            };
            for (cell, suffix) in state.iter().zip(state_names(kind)) {
                cell.set_name(&format!("{name}.{suffix}"));
            }
        }
    }
}

/// The names of a rule's state cells, in the order of [`UpdateKind`]'s documentation.
fn state_names(kind: UpdateKind) -> Vec<&'static str> {
    match kind {
        UpdateKind::Sgd { momentum, .. } if momentum != 0.0 => vec!["momentum_buffer"],
        UpdateKind::Adam { .. } => vec!["exp_avg", "exp_avg_sq"],
        UpdateKind::RmsProp { momentum, centered, .. } => {
            let mut names = vec!["square_avg"];
            names.extend((momentum > 0.0).then_some("momentum_buffer"));
            names.extend(centered.then_some("grad_avg"));
            names
        }
        UpdateKind::Lion { .. } => vec!["exp_avg"],
        _ => vec![],
    }
}

fn hyper_name(group: usize) -> String {
    format!("hyper.{group}")
}

/// What a rule reads, and the momentum of the run.
fn hyper_count(kind: UpdateKind) -> usize {
    kind.hyper_count() + usize::from(kind.momentum().is_some())
}

/// The decimal that an f32 constant was written as: PyTorch computes `1 - beta ^ t` with Python's doubles.
fn as_written(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// The norm of order `p` of all gradients together, and the factor that brings it down to `max`: PyTorch's
/// `min(1, max / (norm + 1e-6))`.
#[track_caller]
pub fn clip_by_norm(gradients: &[&Tensor], max: f64, p: f64) -> (Tensor, Tensor) {
    let parts: Vec<Tensor> = gradients
        .iter()
        .map(|g| match p {
            p if p == f64::INFINITY => {
                let axes: Vec<isize> = (0..g.shape().rank() as isize).collect();
                g.abs().reduce(striate_graph::ReduceKind::Max, &axes, false)
            }
            2.0 => g.square().sum_all(),
            1.0 => g.abs().sum_all(),
            p => g.abs().powf(p as f32).sum_all(),
        })
        .collect();
    let join = |a: Tensor, b: &Tensor| if p == f64::INFINITY { a.maximum(b) } else { a + b };
    let total = parts[1..].iter().fold(parts[0].clone(), join);
    let norm = match p {
        p if p == f64::INFINITY || p == 1.0 => total,
        2.0 => total.sqrt(),
        p => total.powf(1.0 / p as f32),
    };
    let scale = ((&norm + 1e-6).reciprocal() * max as f32).minimum(&norm.scalar_like(1.0));
    (norm, scale)
}
