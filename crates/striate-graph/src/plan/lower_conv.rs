//! Convolutions, their gradients, and products of matrices: all of them are K1 and K2 with the shape of a convolution.

use super::fuse::{Chain, GradChain};
use super::lower::Lowering;
use super::packed::packed_form;
use super::step::{Bias, ConvKernel, FoldedNorm, Kernel, Recipe, Source, Weights, activation_of};
use super::value::{Layout, Place, ValueId};
use crate::{ConvAttrs, Node, NodeId, Op};
use striate_kernels::conv::{Activation, Conv2dShape, ForwardPlan, InputGradPlan, WeightGradPlan};

/// The kernels' shape of a convolution of `[n, c, h, w]` with an OIHW weight.
pub(super) fn conv_shape(x: &[usize], w: &[usize], attrs: &ConvAttrs) -> Conv2dShape {
    Conv2dShape {
        n: x[0],
        ih: x[2],
        iw: x[3],
        ic: x[1],
        oc: w[0],
        kh: w[2],
        kw: w[3],
        stride: attrs.stride,
        pads: attrs.pads,
        dilation: attrs.dilation,
        groups: attrs.groups,
    }
}

/// A product of `rows` rows of `k` numbers with an `[n, k]` matrix, as a 1x1 convolution of one long line of pixels.
pub(super) fn linear_shape(rows: usize, k: usize, n: usize) -> Conv2dShape {
    let attrs = ConvAttrs::default();
    conv_shape(&[1, k, 1, rows], &[n, k, 1, 1], &attrs)
}

impl Lowering<'_> {
    /// A convolution or linear layer with its epilogue.
    pub(super) fn chain(&mut self, last: NodeId, chain: &Chain) {
        if self.pair(last, chain) {
            return;
        }
        let graph = self.graph;
        let head = graph.node(chain.head);
        let (x, weight) = (head.inputs[0], head.inputs[1]);
        let (shape, layout) = match &head.op {
            Op::Conv2d(attrs) => {
                (conv_shape(&graph.node(x).shape, &graph.node(weight).shape, attrs), Layout::ChannelsLast)
            }
            _ => {
                let w = &graph.node(weight).shape;
                (linear_shape(head.shape.numel() / w[0].max(1), w[1], w[0]), Layout::Rows)
            }
        };
        if head.shape.numel() == 0 || shape.ic == 0 {
            return self.unfused(last, chain);
        }
        let x = match layout {
            Layout::ChannelsLast => self.with_gaps(x),
            Layout::Rows => self.get(x, layout),
        };
        let moments = self.fusion.moments.get(&last).copied();
        let y = match layout == Layout::ChannelsLast && chain.residual.is_none() {
            true => self.result_in_slot(last, &[x]),
            false => self.result(last, layout),
        };
        let pitch = |value: ValueId, channels| self.value(value).pitch.unwrap_or(channels);
        let pitches = [pitch(x, shape.ic), pitch(y, shape.oc)];
        let plan = ForwardPlan::pitched(shape, self.machine.isa, self.machine.algorithms, pitches);
        let mut reads = vec![x];
        let mut extra = Vec::new();
        let recipe = self.recipe(weight, chain);
        let (weights, cells) =
            self.weights(weight, recipe, (&shape, &plan.packing(), plan.packed_len()), (&mut reads, &mut extra));
        let bias = match (chain.norm, chain.bias) {
            (Some(_), _) => Bias::Folded,
            (None, Some(bias)) => {
                reads.push(self.get(bias, Layout::Rows));
                Bias::Value
            }
            (None, None) => Bias::None,
        };
        if let Some(residual) = chain.residual {
            reads.push(self.get(residual, layout));
        }
        let mut writes = vec![y];
        writes.extend(moments.map(|id| self.result(id, Layout::Rows)));
        writes.push(self.scratch(plan.scratch_len(self.machine.threads)));
        writes.append(&mut extra);
        let activation = chain.activation.and_then(activation_of).unwrap_or(Activation::None);
        let flops = shape.flops();
        let residual = chain.residual.is_some();
        let kernel = ConvKernel { plan, weights, bias, residual, moments: moments.is_some(), activation };
        self.step_with(Kernel::Conv(Box::new(kernel)), reads, writes, cells, flops);
    }

    /// An empty convolution has nothing to fuse: node by node.
    fn unfused(&mut self, last: NodeId, chain: &Chain) {
        for id in self.between(chain.head, last) {
            let node = self.graph.node(id);
            let reads = node.inputs.iter().map(|input| self.get(*input, Layout::Rows)).collect();
            let value = self.result(id, Layout::Rows);
            self.step(Kernel::Reference(Box::new(node.clone())), reads, vec![value]);
        }
        if let Some(moments) = self.fusion.moments.get(&last) {
            let node = self.graph.node(*moments);
            let reads = vec![self.get(last, Layout::Rows)];
            let value = self.result(*moments, Layout::Rows);
            self.step(Kernel::Reference(Box::new(node.clone())), reads, vec![value]);
        }
    }

    /// The nodes of a chain, from its head to its last.
    pub(super) fn between(&self, head: NodeId, last: NodeId) -> Vec<NodeId> {
        let mut ids = vec![head];
        while let Some(user) = ids.last().filter(|id| **id < last).and_then(|id| self.uses.only(*id)) {
            ids.push(user);
        }
        ids
    }

    fn source(&self, id: NodeId) -> Option<Source> {
        match self.value(self.as_it_lies(id)).place {
            Place::Parameter(slot) => Some(Source::Cell(slot)),
            Place::Constant(index) => Some(Source::Constant(index)),
            _ => None,
        }
    }

    /// True for a cell that the program itself updates.
    fn is_updated(&self, source: Source) -> bool {
        matches!(source, Source::Cell(slot) if self.updated.contains(&slot))
    }

    pub(super) fn recipe(&self, weight: NodeId, chain: &Chain) -> Option<Recipe> {
        let norm = match chain.norm {
            None => None,
            Some(id) => {
                let node = self.graph.node(id);
                let Op::BatchNorm { eps } = node.op else { return None };
                let sources: Option<Vec<Source>> = node.inputs[1..].iter().map(|input| self.source(*input)).collect();
                Some(FoldedNorm { sources: sources?.try_into().ok()?, eps })
            }
        };
        let bias = chain.norm.and(chain.bias).and_then(|bias| self.source(bias));
        Some(Recipe { weight: self.source(weight)?, bias, norm })
    }

    /// Decides where packed weights live: beside their cells, or, for weights that the program itself computes or updates, in
    /// a buffer of the step.
    pub(super) fn weights(
        &mut self,
        weight: NodeId,
        recipe: Option<Recipe>,
        (shape, packing, packed_len): (&Conv2dShape, &str, usize),
        (reads, writes): (&mut Vec<ValueId>, &mut Vec<ValueId>),
    ) -> (Weights, Vec<usize>) {
        // What each run updates is packed anew in each, so the packed form needs no place of its own between two runs.
        let Some(recipe) = recipe.filter(|recipe| recipe.norm.is_some() || !self.is_updated(recipe.weight)) else {
            reads.push(self.get(weight, Layout::Rows));
            writes.push(self.scratch(packed_len));
            return (Weights::Computed, Vec::new());
        };
        let cells: Vec<usize> = recipe
            .sources()
            .filter_map(|source| match source {
                Source::Cell(slot) => Some(slot),
                Source::Constant(_) => None,
            })
            .collect();
        let constants = recipe.sources().any(|source| matches!(source, Source::Constant(_)));
        // The batch size does not matter but for the packing, so that most programs of different batches share it.
        let geometry = Conv2dShape { n: 1, ..*shape };
        let linear = shape.ih == 1 && shape.kh == 1 && shape.kw == 1 && shape.n == 1;
        let geometry = if linear { Conv2dShape { iw: 1, ..geometry } } else { geometry };
        let text = format!("{packing} {geometry:?} {:?} {:?}", recipe.norm.map(|n| n.eps), self.machine.isa);
        let parameters: Vec<_> = cells.iter().map(|slot| &self.graph.parameters[*slot]).collect();
        // Constants belong to this program alone.
        let form = packed_form(&text, if constants { &[] } else { &parameters });
        (Weights::Cached { form, recipe: Box::new(recipe) }, cells)
    }

    /// The gradients of convolutions, and products that are no linear layer.
    pub(super) fn fast_linear_algebra(&mut self, id: NodeId, node: &Node) -> bool {
        let graph = self.graph;
        let shape_of = |id: NodeId| &graph.node(id).shape;
        if node.shape.numel() == 0 || node.inputs.iter().any(|input| shape_of(*input).numel() == 0) {
            return false;
        }
        match &node.op {
            Op::Conv2dInputGrad { .. } => self.input_grad_chain(id, &GradChain::alone(id)),
            Op::Conv2dWeightGrad { attrs, .. } => {
                let shape = conv_shape(shape_of(node.inputs[0]), &node.shape, attrs);
                self.weight_grad(id, (node.inputs[0], node.inputs[1]), shape, Layout::ChannelsLast);
            }
            // [m, n] x [n, k]: the input gradient of a linear layer with the weight [n, k].
            Op::MatMul { trans_a: false, trans_b: false } if shape_of(node.inputs[1]).rank() == 2 => {
                self.input_grad_chain(id, &GradChain::alone(id));
            }
            // [m, n]ᵀ x [m, k]: the weight gradient of a linear layer.
            Op::MatMul { trans_a: true, trans_b: false } if node.shape.rank() == 2 => {
                let (dy, x) = (shape_of(node.inputs[0]), shape_of(node.inputs[1]));
                if dy.rank() != 2 || x.rank() != 2 {
                    return false;
                }
                let shape = linear_shape(x[0], x[1], dy[1]);
                self.weight_grad(id, (node.inputs[1], node.inputs[0]), shape, Layout::Rows);
            }
            _ => return false,
        }
        true
    }

    /// An input gradient with its epilogue.
    pub(super) fn input_grad_chain(&mut self, last: NodeId, chain: &GradChain) {
        let graph = self.graph;
        let head = graph.node(chain.head);
        let (dy, weight) = (head.inputs[0], head.inputs[1]);
        let w = &graph.node(weight).shape;
        let (shape, layout) = match &head.op {
            Op::Conv2dInputGrad { attrs, .. } => (conv_shape(&head.shape, w, attrs), Layout::ChannelsLast),
            _ => (linear_shape(head.shape.numel() / w[1], w[1], w[0]), Layout::Rows),
        };
        let plan = InputGradPlan::new(shape, self.machine.isa, self.machine.algorithms);
        let mut reads = vec![self.get(dy, layout)];
        let mut extra = Vec::new();
        let recipe = self.source(weight).map(|weight| Recipe { weight, bias: None, norm: None });
        let packing = format!("input gradient {}", plan.packing());
        let (weights, cells) =
            self.weights(weight, recipe, (&shape, &packing, plan.packed_len()), (&mut reads, &mut extra));
        let more = chain.residual.iter().chain(chain.mask.iter().map(|(output, _)| output));
        more.for_each(|id| reads.push(self.get(*id, layout)));
        let mut writes = vec![self.result(last, layout), self.scratch(plan.scratch_len(self.machine.threads))];
        writes.append(&mut extra);
        let flops = shape.flops();
        let (residual, mask) = (chain.residual.is_some(), chain.mask.map(|(_, bounds)| bounds));
        let kernel = Kernel::ConvInputGrad { plan: Box::new(plan), weights, residual, mask };
        self.step_with(kernel, reads, writes, cells, flops);
    }

    fn weight_grad(&mut self, id: NodeId, (x, dy): (NodeId, NodeId), shape: Conv2dShape, layout: Layout) {
        let plan = WeightGradPlan::new(shape, self.machine.isa, self.machine.algorithms);
        let reads = vec![self.get(x, layout), self.get(dy, layout)];
        let writes = vec![self.result(id, Layout::Rows), self.scratch(plan.scratch_len(self.machine.threads))];
        let flops = shape.flops();
        self.step_with(Kernel::ConvWeightGrad { plan: Box::new(plan) }, reads, writes, Vec::new(), flops);
    }
}
