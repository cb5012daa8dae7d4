//! The figures of a finished run.

use crate::Evaluation;
use serde::{Deserialize, Serialize};

/// What `metrics.json` holds: the figures of the best weights, fractions from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// "test" or "val".
    pub split: String,
    /// Part of the pictures whose best score is that of their class.
    pub top1: f64,
    /// Part of the pictures whose class is among the best min(5, classes).
    pub top5: f64,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Mean of the classes' F1.
    pub macro_f1: f64,
    /// Pictures.
    pub images: u64,
    /// Pictures that could not be read and were left out.
    pub skipped: usize,
    /// Precision, recall and F1 of each class.
    pub classes: Vec<ClassFigures>,
    /// Counts, rows by true class, columns by predicted class.
    pub confusion: Vec<Vec<u64>>,
    /// The epoch of the best weights, from 1, where they come from a training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_epoch: Option<u64>,
    /// Epochs trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Wall clock, over resumes.
    pub seconds: f64,
}

/// One class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassFigures {
    /// Its name.
    pub name: String,
    /// Of what was given this class, the part that has it.
    pub precision: f64,
    /// Of what has this class, the part that was given it.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Pictures that have it.
    pub support: u64,
}

impl Metrics {
    /// Of an evaluation on the part `split`.
    pub fn new(split: &str, evaluation: &Evaluation, class_names: &[String], seconds: f64) -> Metrics {
        let counts = &evaluation.counts;
        let per_class = counts.per_class().into_iter().zip(class_names);
        let figures = |(m, name): (striate_vision::metrics::ClassMetrics, &String)| ClassFigures {
            name: name.clone(),
            precision: m.precision,
            recall: m.recall,
            f1: m.f1,
            support: m.support,
        };
        Metrics {
            split: split.to_owned(),
            top1: counts.top1(),
            top5: counts.topk(),
            loss: evaluation.loss,
            macro_f1: counts.macro_f1(),
            images: counts.total(),
            skipped: evaluation.skipped,
            classes: per_class.map(figures).collect(),
            confusion: counts.confusion().chunks(class_names.len().max(1)).map(<[u64]>::to_vec).collect(),
            best_epoch: None,
            epochs: None,
            seconds,
        }
    }
}
