//! How good a net is at its task, and how even its data.
//!
//! ```
//! use striate_vision::metrics::ClassificationMetrics;
//! let mut metrics = ClassificationMetrics::new(3);
//! // Scores [N, classes] with the true classes.
//! metrics.update(&[2.0, 1.0, 0.0, 0.1, 0.2, 0.3], &[0, 1]);
//! assert_eq!((metrics.top1(), metrics.topk()), (0.5, 1.0));
//! ```

mod multilabel;
mod regression;
mod segmentation;

pub use multilabel::MultilabelMetrics;
pub use regression::{RegressionFigures, RegressionMetrics};
pub use segmentation::{PixelClasses, SegmentationMetrics, pixel_classes};

/// Counts of a classifier's hits and misses, added up over batches.
///
/// The order of the batches does not matter: all is counted in whole numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassificationMetrics {
    classes: usize,
    k: usize,
    /// [true class, predicted class]
    confusion: Vec<u64>,
    hits_in_k: u64,
    total: u64,
}

impl ClassificationMetrics {
    /// For this many classes; top-k with k = min(5, classes).
    pub fn new(classes: usize) -> Self {
        Self { classes, k: classes.min(5), confusion: vec![0; classes * classes], hits_in_k: 0, total: 0 }
    }

    /// Counts a batch: scores [N, classes] (logits or probabilities) and the true classes.
    ///
    /// Between equal scores the lower class wins; a score that is not a number loses against every number.
    ///
    /// # Panics
    /// If the lengths do not fit or a label is out of range, which is a mistake in the calling code.
    pub fn update(&mut self, scores: &[f32], labels: &[usize]) {
        assert_eq!(scores.len(), labels.len() * self.classes, "scores are [N, {}]", self.classes);
        for (row, &label) in scores.chunks_exact(self.classes).zip(labels) {
            let beats = |a: usize, b: usize| {
                let (x, y) = (row[a], row[b]);
                x > y || (y.is_nan() && !x.is_nan()) || (a < b && (x == y || (x.is_nan() && y.is_nan())))
            };
            let best = (1..self.classes).fold(0, |best, c| if beats(c, best) { c } else { best });
            let before = (0..self.classes).filter(|&c| c != label && beats(c, label)).count();
            self.confusion[label * self.classes + best] += 1;
            self.hits_in_k += u64::from(before < self.k);
            self.total += 1;
        }
    }

    /// Adds the counts of another part of the same data.
    pub fn merge(&mut self, other: &ClassificationMetrics) {
        self.confusion.iter_mut().zip(&other.confusion).for_each(|(a, b)| *a += b);
        self.hits_in_k += other.hits_in_k;
        self.total += other.total;
    }

    /// Number of samples.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The k of [`ClassificationMetrics::topk`].
    pub fn k(&self) -> usize {
        self.k
    }

    /// Part of the samples whose best score is that of the true class, 0 to 1; 0 without samples.
    pub fn top1(&self) -> f64 {
        let hits: u64 = (0..self.classes).map(|c| self.confusion[c * self.classes + c]).sum();
        ratio(hits, self.total)
    }

    /// Part of the samples whose true class is among the best k.
    pub fn topk(&self) -> f64 {
        ratio(self.hits_in_k, self.total)
    }

    /// Counts [true class, predicted class], row-major.
    pub fn confusion(&self) -> &[u64] {
        &self.confusion
    }

    /// Precision, recall and F1 of each class.
    pub fn per_class(&self) -> Vec<ClassMetrics> {
        let n = self.classes;
        (0..n)
            .map(|c| {
                let hits = self.confusion[c * n + c];
                let support: u64 = self.confusion[c * n..(c + 1) * n].iter().sum();
                let predicted: u64 = (0..n).map(|t| self.confusion[t * n + c]).sum();
                let (precision, recall, f1) =
                    (ratio(hits, predicted), ratio(hits, support), ratio(2 * hits, support + predicted));
                ClassMetrics { precision, recall, f1, support }
            })
            .collect()
    }

    /// Mean of the classes' F1, each class counting the same.
    pub fn macro_f1(&self) -> f64 {
        self.per_class().iter().map(|m| m.f1).sum::<f64>() / self.classes.max(1) as f64
    }

    /// The pairs (true, predicted, count) that are mixed up most, largest first.
    pub fn worst_confusions(&self, most: usize) -> Vec<(usize, usize, u64)> {
        let n = self.classes;
        let mut pairs: Vec<_> = (0..n * n)
            .filter(|i| i / n != i % n && self.confusion[*i] > 0)
            .map(|i| (i / n, i % n, self.confusion[i]))
            .collect();
        pairs.sort_by_key(|&(t, p, count)| (std::cmp::Reverse(count), t, p));
        pairs.truncate(most);
        pairs
    }
}

fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

/// Figures of one class, 0 to 1; 0 where there is nothing to divide by.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ClassMetrics {
    /// Of the samples that were given this class, the part that has it.
    pub precision: f64,
    /// Of the samples that have this class, the part that was given it.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// Samples that have this class.
    pub support: u64,
}

/// Weights for a loss that let every class count the same: `total / (classes * count)`, as scikit-learn's "balanced". Classes
/// without samples get 0 and are not counted as classes, so the mean weight over the samples is 1.
pub fn balanced_class_weights(counts: &[usize]) -> Vec<f32> {
    let total: usize = counts.iter().sum();
    let present = counts.iter().filter(|&&n| n > 0).count();
    counts.iter().map(|&n| if n == 0 { 0.0 } else { (total as f64 / (present as f64 * n as f64)) as f32 }).collect()
}

/// A word on classes that are much rarer than others: from 3 to 1 on, or where a class is empty. `None` if they are even.
pub fn imbalance_remark(counts: &[usize], class_names: &[String]) -> Option<String> {
    let name = |c: usize| class_names.get(c).map_or_else(|| c.to_string(), Clone::clone);
    let (rare, &fewest) = counts.iter().enumerate().min_by_key(|(_, n)| **n)?;
    let (common, &most) = counts.iter().enumerate().max_by_key(|(c, n)| (**n, std::cmp::Reverse(*c)))?;
    if most < 3 * fewest {
        return None;
    }
    let (common, rare) = (name(common), name(rare));
    if fewest == 0 {
        return Some(format!("class imbalance: \"{rare}\" has no sample, \"{common}\" has {most}"));
    }
    Some(format!(
        "class imbalance {:.1} to 1: \"{common}\" has {most} samples, \"{rare}\" {fewest}; accuracy hides how the rare class fares, \
         so look at its recall, or weigh the classes",
        most as f64 / fewest as f64
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_definition() {
        let mut m = ClassificationMetrics::new(7);
        let row = |scores: [f32; 7]| scores;
        let rows = [
            row([9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            // Class 0 has the lowest score: not among the best five.
            row([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            // A tie: the lower class wins.
            row([1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
            row([f32::NAN, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        ];
        m.update(&rows.concat(), &[0, 0, 1, 1]);
        assert_eq!((m.top1(), m.topk(), m.total(), m.k()), (0.5, 0.75, 4, 5));
        assert_eq!(m.confusion()[0], 1);
        assert_eq!(m.confusion()[6], 1);
        assert_eq!(m.confusion()[7], 1);
        let class0 = m.per_class()[0];
        assert_eq!((class0.precision, class0.recall, class0.f1, class0.support), (0.5, 0.5, 0.5, 2));
        assert_eq!(m.per_class()[3], ClassMetrics { precision: 0.0, recall: 0.0, f1: 0.0, support: 0 });
        assert_eq!(m.worst_confusions(1), [(0, 6, 1)]);
        let mut twice = m.clone();
        twice.merge(&m);
        assert_eq!((twice.total(), twice.top1()), (8, 0.5));
    }

    #[test]
    fn a_row_of_nan_is_counted_and_two_classes_have_top_two() {
        let mut m = ClassificationMetrics::new(2);
        m.update(&[f32::NAN, f32::NAN, 0.0, 1.0], &[1, 0]);
        assert_eq!((m.top1(), m.topk()), (0.0, 1.0));
    }

    #[test]
    fn weights_and_remark() {
        assert_eq!(balanced_class_weights(&[10, 30, 0]), [2.0, 2.0 / 3.0, 0.0]);
        let names = ["cat", "dog"].map(String::from);
        assert_eq!(imbalance_remark(&[10, 29], &names), None);
        assert!(imbalance_remark(&[10, 31], &names).unwrap().starts_with("class imbalance 3.1 to 1: \"dog\" has 31"));
        assert!(imbalance_remark(&[0, 31], &names).unwrap().contains("\"cat\" has no sample"));
        assert_eq!(imbalance_remark(&[], &[]), None);
    }
}
