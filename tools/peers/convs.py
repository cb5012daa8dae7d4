#!/usr/bin/env python3
"""The 23 distinct convolutions of ResNet-50 through `striate bench conv`, as a Markdown table of per cent of measured peak.

    tools/peers/convs.py --bin target/release/striate [--threads 1] [--seconds 0.3]

Forward at batch 1 and 8, both gradients at batch 8, direct convolution (--exact). The last row has the geometric means; the
input gradient of the stem, which no training needs, is shown but not counted.
"""
import argparse
import json
import math
import subprocess

# name, input channels, output channels, input side, kernel, stride
LAYERS = [
    ("conv1 7x7 s2", 3, 64, 224, 7, 2),
    ("layer1 1x1 64-64", 64, 64, 56, 1, 1),
    ("layer1 3x3 64", 64, 64, 56, 3, 1),
    ("layer1 1x1 64-256", 64, 256, 56, 1, 1),
    ("layer1 1x1 256-64", 256, 64, 56, 1, 1),
    ("layer2 1x1 256-128", 256, 128, 56, 1, 1),
    ("layer2 3x3 s2 128", 128, 128, 56, 3, 2),
    ("layer2 1x1 128-512", 128, 512, 28, 1, 1),
    ("layer2 1x1 s2 256-512", 256, 512, 56, 1, 2),
    ("layer2 1x1 512-128", 512, 128, 28, 1, 1),
    ("layer2 3x3 128", 128, 128, 28, 3, 1),
    ("layer3 1x1 512-256", 512, 256, 28, 1, 1),
    ("layer3 3x3 s2 256", 256, 256, 28, 3, 2),
    ("layer3 1x1 256-1024", 256, 1024, 14, 1, 1),
    ("layer3 1x1 s2 512-1024", 512, 1024, 28, 1, 2),
    ("layer3 1x1 1024-256", 1024, 256, 14, 1, 1),
    ("layer3 3x3 256", 256, 256, 14, 3, 1),
    ("layer4 1x1 1024-512", 1024, 512, 14, 1, 1),
    ("layer4 3x3 s2 512", 512, 512, 14, 3, 2),
    ("layer4 1x1 512-2048", 512, 2048, 7, 1, 1),
    ("layer4 1x1 s2 1024-2048", 1024, 2048, 14, 1, 2),
    ("layer4 1x1 2048-512", 2048, 512, 7, 1, 1),
    ("layer4 3x3 512", 512, 512, 7, 3, 1),
]
PASSES = [("fwd", 1), ("fwd", 8), ("bwd-data", 8), ("bwd-weight", 8)]


def measure(args, layer, which, batch):
    _, channels, out, side, kernel, stride = layer
    words = [args.bin, "bench", "conv", "--input", f"{batch},{channels},{side},{side}",
             "--weight", f"{out},{channels},{kernel},{kernel}", "--stride", str(stride), "--padding", str(kernel // 2),
             "--pass", which, "--threads", str(args.threads), "--seconds", str(args.seconds), "--exact", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.3)
    args = parser.parse_args()
    print("| convolution | forward, batch 1 | forward, batch 8 | input gradient | weight gradient |\n|---|---|---|---|---|")
    columns = [[] for _ in PASSES]
    peaks = []
    for layer in LAYERS:
        row = []
        for column, (which, batch) in zip(columns, PASSES):
            told = measure(args, layer, which, batch)
            peaks.append(told["peak_gflops"])
            row.append(told["percent_of_peak"])
            if not (which == "bwd-data" and layer is LAYERS[0]):
                column.append(told["percent_of_peak"])
        print(f"| {layer[0]} | " + " | ".join(f"{value:.0f}" for value in row) + " |", flush=True)
    means = [math.exp(sum(map(math.log, column)) / len(column)) for column in columns]
    print("| **geometric mean** | " + " | ".join(f"**{mean:.1f}**" for mean in means) + " |")
    print(f"\nmeasured peak {min(peaks):.0f} to {max(peaks):.0f} GFLOP/s")


if __name__ == "__main__":
    main()
