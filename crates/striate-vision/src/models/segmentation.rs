//! Segmentation: FCN (Long et al. 2015), DeepLabV3 (Chen et al. 2017) and LR-ASPP (Howard et al. 2019), with torchvision's
//! parameter names. Input `[N, C, H, W]`, output `[N, classes, H, W]`.

use super::mobilenet::{LARGE, V3Style, features_v3};
use super::parts::{Branches, Net};
use super::registry::ModelSpec;
use super::resnet::{ResNetSpec, trunk};
use super::start;
use striate_graph::Tensor;
use striate_nn::{
    AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Dropout, Module, Path, ReLU, Sigmoid, Upsample, Visitor, display_module,
    interpolate, visit_fields,
};

macro_rules! segmenter {
    ($name:literal, $summary:literal, $start:expr, $construct:expr) => {
        ModelSpec::other($name, $summary, $start, $construct).segments().aux(&["aux_classifier."])
    };
}

const RESNET50: ResNetSpec = ResNetSpec::dilated([3, 4, 6, 3]);
const RESNET101: ResNetSpec = ResNetSpec::dilated([3, 4, 23, 3]);

pub(super) static MODELS: &[ModelSpec] = &[
    segmenter!("fcn_resnet50", "convolutions on a dilated ResNet-50", start::resnet_backbone, |i, k| {
        Box::new(Segmenter::fcn(&RESNET50, i[0], k))
    }),
    segmenter!("fcn_resnet101", "convolutions on a dilated ResNet-101", start::resnet_backbone, |i, k| {
        Box::new(Segmenter::fcn(&RESNET101, i[0], k))
    }),
    segmenter!("deeplabv3_resnet50", "pyramid of dilations on ResNet-50", start::resnet_backbone, |i, k| {
        Box::new(Segmenter::deeplab(resnet(&RESNET50, i[0]), k))
    }),
    segmenter!("deeplabv3_resnet101", "pyramid of dilations on ResNet-101", start::resnet_backbone, |i, k| {
        Box::new(Segmenter::deeplab(resnet(&RESNET101, i[0]), k))
    }),
    segmenter!("deeplabv3_mobilenet_v3_large", "pyramid of dilations, mobile", start::mobilenet_backbone, |i, k| {
        Box::new(Segmenter::deeplab(mobilenet(i[0]), k))
    }),
    ModelSpec::other("lraspp_mobilenet_v3_large", "two scales, the smallest", start::mobilenet_backbone, |i, k| {
        Box::new(Lraspp::new(i[0], k))
    })
    .segments(),
];

/// Factor of the auxiliary head's loss.
const AUX: f64 = 0.5;

/// A net whose values inside are looked at: its earlier and its last one that count, with their channels.
struct Backbone {
    net: Net,
    early: (&'static str, usize),
    last: usize,
}

fn resnet(spec: &ResNetSpec, channels: usize) -> Backbone {
    let (net, last) = trunk("IntermediateLayerGetter", spec, channels);
    Backbone { net, early: ("layer3", last / 2), last }
}

fn mobilenet(channels: usize) -> Backbone {
    Backbone { net: features_v3(&LARGE, channels, V3Style::DILATED), early: ("4", 40), last: 960 }
}

impl Backbone {
    /// The early value, and the last.
    #[track_caller]
    fn look(&self, x: &Tensor) -> (Tensor, Tensor) {
        let (last, early) = self.net.walk(x, &[self.early.0]);
        (early.into_iter().next().map_or_else(|| last.clone(), |(_, value)| value), last)
    }
}

#[track_caller]
fn resized(x: &Tensor, like: &Tensor) -> Tensor {
    interpolate(x, &Upsample::new().size([like.size(2), like.size(3)]).mode("bilinear"))
}

/// Convolution without bias, batch norm and ReLU, added to a row.
fn conv_norm(row: Net, conv: Conv2d) -> Net {
    let (_, to) = conv.channels();
    row.add(conv.bias(false)).add(BatchNorm2d::new(to)).add(ReLU::new())
}

fn fcn_head(from: usize, classes: usize) -> Net {
    let inner = from / 4;
    conv_norm(Net::new("FCNHead"), Conv2d::new(from, inner, 3).padding(1))
        .add(Dropout::new(0.1))
        .add(Conv2d::new(inner, classes, 1))
}

/// Channels inside the pyramid.
const PYRAMID: usize = 256;

/// The value at every pixel of the map's average.
struct AsppPooling {
    layers: Net,
}

impl Module for AsppPooling {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        resized(&self.layers.forward(x), x)
    }
    fn visit(&self, visitor: &mut dyn Visitor) {
        self.layers.visit(visitor);
    }
    fn class_name(&self) -> String {
        "ASPPPooling".to_owned()
    }
}

fn deeplab_head(from: usize, classes: usize) -> Net {
    let row = |index: usize, part: Net| Net::new("").named(index.to_string(), part);
    let mut convs =
        Branches::new("ModuleList").row(row(0, conv_norm(Net::new("Sequential"), Conv2d::new(from, PYRAMID, 1))));
    for (index, rate) in [12, 24, 36].into_iter().enumerate() {
        let conv = Conv2d::new(from, PYRAMID, 3).padding(rate).dilation(rate);
        convs = convs.row(row(index + 1, conv_norm(Net::new("ASPPConv"), conv)));
    }
    let pooled = Net::new("Sequential").add(AdaptiveAvgPool2d::new(1));
    let pooling = AsppPooling { layers: conv_norm(pooled, Conv2d::new(from, PYRAMID, 1)) };
    let convs = convs.row(Net::new("").named("4", pooling));
    let project = conv_norm(Net::new("Sequential"), Conv2d::new(5 * PYRAMID, PYRAMID, 1)).add(Dropout::new(0.5));
    let aspp = Net::new("ASPP").named("convs", convs).named("project", project);
    conv_norm(Net::new("DeepLabHead").add(aspp), Conv2d::new(PYRAMID, PYRAMID, 3).padding(1))
        .add(Conv2d::new(PYRAMID, classes, 1))
}

/// A backbone, a head on its last value, and one for training on an earlier value; resized to the input.
struct Segmenter {
    class: &'static str,
    backbone: Backbone,
    classifier: Net,
    aux_classifier: Net,
    path: Path,
}

impl Segmenter {
    fn fcn(spec: &ResNetSpec, channels: usize, classes: usize) -> Segmenter {
        let backbone = resnet(spec, channels);
        let head = fcn_head(backbone.last, classes);
        Segmenter::new("FCN", backbone, head, classes)
    }

    fn deeplab(backbone: Backbone, classes: usize) -> Segmenter {
        let head = deeplab_head(backbone.last, classes);
        Segmenter::new("DeepLabV3", backbone, head, classes)
    }

    fn new(class: &'static str, backbone: Backbone, classifier: Net, classes: usize) -> Segmenter {
        let aux_classifier = fcn_head(backbone.early.1, classes);
        Segmenter { class, backbone, classifier, aux_classifier, path: Path::default() }
    }
}

impl Module for Segmenter {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        resized(&self.classifier.call(&self.backbone.look(x).1), x)
    }

    #[track_caller]
    fn forward_training(&self, x: &Tensor) -> Vec<(Tensor, f64)> {
        let (early, last) = self.backbone.look(x);
        let head = |head: &Net, value: &Tensor| resized(&head.call(value), x);
        vec![(head(&self.classifier, &last), 1.0), (head(&self.aux_classifier, &early), AUX)]
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.module("backbone", &self.backbone.net);
        visitor.module("classifier", &self.classifier);
        visitor.module("aux_classifier", &self.aux_classifier);
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn class_name(&self) -> String {
        self.class.to_owned()
    }
}
display_module!(Segmenter);

/// Channels inside the LR-ASPP head.
const INNER: usize = 128;

struct LrasppHead {
    cbr: Net,
    scale: Net,
    low_classifier: Conv2d,
    high_classifier: Conv2d,
}

impl LrasppHead {
    #[track_caller]
    fn look(&self, low: &Tensor, high: &Tensor) -> Tensor {
        let weighed = self.cbr.call(high) * self.scale.call(high);
        self.low_classifier.call(low) + self.high_classifier.call(&resized(&weighed, low))
    }
}

impl Module for LrasppHead {
    /// It needs two inputs; the net around it gives them.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.look(x, x)
    }
    visit_fields!(cbr, scale, low_classifier, high_classifier);
    fn class_name(&self) -> String {
        "LRASPPHead".to_owned()
    }
}

/// A backbone whose fine and coarse values are both classified.
struct Lraspp {
    backbone: Backbone,
    classifier: LrasppHead,
    path: Path,
}

impl Lraspp {
    fn new(channels: usize, classes: usize) -> Lraspp {
        let backbone = mobilenet(channels);
        let (low, high) = (backbone.early.1, backbone.last);
        let classifier = LrasppHead {
            cbr: conv_norm(Net::new("Sequential"), Conv2d::new(high, INNER, 1)),
            scale: Net::new("Sequential")
                .add(AdaptiveAvgPool2d::new(1))
                .add(Conv2d::new(high, INNER, 1).bias(false))
                .add(Sigmoid::new()),
            low_classifier: Conv2d::new(low, classes, 1),
            high_classifier: Conv2d::new(INNER, classes, 1),
        };
        Lraspp { backbone, classifier, path: Path::default() }
    }
}

impl Module for Lraspp {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let (low, high) = self.backbone.look(x);
        resized(&self.classifier.look(&low, &high), x)
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.module("backbone", &self.backbone.net);
        visitor.module("classifier", &self.classifier);
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn class_name(&self) -> String {
        "LRASPP".to_owned()
    }
}
display_module!(Lraspp);
