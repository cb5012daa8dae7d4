//! Convolutions, of one to three spatial axes.

use super::call::{Answer, Call, Halt, Handler, size_of};
use super::windows::{Windowed, explicit_pads, per_axis, split};
use striate_graph::{BinaryKind, ConvAttrs, Op, Tensor};

pub(super) fn handler(operator: &str) -> Option<Handler> {
    Some(match operator {
        "Conv" => conv,
        "ConvTranspose" => conv_transpose,
        _ => return None,
    })
}

/// `[N, C, L]` as `[N, C, 1, L]`.
pub(super) fn as_map(x: &Tensor) -> Tensor {
    if x.shape().rank() == 3 { x.unsqueeze(2) } else { x.clone() }
}

fn groups(call: &Call) -> Result<usize, Halt> {
    size_of(call.attributes.int("group", 1)).and_then(|groups| match groups {
        0 => Err("0 groups".into()),
        groups => Ok(groups),
    })
}

fn attrs(windows: &Windowed, groups: usize) -> ConvAttrs {
    ConvAttrs {
        stride: [windows.stride[0], windows.stride[1]],
        pads: windows.sides(),
        dilation: [windows.dilation[0], windows.dilation[1]],
        groups,
    }
}

/// Sizes of the spatial axes, and the windows of a weight over them.
fn geometry(call: &Call, x: &Tensor, weight: &Tensor) -> Result<(Vec<usize>, Windowed), Halt> {
    let (shape, kernel) = (x.shape(), weight.shape());
    if shape.rank() < 3 || shape.rank() != kernel.rank() {
        return Err(format!("an input of shape {shape} with a weight of shape {kernel}").into());
    }
    let windows = Windowed::of(call, &shape[2..], kernel[2..].to_vec())?;
    if let Some(told) = call.attributes.ints("kernel_shape").filter(|told| !told.is_empty())
        && !told.iter().map(|&size| size as usize).eq(windows.kernel.iter().copied())
    {
        return Err(format!("kernel_shape is {told:?}, but the weight has shape {kernel}").into());
    }
    Ok((shape[2..].to_vec(), windows))
}

pub(super) fn conv(call: &mut Call) -> Answer {
    let (x, weight, bias) = (call.input(0)?, call.input(1)?, call.optional(2));
    Ok(convolve(call, &x, &weight, bias.as_ref())?.into())
}

/// The convolution that a node's attributes describe.
pub(super) fn convolve(call: &Call, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, Halt> {
    let (sizes, windows) = geometry(call, x, weight)?;
    let groups = groups(call)?;
    if sizes.len() == 3 {
        return deep(call, (x, weight, bias), &windows, groups);
    }
    let flat = sizes.len() == 1;
    let (map, filters) = (as_map(x), as_map(weight));
    let inputs: Vec<&Tensor> = [&map, &filters].into_iter().chain(bias).collect();
    let y = call.push(Op::Conv2d(attrs(&windows.widened(2), groups)), &inputs);
    Ok(if flat { y.squeeze(2) } else { y })
}

/// Three spatial axes: for each layer of the kernel along the first of them a convolution of maps, added up. The layers of the picture
/// that one layer of the kernel sees stand in the batch.
fn deep(
    call: &Call,
    (x, weight, bias): (&Tensor, &Tensor, Option<&Tensor>),
    windows: &Windowed,
    groups: usize,
) -> Result<Tensor, Halt> {
    let shape = x.shape();
    let (n, depth) = (shape[0], shape[2]);
    let [before, after] = windows.pads[0];
    let out_depth = windows.span(0, depth)? / windows.stride[0] + 1;
    let mut pads = vec![[0, 0]; 5];
    pads[2] = [before as isize, after as isize];
    let padded = if before + after == 0 {
        x.clone()
    } else {
        call.push(Op::Pad { pads, mode: striate_graph::PadMode::Constant(0.0) }, &[x])
    };
    let inner = Windowed {
        kernel: windows.kernel[1..].to_vec(),
        stride: windows.stride[1..].to_vec(),
        dilation: windows.dilation[1..].to_vec(),
        pads: windows.pads[1..].to_vec(),
    };
    let attrs = attrs(&inner, groups);
    let mut sum: Option<Tensor> = None;
    for tap in 0..windows.kernel[0] {
        let mut starts = vec![0; 5];
        starts[2] = tap * windows.dilation[0];
        let mut steps = vec![1; 5];
        steps[2] = windows.stride[0] as isize;
        let sizes = vec![n, shape[1], out_depth, shape[3], shape[4]];
        let seen = call.push(Op::Slice { starts, sizes, steps }, &[&padded]);
        let seen = seen.permute(&[0, 2, 1, 3, 4]).reshape([n * out_depth, shape[1], shape[3], shape[4]]);
        let filters = weight.select(2, tap);
        let inputs: Vec<&Tensor> = [&seen, &filters].into_iter().chain(bias.filter(|_| tap == 0)).collect();
        let part = call.push(Op::Conv2d(attrs), &inputs);
        sum = Some(match sum {
            Some(sum) => sum.binary(BinaryKind::Add, &part),
            None => part,
        });
    }
    let sum = sum.ok_or("a kernel without layers")?;
    let [_, channels, height, width] = sum.shape()[..] else { return Ok(sum) };
    Ok(sum.reshape([n, out_depth, channels, height, width]).permute(&[0, 2, 1, 3, 4]))
}

fn conv_transpose(call: &mut Call) -> Answer {
    let (x, weight, bias) = (call.input(0)?, call.input(1)?, call.optional(2));
    let shape = x.shape();
    if shape.rank() < 3 || shape.rank() != weight.shape().rank() {
        return Err(format!("an input of shape {shape} with a weight of shape {}", weight.shape()).into());
    }
    let (windows, out) = transposed(call, &shape[2..], weight.shape()[2..].to_vec())?;
    let groups = groups(call)?;
    let y = match out[..] {
        [length] => {
            let attrs = attrs(&windows.widened(2), groups);
            let op = Op::Conv2dInputGrad { attrs, input: [1, length] };
            call.push(op, &[&as_map(&x), &as_map(&weight)]).squeeze(2)
        }
        [height, width] => {
            let op = Op::Conv2dInputGrad { attrs: attrs(&windows, groups), input: [height, width] };
            call.push(op, &[&x, &weight])
        }
        _ => deep_transpose(call, (&x, &weight), (&windows, &out), groups)?,
    };
    let Some(bias) = bias else { return Ok(y.into()) };
    let row = bias.reshape([&[bias.size(0)][..], &vec![1; out.len()]].concat());
    Ok(y.binary(BinaryKind::Add, &row).into())
}

/// The windows of a transposed convolution, and the sizes of its output.
fn transposed(call: &Call, sizes: &[usize], kernel: Vec<usize>) -> Result<(Windowed, Vec<usize>), Halt> {
    let axes = sizes.len();
    let mut windows = Windowed {
        stride: per_axis(call, "strides", axes, 1)?,
        dilation: per_axis(call, "dilations", axes, 1)?,
        pads: explicit_pads(call, axes)?,
        kernel,
    };
    if axes > 3 || [&windows.kernel, &windows.stride, &windows.dilation].iter().any(|list| list.contains(&0)) {
        return Err(format!("kernel {:?}, strides {:?} over {axes} axes", windows.kernel, windows.stride).into());
    }
    let more = per_axis(call, "output_padding", axes, 0)?;
    let told = call.attributes.ints("output_shape").filter(|told| !told.is_empty());
    let auto = call.attributes.word("auto_pad", "NOTSET");
    let mut out = Vec::with_capacity(axes);
    for axis in 0..axes {
        let full = sizes[axis].saturating_sub(1).saturating_mul(windows.stride[axis]);
        let full = full.saturating_add(windows.reach(axis)).saturating_add(more[axis]);
        let upper = auto == "SAME_UPPER";
        let wanted = match told {
            Some(told) => {
                Some(size_of(*told.get(told.len().wrapping_sub(axes) + axis).ok_or("output_shape is too short")?)?)
            }
            None if auto.starts_with("SAME") => Some(sizes[axis].saturating_mul(windows.stride[axis])),
            None => None,
        };
        match wanted {
            Some(size) => {
                windows.pads[axis] = split(full.saturating_sub(size), upper);
                // A larger output is padded at its end.
                out.push(size);
            }
            None => {
                let [before, after] = windows.pads[axis];
                let size = full.checked_sub(before.saturating_add(after)).filter(|&size| size > 0);
                out.push(
                    size.ok_or_else(|| format!("pads {:?} leave nothing of {full} elements", windows.pads[axis]))?,
                );
            }
        }
    }
    Ok((windows, out))
}

/// Three spatial axes: each layer of the kernel gives layers of the output, which lie `stride` apart and are added up.
fn deep_transpose(
    call: &Call,
    (x, weight): (&Tensor, &Tensor),
    (windows, out): (&Windowed, &[usize]),
    groups: usize,
) -> Result<Tensor, Halt> {
    let shape = x.shape();
    let (n, depth) = (shape[0], shape[2]);
    let inner = Windowed {
        kernel: windows.kernel[1..].to_vec(),
        stride: windows.stride[1..].to_vec(),
        dilation: windows.dilation[1..].to_vec(),
        pads: windows.pads[1..].to_vec(),
    };
    let op = Op::Conv2dInputGrad { attrs: attrs(&inner, groups), input: [out[1], out[2]] };
    let layers = x.permute(&[0, 2, 1, 3, 4]).reshape([n * depth, shape[1], shape[3], shape[4]]);
    let before = windows.pads[0][0];
    let full = depth.saturating_sub(1) * windows.stride[0] + windows.reach(0);
    // Room for all layers, cut to the output afterwards.
    let length = full.max(before + out[0]);
    let mut sum: Option<Tensor> = None;
    for tap in 0..windows.kernel[0] {
        let part = call.push(op.clone(), &[&layers, &weight.select(2, tap)]);
        let channels = part.size(1);
        let part = part.reshape([n, depth, channels, out[1], out[2]]).permute(&[0, 2, 1, 3, 4]);
        let shape = [n, channels, length, out[1], out[2]].into();
        let (mut starts, mut steps) = (vec![0; 5], vec![1; 5]);
        (starts[2], steps[2]) = (tap * windows.dilation[0], windows.stride[0] as isize);
        let spread = call.push(Op::SliceGrad { shape, starts, steps }, &[&part]);
        sum = Some(match sum {
            Some(sum) => sum.binary(BinaryKind::Add, &spread),
            None => spread,
        });
    }
    Ok(sum.ok_or("a kernel without layers")?.narrow(2, before, out[0]))
}
