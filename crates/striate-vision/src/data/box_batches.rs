//! How samples with boxes come into batches of training: put together, moved, and at the size of their step.

use super::dataset::Dataset;
use super::error::Result;
use super::picture::Image;
use crate::transforms::{BoxAugment, Draws, Interpolation, Letterbox, Part, PlaneMap, Scratch, Thing, resize};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Samples that are tried in place of a partner that cannot be read.
const MOST_PARTNERS: usize = 100;

/// What training does with pictures and their boxes.
///
/// The changes of a sample are keyed by (seed, epoch, sample), its partners by (seed, epoch, position), the size of a batch by
/// (seed, step): no bit depends on who loads it.
#[derive(Clone, Debug, PartialEq)]
pub struct BoxTraining {
    /// The changes.
    pub augment: BoxAugment,
    /// Height and width of the batches: one of these for each step, drawn.
    pub sizes: Vec<[usize; 2]>,
    /// From this epoch on samples come alone: no mosaic, nothing mixed in or pasted.
    pub alone_from: u64,
    /// Key of all random numbers.
    pub seed: u64,
    /// Bytes of prepared pictures that are kept in memory.
    pub memory: usize,
}

impl BoxTraining {
    /// Height and width of a step's batch.
    pub fn size_of(&self, step: u64) -> [usize; 2] {
        self.sizes[Draws::new(self.seed, "data.sizes", step, 0).below(self.sizes.len())]
    }

    /// The height and width that no batch exceeds.
    fn largest(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.sizes.iter().map(|size| size[axis]).max().unwrap_or(1))
    }
}

/// Where a sample stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub epoch: u64,
    /// In the epoch's order.
    pub position: usize,
    /// Height and width of the batch.
    pub size: [usize; 2],
}

/// A picture that fits into the largest batch, with its things.
struct Prepared {
    image: Image,
    things: Vec<Thing>,
}

/// Makes samples of training out of pictures with boxes.
pub(crate) struct BoxMaker {
    training: BoxTraining,
    partners: Draws,
    channels: usize,
    /// Pictures that were prepared once, as far as the memory goes.
    kept: Vec<OnceLock<Arc<Prepared>>>,
    used: AtomicUsize,
}

impl BoxMaker {
    pub fn new(training: BoxTraining, samples: usize, channels: usize) -> BoxMaker {
        let partners = Draws::new(training.seed, "data.partners", 0, 0);
        let kept = (0..samples).map(|_| OnceLock::new()).collect();
        BoxMaker { training, partners, channels, kept, used: AtomicUsize::new(0) }
    }

    /// Height and width of a step's batch.
    pub fn size_of(&self, step: u64) -> [usize; 2] {
        self.training.size_of(step)
    }

    fn prepared(&self, dataset: &dyn Dataset, index: usize, scratch: &mut Scratch) -> Result<Arc<Prepared>> {
        if let Some(kept) = self.kept[index].get() {
            return Ok(kept.clone());
        }
        let mut image = Image::default();
        dataset.get_into(index, &mut image)?;
        image.convert(self.channels);
        let [height, width] = Letterbox::fitted([image.height, image.width], self.training.largest());
        let factors = [width as f64 / image.width as f64, height as f64 / image.height as f64];
        resize(&mut image, width, height, Interpolation::Bilinear, scratch);
        let things = dataset.boxes(index).unwrap_or_default().iter().filter(|thing| !thing.crowd);
        let map = PlaneMap::scale(factors[0], factors[1]);
        let scaled = |thing: &Thing| thing.moved(std::array::from_fn(|i| thing.xyxy[i] * factors[i % 2]), &map);
        let prepared = Arc::new(Prepared { things: things.map(scaled).collect(), image });
        let bytes = prepared.image.data.len();
        if self.used.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.training.memory {
            return Ok(self.kept[index].get_or_init(|| prepared).clone());
        }
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        Ok(prepared)
    }

    /// A partner: the drawn sample, or the next one that can be read.
    fn partner(&self, dataset: &dyn Dataset, draws: &mut Draws, scratch: &mut Scratch) -> Result<Arc<Prepared>> {
        let first = draws.below(dataset.len());
        let tries = MOST_PARTNERS.min(dataset.len());
        let mut tried = (0..tries).map(|step| self.prepared(dataset, (first + step) % dataset.len(), scratch));
        let readable = |found: &Result<Arc<Prepared>>| !found.as_ref().is_err_and(|error| error.is_bad_sample());
        tried.find(readable).unwrap_or_else(|| self.prepared(dataset, first, scratch))
    }

    /// The sample of an index with its things, in pixels of the batch. `draws` are the sample's own.
    pub fn make(
        &self,
        dataset: &dyn Dataset,
        (index, turn): (usize, Turn),
        draws: &mut Draws,
        (image, things): (&mut Image, &mut Vec<Thing>),
        scratch: &mut Scratch,
    ) -> Result<()> {
        let BoxTraining { augment, alone_from, .. } = &self.training;
        let mut partners = self.partners.at(turn.epoch, turn.position as u64);
        let own = self.prepared(dataset, index, scratch)?;
        let alone = turn.epoch >= *alone_from;
        let mut chosen = |p: f64| !alone && partners.chance(p);
        let (mosaic, mixup, paste) = (chosen(augment.mosaic), chosen(augment.mixup), chosen(augment.copy_paste));
        let mut group = vec![own];
        let others =
            if mosaic { 3 } else { 0 } + if mixup { if mosaic { 4 } else { 1 } } else { 0 } + usize::from(paste);
        for _ in 0..others {
            group.push(self.partner(dataset, &mut partners, scratch)?);
        }
        let parts: Vec<Part<'_>> = group.iter().map(|p| Part { image: &p.image, things: &p.things }).collect();
        let of_one = if mosaic { 4 } else { 1 };
        augment.apply(&parts[..of_one], turn.size, draws, (&mut *image, &mut *things));
        if mixup {
            let (mut other, mut more) = (Image::default(), Vec::new());
            augment.apply(&parts[of_one..2 * of_one], turn.size, draws, (&mut other, &mut more));
            augment.mix((&other, &more), draws, (&mut *image, &mut *things));
        }
        if let (true, Some(last)) = (paste, parts.last()) {
            augment.paste(last, draws, (image, things));
        }
        Ok(())
    }
}

/// The boxes of a batch.
#[derive(Clone, Debug, Default)]
pub struct BatchBoxes {
    things: Vec<Vec<Thing>>,
    /// Height and width of each picture in the data, in evaluation.
    pub sources: Vec<[usize; 2]>,
    /// Samples that count; the lists behind them are memory to use again.
    used: usize,
}

impl BatchBoxes {
    /// What is on each sample: in training in pixels of the batch, in evaluation as in the data.
    pub fn samples(&self) -> &[Vec<Thing>] {
        &self.things[..self.used]
    }

    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.sources.clear();
    }

    /// The list of one more sample, empty.
    pub(crate) fn next(&mut self) -> &mut Vec<Thing> {
        if self.used == self.things.len() {
            self.things.push(Vec::new());
        }
        self.used += 1;
        let list = &mut self.things[self.used - 1];
        list.clear();
        list
    }

    /// Takes the last list back.
    pub(crate) fn undo(&mut self) {
        self.used = self.used.saturating_sub(1);
    }
}

impl PartialEq for BatchBoxes {
    fn eq(&self, other: &BatchBoxes) -> bool {
        (self.samples(), &self.sources) == (other.samples(), &other.sources)
    }
}
