//! Learning-rate schedules with PyTorch's sequences.

use super::Optimizer;
use crate::{Error, Result};
use std::f64::consts::PI;

/// A schedule, as data. Times are counted in calls of [`LrScheduler::step`]: steps or epochs, as the caller likes.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// The learning rate stays.
    Constant,
    /// `torch.optim.lr_scheduler.ConstantLR`: times `factor` for the first `total_iters`.
    ConstantLR {
        /// Factor (1/3).
        factor: f64,
        /// How long (5).
        total_iters: u64,
    },
    /// Times `gamma` every `step_size`.
    StepLR {
        /// How often.
        step_size: u64,
        /// Factor (0.1).
        gamma: f64,
    },
    /// Times `gamma` at each milestone.
    MultiStepLR {
        /// When; one that is given twice counts twice.
        milestones: Vec<u64>,
        /// Factor (0.1).
        gamma: f64,
    },
    /// Times `gamma` each time.
    ExponentialLR {
        /// Factor.
        gamma: f64,
    },
    /// Half a cosine from the base rate to `eta_min` (Loshchilov, Hutter 2016); it rises again after `t_max`.
    CosineAnnealingLR {
        /// How long.
        t_max: u64,
        /// The lowest rate (0).
        eta_min: f64,
    },
    /// Up and down once (Smith, Topin 2017).
    OneCycleLR(OneCycleLR),
    /// `(1 - t / total_iters) ^ power`.
    PolynomialLR {
        /// How long (5).
        total_iters: u64,
        /// Exponent (1).
        power: f64,
    },
    /// A factor that goes in a straight line from `start_factor` to `end_factor`: warm-up.
    LinearLR {
        /// At the start (1/3).
        start_factor: f64,
        /// At the end (1).
        end_factor: f64,
        /// How long (5).
        total_iters: u64,
    },
    /// One after the other; each counts from its own beginning.
    SequentialLR {
        /// The schedules.
        schedules: Vec<Schedule>,
        /// When the second, third, … begins.
        milestones: Vec<u64>,
    },
    /// All at once, each on the rate that the one before gives.
    ChainedScheduler {
        /// The schedules.
        schedules: Vec<Schedule>,
    },
}

/// The shape of a one-cycle schedule's slopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anneal {
    /// Half a cosine.
    #[default]
    Cos,
    /// A straight line.
    Linear,
}

/// `torch.optim.lr_scheduler.OneCycleLR`.
#[derive(Clone, Debug, PartialEq)]
pub struct OneCycleLR {
    /// The top, for all groups or for each.
    pub max_lr: Vec<f64>,
    /// Length of the cycle.
    pub total_steps: u64,
    /// The part that rises.
    pub pct_start: f64,
    /// Shape of the slopes.
    pub anneal: Anneal,
    /// Let the momentum fall while the rate rises ([`LrScheduler::apply`] does it).
    pub cycle_momentum: bool,
    /// Momentum at the top of the learning rate.
    pub base_momentum: f64,
    /// Momentum at both ends.
    pub max_momentum: f64,
    /// It starts at `max_lr / div_factor`.
    pub div_factor: f64,
    /// It ends at the start divided by this.
    pub final_div_factor: f64,
    /// Falls to the start first, then to the end.
    pub three_phase: bool,
}

impl OneCycleLR {
    /// With PyTorch's defaults: 30 % rising, cosine, 1/25 at the start, 1/10000 of that at the end.
    pub fn new(max_lr: f64, total_steps: u64) -> OneCycleLR {
        OneCycleLR {
            max_lr: vec![max_lr],
            total_steps,
            pct_start: 0.3,
            anneal: Anneal::Cos,
            cycle_momentum: true,
            base_momentum: 0.85,
            max_momentum: 0.95,
            div_factor: 25.0,
            final_div_factor: 1e4,
            three_phase: false,
        }
    }

    /// Value at time `t` between `low` (start), `high` (top) and `end`.
    fn value(&self, t: u64, low: f64, high: f64, end: f64) -> f64 {
        let (total, rise) = (self.total_steps as f64, self.pct_start * self.total_steps as f64);
        let phases = match self.three_phase {
            true => vec![(rise - 1.0, low, high), (2.0 * rise - 2.0, high, low), (total - 1.0, low, end)],
            false => vec![(rise - 1.0, low, high), (total - 1.0, high, end)],
        };
        let t = (t as f64).min(total - 1.0);
        let mut begin = 0.0;
        let last = phases.len() - 1;
        for (index, (until, from, to)) in phases.into_iter().enumerate() {
            if t <= until || index == last {
                let part = (t - begin) / (until - begin);
                return match self.anneal {
                    Anneal::Cos => to + (from - to) / 2.0 * (1.0 + (PI * part).cos()),
                    Anneal::Linear => (to - from) * part + from,
                };
            }
            begin = until;
        }
        end
    }

    fn lr(&self, t: u64, group: usize) -> f64 {
        let max = self.max_lr.get(group).or(self.max_lr.first()).copied().unwrap_or(0.0);
        let start = max / self.div_factor;
        self.value(t, start, max, start / self.final_div_factor)
    }

    /// The momentum that `cycle_momentum` sets at time `t`.
    pub fn momentum(&self, t: u64) -> f64 {
        self.value(t, self.max_momentum, self.base_momentum, self.max_momentum)
    }
}

impl Schedule {
    /// The rate at time `t` from the rate before, as PyTorch's `get_lr`.
    fn chain(&self, t: u64, group: usize, lr: f64, base: f64) -> f64 {
        let (now, before) = (t as f64, t as f64 - 1.0);
        match self {
            Schedule::ConstantLR { factor, .. } if t == 0 => lr * factor,
            Schedule::ConstantLR { factor, total_iters } if t == *total_iters => lr * (1.0 / factor),
            Schedule::StepLR { step_size, gamma } if t != 0 && t.is_multiple_of(*step_size) => lr * gamma,
            Schedule::MultiStepLR { milestones, gamma } => {
                lr * gamma.powi(milestones.iter().filter(|m| **m == t).count() as i32)
            }
            Schedule::ExponentialLR { gamma } if t != 0 => lr * gamma,
            Schedule::CosineAnnealingLR { t_max, eta_min } if t != 0 => {
                let length = *t_max as f64;
                if (t as i64 - 1 - *t_max as i64).rem_euclid(2 * *t_max as i64) == 0 {
                    return lr + (base - eta_min) * (1.0 - (PI / length).cos()) / 2.0;
                }
                (1.0 + (PI * now / length).cos()) / (1.0 + (PI * before / length).cos()) * (lr - eta_min) + eta_min
            }
            Schedule::OneCycleLR(cycle) => cycle.lr(t, group),
            Schedule::PolynomialLR { total_iters, power } if t != 0 && t <= *total_iters => {
                let total = *total_iters as f64;
                lr * ((1.0 - now / total) / (1.0 - before / total)).powf(*power)
            }
            Schedule::LinearLR { start_factor, .. } if t == 0 => lr * start_factor,
            Schedule::LinearLR { start_factor, end_factor, total_iters } if t <= *total_iters => {
                let rise = end_factor - start_factor;
                lr * (1.0 + rise / (*total_iters as f64 * start_factor + before * rise))
            }
            _ => lr,
        }
    }

    /// The rate at time 0 from the base rate: what a schedule begins with in the middle of a sequence.
    fn start(&self, group: usize, base: f64) -> f64 {
        self.chain(0, group, base, base)
    }

    fn check(&self) -> Result<()> {
        let bad = |what: &str, got: String, fix: &str| {
            Err(Error::Argument { what: what.to_owned(), got, fix: fix.to_owned() })
        };
        match self {
            Schedule::StepLR { step_size: 0, .. } => bad("step_size", "0".into(), "it must be at least 1"),
            Schedule::CosineAnnealingLR { t_max: 0, .. } => bad("t_max", "0".into(), "it must be at least 1"),
            Schedule::ConstantLR { factor, .. } if !(0.0..=1.0).contains(factor) || *factor == 0.0 => {
                bad("factor", factor.to_string(), "it must be above 0 and at most 1")
            }
            Schedule::LinearLR { start_factor, .. } if *start_factor <= 0.0 || *start_factor > 1.0 => {
                bad("start_factor", start_factor.to_string(), "it must be above 0 and at most 1")
            }
            Schedule::OneCycleLR(cycle) if cycle.total_steps == 0 => {
                bad("total_steps", "0".into(), "it must be at least 1")
            }
            Schedule::SequentialLR { schedules, milestones } if schedules.len() != milestones.len() + 1 => bad(
                "milestones",
                format!("{} for {} schedules", milestones.len(), schedules.len()),
                "there must be one less than schedules",
            ),
            Schedule::SequentialLR { schedules, .. } | Schedule::ChainedScheduler { schedules } => {
                schedules.iter().try_for_each(Schedule::check)
            }
            _ => Ok(()),
        }
    }
}

/// A schedule that runs: the learning rates of all groups, now.
///
/// ```
/// use striate_nn::optim::{LrScheduler, Schedule};
/// let mut lr = LrScheduler::new(Schedule::StepLR { step_size: 2, gamma: 0.5 }, &[0.1])?;
/// let rates: Vec<f64> = (0..4).map(|_| { let now = lr.lrs()[0]; lr.step(); now }).collect();
/// assert_eq!(rates, [0.1, 0.1, 0.05, 0.05]);
/// # Ok::<(), striate_nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LrScheduler {
    schedule: Schedule,
    base: Vec<f64>,
    lrs: Vec<f64>,
    /// The clock of each schedule: first that of the outermost, then those within, in order.
    clocks: Vec<u64>,
}

impl LrScheduler {
    /// At time 0, with the base rate of each group.
    ///
    /// # Errors
    /// Where an argument of the schedule is out of its range.
    pub fn new(schedule: Schedule, base_lrs: &[f64]) -> Result<LrScheduler> {
        schedule.check()?;
        let clocks = vec![0; count(&schedule)];
        let mut lrs = base_lrs.to_vec();
        begin(&schedule, base_lrs, &mut lrs);
        Ok(LrScheduler { schedule, base: base_lrs.to_vec(), lrs, clocks })
    }

    /// The learning rate of each group now.
    pub fn lrs(&self) -> &[f64] {
        &self.lrs
    }

    /// The momentum now, where the schedule is a one-cycle that changes it.
    pub fn momentum(&self) -> Option<f64> {
        match &self.schedule {
            Schedule::OneCycleLR(cycle) if cycle.cycle_momentum => Some(cycle.momentum(self.time())),
            _ => None,
        }
    }

    /// Gives an optimizer the learning rates of now, and the momentum where the schedule changes it: what PyTorch's schedulers do by
    /// themselves.
    pub fn apply(&self, optimizer: &mut Optimizer) {
        optimizer.set_lrs(&self.lrs);
        if let Some(momentum) = self.momentum() {
            optimizer.set_momentum(momentum);
        }
    }

    /// How often [`LrScheduler::step`] was called.
    pub fn time(&self) -> u64 {
        self.clocks[0]
    }

    /// Goes on by one.
    pub fn step(&mut self) {
        advance(&self.schedule, &self.base, &mut self.lrs, &mut self.clocks);
    }

    /// The state as numbers, for a checkpoint.
    pub fn state(&self) -> Vec<f64> {
        self.clocks.iter().map(|c| *c as f64).chain(self.lrs.iter().copied()).collect()
    }

    /// Takes up a state of [`LrScheduler::state`] of the same schedule.
    ///
    /// # Errors
    /// Where the number of numbers differs.
    pub fn set_state(&mut self, state: &[f64]) -> Result<()> {
        let clocks = self.clocks.len();
        check_length(state, clocks + self.lrs.len())?;
        self.clocks.iter_mut().zip(state).for_each(|(clock, value)| *clock = *value as u64);
        self.lrs.copy_from_slice(&state[clocks..]);
        Ok(())
    }
}

fn check_length(state: &[f64], expected: usize) -> Result<()> {
    if state.len() == expected {
        return Ok(());
    }
    let (what, got) = ("the state of a schedule".to_owned(), format!("{} numbers", state.len()));
    Err(Error::Argument { what, got, fix: format!("it must have {expected}: it belongs to another schedule") })
}

/// Number of clocks.
fn count(schedule: &Schedule) -> usize {
    match schedule {
        Schedule::SequentialLR { schedules, .. } | Schedule::ChainedScheduler { schedules } => {
            1 + schedules.iter().map(count).sum::<usize>()
        }
        _ => 1,
    }
}

/// Time 0.
fn begin(schedule: &Schedule, base: &[f64], lrs: &mut [f64]) {
    match schedule {
        Schedule::SequentialLR { schedules, .. } => {
            if let Some(first) = schedules.first() {
                begin(first, base, lrs);
            }
        }
        Schedule::ChainedScheduler { schedules } => schedules.iter().for_each(|s| begin(s, base, lrs)),
        plain => lrs.iter_mut().enumerate().for_each(|(g, lr)| *lr = plain.chain(0, g, *lr, base[g])),
    }
}

fn advance(schedule: &Schedule, base: &[f64], lrs: &mut [f64], clocks: &mut [u64]) {
    clocks[0] += 1;
    let time = clocks[0];
    match schedule {
        Schedule::SequentialLR { schedules, milestones } => {
            let index = milestones.iter().filter(|m| **m <= time).count();
            let from = 1 + schedules[..index].iter().map(count).sum::<usize>();
            let current = &schedules[index];
            if index > 0 && milestones[index - 1] == time {
                match current {
                    Schedule::SequentialLR { .. } | Schedule::ChainedScheduler { .. } => {
                        lrs.copy_from_slice(base);
                        begin(current, base, lrs);
                    }
                    plain => lrs.iter_mut().enumerate().for_each(|(g, lr)| *lr = plain.start(g, base[g])),
                }
            } else {
                advance(current, base, lrs, &mut clocks[from..]);
            }
        }
        Schedule::ChainedScheduler { schedules } => {
            let mut from = 1;
            for inner in schedules {
                advance(inner, base, lrs, &mut clocks[from..]);
                from += count(inner);
            }
        }
        plain => lrs.iter_mut().enumerate().for_each(|(g, lr)| *lr = plain.chain(time, g, *lr, base[g])),
    }
}

/// Whether a smaller or a larger metric is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlateauMode {
    /// Smaller, such as a loss.
    #[default]
    Min,
    /// Larger, such as an accuracy.
    Max,
}

/// How the threshold of an improvement is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThresholdMode {
    /// As a fraction of the best.
    #[default]
    Rel,
    /// As a difference.
    Abs,
}

/// `torch.optim.lr_scheduler.ReduceLROnPlateau`: lowers the rate when a metric has not improved for a while.
#[derive(Clone, Debug)]
pub struct ReduceLROnPlateau {
    /// What is better.
    pub mode: PlateauMode,
    /// By what the rate is multiplied (0.1).
    pub factor: f64,
    /// How many calls without improvement are let pass (10).
    pub patience: u64,
    /// What counts as an improvement (1e-4).
    pub threshold: f64,
    /// How the threshold is meant.
    pub threshold_mode: ThresholdMode,
    /// How many calls are not counted after a reduction (0).
    pub cooldown: u64,
    /// The lowest rate, for all groups or for each (0).
    pub min_lr: Vec<f64>,
    /// A smaller change is not made (1e-8).
    pub eps: f64,
    lrs: Vec<f64>,
    best: f64,
    bad: u64,
    cooling: u64,
}

impl ReduceLROnPlateau {
    /// With PyTorch's defaults.
    pub fn new(mode: PlateauMode, base_lrs: &[f64]) -> ReduceLROnPlateau {
        let best = if mode == PlateauMode::Min { f64::INFINITY } else { f64::NEG_INFINITY };
        ReduceLROnPlateau {
            mode,
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            threshold_mode: ThresholdMode::Rel,
            cooldown: 0,
            min_lr: vec![0.0],
            eps: 1e-8,
            lrs: base_lrs.to_vec(),
            best,
            bad: 0,
            cooling: 0,
        }
    }

    /// The learning rate of each group now.
    pub fn lrs(&self) -> &[f64] {
        &self.lrs
    }

    fn improves(&self, metric: f64) -> bool {
        let (best, by) = (self.best, self.threshold);
        match (self.mode, self.threshold_mode) {
            (PlateauMode::Min, ThresholdMode::Rel) => metric < best * (1.0 - by),
            (PlateauMode::Min, ThresholdMode::Abs) => metric < best - by,
            (PlateauMode::Max, ThresholdMode::Rel) => metric > best * (by + 1.0),
            (PlateauMode::Max, ThresholdMode::Abs) => metric > best + by,
        }
    }

    /// Takes in the metric of an epoch.
    pub fn step(&mut self, metric: f64) {
        if self.improves(metric) {
            (self.best, self.bad) = (metric, 0);
        } else {
            self.bad += 1;
        }
        if self.cooling > 0 {
            self.cooling -= 1;
            self.bad = 0;
        }
        if self.bad > self.patience {
            for (group, lr) in self.lrs.iter_mut().enumerate() {
                let least = self.min_lr.get(group).or(self.min_lr.first()).copied().unwrap_or(0.0);
                let lower = (*lr * self.factor).max(least);
                if *lr - lower > self.eps {
                    *lr = lower;
                }
            }
            (self.cooling, self.bad) = (self.cooldown, 0);
        }
    }

    /// The state as numbers, for a checkpoint: best, counts, rates.
    pub fn state(&self) -> Vec<f64> {
        [self.best, self.bad as f64, self.cooling as f64].into_iter().chain(self.lrs.iter().copied()).collect()
    }

    /// Takes up a state of [`ReduceLROnPlateau::state`].
    ///
    /// # Errors
    /// Where the number of numbers differs.
    pub fn set_state(&mut self, state: &[f64]) -> Result<()> {
        check_length(state, 3 + self.lrs.len())?;
        (self.best, self.bad, self.cooling) = (state[0], state[1] as u64, state[2] as u64);
        self.lrs.copy_from_slice(&state[3..]);
        Ok(())
    }
}
