//! What an exported detector gives, read back: the file's metadata say what its outputs are and which boxes are meant to be left.

use super::boxes::best;
use super::detector::{DetectError, Detections};
use super::heads::{Candidates, Selection, by_picture, four};
use super::one_stage::Groups;
use crate::models::ModelError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use striate_graph::Array;

/// What `output_values` says of outputs from which the boxes are still to be chosen, and of chosen ones.
const ALL: &str = "boxes and scores";
const CHOSEN: &str = "detections";
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
    /// else `boxes` `[N, A, 4]` and `scores` `[N, A, classes]`.
    pub chosen: bool,
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
        let values = if self.chosen { CHOSEN } else { ALL };
        [("thresholds", thresholds.to_string()), ("output_values", values.to_owned())]
            .map(|(key, value)| (key.to_owned(), value))
            .into()
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
        let chosen = match text("output_values")?.as_str() {
            CHOSEN => true,
            ALL => false,
            other => {
                return Err(wrong(format!("metadata `output_values` is `{other}`, neither `{ALL}` nor `{CHOSEN}`")));
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
        Ok(ExportedBoxes { selection, groups, chosen })
    }

    /// What the outputs of a run say of each picture, the best first: corners in pixels of the input, labels below `classes`.
    ///
    /// # Errors
    /// Outputs that are not those that the metadata tell; numbers that are not finite.
    pub fn decode(&self, outputs: &[Array], classes: usize) -> Result<Vec<Detections>, DetectError> {
        for (name, output) in ["boxes", "scores"].into_iter().zip(outputs) {
            if let Some(&value) = output.f32s()?.iter().find(|value| !value.is_finite()) {
                return Err(DetectError::NotFinite { output: name.to_owned(), value });
            }
        }
        let told = || outputs.iter().map(|output| output.shape().to_string()).collect::<Vec<_>>().join(", ");
        let wrong =
            |wanted: &str| DetectError::Outputs { why: format!("they are {}; its metadata tell of {wanted}", told()) };
        match (self.chosen, outputs) {
            (true, [boxes, scores, labels]) => {
                let fits = match (boxes.shape().dims(), scores.shape().dims(), labels.shape().dims()) {
                    ([n, m, 4], [k, l], [i, j]) => [n, m] == [k, l] && [n, m] == [i, j],
                    _ => false,
                };
                if !fits {
                    return Err(wrong("boxes [N, M, 4], scores [N, M] and labels [N, M]"));
                }
                self.decode_chosen([boxes, scores, labels], classes)
            }
            (false, [boxes, scores]) => {
                let fits = match (boxes.shape().dims(), scores.shape().dims()) {
                    ([n, a, 4], [k, b, c]) => [n, a] == [k, b] && *c == classes && self.fits(*a),
                    _ => false,
                };
                if !fits {
                    return Err(wrong(&format!("boxes [N, A, 4] and scores [N, A, {classes}], A of all levels")));
                }
                Ok(by_picture(boxes)?.zip(by_picture(scores)?).map(|(b, s)| self.choose(b, s, classes)).collect())
            }
            _ => Err(wrong(if self.chosen { "3 outputs" } else { "2 outputs" })),
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
        classes: usize,
    ) -> Result<Vec<Detections>, DetectError> {
        let most = scores.shape()[1].max(1);
        let labels = labels.to_i64_vec();
        if let Some(label) = labels.iter().find(|&&label| label >= classes as i64) {
            return Err(DetectError::Outputs { why: format!("a label is {label}, and there are {classes} classes") });
        }
        let pictures = by_picture(boxes)?.zip(by_picture(scores)?).zip(labels.chunks_exact(most));
        let found = pictures.map(|((boxes, scores), labels)| {
            let mut found = Detections::default();
            for (place, &label) in labels.iter().enumerate().filter(|(_, label)| **label >= 0) {
                found.boxes.push(four(boxes, place));
                found.scores.push(scores[place]);
                found.labels.push(label as usize);
            }
            found
        });
        Ok(found.collect())
    }

    /// What is left of a picture's boxes `[A, 4]` and scores `[A, classes]`, as [`DetectionNet::decode`](super::DetectionNet::decode)
    /// chooses.
    fn choose(&self, boxes: &[f32], scores: &[f32], classes: usize) -> Detections {
        let mut candidates = Candidates::default();
        let mut look = |places: &mut dyn Iterator<Item = usize>| {
            let above =
                places.filter(|&place| scores[place] > self.selection.score).map(|place| (scores[place], place));
            for (score, place) in best(above.collect(), self.selection.candidates) {
                candidates.push(four(boxes, place / classes), score, place % classes);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn boxes(chosen: bool, groups: Groups) -> ExportedBoxes {
        ExportedBoxes { selection: Selection { score: 0.1, iou: 0.5, candidates: 2, most: 3 }, groups, chosen }
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
    fn the_metadata_say_it_again_and_what_does_not_fit_is_refused() {
        for read in [boxes(true, Groups::Classes), boxes(false, Groups::Levels(vec![2, 1]))] {
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
