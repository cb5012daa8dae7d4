"""What pycocotools says of random and adversarial detections. Writes crates/striate-vision/tests/fixtures/coco_eval.json: a list
of {"name", "images", "categories", "gt": [[image, category, x, y, width, height, area, iscrowd, id]], "dt": [[image, category, x, y,
width, height, score]], "stats": the twelve numbers, "classes": AP, AP50 and AP75 of each class}; -1 is pycocotools' own.

Needs numpy and pycocotools alone: python coco_eval.py
"""

import contextlib
import io
import json
import os

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "crates", "striate-vision", "tests", "fixtures")
# Areas that decide the class of size lie on and beside its borders.
SIDES = [1, 8, 16, 31, 32, 33, 64, 95, 96, 97, 200]
KINDS = ["plain", "ties", "crowds", "borders", "empty", "many", "no_truth", "strangers", "huge", "exact"]


def box(rng, kind):
    if kind == "borders":
        w, h = rng.choice(SIDES, 2)
    elif kind == "huge":
        w, h = rng.integers(1, 3000, 2)
    else:
        w, h = rng.integers(4, 120, 2)
    x, y = rng.integers(0, 200, 2)
    scale = 1.0 if kind in ("borders", "ties", "exact") else 0.25
    return [float(x) * scale, float(y) * scale, float(w) * max(scale, 0.5), float(h) * max(scale, 0.5)]


def near(rng, at, kind):
    """A box beside a true one: the same, moved, or cut so that the overlap is just at a threshold."""
    x, y, w, h = at
    how = rng.integers(0, 4)
    if how == 0 or kind == "exact":
        # Overlaps of exactly 0.50, 0.55, …
        return [x, y, w * float(rng.integers(9, 21)) / 20, h]
    if how == 1:
        return list(at)
    move = rng.integers(-8, 9, 4) / 4
    return [x + float(move[0]), y + float(move[1]), max(w + float(move[2]), 0.25), max(h + float(move[3]), 0.25)]


def case(index):
    rng = np.random.default_rng(index)
    kind = KINDS[index % len(KINDS)]
    images = sorted(rng.choice(1000, rng.integers(1, 6), replace=False).tolist())
    categories = sorted(rng.choice(90, rng.integers(1, 5), replace=False).tolist())
    gt, dt = [], []
    ids = rng.permutation(200) + 1
    for image in images:
        if kind == "empty" and rng.random() < 0.5:
            continue
        for _ in range(rng.integers(0, 9)):
            b = box(rng, kind)
            # The thing itself is smaller than its box, and so may be of another size.
            area = b[2] * b[3] * float(rng.choice([1.0, 1.0, 0.5]))
            if kind == "borders":
                area = float(rng.choice([1023.9, 1024.0, 1024.1, 9215.9, 9216.0, 9216.1, area]))
            crowd = int(kind == "crowds" and rng.random() < 0.4)
            if kind != "no_truth" or rng.random() < 0.1:
                gt.append([image, int(rng.choice(categories)), *b, area, crowd, int(ids[len(gt)])])
    scores = [0.25, 0.5, 0.5, 0.75] if kind == "ties" else None
    for image in images:
        if kind == "empty" and rng.random() < 0.5:
            continue
        here = [g for g in gt if g[0] == image]
        count = rng.integers(90, 130) if kind == "many" and image == images[0] else rng.integers(0, 16)
        for _ in range(count):
            score = float(rng.choice(scores)) if scores else float(rng.integers(1, 200)) / 200
            if here and rng.random() < 0.7:
                g = here[rng.integers(len(here))]
                category = g[1] if rng.random() < 0.85 else int(rng.choice(categories))
                if kind == "many":
                    category = categories[0]
                dt.append([image, category, *near(rng, g[2:6], kind), score])
            else:
                category = 91 if kind == "strangers" and rng.random() < 0.5 else int(rng.choice(categories))
                dt.append([image, category, *box(rng, kind), score])
    if not dt:
        # loadRes refuses an empty list.
        dt.append([images[0], categories[0], 0.0, 0.0, 5.0, 5.0, 0.5])
    rng.shuffle(dt)
    dt = [[int(d[0]), int(d[1]), *map(float, d[2:])] for d in dt]
    return {"name": f"{kind}_{index}", "images": images, "categories": categories, "gt": gt, "dt": dt}


def judge(c):
    truth = COCO()
    truth.dataset = {
        "images": [{"id": i} for i in c["images"]],
        "categories": [{"id": i, "name": str(i)} for i in c["categories"]],
        "annotations": [
            {"id": g[8], "image_id": g[0], "category_id": g[1], "bbox": g[2:6], "area": g[6], "iscrowd": g[7]} for g in c["gt"]
        ],
    }
    truth.createIndex()
    found = truth.loadRes([{"image_id": d[0], "category_id": d[1], "bbox": d[2:6], "score": d[6]} for d in c["dt"]])
    judged = COCOeval(truth, found, "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    precision = judged.eval["precision"]

    def mean(values):
        values = values[values > -1]
        return float(np.mean(values)) if len(values) else -1.0

    c["stats"] = [float(s) for s in judged.stats]
    c["classes"] = [
        [mean(precision[:, :, k, 0, 2]), mean(precision[0, :, k, 0, 2]), mean(precision[5, :, k, 0, 2])]
        for k in range(len(c["categories"]))
    ]
    return c


with contextlib.redirect_stdout(io.StringIO()):
    cases = [judge(case(index)) for index in range(200)]
path = os.path.join(FOLDER, "coco_eval.json")
with open(path, "w") as file:
    json.dump(cases, file, separators=(",", ":"))
spread = np.array([c["stats"] for c in cases])
print(len(cases), "cases,", os.path.getsize(path) // 1024, "KiB; mean of each number where it is not -1:")
print([round(float(spread[:, i][spread[:, i] > -1].mean()), 3) for i in range(12)], (spread == -1).sum(0).tolist())
