//! Features of a frozen backbone: computed once for each view of each picture, then the head alone is trained on them.

use crate::step::Cut;
use crate::{Event, Reporter, Result, TrainError};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use striate_graph::machine::Team;
use striate_graph::{Array, CompileOptions, Error, Mode, Program, Session, rng};
use striate_nn::Module;
use striate_vision::data::{Batch, DataError, DataLoader, ImageLoader, Skipped};

/// Most bytes of features in a file.
pub(crate) const MOST_IN_FILE: u64 = 64 << 30;
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

/// Where features lie: [view][sample][width].
enum Store {
    Memory(Vec<f32>),
    /// Little endian; the file goes when this does.
    File {
        file: BufWriter<File>,
        path: PathBuf,
        values: u64,
    },
}

impl Default for Store {
    fn default() -> Store {
        Store::Memory(Vec::new())
    }
}

impl Store {
    /// In a new file; one that a killed run left is overwritten.
    fn in_file(path: PathBuf) -> Result<Store> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        let file = options.map_err(TrainError::io(&path, "create"))?;
        Ok(Store::File { file: BufWriter::with_capacity(1 << 20, file), path, values: 0 })
    }

    fn push(&mut self, row: &[f32]) -> Result<()> {
        match self {
            Store::Memory(values) => values.extend_from_slice(row),
            Store::File { file, path, values } => {
                let bytes: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
                file.write_all(&bytes).map_err(TrainError::io(path, "write"))?;
                *values += row.len() as u64;
            }
        }
        Ok(())
    }

    /// Adds so many values from the place `first` on to `out`.
    fn read(&mut self, first: usize, count: usize, out: &mut Vec<f32>) -> Result<(), DataError> {
        match self {
            Store::Memory(values) => out.extend_from_slice(&values[first..first + count]),
            Store::File { file, path, .. } => {
                let mut bytes = vec![0; 4 * count];
                // Seeking writes out what the buffer still holds.
                let read =
                    file.seek(SeekFrom::Start(4 * first as u64)).and_then(|_| file.get_mut().read_exact(&mut bytes));
                read.map_err(|error| DataError::io(&*path, error))?;
                out.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
            }
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        match self {
            Store::Memory(values) => 4 * values.len() as u64,
            Store::File { values, .. } => 4 * values,
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Store::File { path, .. } = self {
            // Left behind it would only take up space.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The features of one part of the data.
#[derive(Default)]
pub(crate) struct Table {
    store: Store,
    /// [view][sample]
    labels: Vec<usize>,
    /// [view][sample][outputs], where the samples have values.
    targets: Vec<f32>,
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
    /// For features that do not fit into memory.
    pub fn in_file(path: PathBuf) -> Result<Table> {
        Ok(Table { store: Store::in_file(path)?, ..Table::default() })
    }

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
                self.store.push(&values[i * width..(i + 1) * width])?;
            }
        }
        self.labels.extend(&batch.labels);
        self.targets.extend(batch.targets.iter().flatten());
        Ok(())
    }

    /// Number of views of each sample.
    pub fn views(&self) -> usize {
        self.labels.len() / self.samples.max(1)
    }

    /// Bytes of features.
    pub fn bytes(&self) -> u64 {
        self.store.bytes()
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
            self.table.store.read(row * width, width, &mut batch.data)?;
            batch.labels.push(self.table.labels[row]);
            if !self.table.targets.is_empty() {
                let outputs = row * self.classes..(row + 1) * self.classes;
                batch.targets.get_or_insert_default().extend_from_slice(&self.table.targets[outputs]);
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Layers;
    use crate::{Evaluator, Freeze, Goal, Quiet};
    use striate_vision::data::{LoaderOptions, MemoryDataset, Pipeline};
    use striate_vision::models::find_model;
    use striate_vision::transforms::{Compose, Normalize, RandomHorizontalFlip};

    const N: usize = 11;

    fn loader(batch: usize, augmented: bool) -> ImageLoader {
        let pixels: Vec<u8> = (0..N * 144).map(|i| (i * i / 7 % 251) as u8).collect();
        let names = ["a", "b", "c"].map(String::from).to_vec();
        let labels = (0..N).map(|i| (i % 3) as u8).collect();
        let set = MemoryDataset::new([12, 12, 1], pixels, labels, names, "test").unwrap();
        let transforms = match augmented {
            true => Compose::new().then(RandomHorizontalFlip::new(0.5)),
            false => Compose::new(),
        };
        let pipeline = Pipeline::new(Normalize::unit(1)).augment(transforms);
        ImageLoader::new(Arc::new(set), pipeline, LoaderOptions { batch, ..LoaderOptions::default() }).unwrap()
    }

    #[test]
    fn the_head_on_features_gives_the_bits_of_the_whole_net() {
        let net = find_model("small").unwrap().build([1, 12, 12], 3, 1).unwrap();
        Layers::of(&*net, &[]).freeze(Some(Freeze::Backbone), false).unwrap();
        let (options, team) = (CompileOptions::default(), Arc::new(Team::new(2)));
        let graph = net.graph(Mode::Eval, &[4, 1, 12, 12]).unwrap();
        let cut = Cut::of(&graph, "input").unwrap().0;
        let backbone = Backbone { net: &*net, cut: &cut, options: &options, team: &team };
        let stop = AtomicBool::new(false);
        let mut watch = Watch { stop: &stop, reporter: &mut Quiet, folder: Path::new("run") };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("features");
        let mut table = Table::in_file(path.clone()).unwrap();
        table.add(&backbone, &mut loader(4, false), 1, &mut watch).unwrap();
        table.add(&backbone, &mut loader(4, true), 2, &mut watch).unwrap();
        assert_eq!((table.views(), table.samples, table.bytes()), (3, N, 4 * (3 * N * cut.width()) as u64));
        let mut whole = Evaluator::new(Goal::classify(3), options.clone(), team.clone());
        let mut behind = Evaluator::new(Goal::classify(3), options.clone(), team.clone()).behind(cut, [1, 12, 12]);
        let mut features = FeatureLoader::new(table, 3, 5, None);
        features.start(0, 0).unwrap();
        let mut pictures = loader(5, false);
        // Epoch 0 shows view `index % 3`; those with index 0, 3, 6, … are plain.
        while let (Some(a), Some(b)) = (features.next_batch().unwrap(), pictures.next_batch().unwrap()) {
            assert_eq!((&a.indices, &a.labels), (&b.indices, &b.labels));
            let got = behind.logits_behind(&*net, &a).unwrap();
            let wanted = whole.logits(&*net, &b.images()).unwrap();
            let rows = got.f32s().unwrap().chunks(3).zip(wanted.f32s().unwrap().chunks(3));
            for ((got, wanted), index) in rows.zip(&a.indices).filter(|(_, index)| *index % 3 == 0) {
                assert_eq!(got.map_bits(), wanted.map_bits(), "{index}");
            }
        }
        assert!(features.next_batch().unwrap().is_none());
        assert!(path.is_file());
        drop(features);
        assert!(!path.exists());
    }

    trait Bits {
        fn map_bits(&self) -> Vec<u32>;
    }
    impl Bits for [f32] {
        fn map_bits(&self) -> Vec<u32> {
            self.iter().map(|v| v.to_bits()).collect()
        }
    }

    #[test]
    fn an_epoch_shows_each_sample_once_and_the_epochs_show_each_view() {
        let table = Table {
            store: Store::Memory((0..12).map(|i| i as f32).collect()),
            targets: Vec::new(),
            labels: vec![0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1],
            samples: 4,
            width: 1,
            skipped: BTreeMap::new(),
        };
        let mut loader = FeatureLoader::new(table, 2, 2, Some(7));
        let mut seen = std::collections::BTreeSet::new();
        for epoch in 0..3 {
            loader.start(epoch, 0).unwrap();
            let mut indices: Vec<usize> = Vec::new();
            while let Some(batch) = loader.next_batch().unwrap() {
                indices.extend(&batch.indices);
                seen.extend(batch.data.iter().map(|v| *v as usize));
            }
            indices.sort_unstable();
            assert_eq!(indices, [0, 1, 2, 3]);
        }
        assert_eq!(seen.len(), 12);
        // From the middle, as after a kill.
        loader.start(1, 0).unwrap();
        let second = [loader.next_batch().unwrap(), loader.next_batch().unwrap()].into_iter().nth(1).unwrap();
        loader.start(1, 1).unwrap();
        assert_eq!(loader.next_batch().unwrap(), second);
    }
}
