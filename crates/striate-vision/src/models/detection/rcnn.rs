//! Faster R-CNN (Ren et al. 2015) on a feature pyramid, and Mask R-CNN (He et al. 2017): a first stage proposes boxes, a second one says
//! what is in each and where exactly, a third one which pixels belong to it; with torchvision's parameter names.

use super::anchors::AnchorGenerator;
use super::boxes::sigmoid;
use super::decoded::{Chosen, Decoded, Groups};
use super::detector::{DetectionNet, Detections, Frame, RawHeads, TwoStageTraining, detection_module};
use super::heads::{Selection, all_rows, on_each, sizes_of};
use super::losses;
use super::masks::mask_targets;
use super::picture::PictureTransform;
use super::proposals::{
    Boxes, FirstStage, Found, MultiScaleRoiAlign, ProposalRules, RPN_CODER, Regions, SecondStage, first_rows, found,
    proposals,
};
use super::pyramid::{BackboneWithFpn, LastLevel, ResNetPyramid, WIDTH};
use super::registry::DetectorShape;
use super::sampling::{SampledProposals, sample_anchors, sample_proposals};
use super::targets::{AnchorSet, Matching, assign};
use super::traced;
use super::trunk::{STRIDES, Trunk};
use crate::models::parts::{Net, Norm, flatten};
use striate_graph::{Array, Tensor};
use striate_nn::{
    BatchNorm2d, Conv2d, Conv2dNormActivation, ConvTranspose2d, Linear, Module, Path, ReLU, Visitor, visit_fields,
};

/// Side of what is pooled of a proposal.
const POOLED: usize = 7;
/// Side of what is pooled for a mask, which is twice as large.
const MASK_POOLED: usize = 14;
/// Values between the layers of the box head.
const INNER: usize = 1024;

/// In training so many candidates of each level are looked at, and so many proposals left.
const TRAINING_PROPOSALS: usize = 2000;
/// Which anchors are to say that there is an object (Ren et al. 2015, section 3.1.2).
const ANCHOR_MATCHING: Matching = Matching::Overlap { high: 0.7, low: 0.3 };

/// Convolutions on each level, then whether each anchor is an object, and its offsets.
struct RpnHead {
    conv: Net,
    cls_logits: Conv2d,
    bbox_pred: Conv2d,
}

impl RpnHead {
    fn new(depth: usize, anchors: usize) -> RpnHead {
        let block = || Conv2dNormActivation::new(WIDTH, WIDTH, 3).no_norm();
        RpnHead {
            conv: (0..depth).fold(Net::new("Sequential"), |row, _| row.add(block())),
            cls_logits: Conv2d::new(WIDTH, anchors, 1),
            bbox_pred: Conv2d::new(WIDTH, 4 * anchors, 1),
        }
    }
}

impl Module for RpnHead {
    /// Whether the anchors of one level are objects.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.cls_logits.call(&self.conv.call(x))
    }
    visit_fields!(conv, cls_logits, bbox_pred);
    fn class_name(&self) -> String {
        "RPNHead".to_owned()
    }
}

/// The first stage.
struct Rpn {
    head: RpnHead,
}

impl Module for Rpn {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.head.call(x)
    }
    visit_fields!(head);
    fn class_name(&self) -> String {
        "RegionProposalNetwork".to_owned()
    }
}

/// Classes, and the offsets of each class.
struct BoxPredictor {
    cls_score: Linear,
    bbox_pred: Linear,
}

impl Module for BoxPredictor {
    /// The classes.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.cls_score.call(x)
    }
    visit_fields!(cls_score, bbox_pred);
    fn class_name(&self) -> String {
        "FastRCNNPredictor".to_owned()
    }
}

/// Convolution, norm and ReLU of regions, as [`Conv2dNormActivation`] has them.
struct RegionConv {
    conv: Conv2d,
    norm: BatchNorm2d,
    relu: ReLU,
    path: Path,
}

impl RegionConv {
    fn new() -> RegionConv {
        let conv = Conv2d::new(WIDTH, WIDTH, 3).padding(1).bias(false);
        RegionConv { conv, norm: BatchNorm2d::new(WIDTH), relu: ReLU::new(), path: Path::default() }
    }

    /// Of regions `[rows, C, H, W]`, of which those count for the norm that have 1 in `[rows]`.
    #[track_caller]
    fn of_rows(&self, x: &Tensor, rows: &Tensor) -> Tensor {
        self.norm.call_rows(&self.conv.call(x), rows).relu()
    }
}

impl Module for RegionConv {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.norm.call(&self.conv.call(x)).relu()
    }
    visit_fields!(conv as "0", norm as "1", relu as "2");
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
    fn class_name(&self) -> String {
        "Conv2dNormActivation".to_owned()
    }
}

/// What makes features of the pooled regions: convolutions, where there are any, and linear layers.
struct BoxHead {
    convs: Vec<RegionConv>,
    /// Its layers are named as if they were this module's.
    linear: Net,
    path: Path,
}

impl BoxHead {
    /// As [`Module::call`]; in training the norms count the regions alone that have 1 in `[rows]`: others are padding.
    #[track_caller]
    fn of_rows(&self, x: &Tensor, rows: &Tensor) -> Tensor {
        let _scope = x.trace().enter(&self.path.get());
        let mut x = x.clone();
        for conv in &self.convs {
            x = conv.of_rows(&x, rows);
        }
        self.linear.forward(&x)
    }
}

impl Module for BoxHead {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = x.clone();
        for conv in &self.convs {
            x = conv.call(&x);
        }
        self.linear.forward(&x)
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        self.convs.iter().enumerate().for_each(|(index, conv)| visitor.module(&index.to_string(), conv));
        self.linear.visit(visitor);
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn class_name(&self) -> String {
        self.linear.class_name()
    }
}

/// The second stage, and the third where there is one.
struct RoiHeads {
    box_head: BoxHead,
    box_predictor: BoxPredictor,
    mask_head: Option<Net>,
    mask_predictor: Option<Net>,
}

impl Module for RoiHeads {
    /// The classes of what was pooled.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.box_predictor.call(&self.box_head.call(x))
    }
    visit_fields!(box_head, box_predictor, mask_head, mask_predictor);
    fn class_name(&self) -> String {
        "RoIHeads".to_owned()
    }
}

/// A detector of this kind.
struct FasterRcnn {
    backbone: BackboneWithFpn,
    rpn: Rpn,
    roi_heads: RoiHeads,
    anchors: AnchorGenerator,
    transform: PictureTransform,
    rules: ProposalRules,
    /// Of proposals; masks are pooled from the same levels.
    align: MultiScaleRoiAlign,
    selection: Selection,
    classes: usize,
    path: Path,
}

/// What the second stage gives: `[N, most, classes]` and `[N, most, 4 * classes]`.
struct BoxValues {
    logits: Tensor,
    offsets: Tensor,
}

impl FasterRcnn {
    #[track_caller]
    fn first_stage(&self, maps: &[Tensor], batch: [usize; 2]) -> FirstStage {
        let features = on_each(&self.rpn.head.conv, maps);
        let levels = sizes_of(maps);
        let of_pixel = self.anchors.per_pixel();
        FirstStage {
            objectness: all_rows(&on_each(&self.rpn.head.cls_logits, &features), 1),
            offsets: all_rows(&on_each(&self.rpn.head.bbox_pred, &features), 4),
            anchors: self.anchors.anchors(batch, &levels),
            of_levels: levels.iter().zip(of_pixel).map(|([h, w], of_pixel)| h * w * of_pixel).collect(),
        }
    }

    /// What is in regions, as many of each of `n` pictures; in training `valid` `[N, most, 1]` says which of them are none but padding,
    /// for the norms of the head.
    #[track_caller]
    fn second_stage(&self, maps: &[Tensor], regions: &Regions, n: usize, valid: Option<&Tensor>) -> BoxValues {
        let pooled = self.align.pool(maps, regions);
        let features = match valid {
            Some(valid) => self.roi_heads.box_head.of_rows(&pooled, &valid.reshape([pooled.size(0)])),
            None => self.roi_heads.box_head.call(&pooled),
        };
        let most = regions.pictures.size(0) / n.max(1);
        let logits = self.roi_heads.box_predictor.cls_score.call(&features);
        let offsets = self.roi_heads.box_predictor.bbox_pred.call(&features);
        BoxValues {
            logits: logits.reshape([n, most, self.classes]),
            offsets: offsets.reshape([n, most, 4 * self.classes]),
        }
    }

    /// The logits of all classes' masks in regions, `[regions, classes, 28, 28]`, where there is a third stage.
    #[track_caller]
    fn mask_logits(&self, maps: &[Tensor], regions: &Regions) -> Option<Tensor> {
        let (head, predictor) = (self.roi_heads.mask_head.as_ref()?, self.roi_heads.mask_predictor.as_ref()?);
        let align = MultiScaleRoiAlign { out: MASK_POOLED, ..self.align.clone() };
        Some(predictor.call(&head.call(&align.pool(maps, regions))))
    }

    /// The net up to the boxes of all classes, in operations alone: its maps, and what it says.
    #[track_caller]
    fn traced(&self, x: &Tensor, first: usize) -> (Vec<Tensor>, Decoded) {
        let size = [x.size(2), x.size(3)];
        let maps = self.backbone.levels(x);
        let stage = self.first_stage(&maps, size);
        let proposed = traced::proposed(&stage, size, &self.rules, &self.align);
        let values = self.second_stage(&maps, &proposed.regions, x.size(0), None);
        let [boxes, scores] = traced::boxes_of_classes([&values.logits, &values.offsets], &proposed, (size, first));
        let chosen_from = vec![("objectness", stage.objectness), ("pred_bbox_deltas", stage.offsets)];
        (maps, Decoded { boxes, scores, groups: Groups::Classes, chosen_from })
    }

    /// What the third stage says of what the second found: the logits of all classes' masks, `[N * most, classes, 28, 28]`.
    #[track_caller]
    fn third_stage(
        &self,
        maps: &[Tensor],
        values: &BoxValues,
        proposed: &Boxes,
        size: [usize; 2],
    ) -> Option<(Found, Tensor)> {
        self.roi_heads.mask_head.as_ref()?;
        let found = found([&values.logits, &values.offsets], proposed, (size, &self.selection), &self.align);
        let masks = self.mask_logits(maps, &found.boxes.regions)?;
        Some((found, masks))
    }

    /// The proposals that training looks at, of so many anchors.
    fn training_rules(&self, anchors: usize) -> ProposalRules {
        ProposalRules { candidates: TRAINING_PROPOSALS, most: TRAINING_PROPOSALS.min(anchors), ..self.rules }
    }

    /// The loss of the third stage, where there is one, for the sampled proposals that have an object: each is to give its part of the
    /// object's mask, in a batch of this width.
    #[track_caller]
    fn mask_loss(
        &self,
        maps: &[Tensor],
        sampled: &SampledProposals,
        (masks, width): (&Tensor, usize),
    ) -> Option<(&'static str, Tensor)> {
        let n = sampled.labels.size(0);
        // Those with an object come first.
        let count = sampled.most_positive.max(1).min(sampled.labels.size(1));
        let rows = |x: &Tensor| first_rows(x, count).reshape([n * count]);
        let logits = self.mask_logits(maps, &sampled.boxes.regions.first(n, count))?;
        let corners = first_rows(&sampled.boxes.corners, count).reshape([n * count, 4]);
        let foreground = rows(&sampled.foreground).unsqueeze(-1);
        let [truth, counted] =
            mask_targets(masks, width, [&corners, &rows(&sampled.objects), &foreground], logits.size(2));
        Some(("loss_mask", losses::masks([&logits, &truth], &rows(&sampled.labels), &counted)))
    }
}

impl DetectionNet for FasterRcnn {
    fn transform(&self) -> &PictureTransform {
        &self.transform
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn gives_masks(&self) -> bool {
        self.roi_heads.mask_head.is_some()
    }

    #[track_caller]
    fn heads(&self, x: &Tensor, size: [usize; 2]) -> RawHeads {
        let maps = self.backbone.levels(x);
        let first = self.first_stage(&maps, [x.size(2), x.size(3)]);
        let proposed = proposals(&first, size, &self.rules, &self.align);
        let values = self.second_stage(&maps, &proposed.regions, x.size(0), None);
        let third = self.third_stage(&maps, &values, &proposed, size);
        let mut outputs = vec![
            ("objectness", first.objectness),
            ("pred_bbox_deltas", first.offsets),
            ("proposals", proposed.corners),
            ("class_logits", values.logits),
            ("box_regression", values.offsets),
            ("proposal_counts", proposed.counts),
        ];
        if let Some((found, masks)) = third {
            outputs.extend([
                ("mask_logits", masks),
                ("boxes", found.boxes.corners),
                ("scores", found.scores),
                ("labels", found.labels),
                ("box_counts", found.boxes.counts),
            ]);
        }
        RawHeads { outputs, levels: sizes_of(&maps) }
    }

    #[track_caller]
    fn losses(&self, x: &Tensor, truths: [&Tensor; 2]) -> Vec<(&'static str, Tensor)> {
        self.losses_with(x, truths, &TwoStageTraining::default())
    }

    #[track_caller]
    fn losses_with(
        &self,
        x: &Tensor,
        truths: [&Tensor; 2],
        training: &TwoStageTraining<'_>,
    ) -> Vec<(&'static str, Tensor)> {
        let size = [x.size(2), x.size(3)];
        let maps = self.backbone.levels(x);
        let first = self.first_stage(&maps, size);
        let set = AnchorSet { anchors: &first.anchors, of_levels: &[], coder: Some(RPN_CODER) };
        let assigned = assign(truths, &set, ANCHOR_MATCHING);
        let chosen = sample_anchors(&assigned, &training.sampling);
        let proposed = proposals(&first, size, &self.training_rules(first.anchors.len()), &self.align);
        let sampled = sample_proposals(&proposed, truths, &training.sampling, &self.align);
        let values = self.second_stage(&maps, &sampled.boxes.regions, x.size(0), Some(&sampled.valid));
        let mut found = losses::second_stage([&values.logits, &values.offsets], &sampled).to_vec();
        found.extend(training.masks.and_then(|masks| self.mask_loss(&maps, &sampled, (masks, size[1]))));
        found.extend(losses::first_stage([&first.objectness, &first.offsets], &assigned, &chosen));
        found
    }

    fn selection(&self) -> Selection {
        self.selection
    }

    #[track_caller]
    fn decoded(&self, x: &Tensor, first: usize) -> Decoded {
        self.traced(x, first).1
    }

    #[track_caller]
    fn chosen(&self, x: &Tensor, first: usize) -> Chosen {
        let (maps, decoded) = self.traced(x, first);
        let chosen = decoded.choose(&self.selection);
        let regions = self.align.regions(&chosen.boxes, &traced::is_found(&chosen.labels));
        let logits = self.mask_logits(&maps, &regions);
        let masks = logits.map(|logits| traced::masks_of_labels(&logits, &chosen.labels, first));
        Chosen { masks, ..chosen }
    }

    fn decode(&self, outputs: &[Array], frame: &Frame) -> striate_graph::Result<Vec<Detections>> {
        match outputs {
            [_, _, proposals, logits, offsets, counts] => {
                SecondStage { logits, offsets, proposals, counts }.detections(frame.size, &self.selection)
            }
            [.., masks, boxes, scores, labels, counts] => with_masks(masks, [boxes, scores, labels, counts]),
            _ => Err(striate_graph::Error::Internal("the outputs of a detector of another kind".into())),
        }
    }
}
detection_module!(FasterRcnn, backbone, rpn, roi_heads);

/// What the third stage found: of each box the mask of its class.
fn with_masks(masks: &Array, [boxes, scores, labels, counts]: [&Array; 4]) -> striate_graph::Result<Vec<Detections>> {
    let [_, classes, height, width] = [0, 1, 2, 3].map(|axis| masks.shape()[axis]);
    let (most, pixels) = (scores.shape()[1], height * width);
    let (masks, boxes, scores, labels) = (masks.f32s()?, boxes.f32s()?, scores.f32s()?, labels.to_i64_vec());
    let of_picture = |(picture, count): (usize, i64)| {
        let places = picture * most..picture * most + count as usize;
        let label = |place: usize| labels[place] as usize;
        let mask = |place: usize| &masks[(place * classes + label(place)) * pixels..][..pixels];
        let values: Vec<f32> = places.clone().flat_map(|place| mask(place).iter().map(|x| sigmoid(*x))).collect();
        Ok(Detections {
            boxes: places.clone().map(|place| super::heads::four(boxes, place)).collect(),
            scores: scores[places.clone()].to_vec(),
            labels: places.clone().map(label).collect(),
            masks: Some(Array::from_vec([places.len(), height, width], values)?),
        })
    };
    counts.to_i64_vec().into_iter().enumerate().map(of_picture).collect()
}

/// Flattened, two linear layers with ReLU.
fn two_mlp_head() -> BoxHead {
    let linear = Net::new("TwoMLPHead")
        .hidden(flatten())
        .named("fc6", Linear::new(WIDTH * POOLED * POOLED, INNER))
        .hidden(ReLU::new())
        .named("fc7", Linear::new(INNER, INNER))
        .hidden(ReLU::new());
    BoxHead { convs: Vec::new(), linear, path: Path::default() }
}

/// Four convolutions with norms, flattened, a linear layer with ReLU.
fn conv_fc_head() -> BoxHead {
    let linear = Net::new("FastRCNNConvFCHead")
        .named("4", flatten())
        .named("5", Linear::new(WIDTH * POOLED * POOLED, INNER))
        .named("6", ReLU::new().inplace(true));
    BoxHead { convs: (0..4).map(|_| RegionConv::new()).collect(), linear, path: Path::default() }
}

/// How one of the family differs.
struct Variant {
    backbone: BackboneWithFpn,
    anchors: AnchorGenerator,
    strides: Vec<usize>,
    depth: usize,
    box_head: BoxHead,
    transform: PictureTransform,
    rules: ProposalRules,
    masks: bool,
}

const RULES: ProposalRules = ProposalRules { candidates: 1000, most: 1000, iou: 0.7, score: 0.0 };

impl Variant {
    /// On a ResNet-50.
    fn resnet50(norm: Norm, fpn_norm: Option<Norm>) -> Variant {
        let pyramid = ResNetPyramid { from_layer1: true, last: LastLevel::MaxPool, norm, fpn_norm };
        Variant::on(BackboneWithFpn::resnet50(3, pyramid))
    }

    /// One size of anchors on each level of a pyramid from stride 4 on.
    fn on(backbone: BackboneWithFpn) -> Variant {
        let sizes = [32.0, 64.0, 128.0, 256.0, 512.0].map(|size| vec![size]).to_vec();
        Variant {
            backbone,
            anchors: AnchorGenerator::new(sizes, vec![0.5, 1.0, 2.0]),
            strides: STRIDES.to_vec(),
            depth: 1,
            box_head: two_mlp_head(),
            transform: PictureTransform::shorter(800, 1333),
            rules: RULES,
            masks: false,
        }
    }

    /// All sizes of anchors on each of three levels. Both maps that proposals are pooled from have the same stride, so that all come
    /// from the first one.
    fn mobilenet_v3(norm: Norm, transform: PictureTransform, rules: ProposalRules) -> Variant {
        let sizes = vec![vec![32.0, 64.0, 128.0, 256.0, 512.0]; 3];
        Variant {
            backbone: BackboneWithFpn::mobilenet_v3(3, norm),
            anchors: AnchorGenerator::new(sizes, vec![0.5, 1.0, 2.0]),
            strides: vec![32],
            depth: 1,
            box_head: two_mlp_head(),
            transform,
            rules,
            masks: false,
        }
    }

    fn build(self, classes: usize) -> Box<dyn DetectionNet> {
        let masks = || {
            let conv = || Conv2dNormActivation::new(WIDTH, WIDTH, 3).no_norm();
            let head = (0..4).fold(Net::new("MaskRCNNHeads"), |row, _| row.add(conv()));
            let predictor = Net::new("MaskRCNNPredictor")
                .named("conv5_mask", ConvTranspose2d::new(WIDTH, WIDTH, 2).stride(2))
                .named("relu", ReLU::new().inplace(true))
                .named("mask_fcn_logits", Conv2d::new(WIDTH, classes, 1));
            (head, predictor)
        };
        let (mask_head, mask_predictor) = self.masks.then(masks).unzip();
        let predictor =
            BoxPredictor { cls_score: Linear::new(INNER, classes), bbox_pred: Linear::new(INNER, 4 * classes) };
        Box::new(FasterRcnn {
            rpn: Rpn { head: RpnHead::new(self.depth, self.anchors.per_pixel()[0]) },
            roi_heads: RoiHeads { box_head: self.box_head, box_predictor: predictor, mask_head, mask_predictor },
            backbone: self.backbone,
            anchors: self.anchors,
            transform: self.transform,
            rules: self.rules,
            align: MultiScaleRoiAlign { strides: self.strides, out: POOLED },
            // All proposals are candidates of each class.
            selection: Selection { score: 0.05, iou: 0.5, candidates: self.rules.most, most: 100 },
            classes,
            path: Path::default(),
        })
    }
}

/// Low resolution: 320 pixels.
pub(super) fn fasterrcnn_mobilenet_v3_large_320_fpn(shape: DetectorShape) -> Box<dyn DetectionNet> {
    let rules = ProposalRules { candidates: 150, most: 150, score: 0.05, ..RULES };
    Variant::mobilenet_v3(shape.norm(), PictureTransform::shorter(320, 640), rules).build(shape.classes)
}

/// High resolution: 800 pixels.
pub(super) fn fasterrcnn_mobilenet_v3_large_fpn(shape: DetectorShape) -> Box<dyn DetectionNet> {
    let rules = ProposalRules { score: 0.05, ..RULES };
    Variant::mobilenet_v3(shape.norm(), PictureTransform::shorter(800, 1333), rules).build(shape.classes)
}

/// As in the pyramid's paper.
pub(super) fn fasterrcnn_resnet50_fpn(shape: DetectorShape) -> Box<dyn DetectionNet> {
    Variant::resnet50(shape.norm(), None).build(shape.classes)
}

/// As [`fasterrcnn_resnet50_fpn`] on any net, with maps of stride 4 to 32.
pub(super) fn fasterrcnn_on(trunk: &Trunk, classes: usize) -> Box<dyn DetectionNet> {
    Variant::on(trunk.backbone(0, LastLevel::MaxPool)).build(classes)
}

/// Norms in the pyramid, a deeper first stage, and convolutions with norms in the box head (Li et al. 2021). Places of the sample that a
/// picture with fewer proposals leaves empty do not count for those norms.
pub(super) fn fasterrcnn_resnet50_fpn_v2(shape: DetectorShape) -> Box<dyn DetectionNet> {
    let usual = Variant::resnet50(Norm::BATCH, Some(Norm::BATCH));
    Variant { depth: 2, box_head: conv_fc_head(), ..usual }.build(shape.classes)
}

/// With masks.
pub(super) fn maskrcnn_resnet50_fpn(shape: DetectorShape) -> Box<dyn DetectionNet> {
    Variant { masks: true, ..Variant::resnet50(shape.norm(), None) }.build(shape.classes)
}
