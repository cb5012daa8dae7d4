//! Updates of cells, at the end of a run.

use super::convert::{cast, floats};
use super::{Promote, Run};
use crate::{Array, DType, Element, Error, Node, Op, Parameter, Result, UpdateKind};
use std::collections::BTreeMap;
use striate_kernels::reference::{Float, reference_update};

/// Computes all updates in the order in which they were traced, each on the cells as the ones before left them, then writes
/// the cells: an error leaves every cell as it was.
pub(super) fn apply(run: &Run) -> Result<()> {
    let mut written: BTreeMap<usize, Array> = BTreeMap::new();
    for id in &run.graph.updates {
        let node = run.graph.node(*id);
        let Op::Update { kind, slot, state } = &node.op else {
            return Err(Error::Internal(format!("%{} is among the updates but is {}", id.0, node.op.name())));
        };
        let slots: Vec<usize> = std::iter::once(*slot).chain(state.iter().copied()).collect();
        let mut cells: Vec<Array> = slots
            .iter()
            .map(|slot| written.get(slot).cloned().unwrap_or_else(|| run.parameters[*slot].clone()))
            .collect();
        let update = Update::check(run, node, *kind, &slots, &cells)?;
        match run.options.precision.promote(cells[0].dtype()) {
            DType::F32 | DType::F16 | DType::BF16 => update.run::<f32>(&mut cells)?,
            _ => update.run::<f64>(&mut cells)?,
        }
        written.extend(slots.into_iter().zip(cells));
    }
    for (slot, array) in written {
        run.graph.parameters[slot].set(array)?;
    }
    Ok(())
}

struct Update<'a> {
    kind: UpdateKind,
    value: &'a Array,
    hyper: &'a Array,
    scale: Option<&'a Array>,
}

impl<'a> Update<'a> {
    /// The inputs and cells fit the rule.
    fn check(run: &'a Run, node: &Node, kind: UpdateKind, slots: &[usize], cells: &[Array]) -> Result<Self> {
        let value = run.value(node.inputs[0])?;
        let hyper = run.value(node.inputs[1])?;
        let scale = node.inputs.get(2).map(|id| run.value(*id)).transpose()?;
        let cell = |index: usize| -> &Parameter { &run.graph.parameters[slots[index]] };
        for (index, array) in cells.iter().enumerate() {
            if array.shape() != value.shape() {
                return Err(Error::Mismatch {
                    what: format!("an update of parameter `{}` touches `{}`", cell(0).name(), cell(index).name()),
                    expected: value.shape().clone(),
                    expected_dtype: value.dtype(),
                    got: array.shape().clone(),
                    got_dtype: array.dtype(),
                });
            }
        }
        let name = cell(0).name();
        let wrong = |what: &str, expected: usize, got: usize| {
            Err(Error::Internal(format!("{kind:?} of `{name}` needs {expected} {what}, {got} were given")))
        };
        if cells.len() - 1 != kind.state_count() {
            return wrong("state cells", kind.state_count(), cells.len() - 1);
        }
        if hyper.numel() < kind.hyper_count() {
            return wrong("hyper-parameters", kind.hyper_count(), hyper.numel());
        }
        match scale.map(Array::numel) {
            None | Some(1) => Ok(Update { kind, value, hyper, scale }),
            Some(got) => wrong("scale", 1, got),
        }
    }

    fn run<T: Float + Element>(&self, cells: &mut [Array]) -> Result<()> {
        let mut data: Vec<Vec<T>> = cells.iter().map(|cell| floats::<T>(cell).into_owned()).collect();
        let (values, hyper) = (floats::<T>(self.value), floats::<T>(self.hyper));
        let scale = self.scale.map_or(T::ONE, |scale| floats::<T>(scale)[0]);
        let mut slices = data.iter_mut().map(Vec::as_mut_slice);
        if let Some(parameter) = slices.next() {
            let mut state: Vec<&mut [T]> = slices.collect();
            reference_update(self.kind, &hyper, scale, parameter, &values, &mut state);
        }
        for (cell, values) in cells.iter_mut().zip(data) {
            *cell = cast(&Array::from_vec(cell.shape(), values)?, cell.dtype());
        }
        Ok(())
    }
}
