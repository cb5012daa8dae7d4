//! What is taken for what, and what for nothing.

use super::iou_xywh;
use super::matching::{Detection, GroundTruth, Side, sort_by_score};
use std::collections::HashMap;

/// Counts of things by true and predicted class, with a row and a column for the background behind the classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoxConfusion {
    /// Numbers of the classes, in order.
    pub categories: Vec<i64>,
    /// By true, then by predicted class, the background last: the last column counts what was missed, the last row what is not there.
    pub counts: Vec<Vec<u64>>,
}

/// Pairs things and detections of at least `confidence` by overlap, the largest first, whatever their classes; pairs overlap by at
/// least `iou`. Detections inside a crowd count for nothing, nor do crowds.
pub fn confusion_matrix(
    categories: &[i64],
    truth: &[GroundTruth],
    found: &[Detection],
    (confidence, iou): (f64, f64),
) -> BoxConfusion {
    let mut categories = categories.to_vec();
    categories.sort_unstable();
    categories.dedup();
    let place: HashMap<i64, usize> =
        categories.iter().enumerate().map(|(place, category)| (*category, place)).collect();
    let mut scenes: HashMap<i64, Side<'_>> = HashMap::new();
    for thing in truth.iter().filter(|thing| place.contains_key(&thing.category)) {
        scenes.entry(thing.image).or_default().0.push(thing);
    }
    for thing in found.iter().filter(|thing| place.contains_key(&thing.category) && thing.score >= confidence) {
        scenes.entry(thing.image).or_default().1.push(thing);
    }
    let background = categories.len();
    let mut counts = vec![vec![0; background + 1]; background + 1];
    for (truth, mut found) in scenes.into_values() {
        sort_by_score(&mut found, |thing| thing.score);
        let mut pairs = Vec::new();
        for (d, detection) in found.iter().enumerate() {
            for (t, thing) in truth.iter().enumerate().filter(|(_, thing)| !thing.iscrowd) {
                let overlap = iou_xywh(detection.xywh, thing.xywh, false);
                if overlap >= iou {
                    pairs.push((overlap, d, t));
                }
            }
        }
        sort_by_score(&mut pairs, |pair| pair.0);
        let (mut used, mut hit) = (vec![false; found.len()], vec![false; truth.len()]);
        for (_, d, t) in pairs {
            if !used[d] && !hit[t] {
                (used[d], hit[t]) = (true, true);
                counts[place[&truth[t].category]][place[&found[d].category]] += 1;
            }
        }
        for (thing, _) in truth.iter().zip(&hit).filter(|(thing, hit)| !**hit && !thing.iscrowd) {
            counts[place[&thing.category]][background] += 1;
        }
        for (detection, _) in found.iter().zip(&used).filter(|(_, used)| !**used) {
            let crowds = truth.iter().filter(|thing| thing.iscrowd && thing.category == detection.category);
            if !crowds.into_iter().any(|crowd| iou_xywh(detection.xywh, crowd.xywh, true) >= iou) {
                counts[background][place[&detection.category]] += 1;
            }
        }
    }
    BoxConfusion { categories, counts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mixed_up_missed_and_made_up_is_counted() {
        let thing = |category, x, iscrowd| GroundTruth {
            image: 1,
            category,
            xywh: [x, 0.0, 10.0, 10.0],
            area: 100.0,
            iscrowd,
            id: 1,
        };
        let seen = |category, x, score| Detection { image: 1, category, xywh: [x, 0.0, 10.0, 10.0], score };
        let truth = [thing(4, 0.0, false), thing(4, 100.0, false), thing(9, 200.0, false), thing(9, 300.0, true)];
        let found = [
            seen(4, 1.0, 0.9),   // right
            seen(4, 0.0, 0.1),   // not sure enough
            seen(9, 100.0, 0.8), // the wrong class
            seen(9, 303.0, 0.8), // in the crowd
            seen(9, 400.0, 0.8), // nothing there
        ];
        let confusion = confusion_matrix(&[9, 4], &truth, &found, (0.25, 0.5));
        assert_eq!(confusion.categories, [4, 9]);
        assert_eq!(confusion.counts, [[1, 1, 0], [0, 0, 1], [0, 1, 0]]);
    }
}
