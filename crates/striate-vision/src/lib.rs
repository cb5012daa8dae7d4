//! Pictures for striate: data sets, transforms, loaders and metrics.
#![forbid(unsafe_code)]

pub mod bench;
pub mod data;
pub mod metrics;
pub mod models;
pub mod transforms;
