"""What a recogniser writes: texts to numbers of tokens and back, tokens.txt, letters to begin with.

Number 0 is CTC's blank; in an alphabet of letters the space follows (``▁`` in tokens.txt), in one
of pieces those that begin a word begin with ``▁``. Owns no normalisation: texts come as
transcripts. Words are spelled by :mod:`edgevoice.engines.ctc_tokens`, pieces learned by
:mod:`edgevoice.export.distil.pieces`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from edgevoice.engines.ctc_tokens import BLANK, NO_SPACE, SPACE, Speller

LEAST = 20
"""Times that a letter or a piece must occur: what is heard less often is not learned."""
_LAST_OF_BYTES = 0xC6


class Alphabet:
    """The tokens in the order of their numbers.

    Args:
        tokens: Blank first.

    Attributes:
        between: Numbers of what stands between two texts: the space, or nothing.
        letters: What can be written.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tuple(tokens)
        self._speller = Speller(tokens)
        self.letters = self._speller.letters
        self.between = [] if self._speller.space == NO_SPACE else [self._speller.space]

    def covers(self, text: str) -> bool:
        """Say whether every character of ``text`` can be written."""
        return set(text) <= {" ", *self.letters}

    def encode(self, text: str) -> list[int]:
        """Return the numbers of ``text``, which the alphabet covers."""
        numbers: list[int] = []
        for word in text.split():
            numbers += [*self.between, *self._speller.spell(word)]
        return numbers[len(self.between) :]

    def decode(self, best: Iterable[int]) -> str:
        """Return the text of the best token of each frame: repetitions merged, blanks dropped."""
        found, before = [], 0
        for number in best:
            if number not in (before, 0):
                found.append(self.tokens[number])
            before = number
        return " ".join("".join(found).replace(SPACE, " ").split())

    def summary(self) -> str:
        """Return a few words: what kind it is of and how large."""
        kind = f"{len(self.letters)} letters"
        return kind if self.between else f"{len(self.tokens)} pieces of {kind}"

    def file(self) -> str:
        """Return the content of tokens.txt."""
        return "".join(f"{token} {number}\n" for number, token in enumerate(self.tokens))


def least_frames(numbers: Sequence[int]) -> int:
    """Return how many output frames CTC needs to write ``numbers``: a blank between equal ones.

    >>> least_frames([3, 5, 5, 2])
    5
    """
    return len(numbers) + sum(a == b for a, b in pairwise(numbers))


def of(letters: Iterable[str]) -> Alphabet:
    """Return the alphabet of single ``letters``.

    >>> of("oben").tokens
    ('<blk>', '▁', 'b', 'e', 'n', 'o')
    """
    return Alphabet((BLANK, SPACE, *sorted(set(letters) - {" "})))


def taken_for_bytes(letters: Iterable[str]) -> str:
    """Return the letters for which sherpa-onnx would take an alphabet for one of bytes.

    It does where the highest byte of all letters is C6, which icefall's byte-level pieces end with
    (``symbol-table.cc``), and then writes something else, or nothing.

    >>> taken_for_bytes("aƙñ"), taken_for_bytes("aƙɓ")
    ('ƙ', '')
    """
    highest = {letter: max(letter.encode()) for letter in letters}
    if max(highest.values(), default=0) != _LAST_OF_BYTES:
        return ""
    return "".join(letter for letter, byte in highest.items() if byte == _LAST_OF_BYTES)


def letters_of(texts: Iterable[str], least: int = LEAST) -> str:
    """Return the letters of transcripts: what occurs at least ``least`` times in them.

    >>> letters_of(["to be", "or be"], 2)
    'beo'
    """
    counts = Counter(letter for text in texts for letter in text)
    return "".join(sorted(x for x, found in counts.items() if found >= least and x != " "))
