//! Pictures for striate: data sets, transforms, loaders, boxes and metrics.
#![forbid(unsafe_code)]

pub mod bench;
pub mod data;
pub mod detection;
pub mod metrics;
pub mod models;
pub mod transforms;
