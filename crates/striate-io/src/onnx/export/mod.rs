//! From a traced graph to an ONNX model.
//!
//! A net is traced for two batches, and what differs between the two follows the batch: the model takes any. Every operation that can
//! stand in a net for inference becomes ONNX's own operator where there is one, or what that operator is made of where the
//! opset is older; what has none is refused, all at once, by name.

mod builder;
mod dims;
mod elementwise;
mod index;
mod lower;
mod norm;
mod recipe;
mod shapes;
mod suppress;
mod windows;
mod write;

use crate::onnx::data_type;
use crate::onnx::proto::{
    Dimension, DimensionValue, GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorShapeProto,
    TensorType, TypeProto, TypeValue, ValueInfoProto,
};
use dims::{BATCHES, Dim, Variants};
use lower::Lowering;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use striate_graph::{Array, DType, Graph, Mode, Node, Tensor, Trace};
use striate_nn::Module;

pub use suppress::{BoxSuppression, suppress_boxes};
pub use write::{OnnxFile, write_onnx};

/// The opsets that can be written.
pub const EXPORT_OPSETS: RangeInclusive<i64> = 13..=23;

/// The opset that is written unless another is asked for.
pub const DEFAULT_OPSET: i64 = 18;

/// How a model is written.
#[derive(Clone, Debug)]
pub struct OnnxOptions {
    /// The version of ONNX's default operators, one of [`EXPORT_OPSETS`].
    pub opset: i64,
    /// Put batch norms into the convolutions before them.
    pub fold: bool,
    /// Store matrices and filters as f16; the model widens them when it is loaded and computes in f32.
    pub half: bool,
    /// Let height and width vary too, where the net allows it.
    pub dynamic_size: bool,
    /// Give probabilities instead of logits: a softmax along axis 1, the classes.
    pub softmax: bool,
    /// Take bytes and normalise them inside.
    pub bytes: Option<ByteInput>,
    /// What the file says about the model, by key.
    pub metadata: BTreeMap<String, String>,
    /// Name of the graph.
    pub name: String,
}

impl Default for OnnxOptions {
    fn default() -> OnnxOptions {
        OnnxOptions {
            opset: DEFAULT_OPSET,
            fold: false,
            half: false,
            dynamic_size: false,
            softmax: false,
            bytes: None,
            metadata: BTreeMap::new(),
            name: "striate".into(),
        }
    }
}

/// Pictures as bytes, u8 [N, H, W, C]: `(value / 255 - mean) / std` by channel comes first in the model. Resizing does not.
#[derive(Clone, Debug, PartialEq)]
pub struct ByteInput {
    /// Of each channel, of values from 0 to 1.
    pub mean: Vec<f32>,
    /// Of each channel.
    pub std: Vec<f32>,
}

/// One operation that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its name.
    pub op: &'static str,
    /// The layer that it belongs to.
    pub layer: String,
    /// Why, and what would help.
    pub why: String,
}

/// Why a net cannot be written as ONNX.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// No such opset is written.
    #[error("opset {asked} cannot be written; choose one from {} to {}", EXPORT_OPSETS.start(), EXPORT_OPSETS.end())]
    Opset {
        /// What was asked for.
        asked: i64,
    },
    /// Operations that have no place in the opset.
    #[error("{} of the net's operations cannot be written as ONNX opset {opset}:{}", .problems.len(), list(.problems))]
    Unsupported {
        /// The opset.
        opset: i64,
        /// Each of them.
        problems: Vec<Problem>,
    },
    /// The net does not take any batch, or any size of pictures.
    #[error("{op}{}: the model cannot leave the {what} open: {why}", at(.layer))]
    Dynamic {
        /// Batch or size of the picture.
        what: &'static str,
        /// The operation.
        op: String,
        /// Its layer.
        layer: String,
        /// What it does.
        why: String,
    },
    /// The means and deviations do not fit the net.
    #[error(
        "{given} means and {deviations} deviations for a net of {channels} channels; give one of each for every channel"
    )]
    Channels {
        /// Number of means.
        given: usize,
        /// Number of deviations.
        deviations: usize,
        /// Channels of the net's input.
        channels: usize,
    },
    /// The net cannot be traced.
    #[error(transparent)]
    Net(#[from] striate_nn::Error),
    /// The graph is not sound.
    #[error(transparent)]
    Graph(#[from] striate_graph::Error),
}

fn at(layer: &str) -> String {
    if layer.is_empty() { String::new() } else { format!(" in `{layer}`") }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|p| format!("\n  {}{}: {}", p.op, at(&p.layer), p.why)).collect()
}

impl ExportError {
    fn dynamic(node: &Node, what: &'static str, why: String) -> ExportError {
        ExportError::Dynamic { what, op: node.op.name().into(), layer: node.origin.layer.to_string(), why }
    }
}

/// The input of an exported net.
pub const INPUT_NAME: &str = "images";

/// Traces a net as it is exported: the input `images`, f32 [N, C, H, W] or with [`OnnxOptions::bytes`] u8 [N, H, W, C]; the output
/// `logits`, or with [`OnnxOptions::softmax`] `probabilities`.
///
/// # Errors
/// Where the net cannot take such pictures.
pub fn export_graph(net: &dyn Module, shape: &[usize], options: &OnnxOptions) -> Result<Graph, ExportError> {
    export_graph_of(&rows_of(net, options), shape, options)
}

/// The outputs of a net that gives rows.
fn rows_of<'a>(
    net: &'a dyn Module,
    options: &OnnxOptions,
) -> impl Fn(&Tensor) -> Vec<(&'static str, Tensor)> + use<'a> {
    let softmax = options.softmax;
    move |x| {
        let y = net.call(x);
        vec![if softmax { ("probabilities", y.softmax(1)) } else { ("logits", y) }]
    }
}

/// What a model computes of its normalised pictures, by the names of its outputs.
pub type Forward<'a> = dyn Fn(&Tensor) -> Vec<(&'static str, Tensor)> + 'a;

/// As [`export_graph`] for any function of the pictures; [`OnnxOptions::softmax`] has no say.
///
/// # Errors
/// As there.
pub fn export_graph_of(forward: &Forward, shape: &[usize], options: &OnnxOptions) -> Result<Graph, ExportError> {
    let trace = Trace::new(Mode::Eval);
    let x = match (&options.bytes, shape) {
        (Some(ByteInput { mean, std }), &[n, c, h, w]) => {
            if mean.len() != c || std.len() != c {
                return Err(ExportError::Channels { given: mean.len(), deviations: std.len(), channels: c });
            }
            let bytes = trace.input(INPUT_NAME, [n, h, w, c], DType::U8);
            let channel = |values: &[f32]| Array::from_vec([c, 1, 1], values.to_vec()).map(|a| trace.constant(a));
            let (mean, std) = (channel(mean)?, channel(std)?);
            let values = bytes.cast(DType::F32).permute(&[0, 3, 1, 2]);
            (values / trace.scalar(255.0) - mean) / std
        }
        _ => trace.input(INPUT_NAME, shape, DType::F32),
    };
    let outputs = forward(&x);
    Ok(trace.finish(&outputs.iter().map(|(name, value)| (*name, value)).collect::<Vec<_>>())?)
}

/// A net as an ONNX model that takes any batch of samples of one shape, for pictures [C, H, W]. The same net gives the same model
/// to the bit.
///
/// # Errors
/// An opset that is not written, operations that ONNX lacks, a net that works for one batch only.
///
/// ```
/// use striate_io::onnx::{OnnxOptions, export_onnx};
/// use striate_nn::{Conv2d, Flatten, Linear, ReLU, sequential};
/// let net = sequential![Conv2d::new(3, 4, 3), ReLU::new(), Flatten::new(), Linear::new(4 * 6 * 6, 2)];
/// let model = export_onnx(&net, &[3, 8, 8], &OnnxOptions::default())?;
/// let operators: Vec<&str> = model.graph.as_ref().unwrap().node.iter().map(|n| n.op_type.as_str()).collect();
/// assert_eq!(operators, ["Conv", "Relu", "Flatten", "Gemm"]);
/// # Ok::<(), striate_io::onnx::ExportError>(())
/// ```
pub fn export_onnx(net: &dyn Module, sample: &[usize], options: &OnnxOptions) -> Result<ModelProto, ExportError> {
    export_onnx_of(&rows_of(net, options), sample, options)
}

/// As [`export_onnx`] for any function of the pictures; [`OnnxOptions::softmax`] has no say.
///
/// # Errors
/// As there.
pub fn export_onnx_of(forward: &Forward, sample: &[usize], options: &OnnxOptions) -> Result<ModelProto, ExportError> {
    let trace = |batch: usize, scale: usize| {
        let sizes = sample.iter().enumerate().map(|(axis, size)| if axis == 0 { *size } else { scale * size });
        export_graph_of(forward, &std::iter::once(batch).chain(sizes).collect::<Vec<_>>(), options)
    };
    let [first, second] = BATCHES;
    let (graph, other) = (trace(first, 1)?, trace(second, 1)?);
    // Twice the size: what divides the one divides the other.
    let larger = if options.dynamic_size { Some(trace(first, 2)?) } else { None };
    convert(&graph, Variants { batch: Some(&other), picture: larger.as_ref() }, options)
}

/// A graph as an ONNX model, for inputs of just its shapes. Of `options`, softmax, bytes and dynamic size have no say here.
///
/// # Errors
/// As [`export_onnx`].
pub fn graph_to_onnx(graph: &Graph, options: &OnnxOptions) -> Result<ModelProto, ExportError> {
    convert(graph, Variants::default(), options)
}

/// The IR version that came with an opset.
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=14 => 7,
        15..=18 => 8,
        19 | 20 => 9,
        21 | 22 => 10,
        _ => 11,
    }
}

fn convert(graph: &Graph, variants: Variants, options: &OnnxOptions) -> Result<ModelProto, ExportError> {
    if !EXPORT_OPSETS.contains(&options.opset) {
        return Err(ExportError::Opset { asked: options.opset });
    }
    let dims = dims::sizes(graph, variants)?;
    let mut lowering = Lowering::new(graph, dims, options);
    lowering.run()?;
    let Lowering { dims, b, .. } = lowering;
    let inputs = graph.nodes.iter().zip(&dims).filter_map(|(node, dims)| match &node.op {
        striate_graph::Op::Input { name, dtype, .. } => Some(value_info(name, *dtype, dims)),
        _ => None,
    });
    let outputs = graph.outputs.iter().map(|(name, id)| value_info(name, graph.node(*id).dtype, &dims[id.index()]));
    let proto = GraphProto {
        name: options.name.clone(),
        input: inputs.collect(),
        output: outputs.collect(),
        node: b.nodes,
        initializer: b.initializers,
        ..Default::default()
    };
    let entry = |(key, value): (&String, &String)| StringStringEntryProto { key: key.clone(), value: value.clone() };
    Ok(ModelProto {
        ir_version: ir_version(options.opset),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: options.opset }],
        producer_name: "striate".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(proto),
        metadata_props: options.metadata.iter().map(entry).collect(),
        ..Default::default()
    })
}

fn value_info(name: &str, dtype: DType, dims: &[Dim]) -> ValueInfoProto {
    let dim = |(axis, dim): (usize, &Dim)| {
        let value = match dim {
            Dim::Fixed(size) => Some(DimensionValue::DimValue(*size as i64)),
            Dim::Batch(1) => Some(DimensionValue::DimParam("batch".into())),
            Dim::Batch(factor) => Some(DimensionValue::DimParam(format!("{factor}*batch"))),
            Dim::Picture(_) if name == INPUT_NAME => {
                let names = if dtype == DType::U8 { ["height", "width"] } else { ["", "height"] };
                let named = if axis == 3 { "width" } else { names[axis - 1] };
                Some(DimensionValue::DimParam(named.into()))
            }
            Dim::Picture(_) => None,
        };
        Dimension { value, ..Default::default() }
    };
    let shape = TensorShapeProto { dim: dims.iter().enumerate().map(dim).collect() };
    let tensor = TensorType { elem_type: data_type(dtype) as i32, shape: Some(shape) };
    let r#type = TypeProto { value: Some(TypeValue::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.into(), r#type: Some(r#type), ..Default::default() }
}
