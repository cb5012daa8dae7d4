//! `striate inspect`.

mod analyse;
mod arrays;
mod profile;

pub use analyse::{analyse, macs};

use crate::compute::{ComputeArgs, parse_seconds};
use crate::failure::Failure;
use crate::model::{ModelArgs, best_of, is_ours};
use crate::onnx::{self, is_onnx};
use crate::output::{Output, OutputArgs, print_json, print_line};
use crate::table::{bytes, grouped, shape, short, table};
use analyse::Row;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use profile::{Measured, Times};
use serde_json::json;
use std::path::{Path, PathBuf};
use striate::graph::{Graph, Mode, ParamKind};
use striate::io::{FileFormat, Weights, detect_format, read_weights};
use striate::nn::Sequential;
use striate::vision::models::{ModelError, TaskNet, find_model};

/// Show the layers of a net: shapes, parameters, multiply-adds, memory, receptive field; or the arrays of a weights file.
///
/// A file that says which net it is for is shown as that net, any other (.pth, .safetensors, .npz, .npy, a checkpoint) as its arrays:
/// names, shapes, types, number of elements, smallest and largest value and mean, and what else is in it.
#[derive(Args, Debug)]
pub struct InspectArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Show the arrays also where the file says which net it is for.
    #[arg(long)]
    arrays: bool,
    /// Pictures in a batch.
    #[arg(long, default_value = "1", value_parser = RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    batch: usize,
    /// Side of the pictures [default: the model's].
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..=16_384))]
    imgsz: Option<usize>,
    /// Measure the time of each layer too, and its part of the measured peak.
    #[arg(long)]
    profile: bool,
    /// How long to measure.
    #[arg(long, value_name = "X", default_value = "1", value_parser = parse_seconds)]
    seconds: f64,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What is looked at.
struct Subject {
    name: String,
    net: TaskNet,
    graph: Graph,
    /// Shape of the (first) input.
    input: Vec<usize>,
    parameters: u64,
}

impl Subject {
    fn open(args: &InspectArgs) -> Result<Subject, Failure> {
        let path = &args.model.model;
        if args.model.weights.is_none() && is_onnx(path) {
            let model = onnx::read(Path::new(path))?;
            let shapes = onnx::shapes(&model, Some(args.batch), args.imgsz);
            let graph = onnx::graph(&model, &shapes)?;
            let name =
                Path::new(path).file_name().map_or_else(|| path.clone(), |name| name.to_string_lossy().into_owned());
            let weights = model.parameters().iter().filter(|cell| cell.kind() == ParamKind::Weight);
            let parameters = weights.map(|cell| cell.shape().numel() as u64).sum();
            let input = shapes.first().map(|shape| shape.to_vec()).unwrap_or_default();
            // Rows are named by the file's nodes, each an operation.
            return Ok(Subject {
                name,
                net: TaskNet::Plain(Box::new(Sequential::default())),
                graph,
                input,
                parameters,
            });
        }
        let model = args.model.open(None)?;
        let [c, h, w] = args.imgsz.map_or(model.input, |side| [model.input[0], side, side]);
        let input = vec![args.batch, c, h, w];
        let graph = model.net.graph(Mode::Eval, &input)?;
        let parameters = model.net.num_parameters() as u64;
        Ok(Subject { name: model.name, net: model.net, graph, input, parameters })
    }
}

/// Runs the verb.
pub fn run(args: &InspectArgs) -> Result<(), Failure> {
    if let Some((path, weights)) = plain_arrays(args)? {
        return arrays::show(&path, &weights, args.output.choose());
    }
    let Subject { name, net, graph, input, parameters } = Subject::open(args)?;
    let (rows, times) = if args.profile {
        let measured = Measured::take(&graph, args.compute, args.seconds)?;
        let rows = analyse(measured.graph(), &*net);
        let times = measured.times(&rows);
        (rows, Some(times))
    } else {
        (analyse(&graph, &*net), None)
    };
    match args.output.choose() {
        Output::Json => print_json(&as_json(&name, &input, parameters, &rows, times.as_ref())),
        _ => print_line(&as_text(&name, &input, parameters, &rows, times.as_ref())),
    }
    Ok(())
}

/// The file whose arrays are to be shown, if it is one.
fn plain_arrays(args: &InspectArgs) -> Result<Option<(PathBuf, Weights)>, Failure> {
    let ModelArgs { model, weights } = &args.model;
    let path = PathBuf::from(model);
    if weights.is_some() || find_model(model).is_ok() || !path.exists() {
        return Ok(None);
    }
    let path = if path.is_dir() && args.arrays { best_of(&path)? } else { path };
    let is_graph = |path| detect_format(path).map(|format| format == FileFormat::Onnx);
    if path.is_dir() || (!args.arrays && is_graph(&path).map_err(ModelError::from)?) {
        return Ok(None);
    }
    let weights = read_weights(&path).map_err(ModelError::from)?;
    Ok((args.arrays || !is_ours(&weights)).then_some((path, weights)))
}

fn as_json(name: &str, input: &[usize], parameters: u64, rows: &[Row], times: Option<&Times>) -> serde_json::Value {
    let layer = |(index, row): (usize, &Row)| {
        let mut value = json!(row);
        if let Some(times) = times {
            value["ms"] = json!(times.ms[index]);
            value["percent_of_peak"] = json!(times.percent_of_peak(index, row.macs));
            value["kernel"] = json!(times.kernels[index]);
        }
        value
    };
    let mut value = json!({
        "model": name, "input": input, "parameters": parameters,
        "macs": rows.iter().map(|row| row.macs).sum::<u64>(),
        "activation_bytes": rows.iter().map(|row| row.activation_bytes).sum::<u64>(),
        "layers": rows.iter().enumerate().map(layer).collect::<Vec<_>>(),
    });
    if let Some(times) = times {
        value["ms"] = json!(times.total_ms);
        value["other_ms"] = json!(times.other_ms);
        value["peak_gflops"] = json!(times.peak_gflops);
        value["threads"] = json!(times.threads);
        value["runs"] = json!(times.runs);
    }
    value
}

/// `3`, `2x4`, `-` where the value sees the whole picture.
fn pair(sizes: Option<[f64; 2]>) -> String {
    let number = |n: f64| if n.fract() == 0.0 { format!("{n:.0}") } else { format!("{n:.2}") };
    match sizes {
        None => "all".into(),
        Some([a, b]) if a == b => number(a),
        Some([a, b]) => format!("{}x{}", number(a), number(b)),
    }
}

fn as_text(name: &str, input: &[usize], parameters: u64, rows: &[Row], times: Option<&Times>) -> String {
    let mut head = vec!["layer", "kind", "input", "output", "parameters", "MACs", "activation", "field", "stride"];
    if times.is_some() {
        head.extend(["ms", "% of peak"]);
    }
    let cells = |(index, row): (usize, &Row)| {
        let mut cells = vec![
            if row.layer.is_empty() { "(net)".into() } else { row.layer.clone() },
            row.kind.clone(),
            shape(&row.input),
            shape(&row.output),
            grouped(row.parameters),
            if row.macs == 0 { "-".into() } else { short(row.macs) },
            bytes(row.activation_bytes),
            pair(row.receptive_field),
            pair(row.stride),
        ];
        if let Some(times) = times {
            cells.push(times.ms[index].map_or("fused".into(), |ms| format!("{ms:.3}")));
            cells.push(times.percent_of_peak(index, row.macs).map_or("-".into(), |p| format!("{p:.1}")));
        }
        cells
    };
    let rows_text: Vec<Vec<String>> = rows.iter().enumerate().map(cells).collect();
    let mut text = table(&head, &rows_text, &[0, 1, 2, 3]);
    let macs: u64 = rows.iter().map(|row| row.macs).sum();
    let memory: u64 = rows.iter().map(|row| row.activation_bytes).sum();
    text += &format!(
        "\n\n{name}, input {}: {} parameters ({}), {} multiply-adds, {} of activations",
        shape(input),
        grouped(parameters),
        bytes(4 * parameters),
        short(macs),
        bytes(memory)
    );
    if let Some(times) = times {
        let gflops = 2.0 * macs as f64 / times.total_ms / 1e6;
        text += &format!(
            "\n{:.3} ms a call in steps ({:.3} ms outside layers), mean of {} calls, {} thread(s): {gflops:.1} GFLOP/s, {:.1} % of the measured peak {:.1}\n\"fused\": computed by the step of the layer before it",
            times.total_ms,
            times.other_ms,
            times.runs,
            times.threads,
            100.0 * gflops / times.peak_gflops,
            times.peak_gflops
        );
    }
    text
}
