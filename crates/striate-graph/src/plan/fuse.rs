//! Which nodes one step computes together.
//!
//! A convolution or linear layer takes along what follows it as long as nothing else looks at the values between: the bias,
//! a batch norm of evaluation (folded into the weights), a residual, an activation. The step stands at the place of the
//! last of them, where the residual is known.

use super::lower_norm::has_norm_kernels;
use super::slots::Slot;
use super::step::activation_of;
use crate::{BinaryKind, Graph, NodeId, Op, Shape, UnaryKind};
use std::collections::HashMap;
use striate_kernels::norm::goes_again;

/// A convolution (or product with a weight) and what its epilogue computes.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    /// The convolution or product.
    pub head: NodeId,
    /// Added per output channel.
    pub bias: Option<NodeId>,
    /// The batch norm that is folded.
    pub norm: Option<NodeId>,
    /// Added element by element.
    pub residual: Option<NodeId>,
    /// Applied last.
    pub activation: Option<UnaryKind>,
}

/// What `fuse` found.
#[derive(Debug, Default)]
pub(crate) struct Fusion {
    /// By the last node of each chain.
    pub chains: HashMap<NodeId, Chain>,
    /// For a training batch norm: what follows it.
    pub norms: HashMap<NodeId, NormChain>,
    /// For a convolution: the moments of its output.
    pub moments: HashMap<NodeId, NodeId>,
    /// For the backward of a batch norm (sums or input gradient): the activation whose gradient it takes along.
    pub behind: HashMap<NodeId, Behind>,
    /// For an input gradient, by its last node: what is done to it before it is written.
    pub input_grads: HashMap<NodeId, GradChain>,
    /// For the last node of a channel shuffle: what is shuffled, and into how many groups its channels are cut.
    pub shuffles: HashMap<NodeId, (NodeId, usize)>,
    /// Pairs of chains that one step computes: the last node of the second, and the last of the first.
    pub pairs: HashMap<NodeId, NodeId>,
    /// Values that are written where a concatenation wants them.
    pub slots: HashMap<NodeId, Slot>,
    /// Nodes that some other node's step computes.
    pub absorbed: Vec<bool>,
    /// Nodes that belong to a chain: where two branches meet, the first takes what follows.
    claimed: Vec<bool>,
}

/// The gradient of an activation behind a batch norm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behind {
    /// What flows back.
    pub dy: NodeId,
    pub seen: Seen,
}

/// How the backward of a batch norm knows what went through the activation behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    /// A clipping activation's output; the gradient passes between these bounds.
    Output(NodeId, [f32; 2]),
    /// The norm is computed again, with its weight and bias.
    Again(UnaryKind, [NodeId; 2]),
}

/// An input gradient of a convolution or linear layer and what its epilogue computes.
#[derive(Clone, Debug)]
pub(crate) struct GradChain {
    pub head: NodeId,
    /// What flows back on another way, added.
    pub residual: Option<NodeId>,
    /// The output of the clipping activation that made the input, and its bounds.
    pub mask: Option<(NodeId, [f32; 2])>,
}

/// A batch norm of training with what follows it.
#[derive(Clone, Debug)]
pub(crate) struct NormChain {
    pub norm: NodeId,
    pub residual: Option<NodeId>,
    pub activation: Option<UnaryKind>,
}

/// Who uses each node. A tap is no use: it must not change how the rest is computed.
pub(crate) struct Uses {
    users: Vec<Vec<NodeId>>,
    root: Vec<bool>,
}

impl Uses {
    pub fn of(graph: &Graph) -> Self {
        let mut users = vec![Vec::new(); graph.nodes.len()];
        for (index, node) in graph.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|input| users[input.index()].push(NodeId(index as u32)));
        }
        let mut root = vec![false; graph.nodes.len()];
        let outputs = graph.outputs.iter().map(|(_, id)| id);
        outputs.chain(&graph.updates).chain(&graph.guard).for_each(|id| root[id.index()] = true);
        Uses { users, root }
    }

    /// The only user of a node that is no root.
    pub(super) fn only(&self, id: NodeId) -> Option<NodeId> {
        match (&self.users[id.index()][..], self.root[id.index()]) {
            ([user], false) => Some(*user),
            _ => None,
        }
    }
}

/// Finds what can be computed together.
pub(crate) fn fuse(graph: &Graph, uses: &Uses) -> Fusion {
    let none = vec![false; graph.nodes.len()];
    let mut fusion = Fusion { absorbed: none.clone(), claimed: none, ..Fusion::default() };
    for (index, node) in graph.nodes.iter().enumerate() {
        let id = NodeId(index as u32);
        match &node.op {
            Op::Conv2d(_) | Op::MatMul { trans_a: false, trans_b: true } if is_head(graph, id) => {
                let (chain, last, between) = follow(graph, uses, (id, &mut fusion.claimed));
                between.iter().for_each(|id| fusion.absorbed[id.index()] = true);
                if last == id
                    && let Some(moments) = moments_of(graph, uses, id)
                {
                    fusion.absorbed[moments.index()] = true;
                    fusion.moments.insert(id, moments);
                }
                fusion.chains.insert(last, chain);
            }
            Op::UnaryGrad(kind) => fuse_behind(graph, uses, (id, *kind), &mut fusion),
            Op::Conv2dInputGrad { .. } | Op::MatMul { trans_a: false, trans_b: false } if is_input_grad(graph, id) => {
                fuse_input_grad(graph, uses, id, &mut fusion);
            }
            Op::Reshape { .. } => {
                if let Some((shuffle, between)) = shuffle_of(graph, uses, id) {
                    between.iter().for_each(|id| fusion.absorbed[id.index()] = true);
                    fusion.shuffles.insert(id, shuffle);
                }
            }
            Op::BatchNorm { .. } | Op::BatchNormTraining { .. } if !fusion.claimed[index] => {
                let (chain, last, between) = follow_norm(graph, uses, (id, &mut fusion.claimed));
                between.iter().for_each(|id| fusion.absorbed[id.index()] = true);
                fusion.norms.insert(last, chain);
            }
            _ => {}
        }
    }
    fusion
}

/// True for convolutions, and for products of f32 matrices with a plain `[out, in]` matrix on the right.
fn is_head(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let weight = graph.node(node.inputs[1]);
    let float = node.dtype == crate::DType::F32;
    float && (matches!(node.op, Op::Conv2d(_)) || weight.shape.rank() == 2)
}

/// Follows the chain of only users; gives the chain, its last node, and the nodes that are computed on the way.
fn follow(graph: &Graph, uses: &Uses, (head, claimed): (NodeId, &mut [bool])) -> (Chain, NodeId, Vec<NodeId>) {
    let mut chain = Chain::alone(graph, head);
    let (mut last, mut between) = (head, Vec::new());
    while let Some(user) = uses.only(last) {
        if claimed[user.index()] || !chain.take(graph, last, user) {
            break;
        }
        claimed[user.index()] = true;
        between.push(last);
        last = user;
        if chain.activation.is_some() {
            break;
        }
    }
    (chain, last, between)
}

impl NormChain {
    /// The batch norm by itself.
    pub fn alone(norm: NodeId) -> Self {
        NormChain { norm, residual: None, activation: None }
    }
}

impl GradChain {
    /// The input gradient by itself.
    pub fn alone(head: NodeId) -> Self {
        GradChain { head, residual: None, mask: None }
    }
}

impl Chain {
    /// The convolution or product by itself.
    pub fn alone(graph: &Graph, head: NodeId) -> Self {
        let bias = graph.node(head).inputs.get(2).copied();
        Chain { head, bias, norm: None, residual: None, activation: None }
    }

    /// Takes the next node along, if the epilogue can compute it.
    fn take(&mut self, graph: &Graph, last: NodeId, user: NodeId) -> bool {
        let node = graph.node(user);
        let convolution = matches!(graph.node(self.head).op, Op::Conv2d(_));
        match &node.op {
            Op::BatchNorm { .. } if convolution && self.norm.is_none() && self.residual.is_none() => {
                let fixed = |id: &NodeId| matches!(graph.node(*id).op, Op::Parameter { .. } | Op::Constant(_));
                let weight = &graph.node(self.head).inputs[1];
                let foldable = node.inputs[0] == last
                    && node.inputs[1..].iter().all(fixed)
                    && fixed(weight)
                    && self.bias.iter().all(fixed);
                if foldable {
                    self.norm = Some(user);
                }
                foldable
            }
            Op::Binary(BinaryKind::Add) => {
                let other = if node.inputs[0] == last { node.inputs[1] } else { node.inputs[0] };
                let (shape, given) = (&graph.node(last).shape, &graph.node(other).shape);
                if other == last || node.shape != *shape {
                    return false;
                }
                if !convolution && self.bias.is_none() && self.residual.is_none() && is_row(given, shape) {
                    self.bias = Some(other);
                    return true;
                }
                if self.residual.is_none() && given == shape {
                    self.residual = Some(other);
                    return true;
                }
                false
            }
            Op::Unary(kind) if activation_of(*kind).is_some() => {
                self.activation = Some(*kind);
                true
            }
            _ => false,
        }
    }
}

/// True for `[n]` beside `[…, n]`.
fn is_row(row: &Shape, of: &Shape) -> bool {
    row.rank() == 1 && of.last() == row.first()
}

/// The batch moments of a convolution's output, where its step can compute them on the way.
fn moments_of(graph: &Graph, uses: &Uses, id: NodeId) -> Option<NodeId> {
    if !matches!(graph.node(id).op, Op::Conv2d(_)) {
        return None;
    }
    uses.users[id.index()].iter().copied().find(|user| matches!(graph.node(*user).op, Op::Moments))
}

fn follow_norm(graph: &Graph, uses: &Uses, (norm, claimed): (NodeId, &mut [bool])) -> (NormChain, NodeId, Vec<NodeId>) {
    let mut chain = NormChain::alone(norm);
    let (mut last, mut between) = (norm, Vec::new());
    while let Some(user) = uses.only(last).or_else(|| activation_again(graph, uses, last)) {
        let node = graph.node(user);
        if claimed[user.index()] {
            break;
        }
        match &node.op {
            Op::Binary(BinaryKind::Add) if chain.residual.is_none() => {
                let other = if node.inputs[0] == last { node.inputs[1] } else { node.inputs[0] };
                if other == last || graph.node(other).shape != graph.node(last).shape {
                    break;
                }
                chain.residual = Some(other);
            }
            Op::Unary(kind) if activation_of(*kind).is_some() => chain.activation = Some(*kind),
            _ => break,
        }
        claimed[user.index()] = true;
        between.push(last);
        last = user;
        if chain.activation.is_some() {
            break;
        }
    }
    (chain, last, between)
}

/// Between which values of its output the gradient of a clipping activation passes.
fn passing(kind: UnaryKind) -> Option<[f32; 2]> {
    match kind {
        UnaryKind::Relu => Some([0.0, f32::INFINITY]),
        UnaryKind::Clip { min, max } => Some([min, max]),
        _ => None,
    }
}

/// True for gradients with respect to the input that K1 computes.
fn is_input_grad(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let full = |id: &NodeId| graph.node(*id).shape.numel() > 0;
    let weight = &graph.node(node.inputs[1]).shape;
    let float = node.dtype == crate::DType::F32 && full(&id) && node.inputs.iter().all(full);
    float && (matches!(node.op, Op::Conv2dInputGrad { .. }) || weight.rank() == 2)
}

/// The sum at a fork of the forward net and the gradient of a clipping activation go with the last input gradient before them.
fn fuse_input_grad(graph: &Graph, uses: &Uses, head: NodeId, fusion: &mut Fusion) {
    let mut chain = GradChain::alone(head);
    let mut last = head;
    while let Some(user) = uses.only(last).filter(|user| !fusion.claimed[user.index()]) {
        let node = graph.node(user);
        match &node.op {
            Op::Binary(BinaryKind::Add) if chain.residual.is_none() => {
                let other = if node.inputs[0] == last { node.inputs[1] } else { node.inputs[0] };
                if other == last || graph.node(other).shape != graph.node(last).shape {
                    break;
                }
                chain.residual = Some(other);
            }
            Op::UnaryGrad(kind) if node.inputs[1] == last && node.inputs[0] != last => {
                let Some(bounds) = passing(*kind) else { break };
                // What the backward of a batch norm computes again costs nothing to read.
                if norm_of(graph, uses, fusion, (user, *kind)).is_some() {
                    break;
                }
                chain.mask = Some((node.inputs[0], bounds));
            }
            _ => break,
        }
        fusion.claimed[user.index()] = true;
        fusion.absorbed[last.index()] = true;
        last = user;
        if chain.mask.is_some() {
            break;
        }
    }
    if last != head {
        fusion.input_grads.insert(last, chain);
    }
}

/// The activation behind a batch norm of training whose input only the activation and its gradient read, where that gradient flows
/// back into the same norm and nowhere else: both can do without the norm's output.
fn activation_again(graph: &Graph, uses: &Uses, norm: NodeId) -> Option<NodeId> {
    let ([first, second], false) = (&uses.users[norm.index()][..], uses.root[norm.index()]) else { return None };
    let (activation, gradient) = match graph.node(*first).op {
        Op::Unary(_) => (*first, *second),
        _ => (*second, *first),
    };
    let (Op::Unary(kind), Op::UnaryGrad(same)) = (&graph.node(activation).op, &graph.node(gradient).op) else {
        return None;
    };
    let own = kind == same && goes_again(*kind) && graph.node(gradient).inputs[1] != norm;
    (own && flows_back_into(graph, uses, gradient, norm)).then_some(activation)
}

/// True where only the backward of this batch norm reads a gradient.
fn flows_back_into(graph: &Graph, uses: &Uses, gradient: NodeId, norm: NodeId) -> bool {
    let node = graph.node(norm);
    let (Op::BatchNormTraining { .. }, [x, _, _, moments]) = (&node.op, &node.inputs[..]) else { return false };
    let own = |user: &NodeId| {
        let node = graph.node(*user);
        let given = match node.op {
            Op::BatchNormGradSums { .. } => node.inputs[2],
            Op::BatchNormInputGrad { .. } => node.inputs[3],
            _ => return false,
        };
        node.inputs[0] == *x && node.inputs[1] == gradient && given == *moments
    };
    let users = &uses.users[gradient.index()];
    has_norm_kernels(node) && !uses.root[gradient.index()] && !users.is_empty() && users.iter().all(own)
}

/// Weight and bias of the batch norm right before the activation whose gradient this is, where only that norm's backward
/// reads it.
fn norm_of(graph: &Graph, uses: &Uses, fusion: &Fusion, (id, kind): (NodeId, UnaryKind)) -> Option<[NodeId; 2]> {
    // The gradient of a clipping activation reads its output, that of another its input.
    let read = graph.node(id).inputs[0];
    let chain = fusion.norms.get(&activation_again(graph, uses, read).unwrap_or(read))?;
    let alone = chain.residual.is_none() && chain.activation == Some(kind);
    let norm = &graph.node(chain.norm).inputs;
    (alone && flows_back_into(graph, uses, id, chain.norm)).then(|| [norm[1], norm[2]])
}

/// Where only the backward of a batch norm reads the gradient of an activation, that takes it along.
fn fuse_behind(graph: &Graph, uses: &Uses, (id, kind): (NodeId, UnaryKind), fusion: &mut Fusion) {
    let users = &uses.users[id.index()];
    let backward = |user: &NodeId| {
        let node = graph.node(*user);
        let norm = matches!(node.op, Op::BatchNormGradSums { .. } | Op::BatchNormInputGrad { .. });
        norm && node.inputs[1] == id && node.inputs[0] != id && has_norm_kernels(graph.node(node.inputs[0]))
    };
    if fusion.claimed[id.index()] || uses.root[id.index()] || users.is_empty() || !users.iter().all(backward) {
        return;
    }
    let [read, dy] = graph.node(id).inputs[..] else { return };
    let again = norm_of(graph, uses, fusion, (id, kind)).map(|affine| Seen::Again(kind, affine));
    let Some(seen) = again.or_else(|| Some(Seen::Output(read, passing(kind)?))) else { return };
    fusion.absorbed[id.index()] = true;
    for user in users {
        fusion.behind.insert(*user, Behind { dy, seen });
    }
}

/// The channel shuffle that ends with the reshape `last`: `[n, c, …]` seen as `[n, g, c/g, …]`, both parts of the channels exchanged, and
/// seen as `[n, c, …]` again. Gives what is shuffled, the number of groups, and the nodes between.
fn shuffle_of(graph: &Graph, uses: &Uses, last: NodeId) -> Option<((NodeId, usize), [NodeId; 2])> {
    let transpose = graph.node(last).inputs[0];
    let Op::Transpose { perm } = &graph.node(transpose).op else { return None };
    let reshape = graph.node(transpose).inputs[0];
    let (Op::Reshape { .. }, Some(_), Some(_)) = (&graph.node(reshape).op, uses.only(transpose), uses.only(reshape))
    else {
        return None;
    };
    let x = graph.node(reshape).inputs[0];
    let (shape, cut) = (&graph.node(x).shape, &graph.node(reshape).shape);
    let exchanged = perm.len() >= 3 && perm[..3] == [0, 2, 1] && perm[3..].iter().enumerate().all(|(i, &p)| p == i + 3);
    let channels = shape.rank() == 4 && shape.numel() > 0 && cut[0] == shape[0] && cut[1] * cut[2] == shape[1];
    let f32 = graph.node(x).dtype == crate::DType::F32;
    (f32 && exchanged && channels && graph.node(last).shape == *shape).then(|| ((x, cut[1]), [reshape, transpose]))
}
