//! Non-maximum suppression among a detector's boxes: a call of the host in our graphs, ONNX's own operator in a model.
//!
//! How many boxes are left depends on the picture, so no operation of ours says it. The call gives a declared maximum, filled up; the
//! model brings what `NonMaxSuppression` keeps into the same form.

use super::builder::int;
use super::lower::{Done, Lowering, refusal};
use std::sync::{Arc, Once};
use striate_graph::{Array, DType, NmsSpec, NodeId, Op, Tensor, non_max_suppression, register_host_function};

/// The name of the call. Its inputs are those of `NonMaxSuppression`: boxes, scores, most, iou, score.
const SUPPRESS: &str = "striate.onnx.suppress";
/// The score of what is not left.
const NOT_LEFT: f32 = -1.0;

/// Which boxes are left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoxSuppression {
    /// Those with a score above this.
    pub score: f32,
    /// That do not overlap a better one of their class by more.
    pub iou: f32,
    /// So many of a picture, the best.
    pub most: usize,
}

/// Records which boxes are left, so that a model does it by `NonMaxSuppression`. `boxes` are corners, f32 `[N, A, 4]`, or `[N, C, A, 4]`
/// where each class has its own; `scores` are f32 `[N, C, A]`, of which those below 0 are never left. Gives boxes `[N, most, 4]`, scores
/// `[N, most]`, the best first, and classes `[N, most]` (i64), with `most` no more than `C * A`. Where fewer are left, boxes and scores are
/// 0 and classes -1. No gradient flows through it; shapes that do not fit each other are an error of the run.
///
/// ```
/// use striate_graph::{Array, DType, Mode, RunOptions, Trace, interpret};
/// use striate_io::onnx::{BoxSuppression, suppress_boxes};
/// let trace = Trace::new(Mode::Eval);
/// let (boxes, scores) = (trace.input("boxes", [1, 3, 4], DType::F32), trace.input("scores", [1, 1, 3], DType::F32));
/// let left = suppress_boxes(&boxes, &scores, BoxSuppression { score: 0.1, iou: 0.5, most: 3 });
/// let graph = trace.finish(&[("scores", &left[1]), ("labels", &left[2])])?;
/// let corners = [[0f32, 0., 10., 10.], [0., 1., 10., 10.], [20., 20., 30., 30.]].concat();
/// let inputs = [("boxes", Array::from_vec([1, 3, 4], corners)?), ("scores", Array::from_vec([1, 1, 3], vec![0.5f32, 0.9, 0.6])?)];
/// let found = interpret(&graph, &inputs, &RunOptions::default())?;
/// assert_eq!(found[0].f32s()?, [0.9, 0.6, 0.0]);
/// assert_eq!(found[1].to_i64_vec(), [0, 0, -1]);
/// # Ok::<(), striate_graph::Error>(())
/// ```
#[track_caller]
pub fn suppress_boxes(boxes: &Tensor, scores: &Tensor, how: BoxSuppression) -> [Tensor; 3] {
    register();
    let trace = scores.trace();
    let shape = scores.shape();
    let n = shape.first().copied().unwrap_or(0);
    let most = how.most.min(shape.iter().skip(1).product());
    let number = |value: f32| trace.constant(Array::full([1], value));
    let (iou, score) = (number(how.iou), number(how.score));
    let inputs = [boxes, scores, &trace.constant(Array::full([1], most as i64)), &iou, &score];
    let outputs = [([n, most, 4].into(), DType::F32), ([n, most].into(), DType::F32), ([n, most].into(), DType::I64)];
    let found = trace.host_call(SUPPRESS, &inputs, &outputs, None);
    <[Tensor; 3]>::try_from(found).unwrap_or_else(|_| unreachable!("three are declared"))
}

/// Makes the call known to graphs.
fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let suppress = |inputs: &[Array]| suppress(inputs).map_err(|error| error.to_string());
        register_host_function(SUPPRESS, Arc::new(suppress));
    });
}

/// The host side of [`suppress_boxes`].
fn suppress(inputs: &[Array]) -> striate_graph::Result<Vec<Array>> {
    let [boxes, scores, most, iou, score] = inputs else {
        return Err(striate_graph::Error::Internal(format!("{SUPPRESS} takes 5 inputs")));
    };
    let &[n, classes, anchors] = scores.shape().dims() else {
        return Err(striate_graph::Error::Internal(format!("{SUPPRESS} takes scores [N, C, A]")));
    };
    let (most, own) = (most.item()? as usize, boxes.shape().rank() == 4);
    let spec =
        NmsSpec { center: false, most, iou_threshold: iou.item()? as f32, score_threshold: Some(score.item()? as f32) };
    let kept = match own {
        true => {
            let rows = [n * classes, anchors];
            non_max_suppression(&boxes.reshape([rows[0], rows[1], 4])?, &scores.reshape([rows[0], 1, rows[1]])?, &spec)?
        }
        false => non_max_suppression(boxes, scores, &spec)?,
    };
    let (corners, values) = (boxes.f32s()?, scores.f32s()?);
    let mut of_pictures: Vec<Vec<(f32, usize)>> = vec![Vec::new(); n];
    for place in kept.to_i64_vec().chunks_exact(3) {
        let [first, second, anchor] = [0, 1, 2].map(|index| place[index] as usize);
        let row = if own { first } else { first * classes + second };
        of_pictures[row / classes].push((values[row * anchors + anchor], row % classes * anchors + anchor));
    }
    let (mut left, mut best, mut labels) = (vec![0f32; n * most * 4], vec![0f32; n * most], vec![-1i64; n * most]);
    for (picture, mut found) in of_pictures.into_iter().enumerate() {
        // Of equals the one that stands first, as TopK has it.
        found.retain(|(score, _)| *score >= 0.0);
        found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for (at, (score, place)) in (picture * most..).zip(found.into_iter().take(most)) {
            let row = if own { picture * classes * anchors + place } else { picture * anchors + place % anchors };
            left[4 * at..][..4].copy_from_slice(&corners[4 * row..][..4]);
            (best[at], labels[at]) = (score, (place / anchors) as i64);
        }
    }
    Ok(vec![
        Array::from_vec([n, most, 4], left)?,
        Array::from_vec([n, most], best)?,
        Array::from_vec([n, most], labels)?,
    ])
}

impl Lowering<'_> {
    /// A call of the host that a model can do without it; the value is its first output.
    pub(super) fn host_call(&mut self, id: NodeId, op: &Op, inputs: &[String]) -> Done {
        let (Op::HostCall { name, outputs, .. }, [boxes, scores, ..]) = (op, &self.graph.node(id).inputs[..]) else {
            return Err(refusal(op));
        };
        let own = self.graph.node(*boxes).shape.rank() == 4;
        let filled = outputs.first().map(|(shape, _)| shape.dims());
        let (Some(&[_, most, 4]), &[_, classes, anchors]) = (filled, self.graph.node(*scores).shape.dims()) else {
            return Err(refusal(op));
        };
        if **name != *SUPPRESS {
            return Err(refusal(op));
        }
        let rows = self.kept(inputs, [classes, anchors], own);
        let found = self.best_rows(&rows, [most, anchors]);
        let boxes = self.boxes_at(&inputs[0], &found, own.then_some(classes * anchors));
        self.made.insert(id, vec![boxes.clone(), found.scores, found.labels]);
        Ok(boxes)
    }

    /// The scores of what is kept, [`NOT_LEFT`] for all else, as rows of a picture `[N, C * A]`.
    fn kept(&mut self, inputs: &[String], [classes, anchors]: [usize; 2], own: bool) -> String {
        let mut limits: Vec<String> = inputs.to_vec();
        if own {
            // Each class of a picture is a picture of its own.
            let (corners, row) = (self.b.list(&[-1, anchors as i64, 4]), self.b.list(&[-1, 1, anchors as i64]));
            limits[0] = self.b.node("Reshape", &[&inputs[0], &corners], vec![]);
            limits[1] = self.b.node("Reshape", &[&inputs[1], &row], vec![]);
        }
        let names: Vec<&str> = limits.iter().map(String::as_str).collect();
        let kept = self.b.node("NonMaxSuppression", &names, vec![]);
        let values = self.b.node("GatherND", &[names[1], &kept], vec![]);
        let sizes = self.b.node("Shape", &[names[1]], vec![]);
        let none = self.b.scalar(f64::from(NOT_LEFT), DType::F32);
        let none = self.b.node("Expand", &[&none, &sizes], vec![]);
        let by_class = self.b.node("ScatterND", &[&none, &kept, &values], vec![]);
        let row = self.b.list(&[-1, (classes * anchors) as i64]);
        self.b.node("Reshape", &[&by_class, &row], vec![])
    }

    /// The best of each picture's row.
    fn best_rows(&mut self, rows: &str, [most, anchors]: [usize; 2]) -> BestRows {
        let (most, zero) = (self.b.list(&[most as i64]), self.b.scalar(0.0, DType::F32));
        let best = self.b.nodes("TopK", &[rows, &most], vec![int("axis", 1)], 2);
        let (anchors, nothing) = (self.b.scalar(anchors as f64, DType::I64), self.b.scalar(-1.0, DType::I64));
        let found = self.b.node("GreaterOrEqual", &[&best[0], &zero], vec![]);
        let class = self.b.node("Div", &[&best[1], &anchors], vec![]);
        BestRows {
            labels: self.b.node("Where", &[&found, &class, &nothing], vec![]),
            scores: self.b.node("Where", &[&found, &best[0], &zero], vec![]),
            anchors: self.b.node("Mod", &[&best[1], &anchors], vec![]),
            places: best[1].clone(),
            found,
        }
    }

    /// The boxes of what is found, 0 where there is nothing. `own` is the number of a picture's boxes where each class has its own.
    fn boxes_at(&mut self, boxes: &str, at: &BestRows, own: Option<usize>) -> String {
        let (mut boxes, mut place) = (boxes.to_owned(), &at.anchors);
        if let Some(count) = own {
            let sizes = self.b.list(&[-1, count as i64, 4]);
            (boxes, place) = (self.b.node("Reshape", &[&boxes, &sizes], vec![]), &at.places);
        }
        let (last, corners) = (self.b.list(&[2]), self.b.list(&[1, 1, 4]));
        let column = self.b.node("Unsqueeze", &[place, &last], vec![]);
        let columns = self.b.node("Expand", &[&column, &corners], vec![]);
        let found = self.b.node("GatherElements", &[&boxes, &columns], vec![int("axis", 1)]);
        let is_found = self.b.node("Unsqueeze", &[&at.found, &last], vec![]);
        let zero = self.b.scalar(0.0, DType::F32);
        self.b.node("Where", &[&is_found, &found, &zero], vec![])
    }
}

/// Values of the model that say what is best in a picture, `[N, most]` each.
struct BestRows {
    /// 0 where there is nothing.
    scores: String,
    /// -1 where there is nothing.
    labels: String,
    /// Whether there is something.
    found: String,
    /// Places in the row.
    places: String,
    /// Places among the boxes that the classes share.
    anchors: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{OnnxModel, OnnxOptions, OnnxSession, export_onnx_of};
    use striate_graph::{Mode, RunOptions, Trace, interpret};

    /// Boxes of two pictures for two classes; of the second picture nothing is left.
    fn boxes_and_scores() -> [Array; 2] {
        let corners = [[0f32, 0., 10., 10.], [0., 1., 10., 10.], [20., 20., 30., 30.]].concat();
        let scores = vec![0.5f32, 0.9, -1.0, 0.9, 0.05, 0.6, 0.1, 0.0, -1.0, 0.05, 0.05, 0.05];
        [Array::from_vec([2, 3, 4], corners.repeat(2)).unwrap(), Array::from_vec([2, 2, 3], scores).unwrap()]
    }

    const HOW: BoxSuppression = BoxSuppression { score: 0.1, iou: 0.5, most: 4 };

    /// The outputs of the call: by the interpreter, and by the model that it becomes, which takes boxes and scores in one input.
    fn left(own: bool, how: BoxSuppression) -> [Vec<Array>; 2] {
        let [boxes, scores] = boxes_and_scores();
        // Of a picture: 12 numbers of boxes, 6 scores.
        let of =
            |array: &Array, picture: usize, count: usize| array.f32s().unwrap()[picture * count..][..count].to_vec();
        let joined = (0..2).flat_map(|picture| [of(&boxes, picture, 12), of(&scores, picture, 6)].concat()).collect();
        let input = Array::from_vec([2, 18], joined).unwrap();
        let forward = |x: &Tensor| {
            let n = x.size(0);
            let boxes = x.narrow(1, 0, 12).reshape([n, 3, 4]);
            let boxes = if own { Tensor::cat(&[&boxes, &boxes], 1).reshape([n, 2, 3, 4]) } else { boxes };
            let [boxes, scores, labels] = suppress_boxes(&boxes, &x.narrow(1, 12, 6).reshape([n, 2, 3]), how);
            vec![("boxes", boxes), ("scores", scores), ("labels", labels)]
        };
        let trace = Trace::new(Mode::Eval);
        let outputs = forward(&trace.input("x", [2, 18], DType::F32));
        let graph = trace.finish(&outputs.iter().map(|(name, value)| (*name, value)).collect::<Vec<_>>()).unwrap();
        let told = interpret(&graph, &[("x", input.clone())], &RunOptions::default()).unwrap();
        let proto = export_onnx_of(&forward, &[18], &OnnxOptions::default()).unwrap();
        let model = OnnxModel::from_proto(proto, "left.onnx".as_ref()).unwrap();
        [told, OnnxSession::new(Arc::new(model)).run(&[&input]).unwrap()]
    }

    #[test]
    fn what_is_left_is_filled_up_here_and_in_the_model() {
        for own in [false, true] {
            for [boxes, scores, labels] in left(own, HOW).map(|found| <[Array; 3]>::try_from(found).unwrap()) {
                assert_eq!(scores.f32s().unwrap(), [0.9, 0.9, 0.6, 0.0, 0.0, 0.0, 0.0, 0.0]);
                assert_eq!(labels.to_i64_vec(), [0, 1, 1, -1, -1, -1, -1, -1]);
                let wanted = [[0f32, 1., 10., 10.], [0., 0., 10., 10.], [20., 20., 30., 30.]].concat();
                assert_eq!(boxes.f32s().unwrap(), [wanted, vec![0.0; 20]].concat());
            }
        }
    }

    #[test]
    fn a_threshold_below_zero_leaves_scores_of_zero_and_no_more_than_there_are() {
        for [_, scores, labels] in left(false, BoxSuppression { score: -0.5, most: 99, iou: 1.0 })
            .map(|found| <[Array; 3]>::try_from(found).unwrap())
        {
            assert_eq!(scores.shape().dims(), &[2, 6]);
            assert_eq!(scores.f32s().unwrap()[6..], [0.1, 0.05, 0.05, 0.05, 0.0, 0.0]);
            assert_eq!(labels.to_i64_vec()[6..], [0, 1, 1, 1, 0, -1]);
        }
    }
}
