//! Filters, transformed, in the order in which the products read them: [blocks][positions][k][NV * LANES].

use super::Winograd;
use super::lines::filter_line;
use crate::mem::DisjointMut;
use crate::simd::{Kernel, Simd};

/// Summed channels that one task packs.
pub(super) const CHUNK: usize = 32;

/// Transforms the filters of one vector of output channels and some summed channels.
pub(super) struct PackJob<'a, const A: usize> {
    pub plan: &'a Winograd,
    pub task: usize,
    pub w: &'a [f32],
    pub packed: DisjointMut<'a, f32>,
}

impl<const A: usize> Kernel for PackJob<'_, A> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (plan, p) = (self.plan, &self.plan.problem);
        let chunks = p.k_c.div_ceil(CHUNK);
        let (vector, chunk) = (self.task / chunks, self.task % chunks);
        let (block, place) = (vector / plan.nv, vector % plan.nv);
        let width = plan.nv.min(plan.vectors() - block * plan.nv) * S::LANES;
        let valid = (p.m_c - vector * S::LANES).min(S::LANES);
        let pitch = plan.filters_pitch();
        let filters = &self.w[vector * S::LANES * plan.weights.m_stride..];
        let taps: [[usize; 3]; 3] =
            std::array::from_fn(|r| std::array::from_fn(|c| p.taps[0][r].index * plan.weights.kw + p.taps[1][c].index));
        let last = taps.iter().flatten().fold(0, |last, &tap| tap.max(last));
        for k in chunk * CHUNK..p.k_c.min((chunk + 1) * CHUNK) {
            let source = &filters[k * plan.weights.k_stride..];
            // One check for all taps of all lanes.
            let source = &source[..(valid - 1) * plan.weights.m_stride + last + 1];
            let mut columns = [[s.zero(); A]; 3];
            for (c, column) in columns.iter_mut().enumerate() {
                let mut line = [s.zero(); 3];
                for (r, value) in line.iter_mut().enumerate() {
                    let mut lanes = [0f32; 16];
                    for (lane, value) in lanes[..valid].iter_mut().enumerate() {
                        *value = source[lane * plan.weights.m_stride + taps[r][c]];
                    }
                    // SAFETY: an array of at least LANES floats.
                    *value = unsafe { s.load(lanes.as_ptr()) };
                }
                *column = filter_line(s, line);
            }
            for i in 0..A {
                let row: [S::V; A] = filter_line(s, [columns[0][i], columns[1][i], columns[2][i]]);
                for (j, &value) in row.iter().enumerate() {
                    let at = (block * A * A + i * A + j) * pitch + k * width + place * S::LANES;
                    // SAFETY: each task has its own vector and channels.
                    unsafe { s.store(self.packed.slice_mut(at..at + S::LANES).as_mut_ptr(), value) };
                }
            }
        }
    }
}
