//! ShuffleNet V2 (Ma et al. 2018), with torchvision's parameter names.

use super::parts::{Branches, Lambda, Net, flatten, global_average};
use super::registry::ModelSpec;
use super::start;
use striate_graph::Tensor;
use striate_nn::{BatchNorm2d, ChannelShuffle, Conv2d, Linear, MaxPool2d, ReLU};

macro_rules! shufflenet {
    ($name:literal, $summary:literal, $widths:expr, $resize:literal) => {
        ModelSpec::new($name, $summary, start::layers, |i, k| shufflenet($widths, [i[0], k]))
    };
}

pub(super) static MODELS: &[ModelSpec] = &[
    shufflenet!("shufflenet_v2_x0_5", "halves that are shuffled, depthwise; width 0.5", [48, 96, 192, 1024], 256),
    shufflenet!("shufflenet_v2_x1_0", "width 1", [116, 232, 464, 1024], 256),
    shufflenet!("shufflenet_v2_x1_5", "width 1.5", [176, 352, 704, 1024], 232),
    shufflenet!("shufflenet_v2_x2_0", "width 2", [244, 488, 976, 2048], 232),
];

/// Blocks of the three stages.
const BLOCKS: [usize; 3] = [4, 8, 4];

fn relu() -> ReLU {
    ReLU::new().inplace(true)
}

fn conv1x1(from: usize, to: usize) -> Conv2d {
    Conv2d::new(from, to, 1).bias(false)
}

fn depthwise(channels: usize, stride: usize) -> Conv2d {
    Conv2d::new(channels, channels, 3).stride(stride).padding(1).bias(false).groups(channels)
}

/// One half of the channels, from `start` halves on.
fn half(start: usize) -> Lambda<impl Fn(&Tensor) -> Tensor> {
    Lambda(move |x: &Tensor| {
        let half = x.size(1) / 2;
        x.narrow(1, start * half, half)
    })
}

/// Two branches, joined and shuffled. At stride 1 the first is one half of the channels as it is.
fn block(from: usize, to: usize, stride: usize) -> Net {
    let width = to / 2;
    let inputs = if stride == 1 { width } else { from };
    let second = Net::new("Sequential")
        .add(conv1x1(inputs, width))
        .add(BatchNorm2d::new(width))
        .add(relu())
        .add(depthwise(width, stride))
        .add(BatchNorm2d::new(width))
        .add(conv1x1(width, width))
        .add(BatchNorm2d::new(width))
        .add(relu());
    let (first, second) = match stride {
        1 => (
            Net::new("").hidden(half(0)).named("branch1", Net::new("Sequential")),
            Net::new("").hidden(half(1)).named("branch2", second),
        ),
        _ => {
            let first = Net::new("Sequential")
                .add(depthwise(from, stride))
                .add(BatchNorm2d::new(from))
                .add(conv1x1(from, width))
                .add(BatchNorm2d::new(width))
                .add(relu());
            (Net::new("").named("branch1", first), Net::new("").named("branch2", second))
        }
    };
    Net::new("InvertedResidual").inline(Branches::new("").row(first).row(second)).hidden(ChannelShuffle::new(2))
}

/// Input `[N, C, H, W]` of any size, output `[N, classes]`.
fn shufflenet([a, b, c, last]: [usize; 4], [channels, classes]: [usize; 2]) -> Net {
    let conv = |conv: Conv2d, to: usize| Net::new("Sequential").add(conv).add(BatchNorm2d::new(to)).add(relu());
    let mut from = 24;
    let stem = Conv2d::new(channels, from, 3).stride(2).padding(1).bias(false);
    let mut net = Net::new("ShuffleNetV2")
        .named("conv1", conv(stem, from))
        .named("maxpool", MaxPool2d::new(3).stride(2).padding(1));
    for (index, (blocks, to)) in BLOCKS.into_iter().zip([a, b, c]).enumerate() {
        let first = Net::new("Sequential").add(block(from, to, 2));
        let stage = (1..blocks).fold(first, |stage, _| stage.add(block(to, to, 1)));
        net = net.named(format!("stage{}", index + 2), stage);
        from = to;
    }
    net.named("conv5", conv(conv1x1(from, last), last))
        .hidden(global_average())
        .hidden(flatten())
        .named("fc", Linear::new(last, classes))
}
