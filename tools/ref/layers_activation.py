"""Activations: ordinary values, large ones, and the points where a derivative jumps (PyTorch's choice is stored)."""

import torch
from torch import nn

from fixture import Family, Layer

f = Family("layers_activation")
LARGE = torch.tensor([-1e4, -300.0, -100.0, -88.0, -50.0, -30.0, -20.5, -17.0, -12.0, -9.0, -6.5, -1.0,
                      1.0, 6.5, 9.0, 12.0, 17.0, 20.5, 30.0, 50.0, 88.0, 100.0, 300.0, 1e4])
TINY = torch.tensor([-1e-2, -1e-3, -1e-5, -1e-7, -1e-20, 1e-20, 1e-7, 1e-5, 1e-3, 1e-2])


def activation(name, cls, *args, kinks=(0.0,), **kwargs):
    layer = lambda: Layer(cls, *args, **kwargs)
    f.layer(f"{name}_normal", layer(), lambda: torch.randn(2, 3, 5) * 2)
    f.layer(f"{name}_large", layer(), LARGE.clone(), note="large values, and a one that gives the derivative its scale")
    f.layer(f"{name}_tiny", layer(), TINY.clone(), note="values near zero")
    f.layer(f"{name}_kinks", layer(), torch.tensor(kinks), note="points where a derivative jumps, and zero")


activation("relu", nn.ReLU)
activation("relu6", nn.ReLU6, kinks=(0.0, 6.0))
activation("leaky_relu", nn.LeakyReLU)
activation("leaky_relu_0_2", nn.LeakyReLU, 0.2)
activation("elu", nn.ELU)
activation("elu_0_7", nn.ELU, alpha=0.7)
activation("selu", nn.SELU)
activation("celu", nn.CELU)
activation("celu_1_6", nn.CELU, alpha=1.6)
activation("gelu", nn.GELU)
activation("gelu_tanh", nn.GELU, approximate="tanh")
activation("silu", nn.SiLU)
activation("mish", nn.Mish)
activation("hardswish", nn.Hardswish, kinks=(-3.0, 0.0, 3.0))
activation("hardsigmoid", nn.Hardsigmoid, kinks=(-3.0, 0.0, 3.0))
activation("hardtanh", nn.Hardtanh, kinks=(-1.0, 0.0, 1.0))
activation("hardtanh_range", nn.Hardtanh, -0.5, 2.0, kinks=(-0.5, 0.0, 2.0))
activation("softplus", nn.Softplus, kinks=(0.0, 20.0))
activation("softplus_beta", nn.Softplus, beta=2.5, threshold=5.0, kinks=(0.0, 2.0))
activation("softsign", nn.Softsign)
activation("sigmoid", nn.Sigmoid)
activation("tanh", nn.Tanh)
activation("log_sigmoid", nn.LogSigmoid)
f.layer("relu_4d_wide", Layer(nn.ReLU), lambda: torch.randn(1, 19, 2, 3))
f.layer("silu_4d_wide", Layer(nn.SiLU), lambda: torch.randn(1, 19, 2, 3))


def slopes(module):
    module.weight.uniform_(-0.3, 0.6)


for name, shape, args, note in [
    ("one", (2, 3, 4, 5), (), ""),
    ("init", (2, 3, 4, 5), (1, 0.1), ""),
    ("channels", (2, 5, 3, 4), (5,), "one slope a channel, dimension 1"),
    ("channels_2d", (7, 5), (5,), "one slope a column"),
    ("channels_3d", (2, 3, 7), (3,), ""),
    ("wide", (1, 19, 2, 3), (19,), ""),
]:
    f.layer(f"prelu_{name}", Layer(nn.PReLU, *args), lambda: torch.randn(shape), note=note,
            params=None if name in ("one", "init") else slopes)
f.layer("prelu_kink", Layer(nn.PReLU, 1), torch.tensor([0.0, -1.0, 2.0]), note="the derivative at zero is the slope")

for name, shape, dim in [("rows", (3, 7), 1), ("columns", (3, 7), 0), ("last", (2, 3, 5), -1), ("channels", (2, 5, 3, 4), 1),
                         ("width", (1, 3, 4, 5), 3), ("vector", (10,), 0), ("wide", (2, 35), 1), ("one_class", (4, 1), 1)]:
    for cls, key in [(nn.Softmax, "softmax"), (nn.LogSoftmax, "log_softmax")]:
        f.layer(f"{key}_{name}", Layer(cls, dim=dim), lambda: torch.randn(shape) * 2)
for cls, key in [(nn.Softmax, "softmax"), (nn.LogSoftmax, "log_softmax")]:
    f.layer(f"{key}_large", Layer(cls, dim=1), torch.tensor([[1000.0, 999.0, -1000.0], [-1e4, -1e4, -1e4], [0.0, 88.0, 90.0]]),
            note="would overflow without subtracting the maximum")

f.save()
