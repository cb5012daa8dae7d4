//! Compiled programs against the interpreter, and the promises of a session.

use std::sync::Arc;
use striate_graph::machine::Team;
use striate_graph::*;

fn noise(shape: &[usize], seed: u64) -> Array {
    let mut values = vec![0.0; shape.iter().product()];
    rng::fill_normal(&mut values, rng::stream_key(seed, "test"), 0, 0);
    Array::from_vec(shape, values).unwrap()
}

fn cell(name: &str, shape: &[usize], seed: u64) -> Parameter {
    let parameter = Parameter::new(noise(shape, seed));
    parameter.set_name(name);
    parameter
}

fn program(graph: &Graph) -> Arc<Program> {
    Program::compile(graph, &CompileOptions { threads: 3, ..CompileOptions::default() }).unwrap()
}

/// Relative to the size of what is wanted.
fn assert_close(what: &str, got: &Array, want: &Array, tolerance: f64) {
    assert_eq!((got.shape(), got.dtype()), (want.shape(), want.dtype()), "{what}");
    let (got, want) = (got.to_f64_vec(), want.to_f64_vec());
    let scale = (want.iter().map(|w| w * w).sum::<f64>() / want.len().max(1) as f64).sqrt().max(1e-6);
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!((g - w).abs() <= tolerance * (scale + w.abs()), "{what}: element {i} is {g}, should be {w}");
    }
}

/// Runs both executors (the interpreter in float64) on one graph of one input `x`; the planned one with 1, 2 and 3 threads, to the same bits.
fn check(what: &str, graph: &Graph, x: &Array) -> Vec<Array> {
    let options = RunOptions { apply_updates: false, precision: Precision::F64, ..RunOptions::default() };
    let want = interpret(graph, &[("x", x.clone())], &options).unwrap();
    let program = program(graph);
    // A training step changes the cells: each run starts from the same.
    let before: Vec<Array> = graph.parameters.iter().map(Parameter::array).collect();
    let run = |threads| {
        graph.parameters.iter().zip(&before).for_each(|(cell, array)| cell.set(array.clone()).unwrap());
        let mut session = Session::with_team(program.clone(), Arc::new(Team::new(threads)));
        session.run(&[("x", x)]).unwrap().to_vec()
    };
    let got = run(1);
    for (index, (got, want)) in got.iter().zip(&want).enumerate() {
        assert_close(&format!("{what}, output {index}"), got, &want.cast(got.dtype()), 2e-5);
    }
    for threads in [2, 3] {
        let again = run(threads);
        assert!(got.iter().zip(&again).all(|(a, b)| a.bits_eq(b)), "{what}: other bits with {threads} threads");
    }
    got
}

/// Names a graph from one input to some outputs.
type Build = Box<dyn Fn(&Tensor) -> Vec<Tensor>>;

fn graphs() -> Vec<(&'static str, Vec<usize>, Build)> {
    fn boxed(f: impl Fn(&Tensor) -> Vec<Tensor> + 'static) -> Build {
        Box::new(f)
    }
    let conv = |x: &Tensor, name: &'static str, shape: [usize; 4], attrs: ConvAttrs| {
        let w = x.trace().parameter(&cell(name, &shape, 1));
        x.trace().push(Op::Conv2d(attrs), &[x, &w])
    };
    let same = ConvAttrs { pads: [1; 4], ..ConvAttrs::default() };
    let map = vec![2, 5, 7, 6];
    vec![
        ("identity", map.clone(), boxed(|x| vec![x.clone()])),
        ("arithmetic", map.clone(), boxed(|x| vec![((x * 2.0).relu() + x).exp(), x / &(x.square() + 1.0)])),
        (
            "channel",
            map.clone(),
            boxed(|x| {
                let row = x.trace().parameter(&cell("row", &[5, 1, 1], 3));
                vec![x * &row, &row - x, x + &x.narrow(1, 1, 1), x * &x.narrow(0, 1, 1)]
            }),
        ),
        (
            "sums",
            map.clone(),
            boxed(|x| {
                let sum = |axes: &[isize], keep| x.sum(axes, keep);
                vec![
                    sum(&[0, 2, 3], false),
                    sum(&[2, 3], true),
                    sum(&[1], false),
                    sum(&[3], true),
                    sum(&[0], false),
                    x.mean_all(),
                    x.mean(&[1, 2], true),
                ]
            }),
        ),
        (
            "moves",
            map.clone(),
            boxed(|x| {
                let parts = [x.narrow(1, 0, 2), x.narrow(1, 2, 3)];
                vec![
                    Tensor::cat(&[&parts[1], &parts[0], x], 1),
                    Tensor::cat(&[x, x], 2),
                    x.permute(&[0, 2, 3, 1]),
                    x.permute(&[3, 1, 0, 2]).relu(),
                    x.reshape([10, 42]).relu(),
                    x.reshape([10, 7, 6]).transpose(1, 2),
                    x.pad(&[1, 2, 0, 1], PadMode::Constant(0.5)),
                    x.pad(&[1, 2, 3, 1], PadMode::Reflect),
                    x.narrow(2, 3, 2),
                    x.narrow(0, 1, 1).expand([3, 5, 7, 6]),
                    x.flatten(1, -1),
                ]
            }),
        ),
        (
            "softmax",
            vec![6, 9],
            boxed(|x| vec![x.softmax(1), x.log_softmax(0), x.select(0, 2), x.argmax(1, false).one_hot(9)]),
        ),
        (
            "three axes",
            vec![2, 5, 8],
            boxed(|x| vec![x.relu(), x.sum(&[2], false), &x.relu() + &x.sum(&[1], true), x.matmul(&x.transpose(1, 2))]),
        ),
        (
            "conv, residual, activation",
            map.clone(),
            boxed(move |x| {
                let y = conv(x, "w", [5, 5, 3, 3], same);
                vec![(&y + x).relu(), conv(&y, "v", [7, 5, 3, 3], same).silu()]
            }),
        ),
        (
            "two convolutions that meet",
            map.clone(),
            boxed(move |x| vec![(&conv(x, "w", [4, 5, 3, 3], same) + &conv(x, "v", [4, 5, 3, 3], same)).relu()]),
        ),
        (
            "a ReLU between convolutions, and a fork",
            map.clone(),
            boxed(move |x| {
                let h = conv(x, "w", [5, 5, 3, 3], same).relu();
                let lanes = ConvAttrs { groups: 5, stride: [2, 1], ..same };
                let forked = conv(&h, "v", [5, 5, 3, 3], same) + &h;
                vec![
                    forked.clamp(-0.5, 2.0),
                    conv(&conv(x, "u", [5, 5, 1, 1], ConvAttrs::default()).relu(), "d", [5, 1, 3, 3], lanes),
                ]
            }),
        ),
        (
            "linear layers with a ReLU between",
            vec![4, 6],
            boxed(|x| {
                let w = |name: &str, shape: [usize; 2]| x.trace().parameter(&cell(name, &shape, 1));
                vec![x.linear(&w("a", [7, 6]), None).relu().linear(&w("b", [5, 7]), None)]
            }),
        ),
        (
            "grouped conv with a bias",
            vec![2, 6, 7, 5],
            boxed(move |x| {
                let attrs = ConvAttrs { groups: 3, stride: [2, 1], pads: [0, 1, 2, 1], dilation: [1, 2] };
                let (w, b) =
                    (x.trace().parameter(&cell("w", &[9, 2, 3, 2], 1)), x.trace().parameter(&cell("b", &[9], 2)));
                vec![x.trace().push(Op::Conv2d(attrs), &[x, &w, &b]).clamp(0.0, 6.0)]
            }),
        ),
        (
            "a computed weight",
            map.clone(),
            boxed(move |x| {
                let w = x.trace().parameter(&cell("w", &[4, 5, 3, 3], 1)).tanh();
                vec![x.trace().push(Op::Conv2d(same), &[x, &w])]
            }),
        ),
        (
            "channels to the end and back",
            map.clone(),
            boxed(move |x| {
                let w = x.trace().parameter(&cell("w", &[5, 3, 3, 5], 1)).permute(&[0, 3, 1, 2]);
                let y = x.trace().push(Op::Conv2d(same), &[x, &w]).relu();
                let last = y.permute(&[0, 2, 3, 1]);
                let scaled = &last * &x.trace().parameter(&cell("row", &[5], 3));
                vec![scaled.permute(&[0, 3, 1, 2]).exp(), &scaled.permute(&[0, 3, 1, 2]) + &y, last]
            }),
        ),
        (
            "linear",
            vec![3, 4, 6],
            boxed(|x| {
                let (w, b) = (x.trace().parameter(&cell("w", &[5, 6], 1)), x.trace().parameter(&cell("b", &[5], 2)));
                vec![
                    x.linear(&w, Some(&b)).relu(),
                    x.reshape([12, 6]).linear(&w, None),
                    x.reshape([12, 6]).linear(&w, Some(&b)),
                ]
            }),
        ),
        (
            "pools",
            vec![2, 5, 9, 8],
            boxed(|x| {
                let windows = Windows::Sliding {
                    kernel: [3, 2],
                    stride: [2, 2],
                    pads: [1, 0, 1, 1],
                    dilation: [1; 2],
                    ceil_mode: true,
                };
                let push = |op| x.trace().push(op, &[x]);
                vec![
                    push(Op::MaxPool2d(windows)),
                    push(Op::MaxPool2dIndices(windows)),
                    push(Op::AvgPool2d { windows, divisor: AvgDivisor::ExcludePad }),
                    push(Op::AvgPool2d { windows: Windows::Adaptive { out: [1, 1] }, divisor: AvgDivisor::IncludePad }),
                ]
            }),
        ),
        (
            "windows and rows",
            vec![2, 5, 6, 8],
            boxed(|x| {
                let windows = Windows::Sliding {
                    kernel: [3, 2],
                    stride: [2, 1],
                    pads: [1, 0, 1, 1],
                    dilation: [1; 2],
                    ceil_mode: true,
                };
                let push = |op| x.trace().push(op, &[x]);
                let pool = |divisor| push(Op::AvgPool2d { windows, divisor });
                let spec = |mode, antialias| ResizeSpec { mode, align_corners: false, antialias, scales: None };
                let (linear, cubic) =
                    (spec(Interpolation::Bilinear, true), spec(Interpolation::Bicubic { a: -0.75 }, false));
                vec![
                    pool(AvgDivisor::IncludePad),
                    pool(AvgDivisor::Const(5)),
                    push(Op::Resize { spec: linear, out: [3, 11] }),
                    push(Op::Resize { spec: cubic, out: [9, 8] }),
                    x.relu().softmax(1),
                    x.softmax(2),
                    x.log_softmax(3),
                    push(Op::Standardize { eps: 1e-5 }),
                    push(Op::Reduce { kind: ReduceKind::Max, axes: vec![2, 3], keepdims: true }),
                ]
            }),
        ),
        (
            "empty",
            vec![0, 5, 9, 8],
            boxed(move |x| vec![conv(x, "w", [4, 5, 3, 3], same).relu(), x.sum(&[0], false), x.permute(&[1, 0, 2, 3])]),
        ),
    ]
}

#[test]
fn programs_compute_what_the_interpreter_computes() {
    for (name, shape, build) in graphs() {
        let trace = Trace::new(Mode::Eval);
        let outputs = build(&trace.input("x", &shape[..], DType::F32));
        let named: Vec<(&str, &Tensor)> = outputs.iter().map(|y| ("y", y)).collect();
        check(name, &trace.finish(&named).unwrap(), &noise(&shape, 9));
    }
}

#[test]
fn gradients_of_all_graphs_agree_too() {
    for (name, shape, build) in graphs() {
        let trace = Trace::new(Mode::Train);
        let x = trace.input("x", &shape[..], DType::F32);
        let outputs = build(&x);
        let floats = outputs.iter().filter(|y| y.dtype().is_float());
        let loss = floats.map(|y| y.square().sum_all()).reduce(|a, b| a + b).unwrap();
        let gradient = gradients(&loss, &[&x]).unwrap().remove(0);
        check(name, &trace.finish(&[("dx", &gradient)]).unwrap(), &noise(&shape, 9));
    }
}

/// A small residual net: convolution, batch norm, ReLU, a residual, pools, a linear layer.
struct Net {
    cells: Vec<Parameter>,
}

impl Net {
    fn new() -> Net {
        let shapes: [(&str, &[usize]); 8] = [
            ("conv1.weight", &[8, 3, 3, 3]),
            ("bn1.weight", &[8]),
            ("bn1.bias", &[8]),
            ("conv2.weight", &[8, 8, 3, 3]),
            ("bn2.weight", &[8]),
            ("bn2.bias", &[8]),
            ("fc.weight", &[10, 8]),
            ("fc.bias", &[10]),
        ];
        Net { cells: shapes.iter().enumerate().map(|(i, (name, shape))| cell(name, shape, i as u64)).collect() }
    }

    fn loss(&self, x: &Tensor) -> Tensor {
        let trace = x.trace();
        let p: Vec<Tensor> = self.cells.iter().map(|c| trace.parameter(c)).collect();
        let same = ConvAttrs { pads: [1; 4], ..ConvAttrs::default() };
        let norm = |x: &Tensor, w: &Tensor, b: &Tensor| {
            let moments = trace.push(Op::Moments, &[x]);
            trace.push(Op::BatchNormTraining { eps: 1e-5 }, &[x, w, b, &moments])
        };
        let x = norm(&trace.push(Op::Conv2d(same), &[x, &p[0]]), &p[1], &p[2]).relu();
        let y = norm(&trace.push(Op::Conv2d(same), &[&x, &p[3]]), &p[4], &p[5]);
        let x = (&y + &x).relu();
        let windows =
            Windows::Sliding { kernel: [2; 2], stride: [2; 2], pads: [0; 4], dilation: [1; 2], ceil_mode: false };
        let x = trace.push(Op::MaxPool2d(windows), &[&x]).mean(&[2, 3], false);
        let logits = x.linear(&p[6], Some(&p[7]));
        -(logits.log_softmax(1).narrow(1, 0, 1).mean_all())
    }

    /// One step of SGD with momentum; gives the loss and the gradients.
    fn step(&self, batch: usize) -> Graph {
        let trace = Trace::new(Mode::Train);
        let x = trace.input("x", [batch, 3, 8, 8], DType::F32);
        let loss = self.loss(&x);
        trace.guard(&loss);
        let weights: Vec<Tensor> = self.cells.iter().map(|c| trace.parameter(c)).collect();
        let gradients = gradients(&loss, &weights.iter().collect::<Vec<_>>()).unwrap();
        let hyper = trace.constant(Array::from_vec([3], vec![0.1f32, 0.01, 0.0]).unwrap());
        let kind = UpdateKind::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false };
        for (cell, gradient) in self.cells.iter().zip(&gradients) {
            let state = Parameter::buffer(Array::zeros(cell.shape(), DType::F32));
            trace.update(cell, &[state], kind, &[gradient, &hyper]);
        }
        let mut outputs = vec![("loss", &loss)];
        outputs.extend(gradients.iter().map(|g| ("gradient", g)));
        trace.finish(&outputs).unwrap()
    }
}

#[test]
fn a_training_step_agrees_and_updates_the_cells() {
    let (x, planned, interpreted) = (noise(&[4, 3, 8, 8], 77), Net::new(), Net::new());
    let graph = planned.step(4);
    check("training step", &Net::new().step(4), &x);
    let program = program(&graph);
    let mut session = Session::new(program);
    let other = interpreted.step(4);
    for _ in 0..3 {
        session.run(&[("x", &x)]).unwrap();
        interpret(&other, &[("x", x.clone())], &RunOptions::default()).unwrap();
    }
    for (a, b) in planned.cells.iter().zip(&interpreted.cells) {
        assert_close(&a.name(), &a.array(), &b.array(), 1e-4);
    }
}

/// Sums at forks and masks go with the input gradients and the backward of batch norms.
#[test]
fn the_backward_of_a_residual_net_takes_no_pass_for_forks() {
    let graph = Net::new().step(4);
    let mut session = Session::new(program(&graph));
    session.set_profiling(true);
    session.run(&[("x", &noise(&[4, 3, 8, 8], 77))]).unwrap();
    let kernels: Vec<&str> = session.profile().unwrap().steps().iter().map(|step| &*step.kernel).collect();
    let count = |name: &str| kernels.iter().filter(|kernel| **kernel == name).count();
    // The one after the residual: what flows back into it comes from a pool.
    assert_eq!((count("Add"), count("gradient of Relu")), (0, 1), "{kernels:?}");
}

/// A batch norm and the smooth activation behind it are one step on each way, but where something else reads what lies between.
#[test]
fn a_smooth_activation_goes_with_its_batch_norm() {
    let cells = [("w", &[6, 3, 1, 1][..]), ("gamma", &[6]), ("beta", &[6])];
    let cells: Vec<Parameter> =
        cells.iter().enumerate().map(|(i, (name, shape))| cell(name, shape, i as u64)).collect();
    let x = noise(&[4, 3, 5, 7], 7);
    for kind in [UnaryKind::Silu, UnaryKind::Hardswish] {
        for read_between in [false, true] {
            let trace = Trace::new(Mode::Train);
            let input = trace.input("x", x.shape(), DType::F32);
            let p: Vec<Tensor> = cells.iter().map(|cell| trace.parameter(cell)).collect();
            let y = trace.push(Op::Conv2d(ConvAttrs::default()), &[&input, &p[0]]);
            let moments = trace.push(Op::Moments, &[&y]);
            let normed = trace.push(Op::BatchNormTraining { eps: 1e-5 }, &[&y, &p[1], &p[2], &moments]);
            let activated = normed.unary(kind).square();
            let loss = if read_between { activated + normed.square() } else { activated }.sum_all();
            let found = gradients(&loss, &p.iter().collect::<Vec<_>>()).unwrap();
            let outputs: Vec<(&str, &Tensor)> = ["w", "gamma", "beta"].into_iter().zip(&found).collect();
            let graph = trace.finish(&outputs).unwrap();
            check(&format!("{kind:?} behind a norm"), &graph, &x);
            let mut session = Session::new(program(&graph));
            session.set_profiling(true);
            session.run(&[("x", &x)]).unwrap();
            let profile = session.profile().unwrap();
            let name = format!("{kind:?}");
            let passes = profile.steps().iter().filter(|step| step.kernel.contains(&name)).count();
            assert_eq!(passes, if read_between { 2 } else { 0 }, "{kind:?}, read between: {read_between}");
        }
    }
}

/// What is read again and again is not written out before.
#[test]
fn a_sum_with_an_expanded_row_takes_no_copy() {
    let x = noise(&[3, 4, 16], 7);
    let trace = Trace::new(Mode::Eval);
    let input = trace.input("x", x.shape(), DType::F32);
    let sums = input.sum(&[2], true);
    let graph = trace.finish(&[("y", &(&input * &sums.expand([3, 4, 16])))]).unwrap();
    check("expanded", &graph, &x);
    let mut session = Session::new(program(&graph));
    session.set_profiling(true);
    session.run(&[("x", &x)]).unwrap();
    let profile = session.profile().unwrap();
    let kernels: Vec<&str> = profile.steps().iter().map(|step| &*step.kernel).collect();
    assert_eq!(kernels, ["Sum", "Mul"]);
}

/// The mask of an activation before a pool is taken from the pool's output, by the gradient that makes what it masks.
#[test]
fn an_activation_before_a_pool_takes_no_pass_of_its_own() {
    let [w, v] = [cell("w", &[8, 3, 3, 3], 1), cell("v", &[8, 8, 3, 3], 2)];
    let windows = |kernel: usize| Windows::Sliding {
        kernel: [kernel; 2],
        stride: [2; 2],
        pads: [kernel / 2 - 1, kernel / 2 - 1, 0, 0],
        dilation: [1; 2],
        ceil_mode: false,
    };
    let same = ConvAttrs { pads: [1; 4], ..ConvAttrs::default() };
    for kernel in [2, 4] {
        let trace = Trace::new(Mode::Train);
        let x = trace.input("x", [4, 3, 12, 12], DType::F32);
        let [w, v] = [&w, &v].map(|cell| trace.parameter(cell));
        let y = trace.push(Op::Conv2d(same), &[&x, &w]).unary(UnaryKind::Clip { min: 0.0, max: 0.5 });
        let y = trace.push(Op::MaxPool2d(windows(kernel)), &[&y]);
        let loss = trace.push(Op::Conv2d(same), &[&y, &v]).square().sum_all();
        let gradients = gradients(&loss, &[&w, &v]).unwrap();
        let graph = trace.finish(&[("w", &gradients[0]), ("v", &gradients[1])]).unwrap();
        let x = noise(&[4, 3, 12, 12], 7);
        check("clip before a pool", &graph, &x);
        let mut session = Session::new(program(&graph));
        session.set_profiling(true);
        session.run(&[("x", &x)]).unwrap();
        let profile = session.profile().unwrap();
        let kernels: Vec<&str> = profile.steps().iter().map(|step| &*step.kernel).collect();
        assert!(!kernels.iter().any(|kernel| kernel.starts_with("gradient of Clip")), "{kernel}: {kernels:?}");
        assert!(kernels.contains(&"gradient of max pool"), "{kernel}: {kernels:?}");
    }
}

#[test]
fn a_loss_that_is_not_finite_changes_nothing() {
    let net = Net::new();
    let before: Vec<Array> = net.cells.iter().map(Parameter::array).collect();
    let mut session = Session::new(program(&net.step(4)));
    let x = Array::full([4, 3, 8, 8], f32::NAN);
    assert!(matches!(session.run(&[("x", &x)]), Err(Error::NonFinite { .. })));
    assert!(net.cells.iter().zip(&before).all(|(cell, before)| cell.array().bits_eq(before)));
}

#[test]
fn an_image_gives_the_same_bits_in_any_batch() {
    let w = [cell("w", &[16, 3, 3, 3], 1), cell("v", &[16, 16, 3, 3], 2), cell("fc", &[10, 16], 3)];
    let build = |n: usize| {
        let trace = Trace::new(Mode::Eval);
        let x = trace.input("x", [n, 3, 9, 9], DType::F32);
        let p: Vec<Tensor> = w.iter().map(|c| trace.parameter(c)).collect();
        let attrs = ConvAttrs { pads: [1; 4], stride: [2, 2], ..ConvAttrs::default() };
        let y = trace.push(Op::Conv2d(attrs), &[&x, &p[0]]).relu();
        let y = trace.push(Op::Conv2d(attrs), &[&y, &p[1]]).silu();
        let y = y.mean(&[2, 3], false).linear(&p[2], None).softmax(1);
        trace.finish(&[("y", &y)]).unwrap()
    };
    let whole = noise(&[7, 3, 9, 9], 5);
    let together = Session::new(program(&build(7))).run(&[("x", &whole)]).unwrap()[0].clone();
    let mut single = Session::new(program(&build(1)));
    for i in 0..7 {
        let image = whole.f32s().unwrap()[i * 243..(i + 1) * 243].to_vec();
        let alone = single.run(&[("x", &Array::from_vec([1, 3, 9, 9], image).unwrap())]).unwrap()[0].clone();
        assert_eq!(alone.f32s().unwrap(), &together.f32s().unwrap()[i * 10..(i + 1) * 10], "image {i}");
    }
}

#[test]
fn programs_of_several_batch_sizes_share_a_cell_and_its_packed_forms() {
    // So few pixels, and so long sums, that the best cut of the filters is another one for a single image.
    let (weight, x) = (cell("fc.weight", &[200, 2304], 4), noise(&[8, 2304], 5));
    let graph = |batch: usize| {
        let trace = Trace::new(Mode::Eval);
        let x = trace.input("x", [batch, 2304], DType::F32);
        let y = x.linear(&trace.parameter(&weight), None);
        trace.finish(&[("y", &y)]).unwrap()
    };
    let programs = [1, 8].map(|batch| (batch, program(&graph(batch))));
    let want = interpret(&graph(8), &[("x", x.clone())], &RunOptions::default()).unwrap().remove(0);
    let head = |array: &Array, rows: usize, width: usize| {
        Array::from_vec([rows, width], array.f32s().unwrap()[..rows * width].to_vec()).unwrap()
    };
    for (batch, program) in programs.iter().chain(&programs) {
        let got = Session::new(program.clone()).run(&[("x", &head(&x, *batch, 2304))]).unwrap()[0].clone();
        assert_close(&format!("batch {batch}"), &got, &head(&want, *batch, 200), 2e-5);
    }
}

#[test]
fn a_folded_batch_norm_follows_its_cells_and_a_tap_changes_no_bits() {
    let cells =
        [cell("w", &[6, 3, 3, 3], 1), cell("g", &[6], 2), cell("b", &[6], 3), cell("m", &[6], 4), cell("v", &[6], 5)];
    cells[4].set(Array::full([6], 0.7f32)).unwrap();
    let build = |tapped: bool| {
        let trace = Trace::new(Mode::Eval);
        let x = trace.input("x", [2, 3, 6, 6], DType::F32);
        let p: Vec<Tensor> = cells.iter().map(|c| trace.parameter(c)).collect();
        let y = trace.push(Op::Conv2d(ConvAttrs::default()), &[&x, &p[0]]);
        trace.mark("conv", &y);
        let z = trace.push(Op::BatchNorm { eps: 1e-5 }, &[&y, &p[1], &p[2], &p[3], &p[4]]).relu();
        let mut graph = trace.finish(&[("z", &z)]).unwrap();
        if tapped {
            graph.add_tap("conv").unwrap();
        }
        graph
    };
    let x = noise(&[2, 3, 6, 6], 8);
    let plain = check("folded", &build(false), &x);
    let tapped = check("tapped", &build(true), &x);
    assert!(plain[0].bits_eq(&tapped[0]));
    let mut session = Session::new(program(&build(false)));
    session.run(&[("x", &x)]).unwrap();
    cells[1].set(noise(&[6], 99)).unwrap();
    let after = session.run(&[("x", &x)]).unwrap()[0].clone();
    assert!(!after.bits_eq(&plain[0]));
    assert!(after.bits_eq(&check("changed", &build(false), &x)[0]));
}

#[test]
fn random_numbers_are_the_interpreters_and_differ_by_step() {
    let trace = Trace::new(Mode::Train);
    let x = trace.input("x", [2, 5, 4, 3], DType::F32);
    let mask = trace.random(RandomKind::Mask { keep: 0.6 }, "dropout", [2, 5, 4, 3]);
    let graph = trace.finish(&[("y", &(&x * &mask))]).unwrap();
    let x = noise(&[2, 5, 4, 3], 4);
    check("dropout", &graph, &x);
    let mut session = Session::new(program(&graph));
    let first = session.run(&[("x", &x)]).unwrap()[0].clone();
    let second = session.run(&[("x", &x)]).unwrap()[0].clone();
    session.set_step(0);
    assert!(!first.bits_eq(&second) && session.run(&[("x", &x)]).unwrap()[0].bits_eq(&first));
}

#[test]
fn what_is_wrong_with_the_inputs_is_said() {
    let trace = Trace::new(Mode::Eval);
    let x = trace.input("x", [2], DType::F32);
    let mut session = Session::new(program(&trace.finish(&[("y", &x.relu())]).unwrap()));
    let two = Array::zeros([2], DType::F32);
    let message = |result: Result<&[Array]>| result.unwrap_err().to_string();
    assert_eq!(message(session.run(&[])), "input `x`: no array was given for it; the graph's inputs are x");
    assert!(message(session.run(&[("x", &two), ("z", &two)])).contains("`z`: the graph has no such input"));
    let three = Array::zeros([3], DType::F64);
    assert_eq!(message(session.run(&[("x", &three)])), "input `x`: expected float32 [2], got float64 [3]");
}

/// Convolutions, norms and concatenations of channels, by name.
struct Parts<'a>(&'a Tensor);

impl Parts<'_> {
    fn conv(&self, x: &Tensor, name: &'static str, channels: [usize; 2], edge: usize) -> Tensor {
        let w = self.0.trace().parameter(&cell(name, &[channels[1], channels[0], edge, edge], name.len() as u64));
        x.trace().push(Op::Conv2d(ConvAttrs { pads: [edge / 2; 4], ..ConvAttrs::default() }), &[x, &w])
    }

    fn norm(&self, x: &Tensor, seed: u64) -> Tensor {
        let channels = x.shape()[1];
        let cells = [seed, seed + 1, seed + 2].map(|seed| cell("norm", &[channels], seed));
        let variance = Parameter::new(Array::full([channels], 0.5f32 + seed as f32));
        let [g, b, m] = cells.map(|c| x.trace().parameter(&c));
        x.trace().push(Op::BatchNorm { eps: 1e-5 }, &[x, &g, &b, &m, &x.trace().parameter(&variance)])
    }
}

#[test]
fn a_constant_under_two_shapes_is_two_constants() {
    // Both have one buffer, and are too long to be told by their values.
    let table = noise(&[1, 10, 4], 3);
    let trace = Trace::new(Mode::Eval);
    let x = trace.input("x", [1, 10, 4], DType::F32);
    let places = trace.constant(Array::from_vec([2, 3], vec![9i64, 0, 4, 4, 1, 2]).unwrap());
    let whole = trace.constant(table.clone());
    let rows = trace.constant(table.reshape([10, 4]).unwrap()).index_select(0, &places);
    let graph = trace.finish(&[("sum", &(&x + &whole)), ("rows", &rows)]).unwrap();
    check("one buffer", &graph, &noise(&[1, 10, 4], 4));
}

#[test]
fn concatenations_without_copies_and_shuffles() {
    let shuffle = |x: &Tensor, groups: usize| {
        let d = x.shape().to_vec();
        x.reshape([d[0], groups, d[1] / groups, d[2] * d[3]]).transpose(1, 2).reshape(&d[..])
    };
    let cases: Vec<(&'static str, Build)> = vec![
        (
            "a dense block, each concatenation in the next",
            Box::new(move |x| {
                let p = Parts(x);
                let mut all = p.conv(x, "stem", [6, 8], 3);
                for name in ["a", "bb", "ccc"] {
                    let channels = all.shape()[1];
                    let y = p.conv(&p.norm(&all, 3).relu(), name, [channels, 4], 3);
                    all = Tensor::cat(&[&all, &y], 1);
                }
                vec![p.norm(&all, 9).relu(), all]
            }),
        ),
        (
            "a dense block, all values in each concatenation",
            Box::new(move |x| {
                let p = Parts(x);
                let mut all = vec![p.conv(x, "stem", [6, 8], 3)];
                for name in ["a", "bb", "ccc"] {
                    let y = Tensor::cat(&all.iter().collect::<Vec<_>>(), 1);
                    all.push(p.conv(&p.norm(&y, 3).silu(), name, [y.shape()[1], 4], 1));
                }
                vec![Tensor::cat(&all.iter().collect::<Vec<_>>(), 1).mean(&[2, 3], true), all[1].relu(), all[2].clone()]
            }),
        ),
        (
            "two branches, one of them an input, one pooled",
            Box::new(move |x| {
                let p = Parts(x);
                let y = p.conv(x, "a", [6, 5], 1).relu();
                let branches = [p.conv(&y, "bb", [5, 7], 3).relu(), x.clone(), p.conv(&y, "ccc", [5, 16], 1), y.exp()];
                let y = Tensor::cat(&branches.iter().collect::<Vec<_>>(), 1);
                vec![p.conv(&y, "dddd", [34, 3], 1), &y + &y.narrow(0, 1, 1)]
            }),
        ),
        (
            "a part of a concatenation goes back into it",
            Box::new(move |x| {
                let p = Parts(x);
                let a = p.conv(x, "a", [6, 8], 1).relu();
                let b = p.conv(&a, "bb", [8, 8], 3).relu();
                let c = p.conv(&b.narrow(1, 2, 4), "ccc", [4, 8], 3);
                let all = Tensor::cat(&[&a, &b, &c, &a], 1);
                vec![p.conv(&all.narrow(1, 5, 20), "dddd", [20, 6], 3), all.narrow(1, 3, 9), b]
            }),
        ),
        (
            "units of a shuffle",
            Box::new(move |x| {
                let p = Parts(x);
                let mut y = p.conv(x, "stem", [6, 12], 1).relu();
                for name in ["a", "bb"] {
                    let branch = p.norm(&p.conv(&y.narrow(1, 6, 6), name, [6, 6], 3), 5).relu();
                    y = shuffle(&Tensor::cat(&[&y.narrow(1, 0, 6), &branch], 1), 2);
                }
                vec![shuffle(&y, 3), shuffle(&y, 4), shuffle(&y, 6), y]
            }),
        ),
    ];
    for (name, build) in cases {
        let trace = Trace::new(Mode::Eval);
        let outputs = build(&trace.input("x", [2, 6, 9, 7], DType::F32));
        let named: Vec<(&str, &Tensor)> = outputs.iter().map(|y| ("y", y)).collect();
        check(name, &trace.finish(&named).unwrap(), &noise(&[2, 6, 9, 7], 9));
    }
}

#[test]
fn an_expansion_and_its_depthwise_convolution_are_one_step_with_the_same_bits() {
    let cells: Vec<Parameter> = [([40, 6, 1, 1], 1), ([40, 1, 3, 3], 2), ([6, 40, 1, 1], 3)]
        .iter()
        .map(|(shape, seed)| cell("w", shape, *seed))
        .collect();
    let norm: Vec<Parameter> = (0..3).map(|seed| cell("norm", &[40], seed)).collect();
    let bias = cell("b", &[40], 7);
    let build = |tapped: bool| {
        let trace = Trace::new(Mode::Eval);
        let x = trace.input("x", [2, 6, 60, 50], DType::F32);
        let w: Vec<Tensor> = cells.iter().map(|c| trace.parameter(c)).collect();
        let [g, b, m] = [0, 1, 2].map(|i| trace.parameter(&norm[i]));
        let variance = trace.parameter(&Parameter::new(Array::full([40], 1.5f32)));
        let y = trace.push(Op::Conv2d(ConvAttrs::default()), &[&x, &w[0]]);
        let y = trace.push(Op::BatchNorm { eps: 1e-5 }, &[&y, &g, &b, &m, &variance]).clamp(0.0, 6.0);
        trace.mark("expanded", &y);
        let attrs = ConvAttrs { pads: [1; 4], stride: [2, 1], groups: 40, ..ConvAttrs::default() };
        let y = trace.push(Op::Conv2d(attrs), &[&y, &w[1], &trace.parameter(&bias)]).silu();
        let y = trace.push(Op::Conv2d(ConvAttrs::default()), &[&y, &w[2]]);
        let mut graph = trace.finish(&[("y", &y)]).unwrap();
        if tapped {
            graph.add_tap("expanded").unwrap();
        }
        graph
    };
    let x = noise(&[2, 6, 60, 50], 9);
    let (plain, tapped) = (check("pair", &build(false), &x), check("tapped pair", &build(true), &x));
    assert!(plain[0].bits_eq(&tapped[0]));
    assert_eq!(program(&build(false)).step_count(), 4, "a permute, the pair, the projection, a permute back");
}
