//! The kernels that compute a sliding-window sum, behind one face: which one, is decided by the layer's geometry alone.

use super::bands::Bands;
use super::columns::Columns;
use super::depthwise::Depthwise;
use super::direct::{Buffers, Direct, Problem};
use super::lanes::Lanes;
use super::pack::FilterLayout;
use super::shape::Conv2dShape;
use super::strided::Strided;
use super::taps::Taps;
use super::winograd::Winograd;
use crate::mem::DisjointMut;
use crate::simd::{Isa, Kernel, Simd};
use std::ops::Range;

/// Where the weight of output channel `m` of a group, summed channel `k` and tap `t` lies in OIHW: `group * group_stride + m *
/// m_stride + k * k_stride + t`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights {
    /// Filter columns.
    pub kw: usize,
    pub group_stride: usize,
    pub m_stride: usize,
    pub k_stride: usize,
}

impl Weights {
    /// For the sum over input channels.
    pub fn forward(shape: &Conv2dShape) -> Self {
        let size = shape.kh * shape.kw;
        let filter = shape.ic_per_group() * size;
        Weights { kw: shape.kw, group_stride: shape.oc_per_group() * filter, m_stride: filter, k_stride: size }
    }

    /// For the sum over output channels.
    pub fn input_grad(shape: &Conv2dShape) -> Self {
        let forward = Self::forward(shape);
        Weights { m_stride: forward.k_stride, k_stride: forward.m_stride, ..forward }
    }
}

/// A planned [`Problem`] and how its filters are packed.
#[derive(Clone, Debug)]
pub(super) enum Engine {
    /// Pixels by vectors of output channels: implicit GEMM.
    Direct(Box<(Direct, FilterLayout)>),
    /// The same tap by tap, each for the outputs that see the source through it.
    Taps(Box<(Taps, FilterLayout)>),
    /// A tap and an output channel in each lane: few output channels. A plan of its own, for all steps at once.
    Columns(Box<Columns>),
    /// Pixel by pixel: the input gradient of depthwise convolutions that step, for all steps at once.
    Strided(Box<Strided>),
    /// Lane by lane, read where the source lies: depthwise.
    Depthwise(Box<Depthwise>),
    /// Lane by lane, from packed planes: small groups, and other depthwise ones.
    Lanes(Box<Lanes>),
    /// 3x3 filters by fewer multiply-adds.
    Winograd(Box<Winograd>),
}

/// What plans have in common: items that threads share, in bands of outputs.
pub(super) trait Plan {
    fn isa(&self) -> Isa;

    fn bands(&self) -> &Bands;

    /// Does the items of `range`; `scratch` has as many floats as the plan says.
    ///
    /// # Safety
    /// As [`Engine::run_items`].
    unsafe fn run<S: Simd>(&self, s: S, buffers: &Buffers, range: Range<usize>, scratch: &mut [f32]);
}

/// Does the items of `range` of a plan with the instructions that it was made for.
///
/// # Safety
/// As [`Engine::run_items`].
pub(super) unsafe fn run_items<P: Plan>(plan: &P, buffers: &Buffers, range: Range<usize>, scratch: &mut [f32]) {
    if !range.is_empty() {
        plan.isa().dispatch(Items { plan, buffers, range, scratch });
    }
}

/// The items of one thread.
struct Items<'a, P> {
    plan: &'a P,
    buffers: &'a Buffers<'a>,
    range: Range<usize>,
    scratch: &'a mut [f32],
}

impl<P: Plan> Kernel for Items<'_, P> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: by the contract of `run_items`, which alone makes these.
        unsafe { self.plan.run(s, self.buffers, self.range, self.scratch) };
    }
}

/// Which kernels may be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithms {
    /// Also Winograd's minimal filtering, whose rounding errors are a few times larger. The layer's geometry alone decides.
    #[default]
    Fast,
    /// As `Fast`, for a step of training: the batch decides too, and the filters are packed anew each time.
    FastTraining,
    /// Direct sums alone.
    Exact,
}

macro_rules! each {
    ($engine:expr, $e:ident => $call:expr) => {{
        macro_rules! of {
            ($plan:expr) => {{
                let $e = $plan;
                $call
            }};
        }
        match $engine {
            Engine::Direct(pair) => of!(&pair.0),
            Engine::Taps(pair) => of!(&pair.0),
            Engine::Columns(plan) => of!(&**plan),
            Engine::Strided(plan) => of!(&**plan),
            Engine::Depthwise(plan) => of!(&**plan),
            Engine::Lanes(plan) => of!(&**plan),
            Engine::Winograd(plan) => of!(&**plan),
        }
    }};
}

impl Engine {
    pub fn new(problem: Problem, isa: Isa, w: Weights, algorithms: Algorithms) -> Self {
        if Depthwise::suits(&problem, isa) {
            return Engine::Depthwise(Box::new(Depthwise::new(problem, isa, w)));
        }
        if Lanes::suits(&problem, isa) {
            return Engine::Lanes(Box::new(Lanes::new(problem, isa, w)));
        }
        if let Some(winograd) = Winograd::choose(&problem, isa, w, algorithms) {
            return Engine::Winograd(Box::new(winograd));
        }
        let (channels, groups) = ([problem.m_c, problem.k_c], problem.groups);
        let filters = |layout| FilterLayout {
            group_stride: w.group_stride,
            m_stride: w.m_stride,
            k_stride: w.k_stride,
            ..layout
        };
        if Taps::is_worth(&problem) {
            let taps = Taps::new(problem, isa);
            let layout = FilterLayout::of_taps(taps.used_taps(w.kw), isa, taps.nv(), channels, groups);
            return Engine::Taps(Box::new((taps, filters(layout))));
        }
        let direct = Direct::new(problem, isa);
        let layout = FilterLayout::new(&direct, isa, w.kw, channels, groups);
        Engine::Direct(Box::new((direct, filters(layout))))
    }

    /// The middle of the kernel's name: what kind, for which pass, and the tile as pixels x output channels.
    pub fn name(&self, pass: &str) -> String {
        let (kind, (pixels, channels)) = match self {
            Engine::Direct(pair) => ("conv2d", pair.0.tile()),
            Engine::Taps(pair) => ("conv2d_taps", pair.0.tile()),
            Engine::Columns(columns) => ("conv2d_columns", columns.tile()),
            Engine::Strided(strided) => ("conv2d_depthwise", strided.tile()),
            Engine::Depthwise(depthwise) if depthwise.is_depthwise() => ("conv2d_depthwise", depthwise.tile()),
            Engine::Depthwise(depthwise) => ("conv2d_grouped", depthwise.tile()),
            Engine::Lanes(lanes) if lanes.is_depthwise() => ("conv2d_depthwise", lanes.tile()),
            Engine::Lanes(lanes) => ("conv2d_grouped", lanes.tile()),
            Engine::Winograd(winograd) if winograd.edge() == 2 => ("conv2d_winograd2x2", winograd.tile()),
            Engine::Winograd(winograd) => ("conv2d_winograd4x4", winograd.tile()),
        };
        format!("{kind}{pass}_f32_{pixels}x{channels}")
    }

    /// What decides the order of the packed filters: the kind, the channels of a block, and the taps as kh * KW + kw.
    pub fn packing(&self) -> String {
        let (kind, channels, taps) = match self {
            Engine::Direct(pair) => ("direct", pair.0.tile().1, pair.1.taps.clone()),
            Engine::Taps(pair) => ("direct", pair.0.tile().1, pair.1.taps.clone()),
            Engine::Columns(columns) => ("columns", columns.tile().1, columns.used_taps()),
            Engine::Strided(strided) => ("strided", strided.tile().1, strided.used_taps()),
            Engine::Depthwise(depthwise) => ("depthwise", depthwise.tile().1, depthwise.used_taps()),
            Engine::Lanes(lanes) => ("lanes", lanes.tile().1, lanes.products().1.to_vec()),
            Engine::Winograd(winograd) if winograd.edge() == 2 => {
                ("winograd2x2", winograd.tile().1, winograd.used_taps())
            }
            Engine::Winograd(winograd) => ("winograd4x4", winograd.tile().1, winograd.used_taps()),
        };
        format!("{kind} {channels} {taps:?}")
    }

    /// Floats of the packed filters.
    pub fn packed_len(&self) -> usize {
        match self {
            Engine::Direct(pair) => pair.1.packed_len(),
            Engine::Taps(pair) => pair.1.packed_len(),
            Engine::Columns(columns) => columns.packed_len(),
            Engine::Strided(strided) => strided.packed_len(),
            Engine::Depthwise(depthwise) => depthwise.packed_len(),
            Engine::Lanes(lanes) => lanes.packed_len(),
            Engine::Winograd(winograd) => winograd.packed_len(),
        }
    }

    /// Independent tasks of packing.
    pub fn pack_tasks(&self) -> usize {
        match self {
            Engine::Direct(pair) => pair.1.tasks(),
            Engine::Taps(pair) => pair.1.tasks(),
            Engine::Columns(columns) => columns.pack_tasks(),
            Engine::Strided(strided) => strided.pack_tasks(),
            Engine::Depthwise(depthwise) => depthwise.vectors(),
            Engine::Lanes(lanes) => lanes.vectors(),
            Engine::Winograd(winograd) => winograd.pack_tasks(),
        }
    }

    /// Packs one task's part of the filters, OIHW, to `packed`.
    pub fn pack_task(&self, task: usize, w: &[f32], packed: DisjointMut<f32>) {
        match self {
            Engine::Direct(pair) => pair.1.pack_task(task, w, packed),
            Engine::Taps(pair) => pair.1.pack_task(task, w, packed),
            Engine::Columns(columns) => columns.pack_task(task, w, packed),
            Engine::Strided(strided) => strided.pack_task(task, w, packed),
            Engine::Depthwise(depthwise) => depthwise.pack_task(task, w, packed),
            Engine::Lanes(lanes) => lanes.pack_task(task, w, packed),
            Engine::Winograd(winograd) => winograd.pack_task(task, w, packed),
        }
    }

    /// Floats of scratch that one thread needs.
    pub fn band_len(&self) -> usize {
        match self {
            Engine::Direct(pair) => pair.0.band_len(),
            Engine::Taps(pair) => pair.0.band_len(),
            Engine::Columns(columns) => columns.band_len(),
            Engine::Depthwise(_) | Engine::Strided(_) => 0,
            Engine::Lanes(lanes) => lanes.band_len(),
            Engine::Winograd(winograd) => winograd.band_len(),
        }
    }

    /// Number of independent pieces of work.
    pub fn items(&self) -> usize {
        each!(self, e => e.items())
    }

    /// The cost of one item, in multiply-adds.
    pub fn item_cost(&self) -> usize {
        each!(self, e => e.item_cost())
    }

    /// Pixels of each block of the statistics, in order; the shape alone decides.
    pub fn stat_blocks(&self) -> Vec<usize> {
        each!(self, e => e.bands().stat_blocks())
    }

    /// Does the items of `range`; `scratch` has [`Engine::band_len`] floats.
    ///
    /// # Safety
    /// The buffers have the sizes of the problem, and no one else writes what these items write: their outputs, and their
    /// part of the partial statistics.
    pub unsafe fn run_items(&self, buffers: &Buffers, range: Range<usize>, scratch: &mut [f32]) {
        // SAFETY: by contract.
        unsafe { each!(self, e => run_items(e, buffers, range, scratch)) }
    }
}
