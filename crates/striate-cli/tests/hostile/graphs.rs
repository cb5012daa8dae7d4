//! ONNX files whose messages are sound and whose graph is not.

use super::Case;
use super::wire::{FLOAT, INT64, field, model, number, raw, tensor};

/// A node; its attributes are encoded already.
fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| field(1, name)).collect();
    let outputs: Vec<u8> = outputs.iter().flat_map(|name| field(2, name)).collect();
    let attributes: Vec<u8> = attributes.iter().flat_map(|attribute| field(5, attribute)).collect();
    field(1, [inputs, outputs, field(3, format!("node-{op}")), field(4, op), attributes].concat())
}

fn ints(name: &str, values: &[i64]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|value| number(8, *value)).collect();
    [field(1, name), number(20, 7), values].concat()
}

fn int(name: &str, value: i64) -> Vec<u8> {
    [field(1, name), number(20, 2), number(3, value)].concat()
}

fn subgraph(name: &str, graph: &[Vec<u8>]) -> Vec<u8> {
    [field(1, name), number(20, 5), field(6, graph.concat())].concat()
}

/// A float value of that shape, as an input (11) or an output (12).
fn value(tag: u64, name: &str, dims: &[i64]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|size| field(1, number(1, *size))).collect();
    let kind = field(1, [number(1, FLOAT), field(2, dims)].concat());
    field(tag, [field(1, name), field(2, kind)].concat())
}

fn constant(name: &str, values: &[i64]) -> Vec<u8> {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    field(5, tensor(name, &[values.len() as i64], INT64, &[field(9, data)]))
}

/// From `x` [1, 1, 28, 28] to `y`.
fn net(parts: &[Vec<u8>]) -> Vec<u8> {
    model(&[&[value(11, "x", &[1, 1, 28, 28])], parts, &[value(12, "y", &[1, 1, 28, 28])]].concat())
}

/// A node of two inputs: `x` and a constant.
fn by(op: &str, values: &[i64]) -> Vec<u8> {
    net(&[constant("c", values), node(op, &["x", "c"], &["y"], &[])])
}

pub fn cases() -> Vec<Case> {
    let huge = 1 << 40;
    let conv = |weight: &[i64], attributes: &[Vec<u8>]| {
        let count: i64 = weight.iter().product();
        let weight = field(5, tensor("w", weight, FLOAT, &[raw(4 * count as usize)]));
        net(&[weight, node("Conv", &["x", "w"], &["y"], attributes)])
    };
    let relu = |input: &str, output: &str| node("Relu", &[input], &[output], &[]);
    let recursive = {
        let call = field(7, [field(1, "x"), field(2, "y"), field(4, "F"), field(7, "local")].concat());
        let function = [field(1, "F"), field(4, "x"), field(5, "y"), call, field(10, "local")].concat();
        let node = field(1, [field(1, "x"), field(2, "y"), field(4, "F"), field(7, "local")].concat());
        [net(&[node]), field(25, function)].concat()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("none", [number(1, 8), field(2, "x")].concat()),
        ("empty", model(&[])),
        ("no-outputs", model(&[value(11, "x", &[1, 1, 28, 28]), relu("x", "y")])),
        ("cycle", net(&[node("Add", &["x", "b"], &["a"], &[]), relu("a", "b"), relu("b", "y")])),
        ("self-cycle", net(&[node("Add", &["x", "y"], &["y"], &[])])),
        ("input-missing", net(&[node("Add", &["x", "nowhere"], &["y"], &[])])),
        ("output-missing", net(&[relu("x", "z")])),
        ("output-twice", net(&[relu("x", "y"), node("Neg", &["x"], &["y"], &[])])),
        ("output-of-input", net(&[relu("x", "x"), relu("x", "y")])),
        ("unknown-op", net(&[node("RunShell", &["x"], &["y"], &[])])),
        (
            "unknown-domain",
            net(&[field(1, [field(1, "x"), field(2, "y"), field(4, "Relu"), field(7, "evil")].concat())]),
        ),
        ("opset-999", [number(1, 8), field(7, relu("x", "y")), field(8, number(2, 999))].concat()),
        ("no-inputs-of-a-node", net(&[node("Add", &[], &["y"], &[])])),
        ("no-input-of-relu", net(&[node("Relu", &[], &["y"], &[])])),
        ("conv-channels", conv(&[4, 7, 3, 3], &[])),
        ("conv-groups", conv(&[4, 1, 3, 3], &[int("group", 0)])),
        ("conv-stride", conv(&[4, 1, 3, 3], &[ints("strides", &[0, 0])])),
        ("conv-pads", conv(&[4, 1, 3, 3], &[ints("pads", &[huge, huge, huge, huge])])),
        ("conv-negative-pads", conv(&[4, 1, 3, 3], &[ints("pads", &[-100, -100, -100, -100])])),
        ("conv-dilations", conv(&[4, 1, 3, 3], &[ints("dilations", &[i64::MAX, i64::MAX])])),
        ("conv-kernel", conv(&[4, 1, 3, 3], &[ints("kernel_shape", &[5, 5])])),
        ("pool-huge", net(&[node("MaxPool", &["x"], &["y"], &[ints("kernel_shape", &[huge, huge])])])),
        ("reshape", by("Reshape", &[7, 7, 7])),
        ("reshape-negative", by("Reshape", &[-2, 1])),
        ("reshape-two-unknown", by("Reshape", &[-1, -1])),
        ("reshape-overflow", by("Reshape", &[huge, huge, huge])),
        ("expand-huge", by("Expand", &[huge, 1, 28, 28])),
        ("tile-huge", by("Tile", &[huge, huge, 1, 1])),
        ("tile-negative", by("Tile", &[-1, 1, 1, 1])),
        ("pad-huge", by("Pad", &[0, 0, huge, huge, 0, 0, huge, huge])),
        ("constant-of-shape", net(&[constant("c", &[huge]), node("ConstantOfShape", &["c"], &["y"], &[])])),
        ("transpose", net(&[node("Transpose", &["x"], &["y"], &[ints("perm", &[0, 0, 1, 9])])])),
        ("concat-axis", net(&[node("Concat", &["x", "x"], &["y"], &[int("axis", 99)])])),
        ("split-sizes", net(&[constant("c", &[-5, 33]), node("Split", &["x", "c"], &["y", "z"], &[int("axis", 3)])])),
        ("gather-axis", net(&[constant("c", &[0]), node("Gather", &["x", "c"], &["y"], &[int("axis", 99)])])),
        ("constant-without-value", net(&[node("Constant", &[], &["c"], &[]), node("Add", &["x", "c"], &["y"], &[])])),
        ("subgraphs", net(&[node("If", &["x"], &["y"], &[subgraph("then_branch", &[relu("nowhere", "y")])])])),
        ("recursive-function", recursive),
    ];
    cases.into_iter().map(|(name, bytes)| Case::graph(&format!("graph-{name}.onnx"), bytes)).collect()
}
