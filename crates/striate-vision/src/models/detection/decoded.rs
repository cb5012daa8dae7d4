//! Detectors traced up to their boxes, in operations that other runtimes have: what an exported model holds.

use super::heads::Selection;
use striate_graph::{Array, Tensor};
use striate_io::onnx::{BoxSuppression, suppress_boxes};

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
    /// Corners in pixels, inside of the batch: `[N, A, 4]`; `[N, A, classes, 4]` where each class has its own, as in nets of two stages,
    /// whose proposals are the A.
    pub boxes: Tensor,
    /// Probability of each class, without a background: `[N, A, classes]`.
    pub scores: Tensor,
    /// Where the best are looked for.
    pub groups: Groups,
    /// Values among which the net has chosen already, by name: what the first of two stages says. Behind each stands a `detach`: what
    /// comes then may jump where two of them are nearly equal.
    pub chosen_from: Vec<(&'static str, Tensor)>,
}

/// What is left of it.
pub struct Chosen {
    /// Corners in pixels, inside of the batch, the best first: `[N, M, 4]`; 0 where there are fewer.
    pub boxes: Tensor,
    /// `[N, M]`, 0 where there are fewer.
    pub scores: Tensor,
    /// Classes, counted from that of the first score: `[N, M]`, i64, -1 where there are fewer.
    pub labels: Tensor,
    /// Probabilities of the pixels of each box, `[N, M, 28, 28]`, of nets that give masks; 0 where there are fewer.
    pub masks: Option<Tensor>,
    /// As [`Decoded::chosen_from`], and the boxes and scores themselves.
    pub chosen_from: Vec<(&'static str, Tensor)>,
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
    /// The scores of what [`DetectionNet::decode`](super::DetectionNet::decode) suppresses among, the threshold aside, 0 for all others: `[N, classes, A]`.
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

    /// Records what is left of the boxes: a model does it by `NonMaxSuppression`.
    #[track_caller]
    pub fn choose(self, selection: &Selection) -> Chosen {
        let Decoded { boxes, scores, groups, mut chosen_from } = self;
        let given = Decoded { boxes: boxes.detach(), scores: scores.detach(), groups, chosen_from: Vec::new() };
        let corners = match given.boxes.shape().rank() {
            4 => given.boxes.permute(&[0, 2, 1, 3]),
            _ => given.boxes.clone(),
        };
        let how = BoxSuppression { score: selection.score, iou: selection.iou as f32, most: selection.most };
        chosen_from.extend([("all_boxes", boxes), ("all_scores", scores)]);
        let [boxes, scores, labels] = suppress_boxes(&corners, &given.candidates(selection), how);
        Chosen { boxes, scores, labels, masks: None, chosen_from }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DetectionNet, Detections, Detector, Frame};
    use super::*;
    use std::sync::Arc;
    use striate_graph::{DType, Mode, Program, Session, Trace};
    use striate_io::onnx::{OnnxModel, OnnxOptions, OnnxSession, export_onnx_of};

    const SIDE: usize = 96;
    const CLASSES: usize = 3;

    fn pictures() -> Array {
        let value = |i: usize| ((i % SIDE) as f32 * 0.21 + (i / SIDE) as f32 * 0.13).sin() * 0.5 + 0.5;
        Array::from_vec([2, 3, SIDE, SIDE], (0..6 * SIDE * SIDE).map(value).collect::<Vec<f32>>()).unwrap()
    }

    /// The outputs of the file that holds the net.
    fn of_file(net: &dyn DetectionNet, nms: bool, images: &Array) -> Vec<Array> {
        let first = net.first_label();
        let forward = |x: &Tensor| match nms {
            true => {
                let Chosen { boxes, scores, labels, masks, .. } = net.chosen(x, first);
                let given = vec![("boxes", boxes), ("scores", scores), ("labels", labels)];
                given.into_iter().chain(masks.map(|masks| ("masks", masks))).collect()
            }
            false => {
                let decoded = net.decoded(x, first);
                vec![("boxes", decoded.boxes), ("scores", decoded.scores)]
            }
        };
        let proto = export_onnx_of(&forward, &[3, SIDE, SIDE], &OnnxOptions::default()).unwrap();
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

    /// A net that finds something: the last layers of fresh ones say nearly the same of all boxes and classes.
    fn loud(name: &str) -> Detector {
        let detector = Detector::new(name, CLASSES, 1).unwrap();
        for (name, cell) in detector.net().named_parameters() {
            let factor = match name.rsplit('.').take(2).collect::<Vec<_>>()[..] {
                ["bias", "cls_logits"] => 0.0,
                ["weight", "cls_score"] => 20.0,
                ["weight", "cls_logits" | "bbox_pred" | "mask_fcn_logits"] => 10.0,
                _ => continue,
            };
            cell.update(|values| values.as_mut_slice::<f32>().unwrap().iter_mut().for_each(|v| *v *= factor));
        }
        detector
    }

    #[test]
    fn the_file_says_what_the_library_finds() {
        let nets = [Detector::new("striate_det_n", CLASSES, 1).unwrap(), loud("retinanet_resnet18_fpn")];
        for detector in &nets {
            let (name, net, images) = (detector.spec().name, detector.net(), pictures());
            let file = of_file(net, true, &images);
            let [boxes, scores, labels] = &file[..] else { panic!("{} outputs", file.len()) };
            let most = boxes.shape()[1];
            for (picture, found) in of_host(net, &images).into_iter().enumerate() {
                let told = labels.to_i64_vec()[picture * most..][..most].iter().filter(|label| **label >= 0).count();
                assert!(told > 10, "{name}: {told}");
                assert_eq!(told, found.boxes.len(), "{name}");
                for ((corners, score), label) in found.boxes.iter().zip(&found.scores).zip(&found.labels) {
                    let same = |place: &usize| {
                        let near = |axis: usize| (boxes.f32s().unwrap()[4 * place + axis] - corners[axis]).abs() < 1e-2;
                        labels.to_i64_vec()[*place] + net.first_label() as i64 == *label as i64
                            && (scores.f32s().unwrap()[*place] - score).abs() < 1e-5
                            && (0..4).all(near)
                    };
                    assert!(
                        (picture * most..(picture + 1) * most).any(|place| same(&place)),
                        "{name}: {corners:?} {score} {label}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_file_gives_every_box_inside_the_picture() {
        let detector = Detector::new("striate_det_n", CLASSES, 1).unwrap();
        let two_stages = loud("fasterrcnn_mobilenet_v3_large_320_fpn");
        let cells = 12 * 12 + 6 * 6 + 3 * 3;
        for (net, boxes, scores) in [
            (detector.net(), &[2, cells, 4][..], &[2, cells, CLASSES][..]),
            // Of 150 proposals at most; class 0 is the background.
            (two_stages.net(), &[2, 150, CLASSES - 1, 4], &[2, 150, CLASSES - 1]),
        ] {
            let file = of_file(net, false, &pictures());
            assert_eq!((file[0].shape().dims(), file[1].shape().dims()), (boxes, scores));
            assert!(file[0].f32s().unwrap().iter().all(|v| (0.0..=SIDE as f32).contains(v)));
            assert!(file[1].f32s().unwrap().iter().all(|v| (0.0..=1.0).contains(v)));
            assert!(file[1].f32s().unwrap().iter().any(|v| *v > 0.0));
        }
    }
}
