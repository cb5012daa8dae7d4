//! Pooling of regions, and samples at a grid.

use super::call::{Answer, Call, Handler, size_of};
use striate_graph::{DType, GridSampleSpec, RoiAlignSpec, SampleMode, SamplePadding};

pub(super) fn handler(operator: &str) -> Option<Handler> {
    Some(match operator {
        "RoiAlign" => roi_align,
        "GridSample" => grid_sample,
        _ => return None,
    })
}

fn roi_align(call: &mut Call) -> Answer {
    let (x, regions, batch) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let a = call.attributes;
    let default = if call.opset < 16 { "output_half_pixel" } else { "half_pixel" };
    let aligned = match a.word("coordinate_transformation_mode", default).as_str() {
        "half_pixel" => true,
        "output_half_pixel" => false,
        other => return Err(format!("there is no coordinate_transformation_mode `{other}`").into()),
    };
    let max = match a.word("mode", "avg").as_str() {
        "avg" => false,
        "max" => true,
        other => return Err(format!("there is no mode `{other}`").into()),
    };
    let out = [size_of(a.int("output_height", 1))?, size_of(a.int("output_width", 1))?];
    let sampling_ratio = size_of(a.int("sampling_ratio", 0))?;
    let spec = RoiAlignSpec { out, scale: a.float("spatial_scale", 1.0), sampling_ratio, aligned, max };
    Ok(x.roi_align(&regions, &batch.cast(DType::I64), spec).into())
}

fn grid_sample(call: &mut Call) -> Answer {
    let (x, grid) = (call.input(0)?, call.input(1)?);
    let mode = match call.attributes.word("mode", "linear").as_str() {
        "linear" | "bilinear" => SampleMode::Linear,
        "nearest" => SampleMode::Nearest,
        "cubic" | "bicubic" => SampleMode::Cubic,
        other => return Err(format!("there is no mode `{other}`").into()),
    };
    let padding = match call.attributes.word("padding_mode", "zeros").as_str() {
        "zeros" => SamplePadding::Zeros,
        "border" => SamplePadding::Border,
        "reflection" => SamplePadding::Reflection,
        other => return Err(format!("there is no padding_mode `{other}`").into()),
    };
    let spec = GridSampleSpec { mode, padding, align_corners: call.attributes.flag("align_corners", false) };
    Ok(x.grid_sample(&grid.cast(x.dtype()), spec).into())
}
