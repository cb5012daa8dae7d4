//! The geometry of a convolution.

/// The geometry of a 2-D convolution: input [N, IH, IW, IC], filters [OC, IC/groups, KH, KW], output [N, OH, OW, OC].
///
/// ```
/// use striate_kernels::conv::Conv2dShape;
/// let shape = Conv2dShape { n: 1, ih: 224, iw: 224, ic: 3, oc: 64, kh: 7, kw: 7, stride: [2, 2], pads: [3; 4], dilation: [1, 1], groups: 1 };
/// shape.check()?;
/// assert_eq!((shape.oh(), shape.ow()), (112, 112));
/// assert_eq!(shape.flops(), 2 * 112 * 112 * 64 * 3 * 49);
/// # Ok::<(), striate_kernels::conv::ConvShapeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dShape {
    /// Images.
    pub n: usize,
    /// Input rows.
    pub ih: usize,
    /// Input columns.
    pub iw: usize,
    /// Input channels.
    pub ic: usize,
    /// Output channels.
    pub oc: usize,
    /// Filter rows.
    pub kh: usize,
    /// Filter columns.
    pub kw: usize,
    /// Step of the filter: rows, columns.
    pub stride: [usize; 2],
    /// Zeros around the input: top, left, bottom, right.
    pub pads: [usize; 4],
    /// Distance of the filter's elements: rows, columns.
    pub dilation: [usize; 2],
    /// Input and output channels are cut into this many independent parts.
    pub groups: usize,
}

/// What is wrong with a [`Conv2dShape`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ConvShapeError {
    /// A number that must be at least 1 is 0.
    Zero { what: &'static str },
    /// The groups do not divide the channels.
    Groups { what: &'static str, channels: usize, groups: usize },
    /// The dilated filter is larger than the padded input.
    TooSmall { axis: &'static str, input: usize, pads: usize, kernel: usize, dilation: usize },
    /// The tensors do not fit the address space.
    TooLarge,
}

impl std::fmt::Display for ConvShapeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            ConvShapeError::Zero { what } => write!(f, "convolution: {what} is 0; it must be at least 1"),
            ConvShapeError::Groups { what, channels, groups } => {
                write!(f, "convolution: {channels} {what} channels are not divisible by {groups} groups")
            }
            ConvShapeError::TooSmall { axis, input, pads, kernel, dilation } => {
                let span = (kernel - 1).saturating_mul(dilation).saturating_add(1);
                write!(
                    f,
                    "convolution: the filter's {axis} span {span} = {dilation}*({kernel}-1)+1 is larger than the padded \
                     input, {input}+{pads}; add at least {} of padding",
                    span - (input + pads)
                )
            }
            ConvShapeError::TooLarge => write!(f, "convolution: the tensors do not fit the address space"),
        }
    }
}

impl std::error::Error for ConvShapeError {}

impl Conv2dShape {
    /// Output rows. The shape must be valid, see [`Conv2dShape::check`].
    pub fn oh(&self) -> usize {
        (self.ih + self.pads[0] + self.pads[2] - self.dilation[0] * (self.kh - 1) - 1) / self.stride[0] + 1
    }

    /// Output columns.
    pub fn ow(&self) -> usize {
        (self.iw + self.pads[1] + self.pads[3] - self.dilation[1] * (self.kw - 1) - 1) / self.stride[1] + 1
    }

    /// Input channels that one filter sees.
    pub fn ic_per_group(&self) -> usize {
        self.ic / self.groups
    }

    /// Output channels of one group.
    pub fn oc_per_group(&self) -> usize {
        self.oc / self.groups
    }

    /// One filter a channel, each channel its own group (with any channel multiplier of 1).
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.ic && self.oc == self.ic
    }

    /// Floating-point operations, padding counted: `2*N*OH*OW*OC*(IC/groups)*KH*KW`.
    pub fn flops(&self) -> u64 {
        let pixels = (self.n * self.oh() * self.ow()) as u64;
        2 * pixels * (self.oc * self.ic_per_group()) as u64 * (self.kh * self.kw) as u64
    }

    /// Floats of the input.
    pub fn x_len(&self) -> usize {
        self.n * self.ih * self.iw * self.ic
    }

    /// Floats of the output.
    pub fn y_len(&self) -> usize {
        self.n * self.oh() * self.ow() * self.oc
    }

    /// Floats of the filters.
    pub fn w_len(&self) -> usize {
        self.oc * self.ic_per_group() * self.kh * self.kw
    }

    /// Checks that the numbers make a convolution. Zero images are allowed: all outputs are empty then.
    ///
    /// # Errors
    /// A zero size, channels that the groups do not divide, a filter larger than the padded input, sizes beyond the
    /// address space.
    pub fn check(&self) -> Result<(), ConvShapeError> {
        let sizes = [
            ("input height", self.ih),
            ("input width", self.iw),
            ("input channels", self.ic),
            ("output channels", self.oc),
            ("kernel height", self.kh),
            ("kernel width", self.kw),
            ("vertical stride", self.stride[0]),
            ("horizontal stride", self.stride[1]),
            ("vertical dilation", self.dilation[0]),
            ("horizontal dilation", self.dilation[1]),
            ("groups", self.groups),
        ];
        if let Some((what, _)) = sizes.into_iter().find(|&(_, size)| size == 0) {
            return Err(ConvShapeError::Zero { what });
        }
        for (what, channels) in [("input", self.ic), ("output", self.oc)] {
            if !channels.is_multiple_of(self.groups) {
                return Err(ConvShapeError::Groups { what, channels, groups: self.groups });
            }
        }
        let axes = [("height", self.ih, 0, self.kh), ("width", self.iw, 1, self.kw)];
        for (axis, input, i, kernel) in axes {
            let (dilation, pads) = (self.dilation[i], self.pads[i].checked_add(self.pads[i + 2]));
            let padded = pads.and_then(|p| p.checked_add(input)).ok_or(ConvShapeError::TooLarge)?;
            let span = (kernel - 1).checked_mul(dilation).and_then(|s| s.checked_add(1));
            if span.ok_or(ConvShapeError::TooLarge)? > padded {
                return Err(ConvShapeError::TooSmall { axis, input, pads: padded - input, kernel, dilation });
            }
        }
        self.check_len()
    }

    fn check_len(&self) -> Result<(), ConvShapeError> {
        let padded = [self.ih + self.pads[0] + self.pads[2], self.iw + self.pads[1] + self.pads[3]];
        let products: [&[usize]; 3] = [
            &[self.n, padded[0], padded[1], self.ic, 4],
            &[self.n, self.oh(), self.ow(), self.oc, 4],
            &[self.oc, self.ic, self.kh, self.kw, 4],
        ];
        for product in products {
            let bytes = product.iter().try_fold(1usize, |a, &b| a.checked_mul(b));
            if bytes.is_none_or(|b| b > isize::MAX as usize) {
                return Err(ConvShapeError::TooLarge);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Conv2dShape = Conv2dShape {
        n: 2,
        ih: 5,
        iw: 9,
        ic: 4,
        oc: 6,
        kh: 3,
        kw: 2,
        stride: [2, 3],
        pads: [1, 0, 0, 2],
        dilation: [1, 2],
        groups: 2,
    };

    #[test]
    fn sizes() {
        SHAPE.check().unwrap();
        assert_eq!((SHAPE.oh(), SHAPE.ow()), (2, 3));
        assert_eq!((SHAPE.x_len(), SHAPE.y_len(), SHAPE.w_len()), (360, 72, 72));
        assert_eq!(SHAPE.flops(), 2 * 2 * 2 * 3 * 6 * 2 * 6);
        assert!(!SHAPE.is_depthwise());
    }

    #[test]
    fn errors_say_what_to_do() {
        let zero = Conv2dShape { stride: [0, 1], ..SHAPE }.check().unwrap_err();
        assert!(zero.to_string().contains("vertical stride is 0"));
        let groups = Conv2dShape { oc: 7, ..SHAPE }.check().unwrap_err();
        assert!(groups.to_string().contains("7 output channels are not divisible by 2 groups"));
        let small = Conv2dShape { kh: 9, ..SHAPE }.check().unwrap_err();
        assert!(small.to_string().contains("add at least 3 of padding"), "{small}");
        assert_eq!(Conv2dShape { n: usize::MAX, ..SHAPE }.check(), Err(ConvShapeError::TooLarge));
        assert_eq!(Conv2dShape { pads: [usize::MAX; 4], ..SHAPE }.check(), Err(ConvShapeError::TooLarge));
    }
}
