"""The characters that a recogniser writes: their numbers, tokens.txt, and greedy decoding.

Number 0 is CTC's blank, 1 the space (``▁`` in tokens.txt, as sentencepiece writes it). Owns no
normalisation: texts come as transcripts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

BLANK, SPACE = "<blk>", "▁"


@dataclass(frozen=True, slots=True)
class Alphabet:
    """The tokens in the order of their numbers, blank and space first."""

    tokens: Sequence[str]

    def covers(self, text: str) -> bool:
        """Say whether every character of ``text`` has a number."""
        return set(text) <= {" ", *self.tokens[2:]}

    def encode(self, text: str) -> list[int]:
        """Return the numbers of ``text``, which the alphabet covers."""
        numbers = {token: number for number, token in enumerate(self.tokens)}
        return [numbers[SPACE if letter == " " else letter] for letter in text]

    def decode(self, best: Iterable[int]) -> str:
        """Return the text of the best token of each frame: repetitions merged, blanks dropped."""
        letters, before = [], 0
        for number in best:
            if number not in (before, 0):
                letters.append(self.tokens[number])
            before = number
        return " ".join("".join(letters).replace(SPACE, " ").split())

    def file(self) -> str:
        """Return the content of tokens.txt."""
        return "".join(f"{token} {number}\n" for number, token in enumerate(self.tokens))


def of(texts: Iterable[str], least: int = 20) -> Alphabet:
    """Return the alphabet of transcripts: what occurs at least ``least`` times in them.

    >>> of(["to be", "or be"], 2).tokens
    ('<blk>', '▁', 'b', 'e', 'o')
    """
    counts = Counter(letter for text in texts for letter in text)
    letters = sorted(letter for letter, found in counts.items() if found >= least)
    return Alphabet((BLANK, SPACE, *(letter for letter in letters if letter != " ")))
