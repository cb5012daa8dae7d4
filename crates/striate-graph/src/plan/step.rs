//! The machine's vocabulary: what a program is a list of. Steps are the planner's own and are never saved.

use super::packed::Packed;
use super::value::ValueId;
use crate::{BinaryKind, DType, Node, RandomKind, ReduceKind, RoiAlignSpec, Shape, UnaryKind, UpdateKind};
use std::sync::Arc;
use striate_kernels::conv::{Activation, ForwardPlan, InputGradPlan, PairPlan, WeightGradPlan};
use striate_kernels::elementwise::BinaryShape;
use striate_kernels::pool::MaxPoolPlan;
use striate_kernels::reduce::ReduceShape;
use striate_kernels::reference::RoiAlignShape;
use striate_kernels::relayout::Strided;
use striate_kernels::resample::ResamplePlan;

/// One step: a kernel with its choices made, and the values that it reads and writes, in the kernel's order.
#[derive(Debug)]
pub(crate) struct Step {
    pub kernel: Kernel,
    pub reads: Vec<ValueId>,
    pub writes: Vec<ValueId>,
    /// Cells that it reads in packed form, besides those among `reads`.
    pub cells: Vec<usize>,
    /// The node of the simplified graph that it computes (the last, where it computes several).
    pub node: usize,
    /// Floating-point operations, counted as the layer defines them.
    pub flops: u64,
}

/// What a step does. The comments give reads → writes.
#[derive(Debug)]
pub(crate) enum Kernel {
    /// The interpreter's scalar kernel, on row-major copies. inputs → output
    Reference(Box<Node>),
    /// Registered Rust code. inputs → outputs
    HostCall { name: Arc<str>, outputs: Vec<(Shape, DType)> },
    /// [n, c, inner] ↔ [n, inner, c]. x → y
    Relayout { n: usize, c: usize, inner: usize, to_channels_last: bool },
    /// Random numbers. → y
    Random { kind: RandomKind, stream: Arc<str> },
    /// Stops the run where the scalar is not finite. x →
    Guard,
    /// An update of a cell. value, hyper, [scale] →
    Update { kind: UpdateKind, slot: usize, state: Vec<usize> },
    /// x → y
    Unary(UnaryKind),
    /// x, dy → dx
    UnaryGrad(UnaryKind),
    /// a, b → y
    Binary { kind: BinaryKind, shape: Box<BinaryShape> },
    /// x → y, scratch
    Reduce { kind: ReduceKind, shape: ReduceShape },
    /// A strided copy into zeros (or another value), or into what other steps have written. x → y
    Copy(Box<CopyKernel>),
    /// x → moments, scratch
    Moments,
    /// x, gamma, beta, mean, variance (or moments of both), [residual] → y, scratch
    BatchNorm { eps: f32, residual: bool, activation: Activation },
    /// A batch norm of evaluation by itself. x, gamma, beta, mean, variance → y, scratch
    Affine { eps: f32, pixels: usize, pitches: [usize; 2], activation: Activation },
    /// x, dy, moments, [activation's output, or gamma and beta] → sums, scratch
    BatchNormGradSums { eps: f32, behind: NormBehind },
    /// x, dy, gamma, moments, sums, [activation's output, or gamma and beta] → dx, scratch
    BatchNormInputGrad { eps: f32, behind: NormBehind },
    /// x → y
    MaxPool(Box<MaxPoolPlan>),
    /// x, dy → dx
    MaxPoolGrad(Box<MaxPoolPlan>),
    /// Average pooling, resizing, or the gradient of one. x → y
    Resample(Box<ResamplePlan>),
    /// x, regions, batch → y
    RoiAlign { spec: Box<RoiAlignSpec>, shape: RoiAlignShape },
    /// Softmax or its logarithm. x → y
    Softmax { shape: ReduceShape, log: bool },
    /// x, [dy] → y or dx
    Standardize { len: usize, eps: f32, backward: bool },
    /// K1. x, [weight], [bias], [residual] → y, [moments], scratch, [packed]
    Conv(Box<ConvKernel>),
    /// A 1x1 convolution and the depthwise one behind it. x, [bias], [bias] → y, scratch
    ConvPair(Box<PairKernel>),
    /// K1 with flipped weights. dy, [weight], [residual], [mask] → dx, scratch, [packed]
    ConvInputGrad { plan: Box<InputGradPlan>, weights: Weights, residual: bool, mask: Option<[f32; 2]> },
    /// K2. x, dy → dw, scratch
    ConvWeightGrad { plan: Box<WeightGradPlan> },
}

/// A forward convolution or linear layer with its epilogue.
#[derive(Debug)]
pub(crate) struct ConvKernel {
    pub plan: ForwardPlan,
    pub weights: Weights,
    pub bias: Bias,
    pub residual: bool,
    pub moments: bool,
    pub activation: Activation,
}

/// How the backward of a batch norm takes along the gradient of the activation behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NormBehind {
    None,
    /// Of a clipping one by its output: it passes between the bounds.
    Output([f32; 2]),
    /// By computing the norm again from x.
    Again(UnaryKind),
}

/// Two convolutions with their epilogues.
#[derive(Debug)]
pub(crate) struct PairKernel {
    pub plan: PairPlan,
    pub layers: [(Weights, Bias, Activation); 2],
}

/// From where to where a strided copy goes.
#[derive(Debug)]
pub(crate) struct CopyKernel {
    pub dims: Vec<usize>,
    pub from: Strided,
    pub to: Strided,
    /// With what the output is filled first.
    pub fill: Option<f32>,
}

/// Where packed weights come from.
#[derive(Debug)]
pub(crate) enum Weights {
    /// Kept beside their cells.
    Cached { form: Arc<Packed>, recipe: Box<Recipe> },
    /// A value that this very program computes or updates: packed at each run.
    Computed,
}

/// Where a convolution's bias comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bias {
    None,
    /// Among the step's reads.
    Value,
    /// Packed with the weights.
    Folded,
}

/// A cell or a constant of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    Cell(usize),
    Constant(usize),
}

/// From what a packed form is made.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub weight: Source,
    pub bias: Option<Source>,
    /// A batch norm folded into weight and bias.
    pub norm: Option<FoldedNorm>,
}

/// Weight, bias, running mean and variance of a batch norm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoldedNorm {
    pub sources: [Source; 4],
    pub eps: f32,
}

impl Recipe {
    /// All sources, the weight first.
    pub fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        let norm = self.norm.iter().flat_map(|n| n.sources);
        std::iter::once(self.weight).chain(self.bias).chain(norm)
    }
}

/// The activation of a convolution's epilogue that equals a unary function, if there is one.
pub(crate) fn activation_of(kind: crate::UnaryKind) -> Option<Activation> {
    use crate::UnaryKind as U;
    Some(match kind {
        U::Relu => Activation::Relu,
        U::Clip { min, max } => Activation::Clip { lo: min, hi: max },
        U::LeakyRelu { slope } => Activation::LeakyRelu { slope },
        U::Elu { alpha } => Activation::Elu { alpha },
        U::Sigmoid => Activation::Sigmoid,
        U::Silu => Activation::Silu,
        U::Hardswish => Activation::Hardswish,
        U::Hardsigmoid => Activation::Hardsigmoid,
        U::Tanh => Activation::Tanh,
        U::Gelu => Activation::Gelu,
        U::GeluTanh => Activation::GeluTanh,
        _ => return None,
    })
}

impl Kernel {
    /// Which kernel does it, for the profile.
    pub fn name(&self) -> String {
        match self {
            Kernel::Reference(node) => format!("reference {}", node.op.name()),
            Kernel::HostCall { name, .. } => format!("host {name}"),
            Kernel::Relayout { to_channels_last: true, .. } => "to NHWC".into(),
            Kernel::Relayout { to_channels_last: false, .. } => "to NCHW".into(),
            Kernel::Random { .. } => "philox".into(),
            Kernel::Guard => "guard".into(),
            Kernel::Update { .. } => "update".into(),
            Kernel::Unary(kind) => format!("{kind:?}"),
            Kernel::UnaryGrad(kind) => format!("gradient of {kind:?}"),
            Kernel::Binary { kind, .. } => format!("{kind:?}"),
            Kernel::Reduce { kind, .. } => format!("{kind:?}"),
            Kernel::Copy(_) => "copy".into(),
            Kernel::Moments => "moments".into(),
            Kernel::BatchNorm { .. } | Kernel::Affine { .. } => "batch norm".into(),
            Kernel::BatchNormGradSums { .. } => "batch norm sums".into(),
            Kernel::BatchNormInputGrad { .. } => "batch norm dx".into(),
            Kernel::MaxPool(_) => "max pool".into(),
            Kernel::MaxPoolGrad(_) => "gradient of max pool".into(),
            Kernel::Resample(_) => "resample".into(),
            Kernel::RoiAlign { .. } => "roi align".into(),
            Kernel::Softmax { log: false, .. } => "softmax".into(),
            Kernel::Softmax { log: true, .. } => "log softmax".into(),
            Kernel::Standardize { backward: false, .. } => "standardize".into(),
            Kernel::Standardize { backward: true, .. } => "gradient of standardize".into(),
            Kernel::Conv(conv) => conv.plan.kernel_name(),
            Kernel::ConvPair(pair) => pair.plan.kernel_name(),
            Kernel::ConvInputGrad { plan, .. } => plan.kernel_name(),
            Kernel::ConvWeightGrad { plan } => plan.kernel_name(),
        }
    }
}
