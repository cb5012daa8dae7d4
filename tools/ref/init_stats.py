"""torch.nn.init: bounds and deviations worked out from the formula and confirmed on a large sample; exact tensors
where the initialiser is not random. And the bounds of the layers' default initialisation."""

import math

import torch
from torch import nn
from torch.nn import init
from torchvision import models

from fixture import Family, Layer, arguments, seed, to_json

f = Family("init_stats")
SHAPES = [(5, 7), (32, 1, 3, 3), (64, 32, 3, 3), (128, 3136), (10, 4, 5), (19, 3, 1, 1), (24, 2, 7, 5)]


def fans(shape):
    """(fan_in, fan_out) as torch counts them: the weight's dimensions 1 and 0, each times the size of the kernel."""
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def confirm(make, expected):
    """Draws until there are a million values, and compares range, mean and deviation."""
    seed("init_stats")
    sample = torch.cat([make().flatten().double() for _ in range(max(1, 1_000_000 // make().numel()))])
    error = 5 * expected["std"] / math.sqrt(sample.numel())
    assert abs(sample.mean() - expected["mean"]) <= error, (sample.mean(), expected)
    assert abs(sample.std() / expected["std"] - 1) < 5e-3, (sample.std(), expected)
    if "low" in expected:
        assert sample.min() >= expected["low"] - 1e-6 and sample.max() <= expected["high"] + 1e-6, expected
        if expected["distribution"] == "uniform":
            width = expected["high"] - expected["low"]
            assert sample.max() - sample.min() > 0.999 * width, expected


def uniform(low, high):
    return dict(distribution="uniform", low=low, high=high, mean=(low + high) / 2, std=(high - low) / math.sqrt(12))


def normal(mean, std):
    return dict(distribution="normal", mean=mean, std=std)


def truncated(mean, std, a, b):
    """A normal distribution cut to [a, b]: its own mean and deviation follow from the density at the two ends."""
    low, high = (a - mean) / std, (b - mean) / std
    density = lambda v: math.exp(-v * v / 2) / math.sqrt(2 * math.pi)
    below = lambda v: (1 + math.erf(v / math.sqrt(2))) / 2
    mass = below(high) - below(low)
    shift = (density(low) - density(high)) / mass
    variance = 1 + (low * density(low) - high * density(high)) / mass - shift * shift
    return dict(distribution="truncated_normal", low=a, high=b, mean=mean + std * shift, std=std * math.sqrt(variance))


def random(name, function, shape, expected, **kwargs):
    args = {k: v for k, v in arguments(function, None, **kwargs).items() if k not in ("tensor", "generator")}
    confirm(lambda: function(torch.empty(shape), **kwargs), expected)
    f.add(name, function.__name__, args, {}, shape=list(shape), expected=expected)


def exact(name, function, shape, **kwargs):
    args = {k: v for k, v in arguments(function, None, **kwargs).items() if k not in ("tensor", "generator")}
    f.add(name, function.__name__, args, {"value": function(torch.full(shape, 7.0), **kwargs)}, shape=list(shape))


def tag(shape):
    return "x".join(map(str, shape))


random("uniform", init.uniform_, (7, 9), uniform(0.0, 1.0))
random("uniform_range", init.uniform_, (7, 9), uniform(-0.3, 0.8), a=-0.3, b=0.8)
random("normal", init.normal_, (7, 9), normal(0.0, 1.0))
random("normal_moved", init.normal_, (7, 9), normal(0.5, 0.02), mean=0.5, std=0.02)
random("trunc_normal", init.trunc_normal_, (7, 9), truncated(0.0, 1.0, -2.0, 2.0))
random("trunc_normal_narrow", init.trunc_normal_, (7, 9), truncated(0.0, 0.02, -2.0, 2.0), std=0.02)
random("trunc_normal_tight", init.trunc_normal_, (64, 32), truncated(0.2, 1.0, -0.5, 1.5), mean=0.2, std=1.0, a=-0.5, b=1.5)
for shape in SHAPES:
    fan_in, fan_out = fans(shape)
    for gain in (1.0, math.sqrt(2.0)):
        bound = gain * math.sqrt(6.0 / (fan_in + fan_out))
        name = f"{tag(shape)}{'' if gain == 1.0 else '_gain'}"
        random(f"xavier_uniform_{name}", init.xavier_uniform_, shape, uniform(-bound, bound), gain=gain)
        random(f"xavier_normal_{name}", init.xavier_normal_, shape, normal(0.0, gain * math.sqrt(2.0 / (fan_in + fan_out))), gain=gain)
    for mode, fan in (("fan_in", fan_in), ("fan_out", fan_out)):
        for nonlinearity, a in (("relu", 0), ("leaky_relu", 0.2), ("leaky_relu", math.sqrt(5.0)), ("linear", 0), ("tanh", 0)):
            std = init.calculate_gain(nonlinearity, a) / math.sqrt(fan)
            kwargs = dict(a=a, mode=mode, nonlinearity=nonlinearity)
            name = f"{tag(shape)}_{mode}_{nonlinearity}{f'_{a:.1f}'.replace('.', '_') if a else ''}"
            if nonlinearity in ("relu", "leaky_relu") or shape == SHAPES[2]:
                bound = math.sqrt(3.0) * std
                random(f"kaiming_uniform_{name}", init.kaiming_uniform_, shape, uniform(-bound, bound), **kwargs)
                random(f"kaiming_normal_{name}", init.kaiming_normal_, shape, normal(0.0, std), **kwargs)

exact("constant", init.constant_, (2, 3), val=0.3)
exact("ones", init.ones_, (3,))
exact("zeros", init.zeros_, (2, 2))
for shape in ((3, 3), (2, 5), (5, 2)):
    exact(f"eye_{tag(shape)}", init.eye_, shape)
for shape, groups in (((3, 3, 3), 1), ((4, 4, 3, 3), 1), ((5, 3, 3, 5), 1), ((2, 4, 4, 2), 1), ((6, 2, 3, 3), 3), ((6, 3, 1, 3), 2)):
    exact(f"dirac_{tag(shape)}_groups{groups}", init.dirac_, shape, groups=groups)

for shape, gain in (((5, 5), 1.0), ((3, 8), 1.0), ((8, 3), 1.0), ((6, 2, 3, 3), 1.5), ((16, 1, 3, 3), 1.0)):
    seed("orthogonal")
    matrix = init.orthogonal_(torch.empty(shape), gain).flatten(1).double()
    rows = matrix.shape[0] <= matrix.shape[1]
    gram = matrix @ matrix.T if rows else matrix.T @ matrix
    assert (gram - gain ** 2 * torch.eye(len(gram))).abs().max() < 1e-5
    f.add(f"orthogonal_{tag(shape)}", "orthogonal_", dict(gain=gain), {}, "flattened to [first, rest]", shape=list(shape),
          expected=dict(distribution="orthogonal", of="rows" if rows else "columns", squared_norm=gain ** 2))
for shape, sparsity, std in (((10, 7), 0.1, 0.01), ((9, 4), 0.5, 1.0), ((5, 6), 0.25, 0.02)):
    seed("sparse")
    zeros = math.ceil(sparsity * shape[0])
    assert ((init.sparse_(torch.empty(shape), sparsity, std) == 0).sum(0) == zeros).all()
    f.add(f"sparse_{tag(shape)}", "sparse_", dict(sparsity=sparsity, std=std), {}, "the same number of zeros in each column",
          shape=list(shape), expected=dict(distribution="sparse", zeros_in_each_column=zeros, mean=0.0, std=std))

for nonlinearity, param in [("linear", None), ("conv1d", None), ("conv2d", None), ("conv_transpose2d", None), ("sigmoid", None),
                            ("tanh", None), ("relu", None), ("leaky_relu", None), ("leaky_relu", 0.2), ("leaky_relu", math.sqrt(5)),
                            ("selu", None)]:
    name = f"gain_{nonlinearity}{'' if param is None else f'_{param:.1f}'.replace('.', '_')}"
    f.add(name, "calculate_gain", dict(nonlinearity=nonlinearity, param=param), {},
          expected=dict(gain=float(init.calculate_gain(nonlinearity, param))))


def defaults(name, cls, *args, expected, **kwargs):
    """The default initialisation of a layer: `expected` says for each parameter and buffer what it begins as."""
    layer = Layer(cls, *args, **kwargs)
    seed(name)
    made = [layer.make() for _ in range(20)]
    state = made[0].state_dict()
    assert state.keys() == expected.keys(), (name, state.keys())
    for key, want in expected.items():
        sample = torch.cat([m.state_dict()[key].flatten().double() for m in made])
        if want["distribution"] == "constant":
            assert (sample == sample.new_tensor(want["value"])).all() or (sample.float() == torch.tensor(want["value"])).all(), (name, key)
        elif "low" in want:
            assert want["low"] - 1e-6 <= sample.min() and sample.max() <= want["high"] + 1e-6, (name, key)
            assert sample.numel() < 500 or sample.max() > 0.95 * want["high"], (name, key)
        else:
            assert abs(sample.std() / want["std"] - 1) < 0.05, (name, key)
    f.add(f"default_{name}", layer.name, layer.args, {}, expected=expected, shapes={k: list(v.shape) for k, v in state.items()})


def from_fan(fan_in, bias=True):
    """Weight and bias are both uniform within 1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return {k: uniform(-bound, bound) for k in (["weight", "bias"] if bias else ["weight"])}


def constant(value):
    return dict(distribution="constant", value=value)


affine = dict(weight=constant(1.0), bias=constant(0.0))
tracked = dict(running_mean=constant(0.0), running_var=constant(1.0), num_batches_tracked=constant(0))
defaults("conv2d", nn.Conv2d, 3, 32, 3, expected=from_fan(27))
defaults("conv2d_course", nn.Conv2d, 1, 32, 3, expected=from_fan(9))
defaults("conv2d_groups", nn.Conv2d, 8, 16, (3, 5), groups=4, expected=from_fan(30))
defaults("conv2d_depthwise", nn.Conv2d, 16, 16, 3, groups=16, bias=False, expected=from_fan(9, bias=False))
defaults("conv1d", nn.Conv1d, 6, 10, 5, expected=from_fan(30))
defaults("conv_transpose2d", nn.ConvTranspose2d, 6, 10, 3, expected=from_fan(90))
defaults("conv_transpose2d_groups", nn.ConvTranspose2d, 6, 10, 3, groups=2, expected=from_fan(45))
defaults("linear", nn.Linear, 20, 30, expected=from_fan(20))
defaults("linear_no_bias", nn.Linear, 3136, 128, bias=False, expected=from_fan(3136, bias=False))
defaults("batch_norm2d", nn.BatchNorm2d, 6, expected=affine | tracked)
defaults("batch_norm1d", nn.BatchNorm1d, 6, expected=affine | tracked)
defaults("batch_norm2d_not_affine", nn.BatchNorm2d, 6, affine=False, expected=tracked)
defaults("batch_norm2d_untracked", nn.BatchNorm2d, 6, track_running_stats=False, expected=affine)
defaults("group_norm", nn.GroupNorm, 2, 6, expected=affine)
defaults("layer_norm", nn.LayerNorm, [3, 4], expected=affine)
defaults("instance_norm2d", nn.InstanceNorm2d, 6, expected={})
defaults("instance_norm2d_affine", nn.InstanceNorm2d, 6, affine=True, expected=affine)
defaults("instance_norm2d_tracked", nn.InstanceNorm2d, 6, track_running_stats=True, expected=tracked)
defaults("prelu", nn.PReLU, 4, expected=dict(weight=constant(0.25)))
defaults("prelu_init", nn.PReLU, 1, 0.1, expected=dict(weight=constant(0.1)))


def model(name, factory, expected):
    """How torchvision's registry initialises a model's layers, which differs from the layers' defaults."""
    seed(name)
    state = factory(weights=None).state_dict()
    for key, want in expected.items():
        value = state[key].double()
        if want["distribution"] == "constant":
            assert (value == want["value"]).all(), key
        elif "low" in want:
            assert value.min() >= want["low"] - 1e-6 and value.max() <= want["high"] + 1e-6 and value.max() > 0.9 * want["high"], key
        else:
            assert abs(value.std() / want["std"] - 1) < 5 / math.sqrt(value.numel()), key
    f.add(f"model_{name}", name, {}, {}, expected=expected, shapes={k: list(state[k].shape) for k in expected})


def fan_out_relu(fan_out):
    return normal(0.0, math.sqrt(2.0 / fan_out))


one, zero = constant(1.0), constant(0.0)
model("resnet18", models.resnet18, {
    "conv1.weight": fan_out_relu(64 * 49), "layer1.0.conv1.weight": fan_out_relu(64 * 9),
    "layer2.0.downsample.0.weight": fan_out_relu(128), "layer1.0.bn2.weight": one, "layer1.0.bn2.bias": zero,
    "fc.weight": from_fan(512)["weight"], "fc.bias": from_fan(512)["bias"]})
model("vgg11", models.vgg11, {
    "features.0.weight": fan_out_relu(64 * 9), "features.0.bias": zero, "features.3.weight": fan_out_relu(128 * 9),
    "classifier.6.weight": normal(0.0, 0.01), "classifier.6.bias": zero})
model("vgg11_bn", models.vgg11_bn, {
    "features.0.weight": fan_out_relu(64 * 9), "features.0.bias": zero, "features.1.weight": one, "features.1.bias": zero,
    "classifier.6.weight": normal(0.0, 0.01)})
model("mobilenet_v2", models.mobilenet_v2, {
    "features.0.0.weight": fan_out_relu(32 * 9), "features.1.conv.0.0.weight": fan_out_relu(32 * 9),
    "features.2.conv.0.0.weight": fan_out_relu(96), "features.2.conv.2.weight": fan_out_relu(24),
    "features.18.1.weight": one, "features.18.1.bias": zero, "classifier.1.weight": normal(0.0, 0.01), "classifier.1.bias": zero})

f.save()
