"""The doctor sees what is there, names the command that mends what is not, and never crashes."""

import builtins
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgevoice import config, doctor
from edgevoice.audio import cleaning, ports
from edgevoice.audio.portaudio import AudioDevice
from edgevoice.cli import main
from edgevoice.config import override
from edgevoice.doctor import Check
from edgevoice.errors import AudioError, MissingDependencyError
from edgevoice.runfile import RunFile, Running
from edgevoice.settings import Settings
from edgevoice.store import Store

pytestmark = pytest.mark.bundle


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a microphone and a speaker."""
    devices = [
        AudioDevice("pulse", "input", "a microphone", True),
        AudioDevice("pulse", "output", "a speaker", True),
    ]
    monkeypatch.setattr(ports, "list_devices", lambda: (devices, {}))
    monkeypatch.setattr(ports, "open_ports", lambda settings: (object(), object()))


def examine(settings: Settings, store: Store, *, quick: bool = False) -> dict[str, Check]:
    return {f"{c.area} {c.name}": c for c in doctor.examine(settings, store, quick=quick)}


def copied(artifact: Callable[[str], Path], name: str, store: Store) -> Path:
    return shutil.copytree(artifact(name), store.root / name)


@pytest.mark.usefixtures("sound")
def test_with_the_bundle_and_a_microphone_talking_works(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "talking works"
    for stage in ("vad", "recogniser", "end-of-turn", "language-model", "speech"):
        assert any(line.startswith("ok") and "engine" in line and stage in line for line in lines)
    assert any("sherpa-onnx" in line and "2.0.1" in line for line in lines)


@pytest.mark.usefixtures("sound")
def test_missing_models_come_with_the_command_that_fetches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path))
    assert main(["doctor", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["works"] is False
    missing = {c["name"]: c["mend"] for c in result["checks"] if c["status"] == "missing"}
    assert missing["vad"] == "edgevoice models pull silero-vad"
    assert len(missing) == len(Settings().artifacts())
    assert not any(c["area"] == "engine" for c in result["checks"])


@pytest.mark.usefixtures("sound")
def test_truncated_and_foreign_models_are_broken(
    artifact: Callable[[str], Path], tmp_path: Path
) -> None:
    store = Store(tmp_path / "models")
    vad = copied(artifact, "silero-vad", store)
    with (vad / "silero_vad.onnx").open("r+b") as file:
        file.truncate(1000)
    judge = copied(artifact, "smart-turn-v3.2", store)
    (judge / "manifest.json").write_text("{", encoding="utf-8")
    # As large as it should be, and not a model.
    voice = copied(artifact, "piper-en_US-joe-medium-int8", store)
    for model in voice.rglob("*.onnx"):
        model.write_bytes(bytes(model.stat().st_size))
    checks = examine(Settings(), store)
    assert checks["model vad"].status == "broken"
    assert "has 1000 bytes" in checks["model vad"].detail
    assert checks["model vad"].mend == "edgevoice models pull silero-vad --force"
    assert checks["model end-of-turn"].status == "broken"
    assert checks["model speech"].status == "ok"
    assert checks["engine speech"].status == "broken"
    assert "engine vad" not in checks
    assert not doctor.talking_works(list(checks.values()))


def test_the_echo_canceller_that_would_be_used_and_what_mends_its_absence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    devices: list[AudioDevice] = []
    monkeypatch.setattr(cleaning, "list_pulse_devices", lambda: devices)

    def canceller(*sets: str) -> Check:
        chosen = override(Settings(), [f"audio.{s}" for s in sets])
        return examine(chosen, Store.default(), quick=True)["sound echo canceller"]

    assert "AEC3 would be used (pywebrtc-audio 0" in canceller().detail
    assert canceller("canceller=none").status == "note"
    assert canceller("canceller=system").mend == "pactl load-module module-echo-cancel"
    assert canceller("canceller=system").needed
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pywebrtc_audio", None)
        for chosen in ("auto", "aec3"):
            check = canceller(f"canceller={chosen}")
            assert check.status == "missing"
            assert check.mend == "pip install pywebrtc-audio==0.2.0"
            assert check.needed == (chosen == "aec3")
    devices += [
        AudioDevice("pulse", "input", "ec", True, "module-echo-cancel.c"),
        AudioDevice("pulse", "output", "ec.sink", True, "module-echo-cancel.c"),
    ]
    assert canceller().detail == "the sound server's own would be used"


def test_quick_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(folder: Path, settings: object) -> object:
        raise AssertionError(f"{folder} was loaded")

    monkeypatch.setattr("edgevoice.engines.silero_vad.load_vad", load)
    checks = examine(Settings(), Store.default(), quick=True)
    assert checks["model vad"].status == "ok"
    assert not any(name.startswith("engine ") for name in checks)


def test_no_sound_is_said_port_by_port(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = {
        "pyaudio": MissingDependencyError("PyAudio cannot be imported"),
        "pulse": AudioError("no PulseAudio server answers"),
    }

    def none(settings: object) -> None:
        raise AudioError("no microphone and speaker")

    monkeypatch.setattr(ports, "list_devices", lambda: ([], failures))
    monkeypatch.setattr(ports, "open_ports", none)
    checks = examine(Settings(), Store.default(), quick=True)
    assert "portaudio19-dev" in checks["sound pyaudio"].mend
    assert "pulseaudio" in checks["sound pulse"].mend
    assert not checks["sound pulse"].needed
    assert checks["sound microphone"].status == "missing"
    assert not doctor.talking_works(list(checks.values()))


@pytest.mark.usefixtures("sound")
def test_packages_that_are_missing_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__
    absent = {"pyaudio": ImportError("libportaudio.so.2"), "soxr": OSError("bad ELF header")}

    def importing(name: str) -> Any:
        if name in absent:
            raise absent[name]
        return real(name)

    monkeypatch.setattr(doctor.importlib, "import_module", importing)
    checks = examine(Settings(), Store.default(), quick=True)
    assert checks["package soxr"].status == "broken"
    assert "bad ELF header" in checks["package soxr"].detail
    assert checks["package PyAudio"].mend.endswith("'edgevoice[audio]'")
    assert not checks["package PyAudio"].needed
    assert not doctor.talking_works(list(checks.values()))
    del absent["soxr"]
    assert doctor.talking_works(list(examine(Settings(), Store.default(), quick=True).values()))


def test_a_daemon_that_runs_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.default()
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path))
    assert examine(Settings(), store, quick=True)["daemon daemon"].detail == "not running"
    with RunFile.claim(Running(os.getpid(), "127.0.0.1", 8765, 0.0)):
        detail = examine(Settings(), store, quick=True)["daemon daemon"].detail
    assert detail == f"runs on 127.0.0.1:8765 (process {os.getpid()})"


def test_an_endpoint_needs_no_local_language_model() -> None:
    settings = config.override(Settings(), ["language_model.endpoint=http://192.0.2.1:8000/v1"])
    check = examine(settings, Store.default(), quick=True)["model language-model"]
    assert check.status == "note"
    assert "not asked" in check.detail
