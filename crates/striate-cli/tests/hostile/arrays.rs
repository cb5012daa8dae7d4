//! Safetensors and npy files that lie.

use super::Case;

/// The header with its length before it, and data behind it.
fn file(header: impl AsRef<[u8]>, data: usize) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes()[..], header, &vec![0; data]].concat()
}

fn entry(dtype: &str, shape: &str, offsets: &str) -> String {
    format!("{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}")
}

/// One array of that entry, named `layer.w`.
fn one(entry: &str, data: usize) -> Vec<u8> {
    file(format!("{{\"layer.w\":{entry}}}"), data)
}

pub fn cases() -> Vec<Case> {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let good = entry("F32", "[1]", "[0,4]");
    let with = |rest: &str| file(format!("{{\"a\":{good},{rest}}}"), 4);
    let two = |first: &str, second: &str, data| file(format!("{{\"a\":{first},\"layer.w\":{second}}}"), data);
    let many = {
        let empty = entry("F32", "[0]", "[0,0]");
        let entries: Vec<String> = (0..70_000).map(|index| format!("\"{index}\":{empty}")).collect();
        file(format!("{{{}}}", entries.join(",")), 0)
    };
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("length-max", [&u64::MAX.to_le_bytes()[..], b"{}"].concat(), &[]),
        ("length-2-to-40", [&[0, 0, 0, 0, 0, 1, 0, 0][..], b"{}"].concat(), &["1099511627776"]),
        ("length-beyond", [&100u64.to_le_bytes()[..], b"{}"].concat(), &["100 bytes"]),
        ("length-of-16-mib", [&[1, 0, 0, 1, 0, 0, 0, 0][..], b"{"].concat(), &["16777217"]),
        ("length-0", file("", 8), &["JSON"]),
        ("only-length", 2u64.to_le_bytes().to_vec(), &[]),
        ("no-json", file("{\"w\": nonsense}", 0), &["JSON"]),
        ("not-utf-8", file(b"{\"\xff\xfe\":1}", 0), &["JSON"]),
        ("not-an-object", file("{}", 0)[..9].to_vec(), &[]),
        ("list", file("[1,2,3]    ", 0), &["JSON"]),
        ("cut-in-json", file("{\"w\":{\"dtype\":\"F32\"", 0), &["JSON"]),
        ("behind-json", file(format!("{{\"w\":{good}}} {{}}"), 4), &["JSON"]),
        ("deep-lists", file(format!("{{\"w\":{}}}", deep("[", "]")), 0), &["JSON"]),
        ("deep-objects", file(deep("{\"a\":", "}"), 0), &["JSON"]),
        ("deep-shape", one(&entry("F32", &deep("[", "]"), "[0,4]"), 4), &["JSON"]),
        ("deep-metadata", file(format!("{{\"__metadata__\":{}}}", deep("[", "]")), 0), &["JSON"]),
        ("metadata-numbers", with("\"__metadata__\":{\"a\":1}"), &["metadata"]),
        ("metadata-list", with("\"__metadata__\":[\"a\"]"), &["metadata"]),
        (
            "metadata-twice",
            with("\"__metadata__\":{\"a\":\"b\"},\"__metadata__\":{\"a\":\"c\"}"),
            &["__metadata__", "twice"],
        ),
        ("metadata-key-twice", with("\"__metadata__\":{\"format\":\"x\",\"format\":\"y\"}"), &["format", "twice"]),
        ("key-twice", with(&format!("\"a\":{good}")), &["`a`", "twice"]),
        ("key-twice-escaped", with(&format!("\"\\u0061\":{good}")), &["`a`", "twice"]),
        (
            "field-twice",
            one("{\"dtype\":\"F32\",\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[0,4]}", 4),
            &["dtype"],
        ),
        ("many-arrays", many, &["number of arrays"]),
        ("overlap", two(&entry("F32", "[2]", "[0,8]"), &entry("F32", "[2]", "[4,12]"), 12), &["layer.w"]),
        ("same-bytes", two(&entry("F32", "[1]", "[0,4]"), &entry("F32", "[1]", "[0,4]"), 4), &["invalid offset"]),
        ("gap", two(&entry("F32", "[1]", "[0,4]"), &entry("F32", "[1]", "[8,12]"), 12), &["layer.w"]),
        ("not-from-0", one(&entry("F32", "[1]", "[4,8]"), 8), &["layer.w"]),
        ("backwards", one(&entry("F32", "[1]", "[4,0]"), 4), &["layer.w"]),
        ("beyond-data", one(&entry("F32", "[4]", "[0,16]"), 8), &["16 bytes", "8"]),
        ("more-data", one(&entry("F32", "[1]", "[0,4]"), 100), &["4 bytes", "100"]),
        ("only-header", one(&entry("F32", "[1000000000]", "[0,4000000000]"), 0), &["4000000000"]),
        ("wrong-size", one(&entry("F32", "[3]", "[0,4]"), 4), &["layer.w", "[3]"]),
        ("wrong-dtype", one(&entry("F64", "[1]", "[0,4]"), 4), &["layer.w", "F64"]),
        ("unknown-dtype", one(&entry("F33", "[1]", "[0,4]"), 4), &["layer.w", "F33"]),
        ("dtype-f8", one(&entry("F8_E4M3", "[4]", "[0,4]"), 4), &["layer.w", "F8_E4M3"]),
        ("dtype-f4", one(&entry("F4", "[8]", "[0,4]"), 4), &["layer.w", "F4"]),
        ("dtype-number", one("{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}", 4), &["layer.w"]),
        ("shape-overflow", one(&entry("F32", "[4294967296,4294967296,4294967296]", "[0,4]"), 4), &["layer.w"]),
        ("shape-overflow-of-nothing", one(&entry("F32", "[0,4294967296,4294967296,4]", "[0,0]"), 0), &["layer.w"]),
        ("shape-of-2-to-64", one(&entry("F32", "[18446744073709551616]", "[0,4]"), 4), &["layer.w"]),
        ("shape-negative", one(&entry("F32", "[-1]", "[0,4]"), 4), &["layer.w", "-1"]),
        ("shape-fraction", one(&entry("F32", "[1.5]", "[0,4]"), 4), &["layer.w", "1.5"]),
        ("shape-text", one(&entry("F32", "\"1\"", "[0,4]"), 4), &["layer.w"]),
        (
            "shape-of-100-axes",
            one(&entry("F32", &format!("[{}1]", "1,".repeat(99)), "[0,4]"), 4),
            &["layer.w", "100 axes"],
        ),
        ("no-shape", one("{\"dtype\":\"F32\",\"data_offsets\":[0,4]}", 4), &["layer.w", "shape"]),
        ("no-dtype", one("{\"shape\":[1],\"data_offsets\":[0,4]}", 4), &["layer.w", "dtype"]),
        ("no-offsets", one("{\"dtype\":\"F32\",\"shape\":[1]}", 4), &["layer.w", "data_offsets"]),
        ("offsets-text", one(&entry("F32", "[1]", "[\"0\",\"4\"]"), 4), &["layer.w"]),
        ("offsets-one", one(&entry("F32", "[1]", "[0]"), 4), &["layer.w"]),
        ("offsets-three", one(&entry("F32", "[1]", "[0,4,8]"), 4), &["layer.w"]),
        ("offsets-negative", one(&entry("F32", "[1]", "[-4,0]"), 4), &["layer.w", "-4"]),
        ("offsets-max", one(&entry("F32", "[1]", "[18446744073709551611,18446744073709551615]"), 4), &["layer.w"]),
        ("entry-null", file("{\"layer.w\":null}", 0), &["layer.w"]),
        ("entry-number", file("{\"layer.w\":1}", 0), &["layer.w"]),
        (
            "u64-too-large",
            [file(format!("{{\"layer.w\":{}}}", entry("U64", "[1]", "[0,8]")), 0), vec![0xff; 8]].concat(),
            &["layer.w", "unsigned"],
        ),
        ("line-in-name", file(format!("{{\"a\\nerror: b\":{}}}", entry("F32", "[3]", "[0,4]")), 4), &["a\\nerror: b"]),
        ("nothing-but-data", file("{}      ", 8), &["0 bytes", "8"]),
    ];
    let mut cases: Vec<Case> =
        cases.into_iter().map(|(name, bytes, parts)| Case::new(&format!("{name}.safetensors"), bytes, parts)).collect();
    cases.extend(npys());
    cases
}

fn npys() -> Vec<Case> {
    let npy = |header: &str, data: usize| {
        let length = (header.len() as u16).to_le_bytes();
        [&b"\x93NUMPY\x01\0"[..], &length, header.as_bytes(), &vec![0; data]].concat()
    };
    let with = |descr: &str, shape: &str| format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}");
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("magic", b"\x93NUMPZ\x01\0".to_vec(), &[]),
        ("version", [&b"\x93NUMPY\x09\0"[..], &[0; 8]].concat(), &["version 9.0"]),
        ("header-4-gib", [&b"\x93NUMPY\x02\0"[..], &[0xff; 4]].concat(), &["4294967295"]),
        ("header-cut", npy(&with("'<f4'", "(1,)"), 4)[..20].to_vec(), &["header"]),
        ("no-dict", npy("hello", 0), &["expected '{'"]),
        ("code", npy("__import__('os').system('id')", 0), &["expected '{'"]),
        ("no-shape", npy("{'descr': '<f4', 'fortran_order': False}", 0), &["'shape'"]),
        ("other-key", npy("{'evil': '<f4'}", 0), &["evil"]),
        ("objects", npy(&with("'|O'", "(1,)"), 8), &["|O"]),
        ("structured", npy(&with("[('a', '<f4')]", "(1,)"), 4), &["structured"]),
        ("complex", npy(&with("'<c8'", "(1,)"), 8), &["<c8"]),
        ("text", npy(&with("'<U4'", "(1,)"), 16), &["<U4"]),
        ("huge", npy(&with("'<f4'", "(1000000000, 1000000000)"), 0), &["needs"]),
        ("overflow", npy(&with("'<f4'", "(4294967296, 4294967296, 4294967296)"), 0), &["memory"]),
        ("negative", npy(&with("'<f4'", "(-1,)"), 4), &["a size"]),
        ("20-digits", npy(&with("'<f4'", "(99999999999999999999,)"), 4), &["a size"]),
        ("1000-axes", npy(&with("'<f4'", &format!("({})", "1,".repeat(1000))), 4), &["1000 axes"]),
        ("short", npy(&with("'<f4'", "(4,)"), 8), &["16 bytes", "8"]),
        ("long", npy(&with("'<f4'", "(1,)"), 8), &["4 bytes follow"]),
        ("parentheses", npy(&with("'<f4'", &"(".repeat(30_000)), 0), &["expected"]),
    ];
    cases.into_iter().map(|(name, bytes, parts)| Case::new(&format!("npy-{name}.npy"), bytes, parts)).collect()
}
