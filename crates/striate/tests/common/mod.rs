//! Reads the fixtures that `tools/ref` makes with PyTorch; its README describes the format.

// Every test binary compiles this module for itself, and none uses all of it.
#![allow(dead_code)]

pub mod formula;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A stored tensor: little-endian bytes in row-major order.
pub struct Stored {
    /// The element type.
    pub dtype: Dtype,
    /// The shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements' bytes.
    pub bytes: Vec<u8>,
}

/// One case of a family: a PyTorch class, its arguments, and tensors by role.
pub struct Case {
    /// The file that the case came from, without its extension.
    pub family: String,
    /// The case's name, unique in its family.
    pub name: String,
    /// The PyTorch class or function.
    pub layer: String,
    /// All constructor arguments under PyTorch's names.
    pub args: Value,
    /// `train` or `eval`; `train` where the layer makes no difference between them.
    pub mode: String,
    /// What is particular about the case; may be empty.
    pub note: String,
    /// The case's whole JSON object, for the entries that only some families have.
    pub json: Value,
    /// Tensors by role, such as `x` or `grad/weight`.
    pub tensors: BTreeMap<String, Stored>,
}

/// The folder of the fixture files.
pub fn fixture_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// All cases of `fixtures/<name>.safetensors`, in the order in which the script made them.
pub fn load_family(name: &str) -> Vec<Case> {
    let path = fixture_folder().join(format!("{name}.safetensors"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let text = header.metadata().as_ref().and_then(|m| m.get("cases").cloned());
    let text = text.unwrap_or_else(|| panic!("{}: no `cases` in its metadata", path.display()));
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    cases.into_iter().map(|json| read_case(name, json, &file)).collect()
}

fn read_case(family: &str, json: Value, file: &SafeTensors) -> Case {
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_string();
    let name = text("name");
    let roles = json["tensors"].as_array().unwrap_or_else(|| panic!("{family}/{name}: no `tensors`"));
    let mut tensors = BTreeMap::new();
    for role in roles {
        let role = role.as_str().unwrap_or_else(|| panic!("{family}/{name}: a role is no string"));
        let view = file.tensor(&format!("{name}/{role}")).unwrap_or_else(|e| panic!("{family}/{name}: {role}: {e}"));
        let stored = Stored { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() };
        tensors.insert(role.to_string(), stored);
    }
    let (layer, mode, note, args) = (text("layer"), text("mode"), text("note"), json["args"].clone());
    Case { family: family.to_string(), name, layer, args, mode, note, json, tensors }
}

impl Case {
    /// Whether the case has a tensor of this role.
    pub fn has(&self, role: &str) -> bool {
        self.tensors.contains_key(role)
    }

    /// The roles that begin with `prefix`, without it: `names_under("param/")` gives `bias` and `weight`.
    pub fn names_under(&self, prefix: &str) -> Vec<String> {
        self.tensors.keys().filter_map(|role| role.strip_prefix(prefix)).map(str::to_string).collect()
    }

    /// The stored tensor of a role; names the case and its roles when there is none.
    pub fn stored(&self, role: &str) -> &Stored {
        self.tensors.get(role).unwrap_or_else(|| {
            let roles: Vec<_> = self.tensors.keys().collect();
            panic!("{}/{}: no tensor {role}; there are {roles:?}", self.family, self.name)
        })
    }

    /// The shape of a role's tensor.
    pub fn shape(&self, role: &str) -> Vec<usize> {
        self.stored(role).shape.clone()
    }

    /// Shape and values of a float32 tensor.
    pub fn f32(&self, role: &str) -> (Vec<usize>, Vec<f32>) {
        let stored = self.typed(role, Dtype::F32);
        (stored.shape.clone(), stored.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// Shape and values of a float64 tensor.
    pub fn f64(&self, role: &str) -> (Vec<usize>, Vec<f64>) {
        let stored = self.typed(role, Dtype::F64);
        (stored.shape.clone(), stored.bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect())
    }

    /// Shape and values of an int64 tensor, such as class indices or those of max pooling.
    pub fn i64(&self, role: &str) -> (Vec<usize>, Vec<i64>) {
        let stored = self.typed(role, Dtype::I64);
        (stored.shape.clone(), stored.bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect())
    }

    fn typed(&self, role: &str, dtype: Dtype) -> &Stored {
        let stored = self.stored(role);
        assert_eq!(stored.dtype, dtype, "{}/{}: the type of {role}", self.family, self.name);
        stored
    }

    /// Checks a result against PyTorch's float64 run. The largest difference, divided by the root mean square of the
    /// float64 values, may be `limit`, or three times what PyTorch's own float32 run differs by.
    pub fn check_close(&self, role: &str, shape: &[usize], got: &[f32], limit: f64) -> Result<(), String> {
        let at = format!("{}/{}: {role}", self.family, self.name);
        let (want_shape, torch) = self.f32(role);
        if want_shape != shape || torch.len() != got.len() {
            return Err(format!("{at}: shape {shape:?} ({} values) instead of {want_shape:?}", got.len()));
        }
        let exact = self.f64(&role_in_f64(role)).1;
        let (ours, theirs) = (relative_error(got, &exact), relative_error(&torch, &exact));
        // A NaN compares as false, so that it fails too.
        if ours <= limit.max(3.0 * theirs) {
            return Ok(());
        }
        let differences = got.iter().zip(&exact).map(|(g, e)| (f64::from(*g) - e).abs());
        let worst = differences.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(i, _)| i);
        Err(format!(
            "{at}: differs from float64 by {ours:.2e} of its rms (PyTorch by {theirs:.2e}, allowed {limit:.0e}); \
             worst at {worst}: {} instead of {}; arguments {}",
            got[worst], exact[worst], self.args
        ))
    }
}

/// The role of a float32 tensor's float64 twin: `y64` for `y`, `grad64/weight` for `grad/weight`.
pub fn role_in_f64(role: &str) -> String {
    match role.split_once('/') {
        Some((head, tail)) => format!("{head}64/{tail}"),
        None => format!("{role}64"),
    }
}

/// The largest difference to `exact`, relative to the root mean square of `exact`; absolute where that is zero.
/// NaN if any value of `got` is.
pub fn relative_error(got: &[f32], exact: &[f64]) -> f64 {
    let square = exact.iter().map(|e| e * e).sum::<f64>();
    let scale = if square > 0.0 { (square / exact.len() as f64).sqrt() } else { 1.0 };
    let mut worst = 0.0_f64;
    for (g, e) in got.iter().zip(exact) {
        let difference = (f64::from(*g) - e).abs();
        if difference.is_nan() {
            return f64::NAN;
        }
        worst = worst.max(difference);
    }
    worst / scale
}
