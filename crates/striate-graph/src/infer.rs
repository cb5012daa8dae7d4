//! The rules of shapes and types: from an operation and its inputs to its output, or to an error that carries the rule
//! with its numbers and the value that would have been right.

mod sampling;

use crate::{BinaryKind, ConvAttrs, DType, Node, Op, PadMode, Shape, ShapeError, Windows};

type Inferred = Result<(Shape, DType), ShapeError>;
type Inputs<'a> = &'a [(&'a Shape, DType)];

fn refuse<T>(rule: impl Into<String>, fix: impl Into<String>) -> Result<T, ShapeError> {
    Err(ShapeError::new(rule, fix))
}

/// Shape and type of what `op` makes of its inputs.
pub(crate) fn infer(op: &Op, inputs: Inputs) -> Inferred {
    check_count(op, inputs.len())?;
    match op {
        Op::Input { shape, dtype, .. } | Op::Parameter { shape, dtype, .. } => Ok((shape.clone(), *dtype)),
        Op::Constant(array) => Ok((array.shape().clone(), array.dtype())),
        Op::Random { shape, .. } => Ok((shape.clone(), DType::F32)),
        Op::Unary(_) | Op::Detach => Ok((inputs[0].0.clone(), inputs[0].1)),
        Op::UnaryGrad(_) | Op::MaxPool2dGrad(_) | Op::StandardizeGrad { .. } => infer_same_shape(op, inputs),
        Op::Binary(kind) => infer_binary(*kind, inputs),
        Op::Where => infer_where(inputs),
        Op::Cast(dtype) => Ok((inputs[0].0.clone(), *dtype)),
        Op::Reduce { axes, keepdims, .. } => Ok((reduced(inputs[0].0, axes, *keepdims)?, inputs[0].1)),
        Op::ArgReduce { axis, keepdims, .. } => Ok((reduced(inputs[0].0, &[*axis], *keepdims)?, DType::I64)),
        Op::Softmax { axis } | Op::LogSoftmax { axis } | Op::CumSum { axis, .. } => {
            check_axis(inputs[0].0, *axis)?;
            Ok((inputs[0].0.clone(), inputs[0].1))
        }
        Op::Standardize { .. } => {
            check_rank_from(inputs[0].0, 1, "the input")?;
            Ok((inputs[0].0.clone(), inputs[0].1))
        }
        Op::Reshape { .. } | Op::Transpose { .. } | Op::Expand { .. } | Op::Slice { .. } | Op::SliceGrad { .. } => {
            infer_movement(op, inputs[0])
        }
        Op::Concat { axis } => infer_concat(*axis, inputs),
        Op::Pad { pads, mode } => infer_pad(pads, inputs[0], Some(*mode)),
        Op::PadGrad { pads, .. } => infer_pad(pads, inputs[0], None),
        Op::Gather { .. }
        | Op::GatherGrad { .. }
        | Op::GatherElements { .. }
        | Op::ScatterElements { .. }
        | Op::OneHot { .. } => infer_indexed(op, inputs),
        Op::TopK { .. } | Op::GatherNd { .. } | Op::ScatterNd { .. } => sampling::infer_tuples(op, inputs),
        Op::RoiAlign(_)
        | Op::RoiAlignGrad(_)
        | Op::GridSample(_)
        | Op::GridSampleInputGrad { .. }
        | Op::GridSampleGridGrad(_) => sampling::infer_sampling(op, inputs),
        Op::MatMul { trans_a, trans_b } => infer_matmul(*trans_a, *trans_b, inputs),
        Op::Conv2d(attrs) => infer_conv(attrs, inputs),
        Op::Conv2dInputGrad { attrs, input } => infer_conv_input_grad(attrs, *input, inputs),
        Op::Conv2dWeightGrad { attrs, kernel } => infer_conv_weight_grad(attrs, *kernel, inputs),
        Op::MaxPool2d(windows) | Op::AvgPool2d { windows, .. } => Ok((pooled(windows, inputs[0].0)?, inputs[0].1)),
        Op::MaxPool2dIndices(windows) => Ok((pooled(windows, inputs[0].0)?, DType::I64)),
        Op::AvgPool2dGrad { windows, input, .. } => infer_avg_pool_grad(windows, *input, inputs[0]),
        Op::Moments
        | Op::BatchNorm { .. }
        | Op::BatchNormTraining { .. }
        | Op::BatchNormGradSums { .. }
        | Op::BatchNormInputGrad { .. } => infer_batch_norm(op, inputs),
        Op::Resize { out, .. } | Op::ResizeGrad { input: out, .. } => infer_resize(*out, inputs[0]),
        Op::HostCall { outputs, .. } => match outputs.first() {
            Some(first) => Ok(first.clone()),
            None => refuse("a HostCall declares no outputs", "declare at least one (shape, dtype)"),
        },
        Op::HostOutput { index } => {
            refuse(format!("output {index} of a value"), "it must be an output that a HostCall declares")
        }
        Op::Update { .. } => Ok((Shape::default(), DType::F32)),
        Op::Poison => refuse("an earlier operation was refused", "see its error"),
    }
}

/// Shape and type of another output of a host call, as the call declares them. `None` for all other operations, and where the
/// call declares no such output.
pub(crate) fn host_output(op: &Op, call: Option<&Node>) -> Option<(Shape, DType)> {
    match (op, call.map(|node| &node.op)) {
        (Op::HostOutput { index }, Some(Op::HostCall { outputs, .. })) => outputs.get(*index).cloned(),
        _ => None,
    }
}

/// How many inputs an operation takes: from, to.
fn arity(op: &Op) -> (usize, usize) {
    match op {
        Op::Input { .. } | Op::Parameter { .. } | Op::Constant(_) | Op::Random { .. } | Op::Poison => (0, 0),
        Op::UnaryGrad(_)
        | Op::Binary(_)
        | Op::Gather { .. }
        | Op::GatherGrad { .. }
        | Op::GatherElements { .. }
        | Op::GatherNd { .. }
        | Op::GridSample(_)
        | Op::GridSampleInputGrad { .. }
        | Op::MatMul { .. }
        | Op::Conv2dInputGrad { .. }
        | Op::Conv2dWeightGrad { .. }
        | Op::MaxPool2dGrad(_)
        | Op::StandardizeGrad { .. } => (2, 2),
        Op::Conv2d(_) | Op::Update { .. } => (2, 3),
        Op::Where
        | Op::ScatterElements { .. }
        | Op::ScatterNd { .. }
        | Op::RoiAlign(_)
        | Op::GridSampleGridGrad(_)
        | Op::BatchNormGradSums { .. } => (3, 3),
        Op::BatchNormTraining { .. } | Op::RoiAlignGrad(_) => (4, 4),
        Op::BatchNorm { .. } | Op::BatchNormInputGrad { .. } => (5, 5),
        Op::Concat { .. } => (1, usize::MAX),
        Op::HostCall { .. } => (0, usize::MAX),
        Op::Unary(_)
        | Op::Cast(_)
        | Op::Detach
        | Op::Reduce { .. }
        | Op::ArgReduce { .. }
        | Op::TopK { .. }
        | Op::CumSum { .. }
        | Op::Softmax { .. }
        | Op::LogSoftmax { .. }
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Expand { .. }
        | Op::Slice { .. }
        | Op::SliceGrad { .. }
        | Op::Pad { .. }
        | Op::PadGrad { .. }
        | Op::OneHot { .. }
        | Op::MaxPool2d(_)
        | Op::MaxPool2dIndices(_)
        | Op::AvgPool2d { .. }
        | Op::AvgPool2dGrad { .. }
        | Op::Moments
        | Op::Standardize { .. }
        | Op::Resize { .. }
        | Op::ResizeGrad { .. }
        | Op::HostOutput { .. } => (1, 1),
    }
}

fn check_count(op: &Op, count: usize) -> Result<(), ShapeError> {
    let (from, to) = arity(op);
    if (from..=to).contains(&count) {
        return Ok(());
    }
    refuse(format!("{} inputs were given to {}", count, op.name()), format!("it takes {from} to {to}"))
}

fn check_axis(shape: &Shape, axis: usize) -> Result<(), ShapeError> {
    if axis < shape.rank() {
        return Ok(());
    }
    refuse(
        format!("axis {axis} of an input with shape {shape}"),
        format!("it has {} axes, counted from 0", shape.rank()),
    )
}

fn check_rank_from(shape: &Shape, rank: usize, what: &str) -> Result<(), ShapeError> {
    if shape.rank() >= rank {
        return Ok(());
    }
    refuse(format!("{what} has shape {shape}"), format!("it needs at least {rank} axes"))
}

fn check_rank(shape: &Shape, rank: usize, what: &str, layout: &str) -> Result<(), ShapeError> {
    if shape.rank() == rank {
        return Ok(());
    }
    let hint = if shape.rank() + 1 == rank { "; add the batch axis with unsqueeze(0)" } else { "" };
    refuse(format!("{what} has {} axes, shape {shape}", shape.rank()), format!("it needs {rank}: {layout}{hint}"))
}

fn infer_same_shape(op: &Op, inputs: Inputs) -> Inferred {
    let (x, dtype) = inputs[0];
    if let Op::MaxPool2dGrad(windows) = op {
        let expected = pooled(windows, x)?;
        return match expected == *inputs[1].0 {
            true => Ok((x.clone(), dtype)),
            false => {
                refuse(format!("the gradient has shape {}", inputs[1].0), format!("the pool's output has {expected}"))
            }
        };
    }
    if x != inputs[1].0 {
        return refuse(format!("the gradient has shape {}", inputs[1].0), format!("the value has {x}"));
    }
    Ok((x.clone(), dtype))
}

fn broadcast(a: &Shape, b: &Shape) -> Result<Shape, ShapeError> {
    a.broadcast(b).ok_or_else(|| {
        let pairs = a.iter().rev().zip(b.iter().rev()).enumerate();
        let clash = pairs.filter(|(_, (x, y))| x != y && **x != 1 && **y != 1).map(|(i, (x, y))| (i, *x, *y)).next();
        let (axis, x, y) = clash.unwrap_or((0, 0, 0));
        ShapeError::new(
            format!("shapes {a} and {b} do not broadcast: axis {axis} from the end is {x} and {y}"),
            "sizes must be equal, or one of them 1",
        )
    })
}

fn same_dtype(a: DType, b: DType) -> Result<DType, ShapeError> {
    if a == b {
        return Ok(a);
    }
    refuse(format!("the inputs are {a} and {b}"), "convert one of them with cast()")
}

fn infer_binary(kind: BinaryKind, inputs: Inputs) -> Inferred {
    let dtype = same_dtype(inputs[0].1, inputs[1].1)?;
    let shift = matches!(kind, BinaryKind::ShiftLeft | BinaryKind::ShiftRight);
    if kind.is_bitwise() && (dtype.is_float() || (shift && dtype == DType::Bool)) {
        return refuse(format!("the inputs are {dtype}"), "bits are those of integers");
    }
    Ok((broadcast(inputs[0].0, inputs[1].0)?, if kind.is_comparison() { DType::Bool } else { dtype }))
}

fn infer_where(inputs: Inputs) -> Inferred {
    let dtype = same_dtype(inputs[1].1, inputs[2].1)?;
    let shape = broadcast(&broadcast(inputs[0].0, inputs[1].0)?, inputs[2].0)?;
    Ok((shape, dtype))
}

fn reduced(shape: &Shape, axes: &[usize], keepdims: bool) -> Result<Shape, ShapeError> {
    axes.iter().try_for_each(|axis| check_axis(shape, *axis))?;
    let sizes = shape.iter().enumerate().filter_map(|(axis, &size)| match (axes.contains(&axis), keepdims) {
        (false, _) => Some(size),
        (true, true) => Some(1),
        (true, false) => None,
    });
    Ok(sizes.collect::<Vec<_>>().into())
}

fn infer_movement(op: &Op, (x, dtype): (&Shape, DType)) -> Inferred {
    let shape = match op {
        Op::Reshape { shape } => {
            if shape.numel() != x.numel() {
                let (have, want) = (x.numel(), shape.numel());
                return refuse(
                    format!("{x} has {have} elements, the new shape {shape} has {want}"),
                    "they must be equal",
                );
            }
            shape.clone()
        }
        Op::Transpose { perm } => {
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            if !sorted.iter().copied().eq(0..x.rank()) {
                return refuse(
                    format!("{perm:?} as an order of the axes of {x}"),
                    format!("it must name each axis from 0 to {} once", x.rank().saturating_sub(1)),
                );
            }
            perm.iter().map(|&axis| x[axis]).collect::<Vec<_>>().into()
        }
        Op::Expand { shape } => match x.broadcast(shape) {
            Some(joined) if joined == *shape => shape.clone(),
            _ => return refuse(format!("{x} expanded to {shape}"), "only axes of size 1 can be expanded"),
        },
        Op::Slice { starts, sizes, steps } => {
            check_slice(x, starts, sizes, steps)?;
            sizes.clone().into()
        }
        Op::SliceGrad { shape, starts, steps } => {
            check_slice(shape, starts, x, steps)?;
            shape.clone()
        }
        _ => return refuse(op.name(), "it is no movement"),
    };
    Ok((shape, dtype))
}

fn check_slice(x: &[usize], starts: &[usize], sizes: &[usize], steps: &[isize]) -> Result<(), ShapeError> {
    if [starts.len(), sizes.len(), steps.len()] != [x.len(); 3] {
        return refuse(
            format!("a slice of {} axes of shape {x:?}", starts.len()),
            "give a start, a size and a step for each axis",
        );
    }
    for axis in 0..x.len() {
        let last = starts[axis] as i128 + (sizes[axis] as i128 - 1) * steps[axis] as i128;
        if sizes[axis] > 0 && (starts[axis] >= x[axis] || last < 0 || last >= x[axis] as i128 || steps[axis] == 0) {
            return refuse(
                format!("elements {} to {last} by {} of axis {axis}", starts[axis], steps[axis]),
                format!("the axis has the elements 0 to {}", x[axis].saturating_sub(1)),
            );
        }
    }
    Ok(())
}

fn infer_concat(axis: usize, inputs: Inputs) -> Inferred {
    let (first, dtype) = inputs[0];
    check_axis(first, axis)?;
    let mut sizes = first.to_vec();
    for (index, (shape, other)) in inputs.iter().enumerate().skip(1) {
        same_dtype(dtype, *other)?;
        let fits = shape.rank() == first.rank() && (0..first.rank()).all(|a| a == axis || shape[a] == first[a]);
        if !fits {
            return refuse(
                format!("input {index} of a concatenation along axis {axis} has shape {shape}, input 0 has {first}"),
                "all other axes must be equal",
            );
        }
        sizes[axis] += shape[axis];
    }
    Ok((sizes.into(), dtype))
}

/// Shape of a pad, or without a mode that of its gradient.
fn infer_pad(pads: &[[isize; 2]], (x, dtype): (&Shape, DType), mode: Option<PadMode>) -> Inferred {
    if pads.len() != x.rank() {
        return refuse(
            format!("{} pairs of padding for {} axes", pads.len(), x.rank()),
            "give [before, after] for each axis",
        );
    }
    let mut sizes = Vec::with_capacity(x.rank());
    for (axis, (&size, [before, after])) in x.iter().zip(pads).enumerate() {
        let sum = if mode.is_none() { size as isize - before - after } else { size as isize + before + after };
        // How far the picture itself reaches.
        let most = match mode {
            Some(PadMode::Reflect) => size as isize - 1,
            Some(PadMode::Circular) => size as isize,
            Some(PadMode::Replicate) if size == 0 => 0,
            _ => isize::MAX,
        };
        if *before.max(after) > most.max(0) {
            return refuse(
                format!("axis {axis} of size {size} padded by {before} and {after} out of itself"),
                format!("at most {} elements can be taken from it", most.max(0)),
            );
        }
        if sum < 0 {
            return refuse(
                format!("axis {axis} of size {size} padded by {before} and {after}"),
                format!("the result would have size {sum}"),
            );
        }
        sizes.push(sum as usize);
    }
    Ok((sizes.into(), dtype))
}

fn infer_indexed(op: &Op, inputs: Inputs) -> Inferred {
    let (x, dtype) = inputs[0];
    let gathered = |shape: &Shape, axis: usize, indices: &Shape| -> Result<Shape, ShapeError> {
        check_axis(shape, axis)?;
        Ok([&shape[..axis], &indices[..], &shape[axis + 1..]].concat().into())
    };
    match op {
        Op::Gather { axis } => Ok((gathered(x, *axis, inputs[1].0)?, dtype)),
        Op::GatherGrad { axis, size } => {
            let (dy, dtype) = inputs[1];
            let tail = axis + x.rank();
            if dy.rank() < tail || dy[*axis..tail] != x[..] {
                return refuse(
                    format!("the gradient of a gather has shape {dy}, its indices {x}"),
                    "they do not belong together",
                );
            }
            Ok(([&dy[..*axis], &[*size], &dy[tail..]].concat().into(), dtype))
        }
        Op::GatherElements { axis } => {
            check_axis(x, *axis)?;
            check_elements(x, inputs[1].0, *axis)?;
            Ok((inputs[1].0.clone(), dtype))
        }
        Op::ScatterElements { axis, .. } => {
            check_axis(x, *axis)?;
            check_elements(x, inputs[1].0, *axis)?;
            if inputs[1].0 != inputs[2].0 {
                return refuse(
                    format!("indices {} and updates {}", inputs[1].0, inputs[2].0),
                    "they must have the same shape",
                );
            }
            Ok((x.clone(), dtype))
        }
        Op::OneHot { depth } => Ok(([&x[..], &[*depth]].concat().into(), DType::F32)),
        _ => refuse(op.name(), "it takes no indices"),
    }
}

fn check_elements(x: &Shape, indices: &Shape, axis: usize) -> Result<(), ShapeError> {
    let fits = indices.rank() == x.rank() && (0..x.rank()).all(|a| a == axis || indices[a] <= x[a]);
    if fits {
        return Ok(());
    }
    refuse(
        format!("indices of shape {indices} into {x} along axis {axis}"),
        "they need as many axes, and no other axis may be larger",
    )
}

fn infer_matmul(trans_a: bool, trans_b: bool, inputs: Inputs) -> Inferred {
    let ((a, dtype), (b, other)) = (inputs[0], inputs[1]);
    same_dtype(dtype, other)?;
    check_rank_from(a, 2, "the left matrix")?;
    check_rank_from(b, 2, "the right matrix")?;
    let matrix = |s: &Shape, transposed: bool| {
        let (rows, columns) = (s[s.rank() - 2], s[s.rank() - 1]);
        if transposed { (columns, rows) } else { (rows, columns) }
    };
    let ((m, k), (k2, n)) = (matrix(a, trans_a), matrix(b, trans_b));
    if k != k2 {
        return refuse(
            format!("a {m}x{k} matrix (of shape {a}) times a {k2}x{n} matrix (of shape {b})"),
            format!("the inner sizes must be equal: {k} is not {k2}"),
        );
    }
    let lead = broadcast(&a[..a.rank() - 2].into(), &b[..b.rank() - 2].into())?;
    Ok(([&lead[..], &[m, n]].concat().into(), dtype))
}

/// Output size of a convolution along one axis: `floor((in + pads - dilation (k - 1) - 1) / stride) + 1`.
fn conv_size(input: usize, kernel: usize, attrs: &ConvAttrs, axis: usize) -> Result<usize, ShapeError> {
    let (before, after) = (attrs.pads[axis], attrs.pads[axis + 2]);
    let (stride, dilation) = (attrs.stride[axis], attrs.dilation[axis]);
    let name = ["height", "width"][axis];
    if stride == 0 || dilation == 0 || kernel == 0 {
        return refuse(
            format!("kernel {kernel}, stride {stride}, dilation {dilation} along the {name}"),
            "each must be at least 1",
        );
    }
    let (padded, extent) = (input + before + after, dilation * (kernel - 1) + 1);
    if padded < extent {
        return refuse(
            format!(
                "{name}: kernel extent {dilation} * ({kernel} - 1) + 1 = {extent} exceeds the padded input {input} + {before} + {after} = {padded}"
            ),
            format!(
                "the input needs a {name} of at least {}, or {} more padding",
                extent.saturating_sub(before + after),
                extent - padded
            ),
        );
    }
    Ok((padded - extent) / stride + 1)
}

fn check_groups(
    attrs: &ConvAttrs,
    channels: usize,
    out: usize,
    per_group: usize,
    weight: &Shape,
) -> Result<(), ShapeError> {
    let groups = attrs.groups;
    if groups == 0 || !out.is_multiple_of(groups) {
        return refuse(
            format!("{out} output channels in {groups} groups"),
            "the groups must divide the output channels",
        );
    }
    if channels != per_group * groups {
        return refuse(
            format!(
                "the input has {channels} channels, the weight {weight} takes {per_group} * {groups} groups = {}",
                per_group * groups
            ),
            format!("the layer needs in_channels={channels}, or an input with {} channels", per_group * groups),
        );
    }
    Ok(())
}

fn infer_conv(attrs: &ConvAttrs, inputs: Inputs) -> Inferred {
    let ((x, dtype), (w, other)) = (inputs[0], inputs[1]);
    same_dtype(dtype, other)?;
    check_rank(x, 4, "the input", "[N, C, H, W]")?;
    check_rank(w, 4, "the weight", "[out, in / groups, height, width]")?;
    check_groups(attrs, x[1], w[0], w[1], w)?;
    if let Some((bias, _)) = inputs.get(2)
        && bias.dims() != [w[0]]
    {
        return refuse(
            format!("the bias has shape {bias}"),
            format!("it must be [{}], one value an output channel", w[0]),
        );
    }
    let (h, w_out) = (conv_size(x[2], w[2], attrs, 0)?, conv_size(x[3], w[3], attrs, 1)?);
    Ok(([x[0], w[0], h, w_out].into(), dtype))
}

fn infer_conv_input_grad(attrs: &ConvAttrs, input: [usize; 2], inputs: Inputs) -> Inferred {
    let ((dy, dtype), (w, other)) = (inputs[0], inputs[1]);
    same_dtype(dtype, other)?;
    check_rank(dy, 4, "the input", "[N, C, H, W]")?;
    check_rank(w, 4, "the weight", "[in, out / groups, height, width]")?;
    if dy[1] != w[0] {
        return refuse(
            format!("the input has {} channels, the weight {w} takes {}", dy[1], w[0]),
            format!("the layer needs in_channels={}", dy[1]),
        );
    }
    if attrs.groups == 0 || !w[0].is_multiple_of(attrs.groups) {
        return refuse(format!("{} channels in {} groups", w[0], attrs.groups), "the groups must divide the channels");
    }
    for axis in 0..2 {
        let forward = conv_size(input[axis], w[2 + axis], attrs, axis)?;
        if forward != dy[2 + axis] {
            return refuse(
                format!("size {} along axis {} for an output of {}", dy[2 + axis], 2 + axis, input[axis]),
                format!(
                    "a convolution of that output would have size {forward}; output_padding must be smaller than stride or dilation"
                ),
            );
        }
    }
    Ok(([dy[0], w[1] * attrs.groups, input[0], input[1]].into(), dtype))
}

fn infer_conv_weight_grad(attrs: &ConvAttrs, kernel: [usize; 2], inputs: Inputs) -> Inferred {
    let ((x, dtype), (dy, other)) = (inputs[0], inputs[1]);
    same_dtype(dtype, other)?;
    check_rank(x, 4, "the input", "[N, C, H, W]")?;
    check_rank(dy, 4, "the gradient", "[N, C, H, W]")?;
    let uneven = |channels: &&usize| attrs.groups == 0 || !channels.is_multiple_of(attrs.groups);
    if let Some(channels) = [x[1], dy[1]].iter().find(uneven) {
        return refuse(
            format!("{channels} channels in {} groups", attrs.groups),
            "the groups must divide the channels",
        );
    }
    let expected = [x[0], dy[1], conv_size(x[2], kernel[0], attrs, 0)?, conv_size(x[3], kernel[1], attrs, 1)?];
    if dy.dims() != expected {
        return refuse(format!("the gradient has shape {dy}"), format!("the convolution's output has {expected:?}"));
    }
    Ok(([dy[1], x[1] / attrs.groups, kernel[0], kernel[1]].into(), dtype))
}

/// Output shape of a pool over `[N, C, H, W]`.
fn pooled(windows: &Windows, x: &Shape) -> Result<Shape, ShapeError> {
    check_rank(x, 4, "the input", "[N, C, H, W]")?;
    let size = match windows {
        Windows::Adaptive { out } => *out,
        Windows::Sliding { .. } => [pool_size(windows, x[2], 0)?, pool_size(windows, x[3], 1)?],
    };
    Ok([x[0], x[1], size[0], size[1]].into())
}

fn pool_size(windows: &Windows, input: usize, axis: usize) -> Result<usize, ShapeError> {
    let Windows::Sliding { kernel, stride, pads, dilation, ceil_mode } = windows else {
        return refuse("adaptive windows", "they have no stride");
    };
    let attrs = ConvAttrs { stride: *stride, pads: *pads, dilation: *dilation, groups: 1 };
    let (before, after) = (pads[axis], pads[axis + 2]);
    if before > kernel[axis] / 2 || after > kernel[axis] / 2 {
        return refuse(
            format!("padding {before} and {after} of a pool with kernel {}", kernel[axis]),
            format!("it may be at most half the kernel, {}", kernel[axis] / 2),
        );
    }
    let floor = conv_size(input, kernel[axis], &attrs, axis)?;
    if !ceil_mode {
        return Ok(floor);
    }
    let span = input + before + after - (dilation[axis] * (kernel[axis] - 1) + 1);
    let ceil = span.div_ceil(stride[axis]) + 1;
    // PyTorch's rule: the last window must start inside the input or its left padding.
    Ok(if (ceil - 1) * stride[axis] >= input + before { ceil - 1 } else { ceil })
}

fn infer_avg_pool_grad(windows: &Windows, input: [usize; 2], (dy, dtype): (&Shape, DType)) -> Inferred {
    check_rank(dy, 4, "the gradient", "[N, C, H, W]")?;
    let x: Shape = [dy[0], dy[1], input[0], input[1]].into();
    let expected = pooled(windows, &x)?;
    if expected != *dy {
        return refuse(format!("the gradient has shape {dy}"), format!("the pool's output has {expected}"));
    }
    Ok((x, dtype))
}

fn infer_batch_norm(op: &Op, inputs: Inputs) -> Inferred {
    let (x, dtype) = inputs[0];
    check_rank_from(x, 2, "the input of a batch norm")?;
    let channels = x[1];
    let per_channel = |index: usize, what: &str| match inputs[index].0.dims() == [channels] {
        true => Ok(()),
        false => refuse(
            format!("{what} has shape {}, the input {x} has {channels} channels", inputs[index].0),
            format!("the layer needs num_features={channels}"),
        ),
    };
    let pair = |index: usize, what: &str| match inputs[index].0.dims() == [2, channels] {
        true => Ok(()),
        false => refuse(format!("{what} have shape {}", inputs[index].0), format!("they must be [2, {channels}]")),
    };
    match op {
        Op::Moments => return Ok(([2, channels].into(), dtype)),
        Op::BatchNorm { .. } => {
            for (index, what) in
                ["the weight", "the bias", "the running mean", "the running variance"].iter().enumerate()
            {
                per_channel(index + 1, what)?;
            }
        }
        Op::BatchNormTraining { .. } => {
            per_channel(1, "the weight")?;
            per_channel(2, "the bias")?;
            pair(3, "the moments")?;
        }
        Op::BatchNormGradSums { .. } => {
            pair(2, "the moments")?;
            return match x == inputs[1].0 {
                true => Ok(([2, channels].into(), dtype)),
                false => refuse(format!("the gradient has shape {}", inputs[1].0), format!("the value has {x}")),
            };
        }
        _ => {
            if x != inputs[1].0 {
                return refuse(format!("the gradient has shape {}", inputs[1].0), format!("the value has {x}"));
            }
            per_channel(2, "the weight")?;
            pair(3, "the moments")?;
            pair(4, "the sums")?;
        }
    }
    Ok((x.clone(), dtype))
}

fn infer_resize(out: [usize; 2], (x, dtype): (&Shape, DType)) -> Inferred {
    check_rank(x, 4, "the input", "[N, C, H, W]")?;
    if out.contains(&0) || x[2] == 0 || x[3] == 0 {
        return refuse(
            format!("a map of {}x{} resized to {}x{}", x[2], x[3], out[0], out[1]),
            "sizes must be at least 1",
        );
    }
    Ok(([x[0], x[1], out[0], out[1]].into(), dtype))
}
