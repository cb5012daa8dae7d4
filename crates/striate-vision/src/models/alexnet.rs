//! AlexNet (Krizhevsky 2014, the one-GPU version), with torchvision's parameter names.

use super::parts::{Net, flatten};
use super::registry::ModelSpec;
use super::start;
use striate_nn::{AdaptiveAvgPool2d, Conv2d, Dropout, Linear, MaxPool2d, ReLU};

pub(super) static MODELS: &[ModelSpec] =
    &[ModelSpec::new("alexnet", "five convolutions, three linear layers", start::layers, |[channels, ..], classes| {
        alexnet(channels, classes)
    })];

/// Input `[N, C, H, W]` from 63x63 on, output `[N, classes]`.
fn alexnet(channels: usize, classes: usize) -> Net {
    let relu = || ReLU::new().inplace(true);
    let pool = || MaxPool2d::new(3).stride(2);
    let features = Net::new("Sequential")
        .add(Conv2d::new(channels, 64, 11).stride(4).padding(2))
        .add(relu())
        .add(pool())
        .add(Conv2d::new(64, 192, 5).padding(2))
        .add(relu())
        .add(pool())
        .add(Conv2d::new(192, 384, 3).padding(1))
        .add(relu())
        .add(Conv2d::new(384, 256, 3).padding(1))
        .add(relu())
        .add(Conv2d::new(256, 256, 3).padding(1))
        .add(relu())
        .add(pool());
    let classifier = Net::new("Sequential")
        .add(Dropout::new(0.5))
        .add(Linear::new(256 * 6 * 6, 4096))
        .add(relu())
        .add(Dropout::new(0.5))
        .add(Linear::new(4096, 4096))
        .add(relu())
        .add(Linear::new(4096, classes));
    Net::new("AlexNet")
        .named("features", features)
        .named("avgpool", AdaptiveAvgPool2d::new((6, 6)))
        .hidden(flatten())
        .named("classifier", classifier)
}
