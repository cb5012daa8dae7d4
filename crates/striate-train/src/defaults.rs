//! The rule by which settings follow from the data: its number, size and kind of pictures; never its name.

use crate::config::{Augment, ClassWeights, MixingName, OptimizerName, ScheduleName, Settings, TrainConfig};
use crate::{Result, TrainError};
use striate_vision::data::DatasetSource;
use striate_vision::models::find_model;

/// Longest side of a picture that counts as small.
const SMALL: usize = 64;

/// What the rule looks at.
struct Kind {
    /// Pictures to train on, as they come from the data.
    pictures: usize,
    /// Middle height and width.
    size: [usize; 2],
    channels: usize,
}

impl Kind {
    fn of(source: &DatasetSource) -> Kind {
        let middle = |side: fn(&striate_vision::data::PictureInfo) -> usize| {
            let mut sides: Vec<usize> = source.probed.iter().map(side).collect();
            sides.sort_unstable();
            sides.get(sides.len() / 2).copied().unwrap_or(224)
        };
        let size = source.fixed_size.unwrap_or_else(|| [middle(|p| p.height), middle(|p| p.width)]);
        let pictures = source.train.as_ref().map_or(0, |part| part.len());
        Kind { pictures, size, channels: source.channels }
    }

    fn small(&self) -> bool {
        self.size[0].max(self.size[1]) <= SMALL
    }
}

/// What the rule gives.
struct Defaults {
    model: &'static str,
    imgsz: usize,
    epochs: u64,
    batch: usize,
    augment: Augment,
}

fn choose_defaults(kind: &Kind) -> Defaults {
    let n = kind.pictures;
    if kind.small() {
        let (epochs, batch) = match n {
            20_000.. => (12, 128),
            2_000.. => (10, 64),
            _ => (40, 32),
        };
        let imgsz = kind.size[0].max(kind.size[1]);
        return Defaults { model: "small", imgsz, epochs, batch, augment: Augment::Flip };
    }
    let (epochs, batch) = match n {
        20_000.. => (20, 64),
        2_000.. => (30, 32),
        _ => (40, 16),
    };
    let imgsz = (kind.size[0].min(kind.size[1]) / 32 * 32).clamp(64, 128);
    Defaults { model: "resnet18", imgsz, epochs, batch, augment: Augment::Photo }
}

/// The settings of a run on this data, and a line that says by which rule the unset ones were chosen.
///
/// # Errors
/// A setting out of its range, or a model that does not exist.
pub fn resolve(config: &TrainConfig, source: &DatasetSource) -> Result<(Settings, String)> {
    let kind = Kind::of(source);
    let chosen = choose_defaults(&kind);
    let given = config.clone();
    let model = given.model.unwrap_or_else(|| chosen.model.to_owned());
    find_model(&model)?;
    let batch = given.batch.unwrap_or_else(|| chosen.batch.min((kind.pictures / 4).max(1)));
    let optimizer = given.optimizer.unwrap_or(OptimizerName::Sgd);
    let plain = matches!(model.as_str(), "lenet") || (model.starts_with("vgg") && !model.ends_with("_bn"));
    let settings = Settings {
        epochs: given.epochs.unwrap_or(chosen.epochs),
        batch,
        imgsz: given.imgsz.unwrap_or(chosen.imgsz),
        lr: given.lr.unwrap_or_else(|| choose_lr(optimizer, batch, plain)),
        optimizer,
        momentum: given.momentum.unwrap_or(0.9),
        weight_decay: given.weight_decay.unwrap_or_else(|| choose_decay(optimizer)),
        schedule: given.schedule.unwrap_or(ScheduleName::OneCycle),
        warmup: given.warmup.unwrap_or(0.2),
        label_smoothing: given.label_smoothing.unwrap_or(0.1),
        ema: given.ema.unwrap_or(0.0),
        augment: given.augment.unwrap_or(chosen.augment),
        mixing: given.mixing.unwrap_or(MixingName::None),
        class_weights: given.class_weights.unwrap_or(ClassWeights::None),
        clip_norm: given.clip_norm.unwrap_or(0.0),
        val_fraction: given.val_fraction.unwrap_or(0.1),
        patience: given.patience.unwrap_or(0),
        seed: given.seed.unwrap_or(0),
        exact: given.exact.unwrap_or(false),
        checkpoint_seconds: given.checkpoint_seconds.unwrap_or(60.0),
        checkpoint_steps: given.checkpoint_steps.unwrap_or(0),
        model,
        data: given.data,
        weights: given.weights,
        threads: given.threads,
        workers: given.workers,
        project: given.project,
        name: given.name,
    };
    check(&settings)?;
    let [h, w] = kind.size;
    let size = if kind.small() {
        format!("of at most {SMALL} pixels: small")
    } else {
        format!("above {SMALL} pixels: photographs")
    };
    let rule = format!(
        "defaults for {} training pictures of about {w}x{h} with {} channel(s) ({size}): model {}, imgsz {}, {} epochs, batch {}, augment {}",
        kind.pictures, kind.channels, chosen.model, chosen.imgsz, chosen.epochs, chosen.batch, chosen.augment
    );
    Ok((settings, rule))
}

/// The top of the learning rate; that of sgd goes with the batch (Goyal et al. 2017).
fn choose_lr(optimizer: OptimizerName, batch: usize, plain: bool) -> f64 {
    let part = batch as f64 / 128.0;
    match optimizer {
        OptimizerName::Sgd if plain => 0.05 * part,
        OptimizerName::Sgd => 0.2 * part,
        OptimizerName::Adam | OptimizerName::AdamW => 2e-3,
        OptimizerName::RmsProp => 1e-3,
        OptimizerName::Lion => 3e-4,
    }
}

fn choose_decay(optimizer: OptimizerName) -> f64 {
    match optimizer {
        OptimizerName::Sgd => 5e-4,
        OptimizerName::AdamW => 0.05,
        OptimizerName::Lion => 0.1,
        OptimizerName::Adam | OptimizerName::RmsProp => 0.0,
    }
}

fn check(s: &Settings) -> Result<()> {
    let at_least_one = "it must be at least 1";
    for (name, value) in [("--epochs", s.epochs as usize), ("--batch", s.batch), ("--imgsz", s.imgsz)] {
        if value == 0 {
            return Err(TrainError::setting(name, 0, at_least_one));
        }
    }
    if s.imgsz > 4096 {
        return Err(TrainError::setting("--imgsz", s.imgsz, "at most 4096 is possible"));
    }
    if s.threads == Some(0) {
        return Err(TrainError::setting("--threads", 0, at_least_one));
    }
    if !(s.lr.is_finite() && s.lr > 0.0) {
        return Err(TrainError::setting("--lr", s.lr, "it must be above 0"));
    }
    if !(s.val_fraction > 0.0 && s.val_fraction < 1.0) {
        return Err(TrainError::setting("--val-fraction", s.val_fraction, "it must lie between 0 and 1, such as 0.1"));
    }
    for (name, value, most) in [
        ("warmup", s.warmup, 1.0),
        ("label_smoothing", s.label_smoothing, 1.0),
        ("ema", s.ema, 1.0),
        ("momentum", s.momentum, 1.0),
        ("weight_decay", s.weight_decay, f64::MAX),
        ("clip_norm", s.clip_norm, f64::MAX),
        ("checkpoint_seconds", s.checkpoint_seconds, f64::MAX),
    ] {
        if !(0.0..=most).contains(&value) {
            return Err(TrainError::setting(name, value, "it must be at least 0, and at most 1 where it is a part"));
        }
    }
    Ok(())
}
