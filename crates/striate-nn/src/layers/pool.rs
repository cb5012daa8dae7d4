//! Pooling.

use super::plain_layer;
use crate::module::Within;
use crate::show::{python_bool, python_tuple};
use crate::{Module, Path, Sizes, display_module, visit_fields};
use striate_graph::{AvgDivisor, Op, ScatterMode, Tensor, Windows};

/// Runs a pool over `[N, C, H, W]`, for input that may lack the batch axis or (`axes` 1) the height. `pool` sees the map.
#[track_caller]
fn over_images(class: &str, axes: usize, x: &Tensor, pool: impl FnOnce(&Tensor) -> Op) -> Tensor {
    let shape = x.shape();
    if x.is_poisoned() {
        return x.clone();
    }
    let batched = shape.rank() == axes + 2;
    if !batched && shape.rank() != axes + 1 {
        let layout = if axes == 1 { "[N, C, L] or [C, L]" } else { "[N, C, H, W] or [C, H, W]" };
        let rule = format!("the input has {} axes, shape {shape}", shape.rank());
        return x.trace().refuse(class, rule, format!("it must be {layout}"));
    }
    let lead: &[usize] = if batched { &shape[..2] } else { &[1, shape[0]] };
    let flat: &[usize] = if axes == 1 { &[1] } else { &[] };
    let image = x.reshape([lead, flat, &shape[shape.rank() - axes..]].concat());
    let y = x.trace().push(pool(&image), &[&image]);
    if y.is_poisoned() || (batched && axes == 2) {
        return y;
    }
    let sizes = y.shape();
    let out_lead: &[usize] = if batched { &sizes[..2] } else { &[sizes[1]] };
    y.reshape([out_lead, &sizes[4 - axes..]].concat())
}

fn sliding(kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2], ceil: bool) -> Windows {
    let [h, w] = padding;
    Windows::Sliding { kernel, stride, pads: [h, w, h, w], dilation, ceil_mode: ceil }
}

/// The largest value of each window; padding never wins.
///
/// ```
/// use striate_nn::{MaxPool2d, Module};
/// assert_eq!(MaxPool2d::new(2).to_string(), "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)");
/// ```
#[derive(Clone, Debug)]
pub struct MaxPool2d {
    kernel_size: Sizes,
    stride: Option<Sizes>,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    path: Path,
}

impl MaxPool2d {
    /// With a stride equal to the kernel.
    pub fn new(kernel_size: impl Into<Sizes>) -> MaxPool2d {
        MaxPool2d {
            kernel_size: kernel_size.into(),
            stride: None,
            padding: 0.into(),
            dilation: 1.into(),
            ceil_mode: false,
            path: Path::default(),
        }
    }

    /// Step of the window.
    pub fn stride(self, stride: impl Into<Sizes>) -> MaxPool2d {
        MaxPool2d { stride: Some(stride.into()), ..self }
    }

    /// At each side; at most half the kernel (0).
    pub fn padding(self, padding: impl Into<Sizes>) -> MaxPool2d {
        MaxPool2d { padding: padding.into(), ..self }
    }

    /// Distance of the window's elements (1).
    pub fn dilation(self, dilation: impl Into<Sizes>) -> MaxPool2d {
        MaxPool2d { dilation: dilation.into(), ..self }
    }

    /// Round the output size up.
    pub fn ceil_mode(self, ceil_mode: bool) -> MaxPool2d {
        MaxPool2d { ceil_mode, ..self }
    }

    fn windows(&self) -> Windows {
        let stride = self.stride.unwrap_or(self.kernel_size).pair();
        sliding(self.kernel_size.pair(), stride, self.padding.pair(), self.dilation.pair(), self.ceil_mode)
    }

    /// PyTorch's `return_indices=True`: the maxima, and for each its flat index into the plane, i64.
    #[track_caller]
    pub fn call_with_indices(&self, x: &Tensor) -> (Tensor, Tensor) {
        with_indices("MaxPool2d", 2, (x, &self.path), |_| self.windows())
    }
}

#[track_caller]
fn with_indices(
    class: &str,
    axes: usize,
    (x, path): (&Tensor, &Path),
    windows: impl Fn(&Tensor) -> Windows,
) -> (Tensor, Tensor) {
    let within = Within::enter(Some(path), x.trace());
    let y = over_images(class, axes, x, |image| Op::MaxPool2d(windows(image)));
    let indices = over_images(class, axes, x, |image| Op::MaxPool2dIndices(windows(image)));
    within.leave(&y);
    (y, indices)
}

plain_layer!(
    MaxPool2d,
    |layer, x| over_images("MaxPool2d", 2, x, |_| Op::MaxPool2d(layer.windows())),
    |layer| format!(
        "kernel_size={}, stride={}, padding={}, dilation={}, ceil_mode={}",
        layer.kernel_size,
        layer.stride.unwrap_or(layer.kernel_size),
        layer.padding,
        layer.dilation,
        python_bool(layer.ceil_mode)
    )
);

/// The largest value of each window of a sequence `[N, C, L]`.
#[derive(Clone, Debug)]
pub struct MaxPool1d {
    kernel_size: usize,
    stride: Option<usize>,
    padding: usize,
    dilation: usize,
    ceil_mode: bool,
    path: Path,
}

impl MaxPool1d {
    /// With a stride equal to the kernel.
    pub fn new(kernel_size: usize) -> MaxPool1d {
        MaxPool1d { kernel_size, stride: None, padding: 0, dilation: 1, ceil_mode: false, path: Path::default() }
    }

    /// Step of the window.
    pub fn stride(self, stride: usize) -> MaxPool1d {
        MaxPool1d { stride: Some(stride), ..self }
    }

    /// At each end; at most half the kernel (0).
    pub fn padding(self, padding: usize) -> MaxPool1d {
        MaxPool1d { padding, ..self }
    }

    /// Distance of the window's elements (1).
    pub fn dilation(self, dilation: usize) -> MaxPool1d {
        MaxPool1d { dilation, ..self }
    }

    /// Round the output size up.
    pub fn ceil_mode(self, ceil_mode: bool) -> MaxPool1d {
        MaxPool1d { ceil_mode, ..self }
    }

    fn windows(&self) -> Windows {
        let stride = [1, self.stride.unwrap_or(self.kernel_size)];
        sliding([1, self.kernel_size], stride, [0, self.padding], [1, self.dilation], self.ceil_mode)
    }

    /// PyTorch's `return_indices=True`: the maxima, and for each its index, i64.
    #[track_caller]
    pub fn call_with_indices(&self, x: &Tensor) -> (Tensor, Tensor) {
        with_indices("MaxPool1d", 1, (x, &self.path), |_| self.windows())
    }
}
plain_layer!(
    MaxPool1d,
    |layer, x| over_images("MaxPool1d", 1, x, |_| Op::MaxPool2d(layer.windows())),
    |layer| format!(
        "kernel_size={}, stride={}, padding={}, dilation={}, ceil_mode={}",
        layer.kernel_size,
        layer.stride.unwrap_or(layer.kernel_size),
        layer.padding,
        layer.dilation,
        python_bool(layer.ceil_mode)
    )
);

/// The mean of each window.
#[derive(Clone, Debug)]
pub struct AvgPool2d {
    kernel_size: Sizes,
    stride: Option<Sizes>,
    padding: Sizes,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: Option<usize>,
    path: Path,
}

impl AvgPool2d {
    /// With a stride equal to the kernel.
    pub fn new(kernel_size: impl Into<Sizes>) -> AvgPool2d {
        AvgPool2d {
            kernel_size: kernel_size.into(),
            stride: None,
            padding: 0.into(),
            ceil_mode: false,
            count_include_pad: true,
            divisor_override: None,
            path: Path::default(),
        }
    }

    /// Step of the window.
    pub fn stride(self, stride: impl Into<Sizes>) -> AvgPool2d {
        AvgPool2d { stride: Some(stride.into()), ..self }
    }

    /// Zeros at each side; at most half the kernel (0).
    pub fn padding(self, padding: impl Into<Sizes>) -> AvgPool2d {
        AvgPool2d { padding: padding.into(), ..self }
    }

    /// Round the output size up.
    pub fn ceil_mode(self, ceil_mode: bool) -> AvgPool2d {
        AvgPool2d { ceil_mode, ..self }
    }

    /// Whether the zeros of the padding count as elements (true).
    pub fn count_include_pad(self, count_include_pad: bool) -> AvgPool2d {
        AvgPool2d { count_include_pad, ..self }
    }

    /// Divide by this instead of the number of elements.
    pub fn divisor_override(self, divisor: usize) -> AvgPool2d {
        AvgPool2d { divisor_override: Some(divisor), ..self }
    }

    fn op(&self) -> Op {
        let stride = self.stride.unwrap_or(self.kernel_size).pair();
        let windows = sliding(self.kernel_size.pair(), stride, self.padding.pair(), [1, 1], self.ceil_mode);
        let divisor = match self.divisor_override {
            Some(divisor) => AvgDivisor::Const(divisor),
            None => counted(self.count_include_pad),
        };
        Op::AvgPool2d { windows, divisor }
    }
}

fn counted(include: bool) -> AvgDivisor {
    if include { AvgDivisor::IncludePad } else { AvgDivisor::ExcludePad }
}

plain_layer!(
    AvgPool2d,
    |layer, x| match layer.divisor_override {
        Some(0) => x.trace().refuse("AvgPool2d", "divisor_override=0", "it must not be 0"),
        _ => over_images("AvgPool2d", 2, x, |_| layer.op()),
    },
    |layer| format!(
        "kernel_size={}, stride={}, padding={}",
        layer.kernel_size,
        layer.stride.unwrap_or(layer.kernel_size),
        layer.padding
    )
);

/// The mean of each window of a sequence `[N, C, L]`.
#[derive(Clone, Debug)]
pub struct AvgPool1d {
    kernel_size: usize,
    stride: Option<usize>,
    padding: usize,
    ceil_mode: bool,
    count_include_pad: bool,
    path: Path,
}

impl AvgPool1d {
    /// With a stride equal to the kernel.
    pub fn new(kernel_size: usize) -> AvgPool1d {
        let path = Path::default();
        AvgPool1d { kernel_size, stride: None, padding: 0, ceil_mode: false, count_include_pad: true, path }
    }

    /// Step of the window.
    pub fn stride(self, stride: usize) -> AvgPool1d {
        AvgPool1d { stride: Some(stride), ..self }
    }

    /// Zeros at each end; at most half the kernel (0).
    pub fn padding(self, padding: usize) -> AvgPool1d {
        AvgPool1d { padding, ..self }
    }

    /// Round the output size up.
    pub fn ceil_mode(self, ceil_mode: bool) -> AvgPool1d {
        AvgPool1d { ceil_mode, ..self }
    }

    /// Whether the zeros of the padding count as elements (true).
    pub fn count_include_pad(self, count_include_pad: bool) -> AvgPool1d {
        AvgPool1d { count_include_pad, ..self }
    }

    fn op(&self) -> Op {
        let stride = [1, self.stride.unwrap_or(self.kernel_size)];
        let windows = sliding([1, self.kernel_size], stride, [0, self.padding], [1, 1], self.ceil_mode);
        Op::AvgPool2d { windows, divisor: counted(self.count_include_pad) }
    }
}
plain_layer!(AvgPool1d, |layer, x| over_images("AvgPool1d", 1, x, |_| layer.op()), |layer| {
    let stride = layer.stride.unwrap_or(layer.kernel_size);
    let [k, s, p] = [layer.kernel_size, stride, layer.padding].map(|n| python_tuple(&[n]));
    format!("kernel_size={k}, stride={s}, padding={p}")
});

/// The output size of an adaptive pool: one number, or one an axis, where `None` keeps the input's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputSize {
    sizes: [Option<usize>; 2],
    single: bool,
}

impl From<usize> for OutputSize {
    fn from(size: usize) -> OutputSize {
        OutputSize { sizes: [Some(size); 2], single: true }
    }
}

impl From<(usize, usize)> for OutputSize {
    fn from((height, width): (usize, usize)) -> OutputSize {
        OutputSize { sizes: [Some(height), Some(width)], single: false }
    }
}

impl From<(Option<usize>, Option<usize>)> for OutputSize {
    fn from((height, width): (Option<usize>, Option<usize>)) -> OutputSize {
        OutputSize { sizes: [height, width], single: false }
    }
}

impl OutputSize {
    fn windows(self, image: &Tensor) -> Windows {
        let [h, w] = self.sizes;
        Windows::Adaptive { out: [h.unwrap_or(image.size(2)), w.unwrap_or(image.size(3))] }
    }

    fn shown(self) -> String {
        let part = |size: Option<usize>| size.map_or("None".to_owned(), |n| n.to_string());
        match self.single {
            true => format!("output_size={}", part(self.sizes[0])),
            false => format!("output_size=({}, {})", part(self.sizes[0]), part(self.sizes[1])),
        }
    }
}

/// Averages windows chosen so that the output has a given size.
#[derive(Clone, Debug)]
pub struct AdaptiveAvgPool2d {
    output_size: OutputSize,
    path: Path,
}

impl AdaptiveAvgPool2d {
    /// To this size; 1 is the global average.
    pub fn new(output_size: impl Into<OutputSize>) -> AdaptiveAvgPool2d {
        AdaptiveAvgPool2d { output_size: output_size.into(), path: Path::default() }
    }
}
plain_layer!(
    AdaptiveAvgPool2d,
    |layer, x| over_images("AdaptiveAvgPool2d", 2, x, |image| Op::AvgPool2d {
        windows: layer.output_size.windows(image),
        divisor: AvgDivisor::IncludePad
    }),
    |layer| layer.output_size.shown()
);

/// Takes the maxima of windows chosen so that the output has a given size.
#[derive(Clone, Debug)]
pub struct AdaptiveMaxPool2d {
    output_size: OutputSize,
    path: Path,
}

impl AdaptiveMaxPool2d {
    /// To this size; 1 is the global maximum.
    pub fn new(output_size: impl Into<OutputSize>) -> AdaptiveMaxPool2d {
        AdaptiveMaxPool2d { output_size: output_size.into(), path: Path::default() }
    }

    /// PyTorch's `return_indices=True`: the maxima, and for each its flat index into the plane, i64.
    #[track_caller]
    pub fn call_with_indices(&self, x: &Tensor) -> (Tensor, Tensor) {
        with_indices("AdaptiveMaxPool2d", 2, (x, &self.path), |image| self.output_size.windows(image))
    }
}
plain_layer!(
    AdaptiveMaxPool2d,
    |layer, x| over_images("AdaptiveMaxPool2d", 2, x, |image| { Op::MaxPool2d(layer.output_size.windows(image)) }),
    |layer| layer.output_size.shown()
);

/// The p-norm of each window: `(sum x^p)^(1/p)`.
#[derive(Clone, Debug)]
pub struct LPPool2d {
    norm_type: f64,
    kernel_size: Sizes,
    stride: Option<Sizes>,
    ceil_mode: bool,
    path: Path,
}

impl LPPool2d {
    /// With a stride equal to the kernel.
    pub fn new(norm_type: f64, kernel_size: impl Into<Sizes>) -> LPPool2d {
        let kernel_size = kernel_size.into();
        LPPool2d { norm_type, kernel_size, stride: None, ceil_mode: false, path: Path::default() }
    }

    /// Step of the window.
    pub fn stride(self, stride: impl Into<Sizes>) -> LPPool2d {
        LPPool2d { stride: Some(stride.into()), ..self }
    }

    /// Round the output size up.
    pub fn ceil_mode(self, ceil_mode: bool) -> LPPool2d {
        LPPool2d { ceil_mode, ..self }
    }

    #[track_caller]
    fn pool(&self, x: &Tensor) -> Tensor {
        let kernel = self.kernel_size.pair();
        let windows = sliding(kernel, self.stride.unwrap_or(self.kernel_size).pair(), [0, 0], [1, 1], self.ceil_mode);
        let p = self.norm_type as f32;
        let average = Op::AvgPool2d { windows, divisor: AvgDivisor::IncludePad };
        let mean = over_images("LPPool2d", 2, &x.powf(p), |_| average);
        // As PyTorch: a window that ceil_mode lets hang over counts as full.
        let sum = mean * (kernel[0] * kernel[1]) as f32;
        sum.powf(1.0 / p)
    }
}
plain_layer!(
    LPPool2d,
    |layer, x| match layer.norm_type == 0.0 {
        true => x.trace().refuse("LPPool2d", "norm_type=0", "it must not be 0"),
        false => layer.pool(x),
    },
    |layer| format!(
        "norm_type={}, kernel_size={}, stride={}, ceil_mode={}",
        layer.norm_type,
        layer.kernel_size,
        layer.stride.map_or("None".to_owned(), |s| s.to_string()),
        python_bool(layer.ceil_mode)
    )
);

/// Puts values back to where [`MaxPool2d::call_with_indices`] found them, zeros elsewhere.
#[derive(Clone, Debug)]
pub struct MaxUnpool2d {
    kernel_size: Sizes,
    stride: Option<Sizes>,
    padding: Sizes,
    path: Path,
}

impl MaxUnpool2d {
    /// The inverse of `MaxPool2d::new(kernel_size)`.
    pub fn new(kernel_size: impl Into<Sizes>) -> MaxUnpool2d {
        MaxUnpool2d { kernel_size: kernel_size.into(), stride: None, padding: 0.into(), path: Path::default() }
    }

    /// Step of the pool's window.
    pub fn stride(self, stride: impl Into<Sizes>) -> MaxUnpool2d {
        MaxUnpool2d { stride: Some(stride.into()), ..self }
    }

    /// The pool's padding.
    pub fn padding(self, padding: impl Into<Sizes>) -> MaxUnpool2d {
        MaxUnpool2d { padding: padding.into(), ..self }
    }

    /// Values `[N, C, h, w]` and their indices (i64) to `[N, C, H, W]`. Without `output_size`:
    /// `H = (h - 1) * stride - 2 * padding + kernel`.
    #[track_caller]
    pub fn call_with_indices(&self, x: &Tensor, indices: &Tensor, output_size: Option<[usize; 2]>) -> Tensor {
        let within = Within::enter(Some(&self.path), x.trace());
        let y = self.unpool(x, indices, output_size);
        within.leave(&y);
        y
    }

    #[track_caller]
    fn unpool(&self, x: &Tensor, indices: &Tensor, output_size: Option<[usize; 2]>) -> Tensor {
        let shape = x.shape();
        if x.is_poisoned() || indices.is_poisoned() {
            return x.clone();
        }
        if shape.rank() < 3 || shape != indices.shape() {
            let rule = format!("values of shape {shape} and indices of shape {}", indices.shape());
            return x.trace().refuse("MaxUnpool2d", rule, "both must be [N, C, h, w] or [C, h, w]");
        }
        let lead = &shape[..shape.rank() - 2];
        let map = [shape[shape.rank() - 2], shape[shape.rank() - 1]];
        let (kernel, padding) = (self.kernel_size.pair(), self.padding.pair());
        let stride = self.stride.unwrap_or(self.kernel_size).pair();
        let size =
            |axis: usize| ((map[axis].max(1) - 1) * stride[axis] + kernel[axis]).saturating_sub(2 * padding[axis]);
        let out = output_size.unwrap_or([size(0), size(1)]);
        let planes: usize = lead.iter().product();
        let zeros = x.scalar_like(0.0).expand([planes, out[0] * out[1]]);
        let flat = [planes, map[0] * map[1]];
        let scatter = Op::ScatterElements { axis: 1, mode: ScatterMode::Set };
        let placed = if flat[1] <= out[0] * out[1] {
            x.trace().push(scatter, &[&zeros, &indices.reshape(flat), &x.reshape(flat)])
        } else {
            let rule = format!("{}x{} values into a map of {}x{}", map[0], map[1], out[0], out[1]);
            x.trace().refuse("MaxUnpool2d", rule, "the output must be larger than the input")
        };
        if placed.is_poisoned() { placed } else { placed.reshape([lead, &out].concat()) }
    }
}

impl Module for MaxUnpool2d {
    /// Needs the indices of a pool: use [`MaxUnpool2d::call_with_indices`].
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        x.trace().refuse("MaxUnpool2d", "called without indices", "use call_with_indices(x, indices, output_size)")
    }
    visit_fields!();
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
    fn extra_repr(&self) -> String {
        let stride = self.stride.unwrap_or(self.kernel_size);
        let [k, s, p] = [self.kernel_size, stride, self.padding].map(Sizes::tuple);
        format!("kernel_size={k}, stride={s}, padding={p}")
    }
}
display_module!(MaxUnpool2d);
