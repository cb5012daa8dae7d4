//! Convolutions, pools and resampling.

use super::builder::{float, int, ints, string};
use super::lower::{Done, Lowering, needs_opset};
use striate_graph::{
    Array, AvgDivisor, ConvAttrs, DType, Graph, Interpolation, Mode, Node, NodeId, Op, PadMode, ReduceKind, ResizeSpec,
    RunOptions, Trace, Windows, interpret,
};

/// The windows of a pool that slides: kernel, stride, pads (top, left, bottom, right), dilation.
struct Sliding {
    kernel: [usize; 2],
    stride: [usize; 2],
    /// What the layer pads.
    pads: [usize; 4],
    dilation: [usize; 2],
    /// Beyond the pads, at the bottom and at the right, where the size of the output was rounded up.
    beyond: [usize; 2],
    /// The size is rounded up, and how far that reaches follows the picture.
    ceil_mode: bool,
}

impl Sliding {
    fn attributes(&self, dilation: bool) -> Vec<crate::onnx::proto::AttributeProto> {
        let [top, left, bottom, right] = self.pads;
        let pads = [top, left, bottom + self.beyond[0], right + self.beyond[1]];
        let mut list = vec![ints("kernel_shape", self.kernel), ints("strides", self.stride), ints("pads", pads)];
        if dilation {
            list.push(ints("dilations", self.dilation));
        }
        if self.ceil_mode {
            list.push(int("ceil_mode", 1));
        }
        list
    }
}

impl Lowering<'_> {
    pub fn conv(&mut self, attrs: &ConvAttrs, node: &Node, inputs: &[String]) -> String {
        let kernel = &self.graph.node(node.inputs[1]).shape[2..];
        let names: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.b.node("Conv", &names, conv_attributes(attrs, kernel))
    }

    /// `ConvTranspose`: the input gradient of a convolution.
    pub fn conv_transpose(&mut self, conv: NodeId, bias: Option<NodeId>) -> Done {
        let node = self.graph.node(conv);
        let Op::Conv2dInputGrad { attrs, input } = &node.op else { return Err("it is no convolution".into()) };
        let kernel = &self.graph.node(node.inputs[1]).shape[2..];
        let from = &self.graph.node(node.inputs[0]).shape;
        let surplus = [0, 1].map(|axis| {
            let reach = attrs.stride[axis] * (from[2 + axis] - 1) + attrs.dilation[axis] * (kernel[axis] - 1) + 1;
            input[axis] + attrs.pads[axis] + attrs.pads[axis + 2] - reach
        });
        let mut attributes = conv_attributes(attrs, kernel);
        if surplus != [0, 0] {
            attributes.push(ints("output_padding", surplus));
        }
        let values: Vec<String> = node.inputs.iter().chain(&bias).map(|id| self.value(*id)).collect();
        let names: Vec<&str> = values.iter().map(String::as_str).collect();
        self.b.layer = node.origin.layer.to_string();
        Ok(self.b.node("ConvTranspose", &names, attributes))
    }

    /// A convolution whose filters and bias do what the batch norm behind it did.
    pub fn folded_conv(&mut self, conv: NodeId, norm: NodeId) -> Done {
        let (node, norm) = (self.graph.node(conv), self.graph.node(norm));
        let (Op::Conv2d(attrs), Op::BatchNorm { eps }) = (&node.op, &norm.op) else {
            return Err("it is no convolution with a batch norm".into());
        };
        let data = |id: NodeId| match &self.graph.node(id).op {
            Op::Parameter { slot, .. } => self.graph.parameters[*slot].array(),
            Op::Constant(array) => array.clone(),
            _ => Array::zeros([0], DType::F32),
        };
        let [gamma, beta, mean, var] = [1, 2, 3, 4].map(|index| data(norm.inputs[index]).to_f64_vec());
        let weight = data(node.inputs[1]);
        let bias = node.inputs.get(2).map_or(vec![0.0; gamma.len()], |id| data(*id).to_f64_vec());
        let scale: Vec<f64> = gamma.iter().zip(&var).map(|(g, v)| g / (v + f64::from(*eps)).sqrt()).collect();
        let per_channel = weight.numel() / gamma.len().max(1);
        let filters: Vec<f64> =
            weight.to_f64_vec().iter().enumerate().map(|(i, w)| w * scale[i / per_channel.max(1)]).collect();
        let shift: Vec<f64> = (0..scale.len()).map(|c| (bias[c] - mean[c]) * scale[c] + beta[c]).collect();
        let made = |shape: &striate_graph::Shape, values: &[f64]| {
            Array::from_f64(shape, values, weight.dtype()).map_err(|error| error.to_string())
        };
        let (filters, shift) = (made(weight.shape(), &filters)?, made(&[scale.len()].into(), &shift)?);
        let layer = node.origin.layer.to_string();
        self.b.layer.clone_from(&layer);
        let named = |what: &str| if layer.is_empty() { what.to_owned() } else { format!("{layer}.{what}") };
        let filters = self.weights(&named("weight"), &filters)?;
        let shift = self.weights(&named("bias"), &shift)?;
        let x = self.value(node.inputs[0]);
        Ok(self.b.node("Conv", &[&x, &filters, &shift], conv_attributes(attrs, &weight.shape()[2..])))
    }

    /// Height and width of a value where they are the same for every picture.
    fn map_size(&self, id: NodeId) -> Option<[usize; 2]> {
        let sizes = &self.dims[id.index()];
        Some([sizes[2].fixed()?, sizes[3].fixed()?])
    }

    /// How windows slide, where they do: adaptive ones too where they are all alike.
    fn sliding(&self, x: NodeId, windows: &Windows) -> Result<Option<Sliding>, String> {
        let size = self.map_size(x);
        match (windows, size) {
            (Windows::Adaptive { out }, Some(size)) => {
                let even = (0..2).all(|axis| size[axis].is_multiple_of(out[axis]));
                let kernel = [size[0] / out[0].max(1), size[1] / out[1].max(1)];
                let one = [1, 1];
                Ok(even.then_some(Sliding {
                    kernel,
                    stride: kernel,
                    pads: [0; 4],
                    dilation: one,
                    beyond: [0; 2],
                    ceil_mode: false,
                }))
            }
            (Windows::Adaptive { .. }, None) => {
                Err("adaptive windows other than the whole map need a picture of fixed size".into())
            }
            (Windows::Sliding { kernel, stride, pads, dilation, ceil_mode }, size) => {
                let found = Sliding {
                    kernel: *kernel,
                    stride: *stride,
                    pads: *pads,
                    dilation: *dilation,
                    beyond: [0; 2],
                    ceil_mode: *ceil_mode && size.is_none(),
                };
                let Some(size) = size.filter(|_| *ceil_mode) else { return Ok(Some(found)) };
                // Padding further says the same without `ceil_mode`, which runtimes round in different ways.
                let beyond = [0, 1].map(|axis| {
                    let padded = size[axis] + pads[axis] + pads[axis + 2];
                    let extent = dilation[axis] * (kernel[axis] - 1) + 1;
                    let mut count = padded.saturating_sub(extent).div_ceil(stride[axis]) + 1;
                    if (count - 1) * stride[axis] >= size[axis] + pads[axis] {
                        count -= 1;
                    }
                    ((count - 1) * stride[axis] + extent).saturating_sub(padded)
                });
                Ok(Some(Sliding { beyond, ..found }))
            }
        }
    }

    /// Whether each window is the whole map.
    fn whole_map(&self, windows: &Windows) -> bool {
        matches!(windows, Windows::Adaptive { out: [1, 1] })
    }

    pub fn max_pool(&mut self, id: NodeId, windows: &Windows) -> Done {
        let x = self.graph.node(id).inputs[0];
        let value = self.value(x);
        if self.whole_map(windows) {
            return Ok(self.b.node("GlobalMaxPool", &[&value], vec![]));
        }
        match self.sliding(x, windows)? {
            Some(sliding) => Ok(self.b.node("MaxPool", &[&value], sliding.attributes(true))),
            None => self.adaptive_max(x, windows),
        }
    }

    /// ONNX counts positions through batch and channels, here they are places in a plane.
    pub fn max_pool_indices(&mut self, id: NodeId, windows: &Windows) -> Done {
        let x = self.graph.node(id).inputs[0];
        let Some(size) = self.map_size(x) else {
            return Err("positions of maxima need a picture of fixed size".into());
        };
        let Some(sliding) = self.sliding(x, windows)? else {
            return Err("positions in adaptive windows that do not divide the map have no ONNX operator".into());
        };
        let value = self.value(x);
        let both = self.b.nodes("MaxPool", &[&value], sliding.attributes(true), 2);
        let plane = self.b.scalar((size[0] * size[1]) as f64, DType::I64);
        Ok(self.b.node("Mod", &[&both[1], &plane], vec![]))
    }

    /// Windows of different sizes: the maximum of each, first along the height, then along the width.
    fn adaptive_max(&mut self, x: NodeId, windows: &Windows) -> Done {
        let (Windows::Adaptive { out }, Some(size)) = (windows, self.map_size(x)) else {
            return Err("its windows have no ONNX operator".into());
        };
        let mut value = self.value(x);
        for axis in 0..2 {
            let bounds: Vec<[usize; 2]> = (0..out[axis])
                .map(|i| [i * size[axis] / out[axis], ((i + 1) * size[axis]).div_ceil(out[axis])])
                .collect();
            let pieces = self.pieces(&value, 2 + axis, &bounds);
            let greatest: Vec<String> =
                pieces.iter().map(|piece| self.reduce(ReduceKind::Max, &[2 + axis], true, piece)).collect();
            let names: Vec<&str> = greatest.iter().map(String::as_str).collect();
            value = self.b.node("Concat", &names, vec![int("axis", 2 + axis as i64)]);
        }
        Ok(value)
    }

    pub fn avg_pool(&mut self, x: NodeId, windows: &Windows, divisor: AvgDivisor) -> Done {
        let mut value = self.value(x);
        let scaled = |divisor: AvgDivisor| matches!(divisor, AvgDivisor::Const(_));
        if self.whole_map(windows) && !scaled(divisor) {
            return Ok(self.b.node("GlobalAveragePool", &[&value], vec![]));
        }
        let Some(mut sliding) = self.sliding(x, windows)? else {
            return match scaled(divisor) {
                true => Err("a divisor of one's own with adaptive windows has no ONNX operator".into()),
                false => self.separable(x, &Op::AvgPool2d { windows: *windows, divisor }),
            };
        };
        let dilated = sliding.dilation != [1, 1];
        if dilated && self.options.opset < 19 {
            return needs_opset(19, "an average pool with dilation");
        }
        if sliding.ceil_mode && divisor != AvgDivisor::ExcludePad && sliding.pads != [0; 4] {
            return Err("an average over padding with ceil_mode needs a picture of fixed size".into());
        }
        // What lies beyond the padding must not count where the padding does: then the padding is written out.
        let counts = divisor == AvgDivisor::IncludePad && sliding.pads != [0; 4];
        if counts && sliding.beyond != [0; 2] {
            let [top, left, bottom, right] = std::mem::take(&mut sliding.pads);
            let sides = [[0, 0], [0, 0], [top, bottom], [left, right]];
            value = self.pad_by(&value, &sides, PadMode::Constant(0.0), self.graph.node(x).dtype);
        }
        let mut attributes = sliding.attributes(dilated);
        let include = match divisor {
            AvgDivisor::IncludePad => counts && sliding.beyond == [0; 2],
            AvgDivisor::ExcludePad => false,
            AvgDivisor::Const(_) => true,
        };
        if include {
            attributes.push(int("count_include_pad", 1));
        }
        let mean = self.b.node("AveragePool", &[&value], attributes);
        let AvgDivisor::Const(divisor) = divisor else { return Ok(mean) };
        let count = (sliding.kernel[0] * sliding.kernel[1]) as f64;
        let factor = self.b.scalar(count / divisor as f64, self.graph.node(x).dtype);
        Ok(self.b.node("Mul", &[&mean, &factor], vec![]))
    }

    /// An operation that is linear and separable along height and width, as two products with fixed matrices.
    fn separable(&mut self, x: NodeId, op: &Op) -> Done {
        let Some(size) = self.map_size(x) else { return Err("it needs a picture of fixed size".into()) };
        let (dtype, mut value) = (self.graph.node(x).dtype, self.value(x));
        for (axis, length) in size.into_iter().enumerate() {
            let matrix = matrix_of(&along(op, axis), axis, length).map_err(|error| error.to_string())?;
            let matrix = self.b.constant(&matrix.cast(dtype));
            let sides = if axis == 0 { [matrix.as_str(), &value] } else { [&value, matrix.as_str()] };
            value = self.b.node("MatMul", &sides, vec![]);
        }
        Ok(value)
    }

    pub fn resize(&mut self, x: NodeId, id: NodeId, spec: &ResizeSpec) -> Done {
        let (from, to) = (self.sizes(x), self.sizes(id));
        let value = self.value(x);
        if from == to && spec.scales.is_none() {
            return Ok(self.b.node("Identity", &[&value], vec![]));
        }
        if let (Some(input), Some(output)) = (self.map_size(x), self.map_size(id)) {
            let op = Op::Resize { spec: *spec, out: output };
            if spec.antialias || !scales_hold(spec, input, output) {
                return self.separable(x, &op);
            }
            if matches!(spec.mode, Interpolation::Nearest | Interpolation::NearestExact)
                && let Some(sources) = odd_sources(spec, input, output).map_err(|error| error.to_string())?
            {
                return Ok(self.picked(&value, &sources));
            }
        } else if spec.antialias {
            return Err("antialiasing needs a picture of fixed size".into());
        }
        let mut attributes = resize_attributes(spec);
        if let Some([height, width]) = spec.scales.filter(|_| !spec.align_corners) {
            let scales = Array::from_vec([4], vec![1.0, 1.0, height as f32, width as f32]).expect("four factors");
            let scales = self.b.constant(&scales);
            return Ok(self.b.node("Resize", &[&value, "", &scales], attributes));
        }
        let sizes = match self.options.opset >= 18 {
            true => {
                attributes.push(ints("axes", [2, 3]));
                self.size_list(&to[2..])?
            }
            false => self.size_list(&to)?,
        };
        Ok(self.b.node("Resize", &[&value, "", "", &sizes], attributes))
    }

    /// Rows and columns by their numbers.
    fn picked(&mut self, x: &str, sources: &[Vec<i64>; 2]) -> String {
        let mut value = x.to_owned();
        for (axis, list) in sources.iter().enumerate() {
            let list = self.b.list(list);
            value = self.b.node("Gather", &[&value, &list], vec![int("axis", 2 + axis as i64)]);
        }
        value
    }
}

fn conv_attributes(attrs: &ConvAttrs, kernel: &[usize]) -> Vec<crate::onnx::proto::AttributeProto> {
    vec![
        ints("kernel_shape", kernel.iter().copied()),
        ints("strides", attrs.stride),
        ints("pads", attrs.pads),
        ints("dilations", attrs.dilation),
        int("group", attrs.groups as i64),
    ]
}

fn resize_attributes(spec: &ResizeSpec) -> Vec<crate::onnx::proto::AttributeProto> {
    let coordinates = match spec.mode {
        Interpolation::Nearest => "asymmetric",
        _ if spec.align_corners => "align_corners",
        _ => "half_pixel",
    };
    let mut list = vec![string("coordinate_transformation_mode", coordinates)];
    match spec.mode {
        Interpolation::Nearest => list.extend([string("mode", "nearest"), string("nearest_mode", "floor")]),
        Interpolation::NearestExact => {
            list.extend([string("mode", "nearest"), string("nearest_mode", "round_prefer_ceil")]);
        }
        Interpolation::Bilinear => list.push(string("mode", "linear")),
        Interpolation::Bicubic { a } => list.extend([string("mode", "cubic"), float("cubic_coeff_a", a)]),
    }
    list
}

/// Whether the factors that were given are those that ONNX would use: it takes no notice of an axis that keeps its size.
fn scales_hold(spec: &ResizeSpec, input: [usize; 2], output: [usize; 2]) -> bool {
    let Some(scales) = spec.scales.filter(|_| !spec.align_corners) else { return true };
    (0..2).all(|axis| {
        let reached = (input[axis] as f32 * scales[axis] as f32).floor() as usize;
        reached == output[axis] && (input[axis] != output[axis] || scales[axis] == 1.0)
    })
}

/// For nearest: the source of each row and column, where ONNX's formula, in single or double precision, finds others.
fn odd_sources(
    spec: &ResizeSpec,
    input: [usize; 2],
    output: [usize; 2],
) -> striate_graph::Result<Option<[Vec<i64>; 2]>> {
    let op = Op::Resize { spec: *spec, out: output };
    let mut sources = [vec![], vec![]];
    let mut alike = true;
    for axis in 0..2 {
        let matrix = matrix_of(&along(&op, axis), axis, input[axis])?;
        let values = matrix.f32s()?;
        let scale = spec.scales.map_or(output[axis] as f64 / input[axis] as f64, |scales| scales[axis]);
        for o in 0..output[axis] {
            let entry = |i: usize| if axis == 0 { values[o * input[0] + i] } else { values[i * output[1] + o] };
            let found = (0..input[axis]).position(|i| entry(i) != 0.0).unwrap_or(0);
            let exact = spec.mode == Interpolation::NearestExact;
            let theirs = onnx_sources(o, scale, exact).map(|at| at.clamp(0, input[axis] as i64 - 1));
            alike &= theirs == [found as i64; 3];
            sources[axis].push(found as i64);
        }
    }
    Ok((!alike).then_some(sources))
}

/// Where ONNX's nearest looks for output `o`, in single and in double precision, and by PyTorch's product; the factor is stored in
/// single precision.
fn onnx_sources(o: usize, scale: f64, exact: bool) -> [i64; 3] {
    let shift = if exact { 0.5 } else { 0.0 };
    let product = (o as f32 + shift as f32) * (1.0 / f64::from(scale as f32)) as f32;
    let single = (o as f32 + shift as f32) / scale as f32 - shift as f32;
    let double = (o as f64 + shift) / scale - shift;
    match exact {
        true => [(single + 0.5).floor() as i64, (double + 0.5).floor() as i64, product.floor() as i64],
        false => [single.floor() as i64, double.floor() as i64, product.floor() as i64],
    }
}

/// The operation along one axis alone.
fn along(op: &Op, axis: usize) -> Op {
    let only = |sizes: [usize; 2]| if axis == 0 { [sizes[0], 1] } else { [1, sizes[1]] };
    match op {
        Op::Resize { spec, out } => {
            let scales = spec.scales.map(|scales| if axis == 0 { [scales[0], 1.0] } else { [1.0, scales[1]] });
            Op::Resize { spec: ResizeSpec { scales, ..*spec }, out: only(*out) }
        }
        Op::AvgPool2d { windows: Windows::Adaptive { out }, divisor } => {
            Op::AvgPool2d { windows: Windows::Adaptive { out: only(*out) }, divisor: *divisor }
        }
        other => other.clone(),
    }
}

/// The matrix of a linear operation along one axis of a map, by what it makes of unit vectors: [out, in] for the height, to be
/// multiplied from the left, [in, out] for the width.
fn matrix_of(op: &Op, axis: usize, size: usize) -> striate_graph::Result<Array> {
    let shape = if axis == 0 { [size, 1, size, 1] } else { [size, 1, 1, size] };
    let mut units = vec![0f32; size * size];
    (0..size).for_each(|i| units[i * size + i] = 1.0);
    let trace = Trace::new(Mode::Eval);
    let x = trace.input("x", shape, DType::F32);
    let y = trace.push(op.clone(), &[&x]);
    let sizes = y.shape();
    let out = if axis == 0 { sizes[2] } else { sizes[3] };
    let y = y.reshape([size, out]);
    let y = if axis == 0 { y.permute(&[1, 0]) } else { y };
    let graph: Graph = trace.finish(&[("y", &y)])?;
    let inputs = [("x", Array::from_vec(shape, units)?)];
    Ok(interpret(&graph, &inputs, &RunOptions::default())?.remove(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_says_what_the_operation_does() {
        let spec = ResizeSpec { mode: Interpolation::Bilinear, align_corners: true, antialias: false, scales: None };
        let op = Op::Resize { spec, out: [3, 1] };
        let matrix = matrix_of(&op, 0, 2).unwrap();
        assert_eq!(matrix.shape().dims(), [3, 2]);
        assert_eq!(matrix.f32s().unwrap(), [1.0, 0.0, 0.5, 0.5, 0.0, 1.0]);
    }

    #[test]
    fn sizes_that_round_differently_are_found() {
        let spec = |mode| ResizeSpec { mode, align_corners: false, antialias: false, scales: None };
        let doubled = odd_sources(&spec(Interpolation::Nearest), [7, 7], [14, 21]).unwrap();
        assert_eq!(doubled, None);
        let all = (1..40).flat_map(|i| (1..40).map(move |o| [i, o]));
        let odd = all.filter(|&[i, o]| odd_sources(&spec(Interpolation::Nearest), [i, 1], [o, 1]).unwrap().is_some());
        // There are some, or the way around them would never be taken.
        assert!(odd.count() > 0);
    }
}
