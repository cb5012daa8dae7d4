use super::*;
use crate::reference::{nchw_to_nhwc, nhwc_to_nchw, reference_conv2d_weight_grad};
use crate::simd::available_isas;
use proptest::prelude::*;

/// Values in -1..1 that do not repeat soon.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn run(shape: &Conv2dShape, isa: Isa, threads: usize, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let plan = WeightGradPlan::new(*shape, isa, Algorithms::Exact);
    // Whatever is in there must not matter.
    let mut scratch = vec![f32::NAN; plan.scratch_len(threads)];
    let mut dw = vec![f32::NAN; shape.w_len()];
    plan.run(&Team::new(threads), x, dy, &mut dw, &mut scratch);
    dw
}

/// The gradient in f64, from NHWC data.
fn oracle(s: &Conv2dShape, x: &[f32], dy: &[f32]) -> Vec<f64> {
    let wide = |v: &[f32], dims| nhwc_to_nchw(v, dims).into_iter().map(f64::from).collect::<Vec<_>>();
    let x = wide(x, [s.n, s.ic, s.ih, s.iw]);
    let dy = wide(dy, [s.n, s.oc, s.oh(), s.ow()]);
    let mut dw = vec![0.0; s.w_len()];
    reference_conv2d_weight_grad(s, &x, &dy, &mut dw);
    dw
}

fn check(shape: &Conv2dShape, threads: &[usize]) {
    let (x, dy) = (noise(shape.x_len(), 1), noise(shape.y_len(), 2));
    let want = oracle(shape, &x, &dy);
    let pixels = (shape.n * shape.oh() * shape.ow()) as f64;
    for isa in available_isas() {
        let first = run(shape, isa, threads[0], &x, &dy);
        for (i, (&got, want)) in first.iter().zip(&want).enumerate() {
            // The rms of a sum is a third of the root of its length; its error grows like that root times the chain's.
            let bound = 2e-7 * pixels.sqrt() * pixels.min(4096.0).sqrt().max(8.0);
            assert!((f64::from(got) - want).abs() <= bound, "{isa} {shape:?} [{i}]: {got}, not {want}");
        }
        for &threads in &threads[1..] {
            let other = run(shape, isa, threads, &x, &dy);
            let same = first.iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{isa} {shape:?}: other bits with {threads} threads");
        }
    }
}

const BASE: Conv2dShape = Conv2dShape {
    n: 1,
    ih: 8,
    iw: 8,
    ic: 16,
    oc: 16,
    kh: 3,
    kw: 3,
    stride: [1, 1],
    pads: [1; 4],
    dilation: [1, 1],
    groups: 1,
};

#[test]
fn shapes_of_real_nets() {
    let shapes = [
        BASE,
        // Stems: filter columns folded, filter rows with dilation.
        Conv2dShape { n: 2, ih: 37, iw: 41, ic: 3, oc: 64, kh: 7, kw: 7, stride: [2, 2], pads: [3; 4], ..BASE },
        Conv2dShape { n: 3, ih: 32, iw: 32, ic: 3, oc: 20, ..BASE },
        Conv2dShape { n: 4, ih: 28, iw: 28, ic: 1, oc: 32, ..BASE },
        Conv2dShape { n: 1, ih: 20, iw: 20, ic: 2, oc: 33, dilation: [2, 3], pads: [0, 4, 1, 2], ..BASE },
        // Last stages: many images, few pixels.
        Conv2dShape { n: 8, ih: 7, iw: 7, ic: 130, oc: 100, ..BASE },
        Conv2dShape { n: 70, ih: 2, iw: 2, ic: 24, oc: 40, ..BASE },
        Conv2dShape { n: 70, ih: 1, iw: 1, ic: 24, oc: 40, ..BASE },
        // Pointwise, with stride, as Linear, with padding.
        Conv2dShape { n: 2, ih: 14, iw: 14, ic: 72, oc: 96, kh: 1, kw: 1, pads: [0; 4], ..BASE },
        Conv2dShape { n: 2, ih: 15, iw: 14, ic: 40, oc: 70, kh: 1, kw: 1, pads: [0; 4], stride: [2, 2], ..BASE },
        Conv2dShape { n: 1, ih: 1, iw: 129, ic: 100, oc: 10, kh: 1, kw: 1, pads: [0; 4], ..BASE },
        Conv2dShape { n: 2, ih: 9, iw: 6, ic: 20, oc: 17, kh: 1, kw: 1, pads: [1, 2, 0, 3], stride: [2, 3], ..BASE },
        // Groups, of all sizes.
        Conv2dShape { ic: 32, oc: 64, groups: 2, ..BASE },
        Conv2dShape { n: 2, ic: 128, oc: 128, groups: 32, ..BASE },
        Conv2dShape { n: 2, ic: 12, oc: 36, groups: 12, stride: [2, 1], ..BASE },
        Conv2dShape { n: 2, ic: 40, oc: 10, groups: 10, ..BASE },
        Conv2dShape { n: 2, ic: 35, oc: 35, groups: 35, kh: 7, kw: 7, pads: [3; 4], stride: [1, 2], ..BASE },
        Conv2dShape { n: 9, ih: 56, iw: 30, ic: 19, oc: 19, groups: 19, kh: 5, kw: 5, pads: [2, 4, 2, 0], ..BASE },
        Conv2dShape { n: 3, ih: 1, iw: 1, ic: 16, oc: 16, groups: 16, ..BASE },
        // Filters of one element: as many vectors as pass together and a rest, two outputs an input, steps; and with padding.
        Conv2dShape { n: 2, ic: 140, oc: 140, groups: 140, kh: 1, kw: 1, pads: [0; 4], ..BASE },
        Conv2dShape { n: 3, ic: 75, oc: 150, groups: 75, kh: 1, kw: 1, pads: [0; 4], stride: [2, 3], ..BASE },
        Conv2dShape { n: 1, ih: 2, iw: 9000, ic: 5, oc: 5, groups: 5, kh: 1, kw: 1, pads: [0; 4], ..BASE },
        Conv2dShape { n: 2, ic: 20, oc: 20, groups: 20, kh: 1, kw: 1, pads: [1, 0, 2, 1], ..BASE },
        // Small groups of many taps, in more passes than one.
        Conv2dShape {
            n: 3,
            ih: 13,
            iw: 15,
            ic: 32,
            oc: 32,
            groups: 4,
            kh: 5,
            kw: 5,
            pads: [2; 4],
            stride: [2, 2],
            ..BASE
        },
        Conv2dShape { n: 1, ih: 2, iw: 9000, ic: 4, oc: 4, groups: 4, dilation: [1, 5], ..BASE },
        Conv2dShape { n: 2, ih: 3, iw: 3, ic: 4, oc: 4, groups: 4, dilation: [4, 4], pads: [4; 4], ..BASE },
    ];
    for shape in shapes {
        check(&shape, &[1, 2, 3]);
    }
}

/// More than one chunk, more chunks than slots, one line longer than a chunk.
#[test]
fn long_sums_join_by_the_tree() {
    check(&Conv2dShape { n: 3, ih: 56, iw: 56, ic: 9, oc: 18, ..BASE }, &[1, 2, 3]);
    check(&Conv2dShape { n: 1, ih: 3, iw: 9000, ic: 9, oc: 5, pads: [0, 2, 1, 0], ..BASE }, &[1, 3]);
    check(&Conv2dShape { n: 37, ih: 64, iw: 64, ic: 4, oc: 3, kh: 1, kw: 1, pads: [0; 4], ..BASE }, &[1, 2, 5]);
    check(&Conv2dShape { n: 70, ih: 60, iw: 60, ic: 8, oc: 3, kh: 1, kw: 2, pads: [0; 4], ..BASE }, &[1, 2]);
}

#[test]
fn no_image_no_gradient() {
    let shape = Conv2dShape { n: 0, ..BASE };
    assert!(run(&shape, Isa::Portable, 2, &[], &[]).iter().all(|&v| v == 0.0));
}

/// Padding adds nothing, not even zero times infinity.
#[test]
fn padding_contributes_nothing() {
    for isa in available_isas() {
        let x = vec![1.0; BASE.x_len()];
        let mut dy = nchw_to_nhwc(&vec![1.0; BASE.y_len()], [1, 16, 8, 8]);
        dy[0] = f32::INFINITY;
        let dw = run(&BASE, isa, 1, &x, &dy);
        // The tap up and left of the first pixel sees only padding there.
        assert_eq!((dw[0], dw[4]), (49.0, f32::INFINITY), "{isa}");
    }
}

fn any_shape() -> impl Strategy<Value = Conv2dShape> {
    let sizes = (1..4usize, 1..14usize, 1..14usize, 1..4usize, 1..5usize);
    let channels = (1..24usize, 1..40usize, prop_oneof![1..4usize, 7..20usize]);
    let steps = (1..4usize, 1..4usize, 1..3usize, 1..3usize);
    let pads = (0..4usize, 0..4usize, 0..4usize, 0..4usize);
    (sizes, channels, steps, pads).prop_map(
        |((n, ih, iw, kh, kw), (ic, oc, groups), (sh, sw, dh, dw), (t, l, b, r))| Conv2dShape {
            n,
            ih: ih + dh * (kh - 1),
            iw: iw + dw * (kw - 1),
            ic: ic * groups,
            oc: oc * groups,
            kh,
            kw,
            stride: [sh, sw],
            pads: [t, l, b, r],
            dilation: [dh, dw],
            groups,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn any_shape_agrees_with_the_scalar_twin(shape in any_shape()) {
        check(&shape, &[1, 2, 3]);
    }
}
