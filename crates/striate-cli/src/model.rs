//! Which net a MODEL argument means: a registry name, a run folder, or a weights file.

use crate::failure::Failure;
use clap::Args;
use std::path::{Path, PathBuf};
use striate::io::{FileFormat, Weights, detect_format, fit_names, read_weights};
use striate::nn::{Module, StateDict};
use striate::train::{Goal, Tta};
use striate::vision::models::{
    LoadedModel, ModelError, ModelSpec, PresetReason, TargetScale, Task, TaskNet, build_model, find_model, find_preset,
};
use striate::vision::transforms::{Preprocess, PreprocessOverrides, TransformError};

/// MODEL and `--weights`.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// A registry name (see `striate models`), a run folder, a weights file that striate wrote, or an .onnx file.
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Weights for a registry name, with torchvision's keys: .pth, .safetensors, .npz or .onnx.
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
}

/// Where a net's values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Initial values.
    Fresh,
    /// A plain file of arrays: nothing is known of classes and preprocessing.
    Plain(PathBuf),
    /// A file that says all.
    Ours(PathBuf),
    /// An ONNX file.
    Onnx(PathBuf),
}

/// A net, ready to be run.
pub struct Model {
    /// Registry name.
    pub name: String,
    /// The net.
    pub net: TaskNet,
    /// `[C, H, W]`.
    pub input: [usize; 3],
    /// What its output means.
    pub task: Task,
    /// Of a regression.
    pub targets: Option<TargetScale>,
    /// Names of the classes where they are known.
    pub class_names: Option<Vec<String>>,
    /// What pictures go through before the net.
    pub preprocess: Preprocess,
    /// Who says so.
    pub prepared_by: String,
    /// Where its values come from.
    pub origin: Origin,
}

impl Model {
    /// Number of classes and their names, numbers where there are none.
    pub fn names(&self, classes: usize) -> Vec<String> {
        self.class_names.clone().unwrap_or_else(|| (0..classes).map(|index| index.to_string()).collect())
    }

    /// What its outputs are for, so many of them.
    pub fn goal(&self, outputs: usize) -> Goal {
        Goal { task: self.task, outputs, scale: self.targets.clone() }
    }

    /// Tells on stderr how pictures are prepared and who says so, and what has to be assumed.
    pub fn tell_assumptions(&self) {
        if self.origin == Origin::Fresh {
            eprintln!("note: {} has fresh random weights; give --weights, a run folder or a weights file", self.name);
        }
        eprintln!("note: pictures are prepared as {}: {}", self.prepared_by, self.preprocess);
        if let (Origin::Plain(path), Some(names)) = (&self.origin, &self.class_names) {
            let (file, whose) =
                (path.display(), if self.task == Task::Segment { "Pascal VOC's" } else { "ImageNet's" });
            eprintln!("note: {file} has {} classes and no names for them; taking {whose}", names.len());
        }
    }

    /// Prepares pictures so that the views of `tta` can be cut out of them; gives the height and width of a view.
    pub fn for_tta(&mut self, tta: Tta) -> Result<[usize; 2], Failure> {
        if self.task == Task::Detect && tta != Tta::None {
            return Err(Failure::usage(format!("--tta {tta}: boxes of several views are not joined")));
        }
        if self.task == Task::Segment && matches!(tta, Tta::Crops | Tta::All) {
            return Err(Failure::usage(format!("--tta {tta}: crops do not see every pixel; --tta flip does")));
        }
        let size = self.preprocess.size().unwrap_or([self.input[1], self.input[2]]);
        let refuse = |error: TransformError| Failure::usage(format!("--tta {tta}: {error}"));
        self.preprocess = tta.preprocess(&self.preprocess).map_err(refuse)?;
        Ok(size)
    }

    /// With other preprocessing where the user wants it.
    pub fn prepare(mut self, overrides: &PreprocessOverrides) -> Result<Model, Failure> {
        if *overrides != PreprocessOverrides::default() {
            self.preprocess = self.preprocess.with(overrides).map_err(|error| Failure::usage(error.to_string()))?;
            self.prepared_by += ", with the flags' changes";
        }
        Ok(self)
    }
}

impl ModelArgs {
    /// Opens the net. `input` is what a registry name is built for instead of its usual `[C, H, W]`.
    ///
    /// # Errors
    /// Exit code 2 for what is no model, 5 for a file that the system does not give.
    pub fn open(&self, input: Option<[usize; 3]>) -> Result<Model, Failure> {
        if let Some(weights) = &self.weights {
            let spec = find_model(&self.model).map_err(|error| {
                let path = Path::new(&self.model);
                match path.exists() {
                    true => Failure::usage(format!(
                        "--weights goes with a registry name, but {} is a file or folder, which has weights of its own",
                        path.display()
                    )),
                    false => Failure::from(error),
                }
            })?;
            return open_weights(spec, weights, input);
        }
        if let Ok(spec) = find_model(&self.model) {
            let input = input.unwrap_or(spec.input);
            return Ok(bare(spec, spec.build(input, spec.classes, 0)?, input, Origin::Fresh));
        }
        let path = Path::new(&self.model);
        match (path.is_dir(), path.exists()) {
            (true, _) => open_file(&best_of(path)?, None),
            (false, true) => open_file(path, input),
            (false, false) => Err(missing(&self.model)),
        }
    }
}

/// The message for what is neither a name nor a path.
fn missing(model: &str) -> Failure {
    let is_path = model.contains(['/', '\\']) || Path::new(model).extension().is_some();
    match find_model(model) {
        Err(error) if !is_path => error.into(),
        _ => Failure::usage(format!(
            "{model}: no such file or folder; MODEL is a registry name (`striate models` lists them), a run folder, a .safetensors file of striate or an .onnx file"
        )),
    }
}

/// The file of a run folder.
pub fn best_of(folder: &Path) -> Result<PathBuf, Failure> {
    let best = folder.join("weights").join("best.safetensors");
    if best.is_file() {
        return Ok(best);
    }
    let why = match folder.join("args.toml").is_file() {
        true => "the run has no weights/best.safetensors yet; finish it with `striate train --resume`",
        false => "it is no run folder (it has no weights/best.safetensors); give the folder that `striate train` named",
    };
    Err(Failure::usage(format!("{}: {why}", folder.display())))
}

/// A file as MODEL: only ours say which net they are for.
fn open_file(path: &Path, input: Option<[usize; 3]>) -> Result<Model, Failure> {
    match detect_format(path).map_err(ModelError::from)? {
        FileFormat::Onnx => crate::onnx::open(path, input.map(|[_, height, _]| height)),
        format => {
            let weights = read_weights(path).map_err(ModelError::from)?;
            if is_ours(&weights) || format == FileFormat::Safetensors {
                return open_ours(path, weights);
            }
            Err(Failure::usage(format!(
                "{}: a {format} file does not say which net its arrays are for; give a registry name (`striate models`) and this file with --weights",
                path.display()
            )))
        }
    }
}

/// Whether the metadata say which net the arrays are for.
pub fn is_ours(weights: &Weights) -> bool {
    weights.metadata.get("format").is_some_and(|format| format == "striate")
}

/// The net of a file that says which.
pub fn open_ours(path: &Path, weights: Weights) -> Result<Model, Failure> {
    let LoadedModel { net, info } = build_model(path, weights.arrays, &weights.metadata)?;
    Ok(Model {
        name: info.model,
        task: info.task,
        targets: info.targets,
        net,
        input: info.input,
        class_names: Some(info.class_names),
        preprocess: info.preprocess,
        prepared_by: "the weights file says".to_owned(),
        origin: Origin::Ours(path.to_path_buf()),
    })
}

/// A net of which no file says how pictures are prepared: as for torchvision's published weights, where it is one of its nets.
fn bare(spec: &'static ModelSpec, net: Box<dyn Module>, input: [usize; 3], origin: Origin) -> Model {
    let file = match &origin {
        Origin::Plain(path) => Some(path.as_path()),
        _ => None,
    };
    let (preprocess, prepared_by) = match find_preset(spec.name, file).filter(|_| input[0] == 3) {
        Some((preset, reason)) => {
            let why = match reason {
                PresetReason::FileName => "named by the file",
                PresetReason::Default => "the net's default, as no file says",
            };
            let by = format!("for torchvision's {} {} ({why})", spec.name, preset.weights);
            (preset.preprocess_at([input[1], input[2]]), by)
        }
        None => (spec.preprocess(input), "usual, as no file says".to_owned()),
    };
    let (name, task) = (spec.name.to_owned(), spec.task);
    let net = TaskNet::Plain(net);
    Model { name, task, targets: None, net, input, class_names: None, preprocess, prepared_by, origin }
}

fn open_weights(spec: &'static ModelSpec, path: &Path, input: Option<[usize; 3]>) -> Result<Model, Failure> {
    let weights = read_weights(path).map_err(ModelError::from)?;
    if is_ours(&weights) {
        let model = open_ours(path, weights)?;
        if model.name != spec.name {
            return Err(Failure::usage(format!(
                "{}: these are weights of {}, not of {}; give the file alone as MODEL",
                path.display(),
                model.name,
                spec.name
            )));
        }
        return Ok(model);
    }
    let Weights { arrays, notes, .. } = weights;
    let plain = spec.structure(spec.input, spec.classes)?;
    let (dict, names) = fit_names(arrays, &*plain);
    notes.iter().chain(&names).for_each(|note| eprintln!("note: {}: {note}", path.display()));
    let (channels, classes) = sizes_in(&*plain, &dict);
    let preset = find_preset(spec.name, Some(path)).map(|(preset, _)| preset);
    let usual = preset.and_then(|preset| preset.crop).map_or(spec.input, |side| [3, side, side]);
    let [_, height, width] = input.unwrap_or(usual);
    let input = [channels.unwrap_or(spec.input[0]), height, width];
    let net = spec.structure(input, classes.unwrap_or(spec.classes))?;
    spec.load(&*net, dict).map_err(|source| ModelError::Weights { path: path.into(), source: Box::new(source) })?;
    let names = preset.and_then(|preset| preset.class_names());
    let class_names = names.filter(|names| names.len() == classes.unwrap_or(spec.classes));
    Ok(Model { class_names, ..bare(spec, net, input, Origin::Plain(path.to_path_buf())) })
}

/// Channels and classes of a state dict: of the first and of the last weight of the net that it has.
fn sizes_in(net: &dyn Module, dict: &StateDict) -> (Option<usize>, Option<usize>) {
    let known = net.named_parameters().into_iter().filter(|(name, p)| p.shape().rank() > 1 && dict.contains(name));
    let weights: Vec<String> = known.map(|(name, _)| name).collect();
    let size = |name: Option<&String>, axis: usize| dict.get(name?)?.shape().dims().get(axis).copied();
    (size(weights.first(), 1).filter(|&n| n > 0), size(weights.last(), 0).filter(|&n| n > 0))
}
