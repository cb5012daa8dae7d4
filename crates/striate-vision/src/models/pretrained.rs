//! Weights to go on from: which net they are of, what pictures it saw, and how they come into a net for other classes.

mod detector;

use super::registry::modern_names;
use super::{ModelError, ModelInfo, ModelSpec, PresetReason, find_preset, weights_presets};
use crate::transforms::{Preprocess, ResizeTo};
pub use detector::{DetectorWeights, SeenColors};
use std::path::{Path, PathBuf};
use striate_io::{fit_names, read_weights};
use striate_nn::{Module, StateDict};

/// Part of the values before the head that a file must have, to be taken for weights of the net.
const LEAST_PART: f64 = 0.5;
/// So many arrays of other shapes are named.
const MOST_PROBLEMS: usize = 5;

/// A weights file to start training from.
#[derive(Clone, Debug)]
pub struct Pretrained {
    path: PathBuf,
    arrays: StateDict,
    info: Option<ModelInfo>,
    notes: Vec<String>,
}

impl Pretrained {
    /// Reads a file of any format that [`read_weights`] knows.
    ///
    /// # Errors
    /// A file that cannot be read, or one of ours whose metadata are broken.
    pub fn read(path: &Path) -> Result<Pretrained, ModelError> {
        let weights = read_weights(path)?;
        let ours = weights.metadata.get("format").is_some_and(|format| format == "striate");
        let info = ours.then(|| ModelInfo::parse(path, &weights.metadata)).transpose()?;
        Ok(Pretrained { path: path.into(), arrays: weights.arrays, info, notes: weights.notes })
    }

    /// The net that they are of, where the file says so: in its metadata, or by the hash in the name that torchvision gave it.
    pub fn model(&self) -> Option<&str> {
        let named = || {
            let found = weights_presets().iter().find(|preset| {
                matches!(find_preset(preset.model, Some(&self.path)), Some((p, PresetReason::FileName)) if p == *preset)
            });
            found.map(|preset| preset.model)
        };
        self.info.as_ref().map(|info| info.model.as_str()).or_else(named)
    }

    /// Channels of the pictures that the net saw, by its first weight.
    ///
    /// # Errors
    /// Neither 1 nor 3.
    pub fn channels(&self, spec: &ModelSpec) -> Result<usize, ModelError> {
        let plain = spec.structure(spec.input, spec.classes)?;
        let (dict, _) = fit_names(self.arrays.clone(), &*plain);
        let first = plain.named_parameters().into_iter().find(|(_, p)| p.shape().rank() == 4);
        let found = first.and_then(|(name, _)| Some((dict.get(&name)?.shape().get(1).copied()?, name)));
        match found {
            None => Ok(spec.input[0]),
            Some((channels @ (1 | 3), _)) => Ok(channels),
            Some((channels, name)) => Err(self.refused(format!(
                "`{name}` takes {channels} channels; pictures have 1 or 3, so these weights cannot be gone on from"
            ))),
        }
    }

    /// What pictures went through before the net, brought to `side` pixels, and who says so; `None` where nobody knows.
    pub fn preprocess(&self, spec: &ModelSpec, side: Option<usize>) -> Option<(Preprocess, String)> {
        if let Some(info) = &self.info {
            let mut preprocess = info.preprocess.clone();
            if let (Some(ResizeTo::Shorter(shorter)), Some([h, w]), Some(side)) =
                (preprocess.resize, preprocess.crop, side)
            {
                // The part of the picture that the crop keeps stays.
                let shorter = (shorter * side) as f64 / h.min(w) as f64;
                preprocess.resize = Some(ResizeTo::Shorter(shorter.round() as usize));
                preprocess.crop = Some([side, side]);
            }
            return Some((preprocess, "the weights file says".to_owned()));
        }
        let (preset, reason) = find_preset(spec.name, Some(&self.path))?;
        let why = match reason {
            PresetReason::FileName => "named by the file",
            PresetReason::Default => "the net's default, as no file says",
        };
        let said = format!("for torchvision's {} {} ({why})", spec.name, preset.weights);
        let usual = preset.crop.unwrap_or(preset.resize);
        let side = side.unwrap_or(usual);
        Some((preset.preprocess_at([side, side]), said))
    }

    /// Loads the values into a net whose head (the layer at the path `head`) may tell other classes apart: then the head keeps the
    /// values that it has. Gives a sentence on each thing that was done.
    ///
    /// # Errors
    /// A layer before the head that has another shape, or a file that has less than half of what lies before the head.
    pub fn load_into(&self, net: &dyn Module, head: &str, classes: &[String]) -> Result<Vec<String>, ModelError> {
        let (dict, names) = fit_names(self.arrays.clone(), net);
        let in_head = |name: &str| name.strip_prefix(head).is_some_and(|rest| rest.starts_with('.'));
        let (_, notes) = self.load_behind(net, (modern_names(dict), names), &in_head, classes)?;
        Ok(self.named(notes))
    }

    /// Loads a dict with the net's names, those `in_head` only where they are for the same classes. Gives the names of what was loaded,
    /// and what was done.
    fn load_behind(
        &self,
        net: &dyn Module,
        (dict, notes): (StateDict, Vec<String>),
        in_head: &dyn Fn(&str) -> bool,
        classes: &[String],
    ) -> Result<(StateDict, Vec<String>), ModelError> {
        let own = net.state_dict();
        let bias = dict.iter().find(|(name, _)| in_head(name)).and_then(|(_, a)| a.shape().first().copied());
        let other_classes = self.info.as_ref().is_some_and(|info| info.class_names != classes);
        let mut replaced = Vec::new();
        let mut fitting = StateDict::new();
        let mut problems = Vec::new();
        let (mut found, mut all) = (0, 0);
        for (name, mine) in own.iter() {
            all += if in_head(name) { 0 } else { mine.numel() };
            let Some(theirs) = dict.get(name) else { continue };
            let (a, b) = (theirs.shape(), mine.shape());
            // Other classifiers of the net (as GoogLeNet's) tell as many classes apart as the head does.
            let by_classes = a.first().copied() == bias && a.get(1..) == b.get(1..);
            if a != b && !in_head(name) && !by_classes {
                problems.push(format!("`{name}` is {a} in the file, {b} in the net"));
            } else if a != b || (in_head(name) && other_classes) {
                replaced.push(format!("{name} ({a} in the file, {b} here)"));
            } else {
                found += if in_head(name) { 0 } else { mine.numel() };
                fitting.insert(name, theirs.clone());
            }
        }
        if !problems.is_empty() {
            let more = match problems.len().saturating_sub(MOST_PROBLEMS) {
                0 => String::new(),
                more => format!("; and {more} more"),
            };
            problems.truncate(MOST_PROBLEMS);
            return Err(self.refused(format!("the weights are of another net: {}{more}", problems.join("; "))));
        }
        if (found as f64) < LEAST_PART * all as f64 || fitting.is_empty() {
            return Err(self.refused(format!(
                "it has {found} of the {all} values before the net's head, by name and shape; is it the right model?"
            )));
        }
        let missing = self.load(net, &fitting)?;
        let missing: Vec<String> = missing.into_iter().filter(|name| !dict.contains(name)).collect();
        let mut notes = [self.notes.clone(), notes].concat();
        notes.push(format!("kept {} of {} arrays", fitting.len(), own.len()));
        if !replaced.is_empty() {
            notes.push(format!("replaced and initialised: {}", replaced.join(", ")));
        }
        if !missing.is_empty() {
            notes.push(format!("not in the file, initialised: {}", missing.join(", ")));
        }
        let unused = dict.keys().filter(|name| !own.contains(name)).count();
        if unused > 0 {
            notes.push(format!("{unused} arrays of the file have no place in the net"));
        }
        Ok((fitting, notes))
    }

    /// Loads arrays that fit. Gives the names of those that the net has and the dict lacks, counts of batches aside.
    fn load(&self, net: &dyn Module, fitting: &StateDict) -> Result<Vec<String>, ModelError> {
        let source = |source| ModelError::Weights { path: self.path.clone(), source: Box::new(source) };
        let missing = net.load_state_dict(fitting, false).map_err(source)?.missing;
        Ok(missing.into_iter().filter(|name| !name.ends_with("num_batches_tracked")).collect())
    }

    /// Notes that say which file they are on.
    fn named(&self, notes: Vec<String>) -> Vec<String> {
        notes.into_iter().map(|note| format!("{}: {note}", self.path.display())).collect()
    }

    fn refused(&self, why: String) -> ModelError {
        ModelError::NotAModel { path: self.path.clone(), why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Task, find_model, save_model};

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|i| i.to_string()).collect()
    }

    /// Weights of `small` for 10 classes, under these names.
    fn file(folder: &Path, prefix: &str) -> PathBuf {
        let path = folder.join("small.safetensors");
        let net = find_model("small").unwrap().build([3, 28, 28], 10, 5).unwrap();
        let dict = net.state_dict().into_iter().map(|(name, array)| (format!("{prefix}{name}"), array));
        let dict: std::collections::BTreeMap<_, _> = dict.collect();
        striate_io::write_safetensors(&path, dict, &Default::default()).unwrap();
        path
    }

    #[test]
    fn the_head_is_replaced_and_all_else_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "module.");
        let spec = find_model("small").unwrap();
        let pretrained = Pretrained::read(&path).unwrap();
        assert_eq!(pretrained.channels(spec).unwrap(), 3);
        let net = spec.build([3, 28, 28], 4, 0).unwrap();
        let fresh = net.state_dict();
        let head = fresh.keys().last().unwrap().rsplit_once('.').unwrap().0.to_owned();
        let notes = pretrained.load_into(&*net, &head, &names(4)).unwrap().join("\n");
        assert!(notes.contains("module.") && notes.contains(&format!("initialised: {head}.weight")), "{notes}");
        let theirs = spec.build([3, 28, 28], 10, 5).unwrap().state_dict();
        for (name, array) in net.state_dict().iter() {
            let wanted = if name.starts_with(&head) { &fresh[name] } else { &theirs[name] };
            assert!(array.bits_eq(wanted), "{name}");
        }
    }

    #[test]
    fn the_same_number_of_other_classes_replaces_the_head_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ours.safetensors");
        let spec = find_model("lenet").unwrap();
        let net = spec.build([1, 28, 28], 3, 1).unwrap();
        let info = ModelInfo {
            model: "lenet".into(),
            task: Task::Classify,
            targets: None,
            input: [1, 28, 28],
            class_names: ["cat", "dog", "cow"].map(String::from).to_vec(),
            preprocess: Preprocess::exact(28, 28, 1),
            structure: None,
        };
        save_model(&path, net.state_dict(), &info).unwrap();
        let pretrained = Pretrained::read(&path).unwrap();
        assert_eq!(pretrained.model(), Some("lenet"));
        let load = |classes: &[String]| {
            let other = spec.build([1, 28, 28], 3, 2).unwrap();
            let notes = pretrained.load_into(&*other, "fc2", classes).unwrap().join("\n");
            (other.state_dict()["fc2.weight"].bits_eq(&net.state_dict()["fc2.weight"]), notes)
        };
        assert!(load(&info.class_names).0);
        let (kept, notes) = load(&names(3));
        assert!(!kept && notes.contains("fc2.weight"), "{notes}");
    }

    #[test]
    fn weights_of_another_net_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "");
        let pretrained = Pretrained::read(&path).unwrap();
        let refuse = |net: &str, input: [usize; 3], head: &str| {
            let net = find_model(net).unwrap().build(input, 4, 0).unwrap();
            pretrained.load_into(&*net, head, &names(4)).unwrap_err().to_string()
        };
        let other = refuse("resnet18_cifar", [3, 32, 32], "fc");
        assert!(other.contains("right model"), "{other}");
        let grey = refuse("small", [1, 28, 28], "no head");
        assert!(grey.contains("another net"), "{grey}");
    }

    #[test]
    fn the_net_is_known_by_the_files_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "");
        let named = folder.path().join("resnet18-f37072fd.safetensors");
        std::fs::rename(&path, &named).unwrap();
        let pretrained = Pretrained::read(&named).unwrap();
        assert_eq!(pretrained.model(), Some("resnet18"));
        let (preprocess, said) = pretrained.preprocess(find_model("resnet18").unwrap(), None).unwrap();
        assert!(said.contains("IMAGENET1K_V1") && preprocess == Preprocess::imagenet(), "{said}");
    }
}
