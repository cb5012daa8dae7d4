//! `striate predict`.

pub mod answers;

use crate::compute::ComputeArgs;
use crate::detect::{Finder, SavingArgs, is_detector, predict};
use crate::failure::Failure;
use crate::model::{Model, ModelArgs};
use crate::output::OutputArgs;
use crate::preprocess::PreprocessArgs;
use crate::val::classes_of;
use answers::{AnswerArgs, Answers, Asked};
use clap::Args;
use std::path::{Path, PathBuf};
use striate::graph::Array;
use striate::train::{Evaluator, Tta};
use striate::vision::data::Image;
use striate::vision::models::Task;
use striate::vision::transforms::Layout;

/// Pictures that go through the net together; an answer does not depend on its neighbours.
const BATCH: usize = 16;
/// Endings of files that are taken for pictures in a folder.
const PICTURES: [&str; 6] = ["jpg", "jpeg", "png", "webp", "bmp", "jfif"];
/// How deep folders are read.
const MOST_DEPTH: usize = 32;

/// Say what is on pictures.
#[derive(Args, Debug)]
pub struct PredictArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Picture files, folders of them, or patterns such as 'pictures/*.jpg'.
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<PathBuf>,
    #[command(flatten)]
    answers: AnswerArgs,
    #[command(flatten)]
    saving: SavingArgs,
    /// Least score of a box that is told, for detectors.
    #[arg(long = "conf", value_name = "P", default_value = "0.25", value_parser = parse_score)]
    confidence: f32,
    /// Write what the net sees of each picture, [1, C, H, W], as DIR/0.npy, DIR/1.npy, … for `striate run`.
    #[arg(long, value_name = "DIR")]
    save_inputs: Option<PathBuf>,
    /// Average over views of each picture: flip (mirrored left to right too), crops (centre and corners), all (both).
    #[arg(long, num_args = 0..=1, default_value = "none", default_missing_value = "flip", require_equals = true)]
    tta: Tta,
    #[command(flatten)]
    preprocess: PreprocessArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

fn parse_score(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(score) if (0.0..=1.0).contains(&score) => Ok(score),
        _ => Err("it must be a score from 0 to 1".into()),
    }
}

/// The pictures of a source, sorted; a file is taken as it is.
fn collect(source: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if !source.is_dir() {
        found.push(source.to_path_buf());
        return Ok(());
    }
    if depth > MOST_DEPTH {
        return Err(Failure::data(format!("{}: folders lie more than {MOST_DEPTH} deep", source.display())));
    }
    let refused = |error: std::io::Error| Failure::io(source, "read the folder", &error);
    let mut entries = std::fs::read_dir(source)
        .and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>())
        .map_err(refused)?;
    entries.sort();
    for entry in entries {
        let ending = entry.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
        if entry.is_dir() || PICTURES.contains(&ending.as_str()) {
            collect(&entry, depth + 1, found)?;
        }
    }
    Ok(())
}

/// A picture's values, ready for the net.
struct Prepared {
    path: PathBuf,
    /// As it came, for what is drawn over it.
    image: Option<Image>,
    /// Height and width of the picture.
    size: [usize; 2],
    values: Vec<f32>,
    /// [1, C, H, W]
    shape: [usize; 4],
}

/// Runs pictures through the net and prints what comes out.
struct Predictor<'a> {
    model: &'a Model,
    evaluator: Evaluator,
    waiting: Vec<Prepared>,
    answers: Answers,
    /// Where what the net sees is written, and how many files there are.
    saved: Option<(PathBuf, usize)>,
}

impl Predictor<'_> {
    fn add(&mut self, path: PathBuf) -> Result<(), Failure> {
        let image = Image::open(&path)?;
        let preprocess = &self.model.preprocess;
        let (values, shape) = preprocess
            .apply(&image, Layout::Nchw)
            .map_err(|error| Failure::data(format!("{}: {error}", path.display())))?;
        if let Some((folder, count)) = &mut self.saved {
            let array = Array::from_vec(shape, values.clone())?;
            let path = folder.join(format!("{count}.npy"));
            striate::io::write_npy(&path, &array).map_err(|error| Failure::array_file(&error))?;
            *count += 1;
        }
        let fits = self.waiting.first().is_none_or(|first| first.shape == shape);
        if !fits || self.waiting.len() == BATCH {
            self.flush()?;
        }
        let size = [image.height, image.width];
        let image = self.answers.draws().then_some(image);
        self.waiting.push(Prepared { path, image, size, values, shape });
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let waiting = std::mem::take(&mut self.waiting);
        let Some(first) = waiting.first() else { return Ok(()) };
        let [_, c, h, w] = first.shape;
        let values: Vec<f32> = waiting.iter().flat_map(|p| p.values.iter().copied()).collect();
        let images = Array::from_vec([waiting.len(), c, h, w], values)?;
        let outputs = self.evaluator.logits(&*self.model.net, &images)?;
        let sizes = outputs.shape().to_vec();
        let each = outputs.numel() / waiting.len().max(1);
        for (picture, values) in waiting.into_iter().zip(outputs.f32s()?.chunks_exact(each)) {
            if let Some(value) = values.iter().find(|x| x.is_nan()) {
                let place = picture.path.display();
                return Err(Failure::usage(format!("{place}: the net gives {value}; its weights are broken")));
            }
            let asked = Asked { path: &picture.path, image: picture.image.as_ref(), size: picture.size };
            self.answers.tell(&asked, (values, &sizes[1..]), &self.evaluator)?;
        }
        Ok(())
    }
}

/// The pictures of all sources.
fn collect_all(sources: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut paths = Vec::new();
    for source in sources {
        let before = paths.len();
        match crate::glob::matches(source) {
            Some(found) => paths.extend(found?),
            None => collect(source, 0, &mut paths)?,
        }
        if paths.len() == before {
            return Err(Failure::data(format!(
                "{}: there is no picture in it (looked for {})",
                source.display(),
                PICTURES.join(", ")
            )));
        }
    }
    Ok(paths)
}

/// What is said at the end where pictures could not be read.
fn judge(bad: usize, pictures: usize) -> Result<(), Failure> {
    match bad {
        0 => Ok(()),
        n => Err(Failure::data(format!("{n} of {pictures} pictures could not be read; they are named above"))),
    }
}

/// Says which boxes a detector finds.
fn find(args: &PredictArgs, finder: Finder) -> Result<(), Failure> {
    let paths = collect_all(&args.sources)?;
    let told = (args.confidence, args.output.choose());
    let bad = predict(finder, &paths, (&args.saving, args.answers.folder.as_deref()), told)?;
    judge(bad, paths.len())
}

/// Runs the verb.
pub fn run(args: &PredictArgs) -> Result<(), Failure> {
    if is_detector(&args.model) {
        return find(args, Finder::of_registry(&args.model, args.compute)?);
    }
    let mut model = args.model.open(None)?.prepare(&args.preprocess.overrides())?;
    if model.task == Task::Detect {
        model.for_tta(args.tta)?;
        model.tell_assumptions();
        return find(args, Finder::of_model(model, args.compute)?);
    }
    let size = model.for_tta(args.tta)?;
    let classes = classes_of(&model)?;
    let paths = collect_all(&args.sources)?;
    model.tell_assumptions();
    let saved = args.save_inputs.clone().map(|folder| (folder, 0));
    if let Some((folder, _)) = &saved {
        std::fs::create_dir_all(folder).map_err(|error| Failure::io(folder, "create the folder", &error))?;
    }
    let mut predictor = Predictor {
        model: &model,
        evaluator: Evaluator::new(model.goal(classes), args.compute.options(), args.compute.team())
            .with_tta(args.tta, size),
        waiting: Vec::new(),
        answers: Answers::new(args.answers.clone(), model.names(classes), args.output.choose(), model.task)?,
        saved,
    };
    let (pictures, mut bad) = (paths.len(), 0);
    for path in paths {
        match predictor.add(path) {
            // Where one picture was asked for, its own error says it all.
            Err(failure) if failure.is_of_input() && pictures > 1 => {
                eprintln!("left out: {}", failure.message());
                bad += 1;
            }
            other => other?,
        }
    }
    predictor.flush()?;
    judge(bad, pictures)
}
