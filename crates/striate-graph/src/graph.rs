use crate::{DType, Error, Op, Parameter, Shape};
use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::Arc;

/// Whether layers behave as in training or as in evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Dropout drops, batch norm uses and updates its statistics.
    Train,
    /// Nothing is random and nothing is updated.
    Eval,
}

/// The place of a node in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a node comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The path of the layer that recorded it; empty outside layers.
    pub layer: Arc<str>,
    /// The caller's source line.
    pub at: &'static Location<'static>,
}

/// One value of a graph: an operation, its inputs, and the shape and type that follow from them.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// From which values; each stands earlier in the graph.
    pub inputs: Vec<NodeId>,
    /// The value's shape.
    pub shape: Shape,
    /// The value's type.
    pub dtype: DType,
    /// Who recorded it.
    pub origin: Origin,
}

/// A graph: plain data, in an order in which every node comes after its inputs.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// All nodes.
    pub nodes: Vec<Node>,
    /// The cells that `Op::Parameter` and `Op::Update` speak of.
    pub parameters: Vec<Parameter>,
    /// The results of a run, by name, in order.
    pub outputs: Vec<(Arc<str>, NodeId)>,
    /// Values inside that a run gives besides, after the outputs; see [`Graph::add_tap`].
    pub tapped: Vec<(Arc<str>, NodeId)>,
    /// Updates of cells, carried out at each run.
    pub updates: Vec<NodeId>,
    /// A scalar that must be finite before any update happens: the loss.
    pub guard: Option<NodeId>,
    /// The output of each layer, by path.
    pub taps: BTreeMap<Arc<str>, NodeId>,
    /// The first error of the trace.
    pub error: Option<Error>,
}

impl Graph {
    /// The node of an id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Appends a node without any check; [`Graph::verify`] checks.
    pub fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId((self.nodes.len() - 1) as u32)
    }

    /// The index of a cell in [`Graph::parameters`], which it joins if need be.
    pub fn slot(&mut self, parameter: &Parameter) -> usize {
        if let Some(slot) = self.parameters.iter().position(|p| p.same_cell(parameter)) {
            return slot;
        }
        self.parameters.push(parameter.clone());
        self.parameters.len() - 1
    }

    /// The inputs that a run must give, in the order in which they were traced: name, shape, type.
    pub fn inputs(&self) -> impl Iterator<Item = (&Arc<str>, &Shape, DType)> {
        self.nodes.iter().filter_map(|node| match &node.op {
            Op::Input { name, shape, dtype } => Some((name, shape, *dtype)),
            _ => None,
        })
    }

    /// Everything that must be computed: outputs, taps, updates, guard.
    pub fn roots(&self) -> Vec<NodeId> {
        let outputs = self.outputs.iter().chain(&self.tapped).map(|(_, id)| *id);
        outputs.chain(self.updates.iter().copied()).chain(self.guard).collect()
    }

    /// For each node, whether a root needs it.
    pub fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.nodes.len()];
        for root in self.roots() {
            live[root.index()] = true;
        }
        for index in (0..self.nodes.len()).rev() {
            if live[index] {
                for input in &self.nodes[index].inputs {
                    live[input.index()] = true;
                }
            }
        }
        live
    }

    /// The value of a layer by its path.
    ///
    /// # Errors
    /// Where no layer has that path; the nearest path is suggested.
    pub fn tap(&self, path: &str) -> Result<NodeId, Error> {
        self.taps.get(path).copied().ok_or_else(|| Error::UnknownTap {
            name: path.to_owned(),
            suggestion: nearest(path, self.taps.keys().map(|k| &**k)).map(str::to_owned),
        })
    }

    /// Makes a layer's value an extra output, named by its path. It changes no bits of the other outputs: where a step
    /// would have computed the value on its way, it is computed once more, alone.
    ///
    /// # Errors
    /// Where no layer has that path.
    pub fn add_tap(&mut self, path: &str) -> Result<(), Error> {
        let id = self.tap(path)?;
        self.tapped.push((path.into(), id));
        Ok(())
    }
}

/// The candidate that differs least from `name`, if it differs by little.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    candidates.map(|c| (edit_distance(name, c), c)).filter(|(d, _)| *d <= limit).min().map(|(_, c)| c)
}

/// Levenshtein's distance.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
