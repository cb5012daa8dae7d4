//! Second derivatives: rules of the gradient operations themselves.

use super::{Gradients, Rule};
use crate::{BinaryKind, Op, Tensor, UnaryKind};

/// True where the second derivative is 0 everywhere but at the kinks.
pub(super) fn is_piecewise_linear(kind: UnaryKind) -> bool {
    use UnaryKind::*;
    match kind {
        Neg
        | Abs
        | Sign
        | Floor
        | Ceil
        | Round
        | Relu
        | LeakyRelu { .. }
        | Hardsigmoid
        | Clip { .. }
        | Affine { .. }
        | Not => true,
        Exp
        | Log
        | Sqrt
        | Rsqrt
        | Square
        | Reciprocal
        | Sin
        | Cos
        | Tan
        | Asin
        | Acos
        | Atan
        | Sinh
        | Cosh
        | Asinh
        | Acosh
        | Atanh
        | Erf
        | Elu { .. }
        | Selu
        | Celu { .. }
        | Gelu
        | GeluTanh
        | Silu
        | Mish
        | Hardswish
        | Softplus { .. }
        | Softsign
        | Sigmoid
        | Tanh
        | LogSigmoid
        | PowConst { .. } => false,
    }
}

impl Rule<'_> {
    /// Of `f'(x) * d`: linear in `d`; for `x` by the second derivative, where there is a formula for it.
    pub(super) fn unary_grad(&self, kind: UnaryKind) -> Option<Gradients> {
        let (x, d, g) = (&self.inputs[0], &self.inputs[1], &self.dy);
        let through_d = self.wanted(1, || self.push(Op::UnaryGrad(kind), &[x, g]));
        if !self.wants[0] {
            return Some(vec![None, through_d]);
        }
        let second = self.second_derivative(kind)?;
        let both = self.product_of(d, g);
        Some(vec![Some(self.product_of(&second, &both)), through_d])
    }

    fn second_derivative(&self, kind: UnaryKind) -> Option<Tensor> {
        use UnaryKind::*;
        let x = &self.inputs[0];
        let apply = |kind: UnaryKind, t: &Tensor| self.push(Op::Unary(kind), &[t]);
        let scaled = |t: &Tensor, scale: f32| apply(Affine { scale, shift: 0.0 }, t);
        let power = |scale: f32, exponent: f32| scaled(&apply(PowConst { exponent }, x), scale);
        Some(match kind {
            Square => apply(Affine { scale: 0.0, shift: 2.0 }, x),
            Exp => apply(Exp, x),
            Log => power(-1.0, -2.0),
            Sqrt => power(-0.25, -1.5),
            Rsqrt => power(0.75, -2.5),
            Reciprocal => power(2.0, -3.0),
            PowConst { exponent } => power(exponent * (exponent - 1.0), exponent - 2.0),
            Sin => scaled(&apply(Sin, x), -1.0),
            Cos => scaled(&apply(Cos, x), -1.0),
            // -2 t (1 - t²)
            Tanh => {
                let t = apply(Tanh, x);
                let slope = apply(Affine { scale: -1.0, shift: 1.0 }, &apply(Square, &t));
                self.product_of(&scaled(&t, -2.0), &slope)
            }
            // s (1 - s) (1 - 2 s)
            Sigmoid => {
                let s = apply(Sigmoid, x);
                let slope = self.product_of(&s, &apply(Affine { scale: -1.0, shift: 1.0 }, &s));
                self.product_of(&slope, &apply(Affine { scale: -2.0, shift: 1.0 }, &s))
            }
            // -s (1 - s)
            LogSigmoid => {
                let s = apply(Sigmoid, x);
                self.product_of(&s, &apply(Affine { scale: 1.0, shift: -1.0 }, &s))
            }
            _ => return None,
        })
    }

    fn product_of(&self, a: &Tensor, b: &Tensor) -> Tensor {
        self.push(Op::Binary(BinaryKind::Mul), &[a, b])
    }

    /// Of `dx[argmax] += d`: each `d` gets what stands where its maximum was.
    pub(super) fn max_pool_grad(&self, windows: crate::Windows) -> Gradients {
        let (x, d) = (&self.inputs[0], &self.inputs[1]);
        let (shape, pooled) = (x.shape(), d.shape());
        let planes = |t: &Tensor, len: usize| self.push(Op::Reshape { shape: [shape[0], shape[1], len].into() }, &[t]);
        let indices = planes(&self.push(Op::MaxPool2dIndices(windows), &[x]), pooled[2] * pooled[3]);
        // A window of padding alone has no maximum, index -1.
        let zero = self.push(Op::Constant(crate::Array::scalar(0i64)), &[]);
        let inside = self.push(Op::Binary(BinaryKind::GreaterOrEqual), &[&indices, &zero]);
        let valid = self.push(Op::Binary(BinaryKind::Max), &[&indices, &zero]);
        let map = planes(&self.dy, shape[2] * shape[3]);
        let found = self.push(Op::GatherElements { axis: 2 }, &[&map, &valid]);
        let nothing = self.push(Op::Constant(crate::Array::zeros([], d.dtype())), &[]);
        let kept = self.push(Op::Where, &[&inside, &found, &nothing]);
        vec![None, Some(self.push(Op::Reshape { shape: pooled }, &[&kept]))]
    }
}
