"""Where in an answer the speaker is, in words, and where a held answer goes on. Pure.

Sound and text are matched in proportion within each clause; the place to go on at is then moved
to the nearest quiet spot, which is where a voice parts its words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgevoice.frames import Int16, ms_to_samples

_LONGEST_WORD = ms_to_samples(1500)
_BEFORE = ms_to_samples(200)
_BEHIND = ms_to_samples(40)
_WINDOW = ms_to_samples(10)
"""Of the search for quiet. Words are estimated late rather than early where a clause begins
slowly, so more is searched before the estimate than behind it."""


def word_starts(parts: Sequence[tuple[str, int]]) -> Iterator[tuple[int, str]]:
    """Yield each word with the sample at which it is estimated to begin.

    Args:
        parts: Text and samples of each clause, in the order in which they are spoken.
    """
    begin = 0
    for text, samples in parts:
        position = 0
        for word in text.split():
            position = text.index(word, position)
            yield begin + samples * position // max(len(text), 1), word
            position += len(word)
        begin += samples


def cut_word_start(parts: Sequence[tuple[str, int]], cut: int) -> int:
    """Return the sample at which the word that sounds at sample ``cut`` is estimated to begin."""
    started = (start for start, _ in word_starts(parts) if start < cut)
    return max(cut - _LONGEST_WORD, max(started, default=0))


def words_between(parts: Sequence[tuple[str, int]], begin: int, end: int) -> str:
    """Return the words that begin between two samples."""
    return " ".join(word for start, word in word_starts(parts) if begin <= start < end)


def quiet_spot(audio: Int16, at: int) -> int:
    """Return the middle of the quietest 10 ms around sample ``at`` of ``audio`` (int16, [n])."""
    begin = max(0, at - _BEFORE)
    near = audio[begin : at + _BEHIND].astype(np.float64)
    if len(near) < 2 * _WINDOW:
        return min(at, len(audio))
    energy = np.convolve(np.square(near), np.ones(_WINDOW), "valid")
    return begin + int(np.argmin(energy)) + _WINDOW // 2
