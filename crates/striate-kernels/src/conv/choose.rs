//! Which tile and which band: functions of the layer's geometry alone, never of threads.

use crate::simd::Isa;

/// The most pixels of a tile with `nv` vectors of output channels: what leaves no accumulator in memory.
pub(super) fn max_pixels(isa: Isa, nv: usize) -> usize {
    match isa {
        Isa::Avx512 => [14, 14, 8, 6][nv - 1],
        Isa::Avx2 | Isa::Portable => [12, 6, 4][nv - 1],
    }
}

/// Relative cost of a pixel and a channel with `nv` vectors, in percent of a vector's multiply-add; measured with all data in
/// the first cache (docs/performance.md).
fn block_cost(isa: Isa, nv: usize) -> usize {
    match isa {
        Isa::Avx512 => [124, 200, 300, 400][nv - 1],
        Isa::Avx2 => [131, 200, 316][nv - 1],
        Isa::Portable => [108, 212, 296][nv - 1],
    }
}

/// Vectors of output channels in a block, for `channels` of them, sums of `sum` products and `pixels` outputs.
pub(super) fn choose_nv(isa: Isa, channels: usize, sum: usize, pixels: usize) -> usize {
    let vectors = channels.div_ceil(isa.lanes());
    let widest = if isa == Isa::Avx512 { 4 } else { 3 };
    let cost = |nv: usize| {
        let (full, rest) = (vectors / nv, vectors % nv);
        full * block_cost(isa, nv) + if rest > 0 { block_cost(isa, rest) } else { 0 }
    };
    // Filters of a block that do not stay in the second cache beside the band are better read in narrow blocks.
    let panel = |nv: usize| nv * isa.lanes() * sum * 4;
    // With few pixels only the width hides the latency of the multiply-adds.
    let few = pixels < 6;
    (1..=widest.min(vectors))
        .min_by_key(|&nv| {
            let too_large = !few && nv > 2 && panel(nv) > PANEL_BYTES;
            (too_large, if few { 0 } else { cost(nv) }, std::cmp::Reverse(nv))
        })
        .unwrap_or(1)
}

/// Filters of a wide block up to this size stay in the second cache.
const PANEL_BYTES: usize = 384 << 10;
/// The source of a band up to this size stays in the second cache.
const BAND_BYTES: usize = 256 << 10;
/// Pixels of a band: at least so many, since the filters are read once a band; at most so many, for the tables.
const MIN_PIXELS: usize = 96;
const MAX_PIXELS: usize = 1024;
/// Pieces of work that a layer should have, so that threads can share it.
const MIN_ITEMS: usize = 8;

/// Rows of an image, and images, in a band: `row_bytes` is the source of one row of outputs.
pub(super) fn choose_band(n: usize, out: [usize; 2], row_bytes: usize, blocks: usize) -> (usize, usize) {
    let [rows, columns] = out.map(|x| x.max(1));
    let least = MIN_PIXELS.div_ceil(columns);
    let most = (MAX_PIXELS / columns).max(1);
    let fits = BAND_BYTES / row_bytes.max(1);
    // Small layers: more bands, but not so many that they are tiny.
    let total = n.max(1) * rows;
    let shared = total * blocks / MIN_ITEMS;
    let mut band = fits.min(shared).max(least).min(most).max(1);
    if band >= rows {
        let images = (band / rows).min(n.max(1));
        // Equal bands.
        let bands = n.max(1).div_ceil(images);
        return (rows, n.max(1).div_ceil(bands));
    }
    let bands = rows.div_ceil(band);
    band = rows.div_ceil(bands);
    (band, 1)
}
