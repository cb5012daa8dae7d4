//! The rule by which settings follow from the data: its number, size and kind of pictures; never its name.

use crate::config::{Augment, ClassWeights, Freeze, MixingName, OptimizerName, ScheduleName, Settings, TrainConfig};
use crate::{Result, RunFolder, TrainError};
use std::path::Path;
use striate_graph::machine::default_threads;
use striate_vision::data::{Dataset, DatasetSource};
use striate_vision::models::detection::{detectors, detectors_on_classifiers, find_detector, is_detector};
use striate_vision::models::{
    ModelSpec, OnnxNet, Pretrained, Task, find_model, imported_preprocess, is_imported, open_imported,
};
use striate_vision::transforms::ResizeTo;

/// Most random views of each picture.
const MOST_VIEWS: u64 = 1000;
/// How many pictures the frozen part of a net is to see, about.
const FEATURE_PASSES: usize = 2000;
/// Of the boxes, one in so many may become smaller than [`SEEN_SIDE`].
const FEW: usize = 20;
/// Pixels that a thing should have in its shorter direction for a detector to see it well.
const SEEN_SIDE: f64 = 18.0;
/// Least and largest side of pictures that detectors see by default.
const LEAST_SIDE: f64 = 160.0;
const LONGEST: f64 = 640.0;
/// Pixels that a detector is shown in a training, about.
const SEEN_PIXELS: f64 = 1.6e9;
/// The part of it that the scenes inside the binary get: they are for the first minutes.
const FIRST_LOOK: f64 = 0.15;
/// Least and most epochs of a detector.
const DETECTOR_EPOCHS: [f64; 2] = [12.0, 300.0];
/// Last epochs in which pictures come alone: one in so many.
const LAST_ALONE: u64 = 7;
/// The learning rate of a detector that goes on from weights, as a part of the usual one.
const GOING_ON_RATE: f64 = 0.5;
/// Most sizes of batches: a program is compiled for each.
const MOST_SIZES: usize = 9;
/// Longest side of a picture that counts as small.
const SMALL: usize = 64;

/// Side of the pictures of an ONNX model that leaves it open and says nothing.
const IMPORTED_SIDE: usize = 224;

/// What the rule looks at.
struct Kind {
    task: Task,
    /// Pictures to train on, as they come from the data.
    pictures: usize,
    /// Middle height and width.
    size: [usize; 2],
    channels: usize,
    /// Of things: one in [`FEW`] has a box with a shorter side than so many pixels.
    small_side: f64,
    /// Whether it is what the binary holds, for a first look.
    embedded: bool,
}

impl Kind {
    fn of(source: &DatasetSource) -> Kind {
        let pictures = source.train.as_ref().map_or(0, |part| part.len());
        let small_side = source.train.as_ref().map_or(0.0, |part| small_side(&**part));
        let embedded = source.path.is_none();
        Kind {
            task: source.task,
            pictures,
            size: source.middle_size(),
            channels: source.channels,
            small_side,
            embedded,
        }
    }

    fn small(&self) -> bool {
        self.size[0].max(self.size[1]) <= SMALL
    }
}

/// The shorter side of boxes that one in [`FEW`] is below; 0 without boxes.
fn small_side(part: &dyn Dataset) -> f64 {
    let things = (0..part.len()).filter_map(|index| part.boxes(index)).flatten();
    let mut sides: Vec<f64> = things.map(|t| (t.xyxy[2] - t.xyxy[0]).min(t.xyxy[3] - t.xyxy[1])).collect();
    sides.sort_by(f64::total_cmp);
    sides.get(sides.len() / FEW).copied().unwrap_or(0.0)
}

/// The net of our own that a detector is by default: the smallest, unless there are many pictures and threads.
fn choose_detector(pictures: usize, threads: usize) -> &'static str {
    match (pictures, threads) {
        (20_000.., 32..) => "striate_det_m",
        (5_000.., 8..) => "striate_det_s",
        _ => "striate_det_n",
    }
}

/// For boxes: the longer side is such that few of the things become smaller than [`SEEN_SIDE`] pixels, and the epochs so many that
/// about as much is seen in all whatever the number and size of the pictures.
fn choose_for_boxes(kind: &Kind) -> Defaults {
    let [h, w] = kind.size;
    let longer = h.max(w).max(1) as f64;
    let wanted = if kind.small_side > 0.0 { SEEN_SIDE / kind.small_side * longer } else { longer };
    let most = longer.clamp(LEAST_SIDE, LONGEST);
    let imgsz = (wanted.clamp(LEAST_SIDE, most) / 32.0).ceil() as usize * 32;
    let pixels = imgsz as f64 * imgsz as f64 * h.min(w) as f64 / longer;
    let [least, most] = DETECTOR_EPOCHS;
    let (part, least) = if kind.embedded { (FIRST_LOOK, 1.0) } else { (1.0, least) };
    let epochs = (part * SEEN_PIXELS / (kind.pictures.max(1) as f64 * pixels)).round().clamp(least, most) as u64;
    Defaults {
        model: choose_detector(kind.pictures, default_threads()),
        imgsz,
        epochs,
        batch: 8,
        augment: Augment::Photo,
        lr_factor: 1.0,
        head_lr_factor: 1.0,
        average: true,
        remark: ", weights averaged over about two epochs",
    }
}

/// What the rule gives.
struct Defaults {
    model: &'static str,
    imgsz: usize,
    epochs: u64,
    batch: usize,
    augment: Augment,
    /// Of the learning rate of training from nothing.
    lr_factor: f64,
    head_lr_factor: f64,
    /// Whether the weights are averaged over about two epochs.
    average: bool,
    remark: &'static str,
}

fn choose_defaults(kind: &Kind) -> Defaults {
    let n = kind.pictures;
    let (lr_factor, head_lr_factor, average, remark) = (1.0, 1.0, false, "");
    if kind.task == Task::Detect {
        return choose_for_boxes(kind);
    }
    if kind.task == Task::Segment {
        let longer = kind.size[0].max(kind.size[1]);
        return Defaults {
            model: "lraspp_mobilenet_v3_large",
            imgsz: (longer / 32 * 32).clamp(64, 256),
            epochs: if n >= 2_000 { 20 } else { 40 },
            batch: 8,
            augment: if kind.small() { Augment::Flip } else { Augment::Photo },
            lr_factor: 2.0,
            head_lr_factor,
            average: true,
            remark: ", weights averaged over about two epochs",
        };
    }
    if kind.small() {
        let (epochs, batch) = match n {
            20_000.. => (12, 64),
            2_000.. => (10, 64),
            _ => (40, 32),
        };
        let imgsz = kind.size[0].max(kind.size[1]);
        let augment = Augment::Flip;
        return Defaults { model: "small", imgsz, epochs, batch, augment, lr_factor, head_lr_factor, average, remark };
    }
    let (epochs, batch) = match n {
        20_000.. => (20, 64),
        2_000.. => (30, 32),
        _ => (40, 16),
    };
    let imgsz = (kind.size[0].min(kind.size[1]) / 32 * 32).clamp(64, 128);
    let augment = Augment::Photo;
    Defaults { model: "resnet18", imgsz, epochs, batch, augment, lr_factor, head_lr_factor, average, remark }
}

/// Settings with the rules by which the unset ones were chosen, and the weights to go on from.
pub struct Resolved {
    /// All settings.
    pub settings: Settings,
    /// A line on each rule.
    pub rules: Vec<String>,
    /// Where `weights` is set.
    pub pretrained: Option<Pretrained>,
}

/// The settings of a run on this data.
///
/// # Errors
/// A setting out of its range, a model that does not exist, or weights that cannot be read.
pub fn resolve(config: &TrainConfig, source: &DatasetSource) -> Result<Resolved> {
    let kind = Kind::of(source);
    let mut given = config.clone();
    let imported = take_imported(&mut given)?;
    if kind.task == Task::Detect && imported.is_some() {
        let fix = "no detector is trained on from an ONNX file; give the run folder or the weights that it came from";
        return Err(TrainError::setting("--weights", "an ONNX file", fix));
    }
    find_weights(&mut given)?;
    let pretrained = given.weights.as_deref().map(Pretrained::read).transpose()?;
    let mut rules = Vec::new();
    let fresh = choose_defaults(&kind);
    let chosen = match (&imported, &pretrained) {
        (Some(net), _) => choose_for_imported(&kind, net, &mut given, &mut rules)?,
        (None, Some(pretrained)) if kind.task == Task::Detect => {
            choose_for_detector(&kind, pretrained, &mut given, &mut rules)?
        }
        (None, Some(pretrained)) => choose_for_weights(&kind, pretrained, &mut given, &mut rules)?,
        (None, None) => fresh,
    };
    let model = given.model.clone().unwrap_or_else(|| chosen.model.to_owned());
    match imported {
        None if kind.task == Task::Detect => check_detector(&model, &given)?,
        None => {
            check_no_detector(&model, kind.task)?;
            check_task(find_model(&model)?, kind.task, &given)?;
        }
        Some(_) if kind.task != Task::Classify => {
            let fix = format!("an imported net is trained to classify, and the data is to {}", kind.task);
            return Err(TrainError::setting("--model", &model, &fix));
        }
        Some(_) => {}
    }
    given.task = Some(kind.task);
    let [h, w] = kind.size;
    let size = if kind.task == Task::Detect {
        format!("one box in {FEW} is narrower than {:.0} pixels, which should be seen as {SEEN_SIDE}", kind.small_side)
    } else if kind.small() {
        format!("of at most {SMALL} pixels: small")
    } else {
        format!("above {SMALL} pixels: photographs")
    };
    let (n, channels) = (kind.pictures, kind.channels);
    rules.push(format!(
        "defaults for {n} training pictures of about {w}x{h} with {channels} channel(s) ({size}): model {}, imgsz {}, {} epochs, batch {}, augment {}{}",
        chosen.model, chosen.imgsz, chosen.epochs, chosen.batch, chosen.augment, chosen.remark
    ));
    let settings = fill(given, model, &chosen, &kind);
    check(&settings)?;
    Ok(Resolved { settings, rules, pretrained })
}

/// What is set, and for the rest what was chosen.
fn fill(given: TrainConfig, model: String, chosen: &Defaults, kind: &Kind) -> Settings {
    let batch = given.batch.unwrap_or_else(|| chosen.batch.min((kind.pictures / 4).max(1)));
    let boxes = kind.task == Task::Detect;
    let optimizer = given.optimizer.unwrap_or(if boxes { OptimizerName::AdamW } else { OptimizerName::Sgd });
    let epochs = given.epochs.unwrap_or(chosen.epochs);
    let augment = given.augment.unwrap_or(chosen.augment);
    let plain = matches!(model.as_str(), "lenet") || (model.starts_with("vgg") && !model.ends_with("_bn"));
    Settings {
        epochs,
        batch,
        imgsz: given.imgsz.unwrap_or(chosen.imgsz),
        lr: given.lr.unwrap_or_else(|| chosen.lr_factor * choose_lr(optimizer, batch, plain)),
        optimizer,
        head_lr_factor: given.head_lr_factor.unwrap_or(chosen.head_lr_factor),
        layer_decay: given.layer_decay.unwrap_or(1.0),
        momentum: given.momentum.unwrap_or(0.9),
        weight_decay: given.weight_decay.unwrap_or_else(|| choose_decay(optimizer)),
        schedule: given.schedule.unwrap_or(ScheduleName::OneCycle),
        warmup: given.warmup.unwrap_or(0.2),
        label_smoothing: given.label_smoothing.unwrap_or(if kind.task == Task::Classify { 0.1 } else { 0.0 }),
        ema: given.ema.unwrap_or(if chosen.average { choose_average(kind.pictures, batch) } else { 0.0 }),
        augment,
        mixing: given.mixing.unwrap_or(MixingName::None),
        multi_scale: given.multi_scale.unwrap_or(1),
        mosaic: given.mosaic.unwrap_or(if boxes && augment == Augment::Photo { 0.5 } else { 0.0 }),
        close_mosaic: given.close_mosaic.unwrap_or(if boxes { epochs.div_ceil(LAST_ALONE) } else { 0 }),
        mixup: given.mixup.unwrap_or(0.0),
        copy_paste: given.copy_paste.unwrap_or(0.0),
        feature_memory: given.feature_memory.unwrap_or(2048),
        feature_views: given.feature_views.unwrap_or_else(|| choose_views(kind.pictures)),
        freeze_bn: given.freeze_bn.unwrap_or(false),
        class_weights: given.class_weights.unwrap_or(ClassWeights::None),
        clip_norm: given.clip_norm.unwrap_or(if boxes { 10.0 } else { 0.0 }),
        val_fraction: given.val_fraction.unwrap_or(0.1),
        patience: given.patience.unwrap_or(0),
        seed: given.seed.unwrap_or(0),
        exact: given.exact.unwrap_or(false),
        checkpoint_seconds: given.checkpoint_seconds.unwrap_or(60.0),
        checkpoint_steps: given.checkpoint_steps.unwrap_or(0),
        model,
        task: given.task,
        data: given.data,
        weights: given.weights,
        freeze: given.freeze,
        resize: given.resize,
        interpolation: given.interpolation,
        mean: given.mean,
        std: given.std,
        threads: given.threads,
        workers: given.workers,
        project: given.project,
        name: given.name,
    }
}

/// Random views of which features are kept: more of them where there are few pictures.
fn choose_views(pictures: usize) -> u64 {
    (FEATURE_PASSES / pictures.max(1)).clamp(1, 8) as u64
}

/// For training that goes on from weights: the net and the preprocessing that they are for, lower learning rates, fewer epochs.
fn choose_for_weights(
    kind: &Kind,
    pretrained: &Pretrained,
    given: &mut TrainConfig,
    rules: &mut Vec<String>,
) -> Result<Defaults> {
    let Some(name) = given.model.clone().or_else(|| pretrained.model().map(str::to_owned)) else {
        let fix = "name the net that the weights are of";
        return Err(TrainError::setting("--model", "missing", fix));
    };
    let spec = find_model(&name)?;
    let channels = pretrained.channels(spec)?;
    let side = given.imgsz;
    let mut imgsz = if kind.task == Task::Segment { choose_defaults(kind).imgsz } else { spec.input[1] };
    match pretrained.preprocess(spec, side) {
        Some((p, said)) if p.channels == channels => {
            imgsz = p.size().map_or(imgsz, |[h, w]| h.max(w));
            if let Some(ResizeTo::Shorter(side)) = p.resize {
                given.resize = given.resize.or(Some(side));
            }
            given.interpolation = given.interpolation.or(Some(p.interpolation));
            given.mean.get_or_insert(p.mean.clone());
            given.std.get_or_insert(p.std.clone());
            rules.push(format!("pictures are prepared as {said}: {p}"));
        }
        _ => {}
    }
    given.model = Some(name);
    Ok(going_on(kind, given, rules, (channels, imgsz, spec.name)))
}

/// For a detector that goes on from weights: the net and the colours that they are for, a lower learning rate, fewer epochs; the size is
/// that of things in the data.
fn choose_for_detector(
    kind: &Kind,
    pretrained: &Pretrained,
    given: &mut TrainConfig,
    rules: &mut Vec<String>,
) -> Result<Defaults> {
    let known = pretrained.model().filter(|name| is_detector(name)).map(str::to_owned);
    let Some(name) = given.model.clone().or(known) else {
        let fix = "name the detector that is to go on from these weights; `striate models` lists them";
        return Err(TrainError::setting("--model", "missing", fix));
    };
    check_detector(&name, given)?;
    if given.mean.is_none() && given.std.is_none() {
        let colors = pretrained.seen_colors(find_detector(&name)?)?;
        rules.push(format!("mean {:?} and deviation {:?} of the channels: {}", colors.mean, colors.std, colors.said));
        (given.mean, given.std) = (Some(colors.mean), Some(colors.std));
    }
    let model = find_detector(&name)?.name;
    given.model = Some(name);
    let usual = choose_for_boxes(kind);
    let (lr_factor, epochs) = (GOING_ON_RATE, usual.epochs.div_ceil(2));
    Ok(Defaults { model, lr_factor, epochs, remark: ", half of the usual learning rate and epochs", ..usual })
}

/// A run folder as `weights` stands for its best ones. They are told by their whole path: a resume may come from another working folder.
fn find_weights(given: &mut TrainConfig) -> Result<()> {
    let Some(weights) = &given.weights else { return Ok(()) };
    let folder = RunFolder::at(weights);
    let file = match (weights.is_dir(), folder.best().is_file()) {
        (true, true) => folder.best(),
        (true, false) => {
            let fix = "there is no weights/best.safetensors in it; give a weights file, or a run folder after its first epoch";
            return Err(TrainError::setting("--weights", weights.display(), fix));
        }
        (false, _) => weights.clone(),
    };
    given.weights = Some(std::path::absolute(&file).unwrap_or(file));
    Ok(())
}

/// An ONNX file as `model`, or as `weights` where no model is named: the net itself, with its values.
fn take_imported(given: &mut TrainConfig) -> Result<Option<OnnxNet>> {
    let weights = given.weights.as_ref().and_then(|path| path.to_str()).filter(|path| is_imported(path));
    let model = match (given.model.as_deref().filter(|model| is_imported(model)), weights) {
        (Some(model), weights) => {
            if weights.is_some_and(|weights| weights != model) || (weights.is_none() && given.weights.is_some()) {
                return Err(TrainError::setting("--weights", "set", "an ONNX file as --model has weights of its own"));
            }
            model.to_owned()
        }
        (None, Some(weights)) if given.model.is_none() => weights.to_owned(),
        _ => return Ok(None),
    };
    // A resume may come from another working folder.
    let absolute = std::path::absolute(&model).ok().and_then(|path| path.to_str().map(str::to_owned));
    let net = open_imported(Path::new(&model))?;
    (given.model, given.weights) = (Some(absolute.unwrap_or(model)), None);
    Ok(Some(net))
}

/// For training that goes on from an ONNX model: as the file says, or usual sizes and no means.
fn choose_for_imported(
    kind: &Kind,
    net: &OnnxNet,
    given: &mut TrainConfig,
    rules: &mut Vec<String>,
) -> Result<Defaults> {
    let [channels, height, width] = net.picture();
    let channels = channels.unwrap_or(3);
    let said = imported_preprocess(net).filter(|p| p.channels == channels);
    let size = said.as_ref().and_then(|p| p.size()).map(|[h, w]| h.max(w));
    let fixed = height.zip(width);
    if let Some((h, w)) = fixed.filter(|(h, w)| h != w || given.imgsz.is_some_and(|side| side != *h)) {
        let fix = format!("the file fixes its pictures to {h}x{w}; training takes squares of that size");
        return Err(TrainError::setting("--imgsz", given.imgsz.unwrap_or(h), &fix));
    }
    let imgsz = fixed.map(|(h, _)| h).or(size).unwrap_or(IMPORTED_SIDE);
    match said {
        Some(p) => {
            if let Some(ResizeTo::Shorter(side)) = p.resize {
                given.resize = given.resize.or(Some(side));
            }
            given.interpolation = given.interpolation.or(Some(p.interpolation));
            rules.push(format!("pictures are prepared as the ONNX file says: {p}"));
            if !net.takes_bytes() {
                given.mean.get_or_insert(p.mean);
                given.std.get_or_insert(p.std);
            }
        }
        None if given.mean.is_none() => {
            rules.push("the ONNX file does not say how pictures are prepared: values from 0 to 1; --mean and --std change that".into());
        }
        None => {}
    }
    if given.mean.is_none() {
        (given.mean, given.std) = (Some(vec![0.0; channels]), Some(vec![1.0; channels]));
    }
    Ok(going_on(kind, given, rules, (channels, imgsz, "the ONNX file")))
}

/// Lower learning rates and fewer epochs than for training from nothing.
fn going_on(
    kind: &Kind,
    given: &mut TrainConfig,
    rules: &mut Vec<String>,
    (channels, imgsz, model): (usize, usize, &'static str),
) -> Defaults {
    let usual = choose_defaults(kind);
    if channels != kind.channels {
        let how = if channels == 3 { "grey becomes RGB" } else { "colours become grey" };
        rules.push(format!("the weights are for {channels} channel(s), the pictures have {}: {how}", kind.channels));
    }
    if given.mean.is_none() {
        // The number of means says how many channels the net sees.
        (given.mean, given.std) = (Some(vec![0.5; channels]), Some(vec![0.25; channels]));
    }
    let n = kind.pictures;
    let head_alone = given.freeze == Some(Freeze::Backbone);
    let (epochs, batch, lr_factor, head_lr_factor, remark) = match head_alone {
        true => (30, 32, 0.2, 1.0, ", the learning rate of a new head alone"),
        false => match n {
            20_000.. => (8, 64, 0.2, 5.0, ", a fifth of the usual learning rate, five times that for the head"),
            2_000.. => (12, 32, 0.1, 5.0, ", a tenth of the usual learning rate, five times that for the head"),
            _ => (10, 16, 0.05, 10.0, ", a twentieth of the usual learning rate, ten times that for the head"),
        },
    };
    Defaults { model, imgsz, epochs, batch, lr_factor, head_lr_factor, average: !head_alone, remark, ..usual }
}

/// Whether the net is a detector, and the settings are for one.
fn check_detector(model: &str, given: &TrainConfig) -> Result<()> {
    if !is_detector(model) && find_model(model).is_ok() {
        let names = detectors().iter().map(|spec| spec.name).collect::<Vec<_>>().join(", ");
        let on_classifiers = detectors_on_classifiers().collect::<Vec<_>>().join(", ");
        let fix = format!("the data has boxes, which these find: {names}, and on a classifier NAME {on_classifiers}");
        return Err(TrainError::setting("--model", model, &fix));
    }
    find_detector(model)?;
    check_settings(Task::Detect, given)?;
    let fix = "without --weights there is nothing worth keeping in the detector";
    if given.weights.is_none() && (given.freeze.is_some() || given.freeze_bn == Some(true)) {
        return Err(TrainError::setting("--freeze", "set", fix));
    }
    Ok(())
}

/// Whether a name that is none of the plain nets is that of a detector, which finds boxes where the data has none.
fn check_no_detector(model: &str, task: Task) -> Result<()> {
    let fix = format!("it is a detector, and the data is to {task}; give data with boxes, or --task detect for scenes");
    if is_detector(model) { Err(TrainError::setting("--model", model, &fix)) } else { Ok(()) }
}

/// Whether the net is for the task, and the settings too.
fn check_task(spec: &ModelSpec, task: Task, given: &TrainConfig) -> Result<()> {
    let for_pixels = |task: Task| task == Task::Segment;
    if for_pixels(spec.task) != for_pixels(task) {
        let fix = format!("it is a net to {}, the data is to {task}; `striate models` lists the nets", spec.task);
        return Err(TrainError::setting("--model", spec.name, &fix));
    }
    check_settings(task, given)
}

/// Whether the settings are for the task.
fn check_settings(task: Task, given: &TrainConfig) -> Result<()> {
    let fix = format!("it is for --task classify, and this is to {task}");
    let others = task != Task::Classify;
    if others && given.mixing.is_some_and(|mixing| mixing != MixingName::None) {
        return Err(TrainError::setting("--mixing", "set", &fix));
    }
    if others && given.class_weights == Some(ClassWeights::Balanced) {
        return Err(TrainError::setting("--class-weights", "balanced", &fix));
    }
    if !matches!(task, Task::Classify | Task::Segment) && given.label_smoothing.is_some_and(|s| s > 0.0) {
        return Err(TrainError::setting("--label-smoothing", "set", &fix));
    }
    Ok(())
}

/// Decay of the average of weights over about two epochs.
fn choose_average(pictures: usize, batch: usize) -> f64 {
    let steps = (pictures / batch.max(1)).max(1) as f64;
    (1.0 - 0.5 / steps).clamp(0.9, 0.9998)
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
    if !(1..=MOST_SIZES).contains(&s.multi_scale) {
        return Err(TrainError::setting("--multi-scale", s.multi_scale, &format!("1 to {MOST_SIZES} are possible")));
    }
    if s.imgsz > 4096 {
        return Err(TrainError::setting("--imgsz", s.imgsz, "at most 4096 is possible"));
    }
    if s.threads == Some(0) {
        return Err(TrainError::setting("--threads", 0, at_least_one));
    }
    for (name, value) in [("--lr", s.lr), ("--head-lr-factor", s.head_lr_factor), ("--layer-decay", s.layer_decay)] {
        if !(value.is_finite() && value > 0.0) {
            return Err(TrainError::setting(name, value, "it must be above 0"));
        }
    }
    if s.feature_views > MOST_VIEWS {
        let fix = format!("at most {MOST_VIEWS} are possible");
        return Err(TrainError::setting("--feature-views", s.feature_views, &fix));
    }
    check_channels(s)?;
    if !(s.val_fraction > 0.0 && s.val_fraction < 1.0) {
        return Err(TrainError::setting("--val-fraction", s.val_fraction, "it must lie between 0 and 1, such as 0.1"));
    }
    for (name, value, most) in [
        ("warmup", s.warmup, 1.0),
        ("label_smoothing", s.label_smoothing, 1.0),
        ("ema", s.ema, 1.0),
        ("mosaic", s.mosaic, 1.0),
        ("mixup", s.mixup, 1.0),
        ("copy_paste", s.copy_paste, 1.0),
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

/// Mean and deviation, where they are given.
fn check_channels(s: &Settings) -> Result<()> {
    if let Some(mean) = &s.mean
        && !matches!(mean.len(), 1 | 3)
    {
        return Err(TrainError::setting(
            "--mean",
            format!("{mean:?}"),
            "give one value, or one for each of 3 channels",
        ));
    }
    match (&s.mean, &s.std) {
        (Some(mean), Some(std)) if mean.len() == std.len() => Ok(()),
        (None, None) => Ok(()),
        _ => Err(TrainError::setting("--mean and --std", "uneven", "give both, with as many values")),
    }
}
