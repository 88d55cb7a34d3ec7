"""Silero VAD: the step of 512 samples at 16 kHz with its state, in float16.

In integers it is no VAD any more: the magnitudes of its spectrum span more than 16 bits hold, and
the probability came out wrong by up to 0.31. A step takes a CPU 0.1 ms, so there is little to gain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx

from edgevoice.engines.artifact_files import onnx_file
from edgevoice.errors import ExportError
from edgevoice.export.calibration import Calibration, Clip
from edgevoice.export.checks import recordings
from edgevoice.export.families.silero_vad import keep_16_khz
from edgevoice.export.gates import Bound
from edgevoice.export.npu_graph import Arrays, Figures, NpuGraph
from edgevoice.export.onnx_graph import load
from edgevoice.manifest import Manifest
from edgevoice.quant import static_graph

_WINDOW, _CONTEXT = 512, 64
_STATE = (2, 1, 128)
_STEPS = 200


def graph_of(folder: Path, manifest: Manifest, calibration: Calibration) -> NpuGraph:
    """Return one step: ``input [1, 576]``, ``state [2, 1, 128]`` to both outputs.

    Raises:
        ExportError: It is version 4, whose layout is another.
    """
    path = Path(onnx_file(folder, manifest))
    model = load(path)
    keep_16_khz(model)
    if {value.name for value in model.graph.input} - {"sr"} != {"input", "state"}:
        raise ExportError(f"{path.name}: Silero VAD of version 5 or 6 is needed for an NPU")
    inputs = [value for value in model.graph.input if value.name != "sr"]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    fixed = static_graph.fix(model, {"input": [1, _CONTEXT + _WINDOW], "state": _STATE})
    return NpuGraph(
        fixed,
        path.stem,
        _steps(fixed, calibration.clips()),
        _steps(fixed, recordings.librivox() or recordings.spoken_questions()),
        (
            Bound("agreement", "at least", 0.99, "windows judged alike"),
            Bound("probability_difference", "at most", 0.02, "mean over the windows"),
        ),
        compare,
        ("fp16", "a16w8"),
    )


def compare(wanted: Sequence[Arrays], got: Sequence[Arrays]) -> Figures:
    """Return the share of windows judged alike, and how far the probabilities are apart."""
    first, second = (np.array([float(o["output"].item()) for o in side]) for side in (wanted, got))
    return {
        "agreement": float(((first >= 0.5) == (second >= 0.5)).mean()),
        "probability_difference": float(np.abs(first - second).mean()),
    }


def _steps(model: onnx.ModelProto, clips: Iterable[Clip]) -> list[Arrays]:
    """Return inputs of steps with the states that the float model is in at them."""
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds: list[Arrays] = []
    for clip in clips:
        state = np.zeros(_STATE, np.float32)
        for end in range(_CONTEXT + _WINDOW, len(clip.samples), _WINDOW):
            feed = {"input": clip.samples[None, end - _CONTEXT - _WINDOW : end], "state": state}
            feeds.append(feed)
            _, state = session.run(None, feed)
            if len(feeds) == _STEPS:
                return feeds
    return feeds
