//! The flags of every verb that computes.

use clap::Args;
use clap::builder::RangedU64ValueParser;
use std::sync::Arc;
use striate::graph::CompileOptions;
use striate::graph::machine::{Team, default_threads};

/// Most threads that are taken for meant.
const MOST_THREADS: u64 = 1024;

/// `--threads` and `--exact`.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct ComputeArgs {
    /// Threads, also above the number of cores; the result does not depend on it.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=MOST_THREADS))]
    threads: Option<usize>,
    /// Direct convolutions only.
    #[arg(long)]
    pub exact: bool,
}

impl ComputeArgs {
    /// The number of threads.
    pub fn threads(self) -> usize {
        self.threads.unwrap_or_else(default_threads)
    }

    /// A team of them.
    pub fn team(self) -> Arc<Team> {
        Arc::new(Team::new(self.threads()))
    }

    /// How to compile for them.
    pub fn options(self) -> CompileOptions {
        CompileOptions { threads: self.threads(), exact: self.exact, ..CompileOptions::default() }
    }
}

/// Seconds to measure: above 0, at most an hour.
pub fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 3600.0 => Ok(seconds),
        _ => Err("it must be a number of seconds above 0 and at most 3600".into()),
    }
}
