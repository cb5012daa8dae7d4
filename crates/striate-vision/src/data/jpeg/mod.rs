//! JPEG (ITU-T T.81) with 8 bits, Huffman codes, one, three or four components: sequential and progressive. The pixels are those of
//! libjpeg-turbo with its defaults, bit by bit, which are those that PIL and torchvision see: a trained net can tell the
//! difference. CMYK becomes RGB as `convert("RGB")` of PIL makes it, without a profile. Other kinds are left to another decoder.

mod bits;
mod color;
mod idct;
mod scan;

use bits::Huffman;
use color::{Plane, cmyk_to_rgb, ycc_to_rgb};
use idct::inverse_dct;
use scan::{Part, Scan, ZIGZAG, read_scan};

/// Most bytes that coefficients and samples may take.
const MOST_BYTES: usize = 256 << 20;

/// What is wrong with a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage(pub String);

/// What a decoder makes of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Width, height, channels; the pixels are written.
    Done([usize; 3]),
    /// Not one of the kinds that are read here.
    NotForUs,
}

/// One component of the picture.
struct Component {
    id: u8,
    /// Blocks in a unit, across and down.
    sampling: [usize; 2],
    table: usize,
    /// Samples that are real.
    size: [usize; 2],
    /// Blocks in a row, with padding.
    pitch: usize,
    coefficients: Vec<[i16; 64]>,
}

impl Component {
    fn block(&mut self, x: usize, y: usize) -> &mut [i16; 64] {
        &mut self.coefficients[y * self.pitch + x]
    }

    /// Blocks across and down in a scan of this component alone.
    fn blocks_alone(&self) -> (usize, usize) {
        (self.size[0].div_ceil(8), self.size[1].div_ceil(8))
    }
}

/// The frame: sizes and coefficients.
struct Frame {
    width: usize,
    height: usize,
    progressive: bool,
    components: Vec<Component>,
    /// Blocks of the finest component in a unit.
    most: [usize; 2],
    /// Units across and down.
    units: [usize; 2],
}

/// What stands before the scans.
#[derive(Default)]
struct Tables {
    quantisation: [Option<[u16; 64]>; 4],
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    restart: usize,
    jfif: bool,
    /// The transform that Adobe's marker names.
    adobe: Option<u8>,
}

fn damage<T>(what: &str) -> Result<T, Damage> {
    Err(Damage(what.into()))
}

fn number(bytes: &[u8], at: usize) -> Result<usize, Damage> {
    match bytes.get(at..at + 2) {
        Some(b) => Ok(usize::from(b[0]) << 8 | usize::from(b[1])),
        None => damage("a segment is too short"),
    }
}

/// Decodes a file into `out`, whose old content goes: [height, width, channels].
pub(super) fn decode(data: &[u8], out: &mut Vec<u8>) -> Result<Outcome, Damage> {
    let mut tables = Tables::default();
    let mut frame: Option<Frame> = None;
    let mut scans = 0;
    let mut at = 2;
    while let Some((marker, segment)) = next_segment(data, &mut at)? {
        match marker {
            0xD9 => break,
            0xC0..=0xC2 if frame.is_some() => return damage("it has a second frame"),
            0xC0..=0xC2 => match read_frame(segment, marker == 0xC2)? {
                Some(found) => frame = Some(found),
                None => return Ok(Outcome::NotForUs),
            },
            0xC4 => read_huffman(segment, &mut tables)?,
            // Arithmetic, lossless and hierarchical coding; a height that comes after the scan.
            0xC3 | 0xC5..=0xCF | 0xDC => return Ok(Outcome::NotForUs),
            0xDA => {
                let Some(frame) = &mut frame else { return damage("a scan comes before the frame") };
                let scan = read_scan_header(segment, frame, &tables)?;
                at = read_scan(data, at, &scan, frame)?;
                scans += 1;
            }
            0xDB => read_quantisation(segment, &mut tables)?,
            0xDD => tables.restart = number(segment, 0)?,
            0xE0 => tables.jfif |= segment.starts_with(b"JFIF\0"),
            0xEE if segment.starts_with(b"Adobe") => tables.adobe = segment.get(11).copied(),
            _ => {}
        }
    }
    match frame {
        Some(frame) if scans > 0 => {
            let channels = render(&frame, &tables, out)?;
            Ok(Outcome::Done([frame.width, frame.height, channels]))
        }
        _ => damage("it has no scan"),
    }
}

/// The next marker with the bytes of its segment; what stands between segments is passed over.
fn next_segment<'a>(data: &'a [u8], at: &mut usize) -> Result<Option<(u8, &'a [u8])>, Damage> {
    loop {
        let Some(skip) = data.get(*at..).and_then(|rest| rest.iter().position(|&b| b == 0xFF)) else { return Ok(None) };
        *at += skip + 1;
        let Some(&marker) = data.get(*at) else { return Ok(None) };
        match marker {
            0xFF => continue,
            0x00 | 0x01 | 0xD0..=0xD8 => *at += 1,
            0xD9 => return Ok(Some((marker, &[]))),
            _ => {
                *at += 1;
                let length = number(data, *at)?.max(2);
                let Some(segment) = data.get(*at + 2..*at + length) else { return damage("a segment is cut off") };
                *at += length;
                return Ok(Some((marker, segment)));
            }
        }
    }
}

/// `None` for a kind that is not read here.
fn read_frame(segment: &[u8], progressive: bool) -> Result<Option<Frame>, Damage> {
    let (height, width) = (number(segment, 1)?, number(segment, 3)?);
    let count = usize::from(*segment.get(5).unwrap_or(&0));
    if segment[0] != 8 || !matches!(count, 1 | 3 | 4) || height == 0 || width == 0 {
        return Ok(None);
    }
    let Some(fields) = segment.get(6..6 + 3 * count) else { return damage("the frame's segment is too short") };
    let mut parts: Vec<(u8, [usize; 2], usize)> = Vec::new();
    for field in fields.chunks_exact(3) {
        let sampling = [usize::from(field[1] >> 4), usize::from(field[1] & 15)];
        if sampling.iter().any(|n| !(1..=4).contains(n)) || field[2] > 3 {
            return damage("a component of the frame is impossible");
        }
        parts.push((field[0], sampling, usize::from(field[2])));
    }
    // A component alone is not padded to units.
    if count == 1 {
        parts[0].1 = [1, 1];
    }
    let most = [0, 1].map(|axis| parts.iter().map(|part| part.1[axis]).max().unwrap_or(1));
    if parts.iter().any(|part| most[0] % part.1[0] != 0 || most[1] % part.1[1] != 0) {
        return Ok(None);
    }
    let units = [width.div_ceil(8 * most[0]), height.div_ceil(8 * most[1])];
    let blocks: usize = parts.iter().map(|part| units[0] * units[1] * part.1[0] * part.1[1]).sum();
    if blocks * 64 * 3 > MOST_BYTES {
        return Ok(None);
    }
    let component = |(id, sampling, table): (u8, [usize; 2], usize)| {
        let size = [(width * sampling[0]).div_ceil(most[0]), (height * sampling[1]).div_ceil(most[1])];
        let pitch = units[0] * sampling[0];
        let coefficients = vec![[0; 64]; pitch * units[1] * sampling[1]];
        Component { id, sampling, table, size, pitch, coefficients }
    };
    let components = parts.into_iter().map(component).collect();
    Ok(Some(Frame { width, height, progressive, components, most, units }))
}

fn read_huffman(mut segment: &[u8], tables: &mut Tables) -> Result<(), Damage> {
    while let Some((counts, rest)) = segment.get(1..17).zip(segment.get(17..)) {
        let counts: &[u8; 16] = counts.try_into().expect("16 bytes");
        let total: usize = counts.iter().map(|&n| usize::from(n)).sum();
        let place = usize::from(segment[0] & 15);
        let table = rest.get(..total).filter(|_| place < 4 && segment[0] < 0x20).and_then(|s| Huffman::new(counts, s));
        let Some(table) = table else { return damage("a table of codes is impossible") };
        let kind = if segment[0] < 0x10 { &mut tables.dc } else { &mut tables.ac };
        kind[place] = Some(table);
        segment = &rest[total..];
    }
    Ok(())
}

fn read_quantisation(mut segment: &[u8], tables: &mut Tables) -> Result<(), Damage> {
    while let Some((&first, rest)) = segment.split_first() {
        let (wide, place) = (usize::from(first >> 4), usize::from(first & 15));
        let bytes = 64 * (wide + 1);
        let Some(values) = rest.get(..bytes).filter(|_| wide < 2 && place < 4) else {
            return damage("a quantisation table is impossible");
        };
        let mut table = [0u16; 64];
        for (index, &at) in ZIGZAG.iter().enumerate() {
            table[usize::from(at)] = match wide {
                0 => u16::from(values[index]),
                _ => u16::from(values[2 * index]) << 8 | u16::from(values[2 * index + 1]),
            };
        }
        tables.quantisation[place] = Some(table);
        segment = &rest[bytes..];
    }
    Ok(())
}

fn read_scan_header(segment: &[u8], frame: &Frame, tables: &Tables) -> Result<Scan, Damage> {
    let count = usize::from(*segment.first().unwrap_or(&0));
    let fields = segment.get(1..1 + 2 * count).zip(segment.get(1 + 2 * count..4 + 2 * count));
    let Some((fields, band)) = fields.filter(|_| (1..=frame.components.len()).contains(&count)) else {
        return damage("the header of a scan is impossible");
    };
    let mut parts: Vec<Part> = Vec::new();
    for field in fields.chunks_exact(2) {
        let component = frame.components.iter().position(|component| component.id == field[0]);
        let Some(component) = component.filter(|c| parts.iter().all(|part| part.component != *c)) else {
            return damage("a scan is of a component that the frame does not have");
        };
        let table = |tables: &[Option<Huffman>; 4], index: u8| tables.get(usize::from(index)).cloned().flatten();
        parts.push(Part { component, dc: table(&tables.dc, field[1] >> 4), ac: table(&tables.ac, field[1] & 15) });
    }
    let progressive = frame.progressive;
    let (band, high, low) = match progressive {
        true => ([usize::from(band[0]), usize::from(band[1])], u32::from(band[2] >> 4), u32::from(band[2] & 15)),
        false => ([0, 63], 0, 0),
    };
    let one_of_many = band[0] > 0 && parts.len() > 1;
    if progressive && (band[0] > band[1] || band[1] > 63 || low > 13 || one_of_many || (band[0] == 0 && band[1] > 0)) {
        return damage("the band of a scan is impossible");
    }
    Ok(Scan { parts, band, high, low, restart: tables.restart, progressive })
}

/// The samples of a component.
fn plane(component: &Component, frame: &Frame, tables: &Tables) -> Result<Plane, Damage> {
    let Some(table) = &tables.quantisation[component.table] else { return damage("a quantisation table is missing") };
    let pitch = 8 * component.pitch;
    let mut samples = vec![0; 64 * component.coefficients.len()];
    let rows = component.coefficients.chunks_exact(component.pitch);
    for (blocks, samples) in rows.zip(samples.chunks_exact_mut(8 * pitch)) {
        for (x, block) in blocks.iter().enumerate() {
            inverse_dct(block, table, &mut samples[8 * x..], pitch);
        }
    }
    let scale = [0, 1].map(|axis| frame.most[axis] / component.sampling[axis]);
    Ok(Plane { samples, pitch, width: component.size[0], height: component.size[1], scale })
}

/// Whether three components are RGB as they are: libjpeg's rule.
fn is_rgb(frame: &Frame, tables: &Tables) -> bool {
    match (tables.jfif, tables.adobe) {
        (true, _) => false,
        (false, Some(transform)) => transform == 0,
        (false, None) => frame.components.iter().map(|component| component.id).eq(*b"RGB"),
    }
}

/// Writes the pixels, and gives the number of their channels.
fn render(frame: &Frame, tables: &Tables, out: &mut Vec<u8>) -> Result<usize, Damage> {
    let planes = frame.components.iter().map(|c| plane(c, frame, tables)).collect::<Result<Vec<_>, _>>()?;
    let (width, channels) = (frame.width, planes.len().min(3));
    out.clear();
    out.resize(width * frame.height * channels, 0);
    let rgb = is_rgb(frame, tables);
    // libjpeg's rule for four components: those of Adobe's transforms but 0 are luma, chromas and black
    let ycck = tables.adobe.is_some_and(|transform| transform != 0);
    let room = planes.iter().map(|plane| plane.scale[0] * plane.width).max().unwrap_or(0);
    let mut rows = vec![vec![0u8; room]; planes.len()];
    let mut sums = Vec::new();
    for (y, pixels) in out.chunks_exact_mut(width * channels).enumerate() {
        for (plane, row) in planes.iter().zip(&mut rows) {
            plane.full_row(y, &mut sums, row);
        }
        match &rows[..] {
            [a, b, c, black] => {
                if ycck {
                    ycc_to_rgb(&a[..width], &b[..width], &c[..width], pixels);
                    // what stands there is the complement of the inks
                    pixels.iter_mut().for_each(|value| *value = 255 - *value);
                } else {
                    interleave([a, b, c], pixels);
                }
                cmyk_to_rgb(&black[..width], pixels);
            }
            [a, b, c] if rgb => interleave([a, b, c], pixels),
            [a, b, c] => ycc_to_rgb(&a[..width], &b[..width], &c[..width], pixels),
            [grey, ..] => pixels.copy_from_slice(&grey[..width]),
            [] => {}
        }
    }
    Ok(channels)
}

fn interleave([a, b, c]: [&Vec<u8>; 3], pixels: &mut [u8]) {
    for (x, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        pixel.copy_from_slice(&[a[x], b[x], c[x]]);
    }
}
