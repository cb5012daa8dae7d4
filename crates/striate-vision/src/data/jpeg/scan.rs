//! The coefficients of a scan: sequential and progressive Huffman coding (annexes F and G of the standard).

use super::bits::{Bits, Huffman};
use super::{Damage, Frame};

/// From the order of the file to rows of 8.
#[rustfmt::skip]
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// One of the components of a scan.
pub(super) struct Part {
    /// Index in the frame.
    pub component: usize,
    pub dc: Option<Huffman>,
    pub ac: Option<Huffman>,
}

/// What a scan brings.
pub(super) struct Scan {
    pub parts: Vec<Part>,
    /// First and last coefficient, in the order of the file.
    pub band: [usize; 2],
    /// Bit of the earlier and of this scan.
    pub high: u32,
    pub low: u32,
    /// Units between restart markers; 0 for none.
    pub restart: usize,
    pub progressive: bool,
}

const BROKEN: &str = "a code in the scan stands for nothing";

/// What goes from block to block.
#[derive(Default)]
struct State {
    predictions: [i32; 4],
    /// Blocks that follow without anything in the band.
    empty: u32,
}

/// Reads a scan from `at`; gives where it ends.
pub(super) fn read_scan(data: &[u8], at: usize, scan: &Scan, frame: &mut Frame) -> Result<usize, Damage> {
    let mut bits = Bits::new(data, at);
    let mut state = State::default();
    // Alone, a component comes block by block without the padding of the units.
    let single = scan.parts.len() == 1;
    let (columns, rows) = match single {
        true => frame.components[scan.parts[0].component].blocks_alone(),
        false => (frame.units[0], frame.units[1]),
    };
    let mut left = scan.restart;
    for unit in 0..columns * rows {
        if scan.restart > 0 && left == 0 {
            if !bits.restart() {
                return Err(Damage("a restart marker is missing".into()));
            }
            (state, left) = (State::default(), scan.restart);
        }
        left = left.wrapping_sub(1);
        let (x, y) = (unit % columns, unit / columns);
        for (index, part) in scan.parts.iter().enumerate() {
            let component = &mut frame.components[part.component];
            let [h, v] = if single { [1, 1] } else { component.sampling };
            for block in 0..h * v {
                let coefficients = component.block(h * x + block % h, v * y + block / h);
                read_block(&mut bits, scan, part, index, &mut state, coefficients)?;
            }
        }
        if bits.overrun() > 64 {
            return Err(Damage(format!("its scan ends early, at byte {}", bits.end())));
        }
    }
    Ok(bits.end())
}

fn read_block(
    bits: &mut Bits<'_>,
    scan: &Scan,
    part: &Part,
    index: usize,
    state: &mut State,
    block: &mut [i16; 64],
) -> Result<(), Damage> {
    let read = match (scan.progressive, scan.band[0], scan.high) {
        (false, ..) => sequential(bits, part, &mut state.predictions[index], block),
        (true, 0, 0) => first_dc(bits, part, scan.low, &mut state.predictions[index], block),
        (true, 0, _) => {
            block[0] |= i16::from(bits.bit()) << scan.low;
            Some(())
        }
        (true, _, 0) => first_ac(bits, part, scan, &mut state.empty, block),
        (true, ..) => refine_ac(bits, part, scan, &mut state.empty, block),
    };
    read.ok_or_else(|| Damage(BROKEN.into()))
}

#[inline]
fn difference(bits: &mut Bits<'_>, part: &Part) -> Option<i32> {
    let length = u32::from(part.dc.as_ref()?.decode(bits)?);
    (length <= 16).then(|| bits.signed(length))
}

fn sequential(bits: &mut Bits<'_>, part: &Part, prediction: &mut i32, block: &mut [i16; 64]) -> Option<()> {
    *prediction = prediction.wrapping_add(difference(bits, part)?);
    block[0] = *prediction as i16;
    let ac = part.ac.as_ref()?;
    let mut k = 1;
    while k < 64 {
        let symbol = ac.decode(bits)?;
        let (run, length) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if length == 0 {
            if run < 15 {
                break;
            }
            k += 16;
            continue;
        }
        k += run;
        block[usize::from(*ZIGZAG.get(k)?)] = bits.signed(length) as i16;
        k += 1;
    }
    Some(())
}

fn first_dc(bits: &mut Bits<'_>, part: &Part, low: u32, prediction: &mut i32, block: &mut [i16; 64]) -> Option<()> {
    *prediction = prediction.wrapping_add(difference(bits, part)?);
    block[0] = (*prediction << low) as i16;
    Some(())
}

/// How many blocks more are empty, after a symbol of that meaning.
#[inline]
fn empty_run(bits: &mut Bits<'_>, run: usize) -> u32 {
    (1 << run) - 1 + bits.take(run as u32)
}

fn first_ac(bits: &mut Bits<'_>, part: &Part, scan: &Scan, empty: &mut u32, block: &mut [i16; 64]) -> Option<()> {
    if *empty > 0 {
        *empty -= 1;
        return Some(());
    }
    let ac = part.ac.as_ref()?;
    let [mut k, last] = scan.band;
    while k <= last {
        let symbol = ac.decode(bits)?;
        let (run, length) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if length == 0 {
            if run < 15 {
                *empty = empty_run(bits, run);
                break;
            }
            k += 16;
            continue;
        }
        k += run;
        block[usize::from(*ZIGZAG.get(k)?)] = (bits.signed(length) << scan.low) as i16;
        k += 1;
    }
    Some(())
}

/// A further bit of a coefficient that is not 0.
#[inline]
fn refine(bits: &mut Bits<'_>, value: &mut i16, bit: i16) {
    if bits.bit() && *value & bit == 0 {
        *value = value.wrapping_add(if *value >= 0 { bit } else { -bit });
    }
}

fn refine_ac(bits: &mut Bits<'_>, part: &Part, scan: &Scan, empty: &mut u32, block: &mut [i16; 64]) -> Option<()> {
    let bit = 1i16 << scan.low;
    let [mut k, last] = scan.band;
    if *empty == 0 {
        let ac = part.ac.as_ref()?;
        while k <= last {
            let symbol = ac.decode(bits)?;
            let (mut run, length) = (usize::from(symbol >> 4), symbol & 15);
            let mut new = 0;
            match (length, run) {
                (0, 15) => {}
                (0, _) => {
                    *empty = empty_run(bits, run) + 1;
                    break;
                }
                _ => new = if bits.bit() { bit } else { -bit },
            }
            // Skips `run` zeros, refining what is not 0 on the way.
            while k <= last {
                let value = &mut block[usize::from(ZIGZAG[k])];
                if *value != 0 {
                    refine(bits, value, bit);
                } else if run == 0 {
                    *value = new;
                    k += 1;
                    break;
                } else {
                    run -= 1;
                }
                k += 1;
            }
        }
    }
    if *empty > 0 {
        for &at in &ZIGZAG[k..=last] {
            let value = &mut block[usize::from(at)];
            if *value != 0 {
                refine(bits, value, bit);
            }
        }
        *empty -= 1;
    }
    Some(())
}
