//! Test-time augmentation: a net looks at several views of each picture, and what it says of them is averaged.

use crate::Tta;
use striate_graph::{Array, Error, Result};
use striate_vision::transforms::{Preprocess, ResizeTo, TransformError};

/// A view of a batch of pictures.
#[derive(Clone, Debug)]
pub struct View {
    /// [N, C, H, W]
    pub images: Array,
    /// Whether left is right.
    pub mirrored: bool,
}

impl Tta {
    fn flips(self) -> bool {
        matches!(self, Tta::Flip | Tta::All)
    }

    fn crops(self) -> bool {
        matches!(self, Tta::Crops | Tta::All)
    }

    /// What pictures go through so that the views can be cut out of them: for crops, the centred square of the shorter side.
    ///
    /// # Errors
    /// For crops, where `preprocess` leaves no border around its own crop.
    pub fn preprocess(self, preprocess: &Preprocess) -> std::result::Result<Preprocess, TransformError> {
        if !self.crops() {
            return Ok(preprocess.clone());
        }
        match (preprocess.resize, preprocess.crop) {
            (Some(ResizeTo::Shorter(side)), Some([h, w])) if side > h.max(w) => {
                Ok(Preprocess { crop: Some([side, side]), ..preprocess.clone() })
            }
            _ => Err(TransformError(format!(
                "crops need a shorter side that is longer than the crop; pictures are prepared as: {preprocess}; set --resize"
            ))),
        }
    }

    /// The views of pictures `[N, C, H, W]`, each `[N, C, height, width]`: the centre and the four corners for crops, each also
    /// mirrored left to right for flips.
    ///
    /// # Errors
    /// Pictures that are no f32 or smaller than the views.
    pub fn views(self, images: &Array, [height, width]: [usize; 2]) -> Result<Vec<View>> {
        let &[n, c, h, w] = images.shape().dims() else {
            return Err(Error::Internal(format!("pictures of shape {}", images.shape())));
        };
        let [height, width] = if self.crops() { [height, width] } else { [h, w] };
        let (down, right) = match (h.checked_sub(height), w.checked_sub(width)) {
            (Some(down), Some(right)) => (down, right),
            _ => return Err(Error::Internal(format!("views of {height}x{width} out of {h}x{w}"))),
        };
        let mut places = vec![[down / 2, right / 2]];
        if self.crops() {
            places.extend([[0, 0], [0, right], [down, 0], [down, right]]);
        }
        let values = images.f32s()?;
        let mut views = Vec::new();
        for [top, left] in places {
            for mirrored in [false, true].into_iter().filter(|mirrored| !mirrored || self.flips()) {
                let mut view = Vec::with_capacity(n * c * height * width);
                for plane in values.chunks_exact(h * w) {
                    for row in plane.chunks_exact(w).skip(top).take(height) {
                        let row = &row[left..left + width];
                        match mirrored {
                            true => view.extend(row.iter().rev()),
                            false => view.extend_from_slice(row),
                        }
                    }
                }
                views.push(View { images: Array::from_vec([n, c, height, width], view)?, mirrored });
            }
        }
        Ok(views)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_the_centre_the_corners_and_their_mirrors() {
        let x = Array::from_vec([1, 1, 4, 4], (0..16).map(|v| v as f32).collect()).unwrap();
        let views = |tta: Tta| -> Vec<Vec<f32>> {
            let views = tta.views(&x, [2, 2]).unwrap();
            views.iter().map(|view| view.images.f32s().unwrap().to_vec()).collect()
        };
        assert_eq!(views(Tta::None).len(), 1);
        assert_eq!(views(Tta::Flip)[1][..4], [3.0, 2.0, 1.0, 0.0]);
        let crops = views(Tta::Crops);
        assert_eq!(crops.len(), 5);
        assert_eq!((&crops[0][..], &crops[4][..]), (&[5.0, 6.0, 9.0, 10.0][..], &[10.0, 11.0, 14.0, 15.0][..]));
        let all = views(Tta::All);
        assert_eq!((all.len(), &all[1][..]), (10, &[6.0, 5.0, 10.0, 9.0][..]));
        assert!(Tta::Crops.views(&x, [5, 2]).is_err());
    }

    #[test]
    fn crops_need_a_border() {
        let usual = Preprocess::imagenet();
        assert_eq!(Tta::All.preprocess(&usual).unwrap().crop, Some([256, 256]));
        assert_eq!(Tta::Flip.preprocess(&usual).unwrap(), usual);
        let error = Tta::Crops.preprocess(&Preprocess::exact(28, 28, 1)).unwrap_err().to_string();
        assert!(error.contains("--resize"), "{error}");
    }
}
