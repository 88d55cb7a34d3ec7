import io
import json
import wave
from pathlib import Path

import pytest

from edgevoice.cli import main


def test_a_text_becomes_a_wav(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.wav"
    assert main(["say", "Hello there, how are you?", "--out", str(out)]) == 0
    with wave.open(str(out)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 22050)
        assert 22050 < file.getnframes() < 4 * 22050
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"{out}: ")
    assert "real-time factor" in printed.err
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_standard_input_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("First line.\nSecond line\n\n- third\n"))
    out = tmp_path / "b.wav"
    assert main(["say", "-", "--out", str(out), "--json", "--speed", "1.5"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["file"] == str(out)
    assert figures["duration_ms"] > 1200
    assert 0 < figures["first_sound_ms"] <= figures["real_time_factor"] * figures["duration_ms"] + 1


@pytest.mark.parametrize("text", ["", " \n", "😀", "```\nx\n```"])
def test_nothing_to_say(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    out = tmp_path / "c.wav"
    assert main(["say", text, "--out", str(out)]) == 2
    assert "nothing to say" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--speed", "9"], "speech.speed"),
        (["--engine", "festival"], "festival"),
        (["--voice", "nobody"], "nobody"),
        (["--speaker", "7"], "speaker 7"),
        (["--config", "/nonexistent.toml"], "/nonexistent.toml"),
    ],
)
def test_bad_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["say", "Hi", "--out", str(tmp_path / "d.wav"), *options]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["say", "Hi", "--out", str(tmp_path / "no" / "x.wav")]) == 2
    assert "folder that exists" in capsys.readouterr().err
    assert main(["say", "Hi", "--out", str(tmp_path)]) == 2
