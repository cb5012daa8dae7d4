//! Measuring: nets at inference and in training, and single convolutions.
//!
//! Every figure is a median over calls in the given time, after a warm-up. What a user would do is what is timed: from an
//! NCHW buffer of theirs to outputs of theirs, through the public API.

mod conv;
mod model;

pub use conv::{ConvBench, ConvPass, ConvReport, bench_conv};
pub use model::{
    InferReport, ModelBench, TrainReport, bench_infer, bench_infer_graph, bench_train, bench_train_net, training_graph,
};
pub use striate_kernels::conv::{Conv2dShape, ConvShapeError};

use std::time::{Duration, Instant};

/// Why something cannot be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The net.
    #[error(transparent)]
    Model(#[from] crate::models::ModelError),
    /// Its graph, or the run.
    #[error(transparent)]
    Graph(#[from] striate_graph::Error),
    /// The convolution.
    #[error(transparent)]
    Shape(#[from] ConvShapeError),
}

/// Calls of a function: the median and the least time of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Median time of a call, in milliseconds.
    pub median_ms: f64,
    /// Least time of a call, in milliseconds.
    pub min_ms: f64,
    /// Calls measured.
    pub calls: usize,
}

/// Fewest calls that are measured, however long they take.
const LEAST_CALLS: usize = 3;

/// Calls `work` for about `seconds` after one call that is not counted.
pub(crate) fn time<E>(seconds: f64, mut work: impl FnMut() -> Result<(), E>) -> Result<Timing, E> {
    work()?;
    let begin = Instant::now();
    let mut times: Vec<Duration> = Vec::new();
    while times.len() < LEAST_CALLS || begin.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(Timing { median_ms: ms(times[times.len() / 2]), min_ms: ms(times[0]), calls: times.len() })
}

/// The most memory that this process has held so far, in MiB, where the system tells (Linux).
pub fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
