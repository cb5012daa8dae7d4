//! What a user may set, and what a run then uses.

use crate::{Result, TrainError};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use striate_vision::models::Task;
use striate_vision::transforms::{Interpolation, Mixing};

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }
        impl $name {
            /// All names.
            pub const NAMES: &'static [&'static str] = &[$($text),*];
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($name::$variant => $text),* })
            }
        }
        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok($name::$variant),)*
                    _ => {
                        let near = striate_graph::nearest(text, Self::NAMES.iter().copied());
                        let hint = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
                        Err(format!("`{text}` is none of {}{hint}", Self::NAMES.join(", ")))
                    }
                }
            }
        }
    };
}

names! {
    /// The optimizers.
    OptimizerName {
        /// With Nesterov momentum.
        Sgd = "sgd",
        /// Adam.
        Adam = "adam",
        /// Adam with decoupled decay.
        AdamW = "adamw",
        /// RMSprop.
        RmsProp = "rmsprop",
        /// Lion.
        Lion = "lion",
    }
}

names! {
    /// How the learning rate goes over the steps.
    ScheduleName {
        /// Up for the first part, then down to nothing (Smith, Topin 2017).
        OneCycle = "onecycle",
        /// A short straight warm-up, then half a cosine down to nothing.
        Cosine = "cosine",
        /// It stays.
        Constant = "constant",
    }
}

names! {
    /// What happens to training pictures.
    Augment {
        /// Nothing random.
        None = "none",
        /// Shifted by up to a fourteenth of the side.
        Shift = "shift",
        /// Shifted, and mirrored left to right half of the time.
        Flip = "flip",
        /// A random part, mirrored half of the time, colours jittered: for photographs.
        Photo = "photo",
    }
}

names! {
    /// Mixing of the samples of a batch.
    MixingName {
        /// None.
        None = "none",
        /// Weighted means of two pictures, alpha 0.2.
        MixUp = "mixup",
        /// A rectangle of another picture, alpha 1.
        CutMix = "cutmix",
        /// One of both for each batch.
        Either = "either",
    }
}

impl MixingName {
    /// The mixing with its constants.
    pub fn mixing(self) -> Mixing {
        match self {
            MixingName::None => Mixing::None,
            MixingName::MixUp => Mixing::MixUp { alpha: 0.2 },
            MixingName::CutMix => Mixing::CutMix { alpha: 1.0 },
            MixingName::Either => Mixing::Either { mixup_alpha: 0.2, cutmix_alpha: 1.0 },
        }
    }
}

names! {
    /// Whether rare classes count more in the loss.
    ClassWeights {
        /// Every picture counts the same.
        None = "none",
        /// Every class counts the same.
        Balanced = "balanced",
    }
}

/// Which layers training leaves as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Freeze {
    /// All but the head.
    Backbone,
    /// So many blocks from the start.
    Blocks(usize),
}

impl std::str::FromStr for Freeze {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("backbone", _) => Ok(Freeze::Backbone),
            (_, Ok(blocks)) if blocks > 0 => Ok(Freeze::Blocks(blocks)),
            _ => Err(format!("`{text}` is neither `backbone` nor a number of blocks from 1 on")),
        }
    }
}

impl TryFrom<String> for Freeze {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Freeze> for String {
    fn from(freeze: Freeze) -> String {
        freeze.to_string()
    }
}

impl std::fmt::Display for Freeze {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Freeze::Backbone => f.write_str("backbone"),
            Freeze::Blocks(blocks) => write!(f, "{blocks}"),
        }
    }
}

names! {
    /// Views of each picture whose probabilities are averaged in evaluation and prediction.
    Tta {
        /// The picture as it is prepared.
        None = "none",
        /// Also mirrored left to right.
        Flip = "flip",
        /// The centre and the four corners.
        Crops = "crops",
        /// These five, also mirrored.
        All = "all",
    }
}

macro_rules! settings {
    ($($(#[$doc:meta])* $field:ident: $type:ty,)* @optional $($(#[$opt_doc:meta])* $opt:ident: $opt_type:ty,)*) => {
        /// What may be set, in a file (`--config`, TOML) or by flags; what is not set follows from the data by rule.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct TrainConfig {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
            $($(#[$opt_doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $opt: Option<$opt_type>,)*
        }

        impl TrainConfig {
            /// What is set here, else what is set in `other`.
            pub fn or(self, other: TrainConfig) -> TrainConfig {
                TrainConfig {
                    $($field: self.$field.or(other.$field),)*
                    $($opt: self.$opt.or(other.$opt),)*
                }
            }
        }

        /// Every setting of a run; `args.toml` holds them, and can be given as `--config`.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Settings {
            $($(#[$doc])* pub $field: $type,)*
            $($(#[$opt_doc])* pub $opt: Option<$opt_type>,)*
        }

        impl From<Settings> for TrainConfig {
            fn from(settings: Settings) -> TrainConfig {
                TrainConfig {
                    $($field: Some(settings.$field),)*
                    $($opt: settings.$opt,)*
                }
            }
        }

        impl Settings {
            /// The settings of a complete configuration; `None` names what is missing.
            pub(crate) fn complete(config: TrainConfig) -> Result<Settings, &'static str> {
                Ok(Settings {
                    $($field: config.$field.ok_or(stringify!($field))?,)*
                    $($opt: config.$opt,)*
                })
            }
        }
    };
}

settings! {
    /// Name of the net.
    model: String,
    /// Epochs.
    epochs: u64,
    /// Pictures in a batch.
    batch: usize,
    /// Side of the pictures that the net sees.
    imgsz: usize,
    /// Learning rate at its top.
    lr: f64,
    /// The optimizer.
    optimizer: OptimizerName,
    /// How many times the head's learning rate is that of the rest.
    head_lr_factor: f64,
    /// Factor of the learning rate from each block to the one before it.
    layer_decay: f64,
    /// Momentum of sgd and rmsprop.
    momentum: f64,
    /// Weight decay; norms and biases never decay.
    weight_decay: f64,
    /// How the learning rate goes.
    schedule: ScheduleName,
    /// The part of all steps in which it rises.
    warmup: f64,
    /// Part of the target that is spread over all classes.
    label_smoothing: f64,
    /// Decay of the average of weights; 0 for none.
    ema: f64,
    /// What happens to training pictures.
    augment: Augment,
    /// Mixing of samples.
    mixing: MixingName,
    /// Sizes between which the batches of a detector vary; 1 for one size.
    multi_scale: usize,
    /// Probability that four pictures with boxes are put together.
    mosaic: f64,
    /// Last epochs in which pictures with boxes come alone, as they are in evaluation.
    close_mosaic: u64,
    /// Probability that another picture with boxes is laid over one.
    mixup: f64,
    /// Probability that things of another picture are put onto one.
    copy_paste: f64,
    /// Random views of each picture whose features are kept, besides the picture as evaluation sees it, where the backbone is
    /// frozen; 0 for that one alone.
    feature_views: u64,
    /// MiB of features that are held in memory; more go through a file in the run folder.
    feature_memory: usize,
    /// Batch norms keep statistics, factors and shifts.
    freeze_bn: bool,
    /// Whether rare classes count more.
    class_weights: ClassWeights,
    /// Largest norm of all gradients; 0 for no clipping.
    clip_norm: f64,
    /// Part of the training pictures held back where the data has no val part.
    val_fraction: f64,
    /// Epochs without a better val accuracy after which it ends; 0 for never.
    patience: u64,
    /// Key of all random numbers.
    seed: u64,
    /// Direct convolutions only.
    exact: bool,
    /// Seconds between checkpoints.
    checkpoint_seconds: f64,
    /// Steps between checkpoints; 0 for by time alone.
    checkpoint_steps: u64,
    @optional
    /// What the net is to say; seen from the data.
    task: Task,
    /// Path or name of the data; nothing for the set inside the binary.
    data: String,
    /// Weights to start from.
    weights: PathBuf,
    /// Layers that stay as they are.
    freeze: Freeze,
    /// Length of the shorter side before the crop.
    resize: usize,
    /// How pictures are resampled.
    interpolation: Interpolation,
    /// Mean by channel; their number is that of the channels that the net sees.
    mean: Vec<f32>,
    /// Deviation by channel.
    std: Vec<f32>,
    /// Threads; no bit depends on it.
    threads: usize,
    /// Loader threads; no bit depends on it.
    workers: usize,
    /// Folder that holds the run folders.
    project: PathBuf,
    /// Name of the run folder.
    name: String,
}

/// Reads a file of settings.
///
/// # Errors
/// [`TrainError::Config`] with the place, also for a setting that does not exist.
pub fn read_config(path: &Path) -> Result<TrainConfig> {
    let text = std::fs::read_to_string(path).map_err(TrainError::io(path, "read"))?;
    toml::from_str(&text)
        .map_err(|error| TrainError::Config { path: path.into(), why: error.to_string().trim_end().into() })
}

impl Settings {
    /// The task; runs of old have none but to classify.
    pub fn task(&self) -> Task {
        self.task.unwrap_or_default()
    }

    /// Whether the features of a frozen backbone are computed once, instead of in every epoch.
    pub(crate) fn caches_features(&self) -> bool {
        let pixels = matches!(self.task(), Task::Segment | Task::Detect);
        self.freeze == Some(Freeze::Backbone) && !self.mixing.mixing().is_on() && !pixels
    }
}
