//! MNASNet (Tan et al. 2018), with torchvision's parameter names.

use super::parts::{Net, Residual, dropout_linear, flatten, global_average, make_divisible};
use super::registry::ModelSpec;
use super::start;
use striate_nn::{BatchNorm2d, Conv2d, ReLU};

macro_rules! mnasnet {
    ($name:literal, $summary:literal, $alpha:literal, $resize:literal) => {
        ModelSpec::new($name, $summary, start::mnasnet, |i, k| mnasnet($alpha, [i[0], k]))
    };
}

pub(super) static MODELS: &[ModelSpec] = &[
    mnasnet!("mnasnet0_5", "searched inverted residuals, width 0.5", 0.5, 256),
    mnasnet!("mnasnet0_75", "width 0.75", 0.75, 232),
    mnasnet!("mnasnet1_0", "width 1", 1.0, 256),
    mnasnet!("mnasnet1_3", "width 1.3", 1.3, 232),
];

/// Channels at width 1, kernel, stride of the first block, expansion, blocks.
const STACKS: [[usize; 5]; 6] =
    [[24, 3, 2, 3, 3], [40, 5, 2, 3, 3], [80, 5, 2, 6, 3], [96, 3, 1, 6, 2], [192, 5, 2, 6, 4], [320, 3, 1, 6, 1]];

/// Convolution (of `groups` groups) and batch norm, added to a row.
fn conv(row: Net, [from, to]: [usize; 2], [kernel, stride]: [usize; 2], groups: usize) -> Net {
    let layer = Conv2d::new(from, to, kernel).stride(stride).padding(kernel / 2).groups(groups).bias(false);
    row.add(layer).add(BatchNorm2d::new(to).momentum(1.0 - 0.9997))
}

fn relu() -> ReLU {
    ReLU::new().inplace(true)
}

fn block([from, to]: [usize; 2], kernel: usize, stride: usize, expansion: usize) -> Residual {
    let inner = from * expansion;
    let layers = conv(Net::new("Sequential"), [from, inner], [1, 1], 1).add(relu());
    let layers = conv(layers, [inner, inner], [kernel, stride], inner).add(relu());
    let layers = conv(layers, [inner, to], [1, 1], 1);
    Residual::new("_InvertedResidual", ("layers", layers), from == to && stride == 1)
}

/// Input `[N, C, H, W]` of any size, output `[N, classes]`.
fn mnasnet(alpha: f64, [channels, classes]: [usize; 2]) -> Net {
    let width = |channels: usize| make_divisible(channels as f64 * alpha, 8);
    let (stem, mut from) = (width(32), width(16));
    let layers = conv(Net::new("Sequential"), [channels, stem], [3, 2], 1).add(relu());
    let layers = conv(layers, [stem, stem], [3, 1], stem).add(relu());
    let mut layers = conv(layers, [stem, from], [1, 1], 1);
    for [to, kernel, stride, expansion, blocks] in STACKS {
        let to = width(to);
        let mut stack = Net::new("Sequential").add(block([from, to], kernel, stride, expansion));
        for _ in 1..blocks {
            stack = stack.add(block([to, to], kernel, 1, expansion));
        }
        layers = layers.add(stack);
        from = to;
    }
    let layers = conv(layers, [from, 1280], [1, 1], 1).add(relu());
    Net::new("MNASNet")
        .named("layers", layers)
        .hidden(global_average())
        .hidden(flatten())
        .named("classifier", dropout_linear(0.2, 1280, classes))
}
