//! What stands between the stages, as operations of the graph: what an exported model holds. `proposals.rs` has the same for the host,
//! which computes no region on a level where it does not lie.

use super::decoded::inside;
use super::losses;
use super::proposals::{
    BOX_CODER, FirstStage, LEAST_BOX, LEAST_PROPOSAL, MultiScaleRoiAlign, NOWHERE, ProposalRules, RPN_CODER, Regions,
};
use striate_graph::{Array, DType, Tensor};
use striate_io::onnx::{BoxSuppression, suppress_boxes};

/// The score of what is no candidate, and a threshold between it and all that are.
const NO_CANDIDATE: f64 = -1.0;
const ANY_CANDIDATE: f32 = -0.5;

/// Proposals of a batch: the best first, filled up with zeros.
pub(super) struct Proposed {
    /// `[N, most, 4]`
    pub corners: Tensor,
    /// Whether there is one, `[N, most]`.
    pub found: Tensor,
    pub regions: Regions,
}

impl Proposed {
    /// Pictures, and places of each.
    pub fn sizes(&self) -> [usize; 2] {
        [self.corners.size(0), self.corners.size(1)]
    }
}

/// Whether there is something, of labels that are -1 where there is nothing.
#[track_caller]
pub(super) fn is_found(labels: &Tensor) -> Tensor {
    labels.ge(&labels.scalar_like(0.0))
}

/// The shorter sides of boxes `[…, 4]`, without the last axis.
#[track_caller]
fn shorter_sides(corners: &Tensor) -> Tensor {
    let [x1, y1, x2, y2] = losses::columns(corners);
    (x2 - x1).minimum(&(y2 - y1)).squeeze(-1)
}

/// `values` where boxes `[…, 4]` have sides of at least this many pixels, else `other`.
#[track_caller]
fn where_at_least(side: f32, corners: &Tensor, values: &Tensor, other: f64) -> Tensor {
    let sides = shorter_sides(corners);
    values.where_(&sides.ge(&sides.scalar_like(f64::from(side))), &values.scalar_like(other))
}

/// The candidates of one level: corners `[N, K, 4]` and scores `[N, K]`.
#[track_caller]
fn candidates_of_level(
    [logits, offsets]: [&Tensor; 2],
    anchors: &[[f32; 4]],
    size: [usize; 2],
    rules: &ProposalRules,
) -> [Tensor; 2] {
    let (n, most) = (logits.size(0), rules.candidates.min(anchors.len()));
    let (best, places) = logits.reshape([n, anchors.len()]).topk(most, 1, true);
    let anchors = losses::constant(logits, anchors).reshape([anchors.len(), 4]).index_select(0, &places);
    let offsets = offsets.gather(1, &places.unsqueeze(-1).expand([n, most, 4]));
    let corners = inside(&losses::decode(&offsets, &anchors, RPN_CODER), size);
    let scores = best.sigmoid();
    let likely = scores.ge(&scores.scalar_like(f64::from(rules.score)));
    let scores = scores.where_(&likely, &scores.scalar_like(NO_CANDIDATE));
    let scores = where_at_least(LEAST_PROPOSAL, &corners, &scores, NO_CANDIDATE);
    [corners, scores]
}

/// The proposals of pictures of this height and width, as [`super::proposals::proposals`] has them. The choice begins behind a `detach`
/// of what the first stage says.
#[track_caller]
pub(super) fn proposed(
    stage: &FirstStage,
    size: [usize; 2],
    rules: &ProposalRules,
    align: &MultiScaleRoiAlign,
) -> Proposed {
    let (objectness, offsets) = (stage.objectness.detach(), stage.offsets.detach());
    let (mut corners, mut scores) = (Vec::new(), Vec::new());
    let mut first = 0;
    for &count in &stage.of_levels {
        let anchors = &stage.anchors[first..first + count];
        let of_level = [objectness.narrow(1, first, count), offsets.narrow(1, first, count)];
        let [boxes, probabilities] = candidates_of_level(of_level.each_ref(), anchors, size, rules);
        corners.push(boxes);
        scores.push(probabilities);
        first += count;
    }
    // Levels are to suppression what classes are: nothing suppresses what lies on another one.
    let level_of: Vec<usize> = (0..scores.len()).flat_map(|level| vec![level; scores[level].size(1)]).collect();
    let rows = (0..scores.len()).flat_map(|level| level_of.iter().map(move |of| *of == level)).collect::<Vec<bool>>();
    let rows = Array::from_vec([1, scores.len(), level_of.len()], rows).expect("a row a level");
    let all = Tensor::cat(&scores.iter().collect::<Vec<_>>(), 1).unsqueeze(1);
    let by_level = all.where_(&all.trace().constant(rows), &all.scalar_like(NO_CANDIDATE));
    let boxes = Tensor::cat(&corners.iter().collect::<Vec<_>>(), 1);
    let most = rules.most.min(level_of.len());
    let how = BoxSuppression { score: ANY_CANDIDATE, iou: rules.iou as f32, most };
    let [corners, _, labels] = suppress_boxes(&boxes, &by_level, how);
    let found = is_found(&labels);
    let regions = align.regions(&corners, &found);
    Proposed { corners, found, regions }
}

impl MultiScaleRoiAlign {
    /// Boxes `[N, most, 4]` as regions by level, where `found` `[N, most]` holds: as the host functions give them.
    #[track_caller]
    pub fn regions(&self, corners: &Tensor, found: &Tensor) -> Regions {
        let [n, most] = [corners.size(0), corners.size(1)];
        let nowhere = corners.scalar_like(f64::from(NOWHERE[0]));
        let corners = corners.where_(&found.unsqueeze(-1), &nowhere);
        let [x1, y1, x2, y2] = losses::columns(&corners);
        let size = ((x2 - x1) * (y2 - y1)).sqrt();
        let reaches = |level: usize| size.ge(&size.scalar_like(self.least_size(level)));
        let of = |level: usize| {
            let mut here = corners.clone();
            if level > 0 {
                here = here.where_(&reaches(level), &nowhere);
            }
            if level + 1 < self.strides.len() {
                here = nowhere.where_(&reaches(level + 1), &here);
            }
            here.reshape([n * most, 4])
        };
        Regions { by_level: (0..self.strides.len()).map(of).collect(), pictures: numbers_of_pictures(&corners) }
    }
}

/// Which picture each of the places `[N, most, …]` is of, `[N * most]`, for any N that a model is given.
#[track_caller]
fn numbers_of_pictures(like: &Tensor) -> Tensor {
    let [n, most] = [like.size(0), like.size(1)];
    let ones = like.trace().constant(Array::full([1, most], 1f32)).expand([n, most]);
    ones.cumsum(0).affine(1.0, -1.0).cast(DType::I64).reshape([n * most])
}

/// The boxes `[N, most, classes, 4]` and their probabilities `[N, most, classes]` that the second stage's logits and offsets say of
/// proposals in pictures of this height and width; of the classes from `first` on, 0 where there is no proposal or no box.
#[track_caller]
pub(super) fn boxes_of_classes(
    [logits, offsets]: [&Tensor; 2],
    proposed: &Proposed,
    (size, first): ([usize; 2], usize),
) -> [Tensor; 2] {
    let ([n, most], classes) = (proposed.sizes(), logits.size(2));
    let offsets = offsets.reshape([n, most, classes, 4]).narrow(2, first, classes - first);
    let boxes = inside(&losses::decode(&offsets, &proposed.corners.unsqueeze(2), BOX_CODER), size);
    let scores = logits.softmax(-1).narrow(-1, first, classes - first);
    let scores = where_at_least(LEAST_BOX, &boxes, &scores, 0.0);
    let scores = scores.where_(&proposed.found.unsqueeze(-1), &scores.scalar_like(0.0));
    [boxes, scores]
}

/// Of each box the probabilities of its label's mask, `[N, most, M, M]`, of the logits of all classes, `[N * most, classes, M, M]`; 0
/// where the label is -1. Label 0 is the class `first`.
#[track_caller]
pub(super) fn masks_of_labels(logits: &Tensor, labels: &Tensor, first: usize) -> Tensor {
    let [rows, side] = [logits.size(0), logits.size(2)];
    let [n, most] = [labels.size(0), labels.size(1)];
    let class = labels.cast(DType::F32).relu().affine(1.0, first as f32).cast(DType::I64);
    let own = logits.gather(1, &class.reshape([rows, 1, 1, 1]).expand([rows, 1, side, side]));
    let masks = own.sigmoid().reshape([n, most, side, side]);
    let found = is_found(labels).unsqueeze(-1).unsqueeze(-1);
    masks.where_(&found, &masks.scalar_like(0.0))
}

#[cfg(test)]
mod tests {
    use super::super::anchors::AnchorGenerator;
    use super::super::decoded::{Decoded, Groups};
    use super::super::heads::Selection;
    use super::super::proposals::{Boxes, found, proposals};
    use super::*;
    use striate_graph::{Mode, RunOptions, Trace, interpret};

    const SIZE: [usize; 2] = [96, 128];
    const LEVELS: [[usize; 2]; 2] = [[12, 16], [6, 8]];
    const MOST: usize = 60;
    const CLASSES: usize = 3;

    const PRIME: usize = 1447;

    /// Numbers from -3 to 3 in no order, of which no two are nearly equal: those of different `rank` below the prime.
    fn apart(shape: &[usize], rank: impl Fn(usize) -> usize) -> Array {
        let value = |i: usize| (rank(i + 1) % PRIME) as f32 / PRIME as f32 * 6.0 - 3.0;
        Array::from_vec(shape, (0..shape.iter().product()).map(value).collect::<Vec<f32>>()).unwrap()
    }

    fn waves(shape: &[usize]) -> Array {
        Array::from_vec(
            shape,
            (0..shape.iter().product()).map(|i: usize| (i as f32 * 0.37).sin() * 0.3).collect::<Vec<f32>>(),
        )
        .unwrap()
    }

    #[track_caller]
    fn assert_near(what: &str, found: &Array, wanted: &Array) {
        assert_eq!(found.shape(), wanted.shape(), "{what}");
        for (place, (a, b)) in found.to_f64_vec().into_iter().zip(wanted.to_f64_vec()).enumerate() {
            assert!((a - b).abs() < 1e-3, "{what}, {place}: {a} instead of {b}");
        }
    }

    #[test]
    fn operations_choose_what_the_host_chooses() {
        let generator = AnchorGenerator::new(vec![vec![16.0], vec![48.0]], vec![0.5, 1.0, 2.0]);
        let anchors = generator.anchors(SIZE, &LEVELS);
        let shapes = [[2, anchors.len(), 1], [2, anchors.len(), 4], [2, MOST, CLASSES], [2, MOST, 4 * CLASSES]];
        // Squares of the numbers below half of a prime are all different, and so are their steps: no two softmaxes are alike.
        let (spread, squares) = (|i: usize| 31 * i, |i: usize| 31 * i * i);
        let given = [apart(&shapes[0], spread), waves(&shapes[1]), apart(&shapes[2], squares), waves(&shapes[3])];
        let names = ["objectness", "offsets", "logits", "regression"];
        let trace = Trace::new(Mode::Eval);
        let [objectness, of_anchors, logits, of_classes] =
            [0, 1, 2, 3].map(|index| trace.input(names[index], shapes[index], DType::F32));
        let of_levels = LEVELS.iter().map(|[h, w]| 3 * h * w).collect();
        let stage = FirstStage { objectness, offsets: of_anchors, anchors, of_levels };
        let rules = ProposalRules { candidates: 100, most: MOST, iou: 0.7, score: 0.3 };
        // Boxes of 28 pixels and more lie on the coarse level.
        let align = MultiScaleRoiAlign { strides: vec![1, 2], out: 7 };
        let selection = Selection { score: 0.2, iou: 0.5, candidates: MOST, most: 30 };
        let (host, ours) = (proposals(&stage, SIZE, &rules, &align), proposed(&stage, SIZE, &rules, &align));
        let heads = [&logits, &of_classes];
        let left = found(heads, &host, (SIZE, &selection), &align);
        let [boxes, scores] = boxes_of_classes(heads, &ours, (SIZE, 1));
        let decoded = Decoded { boxes, scores, groups: Groups::Classes, chosen_from: Vec::new() };
        let chosen = decoded.choose(&selection);
        let Boxes { corners, regions, .. } = host;
        let pairs = [
            ("proposals", ours.corners, corners),
            ("fine regions", ours.regions.by_level[0].clone(), regions.by_level[0].clone()),
            ("coarse regions", ours.regions.by_level[1].clone(), regions.by_level[1].clone()),
            ("pictures", ours.regions.pictures, regions.pictures),
            ("boxes", chosen.boxes, left.boxes.corners),
            ("scores", chosen.scores, left.scores),
            // The host fills up with the background.
            ("labels", chosen.labels.cast(DType::F32).affine(1.0, 1.0), left.labels.cast(DType::F32)),
        ];
        let outputs: Vec<(&str, &Tensor)> = pairs.iter().flat_map(|(name, a, b)| [(*name, a), (*name, b)]).collect();
        let graph = trace.finish(&outputs).unwrap();
        let inputs: Vec<(&str, Array)> = names.into_iter().zip(given).collect();
        let values = interpret(&graph, &inputs, &RunOptions::default()).unwrap();
        for ((name, ..), pair) in pairs.iter().zip(values.chunks_exact(2)) {
            assert_near(name, &pair[0], &pair[1]);
        }
        let on = |level: usize| values[2 + 2 * level].f32s().unwrap().iter().filter(|v| **v > 0.0).count();
        assert!(on(0) > 20 && on(1) > 20, "regions on both levels: {} and {}", on(0), on(1));
        assert!(values[10].f32s().unwrap().iter().filter(|score| **score > 0.0).count() > 20);
    }
}
