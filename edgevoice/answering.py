"""From words to the agent's voice: language model, clauses, speech, and a gate before the speaker.

An answer is *prepared* (made and held) while the turn may still go on, *released* when the turn
is over, and *dropped* or *interrupted* at any moment. The language model and the voice each run
on a worker, so that the second clause is written while the first is spoken. All public methods
are called on the session's thread and return at once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgevoice.audio.resample import StreamResampler
from edgevoice.engines.clauses import ClauseSplitter
from edgevoice.events import AnswerFailed, AnswerFinished, AnswerSounded, Event
from edgevoice.frames import SAMPLE_RATE_HZ, Float32, Int16, to_int16
from edgevoice.history import fit, heard_prefix
from edgevoice.latency import Mark
from edgevoice.stages import LanguageModel, Message, Sink, Speech
from edgevoice.workers import Worker

_HELD_SAMPLES = 6 * SAMPLE_RATE_HZ
"""Speech that is made before anyone may hear it; more would often be made in vain."""

_AHEAD_SAMPLES = 4 * SAMPLE_RATE_HZ
"""Speech that is made ahead of the speaker; the rest waits, since an interruption may come."""

_CLAUSES_AHEAD = 4

_VOICE_FIRST_S = 0.5
"""The model pauses while the voice makes the first sound, so that both cores work on what the
user waits for; at most this long, since there may be nothing to say."""

_POLL_S = 0.02


@dataclass(slots=True)
class _Spoken:
    text: str
    samples: int = 0


@dataclass(slots=True)
class _Answer:
    """One answer under way. ``lock`` guards what the voice's worker and the session share."""

    number: int
    cancelled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    first_audio: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    clauses: queue.Queue[str | None] = field(
        default_factory=lambda: queue.Queue(maxsize=_CLAUSES_AHEAD)
    )
    spoken: list[_Spoken] = field(default_factory=list)
    held: list[Int16] = field(default_factory=list)
    made_samples: int = 0
    start_sample: int = 0
    complete: bool = False
    sounded: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """What of an answer left the speaker."""

    text: str
    whole: bool


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
        on_forgotten: Called (on a worker) with how many old turns no longer fit the context.
    """

    def __init__(
        self,
        model: LanguageModel,
        speech: Speech,
        sink: Sink,
        *,
        answer_tokens: int,
        post: Callable[[Event], None],
        mark: Callable[[Mark], None],
        now_ms: Callable[[], float],
        on_forgotten: Callable[[int], None],
    ) -> None:
        self._model = model
        self._speech = speech
        self._sink = sink
        self._answer_tokens = answer_tokens
        self._post = post
        self._mark = mark
        self._now_ms = now_ms
        self._on_forgotten = on_forgotten
        self._current: _Answer | None = None
        self._waiting = False
        self._warming = threading.Event()
        self._thinking = Worker("edgevoice-language-model", self._thinking_failed)
        self._speaking = Worker("edgevoice-speech", self._speaking_failed)

    @property
    def idle(self) -> bool:
        """True when nothing is being made, or what is made waits for the gate or the speaker."""
        return self._waiting or (self._thinking.idle and self._speaking.idle)

    def warm(self, messages: Sequence[Message]) -> None:
        """Read ``messages`` into the model before an answer to them, or to more, is wanted.

        Does nothing while the model is at work; :meth:`prepare` cuts it short.
        """
        if not self._thinking.idle:
            return
        prompt = list(messages)
        self._warming.clear()
        self._thinking.submit(lambda: _discard(self._model.prefill(prompt, self._warming.is_set)))

    def prepare(self, number: int, messages: Sequence[Message]) -> None:
        """Begin answer ``number`` to ``messages``; an unreleased earlier one is dropped."""
        self._cancel()
        self._warming.set()
        answer = _Answer(number)
        self._current = answer
        prompt = list(messages)
        self._thinking.submit(lambda: self._think(answer, prompt))
        self._speaking.submit(lambda: self._speak(answer))

    def release(self, number: int) -> None:
        """Let answer ``number`` sound."""
        answer = self._current
        if answer is None or answer.number != number:
            return
        with answer.lock:
            answer.start_sample = self._sink.played_samples() + self._sink.pending_samples()
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
                return Heard("", False)
            self._sink.clear()
            played = max(0, self._sink.played_samples() - answer.start_sample)
            return Heard(_heard_text(answer.spoken, played), False)

    def finish(self, number: int) -> Heard:
        """Close answer ``number``, which was heard to its end; return its text."""
        answer = self._current
        if answer is None or answer.number != number:
            return Heard("", False)
        self._current = None
        return Heard(" ".join(part.text for part in answer.spoken), True)

    def poll(self) -> None:
        """Post what the speaker has come to: the answer's first sound, the answer's end."""
        answer = self._current
        if answer is None or not answer.released.is_set():
            return
        with answer.lock:
            complete, made = answer.complete, answer.made_samples
        played = self._sink.played_samples() - answer.start_sample
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
        return " ".join(part.text for part in answer.spoken) if answer else ""

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

    def _think(self, answer: _Answer, messages: list[Message]) -> None:
        try:
            if answer.cancelled.is_set():
                return
            fitted = fit(messages, self._model, self._answer_tokens)
            if fitted.dropped_turns:
                self._on_forgotten(fitted.dropped_turns)
            splitter = ClauseSplitter()
            for piece in self._model.generate(fitted.messages, answer.cancelled.is_set):
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

    def _hand_over(self, answer: _Answer, clause: str | None) -> None:
        if clause:
            self._mark_for(answer, "first_clause")
        while not answer.cancelled.is_set():
            try:
                answer.clauses.put(clause, timeout=_POLL_S)
                return
            except queue.Full:
                continue

    # ---------------------------------------------------------------- on the voice's worker

    def _speak(self, answer: _Answer) -> None:
        try:
            while (clause := self._next_clause(answer)) is not None:
                self._speak_clause(answer, clause)
            with answer.lock:
                answer.complete = True
        except Exception as error:
            self._fail(answer, f"speech failed: {error}")

    def _next_clause(self, answer: _Answer) -> str | None:
        while not answer.cancelled.is_set():
            try:
                return answer.clauses.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        return None

    def _speak_clause(self, answer: _Answer, clause: str) -> None:
        rate_hz = self._speech.sample_rate_hz
        resampler = StreamResampler[Float32](rate_hz, SAMPLE_RATE_HZ, "float32")
        part = _Spoken(clause)
        with answer.lock:
            answer.spoken.append(part)
        for chunk in self._speech.synthesise(clause, answer.cancelled.is_set):
            self._deliver(answer, part, resampler.convert(chunk))
        self._deliver(answer, part, resampler.finish())
        answer.first_audio.set()

    def _deliver(self, answer: _Answer, part: _Spoken, samples: Float32) -> None:
        if not samples.size:
            return
        pcm = to_int16(samples)
        self._mark_for(answer, "first_audio")
        answer.first_audio.set()
        self._wait_for_room(answer)
        with answer.lock:
            if answer.cancelled.is_set():
                return
            part.samples += pcm.size
            answer.made_samples += pcm.size
            if answer.released.is_set():
                self._sink.write(pcm)
            else:
                answer.held.append(pcm)

    def _wait_for_room(self, answer: _Answer) -> None:
        def full() -> bool:
            if answer.released.is_set():
                return self._sink.pending_samples() > _AHEAD_SAMPLES
            return answer.made_samples > _HELD_SAMPLES

        while not answer.cancelled.is_set() and full():
            self._waiting = True
            answer.cancelled.wait(_POLL_S)
        self._waiting = False

    # ---------------------------------------------------------------- marks and failures

    def _mark_for(self, answer: _Answer, name: Mark) -> None:
        if not answer.cancelled.is_set():
            self._mark(name)

    def _fail(self, answer: _Answer, reason: str) -> None:
        if not answer.cancelled.is_set():
            self._post(AnswerFailed(self._now_ms(), answer.number, reason))

    def _thinking_failed(self, error: Exception) -> None:
        # Only `warm` comes here; its failure shows again, with a turn to blame, in `prepare`.
        del error

    def _speaking_failed(self, error: Exception) -> None:
        # `_speak` reports its own failures; what comes here is a defect of this module.
        raise error


def _discard(value: object) -> None:
    del value


def _heard_text(spoken: Sequence[_Spoken], played: int) -> str:
    words: list[str] = []
    for part in spoken:
        if played <= 0:
            break
        if part.samples:
            words.append(heard_prefix(part.text, played / part.samples))
        played -= part.samples
    return " ".join(word for word in words if word)
