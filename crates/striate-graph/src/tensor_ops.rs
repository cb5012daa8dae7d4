//! What can be done with a tensor: methods with PyTorch's names, and operators.

use crate::{
    Array, BinaryKind, DType, GridSampleSpec, Op, PadMode, ReduceKind, RoiAlignSpec, ScatterMode, Shape, Tensor,
    UnaryKind,
};
use std::ops::{Add, Div, Mul, Neg, Sub};

macro_rules! unary_methods {
    ($($(#[$doc:meta])* $name:ident => $kind:expr;)*) => {
        /// Elementwise functions.
        impl Tensor {$(
            $(#[$doc])*
            #[track_caller]
            pub fn $name(&self) -> Tensor { self.unary($kind) }
        )*}
    };
}

unary_methods! {
    /// `-x`.
    neg => UnaryKind::Neg;
    /// `|x|`.
    abs => UnaryKind::Abs;
    /// -1, 0 or 1.
    sign => UnaryKind::Sign;
    /// `e^x`.
    exp => UnaryKind::Exp;
    /// Natural logarithm.
    log => UnaryKind::Log;
    /// Square root.
    sqrt => UnaryKind::Sqrt;
    /// `1 / sqrt(x)`.
    rsqrt => UnaryKind::Rsqrt;
    /// `x * x`.
    square => UnaryKind::Square;
    /// `1 / x`.
    reciprocal => UnaryKind::Reciprocal;
    /// Tangent.
    tan => UnaryKind::Tan;
    /// The angle whose tangent it is.
    atan => UnaryKind::Atan;
    /// The error function.
    erf => UnaryKind::Erf;
    /// Down to a whole number.
    floor => UnaryKind::Floor;
    /// `max(x, 0)`.
    relu => UnaryKind::Relu;
    /// `1 / (1 + e^-x)`.
    sigmoid => UnaryKind::Sigmoid;
    /// Hyperbolic tangent.
    tanh => UnaryKind::Tanh;
    /// `x * sigmoid(x)`.
    silu => UnaryKind::Silu;
    /// `log(sigmoid(x))`.
    log_sigmoid => UnaryKind::LogSigmoid;
    /// 1 where the value is 0, else 0.
    logical_not => UnaryKind::Not;
}

macro_rules! binary_methods {
    ($($(#[$doc:meta])* $name:ident => $kind:expr;)*) => {
        /// Elementwise functions of two, broadcast.
        impl Tensor {$(
            $(#[$doc])*
            #[track_caller]
            pub fn $name(&self, other: &Tensor) -> Tensor { self.binary($kind, other) }
        )*}
    };
}

binary_methods! {
    /// The smaller of both.
    minimum => BinaryKind::Min;
    /// The larger of both.
    maximum => BinaryKind::Max;
    /// `self ^ other`.
    pow => BinaryKind::Pow;
    /// Truth of `self == other`.
    eq => BinaryKind::Equal;
    /// Truth of `self != other`.
    ne => BinaryKind::NotEqual;
    /// Truth of `self < other`.
    lt => BinaryKind::Less;
    /// Truth of `self <= other`.
    le => BinaryKind::LessOrEqual;
    /// Truth of `self > other`.
    gt => BinaryKind::Greater;
    /// Truth of `self >= other`.
    ge => BinaryKind::GreaterOrEqual;
}

/// Building blocks that name their op.
impl Tensor {
    /// Any elementwise function.
    #[track_caller]
    pub fn unary(&self, kind: UnaryKind) -> Tensor {
        self.trace().push(Op::Unary(kind), &[self])
    }

    /// Any elementwise function of two.
    #[track_caller]
    pub fn binary(&self, kind: BinaryKind, other: &Tensor) -> Tensor {
        self.trace().push(Op::Binary(kind), &[self, other])
    }

    /// `min(max(x, low), high)`.
    #[track_caller]
    pub fn clamp(&self, low: f32, high: f32) -> Tensor {
        self.unary(UnaryKind::Clip { min: low, max: high })
    }

    /// `x ^ exponent` with a constant exponent.
    #[track_caller]
    pub fn powf(&self, exponent: f32) -> Tensor {
        self.unary(UnaryKind::PowConst { exponent })
    }

    /// `scale * x + shift` with constants.
    #[track_caller]
    pub fn affine(&self, scale: f32, shift: f32) -> Tensor {
        self.unary(UnaryKind::Affine { scale, shift })
    }

    /// `self` where the condition holds, else `other`.
    #[track_caller]
    pub fn where_(&self, condition: &Tensor, other: &Tensor) -> Tensor {
        self.trace().push(Op::Where, &[condition, self, other])
    }

    /// The same values as another type.
    #[track_caller]
    pub fn cast(&self, dtype: DType) -> Tensor {
        if self.dtype() == dtype { self.clone() } else { self.trace().push(Op::Cast(dtype), &[self]) }
    }

    /// A tensor of one value, of this tensor's type and without axes.
    #[track_caller]
    pub fn scalar_like(&self, value: f64) -> Tensor {
        let array = Array::from_f64([], &[value], self.dtype()).expect("a scalar has one element");
        self.trace().constant(array)
    }

    /// The same value everywhere, in this tensor's shape and type.
    #[track_caller]
    pub fn full_like(&self, value: f64) -> Tensor {
        self.scalar_like(value).expand(self.shape())
    }

    /// A value through which no gradient flows.
    #[track_caller]
    pub fn detach(&self) -> Tensor {
        self.trace().push(Op::Detach, &[self])
    }
}

/// Shapes.
impl Tensor {
    /// An axis counted from the front (0 …) or the back (-1 …), as an index.
    pub(crate) fn axis(&self, axis: isize) -> Option<usize> {
        let rank = self.shape().rank() as isize;
        let index = if axis < 0 { axis + rank } else { axis };
        (0..rank).contains(&index).then_some(index as usize)
    }

    #[track_caller]
    fn with_axis(&self, name: &str, axis: isize, then: impl FnOnce(usize) -> Tensor) -> Tensor {
        match self.axis(axis) {
            Some(index) => then(index),
            None if self.is_poisoned() => self.clone(),
            None => {
                let shape = self.shape();
                let fix = format!("it must be from -{0} to {1}", shape.rank(), shape.rank() as isize - 1);
                self.trace().refuse(name, format!("axis {axis} of a tensor of shape {shape}"), fix)
            }
        }
    }

    /// The same elements under another shape.
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        if shape == self.shape() { self.clone() } else { self.trace().push(Op::Reshape { shape }, &[self]) }
    }

    /// Joins the axes `from..=to` into one, as `torch.flatten`.
    #[track_caller]
    pub fn flatten(&self, from: isize, to: isize) -> Tensor {
        let shape = self.shape();
        if shape.rank() == 0 && !self.is_poisoned() {
            return self.reshape([1]);
        }
        self.with_axis("Flatten", from, |from| {
            self.with_axis("Flatten", to, |to| {
                let joined: usize = shape[from..=to.max(from)].iter().product();
                self.reshape([&shape[..from], &[joined], &shape[to.max(from) + 1..]].concat())
            })
        })
    }

    /// Adds an axis of size 1.
    #[track_caller]
    pub fn unsqueeze(&self, axis: isize) -> Tensor {
        let mut sizes = self.shape().to_vec();
        let index = if axis < 0 { axis + sizes.len() as isize + 1 } else { axis };
        if !(0..=sizes.len() as isize).contains(&index) {
            let fix = format!("it must be from -{0} to {1}", sizes.len() + 1, sizes.len());
            return self.trace().refuse("Unsqueeze", format!("axis {axis} of a tensor of shape {sizes:?}"), fix);
        }
        sizes.insert(index as usize, 1);
        self.reshape(sizes)
    }

    /// Removes an axis of size 1; leaves the tensor as it is where the axis is larger.
    #[track_caller]
    pub fn squeeze(&self, axis: isize) -> Tensor {
        self.with_axis("Squeeze", axis, |index| {
            let mut sizes = self.shape().to_vec();
            if sizes[index] == 1 {
                sizes.remove(index);
            }
            self.reshape(sizes)
        })
    }

    /// Axes in another order.
    #[track_caller]
    pub fn permute(&self, perm: &[usize]) -> Tensor {
        self.trace().push(Op::Transpose { perm: perm.to_vec() }, &[self])
    }

    /// Swaps two axes.
    #[track_caller]
    pub fn transpose(&self, a: isize, b: isize) -> Tensor {
        self.with_axis("Transpose", a, |a| {
            self.with_axis("Transpose", b, |b| {
                let mut perm: Vec<usize> = (0..self.shape().rank()).collect();
                perm.swap(a, b);
                self.permute(&perm)
            })
        })
    }

    /// Broadcast to a shape.
    #[track_caller]
    pub fn expand(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        if shape == self.shape() { self.clone() } else { self.trace().push(Op::Expand { shape }, &[self]) }
    }

    /// Elements `start..end` of an axis.
    #[track_caller]
    pub fn narrow(&self, axis: isize, start: usize, length: usize) -> Tensor {
        self.with_axis("Slice", axis, |index| {
            let mut sizes = self.shape().to_vec();
            let mut starts = vec![0; sizes.len()];
            (starts[index], sizes[index]) = (start, length);
            let steps = vec![1; sizes.len()];
            self.trace().push(Op::Slice { starts, sizes, steps }, &[self])
        })
    }

    /// One element of an axis, which disappears.
    #[track_caller]
    pub fn select(&self, axis: isize, index: usize) -> Tensor {
        self.narrow(axis, index, 1).squeeze(axis)
    }

    /// Cuts an axis into `parts` of equal size.
    #[track_caller]
    pub fn chunk(&self, parts: usize, axis: isize) -> Vec<Tensor> {
        let size = self.axis(axis).map_or(0, |index| self.size(index));
        let length = size.div_ceil(parts.max(1)).max(1);
        let part = |start: usize| self.narrow(axis, start, length.min(size - start));
        (0..size).step_by(length).map(part).collect()
    }

    /// Joins tensors along an axis.
    #[track_caller]
    pub fn cat(tensors: &[&Tensor], axis: isize) -> Tensor {
        let first = tensors.first().expect("cat takes at least one tensor");
        first.with_axis("Concat", axis, |axis| first.trace().push(Op::Concat { axis }, tensors))
    }

    /// Adds (or, negative, removes) elements at both ends of the last axes, as `torch.nn.functional.pad`: pairs from the
    /// last axis backwards, e.g. `[left, right, top, bottom]`.
    #[track_caller]
    pub fn pad(&self, pads: &[isize], mode: PadMode) -> Tensor {
        let rank = self.shape().rank();
        if self.is_poisoned() {
            return self.clone();
        }
        if !pads.len().is_multiple_of(2) || pads.len() / 2 > rank {
            let rule = format!("{} padding values for a tensor of shape {}", pads.len(), self.shape());
            return self.trace().refuse("Pad", rule, "give two for each of the last axes, from the last backwards");
        }
        let mut all = vec![[0, 0]; rank];
        for (index, pair) in pads.chunks(2).enumerate() {
            all[rank - 1 - index] = [pair[0], pair[1]];
        }
        self.trace().push(Op::Pad { pads: all, mode }, &[self])
    }
}

/// Reductions, indices, matrices.
impl Tensor {
    /// Any reduction. Axes may count from the back.
    #[track_caller]
    pub fn reduce(&self, kind: ReduceKind, axes: &[isize], keepdims: bool) -> Tensor {
        let mut found = Vec::with_capacity(axes.len());
        for &axis in axes {
            match self.axis(axis) {
                Some(index) => found.push(index),
                None => return self.with_axis("Reduce", axis, |_| self.clone()),
            }
        }
        found.sort_unstable();
        found.dedup();
        self.trace().push(Op::Reduce { kind, axes: found, keepdims }, &[self])
    }

    /// Sum over axes.
    #[track_caller]
    pub fn sum(&self, axes: &[isize], keepdims: bool) -> Tensor {
        self.reduce(ReduceKind::Sum, axes, keepdims)
    }

    /// Mean over axes.
    #[track_caller]
    pub fn mean(&self, axes: &[isize], keepdims: bool) -> Tensor {
        self.reduce(ReduceKind::Mean, axes, keepdims)
    }

    /// Sum of all elements, a scalar.
    #[track_caller]
    pub fn sum_all(&self) -> Tensor {
        let axes: Vec<isize> = (0..self.shape().rank() as isize).collect();
        self.sum(&axes, false)
    }

    /// Mean of all elements, a scalar.
    #[track_caller]
    pub fn mean_all(&self) -> Tensor {
        let axes: Vec<isize> = (0..self.shape().rank() as isize).collect();
        self.mean(&axes, false)
    }

    /// Index of the first maximum along an axis, i64.
    #[track_caller]
    pub fn argmax(&self, axis: isize, keepdims: bool) -> Tensor {
        self.with_axis("ArgMax", axis, |axis| self.trace().push(Op::ArgReduce { max: true, axis, keepdims }, &[self]))
    }

    /// The `k` greatest (or smallest) elements along an axis, the best first, and their positions as i64.
    #[track_caller]
    pub fn topk(&self, k: usize, axis: isize, largest: bool) -> (Tensor, Tensor) {
        let at = self.with_axis("TopK", axis, |axis| self.trace().push(Op::TopK { axis, k, largest }, &[self]));
        (self.gather(axis, &at), at)
    }

    /// The sum so far along an axis.
    #[track_caller]
    pub fn cumsum(&self, axis: isize) -> Tensor {
        self.with_axis("CumSum", axis, |axis| {
            self.trace().push(Op::CumSum { axis, exclusive: false, reverse: false }, &[self])
        })
    }

    /// Softmax along an axis.
    #[track_caller]
    pub fn softmax(&self, axis: isize) -> Tensor {
        self.with_axis("Softmax", axis, |axis| self.trace().push(Op::Softmax { axis }, &[self]))
    }

    /// Logarithm of the softmax along an axis.
    #[track_caller]
    pub fn log_softmax(&self, axis: isize) -> Tensor {
        self.with_axis("LogSoftmax", axis, |axis| self.trace().push(Op::LogSoftmax { axis }, &[self]))
    }

    /// `1` at the index along a new last axis of size `depth`, f32.
    #[track_caller]
    pub fn one_hot(&self, depth: usize) -> Tensor {
        self.trace().push(Op::OneHot { depth }, &[self])
    }

    /// Takes whole slices along an axis by an index tensor.
    #[track_caller]
    pub fn index_select(&self, axis: isize, indices: &Tensor) -> Tensor {
        self.with_axis("Gather", axis, |axis| self.trace().push(Op::Gather { axis }, &[self, indices]))
    }

    /// Takes single elements along an axis (`torch.gather`).
    #[track_caller]
    pub fn gather(&self, axis: isize, indices: &Tensor) -> Tensor {
        self.with_axis("GatherElements", axis, |axis| self.trace().push(Op::GatherElements { axis }, &[self, indices]))
    }

    /// A copy with `updates` put, added, … at `indices` along an axis (`torch.scatter`, `scatter_reduce`).
    #[track_caller]
    pub fn scatter(&self, axis: isize, indices: &Tensor, updates: &Tensor, mode: ScatterMode) -> Tensor {
        self.with_axis("ScatterElements", axis, |axis| {
            self.trace().push(Op::ScatterElements { axis, mode }, &[self, indices, updates])
        })
    }

    /// Regions of `[N, C, H, W]` pooled to one size, `[R, C, …]`, as `torchvision.ops.roi_align`: `regions` are `[R, 4]` as x1, y1,
    /// x2, y2, and `batch` `[R]` (integers) names the map of each.
    #[track_caller]
    pub fn roi_align(&self, regions: &Tensor, batch: &Tensor, spec: RoiAlignSpec) -> Tensor {
        self.trace().push(Op::RoiAlign(spec), &[self, regions, batch])
    }

    /// Samples of `[N, C, H, W]` (or of maps of one or three axes) at the places of a grid `[N, …, 2]`, as
    /// `torch.nn.functional.grid_sample`.
    #[track_caller]
    pub fn grid_sample(&self, grid: &Tensor, spec: GridSampleSpec) -> Tensor {
        self.trace().push(Op::GridSample(spec), &[self, grid])
    }

    /// Matrix product over the last two axes.
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        self.trace().push(Op::MatMul { trans_a: false, trans_b: false }, &[self, other])
    }

    /// `x Wᵀ + b`: x `[…, in]`, weight `[out, in]`, bias `[out]`.
    #[track_caller]
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let product = self.trace().push(Op::MatMul { trans_a: false, trans_b: true }, &[self, weight]);
        match bias {
            Some(bias) => product.binary(BinaryKind::Add, bias),
            None => product,
        }
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $kind:expr, |$value:ident| ($scale:expr, $shift:expr)) => {
        impl $trait<&Tensor> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor {
                self.binary($kind, other)
            }
        }
        impl $trait<Tensor> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor {
                self.binary($kind, &other)
            }
        }
        impl $trait<&Tensor> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor {
                self.binary($kind, other)
            }
        }
        impl $trait<Tensor> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor {
                self.binary($kind, &other)
            }
        }
        impl $trait<f32> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, $value: f32) -> Tensor {
                self.affine($scale, $shift)
            }
        }
        impl $trait<f32> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, $value: f32) -> Tensor {
                self.affine($scale, $shift)
            }
        }
    };
}
operator!(Add, add, BinaryKind::Add, |value| (1.0, value));
operator!(Sub, sub, BinaryKind::Sub, |value| (1.0, -value));
operator!(Mul, mul, BinaryKind::Mul, |value| (value, 0.0));
operator!(Div, div, BinaryKind::Div, |value| (1.0 / value, 0.0));

impl Neg for &Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        self.unary(UnaryKind::Neg)
    }
}

impl Neg for Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        self.unary(UnaryKind::Neg)
    }
}
