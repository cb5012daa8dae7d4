"""Every model of the zoo against torchvision: the same random weights and batch-norm statistics, the same input, the same output.

    python parity.py [--striate target/release/striate] [--format pth|safetensors] [--only WORD,WORD] [--quick]

For each model torchvision's own net gets random weights. Its batch-norm statistics are those of a random batch, then disturbed, so that
they are random too but activations neither vanish nor explode. Its state dict is saved, `striate run` computes, and the largest
difference is held against the output's range: 1e-4 of it passes. Two inputs each, the model's usual size and an odd one (batch 2),
which `--quick` leaves out for nets of more than 20 G multiply-adds. Parameters and multiply-adds of `striate models` are compared with what torchvision
publishes. Exit status 1 if anything differs. All of it takes about half an hour on one core and 8 GiB.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import torchvision
from torchvision.models.efficientnet import FusedMBConv, MBConv

LIMIT = 1e-4
ODD = (237, 221)
# Heads that striate has only in training: torchvision counts their multiply-adds, or has left their parameters out.
AUX_MACS = {"fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large"}
AUX_PARAMETERS = {"googlenet"}


def make(name):
    """torchvision's net without pretrained weights, its auxiliary heads included."""
    options = {"weights": None}
    if hasattr(torchvision.models.segmentation, name):
        options.update(weights_backbone=None)
        if name != "lraspp_mobilenet_v3_large":
            options.update(aux_loss=True)
    if name in ("googlenet", "inception_v3"):
        options.update(init_weights=False)
    return torchvision.models.get_model(name, **options)


def pictures(batch, height, width):
    """Random pictures with structure at every scale, as photographs have it: of plain noise deep layers see only its mean."""
    x = torch.zeros(batch, 3, height, width)
    for side in (2, 5, 16, 64):
        noise = torch.randn(batch, 3, side, side)
        x += torch.nn.functional.interpolate(noise, (height, width), mode="bilinear")
    return x + 0.3 * torch.randn_like(x)


def randomise(net, side):
    """Random weights by He's rule; batch-norm statistics of a random batch, disturbed."""
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for name, p in net.named_parameters():
        if p.dim() >= 2 and not name.endswith("layer_scale"):
            torch.nn.init.normal_(p, std=(2.0 / p[0].numel()) ** 0.5)
        elif name.endswith("layer_scale"):
            torch.nn.init.uniform_(p, 0.1, 0.5)
        elif name.endswith("bias"):
            torch.nn.init.normal_(p, std=0.1)
        else:
            torch.nn.init.uniform_(p, 0.5, 1.5)
    for m in net.modules():
        # EfficientNet is chaotic with weights as large as the rest bears: float32 would be 10 % from float64 in PyTorch too.
        if isinstance(m, (MBConv, FusedMBConv)) and m.use_res_connect:
            torch.nn.init.uniform_(m.block[-1][1].weight, 0.1, 0.4)
        if isinstance(m, torch.nn.Dropout):
            m.p = 0.0
        if isinstance(m, torchvision.ops.StochasticDepth):
            m.p = 0.0
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.momentum = 1.0
    net.train()
    with torch.no_grad():
        net(pictures(4, side, side))
    net.eval()
    for m, momentum in zip(norms, momenta):
        m.momentum = momentum
        m.running_var.mul_(torch.empty_like(m.running_var).uniform_(0.7, 1.4)).add_(1e-3)
        m.running_mean.add_(0.2 * m.running_var.sqrt() * torch.randn_like(m.running_mean))


def output_of(y):
    return y["out"] if isinstance(y, dict) else y


def compare(args, name, net, spec, folder):
    """The largest difference relative to the range, by input."""
    weights = folder / f"weights.{args.format}"
    state = {k: v.contiguous() for k, v in net.state_dict().items()}
    if args.format == "safetensors":
        from safetensors.torch import save_file

        save_file(state, weights)
    else:
        torch.save(state, weights)
    _, height, width = spec["input"]
    inputs = [(1, height, width)]
    if not (args.quick and spec["macs"] > 20e9):
        inputs.append((2, *ODD))
    errors = {}
    for batch, height, width in inputs:
        x = pictures(batch, height, width)
        with torch.no_grad():
            want = output_of(net(x)).numpy()
        np.save(folder / "x.npy", x.numpy())
        command = [args.striate, "run", name, "--weights", weights, "--input", folder / "x.npy", "--output", folder / "out"]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        got = np.load(folder / "out" / "0.npy")
        assert got.shape == want.shape, f"{got.shape} instead of {want.shape}"
        spread = float(want.max() - want.min())
        assert np.isfinite(want).all() and spread > 0, "torchvision's own output is not finite or constant"
        errors[f"{batch}x{height}x{width}"] = float(np.abs(got - want).max()) / spread
    return errors


def published(name, spec):
    """What does not agree with torchvision's published figures."""
    meta = torchvision.models.get_model_weights(name).DEFAULT.meta
    wrong = []
    if name not in AUX_PARAMETERS and spec["parameters"] != meta["num_params"]:
        wrong.append(f"{spec['parameters']} parameters, published {meta['num_params']}")
    giga = spec["macs"] / 1e9
    if name not in AUX_MACS and abs(giga - meta["_ops"]) > max(0.0006, 1e-3 * meta["_ops"]):
        wrong.append(f"{giga:.3f} G multiply-adds, published {meta['_ops']}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--striate", default="target/release/striate")
    parser.add_argument("--format", choices=["pth", "safetensors"], default="pth")
    parser.add_argument("--only", default="", help="only models whose name contains one of these words")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    lines = subprocess.run([args.striate, "models", "--json"], check=True, capture_output=True, text=True).stdout
    specs = {spec["name"]: spec for spec in map(json.loads, lines.splitlines())}
    kinds = (torchvision.models, torchvision.models.segmentation)
    not_ours = ("vit_", "swin", "maxvit")
    theirs = [n for kind in kinds for n in torchvision.models.list_models(kind) if not n.startswith(not_ours)]
    missing = [name for name in theirs if name not in specs]
    failures = [f"missing: {missing}"] if missing else []
    worst = (0.0, "")
    words = args.only.split(",")
    for name in sorted((n for n in theirs if n in specs), key=lambda n: specs[n]["macs"]):
        if not any(word in name for word in words):
            continue
        start = time.time()
        torch.manual_seed(sum(name.encode()))
        try:
            net = make(name)
            randomise(net, 299 if name == "inception_v3" else 128)
            with tempfile.TemporaryDirectory() as folder:
                errors = compare(args, name, net, specs[name], Path(folder))
        except (AssertionError, subprocess.CalledProcessError) as error:
            failures.append(f"{name}: {error}")
            print(f"{name:30} FAILED {error}", flush=True)
            continue
        largest = max(errors.values())
        worst = max(worst, (largest, name))
        wrong = published(name, specs[name]) + ([f"{largest:.1e} is more than {LIMIT}"] if not largest <= LIMIT else [])
        failures += [f"{name}: {text}" for text in wrong]
        shown = ", ".join(f"{size} {error:.1e}" for size, error in errors.items())
        print(f"{name:30} {shown}  ({time.time() - start:.0f} s) {'; '.join(wrong) or 'ok'}", flush=True)
    print(f"worst {worst[0]:.1e} ({worst[1]}); {len(failures)} failure(s)")
    print("\n".join(failures))
    sys.exit(bool(failures))


main()
