//! Resampling to the bit as PIL does it: antialiased, in 22-bit fixed point, one axis after the other.

use super::{Draws, Scratch, Transform, TransformError};
use crate::data::Image;
use serde::{Deserialize, Serialize};

/// How values between pixels are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// The pixel that is hit.
    Nearest,
    /// A triangle over 2 pixels, wider where the picture shrinks.
    #[default]
    Bilinear,
    /// Keys' cubic (1981) with a = -1/2 over 4 pixels, wider where the picture shrinks.
    Bicubic,
}

impl Interpolation {
    /// All names.
    pub const NAMES: [&str; 3] = ["nearest", "bilinear", "bicubic"];
}

impl std::fmt::Display for Interpolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(Self::NAMES[*self as usize])
    }
}

impl std::str::FromStr for Interpolation {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "nearest" => Ok(Interpolation::Nearest),
            "bilinear" => Ok(Interpolation::Bilinear),
            "bicubic" => Ok(Interpolation::Bicubic),
            _ => Err(format!("`{text}` is none of {}", Self::NAMES.join(", "))),
        }
    }
}

/// Bits behind the point: 8 are for the pixel, 2 for overshoot of the cubic.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Taps of one axis: `weights[bounds[i].2..]` are `bounds[i].1` weights for the pixels from `bounds[i].0` on.
#[derive(Debug, Default)]
struct Taps {
    bounds: Vec<(usize, usize, usize)>,
    weights: Vec<i32>,
    raw: Vec<f64>,
    /// What the taps are for, so that pictures of one size share them.
    key: Option<(usize, usize, Interpolation)>,
}

impl Taps {
    fn prepare(&mut self, input: usize, output: usize, filter: Interpolation) {
        if self.key == Some((input, output, filter)) {
            return;
        }
        self.key = Some((input, output, filter));
        self.bounds.clear();
        self.weights.clear();
        let support = if filter == Interpolation::Bicubic { 2.0 } else { 1.0 };
        let scale = input as f64 / output as f64;
        let filter_scale = scale.max(1.0);
        let support = support * filter_scale;
        for i in 0..output {
            let center = (i as f64 + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            self.raw.clear();
            self.raw.extend((first..end).map(|x| weight(filter, (x as f64 - center + 0.5) * (1.0 / filter_scale))));
            let sum: f64 = self.raw.iter().sum();
            self.bounds.push((first, end - first, self.weights.len()));
            self.weights.extend(self.raw.iter().map(|w| {
                let w = if sum == 0.0 { *w } else { w / sum } * f64::from(1u32 << PRECISION_BITS);
                (w + if w < 0.0 { -0.5 } else { 0.5 }) as i32
            }));
        }
    }
}

fn weight(filter: Interpolation, x: f64) -> f64 {
    let x = x.abs();
    if filter != Interpolation::Bicubic {
        return (1.0 - x).max(0.0);
    }
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Buffers of [`resize`].
#[derive(Debug, Default)]
pub(crate) struct ResizeScratch {
    columns: Taps,
    rows: Taps,
    sums: Vec<i32>,
}

impl ResizeScratch {
    fn run_columns(&mut self, image: &mut Image, width: usize, filter: Interpolation, spare: &mut Image) {
        if image.width == width {
            return;
        }
        self.columns.prepare(image.width, width, filter);
        spare.reshape(width, image.height, image.channels);
        match image.channels {
            1 => resample_columns::<1>(image, &self.columns, spare),
            _ => resample_columns::<3>(image, &self.columns, spare),
        }
        std::mem::swap(image, spare);
    }

    fn run_rows(&mut self, image: &mut Image, height: usize, filter: Interpolation, spare: &mut Image) {
        if image.height == height {
            return;
        }
        self.rows.prepare(image.height, height, filter);
        spare.reshape(image.width, height, image.channels);
        resample_rows(image, &self.rows, &mut self.sums, spare);
        std::mem::swap(image, spare);
    }
}

#[inline]
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// Each row of [H, W, C] becomes a row of as many pixels as there are taps.
fn resample_columns<const C: usize>(source: &Image, taps: &Taps, out: &mut Image) {
    let rows = source.data.chunks_exact(source.width * C);
    for (row, target) in rows.zip(out.data.chunks_exact_mut(taps.bounds.len() * C)) {
        for (&(start, count, at), pixel) in taps.bounds.iter().zip(target.chunks_exact_mut(C)) {
            let mut sums = [HALF; C];
            let weights = &taps.weights[at..at + count];
            for (values, &w) in row[start * C..(start + count) * C].chunks_exact(C).zip(weights) {
                for c in 0..C {
                    sums[c] += i32::from(values[c]) * w;
                }
            }
            for c in 0..C {
                pixel[c] = clip(sums[c]);
            }
        }
    }
}

fn resample_rows(source: &Image, taps: &Taps, sums: &mut Vec<i32>, out: &mut Image) {
    let pitch = source.width * source.channels;
    for (&(start, count, at), target) in taps.bounds.iter().zip(out.data.chunks_exact_mut(pitch)) {
        sums.clear();
        sums.resize(pitch, HALF);
        for (k, &w) in taps.weights[at..at + count].iter().enumerate() {
            let row = &source.data[(start + k) * pitch..][..pitch];
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value) * w;
            }
        }
        for (byte, &sum) in target.iter_mut().zip(sums.iter()) {
            *byte = clip(sum);
        }
    }
}

fn resize_nearest(image: &mut Image, width: usize, height: usize, spare: &mut Image) {
    let c = image.channels;
    spare.reshape(width, height, c);
    // The source positions are added up, not multiplied: so are PIL's, and the last bit decides at exact halves.
    let positions = |input: usize, output: usize| {
        let step = input as f64 / output as f64;
        let mut at = step * 0.5;
        let mut list = Vec::with_capacity(output);
        for _ in 0..output {
            list.push((at as usize).min(input - 1));
            at += step;
        }
        list
    };
    let (columns, rows) = (positions(image.width, width), positions(image.height, height));
    for (&y, target) in rows.iter().zip(spare.data.chunks_exact_mut(width * c)) {
        let row = &image.data[y * image.width * c..][..image.width * c];
        for (&x, pixel) in columns.iter().zip(target.chunks_exact_mut(c)) {
            pixel.copy_from_slice(&row[x * c..x * c + c]);
        }
    }
    std::mem::swap(image, spare);
}

/// Resizes to `width` x `height`, as `PIL.Image.resize`: antialiased, except for nearest.
pub fn resize(image: &mut Image, width: usize, height: usize, interpolation: Interpolation, scratch: &mut Scratch) {
    let (width, height) = (width.max(1), height.max(1));
    if (image.width, image.height) == (width, height) {
        return;
    }
    if interpolation == Interpolation::Nearest {
        return resize_nearest(image, width, height, &mut scratch.spare);
    }
    // PIL's order since version 13: rows first where the height shrinks by much more than the width. Each pass rounds to bytes, so
    // the order decides bits.
    let (less_h, less_w) = (image.height as isize - height as isize, image.width as isize - width as isize);
    let spare = &mut scratch.spare;
    if less_h > 0 && less_h > 2 * less_w {
        scratch.resize.run_rows(image, height, interpolation, spare);
        scratch.resize.run_columns(image, width, interpolation, spare);
    } else {
        scratch.resize.run_columns(image, width, interpolation, spare);
        scratch.resize.run_rows(image, height, interpolation, spare);
    }
}

/// The size that [`Resize`] goes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeTo {
    /// The shorter side gets this length, the other keeps the proportion (rounded down).
    Shorter(usize),
    /// Height and width, whatever the proportion.
    Exact([usize; 2]),
    /// Just inside this height and width, the proportion kept, with grey on the right and below: as detectors see pictures.
    Letterbox([usize; 2]),
}

impl ResizeTo {
    /// Width and height that a picture of this width and height gets.
    pub fn target(&self, width: usize, height: usize) -> (usize, usize) {
        match *self {
            ResizeTo::Exact([h, w]) => (w, h),
            ResizeTo::Letterbox(frame) => {
                let [h, w] = super::Letterbox::fitted([height, width], frame);
                (w, h)
            }
            ResizeTo::Shorter(side) => {
                let (short, long) = (width.min(height), width.max(height));
                // Capped, so that a picture of 1 x 30000 pixels does not become an enormous one.
                let long = ((side * long) as f64 / short as f64).min(32_768.0) as usize;
                if width <= height { (side, long.max(side)) } else { (long.max(side), side) }
            }
        }
    }
}

/// `torchvision.transforms.Resize`, bilinear with antialias unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resize {
    /// The size to go for.
    pub to: ResizeTo,
    /// How to resample.
    pub interpolation: Interpolation,
}

impl Resize {
    /// The shorter side to this length.
    pub fn new(side: usize) -> Self {
        Self { to: ResizeTo::Shorter(side), interpolation: Interpolation::Bilinear }
    }

    /// To exactly this height and width.
    pub fn exact(height: usize, width: usize) -> Self {
        Self { to: ResizeTo::Exact([height, width]), interpolation: Interpolation::Bilinear }
    }

    /// With another interpolation.
    pub fn interpolation(self, interpolation: Interpolation) -> Self {
        Self { interpolation, ..self }
    }
}

impl Transform for Resize {
    fn apply(&self, image: &mut Image, _: &mut Draws, scratch: &mut Scratch) -> Result<(), TransformError> {
        let (width, height) = self.to.target(image.width, image.height);
        resize(image, width, height, self.interpolation, scratch);
        Ok(())
    }
}
