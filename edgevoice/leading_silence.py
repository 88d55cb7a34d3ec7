"""Takes away the silence with which a voice begins, since the user waits for it. Pure.

Piper begins a clause with 40 to 80 ms of near-silence.
"""

from __future__ import annotations

import numpy as np

from edgevoice.frames import Float32

_SILENT = 0.01
"""40 dB below full scale: what of a voice is quieter is not heard beside its first vowel."""

_KEPT_MS = 10.0
"""Before the first louder sample, so that a soft consonant is not cut."""

_MOST_MS = 150.0
"""Longer silence is meant, and stays but for this."""


class LeadingSilence:
    """Of one stream of samples at ``rate_hz``."""

    def __init__(self, rate_hz: int) -> None:
        self._kept = round(_KEPT_MS * rate_hz / 1000.0)
        self._left = round(_MOST_MS * rate_hz / 1000.0)
        self._before: Float32 = np.zeros(0, np.float32)
        self._over = False

    def trim(self, chunk: Float32) -> Float32:
        """Return what is left of the next chunk: float32, shape ``[n]``."""
        if self._over or not chunk.size:
            return chunk
        joined = np.concatenate((self._before, chunk))
        loud = np.flatnonzero(np.abs(joined) > _SILENT)
        silent = int(loud[0]) if loud.size else joined.size
        cut = min(max(0, silent - self._kept), self._left)
        self._left -= cut
        if loud.size or not self._left:
            self._over = True
            return joined[cut:]
        self._before = joined[cut:]
        return joined[:0]
