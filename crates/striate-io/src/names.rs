//! Names of arrays in a file, and those of a net.

use crate::error::printable;
use std::collections::HashSet;
use striate_nn::{Module, StateDict};

/// Takes the names of a dict to those of a net, as far as they differ only in what wrappers put in front (`module.` of
/// DataParallel, `model.` of trainers, `_orig_mod.` of compiled modules), and leaves out counters of batches that the net does not
/// count. Gives the dict and a sentence on each thing that was done.
///
/// ```
/// use striate_nn::{Linear, Module, StateDict};
/// let net = Linear::new(3, 2);
/// let wrapped: StateDict = net.state_dict().into_iter().map(|(name, a)| (format!("module.{name}"), a)).collect();
/// let (dict, notes) = striate_io::fit_names(wrapped, &net);
/// assert_eq!(dict.keys().collect::<Vec<_>>(), ["weight", "bias"]);
/// assert!(notes[0].contains("`module.`"));
/// ```
pub fn fit_names(dict: StateDict, net: &dyn Module) -> (StateDict, Vec<String>) {
    let own = net.state_dict();
    let mut notes = Vec::new();
    let hits = |prefix: &str| own.keys().filter(|name| dict.contains(&format!("{prefix}{name}"))).count();
    let plain = hits("");
    let prefixes: HashSet<&str> = match own.keys().next() {
        Some(first) if plain < own.len() => dict.keys().filter_map(|key| key.strip_suffix(first)).collect(),
        _ => HashSet::new(),
    };
    let mut prefixes: Vec<&str> = prefixes.into_iter().filter(|p| p.ends_with('.')).collect();
    prefixes.sort_by_key(|prefix| (prefix.len(), *prefix));
    prefixes.truncate(64);
    let mut best = ("", plain);
    for prefix in prefixes {
        let found = hits(prefix);
        if found > best.1 {
            best = (prefix, found);
        }
    }
    let prefix = best.0.to_owned();
    if !prefix.is_empty() {
        let count = dict.keys().filter(|key| key.starts_with(&prefix)).count();
        notes.push(format!("took `{}` off {count} of {} names", printable(&prefix), dict.len()));
    }
    let mut fitted = StateDict::new();
    let mut counters = 0;
    for (key, array) in dict {
        let name = key.strip_prefix(&prefix).unwrap_or(&key);
        if name.rsplit('.').next() == Some("num_batches_tracked") && !own.contains(name) {
            counters += 1;
        } else {
            fitted.insert(name, array);
        }
    }
    if counters > 0 {
        notes.push(format!("left out {counters} num_batches_tracked, which the net does not count"));
    }
    (fitted, notes)
}
