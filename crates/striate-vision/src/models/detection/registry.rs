//! The detectors by name.

use super::detector::DetectionNet;
use super::{fcos, rcnn, retinanet, ssd, ssdlite, start, striate_det};
use crate::models::ModelError;
use crate::models::parts::Norm;
use crate::models::start::{Start, set as set_start};
use std::path::Path;
use striate_io::{fit_names, read_weights};
use striate_nn::{Module, StateDict, assign_names, init};

/// For what a detector is built.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct DetectorShape {
    /// With the background, where there is one.
    pub classes: usize,
    /// Frozen norms with this eps in the backbone, where torchvision's detector can have them.
    pub frozen: Option<f64>,
}

impl DetectorShape {
    /// The norm of the backbone.
    pub fn norm(self) -> Norm {
        self.frozen.map_or(Norm::BATCH, |eps| Norm::Frozen { eps })
    }
}

/// One detector of the registry.
pub struct DetectorSpec {
    /// torchvision's name, or ours.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// `[C, H, W]` of a batch that it usually sees; it takes others.
    pub input: [usize; 3],
    /// Labels unless others are asked for, the background among them where there is one.
    pub classes: usize,
    construct: fn(DetectorShape) -> Box<dyn DetectionNet>,
    start: Start,
    /// Whether torchvision freezes the norms of its backbone when it starts from weights.
    freezes: bool,
    /// End of the name of a weights file for which torchvision sets eps of the frozen norms to 0.
    without_eps: Option<&'static str>,
}

const fn spec(
    name: &'static str,
    summary: &'static str,
    side: usize,
    construct: fn(DetectorShape) -> Box<dyn DetectionNet>,
    start: Start,
) -> DetectorSpec {
    let (input, classes) = ([3, side, side], 91);
    DetectorSpec { name, summary, input, classes, construct, start, freezes: false, without_eps: None }
}

impl DetectorSpec {
    /// As many labels as COCO has classes, without a background.
    const fn of_things(self) -> DetectorSpec {
        DetectorSpec { classes: 80, ..self }
    }

    const fn freezes(self, without_eps: Option<&'static str>) -> DetectorSpec {
        DetectorSpec { freezes: true, without_eps, ..self }
    }
}

static DETECTORS: [DetectorSpec; 13] = [
    spec(
        "ssdlite320_mobilenet_v3_large",
        "SSDLite on MobileNetV3-Large",
        320,
        ssdlite::ssdlite320_mobilenet_v3_large,
        start::SSDLITE,
    ),
    spec("ssd300_vgg16", "SSD on VGG-16", 300, ssd::ssd300_vgg16, start::SSD),
    spec("retinanet_resnet50_fpn", "RetinaNet on ResNet-50", 800, retinanet::retinanet_resnet50_fpn, start::ONE_STAGE)
        .freezes(Some("eeacb38b")),
    spec(
        "retinanet_resnet50_fpn_v2",
        "RetinaNet with group norm in its heads",
        800,
        retinanet::retinanet_resnet50_fpn_v2,
        start::ONE_STAGE,
    ),
    spec("fcos_resnet50_fpn", "FCOS on ResNet-50", 800, fcos::fcos_resnet50_fpn, start::ONE_STAGE).freezes(None),
    spec(
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "Faster R-CNN on MobileNetV3-Large, low resolution",
        320,
        rcnn::fasterrcnn_mobilenet_v3_large_320_fpn,
        start::TWO_STAGES_MOBILE,
    )
    .freezes(None),
    spec(
        "fasterrcnn_mobilenet_v3_large_fpn",
        "Faster R-CNN on MobileNetV3-Large",
        800,
        rcnn::fasterrcnn_mobilenet_v3_large_fpn,
        start::TWO_STAGES_MOBILE,
    )
    .freezes(None),
    spec("fasterrcnn_resnet50_fpn", "Faster R-CNN on ResNet-50", 800, rcnn::fasterrcnn_resnet50_fpn, start::TWO_STAGES)
        .freezes(Some("258fb6c6")),
    spec(
        "fasterrcnn_resnet50_fpn_v2",
        "Faster R-CNN with norms in pyramid and box head",
        800,
        rcnn::fasterrcnn_resnet50_fpn_v2,
        start::TWO_STAGES,
    ),
    spec("maskrcnn_resnet50_fpn", "Mask R-CNN on ResNet-50", 800, rcnn::maskrcnn_resnet50_fpn, start::TWO_STAGES)
        .freezes(Some("bf2d0c1e")),
    spec("striate_det_n", "Our own without anchors, the smallest", 640, striate_det::striate_det_n, start::STRIATE_DET)
        .of_things(),
    spec("striate_det_s", "Our own without anchors", 640, striate_det::striate_det_s, start::STRIATE_DET).of_things(),
    spec("striate_det_m", "Our own without anchors, the largest", 640, striate_det::striate_det_m, start::STRIATE_DET)
        .of_things(),
];

/// All detectors.
pub fn detectors() -> &'static [DetectorSpec] {
    &DETECTORS
}

/// The detector of a name.
///
/// # Errors
/// [`ModelError::UnknownModel`], with the nearest name.
pub fn find_detector(name: &str) -> Result<&'static DetectorSpec, ModelError> {
    DETECTORS.iter().find(|spec| spec.name == name).ok_or_else(|| {
        let nearest = striate_graph::nearest(name, DETECTORS.iter().map(|spec| spec.name));
        ModelError::UnknownModel {
            name: name.to_owned(),
            hint: nearest.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default(),
        }
    })
}

impl std::fmt::Debug for DetectorSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DetectorSpec({} {:?} {})", self.name, self.input, self.classes)
    }
}

impl DetectorSpec {
    /// How many labels the net needs for a data set of so many classes: one more where it has a background.
    ///
    /// ```
    /// use striate_vision::models::detection::find_detector;
    /// assert_eq!(find_detector("fcos_resnet50_fpn")?.labels(3), 4);
    /// assert_eq!(find_detector("striate_det_n")?.labels(3), 3);
    /// # Ok::<(), striate_vision::models::ModelError>(())
    /// ```
    pub fn labels(&self, things: usize) -> usize {
        let shape = DetectorShape { classes: self.classes, frozen: None };
        things + init::without_values(|| (self.construct)(shape)).first_class()
    }

    /// The net, named, with initial values that are a function of (seed, parameter path).
    ///
    /// # Errors
    /// [`ModelError::Input`] without classes.
    pub fn build(&self, classes: usize, seed: u64) -> Result<Box<dyn DetectionNet>, ModelError> {
        let net = self.structure(classes, None)?;
        init::reset_parameters(&*net, seed);
        set_start(&*net, self.start, seed);
        net.start();
        Ok(net)
    }

    /// The net without initial values: to look at, or to load values into. With `frozen` the norms of the backbone are fixed and
    /// add this eps, where torchvision freezes them when it starts from weights.
    ///
    /// # Errors
    /// [`ModelError::Input`] without classes.
    pub fn structure(&self, classes: usize, frozen: Option<f64>) -> Result<Box<dyn DetectionNet>, ModelError> {
        let frozen = frozen.filter(|_| self.freezes);
        let net = init::without_values(|| (self.construct)(DetectorShape { classes, frozen }));
        if classes <= net.first_class() {
            let [channels, height, width] = self.input;
            let why = match net.first_class() {
                0 => "there must be at least one class".into(),
                _ => "classes count the background, so there must be at least 2".into(),
            };
            return Err(ModelError::Input { name: self.name.into(), channels, height, width, classes, why });
        }
        assign_names(&*net);
        Ok(net)
    }

    /// Names of the arrays whose shape depends on the number of classes: the heads that tell them apart.
    ///
    /// # Errors
    /// None for a detector of the registry.
    pub fn class_arrays(&self) -> Result<Vec<String>, ModelError> {
        let (few, many) = (self.structure(self.classes, None)?, self.structure(self.classes + 1, None)?);
        let pairs = few.named_parameters().into_iter().zip(many.named_parameters());
        Ok(pairs.filter(|((_, a), (_, b))| a.shape() != b.shape()).map(|((name, _), _)| name).collect())
    }

    /// The net with the values of a file of any format that [`read_weights`] knows, for as many classes as the file has. Names of
    /// files from before torchvision 0.13 are understood. Norms of the backbone are frozen where the file does not count their
    /// batches.
    ///
    /// # Errors
    /// A file that cannot be read, or is not of this net.
    pub fn open(&self, path: &Path) -> Result<Box<dyn DetectionNet>, ModelError> {
        let weights = read_weights(path)?;
        let usual = self.structure(self.classes, None)?;
        let dict = modern_names(weights.arrays, &*usual);
        let (dict, _) = fit_names(dict, &*usual);
        let counts = dict.keys().any(|key| key.starts_with("backbone.") && key.ends_with("num_batches_tracked"));
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let eps = if self.without_eps.is_some_and(|hash| stem.ends_with(hash)) { 0.0 } else { 1e-5 };
        let classes = self.classes_in(&*usual, &dict)?;
        let net = self.structure(classes, (!counts).then_some(eps))?;
        net.load_state_dict(&dict, true)
            .map_err(|source| ModelError::Weights { path: path.into(), source: Box::new(source) })?;
        Ok(net)
    }

    /// Classes of a dict: by how the first parameter grows that has one more row, or some, for one more class.
    fn classes_in(&self, usual: &dyn DetectionNet, dict: &StateDict) -> Result<usize, ModelError> {
        let more = self.structure(self.classes + 1, None)?;
        let rows = |net: &dyn DetectionNet| -> Vec<(String, usize)> {
            let named = net.named_parameters().into_iter();
            named.map(|(name, cell)| (name, cell.shape().first().copied().unwrap_or(0))).collect()
        };
        let grown = rows(usual).into_iter().zip(rows(&*more)).find(|((_, few), (_, many))| few != many);
        let found = grown.and_then(|((name, few), (_, many))| {
            // An array without elements may claim any number of rows.
            let rows = *dict.get(&name).filter(|array| array.numel() > 0)?.shape().first()?;
            let each = many - few;
            (rows % each == 0 && rows / each > usual.first_class()).then_some(rows / each)
        });
        // A dict without it is refused when it is loaded, with all that it lacks.
        Ok(found.unwrap_or(self.classes))
    }
}

/// Names as torchvision has them since 0.13, when convolutions of heads and pyramids became blocks: `conv` to `conv.0.0`,
/// `inner_blocks.0` to `inner_blocks.0.0`, in RetinaNet `conv.2` to `conv.1.0`, in Mask R-CNN `mask_fcn2` to `1.0`.
pub(in crate::models) fn modern_names(dict: StateDict, net: &dyn DetectionNet) -> StateDict {
    let own = net.state_dict();
    let modern = |name: String| {
        if own.contains(&name) {
            return name;
        }
        let Some((layer, last)) = name.rsplit_once('.') else { return name };
        // Only these rows counted the activations between their convolutions.
        let of_row = layer.rsplit_once('.').filter(|(row, _)| row.ends_with("_head.conv"));
        let halved = of_row.and_then(|(row, index)| Some((row, index.parse::<usize>().ok()? / 2)));
        let halved = halved.map(|(row, index)| format!("{row}.{index}.0.{last}"));
        let mask = name.split_once(".mask_fcn").and_then(|(row, rest)| {
            let index: usize = rest.split('.').next()?.parse().ok()?;
            Some(format!("{row}.{}.0.{last}", index.checked_sub(1)?))
        });
        let candidates = [halved, mask, Some(format!("{layer}.0.{last}")), Some(format!("{layer}.0.0.{last}"))];
        candidates.into_iter().flatten().find(|candidate| own.contains(candidate)).unwrap_or(name)
    };
    dict.into_iter().map(|(name, array)| (modern(name), array)).collect()
}
