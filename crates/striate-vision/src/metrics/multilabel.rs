//! How good a net is at telling which of several labels a picture has.

use super::{ClassMetrics, ratio};

/// Scores and truths, kept for the precision at every threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct MultilabelMetrics {
    classes: usize,
    /// [sample, class]: logits.
    scores: Vec<f32>,
    /// [sample, class]
    truth: Vec<bool>,
}

impl MultilabelMetrics {
    /// For this many labels.
    pub fn new(classes: usize) -> Self {
        Self { classes, scores: Vec::new(), truth: Vec::new() }
    }

    /// Takes in a batch: logits [N, classes], and 1 or 0 for each.
    pub fn update(&mut self, logits: &[f32], truth: &[f32]) {
        self.scores.extend(logits);
        self.truth.extend(truth.iter().map(|t| *t >= 0.5));
    }

    /// Number of samples.
    pub fn total(&self) -> u64 {
        (self.truth.len() / self.classes.max(1)) as u64
    }

    /// The area under the steps of precision over recall of a label, as scikit-learn's `average_precision_score`; `None` where no
    /// sample has it.
    pub fn average_precision(&self, class: usize) -> Option<f64> {
        let column = self.scores.iter().zip(&self.truth).skip(class).step_by(self.classes);
        let mut column: Vec<(f32, bool)> = column.map(|(score, truth)| (*score, *truth)).collect();
        column.sort_by(|a, b| b.0.total_cmp(&a.0));
        let positives = column.iter().filter(|(_, truth)| *truth).count();
        let (mut hits, mut seen, mut area) = (0, 0, 0.0);
        for equal in column.chunk_by(|a, b| a.0 == b.0) {
            let more = equal.iter().filter(|(_, truth)| *truth).count();
            (hits, seen) = (hits + more, seen + equal.len());
            area += more as f64 / positives as f64 * hits as f64 / seen as f64;
        }
        (positives > 0).then_some(area)
    }

    /// Mean of the labels' average precision, of those that occur.
    pub fn mean_average_precision(&self) -> f64 {
        let all: Vec<f64> = (0..self.classes).filter_map(|class| self.average_precision(class)).collect();
        if all.is_empty() { 0.0 } else { all.iter().sum::<f64>() / all.len() as f64 }
    }

    /// Of a label at probability ½: given and there, there, given.
    fn counts(&self, class: usize) -> [u64; 3] {
        let column = self.scores.iter().zip(&self.truth).skip(class).step_by(self.classes);
        column.fold([0; 3], |[hits, has, given], (score, truth)| {
            let said = *score > 0.0;
            [hits + u64::from(said && *truth), has + u64::from(*truth), given + u64::from(said)]
        })
    }

    /// Precision, recall and F1 of each label where the probability is above ½.
    pub fn per_class(&self) -> Vec<ClassMetrics> {
        let figures = |class| {
            let [hits, support, given] = self.counts(class);
            let (precision, recall, f1) = (ratio(hits, given), ratio(hits, support), ratio(2 * hits, support + given));
            ClassMetrics { precision, recall, f1, support }
        };
        (0..self.classes).map(figures).collect()
    }

    /// F1 over all labels of all samples together.
    pub fn micro_f1(&self) -> f64 {
        let all = (0..self.classes).map(|class| self.counts(class));
        let [hits, has, given] = all.fold([0; 3], |a, b| [a[0] + b[0], a[1] + b[1], a[2] + b[2]]);
        ratio(2 * hits, has + given)
    }

    /// Mean of the labels' F1.
    pub fn macro_f1(&self) -> f64 {
        self.per_class().iter().map(|m| m.f1).sum::<f64>() / self.classes.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_scikit_learns() {
        let mut m = MultilabelMetrics::new(2);
        // average_precision_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) is 0.8333; the second label has a tie and one is missing.
        m.update(&[0.1, -1.0, 0.4, 2.0], &[0.0, 0.0, 0.0, 1.0]);
        m.update(&[0.35, 2.0, 0.8, -3.0], &[1.0, 0.0, 1.0, 0.0]);
        assert!((m.average_precision(0).unwrap() - 0.833_333).abs() < 1e-5);
        assert_eq!(m.average_precision(1), Some(0.5));
        assert!((m.mean_average_precision() - 0.666_666).abs() < 1e-5);
        let first = m.per_class()[0];
        assert_eq!((first.precision, first.recall, first.support), (0.5, 1.0, 2));
        // Given 4 and 2, there 2 and 1, right 2 and 1.
        assert_eq!((m.micro_f1(), m.total()), (6.0 / 9.0, 4));
        assert_eq!(MultilabelMetrics::new(1).average_precision(0), None);
    }
}
