use crate::{NodeId, Program};
use std::time::Duration;

/// The time of each step of a program, over the runs since profiling began.
#[derive(Clone, Debug)]
pub struct Profile {
    steps: Vec<StepProfile>,
}

/// One step's share.
#[derive(Clone, Debug)]
pub struct StepProfile {
    /// The node of [`Program::graph`] that the step computes; the last, where it computes several.
    pub node: NodeId,
    /// The path of the layer; empty outside layers.
    pub layer: String,
    /// What the step computes: the op's name.
    pub op: &'static str,
    /// Which kernel does it.
    pub kernel: String,
    /// Floating-point operations of one run, as the layer defines them; 0 where it is not counted.
    pub flops: u64,
    /// Runs measured.
    pub runs: u64,
    /// Time in all.
    pub total: Duration,
    /// The least time of a run.
    pub least: Duration,
}

impl StepProfile {
    /// Mean time of a run.
    pub fn mean(&self) -> Duration {
        self.total / u32::try_from(self.runs.max(1)).unwrap_or(u32::MAX)
    }

    /// GFLOP/s.
    pub fn gflops(&self) -> f64 {
        let seconds = self.mean().as_secs_f64();
        if seconds > 0.0 { self.flops as f64 / seconds / 1e9 } else { 0.0 }
    }
}

impl Profile {
    pub(super) fn new(program: &Program) -> Self {
        let step = |step: &crate::plan::step::Step| {
            let node = &program.graph.nodes[step.node];
            StepProfile {
                node: NodeId(step.node as u32),
                layer: node.origin.layer.to_string(),
                op: node.op.name(),
                kernel: step.kernel.name(),
                flops: step.flops,
                runs: 0,
                total: Duration::ZERO,
                least: Duration::MAX,
            }
        };
        Profile { steps: program.steps.iter().map(step).collect() }
    }

    pub(super) fn add(&mut self, index: usize, time: Duration) {
        let step = &mut self.steps[index];
        step.runs += 1;
        step.total += time;
        step.least = step.least.min(time);
    }

    /// All steps in the order in which they run.
    pub fn steps(&self) -> &[StepProfile] {
        &self.steps
    }
}
