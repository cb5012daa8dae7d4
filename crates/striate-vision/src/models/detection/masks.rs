//! Masks of boxes as masks of pictures.

use super::boxes::Corners;
use super::picture::resized_plane;
use striate_graph::Array;

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
        paste(mask, side, expanded(*corners, side), (picture, [height, width]));
    }
    Array::from_vec([boxes.len(), height, width], pasted)
}

/// The whole pixels of a box that has grown by the border's share.
fn expanded([x1, y1, x2, y2]: Corners, side: usize) -> [i64; 4] {
    let scale = ((side + 2 * BORDER) as f64 / side as f64) as f32;
    let (half_w, half_h) = ((x2 - x1) * 0.5 * scale, (y2 - y1) * 0.5 * scale);
    let (x, y) = ((x2 + x1) * 0.5, (y2 + y1) * 0.5);
    [x - half_w, y - half_h, x + half_w, y + half_h].map(|v| v as i64)
}

/// Resizes a mask to a box, its last pixels counted in, and writes what of it lies in the picture.
fn paste(mask: &[f32], side: usize, [x1, y1, x2, y2]: [i64; 4], (picture, [height, width]): (&mut [f32], [usize; 2])) {
    let bordered = side + 2 * BORDER;
    let mut with_border = vec![0f32; bordered * bordered];
    for (row, values) in mask.chunks_exact(side).enumerate() {
        with_border[(row + BORDER) * bordered + BORDER..][..side].copy_from_slice(values);
    }
    let [w, h] = [x2 - x1, y2 - y1].map(|length| (length + 1).max(1) as usize);
    let resized = resized_plane(&with_border, [bordered, bordered], [h, w]);
    for row in y1.max(0)..(y2 + 1).min(height as i64) {
        for column in x1.max(0)..(x2 + 1).min(width as i64) {
            let from = (row - y1) as usize * w + (column - x1) as usize;
            picture[row as usize * width + column as usize] = resized[from];
        }
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
}
