"""What PIL and torchvision make of small pictures: transforms and decoding. Writes
crates/striate-vision/tests/fixtures/pictures.safetensors.

The tensors are bytes. Each entry of the metadata's `cases` is {"name", "op", "args", "x", "y"}; `x` and `y` are keys: pictures
[H, W, C], or for the op `decode` a file's bytes [N]. An op `refuse` has no `y`.
"""

import io
import json
import os

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps
from safetensors.numpy import save_file
from torchvision.transforms import functional as F
from torchvision.transforms.functional import InterpolationMode as Mode

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "crates", "striate-vision", "tests", "fixtures")
MODES = {"nearest": Mode.NEAREST, "bilinear": Mode.BILINEAR, "bicubic": Mode.BICUBIC}
PIL_MODES = {"nearest": Image.NEAREST, "bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}

rng = np.random.default_rng(7)
cases, tensors = [], {}


def picture(height, width, channels):
    """Waves with noise and a hard edge, so that each filter has something to do."""
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for c in range(channels):
        plane = 128 + 90 * np.sin(x / (3.1 + c)) * np.cos(y / (4.3 - c)) + rng.normal(0, 18, (height, width))
        plane[: height // 3, width // 2 :] = 255 - 30 * c
        plane[height // 2 :, : width // 4] = 10 * c
        planes.append(np.clip(plane, 0, 255).astype(np.uint8))
    return np.stack(planes, -1)


def to_pil(array):
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def to_array(image):
    array = np.asarray(image)
    return np.ascontiguousarray(array[..., None] if array.ndim == 2 else array)


SOURCES = {"rgb": picture(29, 37, 3), "grey": picture(31, 23, 1), "square": picture(24, 24, 3)}
SOURCES["dark"] = (picture(20, 18, 3) // 3 + 40).astype(np.uint8)


def add(op, args, source, result):
    name = f"{op}/{len(cases):03}"
    tensors[f"{name}/y"] = to_array(result)
    cases.append(dict(name=name, op=op, args=args, x=f"source/{source}", y=f"{name}/y"))


for key, array in SOURCES.items():
    tensors[f"source/{key}"] = array

for source in ("rgb", "grey"):
    image = to_pil(SOURCES[source])
    for mode in MODES:
        for size in ((11, 13), (64, 50), (29, 14), (40, 37), (8, 60), (1, 1), (31, 9)):
            add("resize", [size[0], size[1], mode], source, F.resize(image, size, MODES[mode]))
        for side in (16, 45):
            add("shorter", [side, mode], source, F.resize(image, side, MODES[mode]))
    for side in (20, 15, 24, 34, 36):
        add("center_crop", [side], source, F.center_crop(image, side))
    for mode in ("constant", "edge", "reflect", "symmetric"):
        add("pad", [3, 5, 7, 2, mode], source, F.pad(image, [3, 5, 7, 2], fill=9 if mode == "constant" else 0, padding_mode=mode))
    add("hflip", [], source, F.hflip(image))
    add("vflip", [], source, F.vflip(image))

for source in ("rgb", "grey", "square"):
    image = to_pil(SOURCES[source])
    for mode in MODES:
        for angle in (0.0, 17.3, -44.0, 90.0, 180.0, 270.0, 133.7):
            for expand in (False, True):
                add("rotate", [angle, expand, mode], source, F.rotate(image, angle, MODES[mode], expand=expand, fill=50))
        for angle, translate, scale, shear in (
            (12.0, (3, -2), 1.1, (0.0, 0.0)),
            (-30.0, (0, 0), 0.7, (10.0, -7.0)),
            (0.0, (5, 4), 1.0, (0.0, 0.0)),
            (0.0, (0, 0), 1.0, (25.0, 0.0)),
        ):
            result = F.affine(image, angle, list(translate), scale, list(shear), MODES[mode], fill=50)
            add("affine", [angle, *translate, scale, *shear, mode], source, result)
    add("shear_origin", [20.0], source, F.affine(image, 0.0, [0, 0], 1.0, [20.0, 0.0], center=[0, 0]))

for source in ("rgb", "grey", "dark"):
    image = to_pil(SOURCES[source])
    for op, function in (
        ("brightness", F.adjust_brightness),
        ("contrast", F.adjust_contrast),
        ("saturation", F.adjust_saturation),
        ("sharpness", F.adjust_sharpness),
    ):
        for factor in (0.0, 0.35, 0.9, 1.0, 1.4, 1.99):
            add(op, [factor], source, function(image, factor))
    for factor in (-0.5, -0.13, 0.0, 0.08, 0.31):
        add("hue", [factor], source, F.adjust_hue(image, factor))
    for bits in (1, 4, 7):
        add("posterize", [bits], source, F.posterize(image, bits))
    for threshold in (0.0, 100.3, 255.0):
        add("solarize", [threshold], source, F.solarize(image, threshold))
    add("autocontrast", [], source, F.autocontrast(image))
    add("equalize", [], source, F.equalize(image))
    add("grayscale", [], source, F.to_grayscale(image))

# Enough pixels for the histogram's step of equalize to matter.
big = picture(60, 70, 3)
tensors["source/big"] = big
add("equalize", [], "big", F.equalize(to_pil(big)))


def add_file(what, data, expected=None, tolerance=0):
    name = f"{'decode' if expected is not None else 'refuse'}/{what}"
    tensors[f"{name}/x"] = np.frombuffer(data, np.uint8)
    case = dict(name=name, op=name.split("/")[0], args=[tolerance], x=f"{name}/x")
    if expected is not None:
        tensors[f"{name}/y"] = expected
        case["y"] = f"{name}/y"
    cases.append(case)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


rgb, grey = SOURCES["rgb"], SOURCES["grey"]
smooth = to_array(to_pil(rgb).resize((48, 40), Image.BICUBIC))
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind, options, tolerance in (("JPEG", {"quality": 95, "subsampling": 0}, 3), ("PNG", {}, 0), ("WEBP", {"lossless": True}, 0)):
        data = saved(to_pil(smooth), kind, exif=exif, **options)
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        add_file(f"orientation-{orientation}-{kind.lower()}", data, to_array(upright), tolerance)
add_file("grey-jpeg", saved(to_pil(grey), "JPEG", quality=95), to_array(Image.open(io.BytesIO(saved(to_pil(grey), "JPEG", quality=95)))), 2)
add_file("progressive-jpeg", saved(to_pil(smooth), "JPEG", quality=95, subsampling=0, progressive=True),
         to_array(Image.open(io.BytesIO(saved(to_pil(smooth), "JPEG", quality=95, subsampling=0, progressive=True)))), 3)
add_file("grey-png", saved(to_pil(grey), "PNG"), grey)
add_file("rgb-bmp", saved(to_pil(rgb), "BMP"), rgb)
alpha = np.concatenate([rgb, rng.integers(0, 256, rgb.shape[:2] + (1,), dtype=np.uint8)], -1)
add_file("rgba-png", saved(Image.fromarray(alpha), "PNG"), rgb)
add_file("la-png", saved(Image.fromarray(np.concatenate([grey, 255 - grey], -1), "LA"), "PNG"), grey)
palette = to_pil(rgb).quantize(17)
add_file("palette-png", saved(palette, "PNG"), to_array(palette.convert("RGB")))
add_file("palette-alpha-png", saved(palette, "PNG", transparency=3), to_array(palette.convert("RGB")))
bits = to_pil(grey).convert("1", dither=Image.NONE)
add_file("bilevel-png", saved(bits, "PNG"), to_array(bits.convert("L")))
wide = grey[..., 0].astype(np.uint16) * 257
add_file("grey16-png", saved(Image.fromarray(wide), "PNG"), grey)

jpeg = saved(to_pil(smooth), "JPEG", quality=95)
png = saved(to_pil(smooth), "PNG")
add_file("gif", saved(palette, "GIF"))
add_file("empty", b"\0")
add_file("text-called-jpg", b"not a picture at all\n")
add_file("html-called-jpg", b"<!DOCTYPE html><title>404</title>")
add_file("fake-jpeg", b"\xff\xd8\xff\xe0" + rng.integers(0, 256, 400, dtype=np.uint8).tobytes())
for part in (0.05, 0.3, 0.6, 0.95, 0.999):
    add_file(f"truncated-{part}-jpeg", jpeg[: int(len(jpeg) * part)])
    add_file(f"truncated-{part}-png", png[: int((len(png) - 16) * part)])
webp = saved(to_pil(smooth), "WEBP", lossless=True)
add_file("truncated-webp", webp[: len(webp) // 2])
bmp = saved(to_pil(smooth), "BMP")
add_file("truncated-bmp", bmp[: len(bmp) // 2])

os.makedirs(FOLDER, exist_ok=True)
path = os.path.join(FOLDER, "pictures.safetensors")
save_file(tensors, path, metadata={"cases": json.dumps(cases, separators=(",", ":"))})
print(f"{len(cases)} cases, {os.path.getsize(path) / 1024:.0f} KiB, Pillow {PIL.__version__}, torch {torch.__version__}")
