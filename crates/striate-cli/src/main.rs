//! The `striate` binary. Each verb is a file of its own: its arguments (clap) and a `run` that gives a [`Failure`] or nothing.
#![forbid(unsafe_code)]

mod failure;
mod output;
mod stop;
mod train;

use clap::{Parser, Subcommand};
use failure::Failure;
use std::process::ExitCode;
use std::time::Instant;

/// Convolutional neural networks: train, look inside, deploy.
#[derive(Parser)]
#[command(name = "striate", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Train a classifier.
    Train(Box<train::TrainArgs>),
}

fn run(cli: Cli, started: Instant) -> Result<(), Failure> {
    match cli.verb {
        Verb::Train(args) => train::run(*args, started),
    }
}

fn main() -> ExitCode {
    let started = Instant::now();
    // Usage errors end in clap, with exit code 2.
    match run(Cli::parse(), started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
