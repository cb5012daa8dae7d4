//! Nets as ONNX models: every layer in many ways, names, batches, options, files.

mod layers;

use layers::{Case, DRAWS, cases};
use prost::Message;
use std::collections::HashSet;
use striate_graph::{Array, Mode, Op, RandomKind, RunOptions, interpret};
use striate_io::onnx::proto::{DimensionValue, ModelProto, NodeProto, TypeValue, ValueInfoProto};
use striate_io::onnx::{
    ByteInput, ExportError, OnnxModel, OnnxOptions, export_graph, export_onnx, graph_to_onnx, parse_proto,
    read_initializers, read_proto, write_onnx,
};
use striate_nn::*;

fn options(opset: i64) -> OnnxOptions {
    OnnxOptions { opset, ..OnnxOptions::default() }
}

fn written(case: &Case, options: &OnnxOptions) -> ModelProto {
    export_onnx(&*case.net, &case.sample, options).unwrap_or_else(|error| panic!("{}: {error}", case.name))
}

fn operators(model: &ModelProto) -> Vec<&str> {
    nodes(model).iter().map(|node| node.op_type.as_str()).collect()
}

fn nodes(model: &ModelProto) -> &[NodeProto] {
    &model.graph.as_ref().unwrap().node
}

fn initializers(model: &ModelProto) -> Vec<&str> {
    model.graph.as_ref().unwrap().initializer.iter().map(|tensor| tensor.name.as_str()).collect()
}

/// Sizes of an input or output, names of those that are open.
fn sizes(info: &ValueInfoProto) -> Vec<String> {
    let Some(TypeValue::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.clone()) else { return vec![] };
    let shown = |value: Option<DimensionValue>| match value {
        Some(DimensionValue::DimValue(size)) => size.to_string(),
        Some(DimensionValue::DimParam(name)) => name,
        None => "?".into(),
    };
    tensor.shape.unwrap_or_default().dim.into_iter().map(|dim| shown(dim.value)).collect()
}

/// Values are written once, before they are read; node names differ.
fn check_structure(name: &str, model: &ModelProto) {
    let graph = model.graph.as_ref().unwrap();
    let mut known: HashSet<&str> = graph.input.iter().map(|info| info.name.as_str()).collect();
    for tensor in &graph.initializer {
        assert!(known.insert(&tensor.name), "{name}: initializer {} twice", tensor.name);
    }
    let mut names = HashSet::new();
    for node in &graph.node {
        assert!(names.insert(&node.name), "{name}: node {} twice", node.name);
        for input in node.input.iter().filter(|input| !input.is_empty()) {
            assert!(known.contains(input.as_str()), "{name}: {} reads {input} before it is written", node.name);
        }
        for output in &node.output {
            assert!(known.insert(output), "{name}: {output} is written twice");
        }
    }
    for output in &graph.output {
        assert!(known.contains(output.name.as_str()), "{name}: output {} is not written", output.name);
    }
}

#[test]
fn every_layer_is_written_well_and_the_same_each_time() {
    for (first, second) in cases().iter().zip(&cases()) {
        for opset in [13, 17, 18, 20, 23].into_iter().filter(|opset| *opset >= first.opset) {
            let options = options(opset);
            let model = written(first, &options);
            check_structure(&first.name, &model);
            let bytes = model.encode_to_vec();
            assert_eq!(bytes, written(second, &options).encode_to_vec(), "{} opset {opset}", first.name);
            assert_eq!(parse_proto(bytes.into(), first.name.as_ref()).unwrap(), model, "{}", first.name);
            assert_eq!(sizes(&model.graph.unwrap().input[0])[0], "batch", "{}", first.name);
        }
    }
}

/// The largest difference of a model that was read back and the net that it was made of, relative to the range.
fn difference(case: &Case, model: &ModelProto, batch: usize, options: &OnnxOptions) -> f64 {
    let shape = [&[batch], &case.sample[..]].concat();
    let count: usize = shape.iter().product();
    let values = (0..count).map(|i| ((i * i) as f32 * 0.37 + i as f32 * 1.3).sin() * 1.3).collect();
    let x = Array::from_vec(shape.clone(), values).unwrap();
    let run = |graph: &striate_graph::Graph| {
        interpret(graph, &[("images", x.clone())], &RunOptions::default()).unwrap().remove(0)
    };
    let wanted = run(&export_graph(&*case.net, &shape, options).unwrap());
    let back = OnnxModel::from_proto(model.clone(), "model.onnx".as_ref());
    let back = back.and_then(|back| back.graph(Mode::Eval, &[shape.into()]));
    let got = run(&back.unwrap_or_else(|error| panic!("{}: {error}", case.name)));
    assert_eq!(got.shape(), wanted.shape(), "{}", case.name);
    let (got, wanted) = (got.to_f64_vec(), wanted.to_f64_vec());
    let range = wanted.iter().fold(1e-30f64, |most, value| most.max(value.abs()));
    got.iter().zip(&wanted).map(|(a, b)| (a - b).abs() / range).fold(0.0, f64::max)
}

#[test]
fn what_is_read_back_computes_the_same_for_any_batch() {
    for case in cases() {
        for opset in [13, 18, 23].into_iter().filter(|opset| *opset >= case.opset) {
            let options = options(opset);
            let model = written(&case, &options);
            for batch in [1, 3] {
                let found = difference(&case, &model, batch, &options);
                assert!(found <= 2e-6, "{} opset {opset} batch {batch}: {found}", case.name);
            }
        }
    }
}

/// The operators of each case at an opset, by the case's name.
fn operators_of(name: &str, opset: i64) -> Vec<String> {
    let all = cases();
    let case = all.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("there is no case {name}"));
    operators(&written(case, &options(opset))).into_iter().map(str::to_owned).collect()
}

#[test]
fn onnxs_own_operators_are_used_where_there_are() {
    for (name, opset, wanted) in [
        ("conv stride pad", 18, &["Conv"][..]),
        ("transposed stride", 18, &["ConvTranspose"]),
        ("max 3 2 1 ceil", 18, &["MaxPool"]),
        ("avg 3 2 1", 18, &["AveragePool"]),
        ("adaptive avg (1, 1)", 18, &["GlobalAveragePool"]),
        ("adaptive max (3, 4)", 18, &["MaxPool"]),
        ("batch norm", 18, &["BatchNormalization"]),
        ("layer norm last", 18, &["LayerNormalization"]),
        ("layer norm vector no bias", 18, &["LayerNormalization"]),
        ("layer norm 2d", 18, &["Transpose", "LayerNormalization", "Transpose"]),
        ("instance norm", 13, &["InstanceNormalization"]),
        ("instance norm plain", 13, &["InstanceNormalization"]),
        ("group norm plain", 18, &["Reshape", "InstanceNormalization", "Reshape"]),
        ("prelu channels", 18, &["Reshape", "PRelu"]),
        ("linear", 18, &["Gemm"]),
        ("linear no bias", 18, &["Gemm"]),
        ("linear rows", 18, &["Transpose", "MatMul", "Add"]),
        ("flatten", 18, &["Flatten"]),
        ("resize bilinear (18, 16)", 18, &["Resize"]),
        ("resize nearest 2", 18, &["Resize"]),
        ("hardtanh", 18, &["Clip"]),
        ("Gelu", 20, &["Mul", "Gelu"]),
        ("Mish", 18, &["Mul", "Mish"]),
        ("Mish", 17, &["Mul", "Softplus", "Tanh", "Mul"]),
        ("Hardswish", 14, &["Mul", "HardSwish"]),
        ("Hardswish", 13, &["Mul", "HardSigmoid", "Mul"]),
        ("Silu", 18, &["Mul", "Sigmoid", "Mul"]),
    ] {
        assert_eq!(operators_of(name, opset), wanted, "{name} at opset {opset}");
    }
}

fn small_net() -> Sequential {
    let _drawing = DRAWS.lock().unwrap();
    manual_seed(3);
    let net = sequential![
        Conv2d::new(3, 4, 3).bias(false),
        BatchNorm2d::new(4),
        ReLU6::new(),
        AdaptiveAvgPool2d::new(1),
        Flatten::new(),
        Linear::new(4, 5),
    ];
    assign_names(&net);
    net
}

#[test]
fn names_are_those_of_the_net() {
    let model = export_onnx(&small_net(), &[3, 8, 8], &OnnxOptions::default()).unwrap();
    let names: Vec<&str> = nodes(&model).iter().map(|node| node.name.as_str()).collect();
    let wanted = ["0/Conv", "1/BatchNormalization", "2/Clip", "3/GlobalAveragePool", "4/Flatten", "5/Gemm"];
    assert_eq!(names, wanted);
    let wanted = [
        "0.weight",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "constant",
        "constant_1",
        "5.weight",
        "5.bias",
    ];
    assert_eq!(initializers(&model), wanted);
    let graph = model.graph.as_ref().unwrap();
    assert_eq!((graph.input[0].name.as_str(), graph.output[0].name.as_str()), ("images", "logits"));
    assert_eq!(sizes(&graph.input[0]), ["batch", "3", "8", "8"]);
    assert_eq!(sizes(&graph.output[0]), ["batch", "5"]);
    assert_eq!((model.producer_name.as_str(), model.opset_import[0].version), ("striate", 18));
}

#[test]
fn options_change_the_model() {
    let net = small_net();
    let with = |options: OnnxOptions| export_onnx(&net, &[3, 8, 8], &options).unwrap();
    let folded = with(OnnxOptions { fold: true, ..options(18) });
    assert_eq!(operators(&folded)[..2], ["Conv", "Clip"]);
    assert_eq!(initializers(&folded)[..2], ["0.weight", "0.bias"]);
    let half = with(OnnxOptions { half: true, ..options(18) });
    assert_eq!(operators(&half).iter().filter(|op| **op == "Cast").count(), 2);
    assert!(half.encoded_len() < with(options(18)).encoded_len());
    let soft = with(OnnxOptions { softmax: true, ..options(18) });
    assert_eq!(operators(&soft).last(), Some(&"Softmax"));
    assert_eq!(soft.graph.unwrap().output[0].name, "probabilities");
    let open = with(OnnxOptions { dynamic_size: true, ..options(18) });
    assert_eq!(sizes(&open.graph.unwrap().input[0]), ["batch", "3", "height", "width"]);
    let bytes = ByteInput { mean: vec![0.5; 3], std: vec![0.25; 3] };
    let model = with(OnnxOptions { bytes: Some(bytes), ..options(18) });
    assert_eq!(operators(&model)[..5], ["Cast", "Transpose", "Div", "Sub", "Div"]);
    assert_eq!(sizes(&model.graph.unwrap().input[0]), ["batch", "8", "8", "3"]);
    let metadata = [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())].into();
    let told = with(OnnxOptions { metadata, ..options(18) });
    let keys: Vec<&str> = told.metadata_props.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["a", "b"]);
}

#[test]
fn what_cannot_be_is_told_at_once() {
    let error = export_onnx(&small_net(), &[3, 8, 8], &options(12)).unwrap_err();
    assert_eq!(error.to_string(), "opset 12 cannot be written; choose one from 13 to 23");
    let bytes = Some(ByteInput { mean: vec![0.5], std: vec![0.25] });
    let error = export_onnx(&small_net(), &[3, 8, 8], &OnnxOptions { bytes, ..options(18) }).unwrap_err();
    assert!(matches!(error, ExportError::Channels { given: 1, deviations: 1, channels: 3 }), "{error}");
    // A net for one size of pictures.
    let net = sequential![Flatten::new(), Linear::new(12, 2)];
    let error = export_onnx(&net, &[3, 2, 2], &OnnxOptions { dynamic_size: true, ..options(18) }).unwrap_err();
    assert!(error.to_string().contains("in_features"), "{error}");
    // Operations of training, each by name.
    let trace = striate_graph::Trace::new(Mode::Train);
    let x = trace.input("x", [2, 3], striate_graph::DType::F32);
    let scope = trace.enter("drop");
    let noise = trace.random(RandomKind::Uniform, "noise", [2, 3]);
    drop(scope);
    let called = trace.host_call("nowhere", &[&x], &[([2, 3].into(), striate_graph::DType::F32)], None);
    let y = &x * &noise + &called[0];
    let graph = trace.finish(&[("y", &y)]).unwrap();
    let message = graph_to_onnx(&graph, &options(18)).unwrap_err().to_string();
    assert!(message.starts_with("2 of the net's operations cannot be written as ONNX opset 18:"), "{message}");
    assert!(message.contains("\n  Random in `drop`: ") && message.contains("`nowhere`"), "{message}");
    // Adding at indices came with opset 16, as regions did that are moved by half a pixel.
    let all = cases();
    for name in ["scatter add", "aligned roi align"] {
        let case = all.iter().find(|case| case.name == name).unwrap();
        let message = export_onnx(&*case.net, &case.sample, &options(15)).unwrap_err().to_string();
        assert!(message.contains("needs opset 16 or newer"), "{message}");
    }
}

#[test]
fn a_graph_of_fixed_shapes_keeps_them() {
    let graph = small_net().graph(Mode::Eval, &[4, 3, 8, 8]).unwrap();
    let model = graph_to_onnx(&graph, &options(18)).unwrap();
    assert_eq!(sizes(&model.graph.as_ref().unwrap().input[0]), ["4", "3", "8", "8"]);
    assert_eq!(model.graph.as_ref().unwrap().output[0].name, "output");
    let unused = graph.nodes.iter().filter(|node| matches!(node.op, Op::Input { .. })).count();
    assert_eq!(unused, 1);
}

#[test]
fn a_file_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    let net = small_net();
    let model = export_onnx(&net, &[3, 8, 8], &OnnxOptions::default()).unwrap();
    let file = write_onnx(&path, model.clone()).unwrap();
    assert_eq!((file.bytes, file.data), (std::fs::metadata(&path).unwrap().len(), None));
    let back = read_proto(&path).unwrap();
    assert_eq!(back, model);
    let arrays = read_initializers(back.graph.as_ref().unwrap(), &path).unwrap();
    let find = |name: &str| arrays.iter().find(|(n, _)| n == name).map(|(_, array): &(String, Array)| array.clone());
    for (name, array) in net.state_dict().iter().filter(|(name, _)| !name.ends_with("tracked")) {
        assert!(find(name).is_some_and(|found| found.bits_eq(array)), "{name}");
    }
}
