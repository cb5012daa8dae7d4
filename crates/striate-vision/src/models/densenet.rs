//! DenseNet (Huang et al. 2017), with torchvision's parameter names.

use super::parts::{Branches, Net, flatten, global_average};
use super::registry::ModelSpec;
use super::start;
use striate_nn::{AvgPool2d, BatchNorm2d, Conv2d, Linear, MaxPool2d, ReLU};

macro_rules! densenet {
    ($name:literal, $summary:literal, $growth:literal, $blocks:expr, $stem:literal) => {
        ModelSpec::new($name, $summary, start::densenet, |i, k| densenet($growth, $blocks, $stem, [i[0], k]))
    };
}

pub(super) static MODELS: &[ModelSpec] = &[
    densenet!("densenet121", "each layer sees all before it, growth 32", 32, [6, 12, 24, 16], 64),
    densenet!("densenet161", "growth 48, wider", 48, [6, 12, 36, 24], 96),
    densenet!("densenet169", "growth 32, deeper", 32, [6, 12, 32, 32], 64),
    densenet!("densenet201", "growth 32, deepest", 32, [6, 12, 48, 32], 64),
];

/// Channels between the two convolutions of a layer, for each that it adds.
const BOTTLENECK: usize = 4;

fn relu() -> ReLU {
    ReLU::new().inplace(true)
}

/// The input, and `growth` more channels made of it.
fn layer(from: usize, growth: usize) -> Branches {
    let inner = BOTTLENECK * growth;
    let made = Net::new("")
        .named("norm1", BatchNorm2d::new(from))
        .named("relu1", relu())
        .named("conv1", Conv2d::new(from, inner, 1).bias(false))
        .named("norm2", BatchNorm2d::new(inner))
        .named("relu2", relu())
        .named("conv2", Conv2d::new(inner, growth, 3).padding(1).bias(false));
    Branches::new("_DenseLayer").row(Net::new("")).row(made)
}

/// Input `[N, C, H, W]` from 29x29 on, output `[N, classes]`.
fn densenet(growth: usize, blocks: [usize; 4], stem: usize, [channels, classes]: [usize; 2]) -> Net {
    let mut features = Net::new("Sequential")
        .named("conv0", Conv2d::new(channels, stem, 7).stride(2).padding(3).bias(false))
        .named("norm0", BatchNorm2d::new(stem))
        .named("relu0", relu())
        .named("pool0", MaxPool2d::new(3).stride(2).padding(1));
    let mut width = stem;
    for (index, layers) in blocks.into_iter().enumerate() {
        let mut block = Net::new("_DenseBlock");
        for number in 1..=layers {
            block = block.named(format!("denselayer{number}"), layer(width, growth));
            width += growth;
        }
        features = features.named(format!("denseblock{}", index + 1), block);
        if index + 1 < blocks.len() {
            let transition = Net::new("_Transition")
                .named("norm", BatchNorm2d::new(width))
                .named("relu", relu())
                .named("conv", Conv2d::new(width, width / 2, 1).bias(false))
                .named("pool", AvgPool2d::new(2).stride(2));
            features = features.named(format!("transition{}", index + 1), transition);
            width /= 2;
        }
    }
    Net::new("DenseNet")
        .named("features", features.named("norm5", BatchNorm2d::new(width)))
        .hidden(ReLU::new())
        .hidden(global_average())
        .hidden(flatten())
        .named("classifier", Linear::new(width, classes))
}
