"""Writes quantised GGUF files with llama.cpp's own quantiser, in a child process.

Owns the C structures that ask for a file type, an importance matrix and a type per tensor. Which
types to ask for is the recipe's or the search's business.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from pathlib import Path

from edgevoice.engines import gguf_file
from edgevoice.engines.llama_library import last_error, llama_cpp, prepare
from edgevoice.errors import ConfigError, EngineError, unknown
from edgevoice.quant import child, ggml, importance
from edgevoice.quant.importance import Importance
from edgevoice.quant.recipe import TensorChoice

FILE_TYPES: Mapping[str, str] = {
    "F16": "LLAMA_FTYPE_MOSTLY_F16",
    **{
        name: f"LLAMA_FTYPE_MOSTLY_{name}"
        for name in (
            *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "IQ4_XS"),
            *("Q3_K_M", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K"),
        )
    },
}
"""llama.cpp's file types by the name that a scheme gives."""


def write(
    source: Path,
    out: Path,
    file_type: str,
    threads: int,
    *,
    types: Mapping[str, str] | None = None,
    matrix: Path | None = None,
) -> tuple[TensorChoice, ...]:
    """Quantise the GGUF ``source`` into ``out``; equal inputs give equal bytes.

    Args:
        source: F32, F16, BF16 or Q8_0 weights; any where ``file_type`` is Q8_0.
        out: Written whole or not at all.
        file_type: One of :data:`FILE_TYPES`; decides where ``types`` does not.
        threads: For rounding; the bytes do not depend on it.
        types: A GGUF type by tensor name. One whose blocks do not fit a tensor's rows gives way
            to llama.cpp's replacement, as in its own recipes.
        matrix: An importance matrix that :mod:`edgevoice.quant.importance` wrote.

    Returns:
        What every tensor was written in.

    Raises:
        ConfigError: A type is not known.
        EngineError: llama.cpp refused, or ended its process.
    """
    if file_type not in FILE_TYPES:
        raise ConfigError(unknown("GGUF file type", file_type, FILE_TYPES))
    for kind in (types or {}).values():
        if kind not in ggml.NUMBERS:
            raise ConfigError(unknown("GGUF type", kind, ggml.NUMBERS))
    part = out.with_name(out.name + ".part")
    try:
        child.run(
            "edgevoice.quant.gguf:quantise_file",
            {
                "source": str(source),
                "out": str(part),
                "file_type": file_type,
                "threads": threads,
                "types": dict(types or {}),
                "matrix": None if matrix is None else str(matrix),
            },
            f"quantising {source.name} to {file_type}",
        )
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return choices(out)


def choices(path: Path) -> tuple[TensorChoice, ...]:
    """Return what every tensor of the GGUF file ``path`` is written in."""
    return tuple(
        TensorChoice(tensor.name, tensor.type_name, tensor.elements, tensor.bytes)
        for tensor in gguf_file.read_header(path).table
    )


def quantise_file(
    *,
    source: str,
    out: str,
    file_type: str,
    threads: int,
    types: dict[str, str],
    matrix: str | None,
) -> None:
    """Quantise in this process; native code may end it. See :func:`write`.

    Raises:
        ArtifactError: The source is not a sound GGUF file.
        EngineError: llama.cpp refuses.
    """
    header = gguf_file.read_header(Path(source))
    prepare()
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.nthread = threads
    parameters.ftype = getattr(llama_cpp, FILE_TYPES[file_type])
    # Q8_0 is close enough to float to start from and to end with; else a coarser source would be
    # rounded twice.
    fine = {t.type_name for t in header.table} <= {"F32", "F16", "Q8_0"}
    parameters.allow_requantize = fine or file_type == "Q8_0"
    overrides = (llama_cpp.llama_model_tensor_override * (len(types) + 1))()
    for place, (name, kind) in enumerate(sorted(types.items())):
        overrides[place].pattern = f"^{re.escape(name)}$".encode()
        overrides[place].type = ggml.NUMBERS[kind]
    parameters.tt_overrides = overrides
    found: Importance = {} if matrix is None else importance.load(Path(matrix))
    entries = (llama_cpp.llama_model_imatrix_data * (len(found) + 1))()
    for place, (name, columns) in enumerate(found.items()):
        entries[place].name = name.encode()
        entries[place].data = columns.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entries[place].size = columns.size
    if found:
        parameters.imatrix = entries
    status = llama_cpp.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(parameters))
    if status != 0:
        raise EngineError(
            f"{Path(source).name}: llama.cpp does not write {file_type}: {last_error()}"
        )
