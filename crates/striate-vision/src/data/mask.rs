//! Masks: pictures whose pixels are classes.

use super::error::{DataError, PictureError, Result};
use super::picture::{Image, MAX_BYTES, MAX_PIXELS, MAX_SIDE, guarded};
use std::io::Cursor;
use std::path::Path;

/// The pixel value that counts for nothing.
pub const IGNORE: u8 = 255;

/// Reads the values that a mask's file holds, without making colours of them: the indices of a palette, the grey of a grey
/// picture whatever its depth (1 channel), or the colours of a coloured one (3 channels). PNG and BMP, the kinds without loss.
///
/// # Errors
/// [`DataError::Picture`] for what cannot be decoded, or has values above 255.
pub fn decode_mask(bytes: &[u8], path: &Path) -> Result<Image> {
    if !bytes.starts_with(b"\x89PNG") {
        if bytes.starts_with(b"BM") {
            return Image::decode(bytes, path);
        }
        let reason =
            PictureError::Unsupported { what: "masks that are no PNG or BMP, which keep each pixel's class,".into() };
        return Err(DataError::Picture { file: path.into(), reason });
    }
    guarded(|| decode_png(bytes)).map_err(|reason| DataError::Picture { file: path.into(), reason })
}

fn decode_png(bytes: &[u8]) -> Result<Image, PictureError> {
    let damaged = |error: png::DecodingError| match error {
        png::DecodingError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            PictureError::Truncated(format!("PNG: {e}"))
        }
        other => PictureError::Damaged(format!("PNG: {other}")),
    };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: MAX_BYTES as usize });
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let (width, height) = (reader.info().width, reader.info().height);
    if u64::from(width) * u64::from(height) > MAX_PIXELS || width > MAX_SIDE || height > MAX_SIDE {
        return Err(PictureError::TooLarge { width, height, max_pixels: MAX_PIXELS, max_side: MAX_SIDE });
    }
    let size = reader.output_buffer_size().filter(|size| *size as u64 <= MAX_BYTES);
    let mut packed = vec![0; size.ok_or_else(|| PictureError::Damaged("PNG: it is too large".into()))?];
    let frame = reader.next_frame(&mut packed).map_err(damaged)?;
    let channels = frame.color_type.samples();
    let kept = if channels >= 3 { 3 } else { 1 };
    let mut data = Vec::with_capacity(width as usize * height as usize * kept);
    for row in packed.chunks_exact(frame.line_size).take(height as usize) {
        let samples = Samples { row, bits: frame.bit_depth as usize };
        for x in 0..width as usize {
            for c in 0..kept {
                let value = samples.get(x * channels + c);
                let beyond = || PictureError::Damaged(format!("the value {value}; classes go from 0 to 254"));
                data.push(u8::try_from(value).map_err(|_| beyond())?);
            }
        }
    }
    Ok(Image { width: width as usize, height: height as usize, channels: kept, data })
}

/// The values of a row of a PNG.
struct Samples<'a> {
    row: &'a [u8],
    /// 1, 2, 4, 8 or 16.
    bits: usize,
}

impl Samples<'_> {
    fn get(&self, index: usize) -> u16 {
        match self.bits {
            16 => u16::from_be_bytes([self.row[2 * index], self.row[2 * index + 1]]),
            8 => self.row[index].into(),
            bits => {
                let byte = self.row[index * bits / 8];
                let shift = 8 - bits - index * bits % 8;
                u16::from(byte >> shift) & ((1 << bits) - 1)
            }
        }
    }
}

/// Pascal VOC's colour of a class: the bits of its number, spread over red, green and blue from the top.
pub fn voc_color(class: u8) -> [u8; 3] {
    [0, 1, 2].map(|first| {
        let bits = (0..3).filter(|j| first + 3 * j < 8);
        bits.fold(0, |color, j| color | (class >> (first + 3 * j) & 1) << (7 - j))
    })
}

fn encode(image: &Image, color: png::ColorType, palette: Option<Vec<u8>>) -> Result<Vec<u8>> {
    let failed =
        |error: png::EncodingError| DataError::Config(format!("a PNG of {}x{}: {error}", image.width, image.height));
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width as u32, image.height as u32);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    if let Some(palette) = palette {
        encoder.set_palette(palette);
    }
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&image.data).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// A picture as the bytes of a PNG file.
///
/// # Errors
/// [`DataError::Config`] for a picture that no PNG can hold.
pub fn encode_png(image: &Image) -> Result<Vec<u8>> {
    encode(image, if image.channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb }, None)
}

/// A mask of classes as the bytes of a PNG file with [`voc_color`]s as its palette, so that it can be looked at.
///
/// # Errors
/// As [`encode_png`].
pub fn encode_mask(mask: &Image) -> Result<Vec<u8>> {
    encode(mask, png::ColorType::Indexed, Some((0..=255).flat_map(voc_color).collect()))
}

/// The picture with the colours of its classes over it; class 0 and what is ignored stay as they are.
pub fn overlay(image: &Image, mask: &Image) -> Image {
    let mut out = image.clone();
    out.convert(3);
    for (pixel, &class) in out.data.chunks_exact_mut(3).zip(&mask.data) {
        if class != 0 && class != IGNORE {
            let color = voc_color(class);
            pixel.iter_mut().zip(color).for_each(|(p, c)| *p = ((u16::from(*p) + u16::from(c)) / 2) as u8);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_pascal_vocs() {
        let wanted =
            [(0, [0, 0, 0]), (1, [128, 0, 0]), (15, [192, 128, 128]), (20, [0, 64, 128]), (255, [224, 224, 192])];
        wanted.into_iter().for_each(|(class, color)| assert_eq!(voc_color(class), color, "{class}"));
    }

    #[test]
    fn a_mask_comes_back_as_it_was_written_and_small_depths_are_indices() {
        let mask = Image::new(5, 2, 1, vec![0, 1, 2, 255, 20, 3, 0, 0, 7, 254]).unwrap();
        let path = Path::new("mask.png");
        assert_eq!(decode_mask(&encode_mask(&mask).unwrap(), path).unwrap(), mask);
        let rgb = Image::filled(2, 2, &[9, 8, 7]);
        assert_eq!(decode_mask(&encode_png(&rgb).unwrap(), path).unwrap(), rgb);
        for (depth, row, wanted) in [
            (png::BitDepth::One, vec![0b1010_0000], [1, 0, 1]),
            (png::BitDepth::Two, vec![0b1100_0100], [3, 0, 1]),
            (png::BitDepth::Four, vec![0xF2, 0x30], [15, 2, 3]),
        ] {
            let mut bytes = Vec::new();
            let mut encoder = png::Encoder::new(&mut bytes, 3, 1);
            encoder.set_depth(depth);
            encoder.write_header().unwrap().write_image_data(&row).unwrap();
            assert_eq!(decode_mask(&bytes, path).unwrap().data, wanted, "{depth:?}");
        }
    }

    #[test]
    fn what_is_no_mask_is_refused() {
        let path = Path::new("m.png");
        let mut bytes = encode_mask(&Image::filled(40, 40, &[3])).unwrap();
        let error = |bytes: &[u8]| decode_mask(bytes, path).unwrap_err().to_string();
        assert!(error(b"\xFF\xD8\xFF").contains("PNG or BMP"));
        bytes.truncate(bytes.len() / 2);
        assert!(error(&bytes).starts_with("m.png: "));
        let mut wide = Vec::new();
        let mut encoder = png::Encoder::new(&mut wide, 1, 1);
        encoder.set_depth(png::BitDepth::Sixteen);
        encoder.write_header().unwrap().write_image_data(&[1, 0]).unwrap();
        assert!(error(&wide).contains("256"));
    }
}
