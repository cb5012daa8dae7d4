//! What runs a graph: the interpreter, the oracle; and the executor of compiled programs.

pub(crate) mod arena;
mod cache;
mod execute;
mod interpreter;
mod profile;
mod random;
mod session;

pub use cache::ProgramCache;
pub(crate) use interpreter::evaluate;
pub use interpreter::{Precision, RunOptions, first_non_finite, interpret, interpret_observed};
pub use profile::{Profile, StepProfile};
pub use random::{fill_random, random_element};
pub use session::Session;
