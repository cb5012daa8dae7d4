//! What happens to one sample: its bytes are changed, then become values in the batch.

use super::box_batches::BoxTraining;
use super::dataset::Dataset;
use super::error::{DataError, Result, panic_message};
use super::picture::Image;
use crate::transforms::{
    Compose, Draws, Layout, Normalize, Preprocess, RandomErasing, Scratch, SegmentCrop, Transform, TransformError,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The way of a sample into a batch: convert to the channels of `normalize`, transform as bytes, normalise, erase.
#[derive(Debug)]
pub struct Pipeline {
    /// Before the transforms, on the picture and its mask; samples without a mask go without.
    pub joint: Option<SegmentCrop>,
    /// In training on pictures with boxes: what makes a sample of them, instead of the transforms.
    pub boxes: Option<BoxTraining>,
    /// On bytes, random or not.
    pub transforms: Compose,
    /// Makes values of bytes; also says how many channels there are.
    pub normalize: Normalize,
    /// On values.
    pub erasing: Option<RandomErasing>,
    /// The order of the batch's values.
    pub layout: Layout,
}

/// What is known of a sample that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loaded {
    pub label: usize,
    /// Whether it has a mask.
    pub masked: bool,
    /// Height and width of the picture in the data.
    pub source: [usize; 2],
}

impl Pipeline {
    /// Only normalisation, [N, C, H, W].
    pub fn new(normalize: Normalize) -> Self {
        Self { joint: None, boxes: None, transforms: Compose::new(), normalize, erasing: None, layout: Layout::Nchw }
    }

    /// The preprocessing of evaluation and prediction.
    ///
    /// # Errors
    /// As [`Preprocess::check`].
    pub fn evaluation(preprocess: &Preprocess) -> Result<Self> {
        preprocess.check()?;
        Ok(Self::new(preprocess.normalize()?).augment(preprocess.transforms()))
    }

    /// With these transforms on bytes.
    pub fn augment(self, transforms: Compose) -> Self {
        Self { transforms, ..self }
    }

    /// With this for pictures with masks, before the transforms.
    pub fn joint(self, joint: SegmentCrop) -> Self {
        Self { joint: Some(joint), ..self }
    }

    /// With this for pictures with boxes.
    pub fn boxes(self, boxes: BoxTraining) -> Self {
        Self { boxes: Some(boxes), ..self }
    }

    /// With random erasing.
    pub fn erasing(self, erasing: RandomErasing) -> Self {
        Self { erasing: Some(erasing), ..self }
    }

    /// With another order of values.
    pub fn layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// Reads and transforms a sample into `image`, and its mask.
    pub(crate) fn load(
        &self,
        dataset: &dyn Dataset,
        index: usize,
        (image, mask): (&mut Image, &mut Image),
        draws: &mut Draws,
        scratch: &mut Scratch,
    ) -> Result<Loaded> {
        let loaded = catch_unwind(AssertUnwindSafe(|| {
            let label = dataset.get_into(index, image)?;
            let classes = dataset.class_count();
            if label >= classes {
                return Err(DataError::SampleLabel { name: dataset.name(index), label, classes });
            }
            image.convert(self.normalize.channels());
            let source = [image.height, image.width];
            let masked = dataset.mask_into(index, mask)?;
            if masked && (image.height, image.width) != (mask.height, mask.width) {
                return Err(DataError::MaskSize {
                    name: dataset.name(index),
                    picture: [image.width, image.height],
                    mask: [mask.width, mask.height],
                });
            }
            if let (Some(joint), true) = (&self.joint, masked) {
                joint.apply(image, mask, draws, scratch);
            }
            let transformed = self.transforms.apply(image, draws, scratch);
            transformed.map_err(|reason| DataError::Transform { name: dataset.name(index), reason })?;
            image.convert(self.normalize.channels());
            Ok(Loaded { label, masked, source })
        }));
        loaded.unwrap_or_else(|payload| {
            let message = panic_message(payload.as_ref());
            Err(DataError::WorkerPanic { name: dataset.name(index), message })
        })
    }

    /// Writes a loaded sample's values.
    pub(crate) fn write(&self, image: &Image, values: &mut [f32], draws: &mut Draws) {
        self.normalize.write(image, self.layout, values);
        if let Some(erasing) = &self.erasing {
            erasing.apply(values, [image.channels, image.height, image.width], self.layout, draws);
        }
    }
}

impl From<TransformError> for DataError {
    fn from(error: TransformError) -> Self {
        DataError::Config(error.0)
    }
}
