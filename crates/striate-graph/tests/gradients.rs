//! Gradients as a user sees them: conventions at kinks, what is recorded and what is not, host calls, whole networks.

use std::sync::Arc;
use striate_graph::*;

type Build<'a> = &'a dyn Fn(&Trace, &[Tensor]) -> Tensor;

fn doubles() -> RunOptions {
    RunOptions { precision: Precision::F64, ..RunOptions::default() }
}

/// Values without pattern in `[-1, 1)`, no two equal.
fn noise(shape: &[usize], stream: &str) -> Vec<f64> {
    let key = rng::stream_key(0, stream);
    (0..shape.iter().product::<usize>()).map(|i| 2.0 * rng::uniform_f64(key, 0, i as u64) - 1.0).collect()
}

fn run(graph: &Graph, data: &[(&str, Array)]) -> Vec<Vec<f64>> {
    interpret(graph, data, &doubles()).unwrap().iter().map(Array::to_f64_vec).collect()
}

/// Gradient of `sum(y)` for each input, at the given values.
fn gradients_at(inputs: &[(&[usize], &[f64])], build: Build) -> Vec<Vec<f64>> {
    let trace = Trace::new(Mode::Train);
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("x{i}")).collect();
    let tensors: Vec<Tensor> =
        inputs.iter().zip(&names).map(|((shape, _), name)| trace.input(name, *shape, DType::F32)).collect();
    let loss = build(&trace, &tensors).sum_all();
    let found = gradients(&loss, &tensors.iter().collect::<Vec<_>>()).unwrap();
    let outputs: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(&found).collect();
    let graph = trace.finish(&outputs).unwrap();
    graph.verify().unwrap();
    let array = |(shape, values): &(&[usize], &[f64])| Array::from_f64(*shape, values, DType::F64).unwrap();
    let data: Vec<(&str, Array)> = names.iter().map(String::as_str).zip(inputs.iter().map(array)).collect();
    run(&graph, &data)
}

/// The largest difference between the gradients of `sum(y * noise)` and central differences, relative to the largest entry.
fn difference(shapes: &[&[usize]], build: Build) -> Result<f64> {
    let trace = Trace::new(Mode::Train);
    let names: Vec<String> = (0..shapes.len()).map(|i| format!("x{i}")).collect();
    let inputs: Vec<Tensor> = shapes.iter().zip(&names).map(|(s, n)| trace.input(n, *s, DType::F32)).collect();
    let y = build(&trace, &inputs);
    let weights = Array::from_f64(y.shape(), &noise(&y.shape(), "weights"), DType::F32)?;
    let loss = (&y * &trace.constant(weights)).sum_all();
    let found = gradients(&loss, &inputs.iter().collect::<Vec<_>>())?;
    let value = trace.clone().finish(&[("loss", &loss)])?;
    let graph = trace.finish(&names.iter().map(String::as_str).zip(&found).collect::<Vec<_>>())?;
    graph.verify()?;
    let mut data: Vec<(&str, Array)> = Vec::new();
    for (name, shape) in names.iter().zip(shapes) {
        data.push((name, Array::from_f64(*shape, &noise(shape, name), DType::F64)?));
    }
    let (exact, h, mut worst) = (interpret(&graph, &data, &doubles())?, 1e-5, 0f64);
    for index in 0..data.len() {
        let gradient = exact[index].to_f64_vec();
        let scale = gradient.iter().fold(1e-3f64, |m, g| m.max(g.abs()));
        for (element, gradient) in gradient.iter().enumerate() {
            let mut at = |by: f64| -> Result<f64> {
                let before = data[index].1.clone();
                data[index].1.as_mut_slice::<f64>().unwrap()[element] += by;
                let moved = interpret(&value, &data, &doubles())?[0].item();
                data[index].1 = before;
                moved
            };
            let slope = (at(h)? - at(-h)?) / (2.0 * h);
            worst = worst.max((slope - gradient).abs() / scale);
        }
    }
    Ok(worst)
}

fn assert_differences(cases: &[(&str, &[&[usize]], Build)]) {
    let check = |(name, shapes, build): &(&str, &[&[usize]], Build)| match difference(shapes, build) {
        Ok(worst) if worst < 2e-7 => None,
        outcome => Some(format!("{name} {shapes:?}: {outcome:?}")),
    };
    let failures: Vec<String> = cases.iter().filter_map(check).collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

fn indices(trace: &Trace, shape: &[usize], values: &[i64]) -> Tensor {
    trace.constant(Array::from_vec(shape, values.to_vec()).unwrap())
}

#[test]
fn uncommon_shapes_agree_with_finite_differences() {
    let max =
        |dilation| Windows::Sliding { kernel: [2, 2], stride: [1, 2], pads: [1, 0, 0, 1], dilation, ceil_mode: true };
    let resize = |mode, align_corners, antialias, scales| ResizeSpec { mode, align_corners, antialias, scales };
    let cubic = Interpolation::Bicubic { a: -0.5 };
    let pointwise = ConvAttrs::default();
    let multiplied = ConvAttrs { groups: 2, pads: [1, 2, 0, 0], stride: [1, 2], dilation: [1, 2] };
    assert_differences(&[
        ("mean of all", &[&[3, 4]], &|_, x| x[0].mean_all()),
        ("sum over no axis", &[&[3, 2]], &|_, x| x[0].sum(&[], false).square()),
        ("product over all", &[&[5]], &|_, x| x[0].reduce(ReduceKind::Prod, &[0], true)),
        ("norm of rows", &[&[3, 4]], &|_, x| x[0].reduce(ReduceKind::L2, &[1], false)),
        ("softmax of the first axis", &[&[4, 2]], &|_, x| x[0].softmax(0)),
        ("scalar with array", &[&[], &[2, 3]], &|_, x| (&x[0] * &x[1]).exp()),
        ("the same value twice", &[&[4]], &|_, x| &(&x[0] * &x[0]) + &x[0].unary(UnaryKind::Sin)),
        ("division by a row", &[&[2, 3], &[1, 3]], &|_, x| &x[0] / &x[1].exp()),
        ("maximum with a scalar", &[&[7], &[]], &|_, x| x[0].maximum(&x[1])),
        ("broadcast matrices", &[&[2, 1, 3, 4], &[5, 4, 2]], &|_, x| x[0].matmul(&x[1])),
        ("one row of matrices", &[&[3, 2, 4], &[4, 3]], &|_, x| x[0].matmul(&x[1])),
        ("gather of a table", &[&[4, 3]], &|t, x| x[0].index_select(0, &indices(t, &[2, 2], &[1, 3, -1, 0]))),
        ("concat of three", &[&[1, 2], &[3, 2], &[2, 2]], &|_, x| Tensor::cat(&[&x[0], &x[1], &x[2]], 0).square()),
        ("crop and wrap", &[&[6, 5]], &|_, x| x[0].pad(&[2, -1, -1, 3], PadMode::Circular)),
        ("crop and mirror", &[&[6, 5]], &|_, x| x[0].pad(&[-1, 2, 2, -2], PadMode::Reflect)),
        ("dilated maximum", &[&[2, 1, 5, 4]], &|t, x| t.push(Op::MaxPool2d(max([2, 1])), &[&x[0]])),
        ("corners", &[&[1, 1, 3, 4]], &|t, x| {
            t.push(Op::Resize { spec: resize(Interpolation::Bilinear, true, false, None), out: [5, 2] }, &[&x[0]])
        }),
        ("antialias", &[&[1, 1, 7, 6]], &|t, x| {
            t.push(Op::Resize { spec: resize(cubic, false, true, None), out: [3, 4] }, &[&x[0]])
        }),
        ("given scales", &[&[1, 2, 3, 3]], &|t, x| {
            let spec = resize(Interpolation::Bilinear, false, false, Some([1.7, 2.2]));
            t.push(Op::Resize { spec, out: [5, 6] }, &[&x[0]])
        }),
        ("pointwise", &[&[2, 3, 2, 2], &[4, 3, 1, 1]], &|t, x| t.push(Op::Conv2d(pointwise), &[&x[0], &x[1]])),
        ("two filters a channel", &[&[1, 2, 4, 5], &[4, 1, 2, 3]], &|t, x| {
            t.push(Op::Conv2d(multiplied), &[&x[0], &x[1]])
        }),
        ("statistics used apart", &[&[2, 3, 2]], &|t, x| {
            let moments = t.push(Op::Moments, &[&x[0]]);
            &(&x[0] - &moments.select(0, 0).unsqueeze(-1)) * &moments.select(0, 1).unsqueeze(-1)
        }),
        ("standardized rows", &[&[2, 3, 5]], &|t, x| {
            t.push(Op::Standardize { eps: 1e-5 }, &[&x[0].reshape([2, 15])]).reshape([2, 3, 5])
        }),
    ]);
}

#[test]
fn gradients_of_gradients_agree_with_finite_differences() {
    // The squared length of a gradient, as in a gradient penalty.
    let penalty = |value: &Tensor, x: &Tensor| gradients(&value.sum_all(), &[x]).unwrap().remove(0).square();
    let attrs = ConvAttrs { stride: [2, 1], pads: [1; 4], groups: 2, ..ConvAttrs::default() };
    let conv = |t: &Trace, x: &[Tensor]| t.push(Op::Conv2d(attrs), &[&x[0], &x[1]]);
    assert_differences(&[
        ("conv for its input", &[&[1, 2, 4, 3], &[2, 1, 3, 3]], &|t, x| penalty(&conv(t, x).square(), &x[0])),
        ("conv for its weight", &[&[1, 2, 4, 3], &[2, 1, 3, 3]], &|t, x| penalty(&conv(t, x).square(), &x[1])),
        ("matmul", &[&[2, 3], &[3, 4]], &|_, x| penalty(&x[0].matmul(&x[1]).square(), &x[0])),
        ("relu between", &[&[2, 3], &[3, 4], &[4, 2]], &|_, x| {
            let leaky = UnaryKind::LeakyRelu { slope: 0.2 };
            penalty(&x[0].matmul(&x[1]).unary(leaky).matmul(&x[2]).relu().square(), &x[0])
        }),
        ("softmax", &[&[2, 4]], &|_, x| penalty(&x[0].softmax(1).square(), &x[0])),
        ("pools", &[&[1, 1, 4, 4]], &|t, x| {
            let windows =
                Windows::Sliding { kernel: [2, 2], stride: [2, 2], pads: [0; 4], dilation: [1, 1], ceil_mode: false };
            let pooled = t.push(Op::AvgPool2d { windows, divisor: AvgDivisor::IncludePad }, &[&x[0]]);
            penalty(&pooled.square(), &x[0])
        }),
    ]);
}

#[test]
fn kinks_follow_pytorch() {
    use UnaryKind::*;
    // The derivative where the function has a corner.
    let corners: &[(UnaryKind, f64, f64)] = &[
        (Relu, 0.0, 0.0),
        (Abs, 0.0, 0.0),
        (LeakyRelu { slope: 0.25 }, 0.0, 0.25),
        (Elu { alpha: 0.5 }, 0.0, 0.5),
        (Clip { min: -1.0, max: 2.0 }, -1.0, 0.0),
        (Clip { min: -1.0, max: 2.0 }, 2.0, 0.0),
        (Hardsigmoid, 3.0, 0.0),
        (Hardswish, -3.0, 0.0),
        (Hardswish, 3.0, 1.0),
        (Sign, 2.0, 0.0),
        (Round, 0.7, 0.0),
    ];
    for &(kind, at, expected) in corners {
        let found = gradients_at(&[(&[1], &[at])], &|_, x| x[0].unary(kind));
        assert_eq!(found[0], [expected], "{kind:?} at {at}");
    }
    let pair = [(&[3][..], &[1.0, 2.0, 3.0][..]), (&[3], &[2.0, 2.0, 2.0])];
    assert_eq!(gradients_at(&pair, &|_, x| x[0].maximum(&x[1])), [[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]]);
    assert_eq!(gradients_at(&pair, &|_, x| x[0].minimum(&x[1])), [[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]]);
    let reduce =
        |values: &[f64], kind| gradients_at(&[(&[4], values)], &|_, x| x[0].reduce(kind, &[0], false)).remove(0);
    assert_eq!(reduce(&[3.0, 1.0, 3.0, 2.0], ReduceKind::Max), [0.5, 0.0, 0.5, 0.0]);
    assert_eq!(reduce(&[1.0, 1.0, 1.0, 1.0], ReduceKind::Min), [0.25; 4]);
    assert_eq!(reduce(&[2.0, 0.0, 3.0, 4.0], ReduceKind::Prod), [0.0, 24.0, 0.0, 0.0]);
    assert_eq!(reduce(&[2.0, 0.0, 0.0, 4.0], ReduceKind::Prod), [0.0; 4]);
    assert_eq!(reduce(&[0.0; 4], ReduceKind::L2), [0.0; 4]);
    assert_eq!(reduce(&[-2.0, 0.0, 3.0, 0.0], ReduceKind::L1), [-1.0, 0.0, 1.0, 0.0]);
    // 0^b has slope 0 along b, and x^0 along x.
    let powers = [(&[3][..], &[0.0, 3.0, 0.0][..]), (&[3], &[2.0, 0.0, 0.0])];
    let found = gradients_at(&powers, &|_, x| x[0].pow(&x[1]));
    assert_eq!(found, [[0.0, 0.0, 0.0], [0.0, 3f64.ln(), 0.0]]);
    // The first of equal maxima of a window takes the gradient.
    let windows = Windows::Sliding { kernel: [2, 2], stride: [2, 2], pads: [0; 4], dilation: [1, 1], ceil_mode: false };
    let map = [(&[1, 1, 2, 2][..], &[1.0, 5.0, 5.0, 2.0][..])];
    assert_eq!(gradients_at(&map, &|t, x| t.push(Op::MaxPool2d(windows), &[&x[0]])), [[0.0, 1.0, 0.0, 0.0]]);
}

#[test]
fn any_set_of_tensors_can_be_asked_for() {
    let trace = Trace::new(Mode::Train);
    let x = trace.input("x", [2], DType::F32);
    let unused = trace.input("unused", [3], DType::F32);
    let middle = x.square();
    let loss = (&middle * 3.0).sum_all();
    let later = loss.exp();
    let wrt = [&x, &middle, &loss, &unused, &x, &later];
    let found = gradients(&loss, &wrt).unwrap();
    let shapes: Vec<Shape> = found.iter().map(Tensor::shape).collect();
    assert_eq!(shapes, wrt.map(Tensor::shape));
    let graph = trace.finish(&found.iter().map(|t| ("g", t)).collect::<Vec<_>>()).unwrap();
    let x = Array::from_vec([2], vec![2f32, -1.0]).unwrap();
    let values = run(&graph, &[("x", x), ("unused", Array::zeros([3], DType::F32))]);
    assert_eq!(values, [vec![12.0, -6.0], vec![3.0, 3.0], vec![1.0], vec![0.0; 3], vec![12.0, -6.0], vec![0.0]]);
}

#[test]
fn a_vector_jacobian_product_joins_several_outputs() {
    let trace = Trace::new(Mode::Train);
    let x = trace.input("x", [2], DType::F32);
    let (a, b) = (x.square(), x.sum_all());
    let (da, db) = (trace.input("da", [2], DType::F32), trace.input("db", [], DType::F32));
    let dx = gradients_from(&[&a, &b, &a], &[&da, &db, &da], &[&x]).unwrap().remove(0);
    let graph = trace.clone().finish(&[("dx", &dx)]).unwrap();
    let vector = |values: [f32; 2]| Array::from_vec([2], values.to_vec()).unwrap();
    let data = [("x", vector([1.0, 2.0])), ("da", vector([0.5, 1.0])), ("db", Array::scalar(10f32))];
    assert_eq!(run(&graph, &data), [[12.0, 18.0]]);

    let message = |result: Result<Vec<Tensor>>| result.unwrap_err().to_string();
    assert!(message(gradients_from(&[&a], &[&db], &[&x])).contains("[2]"));
    assert!(message(gradients_from(&[&a, &b], &[&da], &[&x])).contains('2'));
    let other = Trace::new(Mode::Train);
    let stranger = other.input("x", [2], DType::F32);
    assert!(message(gradients(&b, &[&stranger])).contains("another trace"));
    assert!(message(gradients_from(&[&a], &[&stranger], &[&x])).contains("another trace"));
    // Refused shapes come out first, as everywhere.
    let broken = (&a + &trace.input("c", [3], DType::F32)).sum_all();
    assert!(matches!(gradients(&broken, &[&x]), Err(Error::Shape { .. })));
}

fn count(trace: &Trace, name: &str) -> usize {
    trace.with_graph(|graph| graph.nodes.iter().filter(|node| node.op.name() == name).count())
}

#[test]
fn only_what_is_needed_is_recorded() {
    let trace = Trace::new(Mode::Train);
    let x = trace.input("x", [1, 2, 5, 5], DType::F32);
    let w: Vec<Tensor> = (0..3).map(|i| trace.input(&format!("w{i}"), [2, 2, 3, 3], DType::F32)).collect();
    let conv = |x: &Tensor, w: &Tensor| {
        trace.push(Op::Conv2d(ConvAttrs { pads: [1; 4], ..ConvAttrs::default() }), &[x, w]).tanh()
    };
    let frozen = conv(&x, &w[0]);
    let loss = conv(&conv(&frozen, &w[1]), &w[2]).sum_all();
    gradients(&loss, &[&w[1]]).unwrap();
    assert_eq!((count(&trace, "Conv2dWeightGrad"), count(&trace, "Conv2dInputGrad")), (1, 1));

    // Behind a cut nothing is recorded, and nothing has to be differentiable.
    let before = trace.with_graph(|graph| graph.nodes.len());
    let update = trace.push(Op::StandardizeGrad { eps: 1e-5 }, &[&x, &x]).detach();
    let class = x.argmax(1, false).cast(DType::F32);
    let loss = &(&update * &x).sum_all() + &(&class * 2.0).sum_all();
    gradients(&loss, &[&x]).unwrap();
    trace.with_graph(|graph| {
        let added = &graph.nodes[before..];
        assert_eq!(added.iter().filter(|node| matches!(node.op, Op::Cast(_))).count(), 1);
        let products = added.iter().filter(|node| matches!(node.op, Op::Binary(BinaryKind::Mul))).count();
        assert_eq!(products, 2, "x * update forward, dy * update backward");
    });
}

#[test]
fn gradients_carry_the_layer_of_their_forward_node() {
    let trace = Trace::new(Mode::Train);
    let x = trace.input("x", [2, 3], DType::F32);
    let w = trace.input("w", [4, 3], DType::F32);
    let scope = trace.enter("head.fc");
    let y = x.linear(&w, None).log_softmax(1);
    drop(scope);
    let forward = trace.with_graph(|graph| graph.nodes.len());
    let loss = y.mean_all();
    gradients(&loss, &[&w]).unwrap();
    trace.with_graph(|graph| {
        let layers = graph.nodes[forward..].iter().filter(|node| &*node.origin.layer == "head.fc");
        assert!(layers.count() >= 4);
        let product = graph.nodes[forward..].iter().find(|node| matches!(node.op, Op::MatMul { .. })).unwrap();
        assert_eq!(&*product.origin.layer, "head.fc");
        assert!(product.origin.at.file().ends_with("gradients.rs"), "{}", product.origin.at);
    });

    let scope = trace.enter("odd.layer");
    let odd = trace.push(Op::StandardizeGrad { eps: 1e-5 }, &[&x, &x]).sum_all();
    drop(scope);
    match gradients(&odd, &[&x]) {
        Err(Error::NotDifferentiable { op, layer }) => assert_eq!((&*op, &*layer), ("StandardizeGrad", "odd.layer")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn other_float_types_and_empty_batches_have_gradients() {
    for dtype in [DType::F64, DType::F16, DType::BF16] {
        let trace = Trace::new(Mode::Train);
        let x = trace.input("x", [3], dtype);
        let dx = gradients(&x.square().mean_all(), &[&x]).unwrap().remove(0);
        let graph = trace.finish(&[("dx", &dx)]).unwrap();
        let x = Array::from_f64([3], &[3.0, -1.5, 0.0], dtype).unwrap();
        let found = interpret(&graph, &[("x", x)], &RunOptions::default()).unwrap().remove(0);
        assert_eq!(found.dtype(), dtype);
        assert_eq!(found.to_f64_vec(), [2.0, -1.0, 0.0], "{dtype}");
    }
    let trace = Trace::new(Mode::Train);
    let x = trace.input("x", [0, 2, 4, 4], DType::F32);
    let w = trace.input("w", [3, 2, 3, 3], DType::F32);
    let loss = trace.push(Op::Conv2d(ConvAttrs::default()), &[&x, &w]).relu().sum_all();
    let found = gradients(&loss, &[&x, &w]).unwrap();
    let graph = trace.finish(&[("dx", &found[0]), ("dw", &found[1])]).unwrap();
    let data = [("x", Array::zeros([0, 2, 4, 4], DType::F32)), ("w", Array::full([3, 2, 3, 3], 1f32))];
    let found = interpret(&graph, &data, &RunOptions::default()).unwrap();
    assert_eq!(found[0].numel(), 0);
    assert_eq!(found[1].f32s().unwrap(), [0.0; 54]);
}

fn register(name: &str, function: impl Fn(&[Array]) -> Result<Vec<Array>> + Send + Sync + 'static) {
    let function = move |inputs: &[Array]| function(inputs).map_err(|error| error.to_string());
    register_host_function(name, Arc::new(function));
}

#[test]
fn a_host_call_has_the_gradient_that_it_brings() {
    // (number of positive values, 2 x, sum of x * y)
    register("test.three", |inputs| {
        let (x, y) = (inputs[0].f32s()?, inputs[1].f32s()?);
        let positive = x.iter().filter(|x| **x > 0.0).count() as i64;
        let doubled = x.iter().map(|x| 2.0 * x).collect::<Vec<_>>();
        let product = x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>();
        Ok(vec![Array::scalar(positive), Array::from_vec([3], doubled)?, Array::scalar(product)])
    });
    // Takes x, y, the count, then the gradients of the three outputs.
    register("test.three.backward", |inputs| {
        let [x, y, rank, d_count, d_doubled, d_product] = inputs else { unreachable!("six inputs") };
        assert_eq!((rank.dtype(), d_count.dtype(), d_count.to_f64_vec()), (DType::I64, DType::I64, vec![0.0]));
        let (d, g) = (d_doubled.f32s()?, d_product.f32s()?[0]);
        let dx = y.f32s()?.iter().zip(d).map(|(y, d)| 2.0 * d + g * y).collect::<Vec<_>>();
        let dy = x.f32s()?.iter().map(|x| g * x).collect::<Vec<_>>();
        Ok(vec![Array::from_vec([3], dx)?, Array::from_vec([3], dy)?])
    });
    let trace = Trace::new(Mode::Train);
    let (x, y) = (trace.input("x", [3], DType::F32), trace.input("y", [3], DType::F32));
    let rank = trace.constant(Array::scalar(1i64));
    let outputs = [([].into(), DType::I64), ([3].into(), DType::F32), ([].into(), DType::F32)];
    let call = |backward| trace.host_call("test.three", &[&x, &y, &rank], &outputs, backward);
    let three = call(Some("test.three.backward"));
    let both = &three[1].sum_all() + &(&three[2] * 10.0);
    let found = gradients(&both, &[&x, &y]).unwrap();
    // One output alone: the other's gradient is zero.
    let alone = gradients(&three[2], &[&x, &y]).unwrap();
    let cut = call(None);
    let none = gradients(&(&cut[1] + &x).sum_all(), &[&x, &y]).unwrap();
    // An output may be read more than once.
    let again = trace.push(Op::HostOutput { index: 2 }, &[&three[0]]);
    let twice = gradients(&(&again + &three[2]), &[&x]).unwrap();
    let all: Vec<(&str, &Tensor)> = found.iter().chain(&alone).chain(&none).chain(&twice).map(|t| ("g", t)).collect();
    let graph = trace.finish(&all).unwrap();
    graph.verify().unwrap();
    let vector = |values: [f32; 3]| Array::from_vec([3], values.to_vec()).unwrap();
    let values = run(&graph, &[("x", vector([1.0, -2.0, 3.0])), ("y", vector([4.0, 5.0, 6.0]))]);
    assert_eq!(values[0], [42.0, 52.0, 62.0]);
    assert_eq!(values[1], [10.0, -20.0, 30.0]);
    assert_eq!(values[2], [4.0, 5.0, 6.0]);
    assert_eq!(values[3], [1.0, -2.0, 3.0]);
    assert_eq!(values[4], [1.0; 3]);
    assert_eq!(values[5], [0.0; 3]);
    assert_eq!(values[6], [8.0, 10.0, 12.0]);
}

#[test]
fn a_whole_network_agrees_with_finite_differences() {
    let attrs = ConvAttrs { pads: [1; 4], stride: [2, 1], ..ConvAttrs::default() };
    let windows =
        Windows::Sliding { kernel: [3, 2], stride: [1, 2], pads: [1, 0, 1, 0], dilation: [1, 1], ceil_mode: false };
    let network = |t: &Trace, x: &[Tensor]| {
        let block = |input: &Tensor, w: usize, attrs| {
            let y = t.push(Op::Conv2d(attrs), &[input, &x[w]]);
            let moments = t.push(Op::Moments, &[&y]);
            t.push(Op::BatchNormTraining { eps: 1e-3 }, &[&y, &x[w + 1], &x[w + 2], &moments])
        };
        let stem = block(&x[0], 1, attrs).unary(UnaryKind::Silu);
        let same = ConvAttrs { groups: 3, pads: [1; 4], ..ConvAttrs::default() };
        let residual = (&block(&stem, 4, same) + &stem).relu();
        let pooled = t.push(Op::MaxPool2d(windows), &[&residual]);
        let features = pooled.mean(&[2, 3], false);
        let logits = features.linear(&x[7], Some(&x[8]));
        let target = indices(t, &[3], &[2, 0, 3]).one_hot(4);
        (&logits.log_softmax(1) * &target).sum(&[1], false).neg()
    };
    let shapes: &[&[usize]] = &[&[3, 2, 6, 4], &[3, 2, 3, 3], &[3], &[3], &[3, 1, 3, 3], &[3], &[3], &[4, 3], &[4]];
    let worst = difference(shapes, &network).unwrap();
    assert!(worst < 1e-6, "{worst}");
}
