//! From a data set to the loaders of a run.

use crate::Result;
use crate::config::{Augment, Settings};
use std::sync::Arc;
use striate_vision::data::{
    BadPictures, BoxTraining, DataLoader, Dataset, DatasetSource, ImageLoader, LoaderOptions, Pipeline, channel_stats,
    class_counts,
};
use striate_vision::metrics::{balanced_class_weights, imbalance_remark};
use striate_vision::models::{ModelInfo, TargetScale, Task};
use striate_vision::transforms::{
    BoxAugment, ColorJitter, Compose, Preprocess, RandomCrop, RandomHorizontalFlip, RandomResizedCrop, ResizeTo,
    SegmentCrop,
};

/// Pictures that mean and deviation are taken over.
const STATISTICS: usize = 2000;
/// Pictures that go through a frozen backbone together.
const FEATURE_BATCH: usize = 8;
/// Part of the shorter side that the centre crop of photographs keeps.
const CENTRE: f64 = 0.875;

/// The data of a run, ready to be loaded.
pub(crate) struct Input {
    pub train: Box<dyn DataLoader>,
    pub val: Box<dyn DataLoader>,
    train_part: Arc<dyn Dataset>,
    val_part: Arc<dyn Dataset>,
    options: LoaderOptions,
    augment: Augment,
    /// Name of the part that judges the finished run, and the part if it is not val.
    pub test: Option<Arc<dyn Dataset>>,
    pub info: ModelInfo,
    pub train_len: usize,
    pub val_len: usize,
    /// Height and width of the batches of training: each has one of these.
    pub sizes: Vec<[usize; 2]>,
    /// Boxes that a picture of training has at most.
    pub most_boxes: usize,
    /// Weights by class, for the loss.
    pub balanced: Vec<f32>,
    pub notes: Vec<String>,
    /// Loader threads.
    pub workers: usize,
}

/// A loader for evaluation: every picture once, in order; unreadable ones are left out and counted.
///
/// # Errors
/// A batch of 0, an empty part, or preprocessing that cannot be.
pub fn evaluation_loader(
    part: Arc<dyn Dataset>,
    preprocess: &Preprocess,
    batch: usize,
    workers: usize,
) -> Result<ImageLoader> {
    let options = LoaderOptions { batch, workers, bad_pictures: BadPictures::Drop, ..LoaderOptions::default() };
    Ok(ImageLoader::new(part, Pipeline::evaluation(preprocess)?, options)?)
}

/// How many loader threads pay: pictures in memory cost next to nothing, files must be decoded.
fn choose_workers(source: &DatasetSource, threads: usize) -> usize {
    if source.fixed_size.is_some() { 0 } else { threads.clamp(1, 4) }
}

/// Nets for pixels and boxes see sides of whole multiples of this.
const STRIDE: usize = 32;

/// Height and width that the net sees. For pixels and boxes the longer side is `imgsz`, and the shape that of the middle picture.
fn choose_size(source: &DatasetSource, imgsz: usize) -> [usize; 2] {
    if matches!(source.task, Task::Segment | Task::Detect) {
        let [h, w] = source.middle_size();
        let longer = h.max(w).max(1);
        let side = |side: usize| match side == longer {
            true => imgsz,
            false => ((imgsz * side) as f64 / (longer * STRIDE) as f64).round().max(1.0) as usize * STRIDE,
        };
        return [side(h).min(imgsz), side(w).min(imgsz)];
    }
    match source.fixed_size {
        Some([h, w]) if h.max(w) == imgsz => [h, w],
        _ => [imgsz, imgsz],
    }
}

fn choose_preprocess(source: &DatasetSource, part: &dyn Dataset, settings: &Settings) -> Result<Preprocess> {
    let [height, width] = choose_size(source, settings.imgsz);
    // As many as there are means: weights to go on from may want other channels than the pictures have.
    let channels = settings.mean.as_ref().map_or(source.channels, Vec::len);
    let mut preprocess = Preprocess::exact(height, width, channels);
    preprocess.interpolation = settings.interpolation.unwrap_or_default();
    if source.task == Task::Detect {
        preprocess.resize = Some(ResizeTo::Letterbox([height, width]));
    }
    if source.fixed_size.is_none() && !matches!(source.task, Task::Segment | Task::Detect) {
        let side = settings.resize.unwrap_or((settings.imgsz as f64 / CENTRE).round() as usize);
        preprocess.resize = Some(ResizeTo::Shorter(side));
        preprocess.crop = Some([height, width]);
    }
    if let (Some(mean), Some(std)) = (&settings.mean, &settings.std) {
        (preprocess.mean, preprocess.std) = (mean.clone(), std.clone());
    } else {
        let stats = channel_stats(part, channels, &preprocess.transforms(), STATISTICS)?;
        (preprocess.mean, preprocess.std) = (stats.mean, stats.std);
    }
    preprocess.check().map_err(striate_vision::data::DataError::from)?;
    Ok(preprocess)
}

/// Changes of colour that photographs bear.
const JITTER: ColorJitter = ColorJitter { brightness: 0.3, contrast: 0.3, saturation: 0.3, hue: 0.0 };

/// The way of a training picture with its mask.
fn masked_pipeline(preprocess: &Preprocess, size: [usize; 2], augment: Augment) -> Result<Pipeline> {
    let normalize = preprocess.normalize().map_err(striate_vision::data::DataError::from)?;
    // The border has the mean colour: it is 0 to the net.
    let fill = std::array::from_fn(|c| (255.0 * preprocess.mean[c.min(preprocess.mean.len() - 1)]).round() as u8);
    let plain = SegmentCrop { fill, interpolation: preprocess.interpolation, ..SegmentCrop::plain(size) };
    let (joint, transforms) = match augment {
        Augment::None => (plain, Compose::new()),
        Augment::Shift => (SegmentCrop { scale: [0.9, 1.1], ..plain }, Compose::new()),
        Augment::Flip => (SegmentCrop { scale: [0.9, 1.1], flip: 0.5, ..plain }, Compose::new()),
        Augment::Photo => (SegmentCrop { scale: [0.5, 2.0], flip: 0.5, ..plain }, Compose::new().then(JITTER)),
    };
    Ok(Pipeline::new(normalize).joint(joint).augment(transforms))
}

/// Bytes of prepared pictures that training on boxes keeps.
const KEPT_PICTURES: usize = 512 << 20;
/// By how much the sides of batches differ at most from the usual ones, as a part.
const SCALES: f64 = 0.25;

/// The sizes of batches: `count` between 1 - [`SCALES`] and 1 + [`SCALES`] of the usual one, of whole multiples of the stride.
fn choose_sizes(size: [usize; 2], count: usize) -> Vec<[usize; 2]> {
    let of = |index: usize| {
        let factor = if count > 1 { 1.0 - SCALES + 2.0 * SCALES * index as f64 / (count - 1) as f64 } else { 1.0 };
        size.map(|side| ((side as f64 * factor / STRIDE as f64).round() as usize).max(1) * STRIDE)
    };
    let mut sizes: Vec<_> = if count > 1 { (0..count).map(of).collect() } else { vec![size] };
    sizes.dedup();
    sizes
}

/// What happens to pictures with boxes.
fn box_training(settings: &Settings, sizes: &[[usize; 2]]) -> BoxTraining {
    let plain = BoxAugment::plain();
    let moved = BoxAugment { scale: [0.9, 1.1], translate: 0.1, ..plain };
    let base = match settings.augment {
        Augment::None => plain,
        Augment::Shift => moved,
        Augment::Flip => BoxAugment { flip: 0.5, ..moved },
        Augment::Photo => BoxAugment { scale: [0.6, 1.4], translate: 0.1, flip: 0.5, hsv: [0.015, 0.5, 0.3], ..plain },
    };
    let Settings { mosaic, mixup, copy_paste, .. } = *settings;
    BoxTraining {
        augment: BoxAugment { mosaic, mixup, copy_paste, ..base },
        sizes: sizes.to_vec(),
        alone_from: settings.epochs.saturating_sub(settings.close_mosaic),
        seed: settings.seed,
        memory: KEPT_PICTURES,
    }
}

/// Most boxes of a sample of training: those of the fullest picture, as often as pictures are put together.
fn most_boxes(part: &dyn Dataset, training: &BoxTraining) -> usize {
    let of = |index: usize| part.boxes(index).map_or(0, |things| things.iter().filter(|thing| !thing.crowd).count());
    training.augment.most_parts() * (0..part.len()).map(of).max().unwrap_or(0).max(1)
}

/// The way of a training picture.
fn training_pipeline(task: Task, preprocess: &Preprocess, size: [usize; 2], augment: Augment) -> Result<Pipeline> {
    if task == Task::Segment {
        return masked_pipeline(preprocess, size, augment);
    }
    let [height, width] = size;
    let shift = RandomCrop::new(height, width).padding((height.max(width) / 14).max(1));
    let transforms = match augment {
        Augment::None => preprocess.transforms(),
        Augment::Shift => preprocess.transforms().then(shift),
        Augment::Flip => preprocess.transforms().then(shift).then(RandomHorizontalFlip::new(0.5)),
        Augment::Photo => {
            let part = RandomResizedCrop {
                size,
                scale: [0.25, 1.0],
                ratio: [3.0 / 4.0, 4.0 / 3.0],
                interpolation: preprocess.interpolation,
            };
            Compose::new().then(part).then(RandomHorizontalFlip::new(0.5)).then(JITTER)
        }
    };
    Ok(Pipeline::new(preprocess.normalize().map_err(striate_vision::data::DataError::from)?).augment(transforms))
}

/// Mean and deviation of each number over the training part; a number that never varies keeps its own scale.
fn choose_scale(part: &dyn Dataset) -> TargetScale {
    let (n, outputs) = (part.len().max(1) as f64, part.class_count());
    let sum = |of: &dyn Fn(usize, f64) -> f64| {
        let mut sums = vec![0.0; outputs];
        for values in (0..part.len()).filter_map(|index| part.values(index)) {
            sums.iter_mut().zip(values).enumerate().for_each(|(i, (sum, v))| *sum += of(i, f64::from(*v)));
        }
        sums.into_iter().map(|sum| sum / n).collect::<Vec<f64>>()
    };
    let mean = sum(&|_, v| v);
    let std = sum(&|i, v| (v - mean[i]).powi(2)).into_iter().map(|v| if v > 0.0 { v.sqrt() } else { 1.0 }).collect();
    TargetScale { mean, std }
}

impl Input {
    pub fn new(source: &DatasetSource, settings: &Settings, threads: usize) -> Result<Input> {
        let (train, val) = source.train_and_val(settings.val_fraction, settings.seed)?;
        let (train_len, val_len) = (train.len(), val.len());
        let task = source.task;
        let counts = if task == Task::Classify { class_counts(&*train)? } else { Vec::new() };
        let preprocess = choose_preprocess(source, &*train, settings)?;
        let size = choose_size(source, settings.imgsz);
        let workers = settings.workers.unwrap_or_else(|| choose_workers(source, threads));
        let options = LoaderOptions {
            batch: settings.batch,
            shuffle: true,
            seed: settings.seed,
            workers,
            prefetch: 4,
            drop_last: true,
            bad_pictures: BadPictures::Replace,
            mixing: settings.mixing.mixing(),
            across_epochs: true,
        };
        let info = ModelInfo {
            model: settings.model.clone(),
            task,
            targets: (task == Task::Regress).then(|| choose_scale(&*train)),
            input: [preprocess.channels, size[0], size[1]],
            class_names: source.class_names.clone(),
            preprocess: preprocess.clone(),
            structure: None,
        };
        let mut notes = source.notes.clone();
        notes.extend(imbalance_remark(&counts, &source.class_names));
        let size_of_val = settings.batch.min(val_len);
        let (mut sizes, mut boxes) = (vec![size], 0);
        let mut pipeline = training_pipeline(task, &preprocess, size, settings.augment)?;
        if task == Task::Detect {
            sizes = choose_sizes(size, settings.multi_scale);
            let training = box_training(settings, &sizes);
            boxes = most_boxes(&*train, &training);
            pipeline = pipeline.boxes(training);
        }
        Ok(Input {
            train: Box::new(ImageLoader::new(
                train.clone(),
                pipeline,
                // Where features are cached this loader has nothing to do.
                LoaderOptions { workers: if settings.caches_features() { 0 } else { workers }, ..options.clone() },
            )?),
            val: Box::new(evaluation_loader(val.clone(), &preprocess, size_of_val, workers)?),
            train_part: train,
            val_part: val,
            options,
            augment: settings.augment,
            workers,
            test: source.test.clone(),
            info,
            train_len,
            val_len,
            sizes,
            most_boxes: boxes,
            balanced: balanced_class_weights(&counts),
            notes,
        })
    }
    /// The training pictures in order, all of them: as training sees them in the epoch that is asked for, or as evaluation does.
    pub fn views(&self, augmented: bool) -> Result<ImageLoader> {
        let [_, height, width] = self.info.input;
        let pipeline = match augmented {
            true => training_pipeline(self.info.task, &self.info.preprocess, [height, width], self.augment)?,
            false => Pipeline::evaluation(&self.info.preprocess)?,
        };
        let options = LoaderOptions {
            batch: FEATURE_BATCH.min(self.train_len),
            shuffle: false,
            drop_last: false,
            across_epochs: false,
            ..self.options.clone()
        };
        Ok(ImageLoader::new(self.train_part.clone(), pipeline, options)?)
    }

    /// Boxes of training that are taught, and how many of them have a shape.
    pub fn shapes(&self) -> [usize; 2] {
        let taught = (0..self.train_len).filter_map(|index| self.train_part.boxes(index)).flatten();
        taught
            .filter(|thing| !thing.crowd)
            .fold([0, 0], |[all, with], thing| [all + 1, with + usize::from(thing.shape.is_some())])
    }

    /// The val pictures.
    pub fn val_views(&self) -> Result<ImageLoader> {
        let batch = FEATURE_BATCH.min(self.val_len);
        evaluation_loader(self.val_part.clone(), &self.info.preprocess, batch, self.workers)
    }
}
