//! What a data set is to the loader.

use super::error::{DataError, Result};
use super::picture::Image;
use crate::transforms::Thing;
use std::path::PathBuf;
use std::sync::Arc;

/// One picture with its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The picture.
    pub image: Image,
    /// Index of its class.
    pub label: usize,
}

/// Numbered pictures with their classes. Implement the first three for data of your own.
///
/// `get` may be called from several threads at once, in any order and more than once for an index; it must give the same
/// each time. Pictures may have any size where the loader's transforms bring them to one.
///
/// ```
/// use striate_vision::data::{Dataset, Image, Result, Sample};
///
/// struct Stripes;
/// impl Dataset for Stripes {
///     fn len(&self) -> usize { 100 }
///     fn class_count(&self) -> usize { 2 }
///     fn get(&self, index: usize) -> Result<Sample> {
///         let data = (0..64).map(|i| if (i >> (3 * (index % 2))) % 2 == 0 { 0 } else { 255 }).collect();
///         Ok(Sample { image: Image::new(8, 8, 1, data)?, label: index % 2 })
///     }
/// }
/// assert_eq!(Stripes.class_names(), ["0", "1"]);
/// ```
pub trait Dataset: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Number of classes; labels are below it.
    fn class_count(&self) -> usize;

    /// The sample of an index below [`Dataset::len`].
    ///
    /// # Errors
    /// [`DataError::Picture`] if its file is damaged (the loader may skip it); any other error ends the run.
    fn get(&self, index: usize) -> Result<Sample>;

    /// Writes the picture into a buffer that is kept, and returns the label. Worth implementing where `get` would allocate.
    ///
    /// # Errors
    /// As [`Dataset::get`].
    fn get_into(&self, index: usize, image: &mut Image) -> Result<usize> {
        let sample = self.get(index)?;
        *image = sample.image;
        Ok(sample.label)
    }

    /// The label alone. Worth implementing where it is known without decoding.
    ///
    /// # Errors
    /// As [`Dataset::get`].
    fn label(&self, index: usize) -> Result<usize> {
        Ok(self.get(index)?.label)
    }

    /// Writes the class of each pixel into `mask`, one channel as large as the picture, 255 where it does not count; true if the
    /// sample has one. For segmentation; the label is then 0.
    ///
    /// # Errors
    /// As [`Dataset::get`].
    fn mask_into(&self, _index: usize, _mask: &mut Image) -> Result<bool> {
        Ok(false)
    }

    /// The sample's numbers, `class_count` of them: 1 for each class that it has and 0 for the others where it may have several,
    /// or what a regression is to give.
    fn values(&self, _index: usize) -> Option<&[f32]> {
        None
    }

    /// What is on the picture, in its pixels, where the set has boxes, with the shapes that it has; none for a picture of background. For
    /// detection; the label then says how the sample is counted where a part is held back.
    fn boxes(&self, _index: usize) -> Option<&[Thing]> {
        None
    }

    /// What a message calls the sample: its file, where it has one.
    fn name(&self, index: usize) -> String {
        format!("sample {index}")
    }

    /// The sample's own file, if it has one for itself.
    fn file(&self, _index: usize) -> Option<PathBuf> {
        None
    }

    /// Names of the classes, `class_count` of them.
    fn class_names(&self) -> Vec<String> {
        (0..self.class_count()).map(|c| c.to_string()).collect()
    }

    /// Whether there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// All labels in the order of the samples.
///
/// # Errors
/// As [`Dataset::label`], and [`DataError::SampleLabel`] for one that is out of range.
pub fn labels_of(dataset: &dyn Dataset) -> Result<Vec<usize>> {
    let classes = dataset.class_count();
    (0..dataset.len())
        .map(|i| match dataset.label(i)? {
            label if label < classes => Ok(label),
            label => Err(DataError::SampleLabel { name: dataset.name(i), label, classes }),
        })
        .collect()
}

/// Number of samples of each class.
///
/// # Errors
/// As [`labels_of`].
pub fn class_counts(dataset: &dyn Dataset) -> Result<Vec<usize>> {
    let mut counts = vec![0; dataset.class_count()];
    for label in labels_of(dataset)? {
        counts[label] += 1;
    }
    Ok(counts)
}

/// Some samples of a data set, in the order given.
pub struct Subset {
    dataset: Arc<dyn Dataset>,
    indices: Vec<usize>,
}

impl Subset {
    /// The samples at these indices.
    ///
    /// # Errors
    /// [`DataError::Config`] if an index is not below the data set's length.
    pub fn new(dataset: Arc<dyn Dataset>, indices: Vec<usize>) -> Result<Self> {
        if let Some(bad) = indices.iter().find(|&&i| i >= dataset.len()) {
            return Err(DataError::Config(format!(
                "a subset names sample {bad}, but the data set has {} samples",
                dataset.len()
            )));
        }
        Ok(Self { dataset, indices })
    }

    /// The indices in the whole data set.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }
    fn class_count(&self) -> usize {
        self.dataset.class_count()
    }
    fn get(&self, index: usize) -> Result<Sample> {
        self.dataset.get(self.indices[index])
    }
    fn get_into(&self, index: usize, image: &mut Image) -> Result<usize> {
        self.dataset.get_into(self.indices[index], image)
    }
    fn label(&self, index: usize) -> Result<usize> {
        self.dataset.label(self.indices[index])
    }
    fn mask_into(&self, index: usize, mask: &mut Image) -> Result<bool> {
        self.dataset.mask_into(self.indices[index], mask)
    }
    fn values(&self, index: usize) -> Option<&[f32]> {
        self.dataset.values(self.indices[index])
    }
    fn boxes(&self, index: usize) -> Option<&[Thing]> {
        self.dataset.boxes(self.indices[index])
    }
    fn name(&self, index: usize) -> String {
        self.dataset.name(self.indices[index])
    }
    fn file(&self, index: usize) -> Option<PathBuf> {
        self.dataset.file(self.indices[index])
    }
    fn class_names(&self) -> Vec<String> {
        self.dataset.class_names()
    }
}

/// Pictures of one size held in memory as bytes: what IDX and CIFAR files become.
pub struct MemoryDataset {
    width: usize,
    height: usize,
    channels: usize,
    /// [N, H, W, C]
    pixels: Vec<u8>,
    labels: Vec<u8>,
    class_names: Vec<String>,
    source: String,
}

impl MemoryDataset {
    /// Pictures of [height, width, channels] one after the other, and a label for each. `source` is how messages call them.
    ///
    /// # Errors
    /// [`DataError::Config`] if the lengths do not fit, [`DataError::SampleLabel`] for a label without a class name.
    pub fn new(
        [height, width, channels]: [usize; 3],
        pixels: Vec<u8>,
        labels: Vec<u8>,
        class_names: Vec<String>,
        source: impl Into<String>,
    ) -> Result<Self> {
        let source = source.into();
        if !matches!(channels, 1 | 3) || height * width == 0 || pixels.len() != labels.len() * height * width * channels
        {
            return Err(DataError::Config(format!(
                "{source}: {} labels and {} bytes do not fit pictures of {width}x{height} with {channels} channels",
                labels.len(),
                pixels.len()
            )));
        }
        if let Some(i) = labels.iter().position(|&l| usize::from(l) >= class_names.len()) {
            let name = format!("{source}, sample {i}");
            return Err(DataError::SampleLabel { name, label: labels[i].into(), classes: class_names.len() });
        }
        Ok(Self { width, height, channels, pixels, labels, class_names, source })
    }

    /// Height, width and channels of every picture.
    pub fn shape(&self) -> [usize; 3] {
        [self.height, self.width, self.channels]
    }
}

impl Dataset for MemoryDataset {
    fn len(&self) -> usize {
        self.labels.len()
    }
    fn class_count(&self) -> usize {
        self.class_names.len()
    }
    fn get(&self, index: usize) -> Result<Sample> {
        let mut image = Image::default();
        let label = self.get_into(index, &mut image)?;
        Ok(Sample { image, label })
    }
    fn get_into(&self, index: usize, image: &mut Image) -> Result<usize> {
        let bytes = self.height * self.width * self.channels;
        image.set(self.width, self.height, self.channels, &self.pixels[index * bytes..(index + 1) * bytes]);
        Ok(self.labels[index].into())
    }
    fn label(&self, index: usize) -> Result<usize> {
        Ok(self.labels[index].into())
    }
    fn name(&self, index: usize) -> String {
        format!("{}, sample {index}", self.source)
    }
    fn class_names(&self) -> Vec<String> {
        self.class_names.clone()
    }
}
