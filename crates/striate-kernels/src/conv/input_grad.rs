//! The gradient of a convolution with respect to its input.

use super::check_len;
use super::columns::{Columns, Scatter};
use super::direct::{AxisTap, Buffers, Problem};
use super::engine::{Algorithms, Engine, Weights};
use super::epilogue::Activation;
use super::forward::forward_problem;
use super::shape::Conv2dShape;
use super::strided::Strided;
use super::sum::Sum;
use crate::mem::DisjointMut;
use crate::simd::Isa;
use crate::threads::Team;

/// What is done to an input gradient before it is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct GradEpilogue<'a> {
    /// Added, [N, IH, IW, IC]: what flows back on another way.
    pub residual: Option<&'a [f32]>,
    /// The output of a clipping activation that made the input, [N, IH, IW, IC], and its bounds: the sum passes where it is
    /// above the first and below the second.
    pub mask: Option<(&'a [f32], [f32; 2])>,
}

/// How the input gradient of one shape is done with one instruction set.
///
/// It is the forward kernel with input and output channels exchanged. A stride of `s` makes `s` phases an axis: the input
/// pixels with the same remainder see the same taps, so each phase is a dense convolution of its own.
/// All phases at once are taken from the side of `dy` where there are few input channels (`columns.rs`), and pixel by pixel where it is
/// depthwise (`strided.rs`).
#[derive(Clone, Debug)]
pub struct InputGradPlan {
    shape: Conv2dShape,
    isa: Isa,
    sum: Sum,
}

impl InputGradPlan {
    /// Plans the gradient; `shape` is that of the forward convolution.
    ///
    /// # Panics
    /// Where `shape.check()` is an error.
    pub fn new(shape: Conv2dShape, isa: Isa, algorithms: Algorithms) -> Self {
        shape.check().unwrap_or_else(|e| panic!("{e}"));
        let weights = Weights::input_grad(&shape);
        let scatter = Scatter::input_grad(&forward_problem(&shape));
        if let Some(strided) = Strided::choose(&scatter, isa, weights) {
            return Self::with_sum(shape, isa, Sum::with_engines(vec![(0, Engine::Strided(Box::new(strided)))]));
        }
        if let Some(columns) = Columns::choose(scatter, isa, weights, algorithms) {
            return Self::with_sum(shape, isa, Sum::with_engines(vec![(0, Engine::Columns(Box::new(columns)))]));
        }
        let rows = 0..shape.stride[0].min(shape.ih);
        let origins = rows.flat_map(|r| (0..shape.stride[1].min(shape.iw)).map(move |c| [r, c]));
        let phases = origins.map(|origin| phase_problem(&shape, origin)).collect();
        Self::with_sum(shape, isa, Sum::new(phases, isa, weights, algorithms))
    }

    pub(super) fn with_sum(shape: Conv2dShape, isa: Isa, sum: Sum) -> Self {
        InputGradPlan { shape, isa, sum }
    }

    /// The forward convolution's shape.
    pub fn shape(&self) -> &Conv2dShape {
        &self.shape
    }

    /// The kernel's name: `conv2d_input_grad_f32_` (`conv2d_depthwise_input_grad_f32_`, …), the tile as pixels x input
    /// channels, the instruction set.
    pub fn kernel_name(&self) -> String {
        format!("{}_{}", self.sum.name("_input_grad"), self.isa)
    }

    /// Floats of the packed filters.
    pub fn packed_len(&self) -> usize {
        self.sum.packed_len()
    }

    /// How the filters are packed; as [`super::ForwardPlan::packing`].
    pub fn packing(&self) -> String {
        self.sum.packing()
    }

    /// Packs filters [OC, IC/groups, KH, KW] to `packed`, which has at least [`InputGradPlan::packed_len`] floats.
    pub fn pack(&self, team: &Team, w_oihw: &[f32], packed: &mut [f32]) {
        check_len("w", w_oihw.len(), self.shape.w_len());
        self.sum.pack(team, w_oihw, packed);
    }

    /// Floats of scratch that [`InputGradPlan::run`] needs with a team of `threads`.
    pub fn scratch_len(&self, threads: usize) -> usize {
        self.sum.scratch_len(threads)
    }

    /// `dx` [N, IH, IW, IC] from `dy` [N, OH, OW, OC]. All of `dx` is written.
    ///
    /// # Panics
    /// Where a buffer has not the size that the shape asks for.
    pub fn run(
        &self,
        team: &Team,
        dy: &[f32],
        packed: &[f32],
        epilogue: GradEpilogue,
        dx: &mut [f32],
        scratch: &mut [f32],
    ) {
        check_len("dy", dy.len(), self.shape.y_len());
        check_len("dx", dx.len(), self.shape.x_len());
        let GradEpilogue { residual, mask } = epilogue;
        residual.iter().for_each(|residual| check_len("the residual", residual.len(), self.shape.x_len()));
        mask.iter().for_each(|(mask, _)| check_len("the mask", mask.len(), self.shape.x_len()));
        assert!(packed.len() >= self.packed_len(), "packed filters: {} floats", packed.len());
        let (bias, activation, partials) = (None, Activation::None, None);
        let y = DisjointMut::new(dx);
        let buffers = Buffers { x: dy, packed, bias, residual, activation, mask, y, partials, first_block: 0 };
        // SAFETY: the sizes were checked.
        unsafe { self.sum.run(team, &buffers, scratch) };
    }
}

/// The input pixels `origin + i * stride`, as a dense sum over dy.
pub(super) fn phase_problem(shape: &Conv2dShape, origin: [usize; 2]) -> Problem {
    let (kernel, size) = ([shape.kh, shape.kw], [shape.ih, shape.iw]);
    let out = [0, 1].map(|axis| (size[axis] - origin[axis]).div_ceil(shape.stride[axis]));
    let taps = [0, 1].map(|axis| {
        let stride = shape.stride[axis] as isize;
        // Input i is read by output (i + pad - k * dilation) / stride where that is whole. Last taps first: offsets ascend.
        let at = |k: usize| (origin[axis] + shape.pads[axis]) as isize - (k * shape.dilation[axis]) as isize;
        let whole = (0..kernel[axis]).rev().filter(|&k| at(k).rem_euclid(stride) == 0);
        whole.map(|index| AxisTap { index, offset: at(index).div_euclid(stride) }).collect()
    });
    Problem {
        n: shape.n,
        groups: shape.groups,
        src: [shape.oh(), shape.ow()],
        out,
        dst: size,
        dst_step: shape.stride,
        dst_origin: origin,
        step: [1, 1],
        taps,
        k_c: shape.oc_per_group(),
        m_c: shape.ic_per_group(),
        src_start: 0,
        src_pitch: shape.oc,
        src_row: shape.ow() * shape.oc,
        src_image: shape.oh() * shape.ow() * shape.oc,
        dst_pitch: shape.ic,
        alike: 1,
    }
}
