use crate::{DType, Shape};
use std::panic::Location;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong with the shapes given to an operation: the rule with its numbers, and what would have been right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeError {
    /// What is wrong, as the rule with its numbers put in.
    pub rule: String,
    /// The value that would have been right, or what to change.
    pub fix: String,
}

impl ShapeError {
    pub(crate) fn new(rule: impl Into<String>, fix: impl Into<String>) -> Self {
        ShapeError { rule: rule.into(), fix: fix.into() }
    }
}

impl std::fmt::Display for ShapeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.rule, self.fix)
    }
}

/// Everything that can go wrong between tracing and running a graph.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation got shapes that it cannot take. Found while tracing, returned when the graph is compiled or run.
    #[error("{op}{}: {error} (at {at})", in_layer(layer))]
    Shape {
        /// The operation's name.
        op: String,
        /// The path of the layer that recorded it; empty outside layers.
        layer: String,
        /// The caller's source line.
        at: &'static Location<'static>,
        /// The rule that is broken and what would be right.
        error: ShapeError,
    },
    /// Data does not have the declared shape or type.
    #[error("{what}: expected {expected_dtype} {expected}, got {got_dtype} {got}")]
    Mismatch {
        /// Which value.
        what: String,
        /// The declared shape.
        expected: Shape,
        /// The declared type.
        expected_dtype: DType,
        /// The shape given.
        got: Shape,
        /// The type given.
        got_dtype: DType,
    },
    /// An array was made from a number of elements that its shape does not have.
    #[error("shape {shape} has {expected} elements, but {got} were given")]
    Length {
        /// The shape.
        shape: Shape,
        /// Its number of elements.
        expected: usize,
        /// The number of elements given.
        got: usize,
    },
    /// A run lacks an input, or names one that the graph does not have.
    #[error("input `{name}`: {problem}; the graph's inputs are {}", known.join(", "))]
    Input {
        /// The input's name.
        name: String,
        /// What is wrong.
        problem: String,
        /// The inputs that the graph has.
        known: Vec<String>,
    },
    /// There is no value of that name to tap.
    #[error("there is no layer `{name}` in the graph{}", suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    UnknownTap {
        /// The name asked for.
        name: String,
        /// The nearest name.
        suggestion: Option<String>,
    },
    /// A gradient was asked through an operation that has none.
    #[error(
        "{op}{} has no gradient; cut the graph there with `detach()`, or give the HostCall a backward",
        in_layer(layer)
    )]
    NotDifferentiable {
        /// The operation's name.
        op: String,
        /// Its layer.
        layer: String,
    },
    /// A host function that the graph names is not registered in this process.
    #[error(
        "the graph calls the host function `{name}`, which is not registered here; register it before running the graph"
    )]
    UnknownHostCall {
        /// The function's name.
        name: String,
    },
    /// A host function failed.
    #[error("host function `{name}`: {message}")]
    HostCall {
        /// The function's name.
        name: String,
        /// What it said.
        message: String,
    },
    /// A value that must be finite is not; nothing was written to any parameter.
    #[error("{what} is not finite ({value}){}", layer.as_ref().map(|l| format!("; the first value that is not finite comes from {l}")).unwrap_or_default())]
    NonFinite {
        /// Which value, e.g. "loss".
        what: String,
        /// The value.
        value: f32,
        /// The first layer whose output is not finite, where it was looked for.
        layer: Option<String>,
    },
    /// An operation is not defined for a type.
    #[error("{op} is not defined for {dtype}")]
    DType {
        /// The operation's name.
        op: String,
        /// The type.
        dtype: DType,
    },
    /// An internal rule of the graph is broken: a defect of striate, not of its user.
    #[error("internal: {0}; please report this")]
    Internal(String),
    /// An index lies outside its range.
    #[error("{what}: index {index} is out of range, it must be from 0 to {}", size.saturating_sub(1))]
    Index {
        /// Which value.
        what: String,
        /// The index.
        index: i64,
        /// How many there are.
        size: usize,
    },
}

fn in_layer(layer: &str) -> String {
    if layer.is_empty() { String::new() } else { format!(" in `{layer}`") }
}
