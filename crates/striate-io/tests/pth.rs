//! PyTorch's files: those that PyTorch wrote (`tools/ref/pth_files.py`), and what is made of those that no weights are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use striate_io::{Error, FileFormat, Weights, parse_weights, read_safetensors, read_weights, write_pth};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pth")
}

fn read(name: &str) -> Weights {
    read_weights(&folder().join(format!("{name}.pth"))).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn refused(name: &str, parts: &[&str]) {
    let error = read_weights(&folder().join(format!("{name}.pth"))).expect_err("must be refused");
    let message = error.to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    assert!(!message.chars().any(char::is_control), "{message}");
}

#[test]
fn what_pytorch_wrote_is_read_bit_by_bit() {
    let mut files: BTreeMap<String, Vec<(String, striate_graph::Array)>> = BTreeMap::new();
    for (key, array) in read_safetensors(&folder().join("expected.safetensors")).unwrap().arrays {
        let (file, name) = key.split_once('/').unwrap();
        files.entry(file.to_owned()).or_default().push((name.to_owned(), array));
    }
    assert!(files.len() >= 18, "{:?}", files.keys());
    for (file, wanted) in &files {
        let weights = read(file);
        assert_eq!(weights.format, FileFormat::Pth);
        let mut names: Vec<&str> = weights.arrays.keys().collect();
        names.sort_unstable();
        assert_eq!(names, wanted.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), "{file}");
        for (name, array) in wanted {
            assert!(weights.arrays[name.as_str()].bits_eq(array), "{file} {name}: {}", weights.arrays[name.as_str()]);
        }
    }
}

#[test]
fn names_keep_the_order_of_the_file() {
    let names = [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
        "2.weight",
    ];
    for file in ["plain_zip", "plain_legacy", "checkpoint_zip"] {
        assert_eq!(read(file).arrays.keys().collect::<Vec<_>>(), names, "{file}");
    }
}

#[test]
fn what_was_left_out_is_said() {
    assert!(read("plain_zip").notes.is_empty() && read("plain_legacy").notes.is_empty());
    for file in ["checkpoint_zip", "checkpoint_legacy"] {
        let notes = read(file).notes.join("\n");
        assert!(notes.contains("the weights are those of `state_dict`"), "{notes}");
        for part in ["`epoch` (the number 12)", "`args` (argparse.Namespace)", "`config` (__main__.Config)"] {
            assert!(notes.contains(part), "{part}: {notes}");
        }
    }
    let notes = read("nested_zip").notes.join("\n");
    assert!(notes.contains("`model.state_dict`") && notes.contains("`ema` (a dict of 1)"), "{notes}");
    let notes = read("list_zip").notes.join("\n");
    assert!(notes.contains("no state dict"), "{notes}");
}

#[test]
fn what_needs_code_or_another_dtype_is_refused_by_name() {
    refused("module_zip", &["torch.nn.modules.container.Sequential", "state_dict()"]);
    refused("model_object_zip", &["torch.nn.modules.container.Sequential", "`model`", "state_dict()"]);
    refused("script_zip", &["TorchScript"]);
    refused("complex_zip", &["array `a.weight`", "complex64"]);
    refused("quantised_zip", &["array `a.weight`", "_rebuild_qtensor"]);
}

#[test]
fn tied_weights_are_one_array() {
    for file in ["shapes_zip", "shapes_legacy"] {
        let arrays = read(file).arrays;
        let of = |name: &str| arrays[name].f32s().unwrap().as_ptr();
        assert_eq!(of("tied_a"), of("tied_b"), "{file}");
        assert_ne!(of("tied_a"), of("other_view"), "{file}");
    }
}

#[test]
fn a_cut_or_damaged_file_is_an_error_or_other_values_but_never_a_panic() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("damaged.pth");
    for file in ["plain_zip", "plain_legacy", "shapes_zip", "parameters_zip"] {
        let whole = std::fs::read(folder().join(format!("{file}.pth"))).unwrap();
        for length in (0..whole.len()).step_by(101) {
            std::fs::write(&path, &whole[..length]).unwrap();
            read_weights(&path).expect_err("a part is no file");
        }
        for at in (0..whole.len()).step_by(11) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).unwrap();
            if let Err(error) = read_weights(&path) {
                assert!(!matches!(error, Error::Io { .. }), "{file} byte {at}: {error}");
                assert!(!error.to_string().chars().any(char::is_control), "{file} byte {at}: {error}");
            }
        }
    }
}

#[test]
fn what_we_write_is_read_again_in_its_order_and_tied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pth");
    let shapes = read("shapes_zip").arrays;
    let dtypes = read("dtypes_zip").arrays;
    let all: Vec<(String, striate_graph::Array)> = shapes.into_iter().chain(dtypes).collect();
    let metadata: BTreeMap<String, String> =
        [("model".to_owned(), "é\n\"".to_owned()), ("a".to_owned(), String::new())].into();
    write_pth(&path, all.clone(), &metadata).unwrap();
    let weights = read_weights(&path).unwrap();
    assert!(weights.notes.is_empty() && weights.unknown.is_empty(), "{:?}", weights.notes);
    assert_eq!(weights.metadata, metadata);
    assert_eq!(weights.arrays.keys().collect::<Vec<_>>(), all.iter().map(|(name, _)| name).collect::<Vec<_>>());
    for (name, array) in &all {
        assert!(weights.arrays[name.as_str()].bits_eq(array), "{name}: {}", weights.arrays[name.as_str()]);
    }
    let of = |name: &str| weights.arrays[name].f32s().unwrap().as_ptr();
    assert_eq!(of("tied_a"), of("tied_b"));
    // the same bytes each time, and in memory
    let bytes = std::fs::read(&path).unwrap();
    write_pth(&path, all.clone(), &metadata).unwrap();
    assert!(bytes == std::fs::read(&path).unwrap());
    assert_eq!(parse_weights(&bytes, Path::new("w")).unwrap().arrays.len(), all.len());
    let twice = [all[0].clone(), all[0].clone()];
    assert!(write_pth(&path, twice, &metadata).unwrap_err().to_string().contains("twice"));
    write_pth(&path, Vec::<(String, striate_graph::Array)>::new(), &metadata).unwrap();
}
