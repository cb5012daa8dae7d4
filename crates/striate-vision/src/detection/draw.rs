//! Boxes drawn over pictures, with legible labels.

use super::rle::Mask;
use crate::data::{Batch, DataError, Image};
use crate::transforms::{GREY, Preprocess};

/// Width and height of a letter of [`FONT`], in its own pixels.
const LETTER: [usize; 2] = [5, 7];
/// A bitmap font for ASCII 32 to 126: five columns a letter, the lowest bit on top.
#[rustfmt::skip]
const FONT: [[u8; 5]; 95] = [
    [0x00, 0x00, 0x00, 0x00, 0x00], [0x00, 0x00, 0x5F, 0x00, 0x00], [0x00, 0x07, 0x00, 0x07, 0x00],
    [0x14, 0x7F, 0x14, 0x7F, 0x14], [0x24, 0x2A, 0x7F, 0x2A, 0x12], [0x23, 0x13, 0x08, 0x64, 0x62],
    [0x36, 0x49, 0x55, 0x22, 0x50], [0x00, 0x05, 0x03, 0x00, 0x00], [0x00, 0x1C, 0x22, 0x41, 0x00],
    [0x00, 0x41, 0x22, 0x1C, 0x00], [0x14, 0x08, 0x3E, 0x08, 0x14], [0x08, 0x08, 0x3E, 0x08, 0x08],
    [0x00, 0x50, 0x30, 0x00, 0x00], [0x08, 0x08, 0x08, 0x08, 0x08], [0x00, 0x60, 0x60, 0x00, 0x00],
    [0x20, 0x10, 0x08, 0x04, 0x02], [0x3E, 0x51, 0x49, 0x45, 0x3E], [0x00, 0x42, 0x7F, 0x40, 0x00],
    [0x42, 0x61, 0x51, 0x49, 0x46], [0x21, 0x41, 0x45, 0x4B, 0x31], [0x18, 0x14, 0x12, 0x7F, 0x10],
    [0x27, 0x45, 0x45, 0x45, 0x39], [0x3C, 0x4A, 0x49, 0x49, 0x30], [0x01, 0x71, 0x09, 0x05, 0x03],
    [0x36, 0x49, 0x49, 0x49, 0x36], [0x06, 0x49, 0x49, 0x29, 0x1E], [0x00, 0x36, 0x36, 0x00, 0x00],
    [0x00, 0x56, 0x36, 0x00, 0x00], [0x08, 0x14, 0x22, 0x41, 0x00], [0x14, 0x14, 0x14, 0x14, 0x14],
    [0x00, 0x41, 0x22, 0x14, 0x08], [0x02, 0x01, 0x51, 0x09, 0x06], [0x32, 0x49, 0x79, 0x41, 0x3E],
    [0x7E, 0x11, 0x11, 0x11, 0x7E], [0x7F, 0x49, 0x49, 0x49, 0x36], [0x3E, 0x41, 0x41, 0x41, 0x22],
    [0x7F, 0x41, 0x41, 0x22, 0x1C], [0x7F, 0x49, 0x49, 0x49, 0x41], [0x7F, 0x09, 0x09, 0x09, 0x01],
    [0x3E, 0x41, 0x49, 0x49, 0x7A], [0x7F, 0x08, 0x08, 0x08, 0x7F], [0x00, 0x41, 0x7F, 0x41, 0x00],
    [0x20, 0x40, 0x41, 0x3F, 0x01], [0x7F, 0x08, 0x14, 0x22, 0x41], [0x7F, 0x40, 0x40, 0x40, 0x40],
    [0x7F, 0x02, 0x0C, 0x02, 0x7F], [0x7F, 0x04, 0x08, 0x10, 0x7F], [0x3E, 0x41, 0x41, 0x41, 0x3E],
    [0x7F, 0x09, 0x09, 0x09, 0x06], [0x3E, 0x41, 0x51, 0x21, 0x5E], [0x7F, 0x09, 0x19, 0x29, 0x46],
    [0x46, 0x49, 0x49, 0x49, 0x31], [0x01, 0x01, 0x7F, 0x01, 0x01], [0x3F, 0x40, 0x40, 0x40, 0x3F],
    [0x1F, 0x20, 0x40, 0x20, 0x1F], [0x3F, 0x40, 0x38, 0x40, 0x3F], [0x63, 0x14, 0x08, 0x14, 0x63],
    [0x07, 0x08, 0x70, 0x08, 0x07], [0x61, 0x51, 0x49, 0x45, 0x43], [0x00, 0x7F, 0x41, 0x41, 0x00],
    [0x02, 0x04, 0x08, 0x10, 0x20], [0x00, 0x41, 0x41, 0x7F, 0x00], [0x04, 0x02, 0x01, 0x02, 0x04],
    [0x40, 0x40, 0x40, 0x40, 0x40], [0x00, 0x01, 0x02, 0x04, 0x00], [0x20, 0x54, 0x54, 0x54, 0x78],
    [0x7F, 0x48, 0x44, 0x44, 0x38], [0x38, 0x44, 0x44, 0x44, 0x20], [0x38, 0x44, 0x44, 0x48, 0x7F],
    [0x38, 0x54, 0x54, 0x54, 0x18], [0x08, 0x7E, 0x09, 0x01, 0x02], [0x0C, 0x52, 0x52, 0x52, 0x3E],
    [0x7F, 0x08, 0x04, 0x04, 0x78], [0x00, 0x44, 0x7D, 0x40, 0x00], [0x20, 0x40, 0x44, 0x3D, 0x00],
    [0x7F, 0x10, 0x28, 0x44, 0x00], [0x00, 0x41, 0x7F, 0x40, 0x00], [0x7C, 0x04, 0x18, 0x04, 0x78],
    [0x7C, 0x08, 0x04, 0x04, 0x78], [0x38, 0x44, 0x44, 0x44, 0x38], [0x7C, 0x14, 0x14, 0x14, 0x08],
    [0x08, 0x14, 0x14, 0x18, 0x7C], [0x7C, 0x08, 0x04, 0x04, 0x08], [0x48, 0x54, 0x54, 0x54, 0x20],
    [0x04, 0x3F, 0x44, 0x40, 0x20], [0x3C, 0x40, 0x40, 0x20, 0x7C], [0x1C, 0x20, 0x40, 0x20, 0x1C],
    [0x3C, 0x40, 0x30, 0x40, 0x3C], [0x44, 0x28, 0x10, 0x28, 0x44], [0x0C, 0x50, 0x50, 0x50, 0x3C],
    [0x44, 0x64, 0x54, 0x4C, 0x44], [0x00, 0x08, 0x36, 0x41, 0x00], [0x00, 0x00, 0x7F, 0x00, 0x00],
    [0x00, 0x41, 0x36, 0x08, 0x00], [0x08, 0x04, 0x08, 0x10, 0x08],
];

/// Colours that stand out on photographs and from each other; classes beyond them share.
#[rustfmt::skip]
const COLOURS: [[u8; 3]; 10] = [
    [230, 25, 75], [0, 130, 200], [60, 180, 75], [245, 130, 48], [145, 30, 180], [0, 150, 150], [240, 50, 230],
    [170, 110, 40], [128, 128, 0], [0, 0, 128],
];
/// Pictures of a contact sheet, at most.
const MOST_PICTURES: usize = 16;
/// Quality of JPEG files, of 100.
const QUALITY: u8 = 90;

/// The colour of a class.
fn color_of(class: usize) -> [u8; 3] {
    COLOURS[class % COLOURS.len()]
}

fn fill(image: &mut Image, [x1, y1, x2, y2]: [isize; 4], color: [u8; 3]) {
    let within = |v: isize, most: usize| v.clamp(0, most as isize) as usize;
    let (left, right) = (within(x1, image.width), within(x2, image.width));
    for y in within(y1, image.height)..within(y2, image.height) {
        let row = &mut image.data[3 * (y * image.width + left)..3 * (y * image.width + right.max(left))];
        row.chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&color));
    }
}

/// Writes text in white on `color`, with its upper left corner there; `scale` is the side of a dot. Letters beyond ASCII become `?`.
fn write_text(image: &mut Image, [left, top]: [isize; 2], text: &str, (color, scale): ([u8; 3], usize)) {
    let [width, height] = text_size(text, scale).map(|side| side as isize);
    fill(image, [left, top, left + width, top + height], color);
    let scale = scale as isize;
    for (index, letter) in text.chars().enumerate() {
        let code = if (' '..='~').contains(&letter) { letter as usize - 32 } else { '?' as usize - 32 };
        let x0 = left + scale * (1 + index as isize * (LETTER[0] as isize + 1));
        for (column, bits) in FONT[code].iter().enumerate() {
            for row in (0..LETTER[1]).filter(|row| bits >> row & 1 == 1) {
                let (x, y) = (x0 + scale * column as isize, top + scale * (1 + row as isize));
                fill(image, [x, y, x + scale, y + scale], [255; 3]);
            }
        }
    }
}

/// Width and height of a text.
fn text_size(text: &str, scale: usize) -> [usize; 2] {
    [scale * (text.chars().count() * (LETTER[0] + 1) + 1), scale * (LETTER[1] + 2)]
}

/// Draws boxes `[x1, y1, x2, y2]` of classes, each with its label above it, or inside where there is no room above. Lines and letters
/// are as thick as the picture's size asks for. The picture becomes RGB.
///
/// ```
/// use striate_vision::{data::Image, detection::draw_boxes};
/// let mut image = Image::filled(64, 64, &[0]);
/// draw_boxes(&mut image, &[([8.0, 20.0, 40.0, 50.0], 0, "cat 0.91".to_owned())]);
/// assert_eq!(image.pixel(8, 30), [230, 25, 75]);
/// ```
pub fn draw_boxes(image: &mut Image, boxes: &[([f32; 4], usize, String)]) {
    image.convert(3);
    let scale = (image.width.max(image.height) / 640).max(1);
    let line = scale as isize + 1;
    for (corners, class, _) in boxes {
        let ([x1, y1, x2, y2], color) = (corners.map(|v| v.round() as isize), color_of(*class));
        fill(image, [x1, y1, x2, y1 + line], color);
        fill(image, [x1, y2 - line, x2, y2], color);
        fill(image, [x1, y1, x1 + line, y2], color);
        fill(image, [x2 - line, y1, x2, y2], color);
    }
    // Above all lines.
    for (corners, class, text) in boxes.iter().filter(|(_, _, text)| !text.is_empty()) {
        let [width, height] = text_size(text, scale).map(|side| side as isize);
        let [x, y] = [corners[0].round() as isize, corners[1].round() as isize];
        let left = x.min(image.width as isize - width).max(0);
        let top = if y >= height { y - height } else { y };
        write_text(image, [left, top], text, (color_of(*class), scale));
    }
}

/// Lays the colours of classes half over the pixels of their masks. The picture becomes RGB; what of a mask lies beside it is left out.
///
/// ```
/// use striate_vision::data::Image;
/// use striate_vision::detection::{Mask, draw_masks};
/// let mut image = Image::filled(8, 8, &[0]);
/// draw_masks(&mut image, &[(&Mask::of([8, 8], [2, 2, 4, 4], |_, _| true), 0)]);
/// assert_eq!((image.pixel(2, 2), image.pixel(4, 4)), (&[115, 12, 37][..], &[0; 3][..]));
/// ```
pub fn draw_masks(image: &mut Image, masks: &[(&Mask, usize)]) {
    image.convert(3);
    for (mask, class) in masks {
        let color = color_of(*class);
        for [x, y] in mask.pixels().filter(|[x, y]| *x < image.width && *y < image.height) {
            let pixel = &mut image.data[3 * (y * image.width + x)..][..3];
            pixel.iter_mut().zip(color).for_each(|(p, c)| *p = ((u16::from(*p) + u16::from(c)) / 2) as u8);
        }
    }
}

/// What a net sees of a batch: up to 16 of its pictures beside each other, with the boxes and shapes of their things and the names of
/// the classes.
pub fn contact_sheet(batch: &Batch, preprocess: &Preprocess, names: &[String]) -> Image {
    let [n, channels, height, width] = batch.shape;
    let count = n.min(MOST_PICTURES);
    let columns = (count as f64).sqrt().ceil().max(1.0) as usize;
    let rows = count.div_ceil(columns);
    let mut sheet = Image::filled(columns * width, rows * height, &[GREY; 3]);
    for (index, values) in batch.data.chunks_exact(channels * height * width).take(count).enumerate() {
        let mut image = Image::filled(width, height, &[0; 3]);
        for (place, pixel) in image.data.chunks_exact_mut(3).enumerate() {
            for (channel, byte) in pixel.iter_mut().enumerate() {
                let c = channel.min(channels - 1);
                let value = values[c * height * width + place] * preprocess.std[c] + preprocess.mean[c];
                *byte = (255.0 * value).round().clamp(0.0, 255.0) as u8;
            }
        }
        let things = batch.boxes.samples().get(index).map(Vec::as_slice).unwrap_or_default();
        let boxes: Vec<_> = things
            .iter()
            .map(|thing| {
                let name = names.get(thing.class).cloned().unwrap_or_default();
                (thing.xyxy.map(|v| v as f32), thing.class, name)
            })
            .collect();
        let masks: Vec<_> = things.iter().filter_map(|t| Some((t.mask([height, width])?, t.class))).collect();
        draw_masks(&mut image, &masks.iter().map(|(mask, class)| (mask, *class)).collect::<Vec<_>>());
        draw_boxes(&mut image, &boxes);
        let (left, top) = (index % columns * width, index / columns * height);
        for (y, row) in image.data.chunks_exact(3 * width).enumerate() {
            let at = 3 * ((top + y) * sheet.width + left);
            sheet.data[at..at + 3 * width].copy_from_slice(row);
        }
    }
    sheet
}

/// A picture as the bytes of a JPEG file.
///
/// # Errors
/// [`DataError::Config`] for a picture that no JPEG can hold.
pub fn encode_jpeg(image: &Image) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    let kind = if image.channels == 1 { image::ExtendedColorType::L8 } else { image::ExtendedColorType::Rgb8 };
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    let size = [image.width, image.height].map(|side| side as u32);
    encoder.encode(&image.data, size[0], size[1], kind).map_err(|error| {
        DataError::Config(format!("a picture of {}x{} cannot be written as JPEG: {error}", size[0], size[1]))
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_letters_and_stay_inside() {
        let mut image = Image::filled(60, 40, &[0; 3]);
        draw_boxes(&mut image, &[([50.0, 2.0, 58.0, 30.0], 1, "I".to_owned())]);
        // The letter's stem: white from top to bottom in its middle column.
        let stem = |x: usize| (3..10).all(|y| image.pixel(x, y) == [255; 3]);
        assert_eq!((0..60).filter(|&x| stem(x)).count(), 1);
        assert_eq!(image.pixel(50, 29), COLOURS[1]);
        let jpeg = encode_jpeg(&image).unwrap();
        let back = Image::decode(&jpeg, "sheet.jpg").unwrap();
        assert_eq!((back.width, back.height), (60, 40));
    }
}
