//! RetinaNet (Lin et al. 2017): classes and offsets of nine anchors a pixel by the same layers on all levels of a pyramid; with
//! torchvision's parameter names.

use super::anchors::AnchorGenerator;
use super::boxes::{BoxCoder, clip_to, logit_below, sigmoid};
use super::decoded::{Decoded, Groups, inside};
use super::detector::{DetectionNet, Detections, Frame, RawHeads, detection_module};
use super::heads::{
    BothHeads, ClassificationHead, LevelCandidates, Selection, all_rows, by_picture, four, on_each, sizes_of,
};
use super::losses::{self, BoxLoss};
use super::picture::PictureTransform;
use super::pyramid::{BackboneWithFpn, LastLevel, ResNetPyramid, WIDTH};
use super::registry::DetectorShape;
use super::targets::{AnchorSet, Matching, assign};
use super::trunk::Trunk;
use crate::models::parts::{Net, Norm};
use striate_graph::{Array, Tensor};
use striate_nn::{Conv2d, Conv2dNormActivation, GroupNorm, Module, Path, visit_fields};

const CODER: BoxCoder = BoxCoder::new([1.0; 4]);
/// Convolutions in front of each head.
const DEPTH: usize = 4;
/// What torchvision's names of the heads begin with.
const FAMILY: &str = "RetinaNet";

/// Convolutions, and one to the offsets of all anchors of a pixel.
struct RegressionHead {
    conv: Net,
    bbox_reg: Conv2d,
}

impl Module for RegressionHead {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.bbox_reg.call(&self.conv.call(x))
    }
    visit_fields!(conv, bbox_reg);
    fn class_name(&self) -> String {
        "RetinaNetRegressionHead".to_owned()
    }
}

type Head = BothHeads<ClassificationHead, RegressionHead>;

/// A detector of this kind.
struct RetinaNet {
    backbone: BackboneWithFpn,
    head: Head,
    anchors: AnchorGenerator,
    transform: PictureTransform,
    selection: Selection,
    box_loss: BoxLoss,
    classes: usize,
    path: Path,
}

impl RetinaNet {
    /// The second version has group norm in its heads, and compares boxes by their overlap.
    fn new(backbone: BackboneWithFpn, second: bool, classes: usize) -> RetinaNet {
        let row = || {
            (0..DEPTH).fold(Net::new("Sequential"), |row, _| {
                let conv = Conv2dNormActivation::new(WIDTH, WIDTH, 3);
                row.add(if second { conv.norm(GroupNorm::new(32, WIDTH)) } else { conv.no_norm() })
            })
        };
        // Three sizes an octave.
        let sizes = [32.0, 64.0, 128.0, 256.0, 512.0f64];
        let thirds = |size: f64| (0..3).map(|third| (size * (f64::from(third) / 3.0).exp2()).floor() as f32).collect();
        let anchors = AnchorGenerator::new(sizes.map(thirds).to_vec(), vec![0.5, 1.0, 2.0]);
        let of_pixel = anchors.per_pixel()[0];
        let values = |columns: usize| Conv2d::new(WIDTH, of_pixel * columns, 3).padding(1);
        RetinaNet {
            backbone,
            head: Head {
                classification_head: ClassificationHead { conv: row(), cls_logits: values(classes), family: FAMILY },
                regression_head: RegressionHead { conv: row(), bbox_reg: values(4) },
                family: FAMILY,
            },
            anchors,
            transform: PictureTransform::shorter(800, 1333),
            selection: Selection { score: 0.05, iou: 0.5, candidates: 1000, most: 300 },
            box_loss: if second { BoxLoss::GIoU } else { BoxLoss::L1 },
            classes,
            path: Path::default(),
        }
    }
}

impl DetectionNet for RetinaNet {
    fn transform(&self) -> &PictureTransform {
        &self.transform
    }

    fn classes(&self) -> usize {
        self.classes
    }

    #[track_caller]
    fn heads(&self, x: &Tensor, _: [usize; 2]) -> RawHeads {
        let maps = self.backbone.levels(x);
        let logits = all_rows(&on_each(&self.head.classification_head, &maps), self.classes);
        let offsets = all_rows(&on_each(&self.head.regression_head, &maps), 4);
        RawHeads { outputs: vec![("cls_logits", logits), ("bbox_regression", offsets)], levels: sizes_of(&maps) }
    }

    #[track_caller]
    fn losses(&self, x: &Tensor, truths: [&Tensor; 2]) -> Vec<(&'static str, Tensor)> {
        let batch = [x.size(2), x.size(3)];
        let RawHeads { outputs, levels } = self.heads(x, batch);
        let anchors = self.anchors.anchors(batch, &levels);
        let set = AnchorSet { anchors: &anchors, of_levels: &[], coder: Some(CODER) };
        let assigned = assign(truths, &set, Matching::Overlap { high: 0.5, low: 0.4 });
        let heads = [&outputs[0].1, &outputs[1].1];
        losses::retinanet(heads, &assigned, (self.box_loss, CODER, &anchors))
    }

    /// The background is scored like a class, though training makes it unlikely everywhere.
    fn first_label(&self) -> usize {
        0
    }

    fn selection(&self) -> Selection {
        self.selection
    }

    #[track_caller]
    fn decoded(&self, x: &Tensor, first: usize) -> Decoded {
        let batch = [x.size(2), x.size(3)];
        let RawHeads { outputs, levels } = self.heads(x, batch);
        let anchors = self.anchors.anchors(batch, &levels);
        let boxes = losses::decode(&outputs[1].1, &losses::constant(x, &anchors), CODER);
        let scores = outputs[0].1.sigmoid().narrow(-1, first, self.classes - first);
        let of_pixel = self.anchors.per_pixel()[0];
        let groups = Groups::Levels(levels.iter().map(|[h, w]| h * w * of_pixel).collect());
        Decoded { boxes: inside(&boxes, batch), scores, groups, chosen_from: Vec::new() }
    }

    fn decode(&self, outputs: &[Array], frame: &Frame) -> striate_graph::Result<Vec<Detections>> {
        let anchors = self.anchors.anchors(frame.batch, &frame.levels);
        let of_pixel = self.anchors.per_pixel()[0];
        let chooser = LevelCandidates {
            classes: self.classes,
            anchors: frame.levels.iter().map(|[h, w]| h * w * of_pixel).collect(),
            least_logit: logit_below(self.selection.score),
            selection: self.selection,
        };
        let pictures = by_picture(&outputs[0])?.zip(by_picture(&outputs[1])?);
        let decode =
            |offsets: &[f32], anchor: usize| clip_to(frame.size, CODER.decode(four(offsets, anchor), anchors[anchor]));
        Ok(pictures
            .map(|(logits, offsets)| {
                chooser.choose(logits, |logit, _| sigmoid(logit), |anchor| decode(offsets, anchor))
            })
            .collect())
    }
}
detection_module!(RetinaNet, backbone, head);

/// As in the paper, on a pyramid from stride 8 on.
pub(super) fn retinanet_resnet50_fpn(shape: DetectorShape) -> Box<dyn DetectionNet> {
    let last = LastLevel::p6p7(WIDTH, WIDTH);
    let pyramid = ResNetPyramid { from_layer1: false, last, norm: shape.norm(), fpn_norm: None };
    Box::new(RetinaNet::new(BackboneWithFpn::resnet50(3, pyramid), false, shape.classes))
}

/// As [`retinanet_resnet50_fpn`] on any net, with maps of stride 8 to 32.
pub(super) fn retinanet_on(trunk: &Trunk, classes: usize) -> Box<dyn DetectionNet> {
    Box::new(RetinaNet::new(trunk.backbone(1, LastLevel::p6p7(WIDTH, WIDTH)), false, classes))
}

/// With group norm in the heads, and P6 on the backbone's last map (Zhang et al. 2019).
pub(super) fn retinanet_resnet50_fpn_v2(shape: DetectorShape) -> Box<dyn DetectionNet> {
    let last = LastLevel::p6p7(2048, WIDTH);
    let pyramid = ResNetPyramid { from_layer1: false, last, norm: Norm::BATCH, fpn_norm: None };
    Box::new(RetinaNet::new(BackboneWithFpn::resnet50(3, pyramid), true, shape.classes))
}
