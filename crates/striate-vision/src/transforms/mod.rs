//! What happens to a picture between its file and the batch, with torchvision's names, arguments and semantics.
//!
//! Pictures are bytes here, and every operation gives the bytes that PIL gives (torchvision's transforms on PIL pictures), except
//! that the random numbers are ours: they are keyed, see [`Draws`]. Normalisation and [`RandomErasing`] come last, while the
//! batch is written; [`Mixing`] joins the samples of a batch.
//!
//! ```
//! use striate_vision::data::Image;
//! use striate_vision::transforms::{Compose, Draws, RandomCrop, RandomHorizontalFlip, Scratch, Transform};
//!
//! let augment = Compose::new().then(RandomCrop::new(28, 28).padding(2)).then(RandomHorizontalFlip::new(0.5));
//! let mut image = Image::filled(28, 28, &[200]);
//! // Seed 0, epoch 3, sample 17: the same picture each time.
//! augment.apply(&mut image, &mut Draws::new(0, "augment", 3, 17), &mut Scratch::default())?;
//! assert_eq!((image.width, image.height), (28, 28));
//! # Ok::<(), striate_vision::transforms::TransformError>(())
//! ```

mod affine;
mod auto;
mod boxes;
mod color;
mod draws;
mod geometry;
mod joint;
mod mixing;
mod plane;
mod preprocess;
mod resize;
#[cfg(test)]
mod shape_tests;
mod shapes;

pub use affine::{RandomAffine, RandomRotation, affine, affine_matrix, rotate};
pub use auto::{RandAugment, TrivialAugmentWide};
pub use boxes::{BoxAugment, GREY, Letterbox, Part, Thing};
pub use color::{
    ColorJitter, Grayscale, adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation, adjust_sharpness,
    autocontrast, equalize, posterize, solarize,
};
pub use draws::Draws;
pub use geometry::{
    CenterCrop, Pad, PaddingMode, RandomCrop, RandomHorizontalFlip, RandomResizedCrop, RandomVerticalFlip, crop,
    horizontal_flip, vertical_flip,
};
pub use joint::SegmentCrop;
pub(crate) use mixing::MixBatch;
pub use mixing::{EraseValue, Mixing, RandomErasing};
pub(crate) use plane::PlaneMap;
pub use preprocess::{Layout, Normalize, Preprocess, PreprocessOverrides};
pub use resize::{Interpolation, Resize, ResizeTo, resize};
pub use shapes::Shape;

use crate::data::Image;

/// Why a transform cannot be applied to a picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TransformError(pub String);

/// Buffers that transforms share, kept from sample to sample so that nothing is allocated.
#[derive(Debug, Default)]
pub struct Scratch {
    /// A picture to write into and swap with the one at hand.
    pub spare: Image,
    pub(crate) resize: resize::ResizeScratch,
    pub(crate) columns: Vec<Option<usize>>,
}

/// A change of one picture.
///
/// Draw random numbers from `draws` alone: then a sample is the same for any number of workers and after a restart.
pub trait Transform: std::fmt::Debug + Send + Sync {
    /// Changes the picture in place.
    ///
    /// # Errors
    /// [`TransformError`] if the picture does not fit the transform's settings.
    fn apply(&self, image: &mut Image, draws: &mut Draws, scratch: &mut Scratch) -> Result<(), TransformError>;
}

/// Transforms one after the other.
#[derive(Debug, Default)]
pub struct Compose {
    steps: Vec<Box<dyn Transform>>,
}

impl Compose {
    /// No transform.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more at the end.
    pub fn then(mut self, transform: impl Transform + 'static) -> Self {
        self.steps.push(Box::new(transform));
        self
    }

    /// With one more at the end, already boxed.
    pub fn then_boxed(mut self, transform: Box<dyn Transform>) -> Self {
        self.steps.push(transform);
        self
    }

    /// Number of transforms.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl Transform for Compose {
    fn apply(&self, image: &mut Image, draws: &mut Draws, scratch: &mut Scratch) -> Result<(), TransformError> {
        self.steps.iter().try_for_each(|step| step.apply(image, draws, scratch))
    }
}

/// Rounds half to even, as Python's `round`.
pub(crate) fn round_half_even(x: f64) -> f64 {
    x.round_ties_even()
}
