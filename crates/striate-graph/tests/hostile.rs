//! Operations with sizes and attributes that nobody would write: each is refused with an error, or computed; none panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use striate_graph::*;

/// Small numbers drawn one after the other.
struct Draws {
    at: u64,
    key: [u32; 2],
}

impl Draws {
    fn below(&mut self, n: usize) -> usize {
        self.at += 1;
        rng::below(self.key, 0, self.at, n as u64) as usize
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    /// Mostly 1 to 4, at times 0.
    fn size(&mut self) -> usize {
        [0, 1, 1, 2, 2, 3, 3, 4, 4, 5][self.below(10)]
    }

    fn step(&mut self) -> isize {
        self.below(7) as isize - 3
    }

    fn shape(&mut self, rank: usize) -> Vec<usize> {
        (0..rank).map(|_| self.size()).collect()
    }

    fn sizes(&mut self) -> [usize; 2] {
        [self.size(), self.size()]
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn windows(&mut self) -> Windows {
        match self.below(4) {
            0 => Windows::Adaptive { out: self.sizes() },
            _ => Windows::Sliding {
                kernel: self.sizes(),
                stride: self.sizes(),
                pads: [self.below(3), self.below(3), self.below(3), self.below(3)],
                dilation: self.sizes(),
                ceil_mode: self.flag(),
            },
        }
    }

    fn attrs(&mut self) -> ConvAttrs {
        let pads = [self.below(3), self.below(3), self.below(3), self.below(3)];
        ConvAttrs { stride: self.sizes(), pads, dilation: self.sizes(), groups: self.pick(&[0, 1, 1, 2, 3]) }
    }

    fn spec(&mut self) -> ResizeSpec {
        let cubic = Interpolation::Bicubic { a: -0.75 };
        let modes = [Interpolation::Nearest, Interpolation::NearestExact, Interpolation::Bilinear, cubic];
        let scales = [None, None, Some([2.0, 0.5]), Some([0.0, f64::NAN]), Some([1e-300, 1e300]), Some([-1.0, 3.0])];
        ResizeSpec {
            mode: self.pick(&modes),
            align_corners: self.flag(),
            antialias: self.flag(),
            scales: self.pick(&scales),
        }
    }

    fn pads(&mut self, rank: usize) -> Vec<[isize; 2]> {
        (0..rank).map(|_| [self.step(), self.step()]).collect()
    }

    fn pad_mode(&mut self) -> PadMode {
        self.pick(&[PadMode::Constant(1.5), PadMode::Reflect, PadMode::Replicate, PadMode::Circular])
    }

    fn scatter_mode(&mut self) -> ScatterMode {
        self.pick(&[ScatterMode::Set, ScatterMode::Add, ScatterMode::Mul, ScatterMode::Max, ScatterMode::Min])
    }

    fn sampling(&mut self) -> (Op, Vec<usize>) {
        let spec = GridSampleSpec {
            mode: self.pick(&[SampleMode::Linear, SampleMode::Nearest, SampleMode::Cubic]),
            padding: self.pick(&[SamplePadding::Zeros, SamplePadding::Border, SamplePadding::Reflection]),
            align_corners: self.flag(),
        };
        let rank = 3 + self.below(3);
        match self.below(3) {
            0 => (Op::GridSample(spec), vec![rank, rank]),
            1 => (Op::GridSampleInputGrad { spec, input: self.shape(rank - 2) }, vec![rank, rank]),
            _ => (Op::GridSampleGridGrad(spec), vec![rank, rank, rank]),
        }
    }

    /// Any operation that computes something, with the ranks that its inputs should have.
    fn op(&mut self) -> (Op, Vec<usize>) {
        let rank = self.below(5);
        let (axis, eps) = (self.below(4), self.pick(&[1e-5f32, 0.0]));
        match self.below(32) {
            0 => {
                let kinds =
                    [ReduceKind::Max, ReduceKind::Mean, ReduceKind::Prod, ReduceKind::L2, ReduceKind::LogSumExp];
                let axes = (0..self.below(3)).map(|_| self.below(4)).collect();
                (Op::Reduce { kind: self.pick(&kinds), axes, keepdims: self.flag() }, vec![rank])
            }
            1 => (Op::ArgReduce { max: self.flag(), axis, keepdims: self.flag() }, vec![rank]),
            2 => (Op::Softmax { axis }, vec![rank]),
            3 => (Op::LogSoftmax { axis }, vec![rank]),
            4 => {
                let perm = (0..rank).map(|_| self.below(rank)).collect();
                (Op::Transpose { perm }, vec![rank])
            }
            5 => (Op::Expand { shape: self.shape(rank).into() }, vec![self.below(rank + 1)]),
            6 => {
                let (starts, sizes) = (self.shape(rank), self.shape(rank));
                (Op::Slice { starts, sizes, steps: (0..rank).map(|_| self.step()).collect() }, vec![rank])
            }
            7 => {
                let (shape, starts) = (self.shape(rank).into(), self.shape(rank));
                (Op::SliceGrad { shape, starts, steps: (0..rank).map(|_| self.step()).collect() }, vec![rank])
            }
            8 => (Op::Concat { axis }, vec![rank; 1 + self.below(3)]),
            9 => (Op::Pad { pads: self.pads(rank), mode: self.pad_mode() }, vec![rank]),
            10 => (Op::PadGrad { pads: self.pads(rank), mode: self.pad_mode() }, vec![rank]),
            11 => (Op::Gather { axis }, vec![rank, self.below(3)]),
            12 => (Op::GatherGrad { axis, size: self.size() }, vec![self.below(3), rank]),
            13 => (Op::GatherElements { axis }, vec![rank, rank]),
            14 => (Op::ScatterElements { axis, mode: self.scatter_mode() }, vec![rank; 3]),
            15 => (Op::MatMul { trans_a: self.flag(), trans_b: self.flag() }, vec![rank, self.below(5)]),
            16 => (Op::Conv2d(self.attrs()), vec![4, 4, 1][..2 + self.below(2)].to_vec()),
            17 => (Op::Conv2dInputGrad { attrs: self.attrs(), input: self.sizes() }, vec![4, 4]),
            18 => (Op::Conv2dWeightGrad { attrs: self.attrs(), kernel: self.sizes() }, vec![4, 4]),
            19 => (Op::MaxPool2d(self.windows()), vec![4]),
            20 => (Op::MaxPool2dGrad(self.windows()), vec![4, 4]),
            21 => {
                let divisors = [AvgDivisor::IncludePad, AvgDivisor::ExcludePad, AvgDivisor::Const(0)];
                (Op::AvgPool2d { windows: self.windows(), divisor: self.pick(&divisors) }, vec![4])
            }
            22 => (Op::Resize { spec: self.spec(), out: self.sizes() }, vec![4]),
            23 => (Op::ResizeGrad { spec: self.spec(), input: self.sizes() }, vec![4]),
            24 => match self.below(5) {
                0 => (Op::Moments, vec![rank]),
                1 => (Op::BatchNorm { eps }, vec![rank, 1, 1, 1, 1]),
                2 => (Op::BatchNormTraining { eps }, vec![rank, 1, 1, 2]),
                3 => (Op::BatchNormGradSums { eps }, vec![rank, rank, 2]),
                _ => (Op::BatchNormInputGrad { eps }, vec![rank, rank, 1, 2, 2]),
            },
            25 => (Op::Standardize { eps }, vec![rank]),
            26 => (Op::TopK { axis, k: self.size(), largest: self.flag() }, vec![rank]),
            27 => (Op::CumSum { axis, exclusive: self.flag(), reverse: self.flag() }, vec![rank]),
            28 => (Op::GatherNd { batch_dims: self.below(3) }, vec![rank, self.below(4)]),
            29 => (Op::ScatterNd { mode: self.scatter_mode() }, vec![rank, self.below(4), self.below(4)]),
            30 => self.sampling(),
            _ => {
                let scale = self.pick(&[1.0, 0.5, 0.0, -3.0, 1e20, f32::NAN]);
                let (sampling_ratio, aligned) = (self.below(3), self.flag());
                let spec = RoiAlignSpec { out: self.sizes(), scale, sampling_ratio, aligned, max: self.flag() };
                match self.flag() {
                    true => (Op::RoiAlign(spec), vec![4, 2, 1]),
                    false => (Op::RoiAlignGrad(spec), vec![4, 2, 1, 4]),
                }
            }
        }
    }
}

/// Input shapes: drawn, or those of the first made to fit, so that many operations are accepted.
fn shapes(draws: &mut Draws, op: &Op, ranks: &[usize]) -> Vec<Vec<usize>> {
    let mut shapes: Vec<Vec<usize>> = ranks.iter().map(|rank| draws.shape(*rank)).collect();
    let channels = shapes[0].get(1).copied().unwrap_or(2);
    match op {
        Op::Conv2d(attrs) if draws.below(8) > 0 => {
            let per_group = channels.checked_div(attrs.groups).unwrap_or(1);
            shapes[0][1] = per_group * attrs.groups;
            shapes[1][0] = attrs.groups * draws.below(3);
            shapes[1][1] = per_group;
            let out = shapes[1][0];
            if let Some(bias) = shapes.get_mut(2) {
                bias[0] = out;
            }
        }
        Op::Moments
        | Op::BatchNorm { .. }
        | Op::BatchNormTraining { .. }
        | Op::BatchNormGradSums { .. }
        | Op::BatchNormInputGrad { .. } => {
            let first = shapes[0].clone();
            for shape in &mut shapes[1..] {
                match shape.len() {
                    1 => shape[0] = channels,
                    2 if first.len() != 2 => (shape[0], shape[1]) = (2, channels),
                    rank if rank == first.len() => *shape = first.clone(),
                    _ => {}
                }
            }
        }
        Op::GatherElements { .. } | Op::ScatterElements { .. } | Op::Concat { .. } if draws.flag() => {
            let first = shapes[0].clone();
            shapes[1..].iter_mut().for_each(|shape| *shape = first.clone());
        }
        Op::ScatterNd { .. } if draws.flag() => {
            let depth = shapes[1].last().copied().unwrap_or(0).min(shapes[0].len());
            if let Some(last) = shapes[1].last_mut() {
                *last = depth;
                shapes[2] = [&shapes[1][..shapes[1].len() - 1], &shapes[0][depth..]].concat();
            }
        }
        Op::GatherNd { batch_dims } => {
            let common = *batch_dims.min(&shapes[0].len()).min(&shapes[1].len());
            let (x, indices) = shapes.split_at_mut(1);
            indices[0][..common].copy_from_slice(&x[0][..common]);
        }
        Op::RoiAlign(spec) | Op::RoiAlignGrad(spec) => {
            shapes[1][1] = 4;
            shapes[2][0] = shapes[1][0];
            let pooled = [shapes[1][0], shapes[0][1], spec.out[0], spec.out[1]];
            if let Some(dy) = shapes.get_mut(3) {
                *dy = pooled.to_vec();
            }
        }
        Op::GridSample(_) | Op::GridSampleGridGrad(_) => {
            let rank = shapes[0].len();
            (shapes[1][0], shapes[1][rank - 1]) = (shapes[0][0], rank - 2);
            let sampled = [&shapes[0][..2], &shapes[1][1..rank - 1]].concat();
            if let Some(dy) = shapes.get_mut(2) {
                *dy = sampled;
            }
        }
        Op::GridSampleInputGrad { input, .. } => {
            let rank = shapes[0].len();
            shapes[0][rank - 1] = input.len();
            let points = shapes[0][1..rank - 1].to_vec();
            shapes[1][0] = shapes[0][0];
            shapes[1][2..].copy_from_slice(&points);
        }
        _ => {}
    }
    shapes
}

/// True where the operation was accepted and its value, and what gradients it has, were computed.
fn attempt(draws: &mut Draws) -> bool {
    let (op, ranks) = draws.op();
    let shapes = shapes(draws, &op, &ranks);
    let index_at = match op {
        Op::Gather { .. } | Op::GatherElements { .. } | Op::ScatterElements { .. } => 1,
        Op::GatherNd { .. } | Op::ScatterNd { .. } => 1,
        Op::RoiAlign(_) | Op::RoiAlignGrad(_) => 2,
        Op::GatherGrad { .. } => 0,
        _ => usize::MAX,
    };
    let (mut data, names) = (Vec::new(), ["a", "b", "c", "d", "e"]);
    for (index, shape) in shapes.iter().enumerate() {
        let count = shape.iter().product();
        let values: Vec<f64> = (0..count).map(|_| draws.below(6) as f64 - 2.0).collect();
        let dtype = if index == index_at { DType::I64 } else { DType::F32 };
        data.push((names[index], Array::from_f64(&shape[..], &values, dtype).unwrap()));
    }
    let what = format!("{op:?} of {shapes:?}");
    let run = || -> Result<()> {
        let trace = Trace::new(Mode::Train);
        let inputs: Vec<Tensor> =
            data.iter().map(|(name, array)| trace.input(name, array.shape(), array.dtype())).collect();
        let y = trace.push(op.clone(), &inputs.iter().collect::<Vec<_>>());
        let forward = trace.clone().finish(&[("y", &y)])?;
        let found = interpret(&forward, &data, &RunOptions::default())?.remove(0);
        assert_eq!((found.shape(), found.dtype()), (&y.shape(), y.dtype()));
        if y.dtype().is_float() {
            let wrt: Vec<&Tensor> = inputs.iter().collect();
            match gradients(&y.sum_all(), &wrt) {
                Err(Error::NotDifferentiable { .. }) => return Ok(()),
                other => {
                    let found = other?;
                    let graph = trace.finish(&found.iter().map(|t| ("g", t)).collect::<Vec<_>>())?;
                    graph.verify()?;
                    interpret(&graph, &data, &RunOptions::default())?;
                }
            }
        }
        Ok(())
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => true,
        Ok(Err(Error::Internal(message))) => panic!("{what}: {message}"),
        Ok(Err(_)) => false,
        Err(_) => panic!("{what}"),
    }
}

#[test]
fn no_operation_panics() {
    let mut draws = Draws { at: 0, key: rng::stream_key(0, "hostile") };
    let accepted = (0..60_000).filter(|_| attempt(&mut draws)).count();
    assert!(accepted > 10_000, "only {accepted} operations were accepted");
}
