//! Batch normalisation: its statistics, itself with what follows it, and its backward.

use super::fuse::{Behind, NormChain, Seen};
use super::lower::Lowering;
use super::step::{Kernel, NormBehind, activation_of};
use super::value::{Layout, ValueId};
use crate::{DType, Node, NodeId, Op, Shape};
use striate_kernels::conv::Activation;
use striate_kernels::norm::norm_scratch_len;

/// How `[N, C, …]` lies where its channels are neighbours. `[N, C]` lies so row-major.
fn channels_last(shape: &Shape) -> Option<Layout> {
    match shape.rank() {
        2 => Some(Layout::Rows),
        3 | 4 => Some(Layout::ChannelsLast),
        _ => None,
    }
}

/// True for a value whose batch normalisation, and the backward of it, this file knows kernels for.
pub(super) fn has_norm_kernels(x: &Node) -> bool {
    x.dtype == DType::F32 && x.shape.numel() > 0 && channels_last(&x.shape).is_some()
}

impl Lowering<'_> {
    /// A node of batch normalisation by itself; false where it has no fast kernel.
    pub(super) fn norm(&mut self, id: NodeId, node: &Node) -> bool {
        let x = self.graph.node(node.inputs[0]).shape.clone();
        let (Some(layout), true) = (channels_last(&x), x.numel() > 0) else { return false };
        let (pixels, channels) = (x.numel() / x[1], x[1]);
        match &node.op {
            Op::Moments => {
                let reads = vec![self.get(node.inputs[0], layout)];
                let writes = vec![self.result(id, Layout::Rows), self.scratch(norm_scratch_len(pixels, channels))];
                self.step(Kernel::Moments, reads, writes);
            }
            Op::BatchNorm { .. } => self.batch_norm(id, &NormChain::alone(id), layout),
            Op::BatchNormGradSums { eps } => {
                let (dy, behind, more) = self.flows_back(id, node, layout);
                let mut reads = vec![self.get(node.inputs[0], layout), dy, self.get(node.inputs[2], Layout::Rows)];
                reads.extend(more);
                let writes = vec![self.result(id, Layout::Rows), self.scratch(norm_scratch_len(pixels, channels))];
                self.step(Kernel::BatchNormGradSums { eps: *eps, behind }, reads, writes);
            }
            Op::BatchNormInputGrad { eps } => {
                let (dy, behind, more) = self.flows_back(id, node, layout);
                let mut reads = vec![self.get(node.inputs[0], layout), dy];
                reads.extend(node.inputs[2..].iter().map(|input| self.get(*input, Layout::Rows)));
                reads.extend(more);
                let writes = vec![self.result(id, layout), self.scratch(3 * channels)];
                self.step(Kernel::BatchNormInputGrad { eps: *eps, behind }, reads, writes);
            }
            _ => return false,
        }
        true
    }

    /// What flows back into a batch norm, the activation that its step takes along, and what is read for it.
    fn flows_back(&mut self, id: NodeId, node: &Node, layout: Layout) -> (ValueId, NormBehind, Vec<ValueId>) {
        let Some(&Behind { dy, seen }) = self.fusion.behind.get(&id) else {
            return (self.get(node.inputs[1], layout), NormBehind::None, Vec::new());
        };
        let dy = self.get(dy, layout);
        match seen {
            Seen::Again(kind, affine) => {
                (dy, NormBehind::Again(kind), affine.map(|id| self.get(id, Layout::Rows)).to_vec())
            }
            Seen::Output(output, bounds) => (dy, NormBehind::Output(bounds), vec![self.get(output, layout)]),
        }
    }

    /// A batch norm of training with what follows it.
    pub(super) fn norm_chain(&mut self, last: NodeId, chain: &NormChain) {
        let node = self.graph.node(chain.norm);
        match channels_last(&node.shape) {
            Some(layout) if has_norm_kernels(node) => self.batch_norm(last, chain, layout),
            _ => {
                for id in self.between(chain.norm, last) {
                    let node = self.graph.node(id);
                    let reads = node.inputs.iter().map(|input| self.get(*input, Layout::Rows)).collect();
                    let value = self.result(id, Layout::Rows);
                    self.step(Kernel::Reference(Box::new(node.clone())), reads, vec![value]);
                }
            }
        }
    }

    fn batch_norm(&mut self, last: NodeId, chain: &NormChain, layout: Layout) {
        let node = self.graph.node(chain.norm);
        let (Op::BatchNormTraining { eps } | Op::BatchNorm { eps }) = node.op else { return };
        if matches!(node.op, Op::BatchNorm { .. }) && chain.residual.is_none() && layout == Layout::ChannelsLast {
            return self.affine(last, chain, eps);
        }
        let mut reads = vec![self.get(node.inputs[0], layout)];
        reads.extend(node.inputs[1..].iter().map(|input| self.get(*input, Layout::Rows)));
        reads.extend(chain.residual.map(|residual| self.get(residual, layout)));
        let writes = vec![self.result(last, layout), self.scratch(node.shape[1])];
        let activation = chain.activation.and_then(activation_of).unwrap_or(Activation::None);
        self.step(Kernel::BatchNorm { eps, residual: chain.residual.is_some(), activation }, reads, writes);
    }

    /// A batch norm of evaluation and its activation. Input and output may be some channels of larger values.
    fn affine(&mut self, last: NodeId, chain: &NormChain, eps: f32) {
        let node = self.graph.node(chain.norm);
        let x = self.with_gaps(node.inputs[0]);
        let y = self.result_in_slot(last, &[x]);
        let mut reads = vec![x];
        reads.extend(node.inputs[1..].iter().map(|input| self.get(*input, Layout::Rows)));
        let pitches = [x, y].map(|value| self.value(value).pixel_pitch());
        let writes = vec![y, self.scratch(2 * node.shape[1])];
        let activation = chain.activation.and_then(activation_of).unwrap_or(Activation::None);
        self.step(
            Kernel::Affine { eps, pixels: node.shape.numel() / node.shape[1], pitches, activation },
            reads,
            writes,
        );
    }
}
