//! Functions of single elements: activations, arithmetic, comparisons.

use super::call::{Answer, Call, Halt, Handler};
use striate_graph::{BinaryKind, DType, Node, NodeId, Op, Tensor, UnaryKind};

pub(super) fn handler(operator: &str) -> Option<Handler> {
    Some(match operator {
        "Abs" | "Neg" | "Sign" | "Exp" | "Log" | "Sqrt" | "Reciprocal" | "Sin" | "Cos" | "Erf" | "Floor" | "Ceil"
        | "Round" | "Relu" | "Sigmoid" | "Tanh" | "Softsign" | "Softplus" | "Mish" | "HardSwish" | "Not"
        | "LeakyRelu" | "Elu" | "Celu" | "Gelu" | "HardSigmoid" | "Selu" | "ThresholdedRelu" | "Swish" => unary,
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual"
        | "And" | "Or" | "Xor" => binary,
        "Min" | "Max" | "Sum" | "Mean" => variadic,
        "Clip" => clip,
        "PRelu" => prelu,
        "Where" => where_,
        _ => return None,
    })
}

fn unary(call: &mut Call) -> Answer {
    use UnaryKind::*;
    let x = call.input(0)?;
    let alpha = |otherwise: f32| call.attributes.float("alpha", otherwise);
    let kind = match call.op {
        "Abs" => Abs,
        "Neg" => Neg,
        "Sign" => Sign,
        "Exp" => Exp,
        "Log" => Log,
        "Sqrt" => Sqrt,
        "Reciprocal" => Reciprocal,
        "Sin" => Sin,
        "Cos" => Cos,
        "Erf" => Erf,
        "Floor" => Floor,
        "Ceil" => Ceil,
        "Round" => Round,
        "Relu" => Relu,
        "Sigmoid" => Sigmoid,
        "Tanh" => Tanh,
        "Softsign" => Softsign,
        // Above this threshold the logarithm has no digit left that f32 could hold.
        "Softplus" => Softplus { beta: 1.0, threshold: 20.0 },
        "Mish" => Mish,
        "HardSwish" => Hardswish,
        "Not" => Not,
        "LeakyRelu" => LeakyRelu { slope: alpha(0.01) },
        "Elu" => Elu { alpha: alpha(1.0) },
        "Celu" => Celu { alpha: alpha(1.0) },
        "Swish" if alpha(1.0) == 1.0 => Silu,
        "Swish" => {
            let gate = x.affine(alpha(1.0), 0.0).sigmoid();
            return Ok((x * gate).into());
        }
        "Gelu" if call.attributes.word("approximate", "none") == "tanh" => GeluTanh,
        "Gelu" => Gelu,
        "HardSigmoid" => return Ok(hard_sigmoid(call, &x).into()),
        "Selu" => return Ok(selu(call, &x).into()),
        "ThresholdedRelu" => {
            let above = x.gt(&x.scalar_like(f64::from(alpha(1.0))));
            return Ok(x.where_(&above, &x.scalar_like(0.0)).into());
        }
        _ => return Err("no function of one value has this name".into()),
    };
    Ok(x.unary(kind).into())
}

/// `max(0, min(1, alpha x + beta))`; PyTorch's is the one with 1/6 and 1/2.
fn hard_sigmoid(call: &Call, x: &Tensor) -> Tensor {
    let (alpha, beta) = (call.attributes.float("alpha", 0.2), call.attributes.float("beta", 0.5));
    if alpha == 1.0 / 6.0 && beta == 0.5 {
        x.unary(UnaryKind::Hardsigmoid)
    } else {
        x.affine(alpha, beta).clamp(0.0, 1.0)
    }
}

/// `gamma (max(0, x) + min(0, alpha (e^x - 1)))`; PyTorch's has the constants of the paper.
fn selu(call: &Call, x: &Tensor) -> Tensor {
    const ALPHA: f32 = 1.673_263_2;
    const GAMMA: f32 = 1.050_701;
    let (alpha, gamma) = (call.attributes.float("alpha", ALPHA), call.attributes.float("gamma", GAMMA));
    match alpha == ALPHA && gamma == GAMMA {
        true => x.unary(UnaryKind::Selu),
        false => x.unary(UnaryKind::Elu { alpha }).affine(gamma, 0.0),
    }
}

/// The two operands; before opset 7 the second one's axes could begin at one of the first's.
fn operands(call: &Call) -> Result<(Tensor, Tensor), Halt> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    if call.opset < 7 && call.attributes.has("axis") {
        let (rank, own) = (a.shape().rank(), b.shape().rank());
        let axis = call.axis(0, rank)?;
        let behind = rank.checked_sub(axis + own).ok_or("its second input has too many axes")?;
        let shape = [&b.shape()[..], &vec![1; behind]].concat();
        return Ok((a, b.reshape(shape)));
    }
    Ok((a, b))
}

fn binary(call: &mut Call) -> Answer {
    let kind = match call.op {
        "Add" => BinaryKind::Add,
        "Sub" => BinaryKind::Sub,
        "Mul" => BinaryKind::Mul,
        "Div" => BinaryKind::Div,
        "Pow" => return power(call),
        "Equal" => BinaryKind::Equal,
        "Less" => BinaryKind::Less,
        "LessOrEqual" => BinaryKind::LessOrEqual,
        "Greater" => BinaryKind::Greater,
        "GreaterOrEqual" => BinaryKind::GreaterOrEqual,
        "And" => BinaryKind::And,
        "Or" => BinaryKind::Or,
        "Xor" => BinaryKind::Xor,
        _ => return Err("no function of two values has this name".into()),
    };
    if let Some(y) = with_number(call, kind)? {
        return Ok(y.into());
    }
    let (a, b) = operands(call)?;
    let known = if kind == BinaryKind::Mul { activation(&a, &b).or_else(|| activation(&b, &a)) } else { None };
    Ok(known.unwrap_or_else(|| a.binary(kind, &b)).into())
}

/// `x` times a function of `x`, which exporters write out: the activation that it is.
fn activation(x: &Tensor, gate: &Tensor) -> Option<Tensor> {
    let kind = x.trace().with_graph(|graph| {
        let node = graph.node(gate.id());
        let of = |node: &Node| node.inputs.first().copied();
        match node.op {
            Op::Unary(UnaryKind::Sigmoid) if of(node)? == x.id() => Some(UnaryKind::Silu),
            Op::Unary(UnaryKind::Hardsigmoid) if of(node)? == x.id() => Some(UnaryKind::Hardswish),
            Op::Unary(UnaryKind::Tanh) => {
                let inner = graph.node(of(node)?);
                let softplus = matches!(inner.op, Op::Unary(UnaryKind::Softplus { beta: 1.0, .. }));
                (softplus && of(inner)? == x.id()).then_some(UnaryKind::Mish)
            }
            _ => None,
        }
    })?;
    Some(x.unary(kind))
}

/// Arithmetic of f32 with one number that is known: a form that a convolution or an activation can take along.
fn with_number(call: &Call, kind: BinaryKind) -> Result<Option<Tensor>, Halt> {
    let number = |index: usize| -> Result<Option<f32>, Halt> {
        let value = call.value(index)?;
        let array = value.data().filter(|array| array.dtype() == DType::F32 && array.numel() == 1);
        Ok(array.and_then(|array| array.item().ok()).map(|value| value as f32))
    };
    let fits = |x: &Tensor, other: &Tensor| x.dtype() == DType::F32 && x.shape().rank() >= other.shape().rank();
    for (index, other) in [(0, 1), (1, 0)] {
        let Some(number) = number(other)? else { continue };
        let x = call.input(index)?;
        if !fits(&x, &call.input(other)?) {
            continue;
        }
        if kind == BinaryKind::Mul
            && number == 0.5
            && let Some(y) = gelu(&x)
        {
            return Ok(Some(y));
        }
        return Ok(match (kind, index) {
            (BinaryKind::Add, _) => Some(x.affine(1.0, number)),
            (BinaryKind::Mul, _) => Some(x.affine(number, 0.0)),
            (BinaryKind::Sub, 0) => Some(x.affine(1.0, -number)),
            (BinaryKind::Sub, _) => Some(x.affine(-1.0, number)),
            // Only for powers of two is a product with the reciprocal the quotient itself.
            (BinaryKind::Div, 0) if number.is_normal() && number.to_bits() << 9 == 0 => {
                Some(x.affine(1.0 / number, 0.0))
            }
            _ => None,
        });
    }
    Ok(None)
}

/// GELU where `x` is `v (1 + erf(v / sqrt 2))`, as exporters write it before its half is taken.
fn gelu(x: &Tensor) -> Option<Tensor> {
    let v = x.trace().with_graph(|graph| {
        let product = graph.node(x.id());
        let [a, b] = product.inputs[..] else { return None };
        if !matches!(product.op, Op::Binary(BinaryKind::Mul)) {
            return None;
        }
        let input = |id: NodeId| graph.node(id).inputs.first().copied();
        [(a, b), (b, a)].into_iter().find_map(|(v, gate)| {
            if !matches!(graph.node(gate).op, Op::Unary(UnaryKind::Affine { scale: 1.0, shift: 1.0 })) {
                return None;
            }
            let erf = input(gate)?;
            if !matches!(graph.node(erf).op, Op::Unary(UnaryKind::Erf)) {
                return None;
            }
            let scaled = graph.node(input(erf)?);
            let root = std::f32::consts::SQRT_2;
            let is_root = |id: NodeId| match &graph.node(id).op {
                Op::Constant(array) => array.item().is_ok_and(|value| (value as f32 - root).abs() < 1e-6),
                _ => false,
            };
            let fits = match (&scaled.op, &scaled.inputs[..]) {
                (Op::Unary(UnaryKind::Affine { scale, shift }), _) => {
                    (scale * root - 1.0).abs() < 1e-6 && *shift == 0.0
                }
                (Op::Binary(BinaryKind::Div), [_, divisor]) => is_root(*divisor),
                _ => false,
            };
            (fits && scaled.inputs.first() == Some(&v)).then_some(v)
        })
    })?;
    Some(x.trace().at(v).unary(UnaryKind::Gelu))
}

/// The exponent may be of another type than the base.
fn power(call: &mut Call) -> Answer {
    let (base, exponent) = operands(call)?;
    let dtype = base.dtype();
    if dtype == exponent.dtype() {
        return Ok(base.pow(&exponent).into());
    }
    let wide = if dtype.is_float() { dtype } else { DType::F64 };
    Ok(base.cast(wide).pow(&exponent.cast(wide)).cast(dtype).into())
}

fn variadic(call: &mut Call) -> Answer {
    let all = call.all()?;
    let count = all.len() as f64;
    let kind = match call.op {
        "Min" => BinaryKind::Min,
        "Max" => BinaryKind::Max,
        _ => BinaryKind::Add,
    };
    let joined = all.into_iter().reduce(|a, b| a.binary(kind, &b)).ok_or("it has no inputs")?;
    match call.op {
        "Mean" => Ok(joined.binary(BinaryKind::Div, &joined.scalar_like(count)).into()),
        _ => Ok(joined.into()),
    }
}

fn clip(call: &mut Call) -> Answer {
    let x = call.input(0)?;
    let bound = |call: &mut Call, index: usize, attribute: &str| -> Result<Option<f64>, Halt> {
        match (call.has(index), call.attributes.find(attribute)) {
            (true, _) => call.number(index).map(Some),
            (false, Some(found)) => Ok(found.f.map(f64::from)),
            (false, None) => Ok(None),
        }
    };
    let (low, high) = (bound(call, 1, "min")?, bound(call, 2, "max")?);
    if x.dtype() == DType::F32 {
        let ends = [low.unwrap_or(f64::NEG_INFINITY), high.unwrap_or(f64::INFINITY)].map(|end| end as f32);
        return Ok(match ends {
            [f32::NEG_INFINITY, f32::INFINITY] => x.into(),
            [0.0, f32::INFINITY] => x.relu().into(),
            [low, high] => x.clamp(low, high).into(),
        });
    }
    let x = low.map_or(x.clone(), |low| x.maximum(&x.scalar_like(low)));
    Ok(high.map_or(x.clone(), |high| x.minimum(&x.scalar_like(high))).into())
}

/// The slope of an axis of channels may lack the axes behind it.
fn prelu(call: &mut Call) -> Answer {
    let (x, slope) = (call.input(0)?, call.input(1)?);
    let (shape, own) = (x.shape(), slope.shape());
    let slope = match (own.dims(), shape.dims()) {
        ([channels], [_, c, _, ..]) if call.opset < 7 && channels == c => {
            slope.reshape([&[*channels][..], &vec![1; shape.rank() - 2]].concat())
        }
        _ => slope,
    };
    if x.dtype() == DType::F32 {
        // The same by functions that have fast kernels.
        return Ok((x.relu() + slope * x.clamp(f32::NEG_INFINITY, 0.0)).into());
    }
    let negative = x.lt(&x.scalar_like(0.0));
    Ok((&x * &slope).where_(&negative, &x).into())
}

fn where_(call: &mut Call) -> Answer {
    Ok(call.input(1)?.where_(&call.input(0)?, &call.input(2)?).into())
}
