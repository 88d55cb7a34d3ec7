"""Compares the rewritten graph of a language model with torch's logits.

Owns how the graph is read for that; the trace itself is :mod:`edgevoice.export.torch_program`'s
and the program's that it runs, :mod:`edgevoice.export.optimum_export`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgevoice.engines.onnx_decoder import Decoder, Network
from edgevoice.errors import EngineError, ExportError

PROGRAM = "optimum_export.py"


def distance(path: Path, check: Path, threads: int) -> float:
    """Return how far the graph's logits are from torch's, in units of their spread.

    Reads in pieces and reads again after forgetting, as a conversation does.

    Raises:
        ArtifactError: onnxruntime cannot load the graph.
        ExportError: It does not run.
    """
    with np.load(check) as stored:
        tokens, logits = [int(t) for t in stored["tokens"]], np.asarray(stored["logits"])
    decoder = Decoder(Network(path, threads), len(tokens) + 8)
    third = len(tokens) // 3
    try:
        decoder.read(tokens[third:], 0)
        parts = [
            decoder.read(tokens[:third], 0, third),
            decoder.read(tokens[third:-1], third, len(tokens) - 1 - third),
            decoder.read(tokens[-1:], len(tokens) - 1),
        ]
    except EngineError as error:
        raise ExportError(f"the rewritten graph does not run: {error}") from error
    difference = np.abs(np.concatenate(parts) - logits).max()
    return float(difference / max(float(logits.std()), 1e-6))
