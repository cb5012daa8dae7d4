//! What pictures go through before a detector: normalised, resized, padded to a batch.

use super::DetectError;
use crate::data::Image;
use striate_graph::Array;

/// A picture of bytes as detectors take it: `[3, H, W]` of values from 0 to 1; grey becomes three equal channels.
pub fn picture_array(image: &Image) -> Array {
    let mut values = Vec::with_capacity(3 * image.width * image.height);
    for channel in 0..3 {
        let bytes = image.data.iter().skip(channel.min(image.channels - 1)).step_by(image.channels);
        values.extend(bytes.map(|byte| f32::from(*byte) / 255.0));
    }
    Array::from_vec([3, image.height, image.width], values).expect("an image has height x width pixels")
}

/// How a picture's size is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureSize {
    /// Always this height and width, whatever the picture's aspect.
    Fixed([usize; 2]),
    /// The shorter side becomes `min`, or less where the longer one would be more than `max`.
    Shorter {
        /// Pixels of the shorter side.
        min: usize,
        /// Most pixels of the longer side.
        max: usize,
    },
    /// The picture is fitted into this height and width, its aspect kept, and the batch is always so large.
    Letterbox([usize; 2]),
}

/// torchvision's `GeneralizedRCNNTransform`: normalise, resize bilinearly without antialias, pad on the right and at the bottom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PictureTransform {
    /// The size.
    pub size: PictureSize,
    /// Mean of each channel, of values from 0 to 1.
    pub mean: [f32; 3],
    /// Deviation of each channel.
    pub std: [f32; 3],
    /// Height and width are padded to multiples of this.
    pub divisible: usize,
    /// What the padding has in each channel, of values from 0 to 1; the mean, so that it is zero when normalised, in torchvision's.
    pub fill: [f32; 3],
}

impl PictureTransform {
    /// By ImageNet's mean and deviation, padded to multiples of 32, as all but SSD have it.
    pub(super) const fn shorter(min: usize, max: usize) -> PictureTransform {
        let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        PictureTransform { size: PictureSize::Shorter { min, max }, mean, std, divisible: 32, fill: mean }
    }

    /// To a square.
    pub(super) const fn square(side: usize, mean: [f32; 3], std: [f32; 3]) -> PictureTransform {
        PictureTransform { size: PictureSize::Fixed([side, side]), mean, std, divisible: 1, fill: mean }
    }

    /// Fitted into a square beside grey (114 of 255), values from 0 to 1 as they are.
    pub(super) const fn letterbox(side: usize) -> PictureTransform {
        let (size, fill) = (PictureSize::Letterbox([side, side]), [114.0 / 255.0; 3]);
        PictureTransform { size, mean: [0.0; 3], std: [1.0; 3], divisible: 32, fill }
    }

    /// Height and width that a picture of these gets, before padding.
    ///
    /// ```
    /// use striate_vision::models::detection::Detector;
    /// let detector = Detector::untrained("retinanet_resnet50_fpn", 91)?;
    /// assert_eq!(detector.transform().resized([480, 640]), [800, 1066]);
    /// assert_eq!(detector.transform().padded([800, 1066]), [800, 1088]);
    /// # Ok::<(), striate_vision::models::ModelError>(())
    /// ```
    pub fn resized(&self, size: [usize; 2]) -> [usize; 2] {
        match self.size {
            PictureSize::Fixed(size) => size,
            PictureSize::Shorter { min, max } => {
                let [shorter, longer] = [size[0].min(size[1]), size[0].max(size[1])].map(|side| side as f64);
                let factor = (min as f64 / shorter).min(max as f64 / longer);
                size.map(|side| ((side as f64 * factor).floor() as usize).max(1))
            }
            PictureSize::Letterbox(frame) => {
                let [fy, fx] = [0, 1].map(|axis| frame[axis] as f64 / size[axis] as f64);
                let fitted = |axis: usize| (size[axis] as f64 * fx.min(fy)).round() as usize;
                [0, 1].map(|axis| fitted(axis).clamp(1, frame[axis]))
            }
        }
    }

    /// Height and width of the batch in which a resized picture lies.
    pub fn padded(&self, size: [usize; 2]) -> [usize; 2] {
        let size = if let PictureSize::Letterbox(frame) = self.size { frame } else { size };
        size.map(|side| side.next_multiple_of(self.divisible))
    }

    /// Pictures `[3, H, W]` of values from 0 to 1, all of the same size, as a batch `[N, 3, H', W']`.
    ///
    /// # Errors
    /// [`DetectError::Picture`] where one has another shape or type, or no pixels.
    pub fn batch(&self, pictures: &[&Array]) -> Result<Array, DetectError> {
        let size = pictures.first().map_or(Ok([0, 0]), |first| picture_size(first, 0))?;
        let resized = self.resized(size);
        let [height, width] = self.padded(resized);
        let axes = [0, 1].map(|axis| Axis::new(size[axis], resized[axis]));
        let mut values = vec![0f32; pictures.len() * 3 * height * width];
        let planes = values.chunks_exact_mut((height * width).max(1));
        let sources = pictures.iter().enumerate().flat_map(|(index, picture)| (0..3).map(move |c| (index, picture, c)));
        for ((index, picture, channel), plane) in sources.zip(planes) {
            if picture_size(picture, index)? != size {
                let why = format!("it is not {}x{} as the first one", size[0], size[1]);
                return Err(DetectError::Picture { index, why });
            }
            let pixels = size[0] * size[1];
            let (mean, std) = (self.mean[channel], self.std[channel]);
            let source = &picture.f32s()?[channel * pixels..][..pixels];
            let normalised: Vec<f32> = source.iter().map(|v| (v - mean) / std).collect();
            plane.fill((self.fill[channel] - mean) / std);
            resize_plane(&normalised, size[1], &axes, (plane, width));
        }
        Ok(Array::from_vec([pictures.len(), 3, height, width], values)?)
    }
}

/// Height and width of a picture.
pub(super) fn picture_size(picture: &Array, index: usize) -> Result<[usize; 2], DetectError> {
    match *picture.shape().dims() {
        [3, h, w] if h > 0 && w > 0 && picture.f32s().is_ok() => Ok([h, w]),
        _ => {
            let why = format!("it must be f32 [3, H, W], but it is {} {}", picture.dtype(), picture.shape());
            Err(DetectError::Picture { index, why })
        }
    }
}

/// Where the pixels of a resized axis come from: two neighbours and the weight of the second. Places are computed in f32, as
/// PyTorch does: at the far end of a long side they are off by 1e-4 of a pixel, and so they must be.
struct Axis(Vec<(usize, usize, f32)>);

impl Axis {
    fn new(from: usize, to: usize) -> Axis {
        let scale = from as f32 / to as f32;
        let place = |at: usize| {
            if from == to {
                return (at, at, 0.0);
            }
            let source = (scale * (at as f32 + 0.5) - 0.5).max(0.0);
            let first = (source as usize).min(from - 1);
            (first, (first + 1).min(from - 1), (source - first as f32).clamp(0.0, 1.0))
        };
        Axis((0..to).map(place).collect())
    }
}

/// Writes a plane, resized, into the upper left of rows of `pitch`.
fn resize_plane(source: &[f32], width: usize, [rows, columns]: &[Axis; 2], (target, pitch): (&mut [f32], usize)) {
    let mix = |a: f32, b: f32, weight: f32| (1.0 - weight) * a + weight * b;
    for (&(top, bottom, wy), target) in rows.0.iter().zip(target.chunks_exact_mut(pitch)) {
        let (top, bottom) = (&source[top * width..][..width], &source[bottom * width..][..width]);
        for (&(left, right, wx), value) in columns.0.iter().zip(target) {
            *value = mix(mix(top[left], top[right], wx), mix(bottom[left], bottom[right], wx), wy);
        }
    }
}

/// A plane resized bilinearly to this height and width.
pub(super) fn resized_plane(source: &[f32], from: [usize; 2], to: [usize; 2]) -> Vec<f32> {
    let mut target = vec![0f32; to[0] * to[1]];
    resize_plane(source, from[1], &[0, 1].map(|axis| Axis::new(from[axis], to[axis])), (&mut target, to[1]));
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_torchvisions() {
        let transform = PictureTransform::shorter(800, 1333);
        for (size, resized) in
            [([480, 640], [800, 1066]), ([640, 480], [1066, 800]), ([300, 900], [444, 1333]), ([800, 800], [800, 800])]
        {
            assert_eq!(transform.resized(size), resized, "{size:?}");
        }
    }

    /// `F.interpolate(torch.tensor([[[[1., 2., 4., 8.]]]]), (1, 6), mode="bilinear")` of torch 2.15.
    #[test]
    fn values_are_torchs() {
        let got = resized_plane(&[1.0, 2.0, 4.0, 8.0], [1, 4], [1, 6]);
        let torch = [1.0, 1.5, 2.333_333_3, 3.666_666_7, 6.0, 8.0];
        assert!(got.iter().zip(torch).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}");
    }

    #[test]
    fn a_batch_is_normalised_and_padded_with_zeros() {
        let transform = PictureTransform { divisible: 4, ..PictureTransform::shorter(2, 10) };
        let picture = Array::full([3, 2, 3], 0.485f32);
        let batch = transform.batch(&[&picture]).unwrap();
        assert_eq!(batch.shape().dims(), &[1, 3, 4, 4]);
        let values = batch.f32s().unwrap();
        assert_eq!(values[..4], [0.0; 4], "the first channel's mean");
        assert!((values[16] - (0.485 - 0.456) / 0.224).abs() < 1e-6 && values[19] == 0.0 && values[24] == 0.0);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let transform = PictureTransform::shorter(2, 10);
        let error = transform.batch(&[&Array::full([1, 2, 3], 0f32)]).unwrap_err().to_string();
        assert!(error.contains("[3, H, W]") && error.contains("[1, 2, 3]"), "{error}");
    }
}
