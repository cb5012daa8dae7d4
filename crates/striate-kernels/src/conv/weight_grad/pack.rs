//! Packing of strips: [pixels][channels] becomes [tiles][pixels][channels of a tile], zeros where a tile is not full.

use super::geometry::{Fold, Geometry, Piece, Strip};
use crate::conv::Conv2dShape;
use std::ops::Range;

/// Most channels that a filter may be folded into.
pub(super) const MAX_FOLDED: usize = 256;

/// Pixels whose tiles are written together: whole cache lines are filled, few lines are open at a time.
const BLOCK: usize = 8;

/// Pixels in memory: `count` of them, `pitch` floats apart, `channels` floats each.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) src: *const f32,
    pub(super) pitch: usize,
    pub(super) count: usize,
    pub(super) channels: usize,
}

/// Where they go: pixel `first` of each of the panels, `panel` floats apart, with `width` channels a pixel.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    pub(super) dst: *mut f32,
    pub(super) panel: usize,
    pub(super) width: usize,
}

impl Panels {
    /// The panels from pixel `first` on.
    fn skip(self, first: usize) -> Self {
        // SAFETY: the caller's strip has this pixel; only `pack_run` writes through it.
        Panels { dst: unsafe { self.dst.add(first * self.width) }, ..self }
    }
}

/// Packs one run; `copy` moves one full tile of one pixel.
///
/// # Safety
/// The run is readable, the panels are writable for its pixels; `copy` moves `width` floats.
#[inline(always)]
pub(super) unsafe fn pack_run(run: Run, to: Panels, copy: impl Fn(*const f32, *mut f32)) {
    let (full, tail) = (run.channels / to.width, run.channels % to.width);
    let mut first = 0;
    while first < run.count {
        let pixels = first..run.count.min(first + BLOCK);
        // SAFETY: by contract, for each pixel and tile.
        unsafe {
            for tile in 0..full {
                for p in pixels.clone() {
                    copy(run.src.add(p * run.pitch + tile * to.width), to.dst.add(tile * to.panel + p * to.width));
                }
            }
            if tail > 0 {
                for p in pixels.clone() {
                    let (src, dst) =
                        (run.src.add(p * run.pitch + full * to.width), to.dst.add(full * to.panel + p * to.width));
                    for i in 0..to.width {
                        *dst.add(i) = if i < tail { *src.add(i) } else { 0.0 };
                    }
                }
            }
        }
        first = pixels.end;
    }
}

/// The input of a convolution, as packing reads it.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) shape: &'a Conv2dShape,
    pub(super) geometry: &'a Geometry,
    /// [N, IH, IW, IC].
    pub(super) x: *const f32,
    pub(super) group: usize,
    /// The folded channels to pack; starts at a tile's start.
    pub(super) channels: (usize, usize),
}

impl Input<'_> {
    /// Packs the input pixels of `strip`.
    ///
    /// # Safety
    /// `x` is the whole input; the panels hold the strip's input pixels; `copy` moves one full tile of one pixel.
    #[inline(always)]
    pub(super) unsafe fn pack(&self, strip: &Strip, to: Panels, copy: impl Fn(*const f32, *mut f32) + Copy) {
        let g = self.geometry;
        for piece in strip.pieces() {
            let width = piece.in_columns.len();
            for (i, row) in piece.in_rows.clone().enumerate() {
                let to = to.skip(piece.x_base + i * width);
                // SAFETY: by contract.
                unsafe {
                    match (g.flat, g.fold) {
                        (true, _) => self.pack_flat(piece.in_columns.clone(), to, copy),
                        (_, Fold::Row) => self.pack_folded_row(piece, row, to, copy),
                        _ => self.pack_plain_row(piece, row, to, copy),
                    }
                }
            }
        }
    }

    /// The address of the first channel of a pixel.
    fn pixel(&self, image: usize, row: usize, column: usize) -> *const f32 {
        let s = self.shape;
        let pixel = (image * s.ih + row) * s.iw + column;
        self.x.wrapping_add(pixel * s.ic + self.group * s.ic_per_group())
    }

    #[inline(always)]
    unsafe fn pack_plain_row(&self, piece: &Piece, row: usize, to: Panels, copy: impl Fn(*const f32, *mut f32)) {
        let (first, end) = self.channels;
        let src = self.pixel(piece.image, row, piece.in_columns.start).wrapping_add(first);
        let count = piece.in_columns.len();
        // SAFETY: the columns lie in the row.
        unsafe { pack_run(Run { src, pitch: self.shape.ic, count, channels: end - first }, to, copy) }
    }

    /// Filters of one element, or wholly folded ones: `pixels` counts output pixels of all images.
    #[inline(always)]
    unsafe fn pack_flat(&self, pixels: Range<usize>, to: Panels, copy: impl Fn(*const f32, *mut f32) + Copy) {
        let s = self.shape;
        let (first, end) = self.channels;
        let (oh, ow) = (s.oh(), s.ow());
        let plain = s.kh * s.kw == 1 && s.pads == [0; 4];
        // SAFETY: every pixel read is inside the input: without padding a single tap is, and `gather` checks.
        unsafe {
            if plain && (oh, ow) == (s.ih, s.iw) {
                let src = self.pixel(0, 0, pixels.start).wrapping_add(first);
                return pack_run(Run { src, pitch: s.ic, count: pixels.len(), channels: end - first }, to, copy);
            }
            let mut p = pixels.start;
            while p < pixels.end {
                let (line, column) = (p / ow, p % ow);
                let (image, row) = (line / oh, line % oh);
                let count = (ow - column).min(pixels.end - p);
                let to = to.skip(p - pixels.start);
                if plain {
                    let src = self.pixel(image, row * s.stride[0], column * s.stride[1]).wrapping_add(first);
                    let pitch = s.stride[1] * s.ic;
                    pack_run(Run { src, pitch, count, channels: end - first }, to, copy);
                } else {
                    for i in 0..count {
                        self.gather((image, row * s.stride[0], column + i), 0..s.kh, to.skip(i), copy);
                    }
                }
                p += count;
            }
        }
    }

    /// One input row whose channels are (kw, ic), one pixel for each output column.
    #[inline(always)]
    unsafe fn pack_folded_row(
        &self,
        piece: &Piece,
        row: usize,
        to: Panels,
        copy: impl Fn(*const f32, *mut f32) + Copy,
    ) {
        let s = self.shape;
        let (first, end) = self.channels;
        let columns = piece.in_columns.clone();
        // The columns whose whole filter row lies inside, which is one piece of memory then.
        let dense = s.groups == 1 && s.dilation[1] == 1 && s.iw >= s.kw;
        let inner = if dense {
            let low = s.pads[1].div_ceil(s.stride[1]).clamp(columns.start, columns.end);
            let high = ((s.iw - s.kw + s.pads[1]) / s.stride[1] + 1).clamp(low, columns.end);
            low..high
        } else {
            columns.start..columns.start
        };
        // SAFETY: inner columns are inside; `gather` checks the others. It takes the row before padding is taken off.
        unsafe {
            for column in (columns.start..inner.start).chain(inner.end..columns.end) {
                let to = to.skip(column - columns.start);
                self.gather((piece.image, row + s.pads[0], column), 0..1, to, copy);
            }
            if !inner.is_empty() {
                let src = self.pixel(piece.image, row, inner.start * s.stride[1] - s.pads[1]).wrapping_add(first);
                let run = Run { src, pitch: s.stride[1] * s.ic, count: inner.len(), channels: end - first };
                pack_run(run, to.skip(inner.start - columns.start), copy);
            }
        }
    }

    /// One pixel whose channels are (kh, kw, ic), zero where the tap lies in the padding. `at` is the image, the first tap's
    /// row in the padded input, and the output column.
    #[inline(always)]
    unsafe fn gather(
        &self,
        at: (usize, usize, usize),
        taps: Range<usize>,
        to: Panels,
        copy: impl Fn(*const f32, *mut f32),
    ) {
        let s = self.shape;
        let icg = s.ic_per_group();
        let (image, padded_row, out_column) = at;
        let mut channels = [0f32; MAX_FOLDED];
        for (i, kh) in taps.enumerate() {
            let row = (padded_row + kh * s.dilation[0]).wrapping_sub(s.pads[0]);
            for kw in 0..s.kw {
                let column = (out_column * s.stride[1] + kw * s.dilation[1]).wrapping_sub(s.pads[1]);
                if row < s.ih && column < s.iw {
                    let dst = &mut channels[(i * s.kw + kw) * icg..][..icg];
                    // SAFETY: a pixel of the input; its group's channels.
                    dst.copy_from_slice(unsafe { std::slice::from_raw_parts(self.pixel(image, row, column), icg) });
                }
            }
        }
        let (first, end) = self.channels;
        // SAFETY: the channels are inside the array, whose length bounds every fold.
        unsafe {
            pack_run(Run { src: channels[first..].as_ptr(), pitch: 0, count: 1, channels: end - first }, to, copy)
        }
    }
}
