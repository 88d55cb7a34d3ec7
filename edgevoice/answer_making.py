"""Makes an answer: the language model writes clauses on one worker, the voice speaks on another.

So the second clause is written while the first is spoken. Owns the two workers, and when they
wait: for room, during a hold, and the model for the first sound. Leaves what becomes of the sound
to :mod:`edgevoice.answering`.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgevoice.audio.resample import StreamResampler
from edgevoice.engines.clauses import ClauseSplitter
from edgevoice.events import AnswerFailed, Event, TextJudged
from edgevoice.frames import SAMPLE_RATE_HZ, Float32, to_int16
from edgevoice.history import fit
from edgevoice.latency import Mark
from edgevoice.leading_silence import LeadingSilence
from edgevoice.speculation import Speculation
from edgevoice.spoken_answer import Clause, SpokenAnswer
from edgevoice.stages import (
    Cancelled,
    Ending,
    LanguageModel,
    LanguageModelModel,
    Message,
    Sink,
    Speech,
)
from edgevoice.workers import Job, Worker

_HELD_SAMPLES = 6 * SAMPLE_RATE_HZ
"""Speech that is made before anyone may hear it; more would often be made in vain."""

_AHEAD_SAMPLES = 4 * SAMPLE_RATE_HZ
"""Speech that is made ahead of the speaker; the rest waits, since an interruption may come."""

_VOICE_FIRST_S = 0.5
"""The model pauses while the voice makes the first sound, so that both cores work on what the
user waits for; at most this long, since there may be nothing to say."""

_SENTENCE_ENDS = (".", "!", "?", "。", "！", "？")

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Draft:
    """The user's turn as another recogniser hears it.

    Attributes:
        wanted: Whether its words are to be weighed, by the probability that the turn's own end so.
        ask: Calls back with them, "" for none, on whatever thread.
    """

    wanted: Callable[[float], bool]
    ask: Callable[[Callable[[str], None]], None]


class AnswerMaker:
    """Makes one answer after another; the arguments are those of
    :class:`edgevoice.answering.Answerer`.

    Attributes:
        most_tokens: An answer ends here, or with a sentence in the second half before; None for
            where the model ends it.
    """

    def __init__(
        self,
        model: LanguageModel,
        speech: Speech,
        sink: Sink,
        speculation: Speculation,
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
        self._speculation = speculation
        self._answer_tokens = answer_tokens
        self._post = post
        self._mark = mark
        self._now_ms = now_ms
        self._on_forgotten = on_forgotten
        self.most_tokens: int | None = None
        # Whose sound and whose words the workers are at, and for whom the model waits.
        self._voiced: SpokenAnswer | None = None
        self._roomless: SpokenAnswer | None = None
        self._written: SpokenAnswer | None = None
        self._blocked: SpokenAnswer | None = None
        self._warming = threading.Event()
        self._unread: deque[list[Message]] = deque(maxlen=1)
        # The newest words that were judged, and what came of it; on the model's worker alone.
        self._judged: tuple[list[Message], Ending] | None = None
        self._thinking = Worker("edgevoice-language-model", self._thinking_failed)
        self._speaking = Worker("edgevoice-speech", self._speaking_failed)

    @property
    def idle(self) -> bool:
        """True when nothing is being made, or what is made waits for the gate or the speaker.

        Exact: nothing is made from then on until somebody else moves.
        """
        # Each may have let the other go on after it was asked.
        return all(
            waits()
            for waits in (
                self._voice_waits,
                self._model_waits,
                self._voice_waits,
                self._model_waits,
            )
        )

    def _voice_waits(self) -> bool:
        roomless, voiced = self._roomless, self._voiced
        if roomless is not None and not roomless.cancelled.is_set() and self._is_full(roomless):
            return True
        if voiced is not None and not voiced.cancelled.is_set():
            return not voiced.clauses.unfinished_tasks
        return self._speaking.idle

    def _model_waits(self) -> bool:
        written, blocked = self._written, self._blocked
        if written is not None and not written.cancelled.is_set() and written.paused:
            return True
        if blocked is not None and not blocked.cancelled.is_set() and blocked.clauses.full():
            return True
        return self._thinking.idle

    def warm(self, messages: Sequence[Message]) -> None:
        """Read ``messages`` into the model, unless it makes an answer; the newest count."""
        self._unread.append(list(messages))
        if self._thinking.idle:
            self._warming.clear()
            self._thinking.submit(self._warm)

    def write(
        self, answer: SpokenAnswer, messages: Sequence[Message], draft: Draft | None = None
    ) -> None:
        """Begin ``answer``, which the model writes to ``messages``."""
        prompt = list(messages)
        self._begin(answer)
        self._for(answer, lambda: self._think(answer, prompt, draft))

    def recite(self, answer: SpokenAnswer, text: str) -> None:
        """Begin ``answer``, which is ``text``."""
        self._begin(answer)
        self._thinking.submit(lambda: self._say(answer, text))

    def change_model(
        self,
        model: LanguageModelModel,
        messages: Sequence[Message],
        report: Callable[[Exception], None],
    ) -> None:
        """Write the next answers with ``model``; see :class:`edgevoice.answering.Answerer`."""
        self._warming.set()
        self._thinking.submit(lambda: self._change_model(model, report))
        self._unread.append(list(messages))
        self._warming.clear()
        self._thinking.submit(self._warm)

    def close(self) -> None:
        """End the workers and the model; answers under way must have been cancelled."""
        self._warming.set()
        self._thinking.close()
        self._speaking.close()
        self._model.close()

    def _begin(self, answer: SpokenAnswer) -> None:
        self._unread.clear()
        self._warming.set()
        self._speaking.submit(lambda: self._speak(answer))

    # ---------------------------------------------------------------- on the model's worker

    def _change_model(self, model: LanguageModelModel, report: Callable[[Exception], None]) -> None:
        try:
            fresh = model.open()
        except Exception as error:
            report(error)
            return
        self._model.close()
        self._model = fresh
        self._judged = None

    def _warm(self) -> None:
        with contextlib.suppress(IndexError):  # nothing is left to read
            while not self._warming.is_set():
                self._read_words(self._unread.popleft())

    def _read_words(self, messages: list[Message]) -> None:
        """Read up to the user's last word, and judge it: all that may stay when more is said."""
        cancelled = self._warming.is_set
        ending = self._model.ending(messages, cancelled) if messages[-1].role == "user" else None
        if ending is None:
            self._read(messages, cancelled)
            return
        self._judged = messages, ending
        self._speculation.read(ending.evaluated_tokens, ending.read_tokens, cancelled=False)

    def _ending(self, messages: list[Message], cancelled: Cancelled) -> tuple[float | None, int]:
        """Return how likely ``messages`` end so, and the tokens that were read for it."""
        if self._judged is not None and self._judged[0] == messages:
            return self._judged[1].probability, 0
        ending = self._model.begin(messages, cancelled)
        if ending is None:
            return None, 0
        self._judged = messages, ending
        return ending.probability, ending.evaluated_tokens

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

    def _think(self, answer: SpokenAnswer, messages: list[Message], draft: Draft | None) -> None:
        fitted = fit(messages, self._model, self._answer_tokens)
        if fitted.dropped_turns:
            self._on_forgotten(fitted.dropped_turns)
        ending, read_ahead = self._ending(fitted.messages, answer.cancelled.is_set)
        doubtful = draft is not None and ending is not None and draft.wanted(ending)
        self._post(TextJudged(self._now_ms(), answer.number, ending, more=doubtful))
        if draft is None or not doubtful:
            self._read_and_write(answer, fitted.messages, read_ahead)
            return

        def again(words: str) -> None:
            drafted, more = None, 0
            if words:
                other = [*fitted.messages[:-1], Message("user", words)]
                drafted, more = self._ending(other, answer.cancelled.is_set)
            self._post(TextJudged(self._now_ms(), answer.number, ending, words, drafted))
            self._read_and_write(answer, fitted.messages, read_ahead + more)

        # The answer waits for its turn meanwhile: nobody answers at once what may go on.
        draft.ask(lambda words: self._for(answer, lambda: again(words)))

    def _read_and_write(
        self, answer: SpokenAnswer, messages: list[Message], read_ahead: int
    ) -> None:
        self._read(messages, answer.cancelled.is_set, read_ahead)
        self._write(answer, messages)
        self._hand_over(answer, None)

    def _for(self, answer: SpokenAnswer, work: Job) -> None:
        """Let the model's worker do ``work``, unless nobody wants ``answer`` by then."""

        def safe() -> None:
            try:
                if not answer.cancelled.is_set():
                    work()
            except Exception as error:
                self._fail(answer, f"the language model failed: {error}")
                self._hand_over(answer, None)

        self._thinking.submit(safe)

    def _write(self, answer: SpokenAnswer, messages: list[Message]) -> None:
        most = self.most_tokens
        splitter = ClauseSplitter()
        pieces = self._model.generate(messages, answer.cancelled.is_set)
        for count, piece in enumerate(pieces, 1):
            self._speculation.wrote()
            self._wait_while_paused(answer)
            self._mark_for(answer, "first_token")
            clauses = splitter.feed(piece)
            for clause in clauses:
                self._hand_over(answer, clause)
                answer.first_audio.wait(_VOICE_FIRST_S)
            if most is not None and 2 * count >= most and clauses and _is_sentence(clauses[-1]):
                return  # What is left to say would not fit.
            if count == most:
                break
        for clause in splitter.flush():
            self._hand_over(answer, clause)

    def _hand_over(self, answer: SpokenAnswer, clause: str | None) -> None:
        if clause:
            self._mark_for(answer, "first_clause")
        while not answer.cancelled.is_set() and answer.clauses.full():
            self._blocked = answer
            answer.cancelled.wait(_POLL_S)
        self._blocked = None
        if not answer.cancelled.is_set():
            answer.clauses.put_nowait(clause)  # Nobody else puts.

    # ---------------------------------------------------------------- on the voice's worker

    def _speak(self, answer: SpokenAnswer) -> None:
        self._voiced = answer
        try:
            while (clause := self._next_clause(answer)) is not None:
                self._speak_clause(answer, clause)
                answer.clauses.task_done()
            with answer.lock:
                answer.complete = True
        except Exception as error:
            self._fail(answer, f"speech failed: {error}")
        finally:
            self._voiced = None

    def _next_clause(self, answer: SpokenAnswer) -> str | None:
        while not answer.cancelled.is_set():
            try:
                return answer.clauses.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        return None

    def _speak_clause(self, answer: SpokenAnswer, clause: str) -> None:
        rate_hz = self._speech.sample_rate_hz
        lead = LeadingSilence(rate_hz) if not answer.made_samples else None
        resampler = StreamResampler[Float32](rate_hz, SAMPLE_RATE_HZ, "float32")
        part = Clause(clause)
        with answer.lock:
            answer.spoken.append(part)
        for chunk in self._speech.synthesise(clause, answer.cancelled.is_set):
            sound = chunk if lead is None else lead.trim(chunk)
            self._deliver(answer, part, resampler.convert(sound))
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
            self._written = answer
            answer.cancelled.wait(_POLL_S)
        self._written = None

    def _wait_for_room(self, answer: SpokenAnswer) -> None:
        while not answer.cancelled.is_set() and self._is_full(answer):
            self._roomless = answer
            answer.room.wait(_POLL_S)
            answer.room.clear()
        self._roomless = None

    def _is_full(self, answer: SpokenAnswer) -> bool:
        if answer.paused:
            return True
        if answer.released.is_set():
            return self._sink.pending_samples() > _AHEAD_SAMPLES
        return answer.made_samples > _HELD_SAMPLES

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


def _is_sentence(clause: str) -> bool:
    return clause.endswith(_SENTENCE_ENDS)
