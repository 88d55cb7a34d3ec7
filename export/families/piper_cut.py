"""Cuts a Piper (VITS) graph before its decoder and measures how the decoder may run in parts.

Owns where the cut is and the proof that it changes nothing. The halves are run by
:mod:`edgevoice.engines.vits_graph`. The decoder is HiFi-GAN's generator (`dec` in VITS's
`models.py`): its first layer is `conv_pre`, whose input is the latent times the mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevoice.errors import ArtifactError

MAX_ERROR = 1e-4
"""Of a sample, in parts against whole. 1e-3 is one frame less with the joe voice, but that frame
is the last with any influence (1e-6 with it), and another sentence can be louder there."""
MAX_OVERLAP_FRAMES = 64
_BORDERS = 6
_KEPT_FRAMES = 4
_STEP_FRAMES = 40


@dataclass(frozen=True, slots=True)
class CutPoint:
    """Tensors that cross the cut.

    Attributes:
        latent: [1, channels, frames], the input of the decoder's first convolution.
        others: What else the decoder takes and depends on the voice's inputs, such as the
            projection of the speaker's embedding, [1, channels, 1].
    """

    latent: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Halves:
    """Figures of a cut that was measured: see :func:`measure`."""

    overlap_frames: int
    samples_per_frame: int
    max_error: float


def find(model: Any) -> CutPoint:
    """Return where the float graph ``model`` (a ``ModelProto``) is to be cut.

    Raises:
        ArtifactError: It has no decoder that begins with one convolution named `conv_pre`.
    """
    graph = model.graph
    starts = [
        node
        for node in graph.node
        if node.op_type == "Conv" and any("conv_pre" in name for name in (node.name, node.input[1]))
    ]
    if len(starts) != 1:
        raise ArtifactError(
            f"the graph has {len(starts)} float convolutions named conv_pre, a decoder has one"
        )
    latent = str(starts[0].input[0])
    given = _reached(graph.node, {i.name for i in graph.input})
    after = _reached(graph.node, {latent})
    if latent not in given or graph.output[0].name not in after:
        raise ArtifactError(f"{latent!r} does not lie between the graph's inputs and its output")
    made_by = {name: node for node in graph.node for name in node.output}
    others: dict[str, None] = {}
    seen = set()
    waiting = [graph.output[0].name]
    while waiting:
        name = waiting.pop()
        if name == latent or name in seen or name not in after:
            continue
        seen.add(name)
        inputs = list(made_by[name].input)
        others |= dict.fromkeys(i for i in inputs if i in given and i not in after)
        waiting += inputs
    return CutPoint(latent, tuple(others))


def split(model: Any, point: CutPoint) -> tuple[Any, Any]:
    """Return the two halves of ``model``, which may be the quantised form of what was searched."""
    from onnx import ModelProto, TensorProto, helper
    from onnx.utils import Extractor

    whole = ModelProto()
    whole.CopyFrom(model)
    crossing = [point.latent, *point.others]
    # The extractor wants to know each tensor that it cuts at; quantising loses some of them.
    kept = [info for info in whole.graph.value_info if info.name not in crossing]
    del whole.graph.value_info[:]
    shape = [None, None, None]
    crossed = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in crossing]
    whole.graph.value_info.extend([*kept, *crossed])
    extractor = Extractor(whole)
    inputs = [i.name for i in whole.graph.input]
    output = whole.graph.output[0].name
    return (
        extractor.extract_model(inputs, crossing),
        extractor.extract_model(crossing, [output]),
    )


def measure(whole: Path, front: Path, decoder: Path, feed: Mapping[str, Any]) -> Halves:
    """Find the least overlap with which the decoder in parts equals ``whole``.

    Args:
        whole: The float graph.
        front: Its first half.
        decoder: Its second half.
        feed: Inputs of a sentence without noise.

    Raises:
        ArtifactError: The halves differ from the whole by more than :data:`MAX_ERROR`, or there is
            no such overlap.
    """
    wanted = _session(whole).run(None, dict(feed))[0].reshape(-1)
    latent, *others = _session(front).run(None, dict(feed))
    if any(np.ndim(other) != 3 or other.shape[2] != 1 for other in others):
        raise ArtifactError("the decoder takes another input that changes with time")
    frames = latent.shape[2]
    session = _session(decoder)
    names = [i.name for i in session.get_inputs()]

    def decode(low: int, high: int) -> npt.NDArray[np.float32]:
        part = np.ascontiguousarray(latent[:, :, low:high])
        fed = dict(zip(names, [part, *others], strict=True))
        samples: npt.NDArray[np.float32] = session.run(None, fed)[0].reshape(-1)
        return samples

    made = decode(0, frames)
    hop = len(made) // frames
    if len(made) != len(wanted) or hop * frames != len(made):
        raise ArtifactError(f"{frames} frames became {len(made)} samples of {len(wanted)}")
    if not (error := float(np.abs(made - wanted).max())) <= MAX_ERROR:
        raise ArtifactError(f"the halves differ from the whole graph by {error:.2g}")

    def pieces(overlap: int, starts: Sequence[int], length: int) -> float:
        """Largest error of pieces of ``length`` frames that were decoded by themselves."""
        worst = 0.0
        for start in starts:
            low, stop = max(0, start - overlap), min(start + length, frames)
            piece = decode(low, min(stop + overlap, frames))
            piece = piece[(start - low) * hop : (stop - low) * hop]
            worst = max(worst, float(np.abs(piece - wanted[start * hop : stop * hop]).max()))
        return worst

    for overlap in range(min(MAX_OVERLAP_FRAMES, frames // 3)):
        borders = np.linspace(overlap, frames - overlap - _KEPT_FRAMES, _BORDERS).astype(int)
        if pieces(overlap, borders.tolist(), _KEPT_FRAMES) > MAX_ERROR:
            continue
        error = pieces(overlap, range(0, frames, _STEP_FRAMES), _STEP_FRAMES)
        if error <= MAX_ERROR:
            return Halves(overlap, hop, error)
    raise ArtifactError(
        f"no overlap below {min(MAX_OVERLAP_FRAMES, frames // 3)} frames makes the decoder's "
        "parts equal to the whole"
    )


def _reached(nodes: Any, names: set[str]) -> set[str]:
    """Return ``names`` and every tensor that depends on one of them (nodes are in order)."""
    reached = set(names)
    for node in nodes:
        if not reached.isdisjoint(node.input):
            reached.update(node.output)
    return reached


def _session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
