//! Features of a frozen backbone: computed once for each view of each picture, then the head alone is trained on them.

use crate::step::Cut;
use crate::{Event, Reporter, Result, TrainError};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use striate_graph::machine::Team;
use striate_graph::{Array, CompileOptions, Error, Mode, Program, Session, rng};
use striate_nn::Module;
use striate_vision::data::{Batch, DataError, DataLoader, ImageLoader, Skipped};

/// Most bytes of features that are held in memory.
pub(crate) const MOST_BYTES: usize = 2 << 30;
/// Time between two remarks on progress.
const REMARK_EVERY: Duration = Duration::from_secs(5);

/// The part of a net before its cut, as programs by batch size.
pub(crate) struct Backbone<'a> {
    pub net: &'a dyn Module,
    pub cut: &'a Cut,
    pub options: &'a CompileOptions,
    pub team: &'a Arc<Team>,
}

impl Backbone<'_> {
    fn session(&self, shape: [usize; 4]) -> Result<Session> {
        let graph = self.net.graph(Mode::Eval, &shape)?;
        let at = self.cut.find(&graph, "input")?;
        let program = Program::compile(&graph.before(&at), self.options)?;
        Ok(Session::with_team(program, self.team.clone()))
    }
}

/// The features of one part of the data.
#[derive(Default)]
pub(crate) struct Table {
    /// [view][sample][width]
    values: Vec<f32>,
    /// [view][sample]
    labels: Vec<usize>,
    samples: usize,
    width: usize,
    skipped: BTreeMap<usize, Skipped>,
}

/// What happens while features are computed.
pub(crate) struct Watch<'a> {
    pub stop: &'a AtomicBool,
    pub reporter: &'a mut dyn Reporter,
    /// The folder of the run, for an interruption.
    pub folder: &'a Path,
}

impl Table {
    /// The features of every sample in `views` epochs of a loader that does not shuffle.
    pub fn add(
        &mut self,
        backbone: &Backbone<'_>,
        loader: &mut ImageLoader,
        views: u64,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        self.width = backbone.cut.width();
        let mut session: Option<([usize; 4], Session)> = None;
        let (mut told, mut done) = (Instant::now(), 0);
        let all = views as usize * loader.dataset().len();
        for view in 0..views {
            loader.start(view, 0)?;
            while let Some(batch) = loader.next_batch()? {
                if watch.stop.load(Ordering::Relaxed) {
                    return Err(TrainError::Interrupted { folder: watch.folder.into() });
                }
                if !batch.is_empty() {
                    let (_, session) = match &mut session {
                        Some(held) if held.0 == batch.shape => held,
                        other => other.insert((batch.shape, backbone.session(batch.shape)?)),
                    };
                    let outputs = session.run(&[("input", &batch.images())])?;
                    self.push(outputs, &batch)?;
                }
                done += batch.len();
                if told.elapsed() >= REMARK_EVERY {
                    let message = format!("features of {done} of {all} pictures");
                    watch.reporter.event(&Event::Note { message: &message });
                    told = Instant::now();
                }
                loader.recycle(batch);
            }
            if self.samples == 0 {
                self.samples = self.labels.len();
            }
        }
        for skipped in loader.skipped() {
            self.skipped.entry(skipped.index).or_insert(skipped);
        }
        Ok(())
    }

    fn push(&mut self, outputs: &[Array], batch: &Batch) -> Result<()> {
        let values = outputs.iter().map(Array::f32s).collect::<Result<Vec<_>, Error>>()?;
        let n = batch.len();
        for i in 0..n {
            for values in &values {
                let width = values.len() / n;
                self.values.extend_from_slice(&values[i * width..(i + 1) * width]);
            }
        }
        self.labels.extend(&batch.labels);
        Ok(())
    }

    /// Number of views of each sample.
    pub fn views(&self) -> usize {
        self.labels.len() / self.samples.max(1)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        4 * self.values.len()
    }
}

/// Batches `[N, width, 1, 1]` of features; each epoch shows one view of each sample, and over the epochs all views in turn.
pub(crate) struct FeatureLoader {
    table: Table,
    classes: usize,
    batch: usize,
    /// Key of the order; in order without.
    shuffle: Option<[u32; 2]>,
    epoch: u64,
    next: usize,
    order: Vec<usize>,
}

impl FeatureLoader {
    /// In training (with a seed) shuffled, without a last batch that is not full; else in order and whole.
    pub fn new(table: Table, classes: usize, batch: usize, seed: Option<u64>) -> FeatureLoader {
        let shuffle = seed.map(|seed| rng::stream_key(seed, "data.order"));
        FeatureLoader { table, classes, batch, shuffle, epoch: 0, next: 0, order: Vec::new() }
    }
}

impl DataLoader for FeatureLoader {
    fn batches(&self) -> usize {
        match self.shuffle {
            Some(_) => self.table.samples / self.batch,
            None => self.table.samples.div_ceil(self.batch),
        }
    }

    fn samples(&self) -> usize {
        self.table.samples.min(self.batches() * self.batch)
    }

    fn class_count(&self) -> usize {
        self.classes
    }

    fn start(&mut self, epoch: u64, batch: usize) -> Result<(), DataError> {
        (self.epoch, self.next) = (epoch, batch);
        self.order = match self.shuffle {
            Some(key) => rng::permutation(key, epoch, self.table.samples),
            None => (0..self.table.samples).collect(),
        };
        Ok(())
    }

    fn next_batch(&mut self) -> Result<Option<Batch>, DataError> {
        if self.next >= self.batches() {
            return Ok(None);
        }
        let first = self.next * self.batch;
        let indices = self.order[first..(first + self.batch).min(self.order.len())].to_vec();
        let (width, samples, views) = (self.table.width, self.table.samples, self.table.views());
        let mut batch = Batch { epoch: self.epoch, number: self.next, ..Batch::default() };
        for &index in &indices {
            let view = (self.epoch as usize + index) % views.max(1);
            let row = view * samples + index;
            batch.data.extend_from_slice(&self.table.values[row * width..(row + 1) * width]);
            batch.labels.push(self.table.labels[row]);
        }
        batch.shape = [indices.len(), width, 1, 1];
        batch.indices = indices;
        self.next += 1;
        Ok(Some(batch))
    }

    fn skipped(&self) -> Vec<Skipped> {
        self.table.skipped.values().cloned().collect()
    }
}
