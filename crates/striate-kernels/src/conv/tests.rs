//! The convolution kernels against their scalar twins.

use super::*;
use crate::reference::{nchw_to_nhwc, nhwc_to_nchw, reference_conv2d, reference_conv2d_input_grad};
use crate::simd::{Isa, available_isas};
use crate::threads::Team;
use proptest::prelude::*;

/// Numbers from -1 to 1 that look random.
pub(super) fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| x as f64).collect()
}

/// Errors relative to the largest value that the sum of absolute products could have, in units of 2^-24: a few times the
/// root of the number of terms is what rounding gives.
fn assert_close(got: &[f32], want: &[f64], terms: usize, what: &str) {
    let bound = 2f64.powi(-24) * (8.0 + 4.0 * (terms as f64).sqrt()) * (1.0 + (terms as f64).sqrt() / 3.0);
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(
            (*got as f64 - want).abs() <= bound * (1.0 + want.abs()),
            "{what}: at {i} {got}, exact {want}, {bound:e}"
        );
    }
}

fn forward(
    shape: &Conv2dShape,
    isa: Isa,
    threads: usize,
    x: &[f32],
    w: &[f32],
    epilogue: Epilogue,
) -> (Vec<f32>, Vec<f32>) {
    run_forward(&ForwardPlan::new(*shape, isa, Algorithms::Exact), threads, x, w, epilogue)
}

/// The output and its statistics.
pub(super) fn run_forward(
    plan: &ForwardPlan,
    threads: usize,
    x: &[f32],
    w: &[f32],
    epilogue: Epilogue,
) -> (Vec<f32>, Vec<f32>) {
    let (team, shape) = (Team::new(threads), plan.shape());
    let mut packed = vec![f32::NAN; plan.packed_len()];
    plan.pack(&team, w, &mut packed);
    let mut y = vec![f32::NAN; shape.y_len()];
    let mut stats = vec![f32::NAN; 2 * shape.oc];
    let mut scratch = vec![f32::NAN; plan.scratch_len(threads)];
    let stats_out = Some(&mut stats[..]);
    plan.run(&team, ForwardArgs { x, packed: &packed, epilogue, stats: stats_out, y: &mut y, scratch: &mut scratch });
    (y, stats)
}

fn input_grad(shape: &Conv2dShape, isa: Isa, threads: usize, dy: &[f32], w: &[f32]) -> Vec<f32> {
    run_input_grad(&InputGradPlan::new(*shape, isa, Algorithms::Exact), threads, dy, w)
}

pub(super) fn run_input_grad(plan: &InputGradPlan, threads: usize, dy: &[f32], w: &[f32]) -> Vec<f32> {
    let (team, shape) = (Team::new(threads), plan.shape());
    let mut packed = vec![f32::NAN; plan.packed_len()];
    plan.pack(&team, w, &mut packed);
    let mut dx = vec![f32::NAN; shape.x_len()];
    let mut scratch = vec![f32::NAN; plan.scratch_len(threads)];
    plan.run(&team, dy, &packed, GradEpilogue::default(), &mut dx, &mut scratch);
    // The epilogue changes nothing but what it says: the same sums, added to and let through.
    let (residual, gate) = (noise(dx.len(), 11), noise(dx.len(), 12));
    let epilogue = GradEpilogue { residual: Some(&residual), mask: Some((&gate, [-0.5, 0.25])) };
    let mut gated = vec![f32::NAN; dx.len()];
    plan.run(&team, dy, &packed, epilogue, &mut gated, &mut scratch);
    for (i, got) in gated.iter().enumerate() {
        let want = if gate[i] > -0.5 && gate[i] < 0.25 { dx[i] + residual[i] } else { 0.0 };
        assert!(got.to_bits() == want.to_bits(), "{}: [{i}] {got}, not {want}", plan.kernel_name());
    }
    dx
}

pub(super) fn exact_forward(s: &Conv2dShape, x: &[f32], w: &[f32]) -> Vec<f64> {
    let mut y = vec![0.0; s.y_len()];
    reference_conv2d(s, &nhwc_to_nchw(&wide(x), [s.n, s.ic, s.ih, s.iw]), &wide(w), None, &mut y);
    nchw_to_nhwc(&y, [s.n, s.oc, s.oh(), s.ow()])
}

pub(super) fn exact_input_grad(s: &Conv2dShape, dy: &[f32], w: &[f32]) -> Vec<f64> {
    let mut dx = vec![0.0; s.x_len()];
    reference_conv2d_input_grad(s, &nhwc_to_nchw(&wide(dy), [s.n, s.oc, s.oh(), s.ow()]), &wide(w), &mut dx);
    nchw_to_nhwc(&dx, [s.n, s.ic, s.ih, s.iw])
}

pub(super) fn check_stats(y: &[f32], stats: &[f32], channels: usize, what: &str) {
    let count = (y.len() / channels) as f64;
    for c in 0..channels {
        let values = || y.iter().skip(c).step_by(channels).map(|&v| v as f64);
        let mean = values().sum::<f64>() / count;
        let variance = values().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
        let scale = (mean * mean + variance).sqrt().max(1e-6);
        assert!((stats[c] as f64 - mean).abs() <= 3e-7 * scale, "{what}: mean {} exact {mean}", stats[c]);
        let got = stats[channels + c] as f64;
        assert!((got - variance).abs() <= 1e-6 * variance + 1e-13 * scale, "{what}: variance {got} exact {variance}");
    }
}

/// All that must hold for a shape, on every instruction set.
fn check_shape(shape: &Conv2dShape) {
    let (x, w) = (noise(shape.x_len(), 1), noise(shape.w_len(), 2));
    let dy = noise(shape.y_len(), 3);
    let (bias, residual) = (noise(shape.oc, 4), noise(shape.y_len(), 5));
    let (y_exact, dx_exact) = (exact_forward(shape, &x, &w), exact_input_grad(shape, &dy, &w));
    let with_epilogue: Vec<f64> = y_exact
        .iter()
        .enumerate()
        .map(|(i, y)| (y + bias[i % shape.oc] as f64 + residual[i] as f64).max(0.0))
        .collect();
    let size = shape.kh * shape.kw;
    let terms = [shape.ic_per_group() * size, shape.oc_per_group() * size];
    for isa in available_isas() {
        let what = format!("{isa} {shape:?}");
        let (y, stats) = forward(shape, isa, 1, &x, &w, Epilogue::default());
        assert_close(&y, &y_exact, terms[0], &what);
        check_stats(&y, &stats, shape.oc, &what);
        let epilogue = Epilogue { bias: Some(&bias), residual: Some(&residual), activation: Activation::Relu };
        assert_close(&forward(shape, isa, 1, &x, &w, epilogue).0, &with_epilogue, terms[0], &what);
        let dx = input_grad(shape, isa, 1, &dy, &w);
        assert_close(&dx, &dx_exact, terms[1], &what);
        for threads in [2, 3] {
            assert!(forward(shape, isa, threads, &x, &w, Epilogue::default()) == (y.clone(), stats.clone()), "{what}");
            assert!(input_grad(shape, isa, threads, &dy, &w) == dx, "{what}: {threads} threads");
        }
        let one = Conv2dShape { n: 1, ..*shape };
        for n in 0..shape.n {
            let (ix, iy) = (one.x_len(), one.y_len());
            let (x, dy) = (&x[n * ix..(n + 1) * ix], &dy[n * iy..(n + 1) * iy]);
            let alone = forward(&one, isa, 1, x, &w, Epilogue::default()).0;
            assert!(alone == y[n * iy..(n + 1) * iy], "{what}: image {n} alone");
            assert!(input_grad(&one, isa, 1, dy, &w) == dx[n * ix..(n + 1) * ix], "{what}: image {n} alone");
        }
    }
}

pub(super) const BASE: Conv2dShape = Conv2dShape {
    n: 1,
    ih: 9,
    iw: 11,
    ic: 8,
    oc: 16,
    kh: 3,
    kw: 3,
    stride: [1, 1],
    pads: [1; 4],
    dilation: [1, 1],
    groups: 1,
};

#[test]
fn chosen_shapes() {
    let shapes = [
        BASE,
        Conv2dShape { n: 3, ic: 64, oc: 64, ..BASE },
        Conv2dShape { n: 2, ic: 5, oc: 131, ih: 5, iw: 6, ..BASE },
        // 1x1, flattened; and as a Linear layer.
        Conv2dShape { n: 2, kh: 1, kw: 1, pads: [0; 4], ic: 33, oc: 48, ..BASE },
        Conv2dShape { n: 3, ih: 1, iw: 1, kh: 1, kw: 1, pads: [0; 4], ic: 40, oc: 1000, ..BASE },
        // Stems.
        Conv2dShape { n: 2, ih: 21, iw: 23, ic: 3, oc: 64, kh: 7, kw: 7, stride: [2, 2], pads: [3; 4], ..BASE },
        Conv2dShape { ih: 8, iw: 8, ic: 1, oc: 6, kh: 5, kw: 5, pads: [0; 4], ..BASE },
        // Strides, alone and with 1x1; filters that skip pixels.
        Conv2dShape { n: 2, stride: [2, 2], ..BASE },
        Conv2dShape { n: 2, kh: 1, kw: 1, pads: [0; 4], stride: [2, 2], ..BASE },
        Conv2dShape { kh: 2, kw: 2, pads: [0; 4], stride: [4, 3], ..BASE },
        // Pixels 4 KiB apart: the band is packed with another pitch.
        Conv2dShape { n: 2, ih: 3, iw: 5, ic: 1024, oc: 40, kh: 1, kw: 1, pads: [0; 4], ..BASE },
        Conv2dShape { ih: 3, iw: 5, ic: 1024, oc: 16, ..BASE },
        Conv2dShape { ih: 5, iw: 7, ic: 512, oc: 16, stride: [2, 2], ..BASE },
        // Dilation; taps that see padding alone; nothing but padding.
        Conv2dShape { dilation: [2, 3], pads: [2, 3, 2, 3], ..BASE },
        Conv2dShape { ih: 3, iw: 3, dilation: [4, 4], pads: [4; 4], ..BASE },
        Conv2dShape { ih: 1, iw: 1, kh: 1, kw: 1, pads: [2, 2, 0, 0], stride: [1, 1], ..BASE },
        Conv2dShape { ih: 1, iw: 1, kh: 1, kw: 1, pads: [2, 1, 0, 1], stride: [3, 3], ..BASE },
        // Maps of one pixel under a step: several images that must not lie a step apart.
        Conv2dShape { n: 5, ih: 1, iw: 1, stride: [2, 3], ..BASE },
        Conv2dShape { n: 5, ih: 1, iw: 1, ic: 40, oc: 33, kh: 5, kw: 5, pads: [2; 4], stride: [4, 4], ..BASE },
        // Few channels of the output, or of the input under a step: columns of all taps, in more than one band.
        Conv2dShape {
            n: 2,
            ih: 40,
            iw: 37,
            ic: 3,
            oc: 40,
            stride: [4, 3],
            dilation: [2, 1],
            pads: [2, 1, 2, 1],
            ..BASE
        },
        Conv2dShape { n: 2, ih: 50, iw: 21, ic: 50, oc: 3, kh: 5, kw: 5, pads: [2; 4], ..BASE },
        Conv2dShape { ih: 33, iw: 20, ic: 17, oc: 70, kh: 11, kw: 11, dilation: [2, 1], pads: [9, 5, 10, 5], ..BASE },
        // Tap by tap, several images at a time, groups, more blocks than one.
        Conv2dShape { n: 8, ih: 7, iw: 6, ic: 33, oc: 100, kh: 7, kw: 7, pads: [3; 4], ..BASE },
        Conv2dShape { n: 18, ih: 2, iw: 2, ic: 40, oc: 50, kh: 5, kw: 5, pads: [2; 4], ..BASE },
        Conv2dShape {
            n: 6,
            ih: 13,
            iw: 12,
            ic: 64,
            oc: 160,
            kh: 7,
            kw: 7,
            dilation: [4, 2],
            pads: [12, 6, 12, 6],
            groups: 2,
            ..BASE
        },
        // Depthwise under steps: every number of vectors, rows and columns that nothing sees.
        Conv2dShape { n: 2, groups: 150, ic: 150, oc: 150, ih: 13, iw: 14, stride: [4, 3], ..BASE },
        Conv2dShape {
            n: 2,
            groups: 21,
            ic: 21,
            oc: 21,
            ih: 14,
            iw: 9,
            kh: 5,
            kw: 1,
            stride: [3, 1],
            pads: [0; 4],
            ..BASE
        },
        // Rows and columns.
        Conv2dShape { kh: 1, kw: 7, pads: [0, 3, 0, 3], ..BASE },
        Conv2dShape { kh: 7, kw: 1, pads: [3, 0, 3, 0], ..BASE },
        // Groups: large, tiny, depthwise.
        Conv2dShape { groups: 2, ic: 24, oc: 34, ..BASE },
        Conv2dShape { n: 2, groups: 4, ic: 16, oc: 16, stride: [2, 2], ..BASE },
        Conv2dShape { n: 2, groups: 12, ic: 12, oc: 12, ..BASE },
        // Depthwise with a full vector and a rest, with steps, dilation and one-sided padding; more bands than one.
        Conv2dShape { n: 2, groups: 67, ic: 67, oc: 67, ih: 30, iw: 29, ..BASE },
        Conv2dShape { n: 2, groups: 40, ic: 40, oc: 40, ih: 57, iw: 60, stride: [2, 2], ..BASE },
        Conv2dShape { groups: 19, ic: 19, oc: 19, kh: 5, kw: 4, stride: [1, 3], pads: [3, 0, 1, 5], ..BASE },
        Conv2dShape { n: 3, groups: 16, ic: 16, oc: 16, dilation: [2, 3], pads: [2, 3, 2, 3], ..BASE },
        Conv2dShape { n: 3, groups: 33, ic: 33, oc: 33, ih: 1, iw: 1, ..BASE },
        // Every size of a depthwise tile: the row shorter than a tile, as long, longer; more channels than a chunk.
        Conv2dShape { n: 2, groups: 35, ic: 35, oc: 35, ih: 7, iw: 7, kh: 5, kw: 5, pads: [2; 4], ..BASE },
        Conv2dShape { groups: 35, ic: 35, oc: 35, ih: 15, iw: 15, kh: 5, kw: 5, pads: [2; 4], stride: [2, 2], ..BASE },
        Conv2dShape { groups: 20, ic: 20, oc: 20, ih: 9, iw: 28, kh: 7, kw: 7, pads: [3; 4], ..BASE },
        Conv2dShape {
            groups: 20,
            ic: 20,
            oc: 20,
            ih: 12,
            iw: 33,
            kh: 7,
            kw: 7,
            pads: [3, 2, 1, 0],
            stride: [2, 2],
            ..BASE
        },
        Conv2dShape { groups: 300, ic: 300, oc: 300, ih: 5, iw: 8, dilation: [2, 1], pads: [2, 1, 2, 1], ..BASE },
        // Channel multipliers and their opposite; the groups of ResNeXt; groups that straddle vectors.
        Conv2dShape { n: 2, groups: 24, ic: 24, oc: 48, ..BASE },
        Conv2dShape { n: 2, groups: 11, ic: 11, oc: 33, stride: [2, 1], ..BASE },
        Conv2dShape { n: 2, groups: 9, ic: 36, oc: 9, ..BASE },
        Conv2dShape { n: 2, groups: 32, ic: 128, oc: 128, ..BASE },
        Conv2dShape { n: 2, groups: 8, ic: 64, oc: 64, stride: [2, 2], ..BASE },
        Conv2dShape { n: 2, groups: 13, ic: 104, oc: 104, ih: 14, iw: 15, ..BASE },
        Conv2dShape { n: 2, groups: 21, ic: 42, oc: 42, ih: 8, iw: 7, stride: [2, 2], ..BASE },
        Conv2dShape { groups: 9, ic: 36, oc: 36, ih: 6, iw: 30, kh: 5, pads: [2, 1, 2, 1], stride: [1, 2], ..BASE },
        Conv2dShape { n: 2, groups: 7, ic: 35, oc: 21, kh: 2, ..BASE },
        Conv2dShape { n: 2, groups: 4, ic: 12, oc: 20, kh: 1, kw: 1, pads: [0; 4], ..BASE },
        // Statistics of more than one block.
        Conv2dShape { ih: 1, iw: 9000, ic: 4, oc: 4, kh: 1, groups: 4, ..BASE },
        Conv2dShape { ih: 1, iw: 9000, ic: 2, oc: 3, kh: 1, ..BASE },
        Conv2dShape { n: 2, ih: 70, iw: 70, ic: 2, oc: 17, ..BASE },
        // The last band has fewer blocks than the others.
        Conv2dShape { n: 2, ih: 99, iw: 800, ic: 4, oc: 4, groups: 4, ..BASE },
        // Cut into rectangles of which each sees other taps; into dense grids, some of one pixel.
        Conv2dShape { n: 2, ih: 28, iw: 26, ic: 3, oc: 33, kh: 5, kw: 5, dilation: [12, 12], pads: [24; 4], ..BASE },
        Conv2dShape { ih: 14, iw: 15, ic: 5, kh: 11, kw: 11, dilation: [2, 4], pads: [10, 20, 10, 20], ..BASE },
        Conv2dShape {
            n: 2,
            ih: 17,
            iw: 16,
            kh: 7,
            kw: 1,
            dilation: [12, 1],
            pads: [36, 0, 36, 0],
            stride: [2, 1],
            ..BASE
        },
        Conv2dShape {
            n: 2,
            groups: 32,
            ic: 32,
            oc: 64,
            ih: 19,
            iw: 18,
            kh: 5,
            kw: 5,
            dilation: [4, 6],
            pads: [8; 4],
            stride: [3, 4],
        },
        Conv2dShape { n: 2, groups: 4, ic: 32, oc: 32, ih: 13, iw: 12, dilation: [4, 4], pads: [4; 4], ..BASE },
        Conv2dShape {
            n: 2,
            groups: 20,
            ic: 20,
            oc: 20,
            ih: 20,
            iw: 21,
            dilation: [2, 2],
            stride: [2, 2],
            pads: [2; 4],
            ..BASE
        },
    ];
    for shape in &shapes {
        check_shape(shape);
    }
}

prop_compose! {
    fn any_shape()(
        sizes in (1usize..4, 1usize..14, 1usize..30),
        channels in (1usize..20, 1usize..40),
        kernel in prop_oneof![Just([1, 1]), Just([3, 3]), Just([1, 7]), Just([7, 1]), Just([2, 3]), Just([5, 5])],
        stride in [1usize..5, 1usize..5],
        pads in [0usize..9, 0usize..9, 0usize..4, 0usize..4],
        dilation in [1usize..6, 1usize..6],
        groups in prop_oneof![4 => Just(1usize), 1 => Just(2), 1 => Just(3), 1 => Just(5), 1 => Just(18)],
    ) -> Conv2dShape {
        let spans = [0, 1].map(|axis| dilation[axis] * (kernel[axis] - 1) + 1);
        Conv2dShape {
            n: sizes.0,
            ih: sizes.1.max(spans[0].saturating_sub(pads[0] + pads[2])),
            iw: sizes.2.max(spans[1].saturating_sub(pads[1] + pads[3])),
            ic: channels.0.div_ceil(groups) * groups,
            oc: channels.1.div_ceil(groups) * groups,
            kh: kernel[0],
            kw: kernel[1],
            stride,
            pads,
            dilation,
            groups,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_shapes(shape in any_shape()) {
        check_shape(&shape);
    }
}

#[test]
fn every_activation_is_applied() {
    let (x, w, bias) = (noise(BASE.x_len(), 1), noise(BASE.w_len(), 2), noise(BASE.oc, 3));
    let all = [
        Activation::Relu,
        Activation::Clip { lo: 0.0, hi: 1.0 },
        Activation::LeakyRelu { slope: 0.1 },
        Activation::Silu,
        Activation::Hardswish,
        Activation::Gelu,
    ];
    for isa in available_isas() {
        let plain = forward(&BASE, isa, 1, &x, &w, Epilogue { bias: Some(&bias), ..Epilogue::default() }).0;
        for activation in all {
            let y = forward(&BASE, isa, 2, &x, &w, Epilogue { bias: Some(&bias), activation, residual: None }).0;
            for (y, plain) in y.iter().zip(&plain) {
                assert!((y - activation.apply(*plain)).abs() <= 2e-6 * (1.0 + plain.abs()), "{isa} {activation:?}");
            }
        }
    }
}

#[test]
fn statistics_survive_a_large_mean() {
    let shape = Conv2dShape { n: 4, ih: 40, iw: 40, ic: 1, oc: 17, kh: 1, kw: 1, pads: [0; 4], ..BASE };
    let (x, w) = (noise(shape.x_len(), 1), noise(shape.w_len(), 2));
    let bias = vec![1000.0; 17];
    for isa in available_isas() {
        let (y, stats) = forward(&shape, isa, 2, &x, &w, Epilogue { bias: Some(&bias), ..Epilogue::default() });
        check_stats(&y, &stats, 17, isa.name());
    }
}

#[test]
fn no_images_is_no_work() {
    let shape = Conv2dShape { n: 0, ..BASE };
    let (y, stats) = forward(&shape, isa_best(), 2, &[], &noise(shape.w_len(), 1), Epilogue::default());
    assert!(y.is_empty() && stats.iter().all(|&s| s == 0.0));
    assert!(input_grad(&shape, isa_best(), 2, &[], &noise(shape.w_len(), 1)).is_empty());
}

fn isa_best() -> Isa {
    available_isas()[0]
}

#[test]
fn names_follow_the_grammar() {
    let plan = ForwardPlan::new(Conv2dShape { ic: 64, oc: 64, ih: 56, iw: 56, ..BASE }, Isa::Avx512, Algorithms::Exact);
    assert_eq!(plan.kernel_name(), "conv2d_f32_6x64_avx512");
    let plan = InputGradPlan::new(Conv2dShape { ic: 64, oc: 64, ih: 56, iw: 56, ..BASE }, Isa::Avx2, Algorithms::Exact);
    assert_eq!(plan.kernel_name(), "conv2d_input_grad_f32_6x16_avx2");
    let depthwise = Conv2dShape { ic: 64, oc: 64, groups: 64, ih: 56, iw: 56, ..BASE };
    assert_eq!(
        ForwardPlan::new(depthwise, Isa::Avx512, Algorithms::Exact).kernel_name(),
        "conv2d_depthwise_f32_8x16_avx512"
    );
    let grouped = Conv2dShape { groups: 16, ..depthwise };
    assert_eq!(
        InputGradPlan::new(grouped, Isa::Avx2, Algorithms::Exact).kernel_name(),
        "conv2d_grouped_input_grad_f32_4x8_avx2"
    );
}

#[test]
fn more_rows_than_any_tap_reaches() {
    check_shape(&Conv2dShape {
        n: 1,
        ih: 13,
        iw: 24,
        ic: 1,
        oc: 1,
        kh: 7,
        kw: 1,
        stride: [2, 1],
        pads: [0; 4],
        dilation: [2, 1],
        groups: 1,
    });
}

/// Input and output as some channels of larger arrays: the same bits, and nothing else is touched.
#[test]
fn parts_of_larger_arrays() {
    let shapes = [
        Conv2dShape { n: 2, ic: 20, oc: 40, ..BASE },
        Conv2dShape { n: 2, ic: 64, oc: 64, ih: 14, iw: 14, ..BASE },
        Conv2dShape { n: 2, ic: 48, oc: 35, kh: 1, kw: 1, pads: [0; 4], ..BASE },
        Conv2dShape { n: 2, ic: 48, oc: 35, kh: 1, kw: 1, pads: [0; 4], stride: [2, 2], ..BASE },
        Conv2dShape { n: 2, ic: 24, oc: 24, groups: 24, ..BASE },
        Conv2dShape { n: 2, ic: 24, oc: 24, groups: 3, ..BASE },
        Conv2dShape { n: 2, ic: 8, oc: 8, groups: 2, ..BASE },
        Conv2dShape { n: 2, ic: 24, oc: 24, groups: 24, dilation: [1, 2], ..BASE },
    ];
    for (shape, isa) in shapes.iter().flat_map(|shape| available_isas().into_iter().map(move |isa| (shape, isa))) {
        for algorithms in [Algorithms::Fast, Algorithms::Exact] {
            let (x, w, bias) = (noise(shape.x_len(), 1), noise(shape.w_len(), 2), noise(shape.oc, 3));
            let epilogue = Epilogue { bias: Some(&bias), activation: Activation::Silu, residual: None };
            let dense = run_forward(&ForwardPlan::new(*shape, isa, algorithms), 2, &x, &w, epilogue).0;
            let pitches = [shape.ic + 5, shape.oc + 3];
            let plan = ForwardPlan::pitched(*shape, isa, algorithms, pitches);
            let team = Team::new(2);
            let mut packed = vec![f32::NAN; plan.packed_len()];
            plan.pack(&team, &w, &mut packed);
            let mut wide_x = vec![f32::NAN; x.len() / shape.ic * pitches[0]];
            x.chunks(shape.ic)
                .zip(wide_x.chunks_mut(pitches[0]))
                .for_each(|(x, wide)| wide[2..][..x.len()].copy_from_slice(x));
            let mut wide_y = vec![7.0; dense.len() / shape.oc * pitches[1]];
            let mut scratch = vec![f32::NAN; plan.scratch_len(2)];
            let (x_end, y_end) = (wide_x.len() - 3, wide_y.len() - 2);
            let (x, y) = (&wide_x[2..x_end], &mut wide_y[1..y_end]);
            plan.run(&team, ForwardArgs { x, packed: &packed, epilogue, stats: None, y, scratch: &mut scratch });
            for (pixel, (wide, dense)) in wide_y.chunks(pitches[1]).zip(dense.chunks(shape.oc)).enumerate() {
                assert!(wide[1..][..shape.oc] == *dense, "{isa} {algorithms:?} {shape:?}: pixel {pixel}");
                assert!(
                    [wide[0], wide[shape.oc + 1], wide[shape.oc + 2]] == [7.0; 3],
                    "{isa} {shape:?}: beside {pixel}"
                );
            }
        }
    }
}
