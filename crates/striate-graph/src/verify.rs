//! The written rules that every graph obeys, checked after tracing and after every pass in tests.

use crate::infer::{host_output, infer};
use crate::{DType, Error, Graph, Op, Result, Shape};

impl Graph {
    /// Checks that nodes come after their inputs, that shapes and types follow from the inputs, that slots, outputs and
    /// updates exist, and that a host output names an output that its call declares.
    ///
    /// # Errors
    /// The graph's own first error, or [`Error::Internal`] for a broken rule.
    pub fn verify(&self) -> Result<()> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        for index in 0..self.nodes.len() {
            self.verify_node(index)?;
        }
        let ids = self.roots().into_iter().chain(self.taps.values().copied());
        for id in ids {
            if id.index() >= self.nodes.len() {
                return Err(Error::Internal(format!("root %{} of a graph of {} nodes", id.0, self.nodes.len())));
            }
        }
        Ok(())
    }

    fn verify_node(&self, index: usize) -> Result<()> {
        let node = &self.nodes[index];
        let broken = |what: String| Err(Error::Internal(format!("node %{index} {}: {what}", node.op.name())));
        if let Some(input) = node.inputs.iter().find(|id| id.index() >= index) {
            return broken(format!("its input %{} does not come before it", input.0));
        }
        let shapes: Vec<(&Shape, DType)> =
            node.inputs.iter().map(|id| (&self.node(*id).shape, self.node(*id).dtype)).collect();
        let found = match host_output(&node.op, node.inputs.first().map(|id| self.node(*id))) {
            Some(declared) => Ok(declared),
            None => infer(&node.op, &shapes),
        };
        match found {
            Ok(found) if found == (node.shape.clone(), node.dtype) => {}
            Ok((shape, dtype)) => {
                return broken(format!("is {} {}, should be {dtype} {shape}", node.dtype, node.shape));
            }
            Err(error) => return broken(error.to_string()),
        }
        let slots = match &node.op {
            Op::Parameter { slot, .. } => vec![*slot],
            Op::Update { slot, state, .. } => [&[*slot], &state[..]].concat(),
            _ => vec![],
        };
        match slots.iter().find(|slot| **slot >= self.parameters.len()) {
            Some(slot) => broken(format!("slot {slot} of {} parameters", self.parameters.len())),
            None => Ok(()),
        }
    }
}
