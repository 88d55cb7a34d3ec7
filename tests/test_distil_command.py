"""`edgevoice export distil` with a stand-in for torch that leaves the weights as they begin."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from ctranslate2_file import write_small_whisper

from edgevoice import cli, manifest
from edgevoice.audio.wav import write_wav
from edgevoice.engines import lexicon
from edgevoice.errors import ArtifactError, ConfigError, ExportError, MissingDependencyError
from edgevoice.export.distil import material, planning, preparing, shards, torch_side
from edgevoice.export.distil import recordings as recordings_module
from edgevoice.export.distil.distilling import Distiller, Request
from edgevoice.export.distil.labels import DEFAULT_BOUNDS, Labeller
from edgevoice.progress import silent
from edgevoice.stages import Expected, Transcript

RATE = 16_000
SAID = "pack my box with five dozen liquor jugs"


def voice(number: int, seconds: float = 1.2) -> np.ndarray:
    t = np.arange(int(seconds * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * f * t * (1 + number / 50)) for f in (180, 700, 1900))
    wobble = 0.1 * (1.2 + np.sin(2 * np.pi * 3 * t)) * tones
    noise = 0.01 * np.random.default_rng(number).standard_normal(len(t))
    return (0.3 * wobble + noise).astype(np.float32)


def recordings(folder: Path, count: int = 24) -> Path:
    folder.mkdir()
    lines = []
    for number in range(count):
        rate = (8_000, 16_000, 44_100)[number % 3]
        write_wav(
            folder / f"{number}.wav", voice(number)[:: RATE // 8000 if rate < RATE else 1], rate
        )
        lines.append(f"{number}.wav\t{SAID.capitalize()}.")
    (folder / "transcripts.tsv").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter that runs the stand-in, whatever it is told to run."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), *sys.path])
    program = tmp_path / "python"
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH="{paths}" exec "{sys.executable}" "{here / "untrained.py"}" "$@"\n'
    )
    program.chmod(0o755)
    return program


@pytest.fixture
def request_(tmp_path: Path, whisper: Path, python: Path) -> Request:
    return Request(
        whisper=whisper,
        speech=(recordings(tmp_path / "speech"),),
        work=tmp_path / "work",
        chunk_ms=160.0,
        left_ms=320.0,
        letters="abcdefghijklmnopqrstuvwxyz",
        frozen_steps=1,
        steps=1,
        python=str(python),
        threads=1,
    )


def test_a_pack_reads_what_was_trained(request_: Request) -> None:
    said: list[str] = []
    pack = Distiller(silent, said.append).run(request_)
    assert sorted(path.name for path in pack.iterdir()) == ["model.onnx", "tokens.txt"]
    assert "step 1 of 2, frozen: loss 2.5" in said
    assert "the pack writes 0.0 % of the words otherwise than torch" in said
    read = json.loads((request_.work / "heard.json").read_text())
    assert read
    assert all(len(text) > 3 for *_, text in read)


def test_a_pack_with_words(request_: Request, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("pack my box\nfill the box with jugs\n")
    said: list[str] = []
    asked = replace(request_, graph_texts=((str(text), 2.0),))
    pack = Distiller(silent, said.append).run(asked)
    assert said[-1].startswith("7 words, ")
    assert lexicon.read(pack / lexicon.FILE).nodes > 20
    # The same training once more, now without words.
    pack = Distiller(silent, said.append).run(request_)
    assert not (pack / lexicon.FILE).exists()


def test_a_pack_of_pieces_with_words(request_: Request, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("pack my box\nfill the box with jugs\n")
    asked = replace(request_, pieces=60, graph_texts=((str(text), 2.0),))
    said: list[str] = []
    pack = Distiller(silent, said.append).run(asked)
    assert "writes 60 pieces of 26 letters" in said
    assert "the pack writes 0.0 % of the words otherwise than torch" in said
    names = lexicon.tokens(pack / "tokens.txt")
    assert len(names) == 60 and "▁" not in names and "▁a" in names
    found = lexicon.read(pack / lexicon.FILE)
    assert found.space == 0 and found.nodes > 20
    # Pieces that a training was begun with stay, whatever the transcripts are by now.
    table = next(request_.work.glob("speech-0/*.tsv"))
    table.write_text(table.read_text().replace("liquor", "lemon"))
    Distiller(silent, said.append).run(asked)
    assert lexicon.tokens(pack / "tokens.txt") == names


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("crash", "training: RuntimeError: out of memory"),
        ("wrong", "of the words are not torch's, at most 2 % may be"),
    ],
)
def test_what_goes_wrong_in_training_is_one_line(
    request_: Request, trouble: str, message: str
) -> None:
    request_.work.mkdir()
    (request_.work / "trouble").write_text(trouble)
    with pytest.raises(ExportError, match=message) as raised:
        Distiller(silent, lambda line: None).run(request_)
    assert "\n" not in str(raised.value)


def test_another_training_in_the_folder_is_refused(request_: Request, whisper: Path) -> None:
    Distiller(silent, lambda line: None).run(request_)
    with pytest.raises(ConfigError, match=r"is of another training \(its shape, stages or seed"):
        Distiller(silent, lambda line: None).run(replace(request_, seed=1))
    for other, now in (
        (replace(request_, letters="abcdefghijklm'"), "14 letters"),
        (replace(request_, pieces=57), "57 pieces of 26 letters"),
    ):
        message = rf"another training \(its alphabet differs: 26 letters there, {now} now\)"
        with pytest.raises(ConfigError, match=message):
            Distiller(silent, lambda line: None).run(other)


def test_the_command_publishes_a_streaming_artifact(
    tmp_path: Path,
    whisper: Path,
    python: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path / "home"))
    speech = recordings(tmp_path / "speech")
    words = ["export", "distil", whisper, "--speech", speech, "--work", tmp_path / "work"]
    words += ["--chunk-ms", 160, "--left-ms", 320, "--python", python, "--threads", 1]
    words += ["--letters", "abcdefghijklmnopqrstuvwxyz", "--licence", "MIT"]
    words += ["--scheme", "fp32", "--check-with", recordings(tmp_path / "few", 2)]
    words += ["--tokens", "bpe:60"]
    assert cli.main([*map(str, words), "--plan"]) == 0
    told = capsys.readouterr().out
    assert "2 layers of 64, 1 new" in told
    assert "writes     60 pieces of words" in told
    assert cli.main([*map(str, words), "--plan", "--label-with", "whisper-of-nobody"]) == 2
    assert "whisper-of-nobody" in capsys.readouterr().err
    assert cli.main([*map(str, words), "--plan", "--label-differing", "34"]) == 2
    assert "--label-differing 34: a share is needed, from 0 to 1" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
    assert cli.main([*map(str, words), "--out", str(tmp_path / "out"), "--name", "mine"]) == 0
    found = manifest.read(tmp_path / "out" / "mine")
    assert (found.family, found.stage, found.licence) == ("wenet-ctc", "recogniser", "MIT")
    # The engine turns endpoint rules by the subsampling: sherpa-onnx counts as if it were 4.
    assert found.engine["subsampling"] == 2
    assert (found.engine["chunk_size"], found.engine["num_left_chunks"]) == (8, 2)
    assert len(lexicon.tokens(tmp_path / "out" / "mine" / "tokens.txt")) == 60


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"chunk_ms": 650.0}, "650 ms: a multiple of 20 ms is needed"),
        ({"left_ms": 400.0}, "chunk 8 and left context 20 frames: the left context must be"),
        ({"steps": 0}, "--steps 0: 1 or more are needed"),
        ({"pieces": 40}, "26 letters, .* are 53 already; ask for more, or for characters"),
        ({"pieces": 900}, r"bpe:900: the transcripts have \d+ pieces that occur 20 times"),
        ({"letters": "abcdefgƙ"}, "with ƙ as the last of its letters"),
        ({"python": "/nowhere/python"}, "--python /nowhere/python is no program"),
        ({"speech": (Path("/nowhere"),)}, "no such folder: /nowhere"),
    ],
)
def test_requests_that_cannot_be(
    request_: Request, changed: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Distiller(silent, lambda line: None).run(replace(request_, **changed))  # type: ignore[arg-type]


def test_a_whisper_that_is_too_wide_or_none_is_refused(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "_WIDEST", 32)
    with pytest.raises(ArtifactError, match=r"its encoder is 64 wide; up to 32 \(Whisper small\)"):
        Distiller(silent, lambda line: None).run(request_)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ArtifactError, match=r"empty is no Whisper: it has neither model.bin"):
        Distiller(silent, lambda line: None).run(replace(request_, whisper=empty))


class Hears:
    """A recogniser that always hears the same."""

    tail_padding_ms = 0.0

    def __init__(self, text: str) -> None:
        self._text = text

    def open(self) -> Hears:
        return self

    def accept(self, samples: object) -> None:
        pass

    def draft(self) -> None: ...

    def glance(self) -> Transcript:
        return self.conclude()

    def conclude(self, expected: Expected = "turn") -> Transcript:
        return Transcript(self._text, self._text, 0.0)


def test_recordings_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "speech", 4)
    write_wav(folder / "long.wav", np.tile(voice(0), 30), RATE)
    write_wav(folder / "short.wav", voice(0, 0.2), RATE)
    write_wav(folder / "silent.wav", np.zeros(RATE, np.float32), RATE)
    write_wav(folder / "wordless.wav", voice(1), RATE)
    (folder / "broken.wav").write_bytes(b"RIFFnothing")
    said: list[str] = []

    def taken(label: object, out: str) -> list[shards.Clip]:
        labeller = Labeller([label], DEFAULT_BOUNDS) if label else None  # type: ignore[list-item]
        made = material.as_shards(folder, tmp_path / out, labeller=labeller, say=said.append)
        return list(shards.clips(made))

    clips = taken(None, "plain")
    assert [clip.line.text for clip in clips] == [f"{SAID.capitalize()}."] * 4
    assert {len(clip.samples()) for clip in clips} <= set(range(6_000, 20_000))
    assert said[-1].endswith(
        "4 recordings taken, left out: 1 that cannot be read, 1 longer than 30 s, 1 shorter than "
        "0.3 s, 1 silent, 1 without words (transcripts.tsv, or --label-with); "
        f"{tmp_path / 'plain' / 'left-out.txt'} lists them"
    )
    # Labelled, what has no words gets some; the others say what is heard, and stay.
    assert [c.line.text for c in taken(Hears(SAID), "labelled")].count(SAID) == 1
    # Words that have nothing to do with what is heard are another clip's.
    other = taken(Hears("the quick brown fox jumps over the lazy dog"), "wrong")
    assert len(other) == 1
    assert any("written is 'Pack my box" in line for line in said)
    with pytest.raises(ConfigError, match=r"none of 9 recordings can be used: 5 without speech"):
        taken(Hears(""), "none")


def test_a_folder_without_recordings_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.amr").write_bytes(b"#!AMR")
    with pytest.raises(ConfigError, match=r"has no recordings \(1 .amr\); they end in .wav, .flac"):
        material.as_shards(tmp_path, tmp_path / "out", labeller=None, say=print)


def test_librispeechs_folders_are_read(tmp_path: Path) -> None:
    chapter = tmp_path / "19" / "198"
    chapter.mkdir(parents=True)
    stereo = np.repeat(voice(0)[:, None], 2, axis=1)
    soundfile.write(chapter / "19-198-0000.flac", stereo, RATE)
    soundfile.write(chapter / "19-198-0001.ogg", voice(1), RATE)
    (chapter / "._19-198-0001.ogg").write_bytes(b"a system's own")
    (chapter / "19-198-0002.flac").write_bytes(b"fLaC")
    (chapter / "19-198.trans.txt").write_text("19-198-0000 PACK MY BOX\n19-198-0001 JUDGE MY VOW\n")
    said: list[str] = []
    made = material.as_shards(tmp_path, tmp_path / "out", labeller=None, say=said.append)
    clips = list(shards.clips(made))
    assert [clip.line.text for clip in clips] == ["pack my box", "judge my vow"], said
    assert {clip.line.speaker for clip in clips} == {"198"}
    heard = clips[0].samples().astype(np.float32) / 32768.0
    assert np.abs(heard - recordings_module.read(chapter / "19-198-0000.flac")).max() < 1e-3
    assert any("19-198-0002.flac cannot be read" in line for line in said)


def test_without_soundfile_flac_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.flac", voice(0), RATE)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingDependencyError, match=r"a.flac needs soundfile .*edgevoice\[export"):
        material.as_shards(tmp_path, tmp_path / "out", labeller=None, say=print)


def test_the_trainers_lines_are_for_people() -> None:
    line = {"step": 40, "of": 60, "stage": "whole", "heard_hours": 1.5}
    said = torch_side.readable(json.dumps(line | {"word_errors_percent": {"mine": 12.345}}))
    assert said == "step 40 of 60, whole: heard hours 1.5, word errors of mine 12.3 %"


def test_an_interrupted_training_ends_as_one(request_: Request) -> None:
    request_.work.mkdir()
    (request_.work / "trouble").write_text("interrupt")
    with pytest.raises(KeyboardInterrupt):
        Distiller(silent, lambda line: None).run(request_)


def test_a_plan_names_what_it_needs(request_: Request) -> None:
    told = "\n".join(planning.lines(request_))
    assert "decoding   160 ms at once, 320 ms of context" in told
    assert "24 recordings, read when it begins" in told
