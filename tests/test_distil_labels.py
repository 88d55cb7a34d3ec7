"""Which words of recognisers are taken for recordings that nobody wrote down."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from speech import spoken

from edgevoice.audio.wav import write_wav
from edgevoice.commands import export_distil
from edgevoice.engines.recogniser import load_recogniser
from edgevoice.errors import ConfigError
from edgevoice.export.distil import labels, material, shards
from edgevoice.export.distil.labels import Bounds, Labeller
from edgevoice.settings import RecogniserSettings
from edgevoice.stages import Expected, Transcript

RATE = 16_000
BOUNDS = Bounds(most_differing=0.25, least_log_probability=-0.5)
SOUND = np.full(RATE, 0.1, np.float32)


class Hears:
    """A recogniser that hears what it is told to, one text an utterance."""

    def __init__(self, *texts: str) -> None:
        self._texts = list(texts)

    def open(self) -> Hears:
        return self

    def accept(self, samples: object) -> None:
        pass

    def conclude(self, expected: Expected = "turn") -> Transcript:
        return Transcript(self._texts.pop(0))

    def close(self) -> None:
        pass


class Weighs(Hears):
    """One that says how probable its words are, too."""

    def __init__(self, text: str, probability: float | None) -> None:
        super().__init__(text)
        self._probability = probability

    def log_probability(self) -> float | None:
        return self._probability


def labeller(*models: object) -> Labeller:
    return Labeller(models, BOUNDS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("second", "taken"),
    [
        ("turn the Lights on.", True),
        ("turn the light on", True),  # one word of four
        ("turn a light on", False),
        ("turn the lights on and the fan off", False),
        ("", False),
    ],
)
def test_two_recognisers_have_to_hear_nearly_the_same(second: str, taken: bool) -> None:
    label = labeller(Hears("Turn the lights on"), Hears(second)).label(SOUND, "")
    assert label.text == "Turn the lights on"
    assert (label.why == "") == taken
    assert taken or label.detail == f"heard are 'Turn the lights on' and {second!r}"


@pytest.mark.parametrize(("probability", "second"), [(-3.0, "go on"), (-0.1, "no")])
def test_two_measures_have_to_hold(probability: float, second: str) -> None:
    models = Weighs("go on", probability), Hears(second)
    assert labeller(*models).label(SOUND, "").why == labels.UNSURE


@pytest.mark.parametrize(
    ("probability", "why", "weighed"),
    [(-0.4, "", True), (-0.6, labels.UNSURE, True), (None, "", False)],
)
def test_one_recogniser_has_to_be_sure_if_it_says(
    probability: float | None, why: str, weighed: bool
) -> None:
    label = labeller(Weighs("go on", probability)).label(SOUND, "")
    assert (label.text, label.why, label.weighed) == ("go on", why, weighed)


def test_one_recogniser_that_says_nothing_is_believed() -> None:
    label = labeller(Hears("go on")).label(SOUND, "")
    assert (label.why, label.weighed) == ("", False)


def test_words_that_people_wrote_are_dropped_when_no_recogniser_hears_them() -> None:
    written = "stop the music"
    assert labeller(Hears("what time is it"), Hears("stop the music")).label(SOUND, written).weighed
    dropped = labeller(Hears("what time is it"), Hears("what's the time")).label(SOUND, written)
    assert dropped.why == labels.WRONG
    assert dropped.detail == "written is 'stop the music', said is 'what time is it'"
    # Their words are not weighed as a recogniser's are.
    assert not labeller(Weighs("stop the music", -9.0)).label(SOUND, written).why


def test_no_words_are_no_speech() -> None:
    assert labeller(Hears("")).label(SOUND, "anything").why == labels.WORDLESS


@pytest.mark.parametrize("count", [0, 3])
def test_one_or_two_recognisers(count: int) -> None:
    with pytest.raises(ConfigError, match=f"--label-with: {count} recognisers; one or two are"):
        labeller(*[Hears("")] * count)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((1.2, None), "--label-differing 1.2: a share is needed"),
        ((float("nan"), None), "--label-differing nan: a share"),
        ((None, 0.5), "--label-log-probability 0.5: a logarithm of"),
    ],
)
def test_bounds_that_cannot_be(given: tuple[float | None, float | None], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        labels.bounds(*given)


def test_bounds_that_are_given_and_those_that_are_not() -> None:
    assert labels.bounds(0.0, None) == Bounds(0.0, labels.LEAST_LOG_PROBABILITY)
    assert labels.bounds(None, -1.0) == Bounds(labels.MOST_DIFFERING, -1.0)


def test_the_help_says_the_defaults() -> None:
    parser = argparse.ArgumentParser()
    export_distil.add_arguments(parser)
    said = " ".join(parser.format_help().split())
    assert re.search(rf"otherwise \(default: {labels.MOST_DIFFERING:g}\)", said)
    assert re.search(rf"if it tells \(default: {labels.LEAST_LOG_PROBABILITY:g}\)", said)


def recordings(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        write_wav(folder / f"{number:02}.wav", SOUND, RATE)
    return folder


def told(folder: Path, out: Path, models: Sequence[object]) -> list[str]:
    said: list[str] = []
    material.as_shards(folder, out, labeller=labeller(*models), say=said.append)
    return said


def test_what_is_left_out_is_counted_listed_and_the_first_ones_named(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "speech", 26)
    first = Hears(*["turn the lights on"] * 24, "", "stop")
    second = Hears(*["turn the light song"] * 24, "stop")
    said = told(folder, tmp_path / "out", (first, second))
    line = "heard are 'turn the lights on' and 'turn the light song'"
    assert said[:-1] == [f"{n:02}.wav: {line}; left out" for n in range(20)]
    listed = tmp_path / "out" / material.LEFT_OUT
    assert said[-1] == (
        f"{folder}: 1 recordings taken, left out: 24 whose words are unsure, 1 without speech; "
        f"{listed} lists them"
    )
    rows = listed.read_text().splitlines()
    assert rows[23:] == [f"23.wav\twhose words are unsure\t{line}", "24.wav\twithout speech\t"]
    assert [clip.line.text for clip in shards.clips(tmp_path / "out")] == ["stop"]


def test_words_that_nothing_speaks_for_are_said(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "speech", 2)
    said = told(folder, tmp_path / "out", (Hears("go on", "stop"),))
    assert len(said) == 1
    assert "2 recordings have the words of a recogniser that does not say how sure" in said[0]


def test_what_an_interrupted_run_left_is_made_anew(tmp_path: Path) -> None:
    folder, out = recordings(tmp_path / "speech", 1), tmp_path / "out"
    out.mkdir()
    (out / "000003.tsv").write_text("half of it")
    told(folder, out, (Weighs("go on", 0.0),))
    assert [clip.line.text for clip in shards.clips(out)] == ["go on"]
    assert (out / material.LEFT_OUT).read_text() == ""


@pytest.mark.bundle
def test_whisper_leaves_out_what_it_can_hardly_hear(
    tmp_path: Path, artifact: Callable[[str], Path]
) -> None:
    folder = tmp_path / "speech"
    folder.mkdir()
    clear = spoken("What is the capital of France?")
    write_wav(folder / "clear.wav", clear, RATE)
    noise = np.random.default_rng(5).standard_normal(len(clear), np.float32)
    write_wav(folder / "noisy.wav", clear + 0.6 * clear.std() * noise, RATE)
    model = load_recogniser(artifact("whisper-tiny.en-int8"), RecogniserSettings(threads=1))
    said: list[str] = []
    made = material.as_shards(
        folder, tmp_path / "out", labeller=Labeller([model], labels.DEFAULT_BOUNDS), say=said.append
    )
    model.close()
    assert [clip.line.source for clip in shards.clips(made)] == ["clear.wav"], said
    assert re.match(r"noisy.wav: heard is '.*', log probability -\d\.\d\d; left out", said[0])
