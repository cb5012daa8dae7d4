//! FCOS (Tian et al. 2019, 2020): each pixel of a pyramid's levels says how far the sides of its box are, and how near it is to the
//! box's centre; with torchvision's parameter names.

use super::anchors::AnchorGenerator;
use super::boxes::{SideCoder, clip_to, logit_below, sigmoid};
use super::decoded::{Decoded, Groups, inside};
use super::detector::{DetectionNet, Detections, Frame, RawHeads, detection_module};
use super::heads::{
    BothHeads, ClassificationHead, LevelCandidates, Selection, all_rows, by_picture, four, on_each, sizes_of,
};
use super::losses;
use super::picture::PictureTransform;
use super::pyramid::{BackboneWithFpn, LastLevel, ResNetPyramid, WIDTH};
use super::registry::DetectorShape;
use super::targets::{AnchorSet, Matching, assign};
use super::trunk::Trunk;
use crate::models::parts::Net;
use striate_graph::{Array, Tensor};
use striate_nn::{Conv2d, GroupNorm, Module, Path, ReLU, visit_fields};

/// Convolutions in front of each head.
const DEPTH: usize = 4;
/// What torchvision's names of the heads begin with.
const FAMILY: &str = "FCOS";

/// Convolutions, one to the sides, and one to how near the centre is.
struct RegressionHead {
    conv: Net,
    bbox_reg: Conv2d,
    bbox_ctrness: Conv2d,
}

impl RegressionHead {
    /// The sides and the nearness, by level.
    #[track_caller]
    fn look(&self, maps: &[Tensor]) -> [Vec<Tensor>; 2] {
        let features = on_each(&self.conv, maps);
        let sides = on_each(&self.bbox_reg, &features);
        [sides.iter().map(Tensor::relu).collect(), on_each(&self.bbox_ctrness, &features)]
    }
}

impl Module for RegressionHead {
    /// The sides of one level.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let [mut sides, _] = self.look(std::slice::from_ref(x));
        sides.swap_remove(0)
    }
    visit_fields!(conv, bbox_reg, bbox_ctrness);
    fn class_name(&self) -> String {
        "FCOSRegressionHead".to_owned()
    }
}

type Head = BothHeads<ClassificationHead, RegressionHead>;

/// A detector of this kind.
struct Fcos {
    backbone: BackboneWithFpn,
    head: Head,
    /// Squares as large as the stride: a pixel's centre and unit of length.
    anchors: AnchorGenerator,
    transform: PictureTransform,
    selection: Selection,
    classes: usize,
    path: Path,
}

impl DetectionNet for Fcos {
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
        let [sides, nearness] = self.head.regression_head.look(&maps);
        let outputs = vec![
            ("cls_logits", logits),
            ("bbox_regression", all_rows(&sides, 4)),
            ("bbox_ctrness", all_rows(&nearness, 1)),
        ];
        RawHeads { outputs, levels: sizes_of(&maps) }
    }

    #[track_caller]
    fn losses(&self, x: &Tensor, truths: [&Tensor; 2]) -> Vec<(&'static str, Tensor)> {
        let batch = [x.size(2), x.size(3)];
        let RawHeads { outputs, levels } = self.heads(x, batch);
        let anchors = self.anchors.anchors(batch, &levels);
        let of_levels: Vec<usize> = levels.iter().map(|[h, w]| h * w).collect();
        let set = AnchorSet { anchors: &anchors, of_levels: &of_levels, coder: None };
        let assigned = assign(truths, &set, Matching::Centre { radius: 1.5 });
        let [logits, sides, nearness] = [0, 1, 2].map(|index| &outputs[index].1);
        losses::fcos([logits, sides, nearness], &assigned, &anchors)
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
        let boxes = losses::decode_sides(&outputs[1].1, &losses::constant(x, &anchors));
        let of_class = outputs[0].1.sigmoid().narrow(-1, first, self.classes - first);
        let scores = (of_class * outputs[2].1.sigmoid()).sqrt();
        let groups = Groups::Levels(levels.iter().map(|[h, w]| h * w).collect());
        Decoded { boxes: inside(&boxes, batch), scores, groups, chosen_from: Vec::new() }
    }

    fn decode(&self, outputs: &[Array], frame: &Frame) -> striate_graph::Result<Vec<Detections>> {
        let anchors = self.anchors.anchors(frame.batch, &frame.levels);
        let chooser = LevelCandidates {
            classes: self.classes,
            anchors: frame.levels.iter().map(|[h, w]| h * w).collect(),
            // The nearness is at most 1, so the class alone must be above the square.
            least_logit: logit_below(self.selection.score * self.selection.score),
            selection: self.selection,
        };
        let heads = by_picture(&outputs[0])?.zip(by_picture(&outputs[1])?).zip(by_picture(&outputs[2])?);
        Ok(heads
            .map(|((logits, sides), nearness)| {
                let score = |logit: f32, anchor: usize| (sigmoid(logit) * sigmoid(nearness[anchor])).sqrt();
                let corners =
                    |anchor: usize| clip_to(frame.size, SideCoder.decode(four(sides, anchor), anchors[anchor]));
                chooser.choose(logits, score, corners)
            })
            .collect())
    }
}
detection_module!(Fcos, backbone, head);

/// On a pyramid from stride 8 on.
pub(super) fn fcos_resnet50_fpn(shape: DetectorShape) -> Box<dyn DetectionNet> {
    let last = LastLevel::p6p7(WIDTH, WIDTH);
    let pyramid = ResNetPyramid { from_layer1: false, last, norm: shape.norm(), fpn_norm: None };
    Box::new(fcos(BackboneWithFpn::resnet50(3, pyramid), shape.classes))
}

/// On any net, with maps of stride 8 to 32.
pub(super) fn fcos_on(trunk: &Trunk, classes: usize) -> Box<dyn DetectionNet> {
    Box::new(fcos(trunk.backbone(1, LastLevel::p6p7(WIDTH, WIDTH)), classes))
}

fn fcos(backbone: BackboneWithFpn, classes: usize) -> Fcos {
    let row = || {
        (0..DEPTH).fold(Net::new("Sequential"), |row, _| {
            row.add(Conv2d::new(WIDTH, WIDTH, 3).padding(1)).add(GroupNorm::new(32, WIDTH)).add(ReLU::new())
        })
    };
    let values = |columns: usize| Conv2d::new(WIDTH, columns, 3).padding(1);
    Fcos {
        backbone,
        head: Head {
            classification_head: ClassificationHead { conv: row(), cls_logits: values(classes), family: FAMILY },
            regression_head: RegressionHead { conv: row(), bbox_reg: values(4), bbox_ctrness: values(1) },
            family: FAMILY,
        },
        anchors: AnchorGenerator::new([8.0, 16.0, 32.0, 64.0, 128.0].map(|size| vec![size]).to_vec(), vec![1.0]),
        transform: PictureTransform::shorter(800, 1333),
        selection: Selection { score: 0.2, iou: 0.6, candidates: 1000, most: 100 },
        classes,
        path: Path::default(),
    }
}
