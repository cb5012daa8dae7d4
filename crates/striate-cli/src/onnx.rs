//! ONNX files as MODEL.

use crate::compute::ComputeArgs;
use crate::failure::Failure;
use crate::model::{Model, Origin};
use std::path::Path;
use std::sync::Arc;
use striate::graph::{Array, Graph, Mode, Shape};
use striate::io::onnx::{Dimension, OnnxModel, OnnxNet, OnnxSession};
use striate::io::{FileFormat, detect_format};
use striate::nn::Module;
use striate::vision::models::{ModelError, ModelInfo, Task, TaskNet};
use striate::vision::transforms::Preprocess;

/// Side of the pictures of a model that leaves it open.
const SIDE: usize = 224;

/// True for an ONNX file.
pub fn is_onnx(model: &str) -> bool {
    let path = Path::new(model);
    path.is_file() && matches!(detect_format(path), Ok(FileFormat::Onnx))
}

/// Reads a model; what is wrong with it is wrong usage, what the system says is input/output.
pub fn read(path: &Path) -> Result<Arc<OnnxModel>, Failure> {
    Ok(Arc::new(OnnxModel::open(path).map_err(ModelError::from)?))
}

/// What a net of which nothing is known gives: a class for each pixel where it gives a map.
fn task_of(net: &OnnxNet, [c, h, w]: [usize; 3]) -> Task {
    let rank = net.graph(Mode::Eval, &[1, c, h, w]).map(|graph| graph.node(graph.outputs[0].1).shape.rank());
    if rank.is_ok_and(|rank| rank == 4) { Task::Segment } else { Task::Classify }
}

/// A model for pictures, as a net. `side` is taken where the file leaves height and width open.
pub fn open(path: &Path, side: Option<usize>) -> Result<Model, Failure> {
    let model = read(path)?;
    let metadata = model.metadata().clone();
    let net = OnnxNet::new(model).map_err(ModelError::from)?;
    let name = path.file_stem().map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned());
    let origin = Origin::Onnx(path.to_path_buf());
    if metadata.get("format").is_some_and(|format| format == "striate") && metadata.contains_key("class_names") {
        let info = ModelInfo::parse(path, &metadata)?;
        let mut preprocess = info.preprocess;
        if net.takes_bytes() {
            // It normalises inside.
            preprocess.mean = vec![0.0; info.input[0]];
            preprocess.std = vec![1.0; info.input[0]];
        }
        let prepared_by = "the file says".to_owned();
        return Ok(Model {
            name,
            net: TaskNet::Plain(Box::new(net)),
            input: info.input,
            task: info.task,
            targets: info.targets,
            class_names: Some(info.class_names),
            preprocess,
            prepared_by,
            origin,
        });
    }
    let [channels, height, width] = net.picture();
    let open = height.is_none() || width.is_none();
    let side = side.unwrap_or(SIDE);
    let input = [channels.unwrap_or(3), height.unwrap_or(side), width.unwrap_or(side)];
    if open {
        eprintln!("note: {} leaves the size of its pictures open; taking {}x{}", path.display(), input[1], input[2]);
    }
    if ![1, 3].contains(&input[0]) {
        let why = format!("{}: it takes {} channels; pictures have 1 or 3", path.display(), input[0]);
        return Err(Failure::usage(format!("{why}. `striate run` takes arrays of any kind")));
    }
    let preprocess = Preprocess::exact(input[1], input[2], input[0]);
    let prepared_by = "resized to the input, values from 0 to 1, as the file does not say".to_owned();
    let task = task_of(&net, input);
    let (net, targets) = (TaskNet::Plain(Box::new(net)), None);
    Ok(Model { name, net, input, task, targets, class_names: None, preprocess, prepared_by, origin })
}

/// The shapes of all inputs: as declared; of open ones the first is the batch, the others are `side`.
pub fn shapes(model: &OnnxModel, batch: Option<usize>, side: Option<usize>) -> Vec<Shape> {
    let shape = |dimensions: &Option<Vec<Dimension>>| -> Shape {
        let dimensions = dimensions.clone().unwrap_or_default();
        let rank = dimensions.len();
        let size = |(axis, dimension): (usize, &Dimension)| match dimension {
            Dimension::Size(size) if axis == 0 && rank > 1 => batch.unwrap_or(*size),
            Dimension::Size(size) if axis >= 2 && rank == 4 => side.unwrap_or(*size),
            Dimension::Size(size) => *size,
            _ if axis == 0 => batch.unwrap_or(1),
            _ if axis == 1 && rank == 4 => 3,
            _ => side.unwrap_or(SIDE),
        };
        dimensions.iter().enumerate().map(size).collect::<Vec<usize>>().into()
    };
    model.inputs().iter().map(|input| shape(&input.shape)).collect()
}

/// The graph of a model for these shapes.
pub fn graph(model: &OnnxModel, shapes: &[Shape]) -> Result<Graph, Failure> {
    Ok(model.graph(Mode::Eval, shapes).map_err(ModelError::from)?)
}

/// Runs a model on arrays by its inputs' names.
pub fn run(model: Arc<OnnxModel>, bound: &[(String, Array)], compute: ComputeArgs) -> Result<Vec<Array>, Failure> {
    let find = |name: &str| bound.iter().find(|(given, _)| given == name).map(|(_, array)| array);
    let inputs: Vec<&Array> = model.inputs().iter().filter_map(|input| find(&input.name)).collect();
    let mut session = OnnxSession::new(model.clone()).with(compute.options(), compute.team());
    Ok(session.run(&inputs).map_err(ModelError::from)?)
}
