//! Nodes that have a fast kernel of their own.

use super::fuse::NormChain;
use super::lower::Lowering;
use super::step::Kernel;
use super::value::{Layout, Place, may_be_channels_last};
use crate::{Node, NodeId, Op};

impl Lowering<'_> {
    /// Lowers a node to a fast step; false where there is none.
    pub(super) fn fast(&mut self, id: NodeId, node: &Node) -> bool {
        match &node.op {
            Op::Random { kind, stream, .. } => {
                let layout = self.layout_of(node);
                let value = self.result(id, layout);
                self.step(Kernel::Random { kind: *kind, stream: stream.clone() }, vec![], vec![value]);
                true
            }
            Op::Slice { starts, sizes, steps } => self.slice_as_alias(id, node, (starts, sizes, steps)),
            Op::Conv2dInputGrad { .. } | Op::Conv2dWeightGrad { .. } | Op::MatMul { .. } => {
                self.fast_linear_algebra(id, node)
            }
            _ => false,
        }
    }

    /// Channels-last where the value can be.
    pub(super) fn layout_of(&self, node: &Node) -> Layout {
        if may_be_channels_last(&node.shape, node.dtype) { Layout::ChannelsLast } else { Layout::Rows }
    }

    /// A slice of neighbouring floats needs no copy.
    fn slice_as_alias(
        &mut self,
        id: NodeId,
        node: &Node,
        (starts, sizes, steps): (&[usize], &[usize], &[isize]),
    ) -> bool {
        let shape = &self.graph.node(node.inputs[0]).shape;
        let first = (0..shape.rank()).find(|&axis| sizes[axis] != shape[axis]).unwrap_or(0);
        let outer: usize = sizes[..first].iter().product();
        if outer != 1 || steps.iter().any(|&step| step != 1) {
            return false;
        }
        if sizes[first + 1..] != shape[first + 1..] {
            return false;
        }
        let offset = starts[first] * shape[first + 1..].iter().product::<usize>();
        let rows = self.get(node.inputs[0], Layout::Rows);
        if !matches!(self.value(rows).place, Place::Buffer { .. }) {
            return false;
        }
        let alias = self.alias(rows, &node.shape, Layout::Rows, offset);
        self.set(id, alias);
        true
    }

    /// A batch norm of training with what follows it.
    pub(super) fn norm_chain(&mut self, last: NodeId, chain: &NormChain) {
        let ids = self.between(chain.norm, last);
        for id in ids {
            let node = self.graph.node(id);
            let reads = node.inputs.iter().map(|input| self.get(*input, Layout::Rows)).collect();
            let value = self.result(id, Layout::Rows);
            self.step(Kernel::Reference(Box::new(node.clone())), reads, vec![value]);
        }
    }
}
