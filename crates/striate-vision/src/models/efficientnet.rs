//! EfficientNet (Tan, Le 2019) and EfficientNetV2 (2021), with torchvision's parameter names.

use super::parts::{Net, Residual, dropout_linear, flatten, make_divisible};
use super::registry::ModelSpec;
use super::start;
use striate_nn::{AdaptiveAvgPool2d, BatchNorm2d, Conv2dNormActivation, SiLU, SqueezeExcitation};

macro_rules! b {
    ($name:literal, $summary:literal, $scale:expr, $dropout:literal, $norm:expr, [$side:literal, $resize:literal]) => {
        ModelSpec::new($name, $summary, start::efficientnet, |i, k| {
            efficientnet(&scaled($scale), $norm, $dropout, [i[0], k])
        })
        .side($side)
    };
}

macro_rules! v2 {
    ($name:literal, $summary:literal, $stages:expr, $dropout:literal, $side:literal) => {
        ModelSpec::new($name, $summary, start::efficientnet, |i, k| {
            let net = Scaled { stages: $stages.to_vec(), last: Some(1280) };
            efficientnet(&net, Norm { eps: 1e-3, momentum: 0.1 }, $dropout, [i[0], k])
        })
        .side($side)
    };
}

pub(super) static MODELS: &[ModelSpec] = &[
    b!("efficientnet_b0", "searched inverted residuals with squeeze-excitation", [1.0, 1.0], 0.2, PLAIN, [224, 256]),
    b!("efficientnet_b1", "depth 1.1", [1.0, 1.1], 0.2, PLAIN, [240, 255]),
    b!("efficientnet_b2", "width 1.1, depth 1.2", [1.1, 1.2], 0.3, PLAIN, [288, 288]),
    b!("efficientnet_b3", "width 1.2, depth 1.4", [1.2, 1.4], 0.3, PLAIN, [300, 320]),
    b!("efficientnet_b4", "width 1.4, depth 1.8", [1.4, 1.8], 0.4, PLAIN, [380, 384]),
    b!("efficientnet_b5", "width 1.6, depth 2.2", [1.6, 2.2], 0.4, SLOW, [456, 456]),
    b!("efficientnet_b6", "width 1.8, depth 2.6", [1.8, 2.6], 0.5, SLOW, [528, 528]),
    b!("efficientnet_b7", "width 2, depth 3.1", [2.0, 3.1], 0.5, SLOW, [600, 600]),
    v2!("efficientnet_v2_s", "plain 3x3 in the first stages", V2_S, 0.2, 384),
    v2!("efficientnet_v2_m", "deeper and wider", V2_M, 0.3, 480),
    v2!("efficientnet_v2_l", "deepest and widest", V2_L, 0.4, 480),
];

/// Of the batch norms.
#[derive(Clone, Copy)]
struct Norm {
    eps: f64,
    momentum: f64,
}

const PLAIN: Norm = Norm { eps: 1e-5, momentum: 0.1 };
const SLOW: Norm = Norm { eps: 1e-3, momentum: 0.01 };

/// Probability with which the last block is left out; those before it in proportion.
const STOCHASTIC_DEPTH: f64 = 0.2;

#[derive(Clone, Copy)]
struct Stage {
    /// Expansion and depthwise convolution in one plain 3x3, and no squeeze-excitation.
    fused: bool,
    expansion: usize,
    kernel: usize,
    /// Of the first block.
    stride: usize,
    from: usize,
    to: usize,
    blocks: usize,
}

const fn mb([expansion, kernel, stride, from, to, blocks]: [usize; 6]) -> Stage {
    Stage { fused: false, expansion, kernel, stride, from, to, blocks }
}

const fn fused([expansion, stride, from, to, blocks]: [usize; 5]) -> Stage {
    Stage { fused: true, expansion, kernel: 3, stride, from, to, blocks }
}

const B0: [Stage; 7] = [
    mb([1, 3, 1, 32, 16, 1]),
    mb([6, 3, 2, 16, 24, 2]),
    mb([6, 5, 2, 24, 40, 2]),
    mb([6, 3, 2, 40, 80, 3]),
    mb([6, 5, 1, 80, 112, 3]),
    mb([6, 5, 2, 112, 192, 4]),
    mb([6, 3, 1, 192, 320, 1]),
];

const V2_S: [Stage; 6] = [
    fused([1, 1, 24, 24, 2]),
    fused([4, 2, 24, 48, 4]),
    fused([4, 2, 48, 64, 4]),
    mb([4, 3, 2, 64, 128, 6]),
    mb([6, 3, 1, 128, 160, 9]),
    mb([6, 3, 2, 160, 256, 15]),
];

const V2_M: [Stage; 7] = [
    fused([1, 1, 24, 24, 3]),
    fused([4, 2, 24, 48, 5]),
    fused([4, 2, 48, 80, 5]),
    mb([4, 3, 2, 80, 160, 7]),
    mb([6, 3, 1, 160, 176, 14]),
    mb([6, 3, 2, 176, 304, 18]),
    mb([6, 3, 1, 304, 512, 5]),
];

const V2_L: [Stage; 7] = [
    fused([1, 1, 32, 32, 4]),
    fused([4, 2, 32, 64, 7]),
    fused([4, 2, 64, 96, 7]),
    mb([4, 3, 2, 96, 192, 10]),
    mb([6, 3, 1, 192, 224, 19]),
    mb([6, 3, 2, 224, 384, 25]),
    mb([6, 3, 1, 384, 640, 7]),
];

struct Scaled {
    stages: Vec<Stage>,
    /// Channels before the classifier; else four times those of the last stage.
    last: Option<usize>,
}

/// The first net, wider and deeper.
fn scaled([width, depth]: [f64; 2]) -> Scaled {
    let channels = |channels: usize| make_divisible(channels as f64 * width, 8);
    let scale = |stage: &Stage| Stage {
        from: channels(stage.from),
        to: channels(stage.to),
        blocks: (stage.blocks as f64 * depth).ceil() as usize,
        ..*stage
    };
    Scaled { stages: B0.iter().map(scale).collect(), last: None }
}

fn conv(from: usize, to: usize, kernel: usize, norm: Norm) -> Conv2dNormActivation {
    Conv2dNormActivation::new(from, to, kernel)
        .norm(BatchNorm2d::new(to).eps(norm.eps).momentum(norm.momentum))
        .activation(SiLU::new().inplace(true))
}

fn block(stage: &Stage, norm: Norm, depth: f64) -> Residual {
    let Stage { fused, expansion, kernel, stride, from, to, .. } = *stage;
    let inner = make_divisible((from * expansion) as f64, 8);
    let mut layers = Net::new("Sequential");
    if fused {
        let first = if inner == from { to } else { inner };
        layers = layers.add(conv(from, first, kernel, norm).stride(stride));
    } else {
        if inner != from {
            layers = layers.add(conv(from, inner, 1, norm));
        }
        let excitation = SqueezeExcitation::new(inner, (from / 4).max(1)).activation(SiLU::new().inplace(true));
        layers = layers.add(conv(inner, inner, kernel, norm).stride(stride).groups(inner)).add(excitation);
    }
    if !fused || inner != from {
        layers = layers.add(conv(inner, to, 1, norm).no_activation());
    }
    let class = if fused { "FusedMBConv" } else { "MBConv" };
    Residual::new(class, ("block", layers), stride == 1 && from == to).stochastic_depth(depth)
}

/// Input `[N, C, H, W]` of any size, output `[N, classes]`.
fn efficientnet(net: &Scaled, norm: Norm, dropout: f64, [channels, classes]: [usize; 2]) -> Net {
    let stem = net.stages[0].from;
    let mut features = Net::new("Sequential").add(conv(channels, stem, 3, norm).stride(2));
    let total = net.stages.iter().map(|stage| stage.blocks).sum::<usize>() as f64;
    let (mut number, mut width) = (0, stem);
    for stage in &net.stages {
        let mut blocks = Net::new("Sequential");
        for index in 0..stage.blocks {
            let rest = Stage { stride: 1, from: stage.to, ..*stage };
            let depth = STOCHASTIC_DEPTH * number as f64 / total;
            blocks = blocks.add(block(if index == 0 { stage } else { &rest }, norm, depth));
            number += 1;
        }
        features = features.add(blocks);
        width = stage.to;
    }
    let last = net.last.unwrap_or(4 * width);
    Net::new("EfficientNet")
        .named("features", features.add(conv(width, last, 1, norm)))
        .named("avgpool", AdaptiveAvgPool2d::new(1))
        .hidden(flatten())
        .named("classifier", dropout_linear(dropout, last, classes))
}
