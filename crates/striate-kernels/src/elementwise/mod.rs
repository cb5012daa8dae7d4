//! Elementwise functions of one array, and of two or three that NumPy's rule broadcasts.
//!
//! Lanes never mix, and every element is computed by the same instructions wherever it lies: no result depends on its
//! neighbours, on the batch or on the number of threads.

mod functions;
mod loops;

use crate::kinds::{BinaryKind, UnaryKind};
use crate::mem::DisjointMut;
use crate::parallel::over_ranges;
use crate::reference::reference_binary_element;
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::Team;
use functions::{binary_loop, unary_grad_loop, unary_loop};
pub(crate) use functions::{clip_grad, hardswish_grad, silu_grad};
use loops::Pair;
pub(crate) use loops::{load_up_to, store_up_to, tail_mask};

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
        let n = self.y.len().min(self.x.len());
        // SAFETY: both slices have n floats.
        unsafe { unary_loop(s, self.kind, n, self.x.as_ptr(), self.y.as_mut_ptr()) }
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
        let n = self.dx.len().min(self.x.len()).min(self.dy.len());
        let pair = Pair::Slices(self.x.as_ptr(), self.dy.as_ptr());
        // SAFETY: all slices have n floats.
        unsafe { unary_grad_loop(s, self.kind, n, pair, self.dx.as_mut_ptr()) }
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
        let lines = piece * grain..lines.min((piece + 1) * grain);
        // SAFETY: each line is one task's own.
        let y = unsafe { out.slice_mut(lines.start * inner..lines.end * inner) };
        isa.dispatch(BinaryLines { kind, shape, first: lines.start, a, b, y });
    });
}

/// Lines of a broadcast from the line `first` on, one after the other in `y`.
struct BinaryLines<'a> {
    kind: BinaryKind,
    shape: &'a BinaryShape,
    first: usize,
    a: &'a [f32],
    b: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for BinaryLines<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (shape, outer) = (self.shape, self.shape.dims.len() - 1);
        let strides = (shape.a[outer], shape.b[outer]);
        for (line, y) in self.y.chunks_exact_mut(shape.dims[outer]).enumerate() {
            let (mut at, mut rest) = ([0, 0], self.first + line);
            for axis in (0..outer).rev() {
                let index = rest % shape.dims[axis];
                rest /= shape.dims[axis];
                at = [at[0] + index * shape.a[axis], at[1] + index * shape.b[axis]];
            }
            Binary { kind: self.kind, strides, a: &self.a[at[0]..], b: &self.b[at[1]..], y }.run(s);
        }
    }
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
        let Binary { kind, strides, a, b, y } = self;
        let n = y.len();
        let pair = match strides {
            (1, 1) => Pair::Slices(a[..n].as_ptr(), b[..n].as_ptr()),
            (1, 0) => Pair::RightScalar(a[..n].as_ptr(), b[0]),
            (0, 1) => Pair::LeftScalar(a[0], b[..n].as_ptr()),
            (sa, sb) => {
                // Both are gathered or repeated: bound by memory's latency or a handful of numbers, so one at a time.
                for (i, y) in y.iter_mut().enumerate() {
                    *y = reference_binary_element(kind, a[i * sa], b[i * sb]);
                }
                return;
            }
        };
        // SAFETY: all slices have n floats.
        unsafe { binary_loop(s, kind, n, pair, y.as_mut_ptr()) }
    }
}
