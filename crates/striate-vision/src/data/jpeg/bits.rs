//! Bits of a scan, and the Huffman codes in them.

/// Codes up to this length are found by one look.
const LOOK: u32 = 9;

/// Reads the bits of a scan up to the next marker. Behind it come zeros, which are counted.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, from the top.
    buffer: u64,
    count: u32,
    padded: u32,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8], at: usize) -> Bits<'a> {
        Bits { data, at, buffer: 0, count: 0, padded: 0 }
    }

    /// At least 57 bits are ready.
    #[inline]
    pub fn refill(&mut self) {
        while self.count <= 56 {
            let byte = match self.data.get(self.at) {
                Some(0xFF) => match self.data.get(self.at + 1) {
                    Some(0) => {
                        self.at += 2;
                        0xFF
                    }
                    Some(0xFF) => {
                        self.at += 1;
                        continue;
                    }
                    _ => self.pad(),
                },
                Some(&byte) => {
                    self.at += 1;
                    byte
                }
                None => self.pad(),
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    fn pad(&mut self) -> u8 {
        self.padded = self.padded.saturating_add(8);
        0
    }

    /// Bits that were taken though the file does not have them.
    pub fn overrun(&self) -> u32 {
        self.padded.saturating_sub(self.count)
    }

    /// The next `n` bits, at most 16, which must be ready.
    #[inline]
    pub fn take(&mut self, n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        let value = (self.buffer >> (64 - n)) as u32;
        self.skip(n);
        value
    }

    #[inline]
    fn skip(&mut self, n: u32) {
        self.buffer <<= n;
        self.count -= n;
    }

    /// One bit; makes ready.
    #[inline]
    pub fn bit(&mut self) -> bool {
        self.refill();
        self.take(1) == 1
    }

    /// A signed value of `n` bits as JPEG has them (table F.1 of the standard).
    #[inline]
    pub fn signed(&mut self, n: u32) -> i32 {
        if n == 0 {
            return 0;
        }
        let value = self.take(n) as i32;
        if value < 1 << (n - 1) { value - (1 << n) + 1 } else { value }
    }

    /// Goes behind the restart marker that must come now; false where there is none.
    pub fn restart(&mut self) -> bool {
        // Only bits that fill the last byte are left; what was read ahead stops at the marker.
        self.refill();
        let mut at = self.at;
        while self.data.get(at) == Some(&0xFF) && self.data.get(at + 1) == Some(&0xFF) {
            at += 1;
        }
        let found = self.data.get(at) == Some(&0xFF) && matches!(self.data.get(at + 1), Some(0xD0..=0xD7));
        if found {
            *self = Bits::new(self.data, at + 2);
        }
        found
    }

    /// Where the bytes stand that follow the scan.
    pub fn end(&self) -> usize {
        self.at
    }
}

/// A table of Huffman codes.
#[derive(Clone)]
pub(super) struct Huffman {
    /// By the next [`LOOK`] bits: length (0 for a longer code) and symbol.
    look: Vec<(u8, u8)>,
    /// By length: the first code behind those of the length, as 16 bits from the top; and what to add to a code for its symbol.
    ends: [u32; 17],
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Huffman {
    /// From the number of codes of each length; `None` where there are more than fit.
    pub fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Huffman> {
        let mut table =
            Huffman { look: vec![(0, 0); 1 << LOOK], ends: [0; 17], offsets: [0; 17], symbols: symbols.to_vec() };
        let (mut code, mut index) = (0u32, 0usize);
        for length in 1..=16u32 {
            let count = u32::from(counts[length as usize - 1]);
            table.offsets[length as usize] = index as i32 - code as i32;
            if code + count > 1 << length {
                return None;
            }
            for _ in 0..count {
                let symbol = *symbols.get(index)?;
                if length <= LOOK {
                    let first = (code << (LOOK - length)) as usize;
                    table.look[first..first + (1 << (LOOK - length))].fill((length as u8, symbol));
                }
                code += 1;
                index += 1;
            }
            table.ends[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }

    /// The next symbol; makes ready, so that 16 bits may be taken after it. `None` for a code that stands for nothing.
    #[inline]
    pub fn decode(&self, bits: &mut Bits<'_>) -> Option<u8> {
        bits.refill();
        let (length, symbol) = self.look[(bits.buffer >> (64 - LOOK)) as usize];
        if length > 0 {
            bits.skip(u32::from(length));
            return Some(symbol);
        }
        let next = (bits.buffer >> 48) as u32;
        let length = (LOOK + 1..=16).find(|&length| next < self.ends[length as usize])?;
        let code = bits.take(length) as i32;
        self.symbols.get((code + self.offsets[length as usize]) as usize).copied()
    }
}
