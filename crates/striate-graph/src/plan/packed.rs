//! What is packed or folded from parameters: kept beside the first cell, shared by all programs, remade when a version
//! changes.

use crate::Parameter;
use std::sync::{Arc, RwLock, Weak};
use striate_kernels::mem::AlignedBuf;

/// A packed form of some cells.
#[derive(Debug, Default)]
pub(crate) struct Packed(RwLock<Contents>);

/// The buffers, and the versions of the cells from which they were made.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    versions: Vec<u64>,
    /// Packed weights.
    pub weights: AlignedBuf,
    /// The bias that goes with them, where folding makes one.
    pub bias: AlignedBuf,
}

impl Packed {
    /// Calls `with` with contents made from exactly these versions; `pack` makes them where they are not there yet.
    pub fn read<R>(&self, versions: &[u64], pack: impl FnOnce(&mut Contents), with: impl FnOnce(&Contents) -> R) -> R {
        {
            let contents = self.0.read().expect("no holder panics");
            if contents.versions == versions && !contents.versions.is_empty() {
                return with(&contents);
            }
        }
        let mut contents = self.0.write().expect("no holder panics");
        if contents.versions != versions || contents.versions.is_empty() {
            pack(&mut contents);
            contents.versions.clear();
            contents.versions.extend_from_slice(versions);
        }
        // Under the write lock still: another session could otherwise repack between the locks.
        with(&contents)
    }
}

/// The packed forms that hang on a cell, by what was done to it. Weak, so that they go with the last program that uses them.
#[derive(Default)]
pub(crate) struct PackedForms(Vec<(String, Vec<usize>, Weak<Packed>)>);

impl PackedForms {
    /// The form of that recipe made from those cells, shared with whoever has it already.
    pub fn get(&mut self, recipe: &str, cells: &[usize]) -> Arc<Packed> {
        self.0.retain(|(_, _, form)| form.strong_count() > 0);
        let known = self.0.iter().find(|(r, c, _)| r == recipe && c == cells).and_then(|(_, _, form)| form.upgrade());
        known.unwrap_or_else(|| {
            let form = Arc::new(Packed::default());
            self.0.push((recipe.to_owned(), cells.to_vec(), Arc::downgrade(&form)));
            form
        })
    }
}

/// The form of `recipe` made from `cells`, kept beside the first of them.
pub(crate) fn packed_form(recipe: &str, cells: &[&Parameter]) -> Arc<Packed> {
    let ids: Vec<usize> = cells.iter().map(|cell| cell.id()).collect();
    match cells.first() {
        Some(first) => first.with_packed(|forms| forms.get(recipe, &ids)),
        None => Arc::new(Packed::default()),
    }
}
