//! Nets by name, and the files that hold a trained one.
//!
//! ```
//! use striate_vision::models::find_model;
//! let lenet = find_model("lenet")?.build([1, 28, 28], 10, 0)?;
//! assert_eq!(lenet.state_dict()["conv1.weight"].shape().dims(), &[32, 1, 3, 3]);
//! assert!(find_model("reznet18").unwrap_err().to_string().contains("`resnet18`"));
//! # Ok::<(), striate_vision::models::ModelError>(())
//! ```

mod alexnet;
mod convnext;
mod densenet;
pub mod detection;
mod efficientnet;
mod file;
mod googlenet;
mod imagenet;
mod imported;
mod inception;
mod lenet;
mod mnasnet;
mod mobilenet;
mod net;
mod parts;
mod presets;
mod pretrained;
mod registry;
mod regnet;
mod resnet;
mod segmentation;
mod shufflenet;
mod small;
mod squeezenet;
mod start;
mod vgg;

pub use file::{LoadedModel, ModelInfo, TargetScale, build_model, load_model, save_model};
pub use imagenet::{IMAGENET_CLASSES_LICENSE, imagenet_classes};
pub use imported::{BuiltNet, build_net, imported_preprocess, is_imported, open_imported};
pub use lenet::LeNet;
pub use mobilenet::mobilenet_v2;
pub use net::TaskNet;
pub use parts::Net;
pub use presets::{PresetReason, WeightsPreset, find_preset, weights_presets};
pub use pretrained::{DetectorWeights, Pretrained, SeenColors};
pub use registry::{Family, ModelSpec, Task, families, find_model, models};
pub use small::SmallNet;
pub use striate_io::onnx::OnnxNet;

use std::path::PathBuf;

/// What can be wrong with a model or its file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No net of that name.
    #[error("there is no model `{name}`{hint}; `striate models` lists them all")]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// What may have been meant.
        hint: String,
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
    /// A classifier cannot stand under a detector's pyramid.
    #[error(
        "the detector `{name}` cannot be built: {backbone} has no maps for a pyramid ({why}); others have, such as resnet18, mobilenet_v2 or \
         efficientnet_b0"
    )]
    Backbone {
        /// The detector.
        name: String,
        /// The classifier.
        backbone: &'static str,
        /// What it lacks.
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
            assert_eq!(spec.bare(spec.input, spec.classes).num_parameters(), parameters, "{name}");
        }
    }

    #[test]
    fn names_are_torchvisions() {
        let has = |model: &str, names: &[&str]| {
            let spec = find_model(model).unwrap();
            let dict = spec.bare(spec.input, spec.classes).state_dict();
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
