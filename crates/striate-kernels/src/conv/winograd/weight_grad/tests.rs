//! The adjoint against the exact sums, and its errors against those of outer products of pixels.

use super::*;
use crate::conv::tests::{BASE, noise};
use crate::conv::{Algorithms, WeightGradPlan};
use crate::reference::{nhwc_to_nchw, reference_conv2d_weight_grad};
use crate::simd::available_isas;
use proptest::prelude::*;

fn run(plan: &WeightGradPlan, threads: usize, x: &[f32], dy: &[f32]) -> Vec<f32> {
    // Whatever is in there must not matter.
    let mut scratch = vec![f32::NAN; plan.scratch_len(threads)];
    let mut dw = vec![f32::NAN; plan.shape().w_len()];
    plan.run(&Team::new(threads), x, dy, &mut dw, &mut scratch);
    dw
}

fn exact(s: &Conv2dShape, x: &[f32], dy: &[f32]) -> Vec<f64> {
    let wide = |v: &[f32], dims| nhwc_to_nchw(v, dims).into_iter().map(f64::from).collect::<Vec<_>>();
    let x = wide(x, [s.n, s.ic, s.ih, s.iw]);
    let dy = wide(dy, [s.n, s.oc, s.oh(), s.ow()]);
    let mut dw = vec![0.0; s.w_len()];
    reference_conv2d_weight_grad(s, &x, &dy, &mut dw);
    dw
}

/// Root mean square of the errors.
fn error(got: &[f32], want: &[f64]) -> f64 {
    let squares = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).powi(2));
    (squares.sum::<f64>() / want.len() as f64).sqrt()
}

fn winograd(shape: &Conv2dShape, isa: Isa) -> WeightGradPlan {
    WeightGradPlan::with_winograd(*shape, isa, WinogradWeightGrad::new(*shape, isa))
}

fn check(shape: &Conv2dShape) {
    let (x, dy) = (noise(shape.x_len(), 1), noise(shape.y_len(), 2));
    let want = exact(shape, &x, &dy);
    let rms = (want.iter().map(|w| w * w).sum::<f64>() / want.len() as f64).sqrt();
    for isa in available_isas() {
        let plan = winograd(shape, isa);
        let dw = run(&plan, 1, &x, &dy);
        for (i, (got, want)) in dw.iter().zip(&want).enumerate() {
            let off = (f64::from(*got) - want).abs() / rms;
            assert!(off <= 5e-5, "{isa} {shape:?} [{i}]: {got}, not {want}");
        }
        for threads in [2, 3, 5] {
            assert!(run(&plan, threads, &x, &dy) == dw, "{isa} {shape:?}: other bits with {threads} threads");
        }
    }
}

#[test]
fn shapes_of_all_kinds() {
    let shapes = [
        BASE,
        // Rests of vectors, of blocks and of tiles.
        Conv2dShape { n: 2, ih: 13, iw: 10, ic: 5, oc: 19, ..BASE },
        Conv2dShape { n: 3, ih: 6, iw: 7, ic: 83, oc: 70, ..BASE },
        Conv2dShape { n: 9, ih: 4, iw: 4, ic: 130, oc: 24, ..BASE },
        // One pixel, no padding, one-sided and wide padding.
        Conv2dShape { n: 5, ih: 1, iw: 1, ..BASE },
        Conv2dShape { n: 2, pads: [0; 4], ..BASE },
        Conv2dShape { n: 2, pads: [2, 0, 1, 2], ic: 17, ..BASE },
        // Several strips, of which the tree has more than one level.
        Conv2dShape { n: 7, ih: 60, iw: 60, ic: 4, oc: 3, ..BASE },
        Conv2dShape { n: 6, ih: 30, iw: 29, ic: 300, oc: 20, ..BASE },
    ];
    shapes.iter().for_each(check);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_shapes(
        (n, ih, iw) in (1usize..4, 3usize..20, 3usize..20),
        (ic, oc) in (1usize..90, 1usize..90),
        pads in [0usize..3, 0usize..3, 0usize..3, 0usize..3],
    ) {
        check(&Conv2dShape { n, ih, iw, ic, oc, pads, ..BASE });
    }
}

/// The contract's limit, at the fewest pixels for which it is chosen, at many, and in between.
#[test]
fn errors_are_at_most_four_times_those_of_plain_sums() {
    for (n, side) in [(24, 4), (6, 8), (8, 7), (2, 14), (4, 16), (2, 32), (3, 56)] {
        let shape = Conv2dShape { n, ih: side, iw: side, ic: 32, oc: 32, ..BASE };
        assert!(suits(&shape), "{shape:?}");
        // After a ReLU, as most inputs are.
        let x: Vec<f32> = noise(shape.x_len(), 3).into_iter().map(|v| v.max(0.0)).collect();
        let dy = noise(shape.y_len(), 4);
        let want = exact(&shape, &x, &dy);
        for isa in available_isas() {
            let plain = error(&run(&WeightGradPlan::new(shape, isa, Algorithms::Exact), 2, &x, &dy), &want);
            let fast = error(&run(&winograd(&shape, isa), 2, &x, &dy), &want);
            assert!(fast <= 4.0 * plain, "{isa} {shape:?}: {fast:e}, a plain sum {plain:e}");
        }
    }
}

#[test]
fn chosen_by_geometry_and_number_of_pixels() {
    let few = Conv2dShape { ih: 6, iw: 6, n: 3, ..BASE };
    assert!(!suits(&few), "too few pixels for its rounding errors");
    for other in [
        Conv2dShape { stride: [2, 2], n: 64, ..BASE },
        Conv2dShape { dilation: [2, 2], n: 64, ..BASE },
        Conv2dShape { groups: 2, n: 64, ..BASE },
        Conv2dShape { kw: 1, n: 64, ..BASE },
    ] {
        assert!(!suits(&other), "{other:?}");
    }
    let name = |algorithms| {
        let shape = Conv2dShape { n: 8, ih: 56, iw: 56, ic: 64, oc: 64, ..BASE };
        WeightGradPlan::new(shape, Isa::Avx512, algorithms).kernel_name()
    };
    assert_eq!(name(Algorithms::Fast), "conv2d_winograd4x4_weight_grad_f32_8x32_avx512");
    assert_eq!(name(Algorithms::Exact), "conv2d_weight_grad_f32_8x32_avx512");
}
