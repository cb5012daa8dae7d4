//! Movements of elements, and resampling.

use super::{Attributes, Replay, Why, axis_of};
use crate::onnx::proto::NodeProto;
use striate_graph::{Interpolation, Op, PadMode, ResizeSpec, Shape, Tensor};

fn size_of(value: i64) -> Result<usize, Why> {
    usize::try_from(value).map_err(|_| format!("a size of {value}"))
}

impl Replay<'_> {
    pub(super) fn moved(&self, node: &NodeProto, attributes: &Attributes) -> Result<Tensor, Why> {
        let x = self.input(node, 0)?;
        let shape = x.shape();
        let axis = || axis_of(attributes.int("axis", 0), shape.rank());
        Ok(match node.op_type.as_str() {
            "Transpose" => {
                let perm = attributes.ints("perm").unwrap_or_default();
                x.permute(&perm.iter().map(|&axis| size_of(axis)).collect::<Result<Vec<_>, Why>>()?)
            }
            "Flatten" => {
                let (lead, tail) = shape.split_at(axis()?);
                x.reshape([lead.iter().product::<usize>(), tail.iter().product()])
            }
            "Reshape" => x.reshape(self.new_shape(node, attributes, &shape)?),
            "Unsqueeze" => self.list(node, 1)?.into_iter().fold(x, |x, axis| x.unsqueeze(axis as isize)),
            "Expand" => {
                let sizes: Shape =
                    self.list(node, 1)?.into_iter().map(size_of).collect::<Result<Vec<_>, Why>>()?.into();
                x.expand(shape.broadcast(&sizes).ok_or("its sizes do not broadcast")?)
            }
            "Concat" => {
                let parts = (0..node.input.len()).map(|place| self.input(node, place));
                let parts = parts.collect::<Result<Vec<_>, Why>>()?;
                Tensor::cat(&parts.iter().collect::<Vec<_>>(), axis()? as isize)
            }
            "Slice" => self.slice(node, &x)?,
            "Pad" => self.pad(node, attributes, &x)?,
            "Gather" => x.index_select(axis()? as isize, &self.input(node, 1)?),
            "GatherElements" => x.gather(axis()? as isize, &self.input(node, 1)?),
            "ScatterElements" => {
                let op = Op::ScatterElements { axis: axis()?, add: attributes.word("reduction") == "add" };
                self.trace.push(op, &[&x, &self.input(node, 1)?, &self.input(node, 2)?])
            }
            "Resize" => self.resize(node, attributes, &x)?,
            _ => return Err("the export does not write it".into()),
        })
    }

    /// 0 copies a size, -1 is worked out.
    fn new_shape(&self, node: &NodeProto, attributes: &Attributes, from: &Shape) -> Result<Vec<usize>, Why> {
        let told = self.list(node, 1)?;
        let zeros = attributes.int("allowzero", 0) == 1;
        let mut sizes = Vec::with_capacity(told.len());
        for (axis, &size) in told.iter().enumerate() {
            sizes.push(match size {
                0 if !zeros => *from.get(axis).ok_or("it copies a size that is not there")?,
                -1 => 1,
                size => size_of(size)?,
            });
        }
        if let Some(open) = told.iter().position(|&size| size == -1) {
            let others: usize = sizes.iter().product();
            sizes[open] = from.numel().checked_div(others).unwrap_or(0);
        }
        Ok(sizes)
    }

    fn slice(&self, node: &NodeProto, x: &Tensor) -> Result<Tensor, Why> {
        let shape = x.shape();
        let [from, to, axes] = [1, 2, 3].map(|place| self.list(node, place));
        let (from, to, axes) = (from?, to?, axes?);
        let by = if self.has(node, 4) { self.list(node, 4)? } else { vec![1; axes.len()] };
        let (mut starts, mut sizes, mut steps) = (vec![0; shape.rank()], shape.to_vec(), vec![1; shape.rank()]);
        for (index, &axis) in axes.iter().enumerate() {
            let axis = axis_of(axis, shape.rank())?;
            let size = shape[axis] as i64;
            let counted = |value: i64| if value < 0 { value.saturating_add(size) } else { value };
            let (start, step) = (counted(from[index]), by[index]);
            let end = if step > 0 { counted(to[index]).min(size) } else { counted(to[index]).max(-1) };
            let count = if step > 0 { (end - start).max(0) } else { (start - end).max(0) };
            starts[axis] = size_of(start)?;
            sizes[axis] = (count as usize).div_ceil(step.unsigned_abs().max(1) as usize);
            steps[axis] = step as isize;
        }
        Ok(self.trace.push(Op::Slice { starts, sizes, steps }, &[x]))
    }

    fn pad(&self, node: &NodeProto, attributes: &Attributes, x: &Tensor) -> Result<Tensor, Why> {
        let sides = self.list(node, 1)?;
        let rank = x.shape().rank();
        if sides.len() != 2 * rank {
            return Err(format!("{} pads for {rank} axes", sides.len()));
        }
        let mode = match attributes.word("mode").as_str() {
            "reflect" => PadMode::Reflect,
            "edge" => PadMode::Replicate,
            "wrap" => PadMode::Circular,
            _ if self.has(node, 2) => PadMode::Constant(self.scalar(node, 2)?),
            _ => PadMode::Constant(0.0),
        };
        let pads = (0..rank).map(|axis| [sides[axis] as isize, sides[axis + rank] as isize]).collect();
        Ok(self.trace.push(Op::Pad { pads, mode }, &[x]))
    }

    fn resize(&self, node: &NodeProto, attributes: &Attributes, x: &Tensor) -> Result<Tensor, Why> {
        let mode = match (attributes.word("mode").as_str(), attributes.word("nearest_mode").as_str()) {
            ("nearest", "floor") => Interpolation::Nearest,
            ("nearest", _) => Interpolation::NearestExact,
            ("linear", _) => Interpolation::Bilinear,
            _ => Interpolation::Bicubic { a: attributes.float("cubic_coeff_a", -0.75) },
        };
        let align_corners = attributes.word("coordinate_transformation_mode") == "align_corners";
        let (out, scales) = match self.has(node, 3) {
            true => {
                let sizes = self.list(node, 3)?;
                let [.., height, width] = sizes[..] else { return Err("it lacks sizes".into()) };
                ([size_of(height)?, size_of(width)?], None)
            }
            false => {
                let name = &node.input[2];
                let cell = self.trace.with_graph(|graph| {
                    graph.parameters.iter().find(|cell| *cell.name() == **name).map(|cell| cell.array())
                });
                // The decimal that a factor was written as: 1.7, not 1.70000005.
                let meant = |factor: &f32| factor.to_string().parse().unwrap_or(f64::from(*factor));
                let cell = cell.ok_or("its factors are not known")?;
                let factors: Vec<f64> = cell.f32s().map_err(|error| error.to_string())?.iter().map(meant).collect();
                let [_, _, height, width] = factors[..] else { return Err("it lacks factors".into()) };
                let size = |axis: usize, factor: f64| (x.size(axis) as f32 * factor as f32).floor() as usize;
                ([size(2, height), size(3, width)], Some([height, width]))
            }
        };
        let spec = ResizeSpec { mode, align_corners, antialias: false, scales };
        Ok(self.trace.push(Op::Resize { spec, out }, &[x]))
    }
}
