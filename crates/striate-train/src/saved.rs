//! Checkpoints of a run: all cells and all counters.

use crate::step::Stepper;
use crate::{Result, RunFolder, TrainError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use striate_graph::Array;
use striate_io::{Checkpoint, WriteEvent, read_latest, write_checkpoint_with};
use striate_nn::{Module, StateDict};

/// Where a run stands, besides its cells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// From 0; the epoch that the next step belongs to.
    pub epoch: u64,
    /// The batch of it that comes next.
    pub batch: u64,
    /// Steps made.
    pub step: u64,
    /// Of the epoch so far.
    pub loss_sum: f64,
    /// Of each figure of a step; older checkpoints have one.
    #[serde(alias = "figure_sum", deserialize_with = "one_or_many")]
    pub figure_sums: Vec<f64>,
    pub lr: f64,
    /// Of the best epoch (from 1; 0 for none yet).
    pub best_epoch: u64,
    pub best_score: f64,
    pub best_loss: f64,
    /// Epochs since then.
    pub waited: u64,
    /// No epoch follows: all are done, or patience ended.
    pub finished: bool,
    pub seconds: f64,
    pub scheduler: Vec<f64>,
    /// Lengths of results.csv and events.jsonl.
    pub logs: [u64; 2],
    /// Training pictures; another number is another data set.
    pub pictures: u64,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Sums {
        One(f64),
        Many(Vec<f64>),
    }
    Ok(match Sums::deserialize(from)? {
        Sums::One(sum) => vec![sum],
        Sums::Many(sums) => sums,
    })
}

impl Counters {
    /// Adds the figures of a step.
    pub fn add_figures(&mut self, figures: &[f64]) {
        self.figure_sums.resize(figures.len(), 0.0);
        self.figure_sums.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure);
    }
}

const MODEL: &str = "model.";
const OPTIMIZER: &str = "optimizer.";
const EMA: &str = "ema.";

fn prefixed(prefix: &str, dict: StateDict) -> impl Iterator<Item = (String, Array)> {
    dict.into_iter().map(move |(name, array)| (format!("{prefix}{name}"), array))
}

/// Writes a checkpoint.
pub(crate) fn save(folder: &RunFolder, net: &dyn Module, stepper: &Stepper, counters: &Counters) -> Result<()> {
    let mut arrays: BTreeMap<String, Array> = prefixed(MODEL, net.state_dict()).collect();
    arrays.extend(prefixed(OPTIMIZER, stepper.optimizer.state_dict()));
    if let Some(ema) = &stepper.ema {
        arrays.extend(prefixed(EMA, ema.state_dict()));
    }
    let path = folder.checkpoints();
    let counters = Counters { scheduler: stepper.scheduler.state(), ..counters.clone() };
    let step = counters.step;
    let counters = serde_json::to_value(&counters).map_err(|e| TrainError::io(&path, "write")(io::Error::other(e)))?;
    let mut fail = FailPoint::next();
    write_checkpoint_with(&path, step, &Checkpoint { arrays, counters }, &mut |event| fail.reached(event))?;
    Ok(())
}

/// Takes up the newest good checkpoint; `None` if there is none yet. Damaged newer ones are told in `notes`.
pub(crate) fn load(
    folder: &RunFolder,
    net: &dyn Module,
    stepper: &mut Stepper,
    notes: &mut Vec<String>,
) -> Result<Option<Counters>> {
    let Some(latest) = read_latest(&folder.checkpoints())? else { return Ok(None) };
    notes.extend(latest.skipped.iter().map(|error| format!("a damaged checkpoint was passed over: {error}")));
    let wrong = |why: String| TrainError::Config { path: latest.path.clone(), why };
    let counters: Counters =
        serde_json::from_value(latest.checkpoint.counters.clone()).map_err(|e| wrong(format!("counters: {e}")))?;
    let part = |prefix: &str| -> StateDict {
        let all = latest.checkpoint.arrays.iter();
        all.filter_map(|(name, array)| Some((name.strip_prefix(prefix)?.to_owned(), array.clone()))).collect()
    };
    net.load_state_dict(&part(MODEL), true)?;
    stepper.optimizer.load_state_dict(&part(OPTIMIZER))?;
    if let Some(ema) = &stepper.ema {
        ema.load_state_dict(&part(EMA))?;
    }
    stepper.scheduler.set_state(&counters.scheduler)?;
    Ok(Some(counters))
}

/// Where tests let the process die: `STRIATE_FAIL_AT=2:before-rename` aborts within the second checkpoint that this process
/// writes, at the first event of that name (`created`, `wrote`, `before-sync`, …), as a kill or a loss of power might. Without the
/// feature `fail-points`, which only tests turn on, it does nothing.
struct FailPoint {
    at: Option<String>,
}

impl FailPoint {
    #[cfg(not(feature = "fail-points"))]
    fn next() -> FailPoint {
        FailPoint { at: None }
    }

    #[cfg(feature = "fail-points")]
    fn next() -> FailPoint {
        use std::sync::atomic::{AtomicU64, Ordering};
        static WRITES: AtomicU64 = AtomicU64::new(0);
        let number = WRITES.fetch_add(1, Ordering::Relaxed) + 1;
        let wanted = std::env::var("STRIATE_FAIL_AT").ok();
        let at = wanted.and_then(|text| {
            let (write, event) = text.split_once(':')?;
            (write.parse() == Ok(number)).then(|| event.to_owned())
        });
        FailPoint { at }
    }

    fn reached(&mut self, event: WriteEvent) -> io::Result<()> {
        if let Some(at) = &self.at
            && event.to_string().starts_with(at.as_str())
        {
            std::process::abort();
        }
        Ok(())
    }
}
