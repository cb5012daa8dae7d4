//! What happens to a picture and its mask together.

use super::geometry::{Window, crop_window};
use super::{Draws, Interpolation, PaddingMode, Scratch, horizontal_flip, resize};
use crate::data::Image;

/// The class that counts for nothing.
pub(crate) const IGNORED: u8 = 255;

/// A random size, then a random part of it, mirrored at times: torchvision's reference for segmentation. The picture is resampled,
/// the mask takes the nearest pixel. What is too small gets a border that counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmentCrop {
    /// Height and width of the result.
    pub size: [usize; 2],
    /// Least and largest factor of the size before the crop.
    pub scale: [f64; 2],
    /// Probability of left becoming right.
    pub flip: f64,
    /// The colour of the border; grey takes the first.
    pub fill: [u8; 3],
    /// How to resample the picture.
    pub interpolation: Interpolation,
}

impl SegmentCrop {
    /// Only brought to this size.
    pub fn plain(size: [usize; 2]) -> SegmentCrop {
        SegmentCrop { size, scale: [1.0, 1.0], flip: 0.0, fill: [0; 3], interpolation: Interpolation::Bilinear }
    }

    /// Changes both in place.
    pub fn apply(&self, image: &mut Image, mask: &mut Image, draws: &mut Draws, scratch: &mut Scratch) {
        let scale = draws.range(self.scale[0], self.scale[1]);
        let [height, width] = self.size;
        let [full_height, full_width] = self.size.map(|side| ((side as f64 * scale).round() as usize).max(1));
        resize(image, full_width, full_height, self.interpolation, scratch);
        resize(mask, full_width, full_height, Interpolation::Nearest, scratch);
        // From the first to the last place at which the smaller lies within the larger.
        let mut place = |full: usize, part: usize| {
            let at = draws.below(full.abs_diff(part) + 1) as isize;
            if full >= part { at } else { -at }
        };
        let (top, left) = (place(full_height, height), place(full_width, width));
        let window = Window { top, left, height, width };
        crop_window(image, window, PaddingMode::Constant, self.fill, scratch);
        crop_window(mask, window, PaddingMode::Constant, [IGNORED; 3], scratch);
        if draws.chance(self.flip) {
            horizontal_flip(image);
            horizontal_flip(mask);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Left half black, right half white; the mask says so.
    fn halves() -> (Image, Image) {
        let row = |one: u8| (0..20).map(|x| if x < 10 { 0 } else { one }).collect::<Vec<u8>>().repeat(12);
        (Image::new(20, 12, 1, row(255)).unwrap(), Image::new(20, 12, 1, row(1)).unwrap())
    }

    #[test]
    fn picture_and_mask_stay_together() {
        let crop = SegmentCrop { scale: [0.5, 2.0], flip: 0.5, fill: [90; 3], ..SegmentCrop::plain([16, 16]) };
        let (mut borders, mut mirrored) = (0, 0);
        for index in 0..60 {
            let (mut image, mut mask) = halves();
            crop.apply(&mut image, &mut mask, &mut Draws::new(0, "test", 0, index), &mut Scratch::default());
            assert_eq!((image.data.len(), mask.data.len()), (256, 256));
            // Where the neighbours are of another class the picture has values between.
            let between =
                |i: usize| mask.data[i.saturating_sub(1)..(i + 2).min(256)].iter().any(|c| *c != mask.data[i]);
            for (i, (pixel, class)) in image.data.iter().zip(&mask.data).enumerate() {
                match class {
                    &IGNORED => assert_eq!(*pixel, 90, "sample {index}"),
                    class if !between(i) => assert_eq!(*pixel, 255 * class, "sample {index}"),
                    _ => {}
                }
            }
            borders += usize::from(mask.data.contains(&IGNORED));
            let row = |y: usize| mask.data[y * 16..y * 16 + 16].iter().filter(|c| **c != IGNORED).collect::<Vec<_>>();
            mirrored += usize::from((0..16).any(|y| row(y).first() == Some(&&1) && row(y).last() == Some(&&0)));
        }
        assert!(borders > 5 && mirrored > 5, "{borders} {mirrored}");
    }

    #[test]
    fn plain_is_only_resized() {
        let (mut image, mut mask) = halves();
        let crop = SegmentCrop::plain([6, 10]);
        crop.apply(&mut image, &mut mask, &mut Draws::new(0, "test", 0, 0), &mut Scratch::default());
        assert_eq!((mask.width, mask.height, &mask.data[..10]), (10, 6, &[0, 0, 0, 0, 0, 1, 1, 1, 1, 1][..]));
        assert_eq!((image.data[0], image.data[9]), (0, 255));
    }
}
