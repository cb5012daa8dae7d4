//! Which pictures are the same, or nearly.

use crate::data::{Image, luma};
use std::collections::HashMap;

/// Side of the small grey picture that pictures are compared by.
const SIDE: usize = 16;
/// Side of the still smaller one that tells most pairs apart at a sixteenth of the cost.
const COARSE: usize = 4;
/// Correlation from which two pictures are nearly the same. Other compressions, sizes, brightness and cuts of 1 % stay above 0.99;
/// pictures of blood cells, which look alike to us, stay below 0.76.
const NEAR: f32 = 0.96;
/// Deviation of grey below which a picture is a plane, and like any other plane.
const FLAT: f32 = 1.0;

/// How alike two pictures are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Likeness {
    /// In every pixel.
    Same,
    /// Nearly, with this correlation.
    Near(f32),
}

/// A picture, small: grey, without its mean, of length 1.
struct Small {
    index: usize,
    fine: Vec<f32>,
    /// The means of blocks, scaled so that its distances are never above those of `fine`.
    coarse: [f32; COARSE * COARSE],
}

/// The pictures so far.
#[derive(Default)]
pub(super) struct Gallery {
    by_pixels: HashMap<u128, usize>,
    small: Vec<Small>,
}

impl Gallery {
    /// Adds a picture; gives the one before it that it is most like, if it is the same or nearly so.
    pub fn add(&mut self, index: usize, image: &Image) -> Option<(usize, Likeness)> {
        let fingerprint = image.fingerprint();
        if let Some(first) = self.by_pixels.get(&fingerprint) {
            return Some((*first, Likeness::Same));
        }
        self.by_pixels.insert(fingerprint, index);
        let small = shrink(index, image)?;
        let near = self.nearest(&small);
        self.small.push(small);
        near.map(|(other, correlation)| (other, Likeness::Near(correlation)))
    }

    fn nearest(&self, picture: &Small) -> Option<(usize, f32)> {
        // Of vectors of length 1, the squared distance is 2 - 2 correlation.
        let most = 2.0 - 2.0 * NEAR;
        let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        let candidates = self.small.iter().filter(|other| distance(&other.coarse, &picture.coarse) <= most);
        let near = candidates.map(|other| (other.index, 1.0 - distance(&other.fine, &picture.fine) / 2.0));
        near.filter(|(_, correlation)| *correlation >= NEAR).max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
    }
}

/// The mean grey of each of `SIDE` by `SIDE` cells.
fn cells(image: &Image) -> Vec<f32> {
    let (w, h, c) = (image.width, image.height, image.channels);
    let edges = |length: usize, cell: usize| {
        let start = cell * length / SIDE;
        start..((cell + 1) * length / SIDE).max(start + 1).min(length.max(1))
    };
    let mut out = Vec::with_capacity(SIDE * SIDE);
    for row in 0..SIDE {
        for column in 0..SIDE {
            let (ys, xs) = (edges(h, row), edges(w, column));
            let (mut sum, mut count) = (0u64, 0u64);
            for y in ys {
                let line = &image.data[(y * w + xs.start) * c..(y * w + xs.end) * c];
                let greys = line.chunks_exact(c).map(|p| if c == 3 { luma(p[0], p[1], p[2]) } else { p[0] });
                sum += greys.map(u64::from).sum::<u64>();
                count += xs.len() as u64;
            }
            out.push(sum as f32 / count.max(1) as f32);
        }
    }
    out
}

/// Nothing for a picture without contrast.
fn shrink(index: usize, image: &Image) -> Option<Small> {
    let mut fine = cells(image);
    let mean = fine.iter().sum::<f32>() / fine.len() as f32;
    fine.iter_mut().for_each(|v| *v -= mean);
    let length = fine.iter().map(|v| v * v).sum::<f32>().sqrt();
    if length < FLAT * SIDE as f32 {
        return None;
    }
    fine.iter_mut().for_each(|v| *v /= length);
    let block = SIDE / COARSE;
    let coarse = std::array::from_fn(|at| {
        let (row, column) = (at / COARSE * block, at % COARSE * block);
        let rows = (row..row + block).flat_map(|y| &fine[y * SIDE + column..y * SIDE + column + block]);
        // By Jensen's inequality: the sum of b² squares is at least the square of the sum, divided by b².
        rows.sum::<f32>() / block as f32
    });
    Some(Small { index, fine, coarse })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A smooth picture by a seed.
    fn picture(seed: f32, gain: f32, width: usize) -> Image {
        let height = width * 3 / 4;
        let at = |i: usize| {
            let (x, y) = ((i % width) as f32 / width as f32, (i / width) as f32 / height as f32);
            let wave = (x * (9.0 + seed) + seed).sin() + (y * (7.0 + 2.0 * seed)).cos() * (x * 5.0 * seed).sin();
            (128.0 + gain * 40.0 * wave) as u8
        };
        Image::new(width, height, 1, (0..width * height).map(at).collect()).unwrap()
    }

    #[test]
    fn the_same_and_nearly_the_same_are_found_and_others_are_not() {
        let mut gallery = Gallery::default();
        assert_eq!(gallery.add(0, &picture(1.0, 1.0, 320)), None);
        assert_eq!(gallery.add(1, &picture(2.0, 1.0, 320)), None);
        assert_eq!(gallery.add(2, &picture(3.3, 1.0, 320)), None);
        assert_eq!(gallery.add(3, &picture(2.0, 1.0, 320)), Some((1, Likeness::Same)));
        // Half the size and four fifths of the contrast.
        let near = gallery.add(4, &picture(1.0, 0.8, 160));
        assert!(matches!(near, Some((0, Likeness::Near(c))) if c > 0.99), "{near:?}");
        // Planes are alike and say nothing; so do pictures smaller than the cells.
        assert_eq!(gallery.add(5, &Image::filled(64, 64, &[7])), None);
        assert_eq!(gallery.add(6, &Image::filled(64, 64, &[9])), None);
        assert_eq!(gallery.add(7, &Image::filled(1, 3, &[9])), None);
    }
}
