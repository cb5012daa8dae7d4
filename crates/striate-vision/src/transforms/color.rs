//! Changes of colour, as PIL's ImageEnhance and ImageOps have them.

use super::{Draws, Scratch, Transform, TransformError};
use crate::data::{Image, luma};

/// PIL's `blend`: from `base` (factor 0) over `value` (factor 1) and beyond, cut to bytes, fractions dropped.
#[inline]
fn blend(base: u8, value: u8, factor: f32) -> u8 {
    let mixed = f32::from(base) + factor * (f32::from(value) - f32::from(base));
    // The cast saturates, and drops the fraction.
    mixed as u8
}

/// 0 is black, 1 leaves the picture, 2 is twice as bright.
pub fn adjust_brightness(image: &mut Image, factor: f64) {
    let table: [u8; 256] = std::array::from_fn(|v| blend(0, v as u8, factor as f32));
    apply_table(image, &table);
}

/// 0 is the grey of the mean, 1 leaves the picture.
pub fn adjust_contrast(image: &mut Image, factor: f64) {
    let pixels = (image.width * image.height) as f64;
    let sum: u64 = match image.channels {
        1 => image.data.iter().map(|&v| u64::from(v)).sum(),
        _ => image.data.chunks_exact(3).map(|p| u64::from(luma(p[0], p[1], p[2]))).sum(),
    };
    let mean = (sum as f64 / pixels + 0.5) as u8;
    let table: [u8; 256] = std::array::from_fn(|v| blend(mean, v as u8, factor as f32));
    apply_table(image, &table);
}

/// 0 is grey, 1 leaves the picture. Grey pictures stay.
pub fn adjust_saturation(image: &mut Image, factor: f64) {
    if image.channels == 1 {
        return;
    }
    for p in image.data.chunks_exact_mut(3) {
        let grey = luma(p[0], p[1], p[2]);
        p.iter_mut().for_each(|v| *v = blend(grey, *v, factor as f32));
    }
}

/// Turns the hue by `factor` (-0.5 to 0.5) of a circle. Grey pictures stay.
pub fn adjust_hue(image: &mut Image, factor: f64) {
    if image.channels == 1 {
        return;
    }
    let shift = (factor * 255.0) as i32 as u8;
    for p in image.data.chunks_exact_mut(3) {
        let [h, s, v] = to_hsv(p[0], p[1], p[2]);
        p.copy_from_slice(&from_hsv(h.wrapping_add(shift), s, v));
    }
}

fn to_hsv(r: u8, g: u8, b: u8) -> [u8; 3] {
    let (high, low) = (r.max(g).max(b), r.min(g).min(b));
    if high == low {
        return [0, 0, high];
    }
    let range = f32::from(high - low);
    let saturation = range / f32::from(high);
    let [rc, gc, bc] = [r, g, b].map(|v| f32::from(high - v) / range);
    let hue = if r == high {
        bc - gc
    } else if g == high {
        (2.0 + f64::from(rc) - f64::from(bc)) as f32
    } else {
        (4.0 + f64::from(gc) - f64::from(rc)) as f32
    };
    let hue = ((f64::from(hue) / 6.0 + 1.0) % 1.0) as f32;
    [(f64::from(hue) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, high]
}

fn from_hsv(h: u8, s: u8, v: u8) -> [u8; 3] {
    if s == 0 {
        return [v; 3];
    }
    let sector = (f32::from(h) * 6.0 / 255.0).floor();
    let rest = f32::from(h) * 6.0 / 255.0 - sector;
    let saturation = f32::from(s) / 255.0;
    let value = f32::from(v);
    let round = |x: f32| x.round() as u8;
    let p = round(value * (1.0 - saturation));
    let q = round(value * (1.0 - saturation * rest));
    let t = round(value * (1.0 - saturation * (1.0 - rest)));
    match sector as u8 % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}

/// 0 is smoothed (3x3, the centre weighs 5 of 13), 1 leaves the picture, more sharpens.
pub fn adjust_sharpness(image: &mut Image, factor: f64, scratch: &mut Scratch) {
    let (w, h, c) = (image.width, image.height, image.channels);
    if w < 3 || h < 3 {
        return;
    }
    let smooth = &mut scratch.spare;
    smooth.copy_from(image);
    let pitch = w * c;
    for y in 1..h - 1 {
        for i in c..pitch - c {
            let at = y * pitch + i;
            let sum: u32 = [at - pitch, at, at + pitch]
                .iter()
                .map(|&m| u32::from(image.data[m - c]) + u32::from(image.data[m]) + u32::from(image.data[m + c]))
                .sum::<u32>()
                + 4 * u32::from(image.data[at]);
            smooth.data[at] = ((sum * 2 + 13) / 26) as u8;
        }
    }
    for (value, &base) in image.data.iter_mut().zip(&smooth.data) {
        *value = blend(base, *value, factor as f32);
    }
}

fn apply_table(image: &mut Image, table: &[u8; 256]) {
    image.data.iter_mut().for_each(|v| *v = table[usize::from(*v)]);
}

/// Keeps the upper `bits` (0 to 8) of each value.
pub fn posterize(image: &mut Image, bits: u32) {
    let mask = !(0xFFu32 >> bits.min(8)) as u8;
    image.data.iter_mut().for_each(|v| *v &= mask);
}

/// Inverts values of `threshold` (0 to 255) and above.
pub fn solarize(image: &mut Image, threshold: f64) {
    image.data.iter_mut().filter(|v| f64::from(**v) >= threshold).for_each(|v| *v = 255 - *v);
}

/// Stretches each channel to 0..=255.
pub fn autocontrast(image: &mut Image) {
    per_channel(image, |histogram| {
        let low = histogram.iter().position(|&n| n > 0).unwrap_or(0);
        let high = histogram.iter().rposition(|&n| n > 0).unwrap_or(0);
        if high <= low {
            return None;
        }
        let scale = 255.0 / (high - low) as f64;
        let offset = -(low as f64) * scale;
        Some(std::array::from_fn(|v| (v as f64 * scale + offset) as u8))
    });
}

/// Makes each channel's histogram flat.
pub fn equalize(image: &mut Image) {
    per_channel(image, |histogram| {
        let last = histogram.iter().rposition(|&n| n > 0)?;
        let step = (histogram.iter().sum::<usize>() - histogram[last]) / 255;
        if histogram.iter().filter(|&&n| n > 0).count() <= 1 || step == 0 {
            return None;
        }
        let mut n = step / 2;
        Some(std::array::from_fn(|v| {
            let value = (n / step).min(255) as u8;
            n += histogram[v];
            value
        }))
    });
}

/// Maps each channel by the table that its histogram gives.
fn per_channel(image: &mut Image, table_of: impl Fn(&[usize; 256]) -> Option<[u8; 256]>) {
    let c = image.channels;
    for channel in 0..c {
        let mut histogram = [0usize; 256];
        image.data.iter().skip(channel).step_by(c).for_each(|&v| histogram[usize::from(v)] += 1);
        if let Some(table) = table_of(&histogram) {
            image.data.iter_mut().skip(channel).step_by(c).for_each(|v| *v = table[usize::from(*v)]);
        }
    }
}

/// `torchvision.transforms.ColorJitter`: the four changes in random order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ColorJitter {
    /// The factor is drawn from `max(0, 1 - brightness)` to `1 + brightness`.
    pub brightness: f64,
    /// As brightness.
    pub contrast: f64,
    /// As brightness.
    pub saturation: f64,
    /// The shift is drawn from `-hue` to `hue`; at most 0.5.
    pub hue: f64,
}

impl Transform for ColorJitter {
    fn apply(&self, image: &mut Image, draws: &mut Draws, _: &mut Scratch) -> Result<(), TransformError> {
        let mut order = [0, 1, 2, 3];
        for i in (1..4).rev() {
            order.swap(i, draws.below(i + 1));
        }
        let mut factor = |amount: f64| draws.range((1.0 - amount).max(0.0), 1.0 + amount);
        let (brightness, contrast, saturation) =
            (factor(self.brightness), factor(self.contrast), factor(self.saturation));
        let hue = draws.range(-self.hue, self.hue);
        for which in order {
            match which {
                0 if self.brightness != 0.0 => adjust_brightness(image, brightness),
                1 if self.contrast != 0.0 => adjust_contrast(image, contrast),
                2 if self.saturation != 0.0 => adjust_saturation(image, saturation),
                3 if self.hue != 0.0 => adjust_hue(image, hue),
                _ => {}
            }
        }
        Ok(())
    }
}

/// `torchvision.transforms.Grayscale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grayscale {
    /// 1, or 3 for three equal ones.
    pub channels: usize,
}

impl Transform for Grayscale {
    fn apply(&self, image: &mut Image, _: &mut Draws, _: &mut Scratch) -> Result<(), TransformError> {
        image.convert(1);
        image.convert(self.channels);
        Ok(())
    }
}
