//! What a net is trained for: its loss in training, what is counted in evaluation, and how views are joined.

use crate::Result;
use crate::boxes::DetectionCounts;
use striate_graph::machine::Team;
use striate_graph::{Array, DType, Error, Tensor, Trace};
use striate_nn::loss::{BCEWithLogitsLoss, CrossEntropyLoss, Reduction, SmoothL1Loss, of_outputs};
use striate_vision::data::{Batch, IGNORE};
use striate_vision::metrics::{
    ClassificationMetrics, MultilabelMetrics, RegressionMetrics, SegmentationMetrics, pixel_classes,
};
use striate_vision::models::detection::{DetectionNet, TwoStageTraining};
use striate_vision::models::{ModelInfo, TargetScale, Task};

/// A task with its number of outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// The task.
    pub task: Task,
    /// Classes, labels or numbers.
    pub outputs: usize,
    /// Shift and scale of the numbers of a regression.
    pub scale: Option<TargetScale>,
}

impl Goal {
    /// One of so many classes.
    pub fn classify(classes: usize) -> Goal {
        Goal { task: Task::Classify, outputs: classes, scale: None }
    }

    /// That of a trained net.
    pub fn of(info: &ModelInfo) -> Goal {
        Goal { task: info.task, outputs: info.class_names.len(), scale: info.targets.clone() }
    }

    /// The numbers that a regression's outputs stand for.
    pub fn numbers(&self, outputs: &[f32]) -> Vec<f64> {
        let Some(scale) = &self.scale else { return outputs.iter().map(|v| f64::from(*v)).collect() };
        let by_number = scale.mean.iter().zip(&scale.std).cycle();
        outputs.iter().zip(by_number).map(|(v, (mean, std))| f64::from(*v) * std + mean).collect()
    }

    /// The numbers of a regression as a net gives them.
    fn scaled(&self, numbers: &[f32]) -> Vec<f32> {
        let Some(scale) = &self.scale else { return numbers.to_vec() };
        let by_number = scale.mean.iter().zip(&scale.std).cycle();
        numbers.iter().zip(by_number).map(|(v, (mean, std))| ((f64::from(*v) - mean) / std) as f32).collect()
    }

    /// What the targets of a batch are in a step's graph, by the names of its inputs: for one class each, or mixed ones, for pixels,
    /// labels, numbers or boxes.
    pub(crate) fn targets(&self, batch: &Batch, loss: &Loss) -> Result<Vec<(&'static str, Array)>> {
        let lacking = |what: &str| Error::Internal(format!("a batch has no {what}"));
        let targets = match loss {
            Loss::Classes(_, Mixed(true)) => {
                let soft = batch.target_array().ok_or_else(|| lacking("soft targets"))?;
                return Ok(vec![("targets", soft), ("labels", batch.label_array())]);
            }
            Loss::Boxes { most, first, masks } => {
                let [boxes, labels] = batch.truth_arrays(*most, *first);
                let masks = masks.then(|| ("masks", batch.shape_array(*most)));
                return Ok([("boxes", boxes), ("labels", labels)].into_iter().chain(masks).collect());
            }
            Loss::Classes(..) => batch.label_array(),
            Loss::Pixels(_) => batch.mask_array().ok_or_else(|| lacking("masks of its size"))?,
            Loss::Labels(_) | Loss::Numbers(_) => {
                let values = batch.targets.as_deref().ok_or_else(|| lacking("values"))?;
                Array::from_vec([batch.len(), self.outputs], self.scaled(values))?
            }
        };
        Ok(vec![("targets", targets)])
    }

    /// Nothing counted yet.
    pub(crate) fn counts(&self) -> Counts {
        match self.task {
            Task::Classify => Counts::Classify(ClassificationMetrics::new(self.outputs)),
            Task::Multilabel => Counts::Multilabel(MultilabelMetrics::new(self.outputs)),
            Task::Regress => Counts::Regress(RegressionMetrics::new(self.outputs)),
            Task::Segment => Counts::Segment(SegmentationMetrics::new(self.outputs)),
            Task::Detect => Counts::Detect(DetectionCounts::new(self.outputs)),
        }
    }

    /// Counts what a net gave for a batch; its losses are added up with how many they are.
    pub(crate) fn count(
        &self,
        counts: &mut Counts,
        (output, batch): (&Array, &Batch),
        team: &Team,
    ) -> Result<(f64, u64)> {
        let values = output.f32s()?;
        let lacking = || Error::Internal("a batch has no values".into());
        let targets = || batch.targets.as_deref().ok_or_else(lacking);
        Ok(match counts {
            Counts::Classify(counts) => {
                counts.update(values, &batch.labels);
                let rows = values.chunks_exact(self.outputs).zip(&batch.labels);
                (rows.map(|(row, &label)| cross_entropy(row, label)).sum(), batch.len() as u64)
            }
            Counts::Multilabel(counts) => {
                counts.update(values, targets()?);
                let pairs = values.iter().zip(targets()?);
                (pairs.map(|(x, t)| binary_cross_entropy(*x, *t)).sum(), values.len() as u64)
            }
            Counts::Regress(counts) => {
                counts.update(&self.numbers(values), targets()?);
                let pairs = values.iter().zip(self.scaled(targets()?));
                (pairs.map(|(x, t)| smooth_l1(f64::from(*x) - f64::from(t))).sum(), values.len() as u64)
            }
            Counts::Segment(counts) => {
                let &[_, k, h, w] = output.shape().dims() else {
                    return Err(Error::Internal(format!("pixels of shape {}", output.shape())).into());
                };
                let (mut loss, mut pixels) = (0.0, 0);
                for (logits, truth) in values.chunks_exact(k * h * w).zip(&batch.masks) {
                    let found = pixel_classes(team, (logits, [k, h, w]), [truth.height, truth.width], Some(truth));
                    counts.update(&found.classes.data, &truth.data);
                    (loss, pixels) = (loss + found.loss, pixels + found.counted);
                }
                (loss, pixels)
            }
            Counts::Detect(_) => return Err(Error::Internal("boxes are no rows of values".into()).into()),
        })
    }

    /// What several views of the same pictures come to: the logarithm of the mean probability, or the mean number. `mirrored` says
    /// which views are, so that pixels come back to their places.
    pub(crate) fn join_views(&self, views: &[Array], mirrored: &[bool]) -> Result<Array> {
        let shape = views[0].shape().clone();
        let mut sums = vec![0f64; shape.numel()];
        for (view, mirrored) in views.iter().zip(mirrored) {
            let values = view.f32s()?;
            match self.task {
                Task::Classify => add_softmax(values, [self.outputs, 1, 1], false, &mut sums),
                Task::Segment => add_softmax(values, sizes_of(view)?, *mirrored, &mut sums),
                Task::Multilabel => {
                    sums.iter_mut().zip(values).for_each(|(sum, x)| *sum += 1.0 / (1.0 + f64::from(-x).exp()));
                }
                Task::Regress => sums.iter_mut().zip(values).for_each(|(sum, x)| *sum += f64::from(*x)),
                Task::Detect => return Err(Error::Internal("boxes of several views are not joined".into()).into()),
            }
        }
        let n = views.len() as f64;
        let least = f64::from(f32::MIN);
        let join = |sum: f64| match self.task {
            Task::Classify | Task::Segment => match (sum / n).ln() {
                log if log < least => f32::MIN,
                log => log as f32,
            },
            Task::Multilabel => (sum / (n - sum).max(f64::MIN_POSITIVE)).ln().clamp(least, f64::from(f32::MAX)) as f32,
            Task::Regress | Task::Detect => (sum / n) as f32,
        };
        Ok(Array::from_vec(shape, sums.into_iter().map(join).collect())?)
    }
}

fn sizes_of(view: &Array) -> Result<[usize; 3]> {
    match *view.shape().dims() {
        [_, k, h, w] => Ok([k, h, w]),
        _ => Err(Error::Internal(format!("pixels of shape {}", view.shape())).into()),
    }
}

/// Adds the softmax over the first axis of each [classes, h, w].
fn add_softmax(values: &[f32], [k, h, w]: [usize; 3], mirrored: bool, sums: &mut [f64]) {
    let plane = h * w;
    for (values, sums) in values.chunks_exact(k * plane).zip(sums.chunks_exact_mut(k * plane)) {
        for pixel in 0..plane {
            let to = if mirrored { pixel / w * w + w - 1 - pixel % w } else { pixel };
            let column = || values.iter().skip(pixel).step_by(plane);
            let most = column().copied().fold(f32::NEG_INFINITY, |a, b| if b > a || b.is_nan() { b } else { a });
            let powers = || column().map(|&x| f64::from(x - most).exp());
            let total: f64 = powers().sum();
            sums.iter_mut().skip(to).step_by(plane).zip(powers()).for_each(|(sum, power)| *sum += power / total);
        }
    }
}

/// What the figures of an evaluation on val are called in `results.csv` and in events.
pub(crate) fn val_figures(task: Task) -> [&'static str; 2] {
    match task {
        Task::Classify => ["val_top1", "val_top5"],
        Task::Multilabel => ["val_mAP", "val_micro_f1"],
        Task::Regress => ["val_mae", "val_r2"],
        Task::Segment => ["val_mIoU", "val_pixel_accuracy"],
        Task::Detect => ["metrics/mAP50(B)", "metrics/mAP50-95(B)"],
    }
}

/// What an evaluation counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Counts {
    /// Hits and misses.
    Classify(ClassificationMetrics),
    /// Scores of labels.
    Multilabel(MultilabelMetrics),
    /// Numbers.
    Regress(RegressionMetrics),
    /// Pixels.
    Segment(SegmentationMetrics),
    /// Boxes.
    Detect(DetectionCounts),
}

impl Counts {
    /// Pictures.
    pub fn total(&self) -> u64 {
        match self {
            Counts::Classify(counts) => counts.total(),
            Counts::Multilabel(counts) => counts.total(),
            Counts::Regress(counts) => counts.total(),
            Counts::Segment(counts) => counts.pictures(),
            Counts::Detect(counts) => counts.pictures(),
        }
    }

    /// The two figures of an epoch.
    pub(crate) fn figures(&self) -> [f64; 2] {
        match self {
            Counts::Classify(counts) => [counts.top1(), counts.topk()],
            Counts::Multilabel(counts) => [counts.mean_average_precision(), counts.micro_f1()],
            Counts::Regress(counts) => [counts.overall().mae, counts.overall().r2],
            Counts::Segment(counts) => [counts.mean_iou(), counts.pixel_accuracy()],
            Counts::Detect(counts) => counts.means(),
        }
    }
}

/// Whether samples are mixed, so that targets are soft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mixed(pub bool);

/// The loss of a training step.
pub(crate) enum Loss {
    Classes(CrossEntropyLoss, Mixed),
    Labels(BCEWithLogitsLoss),
    Numbers(SmoothL1Loss),
    Pixels(CrossEntropyLoss),
    /// The detector's own; at most so many boxes a picture, class 0 having this label, with masks where it learns them.
    Boxes {
        most: usize,
        first: usize,
        masks: bool,
    },
}

/// The loss, and figures by name, each times the number of pictures.
pub(crate) struct Recorded {
    pub loss: Tensor,
    pub figures: Vec<(String, Tensor)>,
}

impl Recorded {
    /// All of it, as outputs of a graph.
    pub fn outputs(&self) -> Vec<(&str, &Tensor)> {
        let figures = self.figures.iter().map(|(name, figure)| (name.as_str(), figure));
        [("loss", &self.loss)].into_iter().chain(figures).collect()
    }
}

/// Column of a loss of a detector: torchvision's names for its losses are not those that people look for.
fn loss_column(name: &str) -> String {
    let known = match name {
        "bbox_regression" | "loss_box_reg" => "box_loss",
        "classification" | "loss_classifier" => "cls_loss",
        "bbox_ctrness" => "ctr_loss",
        other => other,
    };
    format!("train/{}", known.strip_prefix("loss_").map_or(known.to_owned(), |name| format!("{name}_loss")))
}

impl Loss {
    /// The loss of a task other than detection.
    pub fn new(task: Task, label_smoothing: f64, class_weights: Option<&Array>, mixed: Mixed) -> Result<Loss> {
        let mut classes = CrossEntropyLoss::new().label_smoothing(label_smoothing);
        if let Some(weight) = class_weights {
            classes = classes.weight(weight.clone());
        }
        Ok(match task {
            Task::Classify => Loss::Classes(classes, mixed),
            Task::Multilabel => Loss::Labels(BCEWithLogitsLoss::new()),
            Task::Regress => Loss::Numbers(SmoothL1Loss::new()),
            // The sum: a batch may have no pixel that counts.
            Task::Segment => Loss::Pixels(classes.ignore_index(IGNORE.into()).reduction(Reduction::Sum)),
            Task::Detect => return Err(Error::Internal("a detector has losses of its own".into()).into()),
        })
    }

    /// Records a detector on pictures, with the sum of its losses and each of them.
    pub fn of_detector(&self, net: &dyn DetectionNet, images: &Tensor) -> Result<Recorded> {
        let Loss::Boxes { most, masks, .. } = self else {
            return Err(Error::Internal("a detector is trained by boxes".into()).into());
        };
        let (trace, [n, height, width]) = (images.trace(), [0, 2, 3].map(|axis| images.size(axis)));
        let truths = [trace.input("boxes", [n, *most, 4], DType::F32), trace.input("labels", [n, *most], DType::I64)];
        let masks = masks.then(|| trace.input("masks", [n, *most, height, width.div_ceil(8)], DType::U8));
        let training = TwoStageTraining { masks: masks.as_ref(), ..TwoStageTraining::default() };
        let scalar = |loss: Tensor| loss.sum_all();
        let losses = net.losses_with(images, truths.each_ref(), &training);
        let losses: Vec<(&str, Tensor)> = losses.into_iter().map(|(name, loss)| (name, scalar(loss))).collect();
        let sum = losses.iter().map(|(_, loss)| loss.clone()).reduce(|a, b| a + b);
        let loss = sum.ok_or_else(|| Error::Internal("the detector has no loss".into()))?;
        let figures = losses.into_iter().map(|(name, loss)| (loss_column(name), loss * n as f32)).collect();
        Ok(Recorded { loss, figures })
    }

    /// Loss and figure of the outputs of a net that is trained; the first is the one that counts later.
    pub fn call(&self, trace: &Trace, outputs: &[(Tensor, f64)]) -> Result<Recorded> {
        let first = &outputs[0].0;
        let sizes = first.shape().to_vec();
        let n = sizes.first().copied().unwrap_or(1);
        let hits = |targets: &Tensor| first.argmax(1, false).eq(targets).cast(DType::F32);
        let (loss, name, figure) = match self {
            Loss::Classes(loss, Mixed(true)) => {
                let (targets, labels) =
                    (trace.input("targets", sizes, DType::F32), trace.input("labels", [n], DType::I64));
                (of_outputs(outputs, |y| loss.call(y, &targets)), "train_top1", hits(&labels).sum_all())
            }
            Loss::Classes(loss, _) => {
                let labels = trace.input("targets", [n], DType::I64);
                (of_outputs(outputs, |y| loss.call(y, &labels)), "train_top1", hits(&labels).sum_all())
            }
            Loss::Pixels(loss) => {
                let without_classes = [&sizes[..1], sizes.get(2..).unwrap_or_default()].concat();
                let targets = trace.input("targets", without_classes, DType::I64);
                let counted = targets.ne(&targets.scalar_like(IGNORE.into())).cast(DType::F32).sum_all();
                let counted = counted.maximum(&counted.scalar_like(1.0));
                let right = hits(&targets).sum_all() / &counted;
                let loss = of_outputs(outputs, |y| loss.call(y, &targets)) / counted;
                (loss, "train_pixel_accuracy", right * n as f32)
            }
            Loss::Labels(loss) => {
                let targets = trace.input("targets", sizes, DType::F32);
                let said = first.gt(&first.scalar_like(0.0)).cast(DType::F32);
                let right = (said - &targets).abs().affine(-1.0, 1.0).mean_all();
                (of_outputs(outputs, |y| loss.call(y, &targets)), "train_accuracy", right * n as f32)
            }
            Loss::Numbers(loss) => {
                let targets = trace.input("targets", sizes, DType::F32);
                let error = (first - &targets).abs().mean_all();
                (of_outputs(outputs, |y| loss.call(y, &targets)), "train_error", error * n as f32)
            }
            Loss::Boxes { .. } => return Err(Error::Internal("boxes are for detectors".into()).into()),
        };
        Ok(Recorded { loss, figures: vec![(name.to_owned(), figure)] })
    }
}

/// `-log softmax(row)[label]`, in doubles.
fn cross_entropy(row: &[f32], label: usize) -> f64 {
    let most = row.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a || b.is_nan() { b } else { a });
    let sum: f64 = row.iter().map(|&x| f64::from(x - most).exp()).sum();
    sum.ln() - f64::from(row[label] - most)
}

/// Of a logit and a target from 0 to 1.
fn binary_cross_entropy(logit: f32, target: f32) -> f64 {
    let (x, t) = (f64::from(logit), f64::from(target));
    x.max(0.0) - x * t + (-x.abs()).exp().ln_1p()
}

fn smooth_l1(d: f64) -> f64 {
    if d.abs() < 1.0 { 0.5 * d * d } else { d.abs() - 0.5 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use striate_graph::{Mode, RunOptions, interpret};

    #[test]
    fn losses_are_those_of_the_definition() {
        assert!((cross_entropy(&[0.0, 0.0], 1) - 2f64.ln()).abs() < 1e-12);
        assert!((cross_entropy(&[1000.0, 0.0], 1) - 1000.0).abs() < 1e-9);
        assert!(cross_entropy(&[f32::NAN, 0.0], 1).is_nan());
        assert!((binary_cross_entropy(0.0, 1.0) - 2f64.ln()).abs() < 1e-12);
        assert!((binary_cross_entropy(-800.0, 1.0) - 800.0).abs() < 1e-9);
        assert_eq!((smooth_l1(-0.5), smooth_l1(3.0)), (0.125, 2.5));
    }

    /// Loss and figure of constant outputs.
    fn losses(task: Task, outputs: &[(Array, f64)], targets: Array) -> [f64; 2] {
        let trace = Trace::new(Mode::Train);
        let outputs: Vec<_> = outputs.iter().map(|(y, factor)| (trace.constant(y.clone()), *factor)).collect();
        let Recorded { loss, figures } =
            Loss::new(task, 0.0, None, Mixed(false)).unwrap().call(&trace, &outputs).unwrap();
        let graph = trace.finish(&[("loss", &loss), ("figure", &figures[0].1)]).unwrap();
        let given = interpret(&graph, &[("targets", targets)], &RunOptions::default()).unwrap();
        [given[0].item().unwrap(), given[1].item().unwrap()]
    }

    #[test]
    fn heads_for_training_count_by_their_factors_and_the_figure_is_the_first_outputs() {
        let first = Array::from_vec([2, 2], vec![2f32, 0.0, 0.0, 1.0]).unwrap();
        let second = Array::from_vec([2, 2], vec![0f32, 3.0, 5.0, 0.0]).unwrap();
        let labels = || Array::from_vec([2], vec![0i64, 1]).unwrap();
        let alone = |y: &Array| losses(Task::Classify, &[(y.clone(), 1.0)], labels())[0];
        let [loss, hits] = losses(Task::Classify, &[(first.clone(), 1.0), (second.clone(), 0.3)], labels());
        assert!((loss - alone(&first) - 0.3 * alone(&second)).abs() < 1e-6, "{loss}");
        assert_eq!(hits, 2.0);
    }

    #[test]
    fn pixels_that_do_not_count_change_nothing() {
        let logits = || Array::from_vec([1, 2, 1, 3], vec![1f32, 0.0, 9.0, 0.0, 2.0, 0.0]).unwrap();
        let loss =
            |mask: Vec<i64>| losses(Task::Segment, &[(logits(), 1.0)], Array::from_vec([1, 1, 3], mask).unwrap());
        let wanted = (cross_entropy(&[1.0, 0.0], 0) + cross_entropy(&[0.0, 2.0], 0)) / 2.0;
        let [some, right] = loss(vec![0, 0, 255]);
        assert!((some - wanted).abs() < 1e-6 && right == 0.5, "{some} {right}");
        assert_eq!(loss(vec![255; 3]), [0.0, 0.0]);
    }

    #[test]
    fn probabilities_are_averaged() {
        let array = |values: Vec<f32>| Array::from_vec([1, 2], values).unwrap();
        let goal = Goal::classify(2);
        let mean = goal.join_views(&[array(vec![0.0, 0.0]), array(vec![0.0, f32::MIN])], &[false, true]).unwrap();
        let wanted = [0.75f32.ln(), 0.25f32.ln()];
        assert!(mean.f32s().unwrap().iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{mean}");
        let broken = goal.join_views(&[array(vec![f32::NAN, 0.0])], &[false]).unwrap();
        assert!(broken.f32s().unwrap().iter().all(|v| v.is_nan()));
        let labels = Goal { task: Task::Multilabel, ..goal.clone() };
        let mean = labels.join_views(&[array(vec![3.0, 0.0]), array(vec![3.0, 0.0])], &[false, true]).unwrap();
        assert!(mean.f32s().unwrap().iter().zip([3.0, 0.0]).all(|(a, b)| (a - b).abs() < 1e-5), "{mean}");
        let numbers = Goal { task: Task::Regress, ..goal };
        assert_eq!(
            numbers
                .join_views(&[array(vec![1.0, 2.0]), array(vec![2.0, 4.0])], &[false, true])
                .unwrap()
                .f32s()
                .unwrap(),
            [1.5, 3.0]
        );
    }

    #[test]
    fn pixels_of_a_mirrored_view_come_back() {
        let goal = Goal { task: Task::Segment, outputs: 2, scale: None };
        let plain = Array::from_vec([1, 2, 1, 2], vec![5f32, 0.0, 0.0, 5.0]).unwrap();
        let mirrored = Array::from_vec([1, 2, 1, 2], vec![0f32, 5.0, 5.0, 0.0]).unwrap();
        let joined = goal.join_views(&[plain.clone(), mirrored], &[false, true]).unwrap();
        let alone = goal.join_views(&[plain], &[false]).unwrap();
        assert_eq!(joined.f32s().unwrap(), alone.f32s().unwrap());
    }

    #[test]
    fn numbers_are_scaled_back() {
        let scale = Some(TargetScale { mean: vec![10.0, 0.0], std: vec![2.0, 0.5] });
        let goal = Goal { task: Task::Regress, outputs: 2, scale };
        assert_eq!(goal.numbers(&[1.0, 1.0, -1.0, 0.0]), [12.0, 0.5, 8.0, 0.0]);
        assert_eq!(goal.scaled(&[12.0, 0.5]), [1.0, 1.0]);
    }
}
