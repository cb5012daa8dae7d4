//! The losses of detectors: torchvision's as torchvision computes them, and our own's.

use super::assign::Aligned;
use super::boxes::{BoxCoder, Corners, MOST_GROWTH};
use super::sampling::SampledProposals;
use super::striate_det::BINS;
use super::targets::Assigned;
use std::sync::{Arc, Once};
use striate_graph::{Array, DType, Tensor, register_host_function};
use striate_nn::loss::{BCEWithLogitsLoss, L1Loss, Reduction, SigmoidFocalLoss, SmoothL1Loss};

/// Keeps quotients of areas finite.
const EPS: f32 = 1e-7;

/// `max(1, x)`: a picture without objects is divided by 1.
#[track_caller]
fn at_least_one(count: &Tensor) -> Tensor {
    count.clamp(1.0, f32::MAX)
}

/// Loss of each element of `[N, anchors, K]`, weighed by `[N, anchors, 1]`, summed by picture: `[N]`.
#[track_caller]
fn by_picture(loss: &Tensor, weight: &Tensor) -> Tensor {
    (loss * weight).sum(&[1, 2], false)
}

/// Objects of each picture, `[N]`.
#[track_caller]
fn objects(assigned: &Assigned) -> Tensor {
    assigned.foreground.sum(&[1, 2], false)
}

/// Focal loss of each class of each anchor, 0 where the anchor does not count: summed by picture, `[N]`.
#[track_caller]
fn focal(logits: &Tensor, assigned: &Assigned) -> Tensor {
    let targets = assigned.labels.one_hot(logits.size(2)) * &assigned.foreground;
    by_picture(&SigmoidFocalLoss::new().call(logits, &targets), &assigned.valid)
}

/// How RetinaNet's offsets are compared with what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BoxLoss {
    /// Absolute differences of the codes.
    L1,
    /// Generalised overlap of the boxes.
    GIoU,
}

/// RetinaNet's losses, each picture by its number of objects.
#[track_caller]
pub(super) fn retinanet(
    [logits, offsets]: [&Tensor; 2],
    assigned: &Assigned,
    (kind, coder, anchors): (BoxLoss, BoxCoder, &[Corners]),
) -> Vec<(&'static str, Tensor)> {
    let count = at_least_one(&objects(assigned));
    let of_boxes = match kind {
        BoxLoss::L1 => {
            by_picture(&L1Loss::new().reduction(Reduction::None).call(offsets, &assigned.codes), &assigned.foreground)
        }
        BoxLoss::GIoU => {
            let boxes = decode(offsets, &constant(offsets, anchors), coder);
            by_picture(&giou(&boxes, &assigned.boxes), &assigned.foreground)
        }
    };
    vec![
        ("classification", (focal(logits, assigned) / &count).mean_all()),
        ("bbox_regression", (of_boxes / &count).mean_all()),
    ]
}

/// FCOS's losses, by the number of objects of the batch.
#[track_caller]
pub(super) fn fcos(
    [logits, sides, nearness]: [&Tensor; 3],
    assigned: &Assigned,
    anchors: &[Corners],
) -> Vec<(&'static str, Tensor)> {
    let count = at_least_one(&objects(assigned).sum_all());
    let boxes = decode_sides(sides, &constant(sides, anchors));
    let of_boxes = by_picture(&giou(&boxes, &assigned.boxes), &assigned.foreground);
    let [left, top, right, bottom] = columns(&assigned.codes);
    let part = |a: &Tensor, b: &Tensor| a.minimum(b) / a.maximum(b);
    let target = (part(&left, &right) * part(&top, &bottom)).sqrt();
    let of_nearness = BCEWithLogitsLoss::new().reduction(Reduction::None).call(nearness, &target);
    vec![
        ("classification", focal(logits, assigned).sum_all() / &count),
        ("bbox_regression", of_boxes.sum_all() / &count),
        ("bbox_ctrness", by_picture(&of_nearness, &assigned.foreground).sum_all() / &count),
    ]
}

/// Anchors of the background that count for each object.
const NEGATIVES: usize = 3;
const MINE: &str = "striate.detection.hard_negatives";

/// SSD's losses, by the number of objects of the batch: of the background only the anchors count that are hardest to tell.
#[track_caller]
pub(super) fn ssd([logits, offsets]: [&Tensor; 2], assigned: &Assigned) -> Vec<(&'static str, Tensor)> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mine = |inputs: &[Array]| hard_negatives(inputs).map_err(|error| error.to_string());
        register_host_function(MINE, Arc::new(mine));
    });
    let count = at_least_one(&objects(assigned).sum_all());
    let labels = assigned.labels.unsqueeze(-1);
    let of_class = -logits.log_softmax(-1).gather(-1, &labels);
    let shape = of_class.shape();
    let inputs = [&of_class.detach(), &assigned.foreground];
    let hard = logits.trace().host_call(MINE, &inputs, &[(shape, DType::F32)], None).remove(0);
    let of_boxes = SmoothL1Loss::new().reduction(Reduction::None).call(offsets, &assigned.codes);
    vec![
        ("bbox_regression", by_picture(&of_boxes, &assigned.foreground).sum_all() / &count),
        ("classification", by_picture(&of_class, &(&assigned.foreground + &hard)).sum_all() / &count),
    ]
}

/// 1 for the anchors of the background with the greatest losses, [`NEGATIVES`] for each object of the picture.
fn hard_negatives(inputs: &[Array]) -> striate_graph::Result<Vec<Array>> {
    let [losses, foreground] = inputs else {
        return Err(striate_graph::Error::Internal(format!("{MINE} takes 2 inputs")));
    };
    let mut chosen = Vec::with_capacity(losses.numel());
    for (losses, foreground) in super::heads::by_picture(losses)?.zip(super::heads::by_picture(foreground)?) {
        let mut order: Vec<usize> = (0..losses.len()).filter(|&index| foreground[index] == 0.0).collect();
        order.sort_by(|&a, &b| losses[b].total_cmp(&losses[a]));
        order.truncate(NEGATIVES * (losses.len() - order.len()));
        let mut of_picture = vec![0f32; losses.len()];
        order.into_iter().for_each(|index| of_picture[index] = 1.0);
        chosen.extend(of_picture);
    }
    Ok(vec![Array::from_vec(losses.shape(), chosen)?])
}

/// From this difference on the losses of both stages' offsets are linear.
const SMOOTH: f64 = 1.0 / 9.0;

/// Smooth absolute differences of offsets and codes, by anchor or proposal as weighed by `[N, rows, 1]`, summed.
#[track_caller]
fn of_offsets(offsets: &Tensor, codes: &Tensor, weight: &Tensor) -> Tensor {
    let loss = SmoothL1Loss::new().beta(SMOOTH).reduction(Reduction::None).call(offsets, codes);
    by_picture(&loss, weight).sum_all()
}

/// Faster R-CNN's losses of the first stage, of the anchors that were sampled (1 in `[N, anchors, 1]`) and by their number.
#[track_caller]
pub(super) fn first_stage(
    [objectness, offsets]: [&Tensor; 2],
    assigned: &Assigned,
    sampled: &Tensor,
) -> [(&'static str, Tensor); 2] {
    let count = at_least_one(&sampled.sum_all());
    let of_objects = BCEWithLogitsLoss::new().reduction(Reduction::None).call(objectness, &assigned.foreground);
    let of_boxes = of_offsets(offsets, &assigned.codes, &(&assigned.foreground * sampled));
    [("loss_objectness", by_picture(&of_objects, sampled).sum_all() / &count), ("loss_rpn_box_reg", of_boxes / &count)]
}

/// Faster R-CNN's losses of the second stage, `[N, most, classes]` and `[N, most, 4 * classes]`, by the number of proposals.
#[track_caller]
pub(super) fn second_stage([logits, offsets]: [&Tensor; 2], sampled: &SampledProposals) -> [(&'static str, Tensor); 2] {
    let count = at_least_one(&sampled.valid.sum_all());
    let [n, most, classes] = [0, 1, 2].map(|axis| logits.size(axis));
    let of_class = -logits.log_softmax(-1).gather(-1, &sampled.labels.unsqueeze(-1));
    let chosen = sampled.labels.one_hot(classes).unsqueeze(-1);
    let offsets = (offsets.reshape([n, most, classes, 4]) * chosen).sum(&[2], false);
    [
        ("loss_classifier", by_picture(&of_class, &sampled.valid).sum_all() / &count),
        ("loss_box_reg", of_offsets(&offsets, &sampled.codes, &sampled.foreground) / &count),
    ]
}

/// Mask R-CNN's loss of masks: logits `[rows, classes, M, M]`, of the labels `[rows]` (i64) alone, against what is there
/// `[rows, 1, M, M]`; the mean over the rows that count (1 in `[rows, 1]`).
#[track_caller]
pub(super) fn masks([logits, truth]: [&Tensor; 2], labels: &Tensor, counted: &Tensor) -> Tensor {
    let [rows, classes, height, width] = [0, 1, 2, 3].map(|axis| logits.size(axis));
    let pixels = height * width;
    let chosen = labels.one_hot(classes).unsqueeze(-1);
    let logits = (logits.reshape([rows, classes, pixels]) * chosen).sum(&[1], false);
    let loss = BCEWithLogitsLoss::new().reduction(Reduction::None).call(&logits, &truth.reshape([rows, pixels]));
    let count = at_least_one(&counted.sum_all());
    (loss * counted).sum_all() / count * (1.0 / pixels as f32)
}

/// The expected distance in cells of each side, of logits of its bins `[N, cells, 4 * BINS]`; its box `[N, cells, 4]`.
#[track_caller]
pub(super) fn corners_of_bins(bins: &Tensor, cells: &[Corners]) -> Tensor {
    let [n, count] = [0, 1].map(|axis| bins.size(axis));
    let parts = bins.reshape([n * count * 4, BINS]).softmax(-1);
    let sides = (parts * bin_numbers(bins)).sum(&[1], false).reshape([n, count, 4]);
    decode_sides(&sides, &constant(&sides, cells))
}

/// The numbers of the bins, `[1, BINS]`.
#[track_caller]
fn bin_numbers(like: &Tensor) -> Tensor {
    let numbers: Vec<f32> = (0..BINS).map(|bin| bin as f32).collect();
    like.trace().constant(Array::from_vec([1, BINS], numbers).expect("as many as there are bins"))
}

/// Factors of the losses of boxes and of their distributions beside that of the classes (Li et al. 2020, section 4; Lyu et al. 2022).
const BOX_FACTOR: f32 = 2.0;
const BINS_FACTOR: f32 = 0.25;

/// striate_det's losses, by the sum of what the cells are to score: quality focal loss of the classes and distribution focal loss of
/// the sides (Li et al. 2020), generalised overlap of the boxes.
#[track_caller]
pub(super) fn striate_det([logits, bins, corners]: [&Tensor; 3], aligned: &Aligned) -> Vec<(&'static str, Tensor)> {
    let count = at_least_one(&aligned.weight.sum_all());
    let off = logits.sigmoid() - &aligned.scores;
    let of_classes = BCEWithLogitsLoss::new().reduction(Reduction::None).call(logits, &aligned.scores) * off.square();
    let of_boxes = giou(corners, &aligned.boxes) * &aligned.weight;
    // The target lies on the two bins beside it, on each by how near it is: a hat over the distance.
    let sides = aligned.sides.reshape([aligned.sides.shape().numel(), 1]);
    let hat = (sides - bin_numbers(bins)).abs().affine(-1.0, 1.0).relu();
    let log_parts = bins.reshape(hat.shape()).log_softmax(-1);
    let of_sides = (hat * log_parts).sum(&[1], false).reshape(aligned.sides.shape()) * &aligned.weight;
    vec![
        ("box_loss", of_boxes.sum_all() / &count * BOX_FACTOR),
        ("cls_loss", of_classes.sum_all() / &count),
        // Each cell's mean over its four sides.
        ("dfl_loss", of_sides.sum_all() / &count * (-BINS_FACTOR / 4.0)),
    ]
}

/// The four columns of `[…, 4]`, each `[…, 1]`.
#[track_caller]
pub(super) fn columns(x: &Tensor) -> [Tensor; 4] {
    [0, 1, 2, 3].map(|column| x.narrow(-1, column, 1))
}

/// Anchors as a constant `[1, anchors, 4]`.
#[track_caller]
pub(super) fn constant(like: &Tensor, anchors: &[Corners]) -> Tensor {
    let values: Vec<f32> = anchors.iter().flatten().copied().collect();
    like.trace().constant(Array::from_vec([1, anchors.len(), 4], values).expect("four numbers an anchor"))
}

/// Boxes of offsets from anchors, as [`BoxCoder::decode`].
#[track_caller]
pub(super) fn decode(offsets: &Tensor, anchors: &Tensor, coder: BoxCoder) -> Tensor {
    let [x1, y1, x2, y2] = columns(anchors);
    let [wx, wy, ww, wh] = coder.weights();
    let [dx, dy, dw, dh] = columns(offsets);
    let axis = |(low, high): (&Tensor, &Tensor), (shift, weight): (&Tensor, f32), (growth, of_size): (&Tensor, f32)| {
        let size = high - low;
        let centre = low + &(&size * 0.5);
        let middle = &(shift / weight) * &size + &centre;
        let half = (growth / of_size).clamp(f32::MIN, MOST_GROWTH).exp() * &size * 0.5;
        [&middle - &half, &middle + &half]
    };
    let [left, right] = axis((&x1, &x2), (&dx, wx), (&dw, ww));
    let [top, bottom] = axis((&y1, &y2), (&dy, wy), (&dh, wh));
    Tensor::cat(&[&left, &top, &right, &bottom], -1)
}

/// Boxes of distances of their sides, as [`super::SideCoder::decode`].
#[track_caller]
pub(super) fn decode_sides(sides: &Tensor, anchors: &Tensor) -> Tensor {
    let [x1, y1, x2, y2] = columns(anchors);
    let [left, top, right, bottom] = columns(sides);
    let (w, h, x, y) = (&x2 - &x1, &y2 - &y1, (&x1 + &x2) * 0.5, (&y1 + &y2) * 0.5);
    let corners = [&x - &(left * &w), &y - &(top * &h), &x + &(right * &w), &y + &(bottom * &h)];
    Tensor::cat(&corners.each_ref(), -1)
}

/// 1 less the generalised overlap of boxes `[N, anchors, 4]` (Rezatofighi et al. 2019): `[N, anchors, 1]`.
#[track_caller]
fn giou(boxes: &Tensor, targets: &Tensor) -> Tensor {
    let ([x1, y1, x2, y2], [gx1, gy1, gx2, gy2]) = (columns(boxes), columns(targets));
    let area = |x1: &Tensor, y1: &Tensor, x2: &Tensor, y2: &Tensor| (x2 - x1) * (y2 - y1);
    let common = (x2.minimum(&gx2) - x1.maximum(&gx1)).relu() * (y2.minimum(&gy2) - y1.maximum(&gy1)).relu();
    let union = area(&x1, &y1, &x2, &y2) + area(&gx1, &gy1, &gx2, &gy2) - &common;
    let around = area(&x1.minimum(&gx1), &y1.minimum(&gy1), &x2.maximum(&gx2), &y2.maximum(&gy2));
    let iou = &common / &(&union + EPS);
    let unused = (&around - &union) / (&around + EPS);
    (iou - unused).affine(-1.0, 1.0)
}
