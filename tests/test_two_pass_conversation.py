"""Conversations in which two passes listen: with fakes in lock step, and one with real engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import (
    EnergyVadModel,
    HumSpeech,
    ScriptedLanguageModel,
    ScriptedLanguageModelModel,
    ScriptedRecogniser,
    ScriptedRecogniserModel,
)
from speech import spoken
from tiny_wenet import tones, write_pack

from edgevoice import loading
from edgevoice.audio.wav_port import WavSink, WavSource
from edgevoice.config import override
from edgevoice.engines.providers import Ran
from edgevoice.engines.two_passes import TwoPassModel
from edgevoice.errors import EngineError
from edgevoice.events import DecisionNotice, ErrorNotice, Notice, TranscriptNotice
from edgevoice.frames import Int16, to_int16
from edgevoice.session import Pace, Session
from edgevoice.settings import Settings
from edgevoice.stages import Expected, RecogniserModel, Transcript
from edgevoice.store import Store
from edgevoice.weights import Engines

ANSWER = "one two three four five six seven eight nine ten."


class Whole(ScriptedRecogniser):
    """Hears whole utterances, and says nothing before it is asked."""

    def partial(self) -> Transcript | None:
        return None


class WholeModel(ScriptedRecogniserModel):
    def open(self) -> Whole:
        return Whole(self._texts)


class FailingModel(ScriptedRecogniserModel):
    def open(self) -> Whole:
        class Failing(Whole):
            def conclude(self, expected: Expected = "turn") -> Transcript:
                raise EngineError("no such tensor")

        return Failing(self._texts)


class Judge:
    def probability(self, samples: object) -> float:
        return 0.9


class Conversations(ScriptedLanguageModelModel):
    """Keeps the conversation that it opened."""

    def open(self) -> ScriptedLanguageModel:
        self.opened = super().open()
        return self.opened


class Talk:
    """One conversation in lock step."""

    def __init__(self, *parts: Int16, first: Sequence[str], second: RecogniserModel) -> None:
        self.notices: list[Notice] = []
        self.model = Conversations({}, ANSWER)
        engines = Engines(
            vad=EnergyVadModel(),
            # No wall clock decides in lock step.
            recogniser=TwoPassModel(ScriptedRecogniserModel(first), second, None),
            end_of_turn=Judge(),
            language_model=self.model,
            speech=HumSpeech(),
        )
        Session(
            engines,
            Settings(),
            WavSource(np.concatenate(parts), "fast", tail_s=0.0),
            WavSink(None, "fast"),
            self.notices.append,
            pace=Pace.LOCK_STEP,
        ).run()

    def user(self, *, final: bool) -> list[tuple[str, str]]:
        said = [n for n in self.notices if isinstance(n, TranscriptNotice) and n.role == "user"]
        return [(n.text, n.heard_by) for n in said if n.final is final]

    def decisions(self) -> list[str]:
        return [n.decision for n in self.notices if isinstance(n, DecisionNotice)]


def silence(seconds: float) -> Int16:
    return np.zeros(round(seconds * 16_000), dtype=np.int16)


def voice(seconds: float) -> Int16:
    return np.full(round(seconds * 16_000), 6000, dtype=np.int16)


def test_partials_are_the_firsts_and_what_is_answered_is_the_seconds() -> None:
    talk = Talk(
        silence(0.5),
        voice(1),
        silence(6),
        first=["wot is this"],
        second=WholeModel(["What is this?"]),
    )
    assert talk.user(final=False)[0] == ("wot is this", "first")
    assert talk.user(final=False)[-1] == ("What is this?", "second")
    assert talk.user(final=True) == [("What is this?", "second")]
    # What will be rewritten is not read by the language model.
    read = {messages[-1].content for messages in talk.model.opened.prefilled}
    assert "What is this?" in read
    assert "wot is this" not in read


def test_a_second_pass_that_fails_costs_no_turn() -> None:
    talk = Talk(silence(0.5), voice(1), silence(6), first=["wot is this"], second=FailingModel([]))
    assert talk.user(final=True) == [("wot is this", "first")]
    assert "answer_finished" in talk.decisions()
    told = [n.message for n in talk.notices if isinstance(n, ErrorNotice)]
    assert told[0].endswith("the first pass's words stand: no such tensor")


def test_words_that_the_first_alone_hears_over_the_agent_do_not_stop_it() -> None:
    """A keyboard of which it makes a sentence, and Whisper nothing."""
    talk = Talk(
        *(silence(0.5), voice(1), silence(1.2), voice(0.9), silence(6)),
        first=["wot is this", "the knight the sit on it"],
        second=WholeModel(["What is this?", ""]),
    )
    assert "held" in talk.decisions()
    assert "interrupted" not in talk.decisions()
    assert "resumed" in talk.decisions()


@pytest.mark.parametrize("first", ["stop it", ""])
def test_words_over_the_agent_stop_it_though_the_first_is_deaf_to_them(first: str) -> None:
    talk = Talk(
        *(silence(0.5), voice(1), silence(1.2), voice(0.8), silence(6)),
        first=["wot is this", first],
        second=WholeModel(["What is this?", "Stop it now."]),
    )
    assert "interrupted" in talk.decisions()
    assert talk.user(final=True)[-1] == ("Stop it now.", "second")


def test_a_turn_in_which_the_second_hears_no_words_is_none() -> None:
    talk = Talk(silence(0.5), voice(1), silence(4), first=["the knight"], second=WholeModel([""]))
    assert talk.user(final=True) == []
    assert "no_words" in talk.decisions()


@pytest.mark.bundle
def test_a_conversation_with_real_engines(artifact: Callable[[str], Path], tmp_path: Path) -> None:
    """The first pass hears letters in a tone before the question; Whisper hears the question."""
    pack = write_pack(tmp_path / "tones")
    settings = override(
        Settings(),
        [
            f"recogniser.first_pass={pack}",
            "recogniser.second_pass_wait_ms=30000",  # whatever else runs on this machine
            "language_model.max_answer_tokens=8",
        ],
    )
    engines = loading.load_engines(settings, Store(artifact("silero-vad").parent))
    assert isinstance(engines.recogniser, TwoPassModel)
    assert engines.providers()["first-pass"] == Ran()
    question = np.r_[np.zeros(8000, np.float32), tones("c", 250), spoken("What is a computer?")]
    notices: list[Notice] = []
    Session(
        engines,
        settings,
        WavSource(to_int16(question), "fast", tail_s=5.0),
        WavSink(None, "fast"),
        notices.append,
        pace=Pace.LOCK_STEP,
    ).run()
    engines.close()
    assert [n.message for n in notices if isinstance(n, ErrorNotice)] == []
    said = [n for n in notices if isinstance(n, TranscriptNotice)]
    partials = [n for n in said if n.role == "user" and not n.final]
    (final,) = [n for n in said if n.role == "user" and n.final]
    assert partials[0].heard_by == "first"
    assert set(partials[0].text) <= set("abc ")
    assert (final.text, final.heard_by) == ("What is a computer?", "second")
    assert partials[-1] == replace(partials[-1], text=final.text, heard_by="second")
    assert [n for n in said if n.role == "agent" and n.final and n.text]
