#!/usr/bin/env python3
"""Times striate beside PyTorch, ONNX Runtime and OpenVINO on this machine, on the same models and shapes.

    cargo build --release
    $(tools/peers/setup.sh) tools/peers/compare.py infer resnet18 resnet50 --threads 2 --batch 1
    $(tools/peers/setup.sh) tools/peers/compare.py train lenet:64 resnet18_cifar:64 --compile
    $(tools/peers/setup.sh) tools/peers/compare.py infer ssdlite320_mobilenet_v3_large retinanet_resnet50_fpn:1@640

Without names, the models of the tables in docs/performance.md. A detector's inference is that of the network that `striate export`
writes, boxes and scores without the suppression, on all sides but torch; its training is torchvision's losses for seven random
boxes a picture.

Inference: from a float32 NCHW buffer of the user to the output. Training: forward, cross-entropy, backward and SGD with
momentum and weight decay, the loss read at each step. Weights and pictures are random. The contestants take turns,
--rounds times, so that a slow minute of the machine meets all of them; a figure is the median of its rounds. A ratio is
striate's speed over that of the fastest other: above 1, striate is the faster.
"""
import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", category=DeprecationWarning)  # of torch.onnx.export's own past

BINARY = Path(__file__).resolve().parents[2] / "target/release/striate"
# (channels, side, classes) where a model does not take 3 x 224 x 224 and know 1000 classes
SHAPES = {"lenet": (1, 28, 10), "resnet18_cifar": (3, 32, 10)}
IMAGENET = (3, 224, 1000)
TABLES = {
    "infer": ["resnet18", "resnet50", "vgg16", "mobilenet_v2", "mobilenet_v3_large", "squeezenet1_1", "efficientnet_b0",
              "densenet121", "shufflenet_v2_x1_0", "regnet_y_400mf", "convnext_tiny"],
    "train": ["lenet:64", "lenet:256", "resnet18_cifar:64", "resnet18:8", "resnet50:8", "mobilenet_v2:8", "vgg11_bn:8"],
}


def detectors(binary):
    """The side that each detector of striate's registry takes."""
    lines = subprocess.run([binary, "models", "--json"], check=True, capture_output=True, text=True).stdout.splitlines()
    models = map(json.loads, lines)
    return {model["name"]: model["input"][1] for model in models if model["task"] == "detect"}


def build_torch(model, shape):
    """The PyTorch network of a name in striate's registry; `None` where it has none."""
    import torchvision
    from torch import nn

    _, side, classes = shape
    if classes is None:
        if model.startswith("striate"):
            return None
        sizes = {"min_size": side, "max_size": side} if "320" not in model and "300" not in model else {}
        return torchvision.models.get_model(model, weights=None, weights_backbone=None, **sizes)

    if model == "lenet":
        layers = []
        for channels_in, channels_out in [(1, 32), (32, 64)]:
            layers += [nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(7 * 7 * 64, 128), nn.ReLU(), nn.Linear(128, classes))
    if model == "resnet18_cifar":
        net = torchvision.models.resnet18(num_classes=classes)
        net.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
        net.maxpool = nn.Identity()
        return net
    return torchvision.models.get_model(model, weights=None, num_classes=classes)


def images_per_s(step, batch, seconds):
    """Speed of `step` by its median time over `seconds`, after one untimed call."""
    step()
    times = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return batch / statistics.median(times)


def striate(args, verb, model, batch, shape):
    """The contestant that is striate, through its own `bench`."""
    channels, side, classes = shape
    command = [str(args.bin), "bench", verb, model, "--json"] + (["--exact"] if args.exact else [])
    for flag, value in {"batch": batch, "imgsz": side, "channels": channels, "classes": classes,
                        "threads": args.threads, "seconds": args.seconds}.items():
        command += [f"--{flag}", str(value)] if value is not None else []

    def run():
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
        result = json.loads(done.stdout.splitlines()[-1])
        return batch / result["median_ms"] * 1e3 if verb == "infer" else result["images_per_s"]

    return run


def write_onnx(args, net, model, pictures, path):
    """The network as a file: PyTorch's export, of a detector striate's own."""
    import torch

    if model not in args.detectors:
        return torch.onnx.export(net, pictures, path, dynamo=False, opset_version=18)
    side = str(pictures.shape[-1])
    return subprocess.run([args.bin, "export", model, path, "--imgsz", side], check=True, capture_output=True)


def infer_contestants(args, model, batch, shape):
    import onnxruntime
    import openvino
    import torch

    channels, side, classes = shape
    torch.set_num_threads(args.threads)
    net = build_torch(model, shape)
    pictures = torch.randn(batch, channels, side, side)

    def torch_run(net, pictures):
        net = net.eval()

        @torch.inference_mode()
        def run():
            return images_per_s(lambda: net(pictures), batch, args.seconds)
        return run

    path = str(args.folder / f"{model}.onnx")
    write_onnx(args, net, model, pictures, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    # a thread that goes on waiting actively would slow the next contestant down
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    settings = {"INFERENCE_NUM_THREADS": args.threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
    array = pictures.numpy()
    feed = {session.get_inputs()[0].name: array}
    contestants = {
        "onnxruntime": lambda: images_per_s(lambda: session.run(None, feed), batch, args.seconds),
        "openvino": lambda: images_per_s(lambda: request.infer({0: array}), batch, args.seconds),
    }
    if net is not None:
        last = build_torch(model, shape).to(memory_format=torch.channels_last)
        contestants["torch"] = torch_run(net, pictures)
        contestants["torch channels_last"] = torch_run(last, pictures.to(memory_format=torch.channels_last))
    file = path if model in args.detectors else model
    return contestants | {"striate": striate(args, "infer", file, batch, shape)}


def torch_loss(forward, model, pictures, classes):
    """What a training step of `model` makes small, as a function without arguments."""
    import torch

    batch, _, side, _ = pictures.shape
    if classes is not None:
        labels = torch.randint(classes, (batch,))
        return lambda: torch.nn.functional.cross_entropy(forward(pictures), labels)
    corner, size = torch.rand(batch, 7, 2) * side / 2, side / 8 + torch.rand(batch, 7, 2) * side * 3 / 8
    things = [{"boxes": boxes, "labels": torch.arange(7) + 1} for boxes in torch.cat([corner, corner + size], 2)]
    return lambda: sum(forward(list(pictures), [dict(thing) for thing in things]).values())


def train_contestants(args, model, batch, shape):
    import torch

    channels, side, classes = shape
    torch.set_num_threads(args.threads)

    def contestant(memory_format, compiled=False):
        net = build_torch(model, shape).train().to(memory_format=memory_format)
        pictures = torch.rand(batch, channels, side, side).to(memory_format=memory_format)
        loss_of = torch_loss(torch.compile(net) if compiled else net, model, pictures, classes)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)

        def step():
            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
            optimizer.step()
            return loss.item()

        return lambda: images_per_s(step, batch, args.seconds)

    formats = {"torch": torch.contiguous_format, "torch channels_last": torch.channels_last}
    ways = {name: contestant(layout) for name, layout in formats.items()}
    if args.compile:
        ways |= {f"{name} compiled": contestant(layout, compiled=True) for name, layout in formats.items()}
    return ways | {"striate": striate(args, "train", model, batch, shape)}


def shape_of(args, model, side):
    """(channels, side, classes) of a model; detectors keep their own classes."""
    if model in args.detectors:
        return 3, int(side or args.detectors[model]), None
    channels, own, classes = SHAPES.get(model, IMAGENET)
    return channels, int(side or own), classes


def compare(args):
    contestants_of = {"infer": infer_contestants, "train": train_contestants}[args.verb]
    rows = []
    for word in args.models or TABLES[args.verb]:
        model, _, numbers = word.partition(":")
        batch, _, side = numbers.partition("@")
        batch = int(batch or args.batch)
        contestants = contestants_of(args, model, batch, shape_of(args, model, side))
        speeds = {name: [] for name in contestants}
        for _ in range(args.rounds):
            for name, run in contestants.items():
                speeds[name].append(run())
        speed = {name: statistics.median(values) for name, values in speeds.items()}
        best = max((name for name in speed if name != "striate"), key=speed.get)
        ratio = speed["striate"] / speed[best]
        rows.append({"model": model, "batch": batch, "threads": args.threads, "images_per_s": speed,
                     "best_peer": best, "ratio": ratio})
        print(f"{model}, batch {batch}, {args.threads} threads: striate is {ratio:.2f} times as fast as {best}")
        for name in sorted(speed, key=speed.get, reverse=True):
            print(f"  {name:20}{speed[name]:10.1f} images/s {batch / speed[name] * 1e3:10.2f} ms", flush=True)
    geomean = math.exp(statistics.fmean(math.log(row["ratio"]) for row in rows))
    print(f"geometric mean of the ratios: {geomean:.3f}")
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "geomean": geomean}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["infer", "train"])
    parser.add_argument("models", nargs="*", metavar="MODEL[:BATCH[@SIDE]]", help="names from `striate models`")
    parser.add_argument("--batch", type=int, default=1, help="where MODEL does not say (default 1)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="a contestant and round")
    parser.add_argument("--compile", action="store_true", help="train: torch.compile as well, which needs a C++ compiler")
    parser.add_argument("--exact", action="store_true", help="striate's direct kernels only")
    parser.add_argument("--bin", type=Path, default=BINARY, help="default: target/release/striate")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    args = parser.parse_args()
    args.detectors = detectors(args.bin)
    with tempfile.TemporaryDirectory() as folder:
        args.folder = Path(folder)
        compare(args)


if __name__ == "__main__":
    main()
