"""Losses. `x` is the input (logits, log-probabilities or values), `target` the target; dtarget where PyTorch gives one."""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision import ops

from fixture import Family, Layer, arguments, seed, to_json

f = Family("losses")
REDUCTIONS = ("none", "mean", "sum")


def loss(name, cls, x, target, note="", grad_target=False, **kwargs):
    """One case a reduction. Of each reduction the numbers are new: the seed is that of the case."""
    for reduction in kwargs.pop("reductions", REDUCTIONS):
        case = f"{name}_{reduction}"
        seed(case + "/target")
        t = target() if callable(target) else target
        if grad_target:
            t.requires_grad_(True)
        f.layer(case, Layer(cls, reduction=reduction, **kwargs), x, inputs={"target": t}, note=note)


def logits(*shape, scale=2.0):
    return lambda: torch.randn(shape) * scale


def classes(count, *shape, ignored=None):
    def make():
        t = torch.randint(0, count, shape)
        if ignored is not None:
            t.view(-1)[::3] = ignored
        return t
    return make


def probabilities(*shape, dim=1):
    return lambda: torch.softmax(torch.randn(shape), dim)


WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.25, 3.0])
CE = nn.CrossEntropyLoss
loss("cross_entropy", CE, logits(6, 5), classes(5, 6))
loss("cross_entropy_weight", CE, logits(6, 5), classes(5, 6), weight=WEIGHT, note="mean divides by the sum of the weights")
loss("cross_entropy_ignore", CE, logits(7, 5), classes(5, 7, ignored=-100))
loss("cross_entropy_ignore_2", CE, logits(7, 5), classes(5, 7, ignored=2), ignore_index=2)
loss("cross_entropy_smoothing", CE, logits(6, 5), classes(5, 6), label_smoothing=0.1)
loss("cross_entropy_everything", CE, logits(7, 5), classes(5, 7, ignored=-100), weight=WEIGHT, label_smoothing=0.2,
     note="weight, ignored targets and label smoothing together")
loss("cross_entropy_large", CE, logits(5, 4, scale=200.0), classes(4, 5), note="would overflow without subtracting the maximum")
loss("cross_entropy_1000", CE, logits(2, 1000), classes(1000, 2), reductions=("mean",))
loss("cross_entropy_soft", CE, logits(6, 5), probabilities(6, 5), grad_target=True)
loss("cross_entropy_soft_smoothing", CE, logits(6, 5), probabilities(6, 5), label_smoothing=0.1, grad_target=True)
loss("cross_entropy_soft_weight", CE, logits(6, 5), probabilities(6, 5), weight=WEIGHT, grad_target=True,
     note="of soft targets, mean divides by the batch size even with weights")
loss("cross_entropy_pixels", CE, logits(2, 5, 3, 4), classes(5, 2, 3, 4))
loss("cross_entropy_pixels_ignore_weight", CE, logits(2, 5, 3, 4), classes(5, 2, 3, 4, ignored=255), ignore_index=255,
     weight=WEIGHT)
loss("cross_entropy_pixels_smoothing", CE, logits(2, 5, 3, 2), classes(5, 2, 3, 2), label_smoothing=0.1)
loss("cross_entropy_pixels_soft", CE, logits(2, 5, 3, 2), probabilities(2, 5, 3, 2), grad_target=True)
loss("cross_entropy_3d", CE, logits(2, 5, 6), classes(5, 2, 6))
loss("cross_entropy_one_sample", CE, logits(5), classes(5), note="logits without a batch dimension, a scalar target")

log_probabilities = lambda *shape: lambda: torch.log_softmax(torch.randn(shape), 1)
loss("nll", nn.NLLLoss, log_probabilities(6, 5), classes(5, 6))
loss("nll_weight", nn.NLLLoss, log_probabilities(6, 5), classes(5, 6), weight=WEIGHT)
loss("nll_ignore_weight", nn.NLLLoss, log_probabilities(7, 5), classes(5, 7, ignored=-100), weight=WEIGHT)
loss("nll_pixels", nn.NLLLoss, log_probabilities(2, 5, 3, 4), classes(5, 2, 3, 4, ignored=1), ignore_index=1)

inside = lambda *shape: lambda: torch.rand(shape) * 0.9 + 0.05
loss("bce", nn.BCELoss, inside(4, 5), lambda: torch.randint(0, 2, (4, 5)).float())
loss("bce_soft", nn.BCELoss, inside(4, 5), inside(4, 5), grad_target=True)
loss("bce_weight", nn.BCELoss, inside(4, 5), lambda: torch.randint(0, 2, (4, 5)).float(), weight=WEIGHT)
loss("bce_ends", nn.BCELoss, torch.tensor([0.0, 1.0, 0.5, 1e-3]), torch.tensor([0.0, 1.0, 1.0, 0.0]),
     note="log is cut at -100, so that 0 and 1 are finite")
binary = lambda *shape: lambda: torch.randint(0, 2, shape).float()
BCEL = nn.BCEWithLogitsLoss
loss("bce_with_logits", BCEL, logits(4, 5), binary(4, 5))
loss("bce_with_logits_soft", BCEL, logits(4, 5), inside(4, 5), grad_target=True)
loss("bce_with_logits_pos_weight", BCEL, logits(4, 5), binary(4, 5), pos_weight=WEIGHT)
loss("bce_with_logits_weights", BCEL, logits(4, 5), inside(4, 5), weight=WEIGHT, pos_weight=WEIGHT.flip(0))
loss("bce_with_logits_large", BCEL, logits(12, scale=80.0), binary(12))

values = lambda *shape, scale=1.0: lambda: torch.randn(shape) * scale
for key, cls, variants in [
    ("mse", nn.MSELoss, [{}]),
    ("l1", nn.L1Loss, [{}]),
    ("smooth_l1", nn.SmoothL1Loss, [{}, dict(beta=0.3), dict(beta=0.0)]),
    ("huber", nn.HuberLoss, [{}, dict(delta=0.4), dict(delta=2.0)]),
]:
    for kwargs in variants:
        tag = "".join(f"_{k}_{str(v).replace('.', '_')}" for k, v in kwargs.items())
        loss(f"{key}{tag}", cls, values(3, 4, 2), values(3, 4, 2), grad_target=True, **kwargs)
    points = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    loss(f"{key}_kinks", cls, points, torch.zeros(7), note="differences of 0 and of exactly beta or delta", reductions=("none",))

KL = nn.KLDivLoss
for reduction in (*REDUCTIONS, "batchmean"):
    loss("kl_div", KL, log_probabilities(4, 5), probabilities(4, 5), grad_target=True, reductions=(reduction,))
    loss("kl_div_log_target", KL, log_probabilities(4, 5), log_probabilities(4, 5), grad_target=True, log_target=True,
         reductions=(reduction,))
loss("kl_div_zero", KL, log_probabilities(1, 4), torch.tensor([[0.0, 0.5, 0.0, 0.5]]), note="a target of 0 adds nothing")


class Focal(nn.Module):
    """torchvision's sigmoid_focal_loss as a module."""

    def __init__(self, **kwargs):
        super().__init__()
        self.kwargs = kwargs

    def forward(self, x, target):
        return ops.sigmoid_focal_loss(x, target, **self.kwargs)


for name, kwargs in [("", {}), ("_alpha", dict(alpha=0.6)), ("_no_alpha", dict(alpha=-1)), ("_gamma_0", dict(gamma=0.0)),
                     ("_gamma_1_5", dict(gamma=1.5, alpha=0.4))]:
    for reduction in REDUCTIONS:
        layer = Layer(Focal, reduction=reduction, **kwargs)
        layer.args = to_json(arguments(ops.sigmoid_focal_loss, None, None, reduction=reduction, **kwargs))
        layer.args.pop("inputs"), layer.args.pop("targets")
        seed(f"focal{name}")
        f.layer(f"focal{name}_{reduction}", layer.renamed("sigmoid_focal_loss"), logits(4, 5), inputs={"target": binary(4, 5)()})

f.save()
