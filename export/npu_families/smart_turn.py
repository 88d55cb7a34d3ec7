"""Smart Turn: the whole published graph, its integers as they are.

The published model's ranges are part of what it learned: with its QuantizeLinear nodes taken out
and every value rounded anew, 7 of 40 answers were others. So its float nodes stay float16, and
chips without floats (v68) cannot take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgevoice.engines.artifact_files import onnx_file
from edgevoice.engines.log_mel import HOP_SAMPLES, MEL_BANDS, log_mel_of_tail
from edgevoice.engines.smart_turn import HEARD_SAMPLES
from edgevoice.export.calibration import Calibration
from edgevoice.export.checks.end_of_turn import turns
from edgevoice.export.gates import Bound
from edgevoice.export.npu_graph import Arrays, Figures, NpuGraph
from edgevoice.export.onnx_graph import load
from edgevoice.frames import Float32
from edgevoice.manifest import Manifest
from edgevoice.quant import static_graph
from edgevoice.quant.tensors import integer_operators
from edgevoice.settings import EndOfTurnSettings

_INPUT, _OUTPUT = "input_features", "logits"
_THRESHOLD = EndOfTurnSettings().threshold


def graph_of(folder: Path, manifest: Manifest, calibration: Calibration) -> NpuGraph:
    """Return the graph for one turn, ``[1, 80, 800]`` to the probability ``[1, 1]``."""
    path = Path(onnx_file(folder, manifest))
    model = load(path)
    static_graph.one_gelu(model)
    fixed = static_graph.fix(model, {_INPUT: [1, MEL_BANDS, HEARD_SAMPLES // HOP_SAMPLES]})
    return NpuGraph(
        fixed,
        path.stem,
        [features(clip.samples) for clip in calibration.clips()],
        [features(turn) for turn in turns(None)],
        (
            Bound("agreement", "at least", 0.97, "turns judged alike"),
            Bound("probability_difference", "at most", 0.05, "mean over the turns"),
        ),
        compare,
        ("as-is",) if integer_operators(fixed) else ("a16w8", "a8w8", "fp16"),
    )


def features(samples: Float32) -> Arrays:
    """Return what the graph takes of ``samples``."""
    return {_INPUT: log_mel_of_tail(samples, HEARD_SAMPLES)[None]}


def compare(wanted: Sequence[Arrays], got: Sequence[Arrays]) -> Figures:
    """Return the share of turns judged alike, and how far the probabilities are apart."""
    first, second = (np.array([float(o[_OUTPUT].item()) for o in side]) for side in (wanted, got))
    return {
        "agreement": float(((first >= _THRESHOLD) == (second >= _THRESHOLD)).mean()),
        "probability_difference": float(np.abs(first - second).mean()),
    }
