//! striate-train.
#![forbid(unsafe_code)]
