"""Pooling layers and MaxUnpool2d."""

import torch
import torch.nn.functional as F
from torch import nn

from fixture import Family, Layer, seed

f = Family("layers_pool")


def pool(name, cls, shape, *args, note="", positive=False, call=None, **kwargs):
    make = (lambda: torch.rand(shape) + 0.1) if positive else (lambda: torch.randn(shape))
    f.layer(name, Layer(cls, *args, **kwargs), make, note=note, call=call)


course = torch.arange(1.0, 17.0).reshape(1, 1, 4, 4)
f.layer("max_pool2d_course", Layer(nn.MaxPool2d, 2, 2), course, note="the tensor 1 to 16 of a first lesson")
f.layer("max_pool2d_ties", Layer(nn.MaxPool2d, 3, stride=2, padding=1, return_indices=True),
        lambda: torch.randint(0, 3, (2, 2, 7, 6)).float(), note="of equal values the first, row by row, wins")
f.layer("max_pool2d_all_negative", Layer(nn.MaxPool2d, 3, stride=1, padding=1), lambda: -torch.rand(1, 2, 5, 4) - 1,
        note="padding counts as minus infinity")
for name, shape, args, kwargs in [
    ("plain", (2, 3, 7, 8), (2,), {}),
    ("kernel3_stride2_padded", (2, 3, 9, 8), (3,), dict(stride=2, padding=1)),
    ("pairs", (1, 3, 9, 8), ((3, 2),), dict(stride=(1, 2), padding=(1, 0))),
    ("overlap", (1, 3, 6, 7), (3,), dict(stride=1, padding=1)),
    ("dilation", (1, 3, 9, 8), (3,), dict(stride=2, padding=1, dilation=2)),
    ("dilation_pair", (1, 3, 9, 10), ((2, 3),), dict(stride=1, dilation=(3, 2))),
    ("ceil", (2, 3, 7, 8), (3,), dict(stride=2, ceil_mode=True)),
    ("ceil_padded", (1, 3, 7, 6), (3,), dict(stride=2, padding=1, ceil_mode=True)),
    ("ceil_no_window_past_the_end", (1, 2, 5, 5), (2,), dict(stride=4, padding=1, ceil_mode=True)),
    ("ceil_dilated", (1, 2, 9, 10), (2,), dict(stride=3, padding=1, dilation=2, ceil_mode=True)),
    ("indices", (2, 3, 7, 8), (2,), dict(return_indices=True)),
    ("indices_padded_ceil", (1, 3, 8, 7), (3,), dict(stride=2, padding=1, return_indices=True, ceil_mode=True)),
    ("wide", (1, 19, 5, 6), (3,), dict(stride=2, padding=1)),
    ("stride_over_kernel", (1, 2, 8, 9), (2,), dict(stride=3)),
]:
    pool(f"max_pool2d_{name}", nn.MaxPool2d, shape, *args, **kwargs)
f.layer("max_pool2d_unbatched", Layer(nn.MaxPool2d, 2), lambda: torch.randn(3, 5, 6), unbatched=True)
for name, shape, args, kwargs in [
    ("plain", (2, 3, 9), (2,), {}),
    ("padded_stride2", (2, 3, 10), (3,), dict(stride=2, padding=1)),
    ("dilated_ceil", (1, 3, 12), (3,), dict(stride=2, padding=1, dilation=2, ceil_mode=True)),
    ("indices", (2, 3, 11), (3,), dict(stride=2, return_indices=True)),
]:
    pool(f"max_pool1d_{name}", nn.MaxPool1d, shape, *args, **kwargs)
for name, shape, args, kwargs in [
    ("plain", (2, 3, 7, 8), (2,), {}),
    ("padded", (2, 3, 7, 8), (3,), dict(stride=2, padding=1)),
    ("exclude_pad", (2, 3, 7, 8), (3,), dict(stride=2, padding=1, count_include_pad=False)),
    ("ceil", (1, 3, 8, 7), (3,), dict(stride=2, ceil_mode=True)),
    ("ceil_padded", (1, 3, 8, 6), (3,), dict(stride=2, padding=1, ceil_mode=True)),
    ("ceil_exclude_pad", (1, 3, 8, 6), (3,), dict(stride=2, padding=1, ceil_mode=True, count_include_pad=False)),
    ("divisor", (1, 3, 7, 6), (2,), dict(stride=2, divisor_override=3)),
    ("divisor_padded_ceil", (1, 3, 8, 7), (3,), dict(stride=2, padding=1, ceil_mode=True, divisor_override=5)),
    ("pairs", (1, 3, 9, 8), ((3, 4),), dict(stride=(1, 3), padding=(1, 2))),
    ("overlap_wide", (1, 19, 5, 4), (3,), dict(stride=1, padding=1, count_include_pad=False)),
]:
    pool(f"avg_pool2d_{name}", nn.AvgPool2d, shape, *args, **kwargs)
f.layer("avg_pool2d_unbatched", Layer(nn.AvgPool2d, 2), lambda: torch.randn(3, 5, 6), unbatched=True)
for name, shape, args, kwargs in [
    ("plain", (2, 3, 9), (2,), {}),
    ("padded", (2, 3, 10), (3,), dict(stride=2, padding=1)),
    ("ceil_exclude_pad", (1, 3, 10), (3,), dict(stride=2, padding=1, ceil_mode=True, count_include_pad=False)),
    ("ceil", (1, 3, 10), (3,), dict(stride=2, padding=1, ceil_mode=True)),
]:
    pool(f"avg_pool1d_{name}", nn.AvgPool1d, shape, *args, **kwargs)
for name, shape, size in [("global", (2, 5, 7, 6), 1), ("divisible", (2, 3, 8, 6), (4, 3)), ("odd", (1, 3, 7, 9), (3, 5)),
                          ("up", (1, 3, 4, 5), (7, 6)), ("keep_height", (1, 3, 5, 8), (None, 3)), ("square", (1, 3, 10, 7), 4),
                          ("classic_7x7", (1, 3, 9, 11), (7, 7))]:
    pool(f"adaptive_avg_pool2d_{name}", nn.AdaptiveAvgPool2d, shape, size)
    pool(f"adaptive_max_pool2d_{name}", nn.AdaptiveMaxPool2d, shape, size, return_indices=name in ("odd", "up"))
f.layer("adaptive_avg_pool2d_unbatched", Layer(nn.AdaptiveAvgPool2d, 2), lambda: torch.randn(3, 5, 6), unbatched=True)
for name, shape, args, kwargs in [
    ("p2", (2, 3, 7, 8), (2, 2), {}),
    ("p2_stride1", (1, 3, 6, 7), (2.0, 3), dict(stride=1)),
    ("p2_ceil", (1, 3, 8, 7), (2, 3), dict(stride=2, ceil_mode=True)),
    ("p2_pair", (1, 3, 8, 7), (2, (3, 2)), dict(stride=(2, 1))),
    ("p1", (1, 3, 7, 6), (1, 2), {}),
]:
    pool(f"lp_pool2d_{name}", nn.LPPool2d, shape, *args, **kwargs)
positive = "inputs are positive: PyTorch's power of a negative number is NaN"
pool("lp_pool2d_p3", nn.LPPool2d, (1, 3, 7, 6), 3, 2, positive=True, note=positive)
pool("lp_pool2d_p1_5", nn.LPPool2d, (1, 3, 7, 6), 1.5, 3, stride=2, positive=True, note=positive)
pool("lp_pool2d_p4_ceil", nn.LPPool2d, (1, 2, 7, 6), 4, 2, stride=2, ceil_mode=True)


def unpool(name, shape, *args, output_size=None, **kwargs):
    """The input of MaxUnpool2d is what MaxPool2d of the same arguments gives."""
    seed(name)
    values, indices = F.max_pool2d(torch.randn(shape), *args, return_indices=True, **kwargs)
    f.layer(f"max_unpool2d_{name}", Layer(nn.MaxUnpool2d, *args, **kwargs), values, inputs={"indices": indices},
            call=dict(output_size=output_size) if output_size else None)


unpool("plain", (2, 3, 6, 8), 2)
unpool("odd", (1, 3, 7, 9), 2, output_size=[7, 9])
unpool("pairs", (1, 3, 6, 9), (2, 3))
unpool("padded", (1, 3, 8, 6), 2, stride=2, padding=1, output_size=[8, 6])
unpool("stride_over_kernel", (1, 2, 8, 8), 2, stride=3)

f.save()
