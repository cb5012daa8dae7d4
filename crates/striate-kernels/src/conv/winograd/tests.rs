//! Winograd's kernels against the exact sums, within the limits of the numerics contract.

use super::*;
use crate::conv::engine::Engine;
use crate::conv::forward::forward_problem;
use crate::conv::input_grad::phase_problem;
use crate::conv::sum::Sum;
use crate::conv::tests::{BASE, check_stats, exact_forward, exact_input_grad, noise, run_forward, run_input_grad};
use crate::conv::{Activation, Conv2dShape, Epilogue, ForwardPlan, InputGradPlan};
use crate::simd::available_isas;
use proptest::prelude::*;

/// Root mean square and largest of the errors, relative to the root mean square of what is wanted.
fn errors(got: &[f32], want: &[f64]) -> (f64, f64) {
    assert_eq!(got.len(), want.len());
    let rms = (want.iter().map(|w| w * w).sum::<f64>() / want.len() as f64).sqrt();
    let difference = || got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w) / rms);
    let mean = (difference().map(|d| d * d).sum::<f64>() / want.len() as f64).sqrt();
    (mean, difference().fold(0.0, |most, d| if d.is_nan() { f64::NAN } else { most.max(d.abs()) }))
}

fn assert_accurate(got: &[f32], want: &[f64], what: &str) {
    let (rms, most) = errors(got, want);
    assert!(rms <= 5e-6 && most <= 1e-4, "{what}: errors {rms:e} rms, {most:e} at most");
}

fn forward_plan(shape: &Conv2dShape, isa: Isa, edge: usize) -> ForwardPlan {
    let winograd = Winograd::new(forward_problem(shape), isa, Weights::forward(shape), edge);
    ForwardPlan::with_sum(*shape, isa, Sum::with_engines(vec![(0, Engine::Winograd(Box::new(winograd)))]))
}

fn input_grad_plan(shape: &Conv2dShape, isa: Isa, edge: usize) -> InputGradPlan {
    let winograd = Winograd::new(phase_problem(shape, [0, 0]), isa, Weights::input_grad(shape), edge);
    InputGradPlan::with_sum(*shape, isa, Sum::with_engines(vec![(0, Engine::Winograd(Box::new(winograd)))]))
}

fn check_shape(shape: &Conv2dShape) {
    assert!(suits(&forward_problem(shape)) && suits(&phase_problem(shape, [0, 0])), "{shape:?}");
    let (x, w, dy) = (noise(shape.x_len(), 1), noise(shape.w_len(), 2), noise(shape.y_len(), 3));
    let (bias, residual) = (noise(shape.oc, 4), noise(shape.y_len(), 5));
    let (y_exact, dx_exact) = (exact_forward(shape, &x, &w), exact_input_grad(shape, &dy, &w));
    let sum = |i: usize| y_exact[i] + f64::from(bias[i % shape.oc]) + f64::from(residual[i]);
    let with_epilogue: Vec<f64> = (0..y_exact.len()).map(|i| sum(i).max(0.0)).collect();
    for (isa, edge) in available_isas().into_iter().flat_map(|isa| [(isa, 2), (isa, 4)]) {
        let what = format!("{isa}, tiles of {edge}, {shape:?}");
        let (plan, backward) = (forward_plan(shape, isa, edge), input_grad_plan(shape, isa, edge));
        let (y, stats) = run_forward(&plan, 1, &x, &w, Epilogue::default());
        assert_accurate(&y, &y_exact, &what);
        check_stats(&y, &stats, shape.oc, &what);
        let epilogue = Epilogue { bias: Some(&bias), residual: Some(&residual), activation: Activation::Relu };
        assert_accurate(&run_forward(&plan, 1, &x, &w, epilogue).0, &with_epilogue, &what);
        let dx = run_input_grad(&backward, 1, &dy, &w);
        assert_accurate(&dx, &dx_exact, &what);
        for threads in [2, 3] {
            assert!(run_forward(&plan, threads, &x, &w, Epilogue::default()) == (y.clone(), stats.clone()), "{what}");
            assert!(run_input_grad(&backward, threads, &dy, &w) == dx, "{what}: {threads} threads");
        }
        let one = Conv2dShape { n: 1, ..*shape };
        let (plan, backward) = (forward_plan(&one, isa, edge), input_grad_plan(&one, isa, edge));
        for n in 0..shape.n {
            let (xs, ys) = (n * one.x_len()..(n + 1) * one.x_len(), n * one.y_len()..(n + 1) * one.y_len());
            let alone = run_forward(&plan, 1, &x[xs.clone()], &w, Epilogue::default()).0;
            assert!(alone == y[ys.clone()], "{what}: image {n} alone");
            assert!(run_input_grad(&backward, 1, &dy[ys], &w) == dx[xs], "{what}: image {n} alone");
        }
    }
}

#[test]
fn chosen_shapes() {
    let shapes = [
        BASE,
        Conv2dShape { n: 3, ih: 14, iw: 14, ic: 48, oc: 80, ..BASE },
        // Rests of vectors, of blocks and of tiles; several bands.
        Conv2dShape { n: 2, ih: 61, iw: 58, ic: 5, oc: 19, ..BASE },
        Conv2dShape { n: 5, ih: 6, iw: 7, ic: 33, oc: 70, ..BASE },
        // Without padding, with one-sided and with wide padding.
        Conv2dShape { pads: [0; 4], ..BASE },
        Conv2dShape { n: 2, pads: [2, 0, 1, 3], ic: 17, ..BASE },
        Conv2dShape { ih: 3, iw: 3, pads: [1; 4], ic: 256, oc: 16, ..BASE },
    ];
    shapes.iter().for_each(check_shape);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_shapes(
        (n, ih, iw) in (1usize..4, 3usize..20, 3usize..20),
        (ic, oc) in (1usize..70, 1usize..90),
        pads in [0usize..3, 0usize..3, 0usize..3, 0usize..3],
    ) {
        check_shape(&Conv2dShape { n, ih, iw, ic, oc, pads, ..BASE });
    }
}

/// The contract's limits at its largest number of channels.
#[test]
fn sums_over_512_channels_are_accurate() {
    let shape = Conv2dShape { ih: 14, iw: 13, ic: 512, oc: 32, ..BASE };
    let gradient = Conv2dShape { ic: 32, oc: 512, ..shape };
    let (x, w, dy) = (noise(shape.x_len(), 6), noise(shape.w_len(), 7), noise(gradient.y_len(), 8));
    let (y_exact, dx_exact) = (exact_forward(&shape, &x, &w), exact_input_grad(&gradient, &dy, &w));
    for (isa, edge) in available_isas().into_iter().flat_map(|isa| [(isa, 2), (isa, 4)]) {
        let y = run_forward(&forward_plan(&shape, isa, edge), 2, &x, &w, Epilogue::default()).0;
        assert_accurate(&y, &y_exact, &format!("{isa}, tiles of {edge}"));
        let dx = run_input_grad(&input_grad_plan(&gradient, isa, edge), 2, &dy, &w);
        assert_accurate(&dx, &dx_exact, &format!("{isa}, tiles of {edge}, input gradient"));
    }
}

#[test]
fn dilated_filters_are_dense_ones_on_grids() {
    let shapes = [
        Conv2dShape { n: 2, ih: 29, iw: 30, ic: 64, oc: 64, dilation: [2, 2], pads: [2; 4], ..BASE },
        Conv2dShape { n: 2, ih: 28, iw: 21, ic: 80, oc: 48, dilation: [4, 1], pads: [4, 1, 4, 1], ..BASE },
    ];
    for (shape, isa) in shapes.iter().flat_map(|shape| available_isas().into_iter().map(move |isa| (shape, isa))) {
        let (x, w, dy) = (noise(shape.x_len(), 1), noise(shape.w_len(), 2), noise(shape.y_len(), 3));
        let plan = ForwardPlan::new(*shape, isa, Algorithms::Fast);
        let backward = InputGradPlan::new(*shape, isa, Algorithms::FastTraining);
        assert!(plan.kernel_name().contains("winograd") && backward.kernel_name().contains("winograd"), "{shape:?}");
        let (y, stats) = run_forward(&plan, 1, &x, &w, Epilogue::default());
        assert_accurate(&y, &exact_forward(shape, &x, &w), plan.kernel_name().as_str());
        check_stats(&y, &stats, shape.oc, &plan.kernel_name());
        assert!(run_forward(&plan, 3, &x, &w, Epilogue::default()) == (y, stats));
        let dx = run_input_grad(&backward, 2, &dy, &w);
        assert_accurate(&dx, &exact_input_grad(shape, &dy, &w), &backward.kernel_name());
    }
}

/// Every second tap of a 5x5 filter with steps of 2 is a dense 3x3 filter in the gradient.
#[test]
fn three_of_five_taps() {
    let shape =
        Conv2dShape { n: 4, ih: 28, iw: 27, ic: 64, oc: 64, kh: 5, kw: 5, stride: [2, 2], pads: [2; 4], ..BASE };
    let (w, dy) = (noise(shape.w_len(), 2), noise(shape.y_len(), 3));
    for isa in available_isas() {
        let plan = InputGradPlan::new(shape, isa, Algorithms::Fast);
        assert!(plan.kernel_name().contains("winograd"), "{}", plan.kernel_name());
        assert_accurate(&run_input_grad(&plan, 2, &dy, &w), &exact_input_grad(&shape, &dy, &w), &plan.kernel_name());
    }
}

/// Which kernel, for `n` images.
fn chosen(shape: &Conv2dShape, n: usize, algorithms: Algorithms) -> String {
    ForwardPlan::new(Conv2dShape { n, ..*shape }, Isa::Avx512, algorithms).kernel_name()
}

#[test]
fn the_layer_decides_and_the_batch_only_in_training() {
    let wide = Conv2dShape { ih: 56, iw: 56, ic: 64, oc: 64, ..BASE };
    let small = Conv2dShape { ih: 3, iw: 3, ic: 512, oc: 512, ..BASE };
    for n in [1, 8, 64] {
        assert_eq!(chosen(&wide, n, Algorithms::Fast), "conv2d_winograd4x4_f32_6x64_avx512");
        assert_eq!(chosen(&wide, n, Algorithms::Exact), "conv2d_f32_6x64_avx512");
        // To read the transformed filters is most of the work, unless many images share it.
        // A dilated filter is a dense one on every second row and column.
        let dilated = Conv2dShape { dilation: [2, 2], pads: [2; 4], ..wide };
        assert_eq!(chosen(&dilated, n, Algorithms::Fast), "conv2d_winograd4x4_f32_6x64_avx512");
        assert!(!chosen(&small, n, Algorithms::Fast).contains("winograd"));
        assert_eq!(chosen(&small, n, Algorithms::FastTraining).contains("winograd"), n == 64);
    }
    for other in [
        Conv2dShape { stride: [2, 2], ..wide },
        Conv2dShape { groups: 2, ..wide },
        Conv2dShape { kw: 5, ..wide },
        Conv2dShape { ic: 1, ..wide },
    ] {
        let name = chosen(&other, 8, Algorithms::Fast);
        assert!(!name.contains("winograd"), "{other:?}: {name}");
    }
}
