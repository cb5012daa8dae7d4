//! Passes from graph to graph. Each keeps every root's value; none looks at the machine.

mod simplify;

pub(crate) use simplify::simplify;
