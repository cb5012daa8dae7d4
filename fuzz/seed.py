"""First inputs of each target, out of the test fixtures and, where they were made, the hostile files: fuzz/seed.py FOLDER writes
FOLDER/TARGET/*. `fuzz/merge.sh` keeps of them, and of what was found since, a smallest set that reaches the same code."""

import hashlib
import json
import pathlib
import struct
import sys
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
MOST = 4096
out = pathlib.Path(sys.argv[1])


def put(target, data):
    if len(data) <= MOST:
        folder = out / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha1(data).hexdigest()[:16]).write_bytes(data)


files = [f for pattern in ("crates/*/tests/fixtures/**/*", "target/tmp/hostile/*", *sys.argv[2:]) for f in ROOT.glob(pattern)]
for file in sorted(f for f in files if f.is_file() and not f.is_symlink() and f.stat().st_size < 1 << 20):
    data = file.read_bytes()
    put("weights", data)
    if data.startswith(b"PK\3\4"):
        put("zip", data[4:])
        try:
            members = [(i.filename, zipfile.ZipFile(file).read(i)) for i in zipfile.ZipFile(file).infolist()]
        except Exception:
            continue
        for name, contents in members:
            if name.endswith("data.pkl"):
                put("pickle", contents)
        if file.suffix == ".npz":
            put("npz", b"".join(struct.pack("<H", len(c)) + c for _, c in members if len(c) < 1 << 16))
    elif data.startswith(LEGACY):
        put("legacy", data[len(LEGACY):])
    elif data.startswith(b"\x93NUMPY"):
        put("npy", data)
        put("npz", struct.pack("<H", min(len(data), 65535)) + data)
    elif data.startswith(b"\x08\x08"):
        put("onnx", data[2:])
    elif file.suffix == ".safetensors" and len(data) > 8:
        put("safetensors", data)
        put("safetensors", data[8:])
array = {"name": "w", "dtype": "float32", "shape": [2, 2], "offset": 0, "bytes": 16, "crc32": 0xECBB4B55}
for arrays in ([], [array], [array, {**array, "name": "v", "dtype": "int64", "shape": [2], "offset": 64}]):
    header = json.dumps({"step": 3, "counters": {"epoch": 1}, "arrays": arrays}).encode()
    put("checkpoint", header + b"\0" + bytes(64 * len(arrays)))
