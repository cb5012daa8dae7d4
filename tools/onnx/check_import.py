"""Runs models of others through `striate run`, and holds the outputs against those of their makers.

    cargo build --release
    python tools/onnx/check_import.py cases [--striate target/release/striate] [FOLDER ...]
    python tools/onnx/check_import.py zoo [--exporter legacy|dynamo|both] [--size N] [MODEL ...]
    python tools/onnx/check_import.py files MODEL.onnx ...

`cases`: ONNX's own test cases, folders with `model.onnx` and `test_data_set_*`; without folders those of Debian's
`libonnx-testdata`. What is not promised (other operators, types that arrays lack, sequences) is counted by its reason.
`zoo`: torchvision's models with random weights, exported by `torch.onnx.export`, beside PyTorch: 1e-4 of the output's range.
`files`: any models, beside ONNX Runtime on a random picture; open sizes are taken as `--size`.

Needs numpy and onnx; `zoo` torch, torchvision (and onnxscript for the newer exporter); `files` onnxruntime. Exit code 1 if anything
disagrees.
"""

import argparse
import collections
import io
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy
import onnx
import onnx.numpy_helper

DEBIAN = pathlib.Path("/usr/share/libonnx-testdata/data")
PARTS = ("node", "pytorch-converted", "pytorch-operator", "simple")
TOLERANCE = 1e-4  # of the output's range
TYPES = {
    onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.INT8, onnx.TensorProto.INT16,
    onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.UINT8, onnx.TensorProto.BOOL,
}  # fmt: skip
OPERATORS = set(
    """Conv ConvTranspose MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool MaxUnpool BatchNormalization
    InstanceNormalization LayerNormalization GroupNormalization LRN Relu LeakyRelu PRelu Elu Selu Celu Sigmoid HardSigmoid Tanh
    Softplus Softsign HardSwish Mish Gelu Clip ThresholdedRelu Swish Add Sub Mul Div Pow Mod Min Max Sum Mean Abs Neg Sign Exp Log
    Sqrt Reciprocal Sin Cos Erf Floor Ceil Round Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor Not MatMul Gemm Concat
    Split Slice Gather GatherElements GatherND ScatterND ScatterElements Transpose Reshape Flatten Squeeze Unsqueeze Expand Tile Pad
    Resize Upsample DepthToSpace SpaceToDepth Softmax LogSoftmax Hardmax ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd
    ReduceSumSquare ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ArgMax ArgMin TopK Cast CastLike Shape Size Constant
    ConstantOfShape Range Where NonZero Identity Dropout NonMaxSuppression RoiAlign GridSample CumSum QuantizeLinear
    DequantizeLinear QLinearConv ConvInteger OneHot Trilu EyeLike If""".split()
)


def run(striate, model, inputs, folder):
    """Outputs of `striate run`, or the message with which it refuses. A crash is an error of its own."""
    out = folder / "out"
    for old in out.glob("*.npy") if out.exists() else []:
        old.unlink()
    command = [striate, "run", model, "--output", out]
    for index, (name, array) in enumerate(inputs):
        path = folder / f"in{index}.npy"
        numpy.save(path, array)
        command += ["--input", f"{name}={path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode not in (0, 2, 3, 5):
        raise AssertionError(f"exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    if done.returncode:
        return done.stderr.strip()
    return [numpy.load(out / f"{index}.npy") for index in range(len(list(out.glob("*.npy"))))]


def difference(got, wanted):
    """The largest difference, of the range of what is wanted."""
    if got.shape != wanted.shape:
        return f"shape {got.shape} instead of {wanted.shape}"
    if not wanted.size:
        return 0.0
    got, wanted = got.astype(numpy.float64), wanted.astype(numpy.float64)
    return float(abs(got - wanted).max() / max(wanted.max() - wanted.min(), 1e-30))


def all_nodes(nodes):
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from all_nodes(attribute.g.node)


def not_ours(model):
    """Why a case asks for what is not promised."""
    functions = {function.name for function in model.functions}
    bodies = [node for function in model.functions for node in function.node]
    for node in [*all_nodes(model.graph.node), *bodies]:
        if node.op_type not in OPERATORS | functions:
            return f"operator {node.op_type}"
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
            return "dropout that drops"
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i not in TYPES:
                return f"type {onnx.TensorProto.DataType.Name(attribute.i)}"
    for info in [*model.graph.input, *model.graph.output]:
        kind = info.type.tensor_type.elem_type
        if not info.type.HasField("tensor_type"):
            return "sequences and optional values"
        if kind not in TYPES:
            return f"type {onnx.TensorProto.DataType.Name(kind)}"
    for tensor in model.graph.initializer:
        if tensor.data_type not in TYPES:
            return f"type {onnx.TensorProto.DataType.Name(tensor.data_type)}"
    return None


def arrays(folder, prefix):
    found = []
    while (path := folder / f"{prefix}_{len(found)}.pb").exists():
        tensor = onnx.TensorProto()
        tensor.ParseFromString(path.read_bytes())
        found.append(onnx.numpy_helper.to_array(tensor))
    return found


def case(striate, path, folder):
    """None where a case passes, else what is wrong."""
    model = onnx.load(path / "model.onnx", load_external_data=False)
    given = {tensor.name for tensor in model.graph.initializer}
    names = [info.name for info in model.graph.input if info.name not in given]
    for data in sorted(path.glob("test_data_set_*")):
        outputs = run(striate, path / "model.onnx", list(zip(names, arrays(data, "input"))), folder)
        if isinstance(outputs, str):
            return outputs
        for index, (got, wanted) in enumerate(zip(outputs, arrays(data, "output"), strict=True)):
            if got.dtype != wanted.dtype or got.shape != wanted.shape:
                return f"output {index}: {got.dtype} {got.shape} instead of {wanted.dtype} {wanted.shape}"
            if not numpy.allclose(got.astype(numpy.float64), wanted.astype(numpy.float64), 1e-3, 1e-7, equal_nan=True):
                return f"output {index}: other values"
    return None


def check_cases(striate, roots, folder):
    roots = [pathlib.Path(root) for root in roots] or [DEBIAN / part for part in PARTS]
    failed, passed, others = [], 0, collections.Counter()
    for path in sorted(model.parent for root in roots for model in root.glob("*/model.onnx")):
        excuse = not_ours(onnx.load(path / "model.onnx", load_external_data=False))
        try:
            why = None if excuse and excuse.startswith("sequences") else case(striate, path, folder)
        except AssertionError as crash:
            why, excuse = f"CRASH {crash}", None
        except (TypeError, ValueError, NotImplementedError) as error:
            why = f"cannot be tried: {error}"
        if excuse and why or excuse == "sequences and optional values":
            others[excuse] += 1
        elif why:
            failed.append(f"{path.name}: {why}")
        else:
            passed += 1
    print(f"{passed} passed, {len(failed)} failed, {sum(others.values())} not for us:")
    for reason, count in others.most_common():
        print(f"  {count:4} {reason}")
    for line in failed:
        print("FAILED", line)
    return not failed


def export(model, x, path, dynamo):
    import torch

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        sink = io.StringIO()
        stdout, sys.stdout = sys.stdout, sink
        try:
            if dynamo:
                torch.onnx.export(model, (x,), str(path), dynamo=True, verbose=False)
            else:
                torch.onnx.export(model, (x,), str(path), dynamo=False, opset_version=17)
        finally:
            sys.stdout = stdout


def check_zoo(striate, names, exporters, size, folder):
    import torch
    import torchvision

    everything = torchvision.models.list_models(module=torchvision.models) + torchvision.models.list_models(
        module=torchvision.models.segmentation
    )
    if not names:
        listed = subprocess.run([striate, "models", "--json"], check=True, capture_output=True, text=True).stdout
        known = {__import__("json").loads(line)["name"] for line in listed.splitlines()}
        names = [name for name in everything if name in known]
    good = True
    for name in names:
        torch.manual_seed(0)
        extra = {"weights_backbone": None} if name in torchvision.models.list_models(module=torchvision.models.segmentation) else {}
        extra |= {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(name, weights=None, **extra).eval()
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
            elif buffer_name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
        side = max(size, 75 if name == "inception_v3" else 64)
        side = max(side, 224) if name in ("alexnet",) or name.startswith("vgg") else side
        x = torch.randn(1, 3, side, side)
        with torch.no_grad():
            wanted = model(x)
        wanted = list(wanted.values()) if isinstance(wanted, dict) else [wanted]
        for exporter in exporters:
            path = folder / f"{name}.onnx"
            try:
                export(model, x, path, exporter == "dynamo")
            except Exception as error:  # the exporter's own affair
                print(f"{name:28} {exporter:7} cannot be exported: {str(error).splitlines()[0][:100]}")
                continue
            input_name = onnx.load(path, load_external_data=False).graph.input[0].name
            outputs = run(striate, path, [(input_name, x.numpy())], folder)
            if isinstance(outputs, str):
                verdict, fine = outputs, False
            else:
                found = [difference(got, want.numpy()) for got, want in zip(outputs, wanted)]
                fine = all(isinstance(d, float) and d <= TOLERANCE for d in found)
                verdict = ", ".join(d if isinstance(d, str) else f"{d:.1e}" for d in found)
            good &= fine
            print(f"{name:28} {exporter:7} {'ok  ' if fine else 'WRONG'} {verdict}", flush=True)
            for file in folder.glob(f"{name}.onnx*"):
                file.unlink()
    return good


def picture(random, shape):
    """Dark bars and spots on a bright ground: where nothing is to be found, a detector's output has no range to compare by."""
    values = random.uniform(0.9, 1.0, shape)
    height, width = shape[-2:] if len(shape) > 1 else (1, shape[-1] if shape else 1)
    for _ in range(height * width // 200 if len(shape) == 4 else 0):
        y, x = random.integers(0, height), random.integers(0, width)
        values[..., y : y + random.integers(2, 6), x : x + random.integers(2, 12)] = random.uniform(0, 0.2)
    return values


def check_files(striate, paths, size, folder):
    import onnxruntime

    good = True
    for path in paths:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        random = numpy.random.default_rng(0)
        inputs = []
        for info in session.get_inputs():
            defaults = [1, 3, size, size] if len(info.shape) == 4 else [1] * len(info.shape)
            shape = [d if isinstance(d, int) and d > 0 else default for d, default in zip(info.shape, defaults)]
            kind = {"tensor(float)": "f4", "tensor(double)": "f8", "tensor(uint8)": "u1", "tensor(int64)": "i8"}[info.type]
            values = picture(random, shape)
            values = 2 * values - 1 if kind[0] == "f" else numpy.floor(255 * values)
            inputs.append((info.name, values.astype(kind)))
        wanted = session.run(None, dict(inputs))
        outputs = run(striate, path, inputs, folder)
        if isinstance(outputs, str):
            verdict, fine = outputs, False
        else:
            found = [difference(got, want) for got, want in zip(outputs, wanted)]
            fine = all(isinstance(d, float) and d <= TOLERANCE for d in found)
            verdict = ", ".join(d if isinstance(d, str) else f"{d:.1e}" for d in found)
        good &= fine
        print(f"{pathlib.Path(path).name:40} {'ok  ' if fine else 'WRONG'} {verdict}", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cases", "zoo", "files"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--striate", default="target/release/striate")
    parser.add_argument("--exporter", default="both", choices=["legacy", "dynamo", "both"])
    parser.add_argument("--size", type=int, default=64)
    args = parser.parse_intermixed_args()
    exporters = ["legacy", "dynamo"] if args.exporter == "both" else [args.exporter]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if args.what == "cases":
            good = check_cases(args.striate, args.names, folder)
        elif args.what == "zoo":
            good = check_zoo(args.striate, args.names, exporters, args.size, folder)
        else:
            good = check_files(args.striate, args.names, args.size, folder)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
