"""Spans of one turn and percentiles over many.

A turn's marks are points in time; its spans are how long after the end of the user's speech each
mark came. What the figures are called is what the field calls them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

Mark = Literal[
    "speech_end",
    "paused",
    "transcribed",
    "judged",
    "first_token",
    "first_clause",
    "first_audio",
    "endpoint",
    "first_sound",
]
MARKS: tuple[Mark, ...] = get_args(Mark)
"""In the order in which they usually come. ``paused``: the VAD knew; ``endpoint``: the turn was
over; ``first_audio``: the first samples of speech were made; ``first_sound``: they were played."""


class TurnMarks:
    """Collects the marks of the turn under way."""

    def __init__(self) -> None:
        self._at_ms: dict[Mark, float] = {}

    def restart(self, speech_end_ms: float, paused_ms: float) -> None:
        """Begin anew with a pause: marks of an earlier pause belong to work that was dropped."""
        self._at_ms = {"speech_end": speech_end_ms, "paused": paused_ms}

    def mark(self, name: Mark, at_ms: float) -> None:
        """Note ``name`` at ``at_ms``; only the first time counts."""
        self._at_ms.setdefault(name, at_ms)

    def spans_ms(self) -> dict[str, float]:
        """Return milliseconds from the end of speech to each mark that was set."""
        start = self._at_ms.get("speech_end")
        if start is None:
            return {}
        later = (name for name in MARKS[1:] if name in self._at_ms)
        return {name: round(self._at_ms[name] - start, 1) for name in later}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the ``share`` (0 to 100) percentile by linear interpolation, nan for no values.

    The same definition as numpy's default (Hyndman and Fan, type 7).

    >>> percentile([1.0, 2.0, 3.0, 4.0], 50)
    2.5
    """
    if not values:
        return math.nan
    ordered = sorted(values)
    position = (len(ordered) - 1) * share / 100.0
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
