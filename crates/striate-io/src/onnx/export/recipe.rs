//! Which nodes of a graph become one ONNX operator together.

use super::dims::Dim;
use striate_graph::{BinaryKind, Buffer, Graph, Node, NodeId, Op, UnaryKind};

/// How a node's value is written, and from which values.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Recipe {
    /// By its operation alone.
    Plain,
    /// A matrix product with a vector added.
    Gemm { product: NodeId, bias: Option<NodeId> },
    /// A transposed convolution with a bias.
    ConvTranspose { conv: NodeId, bias: NodeId },
    /// A convolution that takes in the batch norm behind it.
    FoldedConv { conv: NodeId, norm: NodeId },
    /// Standardised over the axes from `axis` on.
    LayerNorm { x: NodeId, axis: usize, eps: f32, affine: [Option<NodeId>; 2] },
    /// Standardised over all axes from 2 on, with a factor and a summand a channel.
    InstanceNorm { x: NodeId, eps: f32, affine: [Option<NodeId>; 2] },
    /// Standardised over each of so many groups of channels.
    GroupNorm { x: NodeId, groups: usize, eps: f32 },
    /// `x` where positive, else `slope * x`.
    PRelu { x: NodeId, slope: NodeId },
}

/// Finds recipes.
pub(super) struct Kitchen<'a> {
    graph: &'a Graph,
    dims: &'a [Vec<Dim>],
    opset: i64,
    fold: bool,
    /// How many needed values and outputs read each node.
    uses: Vec<usize>,
}

impl<'a> Kitchen<'a> {
    pub fn new(graph: &'a Graph, dims: &'a [Vec<Dim>], opset: i64, fold: bool) -> Kitchen<'a> {
        let mut uses = vec![0; graph.nodes.len()];
        let live = graph.live();
        for (node, _) in graph.nodes.iter().zip(&live).filter(|(_, live)| **live) {
            node.inputs.iter().for_each(|input| uses[input.index()] += 1);
        }
        graph.outputs.iter().chain(&graph.tapped).for_each(|(_, id)| uses[id.index()] += 1);
        Kitchen { graph, dims, opset, fold, uses }
    }

    /// The recipe of each node that is written, `None` for those that are not.
    pub fn plan(&self) -> Vec<Option<Recipe>> {
        let mut recipes = vec![None; self.graph.nodes.len()];
        let mut needed = vec![false; self.graph.nodes.len()];
        self.graph.outputs.iter().for_each(|(_, id)| needed[id.index()] = true);
        for index in (0..recipes.len()).rev().filter(|&index| matches!(self.graph.nodes[index].op, Op::Input { .. })) {
            needed[index] = true;
        }
        for index in (0..recipes.len()).rev() {
            if needed[index] {
                let recipe = self.choose(NodeId(index as u32));
                self.inputs(index, &recipe).iter().for_each(|input| needed[input.index()] = true);
                recipes[index] = Some(recipe);
            }
        }
        recipes
    }

    /// What a recipe reads.
    fn inputs(&self, index: usize, recipe: &Recipe) -> Vec<NodeId> {
        let of = |id: &NodeId| self.graph.node(*id).inputs.clone();
        match recipe {
            Recipe::Plain => self.graph.nodes[index].inputs.clone(),
            Recipe::Gemm { product, bias } => of(product).into_iter().chain(*bias).collect(),
            Recipe::ConvTranspose { conv, bias } => of(conv).into_iter().chain([*bias]).collect(),
            // Weights and statistics are taken as data.
            Recipe::FoldedConv { conv, .. } => vec![self.graph.node(*conv).inputs[0]],
            Recipe::LayerNorm { x, affine, .. } | Recipe::InstanceNorm { x, affine, .. } => {
                std::iter::once(*x).chain(affine.iter().flatten().copied()).collect()
            }
            Recipe::GroupNorm { x, .. } => vec![*x],
            Recipe::PRelu { x, slope } => vec![*x, *slope],
        }
    }

    fn choose(&self, id: NodeId) -> Recipe {
        let node = self.graph.node(id);
        let found = match &node.op {
            Op::Binary(BinaryKind::Add) => self
                .gemm_with_bias(node)
                .or_else(|| self.transposed_with_bias(node))
                .or_else(|| self.scaled_and_shifted(id)),
            Op::Binary(BinaryKind::Mul) => self.scaled_and_shifted(id),
            Op::MatMul { .. } => self.is_gemm(id).then_some(Recipe::Gemm { product: id, bias: None }),
            Op::Reshape { .. } | Op::Standardize { .. } => self.standardized(id, [None; 2]),
            Op::Where => self.prelu(node),
            Op::BatchNorm { .. } if self.fold => self.folded(id),
            _ => None,
        };
        found.unwrap_or(Recipe::Plain)
    }

    /// The node, where nobody else reads it.
    fn single(&self, id: NodeId) -> Option<&'a Node> {
        (self.uses[id.index()] == 1).then(|| self.graph.node(id))
    }

    /// A product of two matrices of which at least one is transposed; else `MatMul` says it as well.
    fn is_gemm(&self, id: NodeId) -> bool {
        let node = self.graph.node(id);
        let matrices = node.inputs.iter().all(|input| self.graph.node(*input).shape.rank() == 2);
        matrices && node.dtype.is_float() && matches!(node.op, Op::MatMul { trans_a, trans_b } if trans_a || trans_b)
    }

    fn gemm_with_bias(&self, node: &Node) -> Option<Recipe> {
        let [product, bias] = node.inputs[..] else { return None };
        let inner = self.single(product)?;
        let matrices = matches!(inner.op, Op::MatMul { .. })
            && inner.inputs.iter().all(|input| self.graph.node(*input).shape.rank() == 2);
        let columns = self.dims[product.index()].last().copied();
        let fits = self.dims[bias.index()].len() == 1 && self.dims[bias.index()].first().copied() == columns;
        (matrices && fits && node.dtype.is_float()).then_some(Recipe::Gemm { product, bias: Some(bias) })
    }

    /// `Conv2dInputGrad` with `bias.reshape([C, 1, 1])` added.
    fn transposed_with_bias(&self, node: &Node) -> Option<Recipe> {
        let [conv, summand] = node.inputs[..] else { return None };
        let inner = self.single(conv)?;
        let bias = self.per_channel(summand, conv)?;
        matches!(inner.op, Op::Conv2dInputGrad { .. }).then_some(Recipe::ConvTranspose { conv, bias })
    }

    /// The vector `[C]` behind a value that is broadcast along the channels of `x`.
    fn per_channel(&self, id: NodeId, x: NodeId) -> Option<NodeId> {
        let (shape, node) = (&self.graph.node(x).shape, self.graph.node(id));
        if shape.rank() < 3 || !matches!(node.op, Op::Reshape { .. }) {
            return None;
        }
        let inner = node.inputs[0];
        let channels = shape[1];
        let trailing = shape.rank() - 2;
        let lead = node.shape.rank().checked_sub(trailing + 1)?;
        let along = node.shape[..lead].iter().all(|&size| size == 1)
            && lead <= 1
            && node.shape[lead] == channels
            && node.shape[lead + 1..].iter().all(|&size| size == 1);
        (along && self.graph.node(inner).shape.dims() == [channels]).then_some(inner)
    }

    /// `Standardize` with a factor, a summand, or both behind it.
    fn scaled_and_shifted(&self, id: NodeId) -> Option<Recipe> {
        let node = self.graph.node(id);
        let [first, second] = node.inputs[..] else { return None };
        match &node.op {
            Op::Binary(BinaryKind::Mul) => self.standardized(first, [Some(second), None]),
            Op::Binary(BinaryKind::Add) => {
                let inner = self.single(first)?;
                match (&inner.op, &inner.inputs[..]) {
                    (Op::Binary(BinaryKind::Mul), [core, factor]) => {
                        self.standardized(*core, [Some(*factor), Some(second)])
                    }
                    _ => self.standardized(first, [None, Some(second)]),
                }
            }
            _ => None,
        }
    }

    /// `Standardize`, with a reshape to rows before and one back behind it, under a factor and a summand.
    fn standardized(&self, outer: NodeId, affine: [Option<NodeId>; 2]) -> Option<Recipe> {
        let with_affine = affine != [None; 2];
        let through = |id: NodeId| if with_affine { self.single(id) } else { Some(self.graph.node(id)) };
        let node = through(outer)?;
        let core = match node.op {
            Op::Reshape { .. } => self.single(node.inputs[0])?,
            _ => node,
        };
        let Op::Standardize { eps } = core.op else { return None };
        let rows = core.inputs[0];
        let before = self.graph.node(rows);
        let x = match before.op {
            Op::Reshape { .. } if self.dims[before.inputs[0].index()] == self.dims[outer.index()] => before.inputs[0],
            _ if self.dims[rows.index()] == self.dims[outer.index()] => rows,
            _ => return None,
        };
        self.over_groups(x, *before.shape.last()?, eps, affine)
    }

    /// What it is to standardise pieces of `length` elements of `x`.
    fn over_groups(&self, x: NodeId, length: usize, eps: f32, affine: [Option<NodeId>; 2]) -> Option<Recipe> {
        let shape = &self.graph.node(x).shape;
        let rank = shape.rank();
        let whole = |axis: usize| shape[axis..].iter().product::<usize>() == length;
        let [factor, summand] = affine;
        let channel = affine.map(|operand| operand.and_then(|id| self.per_channel(id, x)));
        let by_channel = channel.map(|found| found.is_some()) == affine.map(|given| given.is_some());
        if rank >= 3 && whole(2) && by_channel {
            return Some(Recipe::InstanceNorm { x, eps, affine: channel });
        }
        let given = factor.or(summand).map(|id| self.graph.node(id).shape.rank());
        let axis = match given {
            Some(given) => rank.checked_sub(given)?,
            None => (1..rank).rev().find(|&axis| whole(axis)).unwrap_or(rank),
        };
        let fits = |operand: Option<NodeId>| {
            operand.is_none_or(|id| self.dims[id.index()][..] == self.dims[x.index()][axis.min(rank)..])
        };
        let fixed = || self.dims[x.index()][axis..].iter().all(|dim| dim.fixed().is_some());
        if self.opset >= 17 && (1..rank).contains(&axis) && whole(axis) && affine.into_iter().all(fits) && fixed() {
            return Some(Recipe::LayerNorm { x, axis, eps, affine });
        }
        let sample = shape.get(1..)?.iter().product::<usize>();
        let groups = sample.checked_div(length)?;
        let divides = rank >= 3 && groups > 0 && sample.is_multiple_of(length) && shape[1].is_multiple_of(groups);
        (affine == [None; 2] && divides).then_some(Recipe::GroupNorm { x, groups, eps })
    }

    /// `where(x > 0, x, slope * x)`.
    fn prelu(&self, node: &Node) -> Option<Recipe> {
        let [condition, x, product] = node.inputs[..] else { return None };
        let (condition, product) = (self.single(condition)?, self.single(product)?);
        let is_zero = |id: NodeId| match &self.graph.node(id).op {
            Op::Constant(array) => matches!(array.buffer(), Buffer::F32(values) if values.iter().all(|v| *v == 0.0)),
            _ => false,
        };
        let positive = matches!(condition.op, Op::Binary(BinaryKind::Greater))
            && condition.inputs[0] == x
            && is_zero(condition.inputs[1]);
        let (Op::Binary(BinaryKind::Mul), &[slope, scaled]) = (&product.op, &product.inputs[..]) else { return None };
        let broadcasts = self.graph.node(slope).shape.rank() <= self.graph.node(x).shape.rank()
            && node.shape == self.graph.node(x).shape;
        (positive && scaled == x && broadcasts).then_some(Recipe::PRelu { x, slope })
    }

    /// A convolution behind which nothing but this batch norm stands, all of fixed data.
    fn folded(&self, norm: NodeId) -> Option<Recipe> {
        let node = self.graph.node(norm);
        let conv = node.inputs[0];
        let inner = self.single(conv)?;
        let fixed = |id: &NodeId| matches!(self.graph.node(*id).op, Op::Parameter { .. } | Op::Constant(_));
        let all = matches!(inner.op, Op::Conv2d(_)) && inner.inputs[1..].iter().chain(&node.inputs[1..]).all(fixed);
        all.then_some(Recipe::FoldedConv { conv, norm })
    }
}

/// Whether a node gives its input as it is.
pub(super) fn is_alias(op: &Op) -> bool {
    matches!(op, Op::Detach) || matches!(op, Op::Unary(UnaryKind::Affine { scale: 1.0, shift: 0.0 }))
}
