//! Dropping values at random in training. The numbers are a function of (run seed, layer path, step, element).

use super::activation::dropout_repr;
use super::plain_layer;
use crate::module::mask;
use crate::show::python_float;
use crate::{Path, Sizes};
use striate_graph::{Mode, Op, Tensor, Windows};

/// What `p` must be, and the shortcuts at its ends: the tensor itself, zeros, or what `drop` makes.
#[track_caller]
fn dropped(class: &str, x: &Tensor, p: f64, drop: impl FnOnce() -> Tensor) -> Tensor {
    if !(0.0..=1.0).contains(&p) {
        return x.trace().refuse(class, format!("p={p}"), "it is a probability: from 0 to 1");
    }
    match x.trace().mode() {
        _ if x.is_poisoned() => x.clone(),
        Mode::Train if p == 1.0 => x * 0.0,
        Mode::Train if p > 0.0 => drop(),
        _ => x.clone(),
    }
}

macro_rules! dropouts {
    ($($(#[$doc:meta])* $layer:ident, $class:literal, |$x:ident| $shape:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $layer {
            p: f64,
            inplace: bool,
            path: Path,
        }
        impl $layer {
            /// Drops with probability `p` (PyTorch's default is 0.5).
            pub fn new(p: f64) -> $layer {
                $layer { p, inplace: false, path: Path::default() }
            }

            /// Printed as PyTorch prints it, without effect.
            pub fn inplace(self, inplace: bool) -> $layer {
                $layer { inplace, ..self }
            }
        }
        impl Default for $layer {
            fn default() -> $layer {
                $layer::new(0.5)
            }
        }
        plain_layer!(
            $layer,
            |layer, $x| dropped($class, $x, layer.p, || $x * mask($x.trace(), "dropout", 1.0 - layer.p, $shape)),
            |layer| dropout_repr(layer.p, layer.inplace)
        );
    )*};
}

/// One element a channel of `[N, C, …]`.
fn per_channel(x: &Tensor) -> Vec<usize> {
    let shape = x.shape();
    shape.iter().enumerate().map(|(axis, size)| if axis < 2 { *size } else { 1 }).collect()
}

dropouts! {
    /// In training each element is 0 with probability `p`, and the rest is divided by `1 - p` (Srivastava et al. 2014).
    Dropout, "Dropout", |x| x.shape();
    /// In training each channel of `[N, C, H, W]` is 0 with probability `p` (Tompson et al. 2014).
    Dropout2d, "Dropout2d", |x| per_channel(x);
}

/// Drops squares of each map (Ghiasi et al. 2018), as `torchvision.ops.DropBlock2d`.
#[derive(Clone, Debug)]
pub struct DropBlock2d {
    p: f64,
    block_size: Sizes,
    eps: f64,
    path: Path,
}

impl DropBlock2d {
    /// Drops about the fraction `p` in squares of `block_size`.
    pub fn new(p: f64, block_size: usize) -> DropBlock2d {
        DropBlock2d { p, block_size: block_size.into(), eps: 1e-6, path: Path::default() }
    }

    /// Added to the sum of what is kept, by which the rest is divided (1e-6).
    pub fn eps(self, eps: f64) -> DropBlock2d {
        DropBlock2d { eps, ..self }
    }

    #[track_caller]
    fn drop(&self, x: &Tensor) -> Tensor {
        let shape = x.shape();
        if shape.rank() != 4 {
            let rule = format!("the input has {} axes, shape {shape}", shape.rank());
            return x.trace().refuse("DropBlock2d", rule, "it must be [N, C, H, W]");
        }
        let (n, c, h, w) = (shape[0], shape[1], shape[2], shape[3]);
        let block = self.block_size.pair()[0].max(1).min(h.min(w));
        let (rows, columns) = (h - block + 1, w - block + 1);
        let gamma = self.p * (h * w) as f64 / ((block * block * rows * columns).max(1)) as f64;
        // 1 where a square begins: what a mask of keep = 1 - gamma drops.
        let seeds = mask(x.trace(), "drop_block", 1.0 - gamma.min(1.0), [n, c, rows, columns]);
        let seeds = seeds.eq(&seeds.scalar_like(0.0)).cast(x.dtype());
        let before = (block / 2) as isize;
        let after = (block - 1 - block / 2) as isize;
        // The squares around the seeds: the seeds stand at the squares' centres.
        let inner = [before, after, before, after];
        let centred = seeds.pad(&inner, striate_graph::PadMode::Constant(0.0));
        let pads = [block - 1 - block / 2, block - 1 - block / 2, block / 2, block / 2];
        let windows =
            Windows::Sliding { kernel: [block, block], stride: [1, 1], pads, dilation: [1, 1], ceil_mode: false };
        let dropped = x.trace().push(Op::MaxPool2d(windows), &[&centred]);
        let keep = dropped.affine(-1.0, 1.0);
        let scale = (keep.sum_all() + self.eps as f32).reciprocal() * (n * c * h * w) as f32;
        x * keep * scale
    }
}
plain_layer!(DropBlock2d, |layer, x| dropped("DropBlock2d", x, layer.p, || layer.drop(x)), |layer| format!(
    "p={}, block_size={}, inplace=False",
    python_float(layer.p),
    layer.block_size
));

/// Drops the whole input, of each sample or of the batch (Huang et al. 2016), as `torchvision.ops.StochasticDepth`.
#[derive(Clone, Debug)]
pub struct StochasticDepth {
    p: f64,
    batch: bool,
    path: Path,
}

impl StochasticDepth {
    /// Mode `row`: each sample is dropped by itself with probability `p`.
    pub fn new(p: f64) -> StochasticDepth {
        StochasticDepth { p, batch: false, path: Path::default() }
    }

    /// Mode `batch`: all samples are dropped together.
    pub fn batch(self) -> StochasticDepth {
        StochasticDepth { batch: true, ..self }
    }
}
plain_layer!(
    StochasticDepth,
    |layer, x| dropped("StochasticDepth", x, layer.p, || {
        let rank = x.shape().rank();
        let samples = if layer.batch { 1 } else { x.size(0) };
        let sizes: Vec<usize> = (0..rank).map(|axis| if axis == 0 { samples } else { 1 }).collect();
        x * mask(x.trace(), "stochastic_depth", 1.0 - layer.p, sizes)
    }),
    |layer| format!("p={}, mode={}", python_float(layer.p), if layer.batch { "batch" } else { "row" })
);
