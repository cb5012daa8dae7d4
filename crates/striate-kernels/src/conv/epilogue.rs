//! What is done to an output while it is still in registers or in the first cache.

use crate::simd::{Simd, math};

/// An activation that a convolution can apply. Definitions follow `torch.nn.functional`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Activation {
    /// The value itself.
    #[default]
    None,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, lo), hi)`.
    Clip {
        /// Lower bound.
        lo: f32,
        /// Upper bound.
        hi: f32,
    },
    /// `x` where positive, else `slope * x`.
    LeakyRelu {
        /// Factor of negative values.
        slope: f32,
    },
    /// `x` where positive, else `alpha * (e^x - 1)`.
    Elu {
        /// Factor of the exponential.
        alpha: f32,
    },
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * clip(x + 3, 0, 6) / 6`.
    Hardswish,
    /// `clip(x + 3, 0, 6) / 6`.
    Hardsigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `x * (1 + erf(x / sqrt 2)) / 2`.
    Gelu,
    /// GELU with the tanh approximation.
    GeluTanh,
}

impl Activation {
    /// The activation of one number; the scalar twin of [`Activation::apply_vector`].
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Activation::None => x,
            // Written so that NaN stays NaN.
            Activation::Relu => {
                if 0.0 > x {
                    0.0
                } else {
                    x
                }
            }
            Activation::Clip { lo, hi } => {
                let x = if lo > x { lo } else { x };
                if hi < x { hi } else { x }
            }
            Activation::LeakyRelu { slope } => {
                if x > 0.0 {
                    x
                } else {
                    slope * x
                }
            }
            Activation::Elu { alpha } => {
                if x > 0.0 {
                    x
                } else {
                    alpha * x.exp_m1()
                }
            }
            Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::Hardswish => x * Activation::Hardsigmoid.apply(x),
            Activation::Hardsigmoid => Activation::Clip { lo: 0.0, hi: 6.0 }.apply(x + 3.0) * (1.0 / 6.0),
            Activation::Tanh => x.tanh(),
            Activation::Gelu => {
                let s = crate::simd::Portable::new();
                let erf = math::erf(s, s.splat(x * std::f32::consts::FRAC_1_SQRT_2))[0];
                0.5 * x * (1.0 + erf)
            }
            Activation::GeluTanh => 0.5 * x * (1.0 + (GELU_SCALE * (x + GELU_CUBE * x * x * x)).tanh()),
        }
    }

    /// The activation of a vector, lane by lane.
    #[inline(always)]
    pub fn apply_vector<S: Simd>(self, s: S, x: S::V) -> S::V {
        let zero = s.zero();
        match self {
            Activation::None => x,
            Activation::Relu => s.max(zero, x),
            Activation::Clip { lo, hi } => s.min(s.splat(hi), s.max(s.splat(lo), x)),
            Activation::LeakyRelu { slope } => s.select(s.gt(x, zero), x, s.mul(x, s.splat(slope))),
            Activation::Elu { alpha } => {
                s.select(s.gt(x, zero), x, s.mul(s.splat(alpha), math::expm1(s, s.min(zero, x))))
            }
            Activation::Sigmoid => math::sigmoid(s, x),
            Activation::Silu => s.div(x, s.add(s.splat(1.0), math::exp(s, s.neg(x)))),
            Activation::Hardswish => s.mul(x, hardsigmoid(s, x)),
            Activation::Hardsigmoid => hardsigmoid(s, x),
            Activation::Tanh => math::tanh(s, x),
            Activation::Gelu => {
                let erf = math::erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
                s.mul(s.mul(s.splat(0.5), x), s.add(s.splat(1.0), erf))
            }
            Activation::GeluTanh => {
                let cube = s.mul(s.mul(s.mul(s.splat(GELU_CUBE), x), x), x);
                let t = math::tanh(s, s.mul(s.splat(GELU_SCALE), s.add(x, cube)));
                s.mul(s.mul(s.splat(0.5), x), s.add(s.splat(1.0), t))
            }
        }
    }

    /// As [`Activation::apply_vector`] for the hot ones; the others are left to a later pass.
    #[inline(always)]
    pub(super) fn apply_hot<S: Simd>(self, s: S, x: S::V) -> S::V {
        match self {
            Activation::Relu => s.max(s.zero(), x),
            Activation::Clip { lo, hi } => s.min(s.splat(hi), s.max(s.splat(lo), x)),
            _ => x,
        }
    }

    /// True for those that the convolution kernels apply in registers; the others take a pass over the tile just written.
    pub fn is_hot(self) -> bool {
        matches!(self, Activation::None | Activation::Relu | Activation::Clip { .. })
    }
}

/// `sqrt(2/pi)`.
const GELU_SCALE: f32 = 0.797_884_6;
const GELU_CUBE: f32 = 0.044_715;

#[inline(always)]
fn hardsigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let clipped = s.min(s.splat(6.0), s.max(s.zero(), s.add(x, s.splat(3.0))));
    s.mul(clipped, s.splat(1.0 / 6.0))
}

/// What is done to a convolution's sum: `y = activation(sum + bias + residual)`, in this order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One number an output channel, `[OC]`.
    pub bias: Option<&'a [f32]>,
    /// Added element by element, [N, OH, OW, OC] as the output.
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Kernel, available_isas, map_chunks};

    struct Apply<'a>(Activation, &'a [f32], &'a mut [f32]);
    impl Kernel for Apply<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            map_chunks(s, self.1, self.2, |v| self.0.apply_vector(s, v));
        }
    }

    #[test]
    fn vectors_agree_with_the_scalar_twin() {
        let x: Vec<f32> = (-2000..2003).map(|i| i as f32 * 0.01).collect();
        let all = [
            Activation::None,
            Activation::Relu,
            Activation::Clip { lo: -1.0, hi: 6.0 },
            Activation::LeakyRelu { slope: 0.1 },
            Activation::Elu { alpha: 1.3 },
            Activation::Sigmoid,
            Activation::Silu,
            Activation::Hardswish,
            Activation::Hardsigmoid,
            Activation::Tanh,
            Activation::Gelu,
            Activation::GeluTanh,
        ];
        for isa in available_isas() {
            for activation in all {
                let mut y = vec![0.0; x.len()];
                isa.dispatch(Apply(activation, &x, &mut y));
                for (x, y) in x.iter().zip(&y) {
                    let want = activation.apply(*x);
                    let scale = if activation.is_hot() { 0.0 } else { 1e-6 };
                    assert!((y - want).abs() <= scale * (1.0 + want.abs()), "{isa} {activation:?} {x}: {y}, {want}");
                }
                let mut nan = [0.0];
                isa.dispatch(Apply(activation, &[f32::NAN], &mut nan));
                assert!(nan[0].is_nan() && activation.apply(f32::NAN).is_nan(), "{isa} {activation:?}");
            }
        }
    }
}
