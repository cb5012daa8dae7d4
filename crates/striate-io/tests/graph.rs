//! Graphs as files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use striate_graph::{
    Array, DType, Graph, Mode, RunOptions, Trace, UnaryKind, gradients, interpret, register_host_function,
};
use striate_io::{Error, read_graph, read_safetensors, write_graph, write_safetensors};
use striate_nn::loss::CrossEntropyLoss;
use striate_nn::optim::SGD;
use striate_nn::*;

fn net() -> Sequential {
    manual_seed(5);
    let net = sequential![
        Conv2d::new(3, 4, 3).padding(1).bias(false),
        BatchNorm2d::new(4),
        ReLU::new(),
        MaxPool2d::new(2).ceil_mode(true),
        Dropout::new(0.3),
        Flatten::new(),
        Linear::new(4 * 3 * 3, 5),
    ];
    assign_names(&net);
    net
}

/// The graph of a whole training step.
fn training_graph(net: &Sequential) -> Graph {
    let trace = Trace::new(Mode::Train);
    let x = trace.input("x", [4, 3, 6, 6], DType::F32);
    let labels = trace.input("labels", [4], DType::I64);
    let loss = CrossEntropyLoss::new().call(&net.call(&x), &labels);
    let optimizer = SGD::new(0.1).momentum(0.9).over(net.parameters());
    optimizer.minimize(&loss).unwrap();
    trace.finish(&[("loss", &loss)]).unwrap()
}

fn inputs() -> Vec<(&'static str, Array)> {
    let values: Vec<f32> = (0..4 * 3 * 36).map(|i| (i as f32 * 0.7).sin()).collect();
    let x = Array::from_vec([4, 3, 6, 6], values).unwrap();
    let labels = Array::from_vec([4], vec![0i64, 4, 2, 1]).unwrap();
    let hyper = Array::from_vec([4], vec![0.1f32, 0.0, 1.0, 0.9]).unwrap();
    vec![("x", x), ("labels", labels), ("hyper.0", hyper)]
}

#[test]
fn a_training_graph_comes_back_and_does_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("step.graph");
    let net = net();
    let graph = training_graph(&net);
    write_graph(&path, &graph).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let back = read_graph(&path).unwrap();
    assert_eq!(back.to_string(), graph.to_string());
    let layers = |graph: &Graph| graph.nodes.iter().map(|node| node.origin.layer.clone()).collect::<Vec<_>>();
    assert_eq!(layers(&back), layers(&graph));
    assert_eq!(back.taps, graph.taps);
    // The same graph gives the same bytes, and so does the one that was read.
    write_graph(&path, &back).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    let run = |graph: &Graph| interpret(graph, &inputs(), &RunOptions::default()).unwrap().remove(0);
    assert!(run(&graph).bits_eq(&run(&back)));
    for (a, b) in graph.parameters.iter().zip(&back.parameters) {
        assert!(a.name() == b.name() && a.kind() == b.kind() && a.array().bits_eq(&b.array()), "{}", a.name());
    }
}

#[test]
fn every_number_survives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.graph");
    let trace = Trace::new(Mode::Eval);
    let x = trace.input("x", [3], DType::F32);
    let y = x.unary(UnaryKind::Clip { min: f32::NEG_INFINITY, max: 1.0e-40 }).affine(0.1, f32::NAN);
    let z = x.unary(UnaryKind::Clip { min: f32::MIN, max: f32::INFINITY });
    let graph = trace.finish(&[("y", &y), ("z", &z)]).unwrap();
    write_graph(&path, &graph).unwrap();
    let back = read_graph(&path).unwrap();
    let ops = |graph: &Graph| graph.nodes.iter().map(|node| format!("{:?}", node.op)).collect::<Vec<_>>();
    assert_eq!(ops(&back), ops(&graph));
}

#[test]
fn cells_without_a_name_get_one_and_frozen_ones_stay_frozen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain.graph");
    let (a, b) = (Linear::new(3, 3), Linear::new(3, 3));
    a.requires_grad_(false);
    let trace = Trace::new(Mode::Eval);
    let x = trace.input("x", [1, 3], DType::F32);
    let y = b.call(&a.call(&x));
    let graph = trace.finish(&[("y", &y)]).unwrap();
    write_graph(&path, &graph).unwrap();
    let back = read_graph(&path).unwrap();
    let names: Vec<String> = back.parameters.iter().map(|cell| cell.name().to_string()).collect();
    assert_eq!(names, ["weight", "bias", "parameter.2", "parameter.3"]);
    let learned: Vec<bool> = back.parameters.iter().map(|cell| cell.requires_grad()).collect();
    assert_eq!(learned, [false, false, true, true]);
}

#[test]
fn a_call_is_found_by_name_or_fails_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("call.graph");
    let trace = Trace::new(Mode::Eval);
    let x = trace.input("x", [2], DType::F32);
    let both = trace.host_call("test.twice", &[&x], &[([2].into(), DType::F32), ([2].into(), DType::F32)], None);
    let y = &both[0] + &both[1];
    let graph = trace.finish(&[("y", &y)]).unwrap();
    write_graph(&path, &graph).unwrap();
    let error = read_graph(&path).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains("`test.twice`"), "{error}");
    register_host_function("test.twice", Arc::new(|inputs: &[Array]| Ok(vec![inputs[0].clone(), inputs[0].clone()])));
    let back = read_graph(&path).unwrap();
    let x = Array::from_vec([2], vec![1f32, -2.0]).unwrap();
    let y = interpret(&back, &[("x", x)], &RunOptions::default()).unwrap().remove(0);
    assert_eq!(y.f32s().unwrap(), &[2.0, -4.0]);
}

/// The file with its JSON changed.
fn with_json(path: &Path, change: impl Fn(&str) -> String) {
    let file = read_safetensors(path).unwrap();
    let mut metadata: BTreeMap<String, String> = file.metadata;
    let json = change(&metadata["graph"]);
    metadata.insert("graph".into(), json);
    write_safetensors(path, file.arrays, &metadata).unwrap();
}

#[test]
fn hostile_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.graph");
    let graph = net().graph(Mode::Eval, &[2, 3, 6, 6]).unwrap();
    let replaced = |from: &'static str, to: &'static str| {
        move |json: &str| {
            assert!(json.contains(from), "{from} is not in {json}");
            json.replacen(from, to, 1)
        }
    };
    type Change = Box<dyn Fn(&str) -> String>;
    let cases: Vec<(&str, Change)> = vec![
        ("EOF while parsing", Box::new(|_: &str| String::new())),
        ("EOF while parsing", Box::new(|json: &str| json[..json.len() / 2].to_owned())),
        ("recursion limit", Box::new(|_: &str| "[".repeat(100_000))),
        ("missing field", Box::new(|_: &str| "{}".to_owned())),
        ("at most 2147483648", Box::new(replaced("\"stride\":[1,1]", "\"stride\":[1,18446744073709551615]"))),
        ("at most 2147483648", Box::new(replaced("\"stride\":[1,1]", "\"stride\":[1,-9223372036854775808]"))),
        ("each must be at least 1", Box::new(replaced("\"stride\":[1,1]", "\"stride\":[1,0]"))),
        ("does not come before", Box::new(replaced("\"inputs\":[0,1]", "\"inputs\":[0,4000]"))),
        ("inputs were given", Box::new(replaced("\"inputs\":[0,1]", "\"inputs\":[0]"))),
        ("node %", Box::new(replaced("\"shape\":[2,4,6,6]", "\"shape\":[2,4,6,7]"))),
        ("number of elements", Box::new(replaced("\"shape\":[2,4,6,6]", "\"shape\":[2147483648,2147483648]"))),
        ("reads parameter 99", Box::new(replaced("\"slot\":0", "\"slot\":99"))),
        (
            "root %7777",
            Box::new(|json: &str| json.replace("\"outputs\":[[\"output\",", "\"outputs\":[[\"output\",7777")),
        ),
        ("is listed as an update", Box::new(replaced("\"updates\":[]", "\"updates\":[0]"))),
        ("the file lacks it", Box::new(replaced("\"name\":\"0.weight\"", "\"name\":\"0.wait\""))),
        ("did not match", Box::new(replaced("Conv2d", "Poison"))),
        ("unknown field", Box::new(replaced("\"guard\"", "\"more\":1,\"guard\""))),
    ];
    for (part, change) in cases {
        write_graph(&path, &graph).unwrap();
        with_json(&path, change);
        let error = read_graph(&path).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(part) && !error.is_io(), "`{part}`: {error}");
    }
    // Of another kind, and of a later version.
    write_safetensors(&path, net().state_dict(), &BTreeMap::new()).unwrap();
    assert!(read_graph(&path).unwrap_err().to_string().contains("holds no graph"));
    let later = [("format", "striate-graph"), ("format_version", "2")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    write_safetensors(&path, Vec::<(String, Array)>::new(), &later.into()).unwrap();
    assert!(matches!(read_graph(&path).unwrap_err(), Error::Version { found: 2, known: 1, .. }));
}

#[test]
fn a_graph_with_an_error_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.graph");
    let trace = Trace::new(Mode::Eval);
    let x = trace.input("x", [2], DType::F32);
    let y = x.reshape([3]);
    let _ = gradients(&y, &[&x]);
    let graph = trace.with_graph(Clone::clone);
    assert!(write_graph(&path, &graph).unwrap_err().to_string().contains("Reshape"));
    assert!(!path.exists());
}
