//! Masks of boxes as masks of pictures, and masks of pictures as what the mask head is to give for boxes.

use super::boxes::Corners;
use super::heads::four;
use super::picture::resized_plane;
use super::proposals::numbers;
use crate::detection::Mask;
use std::sync::{Arc, Once};
use striate_graph::{Array, DType, Error, RoiAlignSpec, Shape, Tensor, register_host_function};
use striate_kernels::reference::{AxisTable, roi_axis_table};

/// Zeros around a mask, so that its border fades.
const BORDER: usize = 1;

/// Probabilities of the pixels of each box, `[boxes, M, M]`, as those of the picture's pixels, `[boxes, H, W]`; 0 outside of the box.
/// As torchvision's `paste_masks_in_image`.
///
/// # Errors
/// Masks that are not f32.
pub(super) fn paste_masks(
    masks: &Array,
    boxes: &[Corners],
    [height, width]: [usize; 2],
) -> striate_graph::Result<Array> {
    let side = masks.shape()[1];
    let mut pasted = vec![0f32; boxes.len() * height * width];
    let of_boxes = masks.f32s()?.chunks_exact((side * side).max(1));
    for ((mask, corners), picture) in of_boxes.zip(boxes).zip(pasted.chunks_exact_mut((height * width).max(1))) {
        let placed = Placed::new(mask, side, *corners);
        let [x1, y1, x2, y2] = placed.window([height, width]);
        for (y, x) in (y1..y2).flat_map(|y| (x1..x2).map(move |x| (y, x))) {
            picture[y * width + x] = placed.at(x, y);
        }
    }
    Array::from_vec([boxes.len(), height, width], pasted)
}

/// From this probability on a pixel belongs to the object.
const LEAST: f32 = 0.5;

/// The pixels of a picture of this height and width that one mask `[M, M]` says belong to its box's object.
pub(super) fn paste_mask(mask: &[f32], side: usize, corners: Corners, size: [usize; 2]) -> Mask {
    let placed = Placed::new(mask, side, corners);
    Mask::of(size, placed.window(size), |x, y| placed.at(x, y) >= LEAST)
}

/// The whole pixels of a box that has grown by the border's share.
fn expanded([x1, y1, x2, y2]: Corners, side: usize) -> [i64; 4] {
    let scale = ((side + 2 * BORDER) as f64 / side as f64) as f32;
    let (half_w, half_h) = ((x2 - x1) * 0.5 * scale, (y2 - y1) * 0.5 * scale);
    let (x, y) = ((x2 + x1) * 0.5, (y2 + y1) * 0.5);
    [x - half_w, y - half_h, x + half_w, y + half_h].map(|v| v as i64)
}

/// A mask resized to its box, the box's last pixels counted in.
struct Placed {
    /// Of its upper left pixel.
    place: [i64; 2],
    size: [usize; 2],
    values: Vec<f32>,
}

impl Placed {
    fn new(mask: &[f32], side: usize, corners: Corners) -> Placed {
        let [x1, y1, x2, y2] = expanded(corners, side);
        let bordered = side + 2 * BORDER;
        let mut with_border = vec![0f32; bordered * bordered];
        for (row, values) in mask.chunks_exact(side.max(1)).enumerate() {
            with_border[(row + BORDER) * bordered + BORDER..][..side].copy_from_slice(values);
        }
        let [w, h] = [x2 - x1, y2 - y1].map(|length| (length + 1).max(1) as usize);
        let values = resized_plane(&with_border, [bordered, bordered], [h, w]);
        Placed { place: [x1, y1], size: [h, w], values }
    }

    /// Corners of what lies in a picture of this height and width.
    fn window(&self, [height, width]: [usize; 2]) -> [usize; 4] {
        let ([x, y], [h, w]) = (self.place, self.size);
        let within = |at: i64, most: usize| at.clamp(0, most as i64) as usize;
        [within(x, width), within(y, height), within(x + w as i64, width), within(y + h as i64, height)]
    }

    /// The probability of a pixel of the window.
    fn at(&self, x: usize, y: usize) -> f32 {
        let ([left, top], [_, w]) = (self.place, self.size);
        self.values[(y as i64 - top) as usize * w + (x as i64 - left) as usize]
    }
}

/// Masks of objects `[N, most, H, W]`, of 0 and other numbers in f32, as training takes them: bits `[N, most, H, ceil(W / 8)]` (u8), that
/// of the leftmost pixel the lowest.
///
/// ```
/// use striate_graph::Array;
/// use striate_vision::models::detection::pack_masks;
/// let masks = Array::from_vec([1, 1, 1, 9], vec![0f32, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])?;
/// assert_eq!(pack_masks(&masks)?.to_i64_vec(), [6, 1]);
/// # Ok::<(), striate_graph::Error>(())
/// ```
///
/// # Errors
/// Masks that are not f32.
///
/// # Panics
/// Where they have not four axes.
pub fn pack_masks(masks: &Array) -> striate_graph::Result<Array> {
    let [n, most, height, width] = [0, 1, 2, 3].map(|axis| masks.shape()[axis]);
    let pack =
        |pixels: &[f32]| pixels.iter().enumerate().fold(0u8, |byte, (bit, v)| byte | (u8::from(*v != 0.0) << bit));
    let bytes = masks.f32s()?.chunks_exact(width.max(1)).flat_map(|row| row.chunks(8).map(pack)).collect();
    Array::from_vec([n, most, height, width.div_ceil(8)], bytes)
}

const TARGETS: &str = "striate.detection.mask_targets";

/// What the mask head is to give: of each region the part of its object's mask, `[rows, 1, out, out]`, and whether that counts,
/// `[rows, 1]`: not where there is no object (0 in `foreground` `[rows, 1]`), or no pixel of it. Regions are corners `[rows, 4]` in pixels
/// of a batch of this width; `objects` `[rows]` (i64) are places among those of `masks`, see [`pack_masks`]. Pooled as torchvision's
/// `project_masks_on_boxes`.
#[track_caller]
pub(super) fn mask_targets(
    masks: &Tensor,
    width: usize,
    [corners, objects, foreground]: [&Tensor; 3],
    out: usize,
) -> [Tensor; 2] {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let targets = |inputs: &[Array]| targets_on_host(inputs).map_err(|error| error.to_string());
        register_host_function(TARGETS, Arc::new(targets));
    });
    let rows = corners.size(0);
    let sizes = numbers(corners, vec![width as f64, out as f64]);
    let outputs = [Shape::from([rows, 1, out, out]), Shape::from([rows, 1])].map(|shape| (shape, DType::F32));
    let found = corners.trace().host_call(TARGETS, &[masks, corners, objects, foreground, &sizes], &outputs, None);
    [0, 1].map(|index| found[index].clone())
}

/// The host side of [`mask_targets`].
fn targets_on_host(inputs: &[Array]) -> striate_graph::Result<Vec<Array>> {
    let [masks, corners, objects, foreground, sizes] = inputs else {
        return Err(Error::Internal(format!("{TARGETS} takes 5 inputs")));
    };
    let Some(bits) = masks.as_slice::<u8>() else { return Err(Error::Internal(format!("{TARGETS} takes bits"))) };
    let sizes = sizes.to_f64_vec();
    let (height, pitch) = (masks.shape()[2], masks.shape()[3]);
    let (size, out) = ([height, sizes[0] as usize], sizes[1] as usize);
    let (corners, foreground, rows) = (corners.f32s()?, foreground.f32s()?, objects.numel());
    let (mut targets, mut counted) = (vec![0f32; rows * out * out], vec![0f32; rows]);
    for (row, object) in objects.to_i64_vec().into_iter().enumerate().filter(|(row, _)| foreground[*row] != 0.0) {
        let plane = &bits[object as usize * height * pitch..][..height * pitch];
        if plane.iter().any(|byte| *byte != 0) {
            counted[row] = 1.0;
            pool_bits((plane, pitch), size, (four(corners, row), out), &mut targets[row * out * out..][..out * out]);
        }
    }
    Ok(vec![Array::from_vec([rows, 1, out, out], targets)?, Array::from_vec([rows, 1], counted)?])
}

/// Pools a region of a mask of this height and width, of rows of `pitch` bytes, into `target`, as `roi_align`.
fn pool_bits((plane, pitch): (&[u8], usize), size: [usize; 2], (region, out): (Corners, usize), target: &mut [f32]) {
    let spec = RoiAlignSpec { out: [out, out], scale: 1.0, sampling_ratio: 0, aligned: false, max: false };
    let tables: [AxisTable; 2] = [0, 1].map(|axis| roi_axis_table(&spec, axis, size[axis], region.map(f64::from)));
    let mut sums = vec![0f64; out];
    for (by, target) in target.chunks_exact_mut(out).enumerate() {
        sums.fill(0.0);
        for (y, of_row) in tables[0].row(by) {
            let row = &plane[y * pitch..][..pitch];
            for (bx, sum) in sums.iter_mut().enumerate() {
                let there = tables[1].row(bx).filter(|(x, _)| row[x / 8] >> (x % 8) & 1 == 1);
                *sum += of_row * there.map(|(_, weight)| weight).sum::<f64>();
            }
        }
        target.iter_mut().zip(&sums).for_each(|(to, sum)| *to = *sum as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `paste_masks_in_image(torch.ones(1, 1, 4, 4), torch.tensor([[2., 1., 6., 5.]]), (7, 8))` of torchvision 0.29.
    #[test]
    fn a_mask_is_pasted_as_torchvision_does() {
        let masks = Array::full([1, 4, 4], 1f32);
        let pasted = paste_masks(&masks, &[[2.0, 1.0, 6.0, 5.0]], [7, 8]).unwrap();
        let torch = [
            [0.0; 8],
            [0.0, 0.0, 0.6173, 0.7857, 0.7857, 0.7857, 0.6173, 0.0],
            [0.0, 0.0, 0.7857, 1.0, 1.0, 1.0, 0.7857, 0.0],
        ];
        for (row, wanted) in pasted.f32s().unwrap().chunks_exact(8).zip(torch) {
            assert!(row.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-4), "{row:?} instead of {wanted:?}");
        }
    }

    #[test]
    fn what_lies_beside_the_picture_is_left_out() {
        let masks = Array::full([1, 2, 2], 1f32);
        let pasted = paste_masks(&masks, &[[-10.0, -10.0, 20.0, 20.0]], [4, 4]).unwrap();
        assert!(pasted.f32s().unwrap().iter().all(|v| *v == 1.0), "{pasted}");
        assert_eq!(paste_masks(&masks, &[], [4, 4]).unwrap().shape().dims(), &[0, 4, 4]);
    }

    #[test]
    fn one_mask_is_what_the_pasted_probabilities_say() {
        let values: Vec<f32> = (0..28 * 28).map(|i| ((i % 28) as f32 * 0.3).sin() * 0.5 + 0.5).collect();
        let masks = Array::from_vec([1, 28, 28], values.clone()).unwrap();
        for corners in [[3.3, 2.1, 41.7, 30.0], [-12.0, 5.0, 20.0, 60.0], [10.0, 10.0, 10.4, 11.0]] {
            let pasted = paste_masks(&masks, &[corners], [40, 50]).unwrap();
            let mask = paste_mask(&values, 28, corners, [40, 50]);
            for (place, probability) in pasted.f32s().unwrap().iter().enumerate() {
                assert_eq!(mask.contains(place % 50, place / 50), *probability >= 0.5, "{corners:?} {place}");
            }
        }
    }

    /// The targets are what the operation of the graph gives for masks in f32; rows without an object, or of whose object no pixel is
    /// there, do not count.
    #[test]
    fn targets_are_the_masks_pooled() {
        let [height, width] = [30, 45];
        let pixel = |i: usize| f32::from(u8::from(i / (height * width) != 1 && (i % 45 + i / 45 % 30) % 7 < 4));
        let masks = Array::from_vec([2, 2, height, width], (0..4 * height * width).map(pixel).collect()).unwrap();
        let regions = [[2.0f32, 3.0, 40.0, 28.5], [5.5, 5.5, 9.0, 7.0], [-3.0, 20.0, 60.0, 44.0], [1.0, 1.0, 9.0, 9.0]];
        let corners = Array::from_vec([4, 4], regions.concat()).unwrap();
        let objects = Array::from_vec([4], vec![0i64, 3, 2, 1]).unwrap();
        for (foreground, wanted) in [([1.0f32; 4], [1.0, 1.0, 1.0, 0.0]), ([1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0])]
        {
            let foreground = Array::from_vec([4, 1], foreground.to_vec()).unwrap();
            let sizes = Array::from_vec([2], vec![width as f64, 28.0]).unwrap();
            let bits = pack_masks(&masks).unwrap();
            let found = targets_on_host(&[bits, corners.clone(), objects.clone(), foreground, sizes]).unwrap();
            assert_eq!(found[1].f32s().unwrap(), wanted);
            let spec = RoiAlignSpec { out: [28, 28], scale: 1.0, sampling_ratio: 0, aligned: false, max: false };
            let shape =
                striate_kernels::reference::RoiAlignShape { n: 4, channels: 1, input: [height, width], regions: 4 };
            let mut pooled = vec![0f32; 4 * 784];
            let given = (masks.f32s().unwrap(), corners.f32s().unwrap(), &[0i64, 3, 2, 1][..]);
            striate_kernels::reference::reference_roi_align(&spec, shape, given, &mut pooled);
            for (row, counts) in wanted.into_iter().enumerate() {
                let pairs = found[0].f32s().unwrap()[row * 784..][..784].iter().zip(&pooled[row * 784..][..784]);
                assert!(pairs.into_iter().all(|(a, b)| (a - b * counts).abs() < 1e-6), "{row}");
            }
        }
    }
}
