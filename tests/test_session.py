"""Whole conversations in lock step: fakes of the stages, the audio's clock, the same every time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import pytest
from fakes import (
    EnergyVadModel,
    HumSpeech,
    ScriptedLanguageModel,
    ScriptedLanguageModelModel,
    ScriptedRecogniserModel,
)

from edgevoice.audio.wav_port import WavSink, WavSource
from edgevoice.config import override
from edgevoice.errors import AudioError, EngineError
from edgevoice.events import (
    ClearNotice,
    DecisionNotice,
    ErrorNotice,
    MetricsNotice,
    Notice,
    StateNotice,
    TranscriptNotice,
)
from edgevoice.frames import Float32, Frame, Int16
from edgevoice.session import Pace, Session
from edgevoice.settings import Settings
from edgevoice.stages import Cancelled, Message, never
from edgevoice.weights import Engines

Kind = TypeVar("Kind")
LONG_ANSWER = "one two three four five six seven eight nine ten."


class Judge:
    """Every pause has the same probability of being the end of the turn."""

    def __init__(self, probability: float = 0.9) -> None:
        self._probability = probability

    def probability(self, samples: Float32) -> float:
        return self._probability


def silence(seconds: float) -> Int16:
    return np.zeros(round(seconds * 16_000), dtype=np.int16)


def voice(seconds: float) -> Int16:
    return np.full(round(seconds * 16_000), 6000, dtype=np.int16)


class Talk:
    """One conversation, run to its end."""

    def __init__(
        self,
        *parts: Int16,
        heard: Sequence[str] = ("what is this thing", "and that", "and then"),
        model: ScriptedLanguageModelModel | None = None,
        judge: Judge | None = None,
        source: Any = None,
        settings: Settings | None = None,
        speech: Any = None,
        notices: list[Notice] | None = None,
    ) -> None:
        self.notices: list[Notice] = [] if notices is None else notices
        self.sink = WavSink(None, "fast")
        audio = np.concatenate(parts) if parts else silence(0)
        engines = Engines(
            vad=EnergyVadModel(),
            recogniser=ScriptedRecogniserModel(heard),
            end_of_turn=judge or Judge(),
            language_model=model or ScriptedLanguageModelModel({}, LONG_ANSWER),
            speech=speech or HumSpeech(),
        )
        self.session = Session(
            engines,
            settings or Settings(),
            source or WavSource(audio, "fast", tail_s=0.0),
            self.sink,
            self.notices.append,
            pace=Pace.LOCK_STEP,
        )

    def run(self) -> Talk:
        self.session.run()
        return self

    def seen(self, kind: type[Kind]) -> list[Kind]:
        return [notice for notice in self.notices if isinstance(notice, kind)]

    def texts(self, role: str) -> list[tuple[str, bool]]:
        found = self.seen(TranscriptNotice)
        return [(n.text, n.interrupted) for n in found if n.role == role and n.final]

    @property
    def decisions(self) -> list[str]:
        return [notice.decision for notice in self.seen(DecisionNotice)]


def test_question_and_answer() -> None:
    talk = Talk(silence(0.5), voice(1), silence(6)).run()
    assert talk.texts("user") == [("what is this thing", False)]
    assert talk.texts("agent") == [(LONG_ANSWER, False)]
    assert [notice.state for notice in talk.seen(StateNotice)] == [
        "listening",
        "user_speaking",
        "endpointing",
        "thinking",
        "speaking",
        "listening",
    ]
    (metrics,) = talk.seen(MetricsNotice)
    assert metrics.spans_ms["endpoint"] == pytest.approx(150, abs=40)
    # Ten words of 200 ms each were heard, after the question.
    loud = np.flatnonzero(talk.sink.recording())
    assert 1.9 < len(loud) / 16_000 < 2.1
    assert loud[0] / 16_000 > 1.6
    assert talk.session.at_rest


def test_the_same_recording_gives_the_same_conversation() -> None:
    parts = (silence(0.5), voice(1), silence(1.5), voice(0.5), silence(5))
    one, two = Talk(*parts).run(), Talk(*parts).run()
    assert one.decisions == two.decisions
    assert one.session.history.turns == two.session.history.turns


def test_an_interruption_keeps_what_was_heard_and_starts_a_turn() -> None:
    talk = Talk(silence(0.5), voice(1), silence(1.2), voice(1), silence(6)).run()
    assert "interrupted" in talk.decisions
    assert len(talk.seen(ClearNotice)) == 1
    (cut, interrupted), (whole, _) = talk.texts("agent")
    assert interrupted
    assert LONG_ANSWER.startswith(cut)
    assert 0 < len(cut.split()) < 10
    assert whole == LONG_ANSWER
    turns = talk.session.history.turns
    assert [turn.role for turn in turns] == ["user", "assistant"] * 2
    assert turns[1].content == cut
    # The agent is silent between being stopped and the second answer.
    assert not talk.sink.recording()[round(3.0 * 16_000) : round(3.8 * 16_000)].any()


def test_a_noise_pauses_the_agent_and_loses_nothing() -> None:
    parts = (silence(0.5), voice(1), silence(1.2), voice(0.3), silence(6))
    talk = Talk(*parts, heard=("what is this thing", "", "")).run()
    assert [d for d in talk.decisions if d in ("held", "resumed", "interrupted")] == [
        "held",
        "resumed",
    ]
    assert talk.texts("agent") == [(LONG_ANSWER, False)]
    assert talk.texts("user") == [("what is this thing", False)]
    assert talk.seen(ClearNotice) == []
    # It fell silent while the noise lasted, and said everything: the cut word twice.
    loud = np.flatnonzero(np.abs(talk.sink.recording()) > 100)
    assert np.diff(loud).max() / 16_000 > 0.2
    assert 2.0 <= len(loud) / 16_000 < 2.4


class Spelling:
    """Says every word as 200 ms of its own loudness: the recording can be read back."""

    sample_rate_hz = 16_000
    words = "one two three four five six seven eight nine ten".split()

    def synthesise(self, text: str, cancelled: Cancelled = never) -> Iterator[Float32]:
        for word in text.replace(".", "").split():
            level = (self.words.index(word) + 1) / 20
            yield np.r_[np.zeros(320), np.full(2880, level)].astype(np.float32)

    def close(self) -> None: ...

    def read(self, recording: Int16) -> dict[str, float]:
        """The words in ``recording`` as they come, and how long each sounds unbroken, in ms."""
        first: dict[int, str] = {}
        longest: dict[str, float] = {}
        for index, word in enumerate(self.words):
            level = np.abs(recording - (index + 1) / 20 * 32767) < 40
            edges = np.flatnonzero(np.diff(np.r_[0, level.astype(int), 0]))
            runs = edges[1::2] - edges[::2]
            if len(runs):
                first[int(edges[::2][int(runs.argmax())])] = word
                longest[word] = float(runs.max()) / 16
        return {first[at]: longest[first[at]] for at in sorted(first)}


@pytest.mark.parametrize("after_s", [0.5, 0.63, 0.77, 0.91, 1.15, 1.4, 1.8, 2.2])
def test_wherever_a_noise_falls_no_word_is_missing(after_s: float) -> None:
    parts = (silence(0.5), voice(1), silence(after_s), voice(0.25), silence(6))
    speech = Spelling()
    talk = Talk(*parts, heard=("what is this thing", "", ""), speech=speech).run()
    assert talk.texts("agent") == [(LONG_ANSWER, False)]
    heard = speech.read(talk.sink.recording())
    assert list(heard) == speech.words
    # Every word sounds in one piece: its 180 ms, less what a ramp takes.
    assert min(heard.values()) > 165
    assert talk.session.history.turns[1].content == LONG_ANSWER


def test_go_on_gets_the_rest_of_the_answer() -> None:
    parts = (silence(0.5), voice(1), silence(1.2), voice(0.6), silence(6), voice(0.5), silence(5))
    heard = ("what is this thing", "wait a moment", "go on")
    model = ScriptedLanguageModelModel({"what is this thing": LONG_ANSWER}, "I wait.")
    speech = HumSpeech()
    talk = Talk(*parts, heard=heard, model=model, speech=speech).run()
    (first, cut), (second, _), (rest, rest_cut) = talk.texts("agent")
    assert cut and not rest_cut
    assert second == "I wait."
    assert f"{first} {rest}" == LONG_ANSWER
    assert [turn.content for turn in talk.session.history.turns][-2:] == ["go on", rest]


def test_a_cough_as_the_answer_is_due_does_not_kill_it() -> None:
    # The cough begins 40 ms before the wait is over, and the first sound would fall into it.
    parts = (silence(0.5), voice(1), silence(0.16), voice(0.3), silence(6))
    talk = Talk(*parts, heard=("what is this thing", "")).run()
    assert talk.texts("user") == [("what is this thing", False)]
    assert talk.texts("agent") == [(LONG_ANSWER, False)]


def test_metrics_count_the_work_that_was_done_ahead() -> None:
    talk = Talk(silence(0.5), voice(1), silence(6)).run()
    (metrics,) = talk.seen(MetricsNotice)
    assert metrics.speculation["answers_prepared"] == 1
    assert metrics.speculation["answers_dropped"] == 0
    assert metrics.speculation["tokens_written"] == 10


def test_a_pause_in_mid_sentence_is_not_answered() -> None:
    parts = (silence(0.5), voice(1), silence(0.8), voice(1), silence(6))
    talk = Talk(*parts, judge=Judge(0.0), heard=("tell me of",)).run()
    assert talk.decisions.count("turn_resumed") == 1
    assert len(talk.texts("agent")) == 1
    assert talk.texts("user") == [("tell me of", False)]


def test_noise_without_words_is_let_pass() -> None:
    talk = Talk(silence(0.5), voice(1), silence(3), heard=()).run()
    assert talk.decisions[-1] == "no_words"
    assert talk.texts("user") == talk.texts("agent") == []
    assert not talk.sink.recording().any()


class FailingModel(ScriptedLanguageModel):
    def generate(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Iterator[str]:
        raise EngineError("out of memory")
        yield ""


class FailingModelModel(ScriptedLanguageModelModel):
    def open(self) -> ScriptedLanguageModel:
        return FailingModel({})


def test_a_model_that_fails_is_an_event_and_the_session_listens_on() -> None:
    model = FailingModelModel({})
    talk = Talk(silence(0.5), voice(1), silence(2), voice(1), silence(2), model=model).run()
    errors = [notice.message for notice in talk.seen(ErrorNotice)]
    assert set(errors) == {"the language model failed: out of memory"}
    assert [text for text, _ in talk.texts("user")] == ["what is this thing", "and that"]
    assert talk.seen(StateNotice)[-1].state == "listening"
    # What was said stays in the history: the next answer may still take it up.
    assert talk.session.history.turns == (Message("user", "what is this thing and that"),)


def test_a_context_that_overflows_drops_the_oldest_turns() -> None:
    model = ScriptedLanguageModelModel({}, LONG_ANSWER, context_tokens=55)
    settings = override(Settings(), ["language_model.max_answer_tokens=12"])
    rounds = [part for _ in range(3) for part in (voice(1), silence(5))]
    talk = Talk(silence(0.5), *rounds, model=model, settings=settings).run()
    assert talk.seen(ErrorNotice) == []
    assert len(talk.texts("agent")) == 3
    turns = [turn.content for turn in talk.session.history.turns]
    assert "what is this thing" not in turns
    assert turns[-2:] == ["and then", LONG_ANSWER]


class Unplugged(WavSource):
    """A microphone that is pulled out after a second and a half."""

    def read(self, timeout_s: float) -> Frame | None:
        if self.delivered_samples >= 24_000:
            raise AudioError("the microphone is gone; plug it in and start again")
        return super().read(timeout_s)


def test_a_microphone_that_disappears_is_told_before_it_ends_the_session() -> None:
    source = Unplugged(np.concatenate((silence(0.5), voice(3))), "fast")
    talk = Talk(source=source)
    with pytest.raises(AudioError, match="plug it in"):
        talk.run()
    (error,) = talk.seen(ErrorNotice)
    assert error.fatal
    assert error.message == "the microphone is gone; plug it in and start again"


def test_lock_step_is_the_same_however_slowly_the_voice_speaks() -> None:
    class Dawdling(HumSpeech):
        def synthesise(self, text: str, cancelled: Cancelled = never) -> Iterator[Float32]:
            for chunk in super().synthesise(text, cancelled):
                time.sleep(0.005)
                yield chunk

    story = ScriptedLanguageModelModel({}, " ".join([LONG_ANSWER] * 6))
    spoken = (silence(0.5), voice(1), silence(13))
    swift = Talk(*spoken, model=story).run()
    slow = Talk(*spoken, model=story, speech=Dawdling()).run()
    assert np.array_equal(swift.sink.recording(), slow.sink.recording())
    assert swift.notices == slow.notices


def test_lock_step_needs_a_sink_that_can_be_moved() -> None:
    class Speaker:
        pass

    with pytest.raises(AudioError, match="cannot run in lock step"):
        Session(
            _engines(),
            Settings(),
            WavSource(silence(0), "fast"),
            Speaker(),  # type: ignore[arg-type]
            lambda notice: None,
            pace=Pace.LOCK_STEP,
        )


def _engines() -> Engines:
    return Engines(
        EnergyVadModel(),
        ScriptedRecogniserModel(()),
        None,
        ScriptedLanguageModelModel({}),
        HumSpeech(),
    )


def test_a_voice_that_has_nothing_to_say_gives_the_floor_back() -> None:
    class Mute(HumSpeech):
        def synthesise(self, text: str, cancelled: Cancelled = never) -> Iterator[Float32]:
            return iter(())

    talk = Talk(silence(0.5), voice(1), silence(3), speech=Mute()).run()
    assert talk.seen(StateNotice)[-1].state == "listening"
    assert not talk.sink.recording().any()


def test_stopping_in_mid_answer_enters_what_was_heard() -> None:
    class StopsWhenTheAgentSpeaks(list[Notice]):
        def append(self, notice: Notice) -> None:
            super().append(notice)
            if isinstance(notice, StateNotice) and notice.state == "speaking":
                talk.session.stop()

    talk = Talk(silence(0.5), voice(1), silence(6), notices=StopsWhenTheAgentSpeaks())
    talk.run()
    assert len(talk.seen(MetricsNotice)) == 1
    assert talk.session.history.turns[0].role == "user"
