//! Every elementwise function on every instruction set against double precision, in units in the last place.

use proptest::prelude::*;
use striate_kernels::elementwise::{BinaryShape, binary, unary, unary_grad};
use striate_kernels::kinds::{BinaryKind, UnaryKind};
use striate_kernels::reference::*;
use striate_kernels::simd::{Isa, available_isas};
use striate_kernels::threads::Team;

/// Each kind with the domain that is swept, the error allowed in units in the last place of the true value, and an absolute
/// error that is allowed besides: where a function crosses zero through a difference (GELU and its like), or where only
/// denormals are left.
fn kinds() -> Vec<(UnaryKind, [f32; 2], f64, f64)> {
    use UnaryKind::*;
    let tiny = 1e-37;
    vec![
        (Neg, [-50.0, 50.0], 0.0, 0.0),
        (Abs, [-50.0, 50.0], 0.0, 0.0),
        (Sign, [-3.0, 3.0], 0.0, 0.0),
        (Exp, [-87.0, 88.0], 2.0, tiny),
        (Log, [1e-30, 100.0], 2.0, 0.0),
        (Sqrt, [0.0, 100.0], 0.5, 0.0),
        (Rsqrt, [1e-6, 100.0], 1.5, 0.0),
        (Square, [-50.0, 50.0], 0.5, 0.0),
        (Reciprocal, [0.01, 100.0], 0.5, 0.0),
        (Sin, [-20.0, 20.0], 1.0, 0.0),
        (Cos, [-20.0, 20.0], 1.0, 0.0),
        (Erf, [-5.0, 5.0], 4.0, 0.0),
        (Floor, [-5.0, 5.0], 0.0, 0.0),
        (Ceil, [-5.0, 5.0], 0.0, 0.0),
        (Round, [-5.0, 5.0], 0.0, 0.0),
        (Relu, [-5.0, 5.0], 0.0, 0.0),
        (LeakyRelu { slope: 0.01 }, [-5.0, 5.0], 0.5, 0.0),
        (Elu { alpha: 1.5 }, [-20.0, 5.0], 4.0, 0.0),
        (Selu, [-20.0, 5.0], 4.0, 0.0),
        (Celu { alpha: 2.0 }, [-20.0, 5.0], 4.0, 0.0),
        (Gelu, [-8.0, 8.0], 4.0, 4e-7),
        (GeluTanh, [-8.0, 8.0], 4.0, 4e-7),
        (Silu, [-80.0, 80.0], 4.0, tiny),
        (Mish, [-80.0, 80.0], 4.0, tiny),
        (Hardswish, [-8.0, 8.0], 2.5, 2e-7),
        (Hardsigmoid, [-8.0, 8.0], 2.0, 1e-7),
        (Clip { min: -1.0, max: 6.0 }, [-8.0, 8.0], 0.0, 0.0),
        (Softplus { beta: 1.0, threshold: 20.0 }, [-80.0, 40.0], 4.0, 2.1e-9),
        (Softplus { beta: 2.0, threshold: 10.0 }, [-8.0, 8.0], 4.0, 0.0),
        (Softsign, [-80.0, 80.0], 1.5, 0.0),
        (Sigmoid, [-80.0, 80.0], 4.0, tiny),
        (Tanh, [-12.0, 12.0], 4.0, 0.0),
        (LogSigmoid, [-80.0, 80.0], 4.0, tiny),
        (PowConst { exponent: 3.0 }, [-8.0, 8.0], 1.5, 0.0),
        (PowConst { exponent: 1.7 }, [0.01, 8.0], 1.0, 0.0),
        (PowConst { exponent: -1.0 }, [0.01, 8.0], 0.5, 0.0),
        (Affine { scale: 0.3, shift: 1.0 }, [-8.0, 8.0], 1.0, 1e-7),
        (Not, [-1.0, 1.0], 0.0, 0.0),
    ]
}

fn sweep([low, high]: [f32; 2]) -> Vec<f32> {
    let n = 40_013;
    (0..n).map(|i| low + (high - low) * i as f32 / (n - 1) as f32).collect()
}

/// The distance from `f32` to the next at the magnitude of `x`.
fn ulp(x: f64) -> f64 {
    let x = (x.abs() as f32).max(f32::MIN_POSITIVE);
    f64::from(x) - f64::from(f32::from_bits(x.to_bits() - 1))
}

/// The greatest error in ulps, after the absolute allowance is taken off, and where it is.
fn worst(x: &[f32], got: &[f32], want: impl Fn(f32) -> f64, absolute: f64) -> (f64, f32) {
    let mut worst = (0.0, 0.0);
    for (&x, &g) in x.iter().zip(got) {
        let w = want(x);
        let error = ((f64::from(g) - w).abs() - absolute).max(0.0) / ulp(w);
        if error > worst.0 || error.is_nan() {
            worst = (error, x);
        }
    }
    worst
}

#[test]
fn functions_are_true_to_the_last_places() {
    let team = Team::new(2);
    for (kind, domain, ulps, absolute) in kinds() {
        let x = sweep(domain);
        for isa in available_isas() {
            let mut y = vec![f32::NAN; x.len()];
            unary(&team, isa, kind, &x, &mut y);
            let (error, at) = worst(&x, &y, |x| reference_unary(kind, f64::from(x)), absolute);
            // Without a fused multiply-add one more rounding gets in.
            let allowed = if isa == Isa::Portable && ulps > 1.0 { ulps + 1.5 } else { ulps };
            assert!(error <= allowed + 1e-3, "{kind:?} on {isa}: {error} ulp at {at}");
        }
    }
}

#[test]
fn derivatives_are_true_to_the_last_places() {
    let team = Team::new(2);
    for (kind, domain, _, _) in kinds() {
        let x = sweep(domain);
        let dy = vec![1.0; x.len()];
        for isa in available_isas() {
            let mut dx = vec![f32::NAN; x.len()];
            unary_grad(&team, isa, kind, (&x, &dy), &mut dx);
            let (error, at) = worst(&x, &dx, |x| reference_unary_grad(kind, f64::from(x), 1.0), 4e-7);
            assert!(error <= 8.0, "{kind:?} on {isa}: {error} ulp at {at}");
        }
    }
}

#[test]
fn kinks_and_special_values_as_the_scalar_twin() {
    let team = Team::new(1);
    let x = [0.0f32, -0.0, 3.0, -3.0, 6.0, -1.0, 1.0, 0.5, -0.5, 1.5, 2.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    for (kind, ..) in kinds() {
        for isa in available_isas() {
            let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            unary(&team, isa, kind, &x, &mut y);
            unary_grad(&team, isa, kind, (&x, &vec![1.0; x.len()]), &mut dx);
            for (i, &x) in x.iter().enumerate() {
                let want = reference_unary(kind, x);
                let same =
                    y[i] == want || y[i].is_nan() && want.is_nan() || (y[i] - want).abs() <= 4e-7 + 1e-6 * want.abs();
                assert!(same, "{kind:?} on {isa} of {x}: {}, should be {want}", y[i]);
                let want = reference_unary_grad(kind, x, 1.0);
                if x.is_finite() {
                    let same = dx[i] == want || dx[i].is_nan() && want.is_nan() || (dx[i] - want).abs() <= 1e-6;
                    assert!(same, "derivative of {kind:?} on {isa} at {x}: {}, should be {want}", dx[i]);
                }
            }
        }
    }
}

const BINARY: [BinaryKind; 17] = {
    use BinaryKind::*;
    [Add, Sub, Mul, Div, Pow, Min, Max, Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual, And, Or, Xor, Mod]
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn broadcast_pairs_equal_the_scalar_twin(
        dims in prop::collection::vec((1usize..6, any::<bool>(), any::<bool>()), 1..5),
        kind in 0usize..17,
        seed in any::<u64>(),
        threads in 1usize..4,
    ) {
        let keep = |repeat: bool, d: usize| if repeat { 1 } else { d };
        let to: Vec<usize> = dims.iter().map(|d| d.0).collect();
        let xshape: Vec<usize> = dims.iter().map(|d| keep(d.1, d.0)).collect();
        let yshape: Vec<usize> = dims.iter().map(|d| keep(d.2, d.0)).collect();
        let data = |shape: &[usize], salt: u64| -> Vec<f32> {
            // Whole numbers, so that equals, zeros and (now and then) NaN occur.
            let key = striate_kernels::rng::stream_key(seed ^ salt, "pairs");
            (0..volume(shape) as u64)
                .map(|i| match striate_kernels::rng::below(key, 0, i, 8) {
                    7 => f32::NAN,
                    v => v as f32 - 3.0,
                })
                .collect()
        };
        let (x, y) = (data(&xshape, 1), data(&yshape, 2));
        let n: usize = to.iter().zip(&xshape).zip(&yshape).map(|((_, a), b)| *a.max(b)).product();
        let mut want = vec![0.0; n];
        reference_binary(BINARY[kind], &xshape, &x, &yshape, &y, &mut want);
        let result = broadcast_shapes(&xshape, &yshape).unwrap();
        let strides = |s: &[usize]| -> Vec<usize> { broadcast_strides(s, &result).iter().map(|&v| v as usize).collect() };
        let shape = BinaryShape::new(&result, &strides(&xshape), &strides(&yshape));
        for isa in available_isas() {
            let mut got = vec![0.0; n];
            binary(&Team::new(threads), isa, BINARY[kind], &shape, (&x, &y), &mut got);
            let same = |(a, b): (&f32, &f32)| a == b || a.is_nan() && b.is_nan() || (a - b).abs() < 1e-4 * b.abs();
            prop_assert!(got.iter().zip(&want).all(same), "{:?} on {isa}: {got:?} {want:?}", BINARY[kind]);
        }
    }
}
