"""Optimizers: six steps on small parameters with stored gradients; the parameters after each step."""

import math

import numpy as np
import torch
from torch import optim

from fixture import Family, arguments, fnv1a, to_json

f = Family("optimizers")
STEPS = 6
SHAPES = {"conv.weight": (3, 2, 3), "conv.bias": (3,), "fc.weight": (2, 5)}


def start(case, scale=1.0):
    """Initial parameters and six gradients for each, float32."""
    generator = torch.Generator().manual_seed(fnv1a(f"optimizers/{case}") >> 1)
    initial = {k: torch.randn(s, generator=generator) for k, s in SHAPES.items()}
    grads = {k: torch.randn((STEPS, *s), generator=generator) * scale for k, s in SHAPES.items()}
    return initial, grads


def run(make, initial, grads, dtype, clip=None, each_step=None):
    """Parameters after each step, and what else `clip` and `each_step` want to have stored."""
    params = {k: torch.nn.Parameter(v.clone().to(dtype)) for k, v in initial.items()}
    optimizer = make(params)
    after, extra = {k: [] for k in params}, {}
    for step in range(STEPS):
        for k, p in params.items():
            p.grad = grads[k][step].clone().to(dtype)
        if clip:
            norm = clip(list(params.values()))
            if norm is not None:
                extra.setdefault("total_norm", []).append(norm.detach().clone())
            for k, p in params.items():
                extra.setdefault(f"grad_clipped/{k}", []).append(p.grad.clone())
        optimizer.step()
        for k, p in params.items():
            after[k].append(p.detach().clone())
        if each_step:
            for k, v in each_step(params).items():
                extra.setdefault(k, []).append(v.clone())
    return {k: torch.stack(v) for k, v in after.items()}, {k: torch.stack(v) for k, v in extra.items()}


def store(case, layer, args, initial, grads, results, note="", **more):
    (after, extra), (after64, extra64) = results
    t = {f"param/{k}": v for k, v in initial.items()}
    t.update({f"grad/{k}": v for k, v in grads.items()})
    t.update({f"after/{k}": v for k, v in after.items()})
    t.update({f"after64/{k}": v for k, v in after64.items()})
    for k in extra:
        head, slash, tail = k.partition("/")
        t[k], t[f"{head}64{slash}{tail}"] = extra[k], extra64[k]
    f.compare(case, t, 1e-5)
    f.add(case, layer, args, t, note, **more)


def arguments_of(cls, **kwargs):
    args = arguments(cls, [], **kwargs)
    return {k: v for k, v in args.items() if k not in ("params", "foreach", "fused", "capturable", "differentiable", "maximize")}


def optimizer(case, cls, scale=1.0, note="", groups=None, clip=None, each_step=None, **kwargs):
    """`groups` is a list of {"params": names, further options}; without it all parameters are one group."""
    initial, grads = start(case, scale)

    def make(params):
        if not groups:
            return cls(params.values(), foreach=False, **kwargs)
        return cls([{**g, "params": [params[n] for n in g["params"]]} for g in groups], foreach=False, **kwargs)

    results = [run(make, initial, grads, dtype, clip and clip[1], each_step and each_step())
               for dtype in (torch.float32, torch.float64)]
    more = {"groups": to_json(groups)} if groups else {}
    if clip:
        more["clip"] = to_json(clip[0])
    store(case, cls.__name__, arguments_of(cls, **kwargs), initial, grads, results, note, **more)


SGD, Adam, AdamW, RMSprop = optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop
optimizer("sgd", SGD, lr=0.1)
optimizer("sgd_momentum", SGD, lr=0.1, momentum=0.9, note="the first step's buffer is the gradient itself")
optimizer("sgd_dampening", SGD, lr=0.1, momentum=0.9, dampening=0.3, note="dampening leaves the first step's buffer alone")
optimizer("sgd_nesterov", SGD, lr=0.1, momentum=0.9, nesterov=True)
optimizer("sgd_weight_decay", SGD, lr=0.1, weight_decay=0.05)
optimizer("sgd_nesterov_weight_decay", SGD, lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.01)
optimizer("sgd_everything", SGD, lr=0.05, momentum=0.8, dampening=0.1, weight_decay=0.01)
optimizer("adam", Adam)
optimizer("adam_lr", Adam, lr=0.05)
optimizer("adam_betas_eps", Adam, lr=0.05, betas=(0.8, 0.95), eps=1e-3)
optimizer("adam_weight_decay", Adam, lr=0.05, weight_decay=0.1)
optimizer("adam_small_gradients", Adam, lr=0.05, scale=1e-6, note="eps is not small beside the gradients")
optimizer("adamw", AdamW)
optimizer("adamw_lr", AdamW, lr=0.05, weight_decay=0.2)
optimizer("adamw_betas_eps", AdamW, lr=0.05, betas=(0.7, 0.9), eps=1e-4, weight_decay=0.0)
optimizer("rmsprop", RMSprop)
optimizer("rmsprop_alpha_eps", RMSprop, lr=0.02, alpha=0.8, eps=1e-3)
optimizer("rmsprop_momentum", RMSprop, lr=0.02, momentum=0.9)
optimizer("rmsprop_centered", RMSprop, lr=0.02, centered=True)
optimizer("rmsprop_everything", RMSprop, lr=0.02, alpha=0.9, momentum=0.7, centered=True, weight_decay=0.1)

NO_DECAY = [dict(params=["conv.weight", "fc.weight"], weight_decay=0.1), dict(params=["conv.bias"], weight_decay=0.0)]
optimizer("sgd_groups", SGD, lr=0.1, momentum=0.9, groups=NO_DECAY, note="no decay on the bias")
optimizer("sgd_groups_lr", SGD, lr=0.1, momentum=0.5,
          groups=[dict(params=["conv.weight", "conv.bias"], lr=0.01), dict(params=["fc.weight"], momentum=0.9)])
optimizer("adamw_groups", AdamW, lr=0.05, groups=NO_DECAY)
optimizer("adam_groups_betas", Adam, lr=0.05, groups=[dict(params=["conv.weight"], betas=(0.5, 0.9)),
                                                       dict(params=["fc.weight", "conv.bias"], lr=0.2, eps=1e-2)])
optimizer("rmsprop_groups", RMSprop, lr=0.02, groups=[dict(params=["conv.weight"], alpha=0.5, momentum=0.9),
                                                        dict(params=["conv.bias", "fc.weight"], centered=True)])


def by_norm(max_norm, norm_type=2.0):
    said = dict(function="clip_grad_norm_", max_norm=max_norm, norm_type=norm_type)
    return said, lambda params: torch.nn.utils.clip_grad_norm_(params, max_norm, norm_type, foreach=False)


def by_value(clip_value):
    said = dict(function="clip_grad_value_", clip_value=clip_value)
    return said, lambda params: torch.nn.utils.clip_grad_value_(params, clip_value, foreach=False)


optimizer("sgd_clip_norm", SGD, lr=0.1, momentum=0.9, clip=by_norm(1.0))
optimizer("sgd_clip_norm_inactive", SGD, lr=0.1, clip=by_norm(100.0), note="the norm is below the limit: nothing is scaled")
optimizer("sgd_clip_norm_1", SGD, lr=0.1, clip=by_norm(5.0, 1.0))
optimizer("sgd_clip_norm_inf", SGD, lr=0.1, clip=by_norm(0.5, math.inf))
optimizer("adam_clip_norm", Adam, lr=0.05, clip=by_norm(0.1))
optimizer("sgd_clip_value", SGD, lr=0.1, momentum=0.9, clip=by_value(0.5))


def moving_average(decay):
    """PyTorch's AveragedModel with an exponential average: it begins as a copy of the first step's parameters."""
    def begin():
        average = {}

        def after_step(params):
            for k, p in params.items():
                average[k] = average[k].lerp(p.detach(), 1 - decay) if k in average else p.detach().clone()
            return {f"ema/{k}": v for k, v in average.items()}
        return after_step
    return begin


optimizer("sgd_ema", SGD, lr=0.1, momentum=0.9, each_step=moving_average(0.9),
          note="ema: copied after step 1, from then on ema = 0.9 ema + 0.1 param after each step")


def lion(case, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, groups=None, note=""):
    """Lion as in "Symbolic Discovery of Optimization Algorithms" (Chen et al., 2023), Algorithm 2; PyTorch has none.

        c = beta1 m + (1 - beta1) g;  p = p - lr (sign(c) + weight_decay p);  m = beta2 m + (1 - beta2) g
    """
    initial, grads = start(case)
    option = {k: dict(lr=lr, betas=betas, weight_decay=weight_decay) for k in SHAPES}
    for group in groups or []:
        for k in group["params"]:
            option[k] = {**option[k], **{o: v for o, v in group.items() if o != "params"}}
    results = []
    for dtype in (np.float32, np.float64):
        after = {}
        for k, start_value in initial.items():
            o = option[k]
            rate, decay, (b1, b2) = dtype(o["lr"]), dtype(o["weight_decay"]), map(dtype, o["betas"])
            p, m, steps = start_value.numpy().astype(dtype), np.zeros(SHAPES[k], dtype), []
            for g in grads[k].numpy().astype(dtype):
                c = b1 * m + (dtype(1) - b1) * g
                assert np.abs(c).min() > 1e-6, f"{case}: a sign is a matter of rounding"
                p = p - rate * (np.sign(c) + decay * p)
                m = b2 * m + (dtype(1) - b2) * g
                steps.append(p)
            after[k] = torch.from_numpy(np.stack(steps))
        results.append((after, {}))
    more = {"groups": to_json(groups)} if groups else {}
    store(case, "Lion", dict(lr=lr, betas=betas, weight_decay=weight_decay), initial, grads, results,
          note or "the paper's algorithm 2; PyTorch has no Lion", **more)


lion("lion")
lion("lion_lr", lr=0.02, betas=(0.95, 0.98))
lion("lion_weight_decay", lr=0.02, weight_decay=0.5)
lion("lion_groups", lr=0.02, groups=NO_DECAY)

f.save()
