//! Random numbers without state: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! A number is a pure function of (key, step, element). The key comes from [`stream_key`], which mixes the user's seed with a
//! text that says what the numbers are for. So there is no generator to save, and the numbers depend on no order of
//! evaluation and no number of threads. All arithmetic is integer or plain IEEE add, multiply, divide and root, hence the
//! bits are the same on every machine. What a key, step and element give will never change: saved runs rely on it.
//!
//! Addressing: block counter = `[element / 4 (low, high), step (low, high)]`, lane = `element % 4`; [`below`] takes two
//! lanes for one element, so its block is `element / 2`.
//!
//! ```
//! use striate_kernels::rng;
//! let key = rng::stream_key(0, "layer1.0.dropout");
//! let mut mask = [0.0f32; 10];
//! rng::fill_uniform(&mut mask, key, 7, 100);
//! assert_eq!(mask[3], rng::uniform(key, 7, 103));
//! ```

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The block function of Philox4x32-10 under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

impl Philox {
    /// A generator with this key.
    pub fn new(key: [u32; 2]) -> Self {
        Self { key }
    }

    /// Four random words for a 128-bit counter.
    #[inline]
    pub fn block(&self, counter: [u32; 4]) -> [u32; 4] {
        let [mut c0, mut c1, mut c2, mut c3] = counter;
        let [mut k0, mut k1] = self.key;
        for _ in 0..10 {
            let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c0);
            let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c2);
            (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
            k0 = k0.wrapping_add(WEYL[0]);
            k1 = k1.wrapping_add(WEYL[1]);
        }
        [c0, c1, c2, c3]
    }

    /// The blocks of eight consecutive counters of one step, lane by lane so that the compiler vectorises it.
    fn blocks8(&self, first: u64, step: u64) -> [[u32; 8]; 4] {
        let mut c0 = std::array::from_fn::<u32, 8, _>(|i| first.wrapping_add(i as u64) as u32);
        let mut c1 = std::array::from_fn::<u32, 8, _>(|i| (first.wrapping_add(i as u64) >> 32) as u32);
        let mut c2 = [step as u32; 8];
        let mut c3 = [(step >> 32) as u32; 8];
        let [mut k0, mut k1] = self.key;
        for _ in 0..10 {
            for i in 0..8 {
                let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c0[i]);
                let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c2[i]);
                c0[i] = (p1 >> 32) as u32 ^ c1[i] ^ k0;
                c1[i] = p1 as u32;
                c2[i] = (p0 >> 32) as u32 ^ c3[i] ^ k1;
                c3[i] = p0 as u32;
            }
            k0 = k0.wrapping_add(WEYL[0]);
            k1 = k1.wrapping_add(WEYL[1]);
        }
        [c0, c1, c2, c3]
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
fn mix64(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The key of the stream for one purpose under the user's seed.
///
/// FNV-1a (64 bit) of `purpose`'s bytes, then two rounds of SplitMix64's finaliser joined with the seed. This never changes.
pub fn stream_key(seed: u64, purpose: &str) -> [u32; 2] {
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    for &byte in purpose.as_bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    }
    let key = mix64(mix64(seed.wrapping_add(0x9E37_79B9_7F4A_7C15)) ^ hash);
    [key as u32, (key >> 32) as u32]
}

fn counter(block: u64, step: u64) -> [u32; 4] {
    [block as u32, (block >> 32) as u32, step as u32, (step >> 32) as u32]
}

/// The raw 32-bit word of an element.
#[inline]
pub fn word(key: [u32; 2], step: u64, element: u64) -> u32 {
    Philox::new(key).block(counter(element / 4, step))[(element % 4) as usize]
}

#[inline]
fn unit_f32(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// A uniform number in `[0, 1)`, a multiple of 2^-24.
#[inline]
pub fn uniform(key: [u32; 2], step: u64, element: u64) -> f32 {
    unit_f32(word(key, step, element))
}

/// A uniform number in `[0, 1)` with 53 random bits. Addressed as [`below`].
pub fn uniform_f64(key: [u32; 2], step: u64, element: u64) -> f64 {
    (double_word(key, step, element) >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
}

/// True with probability `p`: `uniform < p`.
#[inline]
pub fn bernoulli(key: [u32; 2], step: u64, element: u64, p: f32) -> bool {
    uniform(key, step, element) < p
}

fn double_word(key: [u32; 2], step: u64, element: u64) -> u64 {
    let block = Philox::new(key).block(counter(element / 2, step));
    let lane = (element % 2) as usize * 2;
    u64::from(block[lane]) | u64::from(block[lane + 1]) << 32
}

/// An integer in `0..n` (0 for `n == 0`), by the high half of a 64x64-bit product: the bias is at most `n / 2^64`.
pub fn below(key: [u32; 2], step: u64, element: u64, n: u64) -> u64 {
    ((u128::from(double_word(key, step, element)) * u128::from(n)) >> 64) as u64
}

/// A standard normal number by Box-Muller (1958): elements `2i` and `2i + 1` are the cosine and sine of one pair. |x| < 6.67.
pub fn normal(key: [u32; 2], step: u64, element: u64) -> f32 {
    let block = Philox::new(key).block(counter(element / 4, step));
    let lane = (element % 4) as usize & 2;
    let pair = box_muller(block[lane], block[lane + 1]);
    pair[(element % 2) as usize]
}

fn box_muller(a: u32, b: u32) -> [f32; 2] {
    let radius = (-2.0 * log_unit((f64::from(a) + 1.0) * (1.0 / 4_294_967_296.0))).sqrt();
    let [c, s] = cos_sin_turn(b);
    [(radius * c) as f32, (radius * s) as f32]
}

/// Natural logarithm for `0 < x <= 1`, error below 1e-15 relative; no call into the platform's libm.
fn log_unit(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i64 - 1023;
    let mut m = f64::from_bits((bits & 0x000F_FFFF_FFFF_FFFF) | 0x3FF0_0000_0000_0000);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    // log m = 2 atanh(t), |t| <= 0.1716; the terms fall by a factor of 34.
    let t = (m - 1.0) / (m + 1.0);
    let t2 = t * t;
    let mut series = 0.0;
    for k in (0..12).rev() {
        series = series * t2 + 1.0 / (2 * k + 1) as f64;
    }
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * t * series
}

/// Cosine and sine of `word / 2^32` turns. The octant is exact integer arithmetic, the rest Taylor on `|x| <= π/4`.
fn cos_sin_turn(word: u32) -> [f64; 2] {
    // Nearest quarter turn, and the signed rest in 2^-32 turns, at most an eighth of a turn.
    let quarter = (word.wrapping_add(1 << 29)) >> 30;
    let rest = word.wrapping_sub(quarter << 30) as i32;
    let x = f64::from(rest) * (std::f64::consts::TAU / 4_294_967_296.0);
    let x2 = x * x;
    let (mut c, mut s) = (1.0, 1.0);
    for k in (1..10).rev() {
        let k = f64::from(k);
        c = 1.0 - c * x2 / ((2.0 * k - 1.0) * (2.0 * k));
        s = 1.0 - s * x2 / ((2.0 * k) * (2.0 * k + 1.0));
    }
    s *= x;
    match quarter & 3 {
        0 => [c, s],
        1 => [-s, c],
        2 => [-c, -s],
        _ => [s, -c],
    }
}

/// A permutation of `0..n` (Fisher-Yates, downwards; swap number `i` takes element `i` of the stream).
pub fn permutation(key: [u32; 2], step: u64, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, below(key, step, i as u64, i as u64 + 1) as usize);
    }
    order
}

/// Calls `emit(block number, its words)` for every block that a run of elements touches, eight at a time where it can.
fn for_each_block(len: usize, key: [u32; 2], step: u64, offset: u64, mut emit: impl FnMut(u64, [u32; 4])) {
    let generator = Philox::new(key);
    if len == 0 {
        return;
    }
    let last = (offset + len as u64 - 1) / 4;
    let mut block = offset / 4;
    while block + 8 <= last + 1 {
        let [a, b, c, d] = generator.blocks8(block, step);
        for i in 0..8 {
            emit(block + i as u64, [a[i], b[i], c[i], d[i]]);
        }
        block += 8;
    }
    while block <= last {
        emit(block, generator.block(counter(block, step)));
        block += 1;
    }
}

fn fill_by(out: &mut [f32], key: [u32; 2], step: u64, offset: u64, map: impl Fn([u32; 4]) -> [f32; 4]) {
    let len = out.len();
    for_each_block(len, key, step, offset, |block, words| {
        let values = map(words);
        let first = block * 4;
        if first >= offset && first + 4 <= offset + len as u64 {
            let at = (first - offset) as usize;
            out[at..at + 4].copy_from_slice(&values);
            return;
        }
        for (lane, value) in values.into_iter().enumerate() {
            if let Some(at) = (first + lane as u64).checked_sub(offset)
                && (at as usize) < len
            {
                out[at as usize] = value;
            }
        }
    });
}

/// `out[i] = uniform(key, step, offset + i)`.
pub fn fill_uniform(out: &mut [f32], key: [u32; 2], step: u64, offset: u64) {
    fill_by(out, key, step, offset, |words| words.map(unit_f32));
}

/// `out[i] = normal(key, step, offset + i)`.
pub fn fill_normal(out: &mut [f32], key: [u32; 2], step: u64, offset: u64) {
    fill_by(out, key, step, offset, |[a, b, c, d]| {
        let (first, second) = (box_muller(a, b), box_muller(c, d));
        [first[0], first[1], second[0], second[1]]
    });
}

/// `out[i] = on` with probability `p` (where `uniform(key, step, offset + i) < p`), else 0: a dropout mask with `on = 1 / p`.
pub fn fill_bernoulli(out: &mut [f32], key: [u32; 2], step: u64, offset: u64, (p, on): (f32, f32)) {
    fill_by(out, key, step, offset, |words| words.map(|w| if unit_f32(w) < p { on } else { 0.0 }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_random123() {
        assert_eq!(Philox::new([0, 0]).block([0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            Philox::new([u32::MAX; 2]).block([u32::MAX; 4]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            Philox::new([0xa409_3822, 0x299f_31d0]).block([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn stream_keys_are_frozen() {
        assert_eq!(stream_key(0, ""), FROZEN_KEYS[0]);
        assert_eq!(stream_key(1, "layer1.0.conv1.weight"), FROZEN_KEYS[1]);
        assert_ne!(stream_key(0, "a"), stream_key(0, "b"));
        assert_ne!(stream_key(0, "a"), stream_key(1, "a"));
    }

    const FROZEN_KEYS: [[u32; 2]; 2] = [[0x5cdc_3c4c, 0xaebe_53f8], [0xd3fa_be6d, 0x6bb1_b66d]];

    #[test]
    fn fills_equal_single_elements_at_any_offset() {
        let key = stream_key(3, "fill");
        for (len, offset) in [(0usize, 0u64), (1, 3), (5, 2), (64, 0), (97, 1), (33, (1 << 34) - 7)] {
            let (mut u, mut n, mut b) = (vec![9.0; len], vec![9.0; len], vec![9.0; len]);
            fill_uniform(&mut u, key, 1 << 33, offset);
            fill_normal(&mut n, key, 1 << 33, offset);
            fill_bernoulli(&mut b, key, 1 << 33, offset, (0.25, 4.0));
            for i in 0..len {
                let element = offset + i as u64;
                assert_eq!(u[i], uniform(key, 1 << 33, element));
                assert_eq!(n[i], normal(key, 1 << 33, element));
                assert_eq!(b[i], if bernoulli(key, 1 << 33, element, 0.25) { 4.0 } else { 0.0 });
            }
        }
    }

    #[test]
    fn own_logarithm_and_circle_agree_with_std() {
        for i in 0..2000u32 {
            let word = i.wrapping_mul(0x9E37_79B9) ^ (i << 7);
            let x = (f64::from(word) + 1.0) / 4_294_967_296.0;
            assert!((log_unit(x) - x.ln()).abs() <= 4e-16 * (1.0 + x.ln().abs()), "log {x}");
            let angle = f64::from(word) / 4_294_967_296.0 * std::f64::consts::TAU;
            let [c, s] = cos_sin_turn(word);
            assert!((c - angle.cos()).abs() < 2e-15 && (s - angle.sin()).abs() < 2e-15, "turn {word}");
        }
        assert_eq!(log_unit(1.0), 0.0);
    }

    #[test]
    fn moments_are_right() {
        let key = stream_key(0, "moments");
        let n = 400_000;
        let mut x = vec![0.0; n];
        let mean = |x: &[f32], p: i32| x.iter().map(|&v| f64::from(v).powi(p)).sum::<f64>() / n as f64;
        fill_normal(&mut x, key, 0, 0);
        assert!(mean(&x, 1).abs() < 0.006 && (mean(&x, 2) - 1.0).abs() < 0.01 && (mean(&x, 4) - 3.0).abs() < 0.1);
        fill_uniform(&mut x, key, 0, 0);
        assert!((mean(&x, 1) - 0.5).abs() < 0.002 && (mean(&x, 2) - 1.0 / 3.0).abs() < 0.002);
        assert!(x.iter().all(|v| (0.0..1.0).contains(v)));
    }

    #[test]
    fn below_and_permutation() {
        let key = stream_key(5, "sampler");
        let mut count = [0usize; 7];
        for i in 0..70_000 {
            count[below(key, 0, i, 7) as usize] += 1;
        }
        assert!(count.iter().all(|&c| c.abs_diff(10_000) < 450), "{count:?}");
        assert_eq!(below(key, 0, 0, 0), 0);
        let order = permutation(key, 2, 1000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..1000));
        assert_ne!(order, sorted);
        assert_ne!(order, permutation(key, 3, 1000));
        assert_eq!(permutation(key, 0, 0), Vec::<usize>::new());
    }
}
