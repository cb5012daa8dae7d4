//! The operations of a graph as JSON: a mirror of each enum, which the compiler holds against the original.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;
use striate_graph::{
    AvgDivisor, BinaryKind, ConvAttrs, DType, GridSampleSpec, Interpolation, Op, PadMode, RandomKind, ReduceKind,
    ResizeSpec, RoiAlignSpec, SampleMode, SamplePadding, ScatterMode, Shape, UnaryKind, UpdateKind, Windows,
};

/// An f32; JSON has no infinities, so those are words.
mod number {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Number {
        Finite(f32),
        Word(String),
    }

    pub fn serialize<S: Serializer>(value: &f32, to: S) -> Result<S::Ok, S::Error> {
        match value.is_finite() {
            true => Number::Finite(*value).serialize(to),
            false => Number::Word(value.to_string()).serialize(to),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f32, D::Error> {
        match Number::deserialize(from)? {
            Number::Finite(value) => Ok(value),
            Number::Word(word) => match word.as_str() {
                "inf" => Ok(f32::INFINITY),
                "-inf" => Ok(f32::NEG_INFINITY),
                "NaN" => Ok(f32::NAN),
                _ => Err(serde::de::Error::custom(format!("`{word}` is no number"))),
            },
        }
    }
}

/// A list of sizes.
pub(super) mod shape {
    use super::*;

    pub fn serialize<S: Serializer>(value: &Shape, to: S) -> Result<S::Ok, S::Error> {
        value.dims().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Shape, D::Error> {
        Ok(Vec::<usize>::deserialize(from)?.into())
    }
}

/// A shared string.
mod text {
    use super::*;

    pub fn serialize<S: Serializer>(value: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        Ok(String::deserialize(from)?.into())
    }
}

/// A shared string, or none.
mod maybe_text {
    use super::*;

    pub fn serialize<S: Serializer>(value: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
        value.as_deref().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Arc<str>>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(Into::into))
    }
}

/// Shapes with their types.
mod declared {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Declared(#[serde(with = "shape")] Shape, #[serde(with = "DTypeMirror")] DType);

    pub fn serialize<S: Serializer>(value: &[(Shape, DType)], to: S) -> Result<S::Ok, S::Error> {
        let all: Vec<Declared> = value.iter().map(|(shape, dtype)| Declared(shape.clone(), *dtype)).collect();
        all.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(Shape, DType)>, D::Error> {
        Ok(Vec::<Declared>::deserialize(from)?.into_iter().map(|d| (d.0, d.1)).collect())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "DType")]
pub(super) enum DTypeMirror {
    F32,
    F64,
    F16,
    BF16,
    I8,
    I16,
    I32,
    I64,
    U8,
    Bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "UnaryKind")]
enum UnaryMirror {
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
    Round,
    Relu,
    LeakyRelu {
        #[serde(with = "number")]
        slope: f32,
    },
    Elu {
        #[serde(with = "number")]
        alpha: f32,
    },
    Selu,
    Celu {
        #[serde(with = "number")]
        alpha: f32,
    },
    Gelu,
    GeluTanh,
    Silu,
    Mish,
    Hardswish,
    Hardsigmoid,
    Clip {
        #[serde(with = "number")]
        min: f32,
        #[serde(with = "number")]
        max: f32,
    },
    Softplus {
        #[serde(with = "number")]
        beta: f32,
        #[serde(with = "number")]
        threshold: f32,
    },
    Softsign,
    Sigmoid,
    Tanh,
    LogSigmoid,
    PowConst {
        #[serde(with = "number")]
        exponent: f32,
    },
    Affine {
        #[serde(with = "number")]
        scale: f32,
        #[serde(with = "number")]
        shift: f32,
    },
    Not,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "BinaryKind")]
enum BinaryMirror {
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
    Mod,
    Fmod,
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "ReduceKind")]
enum ReduceMirror {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    SumSquare,
    L1,
    L2,
    LogSumExp,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Windows")]
enum WindowsMirror {
    Sliding { kernel: [usize; 2], stride: [usize; 2], pads: [usize; 4], dilation: [usize; 2], ceil_mode: bool },
    Adaptive { out: [usize; 2] },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "AvgDivisor")]
enum DivisorMirror {
    IncludePad,
    ExcludePad,
    Const(usize),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Interpolation")]
enum InterpolationMirror {
    Nearest,
    NearestExact,
    Bilinear,
    Bicubic {
        #[serde(with = "number")]
        a: f32,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "ResizeSpec")]
struct ResizeMirror {
    #[serde(with = "InterpolationMirror")]
    mode: Interpolation,
    align_corners: bool,
    antialias: bool,
    scales: Option<[f64; 2]>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "PadMode")]
enum PadMirror {
    Constant(#[serde(with = "number")] f32),
    Reflect,
    Replicate,
    Circular,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "ScatterMode")]
enum ScatterMirror {
    Set,
    Add,
    Mul,
    Max,
    Min,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "RoiAlignSpec")]
struct RoiAlignMirror {
    out: [usize; 2],
    #[serde(with = "number")]
    scale: f32,
    sampling_ratio: usize,
    aligned: bool,
    max: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "SampleMode")]
enum SampleMirror {
    Linear,
    Nearest,
    Cubic,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "SamplePadding")]
enum SamplePaddingMirror {
    Zeros,
    Border,
    Reflection,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "GridSampleSpec")]
struct GridSampleMirror {
    #[serde(with = "SampleMirror")]
    mode: SampleMode,
    #[serde(with = "SamplePaddingMirror")]
    padding: SamplePadding,
    align_corners: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "ConvAttrs")]
struct ConvMirror {
    stride: [usize; 2],
    pads: [usize; 4],
    dilation: [usize; 2],
    groups: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "RandomKind")]
enum RandomMirror {
    Uniform,
    Normal,
    Mask {
        #[serde(with = "number")]
        keep: f32,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "UpdateKind")]
enum UpdateMirror {
    Sgd {
        #[serde(with = "number")]
        momentum: f32,
        #[serde(with = "number")]
        dampening: f32,
        nesterov: bool,
    },
    Adam {
        #[serde(with = "number")]
        beta1: f32,
        #[serde(with = "number")]
        beta2: f32,
        #[serde(with = "number")]
        eps: f32,
        decoupled: bool,
    },
    RmsProp {
        #[serde(with = "number")]
        alpha: f32,
        #[serde(with = "number")]
        eps: f32,
        #[serde(with = "number")]
        momentum: f32,
        centered: bool,
    },
    Lion {
        #[serde(with = "number")]
        beta1: f32,
        #[serde(with = "number")]
        beta2: f32,
    },
    Average,
    Assign,
    Accumulate,
}

/// Constants are arrays of the file, and a poisoned graph is not written: neither is JSON.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Op")]
pub(super) enum OpMirror {
    Input {
        #[serde(with = "text")]
        name: Arc<str>,
        #[serde(with = "shape")]
        shape: Shape,
        #[serde(with = "DTypeMirror")]
        dtype: DType,
    },
    Parameter {
        slot: usize,
        #[serde(with = "shape")]
        shape: Shape,
        #[serde(with = "DTypeMirror")]
        dtype: DType,
    },
    #[serde(skip)]
    Constant(striate_graph::Array),
    Random {
        #[serde(with = "RandomMirror")]
        kind: RandomKind,
        #[serde(with = "text")]
        stream: Arc<str>,
        #[serde(with = "shape")]
        shape: Shape,
    },
    Unary(#[serde(with = "UnaryMirror")] UnaryKind),
    UnaryGrad(#[serde(with = "UnaryMirror")] UnaryKind),
    Binary(#[serde(with = "BinaryMirror")] BinaryKind),
    Where,
    Cast(#[serde(with = "DTypeMirror")] DType),
    Detach,
    Reduce {
        #[serde(with = "ReduceMirror")]
        kind: ReduceKind,
        axes: Vec<usize>,
        keepdims: bool,
    },
    ArgReduce {
        max: bool,
        axis: usize,
        keepdims: bool,
    },
    TopK {
        axis: usize,
        k: usize,
        largest: bool,
    },
    CumSum {
        axis: usize,
        exclusive: bool,
        reverse: bool,
    },
    Softmax {
        axis: usize,
    },
    LogSoftmax {
        axis: usize,
    },
    Reshape {
        #[serde(with = "shape")]
        shape: Shape,
    },
    Transpose {
        perm: Vec<usize>,
    },
    Expand {
        #[serde(with = "shape")]
        shape: Shape,
    },
    Slice {
        starts: Vec<usize>,
        sizes: Vec<usize>,
        steps: Vec<isize>,
    },
    SliceGrad {
        #[serde(with = "shape")]
        shape: Shape,
        starts: Vec<usize>,
        steps: Vec<isize>,
    },
    Concat {
        axis: usize,
    },
    Pad {
        pads: Vec<[isize; 2]>,
        #[serde(with = "PadMirror")]
        mode: PadMode,
    },
    PadGrad {
        pads: Vec<[isize; 2]>,
        #[serde(with = "PadMirror")]
        mode: PadMode,
    },
    Gather {
        axis: usize,
    },
    GatherGrad {
        axis: usize,
        size: usize,
    },
    GatherElements {
        axis: usize,
    },
    ScatterElements {
        axis: usize,
        #[serde(with = "ScatterMirror")]
        mode: ScatterMode,
    },
    GatherNd {
        batch_dims: usize,
    },
    ScatterNd {
        #[serde(with = "ScatterMirror")]
        mode: ScatterMode,
    },
    OneHot {
        depth: usize,
    },
    MatMul {
        trans_a: bool,
        trans_b: bool,
    },
    Conv2d(#[serde(with = "ConvMirror")] ConvAttrs),
    Conv2dInputGrad {
        #[serde(with = "ConvMirror")]
        attrs: ConvAttrs,
        input: [usize; 2],
    },
    Conv2dWeightGrad {
        #[serde(with = "ConvMirror")]
        attrs: ConvAttrs,
        kernel: [usize; 2],
    },
    MaxPool2d(#[serde(with = "WindowsMirror")] Windows),
    MaxPool2dIndices(#[serde(with = "WindowsMirror")] Windows),
    MaxPool2dGrad(#[serde(with = "WindowsMirror")] Windows),
    AvgPool2d {
        #[serde(with = "WindowsMirror")]
        windows: Windows,
        #[serde(with = "DivisorMirror")]
        divisor: AvgDivisor,
    },
    AvgPool2dGrad {
        #[serde(with = "WindowsMirror")]
        windows: Windows,
        #[serde(with = "DivisorMirror")]
        divisor: AvgDivisor,
        input: [usize; 2],
    },
    Moments,
    BatchNorm {
        #[serde(with = "number")]
        eps: f32,
    },
    BatchNormTraining {
        #[serde(with = "number")]
        eps: f32,
    },
    BatchNormGradSums {
        #[serde(with = "number")]
        eps: f32,
    },
    BatchNormInputGrad {
        #[serde(with = "number")]
        eps: f32,
    },
    Standardize {
        #[serde(with = "number")]
        eps: f32,
    },
    StandardizeGrad {
        #[serde(with = "number")]
        eps: f32,
    },
    Resize {
        #[serde(with = "ResizeMirror")]
        spec: ResizeSpec,
        out: [usize; 2],
    },
    ResizeGrad {
        #[serde(with = "ResizeMirror")]
        spec: ResizeSpec,
        input: [usize; 2],
    },
    RoiAlign(#[serde(with = "RoiAlignMirror")] RoiAlignSpec),
    RoiAlignGrad(#[serde(with = "RoiAlignMirror")] RoiAlignSpec),
    GridSample(#[serde(with = "GridSampleMirror")] GridSampleSpec),
    GridSampleInputGrad {
        #[serde(with = "GridSampleMirror")]
        spec: GridSampleSpec,
        input: Vec<usize>,
    },
    GridSampleGridGrad(#[serde(with = "GridSampleMirror")] GridSampleSpec),
    HostCall {
        #[serde(with = "text")]
        name: Arc<str>,
        #[serde(with = "declared")]
        outputs: Vec<(Shape, DType)>,
        #[serde(with = "maybe_text")]
        backward: Option<Arc<str>>,
    },
    HostOutput {
        index: usize,
    },
    Update {
        #[serde(with = "UpdateMirror")]
        kind: UpdateKind,
        slot: usize,
        state: Vec<usize>,
    },
    #[serde(skip)]
    Poison,
}
