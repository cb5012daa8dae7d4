//! Safetensors: round trips, the bytes, and files that lie.

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use striate_graph::{Array, DType};
use striate_io::{Error, parse_safetensors, read_safetensors, safetensors_bytes, write_safetensors};

const DTYPES: [DType; 10] = [
    DType::F32,
    DType::F64,
    DType::F16,
    DType::BF16,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::Bool,
];

fn name() -> &'static Path {
    Path::new("x.safetensors")
}

/// A file from a header as written and its data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[track_caller]
fn error(bytes: &[u8]) -> String {
    let message = parse_safetensors(bytes, name()).expect_err("must be refused").to_string();
    assert!(message.starts_with("x.safetensors: "), "{message}");
    message
}

#[test]
fn every_dtype_comes_back_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let values: Vec<f64> = (0..12).map(|i| f64::from(i) * 0.37 - 1.0).collect();
    let mut arrays = BTreeMap::new();
    for dtype in DTYPES {
        arrays.insert(format!("{dtype}"), Array::from_f64([3, 4], &values, dtype).unwrap());
        arrays.insert(format!("{dtype}.scalar"), Array::from_f64([], &[1.0], dtype).unwrap());
        arrays.insert(format!("{dtype}.empty"), Array::zeros([2, 0, 3], dtype));
    }
    let special = [f32::NAN, f32::NEG_INFINITY, -0.0, f32::from_bits(0x7fc0_1234), f32::from_bits(1)];
    arrays.insert("special \"é\"".into(), Array::from_vec([5], special.to_vec()).unwrap());
    let metadata = BTreeMap::from([("classes".to_string(), "[\"cat\", \"dog\"]\n".to_string())]);
    write_safetensors(&path, arrays.clone(), &metadata).unwrap();
    let read = read_safetensors(&path).unwrap();
    assert_eq!(read.metadata, metadata);
    assert_eq!(read.arrays.len(), arrays.len());
    for (key, array) in &arrays {
        assert!(read.arrays[key].bits_eq(array), "{key}");
    }
}

#[test]
fn the_bytes_are_a_function_of_the_contents() {
    let a = Array::from_vec([2], vec![1u8, 2]).unwrap();
    let b = Array::from_vec([1], vec![1.0f32]).unwrap();
    let metadata = BTreeMap::from([("z".to_string(), "1".to_string()), ("a".to_string(), "2".to_string())]);
    let one = safetensors_bytes(name(), [("a", a.clone()), ("b", b.clone())], &metadata).unwrap();
    let two = safetensors_bytes(name(), [("b", b), ("a", a)], &metadata).unwrap();
    assert_eq!(one, two);
    let header = concat!(
        r#"{"__metadata__":{"a":"2","z":"1"},"#,
        r#""a":{"dtype":"U8","shape":[2],"data_offsets":[4,6]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#
    );
    let padded = format!("{header:<width$}", width = header.len().next_multiple_of(8));
    assert_eq!(one, file(&padded, &[0, 0, 0x80, 0x3f, 1, 2]));
}

#[test]
fn names_must_differ_and_not_be_reserved() {
    let one = || Array::scalar(1.0f32);
    let twice = safetensors_bytes(name(), [("a", one()), ("a", one())], &BTreeMap::new()).unwrap_err();
    assert!(twice.to_string().contains("array `a`: the name occurs twice"), "{twice}");
    let reserved = safetensors_bytes(name(), [("__metadata__", one())], &BTreeMap::new()).unwrap_err();
    assert!(reserved.to_string().contains("reserved"), "{reserved}");
}

#[test]
fn a_cut_file_is_refused_at_every_length() {
    let arrays = [("w", Array::arange([3, 5])), ("b", Array::from_vec([2], vec![1i64, 2]).unwrap())];
    let bytes = safetensors_bytes(name(), arrays, &BTreeMap::new()).unwrap();
    for length in 0..bytes.len() {
        error(&bytes[..length]);
    }
    error(&[&bytes[..], &[0]].concat());
}

#[test]
fn declared_sizes_are_not_believed() {
    let huge = (u64::MAX / 2).to_le_bytes();
    assert!(error(&huge).contains("at most 16777216 are accepted"));
    assert!(error(&(16u64 << 20).to_le_bytes()).contains("the header needs 16777216 bytes, but only 0 are left"));
    let big = r#"{"w":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}"#;
    assert!(error(&file(big, &[])).contains("declares 4398046511104 bytes of data, the file has 0"));
}

#[test]
fn what_is_wrong_with_an_array_names_it() {
    let cases = [
        (r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, "array `w`: data_offsets [0, 4]"),
        (r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, "array `w`: data_offsets [4, 0]"),
        (r#"{"w":{"dtype":"Q7","shape":[1],"data_offsets":[0,4]}}"#, "array `w`: unknown variant `Q7`"),
        (r#"{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, "array `w`"),
        (r#"{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#, "array `w`"),
        (r#"{"w":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}"#, "dtype F8_E4M3 (array `w`) is not supported"),
        (r#"{"w":{"dtype":"F32","shape":[0,1099511627776,1099511627776],"data_offsets":[0,0]}}"#, "array `w`: shape"),
        (r#"{"w":7}"#, "array `w`"),
        (r#"["w"]"#, "is not a JSON object"),
        (r#"{"w":"#, "is not a JSON object"),
    ];
    for (header, part) in cases {
        let end = if header.contains("[0,0]") { 0 } else { 4 };
        let message = error(&file(header, &[0; 4][..end]));
        assert!(message.contains(part), "{header}: {message}");
    }
    let overlapping = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    assert!(error(&file(overlapping, &[0; 4])).contains("invalid offset for tensor"));
    let deep = format!("{{\"w\":{}", "[".repeat(100_000));
    error(&file(&deep, &[]));
}

#[test]
fn too_many_arrays_are_refused() {
    let entries = (0..65_537).map(|i| format!("\"{i}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}"));
    let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    assert!(error(&file(&header, &[])).contains("the number of arrays is 65537, at most 65536"));
}

#[test]
fn folders_and_missing_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(read_safetensors(folder.path()), Err(Error::NotAFile { .. })));
    let missing = read_safetensors(&folder.path().join("no.safetensors")).unwrap_err();
    assert!(missing.is_io() && missing.to_string().contains("no.safetensors: cannot open"), "{missing}");
}

proptest! {
    #[test]
    fn damage_is_an_error_or_other_values_but_never_a_panic(
        at in 0usize..400,
        byte in any::<u8>(),
        length in 0usize..400,
    ) {
        let arrays = [("conv.weight", Array::arange([2, 3, 3])), ("n", Array::scalar(7i64))];
        let mut bytes = safetensors_bytes(name(), arrays, &BTreeMap::new()).unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = parse_safetensors(&bytes, name());
        bytes.truncate(length);
        let _ = parse_safetensors(&bytes, name());
    }

    #[test]
    fn noise_is_refused(header in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(parse_safetensors(&header, name()).is_err());
    }
}
