"""Reads the tensors of a ``torch.save`` archive without torch, and without running anything.

The pickle inside may name only what a plain state dictionary consists of: any other name ends the
reading. So a file that was let in by ``--allow-pickle`` still cannot run code here.

Format (torch/serialization.py, since torch 1.6): a zip with ``<name>/data.pkl`` and one file
``<name>/data/<key>`` for each storage, little endian.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from edgevoice.errors import ArtifactError
from edgevoice.export.hf_checkpoint import widen


@dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: str
    is_bfloat16: bool = False


_STORAGES: Mapping[str, _StorageType] = {
    "DoubleStorage": _StorageType("<f8"),
    "FloatStorage": _StorageType("<f4"),
    "HalfStorage": _StorageType("<f2"),
    "BFloat16Storage": _StorageType("<u2", True),
    "LongStorage": _StorageType("<i8"),
    "IntStorage": _StorageType("<i4"),
    "BoolStorage": _StorageType("?"),
}


def read(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return every tensor of the state dictionary in ``path``, float32.

    Raises:
        ArtifactError: It is damaged, of the format before torch 1.6, or names anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(found) != 1:
                raise ArtifactError(f"{path} is an archive without a data.pkl; not torch's")
            root = found[0].removesuffix("data.pkl")
            state = _Reader(archive.read(found[0]), lambda key: archive.read(f"{root}data/{key}"))
            tensors = state.load()
    except zipfile.BadZipFile as error:
        raise ArtifactError(
            f"{path} is truncated, or of a torch before 1.6; save it again as safetensors"
        ) from error
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, IndexError) as error:
        raise ArtifactError(f"{path} is not a plain state dictionary: {error}") from error
    if not isinstance(tensors, dict):
        raise ArtifactError(f"{path} holds a {type(tensors).__name__}, not a state dictionary")
    return {str(k): v for k, v in tensors.items() if isinstance(v, np.ndarray)}


class _Reader(pickle.Unpickler):
    """Knows the four names of a state dictionary and no other."""

    def __init__(self, data: bytes, storage: Callable[[str], bytes]) -> None:
        super().__init__(io.BytesIO(data))
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _parameter
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, only tensors are read")

    def persistent_load(self, pid: Any) -> NDArray[np.float32]:
        """Return the storage ``("storage", type, key, device, elements)``."""
        kind = pid[1]
        stored = np.frombuffer(self._storage(str(pid[2])), kind.dtype)
        return widen(stored, kind.is_bfloat16)


def _tensor(
    storage: NDArray[np.float32],
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *_: Any,
) -> NDArray[np.float32]:
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if (
        offset < 0
        or any(n < 0 for n in (*shape, *strides))
        or (0 not in shape and last >= len(storage))
    ):
        raise ValueError(f"a tensor of shape {shape} leaves its storage of {len(storage)}")
    item = storage.itemsize
    view = as_strided(storage[offset:], shape, [s * item for s in strides], writeable=False)
    return np.ascontiguousarray(view)


def _parameter(data: NDArray[np.float32], *_: Any) -> NDArray[np.float32]:
    return data
