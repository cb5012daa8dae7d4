//! Crops, flips and padding.

use super::resize::{Interpolation, resize};
use super::{Draws, Scratch, Transform, TransformError, round_half_even};
use crate::data::Image;

/// What lies outside of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PaddingMode {
    /// A colour: the fill.
    #[default]
    Constant,
    /// The nearest pixel of the border.
    Edge,
    /// The picture mirrored at its border pixels, which are not repeated.
    Reflect,
    /// The picture mirrored at its border, border pixels repeated.
    Symmetric,
}

impl PaddingMode {
    /// The index in `0..n` that a position stands for; `None` is the fill.
    fn source(self, at: isize, n: usize) -> Option<usize> {
        let size = n as isize;
        if (0..size).contains(&at) {
            return Some(at as usize);
        }
        match self {
            PaddingMode::Constant => None,
            PaddingMode::Edge => Some(at.clamp(0, size - 1) as usize),
            PaddingMode::Reflect if n == 1 => Some(0),
            PaddingMode::Reflect => {
                let m = at.rem_euclid(2 * size - 2);
                Some(if m < size { m } else { 2 * size - 2 - m } as usize)
            }
            PaddingMode::Symmetric => {
                let m = at.rem_euclid(2 * size);
                Some(if m < size { m } else { 2 * size - 1 - m } as usize)
            }
        }
    }
}

/// A window on a picture, which may lie partly or wholly outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub top: isize,
    pub left: isize,
    pub height: usize,
    pub width: usize,
}

/// Cuts a window out; what lies outside of the picture is as `mode` and `fill` say. Nothing larger is made on the way.
pub(crate) fn crop_window(image: &mut Image, window: Window, mode: PaddingMode, fill: [u8; 3], scratch: &mut Scratch) {
    let Window { top, left, height, width } = window;
    if (top, left, height, width) == (0, 0, image.height, image.width) {
        return;
    }
    let c = image.channels;
    let out = &mut scratch.spare;
    out.reshape(width, height, c);
    let fill = &fill[..c];
    // Columns of the window that lie inside of the picture: one copy a row.
    let from = (-left).clamp(0, width as isize) as usize;
    let to = (image.width as isize - left).clamp(from as isize, width as isize) as usize;
    scratch.columns.clear();
    if mode != PaddingMode::Constant {
        scratch.columns.extend((0..width).map(|x| mode.source(left + x as isize, image.width)));
    }
    for (y, target) in out.data.chunks_exact_mut(width * c).enumerate() {
        let Some(source) = mode.source(top + y as isize, image.height) else {
            target.chunks_exact_mut(c).for_each(|p| p.copy_from_slice(fill));
            continue;
        };
        let row = &image.data[source * image.width * c..][..image.width * c];
        if to > from {
            let start = (left + from as isize) as usize * c;
            target[from * c..to * c].copy_from_slice(&row[start..start + (to - from) * c]);
        }
        for x in (0..from).chain(to..width) {
            let pixel = match scratch.columns.get(x) {
                Some(&Some(source)) => &row[source * c..source * c + c],
                _ => fill,
            };
            target[x * c..x * c + c].copy_from_slice(pixel);
        }
    }
    std::mem::swap(image, &mut scratch.spare);
}

/// Cuts out `height` x `width` pixels from (`top`, `left`) on; outside of the picture it is black.
pub fn crop(image: &mut Image, [top, left]: [isize; 2], [height, width]: [usize; 2], scratch: &mut Scratch) {
    crop_window(image, Window { top, left, height, width }, PaddingMode::Constant, [0; 3], scratch);
}

/// Left becomes right.
pub fn horizontal_flip(image: &mut Image) {
    let pitch = image.width * image.channels;
    for row in image.data.chunks_exact_mut(pitch) {
        if image.channels == 1 {
            row.reverse();
            continue;
        }
        let (mut a, mut b) = (0, pitch - 3);
        while a < b {
            for c in 0..3 {
                row.swap(a + c, b + c);
            }
            a += 3;
            b -= 3;
        }
    }
}

/// Up becomes down.
pub fn vertical_flip(image: &mut Image) {
    let pitch = image.width * image.channels;
    let half = image.height / 2 * pitch;
    let (upper, lower) = image.data.split_at_mut(half);
    for (a, b) in upper.chunks_exact_mut(pitch).zip(lower.chunks_exact_mut(pitch).rev()) {
        a.swap_with_slice(b);
    }
}

/// `torchvision.transforms.Pad`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pad {
    /// Pixels to add: left, top, right, bottom.
    pub padding: [usize; 4],
    /// The colour for [`PaddingMode::Constant`]; grey takes the first.
    pub fill: [u8; 3],
    /// What to add.
    pub mode: PaddingMode,
}

impl Pad {
    /// The same black border on all sides.
    pub fn new(padding: usize) -> Self {
        Self { padding: [padding; 4], fill: [0; 3], mode: PaddingMode::Constant }
    }
}

impl Transform for Pad {
    fn apply(&self, image: &mut Image, _: &mut Draws, scratch: &mut Scratch) -> Result<(), TransformError> {
        let [left, top, right, bottom] = self.padding;
        let (height, width) = (image.height + top + bottom, image.width + left + right);
        let window = Window { top: -(top as isize), left: -(left as isize), height, width };
        crop_window(image, window, self.mode, self.fill, scratch);
        Ok(())
    }
}

/// `torchvision.transforms.CenterCrop`; a smaller picture gets a black border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CenterCrop {
    /// Height and width.
    pub size: [usize; 2],
}

impl CenterCrop {
    /// A square.
    pub fn new(side: usize) -> Self {
        Self { size: [side, side] }
    }
}

/// Where a centred crop of `crop` starts on `full` pixels: torchvision pads first, and rounds halves to even.
fn center_start(full: usize, crop: usize) -> isize {
    if crop > full {
        return -(((crop - full) / 2) as isize);
    }
    round_half_even((full - crop) as f64 / 2.0) as isize
}

impl Transform for CenterCrop {
    fn apply(&self, image: &mut Image, _: &mut Draws, scratch: &mut Scratch) -> Result<(), TransformError> {
        let [height, width] = self.size;
        let (top, left) = (center_start(image.height, height), center_start(image.width, width));
        crop_window(image, Window { top, left, height, width }, PaddingMode::Constant, [0; 3], scratch);
        Ok(())
    }
}

/// `torchvision.transforms.RandomCrop`. Padding is not made, only looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomCrop {
    /// Height and width.
    pub size: [usize; 2],
    /// Border before cropping: left, top, right, bottom.
    pub padding: [usize; 4],
    /// Whether a picture that is too small gets as much border as it needs, on both sides.
    pub pad_if_needed: bool,
    /// The colour for [`PaddingMode::Constant`].
    pub fill: [u8; 3],
    /// What the border is.
    pub mode: PaddingMode,
}

impl RandomCrop {
    /// Without padding.
    pub fn new(height: usize, width: usize) -> Self {
        Self { size: [height, width], padding: [0; 4], pad_if_needed: false, fill: [0; 3], mode: PaddingMode::Constant }
    }

    /// With the same border on all sides.
    pub fn padding(self, padding: usize) -> Self {
        Self { padding: [padding; 4], ..self }
    }

    /// With another kind of border.
    pub fn padding_mode(self, mode: PaddingMode) -> Self {
        Self { mode, ..self }
    }
}

impl Transform for RandomCrop {
    fn apply(&self, image: &mut Image, draws: &mut Draws, scratch: &mut Scratch) -> Result<(), TransformError> {
        let [height, width] = self.size;
        let [mut left, mut top, right, bottom] = self.padding;
        let (mut full_h, mut full_w) = (image.height + top + bottom, image.width + left + right);
        if self.pad_if_needed {
            let (more_h, more_w) = (height.saturating_sub(full_h), width.saturating_sub(full_w));
            (top, left, full_h, full_w) = (top + more_h, left + more_w, full_h + 2 * more_h, full_w + 2 * more_w);
        }
        if full_h < height || full_w < width {
            return Err(TransformError(format!(
                "a crop of {width}x{height} does not fit into {full_w}x{full_h} pixels (padding counted); resize first, or set \
                 pad_if_needed"
            )));
        }
        let at_y = draws.below(full_h - height + 1) as isize - top as isize;
        let at_x = draws.below(full_w - width + 1) as isize - left as isize;
        crop_window(image, Window { top: at_y, left: at_x, height, width }, self.mode, self.fill, scratch);
        Ok(())
    }
}

/// `torchvision.transforms.RandomResizedCrop`: a part of random area and shape, resized ("Inception crop").
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomResizedCrop {
    /// Height and width of the result.
    pub size: [usize; 2],
    /// Least and largest part of the area.
    pub scale: [f64; 2],
    /// Least and largest width ÷ height.
    pub ratio: [f64; 2],
    /// How to resample.
    pub interpolation: Interpolation,
}

impl RandomResizedCrop {
    /// A square result, scale 0.08 to 1, ratio 3/4 to 4/3, bilinear.
    pub fn new(side: usize) -> Self {
        let interpolation = Interpolation::Bilinear;
        Self { size: [side, side], scale: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0], interpolation }
    }

    fn choose_window(&self, image: &Image, draws: &mut Draws) -> Window {
        let (w, h) = (image.width as f64, image.height as f64);
        let (low, high) = (self.ratio[0].ln(), self.ratio[1].ln());
        for _ in 0..10 {
            let area = w * h * draws.range(self.scale[0], self.scale[1]);
            let ratio = draws.range(low, high).exp();
            let width = round_half_even((area * ratio).sqrt()) as usize;
            let height = round_half_even((area / ratio).sqrt()) as usize;
            if (1..=image.width).contains(&width) && (1..=image.height).contains(&height) {
                let top = draws.below(image.height - height + 1) as isize;
                let left = draws.below(image.width - width + 1) as isize;
                return Window { top, left, height, width };
            }
        }
        let (width, height) = if w / h < self.ratio[0] {
            (image.width, round_half_even(w / self.ratio[0]) as usize)
        } else if w / h > self.ratio[1] {
            (round_half_even(h * self.ratio[1]) as usize, image.height)
        } else {
            (image.width, image.height)
        };
        let (width, height) = (width.clamp(1, image.width), height.clamp(1, image.height));
        let (top, left) = ((image.height - height) / 2, (image.width - width) / 2);
        Window { top: top as isize, left: left as isize, height, width }
    }
}

impl Transform for RandomResizedCrop {
    fn apply(&self, image: &mut Image, draws: &mut Draws, scratch: &mut Scratch) -> Result<(), TransformError> {
        let window = self.choose_window(image, draws);
        crop_window(image, window, PaddingMode::Constant, [0; 3], scratch);
        resize(image, self.size[1], self.size[0], self.interpolation, scratch);
        Ok(())
    }
}

/// `torchvision.transforms.RandomHorizontalFlip`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomHorizontalFlip {
    /// Probability.
    pub p: f64,
}

impl RandomHorizontalFlip {
    /// With this probability.
    pub fn new(p: f64) -> Self {
        Self { p }
    }
}

impl Transform for RandomHorizontalFlip {
    fn apply(&self, image: &mut Image, draws: &mut Draws, _: &mut Scratch) -> Result<(), TransformError> {
        if draws.chance(self.p) {
            horizontal_flip(image);
        }
        Ok(())
    }
}

/// `torchvision.transforms.RandomVerticalFlip`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomVerticalFlip {
    /// Probability.
    pub p: f64,
}

impl RandomVerticalFlip {
    /// With this probability.
    pub fn new(p: f64) -> Self {
        Self { p }
    }
}

impl Transform for RandomVerticalFlip {
    fn apply(&self, image: &mut Image, draws: &mut Draws, _: &mut Scratch) -> Result<(), TransformError> {
        if draws.chance(self.p) {
            vertical_flip(image);
        }
        Ok(())
    }
}
