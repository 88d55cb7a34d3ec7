"""Whether words that were heard are the agent's own, come back through the microphone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

_ALIKE = 0.7
"""Ratio (Ratcliff and Obershelp) from which two words are one: an echo is recognised badly."""


def echo_similarity(heard: Sequence[str], said: Sequence[str]) -> float:
    """Return the share (0 to 1) of the words ``heard`` that the agent says, in the same order.

    Words count by their letters: an agent that speaks says "in" and "the" all the time, and a
    user's "in the moment" (which was "wait a moment") is not its echo for that.

    Args:
        heard: Words of the speech over the agent, as :func:`edgevoice.phrases.words` gives them.
        said: The agent's words around the playback position.

    >>> echo_similarity(["capital", "of", "frans"], ["the", "capital", "of", "france", "is"])
    1.0
    >>> echo_similarity(["no", "stop", "the"], ["the", "capital"])
    0.3333333333333333
    """
    if not heard or not said:
        return 0.0
    # The heaviest common subsequence, one row at a time.
    row = [0] * (len(said) + 1)
    for word in heard:
        above = row
        row = [0]
        for index, other in enumerate(said):
            match = above[index] + (min(len(word), len(other)) if _alike(word, other) else 0)
            row.append(max(match, row[index], above[index + 1]))
    return row[-1] / sum(map(len, heard))


def _alike(one: str, other: str) -> bool:
    if one == other:
        return True
    if min(len(one), len(other)) < 3:
        return False
    return SequenceMatcher(None, one, other, autojunk=False).ratio() >= _ALIKE
