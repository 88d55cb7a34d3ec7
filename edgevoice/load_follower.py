"""One conversation under a load policy: tells its turns, and does less when that is in force.

Owns what a step means for a conversation, and when it may be taken: what only changes a figure at
once, another model when nobody speaks. Leaves deciding to :mod:`edgevoice.load_policy` and what is
in force to :mod:`edgevoice.load_governor`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgevoice.answering import Answerer
from edgevoice.events import DecisionNotice, ErrorNotice, LoadNotice, MetricsNotice, Notice
from edgevoice.listening import Listener
from edgevoice.load_governor import LoadGovernor, Lost, Standing
from edgevoice.load_policy import Change, Step, TurnFigures
from edgevoice.settings import Settings
from edgevoice.stages import LanguageModelModel, Message, RecogniserModel
from edgevoice.weights import Engines


class LoadFollower:
    """One conversation's. All methods are called on the session's thread and return at once.

    Args:
        governor: Of the process.
        engines: What is used while nothing is left out.
        settings: The configuration.
        listener: Hears the user.
        answerer: Makes the answers.
        speculate: Told whether work may be done ahead.
        at_rest: Whether nobody speaks and nothing is being made.
        messages: What a language model is to have read.
        report: Takes what a model raised that could not be opened; from any thread.
        notice: Takes what watchers are told.
        now_ms: The session's clock.
    """

    def __init__(
        self,
        governor: LoadGovernor,
        engines: Engines,
        settings: Settings,
        listener: Listener,
        answerer: Answerer,
        *,
        speculate: Callable[[bool], None],
        at_rest: Callable[[], bool],
        messages: Callable[[], Sequence[Message]],
        report: Callable[[Exception], None],
        notice: Callable[[Notice], None],
        now_ms: Callable[[], float],
    ) -> None:
        self._governor = governor
        self._engines = engines
        self._short_wait_ms = settings.turns.complete_wait_ms
        self._short_answer = settings.load.answer_tokens
        self._listener = listener
        self._answerer = answerer
        self._speculate = speculate
        self._at_rest = at_rest
        self._messages = messages
        self._report = report
        self._notice = notice
        self._now_ms = now_ms
        self._waited_ms = 0.0
        self._standing = Standing()
        self._recogniser: RecogniserModel = engines.recogniser
        self._language_model: LanguageModelModel = engines.language_model

    def note(self, notice: Notice) -> None:
        """Take what the session tells its watchers, for the figures of its turns."""
        match notice:
            case DecisionNotice(decision="turn_ended", evidence=evidence):
                wait_ms = float(evidence.get("wait_ms", 0.0))
                self._waited_ms = max(0.0, wait_ms - self._short_wait_ms)
            case MetricsNotice(spans_ms=spans_ms):
                sound_ms = spans_ms.get("first_sound")
                heard = sound_ms is not None
                self._governor.turn(
                    TurnFigures(
                        response_ms=sound_ms - self._waited_ms if sound_ms is not None else None,
                        recognition_rtf=self._listener.take_rtf(),
                        gap_ms=self._answerer.gap_ms if heard else None,
                    )
                )
            case _:
                pass

    def follow(self) -> None:
        """Do what is in force by now."""
        standing = self._governor.standing
        if standing is not self._standing:
            self._tell(standing)
            self._standing = standing
            self._speculate(Step.SPECULATION not in standing.taken)
            shorter = Step.ANSWERS in standing.taken
            self._answerer.most_tokens = self._short_answer if shorter else None
        recogniser = standing.recogniser or self._engines.recogniser
        if recogniser is not self._recogniser and self._at_rest():
            self._recogniser = recogniser
            self._listener.change_recogniser(recogniser)
        language_model = standing.language_model or self._engines.language_model
        if language_model is not self._language_model and self._at_rest():
            self._language_model = language_model
            self._answerer.change_model(language_model, self._messages(), self._report)

    def _tell(self, standing: Standing) -> None:
        news = standing.changes - self._standing.changes
        for change in standing.latest[-news:]:
            match change:
                case Change():
                    taken = tuple(str(each) for each in standing.taken)
                    self._notice(
                        LoadNotice(
                            self._now_ms(),
                            change.direction,
                            str(change.step),
                            change.figure,
                            round(change.value, 3),
                            change.bound,
                            change.detail,
                            taken,
                        )
                    )
                case Lost(step=lost, detail=detail):
                    reason = f"no step {lost} under load: {detail}"
                    self._notice(ErrorNotice(self._now_ms(), reason))
