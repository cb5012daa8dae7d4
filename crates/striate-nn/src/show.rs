//! Modules as text, in PyTorch's notation.

use crate::{Module, Visitor};
use striate_graph::Parameter;

/// The module as PyTorch prints it; what `println!("{module}")` shows.
pub fn describe<M: Module + ?Sized>(module: &M) -> String {
    let extra = module.extra_repr();
    let mut children = Children(Vec::new());
    module.visit(&mut children);
    let children = if module.counts_repeats() { joined(children.0) } else { listed(children.0) };
    let mut text = module.class_name();
    text.push('(');
    if children.is_empty() && extra.lines().count() <= 1 {
        text.push_str(&extra);
    } else {
        let lines = extra.lines().map(str::to_owned).chain(children);
        text.push_str(&format!("\n  {}\n", lines.collect::<Vec<_>>().join("\n  ")));
    }
    text.push(')');
    text
}

/// Each child's name and text.
struct Children(Vec<(String, String)>);

fn listed(children: Vec<(String, String)>) -> Vec<String> {
    children.into_iter().map(|(name, text)| format!("({name}): {text}")).collect()
}

/// Equal neighbours on one line: `(0-2): 3 x ReLU()`.
fn joined(children: Vec<(String, String)>) -> Vec<String> {
    let runs = children.chunk_by(|a, b| a.1 == b.1);
    let line = |run: &[(String, String)]| match run {
        [(first, text), .., (last, _)] => format!("({first}-{last}): {} x {text}", run.len()),
        _ => listed(run.to_vec()).concat(),
    };
    runs.map(line).collect()
}

impl Visitor for Children {
    fn module(&mut self, name: &str, module: &dyn Module) {
        self.0.push((name.to_owned(), describe(module).replace('\n', "\n  ")));
    }

    fn parameter(&mut self, _: &str, _: &Parameter) {}
}

impl std::fmt::Display for dyn Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&describe(self))
    }
}

/// Implements `Display` for modules: `println!("{net}")` then prints as PyTorch does.
#[macro_export]
macro_rules! display_module {
    ($($module:ty),* $(,)?) => {$(
        impl std::fmt::Display for $module {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&$crate::describe(self))
            }
        }
    )*};
}

/// A number as Python's `repr` of a float shows it: `1e-05`, `0.1`, `1.0`, `1e+16`.
pub(crate) fn python_float(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) || value == 0.0 {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// `True` or `False`.
pub(crate) fn python_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// `(3,)`, `(3, 4)`.
pub(crate) fn python_tuple<T: std::fmt::Display>(values: &[T]) -> String {
    match values {
        [one] => format!("({one},)"),
        many => format!("({})", many.iter().map(T::to_string).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_as_python_writes_them() {
        for (value, text) in [
            (1e-5, "1e-05"),
            (0.1, "0.1"),
            (1.0, "1.0"),
            (0.0001, "0.0001"),
            (1e16, "1e+16"),
            (123456.0, "123456.0"),
            (-0.5, "-0.5"),
            (0.0, "0.0"),
            (2.5e-7, "2.5e-07"),
        ] {
            assert_eq!(python_float(value), text);
        }
    }
}
