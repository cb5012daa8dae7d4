//! The interpreter: results written out, updates and their guard, random numbers, host calls, errors.

use std::slice::from_ref;
use std::sync::Arc;
use striate_graph::*;

/// The outputs of a graph built from inputs of the given values, in native precision.
fn apply(inputs: &[Array], build: impl Fn(&Trace, &[Tensor]) -> Vec<Tensor>) -> Result<Vec<Array>> {
    let trace = Trace::new(Mode::Train);
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("x{i}")).collect();
    let tensors: Vec<Tensor> =
        inputs.iter().zip(&names).map(|(array, name)| trace.input(name, array.shape(), array.dtype())).collect();
    let outputs = build(&trace, &tensors);
    let graph = trace.finish(&outputs.iter().map(|t| ("y", t)).collect::<Vec<_>>())?;
    let data: Vec<(&str, Array)> = names.iter().map(String::as_str).zip(inputs.iter().cloned()).collect();
    interpret(&graph, &data, &RunOptions::default())
}

fn array<T: Element>(shape: &[usize], values: &[T]) -> Array {
    Array::from_vec(shape, values.to_vec()).unwrap()
}

fn one(inputs: &[Array], build: impl Fn(&Trace, &[Tensor]) -> Tensor) -> Array {
    apply(inputs, |trace, tensors| vec![build(trace, tensors)]).unwrap().remove(0)
}

#[track_caller]
fn assert_is<T: Element + PartialEq + std::fmt::Debug>(found: &Array, shape: &[usize], values: &[T]) {
    assert_eq!(found.dtype(), T::DTYPE);
    assert_eq!((found.shape().dims(), found.as_slice::<T>().unwrap()), (shape, values));
}

#[test]
fn convolution_and_pool_as_in_a_first_lesson() {
    let x = Array::arange([1, 1, 3, 3]);
    let edge = array(&[1, 1, 2, 2], &[1f32, -1.0, 2.0, 0.5]);
    let conv = |attrs: ConvAttrs| move |t: &Trace, x: &[Tensor]| t.push(Op::Conv2d(attrs), &[&x[0], &x[1]]);
    let plain = one(&[x.clone(), edge.clone()], conv(ConvAttrs::default()));
    // 0 - 1 + 2*3 + 0.5*4 = 7, then 2.5 more a step.
    assert_is(&plain, &[1, 1, 2, 2], &[7f32, 9.5, 14.5, 17.0]);
    let strided = one(&[x, edge], conv(ConvAttrs { stride: [2, 2], pads: [1, 0, 0, 1], ..ConvAttrs::default() }));
    assert_is(&strided, &[1, 1, 2, 2], &[0.5f32, 4.0, 14.5, 21.0]);

    let map = Array::from_vec([1, 1, 4, 4], (1..17).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
    let windows = Windows::Sliding { kernel: [2, 2], stride: [2, 2], pads: [0; 4], dilation: [1, 1], ceil_mode: false };
    let found = apply(&[map], |t, x| {
        let pools = [
            Op::MaxPool2d(windows),
            Op::MaxPool2dIndices(windows),
            Op::AvgPool2d { windows, divisor: AvgDivisor::IncludePad },
        ];
        pools.into_iter().map(|op| t.push(op, &[&x[0]])).collect()
    })
    .unwrap();
    assert_is(&found[0], &[1, 1, 2, 2], &[6f32, 8.0, 14.0, 16.0]);
    assert_is(&found[1], &[1, 1, 2, 2], &[5i64, 7, 13, 15]);
    assert_is(&found[2], &[1, 1, 2, 2], &[3.5f32, 5.5, 11.5, 13.5]);
}

#[test]
fn batch_norm_of_training_and_its_parts() {
    let x = array(&[2, 2, 1], &[1f32, 10.0, 3.0, 30.0]);
    let (gamma, beta) = (array(&[2], &[1f32, 2.0]), array(&[2], &[0f32, 1.0]));
    let found = apply(&[x, gamma, beta], |t, x| {
        let moments = t.push(Op::Moments, &[&x[0]]);
        let y = t.push(Op::BatchNormTraining { eps: 0.0 }, &[&x[0], &x[1], &x[2], &moments]);
        let sums = t.push(Op::BatchNormGradSums { eps: 0.0 }, &[&x[0], &x[0], &moments]);
        vec![moments, y, sums]
    })
    .unwrap();
    assert_is(&found[0], &[2, 2], &[2f32, 20.0, 1.0, 100.0]);
    assert_is(&found[1], &[2, 2, 1], &[-1f32, -1.0, 1.0, 3.0]);
    assert_is(&found[2], &[2, 2], &[4f32, 40.0, 2.0, 20.0]);
}

#[test]
fn every_type_moves_compares_and_counts() {
    let dtypes =
        [DType::F32, DType::F64, DType::F16, DType::BF16, DType::I8, DType::I16, DType::I32, DType::I64, DType::U8];
    for dtype in dtypes {
        let x = Array::from_f64([2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], dtype).unwrap();
        let found = apply(&[x], |t, x| {
            let x = &x[0];
            let index = t.constant(array(&[2], &[2i64, -3]));
            vec![
                x.permute(&[1, 0]),
                x.pad(&[1, -1], PadMode::Constant(7.0)),
                x.index_select(1, &index),
                &(x * x) - x,
                x.sum(&[1], false),
                x.gt(&x.narrow(1, 1, 1)).cast(dtype),
                x.where_(&x.ge(&x.full_like(3.0)), &x.full_like(0.0)),
                x.expand([2, 2, 3]).narrow(0, 1, 1).reshape([6]),
                x.maximum(&x.scalar_like(4.0)),
            ]
        })
        .unwrap();
        let expected: [&[f64]; 9] = [
            &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0],
            &[7.0, 1.0, 2.0, 7.0, 4.0, 5.0],
            &[3.0, 1.0, 6.0, 4.0],
            &[0.0, 2.0, 6.0, 12.0, 20.0, 30.0],
            &[6.0, 15.0],
            &[0.0, 0.0, 1.0, 0.0, 0.0, 1.0],
            &[0.0, 0.0, 3.0, 4.0, 5.0, 6.0],
            &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            &[4.0, 4.0, 4.0, 4.0, 5.0, 6.0],
        ];
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert_eq!(found.dtype(), dtype, "output {index}");
            assert_eq!(found.to_f64_vec(), expected, "output {index} of {dtype}");
        }
    }
}

#[test]
fn integers_wrap_and_keep_all_their_bits() {
    let large = i64::MAX - 2;
    let x = array(&[2], &[large, -large]);
    assert_is(&one(from_ref(&x), |_, x| x[0].pad(&[1, 0], PadMode::Constant(0.0))), &[3], &[0, large, -large]);
    assert_is(&one(from_ref(&x), |_, x| &x[0] - &x[0].scalar_like(1.0)), &[2], &[large - 1, -large - 1]);
    assert_is(&one(&[x], |_, x| x[0].gt(&x[0].neg())), &[2], &[true, false]);
    let bytes = array(&[3], &[250u8, 7, 0]);
    assert_is(&one(from_ref(&bytes), |_, x| &x[0] + &x[0].scalar_like(10.0)), &[3], &[4u8, 17, 10]);
    assert_is(&one(from_ref(&bytes), |_, x| x[0].cast(DType::I8)), &[3], &[-6i8, 7, 0]);
    assert_is(&one(from_ref(&bytes), |_, x| x[0].cast(DType::Bool)), &[3], &[true, true, false]);
    assert_is(&one(&[bytes], |_, x| x[0].logical_not()), &[3], &[0u8, 0, 1]);
    let floats = array(&[4], &[2.9f32, -2.9, 1e20, f32::NAN]);
    assert_is(&one(&[floats], |_, x| x[0].cast(DType::I32)), &[4], &[2, -2, i32::MAX, 0]);
    let quotient = |a: i64, b: i64| one(&[Array::scalar(a), Array::scalar(b)], |_, x| &x[0] / &x[1]);
    assert_is(&quotient(-7, 2), &[], &[-3i64]);
}

#[test]
fn indices() {
    let labels = array(&[4], &[1i64, -1, 3, 0]);
    let hot = one(&[labels], |_, x| x[0].one_hot(3));
    // Out of range is out of range, from either end: such rows are empty.
    assert_is(&hot, &[4, 3], &[0f32, 1., 0., 0., 0., 0., 0., 0., 0., 1., 0., 0.]);
    let x = Array::arange([2, 3]);
    let scattered = apply(from_ref(&x), |t, x| {
        let (at, updates) =
            (t.constant(array(&[2, 2], &[0i64, 0, 2, -2])), t.constant(array(&[2, 2], &[10f32, 20., 30., 40.])));
        [ScatterMode::Set, ScatterMode::Add]
            .map(|mode| t.push(Op::ScatterElements { axis: 1, mode }, &[&x[0], &at, &updates]))
            .into()
    })
    .unwrap();
    assert_is(&scattered[0], &[2, 3], &[20f32, 1., 2., 3., 40., 30.]);
    assert_is(&scattered[1], &[2, 3], &[30f32, 1., 2., 3., 44., 35.]);
    let far = apply(&[x], |t, x| {
        let scope = t.enter("embedding");
        let y = x[0].index_select(0, &t.constant(array(&[2], &[1i64, 5])));
        drop(scope);
        vec![y]
    });
    let message = far.unwrap_err().to_string();
    assert!(message.contains("embedding") && message.contains("index 5") && message.contains("0 to 1"), "{message}");
}

#[test]
fn double_precision_is_double_throughout() {
    let cell = Parameter::new(Array::scalar(0.1f32));
    let trace = Trace::new(Mode::Train);
    let x = trace.input("x", [2], DType::F32);
    let y = &(&x * &trace.parameter(&cell)) + &trace.scalar(1e-9);
    let graph = trace.finish(&[("y", &y)]).unwrap();
    let options = RunOptions { precision: Precision::F64, ..RunOptions::default() };
    let exact = interpret(&graph, &[("x", array(&[2], &[1.0f64, 1e-12]))], &options).unwrap().remove(0);
    let (weight, small) = (f64::from(0.1f32), f64::from(1e-9f32));
    assert_is(&exact, &[2], &[weight + small, 1e-12 * weight + small]);
    // Single-precision data is welcome too.
    let promoted = interpret(&graph, &[("x", array(&[2], &[1f32, 0.0]))], &options).unwrap().remove(0);
    assert_is(&promoted, &[2], &[weight + small, small]);
    let refused = interpret(&graph, &[("x", array(&[2], &[1.0f64, 0.0]))], &RunOptions::default());
    assert!(matches!(refused, Err(Error::Mismatch { .. })));
}

fn counter(name: &str, value: f32) -> Parameter {
    let cell = Parameter::new(Array::scalar(value));
    cell.set_name(name);
    cell
}

#[test]
fn updates_come_after_all_reads_and_in_order() {
    let (a, b) = (counter("a", 1.0), counter("b", 10.0));
    let trace = Trace::new(Mode::Train);
    let hyper = trace.constant(Array::zeros([0], DType::F32));
    trace.update(&a, &[], UpdateKind::Accumulate, &[&trace.parameter(&b), &hyper]);
    // Traced after the update, yet it reads what was there before.
    let read = trace.parameter(&a);
    trace.update(&b, &[], UpdateKind::Assign, &[&read, &hyper, &trace.scalar(3.0)]);
    trace.update(&a, &[], UpdateKind::Accumulate, &[&trace.scalar(100.0), &hyper]);
    let graph = trace.finish(&[("a", &read)]).unwrap();
    let dry = RunOptions { apply_updates: false, ..RunOptions::default() };
    assert_is(&interpret(&graph, &[], &dry).unwrap()[0], &[], &[1f32]);
    assert_eq!((a.version(), b.version()), (0, 0));
    assert_is(&interpret(&graph, &[], &RunOptions::default()).unwrap()[0], &[], &[1f32]);
    assert_is(&a.array(), &[], &[111f32]);
    assert_is(&b.array(), &[], &[3f32]);
    assert!(a.version() > 0 && b.version() > 0);
}

#[test]
fn momentum_is_a_state_cell() {
    let (weight, momentum) = (counter("w", 1.0), Parameter::buffer(Array::scalar(0f32)));
    let trace = Trace::new(Mode::Train);
    let kind = UpdateKind::Sgd { momentum: 0.5, dampening: 0.0, nesterov: false };
    let w = trace.parameter(&weight);
    let loss = w.square();
    let gradient = gradients(&loss, &[&w]).unwrap().remove(0);
    let hyper = trace.input("hyper", [3], DType::F32);
    trace.update(&weight, from_ref(&momentum), kind, &[&gradient, &hyper]);
    trace.guard(&loss);
    let graph = trace.finish(&[("loss", &loss)]).unwrap();
    let step = |first: f32| {
        interpret(&graph, &[("hyper", array(&[3], &[0.25f32, 0.0, first]))], &RunOptions::default()).unwrap()[0].item()
    };
    assert_eq!((step(1.0).unwrap(), step(0.0).unwrap()), (1.0, 0.25));
    // 1 - 0.25 * 2 = 0.5; then momentum 0.5 * 2 + 1 = 2, 0.5 - 0.25 * 2 = 0.
    assert_eq!((weight.array().item().unwrap(), momentum.array().item().unwrap()), (0.0, 2.0));
}

#[test]
fn a_loss_that_is_not_finite_changes_nothing_and_names_the_layer() {
    let cell = counter("w", 2.0);
    let trace = Trace::new(Mode::Train);
    let x = trace.input("x", [2], DType::F32);
    let scope = trace.enter("block.1");
    let root = (&x * &trace.parameter(&cell)).sqrt();
    drop(scope);
    let scope = trace.enter("head");
    let loss = root.sum_all();
    drop(scope);
    trace.update(&cell, &[], UpdateKind::Assign, &[&trace.scalar(5.0), &trace.scalar(0.0)]);
    trace.guard(&loss);
    let graph = trace.finish(&[("loss", &loss)]).unwrap();
    let bad = [("x", array(&[2], &[1f32, -1.0]))];
    match interpret(&graph, &bad, &RunOptions::default()) {
        Err(Error::NonFinite { value, layer, .. }) => {
            assert!(value.is_nan());
            assert!(layer.unwrap().contains("block.1"));
        }
        other => panic!("{other:?}"),
    }
    assert_is(&cell.array(), &[], &[2f32]);
    let dry = RunOptions { apply_updates: false, ..RunOptions::default() };
    let (id, layer) = first_non_finite(&graph, &bad, &dry).unwrap().unwrap();
    assert_eq!(graph.node(id).op.name(), "Sqrt");
    assert!(layer.contains("block.1"));
    let good = [("x", array(&[2], &[1f32, 4.0]))];
    assert!(first_non_finite(&graph, &good, &dry).unwrap().is_none());
    interpret(&graph, &good, &RunOptions::default()).unwrap();
    assert_is(&cell.array(), &[], &[5f32]);
}

#[test]
fn integers_are_exact_where_doubles_are_not() {
    let trace = Trace::new(Mode::Eval);
    let x = trace.input("x", [1, 2], DType::I64);
    let y = x.matmul(&x.transpose(0, 1));
    let (sums, top) = (x.cumsum(1), x.topk(1, 1, true).0);
    let bits = x.binary(BinaryKind::BitXor, &x.scalar_like(-1.0));
    let graph = trace.finish(&[("y", &y), ("sums", &sums), ("top", &top), ("bits", &bits)]).unwrap();
    let big = (1i64 << 60) + 1;
    let x = Array::from_vec([1, 2], vec![big, 3]).unwrap();
    let found = interpret(&graph, &[("x", x)], &RunOptions::default()).unwrap();
    let found: Vec<&[i64]> = found.iter().map(|array| array.as_slice::<i64>().unwrap()).collect();
    assert_eq!(found, [&[big.wrapping_mul(big).wrapping_add(9)][..], &[big, big + 3], &[big], &[!big, !3]]);
}

#[test]
fn extremes_of_nothing_are_the_limits_of_the_type() {
    for (dtype, low, high) in [(DType::Bool, 0.0, 1.0), (DType::U8, 0.0, 255.0), (DType::I8, -128.0, 127.0)] {
        let trace = Trace::new(Mode::Eval);
        let x = trace.input("x", [0, 1], dtype);
        let (max, min) = (x.reduce(ReduceKind::Max, &[0], false), x.reduce(ReduceKind::Min, &[0], false));
        let graph = trace.finish(&[("max", &max), ("min", &min)]).unwrap();
        let found = interpret(&graph, &[("x", Array::zeros([0, 1], dtype))], &RunOptions::default()).unwrap();
        assert_eq!([found[0].item().unwrap(), found[1].item().unwrap()], [low, high], "{dtype}");
    }
}

#[test]
fn random_numbers_depend_on_seed_purpose_layer_and_step_alone() {
    let trace = Trace::new(Mode::Train);
    let scope = trace.enter("fc");
    let kinds = [RandomKind::Uniform, RandomKind::Normal, RandomKind::Mask { keep: 0.75 }];
    let drawn: Vec<Tensor> = kinds.iter().map(|kind| trace.random(*kind, "dropout", [2, 3, 5])).collect();
    let other = trace.random(RandomKind::Uniform, "noise", [2, 3, 5]);
    drop(scope);
    let outputs: Vec<(&str, &Tensor)> = drawn.iter().chain([&other]).map(|t| ("y", t)).collect();
    let graph = trace.finish(&outputs).unwrap();
    let at = |seed, step| interpret(&graph, &[], &RunOptions { seed, step, ..RunOptions::default() }).unwrap();
    let first = at(3, 8);
    for (kind, found) in kinds.iter().zip(&first) {
        let mut expected = vec![0.0; 30];
        fill_random(*kind, (3, "dropout:fc"), 8, 0, &mut expected);
        assert_is(found, &[2, 3, 5], &expected);
    }
    assert!(first.iter().zip(at(3, 8)).all(|(a, b)| a.bits_eq(&b)));
    assert!(!first[0].bits_eq(&at(3, 9)[0]) && !first[0].bits_eq(&at(4, 8)[0]) && !first[0].bits_eq(&first[3]));
    let kept = first[2].f32s().unwrap().iter().filter(|x| **x != 0.0);
    assert!(kept.clone().count() > 10 && kept.clone().all(|x| *x == 1.0 / 0.75));
}

#[test]
fn host_calls_are_held_to_their_declaration() {
    let trace = Trace::new(Mode::Eval);
    let x = trace.input("x", [2], DType::F32);
    let outputs = [([1].into(), DType::I64), ([2, 1].into(), DType::F32)];
    let results = trace.host_call("test.declared", &[&x], &outputs, None);
    assert_eq!((results[0].dtype(), results[1].shape().dims()), (DType::I64, &[2, 1][..]));
    let graph = trace.finish(&[("count", &results[0]), ("column", &results[1])]).unwrap();
    graph.verify().unwrap();
    let call = || interpret(&graph, &[("x", array(&[2], &[1f32, 2.0]))], &RunOptions::default());
    assert!(matches!(call(), Err(Error::UnknownHostCall { name }) if name == "test.declared"));

    let register = |result: Result<Vec<Array>, String>| {
        register_host_function("test.declared", Arc::new(move |_: &[Array]| result.clone()));
    };
    let (count, column) = (array(&[1], &[7i64]), array(&[2, 1], &[3f32, 4.0]));
    register(Ok(vec![count.clone(), column.clone()]));
    let found = call().unwrap();
    assert_is(&found[0], &[1], &[7i64]);
    assert_is(&found[1], &[2, 1], &[3f32, 4.0]);
    register(Ok(vec![count.clone(), array(&[2], &[3f32, 4.0])]));
    assert!(matches!(call(), Err(Error::Mismatch { what, .. }) if what.contains("output 1")));
    register(Ok(vec![count.clone(), column.cast(DType::F64)]));
    assert!(matches!(call(), Err(Error::Mismatch { .. })));
    register(Ok(vec![count]));
    assert!(matches!(call(), Err(Error::HostCall { message, .. }) if message.contains('2')));
    register(Err("no such file".into()));
    assert!(matches!(call(), Err(Error::HostCall { message, .. }) if message == "no such file"));
    assert!(host_function("test.declared").is_some() && host_function("test.unheard_of").is_none());
}

#[test]
fn wrong_inputs_are_refused_by_name() {
    let trace = Trace::new(Mode::Eval);
    let (a, b) = (trace.input("image", [2, 2], DType::F32), trace.input("scale", [], DType::F32));
    let graph = trace.finish(&[("y", &(&a * &b))]).unwrap();
    let call = |inputs: &[(&str, Array)]| interpret(&graph, inputs, &RunOptions::default()).unwrap_err().to_string();
    let (image, scale) = (Array::arange([2, 2]), Array::scalar(2f32));
    let missing = call(&[("image", image.clone())]);
    assert!(missing.contains("`scale`") && missing.contains("image, scale"), "{missing}");
    let unknown = call(&[("image", image.clone()), ("scale", scale.clone()), ("labels", scale.clone())]);
    assert!(unknown.contains("`labels`"), "{unknown}");
    let shape = call(&[("image", Array::arange([2, 3])), ("scale", scale)]);
    assert!(shape.contains("`image`") && shape.contains("[2, 2]") && shape.contains("[2, 3]"), "{shape}");
    let dtype = call(&[("image", image), ("scale", Array::scalar(2i64))]);
    assert!(dtype.contains("`scale`") && dtype.contains("int64"), "{dtype}");
}

#[test]
fn every_computed_value_can_be_observed() {
    let trace = Trace::new(Mode::Eval);
    let x = trace.input("x", [2], DType::F32);
    let (y, unused) = (x.relu(), x.exp());
    let graph = trace.finish(&[("y", &y)]).unwrap();
    let mut seen = Vec::new();
    let data = [("x", array(&[2], &[-1f32, 1.0]))];
    interpret_observed(&graph, &data, &RunOptions::default(), &mut |id, node, value| {
        seen.push((id, node.op.name(), value.to_f64_vec()));
    })
    .unwrap();
    assert_eq!(seen, [(x.id(), "Input", vec![-1.0, 1.0]), (y.id(), "Relu", vec![0.0, 1.0])]);
    assert!(!seen.iter().any(|(id, ..)| *id == unused.id()));
}

#[test]
fn odd_sizes_do_not_panic() {
    let empty = Array::zeros([0, 3], DType::F32);
    assert_is(&one(from_ref(&empty), |_, x| x[0].sum(&[0], false)), &[3], &[0f32; 3]);
    assert_eq!(one(from_ref(&empty), |_, x| x[0].softmax(1)).numel(), 0);
    assert_eq!(one(from_ref(&empty), |_, x| x[0].matmul(&x[0].permute(&[1, 0]))).numel(), 0);
    assert_is(&one(from_ref(&empty), |_, x| x[0].permute(&[1, 0]).matmul(&x[0])), &[3, 3], &[0f32; 9]);
    assert!(apply(from_ref(&empty), |_, x| vec![x[0].argmax(0, false)]).is_err());
    assert_eq!(one(&[empty], |t, x| t.push(Op::Moments, &[&x[0]])).numel(), 6);
    // Nothing is left to mirror.
    let gone = apply(&[Array::arange([1, 1, 1, 4])], |_, x| vec![x[0].pad(&[-4, 2], PadMode::Reflect)]);
    assert!(matches!(gone, Err(Error::Shape { .. })));
    let map = Array::zeros([1, 1, 0, 4], DType::F32);
    let windows = Windows::Adaptive { out: [2, 2] };
    assert!(matches!(apply(&[map], |t, x| vec![t.push(Op::MaxPool2d(windows), &[&x[0]])]), Err(Error::Shape { .. })));
}
