//! From matches to figures.

use super::matching::{
    AREAS, Detection, GroundTruth, MOST_DETECTIONS, Matched, Scene, Side, THRESHOLDS, sort_by_score,
};
use std::collections::{BTreeMap, BTreeSet};

/// Names of [`CocoFigures::stats`], in order.
pub const STAT_NAMES: [&str; 12] =
    ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"];
/// Recalls at which precision is read.
const RECALLS: usize = 101;

/// The figures of one class; `None` where pycocotools has -1: nothing of the class is there to be found.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassAp {
    /// Number of the class.
    pub category: i64,
    /// Mean over the ten thresholds.
    pub ap: Option<f64>,
    /// At IoU 0.5.
    pub ap50: Option<f64>,
    /// At IoU 0.75.
    pub ap75: Option<f64>,
    /// Things of the class that count.
    pub things: usize,
    /// Detections of the class, at most 100 of each picture.
    pub detections: usize,
    /// Precision at IoU 0.5 and recalls 0, 0.01, … 1, as the average takes them; empty without things.
    pub precision50: Vec<f64>,
    /// The same at each confidence.
    pub curve: Curve,
}

/// Precision and recall at IoU 0.5 as the confidence falls; detections that count for nothing are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Scores, best first.
    pub scores: Vec<f64>,
    /// Of the detections so far, the part that is right.
    pub precision: Vec<f64>,
    /// Of the things, the part that is found so far.
    pub recall: Vec<f64>,
}

impl Curve {
    /// Precision and recall of the detections whose score is at least `confidence`; without any, precision 1 and recall 0.
    pub fn at(&self, confidence: f64) -> [f64; 2] {
        match self.scores.partition_point(|score| *score >= confidence) {
            0 => [1.0, 0.0],
            n => [self.precision[n - 1], self.recall[n - 1]],
        }
    }

    /// Harmonic mean of precision and recall at a confidence.
    pub fn f1(&self, confidence: f64) -> f64 {
        let [precision, recall] = self.at(confidence);
        if precision + recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
    }
}

/// What COCO says of a detector.
#[derive(Clone, Debug, PartialEq)]
pub struct CocoFigures {
    /// [`STAT_NAMES`], from 0 to 1; -1 where there is nothing to judge by, as in pycocotools.
    pub stats: [f64; 12],
    /// By class, in the order of their numbers.
    pub classes: Vec<ClassAp>,
}

impl CocoFigures {
    /// The confidence at which the mean F1 of the classes that have things is largest, with that mean; the least among equals.
    pub fn best_f1(&self) -> (f64, f64) {
        let judged: Vec<&ClassAp> = self.classes.iter().filter(|class| class.things > 0).collect();
        let mean = |confidence: f64| {
            judged.iter().map(|class| class.curve.f1(confidence)).sum::<f64>() / judged.len().max(1) as f64
        };
        let best = |best: (f64, f64), step: i32| {
            let confidence = f64::from(step) / 1000.0;
            let f1 = mean(confidence);
            if f1 > best.1 { (confidence, f1) } else { best }
        };
        (0..=1000).fold((0.0, -1.0), best)
    }
}

/// [threshold][recall] and the recall that is reached, for a class, a range of areas and a number of detections.
struct Cell {
    precision: [[f64; RECALLS]; THRESHOLDS],
    recall: [f64; THRESHOLDS],
}

/// Judges detections as `COCOeval(gt, dt, "bbox")` does: the twelve numbers of `summarize`, and the same by class.
///
/// `images` and `categories` are the numbers of all pictures and classes; what speaks of others is left out. Pictures are taken in
/// the order of their numbers, boxes in the order given.
pub fn evaluate_coco(images: &[i64], categories: &[i64], truth: &[GroundTruth], found: &[Detection]) -> CocoFigures {
    let images: BTreeSet<i64> = images.iter().copied().collect();
    let categories: BTreeSet<i64> = categories.iter().copied().collect();
    // By class, then by picture.
    let mut scenes: BTreeMap<(i64, i64), Side<'_>> = BTreeMap::new();
    for thing in truth.iter().filter(|t| images.contains(&t.image) && categories.contains(&t.category)) {
        scenes.entry((thing.category, thing.image)).or_default().0.push(thing);
    }
    for thing in found.iter().filter(|d| images.contains(&d.image) && categories.contains(&d.category)) {
        scenes.entry((thing.category, thing.image)).or_default().1.push(thing);
    }
    let mut sums = Sums::default();
    let mut classes = Vec::new();
    for category in categories {
        let of_class = scenes.range((category, i64::MIN)..=(category, i64::MAX));
        let of_class: Vec<Scene<'_>> = of_class.map(|(_, (t, d))| Scene::new(t.clone(), d.clone())).collect();
        let by_area = AREAS.map(|range| of_class.iter().map(|scene| scene.matched(range)).collect::<Vec<_>>());
        classes.push(sums.add_class(category, &by_area));
    }
    CocoFigures { stats: sums.means(), classes }
}

/// Sum and count of each of the twelve numbers.
#[derive(Default)]
struct Sums([(f64, usize); 12]);

impl Sums {
    fn add(&mut self, stat: usize, values: &[f64]) {
        self.0[stat].0 += values.iter().sum::<f64>();
        self.0[stat].1 += values.len();
    }

    fn add_class(&mut self, category: i64, by_area: &[Vec<Matched>; 4]) -> ClassAp {
        let all = &by_area[0];
        let curve = curve50(all);
        let things = all.iter().map(|scene| scene.things).sum();
        let detections = all.iter().map(|scene| scene.scores.len()).sum();
        let mut class =
            ClassAp { category, ap: None, ap50: None, ap75: None, things, detections, precision50: Vec::new(), curve };
        for (area, matched) in by_area.iter().enumerate() {
            let Some(cell) = accumulate(matched, MOST_DETECTIONS) else { continue };
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
            self.add(if area == 0 { 8 } else { 8 + area }, &cell.recall);
            self.add(if area == 0 { 0 } else { 2 + area }, cell.precision.as_flattened());
            if area == 0 {
                // 0.50 is the first threshold and 0.75 the sixth.
                self.add(1, &cell.precision[0]);
                self.add(2, &cell.precision[5]);
                class.ap = Some(mean(cell.precision.as_flattened()));
                class.ap50 = Some(mean(&cell.precision[0]));
                class.ap75 = Some(mean(&cell.precision[5]));
                class.precision50 = cell.precision[0].to_vec();
                for (stat, most) in [(6, 1), (7, 10)] {
                    accumulate(matched, most).iter().for_each(|cell| self.add(stat, &cell.recall));
                }
            }
        }
        class
    }

    fn means(&self) -> [f64; 12] {
        self.0.map(|(sum, count)| if count == 0 { -1.0 } else { sum / count as f64 })
    }
}

/// A detection's score, with whether it is right and whether it counts for nothing, by threshold.
type Ranked<'a> = (f64, &'a [bool; THRESHOLDS], &'a [bool; THRESHOLDS]);

/// The detections of all pictures, best first; equal scores in the order of the pictures.
fn ranked(scenes: &[Matched], most: usize) -> Vec<Ranked<'_>> {
    let mut all = Vec::new();
    for Matched { scores, hits, ignored, .. } in scenes {
        all.extend(
            scores.iter().zip(hits).zip(ignored).take(most).map(|((score, hits), ignored)| (*score, hits, ignored)),
        );
    }
    sort_by_score(&mut all, |item| item.0);
    all
}

/// Precision and recall of a class; nothing where nothing of it counts.
fn accumulate(scenes: &[Matched], most: usize) -> Option<Cell> {
    let things: usize = scenes.iter().map(|scene| scene.things).sum();
    if things == 0 {
        return None;
    }
    let ranked = ranked(scenes, most);
    let mut cell = Cell { precision: [[0.0; RECALLS]; THRESHOLDS], recall: [0.0; THRESHOLDS] };
    let (mut recall, mut precision) = (Vec::with_capacity(ranked.len()), Vec::with_capacity(ranked.len()));
    for t in 0..THRESHOLDS {
        recall.clear();
        precision.clear();
        let (mut right, mut wrong) = (0.0, 0.0);
        for (_, hits, ignored) in &ranked {
            if !ignored[t] {
                if hits[t] { right += 1.0 } else { wrong += 1.0 }
            }
            recall.push(right / things as f64);
            precision.push(right / (wrong + right + f64::EPSILON));
        }
        cell.recall[t] = recall.last().copied().unwrap_or(0.0);
        for at in (1..precision.len()).rev() {
            precision[at - 1] = precision[at - 1].max(precision[at]);
        }
        for (r, out) in cell.precision[t].iter_mut().enumerate() {
            let wanted = if r == RECALLS - 1 { 1.0 } else { r as f64 * 0.01 };
            let at = recall.partition_point(|reached| *reached < wanted);
            *out = precision.get(at).copied().unwrap_or(0.0);
        }
    }
    Some(cell)
}

/// Precision and recall at IoU 0.5 after each detection.
fn curve50(scenes: &[Matched]) -> Curve {
    let things: usize = scenes.iter().map(|scene| scene.things).sum();
    let mut curve = Curve::default();
    let (mut right, mut all) = (0.0, 0.0);
    for (score, hits, ..) in ranked(scenes, MOST_DETECTIONS).into_iter().filter(|(_, _, ignored)| !ignored[0]) {
        right += f64::from(u8::from(hits[0]));
        all += 1.0;
        curve.scores.push(score);
        curve.precision.push(right / all);
        curve.recall.push(if things == 0 { 0.0 } else { right / things as f64 });
    }
    curve
}
