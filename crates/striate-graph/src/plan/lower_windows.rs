//! Pooling and resizing, softmax, and the standardisation of rows.

use super::lower::Lowering;
use super::step::Kernel;
use super::value::{Layout, memory_axes};
use crate::{Node, NodeId, Op, Windows};
use striate_kernels::pool::MaxPoolPlan;
use striate_kernels::reduce::ReduceShape;
use striate_kernels::reference::{PoolShape, ResizeShape};
use striate_kernels::resample::ResamplePlan;

impl Lowering<'_> {
    pub(super) fn max_pool(&mut self, id: NodeId, node: &Node, windows: Windows) -> bool {
        let x = self.shape_of(node.inputs[0]).clone();
        let planned = PoolShape::new(x[0] * x[1], [x[2], x[3]], windows);
        let Some(shape) = planned.filter(|_| x.numel() > 0 && node.shape.numel() > 0) else { return false };
        let plan = Box::new(MaxPoolPlan::new(x[0], x[1], &shape));
        let reads = node.inputs.iter().map(|input| self.get(*input, Layout::ChannelsLast)).collect();
        let value = self.result(id, Layout::ChannelsLast);
        let backward = matches!(node.op, Op::MaxPool2dGrad(_));
        self.step(if backward { Kernel::MaxPoolGrad(plan) } else { Kernel::MaxPool(plan) }, reads, vec![value]);
        true
    }

    /// Average pooling, resizing, and their gradients.
    pub(super) fn resample(&mut self, id: NodeId, node: &Node) -> bool {
        let x = self.shape_of(node.inputs[0]).clone();
        if x.numel() == 0 || node.shape.numel() == 0 {
            return false;
        }
        let (n, c, planes) = (x[0], x[1], x[0] * x[1]);
        let sides = [x[2], x[3]];
        let plan = match &node.op {
            Op::AvgPool2d { windows, divisor } => {
                PoolShape::new(planes, sides, *windows).map(|shape| ResamplePlan::avg_pool(*divisor, n, c, &shape))
            }
            Op::AvgPool2dGrad { windows, divisor, input } => PoolShape::new(planes, *input, *windows)
                .map(|shape| ResamplePlan::avg_pool(*divisor, n, c, &shape).transposed()),
            Op::Resize { spec, out } => {
                Some(ResamplePlan::resize(spec, n, c, ResizeShape { planes, input: sides, output: *out }))
            }
            Op::ResizeGrad { spec, input } => {
                let shape = ResizeShape { planes, input: *input, output: sides };
                Some(ResamplePlan::resize(spec, n, c, shape).transposed())
            }
            _ => None,
        };
        let Some(plan) = plan else { return false };
        let read = self.get(node.inputs[0], Layout::ChannelsLast);
        let value = self.result(id, Layout::ChannelsLast);
        self.step(Kernel::Resample(Box::new(plan)), vec![read], vec![value]);
        true
    }

    pub(super) fn softmax(&mut self, id: NodeId, node: &Node, (axis, log): (usize, bool)) -> bool {
        if node.shape.numel() == 0 {
            return false;
        }
        let layout = self.lies(node.inputs[0]);
        let x = self.get(node.inputs[0], layout);
        let y = self.result(id, layout);
        let dims = self.value(y).physical();
        let at = if layout == Layout::ChannelsLast { memory_axes(dims.len())[axis] } else { axis };
        let shape =
            ReduceShape { outer: dims[..at].iter().product(), len: dims[at], inner: dims[at + 1..].iter().product() };
        self.step(Kernel::Softmax { shape, log }, vec![x], vec![y]);
        true
    }

    /// `(x - mean) / sqrt(var + eps)` over the last axis, or its gradient.
    pub(super) fn standardize(&mut self, id: NodeId, node: &Node, eps: f32) -> bool {
        let Some(&len) = node.shape.last().filter(|_| node.shape.numel() > 0) else { return false };
        let reads = node.inputs.iter().map(|input| self.get(*input, Layout::Rows)).collect();
        let value = self.result(id, Layout::Rows);
        let backward = matches!(node.op, Op::StandardizeGrad { .. });
        self.step(Kernel::Standardize { len, eps, backward }, reads, vec![value]);
        true
    }
}
