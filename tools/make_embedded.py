#!/usr/bin/env python3
"""Writes the data set that is inside the binary: crates/striate-vision/assets/*.gz.

Of Fashion-MNIST (Xiao, Rasul, Vollgraf 2017; MIT licence) the first 600 training and the first 100 test pictures of each
class, in file order, as gzipped IDX files. The source is Debian's package dataset-fashion-mnist. Packed with zopfli where
the Python package of that name is installed (5 % smaller), else with zlib's level 9; both give the same bytes each time.

    python3 tools/make_embedded.py [SOURCE_FOLDER]
"""

import gzip
import pathlib
import struct
import sys
import zlib

SOURCE = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist")
TARGET = pathlib.Path(__file__).resolve().parent.parent / "crates" / "striate-vision" / "assets"


def pack(data: bytes) -> bytes:
    try:
        import zopfli.gzip

        return zopfli.gzip.compress(data, numiterations=30)
    except ImportError:
        body = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
        raw = body.compress(data) + body.flush()
        head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
        return head + raw + struct.pack("<II", zlib.crc32(data), len(data))


def main() -> None:
    TARGET.mkdir(exist_ok=True)
    for part, each in (("train", 600), ("t10k", 100)):
        labels = gzip.open(SOURCE / f"{part}-labels-idx1-ubyte.gz").read()[8:]
        images = gzip.open(SOURCE / f"{part}-images-idx3-ubyte.gz").read()[16:]
        counts = [0] * 10
        keep = []
        for index, label in enumerate(labels):
            if counts[label] < each:
                counts[label] += 1
                keep.append(index)
        assert counts == [each] * 10
        pixels = b"".join(images[784 * i : 784 * (i + 1)] for i in keep)
        files = {
            f"{part}-images-idx3-ubyte.gz": struct.pack(">IIII", 0x803, len(keep), 28, 28) + pixels,
            f"{part}-labels-idx1-ubyte.gz": struct.pack(">II", 0x801, len(keep)) + bytes(labels[i] for i in keep),
        }
        for name, data in files.items():
            packed = pack(data)
            assert gzip.decompress(packed) == data
            (TARGET / name).write_bytes(packed)
            print(f"{name}: {len(keep)} samples, {len(data)} -> {len(packed)} bytes")


if __name__ == "__main__":
    main()
