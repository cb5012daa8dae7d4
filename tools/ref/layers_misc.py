"""Linear, Flatten, dropout in its deterministic modes, rearrangements, padding, torchvision's blocks."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torchvision import ops

from fixture import Family, Layer, arguments, to_json

f = Family("layers_misc")
randn = torch.randn


def layer(name, cls, shape, *args, mode="train", note="", **kwargs):
    f.layer(name, Layer(cls, *args, **kwargs), lambda: randn(shape), mode=mode, note=note)


layer("linear", nn.Linear, (4, 7), 7, 5)
layer("linear_no_bias", nn.Linear, (3, 7), 7, 5, bias=False)
layer("linear_wide", nn.Linear, (3, 33), 33, 19)
layer("linear_one_output", nn.Linear, (5, 9), 9, 1)
layer("linear_one_row", nn.Linear, (1, 20), 20, 10)
layer("linear_1d", nn.Linear, (7,), 7, 5, note="a vector in, a vector out")
layer("linear_4d", nn.Linear, (2, 3, 2, 7), 7, 5, note="over the last dimension")

layer("flatten", nn.Flatten, (2, 3, 4, 5))
layer("flatten_2_3", nn.Flatten, (2, 3, 4, 5), 2, 3)
layer("flatten_0", nn.Flatten, (2, 3, 4), 0)
layer("flatten_negative", nn.Flatten, (2, 3, 4, 5), -3, -2)
layer("identity", nn.Identity, (2, 3, 4))

for cls, key in [(nn.Dropout, "dropout"), (nn.Dropout2d, "dropout2d")]:
    layer(f"{key}_eval", cls, (2, 3, 4, 5), 0.4, mode="eval")
    layer(f"{key}_zero", cls, (2, 3, 4, 5), 0.0, note="p = 0 in training keeps everything")
    layer(f"{key}_one", cls, (2, 3, 4, 5), 1.0, note="p = 1 in training drops everything")
layer("drop_block2d_eval", ops.DropBlock2d, (2, 3, 6, 7), 0.3, 3, mode="eval")
layer("drop_block2d_zero", ops.DropBlock2d, (2, 3, 6, 7), 0.0, 3, note="p = 0 in training keeps everything")
for kind in ("row", "batch"):
    layer(f"stochastic_depth_{kind}_eval", ops.StochasticDepth, (3, 2, 4, 5), 0.3, kind, mode="eval")
    layer(f"stochastic_depth_{kind}_zero", ops.StochasticDepth, (3, 2, 4, 5), 0.0, kind, note="p = 0 in training keeps everything")
    layer(f"stochastic_depth_{kind}_one", ops.StochasticDepth, (3, 2, 4, 5), 1.0, kind, note="p = 1 in training drops everything")

layer("pixel_shuffle_2", nn.PixelShuffle, (2, 8, 3, 4), 2)
layer("pixel_shuffle_3", nn.PixelShuffle, (1, 18, 2, 3), 3)
layer("pixel_unshuffle_2", nn.PixelUnshuffle, (2, 2, 6, 8), 2)
layer("pixel_unshuffle_3", nn.PixelUnshuffle, (1, 2, 6, 9), 3)
layer("channel_shuffle_2", nn.ChannelShuffle, (2, 6, 3, 4), 2)
layer("channel_shuffle_3", nn.ChannelShuffle, (1, 12, 2, 3), 3)

SIDES = "the order of the numbers is left, right, top, bottom"
for name, cls, shape, args in [
    ("zero_pad2d", nn.ZeroPad2d, (2, 3, 4, 5), (2,)),
    ("zero_pad2d_sides", nn.ZeroPad2d, (1, 3, 4, 5), ((1, 0, 2, 3),)),
    ("zero_pad2d_negative", nn.ZeroPad2d, (1, 3, 5, 6), ((-1, 2, 1, -2),)),
    ("constant_pad2d", nn.ConstantPad2d, (1, 3, 4, 5), ((1, 2, 0, 3), 1.5)),
    ("constant_pad2d_negative", nn.ConstantPad2d, (2, 3, 5, 6), ((-1, -2, -1, 0), 0.5)),
    ("constant_pad2d_mixed", nn.ConstantPad2d, (1, 3, 5, 6), ((-2, 3, 1, -1), -0.75)),
    ("reflection_pad2d", nn.ReflectionPad2d, (1, 3, 4, 5), (2,)),
    ("reflection_pad2d_sides", nn.ReflectionPad2d, (1, 3, 4, 5), ((4, 1, 0, 3),)),
    ("replication_pad2d", nn.ReplicationPad2d, (1, 3, 4, 5), (2,)),
    ("replication_pad2d_sides", nn.ReplicationPad2d, (1, 3, 4, 5), ((6, 1, 0, 5),)),
    ("circular_pad2d", nn.CircularPad2d, (1, 3, 4, 5), (2,)),
    ("circular_pad2d_sides", nn.CircularPad2d, (1, 3, 4, 5), ((5, 1, 0, 4),)),
    ("constant_pad1d", nn.ConstantPad1d, (2, 3, 5), ((2, -1), 0.5)),
    ("reflection_pad1d", nn.ReflectionPad1d, (2, 3, 5), ((4, 1),)),
    ("replication_pad1d", nn.ReplicationPad1d, (2, 3, 5), ((1, 3),)),
    ("circular_pad1d", nn.CircularPad1d, (2, 3, 5), ((3, 2),)),
]:
    layer(name, cls, shape, *args, note=SIDES)


class Pad(nn.Module):
    """F.pad as a module."""

    def __init__(self, **kwargs):
        super().__init__()
        self.kwargs = kwargs

    def forward(self, x):
        return F.pad(x, **self.kwargs)


for name, shape, kwargs in [
    ("constant", (1, 2, 3, 4), dict(pad=(1, 2, 3, 0))),
    ("value", (1, 2, 3, 4), dict(pad=(1, 0, 0, 2), value=-2.5)),
    ("channels", (1, 2, 3, 4), dict(pad=(0, 0, 0, 0, 1, 2))),
    ("every_dimension", (2, 2, 3, 4), dict(pad=(1, -1, 0, 2, -1, 1, 1, 0), value=0.25)),
    ("last_dimension", (2, 3, 4, 5), dict(pad=(-2, 3))),
    ("reflect", (1, 2, 4, 5), dict(pad=(3, 2, 1, 3), mode="reflect")),
    ("replicate", (1, 2, 4, 5), dict(pad=(3, 2, 1, 6), mode="replicate")),
    ("circular", (1, 2, 4, 5), dict(pad=(3, 2, 1, 4), mode="circular")),
]:
    module = Layer(Pad, **kwargs)
    module.args = to_json(arguments(F.pad, None, **kwargs))
    f.layer(f"pad_{name}", module.renamed("pad"), lambda: randn(shape),
            note="pairs of (before, after), the last dimension first; a negative number crops")

layer("squeeze_excitation", ops.SqueezeExcitation, (2, 8, 3, 5), 8, 3)
layer("squeeze_excitation_hard", ops.SqueezeExcitation, (2, 6, 4, 3), 6, 2, scale_activation=nn.Hardsigmoid)
layer("squeeze_excitation_silu", ops.SqueezeExcitation, (1, 9, 3, 4), 9, 4, activation=partial(nn.SiLU, inplace=True))

for mode in ("train", "eval"):
    layer(f"conv_norm_activation_{mode}", ops.Conv2dNormActivation, (2, 3, 6, 5), 3, 5, mode=mode)
    layer(f"conv_norm_activation_stride2_relu6_{mode}", ops.Conv2dNormActivation, (2, 3, 7, 8), 3, 6, 3, stride=2,
          activation_layer=nn.ReLU6, mode=mode)
layer("conv_norm_activation_depthwise", ops.Conv2dNormActivation, (2, 6, 5, 7), 6, 6, 5, groups=6, activation_layer=nn.SiLU)
layer("conv_norm_activation_1x1_linear", ops.Conv2dNormActivation, (2, 6, 4, 5), 6, 4, 1, activation_layer=None)
layer("conv_norm_activation_no_norm", ops.Conv2dNormActivation, (2, 4, 4, 5), 4, 6, norm_layer=None, inplace=False,
      activation_layer=nn.Hardswish, note="without a norm the convolution has a bias")
layer("conv_norm_activation_dilated_bias", ops.Conv2dNormActivation, (2, 4, 7, 6), 4, 5, 3, dilation=2, bias=True, mode="eval",
      note="evaluation: in training the gradient of a bias before batch norm is nothing but rounding")


class Block(nn.Sequential):
    """A chain of layers, printed as PyTorch prints nn.Sequential."""

    def _get_name(self):
        return "Sequential"


for mode in ("train", "eval"):
    chain = lambda: Block(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
                          nn.Flatten(), nn.Linear(4 * 3 * 2, 3))
    sequential = Layer(nn.Sequential)
    sequential.make, sequential.args = chain, {}
    f.layer(f"sequential_{mode}", sequential, lambda: randn(3, 2, 7, 5), mode=mode,
            note="the printed form says which layers; parameters are named by position")

f.save()
