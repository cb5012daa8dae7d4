//! `striate data`.

mod check;
mod convert;
mod fetch;
mod stats;

use crate::failure::Failure;
use crate::output::OutputArgs;
use clap::{Args, Subcommand};

/// Look at data sets.
#[derive(Subcommand, Debug)]
pub enum DataArgs {
    /// Read every picture and label, and name what is wrong.
    Check(DataSetArgs),
    /// Count classes, sizes and values.
    Stats(DataSetArgs),
    /// Write a set with boxes in another format: COCO, Pascal VOC, YOLO or CSV.
    Convert(convert::ConvertArgs),
    /// Say where a well-known set is, or how it gets here.
    Fetch(fetch::FetchArgs),
}

/// DATA.
#[derive(Args, Debug)]
pub struct DataSetArgs {
    /// As for `striate train`; nothing: the data set inside the binary.
    data: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the verb.
pub fn run(args: &DataArgs) -> Result<(), Failure> {
    match args {
        DataArgs::Check(args) => check::run(args),
        DataArgs::Stats(args) => stats::run(args),
        DataArgs::Convert(args) => convert::run(args),
        DataArgs::Fetch(args) => fetch::run(args),
    }
}
