//! `striate convert` and `striate inspect` of files of weights.

mod common;

use common::{Run, run};
use std::path::{Path, PathBuf};
use striate::graph::{Array, DType};
use striate::io::{FileFormat, read_weights, write_pth, write_safetensors};
use striate::nn::{Module, StateDict};
use striate::vision::models::{ModelInfo, Task, find_model, save_model};
use striate::vision::transforms::Preprocess;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../striate-io/tests/fixtures/pth")
}

fn convert(from: &Path, to: &Path) -> Run {
    run(&["convert", from.to_str().unwrap(), to.to_str().unwrap()])
}

/// An array of each type and of every odd shape.
fn arrays() -> Vec<(String, Array)> {
    let base = Array::from_vec([2, 3], vec![0.0f32, 1.0, 2.5, 3.25, 100.0, 7.0]).unwrap();
    let kinds =
        [DType::F32, DType::F64, DType::F16, DType::I8, DType::I16, DType::I32, DType::I64, DType::U8, DType::Bool];
    let mut arrays: Vec<(String, Array)> = kinds.iter().map(|kind| (format!("z.{kind}"), base.cast(*kind))).collect();
    arrays.push(("b.scalar".to_owned(), Array::scalar(-0.0f32)));
    arrays.push(("a.empty".to_owned(), Array::zeros([2, 0, 3], DType::F32)));
    arrays.push(("nan".to_owned(), Array::from_vec([2], vec![f32::NAN, f32::NEG_INFINITY]).unwrap()));
    arrays
}

#[test]
fn names_types_and_bits_survive_every_way() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let arrays = arrays();
    write_pth(&place("0.pth"), arrays.clone(), &Default::default()).unwrap();
    // one kind of file after the other, each from the one before
    for (from, to, format) in [
        ("0.pth", "1.safetensors", FileFormat::Safetensors),
        ("1.safetensors", "2.npz", FileFormat::Npz),
        ("2.npz", "3.pt", FileFormat::Pth),
        ("3.pt", "4.npz", FileFormat::Npz),
        ("4.npz", "5.safetensors", FileFormat::Safetensors),
        ("5.safetensors", "6.pth", FileFormat::Pth),
    ] {
        convert(&place(from), &place(to)).ok();
        let weights = read_weights(&place(to)).unwrap();
        assert_eq!((weights.format, weights.arrays.len()), (format, arrays.len()), "{to}");
        for (name, array) in &arrays {
            assert!(weights.arrays[name.as_str()].bits_eq(array), "{to} {name}: {}", weights.arrays[name.as_str()]);
        }
    }
    // the same bytes each time
    convert(&place("5.safetensors"), &place("7.pth")).ok();
    let bytes = |name: &str| std::fs::read(place(name)).unwrap();
    assert!(bytes("6.pth") == bytes("7.pth") && bytes("1.safetensors") == bytes("5.safetensors"));
}

#[test]
fn what_a_kind_of_file_cannot_hold_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let half = Array::from_vec([2], vec![1.0f32, 2.0]).unwrap().cast(DType::BF16);
    let metadata = [("classes".to_owned(), "a b".to_owned())].into();
    write_safetensors(&place("a.safetensors"), [("w", half.clone())], &metadata).unwrap();
    convert(&place("a.safetensors"), &place("b.npz")).fails(2, &["b.npz", "bfloat16", "--dtype f32"]);
    convert(&place("a.safetensors"), &place("c.pth")).ok();
    let weights = read_weights(&place("c.pth")).unwrap();
    assert!(weights.arrays["w"].bits_eq(&half) && weights.metadata == metadata);
    let (from, to) = (place("c.pth"), place("d.npz"));
    let done = run(&["convert", from.to_str().unwrap(), to.to_str().unwrap(), "--dtype", "f32"]).ok();
    assert!(done.stderr.contains("holds no metadata; left out: classes"), "{}", done.stderr);
    let one = read_weights(&to).unwrap().arrays["w"].clone();
    assert!(one.bits_eq(&Array::from_vec([2], vec![1.0f32, 2.0]).unwrap()), "{one}");
    convert(&to, &place("e.npy")).ok();
    assert!(read_weights(&place("e.npy")).unwrap().arrays["array"].bits_eq(&one));
    convert(&fixtures().join("plain_zip.pth"), &place("f.npy")).fails(2, &["holds one array, there are 8"]);
    convert(&to, &place("g.bin")).fails(2, &["g.bin", ".safetensors"]);
    convert(&to, &place("g.onnx")).fails(2, &["d.npz", "--model NAME"]);
    convert(&place("none.pth"), &place("g.npz")).fails(5, &["none.pth"]);
    assert!(!place("g.npz").exists() && !place("b.npz").exists());
}

#[test]
fn a_net_of_ours_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let spec = find_model("lenet").unwrap();
    let net = spec.build([1, 28, 28], 3, 5).unwrap();
    let info = ModelInfo {
        task: Task::Classify,
        structure: None,
        targets: None,
        model: "lenet".to_owned(),
        input: [1, 28, 28],
        class_names: ["a", "b", "c"].map(str::to_owned).to_vec(),
        preprocess: Preprocess::exact(28, 28, 1),
    };
    save_model(&place("a.safetensors"), net.state_dict(), &info).unwrap();
    convert(&place("a.safetensors"), &place("b.pth")).ok();
    convert(&place("b.pth"), &place("c.safetensors")).ok();
    assert!(std::fs::read(place("a.safetensors")).unwrap() == std::fs::read(place("c.safetensors")).unwrap());
    // a .pth that says which net it is for is a MODEL
    let shown = run(&["inspect", place("b.pth").to_str().unwrap(), "--plain"]).ok();
    assert!(shown.stdout.contains("lenet, input 1x1x28x28"), "{}", shown.stdout);
    // into ONNX and back: the initializers under their names
    convert(&place("b.pth"), &place("d.onnx")).ok();
    convert(&place("d.onnx"), &place("e.safetensors")).ok();
    let back: StateDict = read_weights(&place("e.safetensors")).unwrap().arrays;
    for (name, array) in net.state_dict().iter() {
        assert!(back.get(name).is_some_and(|found| found.bits_eq(array)), "{name}");
    }
    // plain weights with the name of their net
    convert(&place("a.safetensors"), &place("f.npz")).ok();
    let (npz, onnx) = (place("f.npz"), place("g.onnx"));
    run(&["convert", npz.to_str().unwrap(), onnx.to_str().unwrap(), "--model", "lenet"]).ok();
    run(&["convert", npz.to_str().unwrap(), "x.pth", "--fold"]).fails(2, &["flags of `striate export`"]);
}

#[test]
fn inspect_shows_the_arrays_of_a_file() {
    let of = |name: &str, flags: &[&str]| {
        let path = fixtures().join(name);
        run(&[&["inspect", path.to_str().unwrap()], flags].concat()).ok().stdout
    };
    let text = of("shapes_zip.pth", &["--plain"]);
    for part in ["scalar", "()", "2x0x3", "tied_a", "float32", "array(s)"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = of("checkpoint_zip.pth", &["--plain"]);
    for part in ["`config` (__main__.Config)", "`args` (argparse.Namespace)", "running_var", "`state_dict`"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = of("dtypes_legacy.pth", &["--json"]);
    assert_eq!(text.lines().count(), 1);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((value["format"].as_str(), value["elements"].as_u64()), (Some("pth"), Some(60)));
    let arrays = value["arrays"].as_array().unwrap();
    let array = arrays.iter().find(|array| array["name"] == "bfloat16").unwrap();
    assert_eq!((&array["dtype"], &array["shape"]), (&"bfloat16".into(), &serde_json::json!([2, 3])));
    assert_eq!((array["min"].as_f64(), array["max"].as_f64()), (Some(0.0), Some(100.0)));
    let value: serde_json::Value = serde_json::from_str(&of("checkpoint_legacy.pth", &["--json"])).unwrap();
    let unknown: Vec<&str> = value["unknown"].as_array().unwrap().iter().filter_map(|u| u["entry"].as_str()).collect();
    assert!(unknown.contains(&"config") && unknown.contains(&"args"), "{unknown:?}");
}
