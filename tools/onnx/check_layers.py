"""Runs the models that `onnx_layers` (an example of striate-io) writes in ONNX Runtime, and compares.

    cargo run --release -p striate-io --example onnx_layers -- DIR OPSET
    python tools/onnx/check_layers.py DIR

Needs onnx, onnxruntime and numpy. Exit code 1 if any model is malformed or disagrees.
"""

import pathlib
import sys

import numpy
import onnx
import onnxruntime

TOLERANCE = 1e-4  # of the output's range


def difference(path, batch):
    """The largest difference of striate's output and ONNX Runtime's, relative to the range."""
    x = numpy.load(path.with_suffix(f".{batch}.in.npy"))
    wanted = numpy.load(path.with_suffix(f".{batch}.out.npy"))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"images": x})
    if got.shape != wanted.shape:
        return f"shape {got.shape}, wanted {wanted.shape}"
    spread = max(float(wanted.max() - wanted.min()), float(abs(wanted).max()), 1e-30)
    return float(abs(got - wanted).max()) / spread


def main():
    onnxruntime.set_default_logger_severity(3)
    folder = pathlib.Path(sys.argv[1])
    bad = 0
    paths = sorted(folder.glob("*.onnx"))
    for path in paths:
        try:
            onnx.checker.check_model(str(path), full_check=True)
            found = [difference(path, batch) for batch in (1, 3)]
        except Exception as error:  # noqa: BLE001: whatever it is, the model is at fault
            found = [str(error)]
        if any(isinstance(d, str) or not d <= TOLERANCE for d in found):
            bad += 1
            print(f"{path.name}: {found}")
    print(f"{len(paths) - bad} of {len(paths)} models agree")
    sys.exit(1 if bad or not paths else 0)


if __name__ == "__main__":
    main()
