"""What PyTorch prints: tensors (the value and str() of it) and modules."""

from collections import OrderedDict

import torch
from torch import nn
from torchvision import models, ops
from torchvision.models.convnext import LayerNorm2d

import reference_models as ref
from fixture import Family, seed

f = Family("printing")
inf, nan = float("inf"), float("nan")


def tensor(name, value, note="", parameter=False, requires_grad=False):
    """`parameter` prints as nn.Parameter does; `requires_grad` as a tensor that collects a gradient."""
    value = torch.nn.Parameter(value) if parameter else value.requires_grad_(requires_grad) if requires_grad else value
    f.add(name, "Parameter" if parameter else "tensor", {}, {"value": value}, note, text=str(value),
          requires_grad=value.requires_grad)


def draw(name, *shape, scale=1.0):
    seed(f"printing/{name}")
    return torch.randn(shape) * scale


T = torch.tensor
tensor("course_pooled", T([[[[6.0, 8.0], [14.0, 16.0]]]]))
tensor("course_4x4", torch.arange(1.0, 17.0).reshape(1, 1, 4, 4))
seed("course_conv")
course = nn.Conv2d(1, 32, 3, stride=1, padding=1)
tensor("course_weight", course.weight.detach().clone(), parameter=True, note="Conv2d(1, 32, 3).weight")
tensor("course_bias", course.bias.detach().clone(), parameter=True)
tensor("parameter_small", T([[0.5, -1.25]]), parameter=True)
tensor("parameter_whole", torch.ones(4), parameter=True)
tensor("parameter_f64", torch.ones(2, 2, dtype=torch.float64) / 3, parameter=True)
tensor("parameter_summarised", draw("ps", 64, 20), parameter=True)
tensor("parameter_empty", torch.zeros(0, 3), parameter=True)
tensor("requires_grad", T([1.5, 2.5]), requires_grad=True)
tensor("requires_grad_wraps", draw("rg", 3, 9), requires_grad=True)

tensor("scalar_f32", T(3.14159274))
tensor("scalar_whole", T(3.0))
tensor("scalar_small", T(1.2345e-6))
tensor("scalar_large", T(1.2345e9))
tensor("scalar_negative", T(-0.5))
tensor("scalar_i64", T(7))
tensor("scalar_bool", T(True))
tensor("scalar_f64", T(2.5, dtype=torch.float64))
tensor("scalar_nan", T(nan))
tensor("scalar_inf", T(-inf))
tensor("scalar_requires_grad", T(1.5), requires_grad=True)
tensor("one_element", T([1.0]))

tensor("whole_floats", T([1.0, 2.0, 3.0]))
tensor("whole_floats_wide", T([1.0, 20.0, 300.0]))
tensor("whole_floats_negative", T([-1.0, 2.0, -30.0]))
tensor("whole_floats_large", T([1.0, 123456.0, 99999999.0]))
tensor("whole_floats_too_large", T([1.0, 1e8, 2e9]), note="scientific: above 1e8")
tensor("negative_zero", T([-0.0, 0.0, 1.0]))
tensor("fractions", T([0.1, 0.25, -0.333333]))
tensor("mixed_magnitudes", T([0.001, 1.0, 999.0]))
tensor("ratio_1000", T([1.0, 1000.5]))
tensor("ratio_above_1000", T([0.5, 500.5]), note="scientific: the largest is more than 1000 times the smallest")
tensor("small_1e_4", T([0.0001, 0.0002]))
tensor("small_below_1e_4", T([0.00009, 0.0002]), note="scientific: below 1e-4")
tensor("tiny", T([1e-10, 2.5e-10]))
tensor("large", T([123456.78, 234567.89]))
tensor("large_above_1e8", T([1.5e8, 2.5e8]))
tensor("extremes", T([1e-30, 1e30]))
tensor("exponent_3_digits", T([1e-200, 1e200], dtype=torch.float64))
tensor("zeros_and_fraction", T([0.0, 0.0, 0.5]))
tensor("all_zero", torch.zeros(2, 3))
tensor("rounds_up", T([0.99999, 9.99996]))
tensor("rounding_half", T([0.00005, 0.12345, 2.00015]))
tensor("randn", draw("randn", 3, 4))
tensor("randn_scaled", draw("randn_scaled", 3, 4, scale=100.0))
tensor("randn_small", draw("randn_small", 2, 3, scale=1e-3))

tensor("inf_nan", T([1.0, inf, nan, -inf]))
tensor("inf_nan_fractions", T([0.5, inf, nan]))
tensor("only_nan", T([nan, nan]))
tensor("only_inf", T([inf, -inf]))
tensor("nan_and_tiny", T([nan, 1e-7]))

tensor("ints", T([1, 2, 3]))
tensor("ints_negative", T([-1, 20, -300]))
tensor("ints_2d", torch.arange(12).reshape(3, 4))
tensor("ints_huge", T([9223372036854775807, -9223372036854775808]))
tensor("int32", T([1, -2], dtype=torch.int32))
tensor("int16", T([1, -2], dtype=torch.int16))
tensor("int8", T([1, -128], dtype=torch.int8))
tensor("uint8", T([0, 255, 7], dtype=torch.uint8))
tensor("bools", T([True, False]))
tensor("bools_2d", T([[True, True], [False, True]]))
tensor("f64", T([1.0, 2.5], dtype=torch.float64))
tensor("f64_thirds", torch.arange(5, dtype=torch.float64) / 3)
tensor("f16", T([1.5, -2.25], dtype=torch.float16))
tensor("f16_whole", T([1.0, 2048.0], dtype=torch.float16))
tensor("bf16", T([1.5, 0.1], dtype=torch.bfloat16))

tensor("empty", torch.zeros(0))
tensor("empty_2d", torch.zeros(0, 3))
tensor("empty_middle", torch.zeros(2, 0, 4))
tensor("empty_i64", torch.zeros(0, dtype=torch.int64))
tensor("empty_i64_2d", torch.zeros(0, 2, dtype=torch.int64))
tensor("empty_f64", torch.zeros(0, dtype=torch.float64))
tensor("empty_bool", torch.zeros(0, dtype=torch.bool))

tensor("wraps_ints", torch.arange(40))
tensor("wraps_floats", torch.arange(30) / 7)
tensor("wraps_rows", draw("wraps_rows", 2, 12))
tensor("three_dimensions", draw("three", 2, 2, 3))
tensor("four_dimensions", draw("four", 2, 1, 2, 3))
tensor("five_dimensions", torch.arange(16.0).reshape(2, 1, 2, 2, 2))
tensor("column", torch.arange(4.0).reshape(4, 1))
tensor("row", torch.arange(4.0).reshape(1, 4))
tensor("exactly_1000", torch.arange(1000), note="1000 elements are not yet summarised")
tensor("summarised_1001", torch.arange(1001))
tensor("summarised_floats", torch.arange(2000) / 16)
tensor("summarised_2d", torch.arange(40.0 * 30).reshape(40, 30))
tensor("summarised_few_rows", draw("few_rows", 2, 600))
tensor("summarised_six_rows", draw("six_rows", 6, 170), note="six rows and fewer are shown whole")
tensor("summarised_seven_columns", draw("seven_columns", 150, 7))
tensor("summarised_4d", draw("s4", 8, 3, 7, 7))
tensor("summarised_feature_map", draw("fm", 1, 2, 28, 28))
tensor("summarised_bool", (torch.arange(1200) % 3 == 0).reshape(40, 30))
tensor("summarised_i32", torch.arange(1100, dtype=torch.int32))
tensor("summarised_f64", torch.arange(1100, dtype=torch.float64) / 3)
hidden = torch.zeros(2000)
hidden[1000] = 1e9
tensor("summarised_hides_large", hidden, note="only what is shown decides on the format")
hidden = torch.ones(2000)
hidden[1000] = 0.5
tensor("summarised_hides_fraction", hidden)
tensor("summarised_nan", torch.full((1001,), nan))


def module(name, made, note=""):
    f.add(name, "module", {}, {}, note, text=str(made))


module("sequential_empty", nn.Sequential())
module("sequential", nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6272, 10)))
module("sequential_named", nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 8, 3), act=nn.ReLU(inplace=True))))
module("sequential_nested", nn.Sequential(nn.Sequential(nn.Linear(4, 3, bias=False), nn.Sequential(nn.Tanh())), nn.Identity()))
module("module_list", nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)]),
       note="equal neighbours of a ModuleList are counted")


class LeNet(nn.Module):
    """The lenet of the registry, written as a class of its own."""

    def __init__(self):
        super().__init__()
        for name, child in ref.lenet().named_children():
            setattr(self, name, child)


module("lenet_class", LeNet())
module("lenet_sequential", ref.lenet())
module("resnet18_cifar", ref.resnet18_cifar())
for name in ("resnet18", "resnet50", "vgg11", "vgg11_bn", "vgg16_bn", "mobilenet_v2"):
    module(f"model_{name}", getattr(models, name)(weights=None))

LAYERS = [
    nn.Conv2d(1, 32, 3), nn.Conv2d(1, 32, 3, stride=1, padding=1), nn.Conv2d(3, 6, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
    nn.Conv2d(4, 8, 3, groups=2, bias=False), nn.Conv2d(4, 8, 3, padding="same"), nn.Conv2d(4, 8, 3, padding="valid"),
    nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"), nn.Conv1d(3, 4, 5, padding=2), nn.Conv1d(4, 4, 3, groups=4, stride=2),
    nn.ConvTranspose2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2, bias=False),
    nn.Linear(7, 5), nn.Linear(7, 5, bias=False), nn.Flatten(), nn.Flatten(0, 2), nn.Identity(),
    nn.MaxPool1d(2), nn.MaxPool2d(2, 2), nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0), dilation=2, ceil_mode=True),
    nn.AvgPool1d(3, 2), nn.AvgPool2d(2), nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
    nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((7, None)), nn.AdaptiveMaxPool2d((2, 3)), nn.LPPool2d(2, 3, stride=2),
    nn.MaxUnpool2d(2), nn.MaxUnpool2d(3, stride=2, padding=1),
    nn.BatchNorm1d(5), nn.BatchNorm2d(5), nn.BatchNorm2d(5, eps=1e-3, momentum=None, affine=False, track_running_stats=False),
    nn.GroupNorm(2, 6), nn.LayerNorm(7), nn.LayerNorm([3, 4, 5], eps=1e-6, elementwise_affine=False), LayerNorm2d(6, eps=1e-6),
    nn.InstanceNorm2d(3), nn.InstanceNorm2d(3, affine=True, track_running_stats=True), nn.LocalResponseNorm(5), nn.LocalResponseNorm(3, alpha=0.5, k=2.0),
    nn.Dropout(), nn.Dropout(0.25, inplace=True), nn.Dropout2d(0.1), ops.DropBlock2d(0.1, 7), ops.StochasticDepth(0.2, "row"),
    nn.Upsample(scale_factor=2), nn.Upsample(size=(4, 5), mode="bilinear", align_corners=True), nn.Upsample(scale_factor=(2.0, 3.0), mode="bicubic"),
    nn.PixelShuffle(2), nn.PixelUnshuffle(3), nn.ChannelShuffle(2), nn.ZeroPad2d(2), nn.ConstantPad2d((1, 2, 0, 3), 1.5), nn.ReflectionPad2d(1),
    nn.ReplicationPad2d((1, 0, 1, 0)), nn.CircularPad2d(1), ops.SqueezeExcitation(8, 2), ops.Conv2dNormActivation(3, 5),
    nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.LeakyReLU(), nn.LeakyReLU(0.2, inplace=True), nn.PReLU(), nn.PReLU(5), nn.ELU(), nn.ELU(0.7),
    nn.SELU(), nn.CELU(), nn.CELU(1.6), nn.GELU(), nn.GELU(approximate="tanh"), nn.SiLU(), nn.SiLU(inplace=True), nn.Mish(), nn.Hardswish(),
    nn.Hardsigmoid(), nn.Hardtanh(), nn.Hardtanh(-0.5, 2.0), nn.Softplus(), nn.Softplus(2.0, 5.0), nn.Softsign(), nn.Sigmoid(), nn.Tanh(),
    nn.LogSigmoid(), nn.Softmax(dim=1), nn.LogSoftmax(dim=-1),
    nn.CrossEntropyLoss(), nn.NLLLoss(), nn.BCELoss(), nn.BCEWithLogitsLoss(), nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss(), nn.KLDivLoss(),
]
for position, made in enumerate(LAYERS):
    module(f"layer_{position:03}_{made._get_name()}", made)

f.save(may_be_infinite=True)
