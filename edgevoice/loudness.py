"""How loud the speech under way is, against how loud this user usually speaks. Pure.

A television or people across the room are 15 to 20 dB quieter at the microphone than who speaks
to the agent; one user's turns differ by a few decibels.
"""

from __future__ import annotations

import math

import numpy as np

from edgevoice.frames import Float32

_SHARE = 90.0
"""Percentile of the frames' power: vowels count, a knock among them does not."""

_NEWEST = 0.3
"""Of the usual loudness: one turn is not yet a habit."""

_REMEMBERED_FRAMES = 3000


def power_of(samples: Float32) -> float:
    """Return the mean square of a frame: float32, 1.0 at full scale."""
    return float(np.mean(np.square(samples)))


class Loudness:
    """One conversation's."""

    def __init__(self) -> None:
        self._powers: list[float] = []
        self._before: list[float] = []
        self._speaking = False
        self._usual_db: float | None = None

    def hear(self, power: float, *, in_speech: bool) -> None:
        """Take the next frame's :func:`power_of`; ``in_speech``: the VAD hears speech, or suspects
        it."""
        if in_speech and not self._speaking:
            # The VAD knows a window late.
            self._powers = self._before[-3:]
        self._speaking = in_speech
        if in_speech:
            self._powers = [*self._powers[-_REMEMBERED_FRAMES:], power]
        self._before = [*self._before[-3:], power]

    def learn(self) -> None:
        """Take the speech that was heard last for a turn of the user's."""
        level_db = self._level_db()
        if level_db is None:
            return
        usual_db = level_db if self._usual_db is None else self._usual_db
        self._usual_db = usual_db + _NEWEST * (level_db - usual_db)

    def margin_db(self) -> float | None:
        """Return how much louder the speech under way is than usual; None while nothing is."""
        level_db = self._level_db()
        if level_db is None or self._usual_db is None:
            return None
        return round(level_db - self._usual_db, 1)

    def _level_db(self) -> float | None:
        if not self._powers:
            return None
        return 10.0 * math.log10(max(float(np.percentile(self._powers, _SHARE)), 1e-12))
