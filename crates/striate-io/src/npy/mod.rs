//! NumPy's `.npy`: one array, its header a Python dictionary.

mod write;

use crate::bytes::{self, Stored};
use crate::input::{self, Input};
use crate::{Error, Result};
use std::io::Read;
use std::path::Path;
use striate_graph::{Array, DType};

pub(crate) use write::header;
pub use write::{npy_bytes, write_npy};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header that is read, in bytes. NumPy's own is below 200 for any plain array.
const MAX_HEADER: u64 = 65_535;

/// Reads a `.npy` file: any rank, empty too, float16/32/64, signed and unsigned integers, bool, either byte order, row- or
/// column-major. Unsigned 16- and 32-bit integers become i32 and i64, u64 becomes i64 if all values fit.
///
/// # Errors
/// Names the file: not a `.npy`, cut off, or longer than its header says; structured, complex, text and object arrays are
/// refused by name.
///
/// ```
/// use striate_graph::Array;
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("x.npy");
/// striate_io::write_npy(&path, &Array::from_vec([2, 1], vec![1i64, 2])?)?;
/// assert_eq!(striate_io::read_npy(&path)?.shape().dims(), [2, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_npy(path: &Path) -> Result<Array> {
    read(input::open(path)?)
}

/// Reads `.npy` bytes from memory; `name` stands for the file in errors.
///
/// # Errors
/// As [`read_npy`].
pub fn parse_npy(bytes: &[u8], name: &Path) -> Result<Array> {
    read(Input { path: name, reader: bytes, left: bytes.len() as u64 })
}

pub(crate) fn read<R: Read>(mut input: Input<'_, R>) -> Result<Array> {
    let path = input.path;
    let [m0, m1, m2, m3, m4, m5, major, minor] = input.array("the magic number of .npy")?;
    if [m0, m1, m2, m3, m4, m5] != *MAGIC {
        return Err(Error::malformed(path, "npy", "the first bytes are not those of a .npy file"));
    }
    let length = match (major, minor) {
        (1, 0) => u64::from(u16::from_le_bytes(input.array("the header's length")?)),
        (2 | 3, 0) => u64::from(u32::from_le_bytes(input.array("the header's length")?)),
        _ => return Err(Error::malformed(path, "npy", format!("version {major}.{minor}, known are 1.0, 2.0 and 3.0"))),
    };
    if length > MAX_HEADER {
        return Err(Error::too_large(path, "the header's length", length, MAX_HEADER));
    }
    let header = input.take(length, "the header")?;
    let header = String::from_utf8(header).map_err(|_| Error::malformed(path, "npy header", "is not text"))?;
    let header = parse_header(&header).map_err(|why| Error::malformed(path, "npy header", why))?;
    let (stored, big_endian) = stored(path, &header.descr)?;
    let wanted = bytes::check_shape(&header.shape, stored).map_err(|why| Error::malformed(path, "npy header", why))?;
    let mut data = input.take(wanted as u64, "the data")?;
    if input.left > 0 {
        let why = format!("{} bytes follow the {wanted} of the array; the header is wrong", input.left);
        return Err(Error::malformed(path, "npy", why));
    }
    if header.fortran_order && header.shape.len() > 1 {
        data = bytes::fortran_to_row_major(&data, &header.shape, stored.size());
    }
    bytes::decode(stored, &header.shape, &data, big_endian).map_err(|why| Error::malformed(path, "npy", why))
}

/// `<f4` and its like: type, and whether big-endian.
fn stored(path: &Path, descr: &str) -> Result<(Stored, bool)> {
    let mut letters = descr.chars();
    let order = letters.next();
    let stored = match letters.as_str() {
        "f2" => Stored::As(DType::F16),
        "f4" => Stored::As(DType::F32),
        "f8" => Stored::As(DType::F64),
        "i1" => Stored::As(DType::I8),
        "i2" => Stored::As(DType::I16),
        "i4" => Stored::As(DType::I32),
        "i8" => Stored::As(DType::I64),
        "u1" => Stored::As(DType::U8),
        "b1" => Stored::As(DType::Bool),
        "u2" => Stored::U16,
        "u4" => Stored::U32,
        "u8" => Stored::U64,
        _ => return Err(unsupported(path, descr)),
    };
    match order {
        Some('<' | '|') => Ok((stored, false)),
        Some('>') => Ok((stored, true)),
        Some('=') => Ok((stored, cfg!(target_endian = "big"))),
        _ => Err(unsupported(path, descr)),
    }
}

fn unsupported(path: &Path, descr: &str) -> Error {
    Error::unsupported(path, format!("the dtype {descr:?}"), "save it with .astype(numpy.float32)")
}

struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

/// Parses `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`.
fn parse_header(text: &str) -> Result<Header, String> {
    let mut text = Literal(text);
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    text.expect('{')?;
    while !text.accept('}') {
        let key = text.string()?;
        text.expect(':')?;
        match key {
            "descr" if text.peek() == Some('[') => return Err("structured arrays are not supported".into()),
            "descr" => descr = Some(text.string()?.to_string()),
            "fortran_order" => fortran_order = Some(text.boolean()?),
            "shape" => shape = Some(text.tuple()?),
            other => return Err(format!("unknown key '{other}'")),
        }
        if !text.accept(',') {
            text.expect('}')?;
            break;
        }
    }
    if text.peek().is_some() {
        return Err(format!("something follows the dictionary: {:?}", excerpt(text.0)));
    }
    let missing = |key| move || format!("the key '{key}' is missing");
    Ok(Header {
        descr: descr.ok_or_else(missing("descr"))?,
        fortran_order: fortran_order.ok_or_else(missing("fortran_order"))?,
        shape: shape.ok_or_else(missing("shape"))?,
    })
}

/// What is left of a Python literal.
struct Literal<'a>(&'a str);

impl<'a> Literal<'a> {
    fn peek(&mut self) -> Option<char> {
        self.0 = self.0.trim_start();
        self.0.chars().next()
    }

    fn accept(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.0 = &self.0[wanted.len_utf8()..];
        }
        found
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.accept(wanted) { Ok(()) } else { Err(format!("expected '{wanted}' before {:?}", excerpt(self.0))) }
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let quote = self.peek().filter(|c| matches!(c, '\'' | '"'));
        let quote = quote.ok_or_else(|| format!("expected a string before {:?}", excerpt(self.0)))?;
        let (inside, rest) = self.0[1..].split_once(quote).ok_or("a string does not end")?;
        self.0 = rest;
        Ok(inside)
    }

    fn boolean(&mut self) -> Result<bool, String> {
        self.peek();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.0.strip_prefix(word) {
                self.0 = rest;
                return Ok(value);
            }
        }
        Err(format!("expected True or False before {:?}", excerpt(self.0)))
    }

    fn tuple(&mut self) -> Result<Vec<usize>, String> {
        self.expect('(')?;
        let mut sizes = Vec::new();
        while !self.accept(')') {
            self.peek();
            let digits = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
            let (number, rest) = self.0.split_at(digits);
            sizes.push(number.parse().map_err(|_| format!("expected a size before {:?}", excerpt(self.0)))?);
            // Python 2 wrote 3L
            self.0 = rest.strip_prefix('L').unwrap_or(rest);
            if !self.accept(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(sizes)
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(20).collect()
}
