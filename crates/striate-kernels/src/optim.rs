//! Updates of parameters: the same arithmetic as the scalar twin, constants taken out of the loop, in one pass.

use crate::kinds::UpdateKind;
use crate::mem::DisjointMut;
use crate::reference::meant_decimal;
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::Team;

/// Elements of one task.
const GRAIN: usize = 16384;

/// What an update reads.
#[derive(Clone, Copy, Debug)]
pub struct UpdateArgs<'a> {
    /// The rule.
    pub kind: UpdateKind,
    /// Its hyper-parameters, see [`UpdateKind`]; one number more is the momentum (or `beta1`) of this run.
    pub hyper: &'a [f32],
    /// Factor of the gradient.
    pub scale: f32,
    /// The gradient (or value).
    pub grad: &'a [f32],
}

/// Updates `p` and its `state` in place.
///
/// # Panics
/// Where a slice is shorter than `p`, or a state cell or hyper-parameter is missing.
pub fn update(team: &Team, isa: Isa, args: UpdateArgs, p: &mut [f32], state: &mut [&mut [f32]]) {
    let n = p.len();
    let kind = args.kind.of_run(args.hyper.get(args.kind.hyper_count()).copied());
    let args = UpdateArgs { kind, ..args };
    assert!(args.grad.len() == n && state.iter().all(|s| s.len() == n), "lengths of an update by {kind:?}");
    assert!(state.len() >= kind.state_count() && args.hyper.len() >= kind.hyper_count(), "state or hyper of {kind:?}");
    let p = DisjointMut::new(p);
    let mut cells = [None, None, None];
    state.iter_mut().zip(&mut cells).for_each(|(s, cell)| *cell = Some(DisjointMut::new(s)));
    team.for_each(n.div_ceil(GRAIN), |task| {
        let range = task * GRAIN..n.min((task + 1) * GRAIN);
        // SAFETY: each task has its own range.
        let part = |cell: &DisjointMut<f32>| unsafe {
            std::slice::from_raw_parts_mut(cell.as_mut_ptr().add(range.start), range.len())
        };
        let mut none = [const { Vec::<f32>::new() }; 3];
        let [a, b, c] = &mut none;
        let mut state: [&mut [f32]; 3] = [a, b, c];
        state.iter_mut().zip(&cells).for_each(|(slot, cell)| {
            if let Some(cell) = cell {
                *slot = part(cell);
            }
        });
        let grad = &args.grad[range.clone()];
        isa.dispatch(Update { args: UpdateArgs { grad, ..args }, p: part(&p), state });
    });
}

struct Update<'a> {
    args: UpdateArgs<'a>,
    p: &'a mut [f32],
    state: [&'a mut [f32]; 3],
}

impl Kernel for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Update { args, p, state } = self;
        let UpdateArgs { kind, hyper, scale, grad } = args;
        let [first, second, third] = state;
        match kind {
            UpdateKind::Sgd { momentum, dampening, nesterov } => {
                let rule = Sgd { lr: hyper[0], decay: hyper[1], scale };
                match momentum != 0.0 {
                    false => rule.plain(p, grad),
                    true => rule.momentum(p, grad, first, (momentum, dampening, nesterov, hyper[2] != 0.0)),
                }
            }
            UpdateKind::Adam { beta1, beta2, eps, decoupled } => {
                let rule = Adam { hyper, scale, beta1, beta2, eps, decoupled };
                rule.run(p, grad, first, second);
            }
            UpdateKind::RmsProp { alpha, eps, momentum, centered } => {
                rms_prop((alpha, eps, momentum, centered), (hyper, scale), p, grad, [first, second, third]);
            }
            UpdateKind::Lion { beta1, beta2 } => lion((beta1, beta2), (hyper, scale), p, grad, first),
            UpdateKind::Average => {
                let (keep, take) = (hyper[0], 1.0 - hyper[0]);
                p.iter_mut().zip(grad).for_each(|(p, g)| *p = keep * *p + take * (g * scale));
            }
            UpdateKind::Assign => p.iter_mut().zip(grad).for_each(|(p, g)| *p = g * scale),
            UpdateKind::Accumulate => p.iter_mut().zip(grad).for_each(|(p, g)| *p += g * scale),
        }
    }
}

fn constant(x: f32) -> f32 {
    meant_decimal(x) as f32
}

fn one_minus(x: f32) -> f32 {
    (1.0 - meant_decimal(x)) as f32
}

struct Sgd {
    lr: f32,
    decay: f32,
    scale: f32,
}

impl Sgd {
    #[inline(always)]
    fn plain(self, p: &mut [f32], grad: &[f32]) {
        p.iter_mut().zip(grad).for_each(|(p, g)| *p -= self.lr * (g * self.scale + self.decay * *p));
    }

    #[inline(always)]
    fn momentum(
        self,
        p: &mut [f32],
        grad: &[f32],
        buffer: &mut [f32],
        (momentum, dampening, nesterov, first): (f32, f32, bool, bool),
    ) {
        let (momentum, take) = (constant(momentum), one_minus(dampening));
        for ((p, g), buffer) in p.iter_mut().zip(grad).zip(buffer) {
            let g = g * self.scale + self.decay * *p;
            *buffer = if first { g } else { *buffer * momentum + take * g };
            let step = if nesterov { g + momentum * *buffer } else { *buffer };
            *p -= self.lr * step;
        }
    }
}

struct Adam<'a> {
    hyper: &'a [f32],
    scale: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    decoupled: bool,
}

impl Adam<'_> {
    #[inline(always)]
    fn run(self, p: &mut [f32], grad: &[f32], first: &mut [f32], second: &mut [f32]) {
        let (lr, decay) = (self.hyper[0], self.hyper[1]);
        let (take1, beta2, take2) = (one_minus(self.beta1), constant(self.beta2), one_minus(self.beta2));
        let (root, eps, step) = (self.hyper[3].sqrt(), constant(self.eps), lr / self.hyper[2]);
        let shrink = 1.0 - lr * decay;
        for (((p, g), first), second) in p.iter_mut().zip(grad).zip(first).zip(second) {
            let mut g = g * self.scale;
            if self.decoupled {
                *p *= shrink;
            } else {
                g += decay * *p;
            }
            *first += (g - *first) * take1;
            *second = *second * beta2 + take2 * g * g;
            let denominator = second.sqrt() / root + eps;
            *p -= step * (*first / denominator);
        }
    }
}

#[inline(always)]
fn rms_prop(
    (alpha, eps, momentum, centered): (f32, f32, f32, bool),
    (hyper, scale): (&[f32], f32),
    p: &mut [f32],
    grad: &[f32],
    [square, second, third]: [&mut [f32]; 3],
) {
    let (keep, take, eps, momentum) = (constant(alpha), one_minus(alpha), constant(eps), constant(momentum));
    // The mean comes after the momentum buffer, where there is one.
    let (buffer, mean) = if momentum > 0.0 { (second, third) } else { (third, second) };
    for i in 0..p.len() {
        let g = grad[i] * scale + hyper[1] * p[i];
        square[i] = square[i] * keep + take * g * g;
        let mut spread = square[i];
        if centered {
            mean[i] += (g - mean[i]) * take;
            spread -= mean[i] * mean[i];
        }
        let mut step = g / (spread.sqrt() + eps);
        if momentum > 0.0 {
            buffer[i] = buffer[i] * momentum + step;
            step = buffer[i];
        }
        p[i] -= hyper[0] * step;
    }
}

#[inline(always)]
fn lion((beta1, beta2): (f32, f32), (hyper, scale): (&[f32], f32), p: &mut [f32], grad: &[f32], mean: &mut [f32]) {
    let (keep1, take1) = (constant(beta1), one_minus(beta1));
    let (keep2, take2) = (constant(beta2), one_minus(beta2));
    let shrink = 1.0 - hyper[0] * hyper[1];
    for ((p, g), m) in p.iter_mut().zip(grad).zip(mean) {
        let g = g * scale;
        let direction = keep1 * *m + take1 * g;
        let sign = if direction > 0.0 {
            1.0
        } else if direction < 0.0 {
            -1.0
        } else {
            direction
        };
        *p = *p * shrink - hyper[0] * sign;
        *m = keep2 * *m + take2 * g;
    }
}
