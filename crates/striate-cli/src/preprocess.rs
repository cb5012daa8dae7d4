//! `--resize`, `--crop`, `--interpolation`, `--mean`, `--std`: how pictures are prepared, where that is to differ from what the
//! weights say.

use clap::Args;
use striate::vision::transforms::{Interpolation, PreprocessOverrides, ResizeTo};

/// The flags.
#[derive(Args, Clone, Debug, Default)]
pub struct PreprocessArgs {
    /// Length of the shorter side before the crop; HEIGHTxWIDTH for exactly that; `none`.
    #[arg(long, value_name = "N|HxW|none")]
    resize: Option<Size>,
    /// Side of the centre crop; HEIGHTxWIDTH; `none`.
    #[arg(long, value_name = "N|HxW|none")]
    crop: Option<Size>,
    /// nearest, bilinear or bicubic.
    #[arg(long)]
    interpolation: Option<Interpolation>,
    /// Mean of each channel, of values from 0 to 1.
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', allow_negative_numbers = true)]
    mean: Option<Vec<f32>>,
    /// Deviation of each channel.
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    std: Option<Vec<f32>>,
}

/// A size as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    None,
    Side(usize),
    Both([usize; 2]),
}

impl std::str::FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Size, String> {
        let number = |part: &str| {
            let sound = part.parse().ok().filter(|n| (1..=32_768).contains(n));
            sound.ok_or_else(|| {
                format!("`{text}` is no size; give a number such as 224, 224x320 (height x width), or none")
            })
        };
        match text.split_once('x') {
            _ if text == "none" => Ok(Size::None),
            Some((height, width)) => Ok(Size::Both([number(height)?, number(width)?])),
            None => Ok(Size::Side(number(text)?)),
        }
    }
}

impl PreprocessArgs {
    /// What is to differ.
    pub fn overrides(&self) -> PreprocessOverrides {
        PreprocessOverrides {
            resize: self.resize.map(|size| match size {
                Size::None => None,
                Size::Side(side) => Some(ResizeTo::Shorter(side)),
                Size::Both(size) => Some(ResizeTo::Exact(size)),
            }),
            crop: self.crop.map(|size| match size {
                Size::None => None,
                Size::Side(side) => Some([side, side]),
                Size::Both(size) => Some(size),
            }),
            interpolation: self.interpolation,
            mean: self.mean.clone(),
            std: self.std.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Size;

    #[test]
    fn sizes_are_read_as_written() {
        let size = |text: &str| text.parse::<Size>();
        assert_eq!(size("256"), Ok(Size::Side(256)));
        assert_eq!(size("10x20"), Ok(Size::Both([10, 20])));
        assert_eq!(size("none"), Ok(Size::None));
        for bad in ["0", "x", "3x", "-1", "40000", "1x2x3"] {
            assert!(size(bad).unwrap_err().contains(bad), "{bad}");
        }
    }
}
