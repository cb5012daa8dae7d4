//! RegNet (Radosavovic et al. 2020), with torchvision's parameter names.

use super::parts::{Net, flatten, make_divisible};
use super::registry::ModelSpec;
use super::start;
use striate_graph::Tensor;
use striate_nn::{
    AdaptiveAvgPool2d, Conv2dNormActivation, Linear, Module, Path, ReLU, SqueezeExcitation, display_module,
    visit_fields,
};

macro_rules! regnet {
    ($name:literal, $summary:literal, $excite:literal, $depth:literal, [$w0:literal, $wa:literal, $wm:literal], $group:literal) => {
        ModelSpec::new($name, $summary, start::regnet, |i, k| {
            let rule = Rule { depth: $depth, start: $w0, slope: $wa, factor: $wm, group: $group, excite: $excite };
            regnet(&rule, [i[0], k])
        })
    };
}

pub(super) static MODELS: &[ModelSpec] = &[
    regnet!("regnet_x_400mf", "widths by a line, groups of 16", false, 22, [24.0, 24.48, 2.54], 16),
    regnet!("regnet_x_800mf", "groups of 16", false, 16, [56.0, 35.73, 2.28], 16),
    regnet!("regnet_x_1_6gf", "groups of 24", false, 18, [80.0, 34.01, 2.25], 24),
    regnet!("regnet_x_3_2gf", "groups of 48", false, 25, [88.0, 26.31, 2.25], 48),
    regnet!("regnet_x_8gf", "groups of 120", false, 23, [80.0, 49.56, 2.88], 120),
    regnet!("regnet_x_16gf", "groups of 128", false, 22, [216.0, 55.59, 2.1], 128),
    regnet!("regnet_x_32gf", "groups of 168", false, 23, [320.0, 69.86, 2.0], 168),
    regnet!("regnet_y_400mf", "with squeeze-excitation, groups of 8", true, 16, [48.0, 27.89, 2.09], 8),
    regnet!("regnet_y_800mf", "groups of 16", true, 14, [56.0, 38.84, 2.4], 16),
    regnet!("regnet_y_1_6gf", "groups of 24", true, 27, [48.0, 20.71, 2.65], 24),
    regnet!("regnet_y_3_2gf", "groups of 24", true, 21, [80.0, 42.63, 2.66], 24),
    regnet!("regnet_y_8gf", "groups of 56", true, 17, [192.0, 76.82, 2.19], 56),
    regnet!("regnet_y_16gf", "groups of 112", true, 18, [200.0, 106.23, 2.48], 112),
    regnet!("regnet_y_32gf", "groups of 232", true, 20, [232.0, 115.89, 2.53], 232),
    regnet!("regnet_y_128gf", "groups of 264", true, 27, [456.0, 160.83, 2.52], 264).side(384),
];

/// Block `i` is `start + slope * i` wide, rounded to a power of `factor` times `start`.
struct Rule {
    depth: usize,
    start: f64,
    slope: f64,
    factor: f64,
    /// Channels of a group.
    group: usize,
    /// With squeeze-excitation.
    excite: bool,
}

impl Rule {
    /// Width and number of blocks of each stage, and the channels of its groups.
    fn stages(&self) -> Vec<[usize; 3]> {
        let width = |block: usize| {
            let power = ((self.start + self.slope * block as f64) / self.start).ln() / self.factor.ln();
            (self.start * self.factor.powi(power.round_ties_even() as i32) / 8.0).round_ties_even() as usize * 8
        };
        let widths: Vec<usize> = (0..self.depth).map(width).collect();
        let stage = |blocks: &[usize]| {
            let group = self.group.min(blocks[0]);
            [make_divisible(blocks[0] as f64, group), blocks.len(), group]
        };
        widths.chunk_by(|a, b| a == b).map(stage).collect()
    }
}

/// 1x1, grouped 3x3 with the stride, squeeze-excitation, 1x1; beside an identity or a 1x1.
struct ResBottleneckBlock {
    proj: Option<Conv2dNormActivation>,
    f: Net,
    activation: ReLU,
    path: Path,
}

impl ResBottleneckBlock {
    fn new(from: usize, to: usize, stride: usize, group: usize, excite: bool) -> ResBottleneckBlock {
        let conv = |from: usize, kernel: usize| {
            Conv2dNormActivation::new(from, to, kernel).activation(ReLU::new().inplace(true))
        };
        let mut f = Net::new("BottleneckTransform")
            .named("a", conv(from, 1))
            .named("b", conv(to, 3).stride(stride).groups(to / group));
        if excite {
            f = f.named("se", SqueezeExcitation::new(to, (from as f64 / 4.0).round_ties_even() as usize));
        }
        let proj = (from != to || stride != 1).then(|| conv(from, 1).stride(stride).no_activation());
        let f = f.named("c", conv(to, 1).no_activation());
        ResBottleneckBlock { proj, f, activation: ReLU::new().inplace(true), path: Path::default() }
    }
}

impl Module for ResBottleneckBlock {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let beside = self.proj.as_ref().map_or_else(|| x.clone(), |proj| proj.call(x));
        self.activation.call(&(beside + self.f.call(x)))
    }
    visit_fields!(proj, f, activation);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(ResBottleneckBlock);

/// Input `[N, C, H, W]` of any size, output `[N, classes]`.
fn regnet(rule: &Rule, [channels, classes]: [usize; 2]) -> Net {
    let mut from = 32;
    let stem = Conv2dNormActivation::new(channels, from, 3).stride(2).activation(ReLU::new().inplace(true));
    let mut trunk = Net::new("Sequential");
    for (index, [to, blocks, group]) in rule.stages().into_iter().enumerate() {
        let number = index + 1;
        let mut stage = Net::new("AnyStage");
        for block in 0..blocks {
            let stride = if block == 0 { 2 } else { 1 };
            let layers = ResBottleneckBlock::new(from, to, stride, group, rule.excite);
            stage = stage.named(format!("block{number}-{block}"), layers);
            from = to;
        }
        trunk = trunk.named(format!("block{number}"), stage);
    }
    Net::new("RegNet")
        .named("stem", stem)
        .named("trunk_output", trunk)
        .named("avgpool", AdaptiveAvgPool2d::new((1, 1)))
        .hidden(flatten())
        .named("fc", Linear::new(from, classes))
}
