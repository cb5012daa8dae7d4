//! What two-stage detectors do between their stages, as host functions of the graph: which boxes the second stage looks at, and on
//! which level of the pyramid. Numbers of boxes are padded to a declared maximum, so that all shapes are static.

use super::boxes::{BoxCoder, Corners, batched_nms, best, clip_to, is_at_least, sigmoid};
use super::detector::Detections;
use super::heads::{Candidates, Selection, by_picture, four};
use super::ssd::softmax;
use crate::detection::area;
use std::sync::{Arc, Once};
use striate_graph::{Array, DType, RoiAlignSpec, Shape, Tensor, register_host_function};

pub(super) const RPN_CODER: BoxCoder = BoxCoder::new([1.0; 4]);
pub(super) const BOX_CODER: BoxCoder = BoxCoder::new([10.0, 10.0, 5.0, 5.0]);
/// Proposals with a shorter side are dropped, in pixels.
pub(super) const LEAST_PROPOSAL: f32 = 1e-3;
/// Boxes of the second stage with a shorter side are dropped, in pixels.
pub(super) const LEAST_BOX: f32 = 1e-2;
/// A region of which no map has a pixel: it costs nothing, and its values are 0.
pub(super) const NOWHERE: Corners = [-1e6; 4];

/// A region as large as ImageNet's objects are, in pixels, is looked at on the map of a stride of 2 to the power of this.
const USUAL_SIZE: f32 = 224.0;
const USUAL_LEVEL: f32 = 4.0;
/// Rounding brings no region to a finer level.
const LEVEL_EPS: f32 = 1e-6;

const PROPOSE: &str = "striate.detection.propose";
const SELECT: &str = "striate.detection.select";

/// Makes the functions known to graphs.
fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let propose = |inputs: &[Array]| propose(inputs).map_err(|error| error.to_string());
        register_host_function(PROPOSE, Arc::new(propose));
        let select = |inputs: &[Array]| select(inputs).map_err(|error| error.to_string());
        register_host_function(SELECT, Arc::new(select));
    });
}

/// What the first stage leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ProposalRules {
    /// So many candidates of each level are looked at.
    pub candidates: usize,
    /// So many proposals are left.
    pub most: usize,
    /// Proposals that overlap a better one of their level by more are dropped.
    pub iou: f64,
    /// Proposals with a lower probability of being an object are dropped.
    pub score: f32,
}

/// Pooling of regions from the levels of a pyramid: a region is looked at on the level on which it is about as large as ImageNet's
/// objects (Lin et al. 2016, equation 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MultiScaleRoiAlign {
    /// Pixels of the picture by pixel of the map, powers of 2, by level.
    pub strides: Vec<usize>,
    /// Height and width of what is pooled.
    pub out: usize,
}

impl MultiScaleRoiAlign {
    /// Which of the levels a region is looked at on.
    fn level(&self, corners: Corners) -> usize {
        let [first, last] = [self.strides.first(), self.strides.last()].map(|s| s.map_or(0, |s| s.ilog2() as i64));
        // A region without area is looked at on the finest level: the logarithm is minus infinity.
        let wanted = (USUAL_LEVEL + (area(corners).sqrt() / USUAL_SIZE).log2() + LEVEL_EPS).floor() as i64;
        (wanted.clamp(first, last) - first) as usize
    }

    /// The root of the area from which on a region is looked at on this level or a coarser one; not of the finest level.
    pub fn least_size(&self, level: usize) -> f64 {
        let exponent = self.strides[level].ilog2() as f32 - USUAL_LEVEL - LEVEL_EPS;
        f64::from(USUAL_SIZE) * f64::from(exponent).exp2()
    }

    /// The regions of each level, `[regions, 4]`: those of other levels lie nowhere.
    fn by_level(&self, regions: &[Corners]) -> striate_graph::Result<Vec<Array>> {
        let levels: Vec<usize> = regions.iter().map(|region| self.level(*region)).collect();
        let of = |level: usize| {
            let here = regions.iter().zip(&levels).map(|(region, at)| if *at == level { *region } else { NOWHERE });
            Array::from_vec([regions.len(), 4], here.flatten().collect::<Vec<f32>>())
        };
        (0..self.strides.len()).map(of).collect()
    }

    /// Pools regions, given by level as the host functions give them, each from the map of its picture: `[regions, C, out, out]`.
    #[track_caller]
    pub fn pool(&self, maps: &[Tensor], regions: &Regions) -> Tensor {
        let mut sum: Option<Tensor> = None;
        for ((map, of_level), stride) in maps.iter().zip(&regions.by_level).zip(&self.strides) {
            let (out, scale) = ([self.out; 2], 1.0 / *stride as f32);
            let spec = RoiAlignSpec { out, scale, sampling_ratio: 2, aligned: false, max: false };
            let pooled = map.roi_align(of_level, &regions.pictures, spec);
            sum = Some(sum.map_or_else(|| pooled.clone(), |sum| &sum + &pooled));
        }
        sum.expect("a pyramid has levels")
    }
}

/// Regions as a host function gives them.
pub(super) struct Regions {
    /// `[N * most, 4]` for each level; elsewhere than on its level a region lies nowhere.
    pub by_level: Vec<Tensor>,
    /// Which picture each region is of, `[N * most]`, i64.
    pub pictures: Tensor,
}

impl Regions {
    /// The first `count` regions of each picture.
    #[track_caller]
    pub fn first(&self, pictures: usize, count: usize) -> Regions {
        let all = self.pictures.size(0) / pictures.max(1);
        let of = |level: &Tensor| first_rows(&level.reshape([pictures, all, 4]), count).reshape([pictures * count, 4]);
        let by_level = self.by_level.iter().map(of).collect();
        Regions { by_level, pictures: pictures_of(&self.pictures, pictures, count) }
    }
}

/// The first rows of each picture of `[N, rows, …]`.
#[track_caller]
pub(super) fn first_rows(x: &Tensor, count: usize) -> Tensor {
    x.narrow(1, 0, count)
}

/// Which picture each of `most` regions a picture is of.
#[track_caller]
pub(super) fn pictures_of(like: &Tensor, pictures: usize, most: usize) -> Tensor {
    let numbers: Vec<i64> = (0..pictures * most).map(|region| (region / most) as i64).collect();
    like.trace().constant(Array::from_vec([pictures * most], numbers).expect("as many as regions"))
}

/// A constant of numbers in double precision.
#[track_caller]
pub(super) fn numbers(like: &Tensor, values: Vec<f64>) -> Tensor {
    like.trace().constant(Array::from_vec([values.len()], values).expect("as many as values"))
}

pub(super) fn pooling(align: &MultiScaleRoiAlign) -> Vec<f64> {
    align.strides.iter().map(|stride| *stride as f64).collect()
}

pub(super) fn strides_in(array: &Array) -> MultiScaleRoiAlign {
    MultiScaleRoiAlign { strides: array.to_f64_vec().into_iter().map(|s| s as usize).collect(), out: 0 }
}

/// What the first stage says: `[N, anchors, 1]` and `[N, anchors, 4]`, the anchors, and how many there are on each level.
pub(super) struct FirstStage {
    pub objectness: Tensor,
    pub offsets: Tensor,
    pub anchors: Vec<Corners>,
    pub of_levels: Vec<usize>,
}

/// Boxes of a batch: `[N, most, 4]` padded with zeros, how many they are `[N]` (i64), and where to pool them.
pub(super) struct Boxes {
    pub corners: Tensor,
    pub counts: Tensor,
    pub regions: Regions,
}

/// The proposals of pictures of this height and width. No gradient flows through them.
#[track_caller]
pub(super) fn proposals(
    stage: &FirstStage,
    size: [usize; 2],
    rules: &ProposalRules,
    align: &MultiScaleRoiAlign,
) -> Boxes {
    register();
    let (n, most) = (stage.objectness.size(0), rules.most);
    let trace = stage.objectness.trace();
    let values: Vec<f32> = stage.anchors.iter().flatten().copied().collect();
    let anchors = trace.constant(Array::from_vec([stage.anchors.len(), 4], values).expect("four numbers an anchor"));
    let [height, width] = size.map(|side| side as f64);
    let settings = vec![height, width, rules.candidates as f64, most as f64, rules.iou, f64::from(rules.score)];
    let settings = numbers(&anchors, settings);
    let levels = numbers(&anchors, stage.of_levels.iter().map(|count| *count as f64).collect());
    let strides = numbers(&anchors, pooling(align));
    let inputs = [&stage.objectness.detach(), &stage.offsets.detach(), &anchors, &settings, &levels, &strides];
    let mut outputs = vec![(Shape::from([n, most, 4]), DType::F32), (Shape::from([n]), DType::I64)];
    outputs.extend(align.strides.iter().map(|_| (Shape::from([n * most, 4]), DType::F32)));
    let mut found = trace.host_call(PROPOSE, &inputs, &outputs, None).into_iter();
    let (Some(corners), Some(counts)) = (found.next(), found.next()) else { unreachable!("both are declared") };
    let pictures = pictures_of(&anchors, n, most);
    Boxes { corners, counts, regions: Regions { by_level: found.collect(), pictures } }
}

/// The host side of [`proposals`].
fn propose(inputs: &[Array]) -> striate_graph::Result<Vec<Array>> {
    let [objectness, offsets, anchors, settings, levels, strides] = inputs else {
        return Err(striate_graph::Error::Internal(format!("{PROPOSE} takes 6 inputs")));
    };
    let anchors: Vec<Corners> = anchors.f32s()?.chunks_exact(4).map(|a| four(a, 0)).collect();
    let settings = settings.to_f64_vec();
    let size = [settings[0] as usize, settings[1] as usize];
    let (candidates, most) = (settings[2] as usize, settings[3] as usize);
    let rules = ProposalRules { candidates, most, iou: settings[4], score: settings[5] as f32 };
    let levels: Vec<usize> = levels.to_f64_vec().into_iter().map(|n| n as usize).collect();
    let pictures = by_picture(objectness)?.zip(by_picture(offsets)?);
    let found =
        pictures.map(|(objectness, offsets)| propose_in((objectness, offsets, &anchors), (size, &levels), &rules));
    padded(found.collect(), most, &strides_in(strides))
}

/// Proposals of one picture, the best first.
fn propose_in(
    (objectness, offsets, anchors): (&[f32], &[f32], &[Corners]),
    (size, levels): ([usize; 2], &[usize]),
    rules: &ProposalRules,
) -> Vec<Corners> {
    let mut candidates = Candidates::default();
    let mut first = 0;
    for (level, count) in levels.iter().enumerate() {
        let of_level = objectness[first..first + count].iter().copied().zip(first..).collect();
        for (logit, anchor) in best(of_level, rules.candidates) {
            let corners = clip_to(size, RPN_CODER.decode(four(offsets, anchor), anchors[anchor]));
            let score = sigmoid(logit);
            if is_at_least(LEAST_PROPOSAL, corners) && score >= rules.score {
                candidates.push(corners, score, level);
            }
        }
        first += count;
    }
    let kept = batched_nms(&candidates.boxes, &candidates.scores, &candidates.labels, rules.iou);
    kept.into_iter().take(rules.most).map(|index| candidates.boxes[index]).collect()
}

/// Boxes of pictures as `[N, most, 4]`, how many they are, and the regions by level.
pub(super) fn padded(
    found: Vec<Vec<Corners>>,
    most: usize,
    align: &MultiScaleRoiAlign,
) -> striate_graph::Result<Vec<Array>> {
    let n = found.len();
    let counts = found.iter().map(|boxes| boxes.len() as i64).collect();
    let mut regions = vec![NOWHERE; n * most];
    let mut corners = vec![[0f32; 4]; n * most];
    for (picture, boxes) in found.into_iter().enumerate() {
        for (index, found) in boxes.into_iter().take(most).enumerate() {
            (regions[picture * most + index], corners[picture * most + index]) = (found, found);
        }
    }
    let flat = corners.into_iter().flatten().collect::<Vec<f32>>();
    let mut arrays = vec![Array::from_vec([n, most, 4], flat)?, Array::from_vec([n], counts)?];
    arrays.extend(align.by_level(&regions)?);
    Ok(arrays)
}

/// What the second stage says of each proposal, and what it is about.
pub(super) struct SecondStage<'a> {
    /// `[N, most, classes]`
    pub logits: &'a Array,
    /// `[N, most, 4 * classes]`
    pub offsets: &'a Array,
    /// `[N, most, 4]`
    pub proposals: &'a Array,
    /// `[N]`
    pub counts: &'a Array,
}

impl SecondStage<'_> {
    /// The boxes of each picture of this height and width.
    pub fn detections(&self, size: [usize; 2], selection: &Selection) -> striate_graph::Result<Vec<Detections>> {
        let classes = self.logits.shape()[2];
        let heads = by_picture(self.logits)?.zip(by_picture(self.offsets)?);
        let counts = self.counts.to_i64_vec();
        let pictures = heads.zip(by_picture(self.proposals)?).zip(counts);
        Ok(pictures
            .map(|(((logits, offsets), proposals), count)| {
                let mut candidates = Candidates::default();
                for proposal in 0..count as usize {
                    let scores = softmax(&logits[proposal * classes..][..classes]);
                    for (label, score) in scores.into_iter().enumerate().skip(1) {
                        if score <= selection.score {
                            continue;
                        }
                        let offsets = four(offsets, proposal * classes + label);
                        let corners = clip_to(size, BOX_CODER.decode(offsets, four(proposals, proposal)));
                        if is_at_least(LEAST_BOX, corners) {
                            candidates.push(corners, score, label);
                        }
                    }
                }
                candidates.suppress(selection)
            })
            .collect())
    }
}

/// What is found in a batch, as values of the graph: a third stage looks at it.
pub(super) struct Found {
    pub boxes: Boxes,
    /// `[N, most]`
    pub scores: Tensor,
    /// `[N, most]`, i64.
    pub labels: Tensor,
}

/// The boxes of the second stage's `[logits, offsets]` of proposals, in pictures of this height and width.
#[track_caller]
pub(super) fn found(
    [logits, offsets]: [&Tensor; 2],
    proposals: &Boxes,
    (size, selection): ([usize; 2], &Selection),
    align: &MultiScaleRoiAlign,
) -> Found {
    register();
    let (n, most) = (logits.size(0), selection.most);
    let [height, width] = size.map(|side| side as f64);
    let settings = numbers(logits, vec![height, width, f64::from(selection.score), selection.iou, most as f64]);
    let strides = numbers(logits, pooling(align));
    let inputs = [logits, offsets, &proposals.corners, &proposals.counts, &settings, &strides];
    let mut outputs = vec![(Shape::from([n, most, 4]), DType::F32), (Shape::from([n]), DType::I64)];
    outputs.extend(align.strides.iter().map(|_| (Shape::from([n * most, 4]), DType::F32)));
    outputs.extend([(Shape::from([n, most]), DType::F32), (Shape::from([n, most]), DType::I64)]);
    let mut values = logits.trace().host_call(SELECT, &inputs, &outputs, None);
    let (Some(labels), Some(scores)) = (values.pop(), values.pop()) else { unreachable!("both are declared") };
    let by_level = values.split_off(2);
    let (Some(counts), Some(corners)) = (values.pop(), values.pop()) else { unreachable!("both are declared") };
    let pictures = pictures_of(logits, n, most);
    Found { boxes: Boxes { corners, counts, regions: Regions { by_level, pictures } }, scores, labels }
}

/// The host side of [`found`].
fn select(inputs: &[Array]) -> striate_graph::Result<Vec<Array>> {
    let [logits, offsets, proposals, counts, settings, strides] = inputs else {
        return Err(striate_graph::Error::Internal(format!("{SELECT} takes 6 inputs")));
    };
    let settings = settings.to_f64_vec();
    let (size, most) = ([settings[0] as usize, settings[1] as usize], settings[4] as usize);
    let selection = Selection { score: settings[2] as f32, iou: settings[3], candidates: 0, most };
    let found = SecondStage { logits, offsets, proposals, counts }.detections(size, &selection)?;
    let n = found.len();
    let (mut scores, mut labels) = (vec![0f32; n * most], vec![0i64; n * most]);
    for (picture, found) in found.iter().enumerate() {
        for (index, (score, label)) in found.scores.iter().zip(&found.labels).enumerate() {
            (scores[picture * most + index], labels[picture * most + index]) = (*score, *label as i64);
        }
    }
    let mut arrays = padded(found.into_iter().map(|found| found.boxes).collect(), most, &strides_in(strides))?;
    arrays.extend([Array::from_vec([n, most], scores)?, Array::from_vec([n, most], labels)?]);
    Ok(arrays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_looked_at_on_the_level_of_its_size() {
        let align = MultiScaleRoiAlign { strides: vec![4, 8, 16, 32], out: 7 };
        let square = |side: f32| [10.0, 10.0, 10.0 + side, 10.0 + side];
        let levels = [0.0, 20.0, 111.0, 112.0, 224.0, 447.0, 448.0, 2000.0].map(|side| align.level(square(side)));
        assert_eq!(levels, [0, 0, 0, 1, 2, 2, 3, 3]);
        // The same by size: what an exported model compares.
        for side in [0.0, 20.0, 111.99, 112.0, 223.99, 224.0, 447.99, 448.0, 2000.0] {
            let level = (1..4).filter(|level| f64::from(side) >= align.least_size(*level)).count();
            assert_eq!(level, align.level(square(side)), "{side}");
        }
        let by_level = align.by_level(&[square(20.0), square(300.0)]).unwrap();
        assert_eq!(by_level[0].f32s().unwrap(), [&square(20.0)[..], &NOWHERE[..]].concat());
        assert_eq!(by_level[2].f32s().unwrap(), [&NOWHERE[..], &square(300.0)[..]].concat());
    }
}
