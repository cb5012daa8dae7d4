//! How a weight gradient is cut: tiles, chunks, strips, units of work.

use super::geometry::{Fold, Geometry, MAX_PIECES, Strip};
use super::pack::MAX_FOLDED;
use crate::conv::Conv2dShape;
use crate::simd::Isa;
use crate::threads::part;
use std::ops::Range;

/// Most pixels that one chain of additions takes; longer sums are joined by a pairwise tree.
const CHUNK_PIXELS: usize = 4096;
/// Most partial sums that are kept in memory; where there are more chunks, runs of them are summed on the way.
const MAX_SLOTS: usize = 32;
/// Bytes of one tile's strips of x and dy, which should stay in the first cache.
const STRIP_BYTES: usize = 36 << 10;
/// Floats packed at a time where the filter has several taps.
const PACK_FLOATS: usize = 1 << 20;
/// Most strips packed at a time.
pub(super) const MAX_STRIPS: usize = 16;
/// A weight gradient of at most this many floats stays in the second cache, so that strips may be packed one at a time.
const SMALL_GRADIENT: usize = 48 << 10;
/// Most floats from pixel to pixel that are read where they lie: far apart, they fall into few sets of the first cache.
const IN_PLACE_PITCH: usize = 256;
/// Floats of packed input that should stay in the second cache while the output channels pass.
const BLOCK_FLOATS: usize = 96 << 10;

/// Sizes of the microkernel: input channels, vectors of output channels.
pub(super) fn tiles_of(isa: Isa) -> &'static [(usize, usize)] {
    match isa {
        Isa::Avx512 => &[
            (8, 3),
            (12, 2),
            (11, 2),
            (10, 2),
            (9, 2),
            (8, 2),
            (7, 2),
            (6, 4),
            (4, 3),
            (6, 2),
            (5, 2),
            (4, 2),
            (3, 2),
            (2, 2),
            (1, 2),
            (16, 1),
            (12, 1),
            (9, 1),
            (8, 1),
            (6, 1),
            (4, 1),
            (3, 1),
            (1, 1),
        ],
        Isa::Avx2 => &[
            (4, 3),
            (6, 2),
            (5, 2),
            (4, 2),
            (3, 2),
            (2, 2),
            (1, 2),
            (12, 1),
            (9, 1),
            (8, 1),
            (6, 1),
            (4, 1),
            (3, 1),
            (1, 1),
        ],
        Isa::Portable => &[(4, 1), (3, 1), (2, 1), (1, 1)],
    }
}

/// The cut of one weight gradient. All that bears on the result's bits follows from the shape: the chunks and their tree.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) shape: Conv2dShape,
    pub(super) geometry: Geometry,
    /// Input channels and vectors of output channels of a tile.
    pub(super) mr: usize,
    pub(super) nv: usize,
    /// Output channels of a tile.
    pub(super) width: usize,
    pub(super) channel_tiles: usize,
    pub(super) output_tiles: usize,
    pub(super) taps: usize,
    /// Chunks and strips consist of this many pixels, or a multiple.
    unit: usize,
    pub(super) chunks: usize,
    /// A slot sums `1 << slot_bits` chunks.
    pub(super) slot_bits: u32,
    pub(super) slots: usize,
    strip_units: usize,
    /// Strips packed at a time.
    pub(super) pack_strips: usize,
    /// Tiles of input channels that pass together over all output channels.
    pub(super) block: usize,
    /// Floats of one tile's packed strip, with a gap that keeps panels off the same cache sets.
    pub(super) x_panel: usize,
    pub(super) dy_panel: usize,
    /// The microkernel reads the input's (or the output gradient's) pixels where they lie: those of a pointwise filter, whose
    /// tiles are full.
    pub(super) x_in_place: bool,
    pub(super) dy_in_place: bool,
    /// Each tile is finished in registers and one small buffer: no sums wait in memory.
    pub(super) direct: bool,
}

/// What one thread does at a time.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) slot: usize,
    pub(super) group: usize,
    pub(super) outputs: Range<usize>,
    pub(super) channels: Range<usize>,
}

impl Cut {
    pub(super) fn new(shape: &Conv2dShape, isa: Isa) -> Self {
        let (fold, mr, nv) = choose_tile(shape, isa);
        let geometry = Geometry::new(shape, fold);
        let width = nv * isa.lanes();
        let (columns, pixels) = (geometry.columns.output, geometry.pixels());
        let unit = if columns <= CHUNK_PIXELS && !geometry.flat { columns } else { 1 };
        let chunks = (pixels / unit).div_ceil(CHUNK_PIXELS / unit).max(1);
        let slot_bits = chunks.div_ceil(MAX_SLOTS).next_power_of_two().trailing_zeros();
        let mut cut = Cut {
            shape: *shape,
            geometry,
            mr,
            nv,
            width,
            channel_tiles: geometry.channels.div_ceil(mr),
            output_tiles: shape.oc_per_group().div_ceil(width),
            taps: geometry.taps(),
            unit,
            chunks,
            slot_bits,
            slots: chunks.div_ceil(1 << slot_bits),
            strip_units: 0,
            pack_strips: 1,
            block: 1,
            x_panel: 0,
            dy_panel: 0,
            x_in_place: reads_in_place(shape, fold, mr),
            dy_in_place: false,
            direct: false,
        };
        // The gradient's pixels are packed where many tiles of input channels read each again.
        cut.dy_in_place = cut.x_in_place
            && cut.channel_tiles <= 8
            && shape.oc_per_group().is_multiple_of(width)
            && shape.oc <= IN_PLACE_PITCH;
        cut.cut_strips();
        cut
    }

    /// Strips: first for the first cache, then how many of them are packed together, then the panels' sizes.
    fn cut_strips(&mut self) {
        let g = &self.geometry;
        let (per_row, per_column) = if g.flat { (1, 1) } else { (g.rows.stride, g.columns.stride) };
        let pixel_bytes = 4 * (self.mr * per_row * per_column + self.width);
        let pixels = (STRIP_BYTES / pixel_bytes).max(16);
        let most =
            if g.flat || g.columns.output > CHUNK_PIXELS { usize::MAX } else { (MAX_PIECES - 1) * g.rows.output };
        self.strip_units = ((pixels + self.unit / 2) / self.unit).clamp(1, most);
        let (mut x_pixels, mut dy_pixels) = (0, 0);
        let mut strip = Strip::empty();
        for range in (0..self.chunks).flat_map(|chunk| (0..self.strips(chunk)).map(move |i| (chunk, i))) {
            let range = self.strip(range.0, range.1);
            strip.set(g, range.clone());
            (x_pixels, dy_pixels) = (strip.x_pixels.max(x_pixels), range.len().max(dy_pixels));
        }
        let panel = |floats: usize| floats.next_multiple_of(16) + 16;
        (self.x_panel, self.dy_panel) = (panel(x_pixels * self.mr), panel(dy_pixels * self.width));
        let strips = (0..self.chunks).map(|chunk| self.strips(chunk)).max().unwrap_or(1);
        let strip_floats = self.channel_tiles * self.x_panel + self.output_tiles * self.dy_panel;
        if self.group_floats() > SMALL_GRADIENT {
            let most = strips.clamp(1, MAX_STRIPS);
            if self.taps > 1 {
                self.pack_strips = (PACK_FLOATS / strip_floats).clamp(1, most);
            } else if self.chunks == 1 && strips <= 2 {
                // The gradient is written once instead of once a strip.
                self.pack_strips = strips;
            }
        }
        self.direct = self.chunks == 1 && strips <= self.pack_strips;
        self.block = (BLOCK_FLOATS / (self.pack_strips * self.x_panel)).clamp(1, self.channel_tiles);
    }

    pub(super) fn kernel_name(&self, isa: Isa) -> String {
        format!("conv2d_weight_grad_f32_{}x{}_{}", self.mr, self.width, isa.name())
    }

    /// The pixels of a chunk.
    pub(super) fn chunk(&self, chunk: usize) -> Range<usize> {
        let units = part(self.geometry.pixels() / self.unit, chunk, self.chunks);
        units.start * self.unit..units.end * self.unit
    }

    /// Number of strips of a chunk.
    pub(super) fn strips(&self, chunk: usize) -> usize {
        (self.chunk(chunk).len() / self.unit).div_ceil(self.strip_units)
    }

    /// The pixels of a strip.
    pub(super) fn strip(&self, chunk: usize, index: usize) -> Range<usize> {
        let pixels = self.chunk(chunk);
        let units = part(pixels.len() / self.unit, index, self.strips(chunk));
        pixels.start + units.start * self.unit..pixels.start + units.end * self.unit
    }

    /// The chunks of a slot.
    pub(super) fn slot(&self, slot: usize) -> Range<usize> {
        slot << self.slot_bits..((slot + 1) << self.slot_bits).min(self.chunks)
    }

    pub(super) fn tile_floats(&self) -> usize {
        self.mr * self.width
    }

    /// Floats of the tiles of a group: [output tiles][channel tiles][taps][tile].
    pub(super) fn group_floats(&self) -> usize {
        self.output_tiles * self.channel_tiles * self.taps * self.tile_floats()
    }

    /// Floats of all slots.
    pub(super) fn slots_floats(&self) -> usize {
        if self.direct { 0 } else { self.slots * self.shape.groups * self.group_floats() }
    }

    /// Floats of one thread: packed x, packed dy, sums.
    pub(super) fn thread_floats(&self) -> [usize; 3] {
        let packed = |in_place: bool, floats: usize| if in_place { 0 } else { self.pack_strips * floats };
        let x = packed(self.x_in_place, self.channel_tiles * self.x_panel);
        let dy = packed(self.dy_in_place, self.output_tiles * self.dy_panel);
        let sums = if self.direct {
            self.block * self.taps * self.tile_floats()
        } else {
            // One partial sum a level of the tree below the slot.
            self.slot_bits as usize * self.group_floats()
        };
        [x, dy, sums].map(|floats| floats.next_multiple_of(16) + 16)
    }

    /// How many parts the tiles of a slot are cut into for `threads` threads: (output channels, input channels).
    pub(super) fn splits(&self, threads: usize) -> (usize, usize) {
        let base = self.slots * self.shape.groups;
        // Cycles a pixel: multiply-adds, and packing at some 0.15 a float.
        let cost = |outputs: usize, channels: usize| {
            let (o, c) = (self.output_tiles.div_ceil(outputs), self.channel_tiles.div_ceil(channels));
            let sums = (o * c * self.taps * self.mr * self.nv) as f64 * 0.5;
            let pack = 0.15 * (o * self.width + c * self.mr) as f64;
            (base * outputs * channels).div_ceil(threads) as f64 * (sums + pack)
        };
        let most = if threads == 1 { 1 } else { (2 * threads).min(16) };
        let candidates =
            (1..=most.min(self.output_tiles)).flat_map(|o| (1..=most.min(self.channel_tiles)).map(move |c| (o, c)));
        candidates.min_by(|a, b| cost(a.0, a.1).total_cmp(&cost(b.0, b.1))).unwrap_or((1, 1))
    }

    /// Unit `index` of `slots * groups * splits`.
    pub(super) fn unit(&self, index: usize, splits: (usize, usize)) -> Unit {
        let (rest, o) = (index / splits.0, index % splits.0);
        let (rest, c) = (rest / splits.1, rest % splits.1);
        Unit {
            slot: rest / self.shape.groups,
            group: rest % self.shape.groups,
            outputs: part(self.output_tiles, o, splits.0),
            channels: part(self.channel_tiles, c, splits.1),
        }
    }
}

/// True where output pixels meet the input's pixels one by one, in the order in which they lie, and tiles of `mr` channels
/// are full.
fn reads_in_place(s: &Conv2dShape, fold: Fold, mr: usize) -> bool {
    let pointwise = s.kh * s.kw == 1 && s.pads == [0; 4] && s.stride == [1, 1];
    fold == Fold::None && pointwise && s.ic <= IN_PLACE_PITCH && s.ic_per_group().is_multiple_of(mr)
}

/// The fold and the tile of least estimated cycles a pixel.
fn choose_tile(s: &Conv2dShape, isa: Isa) -> (Fold, usize, usize) {
    let icg = s.ic_per_group();
    let mut best = (f64::INFINITY, (Fold::None, 1, 1));
    for fold in [Fold::None, Fold::Row, Fold::All] {
        let (channels, taps) = match fold {
            Fold::None => (icg, s.kh * s.kw),
            Fold::Row => (s.kw * icg, s.kh),
            Fold::All => (s.kh * s.kw * icg, 1),
        };
        let useful = match fold {
            Fold::None => true,
            Fold::Row => s.kw > 1 && channels <= MAX_FOLDED,
            Fold::All => s.kh > 1 && channels <= MAX_FOLDED,
        };
        if !useful {
            continue;
        }
        // Gathering costs more than copying; a row is packed once for the filter rows that see it.
        let pack = match fold {
            Fold::None => 0.15 * channels as f64,
            Fold::Row => 4.0 + 0.25 * channels as f64,
            Fold::All => 20.0 + 0.5 * channels as f64,
        };
        for &(mr, nv) in tiles_of(isa) {
            let width = nv * isa.lanes();
            let tiles = channels.div_ceil(mr) * s.oc_per_group().div_ceil(width) * taps;
            // Two multiply-adds and two loads a cycle; a multiply-add takes four cycles.
            let cycles = ((mr * nv) as f64 * 0.5).max((mr + nv) as f64 * 0.5).max(4.0) + 0.4;
            let copies = !reads_in_place(s, fold, mr);
            let total = tiles as f64 * cycles + if copies { pack } else { 0.0 };
            if total < best.0 * 0.999 {
                best = (total, (fold, mr, nv));
            }
        }
    }
    best.1
}
