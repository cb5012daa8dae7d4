//! striate-nn.
#![forbid(unsafe_code)]
