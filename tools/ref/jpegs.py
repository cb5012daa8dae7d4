"""JPEG files of every kind that PIL writes, with the pixels that PIL (libjpeg-turbo) reads out of them. Writes
crates/striate-vision/tests/fixtures/jpegs.safetensors: for each name `NAME/file` [bytes] and `NAME/pixels` [H, W, C].
"""

import io
import os

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "crates", "striate-vision", "tests", "fixtures")
rng = np.random.default_rng(11)
tensors = {}


def picture(height, width):
    """Coloured waves, hard edges and noise: chroma that changes within a sample."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [128 + 100 * np.sin(x / (2.3 + c) + c) * np.cos(y / (3.1 - 0.5 * c)) for c in range(3)]
    image = np.stack(planes, -1) + rng.normal(0, 25, (height, width, 3))
    image[height // 3 : height // 2, width // 4 : width // 2] = (255, 0, 40)
    return np.clip(image, 0, 255).astype(np.uint8)


def add(name, image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    put(name, buffer.getvalue())


def put(name, file):
    image = Image.open(io.BytesIO(file))
    pixels = np.asarray(image.convert("RGB") if image.mode == "CMYK" else image)
    tensors[f"{name}/file"] = np.frombuffer(file, np.uint8)
    tensors[f"{name}/pixels"] = np.ascontiguousarray(pixels if pixels.ndim == 3 else pixels[..., None])


for size in [(1, 1), (2, 3), (3, 2), (5, 4), (8, 8), (16, 16), (17, 15), (33, 47), (40, 31)]:
    image = Image.fromarray(picture(*size))
    for subsampling in (0, 1, 2):
        add(f"s{subsampling}-{size[0]}x{size[1]}", image, quality=90, subsampling=subsampling)
image = Image.fromarray(picture(45, 59))
for quality in (5, 30, 75, 100):
    for subsampling in (0, 1, 2):
        for progressive in (False, True):
            add(f"q{quality}-s{subsampling}-{progressive}", image, quality=quality, subsampling=subsampling, progressive=progressive)
    add(f"q{quality}-grey", image.convert("L"), quality=quality)
    add(f"q{quality}-grey-progressive", image.convert("L"), quality=quality, progressive=True)
add("optimised", image, quality=80, optimize=True)
add("restart-blocks", image, quality=80, restart_marker_blocks=3)
add("restart-rows", image, quality=80, restart_marker_rows=1, progressive=True)
add("rgb", image, quality=80, keep_rgb=True)
# CMYK: the bytes of a picture in four inks; PIL writes transform 0
inks = Image.fromarray(np.concatenate([picture(29, 37), picture(29, 37)[..., :1]], -1), "CMYK")
cmyk = {}
for quality, options in ((30, {}), (90, {}), (85, {"progressive": True}), (75, {"restart_marker_blocks": 2})):
    name = "-".join(["cmyk", str(quality), *options])
    add(name, inks, quality=quality, **options)
    cmyk[name] = tensors[f"{name}/file"].tobytes()
for name, file in cmyk.items():
    # the same data as luma, chromas and black, and without a word of Adobe's
    at = file.index(b"Adobe")
    put(f"{name}-ycck", file[: at + 11] + b"\2" + file[at + 12 :])
    put(f"{name}-unnamed", file[: at - 4] + file[at + 12 :])
save_file(tensors, os.path.join(FOLDER, "jpegs.safetensors"))
print(len(tensors) // 2, "files")
