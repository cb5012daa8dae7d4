//! Test-time augmentation: a net looks at several views of each picture, and its probabilities are averaged.

use crate::Tta;
use striate_graph::{Array, Error, Result};
use striate_vision::transforms::{Preprocess, ResizeTo, TransformError};

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
    pub fn views(self, images: &Array, [height, width]: [usize; 2]) -> Result<Vec<Array>> {
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
                views.push(Array::from_vec([n, c, height, width], view)?);
            }
        }
        Ok(views)
    }
}

/// Logarithms of the mean of the softmax of several logits `[N, classes]`.
pub(crate) fn mean_logits(all: &[Array], classes: usize) -> Result<Array> {
    let mut sums = vec![0f64; all[0].numel()];
    for logits in all {
        for (row, sums) in logits.f32s()?.chunks_exact(classes).zip(sums.chunks_exact_mut(classes)) {
            let most = row.iter().copied().fold(f32::NEG_INFINITY, |a, b| if b > a || b.is_nan() { b } else { a });
            let powers = || row.iter().map(|&x| f64::from(x - most).exp());
            let total: f64 = powers().sum();
            sums.iter_mut().zip(powers()).for_each(|(sum, power)| *sum += power / total);
        }
    }
    let least = f64::from(f32::MIN);
    let log = |sum: f64| match (sum / all.len() as f64).ln() {
        log if log < least => f32::MIN,
        log => log as f32,
    };
    Array::from_vec(all[0].shape().clone(), sums.into_iter().map(log).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_the_centre_the_corners_and_their_mirrors() {
        let x = Array::from_vec([1, 1, 4, 4], (0..16).map(|v| v as f32).collect()).unwrap();
        let views = |tta: Tta| -> Vec<Vec<f32>> {
            let views = tta.views(&x, [2, 2]).unwrap();
            views.iter().map(|view| view.f32s().unwrap().to_vec()).collect()
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

    #[test]
    fn probabilities_are_averaged() {
        let logits = |values: Vec<f32>| Array::from_vec([1, 2], values).unwrap();
        let mean = mean_logits(&[logits(vec![0.0, 0.0]), logits(vec![0.0, f32::MIN])], 2).unwrap();
        let wanted = [0.75f32.ln(), 0.25f32.ln()];
        assert!(mean.f32s().unwrap().iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{mean}");
        let broken = mean_logits(&[logits(vec![f32::NAN, 0.0])], 2).unwrap();
        assert!(broken.f32s().unwrap().iter().all(|v| v.is_nan()));
    }
}
