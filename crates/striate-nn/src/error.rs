/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with layers, state dicts and optimizers.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Tracing or running failed.
    #[error(transparent)]
    Graph(#[from] striate_graph::Error),
    /// A state dict does not fit the module; nothing was loaded.
    #[error("the state dict does not fit the module; nothing was loaded{}", list(problems))]
    StateDict {
        /// One line a key: missing, unexpected (with the nearest name) or of another shape.
        problems: Vec<String>,
    },
    /// An argument of an optimizer, schedule or loss is out of its range.
    #[error("{what} is {got}; {fix}")]
    Argument {
        /// Which argument.
        what: String,
        /// What was given.
        got: String,
        /// What would be right.
        fix: String,
    },
}

fn list(problems: &[String]) -> String {
    problems.iter().map(|p| format!("\n  {p}")).collect()
}
