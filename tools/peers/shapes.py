#!/usr/bin/env python3
"""Convolutions drawn at random, forward and both gradients, beside PyTorch: where striate falls off a cliff.

    cargo build --release
    $(tools/peers/setup.sh) tools/peers/shapes.py [--seed 1] [--count 60] [--threads 2]

Each shape is drawn from ranges that nets have and that suites of benchmarks leave out: odd numbers of channels, 1x7 and 7x1 kernels, 5x5 and
11x11, dilations whose taps see padding alone, groups, depthwise layers with two filters a channel, strides up to 4, maps of one
pixel. torch runs contiguous and channels_last, and its faster counts; striate reads the channels-last maps that its plans pass on. Contestants take turns, --rounds times, and a figure is
the median of its rounds. A ratio is torch's time over striate's: above 1, striate is the faster.
"""
import argparse
import json
import math
import random
import statistics
import subprocess
import time
from pathlib import Path

BINARY = Path(__file__).resolve().parents[2] / "target/release/striate"
PASSES = ("fwd", "bwd-data", "bwd-weight")
# Multiply-adds of a forward pass that are worth timing, and end before the coffee is cold.
WORK = (1e6, 3e9)
# Floats of the larger of both maps.
MOST_FLOATS = 1 << 24


def draw(rng):
    """One convolution: batch, channels, side, filters, kernel, stride, dilation, padding, groups."""
    while True:
        kernel = rng.choice([(1, 1), (1, 1), (3, 3), (3, 3), (3, 3), (1, 7), (7, 1), (5, 5), (7, 7), (11, 11)])
        side = rng.choice([1, 2, 7, 7, 13, 14, 19, 28, 33, 56, 112])
        channels = rng.choice([3, 17, 32, 33, 64, 96, 100, 128, 256, 512])
        filters = rng.choice([3, 17, 32, 33, 64, 96, 100, 128, 256, 512])
        kind = rng.choice(["plain"] * 4 + ["groups", "depthwise", "multiplier"])
        groups = {"plain": 1, "groups": rng.choice([2, 4, 32])}.get(kind, channels)
        if kind != "plain":
            filters = channels * (2 if kind == "multiplier" else 1)
        dilation = rng.choice([1, 1, 1, 2, 4, 12]) if max(kernel) > 1 else 1
        stride = rng.choice([1, 1, 1, 2, 2, 3, 4])
        padding = tuple(dilation * (k - 1) // 2 for k in kernel)
        batch = rng.choice([1, 2, 4, 8, 16, 64])
        if channels % groups or filters % groups:
            continue
        out = [(side + 2 * p - dilation * (k - 1) - 1) // stride + 1 for p, k in zip(padding, kernel)]
        work = batch * out[0] * out[1] * filters * channels // groups * kernel[0] * kernel[1]
        floats = batch * max(channels * side * side, filters * out[0] * out[1])
        if WORK[0] <= work <= WORK[1] and floats <= MOST_FLOATS:
            return batch, channels, side, filters, kernel, stride, dilation, padding, groups


def striate(args, shape, which):
    batch, channels, side, filters, kernel, stride, dilation, padding, groups = shape
    words = [str(args.bin), "bench", "conv", "--input", f"{batch},{channels},{side},{side}",
             "--weight", f"{filters},{channels // groups},{kernel[0]},{kernel[1]}", "--stride", str(stride),
             "--padding", f"{padding[0]},{padding[1]}", "--dilation", str(dilation), "--groups", str(groups),
             "--pass", which, "--threads", str(args.threads), "--seconds", str(args.seconds), "--json"]
    done = subprocess.run(words + (["--exact"] if args.exact else []), capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])["median_ms"]


def torch_calls(shape, layout):
    """Pass -> a call of torch's own kernel in that memory format."""
    import torch

    batch, channels, side, filters, kernel, stride, dilation, padding, groups = shape
    x = torch.randn(batch, channels, side, side).contiguous(memory_format=layout)
    w = torch.randn(filters, channels // groups, *kernel).contiguous(memory_format=layout)
    settings = (stride, stride), padding, (dilation, dilation)
    y = torch.nn.functional.conv2d(x, w, None, *settings, groups)
    dy = torch.randn_like(y, memory_format=torch.preserve_format)

    def backward(mask):
        return lambda: torch.ops.aten.convolution_backward(dy, x, w, None, *settings, False, (0, 0), groups, mask)

    return {"fwd": lambda: torch.nn.functional.conv2d(x, w, None, *settings, groups),
            "bwd-data": backward((True, False, False)), "bwd-weight": backward((False, True, False))}


def median_ms(call, seconds):
    call()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


def describe(shape):
    batch, channels, side, filters, kernel, stride, dilation, _, groups = shape
    more = [f"s{stride}"] * (stride > 1) + [f"d{dilation}"] * (dilation > 1) + [f"g{groups}"] * (groups > 1)
    return " ".join([f"{batch}x{channels}x{side}x{side}", f"{filters}", f"{kernel[0]}x{kernel[1]}", *more])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.1, help="a contestant and round")
    parser.add_argument("--exact", action="store_true", help="striate's direct kernels only")
    parser.add_argument("--bin", type=Path, default=BINARY)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    rng = random.Random(args.seed)
    rows = []
    for number in range(args.count):
        shape = draw(rng)
        layouts = [torch_calls(shape, layout) for layout in (torch.contiguous_format, torch.channels_last)]
        for which in PASSES:
            ours, theirs = [], [[], []]
            with torch.inference_mode():
                for _ in range(args.rounds):
                    for times, calls in zip(theirs, layouts):
                        times.append(median_ms(calls[which], args.seconds))
                    ours.append(striate(args, shape, which))
            torch_ms, ms = min(map(statistics.median, theirs)), statistics.median(ours)
            rows.append((torch_ms / ms, describe(shape), which, ms, torch_ms))
        print(f"\r{number + 1} of {args.count}", end="", flush=True)
    rows.sort()
    mean = math.exp(statistics.fmean(math.log(row[0]) for row in rows))
    print(f"\rseed {args.seed}, {args.threads} threads: worst {rows[0][0]:.2f}, geometric mean {mean:.2f}, below 0.9: "
          f"{sum(row[0] < 0.9 for row in rows)} of {len(rows)}\n")
    print("| ratio | input, filters, kernel | pass | striate, ms | torch, ms |\n|---|---|---|---|---|")
    for ratio, name, which, ms, torch_ms in rows:
        print(f"| {ratio:.2f} | {name} | {which} | {ms:.3f} | {torch_ms:.3f} |")


if __name__ == "__main__":
    main()
