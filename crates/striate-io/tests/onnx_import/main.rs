//! Models of others: what the importer makes of them.

mod suite;

use striate_graph::{Array, DType, Mode};
use striate_io::onnx::proto::{
    AttributeProto, AttributeType, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
};
use striate_io::onnx::{OnnxModel, OnnxSession, array_to_tensor, data_type};

/// A value of a type, with sizes or names of axes.
fn info(name: &str, dtype: DType, sizes: &[Option<usize>]) -> ValueInfoProto {
    let dimension = |size: &Option<usize>| Dimension {
        value: Some(match size {
            Some(size) => DimensionValue::DimValue(*size as i64),
            None => DimensionValue::DimParam("n".into()),
        }),
        denotation: String::new(),
    };
    let shape = TensorShapeProto { dim: sizes.iter().map(dimension).collect() };
    let tensor = TensorType { elem_type: data_type(dtype) as i32, shape: Some(shape) };
    let r#type = TypeProto { value: Some(TypeValue::TensorType(tensor)), denotation: String::new() };
    ValueInfoProto { name: name.into(), r#type: Some(r#type), ..ValueInfoProto::default() }
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    let input = inputs.iter().map(|name| (*name).to_owned()).collect();
    NodeProto {
        op_type: op.into(),
        input,
        output: vec![output.into()],
        name: format!("n_{output}"),
        ..NodeProto::default()
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i: Some(value), ..AttributeProto::default() }
}

fn model(inputs: Vec<ValueInfoProto>, nodes: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
    let last = nodes.last().map_or(String::new(), |node| node.output[0].clone());
    let output = vec![info(&last, DType::F32, &[])];
    let graph = GraphProto { input: inputs, node: nodes, initializer, output, ..GraphProto::default() };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 18 }];
    ModelProto { ir_version: 8, opset_import, graph: Some(graph), ..ModelProto::default() }
}

fn open(proto: ModelProto) -> Result<OnnxModel, String> {
    OnnxModel::from_proto(proto, "model.onnx".as_ref()).map_err(|error| error.to_string())
}

fn run(proto: ModelProto, inputs: &[Array]) -> Result<Vec<Array>, String> {
    let mut session = OnnxSession::new(open(proto)?.into());
    session.run(&inputs.iter().collect::<Vec<_>>()).map_err(|error| error.to_string())
}

fn ints(values: &[i64]) -> Array {
    Array::from_vec([values.len()], values.to_vec()).unwrap()
}

#[test]
fn shape_arithmetic_leaves_no_trace() {
    let x = info("x", DType::F32, &[None, Some(3), Some(4)]);
    let nodes = vec![
        node("Shape", &["x"], "shape"),
        node("Gather", &["shape", "zero"], "batch"),
        NodeProto { attribute: vec![int("axis", 0)], ..node("Concat", &["batch", "minus"], "to") },
        node("Reshape", &["x", "to"], "y"),
    ];
    let data = vec![array_to_tensor("zero", &ints(&[0])), array_to_tensor("minus", &ints(&[-1]))];
    let model = open(model(vec![x], nodes, data)).unwrap();
    for batch in [1, 5] {
        let graph = model.graph(Mode::Eval, &[[batch, 3, 4].into()]).unwrap();
        let kinds: Vec<&str> = graph.nodes.iter().map(|node| node.op.name()).collect();
        assert_eq!(kinds, ["Input", "Reshape"]);
        assert_eq!(graph.node(graph.outputs[0].1).shape.dims(), [batch, 12]);
    }
}

#[test]
fn everything_unsupported_is_said_at_once() {
    let x = info("x", DType::F32, &[Some(2)]);
    let nodes = vec![node("Foo", &["x"], "a"), node("Relu", &["a"], "b"), node("Bar", &["b"], "c")];
    let error = open(model(vec![x], nodes, Vec::new())).err().unwrap();
    assert!(error.contains("`n_a` (Foo)") && error.contains("`n_c` (Bar)"), "{error}");
}

#[test]
fn a_shape_that_follows_from_values_ends_a_program() {
    // The non-zero elements of relu(x), then their count as the shape of another value.
    let x = info("x", DType::F32, &[Some(4)]);
    let nodes = vec![
        node("Relu", &["x"], "r"),
        node("NonZero", &["r"], "at"),
        node("Squeeze", &["at"], "flat"),
        node("Gather", &["r", "flat"], "some"),
        node("Mul", &["some", "some"], "squares"),
        node("Reshape", &["squares", "shape"], "y"),
    ];
    let shape = info("shape", DType::I64, &[Some(2)]);
    let proto = model(vec![x, shape], nodes, Vec::new());
    let mut session = OnnxSession::new(open(proto.clone()).unwrap().into());
    for (values, shape, expected) in [
        (vec![1f32, -1.0, 2.0, 0.0], [1i64, 2], vec![1f32, 4.0]),
        (vec![3.0, 1.0, 2.0, 1.0], [2, 2], vec![9.0, 1.0, 4.0, 1.0]),
        (vec![1.0, -1.0, 2.0, 0.0], [2, 1], vec![1.0, 4.0]),
    ] {
        let x = Array::from_vec([4], values).unwrap();
        let y = session.run(&[&x, &ints(&shape)]).unwrap().remove(0);
        assert_eq!(y.f32s().unwrap(), expected);
        assert_eq!(y.shape().dims(), shape.map(|size| size as usize));
    }
    let error = open(proto).unwrap().graph(Mode::Eval, &[[4].into(), [2].into()]).unwrap_err().to_string();
    assert!(error.contains("n_at") && error.contains("only a run can give"), "{error}");
}

#[test]
fn floats_are_cells_and_a_weight_that_is_moved_keeps_its_name() {
    let x = info("x", DType::F32, &[None, Some(3)]);
    let nodes = vec![node("Transpose", &["w"], "wt"), node("Gemm", &["x", "wt", "b"], "y")];
    let w = Array::from_vec([2, 3], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let data = vec![array_to_tensor("w", &w), array_to_tensor("b", &Array::from_vec([2], vec![10f32, 20.0]).unwrap())];
    let proto = model(vec![x], nodes, data);
    let names: Vec<String> =
        open(proto.clone()).unwrap().parameters().iter().map(|cell| cell.name().to_string()).collect();
    assert_eq!(names, ["w", "b"]);
    let y = run(proto, &[Array::from_vec([1, 3], vec![1f32, 1.0, 1.0]).unwrap()]).unwrap();
    assert_eq!(y[0].f32s().unwrap(), [16.0, 35.0]);
}
