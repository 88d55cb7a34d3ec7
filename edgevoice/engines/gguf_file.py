"""Reads a GGUF file's header and checks that every tensor it announces is really in the file.

llama.cpp trusts what it reads, and a truncated or foreign file can end the whole process, so
this check comes before any native load. Owns the container only: what the metadata means to an
engine is :mod:`edgevoice.engines.gguf`'s business. Format: ggml's ``docs/gguf.md``.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from edgevoice.errors import ArtifactError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY = 8, 9
# ggml type -> (weights in a block, bytes of a block); ggml's type_traits. A type that is not
# here is newer than this table: its tensors count with no bytes.
_BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 36),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    29: (256, 56),
    30: (1, 2),
}
_MOST = 1 << 24  # more entries than this in a header is damage, not a model


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says of itself.

    Attributes:
        version: Of the container.
        tensors: How many there are.
        metadata: Scalars and strings by key; arrays are left out.
        needed_bytes: The size that the file must have at least to hold its last tensor.
    """

    version: int
    tensors: int
    metadata: dict[str, bool | int | float | str]
    needed_bytes: int


class _Reader:
    """Walks the header; an offset past the end raises struct.error or ValueError."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 4

    def scalar(self, layout: str) -> int:
        (value,) = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return value  # type: ignore[no-any-return]

    def skip(self, count: int) -> None:
        if count < 0 or self.at + count > len(self.data):
            raise ValueError(f"{count} bytes announced at {self.at} of {len(self.data)}")
        self.at += count

    def text(self) -> str:
        length = self.scalar("<Q")
        start = self.at
        self.skip(length)
        return self.data[start : self.at].decode("utf-8", "replace")

    def value(self, kind: int) -> bool | int | float | str | None:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.scalar(_SCALARS[kind])
        inner, count = self.scalar("<I"), self.scalar("<Q")
        if inner in _SCALARS:
            self.skip(count * struct.calcsize(_SCALARS[inner]))
        elif inner == _STRING:
            for _ in range(count):
                self.skip(self.scalar("<Q"))
        else:
            raise ValueError(f"array of type {inner}")
        return None


def read_header(path: Path) -> GgufHeader:
    """Read and check the header of the GGUF file at ``path``.

    Raises:
        ArtifactError: It cannot be read, is not GGUF, is of another version, its header is
            damaged, or it is shorter than its tensors need.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if len(start) < 8 or start[:4] != MAGIC:
                raise ArtifactError(
                    f"{path} is not a GGUF file: it begins with {start[:4]!r}, {MAGIC!r} was "
                    "expected; pull the artifact again"
                )
            (version,) = struct.unpack("<I", start[4:])
            if version not in VERSIONS:
                raise ArtifactError(
                    f"{path}: GGUF version {version}, versions {VERSIONS[0]} and {VERSIONS[1]} "
                    "can be read; convert the model again"
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                header, size = _walk(data, version), len(data)
    except (struct.error, ValueError, KeyError) as error:
        raise ArtifactError(
            f"{path}: truncated or damaged inside its header ({error}); pull the artifact again"
        ) from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror or error}") from error
    if size < header.needed_bytes:
        raise ArtifactError(
            f"{path} is truncated: {size} bytes, its {header.tensors} tensors need "
            f"{header.needed_bytes}; pull the artifact again"
        )
    return header


def _walk(data: mmap.mmap, version: int) -> GgufHeader:
    reader = _Reader(data)
    reader.skip(4)
    tensors, entries = reader.scalar("<Q"), reader.scalar("<Q")
    if tensors > _MOST or entries > _MOST:
        raise ValueError(f"{tensors} tensors and {entries} metadata entries announced")
    metadata: dict[str, bool | int | float | str] = {}
    for _ in range(entries):
        key = reader.text()
        value = reader.value(reader.scalar("<I"))
        if value is not None:
            metadata[key] = value
    end = 0
    for _ in range(tensors):
        reader.text()
        dimensions = [reader.scalar("<Q") for _ in range(reader.scalar("<I"))]
        kind, offset = reader.scalar("<I"), reader.scalar("<Q")
        block, block_bytes = _BLOCKS.get(kind, (1, 0))
        end = max(end, offset + math.prod(dimensions) // block * block_bytes)
    alignment = int(metadata.get("general.alignment", 32))
    if alignment <= 0:
        raise ValueError(f"alignment {alignment}")
    begin = math.ceil(reader.at / alignment) * alignment
    return GgufHeader(version, tensors, metadata, begin + end)
