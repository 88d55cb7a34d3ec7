"""Smart Turn: exported, measured, and planted faults are caught."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from small_models import change, missed, quantised, reference, silence, swap, weights

from edgevoice.errors import ArtifactError
from edgevoice.export import family as families
from edgevoice.export.checks import end_of_turn
from edgevoice.export.family import Job

pytestmark = pytest.mark.usefixtures("few_runs")
SMART_TURN = families.load("smart-turn")


@pytest.fixture(scope="module")
def smart_turn(artifact: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reference(SMART_TURN, artifact("smart-turn-v3.2"), tmp_path_factory.mktemp("turns"))


def test_smart_turn_passes_through(smart_turn: Path, material: Path, job: Job) -> None:
    assert SMART_TURN.inspect(smart_turn).detail["quantised already"] == "model.onnx"
    kept = quantised(SMART_TURN, smart_turn, "int8", job)
    figures = end_of_turn.measure(smart_turn, kept, material, 1)
    assert not missed(SMART_TURN, figures)
    assert (figures["agreement"], figures["probability_difference"]) == (1.0, 0.0)
    assert figures["turns"] == 10
    with pytest.raises(ArtifactError, match="quantised already, fp16 cannot be made of it"):
        quantised(SMART_TURN, smart_turn, "fp16", job)


def scales(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Scales of the largest weights."""
    large = {t.name for t in weights(model) if t.data_type == TensorProto.INT8}
    named = {
        n.input[1]
        for n in model.graph.node
        if n.op_type == "DequantizeLinear" and n.input[0] in large
    }
    return [t for t in model.graph.initializer if t.name in named]


def one_scale(model: onnx.ModelProto) -> None:
    """Per-tensor scales where the weights were rounded per channel."""
    per_channel = [t for t in scales(model) if np.prod(t.dims) > 1]
    assert per_channel
    for tensor in per_channel:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.full_like(values, values.max()), tensor.name))


@pytest.fixture(scope="module")
def two_clips(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough for one turn that is judged otherwise to be a quarter of them."""
    folder = tmp_path_factory.mktemp("two-clips")
    for name in ("0.wav", "1.wav"):
        shutil.copy(material / name, folder)
    return folder


@pytest.mark.parametrize(
    "fault",
    [
        lambda m: silence(scales(m)[4]),
        lambda m: swap(*[t for t in weights(m) if t.dims == weights(m)[6].dims][:2]),
        one_scale,
    ],
    ids=["scale of zero", "swapped tensors", "one scale per tensor"],
)
def test_a_fault_in_the_end_of_turn_model_is_caught(
    fault: Callable[[onnx.ModelProto], None], smart_turn: Path, two_clips: Path, job: Job
) -> None:
    candidate = quantised(SMART_TURN, smart_turn, "int8", job)
    change(candidate, fault, SMART_TURN)
    figures = end_of_turn.measure(smart_turn, candidate, two_clips, 1)
    assert "agreement" in missed(SMART_TURN, figures), figures
