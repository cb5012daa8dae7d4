//! Resampling.

use super::plain_layer;
use crate::show::python_float;
use crate::{Path, Sizes};
use striate_graph::{Interpolation, Op, ResizeSpec, Tensor};

/// A number for both axes, or (height, width).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    factors: [f64; 2],
    single: bool,
}

impl From<f64> for Scale {
    fn from(factor: f64) -> Scale {
        Scale { factors: [factor; 2], single: true }
    }
}

impl From<(f64, f64)> for Scale {
    fn from((height, width): (f64, f64)) -> Scale {
        Scale { factors: [height, width], single: false }
    }
}

/// Resamples pictures `[N, C, H, W]` to a size or by a factor: `torch.nn.Upsample`, and with [`Upsample::antialias`] and
/// [`Upsample::recompute_scale_factor`] all of `torch.nn.functional.interpolate`.
///
/// ```
/// use striate_nn::Upsample;
/// let twice = Upsample::new().scale_factor(2.0).mode("bilinear");
/// assert_eq!(twice.to_string(), "Upsample(scale_factor=2.0, mode='bilinear')");
/// ```
#[derive(Clone, Debug)]
pub struct Upsample {
    size: Option<Sizes>,
    scale: Option<Scale>,
    mode: String,
    align_corners: Option<bool>,
    antialias: bool,
    recompute: bool,
    path: Path,
}

impl Upsample {
    /// Nearest neighbour; give `size` or `scale_factor`.
    pub fn new() -> Upsample {
        Upsample {
            size: None,
            scale: None,
            mode: "nearest".into(),
            align_corners: None,
            antialias: false,
            recompute: false,
            path: Path::default(),
        }
    }

    /// Output height and width.
    pub fn size(self, size: impl Into<Sizes>) -> Upsample {
        Upsample { size: Some(size.into()), ..self }
    }

    /// Output pixels per input pixel; the output size is rounded down.
    pub fn scale_factor(self, factor: impl Into<Scale>) -> Upsample {
        Upsample { scale: Some(factor.into()), ..self }
    }

    /// `nearest`, `nearest-exact`, `bilinear` or `bicubic`.
    pub fn mode(self, mode: &str) -> Upsample {
        Upsample { mode: mode.into(), ..self }
    }

    /// Corner pixels keep their centres (bilinear and bicubic; false).
    pub fn align_corners(self, align_corners: bool) -> Upsample {
        Upsample { align_corners: Some(align_corners), ..self }
    }

    /// Widen the filter when shrinking (bilinear and bicubic; false).
    pub fn antialias(self, antialias: bool) -> Upsample {
        Upsample { antialias, ..self }
    }

    /// Compute with the ratio of the sizes instead of the factor that was given (false).
    pub fn recompute_scale_factor(self, recompute: bool) -> Upsample {
        Upsample { recompute, ..self }
    }

    /// The resampling and the output size, or a broken rule and what would be right.
    fn plan(&self, input: [usize; 2]) -> Result<(ResizeSpec, [usize; 2]), (String, String)> {
        let interpolation = match self.mode.as_str() {
            "nearest" => Interpolation::Nearest,
            "nearest-exact" => Interpolation::NearestExact,
            "bilinear" => Interpolation::Bilinear,
            // Keys' a = -0.5 with antialias (as Pillow), else -0.75, as PyTorch has it.
            "bicubic" => Interpolation::Bicubic { a: if self.antialias { -0.5 } else { -0.75 } },
            other => {
                return Err((format!("mode='{other}'"), "use nearest, nearest-exact, bilinear or bicubic".into()));
            }
        };
        let nearest = matches!(interpolation, Interpolation::Nearest | Interpolation::NearestExact);
        if nearest && (self.align_corners.is_some() || self.antialias) {
            return Err((
                format!("align_corners or antialias with mode='{}'", self.mode),
                "they need bilinear or bicubic".into(),
            ));
        }
        let (out, scales) = match (self.size, self.scale) {
            (Some(size), None) => (size.pair(), None),
            (None, Some(scale)) => {
                let size = |axis: usize| (input[axis] as f64 * scale.factors[axis]).floor().max(0.0) as usize;
                ([size(0), size(1)], (!self.recompute).then_some(scale.factors))
            }
            _ => return Err(("neither or both of size and scale_factor".into(), "give one of them".into())),
        };
        let align_corners = self.align_corners.unwrap_or(false);
        Ok((ResizeSpec { mode: interpolation, align_corners, antialias: self.antialias, scales }, out))
    }

    #[track_caller]
    fn resample(&self, x: &Tensor) -> Tensor {
        let shape = x.shape();
        if x.is_poisoned() {
            return x.clone();
        }
        if shape.rank() != 4 {
            let rule = format!("the input has {} axes, shape {shape}", shape.rank());
            return x.trace().refuse("Upsample", rule, "it must be [N, C, H, W]");
        }
        match self.plan([shape[2], shape[3]]) {
            Ok((spec, out)) => x.trace().push(Op::Resize { spec, out }, &[x]),
            Err((rule, fix)) => x.trace().refuse("Upsample", rule, fix),
        }
    }
}

impl Default for Upsample {
    fn default() -> Upsample {
        Upsample::new()
    }
}

plain_layer!(Upsample, |layer, x| layer.resample(x), |layer| {
    let what = match (layer.scale, layer.size) {
        (Some(Scale { factors: [h, w], single }), _) => match single {
            true => format!("scale_factor={}", python_float(h)),
            false => format!("scale_factor=({}, {})", python_float(h), python_float(w)),
        },
        (None, Some(size)) => format!("size={size}"),
        (None, None) => "size=None".to_owned(),
    };
    format!("{what}, mode='{}'", layer.mode)
});

/// `torch.nn.functional.interpolate`: resamples by the arguments that an [`Upsample`] holds.
#[track_caller]
pub fn interpolate(x: &Tensor, how: &Upsample) -> Tensor {
    how.resample(x)
}
