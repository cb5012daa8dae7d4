//! `striate predict`.

use crate::compute::ComputeArgs;
use crate::failure::Failure;
use crate::model::{Model, ModelArgs};
use crate::output::{Output, OutputArgs, print_json, print_line};
use crate::preprocess::PreprocessArgs;
use crate::val::classes_of;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use serde::Serialize;
use std::path::{Path, PathBuf};
use striate::graph::Array;
use striate::train::{Evaluator, Tta};
use striate::vision::data::Image;
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
    /// Picture files, or folders of them.
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<PathBuf>,
    /// Classes to show of each picture.
    #[arg(long, value_name = "K", default_value = "5", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    top: usize,
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

/// One class with its probability.
#[derive(Debug, Serialize)]
struct Class<'a> {
    index: usize,
    name: &'a str,
    score: f64,
}

/// What `--json` prints of a picture.
#[derive(Debug, Serialize)]
struct Prediction<'a> {
    path: &'a Path,
    classes: Vec<Class<'a>>,
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

/// Probabilities of a row of scores, in doubles.
fn softmax(row: &[f32]) -> Vec<f64> {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = row.iter().map(|&x| (f64::from(x) - f64::from(most)).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

/// The best classes, the lower number first among equals.
fn best<'a>(row: &[f32], names: &'a [String], top: usize) -> Vec<Class<'a>> {
    let scores = softmax(row);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(top);
    order.into_iter().map(|index| Class { index, name: &names[index], score: scores[index] }).collect()
}

/// A picture's values, ready for the net.
struct Prepared {
    path: PathBuf,
    values: Vec<f32>,
    /// [1, C, H, W]
    shape: [usize; 4],
}

/// Runs pictures through the net and prints what comes out.
struct Predictor<'a> {
    model: &'a Model,
    names: Vec<String>,
    evaluator: Evaluator,
    waiting: Vec<Prepared>,
    output: Output,
    top: usize,
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
        self.waiting.push(Prepared { path, values, shape });
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let waiting = std::mem::take(&mut self.waiting);
        let Some(first) = waiting.first() else { return Ok(()) };
        let [_, c, h, w] = first.shape;
        let values: Vec<f32> = waiting.iter().flat_map(|p| p.values.iter().copied()).collect();
        let images = Array::from_vec([waiting.len(), c, h, w], values)?;
        let logits = self.evaluator.logits(&*self.model.net, &images)?;
        for (picture, row) in waiting.iter().zip(logits.f32s()?.chunks_exact(self.names.len())) {
            if let Some(value) = row.iter().find(|x| x.is_nan()) {
                let place = picture.path.display();
                return Err(Failure::usage(format!("{place}: the net gives {value}; its weights are broken")));
            }
            let classes = best(row, &self.names, self.top);
            match self.output {
                Output::Json => print_json(&Prediction { path: &picture.path, classes }),
                _ => {
                    let said = classes.iter().map(|c| format!("{} {:.2} %", c.name, 100.0 * c.score));
                    print_line(&format!("{}: {}", picture.path.display(), said.collect::<Vec<_>>().join(", ")));
                }
            }
        }
        Ok(())
    }
}

/// Runs the verb.
pub fn run(args: &PredictArgs) -> Result<(), Failure> {
    let mut model = args.model.open(None)?.prepare(&args.preprocess.overrides())?;
    let size = model.for_tta(args.tta)?;
    let classes = classes_of(&model)?;
    let mut paths = Vec::new();
    for source in &args.sources {
        let before = paths.len();
        collect(source, 0, &mut paths)?;
        if paths.len() == before {
            return Err(Failure::data(format!(
                "{}: there is no picture in it (looked for {})",
                source.display(),
                PICTURES.join(", ")
            )));
        }
    }
    model.tell_assumptions();
    let saved = args.save_inputs.clone().map(|folder| (folder, 0));
    if let Some((folder, _)) = &saved {
        std::fs::create_dir_all(folder).map_err(|error| Failure::io(folder, "create the folder", &error))?;
    }
    let mut predictor = Predictor {
        names: model.names(classes),
        model: &model,
        evaluator: Evaluator::new(classes, args.compute.options(), args.compute.team()).with_tta(args.tta, size),
        waiting: Vec::new(),
        output: args.output.choose(),
        top: args.top,
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
    match bad {
        0 => Ok(()),
        n => Err(Failure::data(format!("{n} of {pictures} pictures could not be read; they are named above"))),
    }
}
