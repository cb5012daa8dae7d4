//! Mean and deviation of the channels.

use super::dataset::Dataset;
use super::error::Result;
use super::picture::Image;
use crate::transforms::{Compose, Draws, Scratch, Transform};

/// Mean and deviation of each channel, of values from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelStats {
    /// By channel.
    pub mean: Vec<f32>,
    /// By channel, at least 1/255 so that it can be divided by.
    pub std: Vec<f32>,
    /// Pictures that were looked at.
    pub pictures: usize,
    /// Pictures that could not be read.
    pub unreadable: usize,
}

/// Statistics over up to `most` pictures, spread evenly over the data set, after `transforms` (those of evaluation).
///
/// The sums are whole numbers, so the result is exact and the same on every machine.
///
/// # Errors
/// Those of reading, except for pictures that cannot be decoded: they are counted and left out.
pub fn channel_stats(
    dataset: &dyn Dataset,
    channels: usize,
    transforms: &Compose,
    most: usize,
) -> Result<ChannelStats> {
    let take = dataset.len().min(most);
    let (mut image, mut scratch) = (Image::default(), Scratch::default());
    let (mut sums, mut squares) = ([0u64; 3], [0u64; 3]);
    let (mut pixels, mut pictures) = (0u64, 0);
    for i in 0..take {
        let index = i * dataset.len() / take;
        match dataset.get_into(index, &mut image) {
            Err(error) if error.is_bad_sample() => continue,
            other => other?,
        };
        image.convert(channels);
        let mut draws = Draws::new(0, "data.stats", 0, index as u64);
        let transformed = transforms.apply(&mut image, &mut draws, &mut scratch);
        transformed.map_err(|reason| super::DataError::Transform { name: dataset.name(index), reason })?;
        for (i, &byte) in image.data.iter().enumerate() {
            let (channel, value) = (i % channels, u64::from(byte));
            sums[channel] += value;
            squares[channel] += value * value;
        }
        pixels += (image.width * image.height) as u64;
        pictures += 1;
    }
    let count = pixels.max(1) as f64;
    let mean = |c: usize| sums[c] as f64 / count;
    let std = |c: usize| (squares[c] as f64 / count - mean(c) * mean(c)).max(1.0).sqrt();
    Ok(ChannelStats {
        mean: (0..channels).map(|c| (mean(c) / 255.0) as f32).collect(),
        std: (0..channels).map(|c| (std(c) / 255.0) as f32).collect(),
        pictures,
        unreadable: take - pictures,
    })
}
