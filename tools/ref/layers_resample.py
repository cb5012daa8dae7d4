"""Upsample and interpolate: every mode, to a size and by a factor, up and down."""

import torch
import torch.nn.functional as F
from torch import nn

from fixture import Family, Layer, arguments, to_json

f = Family("layers_resample")


class Interpolate(nn.Module):
    """F.interpolate as a module."""

    def __init__(self, **kwargs):
        super().__init__()
        self.kwargs = kwargs

    def forward(self, x):
        return F.interpolate(x, **self.kwargs)


def interpolate(name, shape, **kwargs):
    layer = Layer(Interpolate, **kwargs)
    layer.args = to_json(arguments(F.interpolate, None, **kwargs))
    f.layer(name, layer.renamed("interpolate"), lambda: torch.randn(shape))


SIZES = [
    ("size_up", (1, 2, 4, 5), dict(size=(7, 11))),
    ("size_down", (1, 2, 9, 8), dict(size=(4, 3))),
    ("size_mixed", (1, 2, 4, 9), dict(size=(7, 4))),
    ("size_same", (1, 2, 4, 5), dict(size=(4, 5))),
    ("size_from_one", (1, 2, 1, 1), dict(size=(3, 4))),
    ("size_to_one", (1, 2, 4, 5), dict(size=(1, 1))),
    ("scale_2", (2, 3, 3, 4), dict(scale_factor=2.0)),
    ("scale_half", (1, 2, 7, 8), dict(scale_factor=0.5)),
    ("scale_1_7", (1, 2, 4, 5), dict(scale_factor=1.7)),
    ("scale_0_6", (1, 2, 8, 9), dict(scale_factor=0.6)),
    ("scale_pair", (1, 2, 4, 7), dict(scale_factor=(2.5, 0.7))),
    ("scale_recomputed", (1, 2, 4, 5), dict(scale_factor=1.7, recompute_scale_factor=True)),
]
for name, shape, kwargs in SIZES:
    for mode in ("nearest", "nearest-exact"):
        interpolate(f"interpolate_{mode}_{name}", shape, mode=mode, **kwargs)
    for mode in ("bilinear", "bicubic"):
        for corners in (False, True):
            tag = "_align_corners" if corners else ""
            interpolate(f"interpolate_{mode}{tag}_{name}", shape, mode=mode, align_corners=corners, **kwargs)
            if name in ("size_up", "size_down", "size_mixed", "size_to_one", "scale_half", "scale_0_6"):
                interpolate(f"interpolate_{mode}{tag}_antialias_{name}", shape, mode=mode, align_corners=corners,
                            antialias=True, **kwargs)
for name, shape, kwargs in [
    ("nearest_2", (2, 3, 3, 4), dict(scale_factor=2)),
    ("nearest_pair", (1, 3, 3, 4), dict(scale_factor=(3, 2))),
    ("nearest_size", (1, 3, 4, 5), dict(size=(9, 7))),
    ("bilinear_2", (1, 3, 4, 5), dict(scale_factor=2, mode="bilinear")),
    ("bilinear_align_corners", (1, 3, 4, 5), dict(scale_factor=2, mode="bilinear", align_corners=True)),
    ("bilinear_size", (1, 3, 4, 5), dict(size=7, mode="bilinear")),
    ("bicubic_2", (1, 3, 4, 5), dict(scale_factor=2, mode="bicubic")),
    ("wide_nearest", (1, 19, 2, 3), dict(scale_factor=2)),
    ("wide_bilinear", (1, 19, 2, 3), dict(scale_factor=2, mode="bilinear")),
]:
    f.layer(f"upsample_{name}", Layer(nn.Upsample, **kwargs), lambda: torch.randn(shape))

f.save()
