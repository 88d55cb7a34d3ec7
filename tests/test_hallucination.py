"""The guard against words that nobody said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from speech import hum, librivox, noise, silence, spoken

from edgevoice.engines.hallucination import STOCK_PHRASES, Sound, believable, without_loops
from edgevoice.engines.recogniser import load_recogniser
from edgevoice.frames import Float32
from edgevoice.settings import RecogniserSettings
from edgevoice.stages import RecogniserModel

SPEECH = Sound(audio_s=4.0, loudest_db=-15.0, range_db=30.0, windows=80)
FAINT = Sound(audio_s=4.0, loudest_db=-55.0, range_db=8.0, windows=80)
STEADY = Sound(audio_s=4.0, loudest_db=-15.0, range_db=1.0, windows=80)
SHORT = Sound(audio_s=0.2, loudest_db=-15.0, range_db=1.0, windows=4)


@pytest.mark.parametrize(
    "text",
    [
        "[BLANK_AUDIO]",
        "(water running)",
        "*sighs*",
        "♪♪",
        "♪ la la ♪",
        "[",
        "...",
        "",
        " ",
        "(wind blowing) [Music]",
    ],
)
def test_sounds_and_marks_are_no_words(text: str) -> None:
    assert believable(text, SPEECH) == ""


def test_words_beside_a_bracket_survive() -> None:
    assert believable("[Music] What is the time? (coughs)", SPEECH) == "What is the time?"
    assert believable('"What is the time?', SPEECH) == "What is the time?"


@pytest.mark.parametrize("phrase", ["Thank you.", "you", "Thanks for watching!", "Bye-bye."])
def test_stock_phrases_are_believed_only_where_somebody_spoke(phrase: str) -> None:
    assert believable(phrase, SPEECH) == phrase
    assert believable(phrase, FAINT) == ""
    assert believable(phrase, STEADY) == ""
    assert believable(phrase, SHORT) == phrase


def test_other_words_are_believed_from_a_faint_voice() -> None:
    assert believable("Turn on the light.", FAINT) == "Turn on the light."


def test_nothing_is_believed_from_steady_or_silent_sound() -> None:
    assert believable("Turn on the light.", STEADY) == ""
    assert believable("Turn on the light.", Sound(4.0, -70.0, 20.0, 80)) == ""


def test_text_that_nobody_speaks_so_fast_is_not_believed() -> None:
    text = "The quick brown fox jumps over the lazy dog and runs far away from here."
    assert believable(text, SPEECH) == text
    assert believable(text, Sound(0.5, -15.0, 30.0, 10)) == ""


def test_loops_are_cut_to_one_copy() -> None:
    assert without_loops("I see. " * 7 + "Good.") == "I see. Good."
    assert without_loops("the end of the " * 4) == "the end of the"
    assert without_loops("ha " * 20) == "ha"


@pytest.mark.parametrize(
    "text", ["no no no no", "one one one two", "bye bye", "very very very good", "had had had had"]
)
def test_people_do_repeat_themselves(text: str) -> None:
    assert without_loops(text) == text


def test_a_loop_that_changes_a_little_is_not_believed() -> None:
    looped = " ".join(f"and then the man said that{'.' * (i % 2)} {i}" for i in range(30))
    assert believable(looped, Sound(60.0, -15.0, 30.0, 1200)) == ""


def test_stock_phrases_are_written_as_they_are_compared() -> None:
    assert all(p == p.casefold().strip() and "-" not in p for p in STOCK_PHRASES)


def test_sound_is_measured() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    sound = Sound.of(tone)
    assert sound.audio_s == 1.0
    assert sound.loudest_db == pytest.approx(-3.01, abs=0.05)
    assert sound.range_db < 0.1
    assert sound.windows == 20
    assert Sound.of(tone[:100]).windows == 0


@pytest.mark.parametrize("level", [0.001, 0.01, 0.1])
def test_noise_is_steady_and_speech_is_not(level: float) -> None:
    assert Sound.of(noise(5, level)).range_db < 1.0
    assert Sound.of(hum(5)).range_db < 0.5
    assert Sound.of(librivox(880)).range_db > 15.0
    assert Sound.of(spoken("What is the capital of France?")).range_db > 15.0


def test_speech_under_noise_as_loud_as_itself_is_not_steady() -> None:
    clip = librivox(870)
    level = float(np.sqrt(np.mean(clip**2)))
    assert Sound.of(clip + noise(8, level)[: len(clip)]).range_db > 3.5


@pytest.fixture(scope="module")
def whisper(artifact: Callable[[str], Path]) -> RecogniserModel:
    return load_recogniser(artifact("whisper-tiny.en-int8"), RecogniserSettings(threads=1))


@pytest.mark.bundle
@pytest.mark.parametrize(
    "sound",
    [silence(5), noise(5, 0.001), noise(5, 0.01), noise(5, 0.1), hum(5)],
    ids=["silence", "hiss", "noise", "loud noise", "hum"],
)
def test_whisper_says_nothing_where_nobody_speaks(whisper: RecogniserModel, sound: Float32) -> None:
    recogniser = whisper.open()
    recogniser.accept(sound)
    assert recogniser.conclude().text == ""
