//! ONNX files as MODEL, in every verb that takes one.

mod common;

use common::{run, tiny_set};
use serde_json::Value;
use striate::graph::{Array, DType};
use striate::io::onnx::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
};
use striate::io::onnx::{data_type, write_onnx};
use striate::io::{read_npy, write_npy};

fn last(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn an_exported_net_is_used_like_the_net() {
    let set = tiny_set();
    let at = |name: &str| set.root().join(name).to_str().unwrap().to_owned();
    let (file, x, out) = (at("lenet.onnx"), at("x.npy"), at("out"));
    run(&["export", "lenet", &file]).ok();
    write_npy(x.as_ref(), &Array::arange([3, 1, 28, 28])).unwrap();
    let mut found = Vec::new();
    for model in ["lenet", &file] {
        run(&["run", model, "--input", &x, "--output", &out]).ok();
        found.push(read_npy(&set.root().join("out").join("0.npy")).unwrap());
    }
    assert!(found[0].bits_eq(&found[1]), "{} instead of {}", found[1], found[0]);
    run(&["run", &file, "--input", &format!("nothing={x}"), "--output", &out]).fails(2, &["nothing", "images"]);
    let row = last(&run(&["bench", "infer", &file, "--seconds", "0.05", "--json"]).ok().stdout);
    assert!(row["median_ms"].as_f64().unwrap() > 0.0);
    let (own, theirs) = (run(&["inspect", "lenet", "--json"]).ok(), run(&["inspect", &file, "--json"]).ok());
    let (own, theirs) = (last(&own.stdout), last(&theirs.stdout));
    assert_eq!((&own["parameters"], &own["macs"]), (&theirs["parameters"], &theirs["macs"]));
}

#[test]
fn training_goes_on_from_a_file_and_its_run_is_a_model() {
    let set = tiny_set();
    let file = set.root().join("lenet.onnx");
    let file = file.to_str().unwrap();
    run(&["export", "lenet", file]).ok();
    for (name, flag) in [("a", "--model"), ("b", "--weights")] {
        let args = ["train", set.data(), flag, file, "--project", set.project(), "--name", name, "--plain"];
        let done = run(&[&args[..], &["--epochs", "1", "--batch", "16", "--imgsz", "28"]].concat()).ok();
        assert!(done.stdout.contains("replaced and initialised"), "{}", done.stdout);
    }
    let net = set.folder("a");
    // Weights say all: the file that they came from may be gone.
    std::fs::remove_file(file).unwrap();
    let judged = last(&run(&["val", net.to_str().unwrap(), set.data(), "--json"]).ok().stdout);
    let metrics: Value = serde_json::from_str(&std::fs::read_to_string(net.join("metrics.json")).unwrap()).unwrap();
    assert_eq!(judged["top1"], metrics["top1"]);
    let again = set.root().join("again.onnx");
    run(&["export", net.to_str().unwrap(), again.to_str().unwrap()]).ok();
    let judged = last(&run(&["val", again.to_str().unwrap(), set.data(), "--json"]).ok().stdout);
    assert_eq!(judged["top1"], metrics["top1"]);
}

#[test]
fn what_is_not_supported_is_wrong_usage_and_said_whole() {
    let set = tiny_set();
    let tensor = TensorType { elem_type: data_type(DType::F32) as i32, shape: None };
    let r#type = TypeProto { value: Some(TypeValue::TensorType(tensor)), denotation: String::new() };
    let info =
        |name: &str| ValueInfoProto { name: name.into(), r#type: Some(r#type.clone()), ..ValueInfoProto::default() };
    let node = |operator: &str, from: &str, to: &str| NodeProto {
        op_type: operator.into(),
        input: vec![from.into()],
        output: vec![to.into()],
        name: format!("node_{to}"),
        ..NodeProto::default()
    };
    let graph = GraphProto {
        node: vec![node("Wobble", "x", "y"), node("Relu", "y", "z"), node("Wiggle", "z", "w")],
        input: vec![info("x")],
        output: vec![info("w")],
        ..GraphProto::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 18 }];
    let path = set.root().join("strange.onnx");
    write_onnx(&path, ModelProto { ir_version: 8, opset_import, graph: Some(graph), ..ModelProto::default() }).unwrap();
    let done = run(&["inspect", path.to_str().unwrap()]);
    done.fails(2, &["node_y", "Wobble", "node_w", "Wiggle"]);
}
