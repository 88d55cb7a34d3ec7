"""What every VAD, recogniser and voice must do: the real engines, and the fakes of other tests.

Language models have :mod:`test_language_model_contract`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import EnergyVadModel, HumSpeech, ScriptedRecogniserModel
from speech import silence, spoken

from edgevoice.engines.edges import Paused, Started
from edgevoice.engines.recogniser import load_recogniser
from edgevoice.engines.silero_vad import load_vad
from edgevoice.engines.speech import load_speech
from edgevoice.frames import Float32
from edgevoice.settings import RecogniserSettings, SpeechSettings, VadSettings
from edgevoice.stages import Recogniser, Speech
from edgevoice.weights import VadModel

Artifact = Callable[[str], Path]
QUESTION = "What is the capital of France?"


def question() -> Float32:
    return np.concatenate((silence(0.5), spoken(QUESTION), silence(0.5)))


@pytest.fixture(scope="module", params=["silero", "fake"])
def vad_model(request: pytest.FixtureRequest, artifact: Artifact) -> VadModel:
    if request.param == "fake":
        return EnergyVadModel()
    return load_vad(artifact(VadSettings().model), VadSettings())


def test_a_vad_answers_once_a_window_however_the_audio_comes(vad_model: VadModel) -> None:
    audio = question()
    whole = list(vad_model.open().accept(audio))
    vad = vad_model.open()
    pieces = [d for start in range(0, len(audio), 160) for d in vad.accept(audio[start:][:160])]
    assert pieces == whole
    assert len(audio) // vad.window_samples - 1 <= len(whole) <= len(audio) // vad.window_samples


def test_a_vad_tells_speech_from_silence(vad_model: VadModel) -> None:
    vad, edges = vad_model.open(), vad_model.open_edges()
    found = list(edges.feed(vad.accept(question())))
    kinds = [type(e) for e in found if isinstance(e, Started | Paused)]
    assert kinds == [Started, Paused] * (len(kinds) // 2)
    assert isinstance(found[0], Started)
    assert 350 < found[0].onset_ms < 800
    vad.reset()
    assert max(vad.accept(silence(1.0))) < 0.5


@pytest.fixture(params=["whisper", "fake"])
def recogniser(request: pytest.FixtureRequest, artifact: Artifact) -> Iterator[Recogniser]:
    if request.param == "fake":
        yield ScriptedRecogniserModel([QUESTION, QUESTION]).open()
        return
    settings = RecogniserSettings()
    model = load_recogniser(artifact(settings.model), settings)
    yield model.open()
    model.close()


def test_a_recogniser_hears_nothing_in_nothing(recogniser: Recogniser) -> None:
    assert recogniser.conclude().text == ""
    recogniser.accept(silence(0.3))
    assert recogniser.conclude().text == ""


def test_an_utterance_stays_open_until_it_is_reset(recogniser: Recogniser) -> None:
    for start in range(0, len(question()), 1600):
        recogniser.accept(question()[start:][:1600])
        partial = recogniser.partial()
        assert partial is None or partial.text.startswith(partial.stable)
    concluded = recogniser.conclude()
    assert concluded.text == QUESTION
    assert recogniser.conclude().text == concluded.text
    assert not recogniser.endpoint()
    recogniser.reset()
    assert recogniser.conclude().text == ""
    recogniser.accept(question())
    assert recogniser.conclude().text == QUESTION


@pytest.fixture(scope="module", params=["piper", "fake"])
def speech(request: pytest.FixtureRequest, artifact: Artifact) -> Iterator[Speech]:
    if request.param == "fake":
        yield HumSpeech()
        return
    voice = load_speech(artifact(SpeechSettings().model), SpeechSettings())
    yield voice
    voice.close()


def test_a_voice_gives_sound_in_small_chunks(speech: Speech) -> None:
    chunks = list(speech.synthesise("The capital of France is Paris."))
    assert len(chunks) > 3
    for chunk in chunks:
        assert chunk.dtype == np.float32
        assert chunk.ndim == 1
        assert 0 < len(chunk) <= speech.sample_rate_hz // 5
        assert np.abs(chunk).max() <= 1.0
    assert 0.8 < sum(map(len, chunks)) / speech.sample_rate_hz < 4.0


@pytest.mark.parametrize("text", ["", "  ", "\U0001f642"])
def test_a_voice_is_silent_where_there_is_nothing_to_say(speech: Speech, text: str) -> None:
    assert list(speech.synthesise(text)) == []


def test_a_voice_stops_within_a_chunk(speech: Speech) -> None:
    heard: list[Float32] = []
    for chunk in speech.synthesise("one two three four five six seven", lambda: len(heard) >= 2):
        heard.append(chunk)
    assert 2 <= len(heard) <= 3
