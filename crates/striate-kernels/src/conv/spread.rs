//! Spreading the channels of small groups over the lanes of their output channels.

use crate::simd::{Isa, Simd};

/// Most lanes of any vector.
pub(super) const LANES: usize = 16;

/// Pixels that are asked for before they are copied: they are far from each other, so nothing else fetches them.
const AHEAD: usize = 16;

/// Lane `l` of plane `j` takes source channel `((c + l) / m * k) + j`: the `j`-th of its own group, where `m` and `k` are the
/// group's output and source channels.
pub(super) struct Spread {
    /// First source channel that the vector needs, and how many from there on.
    first: usize,
    window: usize,
    /// For each lane, where its group begins in the window.
    groups: [u32; LANES],
    planes: usize,
    /// Each lane is a group of its own: nothing moves.
    same: bool,
}

impl Spread {
    /// For the output channels from `channel` on. `sizes` is m, k and the number of groups.
    pub fn new([m, k, groups]: [usize; 3], channel: usize, lanes: usize) -> Self {
        let group = |lane: usize| ((channel + lane) / m).min(groups - 1);
        let first = group(0) * k;
        let mut starts = [0; LANES];
        for (lane, start) in starts.iter_mut().enumerate() {
            *start = (group(lane.min(lanes - 1)) * k - first) as u32;
        }
        Spread { first, window: (group(lanes - 1) + 1) * k - first, groups: starts, planes: k, same: m == 1 && k == 1 }
    }

    /// Spreads `count` pixels, `pitch` floats apart in `src`, to neighbouring vectors of each plane of `out`, `plane` floats
    /// apart.
    #[inline(always)]
    pub fn copy<S: Simd>(&self, s: S, src: &[f32], pitch: usize, count: usize, out: &mut [f32], plane: usize) {
        let last = (count - 1) * pitch + self.first + self.window;
        assert!(last <= src.len() && (self.planes - 1) * plane + count * S::LANES <= out.len());
        let (src, out) = (src[self.first..].as_ptr(), out.as_mut_ptr());
        // SAFETY: each pixel's window lies in src, each vector of each plane in out, which was just checked.
        unsafe {
            match (self.same, self.window) {
                (true, n) if n == S::LANES => {
                    for p in 0..count {
                        s.prefetch(src.wrapping_add((p + AHEAD) * pitch));
                        s.store(out.add(p * S::LANES), s.load(src.add(p * pitch)));
                    }
                }
                (true, n) => {
                    for p in 0..count {
                        s.store(out.add(p * S::LANES), s.load_partial(src.add(p * pitch), n));
                    }
                }
                (false, n) if n <= S::LANES => {
                    for p in 0..count {
                        s.prefetch(src.wrapping_add((p + AHEAD) * pitch));
                        let window = s.load_partial(src.add(p * pitch), n);
                        for j in 0..self.planes {
                            let indices = self.groups.map(|g| g + j as u32);
                            s.store(out.add(j * plane + p * S::LANES), permute(s, window, &indices));
                        }
                    }
                }
                (false, n) if n <= 2 * S::LANES => {
                    for p in 0..count {
                        s.prefetch(src.wrapping_add((p + AHEAD) * pitch));
                        let src = src.add(p * pitch);
                        let windows = [s.load(src), s.load_partial(src.add(S::LANES), n - S::LANES)];
                        for j in 0..self.planes {
                            let indices = self.groups.map(|g| g + j as u32);
                            s.store(out.add(j * plane + p * S::LANES), permute_two(s, windows, &indices));
                        }
                    }
                }
                _ => {
                    for (p, j) in (0..count).flat_map(|p| (0..self.planes).map(move |j| (p, j))) {
                        for (lane, &group) in self.groups[..S::LANES].iter().enumerate() {
                            let from = src.add(p * pitch + group as usize + j);
                            *out.add(j * plane + p * S::LANES + lane) = *from;
                        }
                    }
                }
            }
        }
    }
}

/// Lane `l` of the result is lane `indices[l]` of `v`. Indices are below the number of lanes.
#[inline(always)]
pub(super) fn permute<S: Simd>(s: S, v: S::V, indices: &[u32; LANES]) -> S::V {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        use std::mem::transmute_copy;
        // SAFETY: the token proves the instruction set, whose vector S::V is then.
        unsafe {
            if S::ISA == Isa::Avx512 {
                let indices = _mm512_loadu_si512(indices.as_ptr().cast());
                return transmute_copy(&_mm512_permutexvar_ps(indices, transmute_copy(&v)));
            }
            if S::ISA == Isa::Avx2 {
                let indices = _mm256_loadu_si256(indices.as_ptr().cast());
                return transmute_copy(&_mm256_permutevar8x32_ps(transmute_copy(&v), indices));
            }
        }
    }
    let (mut from, mut to) = ([0f32; LANES], [0f32; LANES]);
    // SAFETY: a vector has at most LANES floats.
    unsafe {
        s.store(from.as_mut_ptr(), v);
        for (to, &index) in to.iter_mut().zip(indices) {
            *to = from[index as usize];
        }
        s.load(to.as_ptr())
    }
}

/// Lane `l` of the result is lane `indices[l]` of both vectors, one behind the other. Indices are below twice the number of lanes.
#[inline(always)]
pub(super) fn permute_two<S: Simd>(s: S, [low, high]: [S::V; 2], indices: &[u32; LANES]) -> S::V {
    #[cfg(target_arch = "x86_64")]
    if S::ISA == Isa::Avx512 {
        use std::arch::x86_64::*;
        use std::mem::transmute_copy;
        // SAFETY: the token proves the instruction set, whose vector S::V is then.
        return unsafe {
            let indices = _mm512_loadu_si512(indices.as_ptr().cast());
            transmute_copy(&_mm512_permutex2var_ps(transmute_copy(&low), indices, transmute_copy(&high)))
        };
    }
    let lanes = S::LANES as u32;
    let within = indices.map(|i| i % lanes);
    let is_high = indices.map(|i| (i / lanes) as f32);
    // SAFETY: a vector has at most LANES floats.
    let is_high = unsafe { s.load(is_high.as_ptr()) };
    s.select(s.gt(is_high, s.zero()), permute(s, high, &within), permute(s, low, &within))
}
