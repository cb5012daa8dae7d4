//! What works on values: random erasing of a sample, and mixing the samples of a batch.

use super::preprocess::Layout;
use super::{Draws, TransformError, round_half_even};
use serde::{Deserialize, Serialize};

/// What an erased area is filled with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EraseValue {
    /// This value in all channels, after normalisation.
    Constant(f32),
    /// Standard normal numbers.
    Random,
}

/// `torchvision.transforms.RandomErasing` (Zhong et al., AAAI 2020), on normalised values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomErasing {
    /// Probability.
    pub p: f64,
    /// Least and largest part of the area.
    pub scale: [f64; 2],
    /// Least and largest height ÷ width.
    pub ratio: [f64; 2],
    /// What it is filled with.
    pub value: EraseValue,
}

impl Default for RandomErasing {
    /// p 0.5, 2 to 33 % of the area, ratio 0.3 to 3.3, filled with 0.
    fn default() -> Self {
        Self { p: 0.5, scale: [0.02, 0.33], ratio: [0.3, 3.3], value: EraseValue::Constant(0.0) }
    }
}

/// A rectangle of pixels: top, left, height, width.
type Area = [usize; 4];

impl RandomErasing {
    fn choose_area(&self, height: usize, width: usize, draws: &mut Draws) -> Option<Area> {
        let (low, high) = (self.ratio[0].ln(), self.ratio[1].ln());
        for _ in 0..10 {
            let area = (height * width) as f64 * draws.range(self.scale[0], self.scale[1]);
            let ratio = draws.range(low, high).exp();
            let h = round_half_even((area * ratio).sqrt()) as usize;
            let w = round_half_even((area / ratio).sqrt()) as usize;
            if h > 0 && w > 0 && h < height && w < width {
                return Some([draws.below(height - h + 1), draws.below(width - w + 1), h, w]);
            }
        }
        None
    }

    /// Erases a part of one sample of `[channels, height, width]`, in the order of `layout`.
    pub fn apply(&self, values: &mut [f32], shape: [usize; 3], layout: Layout, draws: &mut Draws) {
        if !draws.chance(self.p) {
            return;
        }
        let Some(area) = self.choose_area(shape[1], shape[2], draws) else { return };
        let mut drawn = 0;
        for_each_run(shape, layout, area, |from, to| match self.value {
            EraseValue::Constant(value) => values[from..to].fill(value),
            EraseValue::Random => {
                draws.fill_normal(&mut values[from..to], drawn);
                drawn += (to - from) as u64;
            }
        });
    }
}

/// Calls `run` for each contiguous range of a rectangle in a sample.
fn for_each_run(
    [c, h, w]: [usize; 3],
    layout: Layout,
    [top, left, height, width]: Area,
    mut run: impl FnMut(usize, usize),
) {
    match layout {
        Layout::Nhwc => (top..top + height).for_each(|y| run((y * w + left) * c, (y * w + left + width) * c)),
        Layout::Nchw => {
            for channel in 0..c {
                for y in top..top + height {
                    let at = (channel * h + y) * w + left;
                    run(at, at + width);
                }
            }
        }
    }
}

/// Mixing of a batch's samples with soft targets, as torchvision's MixUp and CutMix: a batch is mixed with itself moved on by one
/// sample. Where order is shuffled, that is a random partner.
///
/// Drawn once a batch, keyed by (seed, epoch, position of the batch's first sample).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mixing {
    /// None; labels stay labels.
    #[default]
    None,
    /// Every value and target is a weighted mean of two (Zhang et al., ICLR 2018). The weight is drawn from Beta(alpha, alpha).
    MixUp {
        /// 1.0 in torchvision; smaller mixes less.
        alpha: f64,
    },
    /// A rectangle comes from the partner (Yun et al., ICCV 2019); targets by area.
    CutMix {
        /// 1.0 in torchvision.
        alpha: f64,
    },
    /// One of the two for each batch, even odds.
    Either {
        /// Of mixup.
        mixup_alpha: f64,
        /// Of cutmix.
        cutmix_alpha: f64,
    },
}

impl Mixing {
    /// Whether targets are soft.
    pub fn is_on(&self) -> bool {
        *self != Mixing::None
    }

    /// # Errors
    /// [`TransformError`] unless each alpha is above 0.
    pub fn check(&self) -> Result<(), TransformError> {
        let alphas = match *self {
            Mixing::None => return Ok(()),
            Mixing::MixUp { alpha } | Mixing::CutMix { alpha } => [alpha, alpha],
            Mixing::Either { mixup_alpha, cutmix_alpha } => [mixup_alpha, cutmix_alpha],
        };
        match alphas.iter().find(|a| !(**a > 0.0 && a.is_finite())) {
            Some(bad) => Err(TransformError(format!("alpha of mixup and cutmix is {bad}; it must be above 0"))),
            None => Ok(()),
        }
    }

    /// Mixes `values` of `n` samples of [channels, height, width] and writes soft targets [n, classes]. `spare` is a buffer.
    pub(crate) fn apply(&self, mut batch: MixBatch<'_>, draws: &mut Draws, spare: &mut Vec<f32>) -> Vec<f32> {
        let n = batch.labels.len();
        let kept = match *self {
            Mixing::None => 1.0,
            Mixing::MixUp { alpha } => mix_up(batch.values, n, draws.beta(alpha), spare),
            Mixing::CutMix { alpha } => cut_mix(&mut batch, alpha, draws, spare),
            Mixing::Either { mixup_alpha, cutmix_alpha } => {
                let (which, alpha) = if draws.chance(0.5) { (true, mixup_alpha) } else { (false, cutmix_alpha) };
                return match which {
                    true => Mixing::MixUp { alpha }.apply(batch, draws, spare),
                    false => Mixing::CutMix { alpha }.apply(batch, draws, spare),
                };
            }
        };
        let mut targets = vec![0.0f32; n * batch.classes];
        for (i, &label) in batch.labels.iter().enumerate() {
            let partner = batch.labels[(i + n - 1) % n];
            targets[i * batch.classes + label] += kept as f32;
            targets[i * batch.classes + partner] += (1.0 - kept) as f32;
        }
        targets
    }
}

/// A batch that is mixed.
pub(crate) struct MixBatch<'a> {
    pub values: &'a mut [f32],
    pub labels: &'a [usize],
    pub classes: usize,
    /// Of one sample: channels, height, width.
    pub shape: [usize; 3],
    pub layout: Layout,
}

fn mix_up(values: &mut [f32], n: usize, kept: f64, spare: &mut Vec<f32>) -> f64 {
    let size = values.len() / n;
    let (own, other) = (kept as f32, (1.0 - kept) as f32);
    // Backwards, so that each partner (the sample before) is still unmixed; the first one's is the last, which is kept aside.
    spare.clear();
    spare.extend_from_slice(&values[(n - 1) * size..]);
    for i in (0..n).rev() {
        let (before, at) = values.split_at_mut(i * size);
        let partner = if i == 0 { &spare[..] } else { &before[(i - 1) * size..] };
        for (value, &p) in at[..size].iter_mut().zip(partner) {
            *value = *value * own + p * other;
        }
    }
    kept
}

fn cut_mix(batch: &mut MixBatch<'_>, alpha: f64, draws: &mut Draws, spare: &mut Vec<f32>) -> f64 {
    let [_, height, width] = batch.shape;
    let lambda = draws.beta(alpha);
    let (center_x, center_y) = (draws.below(width), draws.below(height));
    let half = 0.5 * (1.0 - lambda).sqrt();
    let (half_w, half_h) = ((half * width as f64) as usize, (half * height as f64) as usize);
    let (left, right) = (center_x.saturating_sub(half_w), (center_x + half_w).min(width));
    let (top, bottom) = (center_y.saturating_sub(half_h), (center_y + half_h).min(height));
    let area = [top, left, bottom - top, right - left];
    let n = batch.labels.len();
    let size = batch.values.len() / n;
    spare.clear();
    spare.extend_from_slice(&batch.values[(n - 1) * size..]);
    for i in (0..n).rev() {
        let (before, at) = batch.values.split_at_mut(i * size);
        let partner = if i == 0 { &spare[..] } else { &before[(i - 1) * size..] };
        for_each_run(batch.shape, batch.layout, area, |from, to| at[from..to].copy_from_slice(&partner[from..to]));
    }
    1.0 - (area[2] * area[3]) as f64 / (height * width) as f64
}
