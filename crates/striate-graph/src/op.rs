use crate::{
    Array, AvgDivisor, BinaryKind, DType, GridSampleSpec, PadMode, ReduceKind, ResizeSpec, Result, RoiAlignSpec,
    ScatterMode, Shape, UnaryKind, UpdateKind, Windows,
};
use std::sync::Arc;

/// How a convolution's kernel lies over the map. Sizes in (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvAttrs {
    /// Step of the kernel.
    pub stride: [usize; 2],
    /// Zeros added at top, left, bottom, right.
    pub pads: [usize; 4],
    /// Distance of the kernel's elements.
    pub dilation: [usize; 2],
    /// Number of groups into which input and output channels are split.
    pub groups: usize,
}

impl Default for ConvAttrs {
    fn default() -> Self {
        ConvAttrs { stride: [1, 1], pads: [0; 4], dilation: [1, 1], groups: 1 }
    }
}

/// What a [`Op::Random`] node draws, fresh at each run, from the run's seed and step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RandomKind {
    /// Uniform in [0, 1).
    Uniform,
    /// Standard normal.
    Normal,
    /// `1 / keep` with probability `keep`, else 0: the mask of dropout.
    Mask {
        /// Probability that an element is kept.
        keep: f32,
    },
}

/// Rust code that a graph calls by name. Register it with [`crate::register_host_function`].
pub trait HostFunction: Send + Sync {
    /// Computes the outputs, which must have the shapes and types that the node declares.
    ///
    /// # Errors
    /// Any message; the run stops with it.
    fn call(&self, inputs: &[Array]) -> Result<Vec<Array>, String>;
}

/// One operation: closed, coarse, at the grain of ONNX. Semantics are row-major NCHW throughout; layout is the planner's.
///
/// The comments give the inputs in brackets.
#[derive(Clone, Debug)]
pub enum Op {
    /// Data given at each run. `[]`
    Input {
        /// The input's name.
        name: Arc<str>,
        /// Its shape.
        shape: Shape,
        /// Its type.
        dtype: DType,
    },
    /// The value of a parameter cell as it was before this run's updates. `[]`
    Parameter {
        /// Index into [`crate::Graph::parameters`].
        slot: usize,
        /// The cell's shape.
        shape: Shape,
        /// The cell's type.
        dtype: DType,
    },
    /// Fixed data. `[]`
    Constant(Array),
    /// Random numbers, keyed by (run seed, stream, run step, logical element). `[]`
    Random {
        /// The distribution.
        kind: RandomKind,
        /// Purpose and layer path.
        stream: Arc<str>,
        /// The output's shape.
        shape: Shape,
    },

    /// An elementwise function. `[x]`
    Unary(UnaryKind),
    /// Its derivative at `x` times `dy`. `[x, dy]`
    UnaryGrad(UnaryKind),
    /// An elementwise function of two, broadcast by NumPy's rule. `[a, b]`
    Binary(BinaryKind),
    /// `a` where the condition holds, else `b`, broadcast. `[condition, a, b]`
    Where,
    /// Conversion of type. `[x]`
    Cast(DType),
    /// The value itself, through which no gradient flows. `[x]`
    Detach,

    /// A reduction. `[x]`
    Reduce {
        /// Which.
        kind: ReduceKind,
        /// Over which axes, ascending.
        axes: Vec<usize>,
        /// Keep the reduced axes with size 1.
        keepdims: bool,
    },
    /// Position of the first maximum or minimum, as i64. `[x]`
    ArgReduce {
        /// Maximum, else minimum.
        max: bool,
        /// Along which axis.
        axis: usize,
        /// Keep the axis with size 1.
        keepdims: bool,
    },
    /// Positions of the `k` greatest elements along an axis, the greatest first, as i64; of equals the first. The values are
    /// what [`Op::GatherElements`] finds there. `[x]`
    TopK {
        /// The axis, which becomes `k` long.
        axis: usize,
        /// How many.
        k: usize,
        /// The greatest, else the smallest.
        largest: bool,
    },
    /// The sum so far along an axis: `y[i] = x[0] + … + x[i]`. `[x]`
    CumSum {
        /// The axis.
        axis: usize,
        /// Leave out `x[i]` itself.
        exclusive: bool,
        /// Sum from the far end: `y[i] = x[i] + … + x[last]`.
        reverse: bool,
    },
    /// Softmax along an axis. `[x]`
    Softmax {
        /// The axis.
        axis: usize,
    },
    /// Its logarithm. `[x]`
    LogSoftmax {
        /// The axis.
        axis: usize,
    },

    /// The same elements under another shape. `[x]`
    Reshape {
        /// The new shape.
        shape: Shape,
    },
    /// Axes in another order: output axis `i` is input axis `perm[i]`. `[x]`
    Transpose {
        /// The order.
        perm: Vec<usize>,
    },
    /// Broadcast to a shape. `[x]`
    Expand {
        /// The new shape.
        shape: Shape,
    },
    /// Elements `start, start + step, …` along each axis, `sizes` of them. `[x]`
    Slice {
        /// First index of each axis.
        starts: Vec<usize>,
        /// Number taken of each axis.
        sizes: Vec<usize>,
        /// Step of each axis; may be negative.
        steps: Vec<isize>,
    },
    /// Zeros of the given shape with `dy` where [`Op::Slice`] would have read. `[dy]`
    SliceGrad {
        /// The full shape.
        shape: Shape,
        /// As in `Slice`.
        starts: Vec<usize>,
        /// As in `Slice`.
        steps: Vec<isize>,
    },
    /// Joins along an axis. `[x0, x1, …]`
    Concat {
        /// The axis.
        axis: usize,
    },
    /// Adds (or, negative, removes) elements at both ends of each axis. `[x]`
    Pad {
        /// Before and after, per axis.
        pads: Vec<[isize; 2]>,
        /// What stands there.
        mode: PadMode,
    },
    /// The gradient of [`Op::Pad`]. `[dy]`
    PadGrad {
        /// As in `Pad`.
        pads: Vec<[isize; 2]>,
        /// As in `Pad`.
        mode: PadMode,
    },
    /// Takes whole slices along an axis. `[x, indices i64]`
    Gather {
        /// The axis.
        axis: usize,
    },
    /// The gradient of [`Op::Gather`]: adds slices of `dy` into zeros. `[indices, dy]`
    GatherGrad {
        /// The axis.
        axis: usize,
        /// Size of the axis in the gathered array.
        size: usize,
    },
    /// `out[..i..] = x[..index[..i..]..]` along an axis. `[x, indices i64]`
    GatherElements {
        /// The axis.
        axis: usize,
    },
    /// `x` with `updates` written (or added, …) at `indices` along an axis. `[x, indices i64, updates]`
    ScatterElements {
        /// The axis.
        axis: usize,
        /// How an update is combined with what is there.
        mode: ScatterMode,
    },
    /// Slices named by tuples, the last axis of the indices: `out[b.., i.., ..] = x[b.., indices[b.., i.., :], ..]`.
    /// `[x, indices i64]`
    GatherNd {
        /// Axes that both inputs have in common and run along side by side.
        batch_dims: usize,
    },
    /// `x` with slices written (or added, …) at tuples, the last axis of the indices. `[x, indices i64, updates]`
    ScatterNd {
        /// How an update is combined with what is there.
        mode: ScatterMode,
    },
    /// 1 at the index, 0 elsewhere, along a new last axis; an index out of range gives only zeros. f32. `[indices]`
    OneHot {
        /// Size of the new axis.
        depth: usize,
    },

    /// Product over the last two axes; leading axes broadcast. `[a, b]`
    MatMul {
        /// Use `a` transposed.
        trans_a: bool,
        /// Use `b` transposed.
        trans_b: bool,
    },

    /// Cross-correlation, NCHW with OIHW weights. `[x, weight]` or `[x, weight, bias]`
    Conv2d(ConvAttrs),
    /// The gradient of [`Op::Conv2d`] for its input, which is also the transposed convolution. `[dy, weight]`
    Conv2dInputGrad {
        /// Of the convolution.
        attrs: ConvAttrs,
        /// Height and width of its input.
        input: [usize; 2],
    },
    /// The gradient of [`Op::Conv2d`] for its weight. `[x, dy]`
    Conv2dWeightGrad {
        /// Of the convolution.
        attrs: ConvAttrs,
        /// Height and width of its kernel.
        kernel: [usize; 2],
    },

    /// Maximum over windows; padding never wins. `[x]`
    MaxPool2d(Windows),
    /// Where each maximum lies: flat index into the plane, i64. `[x]`
    MaxPool2dIndices(Windows),
    /// The gradient of [`Op::MaxPool2d`]. `[x, dy]`
    MaxPool2dGrad(Windows),
    /// Average over windows. `[x]`
    AvgPool2d {
        /// The windows.
        windows: Windows,
        /// By what to divide.
        divisor: AvgDivisor,
    },
    /// The gradient of [`Op::AvgPool2d`]. `[dy]`
    AvgPool2dGrad {
        /// The windows.
        windows: Windows,
        /// By what to divide.
        divisor: AvgDivisor,
        /// Height and width of the pool's input.
        input: [usize; 2],
    },

    /// Mean and biased variance of each channel of `[N, C, …]`, as `[2, C]`. `[x]`
    Moments,
    /// `(x - mean) / sqrt(var + eps) * gamma + beta` per channel, with given statistics. `[x, gamma, beta, mean, var]`
    BatchNorm {
        /// Added to the variance.
        eps: f32,
    },
    /// The same with the statistics of this very batch; its gradient runs through them. `[x, gamma, beta, moments]`
    BatchNormTraining {
        /// Added to the variance.
        eps: f32,
    },
    /// Per channel, `[sum dy, sum dy * x̂]`, as `[2, C]`. `[x, dy, moments]`
    BatchNormGradSums {
        /// Added to the variance.
        eps: f32,
    },
    /// The gradient of [`Op::BatchNormTraining`] for its input. `[x, dy, gamma, moments, sums]`
    BatchNormInputGrad {
        /// Added to the variance.
        eps: f32,
    },
    /// `(x - mean) / sqrt(var + eps)` over the last axis: the core of layer, group and instance norm. `[x]`
    Standardize {
        /// Added to the variance.
        eps: f32,
    },
    /// Its gradient. `[x, dy]`
    StandardizeGrad {
        /// Added to the variance.
        eps: f32,
    },

    /// Resampling of the last two axes of NCHW. `[x]`
    Resize {
        /// How.
        spec: ResizeSpec,
        /// Output height and width.
        out: [usize; 2],
    },
    /// The gradient of [`Op::Resize`]. `[dy]`
    ResizeGrad {
        /// How.
        spec: ResizeSpec,
        /// Height and width of the resize's input.
        input: [usize; 2],
    },

    /// Pooling of regions `[x1, y1, x2, y2]` of the maps that `batch` names. `[x, regions [R, 4], batch [R] i64]`
    RoiAlign(RoiAlignSpec),
    /// The gradient of [`Op::RoiAlign`] for its input. `[x, regions, batch, dy]`
    RoiAlignGrad(RoiAlignSpec),
    /// Samples of `x` `[N, C, …]` at the places of a grid `[N, …, axes]`, which names the innermost axis first and runs from -1 to
    /// 1. `[x, grid]`
    GridSample(GridSampleSpec),
    /// The gradient of [`Op::GridSample`] for its input. `[grid, dy]`
    GridSampleInputGrad {
        /// How.
        spec: GridSampleSpec,
        /// Lengths of the map's axes.
        input: Vec<usize>,
    },
    /// The gradient of [`Op::GridSample`] for its grid. `[x, grid, dy]`
    GridSampleGridGrad(GridSampleSpec),

    /// Registered Rust code; the node itself is its first output. `[any…]`
    HostCall {
        /// The registered name.
        name: Arc<str>,
        /// Shapes and types of the outputs.
        outputs: Vec<(Shape, DType)>,
        /// The registered name of its gradient, which takes the inputs and the gradients of all outputs and gives a
        /// gradient for each float input. Without one the call cuts the gradient.
        backward: Option<Arc<str>>,
    },
    /// Another output of a host call. `[call]`
    HostOutput {
        /// Which.
        index: usize,
    },

    /// Updates a parameter cell in place, after all reads of it in this run and once the guarded loss is known to be
    /// finite. Its value is a scalar 0 without meaning. `[value, hyper]` or `[value, hyper, scale of value]`
    Update {
        /// The rule.
        kind: UpdateKind,
        /// The cell.
        slot: usize,
        /// Cells of its state (momentum and the like).
        state: Vec<usize>,
    },
    /// Stands for an operation whose shapes did not fit; the graph holds the error.
    Poison,
}

impl Op {
    /// The operation's name, ONNX's where ONNX has it.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input { .. } => "Input",
            Op::Parameter { .. } => "Parameter",
            Op::Constant(_) => "Constant",
            Op::Random { .. } => "Random",
            Op::Unary(kind) => unary_name(*kind),
            Op::UnaryGrad(_) => "UnaryGrad",
            Op::Binary(kind) => binary_name(*kind),
            Op::Where => "Where",
            Op::Cast(_) => "Cast",
            Op::Detach => "Detach",
            Op::Reduce { kind, .. } => reduce_name(*kind),
            Op::ArgReduce { max: true, .. } => "ArgMax",
            Op::ArgReduce { max: false, .. } => "ArgMin",
            Op::TopK { .. } => "TopK",
            Op::CumSum { .. } => "CumSum",
            Op::Softmax { .. } => "Softmax",
            Op::LogSoftmax { .. } => "LogSoftmax",
            Op::Reshape { .. } => "Reshape",
            Op::Transpose { .. } => "Transpose",
            Op::Expand { .. } => "Expand",
            Op::Slice { .. } => "Slice",
            Op::SliceGrad { .. } => "SliceGrad",
            Op::Concat { .. } => "Concat",
            Op::Pad { .. } => "Pad",
            Op::PadGrad { .. } => "PadGrad",
            Op::Gather { .. } => "Gather",
            Op::GatherGrad { .. } => "GatherGrad",
            Op::GatherElements { .. } => "GatherElements",
            Op::ScatterElements { .. } => "ScatterElements",
            Op::GatherNd { .. } => "GatherND",
            Op::ScatterNd { .. } => "ScatterND",
            Op::OneHot { .. } => "OneHot",
            Op::MatMul { .. } => "MatMul",
            Op::Conv2d(_) => "Conv2d",
            Op::Conv2dInputGrad { .. } => "Conv2dInputGrad",
            Op::Conv2dWeightGrad { .. } => "Conv2dWeightGrad",
            Op::MaxPool2d(_) => "MaxPool2d",
            Op::MaxPool2dIndices(_) => "MaxPool2dIndices",
            Op::MaxPool2dGrad(_) => "MaxPool2dGrad",
            Op::AvgPool2d { .. } => "AvgPool2d",
            Op::AvgPool2dGrad { .. } => "AvgPool2dGrad",
            Op::Moments => "Moments",
            Op::BatchNorm { .. } => "BatchNorm",
            Op::BatchNormTraining { .. } => "BatchNormTraining",
            Op::BatchNormGradSums { .. } => "BatchNormGradSums",
            Op::BatchNormInputGrad { .. } => "BatchNormInputGrad",
            Op::Standardize { .. } => "Standardize",
            Op::StandardizeGrad { .. } => "StandardizeGrad",
            Op::Resize { .. } => "Resize",
            Op::ResizeGrad { .. } => "ResizeGrad",
            Op::RoiAlign(_) => "RoiAlign",
            Op::RoiAlignGrad(_) => "RoiAlignGrad",
            Op::GridSample(_) => "GridSample",
            Op::GridSampleInputGrad { .. } => "GridSampleInputGrad",
            Op::GridSampleGridGrad(_) => "GridSampleGridGrad",
            Op::HostCall { .. } => "HostCall",
            Op::HostOutput { .. } => "HostOutput",
            Op::Update { .. } => "Update",
            Op::Poison => "Poison",
        }
    }

    /// True where two nodes of the same op and inputs always have the same value, so that one may stand for both.
    pub fn is_pure(&self) -> bool {
        !matches!(self, Op::Input { .. } | Op::HostCall { .. } | Op::HostOutput { .. } | Op::Update { .. } | Op::Poison)
    }
}

fn unary_name(kind: UnaryKind) -> &'static str {
    use UnaryKind::*;
    match kind {
        Neg => "Neg",
        Abs => "Abs",
        Sign => "Sign",
        Exp => "Exp",
        Log => "Log",
        Sqrt => "Sqrt",
        Rsqrt => "Rsqrt",
        Square => "Square",
        Reciprocal => "Reciprocal",
        Sin => "Sin",
        Cos => "Cos",
        Tan => "Tan",
        Asin => "Asin",
        Acos => "Acos",
        Atan => "Atan",
        Sinh => "Sinh",
        Cosh => "Cosh",
        Asinh => "Asinh",
        Acosh => "Acosh",
        Atanh => "Atanh",
        Erf => "Erf",
        Floor => "Floor",
        Ceil => "Ceil",
        Round => "Round",
        Relu => "Relu",
        LeakyRelu { .. } => "LeakyRelu",
        Elu { .. } => "Elu",
        Selu => "Selu",
        Celu { .. } => "Celu",
        Gelu => "Gelu",
        GeluTanh => "GeluTanh",
        Silu => "Silu",
        Mish => "Mish",
        Hardswish => "HardSwish",
        Hardsigmoid => "HardSigmoid",
        Clip { .. } => "Clip",
        Softplus { .. } => "Softplus",
        Softsign => "Softsign",
        Sigmoid => "Sigmoid",
        Tanh => "Tanh",
        LogSigmoid => "LogSigmoid",
        PowConst { .. } => "PowConst",
        Affine { .. } => "Affine",
        Not => "Not",
    }
}

fn binary_name(kind: BinaryKind) -> &'static str {
    use BinaryKind::*;
    match kind {
        Add => "Add",
        Sub => "Sub",
        Mul => "Mul",
        Div => "Div",
        Pow => "Pow",
        Min => "Min",
        Max => "Max",
        Equal => "Equal",
        NotEqual => "NotEqual",
        Less => "Less",
        LessOrEqual => "LessOrEqual",
        Greater => "Greater",
        GreaterOrEqual => "GreaterOrEqual",
        And => "And",
        Or => "Or",
        Xor => "Xor",
        Mod => "Mod",
        Fmod => "Fmod",
        BitAnd => "BitwiseAnd",
        BitOr => "BitwiseOr",
        BitXor => "BitwiseXor",
        ShiftLeft => "ShiftLeft",
        ShiftRight => "ShiftRight",
    }
}

fn reduce_name(kind: ReduceKind) -> &'static str {
    use ReduceKind::*;
    match kind {
        Sum => "ReduceSum",
        Mean => "ReduceMean",
        Max => "ReduceMax",
        Min => "ReduceMin",
        Prod => "ReduceProd",
        SumSquare => "ReduceSumSquare",
        L1 => "ReduceL1",
        L2 => "ReduceL2",
        LogSumExp => "ReduceLogSumExp",
    }
}
