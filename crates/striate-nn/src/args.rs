//! Arguments that take a number or a pair, as PyTorch's do.

use crate::show::python_tuple;

/// One number for both axes, or one for height and one for width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    sizes: [usize; 2],
    single: bool,
}

impl Sizes {
    /// Height and width.
    pub fn pair(self) -> [usize; 2] {
        self.sizes
    }

    /// The tuple of both, as printing shows it where PyTorch stores a tuple.
    pub(crate) fn tuple(self) -> String {
        python_tuple(&self.sizes)
    }
}

impl From<usize> for Sizes {
    fn from(size: usize) -> Sizes {
        Sizes { sizes: [size, size], single: true }
    }
}

impl From<(usize, usize)> for Sizes {
    fn from((height, width): (usize, usize)) -> Sizes {
        Sizes { sizes: [height, width], single: false }
    }
}

impl From<[usize; 2]> for Sizes {
    fn from(sizes: [usize; 2]) -> Sizes {
        Sizes { sizes, single: false }
    }
}

impl std::fmt::Display for Sizes {
    /// As it was given: `3` or `(3, 5)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.single { write!(f, "{}", self.sizes[0]) } else { f.write_str(&self.tuple()) }
    }
}

/// The padding of a convolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Padding {
    /// So many elements at top, left, bottom and right (ONNX's order); negative ones remove.
    Sides([isize; 4]),
    /// So that the output has the size `ceil(input / stride)`; the odd element is at the end (ONNX's `SAME_UPPER`).
    Same,
    /// None.
    Valid,
    /// A name that is none of the above; refused when the layer is traced.
    Unknown(String),
}

impl From<usize> for Padding {
    fn from(size: usize) -> Padding {
        Padding::Sides([size as isize; 4])
    }
}

impl From<(usize, usize)> for Padding {
    fn from((height, width): (usize, usize)) -> Padding {
        let (h, w) = (height as isize, width as isize);
        Padding::Sides([h, w, h, w])
    }
}

impl From<[usize; 2]> for Padding {
    fn from([height, width]: [usize; 2]) -> Padding {
        (height, width).into()
    }
}

impl From<[isize; 4]> for Padding {
    fn from(sides: [isize; 4]) -> Padding {
        Padding::Sides(sides)
    }
}

impl From<&str> for Padding {
    fn from(name: &str) -> Padding {
        match name {
            "same" => Padding::Same,
            "valid" => Padding::Valid,
            other => Padding::Unknown(other.to_owned()),
        }
    }
}

/// What a convolution sees beyond the border.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PaddingMode {
    /// Zeros.
    Zeros,
    /// The picture mirrored at its border, which is not repeated.
    Reflect,
    /// The border repeated.
    Replicate,
    /// The picture from its other end.
    Circular,
    /// A name that is none of the above; refused when the layer is traced.
    Unknown(String),
}

impl From<&str> for PaddingMode {
    fn from(name: &str) -> PaddingMode {
        match name {
            "zeros" => PaddingMode::Zeros,
            "reflect" => PaddingMode::Reflect,
            "replicate" => PaddingMode::Replicate,
            "circular" => PaddingMode::Circular,
            other => PaddingMode::Unknown(other.to_owned()),
        }
    }
}

impl std::fmt::Display for PaddingMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PaddingMode::Zeros => "zeros",
            PaddingMode::Reflect => "reflect",
            PaddingMode::Replicate => "replicate",
            PaddingMode::Circular => "circular",
            PaddingMode::Unknown(name) => name,
        })
    }
}
