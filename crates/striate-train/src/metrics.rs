//! The figures of a finished run.

use crate::boxes::DetectionCounts;
use crate::{Counts, Evaluation};
use serde::{Deserialize, Serialize};
use striate_vision::detection::{ClassAp, STAT_NAMES};
use striate_vision::metrics::{MultilabelMetrics, RegressionMetrics, SegmentationMetrics};

/// What `metrics.json` holds: the figures of the best weights, fractions from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// "test" or "val".
    pub split: String,
    /// Those of the task.
    #[serde(flatten)]
    pub figures: Figures,
    /// Mean loss, as [`Evaluation::loss`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Pictures.
    pub images: u64,
    /// Pictures that could not be read and were left out.
    pub skipped: usize,
    /// The epoch of the best weights, from 1, where they come from a training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_epoch: Option<u64>,
    /// Epochs trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Wall clock, over resumes.
    pub seconds: f64,
}

/// The figures of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Figures {
    /// One class.
    Classify {
        /// Part of the pictures whose best score is that of their class.
        top1: f64,
        /// Part of the pictures whose class is among the best min(5, classes).
        top5: f64,
        /// Mean of the classes' F1.
        macro_f1: f64,
        /// Precision, recall and F1 of each class.
        classes: Vec<ClassFigures>,
        /// Counts, rows by true class, columns by predicted class.
        confusion: Vec<Vec<u64>>,
    },
    /// A class for each pixel.
    Segment {
        /// Mean of the classes' intersection over union, of those that occur or were given.
        #[serde(rename = "mIoU")]
        mean_iou: f64,
        /// Part of the pixels that are right.
        pixel_accuracy: f64,
        /// By class.
        classes: Vec<PixelFigures>,
        /// Pixels, rows by true class, columns by predicted class.
        confusion: Vec<Vec<u64>>,
    },
    /// Several labels.
    Multilabel {
        /// Mean of the labels' average precision.
        #[serde(rename = "mAP")]
        mean_average_precision: f64,
        /// F1 over all labels together, at probability ½.
        micro_f1: f64,
        /// Mean of the labels' F1.
        macro_f1: f64,
        /// By label.
        classes: Vec<LabelFigures>,
    },
    /// Boxes.
    Detect {
        /// Mean average precision at IoU 0.5.
        #[serde(rename = "mAP50")]
        map50: f64,
        /// Over IoU 0.5 to 0.95, as COCO has it.
        #[serde(rename = "mAP50_95")]
        map50_95: f64,
        /// COCO's twelve numbers by name; -1 where there is nothing to judge by.
        coco: std::collections::BTreeMap<String, f64>,
        /// The confidence at which the mean F1 is best, which precision and recall are for.
        confidence: f64,
        /// That F1.
        f1: f64,
        /// By class.
        classes: Vec<BoxFigures>,
        /// Counts, rows by true class, columns by predicted class, the background last.
        confusion: Vec<Vec<u64>>,
    },
    /// Numbers.
    Regress {
        /// Mean absolute error, mean of the numbers'.
        mae: f64,
        /// Root of the mean squared error.
        rmse: f64,
        /// Explained part of the variance, mean of the numbers'.
        r2: f64,
        /// By number.
        numbers: Vec<NumberFigures>,
    },
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

/// One class of pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PixelFigures {
    /// Its name.
    pub name: String,
    /// Intersection over union; none where it neither occurs nor was given.
    pub iou: Option<f64>,
    /// Of its pixels, the part that was given it.
    pub recall: f64,
    /// Pixels that have it.
    pub pixels: u64,
}

/// One label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelFigures {
    /// Its name.
    pub name: String,
    /// Average precision; none where no picture has it.
    pub ap: Option<f64>,
    /// Precision, recall and F1 at probability ½, and the pictures that have it.
    #[serde(flatten)]
    pub at_half: striate_vision::metrics::ClassMetrics,
}

/// One class of things.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoxFigures {
    /// Its name.
    pub name: String,
    /// Average precision over IoU 0.5 to 0.95; none where there is no thing of it.
    pub ap: Option<f64>,
    /// At IoU 0.5.
    pub ap50: Option<f64>,
    /// Of the detections at IoU 0.5, the part that is right.
    pub precision: f64,
    /// Of the things, the part that is found.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Things that count.
    pub things: u64,
}

/// One number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NumberFigures {
    /// Its name.
    pub name: String,
    /// Mean absolute error.
    pub mae: f64,
    /// Root of the mean squared error.
    pub rmse: f64,
    /// Explained part of the variance.
    pub r2: f64,
}

fn rows(counts: &[u64], classes: usize) -> Vec<Vec<u64>> {
    counts.chunks(classes.max(1)).map(<[u64]>::to_vec).collect()
}

fn segment(counts: &SegmentationMetrics, names: &[String]) -> Figures {
    let class = |(class, name): (usize, &String)| PixelFigures {
        name: name.clone(),
        iou: counts.iou(class),
        recall: counts.recall(class),
        pixels: counts.support(class),
    };
    Figures::Segment {
        mean_iou: counts.mean_iou(),
        pixel_accuracy: counts.pixel_accuracy(),
        classes: names.iter().enumerate().map(class).collect(),
        confusion: rows(counts.confusion(), names.len()),
    }
}

fn multilabel(counts: &MultilabelMetrics, names: &[String]) -> Figures {
    let per_class = counts.per_class();
    let class = |(class, name): (usize, &String)| LabelFigures {
        name: name.clone(),
        ap: counts.average_precision(class),
        at_half: per_class[class],
    };
    Figures::Multilabel {
        mean_average_precision: counts.mean_average_precision(),
        micro_f1: counts.micro_f1(),
        macro_f1: counts.macro_f1(),
        classes: names.iter().enumerate().map(class).collect(),
    }
}

fn regress(counts: &RegressionMetrics, names: &[String]) -> Figures {
    let number = |(output, name): (usize, &String)| {
        let f = counts.figures(output);
        NumberFigures { name: name.clone(), mae: f.mae, rmse: f.rmse, r2: f.r2 }
    };
    let all = counts.overall();
    let numbers = names.iter().enumerate().map(number).collect();
    Figures::Regress { mae: all.mae, rmse: all.rmse, r2: all.r2, numbers }
}

fn detect(counts: &DetectionCounts, names: &[String]) -> Figures {
    let [map50, map50_95] = counts.means();
    let judged = counts.judged();
    let (confidence, f1) = judged.map_or((0.0, 0.0), |judged| judged.best);
    let class = |(class, name): (&ClassAp, &String)| {
        let [precision, recall] = class.curve.at(confidence);
        let (f1, things) = (class.curve.f1(confidence), class.things as u64);
        BoxFigures { name: name.clone(), ap: class.ap, ap50: class.ap50, precision, recall, f1, things }
    };
    let coco = judged.map(|judged| STAT_NAMES.iter().zip(judged.figures.stats));
    Figures::Detect {
        map50,
        map50_95,
        coco: coco.into_iter().flatten().map(|(name, stat)| ((*name).to_owned(), stat)).collect(),
        confidence,
        f1,
        classes: judged.map(|judged| judged.figures.classes.iter().zip(names).map(class).collect()).unwrap_or_default(),
        confusion: judged.map(|judged| judged.confusion.counts.clone()).unwrap_or_default(),
    }
}

impl Figures {
    fn new(counts: &Counts, names: &[String]) -> Figures {
        match counts {
            Counts::Detect(counts) => detect(counts, names),
            Counts::Segment(counts) => segment(counts, names),
            Counts::Multilabel(counts) => multilabel(counts, names),
            Counts::Regress(counts) => regress(counts, names),
            Counts::Classify(counts) => {
                let class = |(m, name): (striate_vision::metrics::ClassMetrics, &String)| ClassFigures {
                    name: name.clone(),
                    precision: m.precision,
                    recall: m.recall,
                    f1: m.f1,
                    support: m.support,
                };
                Figures::Classify {
                    top1: counts.top1(),
                    top5: counts.topk(),
                    macro_f1: counts.macro_f1(),
                    classes: counts.per_class().into_iter().zip(names).map(class).collect(),
                    confusion: rows(counts.confusion(), names.len()),
                }
            }
        }
    }
}

impl Metrics {
    /// Of an evaluation on the part `split`.
    pub fn new(split: &str, evaluation: &Evaluation, class_names: &[String], seconds: f64) -> Metrics {
        Metrics {
            split: split.to_owned(),
            figures: Figures::new(&evaluation.counts, class_names),
            loss: evaluation.loss,
            images: evaluation.counts.total(),
            skipped: evaluation.skipped,
            best_epoch: None,
            epochs: None,
            seconds,
        }
    }

    /// The main figures in a line, such as `top1 91.20 %  top5 99.80 %  loss 0.2671  macro F1 0.9110`.
    pub fn summary(&self) -> String {
        let loss = self.loss.unwrap_or(0.0);
        match &self.figures {
            Figures::Classify { top1, top5, macro_f1, .. } => {
                format!(
                    "top1 {:.2} %  top5 {:.2} %  loss {loss:.4}  macro F1 {macro_f1:.4}",
                    100.0 * top1,
                    100.0 * top5
                )
            }
            Figures::Segment { mean_iou, pixel_accuracy, .. } => {
                format!("mIoU {:.2} %  pixels right {:.2} %  loss {loss:.4}", 100.0 * mean_iou, 100.0 * pixel_accuracy)
            }
            Figures::Multilabel { mean_average_precision, micro_f1, macro_f1, .. } => format!(
                "mAP {:.2} %  micro F1 {micro_f1:.4}  macro F1 {macro_f1:.4}  loss {loss:.4}",
                100.0 * mean_average_precision
            ),
            Figures::Detect { map50, map50_95, confidence, f1, .. } => format!(
                "mAP50 {:.2} %  mAP50-95 {:.2} %  F1 {f1:.4} at confidence {confidence:.3}",
                100.0 * map50,
                100.0 * map50_95
            ),
            Figures::Regress { mae, rmse, r2, .. } => {
                format!("MAE {mae:.4}  RMSE {rmse:.4}  R² {r2:.4}  loss {loss:.4}")
            }
        }
    }

    /// A table of the classes or numbers: its head, and a row for each.
    pub fn table(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let figure = |x: f64| format!("{x:.4}");
        let maybe = |x: Option<f64>| x.map_or("–".to_owned(), figure);
        match &self.figures {
            Figures::Classify { classes, .. } => {
                let row = |c: &ClassFigures| {
                    vec![c.name.clone(), figure(c.precision), figure(c.recall), figure(c.f1), c.support.to_string()]
                };
                let there = classes.iter().filter(|class| class.support > 0 || class.precision > 0.0);
                (vec!["class", "precision", "recall", "F1", "pictures"], there.map(row).collect())
            }
            Figures::Segment { classes, .. } => {
                let row = |c: &PixelFigures| vec![c.name.clone(), maybe(c.iou), figure(c.recall), c.pixels.to_string()];
                (vec!["class", "IoU", "recall", "pixels"], classes.iter().map(row).collect())
            }
            Figures::Multilabel { classes, .. } => {
                let row = |c: &LabelFigures| {
                    let m = c.at_half;
                    let figures =
                        [maybe(c.ap), figure(m.precision), figure(m.recall), figure(m.f1), m.support.to_string()];
                    [vec![c.name.clone()], figures.to_vec()].concat()
                };
                (vec!["label", "AP", "precision", "recall", "F1", "pictures"], classes.iter().map(row).collect())
            }
            Figures::Detect { classes, .. } => {
                let row = |c: &BoxFigures| {
                    let figures = [maybe(c.ap50), maybe(c.ap), figure(c.precision), figure(c.recall), figure(c.f1)];
                    [vec![c.name.clone()], figures.to_vec(), vec![c.things.to_string()]].concat()
                };
                (
                    vec!["class", "AP50", "AP50-95", "precision", "recall", "F1", "things"],
                    classes.iter().map(row).collect(),
                )
            }
            Figures::Regress { numbers, .. } => {
                let row = |n: &NumberFigures| vec![n.name.clone(), figure(n.mae), figure(n.rmse), figure(n.r2)];
                (vec!["number", "MAE", "RMSE", "R²"], numbers.iter().map(row).collect())
            }
        }
    }
}
