//! What the heads of one-stage detectors share: their layout, and how the best boxes are chosen.

use super::boxes::{Corners, batched_nms, best};
use super::detector::Detections;
use crate::models::parts::Net;
use striate_graph::{Array, Tensor};
use striate_nn::{Conv2d, Module, visit_fields};

/// Convolutions, and one to the classes of all anchors of a pixel.
pub(super) struct ClassificationHead {
    pub conv: Net,
    pub cls_logits: Conv2d,
    /// What torchvision's names of the heads begin with.
    pub family: &'static str,
}

impl Module for ClassificationHead {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.cls_logits.call(&self.conv.call(x))
    }
    visit_fields!(conv, cls_logits);
    fn class_name(&self) -> String {
        format!("{}ClassificationHead", self.family)
    }
}

/// Both heads of a one-stage detector: what it is, and where.
pub(super) struct BothHeads<C, R> {
    pub classification_head: C,
    pub regression_head: R,
    /// What torchvision's names of the heads begin with.
    pub family: &'static str,
}

impl<C: Module, R: Module> Module for BothHeads<C, R> {
    /// The classes of one level.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.classification_head.call(x)
    }
    visit_fields!(classification_head, regression_head);
    fn class_name(&self) -> String {
        format!("{}Head", self.family)
    }
}

/// `[N, A * K, H, W]`, K values for each of A anchors of a pixel, as rows `[N, H * W * A, K]`.
#[track_caller]
pub(super) fn rows(x: &Tensor, columns: usize) -> Tensor {
    let (n, values) = (x.size(0), x.shape().numel());
    x.permute(&[0, 2, 3, 1]).reshape([n, values / (n * columns).max(1), columns])
}

/// The rows of all levels, one level after the other.
#[track_caller]
pub(super) fn all_rows(levels: &[Tensor], columns: usize) -> Tensor {
    let parts: Vec<Tensor> = levels.iter().map(|level| rows(level, columns)).collect();
    Tensor::cat(&parts.iter().collect::<Vec<_>>(), 1)
}

/// A layer on each level.
#[track_caller]
pub(super) fn on_each(layer: &impl Module, levels: &[Tensor]) -> Vec<Tensor> {
    let mut found = Vec::with_capacity(levels.len());
    for level in levels {
        found.push(layer.call(level));
    }
    found
}

/// Height and width of each level.
pub(super) fn sizes_of(levels: &[Tensor]) -> Vec<[usize; 2]> {
    levels.iter().map(|level| [level.size(2), level.size(3)]).collect()
}

/// Values `[N, rows, K]`, picture by picture.
pub(super) fn by_picture(output: &Array) -> striate_graph::Result<std::slice::ChunksExact<'_, f32>> {
    let pictures = output.shape().first().copied().unwrap_or(1).max(1);
    Ok(output.f32s()?.chunks_exact((output.numel() / pictures).max(1)))
}

/// The four values of an anchor.
pub(super) fn four(values: &[f32], anchor: usize) -> [f32; 4] {
    [0, 1, 2, 3].map(|i| values[4 * anchor + i])
}

/// What a detector leaves of its candidates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Selection {
    /// Boxes with a score that is not greater are dropped.
    pub score: f32,
    /// Boxes that overlap a better one of their class by more are dropped.
    pub iou: f64,
    /// So many candidates are looked at: of each level, or of each class.
    pub candidates: usize,
    /// So many boxes are left.
    pub most: usize,
}

/// Candidates of a picture.
#[derive(Default)]
pub(super) struct Candidates {
    pub boxes: Vec<Corners>,
    pub scores: Vec<f32>,
    pub labels: Vec<usize>,
}

impl Candidates {
    pub fn push(&mut self, corners: Corners, score: f32, label: usize) {
        self.boxes.push(corners);
        self.scores.push(score);
        self.labels.push(label);
    }

    /// The best that do not overlap within their class.
    pub fn suppress(self, selection: &Selection) -> Detections {
        let mut kept = batched_nms(&self.boxes, &self.scores, &self.labels, selection.iou);
        kept.truncate(selection.most);
        Detections {
            boxes: kept.iter().map(|&i| self.boxes[i]).collect(),
            scores: kept.iter().map(|&i| self.scores[i]).collect(),
            labels: kept.iter().map(|&i| self.labels[i]).collect(),
            masks: None,
        }
    }
}

/// How the candidates of nets are chosen that score each class of each anchor by itself: the best of each level.
pub(super) struct LevelCandidates {
    pub classes: usize,
    /// Anchors of each level.
    pub anchors: Vec<usize>,
    /// No logit below this can be a score above the threshold.
    pub least_logit: f32,
    pub selection: Selection,
}

impl LevelCandidates {
    /// What is left of a picture's logits `[anchors, classes]`, by score of logit and anchor and by corners of anchor.
    pub fn choose(
        &self,
        logits: &[f32],
        score: impl Fn(f32, usize) -> f32,
        corners: impl Fn(usize) -> Corners,
    ) -> Detections {
        let mut candidates = Candidates::default();
        let mut first = 0;
        for &anchors in &self.anchors {
            let places = first * self.classes..(first + anchors) * self.classes;
            let found = places.filter(|&place| logits[place] > self.least_logit).filter_map(|place| {
                let score = score(logits[place], place / self.classes);
                (score > self.selection.score).then_some((score, place))
            });
            for (score, place) in best(found.collect(), self.selection.candidates) {
                candidates.push(corners(place / self.classes), score, place % self.classes);
            }
            first += anchors;
        }
        candidates.suppress(&self.selection)
    }
}
