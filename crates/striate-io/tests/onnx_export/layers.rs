//! Layers in evaluation mode, in many ways each.

use striate_graph::{Array, BinaryKind, DType, Op, ReduceKind, RoiAlignSpec, ScatterMode, Tensor, UnaryKind};
use striate_nn::*;

/// A net to be written, and the shape of one sample.
pub struct Case {
    /// What it is.
    pub name: String,
    /// It.
    pub net: Box<dyn Module>,
    /// Without the batch.
    pub sample: Vec<usize>,
    /// The oldest opset that can say it.
    pub opset: i64,
}

/// A function of a tensor as a net.
struct Function<F>(F);

impl<F: Fn(&Tensor) -> Tensor + Send + Sync> Module for Function<F> {
    fn forward(&self, x: &Tensor) -> Tensor {
        (self.0)(x)
    }
    fn visit(&self, _: &mut dyn Visitor) {}
}

#[derive(Default)]
struct Table(Vec<Case>);

impl Table {
    fn add(&mut self, name: impl Into<String>, sample: &[usize], net: impl Module + 'static) {
        let (net, name): (Box<dyn Module>, String) = (Box::new(net), name.into());
        self.0.push(Case { name, net, sample: sample.to_vec(), opset: 13 });
    }

    fn map(&mut self, name: &str, sample: &[usize], f: impl Fn(&Tensor) -> Tensor + Send + Sync + 'static) {
        self.add(name, sample, Function(f));
    }

    /// The last case needs at least this opset.
    fn needs_opset(&mut self, opset: i64) {
        self.0.last_mut().expect("there is a case").opset = opset;
    }
}

const MAP: [usize; 3] = [4, 9, 8];

/// Initial values are drawn from one seed of the whole process: who draws holds this.
pub static DRAWS: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// All cases.
pub fn cases() -> Vec<Case> {
    let _drawing = DRAWS.lock().expect("no holder panics");
    manual_seed(7);
    let mut table = Table::default();
    convolutions(&mut table);
    transposed(&mut table);
    pools(&mut table);
    adaptive_pools(&mut table);
    norms(&mut table);
    activations(&mut table);
    moves(&mut table);
    resizes(&mut table);
    functions(&mut table);
    nets(&mut table);
    table.0.iter().for_each(|case| vary(&*case.net));
    table.0
}

/// Statistics and affine factors that are not 1 and 0.
fn vary(net: &dyn Module) {
    assign_names(net);
    let mut cells = net.named_parameters();
    cells.extend(net.buffers());
    for (name, cell) in cells {
        if cell.dtype() == DType::F32 && cell.shape().rank() == 1 {
            let positive = name.ends_with("running_var") || name.ends_with("weight");
            let values = (0..cell.shape().numel()).map(|i| {
                let wave = (i as f32 * 1.7 + name.len() as f32).sin();
                if positive { 1.0 + 0.5 * wave } else { 0.3 * wave }
            });
            let array = Array::from_vec(cell.shape(), values.collect::<Vec<_>>()).expect("as many as there were");
            cell.set(array).expect("the same shape");
        }
    }
}

fn convolutions(t: &mut Table) {
    t.add("conv", &MAP, Conv2d::new(4, 6, 3));
    t.add("conv no bias", &MAP, Conv2d::new(4, 6, 3).bias(false));
    t.add("conv stride pad", &MAP, Conv2d::new(4, 6, (3, 2)).stride((2, 1)).padding((1, 0)));
    t.add("conv dilation", &MAP, Conv2d::new(4, 6, 3).dilation((2, 3)).padding(2));
    t.add("conv groups", &MAP, Conv2d::new(4, 8, 3).groups(2).padding(1));
    t.add("conv depthwise", &MAP, Conv2d::new(4, 8, 5).groups(4).padding("same"));
    t.add("conv sides", &MAP, Conv2d::new(4, 3, 3).padding([1isize, 2, 0, 3]));
    t.add("conv negative sides", &MAP, Conv2d::new(4, 3, 3).padding([-1isize, 2, 0, -2]));
    for mode in ["reflect", "replicate", "circular"] {
        t.add(format!("conv {mode}"), &MAP, Conv2d::new(4, 3, 3).padding((1, 2)).padding_mode(mode));
    }
    t.add("conv1d", &[4, 11], Conv1d::new(4, 6, 3).stride(2).padding(1));
    t.add("conv block", &MAP, Conv2dNormActivation::new(4, 6, 3).stride(2));
    t.add("squeeze", &MAP, SqueezeExcitation::new(4, 2));
}

fn transposed(t: &mut Table) {
    t.add("transposed", &MAP, ConvTranspose2d::new(4, 6, 3));
    t.add("transposed no bias", &MAP, ConvTranspose2d::new(4, 6, 3).bias(false));
    t.add("transposed stride", &MAP, ConvTranspose2d::new(4, 6, 3).stride(2).padding(1).output_padding(1));
    t.add("transposed groups", &MAP, ConvTranspose2d::new(4, 6, (2, 3)).stride((3, 2)).groups(2));
    t.add("transposed dilation", &MAP, ConvTranspose2d::new(4, 2, 3).dilation(2).stride(2).output_padding((0, 1)));
    t.add("transposed surplus", &MAP, ConvTranspose2d::new(4, 2, 3).dilation(3).stride(1).output_padding((2, 1)));
}

fn pools(t: &mut Table) {
    for ceil in [false, true] {
        let named = |what: &str| format!("{what}{}", if ceil { " ceil" } else { "" });
        t.add(named("max 2"), &MAP, MaxPool2d::new(2).ceil_mode(ceil));
        t.add(named("max 3 2 1"), &MAP, MaxPool2d::new(3).stride(2).padding(1).ceil_mode(ceil));
        t.add(named("max dilated"), &MAP, MaxPool2d::new(2).stride((1, 3)).dilation((3, 2)).ceil_mode(ceil));
        t.add(named("max far"), &MAP, MaxPool2d::new(2).stride(4).ceil_mode(ceil));
        t.add(named("max 1d"), &[4, 10], MaxPool1d::new(3).stride(2).padding(1).ceil_mode(ceil));
        t.add(named("avg 2"), &MAP, AvgPool2d::new(2).ceil_mode(ceil));
        t.add(named("avg 3 2 1"), &MAP, AvgPool2d::new(3).stride(2).padding(1).ceil_mode(ceil));
        let excluding = AvgPool2d::new((3, 4)).stride(3).padding((1, 2)).count_include_pad(false);
        t.add(named("avg excluding"), &MAP, excluding.ceil_mode(ceil));
        let over = AvgPool2d::new(3).stride(2).padding(1).divisor_override(5);
        t.add(named("avg over"), &MAP, over.ceil_mode(ceil));
        t.add(named("avg 1d"), &[4, 10], AvgPool1d::new(3).stride(2).padding(1).ceil_mode(ceil));
        let positive = Sequential::new().add(Sigmoid::new()).add(LPPool2d::new(3.0, 2).ceil_mode(ceil));
        t.add(named("lp"), &MAP, positive);
    }
    t.map("max indices", &MAP, |x| {
        let pool = MaxPool2d::new(3).stride(2).padding(1).ceil_mode(true);
        pool.call_with_indices(x).1.cast(DType::F32)
    });
    t.map("max unpool", &MAP, |x| {
        let (y, indices) = MaxPool2d::new(2).call_with_indices(x);
        MaxUnpool2d::new(2).call_with_indices(&y, &indices, Some([9, 8]))
    });
}

fn adaptive_pools(t: &mut Table) {
    for out in [(1, 1), (3, 4), (2, 3), (9, 8), (11, 5)] {
        t.add(format!("adaptive avg {out:?}"), &MAP, AdaptiveAvgPool2d::new(out));
        t.add(format!("adaptive max {out:?}"), &MAP, AdaptiveMaxPool2d::new(out));
    }
    t.add("adaptive avg none", &MAP, AdaptiveAvgPool2d::new((None, Some(1))));
}

fn norms(t: &mut Table) {
    t.add("batch norm", &MAP, BatchNorm2d::new(4));
    t.add("batch norm plain", &MAP, BatchNorm2d::new(4).affine(false).eps(1e-3));
    t.add("batch norm 1d", &[5], BatchNorm1d::new(5));
    t.add("batch norm 1d sequence", &[5, 6], BatchNorm1d::new(5));
    t.add("batch norm untracked", &MAP, BatchNorm2d::new(4).track_running_stats(false));
    for bias in [true, false] {
        let named = |what: &str| format!("{what}{}", if bias { "" } else { " no bias" });
        t.add(named("layer norm last"), &[5, 12], LayerNorm::new(12).bias(bias));
        t.add(named("layer norm vector"), &[12], LayerNorm::new(12).bias(bias).eps(1e-6));
        t.add(named("layer norm map"), &MAP, LayerNorm::new([4, 9, 8]).bias(bias));
        t.add(named("layer norm hw"), &MAP, LayerNorm::new([9, 8]).bias(bias));
        t.add(named("layer norm 2d"), &MAP, LayerNorm2d::new(4).bias(bias));
        t.add(named("group norm"), &MAP, GroupNorm::new(2, 4).bias(bias));
        t.add(named("instance norm"), &MAP, InstanceNorm2d::new(4).affine(true).bias(bias));
    }
    t.add("layer norm plain", &[5, 12], LayerNorm::new(12).elementwise_affine(false));
    t.add("group norm 1", &MAP, GroupNorm::new(1, 4));
    t.add("group norm all", &MAP, GroupNorm::new(4, 4));
    t.add("group norm plain", &MAP, GroupNorm::new(2, 4).affine(false));
    t.add("instance norm plain", &MAP, InstanceNorm2d::new(4));
    t.add("instance norm tracked", &MAP, InstanceNorm2d::new(4).affine(true).track_running_stats(true));
    t.add("local response", &[7, 4, 5], LocalResponseNorm::new(4).alpha(0.1).k(2.0));
}

fn activations(t: &mut Table) {
    let kinds = [
        UnaryKind::Neg,
        UnaryKind::Abs,
        UnaryKind::Sign,
        UnaryKind::Exp,
        UnaryKind::Square,
        UnaryKind::Sin,
        UnaryKind::Cos,
        UnaryKind::Erf,
        UnaryKind::Floor,
        UnaryKind::Ceil,
        UnaryKind::Round,
        UnaryKind::Relu,
        UnaryKind::LeakyRelu { slope: 0.2 },
        UnaryKind::Elu { alpha: 0.7 },
        UnaryKind::Selu,
        UnaryKind::Celu { alpha: 1.5 },
        UnaryKind::Gelu,
        UnaryKind::GeluTanh,
        UnaryKind::Silu,
        UnaryKind::Mish,
        UnaryKind::Hardswish,
        UnaryKind::Hardsigmoid,
        UnaryKind::Clip { min: 0.0, max: 6.0 },
        UnaryKind::Clip { min: -0.5, max: f32::INFINITY },
        UnaryKind::Clip { min: f32::NEG_INFINITY, max: 0.5 },
        UnaryKind::Softplus { beta: 1.0, threshold: 20.0 },
        UnaryKind::Softplus { beta: 3.0, threshold: 2.0 },
        UnaryKind::Softsign,
        UnaryKind::Sigmoid,
        UnaryKind::Tanh,
        UnaryKind::LogSigmoid,
        UnaryKind::PowConst { exponent: 3.0 },
        UnaryKind::Affine { scale: -1.5, shift: 0.25 },
        UnaryKind::Affine { scale: 1.0, shift: 0.25 },
        UnaryKind::Affine { scale: 2.0, shift: 0.0 },
        UnaryKind::Affine { scale: 1.0, shift: 0.0 },
        UnaryKind::Not,
    ];
    for kind in kinds {
        t.map(&format!("{kind:?}"), &[3, 5], move |x| x.affine(4.0, 0.0).unary(kind));
    }
    for kind in [UnaryKind::Log, UnaryKind::Sqrt, UnaryKind::Rsqrt, UnaryKind::Reciprocal] {
        t.map(&format!("{kind:?}"), &[3, 5], move |x| x.abs().affine(1.0, 0.1).unary(kind));
    }
    t.add("prelu", &MAP, PReLU::new());
    t.add("prelu channels", &MAP, PReLU::new().num_parameters(4));
    t.add("softmax", &MAP, Softmax::new(1));
    t.add("log softmax", &[3, 5], LogSoftmax::new(-1));
    t.add("dropout", &MAP, Dropout::new(0.5));
    t.add("hardtanh", &MAP, Hardtanh::new().range(-0.3, 0.4));
}

fn moves(t: &mut Table) {
    t.add("zero pad", &MAP, ZeroPad2d::new([1, 2, 3, 0]));
    t.add("zero pad and crop", &MAP, ZeroPad2d::new([-1, 2, 3, -2]));
    t.add("crop", &MAP, ZeroPad2d::new([-1, -2, 0, -3]));
    t.add("reflect pad", &MAP, ReflectionPad2d::new([1, 2, 3, 0]));
    t.add("reflect pad and crop", &MAP, ReflectionPad2d::new([1, -2, -3, 2]));
    t.add("replicate pad", &MAP, ReplicationPad2d::new([1, 2, 3, 0]));
    t.add("circular pad", &MAP, CircularPad2d::new([1, 2, 3, 0]));
    t.add("circular pad 1d", &[4, 6], CircularPad1d::new([2, 6]));
    t.add("constant pad", &MAP, ConstantPad2d::new([1, 2, 3, 0], 1.5));
    t.add("channel pad", &MAP, Pad::new([0, 0, 0, 0, 1, 2]));
    t.add("pixel shuffle", &[8, 3, 4], PixelShuffle::new(2));
    t.add("pixel unshuffle", &[2, 6, 4], PixelUnshuffle::new(2));
    t.add("channel shuffle", &[6, 3, 4], ChannelShuffle::new(3));
    t.add("flatten", &MAP, Flatten::new());
    t.add("flatten middle", &MAP, Flatten::new().end_dim(2));
    t.add("flatten with the batch", &MAP, Flatten::new().start_dim(0).end_dim(1));
    t.add("flatten all", &MAP, Flatten::new().start_dim(0));
    t.add("identity", &MAP, Identity::new());
    t.add("linear", &[6], Linear::new(6, 5));
    t.add("linear no bias", &[6], Linear::new(6, 5).bias(false));
    t.add("linear rows", &[3, 6], Linear::new(6, 5));
    t.map("chunks", &MAP, |x| {
        let parts = x.chunk(2, 1);
        Tensor::cat(&[&parts[1], &parts[0], &parts[1]], 1)
    });
    t.map("select", &MAP, |x| x.select(2, 3) + x.select(2, 0));
    t.map("slices", &MAP, |x| {
        let n = x.size(0);
        let op = Op::Slice { starts: vec![0, 3, 8, 1], sizes: vec![n, 4, 3, 3], steps: vec![1, -1, -3, 2] };
        x.trace().push(op, &[x])
    });
    t.map("transpose", &MAP, |x| x.permute(&[0, 2, 3, 1]).transpose(0, 2));
    t.map("unsqueeze", &[3], |x| x.unsqueeze(1).unsqueeze(-1).squeeze(1));
    t.map("expand", &[3], |x| x.unsqueeze(1).expand([x.size(0), 4, 3]));
    t.map("expand over the batch", &[3], |x| {
        let row = x.trace().constant(Array::arange([1, 3]));
        x * row.expand([x.size(0), 3])
    });
    t.map("tokens", &[2, 3], |x| {
        let token = x.trace().constant(Array::arange([1, 1, 3])).expand([x.size(0), 1, 3]);
        Tensor::cat(&[&token, x], 1)
    });
    t.map("batch twice", &[4, 3], |x| x.reshape([2 * x.size(0), 2, 3]).reshape([x.size(0), 2, 6]));
}

fn resizes(t: &mut Table) {
    for mode in ["nearest", "nearest-exact", "bilinear", "bicubic"] {
        for size in [(18, 16), (5, 3), (9, 13), (20, 7)] {
            t.add(format!("resize {mode} {size:?}"), &MAP, Upsample::new().size(size).mode(mode));
        }
        for scale in [2.0, 1.7, 0.6] {
            t.add(format!("resize {mode} {scale}"), &MAP, Upsample::new().scale_factor(scale).mode(mode));
        }
        t.add(format!("resize {mode} one axis"), &MAP, Upsample::new().scale_factor((1.05, 2.0)).mode(mode));
    }
    for mode in ["bilinear", "bicubic"] {
        for size in [(18, 16), (5, 3), (1, 8)] {
            let up = Upsample::new().size(size).mode(mode);
            t.add(format!("resize {mode} corners {size:?}"), &MAP, up.clone().align_corners(true));
            t.add(format!("resize {mode} antialias {size:?}"), &MAP, up.antialias(true));
        }
        let up = Upsample::new().scale_factor(1.7).mode(mode).align_corners(true);
        t.add(format!("resize {mode} corners by a factor"), &MAP, up);
    }
    t.add("resize thrice", &[1, 7, 7], Upsample::new().size((14, 21)));
}

fn functions(t: &mut Table) {
    let kinds = [
        ReduceKind::Sum,
        ReduceKind::Mean,
        ReduceKind::Max,
        ReduceKind::Min,
        ReduceKind::Prod,
        ReduceKind::SumSquare,
        ReduceKind::L1,
        ReduceKind::L2,
        ReduceKind::LogSumExp,
    ];
    for kind in kinds {
        t.map(&format!("reduce {kind:?}"), &MAP, move |x| x.reduce(kind, &[1, -1], false));
        t.map(&format!("reduce {kind:?} kept"), &MAP, move |x| x.reduce(kind, &[2], true));
        t.map(&format!("reduce {kind:?} nothing"), &MAP, move |x| x.reduce(kind, &[], false));
    }
    t.map("argmax", &MAP, |x| x.argmax(1, true).cast(DType::F32));
    t.map("one hot", &MAP, |x| x.argmax(1, false).one_hot(4));
    let kinds = [
        BinaryKind::Add,
        BinaryKind::Sub,
        BinaryKind::Mul,
        BinaryKind::Div,
        BinaryKind::Min,
        BinaryKind::Max,
        BinaryKind::Mod,
    ];
    for kind in kinds {
        t.map(&format!("{kind:?} of two"), &MAP, move |x| {
            let y = x.narrow(1, 0, 1).affine(1.0, 0.3);
            x.binary(kind, &y)
        });
    }
    t.map("pow of two", &MAP, |x| x.abs().affine(1.0, 0.1).pow(&x.narrow(2, 0, 1)));
    let kinds = [
        BinaryKind::Equal,
        BinaryKind::NotEqual,
        BinaryKind::Less,
        BinaryKind::LessOrEqual,
        BinaryKind::Greater,
        BinaryKind::GreaterOrEqual,
        BinaryKind::And,
        BinaryKind::Or,
        BinaryKind::Xor,
    ];
    for kind in kinds {
        t.map(&format!("{kind:?} of two"), &MAP, move |x| {
            let rounded = x.affine(2.0, 0.0).unary(UnaryKind::Round);
            rounded.binary(kind, &rounded.narrow(1, 0, 1)).cast(DType::F32)
        });
    }
    t.map("not", &MAP, |x| x.gt(&x.scalar_like(0.0)).logical_not().cast(DType::F32));
    t.map("where", &MAP, |x| x.where_(&x.gt(&x.scalar_like(0.1)), &x.scalar_like(7.0)));
    t.map("gather", &MAP, |x| {
        let indices = Array::from_vec([2, 2], vec![3i64, 0, 1, 1]).expect("four");
        x.index_select(1, &x.trace().constant(indices))
    });
    t.map("gather elements", &[5], |x| {
        let indices = Array::from_vec([1, 3], vec![4i64, 0, 2]).expect("three");
        x.gather(1, &x.trace().constant(indices).expand([x.size(0), 3]))
    });
    t.map("scatter", &[5], |x| {
        let indices = x.trace().constant(Array::from_vec([1, 2], vec![4i64, 1]).expect("two"));
        let op = Op::ScatterElements { axis: 1, mode: ScatterMode::Set };
        x.trace().push(op, &[x, &indices.expand([x.size(0), 2]), &x.narrow(1, 0, 2)])
    });
    t.map("scatter add", &[5], |x| {
        let indices = x.trace().constant(Array::from_vec([1, 2], vec![1i64, 1]).expect("two"));
        let op = Op::ScatterElements { axis: 1, mode: ScatterMode::Add };
        x.trace().push(op, &[x, &indices.expand([x.size(0), 2]), &x.narrow(1, 0, 2)])
    });
    t.needs_opset(16);
    for (name, aligned) in [("roi align", false), ("aligned roi align", true)] {
        t.map(name, &[3, 6, 5], move |x| {
            let corners = vec![0.2f32, 0.5, 3.5, 4.0, 1.0, 1.0, 9.0, 9.5, -1e6, -1e6, -1e6, -1e6];
            let regions = x.trace().constant(Array::from_vec([3, 4], corners).expect("three"));
            // Of the first picture, however many there are.
            let pictures = x.trace().constant(Array::from_vec([3], vec![0i64; 3]).expect("three"));
            let spec = RoiAlignSpec { out: [2, 3], scale: 0.5, sampling_ratio: 2, aligned, max: false };
            x.roi_align(&regions, &pictures, spec).reshape([1, 54]) + x.mean(&[1, 2, 3], false).reshape([x.size(0), 1])
        });
        t.needs_opset(if aligned { 16 } else { 13 });
    }
    t.map("products", &[2, 3, 4], |x| {
        let op = |trans_a, trans_b| Op::MatMul { trans_a, trans_b };
        let square = x.trace().push(op(false, true), &[x, x]);
        let other = x.trace().push(op(true, false), &[x, x]);
        x.trace().push(op(true, true), &[&other, x]).matmul(&square).matmul(x)
    });
    t.map("product of matrices", &[4], |x| {
        let weight = x.trace().constant(Array::arange([4, 3])).affine(0.1, -0.5);
        x.matmul(&weight)
    });
    t.map("detached", &[4], |x| x.relu().detach());
}

fn nets(t: &mut Table) {
    let net = sequential![
        Conv2d::new(4, 6, 3).bias(false),
        BatchNorm2d::new(6),
        ReLU6::new(),
        Conv2d::new(6, 6, 3).groups(6),
        BatchNorm2d::new(6).eps(1e-3),
        SiLU::new(),
        AdaptiveAvgPool2d::new(1),
        Flatten::new(),
        Dropout::new(0.2),
        Linear::new(6, 5),
    ];
    t.add("small net", &MAP, net);
    let branch = sequential![Conv2d::new(4, 4, 3).padding(1).bias(false), BatchNorm2d::new(4)];
    assign_names(&branch);
    t.map("residual", &MAP, move |x| (branch.call(x) + x).relu());
}
