//! How the windows of convolutions and pools lie, for any number of spatial axes.

use super::call::{Call, Halt, size_of};

/// Windows along the spatial axes.
#[derive(Clone, Debug)]
pub(super) struct Windowed {
    pub kernel: Vec<usize>,
    pub stride: Vec<usize>,
    pub dilation: Vec<usize>,
    /// Before and after each axis.
    pub pads: Vec<[usize; 2]>,
}

/// Whole numbers of an attribute, one an axis.
pub(super) fn per_axis(call: &Call, name: &str, axes: usize, otherwise: usize) -> Result<Vec<usize>, Halt> {
    let Some(list) = call.attributes.ints(name).filter(|list| !list.is_empty()) else {
        return Ok(vec![otherwise; axes]);
    };
    if list.len() != axes {
        return Err(format!("`{name}` is {list:?}, but there are {axes} spatial axes").into());
    }
    list.iter().map(|&size| size_of(size)).collect()
}

impl Windowed {
    /// Windows of this size over axes of `sizes`.
    pub fn of(call: &Call, sizes: &[usize], kernel: Vec<usize>) -> Result<Windowed, Halt> {
        let axes = sizes.len();
        if kernel.len() != axes || axes == 0 || axes > 3 {
            return Err(
                format!("a kernel of size {kernel:?} over {axes} spatial axes; one to three are supported").into()
            );
        }
        let stride = per_axis(call, "strides", axes, 1)?;
        let dilation = per_axis(call, "dilations", axes, 1)?;
        if stride.contains(&0) || dilation.contains(&0) || kernel.contains(&0) {
            return Err(format!("kernel {kernel:?}, strides {stride:?}, dilations {dilation:?}: none may be 0").into());
        }
        let mut windows = Windowed { kernel, stride, dilation, pads: vec![[0; 2]; axes] };
        windows.pads = windows.pads_of(call, sizes)?;
        Ok(windows)
    }

    fn pads_of(&self, call: &Call, sizes: &[usize]) -> Result<Vec<[usize; 2]>, Halt> {
        let axes = sizes.len();
        match call.attributes.word("auto_pad", "NOTSET").as_str() {
            "NOTSET" | "" => explicit_pads(call, axes),
            "VALID" => Ok(vec![[0; 2]; axes]),
            same @ ("SAME_UPPER" | "SAME_LOWER") => {
                let pads = (0..axes).map(|axis| {
                    let out = sizes[axis].div_ceil(self.stride[axis]);
                    let reach =
                        out.saturating_sub(1).saturating_mul(self.stride[axis]).saturating_add(self.reach(axis));
                    split(reach.saturating_sub(sizes[axis]), same == "SAME_UPPER")
                });
                Ok(pads.collect())
            }
            other => Err(format!("auto_pad `{other}` is unknown").into()),
        }
    }

    /// How far a window reaches along an axis.
    pub fn reach(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1).saturating_mul(self.dilation[axis]).saturating_add(1)
    }

    /// How far the map reaches beyond the first window.
    pub fn span(&self, axis: usize, size: usize) -> Result<usize, Halt> {
        let [before, after] = self.pads[axis];
        let padded = size.saturating_add(before).saturating_add(after);
        let reach = self.reach(axis);
        padded.checked_sub(reach).ok_or_else(|| {
            Halt::Why(format!("a window reaches over {reach} elements of an axis that has {padded} with its pads"))
        })
    }

    /// Adds an axis of size 1 in front, until there are as many.
    pub fn widened(&self, axes: usize) -> Windowed {
        let missing = axes.saturating_sub(self.kernel.len());
        let longer = |list: &[usize]| [&vec![1; missing][..], list].concat();
        let pads = [&vec![[0; 2]; missing][..], &self.pads[..]].concat();
        Windowed { kernel: longer(&self.kernel), stride: longer(&self.stride), dilation: longer(&self.dilation), pads }
    }

    /// Top, left, bottom, right of two axes.
    pub fn sides(&self) -> [usize; 4] {
        let [[top, bottom], [left, right]] = [self.pads[0], self.pads[1]];
        [top, left, bottom, right]
    }
}

/// The attribute `pads`, per axis.
pub(super) fn explicit_pads(call: &Call, axes: usize) -> Result<Vec<[usize; 2]>, Halt> {
    let list = per_axis_pairs(call, axes)?;
    Ok((0..axes).map(|axis| [list[axis], list[axis + axes]]).collect())
}

fn per_axis_pairs(call: &Call, axes: usize) -> Result<Vec<usize>, Halt> {
    let Some(list) = call.attributes.ints("pads").filter(|list| !list.is_empty()) else { return Ok(vec![0; 2 * axes]) };
    if list.len() != 2 * axes {
        return Err(format!("`pads` is {list:?}, but there are {axes} spatial axes").into());
    }
    list.iter().map(|&size| size_of(size)).collect()
}

/// Padding shared between both ends; an odd element goes behind where `upper`.
pub(super) fn split(total: usize, upper: bool) -> [usize; 2] {
    let small = total / 2;
    if upper { [small, total - small] } else { [total - small, small] }
}
