//! State dicts: named arrays in order.

use crate::{Error, Result};
use std::collections::{HashMap, HashSet};
use striate_graph::{Array, Parameter, nearest};

/// Named arrays in the order in which they were put in, as `module.state_dict()` gives them.
///
/// ```
/// use striate_nn::{Linear, Module};
/// let dict = Linear::new(3, 2).state_dict();
/// assert_eq!(dict.keys().collect::<Vec<_>>(), ["weight", "bias"]);
/// assert_eq!(dict["weight"].shape().dims(), &[2, 3]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct StateDict {
    entries: Vec<(String, Array)>,
    places: HashMap<String, usize>,
}

impl StateDict {
    /// Without entries.
    pub fn new() -> StateDict {
        StateDict::default()
    }

    /// Puts an entry at the end, or replaces the one of this name where it stands.
    pub fn insert(&mut self, name: impl Into<String>, array: Array) {
        let name = name.into();
        match self.places.get(&name) {
            Some(&place) => self.entries[place].1 = array,
            None => {
                self.places.insert(name.clone(), self.entries.len());
                self.entries.push((name, array));
            }
        }
    }

    /// The array of a name.
    pub fn get(&self, name: &str) -> Option<&Array> {
        self.places.get(name).map(|&place| &self.entries[place].1)
    }

    /// Whether there is an entry of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The names, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| name.as_str())
    }

    /// Names and arrays, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Array)> {
        self.entries.iter().map(|(name, array)| (name.as_str(), array))
    }
}

impl FromIterator<(String, Array)> for StateDict {
    fn from_iter<I: IntoIterator<Item = (String, Array)>>(entries: I) -> StateDict {
        let mut dict = StateDict::new();
        entries.into_iter().for_each(|(name, array)| dict.insert(name, array));
        dict
    }
}

impl IntoIterator for StateDict {
    type Item = (String, Array);
    type IntoIter = std::vec::IntoIter<(String, Array)>;
    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl std::ops::Index<&str> for StateDict {
    type Output = Array;
    /// # Panics
    /// Where there is no such entry; [`StateDict::get`] does not.
    fn index(&self, name: &str) -> &Array {
        self.get(name).unwrap_or_else(|| panic!("the state dict has no entry `{name}`"))
    }
}

/// What [`crate::Module::load_state_dict`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Names of the module that the dict lacks.
    pub missing: Vec<String>,
    /// Names of the dict that the module lacks.
    pub unexpected: Vec<String>,
}

fn did_you_mean<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    nearest(name, candidates).map(|c| format!("; did you mean `{c}`?")).unwrap_or_default()
}

pub(crate) fn load(cells: &[(String, Parameter)], dict: &StateDict, strict: bool) -> Result<LoadReport> {
    let known: HashSet<&str> = cells.iter().map(|(name, _)| name.as_str()).collect();
    let missing: Vec<String> =
        cells.iter().filter(|(name, _)| !dict.contains(name)).map(|(name, _)| name.clone()).collect();
    let unexpected: Vec<String> = dict.keys().filter(|key| !known.contains(key)).map(str::to_owned).collect();

    let mut problems = Vec::new();
    if strict {
        // Files older than num_batches_tracked are complete all the same.
        for name in missing.iter().filter(|name| !name.ends_with("num_batches_tracked")) {
            let hint = did_you_mean(name, unexpected.iter().map(String::as_str));
            problems.push(format!("missing: `{name}` is not in the state dict{hint}"));
        }
        for name in &unexpected {
            let hint = did_you_mean(name, missing.iter().map(String::as_str));
            problems.push(format!("unexpected: the module has no `{name}`{hint}"));
        }
    }
    for (name, cell) in cells {
        let Some(array) = dict.get(name) else { continue };
        if *array.shape() != cell.shape() {
            problems.push(format!("mismatched: `{name}` is {} here, {} in the dict", cell.shape(), array.shape()));
        } else if array.dtype().is_float() != cell.dtype().is_float() {
            problems.push(format!("mismatched: `{name}` is {} here, {} in the dict", cell.dtype(), array.dtype()));
        }
    }
    if !problems.is_empty() {
        return Err(Error::StateDict { problems });
    }
    for (name, cell) in cells {
        if let Some(array) = dict.get(name) {
            cell.set(array.cast(cell.dtype()))?;
        }
    }
    Ok(LoadReport { missing, unexpected })
}
