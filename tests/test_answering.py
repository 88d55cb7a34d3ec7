"""Preparing, holding, releasing, dropping and interrupting an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from edgevoice.answer_making import Draft
from edgevoice.answering import Answerer
from edgevoice.audio.wav_port import WavSink
from edgevoice.events import AnswerFailed, AnswerFinished, AnswerSounded, Event, TextJudged
from edgevoice.frames import FRAME_SAMPLES, Float32
from edgevoice.latency import Mark
from edgevoice.stages import Cancelled, Ending, Message, never


class PacedModel:
    """Says its pieces; each waits for a permit where ``permits`` is given."""

    context_tokens = 1000

    def __init__(self, pieces: Sequence[str], permits: threading.Semaphore | None = None) -> None:
        self.pieces = pieces
        self.permits = permits
        self.said: list[str] = []
        self.asked: list[Sequence[Message]] = []
        self.fails = False
        self.read: list[Sequence[Message]] = []
        self.judged: list[Sequence[Message]] = []
        self.begun: list[Sequence[Message]] = []
        self.reads_slowly = False

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(m.content.split()) for m in messages)

    def prefill(self, messages: Sequence[Message], cancelled: Cancelled = never) -> int:
        self.read.append(messages)
        return self.count_tokens(messages)

    def ending(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        self.judged.append(messages)
        while self.reads_slowly and len(self.judged) == 1 and not cancelled():
            time.sleep(0.005)
        return None if cancelled() else Ending(0.4, 0, 0)

    def begin(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        self.begun.append(messages)
        return self.ending(messages, cancelled)

    def generate(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Iterator[str]:
        self.asked.append(messages)
        if self.fails:
            raise RuntimeError("no such tensor")
        for piece in self.pieces:
            while self.permits is not None and not self.permits.acquire(timeout=0.01):
                if cancelled():
                    return
            if cancelled():
                return
            self.said.append(piece)
            yield piece

    def close(self) -> None:
        pass


class ToneSpeech:
    """100 ms of tone a word, in chunks of 100 ms."""

    sample_rate_hz = 16_000

    def __init__(self) -> None:
        self.clauses: list[str] = []

    def synthesise(self, text: str, cancelled: Cancelled = never) -> Iterator[Float32]:
        self.clauses.append(text)
        for _ in text.split():
            if cancelled():
                return
            yield np.full(1600, 0.25, dtype=np.float32)

    def close(self) -> None:
        pass


class Bench:
    """An answerer with a sink whose clock the test moves."""

    def __init__(self, model: PacedModel) -> None:
        self.model = model
        self.speech = ToneSpeech()
        self.sink = WavSink(None, pace="fast")
        self.sink.start()
        self.events: list[Event] = []
        self.marks: list[Mark] = []
        self.forgotten: list[int] = []
        self.now_ms = 0.0
        self.frame_ms = 0.0  # by which the clock moves, where a test wants it to
        self.answerer = Answerer(
            model,
            self.speech,
            self.sink,
            answer_tokens=10,
            duck_gain=0.3,
            post=self.events.append,
            mark=self.marks.append,
            now_ms=lambda: self.now_ms,
            on_forgotten=self.forgotten.append,
        )

    def wait(self, condition: Callable[[], bool]) -> None:
        for _ in range(1000):
            if condition():
                return
            time.sleep(0.005)
        raise AssertionError("it never happened")

    def play(self, milliseconds: int) -> None:
        for _ in range(milliseconds // 10):
            self.sink.advance(FRAME_SAMPLES)
            self.now_ms += self.frame_ms
            self.answerer.poll()

    def seen(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


ASK = [Message("user", "hello")]


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(PacedModel(["One two three. ", "Four five six. ", "Seven."]))
    yield made
    made.answerer.close()


def test_a_prepared_answer_is_silent_until_it_is_released(bench: Bench) -> None:
    bench.answerer.prepare(1, ASK)
    bench.wait(lambda: bench.answerer.idle)
    bench.play(500)
    assert not bench.sink.recording().any()
    assert bench.marks.count("first_sound") == 0
    bench.answerer.release(1)
    bench.play(10)
    assert bench.seen(AnswerSounded) == [AnswerSounded(0.0, 1)]
    bench.play(690)
    assert bench.seen(AnswerFinished) == [AnswerFinished(0.0, 1)]
    heard = bench.answerer.finish(1)
    assert heard.text == "One two three. Four five six. Seven."
    assert heard.whole


def test_an_interruption_keeps_the_words_that_were_played(bench: Bench) -> None:
    bench.answerer.prepare(1, ASK)
    bench.answerer.release(1)
    bench.wait(lambda: bench.answerer.idle and bench.sink.pending_samples() == 700 * 16)
    bench.play(450)
    heard = bench.answerer.stop(1)
    assert heard.text == "One two three. Four"
    assert not heard.whole
    bench.play(100)
    # At most the short fade is heard after the stop.
    assert not bench.sink.recording()[-90 * 16 :].any()
    assert bench.seen(AnswerFinished) == []


def test_a_dropped_answer_was_never_heard(bench: Bench) -> None:
    bench.answerer.prepare(1, ASK)
    assert bench.answerer.stop(1).text == ""
    bench.answerer.prepare(2, ASK)
    bench.answerer.release(2)
    bench.wait(lambda: bench.answerer.idle)
    bench.play(800)
    assert bench.seen(AnswerFinished) == [AnswerFinished(0.0, 2)]
    assert bench.sink.played_samples() == 700 * 16


def test_the_first_clause_is_spoken_while_the_second_is_written() -> None:
    permits = threading.Semaphore(1)
    bench = Bench(PacedModel(["One two three. ", "Four five. "], permits))
    bench.answerer.prepare(1, ASK)
    bench.answerer.release(1)
    bench.wait(lambda: bench.sink.pending_samples() == 300 * 16)
    assert bench.model.said == ["One two three. "]
    bench.play(300)
    assert bench.seen(AnswerFinished) == []
    permits.release()
    bench.wait(lambda: bench.answerer.idle)
    bench.play(300)
    assert bench.seen(AnswerFinished) == [AnswerFinished(0.0, 1)]
    bench.answerer.close()


def test_a_stop_ends_the_writing_within_a_piece() -> None:
    permits = threading.Semaphore(1)
    bench = Bench(PacedModel(["One two three. "] * 50, permits))
    bench.answerer.prepare(1, ASK)
    bench.answerer.release(1)
    bench.wait(lambda: bool(bench.model.said))
    bench.answerer.stop(1)
    bench.wait(lambda: bench.answerer.idle)
    assert len(bench.model.said) == 1
    bench.answerer.close()


def test_speech_is_not_made_far_ahead_of_the_speaker() -> None:
    bench = Bench(PacedModel(["One two three four five six seven eight. "] * 40))
    bench.answerer.prepare(1, ASK)
    bench.answerer.release(1)
    bench.wait(lambda: bench.sink.pending_samples() > 4 * 16_000)
    time.sleep(0.2)
    assert bench.sink.pending_samples() < 5 * 16_000
    assert bench.answerer.idle, "waiting for the speaker counts as idle"
    bench.answerer.close()


def test_a_model_that_fails_says_so_once(bench: Bench) -> None:
    bench.model.fails = True
    bench.answerer.prepare(1, ASK)
    bench.wait(lambda: bool(bench.seen(AnswerFailed)))
    assert bench.seen(AnswerFailed) == [
        AnswerFailed(0.0, 1, "the language model failed: no such tensor")
    ]
    bench.model.fails = False
    bench.answerer.prepare(2, ASK)
    bench.answerer.release(2)
    bench.wait(lambda: bench.sink.pending_samples() > 0)


def test_an_answer_of_nothing_finishes() -> None:
    bench = Bench(PacedModel([]))
    bench.answerer.prepare(1, ASK)
    bench.answerer.release(1)
    bench.wait(lambda: bench.answerer.idle)
    bench.answerer.poll()
    assert bench.seen(AnswerSounded) == []
    assert bench.seen(AnswerFinished) == [AnswerFinished(0.0, 1)]
    bench.answerer.close()


def test_turns_that_do_not_fit_are_reported(bench: Bench) -> None:
    bench.model.context_tokens = 30
    messages = [
        Message("system", "be brief"),
        Message("user", "w " * 20),
        Message("assistant", "w " * 20),
        Message("user", "hello"),
    ]
    bench.answerer.prepare(1, messages)
    bench.wait(lambda: bool(bench.model.asked))
    assert bench.forgotten == [2]
    assert bench.model.asked[0] == [messages[0], messages[3]]


def test_words_are_read_ahead_and_never_delay_an_answer(bench: Bench) -> None:
    bench.model.reads_slowly = True
    bench.answerer.warm([Message("user", "hel")])
    bench.wait(lambda: bool(bench.model.judged))
    bench.answerer.warm([Message("user", "hello")])
    assert len(bench.model.judged) == 1, "the model is still at the first"
    bench.answerer.prepare(1, ASK)
    bench.wait(lambda: bool(bench.model.asked))
    assert bench.model.judged == [[Message("user", "hel")], ASK]


def test_of_words_that_come_while_others_are_read_the_newest_count(bench: Bench) -> None:
    bench.model.reads_slowly = True
    bench.answerer.warm([Message("user", "I")])
    bench.wait(lambda: bool(bench.model.judged))
    bench.answerer.warm([Message("user", "I would")])
    bench.answerer.warm([Message("user", "I would like")])
    bench.model.reads_slowly = False
    bench.wait(lambda: bench.answerer.idle)
    assert [m[0].content for m in bench.model.judged] == ["I", "I would like"]
    assert bench.model.read == [], "what follows the words is read when they are whole"


def test_words_that_were_judged_ahead_are_not_judged_again(bench: Bench) -> None:
    bench.answerer.warm(ASK)
    bench.wait(lambda: bench.answerer.idle)
    bench.answerer.prepare(1, ASK)
    bench.wait(lambda: bool(bench.seen(TextJudged)))
    assert bench.seen(TextJudged) == [TextJudged(0.0, 1, 0.4)]
    assert bench.model.judged == [ASK]
    assert bench.model.begun == []


def test_words_that_are_answered_at_once_are_judged_while_they_are_read(bench: Bench) -> None:
    bench.answerer.prepare(1, ASK)
    bench.wait(lambda: bool(bench.model.asked))
    assert bench.model.begun == [ASK]
    assert bench.seen(TextJudged) == [TextJudged(0.0, 1, 0.4)]
    bench.answerer.prepare(2, ASK)
    bench.wait(lambda: len(bench.seen(TextJudged)) == 2)
    assert bench.model.begun == [ASK], "the judgement stands while the words are the same"


def test_where_the_words_leave_doubt_what_another_pass_heard_is_weighed_too(bench: Bench) -> None:
    asked: list[Callable[[str], None]] = []
    bench.answerer.prepare(1, ASK, Draft(lambda ending: ending < 0.5, asked.append))
    bench.wait(lambda: bool(asked) and bench.answerer.idle)
    assert bench.seen(TextJudged) == [TextJudged(0.0, 1, 0.4, more=True)]
    assert bench.model.asked == [], "the answer waits for the other words"
    asked[0]("Why is the sky blew")
    bench.wait(lambda: bool(bench.model.asked))
    assert bench.seen(TextJudged)[1:] == [TextJudged(0.0, 1, 0.4, "Why is the sky blew", 0.4)]
    assert bench.model.judged == [ASK, [*ASK[:-1], Message("user", "Why is the sky blew")]]
    assert bench.model.asked == [ASK], "the answer is to the turn's own words"
    bench.answerer.release(1)
    bench.wait(lambda: bench.sink.pending_samples() > 0)


def test_where_no_other_pass_heard_words_the_answer_is_made(bench: Bench) -> None:
    bench.answerer.prepare(1, ASK, Draft(lambda ending: ending < 0.5, lambda take: take("")))
    bench.wait(lambda: bool(bench.model.asked))
    assert bench.seen(TextJudged)[-1] == TextJudged(0.0, 1, 0.4)
    assert bench.model.judged == [ASK]


def test_words_that_leave_no_doubt_need_no_other_pass(bench: Bench) -> None:
    bench.answerer.prepare(
        1, ASK, Draft(lambda ending: ending < 0.3, lambda take: pytest.fail("it was asked"))
    )
    bench.wait(lambda: bool(bench.model.asked))
    assert bench.seen(TextJudged) == [TextJudged(0.0, 1, 0.4)]


def test_an_answer_that_is_dropped_while_another_pass_is_asked_is_not_made(bench: Bench) -> None:
    asked: list[Callable[[str], None]] = []
    bench.answerer.prepare(1, ASK, Draft(lambda ending: ending < 0.5, asked.append))
    bench.wait(lambda: bool(asked))
    bench.answerer.stop(1)
    asked[0]("Why is the sky blew")
    bench.wait(lambda: bench.answerer.idle)
    assert bench.model.asked == []


def test_a_held_answer_goes_on_from_the_start_of_the_cut_word(bench: Bench) -> None:
    bench.answerer.prepare(1, ASK)
    bench.answerer.release(1)
    bench.wait(lambda: bench.answerer.idle and bench.sink.pending_samples() == 700 * 16)
    bench.play(450)
    bench.answerer.hold(1)
    bench.play(500)
    assert bench.sink.played_samples() < 460 * 16, "a hold is silent but for its fade"
    bench.answerer.resume(1)
    bench.play(1000)
    assert len(bench.seen(AnswerFinished)) == 1
    again_ms = bench.sink.played_samples() / 16 - 700
    assert 5 <= again_ms <= 400
    assert bench.answerer.finish(1).text == "One two three. Four five six. Seven."


def test_a_word_that_has_hardly_begun_is_said_again_with_the_one_before(bench: Bench) -> None:
    bench.answerer.prepare(1, ASK)
    bench.answerer.release(1)
    bench.wait(lambda: bench.answerer.idle and bench.sink.pending_samples() == 700 * 16)
    bench.play(310)  # "Four" begins at 300, "three" at 171
    bench.answerer.hold(1)
    bench.play(100)
    bench.answerer.resume(1)
    bench.play(1000)
    assert bench.sink.played_samples() / 16 - 700 >= 310 - 171 - 40


def test_what_was_played_twice_is_heard_once(bench: Bench) -> None:
    bench.answerer.prepare(1, ASK)
    bench.answerer.release(1)
    bench.wait(lambda: bench.answerer.idle and bench.sink.pending_samples() == 700 * 16)
    bench.play(450)
    for _ in range(3):
        bench.answerer.hold(1)
        bench.play(100)
        bench.answerer.resume(1)
        bench.play(10)
    heard = bench.answerer.stop(1)
    assert heard.text == "One two three. Four"
    assert heard.unheard == "five six. Seven."


def test_an_answer_that_is_held_before_its_first_sound_begins_when_it_goes_on() -> None:
    permits = threading.Semaphore(0)  # or the first sound might be there before the hold
    bench = Bench(PacedModel(["One two three. ", "Four five six. ", "Seven."], permits))
    bench.answerer.prepare(1, ASK)
    bench.answerer.release(1)
    bench.answerer.hold(1)
    permits.release(3)
    bench.wait(lambda: bench.answerer.idle)
    bench.play(300)
    assert bench.seen(AnswerSounded) == []
    assert bench.sink.pending_samples() < 700 * 16, "its making pauses as well"
    bench.answerer.resume(1)
    bench.wait(lambda: bench.answerer.idle and bench.sink.pending_samples() == 700 * 16)
    bench.play(1000)
    assert bench.sink.played_samples() == 700 * 16
    assert bench.answerer.finish(1).whole
    bench.answerer.close()


def test_ducking_turns_down_and_restoring_turns_up(bench: Bench) -> None:
    bench.answerer.prepare(1, ASK)
    bench.answerer.release(1)
    bench.wait(lambda: bench.sink.pending_samples() == 700 * 16)
    bench.play(100)
    bench.answerer.duck(1)
    bench.play(100)
    bench.answerer.restore(1)
    bench.play(100)
    out = bench.sink.recording().astype(int)
    assert out[50 * 16] == out[290 * 16]
    assert out[190 * 16] == pytest.approx(0.3 * out[50 * 16], abs=2)


def test_what_is_said_around_the_playback_position(bench: Bench) -> None:
    bench.answerer.prepare(1, ASK)
    assert bench.answerer.said() == ""
    bench.answerer.release(1)
    bench.wait(lambda: bench.answerer.idle and bench.sink.pending_samples() == 700 * 16)
    assert bench.answerer.remaining_ms == 700
    bench.play(150)
    assert bench.answerer.said() == "One two three. Four five six."
    assert bench.answerer.remaining_ms == 550


def test_an_answer_is_recited_without_the_model(bench: Bench) -> None:
    bench.answerer.recite(1, "Five six. Seven.")
    bench.answerer.release(1)
    bench.wait(lambda: bench.answerer.idle and bench.sink.pending_samples() == 300 * 16)
    bench.play(400)
    assert bench.answerer.finish(1).text == "Five six. Seven."
    assert bench.model.asked == []


def test_work_done_ahead_is_counted(bench: Bench) -> None:
    bench.answerer.prepare(1, ASK)
    bench.wait(lambda: bench.answerer.idle)
    bench.answerer.prepare(2, ASK)
    bench.wait(lambda: bench.answerer.idle)
    figures = bench.answerer.speculation.figures()
    assert figures["answers_prepared"] == 2
    assert figures["answers_dropped"] == 1
    assert figures["tokens_written"] == 6
    assert figures["tokens_wasted"] >= 3


def test_silence_within_an_answer_is_counted_and_the_wait_before_it_is_not() -> None:
    permits = threading.Semaphore(1)
    bench = Bench(PacedModel(["One two three. ", "Four five six. ", "Seven."], permits))
    bench.frame_ms = 10.0
    try:
        bench.answerer.prepare(1, ASK)
        bench.play(500)
        bench.answerer.release(1)
        bench.wait(lambda: bool(bench.speech.clauses))
        bench.wait(lambda: bench.sink.pending_samples() >= 4800)
        bench.play(300)
        assert bench.answerer.gap_ms == 0
        # Its 300 ms have been heard, and nothing comes for 400.
        bench.play(400)
        permits.release(2)
        bench.wait(lambda: bench.sink.pending_samples() > 0)
        bench.wait(lambda: bench.answerer.idle)
        bench.play(2000)
        assert bench.seen(AnswerFinished)
        assert bench.answerer.gap_ms == pytest.approx(400, abs=20)
        bench.answerer.prepare(2, ASK)
        bench.answerer.release(2)
        assert bench.answerer.gap_ms == 0
    finally:
        bench.answerer.close()


def test_a_hold_is_no_gap() -> None:
    bench = Bench(PacedModel(["One two three. ", "Four."], threading.Semaphore(1)))
    bench.frame_ms = 10.0
    try:
        bench.answerer.prepare(1, ASK)
        bench.answerer.release(1)
        bench.wait(lambda: bench.answerer.text_so_far() != "")
        bench.wait(lambda: bench.sink.pending_samples() >= 4800)
        bench.play(100)
        bench.answerer.hold(1)
        bench.play(1000)
        assert bench.answerer.gap_ms == 0
    finally:
        bench.answerer.close()
