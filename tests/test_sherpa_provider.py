"""sherpa-onnx's own providers: what its build lacks is said with its own words, never silent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgevoice import doctor
from edgevoice.cli import main
from edgevoice.config import override
from edgevoice.engines import probe, providers, sherpa_provider
from edgevoice.engines import recogniser as recogniser_engines
from edgevoice.engines import speech as speech_engines
from edgevoice.engines.providers import Ran, Wanted
from edgevoice.engines.recogniser import load_recogniser
from edgevoice.engines.speech import load_speech
from edgevoice.errors import EngineError
from edgevoice.settings import RecogniserSettings, Settings, SpeechSettings
from edgevoice.store import Store

LOADER = "edgevoice.engines.recogniser:load_on"


def test_a_provider_that_the_build_lacks_is_passed_over(artifact: Callable[[str], Path]) -> None:
    """PyPI's wheel has the CPU alone; it says so on stderr, and for rknn ends the process."""
    settings = RecogniserSettings(providers=("nnapi", "rknn", "cpu"))
    ran = providers.of(load_recogniser(artifact("whisper-tiny.en-int8"), settings))
    assert ran is not None and ran.name == "cpu" and len(ran.passed_over) == 2
    nnapi, rknn = ran.passed_over
    assert nnapi.startswith("nnapi: sherpa-onnx says: ") and "Android only" in nnapi
    assert rknn.startswith("rknn: sherpa-onnx says: Please rebuild") and "\n" not in rknn


def test_a_required_provider_is_an_error(artifact: Callable[[str], Path]) -> None:
    settings = RecogniserSettings(providers=("xnnpack", "cpu"), provider_required=True)
    with pytest.raises(EngineError, match="int8 does not run on xnnpack: sherpa-onnx says"):
        load_recogniser(artifact("whisper-tiny.en-int8"), settings)


def test_recogniser_and_voice_are_asked_too(
    artifact: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider's name reaches the loader of each engine, and what it says reaches the user."""
    asked: list[tuple[str, ...]] = []

    def attempt(loader: str, *more: str, timeout_s: float = 0) -> tuple[int, bytes]:
        asked.append((loader, *more))
        return 0, b"/p/session.cc:Get:1 Please compile with GPU. Fallback to cpu!"

    monkeypatch.setattr(probe, "attempt", attempt)
    # By the names that they are called by: this engine may never have loaded them on this machine.
    for module in (recogniser_engines, speech_engines):
        monkeypatch.setattr(module, "ensure_loadable", lambda *given: None)
    whisper, voice = artifact("whisper-tiny.en-int8"), artifact("piper-en_US-joe-medium-int8")
    recogniser = load_recogniser(whisper, RecogniserSettings(providers=("cuda", "cpu")))
    speech = load_speech(voice, SpeechSettings(engine="sherpa", providers=("cuda",)))
    for engine in (recogniser, speech):
        ran = providers.of(engine)
        assert ran is not None and ran.name == "cpu"
        assert ran.passed_over == (
            "cuda: sherpa-onnx says: Please compile with GPU. Fallback to cpu!",
        )
    tried = {(loader.rpartition(".")[2], Path(path), more) for loader, path, *(more,) in asked}
    assert ("recogniser:load_on", whisper, "cuda") in tried
    assert ("speech:load_sherpa", voice, "cuda") in tried


def test_a_provider_that_works_is_taken_and_not_tried_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "model.onnx").touch()
    tries = []

    def attempt(*given: str) -> tuple[int, bytes]:
        tries.append(given)
        return 0, b"some chatter\n"

    monkeypatch.setattr(probe, "attempt", attempt)
    wanted = Wanted(("coreml", "cpu"))
    for _ in range(2):
        assert sherpa_provider.choose(folder, LOADER, wanted) == Ran("coreml", "sherpa-onnx")
    assert tries == [(LOADER, str(folder), "coreml")]


def test_a_load_that_crashes_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(probe, "attempt", lambda *given: (-11, b"driver not found\n"))
    ran = sherpa_provider.choose(tmp_path, LOADER, Wanted(("cuda",)), ("qnn: no binary",))
    assert ran.passed_over == (
        "qnn: no binary",
        "cuda: its load crashed with SIGSEGV: driver not found",
    )


def test_the_doctor_says_what_ran_and_why(artifact: Callable[[str], Path], tmp_path: Path) -> None:
    settings = override(Settings(), ['recogniser.providers=["nnapi", "cpu"]'])
    stages = {stage.name: stage for stage in doctor._stages(settings, Store(tmp_path))}
    check = doctor._engine(replace(stages["recogniser"], folder=artifact("whisper-tiny.en-int8")))
    assert check.status == "ok" and "on cpu; nnapi: sherpa-onnx says" in check.detail


def test_a_command_warns_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.toml").write_text('[recogniser]\nproviders = ["nnapi", "cpu"]\n')
    monkeypatch.setenv("EDGEVOICE_CONFIG", str(tmp_path / "c.toml"))
    assert main(["transcribe", str(tmp_path / "none.wav")]) == 1
    lines = capsys.readouterr().err.splitlines()
    (line,) = (line for line in lines if "runs on" in line)
    assert line.startswith("edgevoice: recogniser runs on cpu; nnapi: sherpa-onnx says: NNAPI")
