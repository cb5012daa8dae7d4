"""What torchvision's non-maximum suppression keeps. Writes crates/striate-vision/tests/fixtures/nms.json: a list of {"iou", "boxes":
[[x1, y1, x2, y2, class, score]], "nms": places of what `nms` keeps, best first, "batched": of what `batched_nms` keeps}. Scores are
all different: between equal ones torchvision's order is its sort's.
"""

import json
import os

import torch
from torchvision.ops import batched_nms, nms

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "crates", "striate-vision", "tests", "fixtures")
torch.manual_seed(0)
cases = []
for index in range(40):
    n = [0, 1, 7, 40, 80][index % 5]
    # Eighths, so that overlaps of exactly the threshold occur and decimals are short.
    corners = torch.randint(0, 400, (n, 2)) / 8
    sides = torch.randint(0 if index % 3 else 40, 240, (n, 2)) / 8
    boxes = torch.cat([corners, corners + sides], 1).float()
    scores = (torch.randperm(n) + 1).float() / 128
    classes = torch.randint(0, 3, (n,))
    iou = [0.3, 0.5, 0.75][index % 3]
    rows = [[*b, c, s] for b, c, s in zip(boxes.tolist(), classes.tolist(), scores.tolist())]
    kept = {"nms": nms(boxes, scores, iou).tolist(), "batched": batched_nms(boxes, scores, classes, iou).tolist()}
    cases.append({"iou": iou, "boxes": rows, **kept})
path = os.path.join(FOLDER, "nms.json")
with open(path, "w") as file:
    json.dump(cases, file, separators=(",", ":"))
print(len(cases), "cases,", os.path.getsize(path) // 1024, "KiB,", sum(len(c["boxes"]) for c in cases), "boxes, kept",
      sum(len(c["nms"]) for c in cases), "and by class", sum(len(c["batched"]) for c in cases))
