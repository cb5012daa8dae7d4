//! Losses: structs with PyTorch's arguments, called with input and target tensors of the same trace. All are compositions of
//! differentiable operations, so that a loss of one's own is any function from tensors to a scalar tensor.
//!
//! ```
//! use striate_graph::{DType, Mode, Trace};
//! use striate_nn::loss::CrossEntropyLoss;
//! let trace = Trace::new(Mode::Train);
//! let logits = trace.input("logits", &[8, 10], DType::F32);
//! let labels = trace.input("labels", &[8], DType::I64);
//! let loss = CrossEntropyLoss::new().label_smoothing(0.1).call(&logits, &labels);
//! assert_eq!(loss.shape().rank(), 0);
//! ```

use striate_graph::{Array, DType, Tensor};

/// How a loss makes one number of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// It does not.
    None,
    /// The (weighted) mean.
    #[default]
    Mean,
    /// The sum.
    Sum,
}

#[track_caller]
fn reduced(loss: &Tensor, reduction: Reduction) -> Tensor {
    match reduction {
        Reduction::None => loss.clone(),
        Reduction::Mean => loss.mean_all(),
        Reduction::Sum => loss.sum_all(),
    }
}

/// Both tensors, if their shapes are equal; else the refusal.
#[track_caller]
fn same_shape(class: &str, input: &Tensor, target: &Tensor) -> Result<(), Tensor> {
    if input.is_poisoned() || target.is_poisoned() || input.shape() == target.shape() {
        return Ok(());
    }
    let rule = format!("the input has shape {}, the target {}", input.shape(), target.shape());
    Err(input.trace().refuse(class, rule, "they must be equal; a broadcast would hide a mistake"))
}

macro_rules! reduction_builder {
    ($loss:ident) => {
        impl $loss {
            /// How the losses of the elements are joined (mean).
            pub fn reduction(mut self, reduction: Reduction) -> $loss {
                self.reduction = reduction;
                self
            }
        }
        impl Default for $loss {
            fn default() -> $loss {
                $loss::new()
            }
        }
        impl std::fmt::Display for $loss {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($loss), "()"))
            }
        }
    };
}

/// The loss of a net in training: that of each of its outputs, as [`crate::Module::call_training`] gives them, by its factor.
///
/// # Panics
/// Without outputs: a net has one.
#[track_caller]
pub fn of_outputs(outputs: &[(Tensor, f64)], loss: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let one = |(output, factor): &(Tensor, f64)| match *factor {
        1.0 => loss(output),
        factor => loss(output) * factor as f32,
    };
    outputs.iter().map(one).reduce(|a, b| a + b).expect("a net has an output")
}

/// Logits `[N, C, …]` against class indices `[N, …]` (i64) or class probabilities `[N, C, …]`. `[C]` and a scalar are one sample.
#[derive(Clone, Debug)]
pub struct CrossEntropyLoss {
    weight: Option<Array>,
    ignore_index: i64,
    label_smoothing: f64,
    reduction: Reduction,
}
reduction_builder!(CrossEntropyLoss);

impl CrossEntropyLoss {
    /// Without weights or smoothing; ignores the index -100.
    pub fn new() -> CrossEntropyLoss {
        CrossEntropyLoss { weight: None, ignore_index: -100, label_smoothing: 0.0, reduction: Reduction::Mean }
    }

    /// A weight for each class, `[C]`.
    pub fn weight(self, weight: Array) -> CrossEntropyLoss {
        CrossEntropyLoss { weight: Some(weight), ..self }
    }

    /// Targets of this value count for nothing.
    pub fn ignore_index(self, ignore_index: i64) -> CrossEntropyLoss {
        CrossEntropyLoss { ignore_index, ..self }
    }

    /// The part of the target that is spread evenly over all classes, from 0 to 1.
    pub fn label_smoothing(self, label_smoothing: f64) -> CrossEntropyLoss {
        CrossEntropyLoss { label_smoothing, ..self }
    }

    /// Records the loss.
    #[track_caller]
    pub fn call(&self, input: &Tensor, target: &Tensor) -> Tensor {
        if input.is_poisoned() || target.is_poisoned() {
            return input.trace().push(striate_graph::Op::Detach, &[if input.is_poisoned() { input } else { target }]);
        }
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            let rule = format!("label_smoothing={}", self.label_smoothing);
            return input.trace().refuse("CrossEntropyLoss", rule, "it must be from 0 to 1");
        }
        if target.dtype().is_float() {
            return self.of_probabilities(input, target);
        }
        let classes =
            match ClassTargets::new("CrossEntropyLoss", input, target, self.weight.as_ref(), self.ignore_index) {
                Ok(classes) => classes,
                Err(refused) => return refused,
            };
        let log_p = classes.input.log_softmax(1);
        let nll = classes.nll(&log_p, self.reduction);
        if self.label_smoothing == 0.0 {
            return nll;
        }
        let spread = classes.spread(&log_p, self.reduction);
        let count = log_p.size(1) as f64;
        nll * (1.0 - self.label_smoothing) as f32 + spread * (self.label_smoothing / count) as f32
    }

    #[track_caller]
    fn of_probabilities(&self, input: &Tensor, target: &Tensor) -> Tensor {
        if let Err(refused) = same_shape("CrossEntropyLoss", input, target) {
            return refused;
        }
        let alone = input.shape().rank() == 1;
        let (input, target) =
            if alone { (input.unsqueeze(0), target.unsqueeze(0)) } else { (input.clone(), target.clone()) };
        let classes = input.size(1);
        let mut weighted = input.log_softmax(1);
        if let Some(weight) = &self.weight {
            match class_weight("CrossEntropyLoss", &input, weight) {
                Ok(weight) => weighted = weighted * weight.reshape(over_classes(&input)),
                Err(refused) => return refused,
            }
        }
        let smoothing = self.label_smoothing;
        let target = match smoothing == 0.0 {
            true => target,
            false => target.affine((1.0 - smoothing) as f32, (smoothing / classes as f64) as f32),
        };
        let loss = -(weighted * target).sum(&[1], false);
        match self.reduction {
            Reduction::None if alone => loss.reshape([]),
            reduction => reduced(&loss, reduction),
        }
    }
}

/// `[1, C, 1, …]` for a tensor `[N, C, …]`.
fn over_classes(input: &Tensor) -> Vec<usize> {
    (0..input.shape().rank()).map(|axis| if axis == 1 { input.size(1) } else { 1 }).collect()
}

#[track_caller]
fn class_weight(class: &str, input: &Tensor, weight: &Array) -> Result<Tensor, Tensor> {
    let classes = input.size(1);
    if weight.shape().dims() != [classes] {
        let rule = format!("the weight has shape {}, the input {classes} classes", weight.shape());
        return Err(input.trace().refuse(class, rule, format!("it must be [{classes}], one weight a class")));
    }
    Ok(input.trace().constant(weight.cast(input.dtype())))
}

/// What losses of class indices share.
struct ClassTargets {
    input: Tensor,
    /// One sample without a batch axis was given.
    alone: bool,
    /// `[N, …]`, 0 where ignored.
    indices: Tensor,
    /// `[N, …]`, 1 where it counts, else 0.
    counts: Tensor,
    weight: Option<Tensor>,
    /// `[N, …]`: the weight of each target, 0 where ignored.
    weights: Tensor,
}

impl ClassTargets {
    #[track_caller]
    fn new(
        class: &str,
        input: &Tensor,
        target: &Tensor,
        weight: Option<&Array>,
        ignore_index: i64,
    ) -> Result<ClassTargets, Tensor> {
        let alone = input.shape().rank() == 1 && target.shape().rank() == 0;
        let (input, target) =
            if alone { (input.unsqueeze(0), target.reshape([1])) } else { (input.clone(), target.clone()) };
        let shape = input.shape();
        let expected = if shape.rank() >= 2 { [&shape[..1], &shape[2..]].concat() } else { vec![] };
        if shape.rank() < 2 || target.shape().dims() != expected {
            let rule = format!("logits of shape {shape} and class indices of shape {}", target.shape());
            let fix = match shape.rank() < 2 {
                true => "the logits must be [N, C, …]".to_owned(),
                false => format!("the indices must have shape {expected:?}"),
            };
            return Err(input.trace().refuse(class, rule, fix));
        }
        let valid = target.ne(&target.scalar_like(ignore_index as f64));
        let indices = target.where_(&valid, &target.scalar_like(0.0)).cast(DType::I64);
        let counts = valid.cast(input.dtype());
        let weight = weight.map(|w| class_weight(class, &input, w)).transpose()?;
        let weights = match &weight {
            Some(weight) => weight.index_select(0, &indices) * &counts,
            None => counts.clone(),
        };
        Ok(ClassTargets { input, alone, indices, counts, weight, weights })
    }

    /// Joins losses `[N, …]`; the mean divides by the sum of the targets' weights.
    #[track_caller]
    fn join(&self, loss: Tensor, reduction: Reduction) -> Tensor {
        match reduction {
            Reduction::None if self.alone => loss.reshape([]),
            Reduction::None => loss,
            Reduction::Sum => loss.sum_all(),
            Reduction::Mean => loss.sum_all() / self.weights.sum_all(),
        }
    }

    #[track_caller]
    fn nll(&self, log_p: &Tensor, reduction: Reduction) -> Tensor {
        let mut picked = self.indices.shape().to_vec();
        picked.insert(1, 1);
        let picked = log_p.gather(1, &self.indices.reshape(picked)).reshape(self.indices.shape());
        self.join(-(picked * &self.weights), reduction)
    }

    /// The loss against a target that is spread evenly, times the number of classes.
    #[track_caller]
    fn spread(&self, log_p: &Tensor, reduction: Reduction) -> Tensor {
        let weighted = match &self.weight {
            Some(weight) => log_p * weight.reshape(over_classes(log_p)),
            None => log_p.clone(),
        };
        self.join(-(weighted.sum(&[1], false) * &self.counts), reduction)
    }
}

/// Log-probabilities `[N, C, …]` against class indices `[N, …]` (i64).
#[derive(Clone, Debug)]
pub struct NLLLoss {
    weight: Option<Array>,
    ignore_index: i64,
    reduction: Reduction,
}
reduction_builder!(NLLLoss);

impl NLLLoss {
    /// Without weights; ignores the index -100.
    pub fn new() -> NLLLoss {
        NLLLoss { weight: None, ignore_index: -100, reduction: Reduction::Mean }
    }

    /// A weight for each class, `[C]`.
    pub fn weight(self, weight: Array) -> NLLLoss {
        NLLLoss { weight: Some(weight), ..self }
    }

    /// Targets of this value count for nothing.
    pub fn ignore_index(self, ignore_index: i64) -> NLLLoss {
        NLLLoss { ignore_index, ..self }
    }

    /// Records the loss.
    #[track_caller]
    pub fn call(&self, input: &Tensor, target: &Tensor) -> Tensor {
        match ClassTargets::new("NLLLoss", input, target, self.weight.as_ref(), self.ignore_index) {
            Ok(classes) => classes.nll(&classes.input, self.reduction),
            Err(refused) => refused,
        }
    }
}

/// Probabilities against targets from 0 to 1. Logarithms are cut at -100, so that 0 and 1 give finite losses.
#[derive(Clone, Debug)]
pub struct BCELoss {
    weight: Option<Array>,
    reduction: Reduction,
}
reduction_builder!(BCELoss);

impl BCELoss {
    /// Without weights.
    pub fn new() -> BCELoss {
        BCELoss { weight: None, reduction: Reduction::Mean }
    }

    /// A factor that is broadcast against the losses of the elements.
    pub fn weight(self, weight: Array) -> BCELoss {
        BCELoss { weight: Some(weight), ..self }
    }

    /// Records the loss.
    #[track_caller]
    pub fn call(&self, input: &Tensor, target: &Tensor) -> Tensor {
        if let Err(refused) = same_shape("BCELoss", input, target) {
            return refused;
        }
        let (p, t) = (input.detach(), target.detach());
        let (log_p, log_q) = (p.log(), p.affine(-1.0, 1.0).log());
        let floor = p.scalar_like(-100.0);
        let value = -(&t * log_p.maximum(&floor) + t.affine(-1.0, 1.0) * log_q.maximum(&floor));
        // The gradient as PyTorch defines it, which at 0 and 1 is not that of the cut logarithms: the value plus
        // terms that are zero but carry it.
        let slope = (&p - &t) / (p.affine(-1.0, 1.0) * &p).maximum(&p.scalar_like(1e-12));
        let target_slope = log_q.maximum(&floor) - log_p.maximum(&floor);
        let loss = value + (input - &p) * slope + (target - &t) * target_slope;
        finish_elementwise(loss, self.weight.as_ref(), self.reduction)
    }
}

#[track_caller]
fn finish_elementwise(loss: Tensor, weight: Option<&Array>, reduction: Reduction) -> Tensor {
    let loss = match weight {
        Some(weight) => &loss * loss.trace().constant(weight.cast(loss.dtype())),
        None => loss,
    };
    reduced(&loss, reduction)
}

/// Logits against targets from 0 to 1, stable for any logit.
#[derive(Clone, Debug)]
pub struct BCEWithLogitsLoss {
    weight: Option<Array>,
    pos_weight: Option<Array>,
    reduction: Reduction,
}
reduction_builder!(BCEWithLogitsLoss);

impl BCEWithLogitsLoss {
    /// Without weights.
    pub fn new() -> BCEWithLogitsLoss {
        BCEWithLogitsLoss { weight: None, pos_weight: None, reduction: Reduction::Mean }
    }

    /// A factor that is broadcast against the losses of the elements.
    pub fn weight(self, weight: Array) -> BCEWithLogitsLoss {
        BCEWithLogitsLoss { weight: Some(weight), ..self }
    }

    /// A factor for the positive part of each class, broadcast.
    pub fn pos_weight(self, pos_weight: Array) -> BCEWithLogitsLoss {
        BCEWithLogitsLoss { pos_weight: Some(pos_weight), ..self }
    }

    /// Records the loss.
    #[track_caller]
    pub fn call(&self, input: &Tensor, target: &Tensor) -> Tensor {
        if let Err(refused) = same_shape("BCEWithLogitsLoss", input, target) {
            return refused;
        }
        let log_p = input.log_sigmoid();
        let positive = match &self.pos_weight {
            Some(weight) => {
                let extra = input.trace().constant(weight.cast(input.dtype())) - 1.0;
                (extra * target + 1.0) * log_p
            }
            None => log_p,
        };
        let loss = target.affine(-1.0, 1.0) * input - positive;
        finish_elementwise(loss, self.weight.as_ref(), self.reduction)
    }
}

/// The focal loss of Lin et al. 2017 on logits, as `torchvision.ops.sigmoid_focal_loss`; there the reduction is none by default.
#[derive(Clone, Debug)]
pub struct SigmoidFocalLoss {
    alpha: f64,
    gamma: f64,
    reduction: Reduction,
}
reduction_builder!(SigmoidFocalLoss);

impl SigmoidFocalLoss {
    /// alpha 0.25, gamma 2, no reduction.
    pub fn new() -> SigmoidFocalLoss {
        SigmoidFocalLoss { alpha: 0.25, gamma: 2.0, reduction: Reduction::None }
    }

    /// Weight of the positive examples, from 0 to 1; negative for none.
    pub fn alpha(self, alpha: f64) -> SigmoidFocalLoss {
        SigmoidFocalLoss { alpha, ..self }
    }

    /// How much easy examples are held down.
    pub fn gamma(self, gamma: f64) -> SigmoidFocalLoss {
        SigmoidFocalLoss { gamma, ..self }
    }

    /// Records the loss.
    #[track_caller]
    pub fn call(&self, input: &Tensor, target: &Tensor) -> Tensor {
        if let Err(refused) = same_shape("sigmoid_focal_loss", input, target) {
            return refused;
        }
        let negative = target.affine(-1.0, 1.0);
        let mut loss = &negative * input - input.log_sigmoid();
        if self.gamma != 0.0 {
            // 1 - p_t, without the subtraction that would lose small values: sigmoid(-x) is 1 - sigmoid(x).
            let miss = (-input).sigmoid() * target + input.sigmoid() * &negative;
            loss = loss * miss.powf(self.gamma as f32);
        }
        if self.alpha >= 0.0 {
            let alpha = self.alpha as f32;
            loss = target.affine(2.0 * alpha - 1.0, 1.0 - alpha) * loss;
        }
        reduced(&loss, self.reduction)
    }
}

macro_rules! regression_losses {
    ($($(#[$doc:meta])* $loss:ident $({$field:ident: $default:literal})?, |$self:ident, $input:ident, $target:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $loss {
            $($field: f64,)?
            reduction: Reduction,
        }
        reduction_builder!($loss);
        impl $loss {
            /// With PyTorch's defaults.
            pub fn new() -> $loss {
                $loss { $($field: $default,)? reduction: Reduction::Mean }
            }

            $(/// The difference from which on the loss is linear (1).
            pub fn $field(mut self, $field: f64) -> $loss {
                self.$field = $field;
                self
            })?

            /// Records the loss; both tensors have the same shape.
            #[track_caller]
            pub fn call(&self, $input: &Tensor, $target: &Tensor) -> Tensor {
                if let Err(refused) = same_shape(stringify!($loss), $input, $target) {
                    return refused;
                }
                let $self = self;
                reduced(&$body, self.reduction)
            }
        }
    )*};
}

regression_losses! {
    /// The squared difference.
    MSELoss, |_loss, input, target| (input - target).square();
    /// The absolute difference.
    L1Loss, |_loss, input, target| (input - target).abs();
    /// Quadratic within `beta`, linear beyond: `0.5 d² / beta` or `|d| - 0.5 beta` (Girshick 2015).
    SmoothL1Loss { beta: 1.0 }, |loss, input, target| {
        let d = (input - target).abs();
        let beta = loss.beta as f32;
        match beta == 0.0 {
            true => d,
            false => (d.square() * (0.5 / beta)).where_(&d.lt(&d.scalar_like(loss.beta)), &(&d - 0.5 * beta)),
        }
    };
    /// Quadratic within `delta`, linear beyond: `0.5 d²` or `delta (|d| - 0.5 delta)` (Huber 1964).
    HuberLoss { delta: 1.0 }, |loss, input, target| {
        let d = (input - target).abs();
        let delta = loss.delta as f32;
        (d.square() * 0.5).where_(&d.le(&d.scalar_like(loss.delta)), &((&d - 0.5 * delta) * delta))
    };
}

/// The Kullback-Leibler divergence: log-probabilities against probabilities, `sum t (log t - x)`.
#[derive(Clone, Debug)]
pub struct KLDivLoss {
    log_target: bool,
    batch_mean: bool,
    reduction: Reduction,
}
reduction_builder!(KLDivLoss);

impl KLDivLoss {
    /// Mean over all elements (PyTorch's default, though not the divergence's definition: see [`KLDivLoss::batch_mean`]).
    pub fn new() -> KLDivLoss {
        KLDivLoss { log_target: false, batch_mean: false, reduction: Reduction::Mean }
    }

    /// The target holds logarithms.
    pub fn log_target(self, log_target: bool) -> KLDivLoss {
        KLDivLoss { log_target, ..self }
    }

    /// PyTorch's `reduction='batchmean'`: the sum divided by the size of the batch.
    pub fn batch_mean(self) -> KLDivLoss {
        KLDivLoss { batch_mean: true, ..self }
    }

    /// Records the loss.
    #[track_caller]
    pub fn call(&self, input: &Tensor, target: &Tensor) -> Tensor {
        if let Err(refused) = same_shape("KLDivLoss", input, target) {
            return refused;
        }
        let loss = if self.log_target {
            target.exp() * (target - input)
        } else {
            // t log t is 0 at 0; its logarithm must not be taken there.
            let zero = target.scalar_like(0.0);
            let positive = target.gt(&zero);
            let entropy = target * target.where_(&positive, &target.scalar_like(1.0)).log();
            entropy.where_(&positive, &zero) - target * input
        };
        if self.batch_mean {
            return loss.sum_all() / input.size(0).max(1) as f32;
        }
        reduced(&loss, self.reduction)
    }
}
