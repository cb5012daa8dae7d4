//! Operations that only move elements: an alias where the elements are neighbours already, else one strided copy.

use super::lower::Lowering;
use super::step::{CopyKernel, Kernel};
use super::value::{Layout, Place, Value, ValueId, memory_axes};
use crate::{Node, NodeId, Op, PadMode, Shape};
use striate_kernels::relayout::Strided;

/// A view of a value along the axes of the graph.
struct View {
    start: isize,
    strides: Vec<isize>,
}

impl Lowering<'_> {
    pub(super) fn movement(&mut self, id: NodeId, node: &Node) -> bool {
        if node.shape.numel() == 0 || node.inputs.iter().any(|input| self.graph.node(*input).shape.numel() == 0) {
            return false;
        }
        match &node.op {
            Op::Slice { starts, sizes, steps } => {
                self.slice_as_alias(id, node, (starts, sizes, steps)) || self.slice(id, node, (starts, steps))
            }
            Op::SliceGrad { starts, steps, .. } => {
                let (x, y) = (self.as_it_lies(node.inputs[0]), self.output(id, node));
                let (from, to) = (self.whole(x), self.part(y, starts, steps));
                let dims = self.graph.node(node.inputs[0]).shape.clone();
                self.copy((x, from), (y, to), &dims, Some(0.0));
                true
            }
            Op::Concat { axis: 1 } if self.layout_of(node) == Layout::ChannelsLast => {
                self.concat_channels(id, node);
                true
            }
            Op::Concat { axis } => self.concat(id, node, *axis),
            Op::Expand { .. } => {
                let (x, y) = (self.as_it_lies(node.inputs[0]), self.output(id, node));
                let (mut from, to) = (self.whole(x), self.whole(y));
                let shape = self.value(x).shape.clone();
                let missing = node.shape.rank() - shape.rank();
                from.strides = (0..node.shape.rank())
                    .map(|axis| match axis.checked_sub(missing) {
                        Some(own) if shape[own] != 1 => from.strides[own],
                        _ => 0,
                    })
                    .collect();
                self.copy((x, from), (y, to), &node.shape, None);
                true
            }
            Op::Transpose { perm } if self.transpose_as_alias(id, node, perm) => true,
            Op::Transpose { perm } => {
                let (x, y) = (self.as_it_lies(node.inputs[0]), self.output(id, node));
                let (mut from, to) = (self.whole(x), self.whole(y));
                from.strides = perm.iter().map(|&axis| from.strides[axis]).collect();
                self.copy((x, from), (y, to), &node.shape, None);
                true
            }
            Op::Pad { pads, mode: PadMode::Constant(value) } if pads.iter().flatten().all(|&pad| pad >= 0) => {
                let starts: Vec<usize> = pads.iter().map(|pad| pad[0] as usize).collect();
                let (x, y) = (self.as_it_lies(node.inputs[0]), self.output(id, node));
                let (from, to) = (self.whole(x), self.part(y, &starts, &vec![1; starts.len()]));
                let dims = self.graph.node(node.inputs[0]).shape.clone();
                self.copy((x, from), (y, to), &dims, Some(*value));
                true
            }
            _ => false,
        }
    }

    fn output(&mut self, id: NodeId, node: &Node) -> ValueId {
        let layout = self.layout_of(node);
        self.result(id, layout)
    }

    fn whole(&self, value: ValueId) -> View {
        let strides = self.value(value).logical_strides();
        View { start: 0, strides: strides.into_iter().map(|s| s as isize).collect() }
    }

    fn part(&self, value: ValueId, starts: &[usize], steps: &[isize]) -> View {
        let whole = self.whole(value);
        let start = starts.iter().zip(&whole.strides).map(|(&start, stride)| start as isize * stride).sum();
        View { start, strides: whole.strides.iter().zip(steps).map(|(stride, step)| stride * step).collect() }
    }

    /// Copies along the axes of the graph, in the order in which the output lies.
    fn copy(&mut self, (x, from): (ValueId, View), (y, to): (ValueId, View), dims: &Shape, fill: Option<f32>) {
        let mut order: Vec<usize> = (0..dims.rank()).collect();
        if self.value(y).layout == Layout::ChannelsLast {
            let memory = memory_axes(dims.rank());
            order.sort_by_key(|&axis| memory[axis]);
        }
        let pick = |view: &View| Strided {
            start: view.start as usize,
            strides: order.iter().map(|&axis| view.strides[axis]).collect(),
        };
        let sizes = order.iter().map(|&axis| dims[axis]).collect();
        let kernel = CopyKernel { dims: sizes, from: pick(&from), to: pick(&to), fill };
        self.step(Kernel::Copy(Box::new(kernel)), vec![x], vec![y]);
    }

    fn slice(&mut self, id: NodeId, node: &Node, (starts, steps): (&[usize], &[isize])) -> bool {
        let (x, y) = (self.as_it_lies(node.inputs[0]), self.output(id, node));
        let (from, to) = (self.part(x, starts, steps), self.whole(y));
        self.copy((x, from), (y, to), &node.shape, None);
        true
    }

    fn concat(&mut self, id: NodeId, node: &Node, axis: usize) -> bool {
        let y = self.output(id, node);
        let mut start = 0;
        for input in &node.inputs {
            let shape = self.graph.node(*input).shape.clone();
            let mut starts = vec![0; shape.rank()];
            starts[axis] = start;
            start += shape[axis];
            let x = self.as_it_lies(*input);
            let (from, to) = (self.whole(x), self.part(y, &starts, &vec![1; starts.len()]));
            self.copy((x, from), (y, to), &shape, None);
        }
        true
    }

    /// The channels of each pixel, seen as `[groups, c / groups]`, transposed.
    pub(super) fn shuffle(&mut self, id: NodeId, x: NodeId, groups: usize) {
        let reads = vec![self.get(x, Layout::ChannelsLast)];
        let shape = self.shape_of(x);
        let (pixels, rest) = (shape.numel() / shape[1], shape[1] / groups);
        let y = self.result(id, Layout::ChannelsLast);
        self.step(Kernel::Relayout { n: pixels, c: groups, inner: rest, to_channels_last: true }, reads, vec![y]);
    }

    /// Where the channels lie last already, a permute that says so moves nothing, and neither does its inverse.
    fn transpose_as_alias(&mut self, id: NodeId, node: &Node, perm: &[usize]) -> bool {
        let x = self.as_it_lies(node.inputs[0]);
        let value = self.value(x);
        // A cell is always row-major: what is packed from it is.
        if !matches!(value.place, Place::Buffer { .. } | Place::Input(_)) {
            return false;
        }
        let to_last: &[usize] = if perm.len() == 4 { &[0, 2, 3, 1] } else { &[0, 2, 1] };
        let from_last: &[usize] = if perm.len() == 4 { &[0, 3, 1, 2] } else { &[0, 2, 1] };
        let layout = match value.layout {
            Layout::ChannelsLast if perm == to_last && value.pitch.is_none() => Layout::Rows,
            Layout::Rows if perm == from_last => Layout::ChannelsLast,
            _ => return false,
        };
        let alias = self.alias(x, &node.shape, layout, 0);
        self.set(id, alias);
        true
    }

    /// A slice of neighbouring floats needs no copy.
    fn slice_as_alias(
        &mut self,
        id: NodeId,
        node: &Node,
        (starts, sizes, steps): (&[usize], &[usize], &[isize]),
    ) -> bool {
        let value = self.value(self.as_it_lies(node.inputs[0]));
        if !matches!(value.place, Place::Buffer { .. }) || steps.iter().any(|&step| step != 1) {
            return false;
        }
        let shape = value.shape.clone();
        if value.layout == Layout::ChannelsLast {
            return self.channels_as_alias(id, node, (starts, sizes));
        }
        let first = (0..shape.rank()).find(|&axis| sizes[axis] != shape[axis]).unwrap_or(0);
        let one_run = sizes[..first].iter().product::<usize>() == 1 && sizes[first + 1..] == shape[first + 1..];
        if !one_run {
            return false;
        }
        let offset = starts[first] * shape[first + 1..].iter().product::<usize>();
        let alias = self.alias(self.as_it_lies(node.inputs[0]), &node.shape, Layout::Rows, offset);
        self.set(id, alias);
        true
    }

    /// Some channels of each pixel need no copy either.
    fn channels_as_alias(&mut self, id: NodeId, node: &Node, (starts, sizes): (&[usize], &[usize])) -> bool {
        let value = self.value(self.as_it_lies(node.inputs[0])).clone();
        let others = (0..sizes.len()).all(|axis| axis == 1 || sizes[axis] == value.shape[axis]);
        let Place::Buffer { buffer, offset } = value.place else { return false };
        if !others {
            return false;
        }
        let place = Place::Buffer { buffer, offset: offset + starts[1] };
        let pitch = value.pixel_pitch();
        let pitch = (pitch != node.shape[1]).then_some(pitch);
        let alias = self.push(Value { place, shape: node.shape.clone(), pitch, ..value });
        self.set(id, alias);
        true
    }
}
