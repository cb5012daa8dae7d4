use super::fuse::{Uses, fuse};
use super::lower::{Lowered, Machine, lower};
use super::memory::{Lifetime, plan_memory};
use super::pairs::find_pairs;
use super::schedule::schedule;
use super::slots::find_slots;
use super::step::{Kernel, Step, Weights};
use super::value::{Place, Value, ValueId};
use crate::pass::simplify;
use crate::run::arena::Span;
use crate::{Array, DType, Graph, Op, Parameter, Result, Shape};
use std::sync::Arc;
use striate_kernels::conv::Algorithms;
use striate_kernels::simd::{Isa, isa};

/// Where a program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// This machine's processor.
    #[default]
    Cpu,
}

/// How a graph is compiled.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// The device. Default: the CPU.
    pub device: Device,
    /// Direct convolution only: no algorithm whose rounding differs from a plain sum's. Default: false.
    pub exact: bool,
    /// The largest number of threads that will run the program; no result depends on it. Default: what
    /// `STRIATE_THREADS` says, else what the machine gives this process.
    pub threads: usize,
}

impl Default for CompileOptions {
    fn default() -> Self {
        CompileOptions { device: Device::Cpu, exact: false, threads: striate_kernels::threads::default_threads() }
    }
}

/// A compiled graph: immutable, shared by any number of sessions.
///
/// ```
/// use striate_graph::{Array, CompileOptions, DType, Mode, Program, Session, Trace};
/// let trace = Trace::new(Mode::Eval);
/// let x = trace.input("x", &[3], DType::F32);
/// let graph = trace.finish(&[("y", &(&x * 2.0).relu())])?;
/// let mut session = Session::new(Program::compile(&graph, &CompileOptions::default())?);
/// let y = session.run(&[("x", &Array::from_vec(&[3], vec![-1.0f32, 0.5, 2.0])?)])?;
/// assert_eq!(y[0].f32s()?, &[0.0, 1.0, 4.0]);
/// # Ok::<(), striate_graph::Error>(())
/// ```
#[derive(Debug)]
pub struct Program {
    pub(crate) graph: Graph,
    pub(crate) steps: Vec<Step>,
    pub(crate) values: Vec<Value>,
    pub(crate) constants: Vec<Array>,
    pub(crate) hosts: usize,
    pub(crate) inputs: Vec<(Arc<str>, Shape, DType)>,
    pub(crate) outputs: Vec<(Arc<str>, ValueId)>,
    pub(crate) arena_len: usize,
    pub(crate) isa: Isa,
    pub(crate) threads: usize,
}

impl Program {
    /// Compiles a graph: simplify, fuse, lower, schedule, lay out memory. Nothing is packed or allocated yet.
    ///
    /// # Errors
    /// The trace's first error, or a broken rule of the graph.
    pub fn compile(graph: &Graph, options: &CompileOptions) -> Result<Arc<Program>> {
        graph.verify()?;
        let graph = simplify(graph);
        let uses = Uses::of(&graph);
        let training = graph.nodes.iter().any(|node| matches!(node.op, Op::Update { .. }));
        let mut fusion = fuse(&graph, &uses);
        if !training {
            fusion.slots = find_slots(&graph);
            find_pairs(&graph, &uses, &mut fusion, isa());
        }
        let algorithms = match (options.exact, training) {
            (true, _) => Algorithms::Exact,
            (false, true) => Algorithms::FastTraining,
            (false, false) => Algorithms::Fast,
        };
        let machine = Machine { isa: isa(), algorithms, threads: options.threads.max(1) };
        let lowered = lower(&graph, &uses, &fusion, machine);
        let Lowered { steps, mut values, buffers, constants, hosts, inputs, outputs } = lowered;
        let steps = schedule(steps, &values);
        let arena_len = place(&steps, &mut values, &buffers, &outputs);
        let Machine { isa, threads, .. } = machine;
        Ok(Arc::new(Program { graph, steps, values, constants, hosts, inputs, outputs, arena_len, isa, threads }))
    }

    /// Bytes of the arena: all values between inputs and outputs.
    pub fn arena_bytes(&self) -> usize {
        self.arena_len * 4
    }

    /// Bytes that a session needs in all: the arena, the cells, what is packed from them, constants, inputs and outputs.
    pub fn memory_bytes(&self) -> usize {
        let packed = |step: &Step| match &step.kernel {
            Kernel::Conv(conv) if matches!(conv.weights, Weights::Cached { .. }) => conv.plan.packed_len(),
            Kernel::ConvPair(pair) => pair.plan.packed_lens().iter().sum(),
            Kernel::ConvInputGrad { plan, weights: Weights::Cached { .. }, .. } => plan.packed_len(),
            _ => 0,
        };
        let floats = self.arena_len + self.steps.iter().map(packed).sum::<usize>();
        let cells: usize = self.graph.parameters.iter().map(|cell| cell.shape().numel() * cell.dtype().size()).sum();
        let constants: usize = self.constants.iter().map(|array| array.shape().numel() * array.dtype().size()).sum();
        let inputs: usize = self.inputs.iter().map(|(_, shape, dtype)| shape.numel() * dtype.size()).sum();
        let output = |(_, id): &(Arc<str>, ValueId)| {
            let value = &self.values[id.index()];
            value.shape.numel() * value.dtype.size()
        };
        4 * floats + cells + constants + inputs + self.outputs.iter().map(output).sum::<usize>()
    }

    /// The cells that the program reads or updates.
    pub fn parameters(&self) -> &[Parameter] {
        &self.graph.parameters
    }

    /// Name, shape and type of the inputs, in order.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, &Shape, DType)> {
        self.inputs.iter().map(|(name, shape, dtype)| (&**name, shape, *dtype))
    }

    /// Name and shape of the outputs, in order.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, &Shape)> {
        self.outputs.iter().map(|(name, id)| (&**name, &self.values[id.index()].shape))
    }

    /// The simplified graph from which the steps were made; the interpreter can run it too.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Number of steps.
    pub fn step_count(&self) -> usize {
        self.steps.len()
    }

    /// Number of steps that fell back on the scalar reference kernels.
    pub fn reference_steps(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step.kernel, Kernel::Reference(_))).count()
    }
}

/// Gives each buffer its place; returns the arena's length.
fn place(steps: &[Step], values: &mut [Value], buffers: &[usize], outputs: &[(Arc<str>, ValueId)]) -> usize {
    let mut lives: Vec<Lifetime> = buffers.iter().map(|&len| Lifetime { len, first: usize::MAX, last: 0 }).collect();
    let mut touch = |value: ValueId, step: usize| {
        if let Place::Buffer { buffer, .. } = values[value.index()].place {
            lives[buffer].first = lives[buffer].first.min(step);
            lives[buffer].last = lives[buffer].last.max(step);
        }
    };
    for (index, step) in steps.iter().enumerate() {
        step.reads.iter().chain(&step.writes).for_each(|value| touch(*value, index));
    }
    outputs.iter().for_each(|(_, value)| touch(*value, steps.len()));
    for life in &mut lives {
        if life.first == usize::MAX {
            life.len = 0; // nothing touches it
        }
    }
    let (offsets, total) = plan_memory(&lives);
    for value in values {
        if let Place::Buffer { buffer, offset } = value.place {
            let len = value.span().min(lives[buffer].len);
            value.place = Place::Arena(Span { start: offsets[buffer] + offset, len });
        }
    }
    total
}
