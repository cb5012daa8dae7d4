//! Writing archives.

use super::{CENTRAL, END, END_64, LOCAL, LOCAL_SIZE, LOCATOR_64};
use std::io::{self, Write};
use std::path::Path;

/// Writes an archive of stored members, without times, so that its bytes are a function of its contents. Sizes beyond 32 bits stand in the
/// fields of zip64.
pub(crate) struct ArchiveWriter<'a, W> {
    path: &'a Path,
    writer: W,
    offset: u64,
    directory: Vec<u8>,
    count: u64,
    /// Sizes and offsets from here on are too large for 32 bits.
    wide: u64,
}

impl<'a, W: Write> ArchiveWriter<'a, W> {
    pub(crate) fn new(path: &'a Path, writer: W) -> Self {
        ArchiveWriter { path, writer, offset: 0, directory: Vec::new(), count: 0, wide: u64::from(u32::MAX) }
    }

    fn narrow(&self, value: u64) -> [u8; 4] {
        let value = if value < self.wide { value as u32 } else { u32::MAX };
        value.to_le_bytes()
    }

    /// The field of zip64 with those of the values that are too large.
    fn wide_field(&self, values: &[u64]) -> Vec<u8> {
        let wide: Vec<u8> = values.iter().filter(|v| **v >= self.wide).flat_map(|v| v.to_le_bytes()).collect();
        match wide.len() {
            0 => wide,
            length => [&[1, 0][..], &(length as u16).to_le_bytes(), &wide].concat(),
        }
    }

    /// Adds a member.
    pub(crate) fn add(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.add_aligned(name, bytes, 1)
    }

    /// Adds a member whose contents begin on a multiple of `alignment` bytes, at most 64, so that they can be mapped.
    pub(crate) fn add_aligned(&mut self, name: &str, bytes: &[u8], alignment: u64) -> io::Result<()> {
        let name_length = u16::try_from(name.len()).map_err(|_| {
            let message = format!("{}: a name of {} bytes is too long for a zip file", self.path.display(), name.len());
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })?;
        let size = bytes.len() as u64;
        let mut extra = self.wide_field(&[size, size]);
        let begin = self.offset + LOCAL_SIZE + u64::from(name_length) + extra.len() as u64;
        let missing = begin.next_multiple_of(alignment) - begin;
        if missing > 0 {
            // an extra field of its own kind, which is what PyTorch pads with: a head of 4 bytes and the filling
            let fill = if missing >= 4 { missing - 4 } else { missing + alignment - 4 };
            extra.extend([&b"FB"[..], &(fill as u16).to_le_bytes(), &vec![b'Z'; fill as usize]].concat());
        }
        let version: u16 = if size.max(self.offset) < self.wide { 20 } else { 45 };
        // UTF-8 name, stored, 1 January 1980 0:00
        let mut common = [version, 0x800, 0, 0, 0x21].map(u16::to_le_bytes).concat();
        common.extend(crc32fast::hash(bytes).to_le_bytes());
        common.extend([self.narrow(size), self.narrow(size)].concat());
        common.extend(name_length.to_le_bytes());
        let local = [&LOCAL[..], &common, &(extra.len() as u16).to_le_bytes(), name.as_bytes(), &extra].concat();
        self.writer.write_all(&local)?;
        self.writer.write_all(bytes)?;
        let extra = self.wide_field(&[size, size, self.offset]);
        let extra_length = (extra.len() as u16).to_le_bytes();
        // no comment, first disk, no attributes
        self.directory.extend([&CENTRAL[..], &version.to_le_bytes(), &common, &extra_length, &[0; 10]].concat());
        self.directory.extend(self.narrow(self.offset));
        self.directory.extend([name.as_bytes(), &extra].concat());
        self.offset += local.len() as u64 + size;
        self.count += 1;
        Ok(())
    }

    /// Writes the central directory.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let (size, offset, count) = (self.directory.len() as u64, self.offset, self.count);
        self.writer.write_all(&self.directory)?;
        if size.max(offset) >= self.wide || count >= 0xffff {
            let mut end = [&END_64[..], &44u64.to_le_bytes(), &[45, 0, 45, 0], &[0; 8]].concat();
            end.extend([count, count, size, offset].map(u64::to_le_bytes).concat());
            end.extend([&LOCATOR_64[..], &[0; 4], &(offset + size).to_le_bytes(), &1u32.to_le_bytes()].concat());
            self.writer.write_all(&end)?;
        }
        let mut end = END.to_vec();
        let count = u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes();
        end.extend([&[0; 4][..], &count, &count, &self.narrow(size), &self.narrow(offset), &[0; 2]].concat());
        self.writer.write_all(&end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Input;
    use crate::zip::Archive;
    use std::io::Cursor;

    /// With 200 for 4 GiB, so that the fields of zip64 are in use.
    #[test]
    fn what_is_too_large_for_32_bits_stands_in_zip64_fields() {
        for wide in [1, 200, 1000, u64::from(u32::MAX)] {
            let mut bytes = Vec::new();
            let mut writer = ArchiveWriter { wide, ..ArchiveWriter::new(Path::new("a"), &mut bytes) };
            let members: Vec<(String, Vec<u8>)> =
                (0..12).map(|index| (format!("folder/{index}"), vec![index as u8; 37 * index])).collect();
            for (index, (name, contents)) in members.iter().enumerate() {
                writer.add_aligned(name, contents, [1, 8, 64][index % 3]).unwrap();
            }
            writer.finish().unwrap();
            let left = bytes.len() as u64;
            let input = Input { path: Path::new("a"), reader: Cursor::new(&bytes[..]), left };
            let mut archive = Archive::open(input).unwrap();
            assert_eq!(archive.members.len(), members.len());
            for (member, (name, contents)) in archive.members.clone().iter().zip(&members) {
                assert_eq!((&member.name, &archive.read(member).unwrap()), (name, contents), "{wide}");
            }
            let of = |marker: &[u8]| bytes.windows(4).any(|window| window == marker);
            assert_eq!(of(&END_64), wide < 5000, "{wide}");
            let aligned = bytes.windows(74).position(|window| window == [2; 74]).unwrap();
            assert_eq!(aligned % 64, 0, "{wide}");
        }
    }
}
