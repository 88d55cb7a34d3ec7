"""Words that a recogniser got wrong: how texts are made comparable, and the distance."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBERS = {
    "2": "two", "6": "six", "7": "seven", "9": "nine", "10": "ten", "12": "twelve", "20": "twenty"
}  # fmt: skip


def words(text: str) -> list[str]:
    """Return the words of ``text`` in lower case; figures that Whisper likes are spelled out.

    >>> words("It's 10 o'clock, isn't it?")
    ["it's", 'ten', "o'clock", "isn't", 'it']
    """
    return [_NUMBERS.get(word, word) for word in re.findall(r"[^\W_]+(?:'\w+)*", text.casefold())]


def errors(wanted: Sequence[str], got: Sequence[str]) -> int:
    """Return how many words are wrong, missing or too many (Levenshtein's distance).

    >>> errors(["a", "b", "c"], ["a", "c", "d"])
    2
    """
    row = list(range(len(got) + 1))
    for i, word in enumerate(wanted, 1):
        above, row[0] = row[0], i
        for j, other in enumerate(got, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (word != other))
    return row[-1]
