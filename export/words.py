"""Word errors: what a text is normalised to before words are compared, and how many differ.

Owns the normalisation and the count. What is compared is the checks' business.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_NO_WORD = re.compile(r"[^\w\s']")
# Chinese, Japanese and Thai write no spaces between words: a character counts as one, as in the
# character error rates that are reported for them.
_SPACELESS = re.compile(r"([\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")

_NUMBERS = {
    "2": "two", "6": "six", "7": "seven", "9": "nine", "10": "ten", "12": "twelve", "20": "twenty",
    "42": "forty two", "100": "one hundred",
}  # fmt: skip


def normalise(text: str) -> tuple[str, ...]:
    """Split ``text`` into words: lower case, no punctuation but apostrophes inside words.

    >>> normalise("Mr. O'Neill's half-hour, 'tis said!")
    ('mr', "o'neill's", 'half', 'hour', 'tis', 'said')
    """
    plain = _NO_WORD.sub(" ", unicodedata.normalize("NFKC", text).replace("’", "'").lower())
    words = (word.strip("'") for word in _SPACELESS.sub(r" \1 ", plain).split())
    return tuple(word for word in words if word)


def spelled(text: str) -> tuple[str, ...]:
    """Return :func:`normalise`'s words, with the figures that Whisper likes spelled out.

    >>> spelled("It's 10 o'clock, isn't it?")
    ("it's", 'ten', "o'clock", "isn't", 'it')
    """
    return tuple(part for word in normalise(text) for part in _NUMBERS.get(word, word).split())


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Return the fewest substitutions, deletions and insertions from ``said`` to ``heard``.

    >>> word_errors(normalise("the cat sat"), normalise("a cat sat down"))
    2
    """
    before = list(range(len(heard) + 1))
    for row, expected in enumerate(said, start=1):
        now = [row]
        for column, found in enumerate(heard, start=1):
            changed = before[column - 1] + (expected != found)
            now.append(min(before[column] + 1, now[-1] + 1, changed))
        before = now
    return before[-1]
