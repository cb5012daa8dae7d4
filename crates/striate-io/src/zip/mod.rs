//! The part of the zip format that `.npz` and PyTorch files use: stored and deflated members, zip64 when reading.
//!
//! The central directory counts. Where a local header says otherwise, where members overlap or share a name, or where a name leads out
//! of the archive, two readers could see two different files: such archives are refused.

mod write;

use crate::input::{Input, ReadSeek};
use crate::{Error, Result};
use std::collections::HashSet;
use std::io::{Read, SeekFrom};
use std::path::Path;

pub(crate) use write::ArchiveWriter;

/// Most members, and most bytes of central directory, that are read.
const MAX_MEMBERS: u64 = 65_536;
const MAX_DIRECTORY: u64 = 16 << 20;
/// Most bytes that the deflated members of an archive may become together, beyond `MAX_RATIO` times its size. What is smaller than that by
/// deflation is next to nothing but zeros, or made to fill the memory.
const FREE: u64 = 16 << 20;
const MAX_RATIO: u64 = 64;

const END: [u8; 4] = *b"PK\x05\x06";
const END_64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const END_SIZE: usize = 22;
const LOCAL_SIZE: u64 = 30;

/// One member, as the central directory has it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub name: String,
    method: u16,
    flags: u16,
    crc: u32,
    compressed: u64,
    size: u64,
    offset: u64,
}

/// An archive open for reading.
pub(crate) struct Archive<'a, R> {
    input: Input<'a, R>,
    length: u64,
    /// What the deflated members may still become.
    inflatable: u64,
    pub members: Vec<Member>,
}

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u16_at(bytes, at) | u16_at(bytes, at + 2) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u32_at(bytes, at) | u32_at(bytes, at + 4) << 32
}

impl Member {
    /// Bytes of its contents, as declared.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

impl<'a, R: ReadSeek> Archive<'a, R> {
    /// Reads the central directory.
    pub(crate) fn open(input: Input<'a, R>) -> Result<Self> {
        let length = input.left;
        let inflatable = length.saturating_mul(MAX_RATIO).saturating_add(FREE);
        let mut archive = Archive { input, length, inflatable, members: Vec::new() };
        let (count, size, offset) = archive.find_directory()?;
        for (what, value, limit) in
            [("the number of members", count, MAX_MEMBERS), ("the central directory", size, MAX_DIRECTORY)]
        {
            if value > limit {
                return Err(Error::too_large(archive.input.path, what, value, limit));
            }
        }
        let directory = archive.read_at(offset, size, "the central directory")?;
        let mut rest = &directory[..];
        for _ in 0..count {
            let member = parse_member(&mut rest).map_err(|why| archive.malformed(why))?;
            archive.members.push(member);
        }
        if !rest.is_empty() {
            let why = format!("the central directory has {count} members, and {} bytes behind them", rest.len());
            return Err(archive.malformed(why));
        }
        archive.check_members(offset)?;
        Ok(archive)
    }

    /// Names that differ and stay inside, members that lie one after the other before the central directory.
    fn check_members(&self, directory: u64) -> Result<()> {
        let mut names = HashSet::new();
        let mut order: Vec<&Member> = Vec::with_capacity(self.members.len());
        for member in &self.members {
            let name = &member.name;
            if leads_out(name) {
                return Err(self.malformed(format!("the name of the member `{name}` leads out of the archive")));
            }
            if !names.insert(name) {
                return Err(self.malformed(format!("two members are named `{name}`")));
            }
            order.push(member);
        }
        order.sort_by_key(|member| member.offset);
        let mut ends = order.iter().skip(1).map(|member| member.offset).chain([directory]);
        for member in &order {
            let end = ends.next().unwrap_or(directory);
            // at least its header and its data
            let needs = (LOCAL_SIZE + member.name.len() as u64).saturating_add(member.compressed);
            if member.offset.saturating_add(needs) > end {
                let (name, offset) = (&member.name, member.offset);
                let why = format!("member `{name}` at byte {offset} needs {needs} bytes, but byte {end} is another's");
                return Err(self.malformed(why));
            }
        }
        Ok(())
    }

    /// Bytes of the file.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// For messages.
    pub(crate) fn path(&self) -> &'a Path {
        self.input.path
    }

    fn malformed(&self, why: impl Into<String>) -> Error {
        Error::malformed(self.input.path, "zip", why)
    }

    fn read_at(&mut self, offset: u64, length: u64, what: &str) -> Result<Vec<u8>> {
        if offset > self.length {
            let why = format!("{what} begins at byte {offset}, the file has {}", self.length);
            return Err(self.malformed(why));
        }
        self.input.reader.seek(SeekFrom::Start(offset)).map_err(Error::io(self.input.path, "read"))?;
        self.input.left = self.length - offset;
        self.input.take(length, what)
    }

    /// Number of members, size and offset of the central directory.
    fn find_directory(&mut self) -> Result<(u64, u64, u64)> {
        // a comment of at most 65,535 bytes may follow the end record
        let tail_at = self.length.saturating_sub(END_SIZE as u64 + 65_535);
        let tail = self.read_at(tail_at, self.length - tail_at, "the end of the archive")?;
        let is_end =
            |at: &usize| tail[*at..].starts_with(&END) && u16_at(&tail, at + 20) == (tail.len() - at - END_SIZE) as u64;
        let last = tail.len().checked_sub(END_SIZE);
        let Some(at) = last.and_then(|last| (0..=last).rev().find(is_end)) else {
            return Err(self.malformed("there is no central directory; not a zip file, or cut off"));
        };
        let end = &tail[at..];
        let (count, size, offset) = (u16_at(end, 10), u32_at(end, 12), u32_at(end, 16));
        if count != 0xffff && size != 0xffff_ffff && offset != 0xffff_ffff {
            return Ok((count, size, offset));
        }
        let Some(locator_at) = (tail_at + at as u64).checked_sub(20) else { return Ok((count, size, offset)) };
        let locator = self.read_at(locator_at, 20, "the zip64 locator")?;
        if !locator.starts_with(&LOCATOR_64) {
            return Ok((count, size, offset));
        }
        let end = self.read_at(u64_at(&locator, 8), 56, "the zip64 end record")?;
        if !end.starts_with(&END_64) {
            return Err(self.malformed("the zip64 locator points to no zip64 end record"));
        }
        Ok((u64_at(&end, 32), u64_at(&end, 40), u64_at(&end, 48)))
    }

    /// The contents of a member that must not be compressed. PyTorch compresses none, and a few bytes that unpack to gigabytes need
    /// not be told from others.
    pub(crate) fn read_stored(&mut self, member: &Member) -> Result<Vec<u8>> {
        if member.method != 0 {
            let instead = "PyTorch stores its members as they are; pack the files again with `zip -0`";
            return Err(Error::unsupported(self.input.path, format!("a compressed member ({})", member.name), instead));
        }
        self.read(member)
    }

    /// What the local header says must be what the directory says, as far as it says anything.
    fn check_local(&mut self, member: &Member, local: &[u8]) -> Result<()> {
        let disagree = |what: &str, here: u64, there: u64| {
            let name = &member.name;
            let why = format!("member `{name}`: its own header has {what} {here}, the directory has {there}");
            Err(Error::malformed(self.input.path, "zip", why))
        };
        let method = u16_at(local, 8);
        if method != u64::from(member.method) {
            return disagree("compression method", method, member.method.into());
        }
        // bit 3: the sizes follow the data; all ones: they stand in an extra field
        if u16_at(local, 6) & 8 == 0 {
            for (what, at, there) in [("size", 22, member.size), ("compressed size", 18, member.compressed)] {
                let here = u32_at(local, at);
                if here != 0xffff_ffff && here != there {
                    return disagree(what, here, there);
                }
            }
        }
        let length = u16_at(local, 26);
        let name = self.read_at(member.offset + LOCAL_SIZE, length, &member.name)?;
        if name != member.name.as_bytes() {
            let why =
                format!("member `{}` is named `{}` in its own header", member.name, String::from_utf8_lossy(&name));
            return Err(self.malformed(why));
        }
        Ok(())
    }

    /// The contents of a member, checked against its CRC.
    pub(crate) fn read(&mut self, member: &Member) -> Result<Vec<u8>> {
        let path = self.input.path;
        let unsupported = |what: String| {
            let instead = "save it again uncompressed and unencrypted";
            Error::unsupported(path, format!("{what} (member {})", member.name), instead)
        };
        if member.flags & 1 != 0 {
            return Err(unsupported("encryption".into()));
        }
        let local = self.read_at(member.offset, LOCAL_SIZE, &member.name)?;
        if !local.starts_with(&LOCAL) {
            return Err(self.malformed(format!("member {} is not where the directory says", member.name)));
        }
        self.check_local(member, &local)?;
        let start = member.offset + LOCAL_SIZE + u16_at(&local, 26) + u16_at(&local, 28);
        let packed = self.read_at(start, member.compressed, &member.name)?;
        let bytes = match member.method {
            0 => packed,
            8 if member.size > self.inflatable => {
                let what = format!("the size of member {} beside that of the archive, uncompressed,", member.name);
                return Err(Error::too_large(path, what, member.size, self.inflatable));
            }
            8 => {
                self.inflatable -= member.size;
                // grows with what comes out, not with what is declared
                let mut bytes = Vec::new();
                let inflater = flate2::read::DeflateDecoder::new(&packed[..]);
                let done = inflater.take(member.size + 1).read_to_end(&mut bytes);
                done.map_err(|e| self.malformed(format!("member {}: {e}", member.name)))?;
                bytes
            }
            other => return Err(unsupported(format!("compression method {other}"))),
        };
        if bytes.len() as u64 != member.size {
            let why = format!("member {} declares {} bytes, it has {}", member.name, member.size, bytes.len());
            return Err(self.malformed(why));
        }
        let computed = crc32fast::hash(&bytes);
        if computed != member.crc {
            return Err(Error::checksum(path, format!("member {}", member.name), member.crc, computed));
        }
        Ok(bytes)
    }
}

/// Whether a name would lead out of the folder into which an archive is unpacked, on one system or another.
pub(crate) fn leads_out(name: &str) -> bool {
    let drive = matches!(name.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    name.is_empty()
        || drive
        || name.starts_with('/')
        || name.contains(['\\', '\0'])
        || name.split('/').any(|p| p == "..")
}

/// Takes one entry off the central directory.
fn parse_member(rest: &mut &[u8]) -> Result<Member, String> {
    let cut = "the central directory is cut off";
    let fixed = rest.get(..46).ok_or(cut)?;
    if !fixed.starts_with(&CENTRAL) {
        return Err("the central directory is damaged".into());
    }
    let [name, extra, comment] = [28, 30, 32].map(|at| u16_at(fixed, at) as usize);
    let variable = rest.get(46..46 + name + extra + comment).ok_or(cut)?;
    let (name, mut extra) = (&variable[..name], &variable[name..name + extra]);
    let mut member = Member {
        name: String::from_utf8(name.to_vec()).map_err(|_| "a member's name is not UTF-8")?,
        flags: u16_at(fixed, 8) as u16,
        method: u16_at(fixed, 10) as u16,
        crc: u32_at(fixed, 16) as u32,
        compressed: u32_at(fixed, 20),
        size: u32_at(fixed, 24),
        offset: u32_at(fixed, 42),
    };
    // The zip64 field has, in this order, those that are all ones above.
    while extra.len() >= 4 {
        let (id, length) = (u16_at(extra, 0), u16_at(extra, 2) as usize);
        let mut field = extra.get(4..4 + length).ok_or("an extra field is cut off")?;
        if id == 1 {
            for value in [&mut member.size, &mut member.compressed, &mut member.offset] {
                if *value == 0xffff_ffff {
                    *value = u64_at(field.get(..8).ok_or("a zip64 field is cut off")?, 0);
                    field = &field[8..];
                }
            }
        }
        extra = &extra[4 + length..];
    }
    *rest = &rest[46 + variable.len()..];
    Ok(member)
}
