//! Residual nets (He et al. 2015), ResNeXt (Xie et al. 2017) and wide ones (Zagoruyko, Komodakis 2016), with torchvision's
//! parameter names.

use super::parts::{Net, Norm, flatten};
use super::registry::ModelSpec;
use super::start;
use striate_graph::Tensor;
use striate_nn::{
    AdaptiveAvgPool2d, Conv2d, Linear, MaxPool2d, Module, Path, ReLU, Sequential, display_module, visit_fields,
};

macro_rules! resnet {
    ($name:literal, $summary:literal, $spec:expr, $resize:literal) => {
        ModelSpec::new($name, $summary, start::he, |i, k| resnet(&$spec, [i[0], k]))
    };
}

/// For 32x32.
pub(super) static CIFAR: &[ModelSpec] = &[resnet!(
    "resnet18_cifar",
    "ResNet-18 with a 3x3 stem, for 32x32",
    ResNetSpec { small_stem: true, ..ResNetSpec::basic([2, 2, 2, 2]) },
    256
)
.small([3, 32, 32], 10)];

pub(super) static MODELS: &[ModelSpec] = &[
    resnet!("resnet18", "residual net of 18 layers", ResNetSpec::basic([2, 2, 2, 2]), 256),
    resnet!("resnet34", "residual net of 34 layers", ResNetSpec::basic([3, 4, 6, 3]), 256),
    resnet!("resnet50", "residual net of 50 layers", ResNetSpec::bottleneck([3, 4, 6, 3]), 232),
    resnet!("resnet101", "residual net of 101 layers", ResNetSpec::bottleneck([3, 4, 23, 3]), 232),
    resnet!("resnet152", "residual net of 152 layers", ResNetSpec::bottleneck([3, 8, 36, 3]), 232),
    resnet!("resnext50_32x4d", "32 groups of 4", ResNetSpec::grouped([3, 4, 6, 3], 32, 4), 232),
    resnet!("resnext101_32x8d", "32 groups of 8", ResNetSpec::grouped([3, 4, 23, 3], 32, 8), 232),
    resnet!("resnext101_64x4d", "64 groups of 4", ResNetSpec::grouped([3, 4, 23, 3], 64, 4), 232),
    resnet!("wide_resnet50_2", "3x3 twice as wide", ResNetSpec::grouped([3, 4, 6, 3], 1, 128), 232),
    resnet!("wide_resnet101_2", "3x3 twice as wide", ResNetSpec::grouped([3, 4, 23, 3], 1, 128), 232),
];

fn conv3x3(from: usize, to: usize, stride: usize) -> Conv2d {
    Conv2d::new(from, to, 3).stride(stride).padding(1).bias(false)
}

fn conv1x1(from: usize, to: usize, stride: usize) -> Conv2d {
    Conv2d::new(from, to, 1).stride(stride).bias(false)
}

/// What brings the input to the block's shape, where it differs.
fn downsample(norm: Norm, from: usize, to: usize, stride: usize) -> Option<Sequential> {
    let needed = stride != 1 || from != to;
    needed.then(|| Sequential::new().add(conv1x1(from, to, stride)).add(norm.layer(to)))
}

/// Two 3x3 convolutions beside an identity.
struct BasicBlock {
    /// 3x3 with the stride.
    conv1: Conv2d,
    /// Its norm.
    bn1: Box<dyn Module>,
    relu: ReLU,
    /// 3x3.
    conv2: Conv2d,
    /// Its norm.
    bn2: Box<dyn Module>,
    /// 1x1 and norm beside them, where the shape changes.
    downsample: Option<Sequential>,
    path: Path,
}

impl BasicBlock {
    fn new(norm: Norm, from: usize, width: usize, stride: usize) -> BasicBlock {
        BasicBlock {
            conv1: conv3x3(from, width, stride),
            bn1: norm.layer(width),
            relu: ReLU::new().inplace(true),
            conv2: conv3x3(width, width, 1),
            bn2: norm.layer(width),
            downsample: downsample(norm, from, width, stride),
            path: Path::default(),
        }
    }
}

impl Module for BasicBlock {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.bn1.call(&self.conv1.call(x)).relu();
        let y = self.bn2.call(&self.conv2.call(&y));
        let beside = self.downsample.as_ref().map_or_else(|| x.clone(), |layers| layers.call(x));
        (y + beside).relu()
    }
    visit_fields!(conv1, bn1, relu, conv2, bn2, downsample);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(BasicBlock);

/// 1x1, 3x3 and 1x1 beside an identity; the stride is on the 3x3, as in torchvision.
struct Bottleneck {
    /// 1x1 to the width.
    conv1: Conv2d,
    /// Its norm.
    bn1: Box<dyn Module>,
    /// 3x3 with the stride.
    conv2: Conv2d,
    /// Its norm.
    bn2: Box<dyn Module>,
    /// 1x1 to four times the width.
    conv3: Conv2d,
    /// Its norm.
    bn3: Box<dyn Module>,
    relu: ReLU,
    /// 1x1 and norm beside them, where the shape changes.
    downsample: Option<Sequential>,
    path: Path,
}

/// Output channels of a [`Bottleneck`] for each of its width.
const EXPANSION: usize = 4;

impl Bottleneck {
    fn new(spec: &ResNetSpec, from: usize, plane: usize, [stride, dilation]: [usize; 2]) -> Bottleneck {
        let (width, to) = (plane * spec.width / 64 * spec.groups, plane * EXPANSION);
        let conv2 = Conv2d::new(width, width, 3).stride(stride).padding(dilation).dilation(dilation);
        Bottleneck {
            conv1: conv1x1(from, width, 1),
            bn1: spec.norm.layer(width),
            conv2: conv2.groups(spec.groups).bias(false),
            bn2: spec.norm.layer(width),
            conv3: conv1x1(width, to, 1),
            bn3: spec.norm.layer(to),
            relu: ReLU::new().inplace(true),
            downsample: downsample(spec.norm, from, to, stride),
            path: Path::default(),
        }
    }
}

impl Module for Bottleneck {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.bn1.call(&self.conv1.call(x)).relu();
        let y = self.bn2.call(&self.conv2.call(&y)).relu();
        let y = self.bn3.call(&self.conv3.call(&y));
        let beside = self.downsample.as_ref().map_or_else(|| x.clone(), |layers| layers.call(x));
        (y + beside).relu()
    }
    visit_fields!(conv1, bn1, conv2, bn2, conv3, bn3, relu, downsample);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(Bottleneck);

/// Of what a residual net is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResNetSpec {
    /// Blocks in each of the four stages.
    blocks: [usize; 4],
    /// [`Bottleneck`]s, else [`BasicBlock`]s.
    bottleneck: bool,
    /// A 3x3 stem of stride 1 without pooling, for pictures of about 32x32; else 7x7 of stride 2 and a pool.
    small_stem: bool,
    /// Groups of the 3x3 in a bottleneck.
    groups: usize,
    /// Channels of each group in the first stage.
    width: usize,
    /// Dilation instead of stride in the last two stages.
    dilated: bool,
    norm: Norm,
}

impl ResNetSpec {
    const fn basic(blocks: [usize; 4]) -> ResNetSpec {
        let (bottleneck, small_stem, dilated, norm) = (false, false, false, Norm::BATCH);
        ResNetSpec { blocks, bottleneck, small_stem, groups: 1, width: 64, dilated, norm }
    }

    /// Of bottlenecks.
    pub const fn bottleneck(blocks: [usize; 4]) -> ResNetSpec {
        ResNetSpec { bottleneck: true, ..ResNetSpec::basic(blocks) }
    }

    const fn grouped(blocks: [usize; 4], groups: usize, width: usize) -> ResNetSpec {
        ResNetSpec { groups, width, ..ResNetSpec::bottleneck(blocks) }
    }

    /// With another norm.
    pub const fn norm(self, norm: Norm) -> ResNetSpec {
        ResNetSpec { norm, ..self }
    }

    /// Of a segmentation net.
    pub const fn dilated(blocks: [usize; 4]) -> ResNetSpec {
        ResNetSpec { dilated: true, ..ResNetSpec::bottleneck(blocks) }
    }
}

/// A stage of 64, 128, 256 or 512 channels (times 4 behind bottlenecks).
fn stage(spec: &ResNetSpec, index: usize, from: &mut usize) -> Sequential {
    let plane = 64 << index;
    // Dilation takes the place of the stride of its stage; the first block still sees that of the stage before.
    let (first, rest) = match (spec.dilated, index) {
        (true, 2) => ([1, 1], 2),
        (true, 3) => ([1, 2], 4),
        (_, 0) => ([1, 1], 1),
        _ => ([2, 1], 1),
    };
    let mut layers = Sequential::new();
    for block in 0..spec.blocks[index] {
        let step = if block == 0 { first } else { [1, rest] };
        layers.push(match spec.bottleneck {
            true => Box::new(Bottleneck::new(spec, *from, plane, step)),
            false => Box::new(BasicBlock::new(spec.norm, *from, plane, step[0])),
        });
        *from = if spec.bottleneck { plane * EXPANSION } else { plane };
    }
    layers
}

/// Stem and stages, named `conv1` … `layer4`, and the number of channels that come out.
pub(super) fn trunk(class: &'static str, spec: &ResNetSpec, channels: usize) -> (Net, usize) {
    let conv1 = match spec.small_stem {
        true => conv3x3(channels, 64, 1),
        false => Conv2d::new(channels, 64, 7).stride(2).padding(3).bias(false),
    };
    let mut net = Net::new(class)
        .named("conv1", conv1)
        .named("bn1", spec.norm.layer(64))
        .named("relu", ReLU::new().inplace(true));
    if !spec.small_stem {
        net = net.named("maxpool", MaxPool2d::new(3).stride(2).padding(1));
    }
    let mut width = 64;
    for index in 0..4 {
        net = net.named(format!("layer{}", index + 1), stage(spec, index, &mut width));
    }
    (net, width)
}

/// Input `[N, C, H, W]` of any size, output `[N, classes]`.
fn resnet(spec: &ResNetSpec, [channels, classes]: [usize; 2]) -> Net {
    let (net, width) = trunk("ResNet", spec, channels);
    net.named("avgpool", AdaptiveAvgPool2d::new((1, 1))).hidden(flatten()).named("fc", Linear::new(width, classes))
}
