"""ggml's tensors and block formats through ctypes: read a node, round and restore a matrix.

Owns the C side that llama-cpp-python does not wrap. Everything here runs in the process that
calls it, and ggml ends a process that hands it nonsense: see :mod:`edgevoice.quant.child`.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevoice.engines.gguf_file import TYPES, GgmlType
from edgevoice.engines.llama_library import llama_cpp
from edgevoice.errors import ConfigError, EngineError, unknown

Float32 = npt.NDArray[np.float32]

NUMBERS = {kind.name: number for number, kind in TYPES.items()}
"""ggml's number of a type by its name."""


class Tensor(ctypes.Structure):
    """``struct ggml_tensor`` of ggml.h, as llama-cpp-python 0.3.36 carries it."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    ]


@functools.cache
def library() -> Any:
    """Return ggml's library with the signatures of what is used here.

    Raises:
        EngineError: It is another ggml than this module was written for.
    """
    assert llama_cpp  # it has loaded ggml, with the settings of its threads
    from llama_cpp._ggml import libggml as ggml

    ggml.ggml_op_desc.argtypes = [ctypes.c_void_p]
    ggml.ggml_op_desc.restype = ctypes.c_char_p
    ggml.ggml_get_name.argtypes = [ctypes.c_void_p]
    ggml.ggml_get_name.restype = ctypes.c_char_p
    ggml.ggml_nbytes.argtypes = [ctypes.c_void_p]
    ggml.ggml_nbytes.restype = ctypes.c_size_t
    ggml.ggml_backend_tensor_get.argtypes = [
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
    ]
    ggml.ggml_backend_tensor_get.restype = None
    ggml.ggml_backend_tensor_set.argtypes = ggml.ggml_backend_tensor_get.argtypes
    ggml.ggml_backend_tensor_set.restype = None
    ggml.ggml_quantize_chunk.argtypes = [
        *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
    ]
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_type_name.argtypes = [ctypes.c_int]
    ggml.ggml_type_name.restype = ctypes.c_char_p
    for name, number in NUMBERS.items():
        said = (ggml.ggml_type_name(number) or b"").decode()
        if said.lower() != name.lower():
            raise EngineError(
                f"this llama.cpp calls type {number} {said!r}, {name!r} was expected; install "
                "llama-cpp-python==0.3.36"
            )
    return ggml


def at(address: int) -> Tensor:
    """Return the tensor at ``address``, checked against what the library says of it.

    Raises:
        EngineError: The library lays tensors out in another way.
    """
    tensor = Tensor.from_address(address)
    if tensor.name != library().ggml_get_name(address):
        raise EngineError(
            "this llama.cpp lays its tensors out in another way than this edgevoice knows; "
            "install llama-cpp-python==0.3.36"
        )
    return tensor


def fits(type_name: str, columns: int) -> bool:
    """Whether rows of ``columns`` weights can be written in ``type_name``.

    >>> fits("Q4_0", 576), fits("Q4_K", 576)
    (True, False)
    """
    return columns % _kind(type_name).block == 0


def size(type_name: str, elements: int) -> int:
    """Return the bytes that ``elements`` weights take in ``type_name``.

    >>> size("Q8_0", 64)
    68
    """
    kind = _kind(type_name)
    return elements // kind.block * kind.block_bytes


def round_rows(weights: Float32, type_name: str, importance: Float32 | None = None) -> bytes:
    """Write ``weights`` (``[rows, columns]``) in the blocks of ``type_name``.

    ``importance`` (``[columns]``) weighs each column's error, as llama.cpp's quantiser does.
    """
    rows, columns = weights.shape
    if not fits(type_name, columns):
        raise ConfigError(f"rows of {columns} weights do not fill {type_name}'s blocks")
    source = np.ascontiguousarray(weights, np.float32)
    out = ctypes.create_string_buffer(size(type_name, source.size))
    if type_name == "F16":
        return source.astype(np.float16).tobytes()
    weight = None if importance is None else np.ascontiguousarray(importance, np.float32)
    library().ggml_quantize_chunk(
        NUMBERS[type_name],
        source.ctypes.data,
        out,
        0,
        rows,
        columns,
        None if weight is None else weight.ctypes.data,
    )
    return out.raw


def restore(data: bytes, type_name: str, elements: int) -> Float32:
    """Return the ``elements`` float weights that ``data`` stands for, shape ``[elements]``."""
    if type_name == "F32":
        return np.frombuffer(data, np.float32, elements).copy()
    if type_name == "F16":
        return np.frombuffer(data, np.float16, elements).astype(np.float32)
    if type_name == "BF16":
        return (np.frombuffer(data, np.uint16, elements).astype(np.uint32) << 16).view(np.float32)
    family, _, rest = type_name.partition("_")
    function = getattr(library(), f"dequantize_row_{family.lower()}_{_suffix(rest)}")
    function.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64]
    function.restype = None
    out = np.empty(elements, np.float32)
    function(data, out.ctypes.data, elements)
    return out


def _suffix(text: str) -> str:
    # dequantize_row_q4_K, but dequantize_row_iq4_nl
    return text if text == "K" else text.lower()


def _kind(type_name: str) -> GgmlType:
    if type_name not in NUMBERS:
        raise ConfigError(unknown("GGUF type", type_name, NUMBERS))
    return TYPES[NUMBERS[type_name]]
