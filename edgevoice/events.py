"""What the stages of a conversation tell each other: events in, actions out, notices to watchers.

*Events* are what happened; :func:`edgevoice.turns.step` takes them one at a time. *Actions* are
what the turn-taking machine wants done. *Notices* are what a watcher of the session (terminal,
daemon client, report) sees. All times are milliseconds on the session's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

# --------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """VAD: the user began to speak at ``onset_ms`` (known at ``at_ms``)."""

    at_ms: float
    onset_ms: float


@dataclass(frozen=True, slots=True)
class SpeechContinued:
    """VAD: the user is still speaking, ``speech_ms`` after the onset."""

    at_ms: float
    speech_ms: float


@dataclass(frozen=True, slots=True)
class SpeechPaused:
    """VAD: speech stopped at ``end_ms`` (known at ``at_ms``, after the VAD's own hangover)."""

    at_ms: float
    end_ms: float


@dataclass(frozen=True, slots=True)
class PartialHeard:
    """The recogniser's text so far, while the user speaks."""

    at_ms: float
    text: str
    stable: str


@dataclass(frozen=True, slots=True)
class PauseTranscribed:
    """The text of the utterance up to pause number ``pause``."""

    at_ms: float
    pause: int
    text: str


@dataclass(frozen=True, slots=True)
class PauseJudged:
    """The end-of-turn model's probability for pause number ``pause``."""

    at_ms: float
    pause: int
    probability: float


@dataclass(frozen=True, slots=True)
class EndpointReached:
    """The recogniser's own endpoint rules say that the utterance is over."""

    at_ms: float


@dataclass(frozen=True, slots=True)
class AnswerSounded:
    """The first sample of answer ``answer`` reached the speaker."""

    at_ms: float
    answer: int


@dataclass(frozen=True, slots=True)
class AnswerFinished:
    """Answer ``answer`` was played to its end (or there was nothing to play)."""

    at_ms: float
    answer: int


@dataclass(frozen=True, slots=True)
class AnswerFailed:
    """Answer ``answer`` cannot be made or played; ``reason`` is one line."""

    at_ms: float
    answer: int
    reason: str


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The timer that :class:`StartTimer` with the same ``timer`` number set has run out."""

    at_ms: float
    timer: int


Event: TypeAlias = (
    SpeechStarted
    | SpeechContinued
    | SpeechPaused
    | PartialHeard
    | PauseTranscribed
    | PauseJudged
    | EndpointReached
    | AnswerSounded
    | AnswerFinished
    | AnswerFailed
    | TimerFired
)

# --------------------------------------------------------------------------- actions


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Send :class:`TimerFired` with this number at ``due_ms``; replaces any earlier timer."""

    timer: int
    due_ms: float


@dataclass(frozen=True, slots=True)
class TranscribePause:
    """Ask for the text and the end-of-turn probability of the utterance so far."""

    pause: int


@dataclass(frozen=True, slots=True)
class PrepareAnswer:
    """Begin answer ``answer`` to ``text``; hold its sound until :class:`ReleaseAnswer`.

    It replaces an earlier answer that was prepared and not released.
    """

    answer: int
    text: str


@dataclass(frozen=True, slots=True)
class ReleaseAnswer:
    """The user's turn is over: enter ``text`` in the history and let the answer sound."""

    answer: int
    text: str


@dataclass(frozen=True, slots=True)
class DropAnswer:
    """Throw the answer away; nothing of it was heard.

    If it had been released, the user's turn goes back out of the history: the machine carries its
    text over into the turn that follows.
    """

    answer: int
    reason: str


@dataclass(frozen=True, slots=True)
class InterruptAnswer:
    """Fall silent at once; history keeps only what was played of the answer."""

    answer: int
    reason: str


@dataclass(frozen=True, slots=True)
class CompleteAnswer:
    """The answer was heard to its end: enter it in the history whole."""

    answer: int


@dataclass(frozen=True, slots=True)
class ForgetUtterance:
    """Close the utterance in the recogniser: audio up to ``until_ms`` belongs to no turn any more.

    Speech that began after ``until_ms`` is the next utterance and must stay.
    """

    until_ms: float


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell watchers of a decision, the phase that follows from it, and the evidence."""

    decision: str
    phase: str
    evidence: dict[str, float | str] = field(default_factory=dict)


Action: TypeAlias = (
    StartTimer
    | TranscribePause
    | PrepareAnswer
    | ReleaseAnswer
    | DropAnswer
    | InterruptAnswer
    | CompleteAnswer
    | ForgetUtterance
    | Announce
)

# --------------------------------------------------------------------------- notices


@dataclass(frozen=True, slots=True)
class StateNotice:
    """The conversation moved to another state."""

    at_ms: float
    state: str


@dataclass(frozen=True, slots=True)
class TranscriptNotice:
    """Words of the user or of the agent. Final agent text is what was *heard* of the answer."""

    at_ms: float
    role: Literal["user", "agent"]
    text: str
    final: bool
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class ClearNotice:
    """Audio that was sent and not yet played must be dropped."""

    at_ms: float


@dataclass(frozen=True, slots=True)
class MetricsNotice:
    """One turn's spans: milliseconds after the end of the user's speech, by name."""

    at_ms: float
    turn: int
    spans_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DecisionNotice:
    """A turn-taking decision and the evidence for it."""

    at_ms: float
    decision: str
    evidence: dict[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ErrorNotice:
    """Something failed; the session goes on unless ``fatal``."""

    at_ms: float
    message: str
    fatal: bool = False


Notice: TypeAlias = (
    StateNotice | TranscriptNotice | ClearNotice | MetricsNotice | DecisionNotice | ErrorNotice
)
