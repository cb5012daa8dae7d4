//! Operations that read or write where other values say.

use super::builder::{float, int, string};
use super::elementwise;
use super::lower::{Done, Lowering, needs_opset, refusal};
use crate::onnx::proto::AttributeProto;
use striate_graph::{Array, DType, GridSampleSpec, Op, RoiAlignSpec, SampleMode, SamplePadding, ScatterMode};

impl Lowering<'_> {
    pub(super) fn indexed(&mut self, op: &Op, inputs: &[String]) -> Done {
        let names: Vec<&str> = inputs.iter().map(String::as_str).collect();
        match op {
            Op::Gather { axis } => Ok(self.b.node("Gather", &names, vec![int("axis", *axis as i64)])),
            Op::GatherElements { axis } => Ok(self.b.node("GatherElements", &names, vec![int("axis", *axis as i64)])),
            Op::ScatterElements { axis, mode } => {
                let along = int("axis", *axis as i64);
                Ok(self.b.node("ScatterElements", &names, [vec![along], self.reduction_at(*mode)?].concat()))
            }
            Op::GatherNd { batch_dims: 0 } => Ok(self.b.node("GatherND", &names, vec![])),
            Op::GatherNd { .. } if self.options.opset < 12 => needs_opset(12, "tuples of indices behind batch axes"),
            Op::GatherNd { batch_dims } => {
                Ok(self.b.node("GatherND", &names, vec![int("batch_dims", *batch_dims as i64)]))
            }
            Op::ScatterNd { mode } => {
                let attributes = self.reduction_at(*mode)?;
                Ok(self.b.node("ScatterND", &names, attributes))
            }
            // ONNX's own counts negative indices from the back; here they give zeros.
            Op::OneHot { depth } => {
                let classes = self.b.list(&(0..*depth as i64).collect::<Vec<_>>());
                let last = self.b.list(&[-1]);
                let index = elementwise::cast(&mut self.b, names[0], DType::I64);
                let column = self.b.node("Unsqueeze", &[&index, &last], vec![]);
                let equal = self.b.node("Equal", &[&column, &classes], vec![]);
                Ok(elementwise::cast(&mut self.b, &equal, DType::F32))
            }
            other => Err(refusal(other)),
        }
    }

    /// How a scatter combines: an attribute that came one opset after the other.
    fn reduction_at(&self, mode: ScatterMode) -> Result<Vec<AttributeProto>, String> {
        let (name, since) = match mode {
            ScatterMode::Set => return Ok(vec![]),
            ScatterMode::Add => ("add", 16),
            ScatterMode::Mul => ("mul", 16),
            ScatterMode::Max => ("max", 18),
            ScatterMode::Min => ("min", 18),
        };
        match self.options.opset < since {
            true => needs_opset(since, "combining at indices"),
            false => Ok(vec![string("reduction", name)]),
        }
    }

    /// Operations whose numbers ONNX takes as inputs.
    pub(super) fn along(&mut self, op: &Op, inputs: &[String]) -> Done {
        match op {
            Op::TopK { axis, k, largest } => {
                let k = self.b.list(&[*k as i64]);
                let attributes = vec![int("axis", *axis as i64), int("largest", i64::from(*largest))];
                Ok(self.b.nodes("TopK", &[&inputs[0], &k], attributes, 2).swap_remove(1))
            }
            Op::CumSum { axis, exclusive, reverse } => {
                let axis = self.b.constant(&Array::scalar(*axis as i64));
                let set = [("exclusive", exclusive), ("reverse", reverse)];
                let attributes = set.map(|(name, set)| int(name, i64::from(*set))).to_vec();
                Ok(self.b.node("CumSum", &[&inputs[0], &axis], attributes))
            }
            other => Err(refusal(other)),
        }
    }

    pub(super) fn roi_align(&mut self, spec: &RoiAlignSpec, inputs: &[String]) -> Done {
        if spec.aligned && self.options.opset < 16 {
            return needs_opset(16, "pooling of regions that are moved by half a pixel (aligned)");
        }
        let batch = elementwise::cast(&mut self.b, &inputs[2], DType::I64);
        let mode = if spec.max { "max" } else { "avg" };
        let mut attributes = vec![
            string("mode", mode),
            int("output_height", spec.out[0] as i64),
            int("output_width", spec.out[1] as i64),
            int("sampling_ratio", spec.sampling_ratio as i64),
            float("spatial_scale", spec.scale),
        ];
        // Before 16 regions stay where they are, and no attribute says so.
        if self.options.opset >= 16 {
            let transform = if spec.aligned { "half_pixel" } else { "output_half_pixel" };
            attributes.push(string("coordinate_transformation_mode", transform));
        }
        Ok(self.b.node("RoiAlign", &[&inputs[0], &inputs[1], &batch], attributes))
    }

    pub(super) fn grid_sample(&mut self, spec: &GridSampleSpec, axes: usize, inputs: &[String]) -> Done {
        let opset = self.options.opset;
        if opset < 16 || (axes != 2 && opset < 20) {
            return needs_opset(if axes == 2 { 16 } else { 20 }, "sampling at a grid");
        }
        let mode = match spec.mode {
            SampleMode::Linear if opset < 20 => "bilinear",
            SampleMode::Cubic if opset < 20 => "bicubic",
            SampleMode::Linear => "linear",
            SampleMode::Cubic => "cubic",
            SampleMode::Nearest => "nearest",
        };
        let padding = match spec.padding {
            SamplePadding::Zeros => "zeros",
            SamplePadding::Border => "border",
            SamplePadding::Reflection => "reflection",
        };
        let attributes = vec![
            string("mode", mode),
            string("padding_mode", padding),
            int("align_corners", i64::from(spec.align_corners)),
        ];
        Ok(self.b.node("GridSample", &[&inputs[0], &inputs[1]], attributes))
    }
}
