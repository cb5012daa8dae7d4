//! Which anchor is to find which object: target assignment as a host function of a training graph.

use super::boxes::{BoxCoder, Corners, SideCoder};
use super::heads::{by_picture, four};
use crate::detection::{area, iou_xyxy};
use std::sync::{Arc, Once};
use striate_graph::{Array, DType, Shape, Tensor, register_host_function};

const ASSIGN: &str = "striate.detection.assign";

/// What is on a picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Truth {
    /// Corners in pixels of the batch, each with an area.
    pub boxes: Vec<Corners>,
    /// Classes, as the net counts them: 0 is the background.
    pub labels: Vec<usize>,
}

/// The truths of a batch as the inputs of a training graph: boxes `[N, most, 4]` padded with zeros, and labels `[N, most]` (i64)
/// padded with -1.
///
/// ```
/// use striate_vision::models::detection::{Truth, pad_truths};
/// let truth = Truth { boxes: vec![[1.0, 2.0, 3.0, 4.0]], labels: vec![7] };
/// let (boxes, labels) = pad_truths(&[truth], 2);
/// assert_eq!(boxes.shape().dims(), &[1, 2, 4]);
/// assert_eq!(labels.to_i64_vec(), [7, -1]);
/// ```
///
/// # Panics
/// Where a picture has more than `most` boxes, or not a label for each.
pub fn pad_truths(truths: &[Truth], most: usize) -> (Array, Array) {
    let mut boxes = vec![0f32; truths.len() * most * 4];
    let mut labels = vec![-1i64; truths.len() * most];
    for (picture, truth) in truths.iter().enumerate() {
        assert!(truth.boxes.len() <= most, "picture {picture} has {} boxes, at most {most} fit", truth.boxes.len());
        assert_eq!(truth.boxes.len(), truth.labels.len(), "boxes and labels of picture {picture}");
        for (index, (corners, label)) in truth.boxes.iter().zip(&truth.labels).enumerate() {
            let place = picture * most + index;
            boxes[4 * place..][..4].copy_from_slice(corners);
            labels[place] = *label as i64;
        }
    }
    let of = "as many values as the shape has";
    (
        Array::from_vec([truths.len(), most, 4], boxes).expect(of),
        Array::from_vec([truths.len(), most], labels).expect(of),
    )
}

/// How anchors and objects are matched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Matching {
    /// An anchor finds the object that it overlaps most, if by `high` at least; below `low` it is background, between both it
    /// does not count. An object that no anchor overlaps so much is found by those that overlap it most (Ren et al. 2015).
    Overlap { high: f64, low: f64 },
    /// As [`Matching::Overlap`] with one threshold, and each object is found by the one anchor that overlaps it most (Liu et al.
    /// 2015).
    BestOverlap { threshold: f64 },
    /// A pixel near the centre of an object finds it if the object is of its level's size; of several the smallest (Tian et al. 2020).
    Centre { radius: f64 },
}

impl Matching {
    fn numbers(self) -> [f64; 3] {
        match self {
            Matching::Overlap { high, low } => [0.0, high, low],
            Matching::BestOverlap { threshold } => [1.0, threshold, threshold],
            Matching::Centre { radius } => [2.0, radius, 0.0],
        }
    }

    fn of_numbers(numbers: &[f64]) -> Matching {
        match numbers[0] as u8 {
            0 => Matching::Overlap { high: numbers[1], low: numbers[2] },
            1 => Matching::BestOverlap { threshold: numbers[1] },
            _ => Matching::Centre { radius: numbers[1] },
        }
    }
}

/// What anchors are to find.
pub(super) struct Assigned {
    /// `[N, anchors]`, i64; 0 where there is no object.
    pub labels: Tensor,
    /// `[N, anchors, 4]`, zeros where there is none.
    pub boxes: Tensor,
    /// The boxes as codes beside their anchors, `[N, anchors, 4]`; ones where there is none.
    pub codes: Tensor,
    /// `[N, anchors, 1]`: 1 where there is an object, else 0.
    pub foreground: Tensor,
    /// `[N, anchors, 1]`: 0 where an anchor does not count, else 1.
    pub valid: Tensor,
}

/// What is known of the anchors.
pub(super) struct AnchorSet<'a> {
    pub anchors: &'a [Corners],
    /// How many there are on each level.
    pub of_levels: &'a [usize],
    /// How boxes are coded; by sides where there is none.
    pub coder: Option<BoxCoder>,
}

/// Assigns boxes `[N, most, 4]` and labels `[N, most]` (negative: none) to anchors.
#[track_caller]
pub(super) fn assign([boxes, labels]: [&Tensor; 2], set: &AnchorSet<'_>, matching: Matching) -> Assigned {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let assign = |inputs: &[Array]| assign_on_host(inputs).map_err(|error| error.to_string());
        register_host_function(ASSIGN, Arc::new(assign));
    });
    let (trace, n, count) = (boxes.trace(), boxes.size(0), set.anchors.len());
    let fits = "as many values as the shape has";
    let flat: Vec<f32> = set.anchors.iter().flatten().copied().collect();
    let anchors = trace.constant(Array::from_vec([count, 4], flat).expect(fits));
    let weights = set.coder.map_or([0.0; 4], BoxCoder::weights);
    let settings: Vec<f64> = matching.numbers().into_iter().chain(weights.map(f64::from)).collect();
    let settings = trace.constant(Array::from_vec([settings.len()], settings).expect(fits));
    let levels: Vec<i64> = set.of_levels.iter().map(|count| *count as i64).collect();
    let levels = trace.constant(Array::from_vec([levels.len()], levels).expect(fits));
    let of_anchors = |columns: usize| (Shape::from([n, count, columns]), DType::F32);
    let outputs = [(Shape::from([n, count]), DType::I64), of_anchors(4), of_anchors(4), of_anchors(1), of_anchors(1)];
    let found = trace.host_call(ASSIGN, &[boxes, labels, &anchors, &settings, &levels], &outputs, None);
    let [labels, boxes, codes, foreground, valid] = [0, 1, 2, 3, 4].map(|index| found[index].clone());
    Assigned { labels, boxes, codes, foreground, valid }
}

/// What an anchor is to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Object(usize),
    Background,
    /// It does not count.
    Between,
}

/// The host side of [`assign`].
fn assign_on_host(inputs: &[Array]) -> striate_graph::Result<Vec<Array>> {
    let [boxes, labels, anchors, settings, levels] = inputs else {
        return Err(striate_graph::Error::Internal(format!("{ASSIGN} takes 5 inputs")));
    };
    let anchors: Vec<Corners> = anchors.f32s()?.chunks_exact(4).map(|a| four(a, 0)).collect();
    let levels: Vec<usize> = levels.to_i64_vec().into_iter().map(|n| n as usize).collect();
    let settings = settings.to_f64_vec();
    let matching = Matching::of_numbers(&settings);
    let weights = [3, 4, 5, 6].map(|index| settings[index] as f32);
    let encode = |target: Corners, anchor: Corners| match weights[0] == 0.0 {
        true => SideCoder.encode(target, anchor),
        false => BoxCoder::new(weights).encode(target, anchor),
    };
    let (n, count) = (boxes.shape()[0], anchors.len());
    let most = labels.numel() / n.max(1);
    let all = labels.to_i64_vec();
    let (mut classes, mut found, mut codes) = (Vec::new(), Vec::new(), Vec::new());
    let (mut foreground, mut valid) = (Vec::new(), Vec::new());
    for (corners, labels) in by_picture(boxes)?.zip(all.chunks_exact(most.max(1))) {
        let there: Vec<usize> = (0..most).filter(|&index| labels[index] >= 0).collect();
        let objects: Vec<Corners> = there.iter().map(|&index| four(corners, index)).collect();
        for (found_by, anchor) in match_anchors(matching, &objects, &anchors, &levels).into_iter().zip(&anchors) {
            let object = if let Match::Object(index) = found_by { Some(index) } else { None };
            classes.push(object.map_or(0, |index| labels[there[index]]));
            found.extend(object.map_or([0.0; 4], |index| objects[index]));
            codes.extend(object.map_or([1.0; 4], |index| encode(objects[index], *anchor)));
            foreground.push(f32::from(u8::from(object.is_some())));
            valid.push(f32::from(u8::from(found_by != Match::Between)));
        }
    }
    Ok(vec![
        Array::from_vec([n, count], classes)?,
        Array::from_vec([n, count, 4], found)?,
        Array::from_vec([n, count, 4], codes)?,
        Array::from_vec([n, count, 1], foreground)?,
        Array::from_vec([n, count, 1], valid)?,
    ])
}

fn match_anchors(matching: Matching, objects: &[Corners], anchors: &[Corners], levels: &[usize]) -> Vec<Match> {
    if objects.is_empty() {
        return vec![Match::Background; anchors.len()];
    }
    match matching {
        Matching::Overlap { high, low } => by_overlap(objects, anchors, high, low),
        Matching::BestOverlap { threshold } => by_best_overlap(objects, anchors, threshold),
        Matching::Centre { radius } => by_centre(objects, anchors, levels, radius as f32),
    }
}

/// The object that an anchor overlaps most, of equals the first, and by how much.
pub(super) fn most_overlapped(objects: &[Corners], anchor: Corners) -> (usize, f32) {
    let overlaps = objects.iter().map(|object| iou_xyxy(*object, anchor)).enumerate();
    overlaps.reduce(|best, next| if next.1 > best.1 { next } else { best }).unwrap_or((0, 0.0))
}

/// By how much the anchor that overlaps an object most does so, and which is the first of them.
fn most_overlapping(object: Corners, anchors: &[Corners]) -> (usize, f32) {
    let overlaps = anchors.iter().map(|anchor| iou_xyxy(object, *anchor)).enumerate();
    overlaps.reduce(|best, next| if next.1 > best.1 { next } else { best }).unwrap_or((0, 0.0))
}

pub(super) fn judged((object, overlap): (usize, f32), high: f64, low: f64) -> Match {
    match f64::from(overlap) {
        overlap if overlap < low => Match::Background,
        overlap if overlap < high => Match::Between,
        _ => Match::Object(object),
    }
}

fn by_overlap(objects: &[Corners], anchors: &[Corners], high: f64, low: f64) -> Vec<Match> {
    let best: Vec<f32> = objects.iter().map(|object| most_overlapping(*object, anchors).1).collect();
    let of_anchor = |anchor: &Corners| {
        let found = most_overlapped(objects, *anchor);
        let is_best = objects.iter().zip(&best).any(|(object, best)| iou_xyxy(*object, *anchor) == *best);
        if is_best { Match::Object(found.0) } else { judged(found, high, low) }
    };
    anchors.iter().map(of_anchor).collect()
}

fn by_best_overlap(objects: &[Corners], anchors: &[Corners], threshold: f64) -> Vec<Match> {
    let mut matches: Vec<Match> =
        anchors.iter().map(|anchor| judged(most_overlapped(objects, *anchor), threshold, threshold)).collect();
    for (index, object) in objects.iter().enumerate() {
        matches[most_overlapping(*object, anchors).0] = Match::Object(index);
    }
    matches
}

/// More than any area: the smaller an object, the more of it is left when its area is subtracted.
const MOST_AREA: f32 = 1e8;

fn by_centre(objects: &[Corners], anchors: &[Corners], levels: &[usize], radius: f32) -> Vec<Match> {
    let (first, last) = (levels.first().copied().unwrap_or(0), levels.last().copied().unwrap_or(0));
    let of_anchor = |(index, anchor): (usize, &Corners)| {
        let size = anchor[2] - anchor[0];
        let (x, y) = ((anchor[0] + anchor[2]) / 2.0, (anchor[1] + anchor[3]) / 2.0);
        let least = if index < first { 0.0 } else { size * 4.0 };
        let most = if index >= anchors.len() - last { f32::INFINITY } else { size * 8.0 };
        let worth = |object: &Corners| {
            let [x1, y1, x2, y2] = *object;
            let off = (x - (x1 + x2) / 2.0).abs().max((y - (y1 + y2) / 2.0).abs());
            let sides = [x - x1, y - y1, x2 - x, y2 - y];
            let (nearest, farthest) = sides.iter().fold((f32::MAX, f32::MIN), |(l, h), s| (l.min(*s), h.max(*s)));
            let fits = off < radius * size && nearest > 0.0 && farthest > least && farthest < most;
            if fits { MOST_AREA - area(*object) } else { 0.0 }
        };
        let best = objects.iter().map(worth).enumerate();
        match best.reduce(|best, next| if next.1 > best.1 { next } else { best }) {
            Some((object, worth)) if worth >= 1e-5 => Match::Object(object),
            _ => Match::Background,
        }
    };
    anchors.iter().enumerate().map(of_anchor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: Corners = [0.0, 0.0, 10.0, 10.0];

    #[test]
    fn an_anchor_finds_is_background_or_does_not_count() {
        let anchors = [OBJECT, [0.0, 0.0, 10.0, 4.5], [0.0, 0.0, 10.0, 2.0]];
        let found = match_anchors(Matching::Overlap { high: 0.5, low: 0.4 }, &[OBJECT], &anchors, &[]);
        assert_eq!(found, [Match::Object(0), Match::Between, Match::Background]);
    }

    #[test]
    fn the_best_anchor_finds_an_object_that_none_overlaps_enough() {
        let anchors = [[0.0, 0.0, 10.0, 2.0], [0.0, 0.0, 10.0, 1.0]];
        for matching in [Matching::Overlap { high: 0.5, low: 0.4 }, Matching::BestOverlap { threshold: 0.5 }] {
            let found = match_anchors(matching, &[OBJECT], &anchors, &[]);
            assert_eq!(found, [Match::Object(0), Match::Background], "{matching:?}");
            assert_eq!(match_anchors(matching, &[], &anchors, &[]), [Match::Background; 2]);
        }
    }

    #[test]
    fn of_two_objects_at_a_centre_the_smaller_is_found_on_the_level_of_its_size() {
        let square = |side: f32| [32.0 - side / 2.0, 32.0 - side / 2.0, 32.0 + side / 2.0, 32.0 + side / 2.0];
        let objects = [square(60.0), square(20.0)];
        // A pixel of stride 8 in the middle, and one of stride 16.
        let anchors = [[28.0, 28.0, 36.0, 36.0], [24.0, 24.0, 40.0, 40.0]];
        let found = match_anchors(Matching::Centre { radius: 1.5 }, &objects, &anchors, &[1, 1]);
        assert_eq!(found, [Match::Object(1), Match::Background]);
    }
}
