"""Artifacts for an NPU: real models compiled for the HTP, run in its emulator, published last."""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from speech import librivox

from edgevoice import manifest
from edgevoice.cli import main
from edgevoice.devices import socs
from edgevoice.engines import providers
from edgevoice.engines.log_mel import HOP_SAMPLES, log_mel
from edgevoice.engines.providers import Files, Wanted
from edgevoice.engines.silero_vad import load_vad
from edgevoice.engines.smart_turn import load_smart_turn
from edgevoice.engines.whisper_greedy import GreedyWhisper
from edgevoice.errors import ConfigError, EngineError, ExportError
from edgevoice.export import htp, npu, npu_graph
from edgevoice.export.calibration import Calibration
from edgevoice.export.checks import recordings
from edgevoice.export.gates import Bound
from edgevoice.export.npu import NpuExporter, NpuRequest
from edgevoice.export.npu_families import smart_turn, whisper
from edgevoice.export.npu_graph import NpuGraph
from edgevoice.export.words import normalise, word_errors
from edgevoice.settings import EndOfTurnSettings, VadSettings
from edgevoice.store import Store

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux",
    reason="the HTP's compiler and emulator are for x86-64 Linux",
)
SOC = socs.find("sm8650")


@pytest.fixture
def store(tmp_path: Path, artifact: Callable[[str], Path]) -> Store:
    """A store with the two small models of the default bundle."""
    here = Store(tmp_path / "store")
    for name in ("silero-vad", "smart-turn-v3.2"):
        shutil.copytree(artifact(name), here.root / name)
    return here


def test_a_vad_for_the_8_gen_3(store: Store) -> None:
    done = NpuExporter(store).run(NpuRequest("silero-vad", SOC, emulated=2))
    assert done.scheme == "fp16" and done.folder == store.path("silero-vad-sm8650")
    described = store.manifest("silero-vad-sm8650")
    assert described.format == "qnn" and store.verify(described.name) == ()
    npu_facts = described.engine["npu"]
    assert (npu_facts["soc"], npu_facts["soc_model"], npu_facts["htp_arch"]) == ("sm8650", 57, 75)
    assert npu_facts["qnn_version"] == done.compiled.qnn_version
    assert described.checks["npu"]["figures"]["in the HTP emulator"]["agreement"] == 1.0
    # The files for the CPU are what they were, and load.
    before = store.manifest("silero-vad").files
    assert set(before) < set(described.files)
    load_vad(done.folder, VadSettings())


def test_what_a_chip_lacks_is_named_and_nothing_is_published(store: Store) -> None:
    said: list[str] = []
    with pytest.raises(ExportError, match="nothing is published for qcs6490") as raised:
        exporter = NpuExporter(store, say=said.append)
        exporter.run(NpuRequest("smart-turn-v3.2", socs.find("qcs6490"), scheme="fp16"))
    assert "LayerNormalization" in str(raised.value) and "no float" in str(raised.value)
    assert said and store.names() == ("silero-vad", "smart-turn-v3.2")


def test_a_missed_bound_publishes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = npu_graph.load("silero-vad")

    def strict(folder: Path, described: manifest.Manifest, calibration: Calibration) -> NpuGraph:
        bound = Bound("probability_difference", "at most", -1.0)
        graph = made(folder, described, calibration)
        return replace(graph, bounds=(bound,), schemes=("fp16",))

    monkeypatch.setattr(npu_graph, "load", lambda family: strict)
    with pytest.raises(ExportError, match="probability_difference 0, allowed at most -1: missed"):
        NpuExporter(store).run(NpuRequest("silero-vad", SOC, emulated=0))
    assert "silero-vad-sm8650" not in store.names()


def test_bad_requests_are_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="unknown scheme for the NPU 'int4'"):
        NpuExporter(store).run(NpuRequest("silero-vad", SOC, scheme="int4"))
    with pytest.raises(ConfigError, match="no program"):
        NpuExporter(store).run(NpuRequest("silero-vad", SOC, python="/nowhere/python"))
    described = store.manifest("silero-vad")
    manifest.write(replace(described, family="gguf"), store.path("silero-vad"))
    with pytest.raises(ExportError, match="nothing of a 'gguf' artifact goes to an NPU"):
        NpuExporter(store).run(NpuRequest("silero-vad", SOC))
    assert main(["export", "qnn", "silero-vad", "--soc", "sm8560"]) == 2
    assert "unknown SoC 'sm8560'; did you mean 'sm8" in capsys.readouterr().err
    assert main(["export", "qnn", "silero-vad", "--soc", "sm8650", "--emulate", "-1"]) == 2
    monkeypatch.setattr(htp.platform, "machine", lambda: "aarch64")
    with pytest.raises(Exception, match="compiles for the HTP on x86-64"):
        htp.interpreter()


def test_the_listing_names_the_chips(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for soc in socs.SOCS.values():
        (line,) = (line for line in lines if line.startswith(f"{soc.name} "))
        assert soc.title in line and ("fp16" in line) == soc.floats
    assert main(["export", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [s["soc_model"] for s in listed["socs"]] == [43, 57, 69, 35]


def test_the_compiler_is_this_interpreter_where_it_has_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert htp.interpreter() == Path(sys.executable)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    asked: list[object] = []
    monkeypatch.setattr(htp, "environment", lambda *given: asked.append(given[1]) or Path("/e"))
    assert htp.interpreter() == Path("/e/python") and asked == [htp.REQUIREMENTS]


def test_smart_turn_judges_a_recording_on_the_htp_as_on_the_cpu(
    artifact: Callable[[str], Path], tmp_path: Path
) -> None:
    """The one real inference of the tests: half a minute in the emulator."""
    folder = artifact("smart-turn-v3.2")
    graph = smart_turn.graph_of(folder, manifest.read(folder), Calibration(None))
    kinds = {node.op_type for node in graph.model.graph.node}
    assert not kinds & {"Erf", "QuantizeLinear", "DequantizeLinear"}
    assert graph.files == {"smart-turn-v3.2-cpu.onnx": graph.model}  # for where there is no NPU
    few = replace(graph, calibration=graph.calibration[::4])
    made = htp.compile_graph(
        npu.written(few, "a16w8"), tmp_path / "model.qnn", SOC, Path(sys.executable)
    )
    facts = {"soc": SOC.name, "soc_model": SOC.soc_model, "qnn_version": made.qnn_version}
    onnx.save(graph.model, str(tmp_path / "model.onnx"))
    files = Files(tmp_path / "model.onnx", made.path, facts)
    import onnxruntime

    session, ran = providers.open_session(files, onnxruntime.SessionOptions, Wanted(("qnn",), True))
    assert ran.name == "qnn"
    feed = smart_turn.features(librivox(880))
    (wanted,) = npu.outputs(graph.model, [feed])
    got = dict(zip(["logits"], session.run(None, dict(feed)), strict=True))
    figures = smart_turn.compare([wanted], [got])
    assert figures["agreement"] == 1.0 and figures["probability_difference"] < 0.03


def test_smart_turn_without_a_binary_runs_on_the_cpu_and_says_so(
    artifact: Callable[[str], Path],
) -> None:
    settings = EndOfTurnSettings(providers=("qnn", "cpu"))
    judge = load_smart_turn(artifact("smart-turn-v3.2"), settings)
    assert judge.provider.name == "cpu"
    assert "edgevoice export qnn" in judge.provider.passed_over[0]
    with pytest.raises(EngineError, match="does not run on qnn"):
        load_smart_turn(artifact("smart-turn-v3.2"), replace(settings, provider_required=True))


def test_a_whisper_encoder_for_one_length_and_the_decoder_behind_it(
    artifact: Callable[[str], Path],
) -> None:
    """The part for the NPU and its silence are the encoder: the decoder hears the words."""
    folder = artifact("whisper-tiny.en-int8")
    described = manifest.read(folder)
    with pytest.raises(ExportError, match="made of float weights"):
        whisper.graph_of(folder, described, Calibration(None))
    decoder = GreedyWhisper(folder, threads=1)
    clip = recordings.librivox()[1]
    encoder = onnx.load(str(folder / "encoder.int8.onnx"))
    part, silence = whisper.encoder(encoder, 1000)
    assert not any(node.op_type == "MultiHeadAttention" for node in part.graph.node)
    feed = {part.graph.input[0].name: whisper.log_mel_of(clip.samples)}
    (outputs,) = npu.outputs(part, [feed])
    text = decoder.write(*whisper.whole(outputs, silence)).text
    said = normalise(clip.text)
    assert word_errors(said, normalise(text)) <= len(said) // 4


def test_whispers_own_log_mel() -> None:
    """A tone is where it sounds, and silence behind it is Whisper's."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    mel = log_mel(tone, 300)
    assert mel.shape == (80, 300) and mel.dtype == np.float32
    assert mel[:, 50].argmax() == mel[:, 20].argmax()
    heard = len(tone) // HOP_SAMPLES
    np.testing.assert_allclose(mel[:, heard:], max(-1.5, mel.max() - 2.0))
