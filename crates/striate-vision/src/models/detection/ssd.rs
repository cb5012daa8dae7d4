//! SSD (Liu et al. 2015): boxes from default boxes on six maps, the classes of each by softmax; with torchvision's parameter names.

use super::anchors::DefaultBoxGenerator;
use super::boxes::{BoxCoder, best, clip_to};
use super::decoded::{Decoded, Groups, inside};
use super::detector::{DetectionNet, Detections, Frame, RawHeads, detection_module};
use super::heads::{BothHeads, Candidates, Selection, all_rows, by_picture, four, sizes_of};
use super::losses;
use super::picture::PictureTransform;
use super::registry::DetectorShape;
use super::targets::{AnchorSet, Matching, assign};
use crate::models::parts::Net;
use striate_graph::{Array, Parameter, ReduceKind, Tensor};
use striate_nn::{Conv2d, MaxPool2d, Module, ModuleList, Path, ReLU, display_module, visit_fields};

/// How offsets are weighed.
const CODER: BoxCoder = BoxCoder::new([10.0, 10.0, 5.0, 5.0]);

/// A backbone that gives maps, the finest first.
pub(super) trait Maps: Module {
    fn maps(&self, x: &Tensor) -> Vec<Tensor>;

    /// As [`DetectionNet::name_in_classifier`], of a name below `backbone.`.
    fn name_in_classifier(&self, name: &str) -> Option<String>;
}

/// A layer for each map, whose channels are values of anchors.
pub(super) struct ScoringHead {
    module_list: ModuleList<Box<dyn Module>>,
    /// Values of an anchor.
    columns: usize,
    path: Path,
}

impl ScoringHead {
    pub fn new(layers: Vec<Box<dyn Module>>, columns: usize) -> ScoringHead {
        ScoringHead { module_list: ModuleList::new(layers), columns, path: Path::default() }
    }

    /// `[N, anchors, columns]`
    #[track_caller]
    fn rows(&self, maps: &[Tensor]) -> Tensor {
        let mut found = Vec::with_capacity(maps.len());
        for (layer, map) in self.module_list.modules.iter().zip(maps) {
            found.push(layer.call(map));
        }
        all_rows(&found, self.columns)
    }
}

impl Module for ScoringHead {
    /// Of the finest map alone.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.rows(std::slice::from_ref(x))
    }
    visit_fields!(module_list);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
    fn class_name(&self) -> String {
        "SSDScoringHead".to_owned()
    }
}
display_module!(ScoringHead);

/// Classes and offsets of all maps.
pub(super) type SsdHead = BothHeads<ScoringHead, ScoringHead>;

/// A detector of this kind.
pub(super) struct Ssd {
    pub backbone: Box<dyn Maps>,
    pub head: SsdHead,
    pub boxes: DefaultBoxGenerator,
    pub transform: PictureTransform,
    pub selection: Selection,
    pub classes: usize,
    pub path: Path,
}

impl DetectionNet for Ssd {
    fn transform(&self) -> &PictureTransform {
        &self.transform
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn name_in_classifier(&self, name: &str) -> Option<String> {
        self.backbone.name_in_classifier(name.strip_prefix("backbone.")?)
    }

    #[track_caller]
    fn heads(&self, x: &Tensor, _: [usize; 2]) -> RawHeads {
        let maps = self.backbone.maps(x);
        let offsets = self.head.regression_head.rows(&maps);
        let logits = self.head.classification_head.rows(&maps);
        RawHeads { outputs: vec![("bbox_regression", offsets), ("cls_logits", logits)], levels: sizes_of(&maps) }
    }

    #[track_caller]
    fn losses(&self, x: &Tensor, truths: [&Tensor; 2]) -> Vec<(&'static str, Tensor)> {
        let batch = [x.size(2), x.size(3)];
        let RawHeads { outputs, levels } = self.heads(x, batch);
        let anchors = self.boxes.boxes(batch, &levels);
        let set = AnchorSet { anchors: &anchors, of_levels: &[], coder: Some(CODER) };
        let assigned = assign(truths, &set, Matching::BestOverlap { threshold: 0.5 });
        losses::ssd([&outputs[1].1, &outputs[0].1], &assigned)
    }

    fn selection(&self) -> Selection {
        self.selection
    }

    #[track_caller]
    fn decoded(&self, x: &Tensor, first: usize) -> Decoded {
        let batch = [x.size(2), x.size(3)];
        let RawHeads { outputs, levels } = self.heads(x, batch);
        let anchors = self.boxes.boxes(batch, &levels);
        let boxes = losses::decode(&outputs[0].1, &losses::constant(x, &anchors), CODER);
        let scores = outputs[1].1.softmax(-1).narrow(-1, first, self.classes - first);
        Decoded { boxes: inside(&boxes, batch), scores, groups: Groups::Classes, chosen_from: Vec::new() }
    }

    fn decode(&self, outputs: &[Array], frame: &Frame) -> striate_graph::Result<Vec<Detections>> {
        let anchors = self.boxes.boxes(frame.batch, &frame.levels);
        let pictures = by_picture(&outputs[0])?.zip(by_picture(&outputs[1])?);
        Ok(pictures
            .map(|(offsets, logits)| {
                let scores: Vec<f32> = logits.chunks_exact(self.classes).flat_map(softmax).collect();
                let mut candidates = Candidates::default();
                for label in 1..self.classes {
                    let of_class = scores.iter().skip(label).step_by(self.classes).copied().zip(0..);
                    let found =
                        best(of_class.filter(|(s, _)| *s > self.selection.score).collect(), self.selection.candidates);
                    for (score, anchor) in found {
                        let corners = CODER.decode(four(offsets, anchor), anchors[anchor]);
                        candidates.push(clip_to(frame.size, corners), score, label);
                    }
                }
                candidates.suppress(&self.selection)
            })
            .collect())
    }
}
detection_module!(Ssd, backbone, head);

/// Probabilities of a row of logits.
pub(super) fn softmax(row: &[f32]) -> Vec<f32> {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = row.iter().map(|x| (x - most).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// VGG-16 up to conv4_3, whose values are normalised over the channels and scaled, and what stands behind it.
struct VggMaps {
    scale_weight: Parameter,
    features: Net,
    extra: ModuleList<Net>,
    path: Path,
}

/// Convolutions of 3x3 with ReLU, as VGG has them.
fn vgg_convs(mut row: Net, widths: &[[usize; 2]]) -> Net {
    for [from, to] in widths {
        row = row.add(Conv2d::new(*from, *to, 3).padding(1)).add(ReLU::new().inplace(true));
    }
    row
}

/// 1x1 to half as many channels, 3x3 to `to`.
fn extra_block(from: usize, to: usize, conv: impl Fn(Conv2d) -> Conv2d) -> Net {
    let relu = || ReLU::new().inplace(true);
    let squeeze = Net::new("Sequential").add(Conv2d::new(from, to / 2, 1)).add(relu());
    squeeze.add(conv(Conv2d::new(to / 2, to, 3))).add(relu())
}

impl VggMaps {
    fn new(channels: usize) -> VggMaps {
        let pool = || MaxPool2d::new(2);
        let features = vgg_convs(Net::new("Sequential"), &[[channels, 64], [64, 64]]).add(pool());
        let features = vgg_convs(features, &[[64, 128], [128, 128]]).add(pool());
        let features = vgg_convs(features, &[[128, 256], [256, 256], [256, 256]]).add(pool().ceil_mode(true));
        let features = vgg_convs(features, &[[256, 512], [512, 512], [512, 512]]);
        let relu = || ReLU::new().inplace(true);
        let fc = Net::new("Sequential")
            .add(MaxPool2d::new(3).stride(1).padding(1))
            .add(Conv2d::new(512, 1024, 3).padding(6).dilation(6))
            .add(relu())
            .add(Conv2d::new(1024, 1024, 1))
            .add(relu());
        let conv5 = vgg_convs(Net::new("Sequential").add(pool()), &[[512, 512]; 3]).add(fc);
        let halved = |conv: Conv2d| conv.padding(1).stride(2);
        let extra = vec![
            conv5,
            extra_block(1024, 512, halved),
            extra_block(512, 256, halved),
            extra_block(256, 256, |conv| conv),
            extra_block(256, 256, |conv| conv),
        ];
        let scale_weight = Parameter::new(Array::full([512], 20f32));
        VggMaps { scale_weight, features, extra: ModuleList::new(extra), path: Path::default() }
    }
}

/// Number of the fourth pool among VGG-16's layers.
const FOURTH_POOL: usize = 23;
/// Layers of `extra.0` that VGG-16 has too: the pool, and three convolutions with ReLU.
const CONV5: usize = 7;
/// Below this a norm counts as 0.
const LEAST_NORM: f32 = 1e-12;

impl Maps for VggMaps {
    #[track_caller]
    fn maps(&self, x: &Tensor) -> Vec<Tensor> {
        let mut x = self.features.call(x);
        let norm = x.reduce(ReduceKind::L2, &[1], true).clamp(LEAST_NORM, f32::MAX);
        let scale = x.trace().parameter(&self.scale_weight).reshape([1, 512, 1, 1]);
        let mut maps = vec![&scale * &(&x / &norm)];
        for block in &self.extra.modules {
            x = block.call(&x);
            maps.push(x.clone());
        }
        maps
    }

    /// `extra.0` begins with VGG's fourth pool.
    fn name_in_classifier(&self, name: &str) -> Option<String> {
        if let Some(rest) = name.strip_prefix("features.") {
            return Some(rest.to_owned());
        }
        let (index, last) = name.strip_prefix("extra.0.")?.split_once('.')?;
        let index: usize = index.parse().ok().filter(|&index| index < CONV5)?;
        Some(format!("{}.{last}", FOURTH_POOL + index))
    }
}

impl Module for VggMaps {
    /// The coarsest map.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.maps(x).swap_remove(5)
    }
    visit_fields!(scale_weight, features, extra);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
    fn class_name(&self) -> String {
        "SSDFeatureExtractorVGG".to_owned()
    }
}
display_module!(VggMaps);

/// SSD of 300 pixels on VGG-16.
pub(super) fn ssd300_vgg16(shape: DetectorShape) -> Box<dyn DetectionNet> {
    let ratios = [vec![2.0], vec![2.0, 3.0], vec![2.0, 3.0], vec![2.0, 3.0], vec![2.0], vec![2.0]].to_vec();
    let boxes = DefaultBoxGenerator::new(ratios, vec![0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05])
        .steps(vec![8.0, 16.0, 32.0, 64.0, 100.0, 300.0]);
    let widths = [512, 1024, 512, 256, 256, 256];
    let head = |columns: usize| {
        let conv = |(from, anchors): (usize, usize)| Conv2d::new(from, columns * anchors, 3).padding(1);
        let convs = widths.into_iter().zip(boxes.per_pixel()).map(|pair| Box::new(conv(pair)) as Box<dyn Module>);
        ScoringHead::new(convs.collect(), columns)
    };
    Box::new(Ssd {
        head: SsdHead { classification_head: head(shape.classes), regression_head: head(4), family: "SSD" },
        backbone: Box::new(VggMaps::new(3)),
        boxes,
        // Values up to 255 less their mean: VGG's weights come from Caffe.
        transform: PictureTransform::square(300, [0.48235, 0.45882, 0.40784], [1.0 / 255.0; 3]),
        selection: Selection { score: 0.01, iou: 0.45, candidates: 400, most: 200 },
        classes: shape.classes,
        path: Path::default(),
    })
}
