//! What a name of the model stands for while its graph is traced.

use std::cell::OnceCell;
use std::rc::Rc;
use striate_graph::{Array, Parameter, Tensor, Trace};

/// A value: data where they are known before the model runs, a cell, or what an operation computes. Clones are the same value:
/// what one of them learns, all know.
#[derive(Clone)]
pub(in crate::onnx) struct Value(Rc<Inner>);

struct Inner {
    cell: Option<Parameter>,
    known: OnceCell<Array>,
    tensor: OnceCell<Tensor>,
}

impl Value {
    fn new(cell: Option<Parameter>, known: Option<Array>, tensor: Option<Tensor>) -> Value {
        let (known, tensor) =
            (known.map_or_else(OnceCell::new, OnceCell::from), tensor.map_or_else(OnceCell::new, OnceCell::from));
        Value(Rc::new(Inner { cell, known, tensor }))
    }

    /// Data.
    pub fn known(array: Array) -> Value {
        Value::new(None, Some(array), None)
    }

    /// A cell of the model.
    pub fn cell(cell: Parameter) -> Value {
        Value::new(Some(cell), None, None)
    }

    /// What an operation computes.
    pub fn traced(tensor: Tensor) -> Value {
        Value::new(None, None, Some(tensor))
    }

    /// The data, where they are known and no cell's.
    pub fn data(&self) -> Option<&Array> {
        self.0.known.get()
    }

    /// The cell, if it is one.
    pub fn parameter(&self) -> Option<&Parameter> {
        self.0.cell.as_ref()
    }

    /// Takes down what a traced value has turned out to be.
    pub fn learn(&self, array: Array) {
        // Whoever was first knows the same.
        let _ = self.0.known.set(array);
    }

    /// What stands for it in a trace: data become a constant, a cell is read.
    pub fn tensor(&self, trace: &Trace) -> Tensor {
        let make = || match (self.0.known.get(), &self.0.cell) {
            (_, Some(cell)) => trace.parameter(cell),
            (Some(array), None) => trace.constant(array.clone()),
            (None, None) => trace.refuse("Import", "a value without data", "report it"),
        };
        self.0.tensor.get_or_init(make).clone()
    }
}

impl From<Tensor> for Value {
    fn from(tensor: Tensor) -> Value {
        Value::traced(tensor)
    }
}

impl From<Array> for Value {
    fn from(array: Array) -> Value {
        Value::known(array)
    }
}
