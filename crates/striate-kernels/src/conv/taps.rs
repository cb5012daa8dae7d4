//! The direct sum tap by tap: each tap multiplies the outputs that see the source through it, and no others.
//!
//! A tile of the direct kernel takes all taps that any of its pixels needs, and reads zeros for the others. Where filters reach far over the
//! edges of a small map that is most of the work. Here the sums of a band wait in memory, tap after tap is added to them where it sees the
//! source, and the source is read where it lies. The filters are read once a band, so what a sum of many channels costs is its products.
//!
//! An output is the sum over its taps, in order, of chains over the channels.

use super::bands::{Band, Bands};
use super::choose::{choose_nv, max_pixels};
use super::direct::{Buffers, Problem};
use super::engine::Plan;
use super::micro::{Block, run_pixels};
use super::stats::Done;
use crate::simd::{Isa, Simd};
use std::ops::Range;

/// The sums of a band should leave room in the second cache for the filters of some taps.
const BAND_BYTES: usize = 128 << 10;
/// Pieces of work that an image should have, so that threads can share it.
const MIN_ITEMS: usize = 4;
/// Pixels of a band of whole images: enough for tiles, where few of them see the source through a tap.
const BAND_PIXELS: usize = 128;
/// Pixels of one tap that take as long as its start.
const START: usize = 1;
/// Summed channels that take as long as reading and writing a sum once more.
const UPDATE: usize = 6;
/// What has to be saved of the direct kernel's products, in percent.
const LEAST_GAIN: usize = 7;

/// A planned sum; the counterpart of `Direct`.
#[derive(Clone, Debug)]
pub(super) struct Taps {
    problem: Problem,
    isa: Isa,
    nv: usize,
    bands: Bands,
    /// For each tap of a filter row: the output columns that see the source through it, and where the offsets of these pixels begin:
    /// row after row of a band, of all its images.
    columns: Vec<(Range<usize>, usize)>,
    /// Offsets of the pixels of all filter columns in the source, from the first of them, and in the sums.
    x_off: Vec<usize>,
    sum_off: Vec<usize>,
    /// Offsets of a band's outputs, in the same order.
    y_off: Vec<usize>,
}

/// The outputs of an axis that see the source through a tap.
fn outputs_seeing(p: &Problem, axis: usize, offset: isize) -> Range<usize> {
    let step = p.step[axis];
    let first = ((-offset).max(0) as usize).div_ceil(step);
    let end = ((p.src[axis] as isize - offset).max(0) as usize).div_ceil(step).min(p.out[axis]);
    first.min(end)..end
}

/// Products of pixels and taps that an image takes tap by tap, in units of the direct kernel's.
pub(super) fn cost(p: &Problem) -> usize {
    let seeing = |axis: usize| p.taps[axis].iter().map(move |tap| outputs_seeing(p, axis, tap.offset).len());
    let pixels = seeing(0).sum::<usize>() * seeing(1).sum::<usize>();
    let taps = p.taps[0].len() * p.taps[1].len();
    (pixels + START * taps) * (p.k_c + UPDATE) / p.k_c
}

/// Images of a band, at most as many as fit: bands of equal length.
fn choose_images(p: &Problem, fit: usize, blocks: usize) -> usize {
    let shared = p.n * p.groups * blocks / (2 * MIN_ITEMS);
    let most = fit.min(BAND_PIXELS / (p.out[0] * p.out[1])).min(shared).max(1);
    (1..=most).rev().find(|&images| p.n.is_multiple_of(images)).unwrap_or(1)
}

impl Taps {
    /// True where enough is saved.
    pub fn is_worth(p: &Problem) -> bool {
        let taps = p.taps[0].len() * p.taps[1].len();
        taps > 1 && cost(p) * 100 < p.out[0] * p.out[1] * taps * (100 - LEAST_GAIN)
    }

    pub fn new(problem: Problem, isa: Isa) -> Self {
        let p = &problem;
        let sum = p.k_c * p.taps[0].len() * p.taps[1].len();
        let nv = choose_nv(isa, p.m_c, sum, usize::MAX);
        let width = nv * isa.lanes();
        let rows = p.out[0];
        let shared = MIN_ITEMS.div_ceil(p.groups * p.m_c.div_ceil(width));
        let fits = BAND_BYTES / (4 * width * p.out[1]);
        let band = fits.min(rows.div_ceil(shared)).clamp(1, rows);
        let band_rows = rows.div_ceil(rows.div_ceil(band));
        let band_images = if band_rows == rows { choose_images(p, fits / rows, p.m_c.div_ceil(width)) } else { 1 };
        let (mut columns, mut x_off, mut sum_off) = (Vec::new(), Vec::new(), Vec::new());
        for tap in &p.taps[1] {
            let seeing = outputs_seeing(p, 1, tap.offset);
            columns.push((seeing.clone(), x_off.len()));
            for (r, image) in (0..band_rows).flat_map(|r| (0..band_images).map(move |image| (r, image))) {
                let x = r * p.step[0] * p.src_row + image * p.src_image;
                x_off.extend((0..seeing.len()).map(|c| x + c * p.step[1] * p.src_pitch));
                sum_off.extend(seeing.clone().map(|c| ((r * band_images + image) * p.out[1] + c) * width));
            }
        }
        let [row_pitch, pitch] = p.dst_pitches();
        let mut y_off = Vec::with_capacity(band_rows * band_images * p.out[1]);
        for (r, image) in (0..band_rows).flat_map(|r| (0..band_images).map(move |image| (r, image))) {
            let y = r * row_pitch + image * p.dst[0] * p.dst[1] * p.dst_pitch;
            y_off.extend((0..p.out[1]).map(|c| y + c * pitch));
        }
        let bands = Bands { images: p.n, out: p.out, band_rows, band_images };
        Taps { isa, nv, bands, columns, x_off, sum_off, y_off, problem }
    }

    /// Pixels and output channels of the largest tile.
    pub fn tile(&self) -> (usize, usize) {
        (max_pixels(self.isa, self.nv), self.nv * self.isa.lanes())
    }

    /// Used taps as kh * KW + kw, in the order of the sum: the order of the packed filters.
    pub fn used_taps(&self, kw: usize) -> Vec<usize> {
        self.problem.used_taps(kw)
    }

    pub fn nv(&self) -> usize {
        self.nv
    }

    fn vectors(&self) -> usize {
        self.problem.m_c.div_ceil(self.isa.lanes())
    }

    fn blocks(&self) -> usize {
        self.vectors().div_ceil(self.nv)
    }

    /// Floats of scratch that one thread needs: the sums of a band.
    pub fn band_len(&self) -> usize {
        self.y_off.len() * self.nv * self.isa.lanes()
    }

    /// Number of independent pieces of work: groups and blocks of output channels, and bands, in this order, so that filters stay in the cache.
    pub fn items(&self) -> usize {
        self.problem.groups * self.blocks() * self.bands.count()
    }

    /// The cost of one item, in multiply-adds.
    pub fn item_cost(&self) -> usize {
        let p = &self.problem;
        let pixels = cost(p) * p.k_c * self.y_off.len() / (p.out[0] * p.out[1]);
        pixels * (self.nv * self.isa.lanes()).min(p.m_c.next_multiple_of(self.isa.lanes()))
    }
}

impl Plan for Taps {
    fn isa(&self) -> Isa {
        self.isa
    }

    fn bands(&self) -> &Bands {
        &self.bands
    }

    #[inline(always)]
    unsafe fn run<S: Simd>(&self, s: S, b: &Buffers, range: Range<usize>, scratch: &mut [f32]) {
        let bands = self.bands.count();
        for item in range {
            let (unit, band) = (item / bands, item % bands);
            let place = Place::new(self, [unit / self.blocks(), unit % self.blocks()], band);
            multiply(s, self, b, scratch, &place);
            write(s, self, b, scratch, &place);
        }
    }
}

/// One block of output channels of one band.
struct Place {
    group: usize,
    /// The block's first channel within the group, its vectors and its channels.
    channel: usize,
    nv: usize,
    lanes: usize,
    band: usize,
    bounds: Band,
}

impl Place {
    fn new(plan: &Taps, [group, block]: [usize; 2], band: usize) -> Self {
        let lanes = plan.isa.lanes();
        let channel = block * plan.nv * lanes;
        let nv = plan.nv.min(plan.vectors() - block * plan.nv);
        let bounds = plan.bands.get(band);
        Place { group, channel, nv, lanes: (plan.problem.m_c - channel).min(nv * lanes), band, bounds }
    }
}

/// The sums of a band's outputs.
#[inline(always)]
fn multiply<S: Simd>(s: S, plan: &Taps, b: &Buffers, sums: &mut [f32], place: &Place) {
    let p = &plan.problem;
    let pitch = plan.nv * S::LANES;
    let width = place.nv * S::LANES;
    let (images, band_rows) = (&place.bounds.images, &place.bounds.rows);
    sums[..plan.bands.pixels(&place.bounds) * pitch].fill(0.0);
    let group_len = plan.vectors() * S::LANES * p.taps[0].len() * p.taps[1].len() * p.k_c;
    let filters = &b.packed[place.group * group_len + place.channel * (group_len / (plan.vectors() * S::LANES))..];
    for (t, tap) in p.taps[0].iter().enumerate() {
        let seeing = outputs_seeing(p, 0, tap.offset);
        let rows = seeing.start.max(band_rows.start)..seeing.end.min(band_rows.end);
        if rows.is_empty() {
            continue;
        }
        let source = (rows.start * p.step[0]) as isize + tap.offset;
        let x = images.start * p.src_image + source as usize * p.src_row + place.group * p.k_c;
        let y = (rows.start - band_rows.start) * images.len() * p.out[1] * pitch;
        for (c, ((columns, first), tap)) in plan.columns.iter().zip(&p.taps[1]).enumerate() {
            if columns.is_empty() {
                continue;
            }
            let source = (columns.start * p.step[1]) as isize + tap.offset;
            let sums = sums[y..].as_mut_ptr();
            let block = Block {
                x: b.x[x + source as usize * p.src_pitch..].as_ptr(),
                x_off: plan.x_off[*first..].as_ptr(),
                run: p.k_c,
                w: filters[(t * p.taps[1].len() + c) * p.k_c * width..].as_ptr(),
                y: sums,
                y_off: plan.sum_off[*first..].as_ptr(),
                tail: S::LANES,
                residual: sums,
                ..Block::BARE
            };
            run_pixels(s, plan.isa, (rows.len() * images.len() * columns.len(), place.nv), block);
        }
    }
}

/// Bias, residual, activation, mask and statistics of a band's outputs.
#[inline(always)]
fn write<S: Simd>(s: S, plan: &Taps, b: &Buffers, sums: &[f32], place: &Place) {
    let p = &plan.problem;
    let pitch = plan.nv * S::LANES;
    let channel = place.group * p.m_c + place.channel;
    let dst = p.dst_pixel(place.bounds.images.start, [place.bounds.rows.start, 0]) + channel;
    let offsets = &plan.y_off[..plan.bands.pixels(&place.bounds)];
    assert!(sums.len() >= offsets.len() * pitch);
    for (pixel, &offset) in offsets.iter().enumerate() {
        for lane in (0..place.lanes).step_by(S::LANES) {
            let (n, y) = ((place.lanes - lane).min(S::LANES), dst + offset + lane);
            // SAFETY: the sums have a vector for each, which was just checked; the outputs are this item's.
            unsafe {
                let mut sum = s.load(sums.as_ptr().add(pixel * pitch + lane));
                if let Some(bias) = b.bias {
                    sum = s.add(sum, s.load_partial(bias.as_ptr().add(channel + lane), n));
                }
                if let Some(residual) = b.residual {
                    sum = s.add(sum, s.load_partial(residual.as_ptr().add(y), n));
                }
                s.store_partial(b.y.as_mut_ptr().add(y), n, b.activation.apply_hot(s, sum));
            }
        }
    }
    let done = Done { at: dst, offsets, channel, lanes: place.lanes, channels: p.m_c * p.groups };
    // SAFETY: the outputs that were just written; their part of the partial statistics.
    unsafe {
        done.finish(s, b);
        done.statistics(s, b, &plan.bands, place.band);
    }
}
