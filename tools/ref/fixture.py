"""Writing and checking fixture files: one .safetensors a family, described by one JSON list in its metadata.

A family is a list of cases. Each case names a PyTorch class, its constructor arguments and its tensors by role; README.md
in this folder is the format's description.
"""

import copy
import inspect
import json
import math
import os

import torch
from safetensors import safe_open
from safetensors.torch import save_file

torch.set_num_threads(1)

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "crates", "striate", "tests", "fixtures")
MASK = (1 << 64) - 1


def fnv1a(text):
    """FNV-1a, 64 bits, of the text's UTF-8 bytes."""
    h = 0xCBF29CE484222325
    for byte in text.encode("utf-8"):
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def seed(name):
    """Every case draws from a generator of its own, so that a new case leaves the others as they were."""
    torch.manual_seed(fnv1a(name) >> 1)


def to_json(value):
    """A constructor argument as JSON: tuples become lists, classes and functions their names, inf the string "inf"."""
    if isinstance(value, (list, tuple, torch.Size)):
        return [to_json(v) for v in value]
    if isinstance(value, dict):
        return {k: to_json(v) for k, v in value.items()}
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if callable(value):
        return getattr(value, "__name__", None) or value.func.__name__
    return value


def arguments(function, *args, **kwargs):
    """All arguments of a call by name, defaults included; where the tensors live (device, dtype) is left out."""
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    names = {k: v for k, v in bound.arguments.items() if k not in ("device", "dtype", "input", "self")}
    return names


class Layer:
    """A module together with the arguments that it was made from."""

    def __init__(self, cls, *args, **kwargs):
        self.name = cls.__name__
        self.args = {k: to_json(v) for k, v in arguments(cls, *args, **kwargs).items() if not torch.is_tensor(v)}
        self.arg_tensors = {k: v for k, v in arguments(cls, *args, **kwargs).items() if torch.is_tensor(v)}
        self.args.update({k: f"tensor:arg/{k}" for k in self.arg_tensors})
        self.make = lambda: cls(*args, **kwargs)
        self.has_repr = True

    def renamed(self, name=None, **args):
        """Says that the module stands for another class or other arguments than it was made from."""
        self.name = name or self.name
        self.args.update(to_json(args))
        self.has_repr = False
        return self


def relative_error(a, b):
    """The largest difference of `a` to the float64 `b`, relative to the root mean square of `b`."""
    if b.numel() == 0:
        return 0.0
    scale = b.double().pow(2).mean().sqrt().item()
    worst = (a.double() - b.double()).abs().max().item()
    return worst / scale if scale > 0 else worst


def randomise(module):
    """Norms get weights and statistics that are not one and zero, or a mistake in them would not be seen."""
    for child in module.modules():
        if not hasattr(child, "eps"):
            continue
        if getattr(child, "weight", None) is not None:
            torch.nn.init.uniform_(child.weight, 0.5, 1.5)
        if getattr(child, "bias", None) is not None:
            torch.nn.init.uniform_(child.bias, -0.5, 0.5)
        if getattr(child, "running_mean", None) is not None:
            child.running_mean.uniform_(-0.5, 0.5)
            child.running_var.uniform_(0.5, 1.5)
            child.num_batches_tracked.fill_(3)


def as_float64(value):
    """The same values in float64, as a leaf that collects a gradient when the original does."""
    if not torch.is_tensor(value):
        return value
    wide = value.detach().clone()
    return wide.double().requires_grad_(value.requires_grad) if value.is_floating_point() else wide


class Family:
    """The cases of one fixture file while it is being made."""

    def __init__(self, name):
        self.name, self.cases, self.tensors, self.worst = name, [], {}, (0.0, "")

    def add(self, case, layer, args, tensors, note="", **more):
        """Adds a case: `tensors` maps a role to a tensor."""
        assert all(c["name"] != case for c in self.cases), f"two cases are called {case}"
        for role, tensor in tensors.items():
            self.tensors[f"{case}/{role}"] = tensor.detach().clone().contiguous()
        self.cases.append(dict(name=case, layer=layer, args=to_json(args), tensors=list(tensors), note=note, **more))

    def layer(self, case, layer, x, mode="train", note="", inputs=None, call=None, params=None, limit=1e-4, **more):
        """Runs a layer forward and backward in float32 and float64 and adds the case.

        `x` is the input, a tensor or a function that makes it once the seed is set; `inputs` are further inputs by
        role (in the order of the call), `call` further arguments of forward, `params` a function that changes the
        module before the run.
        """
        seed(f"{self.name}/{case}")
        module = layer.make()
        randomise(module)
        if params:
            with torch.no_grad():
                params(module)
        module.train(mode == "train")
        x = x() if callable(x) else x
        x = x.detach().clone().requires_grad_(True)
        inputs, call = inputs or {}, call or {}
        t = {"x": x, **inputs, **{f"arg/{k}": v for k, v in layer.arg_tensors.items()}}
        constants = set(layer.arg_tensors)
        t.update({f"param/{k}": v for k, v in module.named_parameters()})
        before = {k: v.clone() for k, v in module.named_buffers() if k not in constants}
        t.update({f"buffer/{k}": v for k, v in before.items()})
        wide = copy.deepcopy(module).double()
        x64, inputs64 = as_float64(x), {k: as_float64(v) for k, v in inputs.items()}
        y, indices = split(module(x, *inputs.values(), **call))
        y64, _ = split(wide(x64, *inputs64.values(), **call))
        dy = torch.randn(y.shape) if y.dim() else torch.rand(()) + 0.5
        (y * dy).sum().backward() if y.dim() == 0 else y.backward(dy)
        (y64 * dy.double()).sum().backward() if y64.dim() == 0 else y64.backward(dy.double())
        t.update({"y": y, "y64": y64, "dy": dy, "dx": x.grad, "dx64": x64.grad})
        if indices is not None:
            t["indices_out"] = indices
        for role, value in inputs.items():
            if value.requires_grad:
                t.update({f"d{role}": value.grad, f"d{role}64": inputs64[role].grad})
        for (k, p), q in zip(module.named_parameters(), wide.parameters()):
            t.update({f"grad/{k}": p.grad, f"grad64/{k}": q.grad})
        wide_buffers = dict(wide.named_buffers())
        for k, v in module.named_buffers():
            if k in before and not torch.equal(v, before[k]):
                t[f"buffer_after/{k}"] = v
                if v.is_floating_point():
                    t[f"buffer_after64/{k}"] = wide_buffers[k]
        self.compare(case, t, limit)
        if layer.has_repr:
            more["repr"] = repr(module)
        self.add(case, layer.name, layer.args, t, note, mode=mode, **({"call": to_json(call)} if call else {}), **more)

    def compare(self, case, tensors, limit):
        """PyTorch's float32 must be near its float64: it is not where the data sits on a kink or a pole."""
        for role, tensor in tensors.items():
            head, _, tail = role.partition("/")
            twin = f"{head}64/{tail}" if tail else f"{head}64"
            if twin in tensors:
                error = relative_error(tensor, tensors[twin])
                assert error <= limit, f"{self.name}/{case}: {role} differs from float64 by {error:.2e}"
                self.worst = max(self.worst, (error, f"{case} {role}"))

    def save(self, may_be_infinite=False):
        """Writes the file and reads it back."""
        os.makedirs(FOLDER, exist_ok=True)
        path = os.path.join(FOLDER, f"{self.name}.safetensors")
        text = json.dumps(self.cases, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
        save_file(self.tensors, path, metadata={"cases": text})
        os.chmod(path, 0o644)
        check_file(path, self.tensors, may_be_infinite)
        size = os.path.getsize(path) / 1024
        print(f"{self.name:18} {len(self.cases):4} cases {size:7.1f} KiB  worst float32 error {self.worst[0]:.1e} "
              f"({self.worst[1]})", flush=True)


def split(output):
    """A layer's output as (value, indices or None)."""
    return output if isinstance(output, tuple) else (output, None)


def same_bits(a, b):
    """Equality that also holds for NaN."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


PAIRS = [("y", "dy"), ("y", "y64"), ("x", "dx"), ("x", "dx64")]


def check_file(path, expected=None, may_be_infinite=False):
    """Reads a fixture file back: every tensor is named by a case, finite, and as large as its counterparts."""
    with safe_open(path, framework="pt") as file:
        cases = json.loads(file.metadata()["cases"])
        keys = set(file.keys())
        used = {f"{c['name']}/{role}" for c in cases for role in c["tensors"]}
        assert used == keys, f"{path}: tensors of no case or missing: {sorted(used ^ keys)[:5]}"
        assert len({c["name"] for c in cases}) == len(cases), f"{path}: a name is there twice"
        for case in cases:
            tensors = {role: file.get_tensor(f"{case['name']}/{role}") for role in case["tensors"]}
            for role, tensor in tensors.items():
                where = f"{path}: {case['name']}/{role}"
                if expected is not None:
                    assert same_bits(tensor, expected[f"{case['name']}/{role}"]), where
                assert may_be_infinite or not tensor.is_floating_point() or tensor.isfinite().all(), where
            pairs = PAIRS + [(f"param/{r[5:]}", r) for r in tensors if r.startswith("grad/")]
            pairs += [(f"param/{r[7:]}", r) for r in tensors if r.startswith("grad64/")]
            pairs += [(f"buffer/{r[13:]}", r) for r in tensors if r.startswith("buffer_after/")]
            for a, b in pairs:
                if "y" in tensors and a in tensors and b in tensors:
                    assert tensors[a].shape == tensors[b].shape, f"{path}: {case['name']}: {a} and {b}"
    return len(cases)
