//! Time of each layer.

use super::analyse::{Row, macs};
use crate::compute::ComputeArgs;
use crate::failure::Failure;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;
use striate::graph::machine::{isa, measure_peak};
use striate::graph::rng::{fill_normal, stream_key};
use striate::graph::{Array, Graph, NodeId, Op, Program, Session, StepProfile};

/// A compiled net, with the time of each of its steps.
pub struct Measured {
    program: Arc<Program>,
    steps: Vec<StepProfile>,
    peak_gflops: f64,
    threads: usize,
}

/// Times by row.
pub struct Times {
    /// Of each row; none where another row's step computes it.
    pub ms: Vec<Option<f64>>,
    /// The kernel of each row.
    pub kernels: Vec<Option<String>>,
    /// Of steps that belong to no row, such as changes of layout.
    pub other_ms: f64,
    /// Of all steps.
    pub total_ms: f64,
    /// Calls measured.
    pub runs: u64,
    /// The rate of multiply-adds measured just before.
    pub peak_gflops: f64,
    /// Threads.
    pub threads: usize,
}

impl Times {
    /// What a row with so many multiply-adds reaches of the peak.
    pub fn percent_of_peak(&self, row: usize, macs: u64) -> Option<f64> {
        let ms = self.ms[row].filter(|&ms| ms > 0.0 && macs > 0)?;
        Some(100.0 * 2.0 * macs as f64 / ms / 1e6 / self.peak_gflops)
    }
}

impl Measured {
    /// Compiles the graph and runs it on random pictures for about so long.
    pub fn take(graph: &Graph, compute: ComputeArgs, seconds: f64) -> Result<Measured, Failure> {
        let team = compute.team();
        let peak_gflops = measure_peak(&team, isa());
        let program = Program::compile(graph, &compute.options())?;
        let mut session = Session::with_team(program.clone(), team);
        let inputs: Vec<(String, Array)> = program
            .inputs()
            .map(|(name, shape, _)| {
                let mut values = vec![0.0; shape.numel()];
                fill_normal(&mut values, stream_key(0, "profile"), 0, 0);
                Ok((name.to_owned(), Array::from_vec(shape, values)?))
            })
            .collect::<Result<_, striate::graph::Error>>()?;
        let inputs: Vec<(&str, &Array)> = inputs.iter().map(|(name, array)| (name.as_str(), array)).collect();
        session.run(&inputs)?; // packs the weights
        session.set_profiling(true);
        let begin = Instant::now();
        loop {
            session.run(&inputs)?;
            if begin.elapsed().as_secs_f64() >= seconds {
                break;
            }
        }
        let steps = session.profile().map(|profile| profile.steps().to_vec()).unwrap_or_default();
        Ok(Measured { program, steps, peak_gflops, threads: compute.threads() })
    }

    /// The graph that the steps speak of.
    pub fn graph(&self) -> &Graph {
        self.program.graph()
    }

    /// Gives each step's time to the row of its heaviest node.
    pub fn times(&self, rows: &[Row]) -> Times {
        let row_of: HashMap<NodeId, usize> =
            rows.iter().enumerate().flat_map(|(row, r)| r.nodes.iter().map(move |id| (*id, row))).collect();
        let mut times = Times {
            ms: vec![None; rows.len()],
            kernels: vec![None; rows.len()],
            other_ms: 0.0,
            total_ms: 0.0,
            runs: self.steps.iter().map(|step| step.runs).max().unwrap_or(0),
            peak_gflops: self.peak_gflops,
            threads: self.threads,
        };
        let mut taken = HashSet::new();
        for step in &self.steps {
            let ms = step.mean().as_secs_f64() * 1e3;
            times.total_ms += ms;
            let head = if step.flops > 0 { self.head_of(step, &mut taken) } else { step.node };
            match row_of.get(&head) {
                Some(&row) => {
                    *times.ms[row].get_or_insert(0.0) += ms;
                    if times.kernels[row].is_none() || step.flops > 0 {
                        times.kernels[row] = Some(step.kernel.clone());
                    }
                }
                None => times.other_ms += ms,
            }
        }
        times
    }

    /// The convolution or product that a step computes: the nearest one before the step's last node that costs as much.
    fn head_of(&self, step: &StepProfile, taken: &mut HashSet<NodeId>) -> NodeId {
        let graph = self.graph();
        let (mut queue, mut seen) = (VecDeque::from([step.node]), HashSet::from([step.node]));
        while let Some(id) = queue.pop_front() {
            let node = graph.node(id);
            if 2 * macs(graph, node) == step.flops && taken.insert(id) {
                return id;
            }
            let passes = matches!(node.op, Op::Unary(_) | Op::Binary(_) | Op::BatchNorm { .. } | Op::Reshape { .. });
            if passes {
                queue.extend(node.inputs.iter().copied().filter(|input| seen.insert(*input)));
            }
        }
        step.node
    }
}
