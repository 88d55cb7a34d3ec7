"""Reads the tensors of a Hugging Face checkpoint folder without torch.

Owns which files hold the weights (``model.safetensors``, shards listed in its index, or a pickled
``pytorch_model.bin``) and their numbers. Containers are the business of
:mod:`edgevoice.export.safetensors_header` and :mod:`edgevoice.export.torch_archive`; what the
tensors mean is the families'.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevoice.errors import ArtifactError
from edgevoice.export.safetensors_header import SafeTensor, read_header

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = "pytorch_model.bin"

_DTYPES: Mapping[str, np.dtype[np.generic]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # the upper half of a float32
}


@dataclass(frozen=True, slots=True)
class HfCheckpoint:
    """The tensors of one folder; data is read when it is asked for.

    Attributes:
        folder: Where it lies.
        config: Its ``config.json``.
        shapes: Every tensor's shape.
        loaders: Every tensor's reader, float32.
    """

    folder: Path
    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    loaders: Mapping[str, Callable[[], NDArray[np.float32]]]

    def floats(self, name: str) -> NDArray[np.float32]:
        """Return tensor ``name`` as float32.

        Raises:
            ArtifactError: There is no such tensor, or it holds no floats.
        """
        if name not in self.loaders:
            raise ArtifactError(
                f"{self.folder}: no tensor {name!r} among {len(self.loaders)}; a checkpoint of "
                "another architecture, or not complete"
            )
        return self.loaders[name]()

    def integer(self, key: str) -> int:
        """Return the integer ``key`` of ``config.json``.

        Raises:
            ArtifactError: It is not there, or no integer.
        """
        value = self.config.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ArtifactError(f"{self.folder / CONFIG}: {key} is {value!r}, an integer is needed")
        return value


def read_config(folder: Path) -> Mapping[str, Any]:
    """Return ``config.json`` of ``folder``.

    Raises:
        ArtifactError: It is missing or no JSON object.
    """
    return _json_object(folder / CONFIG)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files that hold the weights of ``folder``, none when there are none.

    Raises:
        ArtifactError: The index names a shard that is not there, or is no index.
    """
    if (folder / SINGLE).is_file():
        return (folder / SINGLE,)
    if not (folder / INDEX).is_file():
        return ()
    listed = _json_object(folder / INDEX).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise ArtifactError(f"{folder / INDEX} has no weight_map; fetch it again")
    names = sorted({str(name) for name in listed.values()})
    # Names only: an index must not lead out of its folder.
    missing = [n for n in names if Path(n).name != n or not (folder / n).is_file()]
    if missing:
        raise ArtifactError(f"{folder}: {INDEX} names {missing[0]!r}, which is not there")
    return tuple(folder / name for name in names)


def read(folder: Path, allow_pickle: bool) -> HfCheckpoint:
    """Read the headers of the checkpoint in ``folder``.

    Args:
        folder: Has ``config.json`` and weights.
        allow_pickle: ``pytorch_model.bin`` may be read where there is no safetensors file.

    Raises:
        ArtifactError: Something is missing, truncated, or pickled without ``allow_pickle``.
    """
    config = read_config(folder)
    shapes: dict[str, tuple[int, ...]] = {}
    loaders: dict[str, Callable[[], NDArray[np.float32]]] = {}
    for path in weight_files(folder):
        for name, tensor in read_header(path).tensors.items():
            shapes[name] = tensor.shape
            loaders[name] = _Slice(path, name, tensor)
    if not loaders and (folder / PICKLED).is_file():
        if not allow_pickle:
            raise ArtifactError(
                f"{folder / PICKLED} is a pickle; use a source with {SINGLE}, or say "
                "--allow-pickle if you trust it"
            )
        from edgevoice.export import torch_archive

        for name, array in torch_archive.read(folder / PICKLED).items():
            shapes[name] = array.shape
            loaders[name] = _Loaded(array)
    if not loaders:
        raise ArtifactError(f"{folder} has no {SINGLE}, no {INDEX} and no {PICKLED}")
    return HfCheckpoint(folder, config, shapes, loaders)


@dataclass(frozen=True, slots=True)
class _Slice:
    """One tensor of a safetensors file."""

    path: Path
    name: str
    tensor: SafeTensor

    def __call__(self) -> NDArray[np.float32]:
        dtype = _DTYPES.get(self.tensor.dtype)
        if dtype is None:
            raise ArtifactError(
                f"{self.path}: tensor {self.name!r} is {self.tensor.dtype}; read are "
                f"{', '.join(_DTYPES)}: take the checkpoint before it was quantised"
            )
        with (
            self.path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            stored = np.frombuffer(data[self.tensor.start : self.tensor.end], dtype)
        return widen(stored, self.tensor.dtype == "BF16").reshape(self.tensor.shape)


@dataclass(frozen=True, slots=True)
class _Loaded:
    array: NDArray[np.float32]

    def __call__(self) -> NDArray[np.float32]:
        return self.array


def widen(stored: NDArray[np.generic], is_bfloat16: bool) -> NDArray[np.float32]:
    """Return ``stored`` as float32; bfloat16 comes as uint16, the upper half of a float32."""
    if is_bfloat16:
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored.astype(np.float32)


def _json_object(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{path}: an object is needed, got {type(found).__name__}")
    return found
