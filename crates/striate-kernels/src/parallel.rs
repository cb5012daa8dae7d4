//! The ways in which the simple kernels share their work.

use crate::mem::DisjointMut;
use crate::threads::Team;
use std::ops::Range;

/// Floats below which a second thread costs more than it saves.
const GRAIN: usize = 8192;

/// Cuts `0..len` into pieces of about [`GRAIN`] and runs `work` on each, with the same range of `out`.
pub(crate) fn over_ranges(team: &Team, out: &mut [f32], work: impl Fn(Range<usize>, &mut [f32]) + Sync) {
    over_rows(team, 1, out, work);
}

/// Cuts the rows of `out`, which have `width` floats, into pieces; `work` gets the rows' numbers and their floats.
pub(crate) fn over_rows(team: &Team, width: usize, out: &mut [f32], work: impl Fn(Range<usize>, &mut [f32]) + Sync) {
    let width = width.max(1);
    let rows = out.len() / width;
    let grain = (GRAIN / width).max(1);
    let pieces = rows.div_ceil(grain);
    let out = DisjointMut::new(out);
    team.for_each(pieces, |piece| {
        let rows = piece * grain..rows.min((piece + 1) * grain);
        // SAFETY: each piece has its own rows.
        let part = unsafe { out.slice_mut(rows.start * width..rows.end * width) };
        work(rows, part);
    });
}
