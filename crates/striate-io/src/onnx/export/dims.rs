//! Which sizes of a graph follow the batch, and which follow the picture: seen by tracing a net for several inputs and comparing.

use super::ExportError;
use striate_graph::{Graph, Node, Op};

/// The size of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Dim {
    /// Always the same.
    Fixed(usize),
    /// So many times the batch.
    Batch(usize),
    /// Follows the size of the picture; as it is in the first graph.
    Picture(usize),
}

impl Dim {
    /// The size, where it is always the same.
    pub fn fixed(self) -> Option<usize> {
        match self {
            Dim::Fixed(size) => Some(size),
            Dim::Batch(_) | Dim::Picture(_) => None,
        }
    }
}

/// The batches that a net is traced with. Neither is 1: what has size 1 is treated as if it were not there by some layers.
pub(super) const BATCHES: [usize; 2] = [2, 3];

/// The same net traced for other inputs.
#[derive(Clone, Copy, Default)]
pub(super) struct Variants<'a> {
    /// With the other of [`BATCHES`].
    pub batch: Option<&'a Graph>,
    /// For pictures of another height and width.
    pub picture: Option<&'a Graph>,
}

/// The sizes of all nodes of `graph`.
///
/// # Errors
/// Where a variant is not the same net but for sizes, or where a size depends on the batch in another way than by a factor.
pub(super) fn sizes(graph: &Graph, variants: Variants) -> Result<Vec<Vec<Dim>>, ExportError> {
    for (variant, what) in [(variants.batch, "batch"), (variants.picture, "size of the picture")] {
        if let Some(other) = variant {
            check_alike(graph, other, what)?;
        }
    }
    graph.nodes.iter().enumerate().map(|(index, node)| node_sizes(node, index, variants)).collect()
}

fn node_sizes(node: &Node, index: usize, variants: Variants) -> Result<Vec<Dim>, ExportError> {
    let other = |graph: Option<&Graph>, axis: usize| graph.map(|graph| graph.nodes[index].shape[axis]);
    let size = |(axis, &size): (usize, &usize)| {
        if other(variants.picture, axis).is_some_and(|found| found != size) {
            return Ok(Dim::Picture(size));
        }
        match other(variants.batch, axis) {
            Some(found) if found != size && found * BATCHES[0] != size * BATCHES[1] => {
                let why = format!("axis {axis} is {size} for {} pictures and {found} for {}", BATCHES[0], BATCHES[1]);
                Err(ExportError::dynamic(node, "batch", why))
            }
            Some(found) if found != size => Ok(Dim::Batch(size / BATCHES[0])),
            _ => Ok(Dim::Fixed(size)),
        }
    };
    node.shape.iter().enumerate().map(size).collect()
}

fn check_alike(graph: &Graph, other: &Graph, what: &'static str) -> Result<(), ExportError> {
    for (a, b) in graph.nodes.iter().zip(&other.nodes) {
        if a.inputs != b.inputs || a.shape.rank() != b.shape.rank() || !same_attributes(&a.op, &b.op) {
            let why = format!("{} does other things for another {what}", a.op.name());
            return Err(ExportError::dynamic(a, what, why));
        }
    }
    match graph.nodes.len() == other.nodes.len() {
        true => Ok(()),
        false => Err(ExportError::Dynamic {
            what,
            op: "the net".into(),
            layer: String::new(),
            why: format!("it has {} operations here and {} there", graph.nodes.len(), other.nodes.len()),
        }),
    }
}

/// Whether two operations differ at most in sizes that [`sizes`] looks at.
fn same_attributes(a: &Op, b: &Op) -> bool {
    match (a, b) {
        (Op::Input { name: a, dtype: d, .. }, Op::Input { name: b, dtype: e, .. }) => a == b && d == e,
        (Op::Constant(a), Op::Constant(b)) => a.bits_eq(b),
        (Op::Reshape { .. }, Op::Reshape { .. }) | (Op::Expand { .. }, Op::Expand { .. }) => true,
        (Op::Slice { starts: a, steps: s, .. }, Op::Slice { starts: b, steps: t, .. }) => a == b && s == t,
        (Op::Resize { spec: a, .. }, Op::Resize { spec: b, .. }) => a == b,
        (Op::HostCall { name: a, outputs: o, backward: c }, Op::HostCall { name: b, outputs: p, backward: d }) => {
            a == b && c == d && o.iter().map(|(_, dtype)| dtype).eq(p.iter().map(|(_, dtype)| dtype))
        }
        (Op::Conv2dInputGrad { attrs: a, .. }, Op::Conv2dInputGrad { attrs: b, .. }) => a == b,
        _ => format!("{a:?}") == format!("{b:?}"),
    }
}
