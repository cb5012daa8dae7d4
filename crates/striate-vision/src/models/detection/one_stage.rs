//! Detectors of one stage traced up to their boxes: what an exported model holds.

use super::boxes::{Corners, nms};
use super::detector::{DetectError, DetectionNet};
use super::heads::{Selection, by_picture, four};
use striate_graph::{Array, Tensor};

/// A net whose boxes are functions of its graph's values.
pub trait OneStage {
    /// What is left of its boxes, as [`DetectionNet::decode`] has it.
    fn selection(&self) -> Selection;

    /// Records boxes and scores of a batch `[N, 3, H, W]` of prepared pictures that fill it.
    fn decoded(&self, x: &Tensor) -> Decoded;
}

/// Among which of its candidates a net takes the best before it suppresses any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// Among those of all classes on a level of so many anchors.
    Levels(Vec<usize>),
    /// Among those of a class.
    Classes,
}

/// Everything that a net says of a batch.
pub struct Decoded {
    /// Corners in pixels, inside of the batch: `[N, A, 4]`.
    pub boxes: Tensor,
    /// Probability of each class, without a background: `[N, A, classes]`.
    pub scores: Tensor,
    /// Where the best are looked for.
    pub groups: Groups,
}

/// The net as one of one stage; `name` is for the error.
///
/// # Errors
/// [`DetectError::TwoStages`].
pub fn one_stage<'a>(net: &'a dyn DetectionNet, name: &str) -> Result<&'a dyn OneStage, DetectError> {
    net.one_stage().ok_or_else(|| DetectError::TwoStages { net: name.to_owned() })
}

/// The parts of boxes inside pictures of this height and width.
#[track_caller]
pub(super) fn inside(boxes: &Tensor, [height, width]: [usize; 2]) -> Tensor {
    let ends = [width, height, width, height].map(|side| side as f32);
    let ends = boxes.trace().constant(Array::from_vec([1, 1, 4], ends.to_vec()).expect("four numbers"));
    boxes.relu().minimum(&ends)
}

/// The values of rows `[N, G, K]`, 0 where they are less than the `most` best of their row.
#[track_caller]
fn best_of_rows(rows: &Tensor, most: usize) -> Tensor {
    if rows.size(2) <= most {
        return rows.clone();
    }
    let (_, places) = rows.topk(most, 2, true);
    let least = rows.gather(2, &places.narrow(2, most - 1, 1));
    rows * rows.ge(&least).cast(rows.dtype())
}

impl Decoded {
    /// The scores of what [`DetectionNet::decode`] suppresses among, the threshold aside, 0 for all others: `[N, classes, A]`.
    #[track_caller]
    pub fn candidates(&self, selection: &Selection) -> Tensor {
        let by_class = |scores: &Tensor| scores.permute(&[0, 2, 1]);
        let Groups::Levels(levels) = &self.groups else {
            return best_of_rows(&by_class(&self.scores), selection.candidates);
        };
        let [n, classes] = [self.scores.size(0), self.scores.size(2)];
        let mut first = 0;
        let mut parts = Vec::with_capacity(levels.len());
        for &anchors in levels {
            let level = self.scores.narrow(1, first, anchors).reshape([n, 1, anchors * classes]);
            parts.push(best_of_rows(&level, selection.candidates).reshape([n, anchors, classes]));
            first += anchors;
        }
        by_class(&Tensor::cat(&parts.iter().collect::<Vec<_>>(), 1))
    }
}

impl Selection {
    /// The boxes that are left of `[N, A, 4]` with [`Decoded::candidates`] `[N, classes, A]`: boxes `[N, most, 4]`, scores `[N, most]`,
    /// the best first, and classes `[N, most]` (i64). Where there are fewer, boxes and scores are 0 and the classes -1.
    ///
    /// # Errors
    /// Arrays of another type.
    pub fn select(&self, boxes: &Array, candidates: &Array) -> striate_graph::Result<[Array; 3]> {
        let (n, classes, anchors) = (candidates.shape()[0], candidates.shape()[1], candidates.shape()[2]);
        let most = self.most.min(classes * anchors);
        let (mut corners, mut scores, mut labels) =
            (vec![0f32; n * most * 4], vec![0f32; n * most], vec![-1i64; n * most]);
        for (picture, (boxes, of_picture)) in by_picture(boxes)?.zip(by_picture(candidates)?).enumerate() {
            let mut kept: Vec<(f32, usize, Corners)> = Vec::new();
            for (class, row) in of_picture.chunks_exact(anchors.max(1)).enumerate() {
                kept.extend(self.of_class(boxes, row).map(|(score, corners)| (score, class, corners)));
            }
            kept.sort_by(|a, b| b.0.total_cmp(&a.0));
            for (index, (score, class, found)) in kept.into_iter().take(most).enumerate() {
                let place = picture * most + index;
                corners[4 * place..][..4].copy_from_slice(&found);
                (scores[place], labels[place]) = (score, class as i64);
            }
        }
        Ok([
            Array::from_vec([n, most, 4], corners)?,
            Array::from_vec([n, most], scores)?,
            Array::from_vec([n, most], labels)?,
        ])
    }

    /// What is left of one class, in the order of the anchors.
    fn of_class(&self, boxes: &[f32], row: &[f32]) -> impl Iterator<Item = (f32, Corners)> {
        let above: Vec<usize> = (0..row.len()).filter(|&anchor| row[anchor] > self.score).collect();
        let scores: Vec<f32> = above.iter().map(|&anchor| row[anchor]).collect();
        let corners: Vec<Corners> = above.iter().map(|&anchor| four(boxes, anchor)).collect();
        let mut kept = nms(&corners, &scores, self.iou);
        kept.sort_unstable();
        kept.into_iter().map(move |index| (scores[index], corners[index]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Detections, Detector, Frame, find_detector};
    use super::*;
    use std::sync::Arc;
    use striate_graph::{DType, Mode, Program, Session, Trace};
    use striate_io::onnx::{
        BOXES_NAME, BoxSuppression, CANDIDATES_NAME, OnnxModel, OnnxOptions, OnnxSession, export_onnx_of,
        suppress_boxes,
    };

    const SIDE: usize = 96;
    const CLASSES: usize = 3;

    fn pictures() -> Array {
        let value = |i: usize| ((i % SIDE) as f32 * 0.21 + (i / SIDE) as f32 * 0.13).sin() * 0.5 + 0.5;
        Array::from_vec([2, 3, SIDE, SIDE], (0..6 * SIDE * SIDE).map(value).collect::<Vec<f32>>()).unwrap()
    }

    /// The outputs of the file that holds the net.
    fn of_file(net: &dyn OneStage, nms: bool, images: &Array) -> Vec<Array> {
        let forward = |x: &Tensor| {
            let decoded = net.decoded(x);
            let candidates = decoded.candidates(&net.selection());
            match nms {
                true => vec![(BOXES_NAME, decoded.boxes), (CANDIDATES_NAME, candidates)],
                false => vec![("boxes", decoded.boxes), ("scores", decoded.scores)],
            }
        };
        let mut proto = export_onnx_of(&forward, &[3, SIDE, SIDE], &OnnxOptions::default()).unwrap();
        if nms {
            let Selection { score, iou, most, .. } = net.selection();
            suppress_boxes(&mut proto, BoxSuppression { score, iou: iou as f32, most }).unwrap();
        }
        let model = OnnxModel::from_proto(proto, "net.onnx".as_ref()).unwrap();
        OnnxSession::new(Arc::new(model)).run(&[images]).unwrap()
    }

    /// What the host makes of the heads.
    fn of_host(net: &dyn DetectionNet, images: &Array) -> Vec<Detections> {
        let size = [SIDE, SIDE];
        let trace = Trace::new(Mode::Eval);
        let heads = net.heads(&trace.input("x", images.shape(), DType::F32), size);
        let named: Vec<(&str, &Tensor)> = heads.outputs.iter().map(|(name, value)| (*name, value)).collect();
        let graph = trace.finish(&named).unwrap();
        let mut session = Session::new(Program::compile(&graph, &Default::default()).unwrap());
        let outputs = session.run(&[("x", images)]).unwrap();
        net.decode(outputs, &Frame { batch: size, size, levels: heads.levels }).unwrap()
    }

    #[test]
    fn the_file_says_what_the_library_finds() {
        let detector = Detector::new("striate_det_n", CLASSES, 1).unwrap();
        let (net, images) = (detector.net(), pictures());
        let file = of_file(one_stage(net, "striate_det_n").unwrap(), true, &images);
        let [boxes, scores, labels] = &file[..] else { panic!("{} outputs", file.len()) };
        let most = boxes.shape()[1];
        for (picture, found) in of_host(net, &images).into_iter().enumerate() {
            let told = labels.to_i64_vec()[picture * most..][..most].iter().filter(|label| **label >= 0).count();
            assert!(told > 10);
            assert_eq!(told, found.boxes.len());
            for ((corners, score), label) in found.boxes.iter().zip(&found.scores).zip(&found.labels) {
                let same = |place: &usize| {
                    let near = |axis: usize| (boxes.f32s().unwrap()[4 * place + axis] - corners[axis]).abs() < 1e-2;
                    labels.to_i64_vec()[*place] == *label as i64
                        && (scores.f32s().unwrap()[*place] - score).abs() < 1e-5
                        && (0..4).all(near)
                };
                assert!(
                    (picture * most..(picture + 1) * most).any(|place| same(&place)),
                    "{corners:?} {score} {label}"
                );
            }
        }
    }

    #[test]
    fn the_file_gives_every_box_inside_the_picture() {
        let detector = Detector::new("striate_det_n", CLASSES, 1).unwrap();
        let file = of_file(one_stage(detector.net(), "striate_det_n").unwrap(), false, &pictures());
        let cells = 12 * 12 + 6 * 6 + 3 * 3;
        assert_eq!((file[0].shape().dims(), file[1].shape().dims()), (&[2, cells, 4][..], &[2, cells, CLASSES][..]));
        assert!(file[0].f32s().unwrap().iter().all(|v| (0.0..=SIDE as f32).contains(v)));
        assert!(file[1].f32s().unwrap().iter().all(|v| (0.0..=1.0).contains(v)));
    }

    #[test]
    fn two_stages_are_refused_by_name() {
        let net = find_detector("fasterrcnn_resnet50_fpn").unwrap().structure(3, None).unwrap();
        let error = one_stage(&*net, "fasterrcnn_resnet50_fpn").err().unwrap().to_string();
        assert!(error.starts_with("fasterrcnn_resnet50_fpn is a detector of two stages"), "{error}");
    }

    #[test]
    fn what_is_left_is_filled_up() {
        let boxes =
            Array::from_vec([1, 3, 4], [[0f32, 0., 10., 10.], [0., 1., 10., 10.], [20., 20., 30., 30.]].concat());
        let candidates = Array::from_vec([1, 2, 3], vec![0.5f32, 0.9, 0.0, 0.05, 0.0, 0.6]).unwrap();
        let selection = Selection { score: 0.1, iou: 0.5, candidates: 9, most: 4 };
        let [boxes, scores, labels] = selection.select(&boxes.unwrap(), &candidates).unwrap();
        assert_eq!(scores.f32s().unwrap(), [0.9, 0.6, 0.0, 0.0]);
        assert_eq!(labels.to_i64_vec(), [0, 1, -1, -1]);
        assert_eq!(boxes.f32s().unwrap()[..8], [0., 1., 10., 10., 20., 20., 30., 30.]);
    }
}
