"""Exports detectors with `striate export` and runs them in ONNX Runtime beside striate.

    cargo build --release
    python tools/onnx/check_detectors.py [--striate target/release/striate] [--opsets 13,18,21] [NAME ...]

Without names it takes every detector of one stage. Each gets random weights through a safetensors file and is exported, checked by
`onnx.checker`, and run for batches of 1 and 2: boxes and scores must agree with `striate run` on the file to 1e-3 of their range.
With `--nms` the boxes that the file keeps on a picture of noise must be those that `striate predict` tells, which decodes the heads on
the host: 99 of 100 must have their partner, as scores that differ in the last bit may change places at a threshold.

Needs onnx, onnxruntime, safetensors, pillow and numpy. Exit code 1 if any net disagrees.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import onnx
import onnxruntime
import safetensors.numpy
from PIL import Image

TOLERANCE = 1e-3  # of the output's range
PARTNERS = 0.99  # of the boxes that predict tells
TWO_STAGES = ("fasterrcnn", "maskrcnn")


def registry(striate):
    """Names of all detectors of one stage."""
    lines = subprocess.run([striate, "models", "--json"], check=True, capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in lines.splitlines()]
    return [row["name"] for row in rows if row["task"] == "detect" and not row["name"].startswith(TWO_STAGES)]


def random_weights(model, path):
    """Weights for an exported net, with scores all over the range; label 0, where it is the background, is never found."""
    random = numpy.random.default_rng(0)
    values = {}
    for tensor in onnx.load(model).graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if tensor.name.startswith(("constant", "suppress/")):
            continue
        if tensor.name.endswith("running_var"):
            array = random.uniform(0.5, 1.5, array.shape)
            count = tensor.name.replace("running_var", "num_batches_tracked")
            values[count] = numpy.zeros([], numpy.int64)
        elif tensor.name.endswith("running_mean") or (tensor.name.endswith("bias") and "head" not in tensor.name):
            array = random.normal(0, 0.1, array.shape)
        elif tensor.name.endswith("cls_logits.weight"):
            array = random.normal(0, 0.05, array.shape)
        elif array.ndim == 4:
            # Initial values of some heads are so small that the picture is lost in them, and all scores are equal.
            array = random.normal(0, (1 / array[0].size) ** 0.5, array.shape)
        elif tensor.name.endswith("bn3.weight"):
            array = random.uniform(0.1, 0.3, array.shape)
        elif tensor.name.endswith("cls_logits.bias"):
            array = array.copy()
            array[::91] = -20
        values[tensor.name] = array if array.dtype.kind == "i" else array.astype(numpy.float32)
    safetensors.numpy.save_file(values, path)


def export(striate, name, model, *flags):
    done = subprocess.run([striate, "export", name, model, *flags], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"export {' '.join(map(str, flags))}: {done.stderr.strip()}")
    onnx.checker.check_model(str(model), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def difference(striate, model, session, folder, batch):
    """The largest difference of boxes and scores, relative to their range."""
    shape = session.get_inputs()[0].shape[1:]
    x = numpy.random.default_rng(batch).normal(0, 1, [batch, *shape]).astype(numpy.float32)
    numpy.save(folder / "x.npy", x)
    run = [striate, "run", model, "--input", folder / "x.npy", "--output", folder / "out"]
    subprocess.run(run, check=True, capture_output=True)
    worst = 0.0
    for index, got in enumerate(session.run(["boxes", "scores"], {"images": x})):
        wanted = numpy.load(folder / "out" / f"{index}.npy")
        if got.shape != wanted.shape:
            raise RuntimeError(f"shape {got.shape}, wanted {wanted.shape}")
        worst = max(worst, float(abs(got - wanted).max() / max(wanted.max() - wanted.min(), 1e-30)))
    return worst


def partners(striate, name, weights, session, folder):
    """How many boxes `predict` tells, how many of them the file keeps as well, and how many the file keeps."""
    metadata = session.get_modelmeta().custom_metadata_map
    names, preprocess = json.loads(metadata["class_names"]), json.loads(metadata["preprocess"])
    side = session.get_inputs()[0].shape[-1]
    coarse = numpy.random.default_rng(7).integers(0, 256, [side // 10, side // 10, 3], numpy.uint8)
    picture = Image.fromarray(coarse).resize([side, side], Image.Resampling.BICUBIC)
    picture.save(folder / "picture.png")
    command = [striate, "predict", name, "--weights", weights, folder / "picture.png", "--conf", "0", "--json"]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0]
    told = json.loads(line)["boxes"]
    mean, std = (numpy.array(preprocess[key], numpy.float32) for key in ("mean", "std"))
    x = ((numpy.asarray(picture, numpy.float32) / 255 - mean) / std).transpose(2, 0, 1)[None].astype(numpy.float32)
    boxes, scores, labels = (array[0] for array in session.run(["boxes", "scores", "labels"], {"images": x}))
    found = labels >= 0
    boxes, scores = boxes[found], scores[found]
    kept = numpy.array([names[label] for label in labels[found]])
    same = 0
    for box in told:
        near = (kept == box["name"]) & (abs(scores - box["score"]) < TOLERANCE)
        same += bool((near & (abs(boxes - numpy.array(box["xyxy"])).max(axis=1, initial=0) < TOLERANCE * side)).any())
    return len(told), same, len(kept)


def check(striate, name, opsets, folder):
    """What was found, in words; raises where something is wrong."""
    model, weights = folder / "net.onnx", folder / "net.safetensors"
    subprocess.run([striate, "export", name, model], check=True, capture_output=True)
    random_weights(model, weights)
    worst, words = 0.0, []
    for opset in opsets:
        flags = ["--weights", weights, "--opset", str(opset)]
        session = export(striate, name, model, *flags)
        for batch in (1, 2):
            worst = max(worst, difference(striate, model, session, folder, batch))
        if not worst <= TOLERANCE:
            raise RuntimeError(f"opset {opset}: boxes and scores differ by {worst:.1e} of their range")
        told, same, kept = partners(striate, name, weights, export(striate, name, model, "--nms", *flags), folder)
        if not told or same < PARTNERS * told or abs(kept - told) > (1 - PARTNERS) * told:
            raise RuntimeError(f"opset {opset}: of {told} boxes that predict tells {same} are among the {kept} of the file")
        words.append(f"{same} of {told}")
    return f"agrees to {worst:.1e}, with --nms {', '.join(words)} boxes"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--striate", default="target/release/striate")
    parser.add_argument("--opsets", default="13,18,21")
    parser.add_argument("models", nargs="*")
    arguments = parser.parse_args()
    names = arguments.models or registry(arguments.striate)
    opsets = [int(opset) for opset in arguments.opsets.split(",")]
    bad = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                words = check(arguments.striate, name, opsets, pathlib.Path(folder))
            except (RuntimeError, subprocess.CalledProcessError, onnx.checker.ValidationError) as error:
                words, bad = getattr(error, "stderr", None) or str(error), bad + 1
        print(f"{name}: {words}", flush=True)
    print(f"{len(names) - bad} of {len(names)} detectors agree")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
