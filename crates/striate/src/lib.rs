//! Convolutional neural networks.
#![forbid(unsafe_code)]
