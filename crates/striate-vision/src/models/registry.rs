//! The nets by name: what each is, how it is built, loaded and fed.

use super::detection::find_detector;
use super::parts::Net;
use super::{
    ModelError, alexnet, convnext, densenet, efficientnet, find_preset, googlenet, inception, lenet, mnasnet, mobilenet,
};
use super::{regnet, resnet, segmentation, shufflenet, small, squeezenet, start, vgg};
use crate::transforms::Preprocess;
use start::Start;
use striate_graph::Mode;
use striate_nn::init::{self, Init};
use striate_nn::{LoadReport, Module, StateDict, assign_names};

/// What a net says about a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// One class: `[N, classes]`.
    #[default]
    Classify,
    /// Any number of classes: `[N, classes]`, each by itself.
    Multilabel,
    /// Numbers: `[N, numbers]`.
    Regress,
    /// A class for each pixel: `[N, classes, H, W]`.
    Segment,
    /// Boxes of things, each of a class: what a [`DetectionNet`](super::detection::DetectionNet) makes of its heads.
    Detect,
}

impl Task {
    /// All names.
    pub const NAMES: [&str; 5] = ["classify", "multilabel", "regress", "segment", "detect"];
    const ALL: [Task; 5] = [Task::Classify, Task::Multilabel, Task::Regress, Task::Segment, Task::Detect];
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(Self::NAMES[*self as usize])
    }
}

impl std::str::FromStr for Task {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|task| task.to_string() == text).ok_or_else(|| {
            let near = striate_graph::nearest(text, Self::NAMES.into_iter());
            let hint = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
            format!("`{text}` is none of {}{hint}", Self::NAMES.join(", "))
        })
    }
}

/// How a net is made for pictures `[C, H, W]` and so many classes.
enum Construct {
    /// As a row of layers, of which others may take a part.
    Row(fn([usize; 3], usize) -> Net),
    /// As anything else.
    Other(fn([usize; 3], usize) -> Box<dyn Module>),
}

/// One net of the registry.
pub struct ModelSpec {
    /// Its name, torchvision's where torchvision has it.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// `[C, H, W]` unless others are asked for.
    pub input: [usize; 3],
    /// Classes unless others are asked for.
    pub classes: usize,
    /// What its output is.
    pub task: Task,
    /// How the names begin of parameters that only training uses; files may lack them.
    pub auxiliary: &'static [&'static str],
    construct: Construct,
    start: Start,
}

/// Nets of one kind.
pub struct Family {
    /// What they are called together.
    pub name: &'static str,
    /// The nets.
    pub models: &'static [ModelSpec],
}

static FAMILIES: [Family; 17] = [
    Family { name: "small", models: small::MODELS },
    Family { name: "LeNet", models: lenet::MODELS },
    Family { name: "ResNet for 32x32", models: resnet::CIFAR },
    Family { name: "ResNet", models: resnet::MODELS },
    Family { name: "VGG", models: vgg::MODELS },
    Family { name: "MobileNet", models: mobilenet::MODELS },
    Family { name: "EfficientNet", models: efficientnet::MODELS },
    Family { name: "ConvNeXt", models: convnext::MODELS },
    Family { name: "RegNet", models: regnet::MODELS },
    Family { name: "DenseNet", models: densenet::MODELS },
    Family { name: "ShuffleNet", models: shufflenet::MODELS },
    Family { name: "MNASNet", models: mnasnet::MODELS },
    Family { name: "SqueezeNet", models: squeezenet::MODELS },
    Family { name: "GoogLeNet", models: googlenet::MODELS },
    Family { name: "Inception", models: inception::MODELS },
    Family { name: "AlexNet", models: alexnet::MODELS },
    Family { name: "segmentation", models: segmentation::MODELS },
];

/// All nets by family, the one for small pictures first.
pub fn families() -> &'static [Family] {
    &FAMILIES
}

/// All nets, the one for small pictures first.
pub fn models() -> impl Iterator<Item = &'static ModelSpec> {
    FAMILIES.iter().flat_map(|family| family.models)
}

/// The net of a name.
///
/// # Errors
/// [`ModelError::UnknownModel`], with the nearest name.
pub fn find_model(name: &str) -> Result<&'static ModelSpec, ModelError> {
    models().find(|spec| spec.name == name).ok_or_else(|| {
        let nearest = || striate_graph::nearest(name, models().map(|spec| spec.name));
        let hint = match find_detector(name) {
            Ok(_) => "; it is a detector, which this verb does not take".to_owned(),
            Err(error @ ModelError::Backbone { .. }) => return error,
            Err(_) => nearest().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default(),
        };
        ModelError::UnknownModel { name: name.to_owned(), hint }
    })
}

impl std::fmt::Debug for ModelSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ModelSpec({} {:?} {})", self.name, self.input, self.classes)
    }
}

/// How the families write their tables.
impl ModelSpec {
    /// A classifier of ImageNet's 1000 classes at 224 pixels.
    pub(super) const fn new(
        name: &'static str,
        summary: &'static str,
        start: Start,
        construct: fn([usize; 3], usize) -> Net,
    ) -> ModelSpec {
        ModelSpec::with(name, summary, start, Construct::Row(construct))
    }

    /// As [`ModelSpec::new`] of a net that is no row of layers.
    pub(super) const fn other(
        name: &'static str,
        summary: &'static str,
        start: Start,
        construct: fn([usize; 3], usize) -> Box<dyn Module>,
    ) -> ModelSpec {
        ModelSpec::with(name, summary, start, Construct::Other(construct))
    }

    const fn with(name: &'static str, summary: &'static str, start: Start, construct: Construct) -> ModelSpec {
        let (input, task) = ([3, 224, 224], Task::Classify);
        ModelSpec { name, summary, input, classes: 1000, task, auxiliary: &[], construct, start }
    }

    /// For other pictures and classes.
    pub(super) const fn small(self, input: [usize; 3], classes: usize) -> ModelSpec {
        ModelSpec { input, classes, ..self }
    }

    /// At another side.
    pub(super) const fn side(self, side: usize) -> ModelSpec {
        ModelSpec { input: [3, side, side], ..self }
    }

    /// With heads that only training uses, by the beginning of their names.
    pub(super) const fn aux(self, auxiliary: &'static [&'static str]) -> ModelSpec {
        ModelSpec { auxiliary, ..self }
    }

    /// Segments into Pascal VOC's 21 classes at 520 pixels.
    pub(super) const fn segments(self) -> ModelSpec {
        ModelSpec { input: [3, 520, 520], classes: 21, task: Task::Segment, ..self }
    }
}

impl ModelSpec {
    /// The net for pictures `[C, H, W]`, named, with initial values that are a function of (seed, parameter path).
    ///
    /// # Errors
    /// [`ModelError::Input`] where the net cannot take such pictures.
    pub fn build(&self, input: [usize; 3], classes: usize, seed: u64) -> Result<Box<dyn Module>, ModelError> {
        let net = self.structure(input, classes)?;
        init::reset_parameters(&*net, seed);
        start::set(&*net, self.start, seed);
        Ok(net)
    }

    /// The net as [`ModelSpec::build`] makes it, but without its initial values: to look at, or to load weights into. Costs
    /// neither the time nor the memory of the values.
    ///
    /// # Errors
    /// [`ModelError::Input`] where the net cannot take such pictures.
    pub fn structure(&self, input: [usize; 3], classes: usize) -> Result<Box<dyn Module>, ModelError> {
        let [channels, height, width] = input;
        let refuse = |why: String| ModelError::Input { name: self.name.into(), channels, height, width, classes, why };
        if classes == 0 || input.contains(&0) {
            return Err(refuse("none of these may be 0".into()));
        }
        let net = self.bare(input, classes);
        // One picture in evaluation mode: whatever refuses the size does so there.
        net.graph(Mode::Eval, &[1, channels, height, width]).map_err(|error| refuse(error.to_string()))?;
        Ok(net)
    }

    /// As [`ModelSpec::structure`], without looking whether the pictures fit.
    pub(super) fn bare(&self, input: [usize; 3], classes: usize) -> Box<dyn Module> {
        let net = init::without_values(|| -> Box<dyn Module> {
            match self.construct {
                Construct::Row(construct) => Box::new(construct(input, classes)),
                Construct::Other(construct) => construct(input, classes),
            }
        });
        assign_names(&*net);
        net
    }

    /// The net as a row of layers for pictures of three channels, without names and initial values, where it is one.
    pub(super) fn row(&self) -> Option<Net> {
        match self.construct {
            Construct::Row(construct) => Some(init::without_values(|| construct(self.input, self.classes))),
            Construct::Other(_) => None,
        }
    }

    /// How a parameter starts, by its path and its number of axes.
    pub(super) fn initial(&self, path: &str, rank: usize) -> Option<Init> {
        (self.start)(path, rank)
    }

    /// Loads a whole state dict as torchvision's net of this name does. Heads that only training uses may be absent; they keep
    /// their values. DenseNets' old names (`norm.1` for `norm1`) are understood.
    ///
    /// # Errors
    /// Everything that does not fit; then nothing has been loaded.
    pub fn load(&self, net: &dyn Module, dict: StateDict) -> striate_nn::Result<LoadReport> {
        let mut dict = modern_names(dict);
        let heads = self.auxiliary.iter().filter(|head| !dict.keys().any(|key| key.starts_with(**head)));
        let absent: Vec<&str> = heads.copied().collect();
        if !absent.is_empty() {
            let own = net.state_dict().into_iter();
            own.filter(|(name, _)| absent.iter().any(|head| name.starts_with(head)))
                .for_each(|(name, array)| dict.insert(name, array));
        }
        net.load_state_dict(&dict, true)
    }

    /// What pictures go through before this net where nothing better is known: that of torchvision's default weights for its
    /// nets, brought to the size of the input; else resized to the input with values from 0 to 1.
    pub fn preprocess(&self, [channels, height, width]: [usize; 3]) -> Preprocess {
        match find_preset(self.name, None) {
            Some((preset, _)) if channels == 3 => preset.preprocess_at([height, width]),
            _ => Preprocess::exact(height, width, channels),
        }
    }
}

/// DenseNet files from before 2017 name their layers `denselayer1.norm.1`.
pub(super) fn modern_names(dict: StateDict) -> StateDict {
    let modern = |name: String| match name.split_once(".denselayer") {
        Some((block, rest)) => {
            let joined = ["norm.1", "norm.2", "relu.1", "relu.2", "conv.1", "conv.2"]
                .iter()
                .fold(rest.to_owned(), |rest, old| {
                    rest.replace(&format!(".{old}."), &format!(".{}.", old.replace('.', "")))
                });
            format!("{block}.denselayer{joined}")
        }
        None => name,
    };
    dict.into_iter().map(|(name, array)| (modern(name), array)).collect()
}
