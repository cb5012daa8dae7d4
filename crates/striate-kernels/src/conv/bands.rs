//! Output pixels cut into bands: what one thread computes before it turns to the next.

use super::stats;
use std::ops::Range;

/// The bands of a map of output pixels, each some rows of one image or several whole images.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bands {
    pub images: usize,
    /// Rows and columns of the output.
    pub out: [usize; 2],
    /// Rows of an image, and images, in one band.
    pub band_rows: usize,
    pub band_images: usize,
}

/// Part of the output whose source is packed (or read) together.
pub(super) struct Band {
    pub images: Range<usize>,
    pub rows: Range<usize>,
}

impl Bands {
    /// Bands of `band_rows` rows of one image.
    pub fn of_rows(images: usize, out: [usize; 2], band_rows: usize) -> Self {
        Bands { images, out, band_rows, band_images: 1 }
    }

    pub fn per_image(&self) -> usize {
        self.out[0].div_ceil(self.band_rows)
    }

    /// Number of bands.
    pub fn count(&self) -> usize {
        match self.images * self.out[0] * self.out[1] {
            0 => 0,
            _ => self.images.div_ceil(self.band_images) * self.per_image(),
        }
    }

    pub fn get(&self, index: usize) -> Band {
        let per_image = self.per_image();
        let (image, row) = (index / per_image * self.band_images, index % per_image * self.band_rows);
        Band {
            images: image..(image + self.band_images).min(self.images),
            rows: row..(row + self.band_rows).min(self.out[0]),
        }
    }

    /// Output pixels of a band.
    pub fn pixels(&self, band: &Band) -> usize {
        band.images.len() * band.rows.len() * self.out[1]
    }

    /// Output pixels of the largest band.
    pub fn most_pixels(&self) -> usize {
        self.band_images * self.band_rows * self.out[1]
    }

    /// The image and the rows of a band that has one image.
    pub fn image_rows(&self, index: usize) -> (usize, Range<usize>) {
        let Band { images, rows } = self.get(index);
        (images.start, rows)
    }

    /// Pixels of each block of the statistics, in order; the shape alone decides.
    pub fn stat_blocks(&self) -> Vec<usize> {
        let pixels = |index| self.pixels(&self.get(index));
        (0..self.count()).flat_map(|index| stats::split_to(pixels(index), self.stat_blocks_per_band())).collect()
    }

    /// Statistics blocks of the largest band, and of all.
    pub fn stat_blocks_per_band(&self) -> usize {
        stats::split(self.most_pixels()).count()
    }
}
