//! `striate data convert`.

use crate::failure::Failure;
use crate::output::{Output, OutputArgs, print_json, print_line};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use striate::vision::data::DataError;
use striate::vision::detection::{BoxFormat, open_annotations, write_annotations};

/// What `--to` knows.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Coco,
    Voc,
    Yolo,
    Csv,
}

impl From<Format> for BoxFormat {
    fn from(format: Format) -> BoxFormat {
        match format {
            Format::Coco => BoxFormat::Coco,
            Format::Voc => BoxFormat::Voc,
            Format::Yolo => BoxFormat::Yolo,
            Format::Csv => BoxFormat::Csv,
        }
    }
}

/// SRC, DST and the format.
#[derive(Args, Debug)]
pub struct ConvertArgs {
    /// A set with boxes: a folder, a .json, a .yaml or a .csv. What it is, is seen from its files.
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// A new folder, for labels and copies of the pictures.
    #[arg(value_name = "DST")]
    target: PathBuf,
    /// The format to write.
    #[arg(long, value_enum)]
    to: Format,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the verb.
pub fn run(args: &ConvertArgs) -> Result<(), Failure> {
    let set = open_annotations(&args.source)?;
    let format = BoxFormat::from(args.to);
    let written = write_annotations(&set, &args.target, format).map_err(|error| match error {
        DataError::Config(message) => Failure::usage(message),
        other => other.into(),
    })?;
    set.notes.iter().for_each(|note| eprintln!("note: {note}"));
    let repairs = set.repairs();
    if args.output.choose() == Output::Json {
        print_json(&json!({
            "from": set.format.name(), "to": format.name(), "path": args.target, "pictures": written.pictures,
            "boxes": written.boxes, "class_names": set.class_names, "repairs": repairs, "losses": written.losses,
        }));
        return Ok(());
    }
    repairs.iter().for_each(|repair| print_line(&format!("repaired: {repair}")));
    written.losses.iter().for_each(|loss| print_line(&format!("not as it was: {} {}", loss.count, loss.what)));
    print_line(&format!(
        "{}: {} pictures and {} boxes of {} classes, from {} to {format}",
        args.target.display(),
        written.pictures,
        written.boxes,
        set.class_names.len(),
        set.format
    ));
    Ok(())
}
