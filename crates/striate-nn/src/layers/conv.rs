//! Convolutions.

use super::linear::bound;
use crate::module::Within;
use crate::show::{python_bool, python_tuple};
use crate::{Draw, Module, Padding, PaddingMode, Path, Sizes, display_module, visit_fields};
use striate_graph::{BinaryKind, ConvAttrs, Op, PadMode, Parameter, Tensor};

/// What the convolutions of one and two axes share. One axis is height 1: kernel `[1, k]`.
#[derive(Clone, Debug)]
struct Spec {
    class: &'static str,
    /// Number of spatial axes: 1 or 2.
    axes: usize,
    channels: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: Padding,
    dilation: [usize; 2],
    groups: usize,
    padding_mode: PaddingMode,
    output_padding: [usize; 2],
    transposed: bool,
}

/// A rule that is broken, and what would be right.
type Refusal = (String, String);

fn refusal<T>(rule: impl Into<String>, fix: impl Into<String>) -> Result<T, Refusal> {
    Err((rule.into(), fix.into()))
}

impl Spec {
    fn new(class: &'static str, axes: usize, channels: [usize; 2], kernel: [usize; 2]) -> Spec {
        Spec {
            class,
            axes,
            channels,
            kernel,
            stride: [1, 1],
            padding: Padding::Sides([0; 4]),
            dilation: [1, 1],
            groups: 1,
            padding_mode: PaddingMode::Zeros,
            output_padding: [0, 0],
            transposed: false,
        }
    }

    /// The weight's shape: `[out, in / groups, …kernel]`, transposed `[in, out / groups, …kernel]`.
    fn weight_shape(&self) -> Vec<usize> {
        let [inputs, outputs] = self.channels;
        let groups = self.groups.max(1);
        let lead = if self.transposed { [inputs, outputs / groups] } else { [outputs, inputs / groups] };
        [&lead[..], &self.kernel[2 - self.axes..]].concat()
    }

    fn bound(&self) -> f64 {
        bound(self.weight_shape()[1..].iter().product())
    }

    fn check(&self) -> Result<(), Refusal> {
        let [inputs, outputs] = self.channels;
        let groups = self.groups;
        if groups == 0 || !inputs.is_multiple_of(groups) {
            return refusal(
                format!("in_channels={inputs} in groups={groups}"),
                format!("groups must divide in_channels{}", divisors(inputs)),
            );
        }
        if !outputs.is_multiple_of(groups) {
            return refusal(
                format!("out_channels={outputs} in groups={groups}"),
                format!("groups must divide out_channels{}", divisors(outputs)),
            );
        }
        for (name, sizes) in [("kernel_size", self.kernel), ("stride", self.stride), ("dilation", self.dilation)] {
            if sizes.contains(&0) {
                return refusal(format!("{name}={}", self.shown(&sizes)), "it must be at least 1");
            }
        }
        if let PaddingMode::Unknown(name) = &self.padding_mode {
            return refusal(format!("padding_mode='{name}'"), "it must be zeros, reflect, replicate or circular");
        }
        self.check_padding()
    }

    fn check_padding(&self) -> Result<(), Refusal> {
        match &self.padding {
            Padding::Unknown(name) => {
                refusal(format!("padding='{name}'"), "it must be a number, a pair, four sides, 'same' or 'valid'")
            }
            Padding::Sides(sides) if self.padding_mode != PaddingMode::Zeros && sides.iter().any(|s| *s < 0) => {
                refusal(
                    format!("padding {sides:?} with padding_mode='{}'", self.padding_mode),
                    "negative padding needs padding_mode='zeros'",
                )
            }
            _ => Ok(()),
        }
    }

    /// Top, left, bottom, right for an input of this height and width.
    fn sides(&self, input: [usize; 2]) -> [isize; 4] {
        match &self.padding {
            Padding::Sides(sides) => *sides,
            Padding::Same => {
                let total = |axis: usize| {
                    let outputs = input[axis].div_ceil(self.stride[axis]).max(1);
                    let needed = (outputs - 1) * self.stride[axis] + self.dilation[axis] * (self.kernel[axis] - 1) + 1;
                    needed.saturating_sub(input[axis]) as isize
                };
                let (h, w) = (total(0), total(1));
                [h / 2, w / 2, h - h / 2, w - w / 2]
            }
            Padding::Valid | Padding::Unknown(_) => [0; 4],
        }
    }

    fn shown(&self, sizes: &[usize; 2]) -> String {
        python_tuple(&sizes[2 - self.axes..])
    }

    /// Applies the convolution to `[N, C, …]` or `[C, …]`.
    #[track_caller]
    fn apply(&self, x: &Tensor, weight: &Parameter, bias: Option<&Parameter>, output: Option<[usize; 2]>) -> Tensor {
        if x.is_poisoned() {
            return x.clone();
        }
        if let Err((rule, fix)) = self.check() {
            return x.trace().refuse(self.class, rule, fix);
        }
        let shape = x.shape();
        let batched = shape.rank() == self.axes + 2;
        if !batched && shape.rank() != self.axes + 1 {
            let layout = if self.axes == 1 { "[N, C, L] or [C, L]" } else { "[N, C, H, W] or [C, H, W]" };
            let rule = format!("the input has {} axes, shape {shape}", shape.rank());
            return x.trace().refuse(self.class, rule, format!("it must be {layout}"));
        }
        let lead = if batched { vec![shape[0], shape[1]] } else { vec![1, shape[0]] };
        let spatial = &shape[shape.rank() - self.axes..];
        let flat: &[usize] = if self.axes == 1 { &[1] } else { &[] };
        let image = x.reshape([&lead[..], flat, spatial].concat());
        let [a, b] = [self.weight_shape()[0], self.weight_shape()[1]];
        let weight = x.trace().parameter(weight).reshape([a, b, self.kernel[0], self.kernel[1]]);
        let bias = bias.map(|b| x.trace().parameter(b));
        let y = match self.transposed {
            false => self.convolve(&image, &weight, bias.as_ref()),
            true => self.convolve_transposed(&image, &weight, bias.as_ref(), output),
        };
        if y.is_poisoned() || (batched && self.axes == 2) {
            return y;
        }
        let sizes = y.shape();
        let out_lead = if batched { sizes[..2].to_vec() } else { vec![sizes[1]] };
        y.reshape([&out_lead[..], &sizes[4 - self.axes..]].concat())
    }

    #[track_caller]
    fn convolve(&self, image: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let sides = self.sides([image.size(2), image.size(3)]);
        let [top, left, bottom, right] = sides;
        let mut attrs = ConvAttrs { stride: self.stride, dilation: self.dilation, groups: self.groups, pads: [0; 4] };
        let pad = |mode| image.pad(&[left, right, top, bottom], mode);
        let padded = match self.padding_mode {
            PaddingMode::Reflect => pad(PadMode::Reflect),
            PaddingMode::Replicate => pad(PadMode::Replicate),
            PaddingMode::Circular => pad(PadMode::Circular),
            // Negative sides remove what the convolution then does not see.
            _ if sides.iter().any(|side| *side < 0) => pad(PadMode::Constant(0.0)),
            _ => {
                attrs.pads = sides.map(|side| side as usize);
                image.clone()
            }
        };
        let inputs = [&padded, weight];
        match bias {
            Some(bias) => image.trace().push(Op::Conv2d(attrs), &[&inputs[..], &[bias]].concat()),
            None => image.trace().push(Op::Conv2d(attrs), &inputs),
        }
    }

    /// The input gradient of the convolution that has this layer's output as its input.
    #[track_caller]
    fn convolve_transposed(
        &self,
        image: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        output: Option<[usize; 2]>,
    ) -> Tensor {
        let trace = image.trace();
        let pads = self.sides([0, 0]).map(|side| side.max(0) as usize);
        let mut sizes = [0; 2];
        for axis in 0..2 {
            let input = image.size(2 + axis);
            let extent = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
            let full = input.saturating_sub(1) * self.stride[axis] + extent;
            let removed = pads[axis] + pads[axis + 2];
            let least = full.saturating_sub(removed);
            sizes[axis] = match output {
                // Along the axis that stands for none, nothing is chosen.
                Some(chosen) if self.axes == 2 || axis == 1 => chosen[axis],
                _ => least + self.output_padding[axis],
            };
            let most = least + self.stride[axis].max(self.dilation[axis]) - 1;
            if full <= removed || !(least..=most).contains(&sizes[axis]) {
                let rule = format!("output size {} along axis {} of an input of {input}", sizes[axis], 2 + axis);
                let fix = format!(
                    "it must be from {least} to {most}: output_padding must be smaller than stride or dilation"
                );
                return trace.refuse(self.class, rule, fix);
            }
        }
        // Rows beyond what the stride reaches see no window: they are padded afterwards.
        let surplus = [0, 1].map(|axis| {
            let extent = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
            let last = (image.size(2 + axis) - 1) * self.stride[axis] + extent;
            (sizes[axis] + pads[axis] + pads[axis + 2] - last).saturating_sub(self.stride[axis] - 1)
        });
        let attrs = ConvAttrs { stride: self.stride, dilation: self.dilation, groups: self.groups, pads };
        let reached = [sizes[0] - surplus[0], sizes[1] - surplus[1]];
        let mut y = trace.push(Op::Conv2dInputGrad { attrs, input: reached }, &[image, weight]);
        if surplus != [0, 0] {
            y = y.pad(&[0, surplus[1] as isize, 0, surplus[0] as isize], PadMode::Constant(0.0));
        }
        match bias {
            Some(bias) => y.binary(BinaryKind::Add, &bias.reshape([self.channels[1], 1, 1])),
            None => y,
        }
    }

    fn repr(&self, bias: bool) -> String {
        let [inputs, outputs] = self.channels;
        let mut text = format!(
            "{inputs}, {outputs}, kernel_size={}, stride={}",
            self.shown(&self.kernel),
            self.shown(&self.stride)
        );
        match &self.padding {
            Padding::Sides([top, left, bottom, right]) => {
                if top == bottom && left == right {
                    if [*top, *left] != [0, 0] {
                        text += &format!(", padding={}", python_tuple(&[*top, *left][2 - self.axes..]));
                    }
                } else {
                    text += &format!(", padding=[{top}, {left}, {bottom}, {right}]");
                }
            }
            Padding::Same => text += ", padding=same",
            Padding::Valid => text += ", padding=valid",
            Padding::Unknown(name) => text += &format!(", padding={name}"),
        }
        if self.dilation != [1, 1] {
            text += &format!(", dilation={}", self.shown(&self.dilation));
        }
        if self.output_padding != [0, 0] {
            text += &format!(", output_padding={}", self.shown(&self.output_padding));
        }
        if self.groups != 1 {
            text += &format!(", groups={}", self.groups);
        }
        if !bias {
            text += &format!(", bias={}", python_bool(bias));
        }
        if self.padding_mode != PaddingMode::Zeros {
            text += &format!(", padding_mode={}", self.padding_mode);
        }
        text
    }
}

/// A hint that lists what divides `n`.
fn divisors(n: usize) -> String {
    let all: Vec<String> = (1..=n.min(4096)).filter(|d| n.is_multiple_of(*d)).map(|d| d.to_string()).collect();
    if all.is_empty() { String::new() } else { format!(": {}", all.join(", ")) }
}

/// The parts that all three convolutions have alike: construction, bias, groups, module.
macro_rules! convolution {
    ($layer:ident) => {
        impl $layer {
            fn from_spec(spec: Spec) -> $layer {
                let draw = Draw::next();
                let weight = Parameter::new(spec.initial_weight(&draw));
                let bias = Some(Parameter::new(spec.initial_bias(&draw)));
                $layer { weight, bias, spec, draw, path: Path::default() }
            }

            /// With or without bias.
            pub fn bias(mut self, bias: bool) -> $layer {
                self.bias = bias.then(|| Parameter::new(self.spec.initial_bias(&self.draw)));
                self
            }

            /// Splits the channels into groups that do not see each other (1).
            pub fn groups(mut self, groups: usize) -> $layer {
                self.spec.groups = groups;
                self.weight.update(|w| *w = self.spec.initial_weight(&self.draw));
                let bias = self.bias.is_some();
                self.bias(bias)
            }

            /// Channels in and out.
            pub fn channels(&self) -> (usize, usize) {
                (self.spec.channels[0], self.spec.channels[1])
            }
        }

        impl Module for $layer {
            #[track_caller]
            fn forward(&self, x: &Tensor) -> Tensor {
                self.spec.apply(x, &self.weight, self.bias.as_ref(), None)
            }

            visit_fields!(weight, bias);

            fn path(&self) -> Option<&Path> {
                Some(&self.path)
            }

            fn extra_repr(&self) -> String {
                self.spec.repr(self.bias.is_some())
            }

            fn reset_parameters(&self, draw: &Draw) {
                self.weight.update(|w| *w = self.spec.initial_weight(draw));
                if let Some(bias) = &self.bias {
                    bias.update(|b| *b = self.spec.initial_bias(draw));
                }
            }
        }
        display_module!($layer);
    };
}

impl Spec {
    fn initial_weight(&self, draw: &Draw) -> striate_graph::Array {
        draw.uniform("weight", self.weight_shape(), -self.bound(), self.bound())
    }

    fn initial_bias(&self, draw: &Draw) -> striate_graph::Array {
        draw.uniform("bias", [self.channels[1]], -self.bound(), self.bound())
    }
}

/// Cross-correlation of pictures `[N, C, H, W]` (or one picture `[C, H, W]`) with `out` kernels.
///
/// Output height (width alike): `floor((H + top + bottom - dilation * (kernel - 1) - 1) / stride) + 1`.
/// Weight `[out, in / groups, kh, kw]` and bias `[out]` start uniform within `1 / sqrt(in / groups * kh * kw)`.
///
/// ```
/// use striate_nn::{Conv2d, Module};
/// let conv = Conv2d::new(3, 8, 3).stride(2).padding(1).bias(false);
/// assert_eq!(conv.to_string(), "Conv2d(3, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), bias=False)");
/// let same = Conv2d::new(3, 8, (3, 5)).padding("same");
/// let four_sides = Conv2d::new(3, 8, 3).padding([0, 1, 2, 1]);
/// ```
#[derive(Debug)]
pub struct Conv2d {
    /// `[out, in / groups, kh, kw]`.
    pub weight: Parameter,
    /// `[out]`.
    pub bias: Option<Parameter>,
    spec: Spec,
    draw: Draw,
    path: Path,
}
convolution!(Conv2d);

impl Conv2d {
    /// `in_channels` to `out_channels` with a kernel of one size or (height, width).
    pub fn new(in_channels: usize, out_channels: usize, kernel_size: impl Into<Sizes>) -> Conv2d {
        Conv2d::from_spec(Spec::new("Conv2d", 2, [in_channels, out_channels], kernel_size.into().pair()))
    }

    /// Step of the kernel (1).
    pub fn stride(mut self, stride: impl Into<Sizes>) -> Conv2d {
        self.spec.stride = stride.into().pair();
        self
    }

    /// A number, (height, width), `[top, left, bottom, right]` (negative removes), `"same"` or `"valid"` (0).
    pub fn padding(mut self, padding: impl Into<Padding>) -> Conv2d {
        self.spec.padding = padding.into();
        self
    }

    /// Distance of the kernel's elements (1).
    pub fn dilation(mut self, dilation: impl Into<Sizes>) -> Conv2d {
        self.spec.dilation = dilation.into().pair();
        self
    }

    /// `"zeros"` (the default), `"reflect"`, `"replicate"` or `"circular"`.
    pub fn padding_mode(mut self, padding_mode: impl Into<PaddingMode>) -> Conv2d {
        self.spec.padding_mode = padding_mode.into();
        self
    }
}

/// Cross-correlation of sequences `[N, C, L]` (or one `[C, L]`). See [`Conv2d`].
#[derive(Debug)]
pub struct Conv1d {
    /// `[out, in / groups, k]`.
    pub weight: Parameter,
    /// `[out]`.
    pub bias: Option<Parameter>,
    spec: Spec,
    draw: Draw,
    path: Path,
}
convolution!(Conv1d);

impl Conv1d {
    /// `in_channels` to `out_channels`.
    pub fn new(in_channels: usize, out_channels: usize, kernel_size: usize) -> Conv1d {
        Conv1d::from_spec(Spec::new("Conv1d", 1, [in_channels, out_channels], [1, kernel_size]))
    }

    /// Step of the kernel (1).
    pub fn stride(mut self, stride: usize) -> Conv1d {
        self.spec.stride = [1, stride];
        self
    }

    /// A number, (left, right) as `[0, left, 0, right]`, `"same"` or `"valid"` (0).
    pub fn padding(mut self, padding: impl Into<Padding>) -> Conv1d {
        self.spec.padding = match padding.into() {
            // One number speaks of the only axis; the height that stands for none gets nothing.
            Padding::Sides([_, left, _, right]) => Padding::Sides([0, left, 0, right]),
            named => named,
        };
        self
    }

    /// Distance of the kernel's elements (1).
    pub fn dilation(mut self, dilation: usize) -> Conv1d {
        self.spec.dilation = [1, dilation];
        self
    }

    /// `"zeros"` (the default), `"reflect"`, `"replicate"` or `"circular"`.
    pub fn padding_mode(mut self, padding_mode: impl Into<PaddingMode>) -> Conv1d {
        self.spec.padding_mode = padding_mode.into();
        self
    }
}

/// The transposed convolution: what the gradient of a [`Conv2d`] for its input does.
///
/// Output height: `(H - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1`. Weight
/// `[in, out / groups, kh, kw]` and bias start uniform within `1 / sqrt(out / groups * kh * kw)`, as PyTorch has it.
#[derive(Debug)]
pub struct ConvTranspose2d {
    /// `[in, out / groups, kh, kw]`.
    pub weight: Parameter,
    /// `[out]`.
    pub bias: Option<Parameter>,
    spec: Spec,
    draw: Draw,
    path: Path,
}
convolution!(ConvTranspose2d);

impl ConvTranspose2d {
    /// `in_channels` to `out_channels`.
    pub fn new(in_channels: usize, out_channels: usize, kernel_size: impl Into<Sizes>) -> ConvTranspose2d {
        let mut spec = Spec::new("ConvTranspose2d", 2, [in_channels, out_channels], kernel_size.into().pair());
        spec.transposed = true;
        ConvTranspose2d::from_spec(spec)
    }

    /// Step (1).
    pub fn stride(mut self, stride: impl Into<Sizes>) -> ConvTranspose2d {
        self.spec.stride = stride.into().pair();
        self
    }

    /// Rows and columns that the output lacks at each side (0).
    pub fn padding(mut self, padding: impl Into<Sizes>) -> ConvTranspose2d {
        self.spec.padding = padding.into().pair().into();
        self
    }

    /// Rows and columns added at the bottom and right (0); smaller than stride or dilation.
    pub fn output_padding(mut self, output_padding: impl Into<Sizes>) -> ConvTranspose2d {
        self.spec.output_padding = output_padding.into().pair();
        self
    }

    /// Distance of the kernel's elements (1).
    pub fn dilation(mut self, dilation: impl Into<Sizes>) -> ConvTranspose2d {
        self.spec.dilation = dilation.into().pair();
        self
    }

    /// As `call`, with the height and width of the output given instead of output_padding.
    #[track_caller]
    pub fn call_with_output_size(&self, x: &Tensor, output_size: [usize; 2]) -> Tensor {
        let within = Within::enter(Some(&self.path), x.trace());
        let y = self.spec.apply(x, &self.weight, self.bias.as_ref(), Some(output_size));
        within.leave(&y);
        y
    }
}
