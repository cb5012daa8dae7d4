//! Masks as runs, and COCO's text for them.
//!
//! The pixels of a picture are counted column by column, each from top to bottom. A mask is then the lengths of its runs, first of
//! nothing, then of the thing, in turn. The text has a number for each length, from the fourth on what it is more than the last but one;
//! a number has groups of five bits, the lowest first, each a letter from `0` on, with 32 added where another group follows; the
//! highest bit of the last group is the sign.

use super::annotations::{Rle, RleCounts};

/// Why a shape cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// A letter that is none of COCO's.
    #[error("letter {position} of `counts` is {letter:?}; they go from '0' to 'o'")]
    Letter {
        /// Which, from 1.
        position: usize,
        /// The letter.
        letter: char,
    },
    /// A text that ends within a number.
    #[error("`counts` ends within a number: it was cut off")]
    Unfinished,
    /// A run whose length cannot be.
    #[error(
        "number {position} of `counts` makes a run of {length} pixels; runs have 0 pixels and more, together {pixels}"
    )]
    Length {
        /// Which, from 1.
        position: usize,
        /// What it comes to.
        length: i64,
        /// Pixels of the mask.
        pixels: u64,
    },
    /// Runs that are not as many pixels as the mask has.
    #[error("its runs have {sum} pixels, its size of {height}x{width} (height x width) has {}", u64::from(*height) * u64::from(*width))]
    Sum {
        /// All lengths.
        sum: u64,
        /// By `size`.
        height: u32,
        /// By `size`.
        width: u32,
    },
    /// A mask that is not as large as its picture.
    #[error("it is a mask of {}x{} (width x height), its picture has {}x{}", mask[1], mask[0], picture[1], picture[0])]
    Size {
        /// Height and width of the mask.
        mask: [usize; 2],
        /// Height and width of the picture.
        picture: [usize; 2],
    },
    /// An outline that encloses nothing.
    #[error("its polygon {polygon} {why}; a polygon is a list x1, y1, x2, y2, … of at least three points in pixels")]
    Polygon {
        /// Which, from 1.
        polygon: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No outline at all.
    #[error("its list of polygons is empty")]
    Empty,
}

/// Which pixels of a picture belong to a thing, as runs in memory.
///
/// ```
/// use striate_vision::detection::Mask;
/// // A picture of 3 rows and 4 columns; the thing takes the two columns in the middle.
/// let mask = Mask::of([3, 4], [1, 0, 3, 3], |_, _| true);
/// assert_eq!((mask.area(), mask.contains(1, 2), mask.contains(3, 0)), (6, true, false));
/// let rle = mask.to_rle();
/// assert_eq!(serde_json::to_string(&rle)?, r#"{"size":[3,4],"counts":"363"}"#);
/// assert_eq!(Mask::of_rle(&rle)?, mask);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    size: [usize; 2],
    /// Where each run ends, counted as the module's text says.
    ends: Vec<u32>,
}

impl Mask {
    /// The pixels (x, y) of the window `[x1, y1, x2, y2]` that belong, in a picture of this height and width. What of the window lies
    /// beside the picture is left out.
    pub fn of(size: [usize; 2], window: [usize; 4], belongs: impl Fn(usize, usize) -> bool) -> Mask {
        let [height, width] = size;
        let [x1, y1, x2, y2] = window;
        let mut ends: Vec<u32> = Vec::new();
        for x in x1..x2.min(width) {
            for y in (y1..y2.min(height)).filter(|&y| belongs(x, y)) {
                let place = (x * height + y) as u32;
                match ends.last_mut() {
                    Some(end) if *end == place => *end += 1,
                    _ => ends.extend([place, place + 1]),
                }
            }
        }
        let all = (height * width) as u32;
        if ends.last() != Some(&all) {
            ends.push(all);
        }
        Mask { size, ends }
    }

    /// The mask of a file. What is allocated is as much as the file has of it, whatever size it declares.
    ///
    /// # Errors
    /// [`ShapeError`] for a text that is none, or runs that are not as many pixels as the size says.
    pub fn of_rle(rle: &Rle) -> Result<Mask, ShapeError> {
        let [height, width] = rle.size;
        let pixels = u64::from(height) * u64::from(width);
        let mut runs = Runs { ends: Vec::new(), pixels };
        match &rle.counts {
            RleCounts::Plain(lengths) => lengths.iter().try_for_each(|&length| runs.push(length.into()))?,
            RleCounts::Text(text) => {
                let mut letters = text.chars().enumerate();
                let mut lengths = [0i64; 2];
                while let Some(number) = next_number(&mut letters)? {
                    // The first three are as they are.
                    let length = if runs.ends.len() > 2 { lengths[0] + number } else { number };
                    runs.push(length)?;
                    lengths = [lengths[1], length];
                }
            }
        }
        let sum = runs.ends.last().map_or(0, |end| u64::from(*end));
        if sum != pixels {
            return Err(ShapeError::Sum { sum, height, width });
        }
        Ok(Mask { size: rle.size.map(|side| side as usize), ends: runs.ends })
    }

    /// As COCO's files have it, compressed: to the letter what pycocotools' `encode` gives.
    pub fn to_rle(&self) -> Rle {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        let lengths: Vec<i64> = starts.zip(&self.ends).map(|(start, end)| i64::from(*end) - i64::from(start)).collect();
        let mut text = String::new();
        for (index, length) in lengths.iter().enumerate() {
            push_number(&mut text, if index > 2 { length - lengths[index - 2] } else { *length });
        }
        Rle { size: self.size.map(|side| side as u32), counts: RleCounts::Text(text) }
    }

    /// Height and width of the picture.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Whether a pixel belongs; those beside the picture do not.
    pub fn contains(&self, x: usize, y: usize) -> bool {
        let [height, width] = self.size;
        // Ends before the pixel: after the first one the thing begins.
        let before = |place: usize| self.ends.partition_point(|&end| end as usize <= place);
        x < width && y < height && before(x * height + y) % 2 == 1
    }

    /// Pixels of the thing.
    pub fn area(&self) -> usize {
        self.runs().map(|[start, end]| end - start).sum()
    }

    /// The thing's pixels `[x, y]`, column by column.
    pub fn pixels(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
        let height = self.size[0].max(1);
        self.runs().flat_map(move |[start, end]| (start..end).map(move |place| [place / height, place % height]))
    }

    /// First and last place of the runs of the thing.
    fn runs(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
        self.ends.chunks_exact(2).map(|run| [run[0] as usize, run[1] as usize])
    }
}

/// Runs that are read.
struct Runs {
    ends: Vec<u32>,
    /// As many as there may be together.
    pixels: u64,
}

impl Runs {
    fn push(&mut self, length: i64) -> Result<(), ShapeError> {
        let start = self.ends.last().copied().unwrap_or(0);
        let end = i64::from(start).checked_add(length).filter(|end| length >= 0 && *end as u64 <= self.pixels);
        let position = self.ends.len() + 1;
        let refused = || ShapeError::Length { position, length, pixels: self.pixels };
        self.ends.push(end.and_then(|end| u32::try_from(end).ok()).ok_or_else(refused)?);
        Ok(())
    }
}

/// Bits of a group, and how many groups a number of 32 bits and its sign may have.
const BITS: u32 = 5;
const MOST_GROUPS: u32 = 7;

/// The next number of COCO's text; nothing at its end.
fn next_number(letters: &mut impl Iterator<Item = (usize, char)>) -> Result<Option<i64>, ShapeError> {
    let mut number = 0i64;
    for group in 0..=MOST_GROUPS {
        let Some((index, letter)) = letters.next() else {
            return if group == 0 { Ok(None) } else { Err(ShapeError::Unfinished) };
        };
        let wrong = ShapeError::Letter { position: index + 1, letter };
        let bits = (letter as u32).checked_sub('0' as u32).filter(|bits| *bits < 64 && group < MOST_GROUPS);
        let bits = i64::from(bits.ok_or(wrong)?);
        number |= (bits & 31) << (BITS * group);
        if bits & 32 == 0 {
            let sign = if bits & 16 != 0 { -1 << (BITS * (group + 1)) } else { 0 };
            return Ok(Some(number | sign));
        }
    }
    Err(ShapeError::Unfinished)
}

/// Writes a number as COCO's text has it.
fn push_number(text: &mut String, mut number: i64) {
    loop {
        let group = (number & 31) as u8;
        number >>= BITS;
        // What is left is the sign alone, and the group has it.
        let done = number == if group & 16 == 0 { 0 } else { -1 };
        text.push(char::from(b'0' + group + if done { 0 } else { 32 }));
        if done {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rle(size: [u32; 2], text: &str) -> Rle {
        Rle { size, counts: RleCounts::Text(text.to_owned()) }
    }

    #[test]
    fn texts_are_those_of_pycocotools() {
        for (size, window, text, belongs) in known() {
            let mask = Mask::of(size, window, belongs);
            let written = mask.to_rle();
            assert_eq!(written, rle(size.map(|side| side as u32), text));
            assert_eq!(Mask::of_rle(&written).unwrap(), mask);
            let [h, w] = size;
            let pixels: Vec<[usize; 2]> =
                (0..w).flat_map(|x| (0..h).map(move |y| [x, y])).filter(|[x, y]| mask.contains(*x, *y)).collect();
            assert_eq!((mask.area(), mask.pixels().collect::<Vec<_>>()), (pixels.len(), pixels));
        }
    }

    #[test]
    fn plain_lengths_are_the_same_mask() {
        let plain = Rle { size: [3, 4], counts: RleCounts::Plain(vec![3, 6, 3]) };
        assert_eq!(Mask::of_rle(&plain).unwrap(), Mask::of([3, 4], [1, 0, 3, 9], |_, _| true));
        // Runs of no pixels are allowed, and say nothing.
        let odd = Rle { size: [3, 4], counts: RleCounts::Plain(vec![0, 3, 0, 2, 7]) };
        let mask = Mask::of_rle(&odd).unwrap();
        assert_eq!((mask.area(), mask.contains(1, 1), mask.contains(1, 2)), (5, true, false));
    }

    #[test]
    fn what_lies_is_refused_by_name() {
        let error = |size, text: &str| Mask::of_rle(&rle(size, text)).unwrap_err();
        assert_eq!(error([3, 4], "36"), ShapeError::Sum { sum: 9, height: 3, width: 4 });
        assert_eq!(error([u32::MAX, u32::MAX], "36"), ShapeError::Sum { sum: 9, height: u32::MAX, width: u32::MAX });
        assert_eq!(error([3, 4], "3 6"), ShapeError::Letter { position: 2, letter: ' ' });
        assert_eq!(error([3, 4], "3é"), ShapeError::Letter { position: 2, letter: 'é' });
        assert_eq!(error([3, 4], "3V"), ShapeError::Unfinished);
        assert!(matches!(error([3, 4], "oooooooooooo"), ShapeError::Letter { position: 8, .. }));
        assert_eq!(error([3, 4], "3O"), ShapeError::Length { position: 2, length: -1, pixels: 12 });
        assert!(matches!(error([3, 4], "3oooo3"), ShapeError::Length { position: 2, pixels: 12, .. }));
        let large = Rle { size: [u32::MAX, 2], counts: RleCounts::Plain(vec![u32::MAX, 1, u32::MAX]) };
        assert!(matches!(Mask::of_rle(&large).unwrap_err(), ShapeError::Length { position: 2, .. }));
        assert!(Mask::of_rle(&rle([0, 0], "")).unwrap().pixels().next().is_none());
    }

    #[test]
    fn any_text_is_a_mask_or_refused() {
        let mut state = 1u32;
        let mut next = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        let mut masks = 0;
        for _ in 0..20_000 {
            let size = [next(5), next(5)];
            let text: String = (0..next(6)).map(|_| char::from(b'/' + next(20) as u8)).collect();
            let Ok(mask) = Mask::of_rle(&rle(size, &text)) else { continue };
            let pixels: Vec<[usize; 2]> = mask.pixels().collect();
            assert!(pixels.iter().all(|[x, y]| mask.contains(*x, *y)), "{text}");
            // The same pixels in as few runs as there can be.
            let [h, w] = mask.size();
            let again = Mask::of([h, w], [0, 0, w, h], |x, y| mask.contains(x, y));
            assert_eq!(Mask::of_rle(&again.to_rle()).unwrap().pixels().collect::<Vec<_>>(), pixels, "{text}");
            masks += 1;
        }
        assert!(masks > 500, "{masks}");
    }

    type Known = ([usize; 2], [usize; 4], &'static str, fn(usize, usize) -> bool);
    /// Size, window, `pycocotools.mask.encode(…)["counts"]` of 2.0.11, and what belongs.
    fn known() -> Vec<Known> {
        vec![
            ([5, 7], [0; 4], r"S1", |_, _| true),
            ([5, 7], [0, 0, 7, 5], r"0S1", |_, _| true),
            ([6, 9], [2, 1, 7, 5], r">230NO10O12000NO<", |x, y| (x + y) % 3 != 0),
            (
                [100, 160],
                [20, 10, 150, 90],
                r"db2=d26J6K4M2M4M2N2M4M2N2O0O2N2N2N2O0O2N2O0O2O0O2O0O2O0O2O0O2O000O2O000O2O00000O2O000000000O2O0000000000000000000000000000000000000001N10000000001N1000001N10001N10001N101N101N101N101N101N2N101N2N2N2N101N2N3L3N2N3L3N3L5J6Jk\2",
                |x, y| x.abs_diff(80).pow(2) + 2 * y.abs_diff(50).pow(2) < 3000,
            ),
            (
                [90, 40],
                [0, 0, 40, 90],
                r"0>h10^NI?K<<1KL144NEE3e08k002N7IWNOg0:DEE3B8a1=0C^NI?K<<:GZOOj17I3M0TOI\OK<<1KL144NEE3B8a1O[O1T1N7IWNOj17fN3c0=0C^NI?K<<1KL1W1133M02NNMiN144NEE3B8a1=0C\ONZ1IWNOj17I3jN",
                |x, y| (x * 31 + y / 7) % 5 < 2 && (x / 4 + y / 30) % 2 == 0,
            ),
            ([3000, 2], [0, 0, 2, 3000], r"bV1Vg1bV10", |_, y| y >= 1234),
        ]
    }
}
