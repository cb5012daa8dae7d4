//! Boxes around things: annotated pictures, and the figures that judge a detector.
//!
//! [`open_annotations`] reads COCO json, Pascal VOC, YOLO and CSV into one [`AnnotatedSet`]; what it had to repair on the way is in
//! [`AnnotatedSet::faults`], and only memory is repaired. Boxes are `[x1, y1, x2, y2]` in pixels of the picture as it is stored,
//! the corner of the first pixel at 0 and that of the last at width and height.
//!
//! ```
//! use striate_vision::detection::open_annotations;
//!
//! let folder = tempfile::tempdir()?;
//! std::fs::write(folder.path().join("boxes.csv"), "path,x1,y1,x2,y2,class\na.png,1,2,30,40,cat\n")?;
//! let set = open_annotations(&folder.path().join("boxes.csv"))?;
//! // The picture is not there: the set says so, and goes on without it.
//! assert_eq!((set.class_names.len(), set.pictures().count()), (1, 0));
//! assert_eq!(set.faults[0].kind.name(), "missing_picture");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod annotations;
mod check;
mod coco_eval;
mod draw;
mod faults;
mod nms;
mod plots;
mod read;
mod rle;
mod write;

pub use annotations::{AnnotatedPicture, AnnotatedSet, BoxFormat, BoxLabel, PARTS, Rle, RleCounts, Segmentation};
pub use check::{Checked, check_annotations};
pub use coco_eval::{
    BoxConfusion, ClassAp, CocoFigures, Curve, Detection, Detections, GroundTruth, Instances, STAT_NAMES,
    VocInterpolation, confusion_matrix, evaluate_coco, iou_xywh, read_detections, read_instances, voc_ap,
};
pub use draw::{contact_sheet, draw_boxes, draw_masks, encode_jpeg};
pub use faults::{Fault, FaultKind, Repair};
pub(crate) use nms::greedy;
pub use nms::{NmsOptions, ScoredBox, Suppression, area, iou_xyxy, nms, postprocess};
pub use plots::{plot_confusion, plot_f1, plot_precision_recall};
pub use read::{open_annotations, recognise_annotations};
pub use rle::{Mask, ShapeError};
pub use write::{Loss, Written, write_annotations};
