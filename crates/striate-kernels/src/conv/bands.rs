//! Output pixels cut into bands: what one thread computes before it turns to the next.

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
    fn per_image(&self) -> usize {
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
}
