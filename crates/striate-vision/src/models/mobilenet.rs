//! MobileNetV2 (Sandler et al. 2018) and V3 (Howard et al. 2019), with torchvision's parameter names.

use super::parts::{Net, Norm, Residual, flatten, global_average, make_divisible};
use super::registry::ModelSpec;
use super::start;
use striate_nn::{
    AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Conv2dNormActivation, Dropout, Hardsigmoid, Hardswish, Linear, Module,
    ReLU, ReLU6, SqueezeExcitation,
};

pub(super) static MODELS: &[ModelSpec] = &[
    ModelSpec::new("mobilenet_v2", "inverted residuals, depthwise", start::he_and_small_linear, |i, k| {
        mobilenet_v2(i[0], k, 0.2)
    }),
    ModelSpec::new(
        "mobilenet_v3_small",
        "with squeeze-excitation and hardswish",
        start::he_and_small_linear,
        |i, k| mobilenet_v3(&SMALL, 1024, [i[0], k]),
    ),
    ModelSpec::new("mobilenet_v3_large", "deeper and wider", start::he_and_small_linear, |i, k| {
        mobilenet_v3(&LARGE, 1280, [i[0], k])
    }),
];

/// Expansion, channels, blocks, stride of the first: table 2 of the second paper.
const STAGES: [[usize; 4]; 7] =
    [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]];

/// Expand by 1x1, filter each channel by 3x3, project by 1x1 without activation; beside an identity where shapes allow.
fn inverted_residual(from: usize, to: usize, stride: usize, expansion: usize) -> Residual {
    let hidden = from * expansion;
    let relu = || ReLU6::new().inplace(true);
    let mut conv = Net::new("Sequential");
    if expansion != 1 {
        conv = conv.add(Conv2dNormActivation::new(from, hidden, 1).activation(relu()));
    }
    let conv = conv
        .add(Conv2dNormActivation::new(hidden, hidden, 3).stride(stride).groups(hidden).activation(relu()))
        .add(Conv2d::new(hidden, to, 1).bias(false))
        .add(BatchNorm2d::new(to));
    Residual::new("InvertedResidual", ("conv", conv), stride == 1 && from == to)
}

/// MobileNetV2 with so much dropout before the classifier (0.2 in the registry). Input `[N, channels, H, W]` of any size, output
/// `[N, classes]`.
pub fn mobilenet_v2(channels: usize, classes: usize, dropout: f64) -> Net {
    let conv =
        |from, to, kernel: usize| Conv2dNormActivation::new(from, to, kernel).activation(ReLU6::new().inplace(true));
    let mut from = 32;
    let mut features = Net::new("Sequential").add(conv(channels, from, 3).stride(2));
    for [expansion, to, blocks, stride] in STAGES {
        for block in 0..blocks {
            features = features.add(inverted_residual(from, to, if block == 0 { stride } else { 1 }, expansion));
            from = to;
        }
    }
    Net::new("MobileNetV2")
        .named("features", features.add(conv(from, 1280, 1)))
        .hidden(global_average())
        .hidden(flatten())
        .named("classifier", Net::new("Sequential").add(Dropout::new(dropout)).add(Linear::new(1280, classes)))
}

/// A block of the third net: input, kernel, expanded, output, squeeze-excitation (1) or not, hardswish (1) or ReLU, stride.
type Block = [usize; 7];

const SMALL: [Block; 11] = [
    [16, 3, 16, 16, 1, 0, 2],
    [16, 3, 72, 24, 0, 0, 2],
    [24, 3, 88, 24, 0, 0, 1],
    [24, 5, 96, 40, 1, 1, 2],
    [40, 5, 240, 40, 1, 1, 1],
    [40, 5, 240, 40, 1, 1, 1],
    [40, 5, 120, 48, 1, 1, 1],
    [48, 5, 144, 48, 1, 1, 1],
    [48, 5, 288, 96, 1, 1, 2],
    [96, 5, 576, 96, 1, 1, 1],
    [96, 5, 576, 96, 1, 1, 1],
];

pub(super) const LARGE: [Block; 15] = [
    [16, 3, 16, 16, 0, 0, 1],
    [16, 3, 64, 24, 0, 0, 2],
    [24, 3, 72, 24, 0, 0, 1],
    [24, 5, 72, 40, 1, 0, 2],
    [40, 5, 120, 40, 1, 0, 1],
    [40, 5, 120, 40, 1, 0, 1],
    [40, 3, 240, 80, 0, 1, 2],
    [80, 3, 200, 80, 0, 1, 1],
    [80, 3, 184, 80, 0, 1, 1],
    [80, 3, 184, 80, 0, 1, 1],
    [80, 3, 480, 112, 1, 1, 1],
    [112, 3, 672, 112, 1, 1, 1],
    [112, 5, 672, 160, 1, 1, 2],
    [160, 5, 960, 160, 1, 1, 1],
    [160, 5, 960, 160, 1, 1, 1],
];

/// How the layers of the third net are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct V3Style {
    /// Dilation keeps the size in the last three blocks.
    pub dilated: bool,
    pub norm: Norm,
}

impl V3Style {
    /// As in the classifiers.
    pub const PLAIN: V3Style = V3Style { dilated: false, norm: Norm::Batch { eps: 1e-3, momentum: 0.01 } };
    /// Of a segmentation net.
    pub const DILATED: V3Style = V3Style { dilated: true, ..V3Style::PLAIN };
}

/// Convolution, norm and hardswish or ReLU.
fn conv_v3(norm: Norm, [from, to, kernel]: [usize; 3], hardswish: bool) -> Conv2dNormActivation {
    let conv = Conv2dNormActivation::new(from, to, kernel).norm(norm.layer(to));
    if hardswish { conv.activation(Hardswish::new()) } else { conv.activation(ReLU::new().inplace(true)) }
}

/// The layers of a block, named from 0 on: expansion (where there is one), depthwise, squeeze-excitation, projection. With
/// dilation, stride 2 keeps the size.
fn layers_v3(block: Block, dilation: usize, norm: Norm) -> Vec<Box<dyn Module>> {
    let [from, kernel, expanded, to, excite, hardswish, stride] = block;
    let hardswish = hardswish == 1;
    let mut layers: Vec<Box<dyn Module>> = Vec::new();
    if expanded != from {
        layers.push(Box::new(conv_v3(norm, [from, expanded, 1], hardswish)));
    }
    let step = if dilation > 1 { 1 } else { stride };
    let depthwise = conv_v3(norm, [expanded, expanded, kernel], hardswish);
    layers.push(Box::new(depthwise.stride(step).dilation(dilation).groups(expanded)));
    if excite == 1 {
        let squeezed = make_divisible((expanded / 4) as f64, 8);
        layers.push(Box::new(SqueezeExcitation::new(expanded, squeezed).scale_activation(Hardsigmoid::new())));
    }
    layers.push(Box::new(conv_v3(norm, [expanded, to, 1], false).no_activation()));
    layers
}

fn block_v3(block: Block, dilation: usize, norm: Norm) -> Residual {
    let [from, _, _, to, _, _, stride] = block;
    let layers = layers_v3(block, dilation, norm).into_iter().fold(Net::new("Sequential"), Net::add);
    Residual::new("InvertedResidual", ("block", layers), stride == 1 && from == to)
}

fn stem_v3(blocks: &[Block], channels: usize, norm: Norm) -> Conv2dNormActivation {
    conv_v3(norm, [channels, blocks[0][0], 3], true).stride(2)
}

/// The last 1x1 convolution.
fn last_v3(blocks: &[Block], norm: Norm) -> Conv2dNormActivation {
    let width = blocks[blocks.len() - 1][3];
    conv_v3(norm, [width, 6 * width, 1], true)
}

/// All before the classifier: stem, blocks named from 1 on, and the last 1x1 convolution.
pub(super) fn features_v3(blocks: &[Block], channels: usize, style: V3Style) -> Net {
    let mut features = Net::new("Sequential").add(stem_v3(blocks, channels, style.norm));
    for (index, block) in blocks.iter().enumerate() {
        let dilation = if style.dilated && index + 3 >= blocks.len() { 2 } else { 1 };
        features = features.add(block_v3(*block, dilation, style.norm));
    }
    features.add(last_v3(blocks, style.norm))
}

/// The features cut inside the third block from the end, behind its expansion, as SSDLite looks at them: both halves, and how
/// many channels each gives. `blocks` must have an expansion there.
pub(super) fn split_features_v3(blocks: &[Block], channels: usize, norm: Norm) -> [(Net, usize); 2] {
    let cut = blocks.len() - 3;
    let mut before = Net::new("Sequential").add(stem_v3(blocks, channels, norm));
    for block in &blocks[..cut] {
        before = before.add(block_v3(*block, 1, norm));
    }
    let mut layers = layers_v3(blocks[cut], 1, norm).into_iter();
    if let Some(expansion) = layers.next() {
        before = before.add(expansion);
    }
    let rest = layers.enumerate().fold(Net::new("Sequential"), |net, (i, layer)| net.named((i + 1).to_string(), layer));
    let mut behind = Net::new("Sequential").add(rest);
    for block in &blocks[cut + 1..] {
        behind = behind.add(block_v3(*block, 1, norm));
    }
    let width = blocks[blocks.len() - 1][3];
    [(before, blocks[cut][2]), (behind.add(last_v3(blocks, norm)), 6 * width)]
}

/// [`LARGE`] with half the channels in its last three blocks, as detectors have it (the paper's table 6).
pub(super) fn large_reduced() -> [Block; 15] {
    let mut blocks = LARGE;
    for block in &mut blocks[12..] {
        block[3] /= 2;
    }
    for block in &mut blocks[13..] {
        (block[0], block[2]) = (block[0] / 2, block[2] / 2);
    }
    blocks
}

/// Input `[N, C, H, W]` of any size, output `[N, classes]`.
fn mobilenet_v3(blocks: &[Block], last: usize, [channels, classes]: [usize; 2]) -> Net {
    let width = 6 * blocks[blocks.len() - 1][3];
    let classifier = Net::new("Sequential")
        .add(Linear::new(width, last))
        .add(Hardswish::new())
        .add(Dropout::new(0.2).inplace(true))
        .add(Linear::new(last, classes));
    Net::new("MobileNetV3")
        .named("features", features_v3(blocks, channels, V3Style::PLAIN))
        .named("avgpool", AdaptiveAvgPool2d::new(1))
        .hidden(flatten())
        .named("classifier", classifier)
}
