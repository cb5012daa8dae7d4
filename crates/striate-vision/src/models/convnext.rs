//! ConvNeXt (Liu et al. 2022), with torchvision's parameter names.

use super::parts::Net;
use super::registry::ModelSpec;
use super::start;
use striate_graph::{Array, Parameter, Tensor};
use striate_nn::{
    AdaptiveAvgPool2d, Conv2d, Conv2dNormActivation, Draw, Flatten, GELU, LayerNorm, LayerNorm2d, Linear, Module, Path,
    StochasticDepth, display_module, visit_fields,
};

macro_rules! convnext {
    ($name:literal, $summary:literal, $width:literal, $third:literal, $depth:literal, $resize:literal) => {
        ModelSpec::new($name, $summary, start::convnext, |i, k| convnext([$width, $third], $depth, [i[0], k]))
    };
}

pub(super) static MODELS: &[ModelSpec] = &[
    convnext!("convnext_tiny", "depthwise 7x7, layer norm and GELU; 18 blocks", 96, 9, 0.1, 236),
    convnext!("convnext_small", "36 blocks", 96, 27, 0.4, 230),
    convnext!("convnext_base", "36 blocks, 128 to 1024 channels", 128, 27, 0.5, 232),
    convnext!("convnext_large", "36 blocks, 192 to 1536 channels", 192, 27, 0.5, 232),
];

/// Start of the factor of each block.
const LAYER_SCALE: f32 = 1e-6;
const EPS: f64 = 1e-6;

/// Another order of the axes.
struct Permute {
    axes: [usize; 4],
    path: Path,
}

impl Permute {
    fn new(axes: [usize; 4]) -> Permute {
        Permute { axes, path: Path::default() }
    }
}

impl Module for Permute {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        x.permute(&self.axes)
    }
    visit_fields!();
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

/// Depthwise 7x7, then by pixel a norm and two linear layers, scaled by channel, beside an identity.
struct CNBlock {
    layer_scale: Parameter,
    block: Net,
    stochastic_depth: StochasticDepth,
    path: Path,
}

impl CNBlock {
    fn new(width: usize, depth: f64) -> CNBlock {
        let block = Net::new("Sequential")
            .add(Conv2d::new(width, width, 7).padding(3).groups(width))
            .add(Permute::new([0, 2, 3, 1]))
            .add(LayerNorm::new(width).eps(EPS))
            .add(Linear::new(width, 4 * width))
            .add(GELU::new())
            .add(Linear::new(4 * width, width))
            .add(Permute::new([0, 3, 1, 2]));
        let layer_scale = Parameter::new(Array::full([width, 1, 1], LAYER_SCALE));
        CNBlock { layer_scale, block, stochastic_depth: StochasticDepth::new(depth), path: Path::default() }
    }
}

impl Module for CNBlock {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.block.call(x) * x.trace().parameter(&self.layer_scale);
        self.stochastic_depth.call(&y) + x
    }
    visit_fields!(layer_scale, block, stochastic_depth);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
    fn reset_parameters(&self, _: &Draw) {
        self.layer_scale.update(|scale| *scale = Array::full(scale.shape(), LAYER_SCALE));
    }
}
display_module!(CNBlock);

/// Width of the first stage and blocks of the third. Input `[N, C, H, W]` from 32x32 on, output `[N, classes]`.
fn convnext([width, third]: [usize; 2], depth: f64, [channels, classes]: [usize; 2]) -> Net {
    let norm = |width| LayerNorm2d::new(width).eps(EPS);
    let stages = [3, 3, third, 3];
    let last = (stages.iter().sum::<usize>() - 1) as f64;
    let stem = Conv2dNormActivation::new(channels, width, 4).stride(4).padding(0).norm(norm(width)).no_activation();
    let mut features = Net::new("Sequential").add(stem.bias(true));
    let mut number = 0;
    for (index, blocks) in stages.into_iter().enumerate() {
        let width = width << index;
        if index > 0 {
            let halve = Conv2d::new(width / 2, width, 2).stride(2);
            features = features.add(Net::new("Sequential").add(norm(width / 2)).add(halve));
        }
        let mut stage = Net::new("Sequential");
        for _ in 0..blocks {
            stage = stage.add(CNBlock::new(width, depth * number as f64 / last));
            number += 1;
        }
        features = features.add(stage);
    }
    let width = width << 3;
    let classifier = Net::new("Sequential").add(norm(width)).add(Flatten::new()).add(Linear::new(width, classes));
    Net::new("ConvNeXt")
        .named("features", features)
        .named("avgpool", AdaptiveAvgPool2d::new(1))
        .named("classifier", classifier)
}
