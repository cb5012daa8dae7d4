//! Detectors: torchvision's, under its names, with its parameters and numbers, and a family of our own, `striate_det`.
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
mod assign;
mod boxes;
mod decoded;
mod detector;
mod exported;
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
mod sampling;
mod ssd;
mod ssdlite;
mod start;
mod striate_det;
mod targets;
mod traced;
mod trunk;

pub use anchors::{AnchorGenerator, DefaultBoxGenerator};
pub use boxes::{BoxCoder, Corners, SideCoder, batched_nms, clip_to, is_at_least, nms, resize_box};
pub use decoded::{Chosen, Decoded, Groups};
pub use detector::{DetectError, DetectionNet, Detections, Detector, Frame, RawHeads, TwoStageTraining};
pub use exported::ExportedBoxes;
pub use heads::Selection;
pub use masks::pack_masks;
pub use picture::{PictureSize, PictureTransform, picture_array};
pub use pyramid::{FeaturePyramidNetwork, LastLevel};
pub(super) use registry::modern_names;
pub use registry::{DetectorSpec, detectors, detectors_on_classifiers, find_detector, is_detector};
pub use sampling::Sampling;
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

/// Names of COCO's 80 classes in their order, without background: what detectors without one count.
///
/// ```
/// let names: Vec<&str> = striate_vision::models::detection::coco_things().collect();
/// assert_eq!((names.len(), names[0], names[79]), (80, "person", "toothbrush"));
/// ```
pub fn coco_things() -> impl Iterator<Item = &'static str> {
    coco_classes().skip(1).filter(|name| *name != "N/A")
}

#[cfg(test)]
mod tests {
    use super::*;
    use striate_graph::Array;
    use striate_nn::{Module, StateDict};

    /// Number of parameters, as torchvision documents them: with frozen norms where its weights have them.
    const KNOWN: [(&str, usize); 10] = [
        ("ssdlite320_mobilenet_v3_large", 3_440_060),
        ("ssd300_vgg16", 35_641_826),
        ("retinanet_resnet50_fpn", 34_014_999),
        ("retinanet_resnet50_fpn_v2", 38_198_935),
        ("fcos_resnet50_fpn", 32_269_600),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", 19_386_354),
        ("fasterrcnn_mobilenet_v3_large_fpn", 19_386_354),
        ("fasterrcnn_resnet50_fpn", 41_755_286),
        ("fasterrcnn_resnet50_fpn_v2", 43_712_278),
        ("maskrcnn_resnet50_fpn", 44_401_393),
    ];

    #[test]
    fn sizes_are_torchvisions() {
        for ((name, parameters), spec) in KNOWN.into_iter().zip(detectors()) {
            assert_eq!((spec.name, spec.structure(91, Some(1e-5)).unwrap().num_parameters()), (name, parameters));
        }
    }

    /// Pictures of structure, in two sizes.
    fn pictures() -> Vec<Array> {
        let picture = |[h, w]: [usize; 2], phase: f32| {
            let value = |i: usize| ((i % w) as f32 * 0.21 + (i / w) as f32 * 0.13 + phase).sin() * 0.5 + 0.5;
            Array::from_vec([3, h, w], (0..3 * h * w).map(value).collect::<Vec<f32>>()).unwrap()
        };
        vec![picture([40, 60], 0.0), picture([40, 60], 1.0), picture([50, 30], 2.0)]
    }

    /// An untrained one finds hundreds of boxes of scores near 1 / classes.
    fn small() -> Detector {
        Detector::new("ssdlite320_mobilenet_v3_large", 5, 3).unwrap()
    }

    #[test]
    fn what_is_found_does_not_depend_on_the_other_pictures_nor_on_the_threads() {
        use std::sync::Arc;
        use striate_graph::{CompileOptions, machine::Team};
        let pictures = pictures();
        let together = small().detect(&pictures).unwrap();
        let options = CompileOptions { threads: 3, ..CompileOptions::default() };
        let mut threaded = small().with_options(options, Arc::new(Team::new(3)));
        for (picture, among) in pictures.iter().zip(&together) {
            let alone = threaded.detect(std::slice::from_ref(picture)).unwrap().remove(0);
            assert!(!among.boxes.is_empty());
            assert_eq!((&alone.boxes, &alone.scores, &alone.labels), (&among.boxes, &among.scores, &among.labels));
            assert!(
                among.scores.is_sorted_by(|a, b| a >= b) && among.labels.iter().all(|label| (1..5).contains(label))
            );
            let [h, w] = [1, 2].map(|axis| picture.shape()[axis] as f32);
            let inside = |[x1, y1, x2, y2]: &Corners| *x1 >= 0.0 && *y1 >= 0.0 && *x2 <= w + 1e-3 && *y2 <= h + 1e-3;
            assert!(among.boxes.iter().all(inside));
        }
    }

    #[test]
    fn masks_are_of_the_pictures_size_and_lie_in_their_boxes() {
        let mut detector = Detector::new("maskrcnn_resnet50_fpn", 3, 0).unwrap();
        let picture = Array::full([3, 4, 60], 0.5f32);
        let found = detector.detect(&[picture]).unwrap().remove(0);
        let masks = found.masks.unwrap();
        assert_eq!(masks.shape().dims(), &[found.boxes.len(), 4, 60]);
        assert!(!found.boxes.is_empty());
        for (mask, [x1, ..]) in masks.f32s().unwrap().chunks_exact(240).zip(&found.boxes) {
            let left = (x1 - 2.0).max(0.0) as usize;
            assert!(mask.iter().all(|p| (0.0..=1.0).contains(p)));
            assert!(mask.chunks_exact(60).all(|row| row[..left].iter().all(|p| *p == 0.0)), "{x1}");
        }
    }

    #[test]
    fn files_say_how_many_classes_there_are_and_may_have_old_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let save = |dict: StateDict| striate_io::write_safetensors(&path, dict, &Default::default()).unwrap();
        for (name, classes) in [("ssdlite320_mobilenet_v3_large", 4), ("retinanet_resnet50_fpn", 7)] {
            let dict = Detector::new(name, classes, 1).unwrap().state_dict();
            save(dict.clone());
            let loaded = Detector::load(name, &path).unwrap();
            assert_eq!(loaded.classes(), classes);
            assert!(loaded.state_dict().iter().all(|(key, array)| array.bits_eq(&dict[key])));
        }
        let dict = Detector::new("retinanet_resnet50_fpn", 7, 1).unwrap().state_dict();
        let old = |name: String| {
            let name = name.replace("_blocks.0.0.", "_blocks.0.").replace("head.conv.3.0.", "head.conv.6.");
            name.replace("head.conv.1.0.", "head.conv.2.")
        };
        // Without counters of batches, as frozen norms have none.
        let of_then = dict.clone().into_iter().map(|(name, array)| (old(name), array));
        save(of_then.filter(|(name, _)| !name.ends_with("num_batches_tracked")).collect());
        let loaded = Detector::load("retinanet_resnet50_fpn", &path).unwrap();
        assert!(loaded.state_dict().iter().all(|(key, array)| array.bits_eq(&dict[key])));
        assert!(loaded.net().named_parameters().iter().all(|(name, _)| !name.contains(".bn1.")), "frozen");
    }

    /// The sum of a detector's losses on a picture with two objects, and its gradient for the named bias.
    fn loss_and_gradient(detector: &Detector, side: usize, bias: &str) -> (f64, Vec<f32>) {
        use striate_graph::{CompileOptions, DType, Mode, Program, Session, Trace, gradients};
        let truth = Truth { boxes: vec![[4.0, 6.0, 30.0, 40.0], [20.0, 20.0, 60.0, 50.0]], labels: vec![1, 2] };
        let (boxes, labels) = pad_truths(&[truth.clone(), truth], 3);
        let value = |i: usize| (i as f32 * 0.37).sin();
        let x = Array::from_vec([2, 3, side, side], (0..6 * side * side).map(value).collect::<Vec<_>>()).unwrap();
        let trace = Trace::new(Mode::Train);
        let input = trace.input("x", x.shape(), DType::F32);
        let given =
            [trace.input("boxes", boxes.shape(), DType::F32), trace.input("labels", labels.shape(), DType::I64)];
        let losses = detector.net().losses(&input, [&given[0], &given[1]]);
        let loss = losses.into_iter().map(|(_, loss)| loss).reduce(|a, b| a + b).unwrap();
        let cells = detector.net().named_parameters();
        let (_, cell) = cells.iter().find(|(name, _)| name == bias).unwrap();
        let gradient = gradients(&loss, &[&trace.parameter(cell)]).unwrap().remove(0);
        let graph = trace.finish(&[("loss", &loss), ("gradient", &gradient)]).unwrap();
        let mut session = Session::new(Program::compile(&graph, &CompileOptions::default()).unwrap());
        let found = session.run(&[("x", &x), ("boxes", &boxes), ("labels", &labels)]).unwrap();
        (found[0].item().unwrap(), found[1].f32s().unwrap().to_vec())
    }

    #[test]
    fn losses_have_the_gradients_that_their_differences_show() {
        for (name, side, bias) in [
            ("ssdlite320_mobilenet_v3_large", 320, "head.regression_head.module_list.0.1.bias"),
            ("ssdlite320_mobilenet_v3_large", 320, "head.classification_head.module_list.0.1.bias"),
            ("retinanet_resnet50_fpn", 64, "head.classification_head.cls_logits.bias"),
            ("retinanet_resnet50_fpn_v2", 64, "head.regression_head.bbox_reg.bias"),
            ("fcos_resnet50_fpn", 64, "head.regression_head.bbox_ctrness.bias"),
            ("fasterrcnn_mobilenet_v3_large_320_fpn", 64, "roi_heads.box_predictor.cls_score.bias"),
            ("fasterrcnn_mobilenet_v3_large_320_fpn", 64, "roi_heads.box_predictor.bbox_pred.bias"),
        ] {
            let detector = Detector::new(name, 3, 0).unwrap();
            let (_, gradient) = loss_and_gradient(&detector, side, bias);
            let length = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let step = 0.004 / length;
            let cells = detector.net().named_parameters();
            let (_, cell) = cells.iter().find(|(name, _)| name == bias).unwrap();
            let along = |by: f64| {
                cell.update(|values| {
                    let values = values.as_mut_slice::<f32>().unwrap();
                    values.iter_mut().zip(&gradient).for_each(|(v, g)| *v += (by * f64::from(*g)) as f32);
                });
                loss_and_gradient(&detector, side, bias).0
            };
            let (above, below) = (along(step), along(-2.0 * step));
            let slope = (above - below) / (2.0 * step * length);
            assert!(length > 0.0 && (slope / length - 1.0).abs() < 0.02, "{name} {bias}: {slope} instead of {length}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let error = Detector::new("ssd300_vgg15", 91, 0).unwrap_err().to_string();
        assert!(error.contains("`ssd300_vgg16`"), "{error}");
        let error = Detector::new("ssd300_vgg16", 1, 0).unwrap_err().to_string();
        assert!(error.contains("background"), "{error}");
        let error = Detector::new("striate_det_n", 0, 0).unwrap_err().to_string();
        assert!(error.contains("at least one class"), "{error}");
        let error = crate::models::find_model("ssd300_vgg16").unwrap_err().to_string();
        assert!(error.contains("detector"), "{error}");
        let mut broken = small();
        broken.net().parameters()[0].update(|array| array.as_mut_slice::<f32>().unwrap()[0] = f32::NAN);
        let error = broken.detect(&pictures()[..1]).unwrap_err().to_string();
        assert!(error.contains("bbox_regression") || error.contains("cls_logits"), "{error}");
        assert!(small().detect(&[Array::full([4, 4], 0f32)]).unwrap_err().to_string().contains("picture 0"));
        assert!(small().detect(&[]).unwrap().is_empty());
    }
}
