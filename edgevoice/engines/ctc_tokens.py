"""The tokens of a CTC pack, and how words are spelled with them.

A tokens.txt has letters, and ``▁`` alone between words; or it has pieces of words, as byte-pair
encoding makes them. Of pieces, those that begin a word begin with ``▁`` (sentencepiece's mark,
which sherpa-onnx writes as a space), and ``▁`` alone is none. Every letter is a piece by itself, at
the beginning of words and inside, so that any word can be spelled; the others stand in the order in
which they were learned. Owns the spelling; which tokens there are is the exporter's choice.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgevoice.engines import byte_pairs

BLANK, SPACE = "<blk>", "▁"
NO_SPACE = 0
"""Stands for the number of ``▁`` where pieces begin words: the blank's, which spells nothing."""


class Speller:
    """Spells words with tokens, wherever one is spelled in the same way.

    Args:
        tokens: In the order of their numbers, the blank first.

    Attributes:
        space: Number of the token between words, or :data:`NO_SPACE`.
        letters: What words can be written with.

    >>> Speller(["<blk>", "▁", "o", "t"]).spell("toot")
    [3, 2, 2, 3]
    >>> Speller(["<blk>", "▁o", "▁t", "o", "t", "▁to"]).spell("toot")
    [5, 3, 4]
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self._numbers = {token: number for number, token in enumerate(tokens)}
        self.space = self._numbers.get(SPACE, NO_SPACE)
        self.letters = "".join(t for t in self._numbers if len(t) == 1 and t != SPACE)

    def spell(self, word: str) -> list[int]:
        """Return the numbers of the tokens of ``word``, which has letters, all of them ours."""
        if self.space != NO_SPACE:
            return [self._numbers[letter] for letter in word]
        return byte_pairs.join([SPACE + word[0], *word[1:]], self._numbers)
