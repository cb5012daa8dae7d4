//! Which detection takes which thing.

use super::iou_xywh;

/// A thing that is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroundTruth {
    /// Number of its picture.
    pub image: i64,
    /// Number of its class.
    pub category: i64,
    /// `[x, y, width, height]` in pixels.
    pub xywh: [f64; 4],
    /// Pixels of the thing itself, which decide whether it is small, medium or large.
    pub area: f64,
    /// Many things in one box: what is found inside counts neither for nor against.
    pub iscrowd: bool,
    /// Its number. pycocotools takes a match with number 0 for none, and so is it here.
    pub id: i64,
}

/// A thing that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Number of its picture.
    pub image: i64,
    /// Number of its class.
    pub category: i64,
    /// `[x, y, width, height]` in pixels.
    pub xywh: [f64; 4],
    /// How sure the detector is. Only the order counts.
    pub score: f64,
}

/// The things and detections of a picture.
pub(super) type Side<'a> = (Vec<&'a GroundTruth>, Vec<&'a Detection>);

/// Most detections of a class in a picture that are looked at.
pub(super) const MOST_DETECTIONS: usize = 100;
/// Number of thresholds of IoU.
pub(super) const THRESHOLDS: usize = 10;

/// 0.50, 0.55, … 0.95, with numpy's rounding.
pub(super) fn iou_thresholds() -> [f64; THRESHOLDS] {
    let step = (0.95 - 0.5) / 9.0;
    std::array::from_fn(|i| if i == THRESHOLDS - 1 { 0.95 } else { i as f64 * step + 0.5 })
}

/// Areas that count, in pixels, both ends included: all, small, medium, large.
pub(super) const AREAS: [[f64; 2]; 4] = [[0.0, 1e10], [0.0, 1024.0], [1024.0, 9216.0], [9216.0, 1e10]];

/// Best first; equal scores, 0 and -0 among them, stay in order.
pub(super) fn sort_by_score<T>(items: &mut [T], score: impl Fn(&T) -> f64) {
    items.sort_by(|a, b| (score(b) + 0.0).total_cmp(&(score(a) + 0.0)));
}

fn is_outside(area: f64, [low, high]: [f64; 2]) -> bool {
    area < low || area > high
}

/// How the detections of a class in a picture fared, within one range of areas.
pub(super) struct Matched {
    /// Scores, best first.
    pub scores: Vec<f64>,
    /// [threshold][detection]: whether it took a thing.
    pub hits: Vec<[bool; THRESHOLDS]>,
    /// Whether it counts for nothing.
    pub ignored: Vec<[bool; THRESHOLDS]>,
    /// Things that count.
    pub things: usize,
}

/// The things and detections of a class in a picture, with their overlaps.
pub(super) struct Scene<'a> {
    truth: Vec<&'a GroundTruth>,
    /// Best first, equal scores in the order of the file.
    found: Vec<&'a Detection>,
    /// [detection][thing]
    ious: Vec<f64>,
}

impl<'a> Scene<'a> {
    pub fn new(truth: Vec<&'a GroundTruth>, mut found: Vec<&'a Detection>) -> Scene<'a> {
        sort_by_score(&mut found, |d| d.score);
        found.truncate(MOST_DETECTIONS);
        let pairs = found.iter().flat_map(|d| truth.iter().map(|t| iou_xywh(d.xywh, t.xywh, t.iscrowd)));
        let ious = pairs.collect();
        Scene { truth, found, ious }
    }

    /// Matches within a range of areas.
    pub fn matched(&self, range: [f64; 2]) -> Matched {
        let ignore: Vec<bool> = self.truth.iter().map(|t| t.iscrowd || is_outside(t.area, range)).collect();
        // Things that count come first; the order is else that of the file.
        let mut order: Vec<usize> = (0..self.truth.len()).collect();
        order.sort_by_key(|&thing| ignore[thing]);
        let n = self.found.len();
        let mut matched = Matched {
            scores: self.found.iter().map(|d| d.score).collect(),
            hits: vec![[false; THRESHOLDS]; n],
            ignored: vec![[false; THRESHOLDS]; n],
            things: ignore.iter().filter(|ignored| !**ignored).count(),
        };
        for (t, threshold) in iou_thresholds().into_iter().enumerate() {
            let mut taken = vec![false; self.truth.len()];
            for d in 0..n {
                if let Some(thing) = self.best(d, threshold, (&order, &ignore, &taken)) {
                    taken[thing] = true;
                    matched.hits[d][t] = self.truth[thing].id != 0;
                    matched.ignored[d][t] = ignore[thing];
                }
            }
        }
        for (d, detection) in self.found.iter().enumerate() {
            // A miss outside the range says nothing about the range.
            if is_outside(detection.xywh[2] * detection.xywh[3], range) {
                for t in 0..THRESHOLDS {
                    matched.ignored[d][t] |= !matched.hits[d][t];
                }
            }
        }
        matched
    }

    /// The thing that a detection takes: the one of largest overlap, the last among equals, one that counts before any other.
    fn best(
        &self,
        detection: usize,
        threshold: f64,
        (order, ignore, taken): (&[usize], &[bool], &[bool]),
    ) -> Option<usize> {
        let row = &self.ious[detection * self.truth.len()..];
        let (mut least, mut best) = (threshold.min(1.0 - 1e-10), None);
        for &thing in order {
            if taken[thing] && !self.truth[thing].iscrowd {
                continue;
            }
            if best.is_some_and(|best: usize| !ignore[best]) && ignore[thing] {
                break;
            }
            if row[thing] >= least {
                (least, best) = (row[thing], Some(thing));
            }
        }
        best
    }
}
