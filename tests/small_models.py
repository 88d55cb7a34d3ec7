"""What tests of the small graphs share: making artifacts of them, and spoiling them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from edgevoice.export import gates
from edgevoice.export.calibration import Calibration
from edgevoice.export.families.pack_search import describe
from edgevoice.export.family import Family, Job
from edgevoice.quant.scheme import SCHEMES


def artifact_of(folder: Path, family: Family, engine: dict[str, object] | None = None) -> Path:
    describe(folder, family.artifact_family, engine or {})
    text = (folder / "manifest.json").read_text()
    stage = '"stage": "recogniser"'
    (folder / "manifest.json").write_text(text.replace(stage, f'"stage": "{family.stage}"'))
    return folder


def converted(family: Family, source: Path, folder: Path, job: Job) -> Path:
    folder.mkdir()
    written = family.convert(source, folder, job)
    return artifact_of(folder, family, dict(written.engine))


def reference(family: Family, source: Path, folder: Path) -> Path:
    """Convert into a folder that the tests of a file share."""
    return converted(family, source, folder / "reference", Job(folder, Calibration()))


def quantised(family: Family, reference: Path, scheme: str, job: Job) -> Path:
    out = job.work.parent / scheme
    out.mkdir()
    written = family.quantise(reference, SCHEMES[scheme], family.recipe(scheme), out, job)
    assert not list(job.work.iterdir())
    return artifact_of(out, family, dict(written.engine))


def missed(family: Family, figures: gates.Figures) -> set[str]:
    """Bounds of quality that were missed; a busy machine says nothing of speed."""
    verdicts = gates.judge(figures, gates.bounds_for(family.stage, {}))
    return {v.bound.figure for v in verdicts if not v.passed} - {"speed_ratio_low"}


def change(folder: Path, how: Callable[[onnx.ModelProto], object], family: Family) -> None:
    path = folder / "model.onnx"
    model = onnx.load(str(path))
    how(model)
    onnx.save(model, str(path))
    artifact_of(folder, family)


def weights(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [t for t in model.graph.initializer if np.prod(t.dims) > 5_000]


def silence(tensor: onnx.TensorProto) -> None:
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(values), tensor.name))


def swap(first: onnx.TensorProto, second: onnx.TensorProto) -> None:
    one, two = numpy_helper.to_array(first), numpy_helper.to_array(second)
    assert one.shape == two.shape and not np.array_equal(one, two)
    first.CopyFrom(numpy_helper.from_array(two, first.name))
    second.CopyFrom(numpy_helper.from_array(one, second.name))
