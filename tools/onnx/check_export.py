"""Exports nets with `striate export` and runs them in ONNX Runtime beside `striate run`.

    cargo build --release
    python tools/onnx/check_export.py [--striate target/release/striate] [--opsets 13,18,21] [MODEL ...]

Without names it takes every net of the registry but detectors (check_detectors.py). Each gets random weights and random batch-norm statistics through a safetensors
file, is exported, checked by `onnx.checker`, and run for a batch of 1 and of 3; outputs must agree to 1e-4 of their range.

Needs onnx, onnxruntime, safetensors and numpy. Exit code 1 if any net disagrees.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import onnx
import onnxruntime
import safetensors.numpy

TOLERANCE = 1e-4  # of the output's range


def registry(striate):
    """Names of all nets but detectors, which check_detectors.py looks at."""
    lines = subprocess.run([striate, "models", "--json"], check=True, capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in lines.splitlines()]
    return [row["name"] for row in rows if row["task"] != "detect"]


def random_weights(model, path):
    """Weights for an exported net: values that keep the activations in range, statistics that are not 0 and 1."""
    random = numpy.random.default_rng(0)
    values = {}
    for tensor in onnx.load(model).graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if tensor.name.startswith("constant"):
            continue
        if tensor.name.endswith("running_var"):
            array = random.uniform(0.5, 1.5, array.shape)
        elif array.ndim == 1:
            array = random.uniform(0.5, 1.5, array.shape) if tensor.name.endswith("weight") else random.normal(0, 0.1, array.shape)
        values[tensor.name] = array.astype(numpy.float32)
    safetensors.numpy.save_file(values, path)


def side_of(model):
    """Channels, height and width of the exported input."""
    return [d.dim_value for d in onnx.load(model, load_external_data=False).graph.input[0].type.tensor_type.shape.dim][1:]


def difference(striate, name, weights, model, folder, batch):
    """The largest difference, relative to the range of striate's output."""
    x = numpy.random.default_rng(batch).normal(0, 1, [batch, *side_of(model)]).astype(numpy.float32)
    numpy.save(folder / "x.npy", x)
    run = [striate, "run", name, "--weights", weights, "--input", folder / "x.npy", "--output", folder / "out"]
    subprocess.run(run, check=True, capture_output=True)
    wanted = numpy.load(folder / "out" / "0.npy")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"images": x})
    if got.shape != wanted.shape:
        return f"shape {got.shape}, wanted {wanted.shape}"
    return float(abs(got - wanted).max() / max(wanted.max() - wanted.min(), 1e-30))


def check(striate, name, opsets, folder):
    """What is wrong with a net's export, if anything, and the largest difference."""
    model, weights = folder / "net.onnx", folder / "net.safetensors"
    subprocess.run([striate, "export", name, model], check=True, capture_output=True)
    random_weights(model, weights)
    worst = 0.0
    for opset in opsets:
        command = [striate, "export", name, model, "--weights", weights, "--opset", str(opset)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return f"opset {opset}: {done.stderr.strip()}", worst
        onnx.checker.check_model(str(model), full_check=True)
        for batch in (1, 3):
            found = difference(striate, name, weights, model, folder, batch)
            if isinstance(found, str) or not found <= TOLERANCE:
                return f"opset {opset}, batch {batch}: {found}", worst
            worst = max(worst, found)
    return None, worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--striate", default="target/release/striate")
    parser.add_argument("--opsets", default="13,18,21")
    parser.add_argument("models", nargs="*")
    arguments = parser.parse_args()
    names = arguments.models or registry(arguments.striate)
    opsets = [int(opset) for opset in arguments.opsets.split(",")]
    bad = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                wrong, worst = check(arguments.striate, name, opsets, pathlib.Path(folder))
            except (subprocess.CalledProcessError, onnx.checker.ValidationError) as error:
                wrong, worst = getattr(error, "stderr", None) or str(error), 0.0
        bad += wrong is not None
        print(f"{name}: {wrong or f'agrees to {worst:.1e}'}", flush=True)
    print(f"{len(names) - bad} of {len(names)} nets agree")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
