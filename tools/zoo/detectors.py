"""torchvision's detectors against striate: the same random weights, the same pictures, the same heads and boxes.

    python detectors.py PICTURE PICTURE … [--striate target/release/striate] [--only WORD,WORD] [--frozen]
    python detectors.py PICTURE PICTURE --losses [--only WORD,WORD]

For each detector torchvision's own net gets random weights and batch-norm statistics of the pictures, disturbed; the biases of its class
head are shifted until each picture has 20 to 100 boxes. Its state dict is saved as .pth. Then

- `striate run` computes the raw heads of each prepared picture: they may differ by 1e-4 of their range;
- `striate predict` finds the boxes on the pictures' files: corners may differ by 0.05 pixels and scores by 1e-4; boxes whose scores are
  closer than 1e-5 may come in another order.

`--frozen` gives the backbone torchvision's frozen norms, as its detectors have them when they start from weights. Exit status 1 if
anything differs. A detector of 800 pixels takes about a minute and 3 GiB on one core.

`--losses` compares the training losses instead, with plain norms and, where torchvision's detector can have them, with frozen ones: a
batch of the first two pictures brought to one small size, with five boxes on one and three on the other (and ellipses as masks), in
training mode. The samplers of both sides are larger than the number of candidates, so that nothing is drawn. Each loss may differ by
1e-4 of its value. It needs `cargo build --release -p striate-vision --example detector_losses` beside the binary.
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
from PIL import Image
from torchvision.models import detection
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou
from torchvision.transforms.functional import pil_to_tensor

HEAD_LIMIT, BOX_LIMIT, SCORE_LIMIT, TIE = 1e-4, 0.05, 1e-4, 1e-5
LOSS_LIMIT = 1e-4
FEWEST, MOST, ATTEMPTS = 20, 100, 8
# Part of the proposals of random weights that rounding may decide otherwise.
OTHER_PROPOSALS = 0.01
NAMES = [
    "ssdlite320_mobilenet_v3_large", "ssd300_vgg16", "retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2", "maskrcnn_resnet50_fpn",
]
FREEZES = ("retinanet_resnet50_fpn", "fcos_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn",
           "fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn")


def freeze(module):
    """Puts frozen norms in the place of a backbone's batch norms, with their values."""
    for name, child in module.named_children():
        if isinstance(child, torch.nn.BatchNorm2d):
            frozen = torchvision.ops.FrozenBatchNorm2d(child.num_features, child.eps)
            frozen.load_state_dict({k: v for k, v in child.state_dict().items() if k != "num_batches_tracked"})
            setattr(module, name, frozen)
        else:
            freeze(child)


def randomise(net, x):
    """Weights by He's rule, and of batch norms the statistics of these pictures, disturbed: activations neither vanish nor explode."""
    for name, p in net.named_parameters():
        if p.dim() >= 2:
            torch.nn.init.normal_(p, std=(2.0 / p[0].numel()) ** 0.5)
        elif name.endswith("bias"):
            torch.nn.init.normal_(p, std=0.1)
        elif not name.endswith("scale_weight"):
            torch.nn.init.uniform_(p, 0.5, 1.5)
    # What stands behind a branch beside an identity is small, or deep sums would grow.
    for m in net.modules():
        if isinstance(m, torchvision.models.resnet.Bottleneck):
            torch.nn.init.uniform_(m.bn3.weight, 0.1, 0.4)
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.momentum = 1.0
    net.backbone.train()
    with torch.no_grad():
        features = net.backbone(x)
    net.eval()
    for m, momentum in zip(norms, momenta):
        m.momentum = momentum
        m.running_var.mul_(torch.empty_like(m.running_var).uniform_(0.7, 1.4)).add_(1e-3)
        m.running_mean.add_(0.2 * m.running_var.sqrt() * torch.randn_like(m.running_mean))
    return list(features.values())


def shift(biases, group, amount):
    """Makes boxes likelier: the background less likely, or each class more likely by itself."""
    with torch.no_grad():
        for bias in biases:
            if group:
                bias.view(-1, group)[:, 0] -= amount
            else:
                bias += amount


def class_layers(name, net):
    """The layers that give the classes, and how many of their values are softened together (0: none)."""
    if name.startswith("ssd"):
        modules = net.head.classification_head.module_list
        return [m if isinstance(m, torch.nn.Conv2d) else m[-1] for m in modules], 91
    if hasattr(net, "roi_heads"):
        return [net.roi_heads.box_predictor.cls_score], 91
    return [net.head.classification_head.cls_logits], 0


def scale_to(layers, deviation, net, pictures):
    """Weights of layers so that what they give has this deviation on these pictures."""
    seen = []
    hooks = [layer.register_forward_hook(lambda _, __, y: seen.append(y.detach().flatten())) for layer in layers]
    with torch.no_grad():
        for picture in pictures:
            net([picture])
        factor = deviation / float(torch.cat(seen).std())
        for hook in hooks:
            hook.remove()
        for layer in layers:
            layer.weight.mul_(factor)


def scale_heads(name, net, pictures):
    """Offsets so small that boxes stay near their anchors, and scores of which few stand out and none is rounded to 1."""
    offsets = [m for path, m in net.named_modules() if hasattr(m, "weight")
               and any(word in path for word in ("bbox_reg", "bbox_pred", "regression_head.module_list")) and m.weight.dim() >= 2]
    for layer in offsets:
        with torch.no_grad():
            layer.weight.mul_(0.1)
    if hasattr(net, "rpn"):
        scale_to([net.rpn.head.cls_logits], 1.5, net, pictures)
        scale_to([net.rpn.head.bbox_pred], 0.2, net, pictures)
        scale_to([net.roi_heads.box_predictor.bbox_pred], 0.5, net, pictures)
    scale_to(class_layers(name, net)[0], 2.0, net, pictures)


def finder(name, net, picture):
    """How many boxes the net would find with its class biases shifted: everything before is computed once."""
    images, _ = net.transform([picture])
    features = net.backbone(images.tensors)
    sizes, (_, group) = images.image_sizes, class_layers(name, net)

    def shifted(logits, amount):
        return logits - amount * (torch.arange(group) == 0) if group else logits + amount

    if hasattr(net, "roi_heads"):
        proposals, _ = net.rpn(images, features)
        pooled = net.roi_heads.box_head(net.roi_heads.box_roi_pool(features, proposals, sizes))
        logits, offsets = net.roi_heads.box_predictor(pooled)
        find = net.roi_heads.postprocess_detections
        return lambda amount: len(find(shifted(logits, amount), offsets, proposals, sizes)[0][0])
    maps = list(features.values())
    heads, anchors = net.head(maps), net.anchor_generator(images, maps)
    if name.startswith("ssd"):
        find = net.postprocess_detections
        return lambda amount: len(find(heads | {"cls_logits": shifted(heads["cls_logits"], amount)}, anchors, sizes)[0]["boxes"])
    each = heads["cls_logits"].shape[1] // sum(m.shape[2] * m.shape[3] for m in maps)
    levels = [m.shape[2] * m.shape[3] * each for m in maps]

    def count(amount):
        moved = heads | {"cls_logits": shifted(heads["cls_logits"], amount)}
        split = {key: list(value.split(levels, dim=1)) for key, value in moved.items()}
        return len(net.postprocess_detections(split, [list(a.split(levels)) for a in anchors], sizes)[0]["boxes"])

    return count


def settle(name, net, pictures):
    """Shifts the class biases until each picture has 20 to 100 boxes; gives their numbers, or nothing where no shift does it."""
    layers, group = class_layers(name, net)
    with torch.no_grad():
        finders = [finder(name, net, picture) for picture in pictures]
        low, high = -60.0, 60.0
        for _ in range(24):
            amount = (low + high) / 2
            found = [count(amount) for count in finders]
            if all(FEWEST <= n < MOST for n in found):
                shift([layer.bias for layer in layers], group, amount)
                return found
            if max(found) >= MOST and min(found) < FEWEST:
                return None
            low, high = (low, amount) if max(found) >= MOST else (amount, high)
    return None


def make(name, args, pictures):
    """A random detector that finds 20 to 100 boxes in each picture, and how many; where one draw has none such, the next is taken."""
    for attempt in range(ATTEMPTS):
        torch.manual_seed(sum(name.encode()) + attempt)
        net = detection.__dict__[name](weights=None, weights_backbone=None).eval()
        with torch.no_grad():
            prepared = net.transform([p.clone() for p in pictures])[0].tensors
        if prepared.shape[-1] > 400:
            prepared = torch.nn.functional.interpolate(prepared, scale_factor=0.25)
        randomise(net, prepared)
        scale_heads(name, net, pictures)
        if args.frozen:
            freeze(net.backbone)
        found = settle(name, net, pictures)
        if found:
            return net, found
    raise AssertionError(f"{ATTEMPTS} draws of weights, and no shift gives each picture {FEWEST} to {MOST} boxes")


def raw_heads(name, net, x, sizes):
    """torchvision's heads of a prepared batch, in the order of striate's outputs."""
    features = net.backbone(x)
    if not hasattr(net, "roi_heads"):
        heads = net.head(list(features.values()))
        order = ["bbox_regression", "cls_logits"] if name.startswith("ssd") else list(heads)
        return {key: heads[key] for key in order}
    images = ImageList(x, sizes)
    objectness, offsets = net.rpn.head(list(features.values()))
    flat, flat_offsets = detection.rpn.concat_box_prediction_layers(objectness, offsets)
    n = len(sizes)
    found = {"objectness": flat.reshape(n, -1, 1), "pred_bbox_deltas": flat_offsets.reshape(n, -1, 4)}
    proposals, _ = net.rpn(images, features)
    pooled = net.roi_heads.box_roi_pool(features, proposals, sizes)
    logits, regression = net.roi_heads.box_predictor(net.roi_heads.box_head(pooled))
    found |= {"proposals": proposals[0], "class_logits": logits, "box_regression": regression}
    if net.roi_heads.has_mask():
        result = net.roi_heads(features, proposals, sizes)[0][0]
        found |= {"boxes": result["boxes"], "masks": result["masks"][:, 0]}
    return found


def relative(got, want):
    """The largest difference, relative to the range."""
    assert np.isfinite(want).all() and want.max() > want.min(), "torchvision's own output is not finite or constant"
    return float(np.abs(got - want).max() / (want.max() - want.min()))


def compare_masks(boxes, masks, folder):
    """The largest difference of probabilities, of each of torchvision's boxes from the nearest of striate's."""
    logits, corners, _, labels = (np.load(folder / f"{i}.npy") for i in (6, 7, 8, 9))
    far = np.abs(corners[0][None, :, :] - boxes[:, None, :]).max(-1)
    at = far.argmin(1)
    assert far.min(1).max() <= BOX_LIMIT, "a box is not found"
    mine = 1 / (1 + np.exp(-logits[at, labels[0][at]]))
    return {"masks": float(np.abs(mine - masks).max())}


def compare_heads(name, net, args, folder, picture):
    with torch.no_grad():
        images, _ = net.transform([picture])
        # `run` knows nothing of padding: proposals are clipped to the whole batch.
        whole = [tuple(images.tensors.shape[-2:])]
        want = {k: v.numpy() for k, v in raw_heads(name, net, images.tensors, whole).items()}
    np.save(folder / "x.npy", images.tensors.numpy())
    run = [args.striate, "run", name, "--weights", folder / "w.pth", "--input", folder / "x.npy", "--output", folder / "out"]
    subprocess.run([str(part) for part in run], check=True, stdout=subprocess.DEVNULL)
    worst = compare_masks(want.pop("boxes"), want.pop("masks"), folder / "out") if "masks" in want else {}
    got = [np.load(folder / "out" / f"{i}.npy") for i in range(len(want))]
    for (key, value), mine in zip(want.items(), got):
        if key in ("proposals", "class_logits", "box_regression"):
            mine = mine.reshape(-1, mine.shape[-1])
        if key == "proposals":
            # Of nearly equal scores either may come first, and an overlap within rounding of the threshold may fall on either side.
            distance = np.abs(mine[None, :, :] - value[:, None, :]).max(-1)
            at, same = distance.argmin(1), distance.min(1) <= BOX_LIMIT
            worst["other proposals"] = float(1 - same.mean())
            continue
        if key in ("class_logits", "box_regression"):
            mine, value = mine[at][same], value[same]
        assert mine.shape == value.shape, f"{key}: {mine.shape} instead of {value.shape}"
        worst[key] = relative(mine, value)
    return worst


def compare_boxes(want, got):
    """Largest differences of corners and scores; boxes are matched in order, within runs of scores that are nearly equal."""
    boxes, scores, labels = (want[key].numpy() for key in ("boxes", "scores", "labels"))
    assert len(got) == len(scores), f"{len(got)} boxes instead of {len(scores)}"
    free = list(range(len(got)))
    worst = [0.0, 0.0]
    for box, score, label in zip(boxes, scores, labels):
        near = [i for i in free if got[i]["index"] == label and abs(got[i]["score"] - score) <= SCORE_LIMIT]
        assert near, f"no box of class {label} with a score of {score:.6f}"
        best = min(near, key=lambda i: np.abs(np.array(got[i]["xyxy"]) - box).max())
        free.remove(best)
        worst[0] = max(worst[0], float(np.abs(np.array(got[best]["xyxy"]) - box).max()))
        worst[1] = max(worst[1], abs(got[best]["score"] - float(score)))
    order = [row["score"] for row in got]
    assert all(a >= b - TIE for a, b in zip(order, order[1:])), "the boxes do not come in the order of their scores"
    return worst


def check(name, args, pictures, folder):
    net, found = make(name, args, pictures)
    torch.save(net.state_dict(), folder / "w.pth")
    heads = {}
    for picture in pictures:
        for key, value in compare_heads(name, net, args, folder, picture).items():
            heads[key] = max(heads.get(key, 0.0), value)
    command = [args.striate, "predict", name, *args.pictures, "--weights", folder / "w.pth", "--conf", "0", "--json"]
    lines = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout
    worst = [0.0, 0.0]
    with torch.no_grad():
        for picture, line in zip(pictures, lines.splitlines()):
            far = compare_boxes(net([picture])[0], json.loads(line)["boxes"])
            worst = [max(a, b) for a, b in zip(worst, far)]
    text = ", ".join(f"{key} {value:.1e}" for key, value in heads.items())
    print(f"{name:38} {found} boxes; {text}; corners {worst[0]:.1e} px, scores {worst[1]:.1e}", end="", flush=True)
    limits = {"other proposals": OTHER_PROPOSALS}
    wrong = [f"{k} {v:.1e}" for k, v in heads.items() if not v <= limits.get(k, HEAD_LIMIT)]
    wrong += [f"corners {worst[0]:.1e}"] if not worst[0] <= BOX_LIMIT else []
    return wrong + ([f"scores {worst[1]:.1e}"] if not worst[1] <= SCORE_LIMIT else [])


def side_of(name):
    """Height and width of the batch of the losses."""
    return {"ssd300_vgg16": (300, 300), "ssdlite320_mobilenet_v3_large": (320, 320)}.get(name, (256, 320))


def loss_batch(name, net, pictures):
    """Two pictures of one size, prepared as the net does, and what is on them."""
    height, width = side_of(name)
    resized = [torch.nn.functional.interpolate(p[None], (height, width), mode="bilinear", antialias=True) for p in pictures[:2]]
    mean, std = (torch.tensor(values)[:, None, None] for values in (net.transform.image_mean, net.transform.image_std))
    random = np.random.default_rng(0)
    targets = []
    for count in (5, 3):
        size = random.uniform(0.1, 0.6, (count, 2)) * [width, height]
        corner = random.uniform(0, 1, (count, 2)) * ([width, height] - size)
        boxes = torch.tensor(np.concatenate([corner, corner + size], 1), dtype=torch.float32)
        labels = torch.tensor(random.integers(1, 91, count))
        targets.append({"boxes": boxes, "labels": labels, "masks": ellipses(boxes, height, width)})
    return (torch.cat(resized) - mean) / std, targets


def ellipses(boxes, height, width):
    """The ellipse in each box, as its mask."""
    x, y = torch.arange(width) + 0.5, torch.arange(height)[:, None] + 0.5
    x1, y1, x2, y2 = boxes[:, :, None, None].unbind(1)
    off = ((x - (x1 + x2) / 2) / ((x2 - x1) / 2)) ** 2 + ((y - (y1 + y2) / 2) / ((y2 - y1) / 2)) ** 2
    return (off < 1).to(torch.uint8)


def their_losses(name, net, x, targets):
    """torchvision's losses in training mode, of a batch that is prepared already."""
    images = ImageList(x, [tuple(x.shape[-2:])] * len(x))
    features = net.backbone(x)
    if hasattr(net, "roi_heads"):
        for stage in (net.rpn, net.roi_heads):
            stage.fg_bg_sampler = BalancedPositiveNegativeSampler(1 << 20, 0.5)
        proposals, of_first = net.rpn(images, features, targets)
        _, of_second = net.roi_heads(features, proposals, images.image_sizes, targets)
        return of_second | of_first
    maps = list(features.values())
    heads, anchors = net.head(maps), net.anchor_generator(images, maps)
    if name.startswith("ssd"):
        matched = [net.proposal_matcher(box_iou(t["boxes"], a)) for t, a in zip(targets, anchors)]
        return net.compute_loss(targets, heads, anchors, matched)
    if name.startswith("fcos"):
        return net.compute_loss(targets, heads, anchors, [m.shape[2] * m.shape[3] for m in maps])
    return net.compute_loss(targets, heads, anchors)


def our_losses(name, args, x, targets, folder):
    most = max(len(t["boxes"]) for t in targets)
    padded = {key: torch.stack([torch.nn.functional.pad(t[key], [0, 0] * (t[key].dim() - 1) + [0, most - len(t[key])],
                                                        value=-1 if key == "labels" else 0) for t in targets])
              for key in ("boxes", "labels", "masks")}
    files = {"x": x, "boxes": padded["boxes"], "labels": padded["labels"]}
    files |= {"masks": padded["masks"].float()} if name.startswith("mask") else {}
    for key, value in files.items():
        np.save(folder / f"{key}.npy", value.numpy())
    command = [Path(args.striate).parent / "examples" / "detector_losses", name, folder / "w.pth"]
    command += [folder / f"{key}.npy" for key in files]
    return json.loads(subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout)


def check_losses(name, args, pictures, frozen, folder):
    """A line of the table for each loss, and what is wrong."""
    torch.manual_seed(sum(name.encode()))
    net = detection.__dict__[name](weights=None, weights_backbone=None).eval()
    if not name.startswith("ssd"):
        net.transform.min_size = (min(side_of(name)),)
    x, targets = loss_batch(name, net, pictures)
    randomise(net, x)
    scale_heads(name, net, pictures)
    if frozen:
        freeze(net.backbone)
    torch.save(net.state_dict(), folder / "w.pth")
    with torch.no_grad():
        want = {key: float(value) for key, value in their_losses(name, net.train(), x, targets).items()}
    got = our_losses(name, args, x, targets, folder)
    assert want.keys() == got.keys(), f"losses {sorted(got)} instead of {sorted(want)}"
    wrong = []
    for key, value in want.items():
        assert np.isfinite(value) and value > 0, f"torchvision's own {key} is {value}"
        off = abs(got[key] - value) / value
        print(f"{name:38} {'frozen' if frozen else 'plain':7} {key:18} {value:12.6f} {got[key]:12.6f} {off:9.1e}", flush=True)
        wrong += [] if off <= LOSS_LIMIT else [f"{key} differs by {off:.1e}"]
    return wrong


def all_losses(names, args, pictures):
    """What is wrong with the losses of these detectors."""
    failures = []
    print(f"{'model':38} {'norm':7} {'loss':18} {'torchvision':>12} {'striate':>12} {'relative':>9}")
    for name in names:
        for frozen in (False, True) if name in FREEZES else (False,):
            try:
                with tempfile.TemporaryDirectory() as folder:
                    wrong = check_losses(name, args, pictures, frozen, Path(folder))
            except (AssertionError, subprocess.CalledProcessError) as error:
                wrong = [f"{error} {getattr(error, 'stderr', None) or ''}"]
            failures += [f"{name}, {'frozen' if frozen else 'plain'}: {text}" for text in wrong]
    return failures


def all_boxes(names, args, pictures):
    """What is wrong with the heads and boxes of these detectors."""
    failures = []
    for name in names:
        if args.frozen and name not in FREEZES:
            continue
        start = time.time()
        try:
            with tempfile.TemporaryDirectory() as folder:
                wrong = check(name, args, pictures, Path(folder))
        except (AssertionError, subprocess.CalledProcessError) as error:
            wrong = [str(error)]
            print(f"{name:38} ", end="")
        failures += [f"{name}: {text}" for text in wrong]
        print(f"  ({time.time() - start:.0f} s) {'; '.join(wrong) or 'ok'}", flush=True)
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("pictures", nargs="+", help="picture files, of which three will do")
    parser.add_argument("--striate", default="target/release/striate")
    parser.add_argument("--only", default="", help="only detectors whose name contains one of these words")
    parser.add_argument("--frozen", action="store_true", help="frozen norms in the backbones that may have them")
    parser.add_argument("--losses", action="store_true", help="the training losses instead of heads and boxes")
    args = parser.parse_args()
    if args.losses and len(args.pictures) < 2:
        parser.error("--losses takes two pictures")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    pictures = [pil_to_tensor(Image.open(path).convert("RGB")).float() / 255 for path in args.pictures]
    names = [name for name in NAMES if any(word in name for word in args.only.split(","))]
    failures = (all_losses if args.losses else all_boxes)(names, args, pictures)
    print(f"{len(failures)} failure(s)", *failures, sep="\n")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
