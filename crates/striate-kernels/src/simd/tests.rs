use super::*;

fn apply(isa: Isa, x: &[f32], which: u8) -> Vec<f32> {
    struct K<'a>(&'a [f32], &'a mut [f32], u8);
    impl Kernel for K<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let f = |v| match self.2 {
                0 => math::exp(s, v),
                1 => math::expm1(s, v),
                2 => math::log(s, v),
                3 => math::sigmoid(s, v),
                4 => math::tanh(s, v),
                _ => math::erf(s, v),
            };
            map_chunks(s, self.0, self.1, f);
        }
    }
    let mut out = vec![0.0; x.len()];
    isa.dispatch(K(x, &mut out, which));
    out
}

/// erf by its series, in f64.
fn erf64(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

#[test]
fn elementary_functions_agree_with_f64() {
    let xs: Vec<f32> = (-40_000..40_000).map(|i| i as f32 * 0.0011 + 1e-5).collect();
    let positive: Vec<f32> = (1..40_000).map(|i| (i as f32 * 0.003).powi(3)).collect();
    type Case<'a> = (u8, &'a [f32], fn(f64) -> f64, f64);
    let cases: [Case; 6] = [
        (0, &xs, f64::exp, 2.5e-7),
        (1, &xs, f64::exp_m1, 4e-7),
        (2, &positive, f64::ln, 2.5e-7),
        (3, &xs, |x| 1.0 / (1.0 + (-x).exp()), 4e-7),
        (4, &xs, f64::tanh, 6e-7),
        (5, &xs, erf64, 4e-7),
    ];
    for isa in available_isas() {
        for (which, input, exact, bound) in cases {
            for (x, y) in input.iter().zip(apply(isa, input, which)) {
                let want = exact(*x as f64);
                let error = (y as f64 - want).abs() / want.abs().max(1e-30);
                assert!(error <= bound, "{isa} function {which} at {x}: {y}, exact {want}, relative error {error:e}");
            }
        }
    }
}

#[test]
fn special_values() {
    let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, 200.0, -200.0, -1.0];
    for isa in available_isas() {
        let exp = apply(isa, &x, 0);
        assert!(exp[0].is_nan() && exp[1] == f32::INFINITY && exp[2] == 0.0 && exp[3] == 1.0, "{isa} {exp:?}");
        assert!(exp[4] == f32::INFINITY && exp[5] == 0.0, "{isa} {exp:?}");
        let log = apply(isa, &x, 2);
        assert!(
            log[0].is_nan() && log[1] == f32::INFINITY && log[3] == f32::NEG_INFINITY && log[6].is_nan(),
            "{log:?}"
        );
        let sigmoid = apply(isa, &x, 3);
        assert!(sigmoid[0].is_nan() && sigmoid[1] == 1.0 && sigmoid[2] == 0.0 && sigmoid[3] == 0.5, "{sigmoid:?}");
        for which in [4, 5] {
            let y = apply(isa, &x, which);
            assert!(y[0].is_nan() && y[1] == 1.0 && y[2] == -1.0 && y[3] == 0.0, "{isa} {which} {y:?}");
        }
    }
}

struct Basics;
impl Kernel for Basics {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let n = S::LANES;
        let a: Vec<f32> = (0..n).map(|i| i as f32 - 2.5).collect();
        let mut out = vec![9.0f32; n];
        // SAFETY: both buffers have LANES floats.
        unsafe {
            let v = s.load(a.as_ptr());
            assert_eq!(s.reduce_max(v), n as f32 - 3.5);
            assert_eq!(s.reduce_min(v), -2.5);
            assert_eq!(s.reduce_add(v), a.iter().sum::<f32>());
            for k in 0..=n + 1 {
                out.fill(9.0);
                s.store_partial(out.as_mut_ptr(), k, s.add(s.load_partial(a.as_ptr(), k), s.splat(1.0)));
                for i in 0..n {
                    assert_eq!(out[i], if i < k { a[i] + 1.0 } else { 9.0 });
                }
            }
            s.store(out.as_mut_ptr(), s.round(v));
            assert!((0..n).all(|i| out[i] == a[i].round_ties_even()));
            s.store(out.as_mut_ptr(), s.floor(v));
            assert!((0..n).all(|i| out[i] == a[i].floor()));
            s.store(out.as_mut_ptr(), s.copysign(s.splat(2.0), v));
            assert!((0..n).all(|i| out[i] == 2f32.copysign(a[i])));
            s.store(out.as_mut_ptr(), s.select(s.lt(v, s.zero()), s.abs(v), s.neg(v)));
            assert!((0..n).all(|i| out[i] == if a[i] < 0.0 { a[i].abs() } else { -a[i] }));
            s.store(out.as_mut_ptr(), s.neg_mul_add(v, s.splat(2.0), s.splat(1.0)));
            assert!((0..n).all(|i| out[i] == 1.0 - 2.0 * a[i]));
            for e in [-300.0f32, -140.0, -126.0, 0.0, 5.0, 127.0, 128.0, 300.0] {
                s.store(out.as_mut_ptr(), s.scale_by_exp2(s.splat(1.5), s.splat(e)));
                assert_eq!(out[0], (1.5f64 * (e as f64).exp2()) as f32, "2^{e}");
            }
        }
        assert!(s.all(s.le(s.max(s.zero(), s.splat(-1.0)), s.zero())));
        assert!(!s.all(s.eq(s.max(s.zero(), s.splat(f32::NAN)), s.zero())), "max keeps a NaN of its second operand");
    }
}

#[test]
fn basic_operations() {
    for isa in available_isas() {
        isa.dispatch(Basics);
    }
}

#[test]
fn names_are_distinct_and_portable_is_always_there() {
    assert!(available_isas().contains(&Isa::Portable));
    assert!(available_isas().contains(&isa()));
    assert_eq!(Isa::Avx512.to_string(), "avx512");
    assert!(IsaError::Unknown("sse9".into()).to_string().contains("sse9"));
}
