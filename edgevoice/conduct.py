"""Does what the turn-taking machine asks for, and tells watchers and history of it.

Owns the timer that is set, the turn's marks, and what was told of the turn so far. Leaves deciding
to :mod:`edgevoice.turns` and the clock and the frames to :mod:`edgevoice.session`.
"""

from __future__ import annotations

from collections.abc import Callable

from edgevoice.answer_making import Draft
from edgevoice.answering import Answerer
from edgevoice.as_written import as_written
from edgevoice.completeness import HEARING, SOUND, model_completeness
from edgevoice.events import (
    Action,
    Announce,
    ClearNotice,
    CompleteAnswer,
    DecisionNotice,
    DropAnswer,
    DuckAnswer,
    ForgetUtterance,
    HeardBy,
    HoldAnswer,
    InterruptAnswer,
    JudgePause,
    MetricsNotice,
    Notice,
    PrepareAnswer,
    ReleaseAnswer,
    RestoreAnswer,
    ResumeAnswer,
    StartTimer,
    StateNotice,
    TranscribeOverlap,
    TranscribePause,
    TranscriptNotice,
)
from edgevoice.history import History
from edgevoice.latency import TurnMarks
from edgevoice.listening import Listener
from edgevoice.phrases import Phrases

_ECHO_TAIL_MS = 1500.0
"""Speech that begins this soon behind the agent's may be the end of its echo."""


class Conductor:
    """One conversation's.

    Args:
        listener: Hears the user.
        answerer: Makes the answers.
        history: What was said and heard.
        marks: Of the turn under way.
        phrases: The session's language.
        notice: Takes notices.
        now_ms: The session's clock.
        echo_margin_db: See :meth:`edgevoice.microphone.Microphone.echo_margin_db`.

    Attributes:
        heard_by: Of two passes, which one wrote down the turn that may be over.
    """

    def __init__(
        self,
        listener: Listener,
        answerer: Answerer,
        history: History,
        marks: TurnMarks,
        phrases: Phrases,
        *,
        notice: Callable[[Notice], None],
        now_ms: Callable[[], float],
        echo_margin_db: Callable[[], float | None],
    ) -> None:
        self._listener = listener
        self._answerer = answerer
        self._history = history
        self._marks = marks
        self._phrases = phrases
        self._notice = notice
        self._now_ms = now_ms
        self._echo_margin_db = echo_margin_db
        self.heard_by: HeardBy = ""
        self._timer: StartTimer | None = None
        self._turns = 0
        self._released_text = ""
        self._told_text = ""
        self._agent_text = ""
        self._last_said = ""
        self._last_said_ms = float("-inf")
        self._reciting = 0

    def do(self, action: Action) -> None:
        """Do one thing; returns at once."""
        now_ms = self._now_ms()
        match action:
            case StartTimer():
                self._timer = action
            case TranscribePause(pause=pause):
                self._listener.transcribe_pause(pause)
            case JudgePause(pause=pause):
                self._listener.judge_pause(pause)
            case TranscribeOverlap(probe=probe):
                self._listener.transcribe_overlap(probe)
            case PrepareAnswer():
                self._prepare(action)
            case ReleaseAnswer(answer=answer, text=text):
                self._release(answer, text, now_ms)
            case DropAnswer(answer=answer):
                self._answerer.stop(answer)
                if self._released_text:
                    self._history.retract_user(self._released_text)
                    self._released_text = ""
            case DuckAnswer(answer=answer):
                self._answerer.duck(answer)
            case RestoreAnswer(answer=answer):
                self._answerer.restore(answer)
            case HoldAnswer(answer=answer):
                self._answerer.hold(answer)
            case ResumeAnswer(answer=answer):
                self._answerer.resume(answer)
            case InterruptAnswer(answer=answer):
                heard = self._answerer.stop(answer)
                self._notice(ClearNotice(now_ms))
                self._history.agent_said(heard.text, cut_off=True, unheard=heard.unheard)
                self._close_turn(heard.text, interrupted=True)
            case CompleteAnswer(answer=answer):
                self._complete(answer, now_ms)
            case ForgetUtterance(until_ms=until_ms):
                self._listener.forget(until_ms)
            case Announce(decision=decision, phase=phase, evidence=evidence):
                margin_db = self._echo_margin_db()
                if margin_db is not None:
                    evidence = {**evidence, "echo_margin_db": margin_db}
                self._notice(DecisionNotice(now_ms, decision, evidence))
                self._notice(StateNotice(now_ms, phase))

    def take_due_timer(self) -> int | None:
        """Return the number of the timer that has run out, once."""
        timer = self._timer
        if timer is None or self._now_ms() < timer.due_ms:
            return None
        self._timer = None
        return timer.timer

    def said_before(self, onset_ms: float) -> str:
        """Return what the agent said last, "" when speech at ``onset_ms`` is no echo of it."""
        near = onset_ms - self._last_said_ms < _ECHO_TAIL_MS
        return self._last_said if near else ""

    def tell_agent_text(self) -> None:
        """Tell what has been made of the answer, where that is news."""
        text = self._answerer.text_so_far()
        if text and text != self._agent_text:
            self._agent_text = text
            self._notice(TranscriptNotice(self._now_ms(), "agent", text, final=False))

    def break_off(self, answer: int) -> None:
        """Enter what was heard of ``answer``: the conversation ends in the middle of it."""
        heard = self._answerer.stop(answer)
        self._history.agent_said(heard.text, cut_off=True)
        self._close_turn(heard.text, interrupted=True)

    def _prepare(self, wanted: PrepareAnswer) -> None:
        """Begin an answer: the model's, or the rest of the one that was interrupted."""
        rest = self._history.unheard
        if rest and self._phrases.asks_to_go_on(wanted.text):
            self._reciting = wanted.answer
            self._answerer.recite(wanted.answer, rest)
            return
        draft = self._draft(wanted)
        self._answerer.prepare(wanted.answer, self._history.messages(wanted.text), draft)

    def _draft(self, wanted: PrepareAnswer) -> Draft | None:
        sure_from = wanted.sure_from
        if sure_from is None:
            return None
        ask, phrases = self._listener.draft_later(), self._phrases
        witness = HEARING if wanted.by_hearing else SOUND

        def leaves_doubt(ending: float) -> bool:
            whole = model_completeness(ending, wanted.text, phrases, None, witness)
            return whole < sure_from

        def written(words: str) -> str:
            said = f"{wanted.carried} {words}".strip() if words else ""
            return as_written(said, phrases.language)

        return Draft(leaves_doubt, lambda take: ask(lambda words: take(written(words))))

    def _release(self, answer: int, text: str, now_ms: float) -> None:
        self._turns += 1
        self._marks.mark("endpoint", now_ms)
        self._history.user_said(text)
        self._released_text = text
        self._agent_text = ""
        self._tell_user_text(text)
        self._answerer.release(answer)

    def _complete(self, answer: int, now_ms: float) -> None:
        self._last_said = self._answerer.said()
        self._last_said_ms = now_ms
        if answer == self._reciting:
            self._history.forget_unheard()
        heard = self._answerer.finish(answer)
        self._history.agent_said(heard.text, cut_off=False)
        self._close_turn(heard.text, interrupted=False)

    def _close_turn(self, heard: str, *, interrupted: bool) -> None:
        now_ms = self._now_ms()
        self._released_text = ""
        self._told_text = ""
        self._agent_text = ""
        if heard:
            self._notice(TranscriptNotice(now_ms, "agent", heard, True, interrupted))
        figures = self._answerer.speculation.figures()
        self._notice(MetricsNotice(now_ms, self._turns, self._marks.spans_ms(), figures))

    def _tell_user_text(self, text: str) -> None:
        """Tell the words of a turn that ended, less those told before the user went on with it.

        What was final stays final, so a watcher that joins final texts has each word once.
        """
        rest = text.removeprefix(self._told_text).strip()
        self._told_text = text
        if rest:
            self._notice(
                TranscriptNotice(self._now_ms(), "user", rest, True, heard_by=self.heard_by)
            )
