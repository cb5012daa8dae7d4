//! Average pooling, resizing, softmax and standardisation against their scalar twins, on every instruction set, with the same
//! bits for any number of threads.

mod common;

use common::{check, check_against, noise, on_all, wide};
use proptest::prelude::*;
use striate_kernels::kinds::*;
use striate_kernels::reduce::{ReduceShape, reduce};
use striate_kernels::reference::*;
use striate_kernels::resample::ResamplePlan;
use striate_kernels::softmax::softmax;
use striate_kernels::standardize::{standardize, standardize_grad};

/// Forward and backward of a plan against results in NCHW.
fn check_plan(plan: &ResamplePlan, x: &[f32], dy: &[f32], want: (&[f64], &[f64]), dims: ([usize; 4], [usize; 4])) {
    let got = on_all(|team, isa| {
        let mut y = vec![f32::NAN; dy.len()];
        plan.run(team, isa, x, &mut y);
        y
    });
    check("forward", &got, &nchw_to_nhwc(want.0, dims.1), 2e-6);
    let backward = plan.transposed();
    let got = on_all(|team, isa| {
        let mut dx = vec![f32::NAN; x.len()];
        backward.run(team, isa, dy, &mut dx);
        dx
    });
    check("gradient", &got, &nchw_to_nhwc(want.1, dims.0), 2e-6);
}

/// How large the terms are whose difference is the gradient of a standardised row: the gradient over the deviation. In a row of
/// two they cancel to next to nothing.
fn standardize_terms(len: usize, x: &[f32], dy: &[f32], eps: f32) -> Vec<f64> {
    let moment = |v: &[f32], about: f64| v.iter().map(|&v| (f64::from(v) - about).powi(2)).sum::<f64>() / len as f64;
    let term = |(x, dy): (&[f32], &[f32])| {
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / len as f64;
        vec![(moment(dy, 0.0) / (moment(x, mean) + f64::from(eps))).sqrt(); len]
    };
    x.chunks(len).zip(dy.chunks(len)).flat_map(term).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn average_pooling(
        (n, c, h, w) in (1usize..4, prop_oneof![1usize..20, 60usize..70], 1usize..9, 1usize..9),
        (kernel, stride, pads) in ([1usize..4, 1..4], [1usize..4, 1..4], [0usize..2, 0..2, 0..2, 0..2]),
        (ceil_mode, adaptive, rule) in (any::<bool>(), any::<bool>(), 0usize..3),
        seed in any::<u64>(),
    ) {
        let windows = match adaptive {
            true => Windows::Adaptive { out: kernel },
            false => Windows::Sliding { kernel, stride, pads, dilation: [1, 1], ceil_mode },
        };
        let Some(shape) = PoolShape::new(n * c, [h, w], windows) else { return Ok(()) };
        let rule = [AvgDivisor::IncludePad, AvgDivisor::ExcludePad, AvgDivisor::Const(3)][rule];
        let [oh, ow] = shape.output;
        let (x, dy) = (noise(n * c * h * w, seed), noise(n * c * oh * ow, seed ^ 1));
        let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
        reference_avg_pool(shape, rule, &wide(&nhwc_to_nchw(&x, [n, c, h, w])), &mut y);
        reference_avg_pool_grad(shape, rule, &wide(&nhwc_to_nchw(&dy, [n, c, oh, ow])), &mut dx);
        let plan = ResamplePlan::avg_pool(rule, n, c, &shape);
        check_plan(&plan, &x, &dy, (&y, &dx), ([n, c, h, w], [n, c, oh, ow]));
    }

    #[test]
    fn resizing(
        (n, c, input, output) in
            (1usize..3, prop_oneof![1usize..20, 60usize..70], [1usize..10, 1..10], [1usize..12, 1..12]),
        (mode, align_corners, antialias) in (0usize..4, any::<bool>(), any::<bool>()),
        seed in any::<u64>(),
    ) {
        use Interpolation::*;
        let mode = [Nearest, NearestExact, Bilinear, Bicubic { a: -0.75 }][mode];
        let linear = matches!(mode, Bilinear | Bicubic { .. });
        let spec =
            ResizeSpec { mode, align_corners: align_corners && linear, antialias: antialias && linear, scales: None };
        let shape = ResizeShape { planes: n * c, input, output };
        let ([h, w], [oh, ow]) = (input, output);
        let (x, dy) = (noise(n * c * h * w, seed), noise(n * c * oh * ow, seed ^ 1));
        let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
        reference_resize(&spec, shape, &wide(&nhwc_to_nchw(&x, [n, c, h, w])), &mut y);
        reference_resize_grad(&spec, shape, &wide(&nhwc_to_nchw(&dy, [n, c, oh, ow])), &mut dx);
        let plan = ResamplePlan::resize(&spec, n, c, shape);
        check_plan(&plan, &x, &dy, (&y, &dx), ([n, c, h, w], [n, c, oh, ow]));
    }

    #[test]
    fn softmax_and_its_logarithm(
        (outer, len, inner) in (1usize..40, 1usize..80, prop_oneof![Just(1usize), 2usize..70]),
        log in any::<bool>(),
        spread in prop_oneof![Just(1f32), Just(50f32)],
        seed in any::<u64>(),
    ) {
        let x: Vec<f32> = noise(outer * len * inner, seed).iter().map(|v| v * spread).collect();
        let dims = [outer, len, inner];
        let mut want = vec![0.0; x.len()];
        if log { reference_log_softmax(&dims, &wide(&x), 1, &mut want) } else { reference_softmax(&dims, &wide(&x), 1, &mut want) }
        let got = on_all(|team, isa| {
            let mut y = vec![f32::NAN; x.len()];
            softmax(team, isa, (ReduceShape { outer, len, inner }, log), &x, &mut y);
            y
        });
        check("softmax", &got, &want, 2e-6);
    }

    #[test]
    fn standardisation(
        (rows, len) in (1usize..6, prop_oneof![1usize..40, 4000usize..9000]),
        mean in prop_oneof![Just(0f32), Just(100f32)],
        seed in any::<u64>(),
    ) {
        let x: Vec<f32> = noise(rows * len, seed).iter().map(|v| v + mean).collect();
        let (dy, eps) = (noise(rows * len, seed ^ 1), 1e-5f32);
        let mut want = vec![0.0; x.len()];
        reference_standardize(len, &wide(&x), f64::from(eps), &mut want);
        let got = on_all(|team, isa| {
            let mut y = vec![f32::NAN; x.len()];
            standardize(team, isa, (len, eps), &x, &mut y);
            y
        });
        check("standardize", &got, &want, 2e-6);
        reference_standardize_grad(len, &wide(&x), &wide(&dy), f64::from(eps), &mut want);
        let got = on_all(|team, isa| {
            let mut dx = vec![f32::NAN; x.len()];
            standardize_grad(team, isa, (len, eps), (&x, &dy), &mut dx);
            dx
        });
        check_against("gradient of standardize", &got, &want, &standardize_terms(len, &x, &dy, eps), 5e-6);
    }
}

#[test]
fn extremes_keep_nan() {
    for kind in [ReduceKind::Max, ReduceKind::Min, ReduceKind::Sum] {
        for inner in [1, 20] {
            let shape = ReduceShape { outer: 2, len: 300, inner };
            let mut x = noise(600 * inner, 3);
            x[150 * inner] = f32::NAN;
            let got = on_all(|team, isa| {
                let (mut y, mut scratch) = (vec![0.0; 2 * inner], vec![0.0; shape.scratch_len()]);
                reduce(team, isa, (kind, shape), &x, &mut y, &mut scratch);
                y
            });
            for (isa, y) in got {
                assert!(y[0].is_nan() && y[1..].iter().all(|v| v.is_finite()), "{kind:?} on {isa}");
            }
        }
    }
}

#[test]
fn softmax_of_nan_is_nan() {
    let x = [1.0, f32::NAN, 2.0];
    let got = on_all(|team, isa| {
        let mut y = vec![0.0; 3];
        softmax(team, isa, (ReduceShape { outer: 1, len: 3, inner: 1 }, false), &x, &mut y);
        y
    });
    assert!(got.iter().all(|(_, y)| y.iter().all(|v| v.is_nan())));
}
