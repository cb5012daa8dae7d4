//! What the nets are put together from: rows of layers, branches beside each other, layers beside an identity.

use striate_graph::Tensor;
use striate_nn::{
    BatchNorm2d, Conv2d, Dropout, FrozenBatchNorm2d, Module, Padding, Path, ReLU, Sizes, StochasticDepth, Visitor,
    display_module,
};

/// The norm behind the convolutions of a net.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Norm {
    /// [`BatchNorm2d`].
    Batch { eps: f64, momentum: f64 },
    /// [`FrozenBatchNorm2d`].
    Frozen { eps: f64 },
}

impl Norm {
    /// PyTorch's default.
    pub const BATCH: Norm = Norm::Batch { eps: 1e-5, momentum: 0.1 };

    /// The layer for so many channels.
    pub fn layer(self, channels: usize) -> Box<dyn Module> {
        match self {
            Norm::Batch { eps, momentum } => Box::new(BatchNorm2d::new(channels).eps(eps).momentum(momentum)),
            Norm::Frozen { eps } => Box::new(FrozenBatchNorm2d::new(channels).eps(eps)),
        }
    }
}

enum Step {
    /// Under a name, as PyTorch's module has it.
    Named(String, Box<dyn Module>),
    /// Without a name: what PyTorch's `forward` does by a function.
    Hidden(Box<dyn Module>),
    /// Its children stand beside the steps.
    Inline(Box<dyn Module>),
    /// A head that only training uses: what it takes, and the factor of its loss.
    Aside { name: String, head: Box<dyn Module>, from: &'static str, factor: f64 },
}

impl Step {
    /// What comes out, on the way through the row.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Step::Named(_, layer) => layer.call(x),
            Step::Hidden(layer) | Step::Inline(layer) => layer.forward(x),
            Step::Aside { .. } => x.clone(),
        }
    }
}

/// A net or a part of one as a row of layers, each on what the one before gives, under PyTorch's names.
pub struct Net {
    class: &'static str,
    steps: Vec<Step>,
    path: Path,
}

impl Net {
    /// Without layers; `class` is what printing calls it.
    pub fn new(class: &'static str) -> Net {
        Net { class, steps: Vec::new(), path: Path::default() }
    }

    /// Adds a layer under a name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>, layer: impl Module + 'static) -> Net {
        self.steps.push(Step::Named(name.into(), Box::new(layer)));
        self
    }

    /// Adds a layer under the number of those before it.
    #[must_use]
    pub(super) fn add(self, layer: impl Module + 'static) -> Net {
        let name = self.steps.len().to_string();
        self.named(name, layer)
    }

    /// Adds a layer that has no name and no parameters.
    #[must_use]
    pub(super) fn hidden(mut self, layer: impl Module + 'static) -> Net {
        self.steps.push(Step::Hidden(Box::new(layer)));
        self
    }

    /// Adds a layer whose children are named as if they were this net's.
    #[must_use]
    pub(super) fn inline(mut self, layer: impl Module + 'static) -> Net {
        self.steps.push(Step::Inline(Box::new(layer)));
        self
    }

    /// Adds a head that only training uses: on what the layer `from` gives, with this factor of its loss.
    #[must_use]
    pub(super) fn aside(mut self, name: &str, head: impl Module + 'static, (from, factor): (&'static str, f64)) -> Net {
        self.steps.push(Step::Aside { name: name.to_owned(), head: Box::new(head), from, factor });
        self
    }

    /// How many of its first layers lead to the last value of `x` that is wanted; nothing where none is.
    pub(super) fn layers_until(&self, x: &Tensor, wanted: impl Fn(&Tensor) -> bool) -> Option<usize> {
        let (mut x, mut last) = (x.clone(), None);
        for (index, step) in self.steps.iter().enumerate() {
            x = step.forward(&x);
            last = if wanted(&x) { Some(index + 1) } else { last };
        }
        last
    }

    /// Without all but so many of its first layers, and without heads that only training uses.
    #[must_use]
    pub(super) fn first_layers(mut self, count: usize) -> Net {
        self.steps.truncate(count);
        self.steps.retain(|step| !matches!(step, Step::Aside { .. }));
        self
    }

    /// What the last layer gives, and what those named in `taps` give.
    #[track_caller]
    pub(super) fn walk<'a>(&'a self, x: &Tensor, taps: &[&str]) -> (Tensor, Vec<(&'a str, Tensor)>) {
        let mut x = x.clone();
        let mut found = Vec::new();
        for step in &self.steps {
            x = step.forward(&x);
            if let Step::Named(name, _) = step
                && taps.contains(&name.as_str())
            {
                found.push((name.as_str(), x.clone()));
            }
        }
        (x, found)
    }
}

impl Module for Net {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.walk(x, &[]).0
    }

    #[track_caller]
    fn forward_training(&self, x: &Tensor) -> Vec<(Tensor, f64)> {
        let heads: Vec<_> = (self.steps.iter())
            .filter_map(|step| match step {
                Step::Aside { head, from, factor, .. } => Some((head, *from, *factor)),
                _ => None,
            })
            .collect();
        let taps: Vec<&str> = heads.iter().map(|(_, from, _)| *from).collect();
        let (y, found) = self.walk(x, &taps);
        let mut outputs = vec![(y, 1.0)];
        for (head, from, factor) in heads {
            outputs.extend(found.iter().filter(|(name, _)| *name == from).map(|(_, value)| (head.call(value), factor)));
        }
        outputs
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        for step in &self.steps {
            match step {
                Step::Named(name, layer) | Step::Aside { name, head: layer, .. } => visitor.module(name, &**layer),
                Step::Inline(layer) => layer.visit(visitor),
                Step::Hidden(_) => {}
            }
        }
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn class_name(&self) -> String {
        self.class.to_owned()
    }
}
display_module!(Net);

/// Rows beside each other on the same input, their channels joined. All their layers are named as if they were this module's.
pub(super) struct Branches {
    class: &'static str,
    rows: Vec<Net>,
    path: Path,
}

impl Branches {
    pub fn new(class: &'static str) -> Branches {
        Branches { class, rows: Vec::new(), path: Path::default() }
    }

    #[must_use]
    pub fn row(mut self, row: Net) -> Branches {
        self.rows.push(row);
        self
    }
}

impl Module for Branches {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let parts: Vec<Tensor> = self.rows.iter().map(|row| row.forward(x)).collect();
        Tensor::cat(&parts.iter().collect::<Vec<_>>(), 1)
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        self.rows.iter().for_each(|row| row.visit(visitor));
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn class_name(&self) -> String {
        self.class.to_owned()
    }
}
display_module!(Branches);

/// Layers beside an identity where shapes allow, at times left out in training.
pub(super) struct Residual {
    class: &'static str,
    /// Name of the layers.
    field: &'static str,
    layers: Net,
    depth: Option<StochasticDepth>,
    add: bool,
    path: Path,
}

impl Residual {
    /// `add` says whether there is an identity.
    pub fn new(class: &'static str, (field, layers): (&'static str, Net), add: bool) -> Residual {
        Residual { class, field, layers, depth: None, add, path: Path::default() }
    }

    /// Leaves the layers out with this probability.
    #[must_use]
    pub fn stochastic_depth(self, probability: f64) -> Residual {
        Residual { depth: Some(StochasticDepth::new(probability)), ..self }
    }
}

impl Module for Residual {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.layers.call(x);
        match (&self.depth, self.add) {
            (_, false) => y,
            (None, true) => x + y,
            (Some(depth), true) => depth.call(&y) + x,
        }
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.module(self.field, &self.layers);
        if let Some(depth) = &self.depth {
            visitor.module("stochastic_depth", depth);
        }
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn class_name(&self) -> String {
        self.class.to_owned()
    }
}
display_module!(Residual);

/// A function as a layer without parameters.
pub(super) struct Lambda<F>(pub F);

impl<F: Fn(&Tensor) -> Tensor + Send + Sync> Module for Lambda<F> {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.0(x)
    }
    fn visit(&self, _: &mut dyn Visitor) {}
}

/// Joins all axes but the batch.
pub(super) fn flatten() -> impl Module {
    Lambda(|x: &Tensor| x.flatten(1, -1))
}

/// The global average as `[N, C, 1, 1]`.
pub(super) fn global_average() -> impl Module {
    striate_nn::AdaptiveAvgPool2d::new(1)
}

/// `classifier` as most nets have it: dropout and a linear layer.
pub(super) fn dropout_linear(p: f64, from: usize, classes: usize) -> Net {
    Net::new("Sequential").add(Dropout::new(p).inplace(true)).add(striate_nn::Linear::new(from, classes))
}

/// The convolution (no bias), batch norm with eps 1e-3 and ReLU of the Inception nets, named `conv` and `bn`.
pub(super) fn basic_conv(
    from: usize,
    to: usize,
    kernel: impl Into<Sizes>,
    stride: usize,
    padding: impl Into<Padding>,
) -> Net {
    Net::new("BasicConv2d")
        .named("conv", Conv2d::new(from, to, kernel).stride(stride).padding(padding).bias(false))
        .named("bn", BatchNorm2d::new(to).eps(1e-3))
        .hidden(ReLU::new())
}

/// The multiple of `divisor` nearest to `value`, but not less than 90 % of it, nor less than `divisor`.
pub(super) fn make_divisible(value: f64, divisor: usize) -> usize {
    let nearest = (value + divisor as f64 / 2.0) as usize / divisor * divisor;
    let at_least = nearest.max(divisor);
    if (at_least as f64) < 0.9 * value { at_least + divisor } else { at_least }
}
