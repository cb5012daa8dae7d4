//! One walk that drops dead nodes, joins equal ones, computes constants, and rewrites a few shapes of graph that tracing and
//! differentiation leave behind.

use crate::run::evaluate;
use crate::{Array, Graph, Node, NodeId, Op, UnaryKind};
use std::collections::HashMap;

/// Constants up to this many elements are computed at compile time.
const FOLD_LIMIT: usize = 1 << 20;

/// Broadcasting a constant is folded only where the result is small: reading it costs more than broadcasting it.
const EXPAND_LIMIT: usize = 4096;

/// The graph without dead, equal and constant computations; parameters, inputs and updates keep their order. Every input
/// stays, even where nothing reads it, because a run must be able to name it.
pub(crate) fn simplify(graph: &Graph) -> Graph {
    let mut walk =
        Walk { new: Graph { parameters: graph.parameters.clone(), ..Graph::default() }, seen: HashMap::new() };
    let graph = &broadcast_where_read(graph.clone());
    let live = graph.live();
    let mut map: Vec<Option<NodeId>> = vec![None; graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        if live[index] || matches!(node.op, Op::Input { .. }) {
            let inputs = node.inputs.iter().map(|id| map[id.index()].expect("inputs of live nodes are live")).collect();
            map[index] = Some(walk.add(Node { inputs, ..node.clone() }));
        }
    }
    let at = |id: &NodeId| map[id.index()].expect("roots are live");
    let mut new = walk.new;
    new.outputs = graph.outputs.iter().map(|(name, id)| (name.clone(), at(id))).collect();
    new.tapped = graph.tapped.iter().map(|(name, id)| (name.clone(), at(id))).collect();
    new.updates = graph.updates.iter().map(at).collect();
    new.guard = graph.guard.as_ref().map(at);
    new.taps = graph.taps.iter().filter_map(|(name, id)| Some((name.clone(), map[id.index()]?))).collect();
    relu_gradients_from_outputs(&mut new);
    relu_gradients_before_pools(&mut new);
    new
}

/// What an operation of two operands broadcasts by itself need not be expanded before.
fn broadcast_where_read(mut graph: Graph) -> Graph {
    for index in 0..graph.nodes.len() {
        let Op::Binary(_) = graph.nodes[index].op else { continue };
        for place in [0, 1] {
            let node = &graph.nodes[index];
            let (read, other) = (node.inputs[place], node.inputs[1 - place]);
            let before = graph.node(read);
            let (Op::Expand { .. }, Some(&source)) = (&before.op, before.inputs.first()) else { continue };
            // One operand stays as large as the result.
            if other != read && graph.node(other).shape == node.shape {
                graph.nodes[index].inputs[place] = source;
            }
        }
    }
    graph
}

struct Walk {
    new: Graph,
    seen: HashMap<(String, Vec<NodeId>), NodeId>,
}

impl Walk {
    fn add(&mut self, node: Node) -> NodeId {
        if let Some(same) = self.identity(&node) {
            return same;
        }
        let node = self.folded(node);
        if !node.op.is_pure() {
            return self.new.push(node);
        }
        let key = (op_key(&node.op), node.inputs.clone());
        if let Some(id) = self.seen.get(&key) {
            return *id;
        }
        let id = self.new.push(node);
        self.seen.insert(key, id);
        id
    }

    /// The node that this one only repeats, if it does.
    fn identity(&self, node: &Node) -> Option<NodeId> {
        let input = *node.inputs.first()?;
        let before = self.new.node(input);
        let same = match &node.op {
            Op::Detach => true,
            Op::Reshape { shape } | Op::Expand { shape } => *shape == before.shape,
            Op::Cast(dtype) => *dtype == before.dtype,
            Op::Transpose { perm } => perm.iter().copied().eq(0..perm.len()),
            Op::Slice { sizes, steps, .. } => sizes[..] == before.shape[..] && steps.iter().all(|&s| s == 1),
            Op::Pad { pads, .. } | Op::PadGrad { pads, .. } => pads.iter().all(|p| *p == [0, 0]),
            Op::Concat { .. } => node.inputs.len() == 1,
            Op::Unary(UnaryKind::Affine { scale, shift }) => *scale == 1.0 && *shift == 0.0,
            _ => false,
        };
        if same {
            return Some(input);
        }
        self.gradient_of_zeros(node)
    }

    /// `0 + x` is `x`: differentiation starts sums with zeros.
    fn gradient_of_zeros(&self, node: &Node) -> Option<NodeId> {
        if !matches!(node.op, Op::Binary(crate::BinaryKind::Add)) {
            return None;
        }
        let [a, b] = node.inputs[..] else { return None };
        let zeros =
            |array: &Array| array.numel() <= EXPAND_LIMIT && array.to_f64_vec().iter().all(|&x| x.to_bits() == 0);
        let zero = |id: NodeId| match (&self.new.node(id).op, self.new.node(id).inputs.first()) {
            (Op::Constant(array), _) => zeros(array),
            (Op::Expand { .. }, Some(&source)) => {
                matches!(&self.new.node(source).op, Op::Constant(array) if zeros(array))
            }
            _ => false,
        };
        let fits = |id: NodeId| self.new.node(id).shape == node.shape;
        if zero(a) && fits(b) {
            return Some(b);
        }
        (zero(b) && fits(a)).then_some(a)
    }

    /// The node as a constant, where all its inputs are constants.
    fn folded(&self, node: Node) -> Node {
        let constants: Option<Vec<_>> = node
            .inputs
            .iter()
            .map(|id| match &self.new.node(*id).op {
                Op::Constant(array) => Some(array.clone()),
                _ => None,
            })
            .collect();
        let limit = if matches!(node.op, Op::Expand { .. }) { EXPAND_LIMIT } else { FOLD_LIMIT };
        match constants {
            Some(inputs) if !inputs.is_empty() && node.op.is_pure() && node.shape.numel() <= limit => {
                match evaluate(&node, &inputs) {
                    Ok(value) => Node { op: Op::Constant(value), inputs: Vec::new(), ..node },
                    // What cannot be computed now fails, with its message, when the graph runs.
                    Err(_) => node,
                }
            }
            _ => node,
        }
    }
}

/// What distinguishes an op. A constant is told by its values, or by its address where it is long.
fn op_key(op: &Op) -> String {
    match op {
        Op::Constant(array) if array.numel() <= 16 => {
            format!(
                "Constant {} {} {:?}",
                array.dtype(),
                array.shape(),
                array.to_f64_vec().iter().map(|x| x.to_bits()).collect::<Vec<_>>()
            )
        }
        // The same numbers may lie there under another shape.
        Op::Constant(array) => format!("Constant at {:p} {}", array.buffer(), array.shape()),
        op => format!("{op:?}"),
    }
}

/// The derivative of a clipping activation can be told from its output as well as from its input; reading the output lets
/// the input be forgotten, and the activation be computed where its input is made.
fn relu_gradients_from_outputs(graph: &mut Graph) {
    let mut output_of: HashMap<NodeId, Vec<(UnaryKind, NodeId)>> = HashMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        if let Op::Unary(kind) = node.op
            && told_by_output(kind)
        {
            output_of.entry(node.inputs[0]).or_default().push((kind, NodeId(index as u32)));
        }
    }
    for index in 0..graph.nodes.len() {
        let node = &mut graph.nodes[index];
        if let Op::UnaryGrad(kind) = node.op
            && let Some(outputs) = output_of.get(&node.inputs[0])
            && let Some((_, output)) = outputs.iter().find(|(k, id)| *k == kind && id.index() < index)
        {
            node.inputs[0] = *output;
        }
    }
}

/// Where a pool followed a clipping activation, its gradient goes to places of which the pool's output tells the activation's
/// derivative. So that is multiplied before the gradient is spread over the larger map, and by what the pool's reader makes.
fn relu_gradients_before_pools(graph: &mut Graph) {
    let mut readers = vec![0; graph.nodes.len()];
    graph.nodes.iter().flat_map(|node| &node.inputs).for_each(|id| readers[id.index()] += 1);
    graph.roots().iter().chain(graph.taps.values()).for_each(|id| readers[id.index()] += 1);
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let Op::UnaryGrad(kind @ (UnaryKind::Relu | UnaryKind::Clip { .. })) = node.op else { continue };
        let (activated, spread) = (node.inputs[0], node.inputs[1]);
        let before = graph.node(spread);
        let Op::MaxPool2dGrad(windows) = before.op else { continue };
        let follows = matches!(&graph.node(activated).op, Op::Unary(made) if *made == kind);
        if !follows || !told_by_output(kind) || before.inputs[0] != activated || readers[spread.index()] != 1 {
            continue;
        }
        let is_pool = |node: &Node| matches!(node.op, Op::MaxPool2d(w) if w == windows) && node.inputs[0] == activated;
        let Some(pooled) = graph.nodes[..spread.index()].iter().position(is_pool) else { continue };
        let dy = before.inputs[1];
        let shape = graph.node(dy).shape.clone();
        let masked = &mut graph.nodes[spread.index()];
        (masked.op, masked.inputs, masked.shape) = (Op::UnaryGrad(kind), vec![NodeId(pooled as u32), dy], shape);
        let node = &mut graph.nodes[index];
        (node.op, node.inputs) = (Op::MaxPool2dGrad(windows), vec![activated, spread]);
    }
}

/// True where the derivative at the output equals that at the input, point by point.
fn told_by_output(kind: UnaryKind) -> bool {
    match kind {
        UnaryKind::Relu => true,
        UnaryKind::LeakyRelu { slope } => slope > 0.0,
        UnaryKind::Clip { min, max } => min < max,
        _ => false,
    }
}
