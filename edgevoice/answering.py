"""From words to the agent's voice: language model, clauses, speech, and a gate before the speaker.

An answer is *prepared* (made and held) while the turn may still go on, *released* when the turn
is over, *held* and *resumed* while somebody may be interrupting, and *dropped* or *interrupted*
at any moment. The language model and the voice each run
on a worker, so that the second clause is written while the first is spoken. All public methods
are called on the session's thread and return at once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

import numpy as np

from edgevoice.audio.resample import StreamResampler
from edgevoice.engines.clauses import ClauseSplitter
from edgevoice.events import AnswerFailed, AnswerFinished, AnswerSounded, Event, TextJudged
from edgevoice.frames import (
    SAMPLE_RATE_HZ,
    Float32,
    samples_to_ms,
    to_int16,
)
from edgevoice.history import fit
from edgevoice.latency import Mark
from edgevoice.speculation import Speculation
from edgevoice.spoken_answer import Clause, Heard, SpokenAnswer
from edgevoice.stages import Cancelled, LanguageModel, Message, Sink, Speech
from edgevoice.workers import Worker

_HELD_SAMPLES = 6 * SAMPLE_RATE_HZ
"""Speech that is made before anyone may hear it; more would often be made in vain."""

_AHEAD_SAMPLES = 4 * SAMPLE_RATE_HZ
"""Speech that is made ahead of the speaker; the rest waits, since an interruption may come."""

_VOICE_FIRST_S = 0.5
"""The model pauses while the voice makes the first sound, so that both cores work on what the
user waits for; at most this long, since there may be nothing to say."""

_POLL_S = 0.02


class Answerer:
    """Makes one answer at a time.

    Args:
        model: Used on this answerer's worker alone.
        speech: The voice.
        sink: The speaker; takes 16 kHz int16.
        answer_tokens: Room that an answer needs in the model's context.
        post: Takes events; called from worker threads too.
        mark: Takes the turn's marks as they come.
        now_ms: The session's clock.
        duck_gain: How loud a ducked answer is, 1 is as loud as ever.
        on_forgotten: Called (on a worker) with how many old turns no longer fit the context.
    """

    def __init__(
        self,
        model: LanguageModel,
        speech: Speech,
        sink: Sink,
        *,
        answer_tokens: int,
        duck_gain: float,
        post: Callable[[Event], None],
        mark: Callable[[Mark], None],
        now_ms: Callable[[], float],
        on_forgotten: Callable[[int], None],
    ) -> None:
        self._model = model
        self._speech = speech
        self._sink = sink
        self._answer_tokens = answer_tokens
        self._duck_gain = duck_gain
        self._speculation = Speculation()
        self._post = post
        self._mark = mark
        self._now_ms = now_ms
        self._on_forgotten = on_forgotten
        self._current: SpokenAnswer | None = None
        self._voice_waits = self._model_waits = False
        self._warming = threading.Event()
        self._thinking = Worker("edgevoice-language-model", self._thinking_failed)
        self._speaking = Worker("edgevoice-speech", self._speaking_failed)

    @property
    def idle(self) -> bool:
        """True when nothing is being made, or what is made waits for the gate or the speaker."""
        waits = self._voice_waits or self._model_waits
        return waits or (self._thinking.idle and self._speaking.idle)

    def warm(self, messages: Sequence[Message]) -> None:
        """Read ``messages`` into the model before an answer to them, or to more, is wanted.

        Does nothing while the model is at work; :meth:`prepare` cuts it short.
        """
        if not self._thinking.idle:
            return
        prompt = list(messages)
        self._warming.clear()
        self._thinking.submit(lambda: self._read(prompt, self._warming.is_set))

    def prepare(self, number: int, messages: Sequence[Message]) -> None:
        """Begin answer ``number`` to ``messages``; an unreleased earlier one is dropped."""
        prompt = list(messages)
        answer = self._begin(number)
        self._thinking.submit(lambda: self._think(answer, prompt))

    def recite(self, number: int, text: str) -> None:
        """Begin answer ``number``, which is ``text``: the model is not asked."""
        answer = self._begin(number)
        self._thinking.submit(lambda: self._say(answer, text))

    def _begin(self, number: int) -> SpokenAnswer:
        if self._current is not None and not self._current.released.is_set():
            self._speculation.dropped()
        self._cancel()
        self._warming.set()
        self._speculation.prepared()
        answer = SpokenAnswer(number)
        self._current = answer
        self._speaking.submit(lambda: self._speak(answer))
        return answer

    def release(self, number: int) -> None:
        """Let answer ``number`` sound."""
        answer = self._current
        if answer is None or answer.number != number:
            return
        with answer.lock:
            answer.begin(self._sink.played_samples() + self._sink.pending_samples())
            for samples in answer.held:
                self._sink.write(samples)
            answer.held.clear()
            answer.released.set()

    def stop(self, number: int) -> Heard:
        """Fall silent at once, make no more of answer ``number``; return what was heard of it."""
        answer = self._current
        if answer is None or answer.number != number:
            return Heard("", False)
        self._cancel()
        with answer.lock:
            if not answer.released.is_set():
                self._speculation.dropped()
                return Heard("", False)
            self._sink.clear()
            heard = answer.heard(self._sink.played_samples())
            if not heard.text:
                self._speculation.dropped()
            return heard

    def finish(self, number: int) -> Heard:
        """Close answer ``number``, which was heard to its end; return its text."""
        answer = self._current
        if answer is None or answer.number != number:
            return Heard("", False)
        self._current = None
        self._sink.release(np.zeros(0, dtype=np.int16))
        return Heard(answer.text, True)

    def duck(self, number: int) -> None:
        """Turn answer ``number`` down."""
        if self._current is not None and self._current.number == number:
            self._sink.set_gain(self._duck_gain)

    def restore(self, number: int) -> None:
        """Turn answer ``number`` up again."""
        if self._current is not None and self._current.number == number:
            self._sink.set_gain(1.0)

    def hold(self, number: int) -> None:
        """Pause answer ``number``, or keep it from beginning.

        The making pauses too: the recogniser, which must say soon what the user wants, needs the
        cores.
        """
        answer = self._current
        if answer is None or answer.number != number or answer.paused:
            return
        with answer.lock:
            still = self._sink.hold()
            answer.pause(self._sink.played_samples(), still)

    def resume(self, number: int) -> None:
        """Let answer ``number`` go on, from the start of the word that the hold cut."""
        answer = self._current
        if answer is None or answer.number != number or not answer.paused:
            return
        with answer.lock:
            self._sink.release(answer.go_on())

    def said(self) -> str:
        """Return what the current answer says around the playback position."""
        answer = self._current
        if answer is None or not answer.released.is_set():
            return ""
        with answer.lock:
            return answer.said(self._sink.played_samples())

    @property
    def remaining_ms(self) -> float | None:
        """What is still to be heard of the current answer; None while more of it is made."""
        answer = self._current
        if answer is None or not answer.complete:
            return None
        return samples_to_ms(
            max(0, answer.made_samples - answer.position(self._sink.played_samples()))
        )

    @property
    def speculation(self) -> Speculation:
        """The account of the work that is done ahead."""
        return self._speculation

    def poll(self) -> None:
        """Post what the speaker has come to: the answer's first sound, the answer's end."""
        answer = self._current
        if answer is None or not answer.released.is_set():
            return
        with answer.lock:
            complete, made = answer.complete, answer.made_samples
        played = answer.position(self._sink.played_samples())
        if played > 0 and not answer.sounded:
            answer.sounded = True
            self._mark("first_sound")
            self._post(AnswerSounded(self._now_ms(), answer.number))
        if complete and played >= made and not answer.cancelled.is_set():
            answer.cancelled.set()  # so that the end is posted once
            self._post(AnswerFinished(self._now_ms(), answer.number))

    def text_so_far(self) -> str:
        """Return the text of the current answer that has been made into speech."""
        answer = self._current
        return answer.text if answer else ""

    def close(self) -> None:
        """Drop what is under way and end the workers."""
        self._cancel()
        self._warming.set()
        self._thinking.close()
        self._speaking.close()

    def _cancel(self) -> None:
        if self._current is not None:
            self._current.cancelled.set()
            self._current.first_audio.set()
            self._current = None

    # ---------------------------------------------------------------- on the model's worker

    def _read(self, messages: list[Message], cancelled: Cancelled, read_ahead: int = 0) -> None:
        evaluated = read_ahead + self._model.prefill(messages, cancelled)
        tokens = self._model.count_tokens(messages)
        self._speculation.read(evaluated, tokens, cancelled=cancelled())

    def _say(self, answer: SpokenAnswer, text: str) -> None:
        try:
            splitter = ClauseSplitter()
            for clause in (*splitter.feed(text), *splitter.flush()):
                self._hand_over(answer, clause)
        finally:
            self._hand_over(answer, None)

    def _think(self, answer: SpokenAnswer, messages: list[Message]) -> None:
        try:
            if answer.cancelled.is_set():
                return
            fitted = fit(messages, self._model, self._answer_tokens)
            if fitted.dropped_turns:
                self._on_forgotten(fitted.dropped_turns)
            read_ahead = 0
            if ending := self._model.ending(fitted.messages, answer.cancelled.is_set):
                read_ahead = ending.evaluated_tokens
                self._post(TextJudged(self._now_ms(), answer.number, ending.probability))
            self._read(fitted.messages, answer.cancelled.is_set, read_ahead)
            splitter = ClauseSplitter()
            for piece in self._model.generate(fitted.messages, answer.cancelled.is_set):
                self._speculation.wrote()
                self._wait_while_paused(answer)
                self._mark_for(answer, "first_token")
                for clause in splitter.feed(piece):
                    self._hand_over(answer, clause)
                    answer.first_audio.wait(_VOICE_FIRST_S)
            for clause in splitter.flush():
                self._hand_over(answer, clause)
        except Exception as error:
            self._fail(answer, f"the language model failed: {error}")
        finally:
            self._hand_over(answer, None)

    def _hand_over(self, answer: SpokenAnswer, clause: str | None) -> None:
        if clause:
            self._mark_for(answer, "first_clause")
        while not answer.cancelled.is_set():
            try:
                answer.clauses.put(clause, timeout=_POLL_S)
                return
            except queue.Full:
                continue

    # ---------------------------------------------------------------- on the voice's worker

    def _speak(self, answer: SpokenAnswer) -> None:
        try:
            while (clause := self._next_clause(answer)) is not None:
                self._speak_clause(answer, clause)
            with answer.lock:
                answer.complete = True
        except Exception as error:
            self._fail(answer, f"speech failed: {error}")

    def _next_clause(self, answer: SpokenAnswer) -> str | None:
        while not answer.cancelled.is_set():
            try:
                return answer.clauses.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        return None

    def _speak_clause(self, answer: SpokenAnswer, clause: str) -> None:
        rate_hz = self._speech.sample_rate_hz
        resampler = StreamResampler[Float32](rate_hz, SAMPLE_RATE_HZ, "float32")
        part = Clause(clause)
        with answer.lock:
            answer.spoken.append(part)
        for chunk in self._speech.synthesise(clause, answer.cancelled.is_set):
            self._deliver(answer, part, resampler.convert(chunk))
        self._deliver(answer, part, resampler.finish())
        answer.first_audio.set()

    def _deliver(self, answer: SpokenAnswer, part: Clause, samples: Float32) -> None:
        if not samples.size:
            return
        pcm = to_int16(samples)
        self._mark_for(answer, "first_audio")
        answer.first_audio.set()
        self._wait_for_room(answer)
        with answer.lock:
            if answer.cancelled.is_set():
                return
            answer.add(part, pcm)
            if answer.released.is_set():
                answer.forget_played(self._sink.played_samples())
                self._sink.write(pcm)
            else:
                answer.held.append(pcm)

    def _wait_while_paused(self, answer: SpokenAnswer) -> None:
        while answer.paused and not answer.cancelled.is_set():
            self._model_waits = True
            answer.cancelled.wait(_POLL_S)
        self._model_waits = False

    def _wait_for_room(self, answer: SpokenAnswer) -> None:
        def full() -> bool:
            if answer.paused:
                return True
            if answer.released.is_set():
                return self._sink.pending_samples() > _AHEAD_SAMPLES
            return answer.made_samples > _HELD_SAMPLES

        while not answer.cancelled.is_set() and full():
            self._voice_waits = True
            answer.cancelled.wait(_POLL_S)
        self._voice_waits = False

    # ---------------------------------------------------------------- marks and failures

    def _mark_for(self, answer: SpokenAnswer, name: Mark) -> None:
        if not answer.cancelled.is_set():
            self._mark(name)

    def _fail(self, answer: SpokenAnswer, reason: str) -> None:
        if not answer.cancelled.is_set():
            self._post(AnswerFailed(self._now_ms(), answer.number, reason))

    def _thinking_failed(self, error: Exception) -> None:
        # Only `warm` comes here; its failure shows again, with a turn to blame, in `prepare`.
        del error

    def _speaking_failed(self, error: Exception) -> None:
        # `_speak` reports its own failures; what comes here is a defect of this module.
        raise error
