//! The layers.

mod activation;
mod container;
mod conv;
mod dropout;
mod linear;
mod norm;
mod pool;

pub use activation::*;
pub use container::*;
pub use conv::*;
pub use dropout::*;
pub use linear::*;
pub use norm::*;
pub use pool::*;

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
