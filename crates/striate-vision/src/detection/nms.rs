//! From a detector's raw boxes to those that are shown: non-maximum suppression in its variants.
//!
//! All of it is f32 and follows torchvision's arithmetic and its comparisons, so that the same boxes come out. Equal scores stay in
//! the order given.

/// What happens to a box beside a better one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Suppression {
    /// It goes where the overlap (IoU) is above the threshold.
    Hard,
    /// It goes where the overlap less the distance of the centres, squared, in parts of the enclosing box's diagonal, is above the
    /// threshold: things behind each other survive. Zheng et al. 2020, "Distance-IoU loss".
    Diou,
    /// Its score falls by the factor `1 - IoU` where the overlap is above the threshold. Bodla et al. 2017, "Soft-NMS".
    SoftLinear,
    /// Its score falls by the factor `exp(-IoU² / sigma)`, whatever the threshold.
    SoftGaussian {
        /// 0.5 in the paper.
        sigma: f32,
    },
}

/// How boxes are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NmsOptions {
    /// What happens to a box beside a better one.
    pub suppression: Suppression,
    /// The overlap from which two boxes are taken for one thing, 0 to 1.
    pub iou: f32,
    /// Boxes must score at least this, also after softening.
    pub confidence: f32,
    /// Whether boxes of different classes suppress each other.
    pub agnostic: bool,
    /// Most boxes of a picture, the best.
    pub max_detections: usize,
    /// Most boxes that are looked at, the best before suppression.
    pub max_candidates: usize,
    /// [`postprocess`]: whether a box may count for several classes; else for its best one alone.
    pub multi_label: bool,
}

impl Default for NmsOptions {
    /// Hard, by class, IoU 0.6, confidence 0.25, at most 300 of 30,000 boxes, each of one class.
    fn default() -> Self {
        NmsOptions {
            suppression: Suppression::Hard,
            iou: 0.6,
            confidence: 0.25,
            agnostic: false,
            max_detections: 300,
            max_candidates: 30_000,
            multi_label: false,
        }
    }
}

/// A box of a class with its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoredBox {
    /// `[x1, y1, x2, y2]`
    pub xyxy: [f32; 4],
    /// Index of its class.
    pub class: usize,
    /// How sure the detector is.
    pub score: f32,
}

/// Width times height of a box `[x1, y1, x2, y2]`.
pub fn area([x1, y1, x2, y2]: [f32; 4]) -> f32 {
    (x2 - x1) * (y2 - y1)
}

/// Intersection over union of two boxes `[x1, y1, x2, y2]`; 0 where they do not meet or have no area.
pub fn iou_xyxy(a: [f32; 4], b: [f32; 4]) -> f32 {
    let w = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let h = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let inter = w * h;
    if inter > 0.0 { inter / (area(a) + area(b) - inter) } else { 0.0 }
}

/// The square of the distance of the centres in parts of that of the enclosing box's diagonal.
fn center_distance(a: [f32; 4], b: [f32; 4]) -> f32 {
    let side = |i: usize| a[i + 2].max(b[i + 2]) - a[i].min(b[i]);
    let apart = |i: usize| (a[i] + a[i + 2] - b[i] - b[i + 2]) / 2.0;
    let diagonal = side(0) * side(0) + side(1) * side(1);
    if diagonal > 0.0 { (apart(0) * apart(0) + apart(1) * apart(1)) / diagonal } else { 0.0 }
}

/// Chooses among the boxes of a picture; best first, with their new scores where they are softened.
///
/// Boxes with corners or scores that are not finite are left out.
///
/// ```
/// use striate_vision::detection::{NmsOptions, ScoredBox, Suppression, nms};
/// let at = |x: f32, class, score| ScoredBox { xyxy: [x, 0.0, x + 10.0, 10.0], class, score };
/// let boxes = [at(0.0, 0, 0.8), at(1.0, 0, 0.9), at(1.0, 1, 0.7), at(50.0, 0, 0.1)];
/// let classwise = NmsOptions::default();
/// assert_eq!(nms(&boxes, &classwise), [boxes[1], boxes[2]]);
/// assert_eq!(nms(&boxes, &NmsOptions { agnostic: true, ..classwise }), [boxes[1]]);
/// let soft = nms(&boxes, &NmsOptions { suppression: Suppression::SoftLinear, confidence: 0.1, ..classwise });
/// // IoU 9 / 11 leaves the other 2 / 11 of its score.
/// assert!((soft[2].score - 0.8 * 2.0 / 11.0).abs() < 1e-6);
/// ```
pub fn nms(boxes: &[ScoredBox], options: &NmsOptions) -> Vec<ScoredBox> {
    let is_sound =
        |b: &&ScoredBox| b.score >= options.confidence && b.score.is_finite() && b.xyxy.iter().all(|v| v.is_finite());
    let mut candidates: Vec<ScoredBox> = boxes.iter().filter(is_sound).copied().collect();
    sort(&mut candidates);
    candidates.truncate(options.max_candidates);
    match options.suppression {
        Suppression::Hard | Suppression::Diou => keep_hard(&candidates, options),
        Suppression::SoftLinear | Suppression::SoftGaussian { .. } => keep_soft(candidates, options),
    }
}

/// Best first; the sort is stable.
fn sort(boxes: &mut [ScoredBox]) {
    boxes.sort_by(|a, b| (b.score + 0.0).total_cmp(&(a.score + 0.0)));
}

/// Whether one box may act on another.
fn meets(a: &ScoredBox, b: &ScoredBox, options: &NmsOptions) -> bool {
    options.agnostic || a.class == b.class
}

/// The greedy rule, without a table of all pairs: of the candidates in their order, those that no candidate kept before them suppresses, until
/// there are `most`. `suppresses` gets the kept one first.
pub(crate) fn greedy(
    candidates: impl IntoIterator<Item = usize>,
    most: usize,
    suppresses: impl Fn(usize, usize) -> bool,
) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::new();
    for candidate in candidates {
        if kept.len() == most {
            break;
        }
        if !kept.iter().any(|&better| suppresses(better, candidate)) {
            kept.push(candidate);
        }
    }
    kept
}

/// A candidate stays unless a box that stayed before it is too near.
fn keep_hard(candidates: &[ScoredBox], options: &NmsOptions) -> Vec<ScoredBox> {
    let overlap = |a: &ScoredBox, b: &ScoredBox| {
        let iou = iou_xyxy(a.xyxy, b.xyxy);
        match options.suppression {
            Suppression::Diou => iou - center_distance(a.xyxy, b.xyxy),
            _ => iou,
        }
    };
    let kept = greedy(0..candidates.len(), options.max_detections, |better, candidate| {
        let (better, candidate) = (&candidates[better], &candidates[candidate]);
        meets(better, candidate, options) && overlap(better, candidate) > options.iou
    });
    kept.into_iter().map(|at| candidates[at]).collect()
}

/// Takes the best box that is left, and lowers the scores of those around it.
fn keep_soft(mut left: Vec<ScoredBox>, options: &NmsOptions) -> Vec<ScoredBox> {
    let mut kept = Vec::new();
    while kept.len() < options.max_detections {
        let best = (0..left.len()).reduce(|best, at| if left[at].score > left[best].score { at } else { best });
        let Some(best) = best else { break };
        // Not `swap_remove`: equal scores stay in order.
        let chosen = left.remove(best);
        for other in left.iter_mut().filter(|other| meets(&chosen, other, options)) {
            let iou = iou_xyxy(chosen.xyxy, other.xyxy);
            other.score *= match options.suppression {
                Suppression::SoftGaussian { sigma } => (-iou * iou / sigma).exp(),
                _ if iou > options.iou => 1.0 - iou,
                _ => 1.0,
            };
        }
        left.retain(|other| other.score >= options.confidence);
        kept.push(chosen);
    }
    kept
}

/// The boxes to show of a picture, best first: `boxes` are `[N, 4]` as `x1, y1, x2, y2`, `scores` `[N, classes]`, both row-major.
///
/// With [`NmsOptions::multi_label`] each score that is high enough is a candidate, else only the best of each box, the lower class
/// among equals.
///
/// ```
/// use striate_vision::detection::{NmsOptions, postprocess};
/// let boxes = [0.0, 0.0, 10.0, 10.0, 1.0, 0.0, 11.0, 10.0];
/// let scores = [0.1, 0.6, 0.7, 0.5];
/// let found = postprocess(&boxes, &scores, 2, &NmsOptions::default());
/// assert_eq!(found.iter().map(|b| (b.class, b.score)).collect::<Vec<_>>(), [(0, 0.7), (1, 0.6)]);
/// let found = postprocess(&boxes, &scores, 2, &NmsOptions { multi_label: true, ..NmsOptions::default() });
/// assert_eq!(found.len(), 2, "the second box's 0.5 of class 1 is suppressed by the first");
/// ```
///
/// # Panics
/// If the lengths do not fit, which is a mistake in the calling code.
pub fn postprocess(boxes: &[f32], scores: &[f32], classes: usize, options: &NmsOptions) -> Vec<ScoredBox> {
    let count = boxes.len() / 4;
    assert!(boxes.len() == 4 * count && scores.len() == count * classes, "boxes are [N, 4], scores [N, {classes}]");
    let mut candidates = Vec::new();
    for (corners, row) in boxes.chunks_exact(4).zip(scores.chunks_exact(classes.max(1))) {
        let xyxy = [corners[0], corners[1], corners[2], corners[3]];
        let scored = |class: usize| ScoredBox { xyxy, class, score: row[class] };
        if options.multi_label {
            candidates.extend((0..classes).map(scored).filter(|b| b.score >= options.confidence));
        } else {
            candidates.extend(
                (0..classes).map(scored).reduce(|best, next| if next.score > best.score { next } else { best }),
            );
        }
    }
    nms(&candidates, options)
}

#[cfg(test)]
#[path = "nms_tests.rs"]
mod tests;
