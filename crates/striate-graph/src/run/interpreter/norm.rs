//! Normalisations and their statistics.

use super::Call;
use super::convert::floats;
use crate::{Array, Element, Op, Result};
use striate_kernels::reference::{
    Float, NormParams, reference_batch_norm, reference_batch_norm_dx, reference_batch_norm_sums, reference_moments,
    reference_standardize, reference_standardize_grad,
};

pub(super) fn run(call: &Call) -> Result<Array> {
    call.compute(call.dtype, || compute::<f32>(call), || compute::<f64>(call))
}

fn compute<T: Float + Element>(call: &Call) -> Result<Vec<T>> {
    let shape = call.inputs[0].shape();
    let data: Vec<_> = call.inputs.iter().map(|array| floats::<T>(array)).collect();
    let x = &data[0];
    let mut out = vec![T::ZERO; call.node.shape.numel()];
    let split = |moments: &'_ [T]| moments.len() / 2;
    match &call.node.op {
        Op::Moments => {
            let (mean, var) = out.split_at_mut(shape[1]);
            reference_moments(shape, x, mean, var);
        }
        Op::BatchNorm { eps } => {
            let params = params((Some(&data[1]), Some(&data[2])), (&data[3], &data[4]), *eps);
            reference_batch_norm(shape, x, params, &mut out);
        }
        Op::BatchNormTraining { eps } => {
            let moments = data[3].split_at(split(&data[3]));
            reference_batch_norm(shape, x, params((Some(&data[1]), Some(&data[2])), moments, *eps), &mut out);
        }
        Op::BatchNormGradSums { eps } => {
            let moments = data[2].split_at(split(&data[2]));
            reference_batch_norm_sums(shape, x, &data[1], params((None, None), moments, *eps), &mut out);
        }
        Op::BatchNormInputGrad { eps } => {
            let moments = data[3].split_at(split(&data[3]));
            let params = params((Some(&data[2]), None), moments, *eps);
            reference_batch_norm_dx(shape, (x, &data[1]), params, &data[4], &mut out);
        }
        Op::Standardize { eps } => {
            reference_standardize(row(shape), x, f64::from(*eps), &mut out);
        }
        Op::StandardizeGrad { eps } => {
            reference_standardize_grad(row(shape), x, &data[1], f64::from(*eps), &mut out);
        }
        _ => return Err(call.misplaced()),
    }
    Ok(out)
}

fn row(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(1)
}

fn params<'a, T>(
    (weight, bias): (Option<&'a [T]>, Option<&'a [T]>),
    (mean, var): (&'a [T], &'a [T]),
    eps: f32,
) -> NormParams<'a, T> {
    NormParams { mean, var, weight, bias, eps: f64::from(eps) }
}
