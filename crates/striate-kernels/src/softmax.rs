//! Softmax and its logarithm over the middle of `[outer, len, inner]`.

use crate::elementwise::{load_up_to, store_up_to, tail_mask};
use crate::mem::DisjointMut;
use crate::parallel::over_rows;
use crate::reduce::{LINE, ReduceShape, SHORT, rows_as_columns};
use crate::simd::{Isa, Kernel, Simd, math};
use crate::threads::Team;

/// `y = exp(x - max) / sum`, or with `log` its logarithm `x - max - ln sum`, along `len`.
///
/// # Panics
/// Where a slice has another length.
pub fn softmax(team: &Team, isa: Isa, (shape, log): (ReduceShape, bool), x: &[f32], y: &mut [f32]) {
    let ReduceShape { outer, len, inner } = shape;
    assert!(x.len() == outer * len * inner && y.len() == x.len(), "softmax of {shape:?}");
    if y.is_empty() {
        return;
    }
    if shape.is_of_short_rows() {
        return over_rows(team, len, y, |rows, y| {
            isa.dispatch(ShortRows { log, len, x: &x[rows.start * len..rows.end * len], y });
        });
    }
    if inner == 1 {
        return over_rows(team, len, y, |rows, y| {
            let x = &x[rows.start * len..rows.end * len];
            x.chunks_exact(len).zip(y.chunks_exact_mut(len)).for_each(|(x, y)| isa.dispatch(Row { log, x, y }));
        });
    }
    // A task takes some neighbouring columns of one outer index.
    let width = inner.min(64);
    let strips = inner.div_ceil(width);
    let y = DisjointMut::new(y);
    team.for_each(outer * strips, |task| {
        let (o, from) = (task / strips, task % strips * width);
        let columns = Columns {
            log,
            len,
            inner,
            from,
            to: inner.min(from + width),
            x: &x[o * len * inner..(o + 1) * len * inner],
            // SAFETY: tasks write distinct columns.
            y: unsafe { y.as_mut_ptr().add(o * len * inner) },
        };
        isa.dispatch(columns);
    });
}

/// A running sum with the rounding errors beside it (Knuth's two-sum): where one class has nearly all the weight, its loss
/// is made of what a plain f32 sum would round away.
#[derive(Clone, Copy)]
struct Sum<V> {
    sum: V,
    error: V,
}

impl<V: Copy> Sum<V> {
    #[inline(always)]
    fn add<S: Simd<V = V>>(self, s: S, x: V) -> Self {
        let sum = s.add(self.sum, x);
        let taken = s.sub(sum, self.sum);
        let lost = s.add(s.sub(self.sum, s.sub(sum, taken)), s.sub(x, taken));
        Sum { sum, error: s.add(self.error, lost) }
    }

    /// The total of all lanes.
    #[inline(always)]
    fn total<S: Simd<V = V>>(self, s: S) -> f64 {
        let mut lanes = [0.0; 32];
        // SAFETY: 16 floats hold any vector of this crate.
        unsafe {
            s.store(lanes.as_mut_ptr(), self.sum);
            s.store(lanes.as_mut_ptr().add(16), self.error);
        }
        lanes.iter().map(|&lane| f64::from(lane)).sum()
    }
}

struct Row<'a> {
    log: bool,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Row<'_> {
    #[inline(always)]
    fn load<S: Simd>(&self, s: S, i: usize) -> S::V {
        // SAFETY: i is below the length, and the load stops there.
        unsafe { load_up_to(s, self.x.as_ptr().add(i), self.x.len() - i) }
    }

    #[inline(always)]
    fn store<S: Simd>(&mut self, s: S, i: usize, v: S::V) {
        // SAFETY: i is below the length, and the store stops there.
        unsafe { store_up_to(s, self.y.as_mut_ptr().add(i), self.y.len() - i, v) }
    }
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let n = self.x.len();
        let mut max = s.splat(f32::NEG_INFINITY);
        for i in (0..n).step_by(S::LANES) {
            // A NaN is passed over here, and comes back with the sum.
            max = s.max(s.select(tail_mask(s, n - i), self.load(s, i), s.splat(f32::NEG_INFINITY)), max);
        }
        let max = s.splat(s.reduce_max(max));
        let mut sum = Sum { sum: s.zero(), error: s.zero() };
        for i in (0..n).step_by(S::LANES) {
            let e = math::exp(s, s.sub(self.load(s, i), max));
            sum = sum.add(s, s.select(tail_mask(s, n - i), e, s.zero()));
            if !self.log {
                self.store(s, i, e);
            }
        }
        let total = sum.total(s);
        let (factor, shift) = (s.splat((1.0 / total) as f32), s.splat(total.ln() as f32));
        for i in (0..n).step_by(S::LANES) {
            let v = if self.log {
                s.sub(s.sub(self.load(s, i), max), shift)
            } else {
                // SAFETY: i is below the length, and the load stops there.
                let e = unsafe { load_up_to(s, self.y.as_ptr().add(i), n - i) };
                s.mul(e, factor)
            };
            self.store(s, i, v);
        }
    }
}

/// Rows of at most [`SHORT`] numbers; a lane is a row.
struct ShortRows<'a> {
    log: bool,
    len: usize,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for ShortRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ShortRows { log, len, x, y } = self;
        let (mut tile, mut found) = ([0.0; SHORT * LINE], [0.0; SHORT * LINE]);
        for (x, y) in x.chunks(len * LINE).zip(y.chunks_mut(len * LINE)) {
            rows_as_columns(x, len, &mut tile);
            Columns { log, len, inner: LINE, from: 0, to: LINE, x: &tile, y: found.as_mut_ptr() }.run(s);
            for (row, values) in y.chunks_exact_mut(len).enumerate() {
                values.iter_mut().zip(found[row..].iter().step_by(LINE)).for_each(|(to, value)| *to = *value);
            }
        }
    }
}

/// Columns `from..to` of `[len, inner]`; a lane is a column.
struct Columns<'a> {
    log: bool,
    len: usize,
    inner: usize,
    from: usize,
    to: usize,
    x: &'a [f32],
    y: *mut f32,
}

impl Kernel for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for c in (self.from..self.to).step_by(S::LANES) {
            let left = self.to - c;
            let at = |k: usize| k * self.inner + c;
            // SAFETY: rows are below len, and loads stop at the strip's end.
            let load = |k: usize| unsafe { load_up_to(s, self.x.as_ptr().add(at(k)), left) };
            let mut max = s.splat(f32::NEG_INFINITY);
            for k in 0..self.len {
                max = s.max(load(k), max);
            }
            let mut sum = Sum { sum: s.zero(), error: s.zero() };
            for k in 0..self.len {
                sum = sum.add(s, math::exp(s, s.sub(load(k), max)));
            }
            let Sum { sum, error } = sum;
            let shift = s.add(math::log(s, sum), s.div(error, sum));
            for k in 0..self.len {
                let d = s.sub(load(k), max);
                let v = if self.log { s.sub(d, shift) } else { s.div(math::exp(s, d), sum) };
                // SAFETY: this task's own columns; the store stops at the strip's end.
                unsafe { store_up_to(s, self.y.add(at(k)), left, v) };
            }
        }
    }
}
