//! The layers.

mod activation;
mod blocks;
mod container;
mod conv;
mod dropout;
mod linear;
mod norm;
mod norm_group;
mod pool;
mod rearrange;
mod upsample;

pub use activation::*;
pub use blocks::*;
pub use container::*;
pub use conv::*;
pub use dropout::*;
pub use linear::*;
pub use norm::*;
pub use norm_group::*;
pub use pool::*;
pub use rearrange::*;
pub use upsample::*;

/// Declares a layer without parameters or children: its path, its parts (none) and its display.
macro_rules! plain_layer {
    ($layer:ty, |$self:ident, $x:ident| $forward:expr, |$shown:ident| $repr:expr) => {
        impl $crate::Module for $layer {
            #[track_caller]
            fn forward(&self, $x: &striate_graph::Tensor) -> striate_graph::Tensor {
                let $self = self;
                $forward
            }
            $crate::visit_fields!();
            fn path(&self) -> Option<&$crate::Path> {
                Some(&self.path)
            }
            fn extra_repr(&self) -> String {
                let $shown = self;
                $repr
            }
        }
        $crate::display_module!($layer);
    };
}
pub(crate) use plain_layer;
