//! What a detector finds, beside what is there.

use crate::Result;
use striate_graph::{Array, DType, Mode, Program, Tensor, Trace};
use striate_vision::data::Batch;
use striate_vision::detection::{BoxConfusion, CocoFigures, Detection, GroundTruth, confusion_matrix, evaluate_coco};
use striate_vision::models::detection::{DetectionNet, Detections, Frame, RawHeads, clip_to, resize_box};
use striate_vision::transforms::{Letterbox, Thing};

/// Overlap from which a detection and a thing are the same, for the confusion.
const CONFUSION_IOU: f64 = 0.5;

/// The graph of a detector's heads for a batch `[N, C, H, W]`, and how pictures lie in it.
pub(crate) fn heads_graph(net: &dyn DetectionNet, shape: &[usize]) -> Result<(striate_graph::Graph, Frame)> {
    let trace = Trace::new(Mode::Eval);
    let x = trace.input("input", shape, DType::F32);
    let size = [shape[2], shape[3]];
    let RawHeads { outputs, levels } = net.heads(&x, size);
    let outputs: Vec<(&str, &Tensor)> = outputs.iter().map(|(name, value)| (*name, value)).collect();
    Ok((trace.finish(&outputs)?, Frame { batch: size, size, levels }))
}

/// The first output of a program that holds a number that is not finite, with that number.
pub(crate) fn find_broken(program: &Program, outputs: &[Array]) -> Option<(String, f32)> {
    program.outputs().zip(outputs).find_map(|((name, _), output)| {
        let value = output.f32s().ok()?.iter().find(|value| !value.is_finite())?;
        Some((name.to_owned(), *value))
    })
}

/// Boxes of a picture in a batch of this height and width, as they are in the picture itself, of the height and width `source`.
pub fn into_source(mut found: Detections, frame: [usize; 2], source: [usize; 2]) -> Detections {
    let fitted = Letterbox::fitted(source, frame);
    for corners in &mut found.boxes {
        *corners = resize_box(fitted, source, clip_to(fitted, *corners));
    }
    found
}

/// What was judged once all pictures were seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// COCO's figures.
    pub figures: CocoFigures,
    /// What was taken for what, at the confidence of `best`.
    pub confusion: BoxConfusion,
    /// The confidence at which the mean F1 is best, with that F1.
    pub best: (f64, f64),
}

/// Things and detections of the pictures so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DetectionCounts {
    classes: usize,
    images: i64,
    truth: Vec<GroundTruth>,
    found: Vec<Detection>,
    judged: Option<Judged>,
}

fn xywh([x1, y1, x2, y2]: [f64; 4]) -> [f64; 4] {
    [x1, y1, x2 - x1, y2 - y1]
}

impl DetectionCounts {
    /// Nothing yet, of so many classes.
    pub fn new(classes: usize) -> DetectionCounts {
        DetectionCounts { classes, ..DetectionCounts::default() }
    }

    /// Pictures.
    pub fn pictures(&self) -> u64 {
        self.images as u64
    }

    /// One picture: what is there, and what was found, both in its own pixels. `first` is the label of class 0.
    pub fn add(&mut self, things: &[Thing], found: &Detections, first: usize) {
        self.images += 1;
        let image = self.images;
        for thing in things {
            self.truth.push(GroundTruth {
                image,
                category: thing.class as i64,
                xywh: xywh(thing.xyxy),
                area: thing.area.unwrap_or_else(|| thing.box_area()),
                iscrowd: thing.crowd,
                id: self.truth.len() as i64 + 1,
            });
        }
        for ((corners, score), label) in found.boxes.iter().zip(&found.scores).zip(&found.labels) {
            self.found.push(Detection {
                image,
                category: *label as i64 - first as i64,
                xywh: xywh(corners.map(f64::from)),
                score: f64::from(*score),
            });
        }
    }

    /// All pictures of a batch; `found` are in its pixels.
    pub(crate) fn add_batch(&mut self, batch: &Batch, found: Vec<Detections>, first: usize) {
        let frame = [batch.shape[2], batch.shape[3]];
        let samples = batch.boxes.samples().iter().zip(&batch.boxes.sources);
        for ((things, source), found) in samples.zip(found) {
            self.add(things, &into_source(found, frame, *source), first);
        }
    }

    /// Judges all of it.
    pub fn close(&mut self) {
        let images: Vec<i64> = (1..=self.images).collect();
        let categories: Vec<i64> = (0..self.classes as i64).collect();
        let figures = evaluate_coco(&images, &categories, &self.truth, &self.found);
        let best = figures.best_f1();
        let confusion = confusion_matrix(&categories, &self.truth, &self.found, (best.0, CONFUSION_IOU));
        self.judged = Some(Judged { figures, confusion, best: (best.0, best.1.max(0.0)) });
    }

    /// What [`DetectionCounts::close`] found.
    pub fn judged(&self) -> Option<&Judged> {
        self.judged.as_ref()
    }

    /// Mean average precision at IoU 0.5 and over IoU 0.5 to 0.95; 0 where there is nothing to find.
    pub fn means(&self) -> [f64; 2] {
        self.judged.as_ref().map_or([0.0; 2], |judged| [1, 0].map(|stat| judged.figures.stats[stat].max(0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_in_a_batch_is_judged_in_the_picture() {
        let thing = Thing { xyxy: [100.0, 40.0, 200.0, 120.0], class: 1, ..Thing::default() };
        // A picture of 400x200 in a batch of 100x100: a quarter of its size, in the upper half.
        let found = Detections {
            boxes: vec![[25.0, 10.0, 50.0, 30.0], [90.0, 40.0, 120.0, 90.0]],
            scores: vec![0.9, 0.3],
            labels: vec![2, 1],
            masks: None,
        };
        let found = into_source(found, [100, 100], [200, 400]);
        assert_eq!(found.boxes, [[100.0, 40.0, 200.0, 120.0], [360.0, 160.0, 400.0, 200.0]]);
        let mut counts = DetectionCounts::new(2);
        counts.add(&[thing], &found, 1);
        counts.add(&[], &Detections::default(), 1);
        counts.close();
        assert_eq!(counts.pictures(), 2);
        // a mean of 101 ones, in floats
        assert!(counts.means().iter().all(|mean| (mean - 1.0).abs() < 1e-12), "{:?}", counts.means());
        let judged = counts.judged().unwrap();
        assert_eq!(judged.confusion.counts[1][1], 1);
    }
}
