"""Looks through a model's files for what no inference shows plainly: NaN, infinity, lost metadata.

Run in a child process (:mod:`edgevoice.export.child`): whole models go through memory here, and
files may be damaged. Reads ONNX, GGUF and safetensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevoice.engines import gguf_file
from edgevoice.errors import ArtifactError, MissingDependencyError
from edgevoice.export import safetensors_header

WEIGHTS = (".onnx", ".gguf", ".safetensors", ".data", ".bin")
"""Suffixes of files that hold weights; every other file of an artifact lies beside them."""
# Positions of the float16 scales in a block, in halves, by ggml type (ggml-common.h).
_SCALES = {
    "Q4_0": (0,),
    "Q4_1": (0, 1),
    "Q5_0": (0,),
    "Q5_1": (0, 1),
    "Q8_0": (0,),
    "Q2_K": (40, 41),
    "Q3_K": (54,),
    "Q4_K": (0, 1),
    "Q5_K": (0, 1),
    "Q6_K": (104,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
}
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_CHUNK_BYTES = 1 << 26


def scan(folder: Path) -> dict[str, Any]:
    """Look through the weights in ``folder`` (or the one file).

    Returns:
        ``non_finite``: names of tensors with NaN, or with infinity where it is no mask.
        ``metadata``: keys that the files carry.

    Raises:
        ArtifactError: A file is damaged.
        MissingDependencyError: There are ONNX files, and onnx is not installed.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else [folder]
    bad: list[str] = []
    metadata: set[str] = set()
    for path in files:
        if path.suffix == ".onnx":
            bad += _onnx(path, metadata)
        elif path.suffix == ".gguf":
            bad += _gguf(path, metadata)
        elif path.suffix == ".safetensors":
            bad += _safetensors(path)
    return {"non_finite": bad, "metadata": sorted(metadata)}


def is_sound(values: NDArray[Any]) -> bool:
    """Whether ``values`` are all finite, or an additive mask: zeros, and infinity elsewhere."""
    finite = np.isfinite(values)
    if finite.all():
        return True
    if np.isnan(values).any():
        return False
    # Attention masks and their scalars are stored with minus infinity by torch's exporter.
    return not values[finite].any()


def _onnx(path: Path, metadata: set[str]) -> Iterator[str]:
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingDependencyError(
            "checking ONNX weights needs onnx; pip install 'edgevoice[convert]'"
        ) from error
    floats = (
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.BFLOAT16,
    )
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own classes
        raise ArtifactError(f"{path}: not a whole ONNX model: {error}") from error
    metadata.update(entry.key for entry in model.metadata_props)
    for tensor in _tensors(model.graph):
        if tensor.data_type in floats:
            try:
                values = numpy_helper.to_array(tensor, base_dir=str(path.parent))
            except Exception as error:
                raise ArtifactError(f"{path}: {tensor.name} cannot be read: {error}") from error
            if not is_sound(values.astype(np.float32) if values.dtype.kind == "V" else values):
                yield f"{path.name}:{tensor.name}"


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)


def _gguf(path: Path, metadata: set[str]) -> Iterator[str]:
    header = gguf_file.read_header(path)
    metadata.update(header.metadata)
    for tensor in header.table:
        if tensor.type_name in _FLOATS:
            chunks = _chunks(path, tensor.offset, tensor.bytes, _FLOATS[tensor.type_name])
            sound = all(np.isfinite(values).all() for values in chunks)
        elif tensor.type_name in _SCALES:
            halves = gguf_file.TYPES[tensor.type].block_bytes // 2
            blocks = np.memmap(path, "<f2", "r", tensor.offset, (tensor.bytes // 2,))
            rows = blocks.reshape(-1, halves)
            sound = all(np.isfinite(rows[:, at]).all() for at in _SCALES[tensor.type_name])
        else:
            continue
        if not sound:
            yield f"{path.name}:{tensor.name}"


def _safetensors(path: Path) -> Iterator[str]:
    for name, tensor in safetensors_header.read_header(path).tensors.items():
        size = tensor.end - tensor.start
        if tensor.dtype in _FLOATS:
            chunks = _chunks(path, tensor.start, size, _FLOATS[tensor.dtype])
            sound = all(np.isfinite(values).all() for values in chunks)
        elif tensor.dtype == "BF16":
            # The exponent's bits are all ones in infinity and NaN alone.
            chunks = _chunks(path, tensor.start, size, "<u2")
            sound = all(((values & 0x7F80) != 0x7F80).all() for values in chunks)
        else:
            continue
        if not sound:
            yield f"{path.name}:{name}"


def _chunks(path: Path, start: int, size: int, dtype: str) -> Iterator[NDArray[Any]]:
    item = np.dtype(dtype).itemsize
    for offset in range(0, size, _CHUNK_BYTES):
        count = min(_CHUNK_BYTES, size - offset) // item
        yield np.fromfile(path, dtype, count, offset=start + offset)
