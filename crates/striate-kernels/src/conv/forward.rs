//! The forward convolution.

use super::check_len;
use super::columns::{Columns, Scatter};
use super::direct::{AxisTap, Buffers, Problem};
use super::engine::{Algorithms, Engine, Weights};
use super::epilogue::Epilogue;
use super::shape::Conv2dShape;
use super::stats;
use super::sum::Sum;
use crate::mem::DisjointMut;
use crate::simd::Isa;
use crate::threads::{Team, part};

/// How a forward convolution of one shape is done with one instruction set.
///
/// The choice looks at the geometry alone, so an image has the same bits alone and in any batch, with any number of threads.
///
/// ```
/// use striate_kernels::conv::{Algorithms, Conv2dShape, Epilogue, ForwardArgs, ForwardPlan};
/// use striate_kernels::{simd::isa, threads::Team};
/// let shape = Conv2dShape { n: 1, ih: 3, iw: 3, ic: 1, oc: 1, kh: 3, kw: 3, stride: [1, 1], pads: [1; 4], dilation: [1, 1], groups: 1 };
/// let (team, plan) = (Team::new(1), ForwardPlan::new(shape, isa(), Algorithms::Fast));
/// let mut packed = vec![0.0; plan.packed_len()];
/// plan.pack(&team, &[1.0; 9], &mut packed);
/// let mut y = vec![0.0; shape.y_len()];
/// let mut scratch = vec![0.0; plan.scratch_len(team.threads())];
/// let args = ForwardArgs { x: &[1.0; 9], packed: &packed, epilogue: Epilogue::default(), stats: None, y: &mut y, scratch: &mut scratch };
/// plan.run(&team, args);
/// assert_eq!(y, [4.0, 6.0, 4.0, 6.0, 9.0, 6.0, 4.0, 6.0, 4.0]);
/// ```
#[derive(Clone, Debug)]
pub struct ForwardPlan {
    shape: Conv2dShape,
    isa: Isa,
    sum: Sum,
    /// Floats from one pixel to the next, of input and output.
    pitches: [usize; 2],
}

/// What [`ForwardPlan::run`] reads and writes.
pub struct ForwardArgs<'a> {
    /// Input, [N, IH, IW, IC].
    pub x: &'a [f32],
    /// Filters as [`ForwardPlan::pack`] wrote them.
    pub packed: &'a [f32],
    /// Bias, residual and activation.
    pub epilogue: Epilogue<'a>,
    /// Gets mean and biased variance of each channel of `y` (as written, activation included), [2, OC].
    pub stats: Option<&'a mut [f32]>,
    /// Output, [N, OH, OW, OC].
    pub y: &'a mut [f32],
    /// At least [`ForwardPlan::scratch_len`] floats, contents of no meaning before and after.
    pub scratch: &'a mut [f32],
}

impl ForwardPlan {
    /// Plans the convolution.
    ///
    /// # Panics
    /// Where `shape.check()` is an error.
    pub fn new(shape: Conv2dShape, isa: Isa, algorithms: Algorithms) -> Self {
        Self::pitched(shape, isa, algorithms, [shape.ic, shape.oc])
    }

    /// As [`ForwardPlan::new`], for input and output that are some channels of larger arrays: `pitches` has the floats from one pixel to
    /// the next in each. Slices of them begin at the first pixel's first channel and end behind the last pixel's last. The residual lies as
    /// the output does.
    ///
    /// # Panics
    /// As there; where a pitch is less than the channels.
    pub fn pitched(shape: Conv2dShape, isa: Isa, algorithms: Algorithms, pitches: [usize; 2]) -> Self {
        shape.check().unwrap_or_else(|e| panic!("{e}"));
        assert!(pitches[0] >= shape.ic && pitches[1] >= shape.oc, "convolution: pitches {pitches:?} of {shape:?}");
        let source = Problem { dst_pitch: pitches[1], ..forward_problem(&shape) }.with_src_pitch(pitches[0]);
        let weights = Weights::forward(&shape);
        let columns = Scatter::forward(&source).and_then(|scatter| Columns::choose(scatter, isa, weights, algorithms));
        let sum = match columns {
            Some(columns) => Sum::with_engines(vec![(0, Engine::Columns(Box::new(columns)))]),
            None => Sum::new(vec![source], isa, weights, algorithms),
        };
        let plan = Self::with_sum(shape, isa, sum);
        ForwardPlan { pitches, ..plan }
    }

    pub(super) fn with_sum(shape: Conv2dShape, isa: Isa, sum: Sum) -> Self {
        ForwardPlan { shape, isa, pitches: [shape.ic, shape.oc], sum }
    }

    /// The shape that was planned.
    pub fn shape(&self) -> &Conv2dShape {
        &self.shape
    }

    /// The kernel's name: `conv2d_f32_` (`conv2d_depthwise_f32_`, `conv2d_grouped_f32_`), the tile as pixels x output
    /// channels, the instruction set.
    pub fn kernel_name(&self) -> String {
        format!("{}_{}", self.sum.name(""), self.isa)
    }

    /// Floats of the packed filters.
    pub fn packed_len(&self) -> usize {
        self.sum.packed_len()
    }

    /// How the filters are packed. Plans for the same layer and pass may share packed filters only where this is the same: the
    /// best order may differ between batch sizes.
    pub fn packing(&self) -> String {
        self.sum.packing()
    }

    /// Packs filters [OC, IC/groups, KH, KW] to `packed`, which has at least [`ForwardPlan::packed_len`] floats.
    pub fn pack(&self, team: &Team, w_oihw: &[f32], packed: &mut [f32]) {
        check_len("w", w_oihw.len(), self.shape.w_len());
        self.sum.pack(team, w_oihw, packed);
    }

    /// Floats of scratch that [`ForwardPlan::run`] needs with a team of `threads`.
    pub fn scratch_len(&self, threads: usize) -> usize {
        self.sum.scratch_len(threads) + self.sum.partials_len(self.shape.oc)
    }

    /// `y = activation(conv(x, w) + bias + residual)`.
    ///
    /// # Panics
    /// Where a buffer has not the size that the shape asks for.
    pub fn run(&self, team: &Team, args: ForwardArgs) {
        let shape = &self.shape;
        let [x_len, y_len] = self.lens();
        check_len("x", args.x.len(), x_len);
        check_len("y", args.y.len(), y_len);
        assert!(args.packed.len() >= self.packed_len(), "packed filters: {} floats", args.packed.len());
        args.epilogue.bias.inspect(|b| check_len("bias", b.len(), shape.oc));
        args.epilogue.residual.inspect(|r| check_len("residual", r.len(), y_len));
        args.stats.as_ref().inspect(|s| check_len("stats", s.len(), 2 * shape.oc));
        let have = args.scratch.len();
        let (partials, bands) = args
            .scratch
            .split_at_mut_checked(self.sum.partials_len(shape.oc))
            .unwrap_or_else(|| panic!("convolution: scratch has {have} floats"));
        let buffers = Buffers {
            x: args.x,
            packed: args.packed,
            bias: args.epilogue.bias,
            residual: args.epilogue.residual,
            activation: args.epilogue.activation,
            mask: None,
            y: DisjointMut::new(args.y),
            partials: args.stats.as_ref().map(|_| DisjointMut::new(&mut *partials)),
            first_block: 0,
        };
        // SAFETY: the sizes were checked.
        unsafe { self.sum.run(team, &buffers, bands) };
        if let Some(out) = args.stats {
            self.merge(team, partials, out);
        }
    }

    /// Floats from the first of input and output to the last.
    fn lens(&self) -> [usize; 2] {
        let shape = &self.shape;
        [(shape.x_len(), shape.ic, self.pitches[0]), (shape.y_len(), shape.oc, self.pitches[1])]
            .map(|(len, channels, pitch)| if len == 0 { 0 } else { (len / channels - 1) * pitch + channels })
    }

    fn merge(&self, team: &Team, partials: &[f32], out: &mut [f32]) {
        if self.sum.blocks().is_empty() {
            return out.fill(0.0);
        }
        let channels = self.shape.oc;
        let out = DisjointMut::new(out);
        team.run(|index, count| {
            let range = part(channels, index, count);
            // SAFETY: each thread has its own channels.
            let halves =
                unsafe { [out.slice_mut(range.clone()), out.slice_mut(channels + range.start..channels + range.end)] };
            stats::merge(partials, self.sum.blocks(), channels, range, halves);
        });
    }
}

/// The sum that a forward convolution is.
pub(super) fn forward_problem(shape: &Conv2dShape) -> Problem {
    let (kernel, out) = ([shape.kh, shape.kw], [shape.oh(), shape.ow()]);
    let [m_c, k_c] = [shape.oc_per_group(), shape.ic_per_group()];
    let taps = [0, 1].map(|axis| {
        let at = |k: usize| (k * shape.dilation[axis]) as isize - shape.pads[axis] as isize;
        (0..kernel[axis]).map(|index| AxisTap { index, offset: at(index) }).collect()
    });
    Problem {
        n: shape.n,
        groups: shape.groups,
        src: [shape.ih, shape.iw],
        out,
        dst: out,
        dst_step: [1, 1],
        dst_origin: [0, 0],
        step: shape.stride,
        taps,
        k_c,
        m_c,
        src_start: 0,
        src_pitch: shape.ic,
        src_row: shape.iw * shape.ic,
        src_image: shape.ih * shape.iw * shape.ic,
        dst_pitch: shape.oc,
        alike: 1,
    }
}
