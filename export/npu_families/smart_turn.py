"""Smart Turn: the whole graph, its activations in 16 bits instead of the published 8.

The published graph's 8-bit activations are the weak spot: a softmax over 400 places in steps of
1/258 gives most of them one step or none, so that the last bit of a product decides turns. Two
sets of onnxruntime's CPU kernels (optimised, and not) judge 9 of 176 turns differently; on the HTP
the same integers did so with 2 of 40. So that rounding is taken out, the weights stay the integers
that they are, and the activations are calibrated anew: on speech that is whole and cut off, clean
and noisy, since each has other ranges. The reference is the graph without the rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx

from edgevoice.engines.artifact_files import onnx_file
from edgevoice.engines.log_mel import HOP_SAMPLES, MEL_BANDS, log_mel_of_tail
from edgevoice.engines.smart_turn import HEARD_SAMPLES
from edgevoice.export.calibration import Calibration, Clip
from edgevoice.export.checks import recordings
from edgevoice.export.checks.end_of_turn import CUT, SILENCE_SAMPLES, turns_of
from edgevoice.export.gates import Bound
from edgevoice.export.npu_graph import Arrays, Figures, NpuGraph
from edgevoice.export.onnx_graph import load
from edgevoice.frames import Float32
from edgevoice.manifest import Manifest
from edgevoice.quant import static_graph
from edgevoice.quant.float_again import without_rounding
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
    files: dict[str, onnx.ModelProto] = {}
    if integer_operators(fixed):
        fixed = static_graph.fix(without_rounding(fixed), {})
        # Where the NPU cannot be had, turns are judged as on it, and not as published.
        files[path.relative_to(folder).as_posix()] = fixed
    others = (*recordings.librivox(), *recordings.spoken_questions())
    return NpuGraph(
        fixed,
        path.stem,
        [features(turn) for turn in calibrating(calibration.clips())],
        [features(turn) for turn in turns_of(others)],
        (
            Bound("agreement", "at least", 0.975, "turns judged alike"),
            Bound("probability_difference", "at most", 0.01, "mean over the turns"),
        ),
        compare,
        ("a16w8", "fp16"),
        files=files,
    )


def calibrating(clips: Sequence[Clip]) -> Iterator[Float32]:
    """Yield each clip whole and cut off, clean and noisy, with the silence of a question."""
    silence = np.zeros(SILENCE_SAMPLES, np.float32)
    for number, clip in enumerate(clips):
        for samples in (clip.samples, recordings.noisy(clip.samples, number)):
            for end in (len(samples), int(CUT * len(samples))):
                yield np.concatenate([samples[:end], silence])


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
