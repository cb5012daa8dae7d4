//! Detectors: torchvision's, under its names, with its parameters and numbers.
//!
//! A detector is a net that gives raw values for each anchor, and a function on the host that makes boxes of them. The net is one
//! graph; anchors are constants of its shapes; thresholds, non-maximum suppression and the way back to the picture are ordinary
//! Rust behind the run.
//!
//! ```no_run
//! use striate_graph::Array;
//! use striate_vision::models::detection::Detector;
//! let mut detector = Detector::load("ssdlite320_mobilenet_v3_large", "weights.pth".as_ref())?;
//! let picture = Array::full([3, 480, 640], 0.5f32);
//! for found in detector.detect(&[picture])? {
//!     for (corners, score) in found.boxes.iter().zip(&found.scores) {
//!         println!("{corners:?} {score:.2}");
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod anchors;
mod boxes;
mod detector;
mod fcos;
mod heads;
mod losses;
mod masks;
mod picture;
mod proposals;
mod pyramid;
mod rcnn;
mod registry;
mod retinanet;
mod ssd;
mod ssdlite;
mod start;
mod targets;

pub use anchors::{AnchorGenerator, DefaultBoxGenerator};
pub use boxes::{BoxCoder, Corners, SideCoder, area, batched_nms, clip_to, iou, is_at_least, nms, resize_box};
pub use detector::{DetectError, DetectionNet, Detections, Detector, Frame, RawHeads};
pub use picture::{PictureSize, PictureTransform, picture_array};
pub use pyramid::{FeaturePyramidNetwork, LastLevel};
pub use registry::{DetectorSpec, detectors, find_detector};
pub use targets::{Truth, pad_truths};

/// Names of the 91 classes of torchvision's detectors, in the order in which their weights number them: COCO's, with the background
/// at 0 and `N/A` where COCO leaves a number out.
///
/// ```
/// let names: Vec<&str> = striate_vision::models::detection::coco_classes().collect();
/// assert_eq!((names.len(), names[0], names[17]), (91, "__background__", "cat"));
/// ```
pub fn coco_classes() -> impl Iterator<Item = &'static str> {
    include_str!("../../../assets/coco-classes.txt").lines()
}
