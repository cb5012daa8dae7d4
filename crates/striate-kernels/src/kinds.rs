//! The closed vocabularies that kernels and graph share: which elementwise function, which reduction, which window.
//!
//! They are plain data, compared and hashed by bits, so that a graph node can hold them.

/// An elementwise function of one argument. Names and constants follow `torch.nn.functional`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum UnaryKind {
    Neg,
    Abs,
    Sign,
    Exp,
    Log,
    Sqrt,
    Rsqrt,
    Square,
    Reciprocal,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Asinh,
    Acosh,
    Atanh,
    Erf,
    Floor,
    Ceil,
    /// Half to even, as ONNX and PyTorch.
    Round,
    Relu,
    /// `x` where `x > 0`, else `slope * x`.
    LeakyRelu {
        slope: f32,
    },
    /// `x` where `x > 0`, else `alpha * (exp(x) - 1)`.
    Elu {
        alpha: f32,
    },
    Selu,
    /// `max(0, x) + min(0, alpha * (exp(x / alpha) - 1))`.
    Celu {
        alpha: f32,
    },
    /// `x * Φ(x)` by `erf`.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    Silu,
    Mish,
    Hardswish,
    Hardsigmoid,
    /// `min(max(x, min), max)`: ReLU6, Hardtanh and ONNX's Clip. The gradient is 1 strictly inside, else 0.
    Clip {
        min: f32,
        max: f32,
    },
    /// `log(1 + exp(beta x)) / beta`, linear where `beta x > threshold`.
    Softplus {
        beta: f32,
        threshold: f32,
    },
    Softsign,
    Sigmoid,
    Tanh,
    LogSigmoid,
    /// `x^exponent` with a constant exponent.
    PowConst {
        exponent: f32,
    },
    /// `scale * x + shift` with constants.
    Affine {
        scale: f32,
        shift: f32,
    },
    /// Logical not: 1 where the value is 0, else 0.
    Not,
}

/// An elementwise function of two arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum BinaryKind {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Min,
    Max,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Xor,
    /// The remainder with the sign of the divisor (ONNX `Mod`, `fmod=0`).
    Mod,
    /// The remainder with the sign of the dividend (C's `fmod`; ONNX `Mod`, `fmod=1`).
    Fmod,
    /// Bit by bit; integers and booleans only, as the other two.
    BitAnd,
    BitOr,
    BitXor,
    /// Towards the more significant bits; integers only. Bits shifted beyond the type's width are lost.
    ShiftLeft,
    /// Towards the less significant bits; integers only, the sign is kept.
    ShiftRight,
}

impl BinaryKind {
    /// True where the result is a truth value.
    pub fn is_comparison(self) -> bool {
        use BinaryKind::*;
        matches!(self, Equal | NotEqual | Less | LessOrEqual | Greater | GreaterOrEqual | And | Or | Xor)
    }

    /// True where the function works on bits, which floats do not have.
    pub fn is_bitwise(self) -> bool {
        use BinaryKind::*;
        matches!(self, BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight)
    }
}

/// A reduction over some axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ReduceKind {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    SumSquare,
    /// Sum of absolute values.
    L1,
    /// Root of the sum of squares.
    L2,
    LogSumExp,
}

/// How the windows of a pooling operation lie over the map. Sizes in (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Windows {
    /// A window that slides by `stride`. `pads` are top, left, bottom, right.
    Sliding {
        /// Window size.
        kernel: [usize; 2],
        /// Step of the window.
        stride: [usize; 2],
        /// Top, left, bottom, right.
        pads: [usize; 4],
        /// Distance of the window's elements.
        dilation: [usize; 2],
        /// Output size is rounded up; a window that would start in the right/bottom padding is dropped (PyTorch's rule).
        ceil_mode: bool,
    },
    /// `out` windows cut the map as PyTorch's adaptive pooling does: window `i` is `floor(i*in/out) .. ceil((i+1)*in/out)`.
    Adaptive {
        /// Output size.
        out: [usize; 2],
    },
}

/// By what an average pool divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AvgDivisor {
    /// The window's size; elements in the padding count, elements beyond it (ceil_mode) do not.
    IncludePad,
    /// Only elements inside the map.
    ExcludePad,
    /// A constant.
    Const(usize),
}

/// How `Resize` interpolates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Interpolation {
    /// Nearest with PyTorch's `floor(i * scale)` rule.
    Nearest,
    /// Nearest with rounding of pixel centres (`nearest-exact`).
    NearestExact,
    /// Linear along each axis.
    Bilinear,
    /// Cubic convolution with the given `a` (PyTorch: -0.75; with antialias -0.5).
    Bicubic {
        /// The cubic's free coefficient.
        a: f32,
    },
}

/// A 2-D resampling. The output size is given by the shapes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResizeSpec {
    /// The interpolation.
    pub mode: Interpolation,
    /// Corner pixels keep their centres.
    pub align_corners: bool,
    /// Widen the filter when shrinking.
    pub antialias: bool,
    /// Scale factors (output per input pixel) to use in the coordinate transform instead of the ratio of sizes.
    pub scales: Option<[f64; 2]>,
}

/// How a scatter combines a written value with what is there. Names are ONNX's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScatterMode {
    /// The last writer (in row-major order of the indices) wins.
    Set,
    /// The sum.
    Add,
    /// The product.
    Mul,
    /// The greater.
    Max,
    /// The smaller.
    Min,
}

/// Pooling of regions: `torchvision.ops.roi_align`, ONNX `RoiAlign`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoiAlignSpec {
    /// Height and width of each region's output.
    pub out: [usize; 2],
    /// From the regions' coordinates to those of the map.
    pub scale: f32,
    /// Samples a bin along each axis; 0 takes as many as the bin has pixels, rounded up.
    pub sampling_ratio: usize,
    /// Coordinates are shifted by half a pixel (`aligned=True`, ONNX's `half_pixel`), and regions may be smaller than a pixel.
    pub aligned: bool,
    /// The greatest of the samples instead of their mean. As ONNX defines it: of the products of pixels and bilinear weights.
    pub max: bool,
}

/// How [`GridSampleSpec`] interpolates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SampleMode {
    /// Linear along each axis.
    Linear,
    /// The nearest pixel, halves to even.
    Nearest,
    /// Keys' cubic convolution with a = -0.75.
    Cubic,
}

/// What a sample beyond the border sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SamplePadding {
    /// Zeros.
    Zeros,
    /// The nearest pixel of the border.
    Border,
    /// The map mirrored at its border.
    Reflection,
}

/// Sampling at given places: `torch.nn.functional.grid_sample`, ONNX `GridSample`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GridSampleSpec {
    /// The interpolation.
    pub mode: SampleMode,
    /// What lies beyond the border.
    pub padding: SamplePadding,
    /// -1 and 1 are the centres of the corner pixels, else their outer edges.
    pub align_corners: bool,
}

/// What stands beyond the border.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode {
    /// A constant value.
    Constant(f32),
    /// Mirror without repeating the border.
    Reflect,
    /// Repeat the border.
    Replicate,
    /// Wrap around.
    Circular,
}

/// An in-place update of a parameter or of a state cell. A number behind its hyper-parameters takes the place of its momentum, or of
/// `beta1` where it has betas, in that run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UpdateKind {
    /// `torch.optim.SGD`; state: momentum buffer (absent where momentum is 0). Hyper: [lr, weight_decay, first_step].
    Sgd {
        /// Momentum factor.
        momentum: f32,
        /// Dampening of the gradient in the momentum.
        dampening: f32,
        /// Nesterov momentum.
        nesterov: bool,
    },
    /// `torch.optim.Adam` / `AdamW`; state: exp_avg, exp_avg_sq. Hyper: [lr, weight_decay, bias_correction1, bias_correction2].
    Adam {
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the root of the second moment.
        eps: f32,
        /// Weight decay acts on the weight itself (AdamW), not on the gradient.
        decoupled: bool,
    },
    /// `torch.optim.RMSprop`; state: square_avg, then momentum buffer where momentum > 0, then grad_avg where centered. Hyper: [lr, weight_decay].
    RmsProp {
        /// Smoothing constant.
        alpha: f32,
        /// Added to the root.
        eps: f32,
        /// Momentum factor.
        momentum: f32,
        /// Normalise by the centred second moment.
        centered: bool,
    },
    /// Lion (Chen et al. 2023, algorithm 2); state: exp_avg. Hyper: [lr, weight_decay].
    Lion {
        /// Interpolation for the update.
        beta1: f32,
        /// Interpolation for the state.
        beta2: f32,
    },
    /// `p = decay * p + (1 - decay) * value`, without state. Hyper: `[decay]`. Running statistics and EMA.
    Average,
    /// `p = value`. No hyper.
    Assign,
    /// `p += value`. No hyper.
    Accumulate,
}
