"""The exchanges of a conversation (what was asked, what was heard of the answer, how long it
took), put together from a session's notices.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from edgevoice.events import MetricsNotice, Notice, TranscriptNotice


@dataclass(frozen=True, slots=True)
class Exchange:
    """One turn of the user's and what came of it.

    Attributes:
        user: What the user was heard to say.
        agent: What was heard of the answer; "" when there was none.
        unheard: The rest of what had been made, cut off by an interruption.
        interrupted: The user (or the end of the session) stopped the answer.
        speech_end_ms: When the user stopped speaking, on the session's clock.
        closed_ms: When the exchange was over.
        spans_ms: Milliseconds from ``speech_end_ms`` to each mark of
            :data:`edgevoice.latency.MARKS`.
    """

    user: str
    agent: str
    unheard: str
    interrupted: bool
    speech_end_ms: float
    closed_ms: float
    spans_ms: dict[str, float] = field(default_factory=dict)


class ExchangeLog:
    """Collects exchanges from notices, in their order."""

    def __init__(self) -> None:
        self._exchanges: list[Exchange] = []
        self._user: TranscriptNotice | None = None
        self._agent: TranscriptNotice | None = None
        self._made = ""

    @classmethod
    def of(cls, notices: Iterable[Notice]) -> ExchangeLog:
        """Return the log of a whole conversation."""
        log = cls()
        for notice in notices:
            log.watch(notice)
        return log

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """Those that are over; a last turn that was never answered counts too."""
        if self._user is None:
            return tuple(self._exchanges)
        return (*self._exchanges, self._closed(self._user.at_ms, {}))

    def watch(self, notice: Notice) -> None:
        """Take the next notice."""
        match notice:
            case TranscriptNotice(role="user", final=True):
                # A turn that goes on before its answer was heard is said again, as a whole.
                self._user = notice
                self._agent = None
                self._made = ""
            case TranscriptNotice(role="agent", final=True):
                self._agent = notice
            case TranscriptNotice(role="agent", text=text):
                self._made = text
            case MetricsNotice(at_ms=at_ms, spans_ms=spans_ms) if self._user is not None:
                self._exchanges.append(self._closed(at_ms, spans_ms))
                self._user = None
            case _:
                pass

    def _closed(self, at_ms: float, spans_ms: dict[str, float]) -> Exchange:
        assert self._user is not None
        heard = self._agent.text if self._agent else ""
        interrupted = self._agent is not None and self._agent.interrupted
        cut = interrupted and self._made.startswith(heard)
        return Exchange(
            user=self._user.text,
            agent=heard,
            unheard=self._made[len(heard) :].strip() if cut else "",
            interrupted=interrupted,
            # The user's text is final at the endpoint, which is one of the spans.
            speech_end_ms=self._user.at_ms - spans_ms.get("endpoint", 0.0),
            closed_ms=at_ms,
            spans_ms=dict(spans_ms),
        )
