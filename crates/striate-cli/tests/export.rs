//! `striate export` as a process.

mod common;

use common::{run, tiny_set};
use serde_json::Value;
use std::path::Path;
use striate::vision::data::Image;
use striate::vision::detection::encode_jpeg;

fn metadata(path: &Path) -> Vec<(String, String)> {
    let model = striate::io::onnx::read_proto(path).unwrap();
    model.metadata_props.into_iter().map(|entry| (entry.key, entry.value)).collect()
}

#[test]
fn a_run_becomes_a_model_that_says_what_it_is() {
    let set = tiny_set();
    let args = ["train", set.data(), "--project", set.project(), "--name", "net", "--plain", "--epochs", "1"];
    run(&[&args[..], &["--model", "lenet", "--batch", "16", "--threads", "2"]].concat()).ok();
    let folder = set.folder("net");
    let (net, out) = (folder.to_str().unwrap(), set.root().join("net.onnx"));
    let path = out.to_str().unwrap();
    let done = run(&["export", net, path, "--json"]).ok();
    let report: Value = serde_json::from_str(done.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&report["opset"], report["bytes"].as_u64()), (&Value::from(18), Some(out.metadata().unwrap().len())));
    assert!(report["difference"].as_f64().unwrap() <= 1e-5, "{report}");
    let found = metadata(&out);
    let get = |key: &str| found.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str()).unwrap_or_default();
    assert_eq!((get("format"), get("model")), ("striate", "lenet"));
    assert_eq!((get("input_values"), get("output_values")), ("normalized", "logits"));
    let names: Vec<String> = serde_json::from_str(get("class_names")).unwrap();
    assert!(!names.is_empty() && get("preprocess").contains("mean"));
    // The same run gives the same bytes, and those that were there before are replaced whole.
    let first = std::fs::read(&out).unwrap();
    run(&["export", net, path]).ok();
    assert_eq!(std::fs::read(&out).unwrap(), first);
    run(&["export", net, path, "--opset", "13", "--softmax", "--with-preprocessing", "--fold"]).ok();
    let found = metadata(&out);
    assert!(found.contains(&("input_values".into(), "bytes".into())));
    assert!(found.contains(&("output_values".into(), "probabilities".into())));
}

#[test]
fn what_cannot_be_exported_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("net.onnx");
    let path = out.to_str().unwrap();
    run(&["export", "lenet", path, "--opset", "7"]).fails(2, &["opset 7 cannot be written", "13 to 23"]);
    run(&["export", "lenet", path, "--nms"]).fails(2, &["--nms is for detectors"]);
    run(&["export", "lenet", folder.path().join("net.bin").to_str().unwrap()]).fails(2, &["must end in .onnx"]);
    run(&["export", "lenets", path]).fails(2, &["did you mean `lenet`?"]);
    // Its linear layers are made for one size.
    run(&["export", "lenet", path, "--dynamic-size"]).fails(2, &["fc1"]);
    run(&["export", "lenet", "/no/such/folder/net.onnx"]).fails(5, &["/no/such/folder/net.onnx"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_detector_becomes_boxes_and_scores() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("net.onnx");
    let path = out.to_str().unwrap();
    let outputs = || {
        let graph = striate::io::onnx::read_proto(&out).unwrap().graph.unwrap();
        graph.output.into_iter().map(|output| output.name).collect::<Vec<_>>()
    };
    run(&["export", "striate_det_n", path, "--imgsz", "96"]).ok();
    assert_eq!(outputs(), ["boxes", "scores"]);
    let found = metadata(&out);
    let get = |key: &str| found.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str()).unwrap_or_default();
    let names: Vec<String> = serde_json::from_str(get("class_names")).unwrap();
    assert_eq!((get("task"), names.len(), get("output_values")), ("detect", 80, "boxes and scores"));
    assert!(get("preprocess").to_lowercase().contains("letterbox"), "{}", get("preprocess"));
    let thresholds: Value = serde_json::from_str(get("thresholds")).unwrap();
    assert_eq!((&thresholds["iou"], &thresholds["max_detections"]), (&Value::from(0.65), &Value::from(300)));
    let done = run(&["export", "striate_det_n", path, "--imgsz", "96", "--nms", "--with-preprocessing", "--json"]).ok();
    let report: Value = serde_json::from_str(done.stdout.lines().last().unwrap()).unwrap();
    assert!(report["difference"].as_f64().unwrap() <= 1e-5, "{report}");
    assert_eq!(outputs(), ["boxes", "scores", "labels"]);
    run(&["export", "striate_det_n", path, "--softmax"]).fails(2, &["probabilities already"]);
    run(&["export", "striate_det_n", path, "--dynamic-size"]).fails(2, &["anchors"]);
}

/// Whether `predict` tells boxes of a picture with a file.
fn predict_reads(model: &Path) -> bool {
    let picture = model.with_extension("jpg");
    let image = Image::new(40, 30, 3, (0..3600).map(|i| (i * 7 % 251) as u8).collect()).unwrap();
    std::fs::write(&picture, encode_jpeg(&image).unwrap()).unwrap();
    let (model, picture) = (model.to_str().unwrap(), picture.to_str().unwrap());
    let done = run(&["predict", model, picture, "--conf", "0", "--json"]).ok();
    let line: Value = serde_json::from_str(done.stdout.lines().last().unwrap()).unwrap();
    line["boxes"].is_array()
}

#[test]
fn a_detector_of_two_stages_becomes_a_model_that_predict_reads() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("net.onnx");
    let path = out.to_str().unwrap();
    let name = "fasterrcnn_mobilenet_v3_large_320_fpn";
    for (flags, outputs, told) in [
        (&["--opset", "13"][..], &["boxes", "scores"][..], "boxes and scores"),
        (&["--opset", "23", "--nms", "--with-preprocessing"], &["boxes", "scores", "labels"], "detections"),
        (&["--nms", "--half", "--fold"], &["boxes", "scores", "labels"], "detections"),
    ] {
        run(&[&["export", name, path, "--imgsz", "96"], flags].concat()).ok();
        let graph = striate::io::onnx::read_proto(&out).unwrap().graph.unwrap();
        assert_eq!(graph.output.iter().map(|output| output.name.as_str()).collect::<Vec<_>>(), outputs);
        assert!(metadata(&out).contains(&("output_values".to_owned(), told.to_owned())));
        assert!(predict_reads(&out), "{flags:?}");
    }
}

#[test]
fn the_file_counts_the_background_where_the_net_scores_it() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("net.onnx");
    for (name, classes, first) in [
        ("retinanet_resnet18_fpn", 91, "__background__"),
        ("fcos_resnet18_fpn", 91, "__background__"),
        ("ssdlite320_mobilenet_v3_large", 90, "person"),
    ] {
        run(&["export", name, out.to_str().unwrap(), "--imgsz", "64"]).ok();
        let found = metadata(&out);
        let names = found.iter().find(|(key, _)| key == "class_names").map(|(_, value)| value.as_str()).unwrap();
        let names: Vec<String> = serde_json::from_str(names).unwrap();
        assert_eq!((names.len(), names[0].as_str()), (classes, first), "{name}");
        // It refuses scores of another number of classes.
        assert!(predict_reads(&out), "{name}");
    }
}

#[test]
fn any_size_and_half_the_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("net.onnx");
    let path = out.to_str().unwrap();
    run(&["export", "resnet18_cifar", path, "--imgsz", "64"]).ok();
    let whole = out.metadata().unwrap().len();
    run(&["export", "resnet18_cifar", path, "--dynamic-size", "--half"]).ok();
    assert!(out.metadata().unwrap().len() < whole * 6 / 10);
}
