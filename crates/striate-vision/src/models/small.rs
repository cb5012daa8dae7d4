use super::registry::ModelSpec;
use super::start;
use striate_graph::Tensor;
use striate_nn::{
    AdaptiveAvgPool2d, Conv2dNormActivation, Linear, MaxPool2d, Module, Path, Sequential, display_module, visit_fields,
};

pub(super) static MODELS: &[ModelSpec] = &[ModelSpec::other(
    "small",
    "six 3x3 convolutions with batch norm, for small pictures",
    start::he,
    |input, classes| Box::new(SmallNet::new(input, classes)),
)
.small([1, 28, 28], 10)];

/// Side from which the stem halves the picture.
const LARGE: usize = 48;

/// A plain net for pictures of about 28x28 to 64x64: three stages of two 3x3 convolutions with batch norm and ReLU (32, 64 and
/// 128 channels), pooled by 2 between them; then the global average and one linear layer. 29 M multiply-adds at 28x28.
///
/// From a side of 48 pixels the first convolution has stride 2. Input `[N, C, H, W]` of any size, output `[N, classes]`.
pub struct SmallNet {
    /// The stages.
    pub features: Sequential,
    /// Global average.
    pub avgpool: AdaptiveAvgPool2d,
    /// To the classes.
    pub fc: Linear,
    path: Path,
}

impl SmallNet {
    /// For pictures `[C, H, W]`.
    pub fn new([channels, height, width]: [usize; 3], classes: usize) -> SmallNet {
        let stride = if height.min(width) >= LARGE { 2 } else { 1 };
        let conv = |from, to| Conv2dNormActivation::new(from, to, 3);
        let features = Sequential::new()
            .add(conv(channels, 32).stride(stride))
            .add(conv(32, 32))
            .add(MaxPool2d::new(2))
            .add(conv(32, 64))
            .add(conv(64, 64))
            .add(MaxPool2d::new(2))
            .add(conv(64, 128))
            .add(conv(128, 128));
        SmallNet { features, avgpool: AdaptiveAvgPool2d::new(1), fc: Linear::new(128, classes), path: Path::default() }
    }
}

impl Module for SmallNet {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.avgpool.call(&self.features.call(x));
        self.fc.call(&x.flatten(1, -1))
    }
    visit_fields!(features, avgpool, fc);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(SmallNet);
