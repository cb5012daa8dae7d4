//! What a graph tells about each layer of a net.

use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use striate::graph::{Graph, Node, NodeId, Op, Windows};
use striate::nn::{Module, Visitor};

/// One layer, or one operation of a net's own `forward`.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Path of the layer; that of the net around it for an operation of its own.
    pub layer: String,
    /// Class of the layer, or name of the operation.
    pub kind: String,
    /// Shape of the (first) input.
    pub input: Vec<usize>,
    /// Shape of the output.
    pub output: Vec<usize>,
    /// Learned values that no row above has counted.
    pub parameters: u64,
    /// Multiply-adds of convolutions and products.
    pub macs: u64,
    /// Bytes of the output.
    pub activation_bytes: u64,
    /// Rows and columns of the picture that one output value sees; none where it sees all of it.
    pub receptive_field: Option<[f64; 2]>,
    /// Distance in the picture of neighbouring outputs, in rows and columns; none where there are no neighbours.
    pub stride: Option<[f64; 2]>,
    /// The nodes.
    #[serde(skip)]
    pub nodes: Vec<NodeId>,
}

/// How a value looks at the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
enum View {
    /// Not at all.
    Blind,
    /// At a window of so many rows and columns, which moves in such steps.
    Window { field: [f64; 2], stride: [f64; 2] },
    /// At all of it.
    Whole,
}

impl View {
    fn join(self, other: View) -> View {
        match (self, other) {
            (View::Whole, _) | (_, View::Whole) => View::Whole,
            (View::Blind, view) | (view, View::Blind) => view,
            (View::Window { field: a, stride: s }, View::Window { field: b, stride: t }) => {
                let larger = |x: [f64; 2], y: [f64; 2]| [x[0].max(y[0]), x[1].max(y[1])];
                View::Window { field: larger(a, b), stride: larger(s, t) }
            }
        }
    }

    /// Through windows of so many elements in such steps.
    fn slide(self, kernel: [usize; 2], step: [usize; 2], dilation: [usize; 2]) -> View {
        let View::Window { field, stride } = self else { return self };
        let wider = |axis: usize| field[axis] + (kernel[axis].saturating_sub(1) * dilation[axis]) as f64 * stride[axis];
        View::Window { field: [wider(0), wider(1)], stride: [stride[0] * step[0] as f64, stride[1] * step[1] as f64] }
    }

    fn scale(self, input: [usize; 2], out: [usize; 2]) -> View {
        let View::Window { field, stride } = self else { return self };
        let ratio = |axis: usize| input[axis] as f64 / out[axis].max(1) as f64;
        View::Window { field, stride: [stride[0] * ratio(0), stride[1] * ratio(1)] }
    }
}

/// Class names of the layers by path, with whether they hold others.
struct Layers {
    prefix: String,
    found: BTreeMap<String, (String, bool)>,
}

impl Visitor for Layers {
    fn module(&mut self, name: &str, module: &dyn Module) {
        let path = if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) };
        let outer = std::mem::replace(&mut self.prefix, path.clone());
        let before = self.found.len();
        module.visit(self);
        let holds = self.found.len() > before;
        self.found.insert(path, (module.class_name(), holds));
        self.prefix = outer;
    }

    fn parameter(&mut self, _: &str, _: &striate::graph::Parameter) {}
}

/// True for nodes that stand for data rather than work.
fn is_data(op: &Op) -> bool {
    matches!(op, Op::Input { .. } | Op::Parameter { .. } | Op::Constant(_))
}

/// The layers in the order in which they compute.
pub fn analyse(graph: &Graph, net: &dyn Module) -> Vec<Row> {
    let mut layers = Layers { prefix: String::new(), found: BTreeMap::new() };
    net.visit(&mut layers);
    let views = views(graph);
    let live = graph.live();
    let mut groups: Vec<(String, Option<String>, Vec<NodeId>)> = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate().filter(|(index, node)| live[*index] && !is_data(&node.op)) {
        let path = &*node.origin.layer;
        let class = layers.found.get(path).filter(|(_, holds)| !holds).map(|(class, _)| class.clone());
        let id = NodeId(index as u32);
        match groups.last_mut() {
            Some((last, Some(_), nodes)) if class.is_some() && last == path => nodes.push(id),
            _ => groups.push((path.to_owned(), class, vec![id])),
        }
    }
    let mut counted = HashSet::new();
    groups.into_iter().map(|(layer, class, nodes)| row(graph, &views, &mut counted, (layer, class, nodes))).collect()
}

fn row(
    graph: &Graph,
    views: &[View],
    counted: &mut HashSet<usize>,
    (layer, class, nodes): (String, Option<String>, Vec<NodeId>),
) -> Row {
    let last = nodes[nodes.len() - 1];
    let inputs = || nodes.iter().flat_map(|id| &graph.node(*id).inputs).filter(|id| !nodes.contains(id));
    let data = inputs().find(|id| views[id.index()] != View::Blind).or_else(|| inputs().next());
    let mut parameters = 0;
    for id in inputs() {
        if let Op::Parameter { slot, shape, .. } = &graph.node(*id).op
            && graph.parameters[*slot].kind() == striate::graph::ParamKind::Weight
            && counted.insert(*slot)
        {
            parameters += shape.numel() as u64;
        }
    }
    let output = graph.node(last);
    let (receptive_field, stride) = match views[last.index()] {
        View::Window { field, stride } => (Some(field), Some(stride)),
        View::Blind | View::Whole => (None, None),
    };
    Row {
        layer,
        kind: class.unwrap_or_else(|| output.op.name().to_owned()),
        input: data.map(|id| graph.node(*id).shape.to_vec()).unwrap_or_default(),
        output: output.shape.to_vec(),
        parameters,
        macs: nodes.iter().map(|id| macs(graph, graph.node(*id))).sum(),
        activation_bytes: (output.shape.numel() * output.dtype.size()) as u64,
        receptive_field,
        stride,
        nodes,
    }
}

/// Multiply-adds of one node, those with padding counted.
pub fn macs(graph: &Graph, node: &Node) -> u64 {
    let shape = |index: usize| &graph.node(node.inputs[index]).shape;
    let product = |sizes: &[usize]| sizes.iter().map(|&n| n as u64).product::<u64>();
    match &node.op {
        Op::Conv2d(_) => product(&node.shape) * product(&shape(1)[1..]),
        Op::Conv2dInputGrad { .. } => product(shape(0)) * product(&shape(1)[1..]),
        Op::MatMul { trans_a, .. } => {
            let a = shape(0);
            let inner = a.len().checked_sub(if *trans_a { 2 } else { 1 }).map_or(1, |axis| a[axis] as u64);
            product(&node.shape) * inner
        }
        _ => 0,
    }
}

/// How each value looks at the picture.
fn views(graph: &Graph) -> Vec<View> {
    let mut views: Vec<View> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let joined = node.inputs.iter().map(|id| views[id.index()]).fold(View::Blind, View::join);
        let image = |index: usize| node.inputs.get(index).map(|id| &graph.node(*id).shape).filter(|s| s.rank() == 4);
        let view = match &node.op {
            Op::Input { shape, .. } if shape.rank() == 4 => View::Window { field: [1.0; 2], stride: [1.0; 2] },
            Op::Input { .. } => View::Whole,
            Op::Conv2d(attrs) => {
                let weight = &graph.node(node.inputs[1]).shape;
                joined.slide([weight[2], weight[3]], attrs.stride, attrs.dilation)
            }
            Op::MaxPool2d(windows) | Op::MaxPool2dIndices(windows) | Op::AvgPool2d { windows, .. } => {
                pool(joined, windows, image(0).map(|s| [s[2], s[3]]))
            }
            Op::Resize { out, .. } => match image(0) {
                Some(s) => joined.scale([s[2], s[3]], *out),
                None => View::Whole,
            },
            Op::Unary(_) | Op::Binary(_) | Op::BatchNorm { .. } | Op::Concat { .. } | Op::Where | Op::Pad { .. } => {
                joined
            }
            Op::Cast(_) | Op::Detach | Op::Slice { .. } | Op::Expand { .. } => joined,
            Op::Softmax { axis: 1 } | Op::LogSoftmax { axis: 1 } => joined,
            _ if joined == View::Blind => View::Blind,
            // Whatever mixes places in another way sees the whole picture, for all that is known here.
            _ => View::Whole,
        };
        views.push(view);
    }
    views
}

fn pool(view: View, windows: &Windows, input: Option<[usize; 2]>) -> View {
    match (windows, input) {
        (Windows::Sliding { kernel, stride, dilation, .. }, Some(_)) => view.slide(*kernel, *stride, *dilation),
        (Windows::Adaptive { out: [1, 1] }, _) | (_, None) => View::Whole,
        (Windows::Adaptive { out }, Some(input)) => {
            let size = |axis: usize| input[axis].div_ceil(out[axis].max(1));
            view.slide([size(0), size(1)], [1, 1], [1, 1]).scale(input, *out)
        }
    }
}
