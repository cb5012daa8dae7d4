//! Any weights file through one function.

use std::path::Path;
use striate_graph::{Array, DType};
use striate_io::{FileFormat, detect_format, fit_names, read_weights, write_npy, write_npz, write_safetensors};
use striate_nn::{BatchNorm2d, Linear, Module, Sequential, StateDict};

fn written(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn the_content_says_the_format_and_not_the_ending() {
    let folder = tempfile::tempdir().unwrap();
    let array = || Array::from_vec([2, 1], vec![1.0f32, 2.0]).unwrap();
    let path = folder.path().join("weights.pth");
    for format in [FileFormat::Safetensors, FileFormat::Npz, FileFormat::Npy] {
        match format {
            FileFormat::Npz => write_npz(&path, [("array", array())]).unwrap(),
            FileFormat::Npy => write_npy(&path, &array()).unwrap(),
            _ => write_safetensors(&path, [("array", array())], &[("k".into(), "v".into())].into()).unwrap(),
        }
        let weights = read_weights(&path).unwrap();
        assert_eq!((weights.format, detect_format(&path).unwrap()), (format, format));
        assert!(weights.arrays["array"].bits_eq(&array()));
        assert_eq!(weights.metadata.len(), usize::from(format == FileFormat::Safetensors));
        assert!(weights.notes.is_empty());
    }
}

#[test]
fn what_is_no_weights_file_is_called_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&[u8], &str); 6] = [
        (b"", "is empty"),
        (b"abc", "3 bytes"),
        (b"\x89HDF\r\n\x1a\n and more", "HDF5"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0", "gzip"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"#!/bin/sh\necho weights", "first bytes"),
    ];
    for (bytes, part) in cases {
        let message = read_weights(&written(folder.path(), "x.pth", bytes)).unwrap_err().to_string();
        assert!(message.contains("x.pth: ") && message.contains(part), "{message}");
    }
}

#[test]
fn wrappers_are_taken_off_the_names() {
    let net = || Sequential::new().add(Linear::new(3, 2)).add(BatchNorm2d::new(2));
    let renamed = |prefix: &str| -> StateDict {
        net().state_dict().into_iter().map(|(name, array)| (format!("{prefix}{name}"), array)).collect()
    };
    for prefix in ["", "module.", "model.", "module._orig_mod.", "encoder.0."] {
        let mut dict = renamed(prefix);
        dict.insert("other.weight", Array::scalar(1.0f32));
        let (fitted, notes) = fit_names(dict, &net());
        assert_eq!(notes.len(), usize::from(!prefix.is_empty()), "{notes:?}");
        assert!(net().state_dict().keys().all(|name| fitted.contains(name)) && fitted.contains("other.weight"));
    }
    // A net without counters takes a dict with them, and the other way round.
    let bare = Linear::new(3, 2);
    let mut dict = bare.state_dict();
    dict.insert("bn.num_batches_tracked", Array::zeros([], DType::I64));
    let (fitted, notes) = fit_names(dict, &bare);
    assert_eq!((fitted.len(), notes.len()), (2, 1));
    let old = net().state_dict().into_iter().filter(|(name, _)| !name.ends_with("num_batches_tracked")).collect();
    net().load_state_dict(&old, true).unwrap();
}
