"""Exports detectors with `striate export` and runs them in ONNX Runtime beside torchvision and striate.

    cargo build --release
    python tools/onnx/check_detectors.py PICTURE PICTURE … [--striate target/release/striate] [--opsets 23] [--only NAME,NAME]

Without `--only` it takes every detector of the registry, and one on a classifier. Each file is checked by `onnx.checker`. For nets of two
stages opset 21 stands for newer ones: ONNX Runtime 1.32 has no RoiAlign of opset 22.

torchvision's detectors get random weights of which each picture, brought to the square that the file takes, has 20 to 100 boxes (see
`tools/zoo/detectors.py`). torchvision's boxes on these squares must be those

- that the file with `--nms` gives in ONNX Runtime, for all pictures in one batch and for the first one alone;
- that torchvision's suppression with the thresholds of the file's metadata leaves of what the file without `--nms` gives there;
- that `striate predict` tells of either file:

corners to 0.05 pixels, scores and masks to 1e-4.

Others (striate_det, `fasterrcnn_resnet18_fpn`) get random weights through a file of arrays. Boxes and scores of one stage must agree with
`striate run` on the file to 1e-3 of their range. What the file with `--nms` keeps on a picture of noise must be what
`striate predict` tells of the net, which decodes the heads on the host: 99 of 100 must have their partner, as scores that differ in the
last bit may change places at a threshold.

Needs torch, torchvision, onnx, onnxruntime, pillow and numpy. Exit code 1 if any net disagrees.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import types
import warnings

import numpy
import onnx
import onnxruntime
import torch
from PIL import Image
from torchvision.ops import batched_nms
from torchvision.transforms.functional import pil_to_tensor

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "zoo"))
import detectors as zoo  # noqa: E402

TOLERANCE = 1e-3  # of the output's range
MASK_LIMIT = 1e-4  # of probabilities
PARTNERS = 0.99  # of the boxes that predict tells
ON_CLASSIFIER = "fasterrcnn_resnet18_fpn"
TWO_STAGES = ("fasterrcnn", "maskrcnn")
ROI_ALIGN = 21  # the newest opset of which ONNX Runtime 1.32 has RoiAlign


def registry(striate):
    """Names of all detectors, and one on a classifier."""
    lines = subprocess.run([striate, "models", "--json"], check=True, capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in lines.splitlines()]
    return [row["name"] for row in rows if row["task"] == "detect"] + [ON_CLASSIFIER]


def export(striate, name, model, *flags):
    done = subprocess.run([striate, "export", name, model, *flags], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"export {' '.join(map(str, flags))}: {done.stderr.strip()}")
    onnx.checker.check_model(str(model), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def metadata_of(session):
    metadata = session.get_modelmeta().custom_metadata_map
    return {key: json.loads(metadata[key]) for key in ("class_names", "preprocess", "thresholds")}


def normalised(picture, preprocess):
    """A picture of the file's size as its input."""
    mean, std = (numpy.array(preprocess[key], numpy.float32) for key in ("mean", "std"))
    values = (numpy.asarray(picture, numpy.float32) / 255 - mean) / std
    return values.transpose(2, 0, 1)[None].astype(numpy.float32)


# torchvision's detectors


def of_torchvision(name, net, pictures):
    """Its boxes on pictures; masks as squares inside their boxes."""
    squares = []
    if name.startswith("mask"):
        net.roi_heads.register_forward_hook(lambda _, __, result: squares.extend(r["masks"][:, 0] for r in result[0]))
    with torch.no_grad():
        found = [net([picture])[0] for picture in pictures]
    return [f | {"masks": m} for f, m in zip(found, squares)] if squares else found


def rows_of(boxes, scores, labels, first):
    """As `predict` tells them, with torchvision's labels."""
    return [{"index": int(label) + first, "score": float(score), "xyxy": box.tolist()}
            for box, score, label in zip(boxes, scores, labels) if label >= 0]


def chosen_of(outputs, picture, thresholds, first):
    """What is left of one picture's boxes and scores, chosen by torchvision's suppression."""
    boxes, scores = (torch.from_numpy(output[picture]) for output in outputs)
    classes = scores.shape[1]
    groups = thresholds.get("levels")
    flat = scores.flatten()
    if groups is None:
        places = [torch.arange(label, flat.numel(), classes) for label in range(classes)]
    else:
        ends = numpy.cumsum([0, *groups]) * classes
        places = [torch.arange(start, end) for start, end in zip(ends, ends[1:])]
    kept = []
    for group in places:
        group = group[flat[group] > thresholds["score"]]
        kept.append(group[flat[group].argsort(descending=True, stable=True)[:thresholds["candidates"]]])
    kept = torch.cat(kept)
    corners = boxes.reshape(-1, 4)[kept if boxes.dim() == 3 else kept // classes]
    labels = kept % classes
    left = batched_nms(corners, flat[kept], labels, thresholds["iou"])[:thresholds["max_detections"]]
    return rows_of(corners[left], flat[kept][left], labels[left], first)


def told_of(striate, model, paths, first):
    """What `predict` tells of pictures with a file."""
    command = [striate, "predict", model, *paths, "--conf", "0", "--json"]
    lines = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout.splitlines()
    told = [json.loads(line)["boxes"] for line in lines]
    return [[box | {"index": box["index"] + first} for box in boxes] for boxes in told]


def mask_difference(want, boxes, masks):
    """The largest difference of probabilities, of each of torchvision's boxes from the nearest of the file's."""
    at = abs(boxes[None] - want["boxes"].numpy()[:, None]).max(-1).argmin(1)
    return float(abs(masks[at] - want["masks"].numpy()).max())


class Worst:
    """The largest differences so far."""

    def __init__(self):
        self.boxes = self.scores = self.masks = 0.0

    def add(self, want, got, what):
        try:
            boxes, scores = zoo.compare_boxes(want, got)
        except AssertionError as error:
            raise RuntimeError(f"{what}: {error}") from None
        if boxes > zoo.BOX_LIMIT or scores > zoo.SCORE_LIMIT:
            raise RuntimeError(f"{what}: boxes differ by {boxes:.2e} pixels, scores by {scores:.1e}")
        self.boxes, self.scores = max(self.boxes, boxes), max(self.scores, scores)

    def add_masks(self, difference, what):
        if not difference <= MASK_LIMIT:
            raise RuntimeError(f"{what}: masks differ by {difference:.1e}")
        self.masks = max(self.masks, difference)


def check_chosen(striate, model, session, x, wants, paths, worst):
    """The file with `--nms`."""
    first = 91 - len(metadata_of(session)["class_names"])
    for batch in {1, len(wants)}:
        found = session.run(None, {"images": x[:batch]})
        for picture in range(batch):
            boxes, scores, labels = (output[picture] for output in found[:3])
            worst.add(wants[picture], rows_of(boxes, scores, labels, first), f"--nms, batch {batch}, picture {picture}")
            if "masks" in wants[picture]:
                worst.add_masks(mask_difference(wants[picture], boxes, found[3][picture]), "--nms")
    for want, told in zip(wants, told_of(striate, model, paths, first)):
        worst.add(want, told, "--nms, predict")


def check_all(striate, model, session, x, wants, paths, worst):
    """The file without it."""
    metadata = metadata_of(session)
    first = 91 - len(metadata["class_names"])
    found = session.run(None, {"images": x})
    for picture, want in enumerate(wants):
        worst.add(want, chosen_of(found, picture, metadata["thresholds"], first), f"picture {picture}")
    for want, told in zip(wants, told_of(striate, model, paths, first)):
        worst.add(want, told, "predict")


def check_torchvision(name, arguments, opsets, folder):
    model, weights = folder / "net.onnx", folder / "net.pth"
    side = export(arguments.striate, name, model).get_inputs()[0].shape[-1]
    squares = [Image.open(path).convert("RGB").resize([side, side]) for path in arguments.pictures]
    paths = [folder / f"{index}.png" for index in range(len(squares))]
    for square, path in zip(squares, paths):
        square.save(path)
    pictures = [pil_to_tensor(square).float() / 255 for square in squares]
    net, found = zoo.make(name, types.SimpleNamespace(frozen=False), pictures)
    torch.save(net.state_dict(), weights)
    wants = of_torchvision(name, net, pictures)
    worst = Worst()
    for opset in opsets:
        flags = ["--weights", weights, "--opset", str(opset)]
        session = export(arguments.striate, name, model, "--nms", *flags)
        x = numpy.concatenate([normalised(square, metadata_of(session)["preprocess"]) for square in squares])
        check_chosen(arguments.striate, model, session, x, wants, paths, worst)
        session = export(arguments.striate, name, model, *flags)
        check_all(arguments.striate, model, session, x, wants, paths, worst)
    masks = f", masks to {worst.masks:.1e}" if "masks" in wants[0] else ""
    return f"{found} boxes, corners agree to {worst.boxes:.1e} pixels, scores to {worst.scores:.1e}{masks}"


# others


def random_weights(model, path):
    """Weights for an exported net, with scores all over the range; label 0, where it is the background, is never found."""
    random = numpy.random.default_rng(0)
    values = {}
    for tensor in onnx.load(model).graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if tensor.name.startswith("constant"):
            continue
        if tensor.name.endswith("running_var"):
            array = random.uniform(0.5, 1.5, array.shape)
            count = tensor.name.replace("running_var", "num_batches_tracked")
            values[count] = numpy.zeros([], numpy.int64)
        elif tensor.name.endswith("running_mean") or (tensor.name.endswith("bias") and "head" not in tensor.name):
            array = random.normal(0, 0.1, array.shape)
        elif array.ndim >= 2:
            # Initial values of some heads are so small that the picture is lost in them, and all scores are equal.
            array = random.normal(0, (1 / array[0].size) ** 0.5, array.shape)
        values[tensor.name] = array if array.dtype.kind == "i" else array.astype(numpy.float32)
    numpy.savez(path, **values)


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
    metadata = metadata_of(session)
    names = metadata["class_names"]
    side = session.get_inputs()[0].shape[-1]
    coarse = numpy.random.default_rng(7).integers(0, 256, [side // 10, side // 10, 3], numpy.uint8)
    picture = Image.fromarray(coarse).resize([side, side], Image.Resampling.BICUBIC)
    picture.save(folder / "picture.png")
    command = [striate, "predict", name, "--weights", weights, folder / "picture.png", "--conf", "0", "--json"]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0]
    told = json.loads(line)["boxes"]
    x = normalised(picture, metadata["preprocess"])
    boxes, scores, labels = (array[0] for array in session.run(["boxes", "scores", "labels"], {"images": x}))
    found = labels >= 0
    boxes, scores = boxes[found], scores[found]
    kept = numpy.array([names[label] for label in labels[found]])
    same = 0
    for box in told:
        near = (kept == box["name"]) & (abs(scores - box["score"]) < TOLERANCE)
        same += bool((near & (abs(boxes - numpy.array(box["xyxy"])).max(axis=1, initial=0) < TOLERANCE * side)).any())
    return len(told), same, len(kept)


def check_ours(name, arguments, opsets, folder):
    model, weights = folder / "net.onnx", folder / "net.npz"
    subprocess.run([arguments.striate, "export", name, model], check=True, capture_output=True)
    random_weights(model, weights)
    worst, words = 0.0, []
    for opset in opsets:
        flags = ["--weights", weights, "--opset", str(opset)]
        session = export(arguments.striate, name, model, *flags)
        # Proposals of two stages come in another order where their scores are nearly equal.
        for batch in (1, 2) if name != ON_CLASSIFIER else ():
            worst = max(worst, difference(arguments.striate, model, session, folder, batch))
        if not worst <= TOLERANCE:
            raise RuntimeError(f"opset {opset}: boxes and scores differ by {worst:.1e} of their range")
        session = export(arguments.striate, name, model, "--nms", *flags)
        told, same, kept = partners(arguments.striate, name, weights, session, folder)
        if not told or same < PARTNERS * told or abs(kept - told) > (1 - PARTNERS) * told:
            raise RuntimeError(f"opset {opset}: of {told} boxes that predict tells {same} are among the {kept} of the file")
        words.append(f"{same} of {told}")
    return f"agrees to {worst:.1e}, with --nms {', '.join(words)} boxes"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+", help="picture files, of which two will do")
    parser.add_argument("--striate", default="target/release/striate")
    parser.add_argument("--opsets", default="23")
    parser.add_argument("--only", default="", help="only these detectors")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    names = [name for name in arguments.only.split(",") if name] or registry(arguments.striate)
    asked = [int(opset) for opset in arguments.opsets.split(",")]
    bad = 0
    for name in names:
        start = time.time()
        limit = ROI_ALIGN if name.startswith(TWO_STAGES) else max(asked)
        opsets = sorted({min(opset, limit) for opset in asked})
        check = check_torchvision if name in zoo.NAMES else check_ours
        with tempfile.TemporaryDirectory() as folder:
            try:
                words = check(name, arguments, opsets, pathlib.Path(folder))
            except (AssertionError, RuntimeError, subprocess.CalledProcessError, onnx.checker.ValidationError) as error:
                words, bad = f"WRONG: {getattr(error, 'stderr', None) or error}", bad + 1
        print(f"{name}: opset {opsets}: {words} ({time.time() - start:.0f} s)", flush=True)
    print(f"{len(names) - bad} of {len(names)} detectors agree")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
