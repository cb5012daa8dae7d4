//! Detectors: of the registry, as MODEL of `run`, `predict` and `val`; and what `predict` says of boxes.

use crate::compute::ComputeArgs;
use crate::failure::Failure;
use crate::model::{Model, ModelArgs, Origin};
use crate::output::{Output, print_json, print_line};
use crate::predict::answers::{free_folder, free_name};
use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use std::path::{Path, PathBuf};
use striate::graph::{Array, DType, Program, Session};
use striate::io::onnx::{Dimension, OnnxSession};
use striate::io::write_atomic;
use striate::train::{Evaluator, into_source};
use striate::vision::data::Image;
use striate::vision::detection::{Mask, Rle, draw_boxes, draw_masks, encode_jpeg};
use striate::vision::models::detection::{
    DetectError, Detections, Detector, ExportedBoxes, coco_classes, coco_things, find_detector, picture_array,
    resize_box,
};
use striate::vision::models::{ModelError, Task};
use striate::vision::transforms::{Layout, Preprocess, ResizeTo};

impl From<DetectError> for Failure {
    fn from(error: DetectError) -> Failure {
        match error {
            DetectError::Graph(error) => error.into(),
            other => Failure::usage(other.to_string()),
        }
    }
}

/// Whether MODEL is the name of a detector.
pub fn is_detector(args: &ModelArgs) -> bool {
    striate::vision::models::detection::is_detector(&args.model)
}

/// The detector of a name, with the weights of a file or fresh ones.
fn open(args: &ModelArgs, compute: ComputeArgs) -> Result<Detector, Failure> {
    let spec = find_detector(&args.model)?;
    let detector = match &args.weights {
        Some(path) => Detector::load(spec.name, path)?,
        None => {
            eprintln!("note: {} has fresh random weights; give --weights", spec.name);
            Detector::new(spec.name, spec.classes, 0)?
        }
    };
    Ok(detector.with_options(compute.options(), compute.team()))
}

/// The raw heads of a batch `[N, 3, H, W]` of prepared pictures.
pub fn run(args: &ModelArgs, array: &Array, compute: ComputeArgs) -> Result<Vec<Array>, Failure> {
    let detector = open(args, compute)?;
    let refuse = |why: String| {
        Failure::usage(format!(
            "input `input`: {} takes f32 [N, 3, H, W] and cannot take {} {}{why}",
            args.model,
            array.dtype(),
            array.shape()
        ))
    };
    let &[n, 3, h, w] = array.shape().dims() else { return Err(refuse(String::new())) };
    if array.dtype() != DType::F32 || [n, h, w].contains(&0) {
        return Err(refuse(String::new()));
    }
    let graph = detector.graph([n, 3, h, w]).map_err(|error| refuse(format!(": {error}")))?;
    let program = Program::compile(&graph, &compute.options())?;
    Ok(Session::with_team(program, compute.team()).run(&[("input", array)])?.to_vec())
}

/// Finds boxes on pictures, whatever the detector comes from.
pub enum Finder {
    /// Of the registry: the detector brings pictures to its own size.
    Registry(Box<Detector>, Vec<String>),
    /// Trained here: pictures are prepared as its file says.
    Trained(Box<Model>, Box<Evaluator>, Vec<String>),
    /// Exported from here: its file says how pictures are prepared and what it gives.
    Exported(Box<Exported>),
}

/// An ONNX model that gives boxes.
pub struct Exported {
    session: OnnxSession,
    boxes: ExportedBoxes,
    preprocess: Preprocess,
    bytes: bool,
    names: Vec<String>,
}

impl Exported {
    /// Of the file that a model came from.
    fn open(path: &Path, model: Model, compute: ComputeArgs) -> Result<Exported, Failure> {
        let onnx = crate::onnx::read(path)?;
        let boxes = ExportedBoxes::parse(path, onnx.metadata())?;
        let preprocess = model.preprocess;
        if !matches!(preprocess.resize, Some(ResizeTo::Exact(_) | ResizeTo::Letterbox(_))) || preprocess.crop.is_some()
        {
            return Err(Failure::usage(format!(
                "{}: pictures are prepared as {preprocess}; boxes find back into pictures that are resized whole to the file's size alone",
                path.display()
            )));
        }
        let bytes = onnx.inputs().first().is_some_and(|input| input.dtype == DType::U8);
        let told = preprocess.size().unwrap_or_default();
        if let Some(shape) = onnx.inputs().first().and_then(|input| input.shape.as_deref()) {
            let sides = shape.iter().skip(if bytes { 1 } else { 2 }).zip(told);
            let fixed = |(size, side)| if let &Dimension::Size(size) = size { Some((size, side)) } else { None };
            if let Some((size, side)) = sides.filter_map(fixed).find(|(size, side)| size != side) {
                return Err(Failure::usage(format!(
                    "{}: by its metadata pictures have {side} pixels where its input has {size}; export it again",
                    path.display()
                )));
            }
        }
        let session = OnnxSession::new(onnx).with(compute.options(), compute.team());
        Ok(Exported { session, boxes, preprocess, bytes, names: model.class_names.unwrap_or_default() })
    }

    fn find(&mut self, image: &Image) -> Result<Detections, Failure> {
        let layout = if self.bytes { Layout::Nhwc } else { Layout::Nchw };
        let (values, shape) =
            self.preprocess.apply(image, layout).map_err(|error| Failure::usage(error.to_string()))?;
        let (array, frame) = match self.bytes {
            // The values are bytes as parts of 255.
            true => (
                Array::from_vec(shape, values.iter().map(|v| (255.0 * v).round() as u8).collect())?,
                [shape[1], shape[2]],
            ),
            false => (Array::from_vec(shape, values)?, [shape[2], shape[3]]),
        };
        let outputs = self.session.run(&[&array]).map_err(ModelError::from)?;
        let found = self.boxes.decode(&outputs, self.names.len())?.pop().unwrap_or_default();
        let source = [image.height, image.width];
        Ok(match self.preprocess.resize {
            Some(ResizeTo::Letterbox(_)) => into_source(found, frame, source),
            _ => {
                let corners = found.boxes.iter().map(|corners| resize_box(frame, source, *corners)).collect();
                Detections { boxes: corners, ..found }
            }
        })
    }
}

/// The boxes with labels from `first` on, counted from there: the classes of the data. Some nets score the background like a class, which
/// is none of them.
fn of_data(found: &Detections, first: usize) -> Result<Detections, Failure> {
    let kept: Vec<usize> = (0..found.labels.len()).filter(|&place| found.labels[place] >= first).collect();
    let masks = found.masks.as_ref().map(|masks| {
        let [height, width] = [1, 2].map(|axis| masks.shape()[axis]);
        let (values, size) = (masks.f32s()?, height * width);
        let own = kept.iter().flat_map(|place| &values[place * size..][..size]).copied().collect();
        Array::from_vec([kept.len(), height, width], own)
    });
    Ok(Detections {
        boxes: kept.iter().map(|&place| found.boxes[place]).collect(),
        scores: kept.iter().map(|&place| found.scores[place]).collect(),
        labels: kept.iter().map(|&place| found.labels[place] - first).collect(),
        masks: masks.transpose()?,
    })
}

impl Finder {
    /// The detector of a name.
    pub fn of_registry(args: &ModelArgs, compute: ComputeArgs) -> Result<Finder, Failure> {
        let detector = open(args, compute)?;
        let classes = detector.classes();
        let names = names_of(classes).unwrap_or_else(|| (0..classes).map(|index| index.to_string()).collect());
        Ok(Finder::Registry(Box::new(detector), names))
    }

    /// A detector out of a file, a run folder or an ONNX file that was exported.
    ///
    /// # Errors
    /// Exit code 2 for an ONNX file that does not say how its outputs are read.
    pub fn of_model(model: Model, compute: ComputeArgs) -> Result<Finder, Failure> {
        if let Origin::Onnx(path) = model.origin.clone() {
            return Ok(Finder::Exported(Box::new(Exported::open(&path, model, compute)?)));
        }
        let names = model.class_names.clone().unwrap_or_default();
        let evaluator = Evaluator::new(model.goal(names.len()), compute.options(), compute.team());
        Ok(Finder::Trained(Box::new(model), Box::new(evaluator), names))
    }

    /// Names of the classes; labels of what is found are places among them.
    pub fn names(&self) -> &[String] {
        match self {
            Finder::Registry(_, names) | Finder::Trained(_, _, names) => names,
            Finder::Exported(exported) => &exported.names,
        }
    }

    /// What is on a picture, in its pixels.
    pub fn find(&mut self, image: &Image) -> Result<Detections, Failure> {
        match self {
            Finder::Registry(detector, _) => {
                let mut found = detector.detect_unpasted(&[picture_array(image)])?;
                Ok(found.pop().unwrap_or_default())
            }
            Finder::Exported(exported) => exported.find(image),
            Finder::Trained(model, evaluator, _) => {
                let (values, shape) =
                    model.preprocess.apply(image, Layout::Nchw).map_err(|error| Failure::usage(error.to_string()))?;
                let array = Array::from_vec(shape, values)?;
                let Some(net) = model.net.detector() else {
                    return Err(Failure::new(1, format!("{} is no detector", model.name)));
                };
                let found = evaluator.detect(net, &array)?.pop().unwrap_or_default();
                let found = of_data(&found, net.first_class())?;
                Ok(into_source(found, [shape[2], shape[3]], [image.height, image.width]))
            }
        }
    }
}

/// What `predict` writes of a detector's finds.
#[derive(Args, Clone, Debug)]
pub struct SavingArgs {
    /// For detectors: a text file for each picture, NAME.txt, with a line `class x y width height score` for each box, centre and size
    /// in parts of the picture (YOLO's format).
    #[arg(long)]
    save_txt: bool,
    /// For detectors: each box as a picture of its own, crops/CLASS/NAME-NUMBER.jpg.
    #[arg(long)]
    save_crop: bool,
}

/// The folder that is written into.
struct Saver {
    folder: PathBuf,
    args: SavingArgs,
    taken: Vec<String>,
}

/// A name that may be part of a path.
fn as_file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || "-_ ".contains(c) { c } else { '_' }).collect()
}

impl Saver {
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.folder.join(name);
        let parent = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(parent).map_err(|error| Failure::io(parent, "create the folder", &error))?;
        write_atomic(&path, bytes).map_err(|error| Failure::array_file(&error))
    }

    /// The picture with its boxes and masks, and what else is asked for. Gives the path of the picture.
    fn save(&mut self, path: &Path, image: &Image, boxes: &[Found<'_>]) -> Result<PathBuf, Failure> {
        let stem = free_name(&mut self.taken, path);
        let drawn: Vec<_> = boxes.iter().map(|b| (b.xyxy, b.index, format!("{} {:.2}", b.name, b.score))).collect();
        let mut shown = image.clone();
        let masks: Vec<_> = boxes.iter().filter_map(|b| Some((b.mask.as_ref()?, b.index))).collect();
        draw_masks(&mut shown, &masks);
        draw_boxes(&mut shown, &drawn);
        let name = format!("{stem}.jpg");
        self.write(&name, &encode_jpeg(&shown)?)?;
        if self.args.save_txt {
            let [w, h] = [image.width, image.height].map(|side| side as f32);
            let line = |found: &Found<'_>| {
                let [x1, y1, x2, y2] = found.xyxy;
                let numbers = [(x1 + x2) / 2.0 / w, (y1 + y2) / 2.0 / h, (x2 - x1) / w, (y2 - y1) / h, found.score];
                format!("{} {}\n", found.index, numbers.map(|v| format!("{v:.6}")).join(" "))
            };
            self.write(&format!("{stem}.txt"), boxes.iter().map(line).collect::<String>().as_bytes())?;
        }
        for (number, found) in boxes.iter().enumerate().filter(|_| self.args.save_crop) {
            if let Some(part) = crop_of(image, found.xyxy) {
                let name = format!("crops/{}/{stem}-{}.jpg", as_file_name(found.name), number + 1);
                self.write(&name, &encode_jpeg(&part)?)?;
            }
        }
        Ok(self.folder.join(name))
    }
}

/// The part of a picture inside a box; nothing where no pixel is.
fn crop_of(image: &Image, [x1, y1, x2, y2]: [f32; 4]) -> Option<Image> {
    let (left, top) = (x1.max(0.0) as usize, y1.max(0.0) as usize);
    let (right, bottom) = ((x2.ceil() as usize).min(image.width), (y2.ceil() as usize).min(image.height));
    let row = |y: usize| {
        let at = |x: usize| (y * image.width + x) * image.channels;
        &image.data[at(left)..at(right)]
    };
    let sound = left < right && top < bottom;
    let data = sound.then(|| (top..bottom).flat_map(row).copied().collect())?;
    Image::new(right - left, bottom - top, image.channels, data).ok()
}

/// One box of a picture.
#[derive(Debug, Serialize)]
struct Found<'a> {
    index: usize,
    name: &'a str,
    score: f32,
    xyxy: [f32; 4],
    /// The mask as COCO's files have it, of the picture's size.
    #[serde(skip_serializing_if = "Option::is_none")]
    segmentation: Option<Rle>,
    #[serde(skip)]
    mask: Option<Mask>,
}

/// COCO's names of so many labels, as torchvision's detectors or our own count them.
pub fn names_of(classes: usize) -> Option<Vec<String>> {
    let known: [Vec<String>; 2] =
        [coco_classes().map(str::to_owned).collect(), coco_things().map(str::to_owned).collect()];
    known.into_iter().find(|names| names.len() == classes)
}

fn tell(path: &Path, boxes: &[Found<'_>], saved: Option<&Path>, output: Output) {
    if output == Output::Json {
        return print_json(&serde_json::json!({"path": path, "boxes": boxes}));
    }
    let word = |found: &Found<'_>| {
        let place = found.xyxy.map(|v| format!("{v:.1}"));
        format!("{} {:.2} % at {}", found.name, 100.0 * found.score, place.join(" "))
    };
    let words: Vec<String> = boxes.iter().map(word).collect();
    let words = if words.is_empty() { "nothing".to_owned() } else { words.join(", ") };
    let saved = saved.map(|path| format!(" ({})", path.display())).unwrap_or_default();
    print_line(&format!("{}: {words}{saved}", path.display()));
}

/// Says which boxes are on pictures, those with a score of at least `least`, and writes the pictures with them; with `--json` only
/// where a folder or files are asked for. Gives the number of pictures that could not be read.
pub fn predict(
    mut finder: Finder,
    paths: &[PathBuf],
    (args, folder): (&SavingArgs, Option<&Path>),
    (least, output): (f32, Output),
) -> Result<usize, Failure> {
    let names = finder.names().to_vec();
    let wanted = output != Output::Json || folder.is_some() || args.save_txt || args.save_crop;
    let folder = folder.map_or_else(|| free_folder(Task::Detect), Path::to_path_buf);
    let mut saver = wanted.then(|| Saver { folder, args: args.clone(), taken: Vec::new() });
    let bar = (output == Output::Terminal && paths.len() > 1).then(|| ProgressBar::new(paths.len() as u64));
    let mut bad = 0;
    for path in paths {
        let image = match Image::open(path).map_err(Failure::from) {
            Err(failure) if failure.is_of_input() && paths.len() > 1 => {
                eprintln!("left out: {}", failure.message());
                bad += 1;
                continue;
            }
            other => other?,
        };
        let found = finder.find(&image)?;
        let size = [image.height, image.width];
        let sure = (0..found.boxes.len()).filter(|&place| found.scores[place] >= least);
        let one = |place: usize| {
            let (index, score, xyxy) = (found.labels[place], found.scores[place], found.boxes[place]);
            let mask = found.mask(place, size);
            Found { index, name: &names[index], score, xyxy, segmentation: mask.as_ref().map(Mask::to_rle), mask }
        };
        let boxes: Vec<Found<'_>> = sure.map(one).collect();
        let saved = saver.as_mut().map(|saver| saver.save(path, &image, &boxes)).transpose()?;
        let tell = || tell(path, &boxes, saved.as_deref(), output);
        match &bar {
            Some(bar) => {
                bar.suspend(tell);
                bar.inc(1);
            }
            None => tell(),
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(bad)
}
