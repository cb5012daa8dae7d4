//! The attributes of a node.

use crate::onnx::external::ExternalData;
use crate::onnx::proto::{AttributeProto, GraphProto};
use crate::onnx::tensor::{read_sparse, read_tensor};
use striate_graph::Array;

/// The attributes of a node, by name, with the defaults of those that are absent.
#[derive(Clone, Copy)]
pub(in crate::onnx) struct Attributes<'a>(pub &'a [AttributeProto]);

impl<'a> Attributes<'a> {
    pub fn find(self, name: &str) -> Option<&'a AttributeProto> {
        self.0.iter().find(|attribute| attribute.name == name)
    }

    pub fn has(self, name: &str) -> bool {
        self.find(name).is_some()
    }

    pub fn int(self, name: &str, otherwise: i64) -> i64 {
        self.find(name).map_or(otherwise, |attribute| attribute.i.unwrap_or(0))
    }

    /// True where the attribute is there and not 0.
    pub fn flag(self, name: &str, otherwise: bool) -> bool {
        self.int(name, i64::from(otherwise)) != 0
    }

    pub fn float(self, name: &str, otherwise: f32) -> f32 {
        self.find(name).map_or(otherwise, |attribute| attribute.f.unwrap_or(0.0))
    }

    pub fn word(self, name: &str, otherwise: &str) -> String {
        let found = self.find(name).map(|attribute| attribute.s.clone().unwrap_or_default());
        found.map_or_else(|| otherwise.to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn ints(self, name: &str) -> Option<&'a [i64]> {
        self.find(name).map(|attribute| attribute.ints.as_slice())
    }

    pub fn floats(self, name: &str) -> Option<&'a [f32]> {
        self.find(name).map(|attribute| attribute.floats.as_slice())
    }

    pub fn graph(self, name: &str) -> Option<&'a GraphProto> {
        self.find(name)?.g.as_ref()
    }

    /// A tensor, dense or sparse.
    pub fn tensor(self, name: &str, external: &ExternalData) -> Result<Option<Array>, String> {
        let Some(attribute) = self.find(name) else { return Ok(None) };
        let wrong = |why: String| format!("attribute `{name}`: {why}");
        match (&attribute.t, &attribute.sparse_tensor) {
            (Some(tensor), _) => read_tensor(tensor, external).map(Some).map_err(wrong),
            (None, Some(tensor)) => read_sparse(tensor, external).map(Some).map_err(wrong),
            (None, None) => Err(format!("attribute `{name}` is no tensor")),
        }
    }
}
