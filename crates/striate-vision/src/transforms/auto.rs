//! Augmentation without settings: TrivialAugment (Müller & Hutter, ICCV 2021) and RandAugment (Cubuk et al., NeurIPS 2020).

use super::affine::{affine, affine_matrix, rotate};
use super::{
    Draws, Interpolation, Scratch, Transform, TransformError, adjust_brightness, adjust_contrast, adjust_saturation,
    adjust_sharpness, autocontrast, equalize, posterize, solarize,
};
use crate::data::Image;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

const OPS: [Op; 14] = [
    Op::Identity,
    Op::ShearX,
    Op::ShearY,
    Op::TranslateX,
    Op::TranslateY,
    Op::Rotate,
    Op::Brightness,
    Op::Color,
    Op::Contrast,
    Op::Sharpness,
    Op::Posterize,
    Op::Solarize,
    Op::AutoContrast,
    Op::Equalize,
];

/// How the strengths of one policy go, at bin 0 and at the last.
struct Ranges {
    shear: f64,
    translate: [f64; 2],
    rotate: f64,
    enhance: f64,
    /// Bits that are lost at the last bin.
    posterize: f64,
}

/// Strength of an operation at a bin, and whether it may be negative.
fn magnitude(op: Op, bin: usize, bins: usize, ranges: &Ranges) -> (f64, bool) {
    let part = bin as f64 / (bins - 1).max(1) as f64;
    match op {
        Op::Identity | Op::AutoContrast | Op::Equalize => (0.0, false),
        Op::ShearX | Op::ShearY => (ranges.shear * part, true),
        Op::TranslateX => (ranges.translate[0] * part, true),
        Op::TranslateY => (ranges.translate[1] * part, true),
        Op::Rotate => (ranges.rotate * part, true),
        Op::Brightness | Op::Color | Op::Contrast | Op::Sharpness => (ranges.enhance * part, true),
        Op::Posterize => ((8.0 - ranges.posterize * part).round_ties_even(), false),
        Op::Solarize => (255.0 * (1.0 - part), false),
    }
}

fn run_op(op: Op, strength: f64, image: &mut Image, how: (Interpolation, [u8; 3]), scratch: &mut Scratch) {
    let shear = |s: f64| s.atan().to_degrees();
    let mut warp = |translate: [f64; 2], shear: [f64; 2]| {
        let matrix = affine_matrix([0.0, 0.0], 0.0, translate, 1.0, shear);
        affine(image, &matrix, how.0, how.1, scratch);
    };
    match op {
        Op::Identity => {}
        Op::ShearX => warp([0.0, 0.0], [shear(strength), 0.0]),
        Op::ShearY => warp([0.0, 0.0], [0.0, shear(strength)]),
        Op::TranslateX => warp([strength.trunc(), 0.0], [0.0, 0.0]),
        Op::TranslateY => warp([0.0, strength.trunc()], [0.0, 0.0]),
        Op::Rotate => rotate(image, strength, false, how.0, how.1, scratch),
        Op::Brightness => adjust_brightness(image, 1.0 + strength),
        Op::Color => adjust_saturation(image, 1.0 + strength),
        Op::Contrast => adjust_contrast(image, 1.0 + strength),
        Op::Sharpness => adjust_sharpness(image, 1.0 + strength, scratch),
        Op::Posterize => posterize(image, strength as u32),
        Op::Solarize => solarize(image, strength),
        Op::AutoContrast => autocontrast(image),
        Op::Equalize => equalize(image),
    }
}

fn signed(strength: f64, may_be_negative: bool, draws: &mut Draws) -> f64 {
    if may_be_negative && draws.chance(0.5) { -strength } else { strength }
}

/// `torchvision.transforms.TrivialAugmentWide`: one operation of 14, at a strength drawn evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrivialAugmentWide {
    /// Number of strengths.
    pub num_magnitude_bins: usize,
    /// How to resample.
    pub interpolation: Interpolation,
    /// The colour of what comes from outside.
    pub fill: [u8; 3],
}

impl Default for TrivialAugmentWide {
    /// 31 bins, nearest, black.
    fn default() -> Self {
        Self { num_magnitude_bins: 31, interpolation: Interpolation::Nearest, fill: [0; 3] }
    }
}

impl Transform for TrivialAugmentWide {
    fn apply(&self, image: &mut Image, draws: &mut Draws, scratch: &mut Scratch) -> Result<(), TransformError> {
        let ranges = Ranges { shear: 0.99, translate: [32.0, 32.0], rotate: 135.0, enhance: 0.99, posterize: 6.0 };
        let op = OPS[draws.below(OPS.len())];
        let bin = draws.below(self.num_magnitude_bins);
        let (strength, sign) = magnitude(op, bin, self.num_magnitude_bins, &ranges);
        let strength = signed(strength, sign, draws);
        run_op(op, strength, image, (self.interpolation, self.fill), scratch);
        Ok(())
    }
}

/// `torchvision.transforms.RandAugment`: some operations of 14 at one strength.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandAugment {
    /// Operations for each picture.
    pub num_ops: usize,
    /// The strength, below `num_magnitude_bins`.
    pub magnitude: usize,
    /// Number of strengths.
    pub num_magnitude_bins: usize,
    /// How to resample.
    pub interpolation: Interpolation,
    /// The colour of what comes from outside.
    pub fill: [u8; 3],
}

impl Default for RandAugment {
    /// 2 operations at strength 9 of 31, nearest, black.
    fn default() -> Self {
        let interpolation = Interpolation::Nearest;
        Self { num_ops: 2, magnitude: 9, num_magnitude_bins: 31, interpolation, fill: [0; 3] }
    }
}

impl Transform for RandAugment {
    fn apply(&self, image: &mut Image, draws: &mut Draws, scratch: &mut Scratch) -> Result<(), TransformError> {
        for _ in 0..self.num_ops {
            let (w, h) = (image.width as f64, image.height as f64);
            let translate = [150.0 / 331.0 * w, 150.0 / 331.0 * h];
            let ranges = Ranges { shear: 0.3, translate, rotate: 30.0, enhance: 0.9, posterize: 4.0 };
            let op = OPS[draws.below(OPS.len())];
            let (strength, sign) = magnitude(op, self.magnitude, self.num_magnitude_bins, &ranges);
            let strength = signed(strength, sign, draws);
            run_op(op, strength, image, (self.interpolation, self.fill), scratch);
        }
        Ok(())
    }
}
