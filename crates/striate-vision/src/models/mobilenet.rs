use striate_graph::Tensor;
use striate_nn::{
    AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Conv2dNormActivation, Dropout, Linear, Module, Path, ReLU6, Sequential,
    display_module, visit_fields,
};

/// Expansion, channels, blocks, stride of the first: table 2 of the paper.
const STAGES: [[usize; 4]; 7] =
    [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]];

/// Expand by 1x1, filter each channel by 3x3, project by 1x1 without activation; beside an identity where shapes allow.
pub struct InvertedResidual {
    /// The layers.
    pub conv: Sequential,
    residual: bool,
    path: Path,
}

impl InvertedResidual {
    fn new(from: usize, to: usize, stride: usize, expansion: usize) -> InvertedResidual {
        let hidden = from * expansion;
        let mut conv = Sequential::new();
        if expansion != 1 {
            conv = conv.add(Conv2dNormActivation::new(from, hidden, 1).activation(ReLU6::new()));
        }
        let depthwise = Conv2dNormActivation::new(hidden, hidden, 3).stride(stride).groups(hidden);
        conv = conv
            .add(depthwise.activation(ReLU6::new()))
            .add(Conv2d::new(hidden, to, 1).bias(false))
            .add(BatchNorm2d::new(to));
        InvertedResidual { conv, residual: stride == 1 && from == to, path: Path::default() }
    }
}

impl Module for InvertedResidual {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.conv.call(x);
        if self.residual { x + y } else { y }
    }
    visit_fields!(conv);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(InvertedResidual);

/// MobileNetV2 (Sandler et al. 2018), with torchvision's parameter names. Input `[N, C, H, W]` of any size, output `[N, classes]`.
pub struct MobileNetV2 {
    /// Stem, blocks, and the last 1x1 convolution.
    pub features: Sequential,
    avgpool: AdaptiveAvgPool2d,
    /// Dropout and the linear layer.
    pub classifier: Sequential,
    path: Path,
}

impl MobileNetV2 {
    /// For pictures of so many channels.
    pub fn new(channels: usize, classes: usize) -> MobileNetV2 {
        let stem = Conv2dNormActivation::new(channels, 32, 3).stride(2).activation(ReLU6::new());
        let mut features = Sequential::new().add(stem);
        let mut from = 32;
        for [expansion, to, blocks, stride] in STAGES {
            for block in 0..blocks {
                let stride = if block == 0 { stride } else { 1 };
                features = features.add(InvertedResidual::new(from, to, stride, expansion));
                from = to;
            }
        }
        features = features.add(Conv2dNormActivation::new(from, 1280, 1).activation(ReLU6::new()));
        let classifier = Sequential::new().add(Dropout::new(0.2)).add(Linear::new(1280, classes));
        MobileNetV2 { features, avgpool: AdaptiveAvgPool2d::new(1), classifier, path: Path::default() }
    }
}

impl Module for MobileNetV2 {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.avgpool.call(&self.features.call(x));
        self.classifier.call(&x.flatten(1, -1))
    }
    visit_fields!(features, classifier);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(MobileNetV2);
