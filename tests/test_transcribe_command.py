"""`edgevoice transcribe` as a user calls it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from speech import librivox, noise, silence, spoken, word_errors
from tiny_wenet import tones, write_pack

from edgevoice import cli
from edgevoice.audio.wav import write_wav
from edgevoice.config import override
from edgevoice.engines.segments import pack_spans
from edgevoice.frames import Float32, to_int16
from edgevoice.settings import Settings

pytestmark = pytest.mark.bundle

QUESTION = "What is the capital of France?"


@pytest.fixture
def wav(tmp_path: Path) -> Callable[[str, Float32], str]:
    def write(name: str, samples: Float32) -> str:
        write_wav(tmp_path / name, to_int16(samples), 16_000)
        return str(tmp_path / name)

    return write


def test_one_line_a_file(
    wav: Callable[[str, Float32], str], capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = wav("one.wav", spoken(QUESTION)), wav("other.wav", librivox(930))
    assert cli.main(["transcribe", one, other]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == [one, other]
    assert word_errors(QUESTION, lines[0][1]) == 0
    assert word_errors("he might even have been made amiable himself", lines[1][1]) == 0


def test_json_with_partials(
    wav: Callable[[str, Float32], str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = wav("clip.wav", librivox(920))
    assert cli.main(["transcribe", "--json", "--partials", path]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["file"] == path
    assert row["audio_s"] == 6.05
    assert row["decode_ms"] > 0
    assert row["real_time_factor"] == pytest.approx(row["decode_ms"] / 6050, rel=0.01)
    assert len(row["partials"]) >= 4
    assert all(p["text"].startswith(p["stable"]) for p in row["partials"])
    assert row["partials"][-1]["at_ms"] <= 6050


def test_what_cannot_be_read_does_not_stop_the_rest(
    wav: Callable[[str, Float32], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("not a wav file at all")
    bad = [str(tmp_path / name) for name in ("empty.wav", "text.wav", "gone.wav")]
    good = wav("good.wav", spoken(QUESTION))
    assert cli.main(["transcribe", *bad, good]) == 1
    told = capsys.readouterr()
    assert told.out.count("\n") == 1
    assert told.out.startswith(f"{good}\t")
    assert len(told.err.splitlines()) == 3
    assert all(path in line for path, line in zip(bad, told.err.splitlines(), strict=True))


def test_recordings_without_speech_have_no_text(
    wav: Callable[[str, Float32], str], capsys: pytest.CaptureFixture[str]
) -> None:
    quiet, loud = wav("quiet.wav", silence(2)), wav("loud.wav", noise(2, 0.1))
    assert cli.main(["transcribe", quiet, loud]) == 0
    assert capsys.readouterr().out == f"{quiet}\t\n{loud}\t\n"


def test_a_recording_longer_than_the_model_hears(
    wav: Callable[[str, Float32], str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = {
        880: "he was not an ill disposed young man",
        890: "unless to be rather cold hearted and rather selfish is to be ill disposed",
        920: "had he married a more amiable woman he might have been made still more respectable "
        "than he was",
        930: "he might even have been made amiable himself",
    }
    clips = [880, 890, 920, 930] * 2
    samples = np.concatenate([part for c in clips for part in (librivox(c), silence(0.7))])
    assert len(samples) > 30 * 16_000
    assert cli.main(["transcribe", wav("long.wav", samples)]) == 0
    text = capsys.readouterr().out.split("\t")[1]
    # 96 words; the model mishears "ill disposed", and a lost sentence would be 8 or more.
    assert word_errors(" ".join(said[c] for c in clips), text) <= 14


def test_another_engine(
    wav: Callable[[str, Float32], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A streaming pack by its path; the VAD must find tones to be speech, so its say is fixed."""
    monkeypatch.setattr("edgevoice.engines.segments.speech_spans", lambda *_: [(0.0, 1800.0)])
    pack = write_pack(tmp_path / "tones")
    path = wav("tones.wav", tones("abc   cab"))
    assert cli.main(["transcribe", "--engine", str(pack), path]) == 0
    assert capsys.readouterr().out == f"{path}\tabccab\n"


def test_words_for_an_engine_that_takes_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = write_pack(tmp_path / "tones")
    assert cli.main(["transcribe", "--engine", str(pack), "--boost", "Annika", "x.wav"]) == 2
    assert (
        f"--boost Annika: '{pack.name}' writes the text, has no lexicon" in capsys.readouterr().err
    )


def test_an_engine_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["transcribe", "--engine", "whisper-huge", "x.wav"]) == 2
    assert "no artifact 'whisper-huge'" in capsys.readouterr().err


@pytest.fixture
def streaming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A first pass of our own: it hears letters in tones, Whisper hears no words in them."""
    pack = write_pack(tmp_path / "tones")
    (tmp_path / "edgevoice.toml").write_text(f'[recogniser]\nfirst_pass = "{pack}"\n')
    monkeypatch.setenv("EDGEVOICE_CONFIG", str(tmp_path / "edgevoice.toml"))
    monkeypatch.setattr("edgevoice.engines.segments.speech_spans", lambda *_: [(0.0, 1800.0)])
    return pack


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_says_which_pass_gave_which_text(
    streaming: Path, wav: Callable[[str, Float32], str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = wav("question.wav", np.concatenate((spoken(QUESTION)[:20_000], tones("abc"))))
    for option in ("first", "second", "both"):
        assert cli.main(["transcribe", "--pass", option, "--json", "--partials", path]) == 0
    first, second, both = (row for row in rows(capsys))
    assert [stretch["heard_by"] for stretch in first["stretches"]] == ["first"]
    assert {partial["heard_by"] for partial in first["partials"]} == {"first"}
    assert "first_text" not in first["stretches"][0]
    assert [stretch["heard_by"] for stretch in second["stretches"]] == ["second"]
    assert second["text"].startswith("What is the capital")
    (stretch,) = both["stretches"]
    assert (stretch["heard_by"], stretch["text"]) == ("second", second["text"])
    assert stretch["first_text"] == first["text"]
    assert first["text"].endswith("abc")
    assert {partial["heard_by"] for partial in both["partials"]} == {"first", "second"}
    # Without the option the settings say which; both is their default.
    assert cli.main(["transcribe", "--json", path]) == 0
    assert rows(capsys)[0]["stretches"] == both["stretches"]


def test_a_first_pass_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    argument = ["transcribe", "--pass", "both", "x.wav"]
    config = override(Settings(), ['recogniser.first_pass=""'])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgevoice.devices.defaults.load", lambda: config)
        assert cli.main(argument) == 2
        assert "--pass both: there is no first pass" in capsys.readouterr().err
        assert cli.main([*argument, "--engine", "whisper-tiny.en-int8"]) == 2
        assert "--engine names one recogniser" in capsys.readouterr().err


def test_stretches_stay_in_order_and_apart() -> None:
    spans = [(0.0, 900.0), (1000.0, 5000.0), (5100.0, 9000.0), (20_000.0, 60_000.0)]
    packed = pack_spans(spans, 300.0, 6000.0)
    assert packed == [(0.0, 5050.0), (5050.0, 9300.0), (19_700.0, 60_300.0)]
