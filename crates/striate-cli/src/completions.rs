//! `striate completions`.

use crate::failure::Failure;
use clap::Args;
use clap_complete::{Shell, generate};
use std::io::Write;

/// Print what a shell needs to complete striate's arguments.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the verb.
pub fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut crate::command(), "striate", &mut script);
    // A reader that has gone away is no error of ours.
    let _ = std::io::stdout().lock().write_all(&script);
    Ok(())
}
