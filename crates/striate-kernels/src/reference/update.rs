//! In-place updates of parameters and state cells, in the order of arithmetic of `torch.optim`.
use super::Float;
use crate::kinds::UpdateKind;

/// The decimal that a constant was written as: 0.999f32 stands for 0.999, not for 0.99900001287.
///
/// Without this `1 - beta2` would be 1.3e-5 off (relative) from what PyTorch, which keeps Python's doubles, computes.
pub fn meant_decimal(x: f32) -> f64 {
    // The shortest text that reads back as the same f32.
    x.to_string().parse().unwrap_or(f64::from(x))
}

impl UpdateKind {
    /// How many state cells of the parameter's size it needs, in the order of its documentation.
    pub fn state_count(self) -> usize {
        match self {
            Self::Sgd { momentum, .. } => usize::from(momentum != 0.0),
            Self::Adam { .. } => 2,
            Self::RmsProp { momentum, centered, .. } => 1 + usize::from(momentum > 0.0) + usize::from(centered),
            Self::Lion { .. } => 1,
            Self::Average | Self::Assign | Self::Accumulate => 0,
        }
    }

    /// How many hyper-parameters it reads.
    pub fn hyper_count(self) -> usize {
        match self {
            Self::Sgd { .. } => 3,
            Self::Adam { .. } => 4,
            Self::RmsProp { .. } | Self::Lion { .. } => 2,
            Self::Average => 1,
            Self::Assign | Self::Accumulate => 0,
        }
    }

    /// Its momentum, or `beta1` where it has betas: what a cycle changes. None without either.
    pub fn momentum(self) -> Option<f32> {
        match self {
            Self::Sgd { momentum, .. } | Self::RmsProp { momentum, .. } => (momentum != 0.0).then_some(momentum),
            Self::Adam { beta1, .. } | Self::Lion { beta1, .. } => Some(beta1),
            Self::Average | Self::Assign | Self::Accumulate => None,
        }
    }

    /// The same rule with another [`UpdateKind::momentum`], where it has one.
    pub fn with_momentum(mut self, value: f32) -> UpdateKind {
        match &mut self {
            Self::Sgd { momentum, .. } | Self::RmsProp { momentum, .. } if *momentum != 0.0 => *momentum = value,
            Self::Adam { beta1, .. } | Self::Lion { beta1, .. } => *beta1 = value,
            _ => {}
        }
        self
    }

    /// The rule of this run: a number behind the hyper-parameters that it reads takes the place of its momentum.
    pub(crate) fn of_run(self, momentum: Option<f32>) -> UpdateKind {
        momentum.map_or(self, |momentum| self.with_momentum(momentum))
    }
}

/// One update. `grad` (or the value, for `Average`, `Assign`, `Accumulate`) is multiplied by `grad_scale` first: the factor of
/// clipping by norm, 1 otherwise. A number behind the hyper-parameters is the momentum (or `beta1`) of this run. `state` holds the cells that [`UpdateKind::state_count`] asks for.
///
/// # Panics
/// If a slice is shorter than `p`, or a state cell or hyper-parameter is missing.
pub fn reference_update<T: Float>(
    kind: UpdateKind,
    hyper: &[T],
    grad_scale: T,
    p: &mut [T],
    grad: &[T],
    state: &mut [&mut [T]],
) {
    let kind = kind.of_run(hyper.get(kind.hyper_count()).map(|momentum| momentum.to_f64() as f32));
    let constant = |x: f32| T::from_f64(meant_decimal(x));
    let one_minus = |x: f32| T::from_f64(1.0 - meant_decimal(x));
    for i in 0..p.len() {
        let g = grad[i] * grad_scale;
        match kind {
            UpdateKind::Sgd { momentum, dampening, nesterov } => {
                let mut g = g + hyper[1] * p[i];
                if momentum != 0.0 {
                    let buffer = &mut state[0][i];
                    let first = hyper[2] != T::ZERO;
                    *buffer = if first { g } else { *buffer * constant(momentum) + one_minus(dampening) * g };
                    g = if nesterov { g + constant(momentum) * *buffer } else { *buffer };
                }
                p[i] -= hyper[0] * g;
            }
            UpdateKind::Adam { beta1, beta2, eps, decoupled } => {
                let (lr, decay) = (hyper[0], hyper[1]);
                let mut g = g;
                if decoupled {
                    p[i] *= T::ONE - lr * decay;
                } else {
                    g += decay * p[i];
                }
                let [first, second, ..] = state else { panic!("Adam needs two state cells") };
                first[i] += (g - first[i]) * one_minus(beta1);
                second[i] = second[i] * constant(beta2) + one_minus(beta2) * g * g;
                let denominator = second[i].sqrt() / hyper[3].sqrt() + constant(eps);
                p[i] -= lr / hyper[2] * (first[i] / denominator);
            }
            UpdateKind::RmsProp { alpha, eps, momentum, centered } => {
                let g = g + hyper[1] * p[i];
                state[0][i] = state[0][i] * constant(alpha) + one_minus(alpha) * g * g;
                let mut second = state[0][i];
                if centered {
                    let mean = &mut state[1 + usize::from(momentum > 0.0)][i];
                    *mean += (g - *mean) * one_minus(alpha);
                    second -= *mean * *mean;
                }
                let mut step = g / (second.sqrt() + constant(eps));
                if momentum > 0.0 {
                    state[1][i] = state[1][i] * constant(momentum) + step;
                    step = state[1][i];
                }
                p[i] -= hyper[0] * step;
            }
            UpdateKind::Lion { beta1, beta2 } => {
                let m = &mut state[0][i];
                let direction = constant(beta1) * *m + one_minus(beta1) * g;
                let sign = if direction > T::ZERO {
                    T::ONE
                } else if direction < T::ZERO {
                    -T::ONE
                } else {
                    direction
                };
                p[i] = p[i] * (T::ONE - hyper[0] * hyper[1]) - hyper[0] * sign;
                *m = constant(beta2) * *m + one_minus(beta2) * g;
            }
            UpdateKind::Average => p[i] = hyper[0] * p[i] + (T::ONE - hyper[0]) * g,
            UpdateKind::Assign => p[i] = g,
            UpdateKind::Accumulate => p[i] += g,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        assert_eq!(meant_decimal(0.999), 0.999);
        assert_eq!(meant_decimal(1e-8), 1e-8);
        assert_eq!(meant_decimal(0.5), 0.5);
    }

    #[test]
    fn sgd_with_momentum_over_two_steps() {
        let kind = UpdateKind::Sgd { momentum: 0.5, dampening: 0.0, nesterov: true };
        let (mut p, mut m) = ([1.0f64], [9.0]);
        reference_update(kind, &[0.5, 0.0, 1.0], 1.0, &mut p, &[1.0], &mut [&mut m]);
        assert_eq!((p[0], m[0]), (0.25, 1.0));
        reference_update(kind, &[0.5, 0.0, 0.0], 2.0, &mut p, &[1.0], &mut [&mut m]);
        assert_eq!((p[0], m[0]), (0.25 - 0.5 * (2.0 + 0.5 * 2.5), 2.5));
    }

    #[test]
    fn adam_first_step_moves_by_the_learning_rate() {
        for decoupled in [false, true] {
            let kind = UpdateKind::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled };
            let (mut p, mut m, mut v) = ([1.0f64], [0.0], [0.0]);
            let hyper = [0.01, 0.0, 1.0 - 0.9, 1.0 - 0.999];
            reference_update(kind, &hyper, 1.0, &mut p, &[3.0], &mut [&mut m, &mut v]);
            assert!((p[0] - 0.99).abs() < 1e-10, "{}", p[0]);
        }
    }

    #[test]
    fn plain_updates() {
        let mut p = [1.0f64];
        reference_update(UpdateKind::Average, &[0.75], 1.0, &mut p, &[3.0], &mut []);
        assert_eq!(p[0], 1.5);
        reference_update(UpdateKind::Accumulate, &[], 1.0, &mut p, &[3.0], &mut []);
        assert_eq!(p[0], 4.5);
        reference_update(UpdateKind::Assign, &[], 1.0, &mut p, &[3.0], &mut []);
        assert_eq!(p[0], 3.0);
    }
}
