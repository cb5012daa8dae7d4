//! Weights that a detector goes on from: its own, or those of the classifier that its backbone is.

use super::{LEAST_PART, Pretrained};
use crate::models::detection::{DetectionNet, DetectorSpec, modern_names};
use crate::models::registry;
use crate::models::{ModelError, PresetReason, find_preset, models};
use std::collections::BTreeSet;
use striate_graph::Array;
use striate_io::fit_names;
use striate_nn::StateDict;

/// Most ways of how names may begin that are tried.
const MOST_PREFIXES: usize = 64;
/// So many arrays of a list are named.
const NAMED: usize = 3;

/// What a detector took out of a file.
#[derive(Clone, Debug, Default)]
pub struct DetectorWeights {
    /// Names of the detector's arrays whose values came from the file.
    pub taken: BTreeSet<String>,
    /// What was done, a sentence each.
    pub notes: Vec<String>,
}

/// Mean and deviation of each channel that weights were trained with, of values from 0 to 1, and who says so.
pub struct SeenColors {
    /// By channel.
    pub mean: Vec<f32>,
    /// By channel, above 0.
    pub std: Vec<f32>,
    /// In words.
    pub said: String,
}

/// The first names of a list, and that there are more.
fn some_of(names: &[&str]) -> String {
    let more = if names.len() > NAMED { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(NAMED)].join(", "))
}

/// Where the arrays of a backbone stand in a classifier's file: the net's name and the file's.
struct BackboneNames(Vec<(String, String)>);

impl BackboneNames {
    /// Those that are there with the right shape.
    fn find(net: &dyn DetectionNet, own: &StateDict, file: &StateDict) -> BackboneNames {
        let wanted: Vec<(&str, &Array, String)> =
            own.iter().filter_map(|(name, array)| Some((name, array, net.name_in_classifier(name)?))).collect();
        let Some((_, _, first)) = wanted.first() else { return BackboneNames(Vec::new()) };
        let whole = |prefix: &&str| prefix.is_empty() || prefix.ends_with('.');
        let mut prefixes: Vec<&str> =
            file.keys().filter_map(|key| key.strip_suffix(first.as_str())).filter(whole).collect();
        prefixes.sort_by_key(|prefix| (prefix.len(), *prefix));
        prefixes.truncate(MOST_PREFIXES);
        let below = |prefix: &str| -> Vec<(String, String)> {
            let found = wanted.iter().filter_map(|(name, array, rest)| {
                let key = format!("{prefix}{rest}");
                (file.get(&key)?.shape() == array.shape()).then(|| ((*name).to_owned(), key))
            });
            found.collect()
        };
        // Of as many hits the shortest prefix.
        let best = prefixes.into_iter().map(below).rev().max_by_key(Vec::len);
        BackboneNames(best.unwrap_or_default())
    }
}

impl Pretrained {
    /// Loads the values into a detector with fresh ones. Of the same detector all is taken but what depends on the classes, where there
    /// are others; of a classifier, or of another detector on the same backbone, what its backbone has under the same names and with
    /// the same shapes.
    ///
    /// # Errors
    /// Weights of another net: other shapes, or less than half of the values that are looked for.
    pub fn load_into_detector(
        &self,
        (net, spec): (&dyn DetectionNet, &DetectorSpec),
        classes: &[String],
    ) -> Result<DetectorWeights, ModelError> {
        if let Some(names) = self.backbone_names(net, spec)? {
            return self.load_backbone(net, &names);
        }
        let by_classes = spec.class_arrays()?;
        let (dict, notes) = fit_names(modern_names(self.arrays.clone(), net), net);
        let (taken, notes) =
            self.load_behind(net, (dict, notes), &|name| by_classes.iter().any(|array| array == name), classes)?;
        Ok(DetectorWeights { taken: taken.keys().map(str::to_owned).collect(), notes: self.named(notes) })
    }

    /// Where the file has the detector's backbone, if it is not of the detector itself.
    fn backbone_names(&self, net: &dyn DetectionNet, spec: &DetectorSpec) -> Result<Option<BackboneNames>, ModelError> {
        if self.info.as_ref().is_some_and(|info| info.model == spec.name) {
            return Ok(None);
        }
        let (own, by_classes) = (net.state_dict(), spec.class_arrays()?);
        let (whole, _) = fit_names(modern_names(self.arrays.clone(), net), net);
        let hits = own.keys().filter(|name| whole.contains(name)).count();
        // The same names, but not the same net: another detector on the same backbone.
        let clashes = own.iter().any(|(name, array)| {
            whole.get(name).is_some_and(|other| other.shape() != array.shape())
                && !by_classes.iter().any(|by_class| by_class == name)
        });
        let wanted = own.keys().filter(|name| net.name_in_classifier(name).is_some()).count();
        let names = BackboneNames::find(net, &own, &self.classifier_arrays());
        let found = names.0.len();
        Ok((found > hits || (clashes && found > 0 && found == wanted)).then_some(names))
    }

    /// The file's arrays under the names that classifiers have today.
    fn classifier_arrays(&self) -> StateDict {
        registry::modern_names(self.arrays.clone())
    }

    fn load_backbone(&self, net: &dyn DetectionNet, names: &BackboneNames) -> Result<DetectorWeights, ModelError> {
        let (own, arrays) = (net.state_dict(), self.classifier_arrays());
        let of_backbone = own.iter().filter(|(name, _)| net.name_in_classifier(name).is_some());
        let all: usize = of_backbone.map(|(_, array)| array.numel()).sum();
        let found: usize = names.0.iter().map(|(name, _)| own[name].numel()).sum();
        if (found as f64) < LEAST_PART * all as f64 {
            return Err(self.refused(format!(
                "it has {found} of the {all} values of the detector's backbone, by name and shape; is it of the right net?"
            )));
        }
        let fitting: StateDict = names.0.iter().map(|(name, key)| (name.clone(), arrays[key].clone())).collect();
        let fresh = self.load(net, &fitting)?;
        let taken: BTreeSet<&str> = names.0.iter().map(|(_, key)| key.as_str()).collect();
        let left: Vec<&str> = arrays.keys().filter(|key| !taken.contains(key)).collect();
        let left_out = if left.is_empty() { String::new() } else { format!(" ({})", some_of(&left)) };
        let fresh: Vec<&str> = fresh.iter().map(String::as_str).collect();
        let note = format!(
            "took {} of {} arrays for the backbone, left out {}{left_out}; {} arrays of the detector start fresh ({})",
            taken.len(),
            arrays.len(),
            left.len(),
            fresh.len(),
            some_of(&fresh)
        );
        let notes = self.named([self.notes.clone(), vec![note]].concat());
        Ok(DetectorWeights { taken: fitting.keys().map(str::to_owned).collect(), notes })
    }

    /// Mean and deviation of the pictures that the weights were trained on.
    ///
    /// # Errors
    /// None that the detector's name does not give.
    pub fn seen_colors(&self, spec: &DetectorSpec) -> Result<SeenColors, ModelError> {
        let net = spec.structure(spec.classes, None)?;
        let transform = net.transform();
        // Those of a net for grey pictures mean nothing to one for coloured ones.
        let preprocess = self.info.as_ref().map(|info| &info.preprocess);
        if let Some(preprocess) = preprocess.filter(|seen| seen.mean.len() == transform.mean.len()) {
            let (mean, std) = (preprocess.mean.clone(), preprocess.std.clone());
            return Ok(SeenColors { mean, std, said: "the weights file says".to_owned() });
        }
        // The longest: `resnet18` and a `wide_resnet18` would both be in a name.
        let classifier = models().filter(|model| spec.name.contains(model.name)).max_by_key(|model| model.name.len());
        let preset = classifier.and_then(|model| find_preset(model.name, Some(&self.path)));
        if let (Some((preset, reason)), Some(_)) = (preset, self.backbone_names(&*net, spec)?) {
            let why = match reason {
                PresetReason::FileName => "named by the file",
                PresetReason::Default => "the net's default, as no file says",
            };
            let colors = preset.preprocess();
            let said = format!("for torchvision's {} {} ({why})", preset.model, preset.weights);
            return Ok(SeenColors { mean: colors.mean, std: colors.std, said });
        }
        let said = format!("usual for {}, as no file says", spec.name);
        Ok(SeenColors { mean: transform.mean.to_vec(), std: transform.std.to_vec(), said })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::detection::find_detector;
    use crate::models::find_model;
    use std::path::{Path, PathBuf};

    fn file(folder: &Path, dict: StateDict, prefix: &str) -> PathBuf {
        let path = folder.join("weights.safetensors");
        let named = dict.into_iter().map(|(name, array)| (format!("{prefix}{name}"), array));
        let named: std::collections::BTreeMap<_, _> = named.collect();
        striate_io::write_safetensors(&path, named, &Default::default()).unwrap();
        path
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|index| index.to_string()).collect()
    }

    /// Loads a classifier's weights into a detector: the detector's arrays and the classifier's, and what was done.
    fn from_classifier(detector: &str, classifier: &str, prefix: &str) -> (StateDict, StateDict, DetectorWeights) {
        let folder = tempfile::tempdir().unwrap();
        let model = find_model(classifier).unwrap();
        let dict = model.build([3, 64, 64], 10, 3).unwrap().state_dict();
        let pretrained = Pretrained::read(&file(folder.path(), dict.clone(), prefix)).unwrap();
        let spec = find_detector(detector).unwrap();
        let net = spec.build(spec.labels(2), 0).unwrap();
        let loaded = pretrained.load_into_detector((&*net, spec), &names(2)).unwrap();
        (net.state_dict(), dict, loaded)
    }

    #[test]
    fn a_classifier_becomes_the_backbone_of_every_family() {
        for (detector, classifier, pairs) in [
            (
                "retinanet_resnet50_fpn",
                "resnet50",
                &[
                    ("backbone.body.layer4.2.conv3.weight", "layer4.2.conv3.weight"),
                    ("backbone.body.bn1.running_var", "bn1.running_var"),
                ][..],
            ),
            (
                "fasterrcnn_mobilenet_v3_large_320_fpn",
                "mobilenet_v3_large",
                &[
                    ("backbone.body.13.block.2.fc1.bias", "features.13.block.2.fc1.bias"),
                    ("backbone.body.16.0.weight", "features.16.0.weight"),
                ],
            ),
            (
                "ssdlite320_mobilenet_v3_large",
                "mobilenet_v3_large",
                &[
                    ("backbone.features.0.13.0.weight", "features.13.block.0.0.weight"),
                    ("backbone.features.1.0.2.fc1.weight", "features.13.block.2.fc1.weight"),
                ],
            ),
        ] {
            let (own, theirs, loaded) = from_classifier(detector, classifier, "module.");
            for (name, key) in pairs {
                assert!(own[name].bits_eq(&theirs[key]) && loaded.taken.contains(*name), "{detector}: {name}");
            }
            let note = loaded.notes.last().unwrap();
            let counts = format!("took {} of {} arrays for the backbone, left out ", loaded.taken.len(), theirs.len());
            assert!(note.contains(&counts) && note.contains("start fresh"), "{note}");
        }
    }

    #[test]
    fn another_detector_on_the_same_backbone_gives_it() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = find_detector("fasterrcnn_resnet18_fpn").unwrap().build(3, 3).unwrap().state_dict();
        let pretrained = Pretrained::read(&file(folder.path(), theirs.clone(), "")).unwrap();
        let spec = find_detector("retinanet_resnet18_fpn").unwrap();
        let net = spec.build(spec.labels(2), 0).unwrap();
        let loaded = pretrained.load_into_detector((&*net, spec), &names(2)).unwrap();
        let name = "backbone.body.layer4.1.conv2.weight";
        assert!(net.state_dict()[name].bits_eq(&theirs[name]) && loaded.taken.contains(name));
        assert!(!loaded.taken.iter().any(|name| name.starts_with("head.")), "{:?}", loaded.notes);
    }

    #[test]
    fn old_names_of_a_classifier_are_a_backbone_too() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = find_model("densenet121").unwrap().build([3, 64, 64], 10, 3).unwrap().state_dict();
        let old = |name: &str| match name.contains(".denselayer") {
            true => name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."),
            false => name.to_owned(),
        };
        let renamed = theirs.iter().map(|(name, array)| (old(name), array.clone())).collect();
        let pretrained = Pretrained::read(&file(folder.path(), renamed, "")).unwrap();
        let spec = find_detector("retinanet_densenet121_fpn").unwrap();
        let net = spec.build(spec.labels(2), 0).unwrap();
        pretrained.load_into_detector((&*net, spec), &names(2)).unwrap();
        let place = "features.denseblock3.denselayer7.norm1.running_var";
        assert!(net.state_dict()[&*format!("backbone.body.{place}")].bits_eq(&theirs[place]));
    }

    #[test]
    fn what_torchvision_cuts_out_of_vgg_comes_to_its_place() {
        let spec = find_detector("ssd300_vgg16").unwrap();
        let net = spec.structure(spec.classes, None).unwrap();
        let place = |name: &str| net.name_in_classifier(name);
        assert_eq!(place("backbone.features.21.weight").as_deref(), Some("21.weight"));
        // The pool before it is number 23 in VGG and the first here.
        assert_eq!(place("backbone.extra.0.5.bias").as_deref(), Some("28.bias"));
        assert_eq!(place("backbone.extra.0.7.1.weight"), None);
        assert_eq!(place("backbone.scale_weight"), None);
        assert_eq!(place("head.regression_head.module_list.0.weight"), None);
    }

    #[test]
    fn of_the_same_detector_all_is_taken_but_the_classes() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["striate_det_n", "ssdlite320_mobilenet_v3_large"] {
            let spec = find_detector(name).unwrap();
            let theirs = spec.build(spec.labels(5), 3).unwrap().state_dict();
            let pretrained = Pretrained::read(&file(folder.path(), theirs.clone(), "")).unwrap();
            let net = spec.build(spec.labels(2), 0).unwrap();
            let fresh = net.state_dict();
            let loaded = pretrained.load_into_detector((&*net, spec), &names(2)).unwrap();
            let by_classes = spec.class_arrays().unwrap();
            assert!(!by_classes.is_empty());
            for (key, array) in net.state_dict().iter() {
                let replaced = by_classes.iter().any(|name| name == key);
                assert_eq!(loaded.taken.contains(key), !replaced, "{key}");
                assert!(array.bits_eq(if replaced { &fresh[key] } else { &theirs[key] }), "{name}: {key}");
            }
            let notes = loaded.notes.join("\n");
            assert!(notes.contains(&format!("replaced and initialised: {}", by_classes[0])), "{notes}");
        }
    }

    #[test]
    fn weights_of_another_net_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let spec = find_detector("striate_det_s").unwrap();
        let net = spec.structure(2, None).unwrap();
        let refuse = |dict: StateDict| {
            let pretrained = Pretrained::read(&file(folder.path(), dict, "")).unwrap();
            pretrained.load_into_detector((&*net, spec), &names(2)).unwrap_err().to_string()
        };
        let other = refuse(find_detector("striate_det_n").unwrap().build(2, 0).unwrap().state_dict());
        assert!(other.contains("another net") && other.contains("more"), "{other}");
        let classifier = refuse(find_model("small").unwrap().build([3, 28, 28], 10, 0).unwrap().state_dict());
        assert!(classifier.contains("is it the right model"), "{classifier}");
    }
}
