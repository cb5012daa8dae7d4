//! ONNX files whose messages or tensors are broken. The bytes are written by hand, as no writer would make them.

use super::Case;
use std::path::Path;

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A field with bytes or a message.
pub fn field(tag: u64, inside: impl AsRef<[u8]>) -> Vec<u8> {
    let inside = inside.as_ref();
    [varint(tag << 3 | 2), varint(inside.len() as u64), inside.to_vec()].concat()
}

/// A field with a number.
pub fn number(tag: u64, value: i64) -> Vec<u8> {
    [varint(tag << 3), varint(value as u64)].concat()
}

/// A model of that graph.
pub fn model(graph: &[Vec<u8>]) -> Vec<u8> {
    let opset = [field(1, ""), number(2, 17)].concat();
    [number(1, 8), field(2, "striate-tests"), field(7, graph.concat()), field(8, opset)].concat()
}

/// A tensor's fields: sizes, type, and what else.
pub fn tensor(name: &str, dims: &[i64], kind: i64, rest: &[Vec<u8>]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|size| number(1, *size)).collect();
    [dims, number(2, kind), field(8, name), rest.concat()].concat()
}

pub const FLOAT: i64 = 1;
const UINT8: i64 = 2;
const INT8: i64 = 3;
pub const INT64: i64 = 7;
const STRING: i64 = 8;
const UINT64: i64 = 13;

/// `raw_data` of that many bytes.
pub fn raw(count: usize) -> Vec<u8> {
    field(9, vec![0; count])
}

/// A model with one initializer, `layer.w`.
fn with(dims: &[i64], kind: i64, rest: &[Vec<u8>]) -> Vec<u8> {
    model(&[field(5, tensor("layer.w", dims, kind, rest))])
}

/// One whose data lie elsewhere.
fn external(entries: &[(&str, &str)]) -> Vec<u8> {
    let entries = entries.iter().map(|(key, value)| field(13, [field(1, key), field(2, value)].concat()));
    let rest: Vec<Vec<u8>> = entries.chain([number(14, 1)]).collect();
    with(&[4], FLOAT, &rest)
}

fn sparse(dims: &[i64], values: Option<Vec<u8>>, indices: Option<Vec<u8>>) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|size| number(3, *size)).collect();
    let values = values.map_or(Vec::new(), |values| field(1, values));
    let indices = indices.map_or(Vec::new(), |indices| field(2, indices));
    model(&[field(15, [values, indices, dims].concat())])
}

fn messages() -> Vec<Case> {
    let nested = |depth: usize| (0..depth).fold(Vec::new(), |inner: Vec<u8>, _| field(1, field(5, field(6, inner))));
    let types = |depth: usize| (0..depth).fold(Vec::new(), |inner: Vec<u8>, _| field(4, field(1, inner)));
    let many = |field: Vec<u8>, count: usize| model(&[field.repeat(count)]);
    let whole = with(&[2], FLOAT, &[raw(8)]);
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty", Vec::new(), &["empty"]),
        ("cut", whole[..whole.len() - 3].to_vec(), &["cut off"]),
        ("cut-in-length", [number(1, 8), vec![0x3a, 0xff]].concat(), &["cut off"]),
        (
            "length-max",
            [number(1, 8), vec![0x3a], varint(u64::MAX)].concat(),
            &["graph needs 18446744073709551615 bytes"],
        ),
        ("length-2-gib", [number(1, 8), vec![0x3a], varint(1 << 31)].concat(), &["graph needs 2147483648 bytes"]),
        ("inner-length", model(&[vec![0x2a], varint(1 << 40)]), &["initializer needs"]),
        ("varint-of-11-bytes", [number(1, 8), vec![0x3a], vec![0xff; 11]].concat(), &["64 bits"]),
        ("group", [number(1, 8), field(2, "x"), vec![0x3b]].concat(), &["wire type 3"]),
        ("wire-type-7", [number(1, 8), field(2, "x"), vec![0x3f]].concat(), &["wire type 7"]),
        ("tag-0", [number(1, 8), field(2, "x"), vec![0x02, 0x00]].concat(), &["tag"]),
        (
            "name-not-text",
            model(&[field(5, [number(1, 1), number(2, FLOAT), field(8, [0xff, 0xfe])].concat())]),
            &["initializer", "UTF-8"],
        ),
        ("graphs-in-graphs", model(&[nested(2_000)]), &["nested more than"]),
        (
            "types-in-types",
            model(&[field(11, [field(1, "x"), field(2, types(5_000))].concat())]),
            &["nested more than"],
        ),
        ("nodes", many(vec![0x0a, 0], 500_000), &["nodes"]),
        ("attributes", model(&[field(1, [0x2a, 0].repeat(390_000))]), &["bytes"]),
        ("tensors", many(vec![0x2a, 0], 300_000), &["bytes"]),
        ("values", many(vec![0x5a, 0], 390_000), &["bytes"]),
        ("dimensions", model(&[field(11, field(2, field(1, field(2, [0x0a, 0].repeat(390_000)))))]), &[]),
        ("strings", model(&[field(1, [0x0a, 0].repeat(390_000))]), &[]),
        ("functions", [number(1, 8), field(2, "x"), [0xca, 0x01, 0].repeat(390_000)].concat(), &["bytes"]),
        ("entries", [number(1, 8), field(2, "x"), [0x72, 0].repeat(390_000)].concat(), &[]),
        ("packed-numbers", with(&[1], INT64, &[field(7, vec![1; 16 << 20])]), &["bytes"]),
        (
            "metadata-twice",
            {
                let entry = field(14, [field(1, "class_names"), field(2, "[]")].concat());
                [model(&[]), entry.clone(), entry].concat()
            },
            &["class_names"],
        ),
    ];
    cases.into_iter().map(|(name, bytes, parts)| Case::new(&format!("wire-{name}.onnx"), bytes, parts)).collect()
}

fn tensors() -> Vec<Case> {
    let ints = |values: &[i64]| field(5, values.iter().flat_map(|value| varint(*value as u64)).collect::<Vec<u8>>());
    let index = |values: &[i64]| {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Some(tensor("", &[values.len() as i64], INT64, &[field(9, data)]))
    };
    let values = |count: i64| Some(tensor("layer.w", &[count], FLOAT, &[raw(4 * count as usize)]));
    let twice = || field(5, tensor("layer.w", &[1], FLOAT, &[raw(4)]));
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("negative", with(&[-1], FLOAT, &[raw(4)]), &["layer.w", "-1"]),
        ("min", with(&[i64::MIN], FLOAT, &[raw(4)]), &["layer.w", "-9223372036854775808"]),
        ("max", with(&[i64::MAX], FLOAT, &[raw(4)]), &["layer.w", "memory"]),
        ("overflow", with(&[1 << 32, 1 << 32], FLOAT, &[raw(4)]), &["layer.w", "memory"]),
        ("overflow-of-nothing", with(&[0, 1 << 40, 1 << 40], FLOAT, &[]), &["layer.w", "memory"]),
        ("huge", with(&[1 << 30], FLOAT, &[raw(4)]), &["layer.w", "4294967296 bytes"]),
        ("huge-without-data", with(&[1 << 40], FLOAT, &[]), &["layer.w"]),
        ("raw-short", with(&[4], FLOAT, &[raw(12)]), &["layer.w", "16 bytes", "12"]),
        ("raw-long", with(&[4], FLOAT, &[raw(20)]), &["layer.w", "16 bytes", "20"]),
        ("raw-odd", with(&[4], FLOAT, &[raw(15)]), &["layer.w", "15"]),
        ("no-data", with(&[4], FLOAT, &[]), &["layer.w", "the file gives 0"]),
        ("scalar-without-data", with(&[], FLOAT, &[]), &["layer.w", "the file gives 0"]),
        ("typed-short", with(&[4], FLOAT, &[field(4, [0; 8])]), &["layer.w", "the file gives 2"]),
        ("typed-odd", with(&[4], FLOAT, &[field(4, [0; 7])]), &["float_data"]),
        ("other-field", with(&[1], INT64, &[field(4, [0; 4])]), &["layer.w", "the file gives 0"]),
        ("int8-of-300", with(&[1], INT8, &[ints(&[300])]), &["layer.w", "int32_data"]),
        ("uint8-negative", with(&[1], UINT8, &[ints(&[-1])]), &["layer.w", "int32_data"]),
        ("float16-of-70000", with(&[1], 10, &[ints(&[70_000])]), &["layer.w", "int32_data"]),
        ("uint64-too-large", with(&[1], UINT64, &[field(9, [0xff; 8])]), &["layer.w", "unsigned"]),
        ("type-0", with(&[1], 0, &[raw(4)]), &["layer.w", "undefined"]),
        ("type-99", with(&[1], 99, &[raw(4)]), &["layer.w", "99"]),
        ("type-negative", with(&[1], -1, &[raw(4)]), &["layer.w", "-1"]),
        ("type-string", with(&[1], STRING, &[field(6, "a")]), &["layer.w", "string"]),
        ("type-complex", with(&[1], 14, &[raw(8)]), &["layer.w", "complex64"]),
        ("type-int4", with(&[2], 22, &[raw(1)]), &["layer.w", "int4"]),
        ("100-axes", with(&[1; 100], FLOAT, &[raw(4)]), &["layer.w", "100 axes"]),
        ("100000-axes", with(&[1; 100_000], FLOAT, &[raw(4)]), &["layer.w", "axes"]),
        ("segment", with(&[1], FLOAT, &[raw(4), field(3, number(1, 0))]), &["layer.w", "segments"]),
        ("twice", model(&[twice(), twice()]), &["layer.w", "two initializers"]),
        ("nameless", model(&[field(5, tensor("", &[1], FLOAT, &[raw(4)]))]), &["without a name"]),
        ("line-in-name", model(&[field(5, tensor("a\nerror: b", &[1], FLOAT, &[raw(3)]))]), &["a\\nerror: b"]),
        ("sparse-no-values", sparse(&[4], None, index(&[0])), &["without values"]),
        ("sparse-no-indices", sparse(&[4], values(1), None), &["layer.w", "without indices"]),
        ("sparse-outside", sparse(&[4], values(1), index(&[4])), &["layer.w", "outside"]),
        ("sparse-negative", sparse(&[4], values(1), index(&[-1])), &["layer.w", "outside"]),
        ("sparse-more-indices", sparse(&[4], values(1), index(&[0, 1])), &["layer.w", "2 indices"]),
        ("sparse-huge", sparse(&[1 << 40], values(1), index(&[0])), &["layer.w"]),
        ("sparse-overflow", sparse(&[1 << 40, 1 << 40], values(1), index(&[0])), &["layer.w", "memory"]),
    ];
    cases.into_iter().map(|(name, bytes, parts)| Case::new(&format!("onnx-{name}.onnx"), bytes, parts)).collect()
}

/// Data beside the model; some of the files that are named are there, as links.
fn externals(folder: &Path) -> Vec<Case> {
    std::fs::write(folder.join("data.bin"), [0; 8]).unwrap();
    std::fs::create_dir_all(folder.join("deep")).unwrap();
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.join(name)).unwrap();
    link("/etc/passwd", "link.bin");
    link("/dev/zero", "zero.bin");
    link("/etc", "etc");
    link("loop.bin", "loop.bin");
    let at = |location: &str| external(&[("location", location)]);
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("parent", at("../../../../../../etc/passwd"), &["layer.w", "below the model's folder"]),
        ("parent-inside", at("deep/../../secret"), &["layer.w", "below the model's folder"]),
        ("absolute", at("/etc/passwd"), &["layer.w", "below the model's folder"]),
        ("device", at("/dev/zero"), &["layer.w", "below the model's folder"]),
        ("proc", at("/proc/self/environ"), &["layer.w", "below the model's folder"]),
        ("backslash", at("..\\secret"), &["layer.w", "below the model's folder"]),
        ("url", at("http://127.0.0.1/w"), &["layer.w"]),
        ("empty", at(""), &["layer.w", "below the model's folder"]),
        ("itself", at("."), &["layer.w", "no regular file"]),
        ("folder", at("deep"), &["layer.w", "no regular file"]),
        ("link", at("link.bin"), &["layer.w", "is a link"]),
        ("link-to-device", at("zero.bin"), &["layer.w", "is a link"]),
        ("link-to-folder", at("etc/passwd"), &["layer.w", "is a link"]),
        ("link-to-itself", at("loop.bin"), &["layer.w", "is a link"]),
        ("missing", at("none.bin"), &["layer.w", "none.bin"]),
        ("nul", at("a\0b"), &["layer.w"]),
        ("short", at("data.bin"), &["layer.w", "has 8 bytes", "needs 16"]),
        ("no-location", external(&[("offset", "0")]), &["layer.w", "without a location"]),
        (
            "offset-beyond",
            external(&[("location", "data.bin"), ("offset", "18446744073709551615"), ("length", "16")]),
            &["layer.w", "18446744073709551615"],
        ),
        ("offset-negative", external(&[("location", "data.bin"), ("offset", "-1")]), &["layer.w", "`-1`"]),
        ("offset-text", external(&[("location", "data.bin"), ("offset", "0x10")]), &["layer.w", "`0x10`"]),
        ("length-other", external(&[("location", "data.bin"), ("length", "8")]), &["layer.w", "8 bytes", "16"]),
        (
            "length-huge",
            external(&[("location", "data.bin"), ("length", "99999999999999999999")]),
            &["layer.w", "length"],
        ),
    ];
    cases.into_iter().map(|(name, bytes, parts)| Case::new(&format!("external-{name}.onnx"), bytes, parts)).collect()
}

pub fn cases(folder: &Path) -> Vec<Case> {
    [messages(), tensors(), externals(folder)].into_iter().flatten().collect()
}
