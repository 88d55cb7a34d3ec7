"""The importance matrix of a GGUF model: how strongly each column of each weight is driven.

For every matrix product of the float model on calibration text, the mean over the tokens of the
squared inputs, column by column: what llama.cpp's ``imatrix`` tool measures, and what its
quantiser weighs rounding errors with. The tied output matrix is left out there and here, and so
are experts (``MUL_MAT_ID``), which are then rounded without weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice.engines.llama_library import llama_cpp
from edgevoice.errors import EngineError
from edgevoice.quant import child, ggml
from edgevoice.quant.ggml import Float32
from edgevoice.quant.gguf_scores import GgufScorer, values, windows

Importance = Mapping[str, Float32]
"""By tensor name: float32, one value a column."""

CALIBRATION_TOKENS = 3072
"""The most that is read; the project's own text has 2,642 of SmolLM2's. They took the divergence
of its Q4_K_M from 0.062 to 0.040 nats per token, at the same bytes."""


def gather(
    path: Path,
    sentences: Sequence[str],
    threads: int,
    most_tokens: int = CALIBRATION_TOKENS,
    advance: Callable[[int], object] = int,
) -> Importance:
    """Measure the importance matrix of a float GGUF, in this process.

    Args:
        path: The file, F32, F16 or BF16 weights.
        sentences: Calibration text, read in this order in windows of 256 tokens.
        threads: For llama.cpp.
        most_tokens: Text beyond these is not read.
        advance: Called with the number of tokens just read.

    Raises:
        ArtifactError: The file is not sound.
        EngineError: llama.cpp fails, or an activation is not finite.
    """
    sums: dict[str, Any] = {}
    counts: dict[str, int] = {}

    def watch(node: ggml.Tensor) -> None:
        name = ggml.at(node.src[0]).name.decode()
        inputs = ggml.at(node.src[1])
        if not name.startswith("blk.") or inputs.type != llama_cpp.GGML_TYPE_F32:
            return
        rows = values(node.src[1])
        seen = np.einsum("rc,rc->c", rows, rows, dtype=np.float64)
        sums[name] = sums.get(name, 0.0) + seen
        counts[name] = counts.get(name, 0) + len(rows)

    scorer = GgufScorer(path, threads, watch)
    try:
        for window in windows(scorer.tokenise("\n".join(sentences)), most_tokens):
            scorer.read(window)
            advance(len(window))
    finally:
        scorer.close()
    found = {name: (sums[name] / counts[name]).astype(np.float32) for name in sorted(sums)}
    for name, columns in found.items():
        if not np.isfinite(columns).all():
            raise EngineError(f"{path.name}: what enters {name} is not finite; the weights are bad")
    return found


def save(importance: Importance, path: Path) -> None:
    """Write ``importance`` to the NumPy archive ``path``; equal matrices are equal bytes."""
    with path.open("wb") as file:
        np.savez(file, **dict(importance), allow_pickle=False)


def load(path: Path) -> Importance:
    """Read what :func:`save` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def gather_to(path: str, sentences: list[str], threads: int, most_tokens: int, out: str) -> int:
    """Be the child of :func:`measure`; returns how many matrices were seen."""
    found = gather(Path(path), sentences, threads, most_tokens, child.advance)
    save(found, Path(out))
    return len(found)


def measure(
    path: Path,
    sentences: Sequence[str],
    threads: int,
    out: Path,
    *,
    most_tokens: int = CALIBRATION_TOKENS,
    advance: Callable[[int], object] = int,
) -> Path:
    """Gather in a child process and write the matrix to ``out``.

    Raises:
        ExportError: The child's one line of what went wrong.
    """
    child.run(
        "edgevoice.quant.importance:gather_to",
        {
            "path": str(path),
            "sentences": list(sentences),
            "threads": threads,
            "most_tokens": most_tokens,
            "out": str(out),
        },
        f"measuring the importance matrix of {path.name}",
        advance=advance,
    )
    return out
