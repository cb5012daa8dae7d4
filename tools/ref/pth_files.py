"""Small files as torch.save writes them, in every layout, and what must be read from them.

Writes crates/striate-io/tests/fixtures/pth/NAME.pth and, for all of them, expected.safetensors with keys `NAME/ARRAY`. Unsigned
integers wider than 8 bits are expected as striate reads them (uint16 as int32). `python pth_files.py --check FILE.pth FILE.safetensors`
compares a file that striate wrote with what safetensors reads, through torch.load(weights_only=True).
"""

import argparse
import collections
import io
import os
import pathlib
import sys
import zipfile

import torch
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "crates", "striate-io", "tests", "fixtures", "pth")
expected = {}


def net():
    torch.manual_seed(1)
    made = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(2, 3, bias=False))
    made[1].running_var.uniform_(0.5, 2)
    return made


class Config:
    """A class that no reader of weights has."""

    def __init__(self):
        self.depth = 3
        self.names = ["a", "b"]


class WithState:
    def __setstate__(self, state):
        self.__dict__.update(state)


def put(name, value, arrays, **options):
    """One file in both layouts, unless one is asked for."""
    layouts = options.pop("layouts", ("zip", "legacy"))
    for layout in layouts:
        file = f"{name}_{layout}"
        torch.save(value, os.path.join(FOLDER, file + ".pth"), _use_new_zipfile_serialization=layout == "zip", **options)
        for key, array in arrays.items():
            array = array.detach()
            array = array.to({torch.uint16: torch.int32, torch.uint32: torch.int64}.get(array.dtype, array.dtype))
            expected[f"{file}/{key}"] = array.clone().contiguous()


def dtypes():
    base = torch.tensor([[0.0, 1.0, -2.5], [3.25, 100.0, -0.0]])
    kinds = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int16, torch.int32, torch.int64,
             torch.uint8, torch.bool]
    arrays = {str(kind).split(".")[1]: base.abs().to(kind) for kind in kinds}
    put("dtypes", arrays, arrays)
    unsigned = {"uint16": torch.tensor([1, 65535]).to(torch.uint16), "uint32": torch.tensor([7, 4294967295]).to(torch.uint32)}
    put("unsigned", unsigned, unsigned)


def shapes():
    torch.manual_seed(2)
    big = torch.randn(4, 5, 6)
    flat = torch.arange(10.0)
    weight = torch.randn(3, 2)
    arrays = {
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(2, 0, 3),
        "transposed": big.permute(2, 0, 1),
        "slice": big[1:3, ::2, 1],
        "expanded": torch.tensor([[1.0], [2.0]]).expand(2, 4),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "view_of_view": flat[3:9].view(2, 3)[1],
        "other_view": flat[::3],
        "tied_a": weight,
        "tied_b": weight,
        "one_by_one": torch.randn(1, 1).t(),
    }
    put("shapes", arrays, arrays)
    put("tensor", torch.randn(2, 3), {})
    for layout in ("zip", "legacy"):
        expected[f"tensor_{layout}/array"] = torch.load(os.path.join(FOLDER, f"tensor_{layout}.pth"))
    put("list", [weight, (flat[:2], {"deep": weight})], {"0": weight, "1.0": flat[:2], "1.1.deep": weight}, layouts=("zip",))


def checkpoints():
    model = net()
    values = model.state_dict()
    put("plain", values, values)
    optimizer = torch.optim.Adam(model.parameters())
    model[0](torch.randn(1, 1, 5, 5)).sum().backward()
    optimizer.step()
    values = collections.OrderedDict((key, value.clone()) for key, value in model.state_dict().items())
    others = {
        "epoch": 12,
        "best": 0.75,
        "huge": 1 << 70,
        "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("/data"), when=[None, True]),
        "config": Config(),
        "optimizer": optimizer.state_dict(),
        "scheduler": collections.defaultdict(list, {"milestones": collections.Counter([3, 6])}),
        "rng": torch.get_rng_state(),
        "metric": torch.tensor(0.5),
        "names": {"a", "b"},
        "complex": 1j,
    }
    put("checkpoint", {**others, "state_dict": values}, values)
    prefixed = collections.OrderedDict(("module." + key, value) for key, value in values.items())
    put("parallel", {"model": prefixed, **others}, prefixed, layouts=("zip",))
    put("nested", {"model": {"state_dict": values, "step": 3}, "ema": {"x": torch.ones(1)}}, values, layouts=("zip",))
    put("model_state", {"model_state": values, "config": Config()}, values, layouts=("legacy",))
    put("flat", {**values, "epoch": 3, "args": argparse.Namespace(a=1)}, values, layouts=("zip",))
    parameters = {"weight": torch.nn.Parameter(torch.ones(2)), "buffer": torch.nn.Buffer(torch.zeros(2))}
    put("parameters", parameters, parameters, layouts=("zip",))
    put("protocol4", values, values, pickle_protocol=4)
    put("module", model, {}, layouts=("zip",))  # the older layout would hold PyTorch's source code
    put("model_object", {"model": model, "epoch": 1}, {}, layouts=("zip",))
    put("complex", {"a.weight": torch.ones(2, dtype=torch.complex64)}, {}, layouts=("zip",))
    quantised = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    put("quantised", {"a.weight": quantised, "b": torch.ones(1)}, {}, layouts=("zip",))


def other_archives():
    """As an older torch wrote them: no byte order, other padding; and from a big-endian machine; and TorchScript."""
    values = {"w": torch.tensor([1.0, -2.0]), "n": torch.tensor(7)}
    buffer = io.BytesIO()
    torch.save(values, buffer)
    source = zipfile.ZipFile(buffer)
    members = {name.split("/", 1)[1]: source.read(name) for name in source.namelist()}
    for name, order in (("old", None), ("big_endian", "big")):
        with zipfile.ZipFile(os.path.join(FOLDER, name + "_zip.pth"), "w", zipfile.ZIP_STORED) as target:
            for member, contents in members.items():
                if member in ("byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"):
                    continue
                if member.startswith("data/") and order:
                    width = 4 if len(contents) == 8 and member.endswith("/0") else 8
                    contents = b"".join(contents[i:i + width][::-1] for i in range(0, len(contents), width))
                target.writestr(zipfile.ZipInfo("archive/" + member), contents)
            if order:
                target.writestr(zipfile.ZipInfo("archive/byteorder"), order)
        for key, array in values.items():
            expected[f"{name}_zip/{key}"] = array.clone()
    scripted = torch.jit.trace(torch.nn.Linear(2, 1), torch.ones(1, 2))
    torch.jit.save(scripted, os.path.join(FOLDER, "script_zip.pth"))


def check(pth, safetensors):
    loaded = torch.load(pth, weights_only=True)
    wanted = load_file(safetensors)
    assert isinstance(loaded, collections.OrderedDict) and set(loaded) == set(wanted), (list(loaded), list(wanted))
    for key, value in wanted.items():
        assert loaded[key].dtype == value.dtype and loaded[key].shape == value.shape, key
        assert loaded[key].contiguous().view(torch.uint8).equal(value.view(torch.uint8)) if value.dim() else loaded[key].equal(value), key
    print(f"{pth}: {len(wanted)} arrays, the same; metadata {getattr(loaded, 'striate', None)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        check(*sys.argv[2:])
        sys.exit()
    os.makedirs(FOLDER, exist_ok=True)
    dtypes()
    shapes()
    checkpoints()
    other_archives()
    save_file(expected, os.path.join(FOLDER, "expected.safetensors"))
    print(f"{len(os.listdir(FOLDER))} files, {sum(f.stat().st_size for f in pathlib.Path(FOLDER).iterdir())} bytes")
