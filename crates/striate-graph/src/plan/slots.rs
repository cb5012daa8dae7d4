//! Concatenation of channels without copies: each input is written where the result wants it.
//!
//! Channels-last, the inputs of a concatenation are some channels of each pixel of the result: a value with a pitch. Where a result is
//! itself the input of another concatenation, as in a dense block, the largest has the buffer and all others are parts of it.

use super::lower::Lowering;
use super::step::{CopyKernel, Kernel};
use super::value::{Layout, Place, Value, ValueId, may_be_channels_last, memory_axes};
use crate::{DType, Graph, Node, NodeId, Op, Shape};
use std::collections::HashMap;
use striate_kernels::relayout::Strided;

/// Where a value belongs: from `channel` on in the result of the concatenation `root`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub root: NodeId,
    pub channel: usize,
}

/// The places of all inputs of concatenations of channels.
pub(crate) fn find_slots(graph: &Graph) -> HashMap<NodeId, Slot> {
    let mut slots: HashMap<NodeId, Slot> = HashMap::new();
    // The last first: it is the largest of those that hold each other.
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        let channels_last = may_be_channels_last(&node.shape, node.dtype) && node.shape.numel() > 0;
        if !matches!(node.op, Op::Concat { axis: 1 }) || !channels_last {
            continue;
        }
        let id = NodeId(index as u32);
        let Slot { root, mut channel } = *slots.get(&id).unwrap_or(&Slot { root: id, channel: 0 });
        for input in &node.inputs {
            slots.entry(*input).or_insert(Slot { root, channel });
            channel += graph.node(*input).shape[1];
        }
    }
    slots
}

impl Lowering<'_> {
    /// The value of a node, channels-last: where a concatenation wants it, unless the step reads from the same buffer; else in a buffer
    /// of its own.
    pub(super) fn result_in_slot(&mut self, id: NodeId, reads: &[ValueId]) -> ValueId {
        let Some(slot) = self.fusion.slots.get(&id).copied() else { return self.result(id, Layout::ChannelsLast) };
        let buffer = self.root(slot.root);
        if reads.iter().any(|value| self.lies_in(*value, buffer)) {
            return self.result(id, Layout::ChannelsLast);
        }
        let value = self.slice_of_root(slot, buffer, &self.graph.node(id).shape.clone());
        self.set(id, value);
        value
    }

    /// The buffer of a concatenation.
    fn root(&mut self, root: NodeId) -> usize {
        let len = self.graph.node(root).shape.numel();
        let buffers = &mut self.out.buffers;
        *self.roots.entry(root).or_insert_with(|| {
            buffers.push(len);
            buffers.len() - 1
        })
    }

    fn lies_in(&self, value: ValueId, buffer: usize) -> bool {
        matches!(self.value(value).place, Place::Buffer { buffer: own, .. } if own == buffer)
    }

    fn slice_of_root(&mut self, slot: Slot, buffer: usize, shape: &Shape) -> ValueId {
        let channels = self.graph.node(slot.root).shape[1];
        let place = Place::Buffer { buffer, offset: slot.channel };
        let pitch = (channels != shape[1]).then_some(channels);
        self.push(Value { place, shape: shape.clone(), dtype: DType::F32, layout: Layout::ChannelsLast, pitch })
    }

    /// A concatenation of channels: copies only what is not there already.
    pub(super) fn concat_channels(&mut self, id: NodeId, node: &Node) {
        if let Some(y) = self.consecutive(node) {
            let y = self.push(y);
            return self.set(id, y);
        }
        let own = Slot { root: id, channel: 0 };
        let outer = self.fusion.slots.get(&id).copied().unwrap_or(own);
        let place = |slot: Slot, buffer: usize| Place::Buffer { buffer, offset: slot.channel };
        // The buffer, if an input lies in it already, that of the largest concatenation before this one's own.
        let mut slot = None;
        if let Some(&buffer) = self.roots.get(&outer.root) {
            let mut channel = outer.channel;
            for input in &node.inputs {
                let there = place(Slot { channel, ..outer }, buffer);
                if self.value(self.as_it_lies(*input)).place == there {
                    slot = Some((outer, buffer));
                }
                channel += self.shape_of(*input)[1];
            }
        }
        let y = match slot {
            Some((slot, buffer)) => {
                let y = self.slice_of_root(slot, buffer, &node.shape);
                self.set(id, y);
                y
            }
            None => self.result(id, Layout::ChannelsLast),
        };
        let mut channel = 0;
        for input in &node.inputs {
            let shape = self.shape_of(*input).clone();
            let mut x = self.as_it_lies(*input);
            if let Some((slot, buffer)) = slot {
                let there = place(Slot { channel: slot.channel + channel, ..slot }, buffer);
                if self.value(x).place == there {
                    channel += shape[1];
                    continue;
                }
                if self.lies_in(x, buffer) {
                    x = self.without_gaps(x);
                }
            }
            let strides = self.value(y).logical_strides();
            self.copy_channels(x, (y, channel), &strides);
            channel += shape[1];
        }
    }

    /// The concatenation as it lies, where its inputs are neighbours in one buffer.
    fn consecutive(&self, node: &Node) -> Option<Value> {
        let first = self.value(self.as_it_lies(*node.inputs.first()?));
        let (Place::Buffer { buffer, offset }, Some(pitch)) = (first.place, first.pitch) else { return None };
        let mut channel = offset;
        for input in &node.inputs {
            let value = self.value(self.as_it_lies(*input));
            if value.place != (Place::Buffer { buffer, offset: channel }) || value.pitch != Some(pitch) {
                return None;
            }
            channel += value.shape[1];
        }
        let pitch = (pitch != node.shape[1]).then_some(pitch);
        Some(Value { shape: node.shape.clone(), pitch, ..first.clone() })
    }

    /// Copies `x` to the channels of `y` from `channel` on.
    fn copy_channels(&mut self, x: ValueId, (y, channel): (ValueId, usize), strides: &[usize]) {
        let shape = self.value(x).shape.clone();
        let from = self.value(x).logical_strides();
        let memory = memory_axes(shape.rank());
        let mut order: Vec<usize> = (0..shape.rank()).collect();
        order.sort_by_key(|&axis| memory[axis]);
        let pick = |start: usize, strides: &[usize]| Strided {
            start,
            strides: order.iter().map(|&axis| strides[axis] as isize).collect(),
        };
        let dims = order.iter().map(|&axis| shape[axis]).collect();
        let kernel = CopyKernel { dims, from: pick(0, &from), to: pick(channel, strides), fill: None };
        self.step(Kernel::Copy(Box::new(kernel)), vec![x], vec![y]);
    }

    /// A copy of a channels-last value in a buffer of its own.
    pub(super) fn without_gaps(&mut self, value: ValueId) -> ValueId {
        if let Some(dense) = self.dense.get(&value) {
            return *dense;
        }
        let Value { shape, dtype, .. } = self.value(value).clone();
        let dense = self.fresh(&shape, dtype, Layout::ChannelsLast);
        let strides = self.value(dense).logical_strides();
        self.copy_channels(value, (dense, 0), &strides);
        self.dense.insert(value, dense);
        dense
    }
}
