//! Resampling. What the graph's own `Resize` computes goes to it; everything else that ONNX defines is a product with a fixed
//! matrix, or a gather at fixed places, axis by axis.

use super::call::{Answer, Call, Halt, Handler, axis_of, size_of};
use striate_graph::{Array, DType, Interpolation, Op, ResizeSpec, Tensor};

pub(super) fn handler(operator: &str) -> Option<Handler> {
    Some(match operator {
        "Resize" | "Upsample" => resize,
        _ => return None,
    })
}

/// How places of the output are found in the input (`coordinate_transformation_mode`).
#[derive(Clone, Copy, PartialEq)]
enum Place {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    CropAndResize,
    /// Of opset 10 alone.
    HalfPixelForNearest,
}

/// Which neighbour is the nearest.
#[derive(Clone, Copy, PartialEq)]
enum Nearest {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Nearest(Nearest),
    Linear,
    Cubic { a: f64 },
}

/// What is the same for all axes.
struct Way {
    mode: Mode,
    place: Place,
    exclude_outside: bool,
    antialias: bool,
    extrapolation: f64,
}

/// One axis on its way from `input` to `output` elements.
#[derive(Clone, Copy)]
struct Axis {
    axis: usize,
    input: usize,
    output: usize,
    scale: f64,
    /// Start and end of the region, as parts of the axis.
    region: [f64; 2],
}

/// The file alone says how much is made of little, so tables of rows and of their weights have a limit.
const MOST_ROWS: usize = 1 << 17;
const MOST_WEIGHTS: usize = 1 << 22;

/// Weights of one output element: the input's places, ascending, or nothing where the element lies outside of the region.
type Row = Option<Vec<(usize, f64)>>;

impl Axis {
    /// The place of an output element in the input; `None` beyond it, where a value is told.
    fn source(&self, place: Place, at: usize) -> Option<f64> {
        let (x, scale, last) = (at as f64, self.scale, self.input as f64 - 1.0);
        let output = scale * self.input as f64;
        Some(match place {
            Place::HalfPixel => (x + 0.5) / scale - 0.5,
            Place::PytorchHalfPixel if output == 1.0 => -0.5,
            Place::PytorchHalfPixel => (x + 0.5) / scale - 0.5,
            Place::HalfPixelSymmetric => {
                let offset = self.input as f64 / 2.0 * (1.0 - self.output as f64 / output);
                offset + (x + 0.5) / scale - 0.5
            }
            Place::HalfPixelForNearest => (x + 0.5) / scale,
            Place::AlignCorners if output == 1.0 => 0.0,
            Place::AlignCorners => x * last / (output - 1.0),
            Place::Asymmetric => x / scale,
            Place::CropAndResize => {
                let [start, end] = self.region;
                let within = match output == 1.0 {
                    true => (end - start) * last / 2.0,
                    false => x * (end - start) * last / (output - 1.0),
                };
                let found = within + start * last;
                if !(0.0..=last).contains(&found) {
                    return None;
                }
                found
            }
        })
    }

    fn row(&self, way: &Way, at: usize) -> Row {
        let x = self.source(way.place, at)?;
        // The pixel on the left is preferred: a whole place is reached from its left neighbour with a ratio of 1.
        let whole = x.floor() == x;
        let (first, ratio) = if whole { (x - 1.0, 1.0) } else { (x.floor(), x - x.floor()) };
        let (start, mut weights) = way.weights(ratio, self.scale);
        let places: Vec<f64> = (0..weights.len()).map(|k| first + start + k as f64).collect();
        let inside = |place: f64| place >= 0.0 && place < self.input as f64;
        if way.exclude_outside {
            weights.iter_mut().zip(&places).filter(|(_, place)| !inside(**place)).for_each(|(weight, _)| *weight = 0.0);
            let sum: f64 = weights.iter().sum();
            if sum != 0.0 {
                weights.iter_mut().for_each(|weight| *weight /= sum);
            }
        }
        let mut row: Vec<(usize, f64)> = Vec::with_capacity(weights.len());
        for (place, weight) in places.into_iter().zip(weights) {
            let at = place.clamp(0.0, self.input as f64 - 1.0) as usize;
            match row.last_mut() {
                Some((known, sum)) if *known == at => *sum += weight,
                _ => row.push((at, weight)),
            }
        }
        row.retain(|(_, weight)| *weight != 0.0);
        Some(row)
    }
}

/// Keys' kernel.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((x - 5.0) * x + 8.0) * x * a - 4.0 * a
    } else {
        0.0
    }
}

impl Way {
    /// The first place relative to the left neighbour, and the weights from there on.
    fn weights(&self, ratio: f64, scale: f64) -> (f64, Vec<f64>) {
        let shrink = if self.antialias { scale.min(1.0) } else { 1.0 };
        let spread = |reach: f64, kernel: &dyn Fn(f64) -> f64| {
            let start = (-reach / shrink).floor() + 1.0;
            let count = (2.0 - 2.0 * start) as usize;
            let mut weights: Vec<f64> = (0..count).map(|k| kernel((start + k as f64 - ratio) * shrink)).collect();
            let sum: f64 = weights.iter().sum();
            if self.antialias && sum != 0.0 {
                weights.iter_mut().for_each(|weight| *weight /= sum);
            }
            (start, weights)
        };
        match self.mode {
            Mode::Nearest(nearest) => {
                let left = ratio != 1.0
                    && match nearest {
                        Nearest::PreferFloor => ratio <= 0.5,
                        Nearest::PreferCeil => ratio < 0.5,
                        Nearest::Floor => true,
                        Nearest::Ceil => false,
                    };
                (0.0, if left { vec![1.0, 0.0] } else { vec![0.0, 1.0] })
            }
            Mode::Linear => spread(1.0, &|x| (1.0 - x.abs()).max(0.0)),
            Mode::Cubic { a } => spread(2.0, &|x| cubic(x, a)),
        }
    }
}

fn way(call: &Call) -> Result<Way, Halt> {
    let a = call.attributes;
    let nearest = match a.word("nearest_mode", "round_prefer_floor").as_str() {
        _ if call.op == "Upsample" || call.opset < 11 => Nearest::Floor,
        "round_prefer_floor" => Nearest::PreferFloor,
        "round_prefer_ceil" => Nearest::PreferCeil,
        "floor" => Nearest::Floor,
        "ceil" => Nearest::Ceil,
        other => return Err(format!("there is no nearest_mode `{other}`").into()),
    };
    let mode = match a.word("mode", "nearest").as_str() {
        "nearest" => Mode::Nearest(nearest),
        "linear" | "bilinear" => Mode::Linear,
        "cubic" => Mode::Cubic { a: f64::from(a.float("cubic_coeff_a", -0.75)) },
        other => return Err(format!("there is no mode `{other}`").into()),
    };
    let place = match a.word("coordinate_transformation_mode", "half_pixel").as_str() {
        _ if call.op == "Upsample" || call.opset < 11 => Place::Asymmetric,
        "half_pixel" => Place::HalfPixel,
        "half_pixel_symmetric" => Place::HalfPixelSymmetric,
        "pytorch_half_pixel" => Place::PytorchHalfPixel,
        "align_corners" => Place::AlignCorners,
        "asymmetric" => Place::Asymmetric,
        "tf_crop_and_resize" => Place::CropAndResize,
        "tf_half_pixel_for_nn" => Place::HalfPixelForNearest,
        other => return Err(format!("there is no coordinate_transformation_mode `{other}`").into()),
    };
    Ok(Way {
        mode,
        place,
        exclude_outside: a.flag("exclude_outside", false),
        antialias: a.flag("antialias", false),
        extrapolation: f64::from(a.float("extrapolation_value", 0.0)),
    })
}

/// The decimal that a factor was written as: 1.7, not 1.70000005.
fn meant(factor: f64) -> f64 {
    (factor as f32).to_string().parse().unwrap_or(factor)
}

/// Numbers for each axis that is named; `None` where none are told.
fn told(call: &mut Call, index: usize, count: usize) -> Result<Option<Vec<f64>>, Halt> {
    let list = if call.has(index) { call.floats(index)? } else { Vec::new() };
    match list.len() {
        0 => Ok(None),
        n if n == count => Ok(Some(list)),
        n => Err(format!("{n} factors or sizes for {count} axes").into()),
    }
}

/// The size behind `policy`, and the factor that leads to it.
fn sized(call: &Call, axes: &mut [Axis], sizes: &[f64]) -> Result<(), Halt> {
    let factors = axes.iter().zip(sizes).map(|(axis, size)| size / axis.input as f64);
    let factor = match call.attributes.word("keep_aspect_ratio_policy", "stretch").as_str() {
        "stretch" => None,
        "not_larger" => Some(factors.fold(f64::INFINITY, f64::min)),
        "not_smaller" => Some(factors.fold(0.0, f64::max)),
        other => return Err(format!("there is no keep_aspect_ratio_policy `{other}`").into()),
    };
    for (axis, &size) in axes.iter_mut().zip(sizes) {
        axis.output = match factor {
            None => size_of(size as i64)?,
            Some(factor) => size_of((factor * axis.input as f64 + 0.5).floor() as i64)?,
        };
        axis.scale = factor.unwrap_or(axis.output as f64 / axis.input as f64);
    }
    Ok(())
}

/// The axes that are named, with their sizes.
fn axes(call: &mut Call, x: &Tensor, place: Place) -> Result<Vec<Axis>, Halt> {
    let rank = x.shape().rank();
    let named = match call.attributes.ints("axes") {
        Some(axes) => axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).collect(),
    };
    let plain = |&axis: &usize| {
        let size = x.size(axis);
        Axis { axis, input: size, output: size, scale: 1.0, region: [0.0, 1.0] }
    };
    let mut axes: Vec<Axis> = named.iter().map(plain).collect();
    let old = call.op == "Upsample" || call.opset < 11;
    let factors = match call.attributes.floats("scales") {
        Some(list) if list.len() == axes.len() => Some(list.iter().map(|&factor| f64::from(factor)).collect()),
        Some(list) => return Err(format!("{} factors for {} axes", list.len(), axes.len()).into()),
        None => told(call, if old { 1 } else { 2 }, axes.len())?,
    };
    match factors {
        Some(factors) => {
            for (axis, factor) in axes.iter_mut().zip(factors) {
                if !factor.is_finite() || factor <= 0.0 {
                    return Err(format!("a factor of {factor}").into());
                }
                axis.output = size_of((axis.input as f64 * factor).floor() as i64)?;
                axis.scale = meant(factor);
            }
        }
        None => {
            let sizes = told(call, 3, axes.len())?.ok_or("it has neither factors nor sizes")?;
            sized(call, &mut axes, &sizes)?;
        }
    }
    if place == Place::CropAndResize {
        let count = axes.len();
        let region = told(call, 1, 2 * count)?.ok_or("it has no region")?;
        axes.iter_mut().enumerate().for_each(|(at, axis)| axis.region = [region[at], region[count + at]]);
    }
    if axes.iter().any(|axis| axis.input == 0 && axis.output != 0) {
        return Err(format!("an input of shape {}, without elements", x.shape()).into());
    }
    Ok(axes)
}

fn resize(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let way = way(call)?;
    let axes = axes(call, &x, way.place)?;
    if let Some(y) = fast(call, &x, &way, &axes) {
        return Ok(y.into());
    }
    // Sums of whole numbers are taken as floats, as is usual.
    let exact = matches!(way.mode, Mode::Nearest(_)) && way.place != Place::CropAndResize;
    let wide = if exact || x.dtype().is_float() { x.clone() } else { x.cast(DType::F32) };
    if let Some(long) = axes.iter().find(|axis| axis.output > MOST_ROWS) {
        return Err(format!(
            "axis {} resized to {}, at most {MOST_ROWS} are made in this mode",
            long.axis, long.output
        )
        .into());
    }
    let mut y = wide;
    for axis in axes.iter().filter(|axis| axis.output != axis.input || axis.scale != 1.0 || axis.region != [0.0, 1.0]) {
        let rows: Vec<Row> = (0..axis.output).map(|at| axis.row(&way, at)).collect();
        y = along(call, &y, axis, &rows, &way)?;
    }
    Ok(y.cast(x.dtype()).into())
}

/// The graph's own resampling, where it means the same.
fn fast(call: &Call, x: &Tensor, way: &Way, axes: &[Axis]) -> Option<Tensor> {
    let (shape, own) = (x.shape(), |axis: &&Axis| axis.output != axis.input || axis.scale != 1.0);
    if shape.rank() != 4 || x.dtype() != DType::F32 || axes.iter().filter(own).any(|axis| axis.axis < 2) {
        return None;
    }
    let of = |axis: usize| axes.iter().find(|a| a.axis == axis).map_or((shape[axis], 1.0), |a| (a.output, a.scale));
    let [(height, by_height), (width, by_width)] = [of(2), of(3)];
    let out = [height, width];
    if out.contains(&0) || shape.contains(&0) {
        return None;
    }
    let half = way.place == Place::HalfPixel || (way.place == Place::PytorchHalfPixel && !out.contains(&1));
    let corners = way.place == Place::AlignCorners && !way.antialias;
    // An antialiasing filter of the graph leaves out what lies beyond the border; another filter never reaches there.
    let border = way.exclude_outside == way.antialias;
    let whole = (0..2).all(|axis| out[axis].is_multiple_of(shape[2 + axis]));
    let mode = match way.mode {
        Mode::Nearest(Nearest::Floor) if way.place == Place::Asymmetric => Interpolation::Nearest,
        // Between whole multiples no place lies half way.
        Mode::Nearest(Nearest::PreferFloor | Nearest::PreferCeil) if half && whole => Interpolation::NearestExact,
        Mode::Linear if border && (half || corners) => Interpolation::Bilinear,
        Mode::Cubic { a } if border && (half || corners) => Interpolation::Bicubic { a: a as f32 },
        _ => return None,
    };
    let ratios = [by_height != height as f64 / shape[2] as f64, by_width != width as f64 / shape[3] as f64];
    let scales = ratios.contains(&true).then_some([by_height, by_width]);
    if scales.is_some() && corners {
        return None;
    }
    let spec = ResizeSpec { mode, align_corners: corners, antialias: way.antialias, scales };
    Some(call.push(Op::Resize { spec, out }, &[x]))
}

/// One axis by its rows of weights.
fn along(call: &Call, x: &Tensor, axis: &Axis, rows: &[Row], way: &Way) -> Result<Tensor, Halt> {
    if matches!(way.mode, Mode::Nearest(_)) {
        let places = rows.iter().map(|row| row.as_ref().and_then(|row| row.first()).map_or(0, |(at, _)| *at as i64));
        let places = call.trace.constant(Array::from_vec([rows.len()], places.collect::<Vec<i64>>())?);
        return beyond(call, x.index_select(axis.axis as isize, &places), axis, rows, way);
    }
    if rows.len().saturating_mul(axis.input) > MOST_WEIGHTS {
        return Err(
            format!("a table of {} x {} weights, at most {MOST_WEIGHTS} are made", rows.len(), axis.input).into()
        );
    }
    let mut matrix = vec![0.0; rows.len() * axis.input];
    for (row, weights) in matrix.chunks_exact_mut(axis.input.max(1)).zip(rows) {
        weights.iter().flatten().for_each(|&(at, weight)| row[at] = weight);
    }
    let matrix = call.trace.constant(Array::from_f64([rows.len(), axis.input], &matrix, x.dtype())?);
    let last = x.shape().rank() as isize - 1;
    let (turned, behind) = (x.transpose(axis.axis as isize, last), x.shape().rank() - 1 != axis.axis);
    let product = turned.linear(&matrix, None);
    let y = if behind { product.transpose(axis.axis as isize, last) } else { product };
    beyond(call, y, axis, rows, way)
}

/// What is told for elements that lie outside of the region.
fn beyond(call: &Call, y: Tensor, axis: &Axis, rows: &[Row], way: &Way) -> Result<Tensor, Halt> {
    if rows.iter().all(Option::is_some) {
        return Ok(y);
    }
    let mut sizes = vec![1; y.shape().rank()];
    sizes[axis.axis] = rows.len();
    let inside = call.trace.constant(Array::from_vec(sizes, rows.iter().map(Option::is_some).collect())?);
    Ok(y.where_(&inside, &y.scalar_like(way.extrapolation)))
}
