//! Residual nets (He et al. 2015), with torchvision's parameter names.

use striate_graph::Tensor;
use striate_nn::{
    AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Linear, MaxPool2d, Module, Path, ReLU, Sequential, display_module,
    visit_fields,
};

fn conv3x3(from: usize, to: usize, stride: usize) -> Conv2d {
    Conv2d::new(from, to, 3).stride(stride).padding(1).bias(false)
}

fn conv1x1(from: usize, to: usize, stride: usize) -> Conv2d {
    Conv2d::new(from, to, 1).stride(stride).bias(false)
}

/// What brings the input to the block's shape, where it differs.
fn downsample(from: usize, to: usize, stride: usize) -> Option<Sequential> {
    let needed = stride != 1 || from != to;
    needed.then(|| Sequential::new().add(conv1x1(from, to, stride)).add(BatchNorm2d::new(to)))
}

/// Two 3x3 convolutions beside an identity.
pub struct BasicBlock {
    /// 3x3 with the stride.
    pub conv1: Conv2d,
    /// Its norm.
    pub bn1: BatchNorm2d,
    relu: ReLU,
    /// 3x3.
    pub conv2: Conv2d,
    /// Its norm.
    pub bn2: BatchNorm2d,
    /// 1x1 and norm beside them, where the shape changes.
    pub downsample: Option<Sequential>,
    path: Path,
}

impl BasicBlock {
    fn new(from: usize, width: usize, stride: usize) -> BasicBlock {
        BasicBlock {
            conv1: conv3x3(from, width, stride),
            bn1: BatchNorm2d::new(width),
            relu: ReLU::new(),
            conv2: conv3x3(width, width, 1),
            bn2: BatchNorm2d::new(width),
            downsample: downsample(from, width, stride),
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
pub struct Bottleneck {
    /// 1x1 to the width.
    pub conv1: Conv2d,
    /// Its norm.
    pub bn1: BatchNorm2d,
    /// 3x3 with the stride.
    pub conv2: Conv2d,
    /// Its norm.
    pub bn2: BatchNorm2d,
    /// 1x1 to four times the width.
    pub conv3: Conv2d,
    /// Its norm.
    pub bn3: BatchNorm2d,
    relu: ReLU,
    /// 1x1 and norm beside them, where the shape changes.
    pub downsample: Option<Sequential>,
    path: Path,
}

/// Output channels of a [`Bottleneck`] for each of its width.
const EXPANSION: usize = 4;

impl Bottleneck {
    fn new(from: usize, width: usize, stride: usize) -> Bottleneck {
        let to = width * EXPANSION;
        Bottleneck {
            conv1: conv1x1(from, width, 1),
            bn1: BatchNorm2d::new(width),
            conv2: conv3x3(width, width, stride),
            bn2: BatchNorm2d::new(width),
            conv3: conv1x1(width, to, 1),
            bn3: BatchNorm2d::new(to),
            relu: ReLU::new(),
            downsample: downsample(from, to, stride),
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

/// Of what a [`ResNet`] is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResNetSpec {
    /// Blocks in each of the four stages.
    pub blocks: [usize; 4],
    /// [`Bottleneck`]s, else [`BasicBlock`]s.
    pub bottleneck: bool,
    /// A 3x3 stem of stride 1 without pooling, for pictures of about 32x32; else 7x7 of stride 2 and a pool.
    pub small_stem: bool,
}

/// A residual net. Input `[N, C, H, W]` of any size, output `[N, classes]`.
pub struct ResNet {
    /// The stem.
    pub conv1: Conv2d,
    /// Its norm.
    pub bn1: BatchNorm2d,
    relu: ReLU,
    maxpool: Option<MaxPool2d>,
    /// 64 channels.
    pub layer1: Sequential,
    /// 128 channels.
    pub layer2: Sequential,
    /// 256 channels.
    pub layer3: Sequential,
    /// 512 channels.
    pub layer4: Sequential,
    avgpool: AdaptiveAvgPool2d,
    /// To the classes.
    pub fc: Linear,
    path: Path,
}

impl ResNet {
    /// For pictures of so many channels.
    pub fn new(spec: ResNetSpec, channels: usize, classes: usize) -> ResNet {
        let mut from = 64;
        let mut stage = |index: usize| {
            let width = 64 << index;
            let mut layers = Sequential::new();
            for block in 0..spec.blocks[index] {
                let stride = if block == 0 && index > 0 { 2 } else { 1 };
                layers.push(match spec.bottleneck {
                    true => Box::new(Bottleneck::new(from, width, stride)),
                    false => Box::new(BasicBlock::new(from, width, stride)),
                });
                from = if spec.bottleneck { width * EXPANSION } else { width };
            }
            layers
        };
        let (layer1, layer2, layer3, layer4) = (stage(0), stage(1), stage(2), stage(3));
        let conv1 = match spec.small_stem {
            true => conv3x3(channels, 64, 1),
            false => Conv2d::new(channels, 64, 7).stride(2).padding(3).bias(false),
        };
        ResNet {
            conv1,
            bn1: BatchNorm2d::new(64),
            relu: ReLU::new(),
            maxpool: (!spec.small_stem).then(|| MaxPool2d::new(3).stride(2).padding(1)),
            layer1,
            layer2,
            layer3,
            layer4,
            avgpool: AdaptiveAvgPool2d::new((1, 1)),
            fc: Linear::new(from, classes),
            path: Path::default(),
        }
    }
}

impl Module for ResNet {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = self.bn1.call(&self.conv1.call(x)).relu();
        if let Some(pool) = &self.maxpool {
            x = pool.call(&x);
        }
        for stage in [&self.layer1, &self.layer2, &self.layer3, &self.layer4] {
            x = stage.call(&x);
        }
        self.fc.call(&self.avgpool.call(&x).flatten(1, -1))
    }
    visit_fields!(conv1, bn1, relu, maxpool, layer1, layer2, layer3, layer4, avgpool, fc);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(ResNet);
