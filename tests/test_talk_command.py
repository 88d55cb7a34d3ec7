"""`edgevoice talk` with recorded questions, on the real bundle."""

import json
import os
import signal
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from spoken import speak

from edgevoice import loading, questions
from edgevoice.audio import ports
from edgevoice.audio.wav import read_wav, write_wav
from edgevoice.cli import main
from edgevoice.errors import AudioError

QUESTION = "What is the capital of France?"

pytestmark = pytest.mark.bundle


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speak(QUESTION, tmp_path_factory.mktemp("questions") / "question.wav")


@pytest.fixture(scope="module")
def silence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("questions") / "silence.wav"
    write_wav(path, np.zeros(16_000, dtype=np.int16), 16_000)
    return path


def test_questions_in_answers_out(
    question: Path, silence: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, both, page = tmp_path / "answer.wav", tmp_path / "both.wav", tmp_path / "report.html"
    status = main(
        [
            *["talk", "--wav", str(question), str(silence), "--fast", "--json"],
            *["--out", str(out), "--out-both", str(both), "--report", str(page)],
        ]
    )
    result = json.loads(capfd.readouterr().out)  # one object and nothing else

    assert status == 1  # nobody can answer silence
    assert result["unanswered"] == [str(silence)]
    (turn,) = result["turns"]
    assert turn["user"] == QUESTION
    assert "Paris" in turn["agent"]
    assert not turn["interrupted"]
    assert turn["spans_ms"]["first_sound"] >= turn["spans_ms"]["endpoint"] > 0
    assert result["dropped_frames"] == 0
    assert result["cold_start_ms"] > 0

    samples, rate_hz = read_wav(out)
    sounding = np.flatnonzero(np.abs(samples) > 0.05) / rate_hz
    assert sounding.size > 0.2 * rate_hz
    with wave.open(str(both)) as file:
        assert file.getnchannels() == 2
        stereo = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    asked = np.flatnonzero(np.abs(stereo[:, 0].astype(int)) > 1600) / rate_hz
    assert stereo.shape[0] == samples.size
    assert asked.max() < sounding.min()  # one time axis: the answer follows the question
    assert QUESTION in page.read_text(encoding="utf-8")


def test_a_conversation_in_real_time_is_printed_and_ends_with_a_table(
    question: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["talk", "--wav", str(question)]) == 0
    out = capsys.readouterr().out
    assert f"you   > {QUESTION}" in out
    assert "agent > " in out
    assert "first sound" in out
    assert " p50" in out
    assert "\x1b" not in out  # not a terminal


def test_ctrl_c_ends_with_the_table(question: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "edgevoice", "talk", "--wav", *[str(question)] * 20],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ.copy(),
    )
    assert process.stdout is not None
    lines = [process.stdout.readline(), process.stdout.readline()]
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=120)
    assert lines[1].startswith("agent > ")
    assert " p50" in rest
    assert "Traceback" not in errors
    assert process.returncode == 1  # most questions were never asked


def test_without_a_microphone_auto_asks_questions_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(settings: object) -> None:
        raise AudioError("no microphone and speaker")

    monkeypatch.setattr(ports, "open_ports", none)
    monkeypatch.setattr(questions, "QUESTIONS", (QUESTION,))
    monkeypatch.chdir(tmp_path)
    assert main(["talk", "--auto", "--fast"]) == 0
    out = capsys.readouterr().out
    assert "no microphone and speaker" in out
    assert f"you   > {QUESTION}" in out
    assert "wrote talk/answers.wav" in out
    samples, _ = read_wav(tmp_path / "talk/answers.wav")
    assert np.abs(samples).max() > 0.05
    assert "Paris" in (tmp_path / "talk/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["talk", "daemon"])
def test_a_canceller_that_is_not_there_is_said_before_models_load(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(settings: object) -> None:
        raise AssertionError("loaded before the canceller was looked at")

    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    monkeypatch.setattr(loading, "load_engines", load)
    options = ["run", "--port", "0"] if command == "daemon" else []
    assert main([command, *options, "--set", "audio.canceller=aec3"]) == 2
    assert "pip install pywebrtc-audio" in one_line(capsys)


def test_missing_models_name_the_command_that_fetches_them(
    question: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path))
    assert main(["talk", "--wav", str(question)]) == 2
    assert "edgevoice models pull" in one_line(capsys)


def empty(path: Path) -> None:
    path.touch()


def no_samples(path: Path) -> None:
    write_wav(path, np.zeros(0, dtype=np.int16), 16_000)


def text(path: Path) -> None:
    path.write_text("What is the capital of France?", encoding="utf-8")


def folder(path: Path) -> None:
    path.mkdir()


def missing(path: Path) -> None:
    del path


@pytest.mark.parametrize("make", [empty, no_samples, text, folder, missing])
def test_a_bad_recording_is_one_line(
    make: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.wav"
    make(path)
    assert main(["talk", "--wav", str(path), "--fast"]) == 2
    assert "bad.wav" in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fast"], "--wav"),
        (["--out", "/nowhere/answer.wav"], "no folder /nowhere"),
        (["--set", "turns.barge_in=200"], "did you mean 'barge_in_ms'"),
        (["--config", "/nowhere.toml"], "no configuration at /nowhere.toml"),
        (["--set", "audio.port=pulse", "--set", "audio.input_device=no such thing"], "pulse"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PULSE_SERVER", "unix:/nowhere")
    assert main(["talk", *arguments]) == 2
    assert words.lower() in one_line(capsys).lower()


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("edgevoice: ")
    assert error.count("\n") == 1
    return error


def test_a_recording_is_kept_and_can_be_replayed(
    question: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tapes = tmp_path / "tapes"
    assert main(["talk", "--wav", str(question), "--fast", "--record", str(tapes)]) == 0
    (tape,) = tapes.iterdir()
    user, agent = (read_wav(tape / name)[0] for name in ("user.wav", "agent.wav"))
    assert user.size == agent.size
    assert np.abs(user).max() > 0.1 and np.abs(agent).max() > 0.1
    capfd.readouterr()
    assert main(["replay", str(tape), "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["different"] == 0
    assert "turn_ended" in [pair["after"]["decision"] for pair in result["decisions"]]
