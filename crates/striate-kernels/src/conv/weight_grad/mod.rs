//! K2, the gradient of a convolution with respect to its filters.
//!
//! `dw[oc][ic][kh][kw]` is a sum over pixels of `x[pixel + tap][ic] * dy[pixel][oc]`: an outer product a pixel. A tile of the
//! gradient stays in registers while the pixels of a strip pass; strips of x and dy are packed so that they pass through
//! the first cache.
//!
//! Bits: each element is a chain over at most 4096 pixels in order, and these partial sums are added by a pairwise tree. Both
//! follow from the shape alone, so neither the number of threads nor the tile's size matters. Pixels whose tap lies in the
//! padding contribute nothing.

mod geometry;
mod pack;
mod plan;
mod run;
mod tile;
mod write;

use super::Conv2dShape;
use super::engine::Algorithms;
use super::lanes_grad::LanesWeightGrad;
use super::winograd::WinogradWeightGrad;
use crate::simd::Isa;
use crate::threads::{Team, part};
use plan::Cut;
use run::{JoinJob, Memory, UnitJob, join_tasks};

pub(super) use write::store_transposed;

/// The gradient of one convolution's filters, ready to run.
///
/// ```
/// use striate_kernels::conv::{Algorithms, Conv2dShape, WeightGradPlan};
/// use striate_kernels::{simd::isa, threads::Team};
/// // A filter of one element on a map of two pixels: dw = x0 dy0 + x1 dy1.
/// let shape = Conv2dShape { n: 1, ih: 1, iw: 2, ic: 1, oc: 1, kh: 1, kw: 1, stride: [1; 2], pads: [0; 4], dilation: [1; 2], groups: 1 };
/// let team = Team::new(1);
/// let plan = WeightGradPlan::new(shape, isa(), Algorithms::Exact);
/// let mut scratch = vec![0.0; plan.scratch_len(team.threads())];
/// let mut dw = [0.0];
/// plan.run(&team, &[2.0, 3.0], &[5.0, 7.0], &mut dw, &mut scratch);
/// assert_eq!(dw, [31.0]);
/// ```
#[derive(Debug)]
pub struct WeightGradPlan {
    shape: Conv2dShape,
    isa: Isa,
    kind: Kind,
}

/// Which kernel: the shape alone decides.
#[derive(Debug)]
enum Kind {
    /// Outer products.
    Tiles(Box<Cut>),
    /// Depthwise and small groups.
    Lanes(Box<LanesWeightGrad>),
    /// 3x3 filters by fewer multiply-adds.
    Winograd(Box<WinogradWeightGrad>),
}

impl WeightGradPlan {
    /// Decides how to compute the gradient for `shape`, which must be valid ([`Conv2dShape::check`]), with the instruction
    /// set `isa`. The batch decides too: a weight gradient belongs to training.
    pub fn new(shape: Conv2dShape, isa: Isa, algorithms: Algorithms) -> Self {
        let winograd = || match algorithms {
            Algorithms::Exact => None,
            _ => WinogradWeightGrad::choose(&shape, isa),
        };
        let kind = if let Some(lanes) = LanesWeightGrad::choose(&shape, isa) {
            Kind::Lanes(Box::new(lanes))
        } else if let Some(winograd) = winograd() {
            Kind::Winograd(Box::new(winograd))
        } else {
            Kind::Tiles(Box::new(Cut::new(&shape, isa)))
        };
        WeightGradPlan { shape, isa, kind }
    }

    #[cfg(test)]
    pub(super) fn with_winograd(shape: Conv2dShape, isa: Isa, winograd: WinogradWeightGrad) -> Self {
        WeightGradPlan { shape, isa, kind: Kind::Winograd(Box::new(winograd)) }
    }

    /// The shape it was made for.
    pub fn shape(&self) -> &Conv2dShape {
        &self.shape
    }

    /// The name of the kernel that runs: `conv2d_weight_grad_f32_<input x output channels of a tile>_<instruction set>`, or
    /// `conv2d_depthwise_weight_grad_f32_<sums x output channels>_…`, `conv2d_grouped_weight_grad_f32_…`,
    /// `conv2d_winograd4x4_weight_grad_f32_…`.
    pub fn kernel_name(&self) -> String {
        match &self.kind {
            Kind::Tiles(cut) => cut.kernel_name(self.isa),
            Kind::Lanes(lanes) => lanes.kernel_name(),
            Kind::Winograd(winograd) => winograd.kernel_name(),
        }
    }

    /// Floats of scratch that [`WeightGradPlan::run`] needs with a team of `threads`.
    pub fn scratch_len(&self, threads: usize) -> usize {
        match &self.kind {
            Kind::Tiles(cut) => cut.slots_floats() + threads * thread_floats(cut),
            Kind::Lanes(lanes) => lanes.scratch_len(threads),
            Kind::Winograd(winograd) => winograd.scratch_len(threads),
        }
    }

    /// Computes `dw`, [OC, IC/groups, KH, KW], from `x`, [N, IH, IW, IC], and `dy`, [N, OH, OW, OC]. What `scratch` holds
    /// before does not matter; it is fastest where it starts on 64 bytes.
    ///
    /// # Panics
    /// A slice's length is not that of the shape, or `scratch` is shorter than [`WeightGradPlan::scratch_len`].
    pub fn run(&self, team: &Team, x: &[f32], dy: &[f32], dw: &mut [f32], scratch: &mut [f32]) {
        let s = &self.shape;
        assert_eq!(
            (x.len(), dy.len(), dw.len()),
            (s.x_len(), s.y_len(), s.w_len()),
            "lengths of x, dy and dw for {s:?}"
        );
        assert!(scratch.len() >= self.scratch_len(team.threads()), "scratch of {} floats", scratch.len());
        if s.n == 0 {
            return dw.fill(0.0);
        }
        match &self.kind {
            Kind::Tiles(cut) => self.run_tiles(cut, team, [x, dy], dw, scratch),
            Kind::Lanes(lanes) => lanes.run(team, x, dy, dw, scratch),
            Kind::Winograd(winograd) => winograd.run(team, [x, dy], dw, scratch),
        }
    }

    fn run_tiles(&self, cut: &Cut, team: &Team, [x, dy]: [&[f32]; 2], dw: &mut [f32], scratch: &mut [f32]) {
        let slots = scratch.as_mut_ptr();
        let memory = Memory { x: x.as_ptr(), dy: dy.as_ptr(), dw: dw.as_mut_ptr(), slots };
        let shared = Shared { memory, threads: slots.wrapping_add(cut.slots_floats()) };
        team.run(|index, count| {
            let shared = &shared;
            let splits = cut.splits(count);
            let scratch = shared.threads.wrapping_add(index * thread_floats(cut));
            for unit in part(cut.slots * cut.shape.groups * splits.0 * splits.1, index, count) {
                self.run_unit(cut, shared.memory, cut.unit(unit, splits), scratch);
            }
        });
        if !cut.direct {
            team.for_each(join_tasks(cut), |task| {
                let shared = &shared;
                self.isa.dispatch(JoinJob { cut, memory: shared.memory, task });
            });
        }
    }

    fn run_unit(&self, cut: &Cut, memory: Memory, unit: plan::Unit, scratch: *mut f32) {
        macro_rules! tiles {
            ($(($mr:literal, $nv:literal))*) => {
                match (cut.mr, cut.nv) {
                    $(($mr, $nv) => self.isa.dispatch(UnitJob::<$mr, $nv> { cut, memory, unit, scratch }),)*
                    (mr, nv) => unreachable!("no tile of {mr}x{nv}"),
                }
            };
        }
        tiles! {
            (8, 3) (4, 3) (6, 4)
            (12, 2) (11, 2) (10, 2) (9, 2) (8, 2) (7, 2) (6, 2) (5, 2) (4, 2) (3, 2) (2, 2) (1, 2)
            (16, 1) (12, 1) (9, 1) (8, 1) (6, 1) (4, 1) (3, 1) (2, 1) (1, 1)
        }
    }
}

/// Floats of one thread's scratch.
fn thread_floats(cut: &Cut) -> usize {
    cut.thread_floats().iter().sum()
}

/// Pointers that the threads of one run share.
struct Shared {
    memory: Memory,
    threads: *mut f32,
}

// SAFETY: x and dy are only read; units and join tasks write disjoint parts of dw and of the slots, and each thread its own
// part of the scratch.
unsafe impl Sync for Shared {}

#[cfg(test)]
mod tests;
