//! Activation functions as layers.

use super::plain_layer;
use crate::module::Path;
use crate::show::{python_bool, python_float};
use crate::{Draw, Module, display_module, visit_fields};
use striate_graph::{Array, Parameter, Tensor, UnaryKind};

/// Layers without arguments. `inplace` is only printed, as PyTorch prints it: memory is the planner's.
macro_rules! simple_activations {
    ($($(#[$doc:meta])* $layer:ident => $kind:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub struct $layer {
            inplace: bool,
            path: Path,
        }
        impl $layer {
            /// The layer.
            pub fn new() -> $layer {
                $layer::default()
            }
            /// Printed as PyTorch prints it, without effect: the planner reuses memory by itself.
            pub fn inplace(self, inplace: bool) -> $layer {
                $layer { inplace, ..self }
            }
        }
        plain_layer!($layer, |_layer, x| x.unary($kind), |layer| shown_inplace(layer.inplace).to_owned());
    )*};
}

fn shown_inplace(inplace: bool) -> &'static str {
    if inplace { "inplace=True" } else { "" }
}

simple_activations! {
    /// `max(x, 0)`.
    ReLU => UnaryKind::Relu;
    /// `min(max(x, 0), 6)`.
    ReLU6 => UnaryKind::Clip { min: 0.0, max: 6.0 };
    /// Self-normalising ELU (Klambauer et al. 2017).
    SELU => UnaryKind::Selu;
    /// `x * sigmoid(x)`.
    SiLU => UnaryKind::Silu;
    /// `x * tanh(softplus(x))` (Misra 2019).
    Mish => UnaryKind::Mish;
    /// `x * relu6(x + 3) / 6` (Howard et al. 2019).
    Hardswish => UnaryKind::Hardswish;
    /// `relu6(x + 3) / 6`.
    Hardsigmoid => UnaryKind::Hardsigmoid;
    /// `x / (1 + |x|)`.
    Softsign => UnaryKind::Softsign;
    /// `1 / (1 + e^-x)`.
    Sigmoid => UnaryKind::Sigmoid;
    /// Hyperbolic tangent.
    Tanh => UnaryKind::Tanh;
    /// `log(sigmoid(x))`.
    LogSigmoid => UnaryKind::LogSigmoid;
}

/// `x` where positive, else `negative_slope * x` (0.01).
#[derive(Clone, Debug)]
pub struct LeakyReLU {
    negative_slope: f64,
    inplace: bool,
    path: Path,
}

impl LeakyReLU {
    /// With slope 0.01.
    pub fn new() -> LeakyReLU {
        LeakyReLU { negative_slope: 0.01, inplace: false, path: Path::default() }
    }

    /// The slope below zero.
    pub fn negative_slope(self, negative_slope: f64) -> LeakyReLU {
        LeakyReLU { negative_slope, ..self }
    }

    /// Printed as PyTorch prints it, without effect.
    pub fn inplace(self, inplace: bool) -> LeakyReLU {
        LeakyReLU { inplace, ..self }
    }
}

impl Default for LeakyReLU {
    fn default() -> LeakyReLU {
        LeakyReLU::new()
    }
}
plain_layer!(LeakyReLU, |layer, x| x.unary(UnaryKind::LeakyRelu { slope: layer.negative_slope as f32 }), |layer| {
    let inplace = if layer.inplace { ", inplace=True" } else { "" };
    format!("negative_slope={}{inplace}", python_float(layer.negative_slope))
});

macro_rules! alpha_activations {
    ($($(#[$doc:meta])* $layer:ident => $kind:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $layer {
            alpha: f64,
            path: Path,
        }
        impl $layer {
            /// With alpha 1.
            pub fn new() -> $layer {
                $layer { alpha: 1.0, path: Path::default() }
            }
            /// The alpha of the formula.
            pub fn alpha(self, alpha: f64) -> $layer {
                $layer { alpha, ..self }
            }
        }
        impl Default for $layer {
            fn default() -> $layer {
                $layer::new()
            }
        }
        plain_layer!(
            $layer,
            |layer, x| match layer.alpha == 0.0 {
                true => x.trace().refuse(stringify!($layer), "alpha is 0", "it must not be 0"),
                false => x.unary(UnaryKind::$kind { alpha: layer.alpha as f32 }),
            },
            |layer| format!("alpha={}", python_float(layer.alpha))
        );
    )*};
}

alpha_activations! {
    /// `x` where positive, else `alpha * (e^x - 1)` (Clevert et al. 2015).
    ELU => Elu;
    /// `max(0, x) + min(0, alpha * (e^(x / alpha) - 1))` (Barron 2017).
    CELU => Celu;
}

/// `x * Φ(x)` (Hendrycks, Gimpel 2016), exactly or by its tanh approximation.
#[derive(Clone, Debug, Default)]
pub struct GELU {
    tanh: bool,
    path: Path,
}

impl GELU {
    /// The exact one.
    pub fn new() -> GELU {
        GELU::default()
    }

    /// The approximation by tanh (PyTorch's `approximate='tanh'`).
    pub fn tanh(self) -> GELU {
        GELU { tanh: true, ..self }
    }
}
plain_layer!(
    GELU,
    |layer, x| x.unary(if layer.tanh { UnaryKind::GeluTanh } else { UnaryKind::Gelu }),
    |layer| format!("approximate='{}'", if layer.tanh { "tanh" } else { "none" })
);

/// `min(max(x, min_val), max_val)`, by default between -1 and 1.
#[derive(Clone, Debug)]
pub struct Hardtanh {
    range: [f64; 2],
    path: Path,
}

impl Hardtanh {
    /// Between -1 and 1.
    pub fn new() -> Hardtanh {
        Hardtanh { range: [-1.0, 1.0], path: Path::default() }
    }

    /// Between these.
    pub fn range(self, min_val: f64, max_val: f64) -> Hardtanh {
        Hardtanh { range: [min_val, max_val], ..self }
    }
}

impl Default for Hardtanh {
    fn default() -> Hardtanh {
        Hardtanh::new()
    }
}
plain_layer!(
    Hardtanh,
    |layer, x| {
        let [min, max] = layer.range;
        match max > min {
            true => x.clamp(min as f32, max as f32),
            false => x.trace().refuse("Hardtanh", format!("range from {min} to {max}"), "max_val must be larger"),
        }
    },
    |layer| format!("min_val={}, max_val={}", python_float(layer.range[0]), python_float(layer.range[1]))
);

/// `log(1 + e^(beta x)) / beta`, linear where `beta x > threshold`. Defaults: 1 and 20.
#[derive(Clone, Debug)]
pub struct Softplus {
    beta: f64,
    threshold: f64,
    path: Path,
}

impl Softplus {
    /// With beta 1 and threshold 20.
    pub fn new() -> Softplus {
        Softplus { beta: 1.0, threshold: 20.0, path: Path::default() }
    }

    /// The sharpness.
    pub fn beta(self, beta: f64) -> Softplus {
        Softplus { beta, ..self }
    }

    /// From where it is linear.
    pub fn threshold(self, threshold: f64) -> Softplus {
        Softplus { threshold, ..self }
    }
}

impl Default for Softplus {
    fn default() -> Softplus {
        Softplus::new()
    }
}
plain_layer!(
    Softplus,
    |layer, x| x.unary(UnaryKind::Softplus { beta: layer.beta as f32, threshold: layer.threshold as f32 }),
    |layer| format!("beta={}, threshold={}", python_float(layer.beta), python_float(layer.threshold))
);

/// `x` where positive, else a learned slope times `x`; one slope for all or one a channel (axis 1).
#[derive(Debug)]
pub struct PReLU {
    /// `[num_parameters]`, starts at 0.25.
    pub weight: Parameter,
    init: f64,
    path: Path,
}

impl PReLU {
    /// One slope for all channels.
    pub fn new() -> PReLU {
        PReLU { weight: Parameter::new(Array::full([1], 0.25f32)), init: 0.25, path: Path::default() }
    }

    /// So many slopes: 1, or one for each channel.
    pub fn num_parameters(self, num_parameters: usize) -> PReLU {
        self.weight.update(|w| *w = Array::full([num_parameters], self.init as f32));
        self
    }

    /// The slope at the start.
    pub fn init(self, init: f64) -> PReLU {
        self.weight.update(|w| *w = Array::full(w.shape(), init as f32));
        PReLU { init, ..self }
    }
}

impl Default for PReLU {
    fn default() -> PReLU {
        PReLU::new()
    }
}

impl Module for PReLU {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let slopes = self.weight.shape().numel();
        let shape = x.shape();
        let channels = if shape.rank() >= 2 { shape[1] } else { 1 };
        if slopes != 1 && slopes != channels && !x.is_poisoned() {
            let rule = format!("{slopes} slopes for {channels} channels of an input of shape {shape}");
            return x.trace().refuse("PReLU", rule, format!("num_parameters must be 1 or {channels}"));
        }
        let mut sizes = vec![1; shape.rank()];
        if slopes != 1 {
            sizes[1] = slopes;
        }
        let weight = x.trace().parameter(&self.weight).reshape(sizes);
        // The derivative at 0 is the slope: the condition is strict.
        let positive = x.gt(&x.scalar_like(0.0));
        x.where_(&positive, &(&weight * x))
    }

    visit_fields!(weight);

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn extra_repr(&self) -> String {
        format!("num_parameters={}", self.weight.shape().numel())
    }

    fn reset_parameters(&self, _: &Draw) {
        self.weight.update(|w| *w = Array::full(w.shape(), self.init as f32));
    }
}
display_module!(PReLU);

macro_rules! softmax_layers {
    ($($(#[$doc:meta])* $layer:ident => $method:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $layer {
            dim: isize,
            path: Path,
        }
        impl $layer {
            /// Along axis `dim`; negative counts from the back.
            pub fn new(dim: isize) -> $layer {
                $layer { dim, path: Path::default() }
            }
        }
        plain_layer!($layer, |layer, x| x.$method(layer.dim), |layer| format!("dim={}", layer.dim));
    )*};
}

softmax_layers! {
    /// `e^x / sum(e^x)` along an axis.
    Softmax => softmax;
    /// Logarithm of the softmax along an axis.
    LogSoftmax => log_softmax;
}

/// `p=0.5, inplace=False`: how the layers of dropout print.
pub(super) fn dropout_repr(p: f64, inplace: bool) -> String {
    format!("p={}, inplace={}", python_float(p), python_bool(inplace))
}
