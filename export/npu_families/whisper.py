"""Whisper: the audio encoder with the cross-attention's keys and values, for one length.

The NPU gets what lies between the filled log-mel and the keys and values of the audio. Before it,
the host fills up with silence; behind it, the host appends the silence that stands for the rest of
Whisper's 30 s, which is constant. The decoder's steps are small and stay on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgevoice.engines.artifact_files import onnx_file
from edgevoice.engines.log_mel import log_mel
from edgevoice.engines.whisper_greedy import GreedyWhisper
from edgevoice.errors import ExportError
from edgevoice.export import signal_noise
from edgevoice.export.calibration import Calibration
from edgevoice.export.checks import recordings
from edgevoice.export.gates import Bound
from edgevoice.export.npu_graph import Arrays, Figures, NpuGraph
from edgevoice.export.onnx_graph import load
from edgevoice.export.words import normalise, word_errors
from edgevoice.frames import Float32
from edgevoice.manifest import Manifest
from edgevoice.quant import static_graph
from edgevoice.quant.tensors import integer_operators

Rows = Sequence[np.ndarray[Any, np.dtype[np.float32]]]

FRAMES = 1000
"""10 s: 8 s of speech and the 2 s of silence without which Whisper repeats itself."""
# Of 10 s each, whose activations are all kept until their ranges are known.
_CALIBRATION_CLIPS = 16


def graph_of(folder: Path, manifest: Manifest, calibration: Calibration) -> NpuGraph:
    """Return the encoder for :data:`FRAMES`, from a float artifact.

    Raises:
        ExportError: The artifact's encoder is quantised already.
    """
    path = Path(onnx_file(folder, manifest, "encoder"))
    model = load(path)
    if integer_operators(model):
        raise ExportError(
            f"{manifest.name} is {manifest.scheme}: an NPU's integers are made of float weights; "
            "name the float artifact (edgevoice export --scheme fp32)"
        )
    part, silence = encoder(model, FRAMES)
    name = part.graph.input[0].name

    def feed(samples: Float32) -> Arrays:
        return {name: log_mel_of(samples)}

    return NpuGraph(
        part,
        path.stem,
        [feed(clip.samples) for clip in calibration.clips()[:_CALIBRATION_CLIPS]],
        [feed(clip.samples) for clip in recordings.transcribed(None)],
        (
            Bound("disagreement", "at most", 0.10, "words written otherwise than float does"),
            Bound("snr_mean_db", "at least", 20.0, "of the keys and values, over float's"),
        ),
        partial(compare, GreedyWhisper(folder, threads=1), silence),
        ("a16w8", "a8w8"),
        {
            "frames": FRAMES,
            "input": name,
        },
    )


def compare(
    decoder: GreedyWhisper, silence: Rows, wanted: Sequence[Arrays], got: Sequence[Arrays]
) -> Figures:
    """Return how loud the error is, and how many words the decoder makes other ones of it."""
    said, heard = ([_words(decoder, silence, o) for o in side] for side in (wanted, got))
    edits = sum(map(word_errors, said, heard))
    return {
        "disagreement": edits / max(sum(map(len, said)), 1),
        **signal_noise.compare(wanted, got),
    }


def _words(decoder: GreedyWhisper, silence: Rows, outputs: Arrays) -> tuple[str, ...]:
    return normalise(decoder.write(*whole(outputs, silence)).text)


def whole(outputs: Arrays, silence: Rows) -> list[Any]:
    """Return the cross-attention's keys and values: the NPU's outputs, the silence behind them."""
    pairs = zip(outputs.values(), silence, strict=True)
    return [np.concatenate([o, rows], axis=2) if rows.size else o for o, rows in pairs]


def log_mel_of(samples: Float32) -> Float32:
    """Return what the graph takes of ``samples``: float32, ``[1, 80, FRAMES]``."""
    return log_mel(samples, FRAMES)[None]


def encoder(model: onnx.ModelProto, frames: int) -> tuple[onnx.ModelProto, Rows]:
    """Return the NPU's part of the encoder ``model``, and what follows each of its outputs.

    The rows of silence are ``[layers, heads, length, head size]``; of length 0 where the NPU's part
    computes them itself.
    """
    fixed = static_graph.fix(model, {"mel": [1, model_mels(model), frames]})
    static_graph.plain_attention(fixed)
    fixed = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    graph = fixed.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output}
    first = next(node for node in graph.node if node.op_type == "Conv")
    ends: list[str] = []
    silence = []
    for output in graph.output:
        last = maker[output.name]
        while last.op_type == "Identity":
            last = maker[last.input[0]]
        rows = [name for name in last.input if name in constants]
        if last.op_type == "Concat" and rows:
            ends.append(next(name for name in last.input if name not in constants))
            silence.append(onnx.numpy_helper.to_array(constants[rows[0]]))
        else:
            ends.append(last.output[0])
            silence.append(np.zeros((1, 1, 0, 1), np.float32))
    return static_graph.cut(fixed, [first.input[0]], ends), silence


def model_mels(model: onnx.ModelProto) -> int:
    """Return the number of mel bands that the encoder takes."""
    return int(model.graph.input[0].type.tensor_type.shape.dim[1].dim_value)
