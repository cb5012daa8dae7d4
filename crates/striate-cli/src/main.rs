//! The `striate` binary.
#![forbid(unsafe_code)]
fn main() {}
