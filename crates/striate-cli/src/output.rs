//! How a verb talks: a bar on a terminal, plain lines elsewhere, JSON where asked for.

use clap::Args;
use std::io::{IsTerminal, Write};

/// The flags of every verb that prints.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct OutputArgs {
    /// Plain lines: no bar, no escape codes.
    #[arg(long, conflicts_with = "json")]
    pub plain: bool,
    /// One JSON object a line on stdout, the result last.
    #[arg(long)]
    pub json: bool,
}

/// What the flags and the terminal come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A terminal: bars may be drawn.
    Terminal,
    /// Lines.
    Plain,
    /// JSON lines.
    Json,
}

impl OutputArgs {
    /// Chooses; without a terminal or in CI lines are plain.
    pub fn choose(self) -> Output {
        let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
        match self {
            OutputArgs { json: true, .. } => Output::Json,
            OutputArgs { plain: true, .. } => Output::Plain,
            _ if ci || !std::io::stdout().is_terminal() || !std::io::stderr().is_terminal() => Output::Plain,
            _ => Output::Terminal,
        }
    }
}

/// Prints a line on stdout. A reader that has gone away is no error of ours.
pub fn print_line(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Prints a value as one line of JSON on stdout.
pub fn print_json(value: &impl serde::Serialize) {
    if let Ok(line) = serde_json::to_string(value) {
        print_line(&line);
    }
}
