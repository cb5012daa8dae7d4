//! A 1x1 convolution and the depthwise one that alone reads it, as one step.

use super::fuse::{Chain, Fusion, Uses};
use super::lower::Lowering;
use super::lower_conv::conv_shape;
use super::step::{Bias, Kernel, PairKernel, Weights, activation_of};
use super::value::{Layout, ValueId};
use crate::{Graph, NodeId, Op};
use striate_kernels::conv::{Activation, Conv2dShape, PairPlan};
use striate_kernels::simd::Isa;

/// Finds the pairs: the first chain's last node is absorbed, the second chain's step computes both.
pub(crate) fn find_pairs(graph: &Graph, uses: &Uses, fusion: &mut Fusion, isa: Isa) {
    let mut found: Vec<(NodeId, NodeId)> = fusion
        .chains
        .iter()
        .filter_map(|(last, second)| {
            let middle = graph.node(second.head).inputs[0];
            let first = fusion.chains.get(&middle)?;
            let alone = uses.only(middle) == Some(second.head) && plain(graph, first) && plain(graph, second);
            (alone && pair_plan(graph, first, second, isa).is_some()).then_some((*last, middle))
        })
        .collect();
    found.sort();
    for (last, middle) in found {
        // Of three in a row, the first two are a pair.
        if !fusion.pairs.contains_key(&middle) && !fusion.pairs.values().any(|other| *other == last) {
            fusion.absorbed[middle.index()] = true;
            fusion.pairs.insert(last, middle);
        }
    }
}

/// A convolution without a residual, whose weight is packed once for all runs.
fn plain(graph: &Graph, chain: &Chain) -> bool {
    let node = graph.node(chain.head);
    let fixed = matches!(graph.node(node.inputs[1]).op, Op::Parameter { .. } | Op::Constant(_));
    matches!(node.op, Op::Conv2d(_)) && fixed && chain.residual.is_none() && node.shape.numel() > 0
}

fn shape_of(graph: &Graph, chain: &Chain) -> Option<Conv2dShape> {
    let node = graph.node(chain.head);
    let Op::Conv2d(attrs) = &node.op else { return None };
    Some(conv_shape(&graph.node(node.inputs[0]).shape, &graph.node(node.inputs[1]).shape, attrs))
}

fn pair_plan(graph: &Graph, first: &Chain, second: &Chain, isa: Isa) -> Option<PairPlan> {
    PairPlan::choose(shape_of(graph, first)?, shape_of(graph, second)?, isa)
}

impl Lowering<'_> {
    /// The step of a pair, where `last` is the last node of one; false where it is not.
    pub(super) fn pair(&mut self, last: NodeId, second: &Chain) -> bool {
        let (graph, fusion) = (self.graph, self.fusion);
        let Some(first) = fusion.pairs.get(&last).and_then(|middle| fusion.chains.get(middle)) else { return false };
        let Some(plan) = pair_plan(graph, first, second, self.machine.isa) else { return false };
        let mut reads = vec![self.get(graph.node(first.head).inputs[0], Layout::ChannelsLast)];
        let mut cells = Vec::new();
        let layers = [first, second].into_iter().enumerate().map(|(which, chain)| {
            let shape = shape_of(graph, chain).expect("a plan has shapes");
            let (weights, bias) = self.pair_layer(chain, (&shape, &plan, which), &mut reads, &mut cells);
            (weights, bias, chain.activation.and_then(activation_of).unwrap_or(Activation::None))
        });
        let layers: Vec<(Weights, Bias, Activation)> = layers.collect();
        let Ok(layers) = <[_; 2]>::try_from(layers) else { return false };
        let writes =
            vec![self.result(last, Layout::ChannelsLast), self.scratch(plan.scratch_len(self.machine.threads))];
        let flops = plan.flops();
        self.step_with(Kernel::ConvPair(Box::new(PairKernel { plan, layers })), reads, writes, cells, flops);
        true
    }

    fn pair_layer(
        &mut self,
        chain: &Chain,
        (shape, plan, which): (&Conv2dShape, &PairPlan, usize),
        reads: &mut Vec<ValueId>,
        cells: &mut Vec<usize>,
    ) -> (Weights, Bias) {
        let weight = self.graph.node(chain.head).inputs[1];
        let recipe = self.recipe(weight, chain);
        let packing = (shape, &*format!("{} {which}", plan.packing()), plan.packed_lens()[which]);
        // `plain` has seen that the weight is no computed value, so nothing is added here.
        let (weights, mut own) = self.weights(weight, recipe, packing, (&mut Vec::new(), &mut Vec::new()));
        cells.append(&mut own);
        let bias = match (chain.norm, chain.bias) {
            (Some(_), _) => Bias::Folded,
            (None, Some(bias)) => {
                reads.push(self.get(bias, Layout::Rows));
                Bias::Value
            }
            (None, None) => Bias::None,
        };
        (weights, bias)
    }
}
