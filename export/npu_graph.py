"""What of an artifact goes to an NPU: one graph of fixed sizes, and speech to calibrate it with.

A family's module in :mod:`edgevoice.export.npu_families` makes an :class:`NpuGraph` of an artifact;
the rest (quantising, compiling, the gates, publishing) is :mod:`edgevoice.export.npu`'s.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from edgevoice.errors import ExportError
from edgevoice.export.calibration import Calibration
from edgevoice.export.gates import Bound
from edgevoice.manifest import Manifest

Arrays = Mapping[str, Any]
Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class NpuGraph:
    """One graph to compile.

    Attributes:
        model: Every size fixed; float, or quantised already.
        stem: Of the binary's file: that of the artifact's graph which it stands for.
        calibration: Inputs to calibrate activations with.
        held_out: Inputs to judge by, none of them in ``calibration``.
        bounds: What a candidate has to meet against the float graph, or against the artifact's own
            where that is quantised already.
        compare: ``(wanted, got)``: outputs of ``held_out`` by name -> figures.
        schemes: Of :data:`SCHEMES`, the first to be preferred.
        facts: What the engine must know of this graph.
        files: Graphs for the CPU that the engine needs around it, by their path in the artifact.
        engine: What the manifest's engine table has to say of those.
    """

    model: onnx.ModelProto
    stem: str
    calibration: Sequence[Arrays]
    held_out: Sequence[Arrays]
    bounds: tuple[Bound, ...]
    compare: Callable[[Sequence[Arrays], Sequence[Arrays]], Figures]
    schemes: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, onnx.ModelProto] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)


SCHEMES: Mapping[str, str] = {
    "a16w8": "activations in 16 bits, weights in 8",
    "a8w8": "activations and weights in 8 bits",
    "fp16": "float16, on chips whose tensor processor has it",
    "as-is": "quantised already: its own integers, float16 between them",
}
"""How a graph is written for the HTP."""

MODULES: Mapping[str, str] = {
    "smart-turn": "smart_turn",
    "whisper": "whisper",
    "silero-vad": "silero_vad",
    "piper": "piper",
}
"""Families that have such a graph; none has more than one."""

Make = Callable[[Path, Manifest, Calibration], NpuGraph]


def load(family: str) -> Make:
    """Return what makes the graph of an artifact of ``family``.

    Raises:
        ExportError: No graph of that family is for an NPU.
    """
    if family not in MODULES:
        raise ExportError(
            f"nothing of a {family!r} artifact goes to an NPU yet; what does: {', '.join(MODULES)}"
        )
    make: Make = importlib.import_module(
        f"edgevoice.export.npu_families.{MODULES[family]}"
    ).graph_of
    return make
