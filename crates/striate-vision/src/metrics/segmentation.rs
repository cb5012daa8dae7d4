//! How good a segmentation is.

use super::ratio;
use crate::data::{IGNORE, Image};
use std::sync::Mutex;
use striate_kernels::threads::Team;

/// Counts of pixels by true and predicted class, added up over pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentationMetrics {
    classes: usize,
    /// [true class, predicted class]
    confusion: Vec<u64>,
    pictures: u64,
}

impl SegmentationMetrics {
    /// For this many classes.
    pub fn new(classes: usize) -> Self {
        Self { classes, confusion: vec![0; classes * classes], pictures: 0 }
    }

    /// Counts a picture: the predicted and the true class of each pixel; true classes that do not exist (255) are passed over.
    ///
    /// # Panics
    /// If a predicted class does not exist, which is a mistake in the calling code.
    pub fn update(&mut self, predicted: &[u8], truth: &[u8]) {
        for (&p, &t) in predicted.iter().zip(truth).filter(|(_, t)| usize::from(**t) < self.classes) {
            self.confusion[usize::from(t) * self.classes + usize::from(p)] += 1;
        }
        self.pictures += 1;
    }

    /// Pictures.
    pub fn pictures(&self) -> u64 {
        self.pictures
    }

    /// Counts [true class, predicted class], row-major.
    pub fn confusion(&self) -> &[u64] {
        &self.confusion
    }

    /// Of a class: pixels that have it and were given it, that have it, that were given it.
    fn counts(&self, class: usize) -> [u64; 3] {
        let n = self.classes;
        let has = self.confusion[class * n..(class + 1) * n].iter().sum();
        let given = (0..n).map(|t| self.confusion[t * n + class]).sum();
        [self.confusion[class * n + class], has, given]
    }

    /// Pixels that have a class.
    pub fn support(&self, class: usize) -> u64 {
        self.counts(class)[1]
    }

    /// Of a class's pixels, the part that was given it.
    pub fn recall(&self, class: usize) -> f64 {
        let [hits, has, _] = self.counts(class);
        ratio(hits, has)
    }

    /// Intersection over union of a class; `None` where it neither occurs nor was given.
    pub fn iou(&self, class: usize) -> Option<f64> {
        let [hits, has, given] = self.counts(class);
        let union = has + given - hits;
        (union > 0).then(|| ratio(hits, union))
    }

    /// Mean of the classes' intersection over union, of those that occur or were given.
    pub fn mean_iou(&self) -> f64 {
        let all: Vec<f64> = (0..self.classes).filter_map(|class| self.iou(class)).collect();
        if all.is_empty() { 0.0 } else { all.iter().sum::<f64>() / all.len() as f64 }
    }

    /// Part of the pixels that are right.
    pub fn pixel_accuracy(&self) -> f64 {
        let hits = (0..self.classes).map(|class| self.counts(class)[0]).sum();
        ratio(hits, self.confusion.iter().sum())
    }
}

/// What a net says of each pixel of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelClasses {
    /// The best class of each pixel, the lower among equals.
    pub classes: Image,
    /// Sum of the cross-entropy over the pixels that count; 0 without a truth.
    pub loss: f64,
    /// Pixels that count.
    pub counted: u64,
}

/// The best classes of some rows, their loss, and the pixels that count.
type Band = (Vec<u8>, f64, u64);

/// Rows that a thread takes at once.
const BAND: usize = 16;

/// The classes of the pixels of a picture of [height, width] by logits `[classes, h, w]`, which are resampled bilinearly to its
/// size (as `interpolate(mode="bilinear", align_corners=False)`), and their cross-entropy where the true classes are known.
///
/// The same bits for any number of threads.
///
/// # Panics
/// If the logits are not that many, there are more than 255 classes, or the truth has another size: mistakes in the calling code.
pub fn pixel_classes(
    team: &Team,
    (logits, [classes, h, w]): (&[f32], [usize; 3]),
    [height, width]: [usize; 2],
    truth: Option<&Image>,
) -> PixelClasses {
    assert!(logits.len() == classes * h * w && (1..=255).contains(&classes), "logits are [{classes}, {h}, {w}]");
    assert!(truth.is_none_or(|t| t.data.len() == height * width), "the truth is [{height}, {width}]");
    let columns: Vec<(usize, usize, f32)> = (0..width).map(|x| taps(x, w, width)).collect();
    let bands = height.div_ceil(BAND);
    let done: Mutex<Vec<Option<Band>>> = Mutex::new(vec![None; bands]);
    team.for_each(bands, |band| {
        let rows = band * BAND..(band * BAND + BAND).min(height);
        let (mut best, mut loss, mut counted) = (Vec::with_capacity(rows.len() * width), 0.0, 0);
        let (mut line, mut scores) = (vec![0.0; w], vec![0.0f32; classes * width]);
        for y in rows {
            let (top, bottom, part) = taps(y, h, height);
            for (plane, scores) in logits.chunks_exact(h * w).zip(scores.chunks_exact_mut(width)) {
                let (a, b) = (&plane[top * w..][..w], &plane[bottom * w..][..w]);
                line.iter_mut().zip(a.iter().zip(b)).for_each(|(to, (a, b))| *to = a + part * (b - a));
                for (to, (left, right, part)) in scores.iter_mut().zip(&columns) {
                    *to = line[*left] + part * (line[*right] - line[*left]);
                }
            }
            let start = best.len();
            best.resize(start + width, 0);
            let mut most = scores[..width].to_vec();
            for (class, scores) in scores.chunks_exact(width).enumerate().skip(1) {
                for ((most, best), &score) in most.iter_mut().zip(&mut best[start..]).zip(scores) {
                    if score > *most {
                        (*most, *best) = (score, class as u8);
                    }
                }
            }
            let Some(truth) = truth else { continue };
            for (x, &class) in truth.data[y * width..][..width].iter().enumerate() {
                if usize::from(class) < classes && class != IGNORE {
                    let sum: f32 = (0..classes).map(|c| (scores[c * width + x] - most[x]).exp()).sum();
                    loss += f64::from(sum).ln() - f64::from(scores[usize::from(class) * width + x] - most[x]);
                    counted += 1;
                }
            }
        }
        done.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[band] = Some((best, loss, counted));
    });
    let mut out =
        PixelClasses { classes: Image { width, height, channels: 1, data: Vec::new() }, loss: 0.0, counted: 0 };
    for (best, loss, counted) in
        done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_iter().flatten()
    {
        out.classes.data.extend(best);
        out.loss += loss;
        out.counted += counted;
    }
    out
}

/// The two places of `from` between which the place `at` of `to` lies, and how far behind the first.
fn taps(at: usize, from: usize, to: usize) -> (usize, usize, f32) {
    let place = ((at as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
    let first = (place as usize).min(from - 1);
    (first, (first + 1).min(from - 1), (place - first as f64) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_definition() {
        let mut m = SegmentationMetrics::new(4);
        m.update(&[0, 0, 1, 1, 2, 0], &[0, 1, 1, 1, 255, 0]);
        assert_eq!((m.pixel_accuracy(), m.pictures()), (0.8, 1));
        assert_eq!((m.iou(0), m.iou(1), m.iou(2), m.iou(3)), (Some(2.0 / 3.0), Some(2.0 / 3.0), None, None));
        assert!((m.mean_iou() - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!((m.recall(1), m.support(1)), (2.0 / 3.0, 3));
    }

    #[test]
    fn classes_are_those_of_resampled_logits_for_any_threads() {
        // Two classes that cross in the middle of two columns.
        let logits = [1.0, 0.0, 0.0, 1.0];
        let truth = Image::new(4, 40, 1, [0, 0, 1, 255].repeat(40)).unwrap();
        let run = |threads| pixel_classes(&Team::new(threads), (&logits, [2, 1, 2]), [40, 4], Some(&truth));
        let found = run(1);
        assert_eq!(found.classes.data, [0, 0, 1, 1].repeat(40));
        assert_eq!(found.counted, 120);
        let wanted = |margin: f64| (1.0 + (-margin).exp()).ln();
        assert!((found.loss / 40.0 - (wanted(1.0) + 2.0 * wanted(0.5))).abs() < 1e-6, "{}", found.loss / 40.0);
        assert_eq!(run(3), found);
        // Of its own size nothing is resampled.
        let own = pixel_classes(&Team::new(1), (&logits, [2, 1, 2]), [1, 2], None);
        assert_eq!(own.classes.data, [0, 1]);
    }
}
