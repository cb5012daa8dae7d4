//! Compute kernels for convolutional networks: pure functions on slices and small shape structs.
//!
//! This crate knows no tensor, graph or file format. All activations are NHWC here, all filters are OIHW until packed.
// A kernel counts through its registers; iterators would hide which.
#![allow(clippy::needless_range_loop)]
pub mod affine;
pub mod conv;
pub mod cpu;
pub mod elementwise;
pub mod heap;
pub mod kinds;
pub mod mem;
pub mod memory;
pub mod norm;
pub mod optim;
mod parallel;
pub mod pool;
pub mod reduce;
pub mod reference;
pub mod relayout;
pub mod resample;
pub mod rng;
pub mod roi;
pub mod simd;
pub mod softmax;
pub mod standardize;
pub mod threads;
