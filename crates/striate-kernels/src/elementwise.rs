//! Elementwise functions. The common ones are vectorised; the others run their scalar twin.

use crate::kinds::{BinaryKind, UnaryKind};
use crate::mem::DisjointMut;
use crate::parallel::over_ranges;
use crate::reference::{reference_binary_element, reference_unary, reference_unary_grad};
use crate::simd::{Isa, Kernel, Simd, map_chunks, math};
use crate::threads::Team;

/// `y = f(x)`.
///
/// # Panics
/// Where the slices differ in length.
pub fn unary(team: &Team, isa: Isa, kind: UnaryKind, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "{kind:?}");
    over_ranges(team, y, |range, y| isa.dispatch(Unary { kind, x: &x[range], y }));
}

struct Unary<'a> {
    kind: UnaryKind,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Unary<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        use UnaryKind::*;
        let Unary { kind, x, y } = self;
        let one = s.splat(1.0);
        match kind {
            Neg => map_chunks(s, x, y, |v| s.neg(v)),
            Abs => map_chunks(s, x, y, |v| s.abs(v)),
            Square => map_chunks(s, x, y, |v| s.mul(v, v)),
            Sqrt => map_chunks(s, x, y, |v| s.sqrt(v)),
            Reciprocal => map_chunks(s, x, y, |v| s.div(one, v)),
            Exp => map_chunks(s, x, y, |v| math::exp(s, v)),
            Relu => map_chunks(s, x, y, |v| s.max(s.zero(), v)),
            Sigmoid => map_chunks(s, x, y, |v| math::sigmoid(s, v)),
            Tanh => map_chunks(s, x, y, |v| math::tanh(s, v)),
            Silu => map_chunks(s, x, y, |v| s.div(v, s.add(one, math::exp(s, s.neg(v))))),
            Clip { min, max } => {
                let (low, high) = (s.splat(min), s.splat(max));
                map_chunks(s, x, y, |v| s.min(high, s.max(low, v)))
            }
            LeakyRelu { slope } => {
                let slope = s.splat(slope);
                map_chunks(s, x, y, |v| s.select(s.gt(v, s.zero()), v, s.mul(v, slope)))
            }
            Affine { scale, shift } => {
                let (scale, shift) = (s.splat(scale), s.splat(shift));
                map_chunks(s, x, y, |v| s.add(s.mul(v, scale), shift))
            }
            _ => x.iter().zip(y).for_each(|(x, y)| *y = reference_unary(kind, *x)),
        }
    }
}

/// `dx = f'(x) * dy`.
///
/// # Panics
/// Where the slices differ in length.
pub fn unary_grad(team: &Team, isa: Isa, kind: UnaryKind, (x, dy): (&[f32], &[f32]), dx: &mut [f32]) {
    assert!(x.len() == dy.len() && dy.len() == dx.len(), "{kind:?}");
    over_ranges(team, dx, |range, dx| isa.dispatch(UnaryGrad { kind, x: &x[range.clone()], dy: &dy[range], dx }));
}

struct UnaryGrad<'a> {
    kind: UnaryKind,
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Kernel for UnaryGrad<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        use UnaryKind::*;
        let UnaryGrad { kind, x, dy, dx } = self;
        let (zero, one) = (s.zero(), s.splat(1.0));
        match kind {
            Relu => zip_chunks(s, x, dy, dx, |x, dy| s.select(s.gt(x, zero), dy, zero)),
            LeakyRelu { slope } => {
                let slope = s.splat(slope);
                zip_chunks(s, x, dy, dx, |x, dy| s.select(s.gt(x, zero), dy, s.mul(dy, slope)))
            }
            Clip { min, max } => {
                let (low, high) = (s.splat(min), s.splat(max));
                zip_chunks(s, x, dy, dx, |x, dy| s.select(s.gt(x, low), s.select(s.lt(x, high), dy, zero), zero))
            }
            Sigmoid => zip_chunks(s, x, dy, dx, |x, dy| {
                let y = math::sigmoid(s, x);
                s.mul(dy, s.mul(y, s.sub(one, y)))
            }),
            Tanh => zip_chunks(s, x, dy, dx, |x, dy| {
                let y = math::tanh(s, x);
                s.mul(dy, s.sub(one, s.mul(y, y)))
            }),
            Silu => zip_chunks(s, x, dy, dx, |x, dy| {
                let y = math::sigmoid(s, x);
                s.mul(dy, s.mul(y, s.add(one, s.mul(x, s.sub(one, y)))))
            }),
            Square => zip_chunks(s, x, dy, dx, |x, dy| s.mul(dy, s.add(x, x))),
            _ => (0..dx.len()).for_each(|i| dx[i] = reference_unary_grad(kind, x[i], dy[i])),
        }
    }
}

/// `out[i] = f(a[i], b[i])`, a vector at a time.
#[inline(always)]
pub(crate) fn zip_chunks<S: Simd>(s: S, a: &[f32], b: &[f32], out: &mut [f32], f: impl Fn(S::V, S::V) -> S::V) {
    let n = out.len().min(a.len()).min(b.len());
    let (ap, bp, op) = (a.as_ptr(), b.as_ptr(), out.as_mut_ptr());
    let mut i = 0;
    // SAFETY: every access stays below n, which all slices have.
    unsafe {
        while i + S::LANES <= n {
            s.store(op.add(i), f(s.load(ap.add(i)), s.load(bp.add(i))));
            i += S::LANES;
        }
        if i < n {
            let rest = n - i;
            s.store_partial(op.add(i), rest, f(s.load_partial(ap.add(i), rest), s.load_partial(bp.add(i), rest)));
        }
    }
}

/// Two operands broadcast to `dims`: the stride of each along each axis, 0 where it repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinaryShape {
    dims: Vec<usize>,
    a: Vec<usize>,
    b: Vec<usize>,
}

impl BinaryShape {
    /// Joins the axes along which both operands lie one after the other, so that the common cases have one or two axes.
    ///
    /// # Panics
    /// Where the strides are not one a dimension.
    pub fn new(dims: &[usize], a: &[usize], b: &[usize]) -> Self {
        assert!(dims.len() == a.len() && a.len() == b.len(), "strides of {dims:?}");
        let mut shape = BinaryShape { dims: Vec::new(), a: Vec::new(), b: Vec::new() };
        for axis in (0..dims.len()).filter(|&axis| dims[axis] != 1) {
            let joined = shape.dims.last().is_some_and(|_| {
                let last = shape.dims.len() - 1;
                shape.a[last] == a[axis] * dims[axis] && shape.b[last] == b[axis] * dims[axis]
            });
            if joined {
                let last = shape.dims.len() - 1;
                shape.dims[last] *= dims[axis];
                (shape.a[last], shape.b[last]) = (a[axis], b[axis]);
            } else {
                shape.dims.push(dims[axis]);
                shape.a.push(a[axis]);
                shape.b.push(b[axis]);
            }
        }
        if shape.dims.is_empty() {
            (shape.dims, shape.a, shape.b) = (vec![1], vec![0], vec![0]);
        }
        shape
    }

    fn numel(&self) -> usize {
        self.dims.iter().product()
    }

    fn reach(&self, strides: &[usize]) -> usize {
        self.dims.iter().zip(strides).map(|(&d, &s)| d.saturating_sub(1) * s).sum::<usize>() + 1
    }
}

/// `y = f(a, b)`, broadcast.
///
/// # Panics
/// Where a slice is too short for the shape.
pub fn binary(team: &Team, isa: Isa, kind: BinaryKind, shape: &BinaryShape, (a, b): (&[f32], &[f32]), y: &mut [f32]) {
    assert_eq!(y.len(), shape.numel(), "{kind:?} of {shape:?}");
    if y.is_empty() {
        return;
    }
    assert!(a.len() >= shape.reach(&shape.a) && b.len() >= shape.reach(&shape.b), "{kind:?} of {shape:?}");
    let (inner, outer) = (shape.dims[shape.dims.len() - 1], shape.dims.len() - 1);
    let strides = (shape.a[outer], shape.b[outer]);
    if outer == 0 {
        let from = |stride: usize, start: usize| if stride == 0 { 0 } else { start * stride };
        return over_ranges(team, y, |range, y| {
            let (a, b) = (&a[from(strides.0, range.start)..], &b[from(strides.1, range.start)..]);
            isa.dispatch(Binary { kind, strides, a, b, y });
        });
    }
    let lines = y.len() / inner;
    let grain = (8192 / inner).max(1);
    let out = DisjointMut::new(y);
    team.for_each(lines.div_ceil(grain), |piece| {
        for line in piece * grain..lines.min((piece + 1) * grain) {
            let (mut at, mut rest) = ([0, 0], line);
            for axis in (0..outer).rev() {
                let index = rest % shape.dims[axis];
                rest /= shape.dims[axis];
                at = [at[0] + index * shape.a[axis], at[1] + index * shape.b[axis]];
            }
            // SAFETY: each line is one task's own.
            let y = unsafe { out.slice_mut(line * inner..(line + 1) * inner) };
            isa.dispatch(Binary { kind, strides, a: &a[at[0]..], b: &b[at[1]..], y });
        }
    });
}

struct Binary<'a> {
    kind: BinaryKind,
    strides: (usize, usize),
    a: &'a [f32],
    b: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Binary<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.kind {
            BinaryKind::Add => self.lines(s, |a, b| s.add(a, b)),
            BinaryKind::Sub => self.lines(s, |a, b| s.sub(a, b)),
            BinaryKind::Mul => self.lines(s, |a, b| s.mul(a, b)),
            BinaryKind::Div => self.lines(s, |a, b| s.div(a, b)),
            _ => self.scalar(),
        }
    }
}

impl Binary<'_> {
    #[inline(always)]
    fn lines<S: Simd>(self, s: S, f: impl Fn(S::V, S::V) -> S::V) {
        let Binary { strides, a, b, y, .. } = self;
        match strides {
            (1, 1) => zip_chunks(s, a, b, y, f),
            (1, 0) => {
                let b = s.splat(b[0]);
                map_chunks(s, a, y, |a| f(a, b))
            }
            (0, 1) => {
                let a = s.splat(a[0]);
                map_chunks(s, b, y, |b| f(a, b))
            }
            (sa, sb) => {
                for (i, y) in y.iter_mut().enumerate() {
                    let v = f(s.splat(a[i * sa]), s.splat(b[i * sb]));
                    // SAFETY: one lane to one float.
                    unsafe { s.store_partial(y, 1, v) };
                }
            }
        }
    }

    fn scalar(self) {
        let (sa, sb) = self.strides;
        for (i, y) in self.y.iter_mut().enumerate() {
            *y = reference_binary_element(self.kind, self.a[i * sa], self.b[i * sb]);
        }
    }
}
