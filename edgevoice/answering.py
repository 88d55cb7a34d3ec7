"""The agent's answers, and a gate before the speaker.

An answer is *prepared* (made and held) while the turn may still go on, *released* when the turn
is over, *held* and *resumed* while somebody may be interrupting, and *dropped* or *interrupted*
at any moment. Making one is :mod:`edgevoice.answer_making`'s business. All public methods are
called on the session's thread and return at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgevoice.answer_making import AnswerMaker, Draft
from edgevoice.events import AnswerFinished, AnswerSounded, Event
from edgevoice.frames import samples_to_ms
from edgevoice.latency import Mark
from edgevoice.speculation import Speculation
from edgevoice.spoken_answer import Heard, SpokenAnswer
from edgevoice.stages import LanguageModel, LanguageModelModel, Message, Sink, Speech


class Answerer:
    """Makes one answer at a time.

    Args:
        model: Used on this answerer's worker alone, and closed with it.
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
        self._sink = sink
        self._duck_gain = duck_gain
        self._speculation = Speculation()
        self._post = post
        self._mark = mark
        self._now_ms = now_ms
        self._current: SpokenAnswer | None = None
        self._gap_ms = 0.0
        self._dry_since_ms: float | None = None
        self._maker = AnswerMaker(
            model,
            speech,
            sink,
            self._speculation,
            answer_tokens=answer_tokens,
            post=post,
            mark=mark,
            now_ms=now_ms,
            on_forgotten=on_forgotten,
        )

    @property
    def idle(self) -> bool:
        """True when nothing is being made, or what is made waits for the gate or the speaker."""
        return self._maker.idle

    def hurry(self) -> None:
        """Let the voice look for room at once, and not only every so often."""
        if self._current is not None:
            self._current.room.set()

    @property
    def gap_ms(self) -> float:
        """Silence within the answer that was released last, because its speech was not made."""
        return self._gap_ms

    @property
    def most_tokens(self) -> int | None:
        """Where the next answers end; None for where the model ends them."""
        return self._maker.most_tokens

    @most_tokens.setter
    def most_tokens(self, tokens: int | None) -> None:
        self._maker.most_tokens = tokens

    def change_model(
        self,
        model: LanguageModelModel,
        messages: Sequence[Message],
        report: Callable[[Exception], None],
    ) -> None:
        """Let ``model`` write the next answers, once it has read ``messages``.

        Where it cannot be opened, ``report`` is called with the reason (on a worker), and the one
        stays that was in use.
        """
        self._maker.change_model(model, messages, report)

    def warm(self, messages: Sequence[Message]) -> None:
        """Read ``messages`` into the model before an answer to them, or to more, is wanted.

        Does nothing while the model is at work; :meth:`prepare` cuts it short.
        """
        self._maker.warm(messages)

    def prepare(self, number: int, messages: Sequence[Message], draft: Draft | None = None) -> None:
        """Begin answer ``number`` to ``messages``; an unreleased earlier one is dropped."""
        self._maker.write(self._begin(number), messages, draft)

    def recite(self, number: int, text: str) -> None:
        """Begin answer ``number``, which is ``text``: the model is not asked."""
        self._maker.recite(self._begin(number), text)

    def _begin(self, number: int) -> SpokenAnswer:
        if self._current is not None and not self._current.released.is_set():
            self._speculation.dropped()
        self._cancel()
        self._speculation.prepared()
        answer = SpokenAnswer(number)
        self._current = answer
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
        self._gap_ms = 0.0
        self._dry_since_ms = None

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
        self._note_gap(answer.sounded and not complete and not answer.paused and played >= made)
        if complete and played >= made and not answer.cancelled.is_set():
            answer.cancelled.set()  # so that the end is posted once
            self._post(AnswerFinished(self._now_ms(), answer.number))

    def _note_gap(self, dry: bool) -> None:
        now_ms = self._now_ms()
        if self._dry_since_ms is not None:
            self._gap_ms += now_ms - self._dry_since_ms
        self._dry_since_ms = now_ms if dry else None

    def text_so_far(self) -> str:
        """Return the text of the current answer that has been made into speech."""
        answer = self._current
        return answer.text if answer else ""

    def close(self) -> None:
        """Drop what is under way and end the workers."""
        self._cancel()
        self._maker.close()

    def _cancel(self) -> None:
        if self._current is not None:
            self._current.cancelled.set()
            self._current.first_audio.set()
            self._current.room.set()
            self._current = None
