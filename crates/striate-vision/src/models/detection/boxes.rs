//! Boxes on the host: how they are coded beside an anchor, clipped, compared and sorted out. All in f32 and in the order in which
//! torchvision computes, so that its numbers come out.

use crate::detection::{greedy, iou_xyxy};

/// Corners x1, y1, x2, y2 in pixels; x to the right, y down.
pub type Corners = [f32; 4];

/// Boxes as offsets from anchors: `(dx, dy)` of the centres in sizes of the anchor, `(dw, dh)` logarithms of the ratios of the
/// sizes, each times a weight (Girshick et al. 2014, R-CNN, appendix C).
///
/// ```
/// use striate_vision::models::detection::BoxCoder;
/// let coder = BoxCoder::new([10.0, 10.0, 5.0, 5.0]);
/// let anchor = [0.0, 0.0, 10.0, 20.0];
/// assert_eq!(coder.decode([1.0, 0.0, 0.0, 0.0], anchor), [1.0, 0.0, 11.0, 20.0]);
/// assert_eq!(coder.encode([1.0, 0.0, 11.0, 20.0], anchor), [1.0, 0.0, 0.0, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoxCoder {
    weights: [f32; 4],
}

/// A box gets no larger than its anchor by more than this, 1000 / 16, as a logarithm: exponentials stay finite.
pub(super) const MOST_GROWTH: f32 = 4.135_166_6;

/// Centre x, centre y, width, height.
fn centred([x1, y1, x2, y2]: Corners) -> [f32; 4] {
    let (w, h) = (x2 - x1, y2 - y1);
    [x1 + 0.5 * w, y1 + 0.5 * h, w, h]
}

impl BoxCoder {
    /// With weights for dx, dy, dw, dh.
    pub const fn new(weights: [f32; 4]) -> BoxCoder {
        BoxCoder { weights }
    }

    /// The weights for dx, dy, dw, dh.
    pub const fn weights(self) -> [f32; 4] {
        self.weights
    }

    /// The offsets of a box, which must have an area, from an anchor.
    pub fn encode(&self, target: Corners, anchor: Corners) -> [f32; 4] {
        let ([x, y, w, h], [ax, ay, aw, ah]) = (centred(target), centred(anchor));
        let [wx, wy, ww, wh] = self.weights;
        [wx * (x - ax) / aw, wy * (y - ay) / ah, ww * (w / aw).ln(), wh * (h / ah).ln()]
    }

    /// The box of offsets from an anchor.
    pub fn decode(&self, offsets: [f32; 4], anchor: Corners) -> Corners {
        let [ax, ay, aw, ah] = centred(anchor);
        let scaled = |index: usize| offsets[index] / self.weights[index];
        let (x, y) = (scaled(0) * aw + ax, scaled(1) * ah + ay);
        let grown = |index: usize, size: f32| 0.5 * (scaled(index).min(MOST_GROWTH).exp() * size);
        let (half_w, half_h) = (grown(2, aw), grown(3, ah));
        [x - half_w, y - half_h, x + half_w, y + half_h]
    }
}

/// Boxes as the distances of their four sides from the centre of an anchor, in sizes of the anchor (Tian et al. 2019, FCOS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SideCoder;

impl SideCoder {
    /// The distances of the sides left, top, right, bottom.
    pub fn encode(self, target: Corners, anchor: Corners) -> [f32; 4] {
        let (w, h) = (anchor[2] - anchor[0], anchor[3] - anchor[1]);
        let (x, y) = (0.5 * (anchor[0] + anchor[2]), 0.5 * (anchor[1] + anchor[3]));
        [(x - target[0]) / w, (y - target[1]) / h, (target[2] - x) / w, (target[3] - y) / h]
    }

    /// The box whose sides are so far away.
    pub fn decode(self, sides: [f32; 4], anchor: Corners) -> Corners {
        let (w, h) = (anchor[2] - anchor[0], anchor[3] - anchor[1]);
        let (x, y) = (0.5 * (anchor[0] + anchor[2]), 0.5 * (anchor[1] + anchor[3]));
        [x - sides[0] * w, y - sides[1] * h, x + sides[2] * w, y + sides[3] * h]
    }
}

/// The part of a box inside a picture of this height and width.
pub fn clip_to([height, width]: [usize; 2], [x1, y1, x2, y2]: Corners) -> Corners {
    let (w, h) = (width as f32, height as f32);
    [x1.clamp(0.0, w), y1.clamp(0.0, h), x2.clamp(0.0, w), y2.clamp(0.0, h)]
}

/// The box in a picture that is resized from one height and width to another.
pub fn resize_box(from: [usize; 2], to: [usize; 2], [x1, y1, x2, y2]: Corners) -> Corners {
    let [ry, rx] = [0, 1].map(|axis| to[axis] as f32 / from[axis] as f32);
    [x1 * rx, y1 * ry, x2 * rx, y2 * ry]
}

/// Whether both sides are at least so long.
pub fn is_at_least(side: f32, [x1, y1, x2, y2]: Corners) -> bool {
    x2 - x1 >= side && y2 - y1 >= side
}

/// Positions of scores, the best first; of equals, and of those that cannot be compared, the one that stands first.
fn descending(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

/// Non-maximum suppression: the boxes in the order of their scores, without those that overlap a better one that is kept by more
/// than the threshold. Positions, the best first.
pub fn nms(boxes: &[Corners], scores: &[f32], iou_threshold: f64) -> Vec<usize> {
    greedy(descending(scores), usize::MAX, |better, candidate| overlap_more(boxes, iou_threshold, better, candidate))
}

fn overlap_more(boxes: &[Corners], threshold: f64, better: usize, candidate: usize) -> bool {
    f64::from(iou_xyxy(boxes[better], boxes[candidate])) > threshold
}

/// From so many numbers on, torchvision suppresses group by group on the CPU.
const MOST_SHIFTED: usize = 4000;

/// Non-maximum suppression within groups (classes, or levels of a pyramid). Positions, the best first.
///
/// A few boxes are moved apart by group and suppressed together, as torchvision does: moving rounds the coordinates, which may
/// decide an overlap at the threshold, so its detections come out only this way.
pub fn batched_nms(boxes: &[Corners], scores: &[f32], groups: &[usize], iou_threshold: f64) -> Vec<usize> {
    if 4 * boxes.len() <= MOST_SHIFTED {
        let largest = boxes.iter().flatten().copied().fold(f32::NEG_INFINITY, f32::max);
        let shift = |(corners, group): (&Corners, &usize)| corners.map(|v| v + *group as f32 * (largest + 1.0));
        let moved: Vec<Corners> = boxes.iter().zip(groups).map(shift).collect();
        return nms(&moved, scores, iou_threshold);
    }
    let order = descending(scores);
    let mut by_group = std::collections::BTreeMap::<usize, Vec<usize>>::new();
    order.iter().for_each(|&index| by_group.entry(groups[index]).or_default().push(index));
    let mut kept = vec![false; boxes.len()];
    for group in by_group.into_values() {
        let of_group = greedy(group, usize::MAX, |better, other| overlap_more(boxes, iou_threshold, better, other));
        of_group.into_iter().for_each(|index| kept[index] = true);
    }
    order.into_iter().filter(|&index| kept[index]).collect()
}

/// The `most` best of `(score, what)`, the best first; of equals the one that came first.
pub(super) fn best<T>(mut found: Vec<(f32, T)>, most: usize) -> Vec<(f32, T)> {
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.truncate(most);
    found
}

/// `1 / (1 + e^-x)`.
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// A logit surely below all whose sigmoid is above the threshold: it spares the exponential of the many that are far below.
pub(super) fn logit_below(threshold: f32) -> f32 {
    (threshold / (1.0 - threshold)).ln() - 1e-3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_undoes_encoding() {
        let (anchor, target) = ([3.0, 5.0, 40.0, 30.0], [10.0, 2.0, 35.0, 60.0]);
        let near = |a: Corners, b: Corners| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        let coder = BoxCoder::new([10.0, 10.0, 5.0, 5.0]);
        assert!(near(coder.decode(coder.encode(target, anchor), anchor), target));
        assert!(near(SideCoder.decode(SideCoder.encode(target, anchor), anchor), target));
    }

    #[test]
    fn a_box_grows_no_further_than_the_limit() {
        let [x1, .., x2, _] = BoxCoder::new([1.0; 4]).decode([0.0, 0.0, 1e9, 0.0], [0.0, 0.0, 16.0, 16.0]);
        assert!((x2 - x1 - 1000.0).abs() < 1e-2, "{}", x2 - x1);
    }

    #[test]
    fn suppression_stays_within_groups_however_many_boxes_there_are() {
        let boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 1.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]];
        let (scores, groups) = ([0.6, 0.9, 0.8, 0.7], [1, 1, 2, 1]);
        assert_eq!(nms(&boxes, &scores, 0.5), [1, 3]);
        assert_eq!(batched_nms(&boxes, &scores, &groups, 0.5), [1, 2, 3]);
        // Far apart, so that none suppresses another: only the way of computing changes with their number.
        let row = |i: usize| [50.0 * i as f32 + 100.0, 0.0, 50.0 * i as f32 + 110.0, 10.0];
        let many: Vec<Corners> = boxes.into_iter().chain((0..1000).map(row)).collect();
        let scores: Vec<f32> = scores.into_iter().chain((0..1000).map(|i| 0.5 - i as f32 * 1e-4)).collect();
        let groups: Vec<usize> = groups.into_iter().chain((0..1000).map(|i| i % 3)).collect();
        let kept = batched_nms(&many, &scores, &groups, 0.5);
        assert_eq!((&kept[..4], kept.len()), (&[1, 2, 3, 4][..], 1003));
    }

    #[test]
    fn a_box_of_no_area_suppresses_nothing() {
        let empty = [5.0, 5.0, 5.0, 5.0];
        assert_eq!(nms(&[empty, empty], &[0.9, 0.8], 0.5), [0, 1]);
    }

    #[test]
    fn clipping_and_sizes() {
        assert_eq!(clip_to([20, 30], [-5.0, 3.0, 40.0, 25.0]), [0.0, 3.0, 30.0, 20.0]);
        assert_eq!(resize_box([10, 20], [20, 10], [2.0, 2.0, 4.0, 4.0]), [1.0, 4.0, 2.0, 8.0]);
        assert!(is_at_least(1.0, [0.0, 0.0, 1.0, 1.0]) && !is_at_least(1.0, [0.0, 0.0, 1.0, 0.5]));
    }
}
