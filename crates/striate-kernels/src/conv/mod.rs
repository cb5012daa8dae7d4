//! Convolution in two dimensions: activations NHWC, filters OIHW until packed.

mod epilogue;
mod shape;

pub use epilogue::{Activation, Epilogue};
pub use shape::{Conv2dShape, ConvShapeError};
