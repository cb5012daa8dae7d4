//! Training of classifiers: from a data set and a few settings to a run folder.
//!
//! [`train`] does all of it and tells a [`Reporter`] how it goes; [`resume`] goes on with a run that was interrupted, with the
//! very bits that the uninterrupted run would have given.
//!
//! ```no_run
//! use striate_train::{Quiet, TrainConfig, TrainOptions, train};
//! let config = TrainConfig { epochs: Some(3), ..TrainConfig::default() };
//! let outcome = train(&config, TrainOptions::default(), &mut Quiet)?;
//! println!("{:.1} % of the test part, in {}", 100.0 * outcome.metrics.top1, outcome.folder.display());
//! # Ok::<(), striate_train::TrainError>(())
//! ```
#![forbid(unsafe_code)]

mod config;
mod defaults;
mod error;
mod evaluate;
mod features;
mod folder;
mod input;
mod layers;
mod metrics;
mod report;
mod reporter;
mod saved;
mod step;
mod trainer;
mod tta;

pub use config::{
    Augment, ClassWeights, Freeze, MixingName, OptimizerName, ScheduleName, Settings, TrainConfig, Tta, read_config,
};
pub use defaults::{Resolved, resolve};
pub use error::{Result, TrainError};
pub use evaluate::{Evaluation, Evaluator};
pub use folder::RunFolder;
pub use input::evaluation_loader;
pub use metrics::{ClassFigures, Metrics};
pub use reporter::{EpochRecord, Event, Quiet, Reporter};
pub use trainer::{Outcome, TrainOptions, resume, train};
