use super::plain_layer;
use crate::show::python_bool;
use crate::{Draw, Module, Path, display_module, visit_fields};
use striate_graph::{Parameter, Tensor};

/// `y = x Wᵀ + b` over the last axis.
///
/// Weight `[out, in]` and bias `[out]` start uniform within `1 / sqrt(in)`.
///
/// ```
/// use striate_nn::{Linear, Module};
/// use striate_graph::Mode;
/// let graph = Linear::new(7, 5).graph(Mode::Eval, &[4, 7])?;
/// # Ok::<(), striate_nn::Error>(())
/// ```
#[derive(Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Parameter,
    /// `[out]`.
    pub bias: Option<Parameter>,
    sizes: [usize; 2],
    draw: Draw,
    path: Path,
}

impl Linear {
    /// From `in_features` to `out_features`, with bias.
    pub fn new(in_features: usize, out_features: usize) -> Linear {
        let draw = Draw::next();
        let bound = bound(in_features);
        let weight = Parameter::new(draw.uniform("weight", [out_features, in_features], -bound, bound));
        let layer = Linear { weight, bias: None, sizes: [in_features, out_features], draw, path: Path::default() };
        layer.bias(true)
    }

    /// With or without bias.
    pub fn bias(mut self, bias: bool) -> Linear {
        let bound = bound(self.sizes[0]);
        let values = || Parameter::new(self.draw.uniform("bias", [self.sizes[1]], -bound, bound));
        self.bias = bias.then(values);
        self
    }
}

/// PyTorch's `kaiming_uniform_(a = sqrt(5))` comes to this.
pub(super) fn bound(fan_in: usize) -> f64 {
    1.0 / (fan_in.max(1) as f64).sqrt()
}

impl Module for Linear {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let trace = x.trace();
        let shape = x.shape();
        let [inputs, outputs] = self.sizes;
        if !x.is_poisoned() && shape.last() != Some(&inputs) {
            let last = shape.last().map_or("nothing".to_owned(), usize::to_string);
            let rule = format!("the input {shape} has {last} features on its last axis, the layer takes {inputs}");
            let fix = match shape.rank() {
                0 | 1 => format!("the input needs {inputs} features"),
                2 => format!("the layer needs in_features={last}"),
                _ => {
                    let flat: usize = shape[1..].iter().product();
                    format!("the layer needs in_features={last}, or {flat} behind a Flatten")
                }
            };
            return trace.refuse("Linear", rule, fix);
        }
        let weight = trace.parameter(&self.weight);
        let bias = self.bias.as_ref().map(|b| trace.parameter(b));
        if shape.rank() == 1 {
            return x.reshape([1, inputs]).linear(&weight, bias.as_ref()).reshape([outputs]);
        }
        x.linear(&weight, bias.as_ref())
    }

    visit_fields!(weight, bias);

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn extra_repr(&self) -> String {
        let [inputs, outputs] = self.sizes;
        format!("in_features={inputs}, out_features={outputs}, bias={}", python_bool(self.bias.is_some()))
    }

    fn reset_parameters(&self, draw: &Draw) {
        let bound = bound(self.sizes[0]);
        self.weight.update(|w| *w = draw.uniform("weight", w.shape(), -bound, bound));
        if let Some(bias) = &self.bias {
            bias.update(|b| *b = draw.uniform("bias", b.shape(), -bound, bound));
        }
    }
}
display_module!(Linear);

/// Joins axes into one.
#[derive(Clone, Debug)]
pub struct Flatten {
    start_dim: isize,
    end_dim: isize,
    path: Path,
}

impl Flatten {
    /// All axes but the batch.
    pub fn new() -> Flatten {
        Flatten { start_dim: 1, end_dim: -1, path: Path::default() }
    }

    /// The first of the axes that are joined; negative counts from the back.
    pub fn start_dim(self, start_dim: isize) -> Flatten {
        Flatten { start_dim, ..self }
    }

    /// The last of the axes that are joined; negative counts from the back.
    pub fn end_dim(self, end_dim: isize) -> Flatten {
        Flatten { end_dim, ..self }
    }
}

impl Default for Flatten {
    fn default() -> Flatten {
        Flatten::new()
    }
}
plain_layer!(Flatten, |layer, x| x.flatten(layer.start_dim, layer.end_dim), |layer| format!(
    "start_dim={}, end_dim={}",
    layer.start_dim, layer.end_dim
));

/// Gives its input.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    path: Path,
}

impl Identity {
    /// The layer.
    pub fn new() -> Identity {
        Identity::default()
    }
}
plain_layer!(Identity, |_layer, x| x.clone(), |_layer| String::new());
