//! What `predict` says of a picture, by task.

use crate::failure::Failure;
use crate::output::{Output, print_json, print_line};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use serde::Serialize;
use std::path::{Path, PathBuf};
use striate::train::Evaluator;
use striate::vision::data::{Image, encode_mask, encode_png, overlay};
use striate::vision::metrics::pixel_classes;
use striate::vision::models::Task;

/// Most folders of one name.
const MOST_FOLDERS: usize = 100_000;

/// The flags that say how much is told.
#[derive(Args, Clone, Debug)]
pub struct AnswerArgs {
    /// Classes to show of each picture.
    #[arg(long, value_name = "K", default_value = "5", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    top: usize,
    /// The probability from which on a picture has a label, for nets with several labels.
    #[arg(long, value_name = "P", default_value = "0.5", value_parser = parse_threshold)]
    threshold: f64,
    /// Folder for the masks and overlays of a segmentation: NAME_mask.png, whose pixels are classes, and NAME_overlay.png; for the
    /// pictures of a detector with their boxes and masks, NAME.jpg [default: runs/segment/predict or runs/detect/predict, with a number if it
    /// exists].
    #[arg(long = "output", value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

fn parse_threshold(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(p) if (0.0..=1.0).contains(&p) => Ok(p),
        _ => Err("it must be a probability from 0 to 1".into()),
    }
}

/// One class with its probability.
#[derive(Debug, Serialize)]
struct Class<'a> {
    index: usize,
    name: &'a str,
    score: f64,
}

/// One number.
#[derive(Debug, Serialize)]
struct Number<'a> {
    index: usize,
    name: &'a str,
    value: f64,
}

/// One class of pixels.
#[derive(Debug, Serialize)]
struct Pixels<'a> {
    index: usize,
    name: &'a str,
    pixels: u64,
    /// Of the picture.
    part: f64,
}

/// A picture that was asked about.
pub struct Asked<'a> {
    pub path: &'a Path,
    /// Where something is drawn over it.
    pub image: Option<&'a Image>,
    /// Height and width.
    pub size: [usize; 2],
}

/// Tells what a net says.
pub struct Answers {
    args: AnswerArgs,
    names: Vec<String>,
    output: Output,
    task: Task,
    /// Where masks go, and the names that are taken.
    folder: PathBuf,
    taken: Vec<String>,
}

/// Probabilities of a row of scores, in doubles.
fn softmax(row: &[f32]) -> Vec<f64> {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = row.iter().map(|&x| (f64::from(x) - f64::from(most)).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

/// The best classes, the lower number first among equals.
fn best<'a>(scores: &[f64], names: &'a [String], top: usize) -> Vec<Class<'a>> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(top);
    order.into_iter().map(|index| Class { index, name: &names[index], score: scores[index] }).collect()
}

fn in_words(classes: &[Class<'_>]) -> String {
    classes.iter().map(|c| format!("{} {:.2} %", c.name, 100.0 * c.score)).collect::<Vec<_>>().join(", ")
}

/// `runs/TASK/predict`, or with the first number that is free.
pub fn free_folder(task: Task) -> PathBuf {
    let base = Path::new("runs").join(task.to_string());
    let named = |number: usize| base.join(if number == 1 { "predict".to_owned() } else { format!("predict{number}") });
    (1..=MOST_FOLDERS).map(named).find(|path| !path.exists()).unwrap_or_else(|| named(1))
}

impl Answers {
    pub fn new(args: AnswerArgs, names: Vec<String>, output: Output, task: Task) -> Result<Answers, Failure> {
        let folder = args.folder.clone().unwrap_or_else(|| free_folder(task));
        if task == Task::Segment {
            std::fs::create_dir_all(&folder).map_err(|error| Failure::io(&folder, "create the folder", &error))?;
        } else if args.folder.is_some() {
            return Err(Failure::usage("--output is for masks, which this net does not give"));
        }
        Ok(Answers { args, names, output, task, folder, taken: Vec::new() })
    }

    /// Whether the pictures themselves are needed.
    pub fn draws(&self) -> bool {
        self.task == Task::Segment
    }

    /// Prints what the net's outputs of these sizes say of a picture.
    pub fn tell(
        &mut self,
        asked: &Asked<'_>,
        (values, sizes): (&[f32], &[usize]),
        evaluator: &Evaluator,
    ) -> Result<(), Failure> {
        let path = asked.path;
        let (json, words) = match self.task {
            Task::Classify => {
                let classes = best(&softmax(values), &self.names, self.args.top);
                (serde_json::json!({"path": path, "classes": classes}), in_words(&classes))
            }
            Task::Multilabel => {
                let scores: Vec<f64> = values.iter().map(|x| 1.0 / (1.0 + f64::from(-x).exp())).collect();
                let classes = best(&scores, &self.names, self.args.top);
                let mut labels = best(&scores, &self.names, scores.len());
                labels.retain(|label| label.score >= self.args.threshold);
                let words =
                    if labels.is_empty() { format!("none (best: {})", in_words(&classes)) } else { in_words(&labels) };
                (serde_json::json!({"path": path, "labels": labels, "classes": classes}), words)
            }
            Task::Regress => {
                let numbers = evaluator.goal().numbers(values).into_iter().zip(&self.names).enumerate();
                let numbers: Vec<Number<'_>> =
                    numbers.map(|(index, (value, name))| Number { index, name, value }).collect();
                let words: Vec<String> = numbers.iter().map(|n| format!("{} {:.4}", n.name, n.value)).collect();
                (serde_json::json!({"path": path, "values": numbers}), words.join(", "))
            }
            Task::Segment => self.draw(asked, (values, sizes), evaluator)?,
            Task::Detect => return Err(Failure::new(1, "boxes are told by the detector's own answers")),
        };
        match self.output {
            Output::Json => print_json(&json),
            _ => print_line(&format!("{}: {words}", path.display())),
        }
        Ok(())
    }

    /// Writes mask and overlay of a picture.
    fn draw(
        &mut self,
        asked: &Asked<'_>,
        (values, sizes): (&[f32], &[usize]),
        evaluator: &Evaluator,
    ) -> Result<(serde_json::Value, String), Failure> {
        let &[k, h, w] = sizes else { return Err(Failure::new(1, format!("pixels of sizes {sizes:?}"))) };
        let mask = pixel_classes(evaluator.team(), (values, [k, h, w]), asked.size, None).classes;
        let stem = free_name(&mut self.taken, asked.path);
        let write = |what: &str, bytes: Vec<u8>| -> Result<PathBuf, Failure> {
            let path = self.folder.join(format!("{stem}_{what}.png"));
            striate::io::write_atomic(&path, &bytes).map_err(|error| Failure::array_file(&error))?;
            Ok(path)
        };
        let mask_path = write("mask", encode_mask(&mask)?)?;
        let drawn = asked.image.map(|image| encode_png(&overlay(image, &mask))).transpose()?;
        let overlay_path = drawn.map(|bytes| write("overlay", bytes)).transpose()?;
        let mut counts = vec![0u64; k];
        mask.data.iter().for_each(|class| counts[usize::from(*class)] += 1);
        let all = mask.data.len().max(1) as f64;
        let there = counts.iter().enumerate().filter(|(_, pixels)| **pixels > 0);
        let classes: Vec<Pixels<'_>> = there
            .map(|(index, &pixels)| Pixels { index, name: &self.names[index], pixels, part: pixels as f64 / all })
            .collect();
        let words: Vec<String> = classes.iter().map(|c| format!("{} {:.2} %", c.name, 100.0 * c.part)).collect();
        let json = serde_json::json!({
            "path": asked.path, "mask": mask_path, "overlay": overlay_path, "width": asked.size[1], "height": asked.size[0],
            "classes": classes,
        });
        Ok((json, format!("{} ({})", words.join(", "), mask_path.display())))
    }
}

/// The picture's name without ending, with a number where it is taken by one of another folder.
pub fn free_name(taken: &mut Vec<String>, path: &Path) -> String {
    let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let numbered = |n: usize| if n == 1 { stem.clone() } else { format!("{stem}-{n}") };
    let name = (1..).map(numbered).find(|name| !taken.contains(name)).unwrap_or_default();
    taken.push(name.clone());
    name
}
