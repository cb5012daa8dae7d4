//! Tensors: from what the pickle says of them to arrays.

use super::globals::{Element, Global};
use super::value::{Id, Pickle, Value};
use crate::bytes::{self, MAX_RANK, Stored};
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;
use striate_graph::Array;
use striate_nn::StateDict;

/// What the arrays of a file may come to beyond four times its size, in bytes. A view with a stride of zero can be as large as it
/// likes on one stored element.
const FREE: u64 = 16 << 20;

/// Longest key of a storage, in bytes.
const MAX_KEY: usize = 256;

/// A storage, as a pickle refers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StorageRef {
    pub key: String,
    /// Nothing for untyped ones, which are bytes.
    pub element: Option<Element>,
    /// Its bytes.
    pub bytes: u64,
    /// Where the part begins that is referred to, in elements.
    pub begin: u64,
}

impl StorageRef {
    pub(super) fn parse(pickle: &Pickle<'_>, id: Id) -> Result<StorageRef, String> {
        let wrong = |what: &str| Err(format!("its storage is not referred to as PyTorch does: {what}"));
        let Some([tag, kind, key, _place, numel, view @ ..]) = pickle.tuple(id) else {
            return wrong(&pickle.describe(id));
        };
        if pickle.text(*tag) != Some("storage") {
            return wrong("the first word is not `storage`");
        }
        let element = match pickle.value(*kind) {
            Value::Global(Global::Storage(element)) => Some(*element),
            Value::Global(Global::Untyped) => None,
            _ => return wrong(&format!("{} is no class of storages", pickle.describe(*kind))),
        };
        let Some(key) = pickle.text(*key).filter(|key| key.len() <= MAX_KEY) else {
            return wrong(&format!("its key is not text of at most {MAX_KEY} bytes"));
        };
        let Some(numel) = as_size(pickle, *numel) else {
            return wrong(&format!("{} elements", pickle.describe(*numel)));
        };
        let Some(bytes) = (numel as u64).checked_mul(element.map_or(1, |e| e.size() as u64)) else {
            return wrong(&format!("{numel} elements are more than any memory"));
        };
        let begin = match view.first().and_then(|view| pickle.tuple(*view)) {
            Some([_, begin, _]) => match as_size(pickle, *begin) {
                Some(begin) => begin as u64,
                None => return wrong(&format!("a view from {}", pickle.describe(*begin))),
            },
            _ => 0,
        };
        Ok(StorageRef { key: key.to_owned(), element, bytes, begin })
    }
}

/// A tensor, checked against the size that its storage declares.
#[derive(Clone, Debug)]
pub(super) struct TensorRef {
    pub storage: StorageRef,
    stored: Stored,
    /// In elements.
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

fn as_size(pickle: &Pickle<'_>, id: Id) -> Option<usize> {
    match pickle.value(id) {
        Value::Int(value) => usize::try_from(*value).ok(),
        _ => None,
    }
}

impl TensorRef {
    /// What a call to one of PyTorch's functions says, or why it says nothing.
    pub(super) fn parse(pickle: &Pickle<'_>, mut id: Id) -> Result<TensorRef, String> {
        // a parameter is a tensor in a wrapper, seldom in two
        for _ in 0..8 {
            let Value::Call(global, arguments) = *pickle.value(id) else {
                return Err(format!("{} is no tensor", pickle.describe(id)));
            };
            let arguments = pickle.tuple(arguments).ok_or("its arguments are no tuple")?;
            let missing = || format!("{} with {} arguments", global.name(), arguments.len());
            match global {
                Global::Tensor | Global::TensorOfType => return TensorRef::of(pickle, global, arguments),
                Global::Parameter => id = *arguments.first().ok_or_else(missing)?,
                Global::FromType => {
                    let [function, class, inner, ..] = arguments else { return Err(missing()) };
                    let Value::Global(function) = pickle.value(*function) else {
                        return Err(format!("it is made by {}, which is not known", pickle.describe(*function)));
                    };
                    if !matches!(pickle.value(*class), Value::Global(Global::TensorClass)) {
                        return Err(format!("it is of the class {}, which is not known", pickle.describe(*class)));
                    }
                    let arguments = pickle.tuple(*inner).ok_or("its arguments are no tuple")?;
                    match function {
                        Global::Tensor | Global::TensorOfType => return TensorRef::of(pickle, *function, arguments),
                        Global::Parameter => id = *arguments.first().ok_or_else(missing)?,
                        other => return Err(format!("{} makes no tensor", other.name())),
                    }
                }
                other => return Err(format!("{} makes no tensor", other.name())),
            }
        }
        Err("a tensor in a parameter in a parameter, and so on".into())
    }

    fn of(pickle: &Pickle<'_>, global: Global, arguments: &[Id]) -> Result<TensorRef, String> {
        let [storage, offset, size, stride, rest @ ..] = arguments else {
            return Err(format!("{} with {} arguments", global.name(), arguments.len()));
        };
        let Value::Persistent(reference) = *pickle.value(*storage) else {
            return Err(format!("its storage is {}", pickle.describe(*storage)));
        };
        let storage = StorageRef::parse(pickle, reference)?;
        let element = match (global, storage.element) {
            (Global::TensorOfType, _) => match rest.get(2).map(|dtype| pickle.value(*dtype)) {
                Some(Value::Global(Global::DType(element))) => *element,
                _ => return Err(format!("{} without a dtype", global.name())),
            },
            (_, Some(element)) => element,
            (_, None) => return Err("its storage has no dtype".into()),
        };
        let stored = match element {
            Element::Known(stored) => stored,
            Element::Other(name, _) => return Err(format!("dtype {name} is not supported; convert it to float32")),
        };
        let sizes = |id: Id, what: &str| -> Result<Vec<usize>, String> {
            let items = pickle.tuple(id).ok_or_else(|| format!("its {what} is {}", pickle.describe(id)))?;
            if items.len() > MAX_RANK {
                return Err(format!("{} axes, at most {MAX_RANK} are accepted", items.len()));
            }
            let parse = |item: &Id| {
                as_size(pickle, *item).ok_or_else(|| format!("its {what} has {} in it", pickle.describe(*item)))
            };
            items.iter().map(parse).collect()
        };
        let offset = as_size(pickle, *offset).ok_or_else(|| format!("its offset is {}", pickle.describe(*offset)))?;
        let offset = offset.checked_add(storage.begin as usize).ok_or("its offset is beyond any memory")?;
        let tensor =
            TensorRef { stored, offset, shape: sizes(*size, "size")?, strides: sizes(*stride, "stride")?, storage };
        tensor.check()?;
        Ok(tensor)
    }

    fn check(&self) -> Result<(), String> {
        let (shape, strides) = (&self.shape, &self.strides);
        if shape.len() != strides.len() {
            return Err(format!("{} sizes, but {} strides", shape.len(), strides.len()));
        }
        bytes::check_shape(shape, self.stored)?;
        let has = self.storage.bytes / self.stored.size() as u64;
        let last = shape.iter().zip(strides).try_fold(self.offset, |last, (&size, &stride)| {
            last.checked_add(stride.checked_mul(size.saturating_sub(1))?)
        });
        match last {
            _ if shape.contains(&0) => Ok(()),
            Some(last) if (last as u64) < has => Ok(()),
            _ => {
                let offset = self.offset;
                Err(format!(
                    "size {shape:?} with strides {strides:?} from element {offset} does not fit into the {has} elements of storage `{}`",
                    self.storage.key
                ))
            }
        }
    }

    /// What it takes to remember it, in bytes.
    pub(super) fn weight(&self) -> usize {
        size_of::<TensorRef>() + self.storage.key.len() + 16 * self.shape.len()
    }

    fn byte_len(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64 * self.stored.size() as u64
    }

    /// Its array, out of the bytes of its storage.
    fn array(&self, storage: &[u8], big_endian: bool) -> Result<Array, String> {
        let size = self.stored.size();
        if self.shape.contains(&0) {
            return bytes::decode(self.stored, &self.shape, &[], big_endian);
        }
        let part = storage.get(self.offset * size..).ok_or("its storage is too short")?;
        let mut dense = 1;
        let mut contiguous = true;
        for (&size, &stride) in self.shape.iter().zip(&self.strides).rev() {
            contiguous &= size == 1 || stride == dense;
            dense *= size;
        }
        if contiguous {
            let part = part.get(..dense * size).ok_or("its storage is too short")?;
            return bytes::decode(self.stored, &self.shape, part, big_endian);
        }
        bytes::decode(self.stored, &self.shape, &bytes::gather(part, &self.shape, &self.strides, size), big_endian)
    }
}

/// Where the bytes of storages come from.
pub(super) trait Storages {
    /// All bytes of a storage; `array` names one that needs it.
    fn read(&mut self, storage: &StorageRef, array: &str) -> Result<Vec<u8>>;
    /// Whether elements lie the other way round.
    fn big_endian(&self) -> bool;
}

/// Offset, shape and strides.
type Place<'a> = (usize, &'a [usize], &'a [usize]);

/// The arrays. Each storage is read once, and not kept.
pub(super) fn read_arrays(
    path: &Path,
    tensors: &[(String, TensorRef)],
    length: u64,
    source: &mut dyn Storages,
) -> Result<StateDict> {
    let limit = length.saturating_mul(4).saturating_add(FREE);
    let mut by_storage: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut order = Vec::new();
    let mut total = 0u64;
    for (index, (name, tensor)) in tensors.iter().enumerate() {
        total = total.saturating_add(tensor.byte_len());
        if total > limit {
            let what = format!("the bytes of all arrays, up to `{name}`,");
            return Err(Error::too_large(path, what, total, limit));
        }
        let same = by_storage.entry(&tensor.storage.key).or_default();
        match same.first().map(|first| &tensors[*first]) {
            None => order.push(&*tensor.storage.key),
            Some((other, first)) if first.storage.bytes != tensor.storage.bytes => {
                let (here, there) = (tensor.storage.bytes, first.storage.bytes);
                let key = &tensor.storage.key;
                let why = format!("its storage `{key}` has {here} bytes, for `{other}` the same has {there}");
                return Err(Error::array(path, name, why));
            }
            Some(_) => {}
        }
        same.push(index);
    }
    let mut arrays: Vec<Option<Array>> = vec![None; tensors.len()];
    for key in order {
        let users = &by_storage[key];
        let (first, tensor) = &tensors[users[0]];
        let storage = source.read(&tensor.storage, first)?;
        // tied weights are one array
        let mut made: HashMap<Place<'_>, (Stored, Array)> = HashMap::new();
        for &index in users {
            let (name, tensor) = &tensors[index];
            let place = (tensor.offset, &tensor.shape[..], &tensor.strides[..]);
            let array = match made.get(&place).filter(|(stored, _)| *stored == tensor.stored) {
                Some((_, array)) => array.clone(),
                None => tensor.array(&storage, source.big_endian()).map_err(|why| Error::array(path, name, why))?,
            };
            made.insert(place, (tensor.stored, array.clone()));
            arrays[index] = Some(array);
        }
    }
    Ok(tensors.iter().zip(arrays).filter_map(|((name, _), array)| Some((name.clone(), array?))).collect())
}
