//! Small blocks that many nets share, as in `torchvision.ops.misc`.

use super::{AdaptiveAvgPool2d, BatchNorm2d, Conv2d, ReLU, Sigmoid};
use crate::{Module, Padding, Path, Sizes, Visitor, display_module, visit_fields};
use striate_graph::Tensor;

/// Weighs the channels by what they hold (Hu et al. 2018): global average, two 1x1 convolutions `fc1` and `fc2`, a gate.
pub struct SqueezeExcitation {
    avgpool: AdaptiveAvgPool2d,
    /// `input_channels` to `squeeze_channels`.
    pub fc1: Conv2d,
    /// And back.
    pub fc2: Conv2d,
    activation: Box<dyn Module>,
    scale_activation: Box<dyn Module>,
    path: Path,
}

impl SqueezeExcitation {
    /// With ReLU between and a sigmoid as the gate.
    pub fn new(input_channels: usize, squeeze_channels: usize) -> SqueezeExcitation {
        SqueezeExcitation {
            avgpool: AdaptiveAvgPool2d::new(1),
            fc1: Conv2d::new(input_channels, squeeze_channels, 1),
            fc2: Conv2d::new(squeeze_channels, input_channels, 1),
            activation: Box::new(ReLU::new()),
            scale_activation: Box::new(Sigmoid::new()),
            path: Path::default(),
        }
    }

    /// Between the convolutions.
    pub fn activation(self, activation: impl Module + 'static) -> SqueezeExcitation {
        SqueezeExcitation { activation: Box::new(activation), ..self }
    }

    /// The gate.
    pub fn scale_activation(self, activation: impl Module + 'static) -> SqueezeExcitation {
        SqueezeExcitation { scale_activation: Box::new(activation), ..self }
    }
}

impl Module for SqueezeExcitation {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let scale = self.activation.call(&self.fc1.call(&self.avgpool.call(x)));
        self.scale_activation.call(&self.fc2.call(&scale)) * x
    }
    visit_fields!(avgpool, fc1, fc2, activation, scale_activation);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(SqueezeExcitation);

/// Convolution, norm, activation, named `0`, `1`, `2`; by default without bias, with [`BatchNorm2d`] and [`ReLU`], and padded
/// so that stride 1 keeps the size.
///
/// ```
/// use striate_nn::{Conv2dNormActivation, Module, ReLU6};
/// let stem = Conv2dNormActivation::new(3, 32, 3).stride(2).activation(ReLU6::new());
/// assert_eq!(stem.state_dict().keys().next(), Some("0.weight"));
/// ```
pub struct Conv2dNormActivation {
    conv: Conv2d,
    norm: Option<Box<dyn Module>>,
    activation: Option<Box<dyn Module>>,
    kernel: [usize; 2],
    dilation: [usize; 2],
    padding: Option<Padding>,
    bias: Option<bool>,
    path: Path,
}

/// The name under which the issue and older code know it.
pub type ConvNormActivation = Conv2dNormActivation;

impl Conv2dNormActivation {
    /// `in_channels` to `out_channels`.
    pub fn new(in_channels: usize, out_channels: usize, kernel_size: impl Into<Sizes>) -> Conv2dNormActivation {
        let kernel_size = kernel_size.into();
        let block = Conv2dNormActivation {
            conv: Conv2d::new(in_channels, out_channels, kernel_size),
            norm: Some(Box::new(BatchNorm2d::new(out_channels))),
            activation: Some(Box::new(ReLU::new())),
            kernel: kernel_size.pair(),
            dilation: [1, 1],
            padding: None,
            bias: None,
            path: Path::default(),
        };
        block.settle()
    }

    /// Puts padding and bias as the other arguments ask.
    fn settle(mut self) -> Conv2dNormActivation {
        let half = |axis: usize| self.kernel[axis].saturating_sub(1) / 2 * self.dilation[axis];
        let padding = self.padding.clone().unwrap_or_else(|| Padding::from((half(0), half(1))));
        let bias = self.bias.unwrap_or(self.norm.is_none());
        self.conv = self.conv.padding(padding).bias(bias);
        self
    }

    /// Step of the kernel (1).
    pub fn stride(mut self, stride: impl Into<Sizes>) -> Conv2dNormActivation {
        self.conv = self.conv.stride(stride);
        self
    }

    /// Instead of the one that keeps the size.
    pub fn padding(mut self, padding: impl Into<Padding>) -> Conv2dNormActivation {
        self.padding = Some(padding.into());
        self.settle()
    }

    /// Groups of channels (1).
    pub fn groups(mut self, groups: usize) -> Conv2dNormActivation {
        self.conv = self.conv.groups(groups);
        self
    }

    /// Distance of the kernel's elements (1).
    pub fn dilation(mut self, dilation: impl Into<Sizes>) -> Conv2dNormActivation {
        let dilation = dilation.into();
        self.dilation = dilation.pair();
        self.conv = self.conv.dilation(dilation);
        self.settle()
    }

    /// With or without bias; else there is one exactly where there is no norm.
    pub fn bias(mut self, bias: bool) -> Conv2dNormActivation {
        self.bias = Some(bias);
        self.settle()
    }

    /// Another norm.
    pub fn norm(mut self, norm: impl Module + 'static) -> Conv2dNormActivation {
        self.norm = Some(Box::new(norm));
        self.settle()
    }

    /// Without a norm.
    pub fn no_norm(mut self) -> Conv2dNormActivation {
        self.norm = None;
        self.settle()
    }

    /// Another activation.
    pub fn activation(mut self, activation: impl Module + 'static) -> Conv2dNormActivation {
        self.activation = Some(Box::new(activation));
        self
    }

    /// Without an activation.
    pub fn no_activation(mut self) -> Conv2dNormActivation {
        self.activation = None;
        self
    }

    /// The convolution.
    pub fn conv(&self) -> &Conv2d {
        &self.conv
    }

    fn parts(&self) -> impl Iterator<Item = &dyn Module> {
        let rest = [&self.norm, &self.activation].into_iter().flatten().map(|part| &**part);
        std::iter::once(&self.conv as &dyn Module).chain(rest)
    }
}

impl Module for Conv2dNormActivation {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = x.clone();
        for part in self.parts() {
            x = part.call(&x);
        }
        x
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        self.parts().enumerate().for_each(|(index, part)| visitor.module(&index.to_string(), part));
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(Conv2dNormActivation);
