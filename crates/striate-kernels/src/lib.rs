//! Compute kernels for convolutional networks: pure functions on slices and small shape structs.
//!
//! This crate knows no tensor, graph or file format. All activations are NHWC here, all filters are OIHW until packed.
pub mod conv;
pub mod cpu;
pub mod kinds;
pub mod mem;
pub mod reference;
pub mod rng;
pub mod simd;
pub mod threads;
