//! The process-wide registry of Rust functions that graphs call by name.

use crate::{Array, DType, Error, HostFunction, Result, Shape};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

static REGISTRY: LazyLock<RwLock<HashMap<String, Arc<dyn HostFunction>>>> = LazyLock::new(Default::default);

impl<F> HostFunction for F
where
    F: Fn(&[Array]) -> Result<Vec<Array>, String> + Send + Sync,
{
    fn call(&self, inputs: &[Array]) -> Result<Vec<Array>, String> {
        self(inputs)
    }
}

/// Makes a function callable by graphs under a name, in the whole process. A second registration of a name replaces the
/// first; runs that have already looked it up finish with the one they have.
///
/// ```
/// use std::sync::Arc;
/// use striate_graph::{Array, DType, Mode, RunOptions, Trace, interpret, register_host_function};
///
/// register_host_function("doc.sorted", Arc::new(|inputs: &[Array]| {
///     let mut values = inputs[0].f32s().map_err(|e| e.to_string())?.to_vec();
///     values.sort_by(f32::total_cmp);
///     Ok(vec![Array::from_vec(inputs[0].shape(), values).map_err(|e| e.to_string())?])
/// }));
/// let trace = Trace::new(Mode::Eval);
/// let x = trace.input("x", [3], DType::F32);
/// let y = trace.host_call("doc.sorted", &[&x], &[([3].into(), DType::F32)], None).remove(0);
/// let graph = trace.finish(&[("y", &y)])?;
/// let result = interpret(&graph, &[("x", Array::from_vec([3], vec![3f32, 1.0, 2.0])?)], &RunOptions::default())?;
/// assert_eq!(result[0].f32s()?, &[1.0, 2.0, 3.0]);
/// # Ok::<(), striate_graph::Error>(())
/// ```
pub fn register_host_function(name: &str, function: Arc<dyn HostFunction>) {
    REGISTRY.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), function);
}

/// The function registered under a name.
pub fn host_function(name: &str) -> Option<Arc<dyn HostFunction>> {
    REGISTRY.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
}

/// Calls a registered function and holds what it returns against what the node declares.
///
/// # Errors
/// [`Error::UnknownHostCall`], [`Error::HostCall`] with the function's message or a wrong number of outputs,
/// [`Error::Mismatch`] for an output of another shape or type.
pub(crate) fn call_host_function(name: &str, inputs: &[Array], declared: &[(Shape, DType)]) -> Result<Vec<Array>> {
    let function = host_function(name).ok_or_else(|| Error::UnknownHostCall { name: name.to_owned() })?;
    let failed = |message: String| Error::HostCall { name: name.to_owned(), message };
    let outputs = function.call(inputs).map_err(failed)?;
    if outputs.len() != declared.len() {
        let (got, expected) = (outputs.len(), declared.len());
        return Err(failed(format!("it returned {got} outputs, but the graph declares {expected}")));
    }
    for (index, (output, (shape, dtype))) in outputs.iter().zip(declared).enumerate() {
        if output.shape() != shape || output.dtype() != *dtype {
            return Err(Error::Mismatch {
                what: format!("output {index} of host function `{name}`"),
                expected: shape.clone(),
                expected_dtype: *dtype,
                got: output.shape().clone(),
                got_dtype: output.dtype(),
            });
        }
    }
    Ok(outputs)
}
