//! Suppression against its definition, written down as plainly as can be.

use super::*;

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n) as f32
    }
}

/// Boxes on a coarse grid with few scores, so that overlaps and scores often tie; some have no area.
fn scene(random: &mut Random, count: usize) -> Vec<ScoredBox> {
    let one = |random: &mut Random| {
        let (x, y) = (random.below(20) * 2.0, random.below(20) * 2.0);
        ScoredBox {
            xyxy: [x, y, x + random.below(12) * 2.0, y + random.below(12) * 2.0],
            class: random.below(3) as usize,
            score: random.below(21) / 20.0,
        }
    };
    (0..count).map(|_| one(random)).collect()
}

/// In f64, from the definitions.
fn overlap(a: &ScoredBox, b: &ScoredBox, diou: bool) -> f64 {
    let ([ax, ay, au, av], [bx, by, bu, bv]) = (a.xyxy.map(f64::from), b.xyxy.map(f64::from));
    let inter = (au.min(bu) - ax.max(bx)).max(0.0) * (av.min(bv) - ay.max(by)).max(0.0);
    let union = (au - ax) * (av - ay) + (bu - bx) * (bv - by) - inter;
    let iou = if inter > 0.0 { inter / union } else { 0.0 };
    let (w, h) = (au.max(bu) - ax.min(bx), av.max(bv) - ay.min(by));
    if !diou || w * w + h * h == 0.0 {
        return iou;
    }
    let (dx, dy) = ((ax + au - bx - bu) / 2.0, (ay + av - by - bv) / 2.0);
    iou - (dx * dx + dy * dy) / (w * w + h * h)
}

/// Repeats: take the best, then remove or weaken what it acts on.
fn reference(boxes: &[ScoredBox], options: &NmsOptions) -> Vec<ScoredBox> {
    let mut left: Vec<(usize, ScoredBox)> = boxes.iter().copied().enumerate().collect();
    let mut kept = Vec::new();
    loop {
        left.retain(|(_, b)| b.score >= options.confidence);
        left.sort_by(|(i, a), (j, b)| b.score.partial_cmp(&a.score).unwrap().then(i.cmp(j)));
        if left.is_empty() || kept.len() == options.max_detections {
            return kept;
        }
        let (_, best) = left.remove(0);
        kept.push(best);
        let mut next = Vec::new();
        for (i, mut b) in left {
            let acts = options.agnostic || b.class == best.class;
            let iou = overlap(&best, &b, options.suppression == Suppression::Diou);
            let above = acts && iou > f64::from(options.iou);
            match options.suppression {
                Suppression::Hard | Suppression::Diou if above => continue,
                Suppression::SoftLinear if above => b.score *= 1.0 - iou as f32,
                Suppression::SoftGaussian { sigma } if acts => b.score *= (-iou * iou / f64::from(sigma)).exp() as f32,
                _ => {}
            }
            next.push((i, b));
        }
        left = next;
    }
}

#[test]
fn every_variant_keeps_what_its_definition_keeps() {
    let mut random = Random(3);
    let kinds =
        [Suppression::Hard, Suppression::Diou, Suppression::SoftLinear, Suppression::SoftGaussian { sigma: 0.5 }];
    let mut kept = [0; 4];
    for round in 0..200 {
        let count = random.below(60) as usize;
        let boxes = scene(&mut random, count);
        for (kind, suppression) in kinds.into_iter().enumerate() {
            let options = NmsOptions {
                suppression,
                // Between the overlaps that a grid can have.
                iou: [0.301, 0.503, 0.701][round % 3],
                confidence: [0.0, 0.26][round % 2],
                agnostic: round % 5 == 0,
                max_detections: [5, 300][round % 4 / 2],
                ..NmsOptions::default()
            };
            let (ours, theirs) = (nms(&boxes, &options), reference(&boxes, &options));
            kept[kind] += ours.len();
            assert_eq!(ours.len(), theirs.len(), "{round}: {options:?}");
            for (a, b) in ours.iter().zip(&theirs) {
                assert!((a.score - b.score).abs() < 1e-5, "{round}: {a:?} {b:?} {options:?}");
                let is_soft = !matches!(suppression, Suppression::Hard | Suppression::Diou);
                // Softened scores may tie but for rounding, and then change places.
                assert!(is_soft || (a.class, a.xyxy) == (b.class, b.xyxy), "{round}: {a:?} {b:?} {options:?}");
            }
        }
    }
    // The variants do differ: softer ones keep more.
    assert!(kept[0] < kept[1] && kept[1] < kept[2], "{kept:?}");
}

#[test]
fn limits_hold_and_numbers_that_are_none_go() {
    let at = |x: f32, score| ScoredBox { xyxy: [x, 0.0, x + 1.0, 1.0], class: 0, score };
    let boxes =
        [at(0.0, 0.5), at(f32::NAN, 0.9), at(4.0, f32::NAN), at(f32::INFINITY, 0.9), at(8.0, 0.25), at(12.0, 0.24)];
    assert_eq!(nms(&boxes, &NmsOptions::default()), [boxes[0], boxes[4]]);
    assert_eq!(nms(&boxes, &NmsOptions { max_detections: 1, ..NmsOptions::default() }), [boxes[0]]);
    assert_eq!(nms(&boxes, &NmsOptions { max_detections: 0, ..NmsOptions::default() }), []);
    let soft = NmsOptions { suppression: Suppression::SoftLinear, max_candidates: 1, ..NmsOptions::default() };
    assert_eq!(nms(&boxes, &soft), [boxes[0]]);
    // A threshold that is just reached suppresses nothing, as in torchvision.
    let half = [ScoredBox { xyxy: [0.0, 0.0, 2.0, 1.0], class: 0, score: 0.9 }, at(0.0, 0.8)];
    assert_eq!(nms(&half, &NmsOptions { iou: 0.5, ..NmsOptions::default() }).len(), 2);
    assert_eq!(nms(&half, &NmsOptions { iou: 0.499, ..NmsOptions::default() }).len(), 1);
    assert_eq!(postprocess(&[], &[], 0, &NmsOptions::default()), []);
    assert_eq!(postprocess(&[0.0; 4], &[], 0, &NmsOptions::default()), []);
}
