//! SqueezeNet (Iandola et al. 2016), with torchvision's parameter names.

use super::parts::{Branches, Net, flatten};
use super::registry::ModelSpec;
use super::start;
use striate_nn::{AdaptiveAvgPool2d, Conv2d, Dropout, MaxPool2d, ReLU};

pub(super) static MODELS: &[ModelSpec] = &[
    ModelSpec::new(
        "squeezenet1_0",
        "fire modules: squeeze by 1x1, expand by 1x1 and 3x3",
        start::squeezenet,
        |i, k| squeezenet(&V1_0, i[0], k),
    ),
    ModelSpec::new("squeezenet1_1", "squeezenet1_0 at a third of its cost", start::squeezenet, |i, k| {
        squeezenet(&V1_1, i[0], k)
    }),
];

/// Channels and kernel of the stem; squeezed channels of the fire modules, 0 for a pool between them.
struct Version {
    stem: [usize; 2],
    squeezes: [usize; 10],
}

const V1_0: Version = Version { stem: [96, 7], squeezes: [16, 16, 32, 0, 32, 48, 48, 64, 0, 64] };
const V1_1: Version = Version { stem: [64, 3], squeezes: [16, 16, 0, 32, 32, 0, 48, 48, 64, 64] };

fn relu() -> ReLU {
    ReLU::new().inplace(true)
}

/// To `squeeze` channels, then to four times as many by 1x1 and as many again by 3x3.
fn fire(from: usize, squeeze: usize) -> Net {
    let to = 4 * squeeze;
    let row = |name: &str, conv: Conv2d| {
        Net::new("").named(format!("expand{name}"), conv).named(format!("expand{name}_activation"), relu())
    };
    let expand = Branches::new("")
        .row(row("1x1", Conv2d::new(squeeze, to, 1)))
        .row(row("3x3", Conv2d::new(squeeze, to, 3).padding(1)));
    Net::new("Fire").named("squeeze", Conv2d::new(from, squeeze, 1)).named("squeeze_activation", relu()).inline(expand)
}

/// Input `[N, C, H, W]` from 21x21 (1.1: 17x17) on, output `[N, classes]`.
fn squeezenet(version: &Version, channels: usize, classes: usize) -> Net {
    let pool = || MaxPool2d::new(3).stride(2).ceil_mode(true);
    let [mut from, kernel] = version.stem;
    let mut features =
        Net::new("Sequential").add(Conv2d::new(channels, from, kernel).stride(2)).add(relu()).add(pool());
    for squeeze in version.squeezes {
        features = match squeeze {
            0 => features.add(pool()),
            _ => features.add(fire(std::mem::replace(&mut from, 8 * squeeze), squeeze)),
        };
    }
    let classifier = Net::new("Sequential")
        .add(Dropout::new(0.5))
        .add(Conv2d::new(from, classes, 1))
        .add(relu())
        .add(AdaptiveAvgPool2d::new((1, 1)));
    Net::new("SqueezeNet").named("features", features).named("classifier", classifier).hidden(flatten())
}
