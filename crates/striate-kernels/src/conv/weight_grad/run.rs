//! The loops around the microkernel.

use super::geometry::{Fold, Strip, Tap};
use super::pack::{Input, Panels, Run, pack_run};
use super::plan::{Cut, MAX_STRIPS, Unit};
use super::tile::{Lines, Pixels, accumulate};
use super::write::store_transposed;
use crate::simd::{Kernel, Simd};
use std::ops::Range;

/// The memory of a run. Units write disjoint parts of `dw` and `slots`.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) x: *const f32,
    pub(super) dy: *const f32,
    pub(super) dw: *mut f32,
    pub(super) slots: *mut f32,
}

/// What the next pack will read, x and then dy, a quota a tile.
struct Ahead {
    spans: [Lines; 2],
    quota: usize,
}

impl Ahead {
    fn nothing() -> Self {
        Ahead { spans: [Lines::none(); 2], quota: 0 }
    }

    #[inline(always)]
    fn take(&mut self) -> Lines {
        let [x, dy] = &mut self.spans;
        if x.left > 0 { x.take(self.quota) } else { dy.take(self.quota) }
    }
}

/// Sums of tiles in memory: tile (output, channel, tap) begins at `start + (output * pitch + channel * taps + tap) * tile`.
#[derive(Clone, Copy)]
struct Sums {
    start: *mut f32,
    pitch: usize,
}

/// One unit of work for the tile size MR x NV.
pub(super) struct UnitJob<'a, const MR: usize, const NV: usize> {
    pub(super) cut: &'a Cut,
    pub(super) memory: Memory,
    pub(super) unit: Unit,
    /// This thread's scratch, of `Cut::thread_floats`.
    pub(super) scratch: *mut f32,
}

impl<const MR: usize, const NV: usize> Kernel for UnitJob<'_, MR, NV> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let slot = self.cut.slot(self.unit.slot);
        let mut strips: [Strip; MAX_STRIPS] = std::array::from_fn(|_| Strip::empty());
        let (pitch, tiles) = (self.cut.channel_tiles * self.cut.taps, self.unit.outputs.len());
        for (i, chunk) in slot.clone().enumerate() {
            // The partial sums of a binary counter: one a set bit of i, the largest first.
            let mut level = i.count_ones();
            self.run_chunk(s, chunk, &mut strips, self.level(level, pitch));
            let merges = if chunk + 1 == slot.end { level } else { i.trailing_ones() };
            for _ in 0..merges {
                // SAFETY: both levels hold the unit's tiles, and levels do not overlap.
                unsafe { self.add(s, self.level(level, pitch), self.level(level - 1, pitch), tiles) };
                level -= 1;
            }
        }
    }
}

impl<const MR: usize, const NV: usize> UnitJob<'_, MR, NV> {
    /// Where the sums of a level of the tree stand: level 0 in the slot, the others in this thread's scratch.
    fn level(&self, level: u32, pitch: usize) -> Sums {
        let (cut, unit) = (self.cut, &self.unit);
        let (group, tile) = (cut.group_floats(), cut.tile_floats());
        let first = (unit.outputs.start * pitch + unit.channels.start * cut.taps) * tile;
        let start = match level {
            0 => self.memory.slots.wrapping_add((unit.slot * cut.shape.groups + unit.group) * group),
            n => {
                let [x, dy, _] = cut.thread_floats();
                self.scratch.wrapping_add(x + dy + (n as usize - 1) * group)
            }
        };
        Sums { start: start.wrapping_add(first), pitch }
    }

    /// `to += from` for the unit's tiles.
    #[inline(always)]
    unsafe fn add<S: Simd>(&self, s: S, from: Sums, to: Sums, outputs: usize) {
        let tile = self.cut.tile_floats();
        let floats = self.unit.channels.len() * self.cut.taps * tile;
        for o in 0..outputs {
            let offset = o * from.pitch * tile;
            // SAFETY: by contract; a tile is a multiple of LANES.
            unsafe { add_floats(s, from.start.add(offset), to.start.add(offset), floats) };
        }
    }

    #[inline(always)]
    fn run_chunk<S: Simd>(&self, s: S, chunk: usize, strips: &mut [Strip; MAX_STRIPS], sums: Sums) {
        let cut = self.cut;
        let count = cut.strips(chunk);
        let mut first = 0;
        loop {
            let pack = first..count.min(first + cut.pack_strips);
            for (strip, i) in strips.iter_mut().zip(pack.clone()) {
                strip.set(&cut.geometry, cut.strip(chunk, i));
            }
            let strips = &strips[..pack.len()];
            // SAFETY: the scratch has the size of the cut; x, dy and the sums are whole.
            unsafe {
                for (i, strip) in strips.iter().enumerate() {
                    self.pack(s, i, strip, cut.strip(chunk, pack.start + i));
                }
                let ahead = if pack.end < count { self.ahead(cut.strip(chunk, pack.end)) } else { Ahead::nothing() };
                self.run_pack(s, strips, sums, (first == 0, ahead));
            }
            first = pack.end;
            if first >= count {
                return;
            }
        }
    }

    /// What the next pack reads, where that is one strip, whose lines are whole rows of pixels, and fits the second cache.
    fn ahead(&self, pixels: Range<usize>) -> Ahead {
        let (cut, unit) = (self.cut, &self.unit);
        let (g, shape) = (&cut.geometry, &cut.shape);
        let mut ahead = Ahead::nothing();
        if cut.pack_strips > 1 || shape.groups > 1 {
            return ahead;
        }
        if unit.outputs.len() == cut.output_tiles {
            ahead.spans[1] = Lines::of(self.memory.dy.wrapping_add(pixels.start * shape.oc), pixels.len() * shape.oc);
        }
        if unit.channels.len() == cut.channel_tiles && g.flat && g.fold == Fold::None && shape.stride == [1, 1] {
            ahead.spans[0] = Lines::of(self.memory.x.wrapping_add(pixels.start * shape.ic), pixels.len() * shape.ic);
        }
        let calls = unit.outputs.len() * unit.channels.len() * cut.taps;
        ahead.quota = ahead.spans.iter().map(|lines| lines.left).sum::<usize>().div_ceil(calls);
        ahead
    }

    /// Packs strip `index` of the pack, whose output pixels are `pixels`.
    #[inline(always)]
    unsafe fn pack<S: Simd>(&self, s: S, index: usize, strip: &Strip, pixels: Range<usize>) {
        let (cut, unit) = (self.cut, &self.unit);
        let g = &cut.geometry;
        let [x_floats, ..] = cut.thread_floats();
        let channels = (unit.channels.start * MR, (unit.channels.end * MR).min(g.channels));
        let input = Input { shape: &cut.shape, geometry: g, x: self.memory.x, group: unit.group, channels };
        let ocg = cut.shape.oc_per_group();
        let outputs = (unit.outputs.start * cut.width)..(unit.outputs.end * cut.width).min(ocg);
        // SAFETY: by contract of the caller; strips are packed one after the other.
        unsafe {
            if !cut.x_in_place {
                let dst = self.scratch.add(index * cut.channel_tiles * cut.x_panel);
                input.pack(strip, Panels { dst, panel: cut.x_panel, width: MR }, |from, to| {
                    std::ptr::copy_nonoverlapping(from, to, MR)
                });
            }
            if cut.dy_in_place {
                return;
            }
            let dst = self.scratch.add(x_floats + index * cut.output_tiles * cut.dy_panel);
            let run = Run {
                src: self.memory.dy.add(pixels.start * cut.shape.oc + unit.group * ocg + outputs.start),
                pitch: cut.shape.oc,
                count: pixels.len(),
                channels: outputs.len(),
            };
            pack_run(run, Panels { dst, panel: cut.dy_panel, width: cut.width }, |from, to| {
                for v in 0..NV {
                    s.store(to.add(v * S::LANES), s.load(from.add(v * S::LANES)));
                }
            });
        }
    }

    /// All tiles of the unit over the packed strips.
    #[inline(always)]
    unsafe fn run_pack<S: Simd>(&self, s: S, strips: &[Strip], sums: Sums, (fresh, mut ahead): (bool, Ahead)) {
        let (cut, unit) = (self.cut, &self.unit);
        let (tile, taps) = (cut.tile_floats(), cut.taps);
        let [x_floats, dy_floats, _] = cut.thread_floats();
        let mut block = 0..0;
        while block.end < unit.channels.len() {
            block = block.end..unit.channels.len().min(block.end + cut.block);
            for o in 0..unit.outputs.len() {
                for c in block.clone() {
                    // SAFETY: the panels and the sums are within what the cut asked for.
                    unsafe {
                        let at = if cut.direct {
                            self.scratch.add(x_floats + dy_floats + (c - block.start) * taps * tile)
                        } else {
                            sums.start.add((o * sums.pitch + c * taps) * tile)
                        };
                        self.run_tile(s, strips, (o, c), at, (fresh, &mut ahead));
                    }
                }
                if cut.direct {
                    let channels = unit.channels.start + block.start..unit.channels.start + block.end;
                    let place = Place { group: unit.group, output: unit.outputs.start + o, channels };
                    // SAFETY: the block's tiles were just computed; this unit alone writes their part of dw.
                    unsafe {
                        write_tiles(s, cut, &place, self.scratch.add(x_floats + dy_floats), self.memory.dw);
                    }
                }
            }
        }
    }

    /// All taps of one tile, at `at`.
    #[inline(always)]
    unsafe fn run_tile<S: Simd>(
        &self,
        s: S,
        strips: &[Strip],
        tile: (usize, usize),
        at: *mut f32,
        (fresh, ahead): (bool, &mut Ahead),
    ) {
        let cut = self.cut;
        for (i, strip) in strips.iter().enumerate() {
            let (x, dy) = self.pixels((i, strip), tile);
            for tap in 0..cut.taps {
                // SAFETY: by contract of the caller.
                unsafe {
                    let c = at.add(tap * cut.tile_floats());
                    let tap = Tap::new(&cut.geometry, tap);
                    accumulate::<S, MR, NV>(s, &cut.geometry, strip, &tap, [x, dy], c, (fresh && i == 0, ahead.take()));
                }
            }
        }
    }
}

impl<const MR: usize, const NV: usize> UnitJob<'_, MR, NV> {
    /// What one tile, (output, channel), sees of packed strip `i`.
    #[inline(always)]
    fn pixels(&self, (i, strip): (usize, &Strip), (output, channel): (usize, usize)) -> (Pixels, Pixels) {
        let (cut, unit, shape) = (self.cut, &self.unit, &self.cut.shape);
        let [x_floats, ..] = cut.thread_floats();
        let x = if cut.x_in_place {
            let first = strip.first_pixel() * shape.ic + unit.group * shape.ic_per_group();
            let at = self.memory.x.wrapping_add(first + (unit.channels.start + channel) * MR);
            Pixels { at, pitch: shape.ic }
        } else {
            Pixels { at: self.scratch.wrapping_add((i * cut.channel_tiles + channel) * cut.x_panel), pitch: MR }
        };
        let dy = if cut.dy_in_place {
            let first = strip.first_pixel() * shape.oc + unit.group * shape.oc_per_group();
            let at = self.memory.dy.wrapping_add(first + (unit.outputs.start + output) * cut.width);
            Pixels { at, pitch: shape.oc }
        } else {
            let at = self.scratch.wrapping_add(x_floats + (i * cut.output_tiles + output) * cut.dy_panel);
            Pixels { at, pitch: cut.width }
        };
        (x, dy)
    }
}

/// Joins the slots of some tiles by the tree and writes them.
pub(super) struct JoinJob<'a> {
    pub(super) cut: &'a Cut,
    pub(super) memory: Memory,
    /// Below `groups * output_tiles * join_blocks`.
    pub(super) task: usize,
}

/// Tiles of input channels that one [`JoinJob`] handles.
fn join_block(cut: &Cut) -> usize {
    64usize.div_ceil(cut.mr * cut.taps)
}

/// Number of [`JoinJob`]s.
pub(super) fn join_tasks(cut: &Cut) -> usize {
    cut.shape.groups * cut.output_tiles * cut.channel_tiles.div_ceil(join_block(cut))
}

impl Kernel for JoinJob<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let cut = self.cut;
        let blocks = cut.channel_tiles.div_ceil(join_block(cut));
        let (rest, block) = (self.task / blocks, self.task % blocks);
        let (group, output) = (rest / cut.output_tiles, rest % cut.output_tiles);
        let first = block * join_block(cut);
        let channels = first..cut.channel_tiles.min(first + join_block(cut));
        let start = (output * cut.channel_tiles + first) * cut.taps * cut.tile_floats();
        let floats = channels.len() * cut.taps * cut.tile_floats();
        let slot =
            |i: usize| self.memory.slots.wrapping_add((i * cut.shape.groups + group) * cut.group_floats() + start);
        let mut step = 1;
        while step < cut.slots {
            for i in (0..cut.slots - step).step_by(2 * step) {
                // SAFETY: both slots hold these tiles; this task alone touches them.
                unsafe { add_floats(s, slot(i + step), slot(i), floats) };
            }
            step *= 2;
        }
        // SAFETY: as above, and these tiles' part of dw is this task's.
        unsafe { write_tiles(s, cut, &Place { group, output, channels }, slot(0), self.memory.dw) };
    }
}

/// `to += from`. `floats` is a multiple of LANES.
#[inline(always)]
unsafe fn add_floats<S: Simd>(s: S, from: *const f32, to: *mut f32, floats: usize) {
    for i in (0..floats).step_by(S::LANES) {
        // SAFETY: by contract.
        unsafe { s.store(to.add(i), s.add(s.load(to.add(i)), s.load(from.add(i)))) };
    }
}

/// Some tiles of one group and one tile of output channels.
struct Place {
    group: usize,
    output: usize,
    channels: Range<usize>,
}

/// Writes tiles, [channel tiles][taps][MR][width], into the filters.
#[inline(always)]
unsafe fn write_tiles<S: Simd>(s: S, cut: &Cut, place: &Place, tiles: *const f32, dw: *mut f32) {
    let shape = &cut.shape;
    let (icg, ocg, area) = (shape.ic_per_group(), shape.oc_per_group(), shape.kh * shape.kw);
    let (mr, taps, width) = (cut.mr, cut.taps, cut.width);
    let first_channel = place.channels.start * mr;
    let channels = (place.channels.end * mr).min(cut.geometry.channels) - first_channel;
    let first_output = place.output * width;
    let outputs = width.min(ocg - first_output);
    // The row of the tiles that holds a channel's tap.
    let row = |channel: usize, tap: usize| {
        let (tile, i) = (channel / mr, channel % mr);
        tiles.wrapping_add(((tile * taps + tap) * mr + i) * width)
    };
    let filter = icg * area;
    let dw = dw.wrapping_add((place.group * ocg + first_output) * filter);
    if cut.geometry.fold != Fold::None {
        for (channel, tap) in (0..channels).flat_map(|c| (0..taps).map(move |t| (c, t))) {
            let (folded, ic) = ((first_channel + channel) / icg, (first_channel + channel) % icg);
            let at = dw.wrapping_add(ic * area + tap * (area / taps) + folded);
            for o in 0..outputs {
                // SAFETY: within the filters and the tiles.
                unsafe { *at.add(o * filter) = *row(channel, tap).add(o) };
            }
        }
        return;
    }
    // Without a fold the filters' columns are (channel, tap), one after the other.
    let dw = dw.wrapping_add(first_channel * area);
    let columns = channels * taps;
    let at = |column: usize| row(column / taps, column % taps);
    let (whole_columns, whole_outputs) = (columns / S::LANES * S::LANES, outputs / S::LANES * S::LANES);
    // SAFETY: whole vectors within the tiles and the filters; the rest one by one.
    unsafe {
        for column in (0..whole_columns).step_by(S::LANES) {
            let rows: [*const f32; 16] = std::array::from_fn(|i| at(column + i.min(S::LANES - 1)));
            for o in (0..whole_outputs).step_by(S::LANES) {
                store_transposed(s, &rows.map(|r| r.wrapping_add(o)), dw.add(o * filter + column), filter);
            }
        }
        for column in 0..columns {
            let from = if column < whole_columns { whole_outputs } else { 0 };
            for o in from..outputs {
                *dw.add(o * filter + column) = *at(column).add(o);
            }
        }
    }
}
