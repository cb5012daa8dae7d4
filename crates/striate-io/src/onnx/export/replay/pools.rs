//! Pools.

use super::{Attributes, Replay, Why};
use crate::onnx::proto::NodeProto;
use striate_graph::{AvgDivisor, DType, Op, PadMode, Tensor, Windows};

/// How the windows of a node lie.
struct Sliding {
    kernel: [usize; 2],
    stride: [usize; 2],
    pads: [usize; 4],
    dilation: [usize; 2],
    ceil_mode: bool,
}

impl Sliding {
    fn of(attributes: &Attributes) -> Result<Sliding, Why> {
        let dilation = if attributes.ints("dilations").is_some() { attributes.sizes("dilations")? } else { [1, 1] };
        Ok(Sliding {
            kernel: attributes.sizes("kernel_shape")?,
            stride: attributes.sizes("strides")?,
            pads: attributes.sizes("pads")?,
            dilation,
            ceil_mode: attributes.int("ceil_mode", 0) == 1,
        })
    }

    /// Without pads, for a map that has them already.
    fn bare(&self) -> Windows {
        self.with([0; 4])
    }

    fn with(&self, pads: [usize; 4]) -> Windows {
        let Sliding { kernel, stride, dilation, ceil_mode, .. } = *self;
        Windows::Sliding { kernel, stride, pads, dilation, ceil_mode }
    }

    /// Windows of ours take pads up to half the kernel.
    fn fits(&self) -> bool {
        (0..4).all(|side| self.pads[side] <= self.kernel[side % 2] / 2)
    }

    fn pad(&self, x: &Tensor, value: f32) -> Tensor {
        let [top, left, bottom, right] = self.pads.map(|side| side as isize);
        x.pad(&[left, right, top, bottom], PadMode::Constant(value))
    }
}

impl Replay<'_> {
    pub(super) fn pool(&self, node: &NodeProto, attributes: &Attributes) -> Result<Tensor, Why> {
        let x = self.input(node, 0)?;
        let whole = Windows::Adaptive { out: [1, 1] };
        let average = |windows, divisor| Op::AvgPool2d { windows, divisor };
        match node.op_type.as_str() {
            "GlobalAveragePool" => return Ok(self.trace.push(average(whole, AvgDivisor::IncludePad), &[&x])),
            "GlobalMaxPool" => return Ok(self.trace.push(Op::MaxPool2d(whole), &[&x])),
            "MaxPool" | "AveragePool" => {}
            _ => return Err("the export does not write it".into()),
        }
        let sliding = Sliding::of(attributes)?;
        let include = attributes.int("count_include_pad", 0) == 1;
        let divisor = if include { AvgDivisor::IncludePad } else { AvgDivisor::ExcludePad };
        let (fits, pads) = (sliding.fits(), sliding.pads);
        Ok(match node.op_type.as_str() {
            "MaxPool" if fits => self.trace.push(Op::MaxPool2d(sliding.with(pads)), &[&x]),
            "MaxPool" => self.trace.push(Op::MaxPool2d(sliding.bare()), &[&sliding.pad(&x, f32::NEG_INFINITY)]),
            _ if fits => self.trace.push(average(sliding.with(pads), divisor), &[&x]),
            _ => {
                let pool = |x: &Tensor| self.trace.push(average(sliding.bare(), AvgDivisor::IncludePad), &[x]);
                let mean = pool(&sliding.pad(&x, 0.0));
                match include {
                    true => mean,
                    false => mean / pool(&sliding.pad(&x.full_like(1.0), 0.0)),
                }
            }
        })
    }

    /// With ONNX's places, which count through batch and channels.
    pub(super) fn max_pool_with_places(
        &self,
        node: &NodeProto,
        attributes: &Attributes,
    ) -> Result<(Tensor, Tensor), Why> {
        let (x, sliding) = (self.input(node, 0)?, Sliding::of(attributes)?);
        let y = self.pool(node, attributes)?;
        let shape = x.shape();
        let planes = shape[0] * shape[1];
        let size = shape[2] * shape[3];
        let first: Vec<i64> = (0..planes).map(|plane| (plane * size) as i64).collect();
        let first = striate_graph::Array::from_vec([shape[0], shape[1], 1, 1], first).map_err(|e| e.to_string())?;
        let windows = Op::MaxPool2dIndices(sliding.with(sliding.pads));
        let places = match sliding.fits() {
            true => self.trace.push(windows, &[&x]),
            false => {
                // Places in the padded map, brought back to the map itself.
                let padded = sliding.pad(&x, f32::NEG_INFINITY);
                let (width, flat) = (padded.size(3), self.trace.push(Op::MaxPool2dIndices(sliding.bare()), &[&padded]));
                let width = flat.scalar_like(width as f64);
                let row = flat.binary(striate_graph::BinaryKind::Div, &width);
                let column = flat.binary(striate_graph::BinaryKind::Mod, &width);
                let [top, left, ..] = sliding.pads.map(|side| flat.scalar_like(side as f64));
                let row = (row - top).binary(striate_graph::BinaryKind::Mul, &flat.scalar_like(shape[3] as f64));
                row + (column - left)
            }
        };
        Ok((y, places.cast(DType::I64) + self.trace.constant(first)))
    }
}
