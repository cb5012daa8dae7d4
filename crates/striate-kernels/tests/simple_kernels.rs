//! The simple kernels against their scalar twins, on every instruction set, with the same bits for any number of threads.

mod common;

use common::{check, noise, on_all, wide};
use striate_kernels::conv::Activation;
use striate_kernels::elementwise::{BinaryShape, binary, unary, unary_grad};
use striate_kernels::kinds::*;
use striate_kernels::norm::{ApplyArgs, Behind, NormGrad, apply, grad_sums, input_grad, moments, norm_scratch_len};
use striate_kernels::optim::{UpdateArgs, update};
use striate_kernels::pool::MaxPoolPlan;
use striate_kernels::reduce::{ReduceShape, reduce};
use striate_kernels::reference::*;
use striate_kernels::relayout::{Strided, copy_strided, transpose};
use striate_kernels::simd::Isa;
use striate_kernels::threads::Team;

const SIZES: [usize; 6] = [0, 1, 15, 33, 1000, 40_001];

#[test]
fn unary_functions_and_their_gradients() {
    use UnaryKind::*;
    let kinds = [
        Neg,
        Abs,
        Square,
        Exp,
        Relu,
        Sigmoid,
        Tanh,
        Silu,
        Gelu,
        Mish,
        Hardswish,
        Clip { min: -0.5, max: 0.7 },
        LeakyRelu { slope: 0.1 },
        Affine { scale: -1.5, shift: 0.25 },
    ];
    for kind in kinds {
        for n in SIZES {
            let (x, dy) = (noise(n, 1), noise(n, 2));
            let got = on_all(|team, isa| {
                let mut y = vec![0.0; n];
                unary(team, isa, kind, &x, &mut y);
                y
            });
            let want: Vec<f64> = x.iter().map(|&x| reference_unary(kind, f64::from(x))).collect();
            check(&format!("{kind:?}"), &got, &want, 5e-7);
            let got = on_all(|team, isa| {
                let mut dx = vec![0.0; n];
                unary_grad(team, isa, kind, (&x, &dy), &mut dx);
                dx
            });
            let grad = |(x, dy): (&f32, &f32)| reference_unary_grad(kind, f64::from(*x), f64::from(*dy));
            check(&format!("gradient of {kind:?}"), &got, &x.iter().zip(&dy).map(grad).collect::<Vec<_>>(), 2e-6);
        }
    }
}

#[test]
fn broadcast_functions_of_two() {
    use BinaryKind::*;
    let shapes: [(&[usize], &[usize], &[usize]); 7] = [
        (&[1000], &[1], &[1]),
        (&[7, 33], &[33, 1], &[0, 1]),
        (&[7, 33], &[33, 1], &[1, 0]),
        (&[2, 5, 6, 19], &[570, 114, 19, 1], &[0, 0, 0, 1]),
        (&[2, 5, 6, 19], &[570, 114, 19, 1], &[19, 0, 0, 1]),
        (&[3, 4], &[0, 0], &[4, 1]),
        (&[3, 4], &[1, 3], &[4, 1]),
    ];
    for (dims, a_strides, b_strides) in shapes {
        let shape = BinaryShape::new(dims, a_strides, b_strides);
        let (a, b) = (noise(1140, 3), noise(1140, 4));
        for kind in [Add, Sub, Mul, Div, Max, Min] {
            let n: usize = dims.iter().product();
            let got = on_all(|team, isa| {
                let mut y = vec![0.0; n];
                binary(team, isa, kind, &shape, (&a, &b), &mut y);
                y
            });
            let at = |mut i: usize, strides: &[usize]| {
                let mut offset = 0;
                for axis in (0..dims.len()).rev() {
                    offset += i % dims[axis] * strides[axis];
                    i /= dims[axis];
                }
                offset
            };
            let want: Vec<f64> = (0..n)
                .map(|i| f64::from(reference_binary_element(kind, a[at(i, a_strides)], b[at(i, b_strides)])))
                .collect();
            check(&format!("{kind:?} {dims:?}"), &got, &want, 0.0);
        }
    }
}

#[test]
fn batch_norm_forward_and_backward() {
    for (pixels, c) in [(5, 3), (7, 16), (300, 17), (1000, 64), (5000, 5)] {
        let n = pixels * c;
        // A mean far from 0, so that cancellation shows.
        let x: Vec<f32> = noise(n, 1).iter().map(|v| v + 20.0).collect();
        let (dy, residual) = (noise(n, 2), noise(n, 3));
        let (gamma, beta, eps) = (noise(c, 4), noise(c, 5), 1e-5f32);
        let stats = on_all(|team, isa| {
            let (mut out, mut scratch) = (vec![0.0; 2 * c], vec![f32::NAN; norm_scratch_len(pixels, c)]);
            moments(team, isa, &x, &mut out, &mut scratch);
            out
        });
        let (mut mean, mut var) = (vec![0.0; c], vec![0.0; c]);
        reference_moments(&[pixels, c], &wide(&x), &mut mean, &mut var);
        check("mean", &stats.iter().map(|(i, s)| (*i, s[..c].to_vec())).collect::<Vec<_>>(), &mean, 1e-7);
        check("variance", &stats.iter().map(|(i, s)| (*i, s[c..].to_vec())).collect::<Vec<_>>(), &var, 2e-6);
        let stats = &stats[0].1;
        let (mean, var) = (wide(&stats[..c]), wide(&stats[c..]));
        let (gamma64, beta64) = (wide(&gamma), wide(&beta));
        let params = |weight, bias| NormParams { mean: &mean[..], var: &var[..], weight, bias, eps: f64::from(eps) };
        let mut want = vec![0.0; n];
        reference_batch_norm(&[pixels, c], &wide(&x), params(Some(&gamma64[..]), Some(&beta64[..])), &mut want);
        want.iter_mut().zip(&residual).for_each(|(w, r)| *w = (*w + f64::from(*r)).max(0.0));
        let got = on_all(|team, isa| {
            let (mut y, mut scratch) = (vec![0.0; n], vec![0.0; c]);
            let args = ApplyArgs {
                x: &x,
                gamma: &gamma,
                beta: &beta,
                mean: &stats[..c],
                variance: &stats[c..],
                eps,
                residual: Some(&residual),
                activation: Activation::Relu,
            };
            apply(team, isa, args, &mut y, &mut scratch);
            y
        });
        check("apply", &got, &want, 2e-6);
        // Computed again, the norm's own output comes from the operations that `apply` makes.
        let mut own = vec![0.0; n];
        let args = ApplyArgs {
            x: &x,
            gamma: &gamma,
            beta: &beta,
            mean: &stats[..c],
            variance: &stats[c..],
            eps,
            residual: None,
            activation: Activation::None,
        };
        apply(&Team::new(1), Isa::Portable, args, &mut own, &mut vec![0.0; c]);
        let (again, clip) = ([&gamma[..], &beta[..]], UnaryKind::Clip { min: 0.0, max: 0.75 });
        let activations = [
            (Behind::None, None),
            (Behind::Output(&residual, [0.0, 0.75]), Some((&residual, clip))),
            (Behind::Again(again, clip), Some((&own, clip))),
            (Behind::Again(again, UnaryKind::Relu), Some((&own, UnaryKind::Relu))),
            (Behind::Again(again, UnaryKind::Silu), Some((&own, UnaryKind::Silu))),
            (Behind::Again(again, UnaryKind::Hardswish), Some((&own, UnaryKind::Hardswish))),
        ];
        for (behind, activation) in activations {
            let passed = |i: usize| match activation {
                Some((at, kind)) => reference_unary_grad(kind, f64::from(at[i]), f64::from(dy[i])),
                None => f64::from(dy[i]),
            };
            let masked_dy: Vec<f64> = (0..n).map(passed).collect();
            let grad = NormGrad { x: &x, dy: &dy, behind, moments: stats, eps };
            let mut sums = vec![0.0; 2 * c];
            reference_batch_norm_sums(&[pixels, c], &wide(&x), &masked_dy, params(None, None), &mut sums);
            let got = on_all(|team, isa| {
                let (mut out, mut scratch) = (vec![0.0; 2 * c], vec![f32::NAN; norm_scratch_len(pixels, c)]);
                grad_sums(team, isa, grad, &mut out, &mut scratch);
                out
            });
            check("sums", &got, &sums, 5e-6);
            let sums32: Vec<f32> = sums.iter().map(|&s| s as f32).collect();
            let mut want = vec![0.0; n];
            let x64 = wide(&x);
            let gammas = params(Some(&gamma64[..]), None);
            reference_batch_norm_dx(&[pixels, c], (&x64, &masked_dy), gammas, &sums, &mut want);
            let got = on_all(|team, isa| {
                let (mut dx, mut scratch) = (vec![0.0; n], vec![0.0; 3 * c]);
                input_grad(team, isa, grad, (&gamma, &sums32), &mut dx, &mut scratch);
                dx
            });
            check("dx", &got, &want, 5e-6);
        }
    }
}

#[test]
fn max_pool_and_its_gradient() {
    let sliding =
        |kernel, stride, pads, dilation, ceil_mode| Windows::Sliding { kernel, stride, pads, dilation, ceil_mode };
    let windows = [
        sliding([2, 2], [2, 2], [0; 4], [1, 1], false),
        sliding([3, 3], [2, 2], [1; 4], [1, 1], true),
        sliding([3, 2], [1, 3], [1, 0, 0, 1], [2, 1], false),
        Windows::Adaptive { out: [3, 2] },
    ];
    // An odd side leaves a row that no window of 2x2 reaches; even sides are tiled.
    for (windows, h) in windows.into_iter().flat_map(|windows| [(windows, 9), (windows, 8)]) {
        for c in [1, 16, 21] {
            let (n, w) = (3, 8);
            let shape = PoolShape::new(n * c, [h, w], windows).unwrap();
            let [oh, ow] = shape.output;
            // Whole numbers, so that there are ties.
            let x: Vec<f32> = noise(n * c * h * w, 1).iter().map(|v| (v * 3.0).round()).collect();
            let dy = noise(n * c * oh * ow, 2);
            let (x64, dy64) = (wide(&nhwc_to_nchw(&x, [n, c, h, w])), wide(&nhwc_to_nchw(&dy, [n, c, oh, ow])));
            let (mut y, mut at, mut dx) = (vec![0.0; dy.len()], vec![0; dy.len()], vec![0.0; x.len()]);
            reference_max_pool(shape, &x64, &mut y, Some(&mut at));
            reference_max_pool_grad(shape, &at, &dy64, &mut dx);
            let plan = MaxPoolPlan::new(n, c, &shape);
            let got = on_all(|team, isa| {
                let mut y = vec![0.0; dy.len()];
                plan.forward(team, isa, &x, &mut y);
                y
            });
            check("max pool", &got, &nchw_to_nhwc(&y, [n, c, oh, ow]), 0.0);
            let got = on_all(|team, isa| {
                let mut dx = vec![f32::NAN; x.len()];
                plan.backward(team, isa, (&x, &dy), &mut dx);
                dx
            });
            check("gradient of max pool", &got, &nchw_to_nhwc(&dx, [n, c, h, w]), 1e-6);
        }
    }
}

#[test]
fn sums() {
    for (outer, len, inner) in [
        (1, 1, 1),
        (3, 700, 1),
        (37, 16, 1),
        (20, 64, 1),
        (18, 65, 1),
        (1, 5000, 17),
        (4, 49, 64),
        (2, 300, 3),
        (1, 100_000, 1),
        (5, 0, 2),
    ] {
        let shape = ReduceShape { outer, len, inner };
        let x = noise(outer * len * inner, 1);
        for kind in [
            ReduceKind::Sum,
            ReduceKind::Mean,
            ReduceKind::SumSquare,
            ReduceKind::L1,
            ReduceKind::L2,
            ReduceKind::Max,
            ReduceKind::Min,
        ] {
            let got = on_all(|team, isa| {
                let (mut y, mut scratch) = (vec![1.0; outer * inner], vec![f32::NAN; shape.scratch_len()]);
                reduce(team, isa, (kind, shape), &x, &mut y, &mut scratch);
                y
            });
            let mut want = vec![0.0; outer * inner];
            reference_reduce(kind, &[outer, len, inner], &wide(&x), &[1], &mut want);
            if len > 0 {
                check(&format!("{kind:?} {shape:?}"), &got, &want, 2e-6);
            }
        }
    }
}

#[test]
fn moves() {
    for dims in [[2, 3, 5], [1, 64, 100], [3, 33, 70], [2, 1, 9], [0, 3, 3]] {
        let x = noise(dims.iter().product(), 1);
        let mut want = vec![0.0; x.len()];
        reference_transpose(&dims, &x, &[0, 2, 1], &mut want);
        let got = on_all(|team, _| {
            let mut y = vec![0.0; x.len()];
            transpose(team, dims, &x, &mut y);
            y
        });
        check("transpose", &got, &wide(&want), 0.0);
    }
    let x = noise(24, 2);
    let (from, to) = (Strided { start: 23, strides: vec![-8, -2] }, Strided { start: 1, strides: vec![5, 1] });
    let mut y = vec![0.0; 16];
    copy_strided(&Team::new(2), &[3, 4], (&x, &from), (&mut y, &to));
    assert_eq!((y[0], y[1], y[2], y[6], y[14]), (0.0, x[23], x[21], x[15], x[23 - 16 - 6]));
}

#[test]
fn updates_of_parameters() {
    let kinds = [
        UpdateKind::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false },
        UpdateKind::Sgd { momentum: 0.9, dampening: 0.1, nesterov: false },
        UpdateKind::Sgd { momentum: 0.9, dampening: 0.0, nesterov: true },
        UpdateKind::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled: false },
        UpdateKind::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled: true },
        UpdateKind::RmsProp { alpha: 0.99, eps: 1e-8, momentum: 0.0, centered: false },
        UpdateKind::RmsProp { alpha: 0.99, eps: 1e-8, momentum: 0.9, centered: true },
        UpdateKind::RmsProp { alpha: 0.99, eps: 1e-8, momentum: 0.0, centered: true },
        UpdateKind::Lion { beta1: 0.9, beta2: 0.99 },
        UpdateKind::Average,
        UpdateKind::Assign,
        UpdateKind::Accumulate,
    ];
    let n = 40_001;
    let (p, grad) = (noise(n, 1), noise(n, 2));
    for kind in kinds {
        // For Adam the last two are bias corrections; for SGD the third says that it is not the first step.
        let hyper =
            if matches!(kind, UpdateKind::Sgd { .. }) { [0.1, 0.01, 0.0, 0.0] } else { [0.1, 0.01, 0.19, 0.002] };
        // Second moments well above the square of the first, so that their centred difference keeps its digits.
        let moment =
            |i: usize| noise(n, 3 + i as u64).iter().map(|v| if i == 0 { v * v + 2.0 } else { v * v * 0.25 }).collect();
        let state: Vec<Vec<f32>> = (0..kind.state_count()).map(moment).collect();
        let got = on_all(|team, isa| {
            let (mut p, mut state) = (p.clone(), state.clone());
            let mut slices: Vec<&mut [f32]> = state.iter_mut().map(|s| &mut s[..]).collect();
            update(team, isa, UpdateArgs { kind, hyper: &hyper, scale: 0.5, grad: &grad }, &mut p, &mut slices);
            p.into_iter().chain(state.into_iter().flatten()).collect()
        });
        let mut want = wide(&p);
        let mut state: Vec<Vec<f64>> = state.iter().map(|s| wide(s)).collect();
        let mut slices: Vec<&mut [f64]> = state.iter_mut().map(|s| &mut s[..]).collect();
        reference_update(kind, &hyper.map(f64::from), 0.5, &mut want, &wide(&grad), &mut slices);
        want.extend(state.into_iter().flatten());
        check(&format!("{kind:?}"), &got, &want, 2e-6);
    }
}
