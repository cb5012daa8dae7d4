"""The smallest net of each family: loss and gradients of one training step, then the logits of an evaluation, in float64 and float32.

Weights, pictures and labels are by formula (README.md). Of each parameter's gradient there is its norm and its product with
numbers by formula. Dropout and stochastic depth are off; heads that only training uses count as in torchvision's reference.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torchvision.models.efficientnet import FusedMBConv, MBConv

import reference_models as ref
from fixture import Family, fnv1a

# By side; Inception's auxiliary head needs its full size.
NETS = {
    "alexnet": 96, "convnext_tiny": 64, "densenet121": 64, "efficientnet_b0": 64, "efficientnet_v2_s": 64, "googlenet": 64,
    "inception_v3": 299, "mnasnet0_5": 64, "mobilenet_v3_small": 64, "regnet_x_400mf": 64, "regnet_y_400mf": 64, "resnet18": 64,
    "resnet50": 64, "resnext50_32x4d": 64, "shufflenet_v2_x0_5": 64, "squeezenet1_1": 64, "vgg11": 64, "vgg11_bn": 64,
    "wide_resnet50_2": 64, "fcn_resnet50": 48, "deeplabv3_mobilenet_v3_large": 64, "lraspp_mobilenet_v3_large": 64,
}
BATCH, CLASSES = 4, 10
BATCHES = range(3)
AUX = {"googlenet": 0.3, "inception_v3": 0.4, "fcn_resnet50": 0.5, "deeplabv3_mobilenet_v3_large": 0.5}

f = Family("zoo")


def make(name):
    options = {"weights": None, "num_classes": CLASSES}
    if hasattr(torchvision.models.segmentation, name):
        options["weights_backbone"] = None
        if name in AUX:
            options["aux_loss"] = True
    elif name in AUX:
        options.update(init_weights=False, aux_logits=True)
    net = torchvision.models.get_model(name, **options)
    for m in net.modules():
        if isinstance(m, (torch.nn.Dropout, torchvision.ops.StochasticDepth)):
            m.p = 0.0
    ref.fill_by_formula(net)
    # What stands behind a branch beside an identity is small in EfficientNet, or its evaluation would be chaotic.
    small = [f"{path}.block.{len(m.block) - 1}.1.weight" for path, m in net.named_modules()
             if isinstance(m, (MBConv, FusedMBConv)) and m.use_res_connect]
    filled = {key: 0.3 for key, _ in net.named_parameters() if key.endswith("layer_scale")} | {key: 0.2 for key in small}
    with torch.no_grad():
        for key, value in filled.items():
            net.get_parameter(key).fill_(value)
    return net, filled


def outputs(name, y):
    """Each output with its factor."""
    if isinstance(y, dict):
        return [(y["out"], 1.0)] + ([(y["aux"], AUX[name])] if "aux" in y else [])
    return [(part, AUX[name] if i else 1.0) for i, part in enumerate(y)] if isinstance(y, tuple) else [(y, 1.0)]


def run(name, net, side, key, dtype, layout=torch.contiguous_format):
    net = copy.deepcopy(net).to(dtype, memory_format=layout).train()
    x = ref.images(key, (BATCH, 3, side, side)).to(dtype, memory_format=layout)
    segments = hasattr(torchvision.models.segmentation, name)
    labels = ref.labels(key, BATCH * side * side).reshape(BATCH, side, side) if segments else ref.labels(key, BATCH)
    loss = sum(factor * F.cross_entropy(y, labels) for y, factor in outputs(name, net(x)))
    loss.backward()
    rows = []
    for key, p in net.named_parameters():
        g = p.grad.double().flatten()
        direction = ref.formula(f"{key}#direction", (g.numel(),), np.sqrt(12.0)).double()
        rows.append([g.norm(), g @ direction])
    net.eval()
    with torch.no_grad():
        logits = outputs(name, net(x))[0][0]
    return loss.detach(), torch.tensor(rows, dtype=torch.float64), logits[:, :, ::16, ::16] if segments else logits


def distances(run32, run64):
    """How far a float32 run lies from float64's: its gradients' products, relative to the norm of all; its logits, to their range."""
    (_, grads32, logits32), (_, grads64, logits64) = run32, run64
    return dict(gradients=float((grads64[:, 1] - grads32[:, 1]).norm() / grads64[:, 0].norm()),
                logits=float((logits64 - logits32).abs().max() / (logits64.max() - logits64.min())))


def add(name, net, filled, side):
    """One case a batch. A ReLU whose input lies within rounding of 0 is up to 1e-2 of a gradient, and falls on this side or that in one batch
    or another: how far float32 may lead in this net is what PyTorch's runs show on all batches together."""
    exact = [run(name, net, side, key, torch.float64) for key in BATCHES]
    rounded = [ref.in_each_float32(lambda layout: run(name, net, side, key, torch.float32, layout)) for key in BATCHES]
    apart = [distances(run32, run64) for run64, runs32 in zip(exact, rounded) for run32 in runs32]
    farthest = {key: max(each[key] for each in apart) for key in apart[0]}
    print(f"  {name}: float32 is up to {farthest['gradients']:.1e} from the gradients, {farthest['logits']:.1e} from the logits")
    for key, (loss64, grads64, logits64), runs32 in zip(BATCHES, exact, rounded):
        f.add(f"{name}_{key}", name, dict(num_classes=CLASSES),
              dict(loss64=loss64.reshape(1), grads64=grads64, logits64=logits64, logits=runs32[0][2]),
              "README.md: Numbers by formula, Zoo", input_shape=[BATCH, 3, side, side], pictures=str(key), filled=filled,
              names=f"{fnv1a(' '.join(key for key, _ in net.named_parameters())):016x}", float32_distance=farthest)


for name, side in NETS.items():
    net, filled = make(name)
    add(name, net, filled, side)

f.save()
