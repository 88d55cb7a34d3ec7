"""What the stages of a conversation tell each other: events in, actions out, notices to watchers.

*Events* are what happened; :func:`edgevoice.turns.step` takes them one at a time. *Actions* are
what the turn-taking machine wants done. *Notices* are what a watcher of the session (terminal,
daemon client, report) sees. All times are milliseconds on the session's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

HeardBy: TypeAlias = Literal["", "first", "second"]
"""Which of two passes a text is of; "" where one recogniser hears alone."""

# --------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class SpeechSuspected:
    """VAD: what may be the first of speech, too little to report; Started or Dismissed follows.

    ``echo_margin_db``: as in :class:`SpeechContinued`. ``faint``: no window is likely enough yet
    to be speech; where one is, the suspicion comes a second time.
    """

    at_ms: float
    onset_ms: float
    echo_margin_db: float | None = None
    faint: bool = False


@dataclass(frozen=True, slots=True)
class SpeechDismissed:
    """VAD: nothing came of the speech that was suspected."""

    at_ms: float


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """VAD: the user began to speak at ``onset_ms`` (known at ``at_ms``)."""

    at_ms: float
    onset_ms: float
    echo_margin_db: float | None = None
    loudness_db: float | None = None


@dataclass(frozen=True, slots=True)
class SpeechContinued:
    """VAD: the user is still speaking, ``speech_ms`` after the onset.

    Attributes:
        echo_margin_db: How much louder the sound is than the agent's echo is estimated to be;
            None where nothing estimates it.
        speaker_similarity: Cosine similarity, -1 to 1, to the enrolled owner's voice; None where
            no voice is enrolled.
        loudness_db: How much louder the speech is so far than this user's usually is; None while
            no turn was heard, and where an echo canceller is at work, which changes it.
    """

    at_ms: float
    speech_ms: float
    echo_margin_db: float | None = None
    speaker_similarity: float | None = None
    loudness_db: float | None = None


@dataclass(frozen=True, slots=True)
class SpeechPaused:
    """VAD: speech stopped at ``end_ms`` (known at ``at_ms``, after the VAD's own hangover)."""

    at_ms: float
    end_ms: float


@dataclass(frozen=True, slots=True)
class PartialHeard:
    """The recogniser's text so far, while the user speaks.

    What the first of two passes heard is shown and not acted on: the second will rewrite it. What
    the second makes of a turn that goes on (where ``stable`` is less than ``text``) is acted on and
    not shown.
    """

    at_ms: float
    text: str
    stable: str
    heard_by: HeardBy = ""


@dataclass(frozen=True, slots=True)
class PauseTranscribed:
    """The text of the utterance up to pause number ``pause``.

    Attributes:
        said: What the agent said in the seconds before, "" if it was silent.
        wasted_share: Share (0 to 1) of the work made ahead in this session that was for nothing.
        heard_by: Of two passes, which one's text it is.
        ending: The recogniser's own probability that the turn ends here, by its sound; None where
            it cannot say.
    """

    at_ms: float
    pause: int
    text: str
    said: str = ""
    wasted_share: float = 0.0
    heard_by: HeardBy = ""
    ending: float | None = None


@dataclass(frozen=True, slots=True)
class TextJudged:
    """The language model's probability that the text that ``answer`` answers is a whole turn.

    Attributes:
        probability: None where the model cannot say.
        draft: What the quicker of two passes heard of it, "" where that was not asked.
        draft_probability: The same of that; None where it was not asked.
        more: It is being asked, and another event will tell.
    """

    at_ms: float
    answer: int
    probability: float | None
    draft: str = ""
    draft_probability: float | None = None
    more: bool = False


@dataclass(frozen=True, slots=True)
class OverlapHeard:
    """The recogniser's words of speech over the agent's answer.

    Attributes:
        probe: Number of the :class:`TranscribeOverlap` that this answers; 0 for a partial that
            the recogniser gave unasked.
        text: All words of the utterance so far, "" for none.
        said: What the agent says around the playback position.
        remaining_ms: How much of what has been made of the answer is still to be heard; None
            while more is being made.
        heard_by: Of two passes, which one's text it is.
        nod: Probability that the speech so far is a nod, by its sound; None where the recogniser
            cannot say.
    """

    at_ms: float
    probe: int
    text: str
    said: str = ""
    remaining_ms: float | None = None
    heard_by: HeardBy = ""
    nod: float | None = None


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
    SpeechSuspected
    | SpeechDismissed
    | SpeechStarted
    | SpeechContinued
    | SpeechPaused
    | PartialHeard
    | PauseTranscribed
    | PauseJudged
    | TextJudged
    | OverlapHeard
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
    """Ask for the text of the utterance so far; :class:`PauseTranscribed` answers."""

    pause: int


@dataclass(frozen=True, slots=True)
class JudgePause:
    """Ask the end-of-turn model for its word on the sound so far; :class:`PauseJudged` answers."""

    pause: int


@dataclass(frozen=True, slots=True)
class TranscribeOverlap:
    """Ask for the words of the utterance so far, quickly; :class:`OverlapHeard` answers."""

    probe: int


@dataclass(frozen=True, slots=True)
class PrepareAnswer:
    """Begin answer ``answer`` to ``text``; hold its sound until :class:`ReleaseAnswer`.

    It replaces an earlier answer that was prepared and not released.

    Attributes:
        sure_from: Where the words are less likely whole than this, the language model's word on
            what another pass heard is wanted too; None: it is not.
        by_hearing: The recogniser itself has judged the sound beside the words.
        carried: Words of ``text`` that were said before the newest utterance.
    """

    answer: int
    text: str
    sure_from: float | None = None
    by_hearing: bool = False
    carried: str = ""


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
class DuckAnswer:
    """Turn the agent's voice down at once: somebody may be speaking."""

    answer: int


@dataclass(frozen=True, slots=True)
class RestoreAnswer:
    """Turn the agent's voice up again: it was nothing."""

    answer: int


@dataclass(frozen=True, slots=True)
class HoldAnswer:
    """Pause the answer and keep all of it."""

    answer: int


@dataclass(frozen=True, slots=True)
class ResumeAnswer:
    """Go on with a held answer, from the start of the word in which it was held."""

    answer: int


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
    | JudgePause
    | TranscribeOverlap
    | PrepareAnswer
    | ReleaseAnswer
    | DropAnswer
    | DuckAnswer
    | RestoreAnswer
    | HoldAnswer
    | ResumeAnswer
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
    """Words of the user or of the agent. Final agent text is what was *heard* of the answer.

    ``heard_by`` says which of two passes wrote down the user's.
    """

    at_ms: float
    role: Literal["user", "agent"]
    text: str
    final: bool
    interrupted: bool = False
    heard_by: HeardBy = ""


@dataclass(frozen=True, slots=True)
class ClearNotice:
    """Audio that was sent and not yet played must be dropped."""

    at_ms: float


@dataclass(frozen=True, slots=True)
class MetricsNotice:
    """One turn's spans: milliseconds after the end of the user's speech, by name.

    ``speculation`` counts the session's work so far, by the names of
    :meth:`edgevoice.speculation.Speculation.figures`.
    """

    at_ms: float
    turn: int
    spans_ms: dict[str, float] = field(default_factory=dict)
    speculation: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DecisionNotice:
    """A turn-taking decision and the evidence for it."""

    at_ms: float
    decision: str
    evidence: dict[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProviderNotice:
    """What a stage's weights run on (``cpu``, ``qnn``...), said when a session begins.

    ``passed_over`` has a line for each execution provider that was tried before, with the reason.
    """

    at_ms: float
    stage: str
    provider: str
    detail: str = ""
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadNotice:
    """The work was made less, or full again, by one step: latency budgets or heat called for it.

    Attributes:
        direction: ``down``: less work.
        step: Which one, of :class:`edgevoice.load_policy.Step`.
        figure: What decided: ``response_ms``, ``recognition_rtf``, ``gap_ms``, ``temperature_c``
            or ``throttling``.
        value: The figure, as it was last seen.
        bound: What is allowed; 0 where there is no bound.
        detail: One line for people.
        taken: The steps that are in force from now on.
    """

    at_ms: float
    direction: Literal["down", "up"]
    step: str
    figure: str
    value: float
    bound: float
    detail: str
    taken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ErrorNotice:
    """Something failed; the session goes on unless ``fatal``."""

    at_ms: float
    message: str
    fatal: bool = False


Notice: TypeAlias = (
    StateNotice
    | TranscriptNotice
    | ClearNotice
    | MetricsNotice
    | DecisionNotice
    | ProviderNotice
    | LoadNotice
    | ErrorNotice
)
