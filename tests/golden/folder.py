"""Reads, changes and writes golden folders: safetensors files as {name: Tensor}, without other packages."""
import dataclasses
import itertools
import json
import math
import pathlib
import shutil
import struct

SIZE = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I64": 8, "I32": 4, "U8": 1}
CODE = {"F64": "d", "F32": "f", "I64": "q", "I32": "i"}


@dataclasses.dataclass
class Tensor:
    dtype: str
    shape: list
    data: bytes

    def values(self):
        if self.dtype == "BF16":
            words = struct.unpack(f"<{len(self.data) // 2}H", self.data)
            return list(struct.unpack(f"<{len(words)}f", struct.pack(f"<{len(words)}I", *(w << 16 for w in words))))
        return list(struct.unpack(f"<{math.prod(self.shape)}{CODE[self.dtype]}", self.data))

    def to(self, dtype):
        return make(dtype, self.shape, self.values())

    def replaced(self, at, value):
        """A copy with the element at flat place `at` changed."""
        v = self.values()
        v[at] = value
        return make(self.dtype, self.shape, v)

    def cut(self, limits):
        """The leading part: at most limits[i] along dimension i; None keeps all of it."""
        size = SIZE[self.dtype]
        keep = [n if m is None else min(n, m) for n, m in itertools.zip_longest(self.shape, limits)]
        last = len(keep) - 1
        out = []
        for index in itertools.product(*(range(n) for n in keep[:last])):
            at = 0
            for i, n in zip(index, self.shape):
                at = at * n + i
            at *= self.shape[last]
            out.append(self.data[at * size:(at + keep[last]) * size])
        return Tensor(self.dtype, keep, b"".join(out))


def make(dtype, shape, values):
    return Tensor(dtype, list(shape), struct.pack(f"<{math.prod(shape)}{CODE[dtype]}", *values))


def read(path):
    raw = pathlib.Path(path).read_bytes()
    (n,) = struct.unpack("<Q", raw[:8])
    header, data = json.loads(raw[8:8 + n]), raw[8 + n:]
    return {name: Tensor(e["dtype"], e["shape"], data[e["data_offsets"][0]:e["data_offsets"][1]])
            for name, e in header.items() if name != "__metadata__"}


def write(path, tensors):
    header, begin = {}, 0
    for name, t in tensors.items():
        header[name] = {"dtype": t.dtype, "shape": t.shape, "data_offsets": [begin, begin + len(t.data)]}
        begin += len(t.data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(t.data for t in tensors.values()))


class Folder:
    """A copy of a golden folder that may be changed."""

    def __init__(self, source, target):
        self.path = pathlib.Path(target)
        shutil.copytree(source, target)
        for f in self.path.iterdir():
            f.chmod(0o644)

    def json(self, name, change):
        value = json.loads((self.path / name).read_text())
        change(value)
        (self.path / name).write_text(json.dumps(value))

    def tensors(self, name, change):
        value = read(self.path / name)
        value = change(value) or value
        write(self.path / name, value)

    def remove(self, *names):
        for name in names:
            (self.path / name).unlink(missing_ok=True)
