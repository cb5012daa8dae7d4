//! `striate convert`: weights from one kind of file to another.

use crate::compute::ComputeArgs;
use crate::export::{ExportFlags, export};
use crate::failure::Failure;
use crate::model::{Model, ModelArgs, best_of, is_ours, open_ours};
use crate::output::{Output, OutputArgs, print_json, print_line};
use crate::table::{bytes, grouped};
use clap::Args;
use std::path::{Path, PathBuf};
use striate::graph::{Array, DType};
use striate::io::{FileFormat, Weights, read_weights, write_npy, write_npz, write_pth, write_safetensors};
use striate::vision::models::{ModelError, build_model};

/// Convert weights between .pth, .safetensors, .npz, .npy and ONNX, by the ending of OUT.
///
/// Names, shapes and types stay as they are; unsigned integers of 16 and more bits, which arrays here do not have, are widened. Class
/// names and preprocessing go along where OUT can hold them. Out of an ONNX model its initializers are taken. Into one goes the net that
/// a file of striate's or a run folder names, or --model, as `striate export` writes it.
#[derive(Args, Debug)]
pub struct ConvertArgs {
    /// A file of weights (.pth, .safetensors, .npz, .npy, a checkpoint), an ONNX model, or a run folder.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The file to write: .pth, .pt, .safetensors, .npz, .npy (for a single array) or .onnx.
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// For .onnx: the registry name of the net, where IN does not say it.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Cast floating-point arrays: f16, bf16, f32 or f64.
    #[arg(long, value_name = "TYPE", value_parser = parse_float)]
    dtype: Option<DType>,
    #[command(flatten)]
    how: ExportFlags,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

fn parse_float(text: &str) -> Result<DType, String> {
    match text {
        "f16" | "float16" => Ok(DType::F16),
        "bf16" | "bfloat16" => Ok(DType::BF16),
        "f32" | "float32" => Ok(DType::F32),
        "f64" | "float64" => Ok(DType::F64),
        _ => Err("known are f16, bf16, f32 and f64".to_owned()),
    }
}

/// What is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Pth,
    Safetensors,
    Npz,
    Npy,
    Onnx,
}

impl Target {
    fn of(out: &Path) -> Result<Target, Failure> {
        let ending = out.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("pth" | "pt") => Ok(Target::Pth),
            Some("safetensors") => Ok(Target::Safetensors),
            Some("npz") => Ok(Target::Npz),
            Some("npy") => Ok(Target::Npy),
            Some("onnx") => Ok(Target::Onnx),
            _ => Err(Failure::usage(format!(
                "{}: the ending says what to write; known are .pth, .pt, .safetensors, .npz, .npy and .onnx",
                out.display()
            ))),
        }
    }
}

/// Runs the verb.
pub fn run(args: &ConvertArgs) -> Result<(), Failure> {
    let target = Target::of(&args.out)?;
    let path = match args.input.is_dir() {
        true => best_of(&args.input)?,
        false => args.input.clone(),
    };
    if target == Target::Onnx {
        return to_onnx(args, &path);
    }
    if args.model.is_some() || !args.how.are_default() {
        return Err(Failure::usage(format!(
            "{}: --model and the flags of `striate export` are for .onnx files; leave them away",
            args.out.display()
        )));
    }
    let mut weights = read_weights(&path).map_err(ModelError::from)?;
    let tell = |note: &str| eprintln!("note: {}: {note}", path.display());
    weights.notes.iter().for_each(|note| tell(note));
    if weights.format == FileFormat::Onnx
        && is_ours(&weights)
        && build_model(&path, weights.arrays.clone(), &weights.metadata).is_err()
    {
        weights.metadata.remove("format");
        tell("the initializers are not the whole state of the net that the metadata name, so OUT is plain weights");
    }
    if let Some(dtype) = args.dtype {
        let cast = |(name, array): (String, Array)| match array.dtype() {
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => (name, array.cast(dtype)),
            _ => (name, array),
        };
        weights.arrays = weights.arrays.into_iter().map(cast).collect();
    }
    let left_out = write(target, &args.out, &weights)?;
    report(args, &weights, &left_out)
}

/// Writes the arrays, and gives the keys of what the format cannot hold.
fn write(target: Target, out: &Path, weights: &Weights) -> Result<Vec<String>, Failure> {
    let Weights { arrays, metadata, .. } = weights;
    let pairs = || arrays.iter().map(|(name, array)| (name, array.clone()));
    let keys = || metadata.keys().cloned().collect();
    let file = |error: striate::io::Error| Failure::from(ModelError::from(error));
    match target {
        Target::Pth => write_pth(out, pairs(), metadata).map_err(file).map(|()| Vec::new()),
        Target::Safetensors => write_safetensors(out, pairs(), metadata).map_err(file).map(|()| Vec::new()),
        Target::Npz => write_npz(out, pairs()).map_err(file).map(|()| keys()),
        _ => match (arrays.iter().next(), arrays.len()) {
            (Some((_, array)), 1) => write_npy(out, array).map_err(file).map(|()| keys()),
            (_, count) => Err(Failure::usage(format!(
                "{}: an .npy file holds one array, there are {count}; write an .npz file",
                out.display()
            ))),
        },
    }
}

fn report(args: &ConvertArgs, weights: &Weights, left_out: &[String]) -> Result<(), Failure> {
    let out = &args.out;
    if !left_out.is_empty() {
        eprintln!("note: {}: this kind of file holds no metadata; left out: {}", out.display(), left_out.join(", "));
    }
    let size = std::fs::metadata(out).map_err(|error| Failure::io(out, "read", &error))?.len();
    let (count, elements) = (weights.arrays.len(), weights.arrays.iter().map(|(_, a)| a.numel() as u64).sum());
    if args.output.choose() == Output::Json {
        print_json(&serde_json::json!({
            "path": out, "from": weights.format.to_string(), "arrays": count, "elements": elements, "bytes": size,
            "left_out": left_out,
        }));
    } else {
        let of = out.display();
        print_line(&format!("{of}: {count} array(s), {} elements, {}", grouped(elements), bytes(size)));
    }
    Ok(())
}

fn to_onnx(args: &ConvertArgs, path: &Path) -> Result<(), Failure> {
    if args.dtype.is_some() {
        return Err(Failure::usage("--dtype is for files of weights; for .onnx there is --half"));
    }
    let model = named(args, path)?;
    export(&model, &args.out, &args.how, args.compute, args.output.choose())
}

/// The net of the arrays.
fn named(args: &ConvertArgs, path: &Path) -> Result<Model, Failure> {
    if let Some(name) = &args.model {
        return ModelArgs { model: name.clone(), weights: Some(path.into()) }.open(None);
    }
    let weights = read_weights(path).map_err(ModelError::from)?;
    if is_ours(&weights) {
        return open_ours(path, weights);
    }
    Err(Failure::usage(format!(
        "{}: the file does not say which net its arrays are for; add --model NAME (`striate models` lists them)",
        path.display()
    )))
}
