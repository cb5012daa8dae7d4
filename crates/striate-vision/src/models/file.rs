//! Weights files: safetensors with the model's name, input, class names and preprocessing in their metadata.

use super::{ModelError, find_model};
use crate::transforms::Preprocess;
use std::collections::BTreeMap;
use std::path::Path;
use striate_io::{Weights, read_weights, write_safetensors};
use striate_nn::{Module, StateDict};

/// Version of the metadata that is written; lower ones are read.
const VERSION: u32 = 1;

/// What a weights file says about its net. Nothing of time, path, run, threads or machine belongs here: the same training gives
/// the same file.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// Name in the registry.
    pub model: String,
    /// `[C, H, W]`.
    pub input: [usize; 3],
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// What pictures go through before the net.
    pub preprocess: Preprocess,
}

impl ModelInfo {
    /// As it is written into a file, by key.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let json = |value: serde_json::Value| value.to_string();
        let pairs = [
            ("format", "striate".to_owned()),
            ("format_version", VERSION.to_string()),
            ("model", self.model.clone()),
            ("input", json(serde_json::json!(self.input))),
            ("class_names", json(serde_json::json!(self.class_names))),
            ("preprocess", json(serde_json::json!(self.preprocess))),
        ];
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
            input: serde_json::from_str(text("input")?).map_err(|e| bad("input", e))?,
            class_names: serde_json::from_str(text("class_names")?).map_err(|e| bad("class_names", e))?,
            preprocess: serde_json::from_str(text("preprocess")?).map_err(|e| bad("preprocess", e))?,
        };
        info.preprocess.check().map_err(|error| wrong(error.to_string()))?;
        if info.preprocess.channels != info.input[0] || info.input.iter().any(|&n| n == 0 || n > 32_768) {
            return Err(wrong(format!("input {:?} does not fit its preprocessing", info.input)));
        }
        Ok(info)
    }
}

/// A net out of a file.
pub struct LoadedModel {
    /// The net, with its weights.
    pub net: Box<dyn Module>,
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
    let spec = find_model(&info.model)?;
    let net = spec.structure(info.input, info.class_names.len())?;
    spec.load(&*net, arrays).map_err(|source| ModelError::Weights { path: path.into(), source: Box::new(source) })?;
    Ok(LoadedModel { net, info })
}
