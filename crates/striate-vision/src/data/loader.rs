//! Batches, the same for any number of workers.

use super::box_batches::{BatchBoxes, BoxMaker, Turn};
use super::dataset::Dataset;
use super::error::{DataError, Result, panic_message};
use super::picture::Image;
use super::pipeline::{Loaded, Pipeline};
use super::queue::OrderedQueue;
use crate::transforms::{Draws, Layout, Mixing, Scratch, Thing};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use striate_graph::{Array, DType};
use striate_kernels::rng;
use striate_kernels::threads::FlushDenormals;

/// Samples that are put together for one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Values, in the order of `layout`.
    pub data: Vec<f32>,
    /// [N, C, H, W] or [N, H, W, C].
    pub shape: [usize; 4],
    /// Which of the two.
    pub layout: Layout,
    /// Class of each sample.
    pub labels: Vec<usize>,
    /// Soft targets [N, classes] where samples are mixed (`labels` are then those of the first of the two), or the samples' own
    /// values where they have some.
    pub targets: Option<Vec<f32>>,
    /// The class of each pixel, where samples have masks: as large as the pictures in training, as in the data in evaluation.
    pub masks: Vec<Image>,
    /// What is on the pictures, where samples have boxes.
    pub boxes: BatchBoxes,
    /// Index of each sample in the data set.
    pub indices: Vec<usize>,
    /// The epoch that it belongs to.
    pub epoch: u64,
    /// Its number in the epoch.
    pub number: usize,
    /// Samples that could not be read.
    pub skipped: Vec<Skipped>,
}

impl Batch {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The values as an array of `shape`; what a graph takes where the layout is [N, C, H, W].
    pub fn images(&self) -> Array {
        array_of(&self.shape, &self.data)
    }

    /// The labels as an array `[N]` of whole numbers.
    pub fn label_array(&self) -> Array {
        let mut array = Array::zeros([self.len()], DType::I64);
        let labels = array.as_mut_slice::<i64>().unwrap_or_default();
        labels.iter_mut().zip(&self.labels).for_each(|(to, &from)| *to = from as i64);
        array
    }

    /// The soft targets as an array [N, classes], where there are any.
    pub fn target_array(&self) -> Option<Array> {
        let targets = self.targets.as_ref()?;
        Some(array_of(&[self.len(), targets.len() / self.len().max(1)], targets))
    }

    /// The masks as an array [N, H, W] of whole numbers; `None` unless they are as large as the pictures.
    pub fn mask_array(&self) -> Option<Array> {
        let [n, _, height, width] = self.shape;
        let sound = self.masks.len() == n && self.masks.iter().all(|m| (m.height, m.width) == (height, width));
        let mut array = sound.then(|| Array::zeros([n, height, width], DType::I64))?;
        let to = array.as_mut_slice::<i64>()?;
        to.iter_mut().zip(self.masks.iter().flat_map(|m| &m.data)).for_each(|(to, &from)| *to = i64::from(from));
        Some(array)
    }

    /// The boxes as the inputs of a training graph: corners [N, most, 4] padded with zeros, and labels [N, most], `first` more than the
    /// class, padded with -1. Boxes beyond `most` are left out, the smallest ones.
    pub fn truth_arrays(&self, most: usize, first: usize) -> [Array; 2] {
        let n = self.len();
        let (mut corners, mut labels) = (Array::zeros([n, most, 4], DType::F32), Array::full([n, most], -1i64));
        let (Some(to), Some(of)) = (corners.as_mut_slice::<f32>(), labels.as_mut_slice::<i64>()) else {
            return [corners, labels];
        };
        let rows = to.chunks_exact_mut(4 * most).zip(of.chunks_exact_mut(most));
        for (things, (to, of)) in self.boxes.samples().iter().zip(rows) {
            for (thing, (to, of)) in largest(things, most).into_iter().zip(to.chunks_exact_mut(4).zip(of)) {
                to.iter_mut().zip(thing.xyxy).for_each(|(to, v)| *to = v as f32);
                *of = (thing.class + first) as i64;
            }
        }
        [corners, labels]
    }

    /// Which pixels belong to the things of [`Batch::truth_arrays`], as an input of a training graph: bits `[N, most, H, ceil(W / 8)]` (u8),
    /// that of the leftmost pixel the lowest. None where a thing has no shape. See [`Thing::mask`].
    pub fn shape_array(&self, most: usize) -> Array {
        let [n, _, height, width] = self.shape;
        let pitch = width.div_ceil(8);
        let mut array = Array::zeros([n, most, height, pitch], DType::U8);
        let Some(bits) = array.as_mut_slice::<u8>() else { return array };
        let mut pixels = Vec::new();
        for (things, bits) in self.boxes.samples().iter().zip(bits.chunks_exact_mut((most * height * pitch).max(1))) {
            for (thing, plane) in largest(things, most).into_iter().zip(bits.chunks_exact_mut((height * pitch).max(1)))
            {
                let Some(shape) = &thing.shape else { continue };
                let window = thing.window([height, width]);
                let [x1, y1, x2, y2] = window;
                shape.raster(window, &mut pixels);
                let rows = plane.chunks_exact_mut(pitch).take(y2).skip(y1);
                for (row, pixels) in rows.zip(pixels.chunks_exact((x2 - x1).max(1))) {
                    (x1..x2).zip(pixels).for_each(|(x, belongs)| row[x / 8] |= belongs << (x % 8));
                }
            }
        }
        array
    }

    /// Whether there is no sample: all of them were left out as unreadable.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// The things in their order; of more than `most` the largest ones.
fn largest(things: &[Thing], most: usize) -> Vec<&Thing> {
    let mut order: Vec<&Thing> = things.iter().collect();
    if order.len() > most {
        order.sort_by(|a, b| b.box_area().total_cmp(&a.box_area()));
        order.truncate(most);
    }
    order
}

fn array_of(shape: &[usize], values: &[f32]) -> Array {
    let mut array = Array::zeros(shape, DType::F32);
    if let Some(to) = array.as_mut_slice::<f32>() {
        to.copy_from_slice(values);
    }
    array
}

/// A sample that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Index in the data set.
    pub index: usize,
    /// Its file.
    pub name: String,
    /// What is wrong, with the file's name.
    pub reason: String,
}

/// What happens at a picture that cannot be read. Errors of the machine and of code always end the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadPictures {
    /// The run ends with an error that names the file.
    Fail,
    /// For training: the next readable sample in the data set's order takes its place, with its own label, so that all batches
    /// keep their size. At most 100 are tried.
    #[default]
    Replace,
    /// For evaluation: the batch has a sample less, so that no sample counts twice. A batch may become empty.
    Drop,
}

/// How many samples are tried in place of a bad one.
const MOST_REPLACEMENTS: usize = 100;

/// Batches in epochs, from wherever the user has them. Implement it to train on data that is no set of pictures.
///
/// A loader is a function of (epoch, number of the batch): after `start` with the same position the same batches must come.
pub trait DataLoader {
    /// Number of batches in an epoch.
    fn batches(&self) -> usize;

    /// Number of samples in an epoch.
    fn samples(&self) -> usize;

    /// Number of classes.
    fn class_count(&self) -> usize;

    /// Goes to a batch of an epoch; whatever was prepared for another place is discarded.
    ///
    /// # Errors
    /// [`DataError::Config`] if the epoch has no such batch (its number of batches is allowed, and gives none).
    fn start(&mut self, epoch: u64, batch: usize) -> Result<()>;

    /// The next batch of the epoch; `None` at its end.
    ///
    /// # Errors
    /// Those of the data.
    fn next_batch(&mut self) -> Result<Option<Batch>>;

    /// Takes back a batch that is not needed any more, to use its memory again.
    fn recycle(&mut self, _batch: Batch) {}

    /// Samples that could not be read so far, each once, by index.
    fn skipped(&self) -> Vec<Skipped> {
        Vec::new()
    }
}

/// Settings of an [`ImageLoader`].
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderOptions {
    /// Samples in a batch.
    pub batch: usize,
    /// Whether every epoch has an order of its own, keyed by (seed, epoch).
    pub shuffle: bool,
    /// Key of all random numbers.
    pub seed: u64,
    /// Threads that load ahead; 0 loads when a batch is asked for, with the same result.
    pub workers: usize,
    /// Batches that may be ready or in work.
    pub prefetch: usize,
    /// Whether a last batch that is not full is left out.
    pub drop_last: bool,
    /// What happens at a picture that cannot be read.
    pub bad_pictures: BadPictures,
    /// Mixing of samples.
    pub mixing: Mixing,
    /// Whether loading ahead goes on into the next epoch, as in training; else workers rest at an epoch's end.
    pub across_epochs: bool,
}

impl Default for LoaderOptions {
    /// Batches of 32 in order, no workers, 4 ahead, the last one kept, no mixing.
    fn default() -> Self {
        Self {
            batch: 32,
            shuffle: false,
            seed: 0,
            workers: 0,
            prefetch: 4,
            drop_last: false,
            bad_pictures: BadPictures::default(),
            mixing: Mixing::None,
            across_epochs: false,
        }
    }
}

/// Batches of a [`Dataset`].
///
/// - Order: `permutation` of (seed, epoch) where shuffled, else the data set's.
/// - Augmentation of a sample is keyed by (seed, epoch, index); mixing by (seed, epoch, position of the batch's first sample).
/// - Boxes: partners of a sample are keyed by (seed, epoch, position), the size of a batch by (seed, step).
/// - So a batch is a function of (data, settings, epoch, number): not of the workers, nor of where loading started.
pub struct ImageLoader {
    maker: Arc<Maker>,
    queue: OrderedQueue<Result<Batch>, WorkerBuffers>,
    epoch: u64,
    next: usize,
    /// The queue knows the jobs before this one.
    known: u64,
    skipped: BTreeMap<usize, Skipped>,
}

/// What a worker keeps.
#[derive(Default)]
struct WorkerBuffers {
    image: Image,
    mask: Image,
    scratch: Scratch,
    mix: Vec<f32>,
}

struct Maker {
    dataset: Arc<dyn Dataset>,
    pipeline: Pipeline,
    /// For training on pictures with boxes.
    boxes: Option<BoxMaker>,
    options: LoaderOptions,
    batches: usize,
    /// Orders of the epochs in work.
    orders: Mutex<Vec<(u64, Arc<Vec<usize>>)>>,
    /// Memory to use again.
    free: Mutex<Vec<Batch>>,
    augment: Draws,
    mixing: Draws,
    order_key: [u32; 2],
}

impl ImageLoader {
    /// A loader at the start of epoch 0.
    ///
    /// # Errors
    /// [`DataError::Config`] for a batch of 0, an empty data set, or no batch at all (drop_last with too few samples).
    pub fn new(dataset: Arc<dyn Dataset>, pipeline: Pipeline, options: LoaderOptions) -> Result<Self> {
        let n = dataset.len();
        options.mixing.check()?;
        if options.batch == 0 {
            return Err(DataError::Config("the batch size is 0; it must be at least 1".into()));
        }
        if n == 0 || dataset.class_count() == 0 {
            return Err(DataError::Config("the data set is empty: there is nothing to load".into()));
        }
        let batches = if options.drop_last { n / options.batch } else { n.div_ceil(options.batch) };
        if batches == 0 {
            return Err(DataError::Config(format!(
                "{n} samples do not fill one batch of {}, and the last one is left out: use smaller batches",
                options.batch
            )));
        }
        let seed = options.seed;
        let (workers, depth) = (options.workers, options.prefetch.max(options.workers));
        let maker = Arc::new(Maker {
            augment: Draws::new(seed, "data.augment", 0, 0),
            mixing: Draws::new(seed, "data.mixing", 0, 0),
            order_key: rng::stream_key(seed, "data.order"),
            boxes: pipeline.boxes.clone().map(|training| BoxMaker::new(training, n, pipeline.normalize.channels())),
            dataset,
            pipeline,
            options,
            batches,
            orders: Mutex::new(Vec::new()),
            free: Mutex::new(Vec::new()),
        });
        let job = maker.clone();
        let queue = OrderedQueue::new(workers, depth, move |number, buffers| job.make(number, buffers))
            .map_err(|e| DataError::io("starting a loader thread", e))?;
        let mut loader = Self { maker, queue, epoch: 0, next: 0, known: 0, skipped: BTreeMap::new() };
        loader.go_to(0, 0);
        Ok(loader)
    }

    /// The data set.
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.maker.dataset
    }

    /// The settings.
    pub fn options(&self) -> &LoaderOptions {
        &self.maker.options
    }

    /// Order of an epoch: indices of the data set.
    pub fn order(&self, epoch: u64) -> Arc<Vec<usize>> {
        self.maker.order(epoch)
    }

    /// All batches of an epoch, from its start.
    ///
    /// ```
    /// # use striate_vision::data::*;
    /// # use striate_vision::transforms::Normalize;
    /// # let test = open_embedded()?.test.unwrap();
    /// # let mut loader = ImageLoader::new(test, Pipeline::new(Normalize::unit(1)), LoaderOptions::default())?;
    /// let mut samples = 0;
    /// for batch in loader.epoch(0)? {
    ///     samples += batch?.len();
    /// }
    /// assert_eq!(samples, 1000);
    /// # Ok::<(), DataError>(())
    /// ```
    ///
    /// # Errors
    /// As [`DataLoader::start`].
    pub fn epoch(&mut self, epoch: u64) -> Result<impl Iterator<Item = Result<Batch>> + '_> {
        self.start(epoch, 0)?;
        Ok(std::iter::from_fn(move || self.next_batch().transpose()))
    }

    fn job(&self, epoch: u64, batch: usize) -> u64 {
        epoch * self.maker.batches as u64 + batch as u64
    }

    fn go_to(&mut self, epoch: u64, batch: usize) {
        (self.epoch, self.next) = (epoch, batch);
        let from = self.job(epoch, batch);
        self.known = self.job(epoch + 1, 0);
        self.queue.restart(from..self.known);
        self.extend();
    }

    /// Lets the workers know of the next epoch.
    fn extend(&mut self) {
        let to = self.job(self.epoch + 2, 0);
        if self.maker.options.across_epochs && self.known < to {
            self.queue.extend(self.known..to);
            self.known = to;
        }
    }
}

impl DataLoader for ImageLoader {
    fn batches(&self) -> usize {
        self.maker.batches
    }

    fn samples(&self) -> usize {
        self.maker.dataset.len().min(self.maker.batches * self.maker.options.batch)
    }

    fn class_count(&self) -> usize {
        self.maker.dataset.class_count()
    }

    fn start(&mut self, epoch: u64, batch: usize) -> Result<()> {
        if batch > self.maker.batches {
            let batches = self.maker.batches;
            return Err(DataError::Config(format!("an epoch has {batches} batches; it cannot start at batch {batch}")));
        }
        let here = self.job(self.epoch, self.next);
        let there = self.job(epoch, batch);
        if here == there && there < self.known {
            // Already there, perhaps with batches ready: the end of an epoch is the start of the next.
            (self.epoch, self.next) = (epoch, batch);
            self.extend();
        } else {
            self.go_to(epoch, batch);
        }
        Ok(())
    }

    fn next_batch(&mut self) -> Result<Option<Batch>> {
        if self.next == self.maker.batches {
            return Ok(None);
        }
        let number = self.job(self.epoch, self.next);
        let made = self.queue.take(number).unwrap_or_else(|payload| {
            let name = format!("batch {} of epoch {}", self.next, self.epoch);
            Err(DataError::WorkerPanic { name, message: panic_message(payload.as_ref()) })
        });
        let batch = match made {
            Ok(batch) => batch,
            Err(error) => {
                // So that asking again tries again, instead of waiting for a job that nobody has.
                self.go_to(self.epoch, self.next);
                return Err(error);
            }
        };
        self.next += 1;
        for skipped in &batch.skipped {
            self.skipped.entry(skipped.index).or_insert_with(|| skipped.clone());
        }
        Ok(Some(batch))
    }

    fn recycle(&mut self, batch: Batch) {
        let mut free = lock(&self.maker.free);
        if free.len() < self.maker.options.prefetch + 1 {
            free.push(batch);
        }
    }

    fn skipped(&self) -> Vec<Skipped> {
        self.skipped.values().cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A batch in the making.
struct Draft<'a> {
    batch: Batch,
    epoch: u64,
    buffers: &'a mut WorkerBuffers,
    capacity: usize,
    /// For training on boxes: its height and width.
    frame: [usize; 2],
    /// Height and width, known from its first sample.
    size: Option<[usize; 2]>,
}

impl Maker {
    fn order(&self, epoch: u64) -> Arc<Vec<usize>> {
        let mut orders = lock(&self.orders);
        if let Some((_, order)) = orders.iter().find(|(e, _)| *e == epoch) {
            return order.clone();
        }
        let n = self.dataset.len();
        let order = if self.options.shuffle { rng::permutation(self.order_key, epoch, n) } else { (0..n).collect() };
        let order = Arc::new(order);
        // Two epochs are in work at the border between them.
        if orders.len() == 2 {
            orders.remove(0);
        }
        orders.push((epoch, order.clone()));
        order
    }

    fn make(&self, job: u64, buffers: &mut WorkerBuffers) -> Result<Batch> {
        // The same arithmetic whichever thread this is, and whatever that thread does besides.
        let _flushed = FlushDenormals::on();
        let (epoch, number) = (job / self.batches as u64, (job % self.batches as u64) as usize);
        let order = self.order(epoch);
        let first = number * self.options.batch;
        let positions = first..(first + self.options.batch).min(order.len());
        let mut batch = lock(&self.free).pop().unwrap_or_default();
        batch.labels.clear();
        batch.indices.clear();
        batch.skipped.clear();
        batch.masks.clear();
        batch.boxes.clear();
        let capacity = positions.len();
        let frame = self.boxes.as_ref().map(|boxes| boxes.size_of(job)).unwrap_or_default();
        (batch.epoch, batch.number, batch.layout, batch.targets) = (epoch, number, self.pipeline.layout, None);
        let mut draft = Draft { batch, epoch, buffers, capacity, frame, size: None };
        for position in positions {
            self.add(&mut draft, order[position], position)?;
        }
        let Draft { mut batch, buffers, size, .. } = draft;
        let [height, width] = size.unwrap_or_default();
        let channels = self.pipeline.normalize.channels();
        let n = batch.labels.len();
        batch.data.truncate(n * channels * height * width);
        batch.shape = match self.pipeline.layout {
            Layout::Nchw => [n, channels, height, width],
            Layout::Nhwc => [n, height, width, channels],
        };
        if self.options.mixing.is_on() && n > 0 {
            let mixed = crate::transforms::MixBatch {
                values: &mut batch.data,
                labels: &batch.labels,
                classes: self.dataset.class_count(),
                shape: [channels, height, width],
                layout: self.pipeline.layout,
            };
            let mut draws = self.mixing.at(epoch, first as u64);
            batch.targets = Some(self.options.mixing.apply(mixed, &mut draws, &mut buffers.mix));
        }
        Ok(batch)
    }

    /// Adds the sample of an index, or what stands in for it.
    fn add(&self, draft: &mut Draft<'_>, index: usize, position: usize) -> Result<()> {
        let error = match self.add_one(draft, index, position) {
            Err(error) if error.is_bad_sample() && self.options.bad_pictures != BadPictures::Fail => error,
            other => return other,
        };
        let first = error.to_string();
        let name = self.dataset.name(index);
        draft.batch.skipped.push(Skipped { index, name: name.clone(), reason: first.clone() });
        if self.options.bad_pictures == BadPictures::Drop {
            return Ok(());
        }
        let n = self.dataset.len();
        let tries = MOST_REPLACEMENTS.min(n - 1);
        for step in 1..=tries {
            match self.add_one(draft, (index + step) % n, position) {
                Err(error) if error.is_bad_sample() => {}
                other => return other,
            }
        }
        Err(DataError::NoReadablePicture { name, tried: tries, first })
    }

    fn add_one(&self, draft: &mut Draft<'_>, index: usize, position: usize) -> Result<()> {
        let WorkerBuffers { image, mask, scratch, .. } = &mut *draft.buffers;
        let mut draws = self.augment.at(draft.epoch, index as u64);
        let dataset = self.dataset.as_ref();
        let Loaded { label, masked, .. } = match &self.boxes {
            Some(boxes) => {
                let turn = Turn { epoch: draft.epoch, position, size: draft.frame };
                let things = draft.batch.boxes.next();
                let made = boxes.make(dataset, (index, turn), &mut draws, (&mut *image, things), scratch);
                if let Err(error) = made {
                    draft.batch.boxes.undo();
                    return Err(error);
                }
                Loaded { label: dataset.label(index)?, masked: false, source: draft.frame }
            }
            None => {
                let loaded = self.pipeline.load(dataset, index, (&mut *image, &mut *mask), &mut draws, scratch)?;
                if let Some(things) = dataset.boxes(index) {
                    draft.batch.boxes.next().extend_from_slice(things);
                    draft.batch.boxes.sources.push(loaded.source);
                }
                loaded
            }
        };
        let [height, width] = *draft.size.get_or_insert([image.height, image.width]);
        if [image.height, image.width] != [height, width] {
            let (got_width, got_height, name) = (image.width, image.height, self.dataset.name(index));
            return Err(DataError::SizeMismatch { name, got_width, got_height, width, height });
        }
        let size = image.data.len();
        let slot = draft.batch.labels.len();
        draft.batch.data.resize(draft.capacity * size, 0.0);
        self.pipeline.write(image, &mut draft.batch.data[slot * size..(slot + 1) * size], &mut draws);
        draft.batch.labels.push(label);
        draft.batch.indices.push(index);
        if masked {
            draft.batch.masks.push(mask.clone());
        }
        if let Some(values) = self.dataset.values(index) {
            draft.batch.targets.get_or_insert_default().extend_from_slice(values);
        }
        Ok(())
    }
}
