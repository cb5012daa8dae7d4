//! From tiles [taps][input channels][output channels] to OIHW filters.

use crate::simd::{Isa, Simd};

/// A matrix of which the transpose is wanted: `rows[r]` is LANES floats, and goes to column `r` of the destination.
///
/// # Safety
/// Each of the LANES pointers is readable for LANES floats; `dst` is writable for LANES floats at each multiple of `pitch`
/// below LANES.
#[inline(always)]
pub(in crate::conv) unsafe fn store_transposed<S: Simd>(s: S, rows: &[*const f32; 16], dst: *mut f32, pitch: usize) {
    // SAFETY: by contract; the token proves the instruction set.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        match S::ISA {
            Isa::Avx512 => return x86::transpose_16(rows, dst, pitch),
            Isa::Avx2 => return x86::transpose_8(rows, dst, pitch),
            Isa::Portable => {}
        }
        let _ = (s, Isa::Portable);
        for lane in 0..S::LANES {
            for (r, row) in rows[..S::LANES].iter().enumerate() {
                *dst.add(lane * pitch + r) = *row.add(lane);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) unsafe fn transpose_16(rows: &[*const f32; 16], dst: *mut f32, pitch: usize) {
        // SAFETY: by the contract of `store_transposed`.
        let r: [__m512; 16] = std::array::from_fn(|i| unsafe { _mm512_loadu_ps(rows[i]) });
        // Within the 128-bit parts: 4x4 transposes.
        let mut t = [_mm512_setzero_ps(); 16];
        for i in 0..4 {
            let (a, b, c, d) = (r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]);
            let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            t[4 * i] = _mm512_shuffle_ps::<0x44>(ab_low, cd_low);
            t[4 * i + 1] = _mm512_shuffle_ps::<0xee>(ab_low, cd_low);
            t[4 * i + 2] = _mm512_shuffle_ps::<0x44>(ab_high, cd_high);
            t[4 * i + 3] = _mm512_shuffle_ps::<0xee>(ab_high, cd_high);
        }
        // Between the parts: a 4x4 transpose of 128-bit elements for each of the four lanes of a part.
        for j in 0..4 {
            let (a, b, c, d) = (t[j], t[4 + j], t[8 + j], t[12 + j]);
            let (ab_even, ab_odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
            let (cd_even, cd_odd) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
            let columns = [
                _mm512_shuffle_f32x4::<0x88>(ab_even, cd_even),
                _mm512_shuffle_f32x4::<0x88>(ab_odd, cd_odd),
                _mm512_shuffle_f32x4::<0xdd>(ab_even, cd_even),
                _mm512_shuffle_f32x4::<0xdd>(ab_odd, cd_odd),
            ];
            for (part, column) in columns.into_iter().enumerate() {
                // SAFETY: by the contract of `store_transposed`.
                unsafe { _mm512_storeu_ps(dst.add((4 * part + j) * pitch), column) };
            }
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(super) unsafe fn transpose_8(rows: &[*const f32; 16], dst: *mut f32, pitch: usize) {
        // SAFETY: by the contract of `store_transposed`.
        let r: [__m256; 8] = std::array::from_fn(|i| unsafe { _mm256_loadu_ps(rows[i]) });
        let mut t = [_mm256_setzero_ps(); 8];
        for i in 0..2 {
            let (a, b, c, d) = (r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]);
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            t[4 * i] = _mm256_shuffle_ps::<0x44>(ab_low, cd_low);
            t[4 * i + 1] = _mm256_shuffle_ps::<0xee>(ab_low, cd_low);
            t[4 * i + 2] = _mm256_shuffle_ps::<0x44>(ab_high, cd_high);
            t[4 * i + 3] = _mm256_shuffle_ps::<0xee>(ab_high, cd_high);
        }
        for j in 0..4 {
            let (low, high) =
                (_mm256_permute2f128_ps::<0x20>(t[j], t[4 + j]), _mm256_permute2f128_ps::<0x31>(t[j], t[4 + j]));
            // SAFETY: by the contract of `store_transposed`.
            unsafe {
                _mm256_storeu_ps(dst.add(j * pitch), low);
                _mm256_storeu_ps(dst.add((4 + j) * pitch), high);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Kernel, available_isas};

    struct Transpose<'a>(&'a [f32], &'a mut [f32]);
    impl Kernel for Transpose<'_> {
        type Output = usize;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> usize {
            let rows = std::array::from_fn(|r| self.0[r * 20..].as_ptr());
            // SAFETY: 16 rows of 20 floats, destinations 17 floats apart.
            unsafe { store_transposed(s, &rows, self.1.as_mut_ptr(), 17) };
            S::LANES
        }
    }

    #[test]
    fn transposes() {
        let src: Vec<f32> = (0..320).map(|i| i as f32).collect();
        for isa in available_isas() {
            let mut dst = vec![-1.0; 16 * 17];
            let lanes = isa.dispatch(Transpose(&src, &mut dst));
            for (i, &v) in dst.iter().enumerate() {
                let (lane, r) = (i / 17, i % 17);
                let want = if lane < lanes && r < lanes { src[r * 20 + lane] } else { -1.0 };
                assert_eq!(v, want, "{isa} {lane} {r}");
            }
        }
    }
}
