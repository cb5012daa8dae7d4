//! The detectors by name.

use super::detector::DetectionNet;
use super::trunk::Trunk;
use super::{fcos, rcnn, retinanet, ssd, ssdlite, start, striate_det};
use crate::models::parts::Norm;
use crate::models::start::{Start, set as set_start};
use crate::models::{ModelError, ModelSpec, Task, models};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use striate_io::{fit_names, read_weights};
use striate_nn::init::{self, Init};
use striate_nn::{Module, StateDict, assign_names};

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

/// How a detector is made.
enum Construct {
    /// As it is.
    Whole(fn(DetectorShape) -> Box<dyn DetectionNet>),
    /// On a classifier.
    On(Trunk, fn(&Trunk, usize) -> Box<dyn DetectionNet>),
}

/// One detector of the registry, or one on a classifier of the other registry (see [`find_detector`]).
pub struct DetectorSpec {
    /// torchvision's name, or ours.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// `[C, H, W]` of a batch that it usually sees; it takes others.
    pub input: [usize; 3],
    /// Labels unless others are asked for, the background among them where there is one.
    pub classes: usize,
    construct: Construct,
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
    DetectorSpec::new(name, summary, side, Construct::Whole(construct), start)
}

impl DetectorSpec {
    const fn new(
        name: &'static str,
        summary: &'static str,
        side: usize,
        construct: Construct,
        start: Start,
    ) -> DetectorSpec {
        let (input, classes) = ([3, side, side], 91);
        DetectorSpec { name, summary, input, classes, construct, start, freezes: false, without_eps: None }
    }

    /// As many labels as COCO has classes, without a background.
    const fn of_things(mut self) -> DetectorSpec {
        self.classes = 80;
        self
    }

    const fn freezes(mut self, without_eps: Option<&'static str>) -> DetectorSpec {
        (self.freezes, self.without_eps) = (true, without_eps);
        self
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

/// What finds boxes in the maps of a classifier.
struct Heads {
    /// How the names of detectors with them begin.
    prefix: &'static str,
    summary: &'static str,
    construct: fn(&Trunk, usize) -> Box<dyn DetectionNet>,
    start: Start,
}

/// Pixels of their usual pictures, as of torchvision's with these heads.
const SIDE: usize = 800;
/// How the names of detectors on a classifier end.
const PYRAMID: &str = "_fpn";

static HEADS: [Heads; 3] = [
    Heads {
        prefix: "fasterrcnn_",
        summary: "Faster R-CNN on a classifier",
        construct: rcnn::fasterrcnn_on,
        start: start::TWO_STAGES,
    },
    Heads {
        prefix: "retinanet_",
        summary: "RetinaNet on a classifier",
        construct: retinanet::retinanet_on,
        start: start::ONE_STAGE,
    },
    Heads { prefix: "fcos_", summary: "FCOS on a classifier", construct: fcos::fcos_on, start: start::ONE_STAGE },
];

/// How detectors on a classifier are called, with `NAME` for the classifier's name: what [`find_detector`] takes beside the names of
/// [`detectors`].
///
/// ```
/// let patterns: Vec<String> = striate_vision::models::detection::detectors_on_classifiers().collect();
/// assert_eq!(patterns, ["fasterrcnn_NAME_fpn", "retinanet_NAME_fpn", "fcos_NAME_fpn"]);
/// ```
pub fn detectors_on_classifiers() -> impl Iterator<Item = String> {
    HEADS.iter().map(|heads| format!("{}NAME{PYRAMID}", heads.prefix))
}

/// All names of classifiers, each with each of the heads.
fn names_on_classifiers() -> impl Iterator<Item = String> {
    let classifiers = || models().filter(|spec| spec.task == Task::Classify);
    HEADS.iter().flat_map(move |heads| classifiers().map(|spec| format!("{}{}{PYRAMID}", heads.prefix, spec.name)))
}

/// The heads and the classifier that a name asks for.
fn parts_of(name: &str) -> Option<(&'static Heads, &'static ModelSpec)> {
    let inner = name.strip_suffix(PYRAMID)?;
    let heads = HEADS.iter().find(|heads| inner.starts_with(heads.prefix))?;
    let backbone = inner.strip_prefix(heads.prefix)?;
    let spec = models().find(|spec| spec.name == backbone && spec.task == Task::Classify)?;
    Some((heads, spec))
}

/// True for the names that [`find_detector`] knows. Costs no more than a look at the lists.
pub fn is_detector(name: &str) -> bool {
    DETECTORS.iter().any(|spec| spec.name == name) || parts_of(name).is_some()
}

/// The detector with these heads on a classifier. It is made once, and kept: there are as many as there are names.
fn detector_on(name: &str, heads: &Heads, backbone: &'static ModelSpec) -> Result<&'static DetectorSpec, ModelError> {
    static FOUND: Mutex<BTreeMap<String, &'static DetectorSpec>> = Mutex::new(BTreeMap::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(spec) = found.get(name) {
        return Ok(spec);
    }
    let construct = Construct::On(Trunk::find(name, backbone)?, heads.construct);
    let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
    let spec = DetectorSpec::new(kept, heads.summary, SIDE, construct, heads.start);
    let spec: &'static DetectorSpec = Box::leak(Box::new(spec));
    found.insert(name.to_owned(), spec);
    Ok(spec)
}

/// The detector of a name: one of [`detectors`], or `fasterrcnn_NAME_fpn`, `retinanet_NAME_fpn` or `fcos_NAME_fpn` with the name of a
/// classifier ([`models`]): its layers up to the last map of stride 32 under a feature pyramid, with plain batch norm and the
/// classifier's own initial values. torchvision's detectors keep their names (`retinanet_resnet50_fpn`).
///
/// ```
/// use striate_vision::models::detection::find_detector;
/// let net = find_detector("retinanet_mobilenet_v2_fpn")?.build(4, 0)?;
/// assert!(net.state_dict().contains("backbone.body.features.18.0.weight"));
/// # Ok::<(), striate_vision::models::ModelError>(())
/// ```
///
/// # Errors
/// [`ModelError::UnknownModel`], with the nearest name; [`ModelError::Backbone`] for a classifier without such maps.
pub fn find_detector(name: &str) -> Result<&'static DetectorSpec, ModelError> {
    if let Some(spec) = DETECTORS.iter().find(|spec| spec.name == name) {
        return Ok(spec);
    }
    if let Some((heads, backbone)) = parts_of(name) {
        return detector_on(name, heads, backbone);
    }
    let on_classifiers: Vec<String> = names_on_classifiers().collect();
    let names = DETECTORS.iter().map(|spec| spec.name).chain(on_classifiers.iter().map(String::as_str));
    let hint = striate_graph::nearest(name, names).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
    Err(ModelError::UnknownModel { name: name.to_owned(), hint })
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
        things + self.bare(DetectorShape { classes: self.classes, frozen: None }).first_class()
    }

    /// The net without names and initial values.
    fn bare(&self, shape: DetectorShape) -> Box<dyn DetectionNet> {
        init::without_values(|| match &self.construct {
            Construct::Whole(construct) => construct(shape),
            Construct::On(trunk, construct) => construct(trunk, shape.classes),
        })
    }

    /// How a parameter starts: of a classifier as it does there.
    fn initial(&self, path: &str, rank: usize) -> Option<Init> {
        match (&self.construct, path.strip_prefix("backbone.body.")) {
            (Construct::On(trunk, _), Some(inside)) => trunk.spec().initial(inside, rank),
            _ => (self.start)(path, rank),
        }
    }

    /// The net, named, with initial values that are a function of (seed, parameter path).
    ///
    /// # Errors
    /// [`ModelError::Input`] without classes.
    pub fn build(&self, classes: usize, seed: u64) -> Result<Box<dyn DetectionNet>, ModelError> {
        let net = self.structure(classes, None)?;
        init::reset_parameters(&*net, seed);
        set_start(&*net, |path, rank| self.initial(path, rank), seed);
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
        let net = self.bare(DetectorShape { classes, frozen });
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
