//! Nets by name, and the files that hold a trained one.
//!
//! ```
//! use striate_vision::models::find_model;
//! let lenet = find_model("lenet")?.build([1, 28, 28], 10, 0)?;
//! assert_eq!(lenet.state_dict()["conv1.weight"].shape().dims(), &[32, 1, 3, 3]);
//! assert!(find_model("resnet81").unwrap_err().to_string().contains("resnet18"));
//! # Ok::<(), striate_vision::models::ModelError>(())
//! ```

mod file;
mod imagenet;
mod lenet;
mod mobilenet;
mod presets;
mod pretrained;
mod resnet;
mod small;
mod vgg;

pub use file::{LoadedModel, ModelInfo, load_model, save_model};
pub use imagenet::{IMAGENET_CLASSES_LICENSE, imagenet_classes};
pub use lenet::LeNet;
pub use mobilenet::{InvertedResidual, MobileNetV2};
pub use presets::{PresetReason, WeightsPreset, find_preset, weights_presets};
pub use pretrained::Pretrained;
pub use resnet::{BasicBlock, Bottleneck, ResNet, ResNetSpec};
pub use small::SmallNet;
pub use vgg::Vgg;

use crate::transforms::Preprocess;
use std::path::PathBuf;
use striate_graph::Mode;
use striate_nn::init::{FanMode, Init, Nonlinearity};
use striate_nn::{Draw, Module, assign_names, init};

/// What can be wrong with a model or its file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No net of that name.
    #[error("there is no model `{name}`{hint}. `striate models` lists them all: {}", names.join(", "))]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// What may have been meant.
        hint: String,
        /// The names there are.
        names: Vec<&'static str>,
    },
    /// The net cannot take such pictures.
    #[error(
        "the model `{name}` cannot take pictures of {height}x{width} with {channels} channels and {classes} classes: {why}"
    )]
    Input {
        /// The net.
        name: String,
        /// Channels.
        channels: usize,
        /// Height.
        height: usize,
        /// Width.
        width: usize,
        /// Classes.
        classes: usize,
        /// What the first layer that refuses says.
        why: String,
    },
    /// A file of weights does not belong to the net.
    #[error("{}: {source}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: Box<striate_nn::Error>,
    },
    /// The file lacks what a model file of ours has.
    #[error("{}: {why}", path.display())]
    NotAModel {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] striate_io::Error),
}

/// How a net's weights start.
#[derive(Clone, Copy)]
enum Start {
    /// As the layers do (PyTorch's defaults).
    Layers,
    /// torchvision's: convolutions normal by fan out (He et al. 2015), linear layers as the layers do.
    He,
    /// He for convolutions with zero biases, linear layers normal with deviation 0.01 and zero biases.
    HeAndSmallLinear,
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
    construct: fn([usize; 3], usize) -> Box<dyn Module>,
    start: Start,
}

impl std::fmt::Debug for ModelSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ModelSpec({} {:?} {})", self.name, self.input, self.classes)
    }
}

macro_rules! resnet {
    ($blocks:expr, $bottleneck:expr, $small_stem:expr) => {
        |[channels, ..], classes| {
            let spec = ResNetSpec { blocks: $blocks, bottleneck: $bottleneck, small_stem: $small_stem };
            Box::new(ResNet::new(spec, channels, classes))
        }
    };
}

macro_rules! vgg {
    ($stages:expr, $norm:expr) => {
        |[channels, ..], classes| Box::new(Vgg::new($stages, $norm, channels, classes))
    };
}

const IMAGENET: [usize; 3] = [3, 224, 224];

macro_rules! spec {
    ($name:literal, $summary:literal, $input:expr, $classes:expr, $start:ident, $construct:expr) => {
        ModelSpec {
            name: $name,
            summary: $summary,
            input: $input,
            classes: $classes,
            construct: $construct,
            start: Start::$start,
        }
    };
}

static MODELS: [ModelSpec; 17] = [
    spec!(
        "small",
        "six 3x3 convolutions with batch norm, for small pictures",
        [1, 28, 28],
        10,
        He,
        |input, classes| { Box::new(SmallNet::new(input, classes)) }
    ),
    spec!("lenet", "two convolutions and two linear layers", [1, 28, 28], 10, Layers, |input, classes| Box::new(
        LeNet::new(input, classes)
    )),
    spec!(
        "resnet18_cifar",
        "ResNet-18 with a 3x3 stem, for 32x32",
        [3, 32, 32],
        10,
        He,
        resnet!([2, 2, 2, 2], false, true)
    ),
    spec!("resnet18", "residual net of 18 layers", IMAGENET, 1000, He, resnet!([2, 2, 2, 2], false, false)),
    spec!("resnet34", "residual net of 34 layers", IMAGENET, 1000, He, resnet!([3, 4, 6, 3], false, false)),
    spec!("resnet50", "residual net of 50 layers", IMAGENET, 1000, He, resnet!([3, 4, 6, 3], true, false)),
    spec!("resnet101", "residual net of 101 layers", IMAGENET, 1000, He, resnet!([3, 4, 23, 3], true, false)),
    spec!("resnet152", "residual net of 152 layers", IMAGENET, 1000, He, resnet!([3, 8, 36, 3], true, false)),
    spec!("vgg11", "8 convolutions, 3 linear layers", IMAGENET, 1000, HeAndSmallLinear, vgg!([1, 1, 2, 2, 2], false)),
    spec!("vgg13", "10 convolutions, 3 linear layers", IMAGENET, 1000, HeAndSmallLinear, vgg!([2, 2, 2, 2, 2], false)),
    spec!("vgg16", "13 convolutions, 3 linear layers", IMAGENET, 1000, HeAndSmallLinear, vgg!([2, 2, 3, 3, 3], false)),
    spec!("vgg19", "16 convolutions, 3 linear layers", IMAGENET, 1000, HeAndSmallLinear, vgg!([2, 2, 4, 4, 4], false)),
    spec!("vgg11_bn", "vgg11 with batch norm", IMAGENET, 1000, HeAndSmallLinear, vgg!([1, 1, 2, 2, 2], true)),
    spec!("vgg13_bn", "vgg13 with batch norm", IMAGENET, 1000, HeAndSmallLinear, vgg!([2, 2, 2, 2, 2], true)),
    spec!("vgg16_bn", "vgg16 with batch norm", IMAGENET, 1000, HeAndSmallLinear, vgg!([2, 2, 3, 3, 3], true)),
    spec!("vgg19_bn", "vgg19 with batch norm", IMAGENET, 1000, HeAndSmallLinear, vgg!([2, 2, 4, 4, 4], true)),
    spec!(
        "mobilenet_v2",
        "inverted residuals, depthwise",
        IMAGENET,
        1000,
        HeAndSmallLinear,
        |[channels, ..], classes| { Box::new(MobileNetV2::new(channels, classes)) }
    ),
];

/// All nets, the one for small pictures first.
pub fn models() -> &'static [ModelSpec] {
    &MODELS
}

/// The net of a name.
///
/// # Errors
/// [`ModelError::UnknownModel`], with the nearest name.
pub fn find_model(name: &str) -> Result<&'static ModelSpec, ModelError> {
    MODELS.iter().find(|spec| spec.name == name).ok_or_else(|| {
        let nearest = striate_graph::nearest(name, MODELS.iter().map(|spec| spec.name));
        ModelError::UnknownModel {
            name: name.to_owned(),
            hint: nearest.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default(),
            names: MODELS.iter().map(|spec| spec.name).collect(),
        }
    })
}

impl ModelSpec {
    /// The net for pictures `[C, H, W]`, named, with initial values that are a function of (seed, parameter path).
    ///
    /// # Errors
    /// [`ModelError::Input`] where the net cannot take such pictures.
    pub fn build(&self, input: [usize; 3], classes: usize, seed: u64) -> Result<Box<dyn Module>, ModelError> {
        let net = self.structure(input, classes)?;
        init::reset_parameters(&*net, seed);
        self.start_values(&*net, seed);
        Ok(net)
    }

    /// The net as [`ModelSpec::build`] makes it, but without its initial values: to look at, or to load weights into.
    ///
    /// # Errors
    /// [`ModelError::Input`] where the net cannot take such pictures.
    pub fn structure(&self, input: [usize; 3], classes: usize) -> Result<Box<dyn Module>, ModelError> {
        let [channels, height, width] = input;
        let refuse = |why: String| ModelError::Input { name: self.name.into(), channels, height, width, classes, why };
        if classes == 0 || input.contains(&0) {
            return Err(refuse("none of these may be 0".into()));
        }
        let net = (self.construct)(input, classes);
        assign_names(&*net);
        net.graph(Mode::Eval, &[1, channels, height, width]).map_err(|error| refuse(error.to_string()))?;
        Ok(net)
    }

    /// What pictures go through before this net where nothing better is known: that of torchvision's default weights for its
    /// nets, brought to the size of the input; else resized to the input with values from 0 to 1.
    pub fn preprocess(&self, [channels, height, width]: [usize; 3]) -> Preprocess {
        match find_preset(self.name, None) {
            Some((preset, _)) if channels == 3 => preset.preprocess_at([height, width]),
            _ => Preprocess::exact(height, width, channels),
        }
    }

    fn start_values(&self, net: &dyn Module, seed: u64) {
        let he = Init::KaimingNormal { mode: FanMode::FanOut, nonlinearity: Nonlinearity::Relu };
        let zero_biases = matches!(self.start, Start::HeAndSmallLinear);
        for (path, cell) in net.named_parameters() {
            let (layer, name) = path.rsplit_once('.').unwrap_or(("", &path));
            let chosen = match (self.start, cell.shape().rank()) {
                (Start::Layers, _) => None,
                (_, 4) => Some(he),
                (Start::HeAndSmallLinear, 2) => Some(Init::Normal { mean: 0.0, std: 0.01 }),
                (_, 1) if zero_biases && name == "bias" => Some(Init::Constant(0.0)),
                _ => None,
            };
            if let Some(init) = chosen {
                // The ranks are those that the initialisers take.
                let _ = init.set(&cell, &Draw::at(seed, layer), name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number of parameters, as torchvision documents them.
    const KNOWN: [(&str, usize); 13] = [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("vgg11", 132_863_336),
        ("vgg13", 133_047_848),
        ("vgg16", 138_357_544),
        ("vgg19", 143_667_240),
        ("vgg11_bn", 132_868_840),
        ("vgg16_bn", 138_365_992),
        ("vgg19_bn", 143_678_248),
        ("mobilenet_v2", 3_504_872),
    ];

    #[test]
    fn sizes_are_torchvisions() {
        for (name, parameters) in KNOWN {
            let spec = find_model(name).unwrap();
            // Only constructed: tracing needs no initial values, and those of the large nets take long.
            assert_eq!((spec.construct)(spec.input, spec.classes).num_parameters(), parameters, "{name}");
        }
    }

    #[test]
    fn names_are_torchvisions() {
        let has = |model: &str, names: &[&str]| {
            let spec = find_model(model).unwrap();
            let dict = (spec.construct)(spec.input, spec.classes).state_dict();
            names.iter().for_each(|name| assert!(dict.contains(name), "{model}: {name}"));
        };
        has(
            "resnet18",
            &["conv1.weight", "bn1.running_mean", "layer2.0.downsample.1.weight", "layer4.1.bn2.bias", "fc.bias"],
        );
        has("resnet50", &["layer1.0.downsample.0.weight", "layer3.5.conv3.weight"]);
        has("vgg16", &["features.28.weight", "classifier.6.bias"]);
        has("vgg11_bn", &["features.1.num_batches_tracked", "features.25.weight"]);
        has(
            "mobilenet_v2",
            &[
                "features.0.0.weight",
                "features.1.conv.1.weight",
                "features.2.conv.3.running_var",
                "features.18.1.weight",
                "classifier.1.weight",
            ],
        );
        has("lenet", &["conv1.weight", "conv2.bias", "fc1.weight", "fc2.bias"]);
    }

    #[test]
    fn any_channels_and_classes_and_the_seed_decides() {
        for name in ["small", "lenet", "resnet18_cifar", "mobilenet_v2"] {
            let spec = find_model(name).unwrap();
            let build = |seed| spec.build([2, 32, 40], 7, seed).unwrap().state_dict();
            let (a, b, c) = (build(0), build(0), build(1));
            assert!(a.iter().all(|(key, array)| array.bits_eq(&b[key])), "{name}");
            assert!(a.iter().any(|(key, array)| !array.bits_eq(&c[key])), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let error = find_model("reznet18").unwrap_err().to_string();
        assert!(error.contains("did you mean `resnet18`?"), "{error}");
        let error = find_model("lenet").unwrap().build([1, 3, 3], 10, 0).err().unwrap().to_string();
        assert!(error.contains("3x3"), "{error}");
        assert!(find_model("small").unwrap().build([1, 28, 28], 0, 0).is_err());
    }
}
