//! What an exported detector gives, read back: the file's metadata say what its outputs are and which boxes are meant to be left.

use super::boxes::best;
use super::decoded::Groups;
use super::detector::{DetectError, Detections};
use super::heads::{Candidates, Selection, four};
use crate::models::ModelError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use striate_graph::Array;

/// What `output_values` says of outputs from which the boxes are still to be chosen, of chosen ones, and of those with masks.
const ALL: &str = "boxes and scores";
const CHOSEN: &str = "detections";
const MASKED: &str = "detections and masks";
/// Boxes that may be looked among and left: each is compared with all that are left.
const MOST_BOXES: usize = 10_000;

/// How the outputs of an exported detector are read.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportedBoxes {
    /// Which boxes are left.
    pub selection: Selection,
    /// Among which the best are looked for first.
    pub groups: Groups,
    /// Whether the file chooses itself: it gives `boxes` `[N, M, 4]`, `scores` `[N, M]` and `labels` `[N, M]`, -1 where there is none;
    /// else `boxes` `[N, A, 4]`, or `[N, A, classes, 4]` where each class has its own, and `scores` `[N, A, classes]`.
    pub chosen: bool,
    /// Whether a file that chooses itself gives `masks` `[N, M, S, S]` too: the probabilities of the pixels of each box.
    pub masks: bool,
}

/// As it stands in the metadata, under `thresholds`.
#[derive(Serialize, Deserialize)]
struct Thresholds {
    score: f32,
    iou: f64,
    candidates: usize,
    max_detections: usize,
    /// Anchors of each level, where the best of a level are taken; without them the best of each class are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    levels: Option<Vec<usize>>,
}

impl ExportedBoxes {
    /// As it is written into the file, by key.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let Selection { score, iou, candidates, most } = self.selection;
        let levels = match &self.groups {
            Groups::Levels(levels) => Some(levels.clone()),
            Groups::Classes => None,
        };
        let thresholds = serde_json::json!(Thresholds { score, iou, candidates, max_detections: most, levels });
        let values = match (self.chosen, self.masks) {
            (true, true) => MASKED,
            (true, false) => CHOSEN,
            (false, _) => ALL,
        };
        [("thresholds", thresholds.to_string()), ("output_values", values.to_owned())]
            .map(|(key, value)| (key.to_owned(), value))
            .into()
    }

    /// The number of the file's outputs.
    pub fn outputs(&self) -> usize {
        if self.chosen { 3 + usize::from(self.masks) } else { 2 }
    }

    /// What the metadata of a file say; `path` is what errors name.
    ///
    /// # Errors
    /// Metadata that are missing or broken.
    pub fn parse(path: &Path, metadata: &BTreeMap<String, String>) -> Result<ExportedBoxes, ModelError> {
        let wrong = |why: String| ModelError::NotAModel { path: path.into(), why };
        let text = |key: &str| {
            let lacking = || {
                wrong(format!(
                    "the metadata has no `{key}`, by which its outputs could be read as boxes; export it again"
                ))
            };
            metadata.get(key).ok_or_else(lacking)
        };
        let [chosen, masks] = match text("output_values")?.as_str() {
            MASKED => [true, true],
            CHOSEN => [true, false],
            ALL => [false, false],
            other => {
                let why = format!("metadata `output_values` is `{other}`, none of `{ALL}`, `{CHOSEN}` and `{MASKED}`");
                return Err(wrong(why));
            }
        };
        let Thresholds { score, iou, candidates, max_detections, levels } =
            serde_json::from_str(text("thresholds")?).map_err(|e| wrong(format!("metadata `thresholds`: {e}")))?;
        if !(0.0..=1.0).contains(&score) || !(0.0..=1.0).contains(&iou) || candidates.max(max_detections) > MOST_BOXES {
            return Err(wrong(format!(
                "metadata `thresholds` has score {score}, iou {iou}, candidates {candidates} and max_detections {max_detections}; the \
                 first two go from 0 to 1, the others to {MOST_BOXES}"
            )));
        }
        let selection = Selection { score, iou, candidates, most: max_detections };
        let groups = levels.map_or(Groups::Classes, Groups::Levels);
        Ok(ExportedBoxes { selection, groups, chosen, masks })
    }

    /// What the outputs of a run say of each picture, the best first: corners in pixels of the input, labels below `classes`, masks as
    /// the file gives them, squares of probabilities inside the boxes.
    ///
    /// # Errors
    /// Outputs that are not those that the metadata tell; numbers that are not finite.
    pub fn decode(&self, outputs: &[Array], classes: usize) -> Result<Vec<Detections>, DetectError> {
        let floats = ["boxes", "scores"].into_iter().zip(outputs).chain(outputs.get(3).map(|masks| ("masks", masks)));
        for (name, output) in floats {
            if let Some(&value) = output.f32s()?.iter().find(|value| !value.is_finite()) {
                return Err(DetectError::NotFinite { output: name.to_owned(), value });
            }
        }
        let told = || outputs.iter().map(|output| output.shape().to_string()).collect::<Vec<_>>().join(", ");
        let wrong =
            |wanted: &str| DetectError::Outputs { why: format!("they are {}; its metadata tell of {wanted}", told()) };
        match (self.chosen, outputs) {
            (true, [boxes, scores, labels, masks @ ..]) if masks.len() == usize::from(self.masks) => {
                let fits = match (boxes.shape().dims(), scores.shape().dims(), labels.shape().dims()) {
                    ([n, m, 4], [k, l], [i, j]) => [n, m] == [k, l] && [n, m] == [i, j],
                    _ => false,
                };
                let is_mask = |masks: &Array| matches!(masks.shape().dims(), [n, m, h, w] if [*n, *m] == scores.shape().dims() && h == w);
                if !fits || !masks.iter().all(is_mask) {
                    let of_masks = if self.masks { ", masks [N, M, S, S]" } else { "" };
                    return Err(wrong(&format!("boxes [N, M, 4], scores [N, M], labels [N, M]{of_masks}")));
                }
                self.decode_chosen([boxes, scores, labels], masks.first(), classes)
            }
            (false, [boxes, scores]) => {
                let fits = match (boxes.shape().dims(), scores.shape().dims()) {
                    ([n, a, 4], [k, b, c]) => [n, a] == [k, b] && *c == classes && self.fits(*a),
                    ([n, a, d, 4], [k, b, c]) => [n, a, d] == [k, b, c] && *c == classes && self.fits(*a),
                    _ => false,
                };
                if !fits {
                    let own = format!(
                        "boxes [N, A, 4] or [N, A, {classes}, 4] and scores [N, A, {classes}], A of all levels"
                    );
                    return Err(wrong(&own));
                }
                let own = boxes.shape().rank() == 4;
                let of =
                    |picture: usize| Ok(self.choose((values(boxes, picture)?, own), values(scores, picture)?, classes));
                (0..scores.shape()[0]).map(of).collect()
            }
            _ => Err(wrong(&format!("{} outputs", self.outputs()))),
        }
    }

    /// Whether the levels have so many anchors in all.
    fn fits(&self, anchors: usize) -> bool {
        match &self.groups {
            Groups::Levels(levels) => {
                levels.iter().try_fold(0usize, |sum, level| sum.checked_add(*level)) == Some(anchors)
            }
            Groups::Classes => true,
        }
    }

    /// What the file has chosen itself.
    fn decode_chosen(
        &self,
        [boxes, scores, labels]: [&Array; 3],
        masks: Option<&Array>,
        classes: usize,
    ) -> Result<Vec<Detections>, DetectError> {
        let (pictures, most) = (scores.shape()[0], scores.shape()[1]);
        let all = labels.to_i64_vec();
        if let Some(label) = all.iter().find(|&&label| label >= classes as i64) {
            return Err(DetectError::Outputs { why: format!("a label is {label}, and there are {classes} classes") });
        }
        let of = |picture: usize| {
            let labels = &all[picture * most..][..most];
            let places: Vec<usize> = (0..most).filter(|&place| labels[place] >= 0).collect();
            let (boxes, scores) = (values(boxes, picture)?, values(scores, picture)?);
            let masks = masks.map(|masks| {
                let side = masks.shape()[3];
                let (values, pixels) = (values(masks, picture)?, side * side);
                let kept = places.iter().flat_map(|place| &values[place * pixels..][..pixels]).copied().collect();
                Array::from_vec([places.len(), side, side], kept)
            });
            Ok(Detections {
                boxes: places.iter().map(|&place| four(boxes, place)).collect(),
                scores: places.iter().map(|&place| scores[place]).collect(),
                labels: places.iter().map(|&place| labels[place] as usize).collect(),
                masks: masks.transpose()?,
            })
        };
        (0..pictures).map(of).collect()
    }

    /// What is left of a picture's boxes `[A, 4]`, or `[A, classes, 4]` where each class has its `own`, and scores `[A, classes]`, as
    /// [`DetectionNet::decode`](super::DetectionNet::decode) chooses.
    fn choose(&self, (boxes, own): (&[f32], bool), scores: &[f32], classes: usize) -> Detections {
        let mut candidates = Candidates::default();
        let mut look = |places: &mut dyn Iterator<Item = usize>| {
            let above =
                places.filter(|&place| scores[place] > self.selection.score).map(|place| (scores[place], place));
            for (score, place) in best(above.collect(), self.selection.candidates) {
                let corners = four(boxes, if own { place } else { place / classes });
                candidates.push(corners, score, place % classes);
            }
        };
        match &self.groups {
            Groups::Classes => (0..classes).for_each(|class| look(&mut (class..scores.len()).step_by(classes))),
            Groups::Levels(levels) => {
                let mut first = 0;
                for anchors in levels {
                    look(&mut (first * classes..(first + anchors) * classes));
                    first += anchors;
                }
            }
        }
        candidates.suppress(&self.selection)
    }
}

/// The values of one of the pictures `[N, …]`.
fn values(array: &Array, picture: usize) -> striate_graph::Result<&[f32]> {
    let each = array.shape().iter().skip(1).product::<usize>();
    Ok(&array.f32s()?[picture * each..][..each])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxes(chosen: bool, groups: Groups) -> ExportedBoxes {
        ExportedBoxes {
            selection: Selection { score: 0.1, iou: 0.5, candidates: 2, most: 3 },
            groups,
            chosen,
            masks: false,
        }
    }

    /// Three boxes apart from each other, and their scores of two classes.
    fn outputs() -> [Array; 2] {
        let corners = (0..3).flat_map(|i| [20.0 * i as f32, 0.0, 20.0 * i as f32 + 10.0, 10.0]).collect();
        let scores = vec![0.9f32, 0.2, 0.8, 0.05, 0.3, 0.7];
        [Array::from_vec([1, 3, 4], corners).unwrap(), Array::from_vec([1, 3, 2], scores).unwrap()]
    }

    #[test]
    fn the_best_of_each_group_are_left() {
        let found = boxes(false, Groups::Levels(vec![2, 1])).decode(&outputs(), 2).unwrap().remove(0);
        // Two of four places of the first level, two of the second; three are left.
        assert_eq!((found.scores, found.labels), (vec![0.9, 0.8, 0.7], vec![0, 0, 1]));
        assert_eq!(found.boxes[2], [40.0, 0.0, 50.0, 10.0]);
        let found = boxes(false, Groups::Classes).decode(&outputs(), 2).unwrap().remove(0);
        assert_eq!((found.scores, found.labels), (vec![0.9, 0.8, 0.7], vec![0, 0, 1]));
    }

    #[test]
    fn what_the_file_has_chosen_ends_with_the_first_label_below_zero() {
        let [corners, _] = outputs();
        let scores = Array::from_vec([1, 3], vec![0.9f32, 0.5, 0.0]).unwrap();
        let labels = |last: i64| Array::from_vec([1, 3], vec![1i64, 0, last]).unwrap();
        let read = boxes(true, Groups::Classes);
        let found = read.decode(&[corners.clone(), scores.clone(), labels(-1)], 2).unwrap().remove(0);
        assert_eq!((found.scores, found.labels, found.boxes.len()), (vec![0.9, 0.5], vec![1, 0], 2));
        let error = read.decode(&[corners, scores, labels(2)], 2).unwrap_err().to_string();
        assert!(error.contains("a label is 2"), "{error}");
    }

    #[test]
    fn masks_come_with_their_boxes() {
        let [corners, _] = outputs();
        let scores = Array::from_vec([1, 3], vec![0.9f32, 0.0, 0.5]).unwrap();
        let labels = Array::from_vec([1, 3], vec![1i64, -1, 0]).unwrap();
        let masks = Array::from_vec([1, 3, 2, 2], (0..12).map(|v| v as f32).collect()).unwrap();
        let read = ExportedBoxes { masks: true, ..boxes(true, Groups::Classes) };
        let given = [corners, scores, labels, masks];
        let found = read.decode(&given, 2).unwrap().remove(0).masks.unwrap();
        assert_eq!(
            (found.shape().dims(), found.f32s().unwrap()),
            (&[2, 2, 2][..], &[0., 1., 2., 3., 8., 9., 10., 11.][..])
        );
        let refuse = |read: &ExportedBoxes, given: &[Array]| read.decode(given, 2).unwrap_err().to_string();
        assert!(refuse(&read, &given[..3]).contains("4 outputs"));
        assert!(refuse(&boxes(true, Groups::Classes), &given).contains("3 outputs"));
        let broken = [&given[..3], &[Array::full([1, 3, 2, 3], 0f32)]].concat();
        assert!(refuse(&read, &broken).contains("masks [N, M, S, S]"));
    }

    #[test]
    fn each_class_may_have_its_own_boxes() {
        let (read, [_, scores]) = (boxes(false, Groups::Classes), outputs());
        let corners = (0..6).flat_map(|i| [20.0 * i as f32, 0.0, 20.0 * i as f32 + 10.0, 10.0]).collect();
        let corners = Array::from_vec([1, 3, 2, 4], corners).unwrap();
        let found = read.decode(&[corners.clone(), scores], 2).unwrap().remove(0);
        assert_eq!(
            (found.labels, found.boxes.iter().map(|corners| corners[0]).collect::<Vec<_>>()),
            (vec![0, 0, 1], vec![0., 40., 100.])
        );
        let error = read.decode(&[corners, Array::full([1, 3, 3], 0f32)], 3).unwrap_err().to_string();
        assert!(error.contains("[N, A, 3, 4]"), "{error}");
    }

    #[test]
    fn pictures_without_boxes_are_pictures() {
        let array = |shape: &[usize]| Array::full(shape, 0f32);
        let none = Array::full([2, 0], 0i64);
        let found = boxes(true, Groups::Classes).decode(&[array(&[2, 0, 4]), array(&[2, 0]), none], 2).unwrap();
        assert_eq!(found.iter().map(|found| found.boxes.len()).collect::<Vec<_>>(), [0, 0]);
        let found = boxes(false, Groups::Classes).decode(&[array(&[2, 0, 4]), array(&[2, 0, 2])], 2).unwrap();
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn the_metadata_say_it_again_and_what_does_not_fit_is_refused() {
        let masked = ExportedBoxes { masks: true, ..boxes(true, Groups::Classes) };
        for read in [boxes(true, Groups::Classes), boxes(false, Groups::Levels(vec![2, 1])), masked] {
            assert_eq!(ExportedBoxes::parse("a.onnx".as_ref(), &read.metadata()).unwrap(), read);
        }
        let mut broken = boxes(false, Groups::Classes).metadata();
        let refuse = |metadata: &BTreeMap<String, String>| {
            ExportedBoxes::parse("a.onnx".as_ref(), metadata).unwrap_err().to_string()
        };
        broken.insert("thresholds".into(), "{\"score\": 0.1}".into());
        assert!(refuse(&broken).contains("thresholds"), "{}", refuse(&broken));
        let endless = r#"{"score": 0.1, "iou": 2.0, "candidates": 1000000000, "max_detections": 3}"#;
        broken.insert("thresholds".into(), endless.into());
        assert!(refuse(&broken).contains("candidates 1000000000"), "{}", refuse(&broken));
        broken.remove("thresholds");
        assert!(refuse(&broken).contains("export it again"), "{}", refuse(&broken));
        let refuse = |read: ExportedBoxes, outputs: &[Array]| read.decode(outputs, 2).unwrap_err().to_string();
        let more = refuse(boxes(false, Groups::Levels(vec![2, 2])), &outputs());
        assert!(more.contains("[1, 3, 4]") && more.contains("all levels"), "{more}");
        assert!(refuse(boxes(true, Groups::Classes), &outputs()).contains("3 outputs"));
        let endless = Groups::Levels(vec![usize::MAX, 4]);
        assert!(refuse(boxes(false, endless), &outputs()).contains("all levels"));
        let nan = [outputs()[0].clone(), Array::full([1, 3, 2], f32::NAN)];
        assert!(refuse(boxes(false, Groups::Classes), &nan).contains("`scores`"));
    }
}
