//! How a training tells the world how it goes.

use crate::Metrics;
use serde::Serialize;
use std::path::Path;

/// The figures of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: u64,
    /// Of all.
    pub epochs: u64,
    /// Steps so far.
    pub step: u64,
    /// Mean loss over the training batches, as it was optimised.
    pub train_loss: f64,
    /// Part of the training pictures that were right, in training mode.
    pub train_top1: f64,
    /// Cross-entropy on val.
    pub val_loss: f64,
    /// Part of val that was right.
    pub val_top1: f64,
    /// Part of val with the class among the best five.
    pub val_top5: f64,
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
        /// Mean over the epoch so far.
        top1: f64,
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
