//! Filters in the order in which the direct kernel reads them: `[group][block][tap][k][NV * LANES]`.

use super::direct::Direct;
use crate::mem::DisjointMut;
use crate::simd::Isa;

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
    /// Lanes of a vector, vectors of a block.
    pub lanes: usize,
    pub nv: usize,
}

/// Summed channels that one task packs.
const CHUNK: usize = 64;
/// Lanes that are gathered together.
const LANES: usize = 16;

impl FilterLayout {
    pub fn new(direct: &Direct, isa: Isa, kw: usize, [m_c, k_c]: [usize; 2], groups: usize) -> Self {
        FilterLayout {
            groups,
            m_c,
            k_c,
            group_stride: 0,
            m_stride: 0,
            k_stride: 0,
            taps: direct.used_taps(kw),
            lanes: isa.lanes(),
            nv: direct.nv(),
        }
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
        // Lanes in small groups: they may be a power of two apart, and the first cache holds few such lines.
        for lane in (0..width).step_by(LANES) {
            let source = &source[lane.min(valid) * self.m_stride..];
            let valid = valid.saturating_sub(lane).min(LANES);
            for k in ks.clone() {
                for (t, &tap) in self.taps.iter().enumerate() {
                    let row = &mut row(k, t)[lane..width.min(lane + LANES)];
                    gather(source, k * self.k_stride + tap, self.m_stride, valid, row);
                }
            }
        }
    }
}

/// `row[i] = w[start + i * stride]` for the first `valid`, zero for the rest.
#[inline(always)]
fn gather(w: &[f32], start: usize, stride: usize, valid: usize, row: &mut [f32]) {
    if valid == LANES && row.len() == LANES {
        // One check for all: the loads and stores below have none.
        let from = &w[start..start + (LANES - 1) * stride + 1];
        let values: [f32; LANES] = std::array::from_fn(|i| {
            // SAFETY: i * stride is at most the last index of `from`.
            unsafe { *from.get_unchecked(i * stride) }
        });
        row.copy_from_slice(&values);
        return;
    }
    for (i, to) in row.iter_mut().enumerate() {
        *to = if i < valid { w[start + i * stride] } else { 0.0 };
    }
}
