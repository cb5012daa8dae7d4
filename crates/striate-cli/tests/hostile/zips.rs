//! Zip archives that lie.

use super::Case;
use super::pickles::{good, text};

/// A member as it is written, with all that can be a lie about it.
#[derive(Clone)]
pub struct Entry {
    pub name: Vec<u8>,
    /// In its own header, where that differs.
    pub local_name: Option<Vec<u8>>,
    pub data: Vec<u8>,
    pub method: u16,
    pub flags: u16,
    /// Declared size in the directory.
    pub size: u32,
    /// Declared in its own header.
    pub local_size: u32,
    pub crc: u32,
    pub extra: Vec<u8>,
    /// Where the directory says that it lies.
    pub offset: Option<u32>,
}

impl Entry {
    pub fn new(name: &str, data: &[u8]) -> Entry {
        let mut crc = flate2::Crc::new();
        crc.update(data);
        Entry {
            name: name.as_bytes().to_vec(),
            local_name: None,
            data: data.to_vec(),
            method: 0,
            flags: 0,
            size: data.len() as u32,
            local_size: data.len() as u32,
            crc: crc.sum(),
            extra: Vec::new(),
            offset: None,
        }
    }
}

fn le16(out: &mut Vec<u8>, values: &[u16]) {
    values.iter().for_each(|value| out.extend(value.to_le_bytes()));
}

fn le32(out: &mut Vec<u8>, values: &[u32]) {
    values.iter().for_each(|value| out.extend(value.to_le_bytes()));
}

/// The archive; `end` may change the end record (count, size, offset).
pub fn archive_with(entries: &[Entry], end: impl Fn(&mut [u32; 3])) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for entry in entries {
        let offset = entry.offset.unwrap_or(out.len() as u32);
        let local_name = entry.local_name.as_ref().unwrap_or(&entry.name);
        out.extend(b"PK\x03\x04");
        le16(&mut out, &[20, entry.flags, entry.method, 0, 0x21]);
        le32(&mut out, &[entry.crc, entry.data.len() as u32, entry.local_size]);
        le16(&mut out, &[local_name.len() as u16, 0]);
        out.extend(local_name);
        out.extend(&entry.data);
        directory.extend(b"PK\x01\x02");
        le16(&mut directory, &[20, 20, entry.flags, entry.method, 0, 0x21]);
        le32(&mut directory, &[entry.crc, entry.data.len() as u32, entry.size]);
        le16(&mut directory, &[entry.name.len() as u16, entry.extra.len() as u16, 0, 0, 0]);
        le32(&mut directory, &[0, offset]);
        directory.extend(&entry.name);
        directory.extend(&entry.extra);
    }
    let mut figures = [entries.len() as u32, directory.len() as u32, out.len() as u32];
    end(&mut figures);
    out.extend(directory);
    out.extend(b"PK\x05\x06");
    le16(&mut out, &[0, 0, figures[0] as u16, figures[0] as u16]);
    le32(&mut out, &figures[1..]);
    le16(&mut out, &[0]);
    out
}

pub fn archive(entries: &[Entry]) -> Vec<u8> {
    archive_with(entries, |_| {})
}

/// A file of PyTorch's with this pickle and one storage of four floats.
pub fn pth(pickle: &[u8]) -> Vec<u8> {
    archive(&members(pickle))
}

fn members(pickle: &[u8]) -> Vec<Entry> {
    vec![Entry::new("a/data.pkl", pickle), Entry::new("a/data/0", &[0; 16]), Entry::new("a/version", b"3\n")]
}

/// The good file with one member changed.
fn changed(index: usize, change: impl Fn(&mut Entry)) -> Vec<u8> {
    let mut entries = members(&good());
    change(&mut entries[index]);
    archive(&entries)
}

/// The good file with one more member.
fn with(entry: Entry) -> Vec<u8> {
    let mut entries = members(&good());
    entries.push(entry);
    archive(&entries)
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut writer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// A deflated member that says it is `size` bytes.
fn packed(name: &str, contents: &[u8], size: u32) -> Entry {
    let crc = Entry::new(name, contents).crc;
    Entry { method: 8, size, local_size: size, crc, ..Entry::new(name, &deflate(contents)) }
}

/// With a zip64 end record and its locator before the end record.
fn zip64(record_at: Option<u64>, count: u64, size: u64, offset: u64) -> Vec<u8> {
    let whole = archive_with(&members(&good()), |figures| *figures = [0xffff, u32::MAX, u32::MAX]);
    let end = whole.len() - 22;
    let mut out = whole[..end].to_vec();
    let at = record_at.unwrap_or(out.len() as u64);
    out.extend(b"PK\x06\x06");
    out.extend(44u64.to_le_bytes());
    le16(&mut out, &[45, 45]);
    le32(&mut out, &[0, 0]);
    [count, count, size, offset].iter().for_each(|value| out.extend(value.to_le_bytes()));
    out.extend(b"PK\x06\x07");
    le32(&mut out, &[0]);
    out.extend(at.to_le_bytes());
    le32(&mut out, &[1]);
    out.extend(&whole[end..]);
    out
}

/// An archive with the end record of another one, which has an `evil` pickle, in its comment.
fn second_end() -> Vec<u8> {
    let mut first = pth(&good());
    let other = archive(&[Entry::new("a/data.pkl", b"cos\nsystem\n.")]);
    let length = first.len();
    first[length - 2..].copy_from_slice(&(other.len() as u16).to_le_bytes());
    first.extend(other);
    first
}

pub fn cases() -> Vec<Case> {
    let good_file = || pth(&good());
    let half = good_file().len() / 2;
    let zeros = vec![0; 64 << 20];
    let bomb = packed("w.npy", &zeros, zeros.len() as u32);
    let order = |text: &[u8]| with(Entry::new("a/byteorder", text));
    let two = |second: &str| archive(&[Entry::new("a/data.pkl", &good()), Entry::new(second, &good())]);
    let mut cases = vec![
        Case::new(
            "compressed-pickle.pth",
            archive(&[packed("a/data.pkl", &good(), good().len() as u32)]),
            &["compressed", "a/data.pkl"],
        ),
        Case::new(
            "compressed-storage.pth",
            changed(1, |entry| *entry = packed("a/data/0", &[0; 16], 16)),
            &["compressed", "a/data/0"],
        ),
        Case::new("huge-pickle.pth", archive(&[packed("a/data.pkl", b"N.", 1 << 30)]), &["a/data.pkl", "1073741824"]),
        Case::new("bomb.npz", archive(std::slice::from_ref(&bomb)), &["w.npy"]),
        Case::new(
            "bomb-that-lies.npz",
            archive(&[Entry { size: 64, local_size: 64, ..bomb.clone() }]),
            &["w.npy", "64"],
        ),
        Case::new(
            "bombs.npz",
            archive(&(0..8).map(|i| packed(&format!("{i}.npy"), &zeros[..8 << 20], 8 << 20)).collect::<Vec<_>>()),
            &[".npy"],
        ),
        Case::new("overlap.pth", changed(1, |entry| entry.offset = Some(0)), &["byte 0"]),
        Case::new("overlap-inside.pth", changed(1, |entry| entry.offset = Some(40)), &["byte"]),
        Case::new("into-directory.pth", changed(2, |entry| entry.offset = Some(100_000)), &["a/version"]),
        Case::new("traversal.pth", with(Entry::new("../../evil", b"x")), &["../../evil", "leads out"]),
        Case::new("traversal-inside.pth", with(Entry::new("a/../../evil", b"x")), &["a/../../evil"]),
        Case::new("absolute.pth", with(Entry::new("/etc/cron.d/evil", b"x")), &["/etc/cron.d/evil"]),
        Case::new("backslash.pth", with(Entry::new("..\\evil", b"x")), &["..\\evil"]),
        Case::new("drive.pth", with(Entry::new("C:evil", b"x")), &["C:evil"]),
        Case::new("nameless.pth", with(Entry::new("", b"x")), &["leads out"]),
        Case::new("nul-in-name.pth", with(Entry::new("a/data\0", b"x")), &["\\u{0}"]),
        Case::new("line-in-name.pth", with(Entry::new("../a\nerror: b", b"x")), &["../a\\nerror: b"]),
        Case::new("not-utf-8.pth", changed(2, |entry| entry.name = b"a/\xff".to_vec()), &["not UTF-8"]),
        Case::new("duplicate.pth", with(Entry::new("a/data.pkl", b"N.")), &["two members", "a/data.pkl"]),
        Case::new("duplicate-storage.pth", with(Entry::new("a/data/0", &[1; 16])), &["two members", "a/data/0"]),
        Case::new("two-pickles.pth", two("b/data.pkl"), &["2 members named data.pkl"]),
        Case::new("deep-pickle.pth", archive(&[Entry::new("a/b/data.pkl", &good())]), &["data.pkl"]),
        Case::new("no-pickle.pth", archive(&[Entry::new("a/version", b"3\n")]), &["data.pkl"]),
        Case::new("half.pth", good_file()[..half].to_vec(), &["cut off"]),
        Case::new("cut-in-end.pth", good_file()[..good_file().len() - 3].to_vec(), &["cut off"]),
        Case::new("count-lies.pth", archive_with(&members(&good()), |figures| figures[0] = 9), &["central directory"]),
        Case::new(
            "size-lies.pth",
            archive_with(&members(&good()), |figures| figures[1] = 1 << 20),
            &["central directory"],
        ),
        Case::new(
            "huge-directory.pth",
            archive_with(&members(&good()), |figures| figures[1] = 1 << 31),
            &["central directory"],
        ),
        Case::new(
            "offset-lies.pth",
            archive_with(&members(&good()), |figures| figures[2] = 1 << 30),
            &["central directory"],
        ),
        Case::new(
            "offset-of-a-member.pth",
            archive_with(&members(&good()), |figures| figures[2] = 0),
            &["central directory"],
        ),
        Case::new(
            "other-name-inside.pth",
            changed(0, |entry| entry.local_name = Some(b"a/data.pkX".to_vec())),
            &["a/data.pkl", "a/data.pkX"],
        ),
        Case::new("other-size-inside.pth", changed(0, |entry| entry.local_size = 5), &["a/data.pkl", "size"]),
        Case::new(
            "short-member.pth",
            changed(0, |entry| {
                entry.size += 4;
                entry.local_size += 4
            }),
            &["a/data.pkl"],
        ),
        Case::new("wrong-crc.pth", changed(1, |entry| entry.crc ^= 1), &["a/data/0", "checksum"]),
        Case::new("encrypted.pth", changed(0, |entry| entry.flags = 1), &["encryption", "a/data.pkl"]),
        Case::new("method-99.pth", changed(0, |entry| entry.method = 99), &["a/data.pkl"]),
        Case::new(
            "zip64-cut.pth",
            changed(1, |entry| {
                entry.size = u32::MAX;
                entry.extra = vec![1, 0, 4, 0, 1, 1, 1, 1]
            }),
            &["zip64 field is cut off"],
        ),
        Case::new(
            "zip64-huge.pth",
            changed(1, |entry| {
                entry.size = u32::MAX;
                entry.extra = [&[1, 0, 8, 0][..], &u64::MAX.to_le_bytes()].concat()
            }),
            &["a/data/0"],
        ),
        Case::new(
            "extra-cut.pth",
            changed(1, |entry| entry.extra = vec![7, 0, 200, 0, 1]),
            &["extra field is cut off"],
        ),
        Case::new("zip64-nowhere.pth", zip64(Some(1 << 60), 3, 100, 0), &["zip64 end record"]),
        Case::new("zip64-no-record.pth", zip64(Some(0), 3, 100, 0), &["zip64"]),
        Case::new("zip64-count.pth", zip64(None, 1 << 40, 100, 0), &["number of members"]),
        Case::new("zip64-size.pth", zip64(None, 3, 1 << 62, 0), &["central directory"]),
        Case::new("zip64-offset.pth", zip64(None, 3, 100, u64::MAX - 10), &["central directory"]),
        Case::new("byte-order.pth", order(b"middle"), &["a/byteorder", "middle"]),
        Case::new("byte-order-long.pth", order(&[b'l'; 100_000]), &["a/byteorder", "100000"]),
        Case::new("script.pth", with(Entry::new("a/constants.pkl", b"N.")), &["TorchScript"]),
        Case::new("second-end.pth", second_end(), &[]),
        Case::new("no-npy.npz", archive(&[Entry::new("w.npy", b"hello, world")]), &["w.npy"]),
        Case::new(
            "other-member.npz",
            archive(&[Entry::new("w.npy", b""), Entry::new("run.sh", b"#!/bin/sh\n")]),
            &["run.sh"],
        ),
        Case::new("two-names.npz", archive(&[Entry::new("w.npy", &npy()), Entry::new("w", &npy())]), &["w"]),
    ];
    let many: Vec<Entry> = (0..70_000).map(|index| Entry::new(&format!("{index}.npy"), b"")).collect();
    cases.push(Case::new("many-members.npz", archive(&many), &[]));
    cases.push(Case::new("only-end.pth", b"PK\x05\x06".to_vec(), &["cut off"]));
    cases.push(Case::new("only-text.pth", text("hello"), &[]));
    cases
}

fn npy() -> Vec<u8> {
    striate::io::npy_bytes(std::path::Path::new("w"), &striate::graph::Array::scalar(1.0f32)).unwrap()
}
