//! A 1x1 convolution and the depthwise one behind it, by bands of rows: what lies between stays in the second cache.
//!
//! The expansion of an inverted residual is the largest value of its net and is read by one step alone. Here some of its rows are made,
//! read by the depthwise filters, and made anew. The sums are those of the two convolutions by themselves, in the same order: so are the bits.

use super::depthwise::Depthwise;
use super::direct::{Buffers, Direct, Problem};
use super::engine::{Weights, run_items};
use super::epilogue::Activation;
use super::forward::forward_problem;
use super::pack::FilterLayout;
use super::shape::Conv2dShape;
use super::{align_scratch, check_len};
use crate::mem::DisjointMut;
use crate::simd::Isa;
use crate::threads::{Team, part};
use std::ops::Range;

/// Bytes of rows between the convolutions that stay in the second cache beside what the first one reads.
const BETWEEN_BYTES: usize = 384 << 10;
/// Floats that alignment may cost.
const SLACK: usize = 16;

/// How a 1x1 convolution and a depthwise one that alone reads its output are done together.
#[derive(Clone, Debug)]
pub struct PairPlan {
    shapes: [Conv2dShape; 2],
    isa: Isa,
    filters: FilterLayout,
    /// Output rows of a band.
    band_rows: usize,
    /// The first convolution for each number of rows that a band adds, the second for each kind of band.
    firsts: Vec<(usize, Direct)>,
    seconds: Vec<(Window, Depthwise)>,
}

/// What a band of outputs sees of the rows between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    /// Rows between the convolutions.
    rows: usize,
    /// Rows of padding above them.
    above: usize,
    /// Output rows.
    outputs: usize,
}

/// Filters, bias and activation of one of the two.
#[derive(Clone, Copy, Debug)]
pub struct PairLayer<'a> {
    /// Filters as [`PairPlan::pack`] wrote them.
    pub packed: &'a [f32],
    /// `[OC]`.
    pub bias: Option<&'a [f32]>,
    /// Applied to the sum with the bias.
    pub activation: Activation,
}

/// What [`PairPlan::run`] reads and writes.
pub struct PairArgs<'a> {
    /// Input, [N, H, W, C].
    pub x: &'a [f32],
    /// The two convolutions.
    pub layers: [PairLayer<'a>; 2],
    /// Output, [N, OH, OW, OC].
    pub y: &'a mut [f32],
    /// At least [`PairPlan::scratch_len`] floats.
    pub scratch: &'a mut [f32],
}

impl PairPlan {
    /// The plan, where doing both together is worth it: `first` is a 1x1 convolution of all channels and pixels, `second` a
    /// depthwise one, and what lies between does not stay in the second cache as a whole.
    pub fn choose(first: Conv2dShape, second: Conv2dShape, isa: Isa) -> Option<PairPlan> {
        let pointwise = [first.kh, first.kw, first.groups] == [1; 3] && first.stride == [1, 1] && first.pads == [0; 4];
        let depthwise = second.is_depthwise()
            && second.dilation == [1, 1]
            && second.pads[..2].iter().all(|&p| p < second.kh.min(second.kw));
        let meets = [first.n, first.oc, first.oh(), first.ow()] == [second.n, second.ic, second.ih, second.iw];
        let large = 4 * second.ih * second.iw * second.ic > BETWEEN_BYTES;
        if !(pointwise
            && depthwise
            && meets
            && large
            && second.n > 0
            && Depthwise::suits(&forward_problem(&second), isa))
        {
            return None;
        }
        let fits = BETWEEN_BYTES / (4 * second.iw * second.ic);
        let most = (fits.saturating_sub(second.kh) / second.stride[0] + 1).min(second.oh());
        let bands = second.oh().div_ceil(most);
        let band_rows = second.oh().div_ceil(bands);
        let mut plan = PairPlan {
            shapes: [first, second],
            isa,
            filters: filters(&first, &Direct::new(forward_problem(&first), isa), isa),
            band_rows,
            firsts: Vec::new(),
            seconds: Vec::new(),
        };
        plan.place();
        // A tile of another width would need its filters in another order.
        plan.firsts.iter().all(|(_, direct)| direct.nv() == plan.filters.nv).then_some(plan)
    }

    /// Plans each number of rows and each kind of band that there are.
    fn place(&mut self) {
        let [first, second] = self.shapes;
        for band in 0..self.bands_per_image() {
            let (rows, window) = self.window(band);
            let fresh = if band == 0 { rows.len() } else { rows.end - self.window(band - 1).0.end };
            for count in [rows.len(), fresh] {
                if count > 0 && !self.firsts.iter().any(|(rows, _)| *rows == count) {
                    let problem = forward_problem(&Conv2dShape { n: 1, ih: count, ..first });
                    self.firsts.push((count, Direct::new(problem, self.isa)));
                }
            }
            if !self.seconds.iter().any(|(known, _)| *known == window) {
                let whole = forward_problem(&second);
                let mut taps = whole.taps.clone();
                taps[0].iter_mut().for_each(|tap| tap.offset += second.pads[0] as isize - window.above as isize);
                let rows = [window.rows, whole.src[1]];
                let out = [window.outputs, whole.out[1]];
                let problem = Problem { n: 1, src: rows, out, dst: out, taps, ..whole };
                self.seconds.push((window, Depthwise::new(problem, self.isa, Weights::forward(&second))));
            }
        }
    }

    fn bands_per_image(&self) -> usize {
        self.shapes[1].oh().div_ceil(self.band_rows)
    }

    /// The rows between that a band sees, and how.
    fn window(&self, band: usize) -> (Range<usize>, Window) {
        let second = &self.shapes[1];
        let outputs = band * self.band_rows..((band + 1) * self.band_rows).min(second.oh());
        let first = (outputs.start * second.stride[0]) as isize - second.pads[0] as isize;
        let last = ((outputs.end - 1) * second.stride[0] + second.kh) as isize - second.pads[0] as isize;
        let rows = first.max(0) as usize..(last.max(0) as usize).min(second.ih);
        let rows = rows.start.min(rows.end)..rows.end;
        (rows.clone(), Window { rows: rows.len(), above: (-first).max(0) as usize, outputs: outputs.len() })
    }

    /// The kernel's name.
    pub fn kernel_name(&self) -> String {
        let (pixels, channels) = self.firsts[0].1.tile();
        format!("conv2d_expand_depthwise_f32_{pixels}x{channels}_{}", self.isa)
    }

    /// The order of the packed filters, for sharing them.
    pub fn packing(&self) -> String {
        format!("pair {}", self.filters.nv)
    }

    /// Floats of the packed filters of each.
    pub fn packed_lens(&self) -> [usize; 2] {
        [self.filters.packed_len(), self.seconds[0].1.packed_len()]
    }

    /// Packs the filters [OC, IC/groups, KH, KW] of the first or second convolution.
    ///
    /// # Panics
    /// Where a slice is too short.
    pub fn pack(&self, which: usize, team: &Team, w_oihw: &[f32], packed: &mut [f32]) {
        check_len("w", w_oihw.len(), self.shapes[which].w_len());
        let parts = DisjointMut::new(&mut packed[..self.packed_lens()[which]]);
        match which {
            0 => team.for_each(self.filters.tasks(), |task| self.filters.pack_task(task, w_oihw, parts)),
            _ => {
                let plan = &self.seconds[0].1;
                team.for_each(plan.vectors(), |vector| plan.pack_task(vector, w_oihw, parts));
            }
        }
    }

    fn row_len(&self) -> usize {
        self.shapes[1].iw * self.shapes[1].ic
    }

    /// Floats of the rows between, and of what the first convolution packs.
    fn parts_len(&self) -> [usize; 2] {
        let rows = self.seconds.iter().map(|(window, _)| window.rows).max().unwrap_or(0);
        let band = self.firsts.iter().map(|(_, direct)| direct.band_len()).max().unwrap_or(0);
        [rows * self.row_len(), band].map(|len| len.next_multiple_of(SLACK))
    }

    /// Floats of scratch that [`PairPlan::run`] needs with a team of `threads`.
    pub fn scratch_len(&self, threads: usize) -> usize {
        threads * self.parts_len().iter().sum::<usize>() + SLACK
    }

    /// Floating-point operations of both.
    pub fn flops(&self) -> u64 {
        self.shapes.iter().map(Conv2dShape::flops).sum()
    }

    /// Both convolutions.
    ///
    /// # Panics
    /// Where a buffer has not the size that the shapes ask for.
    pub fn run(&self, team: &Team, args: PairArgs) {
        let [first, second] = &self.shapes;
        check_len("x", args.x.len(), first.x_len());
        check_len("y", args.y.len(), second.y_len());
        for (layer, (len, shape)) in args.layers.iter().zip(self.packed_lens().into_iter().zip(&self.shapes)) {
            assert!(layer.packed.len() >= len, "packed filters: {} floats", layer.packed.len());
            layer.bias.inspect(|b| check_len("bias", b.len(), shape.oc));
        }
        let [between, band] = self.parts_len();
        let scratch = align_scratch(args.scratch, team.threads() * (between + band));
        let (scratch, y) = (DisjointMut::new(scratch), DisjointMut::new(args.y));
        let bands = second.n * self.bands_per_image();
        team.run(|index, count| {
            let own = index * (between + band);
            // SAFETY: each thread has its own scratch.
            let (rows, packing) = unsafe {
                (scratch.slice_mut(own..own + between), scratch.slice_mut(own + between..own + between + band))
            };
            self.run_bands(part(bands, index, count), (args.x, &args.layers, y), rows, packing);
        });
    }

    /// The bands of one thread. Rows that the next band sees too are kept.
    fn run_bands(
        &self,
        range: Range<usize>,
        (x, layers, y): (&[f32], &[PairLayer; 2], DisjointMut<f32>),
        between: &mut [f32],
        packing: &mut [f32],
    ) {
        let (per_image, row_len) = (self.bands_per_image(), self.row_len());
        let [first, second] = &self.shapes;
        let source_row = first.iw * first.ic;
        let target_row = second.ow() * second.oc;
        let mut held: Option<(usize, Range<usize>)> = None;
        for item in range {
            let (image, band) = (item / per_image, item % per_image);
            let (rows, window) = self.window(band);
            let kept = match held.take() {
                Some((before, old)) if before == image && old.end > rows.start => {
                    let kept = rows.start..old.end.min(rows.end);
                    between.copy_within((kept.start - old.start) * row_len..(kept.end - old.start) * row_len, 0);
                    kept.len()
                }
                _ => 0,
            };
            let fresh = rows.len() - kept;
            if fresh > 0 {
                let start = (image * first.ih + rows.start + kept) * source_row;
                let to = &mut between[kept * row_len..rows.len() * row_len];
                let buffers = buffers(&x[start..start + fresh * source_row], &layers[0], DisjointMut::new(to));
                let direct = self.first(fresh);
                // SAFETY: the buffers have the sizes of the problem, and are this thread's.
                unsafe { run_items(direct, &buffers, 0..direct.items(), packing) };
            }
            let depthwise = self.second(&window);
            let start = (image * second.oh() + band * self.band_rows) * target_row;
            // SAFETY: each band has its own rows of the output.
            let to = unsafe { y.slice_mut(start..start + window.outputs * target_row) };
            let buffers = buffers(&between[..rows.len() * row_len], &layers[1], DisjointMut::new(to));
            // SAFETY: as above.
            unsafe { run_items(depthwise, &buffers, 0..depthwise.items(), &mut []) };
            held = Some((image, rows));
        }
    }

    fn first(&self, rows: usize) -> &Direct {
        &self.firsts.iter().find(|(count, _)| *count == rows).expect("`place` planned all numbers of rows").1
    }

    fn second(&self, window: &Window) -> &Depthwise {
        &self.seconds.iter().find(|(known, _)| known == window).expect("`place` planned all kinds of bands").1
    }
}

fn buffers<'a>(x: &'a [f32], layer: &PairLayer<'a>, y: DisjointMut<'a, f32>) -> Buffers<'a> {
    let PairLayer { packed, bias, activation } = *layer;
    Buffers { x, packed, bias, residual: None, activation, mask: None, y, partials: None, first_block: 0 }
}

fn filters(shape: &Conv2dShape, direct: &Direct, isa: Isa) -> FilterLayout {
    let w = Weights::forward(shape);
    let layout = FilterLayout::new(direct, isa, w.kw, [shape.oc, shape.ic], 1);
    FilterLayout { group_stride: w.group_stride, m_stride: w.m_stride, k_stride: w.k_stride, ..layout }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{BASE, noise, run_forward};
    use super::super::{Algorithms, Epilogue, ForwardPlan};
    use super::*;
    use crate::simd::available_isas;

    /// The output with `threads`, from scratch and output that held NaN.
    fn run(plan: &PairPlan, threads: usize, x: &[f32], w: [&[f32]; 2], layers: [(&[f32], Activation); 2]) -> Vec<f32> {
        let team = Team::new(threads);
        let packed = [0, 1].map(|which| {
            let mut packed = vec![f32::NAN; plan.packed_lens()[which]];
            plan.pack(which, &team, w[which], &mut packed);
            packed
        });
        let layer = |i: usize| PairLayer { packed: &packed[i], bias: Some(layers[i].0), activation: layers[i].1 };
        let mut y = vec![f32::NAN; plan.shapes[1].y_len()];
        let mut scratch = vec![f32::NAN; plan.scratch_len(threads)];
        plan.run(&team, PairArgs { x, layers: [layer(0), layer(1)], y: &mut y, scratch: &mut scratch });
        y
    }

    #[test]
    fn the_bits_of_both_convolutions_by_themselves() {
        let cases = [
            (2, [70, 30], 18, 70, 3, [1, 1], [1; 4]),
            (1, [61, 33], 16, 65, 3, [2, 2], [1; 4]),
            (2, [40, 40], 7, 80, 5, [1, 1], [2; 4]),
            (1, [41, 43], 24, 96, 5, [2, 2], [2, 1, 1, 2]),
            (1, [36, 40], 12, 90, 7, [1, 1], [3; 4]),
            (1, [64, 64], 8, 32, 3, [2, 1], [0, 1, 0, 1]),
        ];
        for ((n, [ih, iw], ic, oc, edge, stride, pads), isa) in
            cases.iter().flat_map(|case| available_isas().into_iter().map(move |isa| (*case, isa)))
        {
            let first = Conv2dShape { n, ih, iw, ic, oc, kh: 1, kw: 1, pads: [0; 4], ..BASE };
            let second = Conv2dShape { n, ih, iw, ic: oc, oc, groups: oc, kh: edge, kw: edge, stride, pads, ..BASE };
            let plan = PairPlan::choose(first, second, isa).unwrap_or_else(|| panic!("no plan for {second:?}"));
            assert!(plan.bands_per_image() > 1, "{second:?} is one band");
            let x = noise(first.x_len(), 1);
            let w = [noise(first.w_len(), 2), noise(second.w_len(), 3)];
            let bias = [noise(oc, 4), noise(oc, 5)];
            let activations = [Activation::Clip { lo: 0.0, hi: 6.0 }, Activation::Silu];
            let alone = |shape, x: &[f32], i: usize| {
                let epilogue = Epilogue { bias: Some(&bias[i]), residual: None, activation: activations[i] };
                run_forward(&ForwardPlan::new(shape, isa, Algorithms::Exact), 1, x, &w[i], epilogue).0
            };
            let want = alone(second, &alone(first, &x, 0), 1);
            for threads in [1, 2, 3] {
                let layers = [0, 1].map(|i| (&bias[i][..], activations[i]));
                let got = run(&plan, threads, &x, [&w[0], &w[1]], layers);
                assert!(got == want, "{isa} {second:?}: other bits with {threads} threads");
            }
        }
    }

    #[test]
    fn only_where_it_is_worth_it() {
        let first = Conv2dShape { ih: 56, iw: 56, ic: 24, oc: 144, kh: 1, kw: 1, pads: [0; 4], ..BASE };
        let second = Conv2dShape { ic: 144, oc: 144, groups: 144, kh: 3, kw: 3, pads: [1; 4], ..first };
        let isa = available_isas()[0];
        assert!(PairPlan::choose(first, second, isa).is_some());
        let refused = [
            ("a small map", Conv2dShape { ih: 14, iw: 14, ..first }, Conv2dShape { ih: 14, iw: 14, ..second }),
            ("a step", Conv2dShape { ih: 112, iw: 112, stride: [2, 2], ..first }, second),
            ("groups", first, Conv2dShape { groups: 72, ..second }),
            ("dilation", first, Conv2dShape { dilation: [2, 2], ..second }),
        ];
        for (what, first, second) in refused {
            assert!(PairPlan::choose(first, second, isa).is_none(), "{what}");
        }
    }
}
