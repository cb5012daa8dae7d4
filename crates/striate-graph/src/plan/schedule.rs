//! The order of steps. The graph's own order serves, but for updates: each moves up to the first place where its value is
//! final, nothing later reads the old value of its cells, and the guarded loss is known to be finite.

use super::step::{Kernel, Step};
use super::value::{Place, Value};
use std::collections::{HashMap, HashSet};

/// Orders the steps.
pub(crate) fn schedule(steps: Vec<Step>, values: &[Value]) -> Vec<Step> {
    let (updates, others): (Vec<Step>, Vec<Step>) =
        steps.into_iter().partition(|step| matches!(step.kernel, Kernel::Update { .. }));
    // The last step that writes a buffer, reads a cell, or guards.
    let mut written: HashMap<Storage, usize> = HashMap::new();
    let mut read: HashMap<usize, usize> = HashMap::new();
    let mut guard = 0;
    for (index, step) in others.iter().enumerate() {
        step.writes.iter().for_each(|value| _ = written.insert(storage(&values[value.index()]), index));
        cells_read(step, values).for_each(|cell| _ = read.insert(cell, index));
        if matches!(step.kernel, Kernel::Guard) {
            guard = index;
        }
    }
    // A cell that an update reads (a moving average of a parameter) must not be written before.
    let shared: HashSet<usize> = updates.iter().flat_map(|update| cells_read(update, values)).collect();
    let mut after: Vec<Vec<Step>> = (0..others.len().max(1)).map(|_| Vec::new()).collect();
    let end = after.len() - 1;
    for update in updates {
        let made = update.reads.iter().filter_map(|value| written.get(&storage(&values[value.index()])));
        let free = cells_written(&update).filter_map(|cell| read.get(&cell));
        let ready = made.chain(free).copied().max().unwrap_or(0).max(guard);
        let place = if cells_written(&update).any(|cell| shared.contains(&cell)) { end } else { ready };
        after[place].push(update);
    }
    after[end].sort_by_key(|update| cells_written(update).any(|cell| shared.contains(&cell)));
    let mut ordered = Vec::with_capacity(others.len());
    let mut others = others.into_iter();
    for mut updates in after {
        ordered.extend(others.next());
        ordered.append(&mut updates);
    }
    ordered
}

/// What is shared by a value and its aliases.
#[derive(PartialEq, Eq, Hash)]
enum Storage {
    Buffer(usize),
    Place(Place),
}

fn storage(value: &Value) -> Storage {
    match value.place {
        Place::Buffer { buffer, .. } => Storage::Buffer(buffer),
        place => Storage::Place(place),
    }
}

fn cells_written(update: &Step) -> impl Iterator<Item = usize> + '_ {
    let (slot, state): (Option<usize>, &[usize]) = match &update.kernel {
        Kernel::Update { slot, state, .. } => (Some(*slot), state),
        _ => (None, &[]),
    };
    slot.into_iter().chain(state.iter().copied())
}

/// The cells whose values a step reads.
fn cells_read<'a>(step: &'a Step, values: &'a [Value]) -> impl Iterator<Item = usize> + 'a {
    let direct = step.reads.iter().filter_map(|value| match values[value.index()].place {
        Place::Parameter(slot) => Some(slot),
        _ => None,
    });
    direct.chain(step.cells.iter().copied())
}
