"""Whether speech has just died away, told from loudness alone and sooner than a VAD does. Pure.

Silero keeps saying speech for some 80 ms behind the last sound, and a pause is known two windows
later; the words can be looked for meanwhile. It is a guess: the closure of a "t" dies away as well.
"""

from __future__ import annotations

import math

from edgevoice.frames import FRAME_MS

_QUIET = 0.025
"""Of the loudest frame: what stays below holds no more words, and a recogniser does not decode for
it again (:data:`edgevoice.engines.segmented_recogniser.QUIET_RATIO`, a little more)."""

_DIED_MS = 40.0
"""Stops close for 50 to 100 ms, vowels never sink so far for so long."""

_LOUD_MS = 100.0
"""Sound since the last time; what is less is no word."""


class Waning:
    """One conversation's."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin a new utterance."""
        self._loudest = 0.0
        self._loud_ms = 0.0
        self._quiet_ms = 0.0

    def hear(self, power: float) -> bool:
        """Take the next frame's :func:`~edgevoice.loudness.power_of`; say, once each time, that
        the speech has died away."""
        level = math.sqrt(power)
        self._loudest = max(self._loudest, level)
        if level > _QUIET * self._loudest:
            self._loud_ms += FRAME_MS
            self._quiet_ms = 0.0
            return False
        self._quiet_ms += FRAME_MS
        if self._quiet_ms < _DIED_MS or self._loud_ms < _LOUD_MS:
            return False
        self._loud_ms = 0.0
        return True
