//! Through which inputs of which operations a gradient flows.

use super::second::is_piecewise_linear;
use crate::{NodeId, Op, Tensor, Trace, UnaryKind};

/// For each node up to `last`, whether a gradient for some of `wrt` has to come through it.
pub(super) fn needed(trace: &Trace, wrt: &[&Tensor], last: NodeId) -> Vec<bool> {
    trace.with_graph(|graph| {
        let mut needed = vec![false; last.index() + 1];
        for tensor in wrt {
            if let Some(flag) = needed.get_mut(tensor.id().index()) {
                *flag = true;
            }
        }
        for index in 0..needed.len() {
            let node = &graph.nodes[index];
            let mut inputs = node.inputs.iter().enumerate();
            needed[index] |= inputs.any(|(at, id)| {
                // The first output of a host call may be of any type.
                let carries = graph.node(*id).dtype.is_float() || matches!(node.op, Op::HostOutput { .. });
                needed[id.index()] && carries && flows(&node.op, at)
            });
        }
        needed
    })
}

/// False where the value does not depend on the input, or only by steps: there the gradient is cut, whatever lies behind.
pub(super) fn flows(op: &Op, input: usize) -> bool {
    use UnaryKind::{Ceil, Floor, Not, Round, Sign};
    match op {
        Op::Detach
        | Op::ArgReduce { .. }
        | Op::TopK { .. }
        | Op::OneHot { .. }
        | Op::MaxPool2dIndices(_)
        | Op::HostCall { backward: None, .. }
        | Op::Unary(Sign | Floor | Ceil | Round | Not) => false,
        Op::Binary(kind) => !kind.is_comparison() && !kind.is_bitwise(),
        Op::UnaryGrad(kind) => input == 1 || !is_piecewise_linear(*kind),
        Op::Where => input > 0,
        Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherNd { .. } | Op::RoiAlign(_) => input == 0,
        Op::GatherGrad { .. } | Op::MaxPool2dGrad(_) => input == 1,
        Op::ScatterElements { .. } | Op::ScatterNd { .. } => input != 1,
        // Which pixel wins a maximum changes by steps.
        Op::RoiAlignGrad(_) => input == 3,
        // What comes through the moments is inside the gradient of x.
        Op::BatchNormTraining { .. } => input < 3,
        Op::Input { .. }
        | Op::Parameter { .. }
        | Op::Constant(_)
        | Op::Random { .. }
        | Op::Unary(_)
        | Op::Cast(_)
        | Op::Reduce { .. }
        | Op::CumSum { .. }
        | Op::Softmax { .. }
        | Op::LogSoftmax { .. }
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Expand { .. }
        | Op::Slice { .. }
        | Op::SliceGrad { .. }
        | Op::Concat { .. }
        | Op::Pad { .. }
        | Op::PadGrad { .. }
        | Op::MatMul { .. }
        | Op::Conv2d(_)
        | Op::Conv2dInputGrad { .. }
        | Op::Conv2dWeightGrad { .. }
        | Op::MaxPool2d(_)
        | Op::AvgPool2d { .. }
        | Op::AvgPool2dGrad { .. }
        | Op::Moments
        | Op::BatchNorm { .. }
        | Op::BatchNormGradSums { .. }
        | Op::BatchNormInputGrad { .. }
        | Op::Standardize { .. }
        | Op::StandardizeGrad { .. }
        | Op::Resize { .. }
        | Op::ResizeGrad { .. }
        | Op::GridSample(_)
        | Op::GridSampleInputGrad { .. }
        | Op::GridSampleGridGrad(_)
        | Op::HostCall { backward: Some(_), .. }
        | Op::HostOutput { .. }
        | Op::Update { .. }
        | Op::Poison => true,
    }
}
