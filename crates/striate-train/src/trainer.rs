//! The run: epochs of steps, evaluation, the best weights, and the end.

use crate::config::{ClassWeights, Freeze, Settings, TrainConfig};
use crate::features::{Backbone, FeatureLoader, MOST_IN_FILE, Table, Watch};
use crate::folder::{Logs, read_results};
use crate::goal::val_figures;
use crate::input::{Input, evaluation_loader};
use crate::layers::Layers;
use crate::reporter::split_figure;
use crate::saved::{self, Counters};
use crate::step::{Problem, Stepper};
use crate::{
    Counts, EpochRecord, Evaluation, Evaluator, Event, Goal, Metrics, Named, Reporter, Resolved, Result, RunFolder,
    TrainError, report, resolve,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use striate_graph::machine::{Team, default_threads};
use striate_graph::{Array, CompileOptions, Error};
use striate_io::read_latest;
use striate_vision::data::{DatasetSource, Wanted, open_dataset_as, open_embedded, open_scenes};
use striate_vision::detection::{contact_sheet, encode_jpeg, plot_confusion, plot_f1, plot_precision_recall};
use striate_vision::models::detection::find_detector;
use striate_vision::models::{BuiltNet, Pretrained, Task, TaskNet, build_net, find_model, load_model, save_model};

/// Longest time between two checkpoints.
const CHECKPOINT_SECONDS: f64 = 60.0;
/// Steps between two lines of `events.jsonl`.
const EVENT_STEPS: u64 = 20;

/// What is not a setting.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// Set it to true, and the training saves a checkpoint and ends with [`TrainError::Interrupted`].
    pub stop: Arc<AtomicBool>,
    /// When the process began: `seconds` counts from here.
    pub started: Instant,
}

impl Default for TrainOptions {
    fn default() -> Self {
        TrainOptions { stop: Arc::default(), started: Instant::now() }
    }
}

/// What a finished training leaves.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The run folder.
    pub folder: PathBuf,
    /// What `metrics.json` says.
    pub metrics: Metrics,
}

fn open_source(settings: &TrainConfig) -> Result<DatasetSource> {
    Ok(match settings.data.as_deref() {
        Some(data) => open_dataset_as(data, &Wanted { task: settings.task, class_names: None })?,
        None if settings.task == Some(Task::Detect) => open_scenes()?,
        None => open_embedded()?,
    })
}

/// Trains a net as `config` says, into a new run folder.
///
/// # Errors
/// See [`TrainError`]; nothing is written before settings, data and model are known to fit.
pub fn train(config: &TrainConfig, options: TrainOptions, reporter: &mut dyn Reporter) -> Result<Outcome> {
    let source = open_source(config)?;
    let Resolved { mut settings, rules, pretrained } = resolve(config, &source)?;
    rules.iter().for_each(|rule| reporter.event(&Event::Note { message: rule }));
    if let (Some(data), Some(path)) = (&settings.data, &source.path) {
        // A resume may come from another working folder.
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        settings.data = Some(absolute.to_str().map_or_else(|| data.clone(), str::to_owned));
    }
    let prepared = Prepared::new(&source, &mut settings, pretrained)?;
    let folder = |settings: &Settings| {
        let project = settings.project.clone().unwrap_or_else(|| PathBuf::from(format!("runs/{}", source.task)));
        let folder = RunFolder::create(&project, settings.name.as_deref().unwrap_or("train"))?;
        folder.write_args(settings)?;
        Ok(folder)
    };
    Run::new(prepared, settings, folder, options)?.start(Counters::default(), reporter)
}

/// Goes on with a run, from its newest good checkpoint or, without one, from the start. Of `overrides` only `threads` and
/// `workers` count: all else would change the bits. A run that has finished is left as it is.
///
/// # Errors
/// As [`train`], and a folder that is no run folder, or whose data has changed.
pub fn resume(
    path: &Path,
    overrides: &TrainConfig,
    options: TrainOptions,
    reporter: &mut dyn Reporter,
) -> Result<Outcome> {
    let folder = RunFolder::open(path)?;
    if let Ok(text) = std::fs::read_to_string(folder.metrics())
        && let Ok(metrics) = serde_json::from_str::<Metrics>(&text)
    {
        reporter.event(&Event::Note { message: "the run had finished; nothing to do" });
        reporter.event(&Event::Done { folder: path, metrics: &metrics });
        return Ok(Outcome { folder: path.into(), metrics });
    }
    let changeable = TrainConfig { threads: overrides.threads, workers: overrides.workers, ..TrainConfig::default() };
    // Settings that older runs did not have.
    let older = TrainConfig {
        head_lr_factor: Some(1.0),
        layer_decay: Some(1.0),
        feature_views: Some(0),
        feature_memory: Some(2048),
        freeze_bn: Some(false),
        multi_scale: Some(1),
        close_mosaic: Some(0),
        mosaic: Some(0.0),
        mixup: Some(0.0),
        copy_paste: Some(0.0),
        ..TrainConfig::default()
    };
    let config = changeable.or(folder.read_args()?).or(older);
    let missing = |name: &str| TrainError::Config { path: folder.args(), why: format!("`{name}` is missing") };
    let mut settings = Settings::complete(config.clone()).map_err(missing)?;
    let source = open_source(&config)?;
    // A checkpoint has all values; the file that they once came from may be gone.
    let fresh = read_latest(&folder.checkpoints())?.is_none();
    let pretrained = settings.weights.as_deref().filter(|_| fresh).map(Pretrained::read).transpose()?;
    let prepared = Prepared::new(&source, &mut settings, pretrained)?;
    let mut run = Run::new(prepared, settings, |_| Ok(folder), options)?;
    let mut notes = Vec::new();
    let counters = saved::load(&run.folder, &*run.net, &mut run.stepper, &mut notes)?;
    notes.push(match &counters {
        Some(c) => format!("going on at step {} (epoch {}, batch {})", c.step, c.epoch + 1, c.batch + 1),
        None => "there is no checkpoint yet: starting from the beginning".to_owned(),
    });
    notes.iter().for_each(|message| reporter.event(&Event::Note { message }));
    if let Some(counters) = &counters
        && counters.pictures != run.input.train_len as u64
    {
        let why = format!("the run had {} training pictures, now there are {}", counters.pictures, run.input.train_len);
        return Err(TrainError::Config { path: run.folder.args(), why });
    }
    run.start(counters.unwrap_or_default(), reporter)
}

/// Whether a net that learns masks has some to learn from, and a note where boxes go without.
fn check_shapes(model: &str, input: &Input) -> Result<Option<String>> {
    match input.shapes() {
        [boxes, 0] => Err(TrainError::NoShapes { model: model.to_owned(), boxes }),
        [all, with] if with < all => {
            Ok(Some(format!("{} of {all} boxes have no shape: they are learnt from, but teach no masks", all - with)))
        }
        _ => Ok(None),
    }
}

/// What is known to fit before anything is written.
struct Prepared {
    input: Input,
    net: TaskNet,
    threads: usize,
    notes: Vec<String>,
    /// Layers that behave as in evaluation.
    frozen: Vec<String>,
}

/// The heads of a registry's net that training alone uses; an imported net has none.
fn auxiliary_heads(model: &str) -> &'static [&'static str] {
    find_model(model).map_or(&[], |spec| spec.auxiliary)
}

impl Prepared {
    /// What is frozen of a detector may be less than what is asked for, which the settings then say.
    fn new(source: &DatasetSource, settings: &mut Settings, pretrained: Option<Pretrained>) -> Result<Prepared> {
        let threads = settings.threads.unwrap_or_else(default_threads);
        let mut input = Input::new(source, settings, threads)?;
        let classes = input.info.class_names.len();
        let BuiltNet { net, name, structure, notes: built } =
            build_net(&settings.model, input.info.input, classes, settings.seed)?;
        (input.info.model, input.info.structure) = (name, structure);
        let mut notes = [input.notes.clone(), built].concat();
        if net.detector().is_some_and(|net| net.gives_masks()) {
            notes.extend(check_shapes(&settings.model, &input)?);
        }
        let layers = Layers::of_task(&net, auxiliary_heads(&settings.model));
        if let Some(pretrained) = pretrained {
            let classes = &input.info.class_names;
            match &net {
                TaskNet::Plain(net) => {
                    notes.extend(pretrained.load_into(&**net, layers.head().unwrap_or_default(), classes)?);
                }
                TaskNet::Detector(net) => {
                    let spec = find_detector(&settings.model)?;
                    let loaded = pretrained.load_into_detector((&**net, spec), classes)?;
                    notes.extend(loaded.notes);
                    if settings.freeze == Some(Freeze::Backbone) {
                        settings.freeze = Some(layers.freezable(&loaded.taken)?);
                    }
                }
            }
        }
        let frozen = layers.freeze(settings.freeze, settings.freeze_bn)?;
        notes.extend(frozen.as_ref().map(|frozen| frozen.note.clone()));
        let frozen = frozen.map(|frozen| frozen.layers).unwrap_or_default();
        Ok(Prepared { input, net, threads, notes, frozen })
    }
}

struct Run {
    settings: Settings,
    folder: RunFolder,
    input: Input,
    net: TaskNet,
    stepper: Stepper,
    evaluator: Evaluator,
    compile: CompileOptions,
    team: Arc<Team>,
    logs: Option<Logs>,
    options: TrainOptions,
    notes: Vec<String>,
    /// Seconds of earlier processes.
    earlier: f64,
    saved_at: Instant,
}

impl Run {
    /// `folder` is called when it is known that a step fits into memory.
    fn new(
        prepared: Prepared,
        settings: Settings,
        folder: impl FnOnce(&Settings) -> Result<RunFolder>,
        options: TrainOptions,
    ) -> Result<Run> {
        let Prepared { input, net, threads, mut notes, frozen } = prepared;
        let compile = CompileOptions { exact: settings.exact, threads, ..CompileOptions::default() };
        let team = Arc::new(Team::new(threads));
        let goal = Goal::of(&input.info);
        let [channels, height, width] = input.info.input;
        let batches = input.train.batches() as u64;
        let weights = (settings.class_weights == ClassWeights::Balanced).then(|| input.balanced.clone());
        let problem = Problem {
            shape: [settings.batch, channels, height, width],
            sizes: input.sizes.clone(),
            most_boxes: input.most_boxes,
            goal: goal.clone(),
            batches,
            steps: batches * settings.epochs,
            class_weights: weights.map(|w| Array::from_vec([goal.outputs], w)).transpose()?,
            auxiliary: auxiliary_heads(&settings.model),
            frozen,
            cut: settings.caches_features(),
        };
        let stepper = Stepper::new(&net, &settings, &problem, (&compile, &team))?;
        notes.push(format!("a step needs {} MiB of memory, the process included", stepper.memory() >> 20));
        let folder = folder(&settings)?;
        let evaluator = Evaluator::new(goal, compile.clone(), team.clone());
        let saved_at = Instant::now();
        let (logs, earlier) = (None, 0.0);
        Ok(Run {
            settings,
            folder,
            input,
            net,
            stepper,
            evaluator,
            compile,
            team,
            logs,
            options,
            notes,
            earlier,
            saved_at,
        })
    }

    fn seconds(&self) -> f64 {
        self.earlier + self.options.started.elapsed().as_secs_f64()
    }

    fn stopped(&self) -> bool {
        self.options.stop.load(Ordering::Relaxed)
    }

    fn interrupted<T>(&self) -> Result<T> {
        Err(TrainError::Interrupted { folder: self.folder.path().into() })
    }

    fn logs(&mut self) -> Result<&mut Logs> {
        self.logs.as_mut().ok_or_else(|| Error::Internal("the logs are not open".into()).into())
    }

    fn save(&mut self, counters: &mut Counters) -> Result<()> {
        counters.seconds = self.seconds();
        counters.pictures = self.input.train_len as u64;
        counters.logs = self.logs()?.lengths()?;
        saved::save(&self.folder, &*self.net, &self.stepper, counters)?;
        self.saved_at = Instant::now();
        Ok(())
    }

    fn start(mut self, mut counters: Counters, reporter: &mut dyn Reporter) -> Result<Outcome> {
        self.earlier = counters.seconds;
        let columns = (self.input.info.task, self.stepper.figures());
        self.logs = Some(Logs::open(&self.folder, columns, counters.logs)?);
        self.show_batch()?;
        let started = Event::Start {
            folder: self.folder.path(),
            model: &self.settings.model.clone(),
            parameters: self.net.num_parameters(),
            train: self.input.train_len,
            val: self.input.val_len,
            classes: self.input.info.class_names.len(),
            batches: self.input.train.batches() as u64,
        };
        reporter.event(&started);
        for message in std::mem::take(&mut self.notes) {
            reporter.event(&Event::Note { message: &message });
        }
        if !counters.finished && counters.epoch < self.settings.epochs {
            self.cache_features(reporter)?;
        }
        while !counters.finished && counters.epoch < self.settings.epochs {
            self.epoch(&mut counters, reporter)?;
        }
        self.finish(&counters, reporter)
    }

    /// Computes what the head is trained on, where all before it is frozen.
    fn cache_features(&mut self, reporter: &mut dyn Reporter) -> Result<()> {
        let Some(cut) = self.stepper.cut().cloned() else { return Ok(()) };
        let began = Instant::now();
        let backbone = Backbone { net: &*self.net, cut: &cut, options: &self.compile, team: &self.team };
        let mut watch = Watch { stop: &self.options.stop, reporter, folder: self.folder.path() };
        // As many random views as a file holds; in memory where they fit there.
        let one = 4 * (cut.width() * self.input.train_len) as u64;
        let views = self.settings.feature_views.min((MOST_IN_FILE / one.max(1)).saturating_sub(1));
        let all = one * (1 + views) + 4 * (cut.width() * self.input.val_len) as u64;
        let in_file = all > (self.settings.feature_memory as u64) << 20;
        let table = |name: &str| match in_file {
            true => Table::in_file(self.folder.path().join(name)),
            false => Ok(Table::default()),
        };
        let (mut train, mut val) = (table("features-train.tmp")?, table("features-val.tmp")?);
        train.add(&backbone, &mut self.input.views(false)?, 1, &mut watch)?;
        if views > 0 {
            train.add(&backbone, &mut self.input.views(true)?, views, &mut watch)?;
        }
        val.add(&backbone, &mut self.input.val_views()?, 1, &mut watch)?;
        let message = format!(
            "features of the frozen backbone: {} views of {} pictures, {} values each, {:.1} MiB in {}, {:.1} s",
            train.views(),
            self.input.train_len,
            cut.width(),
            (train.bytes() + val.bytes()) as f64 / f64::from(1 << 20),
            if in_file { "a file" } else { "memory" },
            began.elapsed().as_secs_f64()
        );
        reporter.event(&Event::Note { message: &message });
        let (classes, batch) = (self.input.info.class_names.len(), self.settings.batch);
        self.input.train = Box::new(FeatureLoader::new(train, classes, batch, Some(self.settings.seed)));
        self.input.val = Box::new(FeatureLoader::new(val, classes, batch.min(self.input.val_len), None));
        self.evaluator = Evaluator::new(Goal::of(&self.input.info), self.compile.clone(), self.team.clone())
            .behind(cut, self.input.info.input);
        Ok(())
    }

    /// The rest of the current epoch, its evaluation, and its checkpoint.
    fn epoch(&mut self, counters: &mut Counters, reporter: &mut dyn Reporter) -> Result<()> {
        let batches = self.input.train.batches() as u64;
        self.input.train.start(counters.epoch, counters.batch as usize)?;
        let (began, first) = (Instant::now(), counters.batch);
        let names = self.stepper.figures().to_vec();
        while counters.batch < batches {
            let Some(batch) = self.input.train.next_batch()? else { break };
            counters.lr = self.stepper.scheduler.lrs().first().copied().unwrap_or(0.0);
            let result = self.stepper.run(&self.net, &batch, counters.step)?;
            self.input.train.recycle(batch);
            counters.loss_sum += result.loss;
            counters.add_figures(&result.figures);
            counters.batch += 1;
            counters.step += 1;
            let pictures = (counters.batch - first) as f64 * self.settings.batch as f64;
            let seen = counters.batch as f64 * self.settings.batch as f64;
            let figures = names.iter().zip(&counters.figure_sums).map(|(name, sum)| (split_figure(name).1, sum / seen));
            let figures: Vec<(&str, f64)> = figures.collect();
            let event = Event::Step {
                epoch: counters.epoch + 1,
                epochs: self.settings.epochs,
                batch: counters.batch,
                batches,
                step: counters.step,
                loss: counters.loss_sum / counters.batch as f64,
                figures: &figures,
                lr: counters.lr,
                images_per_s: pictures / began.elapsed().as_secs_f64(),
            };
            reporter.event(&event);
            if counters.step.is_multiple_of(EVENT_STEPS) {
                self.logs()?.event(&event)?;
            }
            if self.stopped() {
                self.save(counters)?;
                return self.interrupted();
            }
            if counters.batch < batches && self.checkpoint_is_due(counters.step) {
                self.save(counters)?;
            }
        }
        let Some(evaluation) = self.evaluate_val()? else {
            self.save(counters)?;
            return self.interrupted();
        };
        self.close_epoch(counters, &evaluation, batches, reporter)
    }

    fn checkpoint_is_due(&self, step: u64) -> bool {
        let every = self.settings.checkpoint_steps;
        let seconds = self.settings.checkpoint_seconds.min(CHECKPOINT_SECONDS);
        (every > 0 && step.is_multiple_of(every)) || self.saved_at.elapsed().as_secs_f64() >= seconds
    }

    /// On val, with the averaged weights where there are any. `None` if stopped meanwhile.
    fn evaluate_val(&mut self) -> Result<Option<Evaluation>> {
        self.swap();
        let evaluation = self.evaluator.run(&self.net, &mut *self.input.val, &self.options.stop);
        self.swap();
        evaluation
    }

    fn swap(&self) {
        if let Some(ema) = &self.stepper.ema {
            ema.swap();
        }
    }

    fn close_epoch(
        &mut self,
        counters: &mut Counters,
        evaluation: &Evaluation,
        batches: u64,
        reporter: &mut dyn Reporter,
    ) -> Result<()> {
        if let Some(loss) = evaluation.loss.filter(|loss| !loss.is_finite()) {
            let (value, lr) = (loss as f32, self.settings.lr);
            let (step, epoch) = (counters.step, counters.epoch + 1);
            return Err(TrainError::NonFinite { what: "the validation loss", value, step, epoch, layer: None, lr });
        }
        let (score, loss) = (evaluation.score(), evaluation.loss.unwrap_or(0.0));
        let first = counters.best_epoch == 0;
        let best = first || score > counters.best_score || (score == counters.best_score && loss < counters.best_loss);
        let steps = batches.max(1) as f64;
        let of_train = self.stepper.figures().iter().zip(&counters.figure_sums);
        let mut figures: Vec<(String, f64)> =
            of_train.map(|(name, sum)| (name.clone(), sum / (steps * self.settings.batch as f64))).collect();
        let of_val = val_figures(self.input.info.task).into_iter().zip(evaluation.counts.figures());
        figures.extend(of_val.map(|(name, value)| (name.to_owned(), value)));
        let record = EpochRecord {
            epoch: counters.epoch + 1,
            epochs: self.settings.epochs,
            step: counters.step,
            train_loss: counters.loss_sum / steps,
            val_loss: evaluation.loss,
            figures: Named(figures),
            lr: counters.lr,
            best,
            seconds: self.seconds(),
        };
        if best {
            (counters.best_epoch, counters.best_score, counters.best_loss) = (record.epoch, score, loss);
            counters.waited = 0;
        } else {
            counters.waited += 1;
        }
        self.write_weights(best)?;
        self.logs()?.epoch(&record)?;
        self.logs()?.event(&Event::Epoch(&record))?;
        reporter.event(&Event::Epoch(&record));
        (counters.epoch, counters.batch, counters.loss_sum) = (record.epoch, 0, 0.0);
        counters.figure_sums.clear();
        counters.finished = record.epoch >= self.settings.epochs;
        if self.settings.patience > 0 && counters.waited >= self.settings.patience && !counters.finished {
            counters.finished = true;
            let message = format!("no better for {} epochs: ending early", counters.waited);
            reporter.event(&Event::Note { message: &message });
        }
        self.save(counters)
    }

    /// The pictures that a detector's figures make, also written into the run folder.
    fn draw_curves(&self, evaluation: &Evaluation, names: &[String]) -> Result<Vec<String>> {
        let Counts::Detect(counts) = &evaluation.counts else { return Ok(Vec::new()) };
        let Some(judged) = counts.judged() else { return Ok(Vec::new()) };
        let drawn = [
            ("PR_curve.svg", Some(plot_precision_recall(&judged.figures, names))),
            ("F1_curve.svg", Some(plot_f1(&judged.figures, names))),
            ("confusion_matrix.svg", plot_confusion(&judged.confusion, names)),
        ];
        let mut pictures = Vec::new();
        for (name, svg) in drawn.into_iter().filter_map(|(name, svg)| Some((name, svg?))) {
            striate_io::write_atomic(&self.folder.picture(name), svg.as_bytes())?;
            pictures.push(svg);
        }
        Ok(pictures)
    }

    /// Writes `train_batch.jpg`: what the net sees in its first step, with the boxes that it is taught.
    fn show_batch(&mut self) -> Result<()> {
        let path = self.folder.picture("train_batch.jpg");
        if self.input.info.task != Task::Detect || path.exists() {
            return Ok(());
        }
        self.input.train.start(0, 0)?;
        let Some(batch) = self.input.train.next_batch()? else { return Ok(()) };
        let info = &self.input.info;
        let sheet = contact_sheet(&batch, &info.preprocess, &info.class_names);
        striate_io::write_atomic(&path, &encode_jpeg(&sheet)?)?;
        self.input.train.recycle(batch);
        Ok(())
    }

    /// The weights that val measured.
    fn write_weights(&self, best: bool) -> Result<()> {
        let values = match &self.stepper.ema {
            Some(ema) => ema.state_dict(),
            None => self.net.state_dict(),
        };
        if best {
            save_model(&self.folder.best(), values.clone(), &self.input.info)?;
        }
        Ok(save_model(&self.folder.last(), values, &self.input.info)?)
    }

    /// The best weights on the test part, or on val where there is none; report and metrics.
    fn finish(mut self, counters: &Counters, reporter: &mut dyn Reporter) -> Result<Outcome> {
        let best = load_model(&self.folder.best())?;
        let names = self.input.info.class_names.clone();
        let goal = Goal::of(&self.input.info);
        let mut evaluator = Evaluator::new(goal, self.compile.clone(), self.team.clone());
        let (split, evaluation) = match self.input.test.take() {
            Some(part) => {
                let batch = self.settings.batch.min(part.len());
                let mut loader = evaluation_loader(part, &self.input.info.preprocess, batch, self.input.workers)?;
                ("test", evaluator.run(&best.net, &mut loader, &self.options.stop)?)
            }
            None => ("val", evaluator.run(&best.net, &mut self.input.val_views()?, &self.options.stop)?),
        };
        let Some(evaluation) = evaluation else { return self.interrupted() };
        let skipped = self.input.train.skipped();
        if let Some(first) = skipped.first() {
            let message = format!("{} training pictures could not be read, such as {}", skipped.len(), first.reason);
            reporter.event(&Event::Note { message: &message });
        }
        let mut metrics = Metrics::new(split, &evaluation, &names, 0.0);
        (metrics.best_epoch, metrics.epochs) = (Some(counters.best_epoch), Some(counters.epoch));
        let args = std::fs::read_to_string(self.folder.args()).unwrap_or_default();
        let title = format!("{} in {}", self.settings.model, self.folder.path().display());
        let pictures = self.draw_curves(&evaluation, &names)?;
        let page = report::render(&title, &args, &read_results(&self.folder), (&metrics, &pictures));
        striate_io::write_atomic(&self.folder.report(), page.as_bytes())?;
        metrics.seconds = self.seconds();
        let path = self.folder.metrics();
        let text = serde_json::to_string_pretty(&metrics)
            .map_err(|e| TrainError::io(&path, "write")(std::io::Error::other(e)))?;
        striate_io::write_atomic(&path, format!("{text}\n").as_bytes())?;
        let folder = self.folder.path().to_path_buf();
        reporter.event(&Event::Done { folder: &folder, metrics: &metrics });
        Ok(Outcome { folder, metrics })
    }
}
