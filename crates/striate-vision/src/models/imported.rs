//! Nets out of ONNX files, to be trained on.

use super::detection::{find_detector, is_detector};
use super::{ModelError, TaskNet, find_model};
use crate::transforms::Preprocess;
use std::path::Path;
use std::sync::Arc;
use striate_io::onnx::{OnnxModel, OnnxNet};
use striate_nn::Module;

/// A net with what is said about it.
pub struct BuiltNet {
    /// The net.
    pub net: TaskNet,
    /// The registry's name, or the file's.
    pub name: String,
    /// How the net computes, where it is none of the registry.
    pub structure: Option<String>,
    /// What was done.
    pub notes: Vec<String>,
}

/// True where a model's name is that of an ONNX file.
pub fn is_imported(model: &str) -> bool {
    Path::new(model).extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx"))
}

/// Reads an ONNX model for pictures.
///
/// # Errors
/// A file that cannot be read, or one that does not take pictures.
pub fn open_imported(path: &Path) -> Result<OnnxNet, ModelError> {
    Ok(OnnxNet::new(Arc::new(OnnxModel::open(path)?))?)
}

/// What the file itself says of the preparation of pictures.
pub fn imported_preprocess(net: &OnnxNet) -> Option<Preprocess> {
    let text = net.model().metadata().get("preprocess")?;
    serde_json::from_str::<Preprocess>(text).ok().filter(|preprocess| preprocess.check().is_ok())
}

/// A net for pictures `[C, H, W]` and so many classes: by its name in the registry with fresh values, or that of an ONNX file, whose head
/// is replaced where it tells another number of classes apart.
///
/// # Errors
/// An unknown name, a file that cannot be read, a net that cannot take such pictures.
pub fn build_net(model: &str, input: [usize; 3], classes: usize, seed: u64) -> Result<BuiltNet, ModelError> {
    if !is_imported(model) {
        let net = if is_detector(model) {
            let spec = find_detector(model)?;
            TaskNet::Detector(spec.build(spec.labels(classes), seed)?)
        } else {
            TaskNet::Plain(find_model(model)?.build(input, classes, seed)?)
        };
        return Ok(BuiltNet { net, name: model.to_owned(), structure: None, notes: Vec::new() });
    }
    let path = Path::new(model);
    let mut onnx = OnnxModel::open(path)?;
    let mut notes = Vec::new();
    if onnx.head_classes() != Some(classes) {
        notes.push(format!("{model}: {}", onnx.replace_head(classes, seed)?));
    }
    let structure = onnx.structure();
    let net = OnnxNet::new(Arc::new(onnx))?;
    let [channels, height, width] = input;
    let name = path.file_stem().map_or_else(|| model.to_owned(), |stem| stem.to_string_lossy().into_owned());
    let refuse = |why: String| ModelError::Input { name: name.clone(), channels, height, width, classes, why };
    let graph =
        net.graph(striate_graph::Mode::Eval, &[2, channels, height, width]).map_err(|e| refuse(e.to_string()))?;
    let output = &graph.node(graph.outputs[0].1).shape;
    if output.dims() != [2, classes] {
        return Err(refuse(format!("it gives {output} for two pictures; a classifier gives a score for each class")));
    }
    Ok(BuiltNet { net: TaskNet::Plain(Box::new(net)), name, structure: Some(structure), notes })
}
