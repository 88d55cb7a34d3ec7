"""Reads a safetensors file's header and checks that every tensor it announces is in the file.

A truncated download is told from a whole file before any library maps it. Owns the container
only; what the tensors mean is the families' business. Format: 8 bytes with the header's length
(little endian), that many bytes of JSON, then the tensors without holes
(huggingface/safetensors, README, "Format").
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevoice.errors import ArtifactError

_MOST_HEADER_BYTES = 100_000_000  # the library's own limit
# Bytes of an element. A type that is not here is newer than this table: its size is not checked.
ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}


@dataclass(frozen=True, slots=True)
class SafeTensor:
    """One tensor: its type as the file names it, its shape, its bytes in the file [start, end)."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """What a safetensors file says of itself, tensors in the file's order."""

    tensors: Mapping[str, SafeTensor]
    metadata: Mapping[str, str]

    @property
    def parameters(self) -> int:
        """Number of weights in all tensors."""
        return sum(tensor.elements for tensor in self.tensors.values())


def read_header(path: Path) -> SafetensorsHeader:
    """Read and check the header of the safetensors file at ``path``; no weight is read.

    Raises:
        ArtifactError: It cannot be read, is not safetensors, or is truncated.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            if len(head) < 8:
                raise ArtifactError(f"{path} is truncated: {size} bytes, a header has at least 8")
            (length,) = struct.unpack("<Q", head)
            if length > _MOST_HEADER_BYTES:
                raise ArtifactError(
                    f"{path} is not a safetensors file: it announces a header of {length} bytes, "
                    f"at most {_MOST_HEADER_BYTES} are allowed"
                )
            if 8 + length > size:
                raise ArtifactError(
                    f"{path} is truncated inside its header: {size} bytes, {8 + length} are "
                    "announced; fetch it again"
                )
            text = file.read(length)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        entries = json.loads(text)
        if not isinstance(entries, dict):
            raise TypeError(f"an object is needed, got {type(entries).__name__}")
        metadata = entries.pop("__metadata__", {})
        tensors = {name: _tensor(name, entry, 8 + length) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ArtifactError(f"{path} is not a safetensors file: {error}") from error
    end = _contiguous_end(path, tensors, 8 + length)
    if end != size:
        what = "is truncated" if size < end else "has bytes after its last tensor"
        raise ArtifactError(
            f"{path} {what}: {size} bytes, its {len(tensors)} tensors need {end}; fetch it again"
        )
    return SafetensorsHeader(tensors, {str(k): str(v) for k, v in metadata.items()})


def check(path: Path) -> int:
    """Check every safetensors file at or under ``path``; return the weights in them.

    Raises:
        ArtifactError: As :func:`read_header`.
    """
    files = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
    return sum(read_header(f).parameters for f in files if f.suffix == ".safetensors")


def _tensor(name: str, entry: Any, begin: int) -> SafeTensor:
    shape = tuple(int(n) for n in entry["shape"])
    start, end = (int(n) for n in entry["data_offsets"])
    dtype = str(entry["dtype"])
    if not 0 <= start <= end or any(n < 0 for n in shape):
        raise ValueError(f"{name}: bytes {start} to {end} for shape {list(shape)}")
    item_bytes = ITEM_BYTES.get(dtype)
    if item_bytes is not None and math.prod(shape) * item_bytes != end - start:
        raise ValueError(
            f"{name}: {dtype} {list(shape)} needs {math.prod(shape) * item_bytes} bytes, "
            f"{end - start} are announced"
        )
    return SafeTensor(dtype, shape, begin + start, begin + end)


def _contiguous_end(path: Path, tensors: Mapping[str, SafeTensor], begin: int) -> int:
    end = begin
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != end:
            raise ArtifactError(
                f"{path} is not a safetensors file: {name} begins at byte {tensor.start}, the "
                f"tensor before it ends at {end}"
            )
        end = tensor.end
    return end
