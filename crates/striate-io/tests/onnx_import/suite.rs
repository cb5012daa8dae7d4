//! ONNX's own test cases, as Debian packages them (`libonnx-testdata`): a model, inputs and outputs each.

use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use striate_graph::{Array, DType};
use striate_io::onnx::proto::{AttributeProto, DataType, GraphProto, ModelProto, NodeProto, TensorProto, TypeValue};
use striate_io::onnx::{OnnxModel, OnnxSession, dtype_of, read_proto, tensor_to_array};

const ROOT: &str = "/usr/share/libonnx-testdata/data";
const PARTS: [&str; 4] = ["node", "pytorch-converted", "pytorch-operator", "simple"];
/// As ONNX's own runner.
const RELATIVE: f64 = 1e-3;
const ABSOLUTE: f64 = 1e-7;

/// The operators that must work.
const OPERATORS: &str = "Conv ConvTranspose MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool MaxUnpool \
    BatchNormalization InstanceNormalization LayerNormalization GroupNormalization LRN Relu LeakyRelu PRelu Elu Selu Celu Sigmoid \
    HardSigmoid Tanh Softplus Softsign HardSwish Mish Gelu Clip ThresholdedRelu Swish Add Sub Mul Div Pow Mod Min Max Sum Mean Abs Neg Sign \
    Exp Log Sqrt Reciprocal Sin Cos Erf Floor Ceil Round Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor Not MatMul Gemm \
    Concat Split Slice Gather GatherElements Transpose Reshape Flatten Squeeze Unsqueeze Expand Tile Pad DepthToSpace SpaceToDepth \
    Softmax LogSoftmax Hardmax ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceSumSquare ReduceL1 ReduceL2 ReduceLogSum \
    ReduceLogSumExp ArgMax ArgMin Cast CastLike Shape Size Constant ConstantOfShape Range Where NonZero Identity Dropout OneHot \
    ScatterElements ScatterND GatherND TopK CumSum Trilu EyeLike If NonMaxSuppression ReverseSequence Compress RoiAlign GridSample Resize Upsample \
    QuantizeLinear DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearMatMul ConvInteger QLinearConv Einsum Tan Asin Acos Atan Sinh \
    Cosh Asinh Acosh Atanh IsNaN IsInf Shrink BitwiseAnd BitwiseOr BitwiseXor BitwiseNot BitShift LpNormalization \
    MeanVarianceNormalization";

/// What became of a case.
enum Outcome {
    Passed,
    Failed(String),
    NotOurs(String),
}

fn read_array(path: &Path) -> Result<Array, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let tensor = TensorProto::decode(Bytes::from(bytes)).map_err(|error| error.to_string())?;
    tensor_to_array(&tensor)
}

/// `PREFIX_0.pb`, `PREFIX_1.pb`, … of a folder.
fn arrays(folder: &Path, prefix: &str) -> Result<Vec<Array>, String> {
    let files = (0..).map(|index| folder.join(format!("{prefix}_{index}.pb"))).take_while(|path| path.exists());
    files.map(|path| read_array(&path)).collect()
}

fn all_nodes(graph: &GraphProto) -> Vec<&NodeProto> {
    let inner = |attribute: &'_ AttributeProto| attribute.g.is_some();
    let branches = graph.node.iter().flat_map(|node| &node.attribute).filter(|a| inner(a)).filter_map(|a| a.g.as_ref());
    graph.node.iter().chain(branches.flat_map(all_nodes)).collect()
}

/// Why a case asks for something that is not promised.
fn not_ours(model: &ModelProto) -> Option<String> {
    let graph = model.graph.as_ref()?;
    let known: Vec<&str> = OPERATORS.split_whitespace().collect();
    let functions: Vec<&str> = model.functions.iter().map(|function| function.name.as_str()).collect();
    let bodies = model.functions.iter().flat_map(|function| &function.node);
    for node in all_nodes(graph).into_iter().chain(bodies) {
        let operator = node.op_type.as_str();
        if !known.contains(&operator) && !functions.contains(&operator) {
            return Some(format!("operator {operator}"));
        }
        // Its random mask would have to be that of another program.
        if operator == "Dropout" && node.input.len() > 2 && !node.input[2].is_empty() {
            return Some("dropout that drops".into());
        }
        let to = node.attribute.iter().filter(|a| operator == "Cast" && a.name == "to").find_map(|a| a.i);
        if let Some(to) = to.filter(|&to| !is_promised(to as i32)) {
            return Some(format!("type {}", type_name(to as i32)));
        }
    }
    for info in graph.input.iter().chain(&graph.output) {
        match info.r#type.as_ref().and_then(|declared| declared.value.as_ref()) {
            Some(TypeValue::TensorType(tensor)) if is_promised(tensor.elem_type) => {}
            Some(TypeValue::TensorType(tensor)) => return Some(format!("type {}", type_name(tensor.elem_type))),
            _ => return Some("sequences and optional values".into()),
        }
    }
    let other = graph.initializer.iter().find(|tensor| !is_promised(tensor.data_type))?;
    Some(format!("type {}", type_name(other.data_type)))
}

/// The types that must work: bfloat16 does, but the cases hold it as whole numbers.
fn is_promised(code: i32) -> bool {
    dtype_of(code).is_some_and(|dtype| dtype != DType::BF16)
}

fn type_name(code: i32) -> String {
    DataType::try_from(code).map_or_else(|_| code.to_string(), |known| format!("{known:?}"))
}

fn run_case(folder: &Path) -> Result<(), String> {
    let path = folder.join("model.onnx");
    let model = OnnxModel::open(&path).map_err(|error| error.to_string())?;
    let mut session = OnnxSession::new(model.into());
    for number in 0.. {
        let data = folder.join(format!("test_data_set_{number}"));
        if !data.is_dir() {
            break;
        }
        let (inputs, expected) = (arrays(&data, "input")?, arrays(&data, "output")?);
        let found = session.run(&inputs.iter().collect::<Vec<_>>()).map_err(|error| error.to_string())?;
        if found.len() != expected.len() {
            return Err(format!("{} outputs instead of {}", found.len(), expected.len()));
        }
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            compare(found, expected).map_err(|why| format!("output {index}: {why}"))?;
        }
    }
    Ok(())
}

fn compare(found: &Array, expected: &Array) -> Result<(), String> {
    if found.dtype() != expected.dtype() || found.shape() != expected.shape() {
        return Err(format!(
            "{} {} instead of {} {}",
            found.dtype(),
            found.shape(),
            expected.dtype(),
            expected.shape()
        ));
    }
    let apart = |(a, b): (&f64, &f64)| {
        !(a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= ABSOLUTE + RELATIVE * b.abs())
    };
    let (found, expected) = (found.to_f64_vec(), expected.to_f64_vec());
    let wrong = found.iter().zip(&expected).enumerate().find(|(_, pair)| apart(*pair));
    wrong.map_or(Ok(()), |(place, (a, b))| Err(format!("element {place} is {a}, it should be {b}")))
}

fn judge(folder: &Path) -> Outcome {
    let proto = match read_proto(&folder.join("model.onnx")) {
        Ok(proto) => proto,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let excuse = not_ours(&proto);
    let result = catch_unwind(|| run_case(folder)).unwrap_or_else(|_| Err("PANIC".into()));
    match (result, excuse) {
        (Ok(()), _) => Outcome::Passed,
        (Err(why), Some(excuse)) if why != "PANIC" => Outcome::NotOurs(excuse),
        (Err(why), _) => Outcome::Failed(why),
    }
}

#[test]
fn onnx_own_cases() {
    // `STRIATE_ONNX_CASES` names other folders of cases, such as those of a newer version.
    let roots: Vec<PathBuf> = match std::env::var_os("STRIATE_ONNX_CASES") {
        Some(list) => std::env::split_paths(&list).collect(),
        None => PARTS.iter().map(|part| Path::new(ROOT).join(part)).collect(),
    };
    if roots.iter().any(|root| !root.is_dir()) {
        assert!(std::env::var_os("CI").is_none(), "{ROOT} is missing: apt-get install libonnx-testdata");
        eprintln!("skipped: {ROOT} is not there (apt-get install libonnx-testdata)");
        return;
    }
    let mut folders: Vec<PathBuf> = Vec::new();
    for root in roots {
        folders.extend(std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()));
    }
    folders.retain(|folder| folder.join("model.onnx").is_file());
    folders.sort();
    let (mut passed, mut failed) = (0, Vec::new());
    let mut others: BTreeMap<String, usize> = BTreeMap::new();
    for folder in &folders {
        match judge(folder) {
            Outcome::Passed => passed += 1,
            Outcome::Failed(why) => failed.push(format!("{}: {why}", folder.file_name().unwrap().to_string_lossy())),
            Outcome::NotOurs(why) => *others.entry(why).or_default() += 1,
        }
    }
    let left_out: usize = others.values().sum();
    println!("{passed} passed, {} failed, {left_out} not for us:", failed.len());
    others.iter().for_each(|(why, count)| println!("  {count:4} {why}"));
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    assert!(passed > 0);
}
