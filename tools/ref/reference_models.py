"""The PyTorch twins of striate's registry models that the fixtures use, and the formula that fills their weights.

The formula gives the same bits in any language with IEEE arithmetic: README.md, "Numbers by formula".
"""

from collections import OrderedDict

import numpy as np
import torch
from torch import nn
from torchvision import models

from fixture import fnv1a


def lenet(num_classes=10):
    """3x3 convolutions of 32 and 64 channels, each with ReLU and 2x2 max pooling, then 128 hidden units; for 1x28x28."""
    return nn.Sequential(OrderedDict([
        ("conv1", nn.Conv2d(1, 32, 3, padding=1)), ("relu1", nn.ReLU()), ("pool1", nn.MaxPool2d(2)),
        ("conv2", nn.Conv2d(32, 64, 3, padding=1)), ("relu2", nn.ReLU()), ("pool2", nn.MaxPool2d(2)),
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(64 * 7 * 7, 128)), ("relu3", nn.ReLU()), ("fc2", nn.Linear(128, num_classes)),
    ]))


def resnet18_cifar(num_classes=10):
    """torchvision's resnet18 for small pictures: a 3x3 stem of stride 1 and no pooling after it; for 3x32x32."""
    net = models.resnet18(num_classes=num_classes)
    net.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net


def mobilenet_v2(num_classes=10):
    """torchvision's mobilenet_v2 without dropout."""
    return models.mobilenet_v2(num_classes=num_classes, dropout=0.0)


def splitmix(name, count):
    """The first `count` outputs of splitmix64 whose state begins as the FNV-1a hash of the name, as uint64."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def formula(name, shape, scale):
    """scale * (u - 0.5), one rounding: u is the top 24 bits / 2^24, scale a float32."""
    top = (splitmix(name, int(np.prod(shape))) >> np.uint64(40)).astype(np.float32)
    values = np.float32(scale) * (top / np.float32(1 << 24) - np.float32(0.5))
    return torch.from_numpy(values.reshape(shape))


def fill_by_formula(net):
    """Sets every parameter and buffer of a float32 network of ten classes by the formula.

    The last layer is ten times smaller than He's rule says: gradients are tame, and rounding is not amplified as much.
    """
    state = net.state_dict()
    for name, value in state.items():
        layer, _, last = name.rpartition(".")
        normed = f"{layer}.running_mean" in state
        if last == "weight" and value.dim() >= 2:
            width = 0.24 if value.shape == (10, value[0].numel()) else 24.0
            value.copy_(formula(name, tuple(value.shape), np.sqrt(width / value[0].numel())))
        elif last == "bias" and not normed:
            value.copy_(formula(name, tuple(value.shape), 0.1))
        else:
            value.fill_(1.0 if last in ("weight", "running_var") else 0.0)
    return net


def images(step, shape):
    """The pictures of a step, 0, 1, …, or "eval"."""
    return formula(f"input.{step}", shape, np.sqrt(12.0))


def labels(step, count, num_classes=10):
    """The labels of a step."""
    top = splitmix(f"label.{step}", count) >> np.uint64(40)
    return torch.from_numpy(((top * np.uint64(num_classes)) >> np.uint64(24)).astype(np.int64))


# PyTorch's float32 has more than one rounding: oneDNN's kernels on either layout of the maps, and its own kernels.
FLOAT32_RUNS = (
    (torch.contiguous_format, True),
    (torch.channels_last, True),
    (torch.contiguous_format, False),
)


def in_each_float32(compute):
    """What `compute(layout)` returns in each of PyTorch's ways to compute a net in float32."""
    results = []
    for layout, onednn in FLOAT32_RUNS:
        with torch.backends.mkldnn.flags(enabled=onednn):
            results.append(compute(layout))
    return results


def bit_checksum(values):
    """Sum over j of (bits of float32 element j) * (2 j + 1), modulo 2^64."""
    bits = values.detach().contiguous().view(-1).numpy().view(np.uint32).astype(np.uint64)
    with np.errstate(over="ignore"):
        total = (bits * (np.arange(bits.size, dtype=np.uint64) * np.uint64(2) + np.uint64(1))).sum(dtype=np.uint64)
    return f"{int(total):016x}"
