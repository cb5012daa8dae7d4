//! Norms that look at one sample at a time, and local response normalisation.

use super::norm::{RunningStats, norm_repr, reset_affine};
use super::plain_layer;
use crate::show::{python_bool, python_float, python_tuple};
use crate::{Draw, Module, Path, Visitor, display_module, visit_fields};
use striate_graph::{Array, AvgDivisor, Mode, Op, Parameter, Shape, Tensor, Windows};

fn ones(shape: impl Into<Shape>) -> Parameter {
    Parameter::new(Array::full(shape, 1f32))
}

fn zeros(shape: impl Into<Shape>) -> Parameter {
    Parameter::new(Array::full(shape, 0f32))
}

/// `x * weight + bias`, both reshaped to `sizes`.
#[track_caller]
fn affine(x: Tensor, weight: Option<&Parameter>, bias: Option<&Parameter>, sizes: &[usize]) -> Tensor {
    let mut x = x;
    if let Some(weight) = weight {
        x = &x * x.trace().parameter(weight).reshape(sizes);
    }
    if let Some(bias) = bias {
        x = &x + x.trace().parameter(bias).reshape(sizes);
    }
    x
}

/// `(x - mean) / sqrt(var + eps)` over rows of `length` elements.
#[track_caller]
fn standardize(x: &Tensor, length: usize, eps: f64) -> Tensor {
    let shape = x.shape();
    let rows = shape.numel() / length.max(1);
    let flat = x.reshape([rows, length]);
    x.trace().push(Op::Standardize { eps: eps as f32 }, &[&flat]).reshape(shape)
}

/// `[1, C, 1, …]` for a tensor `[N, C, …]`.
fn per_channel(x: &Tensor) -> Vec<usize> {
    (0..x.shape().rank()).map(|axis| if axis == 1 { x.size(1) } else { 1 }).collect()
}

macro_rules! affine_builders {
    () => {
        /// Added to the variance.
        pub fn eps(mut self, eps: f64) -> Self {
            self.eps = eps;
            self
        }

        /// With or without bias.
        pub fn bias(mut self, bias: bool) -> Self {
            let shape = self.affine_shape();
            self.bias = bias.then(|| zeros(shape));
            self
        }

        fn set_affine(mut self, affine: bool) -> Self {
            let shape = self.affine_shape();
            self.weight = affine.then(|| ones(&shape));
            self.bias = affine.then(|| zeros(shape));
            self
        }
    };
}

/// Normalises groups of channels of each sample (Wu, He 2018).
#[derive(Debug)]
pub struct GroupNorm {
    /// Factor, `[C]`, starts at 1.
    pub weight: Option<Parameter>,
    /// Shift, `[C]`, starts at 0.
    pub bias: Option<Parameter>,
    num_groups: usize,
    num_channels: usize,
    eps: f64,
    path: Path,
}

impl GroupNorm {
    /// `num_channels` in `num_groups`; eps 1e-5, affine.
    pub fn new(num_groups: usize, num_channels: usize) -> GroupNorm {
        let path = Path::default();
        GroupNorm { weight: None, bias: None, num_groups, num_channels, eps: 1e-5, path }.affine(true)
    }

    /// With or without weight and bias.
    pub fn affine(self, affine: bool) -> GroupNorm {
        self.set_affine(affine)
    }

    fn affine_shape(&self) -> Shape {
        [self.num_channels].into()
    }

    affine_builders!();
}

impl Module for GroupNorm {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let (groups, channels, shape) = (self.num_groups, self.num_channels, x.shape());
        if x.is_poisoned() {
            return x.clone();
        }
        if groups == 0 || !channels.is_multiple_of(groups) {
            let rule = format!("num_channels={channels} in num_groups={groups}");
            return x.trace().refuse("GroupNorm", rule, "num_groups must divide num_channels");
        }
        if shape.rank() < 2 || shape[1] != channels {
            let rule = format!("the input has shape {shape}, the layer num_channels={channels}");
            return x.trace().refuse("GroupNorm", rule, format!("the input must be [N, {channels}, …]"));
        }
        let length = shape[1..].iter().product::<usize>() / groups;
        affine(standardize(x, length, self.eps), self.weight.as_ref(), self.bias.as_ref(), &per_channel(x))
    }

    visit_fields!(weight, bias);

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn extra_repr(&self) -> String {
        format!(
            "{}, {}, eps={}, affine={}, bias={}",
            self.num_groups,
            self.num_channels,
            python_float(self.eps),
            python_bool(self.weight.is_some()),
            python_bool(self.bias.is_some())
        )
    }

    fn reset_parameters(&self, _: &Draw) {
        reset_affine(self.weight.as_ref(), self.bias.as_ref());
    }
}
display_module!(GroupNorm);

/// The axes that a layer norm covers: a number or a shape.
pub struct NormalizedShape(Vec<usize>);

impl From<usize> for NormalizedShape {
    fn from(size: usize) -> NormalizedShape {
        NormalizedShape(vec![size])
    }
}

impl<const N: usize> From<[usize; N]> for NormalizedShape {
    fn from(sizes: [usize; N]) -> NormalizedShape {
        NormalizedShape(sizes.to_vec())
    }
}

impl From<&[usize]> for NormalizedShape {
    fn from(sizes: &[usize]) -> NormalizedShape {
        NormalizedShape(sizes.to_vec())
    }
}

fn layer_norm_repr(shape: &[usize], eps: f64, weight: bool, bias: bool) -> String {
    let (weight, bias) = (python_bool(weight), python_bool(bias));
    format!("{}, eps={}, elementwise_affine={weight}, bias={bias}", python_tuple(shape), python_float(eps))
}

/// Normalises over the last axes (Ba et al. 2016).
#[derive(Debug)]
pub struct LayerNorm {
    /// Factor, of the normalised shape, starts at 1.
    pub weight: Option<Parameter>,
    /// Shift, of the normalised shape, starts at 0.
    pub bias: Option<Parameter>,
    normalized_shape: Vec<usize>,
    eps: f64,
    path: Path,
}

impl LayerNorm {
    /// Over axes of this shape at the end; eps 1e-5, affine.
    pub fn new(normalized_shape: impl Into<NormalizedShape>) -> LayerNorm {
        let normalized_shape = normalized_shape.into().0;
        let layer = LayerNorm { weight: None, bias: None, normalized_shape, eps: 1e-5, path: Path::default() };
        layer.elementwise_affine(true)
    }

    /// With or without weight and bias.
    pub fn elementwise_affine(self, affine: bool) -> LayerNorm {
        self.set_affine(affine)
    }

    fn affine_shape(&self) -> Shape {
        self.normalized_shape.clone().into()
    }

    affine_builders!();
}

impl Module for LayerNorm {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let (shape, own) = (x.shape(), &self.normalized_shape);
        if x.is_poisoned() {
            return x.clone();
        }
        if own.is_empty() || !shape.ends_with(own) {
            let rule = format!("the input has shape {shape}, the layer normalized_shape={own:?}");
            return x.trace().refuse("LayerNorm", rule, format!("the input must end with {own:?}"));
        }
        let y = standardize(x, own.iter().product(), self.eps);
        affine(y, self.weight.as_ref(), self.bias.as_ref(), own)
    }

    visit_fields!(weight, bias);

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn extra_repr(&self) -> String {
        layer_norm_repr(&self.normalized_shape, self.eps, self.weight.is_some(), self.bias.is_some())
    }

    fn reset_parameters(&self, _: &Draw) {
        reset_affine(self.weight.as_ref(), self.bias.as_ref());
    }
}
display_module!(LayerNorm);

/// A layer norm over the channels of an image, at each pixel (`torchvision`'s `LayerNorm2d`, for ConvNeXt).
#[derive(Debug)]
pub struct LayerNorm2d {
    /// Factor, `[C]`, starts at 1.
    pub weight: Option<Parameter>,
    /// Shift, `[C]`, starts at 0.
    pub bias: Option<Parameter>,
    channels: usize,
    eps: f64,
    path: Path,
}

impl LayerNorm2d {
    /// For so many channels; eps 1e-5, affine.
    pub fn new(channels: usize) -> LayerNorm2d {
        let layer = LayerNorm2d { weight: None, bias: None, channels, eps: 1e-5, path: Path::default() };
        layer.elementwise_affine(true)
    }

    /// With or without weight and bias.
    pub fn elementwise_affine(self, affine: bool) -> LayerNorm2d {
        self.set_affine(affine)
    }

    fn affine_shape(&self) -> Shape {
        [self.channels].into()
    }

    affine_builders!();
}

impl Module for LayerNorm2d {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let (shape, channels) = (x.shape(), self.channels);
        if x.is_poisoned() {
            return x.clone();
        }
        if shape.rank() != 4 || shape[1] != channels {
            let rule = format!("the input has shape {shape}, the layer {channels} channels");
            return x.trace().refuse("LayerNorm2d", rule, format!("the input must be [N, {channels}, H, W]"));
        }
        let y = standardize(&x.permute(&[0, 2, 3, 1]), channels, self.eps);
        affine(y, self.weight.as_ref(), self.bias.as_ref(), &[channels]).permute(&[0, 3, 1, 2])
    }

    visit_fields!(weight, bias);

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn extra_repr(&self) -> String {
        layer_norm_repr(&[self.channels], self.eps, self.weight.is_some(), self.bias.is_some())
    }

    fn reset_parameters(&self, _: &Draw) {
        reset_affine(self.weight.as_ref(), self.bias.as_ref());
    }
}
display_module!(LayerNorm2d);

/// Normalises each channel of each sample (Ulyanov et al. 2016).
#[derive(Debug)]
pub struct InstanceNorm2d {
    /// Factor, `[C]`.
    pub weight: Option<Parameter>,
    /// Shift, `[C]`.
    pub bias: Option<Parameter>,
    /// Statistics for evaluation; none by default.
    pub stats: Option<RunningStats>,
    num_features: usize,
    eps: f64,
    momentum: f64,
    path: Path,
}

impl InstanceNorm2d {
    /// For so many channels; eps 1e-5, momentum 0.1, without affine and running statistics.
    pub fn new(num_features: usize) -> InstanceNorm2d {
        let (weight, bias, stats) = (None, None, None);
        InstanceNorm2d { weight, bias, stats, num_features, eps: 1e-5, momentum: 0.1, path: Path::default() }
    }

    /// With or without weight and bias.
    pub fn affine(self, affine: bool) -> InstanceNorm2d {
        self.set_affine(affine)
    }

    /// How much of a new batch goes into the running statistics.
    pub fn momentum(self, momentum: f64) -> InstanceNorm2d {
        InstanceNorm2d { momentum, ..self }
    }

    /// With or without running statistics, which evaluation then uses.
    pub fn track_running_stats(self, track: bool) -> InstanceNorm2d {
        let stats = track.then(|| RunningStats::new(self.num_features));
        InstanceNorm2d { stats, ..self }
    }

    fn affine_shape(&self) -> Shape {
        [self.num_features].into()
    }

    affine_builders!();

    /// Records the means over the batch of mean and unbiased variance.
    #[track_caller]
    fn track(&self, x: &Tensor, stats: &RunningStats) {
        let shape = x.shape();
        let (batch, channels, count) = (shape[0], shape[1], shape[2] * shape[3]);
        let flat = x.reshape([1, batch * channels, shape[2], shape[3]]);
        let moments = x.trace().push(Op::Moments, &[&flat]).detach().reshape([2, batch, channels]);
        let means = moments.mean(&[1], false);
        let unbiased = count as f32 / (count as f32 - 1.0);
        stats.record_means(&means.select(0, 0), &(means.select(0, 1) * unbiased), self.momentum);
    }
}

impl Module for InstanceNorm2d {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        if x.is_poisoned() {
            return x.clone();
        }
        let (shape, trace, channels) = (x.shape(), x.trace(), self.num_features);
        if shape.rank() == 3 {
            let y = self.forward(&x.unsqueeze(0));
            return if y.is_poisoned() { y } else { y.squeeze(0) };
        }
        if shape.rank() != 4 || shape[1] != channels {
            let rule = format!("the input has shape {shape}, the layer num_features={channels}");
            return trace.refuse("InstanceNorm2d", rule, format!("it must be [N, {channels}, H, W]"));
        }
        let sizes = per_channel(x);
        if let (Mode::Eval, Some(stats)) = (trace.mode(), &self.stats) {
            let (one, zero) = (Array::full([channels], 1f32), Array::full([channels], 0f32));
            let (one, zero) = (trace.constant(one), trace.constant(zero));
            let (mean, var) = (trace.parameter(&stats.running_mean), trace.parameter(&stats.running_var));
            let y = trace.push(Op::BatchNorm { eps: self.eps as f32 }, &[x, &one, &zero, &mean, &var]);
            return affine(y, self.weight.as_ref(), self.bias.as_ref(), &sizes);
        }
        let count = shape[2] * shape[3];
        if count <= 1 && trace.mode() == Mode::Train {
            let rule = format!("expected more than 1 spatial element when training, got input size {shape}");
            return trace.refuse("InstanceNorm2d", rule, "use larger maps");
        }
        if let (Mode::Train, Some(stats)) = (trace.mode(), &self.stats) {
            self.track(x, stats);
        }
        affine(standardize(x, count, self.eps), self.weight.as_ref(), self.bias.as_ref(), &sizes)
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
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
        norm_repr(self.num_features, self.eps, Some(self.momentum), affine, self.stats.is_some())
    }

    fn reset_parameters(&self, _: &Draw) {
        reset_affine(self.weight.as_ref(), self.bias.as_ref());
        if let Some(stats) = &self.stats {
            stats.reset();
        }
    }
}
display_module!(InstanceNorm2d);

/// Divides by the activity of neighbouring channels: `x / (k + alpha * mean(x² over size channels)) ^ beta`
/// (Krizhevsky et al. 2012).
#[derive(Clone, Debug)]
pub struct LocalResponseNorm {
    size: usize,
    alpha: f64,
    beta: f64,
    k: f64,
    path: Path,
}

impl LocalResponseNorm {
    /// Over `size` channels; alpha 1e-4, beta 0.75, k 1.
    pub fn new(size: usize) -> LocalResponseNorm {
        LocalResponseNorm { size, alpha: 1e-4, beta: 0.75, k: 1.0, path: Path::default() }
    }

    /// Factor of the mean.
    pub fn alpha(self, alpha: f64) -> LocalResponseNorm {
        LocalResponseNorm { alpha, ..self }
    }

    /// Exponent.
    pub fn beta(self, beta: f64) -> LocalResponseNorm {
        LocalResponseNorm { beta, ..self }
    }

    /// What is added.
    pub fn k(self, k: f64) -> LocalResponseNorm {
        LocalResponseNorm { k, ..self }
    }

    #[track_caller]
    fn normalize(&self, x: &Tensor) -> Tensor {
        let shape = x.shape();
        if x.is_poisoned() {
            return x.clone();
        }
        if shape.rank() < 3 || self.size == 0 {
            let rule = format!("size={} and an input of shape {shape}", self.size);
            return x.trace().refuse("LocalResponseNorm", rule, "size must be at least 1, the input [N, C, …]");
        }
        let pixels: usize = shape[2..].iter().product();
        // An even size looks one channel further back than ahead.
        let pads = [self.size / 2, 0, (self.size - 1) / 2, 0];
        let windows =
            Windows::Sliding { kernel: [self.size, 1], stride: [1, 1], pads, dilation: [1, 1], ceil_mode: false };
        let squares = x.square().reshape([shape[0], 1, shape[1], pixels]);
        let average = Op::AvgPool2d { windows, divisor: AvgDivisor::IncludePad };
        let mean = x.trace().push(average, &[&squares]).reshape(&shape);
        x / mean.affine(self.alpha as f32, self.k as f32).powf(self.beta as f32)
    }
}
plain_layer!(LocalResponseNorm, |layer, x| layer.normalize(x), |layer| format!(
    "{}, alpha={}, beta={}, k={}",
    layer.size,
    python_float(layer.alpha),
    python_float(layer.beta),
    python_float(layer.k)
));
