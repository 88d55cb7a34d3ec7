"""Reads the tensors of a CTranslate2 ``model.bin``.

Owns the file format and the vocabulary beside it. What the tensors mean, and what is built
from them, is left to the families.

Format (CTranslate2 ``src/models/model.cc``, binary version 6, little endian): u32 version,
string specification, u32 revision, u32 count; per variable a string name, u8 rank, u32
dimensions, u8 type, u32 bytes, data; then u32 count of aliases, each two strings. A string is
a u16 length that counts the final NUL, then the bytes.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevoice.errors import ArtifactError

BINARY_VERSION = 6

_DTYPES: Mapping[int, np.dtype[np.generic]] = {
    0: np.dtype("<f4"),
    1: np.dtype("i1"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("<f2"),
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The variables of one ``model.bin``.

    Attributes:
        path: The file.
        specification: CTranslate2's name of the architecture, for example ``WhisperSpec``.
        variables: Name to array in the file's own type; views of the mapped file, not copies.
    """

    path: Path
    specification: str
    variables: Mapping[str, NDArray[np.generic]]

    def floats(self, name: str) -> NDArray[np.float32]:
        """Return variable ``name`` as float32; int8 weights are divided by their row scales.

        Raises:
            ArtifactError: There is no such variable, or it is an integer without a scale.
        """
        array = self._find(name)
        if array.dtype.kind == "f":
            return array.astype(np.float32)
        scale = self.variables.get(f"{name}_scale")
        if array.dtype != np.int8 or scale is None:
            raise ArtifactError(
                f"{self.path}: variable {name!r} is {array.dtype} without a scale; floats or int8 "
                f"with {name}_scale are read"
            )
        rows = scale.astype(np.float32).reshape(-1, *[1] * (array.ndim - 1))
        return array.astype(np.float32) / rows

    def integer(self, name: str) -> int:
        """Return the scalar variable ``name``.

        Raises:
            ArtifactError: There is no such variable, or it is not one integer.
        """
        array = self._find(name)
        if array.size != 1 or array.dtype.kind != "i":
            raise ArtifactError(f"{self.path}: variable {name!r} is not one integer")
        return int(array.reshape(()).item())

    def shape(self, name: str, rank: int) -> tuple[int, ...]:
        """Return the shape of variable ``name``.

        Raises:
            ArtifactError: There is no such variable, or its rank is not ``rank``.
        """
        array = self._find(name)
        if array.ndim != rank:
            raise ArtifactError(f"{self.path}: variable {name!r} has rank {array.ndim}, not {rank}")
        return array.shape

    def layers(self, stack: str) -> int:
        """Return how many ``layer_N`` groups lie under ``stack`` (``encoder`` or ``decoder``)."""
        prefix = f"{stack}/layer_"
        found = {n[len(prefix) :].split("/")[0] for n in self.variables if n.startswith(prefix)}
        return len([n for n in found if n.isdigit()])

    def _find(self, name: str) -> NDArray[np.generic]:
        if name not in self.variables:
            raise ArtifactError(
                f"{self.path}: no variable {name!r} among {len(self.variables)}; a "
                f"{self.specification} of another kind, or not this model"
            )
        return self.variables[name]


class _Cursor:
    """Walks the bytes of the file; every read past its end names the file and the place."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.at = 0

    def skip(self, count: int, what: str) -> int:
        start = self.at
        if start + count > len(self.data):
            raise ArtifactError(
                f"{self.path}: truncated: {what} needs {count} bytes at {start}, the file has "
                f"{len(self.data)}; fetch it again"
            )
        self.at += count
        return start

    def number(self, code: str, what: str) -> int:
        start = self.skip(struct.calcsize("<" + code), what)
        return int(struct.unpack_from("<" + code, self.data, start)[0])

    def string(self, what: str) -> str:
        count = self.number("H", what)
        start = self.skip(count, what)
        try:
            return self.data[start : start + count].rstrip(b"\0").decode("utf-8")
        except UnicodeDecodeError as error:
            raise ArtifactError(f"{self.path}: {what} at {start} is not text: {error}") from error


def read(path: Path) -> Checkpoint:
    """Read ``path``; the arrays map the file, so little memory is taken until they are used.

    Raises:
        ArtifactError: The file is missing, truncated, has bytes to spare, is of another version,
            or holds a type that is not known.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read as a CTranslate2 model: {error}") from error
    cursor = _Cursor(path, data)
    version = cursor.number("I", "the version")
    if version != BINARY_VERSION:
        raise ArtifactError(
            f"{path}: CTranslate2 binary version {version}, only {BINARY_VERSION} is read; convert "
            "the model again with a newer CTranslate2, or check that this is its model.bin"
        )
    specification = cursor.string("the specification")
    cursor.number("I", "the revision")
    variables: dict[str, NDArray[np.generic]] = {}
    for index in range(cursor.number("I", "the number of variables")):
        name = cursor.string(f"the name of variable {index}")
        rank = cursor.number("B", f"the rank of {name!r}")
        shape = [cursor.number("I", f"a dimension of {name!r}") for _ in range(rank)]
        variables[name] = _array(cursor, name, shape)
    for index in range(cursor.number("I", "the number of aliases")):
        alias = cursor.string(f"alias {index}")
        target = cursor.string(f"the target of alias {alias!r}")
        if target not in variables:
            raise ArtifactError(f"{path}: alias {alias!r} points to {target!r}, which is not there")
        variables[alias] = variables[target]
    if cursor.at != len(data):
        raise ArtifactError(f"{path}: {len(data) - cursor.at} bytes after the last alias")
    return Checkpoint(path, specification, variables)


def _array(cursor: _Cursor, name: str, shape: list[int]) -> NDArray[np.generic]:
    code = cursor.number("B", f"the type of {name!r}")
    if code not in _DTYPES:
        known = ", ".join(f"{k} ({v.name})" for k, v in _DTYPES.items())
        raise ArtifactError(f"{cursor.path}: variable {name!r} is of type {code}; known: {known}")
    dtype = _DTYPES[code]
    size = cursor.number("I", f"the size of {name!r}")
    expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size != expected:
        raise ArtifactError(
            f"{cursor.path}: variable {name!r} has {size} bytes, its shape {shape} of {dtype.name} "
            f"needs {expected}"
        )
    start = cursor.skip(size, f"the data of {name!r}")
    return np.frombuffer(cursor.data, dtype, size // dtype.itemsize, start).reshape(shape)


def read_vocabulary(folder: Path) -> list[str]:
    """Return the tokens of ``vocabulary.json`` or ``vocabulary.txt``, in the order of their ids.

    Raises:
        ArtifactError: Neither is there, or it is not a list of strings.
    """
    listed, lines = folder / "vocabulary.json", folder / "vocabulary.txt"
    try:
        if not listed.is_file():
            return lines.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        tokens = json.loads(listed.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder}: no vocabulary can be read: {error}") from error
    if not isinstance(tokens, list) or not all(isinstance(t, str) for t in tokens):
        raise ArtifactError(f"{listed}: not a list of strings")
    return tokens
