//! Training, of classifiers and for other tasks: from a data set and a few settings to a run folder.
//!
//! [`train`] does all of it and tells a [`Reporter`] how it goes; [`resume`] goes on with a run that was interrupted, with the
//! very bits that the uninterrupted run would have given.
//!
//! ```no_run
//! use striate_train::{Quiet, TrainConfig, TrainOptions, train};
//! let config = TrainConfig { epochs: Some(3), ..TrainConfig::default() };
//! let outcome = train(&config, TrainOptions::default(), &mut Quiet)?;
//! println!("{} of the test part, in {}", outcome.metrics.summary(), outcome.folder.display());
//! # Ok::<(), striate_train::TrainError>(())
//! ```
#![forbid(unsafe_code)]

mod boxes;
mod config;
mod defaults;
mod error;
mod evaluate;
mod features;
mod folder;
mod goal;
mod input;
mod layers;
mod metrics;
mod report;
mod reporter;
mod saved;
mod step;
mod trainer;
mod tta;

pub use boxes::{DetectionCounts, Judged, into_source};
pub use config::{
    Augment, ClassWeights, Freeze, MixingName, OptimizerName, ScheduleName, Settings, TrainConfig, Tta, read_config,
};
pub use defaults::{Resolved, resolve};
pub use error::{Result, TrainError};
pub use evaluate::{Evaluation, Evaluator};
pub use folder::RunFolder;
pub use goal::{Counts, Goal};
pub use input::evaluation_loader;
pub use metrics::{BoxFigures, ClassFigures, Figures, LabelFigures, Metrics, NumberFigures, PixelFigures};
pub use reporter::{EpochRecord, Event, Named, Quiet, Reporter, split_figure};
pub use trainer::{Outcome, TrainOptions, resume, train};
pub use tta::View;
