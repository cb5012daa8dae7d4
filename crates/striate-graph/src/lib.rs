//! striate-graph.
#![deny(unsafe_code)]
