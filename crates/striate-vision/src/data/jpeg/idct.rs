//! The inverse DCT of Loeffler, Ligtenberg, Moschytz (1989) in 13-bit fixed point, rounded where libjpeg's accurate one rounds.

/// Bits behind the point of the constants.
const CONST_BITS: u32 = 13;
/// Bits behind the point between the two passes.
const PASS1_BITS: u32 = 2;

/// A constant in fixed point.
const fn fix(x: f64) -> i32 {
    (x * (1 << CONST_BITS) as f64 + 0.5) as i32
}

const C0_298: i32 = fix(0.298631336);
const C0_390: i32 = fix(0.390180644);
const C0_541: i32 = fix(0.541196100);
const C0_765: i32 = fix(0.765366865);
const C0_899: i32 = fix(0.899976223);
const C1_175: i32 = fix(1.175875602);
const C1_501: i32 = fix(1.501321110);
const C1_847: i32 = fix(1.847759065);
const C1_961: i32 = fix(1.961570560);
const C2_053: i32 = fix(2.053119869);
const C2_562: i32 = fix(2.562915447);
const C3_072: i32 = fix(3.072711026);

/// Eight values, scaled by `2^CONST_BITS`. Sums wrap: only a damaged file makes them large.
#[inline(always)]
fn transform(x: [i32; 8]) -> [i32; 8] {
    let mul = |a: i32, b: i32| a.wrapping_mul(b);
    let add = |a: i32, b: i32| a.wrapping_add(b);
    let sub = |a: i32, b: i32| a.wrapping_sub(b);
    // Even part.
    let z1 = mul(add(x[2], x[6]), C0_541);
    let low = sub(z1, mul(x[6], C1_847));
    let high = add(z1, mul(x[2], C0_765));
    let (sum, difference) = (add(x[0], x[4]) << CONST_BITS, sub(x[0], x[4]) << CONST_BITS);
    let even = [add(sum, high), add(difference, low), sub(difference, low), sub(sum, high)];
    // Odd part.
    let z5 = mul(add(add(x[7], x[3]), add(x[5], x[1])), C1_175);
    let z1 = mul(add(x[7], x[1]), C0_899);
    let z2 = mul(add(x[5], x[3]), C2_562);
    let z3 = sub(z5, mul(add(x[7], x[3]), C1_961));
    let z4 = sub(z5, mul(add(x[5], x[1]), C0_390));
    let odd = [
        add(sub(mul(x[1], C1_501), z1), z4),
        add(sub(mul(x[3], C3_072), z2), z3),
        add(sub(mul(x[5], C2_053), z2), z4),
        add(sub(mul(x[7], C0_298), z1), z3),
    ];
    std::array::from_fn(|i| if i < 4 { add(even[i], odd[i]) } else { sub(even[7 - i], odd[7 - i]) })
}

#[inline(always)]
fn descale(x: i32, bits: u32) -> i32 {
    x.wrapping_add(1 << (bits - 1)) >> bits
}

/// One block of coefficients, times the quantisation table (both in natural order), as 8 rows of pixels `pitch` apart.
pub(super) fn inverse_dct(coefficients: &[i16; 64], table: &[u16; 64], out: &mut [u8], pitch: usize) {
    let mut work = [0i32; 64];
    let value = |i: usize| i32::from(coefficients[i]) * i32::from(table[i]);
    if coefficients[1..].iter().all(|&c| c == 0) {
        let flat = (descale(value(0) << PASS1_BITS, PASS1_BITS + 3) + 128).clamp(0, 255) as u8;
        (0..8).for_each(|y| out[y * pitch..y * pitch + 8].fill(flat));
        return;
    }
    for column in 0..8 {
        let values = std::array::from_fn(|row| value(8 * row + column));
        for (row, sum) in transform(values).into_iter().enumerate() {
            work[8 * row + column] = descale(sum, CONST_BITS - PASS1_BITS);
        }
    }
    for (row, values) in work.as_chunks::<8>().0.iter().enumerate() {
        let pixels = &mut out[row * pitch..row * pitch + 8];
        for (pixel, sum) in pixels.iter_mut().zip(transform(*values)) {
            *pixel = (descale(sum, CONST_BITS + PASS1_BITS + 3) + 128).clamp(0, 255) as u8;
        }
    }
}
