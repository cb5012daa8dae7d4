//! The layer of a model that tells classes apart, and another one in its place.

use super::model::{Initial, OnnxModel};
use crate::onnx::proto::NodeProto;
use crate::{Error, Result};
use striate_graph::rng::{fill_uniform, stream_key};
use striate_graph::{Array, DType, Parameter, Shape};

/// Operators between the head and the output that leave the classes in their places.
const BEHIND: [&str; 13] = [
    "Softmax",
    "LogSoftmax",
    "Identity",
    "Flatten",
    "Squeeze",
    "Reshape",
    "Cast",
    "Dropout",
    "Relu",
    "GlobalAveragePool",
    "AveragePool",
    "ReduceMean",
    "Add",
];

/// The last product or convolution: the names of its cells, and the axis of the weight that counts the classes.
struct Head {
    node: String,
    weight: String,
    bias: Option<String>,
    axis: usize,
}

impl OnnxModel {
    /// Number of classes that the last linear layer or convolution before the first output tells apart.
    pub fn head_classes(&self) -> Option<usize> {
        let head = self.head()?;
        self.cell(&head.weight)?.shape().get(head.axis).copied()
    }

    /// Puts a fresh layer for so many classes in the place of the head, with PyTorch's initial values, keyed by the seed. Gives a sentence
    /// that says so.
    ///
    /// # Errors
    /// Where the model does not end in a linear layer or a convolution with f32 weights.
    pub fn replace_head(&mut self, classes: usize, seed: u64) -> Result<String> {
        let none = || {
            Error::unsupported(
                self.path(),
                "a model that does not end in a linear layer or a convolution",
                "its head cannot be replaced",
            )
        };
        let head = self.head().ok_or_else(none)?;
        let takes = |cell: &&Parameter| cell.dtype() == DType::F32 && cell.shape().rank() > head.axis;
        let weight = self.cell(&head.weight).filter(takes).ok_or_else(none)?.clone();
        let bias = head.bias.as_ref().and_then(|name| Some((name.clone(), self.cell(name)?.clone())));
        let mut shape = weight.shape().to_vec();
        let old = std::mem::replace(&mut shape[head.axis], classes);
        let inputs = weight.shape().numel().checked_div(old).unwrap_or(0).max(1);
        let bound = 1.0 / (inputs as f32).sqrt();
        self.replace_cell(&head.weight, &weight, fresh(&shape.into(), bound, seed, &weight.name()));
        if let Some((name, bias)) = &bias {
            let shape = bias.shape().iter().map(|&size| if size == old { classes } else { size }).collect::<Vec<_>>();
            self.replace_cell(name, bias, fresh(&shape.into(), bound, seed, &bias.name()));
        }
        let bias = bias.map_or(String::new(), |(_, bias)| format!(" and `{}`", bias.name()));
        Ok(format!(
            "the head `{}` (`{}`{bias}) told {old} classes apart; replaced and initialised for {classes}",
            head.node,
            weight.name()
        ))
    }

    fn cell(&self, name: &str) -> Option<&Parameter> {
        match self.initial.get(name)? {
            Initial::Cell(cell) => Some(cell),
            _ => None,
        }
    }

    fn head(&self) -> Option<Head> {
        let mut name = self.outputs.first()?.clone();
        let mut added = None;
        for _ in 0..self.nodes.len() {
            let node = self.nodes.iter().find(|node| node.output.contains(&name))?;
            let head = |weight: usize, bias: Option<&String>, axis: usize| {
                let node_name = if node.name.is_empty() { &node.output[0] } else { &node.name };
                let weight = node.input.get(weight).filter(|name| self.cell(name).is_some())?.clone();
                Some(Head {
                    node: node_name.clone(),
                    weight,
                    bias: bias.filter(|name| self.cell(name).is_some()).cloned(),
                    axis,
                })
            };
            match node.op_type.as_str() {
                "Gemm" => return head(1, node.input.get(2), usize::from(!is_set(node, "transB"))),
                "MatMul" => return head(1, added.as_ref(), 1),
                "Conv" => return head(1, node.input.get(2), 0),
                "Add" => {
                    let row = node.input.iter().find(|input| self.cell(input).is_some())?.clone();
                    name = node.input.iter().find(|input| **input != row)?.clone();
                    added = Some(row);
                }
                operator if BEHIND.contains(&operator) => name = node.input.first()?.clone(),
                _ => return None,
            }
        }
        None
    }
}

fn is_set(node: &NodeProto, name: &str) -> bool {
    node.attribute.iter().any(|attribute| attribute.name == name && attribute.i == Some(1))
}

/// Uniform between the bounds.
fn fresh(shape: &Shape, bound: f32, seed: u64, name: &str) -> Array {
    let mut values = vec![0.0; shape.numel()];
    fill_uniform(&mut values, stream_key(seed, &format!("head:{name}")), 0, 0);
    values.iter_mut().for_each(|value| *value = (2.0 * *value - 1.0) * bound);
    Array::from_vec(shape, values).expect("as many as the shape says")
}
