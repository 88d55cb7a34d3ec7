"""Reads a GGUF file's header and checks that every tensor it announces is really in the file.

llama.cpp trusts what it reads, and a truncated or foreign file can end the whole process, so
this check comes before any native load. Owns the container only: what the metadata means to an
engine is :mod:`edgevoice.engines.gguf`'s business. Format: ggml's ``docs/gguf.md``.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class GgmlType:
    """One of ggml's tensor types: weights in a block, bytes of a block."""

    name: str
    block: int
    block_bytes: int


# By the number that files carry; ggml's type_traits. A type that is not here is newer than this
# table: its tensors count with no bytes.
TYPES = {
    0: GgmlType("F32", 1, 4),
    1: GgmlType("F16", 1, 2),
    2: GgmlType("Q4_0", 32, 18),
    3: GgmlType("Q4_1", 32, 20),
    6: GgmlType("Q5_0", 32, 22),
    7: GgmlType("Q5_1", 32, 24),
    8: GgmlType("Q8_0", 32, 34),
    9: GgmlType("Q8_1", 32, 36),
    10: GgmlType("Q2_K", 256, 84),
    11: GgmlType("Q3_K", 256, 110),
    12: GgmlType("Q4_K", 256, 144),
    13: GgmlType("Q5_K", 256, 176),
    14: GgmlType("Q6_K", 256, 210),
    16: GgmlType("IQ2_XXS", 256, 66),
    17: GgmlType("IQ2_XS", 256, 74),
    18: GgmlType("IQ3_XXS", 256, 98),
    19: GgmlType("IQ1_S", 256, 50),
    20: GgmlType("IQ4_NL", 32, 18),
    21: GgmlType("IQ3_S", 256, 110),
    22: GgmlType("IQ2_S", 256, 82),
    23: GgmlType("IQ4_XS", 256, 136),
    24: GgmlType("I8", 1, 1),
    25: GgmlType("I16", 1, 2),
    26: GgmlType("I32", 1, 4),
    27: GgmlType("I64", 1, 8),
    28: GgmlType("F64", 1, 8),
    29: GgmlType("IQ1_M", 256, 56),
    30: GgmlType("BF16", 1, 2),
}
_MOST = 1 << 24  # more entries than this in a header is damage, not a model


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor that a file announces.

    Attributes:
        name: As llama.cpp calls it.
        type: ggml's number of its type, see :data:`TYPES`.
        shape: Elements by dimension, the contiguous one first (ggml's ``ne``).
        offset: Of its first byte, from the start of the file.
    """

    name: str
    type: int
    shape: tuple[int, ...]
    offset: int

    @property
    def type_name(self) -> str:
        """The type's name; ``type 99`` for one that is newer than :data:`TYPES`."""
        return TYPES[self.type].name if self.type in TYPES else f"type {self.type}"

    @property
    def elements(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in the file, without padding; 0 for an unknown type."""
        known = TYPES.get(self.type)
        return self.elements // known.block * known.block_bytes if known else 0


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says of itself.

    Attributes:
        version: Of the container.
        tensors: How many there are.
        metadata: Scalars and strings by key; arrays are left out.
        needed_bytes: The size that the file must have at least to hold its last tensor.
        table: The tensors, in the order of the file.
    """

    version: int
    tensors: int
    metadata: dict[str, bool | int | float | str]
    needed_bytes: int
    table: tuple[GgufTensor, ...] = ()


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
        self.pass_array()
        return None

    def array(self) -> list[int | float | str]:
        inner, count = self.scalar("<I"), self.scalar("<Q")
        if inner == _STRING:
            return [self.text() for _ in range(count)]
        return [self.scalar(_SCALARS[inner]) for _ in range(count)]

    def pass_array(self) -> None:
        inner, count = self.scalar("<I"), self.scalar("<Q")
        if inner in _SCALARS:
            self.skip(count * struct.calcsize(_SCALARS[inner]))
        elif inner == _STRING:
            for _ in range(count):
                self.skip(self.scalar("<Q"))
        else:
            raise ValueError(f"array of type {inner}")


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


def read_array(path: Path, key: str) -> list[int | float | str]:
    """Return the metadata array ``key`` of a file that :func:`read_header` has accepted.

    Raises:
        ArtifactError: The file has no such array.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(data)
        reader.skip(12)
        for _ in range(reader.scalar("<Q")):
            name, kind = reader.text(), reader.scalar("<I")
            if name == key and kind == _ARRAY:
                return reader.array()
            reader.value(kind)
    raise ArtifactError(f"{path} has no array {key!r} in its metadata; convert the model again")


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
    found = []
    for _ in range(tensors):
        name = reader.text()
        shape = tuple(reader.scalar("<Q") for _ in range(reader.scalar("<I")))
        found.append(GgufTensor(name, reader.scalar("<I"), shape, reader.scalar("<Q")))
    alignment = int(metadata.get("general.alignment", 32))
    if alignment <= 0:
        raise ValueError(f"alignment {alignment}")
    begin = math.ceil(reader.at / alignment) * alignment
    table = tuple(replace(tensor, offset=begin + tensor.offset) for tensor in found)
    end = max((tensor.offset + tensor.bytes for tensor in table), default=begin)
    return GgufHeader(version, tensors, metadata, end, table)
