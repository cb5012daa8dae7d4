//! From nodes to steps, and from the values of the graph to places in memory.

use super::fuse::{Chain, Fusion, NormChain, Uses};
use super::step::{Kernel, Step};
use super::value::{Layout, Place, Value, ValueId, layouts_coincide, may_be_channels_last};
use crate::{Array, DType, Graph, Node, NodeId, Op, Shape};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use striate_kernels::conv::Algorithms;
use striate_kernels::simd::Isa;

/// What lowering made of a graph.
#[derive(Default)]
pub(crate) struct Lowered {
    pub steps: Vec<Step>,
    pub values: Vec<Value>,
    /// Length of each buffer, in floats.
    pub buffers: Vec<usize>,
    pub constants: Vec<Array>,
    /// Number of values that are not f32.
    pub hosts: usize,
    pub inputs: Vec<(Arc<str>, Shape, DType)>,
    pub outputs: Vec<(Arc<str>, ValueId)>,
}

/// Lowers a simplified graph.
pub(crate) fn lower(graph: &Graph, uses: &Uses, fusion: &Fusion, machine: Machine) -> Lowered {
    let mut lowering = Lowering {
        graph,
        uses,
        fusion,
        machine,
        native: vec![None; graph.nodes.len()],
        converted: HashMap::new(),
        dense: HashMap::new(),
        roots: HashMap::new(),
        call_outputs: HashMap::new(),
        updated: graph.nodes.iter().filter_map(updated_cell).collect(),
        out: Lowered::default(),
        current: 0,
    };
    for index in 0..graph.nodes.len() {
        lowering.current = index;
        if !fusion.absorbed[index] {
            lowering.node(NodeId(index as u32));
        }
        if graph.guard == Some(NodeId(index as u32)) {
            let value = lowering.get(NodeId(index as u32), Layout::Rows);
            lowering.step(Kernel::Guard, vec![value], vec![]);
        }
    }
    for (_, id) in &graph.tapped {
        lowering.alone(*id);
    }
    for (name, id) in graph.outputs.iter().chain(&graph.tapped) {
        let value = lowering.get(*id, Layout::Rows);
        lowering.out.outputs.push((name.clone(), value));
    }
    lowering.out
}

/// The cell that a node updates.
fn updated_cell(node: &Node) -> Option<usize> {
    match node.op {
        Op::Update { slot, .. } => Some(slot),
        _ => None,
    }
}

/// For what the kernels are chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub isa: Isa,
    /// Which kernels of convolutions may be chosen.
    pub algorithms: Algorithms,
    /// For how many threads scratch is laid out. No result depends on it.
    pub threads: usize,
}

pub(super) struct Lowering<'g> {
    pub(super) graph: &'g Graph,
    pub(super) uses: &'g Uses,
    pub(super) fusion: &'g Fusion,
    pub(super) machine: Machine,
    /// The value that a node was lowered to.
    native: Vec<Option<ValueId>>,
    /// The same value in the other layout.
    converted: HashMap<ValueId, ValueId>,
    /// A copy without gaps of a value that is some channels of a larger one.
    pub(super) dense: HashMap<ValueId, ValueId>,
    /// The buffers of the concatenations into which their inputs are written directly.
    pub(super) roots: HashMap<NodeId, usize>,
    call_outputs: HashMap<NodeId, Vec<ValueId>>,
    /// The cells that the program updates.
    pub(super) updated: HashSet<usize>,
    pub(super) out: Lowered,
    current: usize,
}

impl Lowering<'_> {
    fn node(&mut self, id: NodeId) {
        let node = self.graph.node(id);
        if let Some(chain) = self.fusion.chains.get(&id) {
            return self.chain(id, chain);
        }
        if let Some(chain) = self.fusion.norms.get(&id) {
            return self.norm_chain(id, chain);
        }
        if let Some(chain) = self.fusion.input_grads.get(&id) {
            return self.input_grad_chain(id, chain);
        }
        if let Some(&(x, groups)) = self.fusion.shuffles.get(&id) {
            return self.shuffle(id, x, groups);
        }
        match &node.op {
            Op::Input { name, shape, dtype } => {
                self.out.inputs.push((name.clone(), shape.clone(), *dtype));
                self.leaf(id, Place::Input(self.out.inputs.len() - 1));
            }
            Op::Parameter { slot, .. } => self.leaf(id, Place::Parameter(*slot)),
            Op::Constant(array) => {
                self.out.constants.push(array.clone());
                self.leaf(id, Place::Constant(self.out.constants.len() - 1));
            }
            Op::Update { kind, slot, state } => {
                let reads = node.inputs.iter().map(|input| self.get(*input, Layout::Rows)).collect();
                let kernel = Kernel::Update { kind: *kind, slot: *slot, state: state.clone() };
                self.step(kernel, reads, vec![]);
                let value = self.fresh(&node.shape, node.dtype, Layout::Rows);
                self.native[id.index()] = Some(value);
            }
            Op::HostCall { name, outputs, .. } => {
                let reads = node.inputs.iter().map(|input| self.get(*input, Layout::Rows)).collect();
                let writes: Vec<ValueId> = outputs.iter().map(|(s, d)| self.fresh(s, *d, Layout::Rows)).collect();
                self.step(Kernel::HostCall { name: name.clone(), outputs: outputs.clone() }, reads, writes.clone());
                self.native[id.index()] = writes.first().copied();
                self.call_outputs.insert(id, writes);
            }
            Op::HostOutput { index } => {
                let call = self.call_outputs.get(&node.inputs[0]);
                self.native[id.index()] = call.and_then(|outputs| outputs.get(*index)).copied();
            }
            Op::Reshape { shape } if node.dtype == DType::F32 => {
                let rows = self.get(node.inputs[0], Layout::Rows);
                let alias = self.alias(rows, shape, Layout::Rows, 0);
                self.native[id.index()] = Some(alias);
            }
            _ => self.computed(id, node),
        }
    }

    /// A tapped node that some step computes on its way: computed once more, by itself.
    fn alone(&mut self, id: NodeId) {
        if self.native[id.index()].is_some() {
            return;
        }
        let node = self.graph.node(id);
        node.inputs.iter().for_each(|input| self.alone(*input));
        self.current = id.index();
        match &node.op {
            Op::Conv2d(_) | Op::MatMul { trans_a: false, trans_b: true } => {
                self.chain(id, &Chain::alone(self.graph, id))
            }
            Op::BatchNormTraining { .. } => self.norm_chain(id, &NormChain::alone(id)),
            _ => self.computed(id, node),
        }
    }

    /// A node that kernels compute: by a fast step where there is one, else by the reference kernel.
    fn computed(&mut self, id: NodeId, node: &Node) {
        if node.dtype == DType::F32 && self.fast(id, node) {
            return;
        }
        let reads = node.inputs.iter().map(|input| self.get(*input, Layout::Rows)).collect();
        let value = self.result(id, Layout::Rows);
        self.step(Kernel::Reference(Box::new(node.clone())), reads, vec![value]);
    }

    fn leaf(&mut self, id: NodeId, place: Place) {
        let node = self.graph.node(id);
        let value = Value { place, shape: node.shape.clone(), dtype: node.dtype, layout: Layout::Rows, pitch: None };
        self.native[id.index()] = Some(self.push(value));
    }

    /// A value of one float in the program's constants.
    pub(super) fn constant(&mut self, place: Place) -> ValueId {
        self.push(Value { place, shape: Shape::default(), dtype: DType::F32, layout: Layout::Rows, pitch: None })
    }

    pub(super) fn push(&mut self, value: Value) -> ValueId {
        self.out.values.push(value);
        ValueId((self.out.values.len() - 1) as u32)
    }

    /// A new value in a buffer of its own.
    pub(super) fn fresh(&mut self, shape: &Shape, dtype: DType, layout: Layout) -> ValueId {
        let place = if dtype == DType::F32 {
            self.out.buffers.push(shape.numel());
            Place::Buffer { buffer: self.out.buffers.len() - 1, offset: 0 }
        } else {
            self.out.hosts += 1;
            Place::Host(self.out.hosts - 1)
        };
        self.push(Value { place, shape: shape.clone(), dtype, layout, pitch: None })
    }

    /// Floats that only one step uses.
    pub(super) fn scratch(&mut self, len: usize) -> ValueId {
        self.fresh(&[len].into(), DType::F32, Layout::Rows)
    }

    /// The value of a node, new, in a buffer of its own.
    pub(super) fn result(&mut self, id: NodeId, layout: Layout) -> ValueId {
        let node = self.graph.node(id);
        let value = self.fresh(&node.shape, node.dtype, layout);
        self.native[id.index()] = Some(value);
        value
    }

    /// Declares which value a node is.
    pub(super) fn set(&mut self, id: NodeId, value: ValueId) {
        self.native[id.index()] = Some(value);
    }

    /// The same floats under another shape or layout, from `offset` on.
    pub(super) fn alias(&mut self, of: ValueId, shape: &Shape, layout: Layout, offset: usize) -> ValueId {
        let source = &self.out.values[of.index()];
        let place = match source.place {
            Place::Buffer { buffer, offset: before } => Place::Buffer { buffer, offset: before + offset },
            place => place,
        };
        let dtype = source.dtype;
        self.push(Value { place, shape: shape.clone(), dtype, layout, pitch: None })
    }

    pub(super) fn value(&self, id: ValueId) -> &Value {
        &self.out.values[id.index()]
    }

    /// The value of a node as it lies.
    pub(super) fn as_it_lies(&self, id: NodeId) -> ValueId {
        self.native[id.index()].expect("nodes are lowered in order")
    }

    /// The value of a node in a layout; a permute is put in where it lies in the other.
    pub(super) fn get(&mut self, id: NodeId, layout: Layout) -> ValueId {
        let native = self.as_it_lies(id);
        let native = if self.value(native).pitch.is_some() { self.without_gaps(native) } else { native };
        self.convert(native, layout)
    }

    /// The value of a node, channels-last; it may be some channels of a larger one.
    pub(super) fn with_gaps(&mut self, id: NodeId) -> ValueId {
        let native = self.as_it_lies(id);
        if self.value(native).pitch.is_some() { native } else { self.convert(native, Layout::ChannelsLast) }
    }

    fn convert(&mut self, native: ValueId, layout: Layout) -> ValueId {
        let value = self.value(native).clone();
        if value.layout == layout
            || (layout == Layout::ChannelsLast && !may_be_channels_last(&value.shape, value.dtype))
        {
            return native;
        }
        if let Some(converted) = self.converted.get(&native) {
            return *converted;
        }
        let converted = if layouts_coincide(&value.shape) {
            self.alias(native, &value.shape, layout, 0)
        } else {
            let converted = self.fresh(&value.shape, value.dtype, layout);
            let (n, c) = (value.shape[0], value.shape[1]);
            let inner = value.shape[2..].iter().product();
            let to_channels_last = layout == Layout::ChannelsLast;
            self.step(Kernel::Relayout { n, c, inner, to_channels_last }, vec![native], vec![converted]);
            converted
        };
        self.converted.insert(native, converted);
        self.converted.insert(converted, native);
        converted
    }

    pub(super) fn step(&mut self, kernel: Kernel, reads: Vec<ValueId>, writes: Vec<ValueId>) {
        self.step_with(kernel, reads, writes, Vec::new(), 0);
    }

    pub(super) fn step_with(
        &mut self,
        kernel: Kernel,
        reads: Vec<ValueId>,
        writes: Vec<ValueId>,
        cells: Vec<usize>,
        flops: u64,
    ) {
        self.out.steps.push(Step { kernel, reads, writes, cells, node: self.current, flops });
    }
}
