//! How a training tells the world how it goes.

use crate::Metrics;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::path::Path;

/// Figures with their names, which depend on the task; in JSON they stand among the other keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Named(pub Vec<(String, f64)>);

impl Named {
    /// The figure of a name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }
}

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

/// The part that a figure belongs to, "train" or "val", and its name there.
pub fn split_figure(name: &str) -> (&'static str, &str) {
    let parts = [("train_", "train"), ("train/", "train"), ("val_", "val"), ("metrics/", "val")];
    let found = parts.into_iter().find_map(|(start, part)| Some((part, name.strip_prefix(start)?)));
    found.unwrap_or(("val", name))
}

/// Figures of training under their names there.
pub(crate) fn serialize_figures<S: Serializer>(figures: &[(&str, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(figures.len()))?;
    figures.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
    map.end()
}

/// The figures of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: u64,
    /// Of all.
    pub epochs: u64,
    /// Steps so far.
    pub step: u64,
    /// Mean loss over the training batches, as it was optimised.
    pub train_loss: f64,
    /// Loss on val, without smoothing; detectors have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_loss: Option<f64>,
    /// Those of the task: `train_top1` (in training mode), `val_top1`, `val_top5`; for pixels `train_pixel_accuracy`, `val_mIoU`,
    /// `val_pixel_accuracy`; for labels `train_accuracy`, `val_mAP`, `val_micro_f1`; for numbers `train_error` (of scaled
    /// numbers), `val_mae`, `val_r2`; for boxes the detector's losses, such as `train/box_loss`, `metrics/mAP50(B)`,
    /// `metrics/mAP50-95(B)`. The last two are those of val.
    #[serde(flatten)]
    pub figures: Named,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Whether these are the best weights so far.
    pub best: bool,
    /// Seconds since the start, over resumes.
    pub seconds: f64,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event<'a> {
    /// What is about to happen, or is remarkable: for people.
    Note {
        /// The line.
        message: &'a str,
    },
    /// The run has its folder.
    Start {
        /// The folder.
        folder: &'a Path,
        /// The net.
        model: &'a str,
        /// Its learned values.
        parameters: usize,
        /// Training pictures.
        train: usize,
        /// Val pictures.
        val: usize,
        /// Classes.
        classes: usize,
        /// Steps of an epoch.
        batches: u64,
    },
    /// A step was made.
    Step {
        /// From 1.
        epoch: u64,
        /// Of all.
        epochs: u64,
        /// From 1, in the epoch.
        batch: u64,
        /// Of the epoch.
        batches: u64,
        /// From 1, in the run.
        step: u64,
        /// Mean over the epoch so far.
        loss: f64,
        /// Means over the epoch so far of what the task looks at: `top1`, `pixel_accuracy`, `accuracy` or `error`; the losses of a
        /// detector, such as `box_loss`.
        #[serde(flatten, serialize_with = "serialize_figures")]
        figures: &'a [(&'a str, f64)],
        /// Learning rate of the step.
        lr: f64,
        /// Pictures a second, since this process began the epoch.
        images_per_s: f64,
    },
    /// An epoch is over.
    Epoch(&'a EpochRecord),
    /// Everything is written.
    Done {
        /// The folder.
        folder: &'a Path,
        /// The figures of the best weights.
        #[serde(flatten)]
        metrics: &'a Metrics,
    },
}

/// Sees what happens.
pub trait Reporter {
    /// Called in order, from the training's own thread.
    fn event(&mut self, event: &Event<'_>);
}

/// Says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Reporter for Quiet {
    fn event(&mut self, _: &Event<'_>) {}
}
