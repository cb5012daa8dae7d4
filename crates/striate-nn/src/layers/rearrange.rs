//! Layers that move elements: padding, shuffles.

use super::plain_layer;
use crate::Path;
use crate::show::{python_float, python_tuple};
use striate_graph::{PadMode, Tensor};

/// Padding in PyTorch's order: the last axis first, e.g. `[left, right, top, bottom]`; negative numbers remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides<const N: usize>([isize; N]);

impl<const N: usize> From<isize> for Sides<N> {
    fn from(size: isize) -> Sides<N> {
        Sides([size; N])
    }
}

impl<const N: usize> From<[isize; N]> for Sides<N> {
    fn from(sides: [isize; N]) -> Sides<N> {
        Sides(sides)
    }
}

macro_rules! pad_layers {
    ($($(#[$doc:meta])* $layer:ident, $sides:literal, $mode:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $layer {
            padding: Sides<$sides>,
            path: Path,
        }
        impl $layer {
            /// By one number at all sides, or by each side's own in PyTorch's order (left, right, top, bottom).
            pub fn new(padding: impl Into<Sides<$sides>>) -> $layer {
                $layer { padding: padding.into(), path: Path::default() }
            }
        }
        plain_layer!($layer, |layer, x| x.pad(&layer.padding.0, $mode), |layer| python_tuple(&layer.padding.0));
    )*};
}

pad_layers! {
    /// Adds zeros around the last two axes.
    ZeroPad2d, 4, PadMode::Constant(0.0);
    /// Mirrors the picture at its border, which is not repeated.
    ReflectionPad2d, 4, PadMode::Reflect;
    /// Repeats the border.
    ReplicationPad2d, 4, PadMode::Replicate;
    /// Continues the picture from its other end.
    CircularPad2d, 4, PadMode::Circular;
    /// Adds zeros at both ends of the last axis.
    ZeroPad1d, 2, PadMode::Constant(0.0);
    /// Mirrors the sequence at its ends, which are not repeated.
    ReflectionPad1d, 2, PadMode::Reflect;
    /// Repeats the ends.
    ReplicationPad1d, 2, PadMode::Replicate;
    /// Continues the sequence from its other end.
    CircularPad1d, 2, PadMode::Circular;
}

macro_rules! constant_pads {
    ($($(#[$doc:meta])* $layer:ident, $sides:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $layer {
            padding: Sides<$sides>,
            value: f64,
            path: Path,
        }
        impl $layer {
            /// By one number at all sides, or by each side's own in PyTorch's order (left, right, top, bottom).
            pub fn new(padding: impl Into<Sides<$sides>>, value: f64) -> $layer {
                $layer { padding: padding.into(), value, path: Path::default() }
            }
        }
        plain_layer!(
            $layer,
            |layer, x| x.pad(&layer.padding.0, PadMode::Constant(layer.value as f32)),
            |layer| format!("padding={}, value={}", python_tuple(&layer.padding.0), python_float(layer.value))
        );
    )*};
}

constant_pads! {
    /// Adds a value around the last two axes.
    ConstantPad2d, 4;
    /// Adds a value at both ends of the last axis.
    ConstantPad1d, 2;
}

/// `torch.nn.functional.pad` as a layer: any number of axes, any mode.
#[derive(Clone, Debug)]
pub struct Pad {
    pad: Vec<isize>,
    mode: PadMode,
    path: Path,
}

impl Pad {
    /// Zeros: pairs (before, after) from the last axis backwards; negative numbers remove.
    pub fn new(pad: impl Into<Vec<isize>>) -> Pad {
        Pad { pad: pad.into(), mode: PadMode::Constant(0.0), path: Path::default() }
    }

    /// What stands there instead of zeros.
    pub fn mode(self, mode: PadMode) -> Pad {
        Pad { mode, ..self }
    }
}
plain_layer!(Pad, |layer, x| x.pad(&layer.pad, layer.mode), |layer| format!(
    "pad={}, mode={:?}",
    python_tuple(&layer.pad),
    layer.mode
));

macro_rules! factor_layers {
    ($($(#[$doc:meta])* $layer:ident { $field:ident }, $new_doc:literal, $record:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $layer {
            $field: usize,
            path: Path,
        }
        impl $layer {
            #[doc = $new_doc]
            pub fn new($field: usize) -> $layer {
                $layer { $field, path: Path::default() }
            }
        }
        plain_layer!(
            $layer,
            |layer, x| if x.is_poisoned() { x.clone() } else { $record(x, layer.$field) },
            |layer| format!(concat!(stringify!($field), "={}"), layer.$field)
        );
    )*};
}

factor_layers! {
    /// `[…, C r², H, W]` to `[…, C, H r, W r]` (Shi et al. 2016).
    PixelShuffle { upscale_factor }, "Makes the map so many times higher and wider.", pixel_shuffle;
    /// `[…, C, H r, W r]` to `[…, C r², H, W]`.
    PixelUnshuffle { downscale_factor }, "Makes the map so many times lower and narrower.", pixel_unshuffle;
    /// Mixes the groups of channels: `[N, g, C / g, …]` transposed (Zhang et al. 2017).
    ChannelShuffle { groups }, "Channels in so many groups.", channel_shuffle;
}

#[track_caller]
fn pixel_shuffle(x: &Tensor, factor: usize) -> Tensor {
    let shape = x.shape();
    let rank = shape.rank();
    if rank < 3 || factor == 0 || !shape[rank - 3].is_multiple_of(factor * factor) {
        let rule = format!("an input of shape {shape} with upscale_factor={factor}");
        let fix = format!("the input must be […, C * {}, H, W]", factor * factor);
        return x.trace().refuse("PixelShuffle", rule, fix);
    }
    let (lead, [c, h, w]) =
        (&shape[..rank - 3], [shape[rank - 3] / (factor * factor), shape[rank - 2], shape[rank - 1]]);
    let n: usize = lead.iter().product();
    let y = x.reshape([n, c, factor, factor, h, w]).permute(&[0, 1, 4, 2, 5, 3]);
    y.reshape([lead, &[c, h * factor, w * factor]].concat())
}

#[track_caller]
fn pixel_unshuffle(x: &Tensor, factor: usize) -> Tensor {
    let shape = x.shape();
    let rank = shape.rank();
    if rank < 3 || factor == 0 || !shape[rank - 2].is_multiple_of(factor) || !shape[rank - 1].is_multiple_of(factor) {
        let rule = format!("an input of shape {shape} with downscale_factor={factor}");
        return x.trace().refuse("PixelUnshuffle", rule, "the factor must divide height and width of […, C, H, W]");
    }
    let (lead, [c, h, w]) = (&shape[..rank - 3], [shape[rank - 3], shape[rank - 2] / factor, shape[rank - 1] / factor]);
    let n: usize = lead.iter().product();
    let y = x.reshape([n, c, h, factor, w, factor]).permute(&[0, 1, 3, 5, 2, 4]);
    y.reshape([lead, &[c * factor * factor, h, w]].concat())
}

#[track_caller]
fn channel_shuffle(x: &Tensor, groups: usize) -> Tensor {
    let shape = x.shape();
    if shape.rank() < 3 || groups == 0 || !shape[1].is_multiple_of(groups) {
        let rule = format!("an input of shape {shape} with groups={groups}");
        return x.trace().refuse("ChannelShuffle", rule, "groups must divide the channels of [N, C, …]");
    }
    let pixels: usize = shape[2..].iter().product();
    let split = x.reshape([shape[0], groups, shape[1] / groups, pixels]);
    split.permute(&[0, 2, 1, 3]).reshape(shape)
}
