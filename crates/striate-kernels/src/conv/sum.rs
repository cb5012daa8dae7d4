//! Sliding-window sums that together make one output: what forward and input gradient share.

use super::direct::{Buffers, Problem};
use super::engine::{Algorithms, Engine, Weights};
use super::{align_scratch, parts, stats};
use crate::mem::DisjointMut;
use crate::simd::Isa;
use crate::threads::{Team, part};
use std::ops::Range;

/// Floats that alignment may cost, and a multiple of which each part of a buffer has.
pub(super) const SLACK: usize = 16;

/// Filters that are packed in one turn stay in the second cache.
const TURN_BYTES: usize = 256 << 10;

/// Planned sums that write different pixels of one destination.
#[derive(Clone, Debug)]
pub(super) struct Sum {
    parts: Vec<Part>,
    packed_len: usize,
    band_len: usize,
    /// Pixels of each block of the statistics.
    blocks: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Part {
    engine: Engine,
    /// The first float of the source that it looks at.
    src_start: usize,
    /// Its packed filters.
    packed: Range<usize>,
    /// How they are packed, where no part before it has the same.
    packing: Option<String>,
    /// Its first block of the statistics.
    first_block: usize,
}

impl Sum {
    /// Plans `problems`, each cut as the geometry asks for.
    pub fn new(problems: Vec<Problem>, isa: Isa, weights: Weights, algorithms: Algorithms) -> Self {
        let cut = problems.into_iter().flat_map(|problem| parts::cut(problem, isa, algorithms));
        Self::with_engines(cut.map(|p| (p.src_start, Engine::new(p, isa, weights, algorithms))).collect())
    }

    pub fn with_engines(engines: Vec<(usize, Engine)>) -> Self {
        let mut sum = Sum { parts: Vec::with_capacity(engines.len()), packed_len: 0, band_len: 0, blocks: Vec::new() };
        for (src_start, engine) in engines {
            let packing = engine.packing();
            let same = sum.parts.iter().find(|other| other.packing.as_ref() == Some(&packing));
            let (packed, packing) = match same {
                Some(other) => (other.packed.clone(), None),
                None => (sum.packed_len..sum.packed_len + engine.packed_len(), Some(packing)),
            };
            sum.packed_len = sum.packed_len.max(packed.end.next_multiple_of(SLACK));
            sum.band_len = sum.band_len.max(engine.band_len().next_multiple_of(SLACK));
            let first_block = sum.blocks.len();
            sum.blocks.extend(engine.stat_blocks());
            sum.parts.push(Part { engine, src_start, packed, packing, first_block });
        }
        sum
    }

    /// The middle of the kernel's name, of the first part.
    pub fn name(&self, pass: &str) -> String {
        self.parts[0].engine.name(pass)
    }

    /// How the filters are packed.
    pub fn packing(&self) -> String {
        self.parts.iter().filter_map(|part| part.packing.as_deref()).collect::<Vec<_>>().join(" ")
    }

    /// Floats of the packed filters.
    pub fn packed_len(&self) -> usize {
        self.packed_len
    }

    /// Packs the filters, OIHW.
    ///
    /// Parts that pack other taps of the same filters do so in turns, while these are in the cache.
    pub fn pack(&self, team: &Team, w: &[f32], packed: &mut [f32]) {
        let packed = DisjointMut::new(&mut packed[..self.packed_len]);
        team.run(|index, count| {
            let turns = (4 * w.len()).div_ceil(count * TURN_BYTES).max(1);
            for turn in index * turns..(index + 1) * turns {
                for p in self.parts.iter().filter(|p| p.packing.is_some()) {
                    // SAFETY: parts that pack have filters of their own.
                    let own = unsafe { DisjointMut::new(packed.slice_mut(p.packed.clone())) };
                    let tasks = part(p.engine.pack_tasks(), turn, count * turns);
                    tasks.for_each(|task| p.engine.pack_task(task, w, own));
                }
            }
        });
    }

    /// Floats of scratch that [`Sum::run`] needs with a team of `threads`, with `SLACK` for alignment.
    pub fn scratch_len(&self, threads: usize) -> usize {
        threads * self.band_len + SLACK
    }

    /// Pixels of each block of the statistics.
    pub fn blocks(&self) -> &[usize] {
        &self.blocks
    }

    /// Floats of the partial statistics of `channels`.
    pub fn partials_len(&self, channels: usize) -> usize {
        self.blocks.len() * stats::PARTS * channels
    }

    /// Computes all parts. `buffers` has the whole of source, packed filters and destination.
    ///
    /// # Safety
    /// The buffers have the sizes of the problems.
    pub unsafe fn run(&self, team: &Team, buffers: &Buffers, scratch: &mut [f32]) {
        let bands = DisjointMut::new(align_scratch(scratch, team.threads() * self.band_len));
        team.run(|index, count| {
            // SAFETY: each thread has its own band, and its own items; parts write different pixels; the sizes are by contract.
            unsafe {
                let band = bands.slice_mut(index * self.band_len..(index + 1) * self.band_len);
                self.share(index, count, |p, items| {
                    // Without images there is no source.
                    let x = buffers.x.get(p.src_start..).unwrap_or_default();
                    let packed = &buffers.packed[p.packed.clone()];
                    let own = Buffers { x, packed, first_block: p.first_block, ..*buffers };
                    p.engine.run_items(&own, items, band);
                });
            }
        });
    }

    /// Cuts the items of all parts, one after the other, into `count` shares of equal cost, and hands share `index` to `run`.
    fn share(&self, index: usize, count: usize, mut run: impl FnMut(&Part, Range<usize>)) {
        let total: usize = self.parts.iter().map(|p| p.engine.items() * p.engine.item_cost()).sum();
        // The cost before this share, and before the next.
        let (start, end) =
            (total / count * index, if index + 1 == count { total } else { total / count * (index + 1) });
        let mut before = 0;
        for part in &self.parts {
            let (items, cost) = (part.engine.items(), part.engine.item_cost().max(1));
            let item =
                |limit: usize| (limit.saturating_sub(before) + cost / 2).checked_div(cost).unwrap_or(0).min(items);
            let range = item(start)..if index + 1 == count { items } else { item(end) };
            if !range.is_empty() {
                run(part, range);
            }
            before += items * part.engine.item_cost();
        }
    }
}
