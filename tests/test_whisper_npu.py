"""Whisper behind a binary for the NPU: the stretch that it hears, and the CPU where it cannot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from speech import librivox

from edgevoice import manifest as manifests
from edgevoice.engines import providers, whisper_npu
from edgevoice.engines.providers import Files, Ran, Wanted
from edgevoice.engines.recogniser import load_recogniser
from edgevoice.errors import ArtifactError, EngineError
from edgevoice.export import npu
from edgevoice.export.npu_families import whisper
from edgevoice.settings import RecogniserSettings
from edgevoice.store import describe

SETTINGS = RecogniserSettings(providers=("qnn", "cpu"))
NPU: dict[str, Any] = {"soc": "sm8650", "soc_model": 57, "qnn_version": "2.51.0", "frames": 1000}


@pytest.fixture
def pack(artifact: Callable[[str], Path], tmp_path: Path) -> Path:
    """The default Whisper as an artifact for an NPU whose binary is none."""
    folder = shutil.copytree(artifact("whisper-tiny.en-int8"), tmp_path / "whisper-npu")
    (folder / "encoder.int8.qnn").write_bytes(b"no binary")
    text = json.loads((folder / "manifest.json").read_text())
    text["engine"]["npu"] = NPU
    text["files"] = [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in describe(folder)]
    (folder / "manifest.json").write_text(json.dumps(text))
    return folder


class Compiled:
    """A session that computes in floats what the binary computes in integers."""

    def __init__(self, part: onnx.ModelProto) -> None:
        self._part = part
        self.heard: list[Any] = []

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=self._part.graph.input[0].name)]

    def get_outputs(self) -> list[SimpleNamespace]:
        shapes = [o.type.tensor_type.shape.dim for o in self._part.graph.output]
        return [SimpleNamespace(shape=[d.dim_value for d in dims]) for dims in shapes]

    def run(self, names: None, feed: dict[str, Any]) -> list[Any]:
        self.heard.append(feed)
        (outputs,) = npu.outputs(self._part, [feed])
        return list(outputs.values())


def stand_in(monkeypatch: pytest.MonkeyPatch, pack: Path, ran: Ran) -> Compiled:
    """Have the NPU take ``pack``'s encoder; what is for the CPU goes there."""
    part, _ = whisper.encoder(onnx.load(str(pack / "encoder.int8.onnx")), NPU["frames"])
    session, opened = Compiled(part), providers.open_first

    def open_first(files: Files, options: Any, wanted: Wanted) -> tuple[Any, Ran]:
        return (session, ran) if "qnn" in wanted.order else opened(files, options, wanted)

    monkeypatch.setattr(providers, "open_first", open_first)
    return session


def test_a_recording_is_heard_through_the_binary(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = Ran("qnn", "sm8650, HTP emulator")
    session = stand_in(monkeypatch, pack, ran)
    model = load_recogniser(pack, SETTINGS)
    assert providers.of(model) == ran
    recogniser = model.open()
    recogniser.accept(librivox(880))
    with_npu = recogniser.conclude().text
    on_cpu = load_recogniser(pack, RecogniserSettings()).open()
    on_cpu.accept(librivox(880))
    assert with_npu == on_cpu.conclude().text != ""
    assert all(feed.popitem()[1].shape == (1, 80, 1000) for feed in session.heard)


def test_a_breath_is_padded_and_a_long_utterance_cut(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = manifests.read(pack)
    assert whisper_npu.longest_ms(described) == 8000.0
    session = stand_in(monkeypatch, pack, Ran("qnn"))
    found, _ = whisper_npu.load(pack, described, 1, Wanted(("qnn",)))
    assert found is not None
    for samples in (10, 20 * 16_000):
        found.decode(np.zeros(samples, np.float32))
    assert len(session.heard) == 2


def test_without_the_npu_the_cpu_hears_and_the_reason_is_said(pack: Path) -> None:
    ran = providers.of(load_recogniser(pack, SETTINGS))
    assert ran is not None and ran.name == "cpu"
    (line,) = ran.passed_over
    assert line.startswith("qnn: ") and "\n" not in line
    required = RecogniserSettings(providers=("qnn",), provider_required=True)
    with pytest.raises(EngineError, match="whisper-npu does not run on qnn"):
        load_recogniser(pack, required)


def test_a_manifest_without_a_length_is_refused(pack: Path) -> None:
    text = json.loads((pack / "manifest.json").read_text())
    del text["engine"]["npu"]["frames"]
    (pack / "manifest.json").write_text(json.dumps(text))
    with pytest.raises(ArtifactError, match="frames is not a number"):
        whisper_npu.longest_ms(manifests.read(pack))
