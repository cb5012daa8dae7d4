//! Non-maximum suppression as ONNX defines it.

/// How boxes are written and which are dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NmsSpec {
    /// Boxes are `[x_center, y_center, width, height]`, else `[y1, x1, y2, x2]` with any two opposite corners.
    pub center: bool,
    /// At most so many boxes of a class.
    pub most: usize,
    /// Boxes that overlap a better one by more (intersection over union) are dropped.
    pub iou_threshold: f32,
    /// Boxes with a score that is not greater are dropped; `None` keeps all.
    pub score_threshold: Option<f32>,
}

/// Corners `[y1, x1, y2, x2]`, the smaller first.
fn corners(center: bool, b: &[f32]) -> [f32; 4] {
    if center {
        let (half_w, half_h) = (b[2] / 2.0, b[3] / 2.0);
        return [b[1] - half_h, b[0] - half_w, b[1] + half_h, b[0] + half_w];
    }
    [b[0].min(b[2]), b[1].min(b[3]), b[0].max(b[2]), b[1].max(b[3])]
}

fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let side = |axis: usize| (a[axis + 2].min(b[axis + 2]) - a[axis].max(b[axis])).max(0.0);
    let area = |c: &[f32; 4]| (c[2] - c[0]) * (c[3] - c[1]);
    let (common, areas) = (side(0) * side(1), [area(a), area(b)]);
    // A box without area overlaps nothing.
    if common <= 0.0 || areas[0] <= 0.0 || areas[1] <= 0.0 { 0.0 } else { common / (areas[0] + areas[1] - common) }
}

/// Positions of the boxes of one class that are kept, the best first; of equal scores the one that stands first.
///
/// `boxes` holds four numbers a box, `scores` one. Scores that are NaN are dropped.
///
/// ```
/// use striate_kernels::reference::{NmsSpec, reference_nms};
/// let boxes = [0.0, 0.0, 1.0, 1.0, 0.0, 0.1, 1.0, 1.1, 0.0, 2.0, 1.0, 3.0];
/// let spec = NmsSpec { center: false, most: 10, iou_threshold: 0.5, score_threshold: None };
/// assert_eq!(reference_nms(&spec, &boxes, &[0.7, 0.9, 0.8]), [1, 2]);
/// ```
pub fn reference_nms(spec: &NmsSpec, boxes: &[f32], scores: &[f32]) -> Vec<usize> {
    let wanted = |score: f32| !score.is_nan() && spec.score_threshold.is_none_or(|least| score > least);
    let mut order: Vec<usize> = (0..scores.len()).filter(|&i| wanted(scores[i])).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut kept: Vec<(usize, [f32; 4])> = Vec::new();
    for candidate in order {
        if kept.len() == spec.most {
            break;
        }
        let found = corners(spec.center, &boxes[4 * candidate..4 * candidate + 4]);
        if kept.iter().all(|(_, better)| overlap(better, &found) <= spec.iou_threshold) {
            kept.push((candidate, found));
        }
    }
    kept.into_iter().map(|(index, _)| index).collect()
}
