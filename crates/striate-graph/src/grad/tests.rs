//! Finite differences in float64 for every rule.

use super::gradients_from;
use crate::*;

type Build = Box<dyn Fn(&Trace, &[Tensor]) -> Tensor>;

/// A function of some inputs, away from its kinks.
struct Case {
    name: &'static str,
    shapes: Vec<Vec<usize>>,
    /// Inputs are spread over this range.
    range: (f64, f64),
    build: Build,
}

fn case(
    name: &'static str,
    shapes: &[&[usize]],
    range: (f64, f64),
    build: impl Fn(&Trace, &[Tensor]) -> Tensor + 'static,
) -> Case {
    Case { name, shapes: shapes.iter().map(|s| s.to_vec()).collect(), range, build: Box::new(build) }
}

/// Distinct values in a scrambled order, so that no two are equal and none is 0.
fn values(n: usize, (low, high): (f64, f64), salt: usize) -> Vec<f64> {
    let step = (2 * n / 5 + 7 + salt..).find(|&s| gcd(s, n.max(1)) == 1).unwrap_or(1);
    (0..n).map(|i| low + (high - low) * (((i * step + salt) % n) as f64 + 0.37) / n as f64).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The largest difference between the gradient and central differences, relative to the gradient's size.
fn difference(case: &Case) -> Result<f64, Error> {
    let trace = Trace::new(Mode::Train);
    let names: Vec<String> = (0..case.shapes.len()).map(|i| format!("x{i}")).collect();
    let inputs: Vec<Tensor> =
        names.iter().zip(&case.shapes).map(|(name, shape)| trace.input(name, &shape[..], DType::F32)).collect();
    let y = (case.build)(&trace, &inputs);
    let shape = y.shape();
    let cotangent = Array::from_f64(&shape, &values(shape.numel(), (-1.0, 1.3), 3), DType::F32)?;
    let dy = trace.constant(cotangent.clone());
    let wrt: Vec<&Tensor> = inputs.iter().collect();
    let gradients = gradients_from(&[&y], &[&dy], &wrt)?;
    let mut outputs: Vec<(&str, &Tensor)> = vec![("y", &y)];
    outputs.extend(gradients.iter().map(|g| ("g", g)));
    let graph = trace.finish(&outputs)?;
    graph.verify()?;
    let data: Vec<Vec<f64>> =
        case.shapes.iter().enumerate().map(|(i, s)| values(s.iter().product(), case.range, i)).collect();
    let options = RunOptions { precision: Precision::F64, ..RunOptions::default() };
    let run = |data: &[Vec<f64>]| {
        let arrays: Vec<(&str, Array)> = (0..data.len())
            .map(|i| (&*names[i], Array::from_f64(&case.shapes[i][..], &data[i], DType::F64).unwrap()))
            .collect();
        interpret(&graph, &arrays, &options)
    };
    let weights = cotangent.to_f64_vec();
    let objective = |data: &[Vec<f64>]| -> Result<f64, Error> {
        Ok(run(data)?[0].to_f64_vec().iter().zip(&weights).map(|(y, w)| y * w).sum())
    };
    let results = run(&data)?;
    let (mut worst, h) = (0f64, 1e-5);
    for (i, values) in data.iter().enumerate() {
        let gradient = results[1 + i].to_f64_vec();
        let scale = gradient.iter().fold(1e-3f64, |m, g| m.max(g.abs()));
        for j in 0..values.len() {
            let moved = |by: f64| {
                let mut moved = data.clone();
                moved[i][j] += by;
                objective(&moved)
            };
            let slope = (moved(h)? - moved(-h)?) / (2.0 * h);
            worst = worst.max((slope - gradient[j]).abs() / scale);
        }
    }
    Ok(worst)
}

fn unary_cases() -> Vec<Case> {
    use UnaryKind::*;
    let both = [
        Neg,
        Abs,
        Exp,
        Square,
        Sin,
        Cos,
        Atan,
        Sinh,
        Cosh,
        Asinh,
        Erf,
        Relu,
        LeakyRelu { slope: 0.1 },
        Elu { alpha: 1.3 },
        Selu,
        Celu { alpha: 0.7 },
        Gelu,
        GeluTanh,
        Silu,
        Mish,
        Hardswish,
        Hardsigmoid,
        Clip { min: -1.0, max: 1.5 },
        Softplus { beta: 1.5, threshold: 20.0 },
        Softsign,
        Sigmoid,
        Tanh,
        LogSigmoid,
        PowConst { exponent: 3.0 },
        Affine { scale: -2.5, shift: 0.5 },
    ];
    let positive = [Log, Sqrt, Rsqrt, Reciprocal, PowConst { exponent: 0.5 }];
    let unary = |kind: UnaryKind, range| case("unary", &[&[17]], range, move |_, x| x[0].unary(kind));
    let both = both.map(|k| unary(k, (-3.9, 4.1))).into_iter();
    let unit = [Tan, Asin, Acos, Atanh].map(|k| unary(k, (-0.9, 0.9)));
    both.chain(positive.map(|k| unary(k, (0.3, 3.0)))).chain(unit).chain([unary(Acosh, (1.2, 3.0))]).collect()
}

fn binary_cases() -> Vec<Case> {
    use BinaryKind::*;
    let shapes: [&[usize]; 2] = [&[2, 1, 4], &[3, 1]];
    let mut cases: Vec<Case> = [Add, Sub, Mul, Div, Pow, Min, Max]
        .map(|kind| case("binary", &shapes, (0.4, 2.6), move |_, x| x[0].binary(kind, &x[1])))
        .into();
    cases.push(case("where", &[&[2, 3], &[3], &[2, 1]], (-1.0, 1.0), |_, x| {
        let zero = x[0].scalar_like(0.0);
        x[1].where_(&x[0].gt(&zero), &x[2])
    }));
    for kind in [Mod, Fmod] {
        cases.push(case("mod", &[&[5], &[1]], (1.0, 4.0), move |_, x| x[0].binary(kind, &x[1])));
        cases.push(case("mod of negatives", &[&[5], &[1]], (-4.0, -1.0), move |_, x| x[0].binary(kind, &x[1])));
    }
    cases
}

fn reduce_cases() -> Vec<Case> {
    use ReduceKind::*;
    let mut cases = Vec::new();
    for kind in [Sum, Mean, Max, Min, Prod, SumSquare, L1, L2, LogSumExp] {
        for keepdims in [false, true] {
            let build = move |_: &Trace, x: &[Tensor]| x[0].reduce(kind, &[0, 2], keepdims);
            cases.push(case("reduce", &[&[2, 3, 2]], (-1.2, 1.7), build));
        }
    }
    cases.push(case("softmax", &[&[2, 5, 3]], (-2.0, 2.0), |_, x| x[0].softmax(1)));
    cases.push(case("log_softmax", &[&[4, 5]], (-2.0, 2.0), |_, x| x[0].log_softmax(-1)));
    cases
}

fn movement_cases() -> Vec<Case> {
    let range = (-1.0, 1.0);
    let indices =
        |trace: &Trace, shape: &[usize], values: Vec<i64>| trace.constant(Array::from_vec(shape, values).unwrap());
    let mut cases = vec![
        case("reshape", &[&[2, 6]], range, |_, x| x[0].reshape([3, 4]).square()),
        case("transpose", &[&[2, 3, 4]], range, |_, x| x[0].permute(&[2, 0, 1])),
        case("expand", &[&[2, 1, 3]], range, |_, x| x[0].expand([4, 2, 5, 3])),
        case("slice", &[&[5, 7]], range, |t, x| {
            t.push(Op::Slice { starts: vec![4, 1], sizes: vec![2, 3], steps: vec![-2, 2] }, &[&x[0]])
        }),
        case("slice_grad", &[&[2, 3]], range, |t, x| {
            t.push(Op::SliceGrad { shape: [5, 7].into(), starts: vec![4, 1], steps: vec![-2, 2] }, &[&x[0]])
        }),
        case("concat", &[&[2, 3], &[2, 1]], range, |_, x| Tensor::cat(&[&x[0], &x[1], &x[0]], 1)),
        case("gather", &[&[3, 4]], range, move |t, x| x[0].index_select(1, &indices(t, &[3], vec![3, 0, 3]))),
        case("gather_grad", &[&[3, 3]], range, move |t, x| {
            t.push(Op::GatherGrad { axis: 1, size: 4 }, &[&indices(t, &[3], vec![3, 0, 3]), &x[0]])
        }),
        case("gather_elements", &[&[2, 4]], range, move |t, x| {
            x[0].gather(1, &indices(t, &[2, 3], vec![3, 0, 3, 1, 1, 2]))
        }),
    ];
    for mode in [PadMode::Constant(2.0), PadMode::Reflect, PadMode::Replicate, PadMode::Circular] {
        cases.push(case("pad", &[&[1, 2, 4, 5]], range, move |_, x| x[0].pad(&[2, 1, 1, 3], mode)));
        cases.push(case("pad_grad", &[&[6, 7]], range, move |t, x| {
            t.push(Op::PadGrad { pads: vec![[1, 1], [2, 1]], mode }, &[&x[0]])
        }));
    }
    cases.push(case("negative pad", &[&[4, 5]], range, |_, x| x[0].pad(&[-1, 2, 1, -2], PadMode::Constant(0.0))));
    cases
}

fn indexed_cases() -> Vec<Case> {
    use ScatterMode::*;
    let range = (-1.0, 1.0);
    let indices =
        |trace: &Trace, shape: &[usize], values: Vec<i64>| trace.constant(Array::from_vec(shape, values).unwrap());
    let mut cases = Vec::new();
    for largest in [false, true] {
        cases.push(case("top k", &[&[3, 5, 2]], range, move |_, x| x[0].topk(2, 1, largest).0.square()));
    }
    for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
        cases.push(case("cumsum", &[&[2, 5, 3]], range, move |t, x| {
            t.push(Op::CumSum { axis: 1, exclusive, reverse }, &[&x[0]]).square()
        }));
    }
    cases.push(case("gather nd", &[&[2, 3, 4]], range, move |t, x| {
        t.push(Op::GatherNd { batch_dims: 0 }, &[&x[0], &indices(t, &[3, 2], vec![0, -1, 1, 0, 0, 2])]).square()
    }));
    cases.push(case("gather nd of batches", &[&[2, 3, 4, 2]], range, move |t, x| {
        let at = indices(t, &[2, 3, 2, 1], vec![0, -1, 1, 3, 0, 0, 2, 2, 1, 0, 3, 1]);
        t.push(Op::GatherNd { batch_dims: 2 }, &[&x[0], &at]).square()
    }));
    for mode in [Set, Add, Mul, Max, Min] {
        cases.push(case("scatter", &[&[2, 4], &[2, 2]], range, move |t, x| {
            x[0].scatter(1, &indices(t, &[2, 2], vec![3, 0, 1, 2]), &x[1], mode).square()
        }));
        cases.push(case("scatter nd", &[&[3, 4], &[2, 4]], range, move |t, x| {
            t.push(Op::ScatterNd { mode }, &[&x[0], &indices(t, &[2, 1], vec![2, 0]), &x[1]]).square()
        }));
    }
    for mode in [Add, Mul, Max, Min] {
        cases.push(case("scatter twice", &[&[3, 2], &[3, 2]], range, move |t, x| {
            t.push(Op::ScatterNd { mode }, &[&x[0], &indices(t, &[3, 1], vec![2, 0, 2]), &x[1]]).square()
        }));
    }
    // A zero among the factors, which no division may meet.
    cases.push(case("scatter with a zero", &[&[2], &[3]], range, move |t, x| {
        let kept = t.constant(Array::from_vec([3], vec![1f32, 0.0, 1.0]).unwrap());
        let updates = x[1].binary(BinaryKind::Mul, &kept);
        x[0].scatter(0, &indices(t, &[3], vec![1, 1, 0]), &updates, Mul).square()
    }));
    cases
}

fn sampling_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (aligned, sampling_ratio, max) in [(true, 2, false), (false, 0, false), (true, 0, true), (false, 3, true)] {
        let spec = RoiAlignSpec { out: [3, 2], scale: 0.5, sampling_ratio, aligned, max };
        cases.push(case("roi align", &[&[2, 2, 6, 7]], (-1.0, 1.0), move |t, x| {
            let regions = vec![0.0f32, 1.0, 9.3, 8.1, -4.0, 2.2, 3.0, 20.0, 5.1, 5.2, 5.3, 5.4];
            let regions = t.constant(Array::from_vec([3, 4], regions).unwrap());
            let batch = t.constant(Array::from_vec([3], vec![1i64, 0, 1]).unwrap());
            let y = x[0].roi_align(&regions, &batch, spec);
            if max {
                return y.square();
            }
            let back = t.push(Op::RoiAlignGrad(spec), &[&x[0], &regions, &batch, &y.square()]);
            Tensor::cat(&[&y.flatten(0, -1), &back.flatten(0, -1)], 0)
        }));
    }
    for mode in [SampleMode::Linear, SampleMode::Nearest, SampleMode::Cubic] {
        for padding in [SamplePadding::Zeros, SamplePadding::Border, SamplePadding::Reflection] {
            for align_corners in [false, true] {
                let spec = GridSampleSpec { mode, padding, align_corners };
                let build = move |_: &Trace, x: &[Tensor]| x[0].grid_sample(&x[1], spec).square();
                cases.push(case("grid sample", &[&[2, 2, 4, 5], &[2, 3, 4, 2]], (-1.4, 1.3), build));
            }
        }
    }
    let spec = GridSampleSpec { mode: SampleMode::Linear, padding: SamplePadding::Zeros, align_corners: false };
    cases.push(case("grid sample of volumes", &[&[1, 2, 3, 4, 2], &[1, 2, 2, 3, 3]], (-1.1, 0.9), move |_, x| {
        x[0].grid_sample(&x[1], spec).square()
    }));
    cases
}

fn convolution_cases() -> Vec<Case> {
    let range = (-1.0, 1.0);
    let plain = ConvAttrs::default();
    let attrs = [
        (plain, [2, 3, 5, 6], [4, 3, 3, 2]),
        (ConvAttrs { stride: [2, 3], pads: [1, 0, 2, 1], ..plain }, [1, 2, 7, 8], [3, 2, 3, 3]),
        (ConvAttrs { dilation: [2, 1], groups: 2, pads: [2, 1, 0, 1], ..plain }, [2, 4, 6, 5], [6, 2, 2, 3]),
        (ConvAttrs { groups: 4, stride: [2, 2], pads: [1; 4], ..plain }, [1, 4, 5, 5], [4, 1, 3, 3]),
    ];
    let mut cases = Vec::new();
    for (attrs, x, w) in attrs {
        let bias = [w[0]];
        cases.push(case("conv2d", &[&x, &w, &bias], range, move |t, x| {
            t.push(Op::Conv2d(attrs), &[&x[0], &x[1], &x[2]])
        }));
        let out = |axis: usize| {
            let extent = attrs.dilation[axis] * (w[2 + axis] - 1) + 1;
            (x[2 + axis] + attrs.pads[axis] + attrs.pads[axis + 2] - extent) / attrs.stride[axis] + 1
        };
        let y = [x[0], w[0], out(0), out(1)];
        cases.push(case("conv2d input grad", &[&y, &w], range, move |t, v| {
            t.push(Op::Conv2dInputGrad { attrs, input: [x[2], x[3]] }, &[&v[0], &v[1]])
        }));
        cases.push(case("conv2d weight grad", &[&x, &y], range, move |t, v| {
            t.push(Op::Conv2dWeightGrad { attrs, kernel: [w[2], w[3]] }, &[&v[0], &v[1]])
        }));
    }
    for (trans_a, trans_b) in [(false, false), (false, true), (true, false), (true, true)] {
        let a: &[usize] = if trans_a { &[4, 3] } else { &[3, 4] };
        let b: &[usize] = if trans_b { &[2, 5, 4] } else { &[2, 4, 5] };
        cases
            .push(case("matmul", &[a, b], range, move |t, x| t.push(Op::MatMul { trans_a, trans_b }, &[&x[0], &x[1]])));
    }
    cases.push(case("linear of rows", &[&[2, 3, 4], &[5, 4], &[5]], range, |_, x| x[0].linear(&x[1], Some(&x[2]))));
    cases
}

fn map_cases() -> Vec<Case> {
    let range = (-1.0, 1.0);
    let sliding = |ceil_mode| Windows::Sliding {
        kernel: [3, 2],
        stride: [2, 2],
        pads: [1, 0, 1, 1],
        dilation: [1, 1],
        ceil_mode,
    };
    let mut cases = Vec::new();
    for windows in [sliding(false), sliding(true), Windows::Adaptive { out: [3, 2] }] {
        cases.push(case("max_pool", &[&[1, 2, 6, 7]], range, move |t, x| t.push(Op::MaxPool2d(windows), &[&x[0]])));
        for divisor in [AvgDivisor::IncludePad, AvgDivisor::ExcludePad, AvgDivisor::Const(5)] {
            cases.push(case("avg_pool", &[&[1, 2, 6, 7]], range, move |t, x| {
                let y = t.push(Op::AvgPool2d { windows, divisor }, &[&x[0]]);
                let back = t.push(Op::AvgPool2dGrad { windows, divisor, input: [6, 7] }, &[&y.square()]);
                Tensor::cat(&[&y.flatten(0, -1), &back.flatten(0, -1)], 0)
            }));
        }
    }
    let modes = [
        Interpolation::Nearest,
        Interpolation::NearestExact,
        Interpolation::Bilinear,
        Interpolation::Bicubic { a: -0.75 },
    ];
    for mode in modes {
        for out in [[7, 3], [2, 9]] {
            let spec = ResizeSpec { mode, align_corners: false, antialias: false, scales: None };
            cases.push(case("resize", &[&[1, 2, 4, 5]], range, move |t, x| {
                let y = t.push(Op::Resize { spec, out }, &[&x[0]]);
                let back = t.push(Op::ResizeGrad { spec, input: [4, 5] }, &[&y.square()]);
                Tensor::cat(&[&y.flatten(0, -1), &back.flatten(0, -1)], 0)
            }));
        }
    }
    cases
}

fn norm_cases() -> Vec<Case> {
    let (range, eps) = ((-1.0, 2.0), 1e-3);
    let mut cases = Vec::new();
    for x in [&[3, 4][..], &[2, 3, 4], &[2, 3, 4, 2]] {
        let c = [x[1]];
        cases.push(case("moments", &[x], range, |t, x| t.push(Op::Moments, &[&x[0]])));
        cases.push(case("batch norm of training", &[x, &c, &c], range, move |t, x| {
            let moments = t.push(Op::Moments, &[&x[0]]);
            t.push(Op::BatchNormTraining { eps }, &[&x[0], &x[1], &x[2], &moments])
        }));
        cases.push(case("batch norm", &[x, &c, &c, &c, &c], (0.5, 2.0), move |t, x| {
            t.push(Op::BatchNorm { eps }, &[&x[0], &x[1], &x[2], &x[3], &x[4]])
        }));
        cases.push(case("standardize", &[x], range, move |t, x| t.push(Op::Standardize { eps }, &[&x[0]])));
    }
    cases
}

#[test]
fn every_rule_agrees_with_finite_differences() {
    let families = [
        unary_cases(),
        binary_cases(),
        reduce_cases(),
        movement_cases(),
        indexed_cases(),
        sampling_cases(),
        convolution_cases(),
        map_cases(),
        norm_cases(),
    ];
    let mut failures = Vec::new();
    let mut count = 0;
    for (index, case) in families.iter().flatten().enumerate() {
        count += 1;
        match difference(case) {
            Ok(worst) if worst < 1e-6 => {}
            outcome => failures.push(format!("{index} {} {:?}: {outcome:?}", case.name, case.shapes)),
        }
    }
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn what_has_no_gradient_is_named_and_what_is_cut_gives_zeros() {
    let trace = Trace::new(Mode::Train);
    let x = trace.input("x", [3], DType::F32);
    let cut = x.detach().sum_all();
    let zero = gradients(&cut, &[&x]).unwrap().remove(0);
    let twice = trace.push(Op::UnaryGrad(UnaryKind::Mish), &[&x, &x]).sum_all();
    let error = gradients(&twice, &[&x]).unwrap_err();
    assert!(error.to_string().starts_with("UnaryGrad has no gradient"), "{error}");
    let graph = trace.finish(&[("zero", &zero)]).unwrap();
    let x = Array::from_vec([3], vec![1f32, 2.0, 3.0]).unwrap();
    assert_eq!(interpret(&graph, &[("x", x)], &RunOptions::default()).unwrap()[0].f32s().unwrap(), &[0.0; 3]);
}

#[test]
fn a_loss_must_be_a_scalar() {
    let trace = Trace::new(Mode::Train);
    let x = trace.input("x", [3], DType::F32);
    let error = gradients(&x.square(), &[&x]).unwrap_err().to_string();
    assert!(error.contains("float32 [3]") && error.contains("mean_all()"), "{error}");
}
