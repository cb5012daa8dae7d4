//! Which pixels of the input and of the output's gradient meet under a tap, for any range of output pixels.

use crate::conv::Conv2dShape;
use std::ops::Range;

/// What of the filter is folded into the channels, so that a tile of few input channels is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fold {
    /// Nothing: one pass over the pixels for each tap.
    None,
    /// The filter's columns: a channel is (kw, ic).
    Row,
    /// The whole filter: a channel is (kh, kw, ic).
    All,
}

/// One axis of the convolution after folding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) input: usize,
    pub(super) output: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    pub(super) pad: usize,
}

impl Axis {
    /// An axis along which input and output pixels are the same.
    fn identity(len: usize) -> Self {
        Axis { input: len, output: len, kernel: 1, stride: 1, dilation: 1, pad: 0 }
    }

    /// The outputs that see the input through tap `k`, and not the padding.
    #[inline]
    pub(super) fn outputs_of_tap(&self, k: usize) -> Range<usize> {
        let offset = k * self.dilation;
        let first = self.pad.saturating_sub(offset).div_ceil(self.stride);
        let end = (self.input + self.pad).saturating_sub(offset).div_ceil(self.stride).min(self.output);
        first.min(end)..end
    }

    /// The inputs that `outputs` (not empty) see through any tap.
    #[inline]
    fn inputs_of(&self, outputs: &Range<usize>) -> Range<usize> {
        let first = (outputs.start * self.stride).saturating_sub(self.pad);
        let last = (outputs.end - 1) * self.stride + (self.kernel - 1) * self.dilation + 1;
        let end = last.saturating_sub(self.pad).min(self.input);
        first.min(end)..end
    }
}

/// A convolution's pixels after folding: `images` maps of `rows.output * columns.output` pixels.
///
/// Pixels are numbered over all images; a range of them lies in one piece in the gradient of the output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) images: usize,
    pub(super) rows: Axis,
    pub(super) columns: Axis,
    pub(super) fold: Fold,
    /// Channels of a group after folding.
    pub(super) channels: usize,
    /// The map is one line of all output pixels: [`Fold::All`], and filters of one element.
    pub(super) flat: bool,
}

impl Geometry {
    pub(super) fn new(s: &Conv2dShape, fold: Fold) -> Self {
        let axis = |i: usize, input, output, kernel| Axis {
            input,
            output,
            kernel,
            stride: s.stride[i],
            dilation: s.dilation[i],
            pad: s.pads[i],
        };
        let icg = s.ic_per_group();
        let pointwise = s.kh * s.kw == 1 && s.pads == [0; 4];
        if fold == Fold::All || pointwise {
            let line = Axis::identity(s.n * s.oh() * s.ow());
            let channels = s.kh * s.kw * icg;
            return Geometry { images: 1, rows: Axis::identity(1), columns: line, fold, channels, flat: true };
        }
        let rows = axis(0, s.ih, s.oh(), s.kh);
        let (columns, channels) = match fold {
            Fold::Row => (Axis::identity(s.ow()), s.kw * icg),
            _ => (axis(1, s.iw, s.ow(), s.kw), icg),
        };
        Geometry { images: s.n, rows, columns, fold, channels, flat: false }
    }

    /// Output pixels of all images.
    pub(super) fn pixels(&self) -> usize {
        self.images * self.rows.output * self.columns.output
    }

    /// Passes over the pixels.
    pub(super) fn taps(&self) -> usize {
        self.rows.kernel * self.columns.kernel
    }
}

/// A rectangle of output pixels in one image, and the rectangle of input pixels that it sees.
#[derive(Clone, Debug, Default)]
pub(super) struct Piece {
    pub(super) image: usize,
    pub(super) out_rows: Range<usize>,
    pub(super) out_columns: Range<usize>,
    pub(super) in_rows: Range<usize>,
    pub(super) in_columns: Range<usize>,
    /// Where the rectangles begin in the strip, in pixels.
    pub(super) x_base: usize,
    pub(super) dy_base: usize,
}

/// Most pieces of one strip.
pub(super) const MAX_PIECES: usize = 32;

/// A range of output pixels cut into rectangles.
#[derive(Debug)]
pub(super) struct Strip {
    pieces: [Piece; MAX_PIECES],
    len: usize,
    /// Input pixels of all pieces.
    pub(super) x_pixels: usize,
}

impl Strip {
    pub(super) fn empty() -> Self {
        Strip { pieces: Default::default(), len: 0, x_pixels: 0 }
    }

    /// Cuts `pixels`, which must be so few that [`MAX_PIECES`] rectangles hold them.
    pub(super) fn set(&mut self, g: &Geometry, pixels: Range<usize>) {
        let (rows, columns) = (g.rows.output, g.columns.output);
        let line = pixels.start / columns;
        let (mut image, mut row, mut column) = (line / rows, line % rows, pixels.start % columns);
        let mut p = pixels.start;
        (self.len, self.x_pixels) = (0, 0);
        while p < pixels.end {
            let left = pixels.end - p;
            let whole = if column == 0 { (left / columns).min(rows - row) } else { 0 };
            let (out_rows, out_columns) = match whole {
                0 => (row..row + 1, column..columns.min(column + left)),
                n => (row..row + n, 0..columns),
            };
            let (in_rows, in_columns) = (g.rows.inputs_of(&out_rows), g.columns.inputs_of(&out_columns));
            let (x_base, dy_base) = (self.x_pixels, p - pixels.start);
            p += out_rows.len() * out_columns.len();
            self.x_pixels += in_rows.len() * in_columns.len();
            (row, column) = (out_rows.end - usize::from(out_columns.end < columns), out_columns.end % columns);
            self.pieces[self.len] = Piece { image, out_rows, out_columns, in_rows, in_columns, x_base, dy_base };
            self.len += 1;
            if row == rows {
                (image, row) = (image + 1, 0);
            }
        }
    }

    /// The first output pixel of a strip that is one line of pixels.
    #[inline]
    pub(super) fn first_pixel(&self) -> usize {
        self.pieces[0].out_columns.start
    }

    #[inline]
    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces[..self.len]
    }
}

/// One tap: its place, and the outputs that it lets see the input.
#[derive(Clone, Debug)]
pub(super) struct Tap {
    row: usize,
    column: usize,
    out_rows: Range<usize>,
    out_columns: Range<usize>,
}

/// The pixel pairs of one piece under one tap: `rows` lines of `columns` pixels each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pairs {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// First pixel in the strip of x and the distance of lines, in pixels.
    pub(super) x: usize,
    pub(super) x_pitch: usize,
    /// The same in dy.
    pub(super) dy: usize,
    pub(super) dy_pitch: usize,
}

impl Tap {
    pub(super) fn new(g: &Geometry, index: usize) -> Self {
        let (row, column) = (index / g.columns.kernel, index % g.columns.kernel);
        Tap { row, column, out_rows: g.rows.outputs_of_tap(row), out_columns: g.columns.outputs_of_tap(column) }
    }

    /// What of `piece` meets under this tap, if anything.
    #[inline(always)]
    pub(super) fn pairs(&self, g: &Geometry, piece: &Piece) -> Option<Pairs> {
        let clip = |a: &Range<usize>, b: &Range<usize>| a.start.max(b.start)..a.end.min(b.end);
        let (rows, columns) = (clip(&piece.out_rows, &self.out_rows), clip(&piece.out_columns, &self.out_columns));
        if rows.is_empty() || columns.is_empty() {
            return None;
        }
        let (width, out_width) = (piece.in_columns.len(), piece.out_columns.len());
        let in_row = rows.start * g.rows.stride + self.row * g.rows.dilation - g.rows.pad - piece.in_rows.start;
        let in_column = columns.start * g.columns.stride + self.column * g.columns.dilation
            - g.columns.pad
            - piece.in_columns.start;
        let out_row = rows.start - piece.out_rows.start;
        Some(Pairs {
            rows: rows.len(),
            columns: columns.len(),
            x: piece.x_base + in_row * width + in_column,
            x_pitch: g.rows.stride * width,
            dy: piece.dy_base + out_row * out_width + columns.start - piece.out_columns.start,
            dy_pitch: out_width,
        })
    }
}
