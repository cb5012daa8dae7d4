//! Movements of elements: reshape, expand, slice, pad, for any batch.

use super::builder::{int, string};
use super::dims::Dim;
use super::lower::{Done, Lowering};
use striate_graph::{DType, NodeId, PadMode};

/// Where a slice that runs backwards to the very first element ends.
const BEFORE_ALL: i64 = i64::MIN + 1;

impl Lowering<'_> {
    /// A list of sizes as the model sees them when it runs.
    pub fn size_list(&mut self, dims: &[Dim]) -> Done {
        let fixed: Option<Vec<i64>> = dims.iter().map(|dim| dim.fixed().map(|size| size as i64)).collect();
        if let Some(fixed) = fixed {
            return Ok(self.b.list(&fixed));
        }
        let mut parts = Vec::new();
        for group in dims.chunk_by(|a, b| a.fixed().is_some() && b.fixed().is_some()) {
            parts.push(match group {
                [Dim::Batch(1)] => self.batch()?,
                [Dim::Batch(factor)] => {
                    let (batch, factor) = (self.batch()?, self.b.list(&[*factor as i64]));
                    self.b.node("Mul", &[&batch, &factor], vec![])
                }
                [Dim::Picture(_)] => return Err("its size follows the picture in a way that is not written".into()),
                sizes => {
                    let sizes: Vec<i64> = sizes.iter().filter_map(|dim| dim.fixed()).map(|size| size as i64).collect();
                    self.b.list(&sizes)
                }
            });
        }
        let names: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(if names.len() == 1 { names[0].to_owned() } else { self.b.node("Concat", &names, vec![int("axis", 0)]) })
    }

    /// The same elements under other sizes. Those that are not fixed are copied from the input or left to be worked out.
    pub fn reshape(&mut self, x: &str, from: &[Dim], to: &[Dim]) -> Done {
        if from == to {
            return Ok(x.to_owned());
        }
        if let ([first, rest @ ..], [same, Dim::Fixed(_)]) = (from, to)
            && first == same
            && rest.len() >= 2
        {
            return Ok(self.b.node("Flatten", &[x], vec![int("axis", 1)]));
        }
        let has_zero = from.iter().chain(to).any(|dim| *dim == Dim::Fixed(0));
        let copied = |axis: usize| !has_zero && from.get(axis) == Some(&to[axis]);
        let unknown = (0..to.len()).filter(|&axis| to[axis].fixed().is_none() && !copied(axis)).count();
        if unknown > 1 || (has_zero && unknown > 0) {
            let sizes = self.size_list(to)?;
            return Ok(self.reshape_to(x, &sizes, has_zero));
        }
        let sizes: Vec<i64> = (0..to.len())
            .map(|axis| match to[axis] {
                Dim::Fixed(size) => size as i64,
                _ if copied(axis) => 0,
                _ => -1,
            })
            .collect();
        let sizes = self.b.list(&sizes);
        Ok(self.reshape_to(x, &sizes, has_zero))
    }

    /// `Reshape`; with `zeros` a size of 0 is meant as it stands (from opset 14; before, it takes the input's, which is 0 too).
    fn reshape_to(&mut self, x: &str, sizes: &str, zeros: bool) -> String {
        let attributes = if zeros && self.options.opset >= 14 { vec![int("allowzero", 1)] } else { vec![] };
        self.b.node("Reshape", &[x, sizes], attributes)
    }

    /// Broadcast to sizes. `Expand` keeps an axis for which it is told 1.
    pub fn expand(&mut self, x: &str, from: &[Dim], to: &[Dim]) -> Done {
        let lead = to.len() - from.len();
        let kept = |axis: usize| axis >= lead && from[axis - lead] == to[axis] && to[axis].fixed().is_none();
        let told: Vec<Dim> = (0..to.len()).map(|axis| if kept(axis) { Dim::Fixed(1) } else { to[axis] }).collect();
        let sizes = self.size_list(&told)?;
        Ok(self.b.node("Expand", &[x, &sizes], vec![]))
    }

    /// `Slice` along the axes of which not all is taken.
    pub fn slice(&mut self, x: NodeId, id: NodeId, starts: &[usize], steps: &[isize]) -> Done {
        let (from, to) = (self.sizes(x), self.sizes(id));
        let mut taken: [Vec<i64>; 4] = Default::default();
        for axis in 0..to.len() {
            if starts[axis] == 0 && steps[axis] == 1 && from[axis] == to[axis] {
                continue;
            }
            let Some(size) = to[axis].fixed() else {
                return Err(format!("it takes a part of axis {axis} whose size is not the same for every input"));
            };
            let (start, step) = (starts[axis] as i64, steps[axis] as i64);
            let last = start + (size as i64 - 1) * step;
            let end = match step > 0 {
                _ if size == 0 => start,
                true => last + 1,
                false if last == 0 => BEFORE_ALL,
                false => last - 1,
            };
            let found = [start, end, axis as i64, step];
            taken.iter_mut().zip(found).for_each(|(list, value)| list.push(value));
        }
        let x = self.value(x);
        Ok(self.slice_by(&x, &taken))
    }

    /// `Slice` by starts, ends, axes and steps; the value itself where there are none.
    fn slice_by(&mut self, x: &str, [starts, ends, axes, steps]: &[Vec<i64>; 4]) -> String {
        if axes.is_empty() {
            return x.to_owned();
        }
        let mut lists = [starts, ends, axes].map(|list| self.b.list(list)).to_vec();
        if steps.iter().any(|&step| step != 1) {
            lists.push(self.b.list(steps));
        }
        let inputs: Vec<&str> = std::iter::once(x).chain(lists.iter().map(String::as_str)).collect();
        self.b.node("Slice", &inputs, vec![])
    }

    /// Elements `start..end` of one axis; a negative end counts from the back.
    fn part(&mut self, x: &str, axis: usize, start: i64, end: i64) -> String {
        self.slice_by(x, &[vec![start], vec![end], vec![axis as i64], vec![1]])
    }

    /// `Pad`, and a `Slice` behind it for what is removed.
    pub fn pad(&mut self, id: NodeId, pads: &[[isize; 2]], mode: PadMode) -> Done {
        let (x, from, dtype) = (self.value(id), self.sizes(id), self.graph.node(id).dtype);
        let added: Vec<[usize; 2]> = pads.iter().map(|sides| sides.map(|side| side.max(0) as usize)).collect();
        let mut value = x.clone();
        if added.iter().flatten().any(|&side| side > 0) {
            value = match mode {
                PadMode::Circular if self.options.opset < 19 => self.wrap(&x, &from, &added)?,
                _ => self.pad_by(&x, &added, mode, dtype),
            };
        }
        let mut removed: [Vec<i64>; 4] = Default::default();
        for (axis, &[before, after]) in pads.iter().enumerate().filter(|(_, sides)| sides.iter().any(|&s| s < 0)) {
            let end = if after < 0 { after as i64 } else { i64::MAX };
            let found = [(-before).max(0) as i64, end, axis as i64, 1];
            removed.iter_mut().zip(found).for_each(|(list, value)| list.push(value));
        }
        Ok(self.slice_by(&value, &removed))
    }

    /// `Pad` by what is added before and after each axis.
    pub fn pad_by(&mut self, x: &str, added: &[[usize; 2]], mode: PadMode, dtype: DType) -> String {
        let sides = [0, 1].map(|side| added.iter().map(move |sides| sides[side] as i64));
        let [before, after] = sides;
        let list = self.b.list(&before.chain(after).collect::<Vec<_>>());
        let name = match mode {
            PadMode::Constant(_) => "constant",
            PadMode::Reflect => "reflect",
            PadMode::Replicate => "edge",
            PadMode::Circular => "wrap",
        };
        match mode {
            PadMode::Constant(value) if value != 0.0 => {
                let value = self.b.scalar(f64::from(value), dtype);
                self.b.node("Pad", &[x, &list, &value], vec![string("mode", name)])
            }
            _ => self.b.node("Pad", &[x, &list], vec![string("mode", name)]),
        }
    }

    /// What `Pad` can do from opset 19 on.
    fn wrap(&mut self, x: &str, from: &[Dim], added: &[[usize; 2]]) -> Done {
        let mut value = x.to_owned();
        for (axis, &[before, after]) in added.iter().enumerate().filter(|(_, sides)| **sides != [0, 0]) {
            let Some(size) = from[axis].fixed() else {
                return Err(format!("wrapping axis {axis}, whose size varies, needs opset 19 or newer"));
            };
            let mut parts = Vec::new();
            if before > 0 {
                parts.push(self.part(&value, axis, (size - before) as i64, size as i64));
            }
            parts.push(value.clone());
            if after > 0 {
                parts.push(self.part(&value, axis, 0, after as i64));
            }
            let names: Vec<&str> = parts.iter().map(String::as_str).collect();
            value = self.b.node("Concat", &names, vec![int("axis", axis as i64)]);
        }
        Ok(value)
    }

    /// Pieces of one axis: `[start, end)` each.
    pub fn pieces(&mut self, x: &str, axis: usize, bounds: &[[usize; 2]]) -> Vec<String> {
        bounds.iter().map(|&[start, end]| self.part(x, axis, start as i64, end as i64)).collect()
    }
}
