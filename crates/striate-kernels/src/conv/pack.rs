//! Filters in the order in which the direct kernel reads them: `[group][block][tap][k][NV * LANES]`.

use super::direct::Direct;
use super::weight_grad::store_transposed;
use crate::mem::DisjointMut;
use crate::simd::{Isa, Kernel, Simd};
use std::ops::Range;

/// Where the weight of output lane `m`, summed channel `k` and tap `t` of a group lies in OIHW: `m * m_stride + k * k_stride + t`.
#[derive(Clone, Debug)]
pub(super) struct FilterLayout {
    pub groups: usize,
    pub m_c: usize,
    pub k_c: usize,
    /// Floats of one group's filters, and from one output lane or summed channel to the next.
    pub group_stride: usize,
    pub m_stride: usize,
    pub k_stride: usize,
    /// Used taps in the order of the sum, as kh * KW + kw.
    pub taps: Vec<usize>,
    /// What transposes them.
    pub isa: Isa,
    /// Lanes of a vector, vectors of a block.
    pub lanes: usize,
    pub nv: usize,
}

/// Summed channels that one task packs.
const CHUNK: usize = 16;
/// Most lanes of a vector.
const LANES: usize = 16;
/// Columns of a filter from which on transposing them is faster than gathering each.
const FEW: usize = 4;

impl FilterLayout {
    pub fn new(direct: &Direct, isa: Isa, kw: usize, channels: [usize; 2], groups: usize) -> Self {
        Self::of_taps(direct.used_taps(kw), isa, direct.nv(), channels, groups)
    }

    /// For `taps` in the order of the sum, and blocks of `nv` vectors.
    pub fn of_taps(taps: Vec<usize>, isa: Isa, nv: usize, [m_c, k_c]: [usize; 2], groups: usize) -> Self {
        let (group_stride, m_stride, k_stride) = (0, 0, 0);
        FilterLayout { groups, m_c, k_c, group_stride, m_stride, k_stride, taps, isa, lanes: isa.lanes(), nv }
    }

    /// Floats of the packed filters.
    pub fn packed_len(&self) -> usize {
        self.groups * self.m_c.next_multiple_of(self.lanes) * self.taps.len() * self.k_c
    }

    /// Independent tasks: groups, blocks, chunks of summed channels.
    pub fn tasks(&self) -> usize {
        self.groups * self.m_c.div_ceil(self.nv * self.lanes) * self.k_c.div_ceil(CHUNK)
    }

    /// Packs one chunk of one block of one group.
    pub fn pack_task(&self, task: usize, w: &[f32], packed: DisjointMut<f32>) {
        let (chunks, blocks) = (self.k_c.div_ceil(CHUNK), self.m_c.div_ceil(self.nv * self.lanes));
        let (chunk, block, group) = (task % chunks, task / chunks % blocks, task / chunks / blocks);
        let first = block * self.nv * self.lanes;
        let width = (self.nv * self.lanes).min(self.m_c.next_multiple_of(self.lanes) - first);
        let sum = self.taps.len() * self.k_c;
        let start = (group * self.m_c.next_multiple_of(self.lanes) + first) * sum;
        let ks = chunk * CHUNK..self.k_c.min((chunk + 1) * CHUNK);
        // SAFETY: each task has its own rows of the packed filters.
        let row = |k: usize, t: usize| unsafe {
            let at = start + (t * self.k_c + k) * width;
            packed.slice_mut(at..at + width)
        };
        let source = &w[group * self.group_stride + first * self.m_stride..];
        let valid = (self.m_c - first).min(width);
        if self.m_stride == 1 {
            for k in ks {
                for (t, &tap) in self.taps.iter().enumerate() {
                    let row = row(k, t);
                    row[..valid].copy_from_slice(&source[k * self.k_stride + tap..][..valid]);
                    row[valid..].fill(0.0);
                }
            }
            return;
        }
        self.isa.dispatch(Gather { layout: self, source, packed, block: (start, width, valid), ks });
    }
}

/// The filters of a block, whose lanes lie `m_stride` apart.
struct Gather<'a> {
    layout: &'a FilterLayout,
    /// From the first lane on.
    source: &'a [f32],
    packed: DisjointMut<'a, f32>,
    /// Where the packed block begins, its lanes, and how many of them are channels.
    block: (usize, usize, usize),
    ks: Range<usize>,
}

impl Kernel for Gather<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (_, width, valid) = self.block;
        let mut tile = [0f32; LANES * LANES];
        for lane in (0..width).step_by(S::LANES) {
            let source = &self.source[lane * self.layout.m_stride..];
            // The last column whose whole square lies within the filters.
            let last = source.len().checked_sub((S::LANES - 1) * self.layout.m_stride + S::LANES);
            match last {
                Some(last) if valid >= lane + S::LANES => self.transpose(s, (lane, source), last, &mut tile),
                _ => self.copy::<S>(lane, source),
            }
        }
    }
}

impl<'a> Gather<'a> {
    /// The lanes of a vector in the packed row of summed channel `k` and the `t`-th tap.
    #[inline(always)]
    fn row<S: Simd>(&self, lane: usize, (k, t): (usize, usize)) -> &'a mut [f32] {
        let (start, width, _) = self.block;
        let at = start + (t * self.layout.k_c + k) * width + lane;
        // SAFETY: each task has its own rows of the packed filters, and takes one at a time.
        unsafe { self.packed.slice_mut(at..at + S::LANES) }
    }

    /// One vector of lanes, number by number.
    #[inline(always)]
    fn copy<S: Simd>(&self, lane: usize, source: &[f32]) {
        let (layout, valid) = (self.layout, self.block.2.saturating_sub(lane));
        for k in self.ks.clone() {
            for (t, &tap) in layout.taps.iter().enumerate() {
                for (i, to) in self.row::<S>(lane, (k, t)).iter_mut().enumerate() {
                    *to = if i < valid { source[i * layout.m_stride + k * layout.k_stride + tap] } else { 0.0 };
                }
            }
        }
    }

    /// One vector of lanes: columns of the filters that lie beside each other are loaded as rows of a square, and transposed.
    #[inline(always)]
    fn transpose<S: Simd>(&self, s: S, (lane, source): (usize, &[f32]), last: usize, tile: &mut [f32; LANES * LANES]) {
        let layout = self.layout;
        let taps = &layout.taps;
        let descends = taps.first() > taps.last();
        // The columns of the next square, ascending, and where they go.
        let (mut columns, mut count) = ([(0, (0, 0)); LANES], 0);
        for k in self.ks.clone() {
            for i in 0..taps.len() {
                let t = if descends { taps.len() - 1 - i } else { i };
                let column = k * layout.k_stride + taps[t];
                let first: usize = columns[0].0;
                if count > 0 && !(first..first + S::LANES).contains(&column) {
                    self.square(s, (lane, source), last, &columns[..count], tile);
                    count = 0;
                }
                columns[count] = (column, (k, t));
                count += 1;
            }
        }
        self.square(s, (lane, source), last, &columns[..count], tile);
    }

    /// Packs `columns`, all within LANES of the first.
    #[inline(always)]
    fn square<S: Simd>(
        &self,
        s: S,
        (lane, source): (usize, &[f32]),
        last: usize,
        columns: &[(usize, (usize, usize))],
        tile: &mut [f32; LANES * LANES],
    ) {
        let stride = self.layout.m_stride;
        if columns.len() < FEW {
            for &(column, to) in columns {
                // One check for all: the loads below have none.
                let from = &source[column..column + (S::LANES - 1) * stride + 1];
                let values: [f32; LANES] = std::array::from_fn(|i| {
                    // SAFETY: the index is at most the last of `from`.
                    unsafe { *from.get_unchecked(i.min(S::LANES - 1) * stride) }
                });
                self.row::<S>(lane, to).copy_from_slice(&values[..S::LANES]);
            }
            return;
        }
        let first = columns[0].0.min(last);
        let rows = std::array::from_fn(|i| source[first..].as_ptr().wrapping_add(i.min(S::LANES - 1) * stride));
        // SAFETY: the square from column `last` on lies within the source, and so does that from any column before it.
        unsafe { store_transposed(s, &rows, tile.as_mut_ptr(), S::LANES) };
        for &(column, to) in columns {
            let from = (column - first) * S::LANES;
            self.row::<S>(lane, to).copy_from_slice(&tile[from..from + S::LANES]);
        }
    }
}
