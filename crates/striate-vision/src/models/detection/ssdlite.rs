//! SSDLite (Sandler et al. 2018) on MobileNetV3-Large (Howard et al. 2019, section 6.3), with torchvision's parameter names.

use super::anchors::DefaultBoxGenerator;
use super::detector::DetectionNet;
use super::heads::Selection;
use super::picture::PictureTransform;
use super::registry::DetectorShape;
use super::ssd::{Maps, ScoringHead, Ssd, SsdHead};
use crate::models::mobilenet::{large_reduced, split_features_v3};
use crate::models::parts::{Net, Norm};
use striate_graph::Tensor;
use striate_nn::{Conv2d, Conv2dNormActivation, Module, ModuleList, Path, ReLU6, display_module, visit_fields};

const NORM: Norm = Norm::Batch { eps: 1e-3, momentum: 0.03 };

/// Number of the block of MobileNetV3-Large that is cut in two.
const CUT: usize = 13;

/// Convolution, norm and ReLU6.
fn conv(from: usize, to: usize, kernel: usize) -> Conv2dNormActivation {
    Conv2dNormActivation::new(from, to, kernel).norm(NORM.layer(to)).activation(ReLU6::new())
}

/// A depthwise convolution, and a 1x1 to the values.
fn prediction_block(from: usize, to: usize) -> Net {
    Net::new("Sequential").add(conv(from, from, 3).groups(from)).add(Conv2d::new(from, to, 1))
}

/// 1x1 to half as many channels, depthwise with stride 2, 1x1 to `to`.
fn extra_block(from: usize, to: usize) -> Net {
    let inner = to / 2;
    let depthwise = conv(inner, inner, 3).stride(2).groups(inner);
    Net::new("Sequential").add(conv(from, inner, 1)).add(depthwise).add(conv(inner, to, 1))
}

/// The expansion of the last stage, the last convolution, and four blocks behind them.
struct MobileNetMaps {
    features: ModuleList<Net>,
    extra: ModuleList<Net>,
    path: Path,
}

impl Maps for MobileNetMaps {
    #[track_caller]
    fn maps(&self, x: &Tensor) -> Vec<Tensor> {
        let mut x = x.clone();
        let mut maps = Vec::new();
        for block in self.features.modules.iter().chain(&self.extra.modules) {
            x = block.call(&x);
            maps.push(x.clone());
        }
        maps
    }

    /// The second half begins inside a block, behind its expansion.
    fn name_in_classifier(&self, name: &str) -> Option<String> {
        let (half, rest) = name.strip_prefix("features.")?.split_once('.')?;
        let (index, rest) = rest.split_once('.')?;
        let index: usize = index.parse().ok()?;
        match (half, index) {
            ("0", CUT) => Some(format!("{CUT}.block.0.{rest}")),
            ("0", _) => Some(format!("{index}.{rest}")),
            ("1", 0) => Some(format!("{CUT}.block.{rest}")),
            ("1", _) => Some(format!("{}.{rest}", CUT + index)),
            _ => None,
        }
    }
}

impl Module for MobileNetMaps {
    /// The coarsest map.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.maps(x).swap_remove(5)
    }
    visit_fields!(features, extra);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
    fn class_name(&self) -> String {
        "SSDLiteFeatureExtractorMobileNet".to_owned()
    }
}
display_module!(MobileNetMaps);

/// SSDLite of 320 pixels.
pub(super) fn ssdlite320_mobilenet_v3_large(shape: DetectorShape) -> Box<dyn DetectionNet> {
    let [(fine, fine_width), (coarse, coarse_width)] = split_features_v3(&large_reduced(), 3, NORM);
    let widths = [fine_width, coarse_width, 512, 256, 256, 128];
    let extra = widths[1..].windows(2).map(|pair| extra_block(pair[0], pair[1]));
    let backbone = MobileNetMaps {
        features: ModuleList::new(vec![fine, coarse]),
        extra: ModuleList::new(extra.collect()),
        path: Path::default(),
    };
    let boxes = DefaultBoxGenerator::new(vec![vec![2.0, 3.0]; 6], DefaultBoxGenerator::spaced(6, 0.2, 0.95));
    let head = |columns: usize| {
        let blocks = widths.into_iter().zip(boxes.per_pixel());
        let blocks =
            blocks.map(|(from, anchors)| Box::new(prediction_block(from, columns * anchors)) as Box<dyn Module>);
        ScoringHead::new(blocks.collect(), columns)
    };
    Box::new(Ssd {
        head: SsdHead { classification_head: head(shape.classes), regression_head: head(4), family: "SSD" },
        backbone: Box::new(backbone),
        boxes,
        transform: PictureTransform::square(320, [0.5; 3], [0.5; 3]),
        selection: Selection { score: 0.001, iou: 0.55, candidates: 300, most: 300 },
        classes: shape.classes,
        path: Path::default(),
    })
}
