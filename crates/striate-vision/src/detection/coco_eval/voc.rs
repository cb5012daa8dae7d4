//! Pascal VOC's average precision.

use super::iou_xywh;
use super::matching::{Detection, GroundTruth, sort_by_score};
use std::collections::HashMap;

/// How the area under precision over recall is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VocInterpolation {
    /// Until 2009: the mean of the best precision at recalls 0, 0.1, … 1.
    ElevenPoint,
    /// Since 2010: the area under the monotone curve.
    AllPoint,
}

/// The average precision of one class as the challenge's development kit has it; `None` without a thing that counts.
///
/// Each detection looks at the thing that it overlaps most. It is right if the overlap is at least `iou` and no better detection
/// took that thing; a difficult thing (`iscrowd`) counts neither for nor against. Everingham et al. 2010, "The Pascal visual
/// object classes (VOC) challenge". Boxes are measured as everywhere here, without the kit's additional pixel.
///
/// ```
/// use striate_vision::detection::{Detection, GroundTruth, VocInterpolation, voc_ap};
/// let thing = |x| GroundTruth { image: 1, category: 0, xywh: [x, 0.0, 9.0, 9.0], area: 81.0, iscrowd: false, id: 1 };
/// let seen = |x, score| Detection { image: 1, category: 0, xywh: [x, 0.0, 9.0, 9.0], score };
/// // Right, wrong, right.
/// let found = [seen(0.0, 0.9), seen(50.0, 0.8), seen(20.0, 0.7)];
/// let truth = [thing(0.0), thing(20.0)];
/// let ap = voc_ap(0, &truth, &found, 0.5, VocInterpolation::AllPoint).unwrap();
/// assert!((ap - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-12);
/// let ap = voc_ap(0, &truth, &found, 0.5, VocInterpolation::ElevenPoint).unwrap();
/// assert!((ap - (6.0 + 5.0 * 2.0 / 3.0) / 11.0).abs() < 1e-12);
/// ```
pub fn voc_ap(
    category: i64,
    truth: &[GroundTruth],
    found: &[Detection],
    iou: f64,
    interpolation: VocInterpolation,
) -> Option<f64> {
    let mut things: HashMap<i64, Vec<(&GroundTruth, bool)>> = HashMap::new();
    for thing in truth.iter().filter(|thing| thing.category == category) {
        things.entry(thing.image).or_default().push((thing, false));
    }
    let total = things.values().flatten().filter(|(thing, _)| !thing.iscrowd).count();
    if total == 0 {
        return None;
    }
    let mut found: Vec<&Detection> = found.iter().filter(|thing| thing.category == category).collect();
    sort_by_score(&mut found, |thing| thing.score);
    let (mut right, mut all, mut curve) = (0.0, 0.0, Vec::new());
    for detection in found {
        let near = things.get_mut(&detection.image).into_iter().flatten();
        let near = near.map(|thing| (iou_xywh(detection.xywh, thing.0.xywh, false), thing));
        let best = near.fold(None, |best: Option<(f64, _)>, next| match best {
            Some(best) if best.0 >= next.0 => Some(best),
            _ => Some(next),
        });
        match best.filter(|(overlap, _)| *overlap >= iou) {
            Some((_, (thing, _))) if thing.iscrowd => continue,
            Some((_, (_, taken))) if !*taken => {
                *taken = true;
                right += 1.0;
            }
            _ => {}
        }
        all += 1.0;
        curve.push((right / total as f64, right / all));
    }
    for at in (1..curve.len()).rev() {
        curve[at - 1].1 = curve[at - 1].1.max(curve[at].1);
    }
    let precision_from =
        |recall: f64| curve.iter().find(|(reached, _)| *reached >= recall).map_or(0.0, |point| point.1);
    Some(match interpolation {
        VocInterpolation::ElevenPoint => {
            (0..=10).map(|step| precision_from(f64::from(step) / 10.0)).sum::<f64>() / 11.0
        }
        VocInterpolation::AllPoint => {
            let before = [0.0].into_iter().chain(curve.iter().map(|point| point.0));
            before.zip(&curve).map(|(before, (recall, precision))| (recall - before) * precision).sum()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_counts_once_and_a_difficult_one_not_at_all() {
        let thing =
            |x, iscrowd| GroundTruth { image: 3, category: 1, xywh: [x, 0.0, 9.0, 9.0], area: 81.0, iscrowd, id: 0 };
        let seen = |x, score| Detection { image: 3, category: 1, xywh: [x, 0.0, 9.0, 9.0], score };
        let truth = [thing(0.0, false), thing(20.0, true)];
        // The second hit of the same thing is wrong; what lies on the difficult one is no detection at all.
        let found = [seen(20.0, 1.0), seen(1.0, 0.9), seen(0.0, 0.8)];
        let ap = |found: &[Detection]| voc_ap(1, &truth, found, 0.5, VocInterpolation::AllPoint);
        assert_eq!(ap(&found), Some(1.0));
        assert_eq!(ap(&[seen(40.0, 0.95), seen(0.0, 0.9)]), Some(0.5));
        assert_eq!(ap(&[]), Some(0.0));
        assert_eq!(voc_ap(1, &truth[1..], &found, 0.5, VocInterpolation::ElevenPoint), None);
    }
}
