//! Nodes that have a fast kernel of their own.

use super::lower::Lowering;
use super::step::Kernel;
use super::value::{Layout, Place, ValueId, layouts_coincide, may_be_channels_last, memory_axes};
use crate::{BinaryKind, DType, Node, NodeId, Op, ReduceKind, RoiAlignSpec, Shape, UnaryKind, Windows};
use striate_kernels::elementwise::BinaryShape;
use striate_kernels::reduce::{ReduceShape, reduces};
use striate_kernels::reference::RoiAlignShape;

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
            Op::Unary(kind) => self.unary(id, node, *kind),
            Op::UnaryGrad(kind) => self.unary_grad(id, node, *kind),
            Op::Binary(kind) => self.binary(id, node, *kind),
            Op::Reduce { kind, axes, keepdims } => self.reduce(id, node, (*kind, axes, *keepdims)),
            Op::AvgPool2d { windows: Windows::Adaptive { out: [1, 1] }, .. } => {
                self.reduce(id, node, (ReduceKind::Mean, &[2, 3], true))
            }
            Op::AvgPool2dGrad { windows: Windows::Adaptive { out: [1, 1] }, input, .. } => {
                self.spread_mean(id, node, *input)
            }
            Op::Slice { .. }
            | Op::SliceGrad { .. }
            | Op::Concat { .. }
            | Op::Expand { .. }
            | Op::Transpose { .. }
            | Op::Pad { .. } => self.movement(id, node),
            Op::Moments | Op::BatchNorm { .. } | Op::BatchNormGradSums { .. } | Op::BatchNormInputGrad { .. } => {
                self.norm(id, node)
            }
            Op::MaxPool2d(windows) | Op::MaxPool2dGrad(windows) => self.max_pool(id, node, *windows),
            Op::AvgPool2d { .. } | Op::AvgPool2dGrad { .. } | Op::Resize { .. } | Op::ResizeGrad { .. } => {
                self.resample(id, node)
            }
            Op::RoiAlign(spec) => self.roi_align(id, node, *spec),
            Op::Softmax { axis } => self.softmax(id, node, (*axis, false)),
            Op::LogSoftmax { axis } => self.softmax(id, node, (*axis, true)),
            Op::Standardize { eps } | Op::StandardizeGrad { eps } => self.standardize(id, node, *eps),
            Op::Conv2dInputGrad { .. } | Op::Conv2dWeightGrad { .. } | Op::MatMul { .. } => {
                self.fast_linear_algebra(id, node)
            }
            _ => false,
        }
    }

    /// Means of regions of NHWC.
    fn roi_align(&mut self, id: NodeId, node: &Node, spec: RoiAlignSpec) -> bool {
        let x = self.shape_of(node.inputs[0]).clone();
        if spec.max || node.shape.numel() == 0 || x.numel() == 0 || self.graph.node(node.inputs[2]).dtype != DType::I64
        {
            return false;
        }
        let shape = RoiAlignShape { n: x[0], channels: x[1], input: [x[2], x[3]], regions: node.shape[0] };
        let x = self.get(node.inputs[0], Layout::ChannelsLast);
        let others = node.inputs[1..].iter().map(|input| self.get(*input, Layout::Rows)).collect::<Vec<_>>();
        let y = self.result(id, Layout::ChannelsLast);
        self.step(Kernel::RoiAlign { spec: Box::new(spec), shape }, [vec![x], others].concat(), vec![y]);
        true
    }

    /// Channels-last where the value can be.
    pub(super) fn layout_of(&self, node: &Node) -> Layout {
        if may_be_channels_last(&node.shape, node.dtype) { Layout::ChannelsLast } else { Layout::Rows }
    }

    pub(super) fn shape_of(&self, id: NodeId) -> &Shape {
        &self.graph.node(id).shape
    }

    /// The layout that a value already has; where both coincide, channels-last.
    pub(super) fn lies(&self, id: NodeId) -> Layout {
        let value = self.value(self.as_it_lies(id));
        let either = layouts_coincide(&value.shape) && may_be_channels_last(&value.shape, value.dtype);
        if either { Layout::ChannelsLast } else { value.layout }
    }

    fn unary(&mut self, id: NodeId, node: &Node, kind: UnaryKind) -> bool {
        let layout = self.lies(node.inputs[0]);
        let x = self.get(node.inputs[0], layout);
        let y = self.result(id, layout);
        self.step(Kernel::Unary(kind), vec![x], vec![y]);
        true
    }

    fn unary_grad(&mut self, id: NodeId, node: &Node, kind: UnaryKind) -> bool {
        let layout = self.lies(node.inputs[0]);
        let reads = node.inputs.iter().map(|input| self.get(*input, layout)).collect();
        let dx = self.result(id, layout);
        self.step(Kernel::UnaryGrad(kind), reads, vec![dx]);
        true
    }

    /// The result lies as its largest operand does; a smaller one is read where it lies, by strides.
    fn binary(&mut self, id: NodeId, node: &Node, kind: BinaryKind) -> bool {
        if node.shape.numel() == 0 || node.inputs.iter().any(|input| self.graph.node(*input).dtype != node.dtype) {
            return false;
        }
        let full = node.inputs.iter().find(|input| *self.shape_of(**input) == node.shape);
        let layout = full.map_or_else(|| self.layout_of(node), |input| self.lies(*input));
        let mut operands = Vec::with_capacity(2);
        for input in &node.inputs {
            let whole = *self.shape_of(*input) == node.shape;
            operands.push(if whole { self.get(*input, layout) } else { self.as_it_lies(*input) });
        }
        let strides: Vec<Vec<usize>> = operands.iter().map(|v| self.strides_in(*v, &node.shape, layout)).collect();
        let y = self.result(id, layout);
        let dims = self.value(y).physical();
        let shape = Box::new(BinaryShape::new(&dims, &strides[0], &strides[1]));
        self.step(Kernel::Binary { kind, shape }, operands, vec![y]);
        true
    }

    /// The strides of a value along the axes of a broadcast result, in the result's memory order; 0 where it repeats.
    fn strides_in(&self, value: ValueId, result: &Shape, layout: Layout) -> Vec<usize> {
        let value = self.value(value);
        let missing = result.rank() - value.shape.rank();
        let own = value.logical_strides();
        let logical = |axis: usize| match axis.checked_sub(missing) {
            Some(axis) if value.shape[axis] != 1 => own[axis],
            _ => 0,
        };
        let mut strides = vec![0; result.rank()];
        for axis in 0..result.rank() {
            let at = if layout == Layout::ChannelsLast { memory_axes(result.rank())[axis] } else { axis };
            strides[at] = logical(axis);
        }
        strides
    }

    /// A reduction over axes that are neighbours in memory.
    fn reduce(&mut self, id: NodeId, node: &Node, (kind, axes, keepdims): (ReduceKind, &[usize], bool)) -> bool {
        if !reduces(kind) || node.shape.numel() == 0 || self.shape_of(node.inputs[0]).numel() == 0 {
            return false;
        }
        let shape = self.shape_of(node.inputs[0]).clone();
        let layout = self.lies(node.inputs[0]);
        let in_memory =
            |axis: usize| if layout == Layout::ChannelsLast { memory_axes(shape.rank())[axis] } else { axis };
        let mut at: Vec<usize> = axes.iter().map(|&axis| in_memory(axis)).collect();
        at.sort_unstable();
        let x = self.get(node.inputs[0], layout);
        let dims = self.value(x).physical();
        // An axis of size 1 between two others does not part them.
        at.retain(|&axis| dims[axis] != 1);
        let (first, last) = (at.first().copied().unwrap_or(0), at.last().map_or(0, |&axis| axis + 1));
        if (first..last).any(|axis| dims[axis] != 1 && !at.contains(&axis)) {
            return false;
        }
        let reduce = ReduceShape {
            outer: dims[..first].iter().product(),
            len: dims[first..last].iter().product(),
            inner: dims[last..].iter().product(),
        };
        // What is kept lies as before: row-major in the graph's order unless channels stay behind other kept axes.
        let kept_channels_last = layout == Layout::ChannelsLast && !layouts_coincide(&node.shape) && keepdims;
        let rows = layout == Layout::Rows || self.kept_in_order(&shape, axes);
        if !rows && !kept_channels_last {
            return false;
        }
        let y = self.result(id, if kept_channels_last { Layout::ChannelsLast } else { Layout::Rows });
        let scratch = self.scratch(reduce.scratch_len());
        self.step(Kernel::Reduce { kind, shape: reduce }, vec![x], vec![y, scratch]);
        true
    }

    /// True where the kept axes of a channels-last value stand in memory in the graph's order.
    fn kept_in_order(&self, shape: &Shape, axes: &[usize]) -> bool {
        let memory = memory_axes(shape.rank());
        let kept: Vec<usize> =
            (0..shape.rank()).filter(|a| !axes.contains(a) && shape[*a] != 1).map(|a| memory[a]).collect();
        kept.is_sorted()
    }

    /// The gradient of a global average: `dy / (h w)` at every pixel.
    fn spread_mean(&mut self, id: NodeId, node: &Node, input: [usize; 2]) -> bool {
        if node.shape.numel() == 0 {
            return false;
        }
        let dy = self.as_it_lies(node.inputs[0]);
        let scale = 1.0 / (input[0] * input[1]) as f32;
        self.out.constants.push(crate::Array::scalar(scale));
        let place = Place::Constant(self.out.constants.len() - 1);
        let factor = self.constant(place);
        let strides = self.strides_in(dy, &node.shape, Layout::ChannelsLast);
        let dx = self.result(id, Layout::ChannelsLast);
        let dims = self.value(dx).physical();
        let shape = Box::new(BinaryShape::new(&dims, &strides, &vec![0; dims.len()]));
        self.step(Kernel::Binary { kind: BinaryKind::Mul, shape }, vec![dy, factor], vec![dx]);
        true
    }
}
