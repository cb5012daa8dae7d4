"""torchvision's detectors: raw heads and training losses of prepared batches in float64, and what some find on pictures.

Weights, batches, pictures and truths are by formula (README.md). The heads are in evaluation mode and thinned; the losses in training
mode. Of the first stage of two-stage detectors there are the heads alone; what both stages find is held against float32. Their losses
are of samples of all candidates, with ellipses in the boxes as masks.
"""

import copy

import numpy as np
import torch
from torchvision.models import detection
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import box_iou

import reference_models as ref
from fixture import Family, fnv1a

# By the shape of the batch.
NETS = {
    "ssdlite320_mobilenet_v3_large": [2, 3, 320, 320], "ssd300_vgg16": [1, 3, 300, 300], "retinanet_resnet50_fpn": [2, 3, 96, 128],
    "retinanet_resnet50_fpn_v2": [2, 3, 96, 128], "fcos_resnet50_fpn": [2, 3, 96, 128],
    "fasterrcnn_mobilenet_v3_large_320_fpn": [1, 3, 160, 192], "fasterrcnn_resnet50_fpn_v2": [1, 3, 64, 96],
    "maskrcnn_resnet50_fpn": [1, 3, 64, 96],
}
# Detectors that are tried on whole pictures, of these heights and widths.
WHOLE = {"ssdlite320_mobilenet_v3_large": [(90, 120), (64, 64)], "fasterrcnn_mobilenet_v3_large_320_fpn": [(90, 120)]}
CLASSES, OBJECTS, SAMPLES = 10, 3, 400

f = Family("detectors")


def make(name):
    """A detector of ten classes by formula, and the parameters that are not."""
    net = detection.__dict__[name](weights=None, weights_backbone=None, num_classes=CLASSES)
    ref.fill_by_formula(net)
    # What stands behind a branch beside an identity is small, or deep sums would grow.
    filled = {key: 0.3 for key, _ in net.named_parameters() if key.endswith("bn3.weight")}
    if "mobilenet_v3_large_320" in name:
        # Nor would proposals of large features have an area.
        filled["backbone.body.13.block.3.1.weight"] = 0.002
    if name == "ssd300_vgg16":
        filled["backbone.scale_weight"] = 20.0
    with torch.no_grad():
        for key, value in filled.items():
            net.get_parameter(key).fill_(value)
    return net, filled


def truths(key, batch, height, width):
    """So many boxes a picture, in its pixels, with classes from 1 on; the last picture of several has one box less."""
    found = []
    for picture in range(batch):
        u = ref.formula(f"truth.{key}.{picture}", (OBJECTS, 5), 1.0) + 0.5
        w, h = 8 + u[:, 2] * (width / 2 - 8), 8 + u[:, 3] * (height / 2 - 8)
        x, y = u[:, 0] * (width - w), u[:, 1] * (height - h)
        count = OBJECTS - (1 if picture > 0 else 0)
        boxes = torch.stack([x, y, x + w, y + h], 1)[:count]
        found.append({"boxes": boxes, "labels": (1 + (u[:, 4] * (CLASSES - 1)).floor()).long()[:count]})
    return found


def raw_heads(name, net, x):
    features = net.backbone(x)
    maps = list(features.values())
    if not hasattr(net, "roi_heads"):
        heads = net.head(maps)
        return maps, {key: heads[key] for key in (["bbox_regression", "cls_logits"] if name.startswith("ssd") else list(heads))}
    n = x.shape[0]
    objectness, offsets = concat_box_prediction_layers(*net.rpn.head(maps))
    return maps, {"objectness": objectness.reshape(n, -1, 1), "pred_bbox_deltas": offsets.reshape(n, -1, 4)}


def ellipses(boxes, height, width):
    x, y = torch.arange(width) + 0.5, torch.arange(height)[:, None] + 0.5
    x1, y1, x2, y2 = boxes[:, :, None, None].unbind(1)
    off = ((x - (x1 + x2) / 2) / ((x2 - x1) / 2)) ** 2 + ((y - (y1 + y2) / 2) / ((y2 - y1) / 2)) ** 2
    return (off < 1).to(torch.uint8)


def two_stage_losses(net, x, targets):
    for stage in (net.rpn, net.roi_heads):
        stage.fg_bg_sampler = BalancedPositiveNegativeSampler(1 << 20, 0.5)
    features = net.backbone(x)
    images = ImageList(x, [tuple(x.shape[-2:])] * x.shape[0])
    targets = [t | {"boxes": t["boxes"].to(x.dtype), "masks": ellipses(t["boxes"], *x.shape[-2:])} for t in targets]
    proposals, of_first = net.rpn(images, features, targets)
    _, of_second = net.roi_heads(features, proposals, images.image_sizes, targets)
    return of_second | of_first


def losses(name, net, x, targets):
    maps, heads = raw_heads(name, net, x)
    sizes = [tuple(x.shape[-2:])] * x.shape[0]
    anchors = net.anchor_generator(ImageList(x, sizes), maps)
    targets = [{"boxes": t["boxes"].to(x.dtype), "labels": t["labels"]} for t in targets]
    if name.startswith("ssd"):
        matched = [net.proposal_matcher(box_iou(t["boxes"], a.to(x.dtype))) for t, a in zip(targets, anchors)]
        return net.compute_loss(targets, heads, anchors, matched)
    if name.startswith("fcos"):
        return net.compute_loss(targets, heads, anchors, [m.shape[2] * m.shape[3] for m in maps])
    return net.compute_loss(targets, heads, anchors)


def thinned(value):
    flat = value.detach().flatten()
    return flat[:: max(1, flat.numel() // SAMPLES)].clone()


def add_heads(name, net, filled, shape):
    wide = copy.deepcopy(net).double().eval()
    x = ref.images("0", tuple(shape))
    with torch.no_grad():
        _, heads = raw_heads(name, wide, x.double())
    tensors = {f"{key}64": thinned(value) for key, value in heads.items()}
    targets = truths(name, shape[0], *shape[2:])
    if hasattr(net, "roi_heads"):
        found = two_stage_losses(wide.train(), x.double(), targets)
    else:
        found = losses(name, wide.train(), x.double(), targets)
    tensors["losses64"] = torch.stack([value.detach() for value in found.values()])
    for index, target in enumerate(targets):
        tensors[f"boxes.{index}"], tensors[f"labels.{index}"] = target["boxes"], target["labels"]
    f.add(name, name, dict(num_classes=CLASSES), tensors, "README.md: Numbers by formula, Detectors", input_shape=shape, filled=filled,
          heads={key: list(value.shape) for key, value in heads.items()},
          names=f"{fnv1a(' '.join(net.state_dict())):016x}", losses=list(found))


def class_biases(name, net):
    if name.startswith("ssd"):
        return [f"head.classification_head.module_list.{i}.1.bias" for i in range(6)]
    return ["roi_heads.box_predictor.cls_score.bias"]


def add_whole(name, net, filled, index, size):
    """The background's biases are lowered until 20 to 60 boxes are found."""
    net = copy.deepcopy(net).eval()
    picture = ref.formula(f"picture.{index}", (3, *size), 1.0) + 0.5
    start = {key: net.get_parameter(key).detach().clone() for key in class_biases(name, net)}
    low, high = -40.0, 40.0
    for _ in range(30):
        lowered = np.float32((low + high) / 2)
        with torch.no_grad():
            for key, bias in start.items():
                shifted = bias.clone()
                shifted.view(-1, CLASSES)[:, 0] -= float(lowered)
                net.get_parameter(key).copy_(shifted)
            found = net([picture])[0]
        if 20 <= len(found["scores"]) <= 60:
            break
        low, high = (low, lowered) if len(found["scores"]) > 60 else (lowered, high)
    else:
        raise AssertionError(f"{name}: no shift gives 20 to 60 boxes, the last {len(found['scores'])}")
    f.add(f"{name}_whole_{index}", name, dict(num_classes=CLASSES), {key: found[key] for key in ("boxes", "scores", "labels")},
          "README.md: Numbers by formula, Detectors", picture=[f"picture.{index}", *size], filled=filled, lowered=float(lowered),
          class_biases=class_biases(name, net))


for name, shape in NETS.items():
    net, filled = make(name)
    add_heads(name, net, filled, shape)
    for index, size in enumerate(WHOLE.get(name, [])):
        add_whole(name, net, filled, index, size)

f.save()
