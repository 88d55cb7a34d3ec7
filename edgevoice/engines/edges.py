"""Turns the VAD's probabilities, window by window, into the edges of speech.

Owns the thresholds, the two durations that make an edge (least speech, least silence) and the
back-dating of onset and end. Knows no clock: its time base is milliseconds of audio since the
stream started, by window count. What the edges mean for the conversation is the turn-taking's
business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Started:
    """Speech of at least the least duration has been heard; it began at ``onset_ms``."""

    onset_ms: float


@dataclass(frozen=True, slots=True)
class Continued:
    """Speech goes on, ``speech_ms`` after its onset (short gaps counted in)."""

    speech_ms: float


@dataclass(frozen=True, slots=True)
class Paused:
    """Silence of at least the least duration has been heard; speech ended at ``end_ms``."""

    end_ms: float


Edge: TypeAlias = Started | Continued | Paused

_STAYS = 0.15
"""Speech goes on while its probability is less than this below the threshold (Silero's own
``get_speech_timestamps``)."""

_FAINT = 0.5
"""Share of the threshold from which speech may have begun: of 25 users who interrupt, nine of ten
are so noticed within 110 ms of their first sound, and within 250 at the threshold itself."""


class SpeechEdges:
    """One conversation's edge detector.

    Args:
        window_ms: Audio of one decision.
        threshold: Probability from which a window is speech.
        min_speech_ms: Speech shorter than this is not reported. Windows of speech count up from
            the first one until silence of ``min_silence_ms`` starts the count again.
        min_silence_ms: Silence shorter than this does not end speech.
    """

    def __init__(
        self,
        window_ms: float,
        *,
        min_speech_ms: float,
        min_silence_ms: float,
        threshold: float = 0.5,
    ) -> None:
        self._window_ms = window_ms
        self._threshold = threshold
        self._min_speech_ms = min_speech_ms
        self._min_silence_ms = max(min_silence_ms, window_ms)
        self._windows = 0
        self._onset_ms: float | None = None
        self._end_ms = 0.0
        self._speech_ms = 0.0
        self._speaking = False
        self._faint_ms: float | None = None

    @property
    def heard_ms(self) -> float:
        """Audio decided on since the stream started."""
        return self._windows * self._window_ms

    @property
    def speaking(self) -> bool:
        """Whether the last edge was not a :class:`Paused`."""
        return self._speaking

    @property
    def suspected_ms(self) -> float | None:
        """Onset of speech that is too short to report so far, None without any."""
        return None if self._speaking else self._onset_ms

    @property
    def faint(self) -> bool:
        """Whether it may be speech just now, even if no window is likely enough to say so."""
        return self._faint_ms is not None and self.heard_ms - self._faint_ms < self._min_silence_ms

    @property
    def quiet(self) -> bool:
        """Whether the newest window was silent, though perhaps not long enough for a pause."""
        return self._onset_ms is None or self._end_ms < self.heard_ms

    def feed(self, probabilities: Iterable[float]) -> Iterator[Edge]:
        """Take one probability a window, in order; yield the edges that they complete."""
        for probability in probabilities:
            begin_ms = self.heard_ms
            self._windows += 1
            if probability >= _FAINT * self._threshold:
                self._faint_ms = self.heard_ms
            needed = self._threshold - (_STAYS if self._speaking else 0.0)
            edge = self._voiced(begin_ms) if probability >= needed else self._silent()
            if edge is not None:
                yield edge

    def reset(self) -> None:
        """Forget the speech under way; the time base goes on."""
        self._onset_ms = None
        self._speech_ms = 0.0
        self._speaking = False
        self._faint_ms = None

    def _voiced(self, begin_ms: float) -> Edge | None:
        if self._onset_ms is None:
            self._onset_ms = begin_ms
            self._speech_ms = 0.0
        self._speech_ms += self._window_ms
        self._end_ms = self.heard_ms
        if self._speaking:
            return Continued(self.heard_ms - self._onset_ms)
        if self._speech_ms >= self._min_speech_ms:
            self._speaking = True
            return Started(self._onset_ms)
        return None

    def _silent(self) -> Edge | None:
        if self._onset_ms is None or self.heard_ms - self._end_ms < self._min_silence_ms:
            return None
        was_speaking = self._speaking
        self.reset()
        return Paused(self._end_ms) if was_speaking else None
