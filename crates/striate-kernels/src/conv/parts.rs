//! A sliding-window sum cut into sums that are simpler to compute: dense grids instead of dilated ones, rectangles that see less padding.
//!
//! A part is a [`Problem`] like any other. It looks at the source, and writes the destination, through pitches and steps of its own, and no
//! pixel is written by two parts. Which parts there are is decided by the geometry of one image.

use super::choose::{choose_nv, max_pixels};
use super::direct::Problem;
use super::engine::Algorithms;
use super::lanes::Lanes;
use super::taps::{self, Taps};
use super::winograd::Winograd;
use crate::simd::Isa;

/// The problems that together compute `problem`.
pub(super) fn cut(problem: Problem, isa: Isa, algorithms: Algorithms) -> Vec<Problem> {
    let mut parts = choose(problem, isa, algorithms);
    parts.iter_mut().for_each(Problem::skip_unread);
    parts
}

fn choose(mut problem: Problem, isa: Isa, algorithms: Algorithms) -> Vec<Problem> {
    problem.skip_unread();
    let small_groups = problem.groups > 1 && problem.m_c * 2 <= isa.lanes();
    let phases = problem.phases();
    if phases.len() > 1 && (small_groups || Winograd::is_worth(&phases[0], isa, algorithms)) {
        return phases;
    }
    if Lanes::suits(&problem, isa) || Winograd::is_worth(&problem, isa, algorithms) {
        return vec![problem];
    }
    let sum = problem.k_c * problem.taps[0].len() * problem.taps[1].len();
    let tile = max_pixels(isa, choose_nv(isa, problem.m_c, sum, usize::MAX));
    let parts = rectangles(&problem, tile);
    let cost = |part: &Problem| {
        (start(&problem) + (part.out[0] * part.out[1]).next_multiple_of(tile)) * part.taps[0].len() * part.taps[1].len()
    };
    if Taps::is_worth(&problem) && taps::cost(&problem) < parts.iter().map(cost).sum() {
        return vec![problem];
    }
    parts
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Problem {
    /// Drops the filter rows and columns that see padding alone, and the source pixels that no tap reads.
    pub fn skip_unread(&mut self) {
        self.drop_dead_taps();
        for axis in 0..2 {
            if let [phase] = &self.phases_of(axis)[..] {
                *self = phase.clone();
            }
            if self.out[axis] == 1 {
                // Nothing follows the only output, whatever the step: the kernels for dense maps will do.
                (self.step[axis], self.dst_step[axis]) = (1, 1);
            }
        }
    }

    /// Source rows (columns) from one that is read through some tap to the next that the same output reads: a divisor of all distances.
    fn grid(&self, axis: usize) -> usize {
        let taps = &self.taps[axis];
        match taps.iter().fold(0, |grid, tap| gcd(tap.offset.abs_diff(taps[0].offset), grid)) {
            // One tap: what lies between the steps is never read.
            0 => self.step[axis],
            grid => grid,
        }
    }

    /// The outputs sorted by the grid of the source that they read: the taps of each part are neighbours there.
    fn phases(&self) -> Vec<Problem> {
        self.phases_of(0).iter().flat_map(|rows| rows.phases_of(1)).collect()
    }

    fn phases_of(&self, axis: usize) -> Vec<Problem> {
        let (grid, step, out) = (self.grid(axis), self.step[axis], self.out[axis]);
        let common = gcd(step, grid);
        if grid == 1 || out == 0 || self.taps[axis].is_empty() {
            return vec![self.clone()];
        }
        let period = grid / common;
        let pitch = if axis == 0 { self.src_row } else { self.src_pitch };
        let phase = |first: usize| {
            let mut part = self.clone();
            let start = (first * step) as isize;
            // All taps of these outputs read source rows with this remainder.
            let rest = (start + self.taps[axis][0].offset).rem_euclid(grid as isize);
            for tap in &mut part.taps[axis] {
                tap.offset = (start + tap.offset - rest) / grid as isize;
            }
            let rest = rest as usize;
            part.src[axis] = self.src[axis].saturating_sub(rest).div_ceil(grid);
            part.src_start += if part.src[axis] > 0 { rest * pitch } else { 0 };
            *(if axis == 0 { &mut part.src_row } else { &mut part.src_pitch }) = grid * pitch;
            part.step[axis] = step / common;
            part.out[axis] = (out - first).div_ceil(period);
            part.dst_origin[axis] += first * self.dst_step[axis];
            part.dst_step[axis] *= period;
            part.drop_dead_taps();
            part
        };
        let phases: Vec<_> = (0..period.min(out)).map(phase).collect();
        let alike = phases.len() * self.alike;
        phases.into_iter().map(|part| Problem { alike, ..part }).collect()
    }

    /// True where output `index` of the axis sees the source through a tap with this offset.
    fn sees(&self, axis: usize, index: usize, offset: isize) -> bool {
        let at = (index * self.step[axis]) as isize + offset;
        at >= 0 && at < self.src[axis] as isize
    }

    /// The part with the outputs from `start` to `end` of an axis, without the taps that they do not see.
    fn slice(&self, axis: usize, [start, end]: [usize; 2]) -> Problem {
        let mut part = self.clone();
        part.out[axis] = end - start;
        part.dst_origin[axis] += start * self.dst_step[axis];
        part.taps[axis].retain(|tap| (start..end).any(|index| self.sees(axis, index, tap.offset)));
        part.taps[axis].iter_mut().for_each(|tap| tap.offset += (start * self.step[axis]) as isize);
        part
    }
}

/// Pixels that take as long as the start of a part, which reads its filters again: from the second cache, or from beyond it.
const STARTS: [usize; 2] = [8, 32];
/// Filters up to this size stay in the second cache.
const NEAR_BYTES: usize = 512 << 10;
/// A cut has to save this share of the multiply-adds, in percent.
const LEAST_GAIN: usize = 12;

/// Pixels that take as long as the start of a part of `problem`.
fn start(problem: &Problem) -> usize {
    let filters = 4 * problem.k_c * problem.m_c * problem.taps[0].len() * problem.taps[1].len();
    STARTS[usize::from(filters > NEAR_BYTES)]
}

/// Cuts along the lines where taps begin or cease to see the source, where what is saved is worth it.
fn rectangles(problem: &Problem, tile: usize) -> Vec<Problem> {
    let lines = [0, 1].map(|axis| borders(problem, axis));
    if lines.iter().all(|lines| lines.len() == 2) {
        return vec![problem.clone()];
    }
    let start = start(problem);
    let cost = |cuts: &[Vec<usize>; 2]| cost(problem, cuts, tile, start);
    let whole = cost(&[vec![0, problem.out[0]], vec![0, problem.out[1]]]);
    let mut best = (whole * (100 - LEAST_GAIN) / 100, None);
    let shortest = [1, 2, 4, 8, 16, usize::MAX];
    for cuts in shortest.into_iter().flat_map(|rows| shortest.map(|columns| [rows, columns])) {
        let cuts = [0, 1].map(|axis| at_least(&lines[axis], cuts[axis]));
        let cost = cost(&cuts);
        if cost < best.0 {
            best = (cost, Some(cuts));
        }
    }
    let Some([rows, columns]) = best.1 else { return vec![problem.clone()] };
    let strips = rows.windows(2).map(|ends| problem.slice(0, [ends[0], ends[1]]));
    strips.flat_map(|strip| columns.windows(2).map(move |ends| strip.slice(1, [ends[0], ends[1]]))).collect()
}

/// The outputs of an axis before which the taps that see the source change, with both ends.
fn borders(problem: &Problem, axis: usize) -> Vec<usize> {
    let seen = |index: usize| problem.taps[axis].iter().map(move |tap| problem.sees(axis, index, tap.offset));
    let changes = (1..problem.out[axis]).filter(|&index| !seen(index).eq(seen(index - 1)));
    std::iter::once(0).chain(changes).chain([problem.out[axis]]).collect()
}

/// Leaves out lines until all parts have a length of `least`.
fn at_least(lines: &[usize], least: usize) -> Vec<usize> {
    let end = lines[lines.len() - 1];
    let mut kept = vec![0];
    for &line in &lines[1..lines.len() - 1] {
        if line - kept[kept.len() - 1] >= least && end - line >= least {
            kept.push(line);
        }
    }
    kept.push(end);
    kept
}

/// Products of pixels and taps of one image that the rectangles between `cuts` multiply.
fn cost(problem: &Problem, cuts: &[Vec<usize>; 2], tile: usize, start: usize) -> usize {
    // Length and taps of each strip of an axis.
    let strips = [0, 1].map(|axis| {
        let strip = |ends: &[usize]| {
            let seen = |offset| (ends[0]..ends[1]).any(|index| problem.sees(axis, index, offset));
            (ends[1] - ends[0], problem.taps[axis].iter().filter(|tap| seen(tap.offset)).count())
        };
        cuts[axis].windows(2).map(strip).collect::<Vec<_>>()
    });
    let pair = |(rows, row_taps): &(usize, usize), (columns, column_taps): &(usize, usize)| {
        (start + (rows * columns).next_multiple_of(tile)) * row_taps * column_taps
    };
    strips[0].iter().map(|rows| strips[1].iter().map(|columns| pair(rows, columns)).sum::<usize>()).sum()
}
