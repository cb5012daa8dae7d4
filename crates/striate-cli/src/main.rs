//! The `striate` binary. Each verb is a file of its own: its arguments (clap) and a `run` that gives a [`Failure`] or nothing.
#![forbid(unsafe_code)]

mod bench;
mod completions;
mod compute;
mod convert;
mod data;
mod detect;
mod export;
mod failure;
mod glob;
mod inspect;
mod model;
mod models;
mod onnx;
mod output;
mod predict;
mod preprocess;
mod run;
mod stop;
mod table;
mod train;
mod val;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use failure::Failure;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Instant;
use striate::graph::machine::{advise_heap, check_isa_env, default_threads, isa};

/// Files and pictures are read into large blocks: half of a first prediction's time were the first touches of their pages.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: striate::graph::machine::HugePages = striate::graph::machine::HugePages;

/// Convolutional neural networks: train, look inside, deploy.
#[derive(Parser)]
#[command(name = "striate", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Train a net.
    Train(Box<train::TrainArgs>),
    Val(val::ValArgs),
    Predict(predict::PredictArgs),
    Run(run::RunArgs),
    Inspect(inspect::InspectArgs),
    Export(export::ExportArgs),
    Convert(convert::ConvertArgs),
    #[command(subcommand)]
    Bench(bench::BenchArgs),
    #[command(subcommand)]
    Data(data::DataArgs),
    Models(models::ModelsArgs),
    Completions(completions::CompletionsArgs),
}

/// Version, instruction set and threads.
static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{} ({}, {} threads)", env!("CARGO_PKG_VERSION"), isa().name(), default_threads()));

fn command() -> clap::Command {
    Cli::command().version(VERSION.as_str())
}

fn run(cli: Cli, started: Instant) -> Result<(), Failure> {
    check_isa_env().map_err(|error| Failure::usage(error.to_string()))?;
    match cli.verb {
        Verb::Train(args) => train::run(*args, started),
        Verb::Val(args) => val::run(&args, started),
        Verb::Predict(args) => predict::run(&args),
        Verb::Run(args) => run::run(&args),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Export(args) => export::run(&args),
        Verb::Convert(args) => convert::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Data(args) => data::run(&args),
        Verb::Models(args) => models::run(&args),
        Verb::Completions(args) => completions::run(&args),
    }
}

fn main() -> ExitCode {
    let started = Instant::now();
    advise_heap();
    // Usage errors end in clap, with exit code 2.
    let cli = Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit());
    match run(cli, started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
