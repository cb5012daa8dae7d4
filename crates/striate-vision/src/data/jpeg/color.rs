//! From planes to pixels: chroma brought to full size by a triangle filter, then colours, rounded where libjpeg rounds.

/// Samples of one component, `width` x `height` of them in rows of `pitch`.
pub(super) struct Plane {
    pub samples: Vec<u8>,
    pub pitch: usize,
    pub width: usize,
    pub height: usize,
    /// How many pixels a sample stands for, across and down.
    pub scale: [usize; 2],
}

impl Plane {
    fn row(&self, y: usize) -> &[u8] {
        &self.samples[y * self.pitch..][..self.width]
    }

    /// The samples of row `y` of the full picture; `out` has room for `scale[0] * width`.
    pub fn full_row(&self, y: usize, sums: &mut Vec<u16>, out: &mut [u8]) {
        let [across, down] = self.scale;
        let row = self.row(y / down);
        // Rows are weighted 3 to 1 with the nearer neighbour; at the border that is the row itself.
        let neighbour = || match y % 2 {
            0 => self.row((y / 2).saturating_sub(1)),
            _ => self.row((y / 2 + 1).min(self.height - 1)),
        };
        match (across, down) {
            (1, 1) => out[..self.width].copy_from_slice(row),
            (1, 2) => {
                let bias = 1 + (y % 2) as u16;
                for ((out, &near), &far) in out.iter_mut().zip(row).zip(neighbour()) {
                    *out = ((3 * u16::from(near) + u16::from(far) + bias) >> 2) as u8;
                }
            }
            (2, 1) if self.width > 2 => double(row.iter().map(|&v| u16::from(v)), 2, [1, 2], sums, out),
            (2, 2) if self.width > 2 => {
                let columns = row.iter().zip(neighbour()).map(|(&near, &far)| 3 * u16::from(near) + u16::from(far));
                double(columns, 4, [8, 7], sums, out);
            }
            _ => {
                for (x, out) in out.iter_mut().enumerate().take(across * self.width) {
                    *out = row[x / across];
                }
            }
        }
    }
}

/// Twice as many values, each 3 parts of the nearer and 1 part of the farther of its two neighbours, less `bits` bits; `bias` is
/// added for those that lean to the left and to the right.
fn double(values: impl Iterator<Item = u16>, bits: u32, bias: [u16; 2], sums: &mut Vec<u16>, out: &mut [u8]) {
    sums.clear();
    sums.extend(values);
    let last = sums.len() - 1;
    let pairs = out.as_chunks_mut::<2>().0;
    for (i, pair) in pairs.iter_mut().enumerate().take(sums.len()) {
        let here = 3 * sums[i];
        let left = if i == 0 { sums[0] } else { sums[i - 1] };
        let right = if i == last { sums[last] } else { sums[i + 1] };
        *pair = [((here + left + bias[0]) >> bits) as u8, ((here + right + bias[1]) >> bits) as u8];
    }
}

/// Bits behind the point of the conversion.
const BITS: u32 = 16;

const fn fix(x: f64) -> i32 {
    (x * (1 << BITS) as f64 + 0.5) as i32
}

/// One row of RGB from luma and both chromas (ITU-R 601, full range, as JFIF has it).
pub(super) fn ycc_to_rgb(y: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
    const HALF: i32 = 1 << (BITS - 1);
    let clip = |v: i32| v.clamp(0, 255) as u8;
    let planes = y.iter().zip(cb).zip(cr);
    for (pixel, ((&y, &cb), &cr)) in out.as_chunks_mut::<3>().0.iter_mut().zip(planes) {
        let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
        let r = (fix(1.402) * cr + HALF) >> BITS;
        let g = (-fix(0.34414) * cb - fix(0.71414) * cr + HALF) >> BITS;
        let b = (fix(1.772) * cb + HALF) >> BITS;
        *pixel = [clip(y + r), clip(y + g), clip(y + b)];
    }
}

/// Inks to light, in place: a pixel has cyan, magenta and yellow as Adobe stores them, where 255 is none, and so has `black`. As in
/// PIL: without a profile, ink over black.
pub(super) fn cmyk_to_rgb(black: &[u8], pixels: &mut [u8]) {
    for (pixel, &light) in pixels.as_chunks_mut::<3>().0.iter_mut().zip(black) {
        let light = i32::from(light);
        for value in pixel {
            let product = (255 - i32::from(*value)) * light + 128;
            // divided by 255 and rounded
            *value = (light - (((product >> 8) + product) >> 8)).clamp(0, 255) as u8;
        }
    }
}
