//! From bytes to the numbers that a net sees.

use super::resize::{Interpolation, Resize, ResizeTo};
use super::{CenterCrop, Compose, Draws, Letterbox, Scratch, Transform, TransformError};
use crate::data::Image;
use serde::{Deserialize, Serialize};

/// The order of a batch's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// [N, C, H, W], as graphs have it.
    #[default]
    Nchw,
    /// [N, H, W, C], as kernels have it.
    Nhwc,
}

/// `(value / 255 - mean) / std` by channel, as torchvision's ToTensor and Normalize: bit by bit the same, from a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalize {
    mean: Vec<f32>,
    std: Vec<f32>,
    /// [channel][byte]
    table: Vec<[f32; 256]>,
}

impl Normalize {
    /// One mean and deviation for each of 1 or 3 channels, of values from 0 to 1.
    ///
    /// # Errors
    /// [`TransformError`] if the lengths differ, are not 1 or 3, or a deviation is not above 0.
    pub fn new(mean: &[f32], std: &[f32]) -> Result<Self, TransformError> {
        let sound = mean.iter().all(|m| m.is_finite()) && std.iter().all(|s| *s > 0.0 && s.is_finite());
        if mean.len() != std.len() || !matches!(mean.len(), 1 | 3) || !sound {
            return Err(TransformError(format!(
                "mean {mean:?} and std {std:?} must have 1 or 3 values each, and the deviations must be above 0"
            )));
        }
        let table = mean.iter().zip(std).map(|(m, s)| std::array::from_fn(|v| (v as f32 / 255.0 - m) / s)).collect();
        Ok(Self { mean: mean.to_vec(), std: std.to_vec(), table })
    }

    /// Values from 0 to 1, as torchvision's ToTensor alone.
    pub fn unit(channels: usize) -> Self {
        let (mean, std) = (vec![0.0; channels], vec![1.0; channels]);
        let table = vec![std::array::from_fn(|v| v as f32 / 255.0); channels];
        Self { mean, std, table }
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// The means.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The deviations.
    pub fn std(&self) -> &[f32] {
        &self.std
    }

    /// Writes a picture's values; `out` has as many as the picture has bytes, and the picture has the channels of this.
    pub fn write(&self, image: &Image, layout: Layout, out: &mut [f32]) {
        debug_assert_eq!((image.data.len(), image.channels), (out.len(), self.channels()));
        match (self.table.as_slice(), layout) {
            ([table], _) => {
                for (value, &byte) in out.iter_mut().zip(&image.data) {
                    *value = table[usize::from(byte)];
                }
            }
            ([r, g, b], Layout::Nhwc) => {
                for (values, bytes) in out.chunks_exact_mut(3).zip(image.data.chunks_exact(3)) {
                    values[0] = r[usize::from(bytes[0])];
                    values[1] = g[usize::from(bytes[1])];
                    values[2] = b[usize::from(bytes[2])];
                }
            }
            (tables, Layout::Nchw) => {
                let plane = image.width * image.height;
                for (channel, (values, table)) in out.chunks_exact_mut(plane).zip(tables).enumerate() {
                    for (value, bytes) in values.iter_mut().zip(image.data.chunks_exact(tables.len())) {
                        *value = table[usize::from(bytes[channel])];
                    }
                }
            }
            _ => {}
        }
    }
}

/// What a picture goes through before a trained net sees it. Stored inside weights files, so its fields never change meaning.
///
/// The picture is converted to `channels`, resized, cropped at its centre, divided by 255, and normalised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// Size before the crop; none leaves it.
    pub resize: Option<ResizeTo>,
    /// Height and width that are cut out at the centre; none leaves it.
    pub crop: Option<[usize; 2]>,
    /// How to resample.
    pub interpolation: Interpolation,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Mean of each channel, of values from 0 to 1.
    pub mean: Vec<f32>,
    /// Deviation of each channel.
    pub std: Vec<f32>,
}

/// Parts of a [`Preprocess`] that a user wants otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreprocessOverrides {
    /// Another size, or none.
    pub resize: Option<Option<ResizeTo>>,
    /// Another crop, or none.
    pub crop: Option<Option<[usize; 2]>>,
    /// Another resampling.
    pub interpolation: Option<Interpolation>,
    /// Other means.
    pub mean: Option<Vec<f32>>,
    /// Other deviations.
    pub std: Option<Vec<f32>>,
}

impl std::fmt::Display for Preprocess {
    /// In words, such as `shorter side to 256 (bilinear), centre 224x224, RGB / 255, mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5]`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.resize {
            Some(ResizeTo::Shorter(side)) => write!(f, "shorter side to {side} ({})", self.interpolation)?,
            Some(ResizeTo::Exact([h, w])) => write!(f, "resized to {h}x{w} ({})", self.interpolation)?,
            Some(ResizeTo::Letterbox([h, w])) => write!(f, "fitted into {h}x{w} ({})", self.interpolation)?,
            None => write!(f, "not resized")?,
        }
        if let Some([h, w]) = self.crop {
            write!(f, ", centre {h}x{w}")?;
        }
        let color = if self.channels == 1 { "grey" } else { "RGB" };
        write!(f, ", {color} / 255, mean {:?}, std {:?}", self.mean, self.std)
    }
}

impl Preprocess {
    /// What torchvision's ImageNet weights expect at 224 pixels: shorter side 256, centre 224, the usual mean and deviation.
    pub fn imagenet() -> Self {
        Self {
            resize: Some(ResizeTo::Shorter(256)),
            crop: Some([224, 224]),
            interpolation: Interpolation::Bilinear,
            channels: 3,
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
        }
    }

    /// Resized to exactly `height` x `width`, values from 0 to 1.
    pub fn exact(height: usize, width: usize, channels: usize) -> Self {
        Self {
            resize: Some(ResizeTo::Exact([height, width])),
            crop: None,
            interpolation: Interpolation::Bilinear,
            channels,
            mean: vec![0.0; channels],
            std: vec![1.0; channels],
        }
    }

    /// Checks what came from a file.
    ///
    /// # Errors
    /// [`TransformError`] for sizes of 0 or beyond 32768, channels other than 1 or 3, and what [`Normalize::new`] refuses.
    pub fn check(&self) -> Result<(), TransformError> {
        let sides = match self.resize {
            Some(ResizeTo::Shorter(side)) => vec![side],
            Some(ResizeTo::Exact(size) | ResizeTo::Letterbox(size)) => size.to_vec(),
            None => Vec::new(),
        };
        let bad = sides.into_iter().chain(self.crop.into_iter().flatten()).find(|s| !(1..=32_768).contains(s));
        if let Some(side) = bad {
            return Err(TransformError(format!(
                "preprocessing wants a side of {side} pixels; 1 to 32768 are possible"
            )));
        }
        if self.channels != self.mean.len() {
            return Err(TransformError(format!(
                "preprocessing has {} channels but {} means",
                self.channels,
                self.mean.len()
            )));
        }
        self.normalize().map(|_| ())
    }

    /// Height and width of the result where every picture gets the same.
    pub fn size(&self) -> Option<[usize; 2]> {
        match (self.crop, self.resize) {
            (Some(size), _) | (None, Some(ResizeTo::Exact(size) | ResizeTo::Letterbox(size))) => Some(size),
            _ => None,
        }
    }

    /// This with other parts where they are given.
    ///
    /// # Errors
    /// As [`Preprocess::check`].
    pub fn with(mut self, overrides: &PreprocessOverrides) -> Result<Self, TransformError> {
        let o = overrides;
        self.resize = o.resize.unwrap_or(self.resize);
        self.crop = o.crop.unwrap_or(self.crop);
        self.interpolation = o.interpolation.unwrap_or(self.interpolation);
        self.mean = o.mean.clone().unwrap_or(self.mean);
        self.std = o.std.clone().unwrap_or(self.std);
        self.check()?;
        Ok(self)
    }

    /// The part that works on bytes.
    pub fn transforms(&self) -> Compose {
        let mut steps = Compose::new();
        let interpolation = self.interpolation;
        steps = match self.resize {
            Some(ResizeTo::Letterbox(size)) => steps.then(Letterbox { size, interpolation }),
            Some(to) => steps.then(Resize { to, interpolation }),
            None => steps,
        };
        if let Some(size) = self.crop {
            steps = steps.then(CenterCrop { size });
        }
        steps
    }

    /// The part that makes numbers of bytes.
    ///
    /// # Errors
    /// As [`Normalize::new`].
    pub fn normalize(&self) -> Result<Normalize, TransformError> {
        Normalize::new(&self.mean, &self.std)
    }

    /// One picture's values with their shape: [1, C, H, W] or [1, H, W, C].
    ///
    /// # Errors
    /// As [`Preprocess::check`].
    pub fn apply(&self, image: &Image, layout: Layout) -> Result<(Vec<f32>, [usize; 4]), TransformError> {
        self.check()?;
        let mut image = image.clone();
        image.convert(self.channels);
        let mut draws = Draws::new(0, "preprocess", 0, 0);
        self.transforms().apply(&mut image, &mut draws, &mut Scratch::default())?;
        let mut values = vec![0.0; image.data.len()];
        self.normalize()?.write(&image, layout, &mut values);
        let (h, w, c) = (image.height, image.width, image.channels);
        let shape = if layout == Layout::Nchw { [1, c, h, w] } else { [1, h, w, c] };
        Ok((values, shape))
    }
}
