//! How good boxes are: COCO's average precision, number for number as pycocotools gives it, and Pascal VOC's.
//!
//! A detection takes the best free thing of its class in its picture; it is right at a threshold of intersection over union (IoU)
//! that it reaches. Precision over recall, made monotone and read at 101 recalls, is the average precision (AP) of a class; COCO's is
//! the mean over classes and over the thresholds 0.50, 0.55, … 0.95. Lin et al. 2014, "Microsoft COCO: common objects in context".
//!
//! ```
//! use striate_vision::detection::{Detection, GroundTruth, evaluate_coco};
//! let truth = [GroundTruth { image: 1, category: 7, xywh: [10.0, 10.0, 20.0, 20.0], area: 400.0, iscrowd: false, id: 1 }];
//! let found = [Detection { image: 1, category: 7, xywh: [10.0, 10.0, 20.0, 18.0], score: 0.9 }];
//! let figures = evaluate_coco(&[1], &[7], &truth, &found);
//! // IoU 0.9: right at nine of the ten thresholds.
//! assert!((figures.stats[0] - 0.9).abs() < 1e-12 && (figures.stats[1] - 1.0).abs() < 1e-12);
//! ```

mod accumulate;
mod confusion;
mod files;
mod matching;
mod voc;

pub use accumulate::{ClassAp, CocoFigures, Curve, STAT_NAMES, evaluate_coco};
pub use confusion::{BoxConfusion, confusion_matrix};
pub use files::{Detections, Instances, read_detections, read_instances};
pub use matching::{Detection, GroundTruth};
pub use voc::{VocInterpolation, voc_ap};

/// Intersection over union of two boxes `[x, y, width, height]`; of a crowd, intersection over the detection's own area.
pub fn iou_xywh(detection: [f64; 4], truth: [f64; 4], iscrowd: bool) -> f64 {
    let overlap = |axis: usize| {
        let end = (detection[axis + 2] + detection[axis]).min(truth[axis + 2] + truth[axis]);
        end - detection[axis].max(truth[axis])
    };
    let (w, h) = (overlap(0), overlap(1));
    if !(w > 0.0 && h > 0.0) {
        return 0.0;
    }
    let (inter, own, other) = (w * h, detection[2] * detection[3], truth[2] * truth[3]);
    inter / if iscrowd { own } else { own + other - inter }
}
