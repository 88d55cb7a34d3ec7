"""Runs the decisions of a taped conversation again, under other settings.

The tape's microphone goes, frame by frame and in lock step, through everything that decides: the
echo canceller (with the tape's agent track as what was played), the VAD, the recogniser, the
end-of-turn model and the session's turn-taking. So a replay stays true whatever turn-taking
becomes, and settings of any of these stages can be tried. What answers is the tape: its texts in
place of the language model, silence of their recorded length in place of the voice, begun when
the taped answer began.

What a replay cannot know: how the user would have gone on had the agent stopped earlier or later,
and how long the models took. Compare therefore two replays, under the tape's own settings and
under others, and not a replay with the live conversation.
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice import config
from edgevoice.audio.cleaning import clean_caller
from edgevoice.audio.resample import resample
from edgevoice.audio.wav import read_wav
from edgevoice.audio.wav_port import WavSink, WavSource
from edgevoice.errors import ConfigError
from edgevoice.events import DecisionNotice, Notice, TextJudged
from edgevoice.frames import (
    FRAME_SAMPLES,
    SAMPLE_RATE_HZ,
    Float32,
    Int16,
    ms_to_samples,
    samples_to_ms,
    to_int16,
)
from edgevoice.loading import Hearing
from edgevoice.session import Pace, Session
from edgevoice.settings import Settings
from edgevoice.stages import Cancelled, Ending, Message, never
from edgevoice.tape import AGENT, EVENTS, SETTINGS, USER
from edgevoice.weights import Engines

_SAME_MS = 2000.0
"""Two decisions of one kind that are no further apart are one that moved."""

_JUST_BEGUN_MS = 500.0

_TAIL_S = 3.0
_DEFAULT_RATE_MS = 65.0
"""A character's length in speech, where nothing was heard from which to tell."""

_GAP_SAMPLES = ms_to_samples(700)
_QUIET = 16
_PATIENCE_SAMPLES = ms_to_samples(3000)
"""An answer that the tape did not begin within this time is begun now."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One turn-taking decision: ``at_ms`` on the tape's time axis."""

    at_ms: float
    decision: str
    evidence: dict[str, float | str]


@dataclass(frozen=True, slots=True)
class TapedAnswer:
    """One answer of the tape: its whole text as far as it was written, and how it sounded."""

    text: str
    began_ms: float
    rate_ms: float


@dataclass(frozen=True, slots=True)
class TapedEnding:
    """What the language model said of the end of a turn: :class:`edgevoice.events.TextJudged`."""

    at_ms: float
    probability: float
    draft: float | None


@dataclass(frozen=True, slots=True)
class Recording:
    """A tape that was read.

    Attributes:
        settings: Of the taped conversation.
        user: The microphone, int16, 16 kHz, shape ``[n]``.
        agent: What was played, shape ``[n]``.
        decisions: What was decided then.
        answers: What the agent said then.
        endings: When the language model weighed the words of a turn, and what it said.
        drafts: What the quicker of two passes heard, where that was weighed.
    """

    settings: Settings
    user: Int16
    agent: Int16
    decisions: tuple[Decision, ...]
    answers: tuple[TapedAnswer, ...]
    endings: tuple[TapedEnding, ...] = ()
    drafts: frozenset[str] = frozenset()


def read_tape(folder: Path) -> Recording:
    """Read the tape in ``folder``, as far as it goes.

    Raises:
        ConfigError: It is no tape, or one of other settings than this version knows.
        AudioError: A track is damaged or empty.
    """
    if not (folder / SETTINGS).is_file():
        inside = sorted(p.parent.name for p in folder.glob(f"*/{SETTINGS}"))
        hint = f"name one of those in it: {', '.join(inside[-5:])}" if inside else "see --record"
        raise ConfigError(f"{folder} is no recording (it has no {SETTINGS}); {hint}")
    user, agent = (_track(folder / name) for name in (USER, AGENT))
    length = min(user.size, agent.size)
    lines = list(_lines(folder / EVENTS))
    decisions = tuple(
        Decision(line["heard_ms"], line["decision"], line["evidence"])
        for line in lines
        if line["kind"] == DecisionNotice.__name__
    )
    settings = config.load(folder / SETTINGS)
    endings = tuple(
        TapedEnding(line["heard_ms"], line["probability"], line.get("draft_probability"))
        for line in lines
        if line["kind"] == TextJudged.__name__ and line["probability"] is not None
    )
    answers = _answers(lines, agent[:length])
    drafts = frozenset(
        line["draft"] for line in lines if line["kind"] == TextJudged.__name__ and line.get("draft")
    )
    return Recording(settings, user[:length], agent[:length], decisions, answers, endings, drafts)


def rerun(recording: Recording, settings: Settings, hearing: Hearing) -> list[Decision]:
    """Hold the taped conversation again in lock step; return what was decided.

    Args:
        recording: The tape.
        settings: To decide by.
        hearing: Loaded for ``settings``.
    """
    source = WavSource(recording.user, "fast", _TAIL_S)
    sink = _TapedSink(recording.agent, [answer.began_ms for answer in recording.answers])
    decided: list[Decision] = []

    def watch(notice: Notice) -> None:
        if isinstance(notice, DecisionNotice):
            decided.append(Decision(notice.at_ms, notice.decision, notice.evidence))

    def now_ms() -> float:
        return samples_to_ms(source.delivered_samples)

    voice = _TapedAnswers(recording, now_ms)
    Session(
        Engines(hearing.vad, hearing.recogniser, hearing.end_of_turn, voice, voice),
        settings,
        source,
        sink,
        watch,
        pace=Pace.LOCK_STEP,
        echo_canceller=clean_caller(settings.audio),
    ).run()
    return decided


def compare(
    before: Sequence[Decision], after: Sequence[Decision]
) -> list[tuple[Decision | None, Decision | None]]:
    """Pair what two runs decided, in order of time; None stands where one has no such decision."""
    left = list(after)
    pairs: list[tuple[Decision | None, Decision | None]] = []
    for decision in before:
        same = [
            other
            for other in left
            if other.decision == decision.decision and abs(other.at_ms - decision.at_ms) <= _SAME_MS
        ]
        nearest = min(same, key=lambda other: abs(other.at_ms - decision.at_ms), default=None)
        if nearest is not None:
            left.remove(nearest)
        pairs.append((decision, nearest))
    pairs += [(None, other) for other in left]
    return sorted(pairs, key=lambda pair: next(d.at_ms for d in pair if d is not None))


def _track(path: Path) -> Int16:
    samples, rate_hz = read_wav(path)
    return to_int16(resample(samples, rate_hz, SAMPLE_RATE_HZ))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects; the last line may be cut off."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def _answers(lines: Sequence[dict[str, Any]], agent: Int16) -> tuple[TapedAnswer, ...]:
    """Put the agent's words and its sound together."""
    onsets, ends = _sounding(agent)
    answers: list[TapedAnswer] = []
    written, began = "", None
    for line in lines:
        kind = line["kind"]
        if kind == "AnswerSounded":
            began = line["heard_ms"]
        elif kind == "TranscriptNotice" and line["role"] == "agent":
            if not line["final"]:
                written = line["text"]
                continue
            heard = line["text"]
            if began is not None:
                index = bisect.bisect_left(onsets, began - 300.0)
                onset = onsets[index] if index < len(onsets) else began
                end = next((e for e in ends if e > onset), line["heard_ms"])
                rate = (min(end, line["heard_ms"]) - onset) / max(1, len(heard))
                likely = rate if 20.0 < rate < 200.0 else _DEFAULT_RATE_MS
                text = written if written.startswith(heard) else heard
                answers.append(TapedAnswer(text, onset, likely))
            written, began = "", None
    return tuple(answers)


def _sounding(agent: Int16) -> tuple[list[float], list[float]]:
    """Return onsets and ends (ms) of the stretches in which the agent sounds."""
    loud = np.flatnonzero(np.abs(agent) > _QUIET)
    if not loud.size:
        return [], []
    breaks = np.flatnonzero(np.diff(loud) > _GAP_SAMPLES)
    first = loud[np.concatenate(([0], breaks + 1))]
    last = loud[np.concatenate((breaks, [loud.size - 1]))]
    return [samples_to_ms(int(i)) for i in first], [samples_to_ms(int(i)) for i in last]


class _TapedSink(WavSink):
    """Begins an answer when the tape did; its reference is what the tape played."""

    def __init__(self, agent: Int16, began_ms: Sequence[float]) -> None:
        super().__init__(None, "fast")
        self._agent = agent
        self._onsets = [ms_to_samples(ms) for ms in began_ms]
        self._at = 0
        self._begins_at: int | None = None

    def last_played(self, count: int) -> Int16:
        """Return what the tape played in this frame."""
        out = np.zeros(count, dtype=np.int16)
        part = self._agent[self._at : self._at + count]
        out[: part.size] = part
        return out

    def advance(self, samples: int) -> None:
        """Let time pass; an answer that the tape has not begun yet waits."""
        if not self.playout.queued_samples():
            self._begins_at = None
        elif self._begins_at is None:
            self._begins_at = self._beginning()
        if self._begins_at is not None and self._at >= self._begins_at:
            super().advance(samples)
        self._at += samples

    def _beginning(self) -> int:
        soon = [o for o in self._onsets if self._at <= o <= self._at + _PATIENCE_SAMPLES]
        return min(soon, default=self._at)


class _TapedAnswers:
    """Language model and voice of a replay: says what the tape says next, without a sound."""

    sample_rate_hz = SAMPLE_RATE_HZ
    context_tokens = 1 << 20

    def __init__(self, recording: Recording, now_ms: Callable[[], float]) -> None:
        self._answers = recording.answers
        self._endings = recording.endings
        self._drafts = recording.drafts
        self._now_ms = now_ms

    def open(self) -> _TapedAnswers:
        return self

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return len(messages)

    def prefill(self, messages: Sequence[Message], cancelled: Cancelled = never) -> int:
        del messages, cancelled
        return 0

    def ending(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        del cancelled
        now_ms = self._now_ms()
        near = min(self._endings, key=lambda ending: abs(ending.at_ms - now_ms), default=None)
        if near is None or abs(near.at_ms - now_ms) > _SAME_MS / 2:
            return None
        drafted = messages[-1].content in self._drafts
        probability = near.draft if drafted and near.draft is not None else near.probability
        return Ending(probability, 0, 0)

    def begin(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        return self.ending(messages, cancelled)

    def generate(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Iterator[str]:
        del messages, cancelled
        yield self._next().text

    def synthesise(self, text: str, cancelled: Cancelled = never) -> Iterator[Float32]:
        del cancelled
        rate_ms = self._next().rate_ms
        length = math.ceil(ms_to_samples(len(text) * rate_ms) / FRAME_SAMPLES) * FRAME_SAMPLES
        yield np.zeros(length, dtype=np.float32)

    def close(self) -> None:
        """Nothing to free."""

    def _next(self) -> TapedAnswer:
        """Return the answer that the tape begins next, or began last."""
        if not self._answers:
            return TapedAnswer("Yes.", self._now_ms(), _DEFAULT_RATE_MS)
        later = [a for a in self._answers if a.began_ms >= self._now_ms() - _JUST_BEGUN_MS]
        return later[0] if later else self._answers[-1]
