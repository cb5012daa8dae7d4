//! `striate val`.

mod boxes;

use crate::compute::ComputeArgs;
use crate::detect::Finder;
use crate::failure::Failure;
use crate::model::{Model, ModelArgs};
use crate::output::{Output, OutputArgs, print_json, print_line};
use crate::preprocess::PreprocessArgs;
use crate::stop::stop_flag;
use crate::table::table;
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use striate::graph::nearest;
use striate::train::{Counts, DetectionCounts, Evaluation, Evaluator, Metrics, Tta, evaluation_loader, read_config};
use striate::vision::data::{
    DataError, DataLoader, Dataset, DatasetSource, Image, Sample, Wanted, open_dataset_as, open_embedded, open_scenes,
};
use striate::vision::models::Task;
use striate::vision::transforms::Thing;

/// Most loader threads that are chosen.
const MOST_WORKERS: usize = 4;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Split {
    Train,
    Val,
    Test,
}

/// Judge a net on labelled pictures.
#[derive(Args, Debug)]
pub struct ValArgs {
    /// A registry name (see `striate models`), a run folder, a weights file that striate wrote, or an .onnx file.
    #[arg(value_name = "MODEL", required_unless_present = "gt")]
    model: Option<String>,
    /// Weights for a registry name, with torchvision's keys: .pth, .safetensors, .npz or .onnx.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// As for `striate train`; nothing: the data of the run folder, else the data set inside the binary.
    data: Option<String>,
    /// Which part [default: test, else val, else train].
    #[arg(long, value_enum)]
    split: Option<Split>,
    /// Pictures in a batch; the result does not depend on it.
    #[arg(long, default_value = "64", value_parser = RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    batch: usize,
    /// Threads that load pictures; the result does not depend on it.
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(0..=256))]
    workers: Option<usize>,
    /// Average over views of each picture: flip (mirrored left to right too), crops (centre and corners), all (both).
    #[arg(long, num_args = 0..=1, default_value = "none", default_missing_value = "flip", require_equals = true)]
    tta: Tta,
    #[command(flatten)]
    boxes: boxes::BoxArgs,
    #[command(flatten)]
    preprocess: PreprocessArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Opens DATA, which may be left out.
pub fn open_data(data: Option<&str>, wanted: &Wanted<'_>) -> Result<DatasetSource, Failure> {
    let source = match data {
        Some(data) => open_dataset_as(data, wanted)?,
        None if wanted.task == Some(Task::Detect) => open_scenes()?,
        None => open_embedded()?,
    };
    source.notes.iter().for_each(|note| eprintln!("note: {note}"));
    Ok(source)
}

/// What a run folder says that it was trained on.
fn data_of_run(folder: &Path) -> Result<Option<String>, Failure> {
    let args = folder.join("args.toml");
    if !args.is_file() {
        return Ok(None);
    }
    let data = read_config(&args)?.data;
    data.iter().for_each(|data| eprintln!("note: judged on what it was trained on, {data}"));
    Ok(data)
}

fn choose_part(source: &DatasetSource, split: Option<Split>) -> Result<(&'static str, Arc<dyn Dataset>), Failure> {
    let (name, part) = match split {
        None => match source.evaluation_part() {
            Some((name, part)) => (name, Some(part)),
            None => ("test", None),
        },
        Some(Split::Train) => ("train", source.train.clone()),
        Some(Split::Val) => ("val", source.val.clone()),
        Some(Split::Test) => ("test", source.test.clone()),
    };
    let place = source.path.as_ref().map_or("the data".to_owned(), |path| path.display().to_string());
    part.map(|part| (name, part)).ok_or_else(|| Failure::data(format!("{place}: there is no {name} part in it")))
}

/// A part whose classes have the model's numbers.
struct Renumbered {
    part: Arc<dyn Dataset>,
    /// By the data's label.
    labels: Vec<usize>,
    names: Vec<String>,
}

impl Renumbered {
    fn label_of(&self, label: usize, index: usize) -> Result<usize, DataError> {
        let classes = self.labels.len();
        let renumbered = self.labels.get(label).copied();
        renumbered.ok_or_else(|| DataError::SampleLabel { name: self.part.name(index), label, classes })
    }
}

impl Dataset for Renumbered {
    fn len(&self) -> usize {
        self.part.len()
    }
    fn class_count(&self) -> usize {
        self.names.len()
    }
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let Sample { image, label } = self.part.get(index)?;
        Ok(Sample { image, label: self.label_of(label, index)? })
    }
    fn get_into(&self, index: usize, image: &mut Image) -> Result<usize, DataError> {
        let label = self.part.get_into(index, image)?;
        self.label_of(label, index)
    }
    fn label(&self, index: usize) -> Result<usize, DataError> {
        self.label_of(self.part.label(index)?, index)
    }
    fn mask_into(&self, index: usize, mask: &mut Image) -> Result<bool, DataError> {
        self.part.mask_into(index, mask)
    }
    fn boxes(&self, index: usize) -> Option<&[Thing]> {
        self.part.boxes(index)
    }
    fn values(&self, index: usize) -> Option<&[f32]> {
        self.part.values(index)
    }
    fn name(&self, index: usize) -> String {
        self.part.name(index)
    }
    fn file(&self, index: usize) -> Option<PathBuf> {
        self.part.file(index)
    }
    fn class_names(&self) -> Vec<String> {
        self.names.clone()
    }
}

/// The part with the model's class numbers, by the classes' names; by number where the model has no names.
fn match_classes(model: &Model, classes: usize, part: Arc<dyn Dataset>) -> Result<Arc<dyn Dataset>, Failure> {
    let data = part.class_names();
    if model.task != Task::Classify && data.len() <= classes {
        // Masks hold numbers of classes, and tables were read with the model's names.
        return Ok(part);
    }
    let numbers = |count: usize| (0..count).map(|index| index.to_string()).collect::<Vec<_>>();
    let names = model.names(classes);
    if data == names {
        return Ok(part);
    }
    let unnamed = model.class_names.is_none() || data == numbers(data.len()) || names == numbers(names.len());
    if unnamed && data.len() == names.len() {
        return Ok(part);
    }
    let place = |name: &String| {
        names.iter().position(|n| n == name).ok_or_else(|| {
            let hint = nearest(name, names.iter().map(String::as_str)).map(|n| format!("; did you mean `{n}`?"));
            Failure::data(format!(
                "the data's class `{name}` is none of the model's{}; the model has {} classes ({}), the data {}",
                hint.unwrap_or_default(),
                names.len(),
                names.join(", "),
                data.len()
            ))
        })
    };
    let labels = data.iter().map(place).collect::<Result<Vec<usize>, Failure>>()?;
    Ok(Arc::new(Renumbered { part, labels, names }))
}

/// Number of classes that a net tells apart.
pub fn classes_of(model: &Model) -> Result<usize, Failure> {
    if let (Task::Detect, Some(names)) = (model.task, &model.class_names) {
        return Ok(names.len());
    }
    let [c, h, w] = model.input;
    let graph = model.net.graph(striate::graph::Mode::Eval, &[1, c, h, w])?;
    let output = &graph.node(graph.outputs[0].1).shape;
    match (output.dims(), &model.class_names) {
        ([1, classes] | [1, classes, _, _], names) if names.as_ref().is_none_or(|names| names.len() == *classes) => {
            Ok(*classes)
        }
        _ => {
            Err(Failure::usage(format!("{} gives {output}, which is not a value for each of its classes", model.name)))
        }
    }
}

/// Runs the verb.
pub fn run(args: &ValArgs, started: Instant) -> Result<(), Failure> {
    let Some(model) = args.model.clone() else { return boxes::run(&args.boxes, args.output, started) };
    let trained = data_of_run(Path::new(&model))?;
    let model = ModelArgs { model, weights: args.weights.clone() };
    if crate::detect::is_detector(&model) {
        return judge_detector(args, Finder::of_registry(&model, args.compute)?, started);
    }
    let mut model = model.open(None)?.prepare(&args.preprocess.overrides())?;
    let size = model.for_tta(args.tta)?;
    if model.task == Task::Detect && model.net.detector().is_none() {
        model.tell_assumptions();
        return judge_detector(args, Finder::of_model(model, args.compute)?, started);
    }
    let wanted = Wanted { task: Some(model.task), class_names: model.class_names.as_deref() };
    let data = args.data.clone().or(trained);
    let source = open_data(data.as_deref(), &wanted)?;
    model.tell_assumptions();
    let (split, part) = choose_part(&source, args.split)?;
    let classes = classes_of(&model)?;
    let part = match_classes(&model, classes, part)?;
    let names = model.names(classes);
    let threads = args.compute.threads();
    let workers = args.workers.unwrap_or(if source.fixed_size.is_some() { 0 } else { threads.min(MOST_WORKERS) });
    // Pictures of several sizes do not make a batch.
    let batch = if model.preprocess.size().is_some() { args.batch.min(part.len().max(1)) } else { 1 };
    let mut loader = evaluation_loader(part, &model.preprocess, batch, workers)?;
    let mut evaluator =
        Evaluator::new(model.goal(classes), args.compute.options(), args.compute.team()).with_tta(args.tta, size);
    let stop = stop_flag()?;
    let Some(evaluation) = evaluator.run(&model.net, &mut loader, &stop)? else {
        return Err(Failure::new(130, "interrupted"));
    };
    for skipped in loader.skipped() {
        eprintln!("left out: {}", skipped.reason);
    }
    if evaluation.counts.total() == 0 {
        return Err(Failure::data(format!("none of the {} pictures could be read", evaluation.skipped)));
    }
    let metrics = Metrics::new(split, &evaluation, &names, started.elapsed().as_secs_f64());
    match args.output.choose() {
        Output::Json => print_json(&metrics),
        _ => print_metrics(&metrics),
    }
    Ok(())
}

/// A detector of the registry or of an ONNX file, picture by picture.
fn judge_detector(args: &ValArgs, mut finder: Finder, started: Instant) -> Result<(), Failure> {
    let names = finder.names().to_vec();
    let source = open_data(args.data.as_deref(), &Wanted { task: Some(Task::Detect), class_names: Some(&names) })?;
    let (split, part) = choose_part(&source, args.split)?;
    let stop = stop_flag()?;
    let (mut counts, mut skipped) = (DetectionCounts::new(names.len()), 0);
    for index in 0..part.len() {
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Failure::new(130, "interrupted"));
        }
        let image = match part.get(index) {
            Err(error) if error.is_bad_sample() => {
                eprintln!("left out: {error}");
                skipped += 1;
                continue;
            }
            other => other?.image,
        };
        counts.add(part.boxes(index).unwrap_or_default(), &finder.find(&image)?, 0);
    }
    counts.close();
    let evaluation = Evaluation { counts: Counts::Detect(counts), loss: None, skipped };
    let metrics = Metrics::new(split, &evaluation, &names, started.elapsed().as_secs_f64());
    match args.output.choose() {
        Output::Json => print_json(&metrics),
        _ => print_metrics(&metrics),
    }
    Ok(())
}

fn print_metrics(metrics: &Metrics) {
    let (head, rows) = metrics.table();
    print_line(&table(&head, &rows, &[0]));
    let left_out = match metrics.skipped {
        0 => String::new(),
        n => format!(", {n} unreadable pictures left out"),
    };
    print_line(&format!(
        "\n{} ({} pictures{left_out}): {}  ({:.1} s)",
        metrics.split,
        metrics.images,
        metrics.summary(),
        metrics.seconds
    ));
}
