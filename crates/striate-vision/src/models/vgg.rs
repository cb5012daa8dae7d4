use striate_graph::Tensor;
use striate_nn::{
    AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Dropout, Linear, MaxPool2d, Module, Path, ReLU, Sequential, display_module,
    visit_fields,
};

/// Output channels of the five stages.
const WIDTHS: [usize; 5] = [64, 128, 256, 512, 512];

/// A plain deep net of 3x3 convolutions (Simonyan, Zisserman 2014), with torchvision's parameter names. Input `[N, C, H, W]` from
/// 32x32 on, output `[N, classes]`.
pub struct Vgg {
    /// Convolutions, norms, activations and pools.
    pub features: Sequential,
    avgpool: AdaptiveAvgPool2d,
    /// Three linear layers with dropout.
    pub classifier: Sequential,
    path: Path,
}

impl Vgg {
    /// With so many convolutions in each of the five stages.
    pub fn new(stages: [usize; 5], batch_norm: bool, channels: usize, classes: usize) -> Vgg {
        let mut features = Sequential::new();
        let mut from = channels;
        for (convolutions, width) in stages.into_iter().zip(WIDTHS) {
            for _ in 0..convolutions {
                features = features.add(Conv2d::new(from, width, 3).padding(1));
                if batch_norm {
                    features = features.add(BatchNorm2d::new(width));
                }
                features = features.add(ReLU::new());
                from = width;
            }
            features = features.add(MaxPool2d::new(2));
        }
        let classifier = Sequential::new()
            .add(Linear::new(512 * 7 * 7, 4096))
            .add(ReLU::new())
            .add(Dropout::new(0.5))
            .add(Linear::new(4096, 4096))
            .add(ReLU::new())
            .add(Dropout::new(0.5))
            .add(Linear::new(4096, classes));
        Vgg { features, avgpool: AdaptiveAvgPool2d::new((7, 7)), classifier, path: Path::default() }
    }
}

impl Module for Vgg {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.avgpool.call(&self.features.call(x));
        self.classifier.call(&x.flatten(1, -1))
    }
    visit_fields!(features, avgpool, classifier);

    fn class_name(&self) -> String {
        "VGG".to_owned()
    }
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(Vgg);
