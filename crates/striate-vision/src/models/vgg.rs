//! VGG (Simonyan, Zisserman 2014): plain deep nets of 3x3 convolutions, with torchvision's parameter names.

use super::parts::{Net, flatten};
use super::registry::ModelSpec;
use super::start;
use striate_nn::{AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Dropout, Linear, MaxPool2d, ReLU};

macro_rules! vgg {
    ($name:literal, $summary:literal, $stages:expr, $norm:literal) => {
        ModelSpec::new($name, $summary, start::he_and_small_linear, |i, k| vgg($stages, $norm, [i[0], k]))
    };
}

pub(super) static MODELS: &[ModelSpec] = &[
    vgg!("vgg11", "8 convolutions, 3 linear layers", [1, 1, 2, 2, 2], false),
    vgg!("vgg13", "10 convolutions, 3 linear layers", [2, 2, 2, 2, 2], false),
    vgg!("vgg16", "13 convolutions, 3 linear layers", [2, 2, 3, 3, 3], false),
    vgg!("vgg19", "16 convolutions, 3 linear layers", [2, 2, 4, 4, 4], false),
    vgg!("vgg11_bn", "vgg11 with batch norm", [1, 1, 2, 2, 2], true),
    vgg!("vgg13_bn", "vgg13 with batch norm", [2, 2, 2, 2, 2], true),
    vgg!("vgg16_bn", "vgg16 with batch norm", [2, 2, 3, 3, 3], true),
    vgg!("vgg19_bn", "vgg19 with batch norm", [2, 2, 4, 4, 4], true),
];

/// Output channels of the five stages.
const WIDTHS: [usize; 5] = [64, 128, 256, 512, 512];

/// Input `[N, C, H, W]` from 32x32 on, output `[N, classes]`.
fn vgg(stages: [usize; 5], batch_norm: bool, [channels, classes]: [usize; 2]) -> Net {
    let relu = || ReLU::new().inplace(true);
    let mut features = Net::new("Sequential");
    let mut from = channels;
    for (convolutions, width) in stages.into_iter().zip(WIDTHS) {
        for _ in 0..convolutions {
            features = features.add(Conv2d::new(from, width, 3).padding(1));
            if batch_norm {
                features = features.add(BatchNorm2d::new(width));
            }
            features = features.add(relu());
            from = width;
        }
        features = features.add(MaxPool2d::new(2));
    }
    let classifier = Net::new("Sequential")
        .add(Linear::new(512 * 7 * 7, 4096))
        .add(relu())
        .add(Dropout::new(0.5))
        .add(Linear::new(4096, 4096))
        .add(relu())
        .add(Dropout::new(0.5))
        .add(Linear::new(4096, classes));
    Net::new("VGG")
        .named("features", features)
        .named("avgpool", AdaptiveAvgPool2d::new((7, 7)))
        .hidden(flatten())
        .named("classifier", classifier)
}
