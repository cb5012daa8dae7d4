"""Learning rates of 40 steps: entry t is the rate in use for step t, that is after t calls of scheduler.step()."""

import torch
from torch.optim import SGD
from torch.optim import lr_scheduler as s

from fixture import Family, arguments, to_json

f = Family("schedules")
STEPS = 40


def said(make):
    """A schedule as JSON: its class and arguments; those that hold others hold them as the same kind of object."""
    cls, kwargs = make
    if cls is s.SequentialLR:
        args = dict(schedulers=[said(m) for m in kwargs["schedulers"]], milestones=kwargs["milestones"])
    elif cls is s.ChainedScheduler:
        args = dict(schedulers=[said(m) for m in kwargs["schedulers"]])
    else:
        args = {k: v for k, v in arguments(cls, None, **kwargs).items() if k not in ("optimizer", "last_epoch", "verbose")}
    return dict(layer=cls.__name__, args=to_json(args))


def build(make, optimizer):
    cls, kwargs = make
    if cls in (s.SequentialLR, s.ChainedScheduler):
        parts = [build(m, optimizer) for m in kwargs["schedulers"]]
        return cls(parts, optimizer=optimizer) if cls is s.ChainedScheduler else cls(optimizer, parts, kwargs["milestones"])
    return cls(optimizer, **kwargs)


def schedule(case, make, lr=0.1, note="", metric=None, groups=None, momentum=0.9):
    rates = groups or [lr]
    optimizer = SGD([dict(params=[torch.nn.Parameter(torch.zeros(1))], lr=rate) for rate in rates], momentum=momentum)
    scheduler = build(make, optimizer) if make else None
    seen, momenta = [], []
    for step in range(STEPS):
        seen.append([g["lr"] for g in optimizer.param_groups])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        if scheduler and step < STEPS - 1:
            scheduler.step(metric[step]) if metric is not None else scheduler.step()
    t = {"lr": torch.tensor(seen, dtype=torch.float64)}
    if not groups:
        t["lr"] = t["lr"][:, 0]
    if make and make[0] is s.OneCycleLR:
        t["momentum"] = torch.tensor(momenta, dtype=torch.float64)
    if metric is not None:
        t["metric"] = torch.tensor(metric, dtype=torch.float64)
    spoken = said(make) if make else dict(layer="constant", args={})
    f.add(case, spoken["layer"], spoken["args"], t, note, base_lr=to_json(groups or lr))


schedule("none", None)
schedule("constant_lr", (s.ConstantLR, {}))
schedule("constant_lr_half", (s.ConstantLR, dict(factor=0.5, total_iters=12)))
schedule("step", (s.StepLR, dict(step_size=7)))
schedule("step_gamma", (s.StepLR, dict(step_size=10, gamma=0.5)))
schedule("multi_step", (s.MultiStepLR, dict(milestones=[5, 17, 30])))
schedule("multi_step_gamma_repeated", (s.MultiStepLR, dict(milestones=[8, 8, 20], gamma=0.5)), note="a milestone given twice counts twice")
schedule("exponential", (s.ExponentialLR, dict(gamma=0.93)))
schedule("cosine", (s.CosineAnnealingLR, dict(T_max=40)))
schedule("cosine_min", (s.CosineAnnealingLR, dict(T_max=39, eta_min=0.002)))
schedule("cosine_past_its_end", (s.CosineAnnealingLR, dict(T_max=12, eta_min=0.01)), note="it rises again after T_max")
schedule("cosine_groups", (s.CosineAnnealingLR, dict(T_max=30, eta_min=0.001)), groups=[0.1, 0.01])
schedule("one_cycle", (s.OneCycleLR, dict(max_lr=0.5, total_steps=40)), note="momentum cycles the other way")
schedule("one_cycle_linear", (s.OneCycleLR, dict(max_lr=0.5, total_steps=40, anneal_strategy="linear")))
schedule("one_cycle_three_phase", (s.OneCycleLR, dict(max_lr=0.5, total_steps=40, three_phase=True)))
schedule("one_cycle_linear_three_phase", (s.OneCycleLR, dict(max_lr=0.5, total_steps=40, three_phase=True,
                                                              anneal_strategy="linear", pct_start=0.4)))
schedule("one_cycle_factors", (s.OneCycleLR, dict(max_lr=0.2, total_steps=40, pct_start=0.2, div_factor=10.0,
                                                  final_div_factor=100.0, base_momentum=0.8, max_momentum=0.9)))
schedule("one_cycle_epochs", (s.OneCycleLR, dict(max_lr=0.2, epochs=5, steps_per_epoch=8, cycle_momentum=False)))
schedule("one_cycle_groups", (s.OneCycleLR, dict(max_lr=[0.2, 0.05], total_steps=40)), groups=[0.1, 0.1])
schedule("polynomial", (s.PolynomialLR, dict(total_iters=40)))
schedule("polynomial_power", (s.PolynomialLR, dict(total_iters=30, power=2.0)), note="zero after total_iters")
schedule("polynomial_root", (s.PolynomialLR, dict(total_iters=40, power=0.9)))
schedule("linear_default", (s.LinearLR, {}))
schedule("linear_warm_up", (s.LinearLR, dict(start_factor=0.01, total_iters=10)))
schedule("linear_down", (s.LinearLR, dict(start_factor=1.0, end_factor=0.1, total_iters=25)))
schedule("warm_up_cosine", (s.SequentialLR, dict(schedulers=[
    (s.LinearLR, dict(start_factor=0.1, total_iters=5)), (s.CosineAnnealingLR, dict(T_max=35))], milestones=[5])))
schedule("three_in_sequence", (s.SequentialLR, dict(schedulers=[
    (s.ConstantLR, dict(factor=0.1, total_iters=4)), (s.ExponentialLR, dict(gamma=0.9)),
    (s.StepLR, dict(step_size=3, gamma=0.5))], milestones=[4, 20])))
schedule("warm_up_multi_step", (s.SequentialLR, dict(schedulers=[
    (s.LinearLR, dict(start_factor=0.2, total_iters=8)), (s.MultiStepLR, dict(milestones=[10, 20], gamma=0.1))], milestones=[8])),
    note="the second schedule's own count begins at its milestone")
schedule("warm_up_polynomial_groups", (s.SequentialLR, dict(schedulers=[
    (s.LinearLR, dict(start_factor=0.1, total_iters=6)), (s.PolynomialLR, dict(total_iters=34, power=2.0))], milestones=[6])),
    groups=[0.1, 0.03])
schedule("chained_constant_exponential", (s.ChainedScheduler, dict(schedulers=[
    (s.ConstantLR, dict(factor=0.1, total_iters=7)), (s.ExponentialLR, dict(gamma=0.95))])))
schedule("chained_linear_step", (s.ChainedScheduler, dict(schedulers=[
    (s.LinearLR, dict(start_factor=0.1, total_iters=10)), (s.StepLR, dict(step_size=15, gamma=0.3))])))
schedule("chained_warm_up_cosine", (s.ChainedScheduler, dict(schedulers=[
    (s.LinearLR, dict(start_factor=0.2, total_iters=6)), (s.CosineAnnealingLR, dict(T_max=40, eta_min=0.001))])),
    note="cosine computes from the rate that it finds, which the warm-up has changed")

falling = [2.0 * 0.9 ** min(t, 12) + (0.001 * (t % 3) if t > 12 else 0.0) for t in range(STEPS)]
noisy = [1.0 / (1 + t) + (0.05 if t % 4 == 1 else 0.0) for t in range(STEPS)]
rising = [-v for v in falling]
P = s.ReduceLROnPlateau
schedule("plateau", (P, {}), metric=falling)
schedule("plateau_patience", (P, dict(factor=0.5, patience=2)), metric=falling)
schedule("plateau_max", (P, dict(mode="max", factor=0.5, patience=3)), metric=rising, note="relative threshold of a negative best")
schedule("plateau_max_accuracy", (P, dict(mode="max", factor=0.3, patience=1)), metric=[1 - v / 3 for v in falling])
schedule("plateau_absolute", (P, dict(factor=0.5, patience=1, threshold=0.02, threshold_mode="abs")), metric=noisy)
schedule("plateau_relative", (P, dict(factor=0.5, patience=1, threshold=0.1)), metric=noisy)
schedule("plateau_cooldown", (P, dict(factor=0.5, patience=1, cooldown=4)), metric=falling)
schedule("plateau_min_lr", (P, dict(factor=0.1, patience=0, min_lr=0.003)), metric=falling)
schedule("plateau_eps", (P, dict(factor=0.9, patience=0, eps=0.02)), metric=falling, note="a change smaller than eps is not made")
schedule("plateau_groups", (P, dict(factor=0.5, patience=1, min_lr=[0.01, 0.001])), metric=falling, groups=[0.1, 0.03])

f.save()
