//! Reads back what the export writes: from a model of ours to a graph, so that it can be run beside the net that it was made of.
//!
//! It knows the operators, attributes and shape arithmetic that the export uses, and no others.

mod moves;
mod pools;

use crate::onnx::proto::{AttributeProto, ModelProto, NodeProto};
use crate::onnx::{dtype_of, read_initializers};
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;
use striate_graph::{
    Array, BinaryKind, ConvAttrs, DType, Graph, Mode, Op, Parameter, ReduceKind, Shape, Tensor, Trace, UnaryKind,
};

/// Why a node was not written by the export.
type Why = String;

/// A value: data where they are known, and what stands for it in the trace.
#[derive(Clone)]
struct Value {
    known: Option<Array>,
    tensor: Tensor,
}

/// A model on its way back.
struct Replay<'a> {
    trace: &'a Trace,
    values: HashMap<String, Value>,
}

/// The graph of a model that the export wrote, for inputs of these shapes; its weights are cells with the initializers' names.
///
/// # Errors
/// Names the node that the export would not have written, and what is wrong with an initializer.
pub fn replay_onnx(model: &ModelProto, path: &Path, shapes: &[(&str, Shape)]) -> Result<Graph> {
    let wrong = |what: String, why: String| Error::malformed(path, what, why);
    let proto = model.graph.as_ref().ok_or_else(|| wrong("ONNX".into(), "the model has no graph".into()))?;
    let trace = Trace::new(Mode::Eval);
    let mut replay = Replay { trace: &trace, values: HashMap::new() };
    for (name, array) in read_initializers(proto, path)? {
        let value = match array.dtype().is_float() && array.shape().rank() > 0 {
            true => {
                let cell = Parameter::new(array);
                cell.set_name(&name);
                Value { known: None, tensor: trace.parameter(&cell) }
            }
            false => Value { known: Some(array.clone()), tensor: trace.constant(array) },
        };
        replay.values.insert(name, value);
    }
    for info in &proto.input {
        let given = shapes.iter().find(|(name, _)| *name == info.name);
        let (_, shape) = given.ok_or_else(|| wrong(format!("input `{}`", info.name), "no shape was given".into()))?;
        let dtype = element_type(info).ok_or_else(|| wrong(format!("input `{}`", info.name), "its type".into()))?;
        let tensor = trace.input(&info.name, shape, dtype);
        replay.values.insert(info.name.clone(), Value { known: None, tensor });
    }
    for node in &proto.node {
        replay.node(node).map_err(|why| wrong(format!("node `{}` ({})", node.name, node.op_type), why))?;
    }
    let outputs: Vec<(&str, Tensor)> = proto
        .output
        .iter()
        .map(|info| Ok((info.name.as_str(), replay.tensor(&info.name)?)))
        .collect::<Result<_, Why>>()
        .map_err(|why| wrong("the outputs".into(), why))?;
    let named: Vec<(&str, &Tensor)> = outputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
    trace.clone().finish(&named).map_err(|error| wrong("the graph".into(), error.to_string()))
}

fn element_type(info: &crate::onnx::proto::ValueInfoProto) -> Option<DType> {
    match info.r#type.as_ref()?.value.as_ref()? {
        crate::onnx::proto::TypeValue::TensorType(tensor) => dtype_of(tensor.elem_type),
        _ => None,
    }
}

/// The attributes of a node.
struct Attributes<'a>(&'a [AttributeProto]);

impl Attributes<'_> {
    fn find(&self, name: &str) -> Option<&AttributeProto> {
        self.0.iter().find(|attribute| attribute.name == name)
    }

    fn int(&self, name: &str, otherwise: i64) -> i64 {
        self.find(name).and_then(|attribute| attribute.i).unwrap_or(otherwise)
    }

    fn float(&self, name: &str, otherwise: f32) -> f32 {
        self.find(name).and_then(|attribute| attribute.f).unwrap_or(otherwise)
    }

    fn word(&self, name: &str) -> String {
        let bytes = self.find(name).and_then(|attribute| attribute.s.clone()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn ints(&self, name: &str) -> Option<&[i64]> {
        self.find(name).map(|attribute| attribute.ints.as_slice())
    }

    /// A list of sizes of just this length.
    fn sizes<const N: usize>(&self, name: &str) -> Result<[usize; N], Why> {
        let list = self.ints(name).ok_or_else(|| format!("it has no `{name}`"))?;
        let sizes: Vec<usize> = list.iter().filter_map(|&size| usize::try_from(size).ok()).collect();
        sizes.try_into().map_err(|_| format!("`{name}` is {list:?}"))
    }
}

/// An axis counted from either end.
fn axis_of(axis: i64, rank: usize) -> Result<usize, Why> {
    let index = if axis < 0 { axis + rank as i64 } else { axis };
    let found = usize::try_from(index).ok().filter(|&index| index < rank);
    found.ok_or_else(|| format!("axis {axis} of {rank}"))
}

impl Replay<'_> {
    fn value(&self, name: &str) -> Result<Value, Why> {
        self.values.get(name).cloned().ok_or_else(|| format!("`{name}` is read before it is written"))
    }

    fn tensor(&self, name: &str) -> Result<Tensor, Why> {
        Ok(self.value(name)?.tensor)
    }

    /// An input by its place; an empty name stands for none.
    fn input(&self, node: &NodeProto, place: usize) -> Result<Tensor, Why> {
        let name = node.input.get(place).ok_or_else(|| format!("input {place} is missing"))?;
        self.tensor(name)
    }

    fn has(&self, node: &NodeProto, place: usize) -> bool {
        node.input.get(place).is_some_and(|name| !name.is_empty())
    }

    /// Whole numbers that are known before anything runs.
    fn list(&self, node: &NodeProto, place: usize) -> Result<Vec<i64>, Why> {
        let name = node.input.get(place).ok_or_else(|| format!("input {place} is missing"))?;
        let known = self.value(name)?.known.ok_or_else(|| format!("`{name}` is not known before the model runs"))?;
        Ok(known.to_i64_vec())
    }

    fn node(&mut self, node: &NodeProto) -> Result<(), Why> {
        let attributes = Attributes(&node.attribute);
        if let Some(known) = self.arithmetic(node, &attributes)? {
            let tensor = self.trace.constant(known.clone());
            self.values.insert(node.output[0].clone(), Value { known: Some(known), tensor });
            return Ok(());
        }
        if node.op_type == "MaxPool" && node.output.len() == 2 {
            let (y, places) = self.max_pool_with_places(node, &attributes)?;
            self.values.insert(node.output[1].clone(), Value { known: None, tensor: places });
            self.values.insert(node.output[0].clone(), Value { known: None, tensor: y });
            return Ok(());
        }
        let tensor = match self.elementwise(node, &attributes)? {
            Some(tensor) => tensor,
            None => self.other(node, &attributes)?,
        };
        self.values.insert(node.output[0].clone(), Value { known: None, tensor });
        Ok(())
    }

    /// What sizes are worked out from: data that are known stay known.
    fn arithmetic(&self, node: &NodeProto, attributes: &Attributes) -> Result<Option<Array>, Why> {
        let row = |values: Vec<i64>| Array::from_vec([values.len()], values).map(Some).map_err(|e| e.to_string());
        if node.op_type == "Shape" {
            return row(self.input(node, 0)?.shape().iter().map(|&size| size as i64).collect());
        }
        let whole = |name: &String| {
            let known = self.values.get(name).and_then(|value| value.known.as_ref());
            known.is_some_and(|array| array.dtype() == DType::I64 && array.shape().rank() == 1)
        };
        if !node.input.iter().all(whole) {
            return Ok(None);
        }
        match node.op_type.as_str() {
            "Slice" => {
                let (values, from, to) = (self.list(node, 0)?, self.list(node, 1)?, self.list(node, 2)?);
                let range = from.first().zip(to.first()).map(|(&from, &to)| from as usize..to as usize);
                row(range.and_then(|range| values.get(range)).ok_or("a part beyond the shape")?.to_vec())
            }
            "Mul" => {
                let (a, b) = (self.list(node, 0)?, self.list(node, 1)?);
                row(a.iter().zip(&b).map(|(a, b)| a.saturating_mul(*b)).collect())
            }
            "Concat" if attributes.int("axis", 0) == 0 => {
                let parts = (0..node.input.len()).map(|place| self.list(node, place));
                row(parts.collect::<Result<Vec<_>, Why>>()?.concat())
            }
            _ => Ok(None),
        }
    }

    /// Functions of one or two values.
    fn elementwise(&self, node: &NodeProto, attributes: &Attributes) -> Result<Option<Tensor>, Why> {
        use UnaryKind::*;
        let alpha = |otherwise: f32| attributes.float("alpha", otherwise);
        let unary = match node.op_type.as_str() {
            "Neg" => Neg,
            "Abs" => Abs,
            "Sign" => Sign,
            "Exp" => Exp,
            "Log" => Log,
            "Sqrt" => Sqrt,
            "Reciprocal" => Reciprocal,
            "Sin" => Sin,
            "Cos" => Cos,
            "Erf" => Erf,
            "Floor" => Floor,
            "Ceil" => Ceil,
            "Round" => Round,
            "Relu" => Relu,
            "Sigmoid" => Sigmoid,
            "Tanh" => Tanh,
            "Softsign" => Softsign,
            "Softplus" => Softplus { beta: 1.0, threshold: 20.0 },
            "Selu" => Selu,
            "Mish" => Mish,
            "HardSwish" => Hardswish,
            "HardSigmoid" => Hardsigmoid,
            "LeakyRelu" => LeakyRelu { slope: alpha(0.01) },
            "Elu" => Elu { alpha: alpha(1.0) },
            "Celu" => Celu { alpha: alpha(1.0) },
            "Gelu" if attributes.word("approximate") == "tanh" => GeluTanh,
            "Gelu" => Gelu,
            "Not" => Not,
            "Clip" => {
                let limit = |place: usize, otherwise: f32| match self.has(node, place) {
                    true => self.scalar(node, place),
                    false => Ok(otherwise),
                };
                Clip { min: limit(1, f32::NEG_INFINITY)?, max: limit(2, f32::INFINITY)? }
            }
            _ => return self.of_two(node),
        };
        Ok(Some(self.input(node, 0)?.unary(unary)))
    }

    /// One number that is known.
    fn scalar(&self, node: &NodeProto, place: usize) -> Result<f32, Why> {
        let known = self.value(&node.input[place])?.known.and_then(|array| array.item().ok());
        known.map(|value| value as f32).ok_or_else(|| format!("input {place} is no number"))
    }

    fn of_two(&self, node: &NodeProto) -> Result<Option<Tensor>, Why> {
        let kind = match node.op_type.as_str() {
            "Add" => BinaryKind::Add,
            "Sub" => BinaryKind::Sub,
            "Mul" => BinaryKind::Mul,
            "Div" => BinaryKind::Div,
            "Pow" => BinaryKind::Pow,
            "Min" => BinaryKind::Min,
            "Max" => BinaryKind::Max,
            "Equal" => BinaryKind::Equal,
            "Less" => BinaryKind::Less,
            "LessOrEqual" => BinaryKind::LessOrEqual,
            "Greater" => BinaryKind::Greater,
            "GreaterOrEqual" => BinaryKind::GreaterOrEqual,
            "And" => BinaryKind::And,
            "Or" => BinaryKind::Or,
            "Xor" => BinaryKind::Xor,
            "Mod" => BinaryKind::Mod,
            _ => return Ok(None),
        };
        Ok(Some(self.input(node, 0)?.binary(kind, &self.input(node, 1)?)))
    }

    fn other(&self, node: &NodeProto, attributes: &Attributes) -> Result<Tensor, Why> {
        let x = self.input(node, 0)?;
        let rank = x.shape().rank();
        let axis = |otherwise: i64| axis_of(attributes.int("axis", otherwise), rank);
        Ok(match node.op_type.as_str() {
            "Identity" => x,
            "Cast" => {
                let to = dtype_of(attributes.int("to", 0) as i32).ok_or("it converts to a type that arrays lack")?;
                x.cast(to)
            }
            "Where" => self.input(node, 1)?.where_(&x, &self.input(node, 2)?),
            "PRelu" => {
                let positive = x.gt(&x.scalar_like(0.0));
                x.where_(&positive, &self.input(node, 1)?.binary(BinaryKind::Mul, &x))
            }
            "Gemm" => {
                let [trans_a, trans_b] = ["transA", "transB"].map(|name| attributes.int(name, 0) == 1);
                let y = self.trace.push(Op::MatMul { trans_a, trans_b }, &[&x, &self.input(node, 1)?]);
                if self.has(node, 2) { y.binary(BinaryKind::Add, &self.input(node, 2)?) } else { y }
            }
            "MatMul" => x.matmul(&self.input(node, 1)?),
            "Softmax" => x.softmax(axis(-1)? as isize),
            "LogSoftmax" => x.log_softmax(axis(-1)? as isize),
            "ArgMax" | "ArgMin" => {
                let (max, axis) = (node.op_type == "ArgMax", axis(0)?);
                self.trace.push(Op::ArgReduce { max, axis, keepdims: attributes.int("keepdims", 1) == 1 }, &[&x])
            }
            "BatchNormalization" => {
                let others = [1, 2, 3, 4].map(|place| self.input(node, place));
                let [gamma, beta, mean, var] = others;
                let eps = attributes.float("epsilon", 1e-5);
                self.trace.push(Op::BatchNorm { eps }, &[&x, &gamma?, &beta?, &mean?, &var?])
            }
            "LayerNormalization" => self.standardized(node, axis(-1)?, attributes, None)?,
            "InstanceNormalization" => self.standardized(node, 2, attributes, Some(x.size(1)))?,
            "Conv" => self.conv(node, attributes)?,
            "ConvTranspose" => self.conv_transpose(node, attributes)?,
            name if name.starts_with("Reduce") => self.reduce(node, attributes)?,
            name if name.contains("Pool") => self.pool(node, attributes)?,
            _ => self.moved(node, attributes)?,
        })
    }

    /// Standardised from an axis on, then a factor and a summand, per channel or along those axes.
    fn standardized(
        &self,
        node: &NodeProto,
        axis: usize,
        attributes: &Attributes,
        channels: Option<usize>,
    ) -> Result<Tensor, Why> {
        let x = self.input(node, 0)?;
        let shape = x.shape();
        let length: usize = shape[axis.min(shape.rank())..].iter().product();
        let rows = x.reshape([shape.numel() / length.max(1), length]);
        let eps = attributes.float("epsilon", 1e-5);
        let mut y = self.trace.push(Op::Standardize { eps }, &[&rows]).reshape(shape.clone());
        let along = |value: Tensor| match channels {
            Some(channels) => value.reshape([&[channels][..], &vec![1; shape.rank() - 2]].concat()),
            None => value,
        };
        if self.has(node, 1) {
            y = y.binary(BinaryKind::Mul, &along(self.input(node, 1)?));
        }
        if self.has(node, 2) {
            y = y.binary(BinaryKind::Add, &along(self.input(node, 2)?));
        }
        Ok(y)
    }

    fn reduce(&self, node: &NodeProto, attributes: &Attributes) -> Result<Tensor, Why> {
        let kind = match node.op_type.as_str() {
            "ReduceSum" => ReduceKind::Sum,
            "ReduceMean" => ReduceKind::Mean,
            "ReduceMax" => ReduceKind::Max,
            "ReduceMin" => ReduceKind::Min,
            "ReduceProd" => ReduceKind::Prod,
            "ReduceSumSquare" => ReduceKind::SumSquare,
            "ReduceL1" => ReduceKind::L1,
            "ReduceL2" => ReduceKind::L2,
            "ReduceLogSumExp" => ReduceKind::LogSumExp,
            _ => return Err("the export does not write it".into()),
        };
        let axes = match attributes.ints("axes") {
            Some(axes) => axes.to_vec(),
            None => self.list(node, 1)?,
        };
        let axes: Vec<isize> = axes.into_iter().map(|axis| axis as isize).collect();
        Ok(self.input(node, 0)?.reduce(kind, &axes, attributes.int("keepdims", 1) == 1))
    }

    fn attrs(&self, attributes: &Attributes) -> Result<ConvAttrs, Why> {
        Ok(ConvAttrs {
            stride: attributes.sizes("strides")?,
            pads: attributes.sizes("pads")?,
            dilation: attributes.sizes("dilations")?,
            groups: usize::try_from(attributes.int("group", 1)).map_err(|error| error.to_string())?,
        })
    }

    fn conv(&self, node: &NodeProto, attributes: &Attributes) -> Result<Tensor, Why> {
        let inputs: Vec<Tensor> =
            (0..node.input.len()).map(|place| self.input(node, place)).collect::<Result<_, _>>()?;
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        Ok(self.trace.push(Op::Conv2d(self.attrs(attributes)?), &inputs))
    }

    fn conv_transpose(&self, node: &NodeProto, attributes: &Attributes) -> Result<Tensor, Why> {
        let (x, weight, attrs) = (self.input(node, 0)?, self.input(node, 1)?, self.attrs(attributes)?);
        let more: [usize; 2] =
            if attributes.ints("output_padding").is_some() { attributes.sizes("output_padding")? } else { [0, 0] };
        let input = [0, 1].map(|axis| {
            let reach = (x.size(2 + axis).max(1) - 1) * attrs.stride[axis]
                + attrs.dilation[axis] * (weight.size(2 + axis).max(1) - 1)
                + 1;
            (reach + more[axis]).saturating_sub(attrs.pads[axis] + attrs.pads[axis + 2])
        });
        let y = self.trace.push(Op::Conv2dInputGrad { attrs, input }, &[&x, &weight]);
        if !self.has(node, 2) {
            return Ok(y);
        }
        let bias = self.input(node, 2)?;
        let channels = bias.size(0);
        Ok(y.binary(BinaryKind::Add, &bias.reshape([channels, 1, 1])))
    }
}
