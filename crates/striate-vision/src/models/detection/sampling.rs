//! What detectors of two stages learn from in a step: a sample of the anchors, and a sample of the proposals with the objects
//! themselves among them (Ren et al. 2015, section 3.1; Girshick 2015, section 2.3). The samplers are host functions of the training
//! graph that take the lowest of random numbers: those come from the graph's generator, by seed, layer and step. No gradient flows
//! through what they choose.

use super::boxes::Corners;
use super::heads::{by_picture, four};
use super::proposals::{
    BOX_CODER, Boxes, MultiScaleRoiAlign, Regions, numbers, padded, pictures_of, pooling, strides_in,
};
use super::targets::{Assigned, Match, judged, most_overlapped};
use std::sync::{Arc, Once};
use striate_graph::{Array, DType, RandomKind, Shape, Tensor, register_host_function};

/// How many anchors and proposals of each picture the stages of a detector learn from in a step; torchvision's names and defaults.
///
/// ```
/// use striate_vision::models::detection::Sampling;
/// let all = Sampling { box_batch_size_per_image: 1 << 20, ..Sampling::default() };
/// assert_eq!((all.rpn_batch_size_per_image, all.box_positive_fraction), (256, 0.25));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Anchors of a picture, at most (256).
    pub rpn_batch_size_per_image: usize,
    /// Part of them that may have an object, at most (0.5).
    pub rpn_positive_fraction: f64,
    /// Proposals of a picture, at most (512).
    pub box_batch_size_per_image: usize,
    /// Part of them that may have an object, at most (0.25).
    pub box_positive_fraction: f64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            rpn_batch_size_per_image: 256,
            rpn_positive_fraction: 0.5,
            box_batch_size_per_image: 512,
            box_positive_fraction: 0.25,
        }
    }
}

/// How many of a picture are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quota {
    all: usize,
    positive: usize,
}

impl Quota {
    fn new(all: usize, fraction: f64) -> Quota {
        Quota { all, positive: ((all as f64 * fraction) as usize).min(all) }
    }

    fn numbers(self) -> Vec<f64> {
        vec![self.all as f64, self.positive as f64]
    }

    fn of_numbers(array: &Array) -> Quota {
        let numbers = array.to_f64_vec();
        Quota { all: numbers[0] as usize, positive: numbers[1] as usize }
    }

    /// Those of the lowest priority: first of the positive ones, then of the negative ones as many as there is still room for.
    fn choose(self, positive: Vec<usize>, negative: Vec<usize>, priority: &[f32]) -> Vec<usize> {
        let lowest = |mut places: Vec<usize>, most: usize| {
            // Stable: of equal priorities the first is taken.
            places.sort_by(|&a, &b| priority[a].total_cmp(&priority[b]));
            places.truncate(most);
            places
        };
        let mut chosen = lowest(positive, self.positive);
        let room = self.all - chosen.len();
        chosen.extend(lowest(negative, room));
        chosen
    }
}

const CHOOSE: &str = "striate.detection.sample_anchors";
const SAMPLE: &str = "striate.detection.sample_proposals";

/// Makes the functions known to graphs.
fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let choose = |inputs: &[Array]| choose_anchors(inputs).map_err(|error| error.to_string());
        register_host_function(CHOOSE, Arc::new(choose));
        let sample = |inputs: &[Array]| sample_on_host(inputs).map_err(|error| error.to_string());
        register_host_function(SAMPLE, Arc::new(sample));
    });
}

/// 1 for the anchors that the first stage learns from, else 0: `[N, anchors, 1]`.
#[track_caller]
pub(super) fn sample_anchors(assigned: &Assigned, sampling: &Sampling) -> Tensor {
    register();
    let (trace, shape) = (assigned.foreground.trace(), assigned.foreground.shape());
    let priority = trace.random(RandomKind::Uniform, "anchors", shape.clone());
    let quota = Quota::new(sampling.rpn_batch_size_per_image, sampling.rpn_positive_fraction);
    let quota = numbers(&priority, quota.numbers());
    let inputs = [&assigned.foreground, &assigned.valid, &priority, &quota];
    trace.host_call(CHOOSE, &inputs, &[(shape, DType::F32)], None).remove(0)
}

/// The host side of [`sample_anchors`].
fn choose_anchors(inputs: &[Array]) -> striate_graph::Result<Vec<Array>> {
    let [foreground, valid, priority, quota] = inputs else {
        return Err(striate_graph::Error::Internal(format!("{CHOOSE} takes 4 inputs")));
    };
    let quota = Quota::of_numbers(quota);
    let mut weights = Vec::with_capacity(foreground.numel());
    let pictures = by_picture(foreground)?.zip(by_picture(valid)?).zip(by_picture(priority)?);
    for ((of_object, valid), priority) in pictures {
        let counts = (0..valid.len()).filter(|&anchor| valid[anchor] != 0.0);
        let (positive, negative) = counts.partition(|&anchor| of_object[anchor] != 0.0);
        let mut of_picture = vec![0f32; valid.len()];
        quota.choose(positive, negative, priority).into_iter().for_each(|anchor| of_picture[anchor] = 1.0);
        weights.extend(of_picture);
    }
    Ok(vec![Array::from_vec(foreground.shape(), weights)?])
}

/// What the second stage learns from: `most` proposals a picture, those with an object first, padded.
pub(super) struct SampledProposals {
    pub boxes: Boxes,
    /// `[N, most]`, i64; 0 is the background, and padding.
    pub labels: Tensor,
    /// The objects as codes beside the proposals, `[N, most, 4]`; zeros where there is none.
    pub codes: Tensor,
    /// `[N, most, 1]`: 1 where there is an object, else 0.
    pub foreground: Tensor,
    /// `[N, most, 1]`: 0 for padding, else 1.
    pub valid: Tensor,
    /// Place of the object among those of the batch, `[N, most]`, i64; 0 where there is none.
    pub objects: Tensor,
    /// So many of a picture have an object, at most.
    pub most_positive: usize,
}

/// Samples proposals, the objects `[N, objects, 4]` with their labels `[N, objects]` (negative: none) among them.
#[track_caller]
pub(super) fn sample_proposals(
    proposed: &Boxes,
    [boxes, labels]: [&Tensor; 2],
    sampling: &Sampling,
    align: &MultiScaleRoiAlign,
) -> SampledProposals {
    register();
    let (trace, n) = (boxes.trace(), boxes.size(0));
    let candidates = proposed.corners.size(1) + boxes.size(1);
    let quota = Quota::new(sampling.box_batch_size_per_image, sampling.box_positive_fraction);
    // No more places than candidates.
    let quota = Quota { all: quota.all.min(candidates), positive: quota.positive.min(candidates) };
    let most = quota.all;
    let priority = trace.random(RandomKind::Uniform, "proposals", [n, candidates]);
    let (settings, strides) = (numbers(boxes, quota.numbers()), numbers(boxes, pooling(align)));
    let inputs = [&proposed.corners, &proposed.counts, boxes, labels, &priority, &settings, &strides];
    let of = |columns: usize| (Shape::from([n, most, columns]), DType::F32);
    let whole = || (Shape::from([n, most]), DType::I64);
    let mut outputs = vec![whole(), of(4), of(1), of(1), whole(), of(4), (Shape::from([n]), DType::I64)];
    outputs.extend(align.strides.iter().map(|_| (Shape::from([n * most, 4]), DType::F32)));
    let mut found = trace.host_call(SAMPLE, &inputs, &outputs, None);
    let by_level = found.split_off(7);
    let [labels, codes, foreground, valid, objects, corners, counts] = [0, 1, 2, 3, 4, 5, 6].map(|i| found[i].clone());
    let regions = Regions { by_level, pictures: pictures_of(boxes, n, most) };
    let boxes = Boxes { corners, counts, regions };
    SampledProposals { boxes, labels, codes, foreground, valid, objects, most_positive: quota.positive }
}

/// The host side of [`sample_proposals`].
fn sample_on_host(inputs: &[Array]) -> striate_graph::Result<Vec<Array>> {
    let [proposals, counts, boxes, labels, priority, settings, strides] = inputs else {
        return Err(striate_graph::Error::Internal(format!("{SAMPLE} takes 7 inputs")));
    };
    let quota = Quota::of_numbers(settings);
    let (n, most, places) = (boxes.shape()[0], quota.all, boxes.shape()[1]);
    let (counts, all_labels) = (counts.to_i64_vec(), labels.to_i64_vec());
    let (mut classes, mut objects) = (vec![0i64; n * most], vec![0i64; n * most]);
    let mut codes = vec![0f32; n * most * 4];
    let (mut foreground, mut valid) = (vec![0f32; n * most], vec![0f32; n * most]);
    let mut chosen = Vec::with_capacity(n);
    let pictures = by_picture(proposals)?.zip(by_picture(boxes)?).zip(by_picture(priority)?);
    for (picture, ((proposals, boxes), priority)) in pictures.enumerate() {
        let labels = &all_labels[picture * places..][..places];
        let there: Vec<usize> = (0..places).filter(|&object| labels[object] >= 0).collect();
        let truths: Vec<Corners> = there.iter().map(|&object| four(boxes, object)).collect();
        let proposed = (0..counts[picture] as usize).map(|proposal| four(proposals, proposal));
        let candidates: Vec<Corners> = proposed.chain(truths.iter().copied()).collect();
        let matches: Vec<Option<usize>> = candidates.iter().map(|candidate| matched(&truths, *candidate)).collect();
        let (positive, negative) = (0..candidates.len()).partition(|&candidate| matches[candidate].is_some());
        let of_picture = quota.choose(positive, negative, priority);
        for (place, &candidate) in (picture * most..).zip(&of_picture) {
            valid[place] = 1.0;
            let Some(truth) = matches[candidate] else { continue };
            foreground[place] = 1.0;
            classes[place] = labels[there[truth]];
            objects[place] = (picture * places + there[truth]) as i64;
            codes[4 * place..][..4].copy_from_slice(&BOX_CODER.encode(truths[truth], candidates[candidate]));
        }
        chosen.push(of_picture.into_iter().map(|candidate| candidates[candidate]).collect());
    }
    let mut arrays = vec![
        Array::from_vec([n, most], classes)?,
        Array::from_vec([n, most, 4], codes)?,
        Array::from_vec([n, most, 1], foreground)?,
        Array::from_vec([n, most, 1], valid)?,
        Array::from_vec([n, most], objects)?,
    ];
    arrays.extend(padded(chosen, most, &strides_in(strides))?);
    Ok(arrays)
}

/// An object is found by what overlaps it by at least this.
const LEAST_OVERLAP: f64 = 0.5;

/// The object that a candidate is to find.
fn matched(objects: &[Corners], candidate: Corners) -> Option<usize> {
    match judged(most_overlapped(objects, candidate), LEAST_OVERLAP, LEAST_OVERLAP) {
        Match::Object(object) => Some(object),
        Match::Background | Match::Between => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_are_chosen_and_negatives_fill_what_positives_leave() {
        let priority = [0.5, 0.1, 0.9, 0.2, 0.3, 0.4];
        let quota = Quota::new(4, 0.5);
        assert_eq!(quota.choose(vec![0, 1, 2], vec![3, 4, 5], &priority), [1, 0, 3, 4]);
        assert_eq!(quota.choose(vec![2], vec![3, 4, 5], &priority), [2, 3, 4, 5]);
        assert_eq!(quota.choose(vec![0, 1, 2], vec![5], &priority), [1, 0, 5]);
        assert!(Quota::new(0, 0.5).choose(vec![0], vec![1], &priority).is_empty());
    }

    #[test]
    fn objects_are_among_the_candidates_and_padding_does_not_count() {
        let one = [0.0f32, 0.0, 10.0, 10.0];
        let proposals = [[0.0f32, 0.0, 10.0, 8.0], [20.0, 20.0, 30.0, 30.0], [0.0; 4]].concat();
        let inputs = [
            Array::from_vec([1, 3, 4], proposals).unwrap(),
            Array::from_vec([1], vec![2i64]).unwrap(),
            Array::from_vec([1, 2, 4], [[0.0; 4], one].concat()).unwrap(),
            Array::from_vec([1, 2], vec![-1i64, 7]).unwrap(),
            Array::from_vec([1, 5], vec![0.3f32, 0.1, 0.2, 0.0, 0.0]).unwrap(),
            Array::from_vec([2], vec![4.0f32, 2.0]).unwrap(),
            Array::from_vec([1], vec![4.0f32]).unwrap(),
        ];
        let found = sample_on_host(&inputs).unwrap();
        assert_eq!(found[0].to_i64_vec(), [7, 7, 0, 0]);
        // The object itself first, as its code says.
        assert_eq!(found[1].f32s().unwrap()[..4], [0.0; 4]);
        assert!(found[1].f32s().unwrap()[7] > 0.0);
        assert_eq!(found[2].f32s().unwrap(), [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(found[3].f32s().unwrap(), [1.0, 1.0, 1.0, 0.0]);
        assert_eq!(found[4].to_i64_vec(), [1, 1, 0, 0]);
        assert_eq!(found[5].f32s().unwrap()[..4], one);
        assert_eq!(found[6].to_i64_vec(), [3]);
    }
}
