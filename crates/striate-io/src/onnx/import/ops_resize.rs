//! Resampling of maps.

use super::call::{Answer, Call, Halt, Handler, axis_of, size_of};
use striate_graph::{Interpolation, Op, ResizeSpec, Tensor};

pub(super) fn handler(operator: &str) -> Option<Handler> {
    Some(match operator {
        "Resize" | "Upsample" => resize,
        _ => return None,
    })
}

/// What is asked for, for the last two axes.
struct Target {
    out: [usize; 2],
    scales: Option<[f64; 2]>,
}

/// The decimal that a factor was written as: 1.7, not 1.70000005.
fn meant(factor: f64) -> f64 {
    (factor as f32).to_string().parse().unwrap_or(factor)
}

fn target(call: &mut Call, x: &Tensor) -> Result<Target, Halt> {
    let rank = x.shape().rank();
    let axes = match call.attributes.ints("axes") {
        Some(axes) => axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).collect(),
    };
    let place = match call.op {
        "Upsample" => 1,
        _ if call.opset < 11 => 1,
        _ => 2,
    };
    let told = |call: &mut Call, index: usize| -> Result<Option<Vec<f64>>, Halt> {
        let list = if call.has(index) { call.floats(index)? } else { Vec::new() };
        match list.len() {
            0 => Ok(None),
            n if n == axes.len() => Ok(Some(list)),
            n => Err(format!("{n} factors or sizes for {} axes", axes.len()).into()),
        }
    };
    let factors = match call.attributes.floats("scales") {
        Some(list) => Some(list.iter().map(|&factor| f64::from(factor)).collect()),
        None => told(call, place)?,
    };
    if let Some(factors) = factors {
        let mut all = vec![1.0; rank];
        axes.iter().zip(&factors).for_each(|(&axis, &factor)| all[axis] = factor);
        let size = |axis: usize| (x.size(axis) as f64 * all[axis]).floor();
        if all.iter().any(|factor| !factor.is_finite() || *factor <= 0.0) || all[..rank - 2].iter().any(|f| *f != 1.0) {
            return Err(format!("factors {factors:?}; only the last two axes are resized").into());
        }
        let out = [size_of(size(rank - 2) as i64)?, size_of(size(rank - 1) as i64)?];
        return Ok(Target { out, scales: Some([meant(all[rank - 2]), meant(all[rank - 1])]) });
    }
    let sizes = told(call, 3)?.ok_or("it has neither factors nor sizes")?;
    let mut all: Vec<f64> = x.shape().iter().map(|&size| size as f64).collect();
    axes.iter().zip(&sizes).for_each(|(&axis, &size)| all[axis] = size);
    if all[..rank - 2].iter().zip(x.shape().iter()).any(|(new, &old)| *new != old as f64) {
        return Err(format!("sizes {sizes:?}; only the last two axes are resized").into());
    }
    Ok(Target { out: [size_of(all[rank - 2] as i64)?, size_of(all[rank - 1] as i64)?], scales: None })
}

fn resize(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    if x.shape().rank() != 4 {
        return Err(format!("an input of shape {}; maps [N, C, H, W] are resized", x.shape()).into());
    }
    let Target { out, scales } = target(call, &x)?;
    let old = call.op == "Upsample" || call.opset < 11;
    let (mode, nearest) =
        (call.attributes.word("mode", "nearest"), call.attributes.word("nearest_mode", "round_prefer_floor"));
    let place = match old {
        true => "asymmetric".to_owned(),
        false => call.attributes.word("coordinate_transformation_mode", "half_pixel"),
    };
    let whole = (0..2).all(|axis| out[axis].is_multiple_of(x.size(2 + axis).max(1)));
    let half = matches!(place.as_str(), "half_pixel" | "pytorch_half_pixel")
        && !(place == "pytorch_half_pixel" && out.contains(&1));
    let interpolation = match (mode.as_str(), place.as_str(), nearest.as_str()) {
        ("nearest", "asymmetric", "floor") => Interpolation::Nearest,
        ("nearest", "asymmetric", _) if old => Interpolation::Nearest,
        ("nearest", "half_pixel", "round_prefer_ceil") => Interpolation::NearestExact,
        // Between whole multiples no place lies half way.
        ("nearest", "half_pixel", "round_prefer_floor") if whole => Interpolation::NearestExact,
        ("linear" | "bilinear", "align_corners", _) => Interpolation::Bilinear,
        ("linear" | "bilinear", _, _) if half => Interpolation::Bilinear,
        ("cubic", "align_corners", _) => Interpolation::Bicubic { a: call.attributes.float("cubic_coeff_a", -0.75) },
        ("cubic", _, _) if half => Interpolation::Bicubic { a: call.attributes.float("cubic_coeff_a", -0.75) },
        _ => return Err(format!("mode `{mode}` ({nearest}) with `{place}` is not supported").into()),
    };
    let policy = call.attributes.word("keep_aspect_ratio_policy", "stretch");
    let outside = call.attributes.flag("exclude_outside", false) && mode == "cubic";
    if outside || policy != "stretch" {
        return Err(
            format!("exclude_outside {outside} and keep_aspect_ratio_policy `{policy}` are not supported").into()
        );
    }
    let antialias = call.attributes.flag("antialias", false);
    let spec = ResizeSpec { mode: interpolation, align_corners: place == "align_corners", antialias, scales };
    Ok(call.push(Op::Resize { spec, out }, &[&x]).into())
}
