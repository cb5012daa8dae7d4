//! When Winograd's filtering is faster: cycles, estimated from counts of operations and bytes. The constants are measured.

use crate::conv::direct::Problem;
use crate::simd::Isa;

/// Cycles that one vector of channels of one tile takes in the transforms of inputs and of outputs.
fn transform_cycles(edge: usize) -> (f64, f64) {
    if edge == 2 { (50.0, 40.0) } else { (180.0, 140.0) }
}

/// Filters beyond the second cache are read at this many bytes a cycle while they are multiplied, and written at the other.
const READ: f64 = 16.0;
const WRITE: f64 = 5.0;
/// Part of the peak of two vector multiply-adds a cycle that sums reach: direct, and of transformed tiles.
const DIRECT: f64 = 0.92;
const PRODUCTS: f64 = 0.88;

/// The edge of the tile, 2 or 4, with which the sum takes fewest cycles; none where sliding the filter takes fewer. Training looks
/// at the batch, and packs the filters each time; parts that are alike
/// pack them once and read them each.
pub(super) fn choose_edge(p: &Problem, isa: Isa, training: bool) -> Option<usize> {
    let (parts, images) = (p.alike as f64, (p.alike * if training { p.n } else { 1 }) as f64);
    let pack = |positions: usize| match training {
        // Gathering a filter's taps takes as long as writing some dozen vectors.
        true => filter_bytes(p, positions) / WRITE + (p.k_c * p.m_c.div_ceil(isa.lanes())) as f64 * 200.0,
        false => 0.0,
    };
    let direct = images * direct_cycles(p, isa) + pack(9);
    let winograd = |edge: usize| {
        let positions = (edge + 2) * (edge + 2);
        images * tile_cycles(p, isa, edge) + parts * filter_bytes(p, positions) / READ + pack(positions)
    };
    let edge = if winograd(4) <= winograd(2) { 4 } else { 2 };
    (winograd(edge) < direct).then_some(edge)
}

fn filter_bytes(p: &Problem, positions: usize) -> f64 {
    (4 * positions * p.k_c * p.m_c) as f64
}

/// Of one image.
fn direct_cycles(p: &Problem, isa: Isa) -> f64 {
    let sums = p.out[0] * p.out[1] * p.k_c * 9 * p.m_c.div_ceil(isa.lanes());
    sums as f64 / (2.0 * DIRECT)
}

/// Of one image, but for reading filters.
fn tile_cycles(p: &Problem, isa: Isa, edge: usize) -> f64 {
    let tiles = p.out[0].div_ceil(edge) * p.out[1].div_ceil(edge);
    let (inputs, outputs) = (p.k_c.div_ceil(isa.lanes()), p.m_c.div_ceil(isa.lanes()));
    let (input, output) = transform_cycles(edge);
    let products = ((edge + 2) * (edge + 2) * tiles * p.k_c * outputs) as f64 / (2.0 * PRODUCTS);
    products + tiles as f64 * (inputs as f64 * input + outputs as f64 * output)
}
