"""GGUF files for tests: the bundle's weights as F16 with few layers, and files with a fault."""

from __future__ import annotations

import math
import mmap
import shutil
import struct
from pathlib import Path

import numpy as np

from edgevoice.engines import gguf_file
from edgevoice.engines.gguf_file import GgufTensor
from edgevoice.quant import ggml

_ALIGNMENT = 32


def write_float16(source: Path, target: Path, layers: int) -> Path:
    """Write the first ``layers`` layers of the llama-like file, matrices in F16.

    What is left is no good model, but a real one: real weights, real text, real products.
    """
    header = gguf_file.read_header(source)
    kept = [t for t in header.table if not _layer(t.name) >= layers]
    content = source.read_bytes()
    out, at, data = bytearray(), 0, []
    for tensor in kept:
        raw = content[tensor.offset : tensor.offset + tensor.bytes]
        kind = tensor.type_name
        if kind != "F32":
            restored = ggml.restore(raw, kind, tensor.elements)
            raw, kind = restored.astype(np.float16).tobytes(), "F16"
        name = tensor.name.encode()
        out += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(tensor.shape))
        out += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
        out += struct.pack("<IQ", ggml.NUMBERS[kind], at)
        at += _padded(len(raw))
        data.append(raw.ljust(_padded(len(raw)), b"\0"))
    head = bytearray(content[: _end_of_metadata(source)])
    head[8:16] = struct.pack("<Q", len(kept))
    key = b"llama.block_count"
    place = head.index(key) + len(key) + 4  # the value's type comes first
    head[place : place + 4] = struct.pack("<I", layers)
    start = bytes(head) + bytes(out)
    target.write_bytes(start.ljust(_padded(len(start)), b"\0") + b"".join(data))
    return target


def tensor_of(path: Path, name: str) -> GgufTensor:
    return next(t for t in gguf_file.read_header(path).table if t.name == name)


def with_zero_scale(source: Path, target: Path, name: str, block: int) -> Path:
    """Copy ``source`` with the scale of one block of ``name`` set to zero."""
    tensor = tensor_of(source, name)
    kind = gguf_file.TYPES[tensor.type]
    # The float16 scale stands first in all of these but Q6_K, where it stands last.
    assert kind.name in ("Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "Q4_K", "Q5_K", "Q6_K")
    place = kind.block_bytes - 2 if kind.name == "Q6_K" else 0
    shutil.copyfile(source, target)
    with target.open("r+b") as file:
        file.seek(tensor.offset + block * kind.block_bytes + place)
        file.write(b"\0\0")
    return target


def with_swapped(source: Path, target: Path, first: str, second: str) -> Path:
    """Copy ``source`` with the weights of two tensors of one type and shape exchanged."""
    pair = [tensor_of(source, name) for name in (first, second)]
    assert pair[0].bytes == pair[1].bytes and pair[0].type == pair[1].type
    content = source.read_bytes()
    shutil.copyfile(source, target)
    with target.open("r+b") as file:
        for here, there in zip(pair, reversed(pair), strict=True):
            file.seek(here.offset)
            file.write(content[there.offset : there.offset + there.bytes])
    return target


def _layer(name: str) -> int:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blk" else -1


def _padded(size: int) -> int:
    return math.ceil(size / _ALIGNMENT) * _ALIGNMENT


def _end_of_metadata(path: Path) -> int:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = gguf_file._Reader(data)
        reader.skip(12)
        for _ in range(reader.scalar("<Q")):
            reader.text()
            reader.value(reader.scalar("<I"))
        return reader.at
