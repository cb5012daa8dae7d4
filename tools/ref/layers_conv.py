"""Conv1d, Conv2d, ConvTranspose2d."""

import torch
import torch.nn.functional as F
from torch import nn

from fixture import Family, Layer

f = Family("layers_conv")


class PaddedConv2d(nn.Conv2d):
    """Convolution after F.pad by four sides; a negative side crops."""

    def __init__(self, *args, sides=(0, 0, 0, 0), **kwargs):
        super().__init__(*args, **kwargs)
        self.sides = sides

    def forward(self, x):
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return F.conv2d(F.pad(x, self.sides, mode=mode), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class PaddedConv1d(nn.Conv1d):
    """Convolution after F.pad by two sides."""

    def __init__(self, *args, sides=(0, 0), **kwargs):
        super().__init__(*args, **kwargs)
        self.sides = sides

    def forward(self, x):
        return F.conv1d(F.pad(x, self.sides), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def clean(layer, name, padding):
    layer.args = {k: v for k, v in layer.args.items() if k not in ("args", "kwargs", "sides")}
    return layer.renamed(name, padding=padding)


def sided(left, right, top, bottom, *args, **kwargs):
    """A Conv2d whose padding has four sides: said as an object, so that no order of sides needs to be remembered."""
    layer = Layer(PaddedConv2d, *args, sides=(left, right, top, bottom), **kwargs)
    layer.args = Layer(nn.Conv2d, *args, **kwargs).args
    return clean(layer, "Conv2d", dict(left=left, right=right, top=top, bottom=bottom))


def same_upper(size, kernel, stride, dilation):
    """ONNX's SAME_UPPER for one axis: ceil(size / stride) outputs, the odd element of padding at the end."""
    out = -(-size // stride)
    total = max((out - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def same_strided(height, width, *args, **kwargs):
    plain = Layer(nn.Conv2d, *args, **kwargs)
    conv = plain.make()
    top, bottom = same_upper(height, conv.kernel_size[0], conv.stride[0], conv.dilation[0])
    left, right = same_upper(width, conv.kernel_size[1], conv.stride[1], conv.dilation[1])
    layer = Layer(PaddedConv2d, *args, sides=(left, right, top, bottom), **kwargs)
    layer.args = plain.args
    return clean(layer, "Conv2d", "same")


def conv2d(name, shape, *args, note="", **kwargs):
    f.layer(f"conv2d_{name}", Layer(nn.Conv2d, *args, **kwargs), lambda: torch.randn(shape), note=note)


conv2d("course", (1, 1, 7, 6), 1, 4, 3, stride=1, padding=1)
conv2d("plain", (2, 3, 7, 9), 3, 5, 3)
conv2d("no_bias", (2, 3, 7, 9), 3, 5, 3, padding=1, bias=False)
conv2d("stride2_odd", (2, 3, 9, 7), 3, 5, 3, stride=2, padding=1)
conv2d("stride2_even", (1, 3, 8, 10), 3, 5, 3, stride=2, padding=1)
conv2d("stride3_leftover", (1, 2, 11, 13), 2, 3, 3, stride=3, note="the last rows and columns are seen by no window")
conv2d("stride_over_kernel", (1, 2, 9, 8), 2, 3, 2, stride=3)
conv2d("pairs", (2, 3, 9, 8), 3, 4, (3, 5), stride=(2, 1), padding=(0, 2), dilation=(1, 2))
conv2d("kernel_1x1", (2, 17, 3, 5), 17, 33, 1)
conv2d("kernel_1x1_stride2", (2, 5, 5, 7), 5, 9, 1, stride=2)
conv2d("kernel_1x1_padded", (1, 5, 4, 3), 5, 6, 1, padding=1)
conv2d("kernel_1x7", (1, 4, 5, 9), 4, 5, (1, 7), padding=(0, 3))
conv2d("kernel_7x1", (1, 4, 9, 5), 4, 5, (7, 1), padding=(3, 0))
conv2d("kernel_2x2", (2, 3, 5, 6), 3, 4, 2)
conv2d("kernel_4x4_stride4", (1, 3, 9, 8), 3, 4, 4, stride=4)
conv2d("kernel_5x5", (1, 3, 8, 7), 3, 4, 5, padding=2)
conv2d("stem_7x7_stride2", (1, 3, 13, 15), 3, 6, 7, stride=2, padding=3, bias=False)
conv2d("kernel_is_image", (2, 3, 4, 5), 3, 6, (4, 5))
conv2d("padding_over_image", (1, 2, 2, 3), 2, 3, 3, padding=3, note="windows that see only padding")
conv2d("one_pixel", (3, 4, 1, 1), 4, 5, 3, padding=1)
conv2d("dilation2", (1, 3, 9, 8), 3, 4, 3, padding=2, dilation=2)
conv2d("dilation3_stride2", (1, 3, 11, 12), 3, 4, 3, stride=2, padding=3, dilation=3)
conv2d("groups2", (2, 6, 5, 7), 6, 4, 3, padding=1, groups=2)
conv2d("groups3_stride2", (1, 9, 7, 6), 9, 6, 3, stride=2, padding=1, groups=3, bias=False)
conv2d("groups2_kernel_1x1", (2, 6, 4, 3), 6, 8, 1, groups=2)
conv2d("depthwise", (2, 19, 5, 6), 19, 19, 3, padding=1, groups=19, bias=False)
conv2d("depthwise_stride2", (1, 19, 7, 8), 19, 19, 3, stride=2, padding=1, groups=19)
conv2d("depthwise_5x5", (1, 7, 6, 9), 7, 7, 5, padding=2, groups=7)
conv2d("depthwise_dilated", (1, 5, 9, 9), 5, 5, 3, padding=2, dilation=2, groups=5)
conv2d("depthwise_multiplier2", (1, 5, 6, 5), 5, 10, 3, padding=1, groups=5)
conv2d("wide_tail", (1, 17, 5, 6), 17, 19, 3, padding=1, note="channel counts that are no multiple of a vector")
conv2d("winograd_shape", (1, 16, 13, 11), 16, 16, 3, padding=1, bias=False)
conv2d("valid", (1, 3, 6, 7), 3, 4, 3, padding="valid")
conv2d("same", (1, 3, 6, 7), 3, 4, 3, padding="same")
conv2d("same_even_kernel", (1, 3, 6, 7), 3, 4, (2, 4), padding="same", note="the odd element of padding is at the end")
conv2d("same_dilated", (1, 3, 8, 9), 3, 4, (3, 2), padding="same", dilation=(2, 3))
conv2d("same_reflect", (1, 3, 6, 7), 3, 4, (4, 3), padding="same", padding_mode="reflect")
for mode in ("reflect", "replicate", "circular"):
    conv2d(mode, (2, 3, 5, 6), 3, 4, 3, padding=1, padding_mode=mode)
    conv2d(f"{mode}_wide", (1, 2, 6, 7), 2, 3, (5, 4), stride=(2, 1), padding=(2, 3), padding_mode=mode)
    conv2d(f"{mode}_groups_dilated", (1, 4, 7, 8), 4, 4, 3, padding=2, dilation=2, groups=2, padding_mode=mode)
x = torch.randn
f.layer("conv2d_unbatched", Layer(nn.Conv2d, 3, 4, 3, padding=1), lambda: x(3, 5, 6), unbatched=True)
for name, sides, args, kwargs in [
    ("bottom_right", (0, 1, 0, 1), (3, 4, 3), dict(stride=2)),
    ("all_differ", (1, 2, 0, 3), (3, 4, 3), {}),
    ("groups_dilated", (2, 0, 1, 3), (4, 6, 3), dict(groups=2, dilation=(1, 2))),
    ("crop", (-1, -1, -1, -1), (3, 4, 3), {}),
    ("crop_and_pad", (-2, 1, 2, -1), (3, 4, 3), dict(stride=(1, 2))),
    ("reflect", (1, 2, 2, 0), (3, 4, 3), dict(padding_mode="reflect")),
    ("replicate", (0, 3, 1, 2), (3, 4, 3), dict(padding_mode="replicate")),
    ("circular", (2, 1, 0, 2), (3, 4, 3), dict(padding_mode="circular")),
]:
    f.layer(f"conv2d_sides_{name}", sided(*sides, *args, **kwargs), lambda: x(1, args[0], 7, 8),
            note="F.pad(x, [left, right, top, bottom]), then a convolution without padding; a negative side crops")
for name, size, args, kwargs in [
    ("stride2", (7, 8), (3, 4, 3), dict(stride=2)),
    ("stride2_even_kernel", (7, 8), (3, 4, 4), dict(stride=2)),
    ("stride3", (8, 11), (3, 4, 3), dict(stride=3)),
    ("stride23_dilated", (9, 10), (2, 4, 3), dict(stride=(2, 3), dilation=(2, 1), groups=2)),
    ("stride_over_kernel", (7, 9), (3, 4, 1), dict(stride=2)),
]:
    f.layer(f"conv2d_same_{name}", same_strided(*size, *args, **kwargs), lambda: x(1, args[0], *size),
            note="ONNX's SAME_UPPER, which PyTorch refuses: made with F.pad")


def conv1d(name, shape, *args, note="", **kwargs):
    f.layer(f"conv1d_{name}", Layer(nn.Conv1d, *args, **kwargs), lambda: torch.randn(shape), note=note)


conv1d("plain", (2, 3, 11), 3, 5, 3)
conv1d("padded_stride2", (2, 3, 12), 3, 5, 5, stride=2, padding=2)
conv1d("dilated", (1, 3, 13), 3, 4, 3, padding=3, dilation=3)
conv1d("groups", (2, 6, 9), 6, 4, 3, padding=1, groups=2, bias=False)
conv1d("depthwise", (1, 7, 9), 7, 7, 5, padding=2, groups=7)
conv1d("kernel_1", (2, 5, 7), 5, 3, 1)
conv1d("wide_tail", (1, 17, 10), 17, 19, 3, padding=1)
conv1d("same_even_kernel", (1, 3, 10), 3, 4, 4, padding="same")
conv1d("valid", (1, 3, 10), 3, 4, 4, padding="valid")
for mode in ("reflect", "replicate", "circular"):
    conv1d(mode, (2, 3, 8), 3, 4, 5, padding=2, padding_mode=mode)
for name, sides in [("causal", (2, 0)), ("crop", (-1, 3))]:
    layer = Layer(PaddedConv1d, 3, 4, 3, sides=sides)
    layer.args = Layer(nn.Conv1d, 3, 4, 3).args
    f.layer(f"conv1d_sides_{name}", clean(layer, "Conv1d", dict(left=sides[0], right=sides[1])), lambda: x(2, 3, 9),
            note="F.pad(x, [left, right]), then a convolution without padding; a negative side crops")


def transpose(name, shape, *args, note="", call=None, **kwargs):
    f.layer(f"conv_transpose2d_{name}", Layer(nn.ConvTranspose2d, *args, **kwargs), lambda: torch.randn(shape),
            note=note, call=call)


transpose("plain", (2, 3, 4, 5), 3, 4, 3)
transpose("no_bias", (1, 3, 4, 5), 3, 4, 3, padding=1, bias=False)
transpose("stride2", (2, 3, 4, 5), 3, 4, 2, stride=2)
transpose("stride2_padded", (1, 3, 4, 5), 3, 4, 4, stride=2, padding=1)
transpose("output_padding", (1, 3, 4, 5), 3, 4, 3, stride=2, padding=1, output_padding=1)
transpose("output_padding_pair", (1, 3, 3, 4), 3, 4, (3, 5), stride=(2, 3), padding=(1, 2), output_padding=(0, 2))
transpose("stride_over_kernel", (1, 2, 3, 4), 2, 3, 2, stride=3, output_padding=1, note="some outputs are bias alone")
transpose("dilation", (1, 3, 4, 5), 3, 4, 3, dilation=2)
transpose("dilation_stride2", (1, 3, 4, 3), 3, 4, 3, stride=2, padding=2, output_padding=1, dilation=(2, 3))
transpose("groups", (2, 6, 3, 4), 6, 4, 3, stride=2, padding=1, groups=2)
transpose("groups_dilated", (1, 6, 4, 3), 6, 9, 3, padding=1, dilation=2, groups=3)
transpose("depthwise", (1, 5, 4, 3), 5, 5, 4, stride=2, padding=1, groups=5, bias=False)
transpose("kernel_1x1", (1, 5, 3, 4), 5, 7, 1)
transpose("wide_tail", (1, 17, 3, 4), 17, 19, 2, stride=2)
transpose("output_size", (1, 3, 4, 5), 3, 4, 3, stride=2, padding=1, call=dict(output_size=[8, 9]),
          note="forward is called with output_size")

f.save()
