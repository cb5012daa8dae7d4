//! `striate export`: a net as an ONNX model that has been read back and compared.

mod boxes;

use crate::compute::ComputeArgs;
use crate::detect::is_detector;
use crate::failure::Failure;
use crate::model::{Model, ModelArgs, Origin};
use crate::output::{Output, OutputArgs, print_json, print_line};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use striate::graph::{Array, DType, Graph, Node, NodeId, Op, Program, Session, Shape, Tensor, rng};
use striate::io::onnx::proto::{ModelProto, ValueInfoProto};
use striate::io::onnx::{
    ByteInput, DEFAULT_OPSET, ExportError, Forward, INPUT_NAME, OnnxFile, OnnxModel, OnnxOptions, OnnxSession,
    export_graph_of, export_onnx_of, read_proto, write_onnx,
};
use striate::vision::models::ModelInfo;

/// Write a net as an ONNX model, read it back and compare.
///
/// Of a detector the model gives `boxes` [N, A, 4], corners x1 y1 x2 y2 in pixels of the input, and `scores` [N, A, classes],
/// probabilities without a background; of one of two stages `boxes` are [N, A, classes, 4], as each class has its own, and A are
/// the proposals. With --nms it gives what is left of them: `boxes` [N, M, 4], `scores` [N, M], the best first, and `labels` [N, M],
/// places among the class names; where there are fewer than M, boxes and scores are 0 and labels -1. Mask R-CNN then gives `masks`
/// [N, M, 28, 28] too, the probabilities of the pixels of each box.
#[derive(Args, Debug)]
pub struct ExportArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The file to write.
    #[arg(value_name = "OUT.onnx")]
    out: PathBuf,
    /// Height and width of the pictures, for a registry name; else those that the net was made for.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=32_768))]
    imgsz: Option<usize>,
    #[command(flatten)]
    how: ExportFlags,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What the model looks like.
#[derive(Args, Clone, Debug)]
pub struct ExportFlags {
    /// Version of ONNX's operators, 13 to 23.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_OPSET)]
    opset: i64,
    /// Take bytes, u8 [N, H, W, 3], and normalise them inside. Resizing and cropping stay outside.
    #[arg(long)]
    with_preprocessing: bool,
    /// Give probabilities instead of logits.
    #[arg(long)]
    softmax: bool,
    /// Leave height and width open too, where the net allows it.
    #[arg(long)]
    dynamic_size: bool,
    /// Put batch norms into the convolutions before them.
    #[arg(long)]
    fold: bool,
    /// Store matrices and filters as f16.
    #[arg(long)]
    half: bool,
    /// For detectors: choose the boxes inside, by ONNX's NonMaxSuppression within each class, with the net's own thresholds, which the
    /// file's metadata tell (`thresholds`).
    #[arg(long)]
    nms: bool,
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Failure {
        match error {
            ExportError::Net(error) => error.into(),
            ExportError::Graph(error) => error.into(),
            other => Failure::usage(other.to_string()),
        }
    }
}

impl ExportFlags {
    /// Whether none of them was given.
    pub fn are_default(&self) -> bool {
        let ExportFlags { opset, with_preprocessing, softmax, dynamic_size, fold, half, nms } = *self;
        opset == DEFAULT_OPSET && ![with_preprocessing, softmax, dynamic_size, fold, half, nms].contains(&true)
    }

    fn options(&self, model: &Model) -> Result<OnnxOptions, Failure> {
        match model.net.detector() {
            Some(_) => boxes::check(self)?,
            None if self.nms => {
                return Err(Failure::usage(format!(
                    "--nms is for detectors, whose boxes it sorts out; {} gives scores of classes. Leave it away",
                    model.name
                )));
            }
            None => {}
        }
        let preprocess = &model.preprocess;
        let bytes = ByteInput { mean: preprocess.mean.clone(), std: preprocess.std.clone() };
        Ok(OnnxOptions {
            opset: self.opset,
            fold: self.fold,
            half: self.half,
            dynamic_size: self.dynamic_size,
            softmax: self.softmax,
            bytes: self.with_preprocessing.then_some(bytes),
            metadata: self.metadata(model)?,
            name: model.name.clone(),
        })
    }

    /// What a weights file of ours says, and what this file's input and output are.
    fn metadata(&self, model: &Model) -> Result<std::collections::BTreeMap<String, String>, Failure> {
        let info = ModelInfo {
            model: model.name.clone(),
            task: model.task,
            targets: model.targets.clone(),
            input: model.input,
            class_names: model.class_names.clone().unwrap_or_default(),
            preprocess: model.preprocess.clone(),
            structure: None,
        };
        let mut metadata = info.metadata();
        match (&model.class_names, model.net.detector()) {
            (Some(_), _) => {}
            (None, None) => drop(metadata.remove("class_names")),
            // Without their number nobody could tell boxes by class.
            (None, Some(net)) => {
                let names: Vec<String> = (net.first_label()..net.classes()).map(|label| label.to_string()).collect();
                metadata.insert("class_names".to_owned(), serde_json::json!(names).to_string());
            }
        }
        let input = if self.with_preprocessing { "bytes" } else { "normalized" };
        let output = if self.softmax { "probabilities" } else { "logits" };
        metadata.insert("input_values".to_owned(), input.to_owned());
        metadata.insert("output_values".to_owned(), output.to_owned());
        if let Some(net) = model.net.detector() {
            metadata.extend(boxes::exported(net, model, self.nms)?.metadata());
        }
        Ok(metadata)
    }
}

/// What the verb says at its end.
struct Report {
    path: PathBuf,
    file: OnnxFile,
    opset: i64,
    nodes: usize,
    seconds: f64,
    /// Of what was read back, relative to the range of the output.
    difference: f64,
}

impl Report {
    fn print(&self, output: Output) {
        let Report { path, file, opset, nodes, seconds, difference } = self;
        if output == Output::Json {
            print_json(&serde_json::json!({
                "path": path, "bytes": file.bytes, "data": file.data, "opset": opset, "nodes": nodes, "seconds": seconds,
                "difference": difference,
            }));
            return;
        }
        let size = file.bytes as f64 / f64::from(1 << 20);
        let beside = file.data.as_ref().map_or(String::new(), |data| format!(", weights in {}", data.display()));
        print_line(&format!("{}: {size:.1} MiB{beside}, opset {opset}, {nodes} nodes, {seconds:.1} s", path.display()));
        print_line(&format!("read back and run beside the net: they differ by {difference:.1e} of the output's range"));
    }
}

/// The opset that brought a RoiAlign which ONNX Runtime has not.
const NEW_ROI_ALIGN: i64 = 22;
/// Pictures that the file and the net are compared on: more than one, so that an open batch shows.
const BATCH: usize = 2;
/// Most that they may differ by, of the range of the net's output.
const MOST: f64 = 1e-5;
/// The same where weights are stored as f16.
const MOST_HALF: f64 = 5e-3;

/// The same pictures each time: normal values, or any bytes.
fn pictures(shape: &Shape, dtype: DType) -> Result<Array, Failure> {
    let key = rng::stream_key(0, "export");
    let places = 0..shape.numel() as u64;
    Ok(match dtype {
        DType::U8 => Array::from_vec(shape, places.map(|i| rng::below(key, 0, i, 256) as u8).collect())?,
        _ => Array::from_vec(shape, places.map(|i| rng::normal(key, 0, i)).collect::<Vec<f32>>())?,
    })
}

/// What is written.
struct Written<'a> {
    /// From the pictures to the outputs of the file, and behind these the values among which the net has chosen.
    forward: Box<Forward<'a>>,
    /// The number of the file's outputs, where others follow.
    outputs: usize,
}

impl<'a> Written<'a> {
    fn of(model: &'a Model, flags: &ExportFlags) -> Result<Written<'a>, Failure> {
        let Some(net) = model.net.detector() else {
            let softmax = flags.softmax;
            let rows = move |x: &Tensor| match softmax {
                true => vec![("probabilities", model.net.call(x).softmax(1))],
                false => vec![("logits", model.net.call(x))],
            };
            return Ok(Written { forward: Box::new(rows), outputs: 1 });
        };
        let outputs = boxes::exported(net, model, flags.nms)?.outputs();
        Ok(Written { forward: boxes::forward(net, model, flags.nms), outputs })
    }

    fn proto(&self, sample: &[usize], options: &OnnxOptions) -> Result<ModelProto, Failure> {
        let mut proto = export_onnx_of(&*self.forward, sample, options)?;
        if let Some(graph) = &mut proto.graph {
            graph.output.truncate(self.outputs);
        }
        Ok(proto)
    }

    /// The file as a model that tells what it has chosen from too, which it gives nobody else.
    fn read_back(&self, out: &Path, graph: &Graph) -> striate::io::Result<OnnxModel> {
        let mut proto = read_proto(out)?;
        if let Some(written) = &mut proto.graph {
            let inside = graph.outputs.iter().skip(self.outputs).map(|(name, _)| name.to_string());
            written.output.extend(inside.map(|name| ValueInfoProto { name, ..Default::default() }));
        }
        OnnxModel::from_proto(proto, out)
    }

    /// The values behind the `detach` of what is chosen from, each with its place among the outputs of the graph.
    fn cuts(&self, graph: &Graph) -> Vec<(NodeId, usize)> {
        let place = |id: NodeId| graph.outputs.iter().skip(self.outputs).position(|(_, output)| *output == id);
        let cut = |(index, node): (usize, &Node)| match node.op {
            Op::Detach => Some((NodeId(index as u32), self.outputs + place(node.inputs[0])?)),
            _ => None,
        };
        graph.nodes.iter().enumerate().filter_map(cut).collect()
    }
}

/// The largest of the differences of outputs.
fn largest(found: &[Array], wanted: &[Array]) -> Result<f64, Failure> {
    if found.len() != wanted.len() {
        return Err(Failure::new(1, format!("the file has {} outputs, the net {}", found.len(), wanted.len())));
    }
    found.iter().zip(wanted).try_fold(0.0, |most, (found, wanted)| Ok(difference(found, wanted)?.max(most)))
}

/// The largest difference of an output of the file and of the net, of the range of the net's.
fn difference(found: &Array, wanted: &Array) -> Result<f64, Failure> {
    if found.shape() != wanted.shape() {
        return Err(Failure::new(1, format!("the file gives {}, the net {}", found.shape(), wanted.shape())));
    }
    let (found, wanted) = (found.to_f64_vec(), wanted.to_f64_vec());
    let ends = wanted.iter().fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], &v| [low.min(v), high.max(v)]);
    let range = (ends[1] - ends[0]).max(f64::MIN_POSITIVE);
    // A NaN on one side only is a difference beyond all limits.
    let apart = |(a, b): (&f64, &f64)| match (a == b || (a.is_nan() && b.is_nan()), (a - b).abs() / range) {
        (true, _) => 0.0,
        (false, difference) if difference.is_nan() => f64::INFINITY,
        (false, difference) => difference,
    };
    Ok(found.iter().zip(&wanted).map(apart).fold(0.0, f64::max))
}

/// The largest difference of the file and the net, of the range of the net's outputs. Where the net chooses, it goes on with what the
/// file has said until there: of two scores that are nearly the same either may come first.
fn compare(
    (written, input): (&Written, [usize; 3]),
    out: &Path,
    options: &OnnxOptions,
    compute: ComputeArgs,
) -> Result<f64, Failure> {
    let unread = |error: striate::io::Error| Failure::new(1, format!("what was written cannot be read back: {error}"));
    let [c, h, w] = input;
    let graph = export_graph_of(&*written.forward, &[BATCH, c, h, w], options)?;
    let (_, shape, dtype) = graph.inputs().next().ok_or_else(|| Failure::new(1, "the net has no input"))?;
    let images = pictures(shape, dtype)?;
    let back = Arc::new(written.read_back(out, &graph).map_err(unread)?);
    let found = OnnxSession::new(back).with(compute.options(), compute.team()).run(&[&images]).map_err(unread)?;
    let (cuts, places): (Vec<NodeId>, Vec<usize>) = written.cuts(&graph).into_iter().unzip();
    let mut session = Session::with_team(Program::compile(&graph.after(&cuts), &compute.options())?, compute.team());
    let names: Vec<String> = (0..cuts.len()).map(|index| format!("cut.{index}")).collect();
    let given = names.iter().zip(places).filter_map(|(name, place)| Some((name.as_str(), found.get(place)?)));
    let inputs: Vec<(&str, &Array)> = std::iter::once((INPUT_NAME, &images)).chain(given).collect();
    largest(&found, session.run(&inputs)?)
}

/// Takes away a file that is not what the net is.
fn discard(out: &Path, file: &OnnxFile) {
    for path in std::iter::once(out).chain(file.data.as_deref()) {
        // The error that counts is the one that is being reported.
        let _ = std::fs::remove_file(path);
    }
}

/// Writes a net, reads it back and compares.
///
/// # Errors
/// Exit code 2 where the net cannot be written, 5 where the file cannot; 1 where it does not do what the net does: then it is
/// removed.
pub fn export(
    model: &Model,
    out: &Path,
    flags: &ExportFlags,
    compute: ComputeArgs,
    output: Output,
) -> Result<(), Failure> {
    let started = Instant::now();
    let options = flags.options(model)?;
    let written = Written::of(model, flags)?;
    let proto = written.proto(&model.input, &options)?;
    let nodes = proto.graph.as_ref().map_or(&[][..], |graph| &graph.node);
    if options.opset >= NEW_ROI_ALIGN && nodes.iter().any(|node| node.op_type == "RoiAlign") {
        eprintln!("note: ONNX Runtime 1.32 has no RoiAlign of opset {NEW_ROI_ALIGN}; give --opset 21 or less for it");
    }
    let nodes = nodes.len();
    let file = write_onnx(out, proto).map_err(|error| Failure::array_file(&error))?;
    let most = if options.half { MOST_HALF } else { MOST };
    let checked =
        compare((&written, model.input), out, &options, compute).and_then(|difference| match difference <= most {
            true => Ok(difference),
            false => Err(Failure::new(
                1,
                format!(
                    "the file differs from the net by {difference:.1e} of the output's range, more than {most:.0e}"
                ),
            )),
        });
    let difference = checked.map_err(|failure| {
        discard(out, &file);
        failure.before(&format!("{}: removed again: ", out.display()))
    })?;
    let seconds = started.elapsed().as_secs_f64();
    Report { path: out.into(), file, opset: options.opset, nodes, seconds, difference }.print(output);
    Ok(())
}

/// Runs the verb.
pub fn run(args: &ExportArgs) -> Result<(), Failure> {
    if args.out.extension().is_none_or(|ending| !ending.eq_ignore_ascii_case("onnx")) {
        return Err(Failure::usage(format!("{}: the file to write must end in .onnx", args.out.display())));
    }
    let model = open(args)?;
    if model.origin == Origin::Fresh {
        model.tell_assumptions();
    }
    export(&model, &args.out, &args.how, args.compute, args.output.choose())
}

/// The net, for pictures of the size that is asked for.
fn open(args: &ExportArgs) -> Result<Model, Failure> {
    if is_detector(&args.model) {
        return boxes::open(&args.model, args.imgsz);
    }
    let Some(side) = args.imgsz else { return args.model.open(None) };
    let usual = args.model.open(None)?.input;
    let model = args.model.open(Some([usual[0], side, side]))?;
    match model.input == [usual[0], side, side] {
        true => Ok(model),
        false => Err(Failure::usage(format!(
            "--imgsz {side}: {} is made for {}x{}; only a registry name is built for any size",
            args.model.model, usual[1], usual[2]
        ))),
    }
}
