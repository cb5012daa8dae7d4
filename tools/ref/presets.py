"""What torchvision says of its published weights. Writes crates/striate-vision/tests/fixtures/presets.json: for each file that
belongs to a convolutional classifier or segmentation net its name, net, name of the weights, whether they are the default, and
the preprocessing of `weights.transforms()`.
"""

import json
import os

import torchvision.models as models

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "crates", "striate-vision", "tests", "fixtures")
NOT_OURS = ("vit_", "swin_", "maxvit")
rows = []
for name in models.list_models(module=models) + models.list_models(module=models.segmentation):
    if name.startswith(NOT_OURS):
        continue
    kinds = models.get_model_weights(name)
    for weights in kinds:
        preset = weights.transforms()
        rows.append(
            {
                "model": name,
                "weights": weights.name,
                "is_default": weights is kinds.DEFAULT,
                "file": weights.url.rsplit("/", 1)[1],
                "resize": preset.resize_size[0],
                "crop": preset.crop_size[0] if hasattr(preset, "crop_size") else None,
                "interpolation": preset.interpolation.value,
                "mean": preset.mean,
                "std": preset.std,
                "classes": weights.meta["categories"] if name == "resnet18" else None,
            }
        )
with open(os.path.join(FOLDER, "presets.json"), "w") as file:
    json.dump(rows, file, indent=0)
print(len(rows), "weights")
