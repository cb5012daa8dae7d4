//! Which handler an operator has. Each family of operators lists its own in its file.

use super::call::Handler;
use super::{
    ops_bits, ops_conv, ops_einsum, ops_index, ops_math, ops_matrix, ops_move, ops_norm, ops_pool, ops_quant,
    ops_resize, ops_sample, ops_shape,
};

/// The handler of an operator of ONNX, by its name.
pub(super) fn handler_of(operator: &str) -> Option<Handler> {
    let families = [
        ops_bits::handler,
        ops_conv::handler,
        ops_einsum::handler,
        ops_index::handler,
        ops_math::handler,
        ops_matrix::handler,
        ops_move::handler,
        ops_norm::handler,
        ops_pool::handler,
        ops_quant::handler,
        ops_resize::handler,
        ops_sample::handler,
        ops_shape::handler,
    ];
    families.into_iter().find_map(|family| family(operator))
}

/// True for operators that can be traced; `If` is followed by the walk itself.
pub(super) fn is_supported(operator: &str) -> bool {
    operator == "If" || handler_of(operator).is_some()
}
