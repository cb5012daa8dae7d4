//! A picture of bytes, and how one comes out of a file.

use super::error::{DataError, PictureError, Result, panic_message};
use super::jpeg::{self, Outcome};
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

/// Most pixels that a picture may have.
pub const MAX_PIXELS: u64 = 50_000_000;
/// Longest side that a picture may have.
pub const MAX_SIDE: u32 = 32_768;
/// Most bytes that a decoder may allocate, and that a file may have.
pub const MAX_BYTES: u64 = 256 << 20;

/// A picture: rows of interleaved 8-bit pixels, `data` is [height, width, channels].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// The bytes, `height * width * channels` of them.
    pub data: Vec<u8>,
}

impl Image {
    /// A picture of these bytes, laid out as [height, width, channels].
    ///
    /// # Errors
    /// [`DataError::Config`] if `channels` is neither 1 nor 3 or the number of bytes does not fit.
    pub fn new(width: usize, height: usize, channels: usize, data: Vec<u8>) -> Result<Self> {
        let expected = width.checked_mul(height).and_then(|n| n.checked_mul(channels));
        if !matches!(channels, 1 | 3) || expected != Some(data.len()) || data.is_empty() {
            return Err(DataError::Config(format!(
                "a picture of {width}x{height} with {channels} channels cannot have {} bytes: give 1 or 3 channels, \
                 no empty side, and width x height x channels bytes",
                data.len()
            )));
        }
        Ok(Self { width, height, channels, data })
    }

    /// A picture of one colour.
    pub fn filled(width: usize, height: usize, color: &[u8]) -> Self {
        Self { width, height, channels: color.len(), data: color.repeat(width * height) }
    }

    /// The channels of one pixel.
    pub fn pixel(&self, x: usize, y: usize) -> &[u8] {
        let at = (y * self.width + x) * self.channels;
        &self.data[at..at + self.channels]
    }

    /// A number that two pictures share only if they are the same, size and all: FNV-1a of 128 bits.
    pub fn fingerprint(&self) -> u128 {
        const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        let sizes = [self.width, self.height, self.channels];
        let bytes = sizes.iter().flat_map(|n| n.to_le_bytes()).chain(self.data.iter().copied());
        bytes.fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
    }

    /// Makes this a copy of `other`, reusing the buffer.
    pub fn copy_from(&mut self, other: &Image) {
        self.set(other.width, other.height, other.channels, &other.data);
    }

    /// Sets size and content, reusing the buffer.
    pub fn set(&mut self, width: usize, height: usize, channels: usize, data: &[u8]) {
        debug_assert_eq!(data.len(), width * height * channels);
        (self.width, self.height, self.channels) = (width, height, channels);
        self.data.clear();
        self.data.extend_from_slice(data);
    }

    /// Sets the size and leaves the content unspecified, reusing the buffer.
    pub(crate) fn reshape(&mut self, width: usize, height: usize, channels: usize) {
        (self.width, self.height, self.channels) = (width, height, channels);
        self.data.resize(width * height * channels, 0);
    }

    /// Converts to 1 or 3 channels in place: grey is repeated, RGB becomes [`luma`].
    pub fn convert(&mut self, channels: usize) {
        match (self.channels, channels) {
            (3, 1) => {
                let pixels = self.width * self.height;
                for i in 0..pixels {
                    self.data[i] = luma(self.data[3 * i], self.data[3 * i + 1], self.data[3 * i + 2]);
                }
                self.data.truncate(pixels);
            }
            (1, 3) => {
                let pixels = self.width * self.height;
                self.data.resize(3 * pixels, 0);
                for i in (0..pixels).rev() {
                    let v = self.data[i];
                    self.data[3 * i..3 * i + 3].fill(v);
                }
            }
            _ => {}
        }
        self.channels = channels;
    }

    /// Decodes a picture from the bytes of a file; `name` is for the error's message.
    ///
    /// - The format is seen from the content: JPEG, PNG, WebP, BMP. Of an animation, the first frame.
    /// - The EXIF orientation is applied, so that what was up is up.
    /// - Grey stays grey (1 channel); palettes and everything else become RGB.
    /// - Alpha is dropped: the stored colours are taken as they are, transparent or not.
    /// - 16-bit channels are scaled to 8 bits with rounding.
    /// - CMYK JPEGs become RGB as PIL's `convert("RGB")` makes it, without a profile. 12-bit ones are refused by name.
    /// - A file that ends before its picture does is an error, never half a picture.
    ///
    /// # Errors
    /// [`DataError::Picture`], also where the decoder itself panics.
    pub fn decode(bytes: &[u8], name: impl AsRef<Path>) -> Result<Self> {
        let mut image = Image::default();
        decode_into(bytes, &mut image)
            .map_err(|reason| DataError::Picture { file: name.as_ref().to_path_buf(), reason })?;
        Ok(image)
    }

    /// Reads and decodes a file, as [`Image::decode`].
    ///
    /// # Errors
    /// As [`Image::decode`], and [`DataError::NotFound`] or [`DataError::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        read_limited(path, &mut bytes)?;
        Self::decode(&bytes, path)
    }
}

/// Grey of a colour as PIL's `convert("L")` has it: ITU-R 601-2 in 16-bit fixed point.
#[inline]
pub fn luma(r: u8, g: u8, b: u8) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}

impl From<image::RgbImage> for Image {
    fn from(picture: image::RgbImage) -> Self {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        Image { width, height, channels: 3, data: picture.into_raw() }
    }
}

impl From<image::GrayImage> for Image {
    fn from(picture: image::GrayImage) -> Self {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        Image { width, height, channels: 1, data: picture.into_raw() }
    }
}

impl From<DynamicImage> for Image {
    /// Grey stays grey, all else becomes RGB; alpha is dropped.
    fn from(picture: DynamicImage) -> Self {
        use image::ColorType::*;
        match picture.color() {
            L8 | La8 | L16 | La16 => picture.into_luma8().into(),
            _ => picture.into_rgb8().into(),
        }
    }
}

/// Size and channels of a picture, seen from its header and orientation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureInfo {
    /// Pixels in a row, after the EXIF orientation.
    pub width: usize,
    /// Rows, after the EXIF orientation.
    pub height: usize,
    /// 1 or 3.
    pub channels: usize,
}

/// Reads the header of a picture without decoding it.
///
/// # Errors
/// As [`Image::open`], but a damaged body is not seen.
pub fn probe(path: impl AsRef<Path>) -> Result<PictureInfo> {
    let path = path.as_ref();
    let mut bytes = Vec::new();
    read_limited(path, &mut bytes)?;
    guarded(|| {
        let (mut decoder, _) = open_decoder(&bytes)?;
        let (width, height) = decoder.dimensions();
        let turned = is_quarter(decoder.orientation().unwrap_or(Orientation::NoTransforms));
        let (width, height) = if turned { (height, width) } else { (width, height) };
        let channels = if decoder.color_type().has_color() { 3 } else { 1 };
        Ok(PictureInfo { width: width as usize, height: height as usize, channels })
    })
    .map_err(|reason| DataError::Picture { file: path.to_path_buf(), reason })
}

/// What the first bytes of a picture say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PictureHead {
    /// Of the file's content.
    pub format: ImageFormat,
    /// Width and height as the pixels are stored.
    pub stored: [u32; 2],
    /// Width and height after the EXIF orientation.
    pub upright: [u32; 2],
    /// Whether the EXIF orientation moves any pixel.
    pub is_turned: bool,
}

/// Bytes that hold the header of nearly every picture; only where they do not, the rest is read.
const HEAD_BYTES: u64 = 64 << 10;

/// Reads format, size and orientation of a picture from its first bytes.
///
/// # Errors
/// As [`probe`].
pub(crate) fn probe_head(path: &Path) -> Result<PictureHead> {
    let file = std::fs::File::open(path).map_err(|e| DataError::io(path, e))?;
    let mut bytes = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut bytes).map_err(|e| DataError::io(path, e))?;
    let head = |bytes: &[u8]| {
        guarded(|| {
            let (mut decoder, format) = start_decoder(bytes)?;
            let (width, height) = decoder.dimensions();
            let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
            let upright = if is_quarter(orientation) { [height, width] } else { [width, height] };
            let is_turned = orientation != Orientation::NoTransforms;
            Ok(PictureHead { format, stored: [width, height], upright, is_turned })
        })
    };
    if let Ok(found) = head(&bytes) {
        return Ok(found);
    }
    read_limited(path, &mut bytes)?;
    head(&bytes).map_err(|reason| DataError::Picture { file: path.to_path_buf(), reason })
}

/// Whether width and height change places.
fn is_quarter(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
    )
}

/// Reads a whole file of at most [`MAX_BYTES`] into `bytes`, whose old content goes.
pub(crate) fn read_limited(path: &Path, bytes: &mut Vec<u8>) -> Result<()> {
    bytes.clear();
    let file = std::fs::File::open(path).map_err(|e| DataError::io(path, e))?;
    let length = file.metadata().map_err(|e| DataError::io(path, e))?.len();
    let too_large = |bytes| DataError::Picture {
        file: path.to_path_buf(),
        reason: PictureError::FileTooLarge { bytes, max: MAX_BYTES },
    };
    if length > MAX_BYTES {
        return Err(too_large(length));
    }
    bytes.reserve(length as usize);
    file.take(MAX_BYTES + 1).read_to_end(bytes).map_err(|e| DataError::io(path, e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(())
}

/// [`Image::decode`] into a buffer that is kept.
pub(crate) fn decode_into(bytes: &[u8], out: &mut Image) -> Result<(), PictureError> {
    guarded(|| {
        let (mut decoder, format) = open_decoder(bytes)?;
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let (width, height) = decoder.dimensions();
        let color = decoder.color_type();
        if format == ImageFormat::Jpeg
            && let Outcome::Done([w, h, channels]) = jpeg::decode(bytes, &mut out.data)
                .map_err(|jpeg::Damage(what)| PictureError::Damaged(format!("JPEG: {what}")))?
        {
            (out.width, out.height, out.channels) = (w, h, channels);
            turn(out, orientation);
            return Ok(());
        }
        if orientation == Orientation::NoTransforms && matches!(color, image::ColorType::Rgb8 | image::ColorType::L8) {
            let channels = if color == image::ColorType::Rgb8 { 3 } else { 1 };
            out.reshape(width as usize, height as usize, channels);
            return decoder.read_image(&mut out.data).map_err(|e| picture_error(e, format));
        }
        let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| picture_error(e, format))?;
        picture.apply_orientation(orientation);
        *out = picture.into();
        Ok(())
    })
}

/// Turns a picture upright.
fn turn(image: &mut Image, orientation: Orientation) {
    if orientation == Orientation::NoTransforms {
        return;
    }
    let (width, height, data) = (image.width as u32, image.height as u32, std::mem::take(&mut image.data));
    let picture = match image.channels {
        1 => image::GrayImage::from_raw(width, height, data).map(DynamicImage::from),
        _ => image::RgbImage::from_raw(width, height, data).map(DynamicImage::from),
    };
    if let Some(mut picture) = picture {
        picture.apply_orientation(orientation);
        *image = picture.into();
    }
}

/// A decoder that panics is a broken picture to its user, not the end of the run.
pub(crate) fn guarded<T>(job: impl FnOnce() -> Result<T, PictureError>) -> Result<T, PictureError> {
    catch_unwind(AssertUnwindSafe(job))
        .unwrap_or_else(|payload| Err(PictureError::DecoderPanic(panic_message(payload.as_ref()))))
}

fn open_decoder(bytes: &[u8]) -> Result<(impl ImageDecoder + '_, ImageFormat), PictureError> {
    // Anything but a JPEG is judged by its decoder.
    if bytes.starts_with(b"\xFF\xD8\xFF") {
        check_jpeg(bytes)?;
    }
    start_decoder(bytes)
}

/// A decoder that has read the header, within the limits.
fn start_decoder(bytes: &[u8]) -> Result<(impl ImageDecoder + '_, ImageFormat), PictureError> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let format = match reader.format() {
        Some(f @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp)) => f,
        other => return Err(PictureError::NotAPicture { hint: seems_to_be(bytes, other) }),
    };
    let mut decoder = reader.into_decoder().map_err(|e| picture_error(e, format))?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MAX_PIXELS || width > MAX_SIDE || height > MAX_SIDE {
        return Err(PictureError::TooLarge { width, height, max_pixels: MAX_PIXELS, max_side: MAX_SIDE });
    }
    if pixels == 0 {
        return Err(PictureError::Damaged("it has no pixels".into()));
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    decoder.set_limits(limits).map_err(|e| picture_error(e, format))?;
    Ok((decoder, format))
}

fn seems_to_be(bytes: &[u8], format: Option<ImageFormat>) -> String {
    if let Some(format) = format {
        return format!(" but a {format:?} picture, which is not read: convert it");
    }
    let start = &bytes[..bytes.len().min(64)];
    if bytes.is_empty() {
        " but an empty file".into()
    } else if start.get(4..8) == Some(b"ftyp".as_slice()) {
        " but a HEIC or AVIF picture, which is not read: convert it".into()
    } else if start.starts_with(b"<svg") || start.starts_with(b"<?xml") {
        " but XML".into()
    } else if start.starts_with(b"<") {
        " but looks like a web page: the download of it failed?".into()
    } else if std::str::from_utf8(start).is_ok_and(|s| !s.contains('\0')) {
        " but text".into()
    } else {
        String::new()
    }
}

fn picture_error(error: ImageError, format: ImageFormat) -> PictureError {
    let text = format!("{format:?}: {error}");
    match error {
        ImageError::Unsupported(what) => PictureError::Unsupported { what: what.to_string() },
        ImageError::Limits(_) => {
            PictureError::Damaged(format!("{text} (at most {MAX_BYTES} bytes are allocated for one picture)"))
        }
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => PictureError::Truncated(text),
        _ if text.to_lowercase().contains("eof") || text.contains("end of file") => PictureError::Truncated(text),
        _ => PictureError::Damaged(text),
    }
}

/// Walks a JPEG's segments. The decoder fills what a truncated file lacks with grey and says nothing; a training set must not
/// silently get such pictures. So a file without its end marker is refused here, and so are the kinds that are not read.
fn check_jpeg(bytes: &[u8]) -> Result<(), PictureError> {
    let truncated = |what: &str| {
        PictureError::Truncated(format!(
            "the JPEG's data ends in {what}, after {} bytes, without an end marker",
            bytes.len()
        ))
    };
    let mut at = 2;
    let mut seen_scan = false;
    loop {
        // Fill bytes (0xFF) may stand before a marker.
        let Some(skip) = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xFF)) else {
            return Err(truncated(if seen_scan { "its scan" } else { "its header" }));
        };
        at += skip;
        while bytes.get(at) == Some(&0xFF) {
            at += 1;
        }
        let Some(&marker) = bytes.get(at) else { return Err(truncated("a marker")) };
        at += 1;
        match marker {
            0xD9 if seen_scan => return Ok(()),
            0xD9 => return Err(PictureError::Damaged("JPEG: it ends before its first scan".into())),
            0x00 | 0x01 | 0xD0..=0xD8 => continue,
            _ => {}
        }
        let Some(length) = bytes.get(at..at + 2).map(|b| usize::from(b[0]) << 8 | usize::from(b[1])) else {
            return Err(truncated("a segment"));
        };
        let Some(segment) = bytes.get(at..at + length.max(2)) else { return Err(truncated("a segment")) };
        let is_frame = matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC);
        if is_frame {
            check_jpeg_frame(marker, segment)?;
        }
        seen_scan |= marker == 0xDA;
        at += length.max(2);
    }
}

fn check_jpeg_frame(marker: u8, segment: &[u8]) -> Result<(), PictureError> {
    let refuse = |what: String| Err(PictureError::Unsupported { what });
    match (segment.get(2), segment.get(7)) {
        (Some(&bits), _) if bits != 8 => refuse(format!("{bits}-bit JPEG")),
        // only our own decoder has PIL's colours
        (_, Some(4)) if !matches!(marker, 0xC0..=0xC2) => refuse("arithmetic or lossless CMYK JPEG".into()),
        _ => Ok(()),
    }
}
