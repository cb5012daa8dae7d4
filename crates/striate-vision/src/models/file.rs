//! Weights files: safetensors with the model's name, input, class names and preprocessing in their metadata.

use super::detection::find_detector;
use super::{ModelError, Task, TaskNet, find_model};
use crate::transforms::Preprocess;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use striate_io::onnx::{OnnxModel, OnnxNet};
use striate_io::{Weights, read_weights, write_safetensors};
use striate_nn::StateDict;

/// Newest version of the metadata; lower ones are read. Classifiers are written as version 1, which knows no other task.
const VERSION: u32 = 2;

/// By how much the numbers of a regression are shifted and scaled: the net gives `(number - mean) / std`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TargetScale {
    /// By number.
    pub mean: Vec<f64>,
    /// By number, above 0.
    pub std: Vec<f64>,
}

/// What a weights file says about its net. Nothing of time, path, run, threads or machine belongs here: the same training gives
/// the same file.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// Name in the registry.
    pub model: String,
    /// What its output means.
    pub task: Task,
    /// For [`Task::Regress`].
    pub targets: Option<TargetScale>,
    /// `[C, H, W]`.
    pub input: [usize; 3],
    /// Names of the classes, or of the numbers.
    pub class_names: Vec<String>,
    /// What pictures go through before the net.
    pub preprocess: Preprocess,
    /// How the net computes, where it is none of the registry: an ONNX model's structure.
    pub structure: Option<String>,
}

impl ModelInfo {
    /// As it is written into a file, by key.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let json = |value: serde_json::Value| value.to_string();
        let version = if self.task == Task::Classify { 1 } else { VERSION };
        let mut pairs = vec![
            ("format", "striate".to_owned()),
            ("format_version", version.to_string()),
            ("model", self.model.clone()),
            ("input", json(serde_json::json!(self.input))),
            ("class_names", json(serde_json::json!(self.class_names))),
            ("preprocess", json(serde_json::json!(self.preprocess))),
        ];
        if self.task != Task::Classify {
            pairs.push(("task", self.task.to_string()));
        }
        pairs.extend(self.targets.as_ref().map(|scale| ("targets", json(serde_json::json!(scale)))));
        pairs.extend(self.structure.as_ref().map(|structure| ("structure", structure.clone())));
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// What the metadata of a file say; `path` is what errors name.
    ///
    /// # Errors
    /// Metadata that striate did not write, or that are broken.
    pub fn parse(path: &Path, metadata: &BTreeMap<String, String>) -> Result<ModelInfo, ModelError> {
        let wrong = |why: String| ModelError::NotAModel { path: path.into(), why };
        let text = |key: &str| {
            metadata.get(key).map(String::as_str).ok_or_else(|| {
                wrong(format!("the metadata has no `{key}`: these are not weights that striate wrote; name the model and give the file with --weights"))
            })
        };
        let version: u32 =
            text("format_version")?.parse().map_err(|_| wrong("`format_version` is no number".into()))?;
        if version == 0 || version > VERSION {
            return Err(wrong(format!("format version {version}, this striate reads up to {VERSION}; update striate")));
        }
        let bad = |key: &str, error: serde_json::Error| wrong(format!("metadata `{key}`: {error}"));
        let info = ModelInfo {
            model: text("model")?.to_owned(),
            task: metadata
                .get("task")
                .map_or(Ok(Task::Classify), |task| task.parse())
                .map_err(|error| wrong(format!("metadata `task`: {error}")))?,
            targets: (metadata.get("targets").map(|text| serde_json::from_str(text)))
                .transpose()
                .map_err(|e| bad("targets", e))?,
            input: serde_json::from_str(text("input")?).map_err(|e| bad("input", e))?,
            class_names: serde_json::from_str(text("class_names")?).map_err(|e| bad("class_names", e))?,
            preprocess: serde_json::from_str(text("preprocess")?).map_err(|e| bad("preprocess", e))?,
            structure: metadata.get("structure").cloned(),
        };
        info.preprocess.check().map_err(|error| wrong(error.to_string()))?;
        let numbers = info.class_names.len();
        let sound = |scale: &TargetScale| {
            scale.mean.len() == numbers
                && scale.std.len() == numbers
                && scale.std.iter().all(|std| *std > 0.0 && std.is_finite())
        };
        if (info.task == Task::Regress) != info.targets.is_some() || !info.targets.as_ref().is_none_or(sound) {
            return Err(wrong(format!("`targets` must have a mean and a deviation for each of {numbers} numbers")));
        }
        if info.preprocess.channels != info.input[0] || info.input.iter().any(|&n| n == 0 || n > 32_768) {
            return Err(wrong(format!("input {:?} does not fit its preprocessing", info.input)));
        }
        Ok(info)
    }
}

/// A net out of a file.
pub struct LoadedModel {
    /// The net, with its weights.
    pub net: TaskNet,
    /// What the file says about it.
    pub info: ModelInfo,
}

/// Writes a net's values, whole or not at all.
///
/// # Errors
/// What the disk says.
pub fn save_model(path: &Path, values: StateDict, info: &ModelInfo) -> Result<(), ModelError> {
    Ok(write_safetensors(path, values, &info.metadata())?)
}

/// Reads a weights file that striate wrote, or converted from one: builds the net that it names and loads it.
///
/// # Errors
/// A file that cannot be read, is not ours, or does not fit the net that it names.
pub fn load_model(path: &Path) -> Result<LoadedModel, ModelError> {
    let Weights { arrays, metadata, .. } = read_weights(path)?;
    build_model(path, arrays, &metadata)
}

/// The net that a file's metadata name, with the file's arrays; `path` stands for the file in errors.
///
/// # Errors
/// Metadata that striate did not write; arrays that do not fit the net.
pub fn build_model(
    path: &Path,
    arrays: StateDict,
    metadata: &BTreeMap<String, String>,
) -> Result<LoadedModel, ModelError> {
    let info = ModelInfo::parse(path, metadata)?;
    if let Some(structure) = &info.structure {
        let model = OnnxModel::from_structure(structure, |name| arrays.get(name).cloned(), path)?;
        return Ok(LoadedModel { net: TaskNet::Plain(Box::new(OnnxNet::new(Arc::new(model))?)), info });
    }
    let refuse = |source| ModelError::Weights { path: path.into(), source: Box::new(source) };
    if info.task == Task::Detect {
        let spec = find_detector(&info.model)?;
        let net = spec.structure(spec.labels(info.class_names.len()), None)?;
        net.load_state_dict(&arrays, true).map_err(refuse)?;
        return Ok(LoadedModel { net: TaskNet::Detector(net), info });
    }
    let spec = find_model(&info.model)?;
    let net = spec.structure(info.input, info.class_names.len())?;
    spec.load(&*net, arrays).map_err(refuse)?;
    Ok(LoadedModel { net: TaskNet::Plain(net), info })
}
