//! A model as a net: a [`Module`] that classifies pictures, so that whatever can be done with a net can be done with it.

use super::layers::{Layer, layers_of};
use super::model::{Dimension, OnnxModel};
use crate::{Error, Result};
use std::sync::Arc;
use striate_graph::{DType, Op, Shape, Tensor, Trace, UnaryKind};
use striate_nn::{Module, Path, Visitor};

/// An ONNX model with one input of pictures, as a net.
///
/// Its `forward` takes f32 `[N, C, H, W]`, whatever the model itself takes: one that wants bytes `[N, H, W, C]` is given 255 times the
/// values. A softmax at the end is left away: nets give scores. A model whose batch the file fixes to one picture is traced picture by
/// picture.
pub struct OnnxNet {
    model: Arc<OnnxModel>,
    layers: Vec<Layer>,
    path: Path,
}

impl OnnxNet {
    /// The net of a model.
    ///
    /// # Errors
    /// A model that does not take one value of four axes, floats or bytes.
    pub fn new(model: Arc<OnnxModel>) -> Result<OnnxNet> {
        let fits = match model.inputs() {
            [input] => {
                let rank = input.shape.as_ref().map_or(4, Vec::len);
                rank == 4 && matches!(input.dtype, DType::F32 | DType::U8)
            }
            _ => false,
        };
        if !fits {
            let inputs = model.inputs().iter().map(|input| format!("{} {}", input.name, input.dtype));
            let what =
                format!("a model with the inputs {} as a net for pictures", inputs.collect::<Vec<_>>().join(", "));
            return Err(Error::unsupported(model.path(), what, "`striate run` takes arrays for any inputs"));
        }
        let layers = layers_of(&model);
        Ok(OnnxNet { model, layers, path: Path::default() })
    }

    /// The model.
    pub fn model(&self) -> &OnnxModel {
        &self.model
    }

    /// Channels, height and width of the pictures, where the file fixes them.
    pub fn picture(&self) -> [Option<usize>; 3] {
        let Some([input]) = self.model.inputs().get(..1) else { return [None; 3] };
        let size = |axis: usize| match input.shape.as_ref().and_then(|shape| shape.get(axis)) {
            Some(Dimension::Size(size)) if *size > 0 => Some(*size),
            _ => None,
        };
        match input.dtype {
            DType::U8 => [size(3), size(1), size(2)],
            _ => [size(1), size(2), size(3)],
        }
    }

    /// True where the model takes bytes `[N, H, W, C]`.
    pub fn takes_bytes(&self) -> bool {
        self.model.inputs().first().is_some_and(|input| input.dtype == DType::U8)
    }

    /// The batch that the file fixes.
    fn fixed_batch(&self) -> Option<usize> {
        match self.model.inputs().first()?.shape.as_ref()?.first()? {
            Dimension::Size(size) => Some(*size),
            _ => None,
        }
    }

    /// What the model takes, of pictures `[N, C, H, W]`.
    fn adapted(&self, x: &Tensor) -> Tensor {
        match self.takes_bytes() {
            true => {
                x.affine(255.0, 0.0).unary(UnaryKind::Round).clamp(0.0, 255.0).cast(DType::U8).permute(&[0, 2, 3, 1])
            }
            false => x.clone(),
        }
    }

    /// The first output on these pictures.
    fn scores(&self, x: &Tensor) -> Result<Tensor> {
        let mut outputs = self.model.trace(x.trace(), &[self.adapted(x)])?;
        if outputs.is_empty() {
            return Err(Error::malformed(self.model.path(), "the graph", "it has no output"));
        }
        let y = outputs.swap_remove(0);
        let before = x.trace().with_graph(|graph| {
            let node = graph.node(y.id());
            let last = node.shape.rank().checked_sub(1);
            match node.op {
                Op::Softmax { axis } if Some(axis) == last => node.inputs.first().copied(),
                _ => None,
            }
        });
        Ok(before.map_or(y, |id| x.trace().at(id)))
    }

    /// Whether the model gives a row for each of so many pictures, though its file fixes another number.
    fn takes(&self, x: &Tensor) -> bool {
        let shape_for = |batch: usize| -> Option<Shape> {
            let trace = Trace::new(x.trace().mode());
            let shape = [&[batch][..], &x.shape()[1..]].concat();
            let y = self.scores(&trace.input("input", shape, DType::F32)).ok()?;
            trace.check().ok()?;
            Some(y.shape())
        };
        match (shape_for(1), shape_for(x.size(0))) {
            (Some(one), Some(many)) if one.rank() > 0 && one.rank() == many.rank() => {
                one[0] == 1 && many[0] == x.size(0) && one[1..] == many[1..]
            }
            _ => false,
        }
    }
}

impl Module for OnnxNet {
    fn forward(&self, x: &Tensor) -> Tensor {
        if x.is_poisoned() {
            return x.clone();
        }
        let batch = x.size(0);
        let single = self.fixed_batch() == Some(1) && batch > 1 && x.shape().rank() == 4 && !self.takes(x);
        let result = match single {
            false => self.scores(x),
            true => {
                let rows = (0..batch).map(|index| self.scores(&x.narrow(0, index, 1))).collect::<Result<Vec<_>>>();
                rows.map(|rows| Tensor::cat(&rows.iter().collect::<Vec<_>>(), 0))
            }
        };
        result.unwrap_or_else(|error| {
            x.trace().refuse("ONNX model", error.to_string(), "see what the file declares with `striate inspect`")
        })
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        self.layers.iter().for_each(|layer| visitor.module(&layer.name, layer));
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn class_name(&self) -> String {
        "OnnxNet".to_owned()
    }
}
