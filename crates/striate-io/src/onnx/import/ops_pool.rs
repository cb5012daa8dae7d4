//! Pools, of one to three spatial axes.

use super::call::{Answer, Call, Halt, Handler};
use super::ops_conv::as_map;
use super::windows::{Windowed, per_axis};
use striate_graph::{Array, AvgDivisor, BinaryKind, DType, Op, PadMode, ReduceKind, ScatterMode, Tensor, Windows};

pub(super) fn handler(operator: &str) -> Option<Handler> {
    Some(match operator {
        "MaxPool" => max_pool,
        "AveragePool" => average_pool,
        "LpPool" => lp_pool,
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => global_pool,
        "MaxUnpool" => max_unpool,
        _ => return None,
    })
}

/// Windows of a pool, with how many there are along each axis.
struct Pool {
    windows: Windowed,
    counts: Vec<usize>,
}

impl Pool {
    fn of(call: &Call, x: &Tensor) -> Result<Pool, Halt> {
        let shape = x.shape();
        let axes = shape.rank().checked_sub(2).filter(|&axes| axes > 0);
        let axes =
            axes.ok_or_else(|| format!("an input of shape {shape}; it needs spatial axes behind batch and channels"))?;
        if !call.attributes.has("kernel_shape") {
            return Err("it has no kernel_shape".into());
        }
        let windows = Windowed::of(call, &shape[2..], per_axis(call, "kernel_shape", axes, 1)?)?;
        let ceil = call.attributes.flag("ceil_mode", false);
        let mut counts = Vec::with_capacity(axes);
        for axis in 0..axes {
            let (span, stride) = (windows.span(axis, shape[2 + axis])?, windows.stride[axis]);
            let count = if ceil { span.div_ceil(stride) } else { span / stride } + 1;
            // A window that would begin behind the map and its padding in front is none.
            let late = ceil && (count - 1) * stride >= shape[2 + axis] + windows.pads[axis][0];
            counts.push(if late { count - 1 } else { count });
        }
        Ok(Pool { windows, counts })
    }

    /// With so much padding behind that the windows end where it ends.
    fn filled(&self, sizes: &[usize]) -> Windowed {
        let mut windows = self.windows.clone();
        for (axis, &size) in sizes.iter().enumerate() {
            let needed = (self.counts[axis] - 1) * windows.stride[axis] + windows.reach(axis);
            let [before, after] = windows.pads[axis];
            windows.pads[axis][1] = after.max(needed.saturating_sub(size + before));
        }
        windows
    }
}

/// Our windows take padding up to half the kernel.
fn fits(windows: &Windowed) -> bool {
    windows.pads.iter().zip(&windows.kernel).all(|(pads, &kernel)| pads.iter().all(|&pad| pad <= kernel / 2))
}

/// Windows over maps.
fn sliding(windows: &Windowed) -> Windows {
    let windows = windows.widened(2);
    Windows::Sliding {
        kernel: [windows.kernel[0], windows.kernel[1]],
        stride: [windows.stride[0], windows.stride[1]],
        pads: windows.sides(),
        dilation: [windows.dilation[0], windows.dilation[1]],
        ceil_mode: false,
    }
}

/// Pads the spatial axes by a value.
fn padded(call: &Call, x: &Tensor, windows: &Windowed, value: f32) -> Tensor {
    if windows.pads.iter().all(|pads| *pads == [0, 0]) {
        return x.clone();
    }
    let around = windows.pads.iter().map(|[before, after]| [*before as isize, *after as isize]);
    let pads = [[0, 0]; 2].into_iter().chain(around).collect();
    call.push(Op::Pad { pads, mode: PadMode::Constant(value) }, &[x])
}

fn bare(windows: &Windowed) -> Windowed {
    Windowed { pads: vec![[0; 2]; windows.kernel.len()], ..windows.clone() }
}

/// A pool of maps by windows that lie inside, applied to one, two or three spatial axes: the first of three is pooled by itself.
fn over(x: &Tensor, windows: &Windowed, pool: &dyn Fn(&Tensor, &Windowed) -> Tensor) -> Tensor {
    match windows.kernel.len() {
        1 => pool(&as_map(x), &windows.widened(2)).squeeze(2),
        2 => pool(x, windows),
        _ => {
            let part = |axes: std::ops::Range<usize>| Windowed {
                kernel: windows.kernel[axes.clone()].to_vec(),
                stride: windows.stride[axes.clone()].to_vec(),
                dilation: windows.dilation[axes.clone()].to_vec(),
                pads: windows.pads[axes].to_vec(),
            };
            let [n, c, d, h, w] = x.shape()[..] else { return x.clone() };
            let flat = pool(&x.reshape([n, c * d, h, w]), &part(1..3));
            let (h, w) = (flat.size(2), flat.size(3));
            // [N C, D, H W]: the first axis as the height of maps of one column a place.
            let columns = part(0..1);
            let tall = Windowed {
                kernel: vec![columns.kernel[0], 1],
                stride: vec![columns.stride[0], 1],
                dilation: vec![columns.dilation[0], 1],
                pads: vec![columns.pads[0], [0, 0]],
            };
            let y = pool(&flat.reshape([n, c, d, h * w]), &tall);
            let depth = y.size(2);
            y.reshape([n, c, depth, h, w])
        }
    }
}

fn max_pool(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    // Whole numbers of a byte are compared as floats, exactly.
    let dtype = x.dtype();
    let x = if dtype.is_float() { x } else { x.cast(DType::F32) };
    let pool = Pool::of(call, &x)?;
    let windows = pool.filled(&x.shape()[2..]);
    if call.outputs < 2 {
        let y = match fits(&windows) && windows.kernel.len() < 3 {
            true => over(&x, &windows, &|x, windows| call.push(Op::MaxPool2d(sliding(windows)), &[x])),
            false => {
                let around = padded(call, &x, &windows, f32::NEG_INFINITY);
                over(&around, &bare(&windows), &|x, windows| call.push(Op::MaxPool2d(sliding(windows)), &[x]))
            }
        };
        return Ok(y.cast(dtype).into());
    }
    let (y, places) = with_places(call, &x, &windows)?;
    Ok(vec![y.cast(dtype), places].into())
}

/// The maxima, and their places as ONNX counts them: through batch and channels.
fn with_places(call: &Call, x: &Tensor, windows: &Windowed) -> Result<(Tensor, Tensor), Halt> {
    if windows.kernel.len() > 2 {
        return Err("the places of maxima over three spatial axes are not supported".into());
    }
    let map = as_map(x);
    let windows = windows.widened(2);
    let shape = map.shape();
    let [n, c, height, width] = shape[..] else { return Err(format!("an input of shape {shape}").into()) };
    let around = padded(call, &map, &windows, f32::NEG_INFINITY);
    let inside = sliding(&bare(&windows));
    let y = call.push(Op::MaxPool2d(inside), &[&around]);
    let flat = call.push(Op::MaxPool2dIndices(inside), &[&around]);
    // Places in the padded map, brought back to the map itself.
    let across = flat.scalar_like(around.size(3) as f64);
    let row = flat.binary(BinaryKind::Div, &across);
    let column = flat.binary(BinaryKind::Mod, &across);
    let [top, left, ..] = windows.sides().map(|side| flat.scalar_like(side as f64));
    let (row, column) = (row - top, column - left);
    let by_columns = call.attributes.int("storage_order", 0) == 1;
    let number = |value: usize| flat.scalar_like(value as f64);
    let place = if by_columns { column * number(height) + row } else { row * number(width) + column };
    let plane = height.saturating_mul(width);
    let first: Vec<i64> = (0..n.saturating_mul(c)).map(|index| (index * plane) as i64).collect();
    let first = call.trace.constant(Array::from_vec([n, c, 1, 1], first)?);
    let places = place.cast(DType::I64) + first;
    let back = |value: Tensor| if x.shape().rank() == 3 { value.squeeze(2) } else { value };
    Ok((back(y), back(places)))
}

fn average_pool(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let sizes = x.shape()[2.min(x.shape().rank())..].to_vec();
    let pool = Pool::of(call, &x)?;
    let include = call.attributes.flag("count_include_pad", false);
    let average = |divisor: AvgDivisor| {
        move |x: &Tensor, windows: &Windowed| x.trace().push(Op::AvgPool2d { windows: sliding(windows), divisor }, &[x])
    };
    let filled = pool.filled(&sizes);
    let exact = filled.pads == pool.windows.pads;
    let none = filled.pads.iter().all(|pads| *pads == [0, 0]);
    if fits(&filled) && filled.kernel.len() < 3 && (none || exact || !include) {
        let divisor = if include { AvgDivisor::IncludePad } else { AvgDivisor::ExcludePad };
        return Ok(over(&x, &filled, &average(divisor)).into());
    }
    let inside = bare(&filled);
    let mean = over(&padded(call, &x, &filled, 0.0), &inside, &average(AvgDivisor::IncludePad));
    if none {
        return Ok(mean.into());
    }
    // What counts: the map, with its declared padding where that counts too, but nothing that a rounded-up size added.
    let ones = call.trace.constant(Array::full([1], 1f32)).expand([&[1, 1][..], &sizes].concat()).cast(x.dtype());
    let counted = if include {
        let rest = |axis: usize| [0, filled.pads[axis][1] - pool.windows.pads[axis][1]];
        let own = padded(call, &ones, &pool.windows, 1.0);
        let more = Windowed { pads: (0..sizes.len()).map(rest).collect(), ..filled.clone() };
        padded(call, &own, &more, 0.0)
    } else {
        padded(call, &ones, &filled, 0.0)
    };
    let part = over(&counted, &inside, &average(AvgDivisor::IncludePad));
    Ok(mean.binary(BinaryKind::Div, &part).into())
}

/// `(sum |x|^p) ^ (1/p)` over each window.
fn lp_pool(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let p = call.attributes.int("p", 2) as f64;
    let pool = Pool::of(call, &x)?;
    let windows = pool.filled(&x.shape()[2.min(x.shape().rank())..]);
    let power = |x: &Tensor, exponent: f64| x.pow(&x.scalar_like(exponent));
    let powers = power(&x.abs(), p);
    let around = padded(call, &powers, &windows, 0.0);
    let mean = over(&around, &bare(&windows), &|x, windows| {
        call.push(Op::AvgPool2d { windows: sliding(windows), divisor: AvgDivisor::IncludePad }, &[x])
    });
    let sum = mean.binary(BinaryKind::Mul, &mean.scalar_like(windows.kernel.iter().product::<usize>() as f64));
    Ok(power(&sum, 1.0 / p).into())
}

fn global_pool(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let rank = x.shape().rank();
    if rank < 3 {
        return Err(format!("an input of shape {}", x.shape()).into());
    }
    let whole = Windows::Adaptive { out: [1, 1] };
    let axes: Vec<isize> = (2..rank as isize).collect();
    Ok(match (call.op, rank) {
        ("GlobalAveragePool", 4) => {
            call.push(Op::AvgPool2d { windows: whole, divisor: AvgDivisor::IncludePad }, &[&x]).into()
        }
        ("GlobalAveragePool", _) => x.mean(&axes, true).into(),
        ("GlobalMaxPool", 4) => call.push(Op::MaxPool2d(whole), &[&x]).into(),
        ("GlobalMaxPool", _) => x.reduce(ReduceKind::Max, &axes, true).into(),
        _ => {
            let p = call.attributes.int("p", 2) as f64;
            let power = |x: &Tensor, exponent: f64| x.pow(&x.scalar_like(exponent));
            power(&power(&x.abs(), p).sum(&axes, true), 1.0 / p).into()
        }
    })
}

/// Puts each value back at its place, zeros elsewhere. Places count through the unpooled value itself; a larger output that is asked for
/// has it at its beginning.
fn max_unpool(call: &mut Call) -> Answer {
    let (x, places) = (call.input(0)?, call.input(1)?);
    let shape = x.shape();
    let axes = shape.rank().checked_sub(2).filter(|&axes| axes > 0).ok_or("an input without spatial axes")?;
    let kernel = per_axis(call, "kernel_shape", axes, 1)?;
    let windows = Windowed::of(call, &shape[2..], kernel)?;
    let own = |axis: usize| {
        let [before, after] = windows.pads[axis];
        let full = shape[2 + axis].saturating_sub(1).saturating_mul(windows.stride[axis]) + windows.kernel[axis];
        full.saturating_sub(before + after)
    };
    let natural: Vec<usize> = shape[..2].iter().copied().chain((0..axes).map(own)).collect();
    let total = striate_graph::Shape::from(natural.clone()).numel();
    let count = shape.numel();
    let told = if call.has(2) { Some(call.ints(2)?) } else { None };
    let zeros = x.scalar_like(0.0).expand([total]);
    let flat = [&zeros, &places.cast(DType::I64).reshape([count]), &x.reshape([count])];
    let y = call.push(Op::ScatterElements { axis: 0, mode: ScatterMode::Set }, &flat).reshape(natural.clone());
    let Some(told) = told else { return Ok(y.into()) };
    if told.len() != natural.len() {
        return Err(format!("output_shape is {told:?} for a value of shape {natural:?}").into());
    }
    // A larger output has zeros behind.
    let pads = told.iter().zip(&natural).map(|(&size, &own)| [0, (size - own as i64) as isize]).collect();
    Ok(call.push(Op::Pad { pads, mode: PadMode::Constant(0.0) }, &[&y]).into())
}
