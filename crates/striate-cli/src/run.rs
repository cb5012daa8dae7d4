//! `striate run`: arrays in, arrays out, nothing between.

use crate::compute::ComputeArgs;
use crate::failure::Failure;
use crate::model::{Model, ModelArgs};
use crate::output::{Output, OutputArgs, print_json, print_line};
use crate::table::shape;
use clap::Args;
use std::path::{Path, PathBuf};
use striate::graph::{Array, DType, Graph, Mode, Program, Session, nearest};
use striate::io::{read_npy, write_npy};

/// Run a net on arrays: .npy files in and out, no preprocessing of any kind.
#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// An input as an .npy file, [N, C, H, W] for nets of pictures; in the order of the model's inputs, or by name.
    #[arg(long = "input", value_name = "[NAME=]F.npy")]
    inputs: Vec<String>,
    /// Folder for the outputs: 0.npy, 1.npy, … in the order of the model's outputs.
    #[arg(long = "output", value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The name before `=`, unless the whole is a file's path.
fn split_name(text: &str) -> (Option<&str>, &Path) {
    match text.split_once('=') {
        Some((name, path)) if !Path::new(text).exists() => (Some(name), Path::new(path)),
        _ => (None, Path::new(text)),
    }
}

/// Gives each array its input's name.
fn bind(model: &str, known: &[&str], given: Vec<(Option<&str>, Array)>) -> Result<Vec<(String, Array)>, Failure> {
    let mut bound: Vec<(String, Array)> = Vec::new();
    for (name, array) in given {
        let taken = |name: &str| bound.iter().any(|(b, _)| b == name);
        let name = match name {
            Some(name) if !known.contains(&name) => {
                let hint = nearest(name, known.iter().copied()).map(|n| format!("; did you mean `{n}`?"));
                return Err(Failure::usage(format!(
                    "--input {name}=…: the model has no input `{name}`{}; its inputs are {}",
                    hint.unwrap_or_default(),
                    known.join(", ")
                )));
            }
            Some(name) => name.to_owned(),
            None => known.iter().find(|name| !taken(name)).map(|name| (*name).to_owned()).ok_or_else(|| {
                Failure::usage(format!("there are more --input than {model} has inputs ({})", known.join(", ")))
            })?,
        };
        if taken(&name) {
            return Err(Failure::usage(format!("--input {name} was given twice")));
        }
        bound.push((name, array));
    }
    match known.iter().find(|name| bound.iter().all(|(b, _)| b != *name)) {
        Some(missing) => {
            Err(Failure::usage(format!("the model's input `{missing}` was not given; add --input {missing}=F.npy")))
        }
        None => Ok(bound),
    }
}

/// Registry nets have one input.
const INPUT: &str = "input";

fn trace(model: &Model, array: &Array) -> Result<Graph, Failure> {
    let [c, h, w] = model.input;
    let wanted = format!("f32 [N, {c}, {h}, {w}]");
    if array.dtype() != DType::F32 || array.shape().rank() != 4 {
        return Err(Failure::usage(format!(
            "input `{INPUT}`: {} takes {wanted}, but the array is {} {}",
            model.name,
            array.dtype(),
            array.shape()
        )));
    }
    model.net.graph(Mode::Eval, array.shape()).map_err(|error| {
        Failure::usage(format!(
            "input `{INPUT}`: {} takes {wanted} and cannot take {}: {error}",
            model.name,
            array.shape()
        ))
    })
}

/// Runs the verb.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    let mut given = Vec::new();
    for text in &args.inputs {
        let (name, path) = split_name(text);
        given.push((name, read_npy(path).map_err(|error| Failure::array_file(&error))?));
    }
    let outputs = match crate::onnx::is_onnx(&args.model.model) && args.model.weights.is_none() {
        true => {
            let model = crate::onnx::read(Path::new(&args.model.model))?;
            let names: Vec<&str> = model.inputs().iter().map(|input| input.name.as_str()).collect();
            let bound = bind(&args.model.model, &names, given)?;
            crate::onnx::run(model, &bound, args.compute)?
        }
        false => run_net(args, bind(&args.model.model, &[INPUT], given)?)?,
    };
    write(args, &outputs)
}

/// Runs a net of ours.
fn run_net(args: &RunArgs, bound: Vec<(String, Array)>) -> Result<Vec<Array>, Failure> {
    let array = &bound[0].1;
    if crate::detect::is_detector(&args.model) {
        return crate::detect::run(&args.model, array, args.compute);
    }
    // A net of the registry is made for the pictures that came; a weights file knows its own size.
    let sizes = match array.shape().dims() {
        [_, c, h, w] if ![*c, *h, *w].contains(&0) => Some([*c, *h, *w]),
        _ => None,
    };
    let model = args.model.open(sizes)?;
    let graph = trace(&model, array)?;
    let program = Program::compile(&graph, &args.compute.options())?;
    let mut session = Session::with_team(program, args.compute.team());
    let inputs: Vec<(&str, &Array)> = bound.iter().map(|(name, array)| (name.as_str(), array)).collect();
    Ok(session.run(&inputs)?.to_vec())
}

fn write(args: &RunArgs, outputs: &[Array]) -> Result<(), Failure> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder).map_err(|error| Failure::io(folder, "create the folder", &error))?;
    let json = args.output.choose() == Output::Json;
    for (index, output) in outputs.iter().enumerate() {
        let path = folder.join(format!("{index}.npy"));
        write_npy(&path, output).map_err(|error| Failure::array_file(&error))?;
        if json {
            let sizes = output.shape().dims();
            print_json(&serde_json::json!({"path": path, "shape": sizes, "dtype": output.dtype().to_string()}));
        } else {
            print_line(&format!("{}: {} {}", path.display(), output.dtype(), shape(output.shape())));
        }
    }
    Ok(())
}
