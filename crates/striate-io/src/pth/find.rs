//! Which of a pickle's values are the weights.

use super::tensor::TensorRef;
use super::value::{Id, Pickle, Value};
use crate::error::printable;
use crate::{Error, Result};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::Path;

/// Under which names checkpoints keep their state dict, the likeliest first.
const PLACES: [&str; 26] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "net_state_dict",
    "weights",
    "params",
    "parameters",
    "state",
    "model_dict",
    "ema",
    "state_dict_ema",
    "ema_state_dict",
    "ema_model",
    "model_ema",
    "model_ema_state_dict",
    "params_ema",
    "shadow",
    "student",
    "teacher",
    "encoder",
    "backbone",
    "generator",
];
/// How deep a state dict may lie.
const MAX_DEPTH: usize = 8;
/// Most members of a container that is searched where no state dict is found by name.
const MAX_MEMBERS: usize = 1 << 18;
/// Most tensors that are taken, and most bytes that their names and sizes may need.
const MAX_ARRAYS: usize = 65_536;
const MAX_DIRECTORY: usize = 16 << 20;
/// Longest name, in bytes.
const MAX_NAME: usize = 1024;
/// Most values of unknown classes that are named.
const MAX_UNKNOWN: usize = 256;
/// The attribute of the dict in which our own writer keeps metadata.
pub(super) const METADATA: &str = "striate";

/// The weights of a pickle.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub tensors: Vec<(String, TensorRef)>,
    pub metadata: BTreeMap<String, String>,
    pub notes: Vec<String>,
    /// Where values of unknown classes stand, and their classes.
    pub unknown: Vec<(String, String)>,
    /// Bytes for names and sizes.
    directory: usize,
}

/// Finds the tensors of a pickle: those of its state dict, or else all that it has.
pub(super) fn find_tensors(path: &Path, pickle: &Pickle<'_>) -> Result<Found> {
    let is_tensor = |id: Id| is_tensor(pickle, id);
    let holds = |value: &Value| matches!(value, Value::Dict(items) if items.iter().any(|(_, value)| is_tensor(*value)));
    let finder = Finder { path, pickle, with_tensors: pickle.values.iter().map(holds).collect() };
    let mut trail = Vec::new();
    let mut at = pickle.root;
    let mut left_out = Vec::new();
    while let Some((name, next)) = finder.next_place(at).filter(|_| trail.len() < MAX_DEPTH) {
        finder.others(at, Some(next), &mut left_out);
        trail.push(name);
        at = next;
    }
    let mut found = Found { metadata: finder.metadata(at), unknown: finder.unknown(), ..Found::default() };
    if finder.has_tensors(at) {
        finder.take_direct(at, &trail, &mut found, &mut left_out)?;
    } else {
        finder.take_all(at, &mut found)?;
        if found.tensors.is_empty() {
            return Err(finder.nothing(at));
        }
        if found.tensors.len() > 1 {
            found.notes.push("no state dict is there by name: all tensors are taken, under their paths".into());
        }
    }
    if !trail.is_empty() {
        found.notes.push(format!("the weights are those of `{}`", printable(&trail.join("."))));
    }
    if !left_out.is_empty() {
        found.notes.push(format!("left out: {}", shorten(&left_out)));
    }
    Ok(found)
}

fn shorten(names: &[String]) -> String {
    let more = names.len().saturating_sub(8);
    let shown = names[..names.len() - more].join(", ");
    let shown = printable(&shown);
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

struct Finder<'a> {
    path: &'a Path,
    pickle: &'a Pickle<'a>,
    /// Of each value, whether it is a dict with tensors in it.
    with_tensors: Vec<bool>,
}

fn is_tensor(pickle: &Pickle<'_>, id: Id) -> bool {
    matches!(pickle.value(id), Value::Call(global, _) if global.makes_tensor())
}

impl Finder<'_> {
    fn is_tensor(&self, id: Id) -> bool {
        is_tensor(self.pickle, id)
    }

    fn has_tensors(&self, id: Id) -> bool {
        self.with_tensors[id.0 as usize]
    }

    /// The member of a dict that leads to a state dict.
    fn next_place(&self, at: Id) -> Option<(String, Id)> {
        let mut seen = HashSet::from([at]);
        if let Some(next) = self.by_name(at, MAX_DEPTH, &mut seen) {
            return Some(next);
        }
        if self.has_tensors(at) {
            return None;
        }
        // by another name, if it is the only one
        let mut dicts = self.pickle.dict(at)?.iter().filter(|(_, value)| *value != at && self.has_tensors(*value));
        let (key, value) = dicts.next()?;
        match dicts.next() {
            None => Some((self.key(*key)?, *value)),
            Some(_) => None,
        }
    }

    fn by_name(&self, at: Id, depth: usize, seen: &mut HashSet<Id>) -> Option<(String, Id)> {
        let dicts = self.pickle.dict(at)?.iter().filter(|(_, value)| self.pickle.dict(*value).is_some());
        let mut places = [None; PLACES.len()];
        for (key, value) in dicts.take(MAX_ARRAYS) {
            let rank = self.pickle.text(*key).and_then(|key| PLACES.iter().position(|place| *place == key));
            if let Some(rank) = rank {
                places[rank] = Some(*value);
            }
        }
        let mut leads = |value: &Id| {
            seen.insert(*value)
                && (self.has_tensors(*value) || (depth > 0 && self.by_name(*value, depth - 1, seen).is_some()))
        };
        let (rank, value) = places.iter().enumerate().find_map(|(rank, id)| Some((rank, (*id).filter(&mut leads)?)))?;
        Some((PLACES[rank].to_owned(), value))
    }

    fn key(&self, id: Id) -> Option<String> {
        match self.pickle.value(id) {
            Value::Int(number) => Some(number.to_string()),
            _ => self.pickle.text(id).filter(|text| text.len() <= MAX_NAME).map(str::to_owned),
        }
    }

    /// Notes the members of a dict that are not followed.
    fn others(&self, at: Id, taken: Option<Id>, left_out: &mut Vec<String>) {
        for (key, value) in self.pickle.dict(at).into_iter().flatten().filter(|(_, value)| Some(*value) != taken) {
            if left_out.len() < 1000 {
                let key = self.key(*key).unwrap_or_else(|| self.pickle.describe(*key));
                let what = if self.is_tensor(*value) { "a tensor".into() } else { self.pickle.describe(*value) };
                left_out.push(format!("`{key}` ({what})"));
            }
        }
    }

    /// Where values of unknown classes stand. Each container is looked at once.
    fn unknown(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut seen = HashSet::from([self.pickle.root]);
        let mut open = VecDeque::from([(String::new(), self.pickle.root, 0)]);
        let mut budget = MAX_DIRECTORY / 4;
        while let Some((name, id, depth)) = open.pop_front() {
            if let Value::Opaque(class) | Value::Class(class) = self.pickle.value(id) {
                found.push((printable(&name), printable(&self.pickle.name(**class))));
            }
            if found.len() == MAX_UNKNOWN || depth == MAX_DEPTH {
                continue;
            }
            let part = |index: usize, key: Option<Id>| match key {
                Some(key) => self.key(key).unwrap_or_else(|| self.pickle.describe(key)),
                None => index.to_string(),
            };
            let members: Box<dyn Iterator<Item = (Option<Id>, Id)>> = match self.pickle.value(id) {
                Value::Dict(items) => Box::new(items.iter().map(|(key, value)| (Some(*key), *value))),
                Value::Tuple(items) => Box::new(items.iter().map(|item| (None, *item))),
                Value::List(items) => Box::new(items.iter().map(|item| (None, *item))),
                _ => continue,
            };
            for (index, (key, value)) in members.enumerate() {
                let open_end = matches!(
                    self.pickle.value(value),
                    Value::Opaque(_) | Value::Class(_) | Value::Dict(_) | Value::Tuple(_) | Value::List(_)
                );
                if !open_end || !seen.insert(value) {
                    continue;
                }
                let part = part(index, key);
                let name = if name.is_empty() { part } else { format!("{name}.{part}") };
                let Some(left) = budget.checked_sub(name.len() + 64) else { return found };
                budget = left;
                open.push_back((name, value, depth + 1));
            }
        }
        found.truncate(MAX_UNKNOWN);
        found
    }

    /// What our own writer put beside the arrays.
    fn metadata(&self, at: Id) -> BTreeMap<String, String> {
        let member = |id: Id, name: &str| {
            self.pickle.dict(id)?.iter().find(|(key, _)| self.pickle.text(*key) == Some(name)).map(|(_, value)| *value)
        };
        let ours = self.pickle.attributes.get(&at).and_then(|state| member(*state, METADATA));
        let pairs = ours.and_then(|ours| self.pickle.dict(ours)).unwrap_or_default();
        let text = |id: &Id| self.pickle.text(*id).map(str::to_owned);
        pairs.iter().filter_map(|(key, value)| Some((text(key)?, text(value)?))).collect()
    }

    fn add(&self, found: &mut Found, name: String, id: Id) -> Result<()> {
        if found.tensors.len() == MAX_ARRAYS {
            return Err(Error::too_large(self.path, "the number of arrays", MAX_ARRAYS as u64 + 1, MAX_ARRAYS as u64));
        }
        let tensor = TensorRef::parse(self.pickle, id).map_err(|why| Error::array(self.path, &name, why))?;
        self.count(found, name.len() + tensor.weight())?;
        found.tensors.push((name, tensor));
        Ok(())
    }

    fn count(&self, found: &mut Found, bytes: usize) -> Result<()> {
        found.directory += bytes;
        if found.directory > MAX_DIRECTORY {
            let what = "the bytes of the names and sizes of all arrays";
            return Err(Error::too_large(self.path, what, found.directory as u64, MAX_DIRECTORY as u64));
        }
        Ok(())
    }

    /// The tensors of a dict, and what else is in it.
    fn take_direct(&self, at: Id, trail: &[String], found: &mut Found, left_out: &mut Vec<String>) -> Result<()> {
        for (key, value) in self.pickle.dict(at).into_iter().flatten() {
            let Some(name) = self.key(*key) else {
                let key = self.pickle.describe(*key);
                let why = format!("the state dict has a key that is no text of at most {MAX_NAME} bytes: {key}");
                return Err(Error::malformed(self.path, "pth", why));
            };
            if self.is_tensor(*value) {
                self.add(found, name, *value)?;
                continue;
            }
            let what = self.pickle.describe(*value);
            if let Value::Opaque(_) | Value::Class(_) = self.pickle.value(*value)
                && (!trail.is_empty() || name.contains('.'))
                && !name.ends_with("_extra_state")
            {
                let why = format!("it is made by {what}, which is not known and was not called; save a plain tensor");
                return Err(Error::array(self.path, &name, why));
            }
            if left_out.len() < 1000 {
                left_out.push(format!("`{name}` ({what})"));
            }
        }
        Ok(())
    }

    /// Every tensor below a value, named by its path.
    fn take_all(&self, root: Id, found: &mut Found) -> Result<()> {
        let mut open = vec![(String::new(), root, 0)];
        while let Some((name, id, depth)) = open.pop() {
            if self.is_tensor(id) {
                let name = if name.is_empty() { "array".to_owned() } else { name };
                self.add(found, name, id)?;
                continue;
            }
            let join = |part: String| if name.is_empty() { part } else { format!("{name}.{part}") };
            let members: Vec<(String, Id)> = match self.pickle.value(id) {
                _ if depth == MAX_DEPTH => continue,
                Value::Dict(items) if items.len() <= MAX_MEMBERS => {
                    items.iter().filter_map(|(key, value)| Some((self.key(*key)?, *value))).collect()
                }
                Value::Tuple(items) if items.len() <= MAX_MEMBERS => numbered(items),
                Value::List(items) if items.len() <= MAX_MEMBERS => numbered(items),
                _ => continue,
            };
            let containers = |value: &Value| matches!(value, Value::Dict(_) | Value::Tuple(_) | Value::List(_));
            // the last in is the first out
            for (part, value) in members.into_iter().rev() {
                if self.is_tensor(value) || containers(self.pickle.value(value)) {
                    let name = join(part);
                    self.count(found, name.len() + 64)?;
                    open.push((name, value, depth + 1));
                }
            }
        }
        Ok(())
    }

    /// Why there are no weights.
    fn nothing(&self, at: Id) -> Error {
        let instead = "in Python, with its code at hand: torch.save(model.state_dict(), \"weights.pth\")";
        let object = |id: Id| match self.pickle.value(id) {
            Value::Opaque(name) | Value::Class(name) => Some(self.pickle.name(**name)),
            _ => None,
        };
        if let Some(class) = object(at) {
            let what = format!("a pickled object of {class}, in place of a state dict,");
            return Error::unsupported(self.path, what, instead);
        }
        for (key, value) in self.pickle.dict(at).into_iter().flatten() {
            let key = self.key(*key).unwrap_or_default();
            if let Some(class) = object(*value).filter(|_| PLACES.contains(&key.as_str())) {
                let what = format!("a pickled object of {class}, in place of a state dict under `{key}`,");
                return Error::unsupported(self.path, what, instead);
            }
        }
        let mut members = Vec::new();
        self.others(at, None, &mut members);
        let why = match members.is_empty() {
            true => format!("there is no tensor in it; it holds {}", self.pickle.describe(at)),
            false => format!("there is no tensor in it; it holds {}", shorten(&members)),
        };
        Error::malformed(self.path, "pth", why)
    }
}

fn numbered(items: &[Id]) -> Vec<(String, Id)> {
    items.iter().enumerate().map(|(index, item)| (index.to_string(), *item)).collect()
}
