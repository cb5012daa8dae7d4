//! Batch normalisation (Ioffe, Szegedy 2015).

use crate::module::Within;
use crate::show::{python_bool, python_float};
use crate::{Draw, Module, Path, display_module};
use striate_graph::{Array, DType, Mode, Op, Parameter, Tensor, UpdateKind};

/// What both batch norms are.
#[derive(Debug)]
struct Norm {
    class: &'static str,
    num_features: usize,
    eps: f64,
    momentum: Option<f64>,
}

/// Mean and variance over all batches so far, as cells.
#[derive(Debug, Clone)]
pub struct RunningStats {
    /// `[C]`, starts at 0.
    pub running_mean: Parameter,
    /// `[C]`, unbiased, starts at 1.
    pub running_var: Parameter,
    /// Number of batches seen, i64.
    pub num_batches_tracked: Parameter,
}

impl RunningStats {
    pub(super) fn new(channels: usize) -> RunningStats {
        RunningStats {
            running_mean: Parameter::buffer(Array::full([channels], 0f32)),
            running_var: Parameter::buffer(Array::full([channels], 1f32)),
            num_batches_tracked: Parameter::buffer(Array::scalar(0i64)),
        }
    }

    pub(super) fn reset(&self) {
        self.running_mean.update(|a| *a = Array::full(a.shape(), 0f32));
        self.running_var.update(|a| *a = Array::full(a.shape(), 1f32));
        self.num_batches_tracked.update(|a| *a = Array::scalar(0i64));
    }

    /// Records the updates by the statistics of this batch: `mean` and unbiased `variance`, both `[C]`.
    #[track_caller]
    pub(super) fn record(&self, mean: &Tensor, variance: &Tensor, momentum: Option<f64>) {
        let trace = mean.trace();
        let decay = match momentum {
            Some(momentum) => trace.constant(Array::full([1], (1.0 - momentum) as f32)),
            // A cumulative average: batch number n counts for 1 / n.
            None => {
                let seen = trace.parameter(&self.num_batches_tracked).cast(DType::F32).reshape([1]);
                &seen / (&seen + 1.0)
            }
        };
        self.record_with(mean, variance, &decay);
        trace.update_plain(&self.num_batches_tracked, UpdateKind::Accumulate, &trace.constant(Array::scalar(1i64)));
    }
}

impl RunningStats {
    /// As instance norm does: without counting the batch.
    #[track_caller]
    pub(super) fn record_means(&self, mean: &Tensor, variance: &Tensor, momentum: f64) {
        let decay = mean.trace().constant(Array::full([1], (1.0 - momentum) as f32));
        self.record_with(mean, variance, &decay);
    }

    #[track_caller]
    fn record_with(&self, mean: &Tensor, variance: &Tensor, decay: &Tensor) {
        mean.trace().update(&self.running_mean, &[], UpdateKind::Average, &[mean, decay]);
        mean.trace().update(&self.running_var, &[], UpdateKind::Average, &[variance, decay]);
    }
}

impl Norm {
    /// Normalises `x` `[N, C, …]` per channel; in training by the rows alone that count, where `rows` says which.
    #[track_caller]
    fn apply(
        &self,
        x: &Tensor,
        affine: [Option<&Parameter>; 2],
        stats: Option<&RunningStats>,
        rows: Option<&Tensor>,
    ) -> Tensor {
        let trace = x.trace();
        let channels = self.num_features;
        let shape = x.shape();
        if x.is_poisoned() {
            return x.clone();
        }
        if shape.rank() < 2 || shape[1] != channels {
            let rule = format!("the input has shape {shape}, the layer has num_features={channels}");
            let got = shape.get(1).map_or("an input [N, C, …]".to_owned(), |c| format!("num_features={c}"));
            return trace.refuse(self.class, rule, format!("it needs {got}"));
        }
        let eps = self.eps as f32;
        let given = |parameter: Option<&Parameter>, otherwise: f32| match parameter {
            Some(parameter) => trace.parameter(parameter),
            None => trace.constant(Array::full([channels], otherwise)),
        };
        let (gamma, beta) = (given(affine[0], 1.0), given(affine[1], 0.0));
        if let (Mode::Eval, Some(stats)) = (trace.mode(), stats) {
            let (mean, var) = (trace.parameter(&stats.running_mean), trace.parameter(&stats.running_var));
            return trace.push(Op::BatchNorm { eps }, &[x, &gamma, &beta, &mean, &var]);
        }
        let count = shape.numel() / channels.max(1);
        if trace.mode() == Mode::Train && count <= 1 {
            let rule = format!("expected more than 1 value per channel when training, got input size {shape}");
            return trace.refuse(self.class, rule, "use a larger batch or drop the last, smaller one");
        }
        let running = stats.filter(|_| trace.mode() == Mode::Train);
        let momentum = self.momentum.map(|momentum| momentum.max(trace.least_momentum()));
        if let Some(rows) = rows {
            let [mean, var, count] = moments_of_rows(x, rows);
            if let Some(stats) = running {
                let unbiased = &count / (&count - 1.0).clamp(1.0, f32::MAX);
                stats.record(&mean.detach(), &(var.detach() * unbiased), momentum);
            }
            return trace.push(Op::BatchNorm { eps }, &[x, &gamma, &beta, &mean, &var]);
        }
        let moments = trace.push(Op::Moments, &[x]);
        if let Some(stats) = running {
            let unbiased = count as f32 / (count as f32 - 1.0);
            let moments = moments.detach();
            stats.record(&moments.select(0, 0), &(moments.select(0, 1) * unbiased), momentum);
        }
        trace.push(Op::BatchNormTraining { eps }, &[x, &gamma, &beta, &moments])
    }
}

/// Mean and biased variance of each channel, `[C]`, over the rows of `x` `[N, C, …]` that count (1 in `rows` `[N]`, else 0), and how
/// many values of a channel they hold, a scalar. Gradients run through mean and variance to the rows that count.
#[track_caller]
fn moments_of_rows(x: &Tensor, rows: &Tensor) -> [Tensor; 3] {
    let (n, channels, rank) = (x.size(0), x.size(1), x.shape().rank());
    let weights = rows.reshape((0..rank).map(|axis| if axis == 0 { n } else { 1 }).collect::<Vec<usize>>());
    let of_row = x.shape().numel() / (n * channels).max(1);
    // Without any row, zeros are divided by something.
    let count = rows.sum_all().clamp(1.0, f32::MAX) * of_row as f32;
    let others: Vec<isize> = (0..rank as isize).filter(|axis| *axis != 1).collect();
    let mean = (x * &weights).sum(&others, true) / &count;
    let var = ((x - &mean).square() * &weights).sum(&others, true) / &count;
    [mean.reshape([channels]), var.reshape([channels]), count]
}

macro_rules! batch_norm {
    ($(#[$doc:meta])* $layer:ident, $ranks:expr, $layout:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $layer {
            /// Factor, `[C]`, starts at 1.
            pub weight: Option<Parameter>,
            /// Shift, `[C]`, starts at 0.
            pub bias: Option<Parameter>,
            /// Statistics for evaluation.
            pub stats: Option<RunningStats>,
            norm: Norm,
            path: Path,
        }

        impl $layer {
            /// For so many channels; eps 1e-5, momentum 0.1, with affine and running statistics.
            pub fn new(num_features: usize) -> $layer {
                let norm = Norm { class: stringify!($layer), num_features, eps: 1e-5, momentum: Some(0.1) };
                let stats = Some(RunningStats::new(num_features));
                $layer { weight: None, bias: None, stats, norm, path: Path::default() }.affine(true)
            }

            /// Added to the variance.
            pub fn eps(mut self, eps: f64) -> $layer {
                self.norm.eps = eps;
                self
            }

            /// How much of a new batch goes into the running statistics; `None` averages over all batches.
            pub fn momentum(mut self, momentum: impl Into<Option<f64>>) -> $layer {
                self.norm.momentum = momentum.into();
                self
            }

            /// With or without weight and bias.
            pub fn affine(mut self, affine: bool) -> $layer {
                let channels = self.norm.num_features;
                self.weight = affine.then(|| Parameter::new(Array::full([channels], 1f32)));
                self.bias = affine.then(|| Parameter::new(Array::full([channels], 0f32)));
                self
            }

            /// With or without bias.
            pub fn bias(mut self, bias: bool) -> $layer {
                self.bias = bias.then(|| Parameter::new(Array::full([self.norm.num_features], 0f32)));
                self
            }

            /// With or without running statistics; without, evaluation too uses those of the batch.
            pub fn track_running_stats(mut self, track: bool) -> $layer {
                self.stats = track.then(|| RunningStats::new(self.norm.num_features));
                self
            }

            /// As [`Module::call`] for a batch of which some rows are padding: in training, mean and variance are those of the rows
            /// that `rows` `[N]` (f32) has at 1, not at 0, and so are the running statistics. All rows are normalised by them; no
            /// gradient flows to a row at 0 but that of its own output. Where the statistics of all batches are taken (evaluation),
            /// `rows` changes nothing.
            ///
            /// A batch without any row at 1 is normalised by a mean and a variance of 0.
            #[track_caller]
            pub fn call_rows(&self, x: &Tensor, rows: &Tensor) -> Tensor {
                let within = Within::enter(self.path(), x.trace());
                let fits = rows.shape().rank() == 1 && rows.shape().first() == x.shape().first();
                let y = if fits || x.is_poisoned() || rows.is_poisoned() {
                    self.norm.apply(x, [self.weight.as_ref(), self.bias.as_ref()], self.stats.as_ref(), Some(rows))
                } else {
                    let rule = format!("rows has shape {}, the input {}", rows.shape(), x.shape());
                    x.trace().refuse(stringify!($layer), rule, "rows must have a value for each row of the input")
                };
                within.leave(&y);
                y
            }
        }

        impl Module for $layer {
            #[track_caller]
            fn forward(&self, x: &Tensor) -> Tensor {
                let rank = x.shape().rank();
                if !$ranks.contains(&rank) && !x.is_poisoned() {
                    let rule = format!("the input has {rank} axes, shape {}", x.shape());
                    return x.trace().refuse(stringify!($layer), rule, concat!("it must be ", $layout));
                }
                self.norm.apply(x, [self.weight.as_ref(), self.bias.as_ref()], self.stats.as_ref(), None)
            }

            fn visit(&self, visitor: &mut dyn crate::Visitor) {
                crate::Field::visit_field(&self.weight, "weight", visitor);
                crate::Field::visit_field(&self.bias, "bias", visitor);
                if let Some(stats) = &self.stats {
                    stats.visit(visitor);
                }
            }

            fn path(&self) -> Option<&Path> {
                Some(&self.path)
            }

            fn extra_repr(&self) -> String {
                let affine = [self.weight.is_some(), self.bias.is_some()];
                norm_repr(self.norm.num_features, self.norm.eps, self.norm.momentum, affine, self.stats.is_some())
            }

            fn reset_parameters(&self, _: &Draw) {
                reset_affine(self.weight.as_ref(), self.bias.as_ref());
                if let Some(stats) = &self.stats {
                    stats.reset();
                }
            }
        }
        display_module!($layer);
    };
}

impl RunningStats {
    pub(super) fn visit(&self, visitor: &mut dyn crate::Visitor) {
        visitor.parameter("running_mean", &self.running_mean);
        visitor.parameter("running_var", &self.running_var);
        visitor.parameter("num_batches_tracked", &self.num_batches_tracked);
    }
}

pub(super) fn norm_repr(features: usize, eps: f64, momentum: Option<f64>, affine: [bool; 2], track: bool) -> String {
    let momentum = momentum.map_or("None".to_owned(), python_float);
    format!(
        "{features}, eps={}, momentum={momentum}, affine={}, bias={}, track_running_stats={}",
        python_float(eps),
        python_bool(affine[0]),
        python_bool(affine[1]),
        python_bool(track)
    )
}

pub(super) fn reset_affine(weight: Option<&Parameter>, bias: Option<&Parameter>) {
    if let Some(weight) = weight {
        weight.update(|w| *w = Array::full(w.shape(), 1f32));
    }
    if let Some(bias) = bias {
        bias.update(|b| *b = Array::full(b.shape(), 0f32));
    }
}

batch_norm! {
    /// Normalises each channel of `[N, C, H, W]` by mean and variance of the batch (training) or of all batches so far
    /// (evaluation), then scales and shifts it.
    ///
    /// ```
    /// use striate_nn::{BatchNorm2d, Module};
    /// let names: Vec<String> = BatchNorm2d::new(8).state_dict().keys().map(str::to_owned).collect();
    /// assert_eq!(names, ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]);
    /// ```
    BatchNorm2d, [4], "[N, C, H, W]"
}

batch_norm! {
    /// Normalises each channel of `[N, C]` or `[N, C, L]`. See [`BatchNorm2d`].
    BatchNorm1d, [2, 3], "[N, C] or [N, C, L]"
}

/// Normalises each channel of `[N, C, H, W]` by statistics that never change, then scales and shifts it by values that are not
/// learned: torchvision's `FrozenBatchNorm2d`, which its detectors have in backbones that were trained before. All four are
/// buffers.
///
/// ```
/// use striate_nn::{FrozenBatchNorm2d, Module};
/// let norm = FrozenBatchNorm2d::new(8);
/// assert_eq!(norm.state_dict().keys().collect::<Vec<_>>(), ["weight", "bias", "running_mean", "running_var"]);
/// assert!(norm.parameters().is_empty());
/// ```
#[derive(Debug)]
pub struct FrozenBatchNorm2d {
    /// Factor, `[C]`, starts at 1.
    pub weight: Parameter,
    /// Shift, `[C]`, starts at 0.
    pub bias: Parameter,
    /// `[C]`, starts at 0.
    pub running_mean: Parameter,
    /// `[C]`, starts at 1.
    pub running_var: Parameter,
    eps: f64,
    path: Path,
}

impl FrozenBatchNorm2d {
    /// For so many channels; eps 1e-5.
    pub fn new(num_features: usize) -> FrozenBatchNorm2d {
        let buffer = |value: f32| Parameter::buffer(Array::full([num_features], value));
        FrozenBatchNorm2d {
            weight: buffer(1.0),
            bias: buffer(0.0),
            running_mean: buffer(0.0),
            running_var: buffer(1.0),
            eps: 1e-5,
            path: Path::default(),
        }
    }

    /// Added to the variance.
    pub fn eps(self, eps: f64) -> FrozenBatchNorm2d {
        FrozenBatchNorm2d { eps, ..self }
    }
}

impl Module for FrozenBatchNorm2d {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let trace = x.trace();
        let cells = [&self.weight, &self.bias, &self.running_mean, &self.running_var].map(|cell| trace.parameter(cell));
        let [weight, bias, mean, var] = &cells;
        trace.push(Op::BatchNorm { eps: self.eps as f32 }, &[x, weight, bias, mean, var])
    }

    crate::visit_fields!(weight, bias, running_mean, running_var);

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn extra_repr(&self) -> String {
        format!("{}, eps={}", self.weight.shape()[0], python_float(self.eps))
    }
}
display_module!(FrozenBatchNorm2d);
