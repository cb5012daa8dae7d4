//! Non-maximum suppression behind a detector's boxes, by ONNX's own operator.
//!
//! How many boxes are left depends on the picture, so no graph of ours says it: the nodes are put behind the written model.

use super::ExportError;
use super::builder::int;
use crate::onnx::proto::{
    AttributeProto, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, TensorShapeProto, TensorType,
    TypeProto, TypeValue, ValueInfoProto,
};
use crate::onnx::{array_to_tensor, data_type};
use striate_graph::{Array, DType};

/// The boxes among which some are suppressed: f32 [N, A, 4].
pub const BOXES_NAME: &str = "all_boxes";
/// Their scores by class, 0 for what is no candidate: f32 [N, C, A].
pub const CANDIDATES_NAME: &str = "candidates";

/// Which boxes are left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoxSuppression {
    /// Those with a score above this, which is not negative.
    pub score: f32,
    /// That do not overlap a better one of their class by more.
    pub iou: f32,
    /// So many of a picture, the best.
    pub most: usize,
}

/// The nodes as they are written.
struct Tail<'a> {
    graph: &'a mut GraphProto,
}

impl Tail<'_> {
    fn node(&mut self, op: &str, name: &str, inputs: &[&str], attribute: Vec<AttributeProto>) {
        self.graph.node.push(NodeProto {
            name: format!("suppress/{op}/{name}"),
            op_type: op.into(),
            input: inputs.iter().map(|&input| input.into()).collect(),
            output: vec![name.into()],
            attribute,
            ..Default::default()
        });
    }

    fn constant(&mut self, name: &str, array: &Array) {
        self.graph.initializer.push(array_to_tensor(name, array));
    }

    fn list(&mut self, name: &str, values: &[i64]) {
        self.constant(name, &Array::from_vec([values.len()], values.to_vec()).expect("as many as there are"));
    }

    /// The scores of what is kept, 0 for all else, as rows of a picture `[N, C * A]`.
    fn keep(&mut self, how: BoxSuppression) {
        self.list("suppress/most", &[how.most as i64]);
        self.constant("suppress/iou", &Array::full([1], how.iou));
        self.constant("suppress/score", &Array::full([1], how.score));
        let limits = [BOXES_NAME, CANDIDATES_NAME, "suppress/most", "suppress/iou", "suppress/score"];
        self.node("NonMaxSuppression", "suppress/kept", &limits, vec![]);
        self.node("GatherND", "suppress/kept_scores", &[CANDIDATES_NAME, "suppress/kept"], vec![]);
        self.node("Shape", "suppress/shape", &[CANDIDATES_NAME], vec![]);
        self.node("ConstantOfShape", "suppress/none", &["suppress/shape"], vec![]);
        let places = ["suppress/none", "suppress/kept", "suppress/kept_scores"];
        self.node("ScatterND", "suppress/by_class", &places, vec![]);
        self.list("suppress/row", &[0, -1]);
        self.node("Reshape", "suppress/rows", &["suppress/by_class", "suppress/row"], vec![]);
    }

    /// The best of each picture: `scores`, and the places of classes and anchors.
    fn best(&mut self, most: usize, anchors: usize) {
        self.list("suppress/best", &[most as i64]);
        self.node("TopK", "scores", &["suppress/rows", "suppress/best"], vec![int("axis", 1)]);
        if let Some(node) = self.graph.node.last_mut() {
            node.output.push("suppress/places".into());
        }
        self.constant("suppress/anchors", &Array::scalar(anchors as i64));
        self.node("Mod", "suppress/anchor", &["suppress/places", "suppress/anchors"], vec![]);
        self.node("Div", "suppress/class", &["suppress/places", "suppress/anchors"], vec![]);
    }

    /// `boxes` and `labels` of those places, 0 and -1 where nothing is left.
    fn gather(&mut self) {
        self.constant("suppress/zero", &Array::scalar(0f32));
        self.constant("suppress/nothing", &Array::scalar(-1i64));
        self.node("Greater", "suppress/found", &["scores", "suppress/zero"], vec![]);
        self.node("Where", "labels", &["suppress/found", "suppress/class", "suppress/nothing"], vec![]);
        self.list("suppress/last", &[2]);
        self.list("suppress/corners", &[1, 1, 4]);
        self.node("Unsqueeze", "suppress/anchor_column", &["suppress/anchor", "suppress/last"], vec![]);
        self.node("Expand", "suppress/anchor_of", &["suppress/anchor_column", "suppress/corners"], vec![]);
        let places = [BOXES_NAME, "suppress/anchor_of"];
        self.node("GatherElements", "suppress/boxes", &places, vec![int("axis", 1)]);
        self.node("Unsqueeze", "suppress/found_column", &["suppress/found", "suppress/last"], vec![]);
        self.node("Where", "boxes", &["suppress/found_column", "suppress/boxes", "suppress/zero"], vec![]);
    }
}

/// The last two sizes of an output of three axes.
fn sizes(graph: &GraphProto, name: &str) -> Option<[usize; 2]> {
    let output = graph.output.iter().find(|output| output.name == name)?;
    let Some(TypeValue::TensorType(tensor)) = &output.r#type.as_ref()?.value else { return None };
    let size = |dim: &Dimension| match dim.value {
        Some(DimensionValue::DimValue(size)) => usize::try_from(size).ok(),
        _ => None,
    };
    match tensor.shape.as_ref()?.dim.as_slice() {
        [_, a, b] => Some([size(a)?, size(b)?]),
        _ => None,
    }
}

fn output(name: &str, dtype: DType, sizes: &[usize]) -> ValueInfoProto {
    let batch = DimensionValue::DimParam("batch".into());
    let sizes = sizes.iter().map(|&size| DimensionValue::DimValue(size as i64));
    let dim = |value| Dimension { value: Some(value), ..Default::default() };
    let shape = TensorShapeProto { dim: std::iter::once(batch).chain(sizes).map(dim).collect() };
    let tensor = TensorType { elem_type: data_type(dtype) as i32, shape: Some(shape) };
    let r#type = Some(TypeProto { value: Some(TypeValue::TensorType(tensor)), ..Default::default() });
    ValueInfoProto { name: name.into(), r#type, ..Default::default() }
}

/// Puts suppression behind a model with the outputs [`BOXES_NAME`] and [`CANDIDATES_NAME`]. Afterwards it has others: `boxes`
/// [N, most, 4], `scores` [N, most], the best first, and `labels` [N, most] (i64). Where fewer are left, boxes and scores are 0 and
/// labels -1.
///
/// # Errors
/// [`ExportError::NoBoxes`] where it lacks those outputs.
pub fn suppress_boxes(model: &mut ModelProto, how: BoxSuppression) -> Result<(), ExportError> {
    let graph = model.graph.as_mut().ok_or(ExportError::NoBoxes)?;
    let (Some([anchors, 4]), Some([classes, _])) = (sizes(graph, BOXES_NAME), sizes(graph, CANDIDATES_NAME)) else {
        return Err(ExportError::NoBoxes);
    };
    let most = how.most.min(classes * anchors);
    let mut tail = Tail { graph };
    tail.keep(how);
    tail.best(most, anchors);
    tail.gather();
    graph.output = vec![
        output("boxes", DType::F32, &[most, 4]),
        output("scores", DType::F32, &[most]),
        output("labels", DType::I64, &[most]),
    ];
    Ok(())
}
