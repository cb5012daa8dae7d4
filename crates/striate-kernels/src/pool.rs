//! Max pooling over NHWC.

use crate::mem::DisjointMut;
use crate::parallel::over_rows;
use crate::reference::PoolShape;
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::Team;
use std::ops::Range;

/// Rows and columns that the windows of one axis cover, one window after the other.
#[derive(Clone, Debug)]
struct Axis(Vec<Vec<usize>>);

impl Axis {
    /// Whether no place is in two windows.
    fn disjoint(&self) -> bool {
        self.0.windows(2).all(|pair| pair[0].last() < pair[1].first())
    }

    /// Whether pairs of neighbours cover so many places, one after the other.
    fn pairs(&self, places: usize) -> bool {
        self.0.iter().all(|window| window.len() == 2) && self.0.iter().flatten().copied().eq(0..places)
    }
}

/// A pool over `[n, h, w, c]`, its windows worked out.
#[derive(Clone, Debug)]
pub struct MaxPoolPlan {
    n: usize,
    input: [usize; 2],
    channels: usize,
    rows: Axis,
    columns: Axis,
}

impl MaxPoolPlan {
    /// A plan for `n` images of `channels` channels; the shape's planes are not looked at.
    pub fn new(n: usize, channels: usize, shape: &PoolShape) -> Self {
        let axis =
            |axis: usize| Axis((0..shape.output[axis]).map(|o| shape.window(axis, o).positions().collect()).collect());
        MaxPoolPlan { n, input: shape.input, channels, rows: axis(0), columns: axis(1) }
    }

    fn out(&self) -> [usize; 2] {
        [self.rows.0.len(), self.columns.0.len()]
    }

    /// `y` [n, oh, ow, c] from `x` [n, h, w, c].
    ///
    /// # Panics
    /// Where a slice is too short.
    pub fn forward(&self, team: &Team, isa: Isa, x: &[f32], y: &mut [f32]) {
        let [oh, ow] = self.out();
        over_rows(team, ow * self.channels, y, |lines, y| {
            isa.dispatch(Forward { plan: self, lines: (lines, oh), x, y });
        });
    }

    /// The gradient: each `dy` goes to the first maximum of its window. `dx` [n, h, w, c] is overwritten.
    ///
    /// # Panics
    /// Where a slice is too short.
    pub fn backward(&self, team: &Team, isa: Isa, (x, dy): (&[f32], &[f32]), dx: &mut [f32]) {
        let image = self.input[0] * self.input[1] * self.channels;
        let out = self.rows.0.len() * self.columns.0.len() * self.channels;
        assert!(x.len() == self.n * image && dx.len() == x.len() && dy.len() == self.n * out, "max pool");
        let dx = DisjointMut::new(dx);
        let apart = self.rows.disjoint() && self.columns.disjoint();
        let filled = apart && self.rows.pairs(self.input[0]) && self.columns.pairs(self.input[1]);
        // Windows may overlap, so an image is one task.
        team.for_each(self.n, |n| {
            // SAFETY: each image is one task's own.
            let dx = unsafe { dx.slice_mut(n * image..(n + 1) * image) };
            if !filled {
                dx.fill(0.0);
            }
            let (x, dy) = (&x[n * image..(n + 1) * image], &dy[n * out..(n + 1) * out]);
            isa.dispatch(Backward { plan: self, apart, x, dy, dx });
        });
    }
}

struct Forward<'a> {
    plan: &'a MaxPoolPlan,
    /// Output rows of all images, and rows an image.
    lines: (Range<usize>, usize),
    x: &'a [f32],
    y: &'a mut [f32],
}

/// `v` where it beats `best` or is NaN.
#[inline(always)]
fn beats<S: Simd>(s: S, v: S::V, best: S::V, yes: S::V, no: S::V) -> S::V {
    let above = s.select(s.gt(v, best), yes, no);
    // A NaN equals nothing, itself included.
    s.select(s.eq(v, v), above, yes)
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Forward { plan, lines: (lines, oh), x, y } = self;
        let (c_all, [h, w]) = (plan.channels, plan.input);
        let ow = plan.columns.0.len();
        for (line, y) in lines.zip(y.chunks_exact_mut((ow * c_all).max(1))) {
            let (n, oy) = (line / oh, line % oh);
            let image = &x[n * h * w * c_all..(n + 1) * h * w * c_all];
            for (columns, y) in plan.columns.0.iter().zip(y.chunks_exact_mut(c_all)) {
                let full = c_all - c_all % S::LANES;
                let window = Window { image: image.as_ptr(), rows: &plan.rows.0[oy], columns, w, channels: c_all };
                // SAFETY: each tap is a pixel of the image, whose channels the vectors do not leave.
                unsafe {
                    for c in (0..full).step_by(S::LANES) {
                        s.store(y.as_mut_ptr().add(c), window.largest(s, c, S::LANES));
                    }
                    if full < c_all {
                        let n = c_all - full;
                        s.store_partial(y.as_mut_ptr().add(full), n, window.largest(s, full, n));
                    }
                }
            }
        }
    }
}

/// The inputs of one output.
struct Window<'a> {
    image: *const f32,
    rows: &'a [usize],
    columns: &'a [usize],
    w: usize,
    channels: usize,
}

impl Window<'_> {
    /// The largest of `n` channels from `c` on.
    ///
    /// # Safety
    /// They are readable at each row and column.
    #[inline(always)]
    unsafe fn largest<S: Simd>(&self, s: S, c: usize, n: usize) -> S::V {
        let mut best = s.splat(f32::NEG_INFINITY);
        for &row in self.rows {
            for &column in self.columns {
                // SAFETY: by contract.
                let v = unsafe {
                    let x = self.image.add((row * self.w + column) * self.channels + c);
                    if n == S::LANES { s.load(x) } else { s.load_partial(x, n) }
                };
                best = beats(s, v, best, v, best);
            }
        }
        best
    }
}

struct Backward<'a> {
    plan: &'a MaxPoolPlan,
    /// No input is in two windows.
    apart: bool,
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Backward { plan, apart, x, dy, dx } = self;
        let (c_all, w) = (plan.channels, plan.input[1]);
        let ow = plan.columns.0.len();
        for (oy, rows) in plan.rows.0.iter().enumerate() {
            for (ox, columns) in plan.columns.0.iter().enumerate() {
                if let (true, &[top, bottom], &[left, right]) = (apart, &rows[..], &columns[..]) {
                    let taps = [(top, left), (top, right), (bottom, left), (bottom, right)];
                    let taps = taps.map(|(row, column)| (row * w + column) * c_all);
                    let dy = &dy[(oy * ow + ox) * c_all..][..c_all];
                    // SAFETY: each tap is a pixel of the image.
                    unsafe { route(s, taps, dy, (x.as_ptr(), dx.as_mut_ptr())) }
                    continue;
                }
                for c in (0..c_all).step_by(S::LANES) {
                    let left = c_all - c;
                    let taps =
                        || rows.iter().flat_map(|row| columns.iter().map(move |column| (row * w + column) * c_all + c));
                    // SAFETY: inside the image; partial loads and stores stop at the end of the pixel's channels.
                    unsafe {
                        let (mut best, mut winner) = (s.splat(f32::NEG_INFINITY), s.zero());
                        for (tap, at) in taps().enumerate() {
                            let v = s.load_partial(x.as_ptr().add(at), left);
                            winner = beats(s, v, best, s.splat(tap as f32), winner);
                            best = beats(s, v, best, v, best);
                        }
                        let g = s.load_partial(dy.as_ptr().add((oy * ow + ox) * c_all + c), left);
                        for (tap, at) in taps().enumerate() {
                            let p = dx.as_mut_ptr().add(at);
                            let own = s.select(s.eq(winner, s.splat(tap as f32)), g, s.zero());
                            s.store_partial(p, left, s.add(s.load_partial(p, left), own));
                        }
                    }
                }
            }
        }
    }
}

/// Writes `dy`, a number a channel, to the first largest of the taps, and 0 to the others.
///
/// # Safety
/// From each tap on, `x` is readable and `dx` is writable for as many floats as `dy` has.
#[inline(always)]
unsafe fn route<S: Simd>(s: S, taps: [usize; 4], dy: &[f32], (x, dx): (*const f32, *mut f32)) {
    for c in (0..dy.len()).step_by(S::LANES) {
        let left = dy.len() - c;
        let (mut best, mut winner) = (s.splat(f32::NEG_INFINITY), s.zero());
        // SAFETY: by contract; what is left of the channels ends each vector.
        unsafe {
            for (tap, at) in taps.iter().enumerate() {
                let x = x.add(at + c);
                let v = if left >= S::LANES { s.load(x) } else { s.load_partial(x, left) };
                winner = beats(s, v, best, s.splat(tap as f32), winner);
                best = beats(s, v, best, v, best);
            }
            let dy = dy.as_ptr().add(c);
            let g = if left >= S::LANES { s.load(dy) } else { s.load_partial(dy, left) };
            for (tap, at) in taps.iter().enumerate() {
                let dx = dx.add(at + c);
                let own = s.select(s.eq(winner, s.splat(tap as f32)), g, s.zero());
                if left >= S::LANES { s.store(dx, own) } else { s.store_partial(dx, left, own) }
            }
        }
    }
}
