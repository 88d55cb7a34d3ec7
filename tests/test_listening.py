"""Feeding the recogniser: order, staleness, and what belongs to which utterance."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edgevoice.events import Event, OverlapHeard, PartialHeard, PauseJudged, PauseTranscribed
from edgevoice.frames import Float32
from edgevoice.listening import Listener
from edgevoice.stages import Expected, Transcript


class CountingRecogniser:
    """Its "text" is the list of sample values that it was given, one for each run of equals."""

    def __init__(self) -> None:
        self.audio: list[float] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fails = False
        self.concluded = 0
        self.works: Callable[[], None] = lambda: None

    def accept(self, samples: Float32) -> None:
        self.gate.wait()
        self.works()
        self.audio += samples.tolist()

    @property
    def text(self) -> str:
        runs: list[str] = []
        for value in self.audio:
            if not runs or runs[-1] != f"{value:g}":
                runs.append(f"{value:g}")
        return " ".join(runs)

    def partial(self) -> Transcript | None:
        return Transcript(self.text)

    def draft(self) -> None: ...

    def glance(self) -> Transcript:
        return self.conclude()

    def conclude(self, expected: Expected = "turn") -> Transcript:
        self.concluded += 1
        if self.fails:
            raise RuntimeError("no such tensor")
        return Transcript(self.text)

    def endpoint(self) -> bool:
        return False

    def reset(self) -> None:
        self.audio.clear()


class LengthJudge:
    """The probability is the seconds of audio that it was given, over ten."""

    def probability(self, samples: Float32) -> float:
        return samples.size / 160_000


class Bench:
    def __init__(self) -> None:
        self.recogniser = CountingRecogniser()
        self.events: list[Event] = []
        self.errors: list[Exception] = []
        self.now_ms = 0.0
        self.listener = Listener(
            self.recogniser,
            LengthJudge(),
            self.events.append,
            lambda: self.now_ms,
            self.errors.append,
        )

    def settle(self) -> None:
        for _ in range(1000):
            if self.listener.idle:
                return
            time.sleep(0.002)
        raise AssertionError("the listener never came to rest")

    def texts(self) -> list[tuple[int, str]]:
        found = [event for event in self.events if isinstance(event, PauseTranscribed)]
        return [(event.pause, event.text) for event in found]


def audio(value: float, milliseconds: int) -> Float32:
    return np.full(milliseconds * 16, value, dtype=np.float32)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.recogniser.gate.set()
    made.listener.close()


def test_audio_before_any_speech_is_not_recognised(bench: Bench) -> None:
    bench.listener.feed(audio(1, 500))
    bench.settle()
    assert bench.recogniser.audio == []


def test_the_preroll_comes_first_and_partials_follow(bench: Bench) -> None:
    bench.listener.speech_started(1000, audio(1, 300))
    bench.listener.feed(audio(2, 100))
    bench.settle()
    assert PartialHeard(0.0, "1 2", "") in bench.events
    bench.listener.transcribe_pause(1)
    bench.listener.judge_pause(1)
    bench.settle()
    assert bench.texts() == [(1, "1 2")]
    judged = [event for event in bench.events if isinstance(event, PauseJudged)]
    assert judged == [PauseJudged(0.0, 1, pytest.approx(0.04))]


def test_the_judge_hears_eight_seconds_at_most(bench: Bench) -> None:
    bench.listener.speech_started(0, audio(1, 300))
    for _ in range(100):
        bench.listener.feed(audio(1, 100))
    bench.listener.transcribe_pause(1)
    bench.listener.judge_pause(1)
    bench.settle()
    judged = [event for event in bench.events if isinstance(event, PauseJudged)]
    assert judged == [PauseJudged(0.0, 1, pytest.approx(0.8))]


def test_what_the_quicker_pass_hears_is_told_once_it_is_asked(bench: Bench) -> None:
    bench.recogniser.draft = lambda: Transcript("one too")  # type: ignore[method-assign]
    taken: list[str] = []
    bench.listener.speech_started(0, audio(1, 300))
    ask = bench.listener.draft_later()
    assert taken == []
    ask(taken.append)
    bench.settle()
    assert taken == ["one too"]


def test_without_a_quicker_pass_there_are_no_words_of_it(bench: Bench) -> None:
    taken: list[str] = []
    bench.listener.speech_started(0, audio(1, 300))
    bench.listener.draft_later()(taken.append)
    bench.settle()
    assert taken == [""]


def test_where_the_user_has_gone_on_or_the_quicker_pass_fails_it_has_no_words(
    bench: Bench,
) -> None:
    def fails() -> Transcript:
        raise RuntimeError("no such tensor")

    bench.recogniser.draft = lambda: Transcript("one too")  # type: ignore[method-assign]
    taken: list[str] = []
    bench.listener.speech_started(0, audio(1, 300))
    bench.listener.note_quiet(True)
    ask = bench.listener.draft_later()
    bench.listener.note_quiet(False)
    ask(taken.append)
    bench.settle()
    assert taken == [""]
    bench.recogniser.draft = fails  # type: ignore[method-assign]
    bench.listener.draft_later()(taken.append)
    bench.settle()
    assert taken == ["", ""]
    assert "no such tensor" in str(bench.errors[0])


def test_a_pause_keeps_the_utterance_open(bench: Bench) -> None:
    bench.listener.speech_started(0, audio(1, 100))
    bench.listener.transcribe_pause(1)
    bench.listener.speech_started(900, audio(9, 300))
    bench.listener.feed(audio(2, 100))
    bench.listener.transcribe_pause(2)
    bench.settle()
    # The second onset's preroll has been fed already, as it came.
    assert bench.texts()[-1] == (2, "1 2")


def test_forget_closes_the_utterance(bench: Bench) -> None:
    bench.listener.speech_started(0, audio(1, 100))
    bench.listener.forget(500)
    bench.listener.feed(audio(2, 100))
    bench.settle()
    assert bench.recogniser.audio == []
    bench.listener.speech_started(2000, audio(3, 100))
    bench.listener.transcribe_pause(2)
    bench.settle()
    assert bench.texts() == [(2, "3")]


def test_speech_that_began_after_the_closed_turn_survives_the_forgetting(bench: Bench) -> None:
    bench.listener.speech_started(0, audio(1, 100))
    bench.listener.feed(audio(0, 300))
    bench.listener.speech_started(1000, audio(5, 200))
    bench.listener.feed(audio(6, 100))
    bench.listener.forget(500)
    bench.listener.feed(audio(7, 100))
    bench.listener.transcribe_pause(2)
    bench.settle()
    assert bench.texts() == [(2, "5 6 7")]


def test_a_pause_that_is_stale_is_not_transcribed(bench: Bench) -> None:
    bench.recogniser.gate.clear()
    bench.listener.speech_started(0, audio(1, 200))
    bench.listener.transcribe_pause(1)
    bench.listener.transcribe_pause(2)
    bench.recogniser.gate.set()
    bench.settle()
    assert [pause for pause, _ in bench.texts()] == [2]


def test_a_recogniser_that_fails_still_answers_the_pause(bench: Bench) -> None:
    bench.recogniser.fails = True
    bench.listener.speech_started(0, audio(1, 200))
    bench.listener.transcribe_pause(1)
    bench.settle()
    assert bench.texts() == [(1, "")]
    assert [str(error) for error in bench.errors] == ["no such tensor"]


def test_a_recogniser_that_stands_still_does_not_grow_a_queue(bench: Bench) -> None:
    bench.recogniser.gate.clear()
    bench.listener.speech_started(0, audio(1, 100))
    for _ in range(700):
        bench.listener.feed(audio(1, 100))
    assert 9_000 < bench.listener.lost_ms < 11_000
    bench.recogniser.gate.set()


def test_partials_of_old_audio_are_skipped(bench: Bench) -> None:
    decoded: list[int] = []
    partial: Callable[[], Transcript | None] = bench.recogniser.partial

    def counted() -> Transcript | None:
        decoded.append(1)
        return partial()

    bench.recogniser.partial = counted  # type: ignore[method-assign]
    bench.recogniser.gate.clear()
    bench.listener.speech_started(0, audio(1, 100))
    for _ in range(10):
        bench.listener.feed(audio(1, 100))
    bench.recogniser.gate.set()
    bench.settle()
    assert len(decoded) == 1


def test_the_rest_of_speech_that_was_cut_off_is_not_recognised(bench: Bench) -> None:
    bench.listener.speech_started(0, audio(1, 100))
    bench.listener.forget(5000)
    for _ in range(50):
        bench.listener.feed(audio(2, 100))
    bench.settle()
    assert bench.recogniser.audio == []


def test_words_over_the_agent_are_asked_for_without_a_pause(bench: Bench) -> None:
    bench.listener.speech_started(1000, audio(1, 300))
    bench.listener.feed(audio(2, 40))
    bench.listener.transcribe_overlap(7)
    bench.settle()
    assert OverlapHeard(0.0, 7, "1 2") in bench.events
    assert bench.texts() == []


def test_words_that_nobody_waits_for_any_more_are_not_looked_for(bench: Bench) -> None:
    bench.recogniser.gate.clear()
    bench.listener.speech_started(1000, audio(1, 300))
    bench.listener.transcribe_overlap(1)
    bench.listener.forget(1500)
    bench.recogniser.gate.set()
    bench.settle()
    assert not [event for event in bench.events if isinstance(event, OverlapHeard)]


def test_a_recogniser_that_fails_still_answers_a_hold(bench: Bench) -> None:
    bench.listener.speech_started(1000, audio(1, 300))
    bench.recogniser.fails = True
    bench.listener.transcribe_overlap(1)
    bench.settle()
    assert OverlapHeard(0.0, 1, "") in bench.events
    assert bench.errors


def test_words_are_looked_for_at_the_first_silence_and_serve_for_the_pause(bench: Bench) -> None:
    bench.listener.has_floor = True
    bench.listener.speech_started(0, audio(1, 340))
    bench.listener.note_quiet(False)
    bench.listener.feed(audio(2, 40))
    bench.listener.note_quiet(True)
    bench.settle()
    assert bench.events[-1] == PartialHeard(0.0, "1 2", "1 2")
    bench.listener.feed(audio(0, 40))
    bench.listener.transcribe_pause(1)
    bench.listener.judge_pause(1)
    bench.settle()
    assert bench.texts() == [(1, "1 2")]
    assert bench.recogniser.concluded == 1


def test_words_that_were_looked_for_too_early_are_looked_for_again(bench: Bench) -> None:
    bench.listener.has_floor = True
    bench.listener.speech_started(0, audio(1, 340))
    bench.listener.note_quiet(True)
    bench.settle()
    bench.listener.note_quiet(False)
    bench.listener.feed(audio(2, 100))
    bench.recogniser.gate.clear()
    bench.listener.note_quiet(True)
    bench.listener.note_quiet(False)
    bench.listener.feed(audio(3, 40))
    bench.recogniser.gate.set()
    bench.settle()
    assert bench.recogniser.concluded == 1, "the speech went on before it was come to"
    bench.listener.note_quiet(True)
    bench.listener.transcribe_pause(1)
    bench.settle()
    assert bench.texts() == [(1, "1 2 3")]


def test_a_guess_that_speech_has_ended_does_not_answer_the_pause(bench: Bench) -> None:
    bench.listener.has_floor = True
    bench.listener.speech_started(0, audio(1, 340))
    bench.listener.look_ahead()
    bench.settle()
    assert PartialHeard(0.0, "1", "1") in bench.events
    bench.listener.feed(audio(2, 40))
    bench.listener.transcribe_pause(1)
    bench.listener.judge_pause(1)
    bench.settle()
    assert bench.texts() == [(1, "1 2")]


def test_nothing_is_looked_for_over_the_agent_or_where_it_would_come_too_late(bench: Bench) -> None:
    bench.listener.speech_started(0, audio(1, 340))
    bench.listener.look_ahead()
    bench.settle()
    assert bench.recogniser.concluded == 0
    bench.listener.has_floor = True

    def slowly() -> Transcript:
        bench.now_ms += 900.0
        return Transcript("slow")

    bench.recogniser.conclude = slowly  # type: ignore[method-assign]
    bench.listener.look_ahead()
    bench.settle()
    assert bench.now_ms == 900.0
    bench.listener.look_ahead()
    bench.settle()
    assert bench.now_ms == 900.0


def test_the_real_time_factor_is_the_worst_utterances_and_taken_once(bench: Bench) -> None:
    def utterance(milliseconds: int, factor: float) -> None:
        def work() -> None:
            bench.now_ms += factor * milliseconds

        bench.listener.speech_started(0, audio(1, 0))
        bench.settle()
        bench.recogniser.works = work
        bench.listener.feed(audio(1, milliseconds))
        bench.settle()
        bench.listener.forget(1e9)
        bench.settle()

    assert bench.listener.take_rtf() is None
    utterance(2000, 0.5)
    utterance(1000, 1.5)
    utterance(4000, 0.25)
    # Too short to tell: a noise.
    utterance(500, 9.0)
    assert bench.listener.take_rtf() == pytest.approx(1.5)
    assert bench.listener.take_rtf() is None


def test_another_recogniser_hears_the_next_utterance(bench: Bench) -> None:
    other = CountingRecogniser()

    class Model:
        def open(self) -> CountingRecogniser:
            return other

        def close(self) -> None: ...

    bench.listener.speech_started(0, audio(1, 200))
    bench.listener.forget(1e9)
    bench.listener.change_recogniser(Model())
    bench.listener.speech_started(0, audio(2, 200))
    bench.listener.transcribe_pause(1)
    bench.settle()
    assert bench.texts() == [(1, "2")]
    assert other.text == "2"
    assert bench.recogniser.text == ""


def test_a_recogniser_that_cannot_be_opened_leaves_the_old_one(bench: Bench) -> None:
    class Model:
        def open(self) -> CountingRecogniser:
            raise RuntimeError("no memory")

        def close(self) -> None: ...

    bench.listener.change_recogniser(Model())
    bench.listener.speech_started(0, audio(3, 200))
    bench.listener.transcribe_pause(1)
    bench.settle()
    assert bench.texts() == [(1, "3")]
    assert [str(error) for error in bench.errors] == ["no memory"]
