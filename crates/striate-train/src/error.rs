use std::path::PathBuf;
use striate_vision::data::DataError;
use striate_vision::models::ModelError;
use striate_vision::models::detection::DetectError;

/// Result of this crate.
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

const MIB: f64 = (1 << 20) as f64;

/// Why a training ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting that cannot be.
    #[error("{what} is {got}; {fix}")]
    Setting {
        /// Which.
        what: String,
        /// What was given.
        got: String,
        /// What would be right.
        fix: String,
    },
    /// A file of settings that cannot be used.
    #[error("{}: {why}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Where and what.
        why: String,
    },
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model or its file.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A detector that cannot be run.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// A file of the run.
    #[error(transparent)]
    File(#[from] striate_io::Error),
    /// A folder or a file of the run.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// A layer, optimizer or schedule.
    #[error(transparent)]
    Nn(#[from] striate_nn::Error),
    /// The graph or its execution.
    #[error(transparent)]
    Graph(#[from] striate_graph::Error),
    /// A step of training does not fit into memory. Nothing was written.
    #[error(
        "a training step with --batch {batch} needs {:.0} MiB, and this process may use {:.0} MiB{}",
        *needed as f64 / MIB,
        *limit as f64 / MIB,
        match fitting {
            0 => "; not even one picture fits: take smaller pictures (--imgsz) or a smaller model".to_owned(),
            batch => format!("; --batch {batch} fits"),
        }
    )]
    Memory {
        /// Pictures a step.
        batch: usize,
        /// Bytes of a step.
        needed: u64,
        /// Bytes that there are.
        limit: u64,
        /// The largest batch that fits, as far as it can be told; 0 where none does.
        fitting: usize,
    },
    /// A detector that learns masks, and no box with a shape. Nothing was written.
    #[error(
        "{model} learns which pixels belong to a thing, and none of the {boxes} boxes of the training part has a shape. Give each \
         annotation its `segmentation` (COCO json: polygons or RLE) or its line a polygon (YOLO txt), or train a detector of boxes \
         alone, such as `--model fasterrcnn_resnet50_fpn`"
    )]
    NoShapes {
        /// The detector's name.
        model: String,
        /// Boxes without.
        boxes: usize,
    },
    /// The loss became infinite or no number. No weights were written after that.
    #[error(
        "{what} is not finite ({value}) at step {step} (epoch {epoch}){}. Nothing was written since the last checkpoint. Try a lower learning rate (--lr {}), or look for broken values in the data",
        layer.as_ref().map(|l| format!("; the first values that are not finite come from {l}")).unwrap_or_default(),
        lr / 10.0
    )]
    NonFinite {
        /// "the loss" or "the validation loss".
        what: &'static str,
        /// Its value.
        value: f32,
        /// The step, from 1.
        step: u64,
        /// The epoch, from 1.
        epoch: u64,
        /// The first layer whose values are not finite.
        layer: Option<String>,
        /// The learning rate of the run.
        lr: f64,
    },
    /// The user stopped it; everything is saved.
    #[error("interrupted; go on with `striate train --resume {}`", folder.display())]
    Interrupted {
        /// The run folder.
        folder: PathBuf,
    },
}

impl TrainError {
    /// The exit code that the command line gives it: 1 internal, 2 usage or model, 3 data, 5 input/output, 6 loss not finite,
    /// 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            TrainError::Setting { .. } | TrainError::Config { .. } | TrainError::Memory { .. } => 2,
            TrainError::Data(error) => data_code(error),
            TrainError::NoShapes { .. } => 3,
            TrainError::Model(ModelError::File(file)) if file.is_io() => 5,
            TrainError::Model(_) => 2,
            TrainError::File(_) | TrainError::Io { .. } => 5,
            TrainError::Nn(striate_nn::Error::Graph(error))
            | TrainError::Graph(error)
            | TrainError::Detect(DetectError::Graph(error)) => match error {
                striate_graph::Error::Shape { .. } => 2,
                _ => 1,
            },
            TrainError::Nn(_) | TrainError::Detect(_) => 2,
            TrainError::NonFinite { .. } => 6,
            TrainError::Interrupted { .. } => 130,
        }
    }

    pub(crate) fn io(path: &std::path::Path, action: &'static str) -> impl FnOnce(std::io::Error) -> TrainError {
        let path = path.to_path_buf();
        move |source| TrainError::Io { path, action, source }
    }

    pub(crate) fn setting(what: &str, got: impl std::fmt::Display, fix: &str) -> TrainError {
        TrainError::Setting { what: what.into(), got: got.to_string(), fix: fix.into() }
    }
}

fn data_code(error: &DataError) -> u8 {
    if error.is_io() { 5 } else { 3 }
}
