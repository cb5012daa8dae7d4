//! Names, state dicts, taps, errors, randomness: what all layers share.

use striate_graph::{
    Array, CompileOptions, DType, Mode, Parameter, Program, RunOptions, Session, Tensor, Trace, gradients, interpret,
};
use striate_nn::{
    BatchNorm2d, Conv1d, Conv2d, ConvTranspose2d, DropBlock2d, Dropout, Dropout2d, Error, Flatten, GroupNorm, Linear,
    MaxPool2d, Module, Path, ReLU, Sequential, StateDict, StochasticDepth, Upsample, assign_names, display_module,
    init, sequential, visit_fields,
};

struct Block {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    downsample: Option<Sequential>,
    path: Path,
}

impl Module for Block {
    fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.bn1.call(&self.conv1.call(x));
        match &self.downsample {
            Some(way) => (y + way.call(x)).relu(),
            None => (y + x.clone()).relu(),
        }
    }
    visit_fields!(conv1, bn1, downsample);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

struct Net {
    layer1: Sequential,
    fc: Linear,
}

impl Module for Net {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.fc.call(&self.layer1.call(x).mean(&[2, 3], false))
    }
    visit_fields!(layer1, fc);
}
display_module!(Net);

fn block(channels: usize, way: bool) -> Block {
    let downsample = way.then(|| sequential![Conv2d::new(channels, channels, 1).bias(false)]);
    let conv1 = Conv2d::new(channels, channels, 3).padding(1).bias(false);
    Block { conv1, bn1: BatchNorm2d::new(channels), downsample, path: Path::default() }
}

fn net() -> Net {
    Net { layer1: sequential![block(3, true), block(3, false)], fc: Linear::new(3, 2) }
}

#[test]
fn names_are_pytorchs() {
    let net = net();
    let names: Vec<String> = net.state_dict().keys().map(str::to_owned).collect();
    let of_norm = |at: &str| {
        ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"].map(|n| format!("{at}.{n}")).to_vec()
    };
    let expected = [
        vec!["layer1.0.conv1.weight".to_owned()],
        of_norm("layer1.0.bn1"),
        vec!["layer1.0.downsample.0.weight".to_owned(), "layer1.1.conv1.weight".to_owned()],
        of_norm("layer1.1.bn1"),
        vec!["fc.weight".to_owned(), "fc.bias".to_owned()],
    ];
    assert_eq!(names, expected.concat());
    assert_eq!(net.buffers().len(), 6);
    assert_eq!(net.num_parameters(), 81 + 6 + 9 + 81 + 6 + 8);
    assert!(net.to_string().starts_with("Net(\n  (layer1): Sequential(\n    (0): Block(\n      (conv1): Conv2d(3, 3,"));
}

#[test]
fn a_call_names_the_cells_and_marks_values_for_taps() {
    let net = net();
    let graph = net.graph(Mode::Eval, &[1, 3, 4, 4]).unwrap();
    for path in ["layer1", "layer1.0", "layer1.0.conv1", "layer1.0.downsample.0", "layer1.1.bn1", "fc"] {
        assert!(graph.tap(path).is_ok(), "{path}");
    }
    assert!(graph.tap("layer1.0.conv").unwrap_err().to_string().contains("did you mean `layer1.0.conv1`"));
    assert_eq!(&*net.fc.weight.name(), "fc.weight");
    // Applying a part of the net by itself does not take its longer name away.
    net.fc.apply(&Array::zeros([1, 3], DType::F32)).unwrap();
    assert_eq!(&*net.fc.weight.name(), "fc.weight");
}

#[test]
fn a_part_that_was_applied_alone_gets_its_name_from_the_net() {
    let fc = Linear::new(3, 2);
    fc.apply(&Array::zeros([1, 3], DType::F32)).unwrap();
    assert_eq!(&*fc.weight.name(), "weight");
    let net = sequential![fc];
    net.apply(&Array::zeros([1, 3], DType::F32)).unwrap();
    assert_eq!(&*net.parameters()[0].name(), "0.weight");
}

struct Tied {
    a: Linear,
    b: Linear,
}

impl Module for Tied {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.b.call(&self.a.call(x))
    }
    visit_fields!(a, b);
}

#[test]
fn tied_weights_are_one_cell_with_the_first_name() {
    let mut tied = Tied { a: Linear::new(2, 2).bias(false), b: Linear::new(2, 2).bias(false) };
    tied.b.weight = tied.a.weight.clone();
    assign_names(&tied);
    assert_eq!(&*tied.b.weight.name(), "a.weight");
    assert_eq!(tied.parameters().len(), 1);
    // PyTorch's state dict has both names.
    assert_eq!(tied.state_dict().keys().collect::<Vec<_>>(), ["a.weight", "b.weight"]);
    // y = w (w x): the gradient takes in both uses.
    tied.a.weight.set(Array::from_vec([2, 2], vec![2f32, 0.0, 0.0, 3.0]).unwrap()).unwrap();
    let trace = Trace::new(Mode::Train);
    let x = trace.constant(Array::from_vec([1, 2], vec![1f32, 1.0]).unwrap());
    let loss = tied.call(&x).sum_all();
    let gradient = gradients(&loss, &[&trace.parameter(&tied.a.weight)]).unwrap().remove(0);
    let graph = trace.clone().finish(&[("g", &gradient)]).unwrap();
    let g = interpret(&graph, &[], &RunOptions::default()).unwrap().remove(0);
    assert_eq!(g.f32s().unwrap(), &[2.0 + 2.0, 2.0 + 3.0, 3.0 + 2.0, 3.0 + 3.0]);
}

#[test]
fn a_state_dict_that_does_not_fit_lists_everything_and_loads_nothing() {
    let net = sequential![Conv2d::new(1, 2, 3), BatchNorm2d::new(2)];
    let before = net.state_dict();
    let mut dict: StateDict =
        before.iter().filter(|(n, _)| *n != "0.bias").map(|(n, a)| (n.to_owned(), a.clone())).collect();
    dict.insert("0.bais", Array::zeros([2], DType::F32));
    dict.insert("1.weight", Array::zeros([3], DType::F32));
    let Err(Error::StateDict { problems }) = net.load_state_dict(&dict, true) else { panic!("it was loaded") };
    assert_eq!(
        problems,
        [
            "missing: `0.bias` is not in the state dict; did you mean `0.bais`?",
            "unexpected: the module has no `0.bais`; did you mean `0.bias`?",
            "mismatched: `1.weight` is [2] here, [3] in the dict",
        ]
    );
    assert!(net.load_state_dict(&dict, false).is_err(), "a wrong shape is refused either way");
    for (name, array) in net.state_dict().iter() {
        assert!(array.bits_eq(&before[name]), "{name} was changed");
    }
    dict.insert("1.weight", Array::full([2], 5f32));
    let report = net.load_state_dict(&dict, false).unwrap();
    assert_eq!((report.missing, report.unexpected), (vec!["0.bias".to_owned()], vec!["0.bais".to_owned()]));
    assert_eq!(net.state_dict()["1.weight"].f32s().unwrap(), &[5.0, 5.0]);
}

#[test]
fn an_old_file_without_batch_counts_is_complete() {
    let net = BatchNorm2d::new(2);
    let all = net.state_dict();
    let old: StateDict =
        all.iter().filter(|(n, _)| *n != "num_batches_tracked").map(|(n, a)| (n.to_owned(), a.clone())).collect();
    assert_eq!(net.load_state_dict(&old, true).unwrap().missing, ["num_batches_tracked"]);
}

fn error_of(layer: impl Module, shape: &[usize]) -> String {
    layer.graph(Mode::Train, shape).expect_err("it was accepted").to_string()
}

#[test]
fn wrong_arguments_are_errors_with_the_numbers() {
    let image = [2, 4, 5, 5];
    for (error, parts) in [
        (error_of(Conv2d::new(4, 6, 3).groups(4), &image), ["out_channels=6 in groups=4", "1, 2, 3, 6"]),
        (error_of(Conv2d::new(4, 6, 3).groups(3), &image), ["in_channels=4 in groups=3", "1, 2, 4"]),
        (error_of(Conv2d::new(4, 6, 3).groups(0), &image), ["groups=0", "divide"]),
        (error_of(Conv2d::new(4, 6, 0), &image), ["kernel_size=(0, 0)", "at least 1"]),
        (error_of(Conv2d::new(4, 6, 3).stride(0), &image), ["stride=(0, 0)", "at least 1"]),
        (error_of(Conv2d::new(4, 6, 3).padding("smae"), &image), ["padding='smae'", "'same' or 'valid'"]),
        (error_of(Conv2d::new(4, 6, 3).padding_mode("mirror"), &image), ["padding_mode='mirror'", "reflect"]),
        (
            error_of(Conv2d::new(4, 6, 3).padding(5).padding_mode("reflect"), &image),
            ["of size 5 padded by 5", "at most 4"],
        ),
        (error_of(Conv2d::new(3, 6, 3), &image), ["the input has 4 channels", "in_channels=4"]),
        (error_of(Conv2d::new(4, 6, 7), &image), ["kernel extent", "at least 7"]),
        (error_of(Conv1d::new(4, 6, 3), &image), ["4 axes", "[N, C, L]"]),
        (error_of(ConvTranspose2d::new(4, 6, 3).output_padding(1), &image), ["output size 8", "output_padding"]),
        (error_of(Linear::new(7, 2), &[3, 9]), ["9 features", "in_features=9"]),
        (error_of(BatchNorm2d::new(4), &[1, 4, 1, 1]), ["more than 1 value per channel", "[1, 4, 1, 1]"]),
        (error_of(BatchNorm2d::new(3), &image), ["num_features=3", "num_features=4"]),
        (error_of(GroupNorm::new(3, 4), &image), ["num_channels=4 in num_groups=3", "divide"]),
        (error_of(MaxPool2d::new(2).padding(2), &image), ["padding 2", "half the kernel"]),
        (error_of(MaxPool2d::new(0), &image), ["kernel 0", "at least 1"]),
        (error_of(Dropout::new(1.5), &image), ["p=1.5", "from 0 to 1"]),
        (error_of(Upsample::new(), &image), ["size and scale_factor", "one of them"]),
        (error_of(Upsample::new().scale_factor(2.0).mode("linear"), &image), ["mode='linear'", "bilinear"]),
        (error_of(Upsample::new().scale_factor(0.1), &image), ["resized to 0x0", "at least 1"]),
    ] {
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn an_error_names_the_layer_and_the_line() {
    let net = sequential![Conv2d::new(1, 4, 3), ReLU::new(), Flatten::new(), Linear::new(99, 10)];
    let error = error_of(net, &[1, 1, 6, 6]);
    assert!(error.starts_with("Linear in `3`: ") && error.contains("in_features=64"), "{error}");
    struct Two {
        fc: Linear,
    }
    impl Module for Two {
        fn forward(&self, x: &Tensor) -> Tensor {
            self.fc.call(x)
        }
        visit_fields!(fc);
    }
    let line = line!() - 4;
    let error = error_of(Two { fc: Linear::new(3, 3) }, &[1, 4]);
    assert!(error.contains(&format!("modules.rs:{line}:")), "{error}");
}

#[test]
fn a_seed_and_a_path_decide_the_initial_values() {
    let (a, b) = (net(), net());
    init::reset_parameters(&a, 5);
    init::reset_parameters(&b, 5);
    let (da, db) = (a.state_dict(), b.state_dict());
    assert!(da.iter().all(|(name, array)| array.bits_eq(&db[name])));
    assert!(!da["layer1.0.conv1.weight"].bits_eq(&da["layer1.1.conv1.weight"]));
    init::reset_parameters(&b, 6);
    assert!(!b.state_dict()["fc.weight"].bits_eq(&da["fc.weight"]));
}

fn in_training(layer: &dyn Module, x: &Array) -> Array {
    let graph = layer.graph(Mode::Train, x.shape()).unwrap();
    interpret(&graph, &[("input", x.clone())], &RunOptions::default()).unwrap().remove(0)
}

#[test]
fn dropout_drops_what_it_says() {
    let ones = Array::full([8, 16, 10, 10], 1f32);
    let share = |a: &Array, value: f32| {
        let values = a.f32s().unwrap();
        values.iter().filter(|v| (**v - value).abs() < 1e-6).count() as f64 / values.len() as f64
    };
    let y = in_training(&Dropout::new(0.25), &ones);
    assert!((share(&y, 0.0) - 0.25).abs() < 0.02);
    assert!((share(&y, 1.0 / 0.75) - 0.75).abs() < 0.02);
    // Whole channels, whole samples.
    let y = in_training(&Dropout2d::new(0.5), &ones);
    assert!(y.f32s().unwrap().chunks(100).all(|c| c.iter().all(|v| *v == c[0])));
    let y = in_training(&StochasticDepth::new(0.5), &ones);
    assert!(y.f32s().unwrap().chunks(1600).all(|c| c.iter().all(|v| *v == c[0])));
    let y = in_training(&StochasticDepth::new(0.5).batch(), &ones);
    assert!(y.f32s().unwrap().iter().all(|v| *v == y.f32s().unwrap()[0]));
    // About the fraction p in squares; the mean stays.
    for block in [2, 3] {
        let y = in_training(&DropBlock2d::new(0.2, block), &ones);
        assert!((share(&y, 0.0) - 0.2).abs() < 0.05, "{block}: {}", share(&y, 0.0));
        let mean = y.to_f64_vec().iter().sum::<f64>() / y.numel() as f64;
        assert!((mean - 1.0).abs() < 1e-4, "{mean}");
    }
}

#[test]
fn a_layer_called_twice_draws_two_masks() {
    let layer = Dropout::new(0.5);
    let trace = Trace::new(Mode::Train);
    let x = trace.constant(Array::full([200], 1f32));
    let (a, b) = (layer.call(&x), layer.call(&x));
    let graph = trace.finish(&[("a", &a), ("b", &b)]).unwrap();
    let results = interpret(&graph, &[], &RunOptions::default()).unwrap();
    assert!(!results[0].bits_eq(&results[1]));
}

#[test]
fn frozen_cells_are_not_updated() {
    let net = Linear::new(2, 1);
    assign_names(&net);
    net.weight.set_requires_grad(false);
    let before = net.weight.array();
    let optimizer = striate_nn::optim::SGD::new(1.0).over(net.parameters());
    let trace = Trace::new(Mode::Train);
    let gradients: Vec<(Parameter, Tensor)> =
        net.parameters().into_iter().map(|p| (p.clone(), trace.constant(Array::full(p.shape(), 1f32)))).collect();
    optimizer.record(&trace, &gradients);
    let graph = trace.finish(&[]).unwrap();
    let (name, hyper) = optimizer.hyper_inputs().remove(0);
    let bias = net.bias.as_ref().unwrap().array().f32s().unwrap()[0];
    interpret(&graph, &[(&name, hyper)], &RunOptions::default()).unwrap();
    assert!(net.weight.array().bits_eq(&before));
    assert_eq!(net.bias.as_ref().unwrap().array().f32s().unwrap(), &[bias - 1.0]);
}

#[test]
fn a_trace_may_let_running_statistics_follow_faster() {
    let follow = |least: f64, own: f64| -> f32 {
        let norm = BatchNorm2d::new(1).momentum(own);
        let trace = Trace::new(Mode::Train);
        trace.set_least_momentum(least);
        let y = norm.call(&trace.input("x", [1, 1, 2, 2], DType::F32));
        let graph = trace.finish(&[("y", &y)]).unwrap();
        interpret(&graph, &[("x", Array::full([1, 1, 2, 2], 8f32))], &RunOptions::default()).unwrap();
        norm.stats.as_ref().unwrap().running_mean.array().f32s().unwrap()[0]
    };
    assert_eq!((follow(0.0, 0.25), follow(0.5, 0.25), follow(0.1, 0.25)), (2.0, 4.0, 2.0));
}

/// Output and gradients (of the input, the weight and the bias) of a norm in training for this derivative of its output, with only the
/// rows that count where `rows` says which.
fn norm_in_training(norm: &BatchNorm2d, x: &Array, dy: &Array, rows: Option<&Array>) -> Vec<Array> {
    let trace = Trace::new(Mode::Train);
    let (input, derivative) = (trace.input("x", x.shape(), DType::F32), trace.input("dy", dy.shape(), DType::F32));
    let y = match rows {
        Some(rows) => norm.call_rows(&input, &trace.constant(rows.clone())),
        None => norm.call(&input),
    };
    let cells = [&norm.weight, &norm.bias].map(|cell| trace.parameter(cell.as_ref().unwrap()));
    let found = gradients(&(&y * &derivative).sum_all(), &[&input, &cells[0], &cells[1]]).unwrap();
    let graph = trace.finish(&[("y", &y), ("dx", &found[0]), ("dw", &found[1]), ("db", &found[2])]).unwrap();
    let mut session = Session::new(Program::compile(&graph, &CompileOptions::default()).unwrap());
    session.run(&[("x", x), ("dy", dy)]).unwrap().to_vec()
}

#[test]
fn rows_that_do_not_count_change_nothing_that_a_norm_learns() {
    const ROW: usize = 3 * 4 * 5;
    let value = |i: usize| (i as f32 * 0.7).sin() * 2.0 + (i / 20 % 3) as f32 * 3.0;
    let all: Vec<f32> = (0..5 * ROW).map(value).collect();
    let counts = [1.0f32, 0.0, 1.0, 1.0, 0.0];
    let those_that_count = |values: &[f32]| -> Vec<f32> {
        let rows = values.chunks_exact(ROW).zip(counts).filter(|(_, count)| *count == 1.0);
        rows.flat_map(|(row, _)| row.to_vec()).collect()
    };
    let array = |rows: usize, values: Vec<f32>| Array::from_vec([rows, 3, 4, 5], values).unwrap();
    // Nothing is asked of the outputs of padding.
    let dy: Vec<f32> = (0..5 * ROW).map(|i| (i as f32 * 0.3).cos() * counts[i / ROW]).collect();
    let (few, padded) = (BatchNorm2d::new(3), BatchNorm2d::new(3));
    let wanted = norm_in_training(&few, &array(3, those_that_count(&all)), &array(3, those_that_count(&dy)), None);
    let rows = Array::from_vec([5], counts.to_vec()).unwrap();
    let got = norm_in_training(&padded, &array(5, all), &array(5, dy), Some(&rows));
    let near = |got: &[f32], wanted: &[f32], what: &str| {
        assert_eq!(got.len(), wanted.len(), "{what}");
        let off = got.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-5, "{what} is off by {off}");
    };
    for (index, what) in ["the output", "the gradient of the input"].into_iter().enumerate() {
        let values = got[index].f32s().unwrap();
        near(&those_that_count(values), wanted[index].f32s().unwrap(), what);
    }
    assert!(got[1].f32s().unwrap()[ROW..2 * ROW].iter().all(|v| *v == 0.0), "padding has a gradient");
    near(got[2].f32s().unwrap(), wanted[2].f32s().unwrap(), "the gradient of the weight");
    near(got[3].f32s().unwrap(), wanted[3].f32s().unwrap(), "the gradient of the bias");
    let (few, padded) = (few.state_dict(), padded.state_dict());
    for name in ["running_mean", "running_var"] {
        near(padded[name].f32s().unwrap(), few[name].f32s().unwrap(), name);
    }
    assert_eq!(padded["num_batches_tracked"].to_i64_vec(), [1]);
}

#[test]
fn rows_must_be_as_many_as_the_input_has() {
    let trace = Trace::new(Mode::Train);
    let (x, rows) = (trace.input("x", [2, 3, 4, 4], DType::F32), trace.input("rows", [3], DType::F32));
    let y = BatchNorm2d::new(3).call_rows(&x, &rows);
    let error = trace.finish(&[("y", &y)]).unwrap_err().to_string();
    assert!(error.contains("BatchNorm2d") && error.contains("[3]"), "{error}");
}
