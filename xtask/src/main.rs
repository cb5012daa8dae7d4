//! Tasks of the workspace that plain cargo does not know.
//!
//! - `cargo xtask check`: the architecture check. All violations at once, `file:line: what`, exit 1 if there is any.
//! - `cargo xtask spills`: vector registers that the convolution microkernels spill to the stack.
#![forbid(unsafe_code)]

mod arrows;
mod dependencies;
mod source;
mod spills;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// One breach of a rule, printed as `file:line: message`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    /// Path below the workspace root.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// What is wrong, with the numbers, and what to do.
    pub message: String,
}

impl Violation {
    pub(crate) fn new(file: impl Into<String>, line: usize, message: impl Into<String>) -> Self {
        Self { file: file.into(), line, message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => check(&root()),
        ["spills"] => spills::run_spills(&root()),
        _ => {
            eprintln!("usage: cargo xtask check | cargo xtask spills");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace root: the folder above this package.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies one folder below the root").to_path_buf()
}

/// Runs every check and prints what it found; true if nothing.
fn check(root: &Path) -> Result<bool, String> {
    let metadata = arrows::read_metadata(root)?;
    let mut found = arrows::check_arrows(root, &metadata)?;
    found.extend(dependencies::check_dependencies(root, &metadata)?);
    let files = source::find_sources(root)?;
    for path in &files {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        found.extend(source::check_source(&relative(root, path), &text));
    }
    found.sort();
    found.dedup();
    for violation in &found {
        println!("{violation}");
    }
    let verdict = if found.is_empty() { "ok" } else { "FAILED" };
    println!("xtask check: {verdict}. {} source files, {} violations", files.len(), found.len());
    Ok(found.is_empty())
}

/// `path` below `root`, with forward slashes.
fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}
