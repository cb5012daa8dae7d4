//! GoogLeNet (Szegedy et al. 2014) with batch norm, with torchvision's parameter names.
//!
//! torchvision's net takes pictures normalised for ImageNet and, where it loads its own weights, moves them to mean and
//! deviation 0.5 inside. Here that stands in the preprocessing, and the net takes its input as it is.

use super::parts::{Branches, Net, basic_conv, flatten, global_average};
use super::registry::ModelSpec;
use super::start;
use striate_nn::{AdaptiveAvgPool2d, Dropout, Linear, MaxPool2d, ReLU};

pub(super) static MODELS: &[ModelSpec] =
    &[ModelSpec::new("googlenet", "inception modules, two auxiliary heads in training", start::googlenet, |i, k| {
        googlenet(i[0], k)
    })
    .aux(&["aux1.", "aux2."])];

/// Channels of the branches: 1x1; before and behind the 3x3; before and behind the second 3x3 (5x5 in the paper); behind the pool.
fn inception(from: usize, [one, reduce3, three, reduce5, five, pool]: [usize; 6]) -> Branches {
    let both =
        |reduce, to| Net::new("Sequential").add(basic_conv(from, reduce, 1, 1, 0)).add(basic_conv(reduce, to, 3, 1, 1));
    let pooled = Net::new("Sequential")
        .add(MaxPool2d::new(3).stride(1).padding(1).ceil_mode(true))
        .add(basic_conv(from, pool, 1, 1, 0));
    Branches::new("Inception")
        .row(Net::new("").named("branch1", basic_conv(from, one, 1, 1, 0)))
        .row(Net::new("").named("branch2", both(reduce3, three)))
        .row(Net::new("").named("branch3", both(reduce5, five)))
        .row(Net::new("").named("branch4", pooled))
}

fn auxiliary(from: usize, classes: usize) -> Net {
    Net::new("InceptionAux")
        .hidden(AdaptiveAvgPool2d::new((4, 4)))
        .named("conv", basic_conv(from, 128, 1, 1, 0))
        .hidden(flatten())
        .named("fc1", Linear::new(2048, 1024))
        .hidden(ReLU::new())
        .named("dropout", Dropout::new(0.7))
        .named("fc2", Linear::new(1024, classes))
}

/// Input `[N, C, H, W]` from 15x15 on, output `[N, classes]`.
fn googlenet(channels: usize, classes: usize) -> Net {
    let pool = |kernel: usize| MaxPool2d::new(kernel).stride(2).ceil_mode(true);
    Net::new("GoogLeNet")
        .named("conv1", basic_conv(channels, 64, 7, 2, 3))
        .named("maxpool1", pool(3))
        .named("conv2", basic_conv(64, 64, 1, 1, 0))
        .named("conv3", basic_conv(64, 192, 3, 1, 1))
        .named("maxpool2", pool(3))
        .named("inception3a", inception(192, [64, 96, 128, 16, 32, 32]))
        .named("inception3b", inception(256, [128, 128, 192, 32, 96, 64]))
        .named("maxpool3", pool(3))
        .named("inception4a", inception(480, [192, 96, 208, 16, 48, 64]))
        .named("inception4b", inception(512, [160, 112, 224, 24, 64, 64]))
        .named("inception4c", inception(512, [128, 128, 256, 24, 64, 64]))
        .named("inception4d", inception(512, [112, 144, 288, 32, 64, 64]))
        .named("inception4e", inception(528, [256, 160, 320, 32, 128, 128]))
        .named("maxpool4", pool(2))
        .named("inception5a", inception(832, [256, 160, 320, 32, 128, 128]))
        .named("inception5b", inception(832, [384, 192, 384, 48, 128, 128]))
        .aside("aux1", auxiliary(512, classes), ("inception4a", 0.3))
        .aside("aux2", auxiliary(528, classes), ("inception4d", 0.3))
        .named("avgpool", global_average())
        .hidden(flatten())
        .named("dropout", Dropout::new(0.2))
        .named("fc", Linear::new(1024, classes))
}
