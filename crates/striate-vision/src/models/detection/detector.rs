//! What every detector is, and how one is run.

use super::boxes::{Corners, resize_box};
use super::decoded::{Chosen, Decoded};
use super::heads::Selection;
use super::masks::{paste_mask, paste_masks};
use super::picture::{PictureSize, PictureTransform, picture_size};
use super::registry::{DetectorSpec, find_detector};
use super::sampling::Sampling;
use crate::detection::Mask;
use crate::models::ModelError;
use std::path::Path;
use std::sync::Arc;
use striate_graph::machine::Team;
use striate_graph::{Array, CompileOptions, DType, Graph, Mode, Program, Session, Tensor, Trace};
use striate_nn::{Module, StateDict};

/// What was found in a picture, the best first.
#[derive(Clone, Debug, Default)]
pub struct Detections {
    /// Corners in pixels of the picture.
    pub boxes: Vec<Corners>,
    /// From 0 to 1.
    pub scores: Vec<f32>,
    /// Labels, as [`DetectionNet::classes`] counts them.
    pub labels: Vec<usize>,
    /// Probability that a pixel belongs to the object, of nets that give masks: of the picture's pixels, `[boxes, H, W]`, out of
    /// [`Detector::detect`]; else squares inside the boxes, `[boxes, M, M]`, as the net gives them.
    pub masks: Option<Array>,
}

impl Detections {
    /// Which pixels of a picture of this height and width belong to a box's object: its square of probabilities `[M, M]` resized to
    /// the box, as torchvision's `paste_masks_in_image`, from 0.5 on. Nothing where the net gives no masks, or there is no such box.
    ///
    /// ```
    /// use striate_graph::Array;
    /// use striate_vision::models::detection::Detections;
    /// let masks = Some(Array::full([1, 28, 28], 0.9f32));
    /// let found = Detections { boxes: vec![[2.0, 1.0, 6.0, 5.0]], scores: vec![0.8], labels: vec![1], masks };
    /// let mask = found.mask(0, [7, 8]).unwrap();
    /// assert_eq!((mask.size(), mask.contains(3, 2), mask.contains(7, 2)), ([7, 8], true, false));
    /// assert!(found.mask(1, [7, 8]).is_none());
    /// ```
    pub fn mask(&self, index: usize, size: [usize; 2]) -> Option<Mask> {
        let masks = self.masks.as_ref()?;
        let &[_, side, width] = masks.shape().dims() else { return None };
        let values = masks.f32s().ok()?.chunks_exact((side * width).max(1)).nth(index)?;
        (side == width).then(|| paste_mask(values, side, self.boxes[index], size))
    }
}

/// What can be wrong with a detection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetectError {
    /// A picture that no detector takes.
    #[error("picture {index}: {why}")]
    Picture {
        /// Its position among those given.
        index: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The net gave a number that is not finite.
    #[error("the net's output `{output}` holds {value}: its weights are broken")]
    NotFinite {
        /// Which output.
        output: String,
        /// The number.
        value: f32,
    },
    /// An exported detector whose outputs are not boxes as its file says.
    #[error("the outputs of the file are not what it says: {why}; export it again")]
    Outputs {
        /// What is wrong with them.
        why: String,
    },
    /// The graph cannot be compiled or run.
    #[error(transparent)]
    Graph(#[from] striate_graph::Error),
}

/// How pictures lie in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Height and width of the batch.
    pub batch: [usize; 2],
    /// Height and width of the pictures in its upper left.
    pub size: [usize; 2],
    /// Height and width of the maps, by level.
    pub levels: Vec<[usize; 2]>,
}

/// What a detector's graph gives.
pub struct RawHeads {
    /// Values by name, as torchvision's heads call them.
    pub outputs: Vec<(&'static str, Tensor)>,
    /// Height and width of the maps that were looked at, by level.
    pub levels: Vec<[usize; 2]>,
}

/// What the losses of nets of two stages may be told beside boxes and labels.
#[derive(Clone, Copy, Debug, Default)]
pub struct TwoStageTraining<'a> {
    /// How many anchors and proposals are learnt from.
    pub sampling: Sampling,
    /// Which pixels belong to the objects, bits `[N, most, H, ceil(W / 8)]` (u8), in the order of the boxes: see
    /// [`pack_masks`](super::pack_masks). An object of which no pixel is there teaches its box alone. Without them a net that gives masks has the losses of its boxes alone, and its mask head learns nothing.
    pub masks: Option<&'a Tensor>,
}

/// The net of a detector.
pub trait DetectionNet: Module {
    /// What pictures go through before, unless another size is asked for.
    fn transform(&self) -> &PictureTransform;

    /// Labels that the net tells apart, the background among them where it has one.
    fn classes(&self) -> usize;

    /// The label of the first class that can be found: 1 where 0 is the background, as in torchvision's nets, else 0. Classes of a
    /// data set, counted from 0, have the labels from here on.
    fn first_class(&self) -> usize {
        1
    }

    /// Whether it says which pixels belong to what it finds, and learns that from masks.
    fn gives_masks(&self) -> bool {
        false
    }

    /// Gives fresh parameters what no rule by path gives them.
    fn start(&self) {}

    /// What a classifier of the same backbone calls the array that the net has under this name, behind what all of its names may
    /// begin with (`features.`); nothing for arrays that classifiers have not.
    fn name_in_classifier(&self, name: &str) -> Option<String> {
        name.strip_prefix("backbone.body.").map(str::to_owned)
    }

    /// Records the net on a batch `[N, 3, H, W]` of pictures of this height and width, padded.
    fn heads(&self, x: &Tensor, size: [usize; 2]) -> RawHeads;

    /// Records the losses of a batch `[N, 3, H, W]` of prepared pictures, by name as torchvision calls them; their sum is what training
    /// makes small. `boxes` and `labels` are those of [`pad_truths`](super::pad_truths).
    fn losses(&self, x: &Tensor, truths: [&Tensor; 2]) -> Vec<(&'static str, Tensor)>;

    /// As [`DetectionNet::losses`] with more said: other nets than those of two stages do not look at it.
    #[track_caller]
    fn losses_with(&self, x: &Tensor, truths: [&Tensor; 2], _: &TwoStageTraining<'_>) -> Vec<(&'static str, Tensor)> {
        self.losses(x, truths)
    }

    /// The least label that [`DetectionNet::decode`] can tell: that of the first class, but 0 where the background is scored like a class,
    /// as torchvision's RetinaNet and FCOS do.
    fn first_label(&self) -> usize {
        self.first_class()
    }

    /// Which of its boxes are left by [`DetectionNet::decode`].
    fn selection(&self) -> Selection;

    /// Records, in operations that other runtimes have, all boxes and scores of a batch `[N, 3, H, W]` of prepared pictures that fill
    /// it; of the classes with the labels from `first` on, which is not below [`DetectionNet::first_label`].
    fn decoded(&self, x: &Tensor, first: usize) -> Decoded;

    /// As [`DetectionNet::decoded`] up to what is left of them.
    ///
    /// ```
    /// use striate_graph::{DType, Mode, Trace};
    /// use striate_vision::models::detection::Detector;
    /// let detector = Detector::untrained("striate_det_n", 3)?;
    /// let trace = Trace::new(Mode::Eval);
    /// let left = detector.net().chosen(&trace.input("images", [2, 3, 64, 64], DType::F32), 0);
    /// // No more than there are: 3 classes of 8x8, 4x4 and 2x2 cells.
    /// assert_eq!(left.boxes.shape().dims(), &[2, 252, 4]);
    /// assert_eq!(left.labels.dtype(), DType::I64);
    /// # Ok::<(), striate_vision::models::ModelError>(())
    /// ```
    #[track_caller]
    fn chosen(&self, x: &Tensor, first: usize) -> Chosen {
        self.decoded(x, first).choose(&self.selection())
    }

    /// What the arrays of [`DetectionNet::heads`] say: a picture each, in pixels of the resized pictures; masks are as the net gives
    /// them, squares of probabilities inside the boxes.
    ///
    /// # Errors
    /// Arrays of another type.
    fn decode(&self, outputs: &[Array], frame: &Frame) -> striate_graph::Result<Vec<Detections>>;
}

/// Writes what all nets of detectors have as modules: `forward` gives the first of the heads; the fields as [`visit_fields!`].
///
/// [`visit_fields!`]: striate_nn::visit_fields
macro_rules! detection_module {
    ($net:ident, $($field:ident),+) => {
        impl striate_nn::Module for $net {
            #[track_caller]
            fn forward(&self, x: &striate_graph::Tensor) -> striate_graph::Tensor {
                super::DetectionNet::heads(self, x, [x.size(2), x.size(3)]).outputs.swap_remove(0).1
            }
            striate_nn::visit_fields!($($field),+);
            fn path(&self) -> Option<&striate_nn::Path> {
                Some(&self.path)
            }
        }
        striate_nn::display_module!($net);
    };
}
pub(super) use detection_module;

/// Pictures that go through a net together, at most: what is found does not depend on it, the memory does.
const BATCH: usize = 8;

/// The session of one shape, and what is known of it.
struct Ready {
    key: [usize; 3],
    session: Session,
    frame: Frame,
}

/// A detector that can be run: the net, and the program for the pictures' last size.
pub struct Detector {
    spec: &'static DetectorSpec,
    net: Box<dyn DetectionNet>,
    transform: PictureTransform,
    options: CompileOptions,
    team: Option<Arc<Team>>,
    ready: Option<Ready>,
}

impl std::fmt::Debug for Detector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Detector({})", self.spec.name)
    }
}

impl Detector {
    /// The detector of a name with initial values that are a function of (seed, parameter path); `classes` counts the background where
    /// there is one ([`DetectorSpec::labels`]).
    ///
    /// # Errors
    /// A name that is none of a detector; no classes.
    pub fn new(name: &str, classes: usize, seed: u64) -> Result<Detector, ModelError> {
        let spec = find_detector(name)?;
        Ok(Detector::around(spec, spec.build(classes, seed)?))
    }

    /// As [`Detector::new`] without initial values: to look at, or to load values into.
    ///
    /// # Errors
    /// As there.
    pub fn untrained(name: &str, classes: usize) -> Result<Detector, ModelError> {
        let spec = find_detector(name)?;
        Ok(Detector::around(spec, spec.structure(classes, None)?))
    }

    /// The detector of a name with the weights of a file, of torchvision's `.pth` among others. The file says how many classes
    /// there are, and whether the norms of the backbone are frozen.
    ///
    /// # Errors
    /// A name that is none of a detector; a file that cannot be read or is not of this net.
    pub fn load(name: &str, path: &Path) -> Result<Detector, ModelError> {
        let spec = find_detector(name)?;
        Ok(Detector::around(spec, spec.open(path)?))
    }

    fn around(spec: &'static DetectorSpec, net: Box<dyn DetectionNet>) -> Detector {
        let transform = *net.transform();
        Detector { spec, net, transform, options: CompileOptions::default(), team: None, ready: None }
    }

    /// Pictures are brought to this size instead of the net's own.
    #[must_use]
    pub fn with_size(self, size: PictureSize) -> Detector {
        Detector { transform: PictureTransform { size, ..self.transform }, ready: None, ..self }
    }

    /// Compiled and run otherwise than by default. The team has at most as many threads as the options say.
    #[must_use]
    pub fn with_options(self, options: CompileOptions, team: Arc<Team>) -> Detector {
        Detector { options, team: Some(team), ready: None, ..self }
    }

    /// Which one it is.
    pub fn spec(&self) -> &'static DetectorSpec {
        self.spec
    }

    /// What pictures go through before the net.
    pub fn transform(&self) -> &PictureTransform {
        &self.transform
    }

    /// Labels that the net tells apart, the background among them where it has one.
    pub fn classes(&self) -> usize {
        self.net.classes()
    }

    /// The label of the first class that can be found; see [`DetectionNet::first_class`].
    pub fn first_class(&self) -> usize {
        self.net.first_class()
    }

    /// The net.
    pub fn net(&self) -> &dyn DetectionNet {
        &*self.net
    }

    /// The values of the net.
    pub fn state_dict(&self) -> StateDict {
        self.net.state_dict()
    }

    /// The graph from a batch `[N, 3, H, W]` of prepared pictures, `input`, to the raw heads.
    ///
    /// # Errors
    /// Pictures that the net cannot take.
    pub fn graph(&self, shape: [usize; 4]) -> striate_graph::Result<Graph> {
        Ok(self.trace(shape, [shape[2], shape[3]])?.0)
    }

    /// The graph for pictures of this size in a batch, and how they lie in it.
    fn trace(&self, shape: [usize; 4], size: [usize; 2]) -> striate_graph::Result<(Graph, Frame)> {
        let trace = Trace::new(Mode::Eval);
        let x = trace.input("input", shape, DType::F32);
        let RawHeads { outputs, levels } = self.net.heads(&x, size);
        let outputs: Vec<(&str, &Tensor)> = outputs.iter().map(|(name, value)| (*name, value)).collect();
        Ok((trace.finish(&outputs)?, Frame { batch: [shape[2], shape[3]], size, levels }))
    }

    /// What is on pictures `[3, H, W]` of values from 0 to 1. What is found in one does not depend on the others: pictures that
    /// are resized to the same size go through the net together, others one after the other. Masks are of the picture's size, four
    /// bytes for each pixel and box: see [`Detector::detect_unpasted`].
    ///
    /// # Errors
    /// A picture of another shape or type; weights that make the net give numbers that are not finite.
    pub fn detect(&mut self, pictures: &[Array]) -> Result<Vec<Detections>, DetectError> {
        let mut found = self.detect_unpasted(pictures)?;
        for (detections, picture) in found.iter_mut().zip(pictures) {
            let size = [picture.shape()[1], picture.shape()[2]];
            detections.masks =
                detections.masks.take().map(|masks| paste_masks(&masks, &detections.boxes, size)).transpose()?;
        }
        Ok(found)
    }

    /// As [`Detector::detect`] with masks as the net gives them, squares inside the boxes: [`Detections::mask`] makes one of the
    /// picture's size.
    ///
    /// # Errors
    /// As there.
    pub fn detect_unpasted(&mut self, pictures: &[Array]) -> Result<Vec<Detections>, DetectError> {
        let sizes: Vec<[usize; 2]> =
            pictures.iter().enumerate().map(|(index, p)| picture_size(p, index)).collect::<Result<_, _>>()?;
        let mut found = Vec::with_capacity(pictures.len());
        while found.len() < pictures.len() {
            let first = found.len();
            let same = sizes[first..].iter().take(BATCH).take_while(|size| **size == sizes[first]).count();
            let group: Vec<&Array> = pictures[first..first + same].iter().collect();
            let (original, resized) = (sizes[first], self.transform().resized(sizes[first]));
            let batch = self.transform().batch(&group)?;
            for detections in self.run(&batch, resized)? {
                let boxes = detections.boxes.iter().map(|corners| resize_box(resized, original, *corners)).collect();
                found.push(Detections { boxes, ..detections });
            }
        }
        Ok(found)
    }

    /// What is in a batch of prepared pictures of this size.
    fn run(&mut self, batch: &Array, size: [usize; 2]) -> Result<Vec<Detections>, DetectError> {
        let key = [batch.shape()[0], size[0], size[1]];
        if self.ready.as_ref().is_none_or(|ready| ready.key != key) {
            // The arena of the last size goes first.
            self.ready = None;
            let (graph, frame) = self.trace([0, 1, 2, 3].map(|axis| batch.shape()[axis]), size)?;
            let program = Program::compile(&graph, &self.options)?;
            let session = match &self.team {
                Some(team) => Session::with_team(program, team.clone()),
                None => Session::new(program),
            };
            self.ready = Some(Ready { key, session, frame });
        }
        let Some(Ready { session, frame, .. }) = &mut self.ready else { return Ok(Vec::new()) };
        let program = session.program().clone();
        let outputs = session.run(&[("input", batch)])?;
        for ((name, _), output) in program.outputs().zip(outputs).filter(|(_, output)| output.dtype() == DType::F32) {
            if let Some(&value) = output.f32s()?.iter().find(|value| !value.is_finite()) {
                return Err(DetectError::NotFinite { output: name.to_owned(), value });
            }
        }
        Ok(self.net.decode(outputs, frame)?)
    }
}
