//! striate-io.
#![forbid(unsafe_code)]
